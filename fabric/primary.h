/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_PRIMARY_H
#define PETAL_FABRIC_PRIMARY_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/log.h"
#include "fabric/recovery.h"
#include "fabric/sessions.h"
#include "rings/record.h"

/**
 * DOC: primary - the one replicator of a ring, for one epoch
 *
 * It accepts what local producers published, in the order of their claims;
 * sends the accepted bytes to the backups and to the journal; and from what
 * they acknowledge works out how far each level reaches.
 *
 *    tail       claimed by producers
 *      |  accept: check, settle leases, stamp lsn, epoch and CRCs
 *    accepted = level LOCAL
 *      |  send to each backup, append to the journal
 *    level_pos[MEM2 MEM3 DISK2 DISK3]
 *      |  dispatch: visible messages into the lease tables of their queues
 *    dispatched
 *      |  trim: messages done; release: and nobody still copies from there
 *    head
 *
 * What an epoch finds in the log when it begins counts for nothing before its
 * own first record, EPOCH_START, has reached level MEM2 (I7).
 *
 * Always true: head <= trim <= dispatched <= visible <= accepted <= tail, and
 * visible = level_pos[MEM2]: no consumer sees what a failover could lose.
 *
 * It does no I/O. Whatever has to be done outside goes through struct
 * petal_primary_port; whatever happens outside comes in as a call. Time is an
 * argument. The same calls in the same order do the same.
 *
 * Threads: one, the ring's replicator. Shared memory is read and written as
 * fabric/log.h says.
 *
 * Source: docs of the protocol are in fabric/README.md; its shape (a log with
 * one primary, fixed for an epoch by a compare-and-swap elsewhere) is that of
 * PacificA (Lin et al., MSR-TR-2008-25).
 */

/* What the primary asks of its surroundings. */
struct petal_primary_port {
	void *self;
	/*
	 * Write [pos, pos + length) to the same offsets of a member's data; it
	 * does not wrap. If @told, petal_primary_wrote() follows, when this
	 * write and all to that member before it are over. 0, or -EAGAIN.
	 */
	int (*write)(void *self, unsigned member, uint64_t pos, uint64_t length,
		     bool told);
	/* Write our orders line to a member's. Nothing follows. */
	void (*order)(void *self, unsigned member);
	/* Journal whole records; petal_primary_journaled() follows. */
	int (*journal)(void *self, const struct petal_record_cursor *from,
		       const struct petal_record_cursor *to, uint64_t trim_pos);
	/* Make a member that caught up a voter under its new incarnation. */
	void (*admit)(void *self, unsigned member);
	/* Tell an owner that the position it waits for has been reached. */
	void (*signal)(void *self, uint32_t owner);
};

struct petal_primary_member {
	bool attached; /* connected, and told where to start */
	bool waiting; /* for it to clear its memory, and to offer itself again */
	bool voter;   /* its incarnation is the configuration's (I10) */
	bool whole;   /* has had all that was accepted as it joined */
	bool asked;   /* admit was called */
	bool disk_failed;      /* its journal is frozen: nothing waits for it */
	unsigned writes;       /* in flight, and told of */
	uint64_t untold_bytes; /* sent since the last of these */
	uint64_t sent_pos;
	uint64_t part_end_pos; /* of a record that goes out in parts, or 0 */
	uint64_t wrote_pos;
	uint64_t memory_pos;
	uint64_t disk_pos;
	uint64_t told_trim_pos; /* it may be written over up to there */
	uint64_t joined_pos;    /* it has to reach this to be counted */
};

struct petal_primary_owner {
	bool attached;
	bool dead;
	uint64_t session;
	uint64_t sequence; /* the last one seen */
	uint64_t dead_tail;
};

struct petal_primary_counts {
	uint64_t accepted;
	uint64_t refused;
	uint64_t padding;
	uint64_t stale; /* of the refused: a lease that had ended */
	uint64_t repaired;
	uint64_t writes;
	uint64_t write_bytes;
};

struct petal_primary {
	struct petal_log *log;
	struct petal_primary_port port;
	struct petal_record_cursor accepted;
	struct petal_record_cursor journaled_to; /* submitted up to here */
	struct petal_record_cursor head;
	uint64_t dispatched_pos;
	uint32_t dispatched_puts; /* of the TXN at dispatched_pos */
	uint64_t start_pos; /* end of EPOCH_START: nothing counts before (I7) */
	uint64_t trim_pos;
	uint64_t ordered_trim_pos;
	uint64_t disk_pos;
	uint64_t expire_ns;
	uint64_t order_ns;
	uint64_t bury_ns;     /* look at the dead again then; 0: at once */
	uint64_t stalled_pos; /* claimed there, and not published */
	uint64_t stalled_ns;  /* since then; PETAL_CLOCK_NEVER: nothing is */
	unsigned self;        /* our own member index */
	bool journal_busy;
	bool journal_frozen;
	bool halted;
	bool deposed;
	struct petal_primary_done *done; /* what older epochs acknowledged */
	uint32_t done_count;
	struct petal_sessions sessions;
	struct petal_primary_member members[PETAL_LOG_MEMBERS];
	struct petal_primary_owner owners[PETAL_LOG_OWNERS];
	struct petal_primary_counts counts;
};

/**
 * petal_primary_open() - begin an epoch
 * @log: made by petal_log_open(); stays the caller's
 * @self: our index among the members
 * @recovery: what petal_recovery_copy() put into it; NULL: it is empty
 *
 * Its first record is EPOCH_START. Messages that the retained log acknowledges
 * are not handed out again; all others are, from the beginning (I14).
 *
 * Return: 0; -ENOMEM; -PETAL_ECORRUPT when a retained TXN makes no sense; or
 * what petal_mpsc_claim() says of a ring too small.
 */
int petal_primary_open(struct petal_primary *primary, struct petal_log *log,
		       unsigned self, const struct petal_primary_port *port,
		       const struct petal_recovery *recovery);

/**
 * petal_primary_close() - free what it holds; the log stays
 */
void petal_primary_close(struct petal_primary *primary);

/**
 * petal_primary_started() - whether EPOCH_START is at level MEM2
 *
 * Then all before it is committed, and the epoch may be opened (I6, I7).
 */
bool petal_primary_started(const struct petal_primary *primary);

/**
 * petal_primary_stalled_ns() - since when a claim holds back all others
 *
 * Of a producer that lives, or a dead one's that cannot be named yet. Whoever
 * finds that too long ago begins an epoch, which goes on without the claim.
 *
 * Return: PETAL_CLOCK_NEVER when there is none.
 */
uint64_t petal_primary_stalled_ns(const struct petal_primary *primary);

/**
 * petal_primary_expel() - take that claim from its owner, after depose
 * @ret_owner: whose it is
 *
 * Its publish is refused by -ESTALE.
 *
 * Return: 0, or as petal_mpsc_fence().
 */
int petal_primary_expel(struct petal_primary *primary, uint32_t *ret_owner);

/**
 * petal_primary_depose() - a later epoch has begun
 *
 * Nothing is accepted, sent or counted any more. Whoever waits learns that
 * nobody can say what becomes of it: the log is closed.
 */
void petal_primary_depose(struct petal_primary *primary);

/**
 * petal_primary_leaves() - what a deposed primary's log leaves to the next epoch
 *
 * Return: 0, or -PETAL_ECORRUPT when its first retained record is none, or the
 * log is halted.
 */
int petal_primary_leaves(const struct petal_primary *primary,
			 struct petal_recovery *ret_recovery);

/**
 * petal_primary_lsn() - where a record that is in the log lies
 * @session, @sequence: petal_sessions_find() has found it
 *
 * Costs a look at each retained record's header.
 *
 * Return: its lsn, or 0 when it has been done and is retained no more.
 */
uint64_t petal_primary_lsn(const struct petal_primary *primary,
			   uint64_t session, uint64_t sequence);

/**
 * petal_primary_step() - do everything that can be done now
 *
 * Bounded: at most PETAL_PRIMARY_STEP_RECORDS are accepted in one call.
 *
 * Return: 0; 1 when there is more to do at once; -PETAL_ECORRUPT when the
 * log's bytes make no sense (the ring is halted).
 */
int petal_primary_step(struct petal_primary *primary, uint64_t now_ns);
#define PETAL_PRIMARY_STEP_RECORDS 1024u

/**
 * petal_primary_next_ns() - when step has to be called again at the latest
 */
uint64_t petal_primary_next_ns(const struct petal_primary *primary);

/* Owners: local processes that claim and take. */

/**
 * petal_primary_attach() - let an owner number publish
 * @owner: 1 to PETAL_LOG_OWNERS - 1
 * @session: goes into every record of it; never used before
 *
 * Return: 0, or -EBUSY.
 */
int petal_primary_attach(struct petal_primary *primary, uint32_t owner,
			 uint64_t session);

/**
 * petal_primary_bury() - an owner is proved dead, or said goodbye
 *
 * What it published counts. What it claimed becomes padding, its leases
 * return, and then its number is free again (attached turns false).
 */
void petal_primary_bury(struct petal_primary *primary, uint32_t owner);

/* Members: the other two petals. */

/**
 * petal_primary_join() - a backup is connected and says how far its log goes
 * @theirs: end of the log that it holds in memory, lsn 0 when it holds none;
 *	how far its disk goes its first acknowledgement will say
 * @voter: its incarnation is the one in the ring's configuration
 * @exact: its sessions are those of that log
 * @ret_start: where its log has to go on from
 * @ret_exact: its sessions may stay; else it has to be given ours with the start
 *
 * When what it holds is a prefix of what we retain it goes on from there,
 * otherwise from the head: everything before that is done. In its memory there
 * may then lie records that were ours never, and that would follow ours all the
 * same; so it has to clear it and to offer itself again, before we send.
 */
void petal_primary_join(struct petal_primary *primary, unsigned member,
			const struct petal_record_cursor *theirs, bool voter,
			bool exact, struct petal_record_cursor *ret_start,
			bool *ret_exact);

/**
 * petal_primary_leave() - a backup's connection has ended
 *
 * Its last acknowledgement keeps counting, for its memory may be intact.
 */
void petal_primary_leave(struct petal_primary *primary, unsigned member);

/**
 * petal_primary_admitted() - the registry made a member's incarnation a voter
 */
void petal_primary_admitted(struct petal_primary *primary, unsigned member);

/**
 * petal_primary_exclude() - a member's acknowledgements count no more
 *
 * For it is about to be replaced. petal_primary_admitted() undoes it.
 */
void petal_primary_exclude(struct petal_primary *primary, unsigned member);

/**
 * petal_primary_covered() - whether a voter has all that any level promised
 *
 * In memory what is at MEM2, and on disk what is at DISK2.
 */
bool petal_primary_covered(const struct petal_primary *primary);

/**
 * petal_primary_wrote() - a write that is told of has ended
 * @end_pos: no write under way reads from before; 0 when it failed
 */
void petal_primary_wrote(struct petal_primary *primary, unsigned member,
			 uint64_t end_pos);

/**
 * petal_primary_acked() - a member's acknowledgement line may have changed
 *
 * One-sided writes may overtake each other, and be seen half landed: a line
 * that goes back is old news and changes nothing.
 *
 * Return: 0, or -PETAL_ECORRUPT when it claims what was never accepted: the
 * caller drops the member.
 */
int petal_primary_acked(struct petal_primary *primary, unsigned member);

/**
 * petal_primary_news() - whether an attached member's line says something new
 */
bool petal_primary_news(const struct petal_primary *primary);

/**
 * petal_primary_journaled() - our own journal has taken records
 * @end_pos: up to where
 * @status: 0, or a failure, after which level DISK no longer counts us
 */
void petal_primary_journaled(struct petal_primary *primary, uint64_t end_pos,
			     int status);

#endif
