/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/subjects.h"

#include <errno.h>

#include "rings/pipe.h"

/*
 * Nothing is ever to be repaired here: who takes a place goes on from what the
 * memory says. A consumer's head is late by less than a quarter of the ring.
 */

#define MANY 3u
#define TYPE 7u

static struct petal_pipe_geometry geometry_of(const struct shape *shape)
{
	struct petal_pipe_geometry geometry = {
		.data_bytes = shape->count,
		.start_pos = shape->start_pos,
	};

	return geometry;
}

static uint64_t ring_bytes(const struct shape *shape)
{
	struct petal_pipe_geometry geometry = geometry_of(shape);

	return petal_pipe_bytes(&geometry);
}

/* A variant of 1: the consumer's cursor lies in memory of its own. */
static uint64_t pipe_bytes(const struct shape *shape)
{
	return ring_bytes(shape) + shape->variant * PETAL_PIPE_CURSOR_BYTES;
}

static int pipe_format(void *memory, const struct shape *shape)
{
	struct petal_pipe_geometry geometry = geometry_of(shape);

	int err = petal_pipe_format(memory, &geometry);

	if (!err && shape->variant)
		err = petal_pipe_format_cursor((uint8_t *)memory +
						       ring_bytes(shape),
					       shape->start_pos);
	return err;
}

static struct petal_pipe *ring_of(struct party *party)
{
	return (struct petal_pipe *)(void *)party->view;
}

static int pipe_join(struct party *party)
{
	uint64_t bytes = ring_bytes(party->shape);
	enum petal_pipe_role role = party->role == PRODUCER
					    ? PETAL_PIPE_PRODUCER
					    : PETAL_PIPE_CONSUMER;

	if (!party->shape->variant)
		return petal_pipe_attach(party->memory, bytes, role,
					 ring_of(party));
	return petal_pipe_attach_apart(party->memory, bytes,
				       (uint8_t *)party->memory + bytes,
				       PETAL_PIPE_CURSOR_BYTES, role,
				       ring_of(party));
}

static int pipe_repair(struct party *party, const struct casualties *dead)
{
	(void)party;
	(void)dead;
	return 0;
}

/* As many of the shortest as a quarter of the ring holds. */
static uint64_t pipe_late(const struct shape *shape)
{
	return shape->count / 4 / (MESSAGE_BYTES_MIN + PETAL_PIPE_HEADER_BYTES);
}

/* One word behind the last must stay free, and so one record does. */
static uint64_t pipe_room(const struct shape *shape)
{
	return shape->count / (MESSAGE_BYTES_MIN + PETAL_PIPE_HEADER_BYTES) - 1;
}

/* ---- the producer ---- */

static int claim(struct party *party, uint64_t id, uint32_t *ret_length)
{
	uint32_t length = message_length(id, party->shape->length_max);
	void *bytes;
	int err = petal_pipe_claim(ring_of(party), length, &bytes);

	if (err)
		return err;
	history_add(party->history, EVENT_TRY, id);
	message_fill(bytes, length, id);
	*ret_length = length;
	return 0;
}

static int send(struct party *party)
{
	uint32_t length;
	int err = claim(party, party_next_id(party), &length);

	if (err)
		return party_outcome(err);
	petal_pipe_publish(ring_of(party), length, TYPE);
	return party_settled(party, 0);
}

static int give_up(struct party *party)
{
	uint32_t length;
	int err = claim(party, party_next_id(party), &length);

	if (err)
		return party_outcome(err);
	petal_pipe_abort(ring_of(party));
	return party_gave_up(party, 0);
}

static int finish(struct party *party)
{
	party_closes(party);
	petal_pipe_close(ring_of(party));
	return party_closed(party);
}

/* Append several, then show them by one store. */
static int send_many(struct party *party)
{
	uint64_t id = party_next_id(party);
	unsigned count = 0;
	uint32_t length;
	int err = 0;

	while (count < MANY && !err) {
		err = claim(party, id + count, &length);
		if (err)
			break;
		petal_pipe_append(ring_of(party), length, TYPE);
		count++;
	}
	if (count == 0)
		return party_outcome(err);
	petal_pipe_show(ring_of(party));
	for (unsigned i = 0; i < count; i++)
		party_settled(party, 0);
	return ACT_DONE;
}

/* ---- the consumer ---- */

static int peeked(int outcome)
{
	switch (outcome) {
	case PETAL_RING_FOUND:
		return ACT_DONE;
	case PETAL_RING_EMPTY:
		return ACT_NOTHING;
	case PETAL_RING_CLOSED:
		return ACT_CLOSED;
	default:
		return outcome;
	}
}

static void let_go(struct party *party, uint64_t end, const uint64_t *ids,
		   unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		history_add(party->history, EVENT_FREE, ids[i]);
	petal_pipe_release(ring_of(party), end);
	for (unsigned i = 0; i < count; i++)
		history_add(party->history, EVENT_DONE, ids[i]);
}

static int receive_up_to(struct party *party, unsigned most)
{
	struct petal_pipe *ring = ring_of(party);
	uint64_t pos = petal_pipe_pos(ring);
	uint64_t ids[MANY];
	unsigned count = 0;
	int outcome = 0;

	while (count < most) {
		struct petal_pipe_view view = { 0 };

		outcome = peeked(petal_pipe_peek(ring, pos, &view));
		if (outcome)
			break;
		ids[count] = party_got(party, view.bytes, view.length);
		party_still(party, ids[count], view.bytes, view.length);
		pos = view.end;
		count++;
	}
	if (count == 0 || outcome < 0)
		return outcome;
	let_go(party, pos, ids, count);
	return ACT_DONE;
}

static int receive(struct party *party)
{
	return receive_up_to(party, 1);
}

static int receive_many(struct party *party)
{
	return receive_up_to(party, MANY);
}

static const struct act acts[] = {
	{ "send", PRODUCER, send, false },
	{ "abort", PRODUCER, give_up, false },
	{ "send many", PRODUCER, send_many, false },
	{ "close", PRODUCER, finish, true },
	{ "receive", CONSUMER, receive, false },
	{ "receive many", CONSUMER, receive_many, false },
	{ "close", CONSUMER, finish, true },
};

static const struct shape shapes[] = {
	{ "1 KiB", 1024, 200, 0, 1, 1, 0 },
	{ "1 KiB about to wrap", 1024, 120, 1024 - 112, 1, 1, 0 },
	{ "1 KiB near 2^32", 1024, 240, (UINT64_C(1) << 32) - 80, 1, 1, 0 },
	{ "1 KiB, cursor apart", 1024, 160, 48, 1, 1, 1 },
	{ "64 KiB", 65536, 900, 0, 1, 1, 0 },
	{ "4 KiB of short ones", 4096, 48, 64, 1, 1, 0 },
	{ "1 MiB", 1048576, 16384, 0, 1, 1, 0 },
};

const struct subject subject_pipe = {
	.name = "pipe",
	.repairer = CONSUMER,
	.shapes = shapes,
	.shape_count = sizeof(shapes) / sizeof(shapes[0]),
	.stepped = 4,
	.acts = acts,
	.act_count = sizeof(acts) / sizeof(acts[0]),
	.bytes = pipe_bytes,
	.late = pipe_late,
	.format = pipe_format,
	.join = pipe_join,
	.repair = pipe_repair,
	.room = pipe_room,
};
