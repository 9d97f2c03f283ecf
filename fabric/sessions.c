/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/sessions.h"

#include <errno.h>
#include <stddef.h>

/*
 * A session's place is its number modulo the table; who finds it taken goes
 * on to the next. Nothing is ever taken out, only replaced in a full table, so a
 * search ends at a free place or has looked at all.
 */
static uint32_t home_of(uint64_t session)
{
	return (uint32_t)(session % PETAL_SESSIONS_MAX);
}

static struct petal_session *find(struct petal_sessions *s, uint64_t session)
{
	uint32_t home = home_of(session);

	for (uint32_t n = 0; n < PETAL_SESSIONS_MAX; n++) {
		struct petal_session *at =
			&s->at[(home + n) % PETAL_SESSIONS_MAX];

		if (at->session == session || at->session == 0)
			return at;
	}
	return NULL;
}

static struct petal_session *oldest(struct petal_sessions *s)
{
	struct petal_session *found = &s->at[0];

	for (uint32_t i = 1; i < PETAL_SESSIONS_MAX; i++) {
		if (s->at[i].lsn < found->lsn)
			found = &s->at[i];
	}
	return found;
}

static struct petal_session *place_for(struct petal_sessions *s,
				       uint64_t session)
{
	struct petal_session *at = find(s, session);

	if (at != NULL && at->session == session)
		return at;
	if (at == NULL) {
		at = oldest(s);
		if (at->session > s->forgotten)
			s->forgotten = at->session;
	} else {
		s->count++;
	}
	*at = (struct petal_session){ .session = session };
	return at;
}

/* Bits move up by so many places; those that leave are too long ago. */
static void shift(uint64_t seen[2], uint64_t by)
{
	if (by >= PETAL_SESSION_WINDOW) {
		seen[0] = seen[1] = 0;
	} else if (by >= 64) {
		seen[1] = seen[0] << (by - 64);
		seen[0] = 0;
	} else if (by > 0) {
		seen[1] = seen[1] << by | seen[0] >> (64 - by);
		seen[0] <<= by;
	}
}

void petal_sessions_note(struct petal_sessions *s, uint64_t session,
			 uint64_t sequence, uint64_t lsn)
{
	struct petal_session *at;
	uint64_t back;

	if (session == 0)
		return;
	at = place_for(s, session);
	if (sequence > at->sequence) {
		shift(at->seen, sequence - at->sequence);
		at->sequence = sequence;
		at->lsn = lsn;
	}
	back = at->sequence - sequence;
	if (back < PETAL_SESSION_WINDOW)
		at->seen[back / 64] |= UINT64_C(1) << back % 64;
}

int petal_sessions_find(const struct petal_sessions *s, uint64_t session,
			uint64_t sequence)
{
	/* A search changes nothing. */
	const struct petal_session *at =
		find((struct petal_sessions *)(uintptr_t)s, session);
	uint64_t back;

	if (session == 0 || sequence == 0)
		return -ENOENT;
	if (at == NULL || at->session != session)
		return session > s->forgotten ? -ENOENT : -ENODATA;
	if (sequence > at->sequence)
		return -ENOENT;
	back = at->sequence - sequence;
	if (back >= PETAL_SESSION_WINDOW)
		return -ENODATA;
	if (at->seen[back / 64] >> back % 64 & 1)
		return 0;
	/* Noted anew after it was forgotten: what came before is not known. */
	return session > s->forgotten ? -ENOENT : -ENODATA;
}

void petal_sessions_doubt(struct petal_sessions *s, uint32_t epoch)
{
	s->forgotten = PETAL_SESSION_FIRST(epoch) - 1;
}

int petal_sessions_put(struct petal_sessions *s,
		       const struct petal_session *one)
{
	struct petal_session *at = find(s, one->session);

	if (one->session == 0 || at == NULL || at->session != 0)
		return -EINVAL;
	*at = *one;
	s->count++;
	return 0;
}
