/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_BCAST_H
#define PETAL_RINGS_BCAST_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rings/outcome.h"
#include "rings/pace.h"
#include "rings/record.h"
#include "shm/atomic.h"
#include "shm/error.h"
#include "shm/segment.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: bcast - records of any length from one publisher to many readers
 *
 *    byte 0        128     256      512      640      768
 *    +-------------+-------+--------+--------+--------+-- --+-- --+-- --+
 *    | geometry    | tail  | limit  | joins  | counts | seat| data|spill|
 *    | written once| where | marks  |        |        | 64 B|     |areas|
 *    +-------------+-------+--------+--------+--------+-- --+-- --+-- --+
 *    seats are followed by as many cursors, 128 bytes each
 *
 *    a record: | commit 8 | length 4 | type 4 | payload ... | to 16 bytes |
 *
 * Positions are bytes since the ring was made and never wrap; the byte of a
 * position is data[pos & (data_bytes - 1)]. A record never crosses the end of
 * the data: what is left over there is a padding record. Records are numbered
 * from 0, padding is not; a commit word is the state of record.h and the low
 * 48 bits of that number.
 *
 * Always true:  limit - data_bytes <= a blocking reader's cursor <= tail
 *               <= claimed < limit, and where the next record will start there
 * is a header that says "free", and which number the record will have. So
 * neither old payload nor an old header is taken for a record, and who knows a
 * place knows the number that belongs to it.
 *
 * The publisher may write up to limit. It moves limit by a chunk, an eighth of
 * the data, and only then looks at readers, and only at those that its last
 * look would not let pass. So publishing costs the same whatever the number of
 * readers, and no reader's line is written by it. A mark per chunk says where
 * the first record starts behind the chunk's beginning.
 *
 * Who holds up whom is each reader's policy:
 *
 *    BLOCK        the publisher gets -EAGAIN until this reader has released
 *    DROP_OLDEST  the publisher goes on; the reader finds PETAL_RING_LAPPED,
 *                 knows how many records it lost, and is at the oldest one
 *    EVICT        the publisher takes the seat away from a reader that would be
 *                 more than its bound behind; its next call says -ESTALE, and
 *                 it may join again
 *    SPILL        what would be overwritten is copied to this reader's own
 *                 area first, which it reads before the ring. Nothing is
 *                 copied before that. If the area is full, its second policy
 *                 decides
 *
 * Under all but BLOCK, bytes may be overwritten while they are read: read, and
 * then believe it only if petal_bcast_check() says so. A spilled record stays.
 *
 * Two forms. Where all trust each other, petal_bcast_join() takes a seat and
 * has its cursor in the ring's memory. Where they do not, the ring is mapped
 * read-only by readers, each brings a cursor in memory of its own, and the
 * publisher seats it by petal_bcast_admit(). A seat is a word: state, policy,
 * owner, and a generation, which the cursor repeats: a cursor is only moved by
 * compare-and-swap, so the late stores of who has lost its seat hit nothing
 * (unless 65536 others have had the seat since, and the same place).
 *
 * In a segment that is not coherent (CXL between hosts) there is the second
 * form alone, for a line must have one writer, and the ring is far:
 *
 *    | commit 8 | length 4 | type 4 | payload ... | padding | crc 4 | zero 4 |
 *
 * Records are whole lines, all written by the publisher, and end with a CRC-32C
 * over header (with its number) and payload. Lines are written back before the
 * header's is, and that before tail; the limit is, before anything is written
 * over. A reader throws its copy of the header's line away at each look, of the
 * others when the commit word is there, and of the limit's after it has read:
 * so [FILL] and [LAP] hold between hosts. Its cursor goes the other way so, too.
 * A header that is neither the next nor "free", or a checksum that does not
 * match, is "not yet" for PETAL_BCAST_DOUBTS_MAX looks in a row; then peek says
 * -PETAL_ECORRUPT, until a look finds the record after all. The publisher, a
 * successor while it is up, and who calls repair are on one host; readers are
 * anywhere, but the memory of a cursor is of one host. No other calls differ,
 * but that a reader learns only from a look that finds nothing new that it was
 * evicted; until then it reads records that are whole.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion):
 *
 *                         publisher  one reader  join, repair  backlog
 *    claim, publish, admit    X          -            -           -
 *    peek, release, hold      -          X (1)        -           -
 *    join, repair             -          -            -           -
 *    backlog, resolve         -          -            -           -
 *    (1) other readers run freely, each with a view of its own
 *
 * Ordering:
 *    [FILL]    publish stores the first commit word (release) -> peek loads it
 *              (acquire): all records of the batch, and the free header behind
 *              them, are whole
 *    [TAIL]    publish stores tail (release) -> join and a publisher's
 *              successor load it (acquire): there is a header there, and marks
 *    [DRAIN]   release swaps the cursor (release) -> the publisher loads it
 *              (acquire): the last read of what is before it has ended. The
 *              same for what was released of a spill area, and for the word by
 *              which a reader leaves
 *    [LIMIT]   the publisher stores limit (release) -> a reader that is behind
 *              loads it (acquire): marks, and what was spilled, are readable
 *    [LAP]     the publisher stores limit, then a release fence, then writes
 *              over old records <-> a reader reads a record, then an acquire
 *              fence, then loads limit: who read new bytes sees the new limit.
 *              The same for a spill area that has gone to another, and the word
 *              of its seat
 *    [JOIN]    a joiner sets its seat, adds to joins, then a seq_cst fence,
 *              then loads intent <-> the publisher stores intent, then a
 *              seq_cst fence, then loads joins: one of them sees the other, so
 *              no reader is overtaken between two looks at the seats
 *    [SEAT]    a joiner sets its seat (release) -> the publisher loads it
 *              (acquire): the cursor and the bound are the new reader's. And
 *              who takes a seat away (release) -> who takes it next (acquire)
 *    [SPILL]   the publisher stores spill_tail (release) -> the reader loads it
 *              (acquire): the copies are whole
 *    [CLOSE]   close stores closed (release) -> peek loads it (acquire)
 *    [FORMAT]  format stores the magic (release) -> attach loads it (acquire)
 *
 * Crash: a publisher that dies leaves a whole prefix, for a batch is reachable
 * from its first commit word only, which is stored last. Its successor attaches
 * and goes on behind it. A reader that dies keeps its seat until its death is
 * proved: then petal_bcast_repair() frees it, by whomever. A publisher may be
 * followed only when its death is proved. In a far ring, its successor runs on
 * the host of the dead one, whose caches still hold what it did not show, or
 * that host is down.
 *
 * Trust: neither side believes the other. Geometry is checked and copied at
 * attach. A cursor is a claim: only what lies between the last claim and tail
 * moves anything. So a reader can hold up a publisher that seated it as BLOCK,
 * and spoil nothing. A publisher can send rubbish; lengths are bounded and
 * positions masked, each call looks at a bounded number of records.
 *
 * Source: one position per reader and none shared is the Disruptor's (Thompson
 * et al., 2011); the marks, seats and spill areas are ours.
 */

#define PETAL_BCAST_READERS_MAX 64u
#define PETAL_BCAST_ALIGN 16u
#define PETAL_BCAST_HOLDS_MAX 32u
#define PETAL_BCAST_CURSOR_BYTES 128u
#define PETAL_BCAST_DATA_BYTES_MIN UINT64_C(4096)

/* Looks at one record of a far ring, some 100 ns each or more. */
#define PETAL_BCAST_DOUBTS_MAX 4096u

struct petal_bcast_geometry {
	uint64_t data_bytes;  /* a power of two, 4 KiB to 1 TiB */
	uint64_t spill_bytes; /* of each spill area; a power of two from 4 KiB,
			       * at most data_bytes; 0 if spills is 0 */
	uint32_t readers;     /* seats: 1 to PETAL_BCAST_READERS_MAX */
	uint32_t spills;      /* how many of them have a spill area */
	uint64_t start_pos;   /* of the first record; a multiple of 16, in a
			       * far ring of 64 */
	enum petal_segment_coherence coherence; /* of its segment */
};

enum petal_bcast_policy {
	PETAL_BCAST_BLOCK = 0,
	PETAL_BCAST_DROP_OLDEST = 1,
	PETAL_BCAST_EVICT = 2,
	PETAL_BCAST_SPILL = 3,
};

enum petal_bcast_from {
	PETAL_BCAST_FROM_NOW = 0,    /* what is published after the join */
	PETAL_BCAST_FROM_OLDEST = 1, /* what the ring still has */
};

struct petal_bcast_options {
	enum petal_bcast_policy policy;
	enum petal_bcast_policy full; /* second policy of SPILL: another one */
	enum petal_bcast_from from;
	uint32_t owner;       /* below 65536, the number by which repair knows
			       * a dead one; given out by the ring's keeper */
	uint64_t bound_bytes; /* EVICT: how far behind; 0: data_bytes */
};

/* What lies in the memory: bcast_inl.h */
struct petal_bcast_shared;
struct petal_bcast_seat;
struct petal_bcast_cursor;

/* Where things lie; private, checked once. */
struct petal_bcast_map {
	struct petal_bcast_shared *shared;
	struct petal_bcast_seat *seats;
	struct petal_bcast_cursor *cursors;
	uint8_t *data;
	uint8_t *spill;
	uint64_t data_bytes;
	uint64_t spill_bytes;
	uint32_t readers;
	uint32_t spills;
	bool far;
};

/* What the publisher knows of a seat; the cursor may be the reader's own. */
struct petal_bcast_known {
	uint64_t word;        /* of the seat, when it was last looked at */
	uint64_t pos;         /* before which the reader wants nothing */
	uint64_t spill_pos;   /* the same, of the spill area */
	uint64_t spilled_pos; /* of the ring; what is before it was copied */
	struct petal_bcast_cursor *cursor; /* NULL: not ours to see yet */
};

/* The publisher's view, private to it. */
struct petal_bcast {
	struct petal_bcast_map map;
	uint64_t tail;      /* published so far */
	uint64_t claimed;   /* claimed so far */
	uint64_t ordinal;   /* of the next record to claim */
	uint64_t published; /* the ordinal that belongs to tail */
	uint64_t limit;     /* may be written up to here; 0 when closed */
	uint64_t reach;     /* the same, but 0 of a far ring */
	uint64_t mark_pos;  /* the chunk that has no mark yet */
	uint64_t first;     /* the commit word of the record at tail */
	uint64_t horizon;   /* the limit that known readers allow */
	uint64_t joins_seen;
	uint64_t chunk_bytes;
	uint32_t length_max;
	bool closed;
	struct petal_bcast_known known[PETAL_BCAST_READERS_MAX];
};

/* One reader's view, private to it. */
struct petal_bcast_reader {
	struct petal_bcast_map map;
	struct petal_bcast_cursor *cursor;
	uint64_t word; /* of its seat */
	uint64_t pos;
	uint64_t ordinal;
	uint64_t spill_pos;
	uint64_t stored_pos;   /* the cursor, as it was stored last */
	uint64_t stored_spill; /* the same, of the spill area */
	uint64_t step_bytes;   /* how far to go before it is stored again */
	uint64_t lost;         /* records, so far */
	uint64_t holds[PETAL_BCAST_HOLDS_MAX];
	uint32_t held;         /* a bit for each hold */
	uint32_t held_spilled; /* those that are places in the spill area */
	uint32_t seat;
	struct petal_pace pace;
	uint32_t doubts; /* looks at a far ring that found neither old nor new
			  */
	enum petal_bcast_policy policy;
	bool long_way; /* a far ring, or a spill area: peek never is short */
	bool writable; /* the seat may be given back by ourselves */
};

/* A record that was found. All but the payload's bytes is a private copy. */
struct petal_bcast_view {
	const void *payload;
	uint64_t pos;
	uint64_t end;
	uint64_t ordinal; /* its number, low 48 bits */
	uint64_t spill_end;
	uint32_t length;
	uint32_t type;
	bool spilled;
};

/* A record by name, for who gets it from a reader that holds it. */
struct petal_bcast_ref {
	uint64_t pos;
	uint64_t ordinal;
};

/* A seat that the publisher gave to a reader with a cursor of its own. */
struct petal_bcast_ticket {
	uint64_t word;
	uint64_t pos;
	uint64_t spill_pos;
	uint64_t ordinal; /* of the record at pos: what is lost is counted */
	uint32_t seat;
	uint32_t reserved;
};

/**
 * petal_bcast_bytes() - memory for a ring of this shape
 *
 * Return: a multiple of 64; 0 for a shape out of range.
 */
uint64_t petal_bcast_bytes(const struct petal_bcast_geometry *geometry);

/**
 * petal_bcast_format() - make an empty ring
 * @memory: petal_bcast_bytes(), 64-byte aligned; what was there is lost
 *
 * Return: 0; -EINVAL for a shape out of range or memory not aligned;
 * -EOPNOTSUPP for a far ring when petal_cache_check() says so.
 */
int petal_bcast_format(void *memory,
		       const struct petal_bcast_geometry *geometry);

/**
 * petal_bcast_attach() - become the publisher of a ring
 * @memory: where it lies, 64-byte aligned
 * @bytes: how much is mapped there
 *
 * The first one, or the successor of a dead one. Readers that another publisher
 * admitted hold this one up until petal_bcast_adopt() or repair.
 *
 * Return: 0; -EINVAL when it is no such ring; -PETAL_EVERSION;
 * -PETAL_EGEOMETRY when its shape does not fit into what is mapped; -EOPNOTSUPP
 * as petal_bcast_format(); -PETAL_ECORRUPT when the records behind tail
 * contradict each other.
 */
int petal_bcast_attach(void *memory, uint64_t bytes,
		       struct petal_bcast *ret_ring);

/**
 * petal_bcast_claim() - borrow room for one more record
 * @length: bytes, at most length_max, just under a quarter of the data
 * @type: the caller's, below PETAL_RECORD_TYPE_OURS
 * @ret_payload: @length writable bytes, 16-byte aligned
 *
 * Claims add up: what was claimed since the last publish is one batch.
 *
 * Threads: the publisher. Order: [LAP], [JOIN], [DRAIN] once per chunk.
 *
 * Return: 0; -EAGAIN while a reader blocks (counted); -EMSGSIZE; -EINVAL for a
 * type of ours; -EPIPE when closed; -PETAL_ECORRUPT.
 */
static inline int petal_bcast_claim(struct petal_bcast *ring, uint32_t length,
				    uint32_t type, void **ret_payload);

/**
 * petal_bcast_publish() - hand over all that was claimed, at once
 *
 * Whoever sees the first record of the batch sees all of them.
 *
 * Threads: the publisher. Order: releases [FILL], [TAIL].
 */
static inline void petal_bcast_publish(struct petal_bcast *ring);

/**
 * petal_bcast_abort() - give back all that was claimed; it leaves no trace
 */
static inline void petal_bcast_abort(struct petal_bcast *ring);

/**
 * petal_bcast_close() - say that nothing will come any more
 *
 * What is claimed is given back. Readers find PETAL_RING_CLOSED behind the last
 * record. Order: releases [CLOSE].
 */
void petal_bcast_close(struct petal_bcast *ring);

/**
 * petal_bcast_lag() - how far the slowest reader is behind
 *
 * Readers that drop are left out, for nobody waits for them. Looks at all
 * cursors: for draining, not for each record.
 *
 * Return: bytes not released; 0 when all have read everything.
 */
uint64_t petal_bcast_lag(struct petal_bcast *ring);

/**
 * petal_bcast_admit() - seat a reader that has a cursor of its own
 * @cursor: PETAL_BCAST_CURSOR_BYTES of zeroed memory that the reader brought,
 *	64-byte aligned, from a segment that cannot shrink
 * @ret_ticket: for the reader
 *
 * Threads: the publisher.
 *
 * Return: 0; -EINVAL; -EAGAIN when no seat is free.
 */
int petal_bcast_admit(struct petal_bcast *ring, void *cursor,
		      const struct petal_bcast_options *options,
		      struct petal_bcast_ticket *ret_ticket);

/**
 * petal_bcast_adopt() - the same for a reader that a dead publisher admitted
 *
 * Return: 0; -ESTALE when the ticket is not of its seat.
 */
int petal_bcast_adopt(struct petal_bcast *ring, void *cursor,
		      const struct petal_bcast_ticket *ticket);

/**
 * petal_bcast_evict() - take a seat away from a reader, whatever its policy
 * @word: the seat's word as it was seen, so that nobody else is hit
 *
 * Return: 0; -ESTALE when another has the seat.
 */
int petal_bcast_evict(struct petal_bcast *ring, uint32_t seat, uint64_t word);

/**
 * petal_bcast_repair() - free the seats of owners that are proved dead
 * @memory: the ring, writable
 * @bytes: how much is mapped there
 * @owner: the number of the dead one
 *
 * By any peer, at any time, several at once; safe when the repairer dies. Of a
 * far ring, by any on the publisher's host.
 *
 * Return: how many seats were freed, or what petal_bcast_attach() says.
 */
int petal_bcast_repair(void *memory, uint64_t bytes, uint32_t owner);

/**
 * petal_bcast_join() - become a reader, with a cursor in the ring's memory
 * @memory: the ring, writable
 * @bytes: how much is mapped there
 *
 * Return: 0; -EAGAIN when no seat is free, or when the publisher went round the
 * ring in the time of each of eight looks; -EINVAL for options that contradict
 * each other or the ring; -ESTALE when the seat was taken away meanwhile;
 * -EOPNOTSUPP of a far ring, whose publisher admits its readers; otherwise what
 * petal_bcast_attach() says.
 */
int petal_bcast_join(void *memory, uint64_t bytes,
		     const struct petal_bcast_options *options,
		     struct petal_bcast_reader *ret_reader);

/**
 * petal_bcast_enter() - become the reader that the publisher has admitted
 * @memory: the ring, read-only is enough
 * @bytes: how much is mapped there
 * @cursor: the memory that was given to petal_bcast_admit()
 *
 * Return: as petal_bcast_join().
 */
int petal_bcast_enter(const void *memory, uint64_t bytes, void *cursor,
		      const struct petal_bcast_ticket *ticket,
		      struct petal_bcast_reader *ret_reader);

/**
 * petal_bcast_leave() - give up the seat
 *
 * All holds end. The view is of no use any more.
 */
void petal_bcast_leave(struct petal_bcast_reader *reader);

/**
 * petal_bcast_peek() - look at the next record
 *
 * Threads: the reader. Order: acquires [FILL]; [LAP] unless BLOCK; [DRAIN] when
 * it finds nothing.
 *
 * Return: 0 with the view; PETAL_RING_EMPTY; PETAL_RING_CLOSED;
 * PETAL_RING_LAPPED: petal_bcast_lost() has grown, and the next peek goes on
 * with the oldest record, or one further on where that is overwritten too fast;
 * -ESTALE: evicted; -EAGAIN: overtaken again while looking for such a record,
 * or much of the spill area to be passed: look again; -PETAL_ECORRUPT.
 */
static inline int petal_bcast_peek(struct petal_bcast_reader *reader,
				   struct petal_bcast_view *ret_view);

/**
 * petal_bcast_peek_n() - look at several records
 * @views: room for @want views
 *
 * Return: how many were found; else, when not even one, what peek said: a
 * negative error, or 0 with the outcome in @ret_outcome.
 */
int petal_bcast_peek_n(struct petal_bcast_reader *reader, int want,
		       struct petal_bcast_view *views, int *ret_outcome);

/**
 * petal_bcast_check() - were the bytes valid until now?
 *
 * Call it after reading them, before believing them. Under BLOCK, and for a
 * spilled record, they are valid until released, while the seat is ours.
 *
 * Order: [LAP].
 */
static inline bool petal_bcast_check(struct petal_bcast_reader *reader,
				     const struct petal_bcast_view *view);

/**
 * petal_bcast_release() - be done with a record, and all before it
 * @view: from peek, or any of peek_n
 *
 * Order: releases [DRAIN], for many records at once.
 */
static inline void petal_bcast_release(struct petal_bcast_reader *reader,
				       const struct petal_bcast_view *view);

/**
 * petal_bcast_hold() - go on behind a record, and keep it
 * @view: of the next record
 * @ret_hold: for petal_bcast_drop()
 *
 * A BLOCK reader's bytes stay where they are until the drop, and the ring fills
 * up behind a hold. So do those of a spilled record, while the seat is ours:
 * the spill area fills up behind it, then the second policy decides. Another's
 * stay if petal_bcast_check() says so. A spilled record has left the ring, so
 * nobody else can resolve its name.
 *
 * Return: 0; -ENOBUFS when PETAL_BCAST_HOLDS_MAX are held already.
 */
int petal_bcast_hold(struct petal_bcast_reader *reader,
		     const struct petal_bcast_view *view, uint32_t *ret_hold);

/**
 * petal_bcast_drop() - end a hold
 *
 * In any order. Order: releases [DRAIN].
 */
void petal_bcast_drop(struct petal_bcast_reader *reader, uint32_t hold);

/**
 * petal_bcast_resolve() - look at a record whose name another reader gave
 * @ref: position and number from its view; any bytes do no harm
 *
 * It must be held meanwhile, or checked by petal_bcast_check() after reading.
 *
 * Return: 0 with the view; PETAL_RING_LAPPED when it is gone; -EINVAL when no
 * record of this ring has that name; -PETAL_ECORRUPT.
 */
int petal_bcast_resolve(struct petal_bcast_reader *reader,
			const struct petal_bcast_ref *ref,
			struct petal_bcast_view *ret_view);

/**
 * petal_bcast_lost() - records that this reader did not get, in all
 */
static inline uint64_t
petal_bcast_lost(const struct petal_bcast_reader *reader);

/**
 * petal_bcast_backlog() - bytes published and not yet read by this reader
 *
 * Reads one word that the publisher writes and nobody polls.
 */
static inline uint64_t
petal_bcast_backlog(const struct petal_bcast_reader *reader);

/* What observers may see of a seat, and of the ring. */
struct petal_bcast_standing {
	uint64_t word;          /* 0 for a free seat */
	uint64_t backlog_bytes; /* up to a quarter of the ring too high */
	uint64_t lost;
	uint32_t owner;
	enum petal_bcast_policy policy;
};

struct petal_bcast_counts {
	uint64_t refused; /* claims that met a reader that blocks */
	uint64_t evicted; /* seats taken away for being too slow */
	uint64_t spilled; /* records copied */
	uint64_t removed; /* seats of dead owners */
};

/**
 * petal_bcast_standing() - how a reader with a cursor in this memory stands
 *
 * Return: 0, -EINVAL for a seat that there is not, or as attach.
 */
int petal_bcast_standing(const void *memory, uint64_t bytes, uint32_t seat,
			 struct petal_bcast_standing *ret_standing);

/**
 * petal_bcast_counts() - what was counted since format
 *
 * Return: 0, or as attach.
 */
int petal_bcast_counts(const void *memory, uint64_t bytes,
		       struct petal_bcast_counts *ret_counts);

#include "rings/bcast_inl.h"

#ifdef __cplusplus
}
#endif

#endif
