/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The happy path: all three terms are fitted. If one of them comes out negative,
 * which no law has, the best fit lies where some of them are 0: sigma, kappa or
 * both are left out, and the best of what is left is taken.
 */
#include "bench/usl.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>

#define TERMS 3u

/* The terms of N / X: what 1 / lambda, sigma / lambda, kappa / lambda weigh. */
static void terms_of(double parties, double terms[TERMS])
{
	terms[0] = 1;
	terms[1] = parties - 1;
	terms[2] = parties * (parties - 1);
}

/* A pivot this much smaller than the largest one is none. */
#define PIVOT_MIN 1e-12

static void swap(double *a, double *b)
{
	double kept = *a;

	*a = *b;
	*b = kept;
}

/* Gauss, with the largest pivot; false if the points say too little. */
static bool solve(double matrix[TERMS][TERMS], double values[TERMS],
		  double ret_solution[TERMS])
{
	for (unsigned i = 0; i < TERMS; i++) {
		unsigned best = i;

		for (unsigned j = i + 1; j < TERMS; j++)
			if (fabs(matrix[j][i]) > fabs(matrix[best][i]))
				best = j;
		if (fabs(matrix[best][i]) < PIVOT_MIN)
			return false;
		for (unsigned k = 0; k < TERMS; k++)
			swap(&matrix[i][k], &matrix[best][k]);
		swap(&values[i], &values[best]);
		for (unsigned j = i + 1; j < TERMS; j++) {
			double factor = matrix[j][i] / matrix[i][i];

			for (unsigned k = i; k < TERMS; k++)
				matrix[j][k] -= factor * matrix[i][k];
			values[j] -= factor * values[i];
		}
	}
	for (unsigned i = TERMS; i-- > 0;) {
		double sum = values[i];

		for (unsigned k = i + 1; k < TERMS; k++)
			sum -= matrix[i][k] * ret_solution[k];
		ret_solution[i] = sum / matrix[i][i];
	}
	return true;
}

/* A fit with some terms left out (a bit each), which are 0. */
struct fit {
	double weights[TERMS];
	double squares; /* of the relative errors */
	double error;   /* the largest of them */
};

static void judge(const struct petal_usl_point *points, unsigned count,
		  struct fit *fit)
{
	fit->squares = 0;
	fit->error = 0;
	for (unsigned i = 0; i < count; i++) {
		double terms[TERMS], sum = 0, error;

		terms_of(points[i].parties, terms);
		for (unsigned j = 0; j < TERMS; j++)
			sum += fit->weights[j] * terms[j];
		error = fabs(sum * points[i].rate / points[i].parties - 1);
		fit->squares += error * error;
		fit->error = error > fit->error ? error : fit->error;
	}
}

static bool fit_terms(const struct petal_usl_point *points, unsigned count,
		      unsigned left_out, struct fit *ret_fit)
{
	double matrix[TERMS][TERMS] = { 0 };
	double values[TERMS] = { 0 };

	for (unsigned i = 0; i < count; i++) {
		double scale = points[i].rate / points[i].parties;
		double terms[TERMS];

		terms_of(points[i].parties, terms);
		for (unsigned j = 0; j < TERMS; j++) {
			terms[j] *= left_out >> j & 1 ? 0 : scale;
			values[j] += terms[j];
		}
		for (unsigned j = 0; j < TERMS; j++)
			for (unsigned k = 0; k < TERMS; k++)
				matrix[j][k] += terms[j] * terms[k];
	}
	for (unsigned j = 0; j < TERMS; j++)
		if (left_out >> j & 1)
			matrix[j][j] = 1;
	if (!solve(matrix, values, ret_fit->weights))
		return false;
	for (unsigned j = 0; j < TERMS; j++)
		if (ret_fit->weights[j] < 0)
			return false;
	judge(points, count, ret_fit);
	return ret_fit->weights[0] > 0;
}

static bool are_enough(const struct petal_usl_point *points, unsigned count)
{
	unsigned different = 0;

	if (count > PETAL_USL_POINTS_MAX)
		return false;
	for (unsigned i = 0; i < count; i++) {
		bool seen = false;

		if (!(points[i].parties >= 1 && points[i].rate > 0))
			return false;
		for (unsigned j = 0; j < i; j++)
			seen |= points[j].parties == points[i].parties;
		different += !seen;
	}
	return different >= TERMS;
}

int petal_usl_fit(const struct petal_usl_point *points, unsigned count,
		  struct petal_usl *ret_usl)
{
	/* Of none, of sigma, of kappa, of both. */
	static const unsigned left_out[] = { 0, 2, 4, 6 };
	struct petal_usl_point scaled[PETAL_USL_POINTS_MAX];
	struct fit best = { .squares = DBL_MAX };
	struct fit fit;

	if (!are_enough(points, count))
		return -EDOM;
	/* Rates near 1 keep the pivots near 1. */
	for (unsigned i = 0; i < count; i++) {
		scaled[i] = points[i];
		scaled[i].rate /= points[0].rate;
	}
	for (unsigned i = 0; i < sizeof(left_out) / sizeof(*left_out); i++)
		if (fit_terms(scaled, count, left_out[i], &fit) &&
		    fit.squares < best.squares)
			best = fit;
	if (best.squares == DBL_MAX)
		return -EDOM;
	*ret_usl = (struct petal_usl){
		.lambda = points[0].rate / best.weights[0],
		.sigma = best.weights[1] / best.weights[0],
		.kappa = best.weights[2] / best.weights[0],
		.error = best.error,
	};
	return 0;
}
