/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done for an owner that died or stopped. Its claim is a gap: a commit
 * word that is still zero, before the tail. Each owner has at most one.
 *
 * Repair looks where the intents of the dead begin, and at the consumer's
 * position, and nowhere else, however long the ring is. A gap there becomes
 * padding if its owner is dead; a living one's is its own.
 *
 * Whose gap it is: that of the intent from its position that is marked HELD. If
 * there is none, its owner stopped between its swap and the mark, and others
 * may have wished from the same position and lost. One swap succeeded there,
 * so the true wish is the one whose end the tail has had; any other end lies
 * inside of what the true one claimed, or further on. So it is the nearest end
 * that shows.
 *
 * Where such ends show: the tail, the positions of intents, extents in
 * quarantine, and commit words. They are read in this order. Whoever moved the
 * tail on from the true end has left its intent there (readable, because we
 * acquired the tail), and leaves it only after its record has a commit word
 * (readable, because we acquired the intent); who skipped an extent passed its
 * beginning. So the true end always shows. Inside of the true claim nothing
 * shows, for nobody has written there before the mark: so marks are read again
 * after all this, and the commit word too.
 *
 * Two may even have wished for the same end. If both are dead, it is all one
 * whose the claim was. If one lives, it has been stopped in these few
 * instructions, and knows: it will mark the claim, or wish for another. Until
 * then nobody else can know, so nothing is done and nothing forgotten: -EAGAIN.
 *
 * Two repairers, one after the other's death, write the same bytes.
 */
#include "rings/mpsc_private.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

/* The word of an extent: in use, offset and bytes, both in lines. */
#define EXTENT_USED (UINT64_C(1) << 63)
#define EXTENT_LINES_BITS 27

static uint64_t extent_word(const struct petal_mpsc *ring, uint64_t pos,
			    uint64_t bytes)
{
	uint64_t offset = pos & (ring->data_bytes - 1);

	return EXTENT_USED | offset / PETAL_RECORD_ALIGN << EXTENT_LINES_BITS |
	       bytes / PETAL_RECORD_ALIGN;
}

/* Whether a word from the table is an extent of this ring. */
static bool extent_read(const struct petal_mpsc *ring, uint64_t word,
			struct petal_mpsc_extent *extent)
{
	uint64_t lines_mask = (UINT64_C(1) << EXTENT_LINES_BITS) - 1;

	extent->bytes = (word & lines_mask) * PETAL_RECORD_ALIGN;
	extent->offset = (word & ~EXTENT_USED) >> EXTENT_LINES_BITS;
	extent->offset *= PETAL_RECORD_ALIGN;
	return (word & EXTENT_USED) && extent->bytes != 0 &&
	       extent->offset < ring->data_bytes &&
	       extent->bytes <= ring->data_bytes - extent->offset;
}

/* [FENCE] Acquire: an entry that is in the map is whole. */
static uint64_t map_load(const struct petal_mpsc *ring)
{
	return petal_load(&ring->shared->fenced, PETAL_ACQUIRE(FENCE)) &
	       ((UINT64_C(1) << PETAL_MPSC_FENCES_MAX) - 1);
}

static bool fence_extent(const struct petal_mpsc *ring, unsigned i,
			 struct petal_mpsc_extent *extent)
{
	return extent_read(ring,
			   petal_load(&ring->shared->fences[i].extent,
				      PETAL_RELAXED),
			   extent);
}

unsigned
petal_mpsc_fenced(const struct petal_mpsc *ring,
		  struct petal_mpsc_extent extents[PETAL_MPSC_FENCES_MAX])
{
	unsigned count = 0;

	for (uint64_t map = map_load(ring); map != 0; map &= map - 1) {
		unsigned i = (unsigned)__builtin_ctzll(map);

		if (fence_extent(ring, i, &extents[count]))
			count++;
	}
	return count;
}

uint64_t petal_mpsc_fenced_at(const struct petal_mpsc *ring, uint64_t pos)
{
	struct petal_mpsc_extent extents[PETAL_MPSC_FENCES_MAX];
	unsigned count = petal_mpsc_fenced(ring, extents);

	for (unsigned i = 0; i < count; i++)
		if (extents[i].offset == (pos & (ring->data_bytes - 1)))
			return extents[i].bytes;
	return 0;
}

/* Whether the fence of an entry came to pass; death may have prevented it. */
static bool fence_is_true(const struct petal_mpsc *ring,
			  const struct petal_mpsc_fence *fence)
{
	uint64_t pos = petal_load(&fence->pos, PETAL_RELAXED);
	uint32_t owner = petal_load(&fence->owner, PETAL_RELAXED);

	return petal_load(&petal_mpsc_record(ring, pos)->commit,
			  PETAL_RELAXED) ==
	       petal_mpsc_commit(ring, PETAL_RECORD_FENCED, owner, pos);
}

/* Whether nobody can store into the extent of an entry any more. */
static bool fence_is_over(const struct petal_mpsc *ring,
			  const struct petal_mpsc_fence *fence)
{
	uint64_t pos = petal_load(&fence->pos, PETAL_RELAXED);
	uint32_t owner = petal_load(&fence->owner, PETAL_RELAXED);

	if (petal_load(&fence->freed, PETAL_RELAXED) != 0)
		return true;
	/* [ACK] Acquire: its last store came before this. */
	return owner < ring->owners && petal_load(&ring->intents[owner].acked,
						  PETAL_ACQUIRE(ACK)) > pos;
}

static void fence_drop(struct petal_mpsc *ring, unsigned i)
{
	uint64_t map = petal_load(&ring->shared->fenced, PETAL_RELAXED);

	/* [FENCE] Release: what was said of it is said. */
	petal_store(&ring->shared->fenced, map & ~(UINT64_C(1) << i),
		    PETAL_RELEASE(FENCE));
}

/* Entries whose keeper died before its swap. */
static void fences_settle(struct petal_mpsc *ring)
{
	for (uint64_t map = map_load(ring); map != 0; map &= map - 1) {
		unsigned i = (unsigned)__builtin_ctzll(map);

		if (!fence_is_true(ring, &ring->shared->fences[i]))
			fence_drop(ring, i);
	}
}

void petal_mpsc_unfence(struct petal_mpsc *ring, uint64_t from_pos,
			uint64_t to_pos)
{
	fences_settle(ring);
	for (uint64_t map = map_load(ring); map != 0; map &= map - 1) {
		unsigned i = (unsigned)__builtin_ctzll(map);
		struct petal_mpsc_extent extent;
		uint64_t ahead;

		if (!fence_extent(ring, i, &extent)) {
			fence_drop(ring, i);
			continue;
		}
		/* Where it begins, in the lap that starts at from_pos. */
		ahead = (extent.offset - from_pos) & (ring->data_bytes - 1);
		if (ahead + extent.bytes <= to_pos - from_pos &&
		    fence_is_over(ring, &ring->shared->fences[i]))
			fence_drop(ring, i);
	}
}

int petal_mpsc_adopt(struct petal_mpsc *ring, uint64_t *ret_pos)
{
	uint64_t freeing = petal_load(&ring->shared->freeing, PETAL_RELAXED);
	uint64_t head = petal_mpsc_head(ring);
	uint64_t tail = petal_mpsc_tail(ring);

	if (tail - head > ring->data_bytes || freeing - head > tail - head ||
	    (freeing | head | tail) % PETAL_RECORD_ALIGN != 0)
		return -PETAL_ECORRUPT;
	fences_settle(ring);
	/* [FREEING] Proof of death has ordered all that the dead one did. */
	petal_mpsc_release(ring, freeing);
	*ret_pos = freeing;
	return 0;
}

/* One owner's intent, as it came true or would have. */
struct wish {
	uint64_t from;
	uint64_t to;
	uint32_t owner;
	bool held;
};

struct wishes {
	uint64_t tail;
	unsigned count;
	struct wish list[PETAL_MPSC_OWNERS_MAX];
};

/* A pair that belongs together; not one that its owner has just left. */
static bool wish_load(struct petal_mpsc *ring, uint32_t owner,
		      struct wish *ret_wish)
{
	struct petal_mpsc_intent *intent = &ring->intents[owner];
	/*
	 * [CLAIM] Acquire: the end was stored before. [NAME] Acquire: what was
	 * claimed before this intent has its commit word.
	 */
	uint64_t before = petal_load(&intent->from, PETAL_ACQUIRE(CLAIM));
	uint64_t to = petal_load(&intent->to, PETAL_ACQUIRE(CLAIM));
	uint64_t from = petal_load(&intent->from, PETAL_ACQUIRE(NAME));

	ret_wish->from = from & ~PETAL_MPSC_HELD;
	ret_wish->to = to;
	ret_wish->owner = owner;
	ret_wish->held = from & PETAL_MPSC_HELD;
	return (before & ~PETAL_MPSC_HELD) == ret_wish->from &&
	       ret_wish->from % PETAL_RECORD_ALIGN == 0 &&
	       to % PETAL_RECORD_ALIGN == 0 && to - ret_wish->from != 0 &&
	       to - ret_wish->from <= petal_mpsc_to_end(ring, ret_wish->from) &&
	       to - ret_wish->from <= UINT64_C(1) << 32;
}

static void wishes_load(struct petal_mpsc *ring, struct wishes *wishes)
{
	/* [CLAIM] Acquire: whoever moved the tail has its intent readable. */
	wishes->tail = petal_load(&ring->shared->tail, PETAL_ACQUIRE(CLAIM)) &
		       ~PETAL_MPSC_CLOSED;
	wishes->count = 0;
	for (uint32_t owner = 0; owner < ring->owners; owner++)
		if (wish_load(ring, owner, &wishes->list[wishes->count]))
			wishes->count++;
}

/* Whether the tail has ever been at a position. */
static bool was_tail(const struct petal_mpsc *ring, const struct wishes *wishes,
		     uint64_t pos)
{
	uint64_t commit;

	if (pos >= wishes->tail)
		return pos == wishes->tail;
	for (unsigned i = 0; i < wishes->count; i++)
		if (wishes->list[i].from == pos)
			return true;
	if (petal_mpsc_fenced_at(ring, pos) != 0)
		return true;
	/* [NAME] Acquire, and [HELD], if this is somebody's payload. */
	commit = petal_load(&petal_mpsc_record(ring, pos)->commit,
			    PETAL_ACQUIRE(NAME));
	return commit != 0 && petal_mpsc_of_lap(ring, commit, pos);
}

static bool is_held(struct petal_mpsc *ring, const struct wish *wish)
{
	uint64_t from = petal_load(&ring->intents[wish->owner].from,
				   PETAL_ACQUIRE(NAME));

	return from == (wish->from | PETAL_MPSC_HELD);
}

static bool is_in(const uint64_t owners[PETAL_MPSC_OWNERS_MAX / 64],
		  uint32_t owner)
{
	return owners[owner / 64] >> owner % 64 & 1;
}

/* Whether somebody who may live wished for the very same, and has no mark. */
static bool is_tied(const struct wishes *wishes, const struct wish *wish,
		    const uint64_t *dead)
{
	bool is_alone = true, are_dead = true;

	for (unsigned i = 0; i < wishes->count; i++) {
		const struct wish *other = &wishes->list[i];

		if (other->from != wish->from || other->to != wish->to)
			continue;
		is_alone = is_alone && other == wish;
		are_dead = are_dead && dead && is_in(dead, other->owner);
	}
	return !is_alone && !are_dead;
}

/* The wish that came true at a gap. NULL when none shows. */
static const struct wish *claimant_of(struct petal_mpsc *ring,
				      const struct wishes *wishes, uint64_t gap)
{
	const struct wish *found = NULL;

	for (unsigned i = 0; i < wishes->count; i++) {
		const struct wish *wish = &wishes->list[i];

		if (wish->from == gap && wish->held)
			return wish;
	}
	for (unsigned i = 0; i < wishes->count; i++) {
		const struct wish *wish = &wishes->list[i];

		if (wish->from == gap && (!found || wish->to < found->to) &&
		    was_tail(ring, wishes, wish->to))
			found = wish;
	}
	/* [HELD] Once more: what we read may have been payload. */
	for (unsigned i = 0; i < wishes->count; i++) {
		const struct wish *wish = &wishes->list[i];

		if (wish->from == gap && is_held(ring, wish))
			return wish;
	}
	return found;
}

/*
 * Whose gap it is. 0 with the wish; 1 when it is none (any more); -EAGAIN when
 * only somebody who is not dead can tell; -PETAL_ECORRUPT when nobody can have
 * left it.
 */
static int gap_load(struct petal_mpsc *ring, uint64_t gap, const uint64_t *dead,
		    struct wish *ret_wish)
{
	struct wishes wishes;
	const struct wish *wish;

	wishes_load(ring, &wishes);
	if (gap >= wishes.tail)
		return 1;
	wish = claimant_of(ring, &wishes, gap);
	/* [NAME] Acquire: after the intents. Its owner may have gone on. */
	if (petal_load(&petal_mpsc_record(ring, gap)->commit,
		       PETAL_ACQUIRE(NAME)) != 0)
		return 1;
	if (!wish || wish->to > wishes.tail)
		return -PETAL_ECORRUPT;
	if (!is_held(ring, wish) && is_tied(&wishes, wish, dead))
		return -EAGAIN;
	*ret_wish = *wish;
	return 0;
}

/* Make padding of a dead owner's claim. Whether it was still a claim. */
static bool gap_fill(struct petal_mpsc *ring, const struct wish *wish)
{
	struct petal_record *record = petal_mpsc_record(ring, wish->from);
	uint64_t commit = petal_mpsc_commit(ring, PETAL_RECORD_ABANDONED,
					    wish->owner, wish->from);
	uint64_t zero = 0;

	petal_store(
		petal_record_length(record),
		(uint32_t)(wish->to - wish->from - PETAL_RECORD_HEADER_BYTES),
		PETAL_RELAXED);
	petal_store(petal_record_type(record), PETAL_RECORD_TYPE_PADDING,
		    PETAL_RELAXED);
	/* [FILL] Release: what peek acquires is its length. */
	return petal_cas(&record->commit, &zero, commit, PETAL_RELEASE(FILL));
}

/* Fill a dead owner's gap, if the position is one. 1 if so. */
static int gap_settle(struct petal_mpsc *ring, const uint64_t *dead,
		      uint64_t pos)
{
	struct wish wish;
	int outcome = gap_load(ring, pos, dead, &wish);

	if (outcome != 0)
		return outcome < 0 ? outcome : 0;
	return is_in(dead, wish.owner) && gap_fill(ring, &wish);
}

/* Nothing of theirs is left in the ring: neither wishes nor late stores. */
static void dead_forget(struct petal_mpsc *ring, const uint64_t *dead)
{
	for (uint32_t owner = 0; owner < ring->owners; owner++)
		if (is_in(dead, owner))
			petal_store(&ring->intents[owner].from,
				    PETAL_MPSC_NOWHERE, PETAL_RELEASE(NAME));
	for (uint64_t map = map_load(ring); map != 0; map &= map - 1) {
		struct petal_mpsc_fence *fence =
			&ring->shared->fences[__builtin_ctzll(map)];
		uint32_t owner = petal_load(&fence->owner, PETAL_RELAXED);

		if (owner < ring->owners && is_in(dead, owner))
			petal_store(&fence->freed, 1, PETAL_RELAXED);
	}
}

int petal_mpsc_repair(struct petal_mpsc *ring, uint64_t from_pos,
		      const uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64])
{
	/* [CLAIM] Acquire: whoever moved the tail has its intent readable. */
	uint64_t tail = petal_load(&ring->shared->tail, PETAL_ACQUIRE(CLAIM)) &
			~PETAL_MPSC_CLOSED;
	uint64_t settled[PETAL_MPSC_OWNERS_MAX / 64];
	int records, outcome, err = 0;

	if (from_pos % PETAL_RECORD_ALIGN != 0)
		return -EINVAL;
	if (tail - from_pos > ring->data_bytes)
		return -PETAL_ECORRUPT;
	fences_settle(ring);
	/* What holds the consumer up must have a name, whosever it is. */
	records = gap_settle(ring, dead, from_pos);
	if (records < 0 && records != -EAGAIN)
		return records;
	records = records > 0;
	memcpy(settled, dead, sizeof(settled));
	for (uint32_t owner = 0; owner < ring->owners; owner++) {
		struct wish wish;

		if (!is_in(dead, owner) || !wish_load(ring, owner, &wish) ||
		    wish.from - from_pos >= tail - from_pos)
			continue;
		outcome = gap_settle(ring, dead, wish.from);
		if (outcome == -EAGAIN) {
			settled[owner / 64] &= ~(UINT64_C(1) << owner % 64);
			err = outcome;
		} else if (outcome < 0) {
			return outcome;
		}
		records += outcome > 0;
	}
	dead_forget(ring, settled);
	return err ? err : records;
}

/* Fill a free entry of the table. Its number, or -ENOSPC. */
static int fence_enter(struct petal_mpsc *ring, const struct wish *wish)
{
	uint64_t map = map_load(ring);
	unsigned i = (unsigned)__builtin_ctzll(~map);
	struct petal_mpsc_fence *fence;

	if (i >= PETAL_MPSC_FENCES_MAX)
		return -ENOSPC;
	fence = &ring->shared->fences[i];
	petal_store(&fence->pos, wish->from, PETAL_RELAXED);
	petal_store(&fence->owner, wish->owner, PETAL_RELAXED);
	petal_store(&fence->freed, 0, PETAL_RELAXED);
	petal_store(&fence->extent,
		    extent_word(ring, wish->from, wish->to - wish->from),
		    PETAL_RELAXED);
	/* [FENCE] Release: who sees it in the map sees all of it. */
	petal_store(&ring->shared->fenced, map | UINT64_C(1) << i,
		    PETAL_RELEASE(FENCE));
	return (int)i;
}

int petal_mpsc_fence(struct petal_mpsc *ring, uint64_t pos, uint32_t *ret_owner)
{
	struct petal_u64 *word = &petal_mpsc_record(ring, pos)->commit;
	uint64_t zero = 0;
	struct wish wish;
	int entry, err;

	if (pos % PETAL_RECORD_ALIGN != 0 ||
	    pos - petal_mpsc_head(ring) > ring->data_bytes)
		return -EINVAL;
	fences_settle(ring);
	err = gap_load(ring, pos, NULL, &wish);
	if (err)
		return err < 0 ? err : PETAL_RING_EMPTY;
	entry = fence_enter(ring, &wish);
	if (entry < 0)
		return entry;
	/* [FENCE] Release: its end is in the table before it is fenced. */
	if (!petal_cas(word, &zero,
		       petal_mpsc_commit(ring, PETAL_RECORD_FENCED, wish.owner,
					 pos),
		       PETAL_RELEASE(FENCE))) {
		fence_drop(ring, (unsigned)entry);
		return PETAL_RING_EMPTY;
	}
	*ret_owner = wish.owner;
	return 0;
}
