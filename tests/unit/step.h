/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_UNIT_STEP_H
#define PETAL_UNIT_STEP_H

#include <stdbool.h>
#include <stdint.h>

/**
 * DOC: step - what shm/atomic.h becomes when a test wants to be in between
 *
 *    #define PETAL_ATOMIC_HOOKS "tests/unit/step.h"
 *    #include "rings/mpmc.c"
 *
 * One thread plays all owners. Before each access of a shared word it calls
 * step_before, if that is set: there, another owner may do what would happen
 * between two instructions of the first. What it does takes no steps itself.
 */

struct step {
	const void *word;
	bool is_swap;
};

/* Set by the test, and by it only. */
static void (*step_before)(struct step step);

static inline void step_take(const void *word, bool is_swap)
{
	void (*before)(struct step) = step_before;

	if (!before)
		return;
	step_before = NULL;
	before((struct step){ word, is_swap });
	if (!step_before)
		step_before = before;
}

static inline bool step_swap_if(uint64_t *word, uint64_t *expected,
				uint64_t value)
{
	bool is_same;

	step_take(word, true);
	is_same = *word == *expected;
	*expected = *word;
	if (is_same)
		*word = value;
	return is_same;
}

static inline uint64_t step_swap(uint64_t *word, uint64_t value)
{
	uint64_t old;

	step_take(word, true);
	old = *word;
	*word = value;
	return old;
}

static inline uint64_t step_add(uint64_t *word, uint64_t value)
{
	step_take(word, true);
	*word += value;
	return *word - value;
}

#define petal_load(word, order) (step_take(word, false), (word)->bits)
#define petal_store(word, value, order) \
	(step_take(word, false), (void)((word)->bits = (value)))
#define petal_cas(word, expected, value, order) \
	step_swap_if(&(word)->bits, expected, value)
#define petal_swap(word, value, order) step_swap(&(word)->bits, value)
#define petal_add(word, value, order) step_add(&(word)->bits, value)

#endif
