/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_RING_H
#define PETAL_FABRIC_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "actors/port.h"
#include "fabric/log.h"
#include "fabric/node.h"

/**
 * DOC: ring - a durable ring, as a process on its primary's host uses it
 *
 * The process claims, fills and publishes records in the ring's own memory,
 * and takes messages from it in place; petald is only woken. An
 * acknowledgement names its level: see enum petal_level.
 *
 *    petal_ring_claim()     room for a record, filled in place, ...
 *    petal_ring_commit()    ... handed over: a ticket
 *    petal_ring_publish()   both, of bytes that lie elsewhere
 *    petal_ring_send()      the same, and wait for a level
 *    petal_ring_wait()      wait for a ticket's level
 *    petal_ring_take()      lease a message, read it in place
 *    petal_ring_forward()   acknowledge it and put its outcome, in one record
 *
 * What the answers mean: 0, it survives what the level promises. A named
 * refusal (-ESTALE, -PETAL_EFENCED, -EINVAL, -PETAL_ECORRUPT): it never became
 * part of the ring. -ETIMEDOUT and -PETAL_EUNKNOWN: nobody can say yet; it may
 * still become part of it, and petal_ring_outcome() tells when it has.
 *
 * Threads: one at a time per struct petal_ring. Open it twice for two threads.
 *
 * Crash: of this process: claims become padding, leases return to the queue.
 * Of the node, or of its place as the primary: calls end with -PETAL_EUNKNOWN.
 * Then close the ring, petal_ring_find() it again, and ask
 * petal_producer_outcome() for each record whose end was not heard: what is not
 * in the ring now never will be, and may be sent again. Messages that were taken
 * and not acknowledged are handed out again, by the same lsn and index.
 */

struct petal_ring {
	struct petal_log log;
	struct petal_node *node;
	char name[32];
	int bell_fd;   /* wakes the node */
	int signal_fd; /* petal_ring_completion_fd() */
	uint32_t owner;
	uint64_t session;
	uint64_t sequence; /* of the last record published */
	/*
	 * In this epoch the ring was recovered from disks, the last time; 0:
	 * never. Records of older epochs from this lsn on may be gone, unless
	 * they were acknowledged at disk2 or disk3.
	 */
	uint32_t loss_epoch;
	uint64_t loss_lsn;
	bool claimed; /* petal_ring_claim() has not found its end */
};

/* A record that is being filled where it will stay. */
struct petal_ring_claim {
	void *payload; /* zeroes or old bytes, 64-byte aligned */
	uint32_t length;
	uint32_t queue;
	struct petal_mpsc_claim room;
};

/* A record that was published and whose outcome is awaited. */
struct petal_ring_ticket {
	uint64_t sequence;
	uint64_t end_pos;
};

/**
 * petal_ring_open() - map a ring and be given a producer's number
 *
 * Return: 0; -ENOENT; -PETAL_ENOTPRIMARY when another node is its primary
 * (node->error names it); -EUSERS when too many processes have it open;
 * -EAGAIN when the node has not set it up yet.
 */
int petal_ring_open(struct petal_node *node, const char *name,
		    struct petal_ring *ret_ring);

/**
 * petal_ring_find() - open a ring at whichever node of this host is its primary
 * @dirs: [petal] dir of each node of this host
 * @deadline_ns: monotonic; tried again until then
 * @ret_node: attached; to be detached after the ring is closed
 *
 * Return: 0; -ETIMEDOUT when none of them was by then; -EINVAL, -EUSERS,
 * -EACCES or -PETAL_EVERSION as they come.
 */
int petal_ring_find(const char *const *dirs, unsigned dir_count,
		    const char *name, uint64_t deadline_ns,
		    struct petal_node *ret_node, struct petal_ring *ret_ring);

/**
 * petal_ring_close() - give the number back; leases return to their queues
 */
void petal_ring_close(struct petal_ring *ring);

/**
 * petal_ring_queue() - the number of a queue
 *
 * Return: 1 and up, or -ENOENT.
 */
int petal_ring_queue(const struct petal_ring *ring, const char *name);

/**
 * petal_ring_claim() - borrow room for one record
 * @queue: a queue's number, or 0 for a record that no queue hands out
 * @length: at most petal_ring_length_max()
 * @deadline_ns: wait so long for room; 0 to look without waiting
 *
 * One at a time. What is claimed holds back what others publish after it: of a
 * process that dies it becomes padding at once, of one that stops by the end of
 * the node's stall_ms, with the epoch.
 *
 * Return: 0; -EAGAIN when the ring is full or the window is; -EMSGSIZE;
 * -EINVAL; -EBUSY while another claim of ours is open; -PETAL_EUNKNOWN when the
 * ring is closed or halted.
 */
int petal_ring_claim(struct petal_ring *ring, uint32_t queue, uint32_t length,
		     uint64_t deadline_ns, struct petal_ring_claim *ret_claim);

/**
 * petal_ring_commit() - publish what was claimed and filled
 *
 * Does not wait. The outcome is kept until PETAL_LOG_WINDOW further records of
 * ours have been accepted. The claim is of no use any more.
 *
 * Return: 0 with a ticket; -ESTALE when the ring went on without it.
 */
int petal_ring_commit(struct petal_ring *ring,
		      const struct petal_ring_claim *claim,
		      struct petal_ring_ticket *ret_ticket);

/**
 * petal_ring_abort() - give up what was claimed
 *
 * It never becomes part of the ring.
 */
void petal_ring_abort(struct petal_ring *ring,
		      const struct petal_ring_claim *claim);

/**
 * petal_ring_publish() - write one record into the ring
 * @queue: a queue's number, or 0 for a record that no queue hands out
 * @bytes: copied once, into the ring
 * @length: at most petal_ring_length_max()
 *
 * Does not wait.
 *
 * Return: 0 with a ticket, or as petal_ring_claim() and petal_ring_commit().
 */
int petal_ring_publish(struct petal_ring *ring, uint32_t queue,
		       const void *bytes, uint32_t length,
		       struct petal_ring_ticket *ret_ticket);

/**
 * petal_ring_publish_until() - publish, and wait for room if there is none
 * @deadline_ns: monotonic
 *
 * Return: as petal_ring_publish(); -EAGAIN at the deadline.
 */
int petal_ring_publish_until(struct petal_ring *ring, uint32_t queue,
			     const void *bytes, uint32_t length,
			     uint64_t deadline_ns,
			     struct petal_ring_ticket *ret_ticket);

/**
 * petal_ring_length_max() - the longest payload of one record
 */
uint32_t petal_ring_length_max(const struct petal_ring *ring);

/**
 * petal_ring_wait() - wait until a record has reached a level
 * @deadline_ns: monotonic; 0 to look without waiting
 * @ret_lsn: its position in the ring; may be NULL
 *
 * At level none there is nothing to wait for, and no lsn yet: 0 is written.
 *
 * Return: 0; a refusal; -ETIMEDOUT; -PETAL_EUNKNOWN; -ENODATA when asked so
 * late that the outcome is no longer kept.
 */
int petal_ring_wait(struct petal_ring *ring,
		    const struct petal_ring_ticket *ticket,
		    enum petal_level level, uint64_t deadline_ns,
		    uint64_t *ret_lsn);

/**
 * petal_ring_send() - publish and wait
 *
 * Also waits, until the deadline, for room in a full ring.
 *
 * Return: as petal_ring_publish() and petal_ring_wait().
 */
int petal_ring_send(struct petal_ring *ring, uint32_t queue, const void *bytes,
		    uint32_t length, enum petal_level level,
		    uint64_t deadline_ns, uint64_t *ret_lsn);

/**
 * petal_ring_completion_fd() - be told by epoll
 *
 * Return: an eventfd; petal_ring_signal() says what for.
 */
int petal_ring_completion_fd(const struct petal_ring *ring);

/**
 * petal_ring_signal() - make the completion fd readable when a ticket is there
 *
 * One ticket at a time; a later call replaces an earlier one. The fd may
 * already be readable when this returns, and becomes readable too when the
 * ring is closed or halts; petal_ring_wait() with deadline 0 says which. That
 * the node is gone shows on node->fd: watch both.
 */
void petal_ring_signal(struct petal_ring *ring,
		       const struct petal_ring_ticket *ticket,
		       enum petal_level level);

/**
 * petal_ring_outcome() - what became of a record, without waiting
 *
 * Return: 0 with its lsn; 1 when it is not decided; the refusal;
 * -ENODATA when it is longer ago than PETAL_LOG_WINDOW records.
 */
int petal_ring_outcome(struct petal_ring *ring, uint64_t sequence,
		       uint64_t *ret_lsn);

/**
 * petal_producer_outcome() - what became of a record of another opening
 * @ring: open now, perhaps at another node than then
 * @session: of that opening: its ring->session
 * @sequence: of the record: its ticket->sequence
 * @level: what the record shall have reached when 0 is returned
 * @ret_lsn: its lsn; 0 when it was done so long ago that it is kept no more; may
 *	be NULL
 *
 * Return: 0; -ENOENT when it is not in the ring and never will be; 1 when that
 * opening lives and it is not decided; -ENODATA when nobody knows: it was more
 * than 128 records before the last of its session, or PETAL_SESSIONS_MAX other
 * sessions wrote since; -ETIMEDOUT; -PETAL_EUNKNOWN.
 */
int petal_producer_outcome(struct petal_ring *ring, uint64_t session,
			   uint64_t sequence, enum petal_level level,
			   uint64_t deadline_ns, uint64_t *ret_lsn);

/**
 * petal_ring_take() - lease the oldest ready message of a queue
 * @deadline_ns: monotonic; 0 to look without waiting
 * @ret_message: bytes lie in the ring and are readable while the lease lasts
 *
 * Return: 0; 1 when none came; -EPERM when the queue has an owner;
 * -PETAL_ECORRUPT; -PETAL_EUNKNOWN when the ring is closed or halted.
 */
int petal_ring_take(struct petal_ring *ring, uint32_t queue,
		    uint64_t deadline_ns, struct petal_message *ret_message);

/**
 * petal_ring_forward() - acknowledge messages and put others, all or nothing
 * @inputs: leased by us
 * @outputs: may be none: a plain acknowledgement
 *
 * Return: 0; -ESTALE when a lease had ended: nothing was put; as
 * petal_ring_send() otherwise.
 */
int petal_ring_forward(struct petal_ring *ring,
		       const struct petal_message *inputs, unsigned input_count,
		       const struct petal_output *outputs,
		       unsigned output_count, enum petal_level level,
		       uint64_t deadline_ns);

/**
 * petal_ring_release() - give a message back, unfinished
 *
 * Return: 0, or -ESTALE.
 */
int petal_ring_release(struct petal_ring *ring,
		       const struct petal_message *message);

/**
 * petal_ring_own() - become the only taker of a queue, as a clerk is
 *
 * Return: 0, or -EBUSY.
 */
int petal_ring_own(struct petal_ring *ring, uint32_t queue);

/**
 * petal_ring_drain() - wait until every message put so far is acknowledged
 *
 * Return: 0; -ETIMEDOUT; -PETAL_EUNKNOWN.
 */
int petal_ring_drain(struct petal_ring *ring, uint32_t queue,
		     uint64_t deadline_ns);

/* The ring as actors/port.h sees it; self is a struct petal_ring. */
extern const struct petal_port petal_ring_port;

#endif
