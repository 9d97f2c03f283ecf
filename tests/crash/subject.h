/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_CRASH_SUBJECT_H
#define PETAL_TESTS_CRASH_SUBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/crash/history.h"
#include "tests/crash/message.h"

/**
 * DOC: subject - a thing of which death at any instruction is to be survived
 *
 * A subject is a kind of ring (or arena) in one stretch of memory, with what
 * processes may do to it in small acts. Three proofs use it alike: one steps
 * an act and dies in it everywhere, one mixes the steps of several processes,
 * one kills processes that run at full speed.
 *
 * A process that uses the memory is a party: a producer or a consumer, with an
 * index of its own among its like, which names its place (an owner number, a
 * cursor). When it has died, another takes the place: it joins, and the ring
 * must be repaired with the set of the dead, by it or by whoever may.
 *
 * An act returns an outcome below, or a negative error that it had no right to
 * meet.
 */

enum role {
	PRODUCER,
	CONSUMER,
};

enum outcome {
	ACT_DONE = 0,
	ACT_NOTHING = 1, /* full, or empty */
	ACT_HELD_UP = 2, /* somebody has claimed and not published */
	ACT_STALE = 3,   /* fenced: what was in hand is lost */
	ACT_CLOSED = 4,
};

#define PARTIES_MAX 4u

/* Bit maps of places, by index. */
struct casualties {
	uint32_t producers;
	uint32_t consumers;
};

/**
 * struct shape - one geometry of a subject
 * @count: slots, or bytes of data
 * @length_max: of a message
 * @start_pos: where positions begin
 * @variant: the subject's own
 * @producers, @consumers: how many there may be at once, up to PARTIES_MAX
 */
struct shape {
	const char *name;
	uint64_t count;
	uint32_t length_max;
	uint64_t start_pos;
	unsigned producers;
	unsigned consumers;
	unsigned variant;
};

/**
 * struct party - one process's private side
 * @index: its place among producers, or among consumers
 * @follows: somebody had the place before, and is dead
 * @next: the sequence of its next message
 * @view: the subject's own
 */
struct party {
	const struct subject *subject;
	const struct shape *shape;
	void *memory;
	enum role role;
	unsigned index;
	bool follows;
	uint32_t next;
	struct history *history;
	_Alignas(64) uint8_t view[4096];
};

/**
 * struct act - what a party may do
 * @closes: afterwards nobody can send, or not for long; so it is done last by
 *	producers, and not by all, and by some consumers in the middle
 */
struct act {
	const char *name;
	enum role role;
	int (*run)(struct party *party);
	bool closes;
};

/**
 * struct subject - the operations
 * @late: see struct history_rules
 * @shared_queue: consumers share the messages at the same time
 * @broadcast: each consumer has a queue of its own
 * @seated: all consumers have seats, which only death empties; what was sent to
 *	one dies with it. Who joins and does not follow a dead one goes on as
 *	who was there before.
 * @shapes: the first ones are small, for stepping
 * @stepped: how many of the shapes are for stepping
 * @acts: the first of each role is the plain one, which the harness uses to
 *	fill, drain and reuse
 * @bytes: of memory for a shape; a multiple of 64
 * @lags: which consumers need not keep up with the others; NULL: all do
 * @format: make it; the memory is zero
 * @join: take a place, perhaps after one that died; the ring stays usable for
 *	the others whatever happens here. ACT_CLOSED: nobody may, any more.
 * @repair: clear what the dead left; by any survivor that may, given its view
 * @fence: as repair, but the parties may only be slow; NULL if the subject
 *	cannot. Afterwards an act of theirs returns ACT_STALE, and they go on.
 * @repairer: which role may repair while others run
 * @audit: does the memory look as it must at rest? May be NULL. On failure
 *	writes why.
 * @room: how many of the shortest messages fit at the least when it is empty
 */
struct subject {
	const char *name;
	bool shared_queue;
	bool broadcast;
	bool seated;
	enum role repairer;
	const struct shape *shapes;
	unsigned shape_count;
	unsigned stepped;
	const struct act *acts;
	unsigned act_count;
	uint64_t (*bytes)(const struct shape *shape);
	uint64_t (*late)(const struct shape *shape);
	bool (*lags)(const struct shape *shape, unsigned index);
	int (*format)(void *memory, const struct shape *shape);
	int (*join)(struct party *party);
	int (*repair)(struct party *party, const struct casualties *dead);
	int (*fence)(struct party *party, const struct casualties *slow);
	int (*audit)(const void *memory, const struct shape *shape,
		     char *ret_why);
	uint64_t (*room)(const struct shape *shape);
};

extern const struct subject *const subjects[];
extern const unsigned subject_count;

/* Whose memory is under test; -1 where it is no file's, as with copies. */
extern int subject_file;

/** subject_find() - by its name; NULL when there is none */
const struct subject *subject_find(const char *name);

/** party_init() - a party that has not joined yet */
void party_init(struct party *party, const struct subject *subject,
		const struct shape *shape, void *memory, enum role role,
		unsigned index, struct history *history);

/** party_act() - the plain act of the party's role */
int party_act(struct party *party);

/** party_end() - the act of the party's role that closes, if there is one */
int party_end(struct party *party);

/**
 * subject_spare() - the consumer's place from which a survivor repairs
 * @index: of the place that it takes where there is no other
 *
 * Where consumers share the work, the last place is kept for that; no shape
 * has so many.
 */
static inline unsigned subject_spare(const struct subject *subject,
				     unsigned index)
{
	return subject->shared_queue ? PARTIES_MAX - 1 : index;
}

/** subject_consumers() - how many there must be for all to be received */
static inline unsigned subject_consumers(const struct subject *subject,
					 const struct shape *shape)
{
	return subject->broadcast || subject->seated ? shape->consumers : 1;
}

/** subject_lags() - whether a consumer need not keep up with the others */
static inline bool subject_lags(const struct subject *subject,
				const struct shape *shape, unsigned index)
{
	return subject->lags && subject->lags(shape, index);
}

/** subject_rules() - what histories must fulfil */
struct history_rules subject_rules(const struct subject *subject,
				   const struct shape *shape);

/* ---- for the acts ---- */

/** party_next_id() - of the message that the party will try to send next */
static inline uint64_t party_next_id(const struct party *party)
{
	return message_id(party->history->number, party->next);
}

/** party_closes() - note that the ring is about to be closed */
void party_closes(struct party *party);

/** party_closed() - note that it is. Return: ACT_DONE. */
int party_closed(struct party *party);

/** party_outcome() - what an act returns for a ring's 0 or error */
int party_outcome(int err);

/** party_settled() - note what publish said, and turn to the next message */
int party_settled(struct party *party, int err);

/** party_gave_up() - note that a try was aborted */
int party_gave_up(struct party *party, int err);

/** party_got() - note a message that was found. Return: its id. */
uint64_t party_got(struct party *party, const void *bytes, uint32_t length);

/** party_got_again() - the same of one that somebody had before */
uint64_t party_got_again(struct party *party, const void *bytes,
			 uint32_t length);

/** party_still() - look at a held message again */
void party_still(struct party *party, uint64_t id, const void *bytes,
		 uint32_t length);

#endif
