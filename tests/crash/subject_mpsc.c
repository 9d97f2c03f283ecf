/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/subjects.h"

#include <errno.h>
#include <stdio.h>

#include "rings/mpsc.h"

/*
 * The consumer has owner number 0 and repairs; whoever follows a dead consumer
 * adopts first. Producers have the numbers from 1. Who is too slow is fenced
 * only where it holds up the consumer. A variant is the room that only owner 0
 * may claim, who sends to itself.
 */

struct mpsc_view {
	struct petal_mpsc ring;
	uint64_t pos; /* the consumer's */
};

#define MANY 3u
#define RUN_BYTES 48u
#define OWNERS (PARTIES_MAX + 1)

static struct petal_mpsc_geometry geometry_of(const struct shape *shape)
{
	struct petal_mpsc_geometry geometry = {
		.data_bytes = shape->count,
		.owners = OWNERS,
		.reserve_bytes = shape->variant,
		.start_pos = shape->start_pos,
	};

	return geometry;
}

static uint64_t header_bytes(const struct shape *shape)
{
	struct petal_mpsc_geometry geometry = geometry_of(shape);

	return petal_mpsc_bytes(&geometry);
}

static uint64_t mpsc_bytes(const struct shape *shape)
{
	return header_bytes(shape) + shape->count;
}

static int mpsc_format(void *memory, const struct shape *shape)
{
	struct petal_mpsc_geometry geometry = geometry_of(shape);

	return petal_mpsc_format(memory, &geometry);
}

static struct mpsc_view *view_of(struct party *party)
{
	return (struct mpsc_view *)(void *)party->view;
}

static int mpsc_join(struct party *party)
{
	struct mpsc_view *view = view_of(party);
	uint8_t *memory = party->memory;
	uint64_t header = header_bytes(party->shape);
	int err = petal_mpsc_attach(
		memory, header, memory + header, party->shape->count,
		party->role == CONSUMER ? 0 : party->index + 1, &view->ring);

	if (err || party->role == PRODUCER)
		return err;
	return petal_mpsc_adopt(&view->ring, &view->pos);
}

static void owners_of(const struct casualties *dead,
		      uint64_t ret_owners[PETAL_MPSC_OWNERS_MAX / 64])
{
	for (unsigned i = 0; i < PETAL_MPSC_OWNERS_MAX / 64; i++)
		ret_owners[i] = 0;
	ret_owners[0] = (uint64_t)dead->producers << 1 | (dead->consumers & 1);
}

static int mpsc_repair(struct party *party, const struct casualties *dead)
{
	uint64_t owners[PETAL_MPSC_OWNERS_MAX / 64];
	int count;

	owners_of(dead, owners);
	count = petal_mpsc_repair(&view_of(party)->ring, view_of(party)->pos,
				  owners);
	if (count == -EAGAIN)
		return ACT_HELD_UP;
	return count < 0 ? count : 0;
}

static int mpsc_fence(struct party *party, const struct casualties *slow)
{
	struct mpsc_view *view = view_of(party);
	struct petal_mpsc_view record;
	uint32_t owner;
	int err;

	if (!slow->producers || petal_mpsc_peek(&view->ring, view->pos,
						&record) != PETAL_RING_PENDING)
		return 0;
	err = petal_mpsc_fence(&view->ring, view->pos, &owner);
	/* With no place in its table it has to wait, like without a fence. */
	return err == -ENOSPC || err == -EAGAIN || err > 0 ? 0 : err;
}

static uint64_t mpsc_room(const struct shape *shape)
{
	return (shape->count - shape->variant) / PETAL_RECORD_ALIGN - 1;
}

/* ---- the producer ---- */

static int claim(struct party *party, uint64_t id,
		 struct petal_mpsc_claim *ret_claim)
{
	return petal_mpsc_claim(&view_of(party)->ring,
				message_length(id, party->shape->length_max),
				ret_claim);
}

static void fill(const struct petal_mpsc_claim *claim, uint32_t length,
		 uint64_t id)
{
	petal_store(petal_record_type(claim->record), 1, PETAL_RELAXED);
	message_fill(claim->record + 1, length, id);
}

static int send(struct party *party)
{
	uint64_t id = party_next_id(party);
	struct petal_mpsc_claim mine;
	int err = claim(party, id, &mine);

	if (err)
		return party_outcome(err);
	history_add(party->history, EVENT_TRY, id);
	fill(&mine, message_length(id, party->shape->length_max), id);
	return party_settled(party,
			     petal_mpsc_publish(&view_of(party)->ring, &mine));
}

static int give_up(struct party *party)
{
	uint64_t id = party_next_id(party);
	struct petal_mpsc_claim mine;
	int err = claim(party, id, &mine);

	if (err)
		return party_outcome(err);
	history_add(party->history, EVENT_TRY, id);
	fill(&mine, message_length(id, party->shape->length_max), id);
	return party_gave_up(party,
			     petal_mpsc_abort(&view_of(party)->ring, &mine));
}

/* Several of one length by one claim; all of them or none. */
static int send_run(struct party *party)
{
	uint64_t id = party_next_id(party);
	struct petal_mpsc *ring = &view_of(party)->ring;
	struct petal_mpsc_claim run;
	int err = petal_mpsc_claim_run(ring, RUN_BYTES, MANY, &run);

	if (err)
		return party_outcome(err);
	for (unsigned i = 0; i < MANY; i++) {
		struct petal_record *record =
			petal_mpsc_claim_at(&run, RUN_BYTES, i);

		history_add(party->history, EVENT_TRY, id + i);
		petal_store(petal_record_type(record), 1, PETAL_RELAXED);
		message_fill(record + 1, RUN_BYTES, id + i);
	}
	err = petal_mpsc_publish(ring, &run);
	for (unsigned i = 0; i < MANY; i++)
		party_settled(party, err);
	return party_outcome(err);
}

static int finish(struct party *party)
{
	party_closes(party);
	petal_mpsc_close(&view_of(party)->ring);
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

/* Look at the record at a position; its id is 0 for padding. */
static int look(struct party *party, uint64_t pos,
		struct petal_mpsc_view *ret_record, uint64_t *ret_id)
{
	int outcome =
		peeked(petal_mpsc_peek(&view_of(party)->ring, pos, ret_record));

	*ret_id = 0;
	if (outcome == ACT_DONE &&
	    ret_record->type != PETAL_RECORD_TYPE_PADDING)
		*ret_id = party_got(party, ret_record->record + 1,
				    ret_record->length);
	return outcome;
}

static void let_go(struct party *party, uint64_t end, const uint64_t *ids,
		   unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (ids[i])
			history_add(party->history, EVENT_FREE, ids[i]);
	petal_mpsc_release(&view_of(party)->ring, end);
	view_of(party)->pos = end;
	for (unsigned i = 0; i < count; i++)
		if (ids[i])
			history_add(party->history, EVENT_DONE, ids[i]);
}

static int receive(struct party *party)
{
	struct petal_mpsc_view record;
	uint64_t id;
	int outcome = look(party, view_of(party)->pos, &record, &id);

	if (outcome)
		return outcome;
	if (id)
		party_still(party, id, record.record + 1, record.length);
	let_go(party, record.end, &id, 1);
	return ACT_DONE;
}

/* Hold several, then let them go at once. */
static int receive_many(struct party *party)
{
	uint64_t pos = view_of(party)->pos;
	struct petal_mpsc_view record;
	uint64_t ids[MANY];
	unsigned count = 0;
	int outcome = 0;

	while (count < MANY) {
		outcome = look(party, pos, &record, &ids[count]);
		if (outcome)
			break;
		count++;
		pos = record.end;
	}
	if (count == 0 || outcome < 0)
		return outcome;
	let_go(party, pos, ids, count);
	return ACT_DONE;
}

/* Nobody is waited for: what is claimed and not published is taken away. */
static int fence_and_receive(struct party *party)
{
	struct mpsc_view *view = view_of(party);
	uint32_t owner;
	int err = petal_mpsc_fence(&view->ring, view->pos, &owner);

	if (err < 0 && err != -ENOSPC)
		return err;
	return receive(party);
}

/*
 * Free lines begin with zero, or the next claim there would fail. Where one that
 * was fenced may still write, nothing can be said.
 */
static int mpsc_audit(const void *memory, const struct shape *shape,
		      char *ret_why)
{
	const uint8_t *data = (const uint8_t *)memory + header_bytes(shape);
	const struct petal_mpsc_shared *shared = memory;
	uint64_t head = shared->head.bits;
	uint64_t tail = shared->tail.bits & ~PETAL_MPSC_CLOSED;
	uint64_t pos;

	if (tail - head > shape->count) {
		snprintf(ret_why, 200, "tail is %lld after head",
			 (long long)(tail - head));
		return 1;
	}
	if (shared->fenced.bits)
		return 0;
	for (pos = tail; pos != head + shape->count;
	     pos += PETAL_RECORD_ALIGN) {
		const uint8_t *line = data + (pos & (shape->count - 1));

		if (message_get(line) || message_get(line + 8)) {
			snprintf(ret_why, 200, "free line %llu is not zero",
				 (unsigned long long)pos);
			return 1;
		}
	}
	return 0;
}

static const struct act acts[] = {
	{ "send", PRODUCER, send, false },
	{ "abort", PRODUCER, give_up, false },
	{ "send run", PRODUCER, send_run, false },
	{ "close", PRODUCER, finish, true },
	{ "receive", CONSUMER, receive, false },
	{ "receive many", CONSUMER, receive_many, false },
	{ "fence", CONSUMER, fence_and_receive, false },
	{ "send to itself", CONSUMER, send, false },
	{ "close", CONSUMER, finish, true },
};

static const struct shape shapes[] = {
	{ "4 KiB", 4096, 900, 0, 3, 1, 0 },
	{ "4 KiB about to wrap", 4096, 500, 4096 - 128, 3, 1, 512 },
	{ "4 KiB near 2^32", 4096, 1000, (UINT64_C(1) << 32) - 192, 3, 1, 0 },
	{ "64 KiB", 65536, 900, 0, 3, 1, 0 },
	{ "4 KiB of short ones", 4096, 48, 64, 2, 1, 0 },
	{ "1 MiB", 1048576, 16384, 0, 1, 1, 0 },
};

const struct subject subject_mpsc = {
	.name = "mpsc",
	.repairer = CONSUMER,
	.shapes = shapes,
	.shape_count = sizeof(shapes) / sizeof(shapes[0]),
	.stepped = 3,
	.acts = acts,
	.act_count = sizeof(acts) / sizeof(acts[0]),
	.bytes = mpsc_bytes,
	.format = mpsc_format,
	.join = mpsc_join,
	.repair = mpsc_repair,
	.fence = mpsc_fence,
	.audit = mpsc_audit,
	.room = mpsc_room,
};
