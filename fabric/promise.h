/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_PROMISE_H
#define PETAL_FABRIC_PROMISE_H

#include <stdbool.h>
#include <stdint.h>

/**
 * DOC: promise - the epochs that a node will not go back behind
 *
 * A member that answers FENCED(e) has promised to take no part in an epoch of
 * that ring below e, and keeps that over a crash of its machine: the promise is
 * durable before the answer is sent (I1).
 *
 *    the file "promise"
 *    byte 0                   4096                  8192
 *    +------------------------+---------------------+
 *    | head 32, 16 a ring     | the same            |   written in turns
 *    +------------------------+---------------------+
 *
 * Always true: one of the two blocks is whole, and the whole one of the higher
 * sequence has every promise that petal_promise_flush() returned 0 for.
 *
 * Threads: one. Blocks in flush, for one synchronous write of a block.
 *
 * Crash: a block that was being written is torn, and the other one counts.
 *
 * Failure: after a write that failed nothing is promised any more.
 */

#define PETAL_PROMISE_FILE "promise"
#define PETAL_PROMISE_RINGS_MAX 128u

struct petal_promise_ring {
	uint64_t ring;
	uint32_t epoch;
	uint32_t reserved;
};

struct petal_promise {
	int fd;
	int failed; /* 0, or why nothing is written any more */
	bool dirty;
	uint32_t count;
	uint64_t sequence; /* of the newest block */
	struct petal_promise_ring rings[PETAL_PROMISE_RINGS_MAX];
};

/**
 * petal_promise_open() - read what was promised, or begin with nothing
 * @dir: an existing directory that is ours alone (the journal's lock says so)
 *
 * Return: 0; -PETAL_ECORRUPT when the file is there and neither block is
 * whole; -PETAL_EVERSION; or the kernel's error.
 */
int petal_promise_open(const char *dir, struct petal_promise *ret_promise);

void petal_promise_close(struct petal_promise *promise);

/**
 * petal_promise_epoch() - the epoch promised for a ring, 0 if none
 */
uint32_t petal_promise_epoch(const struct petal_promise *promise,
			     uint64_t ring);

/**
 * petal_promise_raise() - promise an epoch; it counts after the next flush
 * @ring: not 0
 *
 * Promising the same again is fine.
 *
 * Return: 0; -ESTALE when a higher one was promised; -ENOSPC beyond
 * PETAL_PROMISE_RINGS_MAX.
 */
int petal_promise_raise(struct petal_promise *promise, uint64_t ring,
			uint32_t epoch);

/**
 * petal_promise_flush() - make what was raised durable
 *
 * Return: 0; -PETAL_EDISK, now or at an earlier call: answer nobody.
 */
int petal_promise_flush(struct petal_promise *promise);

/**
 * petal_promise_forget() - a ring was deleted; its place goes with the next
 * flush
 */
void petal_promise_forget(struct petal_promise *promise, uint64_t ring);

#endif
