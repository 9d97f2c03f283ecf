/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_CRASH_VERDICT_H
#define PETAL_TESTS_CRASH_VERDICT_H

#include "tests/crash/subject.h"

/**
 * DOC: verdict - is what the dead left behind still good?
 *
 * In memory that nobody else uses: repair, drain, compare all histories, look
 * over the memory, fill it wholly and empty it, twice.
 */

#define VERDICT_WHY_BYTES 256u
#define VERDICT_HISTORIES_MAX 64u

/* Numbers that the verdict needs for parties of its own. */
#define VERDICT_NUMBER 3000u

/**
 * struct verdict - what is judged
 * @memory: changed by the judging
 * @dead: whose places must be repaired
 * @bereft: a consumer has died, now or before
 * @histories: of all who were there; those of consumers in the order in which
 *	they began
 */
struct verdict {
	const struct subject *subject;
	const struct shape *shape;
	void *memory;
	struct casualties dead;
	bool bereft;
	struct history *histories[VERDICT_HISTORIES_MAX];
	unsigned history_count;
	char why[VERDICT_WHY_BYTES];
};

/** verdict_reach() - judge. Return: 0, or 1 with @verdict->why. */
int verdict_reach(struct verdict *verdict);

#endif
