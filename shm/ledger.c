/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/ledger.h"

/*
 * The rare half of a ledger: making one, taking and giving back seats, lending,
 * and what is done after a death. The rest is inline.
 *
 * After a death nothing of the dead one moves any more, so each entry is read
 * once and changed by operations that only ever take away: a bit that is off,
 * or a name that is gone, is the same for the second repairer as for the first.
 * What could be hit by mistake is a successor that bears the same number. Hence
 * a seat shows who works on it; nobody sits down there before they are gone.
 */

#define PETAL_LEDGER_GRANULES_MAX (UINT64_C(1) << 28)

struct petal_ledger_layout {
	uint64_t home;
	uint64_t entries;
	uint64_t map;
	uint64_t total;
};

static uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

static bool shape_is_sane(const struct petal_ledger_geometry *geometry)
{
	uint32_t granule = geometry->granule_bytes;

	return granule >= PETAL_REF_UNIT_BYTES &&
	       granule <= PETAL_LEDGER_GRANULE_BYTES_MAX &&
	       (granule & (granule - 1)) == 0 && geometry->range_bytes > 0 &&
	       geometry->range_bytes <= PETAL_REF_RANGE_BYTES_MAX &&
	       geometry->range_bytes % granule == 0 &&
	       geometry->range_bytes / granule <= PETAL_LEDGER_GRANULES_MAX &&
	       geometry->entries > 0 &&
	       geometry->entries <= PETAL_LEDGER_ENTRIES_MAX &&
	       geometry->segment < PETAL_REF_SEGMENTS &&
	       geometry->start_generation <= PETAL_REF_GENERATION_MAX;
}

static struct petal_ledger_layout
lay_out(const struct petal_ledger_geometry *geometry)
{
	struct petal_ledger_layout layout;
	uint64_t groups = round_up(geometry->entries, 64) / 64;
	uint64_t granules = geometry->range_bytes / geometry->granule_bytes;

	layout.home = sizeof(struct petal_ledger_shared);
	layout.entries = layout.home + round_up(groups * 8, 64);
	layout.map = layout.entries + (uint64_t)geometry->entries *
					      sizeof(struct petal_ledger_entry);
	layout.total = layout.map + round_up(granules * 4, 64);
	return layout;
}

uint64_t petal_ledger_bytes(const struct petal_ledger_geometry *geometry)
{
	return shape_is_sane(geometry) ? lay_out(geometry).total : 0;
}

static void point_into(void *memory,
		       const struct petal_ledger_geometry *geometry,
		       struct petal_ledger *ledger)
{
	struct petal_ledger_layout layout = lay_out(geometry);
	unsigned char *bytes = memory;

	ledger->shared = memory;
	ledger->home = (void *)(bytes + layout.home);
	ledger->entries = (void *)(bytes + layout.entries);
	ledger->map = (void *)(bytes + layout.map);
	ledger->range_bytes = geometry->range_bytes;
	ledger->own = 0;
	ledger->entry_count = geometry->entries;
	ledger->granule_shift =
		(uint32_t)__builtin_ctz(geometry->granule_bytes);
	ledger->segment = geometry->segment;
	ledger->holder = PETAL_LEDGER_NOBODY;
	ledger->sitting = 0;
	ledger->generation = geometry->start_generation;
}

static void clear_words(struct petal_u64 *words, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		petal_store(&words[i], 0, PETAL_RELAXED);
}

int petal_ledger_format(void *memory,
			const struct petal_ledger_geometry *geometry)
{
	struct petal_ledger_shared *shared = memory;
	struct petal_ledger ledger;
	uint64_t granules;

	if (!memory || (uintptr_t)memory % 64 || !shape_is_sane(geometry))
		return -EINVAL;
	petal_store(&shared->magic, 0, PETAL_RELAXED);
	point_into(memory, geometry, &ledger);
	clear_words(memory, sizeof(*shared) / 8);
	clear_words(ledger.home, petal_ledger_groups(&ledger));
	for (uint32_t i = 0; i < ledger.entry_count; i++) {
		petal_store(&ledger.entries[i].state, 0, PETAL_RELAXED);
		petal_store(&ledger.entries[i].place, 0, PETAL_RELAXED);
		clear_words(ledger.entries[i].names, PETAL_LEDGER_WORDS);
		ledger.entries[i].reserved = 0;
	}
	granules = geometry->range_bytes >> ledger.granule_shift;
	for (uint64_t i = 0; i < granules; i++)
		petal_store(&ledger.map[i], 0, PETAL_RELAXED);

	petal_store(&shared->layout, PETAL_LEDGER_LAYOUT, PETAL_RELAXED);
	petal_store(&shared->holders, PETAL_LEDGER_HOLDERS, PETAL_RELAXED);
	petal_store(&shared->range_bytes, geometry->range_bytes, PETAL_RELAXED);
	petal_store(&shared->granule_bytes, geometry->granule_bytes,
		    PETAL_RELAXED);
	petal_store(&shared->entries, geometry->entries, PETAL_RELAXED);
	petal_store(&shared->segment, geometry->segment, PETAL_RELAXED);
	petal_store(&shared->start_generation, geometry->start_generation,
		    PETAL_RELAXED);
	/* [FORMAT] Release: who sees the magic sees all of the above. */
	petal_store(&shared->magic, PETAL_LEDGER_MAGIC, PETAL_RELEASE(FORMAT));
	return 0;
}

/* The incarnation of a seat. */
static uint32_t sitting_of(uint64_t seat)
{
	return (uint32_t)(seat / PETAL_LEDGER_INCARNATION);
}

/* Sit down, if nobody sits there or is still at work on it. */
static int take_seat(struct petal_ledger *ledger, uint32_t holder)
{
	struct petal_u64 *seat = &ledger->shared->seats[holder];
	uint64_t was = petal_load(seat, PETAL_RELAXED);
	uint32_t sitting = (sitting_of(was) + 1) & PETAL_REF_GENERATION_MAX;

	if (was % PETAL_LEDGER_INCARNATION)
		return -EBUSY;
	/* [SEAT] Acquire: the last holder's traces are erased. */
	if (!petal_cas(seat, &was,
		       sitting * PETAL_LEDGER_INCARNATION | PETAL_LEDGER_SEATED,
		       PETAL_ACQUIRE(SEAT)))
		return -EBUSY;
	ledger->holder = holder;
	ledger->sitting = sitting;
	ledger->own = petal_ledger_bit(holder);
	return 0;
}

uint32_t petal_ledger_sitting(const struct petal_ledger *ledger,
			      uint32_t holder)
{
	if (holder >= PETAL_LEDGER_HOLDERS)
		return 0;
	return sitting_of(
		petal_load(&ledger->shared->seats[holder], PETAL_RELAXED));
}

static struct petal_ledger_geometry
read_geometry(const struct petal_ledger_shared *shared)
{
	return (struct petal_ledger_geometry){
		.range_bytes = petal_load(&shared->range_bytes, PETAL_RELAXED),
		.granule_bytes =
			petal_load(&shared->granule_bytes, PETAL_RELAXED),
		.entries = petal_load(&shared->entries, PETAL_RELAXED),
		.segment = petal_load(&shared->segment, PETAL_RELAXED),
		.start_generation =
			petal_load(&shared->start_generation, PETAL_RELAXED),
	};
}

int petal_ledger_attach(void *memory, uint64_t bytes, uint32_t holder,
			struct petal_ledger *ret_ledger)
{
	const struct petal_ledger_shared *shared = memory;
	struct petal_ledger_geometry geometry;
	struct petal_ledger ledger;
	int err;

	if (!memory || (uintptr_t)memory % 64 || bytes < sizeof(*shared))
		return -EINVAL;
	if (holder >= PETAL_LEDGER_HOLDERS && holder != PETAL_LEDGER_NOBODY)
		return -EINVAL;
	/* [FORMAT] Acquire: with the magic comes the geometry. */
	if (petal_load(&shared->magic, PETAL_ACQUIRE(FORMAT)) !=
	    PETAL_LEDGER_MAGIC)
		return -EINVAL;
	if (petal_load(&shared->layout, PETAL_RELAXED) != PETAL_LEDGER_LAYOUT)
		return -PETAL_EVERSION;
	geometry = read_geometry(shared);
	if (petal_load(&shared->holders, PETAL_RELAXED) !=
		    PETAL_LEDGER_HOLDERS ||
	    !shape_is_sane(&geometry) || lay_out(&geometry).total > bytes)
		return -PETAL_EGEOMETRY;

	point_into(memory, &geometry, &ledger);
	if (holder != PETAL_LEDGER_NOBODY) {
		err = take_seat(&ledger, holder);
		if (err)
			return err;
	}
	*ret_ledger = ledger;
	return 0;
}

int petal_ledger_own(struct petal_ledger *ledger)
{
	uint64_t never = 0;

	if (!ledger->own)
		return -EINVAL;
	if (!petal_cas(&ledger->shared->owned, &never, 1, PETAL_RELAXED))
		return -EEXIST;
	return 0;
}

/* A generation that is not zero, each time another. */
static uint32_t next_generation(struct petal_ledger *ledger)
{
	uint32_t generation = ledger->generation ? ledger->generation : 1;

	ledger->generation =
		generation == PETAL_REF_GENERATION_MAX ? 1 : generation + 1;
	return generation;
}

int petal_ledger_lend(struct petal_ledger *ledger, uint32_t index,
		      uint64_t offset, uint64_t bytes,
		      struct petal_ref *ret_ref)
{
	uint64_t granule = offset >> ledger->granule_shift;
	struct petal_ledger_entry *entry;
	uint64_t granules;
	uint32_t generation;

	if (!ledger->own || index >= ledger->entry_count || bytes == 0 ||
	    offset != granule << ledger->granule_shift ||
	    offset >= ledger->range_bytes ||
	    bytes > ledger->range_bytes - offset)
		return -EINVAL;
	entry = &ledger->entries[index];
	generation = next_generation(ledger);
	granules = ((bytes - 1) >> ledger->granule_shift) + 1;

	/*
	 * The state of before is seen no more by anyone who reads a place or a
	 * name of now: a loan that died here is one that never was.
	 */
	petal_store(&entry->state, 0, PETAL_RELAXED);
	clear_words(entry->names, PETAL_LEDGER_WORDS);
	petal_store(petal_ledger_word(entry, ledger->holder),
		    petal_ledger_name(ledger->holder)
			    << petal_ledger_shift(ledger->holder),
		    PETAL_RELAXED);
	petal_store(&entry->place, granule << 32 | granules, PETAL_RELAXED);
	petal_store(&ledger->map[granule], index + 1, PETAL_RELAXED);
	/* [LOAN] Release: who sees the generation sees its place and names. */
	petal_store(&entry->state,
		    (uint64_t)generation << PETAL_LEDGER_HOLDERS | ledger->own,
		    PETAL_RELEASE(LOAN));
	*ret_ref = petal_ref_make(ledger->segment, generation, offset);
	return 0;
}

void petal_ledger_retire(const struct petal_ledger *ledger, uint32_t index)
{
	if (index < ledger->entry_count)
		petal_store(&ledger->entries[index].state, 0, PETAL_RELAXED);
}

/*
 * Make a forwarded buffer ours again: the name first, then the bit. Whoever
 * was quicker in granting it to us gives it to us later.
 */
static int reclaim(const struct petal_ledger *ledger,
		   struct petal_ledger_entry *entry, uint64_t state,
		   uint64_t *ret_on)
{
	uint64_t own = petal_ledger_name(ledger->holder), was;

	*ret_on = 0;
	if (state & ledger->own)
		return 0;
	if (petal_ledger_rename(entry, ledger->holder, 0, own, &was) ||
	    was == own) {
		*ret_on = ledger->own;
		return 0;
	}
	return was == PETAL_LEDGER_NOBODY ? -EBUSY : -EEXIST;
}

int petal_ledger_recall(const struct petal_ledger *ledger, struct petal_ref ref,
			uint64_t to)
{
	uint64_t own = petal_ledger_name(ledger->holder);
	struct petal_ledger_entry *entry;
	uint64_t state, on;
	int err, outcome;

	if (!to || to & ~PETAL_LEDGER_HELD || to & ledger->own || !ledger->own)
		return -EINVAL;
	err = petal_ledger_find(ledger, ref, &entry, &state);
	if (err)
		return err;
	for (uint64_t left = to; left; left &= left - 1) {
		uint32_t holder = (uint32_t)__builtin_ctzll(left);
		/* [NAME] Acquire: our own, so it cannot be old. */
		uint64_t word = petal_load(petal_ledger_word(entry, holder),
					   PETAL_ACQUIRE(NAME));

		if ((petal_ledger_named(word, holder) &
		     ~PETAL_LEDGER_RECALLED) != own)
			return -EINVAL;
	}
	outcome = reclaim(ledger, entry, state, &on);
	if (outcome == -EBUSY)
		return outcome;
	err = petal_ledger_withdraw(ledger, entry, petal_ref_generation(ref),
				    to, on);
	/* The receiver died, and the buffer went home, while we were at it. */
	if (err == -ESTALE && on)
		petal_ledger_rename(entry, ledger->holder, own, 0, &own);
	return err ? err : outcome;
}

/* A name has gone from an entry: if that was the last hold, tell the owner. */
static void hint_if_free(const struct petal_ledger *ledger,
			 struct petal_ledger_entry *entry)
{
	/* [HOME] After the bit and the name are off, as in every drop. */
	if (!(petal_load(&entry->state, PETAL_SEQ_CST(HOME)) &
	      PETAL_LEDGER_HELD))
		petal_ledger_hint(ledger, entry);
}

/* Erase a granter's name, whether or not it was about to recall. */
static void erase(struct petal_ledger_entry *entry, uint32_t column,
		  uint32_t dead)
{
	uint64_t name = petal_ledger_name(dead), was;

	if (!petal_ledger_rename(entry, column, name, 0, &was) &&
	    was == (name | PETAL_LEDGER_RECALLED))
		petal_ledger_rename(entry, column, was, 0, &was);
}

/* Whose grant or claim stands in a column. */
static uint64_t granter(uint64_t word, uint32_t column)
{
	return petal_ledger_named(word, column) & ~PETAL_LEDGER_RECALLED;
}

/* Keep an empty seat empty while we work. Return: whether nobody sits there. */
static bool guard_seat(const struct petal_ledger *ledger, uint32_t holder)
{
	struct petal_u64 *seat = &ledger->shared->seats[holder];
	uint64_t was = petal_load(seat, PETAL_RELAXED);

	for (uint32_t i = 0; i < PETAL_LEDGER_TRIES; i++) {
		if ((was & PETAL_LEDGER_PHASE) == PETAL_LEDGER_SEATED)
			return false;
		if (petal_cas(seat, &was, was | ledger->own,
			      PETAL_SEQ_CST(GHOST)))
			return true;
	}
	return false;
}

static void unguard_seat(const struct petal_ledger *ledger, uint32_t holder)
{
	/* [SEAT] Release: what we erased is gone for who sits down next. */
	petal_and(&ledger->shared->seats[holder], ~ledger->own,
		  PETAL_RELEASE(SEAT));
}

/*
 * Keep a seat from being given out while we erase what its last holder left:
 * else a successor might grant us something before our last look. Return: 1; 0
 * if that sitting is over; -EBUSY.
 */
static int keep_from_successors(const struct petal_ledger *ledger,
				uint32_t dead, uint32_t sitting)
{
	struct petal_u64 *seat = &ledger->shared->seats[dead];
	uint64_t was = petal_load(seat, PETAL_RELAXED);

	for (uint32_t i = 0; i < PETAL_LEDGER_TRIES; i++) {
		if (!(was & PETAL_LEDGER_PHASE) || sitting_of(was) != sitting)
			return 0;
		if (petal_cas(seat, &was, was | ledger->own,
			      PETAL_SEQ_CST(GHOST)))
			return 1;
	}
	return -EBUSY;
}

static bool settle_entry(const struct petal_ledger *ledger,
			 struct petal_ledger_entry *entry, uint32_t dead)
{
	/* [NAME] Acquire: the bit is not older than its name. */
	uint64_t word = petal_load(petal_ledger_word(entry, ledger->holder),
				   PETAL_ACQUIRE(NAME));

	if (granter(word, ledger->holder) != petal_ledger_name(dead) ||
	    !(petal_load(&entry->state, PETAL_RELAXED) & ledger->own))
		return false;
	petal_and(&entry->state, ~ledger->own, PETAL_SEQ_CST(HOME));
	erase(entry, ledger->holder, dead);
	hint_if_free(ledger, entry);
	return true;
}

int petal_ledger_settle_sitting(const struct petal_ledger *ledger,
				uint32_t dead, uint32_t sitting)
{
	int count = 0, outcome;

	if (dead >= PETAL_LEDGER_HOLDERS || !ledger->own ||
	    dead == ledger->holder)
		return -EINVAL;
	outcome = keep_from_successors(ledger, dead, sitting);
	if (outcome <= 0)
		return outcome;
	for (uint32_t i = 0; i < ledger->entry_count; i++)
		count += settle_entry(ledger, &ledger->entries[i], dead);
	unguard_seat(ledger, dead);
	return count;
}

int petal_ledger_settle(const struct petal_ledger *ledger, uint32_t dead)
{
	return petal_ledger_settle_sitting(ledger, dead,
					   petal_ledger_sitting(ledger, dead));
}

/*
 * The dead one's name stands in another's column: a claim whose grant it never
 * made is erased; what it granted is the receiver's to drop, or, if nobody sits
 * there, ours. Return: 1 if a living receiver must see to it.
 */
static int repair_column(const struct petal_ledger *ledger,
			 struct petal_ledger_entry *entry, uint32_t dead,
			 uint32_t column)
{
	uint64_t bit = petal_ledger_bit(column);
	bool granted = petal_load(&entry->state, PETAL_SEQ_CST(GHOST)) & bit;

	if (granted && !guard_seat(ledger, column))
		return 1;
	if (granted)
		petal_and(&entry->state, ~bit, PETAL_SEQ_CST(HOME));
	erase(entry, column, dead);
	if (granted)
		unguard_seat(ledger, column);
	return 0;
}

/* Return: how many of its grants living receivers must see to. */
static uint32_t repair_entry(const struct petal_ledger *ledger,
			     struct petal_ledger_entry *entry, uint32_t dead)
{
	uint64_t name = petal_ledger_name(dead);
	uint64_t marks = PETAL_LEDGER_RECALLED * PETAL_LEDGER_BYTE_ONES;
	/* [GHOST] After the seat was swapped; no grant comes unseen now. */
	uint64_t state = petal_load(&entry->state, PETAL_SEQ_CST(GHOST));
	bool touched = state & petal_ledger_bit(dead);
	uint32_t waiting = 0;

	for (uint32_t i = 0; i < PETAL_LEDGER_WORDS; i++) {
		/* [NAME] Acquire: what it names is not older. */
		uint64_t word =
			petal_load(&entry->names[i], PETAL_ACQUIRE(NAME));

		if (!petal_ledger_has_zero_byte((word & ~marks) ^
						name * PETAL_LEDGER_BYTE_ONES))
			continue;
		touched = true;
		for (uint32_t column = 8 * i; column < 8 * i + 8; column++)
			if (column != dead && granter(word, column) == name)
				waiting += (uint32_t)repair_column(
					ledger, entry, dead, column);
	}
	if (!touched)
		return 0;
	/* Last its own hold: until here the entry cannot be another buffer. */
	petal_and(&entry->state, ~petal_ledger_bit(dead), PETAL_SEQ_CST(HOME));
	erase(entry, dead, dead);
	hint_if_free(ledger, entry);
	return waiting;
}

/*
 * Show that its holder is dead, and that we are at it. Return: 0 if others have
 * done so and are through.
 */
static int condemn(const struct petal_ledger *ledger, uint32_t dead,
		   uint32_t sitting)
{
	struct petal_u64 *seat = &ledger->shared->seats[dead];
	uint64_t was = petal_load(seat, PETAL_RELAXED);

	for (uint32_t i = 0; i < PETAL_LEDGER_TRIES; i++) {
		uint64_t marks = was & PETAL_LEDGER_HELD;

		if (!(was & PETAL_LEDGER_PHASE) || sitting_of(was) != sitting)
			return 0;
		/* [GHOST] Before we look at the entries. */
		if (petal_cas(seat, &was,
			      was / PETAL_LEDGER_INCARNATION *
					      PETAL_LEDGER_INCARNATION |
				      PETAL_LEDGER_DEAD | marks | ledger->own,
			      PETAL_SEQ_CST(GHOST)))
			return 1;
	}
	return -EBUSY;
}

/* We are done; who is the last one there empties the seat. */
static int empty_seat(const struct petal_ledger *ledger, uint32_t dead)
{
	struct petal_u64 *seat = &ledger->shared->seats[dead];
	uint64_t was = petal_load(seat, PETAL_RELAXED);

	for (uint32_t i = 0; i < PETAL_LEDGER_TRIES; i++) {
		uint64_t now = was & ~ledger->own;

		if (!(now & PETAL_LEDGER_HELD))
			now &= ~PETAL_LEDGER_PHASE;
		/* [SEAT] Release: what we erased is gone for the next. */
		if (petal_cas(seat, &was, now, PETAL_ACQ_REL(SEAT)))
			return now & PETAL_LEDGER_PHASE ? -EBUSY : 0;
	}
	return -EBUSY;
}

static int clear_holder(const struct petal_ledger *ledger, uint32_t dead,
			uint32_t sitting)
{
	uint32_t waiting = 0;
	int outcome = condemn(ledger, dead, sitting);

	if (outcome <= 0)
		return outcome;
	for (uint32_t i = 0; i < ledger->entry_count; i++)
		waiting += repair_entry(ledger, &ledger->entries[i], dead);
	/* Where it was repairing itself, its mark would keep the seat. */
	for (uint32_t i = 0; i < PETAL_LEDGER_HOLDERS; i++)
		if (i != dead || dead != ledger->holder)
			petal_and(&ledger->shared->seats[i],
				  ~petal_ledger_bit(dead), PETAL_RELEASE(SEAT));
	if (waiting == 0)
		return empty_seat(ledger, dead);
	unguard_seat(ledger, dead);
	return (int)waiting;
}

int petal_ledger_repair_sitting(const struct petal_ledger *ledger,
				uint32_t dead, uint32_t sitting)
{
	if (dead >= PETAL_LEDGER_HOLDERS || !ledger->own ||
	    dead == ledger->holder)
		return -EINVAL;
	return clear_holder(ledger, dead, sitting);
}

int petal_ledger_repair(const struct petal_ledger *ledger, uint32_t dead)
{
	return petal_ledger_repair_sitting(ledger, dead,
					   petal_ledger_sitting(ledger, dead));
}

int petal_ledger_leave(struct petal_ledger *ledger)
{
	if (!ledger->own)
		return -EINVAL;
	return clear_holder(ledger, ledger->holder, ledger->sitting);
}

uint32_t petal_ledger_held(const struct petal_ledger *ledger, uint32_t holder)
{
	uint64_t mask = holder < PETAL_LEDGER_HOLDERS ? petal_ledger_bit(holder)
						      : PETAL_LEDGER_HELD;
	uint32_t count = 0;

	for (uint32_t i = 0; i < ledger->entry_count; i++)
		if (petal_load(&ledger->entries[i].state, PETAL_RELAXED) & mask)
			count++;
	return count;
}
