/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_RATIOS_H
#define PETAL_BENCH_RATIOS_H

#include <stdbool.h>
#include <stddef.h>

/**
 * DOC: ratios - a contender beside the floor, round by round
 *
 * In each round the floor is measured before and after it. A floor 1.8 times
 * slower than the fastest one counts as far: the two CPUs share no near cache
 * at that moment, or their host is busy.
 */

struct petal_ratios {
	double *ratio;
	double *before_ns;
	double *after_ns;
	unsigned count;
};

/**
 * petal_ratios_init() - room for so many rounds
 * @rounds: 1 to PETAL_OPTIONS_ROUNDS_MAX
 *
 * Return: 0 or -ENOMEM; petal_ratios_fini() in both cases.
 */
int petal_ratios_init(struct petal_ratios *ratios, unsigned rounds);

/** petal_ratios_fini() - give the room back; may be called on zeros */
void petal_ratios_fini(struct petal_ratios *ratios);

/**
 * petal_ratios_add() - one round more, of which there is room for
 * @ours_ns: what the contender needed
 * @before_ns: what the floor needed before it
 * @after_ns: and after it
 */
void petal_ratios_add(struct petal_ratios *ratios, double ours_ns,
		      double before_ns, double after_ns);

/**
 * petal_ratios_note() - say in words how far they spread
 * @modes: also near and far rounds apart, if there were both
 * @note: ends in a zero
 */
void petal_ratios_note(const struct petal_ratios *ratios, bool modes,
		       char *note, size_t size);

/**
 * petal_ratios_median() - their median; 0 if there was no round
 *
 * Sorts the ratios, so it is asked last.
 */
double petal_ratios_median(struct petal_ratios *ratios);

#endif
