/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_SPSC_H
#define PETAL_RINGS_SPSC_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * DOC: spsc - one producer, one consumer, slots of one size, in shared memory
 *
 *    byte 0        128         256         384
 *    +-------------+-----------+-----------+--------+--------+-- --+
 *    | geometry    | producer  | consumer  | slot 0 | slot 1 | ... |
 *    | written once| tail      | head      |  whole lines each     |
 *    +-------------+-----------+-----------+--------+--------+-- --+
 *
 *    a slot:  | stamp 8 | slot_bytes of the caller's ... | up to a line |
 *
 * Positions are messages since the ring was made and never wrap; a position's
 * slot is slot[pos & (slot_count - 1)].
 *
 * Always true:  head <= consumer's position <= producer's position
 *               <= head + slot_count, and the stamp of a slot is pos + 1 from
 * the publish of pos until the publish of pos + slot_count.
 *
 * No line has two writers, and while messages flow the two sides meet only in
 * the slots: the stamp travels with the message, in its first line. The
 * consumer stores head once for many messages: when a quarter of the ring has
 * been released since, and when it finds the ring empty. Until then the
 * producer may find it fuller than it is, by less than a quarter.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion):
 *
 *                       claim/publish  peek/release  backlog
 *    claim/publish            X             -           -
 *    peek/release             -             X           -
 *    backlog                  -             -           -
 *
 * Ordering:
 *    [FILL]    publish stores the stamp (release) -> peek loads it (acquire):
 *              the consumer sees the whole message or none of it
 *    [DRAIN]   release stores head (release) -> claim loads head (acquire):
 *              the producer reuses a slot only after its last read
 *    [FORMAT]  format stores the magic (release) -> attach loads it (acquire):
 *              who sees the magic sees geometry and stamps
 *
 * Crash: a producer that dies before publish leaves no trace; of a publish of
 * many a prefix may remain. Its successor attaches and goes on from the stamps.
 * A consumer's successor goes on from head: it sees again what was released
 * after head was last stored, so what must not be done twice needs a number.
 *
 * Waiting is the caller's: spin, or a doorbell for each direction. A producer
 * that sleeps because the ring is full waits for head; so its consumer rings
 * after a peek that found nothing, and after a release.
 *
 * Trust: neither side believes the other. Geometry is checked and copied at
 * attach; head is bounded before use, a stamp is only compared. What is in a
 * slot may change under the reader's eyes if the producer is hostile.
 *
 * Source: the readiness inside of the slot is FastForward's (Giacomoni et al.,
 * PPoPP 2008), with a number in place of NULL; the late head is MCRingBuffer's
 * (Lee et al., IPDPS 2010).
 */

#define PETAL_SPSC_SLOT_BYTES_MAX (UINT32_C(1) << 30)
#define PETAL_SPSC_BYTES_MAX (UINT64_C(1) << 40)

struct petal_spsc_geometry {
	uint64_t slot_count; /* a power of two, at least 4 */
	uint32_t slot_bytes; /* 1 to PETAL_SPSC_SLOT_BYTES_MAX */
	uint64_t start_pos;  /* of the first message; normally 0 */
};

enum petal_spsc_role {
	PETAL_SPSC_PRODUCER,
	PETAL_SPSC_CONSUMER,
};

struct petal_spsc_shared; /* what lies in the memory: spsc_inl.h */

/* One side's view, private to it; geometry is never read again. */
struct petal_spsc {
	struct petal_spsc_shared *shared;
	uint8_t *slots;
	uint64_t slot_count;
	uint64_t stride_bytes;
	uint64_t pos;       /* the next message to publish, or to release */
	uint64_t head_seen; /* producer: read last; consumer: stored last */
	uint32_t slot_bytes;
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
 * Return: 0, or -EINVAL for a shape out of range or memory not aligned.
 */
int petal_spsc_format(void *memory, const struct petal_spsc_geometry *geometry);

/**
 * petal_spsc_attach() - become one side of a ring that anybody may have made
 * @memory: where it lies, 64-byte aligned
 * @bytes: how much is mapped there
 * @role: which side; nobody else may have it at the time
 *
 * Return: 0; -EINVAL when it is no such ring; -PETAL_EVERSION;
 * -PETAL_EGEOMETRY when its shape does not fit into what is mapped.
 */
int petal_spsc_attach(void *memory, uint64_t bytes, enum petal_spsc_role role,
		      struct petal_spsc *ret_ring);

/**
 * petal_spsc_claim() - borrow the next free slot
 *
 * Claiming again before petal_spsc_publish() returns the same slot.
 *
 * Threads: the producer. Order: acquires [DRAIN] when it looks at head.
 *
 * Return: slot_bytes writable bytes, 8-byte aligned; NULL if the ring is full.
 */
static inline void *petal_spsc_claim(struct petal_spsc *ring);

/**
 * petal_spsc_publish() - hand over the slot that was claimed
 *
 * Threads: the producer, after a claim that did not return NULL. Order: [FILL].
 */
static inline void petal_spsc_publish(struct petal_spsc *ring);

/**
 * petal_spsc_peek() - look at the oldest message that was not released
 *
 * Threads: the consumer. Order: acquires [FILL]; [DRAIN] if it finds nothing.
 *
 * Return: slot_bytes readable bytes, 8-byte aligned; NULL if the ring is empty.
 */
static inline const void *petal_spsc_peek(struct petal_spsc *ring);

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
 * Return: how many there are, 0 if full; petal_spsc_slot() tells where.
 */
static inline uint64_t petal_spsc_claim_n(struct petal_spsc *ring,
					  uint64_t want);

/**
 * petal_spsc_publish_n() - hand over the first of the claimed slots
 * @count: at most what petal_spsc_claim_n() returned
 *
 * They become visible one after the other.
 */
static inline void petal_spsc_publish_n(struct petal_spsc *ring,
					uint64_t count);

/**
 * petal_spsc_peek_n() - look at several messages
 * @want: how many, at most
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
 * petal_spsc_backlog() - messages published, and not known to be released
 *
 * For observers; up to a quarter too high, for head is stored late.
 *
 * Threads: anybody with a view of either role, also one that only looks.
 */
static inline uint64_t petal_spsc_backlog(const struct petal_spsc *ring);

#include "rings/spsc_inl.h"

#endif
