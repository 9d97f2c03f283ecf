/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/ring.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "actors/batch.h"
#include "fabric/txn.h"
#include "shm/clock.h"
#include "shm/error.h"

static_assert(PETAL_BATCH_MAX <= PETAL_TXN_ACKS_MAX &&
		      PETAL_OUTPUTS_MAX <= PETAL_TXN_PUTS_MAX,
	      "what a worker forwards at once is one TXN");

/* How long a waiter sleeps before it asks whether the node still lives. */
#define ALIVE_NS PETAL_MS(10)
/* How long to wait before all nodes are asked again, at first and at last. */
#define FIND_NS PETAL_MS(1)
#define FIND_MAX_NS PETAL_MS(20)

static int mapped(struct petal_ring *ring, json_t *answer, int segment_fd)
{
	ring->owner =
		(uint32_t)json_integer_value(json_object_get(answer, "owner"));
	ring->session = (uint64_t)json_integer_value(
		json_object_get(answer, "session"));
	ring->loss_epoch = (uint32_t)json_integer_value(
		json_object_get(answer, "loss_epoch"));
	ring->loss_lsn = (uint64_t)json_integer_value(
		json_object_get(answer, "loss_lsn"));
	if (ring->owner == 0 || segment_fd < 0 || ring->bell_fd < 0 ||
	    ring->signal_fd < 0)
		return -PETAL_ECORRUPT;
	return petal_log_attach(segment_fd, ring->owner, &ring->log);
}

int petal_ring_open(struct petal_node *node, const char *name,
		    struct petal_ring *ret_ring)
{
	struct petal_ring ring = { .node = node };
	json_t *request, *answer;
	int fds[3];
	int err;

	request = json_pack("{s:s, s:s}", "op", "ring-open", "name", name);
	if (request == NULL)
		return -EINVAL;
	err = petal_node_request(node, request, fds, 3, &answer);
	json_decref(request);
	if (err < 0)
		return err;
	snprintf(ring.name, sizeof(ring.name), "%s", name);
	ring.bell_fd = fds[1];
	ring.signal_fd = fds[2];
	err = mapped(&ring, answer, fds[0]);
	json_decref(answer);
	for (unsigned i = 0; i < 3; i++) {
		if (fds[i] >= 0 && (i == 0 || err < 0))
			close(fds[i]);
	}
	if (err == 0)
		*ret_ring = ring;
	return err;
}

static int find_at(const char *dir, const char *name,
		   struct petal_node *ret_node, struct petal_ring *ret_ring)
{
	int err = petal_node_attach(dir, ret_node);

	if (err < 0)
		return err;
	err = petal_ring_open(ret_node, name, ret_ring);
	if (err < 0)
		petal_node_detach(ret_node);
	return err;
}

/* What time may change: another primary, or a node that starts. */
static bool may_change(int err)
{
	switch (err) {
	case -EINVAL:
	case -EUSERS:
	case -EACCES:
	case -PETAL_EVERSION:
		return false;
	default:
		return true;
	}
}

int petal_ring_find(const char *const *dirs, unsigned dir_count,
		    const char *name, uint64_t deadline_ns,
		    struct petal_node *ret_node, struct petal_ring *ret_ring)
{
	struct timespec pause = { .tv_nsec = (long)FIND_NS };
	int err;

	if (dir_count == 0)
		return -EINVAL;
	for (;;) {
		for (unsigned i = 0; i < dir_count; i++) {
			err = find_at(dirs[i], name, ret_node, ret_ring);
			if (err == 0)
				return 0;
			if (!may_change(err))
				return err;
		}
		if (petal_clock_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < (long)FIND_MAX_NS)
			pause.tv_nsec += pause.tv_nsec / 4;
	}
}

void petal_ring_close(struct petal_ring *ring)
{
	json_t *request = json_pack("{s:s, s:s, s:I}", "op", "ring-close",
				    "name", ring->name, "owner",
				    (json_int_t)ring->owner);
	json_t *answer;

	petal_log_close(&ring->log);
	close(ring->bell_fd);
	close(ring->signal_fd);
	/* If the node is gone, so is the number. */
	if (petal_node_request(ring->node, request, NULL, 0, &answer) == 0)
		json_decref(answer);
	json_decref(request);
}

int petal_ring_queue(const struct petal_ring *ring, const char *name)
{
	for (unsigned i = 0; i < ring->log.geometry.queue_count; i++) {
		if (strcmp(ring->log.queues[i].name, name) == 0)
			return (int)i + 1;
	}
	return -ENOENT;
}

/* The node's socket ends with it. A late answer may lie before the end. */
static bool node_is_gone(const struct petal_ring *ring)
{
	struct pollfd node = { .fd = ring->node->fd };

	return poll(&node, 1, 0) == 1;
}

static int state_of(const struct petal_ring *ring)
{
	return atomic_load_explicit(&ring->log.marks->state,
				    memory_order_relaxed) == PETAL_LOG_OPEN
		       ? 0
		       : -PETAL_EUNKNOWN;
}

/*
 * Sleep on a bell that was armed, and find out why nothing comes. The caller
 * has checked its condition after arming.
 */
static int sleep_on(const struct petal_ring *ring, struct petal_doorbell *bell,
		    uint32_t seen, uint64_t deadline_ns)
{
	uint64_t now_ns = petal_clock_now_ns();
	uint64_t until_ns = now_ns + ALIVE_NS;
	int err = state_of(ring);

	if (err < 0)
		return err;
	if (now_ns >= deadline_ns)
		return -ETIMEDOUT;
	if (until_ns > deadline_ns)
		until_ns = deadline_ns;
	if (petal_doorbell_wait(bell, seen, until_ns) == 1 &&
	    node_is_gone(ring))
		return -PETAL_EUNKNOWN;
	return 0;
}

static void wake_node(const struct petal_ring *ring)
{
	petal_doorbell_ring_fd(&ring->log.marks->node_bell, ring->bell_fd);
}

/* Publishing. */

uint32_t petal_ring_length_max(const struct petal_ring *ring)
{
	uint64_t most =
		ring->log.geometry.data_bytes / 4 - PETAL_RECORD_ENVELOPE_BYTES;

	return most > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)most;
}

static uint64_t accepted_sequence(const struct petal_ring *ring)
{
	/* [OUTCOME] The outcomes up to it can be read. */
	return atomic_load_explicit(
		&ring->log.owners[ring->owner].accepted_sequence,
		memory_order_acquire);
}

/*
 * How full the ring may be for a record. New work stops at three eighths, so
 * that work in progress can be finished. The rest is kept for whoever holds the
 * oldest message, which alone can free the head: one record may need a quarter
 * of the ring, and as much again to pass its end. Without that a full ring could
 * never be emptied.
 */
static uint64_t share_of(const struct petal_ring *ring,
			 const struct petal_message *inputs,
			 unsigned input_count)
{
	uint64_t whole = ring->log.geometry.data_bytes;
	uint64_t trim_pos = atomic_load_explicit(&ring->log.marks->trim_pos,
						 memory_order_relaxed);

	for (unsigned i = 0; i < input_count; i++) {
		if (inputs[i].pos == trim_pos)
			return whole;
	}
	return input_count == 0 ? whole / 8 * 3 : whole / 16 * 7;
}

/*
 * An acknowledgement that would be refused is not written: it would take room
 * that nobody gives back. Nor is one waited for: the message went to somebody
 * else, and it may be the oldest.
 */
static int check_leases(struct petal_ring *ring,
			const struct petal_message *inputs,
			unsigned input_count)
{
	int err = 0;

	for (unsigned i = 0; i < input_count && err == 0; i++) {
		struct petal_queue_lease lease = { inputs[i].ordinal,
						   inputs[i].lease };

		if (inputs[i].queue == 0 ||
		    inputs[i].queue > ring->log.geometry.queue_count)
			return -EINVAL;
		err = petal_queue_check(&ring->log.queues[inputs[i].queue - 1],
					&lease);
	}
	return err;
}

static int claim(struct petal_ring *ring, uint32_t length, uint64_t share,
		 struct petal_mpsc_claim *claim)
{
	int err = state_of(ring);

	if (err < 0)
		return err;
	if (ring->claimed)
		return -EBUSY;
	if (length > petal_ring_length_max(ring))
		return -EMSGSIZE;
	if (ring->sequence - accepted_sequence(ring) >= PETAL_LOG_WINDOW ||
	    petal_mpsc_used(&ring->log.ring) + length > share)
		return -EAGAIN;
	return petal_mpsc_claim(&ring->log.ring,
				length + PETAL_RECORD_ENVELOPE_BYTES, claim);
}

static uint8_t *payload_of(const struct petal_mpsc_claim *claim)
{
	return (uint8_t *)claim->record + PETAL_RECORD_DURABLE_BYTES;
}

/* Fill in what a producer knows, hand the record over, wake the node. */
static int publish(struct petal_ring *ring,
		   const struct petal_mpsc_claim *claim, uint32_t type,
		   uint32_t queue, uint32_t length,
		   struct petal_ring_ticket *ret_ticket)
{
	struct petal_record_durable *record = (void *)claim->record;
	int err;

	record->record.type = type;
	record->queue = queue;
	record->session = ring->session;
	record->sequence = ring->sequence + 1;
	record->flags = 0;
	record->payload_crc = petal_record_payload_crc(
		record, length + PETAL_RECORD_ENVELOPE_BYTES);
	err = petal_mpsc_publish(&ring->log.ring, claim);
	if (err < 0)
		return err;
	ring->sequence++;
	ret_ticket->sequence = ring->sequence;
	ret_ticket->end_pos = claim->end;
	wake_node(ring);
	return 0;
}

int petal_ring_outcome(struct petal_ring *ring, uint64_t sequence,
		       uint64_t *ret_lsn)
{
	uint64_t accepted = accepted_sequence(ring);
	int64_t lsn;

	if (sequence > accepted)
		return 1;
	if (accepted - sequence >= PETAL_LOG_WINDOW)
		return -ENODATA;
	lsn = atomic_load_explicit(
		&ring->log.owners[ring->owner]
			 .outcomes[sequence % PETAL_LOG_WINDOW]
			 .lsn,
		memory_order_relaxed);
	/* Another record of ours may have taken the place meanwhile. */
	if (accepted_sequence(ring) - sequence >= PETAL_LOG_WINDOW)
		return -ENODATA;
	if (lsn < 0)
		return lsn < INT_MIN ? -PETAL_ECORRUPT : (int)lsn;
	*ret_lsn = (uint64_t)lsn;
	return 0;
}

/* 0 with the lsn when the level is reached, 1 when not yet, or a refusal. */
static int reached(struct petal_ring *ring,
		   const struct petal_ring_ticket *ticket,
		   enum petal_level level, uint64_t *lsn)
{
	/* [MARK] Whoever sees the mark sees the outcome. */
	uint64_t mark = atomic_load_explicit(&ring->log.marks->level_pos[level],
					     memory_order_acquire);
	int outcome = petal_ring_outcome(ring, ticket->sequence, lsn);

	if (outcome != 0)
		return outcome;
	return mark >= ticket->end_pos ? 0 : 1;
}

static struct petal_doorbell *own_bell(const struct petal_ring *ring)
{
	return &ring->log.owners[ring->owner].bell;
}

/* First what for, then that we sleep: see [WAKE] in fabric/log.h. */
static uint32_t arm_for(const struct petal_ring *ring, uint64_t pos,
			enum petal_level level)
{
	atomic_store_explicit(&ring->log.owners[ring->owner].wait,
			      petal_log_wait(pos, level), memory_order_relaxed);
	return petal_doorbell_arm(own_bell(ring));
}

int petal_ring_wait(struct petal_ring *ring,
		    const struct petal_ring_ticket *ticket,
		    enum petal_level level, uint64_t deadline_ns,
		    uint64_t *ret_lsn)
{
	uint64_t lsn = 0;
	uint32_t seen;
	int err;

	if ((unsigned)level >= PETAL_LEVEL_COUNT)
		return -EINVAL;
	err = level == PETAL_LEVEL_NONE ? 0
					: reached(ring, ticket, level, &lsn);
	while (err == 1) {
		seen = arm_for(ring, ticket->end_pos, level);
		err = reached(ring, ticket, level, &lsn);
		if (err != 1)
			break;
		err = sleep_on(ring, own_bell(ring), seen, deadline_ns);
		if (err == 0)
			err = reached(ring, ticket, level, &lsn);
	}
	if (err == 0 && ret_lsn != NULL)
		*ret_lsn = lsn;
	return err;
}

static int wait_pos(struct petal_ring *ring, uint64_t pos,
		    enum petal_level level, uint64_t deadline_ns)
{
	_Atomic uint64_t *mark = &ring->log.marks->level_pos[level];
	uint32_t seen;
	int err = 0;

	while (err == 0 &&
	       atomic_load_explicit(mark, memory_order_relaxed) < pos) {
		seen = arm_for(ring, pos, level);
		if (atomic_load_explicit(mark, memory_order_relaxed) >= pos)
			break;
		err = sleep_on(ring, own_bell(ring), seen, deadline_ns);
	}
	return err;
}

static uint64_t number_of(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

int petal_producer_outcome(struct petal_ring *ring, uint64_t session,
			   uint64_t sequence, enum petal_level level,
			   uint64_t deadline_ns, uint64_t *ret_lsn)
{
	json_t *request, *answer;
	uint64_t lsn, pos;
	bool decided;
	int err;

	if ((unsigned)level >= PETAL_LEVEL_COUNT || session > INT64_MAX ||
	    sequence > INT64_MAX)
		return -EINVAL;
	request = json_pack("{s:s, s:s, s:I, s:I}", "op", "outcome", "name",
			    ring->name, "session", (json_int_t)session,
			    "sequence", (json_int_t)sequence);
	err = petal_node_request(ring->node, request, NULL, 0, &answer);
	json_decref(request);
	if (err == -EPIPE)
		return -PETAL_EUNKNOWN;
	if (err < 0)
		return err;
	decided = json_is_true(json_object_get(answer, "decided"));
	lsn = number_of(answer, "lsn");
	pos = number_of(answer, "pos");
	json_decref(answer);
	if (!decided)
		return 1;
	/* It is in the log that we have; at its level when all of that is. */
	if (level != PETAL_LEVEL_NONE)
		err = wait_pos(ring, pos, level, deadline_ns);
	if (err == 0 && ret_lsn != NULL)
		*ret_lsn = lsn;
	return err;
}

static int claim_for(struct petal_ring *ring, uint32_t length,
		     const struct petal_message *inputs, unsigned input_count,
		     struct petal_mpsc_claim *room)
{
	int err = check_leases(ring, inputs, input_count);

	if (err < 0)
		return err;
	return claim(ring, length, share_of(ring, inputs, input_count), room);
}

/* Claim, and wait for room if there is none. */
static int claim_until(struct petal_ring *ring, uint32_t length,
		       const struct petal_message *inputs, unsigned input_count,
		       uint64_t deadline_ns, struct petal_mpsc_claim *room)
{
	struct petal_doorbell *bell = &ring->log.marks->bell;
	uint32_t seen;
	int err;

	err = claim_for(ring, length, inputs, input_count, room);
	while (err == -EAGAIN && deadline_ns != 0) {
		seen = petal_doorbell_arm(bell);
		err = claim_for(ring, length, inputs, input_count, room);
		if (err != -EAGAIN)
			break;
		err = sleep_on(ring, bell, seen, deadline_ns);
		err = err == 0 ? -EAGAIN : err;
	}
	return err == -ETIMEDOUT ? -EAGAIN : err;
}

int petal_ring_claim(struct petal_ring *ring, uint32_t queue, uint32_t length,
		     uint64_t deadline_ns, struct petal_ring_claim *ret_claim)
{
	struct petal_ring_claim claim = { .length = length, .queue = queue };
	int err;

	if (queue > ring->log.geometry.queue_count)
		return -EINVAL;
	err = claim_until(ring, length, NULL, 0, deadline_ns, &claim.room);
	if (err < 0)
		return err;
	claim.payload = payload_of(&claim.room);
	ring->claimed = true;
	*ret_claim = claim;
	return 0;
}

int petal_ring_commit(struct petal_ring *ring,
		      const struct petal_ring_claim *claim,
		      struct petal_ring_ticket *ret_ticket)
{
	ring->claimed = false;
	return publish(ring, &claim->room, 0, claim->queue, claim->length,
		       ret_ticket);
}

void petal_ring_abort(struct petal_ring *ring,
		      const struct petal_ring_claim *claim)
{
	ring->claimed = false;
	/* Of one that was taken from us, nothing is left to give up. */
	petal_mpsc_abort(&ring->log.ring, &claim->room);
	wake_node(ring);
}

int petal_ring_publish_until(struct petal_ring *ring, uint32_t queue,
			     const void *bytes, uint32_t length,
			     uint64_t deadline_ns,
			     struct petal_ring_ticket *ret_ticket)
{
	struct petal_ring_claim claim;
	int err;

	err = petal_ring_claim(ring, queue, length, deadline_ns, &claim);
	if (err < 0)
		return err;
	memcpy(claim.payload, bytes, length);
	return petal_ring_commit(ring, &claim, ret_ticket);
}

int petal_ring_publish(struct petal_ring *ring, uint32_t queue,
		       const void *bytes, uint32_t length,
		       struct petal_ring_ticket *ret_ticket)
{
	return petal_ring_publish_until(ring, queue, bytes, length, 0,
					ret_ticket);
}

int petal_ring_send(struct petal_ring *ring, uint32_t queue, const void *bytes,
		    uint32_t length, enum petal_level level,
		    uint64_t deadline_ns, uint64_t *ret_lsn)
{
	struct petal_ring_ticket ticket;
	int err;

	err = petal_ring_publish_until(ring, queue, bytes, length, deadline_ns,
				       &ticket);
	if (err < 0)
		return err;
	return petal_ring_wait(ring, &ticket, level, deadline_ns, ret_lsn);
}

int petal_ring_completion_fd(const struct petal_ring *ring)
{
	return ring->signal_fd;
}

void petal_ring_signal(struct petal_ring *ring,
		       const struct petal_ring_ticket *ticket,
		       enum petal_level level)
{
	struct petal_log_owner *line = &ring->log.owners[ring->owner];
	uint64_t one = 1;

	atomic_store_explicit(&line->signal_level, level, memory_order_relaxed);
	/* The node looks at the mark after it looked at this, or we do. */
	atomic_store_explicit(&line->signal_pos, ticket->end_pos,
			      memory_order_seq_cst);
	if (atomic_load_explicit(&ring->log.marks->level_pos[level],
				 memory_order_seq_cst) >= ticket->end_pos &&
	    write(ring->signal_fd, &one, sizeof(one)) < 0)
		return; /* it is readable already */
}

/* Pulling. */

static int message_of(struct petal_ring *ring, uint32_t queue,
		      const struct petal_queue_item *item,
		      const struct petal_queue_lease *lease,
		      uint32_t redelivered, struct petal_message *ret_message)
{
	uint64_t data_bytes = ring->log.geometry.data_bytes;
	uint64_t offset = item->pos & (data_bytes - 1);

	if ((uint64_t)item->offset + item->length > data_bytes - offset)
		return -PETAL_ECORRUPT;
	*ret_message = (struct petal_message){
		.bytes = ring->log.data + offset + item->offset,
		.length = item->length,
		.queue = queue,
		.lsn = item->lsn,
		.pos = item->pos,
		.index = item->index,
		.redelivered = redelivered,
		.ordinal = lease->ordinal,
		.lease = lease->word,
	};
	return 0;
}

static int take_now(struct petal_ring *ring, uint32_t queue,
		    struct petal_message *ret_message)
{
	struct petal_queue_lease lease;
	struct petal_queue_item item;
	uint32_t redelivered;
	int err;

	err = petal_queue_take(&ring->log.queues[queue - 1], ring->owner,
			       petal_clock_now_ns(), &item, &lease,
			       &redelivered);
	if (err != 0)
		return err;
	return message_of(ring, queue, &item, &lease, redelivered, ret_message);
}

int petal_ring_take(struct petal_ring *ring, uint32_t queue,
		    uint64_t deadline_ns, struct petal_message *ret_message)
{
	struct petal_doorbell *bell;
	uint32_t seen;
	int err;

	if (queue == 0 || queue > ring->log.geometry.queue_count)
		return -EINVAL;
	bell = petal_queue_bell(&ring->log.queues[queue - 1]);
	err = take_now(ring, queue, ret_message);
	while (err == 1 && deadline_ns != 0) {
		seen = petal_doorbell_arm(bell);
		err = take_now(ring, queue, ret_message);
		if (err != 1)
			break;
		err = sleep_on(ring, bell, seen, deadline_ns);
		if (err == -ETIMEDOUT)
			return 1;
		if (err == 0)
			err = take_now(ring, queue, ret_message);
	}
	return err;
}

int petal_ring_forward(struct petal_ring *ring,
		       const struct petal_message *inputs, unsigned input_count,
		       const struct petal_output *outputs,
		       unsigned output_count, enum petal_level level,
		       uint64_t deadline_ns)
{
	struct petal_ring_ticket ticket;
	struct petal_mpsc_claim room;
	uint32_t length;
	int err;

	err = petal_txn_bytes(input_count, outputs, output_count, &length);
	if (err == 0)
		err = claim_until(ring, length, inputs, input_count,
				  deadline_ns, &room);
	if (err < 0)
		return err;
	petal_txn_write(payload_of(&room), inputs, input_count, outputs,
			output_count);
	err = publish(ring, &room, PETAL_RECORD_TYPE_TXN, 0, length, &ticket);
	if (err < 0)
		return err;
	return petal_ring_wait(ring, &ticket, level, deadline_ns, NULL);
}

int petal_ring_release(struct petal_ring *ring,
		       const struct petal_message *message)
{
	struct petal_queue_lease lease = { message->ordinal, message->lease };

	if (message->queue == 0 ||
	    message->queue > ring->log.geometry.queue_count)
		return -EINVAL;
	return petal_queue_release(&ring->log.queues[message->queue - 1],
				   &lease);
}

int petal_ring_own(struct petal_ring *ring, uint32_t queue)
{
	if (queue == 0 || queue > ring->log.geometry.queue_count)
		return -EINVAL;
	return petal_queue_own(&ring->log.queues[queue - 1], ring->owner);
}

static bool drained(struct petal_ring *ring, uint32_t queue, uint64_t tail)
{
	struct petal_queue_counts counts;

	if (atomic_load_explicit(&ring->log.marks->dispatched_pos,
				 memory_order_relaxed) < tail)
		return false;
	petal_queue_counts(&ring->log.queues[queue - 1], &counts);
	return counts.done == counts.enqueued;
}

int petal_ring_drain(struct petal_ring *ring, uint32_t queue,
		     uint64_t deadline_ns)
{
	struct petal_doorbell *bell = &ring->log.marks->bell;
	uint64_t tail = petal_mpsc_tail(&ring->log.ring);
	uint32_t seen;
	int err = 0;

	if (queue == 0 || queue > ring->log.geometry.queue_count)
		return -EINVAL;
	while (err == 0 && !drained(ring, queue, tail)) {
		seen = petal_doorbell_arm(bell);
		if (drained(ring, queue, tail))
			break;
		err = sleep_on(ring, bell, seen, deadline_ns);
	}
	return err;
}

/* The port. */

static int port_take(void *self, uint32_t queue, uint64_t deadline_ns,
		     struct petal_message *ret_message)
{
	return petal_ring_take(self, queue, deadline_ns, ret_message);
}

static int port_forward(void *self, const struct petal_message *inputs,
			unsigned input_count,
			const struct petal_output *outputs,
			unsigned output_count, enum petal_level level,
			uint64_t deadline_ns)
{
	return petal_ring_forward(self, inputs, input_count, outputs,
				  output_count, level, deadline_ns);
}

static int port_release(void *self, const struct petal_message *message)
{
	return petal_ring_release(self, message);
}

static int port_own(void *self, uint32_t queue)
{
	return petal_ring_own(self, queue);
}

const struct petal_port petal_ring_port = {
	.take = port_take,
	.forward = port_forward,
	.release = port_release,
	.own = port_own,
};
