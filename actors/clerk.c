/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A turn: take a message and wait for it, apply it, remember it; while there is
 * another one, take it at once, apply, remember; acknowledge all; forget those
 * whose acknowledgement was answered with done. Every other answer leaves the
 * entry: the message comes again, perhaps in this very turn if the process was
 * stopped for longer than a lease, and finds itself remembered.
 */
#include "actors/clerk.h"

#include <errno.h>

#include "shm/clock.h"
#include "shm/error.h"

/* A waiting port is not woken by @stop: ask again so often. */
#define STOP_NS PETAL_MS(100)

int petal_clerk_init(struct petal_clerk *clerk,
		     const struct petal_clerk_options *options)
{
	int err;

	if (options->port == NULL || options->apply == NULL ||
	    (unsigned)options->level >= PETAL_LEVEL_COUNT ||
	    options->batch == 0 || options->batch > PETAL_BATCH_MAX ||
	    options->queue_slots == 0 || options->forward_timeout_ns == 0)
		return -EINVAL;
	err = options->port->own(options->port_self, options->queue);
	if (err < 0)
		return err;
	*clerk = (struct petal_clerk){ .options = *options };
	petal_batch_init(&clerk->batch, NULL, 0);
	return 0;
}

int petal_clerk_move(struct petal_clerk *clerk, void *port_self)
{
	int err = clerk->options.port->own(port_self, clerk->options.queue);

	if (err < 0)
		return err;
	clerk->options.port_self = port_self;
	/* Places are counted anew, and what we remember is in the first ones. */
	for (unsigned i = 0; i < clerk->seen_count; i++)
		clerk->seen[i].ordinal = 0;
	petal_batch_clear(&clerk->batch);
	return 0;
}

/* What was applied and may come again. */

static struct petal_clerk_seen *find(struct petal_clerk *clerk,
				     const struct petal_message *message)
{
	for (unsigned i = 0; i < clerk->seen_count; i++) {
		struct petal_clerk_seen *seen = &clerk->seen[i];

		if (seen->lsn == message->lsn && seen->index == message->index)
			return seen;
	}
	return NULL;
}

static void forget(struct petal_clerk *clerk, struct petal_clerk_seen *seen)
{
	*seen = clerk->seen[--clerk->seen_count];
}

/* With a message at this place, those a whole queue before it are gone. */
static void forget_gone(struct petal_clerk *clerk, uint64_t ordinal)
{
	for (unsigned i = clerk->seen_count; i-- > 0;) {
		struct petal_clerk_seen *seen = &clerk->seen[i];

		if (ordinal > seen->ordinal &&
		    ordinal - seen->ordinal >= clerk->options.queue_slots)
			forget(clerk, seen);
	}
}

static bool has_room(struct petal_clerk *clerk, uint64_t ordinal)
{
	if (clerk->seen_count == PETAL_CLERK_SEEN_MAX)
		forget_gone(clerk, ordinal);
	return clerk->seen_count < PETAL_CLERK_SEEN_MAX;
}

static void remember(struct petal_clerk *clerk,
		     const struct petal_message *message)
{
	clerk->seen[clerk->seen_count++] = (struct petal_clerk_seen){
		.lsn = message->lsn,
		.ordinal = message->ordinal,
		.index = message->index,
	};
}

/* Working. */

static int apply(struct petal_clerk *clerk, const struct petal_message *message)
{
	int err;

	if (find(clerk, message) != NULL) {
		clerk->counts.duplicates++;
		return 0;
	}
	if (!has_room(clerk, message->ordinal))
		return -ENOBUFS;
	err = clerk->options.apply(clerk->options.state, message);
	if (err < 0) {
		clerk->counts.failed++;
		return err;
	}
	clerk->counts.applied++;
	remember(clerk, message);
	return 0;
}

static void give_back(struct petal_clerk *clerk,
		      const struct petal_message *message)
{
	/* A lease that ended meanwhile has been given back already. */
	clerk->options.port->release(clerk->options.port_self, message);
}

static int work(struct petal_clerk *clerk, uint64_t deadline_ns)
{
	const struct petal_clerk_options *options = &clerk->options;
	struct petal_message message;
	int err;

	err = options->port->take(options->port_self, options->queue,
				  deadline_ns, &message);
	if (err != 0)
		return err;
	clerk->counts.taken++;
	clerk->counts.redelivered += message.redelivered > 0;
	err = apply(clerk, &message);
	if (err < 0)
		give_back(clerk, &message);
	else
		petal_batch_add(&clerk->batch, &message);
	return err;
}

/* Returns what run has to end with, or 0. */
static int settle(struct petal_clerk *clerk,
		  const struct petal_message *message, int outcome)
{
	struct petal_clerk_seen *seen;

	switch (outcome) {
	case 0:
		clerk->counts.done++;
		seen = find(clerk, message);
		if (seen != NULL)
			forget(clerk, seen);
		return 0;
	case -ESTALE:
		clerk->counts.stale++;
		return 0;
	case -ETIMEDOUT:
	case -PETAL_EUNKNOWN:
		clerk->counts.unknown++;
		return 0;
	case -EAGAIN:
		clerk->counts.full++;
		give_back(clerk, message);
		return 0;
	default:
		clerk->counts.refused++;
		give_back(clerk, message);
		return outcome;
	}
}

static int acknowledge(struct petal_clerk *clerk)
{
	const struct petal_clerk_options *options = &clerk->options;
	const struct petal_batch_way way = {
		.port = options->port,
		.self = options->port_self,
		.level = options->level,
		.deadline_ns = petal_clock_after_ns(
			petal_clock_now_ns(), options->forward_timeout_ns),
	};
	struct petal_batch *batch = &clerk->batch;
	int err = 0;

	if (batch->count == 0)
		return 0;
	clerk->counts.batches++;
	petal_batch_forward(batch, &way);
	for (unsigned i = 0; i < batch->count; i++) {
		int fatal =
			settle(clerk, &batch->messages[i], batch->outcomes[i]);

		err = err == 0 ? fatal : err;
	}
	petal_batch_clear(batch);
	return err;
}

int petal_clerk_turn(struct petal_clerk *clerk, uint64_t deadline_ns)
{
	uint64_t end_ns;
	int err, fatal;

	err = work(clerk, deadline_ns);
	if (err != 0)
		return err;
	end_ns = petal_clock_after_ns(petal_clock_now_ns(),
				      clerk->options.batch_ns);
	while (err == 0 && clerk->batch.count < clerk->options.batch &&
	       petal_clock_now_ns() < end_ns)
		err = work(clerk, 0);
	/* What was applied is acknowledged, also when the next one failed. */
	fatal = acknowledge(clerk);
	if (err < 0)
		return err;
	return fatal;
}

int petal_clerk_run(struct petal_clerk *clerk, const _Atomic bool *stop,
		    uint64_t deadline_ns)
{
	int err;

	for (;;) {
		uint64_t now_ns = petal_clock_now_ns();
		uint64_t until_ns = now_ns + STOP_NS;

		if (stop != NULL &&
		    atomic_load_explicit(stop, memory_order_relaxed))
			return 0;
		if (now_ns >= deadline_ns)
			return 1;
		err = petal_clerk_turn(
			clerk, until_ns < deadline_ns ? until_ns : deadline_ns);
		if (err < 0)
			return err;
	}
}
