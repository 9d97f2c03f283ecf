/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/explore/coroutine.h"

#include <stddef.h>

#if defined(__x86_64__)

__asm__(".text\n"
	".globl explore_switch\n"
	".hidden explore_switch\n"
	".type explore_switch, @function\n"
	"explore_switch:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq (%rsi), %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size explore_switch, . - explore_switch\n");

void explore_coroutine_start(struct explore_coroutine *coroutine,
			     void (*entry)(void))
{
	void **top = (void **)(void *)(coroutine->stack + EXPLORE_STACK_BYTES);

	*--top = NULL; /* where entry would return to; aligns its stack */
	*--top = (void *)(uintptr_t)entry;
	top -= 6;
	coroutine->sp = top;
}

#else

void explore_switch(struct explore_coroutine *from,
		    const struct explore_coroutine *to)
{
	swapcontext(&from->context, &to->context);
}

void explore_coroutine_start(struct explore_coroutine *coroutine,
			     void (*entry)(void))
{
	getcontext(&coroutine->context);
	coroutine->context.uc_stack.ss_sp = coroutine->stack;
	coroutine->context.uc_stack.ss_size = EXPLORE_STACK_BYTES;
	coroutine->context.uc_link = NULL;
	makecontext(&coroutine->context, entry, 0);
}

#endif
