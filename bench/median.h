/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_MEDIAN_H
#define PETAL_BENCH_MEDIAN_H

/**
 * DOC: median - what the rounds of a bench say together
 */

/**
 * petal_median() - the middle of some values
 * @values: sorted on return
 * @count: how many
 *
 * Return: the middle one, or the mean of the two in the middle; 0 if there are
 * none.
 */
double petal_median(double *values, unsigned count);

#endif
