/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_FLOW_LEG_H
#define PETAL_BENCH_FLOW_LEG_H

#include <sched.h>

#include "bench/flow.h"

/**
 * DOC: flow_leg - one leg of a flow: the parties forked, counted and reaped
 *
 * Ordering:
 *    [START]  a party stores ready (release) -> the parent loads it (acquire);
 *             the parent stores started (release) -> the parties load it
 *             (acquire): nobody runs before all have what they need
 */

/**
 * struct petal_flow_place - where legs run
 * @run: shared memory, used by one leg after the other
 * @cpus: that the parties are bound to, in turns
 */
struct petal_flow_place {
	struct petal_flow_run *run;
	int cpus[CPU_SETSIZE];
	unsigned cpu_count;
};

/**
 * struct petal_flow_tally - what the counted part of a leg gave
 * @started: all parties were ready; written also when the leg fails
 * @messages: as flow.h counts them
 * @produce_ns: CPU time of all producers
 * @consume_ns: and of all consumers
 */
struct petal_flow_tally {
	bool started;
	uint64_t messages;
	uint64_t wall_ns;
	uint64_t produce_ns;
	uint64_t consume_ns;
};

/**
 * petal_flow_leg() - run one
 * @leg_ns: of the counted part; an eighth of it comes before
 *
 * Return: 0, or what a party or the kernel said; -ETIMEDOUT when a party did
 * not start or stop, -EOWNERDEAD when a signal ended it.
 */
int petal_flow_leg(const struct petal_flow_place *place,
		   struct petal_flow_contender *who, uint64_t leg_ns,
		   struct petal_flow_tally *ret_tally);

#endif
