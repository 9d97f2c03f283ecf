/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/subjects.h"

#include <errno.h>

#include "rings/bcast.h"

/*
 * Readers block, so that nothing may be missing; but a shape may give the first
 * one another policy, and then that one may lag. The owner number of a reader
 * is its place plus one. Who takes a place frees the seat of whoever had it
 * before; so repair leaves the seat of the repairer's own place alone.
 */

#define MANY 3u
#define SEATS (2 * PARTIES_MAX + 2)
#define TYPE 7u
/* In a variant: the first reader's policy, and the second one of its SPILL. */
#define POLICY(policy, full) ((policy) | (full) << 2)

/* One or the other, and what the reader was told last. */
struct bcast_view {
	union {
		struct petal_bcast ring;
		struct petal_bcast_reader reader;
	};
	uint64_t lost;
	uint64_t seen; /* where the reader was when it had its seat */
	uint64_t joins;
};

static_assert(sizeof(struct bcast_view) <= sizeof(((struct party *)0)->view),
	      "it fits");

static enum petal_bcast_policy policy_of(const struct shape *shape,
					 unsigned index)
{
	return index == 0 ? (enum petal_bcast_policy)(shape->variant & 3)
			  : PETAL_BCAST_BLOCK;
}

static enum petal_bcast_policy full_of(const struct shape *shape)
{
	return (enum petal_bcast_policy)(shape->variant >> 2 & 3);
}

/* Of who reads, and of who has died. */
static uint32_t spills(const struct shape *shape)
{
	return policy_of(shape, 0) == PETAL_BCAST_SPILL ? 2 : 0;
}

static bool bcast_lags(const struct shape *shape, unsigned index)
{
	return policy_of(shape, index) != PETAL_BCAST_BLOCK;
}

/* Of those that lag, who spills and then blocks must get all. */
static bool may_lose(const struct party *party)
{
	switch (policy_of(party->shape, party->index)) {
	case PETAL_BCAST_DROP_OLDEST:
		return true;
	case PETAL_BCAST_SPILL:
		return full_of(party->shape) == PETAL_BCAST_DROP_OLDEST;
	default:
		return false;
	}
}

static struct petal_bcast_geometry geometry_of(const struct shape *shape)
{
	struct petal_bcast_geometry geometry = {
		.data_bytes = shape->count,
		.spill_bytes = spills(shape) ? shape->count : 0,
		.readers = SEATS,
		.spills = spills(shape),
		.start_pos = shape->start_pos,
	};

	return geometry;
}

static uint64_t bcast_bytes(const struct shape *shape)
{
	struct petal_bcast_geometry geometry = geometry_of(shape);

	return petal_bcast_bytes(&geometry);
}

static int bcast_format(void *memory, const struct shape *shape)
{
	struct petal_bcast_geometry geometry = geometry_of(shape);

	return petal_bcast_format(memory, &geometry);
}

static struct bcast_view *view_of(struct party *party)
{
	return (struct bcast_view *)(void *)party->view;
}

static struct petal_bcast *ring_of(struct party *party)
{
	return &view_of(party)->ring;
}

static struct petal_bcast_reader *reader_of(struct party *party)
{
	return &view_of(party)->reader;
}

static int seat_free(struct party *party, unsigned index)
{
	int count = petal_bcast_repair(party->memory, bcast_bytes(party->shape),
				       index + 1);

	return count < 0 ? count : 0;
}

static int reader_join(struct party *party, enum petal_bcast_from from)
{
	const struct shape *shape = party->shape;
	struct petal_bcast_options options = {
		.policy = policy_of(shape, party->index),
		.full = full_of(shape),
		.from = from,
		.owner = party->index + 1,
	};
	int err = -EAGAIN;

	/* A small ring may be gone round while it is looked at. */
	for (int i = 0; i < 8 && err == -EAGAIN; i++)
		err = petal_bcast_join(party->memory, bcast_bytes(shape),
				       &options, reader_of(party));
	view_of(party)->lost = 0;
	view_of(party)->seen = reader_of(party)->pos;
	view_of(party)->joins++;
	return err;
}

static int bcast_join(struct party *party)
{
	uint64_t bytes = bcast_bytes(party->shape);
	int err;

	if (party->role == PRODUCER)
		return petal_bcast_attach(party->memory, bytes, ring_of(party));
	err = seat_free(party, party->index);
	return err ? err : reader_join(party, PETAL_BCAST_FROM_OLDEST);
}

static int bcast_repair(struct party *party, const struct casualties *dead)
{
	int err = 0;

	for (unsigned i = 0; i < PARTIES_MAX && !err; i++)
		if ((dead->consumers >> i & 1) && i != party->index)
			err = seat_free(party, i);
	return err;
}

/* The publisher goes on by chunks, and pads; half of the ring it surely has. */
static uint64_t bcast_room(const struct shape *shape)
{
	return shape->count / 2 / (MESSAGE_BYTES_MIN + 16);
}

/* ---- the publisher ---- */

static int claim(struct party *party, uint64_t id)
{
	uint32_t length = message_length(id, party->shape->length_max);
	void *bytes;
	int err = petal_bcast_claim(ring_of(party), length, TYPE, &bytes);

	if (err)
		return err;
	history_add(party->history, EVENT_TRY, id);
	message_fill(bytes, length, id);
	return 0;
}

static int send(struct party *party)
{
	int err = claim(party, party_next_id(party));

	if (err)
		return party_outcome(err);
	petal_bcast_publish(ring_of(party));
	return party_settled(party, 0);
}

static int give_up(struct party *party)
{
	int err = claim(party, party_next_id(party));

	if (err)
		return party_outcome(err);
	petal_bcast_abort(ring_of(party));
	return party_gave_up(party, 0);
}

static int send_many(struct party *party)
{
	uint64_t id = party_next_id(party);
	unsigned count = 0;
	int err = 0;

	while (count < MANY && !err) {
		err = claim(party, id + count);
		count += !err;
	}
	if (count == 0)
		return party_outcome(err);
	petal_bcast_publish(ring_of(party));
	for (unsigned i = 0; i < count; i++)
		party_settled(party, 0);
	return ACT_DONE;
}

static int finish(struct party *party)
{
	party_closes(party);
	petal_bcast_close(ring_of(party));
	return party_closed(party);
}

/* ---- a reader ---- */

/*
 * Nobody may be evicted who was far less behind than his bound, which is the
 * ring's size, when he had the seat last: a quarter less by a late cursor, and
 * as much by what he holds. The limit that did it may come a chunk later.
 */
static int evicted(struct party *party)
{
	const struct petal_bcast_map *map = &reader_of(party)->map;
	uint64_t limit = petal_load(&map->shared->limit, PETAL_RELAXED);
	uint64_t ring = party->shape->count;

	if (policy_of(party->shape, party->index) != PETAL_BCAST_EVICT)
		return ACT_STALE;
	if (limit + ring / 8 - view_of(party)->seen < ring / 2)
		return -EPROTO;
	history_add(party->history, EVENT_EVICTED, 0);
	return reader_join(party, PETAL_BCAST_FROM_NOW);
}

static int peeked(struct party *party, int outcome)
{
	uint64_t lost = petal_bcast_lost(reader_of(party));

	if (lost > 0 && !may_lose(party))
		return -EPROTO;
	if (lost != view_of(party)->lost)
		history_add(party->history, EVENT_LOST,
			    lost - view_of(party)->lost);
	view_of(party)->lost = lost;
	if (outcome != -ESTALE)
		view_of(party)->seen = reader_of(party)->pos;
	switch (outcome) {
	case PETAL_RING_FOUND:
		return ACT_DONE;
	case PETAL_RING_EMPTY:
		return ACT_NOTHING;
	case PETAL_RING_CLOSED:
		return ACT_CLOSED;
	case -EAGAIN:
		return ACT_HELD_UP;
	case -ESTALE:
		return evicted(party);
	case PETAL_RING_LAPPED:
		/* Nobody may overtake one that blocks. */
		return bcast_lags(party->shape, party->index) ? ACT_DONE
							      : -EOVERFLOW;
	default:
		return outcome;
	}
}

/* Whether an outcome is that of a record, and not of something else done. */
static bool is_found(struct party *party, int outcome, int *ret_outcome)
{
	*ret_outcome = peeked(party, outcome);
	return outcome == PETAL_RING_FOUND;
}

/* Who lags may believe only what was not overwritten while it read. */
static bool is_valid(struct party *party, const struct petal_bcast_view *view)
{
	return !bcast_lags(party->shape, party->index) ||
	       petal_bcast_check(reader_of(party), view);
}

/* Return: the id; 0 when it was overwritten, or is torn, which is noted. */
static uint64_t got(struct party *party, const struct petal_bcast_view *view)
{
	uint64_t id = message_read(view->payload, view->length);

	if (!is_valid(party, view))
		return 0;
	history_add(party->history, id ? EVENT_GOT : EVENT_TORN, id);
	return id;
}

static void still(struct party *party, const struct petal_bcast_view *view,
		  uint64_t id)
{
	bool same = message_read(view->payload, view->length) == id;

	if (is_valid(party, view))
		history_add(party->history, same ? EVENT_HELD : EVENT_TORN, id);
}

static void let_go(struct party *party, const struct petal_bcast_view *view,
		   uint64_t id)
{
	history_add(party->history, EVENT_FREE, id);
	petal_bcast_release(reader_of(party), view);
	history_add(party->history, EVENT_DONE, id);
}

/* What was overwritten is not released, and so it is counted as lost. */
static int receive(struct party *party)
{
	struct petal_bcast_view view;
	uint64_t id;
	int outcome;

	if (!is_found(party, petal_bcast_peek(reader_of(party), &view),
		      &outcome))
		return outcome;
	id = got(party, &view);
	if (!id)
		return ACT_DONE;
	still(party, &view, id);
	let_go(party, &view, id);
	return ACT_DONE;
}

static int receive_many(struct party *party)
{
	struct petal_bcast_view views[MANY];
	uint64_t ids[MANY];
	int outcome = 0;
	int count = petal_bcast_peek_n(reader_of(party), MANY, views, &outcome);
	int whole = 0;

	if (count <= 0) {
		is_found(party, count < 0 ? count : outcome, &outcome);
		return outcome;
	}
	peeked(party, PETAL_RING_FOUND);
	while (whole < count) {
		ids[whole] = got(party, &views[whole]);
		if (!ids[whole])
			break;
		whole++;
	}
	for (int i = 0; i < whole; i++)
		let_go(party, &views[i], ids[i]);
	return ACT_DONE;
}

/* Keep one, read the next, and look at the first again. */
static int keep_one(struct party *party)
{
	struct petal_bcast_view view;
	uint64_t id, joins;
	uint32_t hold;
	int outcome;

	if (!is_found(party, petal_bcast_peek(reader_of(party), &view),
		      &outcome))
		return outcome;
	id = got(party, &view);
	if (!id)
		return ACT_DONE;
	outcome = petal_bcast_hold(reader_of(party), &view, &hold);
	if (outcome)
		return outcome;
	joins = view_of(party)->joins;
	outcome = receive(party);
	still(party, &view, id);
	history_add(party->history, EVENT_FREE, id);
	if (joins == view_of(party)->joins)
		petal_bcast_drop(reader_of(party), hold);
	history_add(party->history, EVENT_DONE, id);
	return outcome == ACT_NOTHING ? ACT_DONE : outcome;
}

/* And come again, as somebody new. */
static int leave(struct party *party)
{
	petal_bcast_leave(reader_of(party));
	history_add(party->history, EVENT_EVICTED, 0);
	return reader_join(party, PETAL_BCAST_FROM_NOW);
}

static const struct act acts[] = {
	{ "send", PRODUCER, send, false },
	{ "abort", PRODUCER, give_up, false },
	{ "send many", PRODUCER, send_many, false },
	{ "close", PRODUCER, finish, true },
	{ "receive", CONSUMER, receive, false },
	{ "receive many", CONSUMER, receive_many, false },
	{ "keep one", CONSUMER, keep_one, false },
	{ "leave", CONSUMER, leave, false },
};

static const struct shape shapes[] = {
	{ "4 KiB", 4096, 900, 0, 1, 2, 0 },
	{ "4 KiB about to wrap", 4096, 500, 4096 - 112, 1, 1, 0 },
	{ "4 KiB near 2^32", 4096, 700, (UINT64_C(1) << 32) - 208, 1, 3, 0 },
	{ "4 KiB, one drops", 4096, 1000, 0, 1, 2,
	  POLICY(PETAL_BCAST_DROP_OLDEST, 0) },
	{ "4 KiB, one is evicted", 4096, 1000, 32, 1, 2,
	  POLICY(PETAL_BCAST_EVICT, 0) },
	{ "4 KiB, one spills, then drops", 4096, 1000, 0, 1, 2,
	  POLICY(PETAL_BCAST_SPILL, PETAL_BCAST_DROP_OLDEST) },
	{ "4 KiB, one spills, then blocks", 4096, 1000, 64, 1, 2,
	  POLICY(PETAL_BCAST_SPILL, PETAL_BCAST_BLOCK) },
	{ "64 KiB", 65536, 900, 0, 1, 3, 0 },
	{ "64 KiB, one drops", 65536, 900, 0, 1, 2,
	  POLICY(PETAL_BCAST_DROP_OLDEST, 0) },
	{ "64 KiB, one is evicted", 65536, 900, 0, 1, 2,
	  POLICY(PETAL_BCAST_EVICT, 0) },
	{ "64 KiB, one spills, then drops", 65536, 900, 0, 1, 2,
	  POLICY(PETAL_BCAST_SPILL, PETAL_BCAST_DROP_OLDEST) },
	{ "4 KiB of short ones", 4096, 48, 64, 1, 1, 0 },
	{ "1 MiB", 1048576, 16384, 0, 1, 2, 0 },
};

const struct subject subject_bcast = {
	.name = "bcast",
	.broadcast = true,
	.repairer = CONSUMER,
	.shapes = shapes,
	.shape_count = sizeof(shapes) / sizeof(shapes[0]),
	.stepped = 7,
	.acts = acts,
	.act_count = sizeof(acts) / sizeof(acts[0]),
	.bytes = bcast_bytes,
	.lags = bcast_lags,
	.format = bcast_format,
	.join = bcast_join,
	.repair = bcast_repair,
	.room = bcast_room,
};
