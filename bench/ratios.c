/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/ratios.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/median.h"
#include "bench/options.h"

/* A floor leg this much slower than the fastest one counts as far. */
#define FAR 1.8

int petal_ratios_init(struct petal_ratios *ratios, unsigned rounds)
{
	*ratios = (struct petal_ratios){
		.ratio = calloc(rounds, sizeof(double)),
		.before_ns = calloc(rounds, sizeof(double)),
		.after_ns = calloc(rounds, sizeof(double)),
	};
	return ratios->ratio && ratios->before_ns && ratios->after_ns ? 0
								      : -ENOMEM;
}

void petal_ratios_fini(struct petal_ratios *ratios)
{
	free(ratios->ratio);
	free(ratios->before_ns);
	free(ratios->after_ns);
	*ratios = (struct petal_ratios){ 0 };
}

void petal_ratios_add(struct petal_ratios *ratios, double ours_ns,
		      double before_ns, double after_ns)
{
	ratios->before_ns[ratios->count] = before_ns;
	ratios->after_ns[ratios->count] = after_ns;
	ratios->ratio[ratios->count] = 2 * ours_ns / (before_ns + after_ns);
	ratios->count++;
}

static double fastest_floor_ns(const struct petal_ratios *ratios)
{
	double best_ns = 0;

	for (unsigned i = 0; i < ratios->count; i++) {
		double ns = ratios->before_ns[i] < ratios->after_ns[i]
				    ? ratios->before_ns[i]
				    : ratios->after_ns[i];

		if (i == 0 || ns < best_ns)
			best_ns = ns;
	}
	return best_ns;
}

/* Collects the ratios of the rounds whose both floors were near, or far. */
static unsigned pick_rounds(const struct petal_ratios *ratios, bool far,
			    double *picked)
{
	double limit_ns = FAR * fastest_floor_ns(ratios);
	unsigned count = 0;

	for (unsigned i = 0; i < ratios->count; i++)
		if ((ratios->before_ns[i] > limit_ns) == far &&
		    (ratios->after_ns[i] > limit_ns) == far)
			picked[count++] = ratios->ratio[i];
	return count;
}

/* Nothing to say unless the machine was in both modes. */
static int note_modes(const struct petal_ratios *ratios, char *note,
		      size_t size)
{
	double picked[PETAL_OPTIONS_ROUNDS_MAX];
	unsigned near_count = pick_rounds(ratios, false, picked);
	double near_ratio = petal_median(picked, near_count);
	unsigned far_count = pick_rounds(ratios, true, picked);
	double far_ratio = petal_median(picked, far_count);

	if (near_count == ratios->count)
		return 0;
	return snprintf(note, size,
			" (near %.1f in %u, far %.1f in %u, %u "
			"flipped)",
			near_ratio, near_count, far_ratio, far_count,
			ratios->count - near_count - far_count);
}

void petal_ratios_note(const struct petal_ratios *ratios, bool modes,
		       char *note, size_t size)
{
	double low = 0;
	double high = 0;
	int used;

	for (unsigned i = 0; i < ratios->count; i++) {
		if (i == 0 || ratios->ratio[i] < low)
			low = ratios->ratio[i];
		if (i == 0 || ratios->ratio[i] > high)
			high = ratios->ratio[i];
	}
	used = snprintf(note, size, "; ratio %.2f to %.2f in %u rounds", low,
			high, ratios->count);
	if (modes && used > 0 && (size_t)used < size)
		note_modes(ratios, note + used, size - (size_t)used);
}

double petal_ratios_median(struct petal_ratios *ratios)
{
	return petal_median(ratios->ratio, ratios->count);
}
