/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_SIM_HEIRS_H
#define PETAL_TESTS_SIM_HEIRS_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/backup.h"
#include "fabric/failover.h"
#include "fabric/primary.h"

/**
 * DOC: heirs - one ring, three members that lose and follow each other
 *
 *    registry: one value, by compare-and-swap; members hear of it later
 *        |
 *    member 0 ---- links, cut and mended one by one, each way at once ----.
 *    member 1 ---- messages in order, one-sided writes in any order -------+
 *    member 2 ---- a promise on disk, memory that a crash takes -----------'
 *
 * Real: primary, backup, recovery, failover, sessions, logs. Fake: what lies
 * behind their ports, and the few lines by which petald puts them together.
 *
 * A member that is stopped does nothing, and what is written to its memory lands
 * all the same; it goes on as if nothing had been, as a primary too. One that
 * crashes comes back with another incarnation and without its memory; its
 * promise stays. Everything that may happen next is drawn by the seed.
 *
 * What must be true is checked as it happens; see heirs.c for the names.
 *
 * In the end all is mended, and then each record that a producer wanted to put
 * is in the ring once, and each message was acknowledged once.
 */

#define HEIRS_MEMBERS PETAL_LOG_MEMBERS

struct heirs_counts {
	uint64_t epochs;   /* that were opened */
	uint64_t yields;   /* candidates that let a better log go first */
	uint64_t crashes;  /* of members, with their memory */
	uint64_t deposed;  /* primaries that lived on */
	uint64_t resent;   /* records that were not in the ring */
	uint64_t resolved; /* records that were */
	uint64_t records;
};

/**
 * heirs_run() - one history
 * @ret_counts: added to
 */
void heirs_run(uint64_t seed, unsigned steps, struct heirs_counts *ret_counts);

#endif
