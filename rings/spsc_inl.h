/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_SPSC_INL_H
#define PETAL_RINGS_SPSC_INL_H

/* "PETALSPS" in memory. */
#define PETAL_SPSC_MAGIC UINT64_C(0x5350534c41544550)
#define PETAL_SPSC_LAYOUT 1u
#define PETAL_SPSC_LINE_BYTES 64u
#define PETAL_SPSC_STAMP_BYTES 8u

/* Two lines apart, for the processor fetches them in pairs. */
struct petal_spsc_shared {
	_Atomic uint64_t magic; /* last at format, so that half is nothing */
	uint32_t layout;
	uint32_t slot_bytes;
	uint64_t slot_count;
	uint8_t reserved0[104];

	_Atomic uint64_t tail; /* for observers; the stamps decide */
	uint8_t reserved1[120];

	_Atomic uint64_t head;
	uint8_t reserved2[120];
};

static_assert(offsetof(struct petal_spsc_shared, layout) == 8, "layout");
static_assert(offsetof(struct petal_spsc_shared, slot_bytes) == 12, "layout");
static_assert(offsetof(struct petal_spsc_shared, slot_count) == 16, "layout");
static_assert(offsetof(struct petal_spsc_shared, tail) == 128, "layout");
static_assert(offsetof(struct petal_spsc_shared, head) == 256, "layout");
static_assert(sizeof(struct petal_spsc_shared) == 384, "layout");

static inline _Atomic uint64_t *petal_spsc_stamp(const struct petal_spsc *ring,
						 uint64_t pos)
{
	uint64_t index = pos & (ring->slot_count - 1);

	return (void *)(ring->slots + index * ring->stride_bytes);
}

static inline void *petal_spsc_slot(const struct petal_spsc *ring,
				    uint64_t index)
{
	return petal_spsc_stamp(ring, ring->pos + index) + 1;
}

/* How many slots the producer may fill, as far as it knows. */
static inline uint64_t petal_spsc_room(const struct petal_spsc *ring)
{
	return ring->slot_count - (ring->pos - ring->head_seen);
}

/* A consumer that lies about head costs messages, never other memory. */
static inline void petal_spsc_look(struct petal_spsc *ring)
{
	/*
	 * [DRAIN] Acquire: its reads of the slots that we are about to hand
	 * out happened before the head that we now see.
	 */
	uint64_t head =
		atomic_load_explicit(&ring->shared->head, memory_order_acquire);

	if (ring->pos - head <= ring->slot_count)
		ring->head_seen = head;
}

static inline uint64_t petal_spsc_claim_n(struct petal_spsc *ring,
					  uint64_t want)
{
	uint64_t room = petal_spsc_room(ring);

	if (room < want) {
		petal_spsc_look(ring);
		room = petal_spsc_room(ring);
	}
	return room < want ? room : want;
}

static inline void *petal_spsc_claim(struct petal_spsc *ring)
{
	return petal_spsc_claim_n(ring, 1) ? petal_spsc_slot(ring, 0) : NULL;
}

static inline void petal_spsc_publish_n(struct petal_spsc *ring, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t pos = ring->pos++;

		/* [FILL] Release: the message is whole before its stamp. */
		atomic_store_explicit(petal_spsc_stamp(ring, pos), pos + 1,
				      memory_order_release);
	}
	atomic_store_explicit(&ring->shared->tail, ring->pos,
			      memory_order_relaxed);
}

static inline void petal_spsc_publish(struct petal_spsc *ring)
{
	petal_spsc_publish_n(ring, 1);
}

static inline bool petal_spsc_is_ready(const struct petal_spsc *ring,
				       uint64_t pos)
{
	/* [FILL] Acquire: with the stamp comes the message. */
	return atomic_load_explicit(petal_spsc_stamp(ring, pos),
				    memory_order_acquire) == pos + 1;
}

static inline void petal_spsc_store_head(struct petal_spsc *ring)
{
	ring->head_seen = ring->pos;
	/* [DRAIN] Release: we are done with all that is before it. */
	atomic_store_explicit(&ring->shared->head, ring->pos,
			      memory_order_release);
}

/* Empty: now is the time to say how far we are, for nobody waits for us. */
static inline void petal_spsc_idle(struct petal_spsc *ring)
{
	if (ring->head_seen != ring->pos)
		petal_spsc_store_head(ring);
}

static inline uint64_t petal_spsc_peek_n(struct petal_spsc *ring, uint64_t want)
{
	uint64_t count = 0;

	while (count < want && count < ring->slot_count &&
	       petal_spsc_is_ready(ring, ring->pos + count))
		count++;
	if (count == 0)
		petal_spsc_idle(ring);
	return count;
}

static inline const void *petal_spsc_peek(struct petal_spsc *ring)
{
	if (petal_spsc_is_ready(ring, ring->pos))
		return petal_spsc_slot(ring, 0);
	petal_spsc_idle(ring);
	return NULL;
}

static inline void petal_spsc_release_n(struct petal_spsc *ring, uint64_t count)
{
	ring->pos += count;
	if (ring->pos - ring->head_seen >= ring->slot_count / 4)
		petal_spsc_store_head(ring);
}

static inline void petal_spsc_release(struct petal_spsc *ring)
{
	petal_spsc_release_n(ring, 1);
}

static inline uint64_t petal_spsc_backlog(const struct petal_spsc *ring)
{
	/* [DRAIN] Acquire: the tail that we load next is not behind it. */
	uint64_t head =
		atomic_load_explicit(&ring->shared->head, memory_order_acquire);
	uint64_t tail =
		atomic_load_explicit(&ring->shared->tail, memory_order_relaxed);

	/*
	 * A tail that seems behind is one whose producer has stored the stamp
	 * and not yet the tail; one too far ahead moved between the two loads.
	 */
	if ((int64_t)(tail - head) < 0)
		return 0;
	return tail - head < ring->slot_count ? tail - head : ring->slot_count;
}

#endif
