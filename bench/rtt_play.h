/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_RTT_PLAY_H
#define PETAL_BENCH_RTT_PLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/contest.h"
#include "shm/histogram.h"

/**
 * DOC: rtt_play - the ways of bouncing a message that rtt compares
 *
 * A leg maps fresh memory, forks the server (and, for a crowd, more pairs of
 * both) and plays the client itself.
 *
 * Ordering:
 *    [BALL]  whoever bounces stores its word (release) -> the other side loads
 *            it (acquire): what it carries is there
 */

struct leg;

/**
 * struct rtt_play - one way of bouncing
 * @bytes: of payload; of a loan, of the buffer to which the message refers
 * @loan: the message is the reference of a buffer, which changes hands
 * @lines: how many each way, if it is lines that bounce; 0: ours
 * @crowd: pairs at once, of which one is measured
 */
struct rtt_play {
	const char *impl;
	const char *remark;
	const char *wait;
	bool floor;
	bool loan;
	uint64_t bytes;
	unsigned lines;
	unsigned crowd;
	int (*client)(struct leg *leg);
	int (*server)(struct leg *leg);
};

/* A floor, and what is compared with it. */
extern const struct rtt_play rtt_plays[][2];
extern const size_t rtt_play_count;

/** rtt_calibrate() - measure the clock, once, before the first leg */
void rtt_calibrate(void);

/**
 * rtt_run_leg() - bounce for a while
 * @histogram: of the samples, in ns; initialised
 *
 * Return: 0; -EBADMSG when a party read what nobody wrote, or died; -errno.
 */
int rtt_run_leg(const struct petal_contest *contest,
		const struct rtt_play *play, uint64_t leg_ns,
		struct petal_histogram *histogram);

#endif
