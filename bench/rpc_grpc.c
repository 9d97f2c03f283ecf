/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rpc_grpc - the round trip of rpc.c as a gRPC unary call
 *
 * The question: what does the same exchange cost through gRPC, which is what
 * most people mean by RPC? rtt.c asks it too, beside others; `petal demo` runs
 * this one for its price list.
 */
#include "bench/peers_grpc.h"

int main(int argc, char **argv)
{
	struct petal_contender contenders[PETAL_PEERS_GRPC];
	size_t count = petal_peers_grpc(contenders);

	return petal_contest_main("rpc", contenders, count, argc, argv);
}
