/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replicate - a record that is kept three times, from post to answer
 *
 * The question: how long does one record take at each level, and how many fit
 * into a second with 256 under way? Everybody has three processes on the
 * loopback and the same directory, and nobody is bound to a CPU.
 *
 * The happy path: in each round, for each leg, the bare star, then ours and
 * each peer that promises the level, with the star again after each. A ratio
 * is against the two legs of the sleeping star around it: of p50 with one
 * record under way, of the rate with more.
 *
 * What can go wrong: a peer is not installed or does not start, which is a row
 * that says why; somebody breaks on the way, which is in his rows and makes
 * the program fail at the end; a signal, which ends all of it. The nest ends
 * what was started, whatever happens.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "actors/port.h"
#include "bench/median.h"
#include "bench/nest.h"
#include "bench/options.h"
#include "bench/ratios.h"
#include "bench/replicate.h"
#include "bench/row.h"
#include "fabric/signals.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "shm/histogram.h"

#define BYTES 256u
#define BYTES_MAX (UINT64_C(16) << 10)
#define LARGE_WINDOW 4u
#define TMPFS 0x01021994
#define EXT4 0xef53
#define NOTE_BYTES 512u

static struct replicate_system *const systems[] = {
	&replicate_star_sleeping, /* what the others are measured by */
	&replicate_petal,         &replicate_star_spinning,
	&replicate_star_single,   &replicate_device,
	&replicate_devices,       &replicate_redis,
	&replicate_redis_aof,     &replicate_nats,
	&replicate_etcd,          &replicate_rabbit,
};

#define SYSTEMS (sizeof(systems) / sizeof(*systems))

static struct replicate_leg legs[] = {
	{ REPLICATE_MEM2, 1, 0 },
	{ REPLICATE_MEM3, 1, 0 },
	{ REPLICATE_DISK2, 1, 0 },
	{ REPLICATE_DISK3, 1, 0 },
	{ REPLICATE_MEM2, REPLICATE_WINDOW_MAX, 0 },
	{ REPLICATE_MEM3, REPLICATE_WINDOW_MAX, 0 },
	{ REPLICATE_DISK2, REPLICATE_WINDOW_MAX, 0 },
	{ REPLICATE_DISK3, REPLICATE_WINDOW_MAX, 0 },
	{ REPLICATE_MEM2, LARGE_WINDOW, REPLICATE_BYTES_MAX },
};

#define LEGS (sizeof(legs) / sizeof(*legs))

static const char *const level_names[REPLICATE_LEVELS] = { "mem2", "mem3",
							   "disk2", "disk3" };

/* What one leg gave. */
struct score {
	double p50_ns;
	double rate;
};

struct entry {
	struct petal_histogram *total;
	struct petal_ratios ratios;
	double *p50_ns; /* by round */
	double *rate;
	uint64_t records;
	uint64_t cpu_ns;
};

struct replicate {
	struct petal_options options;
	struct petal_row_sink sink;
	struct petal_nest nest;
	struct petal_histogram *scratch;
	struct entry entries[SYSTEMS][LEGS];
	uint64_t sequence;
	const char *filesystem;
	bool terminal;
};

/* A leg. */

static uint64_t cpu_ns(const struct replicate *run,
		       const struct replicate_system *system)
{
	struct timespec own;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
	return PETAL_S(own.tv_sec) + (uint64_t)own.tv_nsec +
	       petal_nest_cpu_ns(&run->nest, system->first, system->count);
}

struct course {
	struct replicate_system *system;
	unsigned window;
	uint64_t stamps[REPLICATE_WINDOW_MAX];
	uint64_t posted;
	uint64_t answered;
};

static int post_some(struct replicate *run, struct course *course,
		     unsigned count)
{
	int err = 0;

	for (unsigned i = 0; i < count && err == 0; i++) {
		course->stamps[course->posted++ % course->window] =
			petal_clock_now_ns();
		err = course->system->post(course->system, ++run->sequence);
	}
	return err;
}

/* Returns how many were answered; -errno. */
static int await_some(struct course *course, unsigned least,
		      struct petal_histogram *samples)
{
	int got = course->system->await(course->system, least);
	uint64_t now_ns = petal_clock_now_ns();
	uint64_t left = course->posted - course->answered;

	/* A device takes whole batches. */
	if (got > 0 && (uint64_t)got > left)
		got = (int)left;
	for (int i = 0; i < got; i++) {
		uint64_t *stamp =
			&course->stamps[course->answered++ % course->window];

		if (samples)
			petal_histogram_record(samples, now_ns - *stamp);
	}
	return petal_nest_stopped() ? -EINTR : got;
}

/*
 * The first eighth only warms up. Whoever has answers for half of the window
 * goes on: waking a source for each of 256 would measure the scheduler.
 */
static int run_course(struct replicate *run, struct course *course,
		      uint64_t leg_ns, double *ret_rate)
{
	uint64_t start_ns = petal_clock_now_ns(), warm_ns = 0, now_ns = 0;
	unsigned least = course->window > 1 ? course->window / 2 : 1;
	uint64_t counted = 0;
	int err = post_some(run, course, course->window), got;

	while (err == 0) {
		got = await_some(course, least, warm_ns ? run->scratch : NULL);
		if (got < 0)
			return got;
		now_ns = petal_clock_now_ns();
		if (warm_ns)
			counted += (uint64_t)got;
		else if (now_ns - start_ns > leg_ns / 8)
			warm_ns = now_ns;
		if (now_ns - start_ns > leg_ns && counted > 0)
			break;
		err = post_some(run, course, (unsigned)got);
	}
	if (err < 0)
		return err;
	*ret_rate = (double)counted * 1e9 / (double)(now_ns - warm_ns);
	while (course->answered < course->posted && got >= 0)
		got = await_some(course,
				 (unsigned)(course->posted - course->answered),
				 NULL);
	return got < 0 ? got : 0;
}

static int run_leg(struct replicate *run, unsigned s, unsigned l,
		   struct score *ret_score)
{
	struct replicate_system *system = systems[s];
	struct entry *entry = &run->entries[s][l];
	struct course course = { .system = system, .window = legs[l].window };
	uint64_t leg_ns = run->options.leg_ns / (s == 0 ? 2 : 1);
	uint64_t before_ns;
	int err = system->begin(system, &legs[l]);

	petal_histogram_init(run->scratch);
	before_ns = cpu_ns(run, system);
	if (err == 0)
		err = run_course(run, &course, leg_ns, &ret_score->rate);
	if (err == 0 && system->end)
		err = system->end(system);
	if (err < 0)
		return err;
	entry->cpu_ns += cpu_ns(run, system) - before_ns;
	entry->records += course.answered;
	petal_histogram_merge(entry->total, run->scratch);
	ret_score->p50_ns = (double)petal_histogram_quantile(
		run->scratch, PETAL_HISTOGRAM_P50);
	return 0;
}

/* A round. */

static bool is_in(unsigned s, unsigned l)
{
	const struct replicate_system *system = systems[s];

	if (legs[l].bytes == REPLICATE_BYTES_MAX && !system->large)
		return false;
	if (legs[l].bytes != REPLICATE_BYTES_MAX &&
	    system == &replicate_star_single)
		return false;
	if (system->window && system->window != legs[l].window)
		return false;
	return (system->levels >> legs[l].level & 1) != 0;
}

static bool is_wanted(const struct replicate *run, unsigned s)
{
	return systems[s]->floor ||
	       petal_options_want(run->options.only, systems[s]->impl);
}

/* What is compared: the time of one, or the time that each of many takes. */
static double cost_ns(const struct replicate_leg *leg,
		      const struct score *score)
{
	return leg->window == 1 ? score->p50_ns : 1e9 / score->rate;
}

static void add_round(struct replicate *run, unsigned s, unsigned l,
		      const struct score *score, double before_ns,
		      double after_ns)
{
	struct entry *entry = &run->entries[s][l];

	entry->p50_ns[entry->ratios.count] = score->p50_ns;
	entry->rate[entry->ratios.count] = score->rate;
	petal_ratios_add(&entry->ratios, cost_ns(&legs[l], score), before_ns,
			 after_ns);
}

static int run_turn(struct replicate *run, unsigned l)
{
	struct score floor, score;
	int err = run_leg(run, 0, l, &floor);

	for (unsigned s = 1; s < SYSTEMS && err == 0; s++) {
		struct replicate_system *system = systems[s];
		double before_ns = cost_ns(&legs[l], &floor);

		if (system->fault || !is_in(s, l) || !is_wanted(run, s))
			continue;
		system->fault = run_leg(run, s, l, &score);
		err = petal_nest_stopped() ? -EINTR
					   : run_leg(run, 0, l, &floor);
		if (err == 0 && system->fault == 0)
			add_round(run, s, l, &score, before_ns,
				  cost_ns(&legs[l], &floor));
	}
	if (err == 0)
		add_round(run, 0, l, &floor, cost_ns(&legs[l], &floor),
			  cost_ns(&legs[l], &floor));
	return err;
}

static void progress(const struct replicate *run, const char *what,
		     unsigned round)
{
	if (!run->terminal)
		return;
	fprintf(stderr, "\r\033[K");
	if (what)
		fprintf(stderr, "replicate: %s", what);
	else if (round)
		fprintf(stderr, "replicate: round %u of %u", round,
			run->options.rounds);
	fflush(stderr);
}

static int run_rounds(struct replicate *run)
{
	int err = 0;

	for (unsigned round = 0; round < run->options.rounds && err == 0;
	     round++) {
		progress(run, NULL, round + 1);
		for (unsigned l = 0; l < LEGS && err == 0; l++)
			err = run_turn(run, l);
	}
	progress(run, NULL, 0);
	return err;
}

/* The rows. */

__attribute__((format(printf, 2, 3))) static void add(char *note,
						      const char *format, ...)
{
	size_t used = strlen(note);
	va_list args;

	va_start(args, format);
	vsnprintf(note + used, NOTE_BYTES - used, format, args);
	va_end(args);
}

/* The median over the rounds of ours over theirs. */
static double ratio_of(const double *ours, const double *theirs,
		       unsigned rounds)
{
	double ratios[PETAL_OPTIONS_ROUNDS_MAX];

	for (unsigned i = 0; i < rounds; i++)
		ratios[i] = ours[i] / theirs[i];
	return petal_median(ratios, rounds);
}

static double p99_ns(const struct entry *entry)
{
	return (double)petal_histogram_quantile(entry->total,
						PETAL_HISTOGRAM_P99);
}

static void write_against(const struct replicate *run, unsigned s, unsigned l,
			  unsigned other, char *note)
{
	const struct entry *ours = &run->entries[s][l];
	const struct entry *theirs = &run->entries[other][l];
	unsigned rounds = ours->ratios.count < theirs->ratios.count
				  ? ours->ratios.count
				  : theirs->ratios.count;

	if (rounds == 0)
		return;
	add(note, "; of %s", systems[other]->impl);
	if (legs[l].window == 1)
		add(note, " p50 x %.2f, p99 x %.2f",
		    ratio_of(ours->p50_ns, theirs->p50_ns, rounds),
		    p99_ns(ours) / p99_ns(theirs));
	else
		add(note, " rate x %.2f",
		    ratio_of(ours->rate, theirs->rate, rounds));
}

static void write_note(struct replicate *run, unsigned s, unsigned l,
		       char *note)
{
	struct replicate_system *system = systems[s];
	struct entry *entry = &run->entries[s][l];

	snprintf(note, NOTE_BYTES, "%s", system->remark);
	if (legs[l].level >= REPLICATE_DISK2)
		add(note, "; on %s", run->filesystem);
	if (s > 0) {
		petal_ratios_note(&entry->ratios, false, note + strlen(note),
				  NOTE_BYTES - strlen(note));
		add(note, "; p99 x %.2f",
		    p99_ns(entry) / p99_ns(&run->entries[0][l]));
	}
	for (unsigned other = 0; other < SYSTEMS && system == &replicate_petal;
	     other++)
		if (other != s && (systems[other]->peer ||
				   (systems[other]->floor && other > 0 &&
				    !systems[other]->spin)))
			write_against(run, s, l, other, note);
	if (system == &replicate_petal && legs[l].level >= REPLICATE_DISK2 &&
	    legs[l].window > 1)
		add(note, "; %.1f records a journal batch",
		    replicate_petal_batch());
	if (system->fault)
		add(note, "; broke: %s", petal_strerror(system->fault));
}

static int print_entry(struct replicate *run, unsigned s, unsigned l)
{
	struct replicate_system *system = systems[s];
	struct entry *entry = &run->entries[s][l];
	unsigned rounds = entry->ratios.count;
	struct petal_row row;
	char note[NOTE_BYTES];

	petal_row_init(&row, "replicate");
	row.question = legs[l].window == 1                    ? "w1"
		       : legs[l].bytes == REPLICATE_BYTES_MAX ? "1MiB"
							      : "w256";
	row.impl = system->impl;
	row.peer = system->peer;
	row.floor = system->floor;
	row.wait = system->spin ? "spin" : "sleep";
	row.level = level_names[legs[l].level];
	row.version = system->version;
	row.bytes = legs[l].bytes;
	row.window = legs[l].window;
	row.consumers = 3;
	row.rounds = rounds;
	row.note = note;
	if (rounds == 0) {
		snprintf(note, sizeof(note), "not run: %s",
			 system->reason[0] ? system->reason
					   : petal_strerror(system->fault));
		return petal_row_print(&run->sink, &row);
	}
	write_note(run, s, l, note);
	petal_row_take(&row, entry->total);
	row.msgs_per_s = petal_median(entry->rate, rounds);
	row.cpu_ns_per_msg = (double)entry->cpu_ns / (double)entry->records;
	row.floor_ratio = petal_ratios_median(&entry->ratios);
	return petal_row_print(&run->sink, &row);
}

/* Ours first: its note reads the rounds of the others, which printing sorts. */
static int print_leg(struct replicate *run, unsigned l)
{
	int err = print_entry(run, 0, l);

	for (unsigned s = 1; s < SYSTEMS && err == 0; s++)
		if (is_in(s, l) && is_wanted(run, s))
			err = print_entry(run, s, l);
	return err;
}

static int print_all(struct replicate *run)
{
	int fault = 0, err = 0;

	for (unsigned l = 0; l < LEGS && err == 0; l++)
		err = print_leg(run, l);
	/* Never having run is an answer; breaking on the way is not. */
	for (unsigned s = 0; s < SYSTEMS; s++)
		if (systems[s]->fault && !systems[s]->reason[0])
			fault = systems[s]->fault;
	return err < 0 ? err : fault;
}

/* Setting up and tearing down. */

static int open_entry(struct entry *entry, unsigned rounds)
{
	int err = petal_ratios_init(&entry->ratios, rounds);

	entry->total = malloc(sizeof(*entry->total));
	entry->p50_ns = calloc(rounds, sizeof(double));
	entry->rate = calloc(rounds, sizeof(double));
	if (err < 0 || !entry->total || !entry->p50_ns || !entry->rate)
		return -ENOMEM;
	petal_histogram_init(entry->total);
	return 0;
}

static void close_entry(struct entry *entry)
{
	petal_ratios_fini(&entry->ratios);
	free(entry->total);
	free(entry->p50_ns);
	free(entry->rate);
}

/* The floor and ours must start; a peer need not. */
static int open_system(struct replicate *run, unsigned s)
{
	struct replicate_system *system = systems[s];
	unsigned first = run->nest.count;

	if (!is_wanted(run, s))
		return 0;
	progress(run, system->impl, 0);
	system->fault = system->open(system, &run->nest);
	if (system->fault == -ENOENT && system->package)
		snprintf(system->reason, sizeof(system->reason),
			 "%s is not installed; ./dev bench --peers does",
			 system->package);
	else if (system->fault < 0 && !system->reason[0])
		snprintf(system->reason, sizeof(system->reason),
			 "did not start: %s", petal_strerror(system->fault));
	if (system->count == 0) {
		system->first = first;
		system->count = run->nest.count - first;
	}
	if (petal_nest_stopped())
		return -EINTR;
	if (system->fault < 0 && (s == 0 || system == &replicate_petal)) {
		fprintf(stderr, "replicate: %s: %s\n", system->impl,
			system->reason);
		return system->fault;
	}
	return 0;
}

static const char *name_filesystem(const char *dir)
{
	struct statfs fs;

	if (statfs(dir, &fs) != 0)
		return "?";
	return fs.f_type == TMPFS  ? "tmpfs"
	       : fs.f_type == EXT4 ? "ext4"
				   : "another file system";
}

static int open_all(struct replicate *run)
{
	int err = petal_nest_open(&run->nest, run->options.dir);

	if (err < 0) {
		fprintf(stderr, "replicate: no directory in '%s': %s\n",
			run->options.dir ? run->options.dir : "TMPDIR",
			petal_strerror(err));
		return err;
	}
	run->filesystem = name_filesystem(run->nest.dir);
	run->terminal = isatty(STDERR_FILENO);
	run->scratch = malloc(sizeof(*run->scratch));
	if (!run->scratch)
		return -ENOMEM;
	for (unsigned s = 0; s < SYSTEMS; s++)
		for (unsigned l = 0; l < LEGS && err == 0; l++)
			err = open_entry(&run->entries[s][l],
					 run->options.rounds);
	/* Our own parts are forked before anything starts threads. */
	for (unsigned s = 0; s < SYSTEMS && err == 0; s++)
		if (systems[s]->floor)
			err = open_system(run, s);
	for (unsigned s = 0; s < SYSTEMS && err == 0; s++)
		if (!systems[s]->floor)
			err = open_system(run, s);
	progress(run, NULL, 0);
	return err;
}

static void close_all(struct replicate *run)
{
	for (unsigned s = 0; s < SYSTEMS; s++)
		if (systems[s]->close)
			systems[s]->close(systems[s]);
	for (unsigned s = 0; s < SYSTEMS; s++)
		for (unsigned l = 0; l < LEGS; l++)
			close_entry(&run->entries[s][l]);
	free(run->scratch);
	petal_nest_close(&run->nest);
}

int main(int argc, char **argv)
{
	static const struct petal_options_form form = {
		.bytes_max = BYTES_MAX,
		.bytes_help = "of a record, 1 to 16384; 256",
		.stores = true,
	};
	static struct replicate run;
	int err;

	petal_signals_reset();
	err = petal_options_parse(&form, argc, argv, &run.options);
	if (err != 0)
		return err > 0 ? 0 : 2;
	for (unsigned l = 0; l < LEGS; l++)
		if (legs[l].bytes == 0)
			legs[l].bytes = run.options.bytes ? run.options.bytes
							  : BYTES;
	run.sink = (struct petal_row_sink){ stdout, run.options.json, false };
	err = petal_row_machine_print(&run.sink);
	if (err == 0)
		err = open_all(&run);
	if (err == 0)
		err = run_rounds(&run);
	if (err == 0)
		err = print_all(&run);
	if (err < 0 && !petal_nest_stopped())
		fprintf(stderr, "replicate: %s\n", petal_strerror(err));
	close_all(&run);
	return err < 0 ? 1 : 0;
}
