/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hot calls of every ring, of the ledger and of a doorbell whose waiter is
 * awake make no system call and allocate nothing. Each loop runs in a child
 * that the kernel kills at its first system call (strict seccomp: only read,
 * write and exit are left), and in which an allocation ends the loop, too.
 * Many laps, so that looks at the other side's line are among them.
 *
 * Under a sanitizer, whose runtime does both, the loops run without the two
 * watches. Harder: PETAL_TEST_ROUNDS=10000000 (default 300000).
 */
#include "tests/check.h"

#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "rings/bcast.h"
#include "rings/doorbell.h"
#include "rings/mpmc.h"
#include "rings/mpsc.h"
#include "rings/pipe.h"
#include "rings/spsc.h"
#include "shm/barrier.h"
#include "shm/ledger.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WATCHED 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WATCHED 0
#endif
#endif
#ifndef WATCHED
#define WATCHED 1
#endif

/* What a child ends with. */
enum { DONE = 0, WRONG = 1, ALLOCATED = 2 };

static bool forbidden;

static _Noreturn void child_exit(int code)
{
	/* Strict seccomp knows exit, and not the exit_group of _exit(). */
	for (;;)
		syscall(SYS_exit, code);
}

#if WATCHED
/* Whoever asks for memory in this program passes here. */
void *__libc_malloc(size_t bytes);

void *malloc(size_t bytes)
{
	if (forbidden)
		child_exit(ALLOCATED);
	return __libc_malloc(bytes);
}
#endif

static uint64_t rounds(void)
{
	const char *value = getenv("PETAL_TEST_ROUNDS");

	return value ? strtoull(value, NULL, 10) : 300000;
}

static void *memory_of(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

/* Runs the loop where neither the kernel nor the heap can be reached. */
static void assert_hot(bool (*loop)(void *subject, uint64_t count),
		       void *subject)
{
	uint64_t count = rounds();
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		if (WATCHED && prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
			child_exit(77);
		forbidden = true;
		child_exit(loop(subject, count) ? DONE : WRONG);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	/* Killed by SIGKILL: it has made a system call. */
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), DONE);
}

/* ---- spsc ---- */

struct spsc_pair {
	struct petal_spsc to, from;
};

static bool spsc_loop(void *subject, uint64_t count)
{
	struct spsc_pair *pair = subject;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t *out = petal_spsc_claim(&pair->to);
		const uint64_t *in;

		if (!out)
			return false;
		*out = i;
		petal_spsc_publish(&pair->to);
		in = petal_spsc_peek(&pair->from);
		if (!in || *in != i)
			return false;
		petal_spsc_release(&pair->from);
		/* Empty, which is a look at the other side's words. */
		if (i % 64 == 0 && petal_spsc_peek(&pair->from))
			return false;
	}
	return true;
}

static void spsc_run(enum petal_spsc_kind kind)
{
	const struct petal_spsc_geometry geometry = {
		.slot_count = 64,
		.slot_bytes = 48,
		.kind = kind,
	};
	uint64_t bytes = petal_spsc_bytes(&geometry);
	void *memory = memory_of(bytes);
	struct spsc_pair pair;

	assert_ok(petal_spsc_format(memory, &geometry));
	assert_ok(petal_spsc_attach(memory, bytes, PETAL_SPSC_PRODUCER,
				    &pair.to));
	assert_ok(petal_spsc_attach(memory, bytes, PETAL_SPSC_CONSUMER,
				    &pair.from));
	assert_hot(spsc_loop, &pair);
	munmap(memory, bytes);
}

static void spsc__stamped_is_hot(void **state)
{
	(void)state;
	spsc_run(PETAL_SPSC_STAMPED);
}

static void spsc__indexed_is_hot(void **state)
{
	(void)state;
	spsc_run(PETAL_SPSC_INDEXED);
}

/* ---- pipe ---- */

struct pipe_pair {
	struct petal_pipe to, from;
};

static bool pipe_loop(void *subject, uint64_t count)
{
	struct pipe_pair *pair = subject;

	for (uint64_t i = 0; i < count; i++) {
		uint32_t length = 8 + (uint32_t)(i % 100);
		struct petal_pipe_view view = { 0 };
		void *out;

		if (petal_pipe_claim(&pair->to, length, &out) != 0)
			return false;
		memcpy(out, &i, sizeof(i));
		petal_pipe_publish(&pair->to, length, 1);
		if (petal_pipe_peek(&pair->from, petal_pipe_pos(&pair->from),
				    &view) != 0 ||
		    view.length != length)
			return false;
		petal_pipe_release(&pair->from, view.end);
	}
	return true;
}

static void pipe__is_hot(void **state)
{
	const struct petal_pipe_geometry geometry = { .data_bytes = 4096 };
	uint64_t bytes = petal_pipe_bytes(&geometry);
	void *memory = memory_of(bytes);
	struct pipe_pair pair;

	(void)state;
	assert_ok(petal_pipe_format(memory, &geometry));
	assert_ok(petal_pipe_attach(memory, bytes, PETAL_PIPE_PRODUCER,
				    &pair.to));
	assert_ok(petal_pipe_attach(memory, bytes, PETAL_PIPE_CONSUMER,
				    &pair.from));
	assert_hot(pipe_loop, &pair);
	munmap(memory, bytes);
}

/* ---- mpsc ---- */

struct mpsc_pair {
	struct petal_mpsc to, from;
	uint64_t pos;
};

static bool mpsc_loop(void *subject, uint64_t count)
{
	struct mpsc_pair *pair = subject;

	for (uint64_t i = 0; i < count; i++) {
		uint32_t length = (uint32_t)(i % 100);
		struct petal_mpsc_claim claim;
		struct petal_mpsc_view view;

		if (petal_mpsc_claim(&pair->to, length, &claim) != 0 ||
		    petal_mpsc_publish(&pair->to, &claim) != 0)
			return false;
		do {
			if (petal_mpsc_peek(&pair->from, pair->pos, &view) != 0)
				return false;
			pair->pos = view.end;
		} while (view.type == PETAL_RECORD_TYPE_PADDING);
		petal_mpsc_release(&pair->from, pair->pos);
	}
	return true;
}

static void mpsc__is_hot(void **state)
{
	const struct petal_mpsc_geometry geometry = {
		.data_bytes = 4096,
		.owners = 2,
	};
	uint64_t header_bytes = petal_mpsc_bytes(&geometry);
	uint8_t *header = memory_of(header_bytes);
	void *data = memory_of(geometry.data_bytes);
	struct mpsc_pair pair = { .pos = 0 };

	(void)state;
	assert_ok(petal_mpsc_format(header, &geometry));
	assert_ok(petal_mpsc_attach(header, header_bytes, data,
				    geometry.data_bytes, 1, &pair.to));
	assert_ok(petal_mpsc_attach(header, header_bytes, data,
				    geometry.data_bytes, 0, &pair.from));
	assert_hot(mpsc_loop, &pair);
	munmap(data, geometry.data_bytes);
	munmap(header, header_bytes);
}

/* ---- mpmc ---- */

static bool mpmc_loop(void *subject, uint64_t count)
{
	struct petal_mpmc *ring = subject;

	for (uint64_t i = 0; i < count; i++) {
		struct petal_mpmc_claim claim;
		struct petal_mpmc_view view;

		if (petal_mpmc_claim(ring, &claim) != 0 ||
		    petal_mpmc_publish(ring, &claim) != 0 ||
		    petal_mpmc_peek(ring, &view) != 0 ||
		    petal_mpmc_release(ring, &view) != 0)
			return false;
	}
	return true;
}

static void mpmc__is_hot(void **state)
{
	const struct petal_mpmc_geometry geometry = {
		.slot_count = 64,
		.slot_bytes = 48,
		.owners = 2,
	};
	uint64_t bytes = petal_mpmc_bytes(&geometry);
	void *memory = memory_of(bytes);
	struct petal_mpmc ring;

	(void)state;
	assert_ok(petal_mpmc_format(memory, &geometry));
	assert_ok(petal_mpmc_attach(memory, bytes, 1, &ring));
	assert_hot(mpmc_loop, &ring);
	munmap(memory, bytes);
}

/* ---- bcast ---- */

struct bcast_pair {
	struct petal_bcast to;
	struct petal_bcast_reader from;
};

static bool bcast_loop(void *subject, uint64_t count)
{
	struct bcast_pair *pair = subject;

	for (uint64_t i = 0; i < count; i++) {
		struct petal_bcast_view view;
		void *out;

		if (petal_bcast_claim(&pair->to, sizeof(i), 1, &out) != 0)
			return false;
		memcpy(out, &i, sizeof(i));
		petal_bcast_publish(&pair->to);
		if (petal_bcast_peek(&pair->from, &view) != 0 ||
		    memcmp(view.payload, &i, sizeof(i)) != 0)
			return false;
		petal_bcast_release(&pair->from, &view);
	}
	return true;
}

static void bcast__is_hot(void **state)
{
	const struct petal_bcast_geometry geometry = {
		.data_bytes = 8192,
		.readers = 2,
	};
	const struct petal_bcast_options options = {
		.policy = PETAL_BCAST_BLOCK,
		.owner = 1,
	};
	uint64_t bytes = petal_bcast_bytes(&geometry);
	void *memory = memory_of(bytes);
	struct bcast_pair pair;

	(void)state;
	assert_ok(petal_bcast_format(memory, &geometry));
	assert_ok(petal_bcast_attach(memory, bytes, &pair.to));
	assert_ok(petal_bcast_join(memory, bytes, &options, &pair.from));
	assert_hot(bcast_loop, &pair);
	munmap(memory, bytes);
}

/* ---- a buffer that changes hands ---- */

struct hands {
	struct petal_ledger left, right;
	struct petal_ref ref;
};

static bool ledger_loop(void *subject, uint64_t count)
{
	struct hands *hands = subject;

	for (uint64_t i = 0; i < count; i++)
		if (petal_ledger_forward(&hands->left, hands->ref, 2) != 0 ||
		    petal_ledger_accept(&hands->right, hands->ref) != 0 ||
		    petal_ledger_check(&hands->right, hands->ref, 4096) != 0 ||
		    petal_ledger_forward(&hands->right, hands->ref, 1) != 0 ||
		    petal_ledger_accept(&hands->left, hands->ref) != 0)
			return false;
	return true;
}

static void ledger__forward_and_accept_are_hot(void **state)
{
	const struct petal_ledger_geometry geometry = {
		.range_bytes = 1 << 20,
		.granule_bytes = 4096,
		.entries = 8,
	};
	uint64_t bytes = petal_ledger_bytes(&geometry);
	void *memory = memory_of(bytes);
	struct hands hands;

	(void)state;
	assert_ok(petal_ledger_format(memory, &geometry));
	assert_ok(petal_ledger_attach(memory, bytes, 0, &hands.left));
	assert_ok(petal_ledger_attach(memory, bytes, 1, &hands.right));
	assert_ok(petal_ledger_own(&hands.left));
	assert_ok(petal_ledger_lend(&hands.left, 0, 0, 4096, &hands.ref));
	assert_hot(ledger_loop, &hands);
	munmap(memory, bytes);
}

/* ---- a doorbell, and the watches themselves ---- */

static bool doorbell_loop(void *subject, uint64_t count)
{
	struct petal_doorbell *doorbell = subject;

	for (uint64_t i = 0; i < count; i++)
		petal_doorbell_ring(doorbell, PETAL_DOORBELL_ALL);
	return true;
}

static void doorbell__of_one_who_is_awake_is_hot(void **state)
{
	struct petal_doorbell doorbell = { { 0 }, { 0 } };

	(void)state;
	petal_barrier_enroll();
	assert_hot(doorbell_loop, &doorbell);
}

static bool calls_the_kernel(void *subject, uint64_t count)
{
	(void)subject;
	return syscall(SYS_getppid) > 0 && count > 0;
}

static bool allocates(void *subject, uint64_t count)
{
	void *volatile memory = malloc((size_t)count);

	(void)subject;
	free(memory);
	return true;
}

/* A test that cannot fail proves nothing. */
static void watches__see_a_call_and_an_allocation(void **state)
{
	bool (*const loops[])(void *, uint64_t) = { calls_the_kernel,
						    allocates };

	(void)state;
	if (!WATCHED)
		return;
	for (unsigned i = 0; i < 2; i++) {
		pid_t child = fork();
		int status;

		assert_true(child >= 0);
		if (child == 0) {
			if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
				child_exit(77);
			forbidden = true;
			child_exit(loops[i](NULL, 1) ? DONE : WRONG);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
			skip();
		if (i == 0)
			assert_true(WIFSIGNALED(status));
		else
			assert_int_equal(WEXITSTATUS(status), ALLOCATED);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(watches__see_a_call_and_an_allocation),
		cmocka_unit_test(spsc__stamped_is_hot),
		cmocka_unit_test(spsc__indexed_is_hot),
		cmocka_unit_test(pipe__is_hot),
		cmocka_unit_test(mpsc__is_hot),
		cmocka_unit_test(mpmc__is_hot),
		cmocka_unit_test(bcast__is_hot),
		cmocka_unit_test(ledger__forward_and_accept_are_hot),
		cmocka_unit_test(doorbell__of_one_who_is_awake_is_hot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
