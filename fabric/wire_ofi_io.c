/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations and events of one link. The happy path of a write: it takes a
 * free operation of the link, whose address is the context, and is posted with
 * FI_DELIVERY_COMPLETE, without which tcp reports success for bytes that were
 * only copied to a socket (and, after the target closed the region, never
 * land). Its completion comes out of the link's queue in petal_wire_poll() and
 * becomes WROTE. The path of a message is the same with a buffer of ours; at
 * the other side a posted receive becomes MESSAGE, and is posted again at the
 * next poll.
 *
 * A push and a put have no operation, no completion, and no reply from the other
 * side: on tcp each of these is a system call or three, and the reply wakes us.
 *
 * What a link with a readable descriptor has is found by fi_trywait(), which
 * moves bytes like fi_cq_read() does, and arms the link again if there is no
 * completion: then nothing but bytes have come, or a push has gone.
 *
 * If anything fails, the link ends: on FI_EP_MSG there is no error that leaves
 * a connection in use. What the end overtook is reported before DOWN.
 */
#include "fabric/wire_ofi.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static_assert(PETAL_WIRE_WRITES_MAX <= 64 && PETAL_WIRE_SENDS_MAX <= 64 &&
		      WIRE_RECEIVES <= 64,
	      "one word has a bit for each operation");

/*
 * Operations.
 */

static struct wire_link *wire_up(const struct petal_wire *wire, uint32_t peer)
{
	struct wire_link *link = NULL;

	if (peer < PETAL_WIRE_PEER_MAX)
		link = wire->current[peer];
	return link != NULL && link->state == WIRE_UP ? link : NULL;
}

static void *link_buffer(struct wire_link *link, unsigned index)
{
	return link->buffers + (size_t)index * PETAL_WIRE_MESSAGE_MAX;
}

static void *link_desc(const struct wire_link *link)
{
	return link->buffers_mr ? fi_mr_desc(link->buffers_mr) : NULL;
}

void wire_receive_post(struct wire_link *link, unsigned index)
{
	struct iovec into = {
		.iov_base = link_buffer(link, index),
		.iov_len = PETAL_WIRE_MESSAGE_MAX,
	};
	void *desc = link_desc(link);
	struct fi_msg message = {
		.msg_iov = &into,
		.desc = &desc,
		.iov_count = 1,
		.context = &link->receives[index].context,
	};
	ssize_t err = fi_recvmsg(link->ep, &message, FI_COMPLETION);

	link->armed = false;
	if (err != 0)
		wire_link_end(link, (int)err);
}

static ssize_t send_post(struct wire_link *link, unsigned index,
			 uint32_t length)
{
	struct iovec source = {
		.iov_base = link_buffer(link, WIRE_RECEIVES + index),
		.iov_len = length,
	};
	void *desc = link_desc(link);
	struct fi_msg message = {
		.msg_iov = &source,
		.desc = &desc,
		.iov_count = 1,
		.context = &link->sends[index].context,
	};

	link->armed = false;
	return fi_sendmsg(link->ep, &message, FI_COMPLETION);
}

/* The caller will try again; petal_wire_arm() keeps it awake for that. */
static int link_refuse(struct wire_link *link, uint64_t *counter)
{
	link->starved = true;
	(*counter)++;
	return -EAGAIN;
}

static void link_relieve(struct wire_link *link)
{
	link->wire->relief |= link->starved;
	link->starved = false;
}

int petal_wire_send(struct petal_wire *wire, uint32_t peer, const void *bytes,
		    uint32_t length)
{
	struct wire_link *link = wire_up(wire, peer);
	uint64_t idle;
	unsigned index;
	ssize_t err;

	if (length == 0 || length > PETAL_WIRE_MESSAGE_MAX)
		return -EMSGSIZE;
	if (link == NULL)
		return -ENOTCONN;
	idle = ~link->sends_busy & wire_bits(PETAL_WIRE_SENDS_MAX);
	if (idle == 0)
		return link_refuse(link, &wire->counters.busy_sends);
	index = (unsigned)__builtin_ctzll(idle);
	memcpy(link_buffer(link, WIRE_RECEIVES + index), bytes, length);
	err = send_post(link, index, length);
	if (err == 0)
		link->sends_busy |= UINT64_C(1) << index;
	else if (err == -FI_EAGAIN)
		return link_refuse(link, &wire->counters.busy_sends);
	else
		wire_link_end(link, (int)err);
	return (int)err;
}

static int write_check(const struct petal_wire *wire,
		       const struct petal_wire_region *from, const void *local,
		       uint64_t length, const struct petal_wire_key *to,
		       uint64_t offset, bool notify, uint64_t data)
{
	uintptr_t start = (uintptr_t)local - (uintptr_t)from->base;

	if (length == 0 && !notify)
		return -EINVAL;
	if (start > from->bytes || length > from->bytes - start ||
	    offset > to->bytes || length > to->bytes - offset)
		return -EINVAL;
	if (length > wire->info->ep_attr->max_msg_size)
		return -EMSGSIZE;
	if (notify && data > wire->data_max)
		return -EOVERFLOW;
	return 0;
}

static ssize_t write_post(struct wire_link *link, struct wire_op *op,
			  const struct petal_wire_region *from,
			  const void *local, uint64_t length,
			  const struct petal_wire_key *to, uint64_t offset,
			  uint64_t flags, uint64_t data)
{
	struct iovec source = {
		.iov_base = (void *)(uintptr_t)local,
		.iov_len = length,
	};
	struct fi_rma_iov target = {
		.addr = to->base + offset,
		.len = length,
		.key = to->key,
	};
	void *desc = from->local ? fi_mr_desc(from->local) : NULL;
	struct fi_msg_rma message = {
		.msg_iov = &source,
		.desc = &desc,
		.iov_count = 1,
		.rma_iov = &target,
		.rma_iov_count = 1,
		.context = op ? &op->context : NULL,
		.data = data,
	};

	link->armed = false;
	return fi_writemsg(link->ep, &message, flags);
}

int petal_wire_write(struct petal_wire *wire, uint32_t peer,
		     struct petal_wire_region *from, const void *local,
		     uint64_t length, const struct petal_wire_key *to,
		     uint64_t offset, bool notify, uint64_t data,
		     uint64_t cookie)
{
	struct wire_link *link = wire_up(wire, peer);
	int check = write_check(wire, from, local, length, to, offset, notify,
				data);
	uint64_t idle;
	struct wire_op *op;
	ssize_t err;

	if (check != 0)
		return check;
	if (link == NULL)
		return -ENOTCONN;
	idle = ~link->writes_busy & wire_bits(PETAL_WIRE_WRITES_MAX);
	if (idle == 0)
		return link_refuse(link, &wire->counters.busy_writes);
	op = &link->writes[__builtin_ctzll(idle)];
	err = write_post(link, op, from, local, length, to, offset,
			 FI_DELIVERY_COMPLETE | FI_COMPLETION |
				 (notify ? FI_REMOTE_CQ_DATA : 0),
			 data);
	if (err == 0) {
		link->writes_busy |= UINT64_C(1) << op->index;
		op->cookie = cookie;
		op->order = link->orders++;
	} else if (err == -FI_EAGAIN) {
		return link_refuse(link, &wire->counters.busy_writes);
	} else {
		wire_link_end(link, (int)err);
	}
	return (int)err;
}

/* Without an operation of ours: only the provider can be short of room. */
static int link_posted(struct wire_link *link, ssize_t err)
{
	if (err == -FI_EAGAIN)
		link->wire->counters.busy_writes++;
	else if (err != 0)
		wire_link_end(link, (int)err);
	return (int)err;
}

int petal_wire_push(struct petal_wire *wire, uint32_t peer,
		    struct petal_wire_region *from, const void *local,
		    uint64_t length, const struct petal_wire_key *to,
		    uint64_t offset)
{
	struct wire_link *link = wire_up(wire, peer);
	int check =
		write_check(wire, from, local, length, to, offset, false, 0);

	if (check != 0)
		return check;
	if (link == NULL)
		return -ENOTCONN;
	return link_posted(
		link, write_post(link, NULL, from, local, length, to, offset,
				 wire->wakes ? 0 : FI_REMOTE_CQ_DATA, 0));
}

int petal_wire_put(struct petal_wire *wire, uint32_t peer, const void *bytes,
		   uint32_t length, const struct petal_wire_key *to,
		   uint64_t offset)
{
	struct wire_link *link = wire_up(wire, peer);
	ssize_t err;

	if (length == 0 || length > PETAL_WIRE_PUT_MAX || offset > to->bytes ||
	    length > to->bytes - offset)
		return -EINVAL;
	if (link == NULL)
		return -ENOTCONN;
	link->armed = false;
	if (wire->wakes)
		err = fi_inject_write(link->ep, bytes, length, 0,
				      to->base + offset, to->key);
	else
		err = fi_inject_writedata(link->ep, bytes, length, 0, 0,
					  to->base + offset, to->key);
	return link_posted(link, err);
}

/*
 * Events.
 */

static struct petal_wire_event *event_start(struct petal_wire_event *event,
					    enum petal_wire_event_type type,
					    const struct wire_link *link)
{
	memset(event, 0, sizeof(*event));
	event->type = type;
	event->peer = link->peer;
	return event;
}

static unsigned event_wrote(struct wire_link *link, const struct wire_op *op,
			    int status, struct petal_wire_event *event)
{
	uint64_t bit = UINT64_C(1) << op->index;

	if ((link->writes_busy & bit) == 0)
		return 0;
	link->writes_busy &= ~bit;
	link_relieve(link);
	event_start(event, PETAL_WIRE_WROTE, link);
	event->cookie = op->cookie;
	event->status = status;
	return 1;
}

static unsigned event_message(struct wire_link *link, const struct wire_op *op,
			      size_t length, struct petal_wire_event *event)
{
	link->lent |= UINT64_C(1) << op->index;
	if (length == 0 || length > PETAL_WIRE_MESSAGE_MAX)
		return 0;
	event_start(event, PETAL_WIRE_MESSAGE, link);
	event->bytes = link_buffer(link, op->index);
	event->length = (uint32_t)length;
	return 1;
}

static void link_sent(struct wire_link *link, const struct wire_op *op)
{
	link->sends_busy &= ~(UINT64_C(1) << op->index);
	link_relieve(link);
}

/* Is it one of ours? The tcp provider gives remote writes no context. */
static struct wire_op *link_op(const struct wire_link *link,
			       const void *context)
{
	uintptr_t at = (uintptr_t)context;

	if (at < (uintptr_t)link || at >= (uintptr_t)(link + 1))
		return NULL;
	return (struct wire_op *)at;
}

static unsigned link_completed(struct wire_link *link,
			       const struct fi_cq_data_entry *entry,
			       struct petal_wire_event *event)
{
	const struct wire_op *op = link_op(link, entry->op_context);

	if ((entry->flags & FI_REMOTE_CQ_DATA) != 0) {
		/* On verbs the notify used up a receive. */
		if (op != NULL && op->kind == WIRE_RECEIVE)
			link->lent |= UINT64_C(1) << op->index;
		event_start(event, PETAL_WIRE_LANDED, link);
		event->data = entry->data;
		return 1;
	}
	if (op == NULL)
		link->wire->counters.stray++;
	else if (op->kind == WIRE_WRITE)
		return event_wrote(link, op, 0, event);
	else if (op->kind == WIRE_RECEIVE)
		return event_message(link, op, entry->len, event);
	else
		link_sent(link, op);
	return 0;
}

static int link_status(int err)
{
	if (err == FI_ECANCELED || err == FI_ENOTCONN || err == EPIPE ||
	    err == FI_EIO || err == 0)
		return -ECONNRESET;
	return -err;
}

/*
 * A write that failed on its own account says so; one that was flushed by the
 * end of the link shares the link's status once that is known.
 */
static unsigned link_failed(struct wire_link *link,
			    struct petal_wire_event *event)
{
	struct fi_cq_err_entry entry = { 0 };
	const struct wire_op *op;

	if (fi_cq_readerr(link->cq, &entry, 0) <= 0)
		return 0;
	op = link_op(link, entry.op_context);
	wire_link_end(link, link_status(entry.err));
	if (op == NULL || op->kind == WIRE_RECEIVE)
		return 0;
	if (op->kind == WIRE_WRITE)
		return event_wrote(link, op,
				   entry.err == FI_ECANCELED ? -ECANCELED
							     : -entry.err,
				   event);
	link_sent(link, op);
	return 0;
}

/*
 * Take what the queue holds, at most WIRE_BATCH good completions; each becomes
 * at most one event. Failed ones are not counted, since each operation fails
 * at most once and the link ends with the first.
 */
static unsigned link_collect(struct wire_link *link,
			     struct petal_wire_event *events, unsigned max,
			     bool *ret_empty)
{
	struct fi_cq_data_entry entries[WIRE_BATCH];
	unsigned failures = 0;
	unsigned taken = 0;
	unsigned count = 0;

	link->armed = false;
	while (count < max && taken < WIRE_BATCH &&
	       failures < WIRE_BUFFERS + PETAL_WIRE_WRITES_MAX) {
		unsigned room = max - count;
		unsigned want = WIRE_BATCH - taken;
		ssize_t got = fi_cq_read(link->cq, entries,
					 room < want ? room : want);

		if (got == -FI_EAVAIL) {
			count += link_failed(link, &events[count]);
			failures++;
			continue;
		}
		if (got <= 0) {
			if (got != 0 && got != -FI_EAGAIN)
				wire_link_end(link, (int)got);
			*ret_empty = true;
			break;
		}
		for (ssize_t i = 0; i < got; i++)
			count += link_completed(link, &entries[i],
						&events[count]);
		taken += (unsigned)got;
	}
	return count;
}

static struct wire_op *link_oldest_write(struct wire_link *link)
{
	struct wire_op *oldest = NULL;

	for (unsigned i = 0; i < PETAL_WIRE_WRITES_MAX; i++) {
		struct wire_op *op = &link->writes[i];

		if ((link->writes_busy >> i & 1) != 0 &&
		    (oldest == NULL || op->order < oldest->order))
			oldest = op;
	}
	return oldest;
}

/* What the end overtook, oldest first; then DOWN; then the link is gone. */
static unsigned link_bury(struct wire_link *link,
			  struct petal_wire_event *events, unsigned max)
{
	struct wire_op *op;
	unsigned count = 0;

	while (count < max && (op = link_oldest_write(link)) != NULL)
		count += event_wrote(link, op, -ECANCELED, &events[count]);
	if (count == max &&
	    (link->writes_busy != 0 || link->was_up || link->announce))
		return count;
	if (link->was_up || link->announce)
		event_start(&events[count++], PETAL_WIRE_DOWN, link)->status =
			link->status;
	wire_link_retire(link);
	return count;
}

static unsigned link_rise(struct wire_link *link,
			  struct petal_wire_event *event)
{
	struct petal_wire *wire = link->wire;

	if (wire->current[link->peer] != NULL)
		return 0;
	wire->coming[link->peer] = NULL;
	wire->current[link->peer] = link;
	link->state = WIRE_UP;
	link->was_up = true;
	event_start(event, PETAL_WIRE_UP, link);
	return 1;
}

int wire_link_arm(struct wire_link *link)
{
	struct fid *fid = &link->cq->fid;
	int err;

	if (link->armed)
		return 0;
	err = fi_trywait(link->wire->fabric, &fid, 1);
	link->armed = err == 0;
	return err;
}

/* Nothing to collect: not asked of a link that is new, or that ends. */
static bool link_rests(struct wire_link *link)
{
	if (link->ready)
		link->armed = false;
	link->ready = false;
	return link->state == WIRE_UP && wire_link_arm(link) == 0;
}

unsigned wire_link_step(struct wire_link *link, struct petal_wire_event *events,
			unsigned max)
{
	bool empty = false;
	unsigned count = 0;

	if (link_rests(link))
		return 0;
	if (link->state == WIRE_READY)
		count += link_rise(link, events);
	if (count < max && (link->state == WIRE_UP || link->was_up))
		count +=
			link_collect(link, events + count, max - count, &empty);
	if (count < max && link->state == WIRE_ENDING &&
	    (empty || !link->was_up))
		count += link_bury(link, events + count, max - count);
	return count;
}

void wire_link_take_back(struct wire_link *link)
{
	while (link->lent != 0 && link->state == WIRE_UP) {
		unsigned index = (unsigned)__builtin_ctzll(link->lent);

		link->lent &= link->lent - 1;
		wire_receive_post(link, index);
	}
}
