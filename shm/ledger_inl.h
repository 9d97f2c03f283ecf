/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_LEDGER_INL_H
#define PETAL_SHM_LEDGER_INL_H

/* "PETALLED" in memory. */
#define PETAL_LEDGER_MAGIC UINT64_C(0x44454c4c41544550)
#define PETAL_LEDGER_LAYOUT 1u

#define PETAL_LEDGER_HELD ((UINT64_C(1) << PETAL_LEDGER_HOLDERS) - 1)
#define PETAL_LEDGER_WORDS (PETAL_LEDGER_HOLDERS / 8)
/* On a granter's name: it takes the grant back, nobody may accept it. */
#define PETAL_LEDGER_RECALLED UINT64_C(0x80)
#define PETAL_LEDGER_BYTE_ONES UINT64_C(0x0101010101010101)

/* How often a swap may lose against others before it says -EBUSY. */
#define PETAL_LEDGER_TRIES 1000u

/* A seat: incarnation 22 | phase 2 | a bit per repairer that is at it, 40. */
#define PETAL_LEDGER_SEATED (UINT64_C(1) << 40)
#define PETAL_LEDGER_DEAD (UINT64_C(2) << 40)
#define PETAL_LEDGER_PHASE (UINT64_C(3) << 40)
#define PETAL_LEDGER_INCARNATION (UINT64_C(1) << 42)

struct petal_ledger_shared {
	struct petal_u64 magic; /* last at format, so that half is nothing */
	struct petal_u32 layout;
	struct petal_u32 holders;
	struct petal_u64 range_bytes;
	struct petal_u32 granule_bytes;
	struct petal_u32 entries;
	struct petal_u32 segment;
	struct petal_u32 start_generation;
	uint8_t reserved0[88];

	struct petal_u64 owned; /* 1 for ever from the first own on */
	uint8_t reserved1[120];

	struct petal_u64 news;
	uint8_t reserved2[120];

	struct petal_u64 seats[PETAL_LEDGER_HOLDERS];
	uint8_t reserved3[64];
};

static_assert(offsetof(struct petal_ledger_shared, layout) == 8, "layout");
static_assert(offsetof(struct petal_ledger_shared, holders) == 12, "layout");
static_assert(offsetof(struct petal_ledger_shared, range_bytes) == 16,
	      "layout");
static_assert(offsetof(struct petal_ledger_shared, granule_bytes) == 24,
	      "layout");
static_assert(offsetof(struct petal_ledger_shared, entries) == 28, "layout");
static_assert(offsetof(struct petal_ledger_shared, segment) == 32, "layout");
static_assert(offsetof(struct petal_ledger_shared, start_generation) == 36,
	      "layout");
static_assert(offsetof(struct petal_ledger_shared, owned) == 128, "layout");
static_assert(offsetof(struct petal_ledger_shared, news) == 256, "layout");
static_assert(offsetof(struct petal_ledger_shared, seats) == 384, "layout");
static_assert(sizeof(struct petal_ledger_shared) == 768, "layout");

struct petal_ledger_entry {
	struct petal_u64 state;
	struct petal_u64 place;
	struct petal_u64 names[PETAL_LEDGER_WORDS];
	uint64_t reserved;
};

static_assert(offsetof(struct petal_ledger_entry, place) == 8, "layout");
static_assert(offsetof(struct petal_ledger_entry, names) == 16, "layout");
static_assert(sizeof(struct petal_ledger_entry) == 64, "layout");

/* A holder's name is its number plus one, for zero is nobody. */
static inline uint64_t petal_ledger_name(uint32_t holder)
{
	return holder + 1;
}

static inline uint64_t petal_ledger_bit(uint32_t holder)
{
	return UINT64_C(1) << holder;
}

static inline uint32_t petal_ledger_shift(uint32_t holder)
{
	return holder % 8 * 8;
}

static inline struct petal_u64 *
petal_ledger_word(struct petal_ledger_entry *entry, uint32_t holder)
{
	return &entry->names[holder / 8];
}

/* The name that stands in @holder's column. */
static inline uint64_t petal_ledger_named(uint64_t word, uint32_t holder)
{
	return word >> petal_ledger_shift(holder) & 0xff;
}

static inline bool petal_ledger_has_zero_byte(uint64_t word)
{
	return (word - PETAL_LEDGER_BYTE_ONES) & ~word &
	       PETAL_LEDGER_BYTE_ONES << 7;
}

/*
 * Replace the name in a column, if it is @from. Returns whether it was; if not,
 * *ret_was is what stands there; PETAL_LEDGER_NOBODY after too many tries.
 */
static inline bool petal_ledger_rename(struct petal_ledger_entry *entry,
				       uint32_t holder, uint64_t from,
				       uint64_t to, uint64_t *ret_was)
{
	struct petal_u64 *shared = petal_ledger_word(entry, holder);
	/* [NAME] Acquire: the bit is not older than its name. */
	uint64_t word = petal_load(shared, PETAL_ACQUIRE(NAME));

	for (uint32_t i = 0; i < PETAL_LEDGER_TRIES; i++) {
		*ret_was = petal_ledger_named(word, holder);
		if (*ret_was != from)
			return false;
		/* [NAME] Who finds the new name finds what came before it. */
		if (petal_cas(shared, &word,
			      word ^ (from ^ to) << petal_ledger_shift(holder),
			      PETAL_ACQ_REL(NAME)))
			return true;
	}
	*ret_was = PETAL_LEDGER_NOBODY;
	return false;
}

static inline uint32_t petal_ledger_groups(const struct petal_ledger *ledger)
{
	return (ledger->entry_count + 63) / 64;
}

/* Which entry a ref is about, and its state, which has the ref's generation. */
static inline int petal_ledger_find(const struct petal_ledger *ledger,
				    struct petal_ref ref,
				    struct petal_ledger_entry **ret_entry,
				    uint64_t *ret_state)
{
	uint64_t offset = petal_ref_offset(ref);
	uint64_t granule = offset >> ledger->granule_shift;
	struct petal_ledger_entry *entry;
	uint64_t state, place;
	uint32_t index;

	if (petal_ref_segment(ref) != ledger->segment)
		return -ENXIO;
	if (offset >= ledger->range_bytes)
		return -ERANGE;
	if (offset != granule << ledger->granule_shift ||
	    petal_ref_generation(ref) == 0)
		return -EINVAL;
	index = petal_load(&ledger->map[granule], PETAL_RELAXED);
	if (index == 0)
		return -ESTALE;
	if (index > ledger->entry_count)
		return -PETAL_ECORRUPT;
	entry = &ledger->entries[index - 1];
	/* [LOAN] Acquire: the place that we read next is this generation's. */
	state = petal_load(&entry->state, PETAL_ACQUIRE(LOAN));
	place = petal_load(&entry->place, PETAL_RELAXED);
	if (state >> PETAL_LEDGER_HOLDERS != petal_ref_generation(ref) ||
	    place >> 32 != granule)
		return -ESTALE;
	*ret_entry = entry;
	*ret_state = state;
	return 0;
}

/* The same, of a buffer that we hold. */
static inline int petal_ledger_find_own(const struct petal_ledger *ledger,
					struct petal_ref ref,
					struct petal_ledger_entry **ret_entry)
{
	uint64_t state;
	int err = petal_ledger_find(ledger, ref, ret_entry, &state);

	if (err)
		return err;
	return state & ledger->own ? 0 : -EACCES;
}

static inline int petal_ledger_check(const struct petal_ledger *ledger,
				     struct petal_ref ref, uint64_t bytes)
{
	struct petal_ledger_entry *entry;
	uint64_t granules, left_bytes;
	int err = petal_ledger_find_own(ledger, ref, &entry);

	if (err)
		return err;
	granules = petal_load(&entry->place, PETAL_RELAXED) & UINT32_MAX;
	left_bytes = ledger->range_bytes - petal_ref_offset(ref);
	if (granules > left_bytes >> ledger->granule_shift)
		return -PETAL_ECORRUPT;
	return bytes <= granules << ledger->granule_shift ? 0 : -ERANGE;
}

/* Tell the owner. Hints only: to die before, between or after loses nothing. */
static inline void petal_ledger_hint(const struct petal_ledger *ledger,
				     const struct petal_ledger_entry *entry)
{
	uint64_t index = (uint64_t)(entry - ledger->entries);

	/* [HOME] Release: with the bit the owner sees the state. */
	petal_or(&ledger->home[index / 64], UINT64_C(1) << index % 64,
		 PETAL_RELEASE(HOME));
	/* [HOME] Release: with the news it sees the bit. */
	petal_swap(&ledger->shared->news, 1, PETAL_RELEASE(HOME));
}

/*
 * Our bit is off; erase our name too, which tells the owner that we are out.
 * Returns whether nobody holds the buffer then.
 */
static inline bool petal_ledger_sign_off(const struct petal_ledger *ledger,
					 struct petal_ledger_entry *entry)
{
	uint64_t byte = UINT64_C(0xff) << petal_ledger_shift(ledger->holder);

	/* [HOME] Before the look at the state; who is last sees it. */
	petal_and(petal_ledger_word(entry, ledger->holder), ~byte,
		  PETAL_SEQ_CST(HOME));
	return !(petal_load(&entry->state, PETAL_SEQ_CST(HOME)) &
		 PETAL_LEDGER_HELD);
}

/* An accept of a buffer that is known to be held. */
static inline int petal_ledger_sign(const struct petal_ledger *ledger,
				    struct petal_ledger_entry *entry)
{
	/* [NAME] Acquire: not older than the grant that we hold. */
	uint64_t word = petal_load(petal_ledger_word(entry, ledger->holder),
				   PETAL_ACQUIRE(NAME));
	uint64_t was = petal_ledger_named(word, ledger->holder);
	uint64_t own = petal_ledger_name(ledger->holder);

	if (was == own)
		return -EALREADY;
	if (was & PETAL_LEDGER_RECALLED)
		return -EACCES;
	if (was == 0)
		return -PETAL_ECORRUPT;
	return petal_ledger_rename(entry, ledger->holder, was, own, &was)
		       ? 0
		       : -EBUSY;
}

static inline int petal_ledger_accept(const struct petal_ledger *ledger,
				      struct petal_ref ref)
{
	struct petal_ledger_entry *entry;
	int err = petal_ledger_find_own(ledger, ref, &entry);

	return err ? err : petal_ledger_sign(ledger, entry);
}

/* Drop without a hint. Return: 1 if nobody holds it then, 0, or an error. */
static inline int petal_ledger_let_go(const struct petal_ledger *ledger,
				      struct petal_ref ref,
				      struct petal_ledger_entry **ret_entry)
{
	struct petal_ledger_entry *entry;
	int err = petal_ledger_find_own(ledger, ref, &entry);

	if (err)
		return err;
	err = petal_ledger_sign(ledger, entry);
	if (err && err != -EALREADY)
		return err;
	/* [HOME] All that we did with the buffer is before this. */
	petal_and(&entry->state, ~ledger->own, PETAL_SEQ_CST(HOME));
	*ret_entry = entry;
	return petal_ledger_sign_off(ledger, entry);
}

static inline int petal_ledger_drop(const struct petal_ledger *ledger,
				    struct petal_ref ref)
{
	struct petal_ledger_entry *entry;
	int last = petal_ledger_let_go(ledger, ref, &entry);

	if (last < 0)
		return last;
	if (last)
		petal_ledger_hint(ledger, entry);
	return 0;
}

/* Whether the seat is still what it was when we looked first. */
static inline bool petal_ledger_same_seat(uint64_t before, uint64_t now)
{
	return (before & PETAL_LEDGER_PHASE) == PETAL_LEDGER_SEATED &&
	       before / PETAL_LEDGER_SEATED == now / PETAL_LEDGER_SEATED;
}

/* Erase our claims in the columns of @to, where we had marked them so. */
static inline void petal_ledger_unclaim(const struct petal_ledger *ledger,
					struct petal_ledger_entry *entry,
					uint64_t to, uint64_t mark)
{
	uint64_t was;

	for (; to; to &= to - 1)
		petal_ledger_rename(entry, (uint32_t)__builtin_ctzll(to),
				    petal_ledger_name(ledger->holder) | mark, 0,
				    &was);
}

/* Write our name into the columns of @to: all or none. */
static inline int petal_ledger_claim(const struct petal_ledger *ledger,
				     struct petal_ledger_entry *entry,
				     uint64_t to)
{
	uint64_t own = petal_ledger_name(ledger->holder);
	uint64_t claimed = 0, was;

	for (uint64_t left = to; left; left &= left - 1) {
		uint32_t holder = (uint32_t)__builtin_ctzll(left);
		bool taken = petal_ledger_rename(entry, holder, 0, own, &was);
		uint64_t held = petal_load(&entry->state, PETAL_RELAXED) &
				left & -left;

		/*
		 * Our own name without a bit is left from a receiver that died
		 * before it accepted; it serves again.
		 */
		if ((taken || was == own) && !held) {
			claimed |= petal_ledger_bit(holder);
			continue;
		}
		if (taken)
			claimed |= petal_ledger_bit(holder);
		petal_ledger_unclaim(ledger, entry, claimed, 0);
		return held ? -EEXIST : -EBUSY;
	}
	return 0;
}

/*
 * The one compare-and-swap by which a buffer changes hands. Who does not hold
 * it may find another in its entry by now, of another generation.
 */
static inline int petal_ledger_swap(struct petal_ledger_entry *entry,
				    uint32_t generation, uint64_t need,
				    uint64_t off, uint64_t on)
{
	uint64_t state = petal_load(&entry->state, PETAL_RELAXED);

	for (uint32_t i = 0; i < PETAL_LEDGER_TRIES; i++) {
		if (state >> PETAL_LEDGER_HOLDERS != generation)
			return -ESTALE;
		if ((state & need) != need)
			return -EACCES;
		/* [LOAN] [GHOST] Before the second look at the seats. */
		if (petal_cas(&entry->state, &state, (state & ~off) | on,
			      PETAL_SEQ_CST(GHOST)))
			return 0;
	}
	return -EBUSY;
}

/*
 * End our grants to @to, and have @on instead. A successor in a receiver's seat
 * may find an older ref to this buffer in the ring that it takes over, and
 * accept what was not announced to it; so first nobody may accept it any more,
 * and then the bit goes. Who was quicker keeps it.
 */
static inline int petal_ledger_withdraw(const struct petal_ledger *ledger,
					struct petal_ledger_entry *entry,
					uint32_t generation, uint64_t to,
					uint64_t on)
{
	uint64_t own = petal_ledger_name(ledger->holder);
	uint64_t marked = own | PETAL_LEDGER_RECALLED;
	uint64_t off = 0, was;
	int err;

	for (; to; to &= to - 1)
		if (petal_ledger_rename(entry, (uint32_t)__builtin_ctzll(to),
					own, marked, &was) ||
		    was == marked)
			off |= to & -to;
	err = petal_ledger_swap(entry, generation, 0, off, on);
	if (!err)
		petal_ledger_unclaim(ledger, entry, off, PETAL_LEDGER_RECALLED);
	return err;
}

/* The first receiver whose seat has changed; PETAL_LEDGER_NOBODY if none. */
static inline uint32_t
petal_ledger_look_again(const struct petal_ledger *ledger, uint64_t to,
			const uint64_t *seats)
{
	for (; to; to &= to - 1) {
		uint32_t holder = (uint32_t)__builtin_ctzll(to);
		/* [GHOST] After the swap: either repair sees it, or we do. */
		uint64_t now = petal_load(&ledger->shared->seats[holder],
					  PETAL_SEQ_CST(GHOST));

		if (!petal_ledger_same_seat(*seats++, now))
			return holder;
	}
	return PETAL_LEDGER_NOBODY;
}

static inline int petal_ledger_grant(const struct petal_ledger *ledger,
				     struct petal_ref ref, uint64_t to,
				     bool keep)
{
	uint32_t generation = petal_ref_generation(ref);
	uint64_t seats[PETAL_LEDGER_HOLDERS];
	struct petal_ledger_entry *entry;
	uint32_t count = 0;
	int err;

	if (!to || to & ~PETAL_LEDGER_HELD || to & ledger->own)
		return -EINVAL;
	err = petal_ledger_find_own(ledger, ref, &entry);
	if (err)
		return err;
	for (uint64_t left = to; left; left &= left - 1)
		seats[count++] = petal_load(
			&ledger->shared->seats[__builtin_ctzll(left)],
			PETAL_RELAXED);
	if (petal_ledger_look_again(ledger, to, seats) != PETAL_LEDGER_NOBODY)
		return -ESRCH;

	err = petal_ledger_claim(ledger, entry, to);
	if (err)
		return err;
	err = petal_ledger_swap(entry, generation, ledger->own,
				keep ? 0 : ledger->own, to);
	if (err) {
		petal_ledger_unclaim(ledger, entry, to, 0);
		return err;
	}
	if (petal_ledger_look_again(ledger, to, seats) != PETAL_LEDGER_NOBODY) {
		/*
		 * Undone like any grant that was not published. Our name in our
		 * own column has kept the buffer from going home meanwhile.
		 */
		err = petal_ledger_withdraw(ledger, entry, generation, to,
					    ledger->own);
		if (err)
			return err;
		return -ESRCH;
	}
	if (!keep && petal_ledger_sign_off(ledger, entry))
		petal_ledger_hint(ledger, entry);
	return 0;
}

static inline int petal_ledger_share(const struct petal_ledger *ledger,
				     struct petal_ref ref, uint64_t to)
{
	return petal_ledger_grant(ledger, ref, to, true);
}

static inline int petal_ledger_forward(const struct petal_ledger *ledger,
				       struct petal_ref ref, uint64_t to)
{
	return petal_ledger_grant(ledger, ref, to, false);
}

static inline bool petal_ledger_news(const struct petal_ledger *ledger)
{
	if (!petal_load(&ledger->shared->news, PETAL_RELAXED))
		return false;
	/* [HOME] Acquire: with the news come the bits. */
	return petal_swap(&ledger->shared->news, 0, PETAL_ACQUIRE(HOME));
}

static inline uint64_t petal_ledger_take_home(const struct petal_ledger *ledger,
					      uint32_t group)
{
	if (!petal_load(&ledger->home[group], PETAL_RELAXED))
		return 0;
	/* [HOME] Acquire: with the bit comes the state. */
	return petal_swap(&ledger->home[group], 0, PETAL_ACQUIRE(HOME));
}

static inline bool petal_ledger_is_home(const struct petal_ledger *ledger,
					uint32_t index)
{
	struct petal_ledger_entry *entry;
	/* A byte of 1 to 8: the names of a word's own columns, for word 0. */
	uint64_t own_names = UINT64_C(0x0807060504030201);

	/* A hint that stands for no entry: anyone may have set it. */
	if (index >= ledger->entry_count)
		return false;
	entry = &ledger->entries[index];
	/* [HOME] Acquire: all that the holders did is over. */
	if (petal_load(&entry->state, PETAL_SEQ_CST(HOME)) & PETAL_LEDGER_HELD)
		return false;
	for (uint32_t i = 0; i < PETAL_LEDGER_WORDS; i++) {
		/* [HOME] Who is still in its own column is still dropping. */
		uint64_t word =
			petal_load(&entry->names[i], PETAL_SEQ_CST(HOME));

		if (petal_ledger_has_zero_byte(word ^ own_names))
			return false;
		own_names += 8 * PETAL_LEDGER_BYTE_ONES;
	}
	return true;
}

#endif
