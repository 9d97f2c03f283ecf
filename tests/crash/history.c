/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/history.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Two passes over all events. The first learns what producers tried, and what
 * came of it; the second, once for each queue, counts who got what. A delivery
 * is final when its consumer lives, or had released it before it died; it is
 * vague when the consumer died in the release, or had released it but is
 * allowed to have said so late. One that a dead consumer did not release is
 * neither, and has to come again.
 */

enum fate {
	FATE_TRIED = 1,
	FATE_ACKED = 2,
	FATE_VOID = 4,
};

struct message {
	uint8_t fate;
	uint8_t finals;
	uint8_t vague;
	uint8_t seen;
	bool late; /* in the history that is followed */
};

struct producer {
	uint32_t last;   /* the highest sequence that was tried */
	uint64_t first;  /* where its messages start in the table */
	uint32_t high;   /* the highest sequence got for the first time */
	uint32_t stream; /* the last one that this consumer got */
};

struct check {
	struct history *const *histories;
	unsigned count;
	const struct history_rules *rules;
	char *why;
	struct producer *producers;
	struct message *messages;
	uint64_t message_count;
	uint64_t last; /* of a broadcast, what this reader got last; or 0 */
	uint64_t lost; /* since then, as it was told */
};

size_t history_bytes(uint64_t capacity)
{
	return sizeof(struct history) + capacity * sizeof(uint64_t);
}

void history_init(struct history *history, uint32_t number, uint64_t capacity)
{
	history->number = number;
	history->dead = false;
	history->capacity = capacity;
	history->count = 0;
}

static int wrong(struct check *check, const char *what, uint64_t id,
		 const struct history *history)
{
	char source[32] = "";

	if (history)
		snprintf(source, sizeof(source), ", says party %" PRIu32,
			 history->number);
	snprintf(check->why, 200,
		 "%s: message %" PRIu64 " of party %" PRIu64 "%s", what,
		 id & UINT32_MAX, id >> HISTORY_SEQUENCE_BITS, source);
	return 1;
}

static struct message *message_of(struct check *check, uint64_t id)
{
	uint64_t number = id >> HISTORY_SEQUENCE_BITS;
	uint32_t sequence = (uint32_t)id;

	if (number >= HISTORY_NUMBERS || sequence == 0 ||
	    sequence > check->producers[number].last)
		return NULL;
	return &check->messages[check->producers[number].first + sequence - 1];
}

static int producers_count(struct check *check)
{
	for (unsigned i = 0; i < check->count; i++) {
		const struct history *history = check->histories[i];

		for (uint64_t j = 0; j < history->count; j++) {
			uint64_t id = event_id(history->events[j]);
			uint64_t number = id >> HISTORY_SEQUENCE_BITS;

			if (event_kind(history->events[j]) != EVENT_TRY)
				continue;
			if (number != history->number)
				return wrong(check, "foreign", id, history);
			if ((uint32_t)id > check->producers[number].last)
				check->producers[number].last = (uint32_t)id;
		}
	}
	for (unsigned number = 0; number < HISTORY_NUMBERS; number++) {
		check->producers[number].first = check->message_count;
		check->message_count += check->producers[number].last;
	}
	return 0;
}

static int fates_learn(struct check *check, const struct history *history)
{
	if (history->count == history->capacity)
		return wrong(check, "no room in the history after", 0, history);
	for (uint64_t j = 0; j < history->count; j++) {
		uint64_t id = event_id(history->events[j]);
		enum event kind = event_kind(history->events[j]);
		struct message *message;

		if (kind == EVENT_TORN)
			return wrong(check, "torn", id, history);
		if (kind == EVENT_ODD) {
			snprintf(check->why, 200,
				 "party %" PRIu32 " met error %" PRId64,
				 history->number, -(int64_t)id);
			return 1;
		}
		if (kind > EVENT_VOID)
			continue;
		message = message_of(check, id);
		if (!message)
			return wrong(check, "never tried", id, history);
		message->fate |= (uint8_t)(1u << (kind - EVENT_TRY));
	}
	return 0;
}

static uint64_t dones_of(const struct history *history)
{
	uint64_t dones = 0;

	for (uint64_t j = 0; j < history->count; j++)
		dones += event_kind(history->events[j]) == EVENT_DONE;
	return dones;
}

/* What a reader was not given from one id on to before another. */
static int gap_check(struct check *check, const struct history *history,
		     uint64_t from, uint64_t to)
{
	uint64_t acked = 0, unsure = 0, first = 0;
	uint64_t number = from >> HISTORY_SEQUENCE_BITS;
	uint64_t end = to >> HISTORY_SEQUENCE_BITS;
	uint32_t sequence = (uint32_t)from;

	for (; number <= end && number < HISTORY_NUMBERS; number++) {
		const struct producer *producer = &check->producers[number];

		for (; sequence <= producer->last; sequence++) {
			uint64_t id = number << HISTORY_SEQUENCE_BITS |
				      sequence;
			uint8_t fate =
				check->messages[producer->first + sequence - 1]
					.fate;

			if (id >= to)
				break;
			if (fate & FATE_ACKED && acked++ == 0)
				first = id;
			unsure += fate == FATE_TRIED;
		}
		sequence = 1;
	}
	if (acked > check->lost)
		return wrong(check, "lost", first, history);
	if (check->lost > acked + unsure)
		return wrong(check,
			     "more are said to be lost than were, before", to,
			     history);
	return 0;
}

static int reader_follow(struct check *check, const struct history *history,
			 uint64_t id)
{
	int bad = 0;

	if (id <= check->last)
		return wrong(check, "out of order", id, history);
	if (check->last)
		bad = gap_check(check, history, check->last + 1, id);
	check->last = id;
	check->lost = 0;
	return bad;
}

static int order_keep(struct check *check, const struct history *history,
		      uint64_t id, const struct message *message)
{
	uint64_t number = id >> HISTORY_SEQUENCE_BITS;
	struct producer *producer = &check->producers[number];
	uint32_t before = producer->stream;

	if (check->rules->mixed)
		return 0;
	if (check->rules->broadcast)
		return reader_follow(check, history, id);
	if ((uint32_t)id <= before)
		return wrong(check, "out of order", id, history);
	producer->stream = (uint32_t)id;
	if (message->seen || !check->rules->in_turn)
		return 0;
	if ((uint32_t)id < producer->high)
		return wrong(check, "late", id, history);
	producer->high = (uint32_t)id;
	return 0;
}

/*
 * Release said that another had these by then. What was read of such a message
 * may be of whoever claimed its room since, and published it never.
 */
static void mark_late(struct check *check, const struct history *history,
		      bool late)
{
	for (uint64_t j = 0; j < history->count; j++) {
		struct message *message;

		if (event_kind(history->events[j]) != EVENT_LATE)
			continue;
		message = message_of(check, event_id(history->events[j]));
		if (message)
			message->late = late;
	}
}

static int got(struct check *check, const struct history *history, uint64_t id,
	       enum event kind)
{
	struct message *message = message_of(check, id);

	if (!message || !(message->fate & FATE_TRIED))
		return wrong(check, "phantom", id, history);
	if (message->fate & FATE_VOID && !message->late)
		return wrong(check, "void, and got", id, history);
	if (kind == EVENT_GOT && !message->late &&
	    order_keep(check, history, id, message))
		return 1;
	message->seen = 1;
	message->finals += !history->dead;
	return 0;
}

/* What a consumer said of a message after it got it. */
static int freed(struct check *check, const struct history *history,
		 uint64_t id, enum event kind, uint64_t dones_left)
{
	struct message *message = message_of(check, id);

	if (!message)
		return wrong(check, "freed, and never tried", id, history);
	if (kind == EVENT_LATE) {
		message->finals -= !history->dead;
		return 0;
	}
	if (!history->dead)
		return 0;
	message->vague = 1;
	message->finals += kind == EVENT_DONE &&
			   dones_left >= check->rules->late;
	return 0;
}

static int stream_follow(struct check *check, const struct history *history)
{
	uint64_t dones = dones_of(history);
	int bad = 0;

	for (unsigned number = 0; number < HISTORY_NUMBERS; number++)
		check->producers[number].stream = 0;
	check->last = 0;
	check->lost = 0;
	mark_late(check, history, true);
	for (uint64_t j = 0; j < history->count && !bad; j++) {
		uint64_t id = event_id(history->events[j]);
		enum event kind = event_kind(history->events[j]);

		dones -= kind == EVENT_DONE;
		if (kind == EVENT_GOT || kind == EVENT_AGAIN)
			bad = got(check, history, id, kind);
		else if (kind == EVENT_FREE || kind == EVENT_DONE ||
			 kind == EVENT_LATE)
			bad = freed(check, history, id, kind, dones);
		else if (kind == EVENT_LOST)
			check->lost += id;
		else if (kind == EVENT_EVICTED)
			check->last = 0;
	}
	mark_late(check, history, false);
	return bad;
}

static bool is_consumer(const struct history *history)
{
	for (uint64_t j = 0; j < history->count; j++)
		if (event_kind(history->events[j]) == EVENT_GOT ||
		    event_kind(history->events[j]) == EVENT_AGAIN)
			return true;
	return false;
}

/* Nothing twice for good, and nothing gone. */
static int sums_check(struct check *check)
{
	for (unsigned number = 0; number < HISTORY_NUMBERS; number++) {
		struct producer *producer = &check->producers[number];

		for (uint32_t i = 0; i < producer->last; i++) {
			struct message *message =
				&check->messages[producer->first + i];
			uint64_t id = (uint64_t)number
					      << HISTORY_SEQUENCE_BITS |
				      (i + 1);

			if (message->finals > 1)
				return wrong(check, "doubled", id, NULL);
			if ((message->fate & FATE_ACKED) && !message->finals &&
			    !message->vague && !check->rules->bereft)
				return wrong(check, "lost", id, NULL);
		}
	}
	return 0;
}

/* A reader that has ended has got the last, unless it was just evicted. */
static int reader_ends(struct check *check, const struct history *history)
{
	if (history->dead || !check->last)
		return 0;
	return gap_check(check, history, check->last + 1, UINT64_MAX);
}

static int streams_check(struct check *check)
{
	int bad = 0;

	for (unsigned i = 0; i < check->count && !bad; i++) {
		if (!is_consumer(check->histories[i]))
			continue;
		bad = stream_follow(check, check->histories[i]);
		if (!bad && check->rules->broadcast)
			bad = reader_ends(check, check->histories[i]);
	}
	if (bad || check->rules->broadcast)
		return bad;
	return sums_check(check);
}

static int check_run(struct check *check)
{
	int bad = producers_count(check);

	if (bad)
		return bad;
	check->messages =
		calloc(check->message_count + 1, sizeof(*check->messages));
	if (!check->messages)
		return -ENOMEM;
	for (unsigned i = 0; i < check->count && !bad; i++)
		bad = fates_learn(check, check->histories[i]);
	return bad ? bad : streams_check(check);
}

int history_check(struct history *const *histories, unsigned count,
		  const struct history_rules *rules, char *ret_why)
{
	struct check check = {
		.histories = histories,
		.count = count,
		.rules = rules,
		.why = ret_why,
		.producers = calloc(HISTORY_NUMBERS, sizeof(struct producer)),
	};
	int bad = check.producers ? check_run(&check) : -ENOMEM;

	free(check.messages);
	free(check.producers);
	return bad;
}
