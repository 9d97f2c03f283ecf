/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_PACE_H
#define PETAL_RINGS_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include "rings/waiter.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: pace - how soon a consumer that has caught up looks again
 *
 * Who looks for the next message holds a copy of the very line that the
 * producer is about to write, and takes it back in the middle of the writing:
 * a consumer at its producer's heels makes each line travel several times. So
 * the rings' consumers look a little less greedily, in two ways:
 *
 *    a look that finds nothing, after none or one that found a message, costs
 *    one reading of the time stamp counter: some 10 to 20 ns between two looks
 *    of who spins, as in a ping-pong;
 *    a look that finds nothing after two or more messages is the end of a
 *    burst. It waits for a moment, then looks once more. The moment is twice as
 *    long as the last one if it brought less than PETAL_PACE_BATCH messages,
 *    half as long if it brought many, and the shortest again after one that
 *    brought none or one; it never exceeds the consumer's limit.
 *
 * So one message at a time is never held up, a stream comes in batches, and no
 * message is seen later than the limit for it. It is the adaptive coalescing of
 * interrupts that network cards do, by the same means.
 *
 * A pace belongs to a consumer's view of one ring, and is private to its
 * thread. Who visits several rings in turn, or shares its CPU with others that
 * spin, has something better to do than to wait: petal_pace_limit(&ring.pace,
 * 0) after attach leaves the first way only.
 */

/* In ticks of petal_waiter_ticks(): some 50 ns, and 1 us. */
#define PETAL_PACE_TICKS_MIN 128u
#define PETAL_PACE_TICKS_MAX 2048u
/* Messages that are worth a wait, and how many batches are more than enough. */
#define PETAL_PACE_BATCH 16u
#define PETAL_PACE_BATCHES_MAX 8u

struct petal_pace {
	uint64_t counted;   /* messages, when nothing was found last */
	uint32_t ticks;     /* how long the next wait is */
	uint32_t ticks_max; /* the consumer's limit */
};

/**
 * petal_pace_init() - a pace for a consumer that begins
 * @count: where its count of messages starts
 */
static inline void petal_pace_init(struct petal_pace *pace, uint64_t count)
{
	pace->counted = count;
	pace->ticks = 0;
	pace->ticks_max = PETAL_PACE_TICKS_MAX;
}

/**
 * petal_pace_limit() - how long a message may be held up at the most
 * @ticks_max: 0 for not at all; PETAL_PACE_TICKS_MAX unless it was said
 */
static inline void petal_pace_limit(struct petal_pace *pace, uint32_t ticks_max)
{
	pace->ticks_max = ticks_max;
}

/* After a burst. */
static inline void petal_pace_wait(struct petal_pace *pace, uint64_t found,
				   uint64_t begin_ticks)
{
	uint64_t ticks = pace->ticks;

	if (found < PETAL_PACE_BATCH)
		ticks *= 2;
	else if (found > PETAL_PACE_BATCH * PETAL_PACE_BATCHES_MAX)
		ticks /= 2;
	if (ticks < PETAL_PACE_TICKS_MIN)
		ticks = PETAL_PACE_TICKS_MIN;
	if (ticks > pace->ticks_max)
		ticks = pace->ticks_max;
	pace->ticks = (uint32_t)ticks;
	do
		petal_waiter_pause();
	while (petal_waiter_ticks() - begin_ticks < ticks);
}

/**
 * petal_pace_missed() - nothing was found: perhaps wait for a moment
 * @count: messages found so far, from where init said
 *
 * Return: true after a wait, when the caller is to look once more; asked again
 * with the same @count it says false.
 */
static inline bool petal_pace_missed(struct petal_pace *pace, uint64_t count)
{
	uint64_t begin_ticks = petal_waiter_ticks();
	int64_t found = (int64_t)(count - pace->counted);

	pace->counted = count;
	/* Less than nothing is who looked further ahead before. */
	if (found <= 1)
		pace->ticks = 0;
	if (found <= 1 || pace->ticks_max == 0)
		return false;
	petal_pace_wait(pace, (uint64_t)found, begin_ticks);
	return true;
}

#ifdef __cplusplus
}
#endif

#endif
