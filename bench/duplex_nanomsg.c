/* SPDX-License-Identifier: Apache-2.0 */
/* nanomsg: a PAIR socket each, over ipc with a file that is unlinked. */
#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/duplex.h"

static char directory[] = "/tmp/petal-bench-XXXXXX";

static int prepare(struct petal_duplex *duplex)
{
	if (!mkdtemp(directory))
		return -errno;
	snprintf(duplex->address, sizeof(duplex->address), "%s/s", directory);
	duplex->fds[0] = -1;
	return 0;
}

static int begin(struct petal_duplex *duplex, bool server)
{
	char address[160];
	int all = -1;
	int fd = nn_socket(AF_SP, NN_PAIR);

	if (fd < 0)
		return -errno;
	duplex->fds[0] = fd;
	nn_setsockopt(fd, NN_SOL_SOCKET, NN_RCVMAXSIZE, &all, sizeof(all));
	snprintf(address, sizeof(address), "ipc://%s", duplex->address);
	if ((server ? nn_bind(fd, address) : nn_connect(fd, address)) < 0)
		return -errno;
	return 0;
}

static int send_one(struct petal_duplex *duplex, const void *bytes,
		    size_t length, bool spin)
{
	(void)spin;
	return nn_send(duplex->fds[0], bytes, length, 0) < 0 ? -errno : 0;
}

static int receive_one(struct petal_duplex *duplex, void *bytes, size_t length,
		       bool spin)
{
	int got =
		nn_recv(duplex->fds[0], bytes, length, spin ? NN_DONTWAIT : 0);

	if (got < 0)
		return -errno;
	return (size_t)got == length ? 0 : -EMSGSIZE;
}

static void end(struct petal_duplex *duplex)
{
	if (duplex->fds[0] >= 0)
		nn_close(duplex->fds[0]);
	duplex->fds[0] = -1;
	unlink(duplex->address);
	rmdir(directory);
}

struct petal_duplex petal_duplex_nanomsg = {
	.impl = "nanomsg",
	.version = "nanomsg 1",
	.remark = "PAIR over ipc; has a thread of its own",
	.prepare = prepare,
	.begin = begin,
	.send = send_one,
	.receive = receive_one,
	.end = end,
};
