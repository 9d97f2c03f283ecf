/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_FLOW_H
#define PETAL_BENCH_FLOW_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/atomic.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: flow - how many messages pass, from N producers to M consumers
 *
 * A program lists contenders. One that is a floor opens a group, and those
 * that follow it are compared with it, in turns, because the machine drifts:
 *
 *    round 0:  floor  A  floor  B  floor
 *    round 1:  floor  A  floor  B  floor
 *    ...
 *
 * A leg maps fresh memory (prepare), forks every party of the contender, binds
 * it to a CPU, waits until each has what it needs (join) and starts all at
 * once. An eighth of the leg's time passes uncounted; then the counts of all
 * parties and their CPU times are read, and once more at the end of the leg, by
 * a parent that sleeps in between:
 *
 *    prepare  fork  join  | warm-up | . . . . . . leg_ns . . . . . . | stop
 *                         start     read all                  read all
 *
 * Messages of a leg are what the consumers counted; what the producers counted
 * if there is no consumer, or if each message goes to every consumer. A rate
 * is messages over wall time; a row gives the median over the rounds.
 *
 * A contender's ratio in a round is the mean rate of the two floor legs around
 * it over its own rate (2.0: half as fast as the floor); floor_ratio is the
 * median over the rounds, and the note gives the spread. Between two legs a
 * line is bounced between the first two CPUs for a moment. A bounce 1.8 times
 * slower than the fastest one of the run counts as far; if there were both
 * kinds of round, the note gives rate and ratio of each apart.
 *
 * Rows that differ in the number of parties alone end in a line that says how
 * they scale (scaling.h).
 *
 * Consumer i is bound to CPU i, producer i to CPU 1 + i, modulo the number of
 * CPUs that this process may use.
 *
 * Crash: children die with the parent (PR_SET_PDEATHSIG); one that fails, or
 * does not start or stop within ten seconds, is a row that says so.
 */

#define PETAL_FLOW_PARTIES_MAX 128u
#define PETAL_FLOW_LINE_BYTES 64u

/* One party's line, which it alone writes while the leg runs. */
struct petal_flow_party {
	struct petal_u64 count;
	struct petal_u64 ready;
	struct petal_u64 err;
	uint8_t reserved[2 * PETAL_FLOW_LINE_BYTES - 24];
};

/**
 * struct petal_flow_run - a leg, as its parties see it; shared between them
 * @started: the parties may begin
 * @stopped: the parties shall return
 * @crowded: there are more parties than CPUs
 * @party: producers first
 */
struct petal_flow_run {
	struct petal_u64 started;
	struct petal_u64 stopped;
	uint64_t crowded;
	uint8_t reserved[2 * PETAL_FLOW_LINE_BYTES - 24];
	struct petal_flow_party party[PETAL_FLOW_PARTIES_MAX];
};

/**
 * struct petal_flow_contender - who is measured
 * @question: the sub-question, "" if there is none; the key "case"
 * @impl: its name in the row
 * @version: of what it runs on; NULL: the kernel's
 * @remark: ends the note of its row; NULL if there is nothing to say
 * @wait: "spin" or "sleep"; NULL: "spin"
 * @refusal: why it cannot run here; NULL if it can
 * @peer: something that a user could take instead of us
 * @floor: what the machine can do at all; begins a group
 * @every: each message goes to every consumer
 * @bytes: of payload in a message
 * @producers: 1 or more
 * @consumers: 0 or more
 * @window: messages in flight or in one bulk; 0: 1
 * @prepare: set up @memory, before the fork; 0 or -errno. Called for each leg.
 * @join: what each party does before it is ready, such as to connect, in its own
 *	  process, for at most ten seconds; producers come first in @party; 0 or
 *	  -errno; may be NULL
 * @produce: what a producer runs, until petal_flow_is_over(); 0 or -errno.
 *	     @index counts from 0
 * @consume: the same for a consumer; -EBADMSG if a payload was wrong
 * @close: undo @prepare, other than the memory; may be NULL
 * @arg: the contender's own, in the memory of each process
 * @memory: of petal_flow_map(); the same address in each process, so that
 *	    libraries with pointers in their rings work between processes
 * @memory_bytes: how much
 */
struct petal_flow_contender {
	const char *question;
	const char *impl;
	const char *version;
	const char *remark;
	const char *wait;
	const char *refusal;
	bool peer;
	bool floor;
	bool every;
	uint64_t bytes;
	unsigned producers;
	unsigned consumers;
	unsigned window;
	int (*prepare)(struct petal_flow_contender *contender);
	int (*join)(struct petal_flow_contender *contender, unsigned party,
		    struct petal_flow_run *run);
	int (*produce)(struct petal_flow_contender *contender, unsigned index,
		       struct petal_flow_run *run);
	int (*consume)(struct petal_flow_contender *contender, unsigned index,
		       struct petal_flow_run *run);
	void (*close)(struct petal_flow_contender *contender);
	void *arg;
	void *memory;
	uint64_t memory_bytes;
};

/**
 * petal_flow_main() - parse the command line, run the groups, print the rows
 * @bench: the question
 * @contenders: whom; the first one is a floor
 * @count: how many of them
 *
 * --json, --quick, --rounds N, --bytes N (only groups of that size), --only
 * TEXT (only contenders whose name holds it; floors always), --help.
 *
 * A peer that cannot start, or of which no message arrives, is a row that says
 * why, and no failure.
 *
 * Return: 0 fine, 1 something failed, 2 usage.
 */
int petal_flow_main(const char *bench, struct petal_flow_contender *contenders,
		    size_t count, int argc, char **argv);

/**
 * petal_flow_map() - memory for a leg, called by prepare
 * @bytes: how much; page-aligned, zeroed, resident, shared with all parties
 *
 * It is unmapped after the leg.
 *
 * Return: 0 with @memory set, or -errno.
 */
int petal_flow_map(struct petal_flow_contender *contender, uint64_t bytes);

/** petal_flow_is_over() - ask whether the leg has ended; as cheap as can be */
static inline bool petal_flow_is_over(const struct petal_flow_run *run)
{
	return petal_load(&run->stopped, PETAL_RELAXED) != 0;
}

/**
 * petal_flow_relax() - what a party does that can do nothing now
 *
 * Gives the CPU to another party if there are more of them than CPUs. With a
 * CPU each it looks again at once, without PAUSE, which costs 10 cycles on one
 * processor and 140 on another.
 */
static inline void petal_flow_relax(const struct petal_flow_run *run)
{
	if (run->crowded)
		sched_yield();
}

/**
 * petal_flow_count() - say how many messages this party has handled so far
 * @party: its index; for consumers, petal_flow_consumer() of it
 *
 * A plain store to a line of the party's own; once per bulk is enough.
 */
static inline void petal_flow_count(struct petal_flow_run *run, unsigned party,
				    uint64_t count)
{
	petal_store(&run->party[party].count, count, PETAL_RELAXED);
}

/** petal_flow_consumer() - the party that consumer @index is */
static inline unsigned
petal_flow_consumer(const struct petal_flow_contender *contender,
		    unsigned index)
{
	return contender->producers + index;
}

#ifdef __cplusplus
}
#endif

#endif
