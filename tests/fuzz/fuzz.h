/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FUZZ_FUZZ_H
#define PETAL_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stdint.h>

/**
 * DOC: fuzz - a subject, and the hostile peer that it works beside
 *
 * A subject is one kind of ring, or a table of shm/. It makes itself in the
 * memory that it is given, takes all roles as an honest process would, and does
 * one call at a time. Everything that it chooses comes from fuzz_random(), so
 * that a case is its number and nothing else.
 *
 *    guard | poison | memory of the subject | guard
 *
 * A read or write outside of that memory ends the program, and the program that
 * started it counts a failure and goes on with the next case.
 */

#define FUZZ_REGIONS 2

struct fuzz_region {
	uint8_t *base;
	uint64_t bytes;
};

struct fuzz_subject {
	const char *name;
	unsigned variants;
	/* Of cost: so many times fewer calls than of a fast one. */
	unsigned cost;
	/* How many shared words one call may touch, hostile peer or not. */
	uint64_t accesses_max;
	void (*sizes)(uint32_t variant, uint64_t bytes[FUZZ_REGIONS]);
	/* The memory is zeroed. */
	void (*make)(const struct fuzz_region *regions, uint32_t variant);
	void (*step)(void);
};

/** fuzz_random() - the next choice of this case, below a limit that is not 0 */
uint64_t fuzz_random(uint64_t below);

/** fuzz_lie() - a boundary value for a word, or random bits */
uint64_t fuzz_lie(uint64_t honest);

/** fuzz_read() - read as a consumer does: what is there does not matter */
void fuzz_read(const void *bytes, uint64_t length);

/** fuzz_write() - fill as a producer does */
void fuzz_write(void *bytes, uint64_t length);

/** fuzz_refused() - count an outcome below 0, and pass it on */
int64_t fuzz_refused(int64_t outcome);

/** fuzz_require() - what must be so, whatever the peer does */
#define fuzz_require(condition)                           \
	do {                                              \
		if (!(condition))                         \
			fuzz_fail("not so: " #condition); \
	} while (0)

__attribute__((noreturn)) void fuzz_fail(const char *what);

extern const struct fuzz_subject fuzz_spsc;
extern const struct fuzz_subject fuzz_pipe;
extern const struct fuzz_subject fuzz_mpsc;
extern const struct fuzz_subject fuzz_mpmc;
extern const struct fuzz_subject fuzz_bcast;
extern const struct fuzz_subject fuzz_record;
extern const struct fuzz_subject fuzz_doorbell;
extern const struct fuzz_subject fuzz_ledger;
extern const struct fuzz_subject fuzz_extent;
extern const struct fuzz_subject fuzz_counters;
extern const struct fuzz_subject fuzz_histogram;

#endif
