/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_PRIMARY_PRIVATE_H
#define PETAL_FABRIC_PRIMARY_PRIVATE_H

#include "fabric/primary.h"
#include "fabric/txn.h"

/**
 * DOC: primary_private - how the parts of a primary call each other
 *
 *    primary.c          accept, journal, mark, owners, and the step in order
 *    primary_members.c  the two backups
 *    primary_queues.c   messages, and the room they take
 *    primary_recover.c  what older epochs have left
 *
 * Threads: the replicator's, like all of it.
 */

static inline const uint8_t *
primary_payload(const struct petal_record_durable *record)
{
	return (const uint8_t *)record + PETAL_RECORD_DURABLE_BYTES;
}

static inline uint64_t primary_visible_pos(const struct petal_primary *p)
{
	return atomic_load_explicit(&p->log->marks->level_pos[PETAL_LEVEL_MEM2],
				    memory_order_relaxed);
}

/* Whether a member's acknowledgements count (I10). */
static inline bool primary_counts(const struct petal_primary_member *member)
{
	return member->voter && member->whole;
}

/*
 * A disk that lacks what was accepted as its member joined may be a new one, and
 * would not have it after a power cut: it counts from there on.
 */
static inline uint64_t
primary_disk_pos(const struct petal_primary_member *member)
{
	return member->disk_pos < member->joined_pos ? 0 : member->disk_pos;
}

/* Send each attached member what it lacks, as far as its bound allows. */
void primary_send_all(struct petal_primary *p);

/* Ask for the vote of members that have caught up. */
void primary_admit_learners(struct petal_primary *p);

/* Settle all leases that a TXN acknowledges: 0, or none of them and why. */
int primary_settle(struct petal_primary *p, const struct petal_txn *txn,
		   uint32_t owner, uint64_t end_pos);

/* 0, also when a lease table is full; -PETAL_ECORRUPT. */
int primary_dispatch(struct petal_primary *p);

void primary_expire(struct petal_primary *p, uint64_t now_ns);
void primary_trim(struct petal_primary *p);
void primary_release(struct petal_primary *p);

/* Tell the backups how far the log is trimmed. */
void primary_order(struct petal_primary *p, uint64_t now_ns);

/* A message that the retained log acknowledges. */
struct petal_primary_done {
	uint64_t lsn;
	uint32_t index;
	uint32_t reserved;
};

/* Read the acknowledgements between two positions: 0, or a failure. */
int primary_recall(struct petal_primary *p, uint64_t from_pos, uint64_t to_pos);

bool primary_is_done(const struct petal_primary *p, uint64_t lsn,
		     uint32_t index);

#endif
