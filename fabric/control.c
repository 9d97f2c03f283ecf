/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/control.h"

#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/error.h"

static int send_packet(int fd, const char *text, size_t length, const int *fds,
		       unsigned fd_count)
{
	alignas(struct cmsghdr) char
		space[CMSG_SPACE(PETAL_CONTROL_FDS_MAX * sizeof(int))] = { 0 };
	struct iovec piece = { (void *)text, length };
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
	struct cmsghdr *rights;
	ssize_t n;

	if (fd_count > 0) {
		message.msg_control = space;
		message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		rights = CMSG_FIRSTHDR(&message);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
	}
	do {
		n = sendmsg(fd, &message, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	return 0;
}

int petal_control_send(int fd, const json_t *object, const int *fds,
		       unsigned fd_count)
{
	size_t length;
	char *text;
	int err;

	if (fd_count > PETAL_CONTROL_FDS_MAX)
		return -EINVAL;
	text = json_dumps(object, JSON_COMPACT);
	if (text == NULL)
		return -ENOMEM;
	length = strlen(text);
	err = length > PETAL_CONTROL_BYTES_MAX
		      ? -EMSGSIZE
		      : send_packet(fd, text, length, fds, fd_count);
	free(text);
	return err;
}

/* Keep the descriptors that there is room for; close the rest. */
static void take_fds(struct msghdr *message, int *ret_fds, unsigned fd_max)
{
	unsigned kept = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL;
	     c = CMSG_NXTHDR(message, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (kept < fd_max)
				ret_fds[kept++] = fd;
			else
				close(fd);
		}
	}
}

static void close_fds(int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

int petal_control_receive(int fd, json_t **ret_object, int *ret_fds,
			  unsigned fd_max)
{
	alignas(struct cmsghdr) char
		space[CMSG_SPACE(PETAL_CONTROL_FDS_MAX * sizeof(int))];
	struct iovec piece = { .iov_len = PETAL_CONTROL_BYTES_MAX };
	struct msghdr message = { .msg_iov = &piece,
				  .msg_iovlen = 1,
				  .msg_control = space,
				  .msg_controllen = sizeof(space) };
	json_t *object = NULL;
	ssize_t n;

	for (unsigned i = 0; i < fd_max; i++)
		ret_fds[i] = -1;
	piece.iov_base = malloc(PETAL_CONTROL_BYTES_MAX);
	if (piece.iov_base == NULL)
		return -ENOMEM;
	do {
		n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		int err = errno == ECONNRESET ? -EPIPE : -errno;

		free(piece.iov_base);
		return err;
	}
	/* An empty packet looks like the end, and may bring descriptors. */
	take_fds(&message, ret_fds, fd_max);
	if ((message.msg_flags & MSG_TRUNC) == 0)
		object = json_loadb(piece.iov_base, (size_t)n,
				    JSON_REJECT_DUPLICATES, NULL);
	free(piece.iov_base);
	if (!json_is_object(object)) {
		json_decref(object);
		close_fds(ret_fds, fd_max);
		return n == 0 ? -EPIPE : -PETAL_ECORRUPT;
	}
	*ret_object = object;
	return 0;
}
