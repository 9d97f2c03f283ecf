/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What actors/outputs.h promises: what is added is in the list, limits hold to
 * the byte, and cutting back leaves no trace.
 */
#include "tests/check.h"

#include "actors/outputs.h"

enum { MEMORY = 64 };

struct fixture {
	uint64_t memory[MEMORY / 8];
	struct petal_outputs outputs;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	petal_outputs_init(&f->outputs, f->memory, MEMORY);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void put__copies_the_bytes(void **state)
{
	struct fixture *f = *state;
	char text[] = "stanza";

	assert_ok(petal_outputs_put(&f->outputs, 3, text, sizeof(text)));
	memset(text, 'x', sizeof(text));
	assert_int_equal(f->outputs.count, 1);
	assert_int_equal(f->outputs.list[0].queue, 3);
	assert_int_equal(f->outputs.list[0].length, sizeof(text));
	assert_string_equal(f->outputs.list[0].bytes, "stanza");
}

static void put__nothing_is_a_message_too(void **state)
{
	struct fixture *f = *state;

	assert_ok(petal_outputs_put(&f->outputs, 1, NULL, 0));
	assert_int_equal(f->outputs.count, 1);
	assert_int_equal(f->outputs.list[0].length, 0);
}

static void put__fills_the_memory_to_the_last_byte(void **state)
{
	struct fixture *f = *state;
	char bytes[MEMORY + 1] = { 0 };

	assert_outcome(petal_outputs_put(&f->outputs, 1, bytes, MEMORY + 1),
		       -ENOSPC);
	assert_int_equal(f->outputs.count, 0);
	assert_ok(petal_outputs_put(&f->outputs, 1, bytes, MEMORY));
	assert_outcome(petal_outputs_put(&f->outputs, 1, bytes, 1), -ENOSPC);
	assert_int_equal(f->outputs.count, 1);
}

static void put__a_length_near_4_gib_does_not_wrap(void **state)
{
	struct fixture *f = *state;
	void *bytes;

	assert_outcome(petal_outputs_claim(&f->outputs, 1, UINT32_MAX, &bytes),
		       -ENOSPC);
	assert_outcome(petal_outputs_claim(&f->outputs, 1, UINT32_MAX - 7,
					   &bytes),
		       -ENOSPC);
}

static void claim__each_begins_at_a_multiple_of_8(void **state)
{
	struct fixture *f = *state;
	void *bytes;

	for (unsigned i = 0; i < MEMORY / 8; i++) {
		assert_ok(petal_outputs_claim(&f->outputs, 1, 1, &bytes));
		assert_ptr_equal(bytes, &f->memory[i]);
	}
	assert_outcome(petal_outputs_claim(&f->outputs, 1, 1, &bytes), -ENOSPC);
}

static void pass__takes_no_memory_but_a_place(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < PETAL_OUTPUTS_MAX; i++)
		assert_ok(petal_outputs_pass(&f->outputs, 1, "constant", 8));
	assert_int_equal(f->outputs.used_bytes, 0);
	assert_outcome(petal_outputs_pass(&f->outputs, 1, "constant", 8),
		       -ENOSPC);
}

static void allow__limits_what_comes_after_it(void **state)
{
	struct fixture *f = *state;

	assert_ok(petal_outputs_put(&f->outputs, 1, "12345678", 8));
	petal_outputs_allow(&f->outputs, 2, 8);
	assert_outcome(petal_outputs_put(&f->outputs, 1, "123456789", 9),
		       -ENOSPC);
	assert_ok(petal_outputs_put(&f->outputs, 1, "12345678", 8));
	assert_outcome(petal_outputs_put(&f->outputs, 1, "1", 1), -ENOSPC);
	assert_ok(petal_outputs_pass(&f->outputs, 1, "1", 1));
	assert_outcome(petal_outputs_pass(&f->outputs, 1, "1", 1), -ENOSPC);
}

static void allow__never_more_than_there_is(void **state)
{
	struct fixture *f = *state;
	char bytes[MEMORY + 1] = { 0 };

	petal_outputs_allow(&f->outputs, UINT32_MAX, UINT32_MAX);
	assert_outcome(petal_outputs_put(&f->outputs, 1, bytes, MEMORY + 1),
		       -ENOSPC);
	for (unsigned i = 0; i < PETAL_OUTPUTS_MAX; i++)
		assert_ok(petal_outputs_pass(&f->outputs, 1, bytes, 1));
	assert_outcome(petal_outputs_pass(&f->outputs, 1, bytes, 1), -ENOSPC);
}

static void cut__leaves_what_was_before_the_mark(void **state)
{
	struct fixture *f = *state;
	struct petal_outputs_mark mark;
	void *bytes;

	assert_ok(petal_outputs_put(&f->outputs, 1, "kept", 5));
	mark = petal_outputs_mark(&f->outputs);
	assert_ok(petal_outputs_put(&f->outputs, 2, "cut", 4));
	assert_ok(petal_outputs_pass(&f->outputs, 3, "cut", 4));
	petal_outputs_cut(&f->outputs, mark);
	assert_int_equal(f->outputs.count, 1);
	assert_string_equal(f->outputs.list[0].bytes, "kept");
	assert_ok(petal_outputs_claim(&f->outputs, 1, 1, &bytes));
	assert_ptr_equal(bytes, &f->memory[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(put__copies_the_bytes),
		TEST(put__nothing_is_a_message_too),
		TEST(put__fills_the_memory_to_the_last_byte),
		TEST(put__a_length_near_4_gib_does_not_wrap),
		TEST(claim__each_begins_at_a_multiple_of_8),
		TEST(pass__takes_no_memory_but_a_place),
		TEST(allow__limits_what_comes_after_it),
		TEST(allow__never_more_than_there_is),
		TEST(cut__leaves_what_was_before_the_mark),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
