/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A broadcast of market ticks, no daemon: one process publishes, three read.
 * Two are fast and must see every tick, so the publisher waits for them. One is
 * slow; it drops what it cannot follow, knows how much, and holds up nobody.
 *
 *    cc 06-ticks.c $(pkg-config --cflags --libs petalith) && ./a.out
 *
 * Prints what each reader saw and lost, checks it, and exits 0.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rings/bcast.h"
#include "shm/error.h"
#include "shm/segment.h"

#define TICKS UINT64_C(200000)
#define TICK_TYPE 1
#define READERS 3

/* All that travels: a record may have any length, a tick has this one. */
struct tick {
	uint64_t number;
	char symbol[8];
	uint64_t price_cents;
	uint64_t volume;
};

/* What a reader hands back, at its place in the same segment. */
struct result {
	uint64_t seen;
	uint64_t lost;
	uint64_t volume;
};

struct shared {
	struct result results[READERS];
	_Alignas(64) uint8_t ring[];
};

static const struct petal_bcast_geometry geometry = {
	.data_bytes = 256 * 1024,
	.readers = READERS,
};

static const enum petal_bcast_policy policies[READERS] = {
	PETAL_BCAST_BLOCK,
	PETAL_BCAST_BLOCK,
	PETAL_BCAST_DROP_OLDEST,
};

static uint64_t volume_of(uint64_t number)
{
	return number % 97;
}

/* A tick was read: count it. The slow reader thinks for a while about it. */
static int take(const struct tick *tick, bool slow, struct result *result)
{
	const struct timespec thought = { .tv_nsec = 100000 };

	if (tick->volume != volume_of(tick->number))
		return -PETAL_ECORRUPT;
	/* Every tick before this one was either seen or counted as lost. */
	if (tick->number != result->seen + result->lost)
		return -PETAL_EDATALOSS;
	result->seen++;
	result->volume += tick->volume;
	if (slow)
		nanosleep(&thought, NULL);
	return 0;
}

static int read_ticks(struct petal_bcast_reader *reader, struct result *result)
{
	bool slow = reader->policy == PETAL_BCAST_DROP_OLDEST;
	struct petal_bcast_view view;
	struct tick tick;
	int outcome;

	while ((outcome = petal_bcast_peek(reader, &view)) !=
	       PETAL_RING_CLOSED) {
		if (outcome == PETAL_RING_LAPPED)
			result->lost = petal_bcast_lost(reader);
		if (outcome == PETAL_RING_EMPTY)
			sched_yield();
		if (outcome < 0 && outcome != -EAGAIN)
			return outcome;
		if (outcome != 0)
			continue;
		if (view.type != TICK_TYPE || view.length != sizeof(tick))
			return -PETAL_ECORRUPT;
		/* Who may be overtaken reads first, and then asks. */
		memcpy(&tick, view.payload, sizeof(tick));
		if (!petal_bcast_check(reader, &view))
			continue;
		petal_bcast_release(reader, &view);
		outcome = take(&tick, slow, result);
		if (outcome)
			return outcome;
	}
	return 0;
}

/*
 * Only a reader that is proved dead may lose its seat, and a child that can be
 * waited for is; else its death would hold us up for ever.
 */
static void bury_dead(struct shared *shared, const pid_t children[READERS])
{
	for (unsigned i = 0; i < READERS; i++) {
		siginfo_t info = { .si_pid = 0 };

		if (waitid(P_PID, (id_t)children[i], &info,
			   WEXITED | WNOHANG | WNOWAIT) == 0 &&
		    info.si_pid == children[i])
			petal_bcast_repair(shared->ring,
					   petal_bcast_bytes(&geometry), i);
	}
}

static int publish_ticks(struct shared *shared, struct petal_bcast *ring,
			 const pid_t children[READERS])
{
	for (uint64_t i = 0; i < TICKS; i++) {
		struct tick *tick;
		void *payload;
		int err;

		/* Full: a reader that we promised to wait for is behind. */
		while ((err = petal_bcast_claim(ring, sizeof(*tick), TICK_TYPE,
						&payload)) == -EAGAIN) {
			bury_dead(shared, children);
			sched_yield();
		}
		if (err)
			return err;
		tick = payload;
		tick->number = i;
		memcpy(tick->symbol, "PETL", 5);
		tick->price_cents = 10000 + i % 500;
		tick->volume = volume_of(i);
		petal_bcast_publish(ring);
	}
	petal_bcast_close(ring);
	return 0;
}

/* The seat is taken before the fork, so that the first tick is not missed. */
static int start_reader(struct shared *shared, unsigned index, pid_t *ret_child)
{
	const struct petal_bcast_options options = {
		.policy = policies[index],
		.owner = index,
	};
	struct petal_bcast_reader reader;
	pid_t child;
	int err;

	err = petal_bcast_join(shared->ring, petal_bcast_bytes(&geometry),
			       &options, &reader);
	if (err)
		return err;
	child = fork();
	if (child < 0)
		return -errno;
	if (child == 0) {
		err = read_ticks(&reader, &shared->results[index]);
		if (err)
			fprintf(stderr, "06-ticks: reader %u: %s\n", index,
				petal_strerror(err));
		_exit(err ? EXIT_FAILURE : EXIT_SUCCESS);
	}
	*ret_child = child;
	return 0;
}

/* Fast readers lost nothing; what the slow one lost, it has counted. */
static int check(const struct result *result, unsigned index)
{
	bool slow = policies[index] == PETAL_BCAST_DROP_OLDEST;

	printf("%s reader: %" PRIu64 " seen, %" PRIu64 " lost, volume %" PRIu64
	       "\n",
	       slow ? "slow" : "fast", result->seen, result->lost,
	       result->volume);
	if (result->seen + result->lost != TICKS)
		return -PETAL_EDATALOSS;
	return slow == (result->lost > 0) ? 0 : -PETAL_EDATALOSS;
}

static int run(struct shared *shared)
{
	pid_t children[READERS];
	struct petal_bcast ring;
	unsigned started = 0;
	int status, err;

	err = petal_bcast_format(shared->ring, &geometry);
	if (!err)
		err = petal_bcast_attach(shared->ring,
					 petal_bcast_bytes(&geometry), &ring);
	if (err)
		return err;
	while (!err && started < READERS) {
		err = start_reader(shared, started, &children[started]);
		if (!err)
			started++;
	}
	/* After a failed start this is for those that did start. */
	if (!err)
		err = publish_ticks(shared, &ring, children);
	else
		petal_bcast_close(&ring);
	for (unsigned i = 0; i < started; i++) {
		if (waitpid(children[i], &status, 0) < 0)
			return -errno;
		if (!err && status != 0)
			err = -PETAL_EUNKNOWN;
		if (!err)
			err = check(&shared->results[i], i);
	}
	return err;
}

int main(void)
{
	const struct petal_segment_options options = {
		.name = "06-ticks",
		.body_bytes =
			sizeof(struct shared) + petal_bcast_bytes(&geometry),
	};
	struct petal_segment segment;
	int err;

	err = petal_segment_open(&options, &segment);
	if (!err) {
		err = run(petal_segment_body(&segment));
		petal_segment_close(&segment);
	}
	if (err) {
		fprintf(stderr, "06-ticks: %s\n", petal_strerror(err));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
