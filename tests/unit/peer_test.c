/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/peer.h with real processes: a zombie is dead, a stopped process is
 * not, a PID that went to another process deceives nobody, and what cannot be
 * judged is an error and not a death. Every wait is for the event itself, never
 * for time.
 *
 * Watching across PID namespaces needs the right to make one.
 *
 * As root it also gives a PID to a second process on purpose (clone3() with
 * set_tid) and enters a PID namespace of its own; other users get one line that
 * says what was left out. PETAL_TEST_HARDER=100 kills ten thousand processes.
 */
#include "tests/check.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "shm/peer.h"

/* Newer than the headers of Debian 12. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define WAIT_MS 60000

/* A child that lives until it is killed, or until we are gone. */
static pid_t start_child(void)
{
	pid_t parent = getpid();
	pid_t child = fork();

	assert_true(child >= 0);
	if (child > 0)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == parent)
		pause();
	_exit(0);
}

static void reap(pid_t child)
{
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static void kill_and_reap(pid_t child)
{
	assert_int_equal(kill(child, SIGKILL), 0);
	reap(child);
}

/* Until it is dead, but leave it to be waited for. */
static void kill_to_zombie(pid_t child)
{
	siginfo_t info;

	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT),
			 0);
}

static struct petal_peer watch(pid_t pid)
{
	struct petal_peer_id id;
	struct petal_peer peer;

	assert_ok(petal_peer_identify(pid, &id));
	assert_ok(petal_peer_open(&id, &peer));
	assert_memory_equal(&peer.id, &id, sizeof(id));
	return peer;
}

static void self__is_always_the_same(void **state)
{
	struct petal_peer_id a, b;

	(void)state;
	assert_ok(petal_peer_self(&a));
	assert_ok(petal_peer_self(&b));
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(a.pid, getpid());
	assert_int_not_equal(a.realm_hash, 0);
	assert_int_not_equal(a.start_ticks, 0);
	assert_int_equal(a.reserved, 0);
	assert_ok(petal_peer_identify(getpid(), &b));
	assert_memory_equal(&a, &b, sizeof(a));
}

static void self__can_be_watched_and_lives(void **state)
{
	struct petal_peer_id id;
	struct petal_peer peer;

	(void)state;
	assert_ok(petal_peer_self(&id));
	assert_ok(petal_peer_open(&id, &peer));
	assert_int_equal(fcntl(petal_peer_fd(&peer), F_GETFD), FD_CLOEXEC);
	assert_outcome(petal_peer_dead(&peer), 0);
	petal_peer_close(&peer);
	petal_peer_close(&peer);
}

static void self__of_a_child_is_what_the_parent_finds_for_it(void **state)
{
	struct petal_peer_id mine, theirs, found;
	int ends[2], go[2];
	char byte;
	pid_t child;

	(void)state;
	assert_ok(petal_peer_self(&mine));
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		close(go[1]);
		if (petal_peer_self(&theirs))
			_exit(1);
		/* A name that looks like the fields that follow a name. */
		prctl(PR_SET_NAME, "a) R 1 (b) 2 3");
		if (write(ends[1], &theirs, sizeof(theirs)) < 0)
			_exit(1);
		_exit(read(go[0], &byte, 1) != 0);
	}
	assert_int_equal(read(ends[0], &theirs, sizeof(theirs)),
			 sizeof(theirs));
	assert_int_equal(theirs.pid, child);
	assert_memory_not_equal(&theirs, &mine, sizeof(mine));
	assert_ok(petal_peer_identify(child, &found));
	assert_memory_equal(&theirs, &found, sizeof(found));
	close(go[0]);
	close(go[1]);
	reap(child);
	close(ends[0]);
	close(ends[1]);
}

static void death__a_zombie_is_dead(void **state)
{
	pid_t child = start_child();
	struct petal_peer peer = watch(child);
	struct petal_peer again;

	(void)state;
	assert_outcome(petal_peer_dead(&peer), 0);
	kill_to_zombie(child);
	assert_int_equal(petal_peer_dead(&peer), 1);
	assert_outcome(petal_peer_open(&peer.id, &again), -ESRCH);
	assert_outcome(petal_peer_open_fd(peer.fd, &again), -ESRCH);
	assert_outcome(petal_peer_identify(child, &again.id), -ESRCH);
	reap(child);
	assert_int_equal(petal_peer_dead(&peer), 1);
	assert_outcome(petal_peer_open(&peer.id, &again), -ESRCH);
	assert_outcome(petal_peer_open_fd(peer.fd, &again), -ESRCH);
	assert_outcome(petal_peer_identify(child, &again.id), -ESRCH);
	petal_peer_close(&peer);
}

static void death__wakes_an_epoll_and_stays(void **state)
{
	struct epoll_event event = { .events = EPOLLIN };
	pid_t child = start_child();
	struct petal_peer peer = watch(child);
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	(void)state;
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, petal_peer_fd(&peer),
				   &event),
			 0);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 0);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(epoll_wait(epoll, &event, 1, WAIT_MS), 1);
	assert_int_equal(petal_peer_dead(&peer), 1);
	reap(child);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 1);
	petal_peer_close(&peer);
	close(epoll);
}

static void death__is_found_every_time(void **state)
{
	(void)state;
	for (uint64_t i = petal_test_rounds(100); i > 0; i--) {
		pid_t child = start_child();
		struct petal_peer peer = watch(child);
		struct pollfd p = { .fd = petal_peer_fd(&peer),
				    .events = POLLIN };

		assert_outcome(petal_peer_dead(&peer), 0);
		assert_int_equal(kill(child, SIGKILL), 0);
		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		assert_int_equal(petal_peer_dead(&peer), 1);
		reap(child);
		petal_peer_close(&peer);
	}
}

static void death__a_stopped_process_is_not_dead(void **state)
{
	pid_t child = start_child();
	struct petal_peer peer = watch(child);
	struct petal_peer again;
	int status;

	(void)state;
	assert_int_equal(kill(child, SIGSTOP), 0);
	assert_int_equal(waitpid(child, &status, WUNTRACED), child);
	assert_true(WIFSTOPPED(status));
	assert_outcome(petal_peer_dead(&peer), 0);
	assert_ok(petal_peer_open(&peer.id, &again));
	petal_peer_close(&again);
	kill_and_reap(child);
	assert_int_equal(petal_peer_dead(&peer), 1);
	petal_peer_close(&peer);
}

static void *outlive_the_leader(void *argument)
{
	char byte;

	/* Ends when the parent closes its end. */
	_exit(read(*(int *)argument, &byte, 1) != 0);
}

static char process_state(pid_t pid)
{
	char path[32], text[256];
	int fd;
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	length = read(fd, text, sizeof(text) - 1);
	assert_true(length > 0);
	text[length] = '\0';
	close(fd);
	return strrchr(text, ')')[2];
}

static void death__needs_the_last_thread_not_the_first(void **state)
{
	struct petal_peer peer;
	int ends[2];
	pid_t child;

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		pthread_t thread;

		close(ends[1]);
		if (pthread_create(&thread, NULL, outlive_the_leader, &ends[0]))
			_exit(2);
		syscall(SYS_exit, 0);
	}
	/* The leader alone is a zombie, its thread runs on. */
	while (process_state(child) != 'Z')
		sched_yield();
	peer = watch(child);
	assert_outcome(petal_peer_dead(&peer), 0);
	close(ends[0]);
	close(ends[1]);
	reap(child);
	assert_int_equal(petal_peer_dead(&peer), 1);
	petal_peer_close(&peer);
}

static void open__another_start_under_the_pid_means_dead(void **state)
{
	pid_t child = start_child();
	struct petal_peer_id id;
	struct petal_peer peer = { .fd = -7 };

	(void)state;
	assert_ok(petal_peer_identify(child, &id));
	id.start_ticks--;
	assert_outcome(petal_peer_open(&id, &peer), -ESRCH);
	assert_int_equal(peer.fd, -7);
	kill_and_reap(child);
}

/* A process under a PID of our choice; -1 if we may not choose. */
static pid_t start_child_as(pid_t pid)
{
	struct clone_args arguments = {
		.exit_signal = SIGCHLD,
		.set_tid = (uintptr_t)&pid,
		.set_tid_size = 1,
	};
	pid_t child = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));

	if (child == 0) {
		/* Directly, for the C library has not seen this fork. */
		syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		syscall(SYS_pause);
		syscall(SYS_exit_group, 0);
	}
	return child;
}

static void open__a_pid_given_to_another_deceives_nobody(void **state)
{
	pid_t first = start_child();
	struct petal_peer peer = watch(first);
	struct petal_peer_id now;
	struct petal_peer again;
	pid_t second;

	(void)state;
	/* The start is counted in ticks: let this one pass. */
	do {
		pid_t other = start_child();

		assert_ok(petal_peer_identify(other, &now));
		kill_and_reap(other);
	} while (now.start_ticks <= peer.id.start_ticks);
	kill_and_reap(first);
	second = start_child_as(first);
	if (second < 0) {
		print_message("may not choose a PID (%s), so not tried\n",
			      petal_error_name(errno));
		petal_peer_close(&peer);
		return;
	}
	assert_int_equal(second, first);
	assert_int_equal(petal_peer_dead(&peer), 1);
	assert_outcome(petal_peer_open(&peer.id, &again), -ESRCH);
	assert_outcome(petal_peer_open_fd(peer.fd, &again), -ESRCH);
	assert_ok(petal_peer_identify(second, &now));
	assert_int_not_equal(now.start_ticks, peer.id.start_ticks);
	kill_and_reap(second);
	petal_peer_close(&peer);
}

static void *stay(void *argument)
{
	char byte;
	int *ends = argument;
	pid_t tid = (pid_t)syscall(SYS_gettid);

	if (write(ends[1], &tid, sizeof(tid)) != sizeof(tid))
		abort();
	return read(ends[2], &byte, 1) ? NULL : argument;
}

static void open__a_pid_that_became_a_thread_means_dead(void **state)
{
	struct petal_peer_id id;
	struct petal_peer peer;
	pthread_t thread;
	int ends[4];
	pid_t tid;

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(pipe2(ends + 2, O_CLOEXEC), 0);
	assert_int_equal(pthread_create(&thread, NULL, stay, ends), 0);
	assert_int_equal(read(ends[0], &tid, sizeof(tid)), sizeof(tid));
	assert_ok(petal_peer_self(&id));
	id.pid = (uint32_t)tid;
	assert_outcome(petal_peer_open(&id, &peer), -ESRCH);
	close(ends[3]);
	assert_int_equal(pthread_join(thread, NULL), 0);
	close(ends[0]);
	close(ends[1]);
	close(ends[2]);
}

static void open__what_is_no_identity_is_einval(void **state)
{
	struct petal_peer_id good, bad;
	struct petal_peer peer;

	(void)state;
	assert_ok(petal_peer_self(&good));
	memset(&bad, 0, sizeof(bad));
	assert_outcome(petal_peer_open(&bad, &peer), -EINVAL);
	memset(&bad, 0xff, sizeof(bad));
	assert_outcome(petal_peer_open(&bad, &peer), -EINVAL);
	bad = good;
	bad.pid = (uint32_t)INT_MAX + 1;
	assert_outcome(petal_peer_open(&bad, &peer), -EINVAL);
	bad = good;
	bad.reserved = 1;
	assert_outcome(petal_peer_open(&bad, &peer), -EINVAL);
	assert_outcome(petal_peer_identify(0, &bad), -EINVAL);
	assert_outcome(petal_peer_identify(-1, &bad), -EINVAL);
}

static void open__of_another_boot_or_namespace_cannot_be_judged(void **state)
{
	struct petal_peer_id id;
	struct petal_peer peer;

	(void)state;
	assert_ok(petal_peer_self(&id));
	id.realm_hash ^= 1;
	assert_outcome(petal_peer_open(&id, &peer), -EXDEV);
	/* Not even if its PID is nobody's here. */
	id.pid = INT_MAX;
	assert_outcome(petal_peer_open(&id, &peer), -EXDEV);
}

static void self__under_the_proc_of_another_namespace_is_exdev(void **state)
{
	int status;
	pid_t child = fork();

	(void)state;
	if (child == 0) {
		struct petal_peer_id id;
		pid_t inner;

		if (unshare(CLONE_NEWPID))
			_exit(77);
		inner = fork();
		if (inner == 0)
			_exit(petal_peer_self(&id) == -EXDEV &&
					      petal_peer_identify(1, &id) ==
						      -EXDEV
				      ? 0
				      : 1);
		if (waitpid(inner, &status, 0) != inner)
			_exit(2);
		_exit(status ? 3 : 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		print_message("may not enter a namespace, so not tried\n");
	else
		assert_int_equal(WEXITSTATUS(status), 0);
}

static void open_fd__finds_whose_pidfd_it_is(void **state)
{
	pid_t child = start_child();
	struct petal_peer_id id;
	struct petal_peer peer;
	int pidfd = (int)syscall(SYS_pidfd_open, child, 0);

	(void)state;
	assert_true(pidfd >= 0);
	assert_ok(petal_peer_identify(child, &id));
	assert_ok(petal_peer_open_fd(pidfd, &peer));
	assert_memory_equal(&peer.id, &id, sizeof(id));
	close(pidfd);
	assert_int_equal(fcntl(petal_peer_fd(&peer), F_GETFD), FD_CLOEXEC);
	assert_outcome(petal_peer_dead(&peer), 0);
	kill_and_reap(child);
	assert_int_equal(petal_peer_dead(&peer), 1);
	petal_peer_close(&peer);
}

static void open_fd__what_is_no_pidfd_is_einval(void **state)
{
	struct petal_peer peer;
	int ends[2];
	int fd = memfd_create("not a pidfd", MFD_CLOEXEC);

	(void)state;
	assert_outcome(petal_peer_open_fd(fd, &peer), -EINVAL);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_outcome(petal_peer_open_fd(ends[0], &peer), -EINVAL);
	assert_outcome(petal_peer_open_fd(-1, &peer), -EBADF);
	close(fd);
	close(ends[0]);
	close(ends[1]);
}

static void open_fd__of_a_single_thread_is_einval(void **state)
{
	struct petal_peer peer;
	/* O_EXCL is what PIDFD_THREAD is made of; Linux 6.9 knows it. */
	int fd = (int)syscall(SYS_pidfd_open, getpid(), O_EXCL);

	(void)state;
	if (fd < 0) {
		print_message("no pidfds of threads here, so not tried\n");
		return;
	}
	assert_outcome(petal_peer_open_fd(fd, &peer), -EINVAL);
	close(fd);
}

/* ---- Across PID namespaces. ---- */

static void send_fd(int socket, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	char byte = 0;
	struct iovec data = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	assert_int_equal(sendmsg(socket, &message, 0), 1);
}

static int receive_fd(int socket)
{
	char control[CMSG_SPACE(sizeof(int))];
	char byte;
	struct iovec data = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	int fd;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 ||
	    !CMSG_FIRSTHDR(&message))
		return -1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

/* Who is not root may do so as the root of a namespace of users. */
static int enter_namespace(void)
{
	return unshare(CLONE_NEWPID) && unshare(CLONE_NEWUSER | CLONE_NEWPID);
}

static bool may_enter_namespaces(void)
{
	int status;
	pid_t child = fork();

	if (child == 0)
		_exit(enter_namespace() != 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	if (status)
		print_message("may not enter a namespace, so not tried\n");
	return status == 0;
}

/* Runs in a namespace from which nobody outside can be seen. */
typedef int inside(int socket);

static int run_inside(inside *body, int socket)
{
	int status;
	pid_t inner;

	if (enter_namespace())
		return PETAL_TEST_SKIPPED;
	inner = fork();
	if (inner == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(body(socket));
	}
	if (waitpid(inner, &status, 0) != inner || !WIFEXITED(status))
		return 99;
	return WEXITSTATUS(status);
}

static pid_t start_inside(inside *body, int ends[2])
{
	pid_t child;

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(ends[0]);
		_exit(run_inside(body, ends[1]));
	}
	close(ends[1]);
	return child;
}

static void assert_went_well(pid_t child)
{
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == PETAL_TEST_SKIPPED)
		print_message("not in this kernel, so not tried\n");
	else
		assert_int_equal(WEXITSTATUS(status), 0);
}

static bool has_pidfs(void)
{
	struct petal_peer_id id;
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	int outcome = petal_peer_identify_fd(pidfd, &id);

	close(pidfd);
	return outcome == 0;
}

/* Gets a pidfd of someone outside, and whom he says he is. */
static int watch_from_inside(int socket)
{
	struct petal_peer_id stated, lie;
	struct petal_peer peer, other;
	int pidfd = receive_fd(socket);
	struct pollfd p = { .events = POLLIN };

	if (pidfd < 0 || read(socket, &stated, sizeof(stated)) < 0)
		return 1;
	lie = stated;
	lie.start_ticks++;
	if (stated.pid == 0 &&
	    (petal_peer_open_fd(pidfd, &peer) ||
	     memcmp(&peer.id, &stated, sizeof(stated)) != 0 ||
	     petal_peer_open_stated(pidfd, &lie, &other) != -PETAL_EAUTH))
		return 2;
	if (petal_peer_open_stated(pidfd, &stated, &peer) ||
	    memcmp(&peer.id, &stated, sizeof(stated)) != 0)
		return 3;
	if (petal_peer_open(&stated, &other) != -EXDEV)
		return 4;
	if (petal_peer_dead(&peer) != 0 || write(socket, "k", 1) != 1)
		return 5;
	/* It is killed now, and nobody waits for it yet. */
	p.fd = petal_peer_fd(&peer);
	if (poll(&p, 1, WAIT_MS) != 1 || petal_peer_dead(&peer) != 1)
		return 6;
	if (petal_peer_open_fd(pidfd, &other) != -ESRCH ||
	    petal_peer_open_stated(pidfd, &stated, &other) != -ESRCH)
		return 7;
	return 0;
}

static void watch_across(const struct petal_peer_id *stated, pid_t victim,
			 int pidfd)
{
	int ends[2];
	pid_t child = start_inside(watch_from_inside, ends);
	char byte;

	signal(SIGPIPE, SIG_IGN);
	send_fd(ends[0], pidfd);
	assert_int_equal(write(ends[0], stated, sizeof(*stated)),
			 sizeof(*stated));
	if (read(ends[0], &byte, 1) == 1)
		kill_to_zombie(victim);
	assert_went_well(child);
	close(ends[0]);
}

static void namespaces__death_outside_is_proved_by_a_sent_pidfd(void **state)
{
	struct petal_peer_id by_inode, by_pid;
	pid_t victim;
	int pidfd;

	(void)state;
	if (!may_enter_namespaces())
		return;
	if (has_pidfs()) {
		victim = start_child();
		pidfd = (int)syscall(SYS_pidfd_open, victim, 0);
		assert_ok(petal_peer_identify_fd(pidfd, &by_inode));
		watch_across(&by_inode, victim, pidfd);
		kill(victim, SIGKILL);
		reap(victim);
		close(pidfd);
	}
	victim = start_child();
	pidfd = (int)syscall(SYS_pidfd_open, victim, 0);
	assert_ok(petal_peer_identify(victim, &by_pid));
	watch_across(&by_pid, victim, pidfd);
	kill(victim, SIGKILL);
	reap(victim);
	close(pidfd);
}

/* Connects nowhere: takes the connection of somebody outside. */
static int accept_from_inside(int socket)
{
	int listener = receive_fd(socket);
	int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct petal_peer peer;
	socklen_t size = sizeof(int);
	int pidfd, outcome;
	char byte;
	struct pollfd p = { .events = POLLIN };

	if (connection < 0)
		return 1;
	if (getsockopt(connection, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size))
		return PETAL_TEST_SKIPPED;
	outcome = petal_peer_open_fd(pidfd, &peer);
	if (outcome == -EXDEV)
		return PETAL_TEST_SKIPPED;
	if (outcome || petal_peer_dead(&peer) != 0)
		return 2;
	/* Let go of whoever has connected, who then ends. */
	if (write(connection, "x", 1) != 1)
		return 3;
	p.fd = petal_peer_fd(&peer);
	if (poll(&p, 1, WAIT_MS) != 1 || petal_peer_dead(&peer) != 1)
		return 4;
	return read(connection, &byte, 1) == 0 ? 0 : 5;
}

static void namespaces__death_outside_is_proved_by_a_connection(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t size = sizeof(sa_family_t);
	int listener, ends[2];
	pid_t child, client;

	(void)state;
	if (!may_enter_namespaces())
		return;
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* Without a name: the kernel gives it an abstract one. */
	assert_int_equal(bind(listener, (void *)&address, size), 0);
	size = sizeof(address);
	assert_int_equal(getsockname(listener, (void *)&address, &size), 0);
	assert_int_equal(listen(listener, 1), 0);
	client = fork();
	if (client == 0) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		char byte;

		close(listener);
		if (connect(fd, (void *)&address, size))
			_exit(1);
		_exit(read(fd, &byte, 1) < 0);
	}
	child = start_inside(accept_from_inside, ends);
	send_fd(ends[0], listener);
	close(listener);
	assert_went_well(child);
	reap(client);
	close(ends[0]);
}

static int state_from_inside(int socket)
{
	struct petal_peer_id id;
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	char byte;

	if (pidfd < 0 || petal_peer_identify_fd(pidfd, &id))
		return PETAL_TEST_SKIPPED;
	send_fd(socket, pidfd);
	if (write(socket, &id, sizeof(id)) != sizeof(id))
		return 1;
	return read(socket, &byte, 1) == 0 ? 0 : 2;
}

static void namespaces__both_sides_find_one_identity_by_inode(void **state)
{
	struct petal_peer_id stated, found;
	struct petal_peer peer;
	int ends[2], pidfd;
	pid_t child;

	(void)state;
	if (!may_enter_namespaces())
		return;
	child = start_inside(state_from_inside, ends);
	pidfd = receive_fd(ends[0]);
	if (pidfd >= 0) {
		assert_int_equal(read(ends[0], &stated, sizeof(stated)),
				 sizeof(stated));
		assert_int_equal(stated.pid, 0);
		assert_ok(petal_peer_identify_fd(pidfd, &found));
		assert_memory_equal(&stated, &found, sizeof(found));
		assert_ok(petal_peer_open_stated(pidfd, &stated, &peer));
		petal_peer_close(&peer);
		/* We see into the namespace, so here it has a PID too. */
		assert_ok(petal_peer_open_fd(pidfd, &peer));
		assert_int_not_equal(peer.id.pid, 0);
		close(ends[0]);
		assert_went_well(child);
		assert_int_equal(petal_peer_dead(&peer), 1);
		petal_peer_close(&peer);
		close(pidfd);
	} else {
		close(ends[0]);
		assert_went_well(child);
	}
}

static void stated__in_our_realm_is_held_against_the_kernel(void **state)
{
	pid_t child = start_child();
	int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	struct petal_peer_id id, self;
	struct petal_peer peer = { .fd = -7 };

	(void)state;
	assert_ok(petal_peer_identify(child, &id));
	assert_ok(petal_peer_self(&self));
	assert_outcome(petal_peer_open_stated(pidfd, &self, &peer),
		       -PETAL_EAUTH);
	assert_outcome(petal_peer_open_stated(0, &id, &peer), -EINVAL);
	assert_outcome(petal_peer_open_stated(-1, &id, &peer), -EBADF);
	self.reserved = 1;
	assert_outcome(petal_peer_open_stated(pidfd, &self, &peer), -EINVAL);
	assert_int_equal(peer.fd, -7);
	assert_ok(petal_peer_open_stated(pidfd, &id, &peer));
	kill_to_zombie(child);
	assert_int_equal(petal_peer_dead(&peer), 1);
	reap(child);
	assert_int_equal(petal_peer_dead(&peer), 1);
	petal_peer_close(&peer);
	close(pidfd);
}

static void inode__is_anothers_for_every_process(void **state)
{
	struct petal_peer_id a, b;
	pid_t child = start_child();
	int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	int own = (int)syscall(SYS_pidfd_open, getpid(), 0);

	(void)state;
	if (has_pidfs()) {
		assert_ok(petal_peer_identify_fd(pidfd, &a));
		assert_ok(petal_peer_identify_fd(own, &b));
		assert_int_not_equal(a.start_ticks, b.start_ticks);
		assert_true(a.realm_hash == b.realm_hash);
		assert_int_equal(petal_peer_stamp(&a), 0);
	} else {
		assert_outcome(petal_peer_identify_fd(pidfd, &a), -EXDEV);
	}
	assert_outcome(petal_peer_identify_fd(0, &a), -EINVAL);
	kill_and_reap(child);
	close(pidfd);
	close(own);
}

static void stamp__is_the_identity_in_one_word(void **state)
{
	struct petal_peer_id id, back;

	(void)state;
	assert_ok(petal_peer_self(&id));
	assert_true(petal_peer_stamp(&id) != 0);
	petal_peer_unstamp(petal_peer_stamp(&id), id.realm_hash, &back);
	assert_memory_equal(&id, &back, sizeof(id));
	id.pid = 1u << 22;
	assert_int_equal(petal_peer_stamp(&id), 0);
	id.pid = (1u << 22) - 1;
	assert_true(petal_peer_stamp(&id) != 0);
	id.start_ticks = UINT64_C(1) << 42;
	assert_int_equal(petal_peer_stamp(&id), 0);
	id.pid = 0;
	id.start_ticks = 1;
	assert_int_equal(petal_peer_stamp(&id), 0);
}

/* What the parent owned is not the child's: the parent's death is proved. */
static void fork__a_child_that_lives_on_is_not_its_parent(void **state)
{
	struct petal_peer_id of_child;
	struct petal_peer parent, child;
	int ends[2], go[2];
	char byte;
	pid_t middle;

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	middle = fork();
	if (middle == 0) {
		close(go[1]);
		if (fork() == 0) {
			if (petal_peer_self(&of_child) ||
			    write(ends[1], &of_child, sizeof(of_child)) < 0)
				_exit(1);
			_exit(read(go[0], &byte, 1) != 0);
		}
		pause();
		_exit(0);
	}
	parent = watch(middle);
	assert_int_equal(read(ends[0], &of_child, sizeof(of_child)),
			 sizeof(of_child));
	assert_memory_not_equal(&of_child, &parent.id, sizeof(of_child));
	assert_ok(petal_peer_open(&of_child, &child));
	kill_and_reap(middle);
	assert_int_equal(petal_peer_dead(&parent), 1);
	assert_int_equal(petal_peer_dead(&child), 0);
	close(go[1]);
	petal_peer_close(&parent);
	petal_peer_close(&child);
	close(go[0]);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			namespaces__death_outside_is_proved_by_a_sent_pidfd),
		cmocka_unit_test(
			namespaces__death_outside_is_proved_by_a_connection),
		cmocka_unit_test(
			namespaces__both_sides_find_one_identity_by_inode),
		cmocka_unit_test(
			stated__in_our_realm_is_held_against_the_kernel),
		cmocka_unit_test(inode__is_anothers_for_every_process),
		cmocka_unit_test(stamp__is_the_identity_in_one_word),
		cmocka_unit_test(fork__a_child_that_lives_on_is_not_its_parent),
		cmocka_unit_test(self__is_always_the_same),
		cmocka_unit_test(self__can_be_watched_and_lives),
		cmocka_unit_test(
			self__of_a_child_is_what_the_parent_finds_for_it),
		cmocka_unit_test(
			self__under_the_proc_of_another_namespace_is_exdev),
		cmocka_unit_test(death__a_zombie_is_dead),
		cmocka_unit_test(death__wakes_an_epoll_and_stays),
		cmocka_unit_test(death__is_found_every_time),
		cmocka_unit_test(death__a_stopped_process_is_not_dead),
		cmocka_unit_test(death__needs_the_last_thread_not_the_first),
		cmocka_unit_test(open__another_start_under_the_pid_means_dead),
		cmocka_unit_test(open__a_pid_given_to_another_deceives_nobody),
		cmocka_unit_test(open__a_pid_that_became_a_thread_means_dead),
		cmocka_unit_test(open__what_is_no_identity_is_einval),
		cmocka_unit_test(
			open__of_another_boot_or_namespace_cannot_be_judged),
		cmocka_unit_test(open_fd__finds_whose_pidfd_it_is),
		cmocka_unit_test(open_fd__what_is_no_pidfd_is_einval),
		cmocka_unit_test(open_fd__of_a_single_thread_is_einval),
	};

	return cmocka_run_group_tests_name("peer", tests, NULL, NULL);
}
