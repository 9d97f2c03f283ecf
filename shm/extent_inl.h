/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_EXTENT_INL_H
#define PETAL_SHM_EXTENT_INL_H

#include <errno.h>

#define PETAL_EXTENT_STATE_SHIFT 20u
#define PETAL_EXTENT_GENERATION_SHIFT 24u
#define PETAL_EXTENT_TRIES 1000u

static inline uint64_t petal_extent_word(uint64_t generation,
					 enum petal_extent_state state)
{
	return generation << PETAL_EXTENT_GENERATION_SHIFT |
	       (uint64_t)state << PETAL_EXTENT_STATE_SHIFT;
}

static inline uint64_t petal_extent_generation_of(uint64_t word)
{
	return word >> PETAL_EXTENT_GENERATION_SHIFT;
}

static inline unsigned petal_extent_state_of(uint64_t word)
{
	return (unsigned)(word >> PETAL_EXTENT_STATE_SHIFT & 0xf);
}

static inline uint32_t petal_extent_pins_of(uint64_t word)
{
	return (uint32_t)(word & PETAL_EXTENT_PINS_MAX);
}

static inline int petal_extent_check_body(const struct petal_extents *extents,
					  uint64_t offset, uint64_t bytes,
					  uint64_t generation)
{
	if (offset < extents->header_bytes ||
	    bytes > extents->fixed_bytes - offset)
		return -ERANGE;
	return generation == 0 ? 0 : -ESTALE;
}

static inline int petal_extent_check(const struct petal_extents *extents,
				     uint64_t offset, uint64_t bytes,
				     uint64_t generation)
{
	uint64_t index, last;
	int outcome = 0;

	if (bytes == 0 || offset >= extents->total_bytes ||
	    bytes > extents->total_bytes - offset)
		return -ERANGE;
	if (offset < extents->fixed_bytes)
		return petal_extent_check_body(extents, offset, bytes,
					       generation);
	index = (offset - extents->fixed_bytes) >> extents->extent_shift;
	last = (offset - extents->fixed_bytes + bytes - 1) >>
	       extents->extent_shift;
	for (; index <= last; index++) {
		/* [LIVE] Pairs with the last stores of add. */
		uint64_t word =
			petal_load(&extents->word[index], PETAL_ACQUIRE(LIVE));

		if (petal_extent_generation_of(word) != generation)
			return -ESTALE;
		if (petal_extent_state_of(word) == PETAL_EXTENT_RETIRING)
			outcome = PETAL_EXTENT_LEAVING;
		else if (petal_extent_state_of(word) != PETAL_EXTENT_LIVE)
			return -ESTALE;
	}
	return outcome;
}

/* Which word counts the pins at @offset; NULL in the body, which has none. */
static inline int petal_extent_find(const struct petal_extents *extents,
				    uint64_t offset, uint64_t generation,
				    struct petal_u64 **ret_word)
{
	if (offset < extents->header_bytes || offset >= extents->total_bytes)
		return -ERANGE;
	if ((generation == 0) != (offset < extents->fixed_bytes))
		return -ESTALE;
	if (!extents->segment.writable)
		return -EROFS;
	*ret_word = NULL;
	if (generation != 0)
		*ret_word = &extents->word[(offset - extents->fixed_bytes) >>
					   extents->extent_shift];
	return 0;
}

static inline int petal_extent_pin(struct petal_extents *extents,
				   uint64_t offset, uint64_t generation)
{
	struct petal_u64 *word;
	uint64_t seen;
	int outcome = petal_extent_find(extents, offset, generation, &word);

	if (outcome || !word)
		return outcome;
	seen = petal_load(word, PETAL_RELAXED);
	for (unsigned tries = 0; tries < PETAL_EXTENT_TRIES; tries++) {
		if (petal_extent_generation_of(seen) != generation ||
		    petal_extent_state_of(seen) != PETAL_EXTENT_LIVE)
			return -ESTALE;
		if (petal_extent_pins_of(seen) == PETAL_EXTENT_PINS_MAX)
			return -EAGAIN;
		/* [LIVE] The memory was there before the state was. */
		if (petal_cas(word, &seen, seen + 1, PETAL_ACQUIRE(LIVE)))
			return 0;
	}
	return -EAGAIN;
}

static inline int petal_extent_unpin(struct petal_extents *extents,
				     uint64_t offset, uint64_t generation)
{
	struct petal_u64 *word;
	uint64_t seen;
	int outcome = petal_extent_find(extents, offset, generation, &word);

	if (outcome || !word)
		return outcome;
	/* While we are pinned, neither generation nor run can go away. */
	seen = petal_load(word, PETAL_RELAXED);
	if (petal_extent_generation_of(seen) != generation ||
	    petal_extent_pins_of(seen) == 0)
		return -ESTALE;
	/* [UNPIN] What we did here is done before the count falls. */
	petal_add(word, UINT64_MAX, PETAL_RELEASE(UNPIN));
	return 0;
}

#endif
