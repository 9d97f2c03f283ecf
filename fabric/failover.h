/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_FAILOVER_H
#define PETAL_FABRIC_FAILOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/log.h"
#include "rings/record.h"

/**
 * DOC: failover - who follows a primary that is lost, and with which log
 *
 *    member                          candidate                     registry
 *    suspects, and says so ------->  suspects too, has the better log
 *                                    F1 swap (e -> e+1, recovering) ----->
 *      <------------------ FENCE --  F2
 *    promises e+1, durably
 *    stops for good in e
 *    FENCED: my log ends there --->  F3 two that count: the best log
 *                                       ours: go on. theirs: F1 again, for them
 *      <------------------- CALL --  F4 new memory, the log copied, EPOCH_START
 *    new memory, log copied
 *    offers, is given the rest <-->     ... until EPOCH_START is at mem2
 *                                    F5 swap (sealed, open) ------------->
 *
 * Suspicion is advice: only the swap of the registry makes a primary (I2), and
 * only two members that promised, with the incarnations of the registry's value
 * (I10) and a log that is whole, decide what the log was (I5, I6). Of two logs
 * the better one ends in the later epoch, and of the same epoch with the later
 * lsn: one primary wrote all records of an epoch, in one order (I3), so the
 * better log has everything that the other one has and that ever counted.
 *
 * The candidate takes no records from others: if another log is better than its
 * own, its owner becomes the candidate of the next epoch. So nothing that is
 * there is ever overwritten by less (I11).
 *
 * A log speaks for its member until the log of a later epoch is whole.
 *
 * When all memory is gone there is nobody who votes like that. Then disks do:
 * a member whose journal is the one that the registry's value names speaks by
 * the log that it restored from it, and with D instead of M the rest is the
 * same. What is at disk2 is on one of any two of the three disks. So few may
 * have been only slow to come back; so three go on at once, and two when a
 * third had time enough to come.
 *
 * Pure: no I/O and no clock. Time decides who tries when, and nothing else
 * (I17).
 *
 * Threads: one.
 */

#define PETAL_FAILOVER_QUORUM 2u
/* A suspicion counts so long; it is said again well before. */
#define PETAL_FAILOVER_FRESH_NS UINT64_C(200000000)
/* So long the better log has the first try. */
#define PETAL_FAILOVER_PATIENCE_NS UINT64_C(150000000)
/* So long two disks wait for the third member. */
#define PETAL_FAILOVER_COLD_NS UINT64_C(2000000000)

/* By what a member may speak. */
enum petal_failover_voice {
	PETAL_FAILOVER_NONE,
	PETAL_FAILOVER_DISK,
	PETAL_FAILOVER_MEMORY, /* and so its disk, too */
};

struct petal_failover_member {
	/* What it suspects. */
	uint32_t suspects; /* the epoch whose primary it misses; 0: none */
	uint64_t suspects_ns;
	enum petal_failover_voice voice;
	struct petal_record_cursor suspects_end; /* of its log, by then */
	/* What it answered to FENCE. */
	bool answered;
	bool counts;
	struct petal_record_cursor end;
};

struct petal_failover {
	unsigned self;
	uint32_t suspected; /* by us; 0: nothing */
	uint64_t suspected_ns;
	uint32_t fencing; /* the epoch of the answers; 0: none */
	unsigned quorum;  /* so many of them have to count */
	struct petal_failover_member members[PETAL_LOG_MEMBERS];
};

void petal_failover_open(struct petal_failover *failover, unsigned self);

/**
 * petal_failover_better() - whether a log that ends at @a has more than at @b
 */
bool petal_failover_better(const struct petal_record_cursor *a,
			   const struct petal_record_cursor *b);

/**
 * petal_failover_suspect() - we miss the primary of an epoch
 *
 * Call again as long as that is so.
 */
void petal_failover_suspect(struct petal_failover *failover, uint32_t epoch,
			    uint64_t now_ns);

/**
 * petal_failover_trust() - it is there
 */
void petal_failover_trust(struct petal_failover *failover);

/**
 * petal_failover_heard() - another member misses the primary of an epoch
 * @voice: by what it would speak
 * @end: where its log ends
 */
void petal_failover_heard(struct petal_failover *failover, unsigned member,
			  uint32_t epoch, enum petal_failover_voice voice,
			  const struct petal_record_cursor *end,
			  uint64_t now_ns);

/**
 * petal_failover_may_run() - whether to try for the next epoch now
 * @end: where our log ends
 *
 * One member that misses the primary may be the one that is cut off, so it
 * takes two, and both by their memory. The one with the better log goes first,
 * of equal ones the lower.
 */
bool petal_failover_may_run(const struct petal_failover *failover,
			    const struct petal_record_cursor *end,
			    uint64_t now_ns);

/**
 * petal_failover_may_run_cold() - whether to try it with disks
 * @end: where our log ends; we have one
 * @memories: members, ourselves included, that are there with their memory;
 *	with two of them it is theirs to try
 */
bool petal_failover_may_run_cold(const struct petal_failover *failover,
				 const struct petal_record_cursor *end,
				 unsigned memories, uint64_t now_ns);

/**
 * petal_failover_fence() - begin to collect answers to FENCE(@epoch)
 * @quorum: PETAL_FAILOVER_QUORUM; or 1, when an operator accepts a loss
 */
void petal_failover_fence(struct petal_failover *failover, uint32_t epoch,
			  unsigned quorum);

/**
 * petal_failover_fenced() - a member has promised
 * @epoch: which; of another one than was asked for it changes nothing
 * @counts: it may speak, by its memory or its disk, and its log is whole
 * @end: where its log ends
 */
void petal_failover_fenced(struct petal_failover *failover, unsigned member,
			   uint32_t epoch, bool counts,
			   const struct petal_record_cursor *end);

/**
 * petal_failover_best() - whose log it is
 *
 * Return: a member, ourselves if ours counts and no other is better; -EAGAIN
 * while fewer answers count than the quorum.
 */
int petal_failover_best(const struct petal_failover *failover);

#endif
