/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/spsc_private.h"

#include "shm/cache.h"
#include "shm/crc32c.h"

/*
 * The ring in memory that several machines map without hardware that keeps
 * their caches in step. A slot is whole lines, all written by the producer:
 *
 *    | stamp 8 | crc 4 | zero 4 | slot_bytes of the caller's | padding |
 *
 * The happy path: the lines behind the first are written back, fence; checksum
 * and stamp are stored into the first one, which is written back, fence. The
 * consumer throws its copy of the first line away, and loads the stamp; if it
 * is the right one, it throws away the other lines, and compares the checksum.
 * head goes the other way likewise.
 *
 * What may go wrong: a cache writes a line back when nobody asked, even the
 * first line of a message that is being filled: its stamp is still the old one.
 * A cache fetches a line when nobody asked: it is thrown away again before it is
 * believed. Lines that were written back without a fence between them arrive in
 * any order: so nothing is taken before all that precedes it, and the stamps of
 * a bulk need no order. Whatever else happens to memory between two machines,
 * the checksum finds; it covers the stamp, so a message of another lap does not
 * pass.
 */

struct far_slot {
	struct petal_u64 stamp;
	struct petal_u32 crc;
	struct petal_u32 zero;
};

static_assert(sizeof(struct far_slot) == PETAL_SPSC_FAR_STAMP_BYTES, "layout");

static struct far_slot *far_at(const struct petal_spsc *ring, uint64_t pos)
{
	return (struct far_slot *)(void *)petal_spsc_place(ring, pos);
}

static uint32_t crc_of(const struct petal_spsc *ring,
		       const struct far_slot *slot, uint64_t stamp)
{
	uint32_t crc = petal_crc32c(0, &stamp, sizeof(stamp));

	return petal_crc32c(crc, slot + 1, ring->slot_bytes);
}

/* Bytes that do not lie in the first line. */
static uint64_t rest_bytes(const struct petal_spsc *ring)
{
	return ring->stride_bytes - PETAL_SPSC_LINE_BYTES;
}

static const uint8_t *rest_of(const struct far_slot *slot)
{
	return (const uint8_t *)slot + PETAL_SPSC_LINE_BYTES;
}

void petal_spsc_far_show(const void *address, uint64_t bytes)
{
	petal_cache_writeback(address, bytes);
	petal_cache_fence();
}

/* The producer. */

static void show_payloads(const struct petal_spsc *ring, uint64_t pos,
			  uint64_t count)
{
	if (rest_bytes(ring) == 0)
		return;
	for (uint64_t i = 0; i < count; i++)
		petal_cache_writeback(rest_of(far_at(ring, pos + i)),
				      rest_bytes(ring));
	petal_cache_fence();
}

static void show_stamps(const struct petal_spsc *ring, uint64_t pos,
			uint64_t count)
{
	for (uint64_t end = pos + count; pos != end; pos++) {
		struct far_slot *slot = far_at(ring, pos);

		petal_store(&slot->crc, crc_of(ring, slot, pos + 1),
			    PETAL_RELAXED);
		petal_store(&slot->zero, 0, PETAL_RELAXED);
		/* The line is whole before its stamp. */
		petal_store(&slot->stamp, pos + 1, PETAL_RELEASE(FILL));
		petal_cache_writeback(slot, PETAL_SPSC_LINE_BYTES);
	}
	petal_cache_fence();
}

/*
 * A successor looks for stamps from tail on, less than a ring far; so tail is
 * shown every quarter, of what has been shown already.
 */
static void show_tail(struct petal_spsc *ring, uint64_t tail)
{
	if (tail - ring->tail_seen < ring->slot_count / 4)
		return;
	ring->tail_seen = tail;
	petal_store(&ring->shared->tail, tail, PETAL_RELAXED);
	petal_spsc_far_show(&ring->shared->tail, sizeof(ring->shared->tail));
}

void petal_spsc_far_publish_n(struct petal_spsc *ring, uint64_t count)
{
	uint64_t pos = ring->pos;

	while (count > 0) {
		uint64_t part = ring->slot_count / 4;

		part = part < count ? part : count;
		show_payloads(ring, pos, part);
		show_stamps(ring, pos, part);
		pos += part;
		show_tail(ring, pos);
		count -= part;
	}
}

void petal_spsc_far_refresh_head(const struct petal_spsc *ring)
{
	petal_cache_invalidate(&ring->reader->head, sizeof(ring->reader->head));
}

void petal_spsc_far_refresh_slots(const struct petal_spsc *ring)
{
	petal_cache_invalidate(ring->slots,
			       (uint64_t)(ring->slots_end - ring->slots));
}

/* The consumer. */

void petal_spsc_far_show_head(const struct petal_spsc *ring)
{
	petal_spsc_far_show(&ring->reader->head, sizeof(ring->reader->head));
}

/* Ready, or not yet; what cannot be "not yet" is counted as a doubt. */
static bool is_whole(struct petal_spsc *ring, uint64_t pos)
{
	struct far_slot *slot = far_at(ring, pos);
	uint64_t stamp;

	petal_cache_invalidate(slot, PETAL_SPSC_LINE_BYTES);
	/* With the stamp comes the first line. */
	stamp = petal_load(&slot->stamp, PETAL_ACQUIRE(FILL));
	if (stamp == pos + 1 - ring->slot_count)
		return false;
	if (stamp == pos + 1) {
		petal_cache_invalidate(rest_of(slot), rest_bytes(ring));
		if (petal_load(&slot->crc, PETAL_RELAXED) ==
		    crc_of(ring, slot, stamp)) {
			ring->doubts = 0;
			return true;
		}
	}
	if (ring->doubts < PETAL_SPSC_DOUBTS_MAX)
		ring->doubts++;
	return false;
}

uint64_t petal_spsc_far_known(struct petal_spsc *ring, uint64_t index)
{
	while (ring->tail_seen - ring->pos <= index &&
	       is_whole(ring, ring->tail_seen))
		ring->tail_seen++;
	return ring->tail_seen - ring->pos;
}

/* Anybody. */

void petal_spsc_far_refresh_gauges(const struct petal_spsc *ring)
{
	petal_cache_invalidate(&ring->reader->head, sizeof(ring->reader->head));
	petal_cache_invalidate(&ring->shared->tail, sizeof(ring->shared->tail));
}
