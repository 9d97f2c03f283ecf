/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop: the only place where C-Raft runs, once the registry is open.
 *
 * Happy path: a wake-up gives C-Raft what is queued, and its answer is noted.
 * watch() runs just before the loop sleeps, hence sees each change of state
 * that the callbacks before it made; nothing has to poll. A voter that becomes
 * leader sends a barrier, and says that it leads when the barrier is through.
 *
 * Failure modes: leadership is lost, and what C-Raft had is answered
 * -PETAL_EUNKNOWN, what it had not -PETAL_ENOTLEADER. The disk fails, or a
 * command or a snapshot cannot be read: watch() turns C-Raft off, and the
 * thread lives on until close, to answer. The thread hangs in the disk while
 * it is closed: after CLOSE_S it is left behind.
 *
 * Closing: C-Raft first, which answers what it has; then the transport and our
 * handles; with none of them left the loop ends. The same way is gone without
 * a thread, if opening fails half way.
 */
#include "fabric/registry_private.h"

#include <errno.h>
#include <time.h>

#include "shm/clock.h"
#include "shm/error.h"

/* So long a closing thread may hang on its disk before it is left behind. */
#define CLOSE_S 30
/* So long the next one waits for an election to be over. */
#define PATIENCE_MS 50

/* Requests. */

static void apply_cb(struct raft_apply *apply, int status, void *result)
{
	struct registry_request *request = apply->data;
	struct petal_registry *registry = request->registry;
	struct petal_registry_outcome *outcome = result;

	registry_lock(registry);
	if (status == 0)
		registry_note_done(registry, request, outcome->status,
				   outcome->version);
	else
		registry_note_done(registry, request, -PETAL_EUNKNOWN, 0);
	registry_unlock(registry);
}

/* Why C-Raft did not even take it. */
static int refusal(int raft_err)
{
	switch (raft_err) {
	case RAFT_NOTLEADER:
	case RAFT_SHUTDOWN:
		return -PETAL_ENOTLEADER;
	case RAFT_NOMEM:
		return -ENOMEM;
	default:
		return -PETAL_EUNKNOWN;
	}
}

static void request_start(struct petal_registry *registry,
			  struct registry_request *request)
{
	int err = RAFT_NOTLEADER;

	request->apply.data = request;
	if (registry->raft_open && !registry->raft_closing)
		err = raft_apply(&registry->raft, &request->apply,
				 &request->command, 1, apply_cb);
	if (err == 0)
		return;
	raft_free(request->command.base);
	registry_lock(registry);
	registry_note_done(registry, request, refusal(err), 0);
	registry_unlock(registry);
}

/* Give C-Raft a request; false if none waits. */
static bool request_pass(struct petal_registry *registry)
{
	struct registry_request *request;

	registry_lock(registry);
	request = registry_request_next(registry);
	registry_unlock(registry);
	if (request != NULL)
		request_start(registry, request);
	return request != NULL;
}

/* Who leads is missed. */

/* How many voters try before us, should that one be lost. */
static unsigned rank_without(const struct petal_registry *registry,
			     uint32_t leader)
{
	const struct petal_registry_transport *t = &registry->transport;
	unsigned rank = 0;

	for (unsigned i = 0; i < t->voter_count; i++)
		rank += t->voters[i].node < registry->node &&
			t->voters[i].node != leader;
	return rank;
}

static void patience_cb(uv_timer_t *timer)
{
	struct petal_registry *registry = timer->data;

	if (registry->raft_open && !registry->raft_closing)
		registry_raft_succeed(registry, registry->missed);
}

/* One after the other, or they would share the votes. */
static void see_who_is_gone(struct petal_registry *registry)
{
	uint32_t gone;

	registry_lock(registry);
	gone = registry->gone;
	registry->gone = 0;
	registry_unlock(registry);
	if (gone == 0 || registry->handles_closing)
		return;
	registry->missed = gone;
	uv_timer_start(&registry->patience, patience_cb,
		       rank_without(registry, gone) * PATIENCE_MS, 0);
}

static void wake_cb(uv_async_t *async)
{
	see_who_is_gone(async->data);
	/* Bounded by the number of requests: each waits for a poll first. */
	while (request_pass(async->data))
		continue;
}

/* Leadership and failure. */

static void raft_closed(struct raft *raft)
{
	struct petal_registry *registry = raft->data;

	registry->raft_open = false;
}

static void raft_stop(struct petal_registry *registry)
{
	if (!registry->raft_open || registry->raft_closing)
		return;
	registry->raft_closing = true;
	raft_close(&registry->raft, raft_closed);
}

static void barrier_cb(struct raft_barrier *barrier, int status)
{
	struct petal_registry *registry = barrier->data;

	registry->barrier_pending = false;
	if (status == 0)
		registry->ready_term = registry->barrier_term;
}

/*
 * A new leader may hold entries of its predecessors that it does not know to
 * be committed, and cannot know until one of its own term is. The barrier is
 * that one; before it is through, we do not say that we lead.
 */
static bool leading(struct petal_registry *registry)
{
	struct raft *raft = &registry->raft;

	if (registry->ready_term == raft->current_term)
		return true;
	if (!registry->barrier_pending) {
		registry->barrier.data = registry;
		registry->barrier_term = raft->current_term;
		registry->barrier_pending = true;
		/* Refused for want of memory, it is tried at the next turn. */
		if (raft_barrier(raft, &registry->barrier, barrier_cb) != 0)
			registry->barrier_pending = false;
	}
	/* A single voter is through at once. */
	return registry->ready_term == raft->current_term;
}

static uint32_t leader_now(struct petal_registry *registry)
{
	const char *address;
	raft_id id = 0;

	if (!registry->raft_open || registry->raft_closing)
		return 0;
	if (raft_state(&registry->raft) == RAFT_LEADER)
		return leading(registry) ? registry->node : 0;
	raft_leader(&registry->raft, &id, &address);
	return (uint32_t)id;
}

static void handles_close(struct petal_registry *registry)
{
	if (registry->handles_closing)
		return;
	registry->handles_closing = true;
	petal_registry_transport_fini(&registry->transport);
	uv_close((uv_handle_t *)&registry->async, NULL);
	uv_close((uv_handle_t *)&registry->prepare, NULL);
	uv_close((uv_handle_t *)&registry->patience, NULL);
}

static void watch(uv_prepare_t *prepare)
{
	struct petal_registry *registry = prepare->data;
	uint32_t leader = leader_now(registry);
	bool failed, closing;

	registry_lock(registry);
	if (registry->raft_open && !registry->raft_closing &&
	    raft_state(&registry->raft) == RAFT_UNAVAILABLE)
		registry_note_failed(registry, -PETAL_EDISK);
	failed = registry->failed != 0;
	closing = registry->closing;
	registry_note_leader(registry, failed || closing ? 0 : leader);
	registry_unlock(registry);

	if (failed || closing)
		raft_stop(registry);
	if (closing && !registry->raft_open)
		handles_close(registry);
}

/* The loop. */

int registry_loop_open(struct petal_registry *registry,
		       const struct petal_registry_options *options)
{
	int err = uv_loop_init(&registry->loop);

	if (err != 0)
		return err;
	err = uv_async_init(&registry->loop, &registry->async, wake_cb);
	if (err != 0) {
		uv_loop_close(&registry->loop);
		return err;
	}
	uv_timer_init(&registry->loop, &registry->patience);
	registry->patience.data = registry;
	uv_prepare_init(&registry->loop, &registry->prepare);
	uv_prepare_start(&registry->prepare, watch);
	registry->async.data = registry;
	registry->prepare.data = registry;
	petal_registry_transport_init(&registry->transport, &registry->loop,
				      options);
	return 0;
}

/* After the thread, or without one: watch() closes what is open. */
void registry_loop_close(struct petal_registry *registry)
{
	registry->closing = true;
	uv_run(&registry->loop, UV_RUN_DEFAULT);
	if (registry->io_open)
		raft_uv_close(&registry->io);
	uv_loop_close(&registry->loop);
}

/* The thread. */

static void *thread_main(void *arg)
{
	struct petal_registry *registry = arg;

	uv_run(&registry->loop, UV_RUN_DEFAULT);
	registry_lock(registry);
	registry->ended = true;
	pthread_cond_signal(&registry->ended_cond);
	registry_unlock(registry);
	return NULL;
}

int registry_thread_start(struct petal_registry *registry)
{
	return -pthread_create(&registry->thread, NULL, thread_main, registry);
}

/* Tell the thread to close and wait until it has; false if it hangs. */
bool registry_thread_end(struct petal_registry *registry)
{
	struct timespec deadline =
		petal_clock_timespec(petal_clock_now_ns() + PETAL_S(CLOSE_S));
	bool ended;
	int err = 0;

	registry_lock(registry);
	registry->closing = true;
	uv_async_send(&registry->async);
	while (!registry->ended && err == 0)
		err = pthread_cond_timedwait(&registry->ended_cond,
					     &registry->lock, &deadline);
	ended = registry->ended;
	registry_unlock(registry);
	return ended;
}
