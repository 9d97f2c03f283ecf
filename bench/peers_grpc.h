/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_PEERS_GRPC_H
#define PETAL_BENCH_PEERS_GRPC_H

#include <stddef.h>

#include "bench/contest.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PETAL_PEERS_GRPC 2u

/**
 * petal_peers_grpc() - a gRPC unary call, over TCP and over a unix socket
 * @contenders: room for PETAL_PEERS_GRPC
 *
 * Return: how many.
 */
size_t petal_peers_grpc(struct petal_contender *contenders);

#ifdef __cplusplus
}
#endif

#endif
