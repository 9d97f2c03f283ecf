/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/spsc.h"

#include <errno.h>

#include "rings/outcome.h"
#include "shm/error.h"

/*
 * The happy path is in spsc_inl.h. Here is what happens once: making a ring,
 * finding out where a side has to go on, which its predecessor may have left
 * at any instruction, and closing.
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

	if (geometry->kind == PETAL_SPSC_STAMPED)
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

/* No position of a slot has the stamp that it gets here. */
static void stamps_init(const struct petal_spsc *ring, uint64_t start_pos)
{
	for (uint64_t i = 0; i < ring->slot_count; i++)
		petal_store(petal_spsc_stamp(ring, start_pos + i),
			    start_pos + i, PETAL_RELAXED);
}

int petal_spsc_format(void *memory, const struct petal_spsc_geometry *geometry)
{
	struct petal_spsc_shared *shared = memory;
	struct petal_spsc ring;

	if (!is_in_range(geometry) || !is_aligned(memory))
		return -EINVAL;

	/* Whatever was here before is no ring until we are done. */
	petal_store(&shared->magic, 0, PETAL_RELAXED);
	petal_store(&shared->layout, PETAL_SPSC_LAYOUT, PETAL_RELAXED);
	petal_store(&shared->slot_bytes, geometry->slot_bytes, PETAL_RELAXED);
	petal_store(&shared->slot_count, geometry->slot_count, PETAL_RELAXED);
	petal_store(&shared->kind, (uint32_t)geometry->kind, PETAL_RELAXED);
	petal_store(&shared->closed, 0, PETAL_RELAXED);
	petal_store(&shared->tail, geometry->start_pos, PETAL_RELAXED);
	reader_init(&shared->reader, geometry->start_pos);
	ring = view_of(memory, &shared->reader, geometry);
	if (ring.stamp_bytes)
		stamps_init(&ring, geometry->start_pos);
	/* Who sees the magic sees all of the above. */
	petal_store(&shared->magic, PETAL_SPSC_MAGIC, PETAL_RELEASE(FORMAT));
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
	/* Who sees the magic sees the position. */
	petal_store(&shared->magic, PETAL_SPSC_CURSOR_MAGIC,
		    PETAL_RELEASE(FORMAT));
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
	needed = petal_spsc_bytes(&shape);
	if (needed == 0 || needed > bytes)
		return -PETAL_EGEOMETRY;
	*ret_geometry = shape;
	return 0;
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

static void resume_producer(struct petal_spsc *ring, uint64_t head)
{
	ring->pos = first_unpublished(ring);
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
	ring->closed = petal_load(&ring->reader->closed, PETAL_RELAXED) != 0;
}

static int resume(struct petal_spsc_shared *shared,
		  struct petal_spsc_reader *reader, uint64_t bytes,
		  enum petal_spsc_role role, struct petal_spsc *ret_ring)
{
	struct petal_spsc_geometry shape;
	struct petal_spsc ring;
	uint64_t head;
	int err = shape_load(shared, bytes, &shape);

	if (err)
		return err;
	ring = view_of(shared, reader, &shape);
	ring.role = role;
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

static int cursor_check(struct petal_spsc_cursor *cursor, uint64_t bytes)
{
	if (!is_aligned(cursor))
		return -EINVAL;
	if (bytes < sizeof(*cursor))
		return -PETAL_EGEOMETRY;
	/* The position was stored before the magic. */
	if (petal_load(&cursor->magic, PETAL_ACQUIRE(FORMAT)) !=
	    PETAL_SPSC_CURSOR_MAGIC)
		return -EINVAL;
	if (petal_load(&cursor->layout, PETAL_RELAXED) != PETAL_SPSC_LAYOUT)
		return -PETAL_EVERSION;
	return 0;
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

void petal_spsc_close(struct petal_spsc *ring)
{
	ring->closed = true;
	if (ring->role == PETAL_SPSC_PRODUCER) {
		/* From here on there is no room, and no look finds any. */
		ring->head_seen = ring->pos - ring->slot_count;
		/* The last message is published before. */
		petal_store(&ring->shared->closed, 1, PETAL_RELEASE(CLOSE));
		return;
	}
	petal_spsc_idle(ring);
	/* Where we stopped is known before. */
	petal_store(&ring->reader->closed, 1, PETAL_RELEASE(CLOSE));
}

static int claim_outcome(struct petal_spsc *ring)
{
	/* Who reads no more has said where it stopped. */
	if (ring->closed ||
	    petal_load(&ring->reader->closed, PETAL_ACQUIRE(CLOSE)) != 0)
		return -EPIPE;
	return petal_spsc_claim_n(ring, 1) ? 0 : -EAGAIN;
}

static int peek_outcome(struct petal_spsc *ring)
{
	/* In this order: what is not there now will never be. */
	uint64_t closed =
		petal_load(&ring->shared->closed, PETAL_ACQUIRE(CLOSE));

	if (petal_spsc_is_ready(ring, 0))
		return PETAL_RING_FOUND;
	return closed ? PETAL_RING_CLOSED : PETAL_RING_EMPTY;
}

int petal_spsc_outcome(struct petal_spsc *ring)
{
	return ring->role == PETAL_SPSC_PRODUCER ? claim_outcome(ring)
						 : peek_outcome(ring);
}
