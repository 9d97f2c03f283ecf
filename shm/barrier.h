/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_BARRIER_H
#define PETAL_SHM_BARRIER_H

#include "shm/atomic.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: barrier - a fence for which only one of its two sides pays
 *
 * Two parties that each store one word and then load the other's need a full
 * fence in between, both of them. Where one of them comes by millions of times
 * a second and the other hardly ever, the kernel can give the rare one's fence
 * to all CPUs on which the frequent ones run: membarrier(2).
 *
 *    often:   store A;  petal_barrier_light();  load B
 *    seldom:  store B;  petal_barrier_heavy();  load A
 *
 * Always true: at least one of the two sees what the other has stored, in any
 * pair of processes of one kernel.
 *
 * The light half costs nothing in a process that has enrolled, and a full fence
 * in one that has not, so that forgetting it costs time and never a wake-up.
 * An enrolment lasts until execve(2), also in the children of fork(2).
 *
 * Ordering:
 *    [WAKE]   the light half, or the fence in its place <-> the heavy half
 *
 * Source: membarrier(2), the commands of GLOBAL_EXPEDITED.
 */

/**
 * petal_barrier_enroll() - make the light half free in this process
 *
 * Call it once, when the process starts to use rings. Threads: any.
 *
 * Return: 0; -EOPNOTSUPP when the kernel, or a filter of system calls, has no
 * such barrier: all goes on, with a fence at each light half.
 */
int petal_barrier_enroll(void);

/** petal_barrier_light() - the half of whoever comes by often */
static inline void petal_barrier_light(void);

/**
 * petal_barrier_heavy() - the half of whoever comes by seldom
 *
 * A system call, and an interrupt for each CPU where an enrolled process runs:
 * some microseconds.
 *
 * Return: 0; -EOPNOTSUPP when the call is refused here though it may be allowed
 * to others: then what the light half orders is seen late, and whoever waits
 * for it must look again within a bound.
 */
int petal_barrier_heavy(void);

/* 1 when this process has enrolled; written once, by enroll. */
extern struct petal_u32 petal_barrier_enrolled;

static inline void petal_barrier_light(void)
{
	if (__builtin_expect(petal_load(&petal_barrier_enrolled, PETAL_RELAXED),
			     1))
		petal_compiler_fence(PETAL_SEQ_CST(WAKE));
	else
		petal_fence(PETAL_SEQ_CST(WAKE));
}

#ifdef __cplusplus
}
#endif

#endif
