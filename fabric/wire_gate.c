/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/wire_gate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * A line of the list is about 80 bytes. The buffer holds some fifty; longer
 * lists are read in pieces.
 */
#define GATE_TEXT_BYTES 4096

/* More members than this are not looked at: they can only be our own calls. */
#define GATE_LINES_MAX 4096

static bool gate_same_address(const struct sockaddr *a,
			      const struct sockaddr *b)
{
	const struct sockaddr_in *a4 = (const void *)a;
	const struct sockaddr_in *b4 = (const void *)b;
	const struct sockaddr_in6 *a6 = (const void *)a;
	const struct sockaddr_in6 *b6 = (const void *)b;

	if (a->sa_family != b->sa_family)
		return false;
	if (a->sa_family == AF_INET)
		return a4->sin_port == b4->sin_port &&
		       a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	if (a->sa_family == AF_INET6)
		return a6->sin6_port == b6->sin6_port &&
		       memcmp(&a6->sin6_addr, &b6->sin6_addr,
			      sizeof(a6->sin6_addr)) == 0;
	return false;
}

static in_port_t gate_port(const struct sockaddr_storage *address)
{
	if (address->ss_family == AF_INET6)
		return ((const struct sockaddr_in6 *)address)->sin6_port;
	return ((const struct sockaddr_in *)address)->sin_port;
}

/*
 * Accepted on our port? Port and family decide, not the whole address, because
 * a wire may listen on all addresses. Our own calls have ports of their own.
 */
static bool gate_is_visitor(const struct wire_gate *gate, int fd,
			    struct sockaddr_storage *ret_from)
{
	struct sockaddr_storage local;
	struct sockaddr_storage from;
	socklen_t local_size = sizeof(local);
	socklen_t from_size = sizeof(from);

	memset(&from, 0, sizeof(from));
	if (getsockname(fd, (struct sockaddr *)&local, &local_size) != 0)
		return false;
	if (local.ss_family != gate->listen.ss_family ||
	    gate_port(&local) != gate_port(&gate->listen))
		return false;
	/*
	 * The listener has no peer, and neither has a visitor who has already
	 * gone; that one will not block a read either.
	 */
	if (getpeername(fd, (struct sockaddr *)&from, &from_size) != 0)
		return false;
	*ret_from = from;
	return true;
}

static void gate_shutdown(struct wire_gate_visitor *visitor)
{
	visitor->cut = true;
	shutdown(visitor->fd, SHUT_RDWR);
}

/*
 * The one to go first: whoever is out of the list already, else whoever is
 * cut already, else whoever has waited longest.
 */
static struct wire_gate_visitor *gate_least(struct wire_gate *gate)
{
	struct wire_gate_visitor *least = &gate->visitors[0];

	for (unsigned i = 1; i < gate->count; i++) {
		struct wire_gate_visitor *visitor = &gate->visitors[i];

		if (visitor->listed != least->listed) {
			if (least->listed)
				least = visitor;
		} else if (visitor->cut != least->cut) {
			if (visitor->cut)
				least = visitor;
		} else if (visitor->since_ns < least->since_ns) {
			least = visitor;
		}
	}
	return least;
}

static struct wire_gate_visitor *gate_place(struct wire_gate *gate)
{
	struct wire_gate_visitor *place;

	if (gate->count < WIRE_GATE_MAX)
		return &gate->visitors[gate->count++];
	place = gate_least(gate);
	if (place->listed && !place->cut) {
		gate_shutdown(place);
		gate->evicted++;
	}
	return place;
}

static void gate_admit(struct wire_gate *gate, int fd, uint64_t inode,
		       const struct sockaddr_storage *from, uint64_t now_ns)
{
	struct wire_gate_visitor *visitor = gate_place(gate);
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0 && (flags & O_NONBLOCK) == 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	visitor->fd = fd;
	visitor->listed = true;
	visitor->cut = false;
	visitor->inode = inode;
	visitor->since_ns = now_ns;
	visitor->from = *from;
}

static void gate_member(struct wire_gate *gate, int fd, uint64_t inode,
			uint64_t now_ns)
{
	struct sockaddr_storage from;

	for (unsigned i = 0; i < gate->count; i++) {
		struct wire_gate_visitor *visitor = &gate->visitors[i];

		if (visitor->fd == fd && visitor->inode == inode) {
			visitor->listed = true;
			return;
		}
	}
	if (gate_is_visitor(gate, fd, &from))
		gate_admit(gate, fd, inode, &from, now_ns);
}

/* "tfd:  6 events:  19 data:  55f0  pos:0 ino:80a3 sdev:9" */
static void gate_line(struct wire_gate *gate, const char *line, uint64_t now_ns)
{
	const char *text = strstr(line, " ino:");
	uint64_t inode = 0;
	int fd = -1;

	if (sscanf(line, "tfd: %d", &fd) != 1 || text == NULL ||
	    sscanf(text, " ino:%" SCNx64, &inode) != 1)
		return;
	gate_member(gate, fd, inode, now_ns);
}

static int gate_list(struct wire_gate *gate, uint64_t now_ns)
{
	char text[GATE_TEXT_BYTES];
	size_t held = 0;

	for (unsigned lines = 0; lines < GATE_LINES_MAX;) {
		ssize_t got = read(gate->list_fd, text + held,
				   sizeof(text) - 1 - held);
		char *line = text;
		char *end;

		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		held += (size_t)got;
		text[held] = '\0';
		while ((end = strchr(line, '\n')) != NULL) {
			*end = '\0';
			gate_line(gate, line, now_ns);
			line = end + 1;
			lines++;
		}
		held = strlen(line);
		memmove(text, line, held);
	}
	return 0;
}

/*
 * Who is not in the list any more has left, or has spoken and is being judged;
 * the latter may yet be cut, so both are kept until they are old.
 */
static void gate_settle(struct wire_gate *gate, uint64_t now_ns)
{
	for (unsigned i = 0; i < gate->count;) {
		struct wire_gate_visitor *visitor = &gate->visitors[i];

		if (now_ns - visitor->since_ns < WIRE_GATE_NS) {
			i++;
		} else if (!visitor->listed) {
			*visitor = gate->visitors[--gate->count];
		} else {
			if (!visitor->cut) {
				gate_shutdown(visitor);
				gate->expired++;
			}
			i++;
		}
	}
}

int wire_gate_open(int eq_fd, const struct sockaddr *listen,
		   struct wire_gate *ret_gate)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", eq_fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	memset(ret_gate, 0, sizeof(*ret_gate));
	ret_gate->list_fd = fd;
	memcpy(&ret_gate->listen, listen,
	       listen->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					     : sizeof(struct sockaddr_in));
	return 0;
}

void wire_gate_close(struct wire_gate *gate)
{
	close(gate->list_fd);
}

int wire_gate_sweep(struct wire_gate *gate, uint64_t now_ns)
{
	int err;

	if (lseek(gate->list_fd, 0, SEEK_SET) != 0)
		return -errno;
	for (unsigned i = 0; i < gate->count; i++)
		gate->visitors[i].listed = false;
	err = gate_list(gate, now_ns);
	if (err == 0)
		gate_settle(gate, now_ns);
	return err;
}

/* Descriptors are reused, so the inode has the last word on who this is. */
void wire_gate_cut(struct wire_gate *gate, const struct sockaddr *from)
{
	for (unsigned i = 0; i < gate->count; i++) {
		struct wire_gate_visitor *visitor = &gate->visitors[i];
		struct stat stat;

		if (gate_same_address((struct sockaddr *)&visitor->from,
				      from) &&
		    fstat(visitor->fd, &stat) == 0 &&
		    stat.st_ino == visitor->inode) {
			gate_shutdown(visitor);
			return;
		}
	}
}

void wire_gate_cut_all(struct wire_gate *gate)
{
	for (unsigned i = 0; i < gate->count; i++) {
		struct wire_gate_visitor *visitor = &gate->visitors[i];

		if (visitor->listed && !visitor->cut)
			gate_shutdown(visitor);
	}
}

uint64_t wire_gate_deadline_ns(const struct wire_gate *gate)
{
	uint64_t deadline_ns = UINT64_MAX;

	for (unsigned i = 0; i < gate->count; i++) {
		const struct wire_gate_visitor *visitor = &gate->visitors[i];

		if (visitor->listed && !visitor->cut &&
		    visitor->since_ns + WIRE_GATE_NS < deadline_ns)
			deadline_ns = visitor->since_ns + WIRE_GATE_NS;
	}
	return deadline_ns;
}
