/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/ledger.h: who may do what with a buffer, and that a death loses
 * none (traps: reference counts that leak on death, repair that races live
 * peers, a repairer that dies, fork of a holder, hostile words).
 *
 * Death is tried at each access to a shared word, of each party in turn, by
 * leaving from there; then by SIGKILL of real processes; then in random
 * interleavings of four parties that die and come back, all of them in one
 * thread, one access at a time. PETAL_TEST_HARDER=100 runs 30,000 of the
 * last.
 */
#define PETAL_ATOMIC_HOOKS "tests/unit/mortal.h"

#include "tests/check.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "shm/ledger.h"

/* So that every access in it is one of those below. */
#include "shm/ledger.c"

#define GRANULE 1024u
#define ENTRIES 4u
#define RANGE_BYTES (16u * GRANULE)
#define PARTIES 4u /* holders 0 to 3; 0 lends */
#define BIT(holder) (UINT64_C(1) << (holder))

static const struct petal_ledger_geometry geometry = {
	.range_bytes = RANGE_BYTES,
	.granule_bytes = GRANULE,
	.entries = ENTRIES,
	.segment = 9,
	.start_generation = PETAL_REF_GENERATION_MAX - 2,
};

/* What to do before an access: nothing, die at the n-th, or let others run. */
static uint64_t accesses_left;
static jmp_buf grave;
static void (*yield)(void);

static void mortal_tick(void)
{
	if (yield)
		yield();
	else if (accesses_left && --accesses_left == 0)
		longjmp(grave, 1);
}

static struct petal_ledger sit(void *memory, uint32_t holder)
{
	struct petal_ledger ledger;

	assert_ok(petal_ledger_attach(memory, petal_ledger_bytes(&geometry),
				      holder, &ledger));
	return ledger;
}

struct fixture {
	void *memory;
	struct petal_ledger seats[PARTIES];
};

static void reset(struct fixture *f)
{
	assert_ok(petal_ledger_format(f->memory, &geometry));
	for (uint32_t i = 0; i < PARTIES; i++)
		f->seats[i] = sit(f->memory, i);
	assert_ok(petal_ledger_own(&f->seats[0]));
}

static int make(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	/* Shared, so that forked holders meet in it. */
	f->memory = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(f->memory, MAP_FAILED);
	assert_true(petal_ledger_bytes(&geometry) <= 1 << 16);
	reset(f);
	*state = f;
	return 0;
}

static int unmake(void **state)
{
	struct fixture *f = *state;

	munmap(f->memory, 1 << 16);
	free(f);
	return 0;
}

static struct petal_ref lend(struct fixture *f, uint32_t index)
{
	struct petal_ref ref;

	assert_ok(petal_ledger_lend(&f->seats[0], index, index * GRANULE,
				    GRANULE, &ref));
	return ref;
}

static bool all_home(struct fixture *f)
{
	for (uint32_t i = 0; i < ENTRIES; i++)
		if (!petal_ledger_is_home(&f->seats[0], i))
			return false;
	return true;
}

static bool announced(struct fixture *f, uint32_t index)
{
	return petal_ledger_news(&f->seats[0]) &&
	       petal_ledger_take_home(&f->seats[0], 0) & BIT(index);
}

static void attach__each_wrong_ledger_has_its_own_error(void **state)
{
	struct fixture *f = *state;
	uint64_t bytes = petal_ledger_bytes(&geometry);
	struct petal_ledger_geometry wrong = geometry;
	struct petal_ledger ledger;
	struct petal_ledger_shared *shared = f->memory;

	assert_outcome(petal_ledger_attach(f->memory, bytes, 0, &ledger),
		       -EBUSY);
	assert_outcome(petal_ledger_attach(f->memory, bytes, 40, &ledger),
		       -EINVAL);
	assert_outcome(petal_ledger_attach(f->memory, bytes - 1, 9, &ledger),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_ledger_attach((char *)f->memory + 8, bytes, 9,
					   &ledger),
		       -EINVAL);
	assert_ok(petal_ledger_attach(f->memory, bytes, PETAL_LEDGER_NOBODY,
				      &ledger));
	shared->entries.bits = UINT32_MAX;
	assert_outcome(petal_ledger_attach(f->memory, bytes, 9, &ledger),
		       -PETAL_EGEOMETRY);
	shared->layout.bits++;
	assert_outcome(petal_ledger_attach(f->memory, bytes, 9, &ledger),
		       -PETAL_EVERSION);
	shared->magic.bits++;
	assert_outcome(petal_ledger_attach(f->memory, bytes, 9, &ledger),
		       -EINVAL);

	wrong.granule_bytes = 96;
	assert_int_equal(petal_ledger_bytes(&wrong), 0);
	assert_outcome(petal_ledger_format(f->memory, &wrong), -EINVAL);
	wrong = geometry;
	wrong.range_bytes++;
	assert_int_equal(petal_ledger_bytes(&wrong), 0);
	wrong = geometry;
	wrong.entries = 0;
	assert_int_equal(petal_ledger_bytes(&wrong), 0);
	wrong = geometry;
	wrong.segment = PETAL_REF_SEGMENTS;
	assert_int_equal(petal_ledger_bytes(&wrong), 0);
}

static void own__a_ledger_has_one_owner_ever(void **state)
{
	struct fixture *f = *state;
	struct petal_ledger looker = sit(f->memory, PETAL_LEDGER_NOBODY);

	assert_outcome(petal_ledger_own(&f->seats[1]), -EEXIST);
	assert_outcome(petal_ledger_own(&f->seats[0]), -EEXIST);
	assert_outcome(petal_ledger_own(&looker), -EINVAL);
}

static void forward__the_buffer_passes_on_and_comes_home(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 2);

	for (uint32_t i = 0; i + 1 < PARTIES; i++) {
		assert_ok(petal_ledger_check(&f->seats[i], ref, GRANULE));
		assert_ok(petal_ledger_forward(&f->seats[i], ref, BIT(i + 1)));
		assert_outcome(petal_ledger_check(&f->seats[i], ref, 1),
			       -EACCES);
		assert_outcome(petal_ledger_drop(&f->seats[i], ref), -EACCES);
		assert_ok(petal_ledger_accept(&f->seats[i + 1], ref));
		assert_outcome(petal_ledger_accept(&f->seats[i + 1], ref),
			       -EALREADY);
		assert_int_equal(petal_ledger_held(&f->seats[0],
						   PETAL_LEDGER_NOBODY),
				 1);
	}
	assert_false(petal_ledger_is_home(&f->seats[0], 2));
	assert_ok(petal_ledger_drop(&f->seats[PARTIES - 1], ref));
	assert_true(announced(f, 2));
	assert_true(all_home(f));
}

static void share__it_is_free_when_the_last_one_dropped_it(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 0);

	assert_ok(petal_ledger_share(&f->seats[0], ref,
				     BIT(1) | BIT(2) | BIT(3)));
	assert_ok(petal_ledger_drop(&f->seats[0], ref));
	for (uint32_t i = 1; i < PARTIES; i++) {
		assert_false(announced(f, 0));
		assert_int_equal(petal_ledger_held(&f->seats[0], i), 1);
		if (i != 2) /* who drops at once need not accept */
			assert_ok(petal_ledger_accept(&f->seats[i], ref));
		assert_ok(petal_ledger_drop(&f->seats[i], ref));
	}
	assert_true(announced(f, 0));
	assert_true(all_home(f));
}

static void share__who_has_it_is_not_given_it_again(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 0);

	assert_outcome(petal_ledger_share(&f->seats[0], ref, 0), -EINVAL);
	assert_outcome(petal_ledger_share(&f->seats[0], ref, BIT(0)), -EINVAL);
	assert_outcome(petal_ledger_share(&f->seats[0], ref, BIT(40)), -EINVAL);
	assert_outcome(petal_ledger_share(&f->seats[0], ref, BIT(1) | BIT(30)),
		       -ESRCH);
	assert_outcome(petal_ledger_share(&f->seats[1], ref, BIT(2)), -EACCES);
	assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(1)));
	assert_outcome(petal_ledger_share(&f->seats[0], ref, BIT(1)), -EEXIST);
	assert_ok(petal_ledger_accept(&f->seats[1], ref));
	assert_outcome(petal_ledger_share(&f->seats[0], ref, BIT(3) | BIT(1)),
		       -EEXIST);
	/* All or none: nothing is left of it in the column of 3. */
	assert_ok(petal_ledger_share(&f->seats[1], ref, BIT(3)));
	assert_outcome(petal_ledger_share(&f->seats[0], ref, BIT(3)), -EEXIST);
	assert_ok(petal_ledger_drop(&f->seats[1], ref));
	assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(1)));
}

static void recall__what_was_not_published_is_as_before(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 1);

	assert_ok(petal_ledger_forward(&f->seats[0], ref, BIT(1) | BIT(2)));
	assert_ok(petal_ledger_recall(&f->seats[0], ref, BIT(1) | BIT(2)));
	assert_ok(petal_ledger_check(&f->seats[0], ref, 1));
	assert_int_equal(petal_ledger_held(&f->seats[0], 1), 0);
	assert_outcome(petal_ledger_recall(&f->seats[0], ref, BIT(1)), -EINVAL);
	assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(3)));
	assert_ok(petal_ledger_recall(&f->seats[0], ref, BIT(3)));
	assert_ok(petal_ledger_drop(&f->seats[0], ref));
	assert_true(all_home(f));
}

static void repair__a_dead_holders_buffers_come_home(void **state)
{
	struct fixture *f = *state;
	struct petal_ref refs[ENTRIES];

	for (uint32_t i = 0; i < ENTRIES; i++) {
		refs[i] = lend(f, i);
		assert_ok(petal_ledger_forward(&f->seats[0], refs[i], BIT(1)));
	}
	/* 1 has one that it did not accept, one shared, and one passed on. */
	assert_ok(petal_ledger_accept(&f->seats[1], refs[1]));
	assert_ok(petal_ledger_accept(&f->seats[1], refs[2]));
	assert_ok(petal_ledger_share(&f->seats[1], refs[2], BIT(2)));
	assert_ok(petal_ledger_accept(&f->seats[1], refs[3]));
	assert_ok(petal_ledger_forward(&f->seats[1], refs[3], BIT(2)));
	assert_outcome(petal_ledger_repair(&f->seats[1], 1), -EINVAL);

	assert_int_equal(petal_ledger_repair(&f->seats[3], 1), 2);
	assert_int_equal(petal_ledger_held(&f->seats[0], 1), 0);
	assert_true(petal_ledger_is_home(&f->seats[0], 0));
	assert_true(petal_ledger_is_home(&f->seats[0], 1));
	assert_outcome(petal_ledger_share(&f->seats[0], lend(f, 0), BIT(1)),
		       -ESRCH);
	/* 2 had drained a ref to the first; of the second it never heard. */
	assert_ok(petal_ledger_accept(&f->seats[2], refs[2]));
	assert_int_equal(petal_ledger_settle(&f->seats[2], 1), 1);
	assert_ok(petal_ledger_repair(&f->seats[3], 1));
	assert_true(petal_ledger_is_home(&f->seats[0], 3));
	assert_ok(petal_ledger_check(&f->seats[2], refs[2], 1));
	assert_ok(petal_ledger_drop(&f->seats[2], refs[2]));
	f->seats[1] = sit(f->memory, 1);
	assert_outcome(petal_ledger_check(&f->seats[1], refs[0], 1), -ESTALE);
}

static void leave__drops_everything_and_frees_the_seat(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 1);

	assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(1) | BIT(2)));
	assert_ok(petal_ledger_accept(&f->seats[1], ref));
	assert_ok(petal_ledger_leave(&f->seats[1]));
	f->seats[1] = sit(f->memory, 1);
	assert_outcome(petal_ledger_check(&f->seats[1], ref, 1), -EACCES);
	/* The owner leaves: its grant to 2 is still under way. */
	assert_int_equal(petal_ledger_leave(&f->seats[0]), 1);
	assert_ok(petal_ledger_accept(&f->seats[2], ref));
	assert_ok(petal_ledger_repair(&f->seats[1], 0));
	assert_ok(petal_ledger_drop(&f->seats[2], ref));
	assert_int_equal(petal_ledger_held(&f->seats[1], PETAL_LEDGER_NOBODY),
			 0);
}

/*
 * Death at each access. Refs that were published lie in rings[from][to], which
 * are the receiver's to drain.
 */
static struct petal_ref rings[PARTIES][PARTIES][8];
static uint32_t published[PARTIES][PARTIES], drained[PARTIES][PARTIES];

static void publish(uint32_t from, uint32_t to, struct petal_ref ref)
{
	assert_true(published[from][to] < 8);
	mortal_tick();
	rings[from][to][published[from][to]++] = ref;
	mortal_tick();
}

/* The invariant of the header: a held bit has a name. */
static bool every_hold_has_a_name(const struct petal_ledger *ledger)
{
	for (uint32_t i = 0; i < ENTRIES; i++) {
		const struct petal_ledger_entry *entry = &ledger->entries[i];

		for (uint32_t j = 0; j < PARTIES; j++)
			if (entry->state.bits & BIT(j) &&
			    !petal_ledger_named(entry->names[0].bits, j))
				return false;
	}
	return true;
}

/* After the last repair nothing bears the name of the dead. */
static bool is_named(const struct petal_ledger *ledger, uint32_t holder)
{
	for (uint32_t i = 0; i < ENTRIES; i++)
		for (uint32_t j = 0; j < PARTIES; j++)
			if (granter(ledger->entries[i].names[0].bits, j) ==
			    petal_ledger_name(holder))
				return true;
	return false;
}

static void death_while_lending(struct fixture *f)
{
	struct petal_ref ref;

	for (uint32_t i = 0; i < 2; i++) {
		if (petal_ledger_lend(&f->seats[0], i, i * GRANULE, 1, &ref))
			abort();
		if (petal_ledger_share(&f->seats[0], ref, BIT(1) | BIT(2)))
			abort();
		publish(0, 1, ref);
		publish(0, 2, ref);
		if (petal_ledger_drop(&f->seats[0], ref))
			abort();
	}
}

static void receive(struct fixture *f, uint32_t holder, uint32_t from,
		    struct petal_ref *ret_ref)
{
	*ret_ref = rings[from][holder][drained[from][holder]];
	if (petal_ledger_accept(&f->seats[holder], *ret_ref))
		abort();
	mortal_tick();
	drained[from][holder]++;
	mortal_tick();
}

static void death_while_passing_on(struct fixture *f)
{
	struct petal_ref ref;

	receive(f, 1, 0, &ref);
	if (petal_ledger_forward(&f->seats[1], ref, BIT(2)))
		abort();
	publish(1, 2, ref);
	receive(f, 1, 0, &ref);
	if (petal_ledger_share(&f->seats[1], ref, BIT(2) | BIT(3)))
		abort();
	publish(1, 3, ref);
	publish(1, 2, ref);
	if (petal_ledger_drop(&f->seats[1], ref))
		abort();
	receive(f, 1, 0, &ref);
	if (petal_ledger_forward(&f->seats[1], ref, BIT(2)) ||
	    petal_ledger_recall(&f->seats[1], ref, BIT(2)) ||
	    petal_ledger_drop(&f->seats[1], ref))
		abort();
}

static void death_while_leaving(struct fixture *f)
{
	struct petal_ref ref;

	receive(f, 1, 0, &ref);
	if (petal_ledger_forward(&f->seats[1], ref, BIT(2)))
		abort();
	publish(1, 2, ref);
	petal_ledger_leave(&f->seats[1]);
}

/* 2 has died with things held, granted and announced; 1 is next. */
static void death_while_settling_and_repairing(struct fixture *f)
{
	petal_ledger_settle(&f->seats[1], 2);
	petal_ledger_repair(&f->seats[1], 2);
}

static void give_three_to_1(struct fixture *f)
{
	for (uint32_t i = 0; i < 3; i++) {
		struct petal_ref ref = lend(f, i);

		assert_ok(petal_ledger_forward(&f->seats[0], ref, BIT(1)));
		publish(0, 1, ref);
	}
}

static void leave_traces_of_2(struct fixture *f)
{
	struct petal_ref refs[3];

	for (uint32_t i = 0; i < 3; i++) {
		refs[i] = lend(f, i);
		assert_ok(petal_ledger_share(&f->seats[0], refs[i], BIT(2)));
		assert_ok(petal_ledger_drop(&f->seats[0], refs[i]));
	}
	assert_ok(petal_ledger_accept(&f->seats[2], refs[0]));
	assert_ok(petal_ledger_share(&f->seats[2], refs[0], BIT(1) | BIT(3)));
	assert_ok(petal_ledger_accept(&f->seats[2], refs[1]));
	assert_ok(petal_ledger_forward(&f->seats[2], refs[1], BIT(1)));
}

/* What the living do after a death, and what must be true then. */
static void mourn(struct fixture *f, uint64_t dead)
{
	struct petal_ref ref;

	for (uint32_t i = 0; i < PARTIES; i++) {
		if (dead & BIT(i))
			continue;
		for (uint32_t from = 0; from < PARTIES; from++)
			while (drained[from][i] < published[from][i]) {
				receive(f, i, from, &ref);
				assert_ok(petal_ledger_drop(&f->seats[i], ref));
			}
		for (uint32_t from = 0; from < PARTIES; from++)
			if (dead & BIT(from))
				assert_true(petal_ledger_settle(&f->seats[i],
								from) >= 0);
	}
	/* The second time for what a dead repairer has left marked. */
	for (uint32_t round = 0; round < 2; round++)
		for (uint32_t i = 0; i < PARTIES; i++)
			if (dead & BIT(i))
				petal_ledger_repair(&f->seats[3], i);
	assert_int_equal(petal_ledger_held(&f->seats[3], PETAL_LEDGER_NOBODY),
			 0);
	for (uint32_t i = 0; i < PARTIES; i++)
		if (dead & BIT(i)) {
			assert_false(is_named(&f->seats[3], i));
			f->seats[i] = sit(f->memory, i);
		}
	if (dead & BIT(0))
		return;
	assert_true(all_home(f));
	for (uint32_t i = 0; i < ENTRIES; i++) {
		ref = lend(f, i);
		assert_ok(petal_ledger_share(&f->seats[0], ref,
					     BIT(1) | BIT(2) | BIT(3)));
		for (uint32_t j = 0; j < PARTIES; j++)
			assert_ok(petal_ledger_drop(&f->seats[j], ref));
	}
	assert_true(all_home(f));
}

/* Return: whether it was over before the access at which to die. */
static bool play(struct fixture *f, void (*scene)(struct fixture *),
		 uint64_t at)
{
	if (setjmp(grave)) {
		accesses_left = 0;
		return false;
	}
	accesses_left = at;
	scene(f);
	accesses_left = 0;
	return true;
}

static void die_everywhere(struct fixture *f, void (*before)(struct fixture *),
			   void (*scene)(struct fixture *), uint64_t dead)
{
	bool alive = false;

	for (uint64_t at = 1; !alive; at++) {
		memset(published, 0, sizeof(published));
		memset(drained, 0, sizeof(drained));
		reset(f);
		if (before)
			before(f);
		alive = play(f, scene, at);
		mourn(f, dead);
		assert_true(at < 10000);
	}
}

static void death__at_any_access_loses_no_buffer(void **state)
{
	struct fixture *f = *state;

	die_everywhere(f, NULL, death_while_lending, BIT(0));
	die_everywhere(f, give_three_to_1, death_while_passing_on, BIT(1));
	die_everywhere(f, give_three_to_1, death_while_leaving, BIT(1));
	die_everywhere(f, leave_traces_of_2, death_while_settling_and_repairing,
		       BIT(1) | BIT(2));
}

static void death__a_seat_where_a_repairer_stopped_stays_taken(void **state)
{
	struct fixture *f = *state;
	struct petal_ledger ledger;

	/* 1 and 2 are dead; 2 in the middle of the repair of 1. */
	if (setjmp(grave) == 0) {
		accesses_left = 5;
		petal_ledger_repair(&f->seats[2], 1);
		fail();
	}
	accesses_left = 0;
	assert_outcome(petal_ledger_repair(&f->seats[3], 1), -EBUSY);
	assert_outcome(petal_ledger_attach(f->memory, 1 << 16, 1, &ledger),
		       -EBUSY);
	assert_ok(petal_ledger_repair(&f->seats[3], 2));
	assert_ok(petal_ledger_repair(&f->seats[3], 1));
	assert_ok(petal_ledger_attach(f->memory, 1 << 16, 1, &ledger));
}

/* A repairer or settler who was told of the death and comes too late. */
static void sitting__who_comes_late_does_not_hit_the_successor(void **state)
{
	struct fixture *f = *state;
	uint32_t sitting = petal_ledger_sitting(&f->seats[3], 1);
	struct petal_ref ref = lend(f, 0);

	assert_ok(petal_ledger_repair_sitting(&f->seats[2], 1, sitting));
	f->seats[1] = sit(f->memory, 1);
	assert_int_not_equal(petal_ledger_sitting(&f->seats[3], 1), sitting);
	assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(1)));
	assert_ok(petal_ledger_accept(&f->seats[1], ref));
	assert_ok(petal_ledger_share(&f->seats[1], ref, BIT(3)));

	assert_ok(petal_ledger_repair_sitting(&f->seats[3], 1, sitting));
	assert_ok(petal_ledger_settle_sitting(&f->seats[3], 1, sitting));
	assert_ok(petal_ledger_check(&f->seats[1], ref, 1));
	assert_ok(petal_ledger_accept(&f->seats[3], ref));
	assert_int_equal(petal_ledger_sitting(&f->seats[0], 40), 0);
}

static void leave__a_second_time_does_not_hit_the_successor(void **state)
{
	struct fixture *f = *state;
	struct petal_ledger successor;
	struct petal_ref ref = lend(f, 0);

	assert_ok(petal_ledger_leave(&f->seats[1]));
	successor = sit(f->memory, 1);
	assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(1)));
	assert_ok(petal_ledger_accept(&successor, ref));
	assert_ok(petal_ledger_leave(&f->seats[1]));
	assert_ok(petal_ledger_check(&successor, ref, 1));
}

/* Granted to the dead one by the owner, and to its successor by another. */
static void
accept__by_an_older_ref_in_a_ring_makes_the_newer_one_known(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 0);
	struct petal_ref older = ref; /* in the ring that is taken over */
	struct petal_ledger successor;

	assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(1) | BIT(2)));
	assert_ok(petal_ledger_drop(&f->seats[0], ref));
	assert_ok(petal_ledger_accept(&f->seats[2], ref));
	assert_ok(petal_ledger_repair(&f->seats[3], 1));
	successor = sit(f->memory, 30);
	assert_outcome(petal_ledger_accept(&successor, older), -EACCES);

	assert_ok(petal_ledger_forward(&f->seats[2], ref, BIT(30)));
	assert_ok(petal_ledger_accept(&successor, older));
	assert_outcome(petal_ledger_accept(&successor, ref), -EALREADY);
	assert_ok(petal_ledger_drop(&successor, older));
	assert_outcome(petal_ledger_accept(&successor, ref), -EACCES);
	assert_true(all_home(f));
}

static void settling_with_1(struct fixture *f)
{
	if (petal_ledger_settle(&f->seats[2], 1) != 1)
		abort();
}

static void let_1_grant_to_2(struct fixture *f)
{
	struct petal_ref ref = lend(f, 0);

	assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(1)));
	assert_ok(petal_ledger_accept(&f->seats[1], ref));
	assert_ok(petal_ledger_forward(&f->seats[1], ref, BIT(2)));
}

/* Stop a settler at each access; meanwhile the seat may not be given out. */
static void settle__no_successor_sits_down_before_it_is_over(void **state)
{
	struct fixture *f = *state;
	struct petal_ledger successor;
	bool over = false;

	for (uint64_t at = 1; !over; at++) {
		reset(f);
		let_1_grant_to_2(f);
		over = play(f, settling_with_1, at);
		assert_int_equal(petal_ledger_repair(&f->seats[3], 1) == 0,
				 over);
		if (!over)
			assert_outcome(petal_ledger_attach(f->memory, 1 << 16,
							   1, &successor),
				       -EBUSY);
		assert_true(petal_ledger_repair(&f->seats[3], 2) >= 0);
		assert_ok(petal_ledger_repair(&f->seats[3], 1));
		sit(f->memory, 1);
	}
}

/*
 * A grant is taken back while its receiver is found dead, and the buffer goes
 * home and is lent again as another: that one is not to be touched.
 */
static struct {
	struct fixture *f;
	uint64_t left;
	struct petal_ref again;
} thief;

static void lend_again_meanwhile(void)
{
	struct fixture *f = thief.f;

	if (!thief.left || --thief.left)
		return;
	yield = NULL;
	assert_ok(petal_ledger_repair(&f->seats[3], 2));
	if (!petal_ledger_is_home(&f->seats[0], 1))
		return;
	petal_ledger_retire(&f->seats[0], 1);
	thief.again = lend(f, 1);
}

static void recall__leaves_what_was_lent_meanwhile_alone(void **state)
{
	struct fixture *f = *state;
	uint32_t lent_again = 0;

	for (uint64_t at = 1; at < 100; at++) {
		struct petal_ref ref;
		int outcome;

		reset(f);
		ref = lend(f, 1);
		assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(1)));
		assert_ok(petal_ledger_drop(&f->seats[0], ref));
		assert_ok(petal_ledger_accept(&f->seats[1], ref));
		assert_ok(petal_ledger_forward(&f->seats[1], ref, BIT(2)));
		thief.f = f;
		thief.left = at;
		thief.again.bits = 0;
		yield = lend_again_meanwhile;
		outcome = petal_ledger_recall(&f->seats[1], ref, BIT(2));
		yield = NULL;
		if (outcome == 0)
			assert_ok(petal_ledger_drop(&f->seats[1], ref));
		else
			assert_true(outcome == -ESTALE || outcome == -EINVAL);
		if (!petal_ref_is_none(thief.again)) {
			lent_again++;
			assert_ok(petal_ledger_drop(&f->seats[0], thief.again));
		}
		assert_int_equal(petal_ledger_held(&f->seats[0],
						   PETAL_LEDGER_NOBODY),
				 0);
		assert_true(all_home(f));
	}
	assert_true(lent_again > 3);
}

static void settle__who_dropped_in_silence_can_be_granted_it_again(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 0);

	assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(1)));
	assert_ok(petal_ledger_accept(&f->seats[1], ref));
	assert_ok(petal_ledger_share(&f->seats[1], ref, BIT(2)));
	assert_int_equal(petal_ledger_settle(&f->seats[2], 1), 1);
	assert_outcome(petal_ledger_check(&f->seats[2], ref, 1), -EACCES);
	assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(2)));
	assert_ok(petal_ledger_accept(&f->seats[2], ref));
}

/* At each access of a drop: who is still in its column is still dropping. */
static struct {
	struct fixture *f;
	uint32_t holder;
	uint32_t looks;
} watch;

static void look_whether_it_is_home(void)
{
	const struct petal_ledger *owner = &watch.f->seats[0];
	uint64_t word = owner->entries[0].names[watch.holder / 8].bits;

	yield = NULL;
	watch.looks++;
	if (petal_ledger_named(word, watch.holder) ==
	    petal_ledger_name(watch.holder))
		assert_false(petal_ledger_is_home(owner, 0));
	yield = look_whether_it_is_home;
}

static void drop__is_not_home_before_the_name_is_gone(void **state)
{
	static const uint32_t holders[] = { 4, 9, 17, 30, 39 };
	struct fixture *f = *state;

	for (uint32_t i = 0; i < 5; i++) {
		struct petal_ledger ledger = sit(f->memory, holders[i]);
		struct petal_ref ref = lend(f, 0);

		assert_ok(petal_ledger_forward(&f->seats[0], ref,
					       BIT(holders[i])));
		assert_ok(petal_ledger_accept(&ledger, ref));
		watch.f = f;
		watch.holder = holders[i];
		watch.looks = 0;
		yield = look_whether_it_is_home;
		assert_ok(petal_ledger_drop(&ledger, ref));
		yield = NULL;
		assert_true(watch.looks > 3);
		assert_true(petal_ledger_is_home(&f->seats[0], 0));
	}
}

/* 3 stops in the repair of 2, which had been granted something by the dead 1. */
static void repair_2(struct fixture *f)
{
	petal_ledger_repair(&f->seats[3], 2);
}

static void repair__leaves_no_name_with_one_who_is_being_repaired(void **state)
{
	struct fixture *f = *state;
	bool over = false;

	for (uint64_t at = 1; !over; at++) {
		reset(f);
		let_1_grant_to_2(f);
		over = play(f, repair_2, at);
		/* Before the seat of 2 shows it, 2 may be living. */
		if (petal_ledger_repair(&f->seats[0], 1) == 0)
			assert_false(is_named(&f->seats[0], 1));
	}
}

static void attach__a_seat_that_is_being_guarded_stays_empty(void **state)
{
	struct fixture *f = *state;
	struct petal_ledger ledger;

	assert_ok(petal_ledger_leave(&f->seats[2]));
	assert_true(guard_seat(&f->seats[3], 2));
	assert_outcome(petal_ledger_attach(f->memory, 1 << 16, 2, &ledger),
		       -EBUSY);
	unguard_seat(&f->seats[3], 2);
	assert_ok(petal_ledger_attach(f->memory, 1 << 16, 2, &ledger));
}

/* Someone takes 1 for dead, while it shares: then it has nothing to share. */
static struct {
	struct fixture *f;
	uint64_t left;
	int outcome;
} undertaker;

static void bury_1(void)
{
	if (--undertaker.left)
		return;
	yield = NULL;
	undertaker.outcome = petal_ledger_repair(&undertaker.f->seats[3], 1);
}

static void share__is_refused_to_who_lost_it_meanwhile(void **state)
{
	struct fixture *f = *state;
	uint32_t refused = 0;

	for (uint64_t at = 1; at < 40; at++) {
		struct petal_ref ref;
		int outcome;

		reset(f);
		ref = lend(f, 0);
		assert_ok(petal_ledger_share(&f->seats[0], ref, BIT(1)));
		assert_ok(petal_ledger_accept(&f->seats[1], ref));
		undertaker.f = f;
		undertaker.left = at;
		undertaker.outcome = 1;
		yield = bury_1;
		outcome = petal_ledger_share(&f->seats[1], ref, BIT(2));
		yield = NULL;
		/* Buried, and nothing left to wait for: so nothing was given. */
		if (undertaker.outcome == 0) {
			assert_outcome(outcome, -EACCES);
			assert_int_equal(petal_ledger_held(&f->seats[3], 2), 0);
			refused++;
		}
	}
	assert_true(refused > 2);
}

static void lend__without_a_seat_is_einval(void **state)
{
	struct fixture *f = *state;
	struct petal_ledger observer = sit(f->memory, PETAL_LEDGER_NOBODY);
	struct petal_ref ref;

	assert_outcome(petal_ledger_lend(&observer, 0, 0, 1, &ref), -EINVAL);
	assert_outcome(petal_ledger_lend(&f->seats[0], ENTRIES, 0, 1, &ref),
		       -EINVAL);
}

static void is_home__of_what_is_no_entry_is_false(void **state)
{
	struct fixture *f = *state;

	/* Any holder may set any hint. */
	petal_store(&f->seats[0].home[0], UINT64_MAX, PETAL_RELAXED);
	petal_store(&f->seats[0].shared->news, 1, PETAL_RELAXED);
	assert_true(petal_ledger_news(&f->seats[0]));
	assert_true(petal_ledger_take_home(&f->seats[0], 0) == UINT64_MAX);
	assert_false(petal_ledger_is_home(&f->seats[0], ENTRIES));
	assert_false(petal_ledger_is_home(&f->seats[0], UINT32_MAX));
	petal_ledger_retire(&f->seats[0], UINT32_MAX);
}

/* Real processes: 0 lends to 1, which forwards to 2, which drops. */
static void pass_on(struct fixture *f, int in, int out)
{
	struct petal_ref ref;

	while (read(in, &ref, sizeof(ref)) == sizeof(ref)) {
		if (petal_ledger_accept(&f->seats[1], ref) ||
		    petal_ledger_check(&f->seats[1], ref, GRANULE) ||
		    petal_ledger_forward(&f->seats[1], ref, BIT(2)))
			_exit(1);
		if (write(out, &ref, sizeof(ref)) == sizeof(ref))
			continue;
		/* Its receiver is dead: what was not published is taken back. */
		if (petal_ledger_recall(&f->seats[1], ref, BIT(2)) ||
		    petal_ledger_drop(&f->seats[1], ref))
			_exit(2);
	}
	_exit(petal_ledger_leave(&f->seats[1]) < 0 ? 3 : 0);
}

static void take_in(struct fixture *f, int in)
{
	struct petal_ref ref;

	while (read(in, &ref, sizeof(ref)) == sizeof(ref))
		if (petal_ledger_accept(&f->seats[2], ref) ||
		    petal_ledger_drop(&f->seats[2], ref))
			_exit(1);
	/* The end of the pipe: all that 1 has published was drained. */
	if (petal_ledger_settle(&f->seats[2], 1) < 0)
		_exit(2);
	_exit(petal_ledger_leave(&f->seats[2]) < 0 ? 3 : 0);
}

static pid_t start(struct fixture *f, uint32_t holder, const int into_1[2],
		   const int into_2[2])
{
	pid_t child = fork();

	assert_true(child >= 0);
	if (child)
		return child;
	signal(SIGPIPE, SIG_IGN);
	close(into_1[1]);
	if (holder == 1) {
		close(into_2[0]);
		pass_on(f, into_1[0], into_2[1]);
	}
	close(into_1[0]);
	close(into_2[1]);
	take_in(f, into_2[0]);
	return 0;
}

static uint64_t send_some(struct fixture *f, int out, uint64_t count)
{
	uint64_t sent = 0;

	for (uint64_t i = 0; sent < count && i < 1000 * count; i++) {
		uint32_t index = (uint32_t)(i % ENTRIES);
		struct petal_ref ref;

		if (!petal_ledger_is_home(&f->seats[0], index)) {
			sched_yield();
			continue;
		}
		ref = lend(f, index);
		assert_ok(petal_ledger_forward(&f->seats[0], ref, BIT(1)));
		assert_int_equal(write(out, &ref, sizeof(ref)), sizeof(ref));
		sent++;
	}
	return sent;
}

static void kill__a_dead_process_gives_back_what_it_held(void **state)
{
	struct fixture *f = *state;
	uint64_t rounds = petal_test_rounds(20), random = 3;

	for (uint64_t i = 0; i < rounds; i++) {
		uint32_t victim = 1 + i % 2;
		int into_1[2], into_2[2], status;
		pid_t children[3];

		assert_int_equal(pipe(into_1), 0);
		assert_int_equal(pipe(into_2), 0);
		for (uint32_t j = 1; j < 3; j++)
			children[j] = start(f, j, into_1, into_2);
		close(into_2[0]);
		close(into_2[1]);
		assert_true(send_some(f, into_1[1],
				      1 + petal_test_random(&random) % 60));
		kill(children[victim], SIGKILL);
		close(into_1[1]);
		close(into_1[0]);
		for (uint32_t j = 1; j < 3; j++) {
			waitpid(children[j], &status, 0);
			if (j != victim)
				assert_int_equal(status, 0);
		}
		/* Of the one who left, only its grants to the dead remain. */
		for (uint32_t j = 0; j < 2; j++) {
			assert_true(petal_ledger_repair(&f->seats[0], 1) >= 0);
			assert_true(petal_ledger_repair(&f->seats[0], 2) >= 0);
		}
		assert_true(all_home(f));
		f->seats[1] = sit(f->memory, 1);
		f->seats[2] = sit(f->memory, 2);
	}
}

static void fork__the_child_of_a_holder_holds_nothing(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 0);
	struct petal_ledger child_view;
	int status;
	pid_t child;

	assert_ok(petal_ledger_forward(&f->seats[0], ref, BIT(1)));
	assert_ok(petal_ledger_accept(&f->seats[1], ref));
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		if (petal_ledger_attach(f->memory, 1 << 16, 7, &child_view))
			_exit(1);
		if (petal_ledger_check(&child_view, ref, 1) != -EACCES)
			_exit(2);
		if (petal_ledger_drop(&child_view, ref) != -EACCES)
			_exit(3);
		raise(SIGKILL);
	}
	waitpid(child, &status, 0);
	assert_true(WIFSIGNALED(status));
	assert_ok(petal_ledger_repair(&f->seats[0], 7));
	assert_ok(petal_ledger_check(&f->seats[1], ref, 1));
	assert_ok(petal_ledger_drop(&f->seats[1], ref));
	assert_true(all_home(f));
}

static void hostile__any_words_are_survived_within_bounds(void **state)
{
	struct fixture *f = *state;
	uint64_t rounds = petal_test_rounds(20000), random = 4;
	uint64_t words = petal_ledger_bytes(&geometry) / 8;
	struct petal_ref ref;

	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t *word = (uint64_t *)f->memory +
				 petal_test_random(&random) % words;

		*word ^= petal_test_random(&random) >> i % 64;
		ref.bits = petal_test_random(&random);
		if (i % 4)
			ref = petal_ref_make(9, 1 + (uint32_t)i % 8,
					     ref.bits % RANGE_BYTES / GRANULE *
						     GRANULE);
		petal_ledger_check(&f->seats[1], ref, GRANULE);
		petal_ledger_accept(&f->seats[1], ref);
		petal_ledger_share(&f->seats[1], ref, BIT(2) | BIT(39));
		petal_ledger_forward(&f->seats[1], ref, BIT(3));
		petal_ledger_recall(&f->seats[1], ref, BIT(3));
		petal_ledger_drop(&f->seats[1], ref);
		petal_ledger_settle(&f->seats[2], 1);
		petal_ledger_repair(&f->seats[3], 1 + i % 2);
		petal_ledger_is_home(&f->seats[0], i % ENTRIES);
		petal_ledger_news(&f->seats[0]);
	}
}

/*
 * Random interleavings. Each party is a context of its own; before each access
 * it may be left for another, and it may never be gone on with: that is death.
 */
#define STACK_BYTES 65536u
#define QUEUE 64u

struct party {
	ucontext_t context;
	uint32_t holder;
	bool dead;
	bool restart;                 /* its seat is free again */
	uint64_t to_settle;           /* deaths that it has not seen to */
	uint32_t sitting_of[PARTIES]; /* of whom it knows to be dead */
	struct petal_ledger ledger;
	struct petal_ref held[64]; /* accepted, and not yet let go */
	uint32_t held_count;
	struct petal_ref in[PARTIES][QUEUE];
	uint32_t in_from[PARTIES], in_to[PARTIES];
	char stack[STACK_BYTES];
};

static struct {
	struct fixture *f;
	struct party parties[PARTIES];
	ucontext_t scheduler;
	struct party *running;
	uint64_t random;
	bool ending;
	uint64_t loans;
} world;

/* Not an assertion: there is another stack under it. */
#define MUST(what)                                                         \
	do {                                                               \
		if (!(what)) {                                             \
			fprintf(stderr, "line %d: %s\n", __LINE__, #what); \
			abort();                                           \
		}                                                          \
	} while (0)

static uint64_t choose(uint64_t count)
{
	return petal_test_random(&world.random) % count;
}

static void let_others_run(void)
{
	if (choose(3) == 0)
		swapcontext(&world.running->context, &world.scheduler);
}

static void forget(struct party *party, struct petal_ref ref)
{
	for (uint32_t i = 0; i < party->held_count; i++)
		if (party->held[i].bits == ref.bits) {
			party->held[i] = party->held[--party->held_count];
			return;
		}
	MUST(!"held");
}

static void pass(struct party *party, struct petal_ref ref)
{
	uint32_t to =
		(party->holder + 1 + (uint32_t)choose(PARTIES - 1)) % PARTIES;
	struct party *other = &world.parties[to];
	bool forward = choose(2);
	int outcome;

	if (forward)
		forget(party, ref);
	outcome = forward ? petal_ledger_forward(&party->ledger, ref, BIT(to))
			  : petal_ledger_share(&party->ledger, ref, BIT(to));
	MUST(outcome == 0 || outcome == -EEXIST || outcome == -EBUSY ||
	     outcome == -ESRCH);
	if (outcome == 0 &&
	    other->in_to[party->holder] - other->in_from[party->holder] <
		    QUEUE &&
	    choose(8)) {
		uint32_t *tail = &other->in_to[party->holder];

		other->in[party->holder][(*tail)++ % QUEUE] = ref;
		return;
	}
	if (outcome == 0) {
		outcome = petal_ledger_recall(&party->ledger, ref, BIT(to));
		MUST(outcome == 0 || outcome == -EEXIST);
		if (outcome == -EEXIST)
			return;
	}
	if (forward)
		party->held[party->held_count++] = ref;
}

static void let_go(struct party *party, struct petal_ref ref)
{
	forget(party, ref);
	MUST(petal_ledger_drop(&party->ledger, ref) == 0);
}

static void take(struct party *party, uint32_t from)
{
	uint32_t at = party->in_from[from];
	struct petal_ref ref;
	int outcome;

	if (at == party->in_to[from])
		return;
	ref = party->in[from][at % QUEUE];
	outcome = petal_ledger_accept(&party->ledger, ref);
	/* Granted to who sat here before, and published to us. */
	MUST(outcome == 0 || outcome == -EALREADY || outcome == -EACCES ||
	     outcome == -ESTALE);
	if (outcome == 0)
		party->held[party->held_count++] = ref;
	party->in_from[from]++;
}

static void see_to_the_dead(struct party *party)
{
	for (uint32_t i = 0; i < PARTIES; i++) {
		if (!(party->to_settle & BIT(i)))
			continue;
		while (party->in_from[i] != party->in_to[i])
			take(party, i);
		MUST(petal_ledger_settle_sitting(&party->ledger, i,
						 party->sitting_of[i]) >= 0);
		party->to_settle &= ~BIT(i);
	}
	for (uint32_t i = 0; i < PARTIES; i++) {
		struct party *dead = &world.parties[i];
		uint32_t sitting = dead->ledger.sitting;

		/* While it repairs, others may, and a successor be born. */
		if (dead->dead && !dead->restart &&
		    petal_ledger_repair_sitting(&party->ledger, i, sitting) ==
			    0 &&
		    dead->dead && dead->ledger.sitting == sitting)
			dead->restart = true;
	}
}

static bool anyone_has(struct petal_ref ref)
{
	for (uint32_t i = 0; i < PARTIES; i++)
		for (uint32_t j = 0; j < world.parties[i].held_count; j++)
			if (!world.parties[i].dead &&
			    world.parties[i].held[j].bits == ref.bits)
				return true;
	return false;
}

static void lend_one(struct party *party)
{
	static struct petal_ref last[ENTRIES];
	uint32_t index = (uint32_t)choose(ENTRIES);
	struct petal_ref ref;

	if (world.ending || !petal_ledger_is_home(&party->ledger, index))
		return;
	MUST(world.loans < ENTRIES || !anyone_has(last[index]));
	petal_ledger_retire(&party->ledger, index);
	MUST(petal_ledger_lend(&party->ledger, index, index * GRANULE, 1,
			       &ref) == 0);
	last[index] = ref;
	world.loans++;
	party->held[party->held_count++] = ref;
}

static void live(int holder)
{
	struct party *party = &world.parties[holder];

	for (;;) {
		/* A visit to the scheduler even when there is nothing to do. */
		swapcontext(&party->context, &world.scheduler);
		see_to_the_dead(party);
		for (uint32_t i = 0; i < PARTIES; i++)
			if (party->held_count < 60)
				take(party, i);
		for (uint32_t i = 0; i < party->held_count; i++)
			MUST(petal_ledger_check(&party->ledger, party->held[i],
						1) == 0);
		if (party->holder == 0)
			lend_one(party);
		if (!party->held_count)
			continue;
		if (choose(2) || world.ending)
			let_go(party, party->held[choose(party->held_count)]);
		else
			pass(party, party->held[choose(party->held_count)]);
	}
}

static void be_born(struct party *party)
{
	party->dead = party->restart = false;
	party->to_settle = 0;
	party->held_count = 0;
	party->ledger = sit(world.f->memory, party->holder);
	memset(party->in_from, 0, sizeof(party->in_from));
	memset(party->in_to, 0, sizeof(party->in_to));
	getcontext(&party->context);
	party->context.uc_stack.ss_sp = party->stack;
	party->context.uc_stack.ss_size = STACK_BYTES;
	party->context.uc_link = NULL;
	makecontext(&party->context, (void (*)(void))live, 1,
		    (int)party->holder);
}

/* The owner lives: with it the ledger would end. */
static void maybe_kill(void)
{
	struct party *victim = &world.parties[1 + choose(PARTIES - 1)];

	if (world.ending || victim->dead || choose(300))
		return;
	victim->dead = true;
	for (uint32_t i = 0; i < PARTIES; i++) {
		world.parties[i].to_settle |= BIT(victim->holder);
		world.parties[i].sitting_of[victim->holder] =
			victim->ledger.sitting;
	}
	victim->to_settle = 0;
}

static void run_world(struct fixture *f, uint64_t seed)
{
	uint64_t steps = 3000;

	world.f = f;
	world.random = seed;
	world.ending = false;
	world.loans = 0;
	assert_ok(petal_ledger_format(f->memory, &geometry));
	for (uint32_t i = 0; i < PARTIES; i++) {
		world.parties[i].holder = i;
		be_born(&world.parties[i]);
	}
	assert_ok(petal_ledger_own(&world.parties[0].ledger));
	for (uint64_t i = 0; i < 2 * steps; i++) {
		struct party *party = &world.parties[choose(PARTIES)];

		world.ending = i >= steps;
		maybe_kill();
		if (party->dead && party->restart)
			be_born(party);
		if (party->dead)
			continue;
		world.running = party;
		yield = let_others_run;
		swapcontext(&world.scheduler, &party->context);
		yield = NULL;
		assert_true(every_hold_has_a_name(&world.parties[0].ledger));
	}
	assert_int_equal(petal_ledger_held(&world.parties[0].ledger,
					   PETAL_LEDGER_NOBODY),
			 0);
	for (uint32_t i = 0; i < ENTRIES; i++)
		assert_true(petal_ledger_is_home(&world.parties[0].ledger, i));
}

static void interleave__nobody_loses_a_buffer_or_gets_anothers(void **state)
{
	uint64_t rounds = petal_test_rounds(300);

#if defined(__SANITIZE_THREAD__)
	/* It does not know of other stacks. */
	skip();
#endif
	for (uint64_t seed = 1; seed <= rounds; seed++)
		run_world(*state, seed);
}

#define WITH_LEDGER(test) cmocka_unit_test_setup_teardown(test, make, unmake)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_LEDGER(attach__each_wrong_ledger_has_its_own_error),
		WITH_LEDGER(own__a_ledger_has_one_owner_ever),
		WITH_LEDGER(forward__the_buffer_passes_on_and_comes_home),
		WITH_LEDGER(share__it_is_free_when_the_last_one_dropped_it),
		WITH_LEDGER(share__who_has_it_is_not_given_it_again),
		WITH_LEDGER(recall__what_was_not_published_is_as_before),
		WITH_LEDGER(repair__a_dead_holders_buffers_come_home),
		WITH_LEDGER(leave__drops_everything_and_frees_the_seat),
		WITH_LEDGER(death__at_any_access_loses_no_buffer),
		WITH_LEDGER(death__a_seat_where_a_repairer_stopped_stays_taken),
		WITH_LEDGER(sitting__who_comes_late_does_not_hit_the_successor),
		WITH_LEDGER(leave__a_second_time_does_not_hit_the_successor),
		WITH_LEDGER(
			accept__by_an_older_ref_in_a_ring_makes_the_newer_one_known),
		WITH_LEDGER(settle__no_successor_sits_down_before_it_is_over),
		WITH_LEDGER(recall__leaves_what_was_lent_meanwhile_alone),
		WITH_LEDGER(
			settle__who_dropped_in_silence_can_be_granted_it_again),
		WITH_LEDGER(drop__is_not_home_before_the_name_is_gone),
		WITH_LEDGER(
			repair__leaves_no_name_with_one_who_is_being_repaired),
		WITH_LEDGER(attach__a_seat_that_is_being_guarded_stays_empty),
		WITH_LEDGER(share__is_refused_to_who_lost_it_meanwhile),
		WITH_LEDGER(lend__without_a_seat_is_einval),
		WITH_LEDGER(is_home__of_what_is_no_entry_is_false),
		WITH_LEDGER(kill__a_dead_process_gives_back_what_it_held),
		WITH_LEDGER(fork__the_child_of_a_holder_holds_nothing),
		WITH_LEDGER(hostile__any_words_are_survived_within_bounds),
		WITH_LEDGER(interleave__nobody_loses_a_buffer_or_gets_anothers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
