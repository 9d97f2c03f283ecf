/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_NEST_H
#define PETAL_BENCH_NEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/**
 * DOC: nest - servers that a bench starts, and the directory they write to
 *
 * The bench must leave nothing behind, however it ends. Each server is the
 * leader of a process group and dies with us (PR_SET_PDEATHSIG); a keeper, a
 * child of ours in a session of its own, holds one end of a pipe, and when our
 * end is gone it kills the groups that we did not end ourselves and removes
 * the directory.
 *
 *    bench --- pipe: what was started, "all ended" ---> keeper
 *      |                                                  |
 *      +-- servers, a group each   <--- kill, if we died -+
 *      +-- DIR/petalith-bench-XXXXXX    <-- remove -------+
 *
 * SIGINT, SIGTERM and SIGHUP are noted: petal_nest_stopped(). The second one
 * does what it always did.
 *
 * Threads: one.
 */

#define PETAL_NEST_CHILDREN 32u
#define PETAL_NEST_PATH 512u

struct petal_nest {
	char dir[PETAL_NEST_PATH - 128];
	pid_t keeper;
	int pipe_fd;
	unsigned count;
	pid_t children[PETAL_NEST_CHILDREN];
};

/**
 * petal_nest_open() - make a temporary directory, and the keeper
 * @base: where; NULL for TMPDIR, or /tmp
 *
 * Return: 0, or -errno.
 */
int petal_nest_open(struct petal_nest *nest, const char *base);

/**
 * petal_nest_path() - the path of a file in the directory
 * @name: of the file
 */
void petal_nest_path(const struct petal_nest *nest, const char *name,
		     char path[PETAL_NEST_PATH]);

/**
 * petal_nest_start() - start a server
 * @name: its output goes to NAME.log in the directory, where it also runs
 * @argv: the program's path, its arguments, NULL
 * @env: NAME=VALUE to add to the environment, ..., NULL; may be NULL
 *
 * Return: 0, or -errno: -ENOSPC when there are too many.
 */
int petal_nest_start(struct petal_nest *nest, const char *name,
		     const char *const *argv, const char *const *env);

/**
 * petal_nest_fork() - start a server that is part of this program
 * @serve: what it runs; its end is the server's
 */
int petal_nest_fork(struct petal_nest *nest, void (*serve)(void *arg),
		    void *arg);

/**
 * petal_nest_check() - whether the servers from @first on are all alive
 *
 * Return: 0 or -ECHILD.
 */
int petal_nest_check(const struct petal_nest *nest, unsigned first,
		     unsigned count);

/**
 * petal_nest_words() - what a server said last
 * @words: "" if it said nothing
 */
void petal_nest_words(const struct petal_nest *nest, const char *name,
		      char *words, size_t size);

/**
 * petal_nest_cpu_ns() - processor time of @count servers from @first on
 */
uint64_t petal_nest_cpu_ns(const struct petal_nest *nest, unsigned first,
			   unsigned count);

/**
 * petal_nest_ports() - ports of the loopback that are free just now
 *
 * Return: 0, or -errno.
 */
int petal_nest_ports(uint16_t *ports, unsigned count);

/**
 * petal_nest_find() - look for a program in the usual directories
 * @path: written if it is there
 */
bool petal_nest_find(const char *name, char path[PETAL_NEST_PATH]);

/** petal_nest_stopped() - has a signal asked us to end? */
bool petal_nest_stopped(void);

/**
 * petal_nest_close() - end the servers, remove the directory
 *
 * If a signal had asked us to end, it then does what it always does.
 */
void petal_nest_close(struct petal_nest *nest);

#endif
