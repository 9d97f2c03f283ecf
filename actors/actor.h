/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_ACTORS_ACTOR_H
#define PETAL_ACTORS_ACTOR_H

#include <stdint.h>

#include "actors/mailbox.h"

/**
 * DOC: actor - behaviour, state and a mailbox; one message at a time
 *
 *    senders -----> mailbox -----> behave(actor, state, mail) ----> 0
 *                                     |         become: another one
 *                                     |         from the next message on
 *                                     +-------> PETAL_ACTOR_STOP
 *                                     +-------> < 0: a crash
 *
 * A behaviour changes its state, sends to other mailboxes, becomes another
 * behaviour, or stops. It shares nothing: the mail lies in the mailbox and is
 * the actor's alone until the behaviour returns.
 *
 * Always true: a message leaves the mailbox only after its behaviour returned,
 * so it is never lost by a crash; and it leaves by deliveries_max tries, so it
 * can never kill for ever.
 *
 * Let it crash: a behaviour that returns a failure has crashed. The step says
 * so (PETAL_ACTOR_CRASHED) and actor->crash says which message, why, and how
 * often by now; a supervisor decides. The behaviour in force is that from
 * before the message, but what the state looks like only its owner knows. The
 * next step tries the message again, unless that was its last try. A process
 * that dies in a behaviour has crashed too: its successor attaches to the
 * mailbox, and finds the message and its count there.
 *
 * There is no scheduler here: a thread runs an actor, or steps several.
 *
 * Threads: one at a time per actor.
 */

struct petal_actor;

/** enum petal_actor_outcome - of a behaviour, a step, a run */
enum petal_actor_outcome {
	/** Of a step: there was no message. Of a run: none by the deadline. */
	PETAL_ACTOR_IDLE = 1,
	/** It has stopped, and takes no further message. */
	PETAL_ACTOR_STOP = 2,
	/** The behaviour failed: see actor->crash. */
	PETAL_ACTOR_CRASHED = 3,
};

/**
 * behave: handle one message, in place.
 *
 * Return: 0; PETAL_ACTOR_STOP, with this message done; < 0: a crash.
 */
typedef int petal_actor_behave(struct petal_actor *actor, void *state,
			       const struct petal_mail *mail);

struct petal_actor_options {
	petal_actor_behave *behave;
	void *state;
	struct petal_mailbox *mailbox; /* attached as PETAL_MAILBOX_ACTOR */
	uint32_t deliveries_max;       /* tries of one message; at least 1 */
};

struct petal_actor_counts {
	uint64_t handled;
	uint64_t crashes;
	uint64_t dropped; /* messages, after their last try */
};

/** struct petal_actor_crash - the last crash */
struct petal_actor_crash {
	uint64_t pos;  /* of the message, in the mailbox */
	uint32_t type; /* of the message */
	uint32_t sender;
	uint32_t deliveries; /* tries so far */
	/* What the behaviour returned; -EOWNERDEAD when it was not called, for
	 * all tries of the message were used up by actors that died of it. */
	int reason;
};

struct petal_actor {
	struct petal_actor_options options;
	struct petal_actor_counts counts;
	struct petal_actor_crash crash;
	petal_actor_behave *next; /* what become asked for */
	bool stopped;
};

/**
 * petal_actor_init() - an actor that has not begun
 * @options: copied
 *
 * Return: 0, or -EINVAL.
 */
int petal_actor_init(struct petal_actor *actor,
		     const struct petal_actor_options *options);

/**
 * petal_actor_become() - handle the messages after this one differently
 *
 * From inside of a behaviour, or between two steps. A crash takes it back.
 */
void petal_actor_become(struct petal_actor *actor, petal_actor_behave *behave);

/**
 * petal_actor_stop() - handle no message after this one
 *
 * From inside of a behaviour, or between two steps. Others send it a message.
 */
void petal_actor_stop(struct petal_actor *actor);

/**
 * petal_actor_step() - handle one message, if there is one
 *
 * Never waits.
 *
 * Return: 0; PETAL_ACTOR_IDLE, also when a sender holds the mailbox up;
 * PETAL_ACTOR_STOP; PETAL_ACTOR_CRASHED; else what the mailbox said.
 */
int petal_actor_step(struct petal_actor *actor);

/**
 * petal_actor_run() - handle messages, and sleep while there is none
 * @deadline_ns: monotonic; PETAL_CLOCK_NEVER for none
 *
 * Return: PETAL_ACTOR_STOP; PETAL_ACTOR_CRASHED; PETAL_ACTOR_IDLE at the
 * deadline; else what the mailbox said.
 */
int petal_actor_run(struct petal_actor *actor, uint64_t deadline_ns);

#endif
