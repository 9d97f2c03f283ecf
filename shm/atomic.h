/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_ATOMIC_H
#define PETAL_SHM_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

/**
 * DOC: atomic - the one way to words that other processes read or write
 *
 * A shared word is a struct petal_u64 or petal_u32, so that neither C nor C++
 * can touch it by accident. What it holds is loaded once, into a local; the
 * local is checked; the local is used.
 *
 *    uint64_t head = petal_load(&shared->head, PETAL_ACQUIRE(DRAIN));
 *
 * An order stronger than relaxed is spelled with the name of its edge, the one
 * that the header of the ring lists, at both of its ends. A test holds the
 * sources to it: no other file says memory_order or __atomic.
 *
 * A program that wants to see every access compiles the sources with
 * PETAL_ATOMIC_HOOKS set to a header of its own, which then defines all that
 * this one would: the explorer of weak memory does, and weakens one edge after
 * the other; the fuzzer does, and changes the words between two loads.
 *
 * Nothing here waits. All operations are lock-free on every platform that
 * builds, for a check below holds it to that.
 */

struct petal_u64 {
	uint64_t bits;
};

struct petal_u32 {
	uint32_t bits;
};

#if defined(PETAL_ATOMIC_HOOKS)
#include PETAL_ATOMIC_HOOKS
#else

#define PETAL_RELAXED __ATOMIC_RELAXED
#define PETAL_ACQUIRE(edge) __ATOMIC_ACQUIRE
#define PETAL_RELEASE(edge) __ATOMIC_RELEASE
#define PETAL_ACQ_REL(edge) __ATOMIC_ACQ_REL
#define PETAL_SEQ_CST(edge) __ATOMIC_SEQ_CST

/** petal_load() - the word's value */
#define petal_load(word, order) __atomic_load_n(&(word)->bits, order)

/** petal_store() - give the word a value */
#define petal_store(word, value, order) \
	__atomic_store_n(&(word)->bits, value, order)

/**
 * petal_cas() - give the word a value if it still has the expected one
 * @expected: pointer to a local, which gets what was there on failure
 * @order: of success; failure is relaxed
 *
 * Return: whether it had.
 */
#define petal_cas(word, expected, value, order)                               \
	__atomic_compare_exchange_n(&(word)->bits, expected, value, 0, order, \
				    __ATOMIC_RELAXED)

/** petal_swap() - give the word a value. Return: what was there. */
#define petal_swap(word, value, order) \
	__atomic_exchange_n(&(word)->bits, value, order)

/** petal_add() - add to the word. Return: what was there. */
#define petal_add(word, value, order) \
	__atomic_fetch_add(&(word)->bits, value, order)

/** petal_or() - set bits of the word. Return: what was there. */
#define petal_or(word, value, order) \
	__atomic_fetch_or(&(word)->bits, value, order)

/** petal_and() - keep bits of the word. Return: what was there. */
#define petal_and(word, value, order) \
	__atomic_fetch_and(&(word)->bits, value, order)

/**
 * petal_fence() - order what is before it and what comes after
 *
 * ThreadSanitizer does not model fences, and GCC says so; a fence must
 * therefore never be what makes data readable.
 */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define petal_fence(order)                                           \
	do {                                                         \
		_Pragma("GCC diagnostic push")                       \
			_Pragma("GCC diagnostic ignored \"-Wtsan\"") \
				__atomic_thread_fence(order);        \
		_Pragma("GCC diagnostic pop")                        \
	} while (0)
#else
#define petal_fence(order) __atomic_thread_fence(order)
#endif

/**
 * petal_compiler_fence() - keep the compiler from moving accesses across
 *
 * The cheap half of a pair whose other half is membarrier(2).
 */
#define petal_compiler_fence(order) __atomic_signal_fence(order)

#endif /* PETAL_ATOMIC_HOOKS */

#if __GCC_ATOMIC_INT_LOCK_FREE != 2 || __GCC_ATOMIC_LLONG_LOCK_FREE != 2
#error "words of 4 and 8 bytes must be lock-free to be shared"
#endif

#if defined(__cplusplus)
static_assert(sizeof(struct petal_u64) == 8, "layout");
static_assert(sizeof(struct petal_u32) == 4, "layout");
#else
_Static_assert(sizeof(struct petal_u64) == 8, "layout");
_Static_assert(sizeof(struct petal_u32) == 4, "layout");
#endif

#endif
