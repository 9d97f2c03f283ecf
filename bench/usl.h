/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_USL_H
#define PETAL_BENCH_USL_H

/**
 * DOC: usl - how a rate grows with the number of parties
 *
 * The Universal Scalability Law (N. J. Gunther, Guerrilla Capacity Planning,
 * 2007) says of N parties
 *
 *                   lambda N
 *    X(N) = ----------------------------------
 *           1 + sigma (N - 1) + kappa N (N - 1)
 *
 * where sigma is what is done one after the other (contention) and kappa what
 * each party waits for each other one (coherency). A sigma of 1 is a rate that
 * does not grow at all. N / X(N) is linear in 1 / lambda, sigma / lambda and
 * kappa / lambda, so they follow from linear least squares, here of relative
 * errors, with none of them below 0.
 */

#define PETAL_USL_POINTS_MAX 16u

/**
 * struct petal_usl_point - what was measured
 * @parties: N, 1 or more
 * @rate: X, more than 0
 */
struct petal_usl_point {
	double parties;
	double rate;
};

/**
 * struct petal_usl - the law that fits best
 * @lambda: the rate of one party
 * @sigma: 0 or more
 * @kappa: 0 or more
 * @error: the largest relative distance of a measured N / X from the law's
 */
struct petal_usl {
	double lambda;
	double sigma;
	double kappa;
	double error;
};

/**
 * petal_usl_fit() - find the law
 * @count: 3 to PETAL_USL_POINTS_MAX points, of three different N at least
 *
 * Return: 0; -EDOM if there are too few points or too many, or a rate is 0.
 */
int petal_usl_fit(const struct petal_usl_point *points, unsigned count,
		  struct petal_usl *ret_usl);

#endif
