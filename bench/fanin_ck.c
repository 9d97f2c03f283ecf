/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ck_ring of Concurrency Kit, its MPSC form, with entries of the payload's
 * size, which enqueue and dequeue copy. It has no bulk calls.
 */
#include "bench/fanin.h"

#if PETAL_WITH_CK

#include <ck_ring.h>

struct entry {
	uint64_t words[FANIN_BYTES / 8];
};

CK_RING_PROTOTYPE(fanin, entry)

static void *slots_of(const struct petal_flow_contender *who)
{
	return (uint8_t *)who->memory + 4096;
}

static int prepare(struct petal_flow_contender *who)
{
	int err = petal_flow_map(who, 4096 + FANIN_SLOTS * FANIN_BYTES);

	if (err == 0)
		ck_ring_init(who->memory, FANIN_SLOTS);
	return err;
}

static int produce(struct petal_flow_contender *who, unsigned index,
		   struct petal_flow_run *run)
{
	struct entry *slots = slots_of(who);
	struct entry message;

	for (uint64_t sequence = 0; !petal_flow_is_over(run); sequence++) {
		fanin_fill(&message, fanin_id(index, sequence));
		while (!CK_RING_ENQUEUE_MPSC(fanin, who->memory, slots,
					     &message)) {
			if (petal_flow_is_over(run))
				return 0;
			petal_flow_relax(run);
		}
	}
	return 0;
}

static int consume(struct petal_flow_contender *who, unsigned index,
		   struct petal_flow_run *run)
{
	unsigned party = petal_flow_consumer(who, index);
	struct entry *slots = slots_of(who);
	struct fanin_tally tally = { .count = 0 };
	struct entry message;

	while (!petal_flow_is_over(run)) {
		if (!CK_RING_DEQUEUE_MPSC(fanin, who->memory, slots,
					  &message)) {
			petal_flow_relax(run);
			continue;
		}
		if (fanin_check(&tally, &message) < 0)
			return -EBADMSG;
		if (tally.count % FANIN_BULK == 0)
			petal_flow_count(run, party, tally.count);
	}
	return 0;
}

#endif

void fanin_peer_ck(struct petal_flow_contender *ret_row, unsigned producers)
{
	*ret_row = (struct petal_flow_contender)
	{
		.impl = "ck_ring", .remark = "copied in and out", .peer = true,
		.bytes = FANIN_BYTES, .producers = producers, .consumers = 1,
#if PETAL_WITH_CK
		.version = "ck " PETAL_CK_VERSION, .prepare = prepare,
		.produce = produce, .consume = consume,
#else
		.version = "ck",
		.refusal = "ck was not found when this was built",
#endif
	};
}
