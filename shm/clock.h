/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_CLOCK_H
#define PETAL_SHM_CLOCK_H

#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: clock - the time of day and the time that only grows
 *
 * Two clocks, both in nanoseconds in 64 bits, which last until the year 2554.
 *
 *    petal_clock_now_ns()       CLOCK_MONOTONIC: for timeouts, leases and
 *                               measurements. The same for all processes of
 *                               one host, meaningless on any other host, and
 *                               it starts again with the machine.
 *    petal_clock_realtime_ns()  CLOCK_REALTIME: for people, and for windows of
 *                               liveness between hosts. It may jump both ways,
 *                               so nothing that must be safe may rest on it.
 *
 * Protocol code takes now_ns as an argument and calls neither; only the loop
 * that drives it does. From this header it uses the macros and
 * petal_clock_after_ns(), which read no clock.
 *
 * Nothing here sleeps, allocates, or enters the kernel where the vDSO serves.
 * Threads: every call may run at any time, in any thread.
 */

/** A count of seconds, milliseconds or microseconds, in nanoseconds. */
#define PETAL_S(x) (UINT64_C(1000000000) * (uint64_t)(x))
#define PETAL_MS(x) (UINT64_C(1000000) * (uint64_t)(x))
#define PETAL_US(x) (UINT64_C(1000) * (uint64_t)(x))

/** A deadline that never comes. */
#define PETAL_CLOCK_NEVER UINT64_MAX

/**
 * petal_clock_now_ns() - read the clock that only grows
 *
 * Return: CLOCK_MONOTONIC in nanoseconds.
 */
static inline uint64_t petal_clock_now_ns(void);

/**
 * petal_clock_realtime_ns() - read the time of day
 *
 * Return: nanoseconds since 1970-01-01 UTC, leap seconds not counted.
 */
uint64_t petal_clock_realtime_ns(void);

/**
 * petal_clock_after_ns() - the moment when a wait has lasted long enough
 * @now_ns: the present
 * @timeout_ns: how long to wait; PETAL_CLOCK_NEVER for ever
 *
 * Return: the deadline. A sum that would wrap becomes PETAL_CLOCK_NEVER, for a
 * wrapped deadline lies in the past and would fire at once.
 */
static inline uint64_t petal_clock_after_ns(uint64_t now_ns,
					    uint64_t timeout_ns);

/**
 * petal_clock_timespec() - the shape in which the kernel takes a time
 * @ns: a moment or a span, in nanoseconds
 *
 * Return: the same as a timespec; PETAL_CLOCK_NEVER gives the year 2554.
 */
static inline struct timespec petal_clock_timespec(uint64_t ns);

#include "shm/clock_inl.h"

#ifdef __cplusplus
}
#endif

#endif
