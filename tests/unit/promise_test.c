/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fabric/promise.h promises: an epoch that was flushed is there after
 * whatever happens to the file's last write, and none is ever lower than
 * before. Every byte of the newest block is damaged once.
 */
#include "tests/check.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "fabric/promise.h"
#include "shm/error.h"

#define BLOCK 4096u

struct fixture {
	char dir[64];
	char path[PATH_MAX];
	struct petal_promise p;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/petal-promise-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/%s", f->dir, PETAL_PROMISE_FILE);
	assert_ok(petal_promise_open(f->dir, &f->p));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	petal_promise_close(&f->p);
	unlink(f->path);
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static void promise(struct fixture *f, uint64_t ring, uint32_t epoch)
{
	assert_ok(petal_promise_raise(&f->p, ring, epoch));
	assert_ok(petal_promise_flush(&f->p));
}

static void reopen(struct fixture *f)
{
	petal_promise_close(&f->p);
	assert_ok(petal_promise_open(f->dir, &f->p));
}

static void flip(struct fixture *f, uint64_t at)
{
	int fd = open(f->path, O_RDWR);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

static void open__nothing_is_promised_at_first(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(petal_promise_epoch(&f->p, 7), 0);
	reopen(f);
	assert_int_equal(petal_promise_epoch(&f->p, 7), 0);
}

static void flush__is_there_after_a_restart(void **state)
{
	struct fixture *f = *state;

	for (uint32_t epoch = 1; epoch < 20; epoch++) {
		promise(f, 7, epoch);
		promise(f, 8, 2 * epoch);
		reopen(f);
		assert_int_equal(petal_promise_epoch(&f->p, 7), epoch);
		assert_int_equal(petal_promise_epoch(&f->p, 8), 2 * epoch);
	}
}

static void raise__never_goes_back(void **state)
{
	struct fixture *f = *state;

	promise(f, 7, 5);
	assert_int_equal(petal_promise_raise(&f->p, 7, 4), -ESTALE);
	assert_int_equal(petal_promise_epoch(&f->p, 7), 5);
	assert_ok(petal_promise_raise(&f->p, 7, 5));
	assert_false(f->p.dirty);
}

static void raise__table_is_bounded(void **state)
{
	struct fixture *f = *state;

	for (uint64_t ring = 1; ring <= PETAL_PROMISE_RINGS_MAX; ring++)
		assert_ok(petal_promise_raise(&f->p, ring, 1));
	assert_int_equal(petal_promise_raise(&f->p, 1000, 1), -ENOSPC);
	petal_promise_forget(&f->p, 3);
	promise(f, 1000, 9);
	reopen(f);
	assert_int_equal(petal_promise_epoch(&f->p, 3), 0);
	assert_int_equal(petal_promise_epoch(&f->p, 1000), 9);
	assert_int_equal(petal_promise_epoch(&f->p, PETAL_PROMISE_RINGS_MAX),
			 1);
}

/* A torn write is the newest block, and the one before still counts. */
static void torn__the_block_before_counts(void **state)
{
	struct fixture *f = *state;
	uint64_t newest;

	promise(f, 7, 3);
	promise(f, 7, 4);
	newest = f->p.sequence % 2 * BLOCK;
	for (uint64_t at = 0; at < BLOCK; at += at < 96 ? 1 : 61) {
		flip(f, newest + at);
		reopen(f);
		assert_int_equal(petal_promise_epoch(&f->p, 7), 3);
		flip(f, newest + at);
		reopen(f);
		assert_int_equal(petal_promise_epoch(&f->p, 7), 4);
	}
}

static void corrupt__both_blocks_are_refused(void **state)
{
	struct fixture *f = *state;

	promise(f, 7, 3);
	petal_promise_close(&f->p);
	flip(f, 100);
	flip(f, BLOCK + 100);
	assert_int_equal(petal_promise_open(f->dir, &f->p), -PETAL_ECORRUPT);
	flip(f, 100);
	assert_ok(petal_promise_open(f->dir, &f->p));
}

/* After a failed write nobody is answered, whatever later writes say. */
static void failure__is_for_good(void **state)
{
	struct fixture *f = *state;
	int fd = f->p.fd;

	assert_ok(petal_promise_raise(&f->p, 7, 3));
	f->p.fd = open(f->path, O_RDONLY);
	assert_int_equal(petal_promise_flush(&f->p), -PETAL_EDISK);
	close(f->p.fd);
	f->p.fd = fd;
	assert_int_equal(petal_promise_flush(&f->p), -PETAL_EDISK);
	reopen(f);
	assert_int_equal(petal_promise_epoch(&f->p, 7), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			open__nothing_is_promised_at_first, setup, teardown),
		cmocka_unit_test_setup_teardown(flush__is_there_after_a_restart,
						setup, teardown),
		cmocka_unit_test_setup_teardown(raise__never_goes_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(raise__table_is_bounded, setup,
						teardown),
		cmocka_unit_test_setup_teardown(torn__the_block_before_counts,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			corrupt__both_blocks_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(failure__is_for_good, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
