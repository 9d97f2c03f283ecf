/*
 * The supervisor with real processes: starting, restarting, giving up,
 * stopping, what a child inherits, and what is left after a kill -9 of the
 * supervisor itself. When to restart is restart_test.c.
 *
 * Nothing sleeps: a test waits for the supervisor's fd, for a pidfd, or for a
 * byte that a child writes. A wait that lasts 60 seconds fails.
 *
 * Harder: PETAL_TEST_KILLS=1000 (default 100) for more kill -9 of children and
 * (a tenth of it) of supervisors.
 */
#include "tests/check.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "actors/supervisor.h"
#include "shm/clock.h"

enum { EVENTS = 16, WAIT_MS = 60000 };

struct fixture {
	struct petal_supervisor *supervisor;
	struct petal_supervisor_event events[EVENTS];
	int event_count;
	int event_next;
};

/* Restarts at once and for ever: a window that no two restarts fit into. */
static const struct petal_restart_options quick = {
	.policy = PETAL_RESTART_PERMANENT,
	.restarts_max = 1,
	.window_ns = 1,
};

static struct petal_restart_options policy(enum petal_restart_policy value,
					   uint32_t restarts_max)
{
	return (struct petal_restart_options){
		.policy = value,
		.restarts_max = restarts_max,
		.window_ns = PETAL_S(60),
		.backoff_ns = PETAL_MS(1),
		.backoff_max_ns = PETAL_MS(10),
	};
}

static int setup(void **state)
{
	const struct petal_supervisor_options options = { .children_max = 4 };
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_ok(petal_supervisor_open(&options, &f->supervisor));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	petal_supervisor_close(f->supervisor);
	free(f);
	/* Nothing of ours may be left, not even a zombie. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	return 0;
}

static void wait_readable(int fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };

	assert_int_equal(poll(&wait, 1, WAIT_MS), 1);
}

static bool is_readable(int fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };

	return poll(&wait, 1, 0) == 1;
}

/* The next event, however long it takes to come. */
static const struct petal_supervisor_event *next(struct fixture *f)
{
	while (f->event_next == f->event_count) {
		wait_readable(petal_supervisor_fd(f->supervisor));
		f->event_next = 0;
		f->event_count =
			petal_supervisor_poll(f->supervisor, f->events, EVENTS);
		assert_in_range(f->event_count, 0, EVENTS);
	}
	return &f->events[f->event_next++];
}

static pid_t expect(struct fixture *f, enum petal_supervisor_event_type type,
		    const char *name)
{
	const struct petal_supervisor_event *event = next(f);

	assert_int_equal(event->type, type);
	assert_string_equal(event->name, name);
	return event->pid;
}

static void expect_exit(struct fixture *f, pid_t pid, int status, int signal)
{
	const struct petal_supervisor_event *event = next(f);

	assert_int_equal(event->type, PETAL_SUPERVISOR_EXITED);
	assert_int_equal(event->pid, pid);
	assert_int_equal(event->status, status);
	assert_int_equal(event->signal, signal);
}

static int try_start(struct fixture *f, const char *name,
		     struct petal_restart_options restart,
		     const char *const *argv, uint32_t *ret_child)
{
	const struct petal_supervisor_spec spec = {
		.name = name,
		.argv = argv,
		.restart = restart,
	};

	return petal_supervisor_start(f->supervisor, &spec, ret_child);
}

static uint32_t start_shell(struct fixture *f, const char *name,
			    struct petal_restart_options restart,
			    const char *script)
{
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };
	uint32_t child = 0;

	assert_ok(try_start(f, name, restart, argv, &child));
	return child;
}

static uint32_t start_sleep(struct fixture *f, const char *name,
			    struct petal_restart_options restart)
{
	const char *const argv[] = { "/bin/sleep", "1000", NULL };
	uint32_t child = 0;

	assert_ok(try_start(f, name, restart, argv, &child));
	return child;
}

/* A child whose fd 3 is the write end of a pipe that the test reads. */
static uint32_t start_with_pipe(struct fixture *f, const char *name,
				struct petal_restart_options restart,
				const char *script, int *ret_read_fd)
{
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };
	struct petal_supervisor_pass pass = { .to = 3 };
	const struct petal_supervisor_spec spec = {
		.name = name,
		.argv = argv,
		.restart = restart,
		.fds = &pass,
		.fd_count = 1,
	};
	uint32_t child = 0;
	int fds[2];

	assert_ok(pipe2(fds, O_CLOEXEC));
	pass.from = fds[1];
	assert_ok(petal_supervisor_start(f->supervisor, &spec, &child));
	close(fds[1]);
	*ret_read_fd = fds[0];
	return child;
}

static const char *read_line(int fd)
{
	static char line[512];
	size_t length = 0;

	do {
		wait_readable(fd);
		assert_int_equal(read(fd, line + length, 1), 1);
		assert_true(++length < sizeof(line));
	} while (line[length - 1] != '\n');
	line[length - 1] = 0;
	return line;
}

static uint64_t kills(void)
{
	const char *text = getenv("PETAL_TEST_KILLS");

	return text ? strtoull(text, NULL, 10) : 100;
}

/* ---- start ---- */

static void open__options_out_of_range_are_refused(void **state)
{
	struct petal_supervisor_options options = { .children_max = 0 };
	struct petal_supervisor *supervisor = NULL;

	(void)state;
	assert_outcome(petal_supervisor_open(&options, &supervisor), -EINVAL);
	options.children_max = PETAL_SUPERVISOR_CHILDREN_MAX + 1;
	assert_outcome(petal_supervisor_open(&options, &supervisor), -EINVAL);
	options.children_max = 1;
	options.strategy = (enum petal_supervisor_strategy)1;
	assert_outcome(petal_supervisor_open(&options, &supervisor), -EINVAL);
	assert_null(supervisor);
	petal_supervisor_close(NULL);
}

static void start__what_cannot_be_run_is_refused_by_name(void **state)
{
	const char *const missing[] = { "/no/such/program", NULL };
	const char *const directory[] = { "/tmp", NULL };
	const char *const sleeper[] = { "/bin/sleep", "1000", NULL };
	const char *const empty[] = { NULL };
	const char *many[PETAL_SUPERVISOR_ARGS_MAX + 2] = { NULL };
	struct petal_restart_options bad = quick;
	struct fixture *f = *state;
	uint32_t child = 77;

	for (int i = 0; i <= PETAL_SUPERVISOR_ARGS_MAX; i++)
		many[i] = "x";
	bad.restarts_max = PETAL_RESTART_MAX + 1;
	assert_outcome(try_start(f, "a", quick, missing, &child), -ENOENT);
	assert_outcome(try_start(f, "a", quick, directory, &child), -EACCES);
	assert_outcome(try_start(f, "a", quick, empty, &child), -EINVAL);
	assert_outcome(try_start(f, "a", quick, many, &child), -E2BIG);
	assert_outcome(try_start(f, "", quick, sleeper, &child), -EINVAL);
	assert_outcome(try_start(f, NULL, quick, sleeper, &child), -EINVAL);
	assert_outcome(try_start(f, "a name of thirty-two characters!", quick,
				 sleeper, &child),
		       -ENAMETOOLONG);
	assert_outcome(try_start(f, "a", bad, sleeper, &child), -EINVAL);
	assert_int_equal(child, 77);
	assert_int_equal(petal_supervisor_count(f->supervisor), 0);
	assert_false(is_readable(petal_supervisor_fd(f->supervisor)));
}

static void start__the_table_is_bounded_and_names_are_unique(void **state)
{
	const char *const argv[] = { "/bin/sleep", "1000", NULL };
	struct fixture *f = *state;
	uint32_t child;

	start_sleep(f, "a", quick);
	assert_outcome(try_start(f, "a", quick, argv, &child), -EEXIST);
	start_sleep(f, "b", quick);
	start_sleep(f, "c", quick);
	start_sleep(f, "d", quick);
	assert_outcome(try_start(f, "e", quick, argv, &child), -ENOSPC);
	assert_int_equal(petal_supervisor_count(f->supervisor), 4);
}

static void start__bad_fds_are_refused(void **state)
{
	const char *const argv[] = { "/bin/sleep", "1000", NULL };
	struct petal_supervisor_pass fds[PETAL_SUPERVISOR_FDS_MAX + 1] = {
		{ .from = 0, .to = 9 },
	};
	struct petal_supervisor_spec spec = {
		.name = "a",
		.argv = argv,
		.restart = quick,
		.fds = fds,
	};
	struct fixture *f = *state;
	uint32_t child;

	spec.fd_count = PETAL_SUPERVISOR_FDS_MAX + 1;
	assert_outcome(petal_supervisor_start(f->supervisor, &spec, &child),
		       -E2BIG);
	spec.fd_count = 2;
	fds[1] = fds[0];
	assert_outcome(petal_supervisor_start(f->supervisor, &spec, &child),
		       -EINVAL);
	fds[1] = (struct petal_supervisor_pass){ .from = 0, .to = 256 };
	assert_outcome(petal_supervisor_start(f->supervisor, &spec, &child),
		       -EINVAL);
	fds[1] = (struct petal_supervisor_pass){ .from = 999, .to = 10 };
	assert_outcome(petal_supervisor_start(f->supervisor, &spec, &child),
		       -EBADF);
}

static void exit__is_told_with_its_status(void **state)
{
	struct fixture *f = *state;
	pid_t pid;

	start_shell(f, "a", policy(PETAL_RESTART_TEMPORARY, 0), "exit 42");
	pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");
	expect_exit(f, pid, 42, 0);
	expect(f, PETAL_SUPERVISOR_ENDED, "a");
	assert_int_equal(petal_supervisor_count(f->supervisor), 0);
	/* And its name is free again, under a new id. */
	assert_int_equal(start_sleep(f, "a", quick), 2);
}

static void exit__by_a_signal_is_told_with_the_signal(void **state)
{
	struct fixture *f = *state;
	pid_t pid;

	start_shell(f, "a", policy(PETAL_RESTART_TEMPORARY, 0),
		    "kill -USR1 $$");
	pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");
	expect_exit(f, pid, 0, SIGUSR1);
	expect(f, PETAL_SUPERVISOR_ENDED, "a");
}

/* ---- restart ---- */

static void restart__a_killed_child_comes_back(void **state)
{
	struct fixture *f = *state;
	uint32_t a = start_sleep(f, "a", quick);
	pid_t last, pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");

	/* The other child never appears: it is none of its business. */
	start_sleep(f, "b", quick);
	expect(f, PETAL_SUPERVISOR_STARTED, "b");
	for (uint64_t i = 0; i < kills(); i++) {
		assert_ok(petal_supervisor_signal(f->supervisor, a, SIGKILL));
		expect_exit(f, pid, 0, SIGKILL);
		last = pid;
		pid = expect(f, PETAL_SUPERVISOR_RESTARTED, "a");
		assert_int_not_equal(pid, last);
	}
	assert_int_equal(petal_supervisor_count(f->supervisor), 2);
}

static void restart__transient_ends_when_its_work_is_done(void **state)
{
	struct fixture *f = *state;
	char script[512];
	char *dir = petal_test_tmpdir();
	pid_t pid;

	/* The first run fails and leaves a mark, the second succeeds. */
	snprintf(script, sizeof(script),
		 "test -e %s/mark && exit 0; : > %s/mark; exit 1", dir, dir);
	start_shell(f, "a", policy(PETAL_RESTART_TRANSIENT, 5), script);
	pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");
	expect_exit(f, pid, 1, 0);
	pid = expect(f, PETAL_SUPERVISOR_RESTARTED, "a");
	expect_exit(f, pid, 0, 0);
	expect(f, PETAL_SUPERVISOR_ENDED, "a");
	petal_test_tmpdir_remove(dir);
}

static void restart__transient_comes_back_from_a_signal(void **state)
{
	struct fixture *f = *state;
	uint32_t child =
		start_sleep(f, "a", policy(PETAL_RESTART_TRANSIENT, 5));
	pid_t pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");

	assert_ok(petal_supervisor_signal(f->supervisor, child, SIGTERM));
	expect_exit(f, pid, 0, SIGTERM);
	expect(f, PETAL_SUPERVISOR_RESTARTED, "a");
}

static void restart__a_spent_budget_is_given_up(void **state)
{
	struct fixture *f = *state;
	pid_t pid;

	start_shell(f, "a", policy(PETAL_RESTART_PERMANENT, 3), "exit 1");
	pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");
	for (int i = 0; i < 3; i++) {
		expect_exit(f, pid, 1, 0);
		pid = expect(f, PETAL_SUPERVISOR_RESTARTED, "a");
	}
	expect_exit(f, pid, 1, 0);
	expect(f, PETAL_SUPERVISOR_GAVE_UP, "a");
	assert_int_equal(petal_supervisor_count(f->supervisor), 0);
	assert_false(is_readable(petal_supervisor_fd(f->supervisor)));
}

static void restart__a_program_that_has_gone_spends_the_budget(void **state)
{
	struct fixture *f = *state;
	char *dir = petal_test_tmpdir();
	const char *argv[] = { NULL, NULL };
	char path[512];
	uint32_t child;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/program", dir);
	assert_ok(symlink("/bin/false", path));
	argv[0] = path;
	assert_ok(try_start(f, "a", policy(PETAL_RESTART_PERMANENT, 2), argv,
			    &child));
	pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");
	petal_test_tmpdir_remove(dir);
	expect_exit(f, pid, 1, 0);
	expect_exit(f, 0, -ENOENT, 0);
	expect_exit(f, 0, -ENOENT, 0);
	expect(f, PETAL_SUPERVISOR_GAVE_UP, "a");
}

static void wait_ended(pid_t pid)
{
	int pidfd = pidfd_open(pid, 0);

	assert_true(pidfd >= 0);
	wait_readable(pidfd);
	close(pidfd);
}

/* Notes for each child the initials of its events; returns how many came. */
static int poll_two(struct fixture *f, char story[5][8], pid_t *ret_pid)
{
	static const char initials[] = {
		[PETAL_SUPERVISOR_STARTED] = 's',
		[PETAL_SUPERVISOR_EXITED] = 'x',
		[PETAL_SUPERVISOR_RESTARTED] = 'r',
		[PETAL_SUPERVISOR_ENDED] = 'e',
		[PETAL_SUPERVISOR_GAVE_UP] = 'g',
	};
	struct petal_supervisor_event events[2];
	int n;

	wait_readable(petal_supervisor_fd(f->supervisor));
	n = petal_supervisor_poll(f->supervisor, events, 2);
	assert_in_range(n, 0, 2);
	for (int i = 0; i < n; i++) {
		strncat(story[events[i].child], &initials[events[i].type], 1);
		*ret_pid = events[i].pid;
	}
	return n;
}

/* All four have ended before the first end is asked for, and the restarts of
 * all four are due before the first is. */
static void poll__two_events_at_a_time_lose_none(void **state)
{
	const char *const names[] = { "a", "b", "c", "d" };
	struct fixture *f = *state;
	char story[5][8] = { "" };
	pid_t pids[4], ignored;
	uint64_t due_ns;
	int n = 0;

	for (int i = 0; i < 4; i++)
		start_sleep(f, names[i], policy(PETAL_RESTART_PERMANENT, 1));
	assert_outcome(petal_supervisor_poll(f->supervisor, f->events, 1),
		       -EINVAL);
	for (int i = 0; i < 4; i++)
		assert_int_equal(poll_two(f, story, &pids[i]), 1);
	for (uint32_t i = 0; i < 4; i++) {
		assert_ok(
			petal_supervisor_signal(f->supervisor, i + 1, SIGKILL));
		wait_ended(pids[i]);
	}
	while (n < 4)
		n += poll_two(f, story, &ignored);
	due_ns = petal_clock_now_ns() + PETAL_MS(1);
	while (petal_clock_now_ns() < due_ns)
		;
	while (n < 8)
		n += poll_two(f, story, &ignored);
	petal_supervisor_stop(f->supervisor, 0);
	while (petal_supervisor_count(f->supervisor) > 0)
		poll_two(f, story, &ignored);
	for (int i = 1; i <= 4; i++)
		assert_string_equal(story[i], "sxrxe");
}

/* ---- stop ---- */

static void stop__sigterm_is_enough_for_most(void **state)
{
	struct fixture *f = *state;
	const char *const argv[] = { "/bin/sleep", "1000", NULL };
	uint32_t child;
	pid_t pid;

	start_sleep(f, "a", quick);
	pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");
	petal_supervisor_stop(f->supervisor, PETAL_S(60));
	expect_exit(f, pid, 0, SIGTERM);
	expect(f, PETAL_SUPERVISOR_ENDED, "a");
	assert_outcome(try_start(f, "b", quick, argv, &child), -ESHUTDOWN);
}

static void stop__one_that_ignores_sigterm_is_killed(void **state)
{
	struct fixture *f = *state;
	int ready;
	pid_t pid;

	start_with_pipe(f, "a", quick,
			"trap '' TERM; echo ready >&3; "
			"while :; do read line < /dev/null; done",
			&ready);
	pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");
	assert_string_equal(read_line(ready), "ready");
	petal_supervisor_stop(f->supervisor, PETAL_MS(20));
	expect_exit(f, pid, 0, SIGKILL);
	expect(f, PETAL_SUPERVISOR_ENDED, "a");
	close(ready);
}

static void stop__the_grace_lets_a_child_finish(void **state)
{
	struct fixture *f = *state;
	int ready;
	pid_t pid;

	start_with_pipe(f, "a", quick,
			"trap 'echo finished >&3; exit 7' TERM; "
			"echo ready >&3; "
			"while :; do read line < /dev/null; done",
			&ready);
	pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");
	assert_string_equal(read_line(ready), "ready");
	petal_supervisor_stop(f->supervisor, PETAL_S(60));
	assert_string_equal(read_line(ready), "finished");
	expect_exit(f, pid, 7, 0);
	expect(f, PETAL_SUPERVISOR_ENDED, "a");
	close(ready);
}

/* SIGTERM stays pending for a process that is stopped; SIGKILL does not. */
static void stop__a_frozen_child_is_killed(void **state)
{
	struct fixture *f = *state;
	uint32_t child = start_sleep(f, "a", quick);
	pid_t pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");

	siginfo_t info;

	assert_ok(petal_supervisor_signal(f->supervisor, child, SIGSTOP));
	assert_ok(waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOWAIT));
	petal_supervisor_stop(f->supervisor, PETAL_MS(20));
	expect_exit(f, pid, 0, SIGKILL);
	expect(f, PETAL_SUPERVISOR_ENDED, "a");
}

static void stop__one_child_leaves_the_others_alone(void **state)
{
	struct fixture *f = *state;
	uint32_t a = start_sleep(f, "a", quick);
	pid_t pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");
	uint32_t b = start_sleep(f, "b", quick);

	expect(f, PETAL_SUPERVISOR_STARTED, "b");
	assert_ok(petal_supervisor_stop_child(f->supervisor, a, PETAL_S(60)));
	expect_exit(f, pid, 0, SIGTERM);
	expect(f, PETAL_SUPERVISOR_ENDED, "a");
	assert_outcome(petal_supervisor_stop_child(f->supervisor, a, 0),
		       -ENOENT);
	assert_outcome(petal_supervisor_signal(f->supervisor, a, 0), -ENOENT);
	assert_ok(petal_supervisor_signal(f->supervisor, b, 0));
	assert_int_equal(petal_supervisor_count(f->supervisor), 1);
}

static void stop__before_a_restart_ends_the_child(void **state)
{
	const struct petal_restart_options slow = {
		.policy = PETAL_RESTART_PERMANENT,
		.restarts_max = 1,
		.window_ns = PETAL_S(7200),
		.backoff_ns = PETAL_S(3600),
		.backoff_max_ns = PETAL_S(3600),
	};
	struct fixture *f = *state;
	uint32_t child = start_shell(f, "a", slow, "exit 1");
	pid_t pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");

	expect_exit(f, pid, 1, 0);
	assert_outcome(petal_supervisor_signal(f->supervisor, child, 0),
		       -ESRCH);
	petal_supervisor_stop(f->supervisor, PETAL_S(60));
	expect(f, PETAL_SUPERVISOR_ENDED, "a");
	assert_int_equal(petal_supervisor_count(f->supervisor), 0);
}

/* ---- what a child begins with ---- */

static void inherit__no_fd_but_those_that_were_passed(void **state)
{
	struct fixture *f = *state;
	char end;
	int fd;

	start_with_pipe(f, "a", policy(PETAL_RESTART_TEMPORARY, 0),
			"exec ls /proc/self/fd >&3", &fd);
	/* The streams, ours, and the directory that ls reads. */
	for (int i = 0; i <= 4; i++)
		assert_int_equal(atoi(read_line(fd)), i);
	/* The supervisor's copy of the write end goes with the child. */
	expect_exit(f, expect(f, PETAL_SUPERVISOR_STARTED, "a"), 0, 0);
	expect(f, PETAL_SUPERVISOR_ENDED, "a");
	assert_int_equal(read(fd, &end, 1), 0);
	close(fd);
}

/* The supervisor's copies will be the two lowest free numbers, and each is
 * passed under the number of the other. */
static void inherit__fds_may_change_places(void **state)
{
	char script[128];
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };
	struct petal_supervisor_pass pass[2];
	const struct petal_supervisor_spec spec = {
		.name = "a",
		.argv = argv,
		.restart = policy(PETAL_RESTART_TEMPORARY, 0),
		.fds = pass,
		.fd_count = 2,
	};
	struct fixture *f = *state;
	int left[2], right[2], low, high;
	uint32_t child;

	assert_ok(pipe2(left, O_CLOEXEC));
	assert_ok(pipe2(right, O_CLOEXEC));
	low = dup(0);
	high = dup(0);
	close(low);
	close(high);
	pass[0] = (struct petal_supervisor_pass){ left[1], high };
	pass[1] = (struct petal_supervisor_pass){ right[1], low };
	snprintf(script, sizeof(script),
		 "echo left > /dev/fd/%d; echo right > /dev/fd/%d", high, low);
	assert_ok(petal_supervisor_start(f->supervisor, &spec, &child));
	assert_string_equal(read_line(left[0]), "left");
	assert_string_equal(read_line(right[0]), "right");
	for (int i = 0; i < 2; i++) {
		close(left[i]);
		close(right[i]);
	}
}

static void inherit__every_restart_gets_the_same_fds(void **state)
{
	struct fixture *f = *state;
	int fd;

	start_with_pipe(f, "a", policy(PETAL_RESTART_PERMANENT, 2),
			"echo again >&3; exit 1", &fd);
	for (int i = 0; i < 3; i++) {
		expect(f,
		       i ? PETAL_SUPERVISOR_RESTARTED
			 : PETAL_SUPERVISOR_STARTED,
		       "a");
		assert_string_equal(read_line(fd), "again");
		expect(f, PETAL_SUPERVISOR_EXITED, "a");
	}
	close(fd);
}

static void inherit__signals_are_as_the_kernel_made_them(void **state)
{
	struct fixture *f = *state;
	sigset_t some, before, after;
	const char *line;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&some);
	sigaddset(&some, SIGTERM);
	sigaddset(&some, SIGUSR2);
	sigprocmask(SIG_BLOCK, &some, &before);
	start_with_pipe(f, "a", policy(PETAL_RESTART_TEMPORARY, 0),
			"exec cat /proc/self/status >&3", &fd);
	sigprocmask(SIG_SETMASK, &before, &after);
	signal(SIGPIPE, SIG_DFL);
	/* And the caller's mask is the caller's. */
	assert_true(sigismember(&after, SIGTERM));
	assert_false(sigismember(&after, SIGINT));
	do
		line = read_line(fd);
	while (strncmp(line, "SigBlk:", 7));
	assert_string_equal(line, "SigBlk:\t0000000000000000");
	assert_string_equal(read_line(fd), "SigIgn:\t0000000000000000");
	close(fd);
}

static void inherit__a_process_group_of_its_own(void **state)
{
	struct fixture *f = *state;
	pid_t pid;

	start_sleep(f, "a", quick);
	pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");
	assert_int_equal(getpgid(pid), pid);
}

static void exit__collected_by_somebody_else_is_still_an_end(void **state)
{
	struct fixture *f = *state;
	uint32_t child =
		start_sleep(f, "a", policy(PETAL_RESTART_TEMPORARY, 0));
	pid_t pid = expect(f, PETAL_SUPERVISOR_STARTED, "a");

	assert_ok(petal_supervisor_signal(f->supervisor, child, SIGKILL));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	expect_exit(f, pid, -ECHILD, 0);
	expect(f, PETAL_SUPERVISOR_ENDED, "a");
}

/* ---- the supervisor's own death ---- */

/* A supervisor in a process of its own, which tells its children's pids. */
static _Noreturn void live_as_supervisor(int tell_fd)
{
	const struct petal_supervisor_options options = { .children_max = 4 };
	struct fixture f = { .event_count = 0 };
	pid_t pids[3];

	/* The test's own end must not leave this one behind either. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (petal_supervisor_open(&options, &f.supervisor))
		_exit(1);
	start_sleep(&f, "a", quick);
	start_sleep(&f, "b", quick);
	start_shell(&f, "c", quick,
		    "trap '' TERM INT HUP; "
		    "while :; do read line < /dev/null; done");
	for (int i = 0; i < 3; i++)
		pids[i] = next(&f)->pid;
	if (write(tell_fd, pids, sizeof(pids)) != sizeof(pids))
		_exit(1);
	for (;;)
		pause();
}

static void kill_a_supervisor(void)
{
	int tell[2], pidfds[3];
	pid_t pids[3], supervisor;

	assert_ok(pipe2(tell, O_CLOEXEC));
	supervisor = fork();
	assert_true(supervisor >= 0);
	if (supervisor == 0)
		live_as_supervisor(tell[1]);
	close(tell[1]);
	wait_readable(tell[0]);
	assert_int_equal(read(tell[0], pids, sizeof(pids)), sizeof(pids));
	for (int i = 0; i < 3; i++) {
		pidfds[i] = pidfd_open(pids[i], 0);
		assert_true(pidfds[i] >= 0);
		assert_false(is_readable(pidfds[i]));
	}
	kill(supervisor, SIGKILL);
	assert_int_equal(waitpid(supervisor, NULL, 0), supervisor);
	for (int i = 0; i < 3; i++) {
		wait_readable(pidfds[i]);
		close(pidfds[i]);
	}
	close(tell[0]);
}

static void death__of_the_supervisor_is_the_death_of_its_children(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < kills() / 10 + 1; i++)
		kill_a_supervisor();
}

static void close__leaves_no_process_behind(void **state)
{
	const struct petal_supervisor_options options = { .children_max = 2 };
	struct fixture f = { .event_count = 0 };
	int pidfd;

	(void)state;
	assert_ok(petal_supervisor_open(&options, &f.supervisor));
	start_sleep(&f, "a", quick);
	pidfd = pidfd_open(expect(&f, PETAL_SUPERVISOR_STARTED, "a"), 0);
	assert_true(pidfd >= 0);
	petal_supervisor_close(f.supervisor);
	assert_true(is_readable(pidfd));
	close(pidfd);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

#define with_supervisor(test) \
	cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(open__options_out_of_range_are_refused),
		with_supervisor(start__what_cannot_be_run_is_refused_by_name),
		with_supervisor(
			start__the_table_is_bounded_and_names_are_unique),
		with_supervisor(start__bad_fds_are_refused),
		with_supervisor(exit__is_told_with_its_status),
		with_supervisor(exit__by_a_signal_is_told_with_the_signal),
		with_supervisor(restart__a_killed_child_comes_back),
		with_supervisor(restart__transient_ends_when_its_work_is_done),
		with_supervisor(restart__transient_comes_back_from_a_signal),
		with_supervisor(restart__a_spent_budget_is_given_up),
		with_supervisor(
			restart__a_program_that_has_gone_spends_the_budget),
		with_supervisor(poll__two_events_at_a_time_lose_none),
		with_supervisor(stop__sigterm_is_enough_for_most),
		with_supervisor(stop__one_that_ignores_sigterm_is_killed),
		with_supervisor(stop__the_grace_lets_a_child_finish),
		with_supervisor(stop__a_frozen_child_is_killed),
		with_supervisor(stop__one_child_leaves_the_others_alone),
		with_supervisor(stop__before_a_restart_ends_the_child),
		with_supervisor(inherit__no_fd_but_those_that_were_passed),
		with_supervisor(inherit__fds_may_change_places),
		with_supervisor(inherit__every_restart_gets_the_same_fds),
		with_supervisor(inherit__signals_are_as_the_kernel_made_them),
		with_supervisor(inherit__a_process_group_of_its_own),
		with_supervisor(
			exit__collected_by_somebody_else_is_still_an_end),
		cmocka_unit_test(
			death__of_the_supervisor_is_the_death_of_its_children),
		cmocka_unit_test(close__leaves_no_process_behind),
	};

	/* Whoever runs the test may have left it fds of its own. */
	close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
