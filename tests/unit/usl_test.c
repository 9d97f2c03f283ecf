/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fit of the Universal Scalability Law: what was computed from a law gives
 * that law back, and what no law describes gives one without negative terms.
 *
 * There is no harder way to run it.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bench/usl.h"

#define COUNT 5u

static const double parties[COUNT] = { 1, 2, 4, 8, 16 };

static void follow(struct petal_usl_point points[COUNT], double lambda,
		   double sigma, double kappa)
{
	for (unsigned i = 0; i < COUNT; i++) {
		double n = parties[i];

		points[i].parties = n;
		points[i].rate = lambda * n /
				 (1 + sigma * (n - 1) + kappa * n * (n - 1));
	}
}

static bool is_near(double a, double b)
{
	return fabs(a - b) <= 1e-6 * (1 + fabs(b));
}

static void fit__of_a_law_is_that_law(void **state)
{
	static const double laws[][3] = {
		{ 5e6, 0.1, 0.01 },
		{ 2e8, 1, 0 },
		{ 3, 0, 0.5 },
		{ 7e3, 0, 0 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(laws) / sizeof(*laws); i++) {
		struct petal_usl_point points[COUNT];
		struct petal_usl usl;

		follow(points, laws[i][0], laws[i][1], laws[i][2]);
		assert_int_equal(petal_usl_fit(points, COUNT, &usl), 0);
		assert_true(is_near(usl.lambda, laws[i][0]));
		assert_true(is_near(usl.sigma, laws[i][1]));
		assert_true(is_near(usl.kappa, laws[i][2]));
		assert_true(usl.error < 1e-6);
	}
}

/* More than in proportion, then a collapse: sigma would be negative. */
static void fit__has_no_negative_terms(void **state)
{
	static const double rates[COUNT] = { 1, 4, 9, 3, 1 };
	struct petal_usl_point points[COUNT];
	struct petal_usl usl;

	(void)state;
	for (unsigned i = 0; i < COUNT; i++)
		points[i] =
			(struct petal_usl_point){ parties[i], 1e6 * rates[i] };
	assert_int_equal(petal_usl_fit(points, COUNT, &usl), 0);
	assert_true(usl.lambda > 0 && usl.sigma >= 0 && usl.kappa >= 0);
	assert_true(usl.error > 0.1);
}

static void fit__of_too_little_is_none(void **state)
{
	struct petal_usl_point points[COUNT];
	struct petal_usl usl;

	(void)state;
	follow(points, 1e6, 0.1, 0.01);
	assert_int_equal(petal_usl_fit(points, 2, &usl), -EDOM);
	points[2].parties = points[1].parties;
	assert_int_equal(petal_usl_fit(points, 3, &usl), -EDOM);
	points[4].rate = 0;
	assert_int_equal(petal_usl_fit(points, COUNT, &usl), -EDOM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fit__of_a_law_is_that_law),
		cmocka_unit_test(fit__has_no_negative_terms),
		cmocka_unit_test(fit__of_too_little_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
