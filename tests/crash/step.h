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
 * It steps itself: with the processor's trap flag set, a signal handler of its
 * own sees every instruction, and stops the child where it was told to. That is
 * some ten times as fast as a debugger, which is asked at each instruction.
 *
 * A string instruction that stores elsewhere than in what is watched counts as
 * one step, and not as one for each of its rounds. The code that is stepped may
 * not block SIGTRAP; what glibc's raise() and fork() do inside is out.
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
 * step_watch() - what is looked at between instructions, in children from now
 * @memory: that children share
 * @bytes: of it; up to STEP_WATCHED_MAX
 * @count: a word besides, also shared; NULL: none
 */
void step_watch(const void *memory, uint64_t bytes, const uint64_t *count);

#define STEP_WATCHED_MAX (UINT64_C(1) << 20)

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
 */
enum step step_run(struct step_child *child, uint64_t *steps);

/**
 * step_change() - let it run until what is watched has changed
 * @changes: how often; the first instruction counts as a change
 * @steps: at most; behind it: how many it were
 */
enum step step_change(struct step_child *child, uint64_t changes,
		      uint64_t *steps);

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
