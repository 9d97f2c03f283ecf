/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What actors/mailbox.h promises: whole messages in order from many senders,
 * threads and processes; a bound that is said and counted; no missed wake-up in
 * either direction; and what a death leaves of a sender and of an actor.
 *
 * Nothing sleeps but in the mailbox's own waits, which a minute ends.
 *
 * Harder: PETAL_TEST_HARDER=100 for a hundred times as many messages and kills.
 */
#include "tests/check.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "actors/mailbox.h"
#include "shm/clock.h"

enum { SENDERS = 4, DATA_BYTES = 4096 };

struct fixture {
	struct petal_mailbox_geometry geometry;
	uint64_t bytes;
	void *memory;
	struct petal_mailbox actor;
	struct petal_mailbox sender; /* number 1 */
};

static uint64_t soon(void)
{
	return petal_clock_now_ns() + PETAL_S(60);
}

static struct petal_mailbox view(const struct fixture *f, uint32_t number)
{
	struct petal_mailbox mailbox;

	assert_ok(petal_mailbox_attach(f->memory, f->bytes, number, &mailbox));
	return mailbox;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->geometry = (struct petal_mailbox_geometry){
		.data_bytes = DATA_BYTES,
		.senders = SENDERS,
	};
	f->bytes = petal_mailbox_bytes(&f->geometry);
	f->memory = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(f->memory, MAP_FAILED);
	assert_ok(petal_mailbox_format(f->memory, &f->geometry));
	f->actor = view(f, PETAL_MAILBOX_ACTOR);
	f->sender = view(f, 1);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	munmap(f->memory, f->bytes);
	free(f);
	return 0;
}

static int send_u64(struct petal_mailbox *mailbox, uint64_t number)
{
	return petal_mailbox_send(mailbox, 7, &number, sizeof(number), 0);
}

static void assert_takes(struct petal_mailbox *mailbox, uint64_t number)
{
	struct petal_mail mail;
	uint64_t found;

	assert_ok(petal_mailbox_take(mailbox, &mail));
	assert_int_equal(mail.length, sizeof(found));
	memcpy(&found, mail.bytes, sizeof(found));
	assert_int_equal(found, number);
	petal_mailbox_release(mailbox);
}

static void assert_empty(struct petal_mailbox *mailbox)
{
	struct petal_mail mail;

	assert_int_equal(petal_mailbox_take(mailbox, &mail),
			 PETAL_MAILBOX_EMPTY);
}

static void assert_held(struct petal_mailbox *mailbox)
{
	struct petal_mail mail;

	assert_int_equal(petal_mailbox_take(mailbox, &mail),
			 PETAL_MAILBOX_HELD);
}

/* ---- one after the other ---- */

static void send__arrives_with_type_and_sender(void **state)
{
	struct fixture *f = *state;
	struct petal_mailbox other = view(f, 3);
	struct petal_mail mail;

	assert_empty(&f->actor);
	assert_ok(petal_mailbox_send(&other, 42, "hello", 6, 0));
	assert_ok(petal_mailbox_take(&f->actor, &mail));
	assert_string_equal(mail.bytes, "hello");
	assert_int_equal(mail.length, 6);
	assert_int_equal(mail.type, 42);
	assert_int_equal(mail.sender, 3);
	assert_int_equal(mail.redelivered, 0);
	assert_int_equal((uintptr_t)mail.bytes % 16, 0);
	petal_mailbox_release(&f->actor);
	assert_empty(&f->actor);
	assert_int_equal(petal_mailbox_backlog(&f->actor), 0);
	assert_int_equal(petal_mailbox_taken(&f->sender), 1);
}

static void send__nothing_is_a_message_too(void **state)
{
	struct fixture *f = *state;
	struct petal_mail mail;

	assert_ok(petal_mailbox_send(&f->sender, 0, NULL, 0, 0));
	assert_ok(petal_mailbox_take(&f->actor, &mail));
	assert_int_equal(mail.length, 0);
}

static void send__types_of_ours_are_refused(void **state)
{
	struct fixture *f = *state;

	assert_outcome(petal_mailbox_send(&f->sender, PETAL_RECORD_TYPE_OURS,
					  "x", 1, 0),
		       -EINVAL);
	assert_outcome(petal_mailbox_send(&f->sender, UINT32_MAX, "x", 1, 0),
		       -EINVAL);
	assert_ok(petal_mailbox_send(&f->sender, PETAL_RECORD_TYPE_OURS - 1,
				     "x", 1, 0));
}

static void send__the_longest_fits_wherever_the_ring_stands(void **state)
{
	struct fixture *f = *state;
	uint32_t most = petal_mailbox_length_max(&f->sender);
	char bytes[DATA_BYTES / 4] = { 0 };

	assert_true(most <= sizeof(bytes));
	assert_outcome(petal_mailbox_send(&f->sender, 1, bytes, most + 1, 0),
		       -EMSGSIZE);
	for (unsigned i = 0; i < DATA_BYTES / 64; i++) {
		struct petal_mail mail;

		assert_ok(petal_mailbox_send(&f->sender, 1, bytes, most, 0));
		assert_ok(petal_mailbox_take(&f->actor, &mail));
		assert_int_equal(mail.length, most);
		petal_mailbox_release(&f->actor);
		assert_ok(send_u64(&f->sender, i));
		assert_takes(&f->actor, i);
	}
}

static void send__a_full_mailbox_refuses_and_counts(void **state)
{
	struct fixture *f = *state;
	uint64_t sent = 0;

	while (send_u64(&f->sender, sent) == 0)
		sent++;
	assert_int_equal(sent, DATA_BYTES / 64);
	assert_outcome(send_u64(&f->sender, 0), -EAGAIN);
	assert_outcome(petal_mailbox_send(&f->sender, 1, "x", 1,
					  petal_clock_now_ns() + PETAL_MS(1)),
		       -EAGAIN);
	assert_int_equal(petal_mailbox_refused(&f->actor), 3);
	assert_takes(&f->actor, 0);
	assert_ok(send_u64(&f->sender, sent));
	for (uint64_t i = 1; i <= sent; i++)
		assert_takes(&f->actor, i);
	assert_empty(&f->actor);
}

static void claim__is_filled_in_place(void **state)
{
	struct fixture *f = *state;
	struct petal_mailbox_claim claim;
	uint64_t number = 99;

	assert_ok(petal_mailbox_claim(&f->sender, 7, 8, 0, &claim));
	assert_held(&f->actor);
	assert_int_equal(petal_mailbox_wait(&f->actor, 1), PETAL_MAILBOX_HELD);
	memcpy(claim.bytes, &number, sizeof(number));
	assert_ok(petal_mailbox_publish(&f->sender, &claim));
	assert_takes(&f->actor, 99);
}

static void claim__holds_back_what_is_sent_after_it(void **state)
{
	struct fixture *f = *state;
	struct petal_mailbox other = view(f, 2);
	struct petal_mailbox_claim claim;

	assert_ok(petal_mailbox_claim(&f->sender, 7, 8, 0, &claim));
	assert_ok(send_u64(&other, 2));
	assert_held(&f->actor);
	assert_ok(petal_mailbox_abort(&f->sender, &claim));
	assert_takes(&f->actor, 2);
	assert_empty(&f->actor);
}

static void abort__leaves_no_trace(void **state)
{
	struct fixture *f = *state;
	struct petal_mailbox_claim claim;

	/* Nothing is ever released, so looking must make the room. */
	for (unsigned i = 0; i < 4 * DATA_BYTES / 64; i++) {
		assert_ok(petal_mailbox_claim(&f->sender, 7, 8, 0, &claim));
		assert_ok(petal_mailbox_abort(&f->sender, &claim));
		assert_empty(&f->actor);
	}
	assert_int_equal(petal_mailbox_backlog(&f->actor), 0);
	assert_int_equal(petal_mailbox_taken(&f->actor), 0);
}

static void take__the_same_until_released(void **state)
{
	struct fixture *f = *state;
	struct petal_mail first, again;

	assert_ok(send_u64(&f->sender, 1));
	assert_ok(send_u64(&f->sender, 2));
	assert_ok(petal_mailbox_take(&f->actor, &first));
	assert_ok(petal_mailbox_take(&f->actor, &again));
	assert_int_equal(first.pos, again.pos);
	assert_int_equal(again.redelivered, 0);
	assert_ok(petal_mailbox_wait(&f->actor, 1));
	petal_mailbox_release(&f->actor);
	assert_takes(&f->actor, 2);
	petal_mailbox_release(&f->actor);
	assert_int_equal(petal_mailbox_taken(&f->actor), 2);
}

static void retry__counts_as_another_try(void **state)
{
	struct fixture *f = *state;
	struct petal_mail mail;

	assert_ok(send_u64(&f->sender, 1));
	for (uint32_t i = 0; i < 3; i++) {
		assert_ok(petal_mailbox_take(&f->actor, &mail));
		assert_int_equal(mail.redelivered, i);
		petal_mailbox_retry(&f->actor);
	}
	assert_takes(&f->actor, 1);
	assert_ok(send_u64(&f->sender, 2));
	assert_ok(petal_mailbox_take(&f->actor, &mail));
	assert_int_equal(mail.redelivered, 0);
}

static void attach__the_next_actor_goes_on_where_the_last_one_was(void **state)
{
	struct fixture *f = *state;
	struct petal_mailbox next;
	struct petal_mail mail;

	for (uint64_t i = 1; i <= 3; i++)
		assert_ok(send_u64(&f->sender, i));
	assert_takes(&f->actor, 1);
	assert_ok(petal_mailbox_take(&f->actor, &mail));
	next = view(f, PETAL_MAILBOX_ACTOR);
	assert_ok(petal_mailbox_take(&next, &mail));
	assert_int_equal(mail.redelivered, 1);
	assert_takes(&next, 2);
	assert_takes(&next, 3);
	assert_empty(&next);
}

static void attach__refuses_what_is_no_mailbox(void **state)
{
	struct fixture *f = *state;
	struct petal_mailbox_shared *shared = f->memory;
	struct petal_mailbox mailbox;
	void *memory = f->memory;

	assert_outcome(petal_mailbox_attach(memory, f->bytes, SENDERS + 1,
					    &mailbox),
		       -EINVAL);
	assert_outcome(petal_mailbox_attach(memory, 64, 1, &mailbox), -EINVAL);
	assert_outcome(petal_mailbox_attach(memory, f->bytes - 1, 1, &mailbox),
		       -PETAL_EGEOMETRY);
	shared->data_bytes.bits = UINT64_MAX;
	assert_outcome(petal_mailbox_attach(memory, f->bytes, 1, &mailbox),
		       -PETAL_EGEOMETRY);
	shared->data_bytes.bits = 0;
	assert_outcome(petal_mailbox_attach(memory, f->bytes, 1, &mailbox),
		       -PETAL_EGEOMETRY);
	shared->senders.bits = UINT32_MAX;
	assert_outcome(petal_mailbox_attach(memory, f->bytes, 1, &mailbox),
		       -PETAL_EGEOMETRY);
	shared->layout.bits++;
	assert_outcome(petal_mailbox_attach(memory, f->bytes, 1, &mailbox),
		       -PETAL_EVERSION);
	shared->magic.bits = 0;
	assert_outcome(petal_mailbox_attach(memory, f->bytes, 1, &mailbox),
		       -EINVAL);
}

static void format__refuses_shapes_out_of_range(void **state)
{
	static const struct petal_mailbox_geometry shapes[] = {
		{ .data_bytes = DATA_BYTES, .senders = 0 },
		{ .data_bytes = DATA_BYTES,
		  .senders = PETAL_MAILBOX_SENDERS_MAX + 1 },
		{ .data_bytes = DATA_BYTES - 64, .senders = 1 },
		{ .data_bytes = DATA_BYTES + 64, .senders = 1 },
		{ .data_bytes = UINT64_C(1) << 63, .senders = 1 },
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		assert_outcome(petal_mailbox_format(f->memory, &shapes[i]),
			       -EINVAL);
}

static void take__bytes_that_lie_are_an_error(void **state)
{
	struct fixture *f = *state;
	struct petal_mailbox_claim claim;
	struct petal_mail mail;

	assert_ok(petal_mailbox_claim(&f->sender, 7, 8, 0, &claim));
	assert_ok(petal_mailbox_publish(&f->sender, &claim));
	claim.ring.record->length = UINT32_MAX - 64;
	assert_outcome(petal_mailbox_take(&f->actor, &mail), -PETAL_ECORRUPT);
	assert_outcome(petal_mailbox_wait(&f->actor, soon()), -PETAL_ECORRUPT);
}

/* ---- threads ---- */

struct sender {
	pthread_t thread;
	struct fixture *f;
	uint32_t number;
	uint64_t messages;
	uint64_t random;
};

/* Messages are a number, then its low byte over and over. */
static void *send_many(void *argument)
{
	struct sender *sender = argument;
	struct petal_mailbox mailbox = view(sender->f, sender->number);

	for (uint64_t i = 0; i < sender->messages;) {
		uint32_t length =
			8 + (uint32_t)petal_test_random(&sender->random) % 300;
		struct petal_mailbox_claim claim;

		assert_ok(petal_mailbox_claim(&mailbox, 1, length, soon(),
					      &claim));
		memset(claim.bytes, (uint8_t)i, length);
		memcpy(claim.bytes, &i, sizeof(i));
		/* Some change their mind. */
		if (petal_test_random(&sender->random) % 16 == 0) {
			assert_ok(petal_mailbox_abort(&mailbox, &claim));
			continue;
		}
		assert_ok(petal_mailbox_publish(&mailbox, &claim));
		i++;
	}
	return NULL;
}

static uint64_t check_mail(const struct petal_mail *mail)
{
	const uint8_t *bytes = mail->bytes;
	uint64_t number;

	memcpy(&number, bytes, sizeof(number));
	for (uint32_t i = sizeof(number); i < mail->length; i++)
		assert_int_equal(bytes[i], (uint8_t)number);
	return number;
}

/* Take all, and see that those of each sender are in order. */
static void take_many(struct petal_mailbox *mailbox, uint64_t messages)
{
	uint64_t next[SENDERS + 1] = { 0 };
	struct petal_mail mail;

	for (uint64_t i = 0; i < messages * SENDERS; i++) {
		assert_ok(petal_mailbox_wait(mailbox, soon()));
		assert_ok(petal_mailbox_take(mailbox, &mail));
		assert_in_range(mail.sender, 1, SENDERS);
		assert_int_equal(check_mail(&mail), next[mail.sender]++);
		petal_mailbox_release(mailbox);
	}
}

static void threads__every_message_once_whole_and_in_order(void **state)
{
	struct fixture *f = *state;
	struct sender senders[SENDERS];
	uint64_t messages = petal_test_rounds(5000);

	for (uint32_t i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){
			.f = f,
			.number = i + 1,
			.messages = messages,
			.random = i,
		};
		assert_ok(pthread_create(&senders[i].thread, NULL, send_many,
					 &senders[i]));
	}
	take_many(&f->actor, messages);
	for (uint32_t i = 0; i < SENDERS; i++)
		assert_ok(pthread_join(senders[i].thread, NULL));
	assert_empty(&f->actor);
	assert_int_equal(petal_mailbox_refused(&f->actor), 0);
	assert_int_equal(petal_mailbox_backlog(&f->actor), 0);
}

/* ---- two who wait for each other, so that each message is a sleep ---- */

static void *echo(void *argument)
{
	struct fixture *f = ((struct fixture **)argument)[0];
	struct fixture *back = ((struct fixture **)argument)[1];
	struct petal_mailbox in = view(f, PETAL_MAILBOX_ACTOR);
	struct petal_mailbox out = view(back, 1);
	struct petal_mail mail;

	do {
		assert_ok(petal_mailbox_wait(&in, soon()));
		assert_ok(petal_mailbox_take(&in, &mail));
		assert_ok(petal_mailbox_send(&out, mail.type, mail.bytes,
					     mail.length, soon()));
		petal_mailbox_release(&in);
	} while (mail.type != 0);
	return NULL;
}

static void wait__no_wake_up_is_missed(void **state)
{
	struct fixture *f = *state;
	uint64_t rounds = petal_test_rounds(2000);
	void *other;
	pthread_t thread;

	assert_ok(setup(&other));
	assert_ok(pthread_create(&thread, NULL, echo,
				 (struct fixture *[]){ f, other }));
	for (uint64_t i = 0; i <= rounds; i++) {
		struct petal_mailbox *back = &((struct fixture *)other)->actor;

		assert_ok(petal_mailbox_send(&f->sender, i < rounds, &i, 8, 0));
		assert_ok(petal_mailbox_wait(back, soon()));
		assert_takes(back, i);
	}
	assert_ok(pthread_join(thread, NULL));
	assert_ok(teardown(&other));
}

/* Let a few hundred nanoseconds pass, each time another number of them. */
static void dither(uint64_t *random)
{
	volatile uint64_t left = petal_test_random(random) % 512;

	while (left > 0)
		left--;
}

/* Send each message just when the actor, done with the last, falls asleep. */
static void *send_at_bedtime(void *argument)
{
	struct fixture *f = argument;
	uint64_t random = 1;

	for (uint64_t i = 0; i < petal_test_rounds(20000); i++) {
		while (petal_mailbox_taken(&f->sender) < i)
			sched_yield();
		dither(&random);
		assert_ok(send_u64(&f->sender, i));
	}
	return NULL;
}

static void wait__a_message_may_come_while_it_falls_asleep(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	assert_ok(pthread_create(&thread, NULL, send_at_bedtime, f));
	for (uint64_t i = 0; i < petal_test_rounds(20000); i++) {
		assert_ok(petal_mailbox_wait(&f->actor, soon()));
		assert_takes(&f->actor, i);
	}
	assert_ok(pthread_join(thread, NULL));
}

struct tired {
	struct fixture *f;
	struct petal_u64 round; /* in which the ring is full, and we send */
	struct petal_u64 sent;
};

static void *send_when_full(void *argument)
{
	struct tired *tired = argument;
	struct petal_mailbox mailbox = view(tired->f, 2);
	uint64_t rounds = petal_test_rounds(20000);

	for (uint64_t i = 1; i <= rounds; i++) {
		while (petal_load(&tired->round, PETAL_SEQ_CST(ROUND)) < i)
			sched_yield();
		assert_ok(petal_mailbox_send(&mailbox, 1, &i, 8, soon()));
		petal_store(&tired->sent, i, PETAL_SEQ_CST(ROUND));
	}
	return NULL;
}

static void drain(struct petal_mailbox *mailbox)
{
	struct petal_mail mail;

	while (petal_mailbox_take(mailbox, &mail) == 0)
		petal_mailbox_release(mailbox);
}

static void claim__room_may_come_while_it_falls_asleep(void **state)
{
	struct fixture *f = *state;
	struct tired tired = { .f = f };
	struct petal_mailbox_claim claim;
	uint64_t random = 1;
	pthread_t thread;

	assert_ok(pthread_create(&thread, NULL, send_when_full, &tired));
	for (uint64_t i = 1; i <= petal_test_rounds(20000); i++) {
		/* Full of nothing, so that one look frees all of it. */
		while (petal_mailbox_claim(&f->sender, 1, 8, 0, &claim) == 0)
			assert_ok(petal_mailbox_abort(&f->sender, &claim));
		petal_store(&tired.round, i, PETAL_SEQ_CST(ROUND));
		dither(&random);
		drain(&f->actor);
		while (petal_load(&tired.sent, PETAL_SEQ_CST(ROUND)) < i)
			sched_yield();
		drain(&f->actor);
	}
	assert_ok(pthread_join(thread, NULL));
}

static void *abort_late(void *argument)
{
	struct petal_mailbox_claim *claim = ((void **)argument)[0];

	petal_mailbox_abort(((void **)argument)[1], claim);
	return NULL;
}

static void wait__an_abort_wakes_for_what_lies_behind_it(void **state)
{
	struct fixture *f = *state;
	struct petal_mailbox other = view(f, 2);

	for (uint64_t i = 0; i < petal_test_rounds(200); i++) {
		struct petal_mailbox_claim claim;
		void *arguments[] = { &claim, &f->sender };
		pthread_t thread;

		assert_ok(petal_mailbox_claim(&f->sender, 7, 8, 0, &claim));
		assert_ok(send_u64(&other, i));
		assert_ok(pthread_create(&thread, NULL, abort_late, arguments));
		assert_ok(petal_mailbox_wait(&f->actor, soon()));
		assert_takes(&f->actor, i);
		assert_ok(pthread_join(thread, NULL));
	}
}

/* ---- deaths ---- */

static void kill_and_wait(pid_t pid)
{
	int status;

	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

/* A child that claims as @number and then stays, until it is killed. */
static pid_t claimant(const struct fixture *f, uint32_t number)
{
	int ready[2];
	pid_t pid;
	char byte;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct petal_mailbox mailbox = view(f, number);
		struct petal_mailbox_claim claim;

		if (petal_mailbox_claim(&mailbox, 7, 100, 0, &claim) == 0 &&
		    write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void fence__a_stopped_sender_holds_nobody_up(void **state)
{
	struct fixture *f = *state;
	struct petal_mailbox_claim claim;
	struct petal_mail mail;
	uint32_t sender = 0;

	assert_outcome(petal_mailbox_fence(&f->actor, &sender),
		       PETAL_MAILBOX_EMPTY);
	assert_ok(petal_mailbox_claim(&f->sender, 7, 100, 0, &claim));
	assert_ok(send_u64(&f->actor, 1));
	assert_outcome(petal_mailbox_take(&f->actor, &mail),
		       PETAL_MAILBOX_HELD);
	assert_ok(petal_mailbox_fence(&f->actor, &sender));
	assert_int_equal(sender, f->sender.ring.owner);
	assert_takes(&f->actor, 1);
	/* More than a lap, around what the sender may still write. */
	memset(claim.bytes, 0xa5, 100);
	for (uint64_t i = 0; i < DATA_BYTES / 32; i++) {
		assert_ok(send_u64(&f->actor, i));
		assert_takes(&f->actor, i);
	}
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(((uint8_t *)claim.bytes)[i], 0xa5);
	assert_outcome(petal_mailbox_publish(&f->sender, &claim), -ESTALE);
	assert_ok(send_u64(&f->sender, 2));
	assert_takes(&f->actor, 2);
	assert_empty(&f->actor);
}

static void repair__a_dead_sender_holds_nobody_up(void **state)
{
	struct fixture *f = *state;
	const uint64_t nobody[PETAL_MPSC_OWNERS_MAX / 64] = { 0 };
	const uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64] = { 1 << 2 };
	pid_t pid;

	assert_ok(send_u64(&f->sender, 1));
	pid = claimant(f, 2);
	assert_ok(send_u64(&f->sender, 2));
	kill_and_wait(pid);
	assert_takes(&f->actor, 1);
	assert_held(&f->actor);
	assert_int_equal(petal_mailbox_repair(&f->actor, nobody), 0);
	assert_held(&f->actor);
	assert_int_equal(petal_mailbox_repair(&f->actor, dead), 1);
	assert_int_equal(petal_mailbox_repair(&f->actor, dead), 0);
	assert_takes(&f->actor, 2);
	assert_empty(&f->actor);
}

/* Send and take without end, from one process; killed at any instruction. */
static void busy(const struct fixture *f, uint64_t next)
{
	struct petal_mailbox sender = view(f, 2);
	struct petal_mailbox actor = view(f, PETAL_MAILBOX_ACTOR);
	struct petal_mail mail;

	for (;; next++) {
		send_u64(&sender, next);
		if (petal_mailbox_take(&actor, &mail) == 0)
			petal_mailbox_release(&actor);
	}
}

static void death__of_both_at_any_moment_leaves_a_working_mailbox(void **state)
{
	const uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64] = { 1 << 2 | 1 };
	struct fixture *f = *state;
	uint64_t random = 1;

	for (uint64_t i = 0; i < petal_test_rounds(50); i++) {
		uint64_t from = petal_mailbox_taken(&f->sender);
		uint64_t more = petal_test_random(&random) % 100;
		struct petal_mailbox actor;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0)
			busy(f, i);
		while (petal_mailbox_taken(&f->sender) < from + more)
			assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
		kill_and_wait(pid);
		actor = view(f, PETAL_MAILBOX_ACTOR);
		assert_true(petal_mailbox_repair(&actor, dead) >= 0);
		drain(&actor);
		assert_empty(&actor);
		assert_ok(send_u64(&f->sender, i));
		assert_takes(&actor, i);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(send__arrives_with_type_and_sender),
		TEST(send__nothing_is_a_message_too),
		TEST(send__types_of_ours_are_refused),
		TEST(send__the_longest_fits_wherever_the_ring_stands),
		TEST(send__a_full_mailbox_refuses_and_counts),
		TEST(claim__is_filled_in_place),
		TEST(claim__holds_back_what_is_sent_after_it),
		TEST(abort__leaves_no_trace),
		TEST(take__the_same_until_released),
		TEST(retry__counts_as_another_try),
		TEST(attach__the_next_actor_goes_on_where_the_last_one_was),
		TEST(attach__refuses_what_is_no_mailbox),
		TEST(format__refuses_shapes_out_of_range),
		TEST(take__bytes_that_lie_are_an_error),
		TEST(threads__every_message_once_whole_and_in_order),
		TEST(wait__no_wake_up_is_missed),
		TEST(wait__a_message_may_come_while_it_falls_asleep),
		TEST(claim__room_may_come_while_it_falls_asleep),
		TEST(wait__an_abort_wakes_for_what_lies_behind_it),
		TEST(fence__a_stopped_sender_holds_nobody_up),
		TEST(repair__a_dead_sender_holds_nobody_up),
		TEST(death__of_both_at_any_moment_leaves_a_working_mailbox),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
