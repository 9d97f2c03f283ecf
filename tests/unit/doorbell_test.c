/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings/doorbell.h promises: who armed and found nothing is woken, in
 * threads and in processes, by futex and by fd; whoever dies leaves nothing
 * behind that keeps another asleep.
 *
 * A lost wake-up shows as a deadline: each wait here ends after HANG_NS, and
 * that fails the test. Harder: PETAL_TEST_ROUNDS=5000000 (default 100000).
 */
#include "tests/check.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "rings/doorbell.h"
#include "shm/clock.h"

#define HANG_NS PETAL_S(30)

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 10) : otherwise;
}

/* A number that one side writes and the other waits for. */
struct signpost {
	_Alignas(64) struct petal_doorbell doorbell;
	_Alignas(64) struct petal_u64 value;
	struct petal_u64 asleep; /* whether anybody may be in the kernel */
};

static struct signpost *signposts_make(unsigned count)
{
	struct signpost *posts = mmap(NULL, count * sizeof(*posts),
				      PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(posts, MAP_FAILED);
	return posts;
}

static uint64_t look(struct signpost *post)
{
	return petal_load(&post->value, PETAL_ACQUIRE(NEWS));
}

static void tell(struct signpost *post, uint64_t value, uint32_t count)
{
	petal_store(&post->value, value, PETAL_RELEASE(NEWS));
	petal_doorbell_ring(&post->doorbell, count);
}

/* 0, or 1 when a wake-up was lost. */
static int await(struct signpost *post, uint64_t value)
{
	while (look(post) < value) {
		uint32_t seen = petal_doorbell_arm(&post->doorbell);
		int outcome;

		if (look(post) >= value)
			break;
		petal_add(&post->asleep, 1, PETAL_SEQ_CST(ASLEEP));
		outcome = petal_doorbell_wait(&post->doorbell, seen,
					      petal_clock_now_ns() + HANG_NS);
		petal_add(&post->asleep, -1, PETAL_SEQ_CST(ASLEEP));
		if (outcome != 0)
			return outcome;
	}
	return 0;
}

/* Wait until so many are in the kernel, by the kernel's own word. */
static void await_sleepers(struct signpost *post, const pid_t *pids,
			   unsigned count)
{
	for (unsigned i = 0; i < count;) {
		char path[64], state = 0;
		FILE *stat;

		snprintf(path, sizeof(path), "/proc/%d/stat", (int)pids[i]);
		stat = fopen(path, "r");
		assert_non_null(stat);
		assert_int_equal(fscanf(stat, "%*d (%*[^)]) %c", &state), 1);
		fclose(stat);
		if (state == 'S' &&
		    petal_load(&post->asleep, PETAL_RELAXED) >= count)
			i++;
		else
			sched_yield();
	}
}

static pid_t spawn_waiter(struct signpost *post, uint64_t value)
{
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(await(post, value));
	}
	return child;
}

static void assert_exits(pid_t child)
{
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void kill_and_wait(pid_t child)
{
	int status;

	assert_ok(kill(child, SIGKILL));
	assert_int_equal(waitpid(child, &status, 0), child);
}

/* ---- by hand ---- */

static void ring__without_an_arm_touches_nothing(void **state)
{
	struct petal_doorbell doorbell = { 0 };

	(void)state;
	petal_doorbell_ring(&doorbell, PETAL_DOORBELL_ALL);
	petal_doorbell_ring_fd(&doorbell, -1);
	assert_int_equal(petal_load(&doorbell.sequence, PETAL_RELAXED), 0);
	assert_int_equal(petal_load(&doorbell.armed, PETAL_RELAXED), 0);
}

static void wait__returns_at_once_if_it_rang_after_the_arm(void **state)
{
	struct petal_doorbell doorbell = { 0 };
	uint32_t seen = petal_doorbell_arm(&doorbell);

	(void)state;
	petal_doorbell_ring(&doorbell, PETAL_DOORBELL_ALL);
	assert_ok(petal_doorbell_wait(&doorbell, seen, 0));
	assert_int_equal(petal_load(&doorbell.armed, PETAL_RELAXED) & 1, 0);
}

/* The second arm in a row, which nobody has answered in between. */
static uint32_t long_arm(struct petal_doorbell *doorbell)
{
	petal_doorbell_arm(doorbell);
	return petal_doorbell_arm(doorbell);
}

static void wait__is_a_nap_after_an_arm_that_was_answered(void **state)
{
	struct petal_doorbell doorbell = { 0 };
	uint64_t far_ns = petal_clock_now_ns() + HANG_NS;

	(void)state;
	for (int i = 0; i < 3; i++) {
		uint32_t seen = petal_doorbell_arm(&doorbell);
		uint64_t begin_ns = petal_clock_now_ns();

		/* It ends by itself, long before the deadline, and says 0. */
		assert_ok(petal_doorbell_wait(&doorbell, seen, far_ns));
		assert_true(petal_clock_now_ns() < far_ns);
		assert_true(petal_clock_now_ns() - begin_ns >=
			    PETAL_DOORBELL_NAP_NS);
		/* Nobody rang, so the next sleep is as long as it likes. */
		seen = petal_doorbell_arm(&doorbell);
		assert_outcome(
			petal_doorbell_wait(&doorbell, seen,
					    petal_clock_now_ns() + PETAL_MS(2)),
			1);
		petal_doorbell_ring(&doorbell, PETAL_DOORBELL_ALL);
	}
}

static void arm__pays_once_for_a_stretch_without_a_ring(void **state)
{
	struct petal_doorbell doorbell = { 0 };
	uint32_t marks = 2, armed;

	(void)state;
	petal_doorbell_arm(&doorbell);
	armed = petal_load(&doorbell.armed, PETAL_RELAXED);
	assert_int_equal(armed & marks, 0);
	for (int i = 0; i < 3; i++) {
		petal_doorbell_arm(&doorbell);
		/* Another number each time, and paid for since the first. */
		assert_true(petal_load(&doorbell.armed, PETAL_RELAXED) !=
			    armed);
		armed = petal_load(&doorbell.armed, PETAL_RELAXED);
		assert_int_equal(armed & marks, marks);
	}
	petal_doorbell_ring(&doorbell, PETAL_DOORBELL_ALL);
	assert_int_equal(petal_load(&doorbell.armed, PETAL_RELAXED) & 3, 0);
	petal_doorbell_arm(&doorbell);
	assert_int_equal(petal_load(&doorbell.armed, PETAL_RELAXED) & marks, 0);
	petal_doorbell_disarm(&doorbell);
	assert_int_equal(petal_doorbell_arm_fd(&doorbell),
			 PETAL_DOORBELL_NAP_MS);
	assert_int_equal(petal_doorbell_arm_fd(&doorbell), -1);
	assert_int_equal(petal_load(&doorbell.armed, PETAL_RELAXED) & marks,
			 marks);
}

static void wait__ends_at_its_deadline(void **state)
{
	struct petal_doorbell doorbell = { 0 };
	uint32_t seen = long_arm(&doorbell);
	uint64_t deadline_ns = petal_clock_now_ns() + PETAL_MS(5);

	(void)state;
	assert_outcome(petal_doorbell_wait(&doorbell, seen, deadline_ns), 1);
	assert_true(petal_clock_now_ns() >= deadline_ns);
	assert_outcome(petal_doorbell_wait(&doorbell, seen, 1), 1);
}

static void wait__is_not_moved_by_any_number_in_the_words(void **state)
{
	static const uint32_t words[] = { 1, 2, 3, UINT32_MAX - 1, UINT32_MAX };

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		struct petal_doorbell doorbell = { { words[i] }, { words[i] } };
		uint32_t seen = petal_doorbell_arm(&doorbell);

		assert_int_equal(petal_load(&doorbell.armed, PETAL_RELAXED) & 1,
				 1);
		assert_outcome(petal_doorbell_wait(&doorbell, seen, 1), 1);
		petal_doorbell_ring(&doorbell, PETAL_DOORBELL_ALL);
		assert_ok(petal_doorbell_wait(&doorbell, seen, 0));
	}
}

static void
ring__does_not_wipe_out_an_arm_that_it_has_not_answered(void **state)
{
	struct petal_doorbell doorbell = { 0 };
	uint32_t first, second;

	(void)state;
	petal_doorbell_arm(&doorbell);
	first = petal_load(&doorbell.armed, PETAL_RELAXED);
	petal_doorbell_arm(&doorbell);
	second = petal_load(&doorbell.armed, PETAL_RELAXED);
	assert_int_equal(first & second & 1, 1);
	assert_int_not_equal(first, second);
	petal_doorbell_disarm(&doorbell);
	assert_int_equal(petal_load(&doorbell.armed, PETAL_RELAXED) & 1, 0);
	petal_doorbell_arm(&doorbell);
	assert_int_not_equal(petal_load(&doorbell.armed, PETAL_RELAXED), first);
	assert_int_not_equal(petal_load(&doorbell.armed, PETAL_RELAXED),
			     second);
}

/* ---- two who talk ---- */

struct pong {
	struct signpost *posts;
	uint64_t rounds;
	int lost;
};

static void *run_pong(void *argument)
{
	struct pong *pong = argument;

	for (uint64_t i = 1; i <= pong->rounds && !pong->lost; i++) {
		pong->lost = await(&pong->posts[0], i);
		tell(&pong->posts[1], i, PETAL_DOORBELL_ALL);
	}
	return NULL;
}

static int run_ping(struct signpost *posts, uint64_t rounds)
{
	int lost = 0;

	for (uint64_t i = 1; i <= rounds && !lost; i++) {
		tell(&posts[0], i, PETAL_DOORBELL_ALL);
		lost = await(&posts[1], i);
	}
	return lost;
}

static void processes__lose_no_wake_up_in_ping_pong(void **state)
{
	struct signpost *posts = signposts_make(2);
	struct pong pong = { posts, setting("PETAL_TEST_ROUNDS", 100000), 0 };
	pid_t child = fork();

	(void)state;
	assert_true(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_pong(&pong);
		_exit(pong.lost);
	}
	assert_ok(run_ping(posts, pong.rounds));
	assert_exits(child);
	munmap(posts, 2 * sizeof(*posts));
}

static void threads__lose_no_wake_up_in_ping_pong(void **state)
{
	struct signpost *posts = signposts_make(2);
	struct pong pong = { posts, setting("PETAL_TEST_ROUNDS", 100000) / 4,
			     0 };
	pthread_t thread;

	(void)state;
	assert_ok(pthread_create(&thread, NULL, run_pong, &pong));
	assert_ok(run_ping(posts, pong.rounds));
	pthread_join(thread, NULL);
	assert_ok(pong.lost);
	munmap(posts, 2 * sizeof(*posts));
}

/* ---- several who sleep ---- */

/*
 * Tokens that one gives out, one by one, waking one each time. Who takes one
 * does not wake others: if a single wake-up went astray, a token would lie
 * there and everybody sleep.
 */
static int take_token(struct signpost *post)
{
	uint64_t tokens = look(post);

	while (tokens > 0)
		if (petal_cas(&post->value, &tokens, tokens - 1,
			      PETAL_ACQ_REL(NEWS)))
			return 1;
	return 0;
}

static int consume_tokens(struct signpost *post, struct signpost *taken,
			  uint64_t total)
{
	while (look(taken) < total) {
		uint32_t seen;

		if (take_token(post)) {
			if (petal_add(&taken->value, 1, PETAL_ACQ_REL(NEWS)) +
				    1 ==
			    total)
				petal_doorbell_ring(&post->doorbell,
						    PETAL_DOORBELL_ALL);
			continue;
		}
		seen = petal_doorbell_arm(&post->doorbell);
		if (look(post) > 0 || look(taken) >= total)
			continue;
		if (petal_doorbell_wait(&post->doorbell, seen,
					petal_clock_now_ns() + HANG_NS) != 0)
			return 1;
	}
	return 0;
}

static void wake_one__leaves_no_token_among_several_sleepers(void **state)
{
	uint64_t total = setting("PETAL_TEST_ROUNDS", 100000) / 4;
	struct signpost *posts = signposts_make(2);
	pid_t children[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		children[i] = fork();
		assert_true(children[i] >= 0);
		if (children[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(consume_tokens(&posts[0], &posts[1], total));
		}
	}
	for (uint64_t i = 0; i < total; i++) {
		petal_add(&posts[0].value, 1, PETAL_RELEASE(NEWS));
		petal_doorbell_ring(&posts[0].doorbell, 1);
		/* Let them fall asleep again, mostly. */
		if (i % 8 == 0)
			sched_yield();
	}
	for (unsigned i = 0; i < 4; i++)
		assert_exits(children[i]);
	assert_int_equal(look(&posts[1]), total);
	munmap(posts, 2 * sizeof(*posts));
}

static void wake_one__of_several_sleepers_leaves_the_others_armed(void **state)
{
	struct signpost *post = signposts_make(1);
	pid_t children[3];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		children[i] = spawn_waiter(post, 1);
	await_sleepers(post, children, 3);
	/* One ring for each is enough, though none of them rings on. */
	petal_store(&post->value, 1, PETAL_RELEASE(NEWS));
	for (unsigned i = 0; i < 3; i++)
		petal_doorbell_ring(&post->doorbell, 1);
	for (unsigned i = 0; i < 3; i++)
		assert_exits(children[i]);
	munmap(post, sizeof(*post));
}

/* ---- who dies ---- */

static void killed_sleeper__leaves_nothing_but_one_system_call(void **state)
{
	struct signpost *post = signposts_make(1);
	pid_t child = spawn_waiter(post, 1);

	(void)state;
	await_sleepers(post, &child, 1);
	kill_and_wait(child);
	assert_int_equal(petal_load(&post->doorbell.armed, PETAL_RELAXED) & 1,
			 1);
	tell(post, 1, PETAL_DOORBELL_ALL);
	assert_int_equal(petal_load(&post->doorbell.armed, PETAL_RELAXED) & 1,
			 0);
	assert_ok(await(post, 1));
	munmap(post, sizeof(*post));
}

static void
killed_sleeper__does_not_swallow_the_wake_up_of_another(void **state)
{
	struct signpost *post = signposts_make(1);
	pid_t children[2];

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		children[i] = spawn_waiter(post, 1);
	await_sleepers(post, children, 2);
	kill_and_wait(children[0]);
	tell(post, 1, 1);
	assert_exits(children[1]);
	munmap(post, sizeof(*post));
}

/* It moved the sequence and died before the kernel woke anybody. */
static void killed_ringer__leaves_the_doorbell_armed_for_another(void **state)
{
	struct signpost *post = signposts_make(1);
	pid_t child = spawn_waiter(post, 1);

	(void)state;
	await_sleepers(post, &child, 1);
	petal_store(&post->value, 1, PETAL_RELEASE(NEWS));
	petal_add(&post->doorbell.sequence, 1, PETAL_RELEASE(SEEN));
	petal_doorbell_ring(&post->doorbell, PETAL_DOORBELL_ALL);
	assert_exits(child);
	munmap(post, sizeof(*post));
}

/* ---- who sleeps in epoll ---- */

static int epoll_on(int fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	assert_true(epoll >= 0);
	assert_ok(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
	return epoll;
}

static int await_fd(struct signpost *post, uint64_t value, int fd, int epoll)
{
	while (look(post) < value) {
		int limit_ms = petal_doorbell_arm_fd(&post->doorbell);
		struct epoll_event event;
		eventfd_t count;

		if (limit_ms < 0)
			limit_ms = HANG_NS / PETAL_MS(1);
		if (look(post) < value &&
		    epoll_wait(epoll, &event, 1, limit_ms) != 1) {
			if (limit_ms != PETAL_DOORBELL_NAP_MS)
				return 1;
			continue;
		}
		petal_doorbell_disarm(&post->doorbell);
		eventfd_read(fd, &count);
	}
	return 0;
}

static void fd__wakes_a_loop_and_loses_nothing(void **state)
{
	uint64_t rounds = setting("PETAL_TEST_ROUNDS", 100000) / 4;
	struct signpost *posts = signposts_make(2);
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int epoll = epoll_on(fd);
	pid_t child = fork();

	(void)state;
	assert_true(child >= 0);
	if (child == 0) {
		int lost = 0;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (uint64_t i = 1; i <= rounds && !lost; i++) {
			lost = await_fd(&posts[0], i, fd, epoll);
			tell(&posts[1], i, PETAL_DOORBELL_ALL);
		}
		_exit(lost);
	}
	for (uint64_t i = 1; i <= rounds; i++) {
		petal_store(&posts[0].value, i, PETAL_RELEASE(NEWS));
		petal_doorbell_ring_fd(&posts[0].doorbell, fd);
		assert_ok(await(&posts[1], i));
	}
	assert_exits(child);
	close(epoll);
	close(fd);
	munmap(posts, 2 * sizeof(*posts));
}

static void fd__is_not_written_while_the_loop_is_awake(void **state)
{
	struct petal_doorbell doorbell = { 0 };
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	eventfd_t count;

	(void)state;
	petal_doorbell_ring_fd(&doorbell, fd);
	assert_int_equal(eventfd_read(fd, &count), -1);
	petal_doorbell_arm_fd(&doorbell);
	for (unsigned i = 0; i < 5; i++)
		petal_doorbell_ring_fd(&doorbell, fd);
	assert_ok(eventfd_read(fd, &count));
	assert_int_equal(count, 1);
	petal_doorbell_arm_fd(&doorbell);
	petal_doorbell_disarm(&doorbell);
	petal_doorbell_ring_fd(&doorbell, fd);
	assert_int_equal(eventfd_read(fd, &count), -1);
	close(fd);
}

static void fd__that_cannot_be_written_leaves_the_doorbell_armed(void **state)
{
	struct petal_doorbell doorbell = { 0 };

	(void)state;
	petal_doorbell_arm_fd(&doorbell);
	errno = ERANGE;
	petal_doorbell_ring_fd(&doorbell, -1);
	assert_int_equal(errno, ERANGE);
	assert_int_equal(petal_load(&doorbell.armed, PETAL_RELAXED) & 1, 1);
}

/* ---- several doorbells, one sleeper ---- */

/* 0, or what the wait said; takes turns among the posts, in any order. */
static int await_any(struct signpost *posts, unsigned count, uint64_t total)
{
	for (;;) {
		struct petal_doorbell *bells[4];
		uint32_t seen[4];
		uint64_t sum = 0;
		int outcome;

		for (unsigned i = 0; i < count; i++) {
			bells[i] = &posts[i].doorbell;
			seen[i] = petal_doorbell_arm(bells[i]);
		}
		for (unsigned i = 0; i < count; i++)
			sum += look(&posts[i]);
		petal_store(&posts[count].value, sum, PETAL_RELEASE(NEWS));
		if (sum >= total)
			return 0;
		outcome = petal_doorbell_wait_many(
			bells, seen, count, petal_clock_now_ns() + HANG_NS);
		if (outcome != 0)
			return outcome;
	}
}

static void wait_many__loses_no_wake_up_of_any(void **state)
{
	struct signpost *posts = signposts_make(5);
	uint64_t rounds = setting("PETAL_TEST_ROUNDS", 100000) / 10;
	pid_t child = fork();

	(void)state;
	assert_true(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(await_any(posts, 4, rounds));
	}
	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t value = look(&posts[i % 4]) + 1;

		tell(&posts[i % 4], value, PETAL_DOORBELL_ALL);
		while (i % 3 == 0 && look(&posts[4]) <= i)
			sched_yield();
	}
	assert_exits(child);
	munmap(posts, 5 * sizeof(*posts));
}

static void wait_many__ends_at_its_deadline_and_bounds_its_count(void **state)
{
	struct petal_doorbell bells[2] = { 0 };
	struct petal_doorbell *which[2] = { &bells[0], &bells[1] };
	uint32_t seen[2] = { petal_doorbell_arm(which[0]),
			     petal_doorbell_arm(which[1]) };

	(void)state;
	assert_outcome(petal_doorbell_wait_many(which, seen, 2, 1), 1);
	assert_outcome(petal_doorbell_wait_many(which, seen, 0, 1), -EINVAL);
	assert_outcome(petal_doorbell_wait_many(which, seen,
						PETAL_DOORBELL_MANY_MAX + 1, 1),
		       -EINVAL);
	petal_doorbell_ring(which[1], PETAL_DOORBELL_ALL);
	assert_ok(petal_doorbell_wait_many(which, seen, 2, 0));
}

/* ---- who pays ---- */

static int enroll(void **state)
{
	(void)state;
	if (petal_barrier_enroll() != 0)
		print_message("no membarrier: fences all the way\n");
	return 0;
}

static void enrolment__is_inherited_by_a_child(void **state)
{
	const int get_registrations = 1 << 9, global_expedited = 1 << 2;
	int mine = (int)syscall(SYS_membarrier, get_registrations, 0, 0);
	pid_t child;

	(void)state;
	if (mine < 0 || !petal_load(&petal_barrier_enrolled, PETAL_RELAXED))
		return; /* Before Linux 6.3 nobody can be asked. */
	assert_int_not_equal(mine & global_expedited, 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit((int)syscall(SYS_membarrier, get_registrations, 0, 0) !=
		      mine);
	assert_exits(child);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ring__without_an_arm_touches_nothing),
		cmocka_unit_test(
			wait__returns_at_once_if_it_rang_after_the_arm),
		cmocka_unit_test(wait__is_a_nap_after_an_arm_that_was_answered),
		cmocka_unit_test(arm__pays_once_for_a_stretch_without_a_ring),
		cmocka_unit_test(wait__ends_at_its_deadline),
		cmocka_unit_test(wait__is_not_moved_by_any_number_in_the_words),
		cmocka_unit_test(
			ring__does_not_wipe_out_an_arm_that_it_has_not_answered),
		cmocka_unit_test(processes__lose_no_wake_up_in_ping_pong),
		cmocka_unit_test(threads__lose_no_wake_up_in_ping_pong),
		cmocka_unit_test(
			wake_one__leaves_no_token_among_several_sleepers),
		cmocka_unit_test(
			wake_one__of_several_sleepers_leaves_the_others_armed),
		cmocka_unit_test(
			killed_sleeper__leaves_nothing_but_one_system_call),
		cmocka_unit_test(
			killed_sleeper__does_not_swallow_the_wake_up_of_another),
		cmocka_unit_test(
			killed_ringer__leaves_the_doorbell_armed_for_another),
		cmocka_unit_test(fd__wakes_a_loop_and_loses_nothing),
		cmocka_unit_test(fd__is_not_written_while_the_loop_is_awake),
		cmocka_unit_test(
			fd__that_cannot_be_written_leaves_the_doorbell_armed),
		cmocka_unit_test(wait_many__loses_no_wake_up_of_any),
		cmocka_unit_test(
			wait_many__ends_at_its_deadline_and_bounds_its_count),
		cmocka_unit_test(enrolment__is_inherited_by_a_child),
	};
	int failed =
		cmocka_run_group_tests_name("with fences", tests, NULL, NULL);

	/* The same again, now that the sleepers pay. */
	return failed |
	       cmocka_run_group_tests_name("enrolled", tests, enroll, NULL);
}
