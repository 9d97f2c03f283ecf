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
#define REGION_BYTES \
	(PETAL_MPSC_HEADER_BYTES + OWNERS * PETAL_RECORD_ALIGN + DATA_BYTES)

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
	struct petal_mpsc_claim claim;
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
	assert_int_equal(petal_mpsc_backlog(&f->ring), 0);
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
	struct petal_mpsc_claim first, second;
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
	assert_int_equal(petal_mpsc_backlog(&f.ring), 192);

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
	struct petal_mpsc_claim claim;
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
	struct petal_mpsc_claim claim;
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
	struct petal_mpsc_claim claim;

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
	struct petal_mpsc_claim claim;
	struct petal_mpsc ring;
	struct fixture f;

	(void)state;
	fixture_init(&f, &geometry);
	ring = view_of(&f, 1);
	for (uint64_t i = 0; i < (DATA_BYTES - 512) / 64; i++)
		assert_ok(send(&ring, 48, i));
	assert_outcome(petal_mpsc_claim(&ring, 16, &claim), -EAGAIN);
	for (uint64_t i = 0; i < 512 / 64; i++)
		assert_ok(petal_mpsc_claim(&f.ring, 48, &claim));
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
		struct petal_mpsc_claim claim;
		struct petal_mpsc one;
		struct fixture f;

		small_init(&f, ends[i] - 3 * DATA_BYTES - 1984);
		one = view_of(&f, 1);
		for (uint64_t n = 0; n < 300; n++) {
			uint32_t length = 16 + (uint32_t)(n * 37 % 1000);

			assert_ok(send(&f.ring, length, n));
			/* Each third claim is left by a dead owner. */
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
	_Atomic uint64_t failures;
};

static void *produce(void *argument)
{
	struct producer *producer = argument;
	uint64_t seed = 77 + producer->ring.owner;

	for (uint64_t i = 0; i < producer->records;) {
		uint32_t length = 16 + (uint32_t)(random_next(&seed) % 240);
		struct petal_mpsc_claim claim;
		int err = petal_mpsc_claim(&producer->ring, length, &claim);

		if (err == -EAGAIN) {
			sched_yield();
			continue;
		}
		if (err) {
			producer->failures++;
			break;
		}
		if (random_next(&seed) % 16 == 0) {
			producer->failures +=
				petal_mpsc_abort(&producer->ring, &claim) != 0;
			continue;
		}
		fill(&claim, length, producer->ring.owner, i++);
		producer->failures +=
			petal_mpsc_publish(&producer->ring, &claim) != 0;
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
				assert_int_equal(producers[i].failures, 0);
			sched_yield();
		}
	}
	for (uint32_t i = 0; i < 4; i++) {
		pthread_join(producers[i].thread, NULL);
		assert_int_equal(producers[i].failures, 0);
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

enum step { INTENT, SWAPPED, PADDED, LENGTH, NAMED, FILLED, STEPS };

/* What petal_mpsc_claim() does, up to the step at which its caller dies. */
static void claim_until(struct fixture *f, uint32_t owner, uint32_t length,
			enum step step)
{
	struct petal_mpsc ring = view_of(f, owner);
	uint64_t tail = petal_mpsc_tail(&ring);
	struct petal_mpsc_place place = petal_mpsc_place(&ring, tail, length);
	struct petal_record *record = petal_mpsc_record(&ring, place.pos);

	petal_mpsc_intend(&ring.intents[owner], tail, length);
	if (step >= SWAPPED)
		atomic_store(&ring.shared->tail, place.end);
	if (step >= PADDED && place.pos != tail)
		petal_mpsc_pad(&ring, owner, tail, place.pos - tail);
	if (step >= LENGTH)
		petal_mpsc_set_length(record, length);
	if (step >= NAMED)
		petal_mpsc_name(record,
				petal_mpsc_commit(&ring, PETAL_RECORD_CLAIMED,
						  owner, place.pos));
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

static void death__of_several_in_a_row_is_repaired_in_one_walk(void **state)
{
	struct fixture f;

	(void)state;
	near_end_init(&f, 256);
	claim_until(&f, 1, 100, SWAPPED);
	claim_until(&f, 2, 300, SWAPPED);
	claim_until(&f, 3, 16, NAMED);
	claim_until(&f, 4, 500, LENGTH);
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
				for (enum step s = SWAPPED; s < NAMED; s++)
					for (unsigned v = 0; v < EVIDENCES; v++)
						two_dead(to_ends[e], lengths[l],
							 lengths[w], s,
							 (enum evidence)v);
}

static void repair__waits_for_a_living_owner_to_name_its_claim(void **state)
{
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	claim_until(&f, 1, 100, SWAPPED);
	claim_until(&f, 2, 100, NAMED);
	assert_outcome(repair(&f, 1 << 2), -EBUSY);
	assert_outcome(repair(&f, 1 << 1 | 1 << 2), 2);
	assert_empty(&f);
	assert_usable(&f);
	fixture_fini(&f);
}

static void repair__leaves_a_living_owners_claims_alone(void **state)
{
	struct petal_mpsc_claim claim;
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

static void publish__after_being_given_up_is_stale(void **state)
{
	struct petal_mpsc_claim claim;
	struct petal_mpsc one;
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	one = view_of(&f, 1);
	assert_ok(petal_mpsc_claim(&one, 100, &claim));
	assert_outcome(repair(&f, 1 << 1), 1);
	assert_outcome(petal_mpsc_publish(&one, &claim), -ESTALE);
	assert_outcome(petal_mpsc_abort(&one, &claim), -ESTALE);
	assert_empty(&f);
	assert_usable(&f);
	fixture_fini(&f);
}

/* One that was given up between its swap and its name wakes up and goes on. */
static void claim__given_up_before_its_name_is_stale(void **state)
{
	static const uint64_t to_ends[] = { 64, 2048 };

	(void)state;
	for (unsigned e = 0; e < 2; e++) {
		struct petal_mpsc_claim claim;
		struct petal_mpsc_place place;
		struct petal_mpsc one;
		struct fixture f;
		uint64_t tail;

		near_end_init(&f, to_ends[e]);
		one = view_of(&f, 1);
		tail = petal_mpsc_tail(&one);
		place = petal_mpsc_place(&one, tail, 100);
		claim_until(&f, 1, 100, SWAPPED);
		assert_outcome(repair(&f, 1 << 1), 1);
		assert_outcome(petal_mpsc_take(&one, tail, &place, 100, &claim),
			       -ESTALE);
		assert_received(&f, 0, 1);
		assert_empty(&f);
		assert_usable(&f);
		fixture_fini(&f);
	}
}

/* A repairer that died after the wrap padding leaves the claim alive. */
static void claim__padded_by_a_peer_goes_on(void **state)
{
	struct petal_mpsc_claim claim = { 0 };
	struct petal_mpsc_place place;
	struct petal_mpsc one;
	struct fixture f;
	uint64_t tail;

	(void)state;
	near_end_init(&f, 64);
	one = view_of(&f, 1);
	tail = petal_mpsc_tail(&one);
	place = petal_mpsc_place(&one, tail, 100);
	claim_until(&f, 1, 100, PADDED);
	assert_ok(petal_mpsc_take(&one, tail, &place, 100, &claim));
	fill(&claim, 100, 1, 3);
	assert_ok(petal_mpsc_publish(&one, &claim));
	assert_received(&f, 0, 1);
	assert_received(&f, 1, 3);
	assert_usable(&f);
	fixture_fini(&f);
}

static void repair__names_a_gap_that_nobody_wished_for(void **state)
{
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	atomic_store(&f.ring.shared->tail, 128);
	assert_outcome(repair(&f, ~UINT64_C(0)), -PETAL_ECORRUPT);
	/* An intent that cannot have led here does not help. */
	petal_mpsc_intend(&f.ring.intents[1], 0, 500);
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
	struct petal_mpsc_claim claim;

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
	claim_until(&f, 3, 16, NAMED);
	claim_until(&f, 4, 500, LENGTH);
	assert_ok(send(&f.ring, 16, 2));
	assert_true(die_at_every_instruction(&f, act_as_repairer,
					     check_repairer) > 10);
	fixture_fini(&f);
}

static void act_as_consumer(struct fixture *f)
{
	petal_mpsc_release(&f->ring, f->pos + 832);
}

static void check_consumer(struct fixture *f)
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
	assert_true(next == 1 || next == 101);
	for (next = next == 1 ? 100 : 102; next < 106; next++)
		assert_received(f, 0, next);
	assert_empty(f);
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

/* ---- death for real ---- */

enum { KILLED = 3, KILL_DATA_BYTES = 16384 };

/* What the children tell beside the ring, each on a line of its own. */
struct report {
	_Alignas(64) _Atomic uint64_t published;
};

struct arena {
	struct fixture f;
	struct report *reports;
	pid_t children[KILLED];
	uint64_t next[KILLED];
	uint64_t seed;
};

static void child_produces(struct arena *arena, uint32_t index)
{
	struct petal_mpsc ring = view_of(&arena->f, index + 1);
	uint64_t seed = arena->seed * 2 + index + 1;

	/* Should the test fail, nobody else would end us. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint64_t i = 0;;) {
		uint32_t length = 16 + (uint32_t)(random_next(&seed) % 700);
		int err = send(&ring, length, i);

		if (err == -EAGAIN) {
			sched_yield();
		} else if (err == 0) {
			atomic_store(&arena->reports[index].published, ++i);
		} else {
			_exit(1);
		}
	}
}

static void arena_spawn(struct arena *arena, uint32_t index)
{
	random_next(&arena->seed);
	atomic_store(&arena->reports[index].published, 0);
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
	int outcome;

	while ((outcome = repair(&arena->f, dead)) == -EBUSY)
		sched_yield();
	assert_true(outcome >= 0);
}

static void arena_round(struct arena *arena)
{
	uint64_t records = random_next(&arena->seed) % 200;
	uint32_t victim = (uint32_t)(random_next(&arena->seed) % KILLED);
	uint64_t tail, told;

	while (records > 0) {
		if (arena_consume(arena))
			records--;
		else
			sched_yield();
	}
	for (uint64_t i = random_next(&arena->seed) % 2000; i > 0; i--)
		atomic_signal_fence(memory_order_seq_cst);
	arena_kill(arena, victim);
	arena_repair(arena, UINT64_C(2) << victim);

	/* All that the dead one published is before this tail. */
	tail = petal_mpsc_tail(&arena->f.ring);
	while (arena->f.pos < tail)
		if (!arena_consume(arena))
			sched_yield();
	told = atomic_load(&arena->reports[victim].published);
	assert_true(arena->next[victim] == told ||
		    arena->next[victim] == told + 1);
	arena_spawn(arena, victim);
}

static void killed_producers__lose_nothing_and_tear_nothing(void **state)
{
	const struct petal_mpsc_geometry geometry = {
		.data_bytes = KILL_DATA_BYTES,
		.owners = OWNERS,
	};
	uint64_t rounds = setting("PETAL_TEST_ROUNDS", 200);
	struct arena arena = { .seed = setting("PETAL_TEST_SEED", 1) };

	(void)state;
	fixture_init(&arena.f, &geometry);
	arena.reports = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(arena.reports, MAP_FAILED);
	for (uint32_t i = 0; i < KILLED; i++)
		arena_spawn(&arena, i);
	for (uint64_t i = 0; i < rounds; i++)
		arena_round(&arena);
	for (uint32_t i = 0; i < KILLED; i++)
		arena_kill(&arena, i);
	arena_repair(&arena, 0xe);
	while (arena_consume(&arena))
		;
	assert_empty(&arena.f);
	assert_usable(&arena.f);
	munmap(arena.reports, 4096);
	fixture_fini(&arena.f);
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

LIE(lie_magic, atomic_store(&f->ring.shared->magic, 1))
LIE(lie_layout, f->ring.shared->layout = 99)
LIE(lie_owners_none, f->ring.shared->owners = 0)
LIE(lie_owners_more, f->ring.shared->owners = OWNERS + 1)
LIE(lie_owners_most, f->ring.shared->owners = UINT32_MAX)
LIE(lie_bytes_none, f->ring.shared->data_bytes = 0)
LIE(lie_bytes_less, f->ring.shared->data_bytes = 2048)
LIE(lie_bytes_odd, f->ring.shared->data_bytes = 4097)
LIE(lie_bytes_more, f->ring.shared->data_bytes = 8192)
LIE(lie_bytes_most, f->ring.shared->data_bytes = UINT64_C(1) << 63)
LIE(lie_reserve, f->ring.shared->reserve_bytes = UINT32_MAX)

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
			struct petal_mpsc_claim claim;
			struct petal_mpsc ring;
			struct fixture f;
			int err;

			small_init(&f, 0);
			atomic_store(&f.ring.shared->head, words[h]);
			atomic_store(&f.ring.shared->tail, words[t]);
			ring = view_of(&f, 1);
			err = petal_mpsc_claim(&ring, 1000, &claim);
			assert_true(err <= 0);
			if (err == 0)
				fill(&claim, 1000, 1, 0);
			petal_mpsc_release(&f.ring, 4096);
			petal_mpsc_release(&f.ring, words[t]);
			assert_true(petal_mpsc_adopt(&f.ring, &f.pos) <= 0);
			assert_true(petal_mpsc_backlog(&f.ring) <= 4096);
			fixture_fini(&f);
		}
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
	assert_true(view->end <= petal_mpsc_tail(&f->ring));
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

			atomic_store(&f.ring.shared->tail, 6 * DATA_BYTES);
			record->length = lengths[l];
			for (uint64_t lap = 4; lap < 7; lap++) {
				for (uint64_t low = 0; low < 0x30; low++) {
					int outcome;

					atomic_store(&record->commit,
						     lap << 16 | low);
					outcome = petal_mpsc_peek(&f.ring, pos,
								  &view);
					assert_true(outcome <= 2);
					if (outcome != 0)
						continue;
					assert_int_equal(lap, 5);
					assert_view_is_inside(&f, &view);
				}
			}
			atomic_store(&record->commit, 0);
		}
	}
	fixture_fini(&f);
}

static void peek__refuses_a_record_beyond_the_tail(void **state)
{
	struct petal_mpsc_view view;
	struct fixture f;

	(void)state;
	small_init(&f, 0);
	assert_ok(send(&f.ring, 16, 0));
	petal_mpsc_record(&f.ring, 0)->length = 100;
	assert_outcome(petal_mpsc_peek(&f.ring, 0, &view), -PETAL_ECORRUPT);
	assert_outcome(petal_mpsc_peek(&f.ring, 64, &view), 1);
	assert_outcome(petal_mpsc_peek(&f.ring, 128, &view), -PETAL_ECORRUPT);
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
			petal_mpsc_intend(
				&f.ring.intents[i],
				random_next(&seed) % 64 * 64,
				(uint32_t)(random_next(&seed) % 2000));
		atomic_store(&f.ring.shared->tail,
			     random_next(&seed) % 65 * 64);
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
			death__of_several_in_a_row_is_repaired_in_one_walk),
		cmocka_unit_test(
			death__of_two_with_one_intent_position_finds_the_true_one),
		cmocka_unit_test(
			repair__waits_for_a_living_owner_to_name_its_claim),
		cmocka_unit_test(repair__leaves_a_living_owners_claims_alone),
		cmocka_unit_test(publish__after_being_given_up_is_stale),
		cmocka_unit_test(claim__given_up_before_its_name_is_stale),
		cmocka_unit_test(claim__padded_by_a_peer_goes_on),
		cmocka_unit_test(repair__names_a_gap_that_nobody_wished_for),
		cmocka_unit_test(
			killed_producers__lose_nothing_and_tear_nothing),
		cmocka_unit_test(attach__refuses_a_shape_that_does_not_fit),
		cmocka_unit_test(attach__refuses_what_the_caller_got_wrong),
		cmocka_unit_test(format__refuses_a_shape_out_of_range),
		cmocka_unit_test(claim__is_bounded_by_hostile_head_and_tail),
		cmocka_unit_test(peek__is_bounded_whatever_the_bytes_say),
		cmocka_unit_test(peek__refuses_a_record_beyond_the_tail),
		cmocka_unit_test(repair__is_bounded_whatever_the_bytes_say),
		/* Last, for they skip the program where ptrace is forbidden. */
		cmocka_unit_test(producer__may_die_at_every_instruction),
		cmocka_unit_test(repairer__may_die_at_every_instruction),
		cmocka_unit_test(
			consumer__may_die_at_every_instruction_of_release),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
