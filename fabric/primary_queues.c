/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages and the room they take: leases settled by a TXN, visible records put
 * into the lease tables, leases ended at their deadline, and what is done with
 * trimmed and released. A full lease table holds up dispatch, a reader of our
 * memory holds up release; neither holds up what was accepted.
 */
#include "fabric/primary_private.h"

#include <errno.h>
#include <limits.h>

#include "fabric/txn.h"
#include "shm/clock.h"
#include "shm/error.h"

#define ORDER_NS PETAL_MS(50)
#define EXPIRE_IDLE_NS PETAL_MS(1000)
#define EXPIRE_LEAST_NS PETAL_MS(1) /* the shortest lease must not spin us */

/*
 * Settle every lease that a TXN acknowledges, or none. A lease is somebody
 * else's word to change only through us, the keeper, so what settled before a
 * refusal can be taken back unseen.
 */
int primary_settle(struct petal_primary *p, const struct petal_txn *txn,
		   uint32_t owner, uint64_t end_pos)
{
	struct petal_queue_lease lease;
	unsigned i;
	int err = 0;

	for (i = 0; i < txn->ack_count && err == 0; i++) {
		lease.ordinal = txn->acks[i].ordinal;
		lease.word = txn->acks[i].lease;
		if (petal_queue_lease_owner(&lease) != owner)
			err = -EPERM;
		else
			err = petal_queue_settle(
				&p->log->queues[txn->acks[i].queue - 1], &lease,
				end_pos);
	}
	if (err == 0)
		return 0;
	for (i--; i-- > 0;) {
		lease.ordinal = txn->acks[i].ordinal;
		lease.word = txn->acks[i].lease;
		petal_queue_unsettle(&p->log->queues[txn->acks[i].queue - 1],
				     &lease);
	}
	return err;
}

/* What is settled may still lie in the table: it goes when there is need. */
static int put(struct petal_primary *p, uint32_t queue,
	       const struct petal_queue_item *item, unsigned *woken)
{
	struct petal_queue *table = &p->log->queues[queue - 1];
	int err;

	if (primary_is_done(p, item->lsn, item->index))
		return 0;
	err = petal_queue_put(table, item);

	if (err == -EAGAIN) {
		petal_queue_collect(table, primary_visible_pos(p));
		err = petal_queue_put(table, item);
	}
	woken[queue - 1] += err == 0;
	return err;
}

static int dispatch_txn(struct petal_primary *p,
			const struct petal_mpsc_view *view, unsigned *woken)
{
	const struct petal_record_durable *record = (void *)view->record;
	struct petal_txn txn;
	int err;

	err = petal_txn_check(primary_payload(record),
			      view->length - PETAL_RECORD_ENVELOPE_BYTES,
			      p->log->geometry.queue_count, &txn);
	for (; err == 0 && p->dispatched_puts < txn.put_count;
	     p->dispatched_puts++) {
		unsigned i = p->dispatched_puts;
		struct petal_queue_item item = {
			.lsn = record->lsn,
			.pos = view->pos,
			.index = i,
			.offset =
				PETAL_RECORD_DURABLE_BYTES + txn.puts[i].offset,
			.length = txn.puts[i].length,
		};

		err = put(p, txn.puts[i].queue, &item, woken);
		if (err < 0)
			return err;
	}
	if (err == 0)
		p->dispatched_puts = 0;
	return err;
}

static int dispatch_data(struct petal_primary *p,
			 const struct petal_mpsc_view *view, unsigned *woken)
{
	const struct petal_record_durable *record = (void *)view->record;
	uint32_t queue = record->queue;
	struct petal_queue_item item = {
		.lsn = record->lsn,
		.pos = view->pos,
		.offset = PETAL_RECORD_DURABLE_BYTES,
		.length = view->length - PETAL_RECORD_ENVELOPE_BYTES,
	};

	if (queue == 0 || view->type >= PETAL_RECORD_TYPE_OURS)
		return 0;
	if (queue > p->log->geometry.queue_count)
		return -PETAL_ECORRUPT;
	return put(p, queue, &item, woken);
}

/* Returns 0, -EAGAIN when it has to wait, or -PETAL_ECORRUPT. */
static int dispatch_one(struct petal_primary *p, unsigned *woken)
{
	struct petal_mpsc_view view;
	int err;

	if (petal_mpsc_peek(&p->log->ring, p->dispatched_pos, &view) != 0 ||
	    view.length < PETAL_RECORD_ENVELOPE_BYTES)
		return -PETAL_ECORRUPT;
	/* A mark counts bytes; a record is visible when all of it is. */
	if (view.end > primary_visible_pos(p))
		return -EAGAIN;
	if (view.type == PETAL_RECORD_TYPE_TXN)
		err = dispatch_txn(p, &view, woken);
	else
		err = dispatch_data(p, &view, woken);
	if (err == 0)
		p->dispatched_pos = view.end;
	return err;
}

int primary_dispatch(struct petal_primary *p)
{
	unsigned woken[PETAL_LOG_QUEUES_MAX] = { 0 };
	int err = 0;

	while (err == 0 && p->dispatched_pos < primary_visible_pos(p))
		err = dispatch_one(p, woken);
	atomic_store_explicit(&p->log->marks->dispatched_pos, p->dispatched_pos,
			      memory_order_relaxed);
	if (p->dispatched_pos >= p->start_pos)
		petal_primary_close(p);
	for (unsigned i = 0; i < p->log->geometry.queue_count; i++) {
		if (woken[i] > 0)
			petal_doorbell_ring(
				petal_queue_bell(&p->log->queues[i]), woken[i]);
	}
	return err == -EAGAIN ? 0 : err;
}

void primary_expire(struct petal_primary *p, uint64_t now_ns)
{
	uint64_t next_ns = now_ns + EXPIRE_IDLE_NS;

	if (now_ns < p->expire_ns)
		return;
	for (unsigned i = 0; i < p->log->geometry.queue_count; i++) {
		struct petal_queue *queue = &p->log->queues[i];
		uint64_t queue_next_ns;

		petal_queue_expire(queue, now_ns, &queue_next_ns);
		/* A lease taken after this look ends no sooner than that. */
		if (queue_next_ns > now_ns + queue->lease_ns)
			queue_next_ns = now_ns + queue->lease_ns;
		if (queue_next_ns < next_ns)
			next_ns = queue_next_ns;
	}
	if (next_ns < now_ns + EXPIRE_LEAST_NS)
		next_ns = now_ns + EXPIRE_LEAST_NS;
	p->expire_ns = next_ns;
}

/* Space. */

void primary_trim(struct petal_primary *p)
{
	uint64_t trim_pos = p->dispatched_pos;

	for (unsigned i = 0; i < p->log->geometry.queue_count; i++) {
		uint64_t low = petal_queue_collect(&p->log->queues[i],
						   primary_visible_pos(p));

		if (low < trim_pos)
			trim_pos = low;
	}
	if (trim_pos <= p->trim_pos)
		return;
	p->trim_pos = trim_pos;
	atomic_store_explicit(&p->log->marks->trim_pos, trim_pos,
			      memory_order_relaxed);
}

/* How far nobody reads from our memory any more. */
static uint64_t releasable_pos(const struct petal_primary *p)
{
	uint64_t pos = p->trim_pos;

	if (!p->journal_frozen && p->disk_pos < pos)
		pos = p->disk_pos;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		const struct petal_primary_member *member = &p->members[i];

		if (i == p->self || !member->attached)
			continue;
		if (member->wrote_pos < pos)
			pos = member->wrote_pos;
		if (member->memory_pos < pos)
			pos = member->memory_pos;
		if (!member->disk_failed && member->disk_pos < pos)
			pos = member->disk_pos;
	}
	return pos;
}

void primary_release(struct petal_primary *p)
{
	uint64_t to_pos = releasable_pos(p);
	uint64_t least = p->log->geometry.data_bytes / 64;

	if (to_pos < p->head.pos + least)
		return;
	petal_log_walk(p->log, &p->head, to_pos);
	petal_mpsc_release(&p->log->ring, p->head.pos);
	/* Producers that found the ring full sleep there too. */
	petal_doorbell_ring(&p->log->marks->bell, INT_MAX);
}

void primary_order(struct petal_primary *p, uint64_t now_ns)
{
	struct petal_log_line line = { { p->trim_pos, primary_visible_pos(p),
					 0 } };

	if (p->trim_pos == p->ordered_trim_pos)
		return;
	if (now_ns < p->order_ns && p->trim_pos - p->ordered_trim_pos <
					    p->log->geometry.data_bytes / 32)
		return;
	petal_log_line_write(p->log->orders, &line);
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		if (p->members[i].attached)
			p->port.order(p->port.self, i);
	}
	p->ordered_trim_pos = p->trim_pos;
	p->order_ns = now_ns + ORDER_NS;
}
