/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_PAIR_H
#define PETAL_BENCH_PAIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: pair - two processes, one CPU each, and a page between them
 *
 * The client is the process that opens the pair; the server is its child. The
 * child is pinned before it serves, dies with its parent (PR_SET_PDEATHSIG)
 * and is waited for by petal_pair_close(), so nothing outlives any exit.
 *
 *    byte 0          128             256             384
 *    +---------------+---------------+---------------+---------------+
 *    | spin          | ping          | pong          | told, status  |
 *    +---------------+---------------+---------------+---------------+
 *
 * Many pairs live at once, of which one is measured at a time, so a server
 * may spin only while its client asks for it: spin is the client's word, and
 * a server that sees it clear blocks in whatever its transport blocks in.
 *
 * Ordering:
 *    [SPIN]  petal_pair_spin() stores spin (release) ->
 *            petal_pair_spinning() loads spin (relaxed), petal_pair_rest()
 *            (acquire). It is a hint about how to wait and guards no data.
 *    [TELL]  petal_pair_tell() stores told (release) ->
 *            petal_pair_hear() loads told (acquire): the client sees what the
 *            server did before it told.
 *    [BALL]  a stroke stores ping or pong (release) -> the other side loads
 *            it (acquire).
 *
 * Crash: a server that dies is noticed by petal_pair_check(); a client that
 * dies takes its servers with it.
 */

struct petal_pair_page;

/**
 * struct petal_pair - the client's side and, after the fork, the server's
 * @page: the shared page; NULL while closed
 * @server: the child; 0 in the child itself and while closed
 */
struct petal_pair {
	struct petal_pair_page *page;
	pid_t server;
};

/** What a server runs: returns -errno when it cannot go on, never 0. */
typedef int petal_pair_serve(struct petal_pair *pair, void *arg);

/**
 * petal_pair_cpus() - choose a CPU for the client and one for the server
 * @ret_cpus: the first two CPUs that this process may use; twice the same one
 *	      if it has only one
 *
 * Call it before petal_pair_pin(), which narrows the choice.
 *
 * Return: how many CPUs this process may use, or -errno.
 */
int petal_pair_cpus(int ret_cpus[2]);

/**
 * petal_pair_may_use() - ask whether this process may run on a CPU
 * @cpu: its number, any
 */
bool petal_pair_may_use(int cpu);

/**
 * petal_pair_pin() - bind this thread, and the threads it starts, to one CPU
 * @cpu: its number
 *
 * Return: 0, or -EINVAL if this process may not use it.
 */
int petal_pair_pin(int cpu);

/**
 * petal_pair_open() - start a server
 * @pair: the caller's memory
 * @cpu: where the server is bound
 * @serve: what it runs, in the child; it must release what the child inherited
 *	   and does not need
 * @arg: handed to @serve
 *
 * The child copies the caller's memory, not its threads: open every pair
 * before anything starts threads.
 *
 * Return: 0, or -errno.
 */
int petal_pair_open(struct petal_pair *pair, int cpu, petal_pair_serve *serve,
		    void *arg);

/**
 * petal_pair_fail() - the server ends here, without undoing anything
 * @pair: the server's copy
 * @err: what petal_pair_check() shall tell the client, -errno
 *
 * The same as returning @err from the serve function, but for C++, where a
 * return would run the destructors of a library in the middle of its work.
 */
void petal_pair_fail(struct petal_pair *pair, int err)
	__attribute__((noreturn));

/**
 * petal_pair_close() - end the server and wait for it
 * @pair: may be closed already
 */
void petal_pair_close(struct petal_pair *pair);

/**
 * petal_pair_check() - ask whether the server lives
 * @pair: open
 *
 * Return: 0, or what its serve function returned, or -EOWNERDEAD if a signal
 * ended it.
 */
int petal_pair_check(struct petal_pair *pair);

/**
 * petal_pair_spin() - the client tells the server how to wait
 * @pair: open
 * @spin: true: without sleeping
 *
 * Order: releases [SPIN].
 */
void petal_pair_spin(struct petal_pair *pair, bool spin);

/** petal_pair_spinning() - either side asks how to wait now */
bool petal_pair_spinning(const struct petal_pair *pair);

/**
 * petal_pair_rest() - the server sleeps until it is told to spin
 * @pair: the server's copy
 */
void petal_pair_rest(struct petal_pair *pair);

/**
 * petal_pair_tell() - the server is ready
 * @pair: the server's copy
 * @value: what the client should know, such as a port; not 0
 */
void petal_pair_tell(struct petal_pair *pair, uint32_t value);

/**
 * petal_pair_hear() - the client waits until the server is ready
 * @pair: open
 * @timeout_ns: at most so long, in steps of 100 ms
 * @ret_value: what the server told
 *
 * Return: 0, -ETIMEDOUT, or the failure of petal_pair_check().
 */
int petal_pair_hear(struct petal_pair *pair, uint64_t timeout_ns,
		    uint32_t *ret_value);

/**
 * petal_pair_cpu_ns() - processor time that both processes have used so far
 * @pair: open
 * @ret_ns: user and system time, all threads, since each process started
 *
 * Return: 0, or -errno.
 */
int petal_pair_cpu_ns(const struct petal_pair *pair, uint64_t *ret_ns);

/**
 * petal_pair_stroke_sleeping() - ping, and sleep on a futex until pong
 * @pair: open, whose server runs petal_pair_return_sleeping()
 * @ball: a number, different from the one before
 *
 * Return: 0, or the failure of petal_pair_check().
 */
int petal_pair_stroke_sleeping(struct petal_pair *pair, uint32_t ball);

/** petal_pair_return_sleeping() - the serve function of sleeping strokes */
petal_pair_serve petal_pair_return_sleeping;

/**
 * petal_pair_stroke_spinning() - ping, and look at pong until it answers
 * @pair: open, told to spin, whose server runs petal_pair_return_spinning()
 * @ball: a number, different from the one before
 *
 * Return: 0, or the failure of petal_pair_check().
 */
int petal_pair_stroke_spinning(struct petal_pair *pair, uint32_t ball);

/** petal_pair_return_spinning() - the serve function of spinning strokes */
petal_pair_serve petal_pair_return_spinning;

#ifdef __cplusplus
}
#endif

#endif
