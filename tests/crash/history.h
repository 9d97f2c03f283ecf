/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_CRASH_HISTORY_H
#define PETAL_TESTS_CRASH_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * DOC: history - what each party did, and whether all of it fits together
 *
 * A party writes down what it is about to do and what came of it. Its history
 * lies outside of the memory under test, so it outlives the party, and no bug
 * of a ring can falsify it by accident.
 *
 * A message has an id: the number of its producer, which no other producer of
 * the run has, and a sequence that grows by one.
 *
 *    producer  TRY id   before the first store that could make it visible
 *              ACK id   publish said 0
 *              VOID id  refused, aborted or stale: nobody may ever get it
 *    consumer  GOT id   it was whole
 *              FREE id  about to release it
 *              DONE id  release came back
 *              HELD id  looked at a second time, and still the same
 *              AGAIN id like GOT, but the ring says that another had it before
 *              LATE id  release said that another has it by now: GOT no more
 *              LOST n   the ring says that this reader did not get n more
 *              EVICTED  the reader was thrown out, or left; and joined again
 *    both      CLOSE r  from now on nobody may send; by one of which role
 *              CLOSED r close came back
 *              TORN id  the bytes are not what the producer wrote
 *              ODD code what no call should have returned
 *
 * What must hold, for each queue:
 *
 *    loss      what was acknowledged was released by somebody, or was got by
 *              somebody who lives, or by a dead one who was about to release
 *    phantom   what was got was tried, and not made void
 *    doubling  what was got is not got again, but for what a dead consumer had
 *              not released, or released last in a ring that stores its head
 *              late
 *    order     of each producer, each consumer gets ascending sequences; where
 *              consumers follow each other, so do all that came for the first
 *              time
 *
 * In a broadcast each reader gets, between the first and the last that it got,
 * all that is acknowledged but for as many as it was told that it has lost, no
 * more and no fewer; and to the end, if it has come to its end. Who is evicted
 * is as good as a new reader afterwards. Producers follow each other there, and
 * later ones have higher numbers.
 */

enum event {
	EVENT_TRY = 1,
	EVENT_ACK,
	EVENT_VOID,
	EVENT_GOT,
	EVENT_FREE,
	EVENT_DONE,
	EVENT_HELD,
	EVENT_TORN,
	EVENT_ODD,
	EVENT_AGAIN,
	EVENT_LATE,
	EVENT_CLOSE,
	EVENT_CLOSED,
	EVENT_LOST,
	EVENT_EVICTED,
};

#define HISTORY_NUMBERS 4096u
#define HISTORY_SEQUENCE_BITS 32

/**
 * struct history - of one party
 * @number: of the party, unique in the run
 * @dead: whether the party died before its end
 * @capacity: events that fit
 * @count: events there are; stored after the event
 */
struct history {
	uint32_t number;
	bool dead;
	uint64_t capacity;
	uint64_t count;
	uint64_t events[];
};

/**
 * struct history_rules - what differs between kinds of rings
 * @late: how many of its last released messages a dead consumer may leave to
 *	be got again
 * @in_turn: consumers of a queue follow each other, there is one at a time
 * @broadcast: each consumer is a queue of its own, from its first message on
 * @mixed: messages come by several ways, in any order
 * @bereft: what was on its way to a consumer dies with it, and one has died
 */
struct history_rules {
	uint64_t late;
	bool in_turn;
	bool broadcast;
	bool mixed;
	bool bereft;
};

/** history_bytes() - memory for a history of so many events */
size_t history_bytes(uint64_t capacity);

/** history_init() - make a history empty */
void history_init(struct history *history, uint32_t number, uint64_t capacity);

static inline bool history_full(const struct history *history, uint64_t reserve)
{
	return history->count + reserve > history->capacity;
}

static inline void history_add(struct history *history, enum event event,
			       uint64_t id)
{
	uint64_t at = *(volatile uint64_t *)&history->count;

	if (at >= history->capacity)
		return;
	*(volatile uint64_t *)&history->events[at] = (uint64_t)event << 56 | id;
	*(volatile uint64_t *)&history->count = at + 1;
}

static inline enum event event_kind(uint64_t event)
{
	return (enum event)(event >> 56);
}

static inline uint64_t event_id(uint64_t event)
{
	return event << 8 >> 8;
}

/**
 * history_check() - do these fit together?
 * @histories: of one run, consumers of a queue in the order of their starts
 * @ret_why: at least 200 bytes; what does not fit, on failure
 *
 * Return: 0, or 1 when something does not fit; -ENOMEM.
 */
int history_check(struct history *const *histories, unsigned count,
		  const struct history_rules *rules, char *ret_why);

#endif
