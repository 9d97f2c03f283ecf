/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_PEERS_H
#define PETAL_BENCH_PEERS_H

#include <stddef.h>

#include "bench/contest.h"

/**
 * DOC: peers - everything that a user could take instead, and that is here
 *
 * The transports of other people, from Debian's packages, as contenders. One
 * whose library was not there when this was built is a row that names the
 * package; `./dev bench --peers` installs them all.
 */

#define PETAL_PEERS_MAX 16u

/**
 * petal_peers() - list them
 * @contenders: room for PETAL_PEERS_MAX
 *
 * Return: how many.
 */
size_t petal_peers(struct petal_contender *contenders);

#endif
