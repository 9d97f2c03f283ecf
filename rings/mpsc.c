/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/mpsc.h"

#include <stddef.h>

/*
 * The happy path is in mpsc_inl.h: intent, swap of the tail, name, fill,
 * publish; peek, and release down here.
 *
 * Repair walks from the consumer's position to the tail. What it may meet:
 *
 *    PUBLISHED, ABANDONED   whole: step over it
 *    CLAIMED, living owner  has its length: step over it
 *    CLAIMED, dead owner    swap the word to ABANDONED
 *    zero                   a gap: somebody swapped the tail from here, and
 *                           has not named what follows
 *    anything else          a producer gone mad: -PETAL_ECORRUPT
 *
 * The name of a gap is an intent at its position, or, at the start of a lap,
 * an intent whose record did not fit into the end of the lap before. One swap
 * succeeded there, so among several wishes the true one is the one whose end
 * the tail has had; any other end lies inside of what the true one claimed, or
 * beyond what the tail has reached.
 *
 * Where such ends show: the tail, the positions of intents, and written commit
 * words. They are read in this order. Whoever moved the tail on from the true
 * end has left its intent there (readable, because we acquired the tail), and
 * leaves it only after it has named its record (readable, because we acquired
 * the intent). So the true end always shows.
 *
 * Two repairers write the same bytes, and a dead one leaves a prefix of them.
 */

/* Positions never wrap: what is left above this lasts for centuries. */
#define START_POS_MAX (UINT64_C(1) << 63)
/* An intent moves only when its owner runs; it cannot outrun us for ever. */
#define INTENT_LOOKS 1000u

static bool shape_is_valid(uint64_t data_bytes, uint32_t owners,
			   uint32_t reserve_bytes)
{
	return data_bytes >= 4096 &&
	       data_bytes <= PETAL_RECORD_RING_BYTES_MAX &&
	       (data_bytes & (data_bytes - 1)) == 0 && owners >= 1 &&
	       owners <= PETAL_MPSC_OWNERS_MAX &&
	       reserve_bytes <= data_bytes / 2 - PETAL_RECORD_ALIGN;
}

uint64_t petal_mpsc_bytes(const struct petal_mpsc_geometry *geometry)
{
	return PETAL_MPSC_HEADER_BYTES +
	       (uint64_t)geometry->owners * sizeof(struct petal_mpsc_intent);
}

static struct petal_mpsc_intent *intents_of(void *header)
{
	return (void *)((uint8_t *)header + PETAL_MPSC_HEADER_BYTES);
}

int petal_mpsc_format(void *header, const struct petal_mpsc_geometry *geometry)
{
	struct petal_mpsc_shared *shared = header;
	struct petal_mpsc_intent *intents = intents_of(header);

	if (!shape_is_valid(geometry->data_bytes, geometry->owners,
			    geometry->reserve_bytes) ||
	    geometry->start_pos % PETAL_RECORD_ALIGN != 0 ||
	    geometry->start_pos > START_POS_MAX)
		return -EINVAL;

	shared->layout = PETAL_MPSC_LAYOUT;
	shared->owners = geometry->owners;
	shared->data_bytes = geometry->data_bytes;
	shared->reserve_bytes = geometry->reserve_bytes;
	atomic_init(&shared->tail, geometry->start_pos);
	atomic_init(&shared->head, geometry->start_pos);
	atomic_init(&shared->freeing, geometry->start_pos);
	for (uint32_t i = 0; i < geometry->owners; i++)
		atomic_init(&intents[i].pos, PETAL_MPSC_NOWHERE);
	/* [FORMAT] Release: who sees the magic sees the shape. */
	atomic_store_explicit(&shared->magic, PETAL_MPSC_MAGIC,
			      memory_order_release);
	return 0;
}

/* Each word of the shape is loaded once; what is checked is the copy. */
static int shape_load(struct petal_mpsc_shared *shared,
		      struct petal_mpsc_geometry *ret_geometry)
{
	/* [FORMAT] Acquire: the shape was stored before the magic. */
	if (atomic_load_explicit(&shared->magic, memory_order_acquire) !=
	    PETAL_MPSC_MAGIC)
		return -EINVAL;
	if (__atomic_load_n(&shared->layout, __ATOMIC_RELAXED) !=
	    PETAL_MPSC_LAYOUT)
		return -PETAL_EVERSION;
	*ret_geometry = (struct petal_mpsc_geometry){
		.data_bytes =
			__atomic_load_n(&shared->data_bytes, __ATOMIC_RELAXED),
		.owners = __atomic_load_n(&shared->owners, __ATOMIC_RELAXED),
		.reserve_bytes = __atomic_load_n(&shared->reserve_bytes,
						 __ATOMIC_RELAXED),
	};
	if (!shape_is_valid(ret_geometry->data_bytes, ret_geometry->owners,
			    ret_geometry->reserve_bytes))
		return -PETAL_EGEOMETRY;
	return 0;
}

int petal_mpsc_attach(void *header, uint64_t header_bytes, void *data,
		      uint64_t data_bytes, uint32_t owner,
		      struct petal_mpsc *ret_ring)
{
	struct petal_mpsc_geometry shape;
	int err;

	if ((uintptr_t)header % PETAL_RECORD_ALIGN != 0 ||
	    (uintptr_t)data % PETAL_RECORD_ALIGN != 0)
		return -EINVAL;
	if (header_bytes < PETAL_MPSC_HEADER_BYTES)
		return -PETAL_EGEOMETRY;
	err = shape_load(header, &shape);
	if (err)
		return err;
	if (petal_mpsc_bytes(&shape) > header_bytes ||
	    shape.data_bytes > data_bytes)
		return -PETAL_EGEOMETRY;
	if (owner >= shape.owners)
		return -EINVAL;

	*ret_ring = (struct petal_mpsc){
		.shared = header,
		.intents = intents_of(header),
		.data = data,
		.data_bytes = shape.data_bytes,
		.room_bytes = shape.data_bytes -
			      (owner == 0 ? 0 : shape.reserve_bytes),
		.owners = shape.owners,
		.owner = owner,
		.reserve_bytes = shape.reserve_bytes,
		.lap_shift = (uint32_t)__builtin_ctzll(shape.data_bytes),
	};
	/* [DRAIN] Acquire: the first claims may rest on this look alone. */
	ret_ring->head_seen = atomic_load_explicit(&ret_ring->shared->head,
						   memory_order_acquire);
	ret_ring->tail_seen = petal_mpsc_tail(ret_ring);
	return 0;
}

/* [FREEING] Release: nothing is zeroed before freeing says so. */
static void lines_zero(struct petal_mpsc *ring, uint64_t from_pos,
		       uint64_t to_pos)
{
	for (uint64_t pos = from_pos; pos != to_pos;
	     pos += PETAL_RECORD_ALIGN) {
		uint64_t *line =
			(uint64_t *)(void *)petal_mpsc_record(ring, pos);

		__atomic_store_n(&line[0], 0, __ATOMIC_RELEASE);
		__atomic_store_n(&line[1], 0, __ATOMIC_RELEASE);
	}
}

void petal_mpsc_release(struct petal_mpsc *ring, uint64_t to_pos)
{
	struct petal_mpsc_shared *shared = ring->shared;
	uint64_t head = petal_mpsc_head(ring);

	if (to_pos - head > ring->data_bytes ||
	    (to_pos | head) % PETAL_RECORD_ALIGN != 0 ||
	    !petal_mpsc_reached(ring, to_pos))
		return;
	atomic_store_explicit(&shared->freeing, to_pos, memory_order_relaxed);
	lines_zero(ring, head, to_pos);
	/* [DRAIN] Release: our reads and the zeroes come before this. */
	atomic_store_explicit(&shared->head, to_pos, memory_order_release);
}

int petal_mpsc_adopt(struct petal_mpsc *ring, uint64_t *ret_pos)
{
	uint64_t freeing = atomic_load_explicit(&ring->shared->freeing,
						memory_order_relaxed);
	uint64_t head = petal_mpsc_head(ring);
	uint64_t tail = petal_mpsc_tail(ring);

	if (tail - head > ring->data_bytes || freeing - head > tail - head ||
	    (freeing | head | tail) % PETAL_RECORD_ALIGN != 0)
		return -PETAL_ECORRUPT;
	/* [FREEING] Proof of death has ordered all that the dead one did. */
	petal_mpsc_release(ring, freeing);
	*ret_pos = freeing;
	return 0;
}

/* One owner's intent, as it would have become true. */
struct wish {
	uint64_t tail; /* where it wanted to swap from */
	uint64_t pos;  /* of the record, past the wrap padding */
	uint64_t end;
	uint32_t owner;
};

struct repair {
	struct petal_mpsc *ring;
	const uint64_t *dead;
	uint64_t tail;
	unsigned wish_count;
	struct wish wishes[PETAL_MPSC_OWNERS_MAX];
};

static bool is_dead(const struct repair *repair, uint32_t owner)
{
	return owner < PETAL_MPSC_OWNERS_MAX &&
	       (repair->dead[owner / 64] >> owner % 64 & 1);
}

/* A position and a length that belong together, or -EBUSY. */
static int intent_load(struct petal_mpsc_intent *intent, uint64_t *ret_pos,
		       uint32_t *ret_length)
{
	for (unsigned i = 0; i < INTENT_LOOKS; i++) {
		/*
		 * [CLAIM] Acquire: the length was stored before. [NAME]
		 * Acquire: what was claimed before this intent has its name.
		 */
		uint64_t pos = atomic_load_explicit(&intent->pos,
						    memory_order_acquire);

		*ret_length = atomic_load_explicit(&intent->length,
						   memory_order_acquire);
		/* [CLAIM] The length is not of a later wish than pos. */
		*ret_pos = atomic_load_explicit(&intent->pos,
						memory_order_acquire);
		if (*ret_pos == pos)
			return 0;
	}
	return -EBUSY;
}

static int wishes_load(struct repair *repair)
{
	struct petal_mpsc *ring = repair->ring;

	/* [CLAIM] Acquire: whoever moved the tail has its intent readable. */
	repair->tail =
		atomic_load_explicit(&ring->shared->tail, memory_order_acquire);
	repair->wish_count = 0;
	for (uint32_t owner = 0; owner < ring->owners; owner++) {
		struct petal_mpsc_place place;
		uint32_t length;
		uint64_t tail;
		int err = intent_load(&ring->intents[owner], &tail, &length);

		if (err)
			return err;
		if (tail % PETAL_RECORD_ALIGN != 0 ||
		    length > ring->data_bytes / 4)
			continue;
		place = petal_mpsc_place(ring, tail, length);
		repair->wishes[repair->wish_count++] = (struct wish){
			.tail = tail,
			.pos = place.pos,
			.end = place.end,
			.owner = owner,
		};
	}
	return 0;
}

/*
 * From where the tail was swapped over a gap: from the gap itself, if any
 * intent says so, for then the tail was there. Otherwise from the padding
 * before it; the latest such wish, for the tail never was beyond it.
 */
static uint64_t gap_origin(const struct repair *repair, uint64_t gap)
{
	uint64_t origin = PETAL_MPSC_NOWHERE;

	for (unsigned i = 0; i < repair->wish_count; i++) {
		const struct wish *wish = &repair->wishes[i];

		if (wish->tail == gap)
			return gap;
		if (wish->pos == gap &&
		    (origin == PETAL_MPSC_NOWHERE || wish->tail > origin))
			origin = wish->tail;
	}
	return origin;
}

/* Whether this wish, come true, would have left this gap. */
static bool wish_explains(const struct wish *wish, uint64_t origin,
			  uint64_t gap)
{
	return wish->tail == origin && (wish->pos == gap || origin == gap);
}

/* Whether the tail has ever been at a position. */
static bool was_tail(const struct repair *repair, uint64_t pos)
{
	uint64_t commit;

	if (pos >= repair->tail)
		return pos == repair->tail;
	for (unsigned i = 0; i < repair->wish_count; i++)
		if (repair->wishes[i].tail == pos)
			return true;
	/* [NAME] Acquire: pairs with whoever named what starts there. */
	commit = atomic_load_explicit(
		&petal_mpsc_record(repair->ring, pos)->commit,
		memory_order_acquire);
	return commit != 0 && petal_mpsc_of_lap(repair->ring, commit, pos);
}

/* Whose gap it is: the nearest end that shows. NULL when nobody's. */
static const struct wish *gap_claimant(const struct repair *repair,
				       uint64_t origin, uint64_t gap)
{
	const struct wish *found = NULL;

	for (unsigned i = 0; i < repair->wish_count; i++) {
		const struct wish *wish = &repair->wishes[i];

		if (wish_explains(wish, origin, gap) &&
		    (!found || wish->end < found->end) &&
		    was_tail(repair, wish->end))
			found = wish;
	}
	return found;
}

static bool gap_has_living(const struct repair *repair, uint64_t origin,
			   uint64_t gap)
{
	for (unsigned i = 0; i < repair->wish_count; i++) {
		const struct wish *wish = &repair->wishes[i];

		if (wish_explains(wish, origin, gap) &&
		    !is_dead(repair, wish->owner))
			return true;
	}
	return false;
}

/* Name a gap as padding. 1 for a record, 0 for wrap padding or no gap. */
static int gap_fill(struct repair *repair, uint64_t gap)
{
	struct petal_record *record = petal_mpsc_record(repair->ring, gap);
	const struct wish *wish;
	uint64_t origin;
	int err = wishes_load(repair);

	if (err)
		return err;
	origin = gap_origin(repair, gap);
	if (gap_has_living(repair, origin, gap))
		return -EBUSY;
	wish = gap_claimant(repair, origin, gap);
	/*
	 * [NAME] Acquire: once more, after the intents and the ends. If a name
	 * has come up, its owner was alive, and what we read may be its bytes.
	 */
	if (atomic_load_explicit(&record->commit, memory_order_acquire) != 0)
		return 0;
	if (!wish)
		return -PETAL_ECORRUPT;
	if (wish->pos != gap) {
		petal_mpsc_pad(repair->ring, wish->owner, gap, wish->pos - gap);
		return 0;
	}
	return petal_mpsc_pad(repair->ring, wish->owner, gap, wish->end - gap);
}

/* Step over what has a name, and take it from a dead owner. */
static int named_settle(struct repair *repair, uint64_t *pos, uint64_t commit)
{
	struct petal_mpsc *ring = repair->ring;
	struct petal_record *record = petal_mpsc_record(ring, *pos);
	uint32_t owner = petal_record_owner(commit);
	enum petal_record_state state = petal_record_state(commit);
	uint32_t length = __atomic_load_n(&record->length, __ATOMIC_RELAXED);
	int records = 0;

	if (!petal_mpsc_of_lap(ring, commit, *pos) ||
	    state > PETAL_RECORD_ABANDONED ||
	    !petal_mpsc_fits(ring, *pos, length, state))
		return -PETAL_ECORRUPT;
	if (state == PETAL_RECORD_CLAIMED && is_dead(repair, owner)) {
		uint64_t abandoned = petal_mpsc_commit(
			ring, PETAL_RECORD_ABANDONED, owner, *pos);

		/* [FILL] Release: what peek acquires is its length. */
		records = atomic_compare_exchange_strong_explicit(
			&record->commit, &commit, abandoned,
			memory_order_release, memory_order_relaxed);
	}
	*pos += petal_record_extent(length);
	return records;
}

int petal_mpsc_repair(struct petal_mpsc *ring, uint64_t from_pos,
		      const uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64])
{
	struct repair repair = { .ring = ring, .dead = dead };
	uint64_t tail = petal_mpsc_tail(ring);
	uint64_t pos = from_pos;
	/* Each line is met as a gap once, and once with its name. */
	uint64_t steps = ring->data_bytes / PETAL_RECORD_ALIGN * 2;
	int records = 0;

	if (from_pos % PETAL_RECORD_ALIGN != 0)
		return -EINVAL;
	if (tail - from_pos > ring->data_bytes)
		return -PETAL_ECORRUPT;
	for (; pos < tail && steps > 0; steps--) {
		/* [NAME] Acquire: what has a name has its length. */
		uint64_t commit = atomic_load_explicit(
			&petal_mpsc_record(ring, pos)->commit,
			memory_order_acquire);
		int outcome = commit ? named_settle(&repair, &pos, commit)
				     : gap_fill(&repair, pos);

		if (outcome < 0)
			return outcome;
		records += outcome;
	}
	return pos < tail ? -PETAL_ECORRUPT : records;
}
