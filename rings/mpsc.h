/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_MPSC_H
#define PETAL_RINGS_MPSC_H

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "rings/record.h"
#include "shm/error.h"

/**
 * DOC: mpsc - records of any length from many producers to one consumer
 *
 *    byte 0        128      256      384                          4096
 *    +-------------+--------+--------+----------------------------+---- --+
 *    | geometry    | tail   | head   | ...                        | data  |
 *    | written once| claims | space  |                            |       |
 *    +-------------+--------+--------+----------------------------+---- --+
 *    owners x 64 bytes follow the geometry page: one intent line each
 *
 * Positions are bytes since the ring was made and never wrap; the byte of a
 * position is data[pos & (data_bytes - 1)].
 *
 * Always true:  head <= consumer's position <= tail <= head + data_bytes,
 * and every 64-byte line of [tail, head + data_bytes) begins with 16 zero
 * bytes, so that a record there has neither commit word nor length.
 *
 * A claim is one compare-and-swap of the tail, from the position and length
 * that the owner wrote to its own intent line before; where the record starts
 * and ends, wrap padding included, follows from these two. There is no shared
 * published index: each record carries its own commit word, so a producer that
 * stops between claim and publish holds back the consumer at that record, and
 * nobody else's publish.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion):
 *
 *                       claim/publish  peek/release  repair  backlog
 *    claim/publish            - (1)          -          -       -
 *    peek/release             -              X (2)      X       -
 *    repair, adopt            -              X          X       -
 *    backlog, head, tail      -              -          -       -
 *    (1) one thread per owner number, each with a view of its own
 *    (2) peek alone may run beside peek, each with a view of its own
 *
 * Ordering:
 *    [CLAIM]    claim stores the intent, then swaps the tail (acq_rel)
 *               -> repair loads the tail (acquire), then intents: the name of
 *               whoever moved the tail is readable
 *    [NAME]     claim stores length, then swaps commit from zero to CLAIMED
 *               (release) -> repair loads commit (acquire): a claimed record
 *               has a length. And claim leaves an intent (release) only when
 *               its record has a name -> repair loads intents (acquire), then
 *               commit words: what no intent claims any more has its name
 *    [FILL]     publish swaps commit to PUBLISHED (release) -> peek loads
 *               commit (acquire): the consumer sees the whole record
 *    [DRAIN]    release zeroes lines, then stores head (release) -> claim
 *               loads head (acquire): a claimed line begins with zero, and its
 *               last reader is gone
 *    [FREEING]  release stores where it is going, then zeroes (release) ->
 *               adopt, after the consumer's death: half of the old bytes are
 *               known to be half gone
 *
 * Crash: a producer that dies before the swap leaves no trace. After it, the
 * record is CLAIMED under its number, or its line is zero and its intent says
 * how long it is; repair turns both into padding. Two dead owners may have
 * written the same intent position: only one swap succeeded, and the one whose
 * end is the tail, a written record or another intent's position is it, for
 * intents are only ever written at values that the tail has had. A consumer
 * that dies in release leaves lines zeroed behind a head that has not moved;
 * adopt, which its successor calls first, moves it.
 *
 * Too slow: an owner that lives and holds everybody up may be given to repair
 * like a dead one. It learns by -ESTALE, from claim or from publish. Until
 * then it may still store into the record that it lost, so the consumer must
 * not release past that record before the owner knows, or is dead.
 *
 * Trust: one trust domain. A producer gone mad can spoil records, but what the
 * consumer reads is bounded by its own private geometry.
 *
 * Source: the claim by one shared tail and a commit word per record follows
 * Aeron's term log; the intent line is ours.
 */

#define PETAL_MPSC_OWNERS_MAX 256u
#define PETAL_MPSC_HEADER_BYTES 4096u
#define PETAL_MPSC_NOWHERE UINT64_MAX

struct petal_mpsc_geometry {
	uint64_t data_bytes;    /* a power of two, 4 KiB to 1 TiB */
	uint32_t owners;        /* 1 to PETAL_MPSC_OWNERS_MAX */
	uint32_t reserve_bytes; /* room that only owner 0 may claim; at most
				 * half of data_bytes, less one line */
	uint64_t start_pos;     /* of the first record; a multiple of 64 */
};

struct petal_mpsc_shared; /* what lies in the memory: mpsc_inl.h */

/* One process's view; geometry copied at attach, never read again. */
struct petal_mpsc {
	struct petal_mpsc_shared *shared;
	struct petal_mpsc_intent *intents;
	uint8_t *data;
	uint64_t data_bytes;
	uint64_t room_bytes; /* what this owner may fill */
	uint64_t head_seen;  /* the last look at head, for claim */
	uint64_t tail_seen;  /* the last look at tail, for peek */
	uint32_t owners;
	uint32_t owner;
	uint32_t reserve_bytes;
	uint32_t lap_shift;
};

struct petal_mpsc_claim {
	struct petal_record *record;
	uint64_t pos;    /* of the record */
	uint64_t end;    /* where the next record starts */
	uint64_t commit; /* what publish swaps from */
};

/**
 * petal_mpsc_bytes() - memory for header and intent lines, without the data
 */
uint64_t petal_mpsc_bytes(const struct petal_mpsc_geometry *geometry);

/**
 * petal_mpsc_format() - make an empty ring
 * @header: petal_mpsc_bytes() of zeroed memory, 64-byte aligned
 * @geometry: its shape
 *
 * The data area may lie anywhere (a durable ring has it on pages of its own).
 * It must be zeroed.
 *
 * Return: 0, or -EINVAL for a shape out of range.
 */
int petal_mpsc_format(void *header, const struct petal_mpsc_geometry *geometry);

/**
 * petal_mpsc_attach() - look at a ring that another process may have made
 * @header: its header
 * @header_bytes: how much of it is mapped
 * @data: its data area
 * @data_bytes: how much of that is mapped
 * @owner: the number under which this view claims, given out by the keeper of
 *	the ring; a number belongs to one thread at a time, and a dead one's
 *	may be given out again once repair has passed
 *
 * Return: 0; -PETAL_EVERSION; -PETAL_EGEOMETRY when the header's shape does not
 * fit into what is mapped; -EINVAL when it is no such ring.
 */
int petal_mpsc_attach(void *header, uint64_t header_bytes, void *data,
		      uint64_t data_bytes, uint32_t owner,
		      struct petal_mpsc *ret_ring);

/**
 * petal_mpsc_claim() - borrow room for one record
 * @length: bytes after the 16-byte header; at most a quarter of data_bytes
 * @ret_claim: the record, its header filled but for the type
 *
 * An owner may hold several claims; each needs its publish or abort.
 *
 * Threads: the owner's. Order: [CLAIM], [NAME]; [DRAIN] when it looks at head.
 *
 * Return: 0; -EAGAIN when full (counted by the caller); -EMSGSIZE; -ESTALE
 * when a peer took this owner for dead meanwhile: nothing is claimed;
 * -PETAL_ECORRUPT when head and tail contradict each other.
 */
static inline int petal_mpsc_claim(struct petal_mpsc *ring, uint32_t length,
				   struct petal_mpsc_claim *ret_claim);

/**
 * petal_mpsc_publish() - hand a claimed record over
 *
 * Return: 0, or -ESTALE when a peer turned the claim into padding.
 */
static inline int petal_mpsc_publish(struct petal_mpsc *ring,
				     const struct petal_mpsc_claim *claim);

/**
 * petal_mpsc_abort() - give a claimed record back; it becomes padding
 */
static inline int petal_mpsc_abort(struct petal_mpsc *ring,
				   const struct petal_mpsc_claim *claim);

/* What peek found. length and type are private copies, checked. */
struct petal_mpsc_view {
	struct petal_record *record;
	uint64_t pos;
	uint64_t end;
	uint32_t length;
	uint32_t type; /* PETAL_RECORD_TYPE_PADDING when abandoned */
	uint32_t owner;
};

/**
 * petal_mpsc_peek() - look at the record that starts at a position
 * @pos: a position between head and tail where a record starts
 *
 * The consumer keeps its own position, and may be far ahead of what it
 * releases.
 *
 * Return: 0 with the view; 1 when nothing is claimed there; 2 when it is
 * claimed and not published; -PETAL_ECORRUPT when no record of this ring and
 * lap can look like that. Whatever the bytes say, the view lies in the data.
 */
static inline int petal_mpsc_peek(struct petal_mpsc *ring, uint64_t pos,
				  struct petal_mpsc_view *ret_view);

/**
 * petal_mpsc_release() - free everything before a position
 * @to_pos: between head and the consumer's position, where a record starts;
 *	anything else frees nothing
 */
void petal_mpsc_release(struct petal_mpsc *ring, uint64_t to_pos);

/**
 * petal_mpsc_repair() - clear what proved-dead owners left behind
 * @from_pos: the consumer's position, where it met outcome 2
 * @dead: bit map of dead owners, PETAL_MPSC_OWNERS_MAX bits
 *
 * Call again after any further death. Idempotent; safe when the repairer
 * itself dies half way.
 *
 * Return: number of records turned into padding (what wraps counts once);
 * -EBUSY when a living owner may still have to name its claim: try again, or
 * give it up as too slow; -EINVAL when no record can start at @from_pos;
 * -PETAL_ECORRUPT when a gap has no name at all, or a record leaves the ring.
 */
int petal_mpsc_repair(struct petal_mpsc *ring, uint64_t from_pos,
		      const uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64]);

/**
 * petal_mpsc_adopt() - follow a consumer that died
 * @ret_pos: where the oldest record starts that was not released
 *
 * Finishes a release that death cut short. Idempotent; safe when the adopter
 * itself dies half way. Call it before the first peek.
 *
 * Return: 0, or -PETAL_ECORRUPT when head and tail contradict each other.
 */
int petal_mpsc_adopt(struct petal_mpsc *ring, uint64_t *ret_pos);

/**
 * petal_mpsc_backlog() - bytes claimed and not released
 */
static inline uint64_t petal_mpsc_backlog(const struct petal_mpsc *ring);

/* Both may be old, or lies; compare them with positions of your own. */
static inline uint64_t petal_mpsc_head(const struct petal_mpsc *ring);
static inline uint64_t petal_mpsc_tail(const struct petal_mpsc *ring);

#include "rings/mpsc_inl.h"

#endif
