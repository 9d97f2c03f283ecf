/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/spsc.h"

#include <errno.h>

#include "rings/outcome.h"
#include "rings/spsc_private.h"
#include "shm/cache.h"
#include "shm/error.h"

/*
 * The happy path is in spsc_inl.h. Here is what happens once: making a ring,
 * finding out where a side has to go on, which its predecessor may have left
 * at any instruction, and closing. What non-coherent memory needs besides is in
 * spsc_far.c.
 */

static uint64_t round_up(uint64_t bytes, uint64_t unit)
{
	return (bytes + unit - 1) / unit * unit;
}

/*
 * Within a line, no slot may straddle two. From there to four lines packing
 * saves a line for each message; beyond, what it saves is less than what it
 * costs to fill slots that begin anywhere in a line.
 */
static uint64_t stride_of(const struct petal_spsc_geometry *geometry)
{
	uint64_t needed = geometry->slot_bytes;
	uint64_t stride = 8;

	/* Whole lines, so that each has one writer and one stamp. */
	if (geometry->coherence == PETAL_SEGMENT_NONCOHERENT)
		return round_up(needed + PETAL_SPSC_FAR_STAMP_BYTES,
				PETAL_SPSC_LINE_BYTES);
	if (geometry->kind == PETAL_SPSC_STAMPED)
		needed += PETAL_SPSC_STAMP_BYTES;
	if (needed > 4 * PETAL_SPSC_LINE_BYTES)
		return round_up(needed, PETAL_SPSC_LINE_BYTES);
	if (needed > PETAL_SPSC_LINE_BYTES)
		return round_up(needed, 8);
	while (stride < needed)
		stride *= 2;
	return stride;
}

static bool is_in_range(const struct petal_spsc_geometry *geometry)
{
	uint64_t count = geometry->slot_count;

	return count >= 4 && (count & (count - 1)) == 0 &&
	       geometry->slot_bytes >= 1 &&
	       geometry->slot_bytes <= PETAL_SPSC_SLOT_BYTES_MAX &&
	       (geometry->kind == PETAL_SPSC_STAMPED ||
		geometry->kind == PETAL_SPSC_INDEXED) &&
	       (geometry->coherence == PETAL_SEGMENT_COHERENT ||
		geometry->coherence == PETAL_SEGMENT_NONCOHERENT) &&
	       count <= PETAL_SPSC_BYTES_MAX / stride_of(geometry);
}

uint64_t petal_spsc_bytes(const struct petal_spsc_geometry *geometry)
{
	if (!is_in_range(geometry))
		return 0;
	return sizeof(struct petal_spsc_shared) +
	       round_up(geometry->slot_count * stride_of(geometry),
			PETAL_SPSC_LINE_BYTES);
}

static struct petal_spsc view_of(void *memory, struct petal_spsc_reader *reader,
				 const struct petal_spsc_geometry *geometry)
{
	struct petal_spsc ring = {
		.shared = memory,
		.reader = reader,
		.slots = (uint8_t *)memory + sizeof(struct petal_spsc_shared),
		.slot_count = geometry->slot_count,
		.slot_bytes = geometry->slot_bytes,
		.stride_bytes = stride_of(geometry),
	};

	if (geometry->coherence == PETAL_SEGMENT_NONCOHERENT)
		ring.stamp_bytes = PETAL_SPSC_FAR_STAMP_BYTES;
	else if (geometry->kind == PETAL_SPSC_STAMPED)
		ring.stamp_bytes = PETAL_SPSC_STAMP_BYTES;
	ring.slots_end = ring.slots + ring.slot_count * ring.stride_bytes;
	return ring;
}

static bool is_aligned(const void *memory)
{
	return (uintptr_t)memory % PETAL_SPSC_LINE_BYTES == 0;
}

/* Making. */

static void reader_init(struct petal_spsc_reader *reader, uint64_t start_pos)
{
	petal_store(&reader->head, start_pos, PETAL_RELAXED);
	petal_store(&reader->closed, 0, PETAL_RELAXED);
}

/* As if the lap before had been published: no later position's stamp. */
static void stamps_init(const struct petal_spsc *ring, uint64_t start_pos)
{
	for (uint64_t i = 0; i < ring->slot_count; i++)
		petal_store(petal_spsc_stamp(ring, start_pos + i),
			    start_pos + i + 1 - ring->slot_count,
			    PETAL_RELAXED);
}

int petal_spsc_format(void *memory, const struct petal_spsc_geometry *geometry)
{
	struct petal_spsc_shared *shared = memory;
	struct petal_spsc ring;

	if (!is_in_range(geometry) || !is_aligned(memory))
		return -EINVAL;
	if (geometry->coherence == PETAL_SEGMENT_NONCOHERENT &&
	    petal_cache_check() != 0)
		return -EOPNOTSUPP;

	/* Whatever was here before is no ring until we are done. */
	petal_store(&shared->magic, 0, PETAL_RELAXED);
	ring = view_of(memory, &shared->reader, geometry);
	if (petal_spsc_is_far(&ring))
		petal_spsc_far_show(shared, sizeof(shared->magic));
	petal_store(&shared->layout, PETAL_SPSC_LAYOUT, PETAL_RELAXED);
	petal_store(&shared->slot_bytes, geometry->slot_bytes, PETAL_RELAXED);
	petal_store(&shared->slot_count, geometry->slot_count, PETAL_RELAXED);
	petal_store(&shared->kind, (uint32_t)geometry->kind, PETAL_RELAXED);
	petal_store(&shared->coherence, (uint32_t)geometry->coherence,
		    PETAL_RELAXED);
	petal_store(&shared->closed, 0, PETAL_RELAXED);
	petal_store(&shared->tail, geometry->start_pos, PETAL_RELAXED);
	reader_init(&shared->reader, geometry->start_pos);
	if (ring.stamp_bytes)
		stamps_init(&ring, geometry->start_pos);
	if (petal_spsc_is_far(&ring))
		petal_spsc_far_show(shared, petal_spsc_bytes(geometry));
	/* Who sees the magic sees all of the above. */
	petal_store(&shared->magic, PETAL_SPSC_MAGIC, PETAL_RELEASE(FORMAT));
	if (petal_spsc_is_far(&ring))
		petal_spsc_far_show(shared, sizeof(shared->magic));
	return 0;
}

int petal_spsc_format_cursor(void *cursor, uint64_t start_pos)
{
	struct petal_spsc_cursor *shared = cursor;

	if (!is_aligned(cursor))
		return -EINVAL;
	petal_store(&shared->magic, 0, PETAL_RELAXED);
	petal_store(&shared->layout, PETAL_SPSC_LAYOUT, PETAL_RELAXED);
	reader_init(&shared->reader, start_pos);
	/* Of which memory it is nobody says here: as if it were non-coherent. */
	petal_spsc_far_show(shared, sizeof(*shared));
	/* Who sees the magic sees the position. */
	petal_store(&shared->magic, PETAL_SPSC_CURSOR_MAGIC,
		    PETAL_RELEASE(FORMAT));
	petal_spsc_far_show(shared, sizeof(shared->magic));
	return 0;
}

/* Joining. */

/* Each word of the shape is loaded once; what is checked is the copy. */
static int shape_load(struct petal_spsc_shared *shared, uint64_t bytes,
		      struct petal_spsc_geometry *ret_geometry)
{
	struct petal_spsc_geometry shape = { 0 };
	uint64_t needed;

	/* The shape was stored before the magic. */
	if (petal_load(&shared->magic, PETAL_ACQUIRE(FORMAT)) !=
	    PETAL_SPSC_MAGIC)
		return -EINVAL;
	if (petal_load(&shared->layout, PETAL_RELAXED) != PETAL_SPSC_LAYOUT)
		return -PETAL_EVERSION;
	shape.slot_count = petal_load(&shared->slot_count, PETAL_RELAXED);
	shape.slot_bytes = petal_load(&shared->slot_bytes, PETAL_RELAXED);
	shape.kind =
		(enum petal_spsc_kind)petal_load(&shared->kind, PETAL_RELAXED);
	shape.coherence = (enum petal_segment_coherence)petal_load(
		&shared->coherence, PETAL_RELAXED);
	needed = petal_spsc_bytes(&shape);
	if (needed == 0 || needed > bytes)
		return -PETAL_EGEOMETRY;
	*ret_geometry = shape;
	return 0;
}

/*
 * Non-coherent memory holds no coherent rings, so who finds one has not been
 * deceived by an old line. Whatever else it finds, it looks again.
 */
static int shape_find(struct petal_spsc_shared *shared, uint64_t bytes,
		      struct petal_spsc_geometry *ret_geometry)
{
	struct petal_spsc_geometry shape;
	int err = shape_load(shared, bytes, &shape);

	if (err || shape.coherence == PETAL_SEGMENT_NONCOHERENT) {
		if (petal_cache_check() != 0)
			return err ? err : -EOPNOTSUPP;
		petal_cache_invalidate(shared, sizeof(*shared));
		err = shape_load(shared, bytes, &shape);
	}
	if (!err)
		*ret_geometry = shape;
	return err;
}

/*
 * The producer's predecessor may have died between the stamps, which the
 * consumer follows, and tail. Nothing of the consumer's is asked: where we go
 * on is ours alone.
 */
static uint64_t first_unpublished(const struct petal_spsc *ring)
{
	uint64_t tail = petal_load(&ring->shared->tail, PETAL_RELAXED);
	uint64_t pos = tail;

	if (ring->stamp_bytes)
		while (pos - tail < ring->slot_count &&
		       petal_spsc_is_stamped(ring, pos))
			pos++;
	return pos;
}

/*
 * Were tail left where it is, a series of deaths after the stamp could leave it
 * a whole ring behind, where its stamp is of another lap.
 */
static void resume_producer(struct petal_spsc *ring, uint64_t head)
{
	if (petal_spsc_is_far(ring))
		petal_spsc_far_refresh_slots(ring);
	ring->pos = first_unpublished(ring);
	ring->tail_seen = ring->pos;
	if (ring->pos != petal_load(&ring->shared->tail, PETAL_RELAXED)) {
		petal_store(&ring->shared->tail, ring->pos, PETAL_RELAXED);
		if (petal_spsc_is_far(ring))
			petal_spsc_far_show(&ring->shared->tail,
					    sizeof(ring->shared->tail));
	}
	ring->closed = petal_load(&ring->shared->closed, PETAL_RELAXED) != 0;
	ring->head_seen = head;
	/* Until we see a head that can be, and for good if closed: no room. */
	if (ring->closed || ring->pos - head > ring->slot_count)
		ring->head_seen = ring->pos - ring->slot_count;
}

static void resume_consumer(struct petal_spsc *ring, uint64_t head)
{
	ring->pos = head;
	ring->head_seen = head;
	ring->tail_seen = head;
	petal_pace_init(&ring->pace, head);
	ring->closed = petal_load(&ring->reader->closed, PETAL_RELAXED) != 0;
}

static int resume(struct petal_spsc_shared *shared,
		  struct petal_spsc_reader *reader, uint64_t bytes,
		  enum petal_spsc_role role, struct petal_spsc *ret_ring)
{
	struct petal_spsc_geometry shape;
	struct petal_spsc ring;
	uint64_t head;
	int err = shape_find(shared, bytes, &shape);

	if (err)
		return err;
	ring = view_of(shared, reader, &shape);
	ring.role = role;
	/* In one memory, it was looked at together with the shape. */
	if (petal_spsc_is_far(&ring) && reader != &shared->reader)
		petal_cache_invalidate(reader, sizeof(*reader));
	/* For a producer that never looks again. */
	head = petal_load(&reader->head, PETAL_ACQUIRE(DRAIN));
	if (role == PETAL_SPSC_PRODUCER)
		resume_producer(&ring, head);
	else
		resume_consumer(&ring, head);
	*ret_ring = ring;
	return 0;
}

int petal_spsc_attach(void *memory, uint64_t bytes, enum petal_spsc_role role,
		      struct petal_spsc *ret_ring)
{
	struct petal_spsc_shared *shared = memory;

	if (!is_aligned(memory))
		return -EINVAL;
	if (bytes < sizeof(*shared))
		return -PETAL_EGEOMETRY;
	return resume(shared, &shared->reader, bytes, role, ret_ring);
}

static int cursor_load(struct petal_spsc_cursor *cursor)
{
	/* The position was stored before the magic. */
	if (petal_load(&cursor->magic, PETAL_ACQUIRE(FORMAT)) !=
	    PETAL_SPSC_CURSOR_MAGIC)
		return -EINVAL;
	if (petal_load(&cursor->layout, PETAL_RELAXED) != PETAL_SPSC_LAYOUT)
		return -PETAL_EVERSION;
	return 0;
}

/* What an old line hides is found at the second look, as above. */
static int cursor_check(struct petal_spsc_cursor *cursor, uint64_t bytes)
{
	int err;

	if (!is_aligned(cursor))
		return -EINVAL;
	if (bytes < sizeof(*cursor))
		return -PETAL_EGEOMETRY;
	err = cursor_load(cursor);
	if (err) {
		petal_cache_invalidate(cursor, sizeof(*cursor));
		err = cursor_load(cursor);
	}
	return err;
}

int petal_spsc_attach_apart(void *memory, uint64_t bytes, void *cursor,
			    uint64_t cursor_bytes, enum petal_spsc_role role,
			    struct petal_spsc *ret_ring)
{
	struct petal_spsc_cursor *own = cursor;
	int err = cursor_check(own, cursor_bytes);

	if (err)
		return err;
	if (!is_aligned(memory))
		return -EINVAL;
	if (bytes < sizeof(struct petal_spsc_shared))
		return -PETAL_EGEOMETRY;
	return resume(memory, &own->reader, bytes, role, ret_ring);
}

/* Closing. */

static void show_closed(const struct petal_spsc *ring, struct petal_u64 *closed)
{
	petal_store(closed, 1, PETAL_RELEASE(CLOSE));
	if (petal_spsc_is_far(ring))
		petal_spsc_far_show(closed, sizeof(*closed));
}

static bool is_closed(const struct petal_spsc *ring, struct petal_u64 *closed)
{
	if (petal_spsc_is_far(ring))
		petal_cache_invalidate(closed, sizeof(*closed));
	return petal_load(closed, PETAL_ACQUIRE(CLOSE)) != 0;
}

void petal_spsc_close(struct petal_spsc *ring)
{
	ring->closed = true;
	if (ring->role == PETAL_SPSC_PRODUCER) {
		/* From here on there is no room, and no look finds any. */
		ring->head_seen = ring->pos - ring->slot_count;
		/* The last message is published before. */
		show_closed(ring, &ring->shared->closed);
		return;
	}
	petal_spsc_idle(ring);
	/* Where we stopped is known before. */
	show_closed(ring, &ring->reader->closed);
}

static int claim_outcome(struct petal_spsc *ring)
{
	/* Who reads no more has said where it stopped. */
	if (ring->closed || is_closed(ring, &ring->reader->closed))
		return -EPIPE;
	return petal_spsc_claim_n(ring, 1) ? 0 : -EAGAIN;
}

static int peek_outcome(struct petal_spsc *ring)
{
	/* In this order: what is not there now will never be. */
	bool closed = is_closed(ring, &ring->shared->closed);

	if (petal_spsc_is_ready(ring, 0))
		return PETAL_RING_FOUND;
	if (ring->doubts >= PETAL_SPSC_DOUBTS_MAX)
		return -PETAL_ECORRUPT;
	return closed ? PETAL_RING_CLOSED : PETAL_RING_EMPTY;
}

int petal_spsc_outcome(struct petal_spsc *ring)
{
	return ring->role == PETAL_SPSC_PRODUCER ? claim_outcome(ring)
						 : peek_outcome(ring);
}
