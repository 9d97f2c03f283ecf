/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What actors/actor.h promises: one message at a time, become and stop, and
 * what a crash leaves: of a behaviour that fails, and of a process that is
 * killed in one.
 *
 * Harder: PETAL_TEST_HARDER=100 for a hundred times as many messages.
 */
#include "tests/check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "actors/actor.h"
#include "shm/clock.h"

enum { ADD = 1, DOUBLE, REVERSE, FAIL, FAIL_ONCE, QUIT, DIE };

struct fixture {
	uint64_t bytes;
	void *memory;
	struct petal_mailbox box;
	struct petal_mailbox sender;
	struct petal_actor actor;
	int64_t sum; /* the actor's state */
	bool failed_once;
};

static int subtract(struct petal_actor *actor, void *state,
		    const struct petal_mail *mail);

static int add(struct petal_actor *actor, void *state,
	       const struct petal_mail *mail)
{
	struct fixture *f = state;

	switch (mail->type) {
	case ADD:
		f->sum += *(const int64_t *)mail->bytes;
		return 0;
	case REVERSE:
		petal_actor_become(actor, subtract);
		return 0;
	case FAIL:
		petal_actor_become(actor, subtract);
		petal_actor_stop(actor);
		return -EIO;
	case FAIL_ONCE:
		if (f->failed_once)
			return 0;
		f->failed_once = true;
		return -EIO;
	case DIE:
		raise(SIGKILL);
		return 0;
	default:
		return PETAL_ACTOR_STOP;
	}
}

static int subtract(struct petal_actor *actor, void *state,
		    const struct petal_mail *mail)
{
	struct fixture *f = state;

	if (mail->type == QUIT)
		petal_actor_stop(actor);
	else
		f->sum -= *(const int64_t *)mail->bytes;
	return 0;
}

static void start(struct fixture *f)
{
	const struct petal_actor_options options = {
		.behave = add,
		.state = f,
		.mailbox = &f->box,
		.deliveries_max = 3,
	};

	assert_ok(petal_mailbox_attach(f->memory, f->bytes, PETAL_MAILBOX_ACTOR,
				       &f->box));
	assert_ok(petal_actor_init(&f->actor, &options));
}

static int setup(void **state)
{
	const struct petal_mailbox_geometry geometry = {
		.data_bytes = 1 << 16,
		.senders = 1,
	};
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->bytes = petal_mailbox_bytes(&geometry);
	f->memory = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(f->memory, MAP_FAILED);
	assert_ok(petal_mailbox_format(f->memory, &geometry));
	assert_ok(petal_mailbox_attach(f->memory, f->bytes, 1, &f->sender));
	start(f);
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

static void tell(struct fixture *f, uint32_t type, int64_t number)
{
	assert_ok(petal_mailbox_send(&f->sender, type, &number, sizeof(number),
				     petal_clock_now_ns() + PETAL_S(60)));
}

static int run(struct fixture *f)
{
	return petal_actor_run(&f->actor, petal_clock_now_ns() + PETAL_S(60));
}

static void init__refuses_what_cannot_work(void **state)
{
	struct fixture *f = *state;
	struct petal_actor actor;

	for (unsigned i = 0; i < 3; i++) {
		struct petal_actor_options options = f->actor.options;

		options.behave = i == 0 ? NULL : options.behave;
		options.mailbox = i == 1 ? NULL : options.mailbox;
		options.deliveries_max = i == 2 ? 0 : 1;
		assert_outcome(petal_actor_init(&actor, &options), -EINVAL);
	}
}

static void step__handles_one_message(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(petal_actor_step(&f->actor), PETAL_ACTOR_IDLE);
	tell(f, ADD, 3);
	tell(f, ADD, 4);
	assert_ok(petal_actor_step(&f->actor));
	assert_int_equal(f->sum, 3);
	assert_ok(petal_actor_step(&f->actor));
	assert_int_equal(f->sum, 7);
	assert_int_equal(petal_actor_step(&f->actor), PETAL_ACTOR_IDLE);
	assert_int_equal(f->actor.counts.handled, 2);
	assert_int_equal(petal_mailbox_taken(&f->sender), 2);
}

static void step__waits_behind_a_sender_that_has_not_published(void **state)
{
	struct fixture *f = *state;
	struct petal_mailbox_claim claim;

	assert_ok(petal_mailbox_claim(&f->sender, ADD, 8, 0, &claim));
	assert_int_equal(petal_actor_step(&f->actor), PETAL_ACTOR_IDLE);
	assert_int_equal(petal_actor_run(&f->actor, 1), PETAL_ACTOR_IDLE);
	assert_ok(petal_mailbox_abort(&f->sender, &claim));
}

static void become__counts_from_the_next_message(void **state)
{
	struct fixture *f = *state;

	tell(f, ADD, 10);
	tell(f, REVERSE, 0);
	tell(f, ADD, 4);
	tell(f, QUIT, 0);
	assert_int_equal(run(f), PETAL_ACTOR_STOP);
	assert_int_equal(f->sum, 6);
}

static void become__between_two_steps_survives_a_crash(void **state)
{
	struct fixture *f = *state;

	petal_actor_become(&f->actor, subtract);
	petal_actor_become(&f->actor, add);
	tell(f, FAIL, 0);
	assert_int_equal(petal_actor_step(&f->actor), PETAL_ACTOR_CRASHED);
	assert_ptr_equal(f->actor.options.behave, add);
	assert_ptr_equal(f->actor.next, add);
}

static void stop__leaves_what_comes_after(void **state)
{
	struct fixture *f = *state;

	tell(f, QUIT, 0);
	tell(f, ADD, 1);
	assert_int_equal(run(f), PETAL_ACTOR_STOP);
	assert_int_equal(run(f), PETAL_ACTOR_STOP);
	assert_int_equal(petal_actor_step(&f->actor), PETAL_ACTOR_STOP);
	assert_int_equal(f->sum, 0);
	assert_int_equal(petal_mailbox_taken(&f->sender), 1);
	start(f);
	assert_ok(petal_actor_step(&f->actor));
	assert_int_equal(f->sum, 1);
}

static void crash__names_the_message_and_tries_it_again(void **state)
{
	struct fixture *f = *state;
	struct petal_mail mail;

	tell(f, ADD, 1);
	tell(f, FAIL_ONCE, 0);
	tell(f, ADD, 2);
	assert_int_equal(run(f), PETAL_ACTOR_CRASHED);
	assert_ok(petal_mailbox_take(&f->box, &mail));
	assert_int_equal(f->actor.crash.pos, mail.pos);
	petal_mailbox_retry(&f->box);
	assert_int_equal(f->actor.crash.type, FAIL_ONCE);
	assert_int_equal(f->actor.crash.sender, 1);
	assert_int_equal(f->actor.crash.reason, -EIO);
	assert_int_equal(f->actor.crash.deliveries, 1);
	assert_ok(petal_actor_step(&f->actor));
	assert_ok(petal_actor_step(&f->actor));
	assert_int_equal(f->sum, 3);
	assert_int_equal(f->actor.counts.crashes, 1);
	assert_int_equal(f->actor.counts.dropped, 0);
	assert_int_equal(f->actor.counts.handled, 3);
}

static void crash__undoes_become_and_stop(void **state)
{
	struct fixture *f = *state;

	tell(f, FAIL, 0);
	tell(f, ADD, 5);
	for (uint32_t i = 1; i <= 3; i++) {
		assert_int_equal(run(f), PETAL_ACTOR_CRASHED);
		assert_int_equal(f->actor.crash.deliveries, i);
	}
	/* That was its last try. */
	assert_int_equal(f->actor.counts.dropped, 1);
	assert_ok(petal_actor_step(&f->actor));
	assert_int_equal(f->sum, 5);
}

static void crash__of_a_process_is_seen_by_its_successor(void **state)
{
	struct fixture *f = *state;

	tell(f, DIE, 0);
	tell(f, ADD, 5);
	for (unsigned i = 0; i < 3; i++) {
		int status;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			start(f);
			_exit(run(f));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
	}
	start(f);
	assert_int_equal(run(f), PETAL_ACTOR_CRASHED);
	assert_int_equal(f->actor.crash.reason, -EOWNERDEAD);
	assert_int_equal(f->actor.crash.type, DIE);
	assert_int_equal(f->actor.crash.deliveries, 3);
	assert_int_equal(f->actor.counts.dropped, 1);
	assert_ok(petal_actor_step(&f->actor));
	assert_int_equal(f->sum, 5);
}

static void run__ends_at_the_deadline(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(petal_actor_run(&f->actor,
					 petal_clock_now_ns() + PETAL_MS(1)),
			 PETAL_ACTOR_IDLE);
	tell(f, ADD, 1);
	tell(f, ADD, 1);
	/* Busy or not. */
	assert_int_equal(petal_actor_run(&f->actor, 1), PETAL_ACTOR_IDLE);
	assert_int_equal(f->sum, 1);
}

static void *tell_many(void *argument)
{
	struct fixture *f = argument;

	for (uint64_t i = 0; i < petal_test_rounds(20000); i++)
		tell(f, ADD, 1);
	tell(f, QUIT, 0);
	return NULL;
}

static void run__handles_all_that_another_thread_sends(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	assert_ok(pthread_create(&thread, NULL, tell_many, f));
	assert_int_equal(run(f), PETAL_ACTOR_STOP);
	assert_ok(pthread_join(thread, NULL));
	assert_int_equal(f->sum, petal_test_rounds(20000));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(init__refuses_what_cannot_work),
		TEST(step__handles_one_message),
		TEST(step__waits_behind_a_sender_that_has_not_published),
		TEST(become__counts_from_the_next_message),
		TEST(become__between_two_steps_survives_a_crash),
		TEST(stop__leaves_what_comes_after),
		TEST(crash__names_the_message_and_tries_it_again),
		TEST(crash__undoes_become_and_stop),
		TEST(crash__of_a_process_is_seen_by_its_successor),
		TEST(run__ends_at_the_deadline),
		TEST(run__handles_all_that_another_thread_sends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
