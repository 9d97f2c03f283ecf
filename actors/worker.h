/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_ACTORS_WORKER_H
#define PETAL_ACTORS_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "actors/batch.h"
#include "actors/outputs.h"
#include "actors/port.h"

/**
 * DOC: worker - the Office Worker: takes from one queue, puts into others
 *
 *                take, under lease           acknowledge and put, in one piece
 *    queue ------------------------> behave -----------------------------> queues
 *      ^                               |
 *      +-------------------------------+
 *            failed: given back after retry_ns
 *
 * A worker has no state that matters: any number of them pull from one queue,
 * and any of them may be killed at any moment. It takes a message, works, and
 * takes the next one only if that is there already: one at a time when there
 * is little to do, up to @batch of them in one acknowledgement under load. No
 * message waits in a worker that is busy with another.
 *
 * Always true: the outputs of a message are put if and only if the message is
 * acknowledged, in one step. So behave may be called twice for one message,
 * but what comes out of it comes out once.
 *
 * What becomes of a message, each way with a counter:
 *
 *    done      acknowledged, its outputs are put
 *    stale     the lease had ended before: somebody else has the message, and
 *              our outputs are dropped
 *    failed    behave said so: kept for retry_ns, then given back; sooner if
 *              PETAL_WORKER_HELD_MAX others failed since. It comes back for
 *              ever; message->redelivered tells behave when to put it somewhere
 *              else instead and return 0
 *    full      no room for the outputs in forward_timeout_ns: given back
 *    unknown   nobody could say in forward_timeout_ns. Either it is done, or
 *              its lease ends and it comes again
 *    refused   the port will never take these outputs (too long, no such
 *              queue): given back, and run ends with the port's words. That is
 *              a mistake in behave, which a supervisor should hear of
 *
 * A batch shares the time of its first lease: let batch_ns, plus one behave,
 * plus forward_timeout_ns be less than the lease of the queue.
 *
 * Threads: one per worker; several have a port each. @stop may be stored from
 * anywhere, a signal handler too.
 *
 * Crash: its leases return to the queue once its death is proved, and at their
 * deadline in any case. What was not acknowledged did not happen.
 */

#define PETAL_WORKER_HELD_MAX 16u

/**
 * behave: work on one message. bytes of the message are readable until it
 * returns, and, for petal_outputs_pass(), until they have been forwarded.
 *
 * Return: 0: what was added to @outputs is what comes of it. < 0: it failed;
 * what was added is dropped.
 */
typedef int petal_worker_behave(void *state,
				const struct petal_message *message,
				struct petal_outputs *outputs);

struct petal_worker_options {
	const struct petal_port *port;
	void *port_self;
	petal_worker_behave *behave;
	void *state; /* for behave */
	uint32_t queue;
	enum petal_level level;      /* what an acknowledgement waits for */
	uint32_t batch;              /* 1 to PETAL_BATCH_MAX messages */
	uint64_t batch_ns;           /* take no further message after that */
	uint64_t forward_timeout_ns; /* not 0 */
	uint64_t retry_ns;           /* before a failed one is given back */
	uint32_t outputs_max;        /* per message, to PETAL_OUTPUTS_MAX */
	uint32_t output_bytes_max;   /* copied ones of a message, each rounded
				      * up to 8 */
	void *memory; /* for copied outputs of a batch, 8-byte aligned */
	uint32_t memory_bytes; /* at least output_bytes_max; with @batch times
				* as much a batch is never cut short */
};

struct petal_worker_counts {
	uint64_t taken;
	uint64_t redelivered; /* of these, not for the first time */
	uint64_t batches;     /* acknowledgements tried */
	uint64_t done;
	uint64_t outputs; /* put, with what is done */
	uint64_t stale;
	uint64_t failed;
	uint64_t full;
	uint64_t unknown;
	uint64_t refused;
};

struct petal_worker_held {
	struct petal_message message;
	uint64_t due_ns;
};

struct petal_worker {
	struct petal_worker_options options;
	struct petal_worker_counts counts; /* for anybody in this thread */
	struct petal_batch batch;
	/* Failed ones, oldest first; a ring. */
	struct petal_worker_held held[PETAL_WORKER_HELD_MAX];
	unsigned held_first;
	unsigned held_count;
};

/**
 * petal_worker_init() - a worker that has not begun
 * @options: copied
 *
 * Return: 0, or -EINVAL for options out of range.
 */
int petal_worker_init(struct petal_worker *worker,
		      const struct petal_worker_options *options);

/**
 * petal_worker_turn() - one batch
 * @deadline_ns: how long to wait for the first message; monotonic
 *
 * Return: 0 when something was taken; 1 when nothing was, by the deadline or
 * the moment when a failed message was given back; else what the port said.
 */
int petal_worker_turn(struct petal_worker *worker, uint64_t deadline_ns);

/**
 * petal_worker_run() - turn after turn
 * @stop: looked at between two turns, at least ten times a second; or NULL
 * @deadline_ns: monotonic; PETAL_CLOCK_NEVER for none
 *
 * Finishes what it has begun, and leaves no lease behind.
 *
 * Return: 0 when stopped; 1 at the deadline; else what the port said.
 */
int petal_worker_run(struct petal_worker *worker, const _Atomic bool *stop,
		     uint64_t deadline_ns);

#endif
