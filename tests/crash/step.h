/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_CRASH_STEP_H
#define PETAL_TESTS_CRASH_STEP_H

#include <stdint.h>
#include <sys/types.h>

/**
 * DOC: step - another process, one instruction at a time
 *
 * The child is a fork of ours, so an address in it is one in us. What it has
 * stored when it stops is all that anybody would see if it died there.
 *
 * It stops itself, which is far faster than a debugger that is asked at each
 * instruction. Either the processor's trap flag is set, and a signal handler of
 * the child sees every instruction; or what is watched may not be written to,
 * and a handler lets through one instruction at a time that does. Between two
 * of those nothing happens that anybody else could see: who may die after each
 * of them may die at every instruction.
 *
 * The code that is stepped may not block SIGTRAP or SIGSEGV; what glibc's
 * raise() and fork() do inside is out. A system call that would write to what is
 * watched fails.
 */

enum step {
	STEP_RUNNING,
	STEP_ENDED,  /* it has left with 0 */
	STEP_BROKEN, /* by a signal, or with another status */
};

struct step_control;

struct step_child {
	pid_t pid;
	struct step_control *control; /* shared with it; NULL: it is gone */
};

/**
 * struct step_watched - what is looked at between instructions
 * @memory: that children share, whole pages
 * @bytes: of it; up to STEP_WATCHED_MAX
 * @besides: more of that, in which only the word @count is looked at; or NULL
 * @besides_bytes: of it
 * @count: in @besides
 */
struct step_watched {
	void *memory;
	uint64_t bytes;
	void *besides;
	uint64_t besides_bytes;
	const uint64_t *count;
};

#define STEP_WATCHED_MAX (UINT64_C(1) << 20)

/** step_watch() - for step_change(), in children from now on */
void step_watch(const struct step_watched *watched);

/**
 * step_start() - fork a child that runs a function when stepped
 *
 * Return: 0; -1 if there cannot be one.
 */
int step_start(struct step_child *child, void (*run)(void *argument),
	       void *argument);

/**
 * step_run() - let it execute some instructions
 * @steps: how many; behind it: how many it were, the last one included
 *
 * A repeated string instruction is one for each of its rounds.
 */
enum step step_run(struct step_child *child, uint64_t *steps);

/**
 * step_change() - let it run until what is watched has changed
 * @changes: how often; the first time where it is counts as a change
 * @stores: behind it: how often it wrote there
 */
enum step step_change(struct step_child *child, uint64_t changes,
		      uint64_t *stores);

/** step_all() - let it run freely to its next step_mark(), or to its end */
enum step step_all(struct step_child *child);

/** step_mark() - in the child: stop here when run by step_all() */
static inline void step_mark(void)
{
	__asm__ volatile("int3");
}

/** step_kill() - end it where it is; nothing if it has ended */
void step_kill(struct step_child *child);

/** step_place() - where it stopped, as an offset into our executable */
uint64_t step_place(const struct step_child *child);

/** step_pin() - keep us and our children on one processor: twice as fast */
void step_pin(unsigned cpu);

#endif
