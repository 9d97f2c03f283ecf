/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What actors/queue.h promises: the life of a message from put to collect, who
 * may end a lease and who may not, what death and stopping leave behind at
 * each instruction, and memory that lies. Time is virtual. The last test is the
 * race of takers against each other and the keeper; run it under TSan.
 *
 * Harder: PETAL_TEST_HARDER=10 gives the race ten times as many messages.
 */
#include "tests/check.h"

#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>

#include "actors/queue.h"
#include "shm/clock.h"

#define SLOTS 8u
#define LEASE_NS PETAL_MS(10)
/* A deadline is kept in steps of this. */
#define GRAIN_NS UINT64_C(256)

/* Where the words lie, to play a taker that stops between two of its stores. */
#define HINT_OFFSET 128u
#define SLOTS_OFFSET 320u
#define SLOT_BYTES 64u
#define HINT_ORDINAL ((UINT64_C(1) << 48) - 1)

struct fixture {
	uint8_t *memory;
	uint64_t bytes;
	struct petal_queue queue;
};

static void queue_make(struct fixture *f, uint32_t slots)
{
	const struct petal_queue_geometry geometry = {
		.name = "work",
		.id = 1,
		.slot_count = slots,
		.lease_ns = LEASE_NS,
	};

	f->bytes = petal_queue_bytes(slots);
	f->memory = aligned_alloc(64, f->bytes);
	assert_non_null(f->memory);
	memset(f->memory, 0, f->bytes);
	assert_ok(petal_queue_format(f->memory, &geometry));
	assert_ok(petal_queue_attach(f->memory, f->bytes, &f->queue));
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	queue_make(f, SLOTS);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	free(f->memory);
	free(f);
	return 0;
}

static _Atomic uint64_t *word_at(struct fixture *f, uint64_t ordinal)
{
	return (void *)(f->memory + SLOTS_OFFSET +
			(ordinal & (f->queue.slot_count - 1)) * SLOT_BYTES);
}

static _Atomic uint64_t *hint_at(struct fixture *f)
{
	return (void *)(f->memory + HINT_OFFSET);
}

static struct petal_queue_item item_of(uint64_t lsn)
{
	return (struct petal_queue_item){
		.lsn = lsn,
		.pos = lsn * 64,
		.index = (uint32_t)(lsn & 3),
		.offset = 64,
		.length = (uint32_t)(lsn & 0xffff),
	};
}

static void put(struct fixture *f, uint64_t lsn)
{
	struct petal_queue_item item = item_of(lsn);

	assert_ok(petal_queue_put(&f->queue, &item));
}

static int take_at(struct fixture *f, uint32_t owner, uint64_t now_ns,
		   struct petal_queue_lease *lease, uint64_t *lsn,
		   uint32_t *redelivered)
{
	struct petal_queue_item item = { 0 }, expected;
	int err = petal_queue_take(&f->queue, owner, now_ns, &item, lease,
				   redelivered);

	if (err != 0)
		return err;
	expected = item_of(item.lsn);
	assert_int_equal(item.pos, expected.pos);
	assert_int_equal(item.index, expected.index);
	assert_int_equal(item.offset, expected.offset);
	assert_int_equal(item.length, expected.length);
	*lsn = item.lsn;
	return 0;
}

static struct petal_queue_lease take(struct fixture *f, uint32_t owner,
				     uint64_t lsn)
{
	struct petal_queue_lease lease = { 0 };
	uint32_t redelivered;
	uint64_t got = 0;

	assert_ok(take_at(f, owner, 0, &lease, &got, &redelivered));
	assert_int_equal(got, lsn);
	assert_int_equal(petal_queue_lease_owner(&lease), owner);
	return lease;
}

static void assert_none(struct fixture *f, uint32_t owner)
{
	struct petal_queue_lease lease;
	uint32_t redelivered;
	uint64_t lsn;

	assert_outcome(take_at(f, owner, 0, &lease, &lsn, &redelivered), 1);
}

static struct petal_queue_counts counts_of(struct fixture *f)
{
	struct petal_queue_counts counts;

	petal_queue_counts(&f->queue, &counts);
	assert_int_equal(counts.enqueued,
			 counts.ready + counts.leased + counts.done);
	return counts;
}

static unsigned expire(struct fixture *f, uint64_t now_ns)
{
	uint64_t next_ns;

	return petal_queue_expire(&f->queue, now_ns, &next_ns);
}

/* ---- shape ---- */

static void format__shape_out_of_range_is_refused(void **state)
{
	static const struct petal_queue_geometry bad[] = {
		{ .name = "w", .slot_count = 0, .lease_ns = 1 },
		{ .name = "w", .slot_count = 1, .lease_ns = 1 },
		{ .name = "w", .slot_count = 3, .lease_ns = 1 },
		{ .name = "w",
		  .slot_count = 2 * PETAL_QUEUE_SLOTS_MAX,
		  .lease_ns = 1 },
		{ .name = "w", .slot_count = 4, .lease_ns = 0 },
		{ .name = "", .slot_count = 4, .lease_ns = 1 },
	};
	alignas(64) uint8_t memory[1024] = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_outcome(petal_queue_format(memory, &bad[i]), -EINVAL);
}

static void attach__memory_that_lies_is_refused(void **state)
{
	static const uint32_t bad_slots[] = {
		0,
		1,
		3,
		2 * SLOTS,
		PETAL_QUEUE_SLOTS_MAX,
		2 * PETAL_QUEUE_SLOTS_MAX,
		UINT32_MAX,
		UINT32_C(1) << 31,
	};
	struct fixture *f = *state;
	uint32_t *words = (uint32_t *)(void *)f->memory;
	struct petal_queue queue;

	for (uint64_t bytes = 0; bytes < f->bytes; bytes += 8)
		assert_true(petal_queue_attach(f->memory, bytes, &queue) < 0);
	for (size_t i = 0; i < sizeof(bad_slots) / sizeof(bad_slots[0]); i++) {
		words[4] = bad_slots[i];
		assert_outcome(petal_queue_attach(f->memory, f->bytes, &queue),
			       -PETAL_EGEOMETRY);
	}
	words[4] = SLOTS;
	memset(f->memory + 24, 0, 8); /* lease_ns */
	assert_outcome(petal_queue_attach(f->memory, f->bytes, &queue),
		       -PETAL_EGEOMETRY);
	words[2]++;
	assert_outcome(petal_queue_attach(f->memory, f->bytes, &queue),
		       -PETAL_EVERSION);
	words[0]++;
	assert_outcome(petal_queue_attach(f->memory, f->bytes, &queue),
		       -EINVAL);
}

static void attach__name_without_an_end_is_cut(void **state)
{
	struct fixture *f = *state;
	struct petal_queue queue;

	memset(f->memory + 32, 'x', PETAL_QUEUE_NAME_BYTES);
	assert_ok(petal_queue_attach(f->memory, f->bytes, &queue));
	assert_int_equal(strlen(queue.name), PETAL_QUEUE_NAME_BYTES - 1);
}

/* ---- the life of a message ---- */

static void take__gives_the_oldest_first(void **state)
{
	struct fixture *f = *state;

	assert_none(f, 1);
	for (uint64_t lsn = 1; lsn <= 3; lsn++)
		put(f, lsn);
	for (uint64_t lsn = 1; lsn <= 3; lsn++)
		take(f, 1 + (uint32_t)lsn % 2, lsn);
	assert_none(f, 1);
	assert_int_equal(counts_of(f).leased, 3);
}

static void
put__full_table_says_eagain_until_the_oldest_is_collected(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_item item = item_of(100);
	struct petal_queue_lease first, second;

	for (uint64_t lsn = 1; lsn <= SLOTS; lsn++)
		put(f, lsn);
	assert_outcome(petal_queue_put(&f->queue, &item), -EAGAIN);
	first = take(f, 1, 1);
	second = take(f, 1, 2);
	assert_ok(petal_queue_settle(&f->queue, &second, 1000));
	assert_int_equal(petal_queue_collect(&f->queue, 1000), 64);
	assert_outcome(petal_queue_put(&f->queue, &item), -EAGAIN);
	assert_ok(petal_queue_settle(&f->queue, &first, 1000));
	assert_int_equal(petal_queue_collect(&f->queue, 1000), 3 * 64);
	put(f, 100);
	put(f, 101);
	assert_outcome(petal_queue_put(&f->queue, &item), -EAGAIN);
}

static void collect__waits_until_the_acknowledgement_is_visible(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;

	assert_int_equal(petal_queue_collect(&f->queue, 0), UINT64_MAX);
	put(f, 1);
	lease = take(f, 1, 1);
	assert_int_equal(petal_queue_collect(&f->queue, 5000), 64);
	assert_ok(petal_queue_settle(&f->queue, &lease, 5000));
	assert_int_equal(petal_queue_collect(&f->queue, 4999), 64);
	assert_int_equal(petal_queue_collect(&f->queue, 5000), UINT64_MAX);
	assert_int_equal(counts_of(f).done, 1);
}

static void settle__lease_that_ended_is_refused_and_counted(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease old, other, invented;

	put(f, 1);
	old = take(f, 1, 1);
	assert_ok(petal_queue_release(&f->queue, &old));
	assert_outcome(petal_queue_settle(&f->queue, &old, 1), -ESTALE);
	other = take(f, 2, 1);
	assert_outcome(petal_queue_settle(&f->queue, &old, 1), -ESTALE);
	assert_ok(petal_queue_settle(&f->queue, &other, 1));
	assert_outcome(petal_queue_settle(&f->queue, &other, 1), -ESTALE);
	invented = other;
	invented.ordinal += SLOTS;
	assert_outcome(petal_queue_settle(&f->queue, &invented, 1), -ESTALE);
	/* The word of a message that nobody leased is no lease. */
	put(f, 2);
	invented.ordinal = 1;
	invented.word = atomic_load(word_at(f, 1));
	assert_outcome(petal_queue_settle(&f->queue, &invented, 1), -ESTALE);
	assert_int_equal(counts_of(f).stale, 5);
}

static void check__says_whether_a_lease_is_in_force(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;

	put(f, 1);
	lease = take(f, 1, 1);
	assert_ok(petal_queue_check(&f->queue, &lease));
	assert_int_equal(expire(f, 2 * LEASE_NS), 1);
	assert_outcome(petal_queue_check(&f->queue, &lease), -ESTALE);
	lease = take(f, 2, 1);
	assert_ok(petal_queue_check(&f->queue, &lease));
	assert_ok(petal_queue_settle(&f->queue, &lease, 0));
	assert_outcome(petal_queue_check(&f->queue, &lease), -ESTALE);
	lease.word = atomic_load(word_at(f, 0));
	assert_outcome(petal_queue_check(&f->queue, &lease), -ESTALE);
}

static void unsettle__lease_goes_on_as_before(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;

	put(f, 1);
	lease = take(f, 1, 1);
	assert_ok(petal_queue_settle(&f->queue, &lease, 1));
	petal_queue_unsettle(&f->queue, &lease);
	assert_int_equal(counts_of(f).leased, 1);
	assert_int_equal(petal_queue_collect(&f->queue, UINT64_MAX), 64);
	assert_ok(petal_queue_settle(&f->queue, &lease, 1));
}

static void release__message_is_handed_out_again_and_says_so(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;
	uint32_t redelivered;
	uint64_t lsn;

	put(f, 1);
	put(f, 2);
	for (uint32_t n = 0; n < 3; n++) {
		assert_ok(take_at(f, 1, 0, &lease, &lsn, &redelivered));
		assert_int_equal(lsn, 1);
		assert_int_equal(redelivered, n);
		assert_ok(petal_queue_release(&f->queue, &lease));
		assert_outcome(petal_queue_release(&f->queue, &lease), -ESTALE);
	}
	assert_int_equal(counts_of(f).redelivered, 3);
	assert_int_equal(counts_of(f).ready, 2);
}

static void release__word_that_is_no_lease_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;

	put(f, 1);
	lease.ordinal = 0;
	lease.word = atomic_load(word_at(f, 0)); /* READY */
	assert_outcome(petal_queue_release(&f->queue, &lease), -ESTALE);
	lease = take(f, 1, 1);
	assert_ok(petal_queue_settle(&f->queue, &lease, 64));
	lease.word = atomic_load(word_at(f, 0)); /* SETTLED */
	assert_outcome(petal_queue_release(&f->queue, &lease), -ESTALE);
	assert_int_equal(counts_of(f).done, 1);
	assert_int_equal(counts_of(f).redelivered, 0);
}

static void redelivered__starts_again_with_each_message_of_a_slot(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;
	uint32_t redelivered;
	uint64_t lsn;

	for (uint64_t n = 0; n < 3 * SLOTS; n++) {
		put(f, n);
		for (uint32_t again = 0; again < 2; again++) {
			assert_ok(take_at(f, 1, 0, &lease, &lsn, &redelivered));
			assert_int_equal(redelivered, again);
			if (again == 0)
				assert_ok(
					petal_queue_release(&f->queue, &lease));
		}
		assert_ok(petal_queue_settle(&f->queue, &lease, 0));
		assert_int_equal(petal_queue_collect(&f->queue, 0), UINT64_MAX);
	}
}

static void generation__is_never_set_back_over_many_laps(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease old[SLOTS], lease;

	for (uint64_t lsn = 0; lsn < SLOTS; lsn++) {
		put(f, lsn);
		old[lsn] = take(f, 1, lsn);
		assert_ok(petal_queue_settle(&f->queue, &old[lsn], 0));
	}
	petal_queue_collect(&f->queue, 0);
	for (uint64_t lsn = SLOTS; lsn < 1000 * SLOTS; lsn++) {
		put(f, lsn);
		lease = take(f, 1, lsn);
		assert_true(lease.word != old[lsn % SLOTS].word);
		assert_outcome(petal_queue_settle(&f->queue, &old[lsn % SLOTS],
						  0),
			       -ESTALE);
		assert_outcome(petal_queue_release(&f->queue,
						   &old[lsn % SLOTS]),
			       -ESTALE);
		assert_ok(petal_queue_settle(&f->queue, &lease, 0));
		petal_queue_collect(&f->queue, 0);
	}
	assert_int_equal(counts_of(f).done, 1000 * SLOTS);
}

static void counts__always_add_up(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease held[SLOTS];
	unsigned held_count = 0;
	uint64_t random = 7, lsn = 0, got;
	uint32_t redelivered;

	for (unsigned n = 0; n < 20000; n++) {
		struct petal_queue_item item = item_of(lsn);
		uint64_t dice = petal_test_random(&random) % 8;
		unsigned i = held_count ? (unsigned)(dice % held_count) : 0;

		if (dice < 3 && petal_queue_put(&f->queue, &item) == 0)
			lsn++;
		if (dice >= 2 && dice < 6 && held_count < SLOTS &&
		    take_at(f, 1, 0, &held[held_count], &got, &redelivered) ==
			    0)
			held_count++;
		if (dice >= 6 && held_count > 0) {
			if (dice == 6)
				assert_ok(petal_queue_release(&f->queue,
							      &held[i]));
			else
				assert_ok(petal_queue_settle(&f->queue,
							     &held[i], n));
			held[i] = held[--held_count];
		}
		petal_queue_collect(&f->queue, n);
		assert_int_equal(counts_of(f).enqueued, lsn);
		assert_int_equal(counts_of(f).leased, held_count);
	}
}

/* ---- time ---- */

static void expire__returns_at_the_deadline_and_not_before(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;
	uint32_t redelivered;
	uint64_t next_ns, lsn;

	put(f, 1);
	assert_int_equal(petal_queue_expire(&f->queue, 5, &next_ns), 0);
	assert_true(next_ns == UINT64_MAX);
	assert_ok(take_at(f, 1, 1000, &lease, &lsn, &redelivered));
	assert_int_equal(petal_queue_expire(&f->queue, 2000, &next_ns), 0);
	assert_in_range(next_ns, 1000 + LEASE_NS, 1000 + LEASE_NS + GRAIN_NS);
	assert_int_equal(petal_queue_expire(&f->queue, next_ns - 1, &next_ns),
			 0);
	assert_int_equal(petal_queue_expire(&f->queue, next_ns, &next_ns), 1);
	assert_true(next_ns == UINT64_MAX);
	assert_outcome(petal_queue_settle(&f->queue, &lease, 1), -ESTALE);
	take(f, 2, 1);
	assert_int_equal(counts_of(f).expired, 1);
	assert_int_equal(counts_of(f).redelivered, 1);
}

static void
expire__sets_the_deadline_of_a_taker_that_stopped_before(void **state)
{
	struct fixture *f = *state;
	uint64_t word, next_ns;

	put(f, 1);
	/* Its swap went through, its next store did not. */
	word = atomic_load(word_at(f, 0));
	atomic_store(word_at(f, 0), 2u | 9u << 4 | ((word >> 16) + 1) << 16);
	assert_int_equal(expire(f, 50000), 0);
	assert_int_equal(petal_queue_expire(&f->queue, 60000, &next_ns), 0);
	assert_in_range(next_ns, 50000 + LEASE_NS, 50000 + LEASE_NS + GRAIN_NS);
	assert_int_equal(expire(f, next_ns), 1);
	take(f, 1, 1);
}

static void
expire__deadline_of_the_last_lease_is_not_taken_for_the_next(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;
	uint64_t word;

	put(f, 1);
	lease = take(f, 1, 1);
	assert_ok(petal_queue_release(&f->queue, &lease));
	/* The next taker stops before it sets one. */
	word = atomic_load(word_at(f, 0));
	atomic_store(word_at(f, 0), 2u | 9u << 4 | ((word >> 16) + 1) << 16);
	assert_int_equal(expire(f, 10 * LEASE_NS), 0);
	assert_int_equal(expire(f, 11 * LEASE_NS + GRAIN_NS), 1);
}

static void release__stale_one_does_not_prolong_the_next_lease(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease stale, lease;
	uint32_t redelivered;
	uint64_t lsn;

	put(f, 1);
	stale = take(f, 1, 1);
	assert_int_equal(expire(f, 2 * LEASE_NS), 1);
	assert_ok(take_at(f, 2, 2 * LEASE_NS, &lease, &lsn, &redelivered));
	assert_outcome(petal_queue_release(&f->queue, &stale), -ESTALE);
	assert_int_equal(expire(f, 3 * LEASE_NS + GRAIN_NS), 1);
}

/* ---- death ---- */

static void reclaim__returns_what_the_dead_held_and_no_more(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease dead1, dead2, alive, done;

	for (uint64_t lsn = 1; lsn <= 5; lsn++)
		put(f, lsn);
	dead1 = take(f, 1, 1);
	alive = take(f, 2, 2);
	dead2 = take(f, 1, 3);
	done = take(f, 1, 4);
	assert_ok(petal_queue_settle(&f->queue, &done, 64));
	assert_int_equal(petal_queue_reclaim(&f->queue, 1), 2);
	assert_int_equal(petal_queue_reclaim(&f->queue, 1), 0);
	assert_outcome(petal_queue_settle(&f->queue, &dead1, 64), -ESTALE);
	assert_outcome(petal_queue_settle(&f->queue, &dead2, 64), -ESTALE);
	assert_ok(petal_queue_settle(&f->queue, &alive, 64));
	take(f, 3, 1);
	take(f, 3, 3);
	take(f, 3, 5);
	assert_int_equal(counts_of(f).reclaimed, 2);
}

/* What a taker leaves that was killed in release, after its swap. */
static void die_in_release(struct fixture *f, struct petal_queue_lease *lease)
{
	atomic_store(word_at(f, lease->ordinal), 1u | (lease->word >> 16)
								 << 16);
}

static void reclaim__finds_what_a_taker_released_halfway(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;

	put(f, 1);
	put(f, 2);
	lease = take(f, 1, 1);
	take(f, 2, 2);
	die_in_release(f, &lease);
	petal_queue_reclaim(&f->queue, 1);
	take(f, 3, 1);
}

static void expire__finds_what_a_stopped_taker_released_halfway(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;

	put(f, 1);
	put(f, 2);
	lease = take(f, 1, 1);
	take(f, 2, 2);
	die_in_release(f, &lease);
	expire(f, 1);
	take(f, 3, 1);
}

static void take__hint_that_a_dead_taker_left_behind_costs_nothing(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;

	for (uint64_t lsn = 0; lsn < 3 * SLOTS; lsn++) {
		put(f, lsn);
		lease = take(f, 1, lsn);
		atomic_store(hint_at(f), 0); /* as if it had not moved it */
		assert_ok(petal_queue_settle(&f->queue, &lease, 0));
		petal_queue_collect(&f->queue, 0);
	}
	put(f, 3 * SLOTS);
	take(f, 2, 3 * SLOTS);
	assert_int_equal(atomic_load(hint_at(f)) & HINT_ORDINAL, 3 * SLOTS + 1);
}

/* ---- clerks ---- */

static void own__keeps_all_others_out_until_the_owner_is_dead(void **state)
{
	struct fixture *f = *state;
	struct petal_queue_lease lease;
	struct petal_queue_item item;
	uint32_t redelivered;

	put(f, 1);
	put(f, 2);
	assert_ok(petal_queue_own(&f->queue, 5));
	assert_ok(petal_queue_own(&f->queue, 5));
	assert_outcome(petal_queue_own(&f->queue, 6), -EBUSY);
	assert_outcome(petal_queue_take(&f->queue, 6, 0, &item, &lease,
					&redelivered),
		       -EPERM);
	take(f, 5, 1);
	petal_queue_reclaim(&f->queue, 6); /* another's death changes nothing */
	assert_outcome(petal_queue_own(&f->queue, 6), -EBUSY);
	assert_int_equal(petal_queue_reclaim(&f->queue, 5), 1);
	assert_ok(petal_queue_own(&f->queue, 6));
	take(f, 6, 1);
}

/* ---- the race ---- */

#define TAKERS 4u
#define RACE_SLOTS 64u
#define MAIL 16u

/* What a taker asks of the keeper: one producer, one consumer. */
struct race_taker {
	struct race *race;
	pthread_t thread;
	uint32_t owner;
	_Atomic uint64_t sent;
	_Atomic uint64_t seen;
	struct petal_queue_lease mail[MAIL];
	uint64_t lsns[MAIL];
	_Atomic bool dead; /* the keeper reclaims, and clears it */
};

struct race {
	struct fixture f;
	uint64_t messages;
	uint8_t *settled;
	uint64_t settled_count;
	_Atomic uint64_t now_ns;
	_Atomic bool over;
	struct race_taker takers[TAKERS];
};

static void taker_send(struct race_taker *taker,
		       const struct petal_queue_lease *lease, uint64_t lsn)
{
	uint64_t sent =
		atomic_load_explicit(&taker->sent, memory_order_relaxed);

	while (sent - atomic_load_explicit(&taker->seen,
					   memory_order_acquire) ==
	       MAIL)
		sched_yield();
	taker->mail[sent % MAIL] = *lease;
	taker->lsns[sent % MAIL] = lsn;
	atomic_store_explicit(&taker->sent, sent + 1, memory_order_release);
}

static void *taker_main(void *arg)
{
	struct race_taker *taker = arg;
	struct race *race = taker->race;
	struct petal_queue queue = race->f.queue;
	uint64_t random = taker->owner;
	struct petal_queue_item item;
	struct petal_queue_lease lease;
	uint32_t redelivered;

	while (!atomic_load(&race->over)) {
		uint64_t dice = petal_test_random(&random) % 64;

		if (petal_queue_take(&queue, taker->owner,
				     atomic_load(&race->now_ns), &item, &lease,
				     &redelivered) != 0) {
			sched_yield();
			continue;
		}
		/* Not an assertion of cmocka, which would longjmp. */
		if (item.pos != item.lsn * 64 || item.index != (item.lsn & 3) ||
		    item.offset != 64 || item.length != (item.lsn & 0xffff))
			abort();
		if (dice < 16) {
			petal_queue_release(&queue, &lease);
		} else if (dice < 18) {
			/* Forgotten: it comes back at the deadline. */
		} else if (dice == 18) {
			atomic_store(&taker->dead, true);
			while (atomic_load(&taker->dead) &&
			       !atomic_load(&race->over))
				sched_yield();
		} else {
			taker_send(taker, &lease, item.lsn);
		}
	}
	return NULL;
}

static void keeper_answer(struct race *race, struct race_taker *taker)
{
	uint64_t seen =
		atomic_load_explicit(&taker->seen, memory_order_relaxed);
	uint64_t sent =
		atomic_load_explicit(&taker->sent, memory_order_acquire);

	for (; seen < sent; seen++) {
		if (petal_queue_settle(&race->f.queue,
				       &taker->mail[seen % MAIL], 0) != 0)
			continue;
		assert_int_equal(race->settled[taker->lsns[seen % MAIL]]++, 0);
		race->settled_count++;
	}
	atomic_store_explicit(&taker->seen, seen, memory_order_release);
	if (atomic_load(&taker->dead)) {
		petal_queue_reclaim(&race->f.queue, taker->owner);
		atomic_store(&taker->dead, false);
	}
}

static void race__every_message_is_settled_once_and_none_is_stuck(void **state)
{
	struct race *race = calloc(1, sizeof(*race));
	uint64_t lsn = 0, next_ns, looks = 0, stall = 0, last = 0;

	(void)state;
	race->messages = petal_test_rounds(100000);
	race->settled = calloc(race->messages, 1);
	queue_make(&race->f, RACE_SLOTS);
	for (uint32_t i = 0; i < TAKERS; i++) {
		race->takers[i].race = race;
		race->takers[i].owner = i + 1;
		assert_int_equal(pthread_create(&race->takers[i].thread, NULL,
						taker_main, &race->takers[i]),
				 0);
	}
	while (race->settled_count < race->messages) {
		struct petal_queue_item item = item_of(lsn);

		while (lsn < race->messages &&
		       petal_queue_put(&race->f.queue, &item) == 0)
			item = item_of(++lsn);
		for (uint32_t i = 0; i < TAKERS; i++)
			keeper_answer(race, &race->takers[i]);
		petal_queue_collect(&race->f.queue, 0);
		if (++looks % 16 == 0) {
			atomic_fetch_add(&race->now_ns, LEASE_NS / 8);
			petal_queue_expire(&race->f.queue,
					   atomic_load(&race->now_ns),
					   &next_ns);
		}
		stall = race->settled_count == last ? stall + 1 : 0;
		last = race->settled_count;
		if (stall > 20000000)
			fail_msg("stuck with %llu of %llu settled",
				 (unsigned long long)last,
				 (unsigned long long)race->messages);
		sched_yield();
	}
	atomic_store(&race->over, true);
	for (uint32_t i = 0; i < TAKERS; i++)
		pthread_join(race->takers[i].thread, NULL);
	assert_int_equal(counts_of(&race->f).done, race->messages);
	assert_true(counts_of(&race->f).expired > 0);
	assert_true(counts_of(&race->f).reclaimed > 0);
	free(race->f.memory);
	free(race->settled);
	free(race);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(format__shape_out_of_range_is_refused),
		TEST(attach__memory_that_lies_is_refused),
		TEST(attach__name_without_an_end_is_cut),
		TEST(take__gives_the_oldest_first),
		TEST(put__full_table_says_eagain_until_the_oldest_is_collected),
		TEST(collect__waits_until_the_acknowledgement_is_visible),
		TEST(settle__lease_that_ended_is_refused_and_counted),
		TEST(check__says_whether_a_lease_is_in_force),
		TEST(unsettle__lease_goes_on_as_before),
		TEST(release__message_is_handed_out_again_and_says_so),
		TEST(release__word_that_is_no_lease_changes_nothing),
		TEST(redelivered__starts_again_with_each_message_of_a_slot),
		TEST(generation__is_never_set_back_over_many_laps),
		TEST(counts__always_add_up),
		TEST(expire__returns_at_the_deadline_and_not_before),
		TEST(expire__sets_the_deadline_of_a_taker_that_stopped_before),
		TEST(expire__deadline_of_the_last_lease_is_not_taken_for_the_next),
		TEST(release__stale_one_does_not_prolong_the_next_lease),
		TEST(reclaim__returns_what_the_dead_held_and_no_more),
		TEST(reclaim__finds_what_a_taker_released_halfway),
		TEST(expire__finds_what_a_stopped_taker_released_halfway),
		TEST(take__hint_that_a_dead_taker_left_behind_costs_nothing),
		TEST(own__keeps_all_others_out_until_the_owner_is_dead),
		cmocka_unit_test(
			race__every_message_is_settled_once_and_none_is_stuck),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
