/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/crc32c.h: the vectors of RFC 3720, both paths against a third that
 * goes bit by bit, every split of a buffer, every flipped bit, and a first call
 * by several threads at once (worth running under TSan).
 * PETAL_TEST_HARDER=100 tries two million random pieces.
 */
#include "tests/check.h"

#include <pthread.h>

#include "shm/crc32c.h"

#define POOL_BYTES 16384u
#define THREADS 4

static uint8_t pool[POOL_BYTES];

/* The definition, and nothing but. */
static uint32_t crc_by_bits(uint32_t crc, const uint8_t *bytes, size_t length)
{
	crc = ~crc;
	for (size_t i = 0; i < length; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static void assert_crc(const uint8_t *bytes, size_t length, uint32_t expected)
{
	assert_int_equal(petal_crc32c(0, bytes, length), expected);
	assert_int_equal(petal_crc32c_portable(0, bytes, length), expected);
}

/* First in the list, for only the first call of a program chooses a path. */
static void *first_call(void *argument)
{
	uint32_t *ret_crc = argument;

	*ret_crc = petal_crc32c(0, "123456789", 9);
	return NULL;
}

static void first_call__may_be_made_by_many_threads(void **state)
{
	pthread_t threads[THREADS];
	uint32_t crcs[THREADS];

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, first_call,
						&crcs[i]),
				 0);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(crcs[i], 0xe3069283);
	}
}

static void crc32c__gives_the_vectors_of_rfc_3720(void **state)
{
	/* clang-format off */
	static const uint8_t read_pdu[48] = {
		0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
		0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
		0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
		0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18,
		0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
		0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	};
	/* clang-format on */
	uint8_t bytes[32];

	(void)state;
	assert_crc((const uint8_t *)"123456789", 9, 0xe3069283);
	memset(bytes, 0, sizeof(bytes));
	assert_crc(bytes, sizeof(bytes), 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	assert_crc(bytes, sizeof(bytes), 0x62a8ab43);
	for (uint8_t i = 0; i < 32; i++)
		bytes[i] = i;
	assert_crc(bytes, sizeof(bytes), 0x46dd794e);
	for (uint8_t i = 0; i < 32; i++)
		bytes[i] = 31 - i;
	assert_crc(bytes, sizeof(bytes), 0x113fdb5c);
	assert_crc(read_pdu, sizeof(read_pdu), 0xd9963a56);
}

static void crc32c__of_nothing_changes_nothing(void **state)
{
	(void)state;
	assert_int_equal(petal_crc32c(0, NULL, 0), 0);
	assert_int_equal(petal_crc32c(0xe3069283, NULL, 0), 0xe3069283);
	assert_int_equal(petal_crc32c_portable(0xe3069283, "", 0), 0xe3069283);
}

static void crc32c__every_length_agrees_with_the_definition(void **state)
{
	(void)state;
	/* Beyond two rounds of the long streams and one of the short. */
	for (size_t length = 0; length < 7500; length++) {
		uint32_t crc = crc_by_bits(0, pool + 1, length);

		assert_int_equal(petal_crc32c(0, pool + 1, length), crc);
		if (length < 600)
			assert_crc(pool + 1, length, crc);
		else if (length % 64 == 3)
			length += 40;
	}
}

static void crc32c__both_paths_agree_on_any_piece(void **state)
{
	uint64_t seed = 1;

	(void)state;
	print_message("path: %s\n", petal_crc32c_path());
	for (uint64_t i = petal_test_rounds(20000); i > 0; i--) {
		size_t from = petal_test_random(&seed) % POOL_BYTES;
		size_t most = POOL_BYTES - from;
		size_t length = petal_test_random(&seed) % (most + 1);
		uint32_t crc = (uint32_t)petal_test_random(&seed);

		if (i % 2)
			length %= 200;
		assert_int_equal(petal_crc32c(crc, pool + from, length),
				 petal_crc32c_portable(crc, pool + from,
						       length));
	}
}

static void crc32c__chained_over_any_split_is_that_of_the_whole(void **state)
{
	uint32_t whole = petal_crc32c(0, pool, 4099);

	(void)state;
	for (size_t at = 0; at <= 4099; at++) {
		uint32_t crc = petal_crc32c(0, pool, at);

		assert_int_equal(petal_crc32c(crc, pool + at, 4099 - at),
				 whole);
	}
}

static void crc32c__finds_every_flipped_bit(void **state)
{
	uint8_t bytes[1024];
	uint32_t crc;

	(void)state;
	memcpy(bytes, pool, sizeof(bytes));
	crc = petal_crc32c(0, bytes, sizeof(bytes));
	for (size_t bit = 0; bit < 8 * sizeof(bytes); bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_not_equal(petal_crc32c(0, bytes, sizeof(bytes)),
				     crc);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static int fill_pool(void **state)
{
	uint64_t seed = 42;

	(void)state;
	for (size_t i = 0; i < POOL_BYTES; i++)
		pool[i] = (uint8_t)petal_test_random(&seed);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_call__may_be_made_by_many_threads),
		cmocka_unit_test(crc32c__gives_the_vectors_of_rfc_3720),
		cmocka_unit_test(crc32c__of_nothing_changes_nothing),
		cmocka_unit_test(
			crc32c__every_length_agrees_with_the_definition),
		cmocka_unit_test(crc32c__both_paths_agree_on_any_piece),
		cmocka_unit_test(
			crc32c__chained_over_any_split_is_that_of_the_whole),
		cmocka_unit_test(crc32c__finds_every_flipped_bit),
	};

	return cmocka_run_group_tests_name("crc32c", tests, fill_pool, NULL);
}
