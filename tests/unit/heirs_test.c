/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole histories of one ring and its three members, in which primaries are
 * lost, followed, deposed while they live, and come back: see tests/sim/heirs.h
 * for what is real and tests/sim/heirs.c for what is checked after every step.
 *
 * Harder: PETAL_TEST_HARDER=100 runs a hundred times as many seeds. A history
 * that fails prints its seed; PETAL_TEST_SEED=n runs that one alone.
 */
#include "tests/check.h"

#include "tests/sim/heirs.h"

#define STEPS 30000u

static void history__loses_nothing_and_doubles_nothing(void **state)
{
	const char *only = getenv("PETAL_TEST_SEED");
	uint64_t seeds = petal_test_rounds(100);
	struct heirs_counts c = { 0 };

	(void)state;
	if (only != NULL) {
		heirs_run(strtoull(only, NULL, 10), STEPS, &c);
		return;
	}
	for (uint64_t seed = 1; seed <= seeds; seed++)
		heirs_run(seed, STEPS, &c);
	print_message(
		"%llu records, %llu epochs, %llu yields, %llu crashes, "
		"%llu deposed, %llu resent, %llu resolved\n",
		(unsigned long long)c.records, (unsigned long long)c.epochs,
		(unsigned long long)c.yields, (unsigned long long)c.crashes,
		(unsigned long long)c.deposed, (unsigned long long)c.resent,
		(unsigned long long)c.resolved);
	/* Else nothing was tried. */
	assert_true(c.epochs > seeds && c.crashes > seeds / 2);
	assert_true(c.yields > 0 && c.deposed > 0);
	assert_true(c.resent > 0 && c.resolved > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(history__loses_nothing_and_doubles_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
