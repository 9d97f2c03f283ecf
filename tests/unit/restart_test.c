/*
 * The decision whether and when a child is started again, in virtual time. In
 * a transcript a line is the time in milliseconds and what is asked for.
 *
 * Harder: PETAL_TEST_SEEDS=1000000 for more random lives (default 2000).
 */
#include "tests/check.h"

#include <inttypes.h>

#include "actors/restart.h"

struct script {
	struct petal_restart child;
	uint64_t now_ns;
	char text[8192];
	size_t length;
};

static struct script script;

static enum petal_restart_action step(struct script *s,
				      const struct petal_restart_event *event)
{
	static const char *const verbs[] = {
		[PETAL_RESTART_SPAWN] = "spawn",
		[PETAL_RESTART_TERMINATE] = "terminate",
		[PETAL_RESTART_KILL] = "kill",
		[PETAL_RESTART_OVER] = "over",
		[PETAL_RESTART_GIVE_UP] = "give up",
	};
	enum petal_restart_action action;
	int n;

	petal_restart_step(&s->child, s->now_ns, event, &action);
	if (action == PETAL_RESTART_NOTHING)
		return action;
	n = snprintf(s->text + s->length, sizeof(s->text) - s->length,
		     "[%5" PRIu64 "] %s\n", s->now_ns / PETAL_MS(1),
		     verbs[action]);
	assert_in_range(n, 1, sizeof(s->text) - s->length - 1);
	s->length += (size_t)n;
	return action;
}

static void at(struct script *s, uint64_t now_ms)
{
	const struct petal_restart_event tick = { .type = PETAL_RESTART_TICK };

	while (petal_restart_next_ns(&s->child) <= PETAL_MS(now_ms)) {
		s->now_ns = petal_restart_next_ns(&s->child);
		step(s, &tick);
	}
	s->now_ns = PETAL_MS(now_ms);
}

static void started(struct script *s, const struct petal_restart_options *o)
{
	const struct petal_restart_event start = {
		.type = PETAL_RESTART_START,
	};

	*s = (struct script){ .now_ns = 0 };
	assert_ok(petal_restart_init(&s->child, o));
	step(s, &start);
}

static void ended(struct script *s, bool clean)
{
	const struct petal_restart_event event = {
		.type = PETAL_RESTART_ENDED,
		.clean = clean,
	};

	step(s, &event);
}

static void stop(struct script *s, uint64_t grace_ms)
{
	const struct petal_restart_event event = {
		.type = PETAL_RESTART_STOP,
		.grace_ns = PETAL_MS(grace_ms),
	};

	step(s, &event);
}

static void expect(struct script *s, const char *text)
{
	assert_string_equal(s->text, text);
	s->length = 0;
	s->text[0] = 0;
}

static const struct petal_restart_options permanent = {
	.policy = PETAL_RESTART_PERMANENT,
	.restarts_max = 3,
	.window_ns = PETAL_S(1),
	.backoff_ns = PETAL_MS(50),
	.backoff_max_ns = PETAL_MS(100),
};

static struct petal_restart_options with(enum petal_restart_policy policy)
{
	struct petal_restart_options options = permanent;

	options.policy = policy;
	return options;
}

static void init__a_budget_that_cannot_be_spent_is_refused(void **state)
{
	struct petal_restart_options options = permanent;
	struct petal_restart child;

	(void)state;
	options.window_ns = PETAL_MS(251);
	assert_ok(petal_restart_init(&child, &options));
	options.window_ns = PETAL_MS(250);
	assert_outcome(petal_restart_init(&child, &options), -EINVAL);
	options.policy = PETAL_RESTART_TEMPORARY;
	assert_ok(petal_restart_init(&child, &options));

	options = permanent;
	options.backoff_ns = PETAL_MS(101);
	assert_outcome(petal_restart_init(&child, &options), -EINVAL);
	options = permanent;
	options.restarts_max = PETAL_RESTART_MAX + 1;
	assert_outcome(petal_restart_init(&child, &options), -EINVAL);
	options = permanent;
	options.policy = (enum petal_restart_policy)3;
	assert_outcome(petal_restart_init(&child, &options), -EINVAL);
}

static void permanent__is_restarted_after_any_end(void **state)
{
	struct script *s = &script;

	(void)state;
	started(s, &permanent);
	at(s, 100);
	ended(s, true);
	at(s, 5000);
	ended(s, false);
	at(s, 6000);
	expect(s, "[    0] spawn\n"
		  "[  150] spawn\n"
		  "[ 5050] spawn\n");
}

static void transient__is_restarted_after_a_failure_only(void **state)
{
	const struct petal_restart_options o = with(PETAL_RESTART_TRANSIENT);
	struct script *s = &script;

	(void)state;
	started(s, &o);
	at(s, 100);
	ended(s, false);
	at(s, 200);
	ended(s, true);
	at(s, 9000);
	expect(s, "[    0] spawn\n"
		  "[  150] spawn\n"
		  "[  200] over\n");
}

static void temporary__is_never_restarted(void **state)
{
	const struct petal_restart_options o = with(PETAL_RESTART_TEMPORARY);
	struct script *s = &script;

	(void)state;
	started(s, &o);
	at(s, 100);
	ended(s, false);
	at(s, 9000);
	expect(s, "[    0] spawn\n"
		  "[  100] over\n");
}

static void budget__one_end_too_many_is_given_up(void **state)
{
	struct script *s = &script;

	(void)state;
	started(s, &permanent);
	for (uint64_t ms = 0; ms <= 600; ms += 200) {
		at(s, ms);
		ended(s, false);
	}
	at(s, 9000);
	expect(s, "[    0] spawn\n"
		  "[   50] spawn\n"
		  "[  300] spawn\n"
		  "[  500] spawn\n"
		  "[  600] give up\n");
	assert_true(petal_restart_next_ns(&s->child) == PETAL_CLOCK_NEVER);
}

static void budget__restarts_outside_the_window_are_forgotten(void **state)
{
	struct script *s = &script;

	(void)state;
	started(s, &permanent);
	for (uint64_t ms = 0; ms <= 4000; ms += 400) {
		at(s, ms);
		ended(s, false);
	}
	/* Two or three of them lie in any second: the wait stays doubled, and
	 * nobody gives up. */
	expect(s, "[    0] spawn\n"
		  "[   50] spawn\n"
		  "[  500] spawn\n"
		  "[  900] spawn\n"
		  "[ 1300] spawn\n"
		  "[ 1700] spawn\n"
		  "[ 2100] spawn\n"
		  "[ 2500] spawn\n"
		  "[ 2900] spawn\n"
		  "[ 3300] spawn\n"
		  "[ 3700] spawn\n");
}

static void budget__of_none_gives_up_at_the_first_end(void **state)
{
	struct petal_restart_options options = { .restarts_max = 0 };
	struct script *s = &script;

	(void)state;
	started(s, &options);
	ended(s, false);
	expect(s, "[    0] spawn\n"
		  "[    0] give up\n");
}

static void stop__terminates_and_waits_for_the_end(void **state)
{
	struct script *s = &script;

	(void)state;
	started(s, &permanent);
	at(s, 100);
	stop(s, 500);
	at(s, 300);
	ended(s, false);
	at(s, 9000);
	expect(s, "[    0] spawn\n"
		  "[  100] terminate\n"
		  "[  300] over\n");
}

static void stop__kills_when_the_grace_is_over(void **state)
{
	struct script *s = &script;

	(void)state;
	started(s, &permanent);
	at(s, 100);
	stop(s, 500);
	at(s, 700);
	ended(s, false);
	stop(s, 0);
	expect(s, "[    0] spawn\n"
		  "[  100] terminate\n"
		  "[  600] kill\n"
		  "[  700] over\n");
}

static void stop__may_become_impatient_but_not_patient(void **state)
{
	struct script *s = &script;

	(void)state;
	started(s, &permanent);
	stop(s, 500);
	at(s, 100);
	stop(s, 5000);
	at(s, 200);
	stop(s, 100);
	at(s, 400);
	expect(s, "[    0] spawn\n"
		  "[    0] terminate\n"
		  "[  300] kill\n");

	started(s, &permanent);
	stop(s, 500);
	at(s, 100);
	stop(s, 5000);
	at(s, 9000);
	expect(s, "[    0] spawn\n"
		  "[    0] terminate\n"
		  "[  500] kill\n");

	started(s, &permanent);
	stop(s, 500);
	stop(s, 0);
	stop(s, 0);
	at(s, 9000);
	expect(s, "[    0] spawn\n"
		  "[    0] terminate\n"
		  "[    0] kill\n");
}

static void stop__of_one_that_waits_for_its_restart_is_over(void **state)
{
	struct script *s = &script;

	(void)state;
	started(s, &permanent);
	ended(s, false);
	at(s, 20);
	stop(s, 500);
	at(s, 9000);
	expect(s, "[    0] spawn\n"
		  "[   20] over\n");
}

/* ---- random lives ---- */

static uint64_t random_state;

static uint64_t draw(uint64_t below)
{
	random_state = random_state * UINT64_C(6364136223846793005) +
		       UINT64_C(1442695040888963407);
	return (random_state >> 33) % below;
}

/* Ticks come late by up to 300 ms, which must not break the budget either. */
static void random__no_window_has_more_restarts_than_the_budget(void **state)
{
	const char *text = getenv("PETAL_TEST_SEEDS");
	uint64_t seeds = text ? strtoull(text, NULL, 10) : 2000;
	const struct petal_restart_event fail = { .type = PETAL_RESTART_ENDED };
	const struct petal_restart_event tick = { .type = PETAL_RESTART_TICK };

	(void)state;
	for (random_state = 1; seeds-- > 0;) {
		uint64_t spawned_ns[64], least_ns;
		uint32_t count = 0;
		struct script *s = &script;

		started(s, &permanent);
		while (count < 64 && s->child.state != PETAL_RESTART_IS_OVER) {
			s->now_ns += PETAL_MS(draw(600));
			step(s, &fail);
			if (s->child.state == PETAL_RESTART_IS_OVER)
				break;
			least_ns = petal_restart_next_ns(&s->child);
			s->now_ns = least_ns + PETAL_MS(draw(300));
			assert_int_equal(step(s, &tick), PETAL_RESTART_SPAWN);
			spawned_ns[count++] = s->now_ns;
			if (count > 3)
				assert_true(spawned_ns[count - 1] -
						    spawned_ns[count - 4] >
					    PETAL_S(1));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			init__a_budget_that_cannot_be_spent_is_refused),
		cmocka_unit_test(permanent__is_restarted_after_any_end),
		cmocka_unit_test(transient__is_restarted_after_a_failure_only),
		cmocka_unit_test(temporary__is_never_restarted),
		cmocka_unit_test(budget__one_end_too_many_is_given_up),
		cmocka_unit_test(
			budget__restarts_outside_the_window_are_forgotten),
		cmocka_unit_test(budget__of_none_gives_up_at_the_first_end),
		cmocka_unit_test(stop__terminates_and_waits_for_the_end),
		cmocka_unit_test(stop__kills_when_the_grace_is_over),
		cmocka_unit_test(stop__may_become_impatient_but_not_patient),
		cmocka_unit_test(
			stop__of_one_that_waits_for_its_restart_is_over),
		cmocka_unit_test(
			random__no_window_has_more_restarts_than_the_budget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
