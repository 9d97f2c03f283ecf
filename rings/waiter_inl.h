/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_WAITER_INL_H
#define PETAL_RINGS_WAITER_INL_H

/* Out of line, for they are few processors'. */
uint64_t petal_waiter_ticks_slow(void);
void petal_waiter_doze(enum petal_waiter_way way, const struct petal_u64 *word,
		       uint64_t seen, uint64_t until_ticks);

static inline uint64_t petal_waiter_ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return petal_waiter_ticks_slow();
#endif
}

static inline void petal_waiter_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	/* YIELD does nothing on most cores; a barrier takes some 30 ns. */
	__asm__ volatile("isb" ::: "memory");
#endif
}

static inline bool petal_waiter_watch(struct petal_waiter *waiter,
				      const struct petal_u64 *word,
				      uint64_t seen)
{
	uint64_t now = petal_waiter_ticks();

	if (waiter->until_ticks == 0)
		waiter->until_ticks = now + waiter->budget_ticks;
	if (now >= waiter->until_ticks)
		return false;
	if (waiter->way == PETAL_WAITER_PAUSE)
		petal_waiter_pause();
	else
		petal_waiter_doze(waiter->way, word, seen, waiter->until_ticks);
	return true;
}

static inline bool petal_waiter_look(struct petal_waiter *waiter)
{
	return petal_waiter_watch(waiter, NULL, 0);
}

static inline void petal_waiter_rest(struct petal_waiter *waiter)
{
	waiter->until_ticks = 0;
}

#endif
