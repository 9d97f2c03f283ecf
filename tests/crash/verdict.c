/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/verdict.h"

#include <stdio.h>
#include <stdlib.h>

#define ACTS_MAX 1000000u
#define LOOKS_MAX 1000u
/* Quarantines end when the ring has gone round; then all room is back. */
#define ROUNDS 3u

/* Parties of the verdict's own: a consumer for each place, and a producer. */
struct court {
	struct verdict *verdict;
	struct party consumers[PARTIES_MAX];
	struct party producer;
	struct history *drained[PARTIES_MAX];
	struct history *emptied[PARTIES_MAX];
	struct history *filled;
	unsigned consumer_count;
	bool closed; /* a producer was told so */
};

static int complain(struct verdict *verdict, const char *what, int64_t number)
{
	snprintf(verdict->why, sizeof(verdict->why), "%s (%lld)", what,
		 (long long)number);
	return 1;
}

static int enter(struct court *court)
{
	struct verdict *verdict = court->verdict;
	int outcome;

	for (unsigned i = 0; i < court->consumer_count; i++) {
		struct party *party = &court->consumers[i];

		party_init(party, verdict->subject, verdict->shape,
			   verdict->memory, CONSUMER,
			   subject_spare(verdict->subject, i),
			   court->drained[i]);
		party->follows = verdict->dead.consumers >> i & 1;
		outcome = verdict->subject->join(party);
		if (outcome)
			return complain(verdict, "a survivor cannot join",
					outcome);
		/* One repairs for all; then nobody of the living is named. */
		if (i > 0)
			continue;
		outcome = verdict->subject->repair(party, &verdict->dead);
		if (outcome)
			return complain(verdict, "repair fails", outcome);
	}
	return 0;
}

static int drain(struct court *court)
{
	for (unsigned i = 0; i < court->consumer_count; i++) {
		unsigned acts = 0, looks = 0;
		int outcome;

		/* A call may look at a part only, and say that it is held up. */
		do {
			outcome = party_act(&court->consumers[i]);
			looks = outcome == ACT_HELD_UP ? looks + 1 : 0;
		} while ((outcome == ACT_DONE || looks > 0) &&
			 looks < LOOKS_MAX && ++acts < ACTS_MAX);
		if (outcome != ACT_NOTHING && outcome != ACT_CLOSED)
			return complain(court->verdict,
					outcome == ACT_HELD_UP
						? "stuck: held up by the dead"
						: "drain fails",
					outcome);
		if (court->closed && outcome != ACT_CLOSED)
			return complain(court->verdict,
					"closed, and nobody is told", outcome);
	}
	return 0;
}

static int compare(struct court *court, struct history **histories,
		   unsigned count)
{
	struct verdict *verdict = court->verdict;
	struct history_rules rules =
		subject_rules(verdict->subject, verdict->shape);
	int bad;

	rules.bereft = verdict->subject->seated && verdict->bereft;
	bad = history_check(histories, count, &rules, verdict->why);

	return bad < 0 ? complain(verdict, "no memory", bad) : bad;
}

static int look_over(struct court *court)
{
	const struct verdict *verdict = court->verdict;

	if (!verdict->subject->audit)
		return 0;
	return verdict->subject->audit(verdict->memory, verdict->shape,
				       court->verdict->why);
}

/* Whether somebody of a role has said so of closing the ring. */
static bool somebody_says(const struct verdict *verdict, enum event event,
			  enum role role)
{
	for (unsigned i = 0; i < verdict->history_count; i++) {
		const struct history *history = verdict->histories[i];

		for (uint64_t j = 0; j < history->count; j++)
			if (event_kind(history->events[j]) == event &&
			    event_id(history->events[j]) == role)
				return true;
	}
	return false;
}

static int fill(struct court *court, bool last)
{
	struct verdict *verdict = court->verdict;
	uint64_t room = verdict->subject->room(verdict->shape);
	uint64_t sent = 0;
	int outcome;

	while ((outcome = party_act(&court->producer)) == ACT_DONE)
		if (++sent > ACTS_MAX)
			return complain(verdict, "never full", (int64_t)sent);
	/* A consumer that has closed is not told so. */
	if (outcome == ACT_CLOSED &&
	    somebody_says(verdict, EVENT_CLOSE, CONSUMER))
		return 0;
	/* Closed is closed; drain sees to it that the consumers know. */
	if (outcome == ACT_CLOSED && sent == 0 &&
	    somebody_says(verdict, EVENT_CLOSE, PRODUCER)) {
		court->closed = true;
		return 0;
	}
	if (outcome != ACT_NOTHING)
		return complain(verdict, "not usable again", outcome);
	if (last && (somebody_says(verdict, EVENT_CLOSED, PRODUCER) ||
		     somebody_says(verdict, EVENT_CLOSED, CONSUMER)))
		return complain(verdict, "closed, and still open", outcome);
	if (last && sent < room)
		return complain(verdict, "leaked: less room than before",
				(int64_t)sent);
	return 0;
}

static int reuse(struct court *court)
{
	struct verdict *verdict = court->verdict;
	struct history *histories[PARTIES_MAX + 1];
	unsigned count = 0;
	int bad;

	party_init(&court->producer, verdict->subject, verdict->shape,
		   verdict->memory, PRODUCER, 0, court->filled);
	court->producer.follows = verdict->dead.producers & 1;
	bad = verdict->subject->join(&court->producer);
	/* A subject may be made for so many producers, and no more. */
	if (bad == ACT_CLOSED)
		return look_over(court);
	if (bad)
		return complain(verdict, "a new producer cannot join", bad);
	for (unsigned i = 0; i < court->consumer_count; i++) {
		court->consumers[i].history = court->emptied[i];
		histories[count++] = court->emptied[i];
	}
	histories[count++] = court->filled;
	for (unsigned round = 0; round < ROUNDS && !bad; round++) {
		bad = fill(court, round + 1 == ROUNDS);
		if (!bad)
			bad = drain(court);
	}
	if (!bad)
		bad = compare(court, histories, count);
	return bad ? bad : look_over(court);
}

static int hold(struct court *court)
{
	struct verdict *verdict = court->verdict;
	struct history *histories[VERDICT_HISTORIES_MAX + PARTIES_MAX];
	unsigned count = verdict->history_count;
	int bad = enter(court);

	if (bad)
		return bad;
	bad = drain(court);
	if (bad)
		return bad;
	for (unsigned i = 0; i < count; i++)
		histories[i] = verdict->histories[i];
	for (unsigned i = 0; i < court->consumer_count; i++)
		histories[count++] = court->drained[i];
	bad = compare(court, histories, count);
	if (!bad)
		bad = look_over(court);
	return bad ? bad : reuse(court);
}

/* Histories are large for large rings, and the same from call to call. */
static struct history *summon(struct history **history, uint32_t number,
			      uint64_t capacity)
{
	if (*history && (*history)->capacity < capacity) {
		free(*history);
		*history = NULL;
	}
	if (!*history)
		*history = malloc(history_bytes(capacity));
	if (!*history)
		abort();
	history_init(*history, number, capacity);
	return *history;
}

int verdict_reach(struct verdict *verdict)
{
	static struct history *kept[2 * PARTIES_MAX + 1];
	static struct court court;
	uint64_t capacity = verdict->subject->room(verdict->shape) * 48 + 64;

	court.verdict = verdict;
	court.closed = false;
	court.consumer_count =
		subject_consumers(verdict->subject, verdict->shape);
	for (unsigned i = 0; i < PARTIES_MAX; i++) {
		court.drained[i] =
			summon(&kept[i], VERDICT_NUMBER + i, capacity);
		court.emptied[i] = summon(&kept[PARTIES_MAX + i],
					  VERDICT_NUMBER + PARTIES_MAX + i,
					  capacity);
	}
	court.filled =
		summon(&kept[2 * PARTIES_MAX], MESSAGE_SHORT_NUMBER, capacity);
	verdict->why[0] = '\0';
	return hold(&court);
}
