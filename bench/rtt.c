/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtt - a message to another process and its answer, through a ring each way
 *
 * The question: how long is a round trip, when both sides spin, when both
 * sleep, and when there are more parties than CPUs? Every message is filled
 * and checked by both sides. A spinning floor bounces as many cache lines each
 * way as a message of that size lies in, one word in each; a sleeping floor is
 * a futex each way.
 *
 * The happy path: for each pair of rows of rtt_play.c, rounds of floor, ours,
 * floor.
 *
 * Then, at the size that --bytes says, ours and the peers as contenders of a
 * contest: the same bytes copied in and out by everybody, with the system's
 * clock in each sample.
 *
 * What can go wrong: a party finds a wrong payload or dies, which ends its row
 * and makes the program fail at the end.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include "bench/contest.h"
#include "bench/duplex.h"
#include "bench/duplex_spsc.h"
#include "bench/median.h"
#include "bench/options.h"
#include "bench/pair.h"
#include "bench/peers.h"
#include "bench/row.h"
#include "bench/rtt_play.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "shm/histogram.h"

/* A floor leg this much slower than the fastest one counts as far. */
#define FAR 1.8

/* A leg with fewer samples is the scheduler's, and played again. */
#define SAMPLES_MIN 50u
#define TRIES_MAX 10u

/* Rounds. */

struct score {
	double p50_ns;
	double p99_ns;
};

struct round {
	struct score before; /* the floor */
	struct score ours;
	struct score after; /* the floor again */
};

struct entry {
	const struct rtt_play *play;
	struct petal_histogram *total;
	uint64_t wall_ns;
	uint64_t cpu_ns;
	unsigned rounds;
	int fault;
};

struct bout {
	const struct petal_contest *contest;
	struct petal_row_sink sink;
	struct petal_histogram *scratch;
	struct entry floor;
	struct entry ours;
	struct round *round;
	const char *version;
};

static uint64_t spent_ns(void)
{
	uint64_t sum_ns = 0;

	for (int i = 0; i < 2; i++) {
		struct rusage usage;

		getrusage(i ? RUSAGE_CHILDREN : RUSAGE_SELF, &usage);
		sum_ns += PETAL_S(usage.ru_utime.tv_sec) +
			  PETAL_S(usage.ru_stime.tv_sec) +
			  PETAL_US(usage.ru_utime.tv_usec) +
			  PETAL_US(usage.ru_stime.tv_usec);
	}
	return sum_ns;
}

/* On a busy machine, one of two that spin may have no CPU for a whole leg. */
static int run_sampled(struct bout *bout, const struct rtt_play *play,
		       uint64_t leg_ns)
{
	int err = 0;

	for (unsigned i = 0; i < TRIES_MAX && err == 0; i++) {
		petal_histogram_init(bout->scratch);
		err = rtt_run_leg(bout->contest, play, leg_ns, bout->scratch);
		if (err < 0 || bout->scratch->count >= SAMPLES_MIN)
			return err;
	}
	return -ETIMEDOUT;
}

static int run_scored(struct bout *bout, struct entry *entry, uint64_t leg_ns,
		      struct score *ret_score)
{
	struct petal_histogram *scratch = bout->scratch;
	uint64_t cpu_ns = spent_ns();
	uint64_t start_ns = petal_clock_now_ns();

	entry->fault = run_sampled(bout, entry->play, leg_ns);
	if (entry->fault < 0)
		return entry->fault;
	entry->cpu_ns += spent_ns() - cpu_ns;
	entry->wall_ns += petal_clock_now_ns() - start_ns;
	petal_histogram_merge(entry->total, scratch);
	ret_score->p50_ns =
		(double)petal_histogram_quantile(scratch, PETAL_HISTOGRAM_P50);
	ret_score->p99_ns =
		(double)petal_histogram_quantile(scratch, PETAL_HISTOGRAM_P99);
	return 0;
}

static int run_rounds(struct bout *bout)
{
	uint64_t leg_ns = bout->contest->leg_ns;
	struct score floor;
	int err = run_scored(bout, &bout->floor, leg_ns / 2, &floor);

	for (unsigned i = 0; i < bout->contest->rounds && err == 0; i++) {
		struct round *round = &bout->round[i];

		round->before = floor;
		err = run_scored(bout, &bout->ours, leg_ns, &round->ours);
		if (err == 0)
			err = run_scored(bout, &bout->floor, leg_ns / 2,
					 &floor);
		round->after = floor;
		bout->ours.rounds += err == 0;
		bout->floor.rounds += err == 0;
	}
	return err;
}

/* What the rounds say. */

enum which { ALL, NEAR, DISTANT };

struct verdict {
	double p50; /* medians of the ratios to the floor */
	double p99;
	double low; /* of p50 */
	double high;
	unsigned rounds;
};

static double best_floor_ns(const struct bout *bout)
{
	double best_ns = bout->round[0].before.p50_ns;

	for (unsigned i = 0; i < bout->ours.rounds; i++)
		if (bout->round[i].after.p50_ns < best_ns)
			best_ns = bout->round[i].after.p50_ns;
	return best_ns;
}

static bool is_picked(const struct round *round, double limit_ns,
		      enum which which)
{
	bool before_far = round->before.p50_ns > limit_ns;
	bool after_far = round->after.p50_ns > limit_ns;

	return which == ALL || (before_far == (which == DISTANT) &&
				after_far == (which == DISTANT));
}

static struct verdict judge(const struct bout *bout, enum which which)
{
	double limit_ns = FAR * best_floor_ns(bout);
	struct verdict verdict = { 0 };
	double p50[1000], p99[1000];
	unsigned count = 0;

	for (unsigned i = 0; i < bout->ours.rounds && count < 1000; i++) {
		const struct round *round = &bout->round[i];

		if (!is_picked(round, limit_ns, which))
			continue;
		p50[count] = 2 * round->ours.p50_ns /
			     (round->before.p50_ns + round->after.p50_ns);
		p99[count] = 2 * round->ours.p99_ns /
			     (round->before.p99_ns + round->after.p99_ns);
		count++;
	}
	if (count == 0)
		return verdict;
	verdict.rounds = count;
	verdict.p50 = petal_median(p50, count);
	verdict.p99 = petal_median(p99, count);
	verdict.low = p50[0];
	verdict.high = p50[count - 1];
	return verdict;
}

static void write_note(const struct bout *bout, const struct verdict *all,
		       char *note, size_t size)
{
	struct verdict near = judge(bout, NEAR);
	struct verdict far = judge(bout, DISTANT);
	int used = snprintf(note, size,
			    "ratio %.2f to %.2f in %u rounds, of p99 %.2f",
			    all->low, all->high, all->rounds, all->p99);

	if (near.rounds != all->rounds && used > 0 && (size_t)used < size)
		used += snprintf(note + used, size - (size_t)used,
				 " (near %.2f, %.2f in %u; far %.2f, %.2f in "
				 "%u; %u flipped)",
				 near.p50, near.p99, near.rounds, far.p50,
				 far.p99, far.rounds,
				 all->rounds - near.rounds - far.rounds);
	if (used > 0 && (size_t)used < size)
		snprintf(note + used, size - (size_t)used, "; %s",
			 bout->ours.play->remark);
}

static int print_entry(struct bout *bout, struct entry *entry)
{
	const struct rtt_play *play = entry->play;
	struct verdict all = { 0 };
	struct petal_row row;
	char note[512];

	petal_row_init(&row, "rtt");
	row.question = play->crowd > 1 ? "crowd" : "";
	row.impl = play->impl;
	row.version = bout->version;
	row.wait = play->wait;
	row.floor = play->floor;
	row.bytes = play->bytes;
	row.producers = play->crowd;
	row.consumers = play->crowd;
	row.rounds = entry->rounds;
	petal_row_take(&row, entry->total);
	snprintf(note, sizeof(note), "%s", play->remark);
	row.note = note;
	if (!play->floor && entry->rounds > 0) {
		all = judge(bout, ALL);
		write_note(bout, &all, note, sizeof(note));
	}
	if (entry->fault)
		snprintf(note, sizeof(note), "broke in round %u: %s",
			 entry->rounds + 1, petal_strerror(entry->fault));
	row.floor_ratio = play->floor ? 1 : all.p50;
	if (row.n > 0) {
		row.msgs_per_s = (double)row.n * 1e9 / (double)entry->wall_ns;
		row.cpu_ns_per_msg =
			(double)entry->cpu_ns / (double)(row.n * play->crowd);
	}
	return petal_row_print(&bout->sink, &row);
}

static int run_bout(struct bout *bout, const struct rtt_play *floor,
		    const struct rtt_play *ours)
{
	int broken;
	int err;

	bout->floor = (struct entry){ floor, bout->floor.total, 0, 0, 0, 0 };
	bout->ours = (struct entry){ ours, bout->ours.total, 0, 0, 0, 0 };
	petal_histogram_init(bout->floor.total);
	petal_histogram_init(bout->ours.total);
	broken = run_rounds(bout);
	err = print_entry(bout, &bout->floor);
	if (err == 0)
		err = print_entry(bout, &bout->ours);
	return err < 0 ? err : broken;
}

static bool is_wanted(const struct petal_contest *contest,
		      const struct rtt_play *play)
{
	if (!petal_options_want(contest->only, play->impl))
		return false;
	return strcmp(play->wait, "spin") == 0 ? contest->spin : contest->sleep;
}

static int run_bouts(struct bout *bout)
{
	int fault = 0;
	int err = 0;

	for (size_t i = 0; i < rtt_play_count; i++) {
		if (!is_wanted(bout->contest, &rtt_plays[i][1]))
			continue;
		err = run_bout(bout, &rtt_plays[i][0], &rtt_plays[i][1]);
		if (fault == 0)
			fault = err;
	}
	return fault;
}

/* Ours and the peers, all behind the same calls, at one size. */
static int run_contest(const struct petal_contest *contest)
{
	struct petal_contender contenders[1 + PETAL_PEERS_MAX];
	size_t count;

	contenders[0] = petal_duplex_contender(&petal_duplex_spsc);
	contenders[0].peer = false;
	count = 1 + petal_peers(contenders + 1);
	for (size_t i = 0; i < count; i++)
		contenders[i].bytes = contest->bytes;
	return petal_contest_run(contest, contenders, count);
}

static int run_both(struct bout *bout)
{
	cpu_set_t cpus;
	int fault;
	int err;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0)
		return -errno;
	err = petal_row_machine_print(&bout->sink);
	if (err == 0)
		err = petal_pair_pin(bout->contest->cpus[0]);
	if (err < 0)
		return err;
	/* A bout that broke says so in its row; the peers run all the same. */
	fault = run_bouts(bout);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) != 0)
		return -errno;
	err = run_contest(bout->contest);
	return fault < 0 ? fault : err;
}

static int bout_init(struct bout *bout, const struct petal_contest *contest)
{
	bout->contest = contest;
	bout->sink = (struct petal_row_sink){ stdout, contest->json, false };
	bout->scratch = malloc(sizeof(*bout->scratch));
	bout->floor.total = malloc(sizeof(*bout->floor.total));
	bout->ours.total = malloc(sizeof(*bout->ours.total));
	bout->round = calloc(contest->rounds, sizeof(*bout->round));
	if (!bout->scratch || !bout->floor.total || !bout->ours.total ||
	    !bout->round)
		return -ENOMEM;
	return 0;
}

int main(int argc, char **argv)
{
	struct petal_contest contest;
	struct bout bout = { 0 };
	struct utsname kernel;
	char version[128];
	int err = petal_contest_parse(&contest, "rtt", argc, argv);

	if (err != 0)
		return err > 0 ? 0 : 2;
	uname(&kernel);
	snprintf(version, sizeof(version), "Linux %.100s", kernel.release);
	bout.version = version;
	rtt_calibrate();
	err = bout_init(&bout, &contest);
	if (err == 0)
		err = run_both(&bout);
	if (err < 0)
		fprintf(stderr, "rtt: %s\n", petal_strerror(err));
	free(bout.scratch);
	free(bout.floor.total);
	free(bout.ours.total);
	free(bout.round);
	return err < 0 ? 1 : 0;
}
