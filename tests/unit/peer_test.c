/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/peer.h with real processes: a zombie is dead, a stopped process is
 * not, a PID that went to another process deceives nobody, and what cannot be
 * judged is an error and not a death. Every wait is for the event itself, never
 * for time.
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
#include <sys/syscall.h>
#include <sys/wait.h>

#include "shm/peer.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
