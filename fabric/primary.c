/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The happy path is petal_primary_step(): accept, send, journal, mark,
 * dispatch, trim. What can go wrong on the way:
 *
 *    a producer dies with a claim         bury() repairs, accept goes on
 *    a record is refused                  padding in its place, an outcome
 *    a backup is away or slow             it is not sent to; levels wait, or
 *                                         release waits when it is attached
 *    the journal fails                    our disk stops counting, for good
 *    shared bytes make no sense           the ring halts, nothing is guessed
 */
#include "fabric/primary.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "fabric/txn.h"
#include "shm/clock.h"
#include "shm/error.h"

#define WRITES_MAX 4u
#define WRITE_BYTES_MAX (UINT64_C(256) << 10)
#define ORDER_NS PETAL_MS(50)
#define EXPIRE_IDLE_NS PETAL_MS(1000)
#define EXPIRE_LEAST_NS PETAL_MS(1) /* the shortest lease must not spin us */
#define BURY_NS PETAL_MS(1)

/* Records. */

/* A record that is refused keeps its place in the log, and nothing else. */
static void make_padding(struct petal_record_durable *record)
{
	record->record.type = PETAL_RECORD_TYPE_PADDING;
	record->queue = 0;
	record->session = 0;
	record->sequence = 0;
	record->payload_crc = 0;
	record->flags = 0;
}

/*
 * Settle every lease that a TXN acknowledges, or none. A lease is somebody
 * else's word to change only through us, the keeper, so what settled before a
 * refusal can be taken back unseen.
 */
static int settle(struct petal_primary *p, const struct petal_txn *txn,
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

static const uint8_t *payload_of(const struct petal_record_durable *record)
{
	return (const uint8_t *)record + PETAL_RECORD_DURABLE_BYTES;
}

static int judge_content(struct petal_primary *p,
			 const struct petal_mpsc_view *view)
{
	const struct petal_record_durable *record = (void *)view->record;
	struct petal_txn txn;
	int err;

	if (petal_record_payload_crc(record, view->length) !=
	    record->payload_crc)
		return -PETAL_ECORRUPT;
	if (view->type == PETAL_RECORD_TYPE_TXN) {
		err = petal_txn_check(payload_of(record),
				      view->length -
					      PETAL_RECORD_ENVELOPE_BYTES,
				      p->log->geometry.queue_count, &txn);
		return err < 0 ? err : settle(p, &txn, view->owner, view->end);
	}
	if (view->type >= PETAL_RECORD_TYPE_OURS)
		return view->owner == 0 ? 0 : -EINVAL;
	if (record->queue > p->log->geometry.queue_count)
		return -EINVAL;
	return 0;
}

static void tell(struct petal_primary *p, uint32_t owner, uint64_t sequence,
		 int64_t outcome)
{
	struct petal_log_owner *line = &p->log->owners[owner];

	atomic_store_explicit(&line->outcomes[sequence % PETAL_LOG_WINDOW].lsn,
			      outcome, memory_order_relaxed);
	/* [OUTCOME] The outcome is there before its sequence is. */
	atomic_store_explicit(&line->accepted_sequence, sequence,
			      memory_order_release);
}

/*
 * Whether a published record may enter the log: 0, or why not. A sequence that
 * does not follow the session's last one has no outcome slot of its own.
 */
static int judge(struct petal_primary *p, const struct petal_mpsc_view *view,
		 bool *ret_known)
{
	const struct petal_record_durable *record = (void *)view->record;
	struct petal_primary_owner *owner = &p->owners[view->owner];

	*ret_known = false;
	if (view->length < PETAL_RECORD_ENVELOPE_BYTES)
		return -PETAL_ECORRUPT;
	if (view->owner != 0) {
		if (!owner->attached || record->session != owner->session)
			return -PETAL_EFENCED;
		if (record->sequence != owner->sequence + 1)
			return -PETAL_ECONFLICT;
		owner->sequence++;
		*ret_known = true;
	}
	return judge_content(p, view);
}

/*
 * What lies between a payload and the next line is under no CRC of the record.
 * It is zero, so that a backup can tell when it has landed as well.
 */
static void clear_rest(struct petal_record_durable *record, uint32_t length)
{
	uint64_t used = PETAL_RECORD_HEADER_BYTES + (uint64_t)length;

	memset((uint8_t *)record + used, 0, petal_record_extent(length) - used);
}

/* Padding can be shorter than an envelope, and yet it needs one to travel. */
static uint32_t length_of(const struct petal_mpsc_view *view)
{
	return view->length < PETAL_RECORD_ENVELOPE_BYTES
		       ? PETAL_RECORD_ENVELOPE_BYTES
		       : view->length;
}

static void accept_one(struct petal_primary *p,
		       const struct petal_mpsc_view *view)
{
	struct petal_record_durable *record = (void *)view->record;
	bool known = false;
	int err = 0;

	if (view->type == PETAL_RECORD_TYPE_PADDING) {
		make_padding(record);
		p->counts.padding++;
	} else {
		err = judge(p, view, &known);
		if (err < 0) {
			make_padding(record);
			p->counts.refused++;
			p->counts.stale += err == -ESTALE;
			atomic_fetch_add_explicit(&p->log->marks->refused, 1,
						  memory_order_relaxed);
		}
	}
	record->record.length = length_of(view);
	clear_rest(record, length_of(view));
	petal_record_stamp(record, &p->accepted);
	p->counts.accepted++;
	if (known)
		tell(p, view->owner, p->owners[view->owner].sequence,
		     err < 0 ? err : (int64_t)p->accepted.lsn);
}

static void halt(struct petal_primary *p)
{
	p->halted = true;
	atomic_store_explicit(&p->log->marks->state, PETAL_LOG_HALTED,
			      memory_order_relaxed);
	petal_doorbell_ring(&p->log->marks->bell, INT_MAX);
}

/* Returns how many records were accepted, or -PETAL_ECORRUPT. */
static int accept_published(struct petal_primary *p)
{
	struct petal_mpsc_view view;
	unsigned count = 0;
	int outcome = 0;

	while (count < PETAL_PRIMARY_STEP_RECORDS) {
		outcome =
			petal_mpsc_peek(&p->log->ring, p->accepted.pos, &view);
		if (outcome != 0)
			break;
		if (view.owner >= PETAL_LOG_OWNERS)
			return -PETAL_ECORRUPT;
		accept_one(p, &view);
		count++;
	}
	return outcome < 0 ? outcome : (int)count;
}

/* Members. */

/* What goes out next: so many bytes, and where to go on after them. */
struct piece {
	uint64_t length;
	uint64_t next_pos;
	uint64_t part_end_pos;
};

/*
 * Whole records; or a part of one that is too long; or up to the header of a
 * padding. What a padding holds is nobody's, and no CRC would tell a backup
 * whether it has landed: so it does not land at all, neither under the backup's
 * journal nor with what a stopped producer may still write there.
 */
static struct piece piece_of(const struct petal_primary *p, uint64_t pos,
			     uint64_t end)
{
	struct piece piece = { .next_pos = pos };

	while (piece.next_pos < end && piece.length < WRITE_BYTES_MAX) {
		const struct petal_record_durable *record =
			(void *)petal_log_at(p->log, piece.next_pos);
		uint64_t extent = petal_record_extent(record->record.length);

		if (extent > end - piece.next_pos)
			extent = end - piece.next_pos;
		if (record->record.type == PETAL_RECORD_TYPE_PADDING) {
			piece.length += PETAL_RECORD_DURABLE_BYTES;
			piece.next_pos += extent;
			break;
		}
		if (piece.length + extent > WRITE_BYTES_MAX) {
			if (piece.length > 0)
				break;
			piece.part_end_pos = pos + extent;
			extent = WRITE_BYTES_MAX;
		}
		piece.length += extent;
		piece.next_pos += extent;
	}
	return piece;
}

static struct piece next_piece(const struct petal_primary *p,
			       const struct petal_primary_member *member)
{
	uint64_t pos = member->sent_pos;
	struct piece piece = { .part_end_pos = member->part_end_pos };

	if (member->part_end_pos <= pos)
		return piece_of(p, pos,
				pos + petal_log_run(p->log, pos,
						    p->accepted.pos));
	piece.length = member->part_end_pos - pos;
	if (piece.length > WRITE_BYTES_MAX)
		piece.length = WRITE_BYTES_MAX;
	piece.next_pos = pos + piece.length;
	return piece;
}

/*
 * A member's journal may still be reading what it had in memory when it came
 * back. We must not write over that, a lap later.
 */
static bool may_send(const struct petal_primary *p,
		     const struct petal_primary_member *member,
		     const struct piece *piece)
{
	return member->disk_failed ||
	       piece->next_pos <=
		       member->disk_pos + p->log->geometry.data_bytes;
}

static void send_to(struct petal_primary *p, unsigned i)
{
	struct petal_primary_member *member = &p->members[i];

	while (member->attached && member->writes < WRITES_MAX &&
	       member->sent_pos < p->accepted.pos) {
		struct piece piece = next_piece(p, member);

		if (!may_send(p, member, &piece) ||
		    p->port.write(p->port.self, i, member->sent_pos,
				  piece.length) < 0)
			return;
		member->sent_pos = piece.next_pos;
		member->part_end_pos = piece.part_end_pos;
		member->writes++;
		p->counts.writes++;
		p->counts.write_bytes += piece.length;
	}
}

static void send_all(struct petal_primary *p)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		if (i != p->self)
			send_to(p, i);
	}
}

void petal_primary_wrote(struct petal_primary *p, unsigned i, uint64_t end_pos)
{
	struct petal_primary_member *member = &p->members[i];

	if (member->writes > 0)
		member->writes--;
	/* The last one may have stopped short of a padding that is not sent. */
	if (member->writes == 0)
		member->wrote_pos = member->sent_pos;
	else if (end_pos > member->wrote_pos)
		member->wrote_pos = end_pos;
}

int petal_primary_acked(struct petal_primary *p, unsigned i)
{
	struct petal_primary_member *member = &p->members[i];
	struct petal_log_line line;
	uint64_t memory_pos, disk_pos;

	if (!member->attached || !petal_log_line_read(&p->log->acks[i], &line))
		return 0;
	memory_pos = line.words[0];
	disk_pos = line.words[1];
	/* It may be ahead of sent_pos: with what an earlier link left there. */
	if (memory_pos > p->accepted.pos || disk_pos > p->accepted.pos)
		return -PETAL_ECORRUPT;
	if (memory_pos > member->memory_pos)
		member->memory_pos = memory_pos;
	if (disk_pos > member->disk_pos)
		member->disk_pos = disk_pos;
	member->disk_failed = line.words[2] != 0;
	return 0;
}

/* Whether a log that ends like theirs is a prefix of what we retain. */
static bool is_prefix(const struct petal_primary *p,
		      const struct petal_record_cursor *theirs)
{
	struct petal_record_cursor at = p->head;

	if (theirs->epoch != p->accepted.epoch || theirs->lsn < at.lsn ||
	    theirs->pos < at.pos || theirs->pos > p->accepted.pos)
		return false;
	petal_log_walk(p->log, &at, theirs->pos);
	return at.pos == theirs->pos && at.lsn == theirs->lsn &&
	       at.crc == theirs->crc;
}

void petal_primary_join(struct petal_primary *p, unsigned i,
			const struct petal_record_cursor *theirs, bool voter,
			struct petal_record_cursor *ret_start)
{
	struct petal_record_cursor start = is_prefix(p, theirs) ? *theirs
								: p->head;

	p->members[i] = (struct petal_primary_member){
		.attached = true,
		.counted = voter,
		.sent_pos = start.pos,
		.wrote_pos = start.pos,
		.memory_pos = start.pos,
		.joined_pos = p->accepted.pos,
	};
	/* How far its disk is it has not said, and its memory says nothing. */
	petal_log_line_write(&p->log->acks[i],
			     &(struct petal_log_line){ { start.pos, 0, 0 } });
	p->ordered_trim_pos = 0;
	*ret_start = start;
}

void petal_primary_leave(struct petal_primary *p, unsigned i)
{
	p->members[i].attached = false;
	p->members[i].asked = false;
	p->members[i].writes = 0;
}

void petal_primary_admitted(struct petal_primary *p, unsigned i)
{
	p->members[i].counted = true;
}

/*
 * A member with a new incarnation has forgotten what it once acknowledged. It
 * may vote again when it holds everything that was accepted as it joined, and
 * so everything that was committed with its predecessor's vote.
 */
static void admit_learners(struct petal_primary *p)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		struct petal_primary_member *member = &p->members[i];

		if (!member->attached || member->counted || member->asked ||
		    member->memory_pos < member->joined_pos)
			continue;
		member->asked = true;
		p->port.admit(p->port.self, i);
	}
}

/* The journal. */

static void journal(struct petal_primary *p)
{
	struct petal_record_cursor to;
	int err;

	if (p->journal_busy || p->journal_frozen ||
	    p->journaled_to.pos == p->accepted.pos)
		return;
	to = petal_log_batch(p->log, &p->journaled_to, &p->accepted);
	err = p->port.journal(p->port.self, &p->journaled_to, &to, p->trim_pos);
	if (err == -EAGAIN || err == -EBUSY)
		return;
	/* It may have failed with another ring's batch. */
	if (err < 0) {
		p->journal_frozen = true;
		return;
	}
	p->journal_busy = true;
	p->journaled_to = to;
}

void petal_primary_journaled(struct petal_primary *p, uint64_t end_pos,
			     int status)
{
	p->journal_busy = false;
	if (status < 0)
		p->journal_frozen = true;
	else if (end_pos > p->disk_pos)
		p->disk_pos = end_pos;
}

/* Marks. */

static void sort3(uint64_t v[3])
{
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < 2; i++) {
			if (v[i] < v[i + 1]) {
				uint64_t swap = v[i];

				v[i] = v[i + 1];
				v[i + 1] = swap;
			}
		}
	}
}

/* A level never goes back, even where a member forgets. */
static bool raise_level(struct petal_primary *p, enum petal_level level,
			uint64_t pos)
{
	_Atomic uint64_t *mark = &p->log->marks->level_pos[level];

	if (pos <= atomic_load_explicit(mark, memory_order_relaxed))
		return false;
	/* [MARK] Outcomes up to here have been told. */
	atomic_store_explicit(mark, pos, memory_order_release);
	return true;
}

static void signal_owners(struct petal_primary *p)
{
	for (uint32_t i = 1; i < PETAL_LOG_OWNERS; i++) {
		struct petal_log_owner *line = &p->log->owners[i];
		uint64_t pos;
		uint32_t level;

		if (!p->owners[i].attached)
			continue;
		pos = atomic_load_explicit(&line->signal_pos,
					   memory_order_seq_cst);
		level = atomic_load_explicit(&line->signal_level,
					     memory_order_relaxed);
		if (pos == 0 || level >= PETAL_LEVEL_COUNT ||
		    atomic_load_explicit(&p->log->marks->level_pos[level],
					 memory_order_relaxed) < pos)
			continue;
		atomic_compare_exchange_strong_explicit(&line->signal_pos, &pos,
							0, memory_order_relaxed,
							memory_order_relaxed);
		p->port.signal(p->port.self, i);
	}
}

static void mark(struct petal_primary *p)
{
	uint64_t memory[PETAL_LOG_MEMBERS] = { 0 };
	uint64_t disk[PETAL_LOG_MEMBERS] = { 0 };
	bool moved;

	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		if (i == p->self) {
			memory[i] = p->accepted.pos;
			disk[i] = p->disk_pos;
		} else if (p->members[i].counted) {
			memory[i] = p->members[i].memory_pos;
			disk[i] = p->members[i].disk_pos;
		}
	}
	sort3(memory);
	sort3(disk);
	atomic_store_explicit(&p->log->marks->accepted_lsn, p->accepted.lsn,
			      memory_order_relaxed);
	moved = raise_level(p, PETAL_LEVEL_NONE, p->accepted.pos);
	moved |= raise_level(p, PETAL_LEVEL_LOCAL, p->accepted.pos);
	moved |= raise_level(p, PETAL_LEVEL_MEM2, memory[1]);
	moved |= raise_level(p, PETAL_LEVEL_MEM3, memory[2]);
	moved |= raise_level(p, PETAL_LEVEL_DISK2, disk[1]);
	moved |= raise_level(p, PETAL_LEVEL_DISK3, disk[2]);
	if (!moved)
		return;
	petal_doorbell_ring(&p->log->marks->bell, INT_MAX);
	signal_owners(p);
}

static uint64_t visible_pos(const struct petal_primary *p)
{
	return atomic_load_explicit(&p->log->marks->level_pos[PETAL_LEVEL_MEM2],
				    memory_order_relaxed);
}

/* Queues. */

/* What is settled may still lie in the table: it goes when there is need. */
static int put(struct petal_primary *p, uint32_t queue,
	       const struct petal_queue_item *item, unsigned *woken)
{
	struct petal_queue *table = &p->log->queues[queue - 1];
	int err = petal_queue_put(table, item);

	if (err == -EAGAIN) {
		petal_queue_collect(table, visible_pos(p));
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

	err = petal_txn_check(payload_of(record),
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
	if (view.end > visible_pos(p))
		return -EAGAIN;
	if (view.type == PETAL_RECORD_TYPE_TXN)
		err = dispatch_txn(p, &view, woken);
	else
		err = dispatch_data(p, &view, woken);
	if (err == 0)
		p->dispatched_pos = view.end;
	return err;
}

static int dispatch(struct petal_primary *p)
{
	unsigned woken[PETAL_LOG_QUEUES_MAX] = { 0 };
	int err = 0;

	while (err == 0 && p->dispatched_pos < visible_pos(p))
		err = dispatch_one(p, woken);
	atomic_store_explicit(&p->log->marks->dispatched_pos, p->dispatched_pos,
			      memory_order_relaxed);
	for (unsigned i = 0; i < p->log->geometry.queue_count; i++) {
		if (woken[i] > 0)
			petal_doorbell_ring(
				petal_queue_bell(&p->log->queues[i]), woken[i]);
	}
	return err == -EAGAIN ? 0 : err;
}

static void expire(struct petal_primary *p, uint64_t now_ns)
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

static void trim(struct petal_primary *p)
{
	uint64_t trim_pos = p->dispatched_pos;

	for (unsigned i = 0; i < p->log->geometry.queue_count; i++) {
		uint64_t low =
			petal_queue_collect(&p->log->queues[i], visible_pos(p));

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

static void release(struct petal_primary *p)
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

static void order(struct petal_primary *p, uint64_t now_ns)
{
	struct petal_log_line line = { { p->trim_pos, visible_pos(p), 0 } };

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

/* Owners. */

int petal_primary_attach(struct petal_primary *p, uint32_t owner,
			 uint64_t session)
{
	struct petal_log_owner *line = &p->log->owners[owner];

	if (p->owners[owner].attached)
		return -EBUSY;
	p->owners[owner] = (struct petal_primary_owner){
		.attached = true,
		.session = session,
	};
	atomic_store_explicit(&line->accepted_sequence, 0,
			      memory_order_relaxed);
	atomic_store_explicit(&line->signal_pos, 0, memory_order_relaxed);
	return 0;
}

void petal_primary_bury(struct petal_primary *p, uint32_t owner)
{
	if (!p->owners[owner].attached)
		return;
	p->owners[owner].dead = true;
	p->bury_ns = 0;
	p->owners[owner].dead_tail = petal_mpsc_tail(&p->log->ring);
}

static bool dead_owners(const struct petal_primary *p,
			uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64])
{
	bool any = false;

	memset(dead, 0, PETAL_MPSC_OWNERS_MAX / 8);
	for (unsigned i = 0; i < PETAL_LOG_OWNERS; i++) {
		if (p->owners[i].attached && p->owners[i].dead) {
			dead[i / 64] |= UINT64_C(1) << i % 64;
			any = true;
		}
	}
	return any;
}

/* What a dead owner published comes first; then its leases return. */
static void free_owner(struct petal_primary *p, uint32_t i)
{
	for (unsigned q = 0; q < p->log->geometry.queue_count; q++)
		petal_queue_reclaim(&p->log->queues[q], i);
	/* A wish that it left would be taken for its successor's. */
	atomic_store_explicit(&p->log->ring.intents[i].pos, PETAL_MPSC_NOWHERE,
			      memory_order_release);
	p->owners[i].attached = false;
	p->owners[i].dead = false;
}

static void free_buried(struct petal_primary *p)
{
	for (uint32_t i = 1; i < PETAL_LOG_OWNERS; i++) {
		if (p->owners[i].attached && p->owners[i].dead &&
		    p->accepted.pos >= p->owners[i].dead_tail)
			free_owner(p, i);
	}
}

/*
 * A living producer may be in the way, between its claim and its name, or with
 * a record that it has not published. It is waited for, without spinning.
 */
static int bury_dead(struct petal_primary *p, uint64_t now_ns)
{
	uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64];
	int count;

	if (now_ns < p->bury_ns || !dead_owners(p, dead))
		return 0;
	p->bury_ns = now_ns + BURY_NS;
	count = petal_mpsc_repair(&p->log->ring, p->accepted.pos, dead);
	if (count >= 0)
		p->counts.repaired += (unsigned)count;
	return count == -EBUSY || count >= 0 ? 0 : count;
}

/* All together. */

int petal_primary_step(struct petal_primary *p, uint64_t now_ns)
{
	int count;

	if (p->halted)
		return -PETAL_ECORRUPT;
	count = bury_dead(p, now_ns);
	if (count == 0)
		count = accept_published(p);
	if (count < 0) {
		halt(p);
		return count;
	}
	free_buried(p);
	send_all(p);
	journal(p);
	admit_learners(p);
	mark(p);
	expire(p, now_ns);
	if (dispatch(p) < 0) {
		halt(p);
		return -PETAL_ECORRUPT;
	}
	trim(p);
	release(p);
	order(p, now_ns);
	return count == (int)PETAL_PRIMARY_STEP_RECORDS;
}

uint64_t petal_primary_next_ns(const struct petal_primary *p)
{
	uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64];
	uint64_t next_ns = p->expire_ns;

	if (p->trim_pos != p->ordered_trim_pos && p->order_ns < next_ns)
		next_ns = p->order_ns;
	if (dead_owners(p, dead) && p->bury_ns < next_ns)
		next_ns = p->bury_ns;
	return next_ns;
}

int petal_primary_open(struct petal_primary *p, struct petal_log *log,
		       unsigned self, const struct petal_primary_port *port)
{
	struct petal_mpsc_claim claim;
	int err;

	memset(p, 0, sizeof(*p));
	p->log = log;
	p->port = *port;
	p->self = self;
	p->accepted.epoch = log->geometry.epoch;
	p->journaled_to = p->accepted;
	p->head = p->accepted;
	err = petal_mpsc_claim(&log->ring, PETAL_RECORD_ENVELOPE_BYTES, &claim);
	if (err < 0)
		return err;
	claim.record->type = PETAL_RECORD_TYPE_EPOCH_START;
	err = petal_mpsc_publish(&log->ring, &claim);
	atomic_store_explicit(&log->marks->state, PETAL_LOG_OPEN,
			      memory_order_relaxed);
	return err;
}
