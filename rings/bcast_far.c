/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/bcast_private.h"

#include "shm/crc32c.h"

/*
 * The ring in memory that several machines map without hardware that keeps
 * their caches in step. A record is whole lines, all written by the publisher:
 *
 *    | commit 8 | length 4 | type 4 | payload ... | padding | crc 4 | zero 4 |
 *
 * The happy path: all lines of a batch but the first one, and the free header
 * behind them, are written back, fence; the first commit word is stored, its
 * line written back, fence; then tail. A reader throws its copy of a header's
 * line away and loads the commit word; if it is the right one, it throws away
 * the other lines, compares the checksum, and then looks at the limit, of which
 * it has thrown its copy away as well. The limit is in the memory before
 * anything is written over, so who read a new byte sees a new limit.
 *
 * What may go wrong: a cache writes a line back when nobody asked, even the
 * first line of a batch that is being filled: it still says "free". A cache
 * fetches a line when nobody asked: it is thrown away again before it is
 * believed. Lines that were written back without a fence between them arrive in
 * any order: nothing leads to them yet. Whatever else happens to memory between
 * two machines, the checksum finds; it covers the number, so a record of
 * another lap does not pass.
 */

/* A padding record is its first line, whatever its length says. */
static uint32_t covered(uint64_t commit, const struct petal_bcast_view *view)
{
	return petal_record_state(commit) == PETAL_RECORD_PUBLISHED
		       ? view->length
		       : 0;
}

static uint32_t crc_of(uint64_t commit, const struct petal_bcast_view *view)
{
	const uint64_t head[2] = { commit,
				   view->length | (uint64_t)view->type << 32 };
	uint32_t crc = petal_crc32c(0, head, sizeof(head));

	return petal_crc32c(crc, view->payload, covered(commit, view));
}

static struct petal_u32 *crc_at(void *header, uint64_t bytes)
{
	return (struct petal_u32 *)(void *)((uint8_t *)header + bytes -
					    PETAL_BCAST_FAR_CRC_BYTES);
}

/*
 * Checksum and write-back of one record. The first line of a batch is left to
 * later, for its commit word is.
 */
static void show_record(const struct petal_bcast *ring, uint64_t commit,
			const struct petal_bcast_view *view)
{
	const struct petal_bcast_map *map = &ring->map;
	uint8_t *header = (uint8_t *)petal_bcast_at(map, view->pos);
	uint64_t bytes = petal_bcast_extent(true, covered(commit, view));
	struct petal_u32 *crc = crc_at(header, bytes);

	petal_store(crc, crc_of(commit, view), PETAL_RELAXED);
	petal_store(crc + 1, 0, PETAL_RELAXED);
	if (view->pos == ring->tail) {
		header += PETAL_BCAST_FAR_ALIGN;
		bytes -= PETAL_BCAST_FAR_ALIGN;
	}
	petal_cache_writeback(header, bytes);
}

/* If somebody has spoilt a length, no reader finds what follows whole. */
static void show_batch(const struct petal_bcast *ring)
{
	const struct petal_bcast_map *map = &ring->map;
	uint64_t pos = ring->tail;

	while (pos < ring->claimed) {
		uint64_t commit =
			pos == ring->tail
				? ring->first
				: petal_load(&petal_bcast_at(map, pos)->commit,
					     PETAL_RELAXED);
		struct petal_bcast_view view;

		if (!petal_bcast_see(map, true, pos,
				     petal_bcast_ordinal(commit), &view) ||
		    view.end > ring->claimed)
			break;
		show_record(ring, commit, &view);
		pos = view.end;
	}
	petal_cache_writeback(petal_bcast_at(map, ring->claimed),
			      PETAL_RECORD_HEADER_BYTES);
	petal_cache_fence();
}

int petal_bcast_far_claim(struct petal_bcast *ring, uint32_t length,
			  uint32_t type, void **ret_payload)
{
	return petal_bcast_claim_as(ring, true, length, type, ret_payload);
}

void petal_bcast_far_publish(struct petal_bcast *ring)
{
	const struct petal_bcast_map *map = &ring->map;

	show_batch(ring);
	petal_bcast_reveal(ring);
	petal_cache_writeback(petal_bcast_at(map, ring->tail),
			      PETAL_BCAST_FAR_ALIGN);
	petal_cache_fence();
	petal_bcast_advance(ring);
	petal_cache_writeback(&map->shared->tail, sizeof(map->shared->tail));
	petal_cache_fence();
}

bool petal_bcast_far_is_whole(const struct petal_bcast_map *map,
			      uint64_t commit,
			      const struct petal_bcast_view *view)
{
	uint8_t *header = (uint8_t *)petal_bcast_at(map, view->pos);
	uint64_t bytes = petal_bcast_extent(true, covered(commit, view));

	petal_cache_invalidate(header + PETAL_BCAST_FAR_ALIGN,
			       bytes - PETAL_BCAST_FAR_ALIGN);
	return petal_load(crc_at(header, bytes), PETAL_RELAXED) ==
	       crc_of(commit, view);
}

uint32_t petal_bcast_far_copy_crc(const struct petal_bcast_view *copy)
{
	const uint64_t head[3] = { copy->pos, copy->ordinal,
				   copy->length | (uint64_t)copy->type << 32 };
	uint32_t crc = petal_crc32c(0, head, sizeof(head));

	return petal_crc32c(crc, copy->payload, copy->length);
}

void petal_bcast_far_refresh_tail(const struct petal_bcast_map *map)
{
	petal_cache_invalidate(&map->shared->tail, sizeof(map->shared->tail));
}
