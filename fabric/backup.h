/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_BACKUP_H
#define PETAL_FABRIC_BACKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/log.h"
#include "fabric/recovery.h"
#include "fabric/sessions.h"
#include "rings/record.h"

/**
 * DOC: backup - a member that keeps what the primary writes into its memory
 *
 * The primary writes one-sided, at equal offsets, and says nothing else. The
 * backup's CPU looks at the place where the next record has to be: it is there
 * when lsn, epoch and every CRC say so, and then M moves over it. The journal
 * takes it from the same memory, and then D moves.
 *
 *    D <= M <= what has landed
 *
 * The log is whole when it has all that the primary had accepted as it joined;
 * from then on it may speak for this member when the primary is lost, and not
 * before: see fabric/failover.h. One that was restored from the journal speaks
 * for this member's disk, until it begins anew.
 *
 * It does no I/O; see struct petal_backup_port.
 *
 * Threads: one.
 */

struct petal_backup_port {
	void *self;
	/* Write our acknowledgement line into the primary's memory: 0, -EAGAIN. */
	int (*acknowledge)(void *self);
	/* Journal whole records; petal_backup_journaled() follows. */
	int (*journal)(void *self, const struct petal_record_cursor *from,
		       const struct petal_record_cursor *to, uint64_t trim_pos);
};

struct petal_backup_counts {
	uint64_t records;
	uint64_t bytes;
	uint64_t corrupt; /* visits that met a record that cannot be */
	uint64_t starts;
};

struct petal_backup {
	struct petal_log *log;
	struct petal_backup_port port;
	struct petal_record_cursor cursor; /* M */
	struct petal_record_cursor journaled_to;
	uint64_t disk_pos; /* D */
	uint64_t trim_pos;
	uint64_t seen_pos; /* the records that say so lie before this */
	uint64_t told_memory_pos;
	uint64_t told_disk_pos;
	uint64_t told_trim_pos;
	uint64_t whole_pos;
	uint64_t looked_pos; /* a long record there was not whole */
	unsigned self; /* our member index: which line we acknowledge in */
	bool started;  /* the primary told us where to go on */
	bool fenced;   /* a later epoch has begun: nothing moves any more */
	bool whole;
	bool remembers; /* has all that its disk had as we started; caller's */
	bool exact;     /* sessions is of our log, and not of more */
	bool told;      /* what the words say, since then */
	bool told_frozen;
	bool journal_busy;
	bool journal_stale; /* what is in flight is of a log that was */
	bool journal_frozen;
	struct petal_sessions sessions;
	struct petal_backup_counts counts;
};

void petal_backup_open(struct petal_backup *backup, struct petal_log *log,
		       unsigned self, const struct petal_backup_port *port);

/**
 * petal_backup_restore() - take records back from the journal, at start
 * @from: where they begin; crc is not used
 * @bytes: whole records
 * @length: how many bytes of them
 * @trim_pos: what the journal, in its newest batch, knew to be done
 *
 * Called for each live batch, oldest first. A batch that does not follow the
 * one before begins the log anew, which it may only do where everything before
 * it is done: else we would count for records that we do not hold.
 *
 * Return: 0, or -PETAL_ECORRUPT when it may not begin there, or the bytes are
 * not the records they claim to be; what was restored before stays, and of
 * these as many as are good.
 */
int petal_backup_restore(struct petal_backup *backup,
			 const struct petal_record_cursor *from,
			 const void *bytes, uint64_t length, uint64_t trim_pos);

/**
 * petal_backup_seed() - begin with what the epoch before has left us
 * @recovery: copied into the log by petal_recovery_copy(); a log of NULL leaves
 *	the journal's state only
 */
void petal_backup_seed(struct petal_backup *backup,
		       const struct petal_recovery *recovery);

/**
 * petal_backup_start() - the primary says where our log goes on
 * @whole_pos: the log is whole from there on
 * @sessions: the primary's, of the log up to @whole_pos; NULL: ours are exact
 *
 * The primary may write into our memory from the moment it says so, if the log
 * goes on where ours ends, or ours is empty. Offer the log only while no batch is
 * in flight (journal_busy), for its bytes are read from there.
 *
 * Only the answer to the newest offer counts: an older one was for another log.
 *
 * Return: 0; 1 when ours was another log: it is cleared now, and has to be
 * offered again before anything comes.
 */
int petal_backup_start(struct petal_backup *backup,
		       const struct petal_record_cursor *start,
		       uint64_t whole_pos,
		       const struct petal_sessions *sessions);

/**
 * petal_backup_stop() - the primary is gone; nothing is acknowledged any more
 */
void petal_backup_stop(struct petal_backup *backup);

/**
 * petal_backup_fence() - a later epoch has begun: look a last time (I8)
 *
 * What has landed and is valid counts; after that M stands still and nothing
 * is acknowledged.
 */
void petal_backup_fence(struct petal_backup *backup);

/**
 * petal_backup_leaves() - what a fenced log leaves to the next epoch
 *
 * Return: 0, or -PETAL_ECORRUPT when its first retained record is none.
 */
int petal_backup_leaves(const struct petal_backup *backup,
			struct petal_recovery *ret_recovery);

/**
 * petal_backup_step() - do everything that can be done now
 *
 * Bounded: at most PETAL_BACKUP_STEP_RECORDS are looked at in one call.
 *
 * Return: 0, or 1 when there is more to do at once.
 */
int petal_backup_step(struct petal_backup *backup);
#define PETAL_BACKUP_STEP_RECORDS 4096u

/**
 * petal_backup_landed() - a write that the primary is told of has landed
 *
 * A record of PETAL_LOG_LONG_BYTES or more comes in such writes, and many pieces
 * of the wire. It is looked at when it may be whole, not at each piece.
 */
void petal_backup_landed(struct petal_backup *backup);

/**
 * petal_backup_news() - whether a step would find a record, or an order
 */
bool petal_backup_news(const struct petal_backup *backup);

/**
 * petal_backup_journaled() - the journal has taken records, or has failed
 */
void petal_backup_journaled(struct petal_backup *backup, uint64_t end_pos,
			    int status);

#endif
