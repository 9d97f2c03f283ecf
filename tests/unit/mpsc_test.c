/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings/mpsc.h promises: order and whole records from many producers, at
 * every remainder of the ring and near the ends of the counters; death at any
 * instruction of a producer, a consumer and a repairer; and bytes that lie.
 *
 * Harder: PETAL_TEST_RECORDS=2000000 records per thread (default 200000), and
 * PETAL_TEST_ROUNDS=5000 rounds of kills (default 200). A failed round prints
 * its seed; PETAL_TEST_SEED=n starts from there.
 */
#include "tests/check.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "rings/mpsc.h"
#include "shm/crc32c.h"

#define DATA_BYTES UINT64_C(4096)
#define OWNERS 8u

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 10) : otherwise;
}

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ---- a ring in memory that children share ---- */

struct fixture {
	uint8_t *memory;
	uint64_t bytes;
	uint64_t header_bytes;
	uint64_t data_bytes;
	struct petal_mpsc ring; /* the consumer's view, owner 0 */
	uint64_t pos;           /* the consumer's position */
};

static uint8_t *data_of(const struct fixture *f)
{
	return f->memory + f->header_bytes;
}

static struct petal_mpsc view_of(const struct fixture *f, uint32_t owner)
{
	struct petal_mpsc ring;

	assert_ok(petal_mpsc_attach(f->memory, f->header_bytes, data_of(f),
				    f->data_bytes, owner, &ring));
	return ring;
}

static void fixture_init(struct fixture *f,
			 const struct petal_mpsc_geometry *geometry)
{
	*f = (struct fixture){
		.header_bytes = petal_mpsc_bytes(geometry),
		.data_bytes = geometry->data_bytes,
		.pos = geometry->start_pos,
	};
	f->bytes = f->header_bytes + f->data_bytes;
	f->memory = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(f->memory, MAP_FAILED);
	assert_ok(petal_mpsc_format(f->memory, geometry));
	f->ring = view_of(f, 0);
}

static void fixture_fini(struct fixture *f)
{
	munmap(f->memory, f->bytes);
}

static void small_init(struct fixture *f, uint64_t start_pos)
{
	const struct petal_mpsc_geometry geometry = {
		.data_bytes = DATA_BYTES,
		.owners = OWNERS,
		.start_pos = start_pos,
	};

	fixture_init(f, &geometry);
}

/* ---- records that can be judged ---- */

struct payload {
	uint32_t crc; /* of all that follows, to the end of the record */
	uint32_t owner;
	uint64_t sequence;
};

static void fill(const struct petal_mpsc_claim *claim, uint32_t length,
		 uint32_t owner, uint64_t sequence)
{
	struct payload *payload = (void *)(claim->record + 1);
	uint8_t *bytes = (uint8_t *)payload;
	uint64_t *words = (uint64_t *)payload;
	uint32_t i;

	payload->owner = owner;
	payload->sequence = sequence;
	for (i = sizeof(*payload) / 8; i < length / 8; i++)
		words[i] = sequence * 31 + i;
	for (i *= 8; i < length; i++)
		bytes[i] = (uint8_t)(sequence + i);
	payload->crc = petal_crc32c(0, bytes + 4, length - 4);
	claim->record->type = 1;
}

static int send(struct petal_mpsc *ring, uint32_t length, uint64_t sequence)
{
	struct petal_mpsc_claim claim = { 0 };
	int err = petal_mpsc_claim(ring, length, &claim);

	if (err)
		return err;
	fill(&claim, length, ring->owner, sequence);
	return petal_mpsc_publish(ring, &claim);
}

static const struct payload *judge(const struct petal_mpsc_view *view)
{
	const struct payload *payload = (const void *)(view->record + 1);

	assert_true(view->length >= sizeof(*payload));
	assert_int_equal(petal_crc32c(0, (const uint8_t *)payload + 4,
				      view->length - 4),
			 payload->crc);
	assert_int_equal(payload->owner, view->owner);
	return payload;
}

/* The next record that is not padding; petal_mpsc_peek()'s outcome if none. */
static int receive(struct fixture *f, struct petal_mpsc_view *ret_view)
{
	for (;;) {
		int outcome = petal_mpsc_peek(&f->ring, f->pos, ret_view);

		if (outcome)
			return outcome;
		f->pos = ret_view->end;
		if (ret_view->type != PETAL_RECORD_TYPE_PADDING)
			return 0;
	}
}

static void assert_received(struct fixture *f, uint32_t owner,
			    uint64_t sequence)
{
	struct petal_mpsc_view view;

	assert_outcome(receive(f, &view), 0);
	assert_int_equal(judge(&view)->owner, owner);
	assert_int_equal(judge(&view)->sequence, sequence);
}

static void assert_empty(struct fixture *f)
{
	struct petal_mpsc_view view;

	assert_outcome(receive(f, &view), 1);
	assert_int_equal(f->pos, petal_mpsc_tail(&f->ring));
}

static void assert_free_lines_are_zero(struct fixture *f)
{
	uint64_t head = petal_mpsc_head(&f->ring);

	for (uint64_t pos = petal_mpsc_tail(&f->ring);
	     pos != head + f->data_bytes; pos += PETAL_RECORD_ALIGN) {
		static const uint8_t zero[PETAL_RECORD_HEADER_BYTES];

		assert_memory_equal(petal_mpsc_record(&f->ring, pos), zero,
				    sizeof(zero));
	}
}

/* A few laps of every length, as if nothing had ever happened to the ring. */
static void assert_usable(struct fixture *f)
{
	struct petal_mpsc ring = view_of(f, OWNERS - 1);
	uint64_t seed = 1;

	petal_mpsc_release(&f->ring, f->pos);
	assert_free_lines_are_zero(f);
	assert_int_equal(petal_mpsc_used(&f->ring), 0);
	for (uint64_t i = 0; i < 20; i++) {
		uint32_t length = 16 + (uint32_t)(random_next(&seed) %
						  (f->data_bytes / 4 - 15));

		assert_ok(send(&ring, length, i));
		assert_received(f, OWNERS - 1, i);
		petal_mpsc_release(&f->ring, f->pos);
	}
	assert_empty(f);
	assert_free_lines_are_zero(f);
}

/* ---- what one thread can see ---- */

static void claim__gives_room_in_order_and_peek_finds_it(void **state)
{
	struct petal_mpsc_claim first = { 0 }, second = { 0 };
	struct petal_mpsc_view view;
	struct petal_mpsc one, two;
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	one = view_of(&f, 1);
	two = view_of(&f, 2);
	assert_outcome(petal_mpsc_peek(&f.ring, 0, &view), 1);
	assert_ok(petal_mpsc_claim(&one, 100, &first));
	assert_ok(petal_mpsc_claim(&two, 16, &second));
	assert_int_equal(first.pos, 0);
	assert_int_equal(first.end, 128);
	assert_int_equal(second.pos, 128);
	assert_int_equal(petal_mpsc_used(&f.ring), 192);

	/* The second is published, but its turn has not come. */
	fill(&second, 16, 2, 7);
	assert_ok(petal_mpsc_publish(&two, &second));
	assert_outcome(petal_mpsc_peek(&f.ring, 0, &view), 2);
	assert_ok(petal_mpsc_peek(&f.ring, 128, &view));

	fill(&first, 100, 1, 6);
	assert_ok(petal_mpsc_publish(&one, &first));
	assert_received(&f, 1, 6);
	assert_received(&f, 2, 7);
	assert_empty(&f);
	assert_usable(&f);
	fixture_fini(&f);
}

static void abort__leaves_padding(void **state)
{
	struct petal_mpsc_claim claim = { 0 };
	struct petal_mpsc_view view;
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	assert_ok(petal_mpsc_claim(&f.ring, 500, &claim));
	assert_ok(petal_mpsc_abort(&f.ring, &claim));
	assert_ok(petal_mpsc_peek(&f.ring, 0, &view));
	assert_int_equal(view.type, PETAL_RECORD_TYPE_PADDING);
	assert_int_equal(view.end, claim.end);
	assert_outcome(petal_mpsc_publish(&f.ring, &claim), -ESTALE);
	assert_empty(&f);
	assert_usable(&f);
	fixture_fini(&f);
}

static void claim__full_ring_refuses_until_some_is_released(void **state)
{
	struct petal_mpsc_claim claim = { 0 };
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	for (uint64_t i = 0; i < DATA_BYTES / 64; i++)
		assert_ok(send(&f.ring, 16, i));
	assert_outcome(petal_mpsc_claim(&f.ring, 16, &claim), -EAGAIN);

	/* Read, but not released, is not free. The ring is full and ends. */
	for (uint64_t i = 0; i < DATA_BYTES / 64; i++)
		assert_received(&f, 0, i);
	assert_empty(&f);
	assert_outcome(petal_mpsc_claim(&f.ring, 16, &claim), -EAGAIN);

	petal_mpsc_release(&f.ring, 64);
	assert_outcome(petal_mpsc_claim(&f.ring, 49, &claim), -EAGAIN);
	assert_ok(send(&f.ring, 48, 99));
	assert_received(&f, 0, 99);
	assert_usable(&f);
	fixture_fini(&f);
}

static void claim__longest_record_always_fits_into_an_empty_ring(void **state)
{
	struct petal_mpsc_claim claim = { 0 };

	(void)state;
	for (uint64_t start = 0; start < DATA_BYTES; start += 64) {
		const struct petal_mpsc_geometry geometry = {
			.data_bytes = DATA_BYTES,
			.owners = OWNERS,
			.reserve_bytes = DATA_BYTES / 2 - 64,
			.start_pos = start,
		};
		struct petal_mpsc ring;
		struct fixture f;

		fixture_init(&f, &geometry);
		ring = view_of(&f, 1);
		assert_outcome(petal_mpsc_claim(&ring, DATA_BYTES / 4 + 1,
						&claim),
			       -EMSGSIZE);
		assert_ok(petal_mpsc_claim(&ring, DATA_BYTES / 4, &claim));
		fixture_fini(&f);
	}
}

static void claim__only_owner_0_may_use_the_reserve(void **state)
{
	const struct petal_mpsc_geometry geometry = {
		.data_bytes = DATA_BYTES,
		.owners = OWNERS,
		.reserve_bytes = 512,
	};
	struct petal_mpsc_claim claim = { 0 };
	struct petal_mpsc ring;
	struct fixture f;

	(void)state;
	fixture_init(&f, &geometry);
	ring = view_of(&f, 1);
	for (uint64_t i = 0; i < (DATA_BYTES - 512) / 64; i++)
		assert_ok(send(&ring, 48, i));
	assert_outcome(petal_mpsc_claim(&ring, 16, &claim), -EAGAIN);
	for (uint64_t i = 0; i < 512 / 64; i++)
		assert_ok(send(&f.ring, 48, i));
	assert_outcome(petal_mpsc_claim(&f.ring, 16, &claim), -EAGAIN);
	fixture_fini(&f);
}

static void claim__wraps_at_every_remainder_with_every_extent(void **state)
{
	(void)state;
	for (uint64_t line = 0; line < DATA_BYTES / 64; line++) {
		for (uint32_t length = 16; length <= DATA_BYTES / 4;
		     length += 48) {
			uint64_t to_end = DATA_BYTES - line * 64;
			struct petal_mpsc_view view;
			struct fixture f;

			small_init(&f, DATA_BYTES * 5 + line * 64);
			assert_ok(send(&f.ring, length, line));
			assert_ok(petal_mpsc_peek(&f.ring, f.pos, &view));
			if (petal_record_extent(length) > to_end) {
				assert_int_equal(view.type,
						 PETAL_RECORD_TYPE_PADDING);
				assert_int_equal(view.end - view.pos, to_end);
			}
			assert_received(&f, 0, line);
			assert_int_equal(view_of(&f, 0).tail_seen, f.pos);
			assert_empty(&f);
			fixture_fini(&f);
		}
	}
}

static void positions__pass_the_ends_of_32_48_and_63_bits(void **state)
{
	static const uint64_t ends[] = {
		UINT64_C(1) << 32,
		UINT64_C(1) << 48,
		/* Where the 48 bits of lap begin anew, in a ring of 4 KiB. */
		UINT64_C(1) << 60,
		UINT64_C(1) << 63,
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		uint64_t dead[4] = { 1 << 1 };
		struct petal_mpsc_claim claim = { 0 };
		struct petal_mpsc one;
		struct fixture f;

		small_init(&f, ends[i] - 3 * DATA_BYTES - 1984);
		for (uint64_t n = 0; n < 300; n++) {
			uint32_t length = 16 + (uint32_t)(n * 37 % 1000);

			assert_ok(send(&f.ring, length, n));
			/* Each third claim is left by a dead owner. */
			one = view_of(&f, 1);
			if (n % 3 == 0)
				assert_ok(
					petal_mpsc_claim(&one, length, &claim));
			assert_received(&f, 0, n);
			assert_outcome(petal_mpsc_repair(&f.ring, f.pos, dead),
				       n % 3 == 0);
			assert_empty(&f);
			petal_mpsc_release(&f.ring, f.pos);
			assert_free_lines_are_zero(&f);
		}
		assert_true(f.pos > ends[i] + 5 * DATA_BYTES);
		fixture_fini(&f);
	}
}

/* ---- many threads ---- */

struct producer {
	pthread_t thread;
	struct petal_mpsc ring;
	uint64_t records;
	struct petal_u64 failures;
};

static void *produce(void *argument)
{
	struct producer *producer = argument;
	uint64_t seed = 77 + producer->ring.owner;

	for (uint64_t i = 0; i < producer->records;) {
		uint32_t length = 16 + (uint32_t)(random_next(&seed) % 240);
		struct petal_mpsc_claim claim = { 0 };
		int err = petal_mpsc_claim(&producer->ring, length, &claim);

		if (err == -EAGAIN) {
			sched_yield();
			continue;
		}
		if (err) {
			petal_add(&producer->failures, 1, PETAL_RELAXED);
			break;
		}
		if (random_next(&seed) % 16 == 0) {
			petal_add(&producer->failures,
				  petal_mpsc_abort(&producer->ring, &claim) !=
					  0,
				  PETAL_RELAXED);
			continue;
		}
		fill(&claim, length, producer->ring.owner, i++);
		petal_add(&producer->failures,
			  petal_mpsc_publish(&producer->ring, &claim) != 0,
			  PETAL_RELAXED);
	}
	return NULL;
}

static void run_threads(uint64_t data_bytes, uint64_t records)
{
	const struct petal_mpsc_geometry geometry = {
		.data_bytes = data_bytes,
		.owners = 5,
		.reserve_bytes = 1024,
	};
	struct producer producers[4];
	uint64_t next[5] = { 0 };
	struct fixture f;

	fixture_init(&f, &geometry);
	for (uint32_t i = 0; i < 4; i++) {
		producers[i] = (struct producer){ .ring = view_of(&f, i + 1),
						  .records = records };
		assert_ok(pthread_create(&producers[i].thread, NULL, produce,
					 &producers[i]));
	}
	for (uint64_t got = 0; got < records * 4;) {
		struct petal_mpsc_view view;
		int outcome = receive(&f, &view);

		if (outcome == 0) {
			const struct payload *payload = judge(&view);

			assert_int_equal(payload->sequence,
					 next[payload->owner]++);
			got++;
		}
		if (outcome != 0 || got % 64 == 0)
			petal_mpsc_release(&f.ring, f.pos);
		if (outcome != 0) {
			assert_true(outcome > 0);
			for (uint32_t i = 0; i < 4; i++)
				assert_int_equal(
					petal_load(&producers[i].failures,
						   PETAL_RELAXED),
					0);
			sched_yield();
		}
	}
	for (uint32_t i = 0; i < 4; i++) {
		pthread_join(producers[i].thread, NULL);
		assert_int_equal(
			petal_load(&producers[i].failures, PETAL_RELAXED), 0);
		assert_int_equal(next[i + 1], records);
	}
	/* Aborted claims may still stand before the tail. */
	assert_empty(&f);
	petal_mpsc_release(&f.ring, f.pos);
	assert_free_lines_are_zero(&f);
	fixture_fini(&f);
}

static void
threads__each_producers_records_arrive_whole_and_in_order(void **state)
{
	uint64_t records = setting("PETAL_TEST_RECORDS", 200000);

	(void)state;
	run_threads(65536, records);
	/* As small as may be: it is drained and filled between two looks. */
	run_threads(4096, records / 4);
}

/* ---- death, step by step, by hand ---- */

enum step { INTENT, SWAPPED, HELD, LENGTH, FILLED, STEPS };

/* What petal_mpsc_claim() does, up to the step at which its caller dies. */
static void claim_until(struct fixture *f, uint32_t owner, uint32_t length,
			enum step step)
{
	struct petal_mpsc ring = view_of(f, owner);
	struct petal_mpsc_intent *intent = &ring.intents[owner];
	uint64_t extent = petal_record_extent(length);
	struct petal_record *record;
	uint64_t tail;
	int outcome;

	do
		outcome = petal_mpsc_make_room(&ring, extent, &tail);
	while (outcome > 0);
	assert_ok(outcome);
	record = petal_mpsc_record(&ring, tail);
	petal_mpsc_intend(intent, tail, tail + extent);
	if (step >= SWAPPED)
		petal_store(&ring.shared->tail, tail + extent, PETAL_RELAXED);
	if (step >= HELD)
		petal_store(&intent->from, tail | PETAL_MPSC_HELD,
			    PETAL_RELAXED);
	if (step >= LENGTH)
		record->length = length;
	if (step >= FILLED)
		memset(record + 1, 0xff, length);
}

static int repair(struct fixture *f, uint64_t dead)
{
	const uint64_t map[PETAL_MPSC_OWNERS_MAX / 64] = { dead };

	return petal_mpsc_repair(&f->ring, f->pos, map);
}

/* Before the end of a lap with this much left, and a record already there. */
static void near_end_init(struct fixture *f, uint64_t to_end)
{
	small_init(f, 3 * DATA_BYTES - to_end - 64);
	assert_ok(send(&f->ring, 16, 1));
}

static void death__at_each_step_of_a_claim_leaves_a_usable_ring(void **state)
{
	static const uint64_t to_ends[] = { 64, 128, 576, 640, 1024, 2048 };

	(void)state;
	for (unsigned e = 0; e < 6; e++) {
		for (enum step step = INTENT; step < STEPS; step++) {
			uint64_t tail;
			struct fixture f;

			near_end_init(&f, to_ends[e]);
			claim_until(&f, 1, 600, step);
			tail = petal_mpsc_tail(&f.ring);
			assert_outcome(repair(&f, 1 << 1), step >= SWAPPED);
			assert_outcome(repair(&f, 1 << 1), 0);
			assert_int_equal(petal_mpsc_tail(&f.ring), tail);
			assert_ok(send(&f.ring, 16, 2));
			assert_received(&f, 0, 1);
			assert_received(&f, 0, 2);
			assert_empty(&f);
			assert_usable(&f);
			fixture_fini(&f);
		}
	}
}

static void death__of_several_in_a_row_is_repaired_in_one_call(void **state)
{
	struct fixture f;

	(void)state;
	near_end_init(&f, 256);
	claim_until(&f, 1, 100, SWAPPED);
	claim_until(&f, 2, 300, SWAPPED);
	claim_until(&f, 3, 16, HELD);
	claim_until(&f, 4, 500, FILLED);
	assert_ok(send(&f.ring, 16, 2));
	claim_until(&f, 5, 16, INTENT);
	assert_outcome(repair(&f, 0x3e), 4);
	assert_outcome(repair(&f, 0x3e), 0);
	assert_received(&f, 0, 1);
	assert_received(&f, 0, 2);
	assert_empty(&f);
	assert_usable(&f);
	fixture_fini(&f);
}

/* How the end of the true claim shows. */
enum evidence { IS_TAIL, IS_NAMED, IS_WISHED, IS_SWAPPED_BY_DEAD, EVIDENCES };

static void show_end(struct fixture *f, enum evidence evidence)
{
	switch (evidence) {
	case IS_TAIL:
	case EVIDENCES:
		break;
	case IS_NAMED:
		/* Two, so that the intent of the first is gone. */
		assert_ok(send(&f->ring, 700, 2));
		assert_ok(send(&f->ring, 16, 3));
		break;
	case IS_WISHED:
		claim_until(f, 3, 700, INTENT);
		break;
	case IS_SWAPPED_BY_DEAD:
		claim_until(f, 3, 700, SWAPPED);
		break;
	}
}

/*
 * Owners 1 and 2 both wished to swap from the same position and died; 2 was
 * the one that did it. Every pair of lengths, at ends of the ring that neither,
 * one or both of them cross.
 */
static void two_dead(uint64_t to_end, uint32_t lost, uint32_t won,
		     enum step step, enum evidence evidence)
{
	struct fixture f;
	uint64_t end;

	near_end_init(&f, to_end);
	claim_until(&f, 1, lost, INTENT);
	claim_until(&f, 2, won, step);
	end = petal_mpsc_tail(&f.ring);
	show_end(&f, evidence);
	assert_int_equal(repair(&f, 0xe), 1 + (evidence == IS_SWAPPED_BY_DEAD));
	assert_outcome(repair(&f, 0xe), 0);
	assert_received(&f, 0, 1);
	if (evidence == IS_NAMED) {
		assert_received(&f, 0, 2);
		assert_true(f.pos >= end + petal_record_extent(700));
		assert_received(&f, 0, 3);
	}
	assert_empty(&f);
	assert_usable(&f);
	fixture_fini(&f);
}

static void
death__of_two_with_one_intent_position_finds_the_true_one(void **state)
{
	static const uint32_t lengths[] = { 16, 48, 49, 200, 432, 1000, 1024 };
	static const uint64_t to_ends[] = { 64, 128, 256, 448, 512, 1088, 2048 };

	(void)state;
	for (unsigned e = 0; e < 7; e++)
		for (unsigned l = 0; l < 7; l++)
			for (unsigned w = 0; w < 7; w++)
				for (enum step s = SWAPPED; s < STEPS; s++)
					for (unsigned v = 0; v < EVIDENCES; v++)
						two_dead(to_ends[e], lengths[l],
							 lengths[w], s,
							 (enum evidence)v);
}

static void repair__passes_a_living_owner_between_swap_and_mark(void **state)
{
	struct petal_mpsc_view view;
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	claim_until(&f, 1, 100, SWAPPED);
	claim_until(&f, 2, 100, HELD);
	claim_until(&f, 3, 100, SWAPPED);
	assert_outcome(repair(&f, 1 << 2 | 1 << 3), 2);
	assert_outcome(receive(&f, &view), PETAL_RING_PENDING);
	assert_outcome(repair(&f, 1 << 1), 1);
	assert_empty(&f);
	assert_usable(&f);
	fixture_fini(&f);
}

/* Two wished for the very same, neither has marked it, and one of them lives. */
static void tied(uint32_t dead, uint32_t won)
{
	uint32_t living = 3 - dead;
	struct petal_mpsc_view view;
	struct fixture f;
	uint32_t owner;

	small_init(&f, 0);
	claim_until(&f, 3 - won, 100, INTENT);
	claim_until(&f, won, 100, SWAPPED);
	for (int i = 0; i < 2; i++)
		assert_outcome(repair(&f, UINT64_C(1) << dead), -EAGAIN);
	assert_outcome(petal_mpsc_fence(&f.ring, f.pos, &owner), -EAGAIN);
	assert_outcome(receive(&f, &view), PETAL_RING_PENDING);
	if (living == won) {
		/* It marks what it has, and is not hurt. */
		petal_store(&f.ring.intents[living].from, PETAL_MPSC_HELD,
			    PETAL_RELAXED);
		assert_outcome(repair(&f, UINT64_C(1) << dead), 0);
		assert_outcome(receive(&f, &view), PETAL_RING_PENDING);
	} else {
		/* It claims another, and the gap is known as the dead one's. */
		claim_until(&f, living, 100, HELD);
		assert_outcome(repair(&f, UINT64_C(1) << dead), 1);
	}
	assert_outcome(repair(&f, UINT64_C(1) << living), 1);
	assert_empty(&f);
	assert_usable(&f);
	fixture_fini(&f);
}

static void repair__of_two_with_one_wish_waits_for_the_living_one(void **state)
{
	(void)state;
	for (uint32_t dead = 1; dead <= 2; dead++)
		for (uint32_t won = 1; won <= 2; won++)
			tied(dead, won);
}

/* The loser of a swap is alive, and stopped where it cannot know yet. */
static void repair__is_not_held_up_by_a_living_losers_wish(void **state)
{
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	claim_until(&f, 1, 300, INTENT);
	claim_until(&f, 2, 100, SWAPPED);
	assert_outcome(repair(&f, 1 << 2), 1);
	assert_empty(&f);
	assert_usable(&f);
	fixture_fini(&f);
}

static void repair__leaves_a_living_owners_claims_alone(void **state)
{
	struct petal_mpsc_claim claim = { 0 };
	struct petal_mpsc one;
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	one = view_of(&f, 1);
	assert_ok(petal_mpsc_claim(&one, 100, &claim));
	claim_until(&f, 2, 100, SWAPPED);
	assert_outcome(repair(&f, 1 << 2), 1);
	fill(&claim, 100, 1, 5);
	assert_ok(petal_mpsc_publish(&one, &claim));
	assert_received(&f, 1, 5);
	assert_empty(&f);
	fixture_fini(&f);
}

/* ---- a stalled owner ---- */

/* Send and take until the positions have gone round so often. */
static void go_round(struct fixture *f, uint32_t owner, unsigned laps,
		     uint64_t seed)
{
	struct petal_mpsc ring = view_of(f, owner);
	uint64_t to_pos = f->pos + laps * f->data_bytes;

	for (uint64_t i = 0; f->pos < to_pos; i++) {
		uint32_t length = 16 + (uint32_t)(random_next(&seed) %
						  (f->data_bytes / 4 - 15));

		/* Padding before an extent may be all that fits in. */
		while (send(&ring, length, i) == -EAGAIN) {
			struct petal_mpsc_view view;

			assert_outcome(receive(f, &view), PETAL_RING_EMPTY);
			petal_mpsc_release(&f->ring, f->pos);
		}
		assert_received(f, owner, i);
		petal_mpsc_release(&f->ring, f->pos);
	}
}

static void assert_filled(const struct petal_mpsc_claim *claim, uint8_t byte)
{
	const uint8_t *bytes = (const uint8_t *)(claim->record + 1);
	uint64_t count = claim->end - claim->pos - sizeof(*claim->record);

	for (uint64_t i = 0; i < count; i++)
		assert_int_equal(bytes[i], byte);
}

static void fill_all(const struct petal_mpsc_claim *claim, uint8_t byte)
{
	memset(claim->record + 1, byte,
	       claim->end - claim->pos - sizeof(*claim->record));
}

/* Everywhere in the ring, and of every extent: the laps go on around it. */
static void
fence__leaves_the_extent_alone_until_it_is_acknowledged(void **state)
{
	static const uint32_t lengths[] = { 48, 49, 300, 1024 };

	(void)state;
	for (unsigned n = 0; n < 64 * 4; n++) {
		struct petal_mpsc_claim claim = { 0 };
		struct petal_mpsc one;
		struct fixture f;
		uint32_t owner = 0;

		small_init(&f, 7 * DATA_BYTES + n / 4 * 64);
		one = view_of(&f, 1);
		assert_ok(petal_mpsc_claim(&one, lengths[n % 4], &claim));
		fill_all(&claim, 0xa5);
		assert_ok(send(&f.ring, 100, 7));
		f.pos = claim.pos;
		assert_ok(petal_mpsc_fence(&f.ring, f.pos, &owner));
		assert_int_equal(owner, 1);
		assert_outcome(petal_mpsc_fence(&f.ring, f.pos, &owner),
			       PETAL_RING_EMPTY);
		assert_received(&f, 0, 7);
		go_round(&f, 2, 5, n + 1);
		assert_filled(&claim, 0xa5);
		/* A late store of the owner reaches nobody. */
		fill_all(&claim, 0x5a);
		go_round(&f, 2, 3, n + 1);
		assert_filled(&claim, 0x5a);
		assert_outcome(petal_mpsc_publish(&one, &claim), -ESTALE);
		go_round(&f, 2, 2, n + 1);
		assert_int_equal(f.ring.shared->fenced.bits, 0);
		assert_ok(send(&one, 100, 3));
		assert_received(&f, 1, 3);
		assert_usable(&f);
		fixture_fini(&f);
	}
}

static void fence__acknowledged_before_release_costs_no_lap(void **state)
{
	struct petal_mpsc_claim claim = { 0 };
	struct petal_mpsc one;
	struct fixture f;
	uint32_t owner;

	(void)state;
	small_init(&f, 0);
	one = view_of(&f, 1);
	assert_ok(petal_mpsc_claim(&one, 500, &claim));
	assert_ok(petal_mpsc_fence(&f.ring, 0, &owner));
	assert_outcome(petal_mpsc_abort(&one, &claim), -ESTALE);
	assert_outcome(petal_mpsc_abort(&one, &claim), -ESTALE);
	assert_empty(&f);
	assert_usable(&f);
	assert_int_equal(f.ring.shared->fenced.bits, 0);
	fixture_fini(&f);
}

/*
 * It stopped between its swap and the mark, with a rival that lost there, and
 * had wished for another end: with the same one nobody knows, as above.
 */
static void fence__finds_the_owner_of_a_claim_without_a_mark(void **state)
{
	static const uint32_t rivals[] = { 16, 200, 1000 };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct petal_mpsc one;
		struct fixture f;
		uint32_t owner = 0;

		small_init(&f, DATA_BYTES - 2048);
		one = view_of(&f, 1);
		claim_until(&f, 2, rivals[i], INTENT);
		claim_until(&f, 1, 100, SWAPPED);
		assert_ok(petal_mpsc_fence(&f.ring, f.pos, &owner));
		assert_int_equal(owner, 1);
		go_round(&f, 3, 3, 1);
		assert_outcome(petal_mpsc_settle(&one, DATA_BYTES - 2048,
						 DATA_BYTES - 2048 + 128,
						 PETAL_RECORD_PUBLISHED),
			       -ESTALE);
		go_round(&f, 3, 2, 1);
		assert_usable(&f);
		fixture_fini(&f);
	}
}

/* It stopped while it claimed what was left over before the end. */
static void fence__in_the_middle_of_padding_is_told_by_claim(void **state)
{
	struct petal_mpsc one;
	struct fixture f;
	uint32_t owner = 0;
	uint64_t tail;

	(void)state;
	small_init(&f, DATA_BYTES - 192);
	one = view_of(&f, 1);
	tail = petal_mpsc_tail(&one);
	assert_true(petal_mpsc_swap(&one, &tail, DATA_BYTES));
	assert_ok(petal_mpsc_fence(&f.ring, f.pos, &owner));
	assert_int_equal(owner, 1);
	go_round(&f, 3, 3, 1);
	assert_outcome(petal_mpsc_pad(&one, DATA_BYTES - 192, DATA_BYTES),
		       -ESTALE);
	go_round(&f, 3, 2, 1);
	assert_usable(&f);
	fixture_fini(&f);
}

static void fence__full_table_refuses_until_some_is_released(void **state)
{
	struct petal_mpsc_claim claim = { 0 };
	struct petal_mpsc one;
	struct fixture f;
	uint32_t owner;

	(void)state;
	small_init(&f, 0);
	one = view_of(&f, 1);
	for (unsigned i = 0; i < PETAL_MPSC_FENCES_MAX; i++) {
		assert_ok(petal_mpsc_claim(&one, 16, &claim));
		assert_ok(petal_mpsc_fence(&f.ring, f.pos, &owner));
		assert_outcome(petal_mpsc_publish(&one, &claim), -ESTALE);
		f.pos = claim.end;
	}
	assert_ok(petal_mpsc_claim(&one, 16, &claim));
	assert_outcome(petal_mpsc_fence(&f.ring, f.pos, &owner), -ENOSPC);
	petal_mpsc_release(&f.ring, f.pos);
	assert_ok(petal_mpsc_fence(&f.ring, f.pos, &owner));
	assert_outcome(petal_mpsc_publish(&one, &claim), -ESTALE);
	assert_empty(&f);
	assert_usable(&f);
	fixture_fini(&f);
}

static void fence__several_extents_at_once_and_a_dead_owner(void **state)
{
	struct petal_mpsc_claim claims[4] = { 0 };
	struct petal_mpsc views[4];
	struct fixture f;
	uint32_t owner = 0;

	(void)state;
	small_init(&f, 3 * DATA_BYTES);
	for (uint32_t i = 0; i < 4; i++) {
		views[i] = view_of(&f, i + 1);
		assert_ok(petal_mpsc_claim(&views[i], 200, &claims[i]));
		fill_all(&claims[i], (uint8_t)i);
		/* Two of them side by side. */
		if (i != 2)
			assert_ok(send(&f.ring, 200, i));
	}
	for (uint32_t i = 0; i < 4; i++) {
		assert_ok(petal_mpsc_fence(&f.ring, f.pos, &owner));
		assert_int_equal(owner, i + 1);
		f.pos = claims[i].end;
		if (i != 2)
			assert_received(&f, 0, i);
	}
	go_round(&f, 5, 4, 1);
	for (uint32_t i = 0; i < 4; i++)
		assert_filled(&claims[i], (uint8_t)i);
	assert_outcome(petal_mpsc_publish(&views[0], &claims[0]), -ESTALE);
	assert_outcome(petal_mpsc_abort(&views[2], &claims[2]), -ESTALE);
	/* The number of the dead one is given out, and fenced, again. */
	assert_outcome(repair(&f, 1 << 2), 0);
	views[1] = view_of(&f, 2);
	assert_ok(petal_mpsc_claim(&views[1], 16, &claims[1]));
	assert_ok(petal_mpsc_fence(&f.ring, f.pos, &owner));
	go_round(&f, 5, 2, 1);
	assert_filled(&claims[3], 3);
	assert_int_equal(__builtin_popcountll(f.ring.shared->fenced.bits), 2);
	assert_outcome(petal_mpsc_publish(&views[3], &claims[3]), -ESTALE);
	assert_outcome(petal_mpsc_publish(&views[1], &claims[1]), -ESTALE);
	go_round(&f, 5, 2, 1);
	assert_usable(&f);
	fixture_fini(&f);
}

/* A claim that is longer than any piece that is left is refused, not padded. */
static void fence__what_no_piece_can_hold_finds_the_ring_full(void **state)
{
	struct petal_mpsc_claim claims[5] = { 0 };
	struct petal_mpsc_claim claim = { 0 };
	struct petal_mpsc two;
	struct fixture f;
	uint32_t owner;

	(void)state;
	small_init(&f, 0);
	for (uint32_t i = 0; i < 5; i++) {
		struct petal_mpsc ring = view_of(&f, i + 1);

		assert_ok(petal_mpsc_claim(&ring, 100, &claims[i]));
		assert_ok(petal_mpsc_fence(&f.ring, f.pos, &owner));
		f.pos = claims[i].end;
		assert_ok(send(&f.ring, 600, i));
		assert_received(&f, 0, i);
	}
	petal_mpsc_release(&f.ring, f.pos);
	two = view_of(&f, 6);
	assert_outcome(petal_mpsc_claim(&two, 1000, &claim), -EAGAIN);
	assert_int_equal(petal_mpsc_used(&f.ring), 0);
	for (uint64_t i = 0; i < 40; i++) {
		assert_ok(send(&two, 400, i));
		assert_received(&f, 6, i);
		petal_mpsc_release(&f.ring, f.pos);
	}
	fixture_fini(&f);
}

/* ---- many at once ---- */

static void send_run(struct petal_mpsc *ring, uint32_t length, uint32_t count,
		     uint64_t sequence)
{
	struct petal_mpsc_claim run = { 0 };

	assert_ok(petal_mpsc_claim_run(ring, length, count, &run));
	for (uint32_t i = 0; i < count; i++) {
		struct petal_mpsc_claim one = {
			.record = petal_mpsc_claim_at(&run, length, i),
		};

		fill(&one, length, ring->owner, sequence + i);
	}
	assert_ok(petal_mpsc_publish(ring, &run));
}

static void run__is_seen_whole_and_in_order_at_every_remainder(void **state)
{
	(void)state;
	for (uint64_t line = 0; line < DATA_BYTES / 64; line++) {
		for (uint32_t count = 1; count <= 8; count++) {
			struct fixture f;

			small_init(&f, DATA_BYTES * 5 + line * 64);
			for (uint64_t n = 0; n < 9; n++) {
				send_run(&f.ring, 64, count, n * count);
				for (uint64_t i = 0; i < count; i++)
					assert_received(&f, 0, n * count + i);
				petal_mpsc_release(&f.ring, f.pos);
			}
			assert_empty(&f);
			assert_usable(&f);
			fixture_fini(&f);
		}
	}
}

static void run__is_all_or_nothing(void **state)
{
	struct petal_mpsc_claim run = { 0 };
	struct petal_mpsc_view view;
	struct petal_mpsc one;
	struct fixture f;
	uint32_t owner;

	(void)state;
	small_init(&f, 0);
	one = view_of(&f, 1);
	assert_outcome(petal_mpsc_claim_run(&one, 48, 0, &run), -EINVAL);
	assert_outcome(petal_mpsc_claim_run(&one, 48, 17, &run), -EMSGSIZE);
	assert_outcome(petal_mpsc_claim_run(&one, UINT32_MAX, UINT32_MAX, &run),
		       -EMSGSIZE);

	/* Taken back; left by a dead owner; fenced, and published late. */
	for (unsigned i = 0; i < 3; i++) {
		assert_ok(petal_mpsc_claim_run(&one, 48, 16, &run));
		assert_outcome(petal_mpsc_claim_run(&one, 48, 1, &run), -EBUSY);
		fill_all(&run, 0x77);
		assert_outcome(petal_mpsc_peek(&f.ring, f.pos, &view),
			       PETAL_RING_PENDING);
		if (i == 0)
			assert_ok(petal_mpsc_abort(&one, &run));
		else if (i == 1)
			assert_outcome(repair(&f, 1 << 1), 1);
		else
			assert_ok(petal_mpsc_fence(&f.ring, f.pos, &owner));
		assert_ok(petal_mpsc_peek(&f.ring, f.pos, &view));
		assert_int_equal(view.type, PETAL_RECORD_TYPE_PADDING);
		assert_int_equal(view.end, run.end);
		assert_empty(&f);
		if (i == 1)
			one = view_of(&f, 1);
	}
	go_round(&f, 2, 3, 1);
	assert_outcome(petal_mpsc_publish(&one, &run), -ESTALE);
	go_round(&f, 2, 2, 1);
	assert_usable(&f);
	fixture_fini(&f);
}

/* ---- the end ---- */

static void close__refuses_claims_and_lets_the_rest_drain(void **state)
{
	struct petal_mpsc_claim claim = { 0 }, other = { 0 };
	struct petal_mpsc_view view;
	struct petal_mpsc one;
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	one = view_of(&f, 1);
	assert_ok(send(&f.ring, 16, 1));
	assert_ok(petal_mpsc_claim(&one, 16, &claim));
	petal_mpsc_close(&f.ring);
	petal_mpsc_close(&f.ring);
	assert_outcome(petal_mpsc_claim(&f.ring, 16, &other), -EPIPE);
	assert_outcome(petal_mpsc_claim_run(&f.ring, 16, 4, &other), -EPIPE);
	assert_received(&f, 0, 1);
	assert_outcome(receive(&f, &view), PETAL_RING_PENDING);
	fill(&claim, 16, 1, 2);
	assert_ok(petal_mpsc_publish(&one, &claim));
	assert_received(&f, 1, 2);
	assert_outcome(receive(&f, &view), PETAL_RING_CLOSED);
	assert_outcome(petal_mpsc_claim(&one, 16, &other), -EPIPE);
	petal_mpsc_release(&f.ring, f.pos);
	assert_int_equal(petal_mpsc_used(&f.ring), 0);
	assert_ok(petal_mpsc_adopt(&f.ring, &f.pos));
	assert_outcome(receive(&f, &view), PETAL_RING_CLOSED);
	fixture_fini(&f);
}

static void close__with_a_dead_owners_claim_ends_after_repair(void **state)
{
	struct petal_mpsc_view view;
	struct fixture f;

	(void)state;
	small_init(&f, DATA_BYTES - 64);
	claim_until(&f, 1, 100, SWAPPED);
	petal_mpsc_close(&f.ring);
	assert_outcome(receive(&f, &view), PETAL_RING_PENDING);
	assert_outcome(repair(&f, 1 << 1), 1);
	assert_outcome(receive(&f, &view), PETAL_RING_CLOSED);
	fixture_fini(&f);
}

static void backlog__is_what_the_consumer_knew_when_it_released(void **state)
{
	struct fixture f;

	(void)state;
	small_init(&f, 128);
	assert_int_equal(petal_mpsc_backlog(&f.ring), 0);
	for (uint64_t i = 0; i < 10; i++)
		assert_ok(send(&f.ring, 16, i));
	assert_int_equal(petal_mpsc_used(&f.ring), 640);
	assert_received(&f, 0, 0);
	petal_mpsc_release(&f.ring, f.pos);
	assert_int_equal(petal_mpsc_backlog(&f.ring), 576);
	assert_ok(send(&f.ring, 16, 10));
	assert_int_equal(petal_mpsc_backlog(&f.ring), 576);
	fixture_fini(&f);
}

static void repair__names_a_gap_that_nobody_wished_for(void **state)
{
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	petal_store(&f.ring.shared->tail, 128, PETAL_RELAXED);
	assert_outcome(repair(&f, ~UINT64_C(0)), -PETAL_ECORRUPT);
	/* An intent that cannot have led here does not help. */
	petal_mpsc_intend(&f.ring.intents[1], 0, 576);
	assert_outcome(repair(&f, ~UINT64_C(0)), -PETAL_ECORRUPT);
	f.pos = 1;
	assert_outcome(repair(&f, 0), -EINVAL);
	fixture_fini(&f);
}

/* ---- death at every instruction ---- */

/*
 * Under ThreadSanitizer an access is hundreds of instructions, and there is
 * nothing for it to find in a process of one thread.
 */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STEPPED_BY_SANITIZER 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define STEPPED_BY_SANITIZER 1
#endif
#ifndef STEPPED_BY_SANITIZER
#define STEPPED_BY_SANITIZER 0
#endif

typedef void scene(struct fixture *f);

static void child_runs(struct fixture *f, scene *act)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	act(f);
	_exit(0);
}

/*
 * Let a child act on the ring one instruction at a time. Whenever the ring's
 * bytes have changed, what death would leave there is a copy of them: judge it.
 * Returns how many such moments there were.
 */
static unsigned die_at_every_instruction(struct fixture *f, scene *act,
					 scene *check)
{
	uint8_t *last = malloc(f->bytes);
	struct fixture copy = *f;
	unsigned moments = 0;
	int status = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0)
		child_runs(f, act);
	copy.memory = aligned_alloc(4096, (f->bytes + 4095) & ~UINT64_C(4095));
	assert_non_null(last);
	assert_non_null(copy.memory);
	memset(last, 0xa5, f->bytes);
	while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
		if (memcmp(last, f->memory, f->bytes) != 0) {
			memcpy(last, f->memory, f->bytes);
			memcpy(copy.memory, last, f->bytes);
			copy.ring = view_of(&copy, 0);
			copy.pos = f->pos;
			check(&copy);
			moments++;
		}
		if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0) {
			kill(child, SIGKILL);
			waitpid(child, &status, 0);
			petal_test_skip("ptrace is not allowed here");
		}
	}
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	free(copy.memory);
	free(last);
	return moments;
}

static void act_as_producer(struct fixture *f)
{
	struct petal_mpsc ring = view_of(f, 1);
	struct petal_mpsc_claim claim = { 0 };

	/* The second wraps, the third is taken back. */
	for (uint64_t i = 0; i < 2; i++)
		send(&ring, 300, i);
	petal_mpsc_claim(&ring, 100, &claim);
	petal_mpsc_abort(&ring, &claim);
}

/* What was published is there, in order and whole, and nothing else is. */
static void check_producer(struct fixture *f)
{
	struct petal_mpsc_view view;
	uint64_t from = f->pos;
	uint64_t next = 0;
	int repaired = repair(f, 1 << 1 | 1 << 2);

	assert_true(repaired == 0 || repaired == 1);
	assert_received(f, 0, 1);
	while (receive(f, &view) == 0)
		assert_int_equal(judge(&view)->sequence, next++);
	assert_empty(f);
	f->pos = from;
	assert_outcome(repair(f, 1 << 1 | 1 << 2), 0);
	while (receive(f, &view) == 0)
		;
	assert_usable(f);
}

static void producer__may_die_at_every_instruction(void **state)
{
	/* A rival's lost wish at the first position: none, shorter, longer. */
	static const uint32_t rivals[] = { 0, 40, 290, 300, 400, 1000 };

	(void)state;
	if (STEPPED_BY_SANITIZER)
		skip();
	for (unsigned i = 0; i < 6; i++) {
		struct fixture f;
		unsigned moments;

		near_end_init(&f, 576);
		if (rivals[i])
			claim_until(&f, 2, rivals[i], INTENT);
		moments = die_at_every_instruction(&f, act_as_producer,
						   check_producer);
		assert_true(moments > 30);
		check_producer(&f);
		fixture_fini(&f);
	}
}

static void act_as_repairer(struct fixture *f)
{
	repair(f, 0x3e);
}

static void check_repairer(struct fixture *f)
{
	assert_true(repair(f, 0x3e) >= 0);
	assert_outcome(repair(f, 0x3e), 0);
	assert_received(f, 0, 1);
	assert_received(f, 0, 2);
	assert_empty(f);
	assert_usable(f);
}

static void repairer__may_die_at_every_instruction(void **state)
{
	struct fixture f;

	(void)state;
	if (STEPPED_BY_SANITIZER)
		skip();
	near_end_init(&f, 256);
	claim_until(&f, 5, 700, INTENT);
	claim_until(&f, 1, 100, SWAPPED);
	claim_until(&f, 2, 300, SWAPPED);
	claim_until(&f, 3, 16, HELD);
	claim_until(&f, 4, 500, FILLED);
	assert_ok(send(&f.ring, 16, 2));
	assert_true(die_at_every_instruction(&f, act_as_repairer,
					     check_repairer) > 10);
	fixture_fini(&f);
}

static void act_as_keeper(struct fixture *f)
{
	uint32_t owner;

	petal_mpsc_fence(&f->ring, f->pos + 64, &owner);
}

/* Its successor fences again, and the owner learns of one of the two. */
static void check_keeper(struct fixture *f)
{
	uint32_t owner = 0;
	uint64_t pos;
	int outcome;

	assert_ok(petal_mpsc_adopt(&f->ring, &pos));
	assert_received(f, 0, 1);
	outcome = petal_mpsc_fence(&f->ring, f->pos, &owner);
	assert_true(outcome == PETAL_RING_EMPTY ||
		    (outcome == 0 && owner == 1));
	assert_received(f, 0, 2);
	go_round(f, 3, 3, 1);
	petal_store(&f->ring.intents[1].acked, UINT64_MAX, PETAL_RELAXED);
	go_round(f, 3, 2, 1);
	assert_usable(f);
}

static void keeper__may_die_at_every_instruction_of_fence(void **state)
{
	struct fixture f;

	(void)state;
	if (STEPPED_BY_SANITIZER)
		skip();
	near_end_init(&f, 1024);
	claim_until(&f, 2, 100, INTENT);
	claim_until(&f, 1, 300, SWAPPED);
	assert_ok(send(&f.ring, 16, 2));
	assert_true(die_at_every_instruction(&f, act_as_keeper, check_keeper) >
		    5);
	fixture_fini(&f);
}

static void act_as_fenced(struct fixture *f)
{
	struct petal_mpsc ring = view_of(f, 1);

	/* As it would go on after its swap. */
	petal_mpsc_pad(&ring, f->pos, f->pos + 512);
	send(&ring, 100, 5);
}

/* Dead or not, told or not: the extent comes back, and nothing else went. */
static void check_fenced(struct fixture *f)
{
	struct petal_mpsc_view view;

	assert_true(repair(f, 1 << 1) >= 0);
	assert_received(f, 0, 2);
	if (receive(f, &view) == 0)
		assert_int_equal(judge(&view)->sequence, 5);
	assert_empty(f);
	go_round(f, 3, 3, 1);
	assert_usable(f);
}

static void fenced__may_die_at_every_instruction_when_it_wakes(void **state)
{
	struct fixture f;
	uint32_t owner;

	(void)state;
	if (STEPPED_BY_SANITIZER)
		skip();
	small_init(&f, DATA_BYTES - 1024);
	claim_until(&f, 1, 496, SWAPPED);
	assert_ok(send(&f.ring, 16, 2));
	assert_ok(petal_mpsc_fence(&f.ring, f.pos, &owner));
	assert_true(die_at_every_instruction(&f, act_as_fenced, check_fenced) >
		    8);
	fixture_fini(&f);
}

static void act_as_consumer(struct fixture *f)
{
	petal_mpsc_release(&f->ring, f->pos + 832);
}

static void check_consumer_until(struct fixture *f, uint64_t end)
{
	struct petal_mpsc_view view;
	uint64_t again;
	uint64_t next;

	assert_ok(petal_mpsc_adopt(&f->ring, &f->pos));
	assert_ok(petal_mpsc_adopt(&f->ring, &again));
	assert_int_equal(again, f->pos);
	assert_outcome(repair(f, 0), 0);

	/* All or nothing, and in order to the end. */
	assert_ok(receive(f, &view));
	next = judge(&view)->sequence;
	assert_true(next == 1 || next > 100);
	for (next = next == 1 ? 100 : next + 1; next < end; next++)
		assert_received(f, 0, next);
	assert_empty(f);
}

static void check_consumer(struct fixture *f)
{
	check_consumer_until(f, 106);
	assert_usable(f);
}

static void consumer__may_die_at_every_instruction_of_release(void **state)
{
	struct fixture f;

	(void)state;
	if (STEPPED_BY_SANITIZER)
		skip();
	/* A record of one line, and one of twelve up to the end. */
	near_end_init(&f, 768);
	for (uint64_t i = 100; i < 106; i++)
		assert_ok(send(&f.ring, i == 100 ? 700 : 200, i));
	assert_true(die_at_every_instruction(&f, act_as_consumer,
					     check_consumer) > 14);
	fixture_fini(&f);
}

static void check_fenced_consumer(struct fixture *f)
{
	check_consumer_until(f, 106);
	go_round(f, 3, 2, 1);
	petal_store(&f->ring.intents[1].acked, UINT64_MAX, PETAL_RELAXED);
	go_round(f, 3, 2, 1);
	assert_usable(f);
}

/* What a release leaves half done has an extent in it: to keep, to let go. */
static void consumer__may_die_in_a_release_around_a_fence(void **state)
{
	(void)state;
	if (STEPPED_BY_SANITIZER)
		skip();
	for (unsigned told = 0; told < 2; told++) {
		struct fixture f;
		uint32_t owner;

		near_end_init(&f, 768);
		for (uint64_t i = 100; i < 102; i++)
			assert_ok(send(&f.ring, i == 100 ? 100 : 200, i));
		claim_until(&f, 1, 300, SWAPPED);
		for (uint64_t i = 102; i < 106; i++)
			assert_ok(send(&f.ring, 200, i));
		assert_ok(petal_mpsc_fence(&f.ring, f.pos + 448, &owner));
		if (told)
			petal_store(&f.ring.intents[1].acked, UINT64_MAX,
				    PETAL_RELAXED);
		assert_true(die_at_every_instruction(&f, act_as_consumer,
						     check_fenced_consumer) >
			    10);
		fixture_fini(&f);
	}
}

/* ---- death for real ---- */

enum { KILLED = 3, KILL_DATA_BYTES = 16384 };

/* What the children tell beside the ring, each on a line of its own. */
struct report {
	struct petal_u64 published;
	struct petal_u64 stale;
	uint64_t reserved[6];
};

struct arena {
	struct fixture f;
	struct report *reports;
	pid_t children[KILLED];
	uint64_t next[KILLED];
	uint64_t seed;
	uint64_t fenced;
};

/* A run of records, or one. */
static int send_some(struct petal_mpsc *ring, uint32_t length, uint32_t count,
		     uint64_t sequence)
{
	struct petal_mpsc_claim run = { 0 };
	int err = petal_mpsc_claim_run(ring, length, count, &run);

	if (err)
		return err;
	for (uint32_t i = 0; i < count; i++) {
		struct petal_mpsc_claim one = {
			.record = petal_mpsc_claim_at(&run, length, i),
		};

		fill(&one, length, ring->owner, sequence + i);
	}
	return petal_mpsc_publish(ring, &run);
}

static void child_produces(struct arena *arena, uint32_t index)
{
	struct petal_mpsc ring = view_of(&arena->f, index + 1);
	struct report *report = &arena->reports[index];
	uint64_t seed = arena->seed * 2 + index + 1;

	/* Should the test fail, nobody else would end us. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint64_t i = 0;;) {
		uint32_t length = 16 + (uint32_t)(random_next(&seed) % 700);
		uint32_t count = 1 + (uint32_t)(random_next(&seed) % 4);
		int err = send_some(&ring, length, count, i);

		if (err == -EAGAIN) {
			sched_yield();
		} else if (err == -ESTALE) {
			petal_add(&report->stale, 1, PETAL_SEQ_CST(TOLD));
		} else if (err == 0) {
			i += count;
			petal_store(&report->published, i, PETAL_SEQ_CST(TOLD));
		} else {
			_exit(1);
		}
	}
}

static void arena_spawn(struct arena *arena, uint32_t index)
{
	random_next(&arena->seed);
	memset(&arena->reports[index], 0, sizeof(arena->reports[index]));
	arena->next[index] = 0;
	arena->children[index] = fork();
	assert_true(arena->children[index] >= 0);
	if (arena->children[index] == 0)
		child_produces(arena, index);
}

/* Dead is who has been waited for. */
static void arena_kill(struct arena *arena, uint32_t index)
{
	int status;

	assert_ok(kill(arena->children[index], SIGKILL));
	assert_int_equal(waitpid(arena->children[index], &status, 0),
			 arena->children[index]);
	assert_true(WIFSIGNALED(status));
}

/* One look; true if there was a record. */
static bool arena_consume(struct arena *arena)
{
	struct petal_mpsc_view view;
	int outcome = receive(&arena->f, &view);

	assert_true(outcome >= 0);
	if (outcome == 0) {
		const struct payload *payload = judge(&view);

		assert_int_equal(payload->sequence,
				 arena->next[payload->owner - 1]++);
	}
	petal_mpsc_release(&arena->f.ring, arena->f.pos);
	return outcome == 0;
}

static void arena_repair(struct arena *arena, uint64_t dead)
{
	assert_true(repair(&arena->f, dead) >= 0);
}

static void arena_dither(struct arena *arena)
{
	for (uint64_t i = random_next(&arena->seed) % 2000; i > 0; i--)
		petal_compiler_fence(PETAL_SEQ_CST(DITHER));
}

static void arena_consume_some(struct arena *arena, uint64_t records)
{
	while (records > 0) {
		if (arena_consume(arena))
			records--;
		else
			sched_yield();
	}
}

/* Take all that is before a tail, and what the dead one told of. */
static void arena_round(struct arena *arena)
{
	uint32_t victim = (uint32_t)(random_next(&arena->seed) % KILLED);
	uint64_t tail, told, next;

	arena_consume_some(arena, random_next(&arena->seed) % 200);
	arena_dither(arena);
	arena_kill(arena, victim);
	arena_repair(arena, UINT64_C(2) << victim);

	/* All that the dead one published is before this tail. */
	tail = petal_mpsc_tail(&arena->f.ring);
	while (arena->f.pos < tail)
		if (!arena_consume(arena))
			sched_yield();
	told = petal_load(&arena->reports[victim].published,
			  PETAL_SEQ_CST(TOLD));
	next = arena->next[victim];
	assert_true(next >= told && next <= told + 4);
	arena_spawn(arena, victim);
}

static void arena_init(struct arena *arena)
{
	const struct petal_mpsc_geometry geometry = {
		.data_bytes = KILL_DATA_BYTES,
		.owners = OWNERS,
	};

	*arena = (struct arena){ .seed = setting("PETAL_TEST_SEED", 1) };
	fixture_init(&arena->f, &geometry);
	arena->reports = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(arena->reports, MAP_FAILED);
	for (uint32_t i = 0; i < KILLED; i++)
		arena_spawn(arena, i);
}

static void arena_fini(struct arena *arena)
{
	for (uint32_t i = 0; i < KILLED; i++)
		arena_kill(arena, i);
	arena_repair(arena, 0xe);
	while (arena_consume(arena))
		;
	assert_empty(&arena->f);
	go_round(&arena->f, OWNERS - 1, 2, 1);
	assert_usable(&arena->f);
	munmap(arena->reports, 4096);
	fixture_fini(&arena->f);
}

static void killed_producers__lose_nothing_and_tear_nothing(void **state)
{
	uint64_t rounds = setting("PETAL_TEST_ROUNDS", 200);
	struct arena arena;

	(void)state;
	arena_init(&arena);
	for (uint64_t i = 0; i < rounds; i++)
		arena_round(&arena);
	arena_fini(&arena);
}

static void arena_stop(struct arena *arena, uint32_t index)
{
	int status;

	assert_ok(kill(arena->children[index], SIGSTOP));
	assert_int_equal(waitpid(arena->children[index], &status, WUNTRACED),
			 arena->children[index]);
	assert_true(WIFSTOPPED(status));
}

/* Consume; whatever holds us up must be the one that we have stopped. */
static void arena_consume_past(struct arena *arena, uint32_t stopped)
{
	uint64_t records = 100 + random_next(&arena->seed) % 100;

	for (unsigned stalls = 0; records > 0;) {
		uint64_t pos = arena->f.pos;
		uint32_t owner = 0;

		if (arena_consume(arena)) {
			records--;
			stalls = 0;
			continue;
		}
		sched_yield();
		stalls = arena->f.pos == pos ? stalls + 1 : 0;
		/* The others are only slow: they get on if we yield. */
		if (stalls < 20)
			continue;
		if (petal_mpsc_fence(&arena->f.ring, arena->f.pos, &owner) ==
		    0) {
			arena->fenced += owner == stopped + 1;
			stalls = 0;
		}
	}
}

static void stopped_producers__are_fenced_and_told_so(void **state)
{
	uint64_t rounds = setting("PETAL_TEST_ROUNDS", 200);
	struct arena arena;

	(void)state;
	arena_init(&arena);
	/* A stop seldom meets a claim: go on until one did. */
	for (uint64_t i = 0; i < rounds || arena.fenced == 0; i++) {
		uint32_t victim = (uint32_t)(random_next(&arena.seed) % KILLED);
		uint64_t stale = petal_load(&arena.reports[victim].stale,
					    PETAL_SEQ_CST(TOLD));
		uint64_t fenced = arena.fenced;

		arena_consume_some(&arena, random_next(&arena.seed) % 50);
		arena_dither(&arena);
		arena_stop(&arena, victim);
		arena_consume_past(&arena, victim);
		assert_ok(kill(arena.children[victim], SIGCONT));
		while (arena.fenced != fenced &&
		       petal_load(&arena.reports[victim].stale,
				  PETAL_SEQ_CST(TOLD)) == stale)
			sched_yield();
	}
	arena_fini(&arena);
}

/* As no caller would: whoever is met in the middle of a claim is fenced. */
static void living_producers__are_told_of_each_fence_once(void **state)
{
	uint64_t records = setting("PETAL_TEST_ROUNDS", 200) * 100;
	uint64_t fences[KILLED] = { 0 };
	struct arena arena;

	(void)state;
	arena_init(&arena);
	for (uint64_t count = 0; count < records;) {
		uint32_t owner = 0;

		if (arena_consume(&arena))
			count++;
		else if (random_next(&arena.seed) % 4 == 0 &&
			 petal_mpsc_fence(&arena.f.ring, arena.f.pos, &owner) ==
				 0)
			fences[owner - 1]++;
		else
			sched_yield();
	}
	for (uint32_t i = 0; i < KILLED; i++) {
		uint64_t stale;

		arena_stop(&arena, i);
		stale = petal_load(&arena.reports[i].stale,
				   PETAL_SEQ_CST(TOLD));
		assert_true(stale == fences[i] || stale + 1 == fences[i]);
	}
	arena_fini(&arena);
}

/* ---- bytes that lie ---- */

static int attach_after(struct fixture *f, void (*lie)(struct fixture *f))
{
	struct petal_mpsc ring;

	small_init(f, 0);
	lie(f);
	return petal_mpsc_attach(f->memory, f->header_bytes, data_of(f),
				 f->data_bytes, 0, &ring);
}

#define LIE(name, statement)                \
	static void name(struct fixture *f) \
	{                                   \
		statement;                  \
	}

LIE(lie_magic, petal_store(&f->ring.shared->magic, 1, PETAL_RELAXED))
LIE(lie_layout, f->ring.shared->layout.bits = 99)
LIE(lie_owners_none, f->ring.shared->owners.bits = 0)
LIE(lie_owners_more, f->ring.shared->owners.bits = OWNERS + 1)
LIE(lie_owners_most, f->ring.shared->owners.bits = UINT32_MAX)
LIE(lie_bytes_none, f->ring.shared->data_bytes.bits = 0)
LIE(lie_bytes_less, f->ring.shared->data_bytes.bits = 2048)
LIE(lie_bytes_odd, f->ring.shared->data_bytes.bits = 4097)
LIE(lie_bytes_more, f->ring.shared->data_bytes.bits = 8192)
LIE(lie_bytes_most, f->ring.shared->data_bytes.bits = UINT64_C(1) << 63)
LIE(lie_reserve, f->ring.shared->reserve_bytes.bits = UINT32_MAX)

static void attach__refuses_a_shape_that_does_not_fit(void **state)
{
	static const struct {
		void (*lie)(struct fixture *f);
		int outcome;
	} cases[] = {
		{ lie_magic, -EINVAL },
		{ lie_layout, -PETAL_EVERSION },
		{ lie_owners_none, -PETAL_EGEOMETRY },
		{ lie_owners_more, -PETAL_EGEOMETRY },
		{ lie_owners_most, -PETAL_EGEOMETRY },
		{ lie_bytes_none, -PETAL_EGEOMETRY },
		{ lie_bytes_less, 0 },
		{ lie_bytes_odd, -PETAL_EGEOMETRY },
		{ lie_bytes_more, -PETAL_EGEOMETRY },
		{ lie_bytes_most, -PETAL_EGEOMETRY },
		{ lie_reserve, -PETAL_EGEOMETRY },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bool fits = cases[i].lie == lie_bytes_less;
		struct fixture f;

		/* 2 KiB would fit into what is mapped, but is out of range. */
		assert_outcome(attach_after(&f, cases[i].lie),
			       fits ? -PETAL_EGEOMETRY : cases[i].outcome);
		fixture_fini(&f);
	}
}

static void attach__refuses_what_the_caller_got_wrong(void **state)
{
	struct petal_mpsc ring;
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	assert_outcome(petal_mpsc_attach(f.memory, 100, data_of(&f),
					 f.data_bytes, 0, &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_mpsc_attach(f.memory, f.header_bytes - 1,
					 data_of(&f), f.data_bytes, 0, &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_mpsc_attach(f.memory, f.header_bytes, data_of(&f),
					 f.data_bytes - 1, 0, &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_mpsc_attach(f.memory, f.header_bytes, data_of(&f),
					 f.data_bytes, OWNERS, &ring),
		       -EINVAL);
	assert_outcome(petal_mpsc_attach(f.memory, f.header_bytes,
					 data_of(&f) + 8, f.data_bytes, 0,
					 &ring),
		       -EINVAL);
	fixture_fini(&f);
}

static void format__refuses_a_shape_out_of_range(void **state)
{
	static const struct petal_mpsc_geometry shapes[] = {
		{ .data_bytes = 0, .owners = 1 },
		{ .data_bytes = 2048, .owners = 1 },
		{ .data_bytes = 5000, .owners = 1 },
		{ .data_bytes = UINT64_C(1) << 41, .owners = 1 },
		{ .data_bytes = 4096, .owners = 0 },
		{ .data_bytes = 4096, .owners = 257 },
		{ .data_bytes = 4096, .owners = 1, .reserve_bytes = 2048 },
		{ .data_bytes = 4096, .owners = 1, .start_pos = 8 },
	};
	static _Alignas(64) uint8_t memory[8192];

	(void)state;
	for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		assert_outcome(petal_mpsc_format(memory, &shapes[i]), -EINVAL);
}

static void claim__is_bounded_by_hostile_head_and_tail(void **state)
{
	static const uint64_t words[] = {
		0,
		1,
		63,
		64,
		4096,
		4160,
		65535,
		UINT64_C(1) << 63,
		UINT64_MAX - 63,
		UINT64_MAX,
	};

	(void)state;
	for (unsigned h = 0; h < 10; h++) {
		for (unsigned t = 0; t < 10; t++) {
			struct petal_mpsc_claim claim = { 0 };
			struct petal_mpsc ring;
			struct fixture f;
			int err;

			small_init(&f, 0);
			petal_store(&f.ring.shared->head, words[h],
				    PETAL_RELAXED);
			petal_store(&f.ring.shared->tail, words[t],
				    PETAL_RELAXED);
			ring = view_of(&f, 1);
			err = petal_mpsc_claim(&ring, 1000, &claim);
			assert_true(err <= 0);
			if (err == 0)
				fill(&claim, 1000, 1, 0);
			petal_mpsc_release(&f.ring, 4096);
			petal_mpsc_release(&f.ring, words[t]);
			assert_true(petal_mpsc_adopt(&f.ring, &f.pos) <= 0);
			assert_true(petal_mpsc_used(&f.ring) <= 4096);
			fixture_fini(&f);
		}
	}
}

/* A tail that went back must not make a claim that crosses the end. */
static void claim__stays_inside_when_the_tail_goes_back(void **state)
{
	(void)state;
	for (uint64_t tail = 0; tail <= 2 * DATA_BYTES; tail += 64) {
		struct petal_mpsc_claim claim = { 0 };
		struct petal_mpsc ring;
		struct fixture f;
		uint64_t offset;

		small_init(&f, DATA_BYTES);
		ring = view_of(&f, 1);
		ring.limit_seen = DATA_BYTES + 1024;
		petal_store(&f.ring.shared->tail, tail, PETAL_RELAXED);
		if (petal_mpsc_claim(&ring, 500, &claim) == 0) {
			offset = (uint64_t)((uint8_t *)claim.record -
					    data_of(&f));
			assert_true(offset + 512 <= DATA_BYTES);
		}
		fixture_fini(&f);
	}
}

static void assert_view_is_inside(const struct fixture *f,
				  const struct petal_mpsc_view *view)
{
	uint64_t offset = (uint64_t)((uint8_t *)view->record - data_of(f));

	assert_true(offset % 64 == 0 && offset < f->data_bytes);
	assert_true(view->end > view->pos);
	assert_true(offset + 16 + view->length <= f->data_bytes);
	assert_true(view->end - view->pos <= f->data_bytes - offset);
}

static void peek__is_bounded_whatever_the_bytes_say(void **state)
{
	static const uint32_t lengths[] = {
		0,
		16,
		48,
		1024,
		1025,
		1088,
		4032,
		4080,
		4081,
		65536,
		UINT32_MAX - 79,
		UINT32_MAX - 15,
		UINT32_MAX,
	};
	struct petal_mpsc_view view;
	struct fixture f;

	(void)state;
	small_init(&f, 5 * DATA_BYTES);
	for (uint64_t line = 0; line < DATA_BYTES / 64; line++) {
		for (unsigned l = 0; l < 13; l++) {
			uint64_t pos = 5 * DATA_BYTES + line * 64;
			struct petal_record *record =
				petal_mpsc_record(&f.ring, pos);

			petal_store(&f.ring.shared->tail, 6 * DATA_BYTES,
				    PETAL_RELAXED);
			record->length = lengths[l];
			for (uint64_t lap = 4; lap < 7; lap++) {
				for (uint64_t low = 0; low < 0x30; low++) {
					int outcome;

					record->commit.bits = lap << 16 | low;
					outcome = petal_mpsc_peek(&f.ring, pos,
								  &view);
					assert_true(outcome <= 2);
					if (outcome != 0)
						continue;
					assert_int_equal(lap, 5);
					assert_view_is_inside(&f, &view);
				}
			}
			record->commit.bits = 0;
		}
	}
	fixture_fini(&f);
}

static void peek__finds_out_behind_a_record_that_passes_the_tail(void **state)
{
	struct petal_mpsc_view view;
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	assert_ok(send(&f.ring, 16, 0));
	petal_mpsc_record(&f.ring, 0)->length = 100;
	/* A look at the tail for each would cost more than it tells. */
	assert_ok(petal_mpsc_peek(&f.ring, 0, &view));
	assert_view_is_inside(&f, &view);
	assert_outcome(petal_mpsc_peek(&f.ring, 64, &view), 1);
	assert_outcome(petal_mpsc_peek(&f.ring, 128, &view), -PETAL_ECORRUPT);
	petal_mpsc_release(&f.ring, 128);
	assert_int_equal(petal_mpsc_head(&f.ring), 0);
	fixture_fini(&f);
}

/* Any bytes at all: outcomes only, no endless walk, nothing outside. */
static void repair__is_bounded_whatever_the_bytes_say(void **state)
{
	uint64_t seed = setting("PETAL_TEST_SEED", 3);

	(void)state;
	for (unsigned round = 0; round < 3000; round++) {
		struct petal_mpsc_view view;
		struct fixture f;
		int outcome;

		small_init(&f, 0);
		for (unsigned i = 0; i < DATA_BYTES / 64; i++) {
			uint64_t *line = (void *)(data_of(&f) + i * 64);

			line[0] = random_next(&seed) & 0x23;
			line[1] = random_next(&seed) % 400;
		}
		for (unsigned i = 0; i < OWNERS; i++)
			petal_mpsc_intend(&f.ring.intents[i],
					  random_next(&seed) % 64 * 64,
					  random_next(&seed) % 80 * 64);
		petal_store(&f.ring.shared->tail, random_next(&seed) % 65 * 64,
			    PETAL_RELAXED);
		outcome = repair(&f, random_next(&seed));
		assert_true(outcome <= 64);
		while (petal_mpsc_peek(&f.ring, f.pos, &view) == 0) {
			assert_view_is_inside(&f, &view);
			f.pos = view.end;
		}
		petal_mpsc_release(&f.ring, f.pos);
		fixture_fini(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(claim__gives_room_in_order_and_peek_finds_it),
		cmocka_unit_test(abort__leaves_padding),
		cmocka_unit_test(
			claim__full_ring_refuses_until_some_is_released),
		cmocka_unit_test(
			claim__longest_record_always_fits_into_an_empty_ring),
		cmocka_unit_test(claim__only_owner_0_may_use_the_reserve),
		cmocka_unit_test(
			claim__wraps_at_every_remainder_with_every_extent),
		cmocka_unit_test(positions__pass_the_ends_of_32_48_and_63_bits),
		cmocka_unit_test(
			threads__each_producers_records_arrive_whole_and_in_order),
		cmocka_unit_test(
			death__at_each_step_of_a_claim_leaves_a_usable_ring),
		cmocka_unit_test(
			death__of_several_in_a_row_is_repaired_in_one_call),
		cmocka_unit_test(
			death__of_two_with_one_intent_position_finds_the_true_one),
		cmocka_unit_test(
			repair__passes_a_living_owner_between_swap_and_mark),
		cmocka_unit_test(
			repair__of_two_with_one_wish_waits_for_the_living_one),
		cmocka_unit_test(
			repair__is_not_held_up_by_a_living_losers_wish),
		cmocka_unit_test(repair__leaves_a_living_owners_claims_alone),
		cmocka_unit_test(repair__names_a_gap_that_nobody_wished_for),
		cmocka_unit_test(
			fence__leaves_the_extent_alone_until_it_is_acknowledged),
		cmocka_unit_test(
			fence__acknowledged_before_release_costs_no_lap),
		cmocka_unit_test(
			fence__finds_the_owner_of_a_claim_without_a_mark),
		cmocka_unit_test(
			fence__in_the_middle_of_padding_is_told_by_claim),
		cmocka_unit_test(
			fence__full_table_refuses_until_some_is_released),
		cmocka_unit_test(
			fence__several_extents_at_once_and_a_dead_owner),
		cmocka_unit_test(
			fence__what_no_piece_can_hold_finds_the_ring_full),
		cmocka_unit_test(
			run__is_seen_whole_and_in_order_at_every_remainder),
		cmocka_unit_test(run__is_all_or_nothing),
		cmocka_unit_test(close__refuses_claims_and_lets_the_rest_drain),
		cmocka_unit_test(
			close__with_a_dead_owners_claim_ends_after_repair),
		cmocka_unit_test(
			backlog__is_what_the_consumer_knew_when_it_released),
		cmocka_unit_test(
			killed_producers__lose_nothing_and_tear_nothing),
		cmocka_unit_test(stopped_producers__are_fenced_and_told_so),
		cmocka_unit_test(living_producers__are_told_of_each_fence_once),
		cmocka_unit_test(attach__refuses_a_shape_that_does_not_fit),
		cmocka_unit_test(attach__refuses_what_the_caller_got_wrong),
		cmocka_unit_test(format__refuses_a_shape_out_of_range),
		cmocka_unit_test(claim__is_bounded_by_hostile_head_and_tail),
		cmocka_unit_test(claim__stays_inside_when_the_tail_goes_back),
		cmocka_unit_test(peek__is_bounded_whatever_the_bytes_say),
		cmocka_unit_test(
			peek__finds_out_behind_a_record_that_passes_the_tail),
		cmocka_unit_test(repair__is_bounded_whatever_the_bytes_say),
		/* Last, for they skip the program where ptrace is forbidden. */
		cmocka_unit_test(producer__may_die_at_every_instruction),
		cmocka_unit_test(repairer__may_die_at_every_instruction),
		cmocka_unit_test(
			consumer__may_die_at_every_instruction_of_release),
		cmocka_unit_test(keeper__may_die_at_every_instruction_of_fence),
		cmocka_unit_test(
			fenced__may_die_at_every_instruction_when_it_wakes),
		cmocka_unit_test(consumer__may_die_in_a_release_around_a_fence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
