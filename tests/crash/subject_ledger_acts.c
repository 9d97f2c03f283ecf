/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/subject_ledger.h"

#include <errno.h>
#include <string.h>

/* ---- the owner ---- */

static struct petal_ledger *owned_by(struct party *party)
{
	return &ledger_view(party)->ledgers[ledger_view(party)->number];
}

/* Take the hints, and believe only the entries. */
static int find_home(struct petal_ledger *ledger, uint32_t *ret_index)
{
	if (petal_ledger_news(ledger))
		for (uint32_t i = 0; i < petal_ledger_groups(ledger); i++)
			petal_ledger_take_home(ledger, i);
	for (uint32_t i = 0; i < ledger->entry_count; i++)
		if (petal_ledger_is_home(ledger, i)) {
			*ret_index = i;
			return ACT_DONE;
		}
	return ACT_NOTHING;
}

static int lend(struct party *party, struct petal_ref *ret_ref)
{
	struct petal_ledger *ledger = owned_by(party);
	uint64_t id = party_next_id(party);
	uint32_t index;
	int err = find_home(ledger, &index);

	if (err)
		return err;
	petal_ledger_retire(ledger, index);
	err = petal_ledger_lend(ledger, index, (uint64_t)index * GRANULE_BYTES,
				party->shape->length_max, ret_ref);
	if (err)
		return err;
	history_add(party->history, EVENT_TRY, id);
	message_fill(ledger_payload(party, *ret_ref), party->shape->length_max,
		     id);
	return ACT_DONE;
}

/* The seat of whoever has a place; 0 when nobody has. */
static uint64_t seat_of(struct party *party, unsigned place)
{
	uint64_t word =
		petal_load(&ledger_office(party)->places[place], PETAL_RELAXED);

	return word & GONE ? 0 : word;
}

static bool deliver(struct party *party, unsigned ring, struct petal_ref ref,
		    bool copy)
{
	struct parcel parcel = { .ref = ref, .copy = copy };
	void *slot = petal_spsc_claim(&ledger_view(party)->rings[ring]);

	if (!slot)
		return false;
	memcpy(slot, &parcel, sizeof(parcel));
	petal_spsc_publish(&ledger_view(party)->rings[ring]);
	return true;
}

/* Whether a grant may be refused: by a receiver's death, or its successor. */
static bool is_refusal(int err)
{
	return err == -ESRCH || err == -EBUSY || err == -EEXIST;
}

/*
 * Grant to one consumer, and say so. Return: 0; 1 if nobody has it now but us;
 * or an error.
 */
static int grant(struct party *party, struct petal_ref ref, bool keep)
{
	struct petal_ledger *ledger = owned_by(party);

	for (unsigned i = 0; i < party->shape->consumers; i++) {
		unsigned place = (party->next + i) % party->shape->consumers;
		uint64_t seat = seat_of(party, place);
		uint64_t to = UINT64_C(1) << seat;
		int err;

		if (!seat)
			continue;
		err = keep ? petal_ledger_share(ledger, ref, to)
			   : petal_ledger_forward(ledger, ref, to);
		if (is_refusal(err))
			continue;
		if (err || deliver(party, place, ref, false))
			return err;
		err = petal_ledger_recall(ledger, ref, to);
		if (err)
			return err;
	}
	return 1;
}

static int take_back(struct party *party, struct petal_ref ref)
{
	int err = petal_ledger_drop(owned_by(party), ref);

	party_gave_up(party, 0);
	return err ? err : ACT_NOTHING;
}

static int send(struct party *party)
{
	struct petal_ref ref;
	int err = lend(party, &ref);

	if (err)
		return err;
	err = grant(party, ref, false);
	if (err > 0)
		return take_back(party, ref);
	return err ? err : party_settled(party, 0);
}

/* Keep it for a while beside the consumer. */
static int send_shared(struct party *party)
{
	uint64_t id = party_next_id(party);
	struct petal_ref ref;
	int err = lend(party, &ref);

	if (err)
		return err;
	err = grant(party, ref, true);
	if (err > 0)
		return take_back(party, ref);
	if (err)
		return err;
	party_settled(party, 0);
	party_still(party, id, ledger_payload(party, ref),
		    party->shape->length_max);
	return petal_ledger_drop(owned_by(party), ref);
}

/* To both consumers by one grant; the message counts as the first one's. */
static int send_to_all(struct party *party)
{
	struct petal_ledger *ledger = owned_by(party);
	uint64_t first = seat_of(party, 0), second = seat_of(party, 1);
	uint64_t to = UINT64_C(1) << first | UINT64_C(1) << second;
	struct petal_ref ref;
	int err;

	if (party->shape->consumers != PLACES || !first || !second)
		return send(party);
	err = lend(party, &ref);
	if (err)
		return err;
	err = petal_ledger_share(ledger, ref, to);
	if (is_refusal(err))
		return take_back(party, ref);
	if (!err && !deliver(party, 0, ref, false)) {
		err = petal_ledger_recall(ledger, ref, to);
		return err ? err : take_back(party, ref);
	}
	if (!err && !deliver(party, 1, ref, true))
		err = petal_ledger_recall(ledger, ref, UINT64_C(1) << second);
	if (err)
		return err;
	party_settled(party, 0);
	return petal_ledger_drop(ledger, ref);
}

static int send_and_recall(struct party *party)
{
	struct petal_ledger *ledger = owned_by(party);
	uint64_t seat = seat_of(party, party->next % party->shape->consumers);
	struct petal_ref ref;
	int err = lend(party, &ref);

	if (err)
		return err;
	if (seat) {
		err = petal_ledger_forward(ledger, ref, UINT64_C(1) << seat);
		if (!err)
			err = petal_ledger_recall(ledger, ref,
						  UINT64_C(1) << seat);
	}
	if (err && !is_refusal(err))
		return err;
	err = petal_ledger_drop(ledger, ref);
	return err ? err : party_gave_up(party, 0);
}

/* ---- the consumers ---- */

/*
 * A successor takes over a ring in which there are refs to what its predecessor
 * was granted. If the same buffer is granted to it by another way, it accepts
 * by such an older ref, and has the buffer when the one that was meant comes.
 */
static bool came_by_older(const struct party *party, struct petal_ref ref)
{
	const struct ledger_view *view = (const void *)party->view;

	return party->follows && ref.bits == view->kept.bits;
}

/* What one ring has next, accepted; refs that were seen before are passed. */
static int take_from(struct party *party, unsigned ring,
		     struct parcel *ret_parcel)
{
	struct ledger_view *view = ledger_view(party);

	for (unsigned i = 0; i < 2 * RING_SLOTS; i++) {
		const void *slot = petal_spsc_peek(&view->rings[ring]);
		uint32_t number;
		int err;

		if (!slot)
			return ACT_NOTHING;
		memcpy(ret_parcel, slot, sizeof(*ret_parcel));
		number = petal_ref_segment(ret_parcel->ref);
		if (number >= ledger_count(party->shape))
			return -ERANGE;
		err = petal_ledger_accept(&view->ledgers[number],
					  ret_parcel->ref);
		petal_spsc_release(&view->rings[ring]);
		if (err == -EALREADY && came_by_older(party, ret_parcel->ref))
			continue;
		if (err != -EACCES && err != -ESTALE)
			return err;
	}
	return ACT_NOTHING;
}

static int take(struct party *party, struct parcel *ret_parcel)
{
	int outcome = take_from(party, party->index, ret_parcel);

	if (outcome == ACT_NOTHING && party->index == 1)
		outcome = take_from(party, RING_BETWEEN, ret_parcel);
	return outcome;
}

/* The same, and when there is nothing, see to what the dead have left. */
static int take_or_tidy(struct party *party, struct parcel *ret_parcel)
{
	int outcome = take(party, ret_parcel);
	uint64_t dead, owners;

	if (outcome != ACT_NOTHING)
		return outcome;
	dead = ledger_dead(party);
	owners = ledger_buried(party);
	outcome = take(party, ret_parcel);
	if (outcome != ACT_NOTHING)
		return outcome;
	outcome = ledger_settle(party, dead, owners);
	if (!outcome)
		outcome = ledger_clear(party, dead, owners);
	return outcome ? outcome : ACT_NOTHING;
}

static struct petal_ledger *ledger_of(struct party *party, struct petal_ref ref)
{
	return &ledger_view(party)->ledgers[petal_ref_segment(ref)];
}

/* Read what was taken. Return: its id, 0 if it is another's message. */
static uint64_t got(struct party *party, const struct parcel *parcel)
{
	const uint8_t *bytes = ledger_payload(party, parcel->ref);
	uint32_t length = party->shape->length_max;
	int err = petal_ledger_check(ledger_of(party, parcel->ref), parcel->ref,
				     length);

	if (err)
		history_add(party->history, EVENT_ODD, (uint64_t)-err);
	if (!parcel->copy)
		return party_got(party, bytes, length);
	party_still(party, message_get(bytes), bytes, length);
	return 0;
}

static int let_go(struct party *party, const struct parcel *parcel, uint64_t id)
{
	int err;

	if (id) {
		party_still(party, id, ledger_payload(party, parcel->ref),
			    party->shape->length_max);
		history_add(party->history, EVENT_FREE, id);
	}
	err = petal_ledger_drop(ledger_of(party, parcel->ref), parcel->ref);
	if (!err && id)
		history_add(party->history, EVENT_DONE, id);
	return err;
}

static int receive(struct party *party)
{
	struct parcel parcel;
	int outcome = take_or_tidy(party, &parcel);

	if (outcome)
		return outcome;
	return let_go(party, &parcel, got(party, &parcel));
}

/* Keep one while another comes and goes. */
static int keep_one(struct party *party)
{
	struct parcel parcel;
	int outcome = take_or_tidy(party, &parcel);
	uint64_t id;

	if (outcome)
		return outcome;
	id = got(party, &parcel);
	ledger_view(party)->kept = parcel.ref;
	outcome = receive(party);
	ledger_view(party)->kept = (struct petal_ref){ 0 };
	if (outcome < 0)
		return outcome;
	return let_go(party, &parcel, id);
}

/* From the first consumer to the second, who gets the message then. */
static int forward(struct party *party)
{
	struct parcel parcel;
	uint64_t seat, to;
	int outcome, err;

	if (party->index != 0 || party->shape->consumers != PLACES)
		return receive(party);
	outcome = take_or_tidy(party, &parcel);
	seat = seat_of(party, 1);
	to = UINT64_C(1) << seat;
	if (outcome)
		return outcome;
	if (!seat || parcel.copy)
		return let_go(party, &parcel, got(party, &parcel));
	err = petal_ledger_forward(ledger_of(party, parcel.ref), parcel.ref,
				   to);
	if (!err && deliver(party, RING_BETWEEN, parcel.ref, false))
		return ACT_DONE;
	if (!err)
		err = petal_ledger_recall(ledger_of(party, parcel.ref),
					  parcel.ref, to);
	else if (is_refusal(err))
		err = 0;
	return err ? err : let_go(party, &parcel, got(party, &parcel));
}

const struct act ledger_acts[LEDGER_ACTS] = {
	{ "send", PRODUCER, send, false },
	{ "send shared", PRODUCER, send_shared, false },
	{ "send to all", PRODUCER, send_to_all, false },
	{ "recall", PRODUCER, send_and_recall, false },
	{ "receive", CONSUMER, receive, false },
	{ "keep one", CONSUMER, keep_one, false },
	{ "forward", CONSUMER, forward, false },
};
