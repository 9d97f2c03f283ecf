/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ck_ring of Concurrency Kit, its SPSC form, with entries of the payload's
 * size, which enqueue and dequeue copy. It has no bulk calls.
 */
#include "bench/stream.h"

#if PETAL_WITH_CK

#include <ck_ring.h>
#include <string.h>

/* One type, and so one set of calls, for each size. */
#define CK_OF_BYTES(n)                                                      \
	struct entry##n {                                                   \
		uint64_t words[n / 8];                                      \
	};                                                                  \
	CK_RING_PROTOTYPE(of##n, entry##n)                                  \
	static int produce##n(struct petal_flow_contender *who,             \
			      struct petal_flow_run *run)                   \
	{                                                                   \
		ck_ring_t *ring = who->memory;                              \
		struct entry##n *slots = slots_of(who);                     \
		struct entry##n message;                                    \
		uint64_t sequence = 0;                                      \
                                                                            \
		while (!petal_flow_is_over(run)) {                          \
			petal_payload_fill(&message, n, sequence);          \
			while (!CK_RING_ENQUEUE_SPSC(of##n, ring, slots,    \
						     &message)) {           \
				if (petal_flow_is_over(run))                \
					return 0;                           \
				petal_flow_relax(run);                      \
			}                                                   \
			if (++sequence % STREAM_REPORT == 0)                \
				petal_flow_count(run, 0, sequence);         \
		}                                                           \
		return 0;                                                   \
	}                                                                   \
	static int consume##n(struct petal_flow_contender *who,             \
			      struct petal_flow_run *run)                   \
	{                                                                   \
		ck_ring_t *ring = who->memory;                              \
		struct entry##n *slots = slots_of(who);                     \
		struct entry##n message;                                    \
		uint64_t sequence = 0;                                      \
                                                                            \
		while (!petal_flow_is_over(run)) {                          \
			if (!CK_RING_DEQUEUE_SPSC(of##n, ring, slots,       \
						  &message)) {              \
				petal_flow_relax(run);                      \
				continue;                                   \
			}                                                   \
			if (petal_payload_check(&message, n, sequence) < 0) \
				return -EBADMSG;                            \
			if (++sequence % STREAM_REPORT == 0)                \
				petal_flow_count(run, 1, sequence);         \
		}                                                           \
		return 0;                                                   \
	}

static void *slots_of(const struct petal_flow_contender *who)
{
	return (uint8_t *)who->memory + 4096;
}

CK_OF_BYTES(8)
CK_OF_BYTES(64)
CK_OF_BYTES(1024)

static int prepare(struct petal_flow_contender *who)
{
	int err = petal_flow_map(who, 4096 + STREAM_SLOTS * who->bytes);

	if (err == 0)
		ck_ring_init(who->memory, STREAM_SLOTS);
	return err;
}

static int produce(struct petal_flow_contender *who, unsigned index,
		   struct petal_flow_run *run)
{
	(void)index;
	return who->bytes == 8    ? produce8(who, run)
	       : who->bytes == 64 ? produce64(who, run)
				  : produce1024(who, run);
}

static int consume(struct petal_flow_contender *who, unsigned index,
		   struct petal_flow_run *run)
{
	(void)index;
	return who->bytes == 8    ? consume8(who, run)
	       : who->bytes == 64 ? consume64(who, run)
				  : consume1024(who, run);
}

#endif

void stream_peer_ck(struct petal_flow_contender *ret_row, uint64_t bytes)
{
	*ret_row = (struct petal_flow_contender)
	{
		.impl = "ck_ring", .remark = "copied in and out", .peer = true,
		.bytes = bytes, .producers = 1, .consumers = 1,
#if PETAL_WITH_CK
		.version = "ck " PETAL_CK_VERSION, .prepare = prepare,
		.produce = produce, .consume = consume,
#else
		.version = "ck",
		.refusal = "ck was not found when this was built",
#endif
	};
}
