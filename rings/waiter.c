/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/waiter.h"

#include <sched.h>

#include "shm/clock.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

/* Long against the two clock readings that measure it. */
#define LEARN_NS PETAL_US(100)
/* How long a doze without a word may be late, in ticks. */
#define DOZE_TICKS 500u

/* In 2^-20 ticks per nanosecond; 0 until learnt. Any thread may learn it. */
static struct petal_u64 tick_rate;

uint64_t petal_waiter_ticks_slow(void)
{
	return petal_clock_now_ns();
}

static uint64_t tick_rate_learn(void)
{
	uint64_t begin_ns = petal_clock_now_ns();
	uint64_t begin = petal_waiter_ticks();
	uint64_t ns = 0, rate;

	while (ns < LEARN_NS)
		ns = petal_clock_now_ns() - begin_ns;
	rate = ((petal_waiter_ticks() - begin) << 20) / ns;
	return rate ? rate : 1;
}

static uint64_t ticks_of(uint64_t ns)
{
	uint64_t rate = petal_load(&tick_rate, PETAL_RELAXED);

	if (rate == 0) {
		rate = tick_rate_learn();
		petal_store(&tick_rate, rate, PETAL_RELAXED);
	}
	return (uint64_t)((__extension__(unsigned __int128) ns) * rate >> 20);
}

#if defined(__x86_64__)

static enum petal_waiter_way way_choose(void)
{
	unsigned a, b, c, d;

	if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && c & 1u << 5)
		return PETAL_WAITER_TPAUSE;
	if (__get_cpuid(0x80000001, &a, &b, &c, &d) && c & 1u << 29)
		return PETAL_WAITER_MWAITX;
	return PETAL_WAITER_PAUSE;
}

/* C0.1, the lighter of the two states: it takes less time to leave. */
__attribute__((target("waitpkg"))) static void
doze_waitpkg(const struct petal_u64 *word, uint64_t seen, uint64_t until_ticks)
{
	if (!word) {
		uint64_t soon = petal_waiter_ticks() + DOZE_TICKS;

		_tpause(1, soon < until_ticks ? soon : until_ticks);
		return;
	}
	_umonitor((void *)(uintptr_t)word);
	/* What was written before the monitor was armed wakes nobody. */
	if (petal_load(word, PETAL_RELAXED) == seen)
		_umwait(1, until_ticks);
}

__attribute__((target("mwaitx"))) static void
doze_mwaitx(const struct petal_u64 *word, uint64_t seen, uint64_t until_ticks)
{
	const unsigned with_timer = 2, state_c1 = 0;
	uint64_t now = petal_waiter_ticks();

	if (!word || now >= until_ticks) {
		petal_waiter_pause();
		return;
	}
	_mm_monitorx((void *)(uintptr_t)word, 0, 0);
	if (petal_load(word, PETAL_RELAXED) == seen)
		_mm_mwaitx(with_timer, state_c1, (unsigned)(until_ticks - now));
}

void petal_waiter_doze(enum petal_waiter_way way, const struct petal_u64 *word,
		       uint64_t seen, uint64_t until_ticks)
{
	if (way == PETAL_WAITER_TPAUSE)
		doze_waitpkg(word, seen, until_ticks);
	else
		doze_mwaitx(word, seen, until_ticks);
}

#else

static enum petal_waiter_way way_choose(void)
{
	return PETAL_WAITER_PAUSE;
}

void petal_waiter_doze(enum petal_waiter_way way, const struct petal_u64 *word,
		       uint64_t seen, uint64_t until_ticks)
{
	(void)way;
	(void)word;
	(void)seen;
	(void)until_ticks;
	petal_waiter_pause();
}

#endif

/* Whether each that will spin can have a CPU of its own. */
static bool cpus_suffice(unsigned parties)
{
	cpu_set_t allowed;

	/* It fails only on machines with more CPUs than the set can name. */
	if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
		return true;
	return (unsigned)CPU_COUNT(&allowed) >= parties;
}

void petal_waiter_init(struct petal_waiter *waiter, unsigned parties,
		       uint64_t budget_ns)
{
	*waiter = (struct petal_waiter){
		.budget_ticks = cpus_suffice(parties) ? ticks_of(budget_ns) : 0,
		.way = way_choose(),
	};
}

const char *petal_waiter_way_name(enum petal_waiter_way way)
{
	switch (way) {
	case PETAL_WAITER_PAUSE:
		return "pause";
	case PETAL_WAITER_TPAUSE:
		return "tpause";
	case PETAL_WAITER_MWAITX:
		return "mwaitx";
	}
	return "unknown";
}
