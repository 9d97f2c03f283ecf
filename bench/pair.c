#include "bench/pair.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Two lines apart, for the adjacent-line prefetcher pairs neighbours. */
struct petal_pair_page {
	_Atomic uint32_t spin;
	uint8_t pad0[124];
	_Atomic uint32_t ping;
	uint8_t pad1[124];
	_Atomic uint32_t pong;
	uint8_t pad2[124];
	_Atomic uint32_t told;
	_Atomic int32_t status;
	uint8_t pad3[120];
};

static_assert(offsetof(struct petal_pair_page, ping) == 128, "own lines");
static_assert(offsetof(struct petal_pair_page, pong) == 256, "own lines");
static_assert(offsetof(struct petal_pair_page, told) == 384, "own lines");

/* How often a waiting client asks whether its server is still there. */
static const struct timespec look_up = { .tv_nsec = 100 * 1000 * 1000 };

/* Not FUTEX_PRIVATE_FLAG: the word is shared between processes. */
static bool futex_wait(_Atomic uint32_t *word, uint32_t seen,
		       const struct timespec *timeout)
{
	/* Every outcome but one means the same: look at the word again. */
	return syscall(SYS_futex, word, FUTEX_WAIT, seen, timeout, NULL, 0) ==
		       0 ||
	       errno != ETIMEDOUT;
}

static void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

int petal_pair_cpus(int ret_cpus[2])
{
	cpu_set_t set;
	int found = 0;

	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return -errno;
	for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
		if (CPU_ISSET(cpu, &set))
			ret_cpus[found++] = cpu;
	if (found == 1)
		ret_cpus[1] = ret_cpus[0];
	return CPU_COUNT(&set);
}

bool petal_pair_may_use(int cpu)
{
	cpu_set_t set;

	if (cpu < 0 || cpu >= CPU_SETSIZE)
		return false;
	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return false;
	return CPU_ISSET(cpu, &set);
}

int petal_pair_pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0 || cpu >= CPU_SETSIZE)
		return -EINVAL;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) == 0 ? 0 : -errno;
}

void petal_pair_fail(struct petal_pair *pair, int err)
{
	/* Read only after the exit, which orders it. */
	atomic_store_explicit(&pair->page->status, err, memory_order_relaxed);
	_exit(1);
}

static _Noreturn void run_server(struct petal_pair *pair, pid_t client, int cpu,
				 petal_pair_serve *serve, void *arg)
{
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* A client that died before that call cannot send us the signal. */
	if (getppid() != client)
		_exit(1);
	err = petal_pair_pin(cpu);
	if (err == 0)
		err = serve(pair, arg);
	petal_pair_fail(pair, err);
}

int petal_pair_open(struct petal_pair *pair, int cpu, petal_pair_serve *serve,
		    void *arg)
{
	struct petal_pair_page *page;
	pid_t client = getpid();
	int err;

	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return -errno;
	pair->page = page;
	pair->server = 0;
	pair->server = fork();
	if (pair->server == 0)
		run_server(pair, client, cpu, serve, arg);
	if (pair->server > 0)
		return 0;
	err = -errno;
	munmap(page, sizeof(*page));
	memset(pair, 0, sizeof(*pair));
	return err;
}

void petal_pair_close(struct petal_pair *pair)
{
	if (!pair->page)
		return;
	/* Ours and not yet waited for, so the number is still this child's. */
	kill(pair->server, SIGKILL);
	while (waitpid(pair->server, NULL, 0) < 0 && errno == EINTR)
		;
	munmap(pair->page, sizeof(*pair->page));
	memset(pair, 0, sizeof(*pair));
}

int petal_pair_check(struct petal_pair *pair)
{
	siginfo_t info = { 0 };
	int status;

	/* WNOWAIT leaves the child to petal_pair_close(). */
	if (waitid(P_PID, (id_t)pair->server, &info,
		   WEXITED | WNOHANG | WNOWAIT) != 0)
		return -errno;
	if (info.si_pid == 0)
		return 0;
	status =
		atomic_load_explicit(&pair->page->status, memory_order_relaxed);
	return status < 0 ? status : -EOWNERDEAD;
}

void petal_pair_spin(struct petal_pair *pair, bool spin)
{
	/* [SPIN] Release, for a resting server's acquire. */
	atomic_store_explicit(&pair->page->spin, spin, memory_order_release);
	if (spin)
		futex_wake(&pair->page->spin);
}

bool petal_pair_spinning(const struct petal_pair *pair)
{
	return atomic_load_explicit(&pair->page->spin, memory_order_relaxed);
}

void petal_pair_rest(struct petal_pair *pair)
{
	/* [SPIN] Unbounded on purpose: our parent's end is our own. */
	while (!atomic_load_explicit(&pair->page->spin, memory_order_acquire))
		futex_wait(&pair->page->spin, 0, NULL);
}

void petal_pair_tell(struct petal_pair *pair, uint32_t value)
{
	/* [TELL] Release: what we did before is seen by who hears. */
	atomic_store_explicit(&pair->page->told, value, memory_order_release);
	futex_wake(&pair->page->told);
}

int petal_pair_hear(struct petal_pair *pair, uint64_t timeout_ns,
		    uint32_t *ret_value)
{
	uint64_t step_ns = (uint64_t)look_up.tv_nsec;

	for (uint64_t spent_ns = 0;; spent_ns += step_ns) {
		/* [TELL] Acquire: pairs with the server's release. */
		uint32_t told = atomic_load_explicit(&pair->page->told,
						     memory_order_acquire);
		int err = petal_pair_check(pair);

		if (err < 0)
			return err;
		if (told != 0) {
			*ret_value = told;
			return 0;
		}
		if (spent_ns >= timeout_ns)
			return -ETIMEDOUT;
		futex_wait(&pair->page->told, 0, &look_up);
	}
}

int petal_pair_cpu_ns(const struct petal_pair *pair, uint64_t *ret_ns)
{
	struct timespec mine;
	struct timespec theirs;
	clockid_t clock;
	int err;

	err = clock_getcpuclockid(pair->server, &clock);
	if (err != 0)
		return -err;
	if (clock_gettime(clock, &theirs) != 0 ||
	    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &mine) != 0)
		return -errno;
	*ret_ns = (uint64_t)(mine.tv_sec + theirs.tv_sec) * 1000000000U +
		  (uint64_t)(mine.tv_nsec + theirs.tv_nsec);
	return 0;
}

int petal_pair_stroke_sleeping(struct petal_pair *pair, uint32_t ball)
{
	struct petal_pair_page *page = pair->page;
	uint32_t seen;

	/* [BALL] Release, as a transport's publish would have to be. */
	atomic_store_explicit(&page->ping, ball, memory_order_release);
	futex_wake(&page->ping);
	/* [BALL] Acquire: the answer. */
	while ((seen = atomic_load_explicit(&page->pong,
					    memory_order_acquire)) != ball) {
		int err;

		if (futex_wait(&page->pong, seen, &look_up))
			continue;
		/* A long silence: is anybody there? */
		err = petal_pair_check(pair);
		if (err < 0)
			return err;
	}
	return 0;
}

int petal_pair_return_sleeping(struct petal_pair *pair, void *arg)
{
	struct petal_pair_page *page = pair->page;
	uint32_t last = 0;

	(void)arg;
	for (;;) {
		/* [BALL] Acquire: the client's stroke. */
		uint32_t ball =
			atomic_load_explicit(&page->ping, memory_order_acquire);

		if (ball == last) {
			futex_wait(&page->ping, last, NULL);
			continue;
		}
		last = ball;
		/* [BALL] Release, for the client's acquire. */
		atomic_store_explicit(&page->pong, ball, memory_order_release);
		futex_wake(&page->pong);
	}
}

int petal_pair_stroke_spinning(struct petal_pair *pair, uint32_t ball)
{
	struct petal_pair_page *page = pair->page;
	uint32_t looks = 0;

	/* [BALL] Release, as a transport's publish would have to be. */
	atomic_store_explicit(&page->ping, ball, memory_order_release);
	/* [BALL] Acquire: the answer. No PAUSE: a floor waits the least. */
	while (atomic_load_explicit(&page->pong, memory_order_acquire) !=
	       ball) {
		/* Some milliseconds of silence; a living server answers. */
		if (++looks % (1U << 24) == 0) {
			int err = petal_pair_check(pair);

			if (err < 0)
				return err;
		}
	}
	return 0;
}

int petal_pair_return_spinning(struct petal_pair *pair, void *arg)
{
	struct petal_pair_page *page = pair->page;
	uint32_t last = 0;

	(void)arg;
	for (;;) {
		/* [BALL] Acquire: the client's stroke. */
		uint32_t ball =
			atomic_load_explicit(&page->ping, memory_order_acquire);

		if (ball != last) {
			last = ball;
			/* [BALL] Release, for the client's acquire. */
			atomic_store_explicit(&page->pong, ball,
					      memory_order_release);
		} else if (!petal_pair_spinning(pair)) {
			petal_pair_rest(pair);
		}
	}
}
