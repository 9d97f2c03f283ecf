/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_ACTORS_BATCH_H
#define PETAL_ACTORS_BATCH_H

#include <stdint.h>

#include "actors/outputs.h"
#include "actors/port.h"

/**
 * DOC: batch - messages that were handled and are acknowledged together
 *
 *    messages   | m0     | m1 | m2       | ...     leased by us, in the order
 *               |        |    |          |         in which they were handled
 *    outputs    | o0  o1 |    | o2 o3 o4 | ...     what each of them led to
 *
 * One acknowledgement for many costs as much as one for one. All of it is
 * forwarded or nothing, so one lease that has ended would spoil the work on
 * all: then each message is forwarded by itself, with its own outputs, and
 * each has an outcome of its own.
 *
 * Threads: one at a time. Nothing is allocated.
 */

#define PETAL_BATCH_MAX 64u

struct petal_batch {
	struct petal_message messages[PETAL_BATCH_MAX];
	unsigned outputs_end[PETAL_BATCH_MAX]; /* where those of each end */
	int outcomes[PETAL_BATCH_MAX];         /* after petal_batch_forward() */
	unsigned count;
	struct petal_outputs outputs;
};

/* Who forwards, at which level, and until when. */
struct petal_batch_way {
	const struct petal_port *port;
	void *self; /* the port's */
	enum petal_level level;
	uint64_t deadline_ns;
};

/**
 * petal_batch_init() - an empty batch
 * @memory: for the outputs, as petal_outputs_init() wants it
 */
void petal_batch_init(struct petal_batch *batch, void *memory,
		      uint32_t memory_bytes);

/**
 * petal_batch_add() - one more message was handled
 *
 * What was added to the outputs since the call before is what it led to. There
 * must be room: count is under PETAL_BATCH_MAX.
 */
void petal_batch_add(struct petal_batch *batch,
		     const struct petal_message *message);

/**
 * petal_batch_forward() - acknowledge the messages and put the outputs
 *
 * Fills outcomes[] with what the port said of each message: 0, it is done;
 * -EAGAIN, no room, and nothing has happened; -ETIMEDOUT or -PETAL_EUNKNOWN,
 * nobody can say; anything else, it was refused. Each message is refused or
 * done by itself if all together were refused.
 */
void petal_batch_forward(struct petal_batch *batch,
			 const struct petal_batch_way *way);

/**
 * petal_batch_clear() - begin anew
 */
void petal_batch_clear(struct petal_batch *batch);

#endif
