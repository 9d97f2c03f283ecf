/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings/bcast.h promises: every record whole, once and in order to every
 * reader that keeps up, at every remainder and near the ends of the counters;
 * each policy for those that do not; joins and leaves at any time; deaths,
 * stops and lies.
 *
 * Harder: PETAL_TEST_HARDER=100 makes the runs between processes, and the
 * kills, a hundred times as long.
 */
#include "tests/check.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "rings/bcast.h"
#include "rings/bcast_private.h"
#include "shm/cache.h"

enum { DATA = 4096, CHUNK = DATA / 8, TYPE = 7 };

struct fixture {
	struct petal_bcast_geometry geometry;
	void *memory;
	uint64_t bytes;
	struct petal_bcast ring;
	uint64_t next; /* what is published next */
};

static void *shared_memory(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

static void fixture_init(struct fixture *f, uint64_t data_bytes,
			 uint64_t start_pos)
{
	memset(f, 0, sizeof(*f));
	f->geometry = (struct petal_bcast_geometry){
		.data_bytes = data_bytes,
		.spill_bytes = data_bytes,
		.readers = 8,
		.spills = 2,
		.start_pos = start_pos,
	};
	f->bytes = petal_bcast_bytes(&f->geometry);
	assert_true(f->bytes > 0);
	f->memory = shared_memory(f->bytes);
	assert_ok(petal_bcast_format(f->memory, &f->geometry));
	assert_ok(petal_bcast_attach(f->memory, f->bytes, &f->ring));
}

static void fixture_fini(struct fixture *f)
{
	munmap(f->memory, f->bytes);
}

static struct petal_bcast_reader join_from(struct fixture *f,
					   enum petal_bcast_policy policy,
					   enum petal_bcast_from from)
{
	const struct petal_bcast_options options = { .policy = policy,
						     .from = from };
	struct petal_bcast_reader reader;

	assert_ok(petal_bcast_join(f->memory, f->bytes, &options, &reader));
	return reader;
}

static struct petal_bcast_reader join(struct fixture *f,
				      enum petal_bcast_policy policy)
{
	return join_from(f, policy, PETAL_BCAST_FROM_NOW);
}

/* A record of a length that its number tells, all bytes from its number. */
static uint32_t length_of(uint64_t number, uint32_t most)
{
	return (uint32_t)(number * 13 % (most - 8 + 1)) + 8;
}

static void fill(void *payload, uint64_t number, uint32_t length)
{
	uint8_t *bytes = payload;

	memcpy(bytes, &number, 8);
	for (uint32_t i = 8; i < length; i++)
		bytes[i] = (uint8_t)(number + i);
}

static bool is_right(const struct petal_bcast_view *view, uint64_t number)
{
	const uint8_t *bytes = view->payload;

	if (view->length < 8 || view->type != TYPE ||
	    memcmp(bytes, &number, 8) != 0)
		return false;
	for (uint32_t i = 8; i < view->length; i++)
		if (bytes[i] != (uint8_t)(number + i))
			return false;
	return true;
}

static int claim_one(struct petal_bcast *ring, uint64_t number, uint32_t length)
{
	void *payload;
	int err = petal_bcast_claim(ring, length, TYPE, &payload);

	if (!err)
		fill(payload, number, length);
	return err;
}

static int push(struct fixture *f, uint32_t length)
{
	int err = claim_one(&f->ring, f->next, length);

	if (err)
		return err;
	petal_bcast_publish(&f->ring);
	f->next++;
	return 0;
}

static void push_many(struct fixture *f, unsigned count, uint32_t length)
{
	for (unsigned i = 0; i < count; i++)
		assert_ok(push(f, length));
}

static void expect(struct petal_bcast_reader *reader, uint64_t number)
{
	struct petal_bcast_view view;

	assert_outcome(petal_bcast_peek(reader, &view), 0);
	assert_true(is_right(&view, number));
	assert_true(petal_bcast_check(reader, &view));
	petal_bcast_release(reader, &view);
}

static void expect_outcome(struct petal_bcast_reader *reader, int outcome)
{
	struct petal_bcast_view view;

	assert_outcome(petal_bcast_peek(reader, &view), outcome);
}

/* Until a claim is refused. Return: how many were published. */
static unsigned push_until_full(struct fixture *f, uint32_t length)
{
	unsigned count = 0;
	int err;

	while ((err = push(f, length)) == 0) {
		count++;
		assert_true(count < 10000);
	}
	assert_outcome(err, -EAGAIN);
	return count;
}

static void format__shapes_out_of_range_are_refused(void **state)
{
	const struct petal_bcast_geometry bad[] = {
		{ .data_bytes = 0, .readers = 1 },
		{ .data_bytes = 2048, .readers = 1 },
		{ .data_bytes = 5000, .readers = 1 },
		{ .data_bytes = UINT64_C(1) << 41, .readers = 1 },
		{ .data_bytes = 4096, .readers = 0 },
		{ .data_bytes = 4096, .readers = 65 },
		{ .data_bytes = 4096, .readers = 1, .start_pos = 8 },
		{ .data_bytes = 4096, .readers = 1, .spill_bytes = 4096 },
		{ .data_bytes = 4096, .readers = 1, .spills = 1 },
		{ .data_bytes = 4096,
		  .readers = 1,
		  .spills = 2,
		  .spill_bytes = 4096 },
		{ .data_bytes = 4096,
		  .readers = 2,
		  .spills = 2,
		  .spill_bytes = 8192 },
		{ .data_bytes = 4096, .readers = 1, .start_pos = UINT64_MAX },
	};
	_Alignas(64) uint8_t memory[8192];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(petal_bcast_bytes(&bad[i]), 0);
		assert_outcome(petal_bcast_format(memory, &bad[i]), -EINVAL);
	}
}

static void attach__what_is_no_ring_is_named(void **state)
{
	struct petal_bcast_shared *shared;
	struct petal_bcast ring;
	struct fixture f;

	(void)state;
	fixture_init(&f, DATA, 0);
	shared = f.memory;
	assert_outcome(petal_bcast_attach(f.memory, 100, &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_bcast_attach(f.memory, f.bytes - 1, &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_bcast_attach((uint8_t *)f.memory + 8, 4096, &ring),
		       -EINVAL);
	shared->data_bytes.bits = UINT64_MAX;
	assert_outcome(petal_bcast_attach(f.memory, f.bytes, &ring),
		       -PETAL_EGEOMETRY);
	shared->data_bytes.bits = DATA;
	shared->limit.bits += 16;
	assert_outcome(petal_bcast_attach(f.memory, f.bytes, &ring),
		       -PETAL_ECORRUPT);
	shared->limit.bits -= 16;
	shared->layout.bits++;
	assert_outcome(petal_bcast_attach(f.memory, f.bytes, &ring),
		       -PETAL_EVERSION);
	shared->magic.bits++;
	assert_outcome(petal_bcast_attach(f.memory, f.bytes, &ring), -EINVAL);
	fixture_fini(&f);
}

static void claim__what_does_not_fit_is_refused(void **state)
{
	struct fixture f;
	void *payload;

	(void)state;
	fixture_init(&f, DATA, 0);
	assert_int_equal(f.ring.length_max, DATA / 4 - 16);
	assert_outcome(petal_bcast_claim(&f.ring, DATA / 4, TYPE, &payload),
		       -EMSGSIZE);
	assert_outcome(petal_bcast_claim(&f.ring, UINT32_MAX, TYPE, &payload),
		       -EMSGSIZE);
	assert_outcome(petal_bcast_claim(&f.ring, 8, PETAL_RECORD_TYPE_OURS,
					 &payload),
		       -EINVAL);
	assert_ok(petal_bcast_claim(&f.ring, DATA / 4 - 16, TYPE, &payload));
	assert_int_equal((uintptr_t)payload % 16, 0);
	fixture_fini(&f);
}

/* All readers see all records, wherever the ring began. */
static void run_from(uint64_t start_pos, uint32_t most)
{
	struct petal_bcast_reader readers[3];
	struct fixture f;
	uint64_t read[3] = { 0, 0, 0 };

	fixture_init(&f, DATA, start_pos);
	readers[0] = join(&f, PETAL_BCAST_BLOCK);
	readers[1] = join(&f, PETAL_BCAST_BLOCK);
	readers[2] = join(&f, PETAL_BCAST_DROP_OLDEST);
	while (f.next < 120) {
		uint64_t before = f.next;

		while (f.next - before < 5 &&
		       push(&f, length_of(f.next, most)) == 0)
			;
		assert_true(f.next > before);
		for (int i = 0; i < 3; i++)
			while (read[i] < f.next)
				expect(&readers[i], read[i]++);
		for (int i = 0; i < 3; i++)
			expect_outcome(&readers[i], PETAL_RING_EMPTY);
	}
	fixture_fini(&f);
}

static void records__come_whole_at_every_remainder(void **state)
{
	(void)state;
	for (uint64_t start = 0; start < DATA; start += 16) {
		run_from(start, 40);
		run_from(start, DATA / 4 - 16);
	}
}

static void records__come_whole_near_the_ends_of_the_counters(void **state)
{
	const uint64_t near[] = { UINT64_C(1) << 32, UINT64_C(1) << 52,
				  UINT64_C(1) << 63 };

	(void)state;
	for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++)
		for (uint64_t back = 0; back <= 2 * DATA; back += 400)
			run_from(near[i] - back, 300);
}

static void block__publisher_waits_for_the_slowest(void **state)
{
	struct petal_bcast_reader fast, slow;
	struct petal_bcast_counts counts;
	struct fixture f;
	unsigned count;

	(void)state;
	fixture_init(&f, DATA, 0);
	fast = join(&f, PETAL_BCAST_BLOCK);
	slow = join(&f, PETAL_BCAST_BLOCK);
	count = push_until_full(&f, 64);
	/* At least three quarters of the ring may be in flight. */
	assert_true(count * 80 >= DATA * 3 / 4);
	for (unsigned i = 0; i < count; i++)
		expect(&fast, i);
	expect_outcome(&fast, PETAL_RING_EMPTY);
	assert_outcome(push(&f, 64), -EAGAIN);
	assert_int_equal(petal_bcast_lag(&f.ring), count * 80);
	assert_int_equal(petal_bcast_backlog(&slow), count * 80);
	for (unsigned i = 0; i < count; i++)
		expect(&slow, i);
	expect_outcome(&slow, PETAL_RING_EMPTY);
	assert_int_equal(petal_bcast_lag(&f.ring), 0);
	assert_ok(push(&f, 64));
	assert_ok(petal_bcast_counts(f.memory, f.bytes, &counts));
	assert_int_equal(counts.refused, 2);
	fixture_fini(&f);
}

static void drop__reader_knows_how_many_it_lost(void **state)
{
	struct petal_bcast_standing standing;
	struct petal_bcast_reader slow;
	struct fixture f;
	uint64_t next = 0;

	(void)state;
	fixture_init(&f, DATA, UINT64_C(1) << 32);
	slow = join(&f, PETAL_BCAST_DROP_OLDEST);
	for (unsigned round = 1; round < 40; round++) {
		struct petal_bcast_view view;
		uint64_t lost = petal_bcast_lost(&slow);
		int outcome;

		for (unsigned i = 0; i < round * 7; i++)
			assert_ok(push(&f, length_of(f.next, 400)));
		outcome = petal_bcast_peek(&slow, &view);
		while (outcome == -EAGAIN)
			outcome = petal_bcast_peek(&slow, &view);
		if (outcome == PETAL_RING_LAPPED) {
			assert_true(petal_bcast_lost(&slow) > lost);
			next += petal_bcast_lost(&slow) - lost;
		}
		/* What is retained is at least five eighths of the ring. */
		assert_true(petal_bcast_backlog(&slow) >= DATA / 2 ||
			    outcome == 0);
		while (next < f.next)
			expect(&slow, next++);
		expect_outcome(&slow, PETAL_RING_EMPTY);
	}
	assert_true(petal_bcast_lost(&slow) > 0);
	assert_ok(
		petal_bcast_standing(f.memory, f.bytes, slow.seat, &standing));
	assert_int_equal(standing.lost, petal_bcast_lost(&slow));
	assert_int_equal(standing.backlog_bytes, 0);
	fixture_fini(&f);
}

static void drop__check_says_that_bytes_were_overwritten(void **state)
{
	struct petal_bcast_reader slow;
	struct petal_bcast_view view;
	struct fixture f;

	(void)state;
	fixture_init(&f, DATA, 0);
	slow = join(&f, PETAL_BCAST_DROP_OLDEST);
	push_many(&f, 1, 64);
	assert_ok(petal_bcast_peek(&slow, &view));
	while (petal_bcast_check(&slow, &view)) {
		assert_true(is_right(&view, 0));
		assert_ok(push(&f, 64));
		assert_true(f.next < 1000);
	}
	expect_outcome(&slow, PETAL_RING_LAPPED);
	fixture_fini(&f);
}

static void drop__old_payload_that_looks_like_a_header_is_none(void **state)
{
	struct petal_bcast_reader reader;
	struct petal_bcast_view view;
	struct fixture f;

	(void)state;
	fixture_init(&f, DATA, 0);
	reader = join(&f, PETAL_BCAST_DROP_OLDEST);
	/* Each 16 bytes of the ring say: published, with a number to come. */
	for (unsigned i = 0; i < 100; i++) {
		uint64_t *words;
		void *payload;

		assert_ok(petal_bcast_claim(&f.ring, 240, TYPE, &payload));
		words = payload;
		for (unsigned k = 0; k < 30; k += 2) {
			words[k] = petal_bcast_commit(PETAL_RECORD_PUBLISHED,
						      f.next + 1 + i % 40);
			words[k + 1] = 8;
		}
		petal_bcast_publish(&f.ring);
		f.next++;
		assert_ok(petal_bcast_peek(&reader, &view));
		assert_int_equal(view.length, 240);
		petal_bcast_release(&reader, &view);
		expect_outcome(&reader, PETAL_RING_EMPTY);
	}
	fixture_fini(&f);
}

static void evict__a_laggard_loses_its_seat_and_may_join_again(void **state)
{
	const struct petal_bcast_options options = {
		.policy = PETAL_BCAST_EVICT,
		.bound_bytes = DATA / 4,
	};
	struct petal_bcast_reader slow, fast;
	struct petal_bcast_counts counts;
	struct fixture f;
	uint64_t n = 0;

	(void)state;
	fixture_init(&f, DATA, 0);
	assert_ok(petal_bcast_join(f.memory, f.bytes, &options, &slow));
	fast = join(&f, PETAL_BCAST_EVICT);
	while (petal_bcast_is_ours(&slow)) {
		assert_ok(push(&f, 64));
		expect(&fast, n++);
		assert_true(n < 1000);
	}
	/* Not before its bound, and not much after. */
	assert_true(f.ring.tail > DATA / 4 - CHUNK);
	assert_true(f.ring.tail <= DATA / 4 + 8 * CHUNK);
	expect_outcome(&slow, -ESTALE);
	expect_outcome(&slow, -ESTALE);
	assert_ok(petal_bcast_counts(f.memory, f.bytes, &counts));
	assert_int_equal(counts.evicted, 1);
	assert_ok(petal_bcast_join(f.memory, f.bytes, &options, &slow));
	assert_ok(push(&f, 64));
	expect(&slow, f.next - 1);
	fixture_fini(&f);
}

static void evict__late_stores_do_not_hurt_who_sits_there_now(void **state)
{
	struct petal_bcast_reader old, others[7], young;
	struct petal_bcast_view view;
	struct fixture f;
	unsigned count;

	(void)state;
	fixture_init(&f, DATA, 0);
	old = join(&f, PETAL_BCAST_BLOCK);
	for (int i = 0; i < 7; i++)
		others[i] = join(&f, PETAL_BCAST_DROP_OLDEST);
	(void)others;
	push_many(&f, 20, 64);
	for (unsigned i = 0; i < 10; i++)
		expect(&old, i);
	assert_ok(petal_bcast_evict(&f.ring, old.seat, old.word));
	assert_outcome(petal_bcast_evict(&f.ring, old.seat, old.word), -ESTALE);
	young = join(&f, PETAL_BCAST_BLOCK);
	assert_int_equal(young.seat, old.seat);
	count = push_until_full(&f, 64);

	/* The old one awakes in the middle of a release, and of a leave. */
	assert_ok(petal_bcast_resolve(
		&old, &(struct petal_bcast_ref){ young.pos, 20 }, &view));
	petal_bcast_release(&old, &view);
	petal_bcast_store(&old);
	petal_bcast_leave(&old);
	assert_outcome(push(&f, 64), -EAGAIN);
	assert_true(petal_bcast_is_ours(&young));
	for (unsigned i = 0; i < count; i++)
		expect(&young, 20 + i);
	expect_outcome(&young, PETAL_RING_EMPTY);
	assert_ok(push(&f, 64));
	fixture_fini(&f);
}

static void spill__records_come_in_order_from_area_and_ring(void **state)
{
	struct petal_bcast_reader slow;
	struct petal_bcast_counts counts;
	struct fixture f;
	uint64_t read = 0;

	(void)state;
	for (uint64_t start = 0; start < DATA; start += 112) {
		uint64_t seed = start;

		fixture_init(&f, DATA, start);
		slow = join(&f, PETAL_BCAST_SPILL);
		read = 0;
		for (unsigned round = 0; round < 200; round++) {
			unsigned steps = petal_test_random(&seed) % 20;

			while (steps--)
				if (push(&f, length_of(f.next, 200)))
					break;
			steps = petal_test_random(&seed) % 20;
			while (steps-- && read < f.next)
				expect(&slow, read++);
		}
		while (read < f.next)
			expect(&slow, read++);
		expect_outcome(&slow, PETAL_RING_EMPTY);
		assert_int_equal(petal_bcast_lost(&slow), 0);
		assert_ok(petal_bcast_counts(f.memory, f.bytes, &counts));
		assert_true(counts.spilled > 0);
		fixture_fini(&f);
	}
}

static void spill__a_full_area_follows_the_second_policy(void **state)
{
	struct petal_bcast_options options = { .policy = PETAL_BCAST_SPILL };
	struct petal_bcast_reader slow;
	struct petal_bcast_view view;
	struct fixture f;
	unsigned count;
	uint64_t read = 0;

	(void)state;
	fixture_init(&f, DATA, 0);
	options.full = PETAL_BCAST_BLOCK;
	assert_ok(petal_bcast_join(f.memory, f.bytes, &options, &slow));
	count = push_until_full(&f, 64);
	/* More than the ring holds, and less than ring and area together. */
	assert_true(count * 80 > DATA && count * 80 < 2 * DATA);
	for (unsigned i = 0; i < count; i++)
		expect(&slow, i);
	expect_outcome(&slow, PETAL_RING_EMPTY);
	assert_int_equal(petal_bcast_lost(&slow), 0);
	petal_bcast_leave(&slow);

	options.full = PETAL_BCAST_DROP_OLDEST;
	read = f.next;
	assert_ok(petal_bcast_join(f.memory, f.bytes, &options, &slow));
	push_many(&f, 500, 64);
	for (unsigned found = 0; read < f.next; read++, found++) {
		uint64_t lost = petal_bcast_lost(&slow);
		int outcome = petal_bcast_peek(&slow, &view);

		while (outcome == PETAL_RING_LAPPED || outcome == -EAGAIN) {
			read += petal_bcast_lost(&slow) - lost;
			lost = petal_bcast_lost(&slow);
			outcome = petal_bcast_peek(&slow, &view);
		}
		assert_outcome(outcome, 0);
		assert_true(is_right(&view, read));
		petal_bcast_release(&slow, &view);
	}
	assert_true(petal_bcast_lost(&slow) > 300);
	petal_bcast_leave(&slow);

	options.full = PETAL_BCAST_EVICT;
	assert_ok(petal_bcast_join(f.memory, f.bytes, &options, &slow));
	push_many(&f, 500, 64);
	expect_outcome(&slow, -ESTALE);
	fixture_fini(&f);
}

static void batch__is_visible_at_once_or_not_at_all(void **state)
{
	struct petal_bcast_reader reader;
	struct petal_bcast_view views[40];
	struct petal_bcast successor;
	struct fixture f;
	uint64_t read = 0;
	int outcome;

	(void)state;
	fixture_init(&f, DATA, 16);
	reader = join(&f, PETAL_BCAST_BLOCK);
	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 20; i++)
			assert_ok(claim_one(&f.ring, f.next + i,
					    length_of(i, 100)));
		expect_outcome(&reader, PETAL_RING_EMPTY);
		/* Whoever dies here leaves nothing. */
		assert_ok(petal_bcast_attach(f.memory, f.bytes, &successor));
		assert_int_equal(successor.tail, f.ring.tail);
		if (round % 3 == 0) {
			petal_bcast_abort(&f.ring);
			continue;
		}
		if (round % 3 == 1)
			petal_bcast_publish(&f.ring);
		else {
			f.ring = successor;
			continue;
		}
		f.next += 20;
		assert_int_equal(
			petal_bcast_peek_n(&reader, 40, views, &outcome), 20);
		for (unsigned i = 0; i < 20; i++)
			assert_true(is_right(&views[i], read++));
		petal_bcast_release(&reader, &views[19]);
	}
	assert_int_equal(petal_bcast_peek_n(&reader, 40, views, &outcome), 0);
	assert_int_equal(outcome, PETAL_RING_EMPTY);
	fixture_fini(&f);
}

static void batch__one_that_would_fill_the_ring_is_refused(void **state)
{
	struct fixture f;
	unsigned count = 0;

	(void)state;
	fixture_init(&f, DATA, 0);
	while (claim_one(&f.ring, count, 64) == 0) {
		count++;
		assert_true(count * 80 < DATA);
	}
	assert_true(count * 80 >= DATA / 2);
	petal_bcast_abort(&f.ring);
	assert_ok(push(&f, 64));
	fixture_fini(&f);
}

static void hold__keeps_its_bytes_while_the_reader_goes_on(void **state)
{
	struct petal_bcast_reader reader, friend;
	uint32_t holds[PETAL_BCAST_HOLDS_MAX], more;
	struct petal_bcast_view view, kept;
	struct petal_bcast_ref ref;
	struct fixture f;

	(void)state;
	fixture_init(&f, 2 * DATA, 0);
	reader = join(&f, PETAL_BCAST_BLOCK);
	friend = join(&f, PETAL_BCAST_DROP_OLDEST);
	push_many(&f, PETAL_BCAST_HOLDS_MAX + 1, 64);
	for (unsigned i = 0; i < PETAL_BCAST_HOLDS_MAX; i++) {
		assert_ok(petal_bcast_peek(&reader, &view));
		assert_true(is_right(&view, i));
		if (i == 0)
			kept = view;
		assert_ok(petal_bcast_hold(&reader, &view, &holds[i]));
	}
	assert_ok(petal_bcast_peek(&reader, &view));
	assert_outcome(petal_bcast_hold(&reader, &view, &more), -ENOBUFS);
	petal_bcast_release(&reader, &view);

	push_until_full(&f, 64);
	ref = (struct petal_bcast_ref){ kept.pos, kept.ordinal };
	assert_ok(petal_bcast_resolve(&friend, &ref, &view));
	assert_true(is_right(&view, 0));
	for (unsigned i = 1; i < PETAL_BCAST_HOLDS_MAX; i++)
		petal_bcast_drop(&reader, holds[i]);
	for (uint64_t n = PETAL_BCAST_HOLDS_MAX + 1; n < f.next; n++)
		expect(&reader, n);
	expect_outcome(&reader, PETAL_RING_EMPTY);
	/* Only the first hold is left, and that alone stops the publisher. */
	assert_outcome(push(&f, 64), -EAGAIN);
	assert_true(is_right(&kept, 0));
	petal_bcast_drop(&reader, holds[0]);
	expect_outcome(&reader, PETAL_RING_EMPTY);
	push_many(&f, 1, 64);
	for (unsigned i = 0; i < 200; i++) {
		expect(&reader, f.next - 1);
		assert_ok(push(&f, 64));
	}
	assert_outcome(petal_bcast_resolve(&friend, &ref, &view),
		       PETAL_RING_LAPPED);
	fixture_fini(&f);
}

static struct petal_bcast_reader join_spilling(struct fixture *f,
					       enum petal_bcast_policy full)
{
	const struct petal_bcast_options options = {
		.policy = PETAL_BCAST_SPILL,
		.full = full,
	};
	struct petal_bcast_reader reader;

	assert_ok(petal_bcast_join(f->memory, f->bytes, &options, &reader));
	return reader;
}

/* Holds the next record, which must have been spilled. */
static struct petal_bcast_view hold_spilled(struct petal_bcast_reader *reader,
					    uint64_t number, uint32_t *ret_hold)
{
	struct petal_bcast_view view;

	assert_ok(petal_bcast_peek(reader, &view));
	assert_true(view.spilled && is_right(&view, number));
	assert_ok(petal_bcast_hold(reader, &view, ret_hold));
	return view;
}

/* Where the publisher may believe that copies are still needed. */
static uint64_t spill_needed_from(const struct petal_bcast_reader *reader)
{
	uint64_t tail = reader->map.seats[reader->seat].spill_tail.bits;

	return petal_bcast_place_pos(reader->cursor->spill.bits, reader->word,
				     0, tail);
}

static void hold__a_spilled_record_stays_until_it_is_dropped(void **state)
{
	struct petal_bcast_reader reader;
	struct petal_bcast_view kept;
	struct fixture f;
	uint64_t read = 1;
	uint32_t hold;

	(void)state;
	fixture_init(&f, DATA, 0);
	reader = join_spilling(&f, PETAL_BCAST_BLOCK);
	push_until_full(&f, 64);
	kept = hold_spilled(&reader, 0, &hold);
	/* All others are read, and yet the area fills up behind the hold. */
	for (unsigned round = 0; round < 50; round++) {
		while (read < f.next)
			expect(&reader, read++);
		expect_outcome(&reader, PETAL_RING_EMPTY);
		push_until_full(&f, 64);
		assert_true(is_right(&kept, 0));
		assert_true(petal_bcast_check(&reader, &kept));
	}
	while (read < f.next)
		expect(&reader, read++);
	petal_bcast_drop(&reader, hold);
	/* The copies, and then the ring, are at its disposal again. */
	assert_true(push_until_full(&f, 64) * 80 > DATA);
	while (read < f.next)
		expect(&reader, read++);
	expect_outcome(&reader, PETAL_RING_EMPTY);
	assert_int_equal(petal_bcast_lost(&reader), 0);
	fixture_fini(&f);
}

static void hold__spilled_ones_are_dropped_in_any_order(void **state)
{
	/* In the order of the copies, and what is needed after each drop. */
	static const unsigned orders[][3] = {
		{ 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
		{ 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 },
	};
	struct fixture f;

	(void)state;
	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		struct petal_bcast_reader reader;
		struct petal_bcast_view views[3];
		uint32_t holds[3];
		uint64_t from[4];
		unsigned dropped = 0;

		fixture_init(&f, DATA, 0);
		reader = join_spilling(&f, PETAL_BCAST_BLOCK);
		push_until_full(&f, 64);
		for (unsigned k = 0; k < 3; k++) {
			expect(&reader, 2 * k);
			from[k] = reader.spill_pos;
			views[k] = hold_spilled(&reader, 2 * k + 1, &holds[k]);
		}
		from[3] = reader.spill_pos;
		for (unsigned k = 0; k < 3; k++) {
			unsigned oldest = 0;

			while (dropped >> oldest & 1)
				oldest++;
			assert_int_equal(spill_needed_from(&reader),
					 from[oldest]);
			petal_bcast_drop(&reader, holds[orders[i][k]]);
			dropped |= 1u << orders[i][k];
			for (unsigned n = 0; n < 3; n++)
				if (!(dropped >> n & 1))
					assert_true(
						is_right(&views[n], 2 * n + 1));
		}
		assert_int_equal(spill_needed_from(&reader), from[3]);
		fixture_fini(&f);
	}
}

static void hold__a_full_area_follows_the_second_policy(void **state)
{
	struct petal_bcast_reader reader, young;
	struct petal_bcast_view kept, view;
	struct fixture f;
	unsigned count;
	uint32_t hold;
	int outcome;

	(void)state;
	fixture_init(&f, DATA, 0);
	reader = join_spilling(&f, PETAL_BCAST_DROP_OLDEST);
	push_many(&f, 60, 64);
	kept = hold_spilled(&reader, 0, &hold);
	push_many(&f, 500, 64);
	/* It loses others, and not the one that it holds. */
	while ((outcome = petal_bcast_peek(&reader, &view)) == 0)
		petal_bcast_release(&reader, &view);
	assert_outcome(outcome, PETAL_RING_LAPPED);
	assert_true(petal_bcast_lost(&reader) > 300);
	assert_true(is_right(&kept, 0) && petal_bcast_check(&reader, &kept));
	petal_bcast_drop(&reader, hold);
	petal_bcast_leave(&reader);

	reader = join_spilling(&f, PETAL_BCAST_EVICT);
	push_many(&f, 60, 64);
	kept = hold_spilled(&reader, 560, &hold);
	push_many(&f, 500, 64);
	assert_false(petal_bcast_check(&reader, &kept));
	expect_outcome(&reader, -ESTALE);
	/* Who sits there now does not feel a late drop. */
	young = join_spilling(&f, PETAL_BCAST_BLOCK);
	count = push_until_full(&f, 64);
	petal_bcast_drop(&reader, hold);
	petal_bcast_leave(&reader);
	assert_outcome(push(&f, 64), -EAGAIN);
	for (uint64_t n = f.next - count; n < f.next; n++)
		expect(&young, n);
	fixture_fini(&f);
}

static void resolve__any_bytes_do_no_harm(void **state)
{
	struct petal_bcast_reader reader;
	struct petal_bcast_view view;
	struct petal_bcast_ref ref;
	struct fixture f;
	uint64_t seed = 1;

	(void)state;
	fixture_init(&f, DATA, 0);
	reader = join(&f, PETAL_BCAST_BLOCK);
	push_many(&f, 10, 64);
	for (unsigned i = 0; i < 100000; i++) {
		ref.pos = petal_test_random(&seed) >> i % 64;
		ref.ordinal = petal_test_random(&seed) >> i % 64;
		if (petal_bcast_resolve(&reader, &ref, &view) == 0)
			assert_true(is_right(&view, ref.ordinal));
	}
	fixture_fini(&f);
}

static void join__late_ones_begin_with_the_oldest_or_with_now(void **state)
{
	struct petal_bcast_reader oldest, now;
	struct fixture f;
	uint64_t first;

	(void)state;
	fixture_init(&f, DATA, 0);
	oldest = join_from(&f, PETAL_BCAST_BLOCK, PETAL_BCAST_FROM_OLDEST);
	push_many(&f, 3, 64);
	expect(&oldest, 0);
	petal_bcast_leave(&oldest);
	for (unsigned round = 0; round < 100; round++) {
		push_many(&f, 10, length_of(round, 300));
		oldest = join_from(&f, PETAL_BCAST_BLOCK,
				   PETAL_BCAST_FROM_OLDEST);
		now = join(&f, PETAL_BCAST_BLOCK);
		expect_outcome(&now, PETAL_RING_EMPTY);
		first = oldest.ordinal;
		assert_true(first < f.next);
		while (first < f.next)
			expect(&oldest, first++);
		assert_ok(push(&f, 8));
		expect(&now, f.next - 1);
		petal_bcast_leave(&now);
		petal_bcast_leave(&oldest);
	}
	fixture_fini(&f);
}

/* Who is stopped between limit and mark for laps finds another chunk's. */
static void join__a_mark_of_a_later_lap_is_not_believed(void **state)
{
	struct petal_bcast_reader reader;
	struct petal_u64 *mark;
	struct fixture f;
	uint64_t was;

	(void)state;
	fixture_init(&f, DATA, UINT64_C(1) << 32);
	push_many(&f, 5, 64);
	mark = petal_bcast_mark_at(&f.ring.map, f.ring.limit - DATA);
	was = petal_load(mark, PETAL_RELAXED);
	petal_store(mark, was + 2 * DATA, PETAL_RELAXED);
	reader = join_from(&f, PETAL_BCAST_BLOCK, PETAL_BCAST_FROM_OLDEST);
	assert_int_equal(reader.pos, f.ring.tail);
	petal_store(mark, was, PETAL_RELAXED);
	push_many(&f, 1, 64);
	expect(&reader, 5);
	petal_bcast_leave(&reader);
	fixture_fini(&f);
}

static void join__no_more_than_there_are_seats(void **state)
{
	const struct petal_bcast_options options = { .owner = 3 };
	const struct petal_bcast_options bad = { .owner = 65536 };
	const struct petal_bcast_options loop = {
		.policy = PETAL_BCAST_SPILL,
		.full = PETAL_BCAST_SPILL,
	};
	struct petal_bcast_reader readers[8], more;
	struct fixture f;

	(void)state;
	fixture_init(&f, DATA, 0);
	assert_outcome(petal_bcast_join(f.memory, f.bytes, &bad, &more),
		       -EINVAL);
	assert_outcome(petal_bcast_join(f.memory, f.bytes, &loop, &more),
		       -EINVAL);
	for (int i = 0; i < 8; i++)
		assert_ok(petal_bcast_join(f.memory, f.bytes, &options,
					   &readers[i]));
	assert_outcome(petal_bcast_join(f.memory, f.bytes, &options, &more),
		       -EAGAIN);
	petal_bcast_leave(&readers[4]);
	assert_ok(petal_bcast_join(f.memory, f.bytes, &options, &more));
	assert_int_equal(petal_bcast_repair(f.memory, f.bytes, 4), 0);
	assert_int_equal(petal_bcast_repair(f.memory, f.bytes, 3), 8);
	expect_outcome(&more, -ESTALE);
	fixture_fini(&f);
}

static void admit__reader_needs_no_write_access(void **state)
{
	const struct petal_bcast_options options = {
		.policy = PETAL_BCAST_BLOCK
	};
	struct petal_bcast_ticket ticket;
	struct petal_bcast_reader reader;
	struct petal_bcast successor;
	struct fixture f;
	unsigned count;
	void *cursor;
	pid_t child;
	int status;

	(void)state;
	fixture_init(&f, DATA, 0);
	cursor = shared_memory(PETAL_BCAST_CURSOR_BYTES);
	push_many(&f, 5, 64);
	assert_ok(petal_bcast_admit(&f.ring, cursor, &options, &ticket));
	count = push_until_full(&f, 64);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct petal_bcast_view view;

		if (mprotect(f.memory, f.bytes, PROT_READ) ||
		    petal_bcast_enter(f.memory, f.bytes, cursor, &ticket,
				      &reader))
			_exit(1);
		for (unsigned i = 0; i < count; i++) {
			if (petal_bcast_peek(&reader, &view) ||
			    !is_right(&view, 5 + i))
				_exit(2);
			petal_bcast_release(&reader, &view);
		}
		_exit(petal_bcast_peek(&reader, &view) != PETAL_RING_EMPTY);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_ok(push(&f, 64));

	/* A successor knows it only when it is shown the cursor again. */
	assert_ok(petal_bcast_attach(f.memory, f.bytes, &successor));
	f.ring = successor;
	push_until_full(&f, 64);
	assert_ok(petal_bcast_adopt(&f.ring, cursor, &ticket));
	assert_ok(
		petal_bcast_enter(f.memory, f.bytes, cursor, &ticket, &reader));
	petal_bcast_leave(&reader);
	push_many(&f, 200, 64);
	assert_outcome(petal_bcast_adopt(&f.ring, cursor, &ticket), -ESTALE);
	munmap(cursor, PETAL_BCAST_CURSOR_BYTES);
	fixture_fini(&f);
}

static void cursor__lies_block_or_cost_the_liar(void **state)
{
	struct petal_bcast_reader liar, honest;
	struct fixture f;
	uint64_t seed = 7;

	(void)state;
	fixture_init(&f, DATA, UINT64_C(1) << 20);
	liar = join(&f, PETAL_BCAST_BLOCK);
	honest = join(&f, PETAL_BCAST_BLOCK);
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t lie = petal_test_random(&seed);

		if (lie % 2)
			lie = petal_bcast_place(
				liar.word, f.ring.tail + lie % 9999 - 5000);
		liar.cursor->place.bits = lie;
		if (push(&f, 64) == 0)
			expect(&honest, f.next - 1);
		expect_outcome(&honest, PETAL_RING_EMPTY);
	}
	fixture_fini(&f);
}

/* A tail of the area that nobody has reached must not let a copy leave it. */
static void spill__a_lying_tail_stays_inside_of_the_area(void **state)
{
	const struct petal_bcast_geometry geometry = {
		.data_bytes = 8192,
		.readers = 1,
		.spills = 1,
		.spill_bytes = 4096,
	};
	const struct petal_bcast_options options = {
		.policy = PETAL_BCAST_SPILL,
		.full = PETAL_BCAST_DROP_OLDEST,
	};
	static const uint8_t untouched[8192];
	uint64_t bytes = petal_bcast_bytes(&geometry);
	uint8_t *memory = shared_memory(bytes + sizeof(untouched));
	struct petal_bcast_reader liar;
	struct petal_bcast ring;
	struct petal_bcast_header *oldest;
	void *payload;

	(void)state;
	assert_ok(petal_bcast_format(memory, &geometry));
	assert_ok(petal_bcast_attach(memory, bytes, &ring));
	assert_ok(petal_bcast_join(memory, bytes, &options, &liar));
	for (unsigned i = 0; i < 30; i++) {
		if (petal_bcast_claim(&ring, 1000, 1, &payload) == 0)
			petal_bcast_publish(&ring);
		if (i != 8)
			continue;
		ring.map.seats[liar.seat].spill_tail.bits = -UINT64_C(8192);
		oldest = (void *)(ring.map.data +
				  (ring.known[liar.seat].spilled_pos & 8191));
		oldest->length.bits = 6000;
	}
	assert_memory_equal(memory + bytes, untouched, sizeof(untouched));
	munmap(memory, bytes + sizeof(untouched));
}

static void attach__refuses_positions_that_nobody_can_reach(void **state)
{
	struct petal_bcast ring;
	struct fixture f;

	(void)state;
	fixture_init(&f, 4096, 0);
	f.ring.map.shared->tail.bits = -UINT64_C(512);
	f.ring.map.shared->limit.bits = 4096 - 512;
	assert_int_equal(petal_bcast_attach(f.memory, f.bytes, &ring),
			 -PETAL_ECORRUPT);
	fixture_fini(&f);
}

/* What the publisher believes only grows, and never beyond what there is. */
static void spill__lies_move_nothing_back_nor_ahead(void **state)
{
	const struct petal_bcast_options options = {
		.policy = PETAL_BCAST_SPILL,
		.full = PETAL_BCAST_DROP_OLDEST,
	};
	struct petal_bcast_reader liar, honest;
	const struct petal_bcast_known *known;
	const struct petal_u64 *spill_tail;
	struct petal_bcast_counts counts;
	struct fixture f;
	uint64_t seed = 7;

	(void)state;
	fixture_init(&f, DATA, UINT64_C(1) << 20);
	assert_ok(petal_bcast_join(f.memory, f.bytes, &options, &liar));
	honest = join(&f, PETAL_BCAST_BLOCK);
	push_many(&f, 1, 64);
	expect(&honest, f.next - 1);
	petal_bcast_lag(&f.ring);
	known = &f.ring.known[liar.seat];
	spill_tail = &f.ring.map.seats[liar.seat].spill_tail;
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t lie = petal_test_random(&seed);
		uint64_t spill_lie = petal_test_random(&seed);
		uint64_t pos = known->pos;
		uint64_t spill_pos = known->spill_pos;

		if (lie % 2)
			lie = petal_bcast_place(
				liar.word, f.ring.tail + lie % 9999 - 5000);
		if (spill_lie % 2)
			spill_lie = petal_bcast_place(
				liar.word,
				spill_tail->bits + spill_lie % 9999 - 5000);
		liar.cursor->place.bits = lie;
		liar.cursor->spill.bits = spill_lie;
		assert_ok(push(&f, 64));
		expect(&honest, f.next - 1);
		petal_bcast_lag(&f.ring);
		assert_true((int64_t)(known->pos - pos) >= 0);
		assert_true((int64_t)(f.ring.tail - known->pos) >= 0);
		assert_true((int64_t)(known->spill_pos - spill_pos) >= 0);
		assert_true((int64_t)(spill_tail->bits - known->spill_pos) >=
			    0);
	}
	assert_ok(petal_bcast_counts(f.memory, f.bytes, &counts));
	assert_true(counts.spilled > 0);
	fixture_fini(&f);
}

static void reader__survives_any_bytes_in_the_ring(void **state)
{
	struct petal_bcast_reader reader, fresh;
	struct petal_bcast_view view, views[4];
	struct fixture f;
	uint64_t seed = 11;
	int outcome;

	(void)state;
	fixture_init(&f, DATA, 0);
	fresh = join(&f, PETAL_BCAST_SPILL);
	for (uint64_t i = 0; i < petal_test_rounds(1000); i++) {
		uint64_t *words = f.memory;

		push(&f, 64);
		reader = fresh;
		reader.policy = i % 4;
		reader.long_way = reader.policy == PETAL_BCAST_SPILL;
		reader.seat = i % 2;
		for (unsigned k = 0; k < 20; k++)
			words[32 +
			      petal_test_random(&seed) % (f.bytes / 8 - 32)] =
				petal_test_random(&seed) >> k * 3;
		f.ring.map.seats[reader.seat].word.bits = reader.word;
		for (unsigned k = 0; k < 8; k++) {
			unsigned sum = 0;

			if (petal_bcast_peek(&reader, &view) == 0) {
				const uint8_t *bytes = view.payload;

				for (uint32_t b = 0; b < view.length; b++)
					sum += bytes[b];
				assert_true(sum <= 255u * view.length);
				petal_bcast_release(&reader, &view);
			}
			petal_bcast_peek_n(&reader, 4, views, &outcome);
		}
	}
	fixture_fini(&f);
}

static void close__readers_drain_and_then_know(void **state)
{
	struct petal_bcast_reader reader;
	struct petal_bcast successor;
	struct fixture f;
	void *payload;

	(void)state;
	fixture_init(&f, DATA, 0);
	reader = join(&f, PETAL_BCAST_BLOCK);
	push_many(&f, 2, 64);
	assert_ok(claim_one(&f.ring, 99, 64));
	petal_bcast_close(&f.ring);
	assert_outcome(petal_bcast_claim(&f.ring, 8, TYPE, &payload), -EPIPE);
	expect(&reader, 0);
	expect(&reader, 1);
	expect_outcome(&reader, PETAL_RING_CLOSED);
	assert_int_equal(petal_bcast_lag(&f.ring), 0);
	assert_ok(petal_bcast_attach(f.memory, f.bytes, &successor));
	assert_outcome(petal_bcast_claim(&successor, 8, TYPE, &payload),
		       -EPIPE);
	fixture_fini(&f);
}

/* What a forked reader tells its parent. */
struct report {
	struct petal_u64 read;
	struct petal_u64 lost;
	struct petal_u64 errors;
};

static void report_error(struct report *report)
{
	petal_add(&report->errors, 1, PETAL_RELAXED);
}

/* Reads until closed; each record must be the next one, or counted as lost. */
static void read_all(struct fixture *f, struct petal_bcast_reader *reader,
		     uint64_t first, struct report *report, unsigned slowness)
{
	uint64_t expected = first;
	uint64_t lost = 0;

	(void)f;
	for (;;) {
		struct petal_bcast_view view;
		int outcome = petal_bcast_peek(reader, &view);
		bool right;

		if (outcome == PETAL_RING_EMPTY)
			sched_yield();
		if (outcome == PETAL_RING_LAPPED) {
			expected += petal_bcast_lost(reader) - lost;
			lost = petal_bcast_lost(reader);
		}
		if (outcome == PETAL_RING_CLOSED)
			break;
		if (outcome < 0 && outcome != -EAGAIN) {
			report_error(report);
			break;
		}
		if (outcome)
			continue;
		right = is_right(&view, expected);
		for (unsigned i = 0; i < slowness; i++)
			sched_yield();
		if (reader->policy != PETAL_BCAST_BLOCK &&
		    !petal_bcast_check(reader, &view))
			continue;
		if (!right)
			report_error(report);
		expected++;
		petal_add(&report->read, 1, PETAL_RELAXED);
		petal_bcast_release(reader, &view);
	}
	petal_store(&report->lost, lost, PETAL_RELAXED);
}

static pid_t fork_reader(struct fixture *f,
			 const struct petal_bcast_options *options,
			 struct report *report, unsigned slowness)
{
	struct petal_bcast_reader reader;
	uint64_t first = f->next;
	pid_t child;

	assert_ok(petal_bcast_join(f->memory, f->bytes, options, &reader));
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		read_all(f, &reader, first, report, slowness);
		_exit(0);
	}
	return child;
}

static void end(pid_t child)
{
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void push_waiting(struct fixture *f, uint64_t count, uint32_t most)
{
	uint64_t last = f->next + count;

	while (f->next < last) {
		int err = push(f, length_of(f->next, most));

		if (err == -EAGAIN)
			sched_yield();
		else
			assert_ok(err);
	}
}

static void processes__fast_and_slow_of_every_policy(void **state)
{
	const struct petal_bcast_options options[] = {
		{ .policy = PETAL_BCAST_BLOCK },
		{ .policy = PETAL_BCAST_DROP_OLDEST },
		{ .policy = PETAL_BCAST_DROP_OLDEST },
		{ .policy = PETAL_BCAST_SPILL, .full = PETAL_BCAST_BLOCK },
		{ .policy = PETAL_BCAST_SPILL,
		  .full = PETAL_BCAST_DROP_OLDEST },
	};
	const unsigned slowness[] = { 0, 0, 3, 0, 2 };
	uint64_t count = petal_test_rounds(60000);
	struct report *reports = shared_memory(sizeof(*reports) * 5);
	struct fixture f;
	pid_t children[5];

	(void)state;
	fixture_init(&f, 4 * DATA, UINT64_C(1) << 32);
	for (int i = 0; i < 5; i++)
		children[i] =
			fork_reader(&f, &options[i], &reports[i], slowness[i]);
	push_waiting(&f, count, 150);
	petal_bcast_close(&f.ring);
	for (int i = 0; i < 5; i++) {
		end(children[i]);
		assert_int_equal(reports[i].errors.bits, 0);
		assert_int_equal(reports[i].read.bits + reports[i].lost.bits,
				 count);
	}
	assert_int_equal(reports[0].lost.bits, 0);
	assert_int_equal(reports[3].lost.bits, 0);
	munmap(reports, sizeof(*reports) * 5);
	fixture_fini(&f);
}

/*
 * Large records, so that each lap ends in padding: who waits there may find
 * that it alone is overwritten.
 */
static void processes__who_spills_and_blocks_loses_nothing(void **state)
{
	const struct petal_bcast_options options = {
		.policy = PETAL_BCAST_SPILL, .full = PETAL_BCAST_BLOCK
	};
	uint64_t count = petal_test_rounds(100000);
	struct report *report = shared_memory(sizeof(*report));
	struct fixture f;
	pid_t child;

	(void)state;
	fixture_init(&f, DATA, UINT64_C(1) << 32);
	child = fork_reader(&f, &options, report, 0);
	push_waiting(&f, count, f.ring.length_max);
	petal_bcast_close(&f.ring);
	end(child);
	assert_int_equal(report->errors.bits, 0);
	assert_int_equal(report->lost.bits, 0);
	assert_int_equal(report->read.bits, count);
	munmap(report, sizeof(*report));
	fixture_fini(&f);
}

/* As fast as one can, so that a lap of these few takes less than a look. */
static void outrun(struct fixture *f)
{
	const uint32_t length = 200;
	void *payload;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		if (petal_bcast_claim(&f->ring, length, TYPE, &payload))
			continue;
		memset(payload, TYPE, length);
		petal_bcast_publish(&f->ring);
	}
}

static void processes__an_outrun_reader_joins_and_gets_on(void **state)
{
	uint64_t rounds = petal_test_rounds(100000), refused = 0;
	struct petal_bcast_reader reader;
	struct petal_bcast_view view;
	struct fixture f;
	pid_t publisher;
	int status;

	(void)state;
	fixture_init(&f, DATA, UINT64_C(1) << 32);
	publisher = fork();
	assert_true(publisher >= 0);
	if (publisher == 0)
		outrun(&f);
	for (uint64_t i = 0; i < rounds; i++) {
		const struct petal_bcast_options options = {
			.policy = PETAL_BCAST_DROP_OLDEST,
			.from = i & 1 ? PETAL_BCAST_FROM_OLDEST
				      : PETAL_BCAST_FROM_NOW,
		};
		int outcome =
			petal_bcast_join(f.memory, f.bytes, &options, &reader);

		/* A busy machine may take the processor at each look. */
		refused += outcome == -EAGAIN;
		if (outcome == -EAGAIN)
			continue;
		assert_ok(outcome);
		for (int j = 0; j < 4; j++) {
			outcome = petal_bcast_peek(&reader, &view);
			assert_true(outcome >= 0 || outcome == -EAGAIN);
			if (outcome == 0)
				petal_bcast_release(&reader, &view);
		}
		petal_bcast_leave(&reader);
	}
	assert_true(refused <= rounds / 100);
	assert_int_equal(kill(publisher, SIGKILL), 0);
	assert_int_equal(waitpid(publisher, &status, 0), publisher);
	fixture_fini(&f);
}

/* Its host was busy, and the ring went on for some laps. */
static void enter__late_counts_or_reads_what_was_overtaken(void **state)
{
	const struct petal_bcast_options options[] = {
		{ .policy = PETAL_BCAST_DROP_OLDEST },
		{ .policy = PETAL_BCAST_SPILL,
		  .full = PETAL_BCAST_DROP_OLDEST },
	};
	struct petal_bcast_ticket tickets[2];
	struct fixture f;
	uint8_t *cursors;

	(void)state;
	fixture_init(&f, DATA, UINT64_C(1) << 32);
	cursors = shared_memory(2 * PETAL_BCAST_CURSOR_BYTES);
	push_many(&f, 3, 64);
	for (int i = 0; i < 2; i++)
		assert_ok(petal_bcast_admit(
			&f.ring, cursors + i * PETAL_BCAST_CURSOR_BYTES,
			&options[i], &tickets[i]));
	/* What is overtaken by then fits into the spill area. */
	push_many(&f, DATA / 80 + 10, 64);
	for (int i = 0; i < 2; i++) {
		struct petal_bcast_reader reader;
		struct petal_bcast_view view;
		uint64_t expected = 3;

		assert_ok(petal_bcast_enter(
			f.memory, f.bytes,
			cursors + i * PETAL_BCAST_CURSOR_BYTES, &tickets[i],
			&reader));
		if (i == 0) {
			assert_outcome(petal_bcast_peek(&reader, &view),
				       PETAL_RING_LAPPED);
			assert_true(petal_bcast_lost(&reader) > 0);
			expected += petal_bcast_lost(&reader);
		}
		for (; expected < f.next; expected++) {
			assert_ok(petal_bcast_peek(&reader, &view));
			assert_true(is_right(&view, expected));
			petal_bcast_release(&reader, &view);
		}
		assert_outcome(petal_bcast_peek(&reader, &view),
			       PETAL_RING_EMPTY);
		if (i == 1)
			assert_int_equal(petal_bcast_lost(&reader), 0);
	}
	munmap(cursors, 2 * PETAL_BCAST_CURSOR_BYTES);
	fixture_fini(&f);
}

/* As on another host: it may not even write to the ring. */
static pid_t fork_far_reader(struct fixture *f,
			     const struct petal_bcast_options *options,
			     void *cursor, struct report *report,
			     unsigned slowness,
			     struct petal_bcast_ticket *ret_ticket)
{
	uint64_t first = f->next;
	pid_t child;

	assert_ok(petal_bcast_admit(&f->ring, cursor, options, ret_ticket));
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct petal_bcast_reader reader;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (mprotect(f->memory, f->bytes, PROT_READ) ||
		    petal_bcast_enter(f->memory, f->bytes, cursor, ret_ticket,
				      &reader))
			_exit(1);
		read_all(f, &reader, first, report, slowness);
		_exit(0);
	}
	return child;
}

/*
 * With the processor's own instructions; what they must do is shown in
 * noncoherent_bcast_test.
 */
static void processes__a_far_ring_survives_deaths_on_both_sides(void **state)
{
	const struct petal_bcast_options options[] = {
		{ .policy = PETAL_BCAST_BLOCK, .owner = 1 },
		{ .policy = PETAL_BCAST_DROP_OLDEST, .owner = 2 },
		{ .policy = PETAL_BCAST_SPILL, .owner = 3 },
		{ .policy = PETAL_BCAST_BLOCK, .owner = 4 },
	};
	const unsigned slowness[] = { 0, 3, 2, 0 };
	struct report *reports = shared_memory(sizeof(*reports) * 4);
	uint8_t *cursors = shared_memory(4 * PETAL_BCAST_CURSOR_BYTES);
	uint64_t count = petal_test_rounds(10000);
	struct petal_bcast_ticket tickets[4];
	struct petal_bcast_counts counts;
	pid_t children[4];
	struct fixture f;
	int status;

	(void)state;
	if (petal_cache_check() != 0)
		skip();
	memset(&f, 0, sizeof(f));
	f.geometry = (struct petal_bcast_geometry){
		.data_bytes = 4 * DATA,
		.spill_bytes = DATA,
		.readers = 4,
		.spills = 1,
		.start_pos = (UINT64_C(1) << 32) - 64,
		.coherence = PETAL_SEGMENT_NONCOHERENT,
	};
	f.bytes = petal_bcast_bytes(&f.geometry);
	f.memory = shared_memory(f.bytes);
	assert_ok(petal_bcast_format(f.memory, &f.geometry));
	assert_ok(petal_bcast_attach(f.memory, f.bytes, &f.ring));
	for (int i = 0; i < 4; i++)
		children[i] = fork_far_reader(
			&f, &options[i], cursors + i * PETAL_BCAST_CURSOR_BYTES,
			&reports[i], slowness[i], &tickets[i]);
	push_waiting(&f, count, 150);

	/* One that holds up the publisher dies, in the middle of something. */
	assert_int_equal(kill(children[3], SIGKILL), 0);
	assert_int_equal(waitpid(children[3], &status, 0), children[3]);
	assert_int_equal(petal_bcast_repair(f.memory, f.bytes, 4), 1);
	push_waiting(&f, count, 150);

	/* And so does a publisher, again and again. */
	for (int round = 0; round < 20; round++) {
		uint64_t seen = petal_load(&reports[0].read, PETAL_RELAXED);
		pid_t publisher = fork();

		assert_true(publisher >= 0);
		if (publisher == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (petal_bcast_attach(f.memory, f.bytes, &f.ring))
				_exit(1);
			f.next = f.ring.ordinal;
			for (int i = 0; i < 3; i++)
				petal_bcast_adopt(
					&f.ring,
					cursors + i * PETAL_BCAST_CURSOR_BYTES,
					&tickets[i]);
			for (;;)
				push(&f, length_of(f.next, 150));
		}
		while (petal_load(&reports[0].read, PETAL_RELAXED) <
			       seen + 50 &&
		       waitpid(publisher, &status, WNOHANG) == 0)
			sched_yield();
		assert_int_equal(kill(publisher, SIGKILL), 0);
		assert_int_equal(waitpid(publisher, &status, 0), publisher);
		assert_true(WIFSIGNALED(status));
	}
	assert_ok(petal_bcast_attach(f.memory, f.bytes, &f.ring));
	petal_bcast_close(&f.ring);
	for (int i = 0; i < 3; i++) {
		end(children[i]);
		assert_int_equal(reports[i].errors.bits, 0);
		assert_int_equal(reports[i].read.bits + reports[i].lost.bits,
				 f.ring.ordinal);
	}
	assert_int_equal(reports[0].lost.bits + reports[2].lost.bits, 0);
	assert_ok(petal_bcast_counts(f.memory, f.bytes, &counts));
	assert_int_equal(counts.removed, 1);
	assert_true(counts.spilled > 0);
	munmap(reports, sizeof(*reports) * 4);
	munmap(cursors, 4 * PETAL_BCAST_CURSOR_BYTES);
	fixture_fini(&f);
}

static void
processes__a_stopped_reader_stops_only_who_waits_for_it(void **state)
{
	const struct petal_bcast_options evict = { .policy =
							   PETAL_BCAST_EVICT };
	const struct petal_bcast_options block = { .policy =
							   PETAL_BCAST_BLOCK };
	struct report *reports = shared_memory(sizeof(*reports) * 2);
	struct petal_bcast_counts counts;
	pid_t stopped, running;
	struct fixture f;
	int status;

	(void)state;
	fixture_init(&f, 4 * DATA, 0);
	stopped = fork_reader(&f, &evict, &reports[0], 0);
	running = fork_reader(&f, &block, &reports[1], 0);
	push_waiting(&f, 100, 100);
	assert_int_equal(kill(stopped, SIGSTOP), 0);
	assert_int_equal(waitpid(stopped, &status, WUNTRACED), stopped);
	push_waiting(&f, 5000, 100);
	assert_ok(petal_bcast_counts(f.memory, f.bytes, &counts));
	assert_int_equal(counts.evicted, 1);
	/* It awakes, and learns that it has lost its seat. */
	assert_int_equal(kill(stopped, SIGCONT), 0);
	end(stopped);
	assert_int_equal(reports[0].errors.bits, 1);
	push_waiting(&f, 1000, 100);
	petal_bcast_close(&f.ring);
	end(running);
	assert_int_equal(reports[1].errors.bits, 0);
	assert_int_equal(reports[1].read.bits, 6100);
	munmap(reports, sizeof(*reports) * 2);
	fixture_fini(&f);
}

static void processes__a_killed_reader_is_removed_by_a_peer(void **state)
{
	struct petal_bcast_options options = { .policy = PETAL_BCAST_BLOCK };
	struct report *reports = shared_memory(sizeof(*reports) * 2);
	struct petal_bcast_counts counts;
	uint64_t rounds = petal_test_rounds(100);
	uint64_t seed = 3;
	struct fixture f;
	pid_t running;
	int status;

	(void)state;
	fixture_init(&f, 4 * DATA, 0);
	running = fork_reader(&f, &options, &reports[0], 0);
	for (uint64_t i = 0; i < rounds; i++) {
		pid_t victim;

		options.owner = (uint32_t)(1 + i % 60000);
		options.policy = i % 2 ? PETAL_BCAST_SPILL : PETAL_BCAST_BLOCK;
		victim = fork_reader(&f, &options, &reports[1], 0);
		push_waiting(&f, petal_test_random(&seed) % 500, 100);
		assert_int_equal(kill(victim, SIGKILL), 0);
		assert_int_equal(waitpid(victim, &status, 0), victim);
		/* Dead, proved: it was waited for. */
		assert_int_equal(petal_bcast_repair(f.memory, f.bytes,
						    options.owner),
				 1);
		push_waiting(&f, 300, 100);
	}
	petal_bcast_close(&f.ring);
	end(running);
	assert_int_equal(reports[0].errors.bits, 0);
	assert_int_equal(reports[1].errors.bits, 0);
	assert_int_equal(reports[0].read.bits, f.next);
	assert_ok(petal_bcast_counts(f.memory, f.bytes, &counts));
	assert_int_equal(counts.removed, rounds);
	munmap(reports, sizeof(*reports) * 2);
	fixture_fini(&f);
}

/* Publishes until killed, one number after the other, in batches. */
static void publish_for_ever(struct fixture *f, uint64_t next)
{
	struct petal_bcast ring;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (petal_bcast_attach(f->memory, f->bytes, &ring))
		_exit(1);
	/* The number of a record is the number of those before it. */
	if (petal_bcast_since(ring.ordinal, next) < 0)
		_exit(2);
	for (;;) {
		for (unsigned i = 0; i < 1 + ring.ordinal % 5; i++)
			if (claim_one(&ring, ring.ordinal,
				      length_of(ring.ordinal, 120)))
				break;
		petal_bcast_publish(&ring);
	}
}

static void processes__a_killed_publisher_leaves_a_prefix(void **state)
{
	const struct petal_bcast_options options[2] = {
		{ .policy = PETAL_BCAST_BLOCK },
		{ .policy = PETAL_BCAST_SPILL, .full = PETAL_BCAST_BLOCK },
	};
	struct report *reports = shared_memory(sizeof(*reports) * 2);
	uint64_t rounds = petal_test_rounds(200);
	struct fixture f;
	pid_t readers[2];
	int status;

	(void)state;
	fixture_init(&f, DATA, UINT64_C(1) << 32);
	for (int i = 0; i < 2; i++)
		readers[i] = fork_reader(&f, &options[i], &reports[i], 0);
	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t seen = petal_load(&reports[0].read, PETAL_RELAXED);
		pid_t publisher = fork();

		assert_true(publisher >= 0);
		if (publisher == 0)
			publish_for_ever(&f, seen);
		while (petal_load(&reports[0].read, PETAL_RELAXED) <
		       seen + 50 + i % 17)
			sched_yield();
		assert_int_equal(kill(publisher, SIGKILL), 0);
		assert_int_equal(waitpid(publisher, &status, 0), publisher);
		assert_true(WIFSIGNALED(status));
	}
	assert_ok(petal_bcast_attach(f.memory, f.bytes, &f.ring));
	petal_bcast_close(&f.ring);
	for (int i = 0; i < 2; i++) {
		end(readers[i]);
		assert_int_equal(reports[i].errors.bits, 0);
		assert_int_equal(reports[i].read.bits, f.ring.ordinal);
	}
	munmap(reports, sizeof(*reports) * 2);
	fixture_fini(&f);
}

struct churn {
	struct fixture *f;
	struct petal_u64 stop;
	struct petal_u64 joins;
	bool right;
};

/* Joins from the oldest, reads some, leaves, again: in a thread, for TSan. */
static void *churn(void *arg)
{
	struct churn *churn = arg;
	struct fixture *f = churn->f;
	const struct petal_bcast_options options = {
		.policy = PETAL_BCAST_BLOCK,
		.from = PETAL_BCAST_FROM_OLDEST,
	};

	churn->right = true;
	while (!petal_load(&churn->stop, PETAL_RELAXED)) {
		struct petal_bcast_reader reader;
		struct petal_bcast_view view;
		uint64_t expected;

		if (petal_bcast_join(f->memory, f->bytes, &options, &reader))
			continue;
		expected = reader.ordinal;
		for (unsigned i = 0; i < 50; i++) {
			int outcome = petal_bcast_peek(&reader, &view);

			if (outcome == PETAL_RING_EMPTY)
				continue;
			if (outcome || !is_right(&view, expected))
				churn->right = false;
			expected++;
			petal_bcast_release(&reader, &view);
		}
		petal_bcast_leave(&reader);
		petal_add(&churn->joins, 1, PETAL_RELAXED);
	}
	return NULL;
}

static void threads__readers_that_come_and_go_lose_nothing(void **state)
{
	struct churn churns[2];
	pthread_t threads[2];
	struct fixture f;

	(void)state;
	fixture_init(&f, DATA, 0);
	for (int i = 0; i < 2; i++) {
		memset(&churns[i], 0, sizeof(churns[i]));
		churns[i].f = &f;
		assert_int_equal(pthread_create(&threads[i], NULL, churn,
						&churns[i]),
				 0);
	}
	push_waiting(&f, petal_test_rounds(100000), 100);
	/* On a busy machine a thread may not even have begun by then. */
	for (int i = 0; i < 2; i++)
		while (petal_load(&churns[i].joins, PETAL_RELAXED) == 0)
			push_waiting(&f, 100, 100);
	for (int i = 0; i < 2; i++)
		petal_store(&churns[i].stop, 1, PETAL_RELAXED);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		assert_true(churns[i].right);
	}
	fixture_fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(format__shapes_out_of_range_are_refused),
		cmocka_unit_test(attach__what_is_no_ring_is_named),
		cmocka_unit_test(claim__what_does_not_fit_is_refused),
		cmocka_unit_test(records__come_whole_at_every_remainder),
		cmocka_unit_test(
			records__come_whole_near_the_ends_of_the_counters),
		cmocka_unit_test(block__publisher_waits_for_the_slowest),
		cmocka_unit_test(drop__reader_knows_how_many_it_lost),
		cmocka_unit_test(drop__check_says_that_bytes_were_overwritten),
		cmocka_unit_test(
			drop__old_payload_that_looks_like_a_header_is_none),
		cmocka_unit_test(
			evict__a_laggard_loses_its_seat_and_may_join_again),
		cmocka_unit_test(
			evict__late_stores_do_not_hurt_who_sits_there_now),
		cmocka_unit_test(
			spill__records_come_in_order_from_area_and_ring),
		cmocka_unit_test(spill__a_full_area_follows_the_second_policy),
		cmocka_unit_test(batch__is_visible_at_once_or_not_at_all),
		cmocka_unit_test(
			batch__one_that_would_fill_the_ring_is_refused),
		cmocka_unit_test(
			hold__keeps_its_bytes_while_the_reader_goes_on),
		cmocka_unit_test(
			hold__a_spilled_record_stays_until_it_is_dropped),
		cmocka_unit_test(hold__spilled_ones_are_dropped_in_any_order),
		cmocka_unit_test(hold__a_full_area_follows_the_second_policy),
		cmocka_unit_test(resolve__any_bytes_do_no_harm),
		cmocka_unit_test(
			join__late_ones_begin_with_the_oldest_or_with_now),
		cmocka_unit_test(join__a_mark_of_a_later_lap_is_not_believed),
		cmocka_unit_test(join__no_more_than_there_are_seats),
		cmocka_unit_test(admit__reader_needs_no_write_access),
		cmocka_unit_test(cursor__lies_block_or_cost_the_liar),
		cmocka_unit_test(spill__a_lying_tail_stays_inside_of_the_area),
		cmocka_unit_test(
			attach__refuses_positions_that_nobody_can_reach),
		cmocka_unit_test(spill__lies_move_nothing_back_nor_ahead),
		cmocka_unit_test(reader__survives_any_bytes_in_the_ring),
		cmocka_unit_test(close__readers_drain_and_then_know),
		cmocka_unit_test(processes__fast_and_slow_of_every_policy),
		cmocka_unit_test(
			processes__who_spills_and_blocks_loses_nothing),
		cmocka_unit_test(processes__an_outrun_reader_joins_and_gets_on),
		cmocka_unit_test(
			enter__late_counts_or_reads_what_was_overtaken),
		cmocka_unit_test(
			processes__a_far_ring_survives_deaths_on_both_sides),
		cmocka_unit_test(
			processes__a_stopped_reader_stops_only_who_waits_for_it),
		cmocka_unit_test(
			processes__a_killed_reader_is_removed_by_a_peer),
		cmocka_unit_test(processes__a_killed_publisher_leaves_a_prefix),
		cmocka_unit_test(
			threads__readers_that_come_and_go_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
