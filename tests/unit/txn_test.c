/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fabric/txn.h promises: what was written comes back, and no bytes make
 * check read outside of them. Each buffer is as long as it says and not a byte
 * longer, so that AddressSanitizer sees the first step too far.
 *
 * Harder: PETAL_TEST_HARDER=100 tries as many times more mutations.
 */
#include "tests/check.h"

#include "fabric/txn.h"

#define QUEUES 4u

struct fixture {
	struct petal_message inputs[PETAL_TXN_ACKS_MAX];
	struct petal_output outputs[PETAL_TXN_PUTS_MAX];
	unsigned input_count;
	unsigned output_count;
	uint8_t *bytes;
	uint32_t length;
};

static const uint8_t text[256] = "as long as it says and not a byte longer";

static void fixture_make(struct fixture *f, unsigned input_count,
			 unsigned output_count, uint64_t *random)
{
	memset(f, 0, sizeof(*f));
	f->input_count = input_count;
	f->output_count = output_count;
	for (unsigned i = 0; i < input_count; i++)
		f->inputs[i] = (struct petal_message){
			.queue = 1 + i % QUEUES,
			.index = i,
			.lsn = petal_test_random(random),
			.ordinal = petal_test_random(random),
			.lease = petal_test_random(random),
		};
	for (unsigned i = 0; i < output_count; i++)
		f->outputs[i] = (struct petal_output){
			.queue = 1 + i % QUEUES,
			.length = (uint32_t)(petal_test_random(random) %
					     sizeof(text)),
			.bytes = text,
		};
	assert_ok(petal_txn_bytes(input_count, f->outputs, output_count,
				  &f->length));
	f->bytes = malloc(f->length);
	petal_txn_write(f->bytes, f->inputs, input_count, f->outputs,
			output_count);
}

static void assert_same(const struct fixture *f, const struct petal_txn *txn)
{
	assert_int_equal(txn->ack_count, f->input_count);
	assert_int_equal(txn->put_count, f->output_count);
	for (unsigned i = 0; i < f->input_count; i++) {
		assert_int_equal(txn->acks[i].queue, f->inputs[i].queue);
		assert_int_equal(txn->acks[i].index, f->inputs[i].index);
		assert_true(txn->acks[i].lsn == f->inputs[i].lsn);
		assert_true(txn->acks[i].ordinal == f->inputs[i].ordinal);
		assert_true(txn->acks[i].lease == f->inputs[i].lease);
	}
	for (unsigned i = 0; i < f->output_count; i++) {
		assert_int_equal(txn->puts[i].queue, f->outputs[i].queue);
		assert_int_equal(txn->puts[i].length, f->outputs[i].length);
		assert_memory_equal(f->bytes + txn->puts[i].offset, text,
				    f->outputs[i].length);
	}
}

static void write__comes_back_from_check_at_every_size(void **state)
{
	struct petal_txn txn;
	struct fixture f;
	uint64_t random = 1;

	(void)state;
	for (unsigned acks = 0; acks <= PETAL_TXN_ACKS_MAX; acks += 7) {
		for (unsigned puts = 0; puts <= PETAL_TXN_PUTS_MAX; puts += 8) {
			fixture_make(&f, acks, puts, &random);
			assert_ok(petal_txn_check(f.bytes, f.length, QUEUES,
						  &txn));
			assert_same(&f, &txn);
			free(f.bytes);
		}
	}
}

static void bytes__too_many_parts_or_bytes_are_refused(void **state)
{
	struct petal_output huge[3];
	uint32_t bytes = 7;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		huge[i] = (struct petal_output){ .queue = 1,
						 .length = UINT32_MAX };
	assert_outcome(petal_txn_bytes(PETAL_TXN_ACKS_MAX + 1, NULL, 0, &bytes),
		       -EMSGSIZE);
	assert_outcome(petal_txn_bytes(0, huge, PETAL_TXN_PUTS_MAX + 1, &bytes),
		       -EMSGSIZE);
	assert_outcome(petal_txn_bytes(0, huge, 1, &bytes), -EMSGSIZE);
	assert_outcome(petal_txn_bytes(0, huge, 3, &bytes), -EMSGSIZE);
	assert_int_equal(bytes, 7);
}

static void check__every_truncation_is_corrupt(void **state)
{
	struct petal_txn txn;
	struct fixture f;
	uint64_t random = 2;
	uint8_t *cut;

	(void)state;
	fixture_make(&f, 3, 5, &random);
	for (uint32_t length = 0; length < f.length; length++) {
		cut = malloc(length + !length);
		memcpy(cut, f.bytes, length);
		assert_outcome(petal_txn_check(cut, length, QUEUES, &txn),
			       -PETAL_ECORRUPT);
		free(cut);
	}
	free(f.bytes);
}

static void check__each_field_out_of_range_is_corrupt(void **state)
{
	static const struct {
		uint32_t offset;
		uint32_t value;
	} lies[] = {
		{ 0, PETAL_TXN_ACKS_MAX + 1 },
		{ 0, UINT32_MAX },
		{ 4, PETAL_TXN_PUTS_MAX + 1 },
		{ 4, UINT32_MAX },
		{ 4, 3 },
		{ 8, 0 },
		{ 8, QUEUES + 1 },
		{ 8, UINT32_MAX },
		{ 40, 0 },
		{ 40, QUEUES + 1 },
		{ 44, UINT32_MAX },
		{ 44, UINT32_MAX - 7 },
	};
	struct petal_txn txn;
	struct fixture f;
	uint64_t random = 3;

	(void)state;
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		fixture_make(&f, 1, 2, &random);
		memcpy(f.bytes + lies[i].offset, &lies[i].value, 4);
		assert_outcome(petal_txn_check(f.bytes, f.length, QUEUES, &txn),
			       -PETAL_ECORRUPT);
		free(f.bytes);
	}
}

static void check__queues_of_another_ring_are_corrupt(void **state)
{
	struct petal_txn txn;
	struct fixture f;
	uint64_t random = 4;

	(void)state;
	fixture_make(&f, QUEUES, QUEUES, &random);
	for (uint32_t queues = 0; queues < QUEUES; queues++)
		assert_outcome(petal_txn_check(f.bytes, f.length, queues, &txn),
			       -PETAL_ECORRUPT);
	assert_ok(petal_txn_check(f.bytes, f.length, QUEUES, &txn));
	free(f.bytes);
}

static void assert_bounded(const struct petal_txn *txn, uint32_t length)
{
	assert_in_range(txn->ack_count, 0, PETAL_TXN_ACKS_MAX);
	assert_in_range(txn->put_count, 0, PETAL_TXN_PUTS_MAX);
	for (unsigned i = 0; i < txn->ack_count; i++)
		assert_in_range(txn->acks[i].queue, 1, QUEUES);
	for (unsigned i = 0; i < txn->put_count; i++) {
		assert_in_range(txn->puts[i].queue, 1, QUEUES);
		assert_true((uint64_t)txn->puts[i].offset +
				    txn->puts[i].length <=
			    length);
	}
}

static void check__mutations_never_lead_outside(void **state)
{
	struct petal_txn txn;
	struct fixture f;
	uint64_t random = 5, whole = 0;

	(void)state;
	for (uint64_t n = petal_test_rounds(20000); n > 0; n--) {
		uint64_t dice = petal_test_random(&random);
		int err;

		fixture_make(&f, dice % 5, dice / 5 % 6, &random);
		for (uint64_t bits = dice >> 60; bits > 0; bits--) {
			dice = petal_test_random(&random);
			f.bytes[dice % (f.length < 64 ? f.length : 64)] ^=
				(uint8_t)(1u << (dice >> 61));
		}
		err = petal_txn_check(f.bytes, f.length, QUEUES, &txn);
		if (err == 0) {
			whole++;
			assert_bounded(&txn, f.length);
		} else {
			assert_outcome(err, -PETAL_ECORRUPT);
		}
		free(f.bytes);
	}
	assert_true(whole > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(write__comes_back_from_check_at_every_size),
		cmocka_unit_test(bytes__too_many_parts_or_bytes_are_refused),
		cmocka_unit_test(check__every_truncation_is_corrupt),
		cmocka_unit_test(check__each_field_out_of_range_is_corrupt),
		cmocka_unit_test(check__queues_of_another_ring_are_corrupt),
		cmocka_unit_test(check__mutations_never_lead_outside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
