/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The happy path: servers are asked to end (SIGTERM), given two seconds, killed
 * with their groups while their leaders are still zombies (so that no number
 * has a new owner), waited for; the keeper hears "all ended" and removes the
 * directory. If we die without a word, the keeper kills the groups it was told
 * of first.
 */
#include "bench/nest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/clock.h"

#define PATIENCE_NS PETAL_S(2)
#define PORTS_MAX 16u
#define REMOVALS 1000u

/* What the keeper is told when there is nothing left to kill. */
#define ALL_ENDED ((pid_t)-1)

static volatile sig_atomic_t stop_signal;

static void note_signal(int number)
{
	stop_signal = number;
}

static void watch_signals(void)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = {
		.sa_handler = note_signal,
		.sa_flags = (int)SA_RESETHAND,
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		sigaction(numbers[i], &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

bool petal_nest_stopped(void)
{
	return stop_signal != 0;
}

/* The keeper. */

static int remove_any(const char *path, const struct stat *stat, int type,
		      struct FTW *ftw)
{
	(void)stat;
	(void)type;
	(void)ftw;
	remove(path);
	return 0;
}

static _Noreturn void keep(const struct petal_nest *nest, int fd)
{
	pid_t pids[PETAL_NEST_CHILDREN], pid;
	unsigned count = 0;

	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	while (read(fd, &pid, sizeof(pid)) == (ssize_t)sizeof(pid)) {
		if (pid == ALL_ENDED)
			count = 0;
		else if (count < PETAL_NEST_CHILDREN)
			pids[count++] = pid;
	}
	for (unsigned i = 0; i < count; i++)
		kill(-pids[i], SIGKILL);
	/* Who has not quite ended may still write. */
	for (unsigned i = 0; i < REMOVALS && access(nest->dir, F_OK) == 0;
	     i++) {
		nftw(nest->dir, remove_any, 16, FTW_DEPTH | FTW_PHYS);
		if (access(nest->dir, F_OK) == 0)
			poll(NULL, 0, 10);
	}
	_exit(0);
}

int petal_nest_open(struct petal_nest *nest, const char *base)
{
	int ends[2], err;

	memset(nest, 0, sizeof(*nest));
	nest->pipe_fd = -1;
	if (!base)
		base = getenv("TMPDIR");
	if (!base || !*base)
		base = "/tmp";
	if (snprintf(nest->dir, sizeof(nest->dir), "%s/petalith-bench-XXXXXX",
		     base) >= (int)sizeof(nest->dir))
		return -ENAMETOOLONG;
	if (!mkdtemp(nest->dir)) {
		nest->dir[0] = '\0';
		return -errno;
	}
	watch_signals();
	err = pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0;
	nest->keeper = err == 0 ? fork() : -1;
	if (nest->keeper < 0) {
		err = err < 0 ? err : -errno;
		rmdir(nest->dir);
		nest->dir[0] = '\0';
		return err;
	}
	if (nest->keeper == 0) {
		close(ends[1]);
		keep(nest, ends[0]);
	}
	close(ends[0]);
	nest->pipe_fd = ends[1];
	return 0;
}

void petal_nest_path(const struct petal_nest *nest, const char *name,
		     char path[PETAL_NEST_PATH])
{
	snprintf(path, PETAL_NEST_PATH, "%s/%.100s", nest->dir, name);
}

/* Servers. */

/* In the child. */
static void settle(const struct petal_nest *nest, pid_t parent)
{
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	close(nest->pipe_fd);
}

/* In the parent. */
static int take_in(struct petal_nest *nest, pid_t pid)
{
	if (pid < 0)
		return -errno;
	setpgid(pid, pid);
	nest->children[nest->count++] = pid;
	if (write(nest->pipe_fd, &pid, sizeof(pid)) < 0)
		return -errno;
	return 0;
}

static _Noreturn void become(const struct petal_nest *nest, const char *log,
			     const char *const *argv, const char *const *env)
{
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	int nothing = open("/dev/null", O_RDONLY);

	if (fd < 0 || nothing < 0 || chdir(nest->dir) < 0)
		_exit(127);
	dup2(nothing, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	while (env && *env)
		putenv((char *)(uintptr_t)*env++);
	execv(argv[0], (char *const *)(uintptr_t)argv);
	dprintf(2, "cannot run %s: %s\n", argv[0], strerrordesc_np(errno));
	_exit(127);
}

int petal_nest_start(struct petal_nest *nest, const char *name,
		     const char *const *argv, const char *const *env)
{
	char file[64], log[PETAL_NEST_PATH];
	pid_t parent = getpid(), pid;

	if (nest->count == PETAL_NEST_CHILDREN)
		return -ENOSPC;
	snprintf(file, sizeof(file), "%.50s.log", name);
	petal_nest_path(nest, file, log);
	pid = fork();
	if (pid == 0) {
		settle(nest, parent);
		become(nest, log, argv, env);
	}
	return take_in(nest, pid);
}

int petal_nest_fork(struct petal_nest *nest, void (*serve)(void *arg),
		    void *arg)
{
	pid_t parent = getpid(), pid;

	if (nest->count == PETAL_NEST_CHILDREN)
		return -ENOSPC;
	pid = fork();
	if (pid == 0) {
		settle(nest, parent);
		serve(arg);
		_exit(0);
	}
	return take_in(nest, pid);
}

int petal_nest_check(const struct petal_nest *nest, unsigned first,
		     unsigned count)
{
	siginfo_t info;

	for (unsigned i = first; i < first + count && i < nest->count; i++) {
		info.si_pid = 0;
		if (waitid(P_PID, (id_t)nest->children[i], &info,
			   WEXITED | WNOHANG | WNOWAIT) < 0 ||
		    info.si_pid != 0)
			return -ECHILD;
	}
	return 0;
}

void petal_nest_words(const struct petal_nest *nest, const char *name,
		      char *words, size_t size)
{
	char log[PETAL_NEST_PATH], line[512], text[64];
	FILE *file;

	snprintf(text, sizeof(text), "%.50s.log", name);
	petal_nest_path(nest, text, log);
	file = fopen(log, "re");
	*words = '\0';
	while (file && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0])
			snprintf(words, size, "%s", line);
	}
	if (file)
		fclose(file);
}

uint64_t petal_nest_cpu_ns(const struct petal_nest *nest, unsigned first,
			   unsigned count)
{
	uint64_t sum_ns = 0;
	struct timespec time;
	clockid_t clock;

	for (unsigned i = first; i < first + count && i < nest->count; i++)
		if (clock_getcpuclockid(nest->children[i], &clock) == 0 &&
		    clock_gettime(clock, &time) == 0)
			sum_ns += PETAL_S(time.tv_sec) + (uint64_t)time.tv_nsec;
	return sum_ns;
}

/* All are held together, or the kernel may name one twice. */
int petal_nest_ports(uint16_t *ports, unsigned count)
{
	struct sockaddr_in address;
	socklen_t size = sizeof(address);
	int held[PORTS_MAX], err = 0;
	unsigned i;

	if (count > PORTS_MAX)
		return -EINVAL;
	for (i = 0; i < count && err == 0; i++) {
		memset(&address, 0, sizeof(address));
		address.sin_family = AF_INET;
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		held[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (held[i] < 0 ||
		    bind(held[i], (struct sockaddr *)&address,
			 sizeof(address)) < 0 ||
		    getsockname(held[i], (struct sockaddr *)&address, &size) <
			    0)
			err = -errno;
		ports[i] = ntohs(address.sin_port);
	}
	while (i-- > 0)
		if (held[i] >= 0)
			close(held[i]);
	return err;
}

bool petal_nest_find(const char *name, char path[PETAL_NEST_PATH])
{
	static const char *const places[] = { "/usr/local/bin", "/usr/bin",
					      "/usr/local/sbin", "/usr/sbin" };

	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		snprintf(path, PETAL_NEST_PATH, "%s/%.100s", places[i], name);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

/* The end. */

static void end_servers(struct petal_nest *nest)
{
	uint64_t end_ns = petal_clock_now_ns() + PATIENCE_NS;
	siginfo_t info;

	for (unsigned i = 0; i < nest->count; i++)
		kill(nest->children[i], SIGTERM);
	for (unsigned i = 0; i < nest->count; i++) {
		while (petal_nest_check(nest, i, 1) == 0 &&
		       petal_clock_now_ns() < end_ns)
			poll(NULL, 0, 10);
		kill(-nest->children[i], SIGKILL);
		waitid(P_PID, (id_t)nest->children[i], &info, WEXITED);
	}
	nest->count = 0;
}

void petal_nest_close(struct petal_nest *nest)
{
	pid_t ended = ALL_ENDED;

	if (nest->dir[0] == '\0')
		return;
	end_servers(nest);
	if (write(nest->pipe_fd, &ended, sizeof(ended)) < 0)
		perror("keeper");
	close(nest->pipe_fd);
	waitpid(nest->keeper, NULL, 0);
	nest->dir[0] = '\0';
	if (stop_signal) {
		signal(stop_signal, SIG_DFL);
		raise(stop_signal);
	}
}
