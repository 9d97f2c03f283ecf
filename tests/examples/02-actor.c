/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two actors in two processes, each with its mailbox in one shared segment. The
 * child keeps a sum; the parent asks it to add a number, and asks the next
 * question when it has the answer. Who has no message sleeps.
 *
 *    cc 02-actor.c $(pkg-config --cflags --libs petalith) && ./a.out
 *
 * Prints "10000 questions, 10000 answers, sum 50005000" and exits 0.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/actor.h"
#include "actors/mailbox.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "shm/segment.h"

#define QUESTIONS UINT64_C(10000)
#define PATIENCE_NS PETAL_S(20)

/* The types of our messages. All but ENOUGH carry one number. */
enum { ADD = 1, SUM, ENOUGH };

/* A mailbox for one sender, who is number 1. */
static const struct petal_mailbox_geometry geometry = {
	.data_bytes = 4096,
	.senders = 1,
};

static int tell(struct petal_mailbox *to, uint32_t type, uint64_t number)
{
	uint64_t deadline_ns = petal_clock_now_ns() + PATIENCE_NS;

	return petal_mailbox_send(to, type, &number, sizeof(number),
				  deadline_ns);
}

/* The number in a message; who sent it may have sent less. */
static uint64_t number_of(const struct petal_mail *mail)
{
	return mail->length == sizeof(uint64_t) ? *(const uint64_t *)mail->bytes
						: 0;
}

/* ---- the actor of the child: it owns the sum ---- */

struct adder {
	struct petal_mailbox asker;
	uint64_t sum;
};

static int add(struct petal_actor *actor, void *state,
	       const struct petal_mail *mail)
{
	struct adder *adder = state;

	(void)actor;
	if (mail->type == ENOUGH)
		return PETAL_ACTOR_STOP;
	if (mail->type != ADD)
		return -EPROTO; /* a crash: see actor->crash */
	adder->sum += number_of(mail);
	return tell(&adder->asker, SUM, adder->sum);
}

/* ---- the actor of the parent: it asks ---- */

struct asker {
	struct petal_mailbox adder;
	uint64_t asked;
	uint64_t answered;
	uint64_t sum;
};

static int ask(struct petal_actor *actor, void *state,
	       const struct petal_mail *mail)
{
	struct asker *asker = state;

	if (mail->type != SUM)
		return -EPROTO;
	asker->answered++;
	asker->sum = number_of(mail);
	if (asker->asked < QUESTIONS)
		return tell(&asker->adder, ADD, ++asker->asked);
	petal_actor_stop(actor);
	return tell(&asker->adder, ENOUGH, 0);
}

/* Be the actor of the mailbox at @own until it stops. */
static int live(void *own, petal_actor_behave *behave, void *state)
{
	struct petal_mailbox mailbox;
	const struct petal_actor_options options = {
		.behave = behave,
		.state = state,
		.mailbox = &mailbox,
		.deliveries_max = 1,
	};
	struct petal_actor actor;
	int err;

	err = petal_mailbox_attach(own, petal_mailbox_bytes(&geometry),
				   PETAL_MAILBOX_ACTOR, &mailbox);
	if (err == 0)
		err = petal_actor_init(&actor, &options);
	if (err == 0)
		err = petal_actor_run(&actor,
				      petal_clock_now_ns() + PATIENCE_NS);
	if (err == PETAL_ACTOR_STOP)
		return 0;
	if (err == PETAL_ACTOR_CRASHED)
		return actor.crash.reason;
	return err == PETAL_ACTOR_IDLE ? -ETIMEDOUT : err;
}

static int live_as_adder(void *own, void *other)
{
	struct adder adder = { .sum = 0 };
	int err = petal_mailbox_attach(other, petal_mailbox_bytes(&geometry), 1,
				       &adder.asker);

	return err == 0 ? live(own, add, &adder) : err;
}

static int live_as_asker(void *own, void *other)
{
	struct asker asker = { .asked = 0 };
	int err = petal_mailbox_attach(other, petal_mailbox_bytes(&geometry), 1,
				       &asker.adder);

	if (err == 0)
		err = tell(&asker.adder, ADD, ++asker.asked);
	if (err == 0)
		err = live(own, ask, &asker);
	if (err == 0)
		printf("%" PRIu64 " questions, %" PRIu64
		       " answers, sum %" PRIu64 "\n",
		       asker.asked, asker.answered, asker.sum);
	return err;
}

static int fail(const char *what, int err)
{
	fprintf(stderr, "02-actor: %s: %s\n", what, petal_strerror(err));
	return EXIT_FAILURE;
}

int main(void)
{
	const uint64_t bytes = petal_mailbox_bytes(&geometry);
	const struct petal_segment_options options = {
		.name = "02-actor",
		.body_bytes = 2 * bytes,
	};
	struct petal_segment segment;
	uint8_t *boxes;
	int err, status;
	pid_t child;

	err = petal_segment_open(&options, &segment);
	if (err < 0)
		return fail("cannot make a segment", err);
	boxes = petal_segment_body(&segment);
	for (unsigned i = 0; i < 2 && err == 0; i++)
		err = petal_mailbox_format(boxes + i * bytes, &geometry);
	if (err < 0)
		return fail("cannot make a mailbox", err);

	/* The child shares the mapping; another process would get the fd. */
	child = fork();
	if (child < 0)
		return fail("cannot fork", errno);
	if (child == 0)
		_exit(live_as_adder(boxes, boxes + bytes) == 0 ? 0 : 1);
	err = live_as_asker(boxes + bytes, boxes);
	if (waitpid(child, &status, 0) != child)
		return fail("cannot wait for the child", errno);
	petal_segment_close(&segment);
	if (err < 0)
		return fail("the asker ended", err);
	return status == 0 ? EXIT_SUCCESS : fail("the adder ended", -ECHILD);
}
