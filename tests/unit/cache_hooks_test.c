/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers the double of shm/cache.h (tests/cache_double.h), by which the rings
 * of non-coherent memory are tested: what is not written back, fenced and
 * invalidated, in this order, is not seen; and each step that is left out of
 * the exchange drawn in shm/cache.h is noticed.
 */
#define PETAL_CACHE_HOOKS "tests/cache_double.h"

#include "tests/check.h"

#include "shm/cache.h"

#define BYTES 1024u

/* One side stores and loads here, the other there; between them the memory. */
struct fixture {
	struct cache_double link;
	unsigned char *writer;
	unsigned char *reader;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->writer = aligned_alloc(64, BYTES);
	f->reader = aligned_alloc(64, BYTES);
	f->link.memory = aligned_alloc(64, BYTES);
	assert_non_null(f->writer);
	assert_non_null(f->reader);
	assert_non_null(f->link.memory);
	memset(f->writer, 0, BYTES);
	memset(f->reader, 0, BYTES);
	memset(f->link.memory, 0, BYTES);
	f->link.side[0] = f->writer;
	f->link.side[1] = f->reader;
	f->link.bytes = BYTES;
	cache_double = &f->link;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	cache_double = NULL;
	free(f->writer);
	free(f->reader);
	free(f->link.memory);
	free(f);
	return 0;
}

enum {
	PAYLOAD_BACK = 1,
	PAYLOAD_FENCE = 2,
	HEADER_BACK = 4,
	HEADER_FENCE = 8,
	HEADER_GONE = 16,
	PAYLOAD_GONE = 32,
	EVERYTHING = 63,
};

static void publish(struct fixture *f, unsigned steps)
{
	memset(f->writer + 128, 'p', 200);
	if (steps & PAYLOAD_BACK)
		petal_cache_writeback(f->writer + 128, 200);
	if (steps & PAYLOAD_FENCE)
		petal_cache_fence();
	else
		cache_double_drop();
	f->writer[0] = 1;
	if (steps & HEADER_BACK)
		petal_cache_writeback(f->writer, 1);
	if (steps & HEADER_FENCE)
		petal_cache_fence();
}

static bool consume(struct fixture *f, unsigned steps)
{
	if (steps & HEADER_GONE)
		petal_cache_invalidate(f->reader, 1);
	if (f->reader[0] != 1)
		return false;
	if (steps & PAYLOAD_GONE)
		petal_cache_invalidate(f->reader + 128, 200);
	for (unsigned i = 0; i < 200; i++)
		if (f->reader[128 + i] != 'p')
			return false;
	return true;
}

static void exchange__arrives_if_every_step_is_made(void **state)
{
	struct fixture *f = *state;

	publish(f, EVERYTHING);
	assert_true(consume(f, EVERYTHING));
	assert_int_equal(f->link.written_back, 1 + 4);
	assert_int_equal(f->link.invalidated, 1 + 4);
	assert_int_equal(f->link.overflows, 0);
}

static void exchange__fails_if_any_step_is_left_out(void **state)
{
	for (unsigned step = 1; step <= PAYLOAD_GONE; step *= 2) {
		struct fixture *f = *state;

		publish(f, EVERYTHING & ~step);
		assert_false(consume(f, EVERYTHING & ~step));
		teardown(state);
		setup(state);
	}
}

static void flush__of_other_memory_is_nobodys(void **state)
{
	struct fixture *f = *state;
	char elsewhere[64] = "as it was";

	petal_cache_writeback(elsewhere, sizeof(elsewhere));
	petal_cache_invalidate(elsewhere, sizeof(elsewhere));
	assert_string_equal(elsewhere, "as it was");
	assert_int_equal(f->link.written_back, 0);
	assert_ok(petal_cache_check());
	assert_string_equal(petal_cache_name(), "double");
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(exchange__arrives_if_every_step_is_made),
		TEST(exchange__fails_if_any_step_is_left_out),
		TEST(flush__of_other_memory_is_nobodys),
	};

	return cmocka_run_group_tests_name("cache_hooks", tests, NULL, NULL);
}
