/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The happy path: parse the options, open every pair (while this process has
 * no threads), join them, then for each way of waiting run the rounds and
 * print the rows.
 *
 * What can go wrong: a contender does not open or join, which makes its rows
 * say so; one breaks in a leg, which ends its part, and the program fails at
 * the end; the floor breaks, or the output, which ends the program at once. A
 * signal ends it after the present round trip, with the servers waited for; a
 * second one ends it where it stands, and the servers with it.
 */
#include "bench/contest.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench/contest_private.h"
#include "bench/options.h"
#include "bench/row.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "shm/histogram.h"

#define BYTES_MAX (UINT64_C(1) << 20)

/* The signal that asked us to stop, or 0. */
static volatile sig_atomic_t stop_signal;

static void note_signal(int number)
{
	stop_signal = number;
}

/* Each of them once: the second one does what it always did. */
static void watch_signals(void)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = {
		.sa_handler = note_signal,
		.sa_flags = (int)(SA_RESETHAND | SA_RESTART),
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		struct sigaction before;

		/* Whoever started us with it ignored, as nohup does, wins. */
		if (sigaction(numbers[i], NULL, &before) == 0 &&
		    before.sa_handler != SIG_IGN)
			sigaction(numbers[i], &action, NULL);
	}
}

/* The floors. */

static int floor_open_sleeping(struct petal_contender *floor,
			       const struct petal_contest *contest)
{
	return petal_pair_open(&floor->pair, contest->cpus[1],
			       petal_pair_return_sleeping, NULL);
}

static int floor_open_spinning(struct petal_contender *floor,
			       const struct petal_contest *contest)
{
	return petal_pair_open(&floor->pair, contest->cpus[1],
			       petal_pair_return_spinning, NULL);
}

static int floor_trip_sleeping(struct petal_contender *floor, uint64_t sequence)
{
	return petal_pair_stroke_sleeping(&floor->pair, (uint32_t)sequence);
}

static int floor_trip_spinning(struct petal_contender *floor, uint64_t sequence)
{
	return petal_pair_stroke_spinning(&floor->pair, (uint32_t)sequence);
}

static struct petal_contender floor_contenders[2] = {
	{
		.impl = "futex-floor",
		.remark = "two futexes, no payload",
		.open = floor_open_sleeping,
		.trip = floor_trip_sleeping,
	},
	{
		.impl = "line-floor",
		.remark = "two cache lines, no payload",
		.open = floor_open_spinning,
		.trip = floor_trip_spinning,
	},
};

/* A leg. */

/*
 * A sample holds one reading of the clock, which on some machines is a good
 * part of the floor. Nobody's rows are corrected; the floor's note says it.
 */
static uint64_t measure_clock(void)
{
	uint64_t best_ns = UINT64_MAX;

	/* The least of several, since the scheduler only ever adds. */
	for (int i = 0; i < 16; i++) {
		uint64_t start_ns = petal_clock_now_ns();
		uint64_t end_ns = start_ns;

		for (int j = 0; j < 256; j++)
			end_ns = petal_clock_now_ns();
		if ((end_ns - start_ns) / 256 < best_ns)
			best_ns = (end_ns - start_ns) / 256;
	}
	return best_ns;
}

static inline int trip(struct contest_entry *entry)
{
	if (stop_signal)
		return -EINTR;
	return entry->who->trip(entry->who, ++entry->trips);
}

static int warm_up(struct contest_entry *entry, uint64_t end_ns)
{
	int err;

	do {
		err = trip(entry);
	} while (err == 0 && petal_clock_now_ns() < end_ns);
	return err;
}

static int count_trips(struct contest_run *run, struct contest_entry *entry,
		       uint64_t leg_ns)
{
	uint64_t start_ns = petal_clock_now_ns();
	uint64_t last_ns = start_ns;

	while (last_ns - start_ns < leg_ns) {
		int err = trip(entry);
		uint64_t now_ns = petal_clock_now_ns();

		if (err < 0)
			return err;
		petal_histogram_record(&run->leg, now_ns - last_ns);
		last_ns = now_ns;
	}
	entry->wall_ns += last_ns - start_ns;
	return 0;
}

static int measure(struct contest_run *run, struct contest_entry *entry,
		   uint64_t leg_ns)
{
	struct petal_pair *pair = &entry->who->pair;
	uint64_t cpu_before_ns;
	uint64_t cpu_after_ns;
	int err;

	err = warm_up(entry, petal_clock_now_ns() + leg_ns / 8);
	if (err == 0)
		err = petal_pair_cpu_ns(pair, &cpu_before_ns);
	if (err == 0)
		err = count_trips(run, entry, leg_ns);
	if (err == 0)
		err = petal_pair_cpu_ns(pair, &cpu_after_ns);
	if (err == 0)
		entry->cpu_ns += cpu_after_ns - cpu_before_ns;
	return err;
}

/* What the server says of itself is nearer to the cause than a lost peer. */
static int explain(struct contest_entry *entry, int err)
{
	int cause = petal_pair_check(&entry->who->pair);

	return err != -EINTR && cause < 0 ? cause : err;
}

/* Leaves the leg's samples in run->leg as well as in the entry's total. */
static int run_leg(struct contest_run *run, struct contest_entry *entry,
		   bool spin, uint64_t leg_ns)
{
	int err;

	petal_histogram_init(&run->leg);
	petal_pair_spin(&entry->who->pair, spin);
	err = measure(run, entry, leg_ns);
	petal_pair_spin(&entry->who->pair, false);
	petal_histogram_merge(entry->total, &run->leg);
	return err < 0 ? explain(entry, err) : 0;
}

static double leg_p50_ns(const struct contest_run *run)
{
	return (double)petal_histogram_quantile(&run->leg, PETAL_HISTOGRAM_P50);
}

/* A round. */

static int run_floor(struct contest_run *run, bool spin, double *ret_p50_ns)
{
	struct contest_entry *floor = &run->floors[spin];
	int err = run_leg(run, floor, spin, run->contest->leg_ns / 2);

	if (err < 0) {
		run->culprit = floor->who->impl;
		return err;
	}
	*ret_p50_ns = leg_p50_ns(run);
	return 0;
}

static int run_turn(struct contest_run *run, struct contest_entry *entry,
		    bool spin, double *floor_ns)
{
	double before_ns = *floor_ns;
	double p50_ns;
	int err;

	if (entry->fault || (entry->who->polls && !spin))
		return 0;
	entry->fault = run_leg(run, entry, spin, run->contest->leg_ns);
	p50_ns = leg_p50_ns(run);
	err = run_floor(run, spin, floor_ns);
	if (err < 0 || entry->fault)
		return err;
	petal_ratios_add(&entry->ratios, p50_ns, before_ns, *floor_ns);
	entry->rounds++;
	return 0;
}

static void show_progress(const struct contest_run *run, bool spin,
			  unsigned round)
{
	if (!isatty(STDERR_FILENO))
		return;
	if (round < run->contest->rounds)
		fprintf(stderr, "\r%s, %s: round %u of %u\033[K",
			run->contest->bench, spin ? "spin" : "sleep", round + 1,
			run->contest->rounds);
	else
		fputs("\r\033[K", stderr);
}

static int run_rounds(struct contest_run *run, bool spin)
{
	struct contest_entry *floor = &run->floors[spin];
	double floor_ns;
	int err = 0;

	for (unsigned round = 0; round < run->contest->rounds; round++) {
		show_progress(run, spin, round);
		err = run_floor(run, spin, &floor_ns);
		for (size_t i = 0; i < run->count && err == 0; i++)
			err = run_turn(run, &run->entries[i], spin, &floor_ns);
		if (err < 0)
			break;
		floor->rounds++;
	}
	show_progress(run, spin, run->contest->rounds);
	return err;
}

/* Setting up and tearing down. */

static int entry_init(struct contest_entry *entry, struct petal_contender *who,
		      unsigned rounds)
{
	memset(entry, 0, sizeof(*entry));
	entry->who = who;
	entry->total = malloc(sizeof(*entry->total));
	if (petal_ratios_init(&entry->ratios, rounds) < 0 || !entry->total)
		return -ENOMEM;
	petal_histogram_init(entry->total);
	return 0;
}

/* Between two ways of waiting; trips go on, for the servers count too. */
static void entry_reset(struct contest_entry *entry)
{
	petal_histogram_init(entry->total);
	entry->rounds = 0;
	entry->ratios.count = 0;
	entry->wall_ns = 0;
	entry->cpu_ns = 0;
}

static void entry_fini(struct contest_entry *entry)
{
	if (entry->who) {
		if (entry->who->close)
			entry->who->close(entry->who);
		petal_pair_close(&entry->who->pair);
	}
	free(entry->total);
	petal_ratios_fini(&entry->ratios);
}

static int entries_init(struct contest_run *run,
			struct petal_contender *contenders, size_t count)
{
	unsigned rounds = run->contest->rounds;
	int err = 0;

	for (unsigned i = 0; i < 2 && err == 0; i++)
		err = entry_init(&run->floors[i], &floor_contenders[i], rounds);
	for (size_t i = 0; i < count && err == 0; i++)
		if (petal_options_want(run->contest->only, contenders[i].impl))
			err = entry_init(&run->entries[run->count++],
					 &contenders[i], rounds);
	return err;
}

static void entry_open(struct contest_run *run, struct contest_entry *entry)
{
	entry->fault = entry->who->open(entry->who, run->contest);
}

static void entry_join(struct contest_run *run, struct contest_entry *entry)
{
	if (!entry->fault && entry->who->join)
		entry->fault = entry->who->join(entry->who, run->contest);
}

/* All forks come before all joins, and the joins may start threads. */
static int open_all(struct contest_run *run)
{
	bool wanted[2] = { run->contest->sleep, run->contest->spin };

	for (unsigned i = 0; i < 2; i++) {
		if (wanted[i])
			entry_open(run, &run->floors[i]);
		if (!run->floors[i].fault)
			continue;
		run->culprit = run->floors[i].who->impl;
		return run->floors[i].fault;
	}
	for (size_t i = 0; i < run->count; i++)
		entry_open(run, &run->entries[i]);
	for (size_t i = 0; i < run->count; i++)
		entry_join(run, &run->entries[i]);
	return 0;
}

static void keep_fault(struct contest_run *run,
		       const struct contest_entry *entry)
{
	/* Never having run is an answer; breaking on the way is not. */
	if (run->fault || !entry->fault || entry->total->count == 0)
		return;
	run->fault = entry->fault;
	run->culprit = entry->who->impl;
}

static int run_wait(struct contest_run *run, bool spin)
{
	const struct petal_contest *contest = run->contest;
	bool crowded = spin && contest->cpus[0] == contest->cpus[1];
	int err = 0;

	for (size_t i = 0; i < run->count; i++)
		entry_reset(&run->entries[i]);
	if (!crowded || contest->crowd)
		err = run_rounds(run, spin);
	if (err < 0)
		return err;
	err = contest_rows_print(run, spin);
	if (err < 0)
		run->culprit = "standard output";
	for (size_t i = 0; i < run->count; i++)
		keep_fault(run, &run->entries[i]);
	return err;
}

static void run_init(struct contest_run *run,
		     const struct petal_contest *contest,
		     struct contest_entry *entries)
{
	run->contest = contest;
	run->entries = entries;
	run->culprit = "the contest";
	run->sink.out = stdout;
	run->sink.json = contest->json;
}

static void run_fini(struct contest_run *run)
{
	for (size_t i = 0; i < run->count; i++)
		entry_fini(&run->entries[i]);
	entry_fini(&run->floors[0]);
	entry_fini(&run->floors[1]);
}

static int run_all(struct contest_run *run, struct petal_contender *contenders,
		   size_t count)
{
	const struct petal_contest *contest = run->contest;
	int err = entries_init(run, contenders, count);

	/* Before the pinning, for it counts the CPUs that we may use. */
	if (err == 0) {
		err = petal_row_machine_print(&run->sink);
		if (err < 0)
			run->culprit = "standard output";
	}
	if (err == 0)
		err = petal_pair_pin(contest->cpus[0]);
	if (err == 0)
		err = open_all(run);
	run->clock_ns = measure_clock();
	if (err == 0 && contest->sleep)
		err = run_wait(run, false);
	if (err == 0 && contest->spin)
		err = run_wait(run, true);
	return err;
}

static void complain_of_run(const char *culprit, int err)
{
	/* Whoever sent a signal knows why this ends. */
	if (!stop_signal)
		fprintf(stderr, "%s: %s cannot go on: %s\n",
			program_invocation_short_name, culprit,
			petal_strerror(err));
}

/* What runs on the kernel alone has the kernel's version. */
static void set_versions(struct petal_contender *contenders, size_t count)
{
	static char version[128];
	struct utsname kernel;

	uname(&kernel);
	snprintf(version, sizeof(version), "Linux %.100s", kernel.release);
	for (unsigned i = 0; i < 2; i++)
		floor_contenders[i].version = version;
	for (size_t i = 0; i < count; i++)
		if (!contenders[i].version)
			contenders[i].version = version;
}

/* By now nobody is left; let the caller see the signal. */
static void raise_again(void)
{
	if (stop_signal) {
		signal(stop_signal, SIG_DFL);
		raise(stop_signal);
	}
}

int petal_contest_run(const struct petal_contest *contest,
		      struct petal_contender *contenders, size_t count)
{
	struct contest_run *run = calloc(1, sizeof(*run));
	struct contest_entry *entries = calloc(count, sizeof(*entries));
	const char *culprit = "the contest";
	int err = -ENOMEM;

	set_versions(contenders, count);
	watch_signals();
	if (run && entries) {
		run_init(run, contest, entries);
		err = run_all(run, contenders, count);
		if (err == 0)
			err = run->fault;
		culprit = run->culprit;
		run_fini(run);
	}
	free(entries);
	free(run);
	if (err < 0)
		complain_of_run(culprit, err);
	raise_again();
	return err;
}

/* The command line. */

int petal_contest_parse(struct petal_contest *contest, const char *bench,
			int argc, char **argv)
{
	static const struct petal_options_form form = {
		.bytes_max = BYTES_MAX,
		.bytes_help = "payload each way, 1 to 1048576; 256",
		.places = true,
	};
	struct petal_options options;
	int err = petal_options_parse(&form, argc, argv, &options);

	if (err != 0)
		return err;
	*contest = (struct petal_contest){
		.bench = bench,
		.only = options.only,
		.bytes = options.bytes ? options.bytes : 256,
		.rounds = options.rounds,
		.leg_ns = options.leg_ns,
		.cpus = { options.cpus[0], options.cpus[1] },
		.sleep = options.sleep,
		.spin = options.spin,
		.crowd = options.crowd,
		.json = options.json,
	};
	return 0;
}

int petal_contest_main(const char *bench, struct petal_contender *contenders,
		       size_t count, int argc, char **argv)
{
	struct petal_contest contest;
	int err = petal_contest_parse(&contest, bench, argc, argv);

	if (err != 0)
		return err > 0 ? 0 : 2;
	for (size_t i = 0; i < count; i++)
		contenders[i].bytes = contest.bytes;
	return petal_contest_run(&contest, contenders, count) < 0 ? 1 : 0;
}
