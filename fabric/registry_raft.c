/* SPDX-License-Identifier: Apache-2.0 */
/*
 * C-Raft, as this registry uses it: how it begins, the state machine that it
 * applies commands to, and its writes to the log.
 *
 * Happy path: C-Raft is set on the directory; if the log is new, all voters
 * become its first entry. Starting it restores the newest snapshot and applies
 * what is known to be committed. From then on each committed command goes to
 * fsm_apply(), and what became of it to the request's callback. Every
 * SNAPSHOT_THRESHOLD entries C-Raft asks for a snapshot, which is a copy made
 * under the lock and C-Raft's to write and to free.
 *
 * Failure modes: the disk fails, or a command or a snapshot cannot be read.
 * C-Raft would stay leader and try again, so we look at each write to the log
 * and each command ourselves, and note the failure; nothing is applied after
 * it, and the loop's watch() turns C-Raft off. A damaged log is refused at the
 * start and never repaired: what it lacks may have been acknowledged.
 */
#include "fabric/registry_private.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <raft/uv.h>

#include "shm/error.h"

/*
 * Entries between snapshots, and kept after one for voters a little behind. All
 * of them at their largest fit in one of C-Raft's segments of 8 MiB, and must:
 * it sends a voter that is behind all that it has in one message.
 */
#define SNAPSHOT_THRESHOLD 1024
#define SNAPSHOT_TRAILING 256

static_assert((SNAPSHOT_THRESHOLD + SNAPSHOT_TRAILING +
	       2 * PETAL_REGISTRY_INFLIGHT_MAX) *
			      (PETAL_REGISTRY_COMMAND_MAX + 32) <
		      8 * 1024 * 1024,
	      "the longest log that C-Raft may send at once fits in a segment");
static_assert(PETAL_REGISTRY_INFLIGHT_MAX <= UINT8_MAX + 1, "slots are bytes");

/* What C-Raft wants of a state machine. */

static int fsm_apply(struct raft_fsm *raft_fsm, const struct raft_buffer *buf,
		     void **result)
{
	struct petal_registry *registry = raft_fsm->data;
	struct petal_registry_outcome *outcome =
		&registry->outcomes[registry->outcome_next];
	int err;

	registry_lock(registry);
	err = registry->failed;
	if (err == 0)
		err = petal_registry_fsm_apply(&registry->fsm, buf->base,
					       buf->len, outcome);
	if (err < 0)
		registry_note_failed(registry, err);
	else if (outcome->status == 0)
		registry_note_changed(registry, outcome->key);
	registry_unlock(registry);
	if (err < 0)
		return RAFT_MALFORMED;

	registry->outcome_next =
		(registry->outcome_next + 1) % PETAL_REGISTRY_INFLIGHT_MAX;
	*result = outcome;
	return 0;
}

static int fsm_snapshot(struct raft_fsm *raft_fsm, struct raft_buffer *bufs[],
			unsigned *n_bufs)
{
	struct petal_registry *registry = raft_fsm->data;
	struct raft_buffer *buf = raft_malloc(sizeof(*buf));

	if (buf == NULL)
		return RAFT_NOMEM;
	registry_lock(registry);
	buf->len = petal_registry_fsm_snapshot_bytes(&registry->fsm);
	buf->base = raft_malloc(buf->len);
	if (buf->base != NULL) {
		petal_registry_fsm_snapshot(&registry->fsm, buf->base);
		registry->snapshots_taken++;
	}
	registry_unlock(registry);
	if (buf->base == NULL) {
		raft_free(buf);
		return RAFT_NOMEM;
	}
	*bufs = buf;
	*n_bufs = 1;
	return 0;
}

static int fsm_restore(struct raft_fsm *raft_fsm, struct raft_buffer *buf)
{
	struct petal_registry *registry = raft_fsm->data;
	int err;

	registry_lock(registry);
	err = petal_registry_fsm_restore(&registry->fsm, buf->base, buf->len);
	if (err < 0) {
		registry_note_failed(registry, err);
	} else {
		registry->snapshots_restored++;
		registry_note_all_changed(registry);
	}
	registry_unlock(registry);
	if (err < 0)
		return RAFT_MALFORMED;
	/* Ours since we said yes; of a snapshot refused, C-Raft keeps it. */
	raft_free(buf->base);
	return 0;
}

/* The disk. */

static struct petal_registry *registry_of(struct raft_io *io)
{
	return (void *)((char *)io - offsetof(struct petal_registry, io));
}

/* A write to the log, with C-Raft's own request beside ours. */
struct append {
	struct raft_io_append ours;
	struct raft_io_append *theirs;
	raft_io_append_cb cb;
	struct petal_registry *registry;
};

static void note_disk(struct petal_registry *registry, int raft_err)
{
	if (raft_err == 0 || raft_err == RAFT_CANCELED ||
	    raft_err == RAFT_NOMEM)
		return;
	registry_lock(registry);
	registry_note_failed(registry,
			     raft_err == RAFT_NOSPACE ? -ENOSPC : -PETAL_EDISK);
	registry_unlock(registry);
}

static void append_cb(struct raft_io_append *ours, int status)
{
	struct append *append = ours->data;

	note_disk(append->registry, status);
	append->cb(append->theirs, status);
	free(append);
}

/*
 * Stands before C-Raft's own: a leader that cannot write stays leader for it,
 * and its requests would never end.
 */
static int append_watched(struct raft_io *io, struct raft_io_append *req,
			  const struct raft_entry entries[], unsigned n,
			  raft_io_append_cb cb)
{
	struct petal_registry *registry = registry_of(io);
	struct append *append = calloc(1, sizeof(*append));
	int err;

	if (append == NULL)
		return RAFT_NOMEM;
	append->ours.data = append;
	append->theirs = req;
	append->cb = cb;
	append->registry = registry;
	err = registry->append(io, &append->ours, entries, n, append_cb);
	if (err != 0)
		free(append);
	else if (n > 0)
		registry->last_term = entries[n - 1].term;
	note_disk(registry, err);
	return err;
}

static void close_once(struct raft_io *io)
{
	struct petal_registry *registry = registry_of(io);
	raft_io_close_cb cb = registry->close_cb;

	registry->close_cb = NULL;
	if (cb != NULL)
		cb(io);
}

/*
 * C-Raft 0.15 says twice that it is closed when it was still preparing a
 * segment, as it is on a file system in memory, and would free itself twice.
 */
static void close_watched(struct raft_io *io, raft_io_close_cb cb)
{
	struct petal_registry *registry = registry_of(io);

	registry->close_cb = cb;
	registry->close(io, close_once);
}

/* To hear what C-Raft does with messages. */
static int start_watched(struct raft_io *io, unsigned msecs,
			 raft_io_tick_cb tick, raft_io_recv_cb recv)
{
	struct petal_registry *registry = registry_of(io);

	registry->recv = recv;
	return registry->start(io, msecs, tick, recv);
}

/*
 * The message by which a leader hands its place over (Ongaro's thesis, 3.10),
 * as if the lost one had sent it. Whoever gets it runs for the next term, with
 * what it has; who has more does not vote for it, as ever. Where C-Raft knows of
 * a later end of its log than we have seen, it does nothing.
 */
void registry_raft_succeed(struct petal_registry *registry, uint32_t leader)
{
	struct raft_message message = {
		.type = RAFT_IO_TIMEOUT_NOW,
		.timeout_now = {
			.term = registry->raft.current_term,
			.last_log_index = raft_last_index(&registry->raft),
			.last_log_term = registry->last_term,
		},
	};

	if (registry->recv == NULL ||
	    raft_state(&registry->raft) != RAFT_FOLLOWER)
		return;
	raft_leader(&registry->raft, &message.server_id,
		    &message.server_address);
	if (message.server_id == leader)
		registry->recv(&registry->io, &message);
}

/* Beginning. */

static int raft_err_translate(struct petal_registry *registry, int raft_err)
{
	if (registry->failed != 0)
		return registry->failed;
	if (registry->transport.error != 0)
		return registry->transport.error;
	switch (raft_err) {
	case 0:
		return 0;
	case RAFT_NOMEM:
		return -ENOMEM;
	case RAFT_NOSPACE:
		return -ENOSPC;
	case RAFT_NAMETOOLONG:
		return -ENAMETOOLONG;
	case RAFT_CORRUPT:
	case RAFT_MALFORMED:
		return -PETAL_ECORRUPT;
	default:
		return -PETAL_EDISK;
	}
}

static int raft_prepare(struct petal_registry *registry,
			const struct petal_registry_options *options)
{
	const char *address = NULL;
	char log[PATH_MAX];
	int err;

	if (snprintf(log, sizeof(log), "%s/log", options->dir) >=
	    (int)sizeof(log))
		return -ENAMETOOLONG;
	err = raft_uv_init(&registry->io, &registry->loop, log,
			   &registry->transport.base);
	if (err != 0)
		return raft_err_translate(registry, err);
	registry->io_open = true;
	registry->append = registry->io.append;
	registry->io.append = append_watched;
	registry->close = registry->io.close;
	registry->io.close = close_watched;
	registry->start = registry->io.start;
	registry->io.start = start_watched;
	/* It would set damaged segments aside, and acknowledged entries too. */
	raft_uv_set_auto_recovery(&registry->io, false);
	registry->raft_fsm = (struct raft_fsm){
		.version = 1,
		.data = registry,
		.apply = fsm_apply,
		.snapshot = fsm_snapshot,
		.restore = fsm_restore,
	};
	for (unsigned i = 0; i < options->voter_count; i++)
		if (options->voters[i].node == options->node)
			address = options->voters[i].address;
	err = raft_init(&registry->raft, &registry->io, &registry->raft_fsm,
			options->node, address);
	if (err != 0)
		return raft_err_translate(registry, err);
	registry->raft.data = registry;
	registry->raft_open = true;
	return 0;
}

static void raft_tune(struct petal_registry *registry,
		      const struct petal_registry_options *options)
{
	unsigned heartbeat_ms = options->heartbeat_ms
					? options->heartbeat_ms
					: PETAL_REGISTRY_HEARTBEAT_MS;
	unsigned election_ms = options->election_ms
				       ? options->election_ms
				       : PETAL_REGISTRY_ELECTION_MS;

	raft_set_election_timeout(&registry->raft, election_ms);
	raft_set_heartbeat_timeout(&registry->raft, heartbeat_ms);
	raft_set_pre_vote(&registry->raft, true);
	raft_set_snapshot_threshold(&registry->raft, SNAPSHOT_THRESHOLD);
	raft_set_snapshot_trailing(&registry->raft, SNAPSHOT_TRAILING);
	/* A voter that comes back is talked to within a heartbeat or so. */
	raft_uv_set_connect_retry_delay(&registry->io, heartbeat_ms);
}

/* Each voter begins with the same first entry: all of them, by their ids. */
static int bootstrap(struct petal_registry *registry,
		     const struct petal_registry_options *options)
{
	struct raft_configuration configuration;
	int err = 0;

	raft_configuration_init(&configuration);
	for (unsigned i = 0; err == 0 && i < options->voter_count; i++)
		err = raft_configuration_add(&configuration,
					     options->voters[i].node,
					     options->voters[i].address,
					     RAFT_VOTER);
	if (err == 0)
		err = raft_bootstrap(&registry->raft, &configuration);
	raft_configuration_close(&configuration);
	return raft_err_translate(registry, err);
}

int registry_raft_begin(struct petal_registry *registry,
			const struct petal_registry_options *options)
{
	int found = registry_store_check(registry, options);
	int err;

	if (found < 0)
		return found;
	err = raft_prepare(registry, options);
	if (err < 0 || found != REGISTRY_STORE_UNBORN)
		return err;
	err = bootstrap(registry, options);
	if (err < 0)
		return err;
	return registry_store_identify(registry, options);
}

int registry_raft_run(struct petal_registry *registry,
		      const struct petal_registry_options *options)
{
	int err;

	raft_tune(registry, options);
	err = raft_start(&registry->raft);
	if (err != 0)
		return raft_err_translate(registry, err);
	/* The identity says that there was a log, and the log is empty. */
	if (registry->raft.configuration.n != registry->voter_count)
		return -PETAL_EDATALOSS;
	return 0;
}
