/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/peers.h"

#include <errno.h>

#include "bench/duplex.h"
#include "bench/peers_capnp.h"
#include "bench/peers_grpc.h"

/* NULL where the build has left its file out. */
extern struct petal_duplex petal_duplex_iceoryx __attribute__((weak));
extern struct petal_duplex petal_duplex_nanomsg __attribute__((weak));
extern struct petal_duplex petal_duplex_nng __attribute__((weak));
extern struct petal_duplex petal_duplex_ofi __attribute__((weak));
extern struct petal_duplex petal_duplex_ucx __attribute__((weak));
extern struct petal_duplex petal_duplex_zmq __attribute__((weak));

/* The same functions, which may be missing here. */
extern __typeof__(petal_peers_capnp) petal_peers_capnp __attribute__((weak));
extern __typeof__(petal_peers_grpc) petal_peers_grpc __attribute__((weak));

struct peer {
	struct petal_duplex *duplex;
	const char *impl;
	const char *package;
};

static int open_absent(struct petal_contender *contender,
		       const struct petal_contest *contest)
{
	(void)contender;
	(void)contest;
	return -ENOPKG;
}

/* It cannot be opened, and its row says what to install. */
static struct petal_contender absent(const struct peer *peer)
{
	return (struct petal_contender){
		.impl = peer->impl,
		.remark = peer->package,
		.peer = true,
		.open = open_absent,
	};
}

static size_t grpc_peers(struct petal_contender *contenders)
{
	static const struct peer missing = { NULL, "grpc", "libgrpc++-dev" };

	if (petal_peers_grpc)
		return petal_peers_grpc(contenders);
	contenders[0] = absent(&missing);
	return 1;
}

static size_t capnp_peers(struct petal_contender *contenders)
{
	static const struct peer missing = { NULL, "capnp-unix",
					     "libcapnp-dev" };

	contenders[0] = absent(&missing);
	if (petal_peers_capnp)
		petal_peers_capnp(contenders);
	return 1;
}

size_t petal_peers(struct petal_contender *contenders)
{
	const struct peer peers[] = {
		{ &petal_duplex_unix, "af_unix", "" },
		{ &petal_duplex_tcp, "tcp", "" },
		{ &petal_duplex_pipe, "pipe", "" },
		{ &petal_duplex_mq, "posix-mq", "" },
		{ &petal_duplex_zmq, "zeromq", "libzmq3-dev" },
		{ &petal_duplex_nng, "nng", "libnng-dev" },
		{ &petal_duplex_nanomsg, "nanomsg", "libnanomsg-dev" },
		{ &petal_duplex_iceoryx, "iceoryx", "libiceoryx-posh-dev" },
		{ &petal_duplex_ucx, "ucx-shm", "libucx-dev" },
		{ &petal_duplex_ofi, "libfabric-shm", "libfabric-dev" },
	};
	size_t count = sizeof(peers) / sizeof(*peers);

	for (size_t i = 0; i < count; i++)
		contenders[i] =
			peers[i].duplex
				? petal_duplex_contender(peers[i].duplex)
				: absent(&peers[i]);
	count += grpc_peers(contenders + count);
	return count + capnp_peers(contenders + count);
}
