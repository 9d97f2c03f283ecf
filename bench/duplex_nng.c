/* SPDX-License-Identifier: Apache-2.0 */
/* nng: pair version 0, over ipc in the abstract namespace. */
#include <errno.h>
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <stdio.h>

#include "bench/duplex.h"

static char version[32];
static nng_socket socket_id;

static int error_of(int err)
{
	switch (err) {
	case 0:
		return 0;
	case NNG_EAGAIN:
		return -EAGAIN;
	case NNG_ENOMEM:
		return -ENOMEM;
	case NNG_EMSGSIZE:
		return -EMSGSIZE;
	default:
		return -EIO;
	}
}

static int prepare(struct petal_duplex *duplex)
{
	snprintf(version, sizeof(version), "nng %s", nng_version());
	duplex->version = version;
	return 0;
}

static int begin(struct petal_duplex *duplex, bool server)
{
	char address[160];
	int err = nng_pair0_open(&socket_id);

	if (err)
		return error_of(err);
	snprintf(address, sizeof(address), "abstract://%s", duplex->address);
	nng_socket_set_size(socket_id, NNG_OPT_RECVMAXSZ, 0);
	duplex->state[0] = &socket_id;
	return error_of(server ? nng_listen(socket_id, address, NULL, 0)
			       : nng_dial(socket_id, address, NULL, 0));
}

static int send_one(struct petal_duplex *duplex, const void *bytes,
		    size_t length, bool spin)
{
	(void)duplex;
	(void)spin;
	return error_of(
		nng_send(socket_id, (void *)(uintptr_t)bytes, length, 0));
}

static int receive_one(struct petal_duplex *duplex, void *bytes, size_t length,
		       bool spin)
{
	size_t got = length;
	int err;

	(void)duplex;
	err = nng_recv(socket_id, bytes, &got, spin ? NNG_FLAG_NONBLOCK : 0);
	if (err)
		return error_of(err);
	return got == length ? 0 : -EMSGSIZE;
}

static void end(struct petal_duplex *duplex)
{
	if (duplex->state[0])
		nng_close(socket_id);
	duplex->state[0] = NULL;
}

struct petal_duplex petal_duplex_nng = {
	.impl = "nng",
	.remark = "pair0 over ipc; has threads of its own",
	.prepare = prepare,
	.begin = begin,
	.send = send_one,
	.receive = receive_one,
	.end = end,
};
