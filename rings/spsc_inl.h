/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_SPSC_INL_H
#define PETAL_RINGS_SPSC_INL_H

/* "PETALSPS" and "PETALSPC" in memory. */
#define PETAL_SPSC_MAGIC UINT64_C(0x5350534c41544550)
#define PETAL_SPSC_CURSOR_MAGIC UINT64_C(0x4350534c41544550)
#define PETAL_SPSC_LAYOUT 3u
#define PETAL_SPSC_LINE_BYTES 64u
#define PETAL_SPSC_STAMP_BYTES 8u
#define PETAL_SPSC_FAR_STAMP_BYTES 16u /* with the checksum */

/* What the consumer writes. */
struct petal_spsc_reader {
	struct petal_u64 head;
	uint8_t reserved0[56];
	struct petal_u64 closed; /* nobody will read any more */
	uint8_t reserved1[56];
};

/* Two lines apart, for the processor fetches them in pairs. */
struct petal_spsc_shared {
	struct petal_u64 magic; /* last at format, so that half is nothing */
	struct petal_u32 layout;
	struct petal_u32 slot_bytes;
	struct petal_u64 slot_count;
	struct petal_u32 kind;
	struct petal_u32 coherence;
	uint8_t reserved0[32];
	struct petal_u64 closed; /* nothing will come any more */
	uint8_t reserved1[56];

	struct petal_u64 tail;
	uint8_t reserved2[120];

	struct petal_spsc_reader reader; /* unless the cursor is apart */
};

/* The consumer's memory, where it has one of its own. */
struct petal_spsc_cursor {
	struct petal_u64 magic;
	struct petal_u32 layout;
	uint8_t reserved[116];
	struct petal_spsc_reader reader;
};

static_assert(offsetof(struct petal_spsc_shared, layout) == 8, "layout");
static_assert(offsetof(struct petal_spsc_shared, slot_bytes) == 12, "layout");
static_assert(offsetof(struct petal_spsc_shared, slot_count) == 16, "layout");
static_assert(offsetof(struct petal_spsc_shared, kind) == 24, "layout");
static_assert(offsetof(struct petal_spsc_shared, coherence) == 28, "layout");
static_assert(offsetof(struct petal_spsc_shared, closed) == 64, "layout");
static_assert(offsetof(struct petal_spsc_shared, tail) == 128, "layout");
static_assert(offsetof(struct petal_spsc_shared, reader) == 256, "layout");
static_assert(sizeof(struct petal_spsc_shared) == 384, "layout");
static_assert(offsetof(struct petal_spsc_reader, closed) == 64, "layout");
static_assert(sizeof(struct petal_spsc_reader) == 128, "layout");
static_assert(offsetof(struct petal_spsc_cursor, layout) == 8, "layout");
static_assert(offsetof(struct petal_spsc_cursor, reader) == 128, "layout");
static_assert(sizeof(struct petal_spsc_cursor) == PETAL_SPSC_CURSOR_BYTES,
	      "layout");

/* Slots. */

static inline uint8_t *petal_spsc_place(const struct petal_spsc *ring,
					uint64_t pos)
{
	uint64_t index = pos & (ring->slot_count - 1);

	return ring->slots + index * ring->stride_bytes;
}

static inline struct petal_u64 *petal_spsc_stamp(const struct petal_spsc *ring,
						 uint64_t pos)
{
	return (struct petal_u64 *)(void *)petal_spsc_place(ring, pos);
}

static inline void *petal_spsc_slot(const struct petal_spsc *ring,
				    uint64_t index)
{
	return petal_spsc_place(ring, ring->pos + index) + ring->stamp_bytes;
}

static inline void *petal_spsc_slot_after(const struct petal_spsc *ring,
					  void *slot)
{
	uint8_t *next = (uint8_t *)slot + ring->stride_bytes;

	if (next < ring->slots_end)
		return next;
	return ring->slots + ring->stamp_bytes;
}

/*
 * Non-coherent memory: what is done instead, in spsc_far.c. Every look costs
 * hundreds of instructions there, so that the branch may be laid out for the
 * other kinds.
 */

static inline bool petal_spsc_is_far(const struct petal_spsc *ring)
{
	return __builtin_expect(ring->stamp_bytes == PETAL_SPSC_FAR_STAMP_BYTES,
				0);
}

__attribute__((cold)) void petal_spsc_far_publish_n(struct petal_spsc *ring,
						    uint64_t count);

/* How many are there, whole, from the next on; checks up to @index. */
__attribute__((cold)) uint64_t petal_spsc_far_known(struct petal_spsc *ring,
						    uint64_t index);

/* Before a look at head. */
__attribute__((cold)) void
petal_spsc_far_refresh_head(const struct petal_spsc *ring);

/* After head was stored. */
__attribute__((cold)) void
petal_spsc_far_show_head(const struct petal_spsc *ring);

/* Before an observer's look at head and tail. */
__attribute__((cold)) void
petal_spsc_far_refresh_gauges(const struct petal_spsc *ring);

/* The producer. */

/* How many slots it may fill, as far as it knows. */
static inline uint64_t petal_spsc_room(const struct petal_spsc *ring)
{
	return ring->slot_count - (ring->pos - ring->head_seen);
}

/* A consumer that lies about head costs messages, never other memory. */
static inline void petal_spsc_look(struct petal_spsc *ring)
{
	uint64_t head;

	if (petal_spsc_is_far(ring))
		petal_spsc_far_refresh_head(ring);
	/*
	 * Its reads of the slots that we are about to hand out happened before
	 * the head that we now see.
	 */
	head = petal_load(&ring->reader->head, PETAL_ACQUIRE(DRAIN));
	if (ring->pos - head <= ring->slot_count && !ring->closed)
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

/* Locals, since a store to shared memory makes a compiler load ring again. */
static inline void petal_spsc_stamp_n(const struct petal_spsc *ring,
				      uint64_t count)
{
	uint64_t stride_bytes = ring->stride_bytes;
	uint8_t *start = ring->slots;
	uint8_t *end = ring->slots_end;
	uint64_t pos = ring->pos;
	uint8_t *at = petal_spsc_place(ring, pos);

	for (uint64_t last = pos + count; pos != last; pos++) {
		/* The message is whole before its stamp. */
		petal_store((struct petal_u64 *)(void *)at, pos + 1,
			    PETAL_RELEASE(FILL));
		at += stride_bytes;
		at = at < end ? at : start;
	}
}

static inline void petal_spsc_publish_n(struct petal_spsc *ring, uint64_t count)
{
	uint64_t tail = ring->pos + count;

	if (ring->stamp_bytes == PETAL_SPSC_STAMP_BYTES) {
		petal_spsc_stamp_n(ring, count);
		petal_store(&ring->shared->tail, tail, PETAL_RELAXED);
	} else if (petal_spsc_is_far(ring)) {
		petal_spsc_far_publish_n(ring, count);
	} else {
		/* All messages are whole before tail. */
		petal_store(&ring->shared->tail, tail, PETAL_RELEASE(SHOW));
	}
	ring->pos = tail;
}

static inline void petal_spsc_publish(struct petal_spsc *ring)
{
	uint64_t tail = ring->pos + 1;

	if (ring->stamp_bytes != PETAL_SPSC_STAMP_BYTES) {
		petal_spsc_publish_n(ring, 1);
		return;
	}
	/* The message is whole before its stamp. */
	petal_store(petal_spsc_stamp(ring, ring->pos), tail,
		    PETAL_RELEASE(FILL));
	petal_store(&ring->shared->tail, tail, PETAL_RELAXED);
	ring->pos = tail;
}

/* The consumer. */

static inline void petal_spsc_store_head(struct petal_spsc *ring)
{
	ring->head_seen = ring->pos;
	/* We are done with all that is before it. */
	petal_store(&ring->reader->head, ring->pos, PETAL_RELEASE(DRAIN));
	if (petal_spsc_is_far(ring))
		petal_spsc_far_show_head(ring);
}

/* Empty: now is the time to say how far we are, for nobody waits for us. */
static inline void petal_spsc_idle(struct petal_spsc *ring)
{
	if (ring->head_seen != ring->pos)
		petal_spsc_store_head(ring);
}

/* A producer that lies about tail shows us old messages, or none. */
static inline uint64_t petal_spsc_known(struct petal_spsc *ring, uint64_t index)
{
	uint64_t tail;

	if (ring->tail_seen - ring->pos > index)
		return ring->tail_seen - ring->pos;
	if (petal_spsc_is_far(ring))
		return petal_spsc_far_known(ring, index);
	/* With tail come the messages before it. */
	tail = petal_load(&ring->shared->tail, PETAL_ACQUIRE(SHOW));
	if (tail - ring->pos <= ring->slot_count)
		ring->tail_seen = tail;
	return ring->tail_seen - ring->pos;
}

static inline bool petal_spsc_is_stamped(const struct petal_spsc *ring,
					 uint64_t pos)
{
	/* With the stamp comes the message. */
	return petal_load(petal_spsc_stamp(ring, pos), PETAL_ACQUIRE(FILL)) ==
	       pos + 1;
}

static inline bool petal_spsc_is_ready(struct petal_spsc *ring, uint64_t index)
{
	if (ring->stamp_bytes == PETAL_SPSC_STAMP_BYTES)
		return petal_spsc_is_stamped(ring, ring->pos + index);
	return petal_spsc_known(ring, index) > index;
}

/* The first is there. Stamps come in order, so one speaks for all before it. */
static inline uint64_t petal_spsc_stamped_n(const struct petal_spsc *ring,
					    uint64_t want)
{
	uint64_t ready = 1;

	if (petal_spsc_is_stamped(ring, ring->pos + want - 1))
		return want;
	while (want - ready > 1) {
		uint64_t middle = ready + (want - ready) / 2;

		if (petal_spsc_is_stamped(ring, ring->pos + middle - 1))
			ready = middle;
		else
			want = middle;
	}
	return ready;
}

static inline uint64_t petal_spsc_peek_n(struct petal_spsc *ring, uint64_t want)
{
	if (want > ring->slot_count)
		want = ring->slot_count;
	if (want == 0)
		return 0;
	if (!petal_spsc_is_ready(ring, 0)) {
		petal_spsc_idle(ring);
		if (!petal_pace_missed(&ring->pace, ring->pos) ||
		    !petal_spsc_is_ready(ring, 0))
			return 0;
	}
	if (ring->stamp_bytes == PETAL_SPSC_STAMP_BYTES)
		return petal_spsc_stamped_n(ring, want);
	if (petal_spsc_is_far(ring))
		petal_spsc_far_known(ring, want - 1);
	if (want > ring->tail_seen - ring->pos)
		want = ring->tail_seen - ring->pos;
	return want;
}

/*
 * A stamped message in two lines comes faster if both are asked for at once.
 * The lines of an indexed one are left to their producer until tail says more.
 */
static inline void petal_spsc_await(const struct petal_spsc *ring,
				    uint64_t index)
{
	if (ring->stamp_bytes == PETAL_SPSC_STAMP_BYTES &&
	    ring->stride_bytes > PETAL_SPSC_LINE_BYTES)
		__builtin_prefetch(petal_spsc_place(ring, ring->pos + index) +
				   PETAL_SPSC_LINE_BYTES);
}

static inline const void *petal_spsc_peek_at(struct petal_spsc *ring,
					     uint64_t index)
{
	if (index < ring->slot_count && petal_spsc_is_ready(ring, index))
		return petal_spsc_slot(ring, index);
	petal_spsc_await(ring, index);
	petal_spsc_idle(ring);
	if (index < ring->slot_count &&
	    petal_pace_missed(&ring->pace, ring->pos + index) &&
	    petal_spsc_is_ready(ring, index))
		return petal_spsc_slot(ring, index);
	return NULL;
}

static inline const void *petal_spsc_peek(struct petal_spsc *ring)
{
	return petal_spsc_peek_at(ring, 0);
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

/* Anybody. */

static inline uint64_t petal_spsc_backlog(const struct petal_spsc *ring)
{
	uint64_t head;
	uint64_t tail;

	if (petal_spsc_is_far(ring))
		petal_spsc_far_refresh_gauges(ring);
	/* The tail that we load next is not behind it. */
	head = petal_load(&ring->reader->head, PETAL_ACQUIRE(DRAIN));
	tail = petal_load(&ring->shared->tail, PETAL_RELAXED);
	/*
	 * A tail that seems behind is one whose producer has stored the stamp
	 * and not yet the tail; one too far ahead moved between the two loads.
	 */
	if ((int64_t)(tail - head) < 0)
		return 0;
	return tail - head < ring->slot_count ? tail - head : ring->slot_count;
}

#endif
