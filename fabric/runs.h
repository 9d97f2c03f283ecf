/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_RUNS_H
#define PETAL_FABRIC_RUNS_H

#include <stdbool.h>
#include <stdint.h>

#include "rings/record.h"

/**
 * DOC: runs - the logs that one disk holds of one ring
 *
 * A member's log may begin anew: what it held was no prefix of its primary's,
 * or went beyond a seal. The journal must not lose the log before that, for it
 * has what this disk once acknowledged, until the new one has as much. So what
 * follows without a gap is one run, each run has batches of its own in the
 * journal (its key), and the one before goes when the new one is whole.
 *
 *    run 1  [batch][batch][batch]...........  speaks for the disk
 *    run 2       [batch][batch]...^ whole_pos  until run 2 is durable up to there
 *
 * Always true: each batch of a run continues the one before, by position, lsn
 * and chain; and of the runs in the journal the last that is whole has
 * everything that this disk ever acknowledged and that is not done. If none is
 * whole and the first is there, it never acknowledged anything.
 *
 * What is done may be forgotten. But that a message is done is said by a later
 * record, and a disk must not forget the message before it has that record:
 * else a power cut would leave neither.
 *
 * Pure. Threads: one.
 */

/* The journal's name of a run; a ring's id has 32 bits. */
#define PETAL_RUNS_KEY(ring, run) ((uint64_t)(run) << 32 | (ring))
#define PETAL_RUNS_KEY_RING(key) ((key)&UINT32_MAX)
#define PETAL_RUNS_KEY_RUN(key) ((uint32_t)((key) >> 32))

struct petal_runs {
	uint32_t run;     /* which batches go to; 0: none yet */
	uint32_t before;  /* the one that speaks until run is whole; 0: none */
	uint32_t highest; /* number that was ever given */
	bool whole;
	struct petal_record_cursor end; /* of what was given to run */
	uint64_t whole_pos;             /* run is whole from there on */
	uint64_t trim_pos;              /* run may forget what lies before */
	uint64_t next_trim_pos;         /* ... when it has all up to ... */
	uint64_t next_seen_pos;
};

/**
 * petal_runs_resume() - go on with what the journal held at start
 * @run: the last that is whole, or else any; 0: it held none
 * @highest: number of any run that it held
 * @end: of the log that was made of it
 */
void petal_runs_resume(struct petal_runs *runs, uint32_t run, uint32_t highest,
		       bool whole, const struct petal_record_cursor *end,
		       uint64_t trim_pos);

/**
 * petal_runs_next() - which run a batch goes to that begins there
 *
 * Changes nothing.
 */
uint32_t petal_runs_next(const struct petal_runs *runs,
			 const struct petal_record_cursor *from);

/**
 * petal_runs_given() - the journal was given a batch
 * @from, @to: its ends; another run than before begins at the log's beginning
 * @whole_pos: from there on the log has all that its primary had as it joined
 *
 * Return: a run that is of no use any more, to be detached; or 0.
 */
uint32_t petal_runs_given(struct petal_runs *runs,
			  const struct petal_record_cursor *from,
			  const struct petal_record_cursor *to,
			  uint64_t whole_pos);

/**
 * petal_runs_durable() - a batch of a run is durable
 * @run: which; another one than the present is no news
 *
 * Return: the run before, when the present one is whole now, to be detached;
 * or 0.
 */
uint32_t petal_runs_durable(struct petal_runs *runs, uint32_t run,
			    uint64_t to_pos);

/**
 * petal_runs_give_up() - there is no room for two logs
 *
 * @begins: a run was to begin, and its first batch found no room
 *
 * Until the next one is whole this disk has lost what it acknowledged.
 *
 * Return: the run that was to speak until then, to be detached; or 0.
 */
uint32_t petal_runs_give_up(struct petal_runs *runs, bool begins);

/**
 * petal_runs_trim() - all before a position is done
 * @done_pos: which
 * @seen_pos: the records that say so lie before this
 * @disk_pos: this disk has the log up to there
 *
 * Updates trim_pos.
 */
void petal_runs_trim(struct petal_runs *runs, uint64_t done_pos,
		     uint64_t seen_pos, uint64_t disk_pos);

#endif
