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
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/error.h"

/* Newer than the headers of Debian 12: "PIDF". */
#define PIDFS_MAGIC 0x50494446

#define STAMP_PID_BITS 22
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

/* What all processes of the machine share until it boots again. */
static int hash_boot(uint64_t *ret_state)
{
	char boot_id[64];
	int outcome = read_text("/proc/sys/kernel/random/boot_id", boot_id,
				sizeof(boot_id));

	if (!outcome)
		*ret_state = hash(HASH_START, boot_id, strlen(boot_id));
	return outcome;
}

static int boot_realm(uint64_t *ret_hash)
{
	static const char mark[] = "pidfs";
	uint64_t state;
	int outcome = hash_boot(&state);

	if (outcome)
		return outcome;
	state = hash(state, mark, sizeof(mark));
	*ret_hash = state ? state : 1;
	return 0;
}

static int realm(uint64_t *ret_hash)
{
	uint64_t state;
	int outcome = proc_is_ours();

	if (!outcome)
		outcome = hash_boot(&state);
	if (outcome)
		return outcome;
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

uint64_t petal_peer_stamp(const struct petal_peer_id *id)
{
	if (id->pid == 0 || id->pid >> STAMP_PID_BITS ||
	    id->start_ticks >> (64 - STAMP_PID_BITS))
		return 0;
	return id->start_ticks << STAMP_PID_BITS | id->pid;
}

void petal_peer_unstamp(uint64_t stamp, uint64_t realm_hash,
			struct petal_peer_id *ret_id)
{
	const struct petal_peer_id id = {
		.realm_hash = realm_hash,
		.start_ticks = stamp >> STAMP_PID_BITS,
		.pid = (uint32_t)(stamp & ((1u << STAMP_PID_BITS) - 1)),
	};

	*ret_id = id;
}

static bool is_by_inode(const struct petal_peer_id *id)
{
	uint64_t boot;

	return id->pid == 0 && id->start_ticks != 0 && boot_realm(&boot) == 0 &&
	       id->realm_hash == boot;
}

static int check_id(const struct petal_peer_id *id)
{
	uint64_t here;
	int outcome;

	if (id->pid > INT_MAX || id->realm_hash == 0 || id->reserved != 0)
		return -EINVAL;
	if (id->pid == 0)
		return is_by_inode(id) ? -EXDEV : -EINVAL;
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

static int on_pidfs(int fd, bool *ret_yes)
{
	struct statfs filesystem;

	if (fstatfs(fd, &filesystem))
		return -errno;
	*ret_yes = filesystem.f_type == PIDFS_MAGIC;
	return 0;
}

/* Before pidfs, only the name of the anonymous inode tells. */
static bool has_pidfd_name(int fd)
{
	char path[48];
	char link[32];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	length = readlink(path, link, sizeof(link) - 1);
	if (length < 0)
		return false;
	link[length] = '\0';
	return strcmp(link, "anon_inode:[pidfd]") == 0;
}

static int check_pidfd(int pidfd, bool *ret_pidfs)
{
	int flags = fcntl(pidfd, F_GETFL);
	int outcome;

	if (flags < 0)
		return -errno;
	outcome = on_pidfs(pidfd, ret_pidfs);
	if (outcome)
		return outcome;
	/* PIDFD_THREAD: readable when one thread ends, and others may live. */
	if ((!*ret_pidfs && !has_pidfd_name(pidfd)) || flags & O_EXCL)
		return -EINVAL;
	return 0;
}

/*
 * In fdinfo, -1 is a process that has been waited for, and 0 one that has no
 * number in the namespace of our /proc. If that is not even our own namespace,
 * its numbers are of no use to us, and it is as if there were none.
 */
static int pidfd_pid(int pidfd, int *ret_pid)
{
	char path[48];
	char text[1024];
	const char *line;
	int outcome = proc_is_ours();
	int pid;

	if (outcome)
		return outcome;
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

int petal_peer_identify_fd(int pidfd, struct petal_peer_id *ret_id)
{
	struct petal_peer_id id = { 0 };
	struct stat status;
	bool pidfs;
	int outcome = check_pidfd(pidfd, &pidfs);

	if (outcome)
		return outcome;
	if (!pidfs)
		return -EXDEV;
	if (fstat(pidfd, &status))
		return -errno;
	outcome = boot_realm(&id.realm_hash);
	if (outcome)
		return outcome;
	id.start_ticks = status.st_ino;
	*ret_id = id;
	return 0;
}

static int identify_unseen(int pidfd, struct petal_peer_id *ret_id)
{
	int dead = pidfd_dead(pidfd);

	if (dead)
		return dead < 0 ? dead : -ESRCH;
	return petal_peer_identify_fd(pidfd, ret_id);
}

static int identify_living(int pidfd, struct petal_peer_id *ret_id)
{
	bool pidfs;
	int pid;
	int outcome = check_pidfd(pidfd, &pidfs);

	if (outcome)
		return outcome;
	outcome = pidfd_pid(pidfd, &pid);
	if (!outcome)
		return identify(pid, pidfd, ret_id);
	return outcome == -EXDEV ? identify_unseen(pidfd, ret_id) : outcome;
}

static int open_duplicate(int pidfd, struct petal_peer *ret_peer)
{
	ret_peer->fd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
	return ret_peer->fd < 0 ? -errno : 0;
}

int petal_peer_open_fd(int pidfd, struct petal_peer *ret_peer)
{
	struct petal_peer peer;
	int outcome = open_duplicate(pidfd, &peer);

	if (outcome)
		return outcome;
	outcome = identify_living(peer.fd, &peer.id);
	if (outcome) {
		close(peer.fd);
		return outcome;
	}
	*ret_peer = peer;
	return 0;
}

static bool same_id(const struct petal_peer_id *a,
		    const struct petal_peer_id *b)
{
	return a->realm_hash == b->realm_hash &&
	       a->start_ticks == b->start_ticks && a->pid == b->pid;
}

/* In our own realm the kernel knows the process as it should call itself. */
static int check_stated_here(int pidfd, const struct petal_peer_id *stated)
{
	struct petal_peer_id found;
	int outcome = identify_living(pidfd, &found);

	if (outcome)
		return outcome == -EXDEV ? -PETAL_EAUTH : outcome;
	return same_id(&found, stated) ? 0 : -PETAL_EAUTH;
}

/* From elsewhere, an inode can be confirmed; of the rest, only life. */
static int check_stated_elsewhere(int pidfd, const struct petal_peer_id *stated)
{
	struct petal_peer_id found;
	int dead = pidfd_dead(pidfd);
	int outcome;

	if (dead)
		return dead < 0 ? dead : -ESRCH;
	if (!is_by_inode(stated))
		return 0;
	outcome = petal_peer_identify_fd(pidfd, &found);
	if (outcome)
		return outcome;
	return same_id(&found, stated) ? 0 : -PETAL_EAUTH;
}

static int check_stated(int pidfd, const struct petal_peer_id *stated)
{
	bool pidfs;
	int outcome = check_pidfd(pidfd, &pidfs);

	if (outcome)
		return outcome;
	outcome = check_id(stated);
	if (outcome == -EXDEV)
		return check_stated_elsewhere(pidfd, stated);
	return outcome ? outcome : check_stated_here(pidfd, stated);
}

int petal_peer_open_stated(int pidfd, const struct petal_peer_id *stated,
			   struct petal_peer *ret_peer)
{
	/* It may lie in shared memory: look once. */
	struct petal_peer peer = {
		.id = *(const volatile struct petal_peer_id *)stated,
	};
	int outcome = open_duplicate(pidfd, &peer);

	if (outcome)
		return outcome;
	outcome = check_stated(peer.fd, &peer.id);
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
