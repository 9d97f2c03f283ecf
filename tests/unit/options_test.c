/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line that all bench programs share: what is said when nothing is
 * asked for, what is refused, and what only some of them understand.
 *
 * There is no harder way to run it.
 */
#include <errno.h>
#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "bench/options.h"
#include "shm/clock.h"

#define WORDS_MAX 8

static const struct petal_options_form plain = {
	.bytes_max = 1024,
	.bytes_help = "of payload",
};

static const struct petal_options_form placed = {
	.bytes_max = 1024,
	.bytes_help = "of payload",
	.places = true,
};

/* @line: words with a blank between them */
static int parse(const struct petal_options_form *form, const char *line,
		 struct petal_options *ret_options)
{
	char text[128];
	char *argv[WORDS_MAX + 1] = { NULL };
	int argc = 0;

	snprintf(text, sizeof(text), "bench %s", line);
	for (char *word = strtok(text, " "); word && argc < WORDS_MAX;
	     word = strtok(NULL, " "))
		argv[argc++] = word;
	optind = 0;
	return petal_options_parse(form, argc, argv, ret_options);
}

static void parse__nothing_said_is_everything_at_length(void **state)
{
	struct petal_options options;

	(void)state;
	assert_int_equal(parse(&placed, "", &options), 0);
	assert_int_equal(options.rounds, 20);
	assert_int_equal(options.bytes, 0);
	assert_true(options.leg_ns == PETAL_MS(250));
	assert_true(options.sleep && options.spin);
	assert_false(options.json || options.quick || options.crowd);
	assert_null(options.only);
}

static void parse__quick_leaves_the_rounds_that_were_said(void **state)
{
	struct petal_options options;

	(void)state;
	assert_int_equal(parse(&plain, "--quick", &options), 0);
	assert_int_equal(options.rounds, 10);
	assert_true(options.leg_ns == PETAL_MS(40));
	assert_int_equal(parse(&plain, "--rounds 3 --quick", &options), 0);
	assert_int_equal(options.rounds, 3);
}

static void parse__what_is_no_number_in_range_is_refused(void **state)
{
	static const char *const lines[] = {
		"--rounds 0",   "--rounds 1001", "--rounds -1", "--rounds 1x",
		"--bytes 1025", "--bytes 0",     "--bytes",     "--bytes 0x8",
	};
	struct petal_options options;

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
		assert_int_equal(parse(&plain, lines[i], &options), -EINVAL);
	assert_int_equal(parse(&plain, "--bytes 1024", &options), 0);
	assert_int_equal(options.bytes, 1024);
}

static void parse__places_are_for_those_who_have_two_sides(void **state)
{
	struct petal_options options;

	(void)state;
	assert_int_equal(parse(&plain, "--wait spin", &options), -EINVAL);
	assert_int_equal(parse(&placed, "--wait spin", &options), 0);
	assert_true(options.spin && !options.sleep);
	assert_int_equal(parse(&placed, "--wait hop", &options), -EINVAL);
	assert_int_equal(parse(&placed, "--cpus 0", &options), -EINVAL);
	assert_int_equal(parse(&placed, "--cpus 0,65535", &options), -EINVAL);
	assert_int_equal(parse(&placed, "--one-cpu", &options), 0);
	assert_true(options.crowd);
}

static void parse__a_directory_is_for_those_who_store(void **state)
{
	static const struct petal_options_form storing = {
		.bytes_max = 1024,
		.bytes_help = "",
		.stores = true,
	};
	struct petal_options options;

	(void)state;
	assert_int_equal(parse(&plain, "--dir /x", &options), -EINVAL);
	assert_int_equal(parse(&storing, "--dir /x", &options), 0);
	assert_non_null(options.dir);
	assert_int_equal(parse(&storing, "", &options), 0);
	assert_null(options.dir);
}

static void parse__leftovers_and_the_unknown_are_refused(void **state)
{
	struct petal_options options;

	(void)state;
	assert_int_equal(parse(&plain, "--fast", &options), -EINVAL);
	assert_int_equal(parse(&plain, "more", &options), -EINVAL);
	assert_int_equal(parse(&plain, "--help", &options), 1);
}

static void want__holds_the_text_or_there_is_none(void **state)
{
	(void)state;
	assert_true(petal_options_want(NULL, "zeromq"));
	assert_true(petal_options_want("mq", "zeromq"));
	assert_false(petal_options_want("nng", "zeromq"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse__nothing_said_is_everything_at_length),
		cmocka_unit_test(parse__quick_leaves_the_rounds_that_were_said),
		cmocka_unit_test(parse__what_is_no_number_in_range_is_refused),
		cmocka_unit_test(
			parse__places_are_for_those_who_have_two_sides),
		cmocka_unit_test(parse__a_directory_is_for_those_who_store),
		cmocka_unit_test(parse__leftovers_and_the_unknown_are_refused),
		cmocka_unit_test(want__holds_the_text_or_there_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
