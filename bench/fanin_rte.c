/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rte_ring of DPDK, many producers and a single consumer, in memory of ours and
 * without its environment layer, by its calls that copy elements. Once as it is
 * by default, and once with relaxed tail sync, which its documents advise where
 * there are more threads than CPUs.
 */
#include "bench/fanin.h"

#if PETAL_WITH_RTE

#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <rte_version.h>

#define ALWAYS static inline __attribute__((always_inline))

ALWAYS int produce_copy(struct petal_flow_contender *who, unsigned index,
			struct petal_flow_run *run, unsigned bulk)
{
	_Alignas(64) uint8_t batch[FANIN_BULK * FANIN_BYTES];
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		for (unsigned i = 0; i < bulk; i++)
			fanin_fill(batch + i * FANIN_BYTES,
				   fanin_id(index, sequence + i));
		while (!rte_ring_enqueue_bulk_elem(who->memory, batch,
						   FANIN_BYTES, bulk, NULL)) {
			if (petal_flow_is_over(run))
				return 0;
			petal_flow_relax(run);
		}
		sequence += bulk;
	}
	return 0;
}

ALWAYS int consume_copy(struct petal_flow_contender *who, unsigned index,
			struct petal_flow_run *run, unsigned bulk)
{
	_Alignas(64) uint8_t batch[FANIN_BULK * FANIN_BYTES];
	unsigned party = petal_flow_consumer(who, index);
	struct fanin_tally tally = { .count = 0 };

	while (!petal_flow_is_over(run)) {
		unsigned got = rte_ring_sc_dequeue_burst_elem(
			who->memory, batch, FANIN_BYTES, bulk, NULL);

		for (unsigned i = 0; i < got; i++)
			if (fanin_check(&tally, batch + i * FANIN_BYTES) < 0)
				return -EBADMSG;
		if (got == 0)
			petal_flow_relax(run);
		else if (bulk > 1 || tally.count % FANIN_BULK == 0)
			petal_flow_count(run, party, tally.count);
	}
	return 0;
}

static int prepare(struct petal_flow_contender *who)
{
	ssize_t size = rte_ring_get_memsize_elem(FANIN_BYTES, FANIN_SLOTS);
	unsigned producers = who->arg ? RING_F_MP_RTS_ENQ : 0;
	int err;

	if (size < 0)
		return (int)size;
	err = petal_flow_map(who, (uint64_t)size);
	if (err < 0)
		return err;
	return rte_ring_init(who->memory, "fanin", FANIN_SLOTS,
			     producers | RING_F_SC_DEQ);
}

static int produce(struct petal_flow_contender *who, unsigned index,
		   struct petal_flow_run *run)
{
	return who->window > 1 ? produce_copy(who, index, run, FANIN_BULK)
			       : produce_copy(who, index, run, 1);
}

static int consume(struct petal_flow_contender *who, unsigned index,
		   struct petal_flow_run *run)
{
	return who->window > 1 ? consume_copy(who, index, run, FANIN_BULK)
			       : consume_copy(who, index, run, 1);
}

#endif

void fanin_peer_rte(struct petal_flow_contender *ret_row, unsigned producers,
		    unsigned bulk, bool relaxed)
{
	static int is_relaxed;

	*ret_row = (struct petal_flow_contender)
	{
		.impl = relaxed ? "rte_ring rts" : "rte_ring",
		.remark = "copied in and out", .peer = true,
		.bytes = FANIN_BYTES, .producers = producers, .consumers = 1,
		.window = bulk, .arg = relaxed ? &is_relaxed : NULL,
#if PETAL_WITH_RTE
		.version = RTE_VER_PREFIX " " PETAL_RTE_VERSION,
		.prepare = prepare, .produce = produce, .consume = consume,
#else
		.version = "DPDK",
		.refusal = "rte_ring was not found when this was built",
#endif
	};
}
