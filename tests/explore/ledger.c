/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/ledger.h"

#include <string.h>

#include "tests/explore/explore.h"

/*
 * One buffer of one plain word. Holder 0 is the owner, which lends it; 1 and 2
 * are granted it, use it and drop it; 3 repairs. Threads have the numbers of
 * the holders that they are, but for who takes over a seat.
 *
 * Holder 9 is one whose name does not share a word with theirs.
 *
 * The word through which refs go from one to the other orders nothing: what
 * makes the buffer readable is the ledger alone.
 */

const char explore_kind[] = "ledger";

#define GRANULE_BYTES 64u
#define LEDGER_BYTES 1024u
#define HOLDERS 10u
#define OWNER 0u
#define REPAIRER 3u
#define FAR 9u /* whose name is in another word */
#define BIT(holder) (UINT64_C(1) << (holder))

static _Alignas(64) struct {
	uint8_t ledger[LEDGER_BYTES];
	struct petal_u64 ring[HOLDERS]; /* refs, one to each holder */
	uint64_t buffer;
} shared;

static struct {
	struct petal_ledger holders[HOLDERS];
	struct petal_ref ref;
	uint64_t written;  /* what the buffer has */
	int granted;       /* what share or forward said */
	bool has[HOLDERS]; /* accepted, and not dropped */
	bool is_early;     /* accepts meet a recall, and see half of it */
	bool is_home;
	bool died;
} state;

static const struct petal_ledger_geometry geometry = {
	.range_bytes = GRANULE_BYTES,
	.granule_bytes = GRANULE_BYTES,
	.entries = 1,
	.segment = 1,
};

/* --- what holders do ------------------------------------------------------ */

static int seat(uint32_t holder)
{
	return petal_ledger_attach(shared.ledger, sizeof(shared.ledger), holder,
				   &state.holders[holder]);
}

static void lend(void)
{
	explore_check(petal_ledger_lend(&state.holders[OWNER], 0, 0,
					GRANULE_BYTES, &state.ref) == 0);
	explore_write(&shared.buffer, ++state.written);
}

static void grant(uint32_t from, uint64_t to, bool keep)
{
	struct petal_ledger *ledger = &state.holders[from];

	state.granted = keep ? petal_ledger_share(ledger, state.ref, to)
			     : petal_ledger_forward(ledger, state.ref, to);
	if (state.granted)
		return;
	state.has[from] = keep;
	for (uint32_t i = 0; i < HOLDERS; i++)
		if (to & BIT(i))
			petal_store(&shared.ring[i], state.ref.bits,
				    PETAL_RELAXED);
}

/* Return: whether a ref came, and was ours to accept. */
static bool receive(uint32_t holder, struct petal_ref *ret_ref)
{
	struct petal_ref ref = { petal_load(&shared.ring[holder],
					    PETAL_RELAXED) };
	int err;

	if (petal_ref_is_none(ref))
		return false;
	err = petal_ledger_accept(&state.holders[holder], ref);
	explore_check(
		!err || err == -ESTALE || err == -EACCES ||
		(state.is_early && (err == -EBUSY || err == -PETAL_ECORRUPT)));
	if (err)
		return false;
	explore_check(petal_ledger_check(&state.holders[holder], ref,
					 GRANULE_BYTES) == 0);
	state.has[holder] = true;
	*ret_ref = ref;
	return true;
}

static void drop(uint32_t holder, struct petal_ref ref)
{
	explore_check(petal_ledger_drop(&state.holders[holder], ref) == 0);
	state.has[holder] = false;
}

static void use_and_drop(uint32_t holder)
{
	struct petal_ref ref;

	if (!receive(holder, &ref))
		return;
	explore_check(explore_read(&shared.buffer) == state.written);
	drop(holder, ref);
}

/* What has come home is written again, by whom it belongs to now. */
static void collect(bool fully)
{
	struct petal_ledger *ledger = &state.holders[OWNER];

	if (state.is_home)
		return;
	if (!fully && (!petal_ledger_news(ledger) ||
		       petal_ledger_take_home(ledger, 0) == 0))
		return;
	state.is_home = petal_ledger_is_home(ledger, 0);
	if (!state.is_home)
		return;
	explore_check(petal_ledger_held(ledger, PETAL_LEDGER_NOBODY) == 0);
	petal_ledger_retire(ledger, 0);
	explore_write(&shared.buffer, 0);
}

static void repair(uint32_t dead)
{
	/* What it granted is for the receivers, who settle before this. */
	explore_check(petal_ledger_repair(&state.holders[REPAIRER], dead) >= 0);
}

/* --- setups --------------------------------------------------------------- */

static void make(void)
{
	memset(&shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
	explore_check(petal_ledger_bytes(&geometry) <= sizeof(shared.ledger));
	explore_check(petal_ledger_format(shared.ledger, &geometry) == 0);
	for (uint32_t i = 0; i < HOLDERS; i++)
		explore_check(seat(i) == 0);
	explore_check(petal_ledger_own(&state.holders[OWNER]) == 0);
}

static void make_lent(void)
{
	make();
	lend();
}

/* By 1, which has accepted it. */
static void make_held(void)
{
	struct petal_ref ref;

	make_lent();
	grant(OWNER, BIT(1), false);
	explore_check(receive(1, &ref));
}

static void make_both(void)
{
	make_lent();
	grant(OWNER, BIT(1) | BIT(2), false);
}

static void make_far(void)
{
	make_lent();
	grant(OWNER, BIT(1) | BIT(FAR), false);
}

/* By the owner and 1, which has accepted it. */
static void make_shared(void)
{
	struct petal_ref ref;

	make_lent();
	grant(OWNER, BIT(1), true);
	explore_check(receive(1, &ref));
}

/* By the owner and 2; and 1 was granted it, and does not know. */
static void make_unannounced(void)
{
	struct petal_ref ref;

	make_lent();
	grant(OWNER, BIT(2), true);
	explore_check(receive(2, &ref));
	explore_check(petal_ledger_share(&state.holders[OWNER], state.ref,
					 BIT(1)) == 0);
}

/* --- threads -------------------------------------------------------------- */

static void lend_and_forward(void)
{
	lend();
	grant(OWNER, BIT(1), false);
	collect(false);
}

static void share_with_1(void)
{
	grant(OWNER, BIT(1), true);
}

static void share_and_drop(void)
{
	grant(OWNER, BIT(1), true);
	drop(OWNER, state.ref);
}

static void share_and_recall(void)
{
	int err;

	explore_check(petal_ledger_share(&state.holders[OWNER], state.ref,
					 BIT(1)) == 0);
	err = petal_ledger_recall(&state.holders[OWNER], state.ref, BIT(1));
	/* Who has an older ref may have been quicker. */
	explore_check(!err || err == -EINVAL);
	drop(OWNER, state.ref);
	collect(true);
}

static void collect_twice(void)
{
	collect(false);
	collect(true);
}

static void hold_1(void)
{
	use_and_drop(1);
}

static void hold_2(void)
{
	use_and_drop(2);
}

static void hold_far(void)
{
	use_and_drop(FAR);
}

/* To 1. Who finds no name in its column finds its bit off. */
static void share_anew(uint32_t from)
{
	struct petal_ledger *ledger = &state.holders[from];
	uint64_t word = petal_load(petal_ledger_word(&ledger->entries[0], 1),
				   PETAL_RELAXED);

	grant(from, BIT(1), true);
	if (petal_ledger_named(word, 1) == 0)
		explore_check(state.granted != -EEXIST);
}

static void share_again(void)
{
	share_anew(OWNER);
}

static void share_after_recall(void)
{
	share_anew(2);
}

static void recall(void)
{
	explore_check(petal_ledger_recall(&state.holders[OWNER], state.ref,
					  BIT(1)) == 0);
}

static void leave_1(void)
{
	explore_check(petal_ledger_leave(&state.holders[1]) == 0);
}

/* By a ref that it had from before. */
static void hold_early(void)
{
	state.is_early = true;
	petal_store(&shared.ring[1], state.ref.bits, PETAL_RELAXED);
	use_and_drop(1);
}

static void use_and_forward(void)
{
	explore_check(explore_read(&shared.buffer) == state.written);
	grant(1, BIT(2), false);
}

static void drop_1(void)
{
	drop(1, state.ref);
}

static void bury_1(void)
{
	state.died = explore_proved_dead(1);
	if (state.died)
		repair(1);
}

/* Holder 1 has gone without a word. */
static void repair_1(void)
{
	state.died = true;
	repair(1);
}

/* Holder 2, who drains its ring, settles, and lets others repair. */
static void settle_1(void)
{
	use_and_drop(2);
	if (!explore_proved_dead(1))
		return;
	use_and_drop(2);
	explore_check(petal_ledger_settle(&state.holders[2], 1) >= 0);
	state.died = true;
	explore_check(petal_ledger_repair(&state.holders[2], 1) == 0);
}

static void nothing(void)
{
}

static void sit_down_as_1(void)
{
	struct petal_ledger *ledger = &state.holders[1];

	for (unsigned tries = 0; tries < 2; tries++) {
		int err = seat(1);

		explore_check(!err || err == -EBUSY);
		if (err)
			continue;
		explore_check(petal_ledger_held(ledger, 1) == 0);
		return;
	}
}

static void make_nothing(void)
{
	memset(&shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
}

static void format(void)
{
	explore_check(petal_ledger_format(shared.ledger, &geometry) == 0);
}

static void find_formatted(void)
{
	int err = seat(1);

	explore_check(!err || err == -EINVAL);
	explore_check(err || state.holders[1].entry_count == 1);
}

/* --- what must be true at the end ----------------------------------------- */

/* Nobody has it any more: it is home, and the owner was told. */
static void finish(void)
{
	for (uint32_t i = 1; i < HOLDERS; i++)
		use_and_drop(i);
	collect(false);
	explore_check(state.is_home);
}

/* The same, but after a death hints may be missing. */
static void finish_dead(void)
{
	if (!state.died) {
		finish();
		return;
	}
	/* The dead one's seat is free, so nothing in it is left. */
	explore_check(seat(1) == 0);
	petal_store(&shared.ring[1], 0, PETAL_RELAXED);
	use_and_drop(2);
	if (state.has[OWNER])
		drop(OWNER, state.ref);
	collect(true);
	explore_check(state.is_home);
}

static void finish_granted(void)
{
	explore_check(!state.granted || state.granted == -ESRCH);
	explore_check(petal_ledger_held(&state.holders[OWNER], 1) == 0);
	state.has[OWNER] = true;
	finish_dead();
}

#define MODEL(...)                                                            \
	{                                                                     \
		__VA_ARGS__, .shared = &shared,                               \
			     .shared_bytes = sizeof(shared), .state = &state, \
			     .state_bytes = sizeof(state)                     \
	}

static const struct explore_model loan =
	MODEL(.name = "loan", .setup = make,
	      .threads = { lend_and_forward, hold_1 }, .finish = finish);

static const struct explore_model sharing =
	MODEL(.name = "share", .setup = make_lent,
	      .threads = { share_and_drop, hold_1 }, .finish = finish);

static const struct explore_model dropping =
	MODEL(.name = "drop", .setup = make_both,
	      .threads = { collect_twice, hold_1, hold_2 }, .finish = finish);

static const struct explore_model dropping_far =
	MODEL(.name = "drop-far", .setup = make_far,
	      .threads = { collect_twice, hold_1, hold_far }, .finish = finish);

static const struct explore_model granting_again =
	MODEL(.name = "grant-again", .setup = make_shared,
	      .threads = { share_again, drop_1 });

static const struct explore_model granting_recalled =
	MODEL(.name = "grant-recalled", .setup = make_unannounced,
	      .threads = { recall, nothing, share_after_recall });

static const struct explore_model leaving =
	MODEL(.name = "leave", .setup = make_held,
	      .threads = { leave_1, sit_down_as_1 });

static const struct explore_model forwarding =
	MODEL(.name = "forward", .setup = make_held,
	      .threads = { collect_twice, use_and_forward, hold_2 },
	      .finish = finish);

static const struct explore_model recalled =
	MODEL(.name = "recall", .setup = make_lent,
	      .threads = { share_and_recall, hold_early }, .finish = finish);

static const struct explore_model ghost =
	MODEL(.name = "ghost", .setup = make_lent,
	      .threads = { share_with_1, nothing, nothing, repair_1 },
	      .finish = finish_granted);

static const struct explore_model holder_dies =
	MODEL(.name = "holder-dies", .setup = make_both,
	      .threads = { collect_twice, hold_1, hold_2, bury_1 },
	      .finish = finish_dead, .mortal = 1u << 1);

static const struct explore_model granter_dies =
	MODEL(.name = "granter-dies", .setup = make_held,
	      .threads = { collect_twice, use_and_forward, settle_1 },
	      .finish = finish_dead, .mortal = 1u << 1);

static const struct explore_model seat_again =
	MODEL(.name = "seat", .setup = make_held,
	      .threads = { collect_twice, sit_down_as_1, nothing, repair_1 });

static const struct explore_model formatted =
	MODEL(.name = "format", .setup = make_nothing,
	      .threads = { format, find_formatted });

const struct explore_model *const explore_models[] = {
	&loan,           &sharing,           &dropping,
	&dropping_far,   &forwarding,        &recalled,
	&granting_again, &granting_recalled, &ghost,
	&holder_dies,    &granter_dies,      &seat_again,
	&leaving,        &formatted,         NULL,
};

#define TWICE                                                                   \
	"a name is loaded and then swapped, and each of the two acquires what " \
	"the other does"
#define BY_DEATH                                                                \
	"what it names is the caller's own, or a dead one's, and its death is " \
	"proved"
#define HINTS                                                                  \
	"only hints depend on it: that one was set, and taken too early; the " \
	"owner then finds the buffer by its full look"

const struct explore_excuse explore_excuses[] = {
	{ "shm/ledger.c", "LOAN", EXPLORE_RELEASE, EXPLORE_RELAXED,
	  "nobody else has the ref before the swap that grants it, which "
	  "releases as well" },
	{ "shm/ledger_inl.h", "NAME", EXPLORE_ACQUIRE, EXPLORE_RELAXED, TWICE },
	{ "shm/ledger_inl.h", "NAME", EXPLORE_ACQ_REL, EXPLORE_RELEASE, TWICE },
	{ "shm/ledger.c", "NAME", EXPLORE_ACQUIRE, EXPLORE_RELAXED, BY_DEATH },
	{ "shm/ledger.c", "HOME", EXPLORE_SEQ_CST, EXPLORE_ACQ_REL, HINTS },
	{ "shm/ledger.c", "SEAT", EXPLORE_RELEASE, EXPLORE_RELAXED,
	  "the swap that empties a seat comes later and releases as well" },
	{ "shm/ledger.c", "SEAT", EXPLORE_ACQ_REL, EXPLORE_RELEASE,
	  "what an earlier repairer released is still acquired through the "
	  "swaps that came after it" },
	{ .file = NULL },
};
