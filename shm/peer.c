/* SPDX-License-Identifier: Apache-2.0 */
/*
 * To watch an identity: open a pidfd for its PID, read from /proc when the
 * process under that PID started, and only then ask the pidfd whether its
 * process still lives. If it does, its PID was never free in between, so what
 * /proc said was about it, and the start time decides. If it does not, then
 * either it was the one, or the PID had already passed from the one to it; dead
 * is dead. What goes wrong on the way without an answer from the kernel, such
 * as a /proc that hides others, is reported as it is and proves nothing.
 */
#include "shm/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HASH_START UINT64_C(0xcbf29ce484222325)
#define HASH_PRIME UINT64_C(0x100000001b3)

/* FNV-1a: the parts are no secret and nobody gains by a collision. */
static uint64_t hash(uint64_t state, const void *bytes, size_t length)
{
	const uint8_t *byte = bytes;

	for (size_t i = 0; i < length; i++)
		state = (state ^ byte[i]) * HASH_PRIME;
	return state;
}

/* Files of /proc are made whole by one read(), up to their page. */
static int read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int outcome;
	ssize_t length;

	if (fd < 0)
		return -errno;
	length = read(fd, text, size - 1);
	outcome = length < 0 ? -errno : 0;
	close(fd);
	if (outcome)
		return outcome;
	text[length] = '\0';
	return 0;
}

static int hash_namespace(const char *path, uint64_t *state)
{
	struct stat status;
	uint64_t identity[2] = { 0, 0 };

	if (stat(path, &status) == 0) {
		identity[0] = status.st_dev;
		identity[1] = status.st_ino;
	} else if (errno != ENOENT) {
		return -errno;
	}
	/* A kernel built without such namespaces has one, which hashes as 0. */
	*state = hash(*state, identity, sizeof(identity));
	return 0;
}

/* A container may see the /proc of its host, where our PID is another's. */
static int proc_is_ours(void)
{
	char link[16];
	ssize_t length = readlink("/proc/self", link, sizeof(link) - 1);

	if (length < 0)
		return -errno;
	link[length] = '\0';
	return strtol(link, NULL, 10) == getpid() ? 0 : -EXDEV;
}

static int realm(uint64_t *ret_hash)
{
	uint64_t state = HASH_START;
	char boot_id[64];
	int outcome = proc_is_ours();

	if (!outcome)
		outcome = read_text("/proc/sys/kernel/random/boot_id", boot_id,
				    sizeof(boot_id));
	if (outcome)
		return outcome;
	state = hash(state, boot_id, strlen(boot_id));
	outcome = hash_namespace("/proc/self/ns/pid", &state);
	/* /proc shows start times as the reader's time namespace has them. */
	if (!outcome)
		outcome = hash_namespace("/proc/self/ns/time", &state);
	if (outcome)
		return outcome;
	*ret_hash = state ? state : 1;
	return 0;
}

/*
 * The name of the program, in brackets, may hold brackets and spaces of its
 * own, so the fields are counted from the last bracket: state is the third,
 * the start time the 22nd.
 */
static int parse_start(const char *stat_text, uint64_t *ret_ticks)
{
	const char *at = strrchr(stat_text, ')');
	uint64_t ticks;
	int field = 2;

	for (; at && field < 22; field++) {
		at = strchr(at, ' ');
		at = at ? at + 1 : NULL;
	}
	if (!at || sscanf(at, "%" SCNu64, &ticks) != 1)
		return -EPROTO;
	*ret_ticks = ticks;
	return 0;
}

static int start_ticks(int pid, uint64_t *ret_ticks)
{
	char path[32];
	char text[1024];
	int outcome;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	outcome = read_text(path, text, sizeof(text));
	return outcome ? outcome : parse_start(text, ret_ticks);
}

static int pidfd_dead(int fd)
{
	struct pollfd watch = { .fd = fd, .events = POLLIN };
	int ready = poll(&watch, 1, 0);

	if (ready < 0)
		return -errno;
	if (watch.revents & POLLNVAL)
		return -EBADF;
	return watch.revents & POLLIN ? 1 : 0;
}

static int pidfd_open_living(int pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd >= 0)
		return fd;
	/*
	 * The PID is some process's thread now (-EINVAL, or -ENOENT in later
	 * kernels), so no process has it. As an argument it was checked.
	 */
	if (errno == EINVAL || errno == ENOENT)
		return -ESRCH;
	return -errno;
}

/* What @pid's identity is, if the process of @pidfd has it: see the top. */
static int identify(int pid, int pidfd, struct petal_peer_id *ret_id)
{
	struct petal_peer_id id = { .pid = (uint32_t)pid };
	int looked = start_ticks(pid, &id.start_ticks);
	int outcome = pidfd_dead(pidfd);

	if (outcome)
		return outcome < 0 ? outcome : -ESRCH;
	/* It lives, but we are not to see it. */
	if (looked == -ENOENT || looked == -ESRCH)
		return -EACCES;
	if (!looked)
		looked = realm(&id.realm_hash);
	if (looked)
		return looked;
	*ret_id = id;
	return 0;
}

int petal_peer_self(struct petal_peer_id *ret_id)
{
	struct petal_peer_id id = { .pid = (uint32_t)getpid() };
	int outcome = realm(&id.realm_hash);

	if (!outcome)
		outcome = start_ticks((int)id.pid, &id.start_ticks);
	if (outcome)
		return outcome;
	*ret_id = id;
	return 0;
}

static int open_pid(int pid, struct petal_peer *ret_peer)
{
	struct petal_peer peer = { .fd = pidfd_open_living(pid) };
	int outcome;

	if (peer.fd < 0)
		return peer.fd;
	outcome = identify(pid, peer.fd, &peer.id);
	if (outcome) {
		close(peer.fd);
		return outcome;
	}
	*ret_peer = peer;
	return 0;
}

int petal_peer_identify(int pid, struct petal_peer_id *ret_id)
{
	struct petal_peer peer;
	int outcome;

	if (pid <= 0)
		return -EINVAL;
	outcome = proc_is_ours();
	if (!outcome)
		outcome = open_pid(pid, &peer);
	if (outcome)
		return outcome;
	*ret_id = peer.id;
	petal_peer_close(&peer);
	return 0;
}

static int check_id(const struct petal_peer_id *id)
{
	uint64_t here;
	int outcome;

	if (id->pid == 0 || id->pid > INT_MAX || id->realm_hash == 0 ||
	    id->reserved != 0)
		return -EINVAL;
	outcome = realm(&here);
	if (outcome)
		return outcome;
	return id->realm_hash == here ? 0 : -EXDEV;
}

int petal_peer_open(const struct petal_peer_id *id, struct petal_peer *ret_peer)
{
	/* It may lie in shared memory: look once. */
	const struct petal_peer_id wanted =
		*(const volatile struct petal_peer_id *)id;
	struct petal_peer peer;
	int outcome = check_id(&wanted);

	if (!outcome)
		outcome = open_pid((int)wanted.pid, &peer);
	if (outcome)
		return outcome;
	if (peer.id.start_ticks != wanted.start_ticks) {
		petal_peer_close(&peer);
		return -ESRCH;
	}
	*ret_peer = peer;
	return 0;
}

/* -1 in fdinfo is one that has been waited for, 0 one we have no number for. */
static int pidfd_pid(int pidfd, int *ret_pid)
{
	char path[48];
	char text[1024];
	const char *line;
	int outcome;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	outcome = read_text(path, text, sizeof(text));
	if (outcome)
		return outcome;
	line = strstr(text, "\nPid:");
	if (!line || sscanf(line, "\nPid: %d", &pid) != 1)
		return -EINVAL;
	if (pid <= 0)
		return pid ? -ESRCH : -EXDEV;
	*ret_pid = pid;
	return 0;
}

static int identify_fd(int pidfd, struct petal_peer_id *ret_id)
{
	int pid;
	int outcome = proc_is_ours();

	if (!outcome)
		outcome = pidfd_pid(pidfd, &pid);
	if (outcome)
		return outcome;
	/* PIDFD_THREAD: readable when one thread ends, and others may live. */
	if (fcntl(pidfd, F_GETFL) & O_EXCL)
		return -EINVAL;
	return identify(pid, pidfd, ret_id);
}

int petal_peer_open_fd(int pidfd, struct petal_peer *ret_peer)
{
	struct petal_peer peer = {
		.fd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0),
	};
	int outcome;

	if (peer.fd < 0)
		return -errno;
	outcome = identify_fd(peer.fd, &peer.id);
	if (outcome) {
		close(peer.fd);
		return outcome;
	}
	*ret_peer = peer;
	return 0;
}

int petal_peer_fd(const struct petal_peer *peer)
{
	return peer->fd;
}

int petal_peer_dead(const struct petal_peer *peer)
{
	return pidfd_dead(peer->fd);
}

void petal_peer_close(struct petal_peer *peer)
{
	if (peer->fd >= 0)
		close(peer->fd);
	peer->fd = -1;
}
