/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/cache.h with the real instructions on ordinary memory, which is
 * coherent, so that all they can do wrong is to crash, to change a byte, or to
 * leave lines out; the last is shown by the time that the next load takes.
 * Which lines are flushed, a double sees: tests/unit/cache_hooks_test.c.
 */
#include "tests/check.h"

#include <inttypes.h>
#include <sys/mman.h>

#include "shm/cache.h"
#include "shm/clock.h"

#define BYTES (1u << 20)
#define LINE PETAL_CACHE_LINE_BYTES

static int setup(void **state)
{
	unsigned char *memory;

	if (petal_cache_check())
		petal_test_skip("no instructions to flush a line");
	memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	*state = memory;
	return 0;
}

static int teardown(void **state)
{
	munmap(*state, BYTES);
	return 0;
}

static void flush__changes_no_byte_wherever_it_begins(void **state)
{
	unsigned char *memory = *state;

	for (unsigned i = 0; i < 4096; i++)
		memory[i] = (unsigned char)(i * 7);
	for (unsigned begin = 0; begin < 2 * LINE; begin++)
		for (unsigned bytes = 0; bytes < 3 * LINE; bytes += 5) {
			petal_cache_writeback(memory + begin, bytes);
			petal_cache_fence();
			petal_cache_invalidate(memory + begin, bytes);
		}
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(memory[i], (unsigned char)(i * 7));
}

static void flush__of_nothing_touches_nothing(void **state)
{
	(void)state;
	petal_cache_writeback(NULL, 0);
	petal_cache_invalidate(NULL, 0);
	petal_cache_fence();
}

static void flush__stays_within_its_lines(void **state)
{
	unsigned char *memory = *state;

	/* A flush of an unmapped line would be a fault. */
	assert_int_equal(munmap(memory + BYTES / 2, BYTES / 2), 0);
	petal_cache_writeback(memory, BYTES / 2);
	petal_cache_invalidate(memory, BYTES / 2);
	petal_cache_writeback(memory + BYTES / 2 - 1, 1);
	petal_cache_invalidate(memory + BYTES / 2 - LINE, LINE);
	assert_int_equal(memory[BYTES / 2 - 1], 0);
}

static void invalidate__of_read_only_memory_is_allowed(void **state)
{
	unsigned char *memory = *state;

	memory[100] = 7;
	assert_int_equal(mprotect(memory, BYTES, PROT_READ), 0);
	petal_cache_invalidate(memory, BYTES);
	assert_int_equal(memory[100], 7);
}

static uint64_t walk_ns(const unsigned char *memory)
{
	const volatile unsigned char *byte = memory;
	uint64_t begin_ns = petal_clock_now_ns();

	for (unsigned at = 0; at < BYTES; at += LINE)
		(void)byte[at];
	return petal_clock_now_ns() - begin_ns;
}

/* For a person to read; a machine under a hypervisor may do as it likes. */
static void invalidate__is_what_the_next_walk_pays_for(void **state)
{
	unsigned char *memory = *state;
	uint64_t warm_ns = UINT64_MAX, cold_ns = UINT64_MAX;
	uint64_t flush_ns = UINT64_MAX;

	memset(memory, 1, BYTES);
	for (int i = 0; i < 20; i++) {
		uint64_t begin_ns, ns;

		walk_ns(memory);
		ns = walk_ns(memory);
		warm_ns = ns < warm_ns ? ns : warm_ns;
		begin_ns = petal_clock_now_ns();
		petal_cache_invalidate(memory, BYTES);
		ns = petal_clock_now_ns() - begin_ns;
		flush_ns = ns < flush_ns ? ns : flush_ns;
		ns = walk_ns(memory);
		cold_ns = ns < cold_ns ? ns : cold_ns;
	}
	print_message("%s; per line, ps: warm %" PRIu64 ", flush %" PRIu64
		      ", cold %" PRIu64 "\n",
		      petal_cache_name(), warm_ns * 1000 / (BYTES / LINE),
		      flush_ns * 1000 / (BYTES / LINE),
		      cold_ns * 1000 / (BYTES / LINE));
}

static void name__says_what_the_cpu_has(void **state)
{
	(void)state;
	assert_string_not_equal(petal_cache_name(), "none");
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(flush__changes_no_byte_wherever_it_begins),
		TEST(flush__of_nothing_touches_nothing),
		TEST(flush__stays_within_its_lines),
		TEST(invalidate__of_read_only_memory_is_allowed),
		TEST(invalidate__is_what_the_next_walk_pays_for),
		TEST(name__says_what_the_cpu_has),
	};

	return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
