/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The invariants, by the names that the protocol gives them:
 *
 *    EpochMonotone        I1   a promise never falls, and is there before FENCED
 *    OneWriter            I2   the swap that made an epoch names its primary
 *    LogMatching          I3   a committed lsn is one record, for ever
 *    LeaderCompleteness   I6   ... also after every change of the primary
 *    FenceClosure         I8   a fenced log does not move
 *    SealOnce             I9   an epoch is sealed in one place
 *    NoAmnesiaVote        I10  who forgot has no vote
 *    Visibility           I12  what is taken was committed
 *    Dedup                I13  each number is in the log once
 *    CursorSafety         I14  what was acknowledged is not taken again
 */
#include "tests/sim/heirs_private.h"

#include "fabric/txn.h"

/* ---- slots ---- */

struct heirs *heirs_current;

struct slot *heirs_slot_of(struct heirs *h, uint64_t generation)
{
	for (unsigned i = 0; generation != 0 && i < SLOTS; i++) {
		if (h->slots[i].generation == generation)
			return &h->slots[i];
	}
	return NULL;
}

void heirs_slot_free(struct slot *s)
{
	if (s->has_log) {
		if (s->role == PRIMARY)
			petal_primary_close(&s->primary);
		petal_log_close(&s->log);
	}
	memset(s, 0, sizeof(*s));
}

static struct slot *slot_new(struct heirs *h, unsigned member,
			     const struct config *config)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &h->slots[i];

		if (s->generation != 0)
			continue;
		s->generation = ++h->generations;
		s->member = member;
		s->config = *config;
		petal_failover_open(&s->failover, member);
		return s;
	}
	fail_msg("no slot is left");
	return NULL;
}

static int log_open(struct slot *s, uint64_t start_pos)
{
	struct petal_log_geometry geometry = {
		.ring = 1,
		.data_bytes = DATA_BYTES,
		.epoch = s->config.epoch,
		.queue_count = 1,
		.start_pos = start_pos,
	};

	geometry.queues[0].id = 1;
	geometry.queues[0].slot_count = 64;
	geometry.queues[0].lease_ns = LEASE_NS;
	strcpy(geometry.queues[0].name, "q");
	s->has_log = true;
	return petal_log_open(&geometry, &s->log);
}

/* ---- ports ---- */

static struct flight *flight_new(struct slot *s, enum flight_kind kind,
				 unsigned to)
{
	struct heirs *h = heirs_current;
	unsigned under_way = 0;

	if (!h->links[s->member][to].up)
		return NULL;
	for (unsigned i = 0; i < FLIGHTS; i++)
		under_way += h->flights[i].used &&
			     h->flights[i].from_generation == s->generation &&
			     h->flights[i].to == to &&
			     h->flights[i].kind == kind;
	if (under_way >= 8)
		return NULL;
	for (unsigned i = 0; i < FLIGHTS; i++) {
		struct flight *f = &h->flights[i];

		if (f->used)
			continue;
		*f = (struct flight){ .used = true,
				      .kind = kind,
				      .from = s->member,
				      .to = to,
				      .from_generation = s->generation,
				      .to_generation = s->keys[to],
				      .length = 64 };
		return f;
	}
	return NULL;
}

static int port_write(void *self, unsigned member, uint64_t pos,
		      uint64_t length, bool told)
{
	struct flight *f = flight_new(self, WRITE, member);

	if (f == NULL)
		return -EAGAIN;
	f->told = told;
	f->number = heirs_current->writes++;
	f->pos = pos;
	f->length = length;
	return 0;
}

static void port_order(void *self, unsigned member)
{
	flight_new(self, ORDER, member);
}

static int port_acknowledge(void *self)
{
	struct slot *s = self;
	struct flight *f = flight_new(s, ACK, s->config.primary);

	if (f == NULL)
		return -EAGAIN;
	f->line = s->member;
	return 0;
}

static int port_journal(void *self, const struct petal_record_cursor *from,
			const struct petal_record_cursor *to, uint64_t trim_pos)
{
	struct slot *s = self;
	struct member *m = &heirs_current->members[s->member];

	(void)trim_pos;
	HEIRS_ASSERT(heirs_current, !m->journal_busy && to->pos > from->pos);
	m->journal_busy = true;
	m->journal_end = to->pos;
	return 0;
}

static void port_signal(void *self, uint32_t owner)
{
	(void)self;
	(void)owner;
}

/* The registry, which always answers its primary. */
static void registry_swap(struct heirs *h, struct slot *s,
			  const struct config *value)
{
	if (h->registry.version != s->config.version)
		return;
	if (value->epoch != h->registry.epoch) {
		HEIRS_ASSERT(h, value->epoch == h->registry.epoch + 1);
		HEIRS_ASSERT(h, h->primary_of[value->epoch] == 0); /* I2 */
		h->primary_of[value->epoch] = (uint8_t)(value->primary + 1);
	}
	if (!value->recovering && h->registry.recovering) {
		HEIRS_ASSERT(h, h->sealed_by[value->epoch] == 0); /* I9 */
		h->sealed_by[value->epoch] = (uint32_t)value->sealed.lsn + 1;
		h->counts->epochs++;
	}
	h->registry = *value;
	h->registry.version++;
}

static void port_admit(void *self, unsigned member)
{
	struct slot *s = self;
	struct config config = s->config;

	config.incs[member] = heirs_current->members[member].inc;
	registry_swap(heirs_current, s, &config);
	s->primary.members[member].asked = false;
}

static const struct petal_primary_port primary_port = {
	.write = port_write,
	.order = port_order,
	.journal = port_journal,
	.admit = port_admit,
	.signal = port_signal,
};

static const struct petal_backup_port backup_port = {
	.acknowledge = port_acknowledge,
	.journal = port_journal,
};

/* ---- messages ---- */

struct message *heirs_send(struct heirs *h, unsigned from, unsigned to,
			   enum message_type type, uint32_t epoch)
{
	struct link *link = &h->links[from][to];
	struct message *message;

	if (!link->up || link->count == LINKS)
		return NULL;
	message = &link->at[(link->first + link->count++) % LINKS];
	memset(message, 0, sizeof(*message));
	message->type = type;
	message->epoch = epoch;
	message->inc = h->members[from].inc;
	return message;
}

/* ---- epochs: what petald does ---- */

static void fence(struct heirs *h, struct slot *s)
{
	if (s->role == PRIMARY) {
		if (!s->primary.deposed)
			h->counts->deposed++;
		petal_primary_depose(&s->primary);
	} else if (s->role == BACKUP) {
		petal_backup_fence(&s->backup);
	}
	if (s->has_log && !s->fenced) {
		s->fenced = true;
		s->fenced_end = s->role == PRIMARY ? s->primary.accepted
						   : s->backup.cursor;
	}
}

struct slot *heirs_speaker_of(struct slot *s)
{
	if (s->role == PRIMARY || (s->role == BACKUP && s->backup.whole))
		return s;
	return s->older;
}

static int leaves(const struct slot *s, struct petal_recovery *r)
{
	int err = s->role == PRIMARY ? petal_primary_leaves(&s->primary, r)
				     : petal_backup_leaves(&s->backup, r);

	return err == 0 ? petal_recovery_check(r, NULL) : err;
}

static void open_backup(struct heirs *h, struct slot *s, bool stale)
{
	const struct member *m = &h->members[s->member];
	struct petal_recovery r = { 0 };
	struct petal_backup_port port = backup_port;

	if (s->older != NULL)
		HEIRS_ASSERT(h, leaves(s->older, &r) == 0);
	if (!s->config.recovering)
		petal_recovery_cut(&r, &s->config.sealed);
	r.journal_busy = m->journal_busy;
	if (stale || r.log == NULL) {
		r.journal_stale = m->journal_busy;
		r.journaled_to = r.base;
		r.disk_pos = r.base.pos;
	}
	assert_ok(log_open(s, r.log == NULL ? 0 : r.base.pos));
	if (r.log != NULL)
		assert_ok(petal_recovery_copy(&r, &s->log));
	port.self = s;
	petal_backup_open(&s->backup, &s->log, s->member, &port);
	petal_backup_seed(&s->backup, &r);
}

static void open_slot(struct heirs *h, unsigned i, const struct config *config,
		      struct slot *older, bool stale)
{
	struct slot *s = slot_new(h, i, config);
	struct petal_primary_port port = primary_port;

	h->members[i].current = s;
	s->older = older;
	port.self = s;
	if (config->primary != i) {
		s->role = BACKUP;
		open_backup(h, s, stale);
	} else if (config->incs[i] == h->members[i].inc && config->recovering) {
		s->role = HEIR;
	} else if (config->incs[i] == h->members[i].inc && config->epoch == 1) {
		s->role = PRIMARY;
		assert_ok(log_open(s, 0));
		assert_ok(petal_primary_open(&s->primary, &s->log, i, &port,
					     NULL));
	}
}

void heirs_learn(struct heirs *h, unsigned i, const struct config *config)
{
	struct slot *s = h->members[i].current, *speaker, *journaled;

	if (s == NULL) {
		open_slot(h, i, config, NULL, false);
		return;
	}
	if (config->version <= s->config.version)
		return;
	if (config->epoch == s->config.epoch) {
		s->config = *config;
		for (unsigned n = 0; s->role == PRIMARY && n < 3; n++) {
			if (n != i && config->incs[n] == h->members[n].inc &&
			    h->links[n][i].up)
				petal_primary_admitted(&s->primary, n);
		}
		return;
	}
	fence(h, s);
	speaker = heirs_speaker_of(s);
	journaled = s->has_log ? s : s->older;
	if (speaker != s)
		heirs_slot_free(s);
	else if (s->older != NULL)
		heirs_slot_free(s->older);
	if (speaker == s)
		s->older = NULL;
	open_slot(h, i, config, speaker, speaker != journaled);
}

/* What was accepted, before it may be released. */
static void note_accepted(struct heirs *h, struct slot *s)
{
	while (s->noted_pos < s->primary.accepted.pos) {
		const struct petal_record_durable *record =
			(void *)petal_log_at(&s->log, s->noted_pos);
		struct note *note = &s->notes[s->note_count++ % NOTES];

		HEIRS_ASSERT(h, s->note_count - s->note_first <= NOTES);
		s->noted_pos += petal_record_extent(record->record.length);
		*note = (struct note){ .lsn = record->lsn,
				       .crc = record->hdr_crc,
				       .end_pos = s->noted_pos,
				       .number = UINT64_MAX };
		if (record->queue == 1)
			memcpy(&note->number, record + 1, sizeof(uint64_t));
		if (record->record.type == PETAL_RECORD_TYPE_TXN) {
			struct petal_txn txn;

			assert_ok(petal_txn_check(
				record + 1,
				record->record.length -
					PETAL_RECORD_ENVELOPE_BYTES,
				1, &txn));
			assert_int_equal(txn.ack_count, 1);
			note->acks_lsn = txn.acks[0].lsn;
		}
	}
}

static void inherit(struct heirs *h, struct slot *s)
{
	struct petal_primary_port port = primary_port;
	struct petal_recovery r;

	HEIRS_ASSERT(h, leaves(s->older, &r) == 0);
	assert_ok(log_open(s, r.base.pos));
	assert_ok(petal_recovery_copy(&r, &s->log));
	port.self = s;
	assert_ok(
		petal_primary_open(&s->primary, &s->log, s->member, &port, &r));
	s->role = PRIMARY;
	s->sealed = r.end;
	s->noted_pos = r.base.pos;
	note_accepted(h, s);
	heirs_slot_free(s->older);
	s->older = NULL;
}

static bool is_up(const struct heirs *h, unsigned a, unsigned b)
{
	return h->links[a][b].up && h->links[b][a].up;
}

static struct petal_record_cursor end_of(const struct slot *s)
{
	return s->role == PRIMARY ? s->primary.accepted : s->backup.cursor;
}

/* ---- what a member does in a step ---- */

static void step_backup(struct heirs *h, struct slot *s)
{
	unsigned p = s->config.primary;
	struct member *m = &h->members[s->member];
	struct slot *speaker = heirs_speaker_of(s);
	struct petal_record_cursor end;
	struct message *message;

	petal_backup_step(&s->backup);
	if (s->older != NULL && s->backup.whole) {
		heirs_slot_free(s->older);
		s->older = NULL;
	}
	if (is_up(h, p, s->member) && h->members[p].inc == s->config.incs[p]) {
		petal_failover_trust(&s->failover);
		if (!s->backup.started && !s->backup.fenced &&
		    !s->backup.journal_busy && m->promise <= s->config.epoch &&
		    dice(h, 4) == 0) {
			message = heirs_send(h, s->member, p, OFFER,
					     s->config.epoch);
			if (message == NULL)
				return;
			message->generation = s->generation;
			message->exact = s->backup.exact;
			message->at = s->backup.cursor;
		}
		return;
	}
	if (m->inc != s->config.incs[s->member] || speaker == NULL)
		return;
	end = end_of(speaker);
	petal_failover_suspect(&s->failover, s->config.epoch, h->now_ns);
	for (unsigned i = 0; i < HEIRS_MEMBERS; i++) {
		message = i == s->member || i == p
				  ? NULL
				  : heirs_send(h, s->member, i, SUSPECT,
					       s->config.epoch);
		if (message != NULL)
			message->at = end;
	}
	if (petal_failover_may_run(&s->failover, &end, h->now_ns)) {
		struct config config = s->config;

		config.epoch++;
		config.primary = s->member;
		config.recovering = true;
		registry_swap(h, s, &config);
	}
}

void heirs_answer_fence(struct heirs *h, unsigned i, unsigned to,
			uint32_t epoch)
{
	struct slot *s = h->members[i].current, *speaker;
	struct petal_recovery r = { 0 };
	struct message *message;
	bool counts;

	if (s == NULL || s->config.epoch > epoch ||
	    h->members[i].promise > epoch)
		return;
	h->members[i].promise = epoch; /* I1: durable before the answer */
	if (s->config.epoch < epoch)
		fence(h, s);
	speaker = heirs_speaker_of(s);
	if (speaker == s && s->config.epoch == epoch)
		return;
	counts = speaker != NULL && leaves(speaker, &r) == 0;
	if (to == i) {
		petal_failover_fenced(&s->failover, i, epoch, counts, &r.end);
		return;
	}
	message = heirs_send(h, i, to, FENCED, epoch);
	if (message == NULL)
		return;
	message->counts = counts;
	message->at = r.end;
}

static void call(struct heirs *h, struct slot *s)
{
	for (unsigned i = 0; i < HEIRS_MEMBERS; i++) {
		struct message *message;

		if (i == s->member ||
		    (s->role == PRIMARY && s->primary.members[i].attached))
			continue;
		message = heirs_send(h, s->member, i, CALL, s->config.epoch);
		if (message != NULL)
			message->config = s->config;
	}
}

static void step_heir(struct heirs *h, struct slot *s)
{
	int best;

	if (s->failover.fencing == 0)
		petal_failover_fence(&s->failover, s->config.epoch,
				     PETAL_FAILOVER_QUORUM);
	best = petal_failover_best(&s->failover);
	if (best == (int)s->member) {
		if (s->older != NULL)
			inherit(h, s);
	} else if (best >= 0) {
		struct config config = s->config;

		config.epoch++;
		config.primary = (unsigned)best;
		h->counts->yields++;
		registry_swap(h, s, &config);
	} else {
		heirs_answer_fence(h, s->member, s->member, s->config.epoch);
		for (unsigned i = 0; i < HEIRS_MEMBERS; i++) {
			if (i != s->member && !s->failover.members[i].answered)
				heirs_send(h, s->member, i, FENCE,
					   s->config.epoch);
		}
	}
}

/* I3, I6: what has become committed is so for ever. */
static void commit(struct heirs *h, const struct note *note)
{
	HEIRS_ASSERT(h, note->lsn < LSNS);
	if (h->committed_crc[note->lsn] != 0) {
		HEIRS_ASSERT(h, h->committed_crc[note->lsn] == note->crc);
		return;
	}
	h->committed_crc[note->lsn] = note->crc;
	if (note->number != UINT64_MAX) {
		HEIRS_ASSERT(h, note->number < h->next_number);
		HEIRS_ASSERT(h, h->lsn_of[note->number] == 0); /* I13 */
		h->lsn_of[note->number] = (uint32_t)note->lsn;
	}
	if (note->acks_lsn != 0) {
		HEIRS_ASSERT(h, note->acks_lsn < note->lsn);
		HEIRS_ASSERT(h, ++h->done[note->acks_lsn] == 1); /* I14 */
	}
}

void heirs_commit_new(struct heirs *h, struct slot *s)
{
	uint64_t to = atomic_load(&s->log.marks->level_pos[PETAL_LEVEL_MEM2]);

	while (s->note_first < s->note_count &&
	       s->notes[s->note_first % NOTES].end_pos <= to)
		commit(h, &s->notes[s->note_first++ % NOTES]);
}

static void step_primary(struct heirs *h, struct slot *s)
{
	HEIRS_ASSERT(h, petal_primary_step(&s->primary, h->now_ns) >= 0);
	note_accepted(h, s);
	heirs_commit_new(h, s);
	if (s->primary.deposed || s->config.epoch == 1)
		return;
	if (s->config.recovering && petal_primary_started(&s->primary)) {
		struct config config = s->config;

		/* I6: nothing committed is missing where it ends. */
		config.recovering = false;
		config.sealed = s->sealed;
		registry_swap(h, s, &config);
	}
	if (dice(h, 8) == 0)
		call(h, s);
}

void heirs_step_member(struct heirs *h, unsigned i)
{
	struct member *m = &h->members[i];
	struct slot *s = m->current;

	if (m->stopped)
		return;
	if (dice(h, 6) == 0)
		m->known = h->registry;
	if (s == NULL || m->known.version > s->config.version)
		heirs_learn(h, i, &m->known);
	s = m->current;
	if (s->fenced && s->has_log) {
		struct petal_record_cursor end = end_of(s);

		HEIRS_ASSERT(h, end.pos == s->fenced_end.pos); /* I8 */
	}
	if (s->role == PRIMARY)
		step_primary(h, s);
	else if (s->role == BACKUP)
		step_backup(h, s);
	else if (s->role == HEIR)
		step_heir(h, s);
}
