/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lines of the bench programs: the keys that readers rely on, in their
 * order, and strings and numbers that stay JSON whatever is in them.
 *
 * There is no harder way to run it: it prints to memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/row.h"

struct fixture {
	char *text;
	size_t size;
	struct petal_row_sink sink;
	struct petal_row row;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	f->sink.out = open_memstream(&f->text, &f->size);
	f->sink.json = true;
	petal_row_init(&f->row, "rpc");
	*state = f;
	return f->sink.out ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fclose(f->sink.out);
	free(f->text);
	free(f);
	return 0;
}

static const char *printed(struct fixture *f)
{
	assert_int_equal(petal_row_print(&f->sink, &f->row), 0);
	return f->text;
}

static void print__json_has_every_key_in_order(void **state)
{
	struct fixture *f = *state;

	f->row.impl = "af_unix";
	f->row.peer = true;
	f->row.bytes = 256;
	f->row.rounds = 10;
	f->row.n = 3;
	f->row.p50_ns = 1;
	f->row.p99_ns = 2;
	f->row.p999_ns = 3;
	f->row.max_ns = 4;
	f->row.msgs_per_s = 1.5;
	f->row.cpu_ns_per_msg = 2;
	f->row.floor_ratio = 0.9996;
	f->row.version = "v";
	f->row.note = "n";
	assert_string_equal(
		printed(f),
		"{\"bench\":\"rpc\",\"case\":\"\",\"impl\":\"af_unix\","
		"\"peer\":true,\"floor\":false,\"bytes\":256,\"producers\":1,"
		"\"consumers\":1,\"window\":1,\"wait\":\"sleep\","
		"\"level\":\"none\",\"rounds\":10,\"n\":3,\"p50_ns\":1,"
		"\"p99_ns\":2,\"p999_ns\":3,\"max_ns\":4,\"msgs_per_s\":1.500,"
		"\"cpu_ns_per_msg\":2.000,\"floor_ratio\":1.000,"
		"\"version\":\"v\",\"note\":\"n\"}\n");
}

static void usl__json_has_every_key_in_order(void **state)
{
	const struct petal_usl usl = {
		.lambda = 5e6, .sigma = 0.25, .kappa = 0.0000015, .error = 0.125
	};
	struct fixture *f = *state;

	f->row.impl = "ck_ring";
	f->row.peer = true;
	f->row.bytes = 64;
	assert_int_equal(petal_row_usl_print(&f->sink, &f->row, 5, &usl), 0);
	assert_string_equal(
		f->text,
		"{\"usl\":{\"bench\":\"rpc\",\"case\":\"\",\"impl\":\"ck_ring\","
		"\"peer\":true,\"bytes\":64,\"window\":1,\"wait\":\"sleep\","
		"\"points\":5,\"lambda_per_s\":5000000.000,"
		"\"sigma\":0.250000,\"kappa\":0.000002,\"error\":0.125}}\n");
}

static void print__json_escapes_what_it_cannot_hold(void **state)
{
	struct fixture *f = *state;

	f->row.note = "a \"b\" \\ \n\x01 \xc3\xa9";
	assert_non_null(strstr(printed(f), "\"note\":\"a \\\"b\\\" \\\\ "
					   "\\u000a\\u0001 \xc3\xa9\"}\n"));
}

static void print__numbers_that_json_lacks_become_zero(void **state)
{
	struct fixture *f = *state;

	f->row.msgs_per_s = (double)INFINITY;
	f->row.cpu_ns_per_msg = (double)NAN;
	f->row.floor_ratio = -1;
	assert_non_null(strstr(printed(f), "\"msgs_per_s\":0.000,"
					   "\"cpu_ns_per_msg\":0.000,"
					   "\"floor_ratio\":0.000,"));
}

static void
print__text_has_one_heading_and_a_dash_for_what_did_not_run(void **state)
{
	struct fixture *f = *state;
	const char *text;

	f->sink.json = false;
	f->row.impl = "grpc-tcp";
	f->row.note = "not run: no gRPC";
	printed(f);
	text = printed(f);
	assert_non_null(strstr(text, "p50 us"));
	assert_null(strstr(strstr(text, "p50 us") + 1, "p50 us"));
	assert_non_null(strstr(text, " -  not run: no gRPC\n"));
}

static void print__full_disk_is_reported(void **state)
{
	struct fixture *f = *state;
	FILE *full = fopen("/dev/full", "we");

	if (!full)
		skip();
	fclose(f->sink.out);
	f->sink.out = full;
	assert_int_equal(petal_row_print(&f->sink, &f->row), -ENOSPC);
}

static void take__histogram_fills_the_five_fields(void **state)
{
	struct fixture *f = *state;
	struct petal_histogram *h = malloc(sizeof(*h));

	assert_non_null(h);
	petal_histogram_init(h);
	for (uint64_t i = 1; i <= 200; i++)
		petal_histogram_record(h, i);
	petal_row_take(&f->row, h);
	free(h);
	assert_int_equal(f->row.n, 200);
	assert_int_equal(f->row.p50_ns, 100);
	assert_int_equal(f->row.p99_ns, 198);
	assert_int_equal(f->row.p999_ns, 200);
	assert_int_equal(f->row.max_ns, 200);
}

static void machine__json_has_every_key_in_order(void **state)
{
	static const char *const keys[] = { "{\"machine\":{\"cpu\":\"",
					    "\",\"cpus\":",
					    ",\"kernel\":\"",
					    "\",\"hugepages\":",
					    ",\"date\":\"2",
					    "Z\",\"commit\":\"",
					    "\"}}\n" };
	struct fixture *f = *state;
	const char *at;

	assert_int_equal(petal_row_machine_print(&f->sink), 0);
	at = f->text;
	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		at = strstr(at, keys[i]);
		assert_non_null(at);
		at += strlen(keys[i]);
	}
	assert_int_equal(*at, '\0');
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(print__json_has_every_key_in_order),
		TEST(usl__json_has_every_key_in_order),
		TEST(print__json_escapes_what_it_cannot_hold),
		TEST(print__numbers_that_json_lacks_become_zero),
		TEST(print__text_has_one_heading_and_a_dash_for_what_did_not_run),
		TEST(print__full_disk_is_reported),
		TEST(take__histogram_fills_the_five_fields),
		TEST(machine__json_has_every_key_in_order),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
