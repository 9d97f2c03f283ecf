/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A producer numbers what it puts and sends a number again only when the ring
 * says that it is not there; a taker acknowledges what it takes. Both go to
 * whichever primary is open. In between everything goes wrong that may.
 */
#include "tests/sim/heirs_private.h"

#include "fabric/txn.h"

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
	struct slot *s = heirs_slot_of(h, c->slot_generation);

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
			resolve(h, heirs_slot_of(h, c->slot_generation));
		return;
	}
	/* Acknowledged: forget it. */
	while (h->window_count > 0 &&
	       atomic_load(&s->log.marks->level_pos[PETAL_LEVEL_MEM2]) >=
		       h->window[0].end_pos) {
		heirs_commit_new(h, s);
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
	heirs_commit_new(h, s);
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
	/* More often than not it is the primary's turn. */
	unsigned a = dice(h, 2) ? h->registry.primary : (unsigned)dice(h, 3);
	unsigned b = (unsigned)dice(h, 3);

	switch (dice(h, 8)) {
	case 0:
	case 1:
		heirs_cut(h, a, b);
		break;
	case 2:
		for (unsigned i = 0; i < HEIRS_MEMBERS; i++)
			heirs_cut(h, a, i);
		break;
	case 3:
		h->members[a].stopped = true;
		break;
	case 4:
	case 5:
		if (heirs_may_crash(h, a))
			heirs_crash(h, a);
		break;
	case 6:
		/* Its silence ends its connections. */
		for (unsigned i = 0; h->members[a].stopped && i < 3; i++)
			heirs_cut(h, a, i);
		break;
	default:
		h->now_ns += dice(h, PETAL_S(10)); /* I17 */
	}
}

static void get_better(struct heirs *h)
{
	if (dice(h, 2))
		heirs_mend(h, (unsigned)dice(h, 3), (unsigned)dice(h, 3));
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
		heirs_journal_ends(h, (unsigned)dice(h, 3));
		break;
	case 5:
		if (faults && dice(h, 15) == 0)
			go_wrong(h);
		break;
	case 6:
		if (dice(h, 10) == 0)
			get_better(h);
		break;
	case 7:
	case 8:
	case 9:
		for (unsigned i = 0; i < 8; i++)
			heirs_deliver_message(h);
		break;
	case 10:
	case 11:
	case 12:
		for (unsigned i = 0; i < 8; i++)
			heirs_fly_some(h);
		break;
	default:
		heirs_step_member(h, (unsigned)dice(h, 3));
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
			heirs_mend(h, i, n);
	}
	for (unsigned n = 0; n < 400000 && !all_is_done(h); n++)
		once(h, false);
	HEIRS_ASSERT(h, all_is_done(h));
}

void heirs_run(uint64_t seed, unsigned steps, struct heirs_counts *counts)
{
	struct heirs *h = calloc(1, sizeof(*h));

	heirs_current = h;
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
			heirs_mend(h, i, n);
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
			heirs_slot_free(&h->slots[i]);
	}
	free(h);
}
