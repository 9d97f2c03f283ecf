/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/step.h"

#include <errno.h>
#include <link.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t watched_from;
static uint64_t watched_bytes = UINT64_MAX;

static enum step awaited(pid_t child, bool *ret_stopped)
{
	int status;

	*ret_stopped = false;
	while (waitpid(child, &status, __WALL) != child)
		if (errno != EINTR)
			return STEP_BROKEN;
	if (WIFEXITED(status))
		return WEXITSTATUS(status) == 0 ? STEP_ENDED : STEP_BROKEN;
	if (!WIFSTOPPED(status))
		return STEP_BROKEN;
	*ret_stopped = true;
	return WSTOPSIG(status) == SIGTRAP || WSTOPSIG(status) == SIGSTOP
		       ? STEP_RUNNING
		       : STEP_BROKEN;
}

pid_t step_start(void (*run)(void *argument), void *argument)
{
	pid_t child = fork();
	bool stopped;

	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
			_exit(77);
		raise(SIGSTOP);
		run(argument);
		_exit(0);
	}
	if (child < 0)
		return -1;
	if (awaited(child, &stopped) != STEP_RUNNING)
		return -1;
	return child;
}

static enum step resumed(pid_t child, int how)
{
	bool stopped;
	enum step step;

	if (ptrace((enum __ptrace_request)how, child, NULL, NULL) != 0)
		return STEP_REFUSED;
	step = awaited(child, &stopped);
	if (step == STEP_BROKEN && stopped)
		step_kill(child);
	return step;
}

/*
 * How long the instruction at a place is, if it is a repeated store or move,
 * which a single step takes through one of its rounds only. 0 if it is none.
 */
static unsigned repeated_length(pid_t child, uint64_t place)
{
	uint64_t code;
	unsigned wide;
	uint8_t operation;

	errno = 0;
	code = (uint64_t)ptrace(PTRACE_PEEKTEXT, child, place, NULL);
	if (errno || (code & 0xff) != 0xf3)
		return 0;
	wide = (code >> 8 & 0xff) == 0x48;
	operation = (uint8_t)(code >> (8 + 8 * wide));
	if (operation != 0xa4 && operation != 0xa5 && operation != 0xaa &&
	    operation != 0xab)
		return 0;
	return 2 + wide;
}

/* Run to a place by a breakpoint. */
static enum step run_to(pid_t child, uint64_t place)
{
	uint64_t code = (uint64_t)ptrace(PTRACE_PEEKTEXT, child, place, NULL);
	enum step step;

	ptrace(PTRACE_POKETEXT, child, place, (code & ~UINT64_C(0xff)) | 0xcc);
	step = resumed(child, PTRACE_CONT);
	if (step != STEP_RUNNING)
		return step;
	ptrace(PTRACE_POKETEXT, child, place, code);
	ptrace(PTRACE_POKEUSER, child, offsetof(struct user, regs.rip), place);
	return step;
}

/* A repeated store to private memory is nothing that anybody could see. */
enum step step_once(pid_t child)
{
	uint64_t place = (uint64_t)ptrace(
		PTRACE_PEEKUSER, child, offsetof(struct user, regs.rip), NULL);
	unsigned length = repeated_length(child, place);

	if (length) {
		uint64_t to = (uint64_t)ptrace(PTRACE_PEEKUSER, child,
					       offsetof(struct user, regs.rdi),
					       NULL);

		if (to - watched_from >= watched_bytes)
			return run_to(child, place + length);
	}
	return resumed(child, PTRACE_SINGLESTEP);
}

void step_watch(const void *memory, uint64_t bytes)
{
	watched_from = (uint64_t)(uintptr_t)memory;
	watched_bytes = bytes;
}

enum step step_all(pid_t child)
{
	return resumed(child, PTRACE_CONT);
}

void step_kill(pid_t child)
{
	kill(child, SIGKILL);
	while (waitpid(child, NULL, __WALL) < 0 && errno == EINTR)
		;
}

static int base_of(struct dl_phdr_info *info, size_t size, void *argument)
{
	(void)size;
	*(uint64_t *)argument = info->dlpi_addr;
	return 1; /* The first one is the executable. */
}

uint64_t step_place(pid_t child)
{
	struct user_regs_struct registers;
	uint64_t base = 0;

	if (ptrace(PTRACE_GETREGS, child, NULL, &registers) != 0)
		return 0;
	dl_iterate_phdr(base_of, &base);
	return registers.rip - base;
}

void step_pin(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}
