/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/scaling.h"

#include <string.h>

static bool is_same(const struct petal_row *a, const struct petal_row *b)
{
	return a->bytes == b->bytes && a->window == b->window &&
	       strcmp(a->impl, b->impl) == 0 &&
	       strcmp(a->question, b->question) == 0 &&
	       strcmp(a->wait, b->wait) == 0;
}

/* NULL if there is room neither for it nor for its point. */
static struct petal_scaling_curve *curve_of(struct petal_scaling *scaling,
					    const struct petal_row *row)
{
	struct petal_scaling_curve *curve = scaling->curves;

	while (curve < scaling->curves + scaling->count &&
	       !is_same(&curve->row, row))
		curve++;
	if (curve == scaling->curves + PETAL_SCALING_CURVES_MAX ||
	    curve->count == PETAL_USL_POINTS_MAX)
		return NULL;
	if (curve == scaling->curves + scaling->count) {
		curve->row = *row;
		scaling->count++;
	}
	return curve;
}

void petal_scaling_add(struct petal_scaling *scaling,
		       const struct petal_row *row, bool every)
{
	unsigned parties = row->producers > 1 ? row->producers : row->consumers;
	struct petal_scaling_curve *curve;

	if (row->floor || row->n == 0)
		return;
	curve = curve_of(scaling, row);
	if (curve)
		curve->points[curve->count++] = (struct petal_usl_point){
			.parties = parties,
			.rate = every ? row->msgs_per_s * parties
				      : row->msgs_per_s,
		};
}

int petal_scaling_print(const struct petal_scaling *scaling,
			struct petal_row_sink *sink)
{
	int err = 0;

	for (unsigned i = 0; i < scaling->count && err == 0; i++) {
		const struct petal_scaling_curve *curve = &scaling->curves[i];
		struct petal_usl usl;

		if (petal_usl_fit(curve->points, curve->count, &usl) == 0)
			err = petal_row_usl_print(sink, &curve->row,
						  curve->count, &usl);
	}
	return err;
}
