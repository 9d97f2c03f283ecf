/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers rings/spsc.h in a segment that is not coherent, over the double of
 * such a machine (tests/cache_double.h): each side has a cache of its own, and
 * only flushed lines travel. One play goes through all that a ring does; then
 * it is played again for each place in the sources that flushes, invalidates or
 * fences, without that one: each time the play must fail. Also: messages whose
 * bytes do not match, for a bounded number of looks; caches that write back and
 * fetch lines when nobody asked; and that the other kinds of ring refuse, but for
 * broadcast (noncoherent_bcast_test).
 *
 * With the processor's own instructions, the same ring is in spsc_test.
 *
 * Harder: PETAL_TEST_MESSAGES=10000000 (default 20000) in bad weather.
 */
#define PETAL_CACHE_HOOKS "tests/cache_double.h"

#include "tests/check.h"

#include "rings/mpmc.h"
#include "rings/mpsc.h"
#include "rings/outcome.h"
#include "rings/pipe.h"
#include "shm/cache.h"

/* Compiled anew, with the double in place of the instructions. */
#include "rings/spsc.c"
#include "rings/spsc_far.c"

enum { SLOTS = 8, SLOT_BYTES = 200, WORDS = SLOT_BYTES / 8 };
enum { HERE, THERE };
enum { RING_BYTES = 384 + SLOTS * 256 };
enum { CURSOR_AT = RING_BYTES, BYTES = RING_BYTES + PETAL_SPSC_CURSOR_BYTES };

static const struct petal_spsc_geometry geometry = {
	.slot_count = SLOTS,
	.slot_bytes = SLOT_BYTES,
	.kind = PETAL_SPSC_STAMPED,
	.start_pos = (UINT64_C(1) << 32) - 20,
	.coherence = PETAL_SEGMENT_NONCOHERENT,
};

/* The parts of a ring's memory that are flushed for different reasons. */
enum region {
	GEOMETRY,
	PRODUCER_CLOSED,
	TAIL,
	HEAD,
	CONSUMER_CLOSED,
	STAMP,
	REST,
	CURSOR,
};

static const char *const region_names[] = {
	"geometry", "producer's closed", "tail",   "head", "consumer's closed",
	"stamp",    "rest of slot",      "cursor",
};

static unsigned region_of(uint64_t offset)
{
	if (offset >= CURSOR_AT + 192)
		return CONSUMER_CLOSED;
	if (offset >= CURSOR_AT + 128)
		return HEAD;
	if (offset >= CURSOR_AT)
		return CURSOR;
	if (offset >= 384)
		return (offset - 384) % 256 < 64 ? STAMP : REST;
	if (offset >= 320)
		return CONSUMER_CLOSED;
	if (offset >= 256)
		return HEAD;
	if (offset >= 128)
		return TAIL;
	return offset >= 64 ? PRODUCER_CLOSED : GEOMETRY;
}

/* Who stores there, once the ring is made: the producer is here. */
static int owner_of(uint64_t offset)
{
	switch ((enum region)region_of(offset)) {
	case HEAD:
	case CONSUMER_CLOSED:
		return THERE;
	case GEOMETRY:
	case CURSOR:
		return -1;
	default:
		return HERE;
	}
}

static struct {
	struct cache_double *link;
	bool apart;
	struct petal_spsc producer;
	struct petal_spsc consumer;
	uint64_t sent;
	uint64_t seen;     /* read whole, released or not */
	uint64_t attached; /* while a ring was made */
	uint64_t arrivals_since;
	unsigned wrong; /* the line of the first thing that went wrong */
} play;

/* A play does not end at what goes wrong, for most of them are to go wrong. */
#define EXPECT(condition)                        \
	do {                                     \
		if (!(condition) && !play.wrong) \
			play.wrong = __LINE__;   \
	} while (0)

static void setup_play(bool apart)
{
	struct cache_double *link = calloc(1, sizeof(*link));

	assert_non_null(link);
	memset(&play, 0, sizeof(play));
	play.link = link;
	play.apart = apart;
	link->bytes = BYTES;
	link->newest_first = 1;
	link->region = region_of;
	link->owner = owner_of;
	for (int i = 0; i < 2; i++) {
		link->side[i] = aligned_alloc(64, BYTES);
		assert_non_null(link->side[i]);
		memset(link->side[i], 0, BYTES);
	}
	link->memory = aligned_alloc(64, BYTES);
	assert_non_null(link->memory);
	memset(link->memory, 0, BYTES);
	cache_double = link;
}

static void teardown_play(void)
{
	assert_int_equal(play.link->overflows, 0);
	cache_double = NULL;
	for (int i = 0; i < 2; i++)
		free(play.link->side[i]);
	free(play.link->memory);
	free(play.link);
}

static int attach(int side, enum petal_spsc_role role,
		  struct petal_spsc *ret_ring)
{
	uint8_t *base = play.link->side[side];

	if (play.apart)
		return petal_spsc_attach_apart(base, RING_BYTES,
					       base + CURSOR_AT,
					       PETAL_SPSC_CURSOR_BYTES, role,
					       ret_ring);
	return petal_spsc_attach(base, RING_BYTES, role, ret_ring);
}

static int format(int side)
{
	uint8_t *base = play.link->side[side];
	int err = petal_spsc_format(base, &geometry);

	if (!err && play.apart)
		err = petal_spsc_format_cursor(base + CURSOR_AT,
					       geometry.start_pos);
	return err;
}

static void fill(uint64_t *words, uint64_t value)
{
	for (uint64_t i = 0; i < WORDS; i++)
		words[i] = value * WORDS + i;
}

static bool is_filled(const uint64_t *words, uint64_t value)
{
	for (uint64_t i = 0; i < WORDS; i++)
		if (words[i] != value * WORDS + i)
			return false;
	return true;
}

static bool send(void)
{
	uint64_t *words = petal_spsc_claim(&play.producer);

	if (!words)
		return false;
	fill(words, play.sent++);
	petal_spsc_publish(&play.producer);
	return true;
}

static uint64_t send_n(uint64_t want)
{
	uint64_t count = petal_spsc_claim_n(&play.producer, want);

	for (uint64_t i = 0; i < count; i++)
		fill(petal_spsc_slot(&play.producer, i), play.sent + i);
	play.sent += count;
	petal_spsc_publish_n(&play.producer, count);
	return count;
}

/* What was seen is whole, the next one, and no look was in doubt. */
static bool look(uint64_t index)
{
	const uint64_t *words = petal_spsc_peek_at(&play.consumer, index);

	EXPECT(play.consumer.doubts == 0);
	if (!words)
		return false;
	EXPECT(is_filled(words, play.seen + index));
	return true;
}

static bool receive(void)
{
	if (!look(0))
		return false;
	play.seen++;
	petal_spsc_release(&play.consumer);
	return true;
}

/* Between two lines of one fence: nothing is seen that is not whole. */
static void look_between(void)
{
	look(0);
	look(1);
	look(SLOTS - 1);
}

/* While a ring is made over another, it is none until its last line is out. */
static void attach_between(void)
{
	struct petal_spsc ring;

	play.arrivals_since += play.attached;
	if (attach(THERE, PETAL_SPSC_CONSUMER, &ring) == 0)
		play.attached++;
}

static void play_making(void)
{
	struct petal_spsc ring;

	/* A copy of what was there before: no ring. */
	EXPECT(attach(THERE, PETAL_SPSC_CONSUMER, &ring) == -EINVAL);
	EXPECT(format(HERE) == 0);
	EXPECT(attach(THERE, PETAL_SPSC_CONSUMER, &ring) == 0);
	/* And a ring over a ring, with other stamps. */
	EXPECT(attach(HERE, PETAL_SPSC_PRODUCER, &play.producer) == 0);
	if (play.wrong)
		return;
	petal_spsc_claim(&play.producer);
	petal_spsc_publish(&play.producer);
	play.link->arrived = attach_between;
	EXPECT(petal_spsc_format(play.link->side[HERE], &geometry) == 0);
	play.link->arrived = NULL;
	/* The first line out is the one that says "no ring". */
	EXPECT(play.attached == 1 && play.arrivals_since == 0);
	EXPECT(attach(HERE, PETAL_SPSC_PRODUCER, &play.producer) == 0);
	EXPECT(attach(THERE, PETAL_SPSC_CONSUMER, &play.consumer) == 0);
	EXPECT(play.producer.pos == geometry.start_pos);
	EXPECT(play.consumer.pos == geometry.start_pos);
}

/* Messages by one and by many, with the consumer looking at every line. */
static void play_messages(void)
{
	for (uint64_t round = 0; round < 40 && !play.wrong; round++) {
		play.link->arrived = look_between;
		if (round % 2)
			send_n(1 + round % SLOTS);
		else
			EXPECT(send());
		play.link->arrived = NULL;
		/* What publish has returned from is there. */
		while (play.seen < play.sent && !play.wrong)
			EXPECT(receive());
		EXPECT(!receive());
	}
}

/* Full, and not full as soon as a quarter is released; and the gauges. */
static void play_full(void)
{
	for (uint64_t round = 0; round < 5 && !play.wrong; round++) {
		uint64_t backlog;

		for (uint64_t i = 0; i < SLOTS && !play.wrong; i++) {
			EXPECT(send());
			backlog = petal_spsc_backlog(&play.consumer);
			EXPECT(backlog <= i + 1 && backlog + SLOTS / 4 > i + 1);
		}
		EXPECT(!petal_spsc_claim(&play.producer));
		EXPECT(petal_spsc_outcome(&play.producer) == -EAGAIN);
		for (uint64_t i = 0; i < SLOTS && !play.wrong; i++) {
			EXPECT(receive());
			backlog = petal_spsc_backlog(&play.producer);
			EXPECT(backlog < SLOTS - 1 - i + SLOTS / 4);
			if (i + 1 == SLOTS / 4)
				EXPECT(petal_spsc_claim(&play.producer));
		}
		EXPECT(!receive());
	}
}

/* Those who come after: on the other host, since the first one is down. */
static void play_successors(void)
{
	struct petal_spsc again;

	if (play.wrong)
		return;
	/* More than a ring since anything was attached; two are unread. */
	EXPECT(send() && send() && send() && receive());
	EXPECT(attach(THERE, PETAL_SPSC_PRODUCER, &again) == 0);
	if (play.wrong)
		return;
	EXPECT(again.pos == play.producer.pos);
	/* tail is where it should be, for the one after that. */
	EXPECT(petal_load(&again.shared->tail, PETAL_RELAXED) == again.pos);
	EXPECT(attach(HERE, PETAL_SPSC_PRODUCER, &play.producer) == 0);
	EXPECT(petal_load(&play.producer.shared->tail, PETAL_RELAXED) ==
	       again.pos);
	EXPECT(receive() && receive() && !receive());
	EXPECT(attach(HERE, PETAL_SPSC_CONSUMER, &again) == 0);
	EXPECT(again.pos == play.consumer.pos);
}

static void play_closing(void)
{
	if (play.wrong)
		return;
	EXPECT(petal_spsc_outcome(&play.consumer) == PETAL_RING_EMPTY);
	EXPECT(petal_spsc_outcome(&play.producer) == 0);
	petal_spsc_close(&play.consumer);
	EXPECT(petal_spsc_outcome(&play.producer) == -EPIPE);
	EXPECT(send());
	petal_spsc_close(&play.producer);
	EXPECT(petal_spsc_outcome(&play.consumer) == PETAL_RING_FOUND);
	EXPECT(receive());
	EXPECT(petal_spsc_outcome(&play.consumer) == PETAL_RING_CLOSED);
}

static void play_all(void)
{
	play_making();
	play_messages();
	play_full();
	play_successors();
	play_closing();
}

static void play__is_right_when_nothing_is_left_out(void **state)
{
	(void)state;
	for (int apart = 0; apart < 2; apart++) {
		setup_play(apart);
		play_all();
		assert_int_equal(play.wrong, 0);
		assert_true(play.sent > 10 * SLOTS);
		teardown_play();
	}
}

static void site_print(const struct cache_double_site *site)
{
	static const char *const calls[] = { "writeback", "invalidate",
					     "fence" };

	print_message("%s:%d %s of %s, %llu calls: ", site->file, site->line,
		      calls[site->call], region_names[site->region],
		      (unsigned long long)site->calls);
}

/* Sites are met in the same order each time, until the missing one matters. */
static void each_flush__is_missed_when_it_is_left_out(void **state)
{
	static struct cache_double_site sites[2][CACHE_DOUBLE_SITES_MAX];
	unsigned counts[2];
	unsigned survivors = 0;

	(void)state;
	for (int apart = 0; apart < 2; apart++) {
		setup_play(apart);
		play_all();
		counts[apart] = play.link->site_count;
		memcpy(sites[apart], play.link->sites, sizeof(sites[apart]));
		teardown_play();
	}
	/* A ring that is not apart has no site that one apart has not. */
	assert_true(counts[1] >= counts[0] && counts[0] > 15);
	for (unsigned skip = 1; skip <= counts[1]; skip++) {
		setup_play(true);
		play.link->skip = skip;
		play_all();
		site_print(&sites[1][skip - 1]);
		print_message(play.wrong ? "missed at line %u\n"
					 : "not missed (%u)\n",
			      play.wrong);
		survivors += play.wrong == 0;
		teardown_play();
	}
	for (unsigned skip = 1; skip <= counts[0]; skip++) {
		setup_play(false);
		play.link->skip = skip;
		play_all();
		if (!play.wrong) {
			print_message("in one memory, not missed: ");
			site_print(&sites[0][skip - 1]);
			print_message("\n");
		}
		survivors += play.wrong == 0;
		teardown_play();
	}
	assert_int_equal(survivors, 0);
}

/* "No ring", the body, and the magic are shown one after the other. */
static void format__needs_each_of_its_three_steps(void **state)
{
	unsigned sites = 0;

	(void)state;
	for (unsigned skip = 1; skip <= 8; skip++)
		for (unsigned step = 1; step <= 3; step++) {
			const struct cache_double_site *site;

			setup_play(false);
			play.link->skip = skip;
			/* Of the second ring: the first is made of zeroes. */
			play.link->skip_nth = 3 + step;
			play_making();
			site = &play.link->sites[skip - 1];
			if (skip <= play.link->site_count &&
			    site->region == GEOMETRY &&
			    site->call != CACHE_DOUBLE_INVALIDATE) {
				assert_int_not_equal(play.wrong, 0);
				sites++;
			}
			teardown_play();
		}
	assert_int_equal(sites, 2 * 3);
}

static void weather__changes_nothing(void **state)
{
	const char *value = getenv("PETAL_TEST_MESSAGES");
	uint64_t messages = value ? strtoull(value, NULL, 10) : 20000;

	(void)state;
	setup_play(false);
	play_making();
	play.link->weather = 42;
	play.link->arrived = NULL;
	while (play.sent < messages && !play.wrong) {
		play.link->arrived = look_between;
		send_n(1 + play.sent % 5);
		play.link->arrived = NULL;
		while (receive() && play.seen % 7)
			;
	}
	assert_int_equal(play.wrong, 0);
	teardown_play();
}

static void doubt__lasts_a_bounded_number_of_looks(void **state)
{
	(void)state;
	for (int what = 0; what < 3; what++) {
		uint8_t *byte;
		uint8_t was;

		setup_play(false);
		play_making();
		EXPECT(send() && send() && receive());
		assert_int_equal(play.wrong, 0);
		/* A byte of the stamp, of the first line, of the last one. */
		byte = play.link->memory +
		       (petal_spsc_place(&play.consumer, play.consumer.pos) -
			play.link->side[THERE]) +
		       (what == 0   ? 5
			: what == 1 ? 40
				    : 215);
		was = *byte;
		*byte ^= 4;
		for (unsigned i = 1; i < PETAL_SPSC_DOUBTS_MAX; i++)
			assert_null(petal_spsc_peek(&play.consumer));
		play.consumer.doubts--;
		assert_outcome(petal_spsc_outcome(&play.consumer),
			       PETAL_RING_EMPTY);
		assert_null(petal_spsc_peek(&play.consumer));
		assert_outcome(petal_spsc_outcome(&play.consumer),
			       -PETAL_ECORRUPT);
		/* It has come after all. */
		*byte = was;
		assert_non_null(petal_spsc_peek(&play.consumer));
		assert_outcome(petal_spsc_outcome(&play.consumer), 0);
		assert_true(receive());
		assert_int_equal(play.wrong, 0);
		teardown_play();
	}
}

/* Those that swap words, or share lines, say so before they lose anything. */
static void other_rings__are_refused(void **state)
{
	struct petal_mpsc_geometry mpsc = { .data_bytes = 4096, .owners = 2 };
	struct petal_mpmc_geometry mpmc = { .slot_count = 4,
					    .slot_bytes = 48,
					    .owners = 2 };
	struct petal_pipe_geometry pipe = { .data_bytes = 4096 };
	void *memory = aligned_alloc(64, 65536);

	(void)state;
	assert_non_null(memory);
	memset(memory, 0, 65536);
	assert_ok(petal_mpsc_format(memory, &mpsc));
	assert_ok(petal_mpmc_format(memory, &mpmc));
	assert_ok(petal_pipe_format(memory, &pipe));
	mpsc.coherence = PETAL_SEGMENT_NONCOHERENT;
	mpmc.coherence = PETAL_SEGMENT_NONCOHERENT;
	pipe.coherence = PETAL_SEGMENT_NONCOHERENT;
	memset(memory, 7, 65536);
	assert_outcome(petal_mpsc_format(memory, &mpsc), -EOPNOTSUPP);
	assert_outcome(petal_mpmc_format(memory, &mpmc), -EOPNOTSUPP);
	assert_outcome(petal_pipe_format(memory, &pipe), -EOPNOTSUPP);
	for (unsigned i = 0; i < 65536; i++)
		assert_int_equal(((uint8_t *)memory)[i], 7);
	free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(play__is_right_when_nothing_is_left_out),
		cmocka_unit_test(each_flush__is_missed_when_it_is_left_out),
		cmocka_unit_test(format__needs_each_of_its_three_steps),
		cmocka_unit_test(weather__changes_nothing),
		cmocka_unit_test(doubt__lasts_a_bounded_number_of_looks),
		cmocka_unit_test(other_rings__are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
