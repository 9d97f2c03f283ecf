/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rte_ring of DPDK, single producer and single consumer, in memory of ours and
 * without its environment layer. By its calls that copy elements, or by those
 * that lend them in place, which DPDK calls experimental.
 */
#include "bench/stream.h"

#if PETAL_WITH_RTE

#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <rte_ring_peek_zc.h>
#include <rte_version.h>

#define ALWAYS static inline __attribute__((always_inline))

/* Of an element, at most; a ring in between, for what is copied. */
#define BYTES_MAX 1024u

/* A ring may give less than was asked for: burst, as its documents say. */
ALWAYS int produce_copy(struct rte_ring *ring, struct petal_flow_run *run,
			unsigned bulk, uint64_t bytes)
{
	static _Alignas(64) uint8_t batch[STREAM_BULK * BYTES_MAX];
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		for (unsigned i = 0; i < bulk; i++)
			petal_payload_fill(batch + i * bytes, bytes,
					   sequence + i);
		while (!rte_ring_sp_enqueue_bulk_elem(
			ring, batch, (unsigned)bytes, bulk, NULL)) {
			if (petal_flow_is_over(run))
				return 0;
			petal_flow_relax(run);
		}
		sequence += bulk;
		if (sequence % STREAM_REPORT == 0)
			petal_flow_count(run, 0, sequence);
	}
	return 0;
}

ALWAYS int consume_copy(struct rte_ring *ring, struct petal_flow_run *run,
			unsigned bulk, uint64_t bytes)
{
	static _Alignas(64) uint8_t batch[STREAM_BULK * BYTES_MAX];
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		unsigned got = rte_ring_sc_dequeue_bulk_elem(
			ring, batch, (unsigned)bytes, bulk, NULL);

		for (unsigned i = 0; i < got; i++)
			if (petal_payload_check(batch + i * bytes, bytes,
						sequence + i) < 0)
				return -EBADMSG;
		sequence += got;
		if (got == 0)
			petal_flow_relax(run);
		else if (sequence % STREAM_REPORT == 0)
			petal_flow_count(run, 1, sequence);
	}
	return 0;
}

ALWAYS void *at(const struct rte_ring_zc_data *data, unsigned i, uint64_t bytes)
{
	return i < data->n1 ? (uint8_t *)data->ptr1 + i * bytes
			    : (uint8_t *)data->ptr2 + (i - data->n1) * bytes;
}

ALWAYS int produce_in_place(struct rte_ring *ring, struct petal_flow_run *run,
			    unsigned bulk, uint64_t bytes)
{
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		struct rte_ring_zc_data data;

		if (!rte_ring_enqueue_zc_bulk_elem_start(ring, (unsigned)bytes,
							 bulk, &data, NULL)) {
			petal_flow_relax(run);
			continue;
		}
		for (unsigned i = 0; i < bulk; i++)
			petal_payload_fill(at(&data, i, bytes), bytes,
					   sequence + i);
		rte_ring_enqueue_zc_elem_finish(ring, bulk);
		sequence += bulk;
		if (sequence % STREAM_REPORT == 0)
			petal_flow_count(run, 0, sequence);
	}
	return 0;
}

ALWAYS int consume_in_place(struct rte_ring *ring, struct petal_flow_run *run,
			    unsigned bulk, uint64_t bytes)
{
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		struct rte_ring_zc_data data;

		if (!rte_ring_dequeue_zc_bulk_elem_start(ring, (unsigned)bytes,
							 bulk, &data, NULL)) {
			petal_flow_relax(run);
			continue;
		}
		for (unsigned i = 0; i < bulk; i++)
			if (petal_payload_check(at(&data, i, bytes), bytes,
						sequence + i) < 0)
				return -EBADMSG;
		rte_ring_dequeue_zc_elem_finish(ring, bulk);
		sequence += bulk;
		if (sequence % STREAM_REPORT == 0)
			petal_flow_count(run, 1, sequence);
	}
	return 0;
}

static int prepare(struct petal_flow_contender *who)
{
	ssize_t size =
		rte_ring_get_memsize_elem((unsigned)who->bytes, STREAM_SLOTS);
	int err;

	if (size < 0)
		return (int)size;
	err = petal_flow_map(who, (uint64_t)size);
	if (err < 0)
		return err;
	return rte_ring_init(who->memory, "stream", STREAM_SLOTS,
			     RING_F_SP_ENQ | RING_F_SC_DEQ);
}

/* Every size and bulk is a loop of its own, as a user would write it. */
#define CHOOSE(loop, who, run)                                                 \
	((who)->window > 1 ? STREAM_FOR_BYTES((who)->bytes, loop,              \
					      (who)->memory, run, STREAM_BULK) \
			   : STREAM_FOR_BYTES((who)->bytes, loop,              \
					      (who)->memory, run, 1))

static int produce(struct petal_flow_contender *who, unsigned index,
		   struct petal_flow_run *run)
{
	(void)index;
	return CHOOSE(produce_copy, who, run);
}

static int consume(struct petal_flow_contender *who, unsigned index,
		   struct petal_flow_run *run)
{
	(void)index;
	return CHOOSE(consume_copy, who, run);
}

static int lend(struct petal_flow_contender *who, unsigned index,
		struct petal_flow_run *run)
{
	(void)index;
	return CHOOSE(produce_in_place, who, run);
}

static int borrow(struct petal_flow_contender *who, unsigned index,
		  struct petal_flow_run *run)
{
	(void)index;
	return CHOOSE(consume_in_place, who, run);
}

#endif

void stream_peer_rte(struct petal_flow_contender *ret_row, uint64_t bytes,
		     unsigned bulk, bool in_place)
{
	*ret_row = (struct petal_flow_contender)
	{
		.impl = in_place ? "rte_ring zc" : "rte_ring",
		.remark = in_place ? "filled and read in place"
				   : "copied in and out",
		.peer = true, .bytes = bytes, .producers = 1, .consumers = 1,
		.window = bulk,
#if PETAL_WITH_RTE
		.version = RTE_VER_PREFIX " " PETAL_RTE_VERSION,
		.prepare = prepare, .produce = in_place ? lend : produce,
		.consume = in_place ? borrow : consume,
#else
		.version = "DPDK",
		.refusal = "rte_ring was not found when this was built",
#endif
	};
}
