/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The happy path: parse the options, then for each group (a floor and those
 * behind it) run the rounds, and print its rows, and in the end how they scale. A leg is forked afresh, so
 * that no contender finds the caches or the heap of another.
 *
 * What can go wrong: a contender cannot be prepared, fails, dies or hangs,
 * which ends its part, is said in its row and, unless it is a peer that never
 * got going, makes the program fail at the end; the floor does, or the output,
 * which ends the program at once.
 */
#include "bench/flow.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "bench/flow_leg.h"
#include "bench/median.h"
#include "bench/options.h"
#include "bench/pair.h"
#include "bench/row.h"
#include "bench/scaling.h"
#include "shm/clock.h"
#include "shm/error.h"

#define BYTES_MAX (UINT64_C(1) << 30)

/* A bounce this much slower than the fastest one counts as far. */
#define FAR 1.8

/* Legs without a single message, after which a contender has failed. */
#define TRIES_MAX 5u

/* Strokes of one look at the distance between the CPUs. */
#define STROKES 4000u

struct flow {
	const char *bench;
	struct petal_options options;
	struct petal_row_sink sink;
	struct petal_scaling scaling;
	struct petal_flow_place place;
	struct petal_pair probe; /* open if there are two CPUs */
	uint32_t ball;
	double best_bounce_ns;
	const char *kernel;
};

/* What one leg gave. */
struct sample {
	double msgs_per_s;
	double produce_ns; /* CPU time of all producers per message */
	double consume_ns;
	double ratio;
	double bounce_ns; /* the slower of the looks before and after */
	bool torn;        /* the one was near and the other far */
};

struct entry {
	struct petal_flow_contender *who;
	struct sample *samples;
	unsigned rounds;
	uint64_t messages;
	int fault;
	bool idle; /* it failed before a message of it had arrived */
};

/* A leg. */

/* On a busy machine, a party may have had no CPU for a whole leg. */
static int run_leg(struct flow *flow, struct entry *entry, uint64_t leg_ns,
		   struct sample *ret_sample)
{
	struct petal_flow_tally tally = { 0 };
	double count;
	int err = 0;

	for (unsigned i = 0; i < TRIES_MAX && err == 0; i++) {
		err = petal_flow_leg(&flow->place, entry->who, leg_ns, &tally);
		if (err == 0 && tally.messages > 0)
			break;
	}
	entry->idle = entry->messages == 0 && (err == 0 || !tally.started);
	if (err < 0)
		return err;
	if (tally.messages == 0)
		return -ETIMEDOUT;
	entry->messages += tally.messages;
	count = (double)tally.messages;
	*ret_sample = (struct sample){
		.msgs_per_s = count * 1e9 / (double)tally.wall_ns,
		.produce_ns = (double)tally.produce_ns / count,
		.consume_ns = (double)tally.consume_ns / count,
	};
	return 0;
}

/* How far apart the CPUs are just now; 0 where there is only one. */
static int look_at_distance(struct flow *flow, double *ret_bounce_ns)
{
	uint64_t start_ns;
	int err = 0;

	*ret_bounce_ns = 0;
	if (flow->place.cpu_count < 2)
		return 0;
	petal_pair_spin(&flow->probe, true);
	for (unsigned i = 0; i < STROKES / 4 && err == 0; i++)
		err = petal_pair_stroke_spinning(&flow->probe, ++flow->ball);
	start_ns = petal_clock_now_ns();
	for (unsigned i = 0; i < STROKES && err == 0; i++)
		err = petal_pair_stroke_spinning(&flow->probe, ++flow->ball);
	*ret_bounce_ns = (double)(petal_clock_now_ns() - start_ns) / STROKES;
	petal_pair_spin(&flow->probe, false);
	if (flow->best_bounce_ns == 0 || *ret_bounce_ns < flow->best_bounce_ns)
		flow->best_bounce_ns = *ret_bounce_ns;
	return err;
}

/* A round. */

/* The state that one leg hands to the next: the floor beside it. */
struct beside {
	struct sample floor;
	double bounce_ns;
};

static int run_floor(struct flow *flow, struct entry *floor,
		     struct beside *ret_beside)
{
	int err = run_leg(flow, floor, flow->options.leg_ns / 2,
			  &ret_beside->floor);

	if (err < 0)
		floor->fault = err;
	return err;
}

static int run_turn(struct flow *flow, struct entry *floor, struct entry *entry,
		    struct beside *beside)
{
	struct beside before = *beside;
	struct sample sample;
	int err;

	if (entry->fault || entry->who->refusal)
		return 0;
	err = look_at_distance(flow, &before.bounce_ns);
	if (err < 0)
		return err;
	entry->fault = run_leg(flow, entry, flow->options.leg_ns, &sample);
	err = look_at_distance(flow, &beside->bounce_ns);
	if (err == 0)
		err = run_floor(flow, floor, beside);
	if (err < 0 || entry->fault)
		return err;
	sample.ratio = (before.floor.msgs_per_s + beside->floor.msgs_per_s) /
		       (2 * sample.msgs_per_s);
	sample.bounce_ns = before.bounce_ns > beside->bounce_ns
				   ? before.bounce_ns
				   : beside->bounce_ns;
	sample.torn = before.bounce_ns > FAR * beside->bounce_ns ||
		      beside->bounce_ns > FAR * before.bounce_ns;
	entry->samples[entry->rounds++] = sample;
	return 0;
}

static void show_progress(const struct flow *flow, unsigned round)
{
	if (!isatty(STDERR_FILENO))
		return;
	if (round < flow->options.rounds)
		fprintf(stderr, "\r%s: round %u of %u\033[K", flow->bench,
			round + 1, flow->options.rounds);
	else
		fputs("\r\033[K", stderr);
}

static int run_rounds(struct flow *flow, struct entry *entries, size_t count)
{
	struct entry *floor = &entries[0];
	struct beside beside = { 0 };
	int err = 0;

	for (unsigned round = 0; round < flow->options.rounds && err == 0;
	     round++) {
		show_progress(flow, round);
		err = run_floor(flow, floor, &beside);
		for (size_t i = 1; i < count && err == 0; i++)
			err = run_turn(flow, floor, &entries[i], &beside);
		if (err == 0)
			floor->samples[floor->rounds++] = beside.floor;
	}
	show_progress(flow, flow->options.rounds);
	return err;
}

/* What the rounds say. */

enum distance { ANY, NEAR, FLUNG };

/* The median of one field over the rounds of one kind, and how many. */
static double median_of(const struct flow *flow, const struct entry *entry,
			size_t field, enum distance which, unsigned *ret_count)
{
	double limit_ns = FAR * flow->best_bounce_ns;
	double values[PETAL_OPTIONS_ROUNDS_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < entry->rounds; i++) {
		const struct sample *sample = &entry->samples[i];
		bool far = sample->bounce_ns > limit_ns;

		if (which == ANY || (!sample->torn && far == (which == FLUNG)))
			memcpy(&values[count++],
			       (const uint8_t *)sample + field,
			       sizeof(values[0]));
	}
	*ret_count = count;
	return petal_median(values, count);
}

#define MEDIAN(flow, entry, field, which, ret_count) \
	median_of(flow, entry, offsetof(struct sample, field), which, ret_count)

static int append(char *note, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int append(char *note, size_t size, const char *format, ...)
{
	size_t used = strlen(note);
	va_list arguments;
	int err;

	va_start(arguments, format);
	err = vsnprintf(note + used, size - used, format, arguments);
	va_end(arguments);
	return err;
}

static void note_spread(const struct entry *entry, char *note, size_t size)
{
	double low = entry->samples[0].ratio;
	double high = low;

	for (unsigned i = 1; i < entry->rounds; i++) {
		double ratio = entry->samples[i].ratio;

		low = ratio < low ? ratio : low;
		high = ratio > high ? ratio : high;
	}
	append(note, size, "; ratio %.2f to %.2f in %u rounds", low, high,
	       entry->rounds);
}

/* Nothing to say unless the machine was in both modes. */
static void note_modes(const struct flow *flow, const struct entry *entry,
		       char *note, size_t size)
{
	unsigned near, far;
	double near_ratio = MEDIAN(flow, entry, ratio, NEAR, &near);
	double near_rate = MEDIAN(flow, entry, msgs_per_s, NEAR, &near);
	double far_ratio = MEDIAN(flow, entry, ratio, FLUNG, &far);
	double far_rate = MEDIAN(flow, entry, msgs_per_s, FLUNG, &far);

	if (near == entry->rounds)
		return;
	append(note, size,
	       " (near %.2f, %.2f M/s in %u; far %.2f, %.2f M/s in %u; %u "
	       "flipped)",
	       near_ratio, near_rate / 1e6, near, far_ratio, far_rate / 1e6,
	       far, entry->rounds - near - far);
}

static void write_note(const struct flow *flow, const struct entry *entry,
		       char *note, size_t size)
{
	const struct petal_flow_contender *who = entry->who;
	unsigned count;

	note[0] = '\0';
	append(note, size, "cpu %.1f ns produce + %.1f ns consume",
	       MEDIAN(flow, entry, produce_ns, ANY, &count),
	       MEDIAN(flow, entry, consume_ns, ANY, &count));
	if ((who->producers + who->consumers) > flow->place.cpu_count)
		append(note, size, "; %u parties on %u cpus",
		       (who->producers + who->consumers),
		       flow->place.cpu_count);
	if (!who->floor && entry->rounds > 0) {
		note_spread(entry, note, size);
		note_modes(flow, entry, note, size);
	}
	if (who->remark)
		append(note, size, "; %s", who->remark);
	if (entry->fault)
		append(note, size, "; broke in round %u: %s", entry->rounds + 1,
		       petal_strerror(entry->fault));
}

static void fill_row(const struct flow *flow, const struct entry *entry,
		     struct petal_row *row)
{
	const struct petal_flow_contender *who = entry->who;

	petal_row_init(row, flow->bench);
	row->question = who->question ? who->question : "";
	row->impl = who->impl;
	row->version = who->version ? who->version : flow->kernel;
	row->wait = who->wait ? who->wait : "spin";
	row->peer = who->peer;
	row->floor = who->floor;
	row->bytes = who->bytes;
	row->producers = who->producers;
	row->consumers = who->consumers;
	row->window = who->window ? who->window : 1;
}

static int print_entry(struct flow *flow, const struct entry *entry)
{
	struct petal_row row;
	char note[512];
	unsigned count;

	fill_row(flow, entry, &row);
	row.note = note;
	if (entry->rounds == 0) {
		snprintf(note, sizeof(note), "not run: %s",
			 entry->who->refusal ? entry->who->refusal
					     : petal_strerror(entry->fault));
		return petal_row_print(&flow->sink, &row);
	}
	write_note(flow, entry, note, sizeof(note));
	row.n = entry->messages;
	row.rounds = entry->rounds;
	row.msgs_per_s = MEDIAN(flow, entry, msgs_per_s, ANY, &count);
	row.cpu_ns_per_msg = MEDIAN(flow, entry, produce_ns, ANY, &count) +
			     MEDIAN(flow, entry, consume_ns, ANY, &count);
	row.floor_ratio =
		entry->who->floor ? 1 : MEDIAN(flow, entry, ratio, ANY, &count);
	petal_scaling_add(&flow->scaling, &row, entry->who->every);
	return petal_row_print(&flow->sink, &row);
}

/* A group. */

/* That a peer cannot run here is an answer; that it broke is not. */
static int failure_of(const struct entry *entry)
{
	return entry->who->peer && entry->idle ? 0 : entry->fault;
}

static int run_group(struct flow *flow, struct entry *entries, size_t count)
{
	int err = run_rounds(flow, entries, count);
	int fault = err;

	if (err < 0 && entries[0].fault == 0)
		return err;
	for (size_t i = 0; i < count; i++) {
		err = print_entry(flow, &entries[i]);
		if (err < 0)
			return err;
		if (fault == 0)
			fault = failure_of(&entries[i]);
	}
	return fault;
}

static bool is_wanted(const struct flow *flow,
		      const struct petal_flow_contender *who)
{
	if (flow->options.bytes != 0 && who->bytes != flow->options.bytes)
		return false;
	return who->floor || petal_options_want(flow->options.only, who->impl);
}

static int take_group(struct flow *flow,
		      struct petal_flow_contender *contenders, size_t count)
{
	struct entry *entries = calloc(count, sizeof(*entries));
	size_t taken = 0;
	int err = entries ? 0 : -ENOMEM;

	for (size_t i = 0; i < count && err == 0; i++) {
		struct entry *entry = &entries[taken];

		if (!is_wanted(flow, &contenders[i]))
			continue;
		entry->who = &contenders[i];
		entry->samples =
			calloc(flow->options.rounds, sizeof(struct sample));
		err = entry->samples ? 0 : -ENOMEM;
		taken++;
	}
	if (err == 0 && taken > 0 && entries[0].who->floor)
		err = run_group(flow, entries, taken);
	for (size_t i = 0; i < taken; i++)
		free(entries[i].samples);
	free(entries);
	return err;
}

static int run_groups(struct flow *flow,
		      struct petal_flow_contender *contenders, size_t count)
{
	int fault = 0;
	size_t end;

	for (size_t start = 0; start < count; start = end) {
		int err;

		end = start + 1;
		while (end < count && !contenders[end].floor)
			end++;
		err = take_group(flow, &contenders[start], end - start);
		if (fault == 0)
			fault = err;
	}
	return fault;
}

/* What lives through the run. */

static int find_cpus(struct flow *flow)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return -errno;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set))
			flow->place.cpus[flow->place.cpu_count++] = cpu;
	return 0;
}

static int open_flow(struct flow *flow)
{
	int err = find_cpus(flow);
	void *run = mmap(NULL, sizeof(*flow->place.run), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (err < 0 || run == MAP_FAILED)
		return err < 0 ? err : -errno;
	flow->place.run = run;
	if (flow->place.cpu_count < 2)
		return 0;
	err = petal_pair_open(&flow->probe, flow->place.cpus[1],
			      petal_pair_return_spinning, NULL);
	if (err == 0)
		err = petal_pair_pin(flow->place.cpus[0]);
	return err;
}

static void close_flow(struct flow *flow)
{
	petal_pair_close(&flow->probe);
	if (flow->place.run)
		munmap(flow->place.run, sizeof(*flow->place.run));
}

int petal_flow_main(const char *bench, struct petal_flow_contender *contenders,
		    size_t count, int argc, char **argv)
{
	static const struct petal_options_form form = {
		.bytes_max = BYTES_MAX,
		.bytes_help = "only rows with this payload",
	};
	static char kernel[128];
	struct utsname name;
	struct flow flow = {
		.bench = bench,
		.kernel = kernel,
	};
	int err = petal_options_parse(&form, argc, argv, &flow.options);
	int told;

	if (err != 0)
		return err > 0 ? 0 : 2;
	uname(&name);
	snprintf(kernel, sizeof(kernel), "Linux %.100s", name.release);
	flow.sink = (struct petal_row_sink){ stdout, flow.options.json, false };
	/* Before the pinning, for it counts the CPUs that we may use. */
	err = petal_row_machine_print(&flow.sink);
	if (err == 0)
		err = open_flow(&flow);
	if (err == 0)
		err = run_groups(&flow, contenders, count);
	/* Whoever broke has said so; the others scale all the same. */
	told = petal_scaling_print(&flow.scaling, &flow.sink);
	if (err == 0)
		err = told;
	close_flow(&flow);
	if (err < 0)
		fprintf(stderr, "%s: %s\n", program_invocation_short_name,
			petal_strerror(err));
	return err < 0 ? 1 : 0;
}
