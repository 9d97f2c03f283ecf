/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has failed in a flow, and what is done before a leg begins: one round of
 * short legs, with real processes, whose rows are read back.
 *
 * Harder: PETAL_TEST_ROUNDS=100 (default 1).
 */
#include <errno.h>
#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "bench/flow.h"

static int produce(struct petal_flow_contender *who, unsigned index,
		   struct petal_flow_run *run)
{
	(void)who;
	for (uint64_t count = 1; !petal_flow_is_over(run); count++)
		petal_flow_count(run, index, count);
	return 0;
}

static int produce_wrong(struct petal_flow_contender *who, unsigned index,
			 struct petal_flow_run *run)
{
	(void)who;
	(void)index;
	(void)run;
	return -EBADMSG;
}

static int produce_nothing(struct petal_flow_contender *who, unsigned index,
			   struct petal_flow_run *run)
{
	(void)who;
	(void)index;
	while (!petal_flow_is_over(run))
		sched_yield();
	return 0;
}

static int prepare(struct petal_flow_contender *who)
{
	return petal_flow_map(who, 4096);
}

static int join(struct petal_flow_contender *who, unsigned party,
		struct petal_flow_run *run)
{
	(void)party;
	if (petal_load(&run->started, PETAL_RELAXED))
		return -EALREADY;
	petal_add((struct petal_u64 *)who->memory, 1, PETAL_RELAXED);
	return 0;
}

static int join_nothing(struct petal_flow_contender *who, unsigned party,
			struct petal_flow_run *run)
{
	(void)who;
	(void)party;
	(void)run;
	return -ENOPKG;
}

/* Both producers have joined, or there is nothing to count. */
static int produce_joined(struct petal_flow_contender *who, unsigned index,
			  struct petal_flow_run *run)
{
	if (petal_load((struct petal_u64 *)who->memory, PETAL_RELAXED) != 2)
		return -EBADMSG;
	return produce(who, index, run);
}

/* Runs a floor and @who for one round; the rows, as JSON, are the text. */
static int run(const struct petal_flow_contender *who, char *text, size_t size)
{
	const char *rounds = getenv("PETAL_TEST_ROUNDS");
	char words[][16] = { "flow", "--json", "--quick", "--rounds", "1" };
	char *argv[] = {
		words[0], words[1], words[2], words[3], words[4], NULL
	};
	struct petal_flow_contender contenders[] = {
		{ .impl = "floor",
		  .floor = true,
		  .producers = 1,
		  .produce = produce },
		*who,
	};
	int page = memfd_create("rows", MFD_CLOEXEC);
	int before = dup(STDOUT_FILENO);
	ssize_t length;
	int outcome;

	assert_true(page >= 0 && before >= 0);
	if (rounds)
		snprintf(words[4], sizeof(words[4]), "%s", rounds);
	fflush(stdout);
	dup2(page, STDOUT_FILENO);
	optind = 0;
	outcome = petal_flow_main("flow", contenders, 2, 5, argv);
	fflush(stdout);
	dup2(before, STDOUT_FILENO);
	close(before);
	length = pread(page, text, size - 1, 0);
	close(page);
	assert_true(length > 0);
	text[length] = '\0';
	return outcome;
}

static void peer__that_cannot_start_is_a_row_and_no_failure(void **state)
{
	struct petal_flow_contender who = {
		.impl = "absent",
		.peer = true,
		.producers = 1,
		.join = join_nothing,
		.produce = produce,
	};
	char text[4096];

	(void)state;
	assert_int_equal(run(&who, text, sizeof(text)), 0);
	assert_non_null(strstr(text, "not run: Package not installed"));
}

static void peer__of_which_nothing_arrives_is_a_row_and_no_failure(void **state)
{
	struct petal_flow_contender who = {
		.impl = "mute",
		.peer = true,
		.producers = 1,
		.produce = produce_nothing,
	};
	char text[4096];

	(void)state;
	assert_int_equal(run(&who, text, sizeof(text)), 0);
	assert_non_null(strstr(text, "not run: "));
}

static void peer__with_a_wrong_payload_is_a_failure(void **state)
{
	struct petal_flow_contender who = {
		.impl = "wrong",
		.peer = true,
		.producers = 1,
		.produce = produce_wrong,
	};
	char text[4096];

	(void)state;
	assert_int_equal(run(&who, text, sizeof(text)), 1);
}

static void ours__that_cannot_start_is_a_failure(void **state)
{
	struct petal_flow_contender who = {
		.impl = "ours",
		.producers = 1,
		.join = join_nothing,
		.produce = produce,
	};
	char text[4096];

	(void)state;
	assert_int_equal(run(&who, text, sizeof(text)), 1);
}

static void join__all_parties_have_done_it_before_any_begins(void **state)
{
	struct petal_flow_contender who = {
		.impl = "ours",
		.producers = 2,
		.prepare = prepare,
		.join = join,
		.produce = produce_joined,
	};
	char text[4096];

	(void)state;
	assert_int_equal(run(&who, text, sizeof(text)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			peer__that_cannot_start_is_a_row_and_no_failure),
		cmocka_unit_test(
			peer__of_which_nothing_arrives_is_a_row_and_no_failure),
		cmocka_unit_test(peer__with_a_wrong_payload_is_a_failure),
		cmocka_unit_test(ours__that_cannot_start_is_a_failure),
		cmocka_unit_test(
			join__all_parties_have_done_it_before_any_begins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
