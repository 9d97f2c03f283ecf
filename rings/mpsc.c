/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/mpsc.h"

#include "rings/mpsc_private.h"

/*
 * The happy path is in mpsc_inl.h: intent, swap of the tail, mark, fill,
 * publish; peek. Here is what a claim does when something is in its way, and
 * release. What is done for those who died or stopped is in mpsc_repair.c.
 */

/* Positions never wrap: what is left above this lasts for centuries. */
#define START_POS_MAX (UINT64_C(1) << 63)
#define LENGTH_MAX (UINT32_MAX - 15)

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
	uint64_t start = geometry->start_pos;

	if (!shape_is_valid(geometry->data_bytes, geometry->owners,
			    geometry->reserve_bytes) ||
	    start % PETAL_RECORD_ALIGN != 0 || start > START_POS_MAX)
		return -EINVAL;
	/* Hosts that share no caches cannot compare and swap. */
	if (geometry->coherence != PETAL_SEGMENT_COHERENT)
		return -EOPNOTSUPP;

	petal_store(&shared->layout, PETAL_MPSC_LAYOUT, PETAL_RELAXED);
	petal_store(&shared->owners, geometry->owners, PETAL_RELAXED);
	petal_store(&shared->data_bytes, geometry->data_bytes, PETAL_RELAXED);
	petal_store(&shared->reserve_bytes, geometry->reserve_bytes,
		    PETAL_RELAXED);
	petal_store(&shared->tail, start, PETAL_RELAXED);
	petal_store(&shared->head, start, PETAL_RELAXED);
	petal_store(&shared->freeing, start, PETAL_RELAXED);
	petal_store(&shared->gauge_head, start, PETAL_RELAXED);
	petal_store(&shared->gauge_tail, start, PETAL_RELAXED);
	for (uint32_t i = 0; i < geometry->owners; i++)
		petal_store(&intents[i].from, PETAL_MPSC_NOWHERE,
			    PETAL_RELAXED);
	/* [FORMAT] Release: who sees the magic sees the shape. */
	petal_store(&shared->magic, PETAL_MPSC_MAGIC, PETAL_RELEASE(FORMAT));
	return 0;
}

/* Each word of the shape is loaded once; what is checked is the copy. */
static int shape_load(struct petal_mpsc_shared *shared,
		      struct petal_mpsc_geometry *ret_geometry)
{
	/* [FORMAT] Acquire: the shape was stored before the magic. */
	if (petal_load(&shared->magic, PETAL_ACQUIRE(FORMAT)) !=
	    PETAL_MPSC_MAGIC)
		return -EINVAL;
	if (petal_load(&shared->layout, PETAL_RELAXED) != PETAL_MPSC_LAYOUT)
		return -PETAL_EVERSION;
	*ret_geometry = (struct petal_mpsc_geometry){
		.data_bytes = petal_load(&shared->data_bytes, PETAL_RELAXED),
		.owners = petal_load(&shared->owners, PETAL_RELAXED),
		.reserve_bytes =
			petal_load(&shared->reserve_bytes, PETAL_RELAXED),
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
	uint64_t quarter;
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

	quarter = shape.data_bytes / 4;
	*ret_ring = (struct petal_mpsc){
		.shared = header,
		.intents = intents_of(header),
		.data = data,
		.data_bytes = shape.data_bytes,
		.room_bytes = shape.data_bytes -
			      (owner == 0 ? 0 : shape.reserve_bytes),
		.open_pos = PETAL_MPSC_NOWHERE,
		.found_pos = PETAL_MPSC_NOWHERE,
		.owners = shape.owners,
		.owner = owner,
		/* With its header, it can be said as padding's length. */
		.length_max = quarter < LENGTH_MAX ? (uint32_t)quarter
						   : LENGTH_MAX,
		.lap_shift = (uint32_t)__builtin_ctzll(shape.data_bytes),
	};
	petal_pace_init(&ret_ring->pace, 0);
	ret_ring->tail_seen = petal_mpsc_tail(ret_ring);
	/* No room as far as we know: the first claim looks. */
	ret_ring->limit_seen = ret_ring->tail_seen;
	return 0;
}

void petal_mpsc_close(struct petal_mpsc *ring)
{
	petal_or(&ring->shared->tail, PETAL_MPSC_CLOSED, PETAL_RELAXED);
}

/* One look at head, tail, and the next thing in the way of claims. */
struct look {
	uint64_t head;
	uint64_t tail;
	uint64_t barrier; /* no record may cross it */
	uint64_t past;    /* where the next may begin: behind a quarantine */
};

/* 0; 1 when all has moved meanwhile; -EPIPE; -PETAL_ECORRUPT. */
static int look_at_ends(const struct petal_mpsc *ring, struct look *look)
{
	uint64_t word;

	/*
	 * [DRAIN] Acquire: the lines that it freed are zero, the fence table
	 * has lost what it zeroed, and the tail is not behind this head.
	 */
	look->head = petal_load(&ring->shared->head, PETAL_ACQUIRE(DRAIN));
	/* [DRAIN] Acquire: the second look at head comes after this one. */
	word = petal_load(&ring->shared->tail, PETAL_ACQUIRE(DRAIN));
	look->tail = word & ~PETAL_MPSC_CLOSED;
	if (look->tail - look->head > ring->data_bytes ||
	    look->tail % PETAL_RECORD_ALIGN != 0) {
		/* Perhaps the ring was drained and filled while we looked. */
		return petal_mpsc_head(ring) != look->head ? 1
							   : -PETAL_ECORRUPT;
	}
	return word & PETAL_MPSC_CLOSED ? -EPIPE : 0;
}

/* The next barrier at or after the tail. As look_at_ends(). */
static int look_ahead(struct petal_mpsc *ring, struct look *look)
{
	uint64_t offset = look->tail & (ring->data_bytes - 1);
	uint64_t lap = look->tail - offset;
	struct petal_mpsc_extent extents[PETAL_MPSC_FENCES_MAX];
	unsigned count = petal_mpsc_fenced(ring, extents);

	look->barrier = lap + ring->data_bytes;
	look->past = look->barrier;
	for (unsigned i = 0; i < count; i++) {
		uint64_t from = lap + extents[i].offset;

		if (extents[i].offset < offset) {
			if (offset < extents[i].offset + extents[i].bytes)
				return petal_mpsc_head(ring) != look->head
					       ? 1
					       : -PETAL_ECORRUPT;
		} else if (from < look->barrier) {
			look->barrier = from;
			look->past = from + extents[i].bytes;
		}
	}
	return 0;
}

/* Whether quarantine leaves a piece as long as this anywhere. */
static bool has_piece(const struct petal_mpsc *ring, uint64_t bytes)
{
	struct petal_mpsc_extent extents[PETAL_MPSC_FENCES_MAX];
	unsigned count = petal_mpsc_fenced(ring, extents);
	uint64_t start = 0;

	/* From the beginning, and from each extent's end, to the next one. */
	for (unsigned i = 0; i <= count; i++) {
		uint64_t end = ring->data_bytes;

		for (unsigned n = 0; n < count; n++)
			if (extents[n].offset >= start &&
			    extents[n].offset < end)
				end = extents[n].offset;
		if (end - start >= bytes)
			return true;
		if (i < count)
			start = extents[i].offset + extents[i].bytes;
	}
	return false;
}

/* Claim what is left over before a barrier, as padding. 1 to try again. */
static int pad_to(struct petal_mpsc *ring, uint64_t *tail, uint64_t barrier)
{
	uint64_t pos = *tail;
	int err;

	if (!petal_mpsc_swap(ring, tail, barrier))
		return 1;
	err = petal_mpsc_pad(ring, pos, barrier);
	*tail = barrier;
	return err < 0 ? err : 1;
}

int petal_mpsc_make_room(struct petal_mpsc *ring, uint64_t extent,
			 uint64_t *tail)
{
	struct look look;
	uint64_t limit;
	int err = look_at_ends(ring, &look);

	if (err == 0)
		err = look_ahead(ring, &look);
	if (err)
		return err;
	*tail = look.tail;
	limit = look.head + ring->room_bytes;
	if (limit > look.barrier)
		limit = look.barrier;
	ring->limit_seen = limit;
	if (limit >= look.tail && limit - look.tail >= extent)
		return 0;
	if (limit < look.barrier || !has_piece(ring, extent))
		return -EAGAIN;
	if (look.barrier != look.tail)
		return pad_to(ring, tail, look.barrier);
	if (look.past > look.head + ring->room_bytes)
		return -EAGAIN;
	/* [CLAIM] As any other swap, but what it passes belongs to nobody. */
	if (petal_cas(&ring->shared->tail, tail, look.past,
		      PETAL_ACQ_REL(CLAIM)))
		*tail = look.past;
	return 1;
}

/* Whether the tail has come so far; one look at it often lasts for many. */
static bool has_reached(struct petal_mpsc *ring, uint64_t pos)
{
	if (pos > ring->tail_seen)
		ring->tail_seen = petal_mpsc_tail(ring);
	return pos <= ring->tail_seen;
}

/* Padding, by its own length. */
static int peek_padding(struct petal_mpsc *ring, uint64_t pos, uint64_t commit,
			struct petal_mpsc_view *ret_view)
{
	struct petal_record *record = petal_mpsc_record(ring, pos);
	uint32_t length =
		petal_load(petal_record_length(record), PETAL_RELAXED);

	if (petal_record_extent(length) > petal_mpsc_to_end(ring, pos))
		return -PETAL_ECORRUPT;
	*ret_view = (struct petal_mpsc_view){
		.record = record,
		.pos = pos,
		.end = pos + petal_record_extent(length),
		.length = length,
		.type = PETAL_RECORD_TYPE_PADDING,
		.owner = petal_record_owner(commit),
	};
	return 0;
}

/* Padding, by the fence table. */
static void peek_fenced(struct petal_mpsc *ring, uint64_t pos, uint64_t commit,
			uint64_t bytes, struct petal_mpsc_view *ret_view)
{
	*ret_view = (struct petal_mpsc_view){
		.record = petal_mpsc_record(ring, pos),
		.pos = pos,
		.end = pos + bytes,
		.length = (uint32_t)(bytes - PETAL_RECORD_HEADER_BYTES),
		.type = PETAL_RECORD_TYPE_PADDING,
		.owner = petal_record_owner(commit),
	};
}

int petal_mpsc_peek_other(struct petal_mpsc *ring, uint64_t pos,
			  uint64_t commit, struct petal_mpsc_view *ret_view)
{
	enum petal_record_state state = petal_record_state(commit);
	uint64_t word, bytes;

	if (commit != 0 && state == PETAL_RECORD_ABANDONED &&
	    petal_mpsc_of_lap(ring, commit, pos))
		return peek_padding(ring, pos, commit, ret_view);
	/* Before the tail's line is taken away from those who want to claim. */
	if (commit == 0 && petal_pace_missed(&ring->pace, ring->found) &&
	    petal_load(&petal_mpsc_record(ring, pos)->commit, PETAL_RELAXED))
		return petal_mpsc_peek(ring, pos, ret_view);
	word = petal_load(&ring->shared->tail, PETAL_RELAXED);
	ring->tail_seen = word & ~PETAL_MPSC_CLOSED;
	if (pos == ring->tail_seen)
		return word & PETAL_MPSC_CLOSED ? PETAL_RING_CLOSED
						: PETAL_RING_EMPTY;
	if (pos > ring->tail_seen)
		return -PETAL_ECORRUPT;
	if (commit == 0)
		return PETAL_RING_PENDING;
	bytes = petal_mpsc_fenced_at(ring, pos);
	if (state != PETAL_RECORD_FENCED || bytes == 0 ||
	    bytes > ring->tail_seen - pos)
		return -PETAL_ECORRUPT;
	peek_fenced(ring, pos, commit, bytes, ret_view);
	return 0;
}

/* [FREEING] Release: nothing is zeroed before freeing says so. */
static void lines_zero(struct petal_mpsc *ring, uint64_t from_pos,
		       uint64_t to_pos)
{
	for (uint64_t pos = from_pos; pos < to_pos; pos += PETAL_RECORD_ALIGN) {
		struct petal_u64 *line =
			(struct petal_u64 *)(void *)petal_mpsc_record(ring,
								      pos);

		petal_store(&line[0], 0, PETAL_RELEASE(FREEING));
		petal_store(&line[1], 0, PETAL_RELEASE(FREEING));
	}
}

/* Zero what lies between the extents that must not be touched. */
static void lines_zero_around(struct petal_mpsc *ring, uint64_t from_pos,
			      uint64_t to_pos)
{
	struct petal_mpsc_extent extents[PETAL_MPSC_FENCES_MAX];
	unsigned count = petal_mpsc_fenced(ring, extents);

	for (uint64_t pos = from_pos; pos < to_pos; pos += PETAL_RECORD_ALIGN) {
		uint64_t offset = pos & (ring->data_bytes - 1);
		bool free = true;

		for (unsigned i = 0; i < count; i++)
			free = free &&
			       (offset < extents[i].offset ||
				offset - extents[i].offset >= extents[i].bytes);
		if (free)
			lines_zero(ring, pos, pos + PETAL_RECORD_ALIGN);
	}
}

void petal_mpsc_release(struct petal_mpsc *ring, uint64_t to_pos)
{
	struct petal_mpsc_shared *shared = ring->shared;
	uint64_t head = petal_mpsc_head(ring);

	if (to_pos - head > ring->data_bytes ||
	    (to_pos | head) % PETAL_RECORD_ALIGN != 0 ||
	    !has_reached(ring, to_pos))
		return;
	petal_store(&shared->freeing, to_pos, PETAL_RELAXED);
	if (petal_load(&shared->fenced, PETAL_RELAXED) == 0) {
		lines_zero(ring, head, to_pos);
	} else {
		petal_mpsc_unfence(ring, head, to_pos);
		lines_zero_around(ring, head, to_pos);
	}
	/* [DRAIN] Release: our reads and the zeroes come before this. */
	petal_store(&shared->head, to_pos, PETAL_RELEASE(DRAIN));
	petal_store(&shared->gauge_head, to_pos, PETAL_RELAXED);
	petal_store(&shared->gauge_tail, ring->tail_seen, PETAL_RELAXED);
}
