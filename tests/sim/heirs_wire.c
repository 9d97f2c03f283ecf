/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of a link come in their order; one-sided writes in any, and in
 * pieces, read from their source when they land. A cut ends all of a link at
 * once, on both sides, and each side is told.
 */
#include "tests/sim/heirs_private.h"

/* ---- the wire ---- */

static void on_offer(struct heirs *h, struct slot *s, unsigned from,
		     const struct message *m)
{
	struct petal_record_cursor start;
	struct message *message;
	bool exact;

	if (s->role != PRIMARY || s->config.epoch != m->epoch ||
	    (s->primary.members[from].attached &&
	     !s->primary.members[from].waiting) ||
	    s->primary.deposed)
		return;
	s->keys[from] = m->generation;
	petal_primary_join(&s->primary, from, &m->at,
			   m->inc == s->config.incs[from], m->exact, &start,
			   &exact);
	message = heirs_send(h, s->member, from, START, m->epoch);
	if (message == NULL) {
		petal_primary_leave(&s->primary, from);
		return;
	}
	message->generation = s->generation;
	message->exact = exact;
	message->at = start;
	message->offered = m->at;
	message->whole_pos = s->primary.members[from].joined_pos;
	message->sessions = s->primary.sessions;
}

static void on_start(struct slot *s, unsigned from, const struct message *m)
{
	if (s->role != BACKUP || s->config.epoch != m->epoch ||
	    s->config.primary != from || s->backup.fenced || s->backup.started)
		return;
	/* An older offer's answer. */
	if (m->offered.pos != s->backup.cursor.pos ||
	    m->offered.crc != s->backup.cursor.crc)
		return;
	s->keys[from] = m->generation;
	petal_backup_start(&s->backup, &m->at, m->whole_pos,
			   m->exact ? NULL : &m->sessions);
}

static void on_message(struct heirs *h, unsigned from, unsigned to,
		       const struct message *m)
{
	struct slot *s = h->members[to].current;

	if (s == NULL)
		return;
	switch (m->type) {
	case OFFER:
		on_offer(h, s, from, m);
		break;
	case START:
		on_start(s, from, m);
		break;
	case SUSPECT:
		petal_failover_heard(&s->failover, from, m->epoch,
				     PETAL_FAILOVER_MEMORY, &m->at, h->now_ns);
		break;
	case FENCE:
		heirs_answer_fence(h, to, from, m->epoch);
		break;
	case FENCED:
		if (s->role == HEIR)
			petal_failover_fenced(
				&s->failover, from, m->epoch,
				m->counts && m->inc == s->config.incs[from],
				&m->at); /* I10 */
		break;
	case CALL:
		heirs_learn(h, to, &m->config);
		break;
	}
}

void heirs_deliver_message(struct heirs *h)
{
	unsigned from = (unsigned)dice(h, 3), to = (unsigned)dice(h, 3);
	struct link *link = &h->links[from][to];
	static struct message m;

	if (from == to || link->count == 0 || h->members[to].stopped)
		return;
	m = link->at[link->first % LINKS];
	link->first++;
	link->count--;
	on_message(h, from, to, &m);
}

static void flight_copy(struct flight *f, void *to, const void *from,
			uint64_t bytes)
{
	uint64_t left = f->length - f->done;

	if (bytes > left)
		bytes = left;
	memcpy((uint8_t *)to + f->done, (const uint8_t *)from + f->done, bytes);
	f->done += bytes;
}

static bool is_before(const struct flight *f, const struct flight *told)
{
	return f->used && f->kind == WRITE && !f->told &&
	       f->from_generation == told->from_generation &&
	       f->to == told->to && f->number < told->number;
}

/* A write that is told of ends after those that were not, before it. */
static void flight_end_before(struct heirs *h, const struct flight *told,
			      const struct slot *s, const struct slot *to)
{
	for (unsigned i = 0; i < FLIGHTS; i++) {
		struct flight *f = &h->flights[i];

		if (!is_before(f, told))
			continue;
		if (to != NULL && to->has_log)
			flight_copy(f, petal_log_at(&to->log, f->pos),
				    petal_log_at(&s->log, f->pos), UINT64_MAX);
		f->used = false;
	}
}

static void flight_end(struct heirs *h, struct flight *f, bool good)
{
	struct slot *s = heirs_slot_of(h, f->from_generation);
	struct slot *to = heirs_slot_of(h, f->to_generation);

	f->used = false;
	if (f->kind == WRITE && f->told && s != NULL) {
		if (good)
			flight_end_before(h, f, s, to);
		uint64_t end_pos = good ? f->pos + f->length : 0;

		for (unsigned i = 0; i < FLIGHTS; i++) {
			const struct flight *other = &h->flights[i];

			if (other->used && other->kind == WRITE &&
			    other->from_generation == f->from_generation &&
			    other->to == f->to && other->pos < end_pos)
				end_pos = other->pos;
		}
		petal_primary_wrote(&s->primary, f->to, end_pos);
	}
	if (f->kind == ACK && good && to != NULL && to->role == PRIMARY &&
	    to == h->members[f->to].current && !to->primary.deposed)
		HEIRS_ASSERT(h,
			     petal_primary_acked(&to->primary, f->from) == 0);
}

static void fly(struct heirs *h, struct flight *f, uint64_t bytes)
{
	struct slot *s = heirs_slot_of(h, f->from_generation);
	struct slot *to = heirs_slot_of(h, f->to_generation);

	/* Bytes land although nobody runs there, and where nobody reads. */
	if (s == NULL || to == NULL || !to->has_log) {
		flight_end(h, f, false);
		return;
	}
	if (f->kind == WRITE)
		flight_copy(f, petal_log_at(&to->log, f->pos),
			    petal_log_at(&s->log, f->pos), bytes);
	else if (f->kind == ORDER)
		flight_copy(f, to->log.orders, s->log.orders, bytes);
	else
		flight_copy(f, &to->log.acks[f->line], &s->log.acks[f->line],
			    bytes);
	if (f->done == f->length && !h->members[f->from].stopped)
		flight_end(h, f, true);
}

void heirs_fly_some(struct heirs *h)
{
	uint64_t first = dice(h, FLIGHTS);

	for (uint64_t n = 0; n < FLIGHTS; n++) {
		struct flight *f = &h->flights[(first + n) % FLIGHTS];

		if (!f->used)
			continue;
		fly(h, f, dice(h, 2) ? UINT64_MAX : 64 * (1 + dice(h, 8)));
		return;
	}
}

void heirs_cut(struct heirs *h, unsigned a, unsigned b)
{
	if (a == b || !h->links[a][b].up)
		return;
	h->links[a][b].up = h->links[b][a].up = false;
	h->links[a][b].count = h->links[b][a].count = 0;
	for (unsigned i = 0; i < FLIGHTS; i++) {
		struct flight *f = &h->flights[i];

		if (f->used && ((f->from == a && f->to == b) ||
				(f->from == b && f->to == a)))
			flight_end(h, f, false);
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &h->slots[i];
		unsigned other = s->member == a ? b : a;

		if (s->generation == 0 || (s->member != a && s->member != b))
			continue;
		if (s->role == PRIMARY)
			petal_primary_leave(&s->primary, other);
		else if (s->role == BACKUP && s->config.primary == other)
			petal_backup_stop(&s->backup);
	}
}

void heirs_mend(struct heirs *h, unsigned a, unsigned b)
{
	if (a != b)
		h->links[a][b].up = h->links[b][a].up = true;
}

void heirs_crash(struct heirs *h, unsigned i)
{
	struct member *m = &h->members[i];

	for (unsigned n = 0; n < HEIRS_MEMBERS; n++)
		heirs_cut(h, i, n);
	for (unsigned n = 0; n < SLOTS; n++) {
		if (h->slots[n].generation != 0 && h->slots[n].member == i)
			heirs_slot_free(&h->slots[n]);
	}
	m->current = NULL;
	m->journal_busy = false;
	m->stopped = false;
	m->inc++;
	h->counts->crashes++;
}

/* mem2 survives the loss of one memory: the other two must have theirs. */
bool heirs_may_crash(struct heirs *h, unsigned i)
{
	for (unsigned n = 0; n < HEIRS_MEMBERS; n++) {
		struct slot *s = h->members[n].current;

		if (n != i && (h->registry.incs[n] != h->members[n].inc ||
			       s == NULL || heirs_speaker_of(s) == NULL))
			return false;
	}
	return true;
}

void heirs_journal_ends(struct heirs *h, unsigned i)
{
	struct member *m = &h->members[i];
	struct slot *s = m->current;

	if (!m->journal_busy || m->stopped)
		return;
	m->journal_busy = false;
	if (s != NULL && !s->has_log)
		s = s->older;
	if (s == NULL)
		return;
	if (s->role == PRIMARY)
		petal_primary_journaled(&s->primary, m->journal_end, 0);
	else
		petal_backup_journaled(&s->backup, m->journal_end, 0);
}
