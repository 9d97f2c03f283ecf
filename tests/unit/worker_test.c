/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What actors/worker.h promises, on the port of tests/array_port.h: what
 * becomes of a message in each of its ways, and that in any weather each input
 * is answered by its own outputs exactly once.
 *
 * Harder: PETAL_TEST_HARDER=100 for a hundred times as many seeds.
 */
#include "tests/check.h"

#include "actors/worker.h"
#include "shm/clock.h"
#include "tests/array_port.h"

enum { IN = 1, OUT = 2, BYTES_MAX = 64 };

struct fixture {
	struct array_port array;
	struct petal_worker worker;
	struct petal_worker_options options;
	uint64_t memory[PETAL_BATCH_MAX * BYTES_MAX / 8];
	uint64_t random;
	int answer; /* of behave, for messages over 1000 */
	unsigned behaved;
	unsigned fail_first; /* let so many behaves fail */
};

/* A number leads to number % 3 outputs, number * 10 and following. */
static int multiply(void *state, const struct petal_message *message,
		    struct petal_outputs *outputs)
{
	struct fixture *f = state;
	uint64_t number = array_u64(message->bytes);

	f->behaved++;
	for (uint64_t i = 0; i < number % 3; i++) {
		uint64_t out = number * 10 + i;
		int err = petal_outputs_put(outputs, OUT, &out, sizeof(out));

		if (err < 0)
			return err;
	}
	if (f->fail_first > 0) {
		f->fail_first--;
		return -EIO;
	}
	return number > 1000 ? f->answer : 0;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->options = (struct petal_worker_options){
		.port = &array_port,
		.port_self = &f->array,
		.behave = multiply,
		.state = f,
		.queue = IN,
		.level = PETAL_LEVEL_MEM2,
		.batch = 8,
		.batch_ns = PETAL_S(60),
		.forward_timeout_ns = PETAL_S(1),
		.retry_ns = 0,
		.outputs_max = 2,
		.output_bytes_max = BYTES_MAX,
		.memory = f->memory,
		.memory_bytes = sizeof(f->memory),
	};
	assert_ok(petal_worker_init(&f->worker, &f->options));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void put(struct fixture *f, uint64_t from, uint64_t count)
{
	for (uint64_t i = from; i < from + count; i++)
		array_put_u64(&f->array, IN, i);
}

static int turn(struct fixture *f)
{
	return petal_worker_turn(&f->worker, 0);
}

static void init__refuses_what_cannot_work(void **state)
{
	struct fixture *f = *state;
	struct petal_worker worker;

	for (unsigned i = 0; i < 9; i++) {
		struct petal_worker_options options = f->options;

		options.port = i == 0 ? NULL : options.port;
		options.behave = i == 1 ? NULL : options.behave;
		options.batch = i == 2 ? 0 : options.batch;
		options.batch = i == 3 ? PETAL_BATCH_MAX + 1 : options.batch;
		options.forward_timeout_ns = i == 4 ? 0 : PETAL_S(1);
		options.outputs_max = i == 5 ? PETAL_OUTPUTS_MAX + 1 : 1;
		options.memory_bytes = i == 6 ? BYTES_MAX - 1 : BYTES_MAX;
		options.memory = i == 7 ? NULL : options.memory;
		options.level = i == 8 ? PETAL_LEVEL_COUNT : options.level;
		assert_outcome(petal_worker_init(&worker, &options), -EINVAL);
	}
}

static void turn__an_empty_queue_is_said_so(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(turn(f), 1);
	assert_int_equal(f->array.forwards, 0);
	assert_int_equal(f->worker.counts.batches, 0);
}

static void turn__one_message_goes_through_alone(void **state)
{
	struct fixture *f = *state;

	put(f, 2, 1);
	assert_ok(turn(f));
	assert_int_equal(f->array.forwards, 1);
	assert_int_equal(f->array.inputs_last, 1);
	assert_int_equal(f->array.outputs_last, 2);
	assert_int_equal(f->array.level_last, PETAL_LEVEL_MEM2);
	assert_int_equal(array_count(&f->array, IN, ARRAY_DONE), 1);
	assert_int_equal(array_count(&f->array, OUT, ARRAY_READY), 2);
	assert_int_equal(f->worker.counts.done, 1);
	assert_int_equal(f->worker.counts.outputs, 2);
}

static void turn__takes_a_batch_under_load(void **state)
{
	struct fixture *f = *state;

	put(f, 0, 20);
	assert_ok(turn(f));
	assert_int_equal(f->array.inputs_last, 8);
	assert_ok(turn(f));
	assert_ok(turn(f));
	assert_int_equal(f->array.inputs_last, 4);
	assert_int_equal(f->worker.counts.done, 20);
	assert_int_equal(f->worker.counts.batches, 3);
}

static void turn__holds_no_message_that_it_is_not_working_on(void **state)
{
	struct fixture *f = *state;

	f->options.batch_ns = 0;
	assert_ok(petal_worker_init(&f->worker, &f->options));
	put(f, 0, 3);
	assert_ok(turn(f));
	assert_int_equal(f->array.takes, 1);
	assert_int_equal(array_count(&f->array, IN, ARRAY_READY), 2);
}

static void turn__ends_a_batch_when_outputs_might_not_fit(void **state)
{
	struct fixture *f = *state;

	f->options.memory_bytes = BYTES_MAX + 16;
	assert_ok(petal_worker_init(&f->worker, &f->options));
	put(f, 2, 1);
	put(f, 2, 1);
	put(f, 2, 1);
	assert_ok(turn(f));
	assert_int_equal(f->array.inputs_last, 2);
	assert_ok(turn(f));
	assert_int_equal(f->worker.counts.done, 3);
	assert_int_equal(f->worker.counts.failed, 0);
}

static void turn__outputs_over_the_limit_fail(void **state)
{
	struct fixture *f = *state;

	f->options.outputs_max = 1;
	assert_ok(petal_worker_init(&f->worker, &f->options));
	put(f, 1, 2);
	assert_ok(turn(f));
	assert_int_equal(f->worker.counts.done, 1);
	assert_int_equal(f->worker.counts.failed, 1);
}

static void failed__is_given_back_and_the_others_go_on(void **state)
{
	struct fixture *f = *state;

	f->answer = -EIO;
	put(f, 1001, 1);
	put(f, 1, 5);
	assert_ok(turn(f));
	assert_int_equal(f->array.inputs_last, 5);
	assert_int_equal(f->worker.counts.done, 5);
	assert_int_equal(f->worker.counts.failed, 1);
	assert_int_equal(array_count(&f->array, IN, ARRAY_LEASED), 1);
	f->answer = 0;
	assert_ok(turn(f));
	assert_int_equal(f->array.releases, 1);
	assert_int_equal(f->worker.counts.redelivered, 1);
	assert_int_equal(f->worker.counts.done, 6);
}

static void failed__is_kept_for_retry_ns(void **state)
{
	struct fixture *f = *state;

	f->options.retry_ns = PETAL_S(3600);
	f->answer = -EIO;
	assert_ok(petal_worker_init(&f->worker, &f->options));
	put(f, 1001, 1);
	assert_ok(turn(f));
	assert_int_equal(turn(f), 1);
	assert_int_equal(f->behaved, 1);
	assert_int_equal(f->array.releases, 0);
}

static void failed__more_than_can_be_kept_come_back_sooner(void **state)
{
	struct fixture *f = *state;

	f->options.retry_ns = PETAL_S(3600);
	f->answer = -EIO;
	assert_ok(petal_worker_init(&f->worker, &f->options));
	put(f, 1001, PETAL_WORKER_HELD_MAX + 1);
	assert_ok(turn(f));
	assert_true(f->array.releases > 0);
	assert_int_equal(array_count(&f->array, IN, ARRAY_LEASED),
			 PETAL_WORKER_HELD_MAX);
	/* One turn is bounded, though the messages come back all the time. */
	assert_true(f->behaved <= PETAL_BATCH_MAX);
}

static void failed__none_is_left_when_run_ends(void **state)
{
	struct fixture *f = *state;

	f->options.retry_ns = PETAL_S(3600);
	f->answer = -EIO;
	assert_ok(petal_worker_init(&f->worker, &f->options));
	put(f, 1001, 3);
	assert_ok(petal_worker_run(&f->worker, &f->array.idle,
				   PETAL_CLOCK_NEVER));
	assert_int_equal(array_count(&f->array, IN, ARRAY_LEASED), 0);
	assert_int_equal(array_count(&f->array, OUT, ARRAY_READY), 0);
}

static void stale__is_dropped_and_counted(void **state)
{
	struct fixture *f = *state;

	put(f, 1, 3);
	array_answer(&f->array, -ESTALE, false); /* of all together */
	array_answer(&f->array, 0, true);
	array_answer(&f->array, -ESTALE, false); /* of the second */
	assert_ok(turn(f));
	assert_int_equal(f->worker.counts.stale, 1);
	assert_int_equal(f->worker.counts.done, 2);
	assert_int_equal(f->worker.counts.outputs, 1);
	assert_int_equal(f->array.releases, 0);
	array_expire(&f->array, IN);
	assert_ok(turn(f));
	assert_int_equal(f->worker.counts.done, 3);
	assert_int_equal(array_count(&f->array, OUT, ARRAY_READY), 3);
}

static void full__is_given_back(void **state)
{
	struct fixture *f = *state;

	put(f, 1, 2);
	array_answer(&f->array, -EAGAIN, false);
	assert_ok(turn(f));
	assert_int_equal(f->worker.counts.full, 2);
	assert_int_equal(array_count(&f->array, IN, ARRAY_READY), 2);
	assert_ok(turn(f));
	assert_int_equal(f->worker.counts.done, 2);
}

static void unknown__is_left_to_the_lease(void **state)
{
	struct fixture *f = *state;

	put(f, 2, 2);
	array_answer(&f->array, -ETIMEDOUT, true);
	assert_ok(turn(f));
	put(f, 5, 1);
	array_answer(&f->array, -PETAL_EUNKNOWN, false);
	assert_ok(turn(f));
	assert_int_equal(f->worker.counts.unknown, 3);
	assert_int_equal(f->array.releases, 0);
	array_expire(&f->array, IN);
	assert_ok(turn(f));
	assert_int_equal(f->worker.counts.taken, 4);
	assert_int_equal(array_count(&f->array, OUT, ARRAY_READY), 2 + 0 + 2);
}

static void refused__ends_the_run(void **state)
{
	struct fixture *f = *state;

	put(f, 1, 1);
	array_answer(&f->array, -EMSGSIZE, false);
	assert_outcome(petal_worker_run(&f->worker, NULL, PETAL_CLOCK_NEVER),
		       -EMSGSIZE);
	assert_int_equal(f->worker.counts.refused, 1);
	assert_int_equal(array_count(&f->array, IN, ARRAY_READY), 1);
}

static int gone(void *self, uint32_t queue, uint64_t deadline_ns,
		struct petal_message *ret_message)
{
	struct array_port *array = self;

	if (array->takes == 2)
		return -PETAL_EUNKNOWN;
	return array_take(self, queue, deadline_ns, ret_message);
}

static void run__forwards_what_it_has_before_it_ends(void **state)
{
	struct fixture *f = *state;
	struct petal_port port = array_port;

	port.take = gone;
	f->options.port = &port;
	assert_ok(petal_worker_init(&f->worker, &f->options));
	put(f, 1, 3);
	assert_outcome(petal_worker_run(&f->worker, NULL, PETAL_CLOCK_NEVER),
		       -PETAL_EUNKNOWN);
	assert_int_equal(f->worker.counts.done, 2);
}

static void run__stops_when_told(void **state)
{
	struct fixture *f = *state;
	_Atomic bool stop = true;

	put(f, 1, 1);
	assert_ok(petal_worker_run(&f->worker, &stop, PETAL_CLOCK_NEVER));
	assert_int_equal(f->array.takes, 0);
}

static void run__ends_at_the_deadline(void **state)
{
	struct fixture *f = *state;

	put(f, 1, 1);
	assert_int_equal(petal_worker_run(&f->worker, NULL, 1), 1);
	assert_int_equal(f->array.takes, 0);
	assert_int_equal(petal_worker_run(&f->worker, NULL,
					  petal_clock_now_ns() + PETAL_MS(5)),
			 1);
	assert_int_equal(f->worker.counts.done, 1);
}

/* ---- any weather ---- */

static bool happens(struct fixture *f, unsigned one_in)
{
	return petal_test_random(&f->random) % one_in == 0;
}

static void storm(struct array_port *array)
{
	static const int answers[] = { -ESTALE, -EAGAIN, -ETIMEDOUT,
				       -PETAL_EUNKNOWN };
	struct fixture *f = array->test;
	int answer = answers[petal_test_random(&f->random) % 4];

	if (happens(f, 50))
		array_expire(array, IN);
	if (happens(f, 20))
		f->fail_first = 1;
	if (!happens(f, 20) || array->script_next < array->script_count)
		return;
	array->script_count = array->script_next = 0;
	array_answer(array, answer,
		     (answer == -ETIMEDOUT || answer == -PETAL_EUNKNOWN) &&
			     happens(f, 2));
}

static void assert_exactly_once(const struct fixture *f, uint64_t inputs)
{
	uint8_t *seen = calloc(inputs, 10);

	assert_non_null(seen);
	for (unsigned i = 0; i < f->array.count; i++) {
		const struct array_message *message = &f->array.messages[i];

		if (message->queue == OUT)
			seen[array_u64(message->bytes)]++;
	}
	for (uint64_t i = 0; i < inputs * 10; i++)
		assert_int_equal(seen[i], i % 10 < i / 10 % 3);
	free(seen);
}

static void weather(struct fixture *f, uint64_t seed)
{
	enum { INPUTS = 400 };

	memset(&f->array, 0, sizeof(f->array));
	f->random = seed;
	f->array.test = f;
	f->array.before_take = storm;
	assert_ok(petal_worker_init(&f->worker, &f->options));
	put(f, 0, INPUTS);
	for (unsigned n = 0;
	     array_count(&f->array, IN, ARRAY_DONE) < INPUTS && n < 10000;
	     n++) {
		atomic_store(&f->array.idle, false);
		assert_ok(petal_worker_run(&f->worker, &f->array.idle,
					   PETAL_CLOCK_NEVER));
		array_expire(&f->array, IN);
	}
	if (array_count(&f->array, IN, ARRAY_DONE) != INPUTS)
		fail_msg("seed %llu: lost", (unsigned long long)seed);
	assert_exactly_once(f, INPUTS);
	assert_int_equal(f->worker.counts.taken,
			 f->worker.counts.done + f->worker.counts.stale +
				 f->worker.counts.failed +
				 f->worker.counts.full +
				 f->worker.counts.unknown);
}

static void run__exactly_once_in_any_weather(void **state)
{
	struct fixture *f = *state;

	for (uint64_t seed = 1; seed <= petal_test_rounds(30); seed++)
		weather(f, seed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(init__refuses_what_cannot_work),
		TEST(turn__an_empty_queue_is_said_so),
		TEST(turn__one_message_goes_through_alone),
		TEST(turn__takes_a_batch_under_load),
		TEST(turn__holds_no_message_that_it_is_not_working_on),
		TEST(turn__ends_a_batch_when_outputs_might_not_fit),
		TEST(turn__outputs_over_the_limit_fail),
		TEST(failed__is_given_back_and_the_others_go_on),
		TEST(failed__is_kept_for_retry_ns),
		TEST(failed__more_than_can_be_kept_come_back_sooner),
		TEST(failed__none_is_left_when_run_ends),
		TEST(stale__is_dropped_and_counted),
		TEST(full__is_given_back),
		TEST(unknown__is_left_to_the_lease),
		TEST(refused__ends_the_run),
		TEST(run__forwards_what_it_has_before_it_ends),
		TEST(run__stops_when_told),
		TEST(run__ends_at_the_deadline),
		TEST(run__exactly_once_in_any_weather),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
