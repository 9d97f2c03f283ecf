/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes between the callers and the loop's thread: requests one way, events
 * the other. Everything here runs under the lock and never waits.
 *
 * Happy path: a compare-and-swap takes a free request and waits in `queued`
 * for the loop; its answer waits in `done` for a poll, and the request is free
 * again when it was polled. Changed keys, the leader and a failure are marks,
 * which a poll turns into events. The first of them since the last poll that
 * found no more makes the descriptor readable.
 *
 * Failure modes: all requests are taken, and the next one is refused, -EAGAIN.
 * More keys change than there is room for: they become one event without a key,
 * "look at all", and that is counted. A leader that changes and changes back
 * between two polls is reported once, as it is then. A failure is reported
 * once, the first one, and refuses all further requests.
 */
#include "fabric/registry_private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "shm/error.h"

static_assert(PETAL_REGISTRY_INFLIGHT_MAX <= UINT8_MAX + 1, "slots are bytes");

static void fifo_push(struct registry_fifo *fifo, unsigned slot)
{
	unsigned at = (fifo->head + fifo->count) % PETAL_REGISTRY_INFLIGHT_MAX;

	/* As many places as requests, each of which is in one queue at most. */
	assert(fifo->count < PETAL_REGISTRY_INFLIGHT_MAX);
	fifo->slots[at] = (uint8_t)slot;
	fifo->count++;
}

static unsigned fifo_pop(struct registry_fifo *fifo)
{
	unsigned slot = fifo->slots[fifo->head];

	fifo->head = (fifo->head + 1) % PETAL_REGISTRY_INFLIGHT_MAX;
	fifo->count--;
	return slot;
}

/* Requests. */

static struct registry_request *
request_free_find(struct petal_registry *registry)
{
	for (unsigned i = 0; i < PETAL_REGISTRY_INFLIGHT_MAX; i++)
		if (registry->requests[i].state == REGISTRY_REQUEST_FREE)
			return &registry->requests[i];
	return NULL;
}

/* Under the lock: queue an encoded command. */
int registry_request_put(struct petal_registry *registry,
			 struct raft_buffer command, uint64_t cookie)
{
	struct registry_request *request;

	if (registry->failed != 0)
		return registry->failed;
	if (registry->leader != registry->node)
		return -PETAL_ENOTLEADER;
	request = request_free_find(registry);
	if (request == NULL)
		return -EAGAIN;
	request->registry = registry;
	request->command = command;
	request->cookie = cookie;
	request->state = REGISTRY_REQUEST_QUEUED;
	fifo_push(&registry->queued, (unsigned)(request - registry->requests));
	return 0;
}

struct registry_request *registry_request_next(struct petal_registry *registry)
{
	struct registry_request *request;

	if (registry->queued.count == 0)
		return NULL;
	request = &registry->requests[fifo_pop(&registry->queued)];
	request->state = REGISTRY_REQUEST_RAFT;
	return request;
}

/* Events, as they happen. */

/* Under the lock: make the descriptor readable, once until the next poll. */
static void signal_events(struct petal_registry *registry)
{
	uint64_t one = 1;

	if (registry->signalled)
		return;
	registry->signalled = true;
	(void)!write(registry->event_fd, &one, sizeof(one));
}

void registry_note_changed(struct petal_registry *registry, const char *key)
{
	if (registry->all_changed)
		return;
	for (unsigned i = 0; i < registry->changed_count; i++)
		if (strcmp(registry->changed[i], key) == 0)
			return;
	if (registry->changed_count == PETAL_REGISTRY_CHANGED_MAX) {
		registry->all_changed = true;
		registry->changed_count = 0;
		registry->changed_overflows++;
	} else {
		memcpy(registry->changed[registry->changed_count++], key,
		       PETAL_REGISTRY_KEY_MAX + 1);
	}
	signal_events(registry);
}

void registry_note_all_changed(struct petal_registry *registry)
{
	registry->all_changed = true;
	registry->changed_count = 0;
	signal_events(registry);
}

void registry_note_leader(struct petal_registry *registry, uint32_t leader)
{
	if (registry->leader == leader)
		return;
	registry->leader = leader;
	registry->leader_changed = true;
	signal_events(registry);
}

void registry_note_failed(struct petal_registry *registry, int failed)
{
	if (registry->failed != 0)
		return;
	registry->failed = failed;
	registry->failed_changed = true;
	signal_events(registry);
}

void registry_note_done(struct petal_registry *registry,
			struct registry_request *request, int status,
			uint64_t version)
{
	request->state = REGISTRY_REQUEST_DONE;
	request->status = status;
	request->version = version;
	fifo_push(&registry->done, (unsigned)(request - registry->requests));
	signal_events(registry);
}

/* Events, as they are polled. */

static void event_applied(struct petal_registry *registry,
			  struct petal_registry_event *event)
{
	struct registry_request *request =
		&registry->requests[fifo_pop(&registry->done)];

	event->type = PETAL_REGISTRY_APPLIED;
	event->status = request->status;
	event->cookie = request->cookie;
	event->version = request->version;
	request->state = REGISTRY_REQUEST_FREE;
}

static void event_changed(struct petal_registry *registry,
			  struct petal_registry_event *event)
{
	event->type = PETAL_REGISTRY_CHANGED;
	if (registry->all_changed)
		registry->all_changed = false;
	else
		memcpy(event->key, registry->changed[--registry->changed_count],
		       sizeof(event->key));
}

/* Under the lock: the next event, or false. */
static bool event_take(struct petal_registry *registry,
		       struct petal_registry_event *event)
{
	*event = (struct petal_registry_event){ 0 };
	if (registry->failed_changed) {
		registry->failed_changed = false;
		event->type = PETAL_REGISTRY_FAILED;
		event->status = registry->failed;
	} else if (registry->leader_changed) {
		registry->leader_changed = false;
		event->type = PETAL_REGISTRY_LEADER;
		event->node = registry->leader;
	} else if (registry->done.count > 0) {
		event_applied(registry, event);
	} else if (registry->all_changed || registry->changed_count > 0) {
		event_changed(registry, event);
	} else {
		return false;
	}
	return true;
}

unsigned registry_events_take(struct petal_registry *registry,
			      struct petal_registry_event *events, unsigned max)
{
	unsigned taken = 0;
	uint64_t drained;

	while (taken < max && event_take(registry, &events[taken]))
		taken++;
	/* Readable again only if something is left, or comes. */
	if (taken < max && registry->signalled) {
		registry->signalled = false;
		(void)!read(registry->event_fd, &drained, sizeof(drained));
	}
	return taken;
}
