/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls. What they share with the registry's other files, and which thread
 * owns what, is in registry_private.h.
 *
 * Happy path: open makes the directory, begins the log if there is none, lets
 * C-Raft read it and listen, all in the caller's thread, then hands the loop
 * to a thread of its own. A compare-and-swap is encoded in the caller's thread
 * and waits in `queued`; the loop gives it to C-Raft; when a majority has it,
 * C-Raft applies it to the state machine here and calls back; the answer waits
 * in `done` until it is polled. Reading copies out of the state machine under
 * the lock, one key at a time.
 *
 * Failure modes: opening fails half way, and what was opened is closed in the
 * caller's thread, by the same steps as in the loop's. We do not lead, or no
 * request is free: refused at once. The registry failed: reading goes on, what
 * would change something is refused. The loop's thread hangs in its disk while
 * we close: its memory is left to it.
 */
#include "fabric/registry_private.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Opening and closing. */

static int options_check(const struct petal_registry_options *options)
{
	unsigned election_ms = options->election_ms, us = 0;

	if (options->dir == NULL || options->voter_count == 0 ||
	    options->voter_count > PETAL_REGISTRY_VOTERS_MAX)
		return -EINVAL;
	if (election_ms == 0)
		election_ms = PETAL_REGISTRY_ELECTION_MS;
	if (election_ms > INT_MAX / 4 || options->heartbeat_ms >= election_ms)
		return -EINVAL;
	if (options->heartbeat_ms == 0 &&
	    election_ms <= PETAL_REGISTRY_HEARTBEAT_MS)
		return -EINVAL;
	for (unsigned i = 0; i < options->voter_count; i++) {
		const struct petal_registry_voter *voter = &options->voters[i];

		if (voter->node == 0 ||
		    petal_registry_address_check(voter->address) < 0)
			return -EINVAL;
		us += voter->node == options->node;
		for (unsigned j = 0; j < i; j++)
			if (options->voters[j].node == voter->node ||
			    !strcmp(options->voters[j].address, voter->address))
				return -EINVAL;
	}
	return us == 1 ? 0 : -EINVAL;
}

static int by_node(const void *a, const void *b)
{
	const struct petal_registry_voter *left = a, *right = b;

	return (left->node > right->node) - (left->node < right->node);
}

static void memory_free(struct petal_registry *registry)
{
	for (unsigned i = 0; i < PETAL_REGISTRY_INFLIGHT_MAX; i++)
		if (registry->requests[i].state == REGISTRY_REQUEST_QUEUED)
			raft_free(registry->requests[i].command.base);
	if (registry->event_fd >= 0)
		close(registry->event_fd);
	if (registry->dir_fd >= 0)
		close(registry->dir_fd);
	pthread_cond_destroy(&registry->ended_cond);
	pthread_mutex_destroy(&registry->lock);
	free(registry);
}

static struct petal_registry *
memory_new(const struct petal_registry_options *options)
{
	struct petal_registry *registry = calloc(1, sizeof(*registry));
	pthread_condattr_t monotonic;

	if (registry == NULL)
		return NULL;
	registry->node = options->node;
	registry->voter_count = options->voter_count;
	registry->dir_fd = -1;
	registry->event_fd = -1;
	registry->barrier_term = 0;
	pthread_mutex_init(&registry->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&registry->ended_cond, &monotonic);
	pthread_condattr_destroy(&monotonic);
	petal_registry_fsm_init(&registry->fsm);
	return registry;
}

static int open_parts(struct petal_registry *registry,
		      const struct petal_registry_options *options)
{
	int err = registry_store_open(registry, options);

	if (err < 0)
		return err;
	registry->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (registry->event_fd < 0)
		return -errno;
	err = registry_loop_open(registry, options);
	if (err < 0)
		return err;
	registry_note_all_changed(registry);
	err = registry_raft_begin(registry, options);
	if (err == 0)
		err = registry_raft_run(registry, options);
	if (err == 0)
		err = registry_thread_start(registry);
	if (err < 0)
		registry_loop_close(registry);
	return err;
}

/*
 * Signals are for the program's own threads; only faults hit where they are
 * made. libuv's pool inherits this, as it is started under it or under us.
 */
static void signals_block(sigset_t *ret_before)
{
	static const int faults[] = { SIGSEGV, SIGBUS,  SIGFPE, SIGILL,
				      SIGABRT, SIGTRAP, SIGSYS };
	sigset_t set;

	sigfillset(&set);
	for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigdelset(&set, faults[i]);
	pthread_sigmask(SIG_BLOCK, &set, ret_before);
}

int petal_registry_open(const struct petal_registry_options *options,
			struct petal_registry **ret_registry)
{
	struct petal_registry_voter voters[PETAL_REGISTRY_VOTERS_MAX];
	struct petal_registry_options sorted = *options;
	struct petal_registry *registry;
	sigset_t before;
	int err = options_check(options);

	if (err < 0)
		return err;
	memcpy(voters, options->voters, options->voter_count * sizeof(*voters));
	qsort(voters, options->voter_count, sizeof(*voters), by_node);
	sorted.voters = voters;
	registry = memory_new(&sorted);
	if (registry == NULL)
		return -ENOMEM;

	signals_block(&before);
	err = open_parts(registry, &sorted);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err < 0) {
		memory_free(registry);
		return err;
	}
	*ret_registry = registry;
	return 0;
}

void petal_registry_close(struct petal_registry *registry)
{
	if (registry == NULL)
		return;
	if (!registry_thread_end(registry)) {
		/* It hangs in the disk and still uses its memory. */
		pthread_detach(registry->thread);
		return;
	}
	pthread_join(registry->thread, NULL);
	registry_loop_close(registry);
	memory_free(registry);
}

/* Changing and reading. */

void petal_registry_miss(struct petal_registry *registry, uint32_t node)
{
	registry_lock(registry);
	registry->gone = node;
	if (!registry->closing)
		uv_async_send(&registry->async);
	registry_unlock(registry);
}

int petal_registry_cas(struct petal_registry *registry, const char *key,
		       uint64_t expected_version, const void *value,
		       uint32_t length, uint64_t cookie)
{
	struct petal_registry_command command = {
		.expected_version = expected_version,
		.value = value,
		.length = length,
	};
	struct raft_buffer buf;
	int bytes = petal_registry_key_check(key);
	int err;

	if (bytes < 0)
		return bytes;
	memcpy(command.key, key, (size_t)bytes);
	bytes = petal_registry_command_bytes(&command);
	if (bytes < 0)
		return bytes;
	buf.len = (size_t)bytes;
	buf.base = raft_malloc(buf.len);
	if (buf.base == NULL)
		return -ENOMEM;
	petal_registry_command_encode(&command, buf.base);

	registry_lock(registry);
	err = registry_request_put(registry, buf, cookie);
	registry_unlock(registry);
	if (err < 0)
		raft_free(buf.base);
	else
		uv_async_send(&registry->async);
	return err;
}

/* Under the lock. */
static int entry_copy(const struct petal_registry_entry *entry, void *value,
		      uint32_t size, uint32_t *ret_length,
		      uint64_t *ret_version)
{
	if (entry == NULL)
		return -ENOENT;
	if (value != NULL && size < entry->length)
		return -EMSGSIZE;
	if (value != NULL)
		memcpy(value, entry->value, entry->length);
	if (ret_length != NULL)
		*ret_length = entry->length;
	if (ret_version != NULL)
		*ret_version = entry->version;
	return 0;
}

int petal_registry_get(struct petal_registry *registry, const char *key,
		       void *value, uint32_t size, uint32_t *ret_length,
		       uint64_t *ret_version)
{
	int err;

	registry_lock(registry);
	err = entry_copy(petal_registry_fsm_find(&registry->fsm, key), value,
			 size, ret_length, ret_version);
	registry_unlock(registry);
	return err;
}

/* Copy the next entry of the walk; false at its end. */
static bool entry_next(struct petal_registry *registry, const char *prefix,
		       const char *last, struct petal_registry_entry *ret_entry)
{
	const struct petal_registry_entry *entry;
	bool found = false;

	registry_lock(registry);
	entry = petal_registry_fsm_after(&registry->fsm, last ? last : prefix,
					 last == NULL);
	if (entry != NULL && !strncmp(entry->key, prefix, strlen(prefix))) {
		memcpy(ret_entry, entry,
		       offsetof(struct petal_registry_entry, value) +
			       entry->length);
		found = true;
	}
	registry_unlock(registry);
	return found;
}

int petal_registry_each(struct petal_registry *registry, const char *prefix,
			petal_registry_visit visit, void *arg)
{
	struct petal_registry_entry entry;
	char last[PETAL_REGISTRY_KEY_MAX + 1];
	bool begun = false;

	/* Ends: each step goes to a greater key. */
	while (entry_next(registry, prefix, begun ? last : NULL, &entry)) {
		int outcome = visit(arg, entry.key, entry.value, entry.length,
				    entry.version);

		if (outcome != 0)
			return outcome;
		memcpy(last, entry.key, sizeof(last));
		begun = true;
	}
	return 0;
}

/* What happened. */

int petal_registry_fd(struct petal_registry *registry)
{
	return registry->event_fd;
}

int petal_registry_poll(struct petal_registry *registry,
			struct petal_registry_event *events, unsigned max)
{
	unsigned taken;

	registry_lock(registry);
	taken = registry_events_take(registry, events, max);
	registry_unlock(registry);
	return (int)taken;
}

uint32_t petal_registry_leader(struct petal_registry *registry)
{
	uint32_t leader;

	registry_lock(registry);
	leader = registry->leader;
	registry_unlock(registry);
	return leader;
}

static uint64_t counter(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void petal_registry_status(struct petal_registry *registry,
			   struct petal_registry_status *ret_status)
{
	const struct petal_registry_links *links =
		&registry->transport.counters;

	*ret_status = (struct petal_registry_status){
		.accepted = counter(&links->accepted),
		.refused = counter(&links->refused),
		.timed_out = counter(&links->timed_out),
		.evicted = counter(&links->evicted),
		.dialled = counter(&links->dialled),
		.dial_refused = counter(&links->dial_refused),
		.dial_failed = counter(&links->dial_failed),
	};
	registry_lock(registry);
	ret_status->leader = registry->leader;
	ret_status->failed = registry->failed;
	ret_status->keys = registry->fsm.count;
	ret_status->revision = registry->fsm.revision;
	ret_status->applied = registry->fsm.applied;
	ret_status->conflicts = registry->fsm.conflicts;
	ret_status->snapshots_taken = registry->snapshots_taken;
	ret_status->snapshots_restored = registry->snapshots_restored;
	ret_status->changed_overflows = registry->changed_overflows;
	registry_unlock(registry);
}
