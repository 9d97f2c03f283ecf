/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_CHECK_H
#define PETAL_TESTS_CHECK_H

/**
 * DOC: check - what every test includes, and includes first
 *
 * cmocka with the headers that it wants before it, and the few calls that all
 * tests need: outcomes compared by name, a skip that meson understands, and a
 * directory that goes away again. It is a header only, so that one test is one
 * file.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/error.h"

/** The exit status by which meson and ninja know a test that did not run. */
#define PETAL_TEST_SKIPPED 77

static inline void petal_test_outcome(const char *what, int outcome,
				      int expected, const char *file, int line)
{
	if (outcome == expected)
		return;
	print_error("%s: is %d (%s), expected %d (%s)\n", what, outcome,
		    petal_error_name(outcome), expected,
		    petal_error_name(expected));
	_fail(file, line);
}

/** assert_ok() - the call must return exactly 0 */
#define assert_ok(expr) petal_test_outcome(#expr, (expr), 0, __FILE__, __LINE__)

/** assert_outcome() - the call must return exactly this; named if it differs */
#define assert_outcome(expr, expected) \
	petal_test_outcome(#expr, (expr), (expected), __FILE__, __LINE__)

/**
 * petal_test_skip() - end the whole program as skipped, with one line of why
 *
 * Only for what this machine lacks and cannot be given; what can be created,
 * the test creates.
 */
__attribute__((format(printf, 1, 2), noreturn)) static inline void
petal_test_skip(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	printf("skipped: ");
	vprintf(format, arguments);
	printf("\n");
	va_end(arguments);
	exit(PETAL_TEST_SKIPPED);
}

/**
 * petal_test_rounds() - how often to repeat what is worth repeating
 * @rounds: how often in a run that should end soon
 *
 * PETAL_TEST_HARDER=100 in the environment makes it a hundred times that.
 */
static inline uint64_t petal_test_rounds(uint64_t rounds)
{
	const char *harder = getenv("PETAL_TEST_HARDER");
	uint64_t times = harder ? strtoull(harder, NULL, 10) : 1;

	return times ? rounds * times : rounds;
}

/**
 * petal_test_random() - a number that is the same in each run (splitmix64)
 * @state: where it is in the sequence; start with any number, the seed
 */
static inline uint64_t petal_test_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/**
 * petal_test_tmpdir() - make an empty directory under $TMPDIR or /tmp
 *
 * Return: its path, to be given to petal_test_tmpdir_remove().
 */
static inline char *petal_test_tmpdir(void)
{
	const char *parent = getenv("TMPDIR");
	char *path = NULL;

	if (!parent || !*parent)
		parent = "/tmp";
	assert_true(asprintf(&path, "%s/petal-test-XXXXXX", parent) > 0);
	if (!mkdtemp(path))
		fail_msg("cannot create %s: %s", path, petal_strerror(errno));
	return path;
}

/** petal_test_tmpdir_remove() - remove the directory with all that is in it */
static inline void petal_test_tmpdir_remove(char *path)
{
	char *roots[] = { path, NULL };
	FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	FTSENT *entry;

	assert_non_null(tree);
	while ((entry = fts_read(tree))) {
		if (entry->fts_info == FTS_DP)
			rmdir(entry->fts_accpath);
		else if (entry->fts_info != FTS_D)
			unlink(entry->fts_accpath);
	}
	fts_close(tree);
	assert_int_equal(access(path, F_OK), -1);
	free(path);
}

#endif
