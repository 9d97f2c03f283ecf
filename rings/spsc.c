/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/spsc.h"

#include <errno.h>

#include "shm/error.h"

/*
 * The happy path is in spsc_inl.h. Here is what happens once: making a ring,
 * and finding out where a side has to go on, which its predecessor may have
 * left at any instruction.
 */

static uint64_t stride_of(uint32_t slot_bytes)
{
	return ((uint64_t)slot_bytes + PETAL_SPSC_STAMP_BYTES +
		PETAL_SPSC_LINE_BYTES - 1) &
	       ~(uint64_t)(PETAL_SPSC_LINE_BYTES - 1);
}

uint64_t petal_spsc_bytes(const struct petal_spsc_geometry *geometry)
{
	uint64_t count = geometry->slot_count;
	uint64_t stride = stride_of(geometry->slot_bytes);

	if (count < 4 || (count & (count - 1)) != 0 ||
	    geometry->slot_bytes < 1 ||
	    geometry->slot_bytes > PETAL_SPSC_SLOT_BYTES_MAX ||
	    count > PETAL_SPSC_BYTES_MAX / stride)
		return 0;
	return sizeof(struct petal_spsc_shared) + count * stride;
}

static struct petal_spsc view_of(void *memory,
				 const struct petal_spsc_geometry *geometry)
{
	return (struct petal_spsc){
		.shared = memory,
		.slots = (uint8_t *)memory + sizeof(struct petal_spsc_shared),
		.slot_count = geometry->slot_count,
		.slot_bytes = geometry->slot_bytes,
		.stride_bytes = stride_of(geometry->slot_bytes),
	};
}

int petal_spsc_format(void *memory, const struct petal_spsc_geometry *geometry)
{
	struct petal_spsc_shared *shared = memory;
	struct petal_spsc ring;

	if (petal_spsc_bytes(geometry) == 0 ||
	    (uintptr_t)memory % PETAL_SPSC_LINE_BYTES != 0)
		return -EINVAL;

	/* Whatever was here before is no ring until we are done. */
	atomic_store_explicit(&shared->magic, 0, memory_order_relaxed);
	shared->layout = PETAL_SPSC_LAYOUT;
	shared->slot_bytes = geometry->slot_bytes;
	shared->slot_count = geometry->slot_count;
	atomic_init(&shared->tail, geometry->start_pos);
	atomic_init(&shared->head, geometry->start_pos);
	ring = view_of(memory, geometry);
	for (uint64_t i = 0; i < geometry->slot_count; i++) {
		uint64_t pos = geometry->start_pos + i;

		/* No position of this slot has this stamp. */
		atomic_init(petal_spsc_stamp(&ring, pos), pos);
	}
	/* [FORMAT] Release: who sees the magic sees all of the above. */
	atomic_store_explicit(&shared->magic, PETAL_SPSC_MAGIC,
			      memory_order_release);
	return 0;
}

/* Each word of the shape is loaded once; what is checked is the copy. */
static int shape_load(struct petal_spsc_shared *shared, uint64_t bytes,
		      struct petal_spsc_geometry *ret_geometry)
{
	struct petal_spsc_geometry shape;
	uint64_t needed;

	/* [FORMAT] Acquire: the shape was stored before the magic. */
	if (atomic_load_explicit(&shared->magic, memory_order_acquire) !=
	    PETAL_SPSC_MAGIC)
		return -EINVAL;
	if (__atomic_load_n(&shared->layout, __ATOMIC_RELAXED) !=
	    PETAL_SPSC_LAYOUT)
		return -PETAL_EVERSION;
	shape = (struct petal_spsc_geometry){
		.slot_count =
			__atomic_load_n(&shared->slot_count, __ATOMIC_RELAXED),
		.slot_bytes =
			__atomic_load_n(&shared->slot_bytes, __ATOMIC_RELAXED),
	};
	needed = petal_spsc_bytes(&shape);
	if (needed == 0 || needed > bytes)
		return -PETAL_EGEOMETRY;
	*ret_geometry = shape;
	return 0;
}

/*
 * The first position without its stamp. Not tail: our predecessor may have
 * died between the stamp, which the consumer follows, and the tail.
 */
static uint64_t first_unpublished(const struct petal_spsc *ring, uint64_t head)
{
	uint64_t pos = head;

	while (pos - head < ring->slot_count && petal_spsc_is_ready(ring, pos))
		pos++;
	return pos;
}

int petal_spsc_attach(void *memory, uint64_t bytes, enum petal_spsc_role role,
		      struct petal_spsc *ret_ring)
{
	struct petal_spsc_geometry shape;
	struct petal_spsc ring;
	int err;

	if ((uintptr_t)memory % PETAL_SPSC_LINE_BYTES != 0)
		return -EINVAL;
	if (bytes < sizeof(struct petal_spsc_shared))
		return -PETAL_EGEOMETRY;
	err = shape_load(memory, bytes, &shape);
	if (err)
		return err;

	ring = view_of(memory, &shape);
	/* [DRAIN] Acquire: for a producer that never looks again. */
	ring.head_seen =
		atomic_load_explicit(&ring.shared->head, memory_order_acquire);
	ring.pos = ring.head_seen;
	if (role == PETAL_SPSC_PRODUCER)
		ring.pos = first_unpublished(&ring, ring.head_seen);
	*ret_ring = ring;
	return 0;
}
