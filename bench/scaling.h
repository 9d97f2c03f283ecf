/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_SCALING_H
#define PETAL_BENCH_SCALING_H

#include "bench/row.h"
#include "bench/usl.h"

/**
 * DOC: scaling - the law behind the rows of one contender
 *
 * Rows that differ in the number of their parties alone are a curve. Behind all
 * rows, each curve of three numbers or more is a line of its own, as text or as
 *
 *    {"usl":{"bench":"fanin","case":"","impl":"petal-mpsc","peer":false,
 *     "bytes":64,"window":1,"wait":"spin","points":5,"lambda_per_s":0,
 *     "sigma":0,"kappa":0,"error":0}}
 *
 * N is the number of producers, or of consumers if there is one producer. The
 * rate of a broadcast counts N times: what is delivered, or would be to readers
 * that drop nothing.
 */

#define PETAL_SCALING_CURVES_MAX 32u

struct petal_scaling_curve {
	struct petal_row row; /* the first one; its strings are the caller's */
	struct petal_usl_point points[PETAL_USL_POINTS_MAX];
	unsigned count;
};

/** struct petal_scaling - all curves of a program; zeroed by the caller */
struct petal_scaling {
	struct petal_scaling_curve curves[PETAL_SCALING_CURVES_MAX];
	unsigned count;
};

/**
 * petal_scaling_add() - one more row
 * @row: of a floor or without samples: nothing happens. Its strings, but for
 *	 the note, live as long as @scaling
 * @every: each message went to every consumer
 */
void petal_scaling_add(struct petal_scaling *scaling,
		       const struct petal_row *row, bool every);

/**
 * petal_scaling_print() - print what there is to say
 *
 * Return: 0, or -errno if the stream did not take it.
 */
int petal_scaling_print(const struct petal_scaling *scaling,
			struct petal_row_sink *sink);

#endif
