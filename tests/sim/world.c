/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

#include "tests/check.h"

#include "shm/clock.h"
#include "tests/sim/trio.h"

#define ACTORS 6u
#define MESSAGES 4096u
#define HELD 8u
#define PENDING PETAL_LOG_WINDOW
#define LEASE_NS PETAL_MS(50)
#define WORK 1u
#define DONE 2u

enum kind { SOURCE, WORKER, CLERK };

struct body {
	uint64_t id;
	uint64_t stage;
	uint8_t bytes[];
};

/* A record of ours whose outcome we do not know yet. */
struct pending {
	uint64_t sequence;
	uint64_t ids[2];
	unsigned id_count;
	bool spoilt; /* made so that it has to be refused */
};

struct actor {
	struct trio_actor base;
	enum kind kind;
	bool open;
	bool dead; /* buried, its number is not free yet */
	bool claimed;
	uint64_t claimed_id;
	struct petal_mpsc_claim claim;
	struct petal_message held[HELD];
	unsigned held_count;
	struct pending pending[PENDING];
	unsigned pending_count;
};

struct world {
	struct trio t;
	uint64_t random;
	uint64_t seed;
	uint64_t step;
	uint64_t next_id;
	bool faults;
	/* How often each was committed: put and acknowledged, per queue. */
	uint8_t put[3][MESSAGES];
	uint8_t done[3][MESSAGES];
	struct actor actors[ACTORS];
};

static uint64_t dice(struct world *w, uint64_t sides)
{
	return petal_test_random(&w->random) % sides;
}

#define WORLD_ASSERT(w, condition)                                           \
	do {                                                                 \
		if (!(condition))                                            \
			fail_msg("seed %llu step %llu: %s",                  \
				 (unsigned long long)(w)->seed,              \
				 (unsigned long long)(w)->step, #condition); \
	} while (0)

/* ---- messages ---- */

static uint32_t body_bytes(uint64_t id)
{
	uint64_t random = id;
	uint64_t size = petal_test_random(&random);

	/* Most are small, some take a good part of the ring. */
	return (uint32_t)(sizeof(struct body) +
			  size % (size >> 32 & 31 ? 300 : 9000));
}

static void body_fill(void *to, uint64_t id, uint64_t stage)
{
	struct body *body = to;

	body->id = id;
	body->stage = stage;
	memset(body->bytes, (int)(id * 7 + stage),
	       body_bytes(id) - sizeof(*body));
}

static uint64_t body_check(struct world *w, const struct petal_message *m)
{
	struct body body;
	const uint8_t *bytes = m->bytes;

	WORLD_ASSERT(w, m->length >= sizeof(body));
	memcpy(&body, m->bytes, sizeof(body));
	WORLD_ASSERT(w, body.id < w->next_id);
	WORLD_ASSERT(w, body.stage == m->queue);
	WORLD_ASSERT(w, m->length == body_bytes(body.id));
	for (uint32_t i = sizeof(body); i < m->length; i++)
		WORLD_ASSERT(w,
			     bytes[i] == (uint8_t)(body.id * 7 + body.stage));
	return body.id;
}

/* ---- outcomes ---- */

static void commit(struct world *w, const struct actor *a,
		   const struct pending *p)
{
	for (unsigned i = 0; i < p->id_count; i++) {
		uint64_t id = p->ids[i];

		if (a->kind == SOURCE) {
			WORLD_ASSERT(w, ++w->put[WORK][id] == 1);
		} else if (a->kind == WORKER) {
			WORLD_ASSERT(w, ++w->done[WORK][id] == 1);
			WORLD_ASSERT(w, ++w->put[DONE][id] == 1);
		} else {
			WORLD_ASSERT(w, ++w->done[DONE][id] == 1);
		}
	}
}

static void resolve(struct world *w, struct actor *a)
{
	unsigned left = 0;

	for (unsigned i = 0; i < a->pending_count; i++) {
		const struct pending *p = &a->pending[i];
		int64_t outcome = trio_outcome(&a->base, p->sequence);

		if (outcome == 0) {
			a->pending[left++] = *p;
			continue;
		}
		WORLD_ASSERT(w, (outcome > 0) != p->spoilt ||
					(outcome < 0 && a->kind != SOURCE));
		WORLD_ASSERT(w, outcome > 0 || p->spoilt || outcome == -ESTALE);
		if (outcome > 0)
			commit(w, a, p);
	}
	a->pending_count = left;
}

static struct pending *pend(struct actor *a, uint64_t sequence)
{
	struct pending *p = &a->pending[a->pending_count++];

	*p = (struct pending){ .sequence = sequence };
	return p;
}

/* ---- what actors do ---- */

/*
 * How full the ring may be for a record. The oldest message alone can make
 * room, so whoever finishes it must always find some: for the longest record,
 * a quarter of the ring, and for as much padding before it. All others stop
 * while half of the ring, and what only the replicator may claim, is free; and
 * new work stops before work in progress does.
 */
static bool has_room(struct world *w, struct actor *a, uint64_t bytes)
{
	uint64_t whole = w->t.data_bytes;
	uint64_t share = whole;

	if (a->kind == SOURCE)
		share = whole / 8 * 3;
	else if (a->held[0].pos != w->t.primary.trim_pos)
		share = whole / 16 * 7;
	return a->pending_count < PENDING &&
	       petal_mpsc_used(&a->base.log.ring) + bytes <= share;
}

static void source_acts(struct world *w, struct actor *a)
{
	uint64_t id = a->claimed ? a->claimed_id : w->next_id;
	uint32_t length = body_bytes(id);
	struct petal_record_durable *record;
	struct pending *p;

	if (!a->claimed) {
		if (id == MESSAGES || !has_room(w, a, length) ||
		    trio_claim(&a->base, length, &a->claim) < 0)
			return;
		a->claimed = true;
		a->claimed_id = w->next_id++;
		return; /* others go first */
	}
	a->claimed = false;
	record = (void *)a->claim.record;
	if (dice(w, 20) == 0) {
		assert_ok(petal_mpsc_abort(&a->base.log.ring, &a->claim));
		return;
	}
	body_fill(trio_payload(&a->claim), id, WORK);
	if (w->faults && dice(w, 40) == 0) {
		record->record.type = 0;
		record->queue = WORK;
		record->session = a->base.session;
		record->sequence = ++a->base.sequence;
		record->payload_crc =
			1 + petal_record_payload_crc(record, length + 48);
		assert_ok(petal_mpsc_publish(&a->base.log.ring, &a->claim));
		pend(a, a->base.sequence)->spoilt = true;
		return;
	}
	p = pend(a, trio_publish(&a->base, &a->claim, 0, WORK, length));
	p->ids[p->id_count++] = id;
}

static void pull(struct world *w, struct actor *a)
{
	uint32_t queue = a->kind == WORKER ? WORK : DONE;
	struct petal_message message;
	uint64_t id;

	if (a->held_count == HELD || trio_take(&a->base, queue, &message) != 0)
		return;
	id = body_check(w, &message);
	for (unsigned i = 0; i < ACTORS; i++)
		resolve(w, &w->actors[i]);
	/* Nobody sees what was not accepted, and acknowledged is gone. */
	WORLD_ASSERT(w, w->put[queue][id] == 1);
	WORLD_ASSERT(w, w->done[queue][id] == 0);
	a->held[a->held_count++] = message;
}

static void drop_held(struct actor *a, unsigned count)
{
	a->held_count -= count;
	memmove(a->held, a->held + count, a->held_count * sizeof(a->held[0]));
}

static bool is_held(const struct actor *a, unsigned i)
{
	struct petal_queue_lease lease = { a->held[i].ordinal,
					   a->held[i].lease };
	struct petal_queue queue = a->base.log.queues[a->held[i].queue - 1];

	return petal_queue_check(&queue, &lease) == 0;
}

static void finish(struct world *w, struct actor *a)
{
	unsigned count = a->held_count > 1 && dice(w, 2) ? 2 : 1;
	static uint64_t bytes[2][1200];
	struct petal_output outputs[2];
	struct pending *p;
	uint64_t room = 200, sequence, ids[2];

	while (a->held_count > 0 && !is_held(a, 0) && dice(w, 8))
		drop_held(a, 1);
	if (a->held_count < count)
		return;
	for (unsigned i = 0; i < count; i++) {
		memcpy(&ids[i], a->held[i].bytes, sizeof(ids[i]));
		/* It may be stale, and something else by now. */
		if (ids[i] >= w->next_id)
			ids[i] = 0;
		body_fill(bytes[i], ids[i], DONE);
		outputs[i] = (struct petal_output){ DONE, body_bytes(ids[i]),
						    bytes[i] };
		room += a->kind == WORKER ? outputs[i].length : 0;
	}
	if (!has_room(w, a, room))
		return;
	sequence = trio_forward(&a->base, a->held, count, outputs,
				a->kind == WORKER ? count : 0);
	if (sequence == 0)
		return;
	p = pend(a, sequence);
	p->id_count = count;
	memcpy(p->ids, ids, sizeof(p->ids));
	drop_held(a, count);
}

static void give_back(struct actor *a)
{
	struct petal_queue *queues = a->base.log.queues;
	struct petal_queue_lease lease;

	if (a->held_count == 0)
		return;
	lease.ordinal = a->held[0].ordinal;
	lease.word = a->held[0].lease;
	petal_queue_release(&queues[a->held[0].queue - 1], &lease);
	drop_held(a, 1);
}

/* Moves the tail and stops there, before it can say who it was. */
static void stop_in_claim(struct actor *a)
{
	struct petal_mpsc *ring = &a->base.log.ring;
	uint64_t extent = petal_record_extent(200);
	uint64_t tail;

	if (petal_mpsc_make_room(ring, extent, &tail) == 0)
		petal_mpsc_swap(ring, &tail, tail + extent);
}

static void die(struct world *w, struct actor *a)
{
	if (!a->claimed && dice(w, 2))
		stop_in_claim(a);
	trio_actor_die(&a->base);
	a->dead = true;
}

/* A new process under the number of a dead one, once that is free. */
static void rise(struct world *w, struct actor *a)
{
	const uint32_t owner = (uint32_t)(a - w->actors) + 1;

	if (w->t.primary.owners[owner].attached)
		return;
	resolve(w, a);
	WORLD_ASSERT(w, a->pending_count == 0);
	a->claimed = false;
	a->held_count = 0;
	a->dead = false;
	a->open = trio_actor_open(&w->t, owner, &a->base);
	WORLD_ASSERT(w, a->open);
}

static void act(struct world *w, struct actor *a)
{
	uint64_t side = dice(w, 16);

	if (!a->open || a->dead) {
		rise(w, a);
		return;
	}
	resolve(w, a);
	if (a->kind == SOURCE)
		source_acts(w, a);
	else if (side < 7)
		pull(w, a);
	else if (side < 14)
		finish(w, a);
	else if (side == 14)
		give_back(a);
	else if (a->held_count > 0 && w->faults)
		drop_held(a, 1); /* forgotten: it expires */
}

/* ---- what goes wrong ---- */

static void fly(struct world *w)
{
	uint64_t first = dice(w, TRIO_FLIGHTS);
	struct trio_flight *flight = NULL;

	for (uint64_t n = 0; n < TRIO_FLIGHTS; n++) {
		flight = &w->t.flights[(first + n) % TRIO_FLIGHTS];
		if (flight->used)
			break;
	}
	if (flight->landed)
		trio_complete(&w->t, flight);
	else
		trio_deliver(&w->t, flight,
			     dice(w, 2) ? UINT64_MAX : 1 + dice(w, 700));
}

static void go_wrong(struct world *w)
{
	unsigned member = 1 + (unsigned)dice(w, 2);
	struct actor *a = &w->actors[dice(w, ACTORS)];

	switch (dice(w, 32)) {
	case 0:
	case 1:
		trio_cut(&w->t, member);
		break;
	case 2:
		/* More than one memory lost at a time is more than mem2. */
		if (w->t.members[3 - member].votes_as ==
		    w->t.members[3 - member].inc)
			trio_crash(&w->t, member, dice(w, 3) > 0);
		break;
	case 3:
		if (dice(w, 10) == 0)
			trio_disk_end(&w->t, (unsigned)dice(w, 3), -EIO);
		break;
	case 4:
		w->t.disks[dice(w, 3)].full ^= true;
		break;
	case 5:
	case 6:
	case 7:
		if (a->open && !a->dead)
			die(w, a);
		break;
	case 8:
		w->t.now_ns += LEASE_NS;
		break;
	default:
		break;
	}
}

static void once(struct world *w)
{
	switch (dice(w, 16)) {
	case 0:
	case 1:
	case 2:
		trio_step(&w->t);
		break;
	case 3:
	case 4:
		trio_step_backup(&w->t, 1 + (unsigned)dice(w, 2));
		break;
	case 5:
		trio_disk_end(&w->t, (unsigned)dice(w, 3), 0);
		break;
	case 6:
		trio_link(&w->t, 1 + (unsigned)dice(w, 2));
		break;
	case 7:
		if (w->faults)
			go_wrong(w);
		break;
	case 8:
		w->t.now_ns += dice(w, LEASE_NS / 8);
		break;
	case 9:
	case 10:
	case 11:
		for (unsigned n = 0; n < 8; n++)
			act(w, &w->actors[dice(w, ACTORS)]);
		break;
	default:
		for (unsigned n = 0; n < 8; n++)
			fly(w);
	}
	WORLD_ASSERT(w, w->t.step >= 0);
	WORLD_ASSERT(w, w->t.bad_acks == 0);
}

/* ---- the end ---- */

static bool all_is_done(struct world *w)
{
	for (unsigned i = 0; i < ACTORS; i++) {
		if (!w->actors[i].open || w->actors[i].dead ||
		    w->actors[i].pending_count > 0 || w->actors[i].claimed)
			return false;
	}
	for (uint64_t id = 0; id < w->next_id; id++) {
		if (w->put[WORK][id] != w->done[DONE][id])
			return false;
	}
	return true;
}

static void mend(struct world *w)
{
	w->faults = false;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++)
		w->t.disks[i].full = false;
	for (unsigned round = 0; round < 2000; round++) {
		for (unsigned i = 1; i < PETAL_LOG_MEMBERS; i++)
			trio_link(&w->t, i);
		trio_rest(&w->t);
		for (unsigned i = 0; i < ACTORS; i++) {
			struct actor *a = &w->actors[i];

			if (a->kind == SOURCE && a->open && !a->dead &&
			    !a->claimed) {
				resolve(w, a);
				continue;
			}
			for (unsigned n = 0; n < 6; n++)
				act(w, a);
		}
		w->t.now_ns += LEASE_NS / 4;
		if (all_is_done(w))
			break;
	}
	for (unsigned i = 1; i < PETAL_LOG_MEMBERS; i++)
		trio_link(&w->t, i);
	trio_rest(&w->t);
}

static void check_end(struct world *w)
{
	uint64_t end = w->t.primary.accepted.pos;

	for (uint64_t id = 0; id < w->next_id; id++) {
		WORLD_ASSERT(w, w->done[WORK][id] == w->put[WORK][id]);
		WORLD_ASSERT(w, w->put[DONE][id] == w->put[WORK][id]);
		WORLD_ASSERT(w, w->done[DONE][id] == w->put[WORK][id]);
	}
	WORLD_ASSERT(w, all_is_done(w));
	WORLD_ASSERT(w, trio_level(&w->t, PETAL_LEVEL_MEM3) == end);
	WORLD_ASSERT(w, w->t.primary.trim_pos == end);
	for (unsigned i = 0; i < 2; i++) {
		struct petal_queue_counts counts;

		petal_queue_counts(&w->t.log.queues[i], &counts);
		WORLD_ASSERT(w, counts.enqueued == counts.done);
	}
}

static void world_open(struct world *w, uint64_t seed)
{
	static const enum kind kinds[ACTORS] = { SOURCE, SOURCE, WORKER,
						 WORKER, WORKER, CLERK };
	struct trio_options options = {
		.seed = seed ^ UINT64_C(0x5eed),
		.data_bytes = UINT64_C(65536),
		.slots = seed % 4 ? 64 : 4,
		.lease_ns = LEASE_NS,
	};

	memset(w, 0, sizeof(*w));
	w->seed = seed;
	w->random = seed;
	w->faults = seed % 8 != 0;
	trio_open(&w->t, &options);
	w->t.stream = seed % 3 == 0;
	for (unsigned i = 0; i < ACTORS; i++)
		w->actors[i].kind = kinds[i];
}

void world_run(uint64_t seed, unsigned steps)
{
	struct world *w = malloc(sizeof(*w));

	world_open(w, seed);
	for (w->step = 0; w->step < steps; w->step++) {
		once(w);
		if (w->step % 16 == 0)
			trio_check_bytes(&w->t);
	}
	mend(w);
	check_end(w);
	for (unsigned i = 0; i < ACTORS; i++) {
		if (w->actors[i].open && !w->actors[i].dead)
			petal_log_close(&w->actors[i].base.log);
	}
	trio_close(&w->t);
	free(w);
}
