/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_CLOCK_INL_H
#define PETAL_SHM_CLOCK_INL_H

static inline uint64_t petal_clock_now_ns(void)
{
	struct timespec now;

	/* Cannot fail: the clock exists and the pointer is good. */
	clock_gettime(CLOCK_MONOTONIC, &now);
	return PETAL_S(now.tv_sec) + (uint64_t)now.tv_nsec;
}

static inline uint64_t petal_clock_after_ns(uint64_t now_ns,
					    uint64_t timeout_ns)
{
	if (timeout_ns > PETAL_CLOCK_NEVER - now_ns)
		return PETAL_CLOCK_NEVER;
	return now_ns + timeout_ns;
}

static inline struct timespec petal_clock_timespec(uint64_t ns)
{
	struct timespec time;

	time.tv_sec = (time_t)(ns / PETAL_S(1));
	time.tv_nsec = (long)(ns % PETAL_S(1));
	return time;
}

#endif
