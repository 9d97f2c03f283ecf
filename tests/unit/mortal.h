/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_UNIT_MORTAL_H
#define PETAL_TESTS_UNIT_MORTAL_H

/**
 * DOC: mortal - shared words whose user may die before any access
 *
 * A test that defines PETAL_ATOMIC_HOOKS as this header, and includes the
 * sources under test, is told before each access to a shared word. What it does
 * then, by mortal_tick(), is its own affair: count, leave by longjmp() as a
 * process does that was killed, or let another party run first.
 */

#include <stdbool.h>
#include <stdint.h>

static void mortal_tick(void);

#define PETAL_RELAXED __ATOMIC_RELAXED
#define PETAL_ACQUIRE(edge) __ATOMIC_ACQUIRE
#define PETAL_RELEASE(edge) __ATOMIC_RELEASE
#define PETAL_ACQ_REL(edge) __ATOMIC_ACQ_REL
#define PETAL_SEQ_CST(edge) __ATOMIC_SEQ_CST

#define petal_load(word, order) \
	(mortal_tick(), __atomic_load_n(&(word)->bits, order))
#define petal_store(word, value, order) \
	(mortal_tick(), __atomic_store_n(&(word)->bits, value, order))
#define petal_cas(word, expected, value, order)                                \
	(mortal_tick(),                                                        \
	 __atomic_compare_exchange_n(&(word)->bits, expected, value, 0, order, \
				     __ATOMIC_RELAXED))
#define petal_swap(word, value, order) \
	(mortal_tick(), __atomic_exchange_n(&(word)->bits, value, order))
#define petal_add(word, value, order) \
	(mortal_tick(), __atomic_fetch_add(&(word)->bits, value, order))
#define petal_or(word, value, order) \
	(mortal_tick(), __atomic_fetch_or(&(word)->bits, value, order))
#define petal_and(word, value, order) \
	(mortal_tick(), __atomic_fetch_and(&(word)->bits, value, order))
#define petal_fence(order) __atomic_thread_fence(order)
#define petal_compiler_fence(order) __atomic_signal_fence(order)

#endif
