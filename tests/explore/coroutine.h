/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_EXPLORE_COROUTINE_H
#define PETAL_EXPLORE_COROUTINE_H

#include <stdint.h>

/**
 * DOC: coroutine - a stack that can be left and entered again
 *
 * On x86-64 a switch is six pushes, six pops and a return: it saves what a
 * callee must preserve and nothing else, no signal mask, no floating point
 * modes. Elsewhere it is swapcontext.
 */

#define EXPLORE_STACK_BYTES (64u * 1024u)

#if defined(__x86_64__)

struct explore_coroutine {
	void *sp;
	uint8_t *stack;
};

#else

#include <ucontext.h>

struct explore_coroutine {
	ucontext_t context;
	uint8_t *stack;
};

#endif

/** explore_switch() - leave here, and go on there */
void explore_switch(struct explore_coroutine *from,
		    const struct explore_coroutine *to);

/** explore_coroutine_start() - the next switch calls @entry, which stays */
void explore_coroutine_start(struct explore_coroutine *coroutine,
			     void (*entry)(void));

#endif
