/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/bcast_private.h"

#include <string.h>

/*
 * Publishing is in bcast_inl.h, reading in bcast_reader.c. Here is what happens
 * once, and once per chunk: making a ring, following a dead publisher, and
 * looking at the readers, who may be slow, dead, gone, or lying.
 */

static bool is_power_of_two(uint64_t x)
{
	return x != 0 && (x & (x - 1)) == 0;
}

/* Positions never wrap: what is left above these lasts for centuries. */
#define START_POS_MAX (UINT64_MAX - (UINT64_C(1) << 62))
#define POS_MAX (UINT64_MAX - (UINT64_C(1) << 61))

static bool is_far(const struct petal_bcast_geometry *shape)
{
	return shape->coherence == PETAL_SEGMENT_NONCOHERENT;
}

static bool is_shape(const struct petal_bcast_geometry *shape)
{
	bool spills = shape->spills > 0;

	return is_power_of_two(shape->data_bytes) &&
	       shape->data_bytes >= PETAL_BCAST_DATA_BYTES_MIN &&
	       shape->data_bytes <= PETAL_RECORD_RING_BYTES_MAX &&
	       shape->readers >= 1 &&
	       shape->readers <= PETAL_BCAST_READERS_MAX &&
	       shape->spills <= shape->readers &&
	       (spills ? is_power_of_two(shape->spill_bytes) &&
				 shape->spill_bytes >=
					 PETAL_BCAST_DATA_BYTES_MIN &&
				 shape->spill_bytes <= shape->data_bytes
		       : shape->spill_bytes == 0) &&
	       (shape->coherence == PETAL_SEGMENT_COHERENT || is_far(shape)) &&
	       shape->start_pos % petal_bcast_align(is_far(shape)) == 0 &&
	       shape->start_pos <= START_POS_MAX;
}

static uint64_t table_bytes(uint32_t readers)
{
	return sizeof(struct petal_bcast_shared) +
	       readers * (sizeof(struct petal_bcast_seat) +
			  sizeof(struct petal_bcast_cursor));
}

uint64_t petal_bcast_bytes(const struct petal_bcast_geometry *geometry)
{
	if (!is_shape(geometry))
		return 0;
	return table_bytes(geometry->readers) + geometry->data_bytes +
	       geometry->spills * geometry->spill_bytes;
}

static struct petal_bcast_map map_of(void *memory,
				     const struct petal_bcast_geometry *shape)
{
	uint8_t *bytes = memory;
	uint8_t *data = bytes + table_bytes(shape->readers);
	uint8_t *seats = bytes + sizeof(struct petal_bcast_shared);

	return (struct petal_bcast_map){
		.shared = memory,
		.seats = (void *)seats,
		.cursors = (void *)(seats +
				    shape->readers *
					    sizeof(struct petal_bcast_seat)),
		.data = data,
		.spill = data + shape->data_bytes,
		.data_bytes = shape->data_bytes,
		.spill_bytes = shape->spill_bytes,
		.readers = shape->readers,
		.spills = shape->spills,
		.far = is_far(shape),
	};
}

/* The first chunk whose end is not before @pos, seen a ring ahead. */
static uint64_t limit_for(uint64_t pos, uint64_t data_bytes)
{
	uint64_t chunk = data_bytes / PETAL_BCAST_CHUNKS;

	return pos / chunk * chunk + data_bytes;
}

int petal_bcast_format(void *memory,
		       const struct petal_bcast_geometry *geometry)
{
	struct petal_bcast_shared *shared = memory;
	struct petal_bcast_map map;
	uint64_t limit;

	if (!is_shape(geometry) || (uintptr_t)memory % PETAL_RECORD_ALIGN != 0)
		return -EINVAL;
	if (is_far(geometry) && petal_cache_check() != 0)
		return -EOPNOTSUPP;

	map = map_of(memory, geometry);
	limit = limit_for(geometry->start_pos, geometry->data_bytes);
	/* Whatever was here before is no ring until we are done. */
	petal_store(&shared->magic, 0, PETAL_RELAXED);
	petal_bcast_show(&map, shared, sizeof(shared->magic));
	memset((uint8_t *)memory + sizeof(shared->magic), 0,
	       table_bytes(geometry->readers) - sizeof(shared->magic));
	petal_store(&shared->layout, PETAL_BCAST_LAYOUT, PETAL_RELAXED);
	petal_store(&shared->readers, geometry->readers, PETAL_RELAXED);
	petal_store(&shared->data_bytes, geometry->data_bytes, PETAL_RELAXED);
	petal_store(&shared->spill_bytes, geometry->spill_bytes, PETAL_RELAXED);
	petal_store(&shared->spills, geometry->spills, PETAL_RELAXED);
	petal_store(&shared->coherence, (uint32_t)geometry->coherence,
		    PETAL_RELAXED);
	petal_store(&shared->tail, geometry->start_pos, PETAL_RELAXED);
	petal_store(&shared->limit, limit, PETAL_RELAXED);
	petal_store(&shared->intent, limit, PETAL_RELAXED);
	for (uint32_t i = 0; i < PETAL_BCAST_MARKS; i++)
		petal_store(&shared->marks[i], geometry->start_pos,
			    PETAL_RELAXED);
	petal_store(&petal_bcast_at(&map, geometry->start_pos)->commit,
		    petal_bcast_commit(PETAL_RECORD_FREE, 0), PETAL_RELAXED);
	if (petal_bcast_is_far(&map))
		petal_cache_writeback(petal_bcast_at(&map, geometry->start_pos),
				      PETAL_RECORD_HEADER_BYTES);
	petal_bcast_show(&map, shared, table_bytes(geometry->readers));
	/* [FORMAT] Release: who sees the magic sees all of the above. */
	petal_store(&shared->magic, PETAL_BCAST_MAGIC, PETAL_RELEASE(FORMAT));
	petal_bcast_show(&map, shared, sizeof(shared->magic));
	return 0;
}

/* Each word of the shape is loaded once; what is checked is the copy. */
static int map_load(void *memory, uint64_t bytes,
		    struct petal_bcast_map *ret_map)
{
	struct petal_bcast_shared *shared = memory;
	struct petal_bcast_geometry shape = { .start_pos = 0 };

	/* [FORMAT] Acquire: the shape was stored before the magic. */
	if (petal_load(&shared->magic, PETAL_ACQUIRE(FORMAT)) !=
	    PETAL_BCAST_MAGIC)
		return -EINVAL;
	if (petal_load(&shared->layout, PETAL_RELAXED) != PETAL_BCAST_LAYOUT)
		return -PETAL_EVERSION;
	shape.readers = petal_load(&shared->readers, PETAL_RELAXED);
	shape.spills = petal_load(&shared->spills, PETAL_RELAXED);
	shape.data_bytes = petal_load(&shared->data_bytes, PETAL_RELAXED);
	shape.spill_bytes = petal_load(&shared->spill_bytes, PETAL_RELAXED);
	shape.coherence = (enum petal_segment_coherence)petal_load(
		&shared->coherence, PETAL_RELAXED);
	if (!is_shape(&shape) || petal_bcast_bytes(&shape) > bytes)
		return -PETAL_EGEOMETRY;
	*ret_map = map_of(memory, &shape);
	return 0;
}

/*
 * Non-coherent memory holds no coherent rings, so who finds one has not been
 * deceived by an old line. Whatever else it finds, it looks again.
 */
int petal_bcast_map(void *memory, uint64_t bytes,
		    struct petal_bcast_map *ret_map)
{
	struct petal_bcast_map map;
	int err;

	if ((uintptr_t)memory % PETAL_RECORD_ALIGN != 0)
		return -EINVAL;
	if (bytes < sizeof(*map.shared))
		return -PETAL_EGEOMETRY;
	err = map_load(memory, bytes, &map);
	if (err || petal_bcast_is_far(&map)) {
		if (petal_cache_check() != 0)
			return err ? err : -EOPNOTSUPP;
		petal_cache_invalidate(memory, sizeof(*map.shared));
		err = map_load(memory, bytes, &map);
	}
	if (err)
		return err;
	petal_bcast_refresh(&map, map.seats,
			    table_bytes(map.readers) - sizeof(*map.shared));
	*ret_map = map;
	return 0;
}

bool petal_bcast_free(const struct petal_bcast_map *map, uint32_t seat,
		      uint64_t word)
{
	uint64_t empty = petal_bcast_word_gen(word) << 32 | PETAL_BCAST_FREE;

	/* [SEAT] Release: whoever sits here next comes after us. */
	if (!petal_cas(&map->seats[seat].word, &word, empty,
		       PETAL_RELEASE(SEAT)))
		return false;
	/* What is shown next fences: a count, a limit, or another's seat. */
	if (petal_bcast_is_far(map))
		petal_cache_writeback(&map->seats[seat],
				      sizeof(map->seats[seat]));
	return true;
}

/*
 * Behind tail there may be one batch whose publisher died between its first
 * commit word and tail. Each step passes one record, so the ring bounds them.
 */
static int find_end(struct petal_bcast *ring)
{
	const struct petal_bcast_map *map = &ring->map;
	uint64_t pos = ring->tail;
	uint64_t commit, ordinal;

	petal_bcast_refresh(map, petal_bcast_at(map, pos),
			    PETAL_RECORD_HEADER_BYTES);
	/* [FILL] Acquire: with the commit word comes the batch. */
	commit = petal_load(&petal_bcast_at(map, pos)->commit,
			    PETAL_ACQUIRE(FILL));
	ordinal = petal_bcast_ordinal(commit);
	while (commit != petal_bcast_commit(PETAL_RECORD_FREE, ordinal)) {
		struct petal_bcast_view view;

		if (!petal_bcast_see(map, map->far, pos, ordinal, &view) ||
		    view.end - ring->tail >= map->data_bytes)
			return -PETAL_ECORRUPT;
		if (commit ==
		    petal_bcast_commit(PETAL_RECORD_PUBLISHED, ordinal))
			ordinal++;
		else if (commit !=
			 petal_bcast_commit(PETAL_RECORD_ABANDONED, ordinal))
			return -PETAL_ECORRUPT;
		pos = view.end;
		petal_bcast_refresh(map, petal_bcast_at(map, pos),
				    PETAL_RECORD_HEADER_BYTES);
		commit = petal_load(&petal_bcast_at(map, pos)->commit,
				    PETAL_RELAXED);
	}
	ring->tail = pos;
	ring->ordinal = ordinal;
	return 0;
}

int petal_bcast_attach(void *memory, uint64_t bytes,
		       struct petal_bcast *ret_ring)
{
	struct petal_bcast ring;
	uint64_t limit;
	int err;

	memset(&ring, 0, sizeof(ring));
	err = petal_bcast_map(memory, bytes, &ring.map);
	if (err)
		return err;
	ring.chunk_bytes = ring.map.data_bytes / PETAL_BCAST_CHUNKS;
	/* [TAIL] Acquire: there is a header at tail. */
	ring.tail = petal_load(&ring.map.shared->tail, PETAL_ACQUIRE(TAIL));
	limit = petal_load(&ring.map.shared->limit, PETAL_RELAXED);
	if (ring.tail % petal_bcast_align(ring.map.far) != 0 ||
	    ring.tail > POS_MAX || limit % ring.chunk_bytes != 0 ||
	    limit - ring.tail > ring.map.data_bytes)
		return -PETAL_ECORRUPT;
	err = find_end(&ring);
	if (err)
		return err;

	ring.claimed = ring.tail;
	ring.published = ring.ordinal;
	/* Marks of chunks that a whole batch crossed were stored before it. */
	ring.mark_pos = (ring.tail / ring.chunk_bytes + 1) * ring.chunk_bytes;
	petal_store(&ring.map.shared->tail, ring.tail, PETAL_RELEASE(TAIL));
	petal_bcast_show(&ring.map, &ring.map.shared->tail,
			 sizeof(ring.map.shared->tail));
	/* What the dead one meant to write over, and did not, is whole. */
	petal_store(&ring.map.shared->intent, limit, PETAL_RELAXED);
	ring.closed = petal_load(&ring.map.shared->closed, PETAL_RELAXED) != 0;
	ring.limit = ring.closed ? 0 : limit;
	ring.reach = ring.map.far ? 0 : ring.limit;
	ring.length_max = (uint32_t)(ring.map.data_bytes / 4 -
				     petal_bcast_frame(ring.map.far));
	if (ring.map.data_bytes / 4 > UINT32_MAX)
		ring.length_max = UINT32_MAX;
	*ret_ring = ring;
	return 0;
}

void petal_bcast_close(struct petal_bcast *ring)
{
	petal_bcast_abort(ring);
	ring->closed = true;
	ring->limit = 0;
	ring->reach = 0;
	/* [CLOSE] Release: all that was published is before it. */
	petal_store(&ring->map.shared->closed, ring->tail + 1,
		    PETAL_RELEASE(CLOSE));
	petal_bcast_show(&ring->map, &ring->map.shared->closed,
			 sizeof(ring->map.shared->closed));
}

void petal_bcast_mark(struct petal_bcast *ring, uint64_t start)
{
	while (ring->mark_pos <= start) {
		struct petal_u64 *mark =
			petal_bcast_mark_at(&ring->map, ring->mark_pos);

		petal_store(mark, start, PETAL_RELAXED);
		/* Publish fences, before it shows what lies behind. */
		if (petal_bcast_is_far(&ring->map))
			petal_cache_writeback(mark, sizeof(*mark));
		ring->mark_pos += ring->chunk_bytes;
	}
}

/*
 * Where the first record starts that the limit leaves alone. A mark that
 * somebody spoilt must not lead out of what there is.
 */
static uint64_t oldest(const struct petal_bcast *ring, uint64_t limit)
{
	uint64_t from = limit - ring->map.data_bytes;
	uint64_t pos = petal_load(petal_bcast_mark_at(&ring->map, from),
				  PETAL_RELAXED);

	return pos % PETAL_BCAST_ALIGN == 0 && pos >= from && pos <= ring->tail
		       ? pos
		       : from;
}

/* A seat that has another reader than last time: nothing is known of it. */
static void meet(struct petal_bcast *ring, uint32_t seat, uint64_t word)
{
	struct petal_bcast_known *known = &ring->known[seat];
	const struct petal_bcast_map *map = &ring->map;

	known->word = word;
	known->pos = ring->limit - map->data_bytes;
	known->spilled_pos = oldest(ring, ring->limit);
	known->spill_pos =
		petal_load(&map->seats[seat].spill_tail, PETAL_RELAXED) -
		map->spill_bytes;
	known->cursor = word & PETAL_BCAST_WORD_EXTERNAL ? NULL
							 : &map->cursors[seat];
}

/* Look at a reader's line. One that has left wants nothing up to here. */
static void look(struct petal_bcast *ring, uint32_t seat)
{
	struct petal_bcast_known *known = &ring->known[seat];
	uint64_t place;

	if (!known->cursor)
		return;
	petal_bcast_refresh(&ring->map, known->cursor, sizeof(*known->cursor));
	/* [DRAIN] Acquire: nor will it read any more. */
	if (petal_load(&known->cursor->left, PETAL_ACQUIRE(DRAIN)) ==
	    known->word) {
		petal_bcast_free(&ring->map, seat, known->word);
		known->pos = ring->tail;
		return;
	}
	/* [DRAIN] Acquire: what is before it has been read. */
	place = petal_load(&known->cursor->place, PETAL_ACQUIRE(DRAIN));
	known->pos = petal_bcast_place_pos(place, known->word, known->pos,
					   ring->tail);
}

/*
 * Whether a copy of @bytes fits. The tail comes out of shared memory: one that
 * is behind the reader, or further ahead than the area is long, fits nothing.
 */
static bool spill_has_room(const struct petal_bcast *ring, uint32_t seat,
			   uint64_t tail, uint64_t bytes)
{
	uint64_t used = tail - ring->known[seat].spill_pos;

	return used <= ring->map.spill_bytes &&
	       bytes <= ring->map.spill_bytes - used;
}

/*
 * The same; looks at the reader only if it seems not to. Of a far ring, its line
 * was refreshed by the look that found it behind.
 */
static bool spill_fits(struct petal_bcast *ring, uint32_t seat, uint64_t tail,
		       uint64_t bytes)
{
	struct petal_bcast_known *known = &ring->known[seat];

	if (!spill_has_room(ring, seat, tail, bytes) && known->cursor) {
		/* [DRAIN] Acquire: copies before it have been read. */
		uint64_t place =
			petal_load(&known->cursor->spill, PETAL_ACQUIRE(DRAIN));

		known->spill_pos = petal_bcast_place_pos(
			place, known->word, known->spill_pos, tail);
	}
	return spill_has_room(ring, seat, tail, bytes);
}

static bool spill_one(struct petal_bcast *ring, uint32_t seat,
		      const struct petal_bcast_view *view)
{
	const struct petal_bcast_map *map = &ring->map;
	struct petal_u64 *word = &map->seats[seat].spill_tail;
	uint64_t tail = petal_load(word, PETAL_RELAXED) &
			~(uint64_t)(PETAL_BCAST_ALIGN - 1);
	uint64_t rest = map->spill_bytes - (tail & (map->spill_bytes - 1));
	uint64_t bytes = petal_bcast_copy_bytes(view->length);
	uint64_t pad = bytes > rest ? rest : 0;
	struct petal_bcast_copy *copy;

	if (!spill_fits(ring, seat, tail, bytes + pad))
		return false;
	/* What does not hold a header is passed over without one. */
	if (pad >= sizeof(*copy)) {
		copy = petal_bcast_copy_at(map, seat, tail);
		petal_store(&copy->skip, 1, PETAL_RELAXED);
		if (petal_bcast_is_far(map))
			petal_cache_writeback(copy, sizeof(*copy));
	}
	copy = petal_bcast_copy_at(map, seat, tail + pad);
	petal_store(&copy->pos, view->pos, PETAL_RELAXED);
	petal_store(&copy->ordinal, view->ordinal, PETAL_RELAXED);
	petal_store(&copy->length, view->length, PETAL_RELAXED);
	petal_store(&copy->type, view->type, PETAL_RELAXED);
	petal_store(&copy->skip, 0, PETAL_RELAXED);
	memcpy(copy + 1, view->payload, view->length);
	if (petal_bcast_is_far(map))
		petal_store(&copy->crc, petal_bcast_far_copy_crc(view),
			    PETAL_RELAXED);
	petal_bcast_show(map, copy, bytes);
	/* [SPILL] Release: the copy is whole. */
	petal_store(word, tail + pad + bytes, PETAL_RELEASE(SPILL));
	if (petal_bcast_is_far(map))
		petal_cache_writeback(word, sizeof(*word));
	/* This fences as well. */
	petal_bcast_count(map, &map->shared->spilled);
	return true;
}

/* Copy what starts before @to. Return: how far it got. */
static uint64_t spill(struct petal_bcast *ring, uint32_t seat, uint64_t from,
		      uint64_t to)
{
	const struct petal_bcast_map *map = &ring->map;
	uint64_t pos = from;

	while (pos < to && pos < ring->tail) {
		uint64_t commit = petal_load(&petal_bcast_at(map, pos)->commit,
					     PETAL_RELAXED);
		struct petal_bcast_view view;

		if (!petal_bcast_see(map, map->far, pos,
				     petal_bcast_ordinal(commit), &view))
			break;
		if (petal_record_state(commit) == PETAL_RECORD_PUBLISHED &&
		    !spill_one(ring, seat, &view))
			break;
		pos = view.end;
	}
	return pos;
}

static uint64_t evict(struct petal_bcast *ring, uint32_t seat, uint64_t word)
{
	if (petal_bcast_free(&ring->map, seat, word))
		petal_bcast_count(&ring->map, &ring->map.shared->evicted);
	return UINT64_MAX;
}

static uint64_t horizon_evict(struct petal_bcast *ring, uint32_t seat,
			      uint64_t need, uint64_t next)
{
	struct petal_bcast_known *known = &ring->known[seat];
	uint64_t data_bytes = ring->map.data_bytes;
	uint64_t bound =
		petal_load(&ring->map.seats[seat].bound_bytes, PETAL_RELAXED);
	uint64_t reach = bound < data_bytes - ring->chunk_bytes
				 ? bound + ring->chunk_bytes
				 : data_bytes;

	if (next > known->pos + reach)
		look(ring, seat);
	if (next > known->pos + data_bytes || need > known->pos + bound)
		return evict(ring, seat, known->word);
	return known->pos + reach;
}

static uint64_t horizon_spill(struct petal_bcast *ring, uint32_t seat,
			      uint64_t next)
{
	struct petal_bcast_known *known = &ring->known[seat];
	uint64_t data_bytes = ring->map.data_bytes;

	if (next > known->pos + data_bytes)
		look(ring, seat);
	if (known->spilled_pos < known->pos)
		known->spilled_pos = known->pos;
	if (next <= known->spilled_pos + data_bytes)
		return known->spilled_pos + data_bytes;
	known->spilled_pos =
		spill(ring, seat, known->spilled_pos, next - data_bytes);
	if (next <= known->spilled_pos + data_bytes)
		return known->spilled_pos + data_bytes;
	switch (petal_bcast_word_full(known->word)) {
	case PETAL_BCAST_DROP_OLDEST:
		known->spilled_pos = oldest(ring, next);
		return next;
	case PETAL_BCAST_EVICT:
		return evict(ring, seat, known->word);
	default:
		return known->spilled_pos + data_bytes;
	}
}

static uint64_t horizon_block(struct petal_bcast *ring, uint32_t seat,
			      uint64_t next)
{
	struct petal_bcast_known *known = &ring->known[seat];

	if (next > known->pos + ring->map.data_bytes)
		look(ring, seat);
	return known->pos + ring->map.data_bytes;
}

/* How far one seat lets us go. May evict it, or copy for it. */
static uint64_t horizon_of(struct petal_bcast *ring, uint32_t seat,
			   uint64_t need, uint64_t next)
{
	struct petal_bcast_known *known = &ring->known[seat];
	/* [SEAT] Acquire: cursor and bound are of whom the word names. */
	uint64_t word =
		petal_load(&ring->map.seats[seat].word, PETAL_ACQUIRE(SEAT));

	if (petal_bcast_word_state(word) != PETAL_BCAST_ACTIVE)
		return UINT64_MAX;
	if (known->word != word)
		meet(ring, seat, word);
	switch (petal_bcast_word_policy(word)) {
	case PETAL_BCAST_DROP_OLDEST:
		return UINT64_MAX;
	case PETAL_BCAST_EVICT:
		return horizon_evict(ring, seat, need, next);
	case PETAL_BCAST_SPILL:
		/* A word gone mad must not lead outside of the areas. */
		return seat < ring->map.spills
			       ? horizon_spill(ring, seat, next)
			       : horizon_block(ring, seat, next);
	default:
		return horizon_block(ring, seat, next);
	}
}

static void scan(struct petal_bcast *ring, uint64_t need, uint64_t next)
{
	uint64_t horizon = UINT64_MAX;

	/* [SEAT] Acquire: who is counted has its seat set. */
	ring->joins_seen =
		petal_load(&ring->map.shared->joins, PETAL_ACQUIRE(SEAT));
	for (uint32_t i = 0; i < ring->map.readers; i++) {
		uint64_t reach = horizon_of(ring, i, need, next);

		horizon = reach < horizon ? reach : horizon;
	}
	ring->horizon = horizon;
}

/* Return: whether no reader that joins now can be overtaken unseen. */
static bool announce(struct petal_bcast *ring, uint64_t need, uint64_t next)
{
	struct petal_bcast_shared *shared = ring->map.shared;

	/* [JOIN] Release: marks up to it are stored. */
	petal_store(&shared->intent, next, PETAL_RELEASE(JOIN));
	/* [JOIN] A joiner sees our intent, or we see that it has joined. */
	petal_fence(PETAL_SEQ_CST(JOIN));
	if (petal_load(&shared->joins, PETAL_RELAXED) != ring->joins_seen)
		scan(ring, need, next);
	if (next <= ring->horizon)
		return true;
	petal_store(&shared->intent, ring->limit, PETAL_RELAXED);
	return false;
}

int petal_bcast_room(struct petal_bcast *ring, uint64_t need)
{
	struct petal_bcast_shared *shared = ring->map.shared;

	if (ring->closed)
		return -EPIPE;
	while (need > ring->limit) {
		uint64_t next = ring->limit + ring->chunk_bytes;

		if (next - ring->map.data_bytes > ring->tail) {
			/* A batch that alone would fill the ring. */
			petal_bcast_count(&ring->map, &shared->refused);
			return -EAGAIN;
		}
		if (next > ring->horizon)
			scan(ring, need, next);
		if (next > ring->horizon || !announce(ring, need, next)) {
			petal_bcast_count(&ring->map, &shared->refused);
			return -EAGAIN;
		}
		/* [LIMIT] Release: marks and spilled copies are before it. */
		petal_store(&shared->limit, next, PETAL_RELEASE(LIMIT));
		petal_bcast_show(&ring->map, &shared->limit,
				 sizeof(shared->limit));
		/* [LAP] Nothing is overwritten before the limit says so. */
		petal_fence(PETAL_RELEASE(LAP));
		ring->limit = next;
		ring->reach = ring->map.far ? 0 : next;
	}
	return 0;
}

uint64_t petal_bcast_lag(struct petal_bcast *ring)
{
	uint64_t lag = 0;

	for (uint32_t i = 0; i < ring->map.readers; i++) {
		struct petal_bcast_known *known = &ring->known[i];
		/* [SEAT] Acquire: the cursor is of whom the word names. */
		uint64_t word = petal_load(&ring->map.seats[i].word,
					   PETAL_ACQUIRE(SEAT));

		if (petal_bcast_word_state(word) != PETAL_BCAST_ACTIVE)
			continue;
		if (known->word != word)
			meet(ring, i, word);
		look(ring, i);
		if (petal_bcast_word_policy(word) == PETAL_BCAST_DROP_OLDEST)
			continue;
		if (ring->tail - known->pos > lag)
			lag = ring->tail - known->pos;
	}
	return lag;
}

static void seat_known(struct petal_bcast *ring, void *cursor,
		       const struct petal_bcast_ticket *ticket)
{
	struct petal_bcast_known *known = &ring->known[ticket->seat];

	meet(ring, ticket->seat, ticket->word);
	known->cursor = cursor;
	/* The next chunk is asked for only after a look at this reader. */
	ring->horizon = 0;
}

int petal_bcast_admit(struct petal_bcast *ring, void *cursor,
		      const struct petal_bcast_options *options,
		      struct petal_bcast_ticket *ret_ticket)
{
	struct petal_bcast_ticket ticket;
	int err;

	if ((uintptr_t)cursor % PETAL_RECORD_ALIGN != 0)
		return -EINVAL;
	/* Who cannot write here has only told its own line that it left. */
	petal_bcast_lag(ring);
	err = petal_bcast_sit(&ring->map, true, options, &ticket);
	if (err)
		return err;
	/* Nobody writes over it meanwhile, for that would be us. */
	ticket.ordinal = petal_bcast_ordinal(
		petal_load(&petal_bcast_at(&ring->map, ticket.pos)->commit,
			   PETAL_RELAXED));
	seat_known(ring, cursor, &ticket);
	ring->known[ticket.seat].pos = ticket.pos;
	ring->known[ticket.seat].spill_pos = ticket.spill_pos;
	*ret_ticket = ticket;
	return 0;
}

int petal_bcast_adopt(struct petal_bcast *ring, void *cursor,
		      const struct petal_bcast_ticket *ticket)
{
	if ((uintptr_t)cursor % PETAL_RECORD_ALIGN != 0 ||
	    ticket->seat >= ring->map.readers)
		return -EINVAL;
	/* [SEAT] Acquire: as in any look at a seat. */
	if (petal_load(&ring->map.seats[ticket->seat].word,
		       PETAL_ACQUIRE(SEAT)) != ticket->word)
		return -ESTALE;
	seat_known(ring, cursor, ticket);
	return 0;
}

int petal_bcast_evict(struct petal_bcast *ring, uint32_t seat, uint64_t word)
{
	if (seat >= ring->map.readers)
		return -EINVAL;
	if (petal_bcast_word_state(word) != PETAL_BCAST_ACTIVE ||
	    !petal_bcast_free(&ring->map, seat, word))
		return -ESTALE;
	petal_bcast_count(&ring->map, &ring->map.shared->evicted);
	return 0;
}
