/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/subject.h"

#include <errno.h>
#include <string.h>

#include "tests/crash/subjects.h"

bool message_whole;
int subject_file = -1;

const struct subject *const subjects[] = {
#define SUBJECT(name) &subject_##name,
	SUBJECTS
#undef SUBJECT
};
const unsigned subject_count = sizeof(subjects) / sizeof(subjects[0]);

const struct subject *subject_find(const char *name)
{
	for (unsigned i = 0; i < subject_count; i++)
		if (strcmp(subjects[i]->name, name) == 0)
			return subjects[i];
	return NULL;
}

void party_init(struct party *party, const struct subject *subject,
		const struct shape *shape, void *memory, enum role role,
		unsigned index, struct history *history)
{
	memset(party, 0, sizeof(*party));
	party->subject = subject;
	party->shape = shape;
	party->memory = memory;
	party->role = role;
	party->index = index;
	party->next = 1;
	party->history = history;
}

int party_act(struct party *party)
{
	const struct subject *subject = party->subject;

	for (unsigned i = 0; i < subject->act_count; i++)
		if (subject->acts[i].role == party->role)
			return subject->acts[i].run(party);
	return -ENOSYS;
}

int party_end(struct party *party)
{
	const struct subject *subject = party->subject;

	for (unsigned i = 0; i < subject->act_count; i++)
		if (subject->acts[i].role == party->role &&
		    subject->acts[i].closes)
			return subject->acts[i].run(party);
	return ACT_DONE;
}

struct history_rules subject_rules(const struct subject *subject,
				   const struct shape *shape)
{
	struct history_rules rules = {
		.late = subject->late ? subject->late(shape) : 0,
		.in_turn = !subject->shared_queue && !subject->seated,
		.broadcast = subject->broadcast,
		.mixed = subject->seated,
	};

	return rules;
}

void party_closes(struct party *party)
{
	history_add(party->history, EVENT_CLOSE, party->role);
}

int party_closed(struct party *party)
{
	history_add(party->history, EVENT_CLOSED, party->role);
	return ACT_DONE;
}

int party_outcome(int err)
{
	switch (err) {
	case 0:
		return ACT_DONE;
	case -EAGAIN:
		return ACT_NOTHING;
	case -ESTALE:
		return ACT_STALE;
	case -EPIPE:
		return ACT_CLOSED;
	default:
		return err;
	}
}

static int settled(struct party *party, enum event event, int err)
{
	history_add(party->history, event, party_next_id(party));
	party->next++;
	return party_outcome(err);
}

int party_settled(struct party *party, int err)
{
	return settled(party, err ? EVENT_VOID : EVENT_ACK, err);
}

int party_gave_up(struct party *party, int err)
{
	return settled(party, EVENT_VOID, err);
}

static uint64_t got(struct party *party, enum event event, const void *bytes,
		    uint32_t length)
{
	uint64_t id = length >= MESSAGE_BYTES_MIN ? message_read(bytes, length)
						  : 0;

	if (id)
		history_add(party->history, event, id);
	else
		history_add(party->history, EVENT_TORN,
			    event_id(message_get(bytes)));
	return id;
}

uint64_t party_got(struct party *party, const void *bytes, uint32_t length)
{
	return got(party, EVENT_GOT, bytes, length);
}

uint64_t party_got_again(struct party *party, const void *bytes,
			 uint32_t length)
{
	return got(party, EVENT_AGAIN, bytes, length);
}

void party_still(struct party *party, uint64_t id, const void *bytes,
		 uint32_t length)
{
	history_add(party->history,
		    message_read(bytes, length) == id ? EVENT_HELD : EVENT_TORN,
		    id);
}
