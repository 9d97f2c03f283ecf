/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A turn: take a message and wait for it, behave; while there is another one,
 * and room and time for what it may lead to, take it at once, behave; forward
 * all. What can go wrong is in the table of worker.h; the order matters in one
 * place: a message that failed is kept while the worker goes on, for the queue
 * hands out the oldest first, and would hand out nothing else.
 */
#include "actors/worker.h"

#include <errno.h>

#include "shm/clock.h"
#include "shm/error.h"

/* A waiting port is not woken by @stop: ask again so often. */
#define STOP_NS PETAL_MS(100)

static uint64_t earlier(uint64_t a_ns, uint64_t b_ns)
{
	return a_ns < b_ns ? a_ns : b_ns;
}

int petal_worker_init(struct petal_worker *worker,
		      const struct petal_worker_options *options)
{
	if (options->port == NULL || options->behave == NULL ||
	    (unsigned)options->level >= PETAL_LEVEL_COUNT ||
	    options->batch == 0 || options->batch > PETAL_BATCH_MAX ||
	    options->forward_timeout_ns == 0 ||
	    options->outputs_max > PETAL_OUTPUTS_MAX ||
	    options->output_bytes_max > options->memory_bytes ||
	    (options->memory == NULL && options->memory_bytes != 0) ||
	    (uintptr_t)options->memory % 8 != 0)
		return -EINVAL;
	*worker = (struct petal_worker){ .options = *options };
	petal_batch_init(&worker->batch, options->memory,
			 options->memory_bytes);
	return 0;
}

/* Failed messages. */

static void give_back(struct petal_worker *worker,
		      const struct petal_message *message)
{
	/* A lease that ended meanwhile has been given back already. */
	worker->options.port->release(worker->options.port_self, message);
}

static void give_oldest_back(struct petal_worker *worker)
{
	unsigned first = worker->held_first;

	worker->held_first = (first + 1) % PETAL_WORKER_HELD_MAX;
	worker->held_count--;
	give_back(worker, &worker->held[first].message);
}

/* Give back what has waited long enough. When is the next one due? */
static uint64_t give_due_back(struct petal_worker *worker, uint64_t now_ns)
{
	while (worker->held_count > 0) {
		uint64_t due_ns = worker->held[worker->held_first].due_ns;

		if (due_ns > now_ns)
			return due_ns;
		give_oldest_back(worker);
	}
	return PETAL_CLOCK_NEVER;
}

static void hold(struct petal_worker *worker,
		 const struct petal_message *message)
{
	unsigned at;

	if (worker->held_count == PETAL_WORKER_HELD_MAX)
		give_oldest_back(worker);
	at = (worker->held_first + worker->held_count) % PETAL_WORKER_HELD_MAX;
	worker->held[at] = (struct petal_worker_held){
		.message = *message,
		.due_ns = petal_clock_after_ns(petal_clock_now_ns(),
					       worker->options.retry_ns),
	};
	worker->held_count++;
}

/* Working. */

static int work(struct petal_worker *worker, uint64_t deadline_ns)
{
	const struct petal_worker_options *options = &worker->options;
	struct petal_outputs *outputs = &worker->batch.outputs;
	struct petal_outputs_mark mark = petal_outputs_mark(outputs);
	struct petal_message message;
	int err;

	err = options->port->take(options->port_self, options->queue,
				  deadline_ns, &message);
	if (err != 0)
		return err;
	worker->counts.taken++;
	worker->counts.redelivered += message.redelivered > 0;
	petal_outputs_allow(outputs, options->outputs_max,
			    options->output_bytes_max);
	if (options->behave(options->state, &message, outputs) < 0) {
		worker->counts.failed++;
		petal_outputs_cut(outputs, mark);
		hold(worker, &message);
		return 0;
	}
	petal_batch_add(&worker->batch, &message);
	return 0;
}

static bool has_room(const struct petal_worker *worker)
{
	const struct petal_outputs *outputs = &worker->batch.outputs;

	return worker->batch.count < worker->options.batch &&
	       worker->options.outputs_max <=
		       PETAL_OUTPUTS_MAX - outputs->count &&
	       worker->options.output_bytes_max <=
		       outputs->memory_bytes - outputs->used_bytes;
}

/* Returns what run has to end with, or 0. */
static int settle(struct petal_worker *worker, unsigned i)
{
	const struct petal_batch *batch = &worker->batch;
	int outcome = batch->outcomes[i];

	switch (outcome) {
	case 0:
		worker->counts.done++;
		worker->counts.outputs +=
			batch->outputs_end[i] -
			(i == 0 ? 0 : batch->outputs_end[i - 1]);
		return 0;
	case -ESTALE:
		worker->counts.stale++;
		return 0;
	case -ETIMEDOUT:
	case -PETAL_EUNKNOWN:
		worker->counts.unknown++;
		return 0;
	case -EAGAIN:
		worker->counts.full++;
		give_back(worker, &batch->messages[i]);
		return 0;
	default:
		worker->counts.refused++;
		give_back(worker, &batch->messages[i]);
		return outcome;
	}
}

static int forward(struct petal_worker *worker)
{
	const struct petal_worker_options *options = &worker->options;
	const struct petal_batch_way way = {
		.port = options->port,
		.self = options->port_self,
		.level = options->level,
		.deadline_ns = petal_clock_after_ns(
			petal_clock_now_ns(), options->forward_timeout_ns),
	};
	int err = 0;

	if (worker->batch.count == 0)
		return 0;
	worker->counts.batches++;
	petal_batch_forward(&worker->batch, &way);
	for (unsigned i = 0; i < worker->batch.count; i++) {
		int fatal = settle(worker, i);

		err = err == 0 ? fatal : err;
	}
	petal_batch_clear(&worker->batch);
	return err;
}

int petal_worker_turn(struct petal_worker *worker, uint64_t deadline_ns)
{
	uint64_t due_ns = give_due_back(worker, petal_clock_now_ns());
	unsigned tries = 1;
	uint64_t end_ns;
	int err, fatal;

	err = work(worker, earlier(deadline_ns, due_ns));
	if (err != 0)
		return err;
	end_ns = petal_clock_after_ns(petal_clock_now_ns(),
				      worker->options.batch_ns);
	while (err == 0 && tries++ < PETAL_BATCH_MAX && has_room(worker) &&
	       petal_clock_now_ns() < end_ns)
		err = work(worker, 0);
	/* What was worked on counts, also when no more can be taken. */
	fatal = forward(worker);
	if (fatal < 0)
		return fatal;
	return err < 0 ? err : 0;
}

int petal_worker_run(struct petal_worker *worker, const _Atomic bool *stop,
		     uint64_t deadline_ns)
{
	int err = 0;

	while (err >= 0) {
		uint64_t now_ns = petal_clock_now_ns();

		err = 0;
		if (stop != NULL &&
		    atomic_load_explicit(stop, memory_order_relaxed))
			break;
		err = 1;
		if (now_ns >= deadline_ns)
			break;
		err = petal_worker_turn(worker,
					earlier(deadline_ns, now_ns + STOP_NS));
	}
	while (worker->held_count > 0)
		give_oldest_back(worker);
	return err;
}
