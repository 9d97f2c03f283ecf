/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings/record.h promises: extents and commit words, and that a record is
 * accepted only where it belongs and only with every bit in its place.
 *
 * Harder: PETAL_TEST_PAYLOAD=65536 build/tests/record_test flips each bit of a
 * larger payload; the default is quick.
 */
#include "tests/check.h"

#include "rings/record.h"

enum { LOG_BYTES = 1 << 20 };

struct fixture {
	_Alignas(64) uint8_t log[LOG_BYTES];
	struct petal_record_cursor writer;
	struct petal_record_cursor reader;
	uint32_t payload_bytes;
};

static int setup(void **state)
{
	struct fixture *f = aligned_alloc(64, sizeof(*f));
	const char *harder = getenv("PETAL_TEST_PAYLOAD");

	if (!f)
		return -1;
	memset(f, 0, sizeof(*f));
	f->writer = (struct petal_record_cursor){ .epoch = 7 };
	f->reader = f->writer;
	f->payload_bytes = harder ? (uint32_t)strtoul(harder, NULL, 10) : 333;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static struct petal_record_durable *at(struct fixture *f, uint64_t pos)
{
	return (void *)(f->log + pos % LOG_BYTES);
}

/* What a producer writes, up to its publish. */
static struct petal_record_durable *fill(struct fixture *f, uint64_t pos,
					 uint32_t payload_bytes, uint8_t seed)
{
	struct petal_record_durable *record = at(f, pos);
	uint32_t length = payload_bytes + PETAL_RECORD_ENVELOPE_BYTES;
	uint8_t *payload = (uint8_t *)(record + 1);

	for (uint32_t i = 0; i < payload_bytes; i++)
		payload[i] = (uint8_t)(seed + i * 7);
	record->record.length = length;
	record->record.type = 42;
	record->queue = 3;
	record->session = 99;
	record->sequence = seed;
	record->flags = 0;
	record->payload_crc = petal_record_payload_crc(record, length);
	petal_store(&record->record.commit,
		    petal_record_commit(PETAL_RECORD_PUBLISHED, 5,
					pos / LOG_BYTES),
		    PETAL_RELAXED);
	return record;
}

static struct petal_record_durable *append(struct fixture *f,
					   uint32_t payload_bytes, uint8_t seed)
{
	struct petal_record_durable *record =
		fill(f, f->writer.pos, payload_bytes, seed);

	petal_record_stamp(record, &f->writer);
	return record;
}

static int check_next(struct fixture *f)
{
	uint64_t offset = f->reader.pos % LOG_BYTES;

	return petal_record_check(f->log + offset, LOG_BYTES - offset,
				  &f->reader);
}

static void assert_refused(struct fixture *f)
{
	struct petal_record_cursor before = f->reader;

	assert_true(check_next(f) != 0);
	assert_memory_equal(&before, &f->reader, sizeof(before));
}

static void extent__is_header_and_length_in_whole_lines(void **state)
{
	(void)state;
	assert_int_equal(petal_record_extent(0), 64);
	assert_int_equal(petal_record_extent(48), 64);
	assert_int_equal(petal_record_extent(49), 128);
	assert_int_equal(petal_record_extent(UINT32_MAX),
			 UINT64_C(0x100000040));
}

static void commit__gives_back_state_owner_and_48_bits_of_lap(void **state)
{
	uint64_t lap = UINT64_C(0xfedcba9876543210);
	uint64_t commit = petal_record_commit(PETAL_RECORD_CLAIMED, 4095, lap);

	(void)state;
	assert_int_equal(petal_record_state(commit), PETAL_RECORD_CLAIMED);
	assert_int_equal(petal_record_owner(commit), 4095);
	assert_true(commit >> 16 == (lap & UINT64_C(0xffffffffffff)));
	assert_true(petal_record_commit(PETAL_RECORD_FREE, 0, 0) == 0);
	assert_true(petal_record_commit(PETAL_RECORD_CLAIMED, 0, 0) != 0);
}

static void check__follows_what_stamp_wrote(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 500; i++)
		append(f, i * 3, (uint8_t)i);
	for (unsigned i = 0; i < 500; i++) {
		assert_ok(check_next(f));
		assert_int_equal(f->reader.lsn, i + 1);
	}
	assert_memory_equal(&f->reader, &f->writer, sizeof(f->reader));
	assert_outcome(check_next(f), 1);
}

static void check__refuses_each_flipped_bit_of_the_header(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = (uint8_t *)append(f, f->payload_bytes, 1);

	for (unsigned bit = 64; bit < 64 * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_refused(f);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_ok(check_next(f));
}

static void check__refuses_each_flipped_bit_of_the_payload(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = (uint8_t *)append(f, f->payload_bytes, 1);

	for (unsigned bit = 0; bit < f->payload_bytes * 8; bit++) {
		bytes[64 + bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_refused(f);
		bytes[64 + bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_ok(check_next(f));
}

static void check__does_not_look_at_the_commit_word(void **state)
{
	struct fixture *f = *state;
	struct petal_record_durable *record = append(f, 100, 1);

	petal_store(&record->record.commit, UINT64_C(0x123456789abcdef0),
		    PETAL_RELAXED);
	assert_ok(check_next(f));
}

static void check__refuses_a_valid_record_of_an_older_lap(void **state)
{
	struct fixture *f = *state;
	struct petal_record_cursor start = f->reader;
	uint64_t laps = 3;

	/* Records of 8 KiB fill the log exactly, so laps lie on each other. */
	while (f->writer.pos < laps * LOG_BYTES)
		append(f, 8192 - 64, (uint8_t)f->writer.lsn);
	f->reader = f->writer;
	assert_outcome(check_next(f), 1);

	/* And one that stands at the old place does not take the new bytes. */
	f->reader = start;
	assert_outcome(check_next(f), 1);
}

static void check__refuses_another_epoch(void **state)
{
	struct fixture *f = *state;

	append(f, 100, 1);
	f->reader.epoch++;
	assert_refused(f);
	f->reader.epoch -= 2;
	assert_refused(f);
	f->reader.epoch++;
	assert_ok(check_next(f));
}

static void check__does_not_jump_a_hole(void **state)
{
	struct fixture *f = *state;
	struct petal_record_cursor second;

	append(f, 100, 1);
	second = f->writer;
	append(f, 100, 2);

	/* The second is whole, but the reader has not seen the first. */
	f->reader.pos = second.pos;
	assert_refused(f);
	/* Not even when the reader thinks that it is at the right lsn. */
	f->reader.lsn = second.lsn;
	assert_refused(f);
	f->reader.crc = second.crc;
	assert_ok(check_next(f));
}

static void check__waits_for_a_payload_that_has_not_landed(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = (uint8_t *)append(f, 512, 1);
	uint8_t late[64];

	memcpy(late, bytes + 256, sizeof(late));
	memset(bytes + 256, 0, sizeof(late));
	assert_outcome(check_next(f), 1);
	memcpy(bytes + 256, late, sizeof(late));
	assert_ok(check_next(f));
}

static void check__names_a_length_that_leaves_the_ring(void **state)
{
	struct fixture *f = *state;
	struct petal_record_durable *record = append(f, 512, 1);
	struct petal_record_cursor before = f->reader;

	assert_outcome(petal_record_check(record, 512, &f->reader),
		       -PETAL_ECORRUPT);
	assert_outcome(petal_record_check(record, 63, &f->reader), 1);
	assert_outcome(petal_record_check(record, 0, &f->reader), 1);
	assert_memory_equal(&before, &f->reader, sizeof(before));
	assert_outcome(petal_record_check(record, 576, &f->reader), 0);
}

static void
check__refuses_a_stamped_record_shorter_than_its_envelope(void **state)
{
	struct fixture *f = *state;
	struct petal_record_durable *record = fill(f, 0, 0, 1);

	record->record.length = PETAL_RECORD_ENVELOPE_BYTES - 1;
	petal_record_stamp(record, &f->writer);
	assert_outcome(check_next(f), -PETAL_ECORRUPT);
}

static void stamp__makes_padding_of_an_abandoned_record(void **state)
{
	struct fixture *f = *state;
	struct petal_record_durable *record = fill(f, 0, 1000, 1);

	petal_store(&record->record.commit,
		    petal_record_commit(PETAL_RECORD_ABANDONED, 5, 0),
		    PETAL_RELAXED);
	petal_record_stamp(record, &f->writer);
	assert_int_equal(record->record.type, PETAL_RECORD_TYPE_PADDING);
	assert_int_equal(record->session, 0);
	assert_int_equal(record->sequence, 0);

	/* Nobody wrote its payload to the end, and nobody reads it. */
	memset(record + 1, 0xee, 1000);
	assert_ok(check_next(f));
	assert_int_equal(f->reader.pos, petal_record_extent(1048));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(extent__is_header_and_length_in_whole_lines),
		TEST(commit__gives_back_state_owner_and_48_bits_of_lap),
		TEST(check__follows_what_stamp_wrote),
		TEST(check__refuses_each_flipped_bit_of_the_header),
		TEST(check__refuses_each_flipped_bit_of_the_payload),
		TEST(check__does_not_look_at_the_commit_word),
		TEST(check__refuses_a_valid_record_of_an_older_lap),
		TEST(check__refuses_another_epoch),
		TEST(check__does_not_jump_a_hole),
		TEST(check__waits_for_a_payload_that_has_not_landed),
		TEST(check__names_a_length_that_leaves_the_ring),
		TEST(check__refuses_a_stamped_record_shorter_than_its_envelope),
		TEST(stamp__makes_padding_of_an_abandoned_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
