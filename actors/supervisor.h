#ifndef PETAL_ACTORS_SUPERVISOR_H
#define PETAL_ACTORS_SUPERVISOR_H

#include <stdint.h>
#include <sys/types.h>

#include "actors/restart.h"

/**
 * DOC: supervisor - keeper of child processes
 *
 *      petal_supervisor_fd()            one fd for the caller's epoll
 *              |
 *    +---------+----------+
 *    | epoll              |
 *    |  pidfd  of child 1 |---> process, SIGKILLed if we die
 *    |  pidfd  of child 2 |---> process
 *    |  timerfd           |     back-off and grace of all children
 *    +--------------------+
 *
 * Each child is a program that is started, watched, restarted as its
 * restart.h options say, and stopped. The supervisor decides nothing itself: it
 * carries out what petal_restart_step() asks for and tells what happened, in
 * order, through petal_supervisor_poll(). It starts no thread, installs no
 * signal handler, and needs no SIGCHLD.
 *
 * Of one child the caller sees
 *
 *    STARTED  (EXITED RESTARTED)*  EXITED?  then ENDED or GAVE_UP
 *
 * and after the last of these its id is never used again. What GAVE_UP means
 * for the others is the caller's matter: a supervisor that is itself a child
 * ends with a failure, and so hands the trouble to its own supervisor.
 *
 * Always true: a signal is sent, and an exit status is collected, by pidfd
 * only, so never to or from a process that has merely inherited a number.
 *
 * A child begins with: the default disposition of every signal, no signal
 * blocked, a process group of its own (so that a terminal's ^C reaches the
 * supervisor, which then stops its children in order), the caller's
 * environment, directory and standard streams, the fds that its spec passes,
 * and no other fd: every fd of this process is expected to be close-on-exec,
 * as all are that Petalith opens.
 *
 * Threads: one, for all calls on one supervisor, and that thread must live as
 * long as the children: Linux sends a child its parent-death signal when the
 * thread that created it ends, even if the process goes on. The call after
 * which a child exists is petal_supervisor_start() or, for a restart,
 * petal_supervisor_poll().
 *
 * Crash: when the supervisor dies, by SIGKILL too, the kernel kills every
 * child. It does not kill what a child has started; a child that starts
 * processes does as we do, or is a supervisor itself. A program that is set-uid
 * or has file capabilities loses the parent-death signal at its exec, and is
 * no child for this supervisor.
 */

enum {
	/** The largest children_max. */
	PETAL_SUPERVISOR_CHILDREN_MAX = 256,
	/** Bytes of a child's name, with its final 0. */
	PETAL_SUPERVISOR_NAME_BYTES = 32,
	/** The most arguments, and the bytes of all together. */
	PETAL_SUPERVISOR_ARGS_MAX = 64,
	PETAL_SUPERVISOR_ARGS_BYTES = 4096,
	/** The most fds that one child is passed. */
	PETAL_SUPERVISOR_FDS_MAX = 16,
	/** The highest number that a passed fd may be given. */
	PETAL_SUPERVISOR_FD_TO_MAX = 255,
};

/** enum petal_supervisor_strategy - who is restarted when one child fails */
enum petal_supervisor_strategy {
	/** That child. */
	PETAL_SUPERVISOR_ONE_FOR_ONE,
};

/** struct petal_supervisor_options - of the supervisor as a whole */
struct petal_supervisor_options {
	enum petal_supervisor_strategy strategy;
	/** @children_max: 1 to PETAL_SUPERVISOR_CHILDREN_MAX, at one time. */
	uint32_t children_max;
};

/** struct petal_supervisor_pass - one fd for a child */
struct petal_supervisor_pass {
	/** @from: ours; duplicated by start, so it may be closed after it. The
	 * duplicate stays open until ENDED or GAVE_UP is told: the other
	 * end of a pipe does not hang up at the exit of one process. */
	int from;
	/** @to: its number in the child, 0 to PETAL_SUPERVISOR_FD_TO_MAX. */
	int to;
};

/** struct petal_supervisor_spec - how to run one child */
struct petal_supervisor_spec {
	/** @name: for people; unique among the present children. */
	const char *name;
	/** @argv: the program's path, its arguments, NULL. PATH is not
	 * searched. */
	const char *const *argv;
	/** @restart: policy and budget. A clean end is exit status 0. */
	struct petal_restart_options restart;
	/** @fds: @fd_count of them; every start gets the same ones. */
	const struct petal_supervisor_pass *fds;
	uint32_t fd_count;
};

/** enum petal_supervisor_event_type - what has happened to a child */
enum petal_supervisor_event_type {
	/** It runs for the first time, as @pid. */
	PETAL_SUPERVISOR_STARTED,
	/** Process @pid has ended, with @status or by @signal; or a restart
	 * failed, with pid 0 and a negative @status. */
	PETAL_SUPERVISOR_EXITED,
	/** It runs again, as @pid. */
	PETAL_SUPERVISOR_RESTARTED,
	/** It is gone, as its policy or a stop wanted. */
	PETAL_SUPERVISOR_ENDED,
	/** It is gone, because its budget of restarts is spent. */
	PETAL_SUPERVISOR_GAVE_UP,
};

/** struct petal_supervisor_event - one event */
struct petal_supervisor_event {
	enum petal_supervisor_event_type type;
	uint32_t child;
	pid_t pid;
	/** @status: for EXITED: the exit status from 0 to 255; or a failure:
	 * why it could not be started again, or -ECHILD if something else in
	 * this process has collected the status. */
	int status;
	/** @signal: for EXITED: the signal that ended it, or 0. */
	int signal;
	char name[PETAL_SUPERVISOR_NAME_BYTES];
};

struct petal_supervisor;

/**
 * petal_supervisor_open() - make a supervisor without children
 * @options: copied
 * @ret_supervisor: the supervisor
 *
 * Return: 0; -EINVAL for options out of range; -ENOMEM; -EMFILE and the like.
 */
int petal_supervisor_open(const struct petal_supervisor_options *options,
			  struct petal_supervisor **ret_supervisor);

/**
 * petal_supervisor_close() - kill what is left, and forget all
 * @supervisor: the supervisor, or NULL
 *
 * Without grace: SIGKILL, then waits until each is gone. For an orderly end
 * call petal_supervisor_stop() and poll until petal_supervisor_count() is 0.
 */
void petal_supervisor_close(struct petal_supervisor *supervisor);

/**
 * petal_supervisor_start() - add a child and start it
 * @supervisor: the supervisor
 * @spec: copied, with its strings; its fds are duplicated
 * @ret_child: the child's id, from 1, never used twice
 *
 * Returns when the program has been executed, or could not be: a program that
 * is missing is reported here and no child remains. STARTED follows from
 * petal_supervisor_poll() all the same, so that its events alone tell the
 * whole story.
 *
 * Return: 0; -EINVAL for a spec that makes no sense or restart options that
 * petal_restart_init() refuses; -E2BIG for too many arguments or fds;
 * -ENAMETOOLONG; -EEXIST for a name that is present; -ENOSPC if there are
 * children_max children; -ESHUTDOWN after petal_supervisor_stop(); what execve
 * said, such as -ENOENT or -EACCES; -EBADF for a bad fd; -EAGAIN, -ENOMEM,
 * -EMFILE.
 */
int petal_supervisor_start(struct petal_supervisor *supervisor,
			   const struct petal_supervisor_spec *spec,
			   uint32_t *ret_child);

/**
 * petal_supervisor_fd() - what to wait on
 * @supervisor: the supervisor
 *
 * Return: an fd that is readable when petal_supervisor_poll() has work; ours
 * to close.
 */
int petal_supervisor_fd(const struct petal_supervisor *supervisor);

/**
 * petal_supervisor_poll() - do what is due, and tell what happened
 * @supervisor: the supervisor
 * @events: room for @max events
 * @max: at least 2, since an end may bring two
 *
 * Never waits for an event. It may restart children, and waits then, as
 * petal_supervisor_start() does, for their exec. What does not fit into @events
 * is kept, and the fd stays readable.
 *
 * Return: the number of events, from 0; -EINVAL for @max under 2.
 */
int petal_supervisor_poll(struct petal_supervisor *supervisor,
			  struct petal_supervisor_event *events, uint32_t max);

/**
 * petal_supervisor_stop() - ask all children to end, for good
 * @supervisor: the supervisor
 * @grace_ns: the time between SIGTERM and SIGKILL; 0 kills at once
 *
 * Only asks: go on polling until petal_supervisor_count() is 0. Again with a
 * shorter grace is a way to become impatient. No child can be started any
 * more.
 */
void petal_supervisor_stop(struct petal_supervisor *supervisor,
			   uint64_t grace_ns);

/**
 * petal_supervisor_stop_child() - ask one child to end, for good
 * @supervisor: the supervisor
 * @child: its id
 * @grace_ns: as for petal_supervisor_stop()
 *
 * Return: 0; -ENOENT if there is no such child any more.
 */
int petal_supervisor_stop_child(struct petal_supervisor *supervisor,
				uint32_t child, uint64_t grace_ns);

/**
 * petal_supervisor_signal() - send one child a signal
 * @supervisor: the supervisor
 * @child: its id
 * @signal: any signal
 *
 * The policy is not told: a child that is killed this way is restarted as
 * after any other end.
 *
 * Return: 0; -ENOENT if there is no such child; -ESRCH if it has no process
 * just now; -EINVAL for a bad signal.
 */
int petal_supervisor_signal(struct petal_supervisor *supervisor, uint32_t child,
			    int signal);

/**
 * petal_supervisor_count() - how many children there are
 * @supervisor: the supervisor
 *
 * Return: the children whose ENDED or GAVE_UP has not been told yet.
 */
uint32_t petal_supervisor_count(const struct petal_supervisor *supervisor);

#endif
