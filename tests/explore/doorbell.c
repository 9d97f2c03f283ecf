/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/doorbell.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/explore/explore.h"

/*
 * Waiters that sleep until there is news, ringers that bring it. A waiter that
 * sleeps for ever is a thread that never ends, which the explorer reports.
 *
 * The kernel is here. A futex is a queue under a lock: whoever takes the lock
 * later knows what was done under it before. Of membarrier(2) the explorer
 * knows what it does.
 */

const char explore_kind[] = "doorbell";

#define WAITERS 2u

static struct {
	struct petal_doorbell doorbell;
	struct petal_u64 news;
	struct petal_u64 lock; /* of the kernel's queue */
} shared;

static struct {
	bool refuses; /* membarrier is not allowed here */
	bool queued[EXPLORE_THREADS_MAX];
	bool naps[EXPLORE_THREADS_MAX];
	uint32_t got;
} state;

/*
 * A nap is over at once, for nothing may rely on its being long. The bound of
 * a sleeper whose barrier was refused never comes, for with a ringer that
 * fences nothing may rely on that.
 */
static long futex_wait(struct petal_u32 *word, uint32_t value)
{
	unsigned self = explore_self();

	petal_add(&shared.lock, 1, EXPLORE_ACQ_REL);
	state.queued[self] = true;
	if (petal_load(word, PETAL_RELAXED) != value) {
		state.queued[self] = false;
		errno = EAGAIN;
		return -1;
	}
	if (state.naps[self]) {
		state.queued[self] = false;
		errno = ETIMEDOUT;
		return -1;
	}
	if (state.queued[self])
		explore_park();
	return 0;
}

static long futex_wake(uint32_t count)
{
	long woken = 0;

	petal_add(&shared.lock, 1, EXPLORE_ACQ_REL);
	for (unsigned i = 0; i < EXPLORE_THREADS_MAX && woken < count; i++) {
		if (!state.queued[i])
			continue;
		state.queued[i] = false;
		explore_unpark(i);
		woken++;
	}
	return woken;
}

static long barrier(void)
{
	if (state.refuses) {
		errno = EPERM;
		return -1;
	}
	explore_membarrier();
	return 0;
}

/* In place of libc's. */
long syscall(long number, ...)
{
	struct petal_u32 *word;
	va_list arguments;
	uint32_t value;
	int operation;

	if (number == SYS_membarrier)
		return barrier();
	va_start(arguments, number);
	word = va_arg(arguments, struct petal_u32 *);
	operation = va_arg(arguments, int);
	value = va_arg(arguments, uint32_t);
	va_end(arguments);
	return operation == FUTEX_WAKE ? futex_wake(value)
				       : futex_wait(word, value);
}

static void make(bool enrolled, bool refuses)
{
	memset(&shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
	state.refuses = refuses;
	petal_store(&petal_barrier_enrolled, enrolled, PETAL_RELAXED);
	petal_store(&petal_doorbell_recheck, 0, PETAL_RELAXED);
}

static void make_enrolled(void)
{
	make(true, false);
}

static void make_stranger(void)
{
	make(false, false);
}

static void make_refused(void)
{
	make(false, true);
}

/* The rule of the header, a bounded number of times. */
static void wait_for(uint64_t wanted)
{
	for (unsigned i = 0; i < 6; i++) {
		uint32_t seen = petal_doorbell_arm(&shared.doorbell);

		if (petal_load(&shared.news, EXPLORE_ACQUIRE) >= wanted) {
			state.got++;
			return;
		}
		state.naps[explore_self()] = seen & 1;
		explore_check(petal_doorbell_wait(&shared.doorbell, seen, 0) ==
			      0);
	}
}

static void wait_for_1(void)
{
	wait_for(1);
}

static void wait_for_2(void)
{
	wait_for(2);
}

static void wait_and_disarm(void)
{
	wait_for(1);
	petal_doorbell_disarm(&shared.doorbell);
}

/* Twice in a row, so that the second one makes the barrier. */
static void pay(void)
{
	petal_doorbell_arm(&shared.doorbell);
	petal_doorbell_arm(&shared.doorbell);
}

static void bring(void)
{
	petal_add(&shared.news, 1, EXPLORE_ACQ_REL);
	petal_doorbell_ring(&shared.doorbell, PETAL_DOORBELL_ALL);
}

static void bring_more(void)
{
	petal_add(&shared.news, 1, EXPLORE_ACQ_REL);
	petal_doorbell_ring(&shared.doorbell, PETAL_DOORBELL_ALL);
}

static void bring_twice(void)
{
	bring();
	bring_more();
}

/* A ringer that died is followed by whoever proves it. */
static void ring_in_its_place(void)
{
	if (!explore_proved_dead(1))
		return;
	if (petal_load(&shared.news, PETAL_RELAXED) == 0)
		bring();
	else
		petal_doorbell_ring(&shared.doorbell, PETAL_DOORBELL_ALL);
}

#define MODEL(...)                                                            \
	{                                                                     \
		__VA_ARGS__, .shared = &shared,                               \
			     .shared_bytes = sizeof(shared), .state = &state, \
			     .state_bytes = sizeof(state),                    \
			     .has_private_words = true,                       \
	}

static const struct explore_model one = MODEL(.name = "one",
					      .setup = make_enrolled,
					      .threads = { wait_for_1, bring });

static const struct explore_model stranger =
	MODEL(.name = "stranger", .setup = make_stranger,
	      .threads = { wait_for_1, bring });

static const struct explore_model refused =
	MODEL(.name = "refused", .setup = make_refused,
	      .threads = { wait_for_1, bring });

static const struct explore_model twice =
	MODEL(.name = "twice", .setup = make_refused,
	      .threads = { wait_for_2, bring_twice });

static const struct explore_model disarmed =
	MODEL(.name = "disarmed", .setup = make_enrolled,
	      .threads = { wait_and_disarm, bring });

static const struct explore_model paid =
	MODEL(.name = "paid", .setup = make_enrolled,
	      .threads = { pay, wait_for_1, bring });

static const struct explore_model two_waiters =
	MODEL(.name = "two-waiters", .setup = make_refused,
	      .threads = { wait_for_1, wait_for_1, bring });

static const struct explore_model two_ringers =
	MODEL(.name = "two-ringers", .setup = make_refused,
	      .threads = { wait_for_2, bring, bring_more });

static const struct explore_model ringer_dies =
	MODEL(.name = "ringer-dies", .setup = make_enrolled,
	      .threads = { wait_for_1, bring, ring_in_its_place },
	      .mortal = 1u << 1);

const struct explore_model *const explore_models[] = {
	&one,  &stranger,    &refused,     &twice,       &disarmed,
	&paid, &two_waiters, &two_ringers, &ringer_dies, NULL,
};

#define NO_LOAD_BUFFERING                                                      \
	"a load before a store of the same thread, which RC11 keeps in order " \
	"however relaxed they are; processors and compilers do not"
const struct explore_excuse explore_excuses[] = {
	{ "rings/doorbell.c", "ARM", EXPLORE_ACQ_REL, EXPLORE_ACQUIRE,
	  NO_LOAD_BUFFERING },
	{ "rings/doorbell.c", "ARM", EXPLORE_ACQUIRE, EXPLORE_RELAXED,
	  NO_LOAD_BUFFERING },
	{ .file = NULL },
};
