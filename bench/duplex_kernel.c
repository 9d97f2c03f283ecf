/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel itself offers two processes: pipes, message queues, and
 * sockets. All four are in place before the fork, so there is nothing to begin.
 * fds: the client's way out, its way in, the server's way in, its way out.
 */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/duplex.h"

enum { OUT, IN, SERVER_IN, SERVER_OUT };

/* Strangers who may knock at the loopback port before we do. */
#define STRANGERS_MAX 16
/* What an unprivileged queue may hold. */
#define MQ_BYTES_MAX 8192

static int out_of(const struct petal_duplex *duplex)
{
	return duplex->fds[duplex->server ? SERVER_OUT : OUT];
}

static int in_of(const struct petal_duplex *duplex)
{
	return duplex->fds[duplex->server ? SERVER_IN : IN];
}

static void close_fds(struct petal_duplex *duplex)
{
	for (unsigned i = 0; i < 4; i++) {
		bool twice = false;

		for (unsigned j = 0; j < i; j++)
			twice |= duplex->fds[j] == duplex->fds[i];
		if (!twice && duplex->fds[i] > 0)
			close(duplex->fds[i]);
	}
	memset(duplex->fds, 0, sizeof(duplex->fds));
}

/* The server's ends live in the server only: its death must be our EOF. */
static int side_begin(struct petal_duplex *duplex, bool server)
{
	unsigned theirs = server ? OUT : SERVER_IN;

	for (unsigned i = 0; i < 2; i++) {
		int fd = duplex->fds[theirs + i];

		if (i == 0 || fd != duplex->fds[theirs])
			close(fd);
	}
	duplex->fds[theirs] = duplex->fds[theirs + 1] = 0;
	return 0;
}

/* ---- bytes: pipes and stream sockets ---- */

static int write_all(struct petal_duplex *duplex, const void *bytes,
		     size_t length, bool spin)
{
	const unsigned char *at = bytes;
	int fd = out_of(duplex);

	(void)spin;
	while (length > 0) {
		ssize_t sent = write(fd, at, length);

		if (sent < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (sent > 0) {
			at += sent;
			length -= (size_t)sent;
		}
	}
	return 0;
}

/* O_NONBLOCK is changed only where the way to wait changes: between legs. */
static int fd_spins(struct petal_duplex *duplex, int fd, bool spin)
{
	uintptr_t now = spin ? 2 : 1;

	if ((uintptr_t)duplex->state[0] == now)
		return 0;
	duplex->state[0] = (void *)now;
	return fcntl(fd, F_SETFL, spin ? O_NONBLOCK : 0) ? -errno : 0;
}

static int read_all(struct petal_duplex *duplex, void *bytes, size_t length,
		    bool spin)
{
	unsigned char *at = bytes;
	int fd = in_of(duplex);
	size_t left = length;
	int err = fd_spins(duplex, fd, spin);

	while (!err && left > 0) {
		ssize_t got = read(fd, at, left);

		if (got == 0)
			return -ECONNRESET;
		if (got > 0) {
			at += got;
			left -= (size_t)got;
		} else if (errno != EAGAIN && errno != EINTR) {
			return -errno;
		} else if (left == length) {
			return -EAGAIN;
		}
	}
	return err;
}

static int prepare_pipe(struct petal_duplex *duplex)
{
	int there[2], back[2];

	if (pipe2(there, O_CLOEXEC))
		return -errno;
	if (pipe2(back, O_CLOEXEC)) {
		close(there[0]);
		close(there[1]);
		return -errno;
	}
	duplex->fds[OUT] = there[1];
	duplex->fds[IN] = back[0];
	duplex->fds[SERVER_IN] = there[0];
	duplex->fds[SERVER_OUT] = back[1];
	return 0;
}

static int prepare_pair(struct petal_duplex *duplex, const int fds[2])
{
	duplex->fds[OUT] = duplex->fds[IN] = fds[0];
	duplex->fds[SERVER_IN] = duplex->fds[SERVER_OUT] = fds[1];
	return 0;
}

static int prepare_unix(struct petal_duplex *duplex)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
		return -errno;
	return prepare_pair(duplex, fds);
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
	struct sockaddr_in ours, theirs;

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

/* Or Nagle would be measured. */
static int no_delay(int fd)
{
	int one = 1;

	return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
		       ? -errno
		       : 0;
}

static int prepare_tcp(struct petal_duplex *duplex)
{
	struct sockaddr_in address = { 0 };
	int listener = listen_tcp(&address);
	int fds[2], err;

	if (listener < 0)
		return listener;
	fds[0] = dial_tcp(&address);
	fds[1] = fds[0] < 0 ? fds[0] : accept_tcp(listener, fds[0]);
	close(listener);
	if (fds[1] < 0) {
		if (fds[0] >= 0)
			close(fds[0]);
		return fds[1];
	}
	err = no_delay(fds[0]);
	if (!err)
		err = no_delay(fds[1]);
	prepare_pair(duplex, fds);
	return err;
}

/* ---- messages: POSIX queues ---- */

static int mq_make(const char *name, long bytes)
{
	struct mq_attr shape = { .mq_maxmsg = 10, .mq_msgsize = bytes };
	mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600,
			      &shape);

	if (queue < 0)
		return -errno;
	/* It lives on in its descriptors, on both sides of the fork. */
	mq_unlink(name);
	return queue;
}

static int prepare_mq(struct petal_duplex *duplex)
{
	char name[sizeof(duplex->address) + 2];
	int there, back;

	snprintf(name, sizeof(name), "/%s", duplex->address);
	there = mq_make(name, (long)duplex->bytes);
	if (there < 0)
		return there;
	back = mq_make(name, (long)duplex->bytes);
	if (back < 0) {
		close(there);
		return back;
	}
	duplex->fds[OUT] = duplex->fds[SERVER_IN] = there;
	duplex->fds[IN] = duplex->fds[SERVER_OUT] = back;
	return 0;
}

static int send_mq(struct petal_duplex *duplex, const void *bytes,
		   size_t length, bool spin)
{
	(void)spin;
	return mq_send(out_of(duplex), bytes, length, 0) ? -errno : 0;
}

static int receive_mq(struct petal_duplex *duplex, void *bytes, size_t length,
		      bool spin)
{
	/* A time in the past makes one look of it, without a change of flags. */
	static const struct timespec past;
	mqd_t queue = in_of(duplex);
	ssize_t got = spin ? mq_timedreceive(queue, bytes, length, NULL, &past)
			   : mq_receive(queue, bytes, length, NULL);

	if (got < 0)
		return errno == ETIMEDOUT ? -EAGAIN : -errno;
	return (size_t)got == length ? 0 : -EMSGSIZE;
}

struct petal_duplex petal_duplex_pipe = {
	.impl = "pipe",
	.prepare = prepare_pipe,
	.begin = side_begin,
	.send = write_all,
	.receive = read_all,
	.end = close_fds,
};

struct petal_duplex petal_duplex_unix = {
	.impl = "af_unix",
	.remark = "stream socket pair",
	.prepare = prepare_unix,
	.begin = side_begin,
	.send = write_all,
	.receive = read_all,
	.end = close_fds,
};

struct petal_duplex petal_duplex_tcp = {
	.impl = "tcp",
	.remark = "127.0.0.1, TCP_NODELAY",
	.prepare = prepare_tcp,
	.begin = side_begin,
	.send = write_all,
	.receive = read_all,
	.end = close_fds,
};

struct petal_duplex petal_duplex_mq = {
	.impl = "posix-mq",
	.bytes_max = MQ_BYTES_MAX,
	.prepare = prepare_mq,
	.send = send_mq,
	.receive = receive_mq,
	.end = close_fds,
};
