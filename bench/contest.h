/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_CONTEST_H
#define PETAL_BENCH_CONTEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/pair.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: contest - contenders and a floor, measured in turns
 *
 * The machine drifts within seconds, so nobody is measured in one piece. A
 * round is a short leg of each, with a leg of the floor on both sides:
 *
 *    round 0:  floor  A  floor  B  floor
 *    round 1:  floor  A  floor  B  floor
 *    ...
 *
 * A leg is a closed loop with one message in flight: some round trips that
 * are not counted, then as many as fit into its time, each of them counted.
 * A sample is the time from the end of one round trip to the end of the next,
 * filling and checking the payload included, and one reading of the clock.
 *
 * A contender's ratio in a round is its p50 over the mean of the p50s of the
 * two floor legs around it; floor_ratio is the median over the rounds, and
 * the note gives the spread. For spinning rows, a floor leg slower than 1.8
 * times the fastest one counts as far (the two CPUs share no near cache at
 * that moment, or their host is busy). If both happen, the note gives the
 * ratio of near rounds and of far rounds apart; rounds in which the floor
 * flipped from one side of a leg to the other are counted, not quoted.
 *
 * Client and servers are bound to one CPU each. There is one thread here.
 */

struct petal_contest;

/**
 * struct petal_contender - who is measured, by means of three calls
 * @impl: its name in the row
 * @version: of what it runs on; the caller's memory; NULL: the kernel's
 * @remark: ends the note of its rows; the caller's memory, "" if none
 * @peer: something that a user could take instead of us
 * @polls: it cannot sleep, and is measured only where it spins
 * @bytes: of payload that a trip moves each way; 0 for none
 * @open: start the server in @pair, without threads; 0 or -errno
 * @join: connect to it, threads allowed; NULL if there is nothing to do
 * @trip: one round trip, the sequence-th, counted from 1; 0 or -errno. It asks
 *	  petal_pair_spinning() how to wait.
 * @close: undo @join and what @open kept, but not the pair; may be NULL, may
 *	   be called after a failed @open or @join
 * @arg: the contender's own
 * @pair: opened by @open, closed by the contest
 */
struct petal_contender {
	const char *impl;
	const char *version;
	const char *remark;
	bool peer;
	bool polls;
	uint64_t bytes;
	int (*open)(struct petal_contender *contender,
		    const struct petal_contest *contest);
	int (*join)(struct petal_contender *contender,
		    const struct petal_contest *contest);
	int (*trip)(struct petal_contender *contender, uint64_t sequence);
	void (*close)(struct petal_contender *contender);
	void *arg;
	struct petal_pair pair;
};

/**
 * struct petal_contest - what the command line asked for
 * @bench: the question, for the rows
 * @only: what the name of a contender must hold; NULL: anything
 * @bytes: of payload each way, 1 to 1 MiB
 * @rounds: 1 to 1000
 * @leg_ns: of a contender; the floor's are half as long
 * @cpus: of the client and of the servers
 * @sleep: measure sides that block
 * @spin: measure sides that spin
 * @crowd: spin even if there is only one CPU
 * @json: rows as JSON
 */
struct petal_contest {
	const char *bench;
	const char *only;
	uint64_t bytes;
	unsigned rounds;
	uint64_t leg_ns;
	int cpus[2];
	bool sleep;
	bool spin;
	bool crowd;
	bool json;
};

/**
 * petal_contest_parse() - read the command line
 * @contest: the caller's memory
 * @bench: the question
 * @argc: of main
 * @argv: of main
 *
 * Prints the usage on stdout if asked, or one sentence on stderr.
 *
 * Return: 0: run; 1: the usage was all; -EINVAL: not understood.
 */
int petal_contest_parse(struct petal_contest *contest, const char *bench,
			int argc, char **argv);

/**
 * petal_contest_run() - measure and print the rows on stdout
 * @contest: how
 * @contenders: whom
 * @count: how many of them
 *
 * Contenders that are not wanted are neither opened nor printed. One that
 * cannot start is a row that says why, and no failure. On a
 * terminal the progress is shown on stderr. Every server is gone on return. A
 * signal that asks to stop ends the contest, and then this process.
 *
 * Return: 0, or the first failure: of the floor, of a contender that broke in
 * the middle (which is also in its row), or of stdout. It has been printed on
 * stderr.
 */
int petal_contest_run(const struct petal_contest *contest,
		      struct petal_contender *contenders, size_t count);

/**
 * petal_contest_main() - parse, run, and choose the exit code
 *
 * The contenders' @bytes is set from the command line if it is not 0.
 *
 * Return: 0 fine, 1 something failed, 2 usage.
 */
int petal_contest_main(const char *bench, struct petal_contender *contenders,
		       size_t count, int argc, char **argv);

#ifdef __cplusplus
}
#endif

#endif
