#include "rings/doorbell.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shm/clock.h"

/*
 * The happy path: arm makes armed odd, the ringer sees it, moves the sequence,
 * wakes, and makes armed even again by a swap from the number that it saw.
 *
 * What may go wrong in between, and why it does not:
 *
 *  - Another waiter arms after the ringer has looked. armed is another number
 *    then, the swap fails, and the next ring looks again. Were armed a mere
 *    flag, the ringer would wipe out an arm that nobody has answered.
 *  - Another waiter arms before the ringer has looked, and falls asleep only
 *    after the wake. It cannot: it took its sequence before it armed, the
 *    ringer has moved it since, and the kernel compares.
 *  - As many woke as were asked for, so others may sleep on: armed stays odd.
 */

/* What a futex sleep and wake cost here, in round figures. */
#define SPIN_NS PETAL_US(20)

static long futex(_Atomic uint32_t *word, int operation, uint32_t value,
		  const struct timespec *deadline)
{
	/* Not FUTEX_PRIVATE: the waiter may be another process. */
	return syscall(SYS_futex, word, operation, value, deadline, NULL,
		       FUTEX_BITSET_MATCH_ANY);
}

uint32_t petal_doorbell_arm(struct petal_doorbell *doorbell)
{
	/* [SEEN] Acquire: what rang before this number, we shall test. */
	uint32_t seen =
		atomic_load_explicit(&doorbell->sequence, memory_order_acquire);
	uint32_t armed =
		atomic_load_explicit(&doorbell->armed, memory_order_relaxed);

	/*
	 * [ARM] Release: the sequence was taken before, so that whoever
	 * answers this arm moves it on from what we have seen.
	 */
	while (!atomic_compare_exchange_weak_explicit(
		&doorbell->armed, &armed, (armed | 1) + 2, memory_order_acq_rel,
		memory_order_relaxed))
		;
	petal_doorbell_fence();
	return seen;
}

/*
 * Which arm to answer, and move the sequence on from what it saw. False if
 * another ringer was faster: who slept then is awake, and who arms now tests
 * its condition after our fence.
 */
static bool answer(struct petal_doorbell *doorbell, uint32_t *ret_armed)
{
	/* [ARM] Acquire: the waiter took its sequence before we move it. */
	uint32_t armed =
		atomic_load_explicit(&doorbell->armed, memory_order_acquire);

	if (!(armed & 1))
		return false;
	/* [SEEN] Release: who sees this number sees what we rang for. */
	atomic_fetch_add_explicit(&doorbell->sequence, 1, memory_order_release);
	*ret_armed = armed;
	return true;
}

static void disarm_from(struct petal_doorbell *doorbell, uint32_t armed)
{
	/* Relaxed: an arm that is not seen costs a system call, no more. */
	atomic_compare_exchange_strong_explicit(&doorbell->armed, &armed,
						armed & ~UINT32_C(1),
						memory_order_relaxed,
						memory_order_relaxed);
}

void petal_doorbell_disarm(struct petal_doorbell *doorbell)
{
	disarm_from(doorbell, atomic_load_explicit(&doorbell->armed,
						   memory_order_relaxed));
}

int petal_doorbell_wait(struct petal_doorbell *doorbell, uint32_t seen,
			uint64_t deadline_ns)
{
	struct timespec deadline = petal_clock_timespec(deadline_ns);

	if (futex(&doorbell->sequence, FUTEX_WAIT_BITSET, seen,
		  deadline_ns ? &deadline : NULL) == 0)
		return 0;
	switch (errno) {
	case EAGAIN: /* It rang between arm and here. */
	case EINTR:
		return 0;
	case ETIMEDOUT:
		return 1;
	default:
		return -errno;
	}
}

void petal_doorbell_wake(struct petal_doorbell *doorbell, uint32_t count)
{
	int saved = errno;
	uint32_t armed;
	long woken;

	if (!answer(doorbell, &armed))
		return;
	woken = futex(&doorbell->sequence, FUTEX_WAKE,
		      count < PETAL_DOORBELL_ALL ? count : PETAL_DOORBELL_ALL,
		      NULL);
	if (woken >= 0 && woken < (long)count)
		disarm_from(doorbell, armed);
	errno = saved;
}

void petal_doorbell_wake_fd(struct petal_doorbell *doorbell, int fd)
{
	int saved = errno;
	uint32_t armed;

	if (!answer(doorbell, &armed))
		return;
	/*
	 * An eventfd that is too full to be written is readable, which is all
	 * that we want. Any other failure leaves armed set, for the next.
	 */
	if (eventfd_write(fd, 1) == 0 || errno == EAGAIN)
		disarm_from(doorbell, armed);
	errno = saved;
}

uint64_t petal_doorbell_spin_ns(unsigned parties)
{
	cpu_set_t allowed;

	/* It fails only on machines with more CPUs than the set can name. */
	if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
		return SPIN_NS;
	return (unsigned)CPU_COUNT(&allowed) > parties ? SPIN_NS : 0;
}
