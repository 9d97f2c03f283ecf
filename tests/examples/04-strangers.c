/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two programs that know nothing of each other but the name of a socket: the
 * server makes the ring and hands its fd to whoever connects and has the same
 * uid; the client writes lines into the ring, and the server prints a count.
 *
 *    cc 04-strangers.c $(pkg-config --cflags --libs petalith)
 *    ./a.out serve /tmp/strangers &
 *    ./a.out send /tmp/strangers
 *
 * Without arguments it does both, as two processes. The server knows by proof,
 * not by a timer, when its client has died: it watches the client's pidfd.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rings/doorbell.h"
#include "rings/mpsc.h"
#include "shm/barrier.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "shm/peer.h"
#include "shm/segment.h"

#define LINES 100000u
#define DATA_BYTES UINT64_C(65536)
#define OWNERS 2u
#define CLIENT 1u
/* How often a sleeper looks whether the other one is still alive. */
#define GLANCE_NS PETAL_MS(100)

/* Newer than the headers of Debian 12; older kernels have SO_PEERCRED only. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static const struct petal_mpsc_geometry geometry = {
	.data_bytes = DATA_BYTES,
	.owners = OWNERS,
};

/* How the segment is cut: doorbells, the ring's header, its data. */
struct layout {
	struct petal_doorbell *news, *room;
	uint8_t *header, *data;
	uint64_t header_bytes;
};

static struct layout lay_out(const struct petal_segment *segment)
{
	uint8_t *body = petal_segment_body(segment);
	uint64_t header_bytes = petal_mpsc_bytes(&geometry);

	return (struct layout){
		.news = (void *)body,
		.room = (void *)(body + 64),
		.header = body + 128,
		.data = body + 128 + header_bytes,
		.header_bytes = header_bytes,
	};
}

static int attach(const struct layout *layout, uint32_t owner,
		  struct petal_mpsc *ret_ring)
{
	return petal_mpsc_attach(layout->header, layout->header_bytes,
				 layout->data, DATA_BYTES, owner, ret_ring);
}

/* ---- an fd through a socket ---- */

static int fd_send(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(fd))] = { 0 };
	struct iovec bytes = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &bytes,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	return sendmsg(socket, &message, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

static int fd_receive(int socket, int *ret_fd)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec bytes = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &bytes,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
		return errno ? -errno : -ECONNRESET;
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS ||
	    header->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EPROTO;
	memcpy(ret_fd, CMSG_DATA(header), sizeof(*ret_fd));
	return 0;
}

static int address_of(const char *path, struct sockaddr_un *ret_address)
{
	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(ret_address->sun_path))
		return -ENAMETOOLONG;
	strcpy(ret_address->sun_path, path);
	return 0;
}

/* ---- the server ---- */

/* Who it is, as the kernel says; watched from now on. */
static int client_watch(int socket, struct petal_peer *ret_client)
{
	struct ucred credentials;
	socklen_t size = sizeof(credentials);
	int pidfd, err;

	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size))
		return -errno;
	if (credentials.uid != geteuid())
		return -EPERM;
	size = sizeof(pidfd);
	if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size)) {
		struct petal_peer_id id;

		err = petal_peer_identify(credentials.pid, &id);
		return err ? err : petal_peer_open(&id, ret_client);
	}
	err = petal_peer_open_fd(pidfd, ret_client);
	close(pidfd);
	return err;
}

/* One sleep at most; -EOWNERDEAD if nothing can come any more. */
static int wait_for_news(const struct layout *layout, struct petal_mpsc *ring,
			 uint64_t pos, const struct petal_peer *client)
{
	uint32_t seen = petal_doorbell_arm(layout->news);
	struct petal_mpsc_view view;
	bool dead = petal_peer_dead(client) == 1;

	/* The order matters: what it sent before its death is there by now. */
	if (petal_mpsc_peek(ring, pos, &view) == 0)
		return 0;
	if (dead)
		return -EOWNERDEAD;
	petal_doorbell_wait(layout->news, seen,
			    petal_clock_now_ns() + GLANCE_NS);
	return 0;
}

static int count_lines(const struct layout *layout, struct petal_mpsc *ring,
		       const struct petal_peer *client)
{
	uint64_t pos = petal_mpsc_head(ring), bytes = 0;
	unsigned lines = 0;

	while (lines < LINES) {
		struct petal_mpsc_view view;
		int outcome = petal_mpsc_peek(ring, pos, &view);

		if (outcome < 0)
			return outcome;
		if (outcome > 0) {
			outcome = wait_for_news(layout, ring, pos, client);
			if (outcome)
				return outcome;
			continue;
		}
		if (view.type != PETAL_RECORD_TYPE_PADDING) {
			lines++;
			bytes += view.length;
		}
		pos = view.end;
		petal_mpsc_release(ring, pos);
		petal_doorbell_ring(layout->room, PETAL_DOORBELL_ALL);
	}
	printf("%u lines, %" PRIu64 " bytes\n", lines, bytes);
	return 0;
}

static int serve_one(int socket)
{
	const struct petal_segment_options options = {
		.name = "04-strangers",
		.body_bytes = 128 + petal_mpsc_bytes(&geometry) + DATA_BYTES,
	};
	struct petal_segment segment;
	struct petal_peer client;
	struct petal_mpsc ring;
	struct layout layout;
	int err = client_watch(socket, &client);

	if (err)
		return err;
	err = petal_segment_open(&options, &segment);
	if (!err) {
		layout = lay_out(&segment);
		err = petal_mpsc_format(layout.header, &geometry);
		if (!err)
			err = attach(&layout, 0, &ring);
		if (!err)
			err = fd_send(socket, segment.fd);
		if (!err)
			err = count_lines(&layout, &ring, &client);
		petal_segment_close(&segment);
	}
	petal_peer_close(&client);
	return err;
}

static int serve(const char *path)
{
	struct sockaddr_un address;
	int err = address_of(path, &address);
	int listener, client;

	if (err)
		return err;
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (listener < 0)
		return -errno;
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(listener, 1))
		return -errno;
	client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	err = client < 0 ? -errno : serve_one(client);
	unlink(path);
	close(listener);
	if (client >= 0)
		close(client);
	return err;
}

/* ---- the client ---- */

static int claim(const struct layout *layout, struct petal_mpsc *ring,
		 uint32_t length, struct petal_mpsc_claim *ret_claim)
{
	int err;

	while ((err = petal_mpsc_claim(ring, length, ret_claim)) == -EAGAIN) {
		uint32_t seen = petal_doorbell_arm(layout->room);

		err = petal_mpsc_claim(ring, length, ret_claim);
		if (err != -EAGAIN)
			break;
		if (petal_doorbell_wait(layout->room, seen,
					petal_clock_now_ns() + PETAL_S(20)))
			return -ETIMEDOUT;
	}
	return err;
}

static int send_lines(const struct layout *layout, struct petal_mpsc *ring)
{
	for (unsigned i = 0; i < LINES; i++) {
		struct petal_mpsc_claim room;
		char line[32];
		int length = snprintf(line, sizeof(line), "line %u", i);
		int err = claim(layout, ring, (uint32_t)length, &room);

		if (err)
			return err;
		memcpy(room.record + 1, line, (size_t)length);
		err = petal_mpsc_publish(ring, &room);
		if (err)
			return err;
		petal_doorbell_ring(layout->news, PETAL_DOORBELL_ALL);
	}
	return 0;
}

/* The server may not be there yet. */
static int dial(const char *path, int *ret_socket)
{
	struct sockaddr_un address;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int err = fd < 0 ? -errno : address_of(path, &address);

	for (int tries = 0; !err && tries < 500; tries++) {
		if (!connect(fd, (struct sockaddr *)&address,
			     sizeof(address))) {
			*ret_socket = fd;
			return 0;
		}
		usleep(10000);
	}
	return err ? err : -ECONNREFUSED;
}

static int send_all(const char *path)
{
	struct petal_segment segment;
	struct petal_mpsc ring;
	struct layout layout;
	int socket = -1, fd;
	int err = dial(path, &socket);

	if (!err)
		err = fd_receive(socket, &fd);
	if (!err)
		err = petal_segment_attach(fd, true, &segment);
	if (err)
		return err;
	if (petal_segment_body_bytes(&segment) <
	    128 + petal_mpsc_bytes(&geometry) + DATA_BYTES)
		return -PETAL_EGEOMETRY;
	layout = lay_out(&segment);
	err = attach(&layout, CLIENT, &ring);
	return err ? err : send_lines(&layout, &ring);
}

/* ---- both ---- */

static int both(const char *program)
{
	char directory[] = "/tmp/strangers-XXXXXX", path[64];
	int status = -1, err;
	pid_t server;

	if (!mkdtemp(directory))
		return -errno;
	snprintf(path, sizeof(path), "%s/socket", directory);
	server = fork();
	if (server < 0)
		return -errno;
	if (server == 0) {
		execl(program, program, "serve", path, (char *)NULL);
		_exit(127);
	}
	err = send_all(path);
	if (waitpid(server, &status, 0) < 0)
		err = -errno;
	rmdir(directory);
	return err || status == 0 ? err : -ECHILD;
}

int main(int argc, char **argv)
{
	int err;

	petal_barrier_enroll();
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		err = serve(argv[2]);
	else if (argc == 3 && strcmp(argv[1], "send") == 0)
		err = send_all(argv[2]);
	else
		err = both("/proc/self/exe");
	if (err) {
		fprintf(stderr, "04-strangers: %s\n", petal_strerror(err));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
