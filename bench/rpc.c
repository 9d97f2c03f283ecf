/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rpc - a round trip through the kernel's own sockets
 *
 * The question: what does it cost to hand some bytes to another process on
 * this machine and get as many back, by AF_UNIX stream or by TCP over the
 * loopback? Both transports are a connected pair of stream sockets by the
 * time the server is forked, so all that differs is the socket.
 *
 * Sleeping rows block in recv(); spinning rows call it again and again with
 * MSG_DONTWAIT. TCP_NODELAY is on, or Nagle would be measured.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/contest.h"
#include "bench/payload.h"

/* Strangers who may knock at the loopback port before we do. */
enum { STRANGERS_MAX = 16 };

struct stream {
	int (*connect)(int ret_fds[2]);
	int fds[2]; /* the client's and the server's end */
	uint8_t *buffer;
	size_t bytes;
};

/* Transport. */

static int send_all(int fd, const uint8_t *bytes, size_t length,
		    const struct petal_pair *pair)
{
	while (length > 0) {
		int flags = petal_pair_spinning(pair) ? MSG_DONTWAIT : 0;
		ssize_t sent = send(fd, bytes, length, flags | MSG_NOSIGNAL);

		if (sent > 0) {
			bytes += sent;
			length -= (size_t)sent;
		} else if (errno != EAGAIN && errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

/* The mode is asked each time round, so that a spinning server can stop. */
static int receive_all(int fd, uint8_t *bytes, size_t length,
		       const struct petal_pair *pair)
{
	while (length > 0) {
		int flags = petal_pair_spinning(pair) ? MSG_DONTWAIT : 0;
		ssize_t got = recv(fd, bytes, length, flags);

		if (got == 0)
			return -ECONNRESET;
		if (got > 0) {
			bytes += got;
			length -= (size_t)got;
		} else if (errno != EAGAIN && errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

/* Both sides. */

static int serve(struct petal_pair *pair, void *arg)
{
	struct stream *stream = arg;
	int fd = stream->fds[1];
	int err = 0;

	/* Or the end of the client would not be the end of the stream. */
	close(stream->fds[0]);
	for (uint64_t sequence = 1; err == 0; sequence++) {
		err = receive_all(fd, stream->buffer, stream->bytes, pair);
		if (err == 0)
			err = petal_payload_check(stream->buffer, stream->bytes,
						  sequence);
		if (err < 0)
			break;
		petal_payload_fill(stream->buffer, stream->bytes,
				   PETAL_PAYLOAD_ANSWER(sequence));
		err = send_all(fd, stream->buffer, stream->bytes, pair);
	}
	return err;
}

static int trip(struct petal_contender *contender, uint64_t sequence)
{
	struct stream *stream = contender->arg;
	struct petal_pair *pair = &contender->pair;
	int err;

	petal_payload_fill(stream->buffer, stream->bytes, sequence);
	err = send_all(stream->fds[0], stream->buffer, stream->bytes, pair);
	if (err == 0)
		err = receive_all(stream->fds[0], stream->buffer, stream->bytes,
				  pair);
	if (err < 0)
		return err;
	return petal_payload_check(stream->buffer, stream->bytes,
				   PETAL_PAYLOAD_ANSWER(sequence));
}

/* Two connected sockets. */

static int connect_unix(int ret_fds[2])
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
		return -errno;
	memcpy(ret_fds, fds, sizeof(fds));
	return 0;
}

static int listen_tcp(struct sockaddr_in *ret_address)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int err;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&address, size) == 0 &&
	    listen(fd, STRANGERS_MAX) == 0 &&
	    getsockname(fd, (struct sockaddr *)&address, &size) == 0) {
		*ret_address = address;
		return fd;
	}
	err = -errno;
	close(fd);
	return err;
}

static int dial_tcp(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int err;

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) ==
	    0)
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* Anyone on this machine may connect; only our own end is let in. */
static int accept_tcp(int listener, int client)
{
	struct sockaddr_in ours;
	struct sockaddr_in theirs;

	for (int i = 0; i <= STRANGERS_MAX; i++) {
		socklen_t ours_size = sizeof(ours);
		socklen_t theirs_size = sizeof(theirs);
		int fd = accept4(listener, (struct sockaddr *)&theirs,
				 &theirs_size, SOCK_CLOEXEC);

		if (fd < 0)
			return -errno;
		if (getsockname(client, (struct sockaddr *)&ours, &ours_size) ==
			    0 &&
		    ours.sin_port == theirs.sin_port)
			return fd;
		close(fd);
	}
	return -ECONNREFUSED;
}

static int no_delay(int fd)
{
	int one = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0)
		return -errno;
	return 0;
}

static int connect_tcp(int ret_fds[2])
{
	struct sockaddr_in address = { 0 };
	int listener = listen_tcp(&address);
	int client;
	int server;
	int err = 0;

	if (listener < 0)
		return listener;
	client = dial_tcp(&address);
	server = client < 0 ? client : accept_tcp(listener, client);
	close(listener);
	if (server >= 0)
		err = no_delay(client) < 0 ? no_delay(client)
					   : no_delay(server);
	if (server >= 0 && err == 0) {
		ret_fds[0] = client;
		ret_fds[1] = server;
		return 0;
	}
	if (client >= 0)
		close(client);
	if (server >= 0)
		close(server);
	return server < 0 ? server : err;
}

/* What the contest calls. */

static int open_stream(struct petal_contender *contender,
		       const struct petal_contest *contest)
{
	struct stream *stream = contender->arg;
	int err;

	stream->bytes = contest->bytes;
	stream->buffer = malloc(stream->bytes);
	if (!stream->buffer)
		return -ENOMEM;
	err = stream->connect(stream->fds);
	if (err < 0)
		return err;
	err = petal_pair_open(&contender->pair, contest->cpus[1], serve,
			      stream);
	/* The server holds the only other end: its death is our EOF. */
	close(stream->fds[1]);
	stream->fds[1] = -1;
	return err;
}

static void close_stream(struct petal_contender *contender)
{
	struct stream *stream = contender->arg;

	if (stream->fds[0] >= 0)
		close(stream->fds[0]);
	stream->fds[0] = -1;
	free(stream->buffer);
	stream->buffer = NULL;
}

int main(int argc, char **argv)
{
	struct stream streams[] = {
		{ .connect = connect_unix, .fds = { -1, -1 } },
		{ .connect = connect_tcp, .fds = { -1, -1 } },
	};
	struct petal_contender contenders[] = {
		{
			.impl = "af_unix",
			.remark = "stream socket pair",
			.peer = true,
			.open = open_stream,
			.trip = trip,
			.close = close_stream,
			.arg = &streams[0],
		},
		{
			.impl = "tcp",
			.remark = "127.0.0.1, TCP_NODELAY",
			.peer = true,
			.open = open_stream,
			.trip = trip,
			.close = close_stream,
			.arg = &streams[1],
		},
	};

	return petal_contest_main("rpc", contenders, 2, argc, argv);
}
