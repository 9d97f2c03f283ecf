/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fanin - how many messages pass from N processes to one
 *
 * The question: with N producers and one consumer that never wait for an
 * answer, one message at a time or 32 in a call, how many arrive in a second,
 * also when the parties are many more than the CPUs? The floor is N processes
 * that add to one word.
 *
 * Ours is one ring for all, or a lane for each producer, which the consumer
 * visits in turns (what producers that do not trust each other get). Whoever
 * finds a ring full or empty gives up its CPU if there are too few of them,
 * ours and peers alike.
 */
#include "bench/fanin.h"
#include "rings/mpsc.h"
#include "rings/spsc.h"

#define ALWAYS static inline __attribute__((always_inline))

/* NULL where the build has left its file out. */
extern __typeof__(fanin_peer_caf) fanin_peer_caf __attribute__((weak));

/* The floor. */

static int floor_prepare(struct petal_flow_contender *who)
{
	return petal_flow_map(who, 4096);
}

static int floor_produce(struct petal_flow_contender *who, unsigned index,
			 struct petal_flow_run *run)
{
	struct petal_u64 *word = who->memory;

	for (uint64_t count = 1; !petal_flow_is_over(run); count++) {
		petal_add(word, 1, PETAL_RELAXED);
		if (count % FANIN_BULK == 0)
			petal_flow_count(run, index, count);
	}
	return 0;
}

/* One ring for all. */

static const struct petal_mpsc_geometry mpsc_geometry = {
	.data_bytes = FANIN_SLOTS * 2 * PETAL_RECORD_ALIGN,
	.owners = FANIN_PRODUCERS_MAX + 1,
};

static int mpsc_prepare(struct petal_flow_contender *who)
{
	int err = petal_flow_map(who, petal_mpsc_bytes(&mpsc_geometry) +
					      mpsc_geometry.data_bytes);

	return err < 0 ? err : petal_mpsc_format(who->memory, &mpsc_geometry);
}

static int mpsc_attach(struct petal_flow_contender *who, uint32_t owner,
		       struct petal_mpsc *ring)
{
	uint64_t bytes = petal_mpsc_bytes(&mpsc_geometry);

	return petal_mpsc_attach(who->memory, bytes,
				 (uint8_t *)who->memory + bytes,
				 mpsc_geometry.data_bytes, owner, ring);
}

/* How the messages of a bulk lie in the ring. */
enum shape {
	SINGLE, /* a record each */
	RUN,    /* a record each, claimed and published together */
	BATCH,  /* all in one record */
};

ALWAYS int mpsc_claim(struct petal_mpsc *ring, enum shape shape,
		      struct petal_mpsc_claim *claim)
{
	if (shape == SINGLE)
		return petal_mpsc_claim(ring, FANIN_BYTES, claim);
	if (shape == RUN)
		return petal_mpsc_claim_run(ring, FANIN_BYTES, FANIN_BULK,
					    claim);
	return petal_mpsc_claim(ring, FANIN_BULK * FANIN_BYTES, claim);
}

ALWAYS void mpsc_fill(const struct petal_mpsc_claim *claim, enum shape shape,
		      uint64_t id)
{
	uint8_t *batch = (uint8_t *)(claim->record + 1);

	if (shape == BATCH) {
		claim->record->type = BATCH;
		for (unsigned i = 0; i < FANIN_BULK; i++)
			fanin_fill(batch + i * FANIN_BYTES, id + i);
		return;
	}
	for (unsigned i = 0; i < (shape == RUN ? FANIN_BULK : 1); i++) {
		struct petal_record *record =
			petal_mpsc_claim_at(claim, FANIN_BYTES, i);

		record->type = shape;
		fanin_fill(record + 1, id + i);
	}
}

ALWAYS int mpsc_produce_as(struct petal_mpsc *ring, unsigned index,
			   struct petal_flow_run *run, enum shape shape)
{
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		struct petal_mpsc_claim claim;
		int err = mpsc_claim(ring, shape, &claim);

		if (err == -EAGAIN) {
			petal_flow_relax(run);
			continue;
		}
		if (err)
			return err;
		mpsc_fill(&claim, shape, fanin_id(index, sequence));
		sequence += shape == SINGLE ? 1 : FANIN_BULK;
		err = petal_mpsc_publish(ring, &claim);
		if (err)
			return err;
	}
	return 0;
}

static int mpsc_produce(struct petal_flow_contender *who, unsigned index,
			struct petal_flow_run *run)
{
	const enum shape *shape = who->arg;
	struct petal_mpsc ring;
	int err = mpsc_attach(who, index + 1, &ring);

	if (err)
		return err;
	return *shape == SINGLE ? mpsc_produce_as(&ring, index, run, SINGLE)
	       : *shape == RUN  ? mpsc_produce_as(&ring, index, run, RUN)
				: mpsc_produce_as(&ring, index, run, BATCH);
}

/* A record holds as many messages as it is long. */
static int mpsc_check(struct fanin_tally *tally,
		      const struct petal_mpsc_view *view)
{
	const uint8_t *messages = (const uint8_t *)(view->record + 1);

	if (view->type == PETAL_RECORD_TYPE_PADDING)
		return 0;
	for (uint32_t at = 0; at + FANIN_BYTES <= view->length;
	     at += FANIN_BYTES)
		if (fanin_check(tally, messages + at) < 0)
			return -EBADMSG;
	return 0;
}

/* What is looked at is given back when nothing more is there, or enough. */
static int mpsc_consume(struct petal_flow_contender *who, unsigned index,
			struct petal_flow_run *run)
{
	unsigned party = petal_flow_consumer(who, index);
	struct fanin_tally tally = { .count = 0 };
	uint64_t pos = 0, released = 0;
	struct petal_mpsc_view view;
	struct petal_mpsc ring;
	int err = mpsc_attach(who, 0, &ring);

	while (err >= 0 && !petal_flow_is_over(run)) {
		err = petal_mpsc_peek(&ring, pos, &view);
		if (err == 0) {
			pos = view.end;
			err = mpsc_check(&tally, &view);
			if (pos - released < mpsc_geometry.data_bytes / 8)
				continue;
		}
		if (pos != released) {
			petal_mpsc_release(&ring, pos);
			petal_flow_count(run, party, tally.count);
			released = pos;
		} else {
			petal_flow_relax(run);
		}
	}
	return err < 0 ? err : 0;
}

/* A lane for each. */

static struct petal_spsc_geometry
lane_geometry(const struct petal_flow_contender *who)
{
	return (struct petal_spsc_geometry){
		.slot_count = FANIN_SLOTS / who->producers,
		.slot_bytes = FANIN_BYTES,
		.kind = PETAL_SPSC_INDEXED,
	};
}

static uint64_t lane_bytes(const struct petal_flow_contender *who)
{
	struct petal_spsc_geometry geometry = lane_geometry(who);

	return (petal_spsc_bytes(&geometry) + 127) & ~UINT64_C(127);
}

static int lanes_prepare(struct petal_flow_contender *who)
{
	struct petal_spsc_geometry geometry = lane_geometry(who);
	uint64_t bytes = lane_bytes(who);
	int err = petal_flow_map(who, bytes * who->producers);

	for (unsigned i = 0; err == 0 && i < who->producers; i++)
		err = petal_spsc_format((uint8_t *)who->memory + i * bytes,
					&geometry);
	return err;
}

static int lane_attach(struct petal_flow_contender *who, unsigned index,
		       enum petal_spsc_role role, struct petal_spsc *lane)
{
	uint64_t bytes = lane_bytes(who);

	return petal_spsc_attach((uint8_t *)who->memory + index * bytes, bytes,
				 role, lane);
}

static int lanes_produce(struct petal_flow_contender *who, unsigned index,
			 struct petal_flow_run *run)
{
	struct petal_spsc lane;
	uint64_t sequence = 0;
	int err = lane_attach(who, index, PETAL_SPSC_PRODUCER, &lane);

	while (err == 0 && !petal_flow_is_over(run)) {
		uint64_t count = petal_spsc_claim_n(&lane, who->window);
		void *slot;

		if (count == 0) {
			petal_flow_relax(run);
			continue;
		}
		slot = petal_spsc_slot(&lane, 0);
		for (uint64_t i = 0; i < count; i++) {
			fanin_fill(slot, fanin_id(index, sequence++));
			slot = petal_spsc_slot_after(&lane, slot);
		}
		petal_spsc_publish_n(&lane, count);
	}
	return err;
}

/* At most a bulk of each lane, then the next one's turn. */
static int lane_visit(struct petal_spsc *lane, struct fanin_tally *tally)
{
	uint64_t count = petal_spsc_peek_n(lane, FANIN_BULK);
	void *slot = petal_spsc_slot(lane, 0);

	for (uint64_t i = 0; i < count; i++) {
		if (fanin_check(tally, slot) < 0)
			return -EBADMSG;
		slot = petal_spsc_slot_after(lane, slot);
	}
	if (count)
		petal_spsc_release_n(lane, count);
	return 0;
}

static int lanes_consume(struct petal_flow_contender *who, unsigned index,
			 struct petal_flow_run *run)
{
	unsigned party = petal_flow_consumer(who, index);
	struct petal_spsc lanes[FANIN_PRODUCERS_MAX];
	struct fanin_tally tally = { .count = 0 };
	int err = 0;

	for (unsigned i = 0; err == 0 && i < who->producers; i++)
		err = lane_attach(who, i, PETAL_SPSC_CONSUMER, &lanes[i]);
	/* Who has another lane to visit does not wait for this one. */
	for (unsigned i = 0; err == 0 && i < who->producers; i++)
		if (who->producers > 1)
			petal_pace_limit(&lanes[i].pace, 0);
	while (err == 0 && !petal_flow_is_over(run)) {
		uint64_t before = tally.count;

		for (unsigned i = 0; err == 0 && i < who->producers; i++)
			err = lane_visit(&lanes[i], &tally);
		if (tally.count == before)
			petal_flow_relax(run);
		else
			petal_flow_count(run, party, tally.count);
	}
	return err;
}

/* The table. */

static struct petal_flow_contender floor_row(unsigned producers)
{
	return (struct petal_flow_contender){
		.impl = "fetch_add",
		.remark = "all add to one word; nobody reads",
		.floor = true,
		.bytes = FANIN_BYTES,
		.producers = producers,
		.prepare = floor_prepare,
		.produce = floor_produce,
	};
}

static struct petal_flow_contender mpsc_row(unsigned producers,
					    enum shape shape)
{
	static enum shape shapes[] = { SINGLE, RUN, BATCH };

	return (struct petal_flow_contender){
		.impl = shape == RUN ? "petal-mpsc run" : "petal-mpsc",
		.remark = shape == SINGLE ? "filled and read in place"
			  : shape == RUN  ? "32 records claimed together"
					  : "32 messages in a record",
		.bytes = FANIN_BYTES,
		.producers = producers,
		.consumers = 1,
		.window = shape == SINGLE ? 1 : FANIN_BULK,
		.prepare = mpsc_prepare,
		.produce = mpsc_produce,
		.consume = mpsc_consume,
		.arg = &shapes[shape],
	};
}

static struct petal_flow_contender lanes_row(unsigned producers, unsigned bulk)
{
	return (struct petal_flow_contender){
		.impl = "petal-lanes",
		.remark = "a ring each, filled and read in place",
		.bytes = FANIN_BYTES,
		.producers = producers,
		.consumers = 1,
		.window = bulk,
		.prepare = lanes_prepare,
		.produce = lanes_produce,
		.consume = lanes_consume,
	};
}

static struct petal_flow_contender caf_row(unsigned producers)
{
	struct petal_flow_contender row = {
		.impl = "caf",
		.version = "CAF",
		.refusal = "libcaf-dev was not found when this was built",
		.peer = true,
		.bytes = FANIN_BYTES,
		.producers = producers,
		.consumers = 1,
	};

	if (fanin_peer_caf)
		fanin_peer_caf(&row, producers);
	return row;
}

static size_t fill_group(struct petal_flow_contender *rows, unsigned producers)
{
	size_t count = 0;

	rows[count++] = floor_row(producers);
	rows[count++] = mpsc_row(producers, SINGLE);
	rows[count++] = lanes_row(producers, 1);
	fanin_peer_ck(&rows[count++], producers);
	fanin_peer_rte(&rows[count++], producers, 1, false);
	fanin_peer_rte(&rows[count++], producers, 1, true);
	fanin_peer_erl(&rows[count++], producers);
	rows[count++] = caf_row(producers);
	rows[count++] = mpsc_row(producers, BATCH);
	rows[count++] = mpsc_row(producers, RUN);
	rows[count++] = lanes_row(producers, FANIN_BULK);
	fanin_peer_rte(&rows[count++], producers, FANIN_BULK, false);
	fanin_peer_rte(&rows[count++], producers, FANIN_BULK, true);
	return count;
}

int main(int argc, char **argv)
{
	static const unsigned producers[] = { 1, 2, 4, 8, 16 };
	struct petal_flow_contender rows[5 * 13];
	size_t count = 0;

	for (size_t i = 0; i < sizeof(producers) / sizeof(*producers); i++)
		count += fill_group(rows + count, producers[i]);
	return petal_flow_main("fanin", rows, count, argc, argv);
}
