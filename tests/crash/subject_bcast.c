/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/subjects.h"

#include <errno.h>

#include "rings/bcast.h"

/*
 * Readers block, so that nothing may be missing. The owner number of a reader
 * is its place plus one. Who takes a place frees the seat of whoever had it
 * before; so repair leaves the seat of the repairer's own place alone.
 */

#define MANY 3u
#define SEATS (2 * PARTIES_MAX + 2)
#define TYPE 7u

static struct petal_bcast_geometry geometry_of(const struct shape *shape)
{
	struct petal_bcast_geometry geometry = {
		.data_bytes = shape->count,
		.spill_bytes = 0,
		.readers = SEATS,
		.spills = 0,
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

static struct petal_bcast *ring_of(struct party *party)
{
	return (struct petal_bcast *)(void *)party->view;
}

static struct petal_bcast_reader *reader_of(struct party *party)
{
	return (struct petal_bcast_reader *)(void *)party->view;
}

static int seat_free(struct party *party, unsigned index)
{
	int count = petal_bcast_repair(party->memory, bcast_bytes(party->shape),
				       index + 1);

	return count < 0 ? count : 0;
}

static int bcast_join(struct party *party)
{
	struct petal_bcast_options options = {
		.policy = PETAL_BCAST_BLOCK,
		.full = PETAL_BCAST_BLOCK,
		.from = PETAL_BCAST_FROM_OLDEST,
		.owner = party->index + 1,
	};
	uint64_t bytes = bcast_bytes(party->shape);
	int err;

	if (party->role == PRODUCER)
		return petal_bcast_attach(party->memory, bytes, ring_of(party));
	err = seat_free(party, party->index);
	if (err)
		return err;
	return petal_bcast_join(party->memory, bytes, &options,
				reader_of(party));
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
	return ACT_DONE;
}

/* ---- a reader ---- */

static int peeked(int outcome)
{
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
		return ACT_STALE;
	case PETAL_RING_LAPPED: /* Nobody may overtake one that blocks. */
		return -EOVERFLOW;
	default:
		return outcome;
	}
}

static uint64_t got(struct party *party, const struct petal_bcast_view *view)
{
	return party_got(party, view->payload, view->length);
}

static void let_go(struct party *party, const struct petal_bcast_view *view,
		   uint64_t id)
{
	history_add(party->history, EVENT_FREE, id);
	petal_bcast_release(reader_of(party), view);
	history_add(party->history, EVENT_DONE, id);
}

static int receive(struct party *party)
{
	struct petal_bcast_view view;
	int outcome = peeked(petal_bcast_peek(reader_of(party), &view));
	uint64_t id;

	if (outcome)
		return outcome;
	id = got(party, &view);
	party_still(party, id, view.payload, view.length);
	let_go(party, &view, id);
	return ACT_DONE;
}

static int receive_many(struct party *party)
{
	struct petal_bcast_view views[MANY];
	uint64_t ids[MANY];
	int outcome = 0;
	int count = petal_bcast_peek_n(reader_of(party), MANY, views, &outcome);

	if (count < 0)
		return peeked(count);
	if (count == 0)
		return peeked(outcome);
	for (int i = 0; i < count; i++)
		ids[i] = got(party, &views[i]);
	for (int i = 0; i < count; i++)
		let_go(party, &views[i], ids[i]);
	return ACT_DONE;
}

/* Keep one, read the next, and look at the first again. */
static int keep_one(struct party *party)
{
	struct petal_bcast_view view;
	uint32_t hold;
	int outcome = peeked(petal_bcast_peek(reader_of(party), &view));
	uint64_t id;

	if (outcome)
		return outcome;
	id = got(party, &view);
	outcome = petal_bcast_hold(reader_of(party), &view, &hold);
	if (outcome)
		return outcome;
	outcome = receive(party);
	party_still(party, id, view.payload, view.length);
	history_add(party->history, EVENT_FREE, id);
	petal_bcast_drop(reader_of(party), hold);
	history_add(party->history, EVENT_DONE, id);
	return outcome == ACT_NOTHING ? ACT_DONE : outcome;
}

static const struct act acts[] = {
	{ "send", PRODUCER, send, false },
	{ "abort", PRODUCER, give_up, false },
	{ "send many", PRODUCER, send_many, false },
	{ "close", PRODUCER, finish, true },
	{ "receive", CONSUMER, receive, false },
	{ "receive many", CONSUMER, receive_many, false },
	{ "keep one", CONSUMER, keep_one, false },
};

static const struct shape shapes[] = {
	{ "4 KiB", 4096, 900, 0, 1, 2, 0 },
	{ "4 KiB about to wrap", 4096, 500, 4096 - 112, 1, 1, 0 },
	{ "4 KiB near 2^32", 4096, 700, (UINT64_C(1) << 32) - 208, 1, 3, 0 },
	{ "64 KiB", 65536, 900, 0, 1, 3, 0 },
	{ "4 KiB of short ones", 4096, 48, 64, 1, 1, 0 },
	{ "1 MiB", 1048576, 16384, 0, 1, 2, 0 },
};

const struct subject subject_bcast = {
	.name = "bcast",
	.broadcast = true,
	.repairer = CONSUMER,
	.shapes = shapes,
	.shape_count = sizeof(shapes) / sizeof(shapes[0]),
	.stepped = 3,
	.acts = acts,
	.act_count = sizeof(acts) / sizeof(acts[0]),
	.bytes = bcast_bytes,
	.format = bcast_format,
	.join = bcast_join,
	.repair = bcast_repair,
	.room = bcast_room,
};
