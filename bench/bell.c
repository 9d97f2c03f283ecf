/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bell - what a doorbell costs a sender whose receiver is awake
 *
 * The question: a stream of 64 B messages through an SPSC ring, one by one,
 * whose consumer never sleeps. The floor has no doorbell; ours ring it after
 * each message. In a process that has enrolled (shm/barrier.h) a ring is one
 * load of a line that nobody writes; in one that has not, a fence as well.
 * cpu_ns_per_msg counts both sides; compare it with the floor's, too.
 */

#include "bench/flow.h"
#include "bench/payload.h"
#include "rings/doorbell.h"
#include "rings/spsc.h"
#include "shm/barrier.h"

#define MESSAGE_BYTES 64u
#define SLOTS 1024u

enum bell { NO_BELL, BELL, BELL_FENCED, BELL_FD };

static const struct petal_spsc_geometry geometry = {
	.slot_count = SLOTS,
	.slot_bytes = MESSAGE_BYTES,
};

static int prepare(struct petal_flow_contender *contender)
{
	uint64_t ring_bytes = petal_spsc_bytes(&geometry);
	int err = petal_flow_map(contender, 128 + ring_bytes);

	if (err)
		return err;
	return petal_spsc_format((uint8_t *)contender->memory + 128, &geometry);
}

static int attach(const struct petal_flow_contender *contender,
		  enum petal_spsc_role role, struct petal_spsc *ret_ring)
{
	return petal_spsc_attach((uint8_t *)contender->memory + 128,
				 contender->memory_bytes - 128, role, ret_ring);
}

/* One loop for all four, told apart by a constant. */
static inline __attribute__((always_inline)) int
produce(struct petal_flow_contender *contender, struct petal_flow_run *run,
	enum bell bell)
{
	struct petal_doorbell *doorbell = contender->memory;
	struct petal_spsc ring;
	uint64_t sent = 0;
	int err = attach(contender, PETAL_SPSC_PRODUCER, &ring);

	while (!err && !petal_flow_is_over(run)) {
		void *slot = petal_spsc_claim(&ring);

		if (!slot) {
			petal_flow_relax(run);
			continue;
		}
		petal_payload_fill(slot, MESSAGE_BYTES, ++sent);
		petal_spsc_publish(&ring);
		if (bell == BELL || bell == BELL_FENCED)
			petal_doorbell_ring(doorbell, PETAL_DOORBELL_ALL);
		if (bell == BELL_FD)
			petal_doorbell_ring_fd(doorbell, -1);
		petal_flow_count(run, 0, sent);
	}
	return err;
}

static int produce_silent(struct petal_flow_contender *contender,
			  unsigned index, struct petal_flow_run *run)
{
	(void)index;
	return produce(contender, run, NO_BELL);
}

static int produce_bell(struct petal_flow_contender *contender, unsigned index,
			struct petal_flow_run *run)
{
	(void)index;
	petal_barrier_enroll();
	return produce(contender, run, BELL);
}

static int produce_fenced(struct petal_flow_contender *contender,
			  unsigned index, struct petal_flow_run *run)
{
	(void)index;
	return produce(contender, run, BELL_FENCED);
}

static int produce_bell_fd(struct petal_flow_contender *contender,
			   unsigned index, struct petal_flow_run *run)
{
	(void)index;
	petal_barrier_enroll();
	return produce(contender, run, BELL_FD);
}

static int consume(struct petal_flow_contender *contender, unsigned index,
		   struct petal_flow_run *run)
{
	unsigned party = petal_flow_consumer(contender, index);
	struct petal_spsc ring;
	uint64_t taken = 0;
	int err = attach(contender, PETAL_SPSC_CONSUMER, &ring);

	while (!err && !petal_flow_is_over(run)) {
		const void *slot = petal_spsc_peek(&ring);

		if (!slot) {
			petal_flow_relax(run);
			continue;
		}
		err = petal_payload_check(slot, MESSAGE_BYTES, ++taken);
		petal_spsc_release(&ring);
		petal_flow_count(run, party, taken);
	}
	return err;
}

#define CONTENDER(name, produce_call, text, is_floor)                   \
	{                                                               \
		.impl = name, .remark = text, .floor = is_floor,        \
		.bytes = MESSAGE_BYTES, .producers = 1, .consumers = 1, \
		.prepare = prepare, .produce = produce_call,            \
		.consume = consume,                                     \
	}

int main(int argc, char **argv)
{
	struct petal_flow_contender contenders[] = {
		CONTENDER("spsc", produce_silent, "no doorbell", true),
		CONTENDER("spsc+bell", produce_bell, "enrolled", false),
		CONTENDER("spsc+bell-fd", produce_bell_fd, "enrolled, eventfd",
			  false),
		CONTENDER("spsc+bell-fenced", produce_fenced, "not enrolled",
			  false),
	};

	return petal_flow_main("bell", contenders,
			       sizeof(contenders) / sizeof(*contenders), argc,
			       argv);
}
