/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fabric/failover.h promises: who tries when, and that the best log is one
 * that no other answer that counts is better than. All orders of three members
 * and all logs of a few records are tried, not a sample of them.
 */
#include "tests/check.h"

#include "fabric/failover.h"
#include "shm/clock.h"

static struct petal_record_cursor end_at(uint32_t epoch, uint64_t lsn)
{
	return (struct petal_record_cursor){ .epoch = epoch,
					     .lsn = lsn,
					     .pos = 64 * lsn };
}

static void better__later_epoch_then_later_lsn(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 9; i++) {
		for (uint32_t j = 0; j < 9; j++) {
			struct petal_record_cursor a = end_at(i / 3, i % 3);
			struct petal_record_cursor b = end_at(j / 3, j % 3);

			assert_int_equal(petal_failover_better(&a, &b), i > j);
		}
	}
}

/* I10, I5: two answers that count, and none of them is better. */
static void best__is_the_best_of_those_that_count(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 3 * 7 * 7 * 7; n++) {
		uint32_t what[3] = { n % 7, n / 7 % 7, n / 49 % 7 };
		unsigned self = n / 343, count = 0;
		struct petal_failover f;
		int best, expected = -EAGAIN;

		petal_failover_open(&f, self);
		petal_failover_fence(&f, 5, 2);
		/* 0: no answer; 1, 2: one that does not count; 3 to 6. */
		for (unsigned i = 0; i < 3; i++) {
			struct petal_record_cursor end =
				end_at(1 + what[i] % 2, 1 + what[i] / 2);

			if (what[i] > 0)
				petal_failover_fenced(&f, i, 5, what[i] > 2,
						      &end);
			count += what[i] > 2;
		}
		best = petal_failover_best(&f);
		if (count >= 2)
			expected = best;
		assert_int_equal(best, expected);
		if (best < 0)
			continue;
		assert_true(what[best] > 2);
		for (unsigned i = 0; i < 3; i++) {
			if (what[i] > 2)
				assert_false(petal_failover_better(
					&f.members[i].end,
					&f.members[best].end));
		}
		/* Of equal ones we take our own. */
		if (what[self] > 2 &&
		    !petal_failover_better(&f.members[best].end,
					   &f.members[self].end))
			assert_int_equal(best, self);
	}
}

static void fenced__answer_to_another_epoch_is_nothing(void **state)
{
	struct petal_record_cursor end = end_at(1, 1);
	struct petal_failover f;

	(void)state;
	petal_failover_open(&f, 0);
	petal_failover_fenced(&f, 0, 5, true, &end);
	petal_failover_fenced(&f, 1, 5, true, &end);
	assert_int_equal(petal_failover_best(&f), -EAGAIN);
	petal_failover_fence(&f, 6, 2);
	petal_failover_fenced(&f, 0, 6, true, &end);
	petal_failover_fenced(&f, 1, 5, true, &end);
	petal_failover_fenced(&f, 2, 7, true, &end);
	assert_int_equal(petal_failover_best(&f), -EAGAIN);
	petal_failover_fenced(&f, 2, 6, true, &end);
	assert_int_equal(petal_failover_best(&f), 0);
	petal_failover_fence(&f, 7, 2);
	assert_int_equal(petal_failover_best(&f), -EAGAIN);
}

/* One that misses the primary may itself be cut off. */
static void may_run__takes_two_that_miss_the_primary(void **state)
{
	struct petal_record_cursor mine = end_at(1, 9), theirs = end_at(1, 3);
	struct petal_failover f;
	uint64_t now_ns = PETAL_S(5);

	(void)state;
	petal_failover_open(&f, 1);
	assert_false(petal_failover_may_run(&f, &mine, now_ns));
	petal_failover_suspect(&f, 4, now_ns);
	assert_false(petal_failover_may_run(&f, &mine, now_ns + PETAL_S(9)));
	petal_failover_heard(&f, 2, 3, PETAL_FAILOVER_MEMORY, &theirs, now_ns);
	assert_false(petal_failover_may_run(&f, &mine, now_ns));
	petal_failover_heard(&f, 2, 4, PETAL_FAILOVER_DISK, &theirs, now_ns);
	assert_false(petal_failover_may_run(&f, &mine, now_ns));
	petal_failover_heard(&f, 2, 4, PETAL_FAILOVER_MEMORY, &theirs, now_ns);
	assert_true(petal_failover_may_run(&f, &mine, now_ns));
	/* Their suspicion is old, or ours is over. */
	assert_false(petal_failover_may_run(
		&f, &mine, now_ns + PETAL_FAILOVER_FRESH_NS + 1));
	petal_failover_trust(&f);
	assert_false(petal_failover_may_run(&f, &mine, now_ns));
}

/* Exactly one of two that suspect each other goes first, whatever their logs. */
static void may_run__one_goes_first_and_the_other_is_patient(void **state)
{
	uint64_t now_ns = PETAL_S(5);

	(void)state;
	for (uint32_t n = 0; n < 16; n++) {
		struct petal_record_cursor a = end_at(n % 2, n / 2 % 2);
		struct petal_record_cursor b = end_at(n / 4 % 2, n / 8);
		struct petal_failover f, g;
		uint64_t late_ns = now_ns + PETAL_FAILOVER_PATIENCE_NS;

		petal_failover_open(&f, 0);
		petal_failover_open(&g, 2);
		petal_failover_suspect(&f, 1, now_ns);
		petal_failover_suspect(&g, 1, now_ns);
		petal_failover_heard(&f, 2, 1, PETAL_FAILOVER_MEMORY, &b,
				     now_ns);
		petal_failover_heard(&g, 0, 1, PETAL_FAILOVER_MEMORY, &a,
				     now_ns);
		assert_int_equal(petal_failover_may_run(&f, &a, now_ns),
				 !petal_failover_better(&b, &a));
		assert_int_equal(petal_failover_may_run(&f, &a, now_ns),
				 !petal_failover_may_run(&g, &b, now_ns));
		assert_true(petal_failover_may_run(&f, &a, late_ns));
		assert_true(petal_failover_may_run(&g, &b, late_ns));
	}
}

/* What is at disk2 is on one of any two disks, and on none of one. */
static void may_run_cold__takes_two_disks_and_time_or_three(void **state)
{
	struct petal_record_cursor mine = end_at(1, 9), theirs = end_at(1, 3);
	uint64_t now_ns = PETAL_S(5), late_ns = now_ns + PETAL_FAILOVER_COLD_NS;
	struct petal_failover f;

	(void)state;
	petal_failover_open(&f, 0);
	assert_false(petal_failover_may_run_cold(&f, &mine, 0, late_ns));
	petal_failover_suspect(&f, 4, now_ns);
	assert_false(petal_failover_may_run_cold(&f, &mine, 0, late_ns));
	petal_failover_heard(&f, 1, 4, PETAL_FAILOVER_NONE, &theirs, late_ns);
	petal_failover_heard(&f, 2, 3, PETAL_FAILOVER_DISK, &theirs, late_ns);
	assert_false(petal_failover_may_run_cold(&f, &mine, 0, late_ns));
	petal_failover_heard(&f, 2, 4, PETAL_FAILOVER_DISK, &theirs, late_ns);
	assert_true(petal_failover_may_run_cold(&f, &mine, 0, late_ns));
	assert_false(petal_failover_may_run_cold(&f, &mine, 0, late_ns - 1));
	petal_failover_heard(&f, 1, 4, PETAL_FAILOVER_DISK, &theirs, now_ns);
	petal_failover_heard(&f, 2, 4, PETAL_FAILOVER_DISK, &theirs, now_ns);
	assert_true(petal_failover_may_run_cold(&f, &mine, 0, now_ns));
	/* One that has its memory has a disk as well; two are not asked. */
	petal_failover_heard(&f, 1, 4, PETAL_FAILOVER_MEMORY, &theirs, now_ns);
	assert_true(petal_failover_may_run_cold(&f, &mine, 1, now_ns));
	assert_false(petal_failover_may_run_cold(&f, &mine, 2, late_ns));
}

static void may_run_cold__the_best_log_goes_first(void **state)
{
	uint64_t now_ns = PETAL_S(5);

	(void)state;
	for (uint32_t n = 0; n < 64; n++) {
		struct petal_record_cursor ends[3] = {
			end_at(1 + n % 2, n / 2 % 2),
			end_at(1 + n / 4 % 2, n / 8 % 2),
			end_at(1 + n / 16 % 2, n / 32),
		};
		unsigned count = 0, first = 3;

		for (unsigned i = 0; i < 3; i++) {
			struct petal_failover f;

			petal_failover_open(&f, i);
			petal_failover_suspect(&f, 1, now_ns);
			for (unsigned j = 0; j < 3; j++)
				petal_failover_heard(&f, j, 1,
						     PETAL_FAILOVER_DISK,
						     &ends[j], now_ns);
			if (!petal_failover_may_run_cold(&f, &ends[i], 0,
							 now_ns))
				continue;
			count++;
			first = i;
		}
		assert_int_equal(count, 1);
		for (unsigned i = 0; i < 3; i++)
			assert_false(
				petal_failover_better(&ends[i], &ends[first]));
	}
}

static void best__one_is_enough_when_a_loss_is_accepted(void **state)
{
	struct petal_record_cursor end = end_at(1, 1);
	struct petal_failover f;

	(void)state;
	petal_failover_open(&f, 1);
	petal_failover_fence(&f, 5, 1);
	petal_failover_fenced(&f, 0, 5, false, &end);
	assert_int_equal(petal_failover_best(&f), -EAGAIN);
	petal_failover_fenced(&f, 1, 5, true, &end);
	assert_int_equal(petal_failover_best(&f), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(better__later_epoch_then_later_lsn),
		cmocka_unit_test(best__is_the_best_of_those_that_count),
		cmocka_unit_test(fenced__answer_to_another_epoch_is_nothing),
		cmocka_unit_test(may_run__takes_two_that_miss_the_primary),
		cmocka_unit_test(
			may_run__one_goes_first_and_the_other_is_patient),
		cmocka_unit_test(
			may_run_cold__takes_two_disks_and_time_or_three),
		cmocka_unit_test(may_run_cold__the_best_log_goes_first),
		cmocka_unit_test(best__one_is_enough_when_a_loss_is_accepted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
