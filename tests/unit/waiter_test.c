/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings/waiter.h promises: it looks for its budget and not much longer,
 * never where parties outnumber CPUs, and again in full after a rest. Time is
 * only ever asked for a lower bound, so that a busy machine fails nothing.
 */
#include "tests/check.h"

#include <sched.h>

#include "rings/waiter.h"
#include "shm/clock.h"

static uint64_t looks_until_it_sleeps(struct petal_waiter *waiter)
{
	uint64_t looks = 0;

	while (petal_waiter_look(waiter))
		looks++;
	return looks;
}

static void look__lasts_for_its_budget(void **state)
{
	struct petal_waiter waiter;
	uint64_t begin_ns;

	(void)state;
	petal_waiter_init(&waiter, 0, PETAL_MS(2));
	begin_ns = petal_clock_now_ns();
	assert_true(looks_until_it_sleeps(&waiter) > 0);
	/* The tick was measured against the same clock, within a few percent. */
	assert_true(petal_clock_now_ns() - begin_ns >= PETAL_MS(1));
}

static void look__says_sleep_until_there_was_a_rest(void **state)
{
	struct petal_waiter waiter;

	(void)state;
	petal_waiter_init(&waiter, 0, PETAL_US(50));
	looks_until_it_sleeps(&waiter);
	assert_false(petal_waiter_look(&waiter));
	assert_false(petal_waiter_look(&waiter));
	petal_waiter_rest(&waiter);
	assert_true(petal_waiter_look(&waiter));
}

static void watch__ends_no_later_than_a_look(void **state)
{
	struct petal_u64 word = { 7 };
	struct petal_waiter waiter;

	(void)state;
	petal_waiter_init(&waiter, 0, PETAL_US(50));
	while (petal_waiter_watch(&waiter, &word, 7))
		;
	petal_waiter_rest(&waiter);
	/* Written before the watch began: nothing to wait for. */
	assert_true(petal_waiter_watch(&waiter, &word, 6));
}

static void init__does_not_spin_where_parties_outnumber_cpus(void **state)
{
	struct petal_waiter waiter;
	cpu_set_t before, one;
	unsigned cpus;

	(void)state;
	assert_ok(sched_getaffinity(0, sizeof(before), &before));
	cpus = (unsigned)CPU_COUNT(&before);
	petal_waiter_init(&waiter, cpus + 1, PETAL_MS(1));
	assert_false(petal_waiter_look(&waiter));
	petal_waiter_init(&waiter, cpus, PETAL_MS(1));
	assert_true(petal_waiter_look(&waiter));

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	assert_ok(sched_setaffinity(0, sizeof(one), &one));
	petal_waiter_init(&waiter, 2, PETAL_MS(1));
	assert_false(petal_waiter_look(&waiter));
	assert_ok(sched_setaffinity(0, sizeof(before), &before));
}

static void way__has_a_name(void **state)
{
	struct petal_waiter waiter;

	(void)state;
	petal_waiter_init(&waiter, 0, PETAL_US(1));
	print_message("this CPU relaxes by %s\n",
		      petal_waiter_way_name(waiter.way));
	assert_string_equal(petal_waiter_way_name(PETAL_WAITER_TPAUSE),
			    "tpause");
	assert_string_equal(petal_waiter_way_name((enum petal_waiter_way)99),
			    "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(look__lasts_for_its_budget),
		cmocka_unit_test(look__says_sleep_until_there_was_a_rest),
		cmocka_unit_test(watch__ends_no_later_than_a_look),
		cmocka_unit_test(
			init__does_not_spin_where_parties_outnumber_cpus),
		cmocka_unit_test(way__has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
