/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_ACTORS_CLERK_H
#define PETAL_ACTORS_CLERK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "actors/batch.h"
#include "actors/port.h"

/**
 * DOC: clerk - the Supply Clerk: the one owner of a queue and of a state
 *
 *              own, then take                     acknowledge, after apply
 *    queue ---------------------> apply(state) -----------------------------+
 *      ^                             ^                                      |
 *      |  lease ended, or the answer | skipped, if applied before: seen     v
 *      +-----------------------------+<------- (lsn, index) of all that was
 *                                              applied and not yet answered
 *
 * Everything that changes a resource goes through its clerk's queue, so the
 * resource needs no lock: the clerk applies one message at a time, in the order
 * in which the queue hands them out.
 *
 * Always true: a clerk applies each message at most once, and acknowledges none
 * that it has not applied. A message that comes again is known by its record's
 * lsn and its index in there, which never change; it is acknowledged and
 * counted (duplicates), and not applied.
 *
 * That memory is bounded and exact. An entry is needed from apply until the
 * acknowledgement is answered with done; when nobody could say whether it was,
 * until the message can no longer be in the queue. A queue of n slots holds no
 * message any more once the one n places behind it is handed out. If there is
 * no room for another entry all the same, the clerk stops with -ENOBUFS before
 * it would have to forget.
 *
 * In which order: the first time, messages come in the order of their lsn, so
 * long as this clerk is the only one that ever took from the queue. What a
 * predecessor held when it died comes back later than what followed it.
 *
 * Crash: the state is in the memory of the process and dies with it; so do the
 * messages acknowledged before, for nobody else has them. What was not
 * acknowledged is handed to the next owner, who has not seen it. So this form
 * is for a state that can be built again from a source that is kept. A failed
 * apply is such a crash, and a tidy one: what was applied before is
 * acknowledged, the message is given back, and run ends with what apply said.
 *
 * Threads: one per clerk. @stop may be stored from anywhere.
 */

#define PETAL_CLERK_SEEN_MAX 1024u

/**
 * apply: change the state by one message, whose bytes are readable until it
 * returns. There is no undo: < 0 means that the state has not changed.
 */
typedef int petal_clerk_apply(void *state, const struct petal_message *message);

struct petal_clerk_options {
	const struct petal_port *port;
	void *port_self;
	petal_clerk_apply *apply;
	void *state; /* for apply */
	uint32_t queue;
	uint32_t queue_slots;        /* how many messages it holds at most */
	enum petal_level level;      /* what an acknowledgement waits for */
	uint32_t batch;              /* 1 to PETAL_BATCH_MAX messages */
	uint64_t batch_ns;           /* take no further message after that */
	uint64_t forward_timeout_ns; /* not 0 */
};

struct petal_clerk_counts {
	uint64_t taken;
	uint64_t redelivered; /* of these, not for the first time */
	uint64_t applied;
	uint64_t duplicates; /* applied before, so only acknowledged */
	uint64_t failed;     /* apply said so */
	uint64_t batches;    /* acknowledgements tried */
	uint64_t done;       /* acknowledged */
	uint64_t stale;      /* the lease had ended; it comes again */
	uint64_t full;       /* no room to acknowledge; it comes again */
	uint64_t unknown;    /* nobody could say; it may come again */
	uint64_t refused;
};

/* A message that was applied, and may come again. */
struct petal_clerk_seen {
	uint64_t lsn;
	uint64_t ordinal; /* its place in the queue */
	uint32_t index;
	uint32_t reserved;
};

struct petal_clerk {
	struct petal_clerk_options options;
	struct petal_clerk_counts counts; /* for anybody in this thread */
	struct petal_batch batch;
	struct petal_clerk_seen seen[PETAL_CLERK_SEEN_MAX];
	unsigned seen_count;
};

/**
 * petal_clerk_init() - become the owner of a queue
 * @options: copied
 *
 * The ownership ends with the port, not with the clerk.
 *
 * Return: 0; -EINVAL for options out of range; -EBUSY when the queue has
 * another owner; else what the port said.
 */
int petal_clerk_init(struct petal_clerk *clerk,
		     const struct petal_clerk_options *options);

/**
 * petal_clerk_move() - go on at another port, which has the same queue
 * @port_self: of the same operations
 *
 * For a queue that was found elsewhere when its keeper was lost. What was
 * applied and not answered with done may come again there, by the same lsn and
 * index; it is still known.
 *
 * Return: 0; -EBUSY when the queue has another owner; else what the port said.
 */
int petal_clerk_move(struct petal_clerk *clerk, void *port_self);

/**
 * petal_clerk_turn() - one batch
 * @deadline_ns: how long to wait for the first message; monotonic
 *
 * Return: 0 when something was taken; 1 when nothing was; -ENOBUFS; what apply
 * said; else what the port said.
 */
int petal_clerk_turn(struct petal_clerk *clerk, uint64_t deadline_ns);

/**
 * petal_clerk_run() - turn after turn
 * @stop: looked at between two turns, at least ten times a second; or NULL
 * @deadline_ns: monotonic; PETAL_CLOCK_NEVER for none
 *
 * Return: 0 when stopped; 1 at the deadline; else as petal_clerk_turn().
 */
int petal_clerk_run(struct petal_clerk *clerk, const _Atomic bool *stop,
		    uint64_t deadline_ns);

#endif
