/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wake - news for somebody who sleeps
 *
 * The question: what does it cost to wake the other process, and to be woken by
 * it in turn? Both sides sleep whenever they have nothing to do. The floor is a
 * bare futex on each side; a bare eventfd is the other thing that a process can
 * sleep on. Ours do the same and also what makes it safe not to call the kernel
 * while the receiver is awake: arm, barrier, test again.
 *
 * bell.c measures what a doorbell costs the sender when nobody sleeps.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/contest.h"
#include "rings/doorbell.h"
#include "shm/barrier.h"
#include "shm/clock.h"

/* How long a sleeper waits before it asks whether anybody is there. */
#define LOOK_UP_NS PETAL_MS(100)

/* One direction: a number that only grows, and how to announce it. */
struct post {
	_Alignas(128) struct petal_u64 number;
	_Alignas(128) struct petal_doorbell bell;
};

struct way {
	void (*call)(struct post *post, int fd);
	void (*nap)(struct post *post, int fd, uint64_t seen_number);
	struct post *posts; /* to the server, and back */
	int fds[2];
	bool needs_fds;
};

static uint64_t look(const struct post *post)
{
	return petal_load(&post->number, PETAL_ACQUIRE(NEWS));
}

/* The ways. */

static void call_eventfd(struct post *post, int fd)
{
	(void)post;
	eventfd_write(fd, 1);
}

/* False when that was all the time, or a signal came. */
static bool sleep_on(int fd, int timeout_ms)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	eventfd_t count;

	return poll(&poll_fd, 1, timeout_ms) == 1 &&
	       eventfd_read(fd, &count) == 0;
}

static void nap_eventfd(struct post *post, int fd, uint64_t seen_number)
{
	(void)post;
	(void)seen_number;
	sleep_on(fd, (int)(LOOK_UP_NS / PETAL_MS(1)));
}

static void call_bell(struct post *post, int fd)
{
	(void)fd;
	petal_doorbell_ring(&post->bell, PETAL_DOORBELL_ALL);
}

static void nap_bell(struct post *post, int fd, uint64_t seen_number)
{
	uint32_t seen = petal_doorbell_arm(&post->bell);

	(void)fd;
	if (look(post) == seen_number)
		petal_doorbell_wait(&post->bell, seen,
				    petal_clock_now_ns() + LOOK_UP_NS);
}

static void nap_bells(struct post *post, int fd, uint64_t seen_number)
{
	/* A second one, which never rings, so that it is a choice. */
	static struct petal_doorbell silent;
	struct petal_doorbell *bells[] = { &post->bell, &silent };
	uint32_t seen[] = { petal_doorbell_arm(bells[0]), 0 };

	(void)fd;
	if (look(post) == seen_number)
		petal_doorbell_wait_many(bells, seen, 2,
					 petal_clock_now_ns() + LOOK_UP_NS);
}

static void call_bell_fd(struct post *post, int fd)
{
	petal_doorbell_ring_fd(&post->bell, fd);
}

static void nap_bell_fd(struct post *post, int fd, uint64_t seen_number)
{
	int limit_ms = petal_doorbell_arm_fd(&post->bell);

	if (limit_ms < 0)
		limit_ms = (int)(LOOK_UP_NS / PETAL_MS(1));
	if (look(post) != seen_number || sleep_on(fd, limit_ms))
		petal_doorbell_disarm(&post->bell);
}

/* Both sides. */

static void tell(const struct way *way, unsigned direction, uint64_t number)
{
	struct post *post = &way->posts[direction];

	petal_store(&post->number, number, PETAL_RELEASE(NEWS));
	way->call(post, way->fds[direction]);
}

static int serve(struct petal_pair *pair, void *arg)
{
	struct way *way = arg;
	uint64_t last = 0;

	/* Until the client's end is ours: petal_pair_open() sees to it. */
	while (pair->page) {
		uint64_t number = look(&way->posts[0]);

		if (number == last) {
			way->nap(&way->posts[0], way->fds[0], last);
			continue;
		}
		last = number;
		tell(way, 1, number);
	}
	return -ENOTCONN;
}

static int trip(struct petal_contender *contender, uint64_t sequence)
{
	struct way *way = contender->arg;
	uint64_t seen;

	tell(way, 0, sequence);
	while ((seen = look(&way->posts[1])) != sequence) {
		uint64_t begin_ns = petal_clock_now_ns();
		int err;

		way->nap(&way->posts[1], way->fds[1], seen);
		if (petal_clock_now_ns() - begin_ns < LOOK_UP_NS)
			continue;
		/* A long silence: is anybody there? */
		err = petal_pair_check(&contender->pair);
		if (err < 0)
			return err;
	}
	return 0;
}

static void close_way(struct petal_contender *contender)
{
	struct way *way = contender->arg;

	for (unsigned i = 0; i < 2; i++)
		if (way->fds[i] >= 0)
			close(way->fds[i]);
	way->fds[0] = way->fds[1] = -1;
	if (way->posts)
		munmap(way->posts, 2 * sizeof(*way->posts));
	way->posts = NULL;
}

static int open_way(struct petal_contender *contender,
		    const struct petal_contest *contest)
{
	struct way *way = contender->arg;
	void *posts = mmap(NULL, 2 * sizeof(*way->posts),
			   PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			   -1, 0);

	if (posts == MAP_FAILED)
		return -errno;
	way->posts = posts;
	for (unsigned i = 0; i < 2 && way->needs_fds; i++) {
		way->fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (way->fds[i] < 0)
			return -errno;
	}
	return petal_pair_open(&contender->pair, contest->cpus[1], serve, way);
}

static struct way ways[] = {
	{ call_eventfd, nap_eventfd, NULL, { -1, -1 }, true },
	{ call_bell, nap_bell, NULL, { -1, -1 }, false },
	{ call_bell, nap_bells, NULL, { -1, -1 }, false },
	{ call_bell_fd, nap_bell_fd, NULL, { -1, -1 }, true },
};

static const char *const names[][2] = {
	{ "eventfd", "bare, by poll" },
	{ "petal-doorbell", "futex" },
	{ "petal-doorbell-many", "futex_waitv on two" },
	{ "petal-doorbell-fd", "eventfd, by poll" },
};

#define WAYS (sizeof(ways) / sizeof(*ways))

int main(int argc, char **argv)
{
	struct petal_contender contenders[WAYS] = { 0 };
	struct petal_contest contest;
	int err = petal_contest_parse(&contest, "wake", argc, argv);

	if (err != 0)
		return err > 0 ? 0 : 2;
	/* Who spins does not sleep: that is what rtt measures. */
	contest.spin = false;
	contest.sleep = true;
	petal_barrier_enroll();
	for (size_t i = 0; i < WAYS; i++)
		contenders[i] = (struct petal_contender){
			.impl = names[i][0],
			.remark = names[i][1],
			.open = open_way,
			.trip = trip,
			.close = close_way,
			.arg = &ways[i],
		};
	return petal_contest_run(&contest, contenders, WAYS) < 0 ? 1 : 0;
}
