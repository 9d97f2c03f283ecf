/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What actors/clerk.h promises, on the port of tests/array_port.h: one owner,
 * order, acknowledgement after apply, and that in any weather each message is
 * applied exactly once.
 *
 * Harder: PETAL_TEST_HARDER=100 for a hundred times as many seeds.
 */
#include "tests/check.h"

#include "actors/clerk.h"
#include "shm/clock.h"
#include "tests/array_port.h"

enum { IN = 1, APPLIED_MAX = 4096 };

struct fixture {
	struct array_port array;
	struct petal_clerk clerk;
	struct petal_clerk_options options;
	uint64_t random;
	uint64_t fail_at; /* apply fails for this number, unless 0 */
	uint64_t applied[APPLIED_MAX];
	unsigned applied_count;
	unsigned expire_at; /* at this take all leases end, unless 0 */
};

static int note(void *state, const struct petal_message *message)
{
	struct fixture *f = state;
	uint64_t number = array_u64(message->bytes);

	/* It is ours while we work on it: not acknowledged before. */
	assert_int_equal(
		f->array.messages[(message->lsn - 1) * 2 + message->index].state,
		ARRAY_LEASED);
	if (number == f->fail_at)
		return -EIO;
	assert_true(f->applied_count < APPLIED_MAX);
	f->applied[f->applied_count++] = number;
	return 0;
}

static void before_take(struct array_port *array)
{
	struct fixture *f = array->test;

	if (array->takes == f->expire_at)
		array_expire(array, IN);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->array.test = f;
	f->array.before_take = before_take;
	f->options = (struct petal_clerk_options){
		.port = &array_port,
		.port_self = &f->array,
		.apply = note,
		.state = f,
		.queue = IN,
		.queue_slots = ARRAY_MESSAGES,
		.level = PETAL_LEVEL_LOCAL,
		.batch = 8,
		.batch_ns = PETAL_S(60),
		.forward_timeout_ns = PETAL_S(1),
	};
	assert_ok(petal_clerk_init(&f->clerk, &f->options));
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
	return petal_clerk_turn(&f->clerk, 0);
}

/* 1 to count, in order, each once. */
static void assert_applied(const struct fixture *f, unsigned count)
{
	assert_int_equal(f->applied_count, count);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(f->applied[i], i + 1);
	assert_int_equal(f->clerk.counts.applied, count);
}

static void init__refuses_a_second_clerk(void **state)
{
	struct fixture *f = *state;
	struct petal_clerk second;

	assert_outcome(petal_clerk_init(&second, &f->options), -EBUSY);
}

static void init__refuses_what_cannot_work(void **state)
{
	struct fixture *f = *state;
	struct petal_clerk clerk;

	f->options.queue = 2;
	for (unsigned i = 0; i < 7; i++) {
		struct petal_clerk_options options = f->options;

		options.port = i == 0 ? NULL : options.port;
		options.apply = i == 1 ? NULL : options.apply;
		options.batch = i == 2 ? 0 : options.batch;
		options.batch = i == 3 ? PETAL_BATCH_MAX + 1 : options.batch;
		options.forward_timeout_ns = i == 4 ? 0 : 1;
		options.queue_slots = i == 5 ? 0 : 1;
		options.level = i == 6 ? PETAL_LEVEL_COUNT : options.level;
		assert_outcome(petal_clerk_init(&clerk, &options), -EINVAL);
	}
	assert_false(f->array.owned[2]);
}

static void turn__applies_in_order_and_then_acknowledges(void **state)
{
	struct fixture *f = *state;

	put(f, 1, 20);
	assert_ok(turn(f));
	assert_int_equal(f->array.inputs_last, 8);
	assert_int_equal(f->array.outputs_last, 0);
	assert_int_equal(f->array.level_last, PETAL_LEVEL_LOCAL);
	assert_ok(turn(f));
	assert_ok(turn(f));
	assert_int_equal(turn(f), 1);
	assert_applied(f, 20);
	assert_int_equal(f->clerk.counts.done, 20);
	assert_int_equal(f->clerk.seen_count, 0);
}

static void failed__ends_the_run_and_keeps_the_order(void **state)
{
	struct fixture *f = *state;

	f->fail_at = 4;
	put(f, 1, 6);
	assert_outcome(petal_clerk_run(&f->clerk, NULL, PETAL_CLOCK_NEVER),
		       -EIO);
	assert_applied(f, 3);
	assert_int_equal(f->clerk.counts.failed, 1);
	assert_int_equal(array_count(&f->array, IN, ARRAY_DONE), 3);
	assert_int_equal(array_count(&f->array, IN, ARRAY_LEASED), 0);
	f->fail_at = 0;
	assert_ok(turn(f));
	assert_applied(f, 6);
}

static void stale__is_applied_once_and_acknowledged_later(void **state)
{
	struct fixture *f = *state;

	put(f, 1, 3);
	array_answer(&f->array, -ESTALE, false); /* of all together */
	array_answer(&f->array, 0, true);
	array_answer(&f->array, -ESTALE, false); /* of the second */
	assert_ok(turn(f));
	assert_int_equal(f->clerk.counts.stale, 1);
	assert_int_equal(f->clerk.seen_count, 1);
	array_expire(&f->array, IN);
	assert_ok(turn(f));
	assert_applied(f, 3);
	assert_int_equal(f->clerk.counts.duplicates, 1);
	assert_int_equal(f->clerk.counts.redelivered, 1);
	assert_int_equal(array_count(&f->array, IN, ARRAY_DONE), 3);
	assert_int_equal(f->clerk.seen_count, 0);
}

static void stale__a_lease_that_ends_within_the_batch(void **state)
{
	struct fixture *f = *state;

	/* The first two come again between the second and the third. */
	f->expire_at = 3;
	put(f, 1, 4);
	assert_ok(turn(f));
	assert_applied(f, 4);
	assert_int_equal(f->clerk.counts.duplicates, 2);
	assert_int_equal(f->clerk.counts.stale, 2);
	assert_int_equal(f->clerk.counts.done, 4);
	assert_int_equal(array_count(&f->array, IN, ARRAY_DONE), 4);
	assert_int_equal(f->clerk.seen_count, 0);
}

static void full__comes_again_and_is_not_applied_again(void **state)
{
	struct fixture *f = *state;

	put(f, 1, 2);
	array_answer(&f->array, -EAGAIN, false);
	assert_ok(turn(f));
	assert_int_equal(f->clerk.counts.full, 2);
	assert_ok(turn(f));
	assert_applied(f, 2);
	assert_int_equal(f->clerk.counts.duplicates, 2);
	assert_int_equal(f->clerk.counts.done, 2);
}

static void unknown__is_remembered_either_way(void **state)
{
	struct fixture *f = *state;

	put(f, 1, 1);
	array_answer(&f->array, -ETIMEDOUT, true);
	assert_ok(turn(f));
	put(f, 2, 1);
	array_answer(&f->array, -PETAL_EUNKNOWN, false);
	assert_ok(turn(f));
	array_expire(&f->array, IN);
	assert_ok(turn(f));
	assert_applied(f, 2);
	assert_int_equal(f->clerk.counts.unknown, 2);
	assert_int_equal(f->clerk.counts.duplicates, 1);
	/* The first is done, but nobody has told. */
	assert_int_equal(f->clerk.seen_count, 1);
}

/* Its keeper was lost; at the next one the queue has what was not done. */
static void move__what_was_applied_is_known_at_the_next_port(void **state)
{
	struct fixture *f = *state;
	struct array_port *other = calloc(1, sizeof(*other));

	assert_non_null(other);
	put(f, 1, 3);
	array_answer(&f->array, -PETAL_EUNKNOWN, false);
	assert_ok(turn(f));
	assert_applied(f, 3);
	memcpy(other, &f->array, sizeof(*other));
	array_expire(other, IN);
	assert_outcome(petal_clerk_move(&f->clerk, other), -EBUSY);
	other->owned[IN] = false;
	assert_ok(petal_clerk_move(&f->clerk, other));
	array_put_u64(other, IN, 4);
	memcpy(&f->array, other, sizeof(*other)); /* note() looks there */
	f->array.messages[3].state = ARRAY_LEASED;
	assert_ok(turn(f));
	assert_applied(f, 4);
	assert_int_equal(f->clerk.counts.duplicates, 3);
	assert_int_equal(f->clerk.seen_count, 0);
	assert_int_equal(array_count(other, IN, ARRAY_DONE), 4);
	free(other);
}

/* Let each acknowledgement happen, and nobody tell. */
static void turn_untold(struct fixture *f)
{
	f->array.script_count = f->array.script_next = 0;
	array_answer(&f->array, -ETIMEDOUT, true);
	assert_ok(turn(f));
}

static void seen__forgets_what_cannot_come_again(void **state)
{
	struct fixture *f = *state;
	unsigned count = PETAL_CLERK_SEEN_MAX + 100;

	f->array.owned[IN] = false;
	f->options.queue_slots = 16;
	assert_ok(petal_clerk_init(&f->clerk, &f->options));
	put(f, 1, count);
	for (unsigned i = 0; i * 8 < count; i++)
		turn_untold(f);
	assert_applied(f, count);
}

static void seen__stops_before_it_would_have_to_forget(void **state)
{
	struct fixture *f = *state;

	put(f, 1, PETAL_CLERK_SEEN_MAX + 1);
	for (unsigned i = 0; i * 8 < PETAL_CLERK_SEEN_MAX; i++)
		turn_untold(f);
	assert_applied(f, PETAL_CLERK_SEEN_MAX);
	assert_outcome(turn(f), -ENOBUFS);
	assert_applied(f, PETAL_CLERK_SEEN_MAX);
	assert_int_equal(array_count(&f->array, IN, ARRAY_READY), 1);
}

static void refused__ends_the_run(void **state)
{
	struct fixture *f = *state;

	put(f, 1, 1);
	array_answer(&f->array, -PETAL_EFENCED, false);
	assert_outcome(petal_clerk_run(&f->clerk, NULL, PETAL_CLOCK_NEVER),
		       -PETAL_EFENCED);
	assert_int_equal(f->clerk.counts.refused, 1);
}

static void run__stops_when_told_and_at_the_deadline(void **state)
{
	struct fixture *f = *state;
	_Atomic bool stop = true;

	put(f, 1, 1);
	assert_ok(petal_clerk_run(&f->clerk, &stop, PETAL_CLOCK_NEVER));
	assert_int_equal(petal_clerk_run(&f->clerk, NULL, 1), 1);
	assert_int_equal(f->array.takes, 0);
	assert_ok(
		petal_clerk_run(&f->clerk, &f->array.idle, PETAL_CLOCK_NEVER));
	assert_applied(f, 1);
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

	if (happens(f, 30))
		array_expire(array, IN);
	if (!happens(f, 20) || array->script_next < array->script_count)
		return;
	array->script_count = array->script_next = 0;
	array_answer(array, answer,
		     (answer == -ETIMEDOUT || answer == -PETAL_EUNKNOWN) &&
			     happens(f, 2));
}

static void weather(struct fixture *f, uint64_t seed)
{
	enum { INPUTS = 400 };

	memset(&f->array, 0, sizeof(f->array));
	f->applied_count = 0;
	f->random = seed;
	f->array.test = f;
	f->array.before_take = storm;
	assert_ok(petal_clerk_init(&f->clerk, &f->options));
	put(f, 1, INPUTS);
	for (unsigned n = 0;
	     array_count(&f->array, IN, ARRAY_DONE) < INPUTS && n < 10000;
	     n++) {
		atomic_store(&f->array.idle, false);
		assert_ok(petal_clerk_run(&f->clerk, &f->array.idle,
					  PETAL_CLOCK_NEVER));
		array_expire(&f->array, IN);
	}
	if (array_count(&f->array, IN, ARRAY_DONE) != INPUTS)
		fail_msg("seed %llu: lost", (unsigned long long)seed);
	/* The array hands out in order, so the order holds as well. */
	assert_applied(f, INPUTS);
	assert_int_equal(f->clerk.counts.taken,
			 f->clerk.counts.applied + f->clerk.counts.duplicates);
}

static void run__each_once_in_order_in_any_weather(void **state)
{
	struct fixture *f = *state;

	for (uint64_t seed = 1; seed <= petal_test_rounds(30); seed++)
		weather(f, seed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(init__refuses_a_second_clerk),
		TEST(init__refuses_what_cannot_work),
		TEST(turn__applies_in_order_and_then_acknowledges),
		TEST(failed__ends_the_run_and_keeps_the_order),
		TEST(stale__is_applied_once_and_acknowledged_later),
		TEST(stale__a_lease_that_ends_within_the_batch),
		TEST(full__comes_again_and_is_not_applied_again),
		TEST(unknown__is_remembered_either_way),
		TEST(move__what_was_applied_is_known_at_the_next_port),
		TEST(seen__forgets_what_cannot_come_again),
		TEST(seen__stops_before_it_would_have_to_forget),
		TEST(refused__ends_the_run),
		TEST(run__stops_when_told_and_at_the_deadline),
		TEST(run__each_once_in_order_in_any_weather),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
