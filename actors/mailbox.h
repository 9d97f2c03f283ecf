/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_ACTORS_MAILBOX_H
#define PETAL_ACTORS_MAILBOX_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "rings/doorbell.h"
#include "rings/mpsc.h"
#include "shm/atomic.h"

/**
 * DOC: mailbox - the ring from which one actor pulls
 *
 *    byte 0     64     128    192       256         mpsc header   data
 *    +----------+------+------+---------+-----------------+----------- --+
 *    | geometry | bell | room | actor's | rings/mpsc.h    | records      |
 *    | once     |      |      | attempt |                 |              |
 *    +----------+------+------+---------+-----------------+----------- --+
 *
 * Any number of senders, threads or processes of one trust domain, copy or
 * write messages in place; one actor reads them in place, one after the other,
 * in the order in which they were claimed. Those of one sender stay in order.
 *
 * A mailbox is memory of the caller's, most usefully in the body of a segment.
 * Whoever uses it has a number: 0 is the actor, senders are 1 and up, each
 * given out to one thread at a time by whoever made the mailbox.
 *
 * Always true: a message is seen whole or not at all, stays where it is from
 * take to release, and is taken again until it is released, by the next actor
 * if need be. Nothing grows: a full mailbox says -EAGAIN, and counts it.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion):
 *
 *                         send/claim/publish  take/release/wait  backlog
 *    send/claim/publish          - (1)               -              -
 *    take/release/wait             -                 X              -
 *    repair/fence                  -                 X              -
 *    (1) one thread per number, each with a view of its own
 *
 * Ordering: that of rings/mpsc.h for the messages, and of rings/doorbell.h for
 * sleeping. The bells are rung after the ring has changed. Our own:
 *    [BOX]    format stores the magic (release) -> attach loads it (acquire):
 *             a whole mailbox or none
 *    [MAIL]   publish and abort, or a claim that has to wait and may have left
 *             padding, then ring bell -> wait arms, then looks
 *    [SPACE]  release, then ring room -> claim arms, then tries again
 *
 * room is rung while the ring is at most half full, and else once in a quarter
 * of a lap, so that senders are not woken one release at a time. A claim takes
 * no more than half, what is left over before the end included.
 *
 * Crash: a sender that dies between claim and publish holds the actor up at its
 * record (PETAL_MAILBOX_HELD), and no other sender's publish; when its death is
 * proved, petal_mailbox_repair() makes it padding; one that lives and is too
 * slow is fenced. An actor that dies leaves
 * its message where it is; the next one that attaches as 0, after the proof of
 * that death, takes it again, and mail.redelivered says how often that was.
 *
 * Trust: one trust domain. A sender gone mad can spoil messages; what the actor
 * reads is bounded by its own private geometry.
 */

#define PETAL_MAILBOX_ACTOR 0u /* the number of who takes */
#define PETAL_MAILBOX_SENDERS_MAX (PETAL_MPSC_OWNERS_MAX - 1)

struct petal_mailbox_geometry {
	uint64_t data_bytes; /* a power of two, 4 KiB to 1 TiB */
	uint32_t senders;    /* 1 to PETAL_MAILBOX_SENDERS_MAX */
};

/* What lies in the memory before the ring. */
struct petal_mailbox_shared {
	/* Written once; the magic last. */
	struct petal_u64 magic;
	struct petal_u32 layout;
	struct petal_u32 senders;
	struct petal_u64 data_bytes;
	uint8_t reserved0[40];

	/* The actor sleeps here. */
	struct petal_doorbell bell;
	uint8_t reserved1[56];

	/* Senders that wait for room. */
	struct petal_doorbell room;
	struct petal_u64 refused; /* by senders: no room, by the deadline */
	uint8_t reserved2[48];

	/* By the actor: which message it tries, and how often that was so. */
	struct petal_u64 attempt_pos;
	struct petal_u64 attempts;
	struct petal_u64 taken; /* released messages, ever */
	uint8_t reserved3[40];
};

static_assert(__builtin_offsetof(struct petal_mailbox_shared, layout) == 8,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mailbox_shared, data_bytes) == 16,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mailbox_shared, bell) == 64,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mailbox_shared, room) == 128,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mailbox_shared, attempt_pos) ==
		      192,
	      "layout");
static_assert(sizeof(struct petal_mailbox_shared) == 256, "layout");

/* A message, in place. type and length are private copies, checked. */
struct petal_mail {
	const void *bytes; /* 16-byte aligned */
	uint32_t length;
	uint32_t type;        /* under PETAL_RECORD_TYPE_OURS */
	uint32_t sender;      /* its number */
	uint32_t redelivered; /* how often it was tried before */
	uint64_t pos;         /* grows from message to message */
};

/* One user's view; geometry copied at attach. */
struct petal_mailbox {
	struct petal_mailbox_shared *shared;
	struct petal_mpsc ring;
	/* The actor's only. */
	uint64_t pos; /* where the next message is looked for */
	uint64_t end; /* where the one that is taken ends; pos if none is */
	uint64_t rang_pos; /* when senders were last told of room */
	struct petal_mail mail;
};

struct petal_mailbox_claim {
	void *bytes; /* to be written, 16-byte aligned */
	struct petal_mpsc_claim ring;
};

/**
 * petal_mailbox_bytes() - memory for a mailbox
 *
 * A multiple of 128, so that one may follow another.
 */
uint64_t petal_mailbox_bytes(const struct petal_mailbox_geometry *geometry);

/**
 * petal_mailbox_format() - make an empty mailbox
 * @memory: petal_mailbox_bytes() of zeroed memory, 128-byte aligned
 *
 * Return: 0, or -EINVAL for a shape out of range.
 */
int petal_mailbox_format(void *memory,
			 const struct petal_mailbox_geometry *geometry);

/**
 * petal_mailbox_attach() - become one of its users
 * @bytes: how much of it is mapped
 * @number: PETAL_MAILBOX_ACTOR, or a sender's, up to the mailbox's senders
 *
 * The next actor may attach once the one before is proved dead, or has stopped
 * using its view; the next user of a sender's number once repair has passed.
 *
 * Return: 0; -EINVAL when it is no mailbox, or has no such number;
 * -PETAL_EVERSION; -PETAL_EGEOMETRY when it does not fit into @bytes;
 * -PETAL_ECORRUPT.
 */
int petal_mailbox_attach(void *memory, uint64_t bytes, uint32_t number,
			 struct petal_mailbox *ret_mailbox);

/* For senders, and for the actor to itself. */

/**
 * petal_mailbox_length_max() - the longest message
 */
uint32_t petal_mailbox_length_max(const struct petal_mailbox *mailbox);

/**
 * petal_mailbox_send() - copy a message in
 * @type: what the two sides agreed on, under PETAL_RECORD_TYPE_OURS
 * @deadline_ns: how long to wait for room, monotonic; 0 to not wait. The
 *	actor must not wait for itself
 *
 * Return: 0; -EAGAIN, counted, when there was no room; -EMSGSIZE; -EINVAL for
 * a type of ours; -ESTALE when we were fenced; -PETAL_ECORRUPT.
 */
int petal_mailbox_send(struct petal_mailbox *mailbox, uint32_t type,
		       const void *bytes, uint32_t length,
		       uint64_t deadline_ns);

/**
 * petal_mailbox_claim() - borrow room, to write a message in place
 *
 * Needs its publish or abort, and soon: the actor waits behind it.
 *
 * Return: as petal_mailbox_send(); -EBUSY when one is in hand already.
 */
int petal_mailbox_claim(struct petal_mailbox *mailbox, uint32_t type,
			uint32_t length, uint64_t deadline_ns,
			struct petal_mailbox_claim *ret_claim);

/**
 * petal_mailbox_publish() - hand a claimed message over
 *
 * Return: 0, or -ESTALE when we were fenced: it was not sent.
 */
int petal_mailbox_publish(struct petal_mailbox *mailbox,
			  const struct petal_mailbox_claim *claim);

/**
 * petal_mailbox_abort() - give claimed room back unsent
 */
int petal_mailbox_abort(struct petal_mailbox *mailbox,
			const struct petal_mailbox_claim *claim);

/* For the actor. */

enum petal_mailbox_outcome {
	PETAL_MAILBOX_EMPTY = 1,
	/* A sender has claimed the next message and not published it yet. */
	PETAL_MAILBOX_HELD = 2,
};

/**
 * petal_mailbox_take() - look at the oldest message, in place
 *
 * The same one again until petal_mailbox_release().
 *
 * Return: 0; PETAL_MAILBOX_EMPTY; PETAL_MAILBOX_HELD; -PETAL_ECORRUPT.
 */
int petal_mailbox_take(struct petal_mailbox *mailbox,
		       struct petal_mail *ret_mail);

/**
 * petal_mailbox_release() - be done with the message that is taken
 *
 * Its bytes become room for others. If none is taken, nothing happens.
 */
void petal_mailbox_release(struct petal_mailbox *mailbox);

/**
 * petal_mailbox_retry() - let the message that is taken be taken once more
 *
 * The next take counts as another try: redelivered is one more.
 */
void petal_mailbox_retry(struct petal_mailbox *mailbox);

/**
 * petal_mailbox_wait() - sleep until there is a message to take
 * @deadline_ns: monotonic; PETAL_CLOCK_NEVER for none
 *
 * Return: 0; at the deadline PETAL_MAILBOX_EMPTY or PETAL_MAILBOX_HELD; else
 * as petal_mailbox_take().
 */
int petal_mailbox_wait(struct petal_mailbox *mailbox, uint64_t deadline_ns);

/**
 * petal_mailbox_repair() - clear what senders proved dead left behind
 * @dead: bit map of their numbers
 *
 * Return: number of messages that will not come; -EAGAIN as
 * petal_mpsc_repair(): call again; -PETAL_ECORRUPT.
 */
int petal_mailbox_repair(struct petal_mailbox *mailbox,
			 const uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64]);

/**
 * petal_mailbox_fence() - take what holds us up from a sender that lives
 * @ret_sender: its number
 *
 * For when petal_mailbox_take() has said PETAL_MAILBOX_HELD for longer than
 * PETAL_MPSC_STALL_NS. The message will not come; its sender gets -ESTALE, and
 * until then nobody else gets its bytes.
 *
 * Return: 0; PETAL_MAILBOX_EMPTY when nothing holds us up (any more); -ENOSPC
 * when PETAL_MPSC_FENCES_MAX such senders have not been heard of since;
 * -EAGAIN as petal_mpsc_fence(): call again; -PETAL_ECORRUPT.
 */
int petal_mailbox_fence(struct petal_mailbox *mailbox, uint32_t *ret_sender);

/* For anybody. */

/**
 * petal_mailbox_backlog() - bytes in it, headers included
 */
uint64_t petal_mailbox_backlog(const struct petal_mailbox *mailbox);

/**
 * petal_mailbox_refused() - how often -EAGAIN was said, by all senders
 */
uint64_t petal_mailbox_refused(const struct petal_mailbox *mailbox);

/**
 * petal_mailbox_taken() - how many messages were taken and released, ever
 */
uint64_t petal_mailbox_taken(const struct petal_mailbox *mailbox);

#endif
