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
 */

enum step {
	STEP_RUNNING,
	STEP_ENDED,   /* it has left with 0 */
	STEP_BROKEN,  /* by a signal, or with another status */
	STEP_REFUSED, /* the kernel does not let us trace */
};

/** step_start() - fork a child that runs a function when stepped; -1 if not */
pid_t step_start(void (*run)(void *argument), void *argument);

/**
 * step_watch() - where the memory lies that children share
 *
 * A string instruction that stores elsewhere then counts as one step, and not
 * as one for each of its rounds.
 */
void step_watch(const void *memory, uint64_t bytes);

/** step_once() - let it execute one instruction */
enum step step_once(pid_t child);

/** step_all() - let it run to its next step_mark(), or to its end */
enum step step_all(pid_t child);

/** step_mark() - in the child: stop here when run by step_all() */
static inline void step_mark(void)
{
	__asm__ volatile("int3");
}

/** step_kill() - end it where it is */
void step_kill(pid_t child);

/** step_place() - where it is, as an offset into our executable */
uint64_t step_place(pid_t child);

/** step_pin() - keep us and our children on one processor: twice as fast */
void step_pin(unsigned cpu);

#endif
