/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_WAITER_H
#define PETAL_RINGS_WAITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/atomic.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: waiter - how long to keep looking before going to sleep
 *
 * A wait begins by looking again and again, for a sleep and a wake-up cost tens
 * of microseconds; it ends by sleeping, for nobody has a CPU to give away:
 *
 *    while (!(message = petal_spsc_peek(&ring))) {
 *            if (petal_waiter_look(&waiter))
 *                    continue;
 *            seen = petal_doorbell_arm(&shared->news);
 *            if ((message = petal_spsc_peek(&ring))) {
 *                    petal_doorbell_disarm(&shared->news);
 *                    break;
 *            }
 *            petal_doorbell_wait(&shared->news, seen, deadline_ns);
 *    }
 *    petal_waiter_rest(&waiter);
 *
 * Between two looks the CPU is told to relax, by the best that it has: MWAITX
 * or UMWAIT where the caller can name the word that will change, TPAUSE where
 * it cannot, PAUSE otherwise. How long one PAUSE takes differs by a factor of
 * ten between processors, so the budget counts ticks of the time stamp counter.
 *
 * Where the calling thread may use no more CPUs than there are parties that
 * spin, it does not spin at all: it would keep the one off the CPU whose news
 * it waits for. Affinity is asked for once, at init; limits of bandwidth
 * (cgroups) are not seen.
 *
 * A waiter is private to its thread.
 *
 * What was run: PAUSE. The other three are compiled, chosen by CPUID, and were
 * never run by the tests, whose machines lack them.
 */

/* What a sleep and a wake-up cost, in round figures. */
#define PETAL_WAITER_BUDGET_NS UINT64_C(20000)

enum petal_waiter_way {
	PETAL_WAITER_PAUSE,  /* everywhere */
	PETAL_WAITER_TPAUSE, /* x86 waitpkg; UMWAIT where a word is named */
	PETAL_WAITER_MWAITX, /* x86 monitorx, where a word is named */
};

struct petal_waiter {
	uint64_t budget_ticks; /* 0: never spin */
	uint64_t until_ticks;  /* of this wait; 0: it has not begun */
	enum petal_waiter_way way;
};

/**
 * petal_waiter_init() - a waiter for one of several parties
 * @waiter: the caller's memory
 * @parties: how many threads will spin at the same time, ours included
 * @budget_ns: how long to look; PETAL_WAITER_BUDGET_NS if in doubt
 *
 * The first call of a process takes 100 us, to learn how long a tick is.
 */
void petal_waiter_init(struct petal_waiter *waiter, unsigned parties,
		       uint64_t budget_ns);

/**
 * petal_waiter_look() - relax for a moment, unless the time is up
 *
 * Return: true to look again; false when it is time to sleep, and from then on
 * until petal_waiter_rest().
 */
static inline bool petal_waiter_look(struct petal_waiter *waiter);

/**
 * petal_waiter_watch() - the same, until a word is written or some time passed
 * @word: what the news will change
 * @seen: its value when there was no news
 */
static inline bool petal_waiter_watch(struct petal_waiter *waiter,
				      const struct petal_u64 *word,
				      uint64_t seen);

/** petal_waiter_rest() - the wait is over; the next one has a budget again */
static inline void petal_waiter_rest(struct petal_waiter *waiter);

/**
 * petal_waiter_way_name() - how it relaxes, in a word for people
 *
 * Return: a constant string such as "pause"; never NULL.
 */
const char *petal_waiter_way_name(enum petal_waiter_way way);

#include "rings/waiter_inl.h"

#ifdef __cplusplus
}
#endif

#endif
