/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_OUTCOME_H
#define PETAL_RINGS_OUTCOME_H

/**
 * DOC: outcome - what looking into a ring may find
 *
 * A peek of any ring returns 0 with what it found, one of these, or a negative
 * error. One that may not be able to claim says -EAGAIN for full, -EPIPE for
 * closed and -ESTALE for fenced.
 */
enum petal_ring_outcome {
	PETAL_RING_FOUND = 0,
	PETAL_RING_EMPTY = 1,   /* nothing is there yet */
	PETAL_RING_PENDING = 2, /* claimed by somebody, and not published */
	PETAL_RING_CLOSED = 3,  /* empty, and nothing will come any more */
	PETAL_RING_LAPPED = 4,  /* overwritten: the reader was too slow */
};

#endif
