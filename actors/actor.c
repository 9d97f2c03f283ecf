/* SPDX-License-Identifier: Apache-2.0 */
#include "actors/actor.h"

#include <assert.h>
#include <errno.h>

#include "shm/clock.h"

int petal_actor_init(struct petal_actor *actor,
		     const struct petal_actor_options *options)
{
	if (options->behave == NULL || options->mailbox == NULL ||
	    options->deliveries_max == 0)
		return -EINVAL;
	*actor = (struct petal_actor){
		.options = *options,
		.next = options->behave,
	};
	return 0;
}

void petal_actor_become(struct petal_actor *actor, petal_actor_behave *behave)
{
	actor->next = behave;
}

void petal_actor_stop(struct petal_actor *actor)
{
	actor->stopped = true;
}

static int crash(struct petal_actor *actor, const struct petal_mail *mail,
		 int reason, uint32_t deliveries)
{
	actor->counts.crashes++;
	actor->crash = (struct petal_actor_crash){
		.pos = mail->pos,
		.type = mail->type,
		.sender = mail->sender,
		.deliveries = deliveries,
		.reason = reason,
	};
	if (deliveries >= actor->options.deliveries_max) {
		actor->counts.dropped++;
		petal_mailbox_release(actor->options.mailbox);
	} else {
		petal_mailbox_retry(actor->options.mailbox);
	}
	return PETAL_ACTOR_CRASHED;
}

static int handle(struct petal_actor *actor, const struct petal_mail *mail)
{
	const struct petal_actor_options *options = &actor->options;
	int err;

	if (mail->redelivered >= options->deliveries_max)
		return crash(actor, mail, -EOWNERDEAD, mail->redelivered);
	err = actor->next(actor, options->state, mail);
	assert(err <= 0 || err == PETAL_ACTOR_STOP);
	if (err < 0) {
		/* Whatever it asked for before it failed is void. */
		actor->next = options->behave;
		actor->stopped = false;
		return crash(actor, mail, err, mail->redelivered + 1);
	}
	actor->options.behave = actor->next;
	actor->counts.handled++;
	petal_mailbox_release(options->mailbox);
	if (err == PETAL_ACTOR_STOP)
		actor->stopped = true;
	return actor->stopped ? PETAL_ACTOR_STOP : 0;
}

int petal_actor_step(struct petal_actor *actor)
{
	struct petal_mail mail;
	int err;

	if (actor->stopped)
		return PETAL_ACTOR_STOP;
	/* What became of it between two steps no crash takes back. */
	actor->options.behave = actor->next;
	err = petal_mailbox_take(actor->options.mailbox, &mail);
	if (err > 0)
		return PETAL_ACTOR_IDLE;
	return err < 0 ? err : handle(actor, &mail);
}

int petal_actor_run(struct petal_actor *actor, uint64_t deadline_ns)
{
	int err;

	for (;;) {
		err = petal_actor_step(actor);
		/* A busy mailbox must not make it deaf to the deadline. */
		if (err == 0 && petal_clock_now_ns() >= deadline_ns)
			return PETAL_ACTOR_IDLE;
		if (err == PETAL_ACTOR_IDLE) {
			err = petal_mailbox_wait(actor->options.mailbox,
						 deadline_ns);
			if (err > 0)
				return PETAL_ACTOR_IDLE;
		}
		if (err != 0)
			return err;
	}
}
