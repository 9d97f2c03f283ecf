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

/* The child is told what to do, and tells what it did, while it is stopped. */
struct step_control {
	bool free;         /* run, until a mark */
	uint64_t steps;    /* how many are left */
	uint64_t changes;  /* how many are left, unless 0 */
	uint64_t executed; /* since it was last told */
	uint64_t place;
};

static struct {
	const uint8_t *memory;
	uint64_t bytes;
	const uint64_t *count;
} watched;

/* In the child. */
static struct step_control *control;
static uint8_t *before;
static uint64_t count_before;
static bool any_before;

void step_watch(const void *memory, uint64_t bytes, const uint64_t *count)
{
	watched.memory = memory;
	watched.bytes = bytes;
	watched.count = count;
}

/* ---- in the child ---- */

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

/*
 * A repeated store or move traps after each of its rounds. One that goes to
 * private memory nobody could see: do it here, as one step. The direction flag
 * is clear, as the calling convention has it.
 */
static bool repeat(greg_t *registers)
{
	const uint8_t *code = (const uint8_t *)registers[REG_RIP];
	unsigned wide = code[0] == 0xf3 && code[1] == 0x48;
	uint8_t operation = code[1 + wide];
	uint64_t bytes;

	if (code[0] != 0xf3 ||
	    (operation != 0xa4 && operation != 0xa5 && operation != 0xaa &&
	     operation != 0xab) ||
	    (uint64_t)registers[REG_RDI] - (uint64_t)(uintptr_t)watched.memory <
		    watched.bytes)
		return false;
	bytes = operation & 1 ? wide ? 8 : 4 : 1;
	while (registers[REG_RCX] != 0) {
		const void *from = operation < 0xa8
					   ? (const void *)registers[REG_RSI]
					   : (const void *)&registers[REG_RAX];

		memcpy((void *)registers[REG_RDI], from, bytes);
		registers[REG_RDI] += (greg_t)bytes;
		registers[REG_RSI] += operation < 0xa8 ? (greg_t)bytes : 0;
		registers[REG_RCX]--;
	}
	registers[REG_RIP] += 2 + wide;
	return true;
}

/* Return: whether to stop. */
static bool is_due(void)
{
	control->executed++;
	if (control->changes && is_changed() && --control->changes == 0)
		return true;
	return --control->steps == 0;
}

static void on_trap(int number, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	bool marked = info->si_code == SI_KERNEL;
	bool stop = marked ? control->free : is_due();

	(void)number;
	for (;;) {
		control->place = (uint64_t)registers[REG_RIP];
		/* What is next is in control by the time that this returns. */
		if (stop)
			kill(getpid(), SIGSTOP);
		if (control->free || !repeat(registers))
			break;
		stop = is_due();
	}
	if (control->free)
		registers[REG_EFL] &= ~(greg_t)TRAP_FLAG;
	else
		registers[REG_EFL] |= TRAP_FLAG;
}

static void child_run(void (*run)(void *argument), void *argument)
{
	static const int ours[] = { SIGALRM, SIGSEGV, SIGBUS, SIGABRT };
	struct sigaction action = { .sa_sigaction = on_trap,
				    .sa_flags = SA_SIGINFO };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		signal(ours[i], SIG_DFL);
	before = mmap(NULL, STEP_WATCHED_MAX, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (before == MAP_FAILED || sigaction(SIGTRAP, &action, NULL) != 0)
		_exit(1);
	control->free = true;
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

static enum step told(struct step_child *child, bool free, uint64_t changes,
		      uint64_t *steps)
{
	struct step_control *shared = child->control;
	enum step step;

	shared->free = free;
	shared->changes = changes;
	shared->steps = *steps;
	shared->executed = 0;
	kill(child->pid, SIGCONT);
	step = awaited(child);
	*steps = shared->executed;
	if (step != STEP_RUNNING)
		forget(child);
	return step;
}

enum step step_run(struct step_child *child, uint64_t *steps)
{
	return told(child, false, 0, steps);
}

enum step step_change(struct step_child *child, uint64_t changes,
		      uint64_t *steps)
{
	return told(child, false, changes, steps);
}

enum step step_all(struct step_child *child)
{
	uint64_t none = 0;

	return told(child, true, 0, &none);
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
