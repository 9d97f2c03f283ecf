/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fanout - what it costs to publish to 1, 4 and 16 readers
 *
 * The question: one publisher fills records of 64 bytes, N readers check every
 * one of them. What does a record cost the publisher, in CPU time, and how does
 * that grow with N? The answer is "produce" in the note; beside it is the rate
 * by the wall. The floor is one word that the publisher stores and N readers
 * look at.
 *
 * A publisher that must wait for a reader sleeps, as it would in earnest, so
 * that its CPU time is that of publishing. Readers that drop are never waited
 * for; what they lost is not checked, and what they read is.
 */
#include <string.h>
#include <time.h>

#include "bench/fanout.h"
#include "rings/bcast.h"

#define RING_BYTES (UINT64_C(1) << 20)
#define NAP_MIN_NS 20000
#define NAP_MAX_NS 20000000

/* The floor. */

static int floor_prepare(struct petal_flow_contender *who)
{
	return petal_flow_map(who, 4096);
}

static int floor_produce(struct petal_flow_contender *who, unsigned index,
			 struct petal_flow_run *run)
{
	struct petal_u64 *word = who->memory;
	uint64_t sequence = 0;

	(void)index;
	while (!petal_flow_is_over(run)) {
		for (unsigned i = 0; i < FANOUT_REPORT; i++)
			petal_store(word, ++sequence, PETAL_RELAXED);
		petal_flow_count(run, 0, sequence);
	}
	return 0;
}

static int floor_consume(struct petal_flow_contender *who, unsigned index,
			 struct petal_flow_run *run)
{
	struct petal_u64 *word = who->memory;
	uint64_t seen = 0, changes = 0;

	while (!petal_flow_is_over(run)) {
		uint64_t now = petal_load(word, PETAL_RELAXED);

		if (now == seen) {
			petal_flow_relax(run);
			continue;
		}
		seen = now;
		if (++changes % FANOUT_REPORT == 0)
			petal_flow_count(run, petal_flow_consumer(who, index),
					 changes);
	}
	return 0;
}

/* Ours. */

/* A reader's seat is taken before the fork, so that nobody misses anything. */
struct audience {
	enum petal_bcast_policy policy;
	struct petal_bcast_reader readers[FANOUT_READERS_MAX];
};

static int bcast_prepare(struct petal_flow_contender *who)
{
	const struct petal_bcast_geometry geometry = {
		.data_bytes = RING_BYTES,
		.readers = FANOUT_READERS_MAX,
	};
	struct audience *audience = who->arg;
	const struct petal_bcast_options options = {
		.policy = audience->policy,
	};
	int err = petal_flow_map(who, petal_bcast_bytes(&geometry));

	if (err == 0)
		err = petal_bcast_format(who->memory, &geometry);
	for (unsigned i = 0; i < who->consumers && err == 0; i++)
		err = petal_bcast_join(who->memory, who->memory_bytes, &options,
				       &audience->readers[i]);
	return err;
}

/*
 * Sleep until readers have made room for half a ring, as far as the last sleep
 * tells: who wakes up for each chunk pays for waking up, not for publishing.
 */
struct rest {
	struct timespec nap;
	uint64_t pos;
};

static void take_rest(struct rest *rest, uint64_t pos)
{
	long ns = rest->nap.tv_nsec;

	if (pos - rest->pos < RING_BYTES / 2)
		ns = ns * 2 < NAP_MAX_NS ? ns * 2 : NAP_MAX_NS;
	else
		ns = ns / 2 > NAP_MIN_NS ? ns / 2 : NAP_MIN_NS;
	rest->nap.tv_nsec = ns;
	rest->pos = pos;
	nanosleep(&rest->nap, NULL);
}

static int bcast_produce(struct petal_flow_contender *who, unsigned index,
			 struct petal_flow_run *run)
{
	struct rest rest = { .nap = { .tv_nsec = NAP_MIN_NS } };
	struct petal_bcast ring;
	uint64_t sequence = 0;
	int err = petal_bcast_attach(who->memory, who->memory_bytes, &ring);

	(void)index;
	while (err == 0 && !petal_flow_is_over(run)) {
		void *payload;

		err = petal_bcast_claim(&ring, FANOUT_BYTES, 0, &payload);
		if (err == -EAGAIN) {
			take_rest(&rest, ring.tail);
			err = 0;
			continue;
		}
		if (err)
			break;
		petal_payload_fill(payload, FANOUT_BYTES, sequence);
		petal_bcast_publish(&ring);
		if (++sequence % FANOUT_REPORT == 0)
			petal_flow_count(run, 0, sequence);
	}
	return err;
}

/* Return: 0 or -errno; what the reader could not get is no fault. */
static int take_one(struct petal_bcast_reader *reader, uint64_t *count)
{
	struct petal_bcast_view view;
	int outcome = petal_bcast_peek(reader, &view);
	int wrong;

	if (outcome)
		return outcome;
	wrong = petal_payload_check(view.payload, FANOUT_BYTES, view.ordinal);
	if (!petal_bcast_check(reader, &view))
		return PETAL_RING_LAPPED;
	if (wrong)
		return wrong;
	petal_bcast_release(reader, &view);
	++*count;
	return 0;
}

static int bcast_consume(struct petal_flow_contender *who, unsigned index,
			 struct petal_flow_run *run)
{
	struct audience *audience = who->arg;
	struct petal_bcast_reader *reader = &audience->readers[index];
	uint64_t count = 0;

	/* A CPU that others wait for is not waited on. */
	if (run->crowded)
		petal_pace_limit(&reader->pace, 0);
	while (!petal_flow_is_over(run)) {
		int outcome = take_one(reader, &count);

		if (outcome == PETAL_RING_EMPTY)
			petal_flow_relax(run);
		if (outcome < 0 && outcome != -EAGAIN)
			return outcome;
		if (outcome == 0 && count % FANOUT_REPORT == 0)
			petal_flow_count(run, petal_flow_consumer(who, index),
					 count);
	}
	return 0;
}

/* The table. */

static struct petal_flow_contender floor_row(unsigned readers)
{
	return (struct petal_flow_contender){
		.impl = "store",
		.remark = "one word stored, without waiting, and looked at",
		.floor = true,
		.every = true,
		.bytes = sizeof(uint64_t),
		.producers = 1,
		.consumers = readers,
		.prepare = floor_prepare,
		.produce = floor_produce,
		.consume = floor_consume,
	};
}

static struct petal_flow_contender bcast_row(unsigned readers,
					     enum petal_bcast_policy policy)
{
	static struct audience audiences[] = {
		{ .policy = PETAL_BCAST_BLOCK },
		{ .policy = PETAL_BCAST_DROP_OLDEST },
	};
	bool drops = policy == PETAL_BCAST_DROP_OLDEST;

	return (struct petal_flow_contender){
		.question = drops ? "drop oldest" : "block",
		.impl = "petal-bcast",
		.remark = drops ? "nobody is waited for"
				: "the publisher sleeps while it waits",
		.every = true,
		.bytes = FANOUT_BYTES,
		.producers = 1,
		.consumers = readers,
		.prepare = bcast_prepare,
		.produce = bcast_produce,
		.consume = bcast_consume,
		.arg = &audiences[drops],
	};
}

int main(int argc, char **argv)
{
	static const unsigned readers[] = { 1, 4, 16 };
	struct petal_flow_contender rows[16];
	size_t count = 0;

	for (size_t i = 0; i < sizeof(readers) / sizeof(*readers); i++) {
		rows[count++] = floor_row(readers[i]);
		rows[count++] = bcast_row(readers[i], PETAL_BCAST_BLOCK);
		rows[count++] = bcast_row(readers[i], PETAL_BCAST_DROP_OLDEST);
		fanout_peer_zmq(&rows[count++], readers[i]);
	}
	return petal_flow_main("fanout", rows, count, argc, argv);
}
