/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings/mpmc.h promises: every message once, whole, each producer's in
 * order, at every remainder and near the ends of the counters; held slots that
 * are passed; what is given back, fenced or left by the dead delivered again,
 * with the mark; quarantine; the end of a closed ring; and peers gone mad.
 *
 * Harder: PETAL_TEST_HARDER=100 for a hundred times as many kills, stops,
 * messages between processes and random rings.
 */
#include "tests/check.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "rings/mpmc.h"

enum { SLOTS = 8, SLOT_BYTES = 24, OWNERS = 8 };

static const uint64_t starts[] = {
	0,
	1,
	5,
	(UINT64_C(1) << 32) - 3,
	(UINT64_C(1) << 47) - 3,
	(UINT64_C(1) << 63) - 3,
	UINT64_MAX - 10,
};

#define START_COUNT (sizeof(starts) / sizeof(starts[0]))

struct fixture {
	void *memory;
	uint64_t bytes;
	struct petal_mpmc ring[OWNERS];
};

static void fixture_init(struct fixture *f, uint64_t slot_count,
			 uint64_t start_pos)
{
	const struct petal_mpmc_geometry geometry = {
		.slot_count = slot_count,
		.slot_bytes = SLOT_BYTES,
		.owners = OWNERS,
		.start_pos = start_pos,
	};

	f->bytes = petal_mpmc_bytes(&geometry);
	assert_true(f->bytes > 0);
	f->memory = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(f->memory, MAP_FAILED);
	assert_ok(petal_mpmc_format(f->memory, &geometry));
	for (uint32_t i = 0; i < OWNERS; i++)
		assert_ok(
			petal_mpmc_attach(f->memory, f->bytes, i, &f->ring[i]));
}

static void fixture_fini(struct fixture *f)
{
	munmap(f->memory, f->bytes);
}

static void fill(const struct petal_mpmc_claim *claim, uint64_t value)
{
	uint64_t *words = claim->bytes;

	for (int i = 0; i < SLOT_BYTES / 8; i++)
		words[i] = value + (uint64_t)i;
}

static int push(struct petal_mpmc *ring, uint64_t value)
{
	struct petal_mpmc_claim claim;
	int err = petal_mpmc_claim(ring, &claim);

	if (err)
		return err;
	fill(&claim, value);
	return petal_mpmc_publish(ring, &claim);
}

/* What a view holds, or UINT64_MAX if it is torn. */
static uint64_t value_of(const struct petal_mpmc_view *view)
{
	const uint64_t *words = view->bytes;

	for (int i = 1; i < SLOT_BYTES / 8; i++)
		if (words[i] != words[0] + (uint64_t)i)
			return UINT64_MAX;
	return words[0];
}

static struct petal_mpmc_view take(struct petal_mpmc *ring, uint64_t value,
				   uint32_t redelivered)
{
	struct petal_mpmc_view view;

	assert_ok(petal_mpmc_peek(ring, &view));
	assert_int_equal(value_of(&view), value);
	assert_int_equal(view.redelivered, redelivered);
	return view;
}

static void pop(struct petal_mpmc *ring, uint64_t value)
{
	struct petal_mpmc_view view = take(ring, value, 0);

	assert_ok(petal_mpmc_release(ring, &view));
}

static void assert_nothing(struct petal_mpmc *ring, int outcome)
{
	struct petal_mpmc_view view;

	assert_outcome(petal_mpmc_peek(ring, &view), outcome);
}

static int repair(struct fixture *f, uint32_t by, uint32_t owner)
{
	uint64_t dead[PETAL_MPMC_OWNERS_MAX / 64] = { 0 };

	dead[owner / 64] |= UINT64_C(1) << owner % 64;
	return petal_mpmc_repair(&f->ring[by], dead);
}

/* ---- one thread ---- */

static void order__is_kept_at_every_start_and_remainder(void **state)
{
	struct fixture f;

	(void)state;
	for (size_t s = 0; s < START_COUNT; s++) {
		for (uint64_t fillup = 1; fillup <= SLOTS; fillup++) {
			uint64_t in = 0, out = 0;

			fixture_init(&f, SLOTS, starts[s]);
			while (out < 5 * SLOTS) {
				while (in - out < fillup) {
					assert_ok(push(&f.ring[in % 3], in));
					in++;
				}
				pop(&f.ring[3 + out % 3], out);
				out++;
			}
			assert_int_equal(petal_mpmc_busy(&f.ring[0]), in - out);
			fixture_fini(&f);
		}
	}
}

static void claim__full_ring_says_so_until_one_is_released(void **state)
{
	struct petal_mpmc_claim claim;
	struct fixture f;
	uint32_t owner;

	(void)state;
	for (size_t s = 0; s < START_COUNT; s++) {
		fixture_init(&f, SLOTS, starts[s]);
		for (uint64_t i = 0; i < SLOTS; i++)
			assert_ok(push(&f.ring[0], i));
		assert_outcome(petal_mpmc_claim(&f.ring[0], &claim), -EAGAIN);
		assert_outcome(petal_mpmc_claim(&f.ring[1], &claim), -EAGAIN);
		assert_int_equal(petal_mpmc_blocker(&f.ring[1], &owner), 1);
		pop(&f.ring[2], 0);
		assert_ok(push(&f.ring[1], SLOTS));
		assert_outcome(petal_mpmc_claim(&f.ring[0], &claim), -EAGAIN);
		for (uint64_t i = 1; i <= SLOTS; i++)
			pop(&f.ring[3], i);
		assert_nothing(&f.ring[2], PETAL_RING_EMPTY);
		assert_nothing(&f.ring[3], PETAL_RING_EMPTY);
		fixture_fini(&f);
	}
}

static void abort__leaves_no_message_and_frees_the_slot(void **state)
{
	struct petal_mpmc_claim claim;
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, 0);
	for (uint64_t i = 0; i < 10 * SLOTS; i++) {
		assert_ok(petal_mpmc_claim(&f.ring[0], &claim));
		assert_nothing(&f.ring[1], PETAL_RING_PENDING);
		assert_ok(petal_mpmc_abort(&f.ring[0], &claim));
		assert_ok(push(&f.ring[i % 2 ? 0 : 2], i));
		pop(&f.ring[1], i);
		assert_nothing(&f.ring[1], PETAL_RING_EMPTY);
	}
	fixture_fini(&f);
}

static void claim__in_progress_is_overtaken(void **state)
{
	struct petal_mpmc_claim slow[2] = { 0 };
	struct fixture f;
	uint32_t owner;

	(void)state;
	for (size_t s = 0; s < START_COUNT; s++) {
		fixture_init(&f, SLOTS, starts[s]);
		assert_ok(petal_mpmc_claim(&f.ring[0], &slow[0]));
		assert_ok(push(&f.ring[1], 100));
		assert_ok(petal_mpmc_claim(&f.ring[0], &slow[1]));
		assert_ok(push(&f.ring[1], 101));
		pop(&f.ring[2], 100);
		pop(&f.ring[2], 101);
		assert_nothing(&f.ring[2], PETAL_RING_PENDING);
		assert_nothing(&f.ring[3], PETAL_RING_PENDING);
		assert_ok(petal_mpmc_blocker(&f.ring[2], &owner));
		assert_int_equal(owner, 0);
		fill(&slow[0], 0);
		fill(&slow[1], 1);
		/* In order even so, and before what came later. */
		assert_ok(push(&f.ring[1], 102));
		assert_ok(petal_mpmc_publish(&f.ring[0], &slow[0]));
		assert_ok(petal_mpmc_publish(&f.ring[0], &slow[1]));
		pop(&f.ring[2], 0);
		pop(&f.ring[3], 1);
		pop(&f.ring[2], 102);
		assert_nothing(&f.ring[2], PETAL_RING_EMPTY);
		assert_nothing(&f.ring[3], PETAL_RING_EMPTY);
		fixture_fini(&f);
	}
}

static void claim__too_many_in_progress_hold_the_consumer_up(void **state)
{
	struct petal_mpmc_claim slow[PETAL_MPMC_PENDING + 1];
	struct fixture f;

	(void)state;
	fixture_init(&f, 64, 0);
	for (uint32_t i = 0; i <= PETAL_MPMC_PENDING; i++)
		assert_ok(petal_mpmc_claim(&f.ring[0], &slow[i]));
	assert_ok(push(&f.ring[1], 100));
	assert_nothing(&f.ring[2], PETAL_RING_PENDING);
	assert_ok(petal_mpmc_abort(&f.ring[0], &slow[7]));
	pop(&f.ring[2], 100);
	fixture_fini(&f);
}

static void hold__producers_pass_what_is_held(void **state)
{
	struct petal_mpmc_view held[3];
	struct petal_mpmc_claim claim;
	struct fixture f;

	(void)state;
	for (size_t s = 0; s < START_COUNT; s++) {
		fixture_init(&f, SLOTS, starts[s]);
		for (uint64_t i = 0; i < 4; i++)
			assert_ok(push(&f.ring[0], i));
		held[0] = take(&f.ring[1], 0, 0);
		pop(&f.ring[1], 1);
		held[1] = take(&f.ring[1], 2, 0);
		held[2] = take(&f.ring[2], 3, 0);
		for (uint64_t i = 4; i < 10 * SLOTS; i++) {
			assert_ok(push(&f.ring[i % 2 ? 0 : 3], i));
			pop(&f.ring[i % 3 ? 1 : 4], i);
		}
		for (int i = 0; i < SLOTS - 3; i++)
			assert_ok(push(&f.ring[0], 500));
		assert_outcome(petal_mpmc_claim(&f.ring[0], &claim), -EAGAIN);
		assert_outcome(petal_mpmc_claim(&f.ring[5], &claim), -EAGAIN);
		assert_int_equal(value_of(&held[0]), 0);
		assert_int_equal(value_of(&held[1]), 2);
		assert_int_equal(value_of(&held[2]), 3);
		assert_ok(petal_mpmc_release(&f.ring[1], &held[0]));
		assert_ok(petal_mpmc_release(&f.ring[1], &held[1]));
		assert_outcome(petal_mpmc_release(&f.ring[1], &held[1]),
			       -ESTALE);
		assert_ok(petal_mpmc_give_back(&f.ring[2], &held[2]));
		held[2] = take(&f.ring[5], 3, 1);
		assert_ok(petal_mpmc_release(&f.ring[5], &held[2]));
		for (int i = 0; i < SLOTS - 3; i++)
			pop(&f.ring[6], 500);
		for (uint64_t i = 0; i < 10 * SLOTS; i++) {
			assert_ok(push(&f.ring[7], i));
			pop(&f.ring[1], i);
		}
		assert_int_equal(petal_mpmc_busy(&f.ring[0]), 0);
		fixture_fini(&f);
	}
}

static void hold__producers_pass_so_many_in_a_row(void **state)
{
	enum { ROW = PETAL_MPMC_HELD_MAX };
	struct petal_mpmc_view held[ROW + 1];
	struct petal_mpmc_claim claim;
	struct fixture f;

	(void)state;
	fixture_init(&f, 1024, (UINT64_C(1) << 32) - 512);
	for (uint64_t i = 0; i < 1024; i++)
		assert_ok(push(&f.ring[0], i));
	for (uint64_t i = 0; i <= ROW; i++)
		held[i] = take(&f.ring[1], i, 0);
	for (uint64_t i = ROW + 1; i < 1024; i++)
		pop(&f.ring[1], i);
	assert_outcome(petal_mpmc_claim(&f.ring[0], &claim), -EAGAIN);
	assert_ok(petal_mpmc_release(&f.ring[1], &held[ROW]));
	for (uint64_t i = 0; i < 4096; i++) {
		assert_ok(push(&f.ring[0], i));
		pop(&f.ring[1], i);
	}
	for (uint64_t i = 0; i < ROW; i++) {
		assert_int_equal(value_of(&held[i]), i);
		assert_ok(petal_mpmc_release(&f.ring[1], &held[i]));
	}
	assert_int_equal(petal_mpmc_busy(&f.ring[0]), 0);
	fixture_fini(&f);
}

static void give_back__is_delivered_before_what_is_new(void **state)
{
	struct petal_mpmc_view a, b;
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, 0);
	for (uint64_t i = 0; i < 4; i++)
		assert_ok(push(&f.ring[0], i));
	a = take(&f.ring[1], 0, 0);
	b = take(&f.ring[1], 1, 0);
	assert_ok(petal_mpmc_give_back(&f.ring[1], &b));
	assert_outcome(petal_mpmc_release(&f.ring[1], &b), -ESTALE);
	assert_ok(petal_mpmc_give_back(&f.ring[1], &a));
	a = take(&f.ring[2], 0, 1);
	b = take(&f.ring[3], 1, 1);
	for (uint32_t i = 2; i < 10; i++) {
		assert_ok(petal_mpmc_give_back(&f.ring[2], &a));
		a = take(&f.ring[2], 0, i < 7 ? i : 7);
	}
	assert_ok(petal_mpmc_release(&f.ring[2], &a));
	assert_ok(petal_mpmc_release(&f.ring[3], &b));
	pop(&f.ring[1], 2);
	pop(&f.ring[2], 3);
	assert_nothing(&f.ring[3], PETAL_RING_EMPTY);
	fixture_fini(&f);
}

static void give_back__is_found_in_a_ring_of_many_slots(void **state)
{
	struct petal_mpmc_view held[3000];
	struct fixture f;
	unsigned found = 0, pending = 0;

	(void)state;
	fixture_init(&f, 4096, 77);
	for (uint64_t i = 0; i < 3000; i++) {
		assert_ok(push(&f.ring[0], i));
		held[i] = take(&f.ring[1], i, 0);
	}
	for (uint64_t i = 0; i < 3000; i += 1000)
		assert_ok(petal_mpmc_give_back(&f.ring[1], &held[i]));
	while (found < 3) {
		struct petal_mpmc_view view;
		int outcome = petal_mpmc_peek(&f.ring[2], &view);

		if (outcome) {
			assert_outcome(outcome, PETAL_RING_PENDING);
			assert_true(pending++ < 64);
			continue;
		}
		assert_int_equal(view.redelivered, 1);
		assert_int_equal(value_of(&view) % 1000, 0);
		assert_ok(petal_mpmc_release(&f.ring[2], &view));
		found++;
	}
	fixture_fini(&f);
}

static void fence__quarantines_claims_until_their_owner_settles(void **state)
{
	struct petal_mpmc_claim lost[2], claim;
	struct petal_mpmc_stats stats;
	struct fixture f;

	(void)state;
	for (size_t s = 0; s < START_COUNT; s++) {
		fixture_init(&f, SLOTS, starts[s]);
		assert_ok(petal_mpmc_claim(&f.ring[0], &lost[0]));
		assert_ok(petal_mpmc_claim(&f.ring[0], &lost[1]));
		assert_int_equal(petal_mpmc_fence(&f.ring[1], 0), 2);
		assert_int_equal(petal_mpmc_fence(&f.ring[2], 0), 0);
		assert_nothing(&f.ring[2], PETAL_RING_EMPTY);
		for (uint64_t i = 0; i < 5 * SLOTS; i++) {
			fill(&lost[0], 1000 + i);
			fill(&lost[1], 2000 + i);
			assert_ok(push(&f.ring[i % 2], i));
			pop(&f.ring[3], i);
		}
		assert_outcome(petal_mpmc_publish(&f.ring[0], &lost[0]),
			       -ESTALE);
		assert_outcome(petal_mpmc_abort(&f.ring[0], &lost[1]), -ESTALE);
		assert_outcome(petal_mpmc_publish(&f.ring[0], &lost[0]),
			       -ESTALE);
		for (uint64_t i = 0; i < SLOTS; i++)
			assert_ok(push(&f.ring[0], i));
		assert_outcome(petal_mpmc_claim(&f.ring[0], &claim), -EAGAIN);
		for (uint64_t i = 0; i < SLOTS; i++)
			pop(&f.ring[4], i);
		assert_ok(petal_mpmc_stats(&f.ring[1], 0, &stats));
		assert_int_equal(stats.fences, 2);
		assert_outcome(petal_mpmc_fence(&f.ring[1], OWNERS), -EINVAL);
		fixture_fini(&f);
	}
}

static void fence__redelivers_what_was_taken_and_refuses_the_late(void **state)
{
	struct petal_mpmc_view late, view;
	struct fixture f;

	(void)state;
	fixture_init(&f, 4, 0);
	assert_ok(push(&f.ring[0], 1));
	late = take(&f.ring[1], 1, 0);
	assert_int_equal(petal_mpmc_fence(&f.ring[2], 1), 1);
	view = take(&f.ring[2], 1, 1);
	assert_ok(petal_mpmc_release(&f.ring[2], &view));
	/* The same owner takes from the same slot, and releases the old. */
	for (uint64_t i = 0; i < 3; i++) {
		assert_ok(push(&f.ring[0], 0));
		pop(&f.ring[2], 0);
	}
	assert_ok(push(&f.ring[0], 2));
	view = take(&f.ring[1], 2, 0);
	assert_int_equal(view.pos % 4, late.pos % 4);
	assert_outcome(petal_mpmc_release(&f.ring[1], &late), -ESTALE);
	assert_outcome(petal_mpmc_give_back(&f.ring[1], &late), -ESTALE);
	assert_ok(petal_mpmc_release(&f.ring[1], &view));
	fixture_fini(&f);
}

static void repair__frees_claims_and_returns_what_was_taken(void **state)
{
	struct petal_mpmc_claim claim, living = { 0 };
	struct petal_mpmc_view view;
	struct fixture f;

	(void)state;
	for (size_t s = 0; s < START_COUNT; s++) {
		fixture_init(&f, SLOTS, starts[s]);
		assert_ok(push(&f.ring[0], 7));
		assert_ok(push(&f.ring[0], 8));
		take(&f.ring[5], 7, 0);
		assert_ok(petal_mpmc_claim(&f.ring[5], &claim));
		assert_ok(petal_mpmc_claim(&f.ring[1], &living));
		assert_int_equal(repair(&f, 2, 5), 2);
		assert_int_equal(repair(&f, 3, 5), 0);
		view = take(&f.ring[3], 7, 1);
		assert_ok(petal_mpmc_release(&f.ring[3], &view));
		pop(&f.ring[4], 8);
		assert_nothing(&f.ring[4], PETAL_RING_PENDING);
		fill(&living, 9);
		assert_ok(petal_mpmc_publish(&f.ring[1], &living));
		pop(&f.ring[4], 9);
		/* What was quarantined ends with the death of its owner. */
		assert_ok(petal_mpmc_claim(&f.ring[6], &claim));
		assert_int_equal(petal_mpmc_fence(&f.ring[2], 6), 1);
		assert_int_equal(repair(&f, 2, 6), 1);
		for (uint64_t i = 0; i < SLOTS; i++)
			assert_ok(push(&f.ring[0], i));
		for (uint64_t i = 0; i < SLOTS; i++)
			pop(&f.ring[1], i);
		fixture_fini(&f);
	}
}

static void repair__announces_what_a_dead_repairer_returned(void **state)
{
	struct petal_mpmc_view view;
	struct fixture f;
	struct petal_u64 *slot;
	uint64_t word;

	(void)state;
	fixture_init(&f, SLOTS, 0);
	assert_ok(push(&f.ring[0], 7));
	view = take(&f.ring[5], 7, 0);
	assert_nothing(&f.ring[1], PETAL_RING_EMPTY);
	/* As far as a repairer gets that dies before the notice. */
	slot = petal_mpmc_at(&f.ring[1], view.pos);
	word = petal_mpmc_word(PETAL_MPMC_RETURNED, 0) |
	       1u << PETAL_MPMC_COUNT_SHIFT;
	petal_store(slot, word, PETAL_RELAXED);
	assert_nothing(&f.ring[1], PETAL_RING_EMPTY);
	assert_int_equal(repair(&f, 2, 6), 0);
	view = take(&f.ring[1], 7, 1);
	assert_ok(petal_mpmc_release(&f.ring[1], &view));
	fixture_fini(&f);
}

static void close__refuses_claims_and_drains(void **state)
{
	struct petal_mpmc_claim claim = { 0 }, other;
	struct petal_mpmc_view view;
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, 0);
	assert_ok(push(&f.ring[0], 1));
	assert_ok(petal_mpmc_claim(&f.ring[0], &claim));
	petal_mpmc_close(&f.ring[1]);
	petal_mpmc_close(&f.ring[2]);
	assert_outcome(petal_mpmc_claim(&f.ring[0], &other), -EPIPE);
	assert_outcome(petal_mpmc_claim_n(&f.ring[3], 1, &other), -EPIPE);
	view = take(&f.ring[4], 1, 0);
	assert_nothing(&f.ring[4], PETAL_RING_PENDING);
	fill(&claim, 2);
	assert_ok(petal_mpmc_publish(&f.ring[0], &claim));
	pop(&f.ring[5], 2);
	assert_nothing(&f.ring[4], PETAL_RING_CLOSED);
	assert_int_equal(petal_mpmc_busy(&f.ring[4]), 1);
	assert_ok(petal_mpmc_give_back(&f.ring[4], &view));
	view = take(&f.ring[5], 1, 1);
	assert_ok(petal_mpmc_release(&f.ring[5], &view));
	assert_nothing(&f.ring[5], PETAL_RING_CLOSED);
	assert_int_equal(petal_mpmc_busy(&f.ring[4]), 0);
	fixture_fini(&f);
}

static void close__full_ring_says_closed_and_not_full(void **state)
{
	struct petal_mpmc_claim claim;
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, 0);
	for (uint64_t i = 0; i < SLOTS; i++)
		assert_ok(push(&f.ring[0], i));
	petal_mpmc_close(&f.ring[1]);
	assert_outcome(petal_mpmc_claim(&f.ring[0], &claim), -EPIPE);
	fixture_fini(&f);
}

static void bulk__many_at_once(void **state)
{
	struct petal_mpmc_claim claims[SLOTS + 1];
	struct petal_mpmc_view views[SLOTS + 1];
	struct petal_mpmc_stats stats;
	struct fixture f;
	uint32_t count = 0;

	(void)state;
	fixture_init(&f, SLOTS, UINT64_MAX - 3);
	for (int round = 0; round < 20; round++) {
		assert_int_equal(petal_mpmc_claim_n(&f.ring[0], 3, claims), 3);
		assert_int_equal(petal_mpmc_claim_n(&f.ring[1], 9, claims + 3),
				 5);
		assert_outcome(petal_mpmc_claim_n(&f.ring[1], 9, claims + 8),
			       -EAGAIN);
		for (uint64_t i = 0; i < SLOTS; i++)
			fill(&claims[i], i);
		assert_ok(petal_mpmc_publish_n(&f.ring[0], claims, 3));
		assert_ok(petal_mpmc_publish_n(&f.ring[1], claims + 3, 5));
		assert_ok(petal_mpmc_peek_n(&f.ring[2], 9, views, &count));
		assert_int_equal(count, SLOTS);
		for (uint64_t i = 0; i < SLOTS; i++)
			assert_int_equal(value_of(&views[i]), i);
		assert_ok(petal_mpmc_release_n(&f.ring[2], views, count));
		assert_outcome(petal_mpmc_peek_n(&f.ring[2], 9, views, &count),
			       PETAL_RING_EMPTY);
	}
	assert_outcome(petal_mpmc_claim_n(&f.ring[0], 0, claims), -EINVAL);
	assert_ok(petal_mpmc_stats(&f.ring[3], 2, &stats));
	assert_int_equal(stats.released, 20 * SLOTS);
	assert_ok(petal_mpmc_stats(&f.ring[3], 1, &stats));
	assert_int_equal(stats.published, 100);
	assert_outcome(petal_mpmc_stats(&f.ring[3], OWNERS, &stats), -EINVAL);
	fixture_fini(&f);
}

static void backlog__is_right_within_a_sixteenth(void **state)
{
	struct fixture f;
	uint64_t in = 0, out = 0, seed = 5;

	(void)state;
	fixture_init(&f, 256, UINT64_MAX - 300);
	for (int i = 0; i < 200; i++) {
		uint64_t want = petal_test_random(&seed) % 250;
		uint64_t shown;

		while (in - out < want)
			assert_ok(push(&f.ring[0], in++));
		while (in - out > want)
			pop(&f.ring[1], out++);
		shown = petal_mpmc_backlog(&f.ring[2]);
		assert_true(shown <= want + 16 && want <= shown + 16);
	}
	while (out != in)
		pop(&f.ring[1], out++);
	assert_nothing(&f.ring[1], PETAL_RING_EMPTY);
	assert_int_equal(petal_mpmc_backlog(&f.ring[2]), 0);
	fixture_fini(&f);
}

/* ---- bad input ---- */

static void format__shapes_out_of_range_are_refused(void **state)
{
	static const struct petal_mpmc_geometry bad[] = {
		{ .slot_count = 2, .slot_bytes = 8, .owners = 1 },
		{ .slot_count = 12, .slot_bytes = 8, .owners = 1 },
		{ .slot_count = 8, .slot_bytes = 0, .owners = 1 },
		{ .slot_count = 8, .slot_bytes = UINT32_MAX, .owners = 1 },
		{ .slot_count = 8, .slot_bytes = 8, .owners = 0 },
		{ .slot_count = 8, .slot_bytes = 8, .owners = 257 },
		{ .slot_count = UINT64_C(1) << 40,
		  .slot_bytes = 8,
		  .owners = 1 },
	};
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(petal_mpmc_bytes(&bad[i]), 0);
		assert_outcome(petal_mpmc_format(f.memory, &bad[i]), -EINVAL);
	}
	assert_ok(push(&f.ring[0], 1));
	pop(&f.ring[1], 1);
	fixture_fini(&f);
}

static void attach__what_is_no_such_ring_is_refused(void **state)
{
	struct petal_mpmc_shared *shared;
	struct petal_mpmc ring;
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, 0);
	shared = f.memory;
	assert_outcome(petal_mpmc_attach((uint8_t *)f.memory + 8, f.bytes, 0,
					 &ring),
		       -EINVAL);
	assert_outcome(petal_mpmc_attach(f.memory, f.bytes, OWNERS, &ring),
		       -EINVAL);
	assert_outcome(petal_mpmc_attach(f.memory, 639, 0, &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_mpmc_attach(f.memory, f.bytes - 1, 0, &ring),
		       -PETAL_EGEOMETRY);
	petal_store(&shared->slot_count, UINT64_MAX, PETAL_RELAXED);
	assert_outcome(petal_mpmc_attach(f.memory, f.bytes, 0, &ring),
		       -PETAL_EGEOMETRY);
	petal_store(&shared->layout, 9, PETAL_RELAXED);
	assert_outcome(petal_mpmc_attach(f.memory, f.bytes, 0, &ring),
		       -PETAL_EVERSION);
	petal_store(&shared->magic, 0, PETAL_RELAXED);
	assert_outcome(petal_mpmc_attach(f.memory, f.bytes, 0, &ring), -EINVAL);
	fixture_fini(&f);
}

/* Random words everywhere: every call ends, inside of the ring. */
static void mad_peer__costs_messages_and_nothing_else(void **state)
{
	static const uint64_t odd[] = {
		0, 1, 7, 8, UINT64_MAX, UINT64_C(1) << 63, UINT64_C(1) << 32,
	};
	uint64_t seed = 1;
	struct fixture f;

	(void)state;
	fixture_init(&f, SLOTS, 0);
	for (uint64_t i = 0; i < petal_test_rounds(20000); i++) {
		struct petal_mpmc_shared *shared = f.memory;
		struct petal_mpmc *ring = &f.ring[i % OWNERS];
		struct petal_u64 *words[] = { &shared->tail, &shared->head,
					      &shared->returned,
					      &shared->closed };
		struct petal_mpmc_claim claim;
		struct petal_mpmc_view view;
		uint64_t value = petal_test_random(&seed);
		uint32_t owner;

		if (value & 1)
			value = odd[(value >> 8) % 7];
		if (value & 2)
			value = petal_mpmc_word(
				(enum petal_mpmc_state)(value >> 4 & 7),
				value >> 8 & 3);
		if (i % 3)
			petal_store(petal_mpmc_at(ring,
						  petal_test_random(&seed)),
				    value, PETAL_RELAXED);
		else
			petal_store(words[i / 3 % 4], value, PETAL_RELAXED);
		if (petal_mpmc_claim(ring, &claim) == 0) {
			fill(&claim, i);
			petal_mpmc_publish(ring, &claim);
		}
		if (petal_mpmc_peek(ring, &view) == 0)
			petal_mpmc_release(ring, &view);
		petal_mpmc_fence(ring, (uint32_t)(i % OWNERS));
		petal_mpmc_blocker(ring, &owner);
		assert_true(petal_mpmc_backlog(ring) <= SLOTS);
	}
	fixture_fini(&f);
}

static void mad_peer__a_lying_hint_is_found_out(void **state)
{
	struct fixture f;
	struct petal_mpmc_shared *shared;
	int err;

	(void)state;
	fixture_init(&f, SLOTS, 0);
	shared = f.memory;
	assert_ok(push(&f.ring[0], 1));
	petal_store(&shared->tail, UINT64_C(1) << 40, PETAL_RELAXED);
	err = push(&f.ring[1], 2);
	assert_outcome(err, -PETAL_ECORRUPT);
	err = push(&f.ring[1], 2);
	assert_ok(err);
	pop(&f.ring[2], 1);
	pop(&f.ring[2], 2);
	fixture_fini(&f);
}

/* ---- processes that die and stop ---- */

enum { WORKERS = 6, IDS = 1 << 21 };

struct world {
	struct petal_u64 next_id;
	struct petal_u64 stop;
	struct petal_u64 torn;
	struct petal_u64 unmarked; /* delivered again, and not said so */
	struct petal_u64 stale;
	bool stops;
	uint8_t published[IDS];
	uint8_t done[IDS];
};

static void produce(struct fixture *f, struct world *w, uint32_t owner)
{
	struct petal_mpmc *ring = &f->ring[owner];

	while (!petal_load(&w->stop, PETAL_RELAXED)) {
		struct petal_mpmc_claim claim;
		uint64_t id;
		int err = petal_mpmc_claim(ring, &claim);

		if (err) {
			sched_yield();
			continue;
		}
		id = petal_add(&w->next_id, 1, PETAL_RELAXED);
		if (id >= IDS) {
			petal_mpmc_abort(ring, &claim);
			sched_yield();
			continue;
		}
		fill(&claim, id);
		if (id % 97 == 0) {
			petal_mpmc_abort(ring, &claim);
			continue;
		}
		err = petal_mpmc_publish(ring, &claim);
		if (err == 0)
			w->published[id] = 1;
		else
			petal_add(&w->stale, 1, PETAL_RELAXED);
	}
}

/* Killed at any time: first the note, so that what is done has one. */
static void consume_noted(struct petal_mpmc *ring, struct world *w, uint64_t id,
			  const struct petal_mpmc_view *view)
{
	if (w->done[id]++ && view->redelivered == 0)
		petal_add(&w->unmarked, 1, PETAL_RELAXED);
	if (petal_mpmc_release(ring, view) != 0)
		petal_add(&w->stale, 1, PETAL_RELAXED);
}

/* Stopped and fenced at any time: what it read may be another's by now. */
static void consume_doubted(struct petal_mpmc *ring, struct world *w,
			    uint64_t id, const struct petal_mpmc_view *view)
{
	if (petal_mpmc_release(ring, view) != 0)
		petal_add(&w->stale, 1, PETAL_RELAXED);
	else if (id >= IDS)
		petal_add(&w->torn, 1, PETAL_RELAXED);
	else
		w->done[id]++;
}

static void consume_one(struct petal_mpmc *ring, struct world *w, uint64_t turn,
			const struct petal_mpmc_view *view)
{
	uint64_t id = value_of(view);

	if (turn % 61 == 0)
		petal_mpmc_give_back(ring, view);
	else if (w->stops)
		consume_doubted(ring, w, id, view);
	else if (id < IDS)
		consume_noted(ring, w, id, view);
	else
		petal_add(&w->torn, 1, PETAL_RELAXED);
}

static void consume(struct fixture *f, struct world *w, uint32_t owner)
{
	struct petal_mpmc *ring = &f->ring[owner];
	uint64_t turn = 0;

	for (;;) {
		struct petal_mpmc_view view;
		int outcome = petal_mpmc_peek(ring, &view);

		if (outcome == PETAL_RING_CLOSED && petal_mpmc_busy(ring) == 0)
			return;
		if (outcome == 0)
			consume_one(ring, w, ++turn, &view);
		else
			sched_yield();
	}
}

static pid_t spawn(struct fixture *f, struct world *w, uint32_t owner)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent ||
	    petal_mpmc_attach(f->memory, f->bytes, owner, &f->ring[owner]))
		_exit(1);
	if (owner < WORKERS / 2)
		produce(f, w, owner);
	else
		consume(f, w, owner);
	_exit(0);
}

static void a_moment(uint64_t *seed)
{
	struct timespec moment = {
		.tv_nsec = (long)(petal_test_random(seed) % 2000000),
	};

	nanosleep(&moment, NULL);
}

static void stop_and_fence(struct fixture *f, pid_t pid, uint32_t owner)
{
	int status;

	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(petal_mpmc_fence(&f->ring[WORKERS], owner) >= 0);
	assert_int_equal(kill(pid, SIGCONT), 0);
}

static void kill_and_repair(struct fixture *f, pid_t pid, uint32_t owner)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_true(repair(f, WORKERS, owner) >= 0);
}

static void check_world(struct world *w)
{
	uint64_t ids = petal_load(&w->next_id, PETAL_RELAXED);
	uint64_t lost = 0, twice = 0;

	for (uint64_t id = 0; id < ids && id < IDS; id++) {
		lost += w->published[id] && !w->done[id];
		twice += w->stops && w->done[id] > 1;
	}
	assert_true(ids > 1000);
	assert_int_equal(lost, 0);
	assert_int_equal(twice, 0);
	assert_int_equal(petal_load(&w->torn, PETAL_RELAXED), 0);
	assert_int_equal(petal_load(&w->unmarked, PETAL_RELAXED), 0);
	if (!w->stops)
		assert_int_equal(petal_load(&w->stale, PETAL_RELAXED), 0);
}

static void trouble(uint64_t slot_count, bool stops)
{
	struct fixture f;
	struct world *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t seed = slot_count + stops;
	pid_t pids[WORKERS];
	int status;

	assert_ptr_not_equal(w, MAP_FAILED);
	w->stops = stops;
	fixture_init(&f, slot_count, (UINT64_C(1) << 32) - 1000);
	for (uint32_t i = 0; i < WORKERS; i++)
		pids[i] = spawn(&f, w, i);
	for (uint64_t i = 0; i < petal_test_rounds(250); i++) {
		uint32_t owner = petal_test_random(&seed) % WORKERS;

		a_moment(&seed);
		if (stops) {
			stop_and_fence(&f, pids[owner], owner);
			continue;
		}
		kill_and_repair(&f, pids[owner], owner);
		pids[owner] = spawn(&f, w, owner);
	}
	petal_store(&w->stop, 1, PETAL_RELAXED);
	for (uint32_t i = 0; i < WORKERS / 2; i++)
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
	petal_mpmc_close(&f.ring[WORKERS]);
	for (uint32_t i = WORKERS / 2; i < WORKERS; i++) {
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	check_world(w);
	assert_int_equal(petal_mpmc_busy(&f.ring[WORKERS]), 0);
	fixture_fini(&f);
	munmap(w, sizeof(*w));
}

enum { LIVE_PRODUCERS = 3, LIVE_CONSUMERS = 3 };

/* Each value says whose it is, and its number among the producer's. */
static void produce_numbers(struct petal_mpmc *ring, uint64_t count)
{
	for (uint64_t i = 0; i < count;) {
		uint64_t value = (uint64_t)ring->owner << 40 | i;

		if (push(ring, value) == 0)
			i++;
		else
			sched_yield();
	}
}

/* How many were taken; exits if one was torn or came before an earlier one. */
static uint64_t consume_numbers(struct petal_mpmc *ring)
{
	uint64_t next[LIVE_PRODUCERS] = { 0 };
	uint64_t taken = 0;

	for (;;) {
		struct petal_mpmc_view view = { 0 };
		int outcome = petal_mpmc_peek(ring, &view);
		uint64_t from, number;

		if (outcome == PETAL_RING_CLOSED)
			return taken;
		if (outcome != 0) {
			sched_yield();
			continue;
		}
		from = value_of(&view) >> 40;
		number = value_of(&view) & 0xffffffffff;
		if (from >= LIVE_PRODUCERS || view.redelivered ||
		    number < next[from])
			_exit(2);
		next[from] = number + 1;
		if (petal_mpmc_release(ring, &view))
			_exit(3);
		taken++;
	}
}

static void live(struct fixture *f, int which, uint64_t count,
		 struct petal_u64 *taken)
{
	struct petal_mpmc *ring = &f->ring[which];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (which < LIVE_PRODUCERS)
		produce_numbers(ring, count);
	else
		petal_add(taken, consume_numbers(ring), PETAL_RELAXED);
	_exit(0);
}

static void processes__each_producers_messages_come_in_order(void **state)
{
	uint64_t count = petal_test_rounds(60000);
	struct petal_u64 *taken = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pids[LIVE_PRODUCERS + LIVE_CONSUMERS];
	struct fixture f;
	int status;

	(void)state;
	assert_ptr_not_equal(taken, MAP_FAILED);
	fixture_init(&f, 16, UINT64_MAX - 1000);
	for (int i = 0; i < LIVE_PRODUCERS + LIVE_CONSUMERS; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0)
			live(&f, i, count, taken);
	}
	for (int i = 0; i < LIVE_PRODUCERS + LIVE_CONSUMERS; i++) {
		if (i == LIVE_PRODUCERS)
			petal_mpmc_close(&f.ring[OWNERS - 1]);
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
	assert_int_equal(petal_load(taken, PETAL_RELAXED),
			 LIVE_PRODUCERS * count);
	assert_int_equal(petal_mpmc_busy(&f.ring[0]), 0);
	fixture_fini(&f);
	munmap(taken, 4096);
}

static void
processes__killed_lose_nothing_and_double_only_with_mark(void **state)
{
	(void)state;
	trouble(8, false);
	trouble(1024, false);
}

static void processes__stopped_and_fenced_lose_nothing(void **state)
{
	(void)state;
	trouble(16, true);
	trouble(256, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order__is_kept_at_every_start_and_remainder),
		cmocka_unit_test(
			claim__full_ring_says_so_until_one_is_released),
		cmocka_unit_test(abort__leaves_no_message_and_frees_the_slot),
		cmocka_unit_test(claim__in_progress_is_overtaken),
		cmocka_unit_test(
			claim__too_many_in_progress_hold_the_consumer_up),
		cmocka_unit_test(hold__producers_pass_what_is_held),
		cmocka_unit_test(hold__producers_pass_so_many_in_a_row),
		cmocka_unit_test(give_back__is_delivered_before_what_is_new),
		cmocka_unit_test(give_back__is_found_in_a_ring_of_many_slots),
		cmocka_unit_test(
			fence__quarantines_claims_until_their_owner_settles),
		cmocka_unit_test(
			fence__redelivers_what_was_taken_and_refuses_the_late),
		cmocka_unit_test(
			repair__frees_claims_and_returns_what_was_taken),
		cmocka_unit_test(
			repair__announces_what_a_dead_repairer_returned),
		cmocka_unit_test(close__refuses_claims_and_drains),
		cmocka_unit_test(close__full_ring_says_closed_and_not_full),
		cmocka_unit_test(bulk__many_at_once),
		cmocka_unit_test(backlog__is_right_within_a_sixteenth),
		cmocka_unit_test(format__shapes_out_of_range_are_refused),
		cmocka_unit_test(attach__what_is_no_such_ring_is_refused),
		cmocka_unit_test(mad_peer__costs_messages_and_nothing_else),
		cmocka_unit_test(mad_peer__a_lying_hint_is_found_out),
		cmocka_unit_test(
			processes__each_producers_messages_come_in_order),
		cmocka_unit_test(
			processes__killed_lose_nothing_and_double_only_with_mark),
		cmocka_unit_test(processes__stopped_and_fenced_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
