/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/step.h"

#include <errno.h>
#include <link.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define TRAP_FLAG 0x100

enum mode {
	MODE_FREE,   /* until a mark */
	MODE_RUN,    /* some instructions */
	MODE_CHANGE, /* until a change */
};

/* The child is told what to do, and tells what it did, while it is stopped. */
struct step_control {
	enum mode mode;
	uint64_t left; /* instructions, or changes */
	uint64_t done; /* instructions, or stores, since it was last told */
	uint64_t place;
};

static struct step_watched watched;

/* In the child. */
static struct step_control *control;
static uint8_t *before;
static uint64_t count_before;
static bool any_before;

void step_watch(const struct step_watched *what)
{
	watched = *what;
}

/* ---- in the child ---- */

static void let_write(bool may)
{
	int access = may ? PROT_READ | PROT_WRITE : PROT_READ;

	if (mprotect(watched.memory, watched.bytes, access) != 0 ||
	    (watched.besides &&
	     mprotect(watched.besides, watched.besides_bytes, access) != 0))
		_exit(1);
}

static bool is_changed(void)
{
	uint64_t count = watched.count ? *watched.count : 0;

	if (any_before && count == count_before &&
	    memcmp(before, watched.memory, watched.bytes) == 0)
		return false;
	memcpy(before, watched.memory, watched.bytes);
	count_before = count;
	any_before = true;
	return true;
}

/* Stop until told what is next, and for as long as that is done at once. */
static void stop(greg_t *registers)
{
	control->place = (uint64_t)registers[REG_RIP];
	do
		kill(getpid(), SIGSTOP);
	while (control->mode == MODE_CHANGE && !any_before && is_changed() &&
	       --control->left == 0);
	let_write(control->mode != MODE_CHANGE);
}

static void on_trap(int number, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	bool due = control->mode == MODE_FREE;

	(void)number;
	/* Not by a mark, but by the trap flag. */
	if (info->si_code != SI_KERNEL) {
		control->done++;
		due = (control->mode == MODE_RUN || is_changed()) &&
		      --control->left == 0;
		if (control->mode == MODE_CHANGE && !due)
			let_write(false);
	}
	if (due)
		stop(registers);
	if (control->mode == MODE_RUN)
		registers[REG_EFL] |= TRAP_FLAG;
	else
		registers[REG_EFL] &= ~(greg_t)TRAP_FLAG;
}

static bool is_in(const void *address, const void *range, uint64_t bytes)
{
	return (uint64_t)((const uint8_t *)address - (const uint8_t *)range) <
	       bytes;
}

/* One instruction may write; unless that is not what is wrong with it. */
static void on_fault(int number, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

	if (control->mode != MODE_CHANGE || registers[REG_EFL] & TRAP_FLAG ||
	    (!is_in(info->si_addr, watched.memory, watched.bytes) &&
	     !is_in(info->si_addr, watched.besides, watched.besides_bytes))) {
		signal(number, SIG_DFL);
		return;
	}
	let_write(true);
	registers[REG_EFL] |= TRAP_FLAG;
}

static void child_run(void (*run)(void *argument), void *argument)
{
	static const int ours[] = { SIGALRM, SIGBUS, SIGABRT };
	struct sigaction trap = { .sa_sigaction = on_trap,
				  .sa_flags = SA_SIGINFO };
	struct sigaction fault = { .sa_sigaction = on_fault,
				   .sa_flags = SA_SIGINFO };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		signal(ours[i], SIG_DFL);
	before = mmap(NULL, STEP_WATCHED_MAX, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (before == MAP_FAILED || sigaction(SIGTRAP, &trap, NULL) != 0 ||
	    sigaction(SIGSEGV, &fault, NULL) != 0)
		_exit(1);
	control->mode = MODE_FREE;
	step_mark();
	run(argument);
	_exit(0);
}

/* ---- in the parent ---- */

static void forget(struct step_child *child)
{
	munmap(child->control, sizeof(*child->control));
	child->control = NULL;
}

static enum step awaited(struct step_child *child)
{
	int status;

	while (waitpid(child->pid, &status, WUNTRACED) != child->pid)
		if (errno != EINTR)
			return STEP_BROKEN;
	if (WIFSTOPPED(status))
		return STEP_RUNNING;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? STEP_ENDED
							     : STEP_BROKEN;
}

int step_start(struct step_child *child, void (*run)(void *argument),
	       void *argument)
{
	if (watched.bytes > STEP_WATCHED_MAX)
		return -1;
	child->control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (child->control == MAP_FAILED)
		return -1;
	control = child->control;
	child->pid = fork();
	if (child->pid == 0)
		child_run(run, argument);
	if (child->pid > 0 && awaited(child) == STEP_RUNNING)
		return 0;
	forget(child);
	return -1;
}

static enum step told(struct step_child *child, enum mode mode, uint64_t count,
		      uint64_t *ret_done)
{
	struct step_control *shared = child->control;
	enum step step;

	shared->mode = mode;
	shared->left = count;
	shared->done = 0;
	kill(child->pid, SIGCONT);
	step = awaited(child);
	*ret_done = shared->done;
	if (step != STEP_RUNNING)
		forget(child);
	return step;
}

enum step step_run(struct step_child *child, uint64_t *steps)
{
	return told(child, MODE_RUN, *steps, steps);
}

enum step step_change(struct step_child *child, uint64_t changes,
		      uint64_t *stores)
{
	return told(child, MODE_CHANGE, changes, stores);
}

enum step step_all(struct step_child *child)
{
	uint64_t done;

	return told(child, MODE_FREE, 0, &done);
}

void step_kill(struct step_child *child)
{
	if (!child->control)
		return;
	kill(child->pid, SIGKILL);
	while (awaited(child) == STEP_RUNNING)
		;
	forget(child);
}

static int base_of(struct dl_phdr_info *info, size_t size, void *argument)
{
	(void)size;
	*(uint64_t *)argument = info->dlpi_addr;
	return 1; /* The first one is the executable. */
}

uint64_t step_place(const struct step_child *child)
{
	uint64_t base = 0;

	dl_iterate_phdr(base_of, &base);
	return child->control ? child->control->place - base : 0;
}

void step_pin(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}
