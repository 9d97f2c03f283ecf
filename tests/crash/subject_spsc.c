/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/subjects.h"

#include <errno.h>
#include <stdio.h>

#include "rings/outcome.h"
#include "rings/spsc.h"

/*
 * Nothing is ever to be repaired here: who takes a place goes on from what the
 * memory says. A consumer's head is late by less than a quarter of the ring.
 */

#define MANY 3u
/* In a variant: the consumer's cursor lies in memory of its own. */
#define APART 16u

static struct petal_spsc_geometry geometry_of(const struct shape *shape)
{
	struct petal_spsc_geometry geometry = {
		.slot_count = shape->count,
		.slot_bytes = shape->length_max,
		.kind = (enum petal_spsc_kind)(shape->variant & ~APART),
		.start_pos = shape->start_pos,
	};

	return geometry;
}

static uint64_t ring_bytes(const struct shape *shape)
{
	struct petal_spsc_geometry geometry = geometry_of(shape);

	return petal_spsc_bytes(&geometry);
}

static uint64_t spsc_bytes(const struct shape *shape)
{
	return ring_bytes(shape) +
	       (shape->variant & APART ? PETAL_SPSC_CURSOR_BYTES : 0);
}

static int spsc_format(void *memory, const struct shape *shape)
{
	struct petal_spsc_geometry geometry = geometry_of(shape);

	int err = petal_spsc_format(memory, &geometry);

	if (!err && shape->variant & APART)
		err = petal_spsc_format_cursor((uint8_t *)memory +
						       ring_bytes(shape),
					       shape->start_pos);
	return err;
}

static struct petal_spsc *ring_of(struct party *party)
{
	return (struct petal_spsc *)(void *)party->view;
}

static int spsc_join(struct party *party)
{
	uint64_t bytes = ring_bytes(party->shape);
	enum petal_spsc_role role = party->role == PRODUCER
					    ? PETAL_SPSC_PRODUCER
					    : PETAL_SPSC_CONSUMER;

	if (!(party->shape->variant & APART))
		return petal_spsc_attach(party->memory, bytes, role,
					 ring_of(party));
	return petal_spsc_attach_apart(party->memory, bytes,
				       (uint8_t *)party->memory + bytes,
				       PETAL_SPSC_CURSOR_BYTES, role,
				       ring_of(party));
}

static int spsc_repair(struct party *party, const struct casualties *dead)
{
	(void)party;
	(void)dead;
	return 0;
}

static uint64_t spsc_late(const struct shape *shape)
{
	return shape->count / 4;
}

static uint64_t spsc_room(const struct shape *shape)
{
	return shape->count;
}

/* Why there was nothing; what has come meanwhile is for the next look. */
static int nothing(struct party *party)
{
	int outcome = petal_spsc_outcome(ring_of(party));

	return outcome == -EPIPE || outcome == PETAL_RING_CLOSED ? ACT_CLOSED
								 : ACT_NOTHING;
}

static int finish(struct party *party)
{
	party_closes(party);
	petal_spsc_close(ring_of(party));
	return party_closed(party);
}

static int send(struct party *party)
{
	void *slot = petal_spsc_claim(ring_of(party));
	uint64_t id = party_next_id(party);

	if (!slot)
		return nothing(party);
	history_add(party->history, EVENT_TRY, id);
	message_fill(slot, party->shape->length_max, id);
	petal_spsc_publish(ring_of(party));
	return party_settled(party, 0);
}

static int send_many(struct party *party)
{
	struct petal_spsc *ring = ring_of(party);
	uint64_t count = petal_spsc_claim_n(ring, MANY);

	if (count == 0)
		return nothing(party);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t id = party_next_id(party) + i;

		history_add(party->history, EVENT_TRY, id);
		message_fill(petal_spsc_slot(ring, i), party->shape->length_max,
			     id);
	}
	petal_spsc_publish_n(ring, count);
	for (uint64_t i = 0; i < count; i++)
		party_settled(party, 0);
	return ACT_DONE;
}

static int receive(struct party *party)
{
	const void *slot = petal_spsc_peek(ring_of(party));
	uint64_t id;

	if (!slot)
		return nothing(party);
	id = party_got(party, slot, party->shape->length_max);
	party_still(party, id, slot, party->shape->length_max);
	history_add(party->history, EVENT_FREE, id);
	petal_spsc_release(ring_of(party));
	history_add(party->history, EVENT_DONE, id);
	return ACT_DONE;
}

static int receive_many(struct party *party)
{
	struct petal_spsc *ring = ring_of(party);
	uint64_t count = petal_spsc_peek_n(ring, MANY);
	uint64_t ids[MANY];

	if (count == 0)
		return nothing(party);
	for (uint64_t i = 0; i < count; i++)
		ids[i] = party_got(party, petal_spsc_slot(ring, i),
				   party->shape->length_max);
	for (uint64_t i = 0; i < count; i++)
		history_add(party->history, EVENT_FREE, ids[i]);
	petal_spsc_release_n(ring, count);
	for (uint64_t i = 0; i < count; i++)
		history_add(party->history, EVENT_DONE, ids[i]);
	return ACT_DONE;
}

static const struct act acts[] = {
	{ "send", PRODUCER, send, false },
	{ "send many", PRODUCER, send_many, false },
	{ "close", PRODUCER, finish, true },
	{ "receive", CONSUMER, receive, false },
	{ "receive many", CONSUMER, receive_many, false },
	{ "close", CONSUMER, finish, true },
};

static const struct shape shapes[] = {
	{ "4 slots", 4, 24, 0, 1, 1, PETAL_SPSC_STAMPED },
	{ "8 slots near 2^32", 8, 40, (UINT64_C(1) << 32) - 3, 1, 1,
	  PETAL_SPSC_STAMPED },
	{ "4 slots near 2^63", 4, 64, (UINT64_C(1) << 63) - 2, 1, 1,
	  PETAL_SPSC_STAMPED },
	{ "4 slots, indexed", 4, 64, 0, 1, 1, PETAL_SPSC_INDEXED },
	{ "8 slots near 2^32, indexed", 8, 40, (UINT64_C(1) << 32) - 5, 1, 1,
	  PETAL_SPSC_INDEXED },
	{ "4 slots, cursor apart", 4, 24, 2, 1, 1, PETAL_SPSC_STAMPED | APART },
	{ "64 slots of 16 B", 64, 16, 0, 1, 1, PETAL_SPSC_STAMPED },
	{ "1024 slots of 56 B", 1024, 56, 1000, 1, 1, PETAL_SPSC_STAMPED },
	{ "1024 slots of 64 B, indexed", 1024, 64, 1000, 1, 1,
	  PETAL_SPSC_INDEXED },
	{ "16 slots of 4 KiB", 16, 4096, 5, 1, 1, PETAL_SPSC_STAMPED },
};

const struct subject subject_spsc = {
	.name = "spsc",
	.repairer = CONSUMER,
	.shapes = shapes,
	.shape_count = sizeof(shapes) / sizeof(shapes[0]),
	.stepped = 6,
	.acts = acts,
	.act_count = sizeof(acts) / sizeof(acts[0]),
	.bytes = spsc_bytes,
	.late = spsc_late,
	.format = spsc_format,
	.join = spsc_join,
	.repair = spsc_repair,
	.room = spsc_room,
};
