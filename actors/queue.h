/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_ACTORS_QUEUE_H
#define PETAL_ACTORS_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "rings/doorbell.h"

/**
 * DOC: queue - messages that many actors pull, each under a lease
 *
 * A queue holds no payload. It is a table of leases over records that lie in a
 * ring: the keeper (the ring's node) puts a descriptor for each message, takers
 * lease it by one compare-and-swap, and the keeper settles it when the
 * acknowledgement is accepted.
 *
 *    byte 0     64        128      192     256     320
 *    +----------+---------+--------+-------+-------+--------+--------+-- --+
 *    | geometry | keeper  | takers | bell  | owner | slot 0 | slot 1 | ... |
 *    +----------+---------+--------+-------+-------+--------+--------+-- --+
 *
 *                   put            take            settle        collect
 *    message n:  FREE ----> READY -----> LEASED(owner) ----> SETTLED ---> FREE
 *                             ^             |
 *                             +-------------+  release by its owner; expire or
 *                                              reclaim by the keeper
 *
 * Message n lies in slot n % slot_count. The slot's word is state, owner and
 * generation; the generation grows with every lease and is never set back, so
 * the triple (slot, generation, owner) is used once, and an acknowledgement by
 * a lease that has ended is refused (-ESTALE) and counted.
 *
 * Always true: low <= every message that is not collected < end <= low +
 * slot_count; enqueued = ready + leased + settled + collected.
 *
 * Who may run together:  take and release with everything; own with
 * everything; put, settle, expire, reclaim and collect are the keeper's, one
 * thread.
 *
 * Ordering:
 *    [OFFER]  put fills the slot, then stores READY (release) -> take swaps
 *             (acquire): the taker sees the descriptor
 *    [BACK]   release, expire and reclaim store READY (release) -> take: what
 *             the last holder read is over before the next one starts
 *    [HINT]   the keeper makes a slot READY, then changes the hint (seq_cst);
 *             a taker that looked before fails to move the hint past it
 *    [REUSE]  the word leaves LEASED, then put stores the next descriptor
 *             (release) -> take loads the descriptor (acquire), then the word:
 *             a lease that ended meanwhile is not given out with the bytes of
 *             another message
 *
 * Crash: a taker that dies holds LEASED words under its number; the keeper
 * returns them at once when the death is proved. One that is stopped loses
 * them at the deadline; the keeper sets the deadline of a lease whose taker was
 * stopped before it could. One that stops half way through release leaves a
 * message READY where no taker looks; the keeper finds it when it next calls
 * expire or reclaim.
 *
 * Trust: one trust domain. The keeper bounds whatever it loads.
 */

#define PETAL_QUEUE_SLOTS_MAX (1u << 20)
#define PETAL_QUEUE_NAME_BYTES 32u

enum petal_queue_state {
	PETAL_QUEUE_FREE = 0,
	PETAL_QUEUE_READY = 1,
	PETAL_QUEUE_LEASED = 2,
	PETAL_QUEUE_SETTLED = 3,
};

/* Where a message lies. */
struct petal_queue_item {
	uint64_t lsn;
	uint64_t pos;    /* of its record */
	uint32_t index;  /* within its record */
	uint32_t offset; /* of its bytes from pos */
	uint32_t length;
};

struct petal_queue_lease {
	uint64_t ordinal;
	uint64_t word;
};

struct petal_queue_geometry {
	char name[PETAL_QUEUE_NAME_BYTES];
	uint32_t id;
	uint32_t slot_count; /* a power of two, 2 to PETAL_QUEUE_SLOTS_MAX */
	uint64_t lease_ns;
};

/* Kept by the keeper alone; readable by anybody. */
struct petal_queue_counts {
	uint64_t enqueued;
	uint64_t done;
	uint64_t ready;
	uint64_t leased;
	uint64_t redelivered; /* handed out again, for any reason */
	uint64_t expired;     /* of these, at the deadline */
	uint64_t reclaimed;   /* of these, after a proved death */
	uint64_t stale;       /* acknowledgements refused */
};

struct petal_queue_shared; /* what lies in the memory: queue.c */

/* One process's view; geometry copied at attach. */
struct petal_queue {
	struct petal_queue_shared *shared;
	struct petal_queue_slot *slots;
	uint64_t lease_ns;
	uint32_t slot_count;
	uint32_t id;
	char name[PETAL_QUEUE_NAME_BYTES];
};

uint64_t petal_queue_bytes(uint32_t slot_count);

/**
 * petal_queue_format() - make an empty queue
 * @memory: petal_queue_bytes() of zeroed memory, 64-byte aligned
 *
 * Return: 0, or -EINVAL for a shape out of range.
 */
int petal_queue_format(void *memory,
		       const struct petal_queue_geometry *geometry);

/**
 * petal_queue_attach() - look at a queue that another process made
 *
 * Return: 0; -EINVAL when it is no queue; -PETAL_EVERSION; -PETAL_EGEOMETRY
 * when its shape does not fit into @bytes.
 */
int petal_queue_attach(void *memory, uint64_t bytes,
		       struct petal_queue *ret_queue);

/* For takers. */

/**
 * petal_queue_take() - lease the oldest message that is ready
 * @owner: the taker's number, 1 to 4095
 * @now_ns: monotonic
 * @ret_item: where it lies, as the keeper wrote it; the caller bounds it
 * @ret_redelivered: leases that this message has had before
 *
 * Return: 0; 1 when none is ready; -EPERM when the queue has another owner.
 */
int petal_queue_take(struct petal_queue *queue, uint32_t owner, uint64_t now_ns,
		     struct petal_queue_item *ret_item,
		     struct petal_queue_lease *ret_lease,
		     uint32_t *ret_redelivered);

/**
 * petal_queue_release() - give a leased message back, unfinished
 *
 * Return: 0, or -ESTALE when the lease had ended.
 */
int petal_queue_release(struct petal_queue *queue,
			const struct petal_queue_lease *lease);

/**
 * petal_queue_check() - whether a lease is in force just now
 *
 * Worth asking before an acknowledgement is written: one that is refused takes
 * room in the ring all the same, and cannot give it back before the message
 * that it was for is done.
 *
 * Return: 0, or -ESTALE.
 */
int petal_queue_check(struct petal_queue *queue,
		      const struct petal_queue_lease *lease);

/**
 * petal_queue_own() - become the only taker
 *
 * A clerk is the single owner of its queue. The keeper ends the ownership when
 * the owner is proved dead.
 *
 * Return: 0 (also when already ours), or -EBUSY.
 */
int petal_queue_own(struct petal_queue *queue, uint32_t owner);

/**
 * petal_queue_bell() - what to arm before sleeping for a message
 */
struct petal_doorbell *petal_queue_bell(struct petal_queue *queue);

/**
 * petal_queue_lease_owner() - who holds, or held, a lease
 */
static inline uint32_t
petal_queue_lease_owner(const struct petal_queue_lease *lease)
{
	return (uint32_t)(lease->word >> 4) & 0xfff;
}

/* For the keeper. */

/**
 * petal_queue_put() - offer a message
 *
 * Does not wake anybody: ring petal_queue_bell() once per batch.
 *
 * Return: 0, or -EAGAIN when every slot is in use.
 */
int petal_queue_put(struct petal_queue *queue,
		    const struct petal_queue_item *item);

/**
 * petal_queue_settle() - accept the acknowledgement of a lease
 * @by_pos: end of the record that carries it; petal_queue_collect() waits for
 *	that record to be visible
 *
 * Return: 0, or -ESTALE (counted) when the lease is not in force.
 */
int petal_queue_settle(struct petal_queue *queue,
		       const struct petal_queue_lease *lease, uint64_t by_pos);

/**
 * petal_queue_unsettle() - take a settlement back, before anything followed
 */
void petal_queue_unsettle(struct petal_queue *queue,
			  const struct petal_queue_lease *lease);

/**
 * petal_queue_collect() - forget settled messages, oldest first
 * @visible_pos: settlements by records up to here are final
 *
 * Return: position of the oldest record that a message still needs, or
 * UINT64_MAX when the queue is empty.
 */
uint64_t petal_queue_collect(struct petal_queue *queue, uint64_t visible_pos);

/**
 * petal_queue_expire() - return leases whose deadline has passed
 * @ret_next_ns: the earliest deadline still running, or UINT64_MAX; deadlines
 *	are rounded up to 256 ns
 *
 * Return: number of messages returned.
 */
unsigned petal_queue_expire(struct petal_queue *queue, uint64_t now_ns,
			    uint64_t *ret_next_ns);

/**
 * petal_queue_reclaim() - return the leases of an owner proved dead
 *
 * Return: number of messages returned.
 */
unsigned petal_queue_reclaim(struct petal_queue *queue, uint32_t owner);

/**
 * petal_queue_held() - how many messages an owner holds under lease just now
 *
 * Reads every slot in use.
 */
unsigned petal_queue_held(const struct petal_queue *queue, uint32_t owner);

/**
 * petal_queue_counts() - what has happened so far
 *
 * Reads every slot in use: for people, not for hot paths.
 */
void petal_queue_counts(const struct petal_queue *queue,
			struct petal_queue_counts *ret_counts);

#endif
