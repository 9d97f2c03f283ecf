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
#include <string.h>

#include "fabric/primary_private.h"
#include "fabric/txn.h"
#include "shm/clock.h"
#include "shm/error.h"

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
		err = petal_txn_check(primary_payload(record),
				      view->length -
					      PETAL_RECORD_ENVELOPE_BYTES,
				      p->log->geometry.queue_count, &txn);
		return err < 0 ? err
			       : primary_settle(p, &txn, view->owner,
						view->end);
	}
	if (view->type >= PETAL_RECORD_TYPE_OURS)
		return view->owner == 0 ? 0 : -EINVAL;
	if (record->queue > p->log->geometry.queue_count)
		return -EINVAL;
	return 0;
}

/* A refusal is the end of a wait, at whatever level. */
static void tell(struct petal_primary *p, uint32_t owner, uint64_t sequence,
		 int64_t outcome)
{
	struct petal_log_owner *line = &p->log->owners[owner];

	atomic_store_explicit(&line->outcomes[sequence % PETAL_LOG_WINDOW].lsn,
			      outcome, memory_order_relaxed);
	/* [OUTCOME] The outcome is there before its sequence is. */
	atomic_store_explicit(&line->accepted_sequence, sequence,
			      memory_order_release);
	if (outcome < 0)
		petal_doorbell_ring(&line->bell, PETAL_DOORBELL_ALL);
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
	petal_sessions_note(&p->sessions, record->session, record->sequence,
			    p->accepted.lsn);
	p->counts.accepted++;
	if (known)
		tell(p, view->owner, p->owners[view->owner].sequence,
		     err < 0 ? err : (int64_t)p->accepted.lsn);
}

/* Nothing will come any more: all who wait look at the state. */
static void end(struct petal_primary *p, enum petal_log_state state)
{
	atomic_store_explicit(&p->log->marks->state, state,
			      memory_order_relaxed);
	petal_doorbell_ring(&p->log->marks->bell, PETAL_DOORBELL_ALL);
	for (uint32_t i = 1; i < PETAL_LOG_OWNERS; i++) {
		if (p->owners[i].attached)
			petal_doorbell_ring(&p->log->owners[i].bell,
					    PETAL_DOORBELL_ALL);
	}
}

static void halt(struct petal_primary *p)
{
	p->halted = true;
	end(p, PETAL_LOG_HALTED);
}

static void note_stall(struct petal_primary *p, bool pending, uint64_t now_ns)
{
	if (!pending) {
		p->stalled_ns = PETAL_CLOCK_NEVER;
	} else if (p->stalled_ns == PETAL_CLOCK_NEVER ||
		   p->stalled_pos != p->accepted.pos) {
		p->stalled_pos = p->accepted.pos;
		p->stalled_ns = now_ns;
	}
}

/* Returns how many records were accepted, or -PETAL_ECORRUPT. */
static int accept_published(struct petal_primary *p, uint64_t now_ns)
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
	note_stall(p, outcome == PETAL_RING_PENDING, now_ns);
	return outcome < 0 ? outcome : (int)count;
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

	/* I7: what older epochs left counts when our EPOCH_START does. */
	if (pos < p->start_pos ||
	    pos <= atomic_load_explicit(mark, memory_order_relaxed))
		return false;
	/* [MARK] Outcomes up to here have been told. */
	atomic_store_explicit(mark, pos, memory_order_release);
	return true;
}

static void signal_owner(struct petal_primary *p, uint32_t i)
{
	struct petal_log_owner *line = &p->log->owners[i];
	uint64_t pos =
		atomic_load_explicit(&line->signal_pos, memory_order_seq_cst);
	uint32_t level =
		atomic_load_explicit(&line->signal_level, memory_order_relaxed);

	if (pos == 0 || level >= PETAL_LEVEL_COUNT ||
	    atomic_load_explicit(&p->log->marks->level_pos[level],
				 memory_order_relaxed) < pos)
		return;
	atomic_compare_exchange_strong_explicit(&line->signal_pos, &pos, 0,
						memory_order_relaxed,
						memory_order_relaxed);
	p->port.signal(p->port.self, i);
}

/*
 * Who has what it waits for, and nobody else: to be woken for each level that is
 * on the way costs two processes a switch.
 */
static void tell_owners(struct petal_primary *p)
{
	for (uint32_t i = 1; i < PETAL_LOG_OWNERS; i++) {
		struct petal_log_owner *line = &p->log->owners[i];

		if (!p->owners[i].attached)
			continue;
		/* [WAKE] The marks are stored before its word is loaded. */
		petal_barrier_light();
		if (petal_log_waited(p->log->marks,
				     atomic_load_explicit(&line->wait,
							  memory_order_relaxed)))
			petal_doorbell_ring(&line->bell, PETAL_DOORBELL_ALL);
		signal_owner(p, i);
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
		} else if (primary_counts(&p->members[i])) {
			memory[i] = p->members[i].memory_pos;
			disk[i] = primary_disk_pos(&p->members[i]);
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
	petal_doorbell_ring(&p->log->marks->bell, PETAL_DOORBELL_ALL);
	tell_owners(p);
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
	atomic_store_explicit(&line->wait, 0, memory_order_relaxed);
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
 * A living producer may be in the way, with a record that it has not published.
 * It is waited for, without spinning.
 */
static int bury_dead(struct petal_primary *p, uint64_t now_ns)
{
	uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64];
	int count;

	if (now_ns < p->bury_ns || !dead_owners(p, dead))
		return 0;
	p->bury_ns = now_ns + BURY_NS;
	count = petal_mpsc_repair(&p->log->ring, p->accepted.pos, dead);
	/* Who is stopped in the middle of a claim makes us come back. */
	if (count == -EAGAIN)
		return 0;
	if (count >= 0)
		p->counts.repaired += (unsigned)count;
	return count >= 0 ? 0 : count;
}

/* All together. */

int petal_primary_step(struct petal_primary *p, uint64_t now_ns)
{
	int count;

	if (p->halted)
		return -PETAL_ECORRUPT;
	if (p->deposed)
		return 0;
	count = bury_dead(p, now_ns);
	if (count == 0)
		count = accept_published(p, now_ns);
	if (count < 0) {
		halt(p);
		return count;
	}
	free_buried(p);
	primary_send_all(p);
	journal(p);
	primary_admit_learners(p);
	mark(p);
	primary_expire(p, now_ns);
	if (primary_dispatch(p) < 0) {
		halt(p);
		return -PETAL_ECORRUPT;
	}
	primary_trim(p);
	primary_release(p);
	primary_order(p, now_ns);
	return count == (int)PETAL_PRIMARY_STEP_RECORDS;
}

uint64_t petal_primary_next_ns(const struct petal_primary *p)
{
	uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64];
	uint64_t next_ns = p->expire_ns;

	if (p->deposed)
		return PETAL_CLOCK_NEVER;
	if (p->trim_pos != p->ordered_trim_pos && p->order_ns < next_ns)
		next_ns = p->order_ns;
	if (dead_owners(p, dead) && p->bury_ns < next_ns)
		next_ns = p->bury_ns;
	return next_ns;
}

uint64_t petal_primary_stalled_ns(const struct petal_primary *p)
{
	return p->stalled_ns;
}

int petal_primary_expel(struct petal_primary *p, uint32_t *ret_owner)
{
	return petal_mpsc_fence(&p->log->ring, p->accepted.pos, ret_owner);
}

void petal_primary_depose(struct petal_primary *p)
{
	p->deposed = true;
	if (!p->halted)
		end(p, PETAL_LOG_CLOSED);
}

static int take_over(struct petal_primary *p, const struct petal_recovery *r)
{
	p->accepted = r->end;
	p->head = r->base;
	p->journaled_to = r->journaled_to;
	p->disk_pos = r->disk_pos;
	p->journal_busy = r->journal_busy;
	p->journal_frozen = r->journal_frozen;
	p->trim_pos = r->base.pos;
	p->dispatched_pos = r->base.pos;
	p->sessions = *r->sessions;
	return primary_recall(p, r->base.pos, r->end.pos);
}

static int put_epoch_start(struct petal_primary *p)
{
	struct petal_mpsc_claim claim;
	int err;

	err = petal_mpsc_claim(&p->log->ring, PETAL_RECORD_ENVELOPE_BYTES,
			       &claim);
	if (err < 0)
		return err;
	claim.record->type = PETAL_RECORD_TYPE_EPOCH_START;
	err = petal_mpsc_publish(&p->log->ring, &claim);
	if (err == 0)
		err = accept_published(p, 0);
	p->start_pos = p->accepted.pos;
	return err < 0 ? err : 0;
}

int petal_primary_open(struct petal_primary *p, struct petal_log *log,
		       unsigned self, const struct petal_primary_port *port,
		       const struct petal_recovery *recovery)
{
	int err = 0;

	memset(p, 0, sizeof(*p));
	p->log = log;
	p->port = *port;
	p->self = self;
	p->stalled_ns = PETAL_CLOCK_NEVER;
	if (recovery != NULL)
		err = take_over(p, recovery);
	p->accepted.epoch = log->geometry.epoch;
	if (err == 0)
		err = put_epoch_start(p);
	if (err < 0) {
		petal_primary_close(p);
		return err;
	}
	atomic_store_explicit(&log->marks->trim_pos, p->trim_pos,
			      memory_order_relaxed);
	atomic_store_explicit(&log->marks->state, PETAL_LOG_OPEN,
			      memory_order_relaxed);
	return 0;
}
