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
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "shm/histogram.h"
#include "bench/row.h"
#include "shm/clock.h"
#include "shm/error.h"

#define BYTES_MAX (UINT64_C(1) << 20)
#define ROUNDS_MAX 1000U

/* A floor leg this much slower than the fastest one counts as far. */
#define FAR 1.8

/* A contender's results, for one way of waiting. */
struct entry {
	struct petal_contender *who;
	struct petal_histogram *total;
	double *ratio;     /* by round */
	double *before_ns; /* p50 of the floor's leg before, by round */
	double *after_ns;  /* and of the one after */
	unsigned rounds;   /* that it finished */
	uint64_t trips;    /* over both ways of waiting */
	uint64_t wall_ns;
	uint64_t cpu_ns;
	int fault;
};

struct run {
	const struct petal_contest *contest;
	struct entry floors[2]; /* by spin */
	struct entry *entries;
	size_t count;
	struct petal_histogram leg;
	struct petal_row_sink sink;
	uint64_t clock_ns;   /* what reading the clock adds to a sample */
	const char *culprit; /* whom to name when the run fails */
	int fault;           /* of a contender that broke on the way */
};

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

static inline int trip(struct entry *entry)
{
	if (stop_signal)
		return -EINTR;
	return entry->who->trip(entry->who, ++entry->trips);
}

static int warm_up(struct entry *entry, uint64_t end_ns)
{
	int err;

	do {
		err = trip(entry);
	} while (err == 0 && petal_clock_now_ns() < end_ns);
	return err;
}

static int count_trips(struct run *run, struct entry *entry, uint64_t leg_ns)
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

static int measure(struct run *run, struct entry *entry, uint64_t leg_ns)
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
static int explain(struct entry *entry, int err)
{
	int cause = petal_pair_check(&entry->who->pair);

	return err != -EINTR && cause < 0 ? cause : err;
}

/* Leaves the leg's samples in run->leg as well as in the entry's total. */
static int run_leg(struct run *run, struct entry *entry, bool spin,
		   uint64_t leg_ns)
{
	int err;

	petal_histogram_init(&run->leg);
	petal_pair_spin(&entry->who->pair, spin);
	err = measure(run, entry, leg_ns);
	petal_pair_spin(&entry->who->pair, false);
	petal_histogram_merge(entry->total, &run->leg);
	return err < 0 ? explain(entry, err) : 0;
}

static double leg_p50_ns(const struct run *run)
{
	return (double)petal_histogram_quantile(&run->leg, PETAL_HISTOGRAM_P50);
}

/* A round. */

static int run_floor(struct run *run, bool spin, double *ret_p50_ns)
{
	struct entry *floor = &run->floors[spin];
	int err = run_leg(run, floor, spin, run->contest->leg_ns / 2);

	if (err < 0) {
		run->culprit = floor->who->impl;
		return err;
	}
	*ret_p50_ns = leg_p50_ns(run);
	return 0;
}

static int run_turn(struct run *run, struct entry *entry, bool spin,
		    double *floor_ns)
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
	entry->before_ns[entry->rounds] = before_ns;
	entry->after_ns[entry->rounds] = *floor_ns;
	entry->ratio[entry->rounds] = 2 * p50_ns / (before_ns + *floor_ns);
	entry->rounds++;
	return 0;
}

static void show_progress(const struct run *run, bool spin, unsigned round)
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

static int run_rounds(struct run *run, bool spin)
{
	struct entry *floor = &run->floors[spin];
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

/* What the rounds say. */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts, so it is asked last. */
static double median(double *values, unsigned count)
{
	if (count == 0)
		return 0;
	qsort(values, count, sizeof(*values), compare_doubles);
	return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

static double fastest_floor_ns(const struct entry *entry)
{
	double best_ns = 0;

	for (unsigned i = 0; i < entry->rounds; i++) {
		double ns = entry->before_ns[i] < entry->after_ns[i]
				    ? entry->before_ns[i]
				    : entry->after_ns[i];

		if (i == 0 || ns < best_ns)
			best_ns = ns;
	}
	return best_ns;
}

/* Collects the ratios of the rounds whose both floors were near, or far. */
static unsigned pick_rounds(const struct entry *entry, bool far, double *picked)
{
	double limit_ns = FAR * fastest_floor_ns(entry);
	unsigned count = 0;

	for (unsigned i = 0; i < entry->rounds; i++)
		if ((entry->before_ns[i] > limit_ns) == far &&
		    (entry->after_ns[i] > limit_ns) == far)
			picked[count++] = entry->ratio[i];
	return count;
}

/* Nothing to say unless the machine was in both modes. */
static int note_modes(const struct entry *entry, char *note, size_t size)
{
	double picked[ROUNDS_MAX];
	unsigned near_count = pick_rounds(entry, false, picked);
	double near_ratio = median(picked, near_count);
	unsigned far_count = pick_rounds(entry, true, picked);
	double far_ratio = median(picked, far_count);

	if (near_count == entry->rounds)
		return 0;
	return snprintf(note, size,
			" (near %.1f in %u, far %.1f in %u, %u "
			"flipped)",
			near_ratio, near_count, far_ratio, far_count,
			entry->rounds - near_count - far_count);
}

static void note_ratios(const struct entry *entry, bool spin, char *note,
			size_t size)
{
	double low = 0;
	double high = 0;
	int used;

	for (unsigned i = 0; i < entry->rounds; i++) {
		if (i == 0 || entry->ratio[i] < low)
			low = entry->ratio[i];
		if (i == 0 || entry->ratio[i] > high)
			high = entry->ratio[i];
	}
	used = snprintf(note, size, "; ratio %.2f to %.2f in %u rounds", low,
			high, entry->rounds);
	if (spin && used > 0 && (size_t)used < size)
		note_modes(entry, note + used, size - (size_t)used);
}

static void note_places(const struct petal_contest *contest, char *note,
			size_t size)
{
	if (contest->cpus[0] == contest->cpus[1])
		snprintf(note, size, "both on cpu %d", contest->cpus[0]);
	else
		snprintf(note, size, "cpus %d and %d", contest->cpus[0],
			 contest->cpus[1]);
}

/* Each part goes behind what is there, as far as there is room. */
static void write_note(const struct run *run, const struct entry *entry,
		       bool spin, char *note, size_t size)
{
	bool floor = entry == &run->floors[spin];
	size_t used;

	note_places(run->contest, note, size);
	used = strlen(note);
	if (entry->rounds > 0 && !floor)
		note_ratios(entry, spin, note + used, size - used);
	used = strlen(note);
	if (*entry->who->remark)
		snprintf(note + used, size - used, "; %s", entry->who->remark);
	used = strlen(note);
	if (floor)
		snprintf(note + used, size - used,
			 "; reading the clock is %u ns of each sample",
			 (unsigned)run->clock_ns);
	used = strlen(note);
	if (entry->fault)
		snprintf(note + used, size - used, "; broke in round %u: %s",
			 entry->rounds + 1, petal_strerror(entry->fault));
}

static void fill_row(struct petal_row *row, const struct run *run,
		     struct entry *entry, bool spin)
{
	petal_row_take(row, entry->total);
	row->rounds = entry->rounds;
	if (entry->wall_ns > 0)
		row->msgs_per_s = (double)row->n * 1e9 / (double)entry->wall_ns;
	if (row->n > 0)
		row->cpu_ns_per_msg = (double)entry->cpu_ns / (double)row->n;
	row->floor_ratio = entry == &run->floors[spin]
				   ? 1
				   : median(entry->ratio, entry->rounds);
}

static int print_row(struct run *run, struct entry *entry, bool spin,
		     const char *refusal)
{
	struct petal_row row;
	char note[512];

	petal_row_init(&row, run->contest->bench);
	row.impl = entry->who->impl;
	row.version = entry->who->version;
	row.peer = entry->who->peer;
	row.floor = entry == &run->floors[spin];
	row.bytes = entry->who->bytes;
	row.wait = spin ? "spin" : "sleep";
	row.note = refusal;
	if (!refusal) {
		write_note(run, entry, spin, note, sizeof(note));
		row.note = note;
		fill_row(&row, run, entry, spin);
	}
	return petal_row_print(&run->sink, &row);
}

/* Why there is nothing to measure, or NULL. */
static const char *refusal_of(const struct run *run, const struct entry *entry,
			      bool spin, char *text, size_t size)
{
	const struct petal_contest *contest = run->contest;

	if (spin && !contest->crowd && contest->cpus[0] == contest->cpus[1])
		return "not run: a spinning pair on one cpu measures the "
		       "scheduler (--one-cpu runs it)";
	if (entry->who->polls && !spin && !entry->fault)
		return "not run: it polls and cannot sleep";
	if (!entry->fault || entry->total->count > 0)
		return NULL;
	snprintf(text, size, "not run: %s%s%s", petal_strerror(entry->fault),
		 *entry->who->remark ? "; " : "", entry->who->remark);
	return text;
}

static int print_rows(struct run *run, bool spin)
{
	char text[128];
	int err;

	err = print_row(run, &run->floors[spin], spin,
			refusal_of(run, &run->floors[spin], spin, text,
				   sizeof(text)));
	for (size_t i = 0; i < run->count && err == 0; i++)
		err = print_row(run, &run->entries[i], spin,
				refusal_of(run, &run->entries[i], spin, text,
					   sizeof(text)));
	return err;
}

/* Setting up and tearing down. */

static int entry_init(struct entry *entry, struct petal_contender *who,
		      unsigned rounds)
{
	memset(entry, 0, sizeof(*entry));
	entry->who = who;
	entry->total = malloc(sizeof(*entry->total));
	entry->ratio = calloc(rounds, sizeof(*entry->ratio));
	entry->before_ns = calloc(rounds, sizeof(*entry->before_ns));
	entry->after_ns = calloc(rounds, sizeof(*entry->after_ns));
	if (!entry->total || !entry->ratio || !entry->before_ns ||
	    !entry->after_ns)
		return -ENOMEM;
	petal_histogram_init(entry->total);
	return 0;
}

/* Between two ways of waiting; trips go on, for the servers count too. */
static void entry_reset(struct entry *entry)
{
	petal_histogram_init(entry->total);
	entry->rounds = 0;
	entry->wall_ns = 0;
	entry->cpu_ns = 0;
}

static void entry_fini(struct entry *entry)
{
	if (entry->who) {
		if (entry->who->close)
			entry->who->close(entry->who);
		petal_pair_close(&entry->who->pair);
	}
	free(entry->total);
	free(entry->ratio);
	free(entry->before_ns);
	free(entry->after_ns);
}

static int entries_init(struct run *run, struct petal_contender *contenders)
{
	unsigned rounds = run->contest->rounds;
	int err = 0;

	for (unsigned i = 0; i < 2 && err == 0; i++)
		err = entry_init(&run->floors[i], &floor_contenders[i], rounds);
	for (size_t i = 0; i < run->count && err == 0; i++)
		err = entry_init(&run->entries[i], &contenders[i], rounds);
	return err;
}

static void entry_open(struct run *run, struct entry *entry)
{
	entry->fault = entry->who->open(entry->who, run->contest);
}

static void entry_join(struct run *run, struct entry *entry)
{
	if (!entry->fault && entry->who->join)
		entry->fault = entry->who->join(entry->who, run->contest);
}

/* All forks come before all joins, and the joins may start threads. */
static int open_all(struct run *run)
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

static void keep_fault(struct run *run, const struct entry *entry)
{
	/* Never having run is an answer; breaking on the way is not. */
	if (run->fault || !entry->fault || entry->total->count == 0)
		return;
	run->fault = entry->fault;
	run->culprit = entry->who->impl;
}

static int run_wait(struct run *run, bool spin)
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
	err = print_rows(run, spin);
	if (err < 0)
		run->culprit = "standard output";
	for (size_t i = 0; i < run->count; i++)
		keep_fault(run, &run->entries[i]);
	return err;
}

static void run_init(struct run *run, const struct petal_contest *contest,
		     struct entry *entries, size_t count)
{
	run->contest = contest;
	run->entries = entries;
	run->count = count;
	run->culprit = "the contest";
	run->sink.out = stdout;
	run->sink.json = contest->json;
}

static void run_fini(struct run *run)
{
	for (size_t i = 0; i < run->count; i++)
		entry_fini(&run->entries[i]);
	entry_fini(&run->floors[0]);
	entry_fini(&run->floors[1]);
}

static int run_all(struct run *run, struct petal_contender *contenders)
{
	const struct petal_contest *contest = run->contest;
	int err = entries_init(run, contenders);

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
	struct run *run = calloc(1, sizeof(*run));
	struct entry *entries = calloc(count, sizeof(*entries));
	const char *culprit = "the contest";
	int err = -ENOMEM;

	set_versions(contenders, count);
	watch_signals();
	if (run && entries) {
		run_init(run, contest, entries, count);
		err = run_all(run, contenders);
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

static void print_usage(void)
{
	printf("usage: %s [--json] [--quick] [--bytes N] [--rounds N]\n"
	       "       [--wait spin|sleep] [--cpus CLIENT,SERVER] [--one-cpu]\n"
	       "\n"
	       "  --json     one JSON object per line\n"
	       "  --quick    shorter legs and 10 rounds; otherwise 20\n"
	       "  --bytes    payload each way, 1 to 1048576; 256\n"
	       "  --rounds   1 to 1000\n"
	       "  --wait     only rows that spin, or only rows that sleep\n"
	       "  --cpus     where both sides are bound; the first two allowed\n"
	       "  --one-cpu  spin even if both sides share a cpu\n",
	       program_invocation_short_name);
}

static int complain(const char *what, const char *value)
{
	fprintf(stderr, "%s: %s '%s' (--help explains)\n",
		program_invocation_short_name, what, value);
	return -EINVAL;
}

/* Digits only: strtoull alone would take spaces, signs and leftovers. */
static int parse_count(const char *text, uint64_t max, uint64_t *ret_value)
{
	char *end;
	unsigned long long value;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno != 0 || *end != '\0' || value > max)
		return -EINVAL;
	*ret_value = value;
	return 0;
}

static int parse_cpus(struct petal_contest *contest, const char *text)
{
	char first[16];
	const char *comma = strchr(text, ',');
	uint64_t client;
	uint64_t server;

	if (!comma || comma - text >= (ptrdiff_t)sizeof(first))
		return -EINVAL;
	memcpy(first, text, (size_t)(comma - text));
	first[comma - text] = '\0';
	if (parse_count(first, 65535, &client) < 0 ||
	    parse_count(comma + 1, 65535, &server) < 0)
		return -EINVAL;
	if (!petal_pair_may_use((int)client) ||
	    !petal_pair_may_use((int)server))
		return -EINVAL;
	contest->cpus[0] = (int)client;
	contest->cpus[1] = (int)server;
	return 0;
}

static int parse_wait(struct petal_contest *contest, const char *text)
{
	contest->spin = strcmp(text, "spin") == 0;
	contest->sleep = strcmp(text, "sleep") == 0;
	return contest->spin || contest->sleep ? 0 : -EINVAL;
}

static int parse_option(struct petal_contest *contest, int option,
			const char *value)
{
	uint64_t rounds;

	switch (option) {
	case 'b':
		if (parse_count(value, BYTES_MAX, &contest->bytes) < 0 ||
		    contest->bytes == 0)
			return complain("--bytes cannot be", value);
		return 0;
	case 'r':
		if (parse_count(value, ROUNDS_MAX, &rounds) < 0 || rounds == 0)
			return complain("--rounds cannot be", value);
		contest->rounds = (unsigned)rounds;
		return 0;
	case 'w':
		if (parse_wait(contest, value) < 0)
			return complain("--wait cannot be", value);
		return 0;
	case 'c':
		if (parse_cpus(contest, value) < 0)
			return complain("--cpus cannot be", value);
		return 0;
	default:
		return -EINVAL;
	}
}

static void set_defaults(struct petal_contest *contest, const char *bench)
{
	memset(contest, 0, sizeof(*contest));
	contest->bench = bench;
	contest->bytes = 256;
	contest->leg_ns = PETAL_MS(250);
	contest->sleep = true;
	contest->spin = true;
}

int petal_contest_parse(struct petal_contest *contest, const char *bench,
			int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "quick", no_argument, NULL, 'q' },
		{ "bytes", required_argument, NULL, 'b' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "wait", required_argument, NULL, 'w' },
		{ "cpus", required_argument, NULL, 'c' },
		{ "one-cpu", no_argument, NULL, '1' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	unsigned rounds = 20;
	int option;
	int err;

	set_defaults(contest, bench);
	err = petal_pair_cpus(contest->cpus);
	if (err < 0)
		return complain("the CPUs cannot be read:",
				petal_strerror(err));
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (option == 'h') {
			print_usage();
			return 1;
		}
		if (option == '?')
			return complain("there is no option", argv[optind - 1]);
		if (option == ':')
			return complain("a value is missing after",
					argv[optind - 1]);
		if (option == 'j') {
			contest->json = true;
		} else if (option == 'q') {
			contest->leg_ns = PETAL_MS(40);
			rounds = 10;
		} else if (option == '1') {
			contest->crowd = true;
		} else {
			err = parse_option(contest, option, optarg);
			if (err < 0)
				return err;
		}
	}
	if (optind < argc)
		return complain("there is nothing to do with", argv[optind]);
	if (contest->rounds == 0)
		contest->rounds = rounds;
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
