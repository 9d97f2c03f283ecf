/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_PEERS_CAPNP_H
#define PETAL_BENCH_PEERS_CAPNP_H

#include <stddef.h>

#include "bench/contest.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * petal_peers_capnp() - a call of Cap'n Proto RPC over a unix socket
 * @ret_contender: one
 */
void petal_peers_capnp(struct petal_contender *ret_contender);

#ifdef __cplusplus
}
#endif

#endif
