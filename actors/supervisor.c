/*
 * The happy path: start copies the spec into a free slot, asks the slot's
 * petal_restart for permission, spawns, and puts the pidfd into the epoll. The
 * pidfd turns readable when the process ends; poll collects the status, tells
 * EXITED, and asks petal_restart again, which sets the timer for a restart.
 *
 * What goes wrong, and where it is met:
 *   the program cannot be executed     spawn() reads errno from a pipe that a
 *                                      successful exec closes
 *   the parent dies before prctl       child_main() compares getppid()
 *   a signal arrives before the exec   all are blocked from before the clone
 *                                      until the child has reset handlers
 *   the host reaps all its children    waitid gives ECHILD, told as a status
 *   the host ignores SIGCHLD           the same; the pidfd comes from clone
 *                                      itself, so it is never a stranger's
 *   a child ignores SIGTERM            the grace runs out, SIGKILL
 */
#include "actors/supervisor.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* READY_MAX ends are met in one poll. In the epoll a pidfd has its slot's
 * index, and the timer one that no slot has. */
enum { READY_MAX = 32, TIMER = PETAL_SUPERVISOR_CHILDREN_MAX };

struct child {
	/* 0 for a slot without a child. */
	uint32_t id;
	struct petal_restart restart;
	/* STARTED or ENDED has still to be told. */
	bool tell_started;
	bool tell_ended;
	/* -1 and 0 while there is no process. */
	int pidfd;
	pid_t pid;
	struct petal_supervisor_pass fds[PETAL_SUPERVISOR_FDS_MAX];
	uint32_t fd_count;
	char name[PETAL_SUPERVISOR_NAME_BYTES];
	char *argv[PETAL_SUPERVISOR_ARGS_MAX + 1];
	char arguments[PETAL_SUPERVISOR_ARGS_BYTES];
};

struct petal_supervisor {
	int epoll_fd;
	int timer_fd;
	bool stopped;
	uint32_t last_id;
	uint32_t child_count;
	uint32_t children_max;
	struct child children[];
};

/* Where poll puts what it tells. */
struct told {
	struct petal_supervisor_event *events;
	uint32_t count;
	uint32_t max;
};

/* ---- between clone and exec: async-signal-safe calls only ---- */

static void reset_signals(void)
{
	const struct sigaction by_default = { .sa_handler = SIG_DFL };
	sigset_t none;

	/* Handlers would vanish at the exec, but what is ignored stays so: a
	 * daemon that ignores SIGPIPE must not make its children do so. Those
	 * that cannot be changed fail, and need no change. */
	for (int i = 1; i < NSIG; i++)
		sigaction(i, &by_default, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * All are first moved out of the way of all targets, for one fd's target may
 * be the next one's source. dup2 then also clears close-on-exec, which it
 * would not if source and target were the same.
 */
static int place_fds(const struct child *child, int *report_fd)
{
	int moved[PETAL_SUPERVISOR_FDS_MAX];

	*report_fd = fcntl(*report_fd, F_DUPFD_CLOEXEC,
			   PETAL_SUPERVISOR_FD_TO_MAX + 1);
	if (*report_fd < 0)
		return -errno;
	for (uint32_t i = 0; i < child->fd_count; i++) {
		moved[i] = fcntl(child->fds[i].from, F_DUPFD_CLOEXEC,
				 PETAL_SUPERVISOR_FD_TO_MAX + 1);
		if (moved[i] < 0)
			return -errno;
	}
	for (uint32_t i = 0; i < child->fd_count; i++)
		if (dup2(moved[i], child->fds[i].to) < 0)
			return -errno;
	return 0;
}

static int become(const struct child *child, pid_t parent, int *report_fd)
{
	int err;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -errno;
	/* Whoever died before the line above can no longer signal us. */
	if (getppid() != parent)
		return -ESRCH;
	if (setpgid(0, 0) < 0)
		return -errno;
	err = place_fds(child, report_fd);
	if (err)
		return err;
	reset_signals();
	execve(child->argv[0], child->argv, environ);
	return -errno;
}

static _Noreturn void child_main(const struct child *child, pid_t parent,
				 int report_fd)
{
	int fallback_fd = report_fd;
	int err = become(child, parent, &report_fd);

	if (report_fd < 0)
		report_fd = fallback_fd;
	/* A parent that could not be told sees the shell's status for it. */
	if (write(report_fd, &err, sizeof(err)) != sizeof(err))
		_exit(126);
	_exit(127);
}

/* ---- processes ---- */

/*
 * fork with a pidfd from the same instant. It copies no page tables of shared
 * mappings, so a large segment does not make it slow.
 *
 * glibc's fork would also run atfork handlers, which a child that goes straight
 * to exec neither needs nor may run.
 */
static pid_t clone_process(int *ret_pidfd)
{
	return (pid_t)syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, ret_pidfd,
			      NULL, 0);
}

/* Blocks until the process is gone; for those that are about to be. */
static void collect(int pidfd)
{
	siginfo_t info;

	while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 &&
	       errno == EINTR)
		;
	close(pidfd);
}

/* What the child reports before its exec; nothing at all if that succeeds. */
static int read_report(int fd)
{
	ssize_t n;
	int err;

	do
		n = read(fd, &err, sizeof(err));
	while (n < 0 && errno == EINTR);
	if (n == 0)
		return 0;
	return n == sizeof(err) ? err : -EIO;
}

static int clone_child(struct child *child, int report_fd)
{
	pid_t parent = getpid();
	sigset_t all, before;
	int pidfd = -1, err;
	pid_t pid;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = clone_process(&pidfd);
	err = pid < 0 ? -errno : 0;
	if (pid == 0)
		child_main(child, parent, report_fd);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		return err;
	child->pid = pid;
	child->pidfd = pidfd;
	return 0;
}

static int watch(struct petal_supervisor *supervisor, struct child *child)
{
	struct epoll_event event = {
		.events = EPOLLIN,
		.data.u32 = (uint32_t)(child - supervisor->children),
	};

	if (epoll_ctl(supervisor->epoll_fd, EPOLL_CTL_ADD, child->pidfd,
		      &event) < 0)
		return -errno;
	return 0;
}

static void forget_process(struct child *child)
{
	child->pidfd = -1;
	child->pid = 0;
}

static int spawn(struct petal_supervisor *supervisor, struct child *child)
{
	int report[2], err;

	if (pipe2(report, O_CLOEXEC) < 0)
		return -errno;
	err = clone_child(child, report[1]);
	close(report[1]);
	if (!err) {
		err = read_report(report[0]);
		if (!err)
			err = watch(supervisor, child);
		if (err) {
			pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0);
			collect(child->pidfd);
			forget_process(child);
		}
	}
	close(report[0]);
	return err;
}

static void send_signal(const struct child *child, int signal)
{
	/* Fails only if it has ended already, which is what we want of it. */
	if (child->pidfd >= 0)
		pidfd_send_signal(child->pidfd, signal, NULL, 0);
}

/* ---- slots ---- */

static struct child *find_child(struct petal_supervisor *supervisor,
				uint32_t id)
{
	for (uint32_t i = 0; i < supervisor->children_max && id; i++)
		if (supervisor->children[i].id == id)
			return &supervisor->children[i];
	return NULL;
}

static struct child *free_slot(struct petal_supervisor *supervisor)
{
	for (uint32_t i = 0; i < supervisor->children_max; i++)
		if (supervisor->children[i].id == 0)
			return &supervisor->children[i];
	return NULL;
}

static void free_child(struct child *child)
{
	for (uint32_t i = 0; i < child->fd_count; i++)
		close(child->fds[i].from);
	*child = (struct child){ .pidfd = -1 };
}

static int copy_name(struct child *child, const char *name)
{
	size_t length = name ? strnlen(name, sizeof(child->name)) : 0;

	if (length == 0)
		return -EINVAL;
	if (length == sizeof(child->name))
		return -ENAMETOOLONG;
	memcpy(child->name, name, length);
	return 0;
}

static int copy_argv(struct child *child, const char *const *argv)
{
	size_t used = 0;
	uint32_t i;

	if (!argv || !argv[0])
		return -EINVAL;
	for (i = 0; argv[i]; i++) {
		size_t bytes = strlen(argv[i]) + 1;

		if (i == PETAL_SUPERVISOR_ARGS_MAX ||
		    bytes > sizeof(child->arguments) - used)
			return -E2BIG;
		child->argv[i] = child->arguments + used;
		memcpy(child->argv[i], argv[i], bytes);
		used += bytes;
	}
	child->argv[i] = NULL;
	return 0;
}

static int copy_fd(struct child *child, const struct petal_supervisor_pass *fd)
{
	int copy;

	if (fd->to < 0 || fd->to > PETAL_SUPERVISOR_FD_TO_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < child->fd_count; i++)
		if (child->fds[i].to == fd->to)
			return -EINVAL;
	copy = fcntl(fd->from, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return -errno;
	child->fds[child->fd_count++] = (struct petal_supervisor_pass){
		.from = copy,
		.to = fd->to,
	};
	return 0;
}

static int copy_fds(struct child *child,
		    const struct petal_supervisor_spec *spec)
{
	int err = 0;

	if (spec->fd_count > PETAL_SUPERVISOR_FDS_MAX)
		return -E2BIG;
	for (uint32_t i = 0; i < spec->fd_count && !err; i++)
		err = copy_fd(child, &spec->fds[i]);
	return err;
}

static int copy_spec(struct child *child,
		     const struct petal_supervisor_spec *spec)
{
	int err = copy_name(child, spec->name);

	if (!err)
		err = copy_argv(child, spec->argv);
	if (!err)
		err = petal_restart_init(&child->restart, &spec->restart);
	if (!err)
		err = copy_fds(child, spec);
	return err;
}

static int check_start(const struct petal_supervisor *supervisor,
		       const struct petal_supervisor_spec *spec)
{
	if (supervisor->stopped)
		return -ESHUTDOWN;
	if (!spec->name)
		return -EINVAL;
	for (uint32_t i = 0; i < supervisor->children_max; i++)
		if (supervisor->children[i].id &&
		    !strcmp(supervisor->children[i].name, spec->name))
			return -EEXIST;
	return 0;
}

/* ---- time ---- */

static uint64_t next_ns(const struct petal_supervisor *supervisor)
{
	uint64_t first_ns = PETAL_CLOCK_NEVER;

	for (uint32_t i = 0; i < supervisor->children_max; i++) {
		const struct child *child = &supervisor->children[i];
		uint64_t due_ns;

		if (!child->id)
			continue;
		if (child->tell_started || child->tell_ended)
			return 0;
		due_ns = petal_restart_next_ns(&child->restart);
		if (due_ns < first_ns)
			first_ns = due_ns;
	}
	return first_ns;
}

static void set_timer(struct petal_supervisor *supervisor)
{
	struct itimerspec timer = { .it_value = { 0 } };
	uint64_t due_ns = next_ns(supervisor);

	/* All zero would mean never, and never is all zero. */
	if (due_ns != PETAL_CLOCK_NEVER)
		timer.it_value = petal_clock_timespec(due_ns ? due_ns : 1);
	/* Cannot fail: the fd and the time are good. Setting it also takes
	 * back that it had fired. */
	timerfd_settime(supervisor->timer_fd, TFD_TIMER_ABSTIME, &timer, NULL);
}

/* ---- what is asked for, and what is told ---- */

static bool has_room(const struct told *told, uint32_t events)
{
	return told->max - told->count >= events;
}

static struct petal_supervisor_event *
tell(struct told *told, enum petal_supervisor_event_type type,
     const struct child *child)
{
	struct petal_supervisor_event *event = &told->events[told->count++];

	assert(told->count <= told->max);
	*event = (struct petal_supervisor_event){
		.type = type,
		.child = child->id,
		.pid = child->pid,
	};
	memcpy(event->name, child->name, sizeof(event->name));
	return event;
}

static void tell_last(struct petal_supervisor *supervisor, struct told *told,
		      enum petal_supervisor_event_type type,
		      struct child *child)
{
	tell(told, type, child);
	free_child(child);
	supervisor->child_count--;
}

static enum petal_restart_action ask(struct child *child,
				     const struct petal_restart_event *event)
{
	enum petal_restart_action action;

	petal_restart_step(&child->restart, petal_clock_now_ns(), event,
			   &action);
	return action;
}

/* Tells what follows from an end; has room for one event. */
static void on_ended(struct petal_supervisor *supervisor, struct told *told,
		     struct child *child, bool clean)
{
	const struct petal_restart_event ended = {
		.type = PETAL_RESTART_ENDED,
		.clean = clean,
	};

	switch (ask(child, &ended)) {
	case PETAL_RESTART_OVER:
		tell_last(supervisor, told, PETAL_SUPERVISOR_ENDED, child);
		break;
	case PETAL_RESTART_GIVE_UP:
		tell_last(supervisor, told, PETAL_SUPERVISOR_GAVE_UP, child);
		break;
	default:
		break;
	}
}

/* Has room for two events. */
static void respawn(struct petal_supervisor *supervisor, struct told *told,
		    struct child *child)
{
	int err = spawn(supervisor, child);

	if (!err) {
		tell(told, PETAL_SUPERVISOR_RESTARTED, child);
		return;
	}
	tell(told, PETAL_SUPERVISOR_EXITED, child)->status = err;
	on_ended(supervisor, told, child, false);
}

static void on_tick(struct petal_supervisor *supervisor, struct told *told,
		    struct child *child)
{
	const struct petal_restart_event tick = { .type = PETAL_RESTART_TICK };

	switch (ask(child, &tick)) {
	case PETAL_RESTART_SPAWN:
		respawn(supervisor, told, child);
		break;
	case PETAL_RESTART_KILL:
		send_signal(child, SIGKILL);
		break;
	default:
		break;
	}
}

static void on_stop(struct child *child, uint64_t grace_ns)
{
	const struct petal_restart_event stop = {
		.type = PETAL_RESTART_STOP,
		.grace_ns = grace_ns,
	};

	switch (ask(child, &stop)) {
	case PETAL_RESTART_TERMINATE:
		send_signal(child, SIGTERM);
		break;
	case PETAL_RESTART_KILL:
		send_signal(child, SIGKILL);
		break;
	case PETAL_RESTART_OVER:
		child->tell_ended = true;
		break;
	default:
		break;
	}
}

/* Returns whether the process has ended, and how. */
static bool collect_status(const struct child *child, int *ret_status,
			   int *ret_signal)
{
	siginfo_t info = { .si_pid = 0 };

	*ret_status = 0;
	*ret_signal = 0;
	if (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG) < 0) {
		/* Its status is lost, but it is not there any more. */
		*ret_status = -errno;
		return true;
	}
	if (info.si_pid == 0)
		return false;
	if (info.si_code == CLD_EXITED)
		*ret_status = info.si_status;
	else
		*ret_signal = info.si_status;
	return true;
}

/* Has room for two events. */
static void on_readable(struct petal_supervisor *supervisor, struct told *told,
			struct child *child)
{
	struct petal_supervisor_event *event;
	int status, signal;

	if (!collect_status(child, &status, &signal))
		return;
	event = tell(told, PETAL_SUPERVISOR_EXITED, child);
	event->status = status;
	event->signal = signal;
	/* Closing would not be enough while a fork of another thread still
	 * holds a copy of it. */
	epoll_ctl(supervisor->epoll_fd, EPOLL_CTL_DEL, child->pidfd, NULL);
	close(child->pidfd);
	forget_process(child);
	on_ended(supervisor, told, child, status == 0 && signal == 0);
}

/* ---- the three parts of a poll ---- */

/* What start and stop have left to be told. Before all else, since a process
 * may have ended before anyone heard that it was started; what is left here
 * has used up the room, so nothing overtakes it. */
static void poll_untold(struct petal_supervisor *supervisor, struct told *told)
{
	for (uint32_t i = 0; i < supervisor->children_max; i++) {
		struct child *child = &supervisor->children[i];

		if (!has_room(told, 2))
			return;
		if (child->tell_started)
			tell(told, PETAL_SUPERVISOR_STARTED, child);
		child->tell_started = false;
		if (child->tell_ended)
			tell_last(supervisor, told, PETAL_SUPERVISOR_ENDED,
				  child);
	}
}

static void poll_ended(struct petal_supervisor *supervisor, struct told *told)
{
	struct epoll_event ready[READY_MAX];
	int n = epoll_wait(supervisor->epoll_fd, ready, READY_MAX, 0);

	for (int i = 0; i < n && has_room(told, 2); i++) {
		struct child *child;

		if (ready[i].data.u32 == TIMER)
			continue;
		child = &supervisor->children[ready[i].data.u32];
		if (child->pidfd >= 0)
			on_readable(supervisor, told, child);
	}
}

static void poll_due(struct petal_supervisor *supervisor, struct told *told)
{
	for (uint32_t i = 0; i < supervisor->children_max; i++)
		if (supervisor->children[i].id && has_room(told, 2))
			on_tick(supervisor, told, &supervisor->children[i]);
}

int petal_supervisor_poll(struct petal_supervisor *supervisor,
			  struct petal_supervisor_event *events, uint32_t max)
{
	struct told told = { .events = events, .max = max };

	if (max < 2)
		return -EINVAL;
	poll_untold(supervisor, &told);
	poll_ended(supervisor, &told);
	poll_due(supervisor, &told);
	set_timer(supervisor);
	return (int)told.count;
}

/* ---- the other calls ---- */

static int watch_timer(struct petal_supervisor *supervisor)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = TIMER };

	supervisor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (supervisor->epoll_fd < 0)
		return -errno;
	supervisor->timer_fd =
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (supervisor->timer_fd < 0)
		return -errno;
	if (epoll_ctl(supervisor->epoll_fd, EPOLL_CTL_ADD, supervisor->timer_fd,
		      &event) < 0)
		return -errno;
	return 0;
}

int petal_supervisor_open(const struct petal_supervisor_options *options,
			  struct petal_supervisor **ret_supervisor)
{
	struct petal_supervisor *supervisor;
	int err;

	if (options->strategy != PETAL_SUPERVISOR_ONE_FOR_ONE ||
	    options->children_max < 1 ||
	    options->children_max > PETAL_SUPERVISOR_CHILDREN_MAX)
		return -EINVAL;
	supervisor =
		calloc(1, sizeof(*supervisor) +
				  options->children_max * sizeof(struct child));
	if (!supervisor)
		return -ENOMEM;
	supervisor->epoll_fd = -1;
	supervisor->timer_fd = -1;
	supervisor->children_max = options->children_max;
	for (uint32_t i = 0; i < options->children_max; i++)
		free_child(&supervisor->children[i]);
	err = watch_timer(supervisor);
	if (err) {
		petal_supervisor_close(supervisor);
		return err;
	}
	*ret_supervisor = supervisor;
	return 0;
}

void petal_supervisor_close(struct petal_supervisor *supervisor)
{
	if (!supervisor)
		return;
	/* All are killed before the first is waited for. */
	for (uint32_t i = 0; i < supervisor->children_max; i++)
		send_signal(&supervisor->children[i], SIGKILL);
	for (uint32_t i = 0; i < supervisor->children_max; i++) {
		if (supervisor->children[i].pidfd >= 0)
			collect(supervisor->children[i].pidfd);
		free_child(&supervisor->children[i]);
	}
	if (supervisor->timer_fd >= 0)
		close(supervisor->timer_fd);
	if (supervisor->epoll_fd >= 0)
		close(supervisor->epoll_fd);
	free(supervisor);
}

int petal_supervisor_start(struct petal_supervisor *supervisor,
			   const struct petal_supervisor_spec *spec,
			   uint32_t *ret_child)
{
	const struct petal_restart_event start = {
		.type = PETAL_RESTART_START,
	};
	struct child *child = free_slot(supervisor);
	int err = check_start(supervisor, spec);

	if (err)
		return err;
	if (!child)
		return -ENOSPC;
	err = copy_spec(child, spec);
	if (!err && ask(child, &start) == PETAL_RESTART_SPAWN)
		err = spawn(supervisor, child);
	if (err) {
		free_child(child);
		return err;
	}
	child->id = ++supervisor->last_id;
	child->tell_started = true;
	supervisor->child_count++;
	set_timer(supervisor);
	*ret_child = child->id;
	return 0;
}

int petal_supervisor_fd(const struct petal_supervisor *supervisor)
{
	return supervisor->epoll_fd;
}

void petal_supervisor_stop(struct petal_supervisor *supervisor,
			   uint64_t grace_ns)
{
	supervisor->stopped = true;
	for (uint32_t i = 0; i < supervisor->children_max; i++)
		if (supervisor->children[i].id)
			on_stop(&supervisor->children[i], grace_ns);
	set_timer(supervisor);
}

int petal_supervisor_stop_child(struct petal_supervisor *supervisor,
				uint32_t id, uint64_t grace_ns)
{
	struct child *child = find_child(supervisor, id);

	if (!child)
		return -ENOENT;
	on_stop(child, grace_ns);
	set_timer(supervisor);
	return 0;
}

int petal_supervisor_signal(struct petal_supervisor *supervisor, uint32_t id,
			    int signal)
{
	struct child *child = find_child(supervisor, id);

	if (!child)
		return -ENOENT;
	if (child->pidfd < 0)
		return -ESRCH;
	if (pidfd_send_signal(child->pidfd, signal, NULL, 0) < 0)
		return -errno;
	return 0;
}

uint32_t petal_supervisor_count(const struct petal_supervisor *supervisor)
{
	return supervisor->child_count;
}
