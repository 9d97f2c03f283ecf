/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream - how many messages pass from one process to another
 *
 * The question: with one producer and one consumer that never wait for an
 * answer, one message at a time or 32 in a call, how many arrive in a second?
 * Every message is filled by the producer and read, all of it, by the
 * consumer. The floor is one process that fills a message, copies it into a
 * buffer as large as the ring, and never waits for anybody.
 */
#include <string.h>

#include "bench/stream.h"
#include "rings/spsc.h"

#define ALWAYS static inline __attribute__((always_inline))

/* The floor. */

ALWAYS int copy_all(uint8_t *buffer, struct petal_flow_run *run, uint64_t bytes)
{
	uint8_t message[1024];
	uint64_t piece = bytes < sizeof(message) ? bytes : sizeof(message);
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		for (unsigned i = 0; i < STREAM_REPORT; i++, sequence++) {
			uint8_t *to = buffer + sequence % STREAM_SLOTS * bytes;

			for (uint64_t at = 0; at < bytes; at += piece) {
				petal_payload_fill(message, piece, sequence);
				memcpy(to + at, message, piece);
			}
			__asm__ volatile("" ::: "memory");
		}
		petal_flow_count(run, 0, sequence);
	}
	return 0;
}

static int floor_prepare(struct petal_flow_contender *who)
{
	return petal_flow_map(who, STREAM_SLOTS * who->bytes);
}

static int floor_produce(struct petal_flow_contender *who, unsigned index,
			 struct petal_flow_run *run)
{
	(void)index;
	return STREAM_FOR_BYTES(who->bytes, copy_all, who->memory, run);
}

/* Ours. */

static struct petal_spsc_geometry
geometry_of(const struct petal_flow_contender *who)
{
	return (struct petal_spsc_geometry){
		.slot_count = STREAM_SLOTS,
		.slot_bytes = (uint32_t)who->bytes,
		.kind = *(const enum petal_spsc_kind *)who->arg,
	};
}

static int spsc_prepare(struct petal_flow_contender *who)
{
	struct petal_spsc_geometry geometry = geometry_of(who);
	int err = petal_flow_map(who, petal_spsc_bytes(&geometry));

	return err < 0 ? err : petal_spsc_format(who->memory, &geometry);
}

ALWAYS int produce_single(struct petal_spsc *ring, struct petal_flow_run *run,
			  uint64_t bytes)
{
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		void *slot = petal_spsc_claim(ring);

		if (!slot) {
			petal_flow_relax(run);
			continue;
		}
		petal_payload_fill(slot, bytes, sequence);
		petal_spsc_publish(ring);
		if (++sequence % STREAM_REPORT == 0)
			petal_flow_count(run, 0, sequence);
	}
	return 0;
}

ALWAYS int consume_single(struct petal_spsc *ring, struct petal_flow_run *run,
			  uint64_t bytes)
{
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		const void *slot = petal_spsc_peek(ring);

		if (!slot) {
			petal_flow_relax(run);
			continue;
		}
		if (petal_payload_check(slot, bytes, sequence) < 0)
			return -EBADMSG;
		petal_spsc_release(ring);
		if (++sequence % STREAM_REPORT == 0)
			petal_flow_count(run, 1, sequence);
	}
	return 0;
}

ALWAYS int produce_bulk(struct petal_spsc *ring, struct petal_flow_run *run,
			uint64_t bytes)
{
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		uint64_t count = petal_spsc_claim_n(ring, STREAM_BULK);
		void *slot;

		if (count == 0) {
			petal_flow_relax(run);
			continue;
		}
		slot = petal_spsc_slot(ring, 0);
		for (uint64_t i = 0; i < count; i++) {
			petal_payload_fill(slot, bytes, sequence + i);
			slot = petal_spsc_slot_after(ring, slot);
		}
		petal_spsc_publish_n(ring, count);
		sequence += count;
		petal_flow_count(run, 0, sequence);
	}
	return 0;
}

ALWAYS int consume_bulk(struct petal_spsc *ring, struct petal_flow_run *run,
			uint64_t bytes)
{
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		uint64_t count = petal_spsc_peek_n(ring, STREAM_BULK);
		void *slot;

		if (count == 0) {
			petal_flow_relax(run);
			continue;
		}
		slot = petal_spsc_slot(ring, 0);
		for (uint64_t i = 0; i < count; i++) {
			if (petal_payload_check(slot, bytes, sequence + i) < 0)
				return -EBADMSG;
			slot = petal_spsc_slot_after(ring, slot);
		}
		petal_spsc_release_n(ring, count);
		sequence += count;
		petal_flow_count(run, 1, sequence);
	}
	return 0;
}

static int spsc_produce(struct petal_flow_contender *who, unsigned index,
			struct petal_flow_run *run)
{
	struct petal_spsc ring;
	int err = petal_spsc_attach(who->memory, who->memory_bytes,
				    PETAL_SPSC_PRODUCER, &ring);

	(void)index;
	if (err < 0)
		return err;
	if (who->window > 1)
		return STREAM_FOR_BYTES(who->bytes, produce_bulk, &ring, run);
	return STREAM_FOR_BYTES(who->bytes, produce_single, &ring, run);
}

static int spsc_consume(struct petal_flow_contender *who, unsigned index,
			struct petal_flow_run *run)
{
	struct petal_spsc ring;
	int err = petal_spsc_attach(who->memory, who->memory_bytes,
				    PETAL_SPSC_CONSUMER, &ring);

	(void)index;
	if (err < 0)
		return err;
	if (who->window > 1)
		return STREAM_FOR_BYTES(who->bytes, consume_bulk, &ring, run);
	return STREAM_FOR_BYTES(who->bytes, consume_single, &ring, run);
}

/* The table. */

static struct petal_flow_contender floor_row(uint64_t bytes)
{
	return (struct petal_flow_contender){
		.impl = "memcpy",
		.remark = "one process fills and copies; nobody reads",
		.floor = true,
		.bytes = bytes,
		.producers = 1,
		.prepare = floor_prepare,
		.produce = floor_produce,
	};
}

static struct petal_flow_contender spsc_row(uint64_t bytes, unsigned bulk,
					    enum petal_spsc_kind kind)
{
	static enum petal_spsc_kind kinds[] = { PETAL_SPSC_STAMPED,
						PETAL_SPSC_INDEXED };
	bool indexed = kind == PETAL_SPSC_INDEXED;

	return (struct petal_flow_contender){
		.impl = indexed ? "petal-index" : "petal-spsc",
		.remark = "filled and read in place",
		.bytes = bytes,
		.producers = 1,
		.consumers = 1,
		.window = bulk,
		.prepare = spsc_prepare,
		.produce = spsc_produce,
		.consume = spsc_consume,
		.arg = &kinds[indexed],
	};
}

/* Peers take elements as large as their users copy; that ends at 1 KiB. */
static size_t fill_group(struct petal_flow_contender *rows, uint64_t bytes)
{
	size_t count = 0;

	rows[count++] = floor_row(bytes);
	rows[count++] = spsc_row(bytes, 1, PETAL_SPSC_STAMPED);
	rows[count++] = spsc_row(bytes, 1, PETAL_SPSC_INDEXED);
	if (bytes <= 1024) {
		stream_peer_ck(&rows[count++], bytes);
		stream_peer_rte(&rows[count++], bytes, 1, false);
		stream_peer_rte(&rows[count++], bytes, 1, true);
		rows[count++] =
			spsc_row(bytes, STREAM_BULK, PETAL_SPSC_STAMPED);
		rows[count++] =
			spsc_row(bytes, STREAM_BULK, PETAL_SPSC_INDEXED);
		stream_peer_rte(&rows[count++], bytes, STREAM_BULK, false);
		stream_peer_rte(&rows[count++], bytes, STREAM_BULK, true);
	}
	for (unsigned i = 0; i < STREAM_IPC && bytes >= 64; i++)
		stream_peer_ipc(&rows[count++], i, bytes);
	return count;
}

int main(int argc, char **argv)
{
	static const uint64_t sizes[] = { 8, 64, 1024, 65536 };
	struct petal_flow_contender rows[64];
	size_t count = 0;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		count += fill_group(rows + count, sizes[i]);
	return petal_flow_main("stream", rows, count, argc, argv);
}
