/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What actors/batch.h promises: one forward when all goes well, one each when
 * all together were refused, and the outputs of each message with it alone.
 */
#include "tests/check.h"

#include "actors/batch.h"
#include "tests/array_port.h"

enum { IN = 1, OUT = 2 };

struct fixture {
	struct array_port array;
	struct petal_batch batch;
	struct petal_batch_way way;
	uint64_t memory[64];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	petal_batch_init(&f->batch, f->memory, sizeof(f->memory));
	f->way = (struct petal_batch_way){
		.port = &array_port,
		.self = &f->array,
		.level = PETAL_LEVEL_MEM2,
	};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

/* Take a message and let it lead to @outputs messages, numbered after it. */
static void handle(struct fixture *f, uint64_t number, unsigned outputs)
{
	struct petal_message message;

	array_put_u64(&f->array, IN, number);
	assert_ok(array_take(&f->array, IN, 0, &message));
	for (uint64_t i = 0; i < outputs; i++) {
		uint64_t out = number * 10 + i;

		assert_ok(petal_outputs_put(&f->batch.outputs, OUT, &out,
					    sizeof(out)));
	}
	petal_batch_add(&f->batch, &message);
}

/* What came out, in order, ended by 0. */
static void assert_out(const struct fixture *f, const uint64_t *expected)
{
	for (unsigned i = 0; i < f->array.count; i++) {
		const struct array_message *message = &f->array.messages[i];

		if (message->queue == OUT)
			assert_int_equal(array_u64(message->bytes),
					 *expected++);
	}
	assert_int_equal(*expected, 0);
}

static void forward__nothing_is_not_forwarded(void **state)
{
	struct fixture *f = *state;

	petal_batch_forward(&f->batch, &f->way);
	assert_int_equal(f->array.forwards, 0);
}

static void forward__all_in_one_piece(void **state)
{
	struct fixture *f = *state;

	handle(f, 1, 2);
	handle(f, 2, 0);
	handle(f, 3, 1);
	petal_batch_forward(&f->batch, &f->way);
	assert_int_equal(f->array.forwards, 1);
	assert_int_equal(f->array.inputs_last, 3);
	assert_int_equal(f->array.level_last, PETAL_LEVEL_MEM2);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(f->batch.outcomes[i], 0);
	assert_out(f, (uint64_t[]){ 10, 11, 30, 0 });
}

static void forward__one_lost_lease_costs_one_message(void **state)
{
	struct fixture *f = *state;

	handle(f, 1, 1);
	handle(f, 2, 2);
	handle(f, 3, 0);
	handle(f, 4, 1);
	f->array.messages[1].state = ARRAY_READY;
	petal_batch_forward(&f->batch, &f->way);
	assert_int_equal(f->array.forwards, 1 + 4);
	assert_int_equal(f->batch.outcomes[0], 0);
	assert_int_equal(f->batch.outcomes[1], -ESTALE);
	assert_int_equal(f->batch.outcomes[2], 0);
	assert_int_equal(f->batch.outcomes[3], 0);
	assert_out(f, (uint64_t[]){ 10, 40, 0 });
}

static void forward__a_refusal_of_one_is_not_tried_twice(void **state)
{
	struct fixture *f = *state;

	handle(f, 1, 1);
	array_answer(&f->array, -EMSGSIZE, false);
	petal_batch_forward(&f->batch, &f->way);
	assert_int_equal(f->array.forwards, 1);
	assert_int_equal(f->batch.outcomes[0], -EMSGSIZE);
}

static void forward__what_nobody_can_say_is_not_tried_again(void **state)
{
	static const int answers[] = { -EAGAIN, -ETIMEDOUT, -PETAL_EUNKNOWN };
	struct fixture *f = *state;

	for (unsigned i = 0; i < 3; i++) {
		handle(f, 1, 1);
		handle(f, 2, 1);
		array_answer(&f->array, answers[i], false);
		petal_batch_forward(&f->batch, &f->way);
		assert_int_equal(f->array.forwards, i + 1);
		assert_outcome(f->batch.outcomes[0], answers[i]);
		assert_outcome(f->batch.outcomes[1], answers[i]);
		petal_batch_clear(&f->batch);
	}
	assert_out(f, (uint64_t[]){ 0 });
}

static void clear__begins_anew(void **state)
{
	struct fixture *f = *state;

	for (unsigned n = 0; n < 3; n++) {
		for (unsigned i = 0; i < PETAL_BATCH_MAX; i++)
			handle(f, 1, 1);
		petal_batch_forward(&f->batch, &f->way);
		assert_int_equal(f->array.inputs_last, PETAL_BATCH_MAX);
		assert_int_equal(f->array.outputs_last, PETAL_BATCH_MAX);
		petal_batch_clear(&f->batch);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(forward__nothing_is_not_forwarded),
		TEST(forward__all_in_one_piece),
		TEST(forward__one_lost_lease_costs_one_message),
		TEST(forward__a_refusal_of_one_is_not_tried_twice),
		TEST(forward__what_nobody_can_say_is_not_tried_again),
		TEST(clear__begins_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
