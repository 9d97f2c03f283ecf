/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rpc - a round trip through the kernel's own sockets
 *
 * The question: what does it cost to hand some bytes to another process on
 * this machine and get as many back, by AF_UNIX stream or by TCP over the
 * loopback? Both are a connected pair of stream sockets by the time the server
 * is forked, so all that differs is the socket. rtt.c asks the same of many
 * more; `petal demo` runs this one for its price list.
 */
#include "bench/duplex.h"

int main(int argc, char **argv)
{
	struct petal_contender contenders[] = {
		petal_duplex_contender(&petal_duplex_unix),
		petal_duplex_contender(&petal_duplex_tcp),
	};

	return petal_contest_main("rpc", contenders, 2, argc, argv);
}
