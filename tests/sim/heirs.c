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
#include "tests/sim/heirs.h"

#include "tests/check.h"

#include "fabric/txn.h"
#include "shm/clock.h"

#define DATA_BYTES UINT64_C(65536)
#define SLOTS 64u
#define FLIGHTS 128u
#define LINKS 64u /* messages under way on one */
#define NUMBERS 20000u
#define LSNS 200000u
#define WINDOW 16u
#define LEASE_NS PETAL_MS(50)
#define NOTES 2048u

enum role { NONE, PRIMARY, BACKUP, HEIR };

struct config {
	uint64_t version;
	uint32_t epoch;
	unsigned primary;
	bool recovering;
	struct petal_record_cursor sealed;
	uint32_t incs[HEIRS_MEMBERS];
};

/* A record that was accepted. */
struct note {
	uint64_t lsn, end_pos, number, acks_lsn;
	uint32_t crc;
};

struct slot {
	uint64_t generation; /* 0: free */
	unsigned member;
	struct config config;
	enum role role;
	struct petal_log log;
	bool has_log;
	struct petal_primary primary;
	struct petal_backup backup;
	struct petal_failover failover;
	struct slot *older;
	struct petal_record_cursor sealed;
	struct petal_record_cursor fenced_end;
	bool fenced;
	uint64_t keys[HEIRS_MEMBERS]; /* generation of their slots */
	struct note notes[NOTES];     /* accepted, and not committed yet */
	uint64_t note_first, note_count, noted_pos;
	uint64_t sessions;
};

enum message_type { OFFER, START, SUSPECT, FENCE, FENCED, CALL };

struct message {
	enum message_type type;
	uint32_t epoch;
	uint32_t inc; /* of the sender */
	uint64_t generation;
	bool exact, counts;
	uint64_t whole_pos;
	struct petal_record_cursor at;
	struct config config;
	struct petal_sessions sessions;
};

struct link {
	bool up;
	struct message at[LINKS];
	unsigned first, count;
};

enum flight_kind { WRITE, ORDER, ACK };

struct flight {
	bool used;
	enum flight_kind kind;
	unsigned from, to;
	uint64_t from_generation, to_generation;
	uint64_t pos, length, done;
	unsigned line; /* of an ack */
};

struct member {
	bool stopped;
	uint32_t inc;
	uint32_t promise;
	struct config known;
	struct slot *current;
	bool journal_busy;
	uint64_t journal_end;
	unsigned epoch_seen;
};

/* Who puts and takes, beside whichever primary is open. */
struct client {
	struct petal_log log;
	uint64_t slot_generation; /* 0: closed */
	uint32_t owner;
	uint64_t session, sequence;
};

struct put {
	uint64_t number, session, sequence, end_pos;
};

struct heirs {
	uint64_t random, seed, now_ns;
	uint64_t step;
	uint64_t generations;
	struct config registry;
	struct member members[HEIRS_MEMBERS];
	struct slot slots[SLOTS];
	struct flight flights[FLIGHTS];
	struct link links[HEIRS_MEMBERS][HEIRS_MEMBERS]; /* from, to */
	struct client producer, taker;
	struct put window[WINDOW];
	unsigned window_count;
	uint64_t next_number;
	uint64_t resend[WINDOW];
	unsigned resend_count;
	bool quiet; /* nothing new is put */
	/* What was committed, once and for all. */
	uint32_t committed_crc[LSNS];
	uint32_t lsn_of[NUMBERS];
	uint8_t done[LSNS];
	uint32_t sealed_by[4096]; /* per epoch: lsn + 1 */
	uint8_t primary_of[4096]; /* per epoch: member + 1 */
	struct heirs_counts *counts;
};

#define HEIRS_ASSERT(h, condition)                                          \
	do {                                                                \
		if (!(condition))                                           \
			fail_msg("seed %llu step %llu: %s (line %d)",       \
				 (unsigned long long)(h)->seed,             \
				 (unsigned long long)(h)->step, #condition, \
				 __LINE__);                                 \
	} while (0)

static uint64_t dice(struct heirs *h, uint64_t sides)
{
	return petal_test_random(&h->random) % sides;
}

/* ---- slots ---- */

static struct heirs *the_heirs; /* ports know their slot, and this */

static struct slot *slot_of(struct heirs *h, uint64_t generation)
{
	for (unsigned i = 0; generation != 0 && i < SLOTS; i++) {
		if (h->slots[i].generation == generation)
			return &h->slots[i];
	}
	return NULL;
}

static void slot_free(struct slot *s)
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
	struct heirs *h = the_heirs;
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
		      uint64_t length)
{
	struct flight *f = flight_new(self, WRITE, member);

	if (f == NULL)
		return -EAGAIN;
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
	struct member *m = &the_heirs->members[s->member];

	(void)trim_pos;
	HEIRS_ASSERT(the_heirs, !m->journal_busy && to->pos > from->pos);
	m->journal_busy = true;
	m->journal_end = to->pos;
	return 0;
}

static void port_trim(void *self, uint64_t pos)
{
	(void)self;
	(void)pos;
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

	config.incs[member] = the_heirs->members[member].inc;
	registry_swap(the_heirs, s, &config);
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
	.trim = port_trim,
};

/* ---- messages ---- */

static struct message *send(struct heirs *h, unsigned from, unsigned to,
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

static struct slot *speaker_of(struct slot *s)
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

static void learn(struct heirs *h, unsigned i, const struct config *config)
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
	speaker = speaker_of(s);
	journaled = s->has_log ? s : s->older;
	if (speaker != s)
		slot_free(s);
	else if (s->older != NULL)
		slot_free(s->older);
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
	slot_free(s->older);
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
	struct slot *speaker = speaker_of(s);
	struct petal_record_cursor end;
	struct message *message;

	petal_backup_step(&s->backup);
	if (s->older != NULL && s->backup.whole) {
		slot_free(s->older);
		s->older = NULL;
	}
	if (is_up(h, p, s->member) && h->members[p].inc == s->config.incs[p]) {
		petal_failover_trust(&s->failover);
		if (!s->backup.started && !s->backup.fenced &&
		    !s->backup.journal_busy && m->promise <= s->config.epoch &&
		    dice(h, 4) == 0) {
			message = send(h, s->member, p, OFFER, s->config.epoch);
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
				  : send(h, s->member, i, SUSPECT,
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

static void answer_fence(struct heirs *h, unsigned i, unsigned to,
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
	speaker = speaker_of(s);
	if (speaker == s && s->config.epoch == epoch)
		return;
	counts = speaker != NULL && leaves(speaker, &r) == 0;
	if (to == i) {
		petal_failover_fenced(&s->failover, i, epoch, counts, &r.end);
		return;
	}
	message = send(h, i, to, FENCED, epoch);
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
		message = send(h, s->member, i, CALL, s->config.epoch);
		if (message != NULL)
			message->config = s->config;
	}
}

static void step_heir(struct heirs *h, struct slot *s)
{
	int best;

	if (s->failover.fencing == 0)
		petal_failover_fence(&s->failover, s->config.epoch);
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
		answer_fence(h, s->member, s->member, s->config.epoch);
		for (unsigned i = 0; i < HEIRS_MEMBERS; i++) {
			if (i != s->member && !s->failover.members[i].answered)
				send(h, s->member, i, FENCE, s->config.epoch);
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

static void commit_new(struct heirs *h, struct slot *s)
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
	commit_new(h, s);
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

static void step_member(struct heirs *h, unsigned i)
{
	struct member *m = &h->members[i];
	struct slot *s = m->current;

	if (m->stopped)
		return;
	if (dice(h, 6) == 0)
		m->known = h->registry;
	if (s == NULL || m->known.version > s->config.version)
		learn(h, i, &m->known);
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
	message = send(h, s->member, from, START, m->epoch);
	if (message == NULL) {
		petal_primary_leave(&s->primary, from);
		return;
	}
	message->generation = s->generation;
	message->exact = exact;
	message->at = start;
	message->whole_pos = s->primary.members[from].joined_pos;
	message->sessions = s->primary.sessions;
}

static void on_start(struct slot *s, unsigned from, const struct message *m)
{
	if (s->role != BACKUP || s->config.epoch != m->epoch ||
	    s->config.primary != from || s->backup.fenced || s->backup.started)
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
		petal_failover_heard(&s->failover, from, m->epoch, &m->at,
				     h->now_ns);
		break;
	case FENCE:
		answer_fence(h, to, from, m->epoch);
		break;
	case FENCED:
		if (s->role == HEIR)
			petal_failover_fenced(
				&s->failover, from, m->epoch,
				m->counts && m->inc == s->config.incs[from],
				&m->at); /* I10 */
		break;
	case CALL:
		learn(h, to, &m->config);
		break;
	}
}

static void deliver_message(struct heirs *h)
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

static void flight_end(struct heirs *h, struct flight *f, bool good)
{
	struct slot *s = slot_of(h, f->from_generation);
	struct slot *to = slot_of(h, f->to_generation);

	f->used = false;
	if (f->kind == WRITE && s != NULL) {
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
	struct slot *s = slot_of(h, f->from_generation);
	struct slot *to = slot_of(h, f->to_generation);

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

static void fly_some(struct heirs *h)
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

static void cut(struct heirs *h, unsigned a, unsigned b)
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

static void mend(struct heirs *h, unsigned a, unsigned b)
{
	if (a != b)
		h->links[a][b].up = h->links[b][a].up = true;
}

static void crash(struct heirs *h, unsigned i)
{
	struct member *m = &h->members[i];

	for (unsigned n = 0; n < HEIRS_MEMBERS; n++)
		cut(h, i, n);
	for (unsigned n = 0; n < SLOTS; n++) {
		if (h->slots[n].generation != 0 && h->slots[n].member == i)
			slot_free(&h->slots[n]);
	}
	m->current = NULL;
	m->journal_busy = false;
	m->stopped = false;
	m->inc++;
	h->counts->crashes++;
}

/* mem2 survives the loss of one memory: the other two must have theirs. */
static bool may_crash(struct heirs *h, unsigned i)
{
	for (unsigned n = 0; n < HEIRS_MEMBERS; n++) {
		struct slot *s = h->members[n].current;

		if (n != i && (h->registry.incs[n] != h->members[n].inc ||
			       s == NULL || speaker_of(s) == NULL))
			return false;
	}
	return true;
}

static void journal_ends(struct heirs *h, unsigned i)
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

/* ---- clients ---- */

static struct slot *open_primary(struct heirs *h)
{
	for (unsigned i = 0; i < HEIRS_MEMBERS; i++) {
		struct slot *s = h->members[i].current;

		if (s != NULL && s->role == PRIMARY && !s->config.recovering &&
		    !s->primary.deposed && !h->members[i].stopped &&
		    dice(h, 2) == 0)
			return s;
	}
	return NULL;
}

static struct slot *slot_of_client(struct heirs *h, struct client *c)
{
	struct slot *s = slot_of(h, c->slot_generation);

	if (s != NULL && !s->primary.deposed)
		return s;
	if (c->slot_generation != 0)
		petal_log_close(&c->log);
	c->slot_generation = 0;
	return NULL;
}

static bool client_open(struct heirs *h, struct client *c, uint32_t owner)
{
	struct slot *s = open_primary(h);
	uint64_t session;

	if (s == NULL || s->primary.owners[owner].attached)
		return false;
	session = PETAL_SESSION_FIRST(s->config.epoch) + s->sessions++;
	assert_ok(petal_primary_attach(&s->primary, owner, session));
	assert_ok(petal_log_attach(s->log.segment.fd, owner, &c->log));
	c->slot_generation = s->generation;
	c->owner = owner;
	c->session = session;
	c->sequence = 0;
	return true;
}

static int client_publish(struct heirs *h, struct client *c, uint32_t type,
			  uint32_t queue, const void *bytes, uint32_t length,
			  uint64_t *ret_end)
{
	struct petal_record_durable *record;
	struct petal_mpsc_claim claim;

	if (petal_mpsc_used(&c->log.ring) + length >
		    (type == 0 ? DATA_BYTES / 8 * 3 : DATA_BYTES / 16 * 7) ||
	    petal_mpsc_claim(&c->log.ring, length + PETAL_RECORD_ENVELOPE_BYTES,
			     &claim) < 0)
		return -EAGAIN;
	record = (void *)claim.record;
	memcpy(record + 1, bytes, length);
	record->record.type = type;
	record->queue = queue;
	record->session = c->session;
	record->sequence = ++c->sequence;
	record->flags = 0;
	record->payload_crc = petal_record_payload_crc(
		record, length + PETAL_RECORD_ENVELOPE_BYTES);
	HEIRS_ASSERT(h, petal_mpsc_publish(&c->log.ring, &claim) == 0);
	*ret_end = claim.end;
	return 0;
}

/* I13: what a new primary says of what was under way. */
static void resolve(struct heirs *h, const struct slot *s)
{
	for (unsigned i = 0; i < h->window_count; i++) {
		const struct put *put = &h->window[i];
		int found = petal_sessions_find(&s->primary.sessions,
						put->session, put->sequence);

		HEIRS_ASSERT(h, found == 0 || found == -ENOENT);
		if (found == 0) {
			h->counts->resolved++;
			continue;
		}
		/* What was acknowledged at mem2 is not sent again: I5. */
		HEIRS_ASSERT(h, h->lsn_of[put->number] == 0);
		h->resend[h->resend_count++] = put->number;
		h->counts->resent++;
	}
	h->window_count = 0;
}

static void produce(struct heirs *h)
{
	struct client *c = &h->producer;
	struct slot *s = slot_of_client(h, c);
	uint8_t bytes[1500] = { 0 };
	struct put *put;
	uint64_t number;

	if (s == NULL) {
		if (client_open(h, c, 1))
			resolve(h, slot_of(h, c->slot_generation));
		return;
	}
	/* Acknowledged: forget it. */
	while (h->window_count > 0 &&
	       atomic_load(&s->log.marks->level_pos[PETAL_LEVEL_MEM2]) >=
		       h->window[0].end_pos) {
		commit_new(h, s);
		HEIRS_ASSERT(h, h->lsn_of[h->window[0].number] != 0);
		h->window_count--;
		memmove(h->window, h->window + 1,
			h->window_count * sizeof(h->window[0]));
	}
	if (h->window_count == WINDOW ||
	    (h->resend_count == 0 && (h->quiet || h->next_number == NUMBERS)))
		return;
	number = h->resend_count > 0 ? h->resend[h->resend_count - 1]
				     : h->next_number;
	memcpy(bytes, &number, sizeof(number));
	put = &h->window[h->window_count];
	if (client_publish(h, c, 0, 1, bytes,
			   8 + (uint32_t)dice(h, sizeof(bytes) - 8),
			   &put->end_pos) < 0)
		return;
	put->number = number;
	put->session = c->session;
	put->sequence = c->sequence;
	h->window_count++;
	if (h->resend_count > 0)
		h->resend_count--;
	else
		h->next_number++;
}

static void consume(struct heirs *h)
{
	struct client *c = &h->taker;
	struct slot *s = slot_of_client(h, c);
	struct petal_queue_lease lease;
	struct petal_message message = { .queue = 1 };
	struct petal_queue_item item;
	uint32_t redelivered, length;
	uint8_t bytes[256];
	uint64_t end;

	if (s == NULL) {
		client_open(h, c, 2);
		return;
	}
	if (petal_queue_take(&c->log.queues[0], 2, h->now_ns, &item, &lease,
			     &redelivered) != 0)
		return;
	commit_new(h, s);
	HEIRS_ASSERT(h, h->committed_crc[item.lsn] != 0); /* I12 */
	HEIRS_ASSERT(h, h->done[item.lsn] == 0);          /* I14 */
	message.lsn = item.lsn;
	message.index = item.index;
	message.ordinal = lease.ordinal;
	message.lease = lease.word;
	assert_ok(petal_txn_bytes(1, NULL, 0, &length));
	petal_txn_write(bytes, &message, 1, NULL, 0);
	if (dice(h, 8) == 0 || client_publish(h, c, PETAL_RECORD_TYPE_TXN, 0,
					      bytes, length, &end) < 0)
		petal_queue_release(&c->log.queues[0], &lease);
}

/* ---- a history ---- */

static void go_wrong(struct heirs *h)
{
	unsigned a = (unsigned)dice(h, 3), b = (unsigned)dice(h, 3);

	switch (dice(h, 8)) {
	case 0:
	case 1:
		cut(h, a, b);
		break;
	case 2:
		for (unsigned i = 0; i < HEIRS_MEMBERS; i++)
			cut(h, a, i);
		break;
	case 3:
		h->members[a].stopped = true;
		break;
	case 4:
	case 5:
		if (may_crash(h, a))
			crash(h, a);
		break;
	case 6:
		/* Its silence ends its connections. */
		for (unsigned i = 0; h->members[a].stopped && i < 3; i++)
			cut(h, a, i);
		break;
	default:
		h->now_ns += dice(h, PETAL_S(10)); /* I17 */
	}
}

static void get_better(struct heirs *h)
{
	if (dice(h, 2))
		mend(h, (unsigned)dice(h, 3), (unsigned)dice(h, 3));
	else
		h->members[dice(h, 3)].stopped = false;
}

static void once(struct heirs *h, bool faults)
{
	h->now_ns += dice(h, PETAL_MS(1));
	switch (dice(h, 16)) {
	case 0:
	case 1:
		produce(h);
		break;
	case 2:
	case 3:
		consume(h);
		break;
	case 4:
		journal_ends(h, (unsigned)dice(h, 3));
		break;
	case 5:
		if (faults && dice(h, 40) == 0)
			go_wrong(h);
		break;
	case 6:
		if (dice(h, 20) == 0)
			get_better(h);
		break;
	case 7:
	case 8:
	case 9:
		for (unsigned i = 0; i < 8; i++)
			deliver_message(h);
		break;
	case 10:
	case 11:
	case 12:
		for (unsigned i = 0; i < 8; i++)
			fly_some(h);
		break;
	default:
		step_member(h, (unsigned)dice(h, 3));
	}
}

static bool all_is_done(const struct heirs *h)
{
	if (h->window_count > 0 || h->resend_count > 0)
		return false;
	for (uint64_t n = 0; n < h->next_number; n++) {
		if (h->lsn_of[n] == 0 || h->done[h->lsn_of[n]] != 1)
			return false;
	}
	return true;
}

static void heal(struct heirs *h)
{
	h->quiet = true;
	for (unsigned i = 0; i < HEIRS_MEMBERS; i++) {
		h->members[i].stopped = false;
		for (unsigned n = 0; n < HEIRS_MEMBERS; n++)
			mend(h, i, n);
	}
	for (unsigned n = 0; n < 400000 && !all_is_done(h); n++)
		once(h, false);
	HEIRS_ASSERT(h, all_is_done(h));
}

void heirs_run(uint64_t seed, unsigned steps, struct heirs_counts *counts)
{
	struct heirs *h = calloc(1, sizeof(*h));

	the_heirs = h;
	h->seed = seed;
	h->random = seed;
	h->now_ns = PETAL_S(1);
	h->counts = counts;
	h->registry = (struct config){ .version = 1, .epoch = 1 };
	h->primary_of[1] = 1;
	for (unsigned i = 0; i < HEIRS_MEMBERS; i++) {
		h->members[i].inc = 1;
		h->registry.incs[i] = 1;
		for (unsigned n = 0; n < HEIRS_MEMBERS; n++)
			mend(h, i, n);
	}
	for (unsigned i = 0; i < HEIRS_MEMBERS; i++)
		h->members[i].known = h->registry;
	for (h->step = 0; h->step < steps; h->step++)
		once(h, true);
	heal(h);
	counts->records += h->next_number;
	slot_of_client(h, &h->producer);
	slot_of_client(h, &h->taker);
	if (h->producer.slot_generation != 0)
		petal_log_close(&h->producer.log);
	if (h->taker.slot_generation != 0)
		petal_log_close(&h->taker.log);
	for (unsigned i = 0; i < SLOTS; i++) {
		if (h->slots[i].generation != 0)
			slot_free(&h->slots[i]);
	}
	free(h);
}
