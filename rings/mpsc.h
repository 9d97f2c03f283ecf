/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_MPSC_H
#define PETAL_RINGS_MPSC_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
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
 * DOC: mpsc - records of any length from many producers to one consumer
 *
 *    byte 0        128      256        384      512     1024         4096
 *    +-------------+--------+----------+--------+-------+----------+---- --+
 *    | geometry    | tail,  | head,    | gauge  | fence | ...      | data  |
 *    | written once| closed | fence map|        | table |          |       |
 *    +-------------+--------+----------+--------+-------+----------+---- --+
 *    owners x 128 bytes follow the header's page: one intent line each
 *
 * Positions are bytes since the ring was made and never wrap; the byte of a
 * position is data[pos & (data_bytes - 1)]. The lowest bit of the tail's word
 * says that the ring is closed.
 *
 * Always true:  head <= consumer's position <= tail <= head + data_bytes,
 * and every 64-byte line of [tail, head + data_bytes) that is not quarantined
 * begins with 16 zero bytes.
 *
 * A claim is one compare-and-swap of the tail, from and to the positions that
 * the owner wrote to its own intent line before. An owner has at most one claim
 * at a time, of one record or of a run of many, so its line says all about it;
 * when the swap has succeeded it marks the line as HELD. The record's commit
 * word stays zero until publish swaps it: then the record, or the whole run, is
 * there. There is no shared published index: a producer that stops between
 * claim and publish holds back the consumer there, and nobody else's publish.
 * What is left over before the end of the ring is claimed as a padding record,
 * by itself.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion):
 *
 *                          claim/publish  peek/release  keeper  backlog
 *    claim/publish, close       - (1)          -           -       -
 *    peek/release               -              X (2)       X       -
 *    repair, fence, adopt       -              X           X       -
 *    backlog, used, head, tail  -              -           -       -
 *    (1) one thread per owner number, each with a view of its own
 *    (2) peek alone may run beside peek, each with a view of its own
 *
 * Ordering:
 *    [CLAIM]    claim stores the intent, then swaps the tail (acq_rel)
 *               -> repair loads the tail (acquire), then intents: the wish of
 *               whoever moved the tail is readable
 *    [NAME]     publish, abort and padding swap the commit word, and claim
 *               leaves an intent, or marks the next (release), only after that
 *               -> repair loads intents (acquire), then commit words: what no
 *               intent claims any more has a commit word
 *    [HELD]     claim marks its intent, then (release fence) writes into the
 *               record -> repair reads commit words (acquire), then marks: if
 *               what it took for a commit word was payload, the mark is seen
 *    [FILL]     publish swaps commit to PUBLISHED (release) -> peek loads
 *               commit (acquire): the consumer sees the whole record or run
 *    [DRAIN]    release zeroes lines, then stores head (release) -> claim
 *               loads head (acquire): a claimed line begins with zero, its
 *               last reader is gone, and the fence table that claim reads next
 *               is at least as new
 *    [FREEING]  release stores where it is going, then zeroes (release) ->
 *               adopt, after the consumer's death: half of the old bytes are
 *               known to be half gone
 *    [FENCE]    fence fills an entry, then stores the map (release), then
 *               swaps commit to FENCED (release) -> claim and peek load the
 *               map (acquire): an entry that is in the map is whole
 *    [ACK]      an owner that found its claim lost stores so (release), after
 *               its last store into it -> release loads that (acquire), and
 *               zeroes: no late store can follow
 *    [FORMAT]   format stores the magic last (release) -> attach loads it
 *               (acquire): a whole ring or none
 *
 * Crash: a producer that dies before the swap leaves no trace. After it, its
 * intent says where its claim begins and ends; repair swaps the commit word
 * there from zero to ABANDONED, and the whole extent is padding: of a run, all
 * or nothing. Two may have wished from the same position, and only one swap
 * succeeded: it is the one marked HELD, or, if death came before the mark, the
 * one whose end the tail has had, for into an unmarked claim nobody has written
 * yet. A consumer that dies in release leaves lines zeroed behind a head that
 * has not moved; adopt, which its successor calls first, moves it. All repair
 * is bounded by one look at all intents for each owner that died, whatever the
 * length of the ring.
 *
 * Too slow: an owner that lives and holds everybody up is fenced by the keeper
 * (whoever has the consumer's exclusion), never taken for dead. The commit word
 * goes from zero to FENCED, so its publish must fail, by -ESTALE. Until then it
 * may still store into the extent, so that goes into quarantine:
 *
 *    the entry in the fence table, not the bytes, says where it ends;
 *    the consumer steps over it by the entry, release does not touch it, and
 *    its commit word stays FENCED of that lap, so that nothing can ever start
 *    there; in later laps, claims stop short of it with a padding record, and
 *    then swap the tail from its beginning to its end, for nobody.
 *
 * The tail thus never lies inside, and the ring goes on for any number of laps.
 * The owner's failed publish or abort (or claim, if it was stopped in there) is
 * its acknowledgement, on its own line. The next release that passes the extent
 * after it, or after repair was told of its death, zeroes it like all others
 * and takes it off the table, before it stores the head. So whoever may claim
 * there has seen the table without it; whoever still sees it there finds the
 * ring full. An entry that death left before its swap has no FENCED word behind
 * it, and is dropped when it is next looked at.
 *
 * While extents are in quarantine, a claim longer than what they leave in one
 * piece says -EAGAIN. Fencing is refused when the table is full.
 *
 * Holding is not releasing: the consumer may be as far ahead of the head as it
 * likes, and the ring's size bounds it, for producers get -EAGAIN then.
 *
 * Closing sets the lowest bit of the tail, so no claim can succeed after it,
 * and the consumer, when it has reached the tail, knows that it is at the end.
 *
 * Trust: one trust domain. A producer gone mad can spoil records, but what the
 * consumer reads is bounded by its own private geometry.
 *
 * Source: the claim by one shared tail and a commit word per record follows
 * Aeron's term log; intent, mark and quarantine are ours.
 */

#define PETAL_MPSC_OWNERS_MAX 256u
#define PETAL_MPSC_HEADER_BYTES 4096u
#define PETAL_MPSC_NOWHERE UINT64_MAX
/* Extents in quarantine at a time. */
#define PETAL_MPSC_FENCES_MAX 16u
/* How long a claim may hold others up before its owner is fenced. */
#define PETAL_MPSC_STALL_NS UINT64_C(10000000)

struct petal_mpsc_geometry {
	uint64_t data_bytes;    /* a power of two, 4 KiB to 1 TiB */
	uint32_t owners;        /* 1 to PETAL_MPSC_OWNERS_MAX */
	uint32_t reserve_bytes; /* room that only owner 0 may claim; at most
				 * half of data_bytes, less one line */
	uint64_t start_pos;     /* of the first record; a multiple of 64 */
	enum petal_segment_coherence coherence; /* of its segment */
};

struct petal_mpsc_shared; /* what lies in the memory: mpsc_inl.h */
struct petal_mpsc_intent;

/* One process's view; geometry copied at attach, never read again. */
struct petal_mpsc {
	struct petal_mpsc_shared *shared;
	struct petal_mpsc_intent *intents;
	uint8_t *data;
	uint64_t data_bytes;
	uint64_t room_bytes; /* what this owner may fill */
	uint64_t limit_seen; /* claims may go so far without another look */
	uint64_t tail_seen;  /* the consumer's last look at the tail */
	uint64_t open_pos;   /* of the claim in hand */
	uint64_t found;      /* records that peek has shown, each once */
	uint64_t found_pos;  /* the last of them */
	struct petal_pace pace;
	uint32_t owners;
	uint32_t owner;
	uint32_t length_max;
	uint32_t lap_shift;
};

struct petal_mpsc_claim {
	struct petal_record *record; /* the first, of a run */
	uint64_t pos;                /* of the record */
	uint64_t end;                /* where the next record starts */
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
 * Return: 0; -EINVAL for a shape out of range; -EOPNOTSUPP for a segment that is
 * not coherent: see rings/spsc.h.
 */
int petal_mpsc_format(void *header, const struct petal_mpsc_geometry *geometry);

/**
 * petal_mpsc_attach() - look at a ring that another process may have made
 * @header: its header
 * @header_bytes: how much of it is mapped
 * @data: its data area
 * @data_bytes: how much of that is mapped
 * @owner: the number under which this view claims, given out by the keeper of
 *	the ring; a number belongs to one thread at a time, and is given out
 *	again only after repair for whoever had it, dead or gone in good order:
 *	a claim that was left open has no other name
 *
 * Return: 0; -PETAL_EVERSION; -PETAL_EGEOMETRY when the header's shape does not
 * fit into what is mapped; -EINVAL when it is no such ring.
 */
int petal_mpsc_attach(void *header, uint64_t header_bytes, void *data,
		      uint64_t data_bytes, uint32_t owner,
		      struct petal_mpsc *ret_ring);

/**
 * petal_mpsc_claim() - borrow room for one record
 * @length: bytes after the 16-byte header; at most a quarter of data_bytes, and
 *	4 GiB less 16 bytes
 * @ret_claim: the record, its header filled but for the type
 *
 * Threads: the owner's. Order: [CLAIM], [HELD]; [DRAIN] when it looks at head.
 *
 * Return: 0; -EAGAIN when full (counted by the caller); -EBUSY when the claim
 * before has been neither published nor aborted; -EMSGSIZE; -EPIPE when the
 * ring is closed; -ESTALE when the owner was fenced meanwhile: nothing is
 * claimed, and this call was the acknowledgement; -PETAL_ECORRUPT when head and
 * tail contradict each other.
 */
static inline int petal_mpsc_claim(struct petal_mpsc *ring, uint32_t length,
				   struct petal_mpsc_claim *ret_claim);

/**
 * petal_mpsc_claim_run() - borrow room for many records at the cost of one
 * @length: of each of them
 * @count: how many, at least 1; all together at most a quarter of data_bytes
 *
 * They lie one behind the other and are seen by the consumer all at once, or,
 * after abort, death or fence, never: the run is then one padding record.
 *
 * Return: as petal_mpsc_claim(); -EINVAL for none.
 */
static inline int petal_mpsc_claim_run(struct petal_mpsc *ring, uint32_t length,
				       uint32_t count,
				       struct petal_mpsc_claim *ret_claim);

/**
 * petal_mpsc_claim_at() - one record of a run
 * @length: as it was claimed
 * @index: less than the run's count
 */
static inline struct petal_record *
petal_mpsc_claim_at(const struct petal_mpsc_claim *claim, uint32_t length,
		    uint32_t index);

/**
 * petal_mpsc_publish() - hand a claimed record, or run, over
 *
 * Return: 0, or -ESTALE when it is padding by now: the owner was fenced. That
 * answer is the acknowledgement: the bytes must not be touched after it.
 */
static inline int petal_mpsc_publish(struct petal_mpsc *ring,
				     const struct petal_mpsc_claim *claim);

/**
 * petal_mpsc_abort() - give a claimed record, or run, back as padding
 *
 * Return: as petal_mpsc_publish().
 */
static inline int petal_mpsc_abort(struct petal_mpsc *ring,
				   const struct petal_mpsc_claim *claim);

/**
 * petal_mpsc_close() - let nobody claim any more
 *
 * By anybody: a producer that is the last, or a consumer that goes. What has
 * been claimed may still be published. There is no way back.
 */
void petal_mpsc_close(struct petal_mpsc *ring);

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
 * releases: many records are peeked at one after the other.
 *
 * Return: 0 with the view; PETAL_RING_EMPTY when nothing is claimed there;
 * PETAL_RING_PENDING when it is claimed and not published; PETAL_RING_CLOSED
 * when nothing ever will be; -PETAL_ECORRUPT when no record of this ring and
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
 * @from_pos: the consumer's position
 * @dead: bit map of dead owners, PETAL_MPSC_OWNERS_MAX bits
 *
 * Only for the dead: one that lives is fenced. Call again after any further
 * death. Idempotent; safe when the repairer itself dies half way.
 *
 * Return: number of claims turned into padding; -EAGAIN when somebody who is
 * not in @dead was stopped in the middle of a claim that may be a dead one's:
 * all others are repaired, so call again when it has gone on, and give out no
 * number of @dead before; -EINVAL when no record can start at @from_pos;
 * -PETAL_ECORRUPT when what is claimed at @from_pos, or where a dead owner
 * wished, has no name at all.
 */
int petal_mpsc_repair(struct petal_mpsc *ring, uint64_t from_pos,
		      const uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64]);

/**
 * petal_mpsc_fence() - take the claim at a position from its living owner
 * @pos: the consumer's position, where peek has said PETAL_RING_PENDING for
 *	longer than PETAL_MPSC_STALL_NS, or what the caller has instead of it
 * @ret_owner: whose it was
 *
 * Return: 0; PETAL_RING_EMPTY when nothing is pending there (any more);
 * -EAGAIN when two were stopped, or died, in the middle of the same claim: call
 * again; -ENOSPC when PETAL_MPSC_FENCES_MAX extents are in quarantine; -EINVAL;
 * -PETAL_ECORRUPT when the gap has no name.
 */
int petal_mpsc_fence(struct petal_mpsc *ring, uint64_t pos,
		     uint32_t *ret_owner);

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
 * petal_mpsc_backlog() - bytes claimed and not released, as the consumer knew
 *
 * From a line that only the consumer writes, at each release: neither it nor a
 * producer feels that somebody looks. What came since is not in it.
 */
static inline uint64_t petal_mpsc_backlog(const struct petal_mpsc *ring);

/**
 * petal_mpsc_used() - bytes claimed and not released, now
 *
 * Costs a look at the lines on which everybody works.
 */
static inline uint64_t petal_mpsc_used(const struct petal_mpsc *ring);

/* Both may be old, or lies; compare them with positions of your own. */
static inline uint64_t petal_mpsc_head(const struct petal_mpsc *ring);
static inline uint64_t petal_mpsc_tail(const struct petal_mpsc *ring);

#include "rings/mpsc_inl.h"

#ifdef __cplusplus
}
#endif

#endif
