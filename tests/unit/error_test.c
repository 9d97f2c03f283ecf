/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/error.h: every code has words and a name, in either sign, and its
 * number stays what it has always been. There is nothing to run harder.
 */
#include "tests/check.h"

#include <limits.h>

#include "shm/error.h"

static const struct {
	int code;
	int number;
	const char *name;
} codes[] = {
	{ PETAL_ECORRUPT, 5000, "PETAL_ECORRUPT" },
	{ PETAL_EVERSION, 5001, "PETAL_EVERSION" },
	{ PETAL_EGEOMETRY, 5002, "PETAL_EGEOMETRY" },
	{ PETAL_EUNKNOWN, 5003, "PETAL_EUNKNOWN" },
	{ PETAL_EFENCED, 5004, "PETAL_EFENCED" },
	{ PETAL_EDATALOSS, 5005, "PETAL_EDATALOSS" },
	{ PETAL_ENOQUORUM, 5006, "PETAL_ENOQUORUM" },
	{ PETAL_ENOTLEADER, 5007, "PETAL_ENOTLEADER" },
	{ PETAL_ECONFLICT, 5008, "PETAL_ECONFLICT" },
	{ PETAL_ENOTPRIMARY, 5009, "PETAL_ENOTPRIMARY" },
	{ PETAL_EAUTH, 5010, "PETAL_EAUTH" },
	{ PETAL_EDISK, 5011, "PETAL_EDISK" },
	{ PETAL_EHUGEPAGES, 5012, "PETAL_EHUGEPAGES" },
};

#define CODES (sizeof(codes) / sizeof(codes[0]))

static void code__keeps_its_number_for_ever(void **state)
{
	(void)state;
	for (size_t i = 0; i < CODES; i++)
		assert_int_equal(codes[i].code, codes[i].number);
}

static void strerror__has_words_of_its_own_for_every_code(void **state)
{
	(void)state;
	for (size_t i = 0; i < CODES; i++) {
		const char *text = petal_strerror(codes[i].code);

		assert_string_not_equal(text, "Unknown error");
		assert_int_not_equal(text[strlen(text) - 1], '.');
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(text,
						petal_strerror(codes[j].code));
	}
}

static void strerror__takes_either_sign(void **state)
{
	(void)state;
	for (size_t i = 0; i < CODES; i++)
		assert_ptr_equal(petal_strerror(-codes[i].code),
				 petal_strerror(codes[i].code));
	assert_string_equal(petal_strerror(-ENOSPC), petal_strerror(ENOSPC));
}

static void strerror__speaks_for_the_kernel_too(void **state)
{
	(void)state;
	assert_string_equal(petal_strerror(-ENOSPC), strerrordesc_np(ENOSPC));
	assert_string_equal(petal_strerror(0), "Success");
}

static void strerror__of_a_number_nobody_named_is_still_a_string(void **state)
{
	static const int strange[] = {
		INT_MIN, INT_MAX, -4999, -5013, PETAL_EHUGEPAGES + 1, 4095
	};

	(void)state;
	for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
		assert_string_equal(petal_strerror(strange[i]),
				    "Unknown error");
		assert_string_equal(petal_error_name(strange[i]), "UNKNOWN");
	}
}

static void error_name__is_the_constants_own(void **state)
{
	(void)state;
	for (size_t i = 0; i < CODES; i++) {
		assert_string_equal(petal_error_name(-codes[i].code),
				    codes[i].name);
		assert_string_equal(petal_error_name(codes[i].code),
				    codes[i].name);
	}
	assert_string_equal(petal_error_name(-EAGAIN), "EAGAIN");
	assert_string_equal(petal_error_name(0), "OK");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(code__keeps_its_number_for_ever),
		cmocka_unit_test(strerror__has_words_of_its_own_for_every_code),
		cmocka_unit_test(strerror__takes_either_sign),
		cmocka_unit_test(strerror__speaks_for_the_kernel_too),
		cmocka_unit_test(
			strerror__of_a_number_nobody_named_is_still_a_string),
		cmocka_unit_test(error_name__is_the_constants_own),
	};

	return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
