/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_SPSC_H
#define PETAL_RINGS_SPSC_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rings/pace.h"
#include "shm/atomic.h"
#include "shm/segment.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: spsc - one producer, one consumer, slots of one size, in shared memory
 *
 *    byte 0       64       128       256      320      384
 *    +------------+--------+---------+--------+--------+--------+--------+--
 *    | geometry   | closed | tail    | head   | closed | slot 0 | slot 1 | ...
 *    | written    |        |         |        |        |        |        |
 *    | once       |  by the producer | by the consumer |        |        |
 *    +------------+--------+---------+--------+--------+--------+--------+--
 *
 *    a slot, stamped:  | stamp 8 | slot_bytes of the caller's | padding |
 *    a slot, indexed:  | slot_bytes of the caller's | padding |
 *
 * Positions are messages since the ring was made and never wrap; a position's
 * slot is slot[pos & (slot_count - 1)]. A slot that fits into a line takes the
 * smallest power of two that holds it, and so lies in one line; a larger one is
 * rounded up to 8 bytes, and to whole lines beyond four of them.
 *
 * Two kinds, one set of calls:
 *
 *    stamped   The message carries the stamp that says it is there, in its
 *              first line: 8 bytes reach the other side in one transfer of a
 *              line. For whatever is waited for. A publish of many becomes
 *              visible one by one.
 *    indexed   tail says what is there, on a line of its own: no stamps to
 *              write, slots that are whole lines, and a line more for each
 *              look at tail. The consumer looks only when it has seen all that
 *              the last look gave. For streams in bulk. A publish of many
 *              becomes visible at once.
 *
 * In a segment that is not coherent (CXL between hosts), both kinds are a third:
 *
 *    far       Slots are whole lines, written by the producer alone, and the
 *              stamp is followed by 4 bytes of CRC-32C over stamp and message:
 *              16 bytes before the caller's. Lines are written back before the
 *              stamp is, and the stamp after; the consumer throws its copy of
 *              the stamp's line away at each look, and of the others when the
 *              stamp is there. head goes the other way likewise. A stamp that
 *              is neither this lap's nor the last one's, or a checksum that
 *              does not match, is "not yet" for PETAL_SPSC_DOUBTS_MAX looks in
 *              a row; then petal_spsc_outcome() says -PETAL_ECORRUPT, until a
 *              look finds the message after all. tail is shown every quarter of
 *              the ring. Nowhere is a word read, changed and written at once.
 *
 * Always true:  head <= consumer's position <= producer's position
 *               <= head + slot_count; tail <= producer's position; the stamp
 * of a slot is pos + 1 from the publish of pos until the publish of
 * pos + slot_count.
 *
 * No line has two writers, but for slots that straddle lines, where neighbours
 * share one; and while messages flow the two sides of a stamped ring meet only
 * in the slots. The consumer stores head once for many messages: when a quarter
 * of the ring has been released since, and when it finds the ring empty. Until
 * then the producer may find it fuller than it is, by less than a quarter.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion):
 *
 *                       claim/publish  peek/release  backlog
 *    claim/publish            X             -           -
 *    peek/release             -             X           -
 *    backlog                  -             -           -
 *
 * close belongs to the side that closes, outcome to the side that asks.
 *
 * Ordering:
 *    [FILL]    publish stores the stamp (release) -> peek loads it (acquire):
 *              the consumer sees the whole message or none of it
 *    [SHOW]    publish stores tail (release) -> peek loads it (acquire): the
 *              same for an indexed ring
 *    [DRAIN]   release stores head (release) -> claim loads head (acquire):
 *              the producer reuses a slot only after its last read
 *    [CLOSE]   close stores closed (release) -> outcome loads it (acquire):
 *              who sees it, and no message then, has seen the last message
 *    [FORMAT]  format stores the magic (release) -> attach loads it (acquire):
 *              who sees the magic sees geometry and stamps
 *
 * To drop a claim, do nothing: it is known to nobody before publish. To hold a
 * message while reading on, do not release it: petal_spsc_peek_at() goes
 * further; what is held is room that the producer lacks, and it is released in
 * order.
 *
 * Crash: a producer that dies before publish leaves no trace; of a publish of
 * many into a stamped ring a prefix may remain. Its successor attaches and goes
 * on from tail and the stamps after it, and stores tail first. A consumer's
 * successor goes on from
 * head: it sees again what was released after head was last stored, so what
 * must not be done twice needs a number. In a far ring, the successor runs on
 * the host of the dead one, whose caches still hold what it did not show, or
 * that host is down.
 *
 * Waiting is the caller's: spin, or a doorbell for each direction. A producer
 * that sleeps because the ring is full waits for head; so its consumer rings
 * after a peek that found nothing, and after a release. Who closes rings too.
 *
 * Trust: neither side believes the other. Geometry is checked and copied at
 * attach; head and tail are bounded before use, a stamp is only compared, and
 * no call after attach takes more than 64 steps for what it finds there, unless
 * the caller has asked for more messages. What is in a slot
 * may change under the reader's eyes if the producer is hostile. A consumer
 * that must not be able to write where the producer does gets the ring
 * read-only, and a cursor of its own:
 *
 *    one memory            ring [rw, rw]
 *    apart                 ring [rw by the producer, ro by the consumer],
 *                          cursor [ro by the producer, rw by the consumer]
 *
 * Source: the readiness inside of the slot is FastForward's (Giacomoni et al.,
 * PPoPP 2008), with a number in place of NULL; the late head is MCRingBuffer's
 * (Lee et al., IPDPS 2010).
 */

#define PETAL_SPSC_SLOT_BYTES_MAX (UINT32_C(1) << 30)
#define PETAL_SPSC_BYTES_MAX (UINT64_C(1) << 40)

/* Looks at one message of a far ring, some 100 ns each or more. */
#define PETAL_SPSC_DOUBTS_MAX 4096u

/* Of the consumer's memory, when it has one of its own. */
#define PETAL_SPSC_CURSOR_BYTES 256u

enum petal_spsc_kind {
	PETAL_SPSC_STAMPED,
	PETAL_SPSC_INDEXED,
};

struct petal_spsc_geometry {
	uint64_t slot_count; /* a power of two, at least 4 */
	uint32_t slot_bytes; /* 1 to PETAL_SPSC_SLOT_BYTES_MAX */
	enum petal_spsc_kind kind;
	uint64_t start_pos; /* of the first message; normally 0 */
	enum petal_segment_coherence coherence; /* of its segment */
};

enum petal_spsc_role {
	PETAL_SPSC_PRODUCER,
	PETAL_SPSC_CONSUMER,
};

struct petal_spsc_shared; /* what lies in the memory: spsc_inl.h */
struct petal_spsc_reader;

/* One side's view, private to it; geometry is never read again. */
struct petal_spsc {
	struct petal_spsc_shared *shared;
	struct petal_spsc_reader *reader;
	uint8_t *slots;
	uint8_t *slots_end;
	uint64_t slot_count;
	uint64_t stride_bytes;
	uint64_t pos;       /* the next message to publish, or to release */
	uint64_t head_seen; /* producer: read last; consumer: stored last */
	uint64_t tail_seen; /* consumer: of an indexed ring: read last; of a far
			     * one: whole up to here; its producer: stored last
			     */
	uint32_t slot_bytes;
	uint32_t stamp_bytes; /* 8; 0 of an indexed ring, 16 of a far one */
	uint32_t doubts;      /* looks that found neither old nor new */
	enum petal_spsc_role role;
	struct petal_pace pace; /* the consumer's */
	bool closed;            /* by this side */
};

/**
 * petal_spsc_bytes() - memory for a ring of this shape
 *
 * Return: a multiple of 64; 0 for a shape out of range.
 */
uint64_t petal_spsc_bytes(const struct petal_spsc_geometry *geometry);

/**
 * petal_spsc_format() - make an empty ring
 * @memory: petal_spsc_bytes(), 64-byte aligned; what was there is lost
 *
 * Return: 0; -EINVAL for a shape out of range or memory not aligned;
 * -EOPNOTSUPP for a far ring when petal_cache_check() says so.
 */
int petal_spsc_format(void *memory, const struct petal_spsc_geometry *geometry);

/**
 * petal_spsc_format_cursor() - make the consumer's own memory
 * @cursor: PETAL_SPSC_CURSOR_BYTES, 64-byte aligned; what was there is lost
 * @start_pos: of the ring's geometry
 *
 * Return: 0, or -EINVAL for memory not aligned.
 */
int petal_spsc_format_cursor(void *cursor, uint64_t start_pos);

/**
 * petal_spsc_attach() - become one side of a ring that anybody may have made
 * @memory: where it lies, 64-byte aligned
 * @bytes: how much is mapped there
 * @role: which side; nobody else may have it at the time
 *
 * Return: 0; -EINVAL when it is no such ring; -PETAL_EVERSION;
 * -PETAL_EGEOMETRY when its shape does not fit into what is mapped; -EOPNOTSUPP
 * as petal_spsc_format().
 */
int petal_spsc_attach(void *memory, uint64_t bytes, enum petal_spsc_role role,
		      struct petal_spsc *ret_ring);

/**
 * petal_spsc_attach_apart() - the same for a ring with a cursor apart
 * @memory: where the ring lies; the consumer may have it read-only
 * @bytes: how much is mapped there
 * @cursor: where the cursor lies; the producer may have it read-only
 * @cursor_bytes: how much is mapped there
 * @role: which side; nobody else may have it at the time
 *
 * Return: as petal_spsc_attach(), for either memory.
 */
int petal_spsc_attach_apart(void *memory, uint64_t bytes, void *cursor,
			    uint64_t cursor_bytes, enum petal_spsc_role role,
			    struct petal_spsc *ret_ring);

/**
 * petal_spsc_claim() - borrow the next free slot
 *
 * Claiming again before petal_spsc_publish() returns the same slot.
 *
 * Threads: the producer. Order: acquires [DRAIN] when it looks at head.
 *
 * Return: slot_bytes writable bytes, 8-byte aligned; NULL if the ring is full
 * or closed, which petal_spsc_outcome() tells apart.
 */
static inline void *petal_spsc_claim(struct petal_spsc *ring);

/**
 * petal_spsc_publish() - hand over the slot that was claimed
 *
 * Threads: the producer, after a claim that did not return NULL. Order: [FILL]
 * or [SHOW].
 */
static inline void petal_spsc_publish(struct petal_spsc *ring);

/**
 * petal_spsc_peek() - look at the oldest message that was not released
 *
 * Threads: the consumer. Order: acquires [FILL] or [SHOW]; [DRAIN] if it finds
 * nothing.
 *
 * Return: slot_bytes readable bytes, 8-byte aligned; NULL if the ring is empty,
 * and maybe closed, which petal_spsc_outcome() tells apart.
 */
static inline const void *petal_spsc_peek(struct petal_spsc *ring);

/**
 * petal_spsc_peek_at() - look past messages that are held
 * @index: how many messages to pass; 0 is petal_spsc_peek()
 *
 * Threads: the consumer. Order: as petal_spsc_peek().
 *
 * Return: as petal_spsc_peek(); NULL also from slot_count on.
 */
static inline const void *petal_spsc_peek_at(struct petal_spsc *ring,
					     uint64_t index);

/**
 * petal_spsc_release() - give back the slot that was peeked at
 *
 * Threads: the consumer, after a peek that did not return NULL. Order: [DRAIN],
 * for a quarter of the ring at once.
 */
static inline void petal_spsc_release(struct petal_spsc *ring);

/**
 * petal_spsc_claim_n() - borrow several slots
 * @want: how many, at most
 *
 * Return: how many there are, 0 if full or closed; petal_spsc_slot() tells
 * where.
 */
static inline uint64_t petal_spsc_claim_n(struct petal_spsc *ring,
					  uint64_t want);

/**
 * petal_spsc_publish_n() - hand over the first of the claimed slots
 * @count: at most what petal_spsc_claim_n() returned
 */
static inline void petal_spsc_publish_n(struct petal_spsc *ring,
					uint64_t count);

/**
 * petal_spsc_peek_n() - look at several messages
 * @want: how many, at most
 *
 * Of a stamped ring, the last of them is asked for first, since stamps come in
 * order. Of an indexed ring, what is known from the last look at tail comes
 * first, even if it is less than @want.
 *
 * Return: how many there are, 0 if empty; petal_spsc_slot() tells where.
 */
static inline uint64_t petal_spsc_peek_n(struct petal_spsc *ring,
					 uint64_t want);

/**
 * petal_spsc_release_n() - give back the first of the slots peeked at
 * @count: at most what petal_spsc_peek_n() returned
 */
static inline void petal_spsc_release_n(struct petal_spsc *ring,
					uint64_t count);

/**
 * petal_spsc_slot() - the bytes of a slot that was claimed or peeked at
 * @index: from 0, counted from the oldest
 *
 * A consumer must not write there.
 */
static inline void *petal_spsc_slot(const struct petal_spsc *ring,
				    uint64_t index);

/**
 * petal_spsc_slot_after() - the slot that follows, round the end
 * @slot: what petal_spsc_slot() or this returned
 *
 * Cheaper than petal_spsc_slot() in a loop over a bulk.
 */
static inline void *petal_spsc_slot_after(const struct petal_spsc *ring,
					  void *slot);

/**
 * petal_spsc_close() - this side is done, for ever
 *
 * A producer's claims are refused from now on; the consumer finds what was
 * published before, then learns that nothing comes any more. When a consumer
 * closes, the producer learns from petal_spsc_outcome() that nobody will read;
 * its claims are refused after at most slot_count messages. A successor finds
 * the ring closed as well.
 *
 * Threads: the side itself. Order: [CLOSE].
 */
void petal_spsc_close(struct petal_spsc *ring);

/**
 * petal_spsc_outcome() - why a claim or a peek gave nothing
 *
 * Looks at the other side's line, which is written once, so it may be asked
 * often.
 *
 * Threads: the side itself. Order: acquires [CLOSE].
 *
 * Return: to a producer 0 as long as there may be room, -EAGAIN when full,
 * -EPIPE when either side has closed. To a consumer PETAL_RING_FOUND,
 * PETAL_RING_EMPTY or PETAL_RING_CLOSED (and drained); of a far ring also
 * -PETAL_ECORRUPT.
 */
int petal_spsc_outcome(struct petal_spsc *ring);

/**
 * petal_spsc_backlog() - messages published, and not known to be released
 *
 * For observers; up to a quarter too high, for head is stored late; of a far
 * ring also too low, for tail is. Reads tail and head, which no side of a
 * stamped ring waits for.
 *
 * Threads: anybody with a view of either role. Who only looks attaches as the
 * consumer, which stores nothing.
 */
static inline uint64_t petal_spsc_backlog(const struct petal_spsc *ring);

#include "rings/spsc_inl.h"

#ifdef __cplusplus
}
#endif

#endif
