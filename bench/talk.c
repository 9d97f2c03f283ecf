/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/talk.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "bench/nest.h"
#include "shm/clock.h"

#define PATIENCE_NS PETAL_S(10)
#define LOOK_MS 100

static int connect_once(struct petal_talk *talk, uint16_t port)
{
	struct timeval look = { .tv_usec = LOOK_MS * 1000 };
	struct sockaddr_in address = { .sin_family = AF_INET };
	int one = 1;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons(port);
	talk->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (talk->fd < 0)
		return -errno;
	if (connect(talk->fd, (struct sockaddr *)&address, sizeof(address)) ==
		    0 &&
	    setsockopt(talk->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ==
		    0 &&
	    setsockopt(talk->fd, SOL_SOCKET, SO_RCVTIMEO, &look,
		       sizeof(look)) == 0)
		return 0;
	close(talk->fd);
	talk->fd = -1;
	return -ECONNREFUSED;
}

int petal_talk_open(struct petal_talk *talk, uint16_t port, unsigned seconds)
{
	uint64_t end_ns = petal_clock_now_ns() + PETAL_S(seconds);
	int err;

	*talk = (struct petal_talk){ .fd = -1 };
	talk->in = malloc(PETAL_TALK_BYTES);
	talk->out = malloc(PETAL_TALK_BYTES);
	if (!talk->in || !talk->out)
		return -ENOMEM;
	while ((err = connect_once(talk, port)) == -ECONNREFUSED &&
	       petal_clock_now_ns() < end_ns) {
		if (petal_nest_stopped())
			return -EINTR;
		poll(NULL, 0, 20);
	}
	return err;
}

void petal_talk_close(struct petal_talk *talk)
{
	if (talk->in && talk->fd >= 0)
		close(talk->fd);
	free(talk->in);
	free(talk->out);
	*talk = (struct petal_talk){ .fd = -1 };
}

int petal_talk_put(struct petal_talk *talk, const void *bytes, size_t length)
{
	if (length > PETAL_TALK_BYTES - talk->out_used)
		return -EMSGSIZE;
	memcpy(talk->out + talk->out_used, bytes, length);
	talk->out_used += length;
	return 0;
}

int petal_talk_print(struct petal_talk *talk, const char *format, ...)
{
	size_t room = PETAL_TALK_BYTES - talk->out_used;
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf((char *)talk->out + talk->out_used, room, format,
			   args);
	va_end(args);
	if (length < 0 || (size_t)length >= room)
		return -EMSGSIZE;
	talk->out_used += (size_t)length;
	return 0;
}

int petal_talk_flush(struct petal_talk *talk)
{
	size_t sent = 0;

	while (sent < talk->out_used) {
		ssize_t got = send(talk->fd, talk->out + sent,
				   talk->out_used - sent, MSG_NOSIGNAL);

		if (got < 0 && errno == EINTR && !petal_nest_stopped())
			continue;
		if (got < 0)
			return errno == EINTR ? -EINTR : -ENOTCONN;
		sent += (size_t)got;
	}
	talk->out_used = 0;
	return 0;
}

/* More bytes than there are; waits until the deadline. */
static int fill(struct petal_talk *talk, uint64_t end_ns)
{
	ssize_t got;

	if (talk->in_start == talk->in_end)
		talk->in_start = talk->in_end = 0;
	if (talk->in_end == PETAL_TALK_BYTES) {
		memmove(talk->in, talk->in + talk->in_start,
			petal_talk_ready(talk));
		talk->in_end -= talk->in_start;
		talk->in_start = 0;
	}
	if (talk->in_end == PETAL_TALK_BYTES)
		return -EMSGSIZE;
	do {
		got = recv(talk->fd, talk->in + talk->in_end,
			   PETAL_TALK_BYTES - talk->in_end, 0);
		if (got > 0) {
			talk->in_end += (size_t)got;
			return 0;
		}
		if (got == 0 || (errno != EAGAIN && errno != EINTR))
			return -ENOTCONN;
		if (petal_nest_stopped())
			return -EINTR;
	} while (petal_clock_now_ns() < end_ns);
	return -ETIMEDOUT;
}

int petal_talk_need(struct petal_talk *talk, size_t length, uint8_t **ret_bytes)
{
	uint64_t end_ns = 0;

	while (petal_talk_ready(talk) < length) {
		int err;

		if (end_ns == 0)
			end_ns = petal_clock_now_ns() + PATIENCE_NS;
		err = fill(talk, end_ns);
		if (err < 0)
			return err;
	}
	*ret_bytes = talk->in + talk->in_start;
	return 0;
}

void petal_talk_skip(struct petal_talk *talk, size_t length)
{
	talk->in_start += length;
}

int petal_talk_line(struct petal_talk *talk, char **ret_line)
{
	uint64_t end_ns = petal_clock_now_ns() + PATIENCE_NS;
	size_t seen = 0;

	while (true) {
		uint8_t *start = talk->in + talk->in_start;
		uint8_t *end = memchr(start + seen, '\n',
				      petal_talk_ready(talk) - seen);
		int err;

		if (end) {
			talk->in_start += (size_t)(end - start) + 1;
			*end = '\0';
			if (end > start && end[-1] == '\r')
				end[-1] = '\0';
			*ret_line = (char *)start;
			return 0;
		}
		seen = petal_talk_ready(talk);
		err = fill(talk, end_ns);
		if (err < 0)
			return err;
	}
}
