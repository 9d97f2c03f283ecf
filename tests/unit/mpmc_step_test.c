/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings/mpmc.h promises when another owner acts between two instructions:
 * a few interleavings that no test of whole calls comes to, each of them once
 * found by the explorer or by thought. All of them, of small models: prove
 * order.
 */
#include "tests/check.h"

#define PETAL_ATOMIC_HOOKS "tests/unit/step.h"
#include "rings/mpmc.c"

enum { SLOTS = 4, OWNERS = 5 };
/* Who does what. */
enum { PRODUCER, CONSUMER, RIVAL, JUDGE, SECOND_JUDGE };

static _Alignas(64) uint8_t memory[4096];
static struct petal_mpmc rings[OWNERS];
static struct petal_mpmc_claim claims[3];
static struct petal_mpmc_view in_between;
static unsigned stage;

static int setup(void **state)
{
	const struct petal_mpmc_geometry geometry = {
		.slot_count = SLOTS,
		.slot_bytes = 8,
		.owners = OWNERS,
	};

	(void)state;
	step_before = NULL;
	stage = 0;
	assert_true(petal_mpmc_bytes(&geometry) <= sizeof(memory));
	assert_ok(petal_mpmc_format(memory, &geometry));
	for (uint32_t i = 0; i < OWNERS; i++)
		assert_ok(petal_mpmc_attach(memory, sizeof(memory), i,
					    &rings[i]));
	return 0;
}

static bool is_slot(const void *word, uint64_t pos)
{
	return word == petal_mpmc_at(&rings[PRODUCER], pos);
}

static void claim(unsigned index)
{
	assert_ok(petal_mpmc_claim(&rings[PRODUCER], &claims[index]));
	*(uint64_t *)claims[index].bytes = index + 1;
}

static void publish(unsigned index)
{
	assert_ok(petal_mpmc_publish(&rings[PRODUCER], &claims[index]));
}

static struct petal_mpmc_view take(uint32_t owner, uint64_t value)
{
	struct petal_mpmc_view view;

	assert_ok(petal_mpmc_peek(&rings[owner], &view));
	assert_int_equal(*(const uint64_t *)view.bytes, value);
	return view;
}

static void pop(uint32_t owner, uint64_t value)
{
	struct petal_mpmc_view view = take(owner, value);

	assert_ok(petal_mpmc_release(&rings[owner], &view));
}

/* All three are published between two looks, and a rival takes the first. */
static void publish_all_and_take_one(struct step step)
{
	if (stage == 0 && is_slot(step.word, 2)) {
		stage = 1;
		publish(0);
		publish(1);
		publish(2);
	} else if (stage == 1 && step.is_swap && is_slot(step.word, 0)) {
		stage = 2;
		pop(RIVAL, 1);
	}
}

static void order__holds_when_a_rival_takes_the_first_that_waited(void **state)
{
	struct petal_mpmc_view view;

	(void)state;
	claim(0);
	claim(1);
	assert_outcome(petal_mpmc_peek(&rings[CONSUMER], &view),
		       PETAL_RING_PENDING);
	claim(2);
	step_before = publish_all_and_take_one;
	pop(CONSUMER, 2);
	step_before = NULL;
	assert_int_equal(stage, 2);
	pop(CONSUMER, 3);
	assert_int_equal(petal_mpmc_busy(&rings[JUDGE]), 0);
}

/* A message that has come back so often that this is counted no more. */
static void wear(void)
{
	claim(0);
	publish(0);
	for (unsigned i = 0; i < PETAL_MPMC_REDELIVERED_MAX; i++) {
		struct petal_mpmc_view view = take(CONSUMER, 1);

		assert_ok(petal_mpmc_give_back(&rings[CONSUMER], &view));
	}
}

/* If it came again, who had it before must not speak for it any more. */
static void assert_one_hand(void)
{
	struct petal_mpmc_view again;
	int outcome = petal_mpmc_peek(&rings[CONSUMER], &again);

	assert_int_equal(stage, 1);
	if (outcome == 0) {
		assert_outcome(petal_mpmc_release(&rings[CONSUMER],
						  &in_between),
			       -ESTALE);
		assert_ok(petal_mpmc_release(&rings[CONSUMER], &again));
	} else {
		assert_outcome(outcome, PETAL_RING_EMPTY);
		assert_ok(petal_mpmc_release(&rings[CONSUMER], &in_between));
	}
	assert_int_equal(petal_mpmc_busy(&rings[JUDGE]), 0);
}

static void take_before_the_look(struct step step)
{
	if (stage != 0 || !is_slot(step.word, 0))
		return;
	stage = 1;
	in_between = take(CONSUMER, 1);
}

static void fence__what_is_taken_meanwhile_has_one_hand(void **state)
{
	(void)state;
	wear();
	step_before = take_before_the_look;
	assert_true(petal_mpmc_fence(&rings[JUDGE], CONSUMER) >= 0);
	step_before = NULL;
	assert_one_hand();
}

static void fence_and_take_before_the_look(struct step step)
{
	if (stage != 0 || !is_slot(step.word, 0))
		return;
	stage = 1;
	assert_true(petal_mpmc_fence(&rings[SECOND_JUDGE], CONSUMER) >= 0);
	in_between = take(CONSUMER, 1);
}

static void fence__two_at_a_time_leave_one_hand(void **state)
{
	(void)state;
	wear();
	step_before = fence_and_take_before_the_look;
	assert_true(petal_mpmc_fence(&rings[JUDGE], CONSUMER) >= 0);
	step_before = NULL;
	assert_one_hand();
}

/* A fence that found an older hand still takes all from it. */
static void fence__takes_what_was_taken_before(void **state)
{
	struct petal_mpmc_view before;

	(void)state;
	claim(0);
	publish(0);
	before = take(CONSUMER, 1);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(petal_mpmc_fence(&rings[JUDGE], CONSUMER),
				 i == 0);
		assert_outcome(petal_mpmc_release(&rings[CONSUMER], &before),
			       -ESTALE);
	}
	pop(RIVAL, 1);
}

/* The slot of what came back is passed by a producer, at the last moment. */
static void pass_what_came_back(struct step step)
{
	if (stage != 0 || !step.is_swap || !is_slot(step.word, 0))
		return;
	stage = 1;
	claim(2);
	publish(2);
}

static void give_back__is_found_though_producers_pass_it(void **state)
{
	struct petal_mpmc_view view;

	(void)state;
	claim(0);
	publish(0);
	view = take(CONSUMER, 1);
	for (unsigned i = 1; i < SLOTS; i++) {
		claim(1);
		publish(1);
		pop(CONSUMER, 2);
	}
	assert_ok(petal_mpmc_give_back(&rings[CONSUMER], &view));
	step_before = pass_what_came_back;
	pop(CONSUMER, 1);
	step_before = NULL;
	assert_int_equal(stage, 1);
	pop(CONSUMER, 3);
	assert_int_equal(petal_mpmc_busy(&rings[JUDGE]), 0);
}

#define STEP_TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STEP_TEST(
			order__holds_when_a_rival_takes_the_first_that_waited),
		STEP_TEST(fence__what_is_taken_meanwhile_has_one_hand),
		STEP_TEST(fence__two_at_a_time_leave_one_hand),
		STEP_TEST(fence__takes_what_was_taken_before),
		STEP_TEST(give_back__is_found_though_producers_pass_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
