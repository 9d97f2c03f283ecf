/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/clock.h: units, direction, agreement with the kernel and between
 * processes, and sums that would wrap. PETAL_TEST_HARDER=1000 reads the clock a
 * hundred million times in search of a step backwards.
 */
#include "tests/check.h"

#include <sys/wait.h>

#include "shm/clock.h"

static void macros__are_nanoseconds_without_overflow_in_int(void **state)
{
	(void)state;
	assert_true(PETAL_US(1) == 1000);
	assert_true(PETAL_MS(1) == PETAL_US(1000));
	assert_true(PETAL_S(1) == PETAL_MS(1000));
	assert_true(PETAL_S(5) == UINT64_C(5000000000));
	assert_true(PETAL_MS(3000000000u) == UINT64_C(3000000000000000));
	assert_true(PETAL_MS(2 + 3) == PETAL_MS(5));
}

static void now__never_goes_back(void **state)
{
	uint64_t last = petal_clock_now_ns();

	(void)state;
	for (uint64_t i = petal_test_rounds(100000); i > 0; i--) {
		uint64_t now = petal_clock_now_ns();

		assert_true(now >= last);
		last = now;
	}
}

static uint64_t kernel_ns(clockid_t clock)
{
	struct timespec now;

	assert_int_equal(clock_gettime(clock, &now), 0);
	return PETAL_S(now.tv_sec) + (uint64_t)now.tv_nsec;
}

static void now__lies_between_two_readings_of_the_kernels(void **state)
{
	uint64_t before = kernel_ns(CLOCK_MONOTONIC);
	uint64_t now = petal_clock_now_ns();
	uint64_t after = kernel_ns(CLOCK_MONOTONIC);

	(void)state;
	assert_in_range(now, before, after);
}

static void now__is_the_same_clock_in_another_process(void **state)
{
	uint64_t before = petal_clock_now_ns();
	uint64_t theirs = 0;
	int ends[2];
	pid_t child;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		theirs = petal_clock_now_ns();
		_exit(write(ends[1], &theirs, sizeof(theirs)) !=
		      sizeof(theirs));
	}
	assert_int_equal(read(ends[0], &theirs, sizeof(theirs)),
			 sizeof(theirs));
	assert_in_range(theirs, before, petal_clock_now_ns());
	assert_int_equal(waitpid(child, NULL, 0), child);
	close(ends[0]);
	close(ends[1]);
}

static void realtime__is_the_time_of_day(void **state)
{
	uint64_t before = kernel_ns(CLOCK_REALTIME);
	uint64_t now = petal_clock_realtime_ns();
	uint64_t after = kernel_ns(CLOCK_REALTIME);

	(void)state;
	/* Someone may set the clock in between: then only the order is lost. */
	if (before <= after)
		assert_in_range(now, before, after);
	assert_true(now > PETAL_S(1700000000));
}

static void after__adds(void **state)
{
	(void)state;
	assert_true(petal_clock_after_ns(10, 5) == 15);
	assert_true(petal_clock_after_ns(10, 0) == 10);
}

static void after__a_sum_that_would_wrap_is_never(void **state)
{
	(void)state;
	assert_true(petal_clock_after_ns(10, PETAL_CLOCK_NEVER) ==
		    PETAL_CLOCK_NEVER);
	assert_true(petal_clock_after_ns(10, PETAL_CLOCK_NEVER - 9) ==
		    PETAL_CLOCK_NEVER);
	assert_true(petal_clock_after_ns(10, PETAL_CLOCK_NEVER - 11) ==
		    PETAL_CLOCK_NEVER - 1);
	assert_true(petal_clock_after_ns(0, PETAL_CLOCK_NEVER) ==
		    PETAL_CLOCK_NEVER);
}

static void timespec__is_one_the_kernel_takes(void **state)
{
	struct timespec time = petal_clock_timespec(PETAL_S(3) + 7);

	(void)state;
	assert_int_equal(time.tv_sec, 3);
	assert_int_equal(time.tv_nsec, 7);
	time = petal_clock_timespec(PETAL_CLOCK_NEVER);
	assert_true(time.tv_sec > 0);
	assert_in_range(time.tv_nsec, 0, 999999999);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			macros__are_nanoseconds_without_overflow_in_int),
		cmocka_unit_test(now__never_goes_back),
		cmocka_unit_test(now__lies_between_two_readings_of_the_kernels),
		cmocka_unit_test(now__is_the_same_clock_in_another_process),
		cmocka_unit_test(realtime__is_the_time_of_day),
		cmocka_unit_test(after__adds),
		cmocka_unit_test(after__a_sum_that_would_wrap_is_never),
		cmocka_unit_test(timespec__is_one_the_kernel_takes),
	};

	return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
