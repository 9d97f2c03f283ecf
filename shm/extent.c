/* SPDX-License-Identifier: Apache-2.0 */
/*
 * To add: mark the run ADDING, allocate, mark it LIVE. To take away: mark it
 * RETIRING, wait for the pins, mark all of it PUNCHING, punch, mark it FREE.
 * Only the keeper changes a state, so he stores, except from LIVE to RETIRING,
 * where pins change at the same time, and he adds the difference.
 *
 * Death may come between any two of these steps. A step marks the whole run
 * before the next one begins, so a successor finds at most two states that
 * follow each other in one run, and the later of them says what had been
 * finished: see run_repair().
 */
#include "shm/extent.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/error.h"
#include "shm/numa.h"
#include "shm/segment_check.h"

#define GENERATION_MAX ((UINT64_C(1) << 40) - 1)
#define INTERRUPTS_MAX 100
#define TAKEOVERS_MAX 8
#define STAMP_PID_BITS 22
#define STAMP_TICK_BITS 20
#define STAMP_REALM_BITS 22

static_assert(PETAL_EXTENT_PINS_MAX == (1u << PETAL_EXTENT_STATE_SHIFT) - 1,
	      "pins are the low bits");

int petal_extent_open(const struct petal_segment *segment,
		      struct petal_extents *ret_extents)
{
	struct petal_extents extents = { .segment = *segment };
	unsigned char *table =
		(unsigned char *)segment->base + PETAL_SEGMENT_HEADER_BYTES;

	if (segment->extent_bytes == 0)
		return -EINVAL;
	extents.table = (void *)table;
	extents.word = (void *)(table + sizeof(struct petal_extent_table));
	extents.header_bytes = segment->header_bytes;
	extents.fixed_bytes = segment->fixed_bytes;
	extents.total_bytes = segment->total_bytes;
	extents.extent_shift = (unsigned)__builtin_ctzll(segment->extent_bytes);
	extents.count = (segment->total_bytes - segment->fixed_bytes) >>
			extents.extent_shift;
	*ret_extents = extents;
	return 0;
}

static uint64_t offset_of(const struct petal_extents *extents, uint64_t index)
{
	return extents->fixed_bytes + (index << extents->extent_shift);
}

static uint64_t load(const struct petal_extents *extents, uint64_t index)
{
	/* [UNPIN] What its users did is done, if this shows them gone. */
	return petal_load(&extents->word[index], PETAL_ACQUIRE(UNPIN));
}

static unsigned state_at(const struct petal_extents *extents, uint64_t index)
{
	return petal_extent_state_of(load(extents, index));
}

static void mark(struct petal_extents *extents, uint64_t first, uint64_t count,
		 uint64_t generation, enum petal_extent_state state)
{
	/* [LIVE] What the state promises is so before it can be seen. */
	for (uint64_t i = first; i < first + count; i++)
		petal_store(&extents->word[i],
			    petal_extent_word(generation, state),
			    PETAL_RELEASE(LIVE));
}

/* Neighbours from @first on that are not free and of one generation. */
static uint64_t run_length(const struct petal_extents *extents, uint64_t first)
{
	uint64_t generation = petal_extent_generation_of(load(extents, first));
	uint64_t i = first;

	for (; i < extents->count; i++) {
		uint64_t word = load(extents, i);

		if (petal_extent_state_of(word) == PETAL_EXTENT_FREE ||
		    petal_extent_generation_of(word) != generation)
			break;
	}
	return i - first;
}

static int punch(struct petal_extents *extents, uint64_t first, uint64_t count)
{
	if (fallocate(extents->segment.fd,
		      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)offset_of(extents, first),
		      (off_t)(count << extents->extent_shift)))
		return -errno;
	return 0;
}

/* From whatever state to FREE; nobody may be in it any more. */
static int run_free(struct petal_extents *extents, uint64_t first,
		    uint64_t count, uint64_t generation)
{
	int outcome;

	mark(extents, first, count, generation, PETAL_EXTENT_PUNCHING);
	outcome = punch(extents, first, count);
	if (outcome)
		return outcome;
	mark(extents, first, count, generation, PETAL_EXTENT_FREE);
	return 0;
}

static void run_retire(struct petal_extents *extents, uint64_t first,
		       uint64_t count)
{
	uint64_t step = petal_extent_word(0, PETAL_EXTENT_RETIRING) -
			petal_extent_word(0, PETAL_EXTENT_LIVE);

	for (uint64_t i = first; i < first + count; i++)
		if (state_at(extents, i) == PETAL_EXTENT_LIVE)
			petal_add(&extents->word[i], step, PETAL_RELAXED);
}

static bool run_has(const struct petal_extents *extents, uint64_t first,
		    uint64_t count, enum petal_extent_state state)
{
	for (uint64_t i = first; i < first + count; i++)
		if (state_at(extents, i) == state)
			return true;
	return false;
}

static int run_check(const struct petal_extents *extents, uint64_t first,
		     uint64_t count)
{
	for (uint64_t i = first; i < first + count; i++)
		if (state_at(extents, i) > PETAL_EXTENT_PUNCHING)
			return -PETAL_ECORRUPT;
	return petal_extent_generation_of(load(extents, first))
		       ? 0
		       : -PETAL_ECORRUPT;
}

/* ADDING next to LIVE: all had memory, or nothing would have been LIVE. */
static void run_finish_adding(struct petal_extents *extents, uint64_t first,
			      uint64_t count, uint64_t generation)
{
	for (uint64_t i = first; i < first + count; i++)
		if (state_at(extents, i) == PETAL_EXTENT_ADDING)
			mark(extents, i, 1, generation, PETAL_EXTENT_LIVE);
}

static int run_repair(struct petal_extents *extents, uint64_t first,
		      uint64_t count)
{
	uint64_t generation = petal_extent_generation_of(load(extents, first));
	bool live = run_has(extents, first, count, PETAL_EXTENT_LIVE);
	bool adding = run_has(extents, first, count, PETAL_EXTENT_ADDING);

	/* It had no pins when the first of it began to be punched. */
	if (run_has(extents, first, count, PETAL_EXTENT_PUNCHING) ||
	    (adding && !live))
		return run_free(extents, first, count, generation);
	if (adding)
		run_finish_adding(extents, first, count, generation);
	if (run_has(extents, first, count, PETAL_EXTENT_RETIRING))
		run_retire(extents, first, count);
	return 0;
}

static int repair(struct petal_extents *extents)
{
	for (uint64_t i = 0; i < extents->count;) {
		uint64_t count = run_length(extents, i);
		int outcome;

		if (count == 0) {
			i++;
			continue;
		}
		outcome = run_check(extents, i, count);
		if (!outcome)
			outcome = run_repair(extents, i, count);
		if (outcome)
			return outcome;
		i += count;
	}
	return 0;
}

static uint64_t low_bits(uint64_t value, unsigned bits)
{
	return value & ((UINT64_C(1) << bits) - 1);
}

/*
 * All that a judgement of the keeper needs is in the one word that makes him
 * keeper: were his realm in a word of its own, one contender's store could come
 * between another's store and swap, and the living would be looked for in the
 * wrong realm. There is room for the start's low bits only. Two starts that
 * agree in those are taken for one, which errs towards life.
 */
static uint64_t stamp_of(const struct petal_peer_id *id)
{
	uint64_t realm = id->realm_hash ^ id->realm_hash >> STAMP_REALM_BITS ^
			 id->realm_hash >> 2 * STAMP_REALM_BITS;

	if (id->pid == 0 || id->pid >> STAMP_PID_BITS)
		return 0;
	return low_bits(realm, STAMP_REALM_BITS)
		       << (STAMP_PID_BITS + STAMP_TICK_BITS) |
	       low_bits(id->start_ticks, STAMP_TICK_BITS) << STAMP_PID_BITS |
	       id->pid;
}

static bool same_realm(uint64_t stamp, uint64_t other)
{
	return (stamp ^ other) >> (STAMP_PID_BITS + STAMP_TICK_BITS) == 0;
}

/* 0 if whoever stamped will never run again. */
static int check_dead(uint64_t stamp, uint64_t own_stamp)
{
	int pid = (int)low_bits(stamp, STAMP_PID_BITS);
	struct petal_peer_id id;
	int outcome;

	if (pid == 0 || !same_realm(stamp, own_stamp))
		return -EXDEV;
	/* If the PID is another's now, the one who stamped has ended. */
	outcome = petal_peer_identify(pid, &id);
	if (outcome == 0)
		return stamp_of(&id) == stamp ? -EBUSY : 0;
	return outcome == -ESRCH ? 0 : outcome;
}

static int take_over(struct petal_extents *extents, uint64_t stamp)
{
	struct petal_u64 *keeper = &extents->table->keeper;
	uint64_t seen = petal_load(keeper, PETAL_RELAXED);

	for (int tries = 0; tries < TAKEOVERS_MAX; tries++) {
		int outcome = 0;

		if (seen == stamp)
			return 0;
		if (seen != 0)
			outcome = check_dead(seen, stamp);
		if (outcome)
			return outcome;
		/* [KEEP] All that he did comes before what we do. */
		if (petal_cas(keeper, &seen, stamp, PETAL_ACQ_REL(KEEP)))
			return 0;
	}
	return -EBUSY;
}

int petal_extent_keep(struct petal_extents *extents,
		      const struct petal_peer_id *self)
{
	uint64_t stamp = stamp_of(self);
	int outcome;

	if (stamp == 0 || (pid_t)self->pid != getpid())
		return -EINVAL;
	if (!extents->segment.writable)
		return -EROFS;
	outcome = take_over(extents, stamp);
	if (!outcome)
		outcome = repair(extents);
	if (outcome)
		return outcome;
	extents->stamp = stamp;
	extents->keeper_pid = getpid();
	return 0;
}

static int check_keeper(const struct petal_extents *extents)
{
	if (extents->stamp == 0 || extents->keeper_pid != getpid() ||
	    petal_load(&extents->table->keeper, PETAL_RELAXED) !=
		    extents->stamp)
		return -PETAL_EFENCED;
	return 0;
}

void petal_extent_drop(struct petal_extents *extents)
{
	uint64_t stamp = extents->stamp;

	if (check_keeper(extents))
		return;
	extents->stamp = 0;
	/* [KEEP] Whoever keeps next sees all that we did. */
	petal_cas(&extents->table->keeper, &stamp, 0, PETAL_RELEASE(KEEP));
}

static int find_room(const struct petal_extents *extents, uint64_t wanted,
		     uint64_t *ret_first)
{
	uint64_t found = 0;

	for (uint64_t i = 0; i < extents->count; i++) {
		found = state_at(extents, i) == PETAL_EXTENT_FREE ? found + 1
								  : 0;
		if (found == wanted) {
			*ret_first = i + 1 - wanted;
			return 0;
		}
	}
	return -ENOSPC;
}

static bool huge(const struct petal_extents *extents)
{
	return extents->segment.pages != PETAL_SEGMENT_PAGES_PLAIN;
}

static int check_memory(const struct petal_extents *extents, uint64_t first,
			uint64_t count)
{
	const unsigned char *base = extents->segment.base;
	uint64_t nodes;

	if (huge(extents) || extents->segment.backing != PETAL_SEGMENT_MEMFD)
		return 0;
	if (petal_numa_bound(base + offset_of(extents, first), &nodes))
		nodes = 0;
	return segment_memory_check(nodes, count << extents->extent_shift);
}

/* One at a time, so that a signal undoes one at most. */
static int allocate_one(const struct petal_extents *extents, uint64_t index)
{
	for (int tries = 0; tries < INTERRUPTS_MAX; tries++) {
		if (fallocate(extents->segment.fd, FALLOC_FL_KEEP_SIZE,
			      (off_t)offset_of(extents, index),
			      (off_t)1 << extents->extent_shift) == 0)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
	return -EINTR;
}

static int allocate(const struct petal_extents *extents, uint64_t first,
		    uint64_t count)
{
	int outcome = check_memory(extents, first, count);

	for (uint64_t i = first; !outcome && i < first + count; i++)
		outcome = allocate_one(extents, i);
	if (huge(extents) && (outcome == -ENOMEM || outcome == -ENOSPC))
		return -PETAL_EHUGEPAGES;
	/* A tmpfs that is full says that there is no space, not no place. */
	if (outcome == -ENOSPC &&
	    extents->segment.backing == PETAL_SEGMENT_MEMFD)
		return -ENOMEM;
	return outcome;
}

static uint64_t next_generation(struct petal_extents *extents)
{
	uint64_t last = petal_load(&extents->table->generation, PETAL_RELAXED);
	uint64_t next = (last & GENERATION_MAX) + 1;

	/* 0 is the body's. */
	if (next > GENERATION_MAX)
		next = 1;
	petal_store(&extents->table->generation, next, PETAL_RELAXED);
	return next;
}

/* Extents that are FREE, all of them, become a run. */
static int add_run(struct petal_extents *extents, uint64_t first,
		   uint64_t count, uint64_t *ret_generation)
{
	uint64_t generation = next_generation(extents);
	int outcome;

	mark(extents, first, count, generation, PETAL_EXTENT_ADDING);
	outcome = allocate(extents, first, count);
	if (outcome) {
		/* Should this fail too, the next keeper does it again. */
		run_free(extents, first, count, generation);
		return outcome;
	}
	mark(extents, first, count, generation, PETAL_EXTENT_LIVE);
	*ret_generation = generation;
	return 0;
}

int petal_extent_add(struct petal_extents *extents, uint64_t bytes,
		     uint64_t *ret_offset, uint64_t *ret_generation)
{
	uint64_t first, count;
	int outcome = check_keeper(extents);

	if (outcome)
		return outcome;
	if (bytes == 0)
		return -EINVAL;
	count = ((bytes - 1) >> extents->extent_shift) + 1;
	outcome = find_room(extents, count, &first);
	if (!outcome)
		outcome = add_run(extents, first, count, ret_generation);
	if (outcome)
		return outcome;
	*ret_offset = offset_of(extents, first);
	return 0;
}

int petal_extent_add_at(struct petal_extents *extents, uint64_t index,
			uint64_t *ret_generation)
{
	int outcome = check_keeper(extents);

	if (outcome)
		return outcome;
	if (index >= extents->count)
		return -ENOSPC;
	if (state_at(extents, index) != PETAL_EXTENT_FREE)
		return -EBUSY;
	return add_run(extents, index, 1, ret_generation);
}

static int find_run(const struct petal_extents *extents, uint64_t offset,
		    uint64_t generation, uint64_t *ret_first,
		    uint64_t *ret_count)
{
	uint64_t at = offset - extents->fixed_bytes;
	uint64_t first = at >> extents->extent_shift;
	uint64_t before = 0;
	int outcome = check_keeper(extents);

	if (outcome)
		return outcome;
	if (offset < extents->fixed_bytes || first >= extents->count ||
	    first << extents->extent_shift != at)
		return -ERANGE;
	if (first > 0)
		before = load(extents, first - 1);
	*ret_count = run_length(extents, first);
	*ret_first = first;
	if (*ret_count == 0 || generation == 0 ||
	    petal_extent_generation_of(load(extents, first)) != generation)
		return -ESTALE;
	/* Not in its middle, or the rest would be left behind. */
	if (petal_extent_generation_of(before) == generation &&
	    petal_extent_state_of(before) != PETAL_EXTENT_FREE)
		return -ERANGE;
	return 0;
}

int petal_extent_retire(struct petal_extents *extents, uint64_t offset,
			uint64_t generation)
{
	uint64_t first, count;
	int outcome = find_run(extents, offset, generation, &first, &count);

	if (!outcome)
		run_retire(extents, first, count);
	return outcome;
}

static int check_left(const struct petal_extents *extents, uint64_t first,
		      uint64_t count, bool quiescent)
{
	int outcome = 0;

	for (uint64_t i = first; i < first + count; i++) {
		uint64_t word = load(extents, i);

		if (petal_extent_state_of(word) < PETAL_EXTENT_RETIRING)
			return -EBUSY;
		if (petal_extent_pins_of(word) != 0 && !quiescent)
			outcome = PETAL_EXTENT_PINNED;
	}
	return outcome;
}

int petal_extent_reclaim(struct petal_extents *extents, uint64_t offset,
			 uint64_t generation, bool quiescent)
{
	uint64_t first, count;
	int outcome = find_run(extents, offset, generation, &first, &count);

	if (!outcome)
		outcome = check_left(extents, first, count, quiescent);
	if (!outcome)
		outcome = run_free(extents, first, count, generation);
	return outcome;
}

int petal_extent_look(const struct petal_extents *extents, uint64_t index,
		      struct petal_extent_info *ret_info)
{
	uint64_t word;

	if (index >= extents->count)
		return -ENOENT;
	/* [LIVE] Pairs with the last stores of add. */
	word = petal_load(&extents->word[index], PETAL_ACQUIRE(LIVE));
	ret_info->offset = offset_of(extents, index);
	ret_info->generation = petal_extent_generation_of(word);
	ret_info->state = (enum petal_extent_state)petal_extent_state_of(word);
	ret_info->pins = petal_extent_pins_of(word);
	return 0;
}

int petal_extent_prefault(const struct petal_extents *extents, uint64_t offset,
			  uint64_t bytes, uint64_t generation)
{
	int advice = extents->segment.writable ? MADV_POPULATE_WRITE
					       : MADV_POPULATE_READ;
	uint64_t page = segment_page_bytes();
	unsigned char *base = extents->segment.base;
	int outcome = petal_extent_check(extents, offset, bytes, generation);

	if (outcome)
		return outcome;
	bytes += offset % page;
	offset -= offset % page;
	if (madvise(base + offset, bytes, advice))
		return errno == EINVAL ? -EOPNOTSUPP : -errno;
	return 0;
}

uint64_t petal_extent_live_bytes(const struct petal_extents *extents)
{
	uint64_t live = 0;

	for (uint64_t i = 0; i < extents->count; i++) {
		unsigned state = state_at(extents, i);

		live += state == PETAL_EXTENT_LIVE ||
			state == PETAL_EXTENT_RETIRING;
	}
	return live << extents->extent_shift;
}
