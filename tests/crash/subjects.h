/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_CRASH_SUBJECTS_H
#define PETAL_TESTS_CRASH_SUBJECTS_H

#include "tests/crash/subject.h"

/* Each kind has a file subject_NAME.c that defines subject_NAME. */
#define SUBJECTS        \
	SUBJECT(spsc)   \
	SUBJECT(mpsc)   \
	SUBJECT(mpmc)   \
	SUBJECT(bcast)  \
	SUBJECT(pipe)   \
	SUBJECT(ledger) \
	SUBJECT(extent)

#define SUBJECT(name) extern const struct subject subject_##name;
SUBJECTS
#undef SUBJECT

#endif
