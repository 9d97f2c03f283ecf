/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/clock.h"

uint64_t petal_clock_realtime_ns(void)
{
	struct timespec now;

	/* Cannot fail: the clock exists and the pointer is good. */
	clock_gettime(CLOCK_REALTIME, &now);
	return PETAL_S(now.tv_sec) + (uint64_t)now.tv_nsec;
}
