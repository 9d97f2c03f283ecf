/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_MPSC_PRIVATE_H
#define PETAL_RINGS_MPSC_PRIVATE_H

#include "rings/mpsc.h"

/* What the two sources of the ring share: the extents in quarantine. */

struct petal_mpsc_extent {
	uint64_t offset; /* in the data */
	uint64_t bytes;
};

/* All extents in quarantine, inside of the data whatever the table says. */
unsigned
petal_mpsc_fenced(const struct petal_mpsc *ring,
		  struct petal_mpsc_extent extents[PETAL_MPSC_FENCES_MAX]);

/* The bytes of the extent in quarantine that begins at a position; 0: none. */
uint64_t petal_mpsc_fenced_at(const struct petal_mpsc *ring, uint64_t pos);

/* Let go of those between two positions that are not written any more. */
void petal_mpsc_unfence(struct petal_mpsc *ring, uint64_t from_pos,
			uint64_t to_pos);

#endif
