/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/subject_ledger.h"

#include <errno.h>
#include <stdio.h>

#include "tests/crash/subjects.h"

/*
 * The producer owns a ledger, and lends buffers to consumers, whose refs go by
 * a ring for each; the first consumer may forward to the second. Where nothing
 * leaks, what was lent comes home, whoever dies.
 *
 * A ledger has one owner, ever; so there are several, and a new producer takes
 * the next. The number of a ledger is that of its refs' segment. A consumer
 * sits in all of them, in one of the seats of its place, and not in the one of
 * its predecessor, whom it repairs. The office says who sits where: first it is
 * written there, then the seat is taken, so whoever is in a seat and not in the
 * office is dead. Seats are given out in turn, lest one that is slow should
 * take a newcomer for the dead one whom it has seen there.
 *
 * What was granted to a consumer dies with it.
 */

#define PASSES 3u

/* ---- where things lie ---- */

static const struct petal_spsc_geometry ring_geometry = {
	.slot_count = RING_SLOTS,
	.slot_bytes = sizeof(struct parcel),
	.kind = PETAL_SPSC_STAMPED,
};

static struct petal_ledger_geometry geometry_of(const struct shape *shape,
						uint32_t number)
{
	struct petal_ledger_geometry geometry = {
		.range_bytes = shape->count * GRANULE_BYTES,
		.granule_bytes = GRANULE_BYTES,
		.entries = (uint32_t)shape->count,
		.segment = number,
		.start_generation = (uint32_t)shape->start_pos,
	};

	return geometry;
}

/* Enough for no seat to be given out again soon, where others may be slow. */
static uint32_t seat_count(const struct shape *shape)
{
	if (shape->consumers == 1)
		return 3;
	return ledger_count(shape) == LEDGERS_MAX ? 18 : 6;
}

static uint32_t first_seat(const struct shape *shape, unsigned place)
{
	return 1 + place * seat_count(shape);
}

static uint64_t table_bytes(const struct shape *shape)
{
	struct petal_ledger_geometry geometry = geometry_of(shape, 0);

	return petal_ledger_bytes(&geometry);
}

static uint64_t ledger_stride(const struct shape *shape)
{
	return table_bytes(shape) + shape->count * GRANULE_BYTES;
}

static uint64_t rings_bytes(void)
{
	return RINGS * petal_spsc_bytes(&ring_geometry);
}

static uint64_t ledger_bytes(const struct shape *shape)
{
	return sizeof(struct office) + rings_bytes() +
	       ledger_count(shape) * ledger_stride(shape);
}

static uint8_t *ring_at(void *memory, unsigned ring)
{
	return (uint8_t *)memory + sizeof(struct office) +
	       ring * petal_spsc_bytes(&ring_geometry);
}

static uint8_t *ledger_at(void *memory, const struct shape *shape,
			  uint32_t number)
{
	return ring_at(memory, RINGS) + number * ledger_stride(shape);
}

uint8_t *ledger_payload(const struct party *party, struct petal_ref ref)
{
	return ledger_at(party->memory, party->shape, petal_ref_segment(ref)) +
	       table_bytes(party->shape) + petal_ref_offset(ref);
}

static int ledger_format(void *memory, const struct shape *shape)
{
	int err = 0;

	for (unsigned i = 0; i < RINGS && !err; i++)
		err = petal_spsc_format(ring_at(memory, i), &ring_geometry);
	for (uint32_t i = 0; i < ledger_count(shape) && !err; i++) {
		struct petal_ledger_geometry geometry = geometry_of(shape, i);

		err = petal_ledger_format(ledger_at(memory, shape, i),
					  &geometry);
	}
	return err;
}

/* ---- who is dead ---- */

static uint64_t seat_word(const struct petal_ledger *ledger, uint32_t seat)
{
	return petal_load(&ledger->shared->seats[seat], PETAL_RELAXED);
}

static bool seat_is_empty(uint64_t word)
{
	return word % PETAL_LEDGER_INCARNATION == 0;
}

uint64_t ledger_buried(const struct party *party)
{
	/* [LEFT] Acquire: what the dead one published is there. */
	return petal_load(&ledger_office(party)->buried, PETAL_ACQUIRE(LEFT));
}

/* A bit for each consumer's seat whose holder is dead. The seats come first. */
uint64_t ledger_dead(struct party *party)
{
	struct ledger_view *view = ledger_view(party);
	uint64_t dead = 0;

	for (unsigned place = 0; place < party->shape->consumers; place++) {
		uint32_t first = first_seat(party->shape, place);
		uint64_t word;

		for (uint32_t i = first; i < first + seat_count(party->shape);
		     i++)
			if (!seat_is_empty(seat_word(&view->ledgers[0], i)))
				dead |= petal_ledger_bit(i);
		/* [LEFT] Acquire: not older than the seats. */
		word = petal_load(&ledger_office(party)->places[place],
				  PETAL_ACQUIRE(LEFT));
		if (!(word & GONE))
			dead &= ~petal_ledger_bit((uint32_t)word & 63);
	}
	return dead & ~petal_ledger_bit(view->seat);
}

/* What is left to do is done when more is known, or by others. */
static int clear_seat(const struct petal_ledger *ledger, uint32_t seat)
{
	int count = petal_ledger_repair(ledger, seat);

	return count == -EBUSY ? 1 : count;
}

/*
 * The first ledger last, and only after all others: a seat that is free there
 * is free in all, and nobody looks for it in the others any more.
 */
static int clear_everywhere(struct party *party, uint32_t seat)
{
	struct ledger_view *view = ledger_view(party);
	int outcome = 0;

	for (uint32_t i = ledger_count(party->shape); i-- > 0 && !outcome;)
		outcome = clear_seat(&view->ledgers[i], seat);
	return outcome;
}

static int clear_seats(struct party *party, uint64_t dead)
{
	int left = 0;

	for (uint64_t rest = dead; rest; rest &= rest - 1) {
		int outcome = clear_everywhere(party,
					       (uint32_t)__builtin_ctzll(rest));

		if (outcome < 0)
			return outcome;
		left |= outcome;
	}
	return left;
}

static int clear_owners(struct party *party, uint64_t count)
{
	struct ledger_view *view = ledger_view(party);
	int left = 0;

	for (uint64_t i = 0; i < count && i < ledger_count(party->shape); i++) {
		int outcome;

		if (seat_is_empty(seat_word(&view->ledgers[i], OWNER_SEAT)))
			continue;
		outcome = clear_seat(&view->ledgers[i], OWNER_SEAT);
		if (outcome < 0)
			return outcome;
		left |= outcome;
	}
	return left;
}

/* Who was repairing when it died is repaired too, and then its patient again. */
int ledger_clear(struct party *party, uint64_t dead, uint64_t owners)
{
	int left = 1;

	for (unsigned i = 0; i < PASSES && left > 0; i++) {
		int more;

		left = clear_seats(party, dead);
		if (left < 0)
			return left;
		more = clear_owners(party, owners);
		if (more < 0)
			return more;
		left |= more;
	}
	return 0;
}

/* What those granted in silence who were dead before the rings were drained. */
int ledger_settle(struct party *party, uint64_t dead, uint64_t owners)
{
	struct ledger_view *view = ledger_view(party);

	for (uint32_t i = 0; i < ledger_count(party->shape); i++) {
		uint64_t rest = dead;

		if (i < owners &&
		    !seat_is_empty(seat_word(&view->ledgers[i], OWNER_SEAT)))
			rest |= petal_ledger_bit(OWNER_SEAT);
		for (; rest; rest &= rest - 1) {
			int count = petal_ledger_settle(
				&view->ledgers[i],
				(uint32_t)__builtin_ctzll(rest));

			if (count < 0)
				return count;
		}
	}
	return 0;
}

/* ---- taking a place ---- */

static int attach_all(struct party *party, uint32_t seat)
{
	uint64_t bytes = table_bytes(party->shape);
	int err = 0;

	for (uint32_t i = 0; i < ledger_count(party->shape) && !err; i++)
		err = petal_ledger_attach(
			ledger_at(party->memory, party->shape, i), bytes, seat,
			&ledger_view(party)->ledgers[i]);
	return err;
}

/* As if it had never been away: the private side of a seat that is ours. */
static void go_on(struct petal_ledger *ledger, uint32_t seat)
{
	ledger->holder = seat;
	ledger->own = petal_ledger_bit(seat);
	for (uint32_t i = 0; i < ledger->entry_count; i++) {
		uint32_t next = (uint32_t)(petal_load(&ledger->entries[i].state,
						      PETAL_RELAXED) >>
					   PETAL_LEDGER_HOLDERS) +
				1;

		if (next > ledger->generation)
			ledger->generation = next;
	}
}

static bool is_seated(const struct petal_ledger *ledger, uint32_t seat)
{
	return (seat_word(ledger, seat) & PETAL_LEDGER_PHASE) ==
	       PETAL_LEDGER_SEATED;
}

static int sit_down(struct party *party, struct petal_u64 *place, uint64_t last)
{
	uint32_t first = first_seat(party->shape, party->index);
	uint32_t count = seat_count(party->shape);
	uint32_t before = last ? (uint32_t)last - first : count - 1;
	int err = -EBUSY;

	for (uint32_t i = 1; i <= count && err == -EBUSY; i++) {
		uint32_t seat = first + (before + i) % count;

		/* [LEFT] Release: it is known before it can be seen there. */
		petal_store(place, seat, PETAL_RELEASE(LEFT));
		ledger_view(party)->seat = seat;
		err = attach_all(party, seat);
	}
	return err ? err : ledger_clear(party, ledger_dead(party), 0);
}

static int attach_ring(struct party *party, unsigned ring,
		       enum petal_spsc_role role)
{
	return petal_spsc_attach(ring_at(party->memory, ring),
				 petal_spsc_bytes(&ring_geometry), role,
				 &ledger_view(party)->rings[ring]);
}

static int consumer_join(struct party *party)
{
	struct ledger_view *view = ledger_view(party);
	struct petal_u64 *place = &ledger_office(party)->places[party->index];
	uint64_t last = petal_load(place, PETAL_RELAXED);
	int err = attach_ring(party, party->index, PETAL_SPSC_CONSUMER);

	if (!err && party->shape->consumers == PLACES)
		err = attach_ring(party, RING_BETWEEN,
				  party->index == 0 ? PETAL_SPSC_PRODUCER
						    : PETAL_SPSC_CONSUMER);
	if (!err && !party->follows && last)
		err = attach_all(party, PETAL_LEDGER_NOBODY);
	if (err)
		return err;
	if (party->follows || !last ||
	    !is_seated(&view->ledgers[0], (uint32_t)last))
		return sit_down(party, place, last & ~GONE);
	view->seat = (uint32_t)last;
	for (uint32_t i = 0; i < ledger_count(party->shape); i++)
		go_on(&view->ledgers[i], view->seat);
	return 0;
}

static int producer_join(struct party *party)
{
	struct ledger_view *view = ledger_view(party);
	uint32_t number = (uint32_t)ledger_buried(party);
	uint64_t bytes = table_bytes(party->shape);
	struct petal_ledger *ledger;
	uint8_t *memory;
	int err = 0;

	if (number >= ledger_count(party->shape))
		return ACT_CLOSED;
	ledger = &view->ledgers[number];
	memory = ledger_at(party->memory, party->shape, number);
	for (unsigned i = 0; i < party->shape->consumers && !err; i++)
		err = attach_ring(party, i, PETAL_SPSC_PRODUCER);
	if (!err)
		err = petal_ledger_attach(memory, bytes, PETAL_LEDGER_NOBODY,
					  ledger);
	if (err)
		return err;
	view->number = number;
	if (!party->follows && is_seated(ledger, OWNER_SEAT)) {
		go_on(ledger, OWNER_SEAT);
		return 0;
	}
	err = petal_ledger_attach(memory, bytes, OWNER_SEAT, ledger);
	return err ? err : petal_ledger_own(ledger);
}

static int ledger_join(struct party *party)
{
	return party->role == PRODUCER ? producer_join(party)
				       : consumer_join(party);
}

/* Write down that an owner is dead. Return: the seats of how many may be so. */
static uint64_t bury(struct party *party)
{
	struct ledger_view *view = ledger_view(party);
	uint64_t count = ledger_count(party->shape);

	while (count > 0 && !petal_load(&view->ledgers[count - 1].shared->owned,
					PETAL_RELAXED))
		count--;
	/* [LEFT] Release: whoever reads this knows what we know. */
	petal_store(&ledger_office(party)->buried, count, PETAL_RELEASE(LEFT));
	return count + 1;
}

static int ledger_repair(struct party *party, const struct casualties *dead)
{
	uint64_t owners = ledger_buried(party);

	if (dead->producers & 1)
		owners = bury(party);
	for (unsigned i = 0; i < party->shape->consumers; i++) {
		struct petal_u64 *place = &ledger_office(party)->places[i];
		uint64_t last = petal_load(place, PETAL_RELAXED);

		if ((dead->consumers >> i & 1) && i != party->index && last)
			petal_cas(place, &last, last | GONE,
				  PETAL_ACQ_REL(LEFT));
	}
	return ledger_clear(party, ledger_dead(party), owners);
}

static uint64_t ledger_room(const struct shape *shape)
{
	/* The rings are short, and their heads are late. */
	return shape->count < RING_SLOTS / 2 ? shape->count : RING_SLOTS / 2;
}

/* ---- at rest ---- */

static int complain(char *ret_why, const char *what, uint32_t number,
		    uint32_t where)
{
	snprintf(ret_why, 200, "%s (ledger %u, %u)", what, number, where);
	return 1;
}

/* Every buffer is home, and no seat is kept by one that is dead. */
static int ledger_audit(const void *memory, const struct shape *shape,
			char *ret_why)
{
	void *there = (void *)(uintptr_t)memory;
	const struct office *office = memory;
	uint64_t living = petal_ledger_bit(OWNER_SEAT);

	for (unsigned i = 0; i < shape->consumers; i++)
		living |=
			petal_ledger_bit((uint32_t)office->places[i].bits & 63);
	for (uint32_t i = 0; i < ledger_count(shape); i++) {
		struct petal_ledger ledger;

		if (petal_ledger_attach(ledger_at(there, shape, i),
					table_bytes(shape), PETAL_LEDGER_NOBODY,
					&ledger))
			return complain(ret_why, "no ledger", i, 0);
		for (uint32_t j = 0; j < ledger.entry_count; j++)
			if (!petal_ledger_is_home(&ledger, j))
				return complain(ret_why, "a buffer is lost", i,
						j);
		if (i < office->buried.bits &&
		    !seat_is_empty(seat_word(&ledger, OWNER_SEAT)))
			return complain(ret_why, "a dead owner sits", i, 0);
		for (uint32_t j = 0; j < PETAL_LEDGER_HOLDERS; j++)
			if (!(living >> j & 1) &&
			    !seat_is_empty(seat_word(&ledger, j)))
				return complain(ret_why, "a seat is lost", i,
						j);
	}
	return 0;
}

static const struct shape shapes[] = {
	{ "3 buffers, 2 consumers", 3, 24, 0, 1, 2, 2 },
	{ "3 buffers, 1 consumer", 3, 40, 5, 1, 1, 2 },
	{ "4 buffers, 2 consumers, many deaths", 4, 64, 0, 1, 2, LEDGERS_MAX },
	{ "100 buffers, many deaths", 100, 64, 7, 1, 1, LEDGERS_MAX },
};

const struct subject subject_ledger = {
	.name = "ledger",
	.seated = true,
	.repairer = CONSUMER,
	.shapes = shapes,
	.shape_count = sizeof(shapes) / sizeof(shapes[0]),
	.stepped = 2,
	.acts = ledger_acts,
	.act_count = LEDGER_ACTS,
	.bytes = ledger_bytes,
	.format = ledger_format,
	.join = ledger_join,
	.repair = ledger_repair,
	.audit = ledger_audit,
	.room = ledger_room,
};
