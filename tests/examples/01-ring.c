/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two processes, one ring between them, no daemon: the parent sends a million
 * numbers, the child adds them up where they lie. Who has nothing to do sleeps.
 *
 *    cc 01-ring.c $(pkg-config --cflags --libs petalith) && ./a.out
 *
 * Prints "1000000 numbers, sum 499999500000" and exits 0.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rings/doorbell.h"
#include "rings/spsc.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "shm/segment.h"

#define NUMBERS UINT64_C(1000000)
#define PATIENCE_NS PETAL_S(20)

/* What lies in the segment. A doorbell for each thing to wait for. */
struct shared {
	_Alignas(64) struct petal_doorbell news; /* the ring is not empty */
	_Alignas(64) struct petal_doorbell room; /* the ring is not full */
	_Alignas(64) uint8_t ring[];
};

static const struct petal_spsc_geometry geometry = {
	.slot_count = 1024,
	.slot_bytes = sizeof(uint64_t),
};

/* Sleep until the doorbell rings after @seen; an error if it never does. */
static int nap(struct petal_doorbell *doorbell, uint32_t seen)
{
	uint64_t deadline_ns = petal_clock_now_ns() + PATIENCE_NS;
	int outcome = petal_doorbell_wait(doorbell, seen, deadline_ns);

	return outcome == 1 ? -ETIMEDOUT : outcome;
}

static int produce(struct shared *shared, struct petal_spsc *ring)
{
	for (uint64_t i = 0; i < NUMBERS; i++) {
		uint64_t *slot;

		while (!(slot = petal_spsc_claim(ring))) {
			uint32_t seen = petal_doorbell_arm(&shared->room);

			/* Look again between arm and nap: this is the rule. */
			if (!petal_spsc_claim(ring) && nap(&shared->room, seen))
				return -ETIMEDOUT;
		}
		*slot = i;
		petal_spsc_publish(ring);
		petal_doorbell_ring(&shared->news, PETAL_DOORBELL_ALL);
	}
	return 0;
}

static int consume(struct shared *shared, struct petal_spsc *ring,
		   uint64_t *ret_sum)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < NUMBERS; i++) {
		const uint64_t *number;

		while (!(number = petal_spsc_peek(ring))) {
			uint32_t seen = petal_doorbell_arm(&shared->news);

			/* Finding nothing has freed slots: tell who waits. */
			petal_doorbell_ring(&shared->room, PETAL_DOORBELL_ALL);
			if (!petal_spsc_peek(ring) && nap(&shared->news, seen))
				return -ETIMEDOUT;
		}
		sum += *number;
		petal_spsc_release(ring);
		petal_doorbell_ring(&shared->room, PETAL_DOORBELL_ALL);
	}
	*ret_sum = sum;
	return 0;
}

/* A stranger would get the fd over a unix socket; a child has it already. */
static int run_child(int fd)
{
	struct petal_segment segment;
	struct petal_spsc ring;
	struct shared *shared;
	uint64_t sum;
	int err;

	err = petal_segment_attach(fd, true, &segment);
	if (err)
		return err;
	shared = petal_segment_body(&segment);
	err = petal_spsc_attach(shared->ring, petal_spsc_bytes(&geometry),
				PETAL_SPSC_CONSUMER, &ring);
	if (!err)
		err = consume(shared, &ring, &sum);
	if (!err)
		printf("%" PRIu64 " numbers, sum %" PRIu64 "\n", NUMBERS, sum);
	petal_segment_close(&segment);
	return err;
}

static int run_parent(const struct petal_segment *segment)
{
	struct shared *shared = petal_segment_body(segment);
	struct petal_spsc ring;
	int status, err;
	pid_t child;

	err = petal_spsc_format(shared->ring, &geometry);
	if (!err)
		err = petal_spsc_attach(shared->ring,
					petal_spsc_bytes(&geometry),
					PETAL_SPSC_PRODUCER, &ring);
	if (err)
		return err;
	child = fork();
	if (child < 0)
		return -errno;
	if (child == 0)
		exit(run_child(segment->fd) ? EXIT_FAILURE : EXIT_SUCCESS);
	err = produce(shared, &ring);
	if (waitpid(child, &status, 0) < 0)
		return -errno;
	return err || status == 0 ? err : -PETAL_EUNKNOWN;
}

int main(void)
{
	const struct petal_segment_options options = {
		.name = "01-ring",
		.body_bytes =
			sizeof(struct shared) + petal_spsc_bytes(&geometry),
	};
	struct petal_segment segment;
	int err;

	err = petal_segment_open(&options, &segment);
	if (!err) {
		err = run_parent(&segment);
		petal_segment_close(&segment);
	}
	if (err) {
		fprintf(stderr, "01-ring: %s\n", petal_strerror(err));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
