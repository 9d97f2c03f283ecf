/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_SESSIONS_H
#define PETAL_FABRIC_SESSIONS_H

#include <stdint.h>

/**
 * DOC: sessions - which records of which producer are in the log
 *
 * A producer's number is good for one opening of a ring in one epoch, and its
 * records are numbered from 1. Of each session the table knows which of its
 * last PETAL_SESSION_WINDOW numbers are in the log, so that what a producer did
 * not hear the end of is found after a failover (I13).
 *
 * Every member keeps one, for the log that it holds: a pure function of the
 * records up to its M. What was trimmed before it joined it gets from the
 * primary, with the log. Noting a record twice changes nothing.
 *
 * Always true: count <= PETAL_SESSIONS_MAX. When a session more comes, the one
 * whose last record is the oldest goes, and the table remembers up to which
 * number it has forgotten sessions; it never answers for one of those.
 *
 * Numbers grow from epoch to epoch: PETAL_SESSION_FIRST(epoch) and up.
 *
 * Threads: one.
 */

#define PETAL_SESSIONS_MAX 96u /* they fit into one message */
#define PETAL_SESSION_WINDOW 128u
#define PETAL_SESSION_FIRST(epoch) ((uint64_t)(epoch) << 31 | 1)

struct petal_session {
	uint64_t session;
	uint64_t sequence; /* the highest that is in the log */
	uint64_t lsn;      /* of that one */
	uint64_t seen[2];  /* bit n: sequence - n is in the log as well */
};

struct petal_sessions {
	uint32_t count;
	uint32_t reserved;
	uint64_t forgotten; /* the highest session that had to go, or 0 */
	struct petal_session at[PETAL_SESSIONS_MAX];
};

/**
 * petal_sessions_note() - a record is in the log
 * @session: 0 notes nothing: the record is nobody's
 *
 * Costs one look, if sessions are numbered as above.
 */
void petal_sessions_note(struct petal_sessions *sessions, uint64_t session,
			 uint64_t sequence, uint64_t lsn);

/**
 * petal_sessions_find() - whether a record is in the log
 *
 * Return: 0 when it is; -ENOENT when it is not; -ENODATA when the table cannot
 * say: the session was forgotten, and this record of it not noted since, or the
 * record is longer ago than PETAL_SESSION_WINDOW records of it.
 */
int petal_sessions_find(const struct petal_sessions *sessions, uint64_t session,
			uint64_t sequence);

/**
 * petal_sessions_doubt() - what is not noted may have been in the log
 * @epoch: sessions of older epochs are meant
 *
 * For a table that was made of what is retained, and not of all there was.
 */
void petal_sessions_doubt(struct petal_sessions *sessions, uint32_t epoch);

/**
 * petal_sessions_put() - make a table of what another member sent
 * @one: a session of it
 *
 * Return: 0, or -EINVAL when it is none, there twice, or one too many.
 */
int petal_sessions_put(struct petal_sessions *sessions,
		       const struct petal_session *one);

#endif
