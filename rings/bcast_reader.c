/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/bcast_private.h"

/*
 * The happy path is in bcast_inl.h: the next record is where it should be. Here
 * is taking a seat and losing it, and what else a reader may find: nothing, the
 * end of the data, that it was overtaken, copies in its spill area.
 */

/* How much may be passed over in one call, in records. */
#define SKIPS_MAX 256
#define TRIES_MAX 8

static bool is_options(const struct petal_bcast_map *map,
		       const struct petal_bcast_options *options)
{
	if (options->owner >= PETAL_BCAST_OWNERS)
		return false;
	if (options->policy == PETAL_BCAST_SPILL)
		return map->spills > 0 && options->full < PETAL_BCAST_SPILL;
	return options->policy < PETAL_BCAST_SPILL;
}

/* A reader that died, or stopped, on its way out has said so in its cursor. */
static bool has_left(const struct petal_bcast_map *map, uint32_t seat,
		     uint64_t word)
{
	/* [DRAIN] Acquire: it will not read any more. */
	return petal_bcast_word_state(word) == PETAL_BCAST_ACTIVE &&
	       !(word & PETAL_BCAST_WORD_EXTERNAL) &&
	       petal_load(&map->cursors[seat].left, PETAL_ACQUIRE(DRAIN)) ==
		       word;
}

static bool take(const struct petal_bcast_map *map, uint32_t seat,
		 uint64_t identity, uint64_t *ret_word)
{
	struct petal_u64 *word = &map->seats[seat].word;
	uint64_t was = petal_load(word, PETAL_RELAXED);
	uint64_t now;

	if (petal_bcast_word_state(was) != PETAL_BCAST_FREE &&
	    !has_left(map, seat, was))
		return false;
	now = (petal_bcast_word_gen(was) + 1) << 32 | identity |
	      PETAL_BCAST_JOINING;
	/* [SEAT] Acquire: what the one before us did here is done. */
	if (!petal_cas(word, &was, now, PETAL_ACQUIRE(SEAT)))
		return false;
	*ret_word = now;
	return true;
}

/* Seats with a spill area are kept for those who spill, while others are. */
static int find_seat(const struct petal_bcast_map *map, uint64_t identity,
		     enum petal_bcast_policy policy, uint32_t *ret_seat,
		     uint64_t *ret_word)
{
	bool spills = policy == PETAL_BCAST_SPILL;
	uint32_t seats = spills ? map->spills : map->readers;

	for (uint32_t i = 0; i < seats; i++) {
		uint32_t seat = spills ? i : map->readers - 1 - i;

		if (take(map, seat, identity, ret_word)) {
			*ret_seat = seat;
			return 0;
		}
	}
	return -EAGAIN;
}

static uint64_t whole(uint64_t pos)
{
	return pos & ~(uint64_t)(PETAL_BCAST_ALIGN - 1);
}

/*
 * Where the first record starts that a limit leaves alone. Return: false when
 * the ring has gone on for laps since, and the mark is of another chunk.
 */
static bool mark_of_limit(const struct petal_bcast_map *map, uint64_t limit,
			  uint64_t *ret_pos)
{
	uint64_t from = limit - map->data_bytes;

	*ret_pos = whole(
		petal_load(petal_bcast_mark_at(map, from), PETAL_RELAXED));
	return *ret_pos - from < map->data_bytes;
}

static bool oldest_place(const struct petal_bcast_map *map, uint64_t *ret_pos)
{
	/* [LIMIT] Acquire: the mark of its chunk is stored. */
	uint64_t limit = petal_load(&map->shared->limit, PETAL_ACQUIRE(LIMIT));

	return mark_of_limit(map, limit, ret_pos);
}

static uint64_t next_place(const struct petal_bcast_map *map)
{
	/* [TAIL] Acquire: there is a header at tail, and at marks before it. */
	return whole(petal_load(&map->shared->tail, PETAL_ACQUIRE(TAIL)));
}

/*
 * Where a record starts: the first of the chunk that is so much @ahead of the
 * oldest one, or else the next one.
 */
static uint64_t place_ahead(const struct petal_bcast_map *map, uint64_t ahead)
{
	uint64_t limit = petal_load(&map->shared->limit, PETAL_RELAXED);
	uint64_t mark;
	bool is_known = mark_of_limit(map, limit + ahead, &mark);
	uint64_t next = next_place(map);

	return is_known && mark < next ? mark : next;
}

/* Where a reader would begin, as far as can be known before it has a seat. */
static uint64_t first_place(const struct petal_bcast_map *map,
			    enum petal_bcast_from from)
{
	uint64_t oldest;

	return from == PETAL_BCAST_FROM_OLDEST && oldest_place(map, &oldest)
		       ? oldest
		       : next_place(map);
}

/* Late stores of who had the seat before compare with its own generation. */
static int set_place(struct petal_u64 *place, uint64_t value)
{
	uint64_t was = petal_load(place, PETAL_RELAXED);

	for (int i = 0; i < TRIES_MAX; i++)
		if (petal_cas(place, &was, value, PETAL_RELAXED))
			return 0;
	return -EAGAIN;
}

static int set_cursor(struct petal_bcast_cursor *cursor,
		      const struct petal_bcast_ticket *ticket)
{
	int err = set_place(&cursor->place,
			    petal_bcast_place(ticket->word, ticket->pos));

	petal_store(&cursor->lost, 0, PETAL_RELAXED);
	if (err)
		return err;
	return set_place(&cursor->spill,
			 petal_bcast_place(ticket->word, ticket->spill_pos));
}

/* The word that a reader of these options has, but for state and generation */
static uint64_t identity_of(const struct petal_bcast_options *options,
			    bool external)
{
	return (uint64_t)options->policy << 4 | (uint64_t)options->full << 8 |
	       (external ? PETAL_BCAST_WORD_EXTERNAL : 0) |
	       (uint64_t)options->owner << 16;
}

static uint64_t bound_of(const struct petal_bcast_map *map,
			 const struct petal_bcast_options *options)
{
	uint64_t bound = options->bound_bytes;

	return bound == 0 || bound > map->data_bytes ? map->data_bytes : bound;
}

/*
 * We have a seat; but the publisher, which may not have seen it, may be about
 * to overtake the place that we found before we had it.
 */
static void meet_publisher(const struct petal_bcast_map *map, bool external,
			   struct petal_bcast_ticket *ticket)
{
	uint64_t was = petal_bcast_place(ticket->word, ticket->pos);
	uint64_t intent;

	/* [SEAT] Release: who sees the sum sees the seat. */
	petal_add(&map->shared->joins, 1, PETAL_RELEASE(SEAT));
	/* [JOIN] We see the intent, or the publisher sees that we joined. */
	petal_fence(PETAL_SEQ_CST(JOIN));
	/* [JOIN] Acquire: the marks up to the intent are stored. */
	intent = petal_load(&map->shared->intent, PETAL_ACQUIRE(JOIN));
	if ((int64_t)(intent - map->data_bytes - ticket->pos) <= 0)
		return;
	if (!mark_of_limit(map, intent, &ticket->pos))
		ticket->pos = next_place(map);
	if (!external)
		petal_cas(&map->cursors[ticket->seat].place, &was,
			  petal_bcast_place(ticket->word, ticket->pos),
			  PETAL_RELEASE(DRAIN));
}

int petal_bcast_sit(const struct petal_bcast_map *map, bool external,
		    const struct petal_bcast_options *options,
		    struct petal_bcast_ticket *ret_ticket)
{
	struct petal_bcast_ticket ticket = { .reserved = 0 };
	struct petal_bcast_seat *seat;
	uint64_t joining;
	int err;

	if (!is_options(map, options))
		return -EINVAL;
	err = find_seat(map, identity_of(options, external), options->policy,
			&ticket.seat, &joining);
	if (err)
		return err;
	seat = &map->seats[ticket.seat];
	ticket.word = joining - PETAL_BCAST_JOINING + PETAL_BCAST_ACTIVE;
	ticket.pos = first_place(map, options->from);
	ticket.spill_pos = whole(petal_load(&seat->spill_tail, PETAL_RELAXED));
	petal_store(&seat->bound_bytes, bound_of(map, options), PETAL_RELAXED);
	if (!external)
		err = set_cursor(&map->cursors[ticket.seat], &ticket);
	if (err) {
		petal_bcast_free(map, ticket.seat, joining);
		return err;
	}
	/* [SEAT] Release: cursor and bound are ours now. */
	if (!petal_cas(&seat->word, &joining, ticket.word, PETAL_RELEASE(SEAT)))
		return -ESTALE;
	meet_publisher(map, external, &ticket);
	petal_bcast_show(map, seat, sizeof(*seat));
	*ret_ticket = ticket;
	return 0;
}

/* As it is now, where a copy of the seat's line may be old. */
static bool is_still_ours(const struct petal_bcast_reader *reader)
{
	const struct petal_bcast_seat *seat = &reader->map.seats[reader->seat];

	petal_bcast_refresh(&reader->map, seat, sizeof(*seat));
	return petal_bcast_is_ours(reader);
}

bool petal_bcast_check_again(struct petal_bcast_reader *reader,
			     const struct petal_bcast_view *view)
{
	if (view->spilled)
		return is_still_ours(reader);
	return !petal_bcast_is_lapped_now(&reader->map, view->pos);
}

/*
 * Find the oldest record that is left. A publisher that is faster than such a
 * look is met further on by a chunk, @stride, at each further try, and at tail
 * where nothing else is known. Return: 0, or -EAGAIN if overtaken each time.
 */
static int find_oldest(const struct petal_bcast_map *map, uint64_t stride,
		       uint64_t *ret_pos, uint64_t *ret_ordinal)
{
	for (uint64_t i = 0; i < TRIES_MAX; i++) {
		uint64_t pos, commit;

		petal_bcast_refresh(map, map->shared->marks,
				    sizeof(map->shared->marks));
		if (i * stride > 0)
			pos = place_ahead(map, i * stride);
		else if (!oldest_place(map, &pos))
			continue;
		petal_bcast_refresh(map, petal_bcast_at(map, pos),
				    PETAL_RECORD_HEADER_BYTES);
		commit = petal_load(&petal_bcast_at(map, pos)->commit,
				    PETAL_RELAXED);
		/* [LAP] It was a header, or the limit has moved. */
		petal_fence(PETAL_ACQUIRE(LAP));
		if (petal_bcast_is_lapped_now(map, pos))
			continue;
		*ret_pos = pos;
		*ret_ordinal = petal_bcast_ordinal(commit);
		return 0;
	}
	return -EAGAIN;
}

/* Go to where the ticket says. */
static void begin(struct petal_bcast_reader *reader,
		  const struct petal_bcast_ticket *ticket)
{
	const struct petal_bcast_map *map = &reader->map;

	reader->word = ticket->word;
	reader->seat = ticket->seat;
	reader->policy = petal_bcast_word_policy(ticket->word);
	reader->long_way = reader->policy == PETAL_BCAST_SPILL ||
			   petal_bcast_is_far(map);
	reader->pos = ticket->pos;
	reader->ordinal = ticket->ordinal;
	reader->stored_pos = ticket->pos;
	reader->spill_pos = ticket->spill_pos;
	reader->stored_spill = ticket->spill_pos;
	reader->step_bytes = petal_load(&map->seats[reader->seat].bound_bytes,
					PETAL_RELAXED) /
			     4;
	if (reader->step_bytes > map->data_bytes / 4)
		reader->step_bytes = map->data_bytes / 4;
	petal_pace_init(&reader->pace, reader->ordinal);
}

/* Which number is there, or the oldest record if that place is gone. */
static int find_start(struct petal_bcast_reader *reader)
{
	const struct petal_bcast_map *map = &reader->map;
	int err = 0;

	reader->ordinal = petal_bcast_ordinal(petal_load(
		&petal_bcast_at(map, reader->pos)->commit, PETAL_RELAXED));
	/* [LAP] It was a header, or the limit has moved. */
	petal_fence(PETAL_ACQUIRE(LAP));
	if (petal_bcast_is_lapped_now(map, reader->pos))
		err = find_oldest(map, map->data_bytes / PETAL_BCAST_CHUNKS,
				  &reader->pos, &reader->ordinal);
	petal_pace_init(&reader->pace, reader->ordinal);
	petal_bcast_store(reader);
	return err;
}

int petal_bcast_join(void *memory, uint64_t bytes,
		     const struct petal_bcast_options *options,
		     struct petal_bcast_reader *ret_reader)
{
	struct petal_bcast_reader reader = { .writable = true };
	struct petal_bcast_ticket ticket;
	int err;

	err = petal_bcast_map(memory, bytes, &reader.map);
	if (err)
		return err;
	/* Seats are words that all hosts would have to swap. */
	if (petal_bcast_is_far(&reader.map))
		return -EOPNOTSUPP;
	err = petal_bcast_sit(&reader.map, false, options, &ticket);
	if (err)
		return err;
	reader.cursor = &reader.map.cursors[ticket.seat];
	begin(&reader, &ticket);
	err = find_start(&reader);
	if (err) {
		petal_bcast_leave(&reader);
		return err;
	}
	*ret_reader = reader;
	return 0;
}

int petal_bcast_enter(const void *memory, uint64_t bytes, void *cursor,
		      const struct petal_bcast_ticket *ticket,
		      struct petal_bcast_reader *ret_reader)
{
	struct petal_bcast_reader reader = { .writable = false };
	int err;

	if ((uintptr_t)cursor % PETAL_RECORD_ALIGN != 0)
		return -EINVAL;
	/* Nothing is written there: a reader's view only loads. */
	err = petal_bcast_map((void *)(uintptr_t)memory, bytes, &reader.map);
	if (err)
		return err;
	if (ticket->seat >= reader.map.readers || ticket->ordinal >> 48 != 0 ||
	    ticket->pos % petal_bcast_align(reader.map.far) != 0 ||
	    ticket->spill_pos % PETAL_BCAST_ALIGN != 0 ||
	    petal_bcast_word_policy(ticket->word) > PETAL_BCAST_SPILL ||
	    (petal_bcast_word_policy(ticket->word) == PETAL_BCAST_SPILL &&
	     ticket->seat >= reader.map.spills))
		return -EINVAL;
	reader.cursor = cursor;
	err = set_cursor(cursor, ticket);
	petal_bcast_show(&reader.map, cursor, PETAL_BCAST_CURSOR_BYTES);
	if (err)
		return err;
	/* What was overtaken since is told, or read from the spill area. */
	begin(&reader, ticket);
	*ret_reader = reader;
	return 0;
}

void petal_bcast_leave(struct petal_bcast_reader *reader)
{
	/* [DRAIN] Release: our last read is before it. */
	petal_store(&reader->cursor->left, reader->word, PETAL_RELEASE(DRAIN));
	petal_bcast_show(&reader->map, &reader->cursor->left,
			 sizeof(reader->cursor->left));
	if (reader->writable)
		petal_bcast_free(&reader->map, reader->seat, reader->word);
	reader->held = 0;
	reader->held_spilled = 0;
}

int petal_bcast_repair(void *memory, uint64_t bytes, uint32_t owner)
{
	struct petal_bcast_map map;
	int freed = 0;
	int err = petal_bcast_map(memory, bytes, &map);

	if (err)
		return err;
	for (uint32_t i = 0; i < map.readers; i++) {
		uint64_t word = petal_load(&map.seats[i].word, PETAL_RELAXED);

		/* Whoever changes it meanwhile lives, or frees it for us. */
		if (petal_bcast_word_state(word) == PETAL_BCAST_FREE ||
		    petal_bcast_word_owner(word) != owner ||
		    !petal_bcast_free(&map, i, word))
			continue;
		petal_bcast_count(&map, &map.shared->removed);
		freed++;
	}
	return freed;
}

/* What nobody may overwrite yet: the oldest of these holds, or what is next. */
static uint64_t needed_from(const struct petal_bcast_reader *reader,
			    uint32_t held, uint64_t pos)
{
	for (; held; held &= held - 1) {
		uint64_t hold = reader->holds[__builtin_ctz(held)];

		pos = hold < pos ? hold : pos;
	}
	return pos;
}

static uint64_t ring_needed_from(const struct petal_bcast_reader *reader)
{
	return needed_from(reader, reader->held & ~reader->held_spilled,
			   reader->pos);
}

/* Return: whether there was anything to say. */
static bool move(struct petal_u64 *place, uint64_t word, uint64_t to,
		 uint64_t *stored)
{
	uint64_t was = petal_bcast_place(word, *stored);

	if (to == *stored)
		return false;
	/*
	 * [DRAIN] Release: we are done with all that is before it. If the swap
	 * fails, the seat is another's, and the next peek says so.
	 */
	petal_cas(place, &was, petal_bcast_place(word, to),
		  PETAL_RELEASE(DRAIN));
	*stored = to;
	return true;
}

void petal_bcast_store(struct petal_bcast_reader *reader)
{
	struct petal_bcast_cursor *cursor = reader->cursor;
	bool moved = move(&cursor->place, reader->word,
			  ring_needed_from(reader), &reader->stored_pos);
	bool spill_moved = move(&cursor->spill, reader->word,
				needed_from(reader, reader->held_spilled,
					    reader->spill_pos),
				&reader->stored_spill);

	if (moved || spill_moved)
		petal_bcast_show(&reader->map, cursor, sizeof(*cursor));
}

/*
 * What is at *pos; passes padding. 0, PETAL_RING_EMPTY, PETAL_RING_LAPPED or
 * -PETAL_ECORRUPT. All is decided only after a last look at the limit.
 */
static int find(const struct petal_bcast_map *map, uint64_t *pos,
		uint64_t ordinal, struct petal_bcast_view *view)
{
	const uint64_t record =
		petal_bcast_commit(PETAL_RECORD_PUBLISHED, ordinal);
	const uint64_t padding =
		petal_bcast_commit(PETAL_RECORD_ABANDONED, ordinal);

	for (int i = 0; i < 2; i++) {
		struct petal_bcast_header *header = petal_bcast_at(map, *pos);
		uint64_t offset = *pos & (map->data_bytes - 1);
		uint64_t commit;
		bool whole;

		petal_bcast_refresh(map, header, sizeof(*header));
		/* [FILL] Acquire: with the commit word comes the record. */
		commit = petal_load(&header->commit, PETAL_ACQUIRE(FILL));
		whole = (commit == record || commit == padding) &&
			petal_bcast_see(map, map->far, *pos, ordinal, view);
		if (whole && petal_bcast_is_far(map))
			whole = petal_bcast_far_is_whole(map, commit, view);
		/* [LAP] It was a header, or the limit has moved. */
		petal_fence(PETAL_ACQUIRE(LAP));
		if (petal_bcast_is_lapped_now(map, *pos))
			return PETAL_RING_LAPPED;
		if (commit == petal_bcast_commit(PETAL_RECORD_FREE, ordinal))
			return PETAL_RING_EMPTY;
		if (!whole)
			return -PETAL_ECORRUPT;
		if (commit == record)
			return 0;
		if (offset == 0)
			return -PETAL_ECORRUPT;
		*pos += map->data_bytes - offset;
	}
	return -PETAL_ECORRUPT;
}

static int lose(struct petal_bcast_reader *reader, uint64_t pos,
		uint64_t ordinal)
{
	int64_t lost = petal_bcast_since(ordinal, reader->ordinal);

	if (lost < 0 || (int64_t)(pos - reader->pos) < 0)
		return -PETAL_ECORRUPT;
	reader->pos = pos;
	reader->ordinal = ordinal;
	reader->lost += (uint64_t)lost;
	petal_store(&reader->cursor->lost, reader->lost, PETAL_RELAXED);
	return lost > 0 ? PETAL_RING_LAPPED : -EAGAIN;
}

static bool copy_is_whole(const struct petal_bcast_map *map,
			  struct petal_bcast_copy *copy,
			  const struct petal_bcast_view *view)
{
	if (!petal_bcast_is_far(map))
		return true;
	petal_cache_invalidate(view->payload, view->length);
	return petal_load(&copy->crc, PETAL_RELAXED) ==
	       petal_bcast_far_copy_crc(view);
}

/*
 * Pass copies of what was read already. 0 with the first other one; 1 when
 * there is none; -EAGAIN when that took long enough.
 */
static int spill_skip(struct petal_bcast_reader *reader, int skips_max,
		      struct petal_bcast_view *view)
{
	const struct petal_bcast_map *map = &reader->map;
	/* [SPILL] Acquire: the copies before it are whole. */
	uint64_t tail = petal_load(&map->seats[reader->seat].spill_tail,
				   PETAL_ACQUIRE(SPILL));
	for (int i = 0; i < skips_max; i++) {
		uint64_t rest = map->spill_bytes -
				(reader->spill_pos & (map->spill_bytes - 1));
		struct petal_bcast_copy *copy;

		if ((int64_t)(tail - reader->spill_pos) <= 0)
			return 1;
		copy = petal_bcast_copy_at(map, reader->seat,
					   reader->spill_pos);
		if (rest >= sizeof(*copy))
			petal_bcast_refresh(map, copy, sizeof(*copy));
		if (rest < sizeof(*copy) ||
		    petal_load(&copy->skip, PETAL_RELAXED) != 0) {
			reader->spill_pos += rest;
			continue;
		}
		view->payload = copy + 1;
		view->pos = petal_load(&copy->pos, PETAL_RELAXED);
		view->ordinal = petal_load(&copy->ordinal, PETAL_RELAXED);
		view->length = petal_load(&copy->length, PETAL_RELAXED);
		view->type = petal_load(&copy->type, PETAL_RELAXED);
		view->end =
			view->pos + petal_bcast_extent(map->far, view->length);
		view->spill_end = reader->spill_pos +
				  petal_bcast_copy_bytes(view->length);
		view->spilled = true;
		if (view->spill_end - reader->spill_pos > rest ||
		    view->pos % PETAL_BCAST_ALIGN != 0)
			return -PETAL_ECORRUPT;
		if (petal_bcast_since(view->ordinal, reader->ordinal) >= 0)
			return copy_is_whole(map, copy, view) ? 0
							      : -PETAL_ECORRUPT;
		reader->spill_pos = view->spill_end;
	}
	return -EAGAIN;
}

/* The next record out of the spill area. PETAL_RING_EMPTY: no copy is there. */
static int read_copy(struct petal_bcast_reader *reader,
		     struct petal_bcast_view *ret_view)
{
	struct petal_bcast_view view;
	int err;

	if (reader->policy != PETAL_BCAST_SPILL)
		return PETAL_RING_EMPTY;
	err = spill_skip(reader, SKIPS_MAX, &view);
	if (err)
		return err < 0 ? err : PETAL_RING_EMPTY;
	if (view.ordinal != reader->ordinal)
		return lose(reader, view.pos, view.ordinal);
	reader->pos = view.pos;
	*ret_view = view;
	return 0;
}

/* Overtaken: read copies, or go to the oldest record and say what was lost. */
static int overtaken(struct petal_bcast_reader *reader,
		     struct petal_bcast_view *ret_view)
{
	uint64_t pos, ordinal;
	/*
	 * Who spills must be at the oldest: what is older has been copied.
	 * Between hosts, what is further on may be too new to be there.
	 */
	uint64_t stride = reader->long_way
				  ? 0
				  : reader->map.data_bytes / PETAL_BCAST_CHUNKS;
	/* First, for what is older than this was copied before it became so. */
	int err = find_oldest(&reader->map, stride, &pos, &ordinal);
	int outcome;

	if (!is_still_ours(reader))
		return -ESTALE;
	outcome = read_copy(reader, ret_view);
	if (outcome == PETAL_RING_EMPTY)
		outcome = err ? err : lose(reader, pos, ordinal);
	petal_bcast_store(reader);
	return outcome;
}

static int nothing(struct petal_bcast_reader *reader)
{
	/* Now is the time to say how far we are, for we have it. */
	petal_bcast_store(reader);
	/* [CLOSE] Acquire: all that was published is before it. */
	return petal_load(&reader->map.shared->closed, PETAL_ACQUIRE(CLOSE)) ==
			       reader->pos + 1
		       ? PETAL_RING_CLOSED
		       : PETAL_RING_EMPTY;
}

/* Read from the ring: what was copied of that is of no use. */
static int give(struct petal_bcast_reader *reader,
		const struct petal_bcast_view *view,
		struct petal_bcast_view *ret_view)
{
	struct petal_bcast_view copy;

	if (reader->policy == PETAL_BCAST_SPILL &&
	    spill_skip(reader, 2, &copy) == -PETAL_ECORRUPT)
		return -PETAL_ECORRUPT;
	*ret_view = *view;
	return 0;
}

static int look_out(struct petal_bcast_reader *reader,
		    struct petal_bcast_view *ret_view)
{
	struct petal_bcast_view view;
	int outcome = -EAGAIN;

	/* Twice, for it may have been padding alone that was overwritten. */
	for (int i = 0; i < 2 && outcome == -EAGAIN; i++) {
		outcome = find(&reader->map, &reader->pos, reader->ordinal,
			       &view);
		if (outcome == 0)
			return give(reader, &view, ret_view);
		if (outcome == PETAL_RING_LAPPED)
			outcome = overtaken(reader, ret_view);
		else if (!is_still_ours(reader))
			return -ESTALE;
		else if (outcome == PETAL_RING_EMPTY)
			return nothing(reader);
	}
	return outcome;
}

/* Between hosts, what is not right may be on its way: so, for a while. */
static int doubt(struct petal_bcast_reader *reader)
{
	if (reader->doubts < PETAL_BCAST_DOUBTS_MAX)
		reader->doubts++;
	return reader->doubts < PETAL_BCAST_DOUBTS_MAX ? PETAL_RING_EMPTY
						       : -PETAL_ECORRUPT;
}

int petal_bcast_elsewhere(struct petal_bcast_reader *reader,
			  struct petal_bcast_view *ret_view)
{
	int outcome = look_out(reader, ret_view);

	if (outcome == PETAL_RING_EMPTY &&
	    petal_pace_missed(&reader->pace, reader->ordinal))
		outcome = look_out(reader, ret_view);
	if (outcome == -PETAL_ECORRUPT && petal_bcast_is_far(&reader->map))
		return doubt(reader);
	reader->doubts = 0;
	return outcome;
}

int petal_bcast_peek_n(struct petal_bcast_reader *reader, int want,
		       struct petal_bcast_view *views, int *ret_outcome)
{
	uint64_t pos, ordinal;
	int outcome, found = 1;

	if (want < 1)
		return -EINVAL;
	outcome = petal_bcast_peek(reader, &views[0]);
	*ret_outcome = outcome < 0 ? 0 : outcome;
	if (outcome)
		return outcome < 0 ? outcome : 0;
	pos = views[0].end;
	ordinal = views[0].ordinal + 1;
	while (!views[0].spilled && found < want &&
	       find(&reader->map, &pos, ordinal, &views[found]) == 0) {
		pos = views[found].end;
		ordinal++;
		found++;
	}
	return found;
}

int petal_bcast_hold(struct petal_bcast_reader *reader,
		     const struct petal_bcast_view *view, uint32_t *ret_hold)
{
	uint32_t hold, bit;

	if (reader->held == UINT32_MAX)
		return -ENOBUFS;
	hold = (uint32_t)__builtin_ctz(~reader->held);
	bit = UINT32_C(1) << hold;
	reader->held |= bit;
	reader->holds[hold] = view->pos;
	if (view->spilled) {
		reader->held_spilled |= bit;
		reader->holds[hold] =
			view->spill_end - petal_bcast_copy_bytes(view->length);
	}
	petal_bcast_release(reader, view);
	*ret_hold = hold;
	return 0;
}

void petal_bcast_drop(struct petal_bcast_reader *reader, uint32_t hold)
{
	uint32_t bit = UINT32_C(1) << hold % PETAL_BCAST_HOLDS_MAX;
	bool spilled = reader->held_spilled & bit;

	reader->held &= ~bit;
	reader->held_spilled &= ~bit;
	if (spilled ||
	    ring_needed_from(reader) - reader->stored_pos >= reader->step_bytes)
		petal_bcast_store(reader);
}

int petal_bcast_resolve(struct petal_bcast_reader *reader,
			const struct petal_bcast_ref *ref,
			struct petal_bcast_view *ret_view)
{
	const struct petal_bcast_map *map = &reader->map;
	struct petal_bcast_view view;
	uint64_t pos = ref->pos;
	uint64_t tail;
	int outcome;

	petal_bcast_refresh(map, &map->shared->tail, sizeof(map->shared->tail));
	tail = petal_load(&map->shared->tail, PETAL_RELAXED);
	if (pos % petal_bcast_align(map->far) != 0 || (int64_t)(tail - pos) < 0)
		return -EINVAL;
	outcome = find(map, &pos, ref->ordinal, &view);
	if (outcome == PETAL_RING_LAPPED)
		return outcome;
	if (outcome || pos != ref->pos)
		return -EINVAL;
	*ret_view = view;
	return 0;
}

int petal_bcast_standing(const void *memory, uint64_t bytes, uint32_t seat,
			 struct petal_bcast_standing *ret_standing)
{
	struct petal_bcast_standing standing = { .word = 0 };
	struct petal_bcast_map map;
	uint64_t word, tail;
	int err = petal_bcast_map((void *)(uintptr_t)memory, bytes, &map);

	if (err)
		return err;
	if (seat >= map.readers)
		return -EINVAL;
	/* [SEAT] Acquire: the cursor is of whom the word names. */
	word = petal_load(&map.seats[seat].word, PETAL_ACQUIRE(SEAT));
	if (petal_bcast_word_state(word) == PETAL_BCAST_ACTIVE) {
		struct petal_bcast_cursor *cursor = &map.cursors[seat];
		uint64_t place = petal_load(&cursor->place, PETAL_RELAXED);

		tail = petal_load(&map.shared->tail, PETAL_RELAXED);
		standing.word = word;
		standing.owner = petal_bcast_word_owner(word);
		standing.policy = petal_bcast_word_policy(word);
		standing.lost = petal_load(&cursor->lost, PETAL_RELAXED);
		standing.backlog_bytes =
			tail - petal_bcast_place_pos(place, word, 0, tail);
	}
	*ret_standing = standing;
	return 0;
}

int petal_bcast_counts(const void *memory, uint64_t bytes,
		       struct petal_bcast_counts *ret_counts)
{
	struct petal_bcast_map map;
	int err = petal_bcast_map((void *)(uintptr_t)memory, bytes, &map);

	if (err)
		return err;
	*ret_counts = (struct petal_bcast_counts){
		.refused = petal_load(&map.shared->refused, PETAL_RELAXED),
		.evicted = petal_load(&map.shared->evicted, PETAL_RELAXED),
		.spilled = petal_load(&map.shared->spilled, PETAL_RELAXED),
		.removed = petal_load(&map.shared->removed, PETAL_RELAXED),
	};
	return 0;
}
