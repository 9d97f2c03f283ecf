/* SPDX-License-Identifier: Apache-2.0 */
/* ZeroMQ: a PAIR socket each, over ipc in the abstract namespace. */
#include <errno.h>
#include <stdio.h>
#include <zmq.h>

#include "bench/duplex.h"

enum { CONTEXT, SOCKET };

static char version[32];

static int prepare(struct petal_duplex *duplex)
{
	int major, minor, patch;

	zmq_version(&major, &minor, &patch);
	snprintf(version, sizeof(version), "ZeroMQ %d.%d.%d", major, minor,
		 patch);
	duplex->version = version;
	return 0;
}

static int begin(struct petal_duplex *duplex, bool server)
{
	char address[160];
	void *context = zmq_ctx_new();
	void *socket = context ? zmq_socket(context, ZMQ_PAIR) : NULL;

	if (!socket)
		return -errno;
	duplex->state[CONTEXT] = context;
	duplex->state[SOCKET] = socket;
	snprintf(address, sizeof(address), "ipc://@%s", duplex->address);
	if (server ? zmq_bind(socket, address) : zmq_connect(socket, address))
		return -errno;
	return 0;
}

static int send_one(struct petal_duplex *duplex, const void *bytes,
		    size_t length, bool spin)
{
	(void)spin;
	return zmq_send(duplex->state[SOCKET], bytes, length, 0) < 0 ? -errno
								     : 0;
}

static int receive_one(struct petal_duplex *duplex, void *bytes, size_t length,
		       bool spin)
{
	int got = zmq_recv(duplex->state[SOCKET], bytes, length,
			   spin ? ZMQ_DONTWAIT : 0);

	if (got < 0)
		return -errno;
	return (size_t)got == length ? 0 : -EMSGSIZE;
}

static void end(struct petal_duplex *duplex)
{
	int no_linger = 0;

	if (duplex->state[SOCKET]) {
		zmq_setsockopt(duplex->state[SOCKET], ZMQ_LINGER, &no_linger,
			       sizeof(no_linger));
		zmq_close(duplex->state[SOCKET]);
	}
	if (duplex->state[CONTEXT])
		zmq_ctx_term(duplex->state[CONTEXT]);
	duplex->state[SOCKET] = duplex->state[CONTEXT] = NULL;
}

struct petal_duplex petal_duplex_zmq = {
	.impl = "zeromq",
	.remark = "PAIR over ipc; has a thread of its own",
	.prepare = prepare,
	.begin = begin,
	.send = send_one,
	.receive = receive_one,
	.end = end,
};
