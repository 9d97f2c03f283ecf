/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings/pace.h promises: one message at a time is never held up, a burst
 * is followed by a wait that grows with its benefit, and no wait exceeds the
 * limit. And of the rings that have a pace, that a message which comes while
 * the consumer waits is found by that same look. Time is only ever asked for a
 * lower bound, so that a busy machine fails nothing.
 */
#include "tests/check.h"

#include "rings/bcast.h"
#include "rings/mpsc.h"
#include "rings/pace.h"
#include "rings/pipe.h"
#include "rings/spsc.h"

static void missed__one_message_at_a_time_is_not_held_up(void **state)
{
	struct petal_pace pace;

	(void)state;
	petal_pace_init(&pace, 0);
	assert_false(petal_pace_missed(&pace, 0));
	for (uint64_t count = 1; count < 100; count++) {
		assert_false(petal_pace_missed(&pace, count));
		assert_false(petal_pace_missed(&pace, count));
	}
}

static void missed__a_burst_is_waited_after_once(void **state)
{
	struct petal_pace pace;
	uint64_t begin_ticks = petal_waiter_ticks();

	(void)state;
	petal_pace_init(&pace, 7);
	assert_true(petal_pace_missed(&pace, 7 + 2));
	assert_true(petal_waiter_ticks() - begin_ticks >= PETAL_PACE_TICKS_MIN);
	assert_false(petal_pace_missed(&pace, 7 + 2));
}

static void missed__small_batches_double_the_wait_up_to_the_limit(void **state)
{
	struct petal_pace pace;
	uint64_t count = 0;
	uint32_t last = PETAL_PACE_TICKS_MIN;

	(void)state;
	petal_pace_init(&pace, 0);
	assert_true(petal_pace_missed(&pace, count += 2));
	while (last < PETAL_PACE_TICKS_MAX) {
		assert_int_equal(pace.ticks, last);
		assert_true(petal_pace_missed(&pace, count += 2));
		last *= 2;
	}
	assert_true(petal_pace_missed(&pace, count += 2));
	assert_int_equal(pace.ticks, PETAL_PACE_TICKS_MAX);
}

static void missed__large_batches_halve_the_wait_down_to_the_least(void **state)
{
	const uint64_t large = PETAL_PACE_BATCH * PETAL_PACE_BATCHES_MAX + 1;
	struct petal_pace pace;
	uint64_t count = 0;

	(void)state;
	petal_pace_init(&pace, 0);
	for (int i = 0; i < 16; i++)
		petal_pace_missed(&pace, count += 2);
	assert_int_equal(pace.ticks, PETAL_PACE_TICKS_MAX);
	petal_pace_missed(&pace, count += PETAL_PACE_BATCH);
	assert_int_equal(pace.ticks, PETAL_PACE_TICKS_MAX);
	petal_pace_missed(&pace, count += large);
	assert_int_equal(pace.ticks, PETAL_PACE_TICKS_MAX / 2);
	for (int i = 0; i < 16; i++)
		petal_pace_missed(&pace, count += large);
	assert_int_equal(pace.ticks, PETAL_PACE_TICKS_MIN);
}

static void missed__a_look_further_back_is_no_burst(void **state)
{
	struct petal_pace pace;

	(void)state;
	petal_pace_init(&pace, 10);
	assert_false(petal_pace_missed(&pace, 3));
	assert_int_equal(pace.ticks, 0);
	assert_false(petal_pace_missed(&pace, 4));
}

static void missed__a_single_message_ends_the_stream(void **state)
{
	struct petal_pace pace;
	uint64_t count = 0;

	(void)state;
	petal_pace_init(&pace, 0);
	for (int i = 0; i < 16; i++)
		petal_pace_missed(&pace, count += 2);
	assert_false(petal_pace_missed(&pace, count += 1));
	assert_true(petal_pace_missed(&pace, count += 2));
	assert_int_equal(pace.ticks, PETAL_PACE_TICKS_MIN);
}

static void limit__none_means_no_wait(void **state)
{
	struct petal_pace pace;

	(void)state;
	petal_pace_init(&pace, 0);
	petal_pace_limit(&pace, 0);
	assert_false(petal_pace_missed(&pace, 1000));
	petal_pace_limit(&pace, 200);
	for (uint64_t count = 1000; count < 1100; count += 2)
		petal_pace_missed(&pace, count);
	assert_int_equal(pace.ticks, 200);
}

/* Each ring counts what it has shown, so bursts are known as such. */

static _Alignas(64) uint8_t memory[1 << 16];

static void spsc__waits_after_a_burst_and_not_after_one(void **state)
{
	const struct petal_spsc_geometry geometry = {
		.slot_count = 16,
		.slot_bytes = 8,
		.start_pos = UINT64_C(1) << 40,
	};
	struct petal_spsc producer, consumer;

	(void)state;
	assert_int_equal(petal_spsc_format(memory, &geometry), 0);
	assert_int_equal(petal_spsc_attach(memory, sizeof(memory),
					   PETAL_SPSC_PRODUCER, &producer),
			 0);
	assert_int_equal(petal_spsc_attach(memory, sizeof(memory),
					   PETAL_SPSC_CONSUMER, &consumer),
			 0);
	assert_null(petal_spsc_peek(&consumer));
	assert_int_equal(consumer.pace.ticks, 0);
	for (int burst = 1; burst <= 2; burst++) {
		for (int i = 0; i < burst; i++) {
			assert_non_null(petal_spsc_claim(&producer));
			petal_spsc_publish(&producer);
			assert_non_null(petal_spsc_peek(&consumer));
			petal_spsc_release(&consumer);
		}
		assert_null(petal_spsc_peek(&consumer));
		assert_int_equal(consumer.pace.ticks,
				 burst == 1 ? 0 : PETAL_PACE_TICKS_MIN);
	}
}

static void pipe__waits_after_a_burst_and_not_after_one(void **state)
{
	const struct petal_pipe_geometry geometry = { .data_bytes = 4096 };
	struct petal_pipe producer, consumer;
	struct petal_pipe_view view;
	void *bytes;

	(void)state;
	memset(memory, 0, sizeof(memory));
	assert_int_equal(petal_pipe_format(memory, &geometry), 0);
	assert_int_equal(petal_pipe_attach(memory, sizeof(memory),
					   PETAL_PIPE_PRODUCER, &producer),
			 0);
	assert_int_equal(petal_pipe_attach(memory, sizeof(memory),
					   PETAL_PIPE_CONSUMER, &consumer),
			 0);
	for (int burst = 1; burst <= 2; burst++) {
		for (int i = 0; i < burst; i++) {
			assert_int_equal(petal_pipe_claim(&producer, 8, &bytes),
					 0);
			petal_pipe_publish(&producer, 8, 0);
			for (int looks = 0; looks < 3; looks++)
				assert_int_equal(
					petal_pipe_peek(
						&consumer,
						petal_pipe_pos(&consumer),
						&view),
					0);
			petal_pipe_release(&consumer, view.end);
		}
		assert_int_equal(petal_pipe_peek(&consumer,
						 petal_pipe_pos(&consumer),
						 &view),
				 PETAL_RING_EMPTY);
		assert_int_equal(consumer.pace.ticks,
				 burst == 1 ? 0 : PETAL_PACE_TICKS_MIN);
	}
}

static void mpsc__waits_after_a_burst_and_not_after_one(void **state)
{
	const struct petal_mpsc_geometry geometry = {
		.data_bytes = 4096,
		.owners = 2,
	};
	uint64_t bytes = petal_mpsc_bytes(&geometry);
	struct petal_mpsc producer, consumer;
	struct petal_mpsc_claim claim = { 0 };
	struct petal_mpsc_view view;
	uint64_t pos = 0;

	(void)state;
	memset(memory, 0, sizeof(memory));
	assert_int_equal(petal_mpsc_format(memory, &geometry), 0);
	assert_int_equal(petal_mpsc_attach(memory, bytes, memory + bytes, 4096,
					   1, &producer),
			 0);
	assert_int_equal(petal_mpsc_attach(memory, bytes, memory + bytes, 4096,
					   0, &consumer),
			 0);
	for (int burst = 1; burst <= 2; burst++) {
		for (int i = 0; i < burst; i++) {
			assert_int_equal(petal_mpsc_claim(&producer, 8, &claim),
					 0);
			assert_int_equal(petal_mpsc_publish(&producer, &claim),
					 0);
			/* However often it is looked at. */
			for (int looks = 0; looks < 3; looks++)
				assert_int_equal(petal_mpsc_peek(&consumer, pos,
								 &view),
						 0);
			pos = view.end;
		}
		assert_int_equal(petal_mpsc_peek(&consumer, pos, &view),
				 PETAL_RING_EMPTY);
		assert_int_equal(consumer.pace.ticks,
				 burst == 1 ? 0 : PETAL_PACE_TICKS_MIN);
	}
}

static void bcast__waits_after_a_burst_and_not_after_one(void **state)
{
	const struct petal_bcast_geometry geometry = {
		.data_bytes = 4096,
		.readers = 1,
	};
	const struct petal_bcast_options options = { 0 };
	struct petal_bcast publisher;
	struct petal_bcast_reader reader;
	struct petal_bcast_view view;
	void *payload;

	(void)state;
	assert_int_equal(petal_bcast_format(memory, &geometry), 0);
	assert_int_equal(petal_bcast_attach(memory, sizeof(memory), &publisher),
			 0);
	assert_int_equal(
		petal_bcast_join(memory, sizeof(memory), &options, &reader), 0);
	for (int burst = 1; burst <= 2; burst++) {
		for (int i = 0; i < burst; i++) {
			assert_int_equal(petal_bcast_claim(&publisher, 8, 0,
							   &payload),
					 0);
			petal_bcast_publish(&publisher);
			assert_int_equal(petal_bcast_peek(&reader, &view), 0);
			petal_bcast_release(&reader, &view);
		}
		assert_int_equal(petal_bcast_peek(&reader, &view),
				 PETAL_RING_EMPTY);
		assert_int_equal(reader.pace.ticks,
				 burst == 1 ? 0 : PETAL_PACE_TICKS_MIN);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(missed__one_message_at_a_time_is_not_held_up),
		cmocka_unit_test(missed__a_burst_is_waited_after_once),
		cmocka_unit_test(
			missed__small_batches_double_the_wait_up_to_the_limit),
		cmocka_unit_test(
			missed__large_batches_halve_the_wait_down_to_the_least),
		cmocka_unit_test(missed__a_look_further_back_is_no_burst),
		cmocka_unit_test(missed__a_single_message_ends_the_stream),
		cmocka_unit_test(limit__none_means_no_wait),
		cmocka_unit_test(spsc__waits_after_a_burst_and_not_after_one),
		cmocka_unit_test(pipe__waits_after_a_burst_and_not_after_one),
		cmocka_unit_test(mpsc__waits_after_a_burst_and_not_after_one),
		cmocka_unit_test(bcast__waits_after_a_burst_and_not_after_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
