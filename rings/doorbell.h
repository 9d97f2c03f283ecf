/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_DOORBELL_H
#define PETAL_RINGS_DOORBELL_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/atomic.h"
#include "shm/barrier.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: doorbell - sleep until somebody in any process has news
 *
 *    byte 0      4        8
 *    +-----------+--------+
 *    | sequence  | armed  |    somewhere in shared memory, zeroed, best on a
 *    | 2 x rings | 4n + p |    line of its own
 *    +-----------+--------+
 *
 * A doorbell carries no news and no count. It belongs to a condition that the
 * waiter can test by itself: "the ring is not empty". The one rule:
 *
 *    waiter                               ringer
 *    seen = arm(db)                       make the condition true
 *    if the condition is true: go on      ring(db, count)
 *    wait(db, seen, deadline), then test again, and maybe arm again
 *
 * Always true:  a waiter that armed, found its condition false and sleeps, is
 * woken by the first ring after the condition became true, or, if that ring
 * came by at the moment of the arm, tests its condition again within
 * PETAL_DOORBELL_NAP_NS.
 *
 * The sleeper pays for the wake-up. In a process that has called
 * petal_barrier_enroll(), ring is one load of a line that nobody writes; in any
 * other, a fence as well. And it pays only for a long sleep: the heavy half of
 * shm/barrier.h interrupts every CPU that runs an enrolled process, which takes
 * a microsecond on one machine and fifty in a virtual one. So the first sleep
 * after an answered arm is a nap: without the heavy half, and bounded. Instead,
 * arm takes a microsecond, in which what a ringer stored before it looked at
 * armed leaves its processor; should that ever not be enough, the nap ends. Who
 * arms again and was not rung for in between makes the barrier, and sleeps for
 * as long as it likes. So who is woken often never pays, and who is not pays
 * once until the next ring, with one wake-up more.
 *
 * armed is odd while somebody may sleep, and every arm and every answer makes
 * it another number, so that a ringer never clears an arm that it has not
 * answered. Its second bit says that the barrier was made since it became odd.
 *
 * Who may run together: everything with everything, from any number of threads
 * and processes, except that disarm, and an fd, are for a doorbell with one
 * waiter.
 *
 * Ordering:
 *    [WAKE]   an arm before a long sleep stores armed, then the heavy half of
 *             shm/barrier.h, then the waiter tests its condition <-> the ringer
 *             makes the condition true, then the light half, then ring loads
 *             armed: at least one of the two sees what the other has written.
 *             armed is marked as paid for behind the heavy half, which makes
 *             that store a release; a later arm acquires it by [ARM]: what the
 *             barrier showed to the one, the other tests as well
 *    [ARM]    arm takes the sequence, then stores armed (release) -> ring
 *             loads armed (acquire), then adds to sequence: the answer is
 *             later than what the waiter saw, so that its sleep is refused
 *    [SEEN]   ring adds to sequence (release) -> arm and the kernel read it:
 *             who sees the new number tests its condition after it was true
 *
 * Crash: a sleeper that is killed leaves armed set, which costs the next ringer
 * one system call. A ringer that is killed before it woke anybody leaves armed
 * set too, so that whoever proves its death rings in its place; and so for a
 * sleeper that was woken and died of it.
 *
 * Trust: a peer may ring for nothing, never ring, or write any number here.
 * The waiter loses time by it, never safety: it tests its own condition, and
 * bounds its wait by a deadline.
 *
 * Source: futex(2), and the event count of Vyukov; the token is ours. That the
 * sleeper pays is how liburcu's futexes and membarrier(2) are meant to be used.
 */

/* Wake all who sleep. Also the right count where only one can sleep. */
#define PETAL_DOORBELL_ALL UINT32_C(0x7fffffff)

/*
 * The longest nap: behind the next tick of most kernels, for a timer that is
 * the first of all has to be programmed, and again when it is not needed.
 */
#define PETAL_DOORBELL_NAP_MS 5
#define PETAL_DOORBELL_NAP_NS (PETAL_DOORBELL_NAP_MS * UINT64_C(1000000))

/* How many doorbells one may wait for at a time; the kernel's own bound. */
#define PETAL_DOORBELL_MANY_MAX 128u

struct petal_doorbell {
	struct petal_u32 sequence;
	struct petal_u32 armed;
};

static_assert(sizeof(struct petal_doorbell) == 8, "layout");
static_assert(__builtin_offsetof(struct petal_doorbell, armed) == 4, "layout");

/**
 * petal_doorbell_arm() - announce that we are about to sleep
 *
 * The condition must be tested between this and the sleep.
 *
 * Order: the first half of [WAKE], if the arm before was not answered and had
 * not made it.
 *
 * Return: for petal_doorbell_wait(): the sequence, and in its lowest bit
 * whether the sleep is to be a nap.
 */
uint32_t petal_doorbell_arm(struct petal_doorbell *doorbell);

/**
 * petal_doorbell_arm_fd() - the same for a waiter that sleeps in epoll
 *
 * Order: as petal_doorbell_arm().
 *
 * Return: for epoll_wait(2): the milliseconds of a nap, or -1 to sleep for as
 * long as it likes.
 */
int petal_doorbell_arm_fd(struct petal_doorbell *doorbell);

/**
 * petal_doorbell_disarm() - announce that we do not sleep after all
 *
 * Optional: it saves the next ringer a system call. Only where there is one
 * waiter, for it would silence the others.
 */
void petal_doorbell_disarm(struct petal_doorbell *doorbell);

/**
 * petal_doorbell_wait() - sleep until the doorbell rings
 * @seen: what petal_doorbell_arm() returned
 * @deadline_ns: on the clock of petal_clock_now_ns(); 0 for none
 *
 * Returns at once if it rang since. Test the condition after it in any case.
 *
 * Return: 0 when it rang, a nap is over or a signal came; 1 when the deadline
 * has passed; otherwise what futex(2) said, negated.
 */
int petal_doorbell_wait(struct petal_doorbell *doorbell, uint32_t seen,
			uint64_t deadline_ns);

/**
 * petal_doorbell_wait_many() - sleep until one of several doorbells rings
 * @doorbells: which; each armed, and its condition tested and found false
 * @seen: what each arm returned
 * @count: 1 to PETAL_DOORBELL_MANY_MAX
 * @deadline_ns: as for petal_doorbell_wait()
 *
 * Return: 0 when one of them rang, a nap is over or a signal came: test all
 * conditions; 1 when the deadline has passed; -EINVAL for a count out of range;
 * -ENOSYS before Linux 5.16: give each an fd instead; otherwise what
 * futex_waitv(2) said, negated.
 */
int petal_doorbell_wait_many(struct petal_doorbell *const *doorbells,
			     const uint32_t *seen, unsigned count,
			     uint64_t deadline_ns);

/**
 * petal_doorbell_ring() - wake who sleeps, after the condition became true
 * @count: how many sleepers there is news for, or PETAL_DOORBELL_ALL
 *
 * When @count of them were woken, armed stays set, for others may sleep on; the
 * next ring then asks the kernel again. So where only one can sleep, say
 * PETAL_DOORBELL_ALL.
 *
 * Order: the second half of [WAKE].
 */
static inline void petal_doorbell_ring(struct petal_doorbell *doorbell,
				       uint32_t count);

/**
 * petal_doorbell_ring_fd() - the same for a waiter that sleeps in epoll
 * @fd: its eventfd, non-blocking
 *
 * The waiter: arm_fd, test the condition, epoll_wait on the eventfd among its
 * other things, for no longer than arm_fd said; when the condition is true,
 * disarm; read the eventfd if it is readable.
 */
static inline void petal_doorbell_ring_fd(struct petal_doorbell *doorbell,
					  int fd);

#include "rings/doorbell_inl.h"

#ifdef __cplusplus
}
#endif

#endif
