/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FUZZ_HOOK_H
#define PETAL_FUZZ_HOOK_H

#include <stdbool.h>
#include <stdint.h>

/**
 * DOC: hook - what shm/atomic.h becomes when a hostile peer shares the memory
 *
 *    cc -DPETAL_ATOMIC_HOOKS='"tests/fuzz/hook.h"' ... rings/spsc.c
 *
 * Before each access of a shared word the fuzzer may change that word, or any
 * other of the shared memory; and it counts, so that a call that goes on for
 * longer than its bound is stopped and told. In between it costs a decrement.
 */

struct fuzz_countdown {
	uint64_t left;  /* accesses until fuzz_event() is called */
	uint64_t given; /* what left began with */
};

extern struct fuzz_countdown fuzz_countdown;

void fuzz_event(const volatile void *word, unsigned bytes);

static inline void fuzz_access(const volatile void *word, unsigned bytes)
{
	if (__builtin_expect(--fuzz_countdown.left == 0, 0))
		fuzz_event(word, bytes);
}

#define FUZZ_ACCESS(word) fuzz_access(&(word)->bits, sizeof((word)->bits))

#define PETAL_RELAXED __ATOMIC_RELAXED
#define PETAL_ACQUIRE(edge) __ATOMIC_ACQUIRE
#define PETAL_RELEASE(edge) __ATOMIC_RELEASE
#define PETAL_ACQ_REL(edge) __ATOMIC_ACQ_REL
#define PETAL_SEQ_CST(edge) __ATOMIC_SEQ_CST

#define petal_load(word, order) \
	(FUZZ_ACCESS(word), __atomic_load_n(&(word)->bits, order))
#define petal_store(word, value, order) \
	(FUZZ_ACCESS(word), __atomic_store_n(&(word)->bits, value, order))
#define petal_cas(word, expected, value, order)                                \
	(FUZZ_ACCESS(word),                                                    \
	 __atomic_compare_exchange_n(&(word)->bits, expected, value, 0, order, \
				     __ATOMIC_RELAXED))
#define petal_swap(word, value, order) \
	(FUZZ_ACCESS(word), __atomic_exchange_n(&(word)->bits, value, order))
#define petal_add(word, value, order) \
	(FUZZ_ACCESS(word), __atomic_fetch_add(&(word)->bits, value, order))
#define petal_or(word, value, order) \
	(FUZZ_ACCESS(word), __atomic_fetch_or(&(word)->bits, value, order))
#define petal_and(word, value, order) \
	(FUZZ_ACCESS(word), __atomic_fetch_and(&(word)->bits, value, order))
#define petal_fence(order) __atomic_thread_fence(order)
#define petal_compiler_fence(order) __atomic_signal_fence(order)

#endif
