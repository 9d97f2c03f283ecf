/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fabric/sessions.h promises: the table answers as a plain list of all
 * records would, or says that it cannot; never anything else.
 *
 * Harder: PETAL_TEST_HARDER=100 runs a hundred times as many random histories.
 */
#include "tests/check.h"

#include <errno.h>

#include "fabric/sessions.h"

#define LONG 512u

static void find__knows_what_was_noted(void **state)
{
	struct petal_sessions s = { 0 };
	uint64_t first = PETAL_SESSION_FIRST(1);

	(void)state;
	petal_sessions_note(&s, first, 1, 10);
	petal_sessions_note(&s, first, 3, 11);
	assert_ok(petal_sessions_find(&s, first, 1));
	assert_outcome(petal_sessions_find(&s, first, 2), -ENOENT);
	assert_ok(petal_sessions_find(&s, first, 3));
	assert_outcome(petal_sessions_find(&s, first, 4), -ENOENT);
	assert_outcome(petal_sessions_find(&s, first, 0), -ENOENT);
	assert_outcome(petal_sessions_find(&s, first + 1, 1), -ENOENT);
	assert_outcome(petal_sessions_find(&s, 0, 1), -ENOENT);
}

static void note__twice_changes_nothing(void **state)
{
	struct petal_sessions s = { 0 }, before;

	(void)state;
	for (uint64_t n = 1; n < 300; n += 1 + n % 3)
		petal_sessions_note(&s, 5, n, n);
	before = s;
	for (uint64_t n = 1; n < 300; n += 1 + n % 3)
		petal_sessions_note(&s, 5, n, n);
	petal_sessions_note(&s, 0, 7, 999);
	assert_memory_equal(&s, &before, sizeof(s));
}

static void find__does_not_guess_about_what_is_long_ago(void **state)
{
	struct petal_sessions s = { 0 };

	(void)state;
	petal_sessions_note(&s, 5, 1, 1);
	petal_sessions_note(&s, 5, PETAL_SESSION_WINDOW, 2);
	assert_ok(petal_sessions_find(&s, 5, 1));
	petal_sessions_note(&s, 5, PETAL_SESSION_WINDOW + 1, 3);
	assert_outcome(petal_sessions_find(&s, 5, 1), -ENODATA);
	assert_outcome(petal_sessions_find(&s, 5, 2), -ENOENT);
	petal_sessions_note(&s, 5, 10000, 4);
	assert_outcome(petal_sessions_find(&s, 5, 9999), -ENOENT);
}

static void find__forgotten_session_is_never_called_unknown(void **state)
{
	struct petal_sessions s = { 0 };
	uint64_t first = PETAL_SESSION_FIRST(3);
	const uint64_t many = 4u * PETAL_SESSIONS_MAX;

	(void)state;
	for (uint64_t n = 0; n < many; n++)
		petal_sessions_note(&s, first + n, 1, n + 1);
	assert_int_equal(s.count, PETAL_SESSIONS_MAX);
	for (uint64_t n = 0; n < many; n++)
		assert_outcome(petal_sessions_find(&s, first + n, 1),
			       n < many - PETAL_SESSIONS_MAX ? -ENODATA : 0);
	assert_outcome(petal_sessions_find(&s, first + many, 1), -ENOENT);
}

/* Of what is retained: what was trimmed before it is in no table. */
static void doubt__what_is_not_noted_may_have_been(void **state)
{
	uint64_t old = PETAL_SESSION_FIRST(3), new = PETAL_SESSION_FIRST(4);
	struct petal_sessions s = { 0 };

	(void)state;
	petal_sessions_note(&s, old, 5, 1);
	petal_sessions_note(&s, old, 6, 2);
	petal_sessions_doubt(&s, 4);
	assert_outcome(petal_sessions_find(&s, old, 5), 0);
	assert_outcome(petal_sessions_find(&s, old, 4), -ENODATA);
	/* Records of a session are in the order of their numbers. */
	assert_outcome(petal_sessions_find(&s, old, 7), -ENOENT);
	assert_outcome(petal_sessions_find(&s, old + 1, 1), -ENODATA);
	assert_outcome(petal_sessions_find(&s, new, 1), -ENOENT);
	petal_sessions_note(&s, new, 2, 3);
	assert_outcome(petal_sessions_find(&s, new, 1), -ENOENT);
}

static void put__makes_the_same_table(void **state)
{
	struct petal_sessions s = { 0 }, copy = { 0 };
	const struct petal_session none = { 0 };

	(void)state;
	for (uint64_t n = 0; n < 3u * PETAL_SESSIONS_MAX; n++)
		petal_sessions_note(&s, 1000 + n * 7, 1 + n, n + 1);
	for (unsigned i = 0; i < PETAL_SESSIONS_MAX; i++)
		assert_ok(petal_sessions_put(&copy, &s.at[i]));
	copy.forgotten = s.forgotten;
	for (uint64_t n = 0; n < 3u * PETAL_SESSIONS_MAX; n++)
		assert_int_equal(petal_sessions_find(&copy, 1000 + n * 7,
						     1 + n),
				 petal_sessions_find(&s, 1000 + n * 7, 1 + n));
	assert_outcome(petal_sessions_put(&copy, &s.at[0]), -EINVAL);
	assert_outcome(petal_sessions_put(&copy, &none), -EINVAL);
}

/* Against a plain list of what was noted, in any order. */
static void random__answers_as_a_list_would(void **state)
{
	static uint8_t noted[4][LONG + 1];
	const uint64_t runs = petal_test_rounds(200);
	uint64_t random = 1;

	(void)state;
	for (uint64_t run = 0; run < runs; run++) {
		struct petal_sessions s = { 0 };
		uint64_t highest[4] = { 0 };

		memset(noted, 0, sizeof(noted));
		for (unsigned n = 0; n < 300; n++) {
			uint64_t who = petal_test_random(&random) % 4;
			uint64_t by = petal_test_random(&random) % 16;
			uint64_t at = highest[who] + by > 8
					      ? highest[who] + by - 8
					      : 1;

			if (at > LONG)
				continue;
			petal_sessions_note(&s, 96 * who + 1, at, n + 1);
			noted[who][at] = 1;
			if (at > highest[who])
				highest[who] = at;
		}
		for (unsigned who = 0; who < 4; who++) {
			for (uint64_t at = 1; at <= LONG; at++) {
				int found = petal_sessions_find(
					&s, 96 * who + 1, at);

				if (at + PETAL_SESSION_WINDOW <= highest[who])
					assert_outcome(found, -ENODATA);
				else
					assert_outcome(
						found,
						noted[who][at] ? 0 : -ENOENT);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(find__knows_what_was_noted),
		cmocka_unit_test(note__twice_changes_nothing),
		cmocka_unit_test(find__does_not_guess_about_what_is_long_ago),
		cmocka_unit_test(
			find__forgotten_session_is_never_called_unknown),
		cmocka_unit_test(doubt__what_is_not_noted_may_have_been),
		cmocka_unit_test(put__makes_the_same_table),
		cmocka_unit_test(random__answers_as_a_list_would),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
