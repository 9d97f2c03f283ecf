#include "rings/doorbell.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "rings/waiter.h"
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
 *  - A ringer stores its news, looks at armed and goes on, all while our arm is
 *    under way, and we do not see the news yet: its processor keeps the store
 *    back. Before a nap nothing forbids that, though arm gives it the time to
 *    let go. The nap ends, and the next arm, which finds the last one
 *    unanswered, makes the barrier.
 */

/* How long a sleeper is left alone whose heavy half was refused. */
#define RECHECK_NS PETAL_MS(1)

struct petal_u32 petal_doorbell_recheck;

static long futex(struct petal_u32 *word, int operation, uint32_t value,
		  const struct timespec *deadline)
{
	/* Not FUTEX_PRIVATE: the waiter may be another process. */
	return syscall(SYS_futex, word, operation, value, deadline, NULL,
		       FUTEX_BITSET_MATCH_ANY);
}

/* The lowest bit of what arm returns. The sequence moves by two. */
#define NAP UINT32_C(1)

/* Of armed; the rest is a number, so that no two arms look alike. */
#define ARMED UINT32_C(1)
#define PAID UINT32_C(2)
#define NUMBER UINT32_C(4)

/* How long arm takes before a nap, in ticks: about a microsecond. */
#define DWELL_TICKS 2048u

/* What armed was before. */
static uint32_t announce(struct petal_doorbell *doorbell)
{
	/*
	 * [ARM] Release: the sequence was taken before, so that whoever
	 * answers this arm moves it on from what we have seen. Another number
	 * first, then odd: a loop of swaps until both are done at once would
	 * give a peer the means to hold us here. Acquire: if it is marked as
	 * paid for, what that barrier has shown is here as well.
	 */
	uint32_t was = petal_add(&doorbell->armed, NUMBER, PETAL_ACQ_REL(ARM));

	petal_or(&doorbell->armed, ARMED, PETAL_ACQ_REL(ARM));
	return was;
}

/* Let the stores of a ringer that has just missed us arrive. */
static void dwell(void)
{
	uint64_t begin = petal_waiter_ticks();

	do
		petal_waiter_pause();
	while (petal_waiter_ticks() - begin < DWELL_TICKS);
}

/* Make the barrier, unless somebody did since armed became odd. */
static void pay(struct petal_doorbell *doorbell, uint32_t was)
{
	uint32_t armed = (was + NUMBER) | ARMED;

	if (was & PAID)
		return;
	/* [WAKE] What a ringer stored and has not seen us for, we now see. */
	if (petal_barrier_heavy() != 0) {
		petal_store(&petal_doorbell_recheck, 1, PETAL_RELAXED);
		return;
	}
	/* From this very arm only, for another stretch pays anew. */
	petal_cas(&doorbell->armed, &armed, armed | PAID, PETAL_RELAXED);
}

/* True when the sleep is to be a nap. */
static bool arm(struct petal_doorbell *doorbell)
{
	uint32_t was = announce(doorbell);

	if (was & ARMED)
		pay(doorbell, was);
	else
		dwell();
	return !(was & ARMED);
}

uint32_t petal_doorbell_arm(struct petal_doorbell *doorbell)
{
	/* [SEEN] Acquire: what rang before this number, we shall test. */
	uint32_t seen = petal_load(&doorbell->sequence, PETAL_ACQUIRE(SEEN));

	/* Only a peer gone mad leaves it odd, and then nobody would sleep. */
	if (seen & NAP) {
		petal_add(&doorbell->sequence, 1, PETAL_RELAXED);
		/* [SEEN] Acquire, as above. */
		seen = petal_load(&doorbell->sequence, PETAL_ACQUIRE(SEEN));
	}
	return arm(doorbell) ? seen | NAP : seen;
}

int petal_doorbell_arm_fd(struct petal_doorbell *doorbell)
{
	bool is_nap = arm(doorbell);

	return is_nap || petal_load(&petal_doorbell_recheck, PETAL_RELAXED)
		       ? PETAL_DOORBELL_NAP_MS
		       : -1;
}

/*
 * Which arm to answer, and move the sequence on from what it saw. False if
 * another ringer was faster: who slept then is awake, and who arms now tests
 * its condition after that, or naps.
 */
static bool answer(struct petal_doorbell *doorbell, uint32_t *ret_armed)
{
	/* [ARM] Acquire: the waiter took its sequence before we move it. */
	uint32_t armed = petal_load(&doorbell->armed, PETAL_ACQUIRE(ARM));

	if (!(armed & ARMED))
		return false;
	/* [SEEN] Release: who sees this number sees what we rang for. */
	petal_add(&doorbell->sequence, 2, PETAL_RELEASE(SEEN));
	*ret_armed = armed;
	return true;
}

static void disarm_from(struct petal_doorbell *doorbell, uint32_t armed)
{
	/*
	 * Relaxed: an arm that is not seen costs a system call, no more. To
	 * another number, as by arm: else who is between its two halves could
	 * make it what it was, and another's mark would pay for both.
	 */
	petal_cas(&doorbell->armed, &armed, (armed & ~(ARMED | PAID)) + NUMBER,
		  PETAL_RELAXED);
}

void petal_doorbell_disarm(struct petal_doorbell *doorbell)
{
	disarm_from(doorbell, petal_load(&doorbell->armed, PETAL_RELAXED));
}

/*
 * A deadline, 0 for none, as the kernel takes it; NULL to wait for ever. True
 * when it is only our own bound, so that its end is not the caller's.
 */
static bool bound(uint64_t deadline_ns, bool is_nap, struct timespec *moment,
		  const struct timespec **ret_moment)
{
	bool ours = false;

	if (is_nap || petal_load(&petal_doorbell_recheck, PETAL_RELAXED)) {
		uint64_t soon_ns =
			petal_clock_now_ns() +
			(is_nap ? PETAL_DOORBELL_NAP_NS : RECHECK_NS);

		ours = deadline_ns == 0 || soon_ns < deadline_ns;
		deadline_ns = ours ? soon_ns : deadline_ns;
	}
	*moment = petal_clock_timespec(deadline_ns);
	*ret_moment = deadline_ns ? moment : NULL;
	return ours;
}

/* What a sleep ended with, in the words of our callers. */
static int slept(long outcome, bool bound_is_ours)
{
	if (outcome >= 0)
		return 0;
	switch (errno) {
	case EAGAIN: /* It rang between arm and here. */
	case EINTR:
		return 0;
	case ETIMEDOUT:
		return bound_is_ours ? 0 : 1;
	default:
		return -errno;
	}
}

int petal_doorbell_wait(struct petal_doorbell *doorbell, uint32_t seen,
			uint64_t deadline_ns)
{
	const struct timespec *until;
	struct timespec moment;
	bool ours = bound(deadline_ns, seen & NAP, &moment, &until);

	return slept(futex(&doorbell->sequence, FUTEX_WAIT_BITSET, seen & ~NAP,
			   until),
		     ours);
}

int petal_doorbell_wait_many(struct petal_doorbell *const *doorbells,
			     const uint32_t *seen, unsigned count,
			     uint64_t deadline_ns)
{
	struct futex_waitv waits[PETAL_DOORBELL_MANY_MAX];
	const struct timespec *until;
	struct timespec moment;
	bool is_nap = false;
	bool ours;

	if (count == 0 || count > PETAL_DOORBELL_MANY_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < count; i++) {
		is_nap = is_nap || (seen[i] & NAP);
		waits[i] = (struct futex_waitv){
			.val = seen[i] & ~NAP,
			.uaddr = (uintptr_t)&doorbells[i]->sequence,
			.flags = FUTEX_32,
		};
	}
	ours = bound(deadline_ns, is_nap, &moment, &until);
	return slept(syscall(SYS_futex_waitv, waits, count, 0, until,
			     CLOCK_MONOTONIC),
		     ours);
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
