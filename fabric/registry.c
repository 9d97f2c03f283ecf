/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Happy path: open makes the directory, begins the log if there is none, lets
 * C-Raft read it and listen, all in the caller's thread, then hands the loop
 * to a thread of its own. A compare-and-swap is encoded in the caller's thread
 * and waits in `queued`; the loop gives it to C-Raft; when a majority has it,
 * C-Raft applies it to the state machine here and calls back; the answer waits
 * in `done` until it is polled.
 *
 * Failure modes: leadership is lost, and what C-Raft had is answered
 * -PETAL_EUNKNOWN, what it had not -PETAL_ENOTLEADER. The disk fails, or a
 * command or a snapshot cannot be read: C-Raft would stay leader and try
 * again, so we look at each write to the log and each command ourselves, and
 * watch() turns it off. The thread lives on until close, to answer.
 *
 * One mutex guards all that both sides touch; C-Raft's own structures belong
 * to the loop's thread, once it runs. watch() runs just before the loop sleeps,
 * hence sees each change of state that the callbacks before it made; nothing
 * has to poll.
 */
#include "fabric/registry.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fabric/registry_fsm.h"
#include "fabric/registry_transport.h"
#include "shm/clock.h"
#include "shm/error.h"

/*
 * Entries between snapshots, and kept after one for voters a little behind. All
 * of them at their largest fit in one of C-Raft's segments of 8 MiB, and must:
 * it sends a voter that is behind all that it has in one message.
 */
#define SNAPSHOT_THRESHOLD 1024
#define SNAPSHOT_TRAILING 256

/* So long a closing thread may hang on its disk before it is left behind. */
#define CLOSE_S 30

#define IDENTITY_BYTES 1024

enum request_state { REQUEST_FREE, REQUEST_QUEUED, REQUEST_RAFT, REQUEST_DONE };

struct request {
	struct raft_apply apply;
	struct petal_registry *registry;
	struct raft_buffer command;
	enum request_state state;
	int status;
	uint64_t cookie;
	uint64_t version;
};

/* Slots of requests[], first in, first out. */
struct fifo {
	uint8_t slots[PETAL_REGISTRY_INFLIGHT_MAX];
	unsigned head;
	unsigned count;
};

struct petal_registry {
	/* Written before the thread starts, then only read. */
	uint32_t node;
	unsigned voter_count;
	int dir_fd;
	int event_fd;
	pthread_t thread;

	/* The loop's thread only, once it runs. */
	uv_loop_t loop;
	uv_async_t async;
	uv_prepare_t prepare;
	struct raft raft;
	struct raft_io io;
	struct raft_fsm raft_fsm;
	int (*append)(struct raft_io *io, struct raft_io_append *req,
		      const struct raft_entry entries[], unsigned n,
		      raft_io_append_cb cb);
	struct raft_barrier barrier;
	struct petal_registry_transport transport;
	bool io_open;
	bool raft_open;
	bool raft_closing;
	bool handles_closing;
	bool barrier_pending;
	unsigned long long barrier_term;
	unsigned long long ready_term;
	/* A later C-Raft calls back later: so many may be under way. */
	struct petal_registry_outcome outcomes[PETAL_REGISTRY_INFLIGHT_MAX];
	unsigned outcome_next;

	/* Under the lock. */
	pthread_mutex_t lock;
	pthread_cond_t ended_cond;
	bool ended;
	struct request requests[PETAL_REGISTRY_INFLIGHT_MAX];
	struct fifo queued;
	struct fifo done;
	bool closing;
	bool signalled;
	uint32_t leader;
	bool leader_changed;
	int failed;
	bool failed_changed;
	bool all_changed;
	unsigned changed_count;
	char changed[PETAL_REGISTRY_CHANGED_MAX][PETAL_REGISTRY_KEY_MAX + 1];
	uint64_t changed_overflows;
	uint64_t snapshots_taken;
	uint64_t snapshots_restored;
	struct petal_registry_fsm fsm;
};

static_assert((SNAPSHOT_THRESHOLD + SNAPSHOT_TRAILING +
	       2 * PETAL_REGISTRY_INFLIGHT_MAX) *
			      (PETAL_REGISTRY_COMMAND_MAX + 32) <
		      8 * 1024 * 1024,
	      "the longest log that C-Raft may send at once fits in a segment");
static_assert(PETAL_REGISTRY_INFLIGHT_MAX <= UINT8_MAX + 1, "slots are bytes");

static void fifo_push(struct fifo *fifo, unsigned slot)
{
	unsigned at = (fifo->head + fifo->count) % PETAL_REGISTRY_INFLIGHT_MAX;

	/* As many places as requests, each of which is in one queue at most. */
	assert(fifo->count < PETAL_REGISTRY_INFLIGHT_MAX);
	fifo->slots[at] = (uint8_t)slot;
	fifo->count++;
}

static unsigned fifo_pop(struct fifo *fifo)
{
	unsigned slot = fifo->slots[fifo->head];

	fifo->head = (fifo->head + 1) % PETAL_REGISTRY_INFLIGHT_MAX;
	fifo->count--;
	return slot;
}

static void lock(struct petal_registry *registry)
{
	pthread_mutex_lock(&registry->lock);
}

static void unlock(struct petal_registry *registry)
{
	pthread_mutex_unlock(&registry->lock);
}

/* Under the lock: make the descriptor readable, once until the next poll. */
static void signal_events(struct petal_registry *registry)
{
	uint64_t one = 1;

	if (registry->signalled)
		return;
	registry->signalled = true;
	(void)!write(registry->event_fd, &one, sizeof(one));
}

static void note_changed(struct petal_registry *registry, const char *key)
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

static void note_all_changed(struct petal_registry *registry)
{
	registry->all_changed = true;
	registry->changed_count = 0;
	signal_events(registry);
}

static void note_leader(struct petal_registry *registry, uint32_t leader)
{
	if (registry->leader == leader)
		return;
	registry->leader = leader;
	registry->leader_changed = true;
	signal_events(registry);
}

static void note_failed(struct petal_registry *registry, int failed)
{
	if (registry->failed != 0)
		return;
	registry->failed = failed;
	registry->failed_changed = true;
	signal_events(registry);
}

static void note_done(struct petal_registry *registry, struct request *request,
		      int status, uint64_t version)
{
	request->state = REQUEST_DONE;
	request->status = status;
	request->version = version;
	fifo_push(&registry->done, (unsigned)(request - registry->requests));
	signal_events(registry);
}

/* What C-Raft wants of a state machine; in the loop's thread. */

static int fsm_apply(struct raft_fsm *raft_fsm, const struct raft_buffer *buf,
		     void **result)
{
	struct petal_registry *registry = raft_fsm->data;
	struct petal_registry_outcome *outcome =
		&registry->outcomes[registry->outcome_next];
	int err;

	lock(registry);
	err = registry->failed;
	if (err == 0)
		err = petal_registry_fsm_apply(&registry->fsm, buf->base,
					       buf->len, outcome);
	if (err < 0)
		note_failed(registry, err);
	else if (outcome->status == 0)
		note_changed(registry, outcome->key);
	unlock(registry);
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
	lock(registry);
	buf->len = petal_registry_fsm_snapshot_bytes(&registry->fsm);
	buf->base = raft_malloc(buf->len);
	if (buf->base != NULL) {
		petal_registry_fsm_snapshot(&registry->fsm, buf->base);
		registry->snapshots_taken++;
	}
	unlock(registry);
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

	lock(registry);
	err = petal_registry_fsm_restore(&registry->fsm, buf->base, buf->len);
	if (err < 0) {
		note_failed(registry, err);
	} else {
		registry->snapshots_restored++;
		note_all_changed(registry);
	}
	unlock(registry);
	if (err < 0)
		return RAFT_MALFORMED;
	/* Ours since we said yes; of a snapshot refused, C-Raft keeps it. */
	raft_free(buf->base);
	return 0;
}

/* The disk, in the loop's thread. */

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
	lock(registry);
	note_failed(registry,
		    raft_err == RAFT_NOSPACE ? -ENOSPC : -PETAL_EDISK);
	unlock(registry);
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
	struct petal_registry *registry =
		(void *)((char *)io - offsetof(struct petal_registry, io));
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
	note_disk(registry, err);
	return err;
}

/* Requests, in the loop's thread. */

static void apply_cb(struct raft_apply *apply, int status, void *result)
{
	struct request *request = apply->data;
	struct petal_registry *registry = request->registry;
	struct petal_registry_outcome *outcome = result;

	lock(registry);
	if (status == 0)
		note_done(registry, request, outcome->status, outcome->version);
	else
		note_done(registry, request, -PETAL_EUNKNOWN, 0);
	unlock(registry);
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
			  struct request *request)
{
	int err = RAFT_NOTLEADER;

	request->apply.data = request;
	if (registry->raft_open && !registry->raft_closing)
		err = raft_apply(&registry->raft, &request->apply,
				 &request->command, 1, apply_cb);
	if (err == 0)
		return;
	raft_free(request->command.base);
	lock(registry);
	note_done(registry, request, refusal(err), 0);
	unlock(registry);
}

static struct request *request_next(struct petal_registry *registry)
{
	struct request *request = NULL;

	lock(registry);
	if (registry->queued.count > 0) {
		request = &registry->requests[fifo_pop(&registry->queued)];
		request->state = REQUEST_RAFT;
	}
	unlock(registry);
	return request;
}

/* Leadership and failure, in the loop's thread. */

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
}

static void watch(uv_prepare_t *prepare)
{
	struct petal_registry *registry = prepare->data;
	uint32_t leader = leader_now(registry);
	bool failed, closing;

	lock(registry);
	if (registry->raft_open && !registry->raft_closing &&
	    raft_state(&registry->raft) == RAFT_UNAVAILABLE)
		note_failed(registry, -PETAL_EDISK);
	failed = registry->failed != 0;
	closing = registry->closing;
	note_leader(registry, failed || closing ? 0 : leader);
	unlock(registry);

	if (failed || closing)
		raft_stop(registry);
	if (closing && !registry->raft_open)
		handles_close(registry);
}

static void wake_cb(uv_async_t *async)
{
	struct petal_registry *registry = async->data;
	struct request *request;

	/* Bounded by the number of requests: each waits for a poll first. */
	while ((request = request_next(registry)) != NULL)
		request_start(registry, request);
}

static void *thread_main(void *arg)
{
	struct petal_registry *registry = arg;

	uv_run(&registry->loop, UV_RUN_DEFAULT);
	lock(registry);
	registry->ended = true;
	pthread_cond_signal(&registry->ended_cond);
	unlock(registry);
	return NULL;
}

/* Opening: the directory. */

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

/* The text of DIR/identity; the voters are in order of their ids. */
static int identity_text(const struct petal_registry_options *options,
			 char text[static IDENTITY_BYTES])
{
	int at =
		snprintf(text, IDENTITY_BYTES, "petalith registry 1\ncluster ");

	for (unsigned i = 0; i < sizeof(options->cluster); i++)
		at += snprintf(text + at, IDENTITY_BYTES - (size_t)at, "%02x",
			       options->cluster[i]);
	at += snprintf(text + at, IDENTITY_BYTES - (size_t)at, "\nnode %u\n",
		       (unsigned)options->node);
	for (unsigned i = 0; i < options->voter_count; i++)
		at += snprintf(text + at, IDENTITY_BYTES - (size_t)at,
			       "voter %u %s\n",
			       (unsigned)options->voters[i].node,
			       options->voters[i].address);
	/* Seven voters of 64 bytes, and the rest, are 700 bytes at most. */
	assert(at < IDENTITY_BYTES);
	return at;
}

/* Read DIR/identity: 0 if it says @text, -ENOENT if it does not exist. */
static int identity_read(int dir_fd, const char *text, int length)
{
	static const char first_line[] = "petalith registry 1\n";
	char found[IDENTITY_BYTES + 1];
	ssize_t got;
	int fd = openat(dir_fd, "identity", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	got = read(fd, found, sizeof(found));
	close(fd);
	if (got < 0)
		return -PETAL_EDISK;
	if (got == length && memcmp(found, text, (size_t)length) == 0)
		return 0;
	if ((size_t)got < sizeof(first_line) - 1)
		return -PETAL_ECORRUPT;
	if (memcmp(found, first_line, sizeof(first_line) - 1) != 0)
		return memcmp(found, first_line, 18) == 0 ? -PETAL_EVERSION
							  : -PETAL_ECORRUPT;
	return -EINVAL;
}

/* Write DIR/identity so that it is there whole or not at all. */
static int identity_write(int dir_fd, const char *text, int length)
{
	int err = 0;
	int fd = openat(dir_fd, "identity.new",
			O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
			0600);

	if (fd < 0)
		return -errno;
	if (write(fd, text, (size_t)length) != length)
		err = -ENOSPC;
	else if (fsync(fd) < 0)
		err = -PETAL_EDISK;
	close(fd);
	if (err < 0)
		return err;
	if (renameat(dir_fd, "identity.new", dir_fd, "identity") < 0)
		return -errno;
	return fsync(dir_fd) < 0 ? -PETAL_EDISK : 0;
}

/* What C-Raft leaves if it dies while it begins a log. */
static bool is_unborn(const char *name)
{
	return strcmp(name, "metadata1") == 0 ||
	       strcmp(name, "metadata2") == 0 ||
	       strncmp(name, "tmp-", 4) == 0 ||
	       strcmp(name, "0000000000000001-0000000000000001") == 0;
}

/*
 * The identity is written between beginning the log and taking part, so a log
 * without one never took part and may be begun again; unless it holds more
 * than a log that was only begun, for then somebody removed the identity.
 */
static int unborn_log_clear(int dir_fd)
{
	struct dirent *entry;
	DIR *log;
	int err = 0;
	int fd = openat(dir_fd, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	log = fdopendir(fd);
	if (log == NULL) {
		close(fd);
		return -ENOMEM;
	}
	while (err == 0 && (entry = readdir(log)) != NULL) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (!is_unborn(entry->d_name))
			err = -PETAL_ECORRUPT;
		else if (unlinkat(fd, entry->d_name, 0) < 0)
			err = -errno;
	}
	closedir(log);
	return err;
}

static int dir_make(const struct petal_registry_options *options)
{
	if (!options->must_exist && mkdir(options->dir, 0700) < 0 &&
	    errno != EEXIST)
		return -errno;
	return 0;
}

/* Open and lock the directory, alone, and make sure that we can write there. */
static int dir_open(struct petal_registry *registry,
		    const struct petal_registry_options *options)
{
	int err = dir_make(options);

	if (err < 0)
		return err;
	registry->dir_fd =
		open(options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (registry->dir_fd < 0)
		return -errno;
	if (flock(registry->dir_fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (faccessat(registry->dir_fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return -errno;
	return 0;
}

/* Opening: C-Raft. */

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

static int raft_begin(struct petal_registry *registry,
		      const struct petal_registry_options *options)
{
	char text[IDENTITY_BYTES];
	int length = identity_text(options, text);
	int known = identity_read(registry->dir_fd, text, length);
	int err = 0;

	if (known < 0 && (known != -ENOENT || options->must_exist))
		return known;
	if (known == -ENOENT) {
		if (mkdirat(registry->dir_fd, "log", 0700) < 0 &&
		    errno != EEXIST)
			return -errno;
		err = unborn_log_clear(registry->dir_fd);
	} else if (faccessat(registry->dir_fd, "log", W_OK | X_OK, AT_EACCESS) <
		   0) {
		err = errno == ENOENT ? -PETAL_EDATALOSS : -errno;
	}
	if (err == 0)
		err = raft_prepare(registry, options);
	if (err < 0 || known == 0)
		return err;
	err = bootstrap(registry, options);
	if (err < 0)
		return err;
	return identity_write(registry->dir_fd, text, length);
}

static int raft_run(struct petal_registry *registry,
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

/* Opening: the loop and its thread. */

static int loop_open(struct petal_registry *registry,
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
	uv_prepare_init(&registry->loop, &registry->prepare);
	uv_prepare_start(&registry->prepare, watch);
	registry->async.data = registry;
	registry->prepare.data = registry;
	petal_registry_transport_init(&registry->transport, &registry->loop,
				      options);
	return 0;
}

/* After the thread, or without one: watch() closes what is open. */
static void loop_close(struct petal_registry *registry)
{
	registry->closing = true;
	uv_run(&registry->loop, UV_RUN_DEFAULT);
	if (registry->io_open)
		raft_uv_close(&registry->io);
	uv_loop_close(&registry->loop);
}

static void memory_free(struct petal_registry *registry)
{
	for (unsigned i = 0; i < PETAL_REGISTRY_INFLIGHT_MAX; i++)
		if (registry->requests[i].state == REQUEST_QUEUED)
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
	int err = dir_open(registry, options);

	if (err < 0)
		return err;
	registry->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (registry->event_fd < 0)
		return -errno;
	err = loop_open(registry, options);
	if (err < 0)
		return err;
	note_all_changed(registry);
	err = raft_begin(registry, options);
	if (err == 0)
		err = raft_run(registry, options);
	if (err == 0)
		err = -pthread_create(&registry->thread, NULL, thread_main,
				      registry);
	if (err < 0)
		loop_close(registry);
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

/* Tell the thread to close and wait until it has; false if it hangs. */
static bool thread_end(struct petal_registry *registry)
{
	struct timespec deadline =
		petal_clock_timespec(petal_clock_now_ns() + PETAL_S(CLOSE_S));
	bool ended;
	int err = 0;

	lock(registry);
	registry->closing = true;
	uv_async_send(&registry->async);
	while (!registry->ended && err == 0)
		err = pthread_cond_timedwait(&registry->ended_cond,
					     &registry->lock, &deadline);
	ended = registry->ended;
	unlock(registry);
	return ended;
}

void petal_registry_close(struct petal_registry *registry)
{
	if (registry == NULL)
		return;
	if (!thread_end(registry)) {
		/* It hangs in the disk and still uses its memory. */
		pthread_detach(registry->thread);
		return;
	}
	pthread_join(registry->thread, NULL);
	loop_close(registry);
	memory_free(registry);
}

/* Callers' threads. */

int petal_registry_fd(struct petal_registry *registry)
{
	return registry->event_fd;
}

static struct request *request_free_find(struct petal_registry *registry)
{
	for (unsigned i = 0; i < PETAL_REGISTRY_INFLIGHT_MAX; i++)
		if (registry->requests[i].state == REQUEST_FREE)
			return &registry->requests[i];
	return NULL;
}

/* Under the lock: queue an encoded command. */
static int request_queue(struct petal_registry *registry,
			 struct raft_buffer command, uint64_t cookie)
{
	struct request *request;

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
	request->state = REQUEST_QUEUED;
	fifo_push(&registry->queued, (unsigned)(request - registry->requests));
	return 0;
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

	lock(registry);
	err = request_queue(registry, buf, cookie);
	unlock(registry);
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

	lock(registry);
	err = entry_copy(petal_registry_fsm_find(&registry->fsm, key), value,
			 size, ret_length, ret_version);
	unlock(registry);
	return err;
}

/* Copy the next entry of the walk; false at its end. */
static bool entry_next(struct petal_registry *registry, const char *prefix,
		       const char *last, struct petal_registry_entry *ret_entry)
{
	const struct petal_registry_entry *entry;
	bool found = false;

	lock(registry);
	entry = petal_registry_fsm_after(&registry->fsm, last ? last : prefix,
					 last == NULL);
	if (entry != NULL && !strncmp(entry->key, prefix, strlen(prefix))) {
		memcpy(ret_entry, entry,
		       offsetof(struct petal_registry_entry, value) +
			       entry->length);
		found = true;
	}
	unlock(registry);
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

uint32_t petal_registry_leader(struct petal_registry *registry)
{
	uint32_t leader;

	lock(registry);
	leader = registry->leader;
	unlock(registry);
	return leader;
}

static void event_applied(struct petal_registry *registry,
			  struct petal_registry_event *event)
{
	struct request *request =
		&registry->requests[fifo_pop(&registry->done)];

	event->type = PETAL_REGISTRY_APPLIED;
	event->status = request->status;
	event->cookie = request->cookie;
	event->version = request->version;
	request->state = REQUEST_FREE;
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

int petal_registry_poll(struct petal_registry *registry,
			struct petal_registry_event *events, unsigned max)
{
	unsigned taken = 0;
	uint64_t drained;

	lock(registry);
	while (taken < max && event_take(registry, &events[taken]))
		taken++;
	/* Readable again only if something is left, or comes. */
	if (taken < max && registry->signalled) {
		registry->signalled = false;
		(void)!read(registry->event_fd, &drained, sizeof(drained));
	}
	unlock(registry);
	return (int)taken;
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
	lock(registry);
	ret_status->leader = registry->leader;
	ret_status->failed = registry->failed;
	ret_status->keys = registry->fsm.count;
	ret_status->revision = registry->fsm.revision;
	ret_status->applied = registry->fsm.applied;
	ret_status->conflicts = registry->fsm.conflicts;
	ret_status->snapshots_taken = registry->snapshots_taken;
	ret_status->snapshots_restored = registry->snapshots_restored;
	ret_status->changed_overflows = registry->changed_overflows;
	unlock(registry);
}
