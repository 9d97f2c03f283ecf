/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings/spsc.h promises, of both kinds of ring, and of the third one for
 * memory that is not coherent, with the processor's own instructions: every message once, whole
 * and in order, at every remainder and near the ends of the counters; a head
 * that comes late but comes; messages held while reading on; closing from
 * either side; a cursor apart, with the ring read-only to its consumer;
 * successors of dead sides; and a peer that lies.
 *
 * Harder: PETAL_TEST_MESSAGES=100000000 between two threads and between two
 * processes (default 1000000), PETAL_TEST_ROUNDS=5000 kills (default 100).
 */
#include "tests/check.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "rings/outcome.h"
#include "rings/spsc.h"
#include "shm/cache.h"

enum { SLOTS = 8, SLOT_BYTES = 24 };

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 10) : otherwise;
}

/* Of the group of tests that runs. */
static enum petal_spsc_kind kind;
static enum petal_segment_coherence coherence;

struct fixture {
	void *memory;
	uint64_t bytes;
	struct petal_spsc producer;
	struct petal_spsc consumer;
};

static struct petal_spsc attach(const struct fixture *f,
				enum petal_spsc_role role)
{
	struct petal_spsc ring;

	assert_ok(petal_spsc_attach(f->memory, f->bytes, role, &ring));
	return ring;
}

static void fixture_init(struct fixture *f, uint64_t slot_count,
			 uint32_t slot_bytes, uint64_t start_pos)
{
	const struct petal_spsc_geometry geometry = {
		.slot_count = slot_count,
		.slot_bytes = slot_bytes,
		.kind = kind,
		.coherence = coherence,
		.start_pos = start_pos,
	};

	f->bytes = petal_spsc_bytes(&geometry);
	assert_true(f->bytes > 0);
	f->memory = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(f->memory, MAP_FAILED);
	assert_ok(petal_spsc_format(f->memory, &geometry));
	f->producer = attach(f, PETAL_SPSC_PRODUCER);
	f->consumer = attach(f, PETAL_SPSC_CONSUMER);
}

static void fixture_fini(struct fixture *f)
{
	munmap(f->memory, f->bytes);
}

static int push(struct petal_spsc *ring, uint64_t value)
{
	uint64_t *words = petal_spsc_claim(ring);

	if (!words)
		return -EAGAIN;
	for (uint32_t i = 0; i < ring->slot_bytes / 8; i++)
		words[i] = value + i;
	petal_spsc_publish(ring);
	return 0;
}

static int pop(struct petal_spsc *ring, uint64_t *ret_value)
{
	const uint64_t *words = petal_spsc_peek(ring);

	if (!words)
		return -EAGAIN;
	for (uint32_t i = 1; i < ring->slot_bytes / 8; i++)
		if (words[i] != words[0] + i)
			return -PETAL_ECORRUPT;
	*ret_value = words[0];
	petal_spsc_release(ring);
	return 0;
}

static void assert_popped(struct petal_spsc *ring, uint64_t expected)
{
	uint64_t value = 0;

	assert_ok(pop(ring, &value));
	assert_int_equal(value, expected);
}

/* ---- one thread ---- */

static void claim__returns_the_same_slot_until_publish(void **state)
{
	struct fixture f;
	void *slot;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, 0);
	slot = petal_spsc_claim(&f.producer);
	assert_non_null(slot);
	assert_int_equal((uintptr_t)slot % 8, 0);
	assert_ptr_equal(petal_spsc_claim(&f.producer), slot);
	assert_null(petal_spsc_peek(&f.consumer));
	petal_spsc_publish(&f.producer);
	assert_ptr_not_equal(petal_spsc_claim(&f.producer), slot);
	assert_ptr_equal(petal_spsc_peek(&f.consumer), slot);
	fixture_fini(&f);
}

static void
claim__full_ring_returns_null_until_a_quarter_is_released(void **state)
{
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, 0);
	for (uint64_t i = 0; i < SLOTS; i++)
		assert_ok(push(&f.producer, i));
	assert_null(petal_spsc_claim(&f.producer));
	assert_int_equal(petal_spsc_backlog(&f.producer), SLOTS);

	assert_popped(&f.consumer, 0);
	assert_null(petal_spsc_claim(&f.producer));
	assert_popped(&f.consumer, 1);
	assert_ok(push(&f.producer, 8));
	assert_ok(push(&f.producer, 9));
	assert_null(petal_spsc_claim(&f.producer));
	fixture_fini(&f);
}

static void peek__empty_ring_gives_all_of_it_back(void **state)
{
	struct fixture f;
	uint64_t value;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, 0);
	assert_ok(push(&f.producer, 0));
	assert_popped(&f.consumer, 0);
	assert_int_equal(petal_spsc_backlog(&f.consumer), 1);
	assert_outcome(pop(&f.consumer, &value), -EAGAIN);
	assert_int_equal(petal_spsc_backlog(&f.consumer), 0);
	for (uint64_t i = 0; i < SLOTS; i++)
		assert_ok(push(&f.producer, i));
	fixture_fini(&f);
}

static void positions__pass_the_ends_of_32_and_63_bits(void **state)
{
	static const uint64_t starts[] = {
		0,
		(UINT64_C(1) << 32) - 21,
		(UINT64_C(1) << 63) - 21,
		UINT64_MAX - 60,
	};

	(void)state;
	for (unsigned s = 0; s < 4; s++) {
		for (unsigned ahead = 1; ahead <= SLOTS; ahead++) {
			uint64_t in = 0, out = 0;
			struct fixture f;

			fixture_init(&f, SLOTS, SLOT_BYTES, starts[s]);
			while (out < 40) {
				while (in - out < ahead &&
				       push(&f.producer, in) == 0)
					in++;
				assert_true(in > out);
				assert_popped(&f.consumer, out++);
			}
			fixture_fini(&f);
		}
	}
}

static void bulk__moves_as_many_as_there_are(void **state)
{
	struct fixture f;
	uint64_t next = 0, got = 0;

	(void)state;
	fixture_init(&f, SLOTS, 8, 5);
	for (uint64_t want = 1; want < 30; want++) {
		uint64_t room = petal_spsc_claim_n(&f.producer, want);
		uint64_t ready, *slot;

		assert_true(room <= want && room <= SLOTS);
		for (uint64_t i = 0; i < room; i++)
			*(uint64_t *)petal_spsc_slot(&f.producer, i) = next++;
		petal_spsc_publish_n(&f.producer, room);
		ready = petal_spsc_peek_n(&f.consumer, want / 2 + 1);
		slot = petal_spsc_slot(&f.consumer, 0);
		for (uint64_t i = 0; i < ready; i++) {
			assert_ptr_equal(slot, petal_spsc_slot(&f.consumer, i));
			assert_int_equal(*slot, got++);
			slot = petal_spsc_slot_after(&f.consumer, slot);
		}
		petal_spsc_release_n(&f.consumer, ready);
	}
	assert_true(next > 40);
	while (got < next)
		assert_popped(&f.consumer, got++);
	assert_int_equal(petal_spsc_peek_n(&f.consumer, 99), 0);
	fixture_fini(&f);
}

/* ---- shape ---- */

static uint64_t stride(uint32_t slot_bytes)
{
	struct petal_spsc_geometry geometry = { .slot_count = 64,
						.slot_bytes = slot_bytes,
						.kind = kind,
						.coherence = coherence };

	return (petal_spsc_bytes(&geometry) -
		sizeof(struct petal_spsc_shared)) /
	       64;
}

static void slot__takes_no_more_than_it_needs(void **state)
{
	uint32_t stamp = kind == PETAL_SPSC_STAMPED ? 8 : 0;

	(void)state;
	assert_int_equal(stride(8 - stamp / 2), stamp ? 16 : 8);
	assert_int_equal(stride(16 - stamp), 16);
	assert_int_equal(stride(17 - stamp), 32);
	assert_int_equal(stride(33 - stamp), 64);
	assert_int_equal(stride(64 - stamp), 64);
	assert_int_equal(stride(64), 64 + stamp);
	assert_int_equal(stride(65), 72 + stamp);
	assert_int_equal(stride(256 - stamp), 256);
	assert_int_equal(stride(257), 320);
}

/* ---- holding ---- */

static void peek_at__reads_past_what_is_held(void **state)
{
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, UINT64_MAX - 2);
	for (uint64_t i = 0; i < SLOTS; i++) {
		const uint64_t *words;

		assert_null(petal_spsc_peek_at(&f.consumer, i));
		assert_ok(push(&f.producer, i));
		words = petal_spsc_peek_at(&f.consumer, i);
		assert_non_null(words);
		assert_int_equal(*words, i);
	}
	assert_null(petal_spsc_peek_at(&f.consumer, SLOTS));
	assert_null(petal_spsc_peek_at(&f.consumer, UINT64_MAX));
	assert_null(petal_spsc_claim(&f.producer));
	assert_popped(&f.consumer, 0);
	petal_spsc_release_n(&f.consumer, SLOTS - 1);
	assert_non_null(petal_spsc_claim(&f.producer));
	fixture_fini(&f);
}

/* ---- closing ---- */

static void close__is_seen_by_the_consumer_after_the_last_message(void **state)
{
	struct petal_spsc successor;
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, 3);
	assert_outcome(petal_spsc_outcome(&f.consumer), PETAL_RING_EMPTY);
	assert_ok(push(&f.producer, 0));
	assert_outcome(petal_spsc_outcome(&f.producer), 0);
	petal_spsc_close(&f.producer);
	assert_null(petal_spsc_claim(&f.producer));
	assert_int_equal(petal_spsc_claim_n(&f.producer, 3), 0);
	assert_outcome(petal_spsc_outcome(&f.producer), -EPIPE);

	assert_outcome(petal_spsc_outcome(&f.consumer), PETAL_RING_FOUND);
	assert_popped(&f.consumer, 0);
	assert_null(petal_spsc_peek(&f.consumer));
	assert_outcome(petal_spsc_outcome(&f.consumer), PETAL_RING_CLOSED);

	successor = attach(&f, PETAL_SPSC_PRODUCER);
	assert_null(petal_spsc_claim(&successor));
	assert_outcome(petal_spsc_outcome(&successor), -EPIPE);
	fixture_fini(&f);
}

static void close__of_the_consumer_stops_the_producer(void **state)
{
	struct fixture f;
	uint64_t sent = 0;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, 0);
	assert_ok(push(&f.producer, 0));
	assert_popped(&f.consumer, 0);
	petal_spsc_close(&f.consumer);
	assert_outcome(petal_spsc_outcome(&f.producer), -EPIPE);
	assert_int_equal(petal_spsc_backlog(&f.producer), 0);
	while (sent < 99 && push(&f.producer, sent) == 0)
		sent++;
	assert_int_equal(sent, SLOTS);
	assert_true(attach(&f, PETAL_SPSC_CONSUMER).closed);
	fixture_fini(&f);
}

static void outcome__of_a_full_ring_is_eagain(void **state)
{
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, 0);
	for (uint64_t i = 0; i < SLOTS; i++)
		assert_ok(push(&f.producer, i));
	assert_outcome(petal_spsc_outcome(&f.producer), -EAGAIN);
	petal_spsc_release_n(&f.consumer, petal_spsc_peek_n(&f.consumer, 8));
	assert_outcome(petal_spsc_outcome(&f.producer), 0);
	fixture_fini(&f);
}

/* ---- a cursor apart ---- */

struct apart {
	void *ring;   /* the producer's mapping */
	void *reads;  /* the consumer's, read-only */
	void *cursor; /* the consumer's */
	void *looks;  /* the producer's, read-only */
	uint64_t bytes;
	struct petal_spsc producer;
	struct petal_spsc consumer;
};

static void map_twice(uint64_t bytes, void **ret_writable, void **ret_readable)
{
	int fd = memfd_create("spsc", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_ok(ftruncate(fd, (off_t)bytes));
	*ret_writable =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	*ret_readable = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(*ret_writable, MAP_FAILED);
	assert_ptr_not_equal(*ret_readable, MAP_FAILED);
	close(fd);
}

static int apart_attach(const struct apart *f, enum petal_spsc_role role,
			struct petal_spsc *ret_ring)
{
	if (role == PETAL_SPSC_PRODUCER)
		return petal_spsc_attach_apart(f->ring, f->bytes, f->looks,
					       PETAL_SPSC_CURSOR_BYTES, role,
					       ret_ring);
	return petal_spsc_attach_apart(f->reads, f->bytes, f->cursor,
				       PETAL_SPSC_CURSOR_BYTES, role, ret_ring);
}

static void apart_init(struct apart *f, uint64_t start_pos)
{
	const struct petal_spsc_geometry geometry = {
		.slot_count = SLOTS,
		.slot_bytes = SLOT_BYTES,
		.kind = kind,
		.coherence = coherence,
		.start_pos = start_pos,
	};

	f->bytes = petal_spsc_bytes(&geometry);
	map_twice(f->bytes, &f->ring, &f->reads);
	map_twice(PETAL_SPSC_CURSOR_BYTES, &f->cursor, &f->looks);
	assert_ok(petal_spsc_format(f->ring, &geometry));
	assert_ok(petal_spsc_format_cursor(f->cursor, start_pos));
	assert_ok(apart_attach(f, PETAL_SPSC_PRODUCER, &f->producer));
	assert_ok(apart_attach(f, PETAL_SPSC_CONSUMER, &f->consumer));
}

static void apart_fini(struct apart *f)
{
	munmap(f->ring, f->bytes);
	munmap(f->reads, f->bytes);
	munmap(f->cursor, PETAL_SPSC_CURSOR_BYTES);
	munmap(f->looks, PETAL_SPSC_CURSOR_BYTES);
}

/* A store where a side may only read would end this test. */
static void apart__neither_side_writes_what_is_the_others(void **state)
{
	uint64_t in = 0, out = 0;
	struct apart f;

	(void)state;
	apart_init(&f, (UINT64_C(1) << 32) - 21);
	while (out < 100) {
		while (push(&f.producer, in) == 0)
			in++;
		assert_int_equal(petal_spsc_outcome(&f.producer), -EAGAIN);
		for (unsigned i = 0; i < 3; i++)
			assert_popped(&f.consumer, out++);
		assert_true(petal_spsc_backlog(&f.consumer) <= SLOTS);
	}
	petal_spsc_close(&f.consumer);
	assert_int_equal(petal_spsc_outcome(&f.producer), -EPIPE);
	petal_spsc_close(&f.producer);
	apart_fini(&f);
}

static void apart__a_lying_cursor_moves_no_successor(void **state)
{
	static const uint64_t heads[] = { 0, 1, 4, 6, 100, UINT64_MAX - 3 };
	struct petal_spsc_cursor *cursor;
	struct petal_spsc successor;
	struct apart f;

	(void)state;
	apart_init(&f, 0);
	cursor = f.cursor;
	for (uint64_t i = 0; i < 5; i++)
		assert_ok(push(&f.producer, i));
	for (unsigned i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		petal_store(&cursor->reader.head, heads[i], PETAL_RELAXED);
		assert_ok(apart_attach(&f, PETAL_SPSC_PRODUCER, &successor));
		assert_int_equal(successor.pos, 5);
		assert_int_equal(petal_spsc_claim_n(&successor, 99),
				 heads[i] <= 5 ? 3 + heads[i] : 0);
	}
	apart_fini(&f);
}

static void apart__refuses_what_is_no_cursor(void **state)
{
	struct petal_spsc_cursor *cursor;
	struct petal_spsc ring;
	struct apart f;

	(void)state;
	apart_init(&f, 0);
	cursor = f.cursor;
	assert_outcome(petal_spsc_format_cursor((uint8_t *)f.cursor + 8, 0),
		       -EINVAL);
	assert_outcome(petal_spsc_attach_apart(f.reads, f.bytes, f.cursor,
					       PETAL_SPSC_CURSOR_BYTES - 1,
					       PETAL_SPSC_CONSUMER, &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_spsc_attach_apart(f.reads, 383, f.cursor,
					       PETAL_SPSC_CURSOR_BYTES,
					       PETAL_SPSC_CONSUMER, &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_spsc_attach_apart(f.reads, f.bytes, f.ring,
					       f.bytes, PETAL_SPSC_CONSUMER,
					       &ring),
		       -EINVAL);
	petal_store(&cursor->layout, 1, PETAL_RELAXED);
	assert_outcome(apart_attach(&f, PETAL_SPSC_CONSUMER, &ring),
		       -PETAL_EVERSION);
	apart_fini(&f);
}

/* ---- two sides at once ---- */

struct side {
	struct petal_spsc ring;
	uint64_t messages;
	uint64_t wrong;
};

static void *run_producer(void *argument)
{
	struct side *side = argument;

	for (uint64_t i = 0; i < side->messages;) {
		if (push(&side->ring, i) == 0)
			i++;
		else
			sched_yield();
	}
	return NULL;
}

static void *run_consumer(void *argument)
{
	struct side *side = argument;

	for (uint64_t i = 0; i < side->messages;) {
		uint64_t value;
		int err = pop(&side->ring, &value);

		if (err == -EAGAIN) {
			sched_yield();
			continue;
		}
		side->wrong += err != 0 || value != i;
		i++;
	}
	return NULL;
}

static void threads__each_message_arrives_once_whole_and_in_order(void **state)
{
	static const uint64_t counts[] = { 4, 64, 4096 };
	uint64_t messages = setting("PETAL_TEST_MESSAGES", 1000000) / 4;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct side producer, consumer;
		struct fixture f;
		pthread_t thread;

		fixture_init(&f, counts[i], 120, 0);
		producer = (struct side){ f.producer, messages, 0 };
		consumer = (struct side){ f.consumer, messages, 0 };
		assert_ok(
			pthread_create(&thread, NULL, run_producer, &producer));
		run_consumer(&consumer);
		pthread_join(thread, NULL);
		assert_int_equal(consumer.wrong, 0);
		fixture_fini(&f);
	}
}

static void
processes__each_message_arrives_once_whole_and_in_order(void **state)
{
	uint64_t messages = setting("PETAL_TEST_MESSAGES", 1000000);
	struct side producer, consumer;
	struct fixture f;
	int status;
	pid_t child;

	(void)state;
	fixture_init(&f, 1024, 56, (UINT64_C(1) << 32) - 1000);
	producer = (struct side){ f.producer, messages, 0 };
	consumer = (struct side){ f.consumer, messages, 0 };
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_producer(&producer);
		_exit(0);
	}
	run_consumer(&consumer);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(consumer.wrong, 0);
	fixture_fini(&f);
}

/* ---- death ---- */

static void child_produces(const struct fixture *f)
{
	struct petal_spsc ring = attach(f, PETAL_SPSC_PRODUCER);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* What it sends is the position: a successor goes on without a gap. */
	for (;;)
		if (push(&ring, ring.pos) != 0)
			sched_yield();
}

static void killed_producer__is_followed_without_a_gap(void **state)
{
	uint64_t rounds = setting("PETAL_TEST_ROUNDS", 100);
	uint64_t next = 0;
	struct fixture f;

	(void)state;
	fixture_init(&f, 64, 200, 0);
	for (uint64_t round = 0; round < rounds; round++) {
		uint64_t until = next + round * 37 % 500;
		pid_t child = fork();
		uint64_t value;
		int status, err;

		assert_true(child >= 0);
		if (child == 0)
			child_produces(&f);
		while (next < until) {
			err = pop(&f.consumer, &value);
			if (err == -EAGAIN) {
				sched_yield();
				continue;
			}
			assert_ok(err);
			assert_int_equal(value, next++);
		}
		assert_ok(kill(child, SIGKILL));
		assert_int_equal(waitpid(child, &status, 0), child);
		while ((err = pop(&f.consumer, &value)) == 0)
			assert_int_equal(value, next++);
		assert_outcome(err, -EAGAIN);
		assert_int_equal(attach(&f, PETAL_SPSC_PRODUCER).pos, next);
	}
	fixture_fini(&f);
}

/* Stamps come before tail, so a producer may die between the two. */
static void producer__dead_before_its_tail_store_is_followed(void **state)
{
	struct petal_spsc successor;
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, 0);
	assert_ok(push(&f.producer, 0));
	assert_ok(push(&f.producer, 1));
	petal_store(&f.producer.shared->tail, 1, PETAL_RELAXED);
	assert_int_equal(petal_spsc_backlog(&f.consumer), 1);
	successor = attach(&f, PETAL_SPSC_PRODUCER);
	assert_ok(push(&successor, 2));
	for (uint64_t i = 0; i < 3; i++)
		assert_popped(&f.consumer, i);
	fixture_fini(&f);
}

/* Each dies between its stamp and tail, for longer than the ring is. */
static void producers__that_all_die_before_tail_leave_no_gap(void **state)
{
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, 0);
	for (uint64_t i = 0; i < 3 * SLOTS; i++) {
		struct petal_spsc mortal = attach(&f, PETAL_SPSC_PRODUCER);
		uint64_t tail = petal_load(&mortal.shared->tail, PETAL_RELAXED);

		assert_int_equal(mortal.pos, i);
		assert_ok(push(&mortal, i));
		petal_store(&mortal.shared->tail, tail, PETAL_RELAXED);
		assert_popped(&f.consumer, i);
	}
	fixture_fini(&f);
}

static void consumer__successor_sees_again_less_than_a_quarter(void **state)
{
	struct petal_spsc successor;
	struct fixture f;

	(void)state;
	fixture_init(&f, 16, SLOT_BYTES, 0);
	for (uint64_t i = 0; i < 16; i++)
		assert_ok(push(&f.producer, i));
	for (uint64_t i = 0; i < 7; i++)
		assert_popped(&f.consumer, i);
	successor = attach(&f, PETAL_SPSC_CONSUMER);
	for (uint64_t i = 4; i < 16; i++)
		assert_popped(&successor, i);
	fixture_fini(&f);
}

/* ---- a peer that lies ---- */

static void claim__is_bounded_by_a_hostile_head(void **state)
{
	static const uint64_t heads[] = { 5, 9, 100, UINT64_C(1) << 63,
					  UINT64_MAX };

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		struct fixture f;

		fixture_init(&f, SLOTS, SLOT_BYTES, 0);
		for (uint64_t n = 0; n < SLOTS; n++)
			assert_ok(push(&f.producer, n));
		petal_store(&f.producer.reader->head, heads[i], PETAL_RELAXED);
		/* Only 5 is a head that can be; the others change nothing. */
		assert_int_equal(petal_spsc_claim_n(&f.producer, 99),
				 heads[i] == 5 ? 5 : 0);
		assert_true(petal_spsc_backlog(&f.producer) <= SLOTS);
		fixture_fini(&f);
	}
}

static void peek__is_bounded_by_hostile_stamps(void **state)
{
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, 0);
	for (uint64_t pos = 0; pos < SLOTS; pos++)
		petal_store(petal_spsc_stamp(&f.consumer, pos), pos + 1,
			    PETAL_RELAXED);
	assert_int_equal(petal_spsc_peek_n(&f.consumer, UINT64_MAX), SLOTS);
	assert_int_equal(attach(&f, PETAL_SPSC_PRODUCER).pos, SLOTS);
	fixture_fini(&f);
}

static void peek__is_bounded_by_a_hostile_tail(void **state)
{
	static const uint64_t tails[] = {
		1, 8, 9, 100, UINT64_C(1) << 63, UINT64_MAX
	};

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		struct fixture f;

		fixture_init(&f, SLOTS, SLOT_BYTES, 0);
		petal_store(&f.producer.shared->tail, tails[i], PETAL_RELAXED);
		/* Only 1 and 8 can be; the others show nothing. */
		assert_int_equal(petal_spsc_peek_n(&f.consumer, UINT64_MAX),
				 tails[i] <= 8 ? tails[i] : 0);
		assert_null(petal_spsc_peek_at(&f.consumer, SLOTS));
		fixture_fini(&f);
	}
}

/* Of what a dead producer published at once, a prefix may be there. */
static void peek_n__finds_any_prefix(void **state)
{
	(void)state;
	for (uint64_t prefix = 0; prefix <= SLOTS; prefix++) {
		for (uint64_t want = 1; want <= SLOTS + 1; want++) {
			struct fixture f;

			fixture_init(&f, SLOTS, SLOT_BYTES, 6);
			for (uint64_t pos = 6; pos < 6 + prefix; pos++)
				petal_store(petal_spsc_stamp(&f.producer, pos),
					    pos + 1, PETAL_RELAXED);
			assert_int_equal(petal_spsc_peek_n(&f.consumer, want),
					 want < prefix ? want : prefix);
			assert_int_equal(attach(&f, PETAL_SPSC_PRODUCER).pos,
					 6 + prefix);
			fixture_fini(&f);
		}
	}
}

static void attach__refuses_a_shape_that_does_not_fit(void **state)
{
	static const struct {
		uint64_t slot_count;
		uint32_t slot_bytes;
	} lies[] = {
		{ 0, 24 },          { 2, 24 },
		{ 9, 24 },          { 16, 24 },
		{ UINT64_MAX, 24 }, { 1ull << 63, 24 },
		{ 8, 0 },           { 8, 57 },
		{ 8, UINT32_MAX },  { 1ull << 58, 1u << 30 },
	};
	struct petal_spsc_shared *shared;
	struct petal_spsc ring;
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, 0);
	shared = f.producer.shared;
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		petal_store(&shared->slot_count, lies[i].slot_count,
			    PETAL_RELAXED);
		petal_store(&shared->slot_bytes, lies[i].slot_bytes,
			    PETAL_RELAXED);
		assert_outcome(petal_spsc_attach(f.memory, f.bytes,
						 PETAL_SPSC_CONSUMER, &ring),
			       -PETAL_EGEOMETRY);
	}
	petal_store(&shared->slot_count, SLOTS, PETAL_RELAXED);
	petal_store(&shared->slot_bytes, SLOT_BYTES, PETAL_RELAXED);
	petal_store(&shared->kind, 2, PETAL_RELAXED);
	assert_outcome(petal_spsc_attach(f.memory, f.bytes, PETAL_SPSC_CONSUMER,
					 &ring),
		       -PETAL_EGEOMETRY);
	petal_store(&shared->kind, kind, PETAL_RELAXED);
	assert_outcome(petal_spsc_attach(f.memory, f.bytes - 1,
					 PETAL_SPSC_CONSUMER, &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_spsc_attach(f.memory, 100, PETAL_SPSC_CONSUMER,
					 &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_spsc_attach((uint8_t *)f.memory + 8, f.bytes - 8,
					 PETAL_SPSC_CONSUMER, &ring),
		       -EINVAL);
	petal_store(&shared->layout, PETAL_SPSC_LAYOUT + 1, PETAL_RELAXED);
	assert_outcome(petal_spsc_attach(f.memory, f.bytes, PETAL_SPSC_CONSUMER,
					 &ring),
		       -PETAL_EVERSION);
	petal_store(&f.producer.shared->magic, 0, PETAL_RELAXED);
	assert_outcome(petal_spsc_attach(f.memory, f.bytes, PETAL_SPSC_CONSUMER,
					 &ring),
		       -EINVAL);
	fixture_fini(&f);
}

static void format__refuses_a_shape_out_of_range(void **state)
{
	static const struct petal_spsc_geometry shapes[] = {
		{ .slot_count = 2, .slot_bytes = 8 },
		{ .slot_count = 12, .slot_bytes = 8 },
		{ .slot_count = 8, .slot_bytes = 0 },
		{ .slot_count = 8, .slot_bytes = (1u << 30) + 1 },
		{ .slot_count = 1ull << 40, .slot_bytes = 8 },
		{ .slot_count = 8,
		  .slot_bytes = 8,
		  .kind = (enum petal_spsc_kind)2 },
	};
	static _Alignas(64) uint8_t memory[4096];

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		assert_outcome(petal_spsc_format(memory, &shapes[i]), -EINVAL);
		assert_int_equal(petal_spsc_bytes(&shapes[i]), 0);
	}
}

static void format__makes_an_empty_ring_of_any_old_bytes(void **state)
{
	struct petal_spsc_geometry geometry = { .slot_count = SLOTS,
						.slot_bytes = SLOT_BYTES,
						.kind = kind,
						.coherence = coherence };
	struct fixture f;
	uint64_t value;

	(void)state;
	fixture_init(&f, SLOTS, SLOT_BYTES, 0);
	for (uint64_t i = 0; i < SLOTS; i++)
		assert_ok(push(&f.producer, i));
	assert_ok(petal_spsc_format(f.memory, &geometry));
	f.producer = attach(&f, PETAL_SPSC_PRODUCER);
	f.consumer = attach(&f, PETAL_SPSC_CONSUMER);
	assert_outcome(pop(&f.consumer, &value), -EAGAIN);
	assert_ok(push(&f.producer, 77));
	assert_popped(&f.consumer, 77);
	fixture_fini(&f);
}

int main(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test(claim__returns_the_same_slot_until_publish),
		cmocka_unit_test(
			claim__full_ring_returns_null_until_a_quarter_is_released),
		cmocka_unit_test(positions__pass_the_ends_of_32_and_63_bits),
		cmocka_unit_test(bulk__moves_as_many_as_there_are),
		cmocka_unit_test(peek_at__reads_past_what_is_held),
		cmocka_unit_test(
			close__is_seen_by_the_consumer_after_the_last_message),
		cmocka_unit_test(close__of_the_consumer_stops_the_producer),
		cmocka_unit_test(outcome__of_a_full_ring_is_eagain),
		cmocka_unit_test(apart__neither_side_writes_what_is_the_others),
		cmocka_unit_test(apart__a_lying_cursor_moves_no_successor),
		cmocka_unit_test(apart__refuses_what_is_no_cursor),
		cmocka_unit_test(
			threads__each_message_arrives_once_whole_and_in_order),
		cmocka_unit_test(
			processes__each_message_arrives_once_whole_and_in_order),
		cmocka_unit_test(killed_producer__is_followed_without_a_gap),
		cmocka_unit_test(
			consumer__successor_sees_again_less_than_a_quarter),
		cmocka_unit_test(claim__is_bounded_by_a_hostile_head),
		cmocka_unit_test(attach__refuses_a_shape_that_does_not_fit),
		cmocka_unit_test(format__refuses_a_shape_out_of_range),
		cmocka_unit_test(format__makes_an_empty_ring_of_any_old_bytes),
	};
	/* A far ring shows tail late, and its slots are whole lines. */
	const struct CMUnitTest coherent[] = {
		cmocka_unit_test(slot__takes_no_more_than_it_needs),
		cmocka_unit_test(peek__empty_ring_gives_all_of_it_back),
	};
	const struct CMUnitTest stamped[] = {
		cmocka_unit_test(
			producer__dead_before_its_tail_store_is_followed),
		cmocka_unit_test(
			producers__that_all_die_before_tail_leave_no_gap),
		cmocka_unit_test(peek__is_bounded_by_hostile_stamps),
		cmocka_unit_test(peek_n__finds_any_prefix),
	};
	const struct CMUnitTest indexed[] = {
		cmocka_unit_test(peek__is_bounded_by_a_hostile_tail),
	};
	int failed;

	kind = PETAL_SPSC_STAMPED;
	failed = cmocka_run_group_tests_name("stamped", all, NULL, NULL);
	failed += cmocka_run_group_tests(coherent, NULL, NULL);
	failed += cmocka_run_group_tests(stamped, NULL, NULL);
	kind = PETAL_SPSC_INDEXED;
	failed += cmocka_run_group_tests_name("indexed", all, NULL, NULL);
	failed += cmocka_run_group_tests(coherent, NULL, NULL);
	failed += cmocka_run_group_tests(indexed, NULL, NULL);
	if (petal_cache_check() == 0) {
		kind = PETAL_SPSC_STAMPED;
		coherence = PETAL_SEGMENT_NONCOHERENT;
		failed += cmocka_run_group_tests_name("far", all, NULL, NULL);
	}
	return failed;
}
