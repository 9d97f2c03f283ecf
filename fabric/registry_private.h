/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: registry_private - what the registry's own files share, and nobody else
 *
 *    registry.c          the calls: open, close, cas, get, each, poll, status
 *    registry_store.c    the directory: its lock, the identity, an unborn log
 *    registry_queues.c   requests one way, events the other
 *    registry_thread.c   the loop: its thread, requests, leadership, stopping
 *    registry_raft.c     C-Raft: beginning it, its state machine, its disk
 *
 * What crosses between the threads, and what the lock is held for:
 *
 *    caller                          the loop's thread
 *    cas --- queued[] -- wake -----> request_next --> C-Raft
 *                                                       |
 *    poll <-- done[], event_fd <--- note_done <---------+ applied, or not
 *    poll <-- marks, event_fd <---- note_changed, _leader, _failed
 *    get <--- fsm <----------------- applied commands, restored snapshots
 *
 * Always true: a request is in one place, which its state names. FREE: it
 * waits for a cas; QUEUED: its slot is in queued; RAFT: C-Raft has it; DONE:
 * its slot is in done. So a queue with as many places as requests is never
 * full.
 *
 * Threads. The fields stand in three groups, by their owner:
 *
 *    fixed    written by petal_registry_open() before the thread starts, and
 *             then only read
 *    loop     of whoever runs the loop: petal_registry_open() until the thread
 *             starts, the thread until it ends, petal_registry_close() after
 *             it. uv_async_send() and transport.counters are for all threads.
 *    lock     read and written under the lock, except by open and by close
 *             while there is no thread
 *
 * The lock is held for memory, event_fd and uv_async_send() only: never while
 * C-Raft or the disk has something to do. It is never taken twice; what must
 * be called under it says so below.
 */
#ifndef PETAL_FABRIC_REGISTRY_PRIVATE_H
#define PETAL_FABRIC_REGISTRY_PRIVATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <raft.h>
#include <uv.h>

#include "fabric/registry.h"
#include "fabric/registry_fsm.h"
#include "fabric/registry_transport.h"

enum registry_request_state {
	REGISTRY_REQUEST_FREE,
	REGISTRY_REQUEST_QUEUED,
	REGISTRY_REQUEST_RAFT,
	REGISTRY_REQUEST_DONE,
};

/**
 * struct registry_request - one compare-and-swap on its way
 * @apply: C-Raft's, while it has the request
 * @registry: for C-Raft's callback
 * @command: encoded; freed by C-Raft once that has taken it
 * @state: where it is
 * @status: of the answer, once done
 * @cookie: the caller's
 * @version: of the answer, once done
 */
struct registry_request {
	struct raft_apply apply;
	struct petal_registry *registry;
	struct raft_buffer command;
	enum registry_request_state state;
	int status;
	uint64_t cookie;
	uint64_t version;
};

/** struct registry_fifo - slots of requests[], first in, first out */
struct registry_fifo {
	uint8_t slots[PETAL_REGISTRY_INFLIGHT_MAX];
	unsigned head;
	unsigned count;
};

struct petal_registry {
	/* Fixed. */
	uint32_t node;
	unsigned voter_count;
	int dir_fd;
	int event_fd;
	pthread_t thread;

	/* Loop: libuv's and C-Raft's own structures. */
	uv_loop_t loop;
	uv_async_t async;
	uv_prepare_t prepare;
	uv_timer_t patience; /* before we run for a leader that is missed */
	uint32_t missed;     /* by whom it is led, and who is missed */
	struct raft raft;
	struct raft_io io;
	struct raft_fsm raft_fsm;
	struct raft_barrier barrier;
	struct petal_registry_transport transport;
	/* C-Raft's own write to the log, behind the one that we put there. */
	int (*append)(struct raft_io *io, struct raft_io_append *req,
		      const struct raft_entry entries[], unsigned n,
		      raft_io_append_cb cb);
	/* And its own close, which may call back more than once. */
	void (*close)(struct raft_io *io, raft_io_close_cb cb);
	raft_io_close_cb close_cb;
	/* Its start, and what it makes of a message from another voter. */
	int (*start)(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
		     raft_io_recv_cb recv);
	raft_io_recv_cb recv;
	unsigned long long last_term; /* of the entry that was written last */

	/* Loop: what is open, and closes in the order raft, handles, io. */
	bool io_open;
	bool raft_open;
	bool raft_closing;
	bool handles_closing;

	/* Loop: the term whose barrier is under way, and the last one through. */
	bool barrier_pending;
	unsigned long long barrier_term;
	unsigned long long ready_term;

	/*
	 * Loop: from applying a command to calling back. A later C-Raft calls
	 * back later: so many may be under way.
	 */
	struct petal_registry_outcome outcomes[PETAL_REGISTRY_INFLIGHT_MAX];
	unsigned outcome_next;

	pthread_mutex_t lock;

	/* Lock: the end of the thread. */
	pthread_cond_t ended_cond;
	bool ended;
	bool closing;

	/* Lock: whose connection has ended; 0: nobody's. */
	uint32_t gone;

	/* Lock: requests. C-Raft's part of one is the loop's, in state RAFT. */
	struct registry_request requests[PETAL_REGISTRY_INFLIGHT_MAX];
	struct registry_fifo queued;
	struct registry_fifo done;

	/* Lock: what the next poll finds, and whether event_fd says so. */
	bool signalled;
	uint32_t leader;
	bool leader_changed;
	int failed;
	bool failed_changed;
	bool all_changed;
	unsigned changed_count;
	char changed[PETAL_REGISTRY_CHANGED_MAX][PETAL_REGISTRY_KEY_MAX + 1];

	/* Lock: the keys, and what is counted. */
	uint64_t changed_overflows;
	uint64_t snapshots_taken;
	uint64_t snapshots_restored;
	struct petal_registry_fsm fsm;
};

static inline void registry_lock(struct petal_registry *registry)
{
	pthread_mutex_lock(&registry->lock);
}

static inline void registry_unlock(struct petal_registry *registry)
{
	pthread_mutex_unlock(&registry->lock);
}

/* registry_store.c; @options has its voters in order of their ids. */

/* What registry_store_check() finds, beside an error: begin a log. */
#define REGISTRY_STORE_UNBORN 1

/* Make, open and lock the directory; the descriptor goes into dir_fd. */
int registry_store_open(struct petal_registry *registry,
			const struct petal_registry_options *options);

/*
 * Whose directory is it? 0: ours, and there is a log. REGISTRY_STORE_UNBORN:
 * nobody's yet, and log/ is empty. Else what is wrong with it.
 */
int registry_store_check(const struct petal_registry *registry,
			 const struct petal_registry_options *options);

/* A log was begun: write down whose it is. */
int registry_store_identify(const struct petal_registry *registry,
			    const struct petal_registry_options *options);

/* registry_raft.c */

/* If that voter leads, take its place as if it had asked us to. */
void registry_raft_succeed(struct petal_registry *registry, uint32_t leader);

/* registry_queues.c: under the lock, or before there is a thread. */

/* Queue an encoded command, ours to free if it is refused. */
int registry_request_put(struct petal_registry *registry,
			 struct raft_buffer command, uint64_t cookie);

/* The next request for C-Raft, or NULL. */
struct registry_request *registry_request_next(struct petal_registry *registry);

/* Say what happened, and make event_fd readable. */
void registry_note_changed(struct petal_registry *registry, const char *key);
void registry_note_all_changed(struct petal_registry *registry);
void registry_note_leader(struct petal_registry *registry, uint32_t leader);
void registry_note_failed(struct petal_registry *registry, int failed);
void registry_note_done(struct petal_registry *registry,
			struct registry_request *request, int status,
			uint64_t version);

/* Take up to @max events; event_fd stays readable if more are left. */
unsigned registry_events_take(struct petal_registry *registry,
			      struct petal_registry_event *events,
			      unsigned max);

/* registry_raft.c: by whoever owns the loop. */

/* C-Raft on the directory, its log begun if there was none. */
int registry_raft_begin(struct petal_registry *registry,
			const struct petal_registry_options *options);

/* Read the log and take part. */
int registry_raft_run(struct petal_registry *registry,
		      const struct petal_registry_options *options);

/* registry_thread.c */

/* Make the loop with its handles and the transport, for C-Raft to use. */
int registry_loop_open(struct petal_registry *registry,
		       const struct petal_registry_options *options);

/* After the thread, or without one: close what is open, in the caller. */
void registry_loop_close(struct petal_registry *registry);

/* Give the loop to a thread of its own. */
int registry_thread_start(struct petal_registry *registry);

/* Tell the thread to close and wait until it has; false if it hangs. */
bool registry_thread_end(struct petal_registry *registry);

#endif
