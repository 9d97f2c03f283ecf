/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/subjects.h"

#include <errno.h>

#include "rings/mpmc.h"

/*
 * Owner numbers: producers from 0, consumers after them. Any survivor repairs.
 * What a dead or fenced consumer had taken comes again, and is marked so.
 */

#define MANY 3u
#define OWNERS (2 * PARTIES_MAX)

static struct petal_mpmc_geometry geometry_of(const struct shape *shape)
{
	struct petal_mpmc_geometry geometry = {
		.slot_count = shape->count,
		.slot_bytes = shape->length_max,
		.owners = OWNERS,
		.start_pos = shape->start_pos,
	};

	return geometry;
}

static uint64_t mpmc_bytes(const struct shape *shape)
{
	struct petal_mpmc_geometry geometry = geometry_of(shape);

	return petal_mpmc_bytes(&geometry);
}

static int mpmc_format(void *memory, const struct shape *shape)
{
	struct petal_mpmc_geometry geometry = geometry_of(shape);

	return petal_mpmc_format(memory, &geometry);
}

static struct petal_mpmc *ring_of(struct party *party)
{
	return (struct petal_mpmc *)(void *)party->view;
}

static int mpmc_join(struct party *party)
{
	uint32_t owner = party->index;

	if (party->role == CONSUMER)
		owner += PARTIES_MAX;
	return petal_mpmc_attach(party->memory, mpmc_bytes(party->shape), owner,
				 ring_of(party));
}

static uint64_t owners_of(const struct casualties *some)
{
	return some->producers | (uint64_t)some->consumers << PARTIES_MAX;
}

static int repaired(int count)
{
	if (count == -EAGAIN)
		return ACT_HELD_UP;
	return count < 0 ? count : 0;
}

static int mpmc_repair(struct party *party, const struct casualties *dead)
{
	uint64_t owners[PETAL_MPMC_OWNERS_MAX / 64] = { owners_of(dead) };

	return repaired(petal_mpmc_repair(ring_of(party), owners));
}

static int mpmc_fence(struct party *party, const struct casualties *slow)
{
	uint64_t owners = owners_of(slow);
	int outcome = 0;

	for (uint32_t owner = 0; owner < OWNERS && outcome == 0; owner++)
		if (owners >> owner & 1)
			outcome = repaired(
				petal_mpmc_fence(ring_of(party), owner));
	return outcome;
}

static uint64_t mpmc_room(const struct shape *shape)
{
	return shape->count;
}

/* ---- the producer ---- */

static int send(struct party *party)
{
	uint64_t id = party_next_id(party);
	struct petal_mpmc_claim mine;
	int err = petal_mpmc_claim(ring_of(party), &mine);

	if (err)
		return party_outcome(err);
	history_add(party->history, EVENT_TRY, id);
	message_fill(mine.bytes, party->shape->length_max, id);
	return party_settled(party, petal_mpmc_publish(ring_of(party), &mine));
}

static int give_up(struct party *party)
{
	uint64_t id = party_next_id(party);
	struct petal_mpmc_claim mine;
	int err = petal_mpmc_claim(ring_of(party), &mine);

	if (err)
		return party_outcome(err);
	history_add(party->history, EVENT_TRY, id);
	message_fill(mine.bytes, party->shape->length_max, id);
	return party_gave_up(party, petal_mpmc_abort(ring_of(party), &mine));
}

/* Several claims in hand; published one by one, to know what each came to. */
static int send_many(struct party *party)
{
	struct petal_mpmc_claim mine[MANY];
	uint64_t id = party_next_id(party);
	int count = petal_mpmc_claim_n(ring_of(party), MANY, mine);
	int outcome = ACT_DONE;

	if (count < 0)
		return party_outcome(count);
	for (int i = 0; i < count; i++) {
		history_add(party->history, EVENT_TRY, id + (uint64_t)i);
		message_fill(mine[i].bytes, party->shape->length_max,
			     id + (uint64_t)i);
	}
	for (int i = 0; i < count; i++) {
		int settled = party_settled(
			party, petal_mpmc_publish(ring_of(party), &mine[i]));

		outcome = settled ? settled : outcome;
	}
	return outcome;
}

static int finish(struct party *party)
{
	party_closes(party);
	petal_mpmc_close(ring_of(party));
	return party_closed(party);
}

/* ---- the consumer ---- */

static int peeked(int outcome)
{
	switch (outcome) {
	case PETAL_RING_FOUND:
		return ACT_DONE;
	case PETAL_RING_EMPTY:
		return ACT_NOTHING;
	case PETAL_RING_PENDING:
		return ACT_HELD_UP;
	case PETAL_RING_CLOSED:
		return ACT_CLOSED;
	default:
		return outcome;
	}
}

/*
 * What is read from a message that was given to another is worth nothing, so
 * what it says is noted for good only if it is whole.
 */
static uint64_t taken(struct party *party, const struct petal_mpmc_view *view)
{
	uint64_t id = message_read(view->bytes, party->shape->length_max);

	if (id)
		history_add(party->history,
			    view->redelivered ? EVENT_AGAIN : EVENT_GOT, id);
	return id;
}

static int let_go(struct party *party, const struct petal_mpmc_view *view,
		  uint64_t id)
{
	bool same = message_read(view->bytes, party->shape->length_max) == id;
	int err;

	if (id)
		history_add(party->history, EVENT_FREE, id);
	do {
		err = petal_mpmc_release(ring_of(party), view);
	} while (err == -EAGAIN);
	if (err == 0 && (!id || !same))
		history_add(party->history, EVENT_TORN, id);
	if (id)
		history_add(party->history, err ? EVENT_LATE : EVENT_DONE, id);
	return party_outcome(err);
}

static int receive(struct party *party)
{
	struct petal_mpmc_view view;
	int outcome = peeked(petal_mpmc_peek(ring_of(party), &view));

	if (outcome)
		return outcome;
	return let_go(party, &view, taken(party, &view));
}

/* Hold several, and release the last one first. */
static int receive_many(struct party *party)
{
	struct petal_mpmc_view views[MANY];
	uint64_t ids[MANY];
	uint32_t count = 0;
	int outcome =
		peeked(petal_mpmc_peek_n(ring_of(party), MANY, views, &count));

	if (outcome)
		return outcome;
	for (uint32_t i = 0; i < count; i++)
		ids[i] = taken(party, &views[i]);
	for (uint32_t i = count; i-- > 0;) {
		int one = let_go(party, &views[i], ids[i]);

		outcome = one ? one : outcome;
	}
	return outcome;
}

static int give_back(struct party *party)
{
	struct petal_mpmc_view view;
	int outcome = peeked(petal_mpmc_peek(ring_of(party), &view));
	int err;

	if (outcome)
		return outcome;
	do {
		err = petal_mpmc_give_back(ring_of(party), &view);
	} while (err == -EAGAIN);
	return party_outcome(err);
}

/* Nobody is waited for: what he has claimed is quarantined. */
static int fence_and_receive(struct party *party)
{
	uint32_t owner;
	int outcome = receive(party);

	if (outcome != ACT_HELD_UP ||
	    petal_mpmc_blocker(ring_of(party), &owner) != 0)
		return outcome;
	outcome = repaired(petal_mpmc_fence(ring_of(party), owner));
	return outcome ? outcome : receive(party);
}

static const struct act acts[] = {
	{ "send", PRODUCER, send, false },
	{ "abort", PRODUCER, give_up, false },
	{ "send many", PRODUCER, send_many, false },
	{ "close", PRODUCER, finish, true },
	{ "receive", CONSUMER, receive, false },
	{ "receive many", CONSUMER, receive_many, false },
	{ "give back", CONSUMER, give_back, false },
	{ "fence", CONSUMER, fence_and_receive, false },
	{ "close", CONSUMER, finish, true },
};

static const struct shape shapes[] = {
	{ "4 slots", 4, 24, 0, 2, 2, 0 },
	{ "8 slots near 2^32", 8, 40, (UINT64_C(1) << 32) - 3, 3, 2, 0 },
	{ "4 slots near 2^44", 4, 64, (UINT64_C(1) << 44) - 6, 2, 3, 0 },
	{ "64 slots of 16 B", 64, 16, 0, 2, 2, 0 },
	{ "1024 slots of 56 B", 1024, 56, 1000, 3, 3, 0 },
	{ "16 slots of 4 KiB", 16, 4096, 5, 2, 1, 0 },
};

const struct subject subject_mpmc = {
	.name = "mpmc",
	.shared_queue = true,
	.repairer = CONSUMER,
	.shapes = shapes,
	.shape_count = sizeof(shapes) / sizeof(shapes[0]),
	.stepped = 3,
	.acts = acts,
	.act_count = sizeof(acts) / sizeof(acts[0]),
	.bytes = mpmc_bytes,
	.format = mpmc_format,
	.join = mpmc_join,
	.repair = mpmc_repair,
	.fence = mpmc_fence,
	.room = mpmc_room,
};
