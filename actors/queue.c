/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message goes FREE, READY, LEASED, SETTLED, FREE; takers scan from a hint
 * and lease the first READY slot. What can go wrong: a taker dies or stops
 * with a lease (reclaim, expire), acknowledges after it lost it (settle says
 * -ESTALE), or moves the hint past a message that came back just then (the
 * hint carries a version that the keeper changes).
 */
#include "actors/queue.h"

#include <assert.h>
#include <errno.h>
#include <stdalign.h>
#include <stddef.h>
#include <string.h>

#include "shm/error.h"

#define QUEUE_MAGIC UINT64_C(0x31657565754c5450)
#define QUEUE_VERSION 1u
#define OWNER_BITS 12
#define GENERATION_SHIFT 16
#define HINT_ORDINAL_MASK ((UINT64_C(1) << 48) - 1)
/* A deadline carries so much of its lease's generation in its low bits. */
#define DEADLINE_MASK UINT64_C(0xff)

struct petal_queue_slot {
	_Atomic uint64_t word;
	_Atomic uint64_t deadline; /* of the lease that its low bits name */

	/* The keeper writes. A taker that lost its lease may still read. */
	_Atomic uint64_t ordinal;
	_Atomic uint64_t lsn;
	_Atomic uint64_t pos;
	_Atomic uint32_t index;
	_Atomic uint32_t offset;
	_Atomic uint32_t length;
	_Atomic uint32_t put_generation; /* low bits, before the first lease */
	uint64_t settled_pos;
};
static_assert(sizeof(struct petal_queue_slot) == 64, "layout");

struct petal_queue_shared {
	/* Geometry, written once. */
	uint64_t magic;
	uint32_t version;
	uint32_t id;
	uint32_t slot_count;
	uint32_t reserved;
	uint64_t lease_ns;
	char name[PETAL_QUEUE_NAME_BYTES];

	/* The keeper writes. */
	alignas(64) _Atomic uint64_t end;
	_Atomic uint64_t low;
	_Atomic uint64_t redelivered;
	_Atomic uint64_t expired;
	_Atomic uint64_t reclaimed;
	_Atomic uint64_t stale;

	/* Takers write; the keeper when a message comes back. */
	alignas(64) _Atomic uint64_t hint; /* version << 48 | ordinal */
	_Atomic uint64_t released;

	alignas(64) struct petal_doorbell bell;

	alignas(64) _Atomic uint32_t owner; /* 0: anybody may take */

	alignas(64) struct petal_queue_slot slots[];
};
static_assert(offsetof(struct petal_queue_shared, end) == 64, "layout");
static_assert(offsetof(struct petal_queue_shared, hint) == 128, "layout");
static_assert(offsetof(struct petal_queue_shared, bell) == 192, "layout");
static_assert(offsetof(struct petal_queue_shared, owner) == 256, "layout");
static_assert(offsetof(struct petal_queue_shared, slots) == 320, "layout");

static uint64_t word_of(enum petal_queue_state state, uint32_t owner,
			uint64_t generation)
{
	return (uint64_t)state | (uint64_t)owner << 4 |
	       generation << GENERATION_SHIFT;
}

static enum petal_queue_state state_of(uint64_t word)
{
	return (enum petal_queue_state)(word & 0xf);
}

static uint32_t owner_of(uint64_t word)
{
	return (uint32_t)(word >> 4) & ((1u << OWNER_BITS) - 1);
}

static uint64_t generation_of(uint64_t word)
{
	return word >> GENERATION_SHIFT;
}

static struct petal_queue_slot *slot_at(const struct petal_queue *queue,
					uint64_t ordinal)
{
	return &queue->slots[ordinal & (queue->slot_count - 1)];
}

static bool slot_count_is_good(uint32_t slot_count)
{
	return slot_count >= 2 && slot_count <= PETAL_QUEUE_SLOTS_MAX &&
	       (slot_count & (slot_count - 1)) == 0;
}

uint64_t petal_queue_bytes(uint32_t slot_count)
{
	return sizeof(struct petal_queue_shared) +
	       (uint64_t)slot_count * sizeof(struct petal_queue_slot);
}

int petal_queue_format(void *memory,
		       const struct petal_queue_geometry *geometry)
{
	struct petal_queue_shared *shared = memory;

	if (!slot_count_is_good(geometry->slot_count) ||
	    geometry->lease_ns == 0 || geometry->name[0] == '\0')
		return -EINVAL;
	shared->version = QUEUE_VERSION;
	shared->id = geometry->id;
	shared->slot_count = geometry->slot_count;
	shared->lease_ns = geometry->lease_ns;
	memcpy(shared->name, geometry->name, sizeof(shared->name) - 1);
	shared->magic = QUEUE_MAGIC;
	return 0;
}

int petal_queue_attach(void *memory, uint64_t bytes,
		       struct petal_queue *ret_queue)
{
	struct petal_queue_shared *shared = memory;
	struct petal_queue queue = { .shared = shared };

	if (bytes < sizeof(*shared) || shared->magic != QUEUE_MAGIC)
		return -EINVAL;
	if (shared->version != QUEUE_VERSION)
		return -PETAL_EVERSION;
	queue.slots = shared->slots;
	queue.slot_count = *(volatile uint32_t *)&shared->slot_count;
	queue.lease_ns = *(volatile uint64_t *)&shared->lease_ns;
	queue.id = shared->id;
	if (!slot_count_is_good(queue.slot_count) || queue.lease_ns == 0 ||
	    petal_queue_bytes(queue.slot_count) > bytes)
		return -PETAL_EGEOMETRY;
	memcpy(queue.name, shared->name, sizeof(queue.name) - 1);
	queue.name[sizeof(queue.name) - 1] = '\0';
	*ret_queue = queue;
	return 0;
}

struct petal_doorbell *petal_queue_bell(struct petal_queue *queue)
{
	return &queue->shared->bell;
}

/*
 * [HINT] The slot is READY already. Changing the version makes a taker that
 * looked at it before fail its own move, even where no lowering is needed.
 */
static void lower_hint(struct petal_queue *queue, uint64_t ordinal)
{
	struct petal_queue_shared *shared = queue->shared;
	uint64_t seen =
		atomic_load_explicit(&shared->hint, memory_order_relaxed);
	uint64_t at, next;

	do {
		at = seen & HINT_ORDINAL_MASK;
		next = ((seen >> 48) + 1) << 48 | (at < ordinal ? at : ordinal);
	} while (!atomic_compare_exchange_weak_explicit(
		&shared->hint, &seen, next, memory_order_seq_cst,
		memory_order_relaxed));
}

static void raise_hint(struct petal_queue *queue, uint64_t seen,
		       uint64_t ordinal)
{
	uint64_t next = (seen & ~HINT_ORDINAL_MASK) | ordinal;

	/* [HINT] Fails when a message came back since we looked. */
	atomic_compare_exchange_strong_explicit(&queue->shared->hint, &seen,
						next, memory_order_seq_cst,
						memory_order_relaxed);
}

/* Returns whether the slot is now leased to owner. */
static bool lease_slot(struct petal_queue_slot *slot, uint32_t owner,
		       uint64_t *ret_word)
{
	uint64_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);
	uint64_t leased;

	if (state_of(word) != PETAL_QUEUE_READY)
		return false;
	leased = word_of(PETAL_QUEUE_LEASED, owner, generation_of(word) + 1);
	/* [OFFER] [BACK] Acquire what put, or the last holder, left. */
	if (!atomic_compare_exchange_strong_explicit(&slot->word, &word, leased,
						     memory_order_acquire,
						     memory_order_relaxed))
		return false;
	*ret_word = leased;
	return true;
}

static bool deadline_is_of(uint64_t deadline, uint64_t word)
{
	return deadline != 0 &&
	       ((deadline ^ generation_of(word)) & DEADLINE_MASK) == 0;
}

/*
 * The deadline of a lease, set now unless somebody has. What an earlier lease
 * left carries another generation, so nobody has to wipe it out, and whoever
 * comes too late cannot wipe out a later one's.
 */
static uint64_t deadline_set(struct petal_queue_slot *slot, uint64_t word,
			     uint64_t deadline_ns)
{
	uint64_t next = ((deadline_ns + DEADLINE_MASK) & ~DEADLINE_MASK) |
			(generation_of(word) & DEADLINE_MASK);
	uint64_t seen =
		atomic_load_explicit(&slot->deadline, memory_order_acquire);

	/* If the lease has ended since, what we saw may be the next one's. */
	if (!deadline_is_of(seen, word) &&
	    atomic_load_explicit(&slot->word, memory_order_relaxed) == word &&
	    atomic_compare_exchange_strong_explicit(&slot->deadline, &seen,
						    next, memory_order_acq_rel,
						    memory_order_relaxed))
		seen = next;
	return seen & ~DEADLINE_MASK;
}

/*
 * Read what the lease is for. Returns false when it has ended meanwhile: then
 * the slot may hold another message, or half of one.
 */
static bool describe(struct petal_queue_slot *slot, uint64_t word,
		     struct petal_queue_item *ret_item, uint64_t *ret_ordinal,
		     uint32_t *ret_redelivered)
{
	/* [REUSE] Acquire: if any of these is newer, so is the word. */
	struct petal_queue_item item = {
		.lsn = atomic_load_explicit(&slot->lsn, memory_order_acquire),
		.pos = atomic_load_explicit(&slot->pos, memory_order_acquire),
		.index = atomic_load_explicit(&slot->index,
					      memory_order_acquire),
		.offset = atomic_load_explicit(&slot->offset,
					       memory_order_acquire),
		.length = atomic_load_explicit(&slot->length,
					       memory_order_acquire),
	};
	uint64_t ordinal =
		atomic_load_explicit(&slot->ordinal, memory_order_acquire);
	uint32_t generation = atomic_load_explicit(&slot->put_generation,
						   memory_order_acquire);

	if (atomic_load_explicit(&slot->word, memory_order_relaxed) != word)
		return false;
	*ret_item = item;
	*ret_ordinal = ordinal;
	*ret_redelivered = (uint32_t)generation_of(word) - generation - 1;
	return true;
}

int petal_queue_take(struct petal_queue *queue, uint32_t owner, uint64_t now_ns,
		     struct petal_queue_item *ret_item,
		     struct petal_queue_lease *ret_lease,
		     uint32_t *ret_redelivered)
{
	struct petal_queue_shared *shared = queue->shared;
	uint32_t clerk =
		atomic_load_explicit(&shared->owner, memory_order_relaxed);
	uint64_t hint, at, low, end, word = 0;
	struct petal_queue_slot *slot;

	if (clerk != 0 && clerk != owner)
		return -EPERM;
	hint = atomic_load_explicit(&shared->hint, memory_order_seq_cst);
	/* [OFFER] Slots before end have been filled. */
	end = atomic_load_explicit(&shared->end, memory_order_acquire);
	low = atomic_load_explicit(&shared->low, memory_order_relaxed);
	at = hint & HINT_ORDINAL_MASK;
	if (at < low)
		at = low; /* a taker may have died before it moved the hint */
	for (uint64_t n = 0; at < end && n < queue->slot_count; at++, n++) {
		slot = slot_at(queue, at);
		if (!lease_slot(slot, owner, &word))
			continue;
		/* The keeper may have set it already, if we were stopped. */
		deadline_set(slot, word, now_ns + queue->lease_ns);
		raise_hint(queue, hint, at + 1);
		if (!describe(slot, word, ret_item, &ret_lease->ordinal,
			      ret_redelivered))
			continue;
		ret_lease->word = word;
		return 0;
	}
	return 1;
}

/* End a lease: LEASED back to READY. Fails when the word has changed. */
static bool return_slot(struct petal_queue *queue,
			struct petal_queue_slot *slot, uint64_t word)
{
	uint64_t ready = word_of(PETAL_QUEUE_READY, 0, generation_of(word));
	uint64_t ordinal =
		atomic_load_explicit(&slot->ordinal, memory_order_relaxed);

	/* [BACK] Release: whatever the holder did with it is over. */
	if (!atomic_compare_exchange_strong_explicit(&slot->word, &word, ready,
						     memory_order_acq_rel,
						     memory_order_relaxed))
		return false;
	lower_hint(queue, ordinal);
	return true;
}

int petal_queue_release(struct petal_queue *queue,
			const struct petal_queue_lease *lease)
{
	if (state_of(lease->word) != PETAL_QUEUE_LEASED ||
	    !return_slot(queue, slot_at(queue, lease->ordinal), lease->word))
		return -ESTALE;
	atomic_fetch_add_explicit(&queue->shared->released, 1,
				  memory_order_relaxed);
	petal_doorbell_ring(&queue->shared->bell, 1);
	return 0;
}

int petal_queue_check(struct petal_queue *queue,
		      const struct petal_queue_lease *lease)
{
	uint64_t word = atomic_load_explicit(
		&slot_at(queue, lease->ordinal)->word, memory_order_relaxed);

	return state_of(word) == PETAL_QUEUE_LEASED && word == lease->word
		       ? 0
		       : -ESTALE;
}

int petal_queue_own(struct petal_queue *queue, uint32_t owner)
{
	uint32_t nobody = 0;

	if (atomic_compare_exchange_strong_explicit(
		    &queue->shared->owner, &nobody, owner, memory_order_relaxed,
		    memory_order_relaxed) ||
	    nobody == owner)
		return 0;
	return -EBUSY;
}

/* [REUSE] Release: who sees any of this sees that the old leases are over. */
static void fill_slot(struct petal_queue_slot *slot, uint64_t ordinal,
		      const struct petal_queue_item *item, uint64_t generation)
{
	atomic_store_explicit(&slot->ordinal, ordinal, memory_order_release);
	atomic_store_explicit(&slot->lsn, item->lsn, memory_order_release);
	atomic_store_explicit(&slot->pos, item->pos, memory_order_release);
	atomic_store_explicit(&slot->index, item->index, memory_order_release);
	atomic_store_explicit(&slot->offset, item->offset,
			      memory_order_release);
	atomic_store_explicit(&slot->length, item->length,
			      memory_order_release);
	atomic_store_explicit(&slot->put_generation, (uint32_t)generation,
			      memory_order_release);
}

int petal_queue_put(struct petal_queue *queue,
		    const struct petal_queue_item *item)
{
	struct petal_queue_shared *shared = queue->shared;
	uint64_t end = atomic_load_explicit(&shared->end, memory_order_relaxed);
	struct petal_queue_slot *slot = slot_at(queue, end);
	uint64_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);

	if (state_of(word) != PETAL_QUEUE_FREE)
		return -EAGAIN;
	fill_slot(slot, end, item, generation_of(word));
	/* [OFFER] The descriptor is whole before anybody can lease it. */
	atomic_store_explicit(
		&slot->word, word_of(PETAL_QUEUE_READY, 0, generation_of(word)),
		memory_order_release);
	atomic_store_explicit(&shared->end, end + 1, memory_order_release);
	return 0;
}

int petal_queue_settle(struct petal_queue *queue,
		       const struct petal_queue_lease *lease, uint64_t by_pos)
{
	struct petal_queue_shared *shared = queue->shared;
	struct petal_queue_slot *slot = slot_at(queue, lease->ordinal);
	uint64_t word = lease->word;
	uint64_t settled = word_of(PETAL_QUEUE_SETTLED, owner_of(word),
				   generation_of(word));

	if (state_of(word) == PETAL_QUEUE_LEASED &&
	    atomic_load_explicit(&slot->ordinal, memory_order_relaxed) ==
		    lease->ordinal &&
	    atomic_compare_exchange_strong_explicit(&slot->word, &word, settled,
						    memory_order_relaxed,
						    memory_order_relaxed)) {
		slot->settled_pos = by_pos;
		return 0;
	}
	atomic_fetch_add_explicit(&shared->stale, 1, memory_order_relaxed);
	return -ESTALE;
}

void petal_queue_unsettle(struct petal_queue *queue,
			  const struct petal_queue_lease *lease)
{
	/* Nobody but the keeper touches a settled slot. */
	atomic_store_explicit(&slot_at(queue, lease->ordinal)->word,
			      lease->word, memory_order_relaxed);
}

uint64_t petal_queue_collect(struct petal_queue *queue, uint64_t visible_pos)
{
	struct petal_queue_shared *shared = queue->shared;
	uint64_t low = atomic_load_explicit(&shared->low, memory_order_relaxed);
	uint64_t end = atomic_load_explicit(&shared->end, memory_order_relaxed);
	struct petal_queue_slot *slot;
	uint64_t word;

	for (; low < end; low++) {
		slot = slot_at(queue, low);
		word = atomic_load_explicit(&slot->word, memory_order_relaxed);
		if (state_of(word) != PETAL_QUEUE_SETTLED ||
		    slot->settled_pos > visible_pos)
			break;
		atomic_store_explicit(&slot->word,
				      word_of(PETAL_QUEUE_FREE, 0,
					      generation_of(word)),
				      memory_order_relaxed);
	}
	atomic_store_explicit(&shared->low, low, memory_order_relaxed);
	if (low == end)
		return UINT64_MAX;
	return atomic_load_explicit(&slot_at(queue, low)->pos,
				    memory_order_relaxed);
}

static void count_return(struct petal_queue *queue, _Atomic uint64_t *why,
			 unsigned count)
{
	if (count == 0)
		return;
	atomic_fetch_add_explicit(why, count, memory_order_relaxed);
	atomic_fetch_add_explicit(&queue->shared->redelivered, count,
				  memory_order_relaxed);
	petal_doorbell_ring(&queue->shared->bell, count);
}

/*
 * A taker that stops in release, between its two steps, leaves a message READY
 * below the hint, where nobody looks. Lower it, and ring in its place.
 */
static void find_stray(struct petal_queue *queue)
{
	struct petal_queue_shared *shared = queue->shared;
	uint64_t low = atomic_load_explicit(&shared->low, memory_order_relaxed);
	uint64_t hint =
		atomic_load_explicit(&shared->hint, memory_order_seq_cst) &
		HINT_ORDINAL_MASK;

	for (uint64_t n = 0; low < hint && n < queue->slot_count; low++, n++) {
		uint64_t word = atomic_load_explicit(&slot_at(queue, low)->word,
						     memory_order_relaxed);

		if (state_of(word) != PETAL_QUEUE_READY)
			continue;
		lower_hint(queue, low);
		petal_doorbell_ring(&shared->bell, PETAL_DOORBELL_ALL);
		return;
	}
}

unsigned petal_queue_expire(struct petal_queue *queue, uint64_t now_ns,
			    uint64_t *ret_next_ns)
{
	struct petal_queue_shared *shared = queue->shared;
	uint64_t low = atomic_load_explicit(&shared->low, memory_order_relaxed);
	uint64_t end = atomic_load_explicit(&shared->end, memory_order_relaxed);
	uint64_t next_ns = UINT64_MAX;
	unsigned count = 0;

	for (; low < end; low++) {
		struct petal_queue_slot *slot = slot_at(queue, low);
		uint64_t word =
			atomic_load_explicit(&slot->word, memory_order_relaxed);
		uint64_t deadline_ns;

		if (state_of(word) != PETAL_QUEUE_LEASED)
			continue;
		deadline_ns =
			deadline_set(slot, word, now_ns + queue->lease_ns);
		if (deadline_ns > now_ns) {
			if (deadline_ns < next_ns)
				next_ns = deadline_ns;
		} else if (return_slot(queue, slot, word)) {
			count++;
		}
	}
	find_stray(queue);
	count_return(queue, &shared->expired, count);
	*ret_next_ns = next_ns;
	return count;
}

unsigned petal_queue_reclaim(struct petal_queue *queue, uint32_t owner)
{
	struct petal_queue_shared *shared = queue->shared;
	uint64_t low = atomic_load_explicit(&shared->low, memory_order_relaxed);
	uint64_t end = atomic_load_explicit(&shared->end, memory_order_relaxed);
	uint32_t clerk = owner;
	unsigned count = 0;

	atomic_compare_exchange_strong_explicit(&shared->owner, &clerk, 0,
						memory_order_relaxed,
						memory_order_relaxed);
	for (; low < end; low++) {
		struct petal_queue_slot *slot = slot_at(queue, low);
		uint64_t word =
			atomic_load_explicit(&slot->word, memory_order_relaxed);

		if (state_of(word) == PETAL_QUEUE_LEASED &&
		    owner_of(word) == owner && return_slot(queue, slot, word))
			count++;
	}
	find_stray(queue);
	count_return(queue, &shared->reclaimed, count);
	return count;
}

unsigned petal_queue_held(const struct petal_queue *queue, uint32_t owner)
{
	struct petal_queue_shared *shared = queue->shared;
	uint64_t low = atomic_load_explicit(&shared->low, memory_order_relaxed);
	uint64_t end = atomic_load_explicit(&shared->end, memory_order_relaxed);
	unsigned count = 0;

	for (uint64_t n = 0; low < end && n < queue->slot_count; low++, n++) {
		uint64_t word = atomic_load_explicit(&slot_at(queue, low)->word,
						     memory_order_relaxed);

		count += state_of(word) == PETAL_QUEUE_LEASED &&
			 owner_of(word) == owner;
	}
	return count;
}

void petal_queue_counts(const struct petal_queue *queue,
			struct petal_queue_counts *ret_counts)
{
	struct petal_queue_shared *shared = queue->shared;
	uint64_t low = atomic_load_explicit(&shared->low, memory_order_relaxed);
	uint64_t end = atomic_load_explicit(&shared->end, memory_order_acquire);
	uint64_t released =
		atomic_load_explicit(&shared->released, memory_order_relaxed);
	struct petal_queue_counts counts = {
		.enqueued = end,
		.done = low,
		.redelivered =
			released + atomic_load_explicit(&shared->redelivered,
							memory_order_relaxed),
		.expired = atomic_load_explicit(&shared->expired,
						memory_order_relaxed),
		.reclaimed = atomic_load_explicit(&shared->reclaimed,
						  memory_order_relaxed),
		.stale = atomic_load_explicit(&shared->stale,
					      memory_order_relaxed),
	};

	for (uint64_t n = 0; low < end && n < queue->slot_count; low++, n++) {
		uint64_t word = atomic_load_explicit(&slot_at(queue, low)->word,
						     memory_order_relaxed);

		counts.ready += state_of(word) == PETAL_QUEUE_READY;
		counts.leased += state_of(word) == PETAL_QUEUE_LEASED;
		counts.done += state_of(word) == PETAL_QUEUE_SETTLED;
	}
	*ret_counts = counts;
}
