/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_BCAST_PRIVATE_H
#define PETAL_RINGS_BCAST_PRIVATE_H

#include "rings/bcast.h"
#include "shm/cache.h"

/* What the publisher's and the readers' half both need, and nobody else. */

#define PETAL_BCAST_ORDINAL_BITS 48
#define PETAL_BCAST_PLACE_MASK ((UINT64_C(1) << 48) - 1)
#define PETAL_BCAST_CHUNKS 8u
#define PETAL_BCAST_OWNERS 65536u
#define PETAL_BCAST_WORD_EXTERNAL (UINT64_C(1) << 12)

enum petal_bcast_state {
	PETAL_BCAST_FREE = 0,
	PETAL_BCAST_JOINING = 1,
	PETAL_BCAST_ACTIVE = 2,
};

/* A copy in a spill area; "skip" is what is left over at its end. */
struct petal_bcast_copy {
	struct petal_u64 pos;
	struct petal_u64 ordinal;
	struct petal_u32 length;
	struct petal_u32 type;
	struct petal_u32 skip;
	struct petal_u32 crc; /* in a far ring */
};

static_assert(sizeof(struct petal_bcast_copy) == 32, "layout");

static inline uint64_t petal_bcast_word_gen(uint64_t word)
{
	return word >> 32;
}

static inline enum petal_bcast_state petal_bcast_word_state(uint64_t word)
{
	return (enum petal_bcast_state)(word & 0xf);
}

static inline enum petal_bcast_policy petal_bcast_word_policy(uint64_t word)
{
	return (enum petal_bcast_policy)(word >> 4 & 0xf);
}

static inline enum petal_bcast_policy petal_bcast_word_full(uint64_t word)
{
	return (enum petal_bcast_policy)(word >> 8 & 0xf);
}

static inline uint32_t petal_bcast_word_owner(uint64_t word)
{
	return (uint32_t)(word >> 16) & 0xffff;
}

/* Generation and position in one word; what is cut off is the far past. */
static inline uint64_t petal_bcast_place(uint64_t word, uint64_t pos)
{
	return petal_bcast_word_gen(word) << 48 |
	       (pos / PETAL_BCAST_ALIGN & PETAL_BCAST_PLACE_MASK);
}

/*
 * What a reader claims, taken for what it can be at most: its own, and neither
 * before what it claimed last nor behind the newest.
 */
static inline uint64_t petal_bcast_place_pos(uint64_t place, uint64_t word,
					     uint64_t known, uint64_t newest)
{
	uint64_t lag = (newest / PETAL_BCAST_ALIGN - place) &
		       PETAL_BCAST_PLACE_MASK;

	if (place >> 48 != (petal_bcast_word_gen(word) & 0xffff) ||
	    lag > (newest - known) / PETAL_BCAST_ALIGN)
		return known;
	return newest - lag * PETAL_BCAST_ALIGN;
}

/* How many records from b to a; the numbers have 48 bits. */
static inline int64_t petal_bcast_since(uint64_t a, uint64_t b)
{
	return (int64_t)((a - b) << (64 - PETAL_BCAST_ORDINAL_BITS)) >>
	       (64 - PETAL_BCAST_ORDINAL_BITS);
}

static inline uint64_t petal_bcast_ordinal(uint64_t commit)
{
	return commit >> (64 - PETAL_BCAST_ORDINAL_BITS);
}

static inline struct petal_u64 *
petal_bcast_mark_at(const struct petal_bcast_map *map, uint64_t pos)
{
	uint64_t chunk = pos / (map->data_bytes / PETAL_BCAST_CHUNKS);

	return &map->shared->marks[chunk % PETAL_BCAST_MARKS];
}

static inline struct petal_bcast_copy *
petal_bcast_copy_at(const struct petal_bcast_map *map, uint32_t seat,
		    uint64_t pos)
{
	uint8_t *area = map->spill + seat * map->spill_bytes;

	return (struct petal_bcast_copy *)(void *)(area +
						   (pos &
						    (map->spill_bytes - 1)));
}

static inline uint64_t petal_bcast_copy_bytes(uint32_t length)
{
	return ((uint64_t)length + sizeof(struct petal_bcast_copy) +
		PETAL_BCAST_ALIGN - 1) &
	       ~(uint64_t)(PETAL_BCAST_ALIGN - 1);
}

/* Let other hosts see what was stored here. */
static inline void petal_bcast_show(const struct petal_bcast_map *map,
				    const void *address, uint64_t bytes)
{
	if (!petal_bcast_is_far(map))
		return;
	petal_cache_writeback(address, bytes);
	petal_cache_fence();
}

/* Before a look at what another host may have stored here. */
static inline void petal_bcast_refresh(const struct petal_bcast_map *map,
				       const void *address, uint64_t bytes)
{
	if (petal_bcast_is_far(map))
		petal_cache_invalidate(address, bytes);
}

/* Whether a position is behind, by the limit as it is now. */
static inline bool petal_bcast_is_lapped_now(const struct petal_bcast_map *map,
					     uint64_t pos)
{
	petal_bcast_refresh(map, &map->shared->limit,
			    sizeof(map->shared->limit));
	return petal_bcast_is_lapped(map, pos);
}

static inline void petal_bcast_count(const struct petal_bcast_map *map,
				     struct petal_u64 *counter)
{
	petal_add(counter, 1, PETAL_RELAXED);
	petal_bcast_show(map, counter, sizeof(*counter));
}

/**
 * petal_bcast_far_is_whole() - whether the bytes of a record are what they were
 * @commit: as it was loaded, from a line that was refreshed
 * @view: of the record, or the padding
 *
 * Refreshes its other lines.
 */
bool petal_bcast_far_is_whole(const struct petal_bcast_map *map,
			      uint64_t commit,
			      const struct petal_bcast_view *view);

/** petal_bcast_far_copy_crc() - the checksum of a copy in a spill area */
uint32_t petal_bcast_far_copy_crc(const struct petal_bcast_view *copy);

/** petal_bcast_map() - find and check a ring; as petal_bcast_attach() */
int petal_bcast_map(void *memory, uint64_t bytes,
		    struct petal_bcast_map *ret_map);

/**
 * petal_bcast_free() - take a seat from whom the word names
 *
 * Return: whether it was that one's.
 */
bool petal_bcast_free(const struct petal_bcast_map *map, uint32_t seat,
		      uint64_t word);

/**
 * petal_bcast_sit() - take a free seat and set where its reader begins
 * @cursor: NULL for the one in the ring's memory, otherwise not touched
 *
 * Return: as petal_bcast_join().
 */
int petal_bcast_sit(const struct petal_bcast_map *map, bool external,
		    const struct petal_bcast_options *options,
		    struct petal_bcast_ticket *ret_ticket);

#endif
