/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_DUPLEX_SPSC_H
#define PETAL_BENCH_DUPLEX_SPSC_H

#include "bench/duplex.h"

/**
 * DOC: duplex_spsc - two of our rings, measured as others are
 *
 * A ring each way, with a doorbell each, behind the calls that all transports
 * have here: a message is copied into the ring and out of it. What a caller
 * saves who fills and reads in place is in the other rows of rtt.
 */
extern struct petal_duplex petal_duplex_spsc;

#endif
