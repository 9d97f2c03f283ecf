/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers rings/bcast.h in a segment that is not coherent, over the double of
 * such a machine (tests/cache_double.h): the publisher is here, its readers are
 * there. One play goes through all that a ring does; then it is played again
 * for each place in the sources that flushes, invalidates or fences, without
 * that one: each time the play must fail. Also: the host of the publisher goes
 * down after any line; records whose bytes do not match, for a bounded number
 * of looks; caches that write back and fetch lines when nobody asked.
 *
 * With the processor's own instructions, the same ring is in bcast_test.
 *
 * Harder: PETAL_TEST_MESSAGES=10000000 (default 20000) in bad weather.
 */
#define PETAL_CACHE_HOOKS "tests/cache_double.h"

#include "tests/check.h"

#include "rings/bcast_private.h"

/*
 * Each call of these two is a site of its own. The regions below, which tell
 * the double's sites apart, have it above their low bits.
 */
static unsigned spot;

#define HERE_IN_SOURCE (__LINE__ * 4 + sizeof(__FILE__) % 4)
#define petal_bcast_show(map, address, bytes)                                  \
	(spot = HERE_IN_SOURCE, (petal_bcast_show)((map), (address), (bytes)), \
	 (void)(spot = 0))
#define petal_bcast_refresh(map, address, bytes) \
	(spot = HERE_IN_SOURCE,                  \
	 (petal_bcast_refresh)((map), (address), (bytes)), (void)(spot = 0))

/* Compiled anew, with the double in place of the instructions. */
#include "rings/bcast.c"
#include "rings/bcast_far.c"
#include "rings/bcast_reader.c"

enum { DATA = 4096, SEATS = 4, TYPE = 7, LONG = 300 };
enum { HERE, THERE };
enum { SEATS_AT = 768, CURSORS_AT = SEATS_AT + SEATS * 64 };
enum { DATA_AT = CURSORS_AT + SEATS * 128, SPILL_AT = DATA_AT + DATA };
enum { RING_BYTES = SPILL_AT + DATA };
enum { BYTES = RING_BYTES + SEATS * PETAL_BCAST_CURSOR_BYTES };

static const struct petal_bcast_geometry geometry = {
	.data_bytes = DATA,
	.spill_bytes = DATA,
	.readers = SEATS,
	.spills = 1,
	.start_pos = (UINT64_C(1) << 32) - 1024,
	.coherence = PETAL_SEGMENT_NONCOHERENT,
};

/* The parts of a ring's memory that are flushed for different reasons. */
enum region {
	GEOMETRY,
	TAIL,
	LIMIT,
	CLOSED,
	MARKS,
	COUNTS,
	SEAT,
	SPILL_TAIL,
	RECORD,
	COPY,
	CURSOR,
	LEFT,
};

static const char *const region_names[] = { "geometry", "tail",   "limit",
					    "closed",   "marks",  "counts",
					    "seat",     "spill",  "record",
					    "copy",     "cursor", "leaving" };

static enum region region_at(uint64_t offset)
{
	if (offset >= RING_BYTES)
		return offset % 128 == RING_BYTES % 128 + 16 ? LEFT : CURSOR;
	if (offset >= SPILL_AT)
		return COPY;
	if (offset >= DATA_AT)
		return RECORD;
	if (offset >= SEATS_AT)
		return offset % 64 == 16 ? SPILL_TAIL : SEAT;
	if (offset >= 640)
		return COUNTS;
	if (offset >= 384)
		return MARKS;
	if (offset >= 256)
		return offset >= 272 ? CLOSED : LIMIT;
	return offset >= 128 ? TAIL : GEOMETRY;
}

static unsigned region_of(uint64_t offset)
{
	return spot << 4 | (unsigned)region_at(offset);
}

/* Who stores there, once the ring is made. */
static int owner_of(uint64_t offset)
{
	return offset >= RING_BYTES ? THERE : HERE;
}

struct party {
	struct petal_bcast_ticket ticket;
	struct petal_bcast_reader reader;
	uint64_t next; /* the number of what it reads next */
	bool seated;
};

static struct {
	struct cache_double *link;
	struct petal_bcast ring;
	struct party parties[SEATS];
	uint64_t sent;
	uint64_t batch_pos;    /* where the last batch begins */
	uint64_t batch_number; /* of its first record */
	uint64_t seen_as_ring; /* while one was made */
	uint64_t arrivals_since;
	unsigned deaths;
	unsigned wrong; /* the line of the first thing that went wrong */
	bool is_looking;
} play;

/* A play does not end at what goes wrong, for most of them are to go wrong. */
#define EXPECT(condition)                        \
	do {                                     \
		if (!(condition) && !play.wrong) \
			play.wrong = __LINE__;   \
	} while (0)

static void setup_play(void)
{
	struct cache_double *link = calloc(1, sizeof(*link));

	assert_non_null(link);
	assert_int_equal(petal_bcast_bytes(&geometry), RING_BYTES);
	memset(&play, 0, sizeof(play));
	play.link = link;
	link->bytes = BYTES;
	link->newest_first = 1;
	link->region = region_of;
	link->owner = owner_of;
	for (int i = 0; i < 3; i++) {
		unsigned char *bytes = aligned_alloc(64, BYTES);

		assert_non_null(bytes);
		/* What was there before is nothing in particular. */
		memset(bytes, 0x3a, RING_BYTES);
		memset(bytes + RING_BYTES, 0, BYTES - RING_BYTES);
		*(i < 2 ? &link->side[i] : &link->memory) = bytes;
	}
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

static uint8_t *cursor_of(int side, unsigned i)
{
	return play.link->side[side] + RING_BYTES +
	       i * PETAL_BCAST_CURSOR_BYTES;
}

static int attach(int side)
{
	return petal_bcast_attach(play.link->side[side], RING_BYTES,
				  &play.ring);
}

static struct petal_bcast_counts counts_there(void)
{
	struct petal_bcast_counts counts = { 0 };

	EXPECT(petal_bcast_counts(play.link->side[THERE], RING_BYTES,
				  &counts) == 0);
	return counts;
}

/* Records of a length, and with bytes, that their number tells. */
static uint32_t length_of(uint64_t number)
{
	return (uint32_t)(number * 37 % LONG) + 8;
}

/* Half of them look like copies, with a number that is yet to come. */
static uint8_t byte_of(uint64_t number, uint32_t i)
{
	if (number % 2)
		return (uint8_t)(number + i);
	return i % 16 == 0 ? 64 : i % 16 == 12 ? 2 : 0;
}

static void fill(uint8_t *bytes, uint64_t number)
{
	memcpy(bytes, &number, 8);
	for (uint32_t i = 8; i < length_of(number); i++)
		bytes[i] = byte_of(number, i);
}

static bool is_right(const struct petal_bcast_view *view, uint64_t number)
{
	const uint8_t *bytes = view->payload;

	if (view->length != length_of(number) || view->type != TYPE ||
	    memcmp(bytes, &number, 8) != 0)
		return false;
	for (uint32_t i = 8; i < view->length; i++)
		if (bytes[i] != byte_of(number, i))
			return false;
	return true;
}

/* Return: how many of a batch there was room for. */
static unsigned send_batch(unsigned count)
{
	unsigned sent = 0;
	void *payload;

	play.batch_pos = play.ring.tail;
	play.batch_number = play.sent;
	while (sent < count &&
	       petal_bcast_claim(&play.ring, length_of(play.sent + sent), TYPE,
				 &payload) == 0) {
		fill(payload, play.sent + sent);
		sent++;
	}
	petal_bcast_publish(&play.ring);
	play.sent += sent;
	return sent;
}

static bool send(void)
{
	return send_batch(1) == 1;
}

static unsigned send_until_full(void)
{
	unsigned count = 0;

	while (count < 1000 && send())
		count++;
	EXPECT(count < 1000);
	return count;
}

/* What was seen is whole, the next one, and no look was in doubt. */
static int look_at(struct party *party, struct petal_bcast_view *view)
{
	uint64_t lost = petal_bcast_lost(&party->reader);
	int outcome;

	/* After that, a view may be of nothing. */
	if (play.wrong)
		return -ECANCELED;
	outcome = petal_bcast_peek(&party->reader, view);
	EXPECT(party->reader.doubts == 0);
	if (outcome == PETAL_RING_LAPPED) {
		EXPECT(party->reader.policy == PETAL_BCAST_DROP_OLDEST);
		party->next += petal_bcast_lost(&party->reader) - lost;
	}
	if (outcome == 0) {
		EXPECT(is_right(view, party->next));
		EXPECT(petal_bcast_check(&party->reader, view));
	}
	return outcome;
}

static int receive(struct party *party)
{
	struct petal_bcast_view view;
	int outcome = look_at(party, &view);

	if (outcome == 0) {
		petal_bcast_release(&party->reader, &view);
		party->next++;
	}
	return outcome;
}

/* All that was sent is there as soon as publish has returned. */
static void receive_all(struct party *party)
{
	if (!party->seated)
		return;
	while (party->next < play.sent && !play.wrong)
		EXPECT(receive(party) == 0);
	EXPECT(receive(party) == PETAL_RING_EMPTY);
}

/* Between two lines of one fence: nothing is seen that is not whole. */
static void look_between(void)
{
	struct petal_bcast_view view;
	unsigned outer = spot;

	if (play.is_looking)
		return;
	play.is_looking = true;
	spot = 0;
	for (unsigned i = 0; i < SEATS; i++)
		if (play.parties[i].seated)
			look_at(&play.parties[i], &view);
	spot = outer;
	play.is_looking = false;
}

static struct party *enter(unsigned i, enum petal_bcast_policy policy,
			   uint64_t bound_bytes)
{
	struct petal_bcast_options options = { .policy = policy,
					       .owner = i + 1,
					       .bound_bytes = bound_bytes };
	struct party *party = &play.parties[i];

	EXPECT(petal_bcast_admit(&play.ring, cursor_of(HERE, i), &options,
				 &party->ticket) == 0);
	EXPECT(petal_bcast_enter(play.link->side[THERE], RING_BYTES,
				 cursor_of(THERE, i), &party->ticket,
				 &party->reader) == 0);
	EXPECT(party->reader.ordinal == play.sent);
	party->next = play.sent;
	party->seated = !play.wrong;
	return party;
}

static void leave(struct party *party)
{
	if (play.wrong)
		return;
	petal_bcast_leave(&party->reader);
	party->seated = false;
}

/* While a ring is made over another, it is none until its last line is out. */
static void attach_between(void)
{
	struct petal_bcast_counts counts;
	unsigned outer = spot;

	spot = 0;
	play.arrivals_since += play.seen_as_ring;
	if (petal_bcast_counts(play.link->side[THERE], RING_BYTES, &counts) ==
	    0)
		play.seen_as_ring++;
	spot = outer;
}

static void play_making(void)
{
	struct petal_bcast_counts counts;

	/* A copy of what was there before: no ring. */
	EXPECT(petal_bcast_counts(play.link->side[THERE], RING_BYTES,
				  &counts) == -EINVAL);
	EXPECT(petal_bcast_format(play.link->side[HERE], &geometry) == 0);
	EXPECT(attach(HERE) == 0);
	if (play.wrong)
		return;
	/* And a ring over a ring. */
	EXPECT(send_batch(10) == 10);
	counts_there();
	play.link->arrived = attach_between;
	EXPECT(petal_bcast_format(play.link->side[HERE], &geometry) == 0);
	play.link->arrived = NULL;
	/* The first line out is the one that says "no ring". */
	EXPECT(play.seen_as_ring == 1 && play.arrivals_since == 0);
	play.sent = 0;
	EXPECT(attach(HERE) == 0);
	EXPECT(play.ring.tail == geometry.start_pos);
}

/* One and many, with all readers looking at every line. */
static void play_messages(void)
{
	for (unsigned i = 0; i < SEATS && !play.wrong; i++)
		enter(i, (enum petal_bcast_policy)i, 0);
	for (unsigned round = 0; round < 60 && !play.wrong; round++) {
		play.link->arrived = look_between;
		EXPECT(send_batch(1 + round % 4) == 1 + round % 4);
		play.link->arrived = NULL;
		for (unsigned i = 0; i < SEATS; i++)
			receive_all(&play.parties[i]);
		EXPECT(petal_bcast_lag(&play.ring) == 0);
	}
}

/* A new one begins where nobody there has looked yet. */
static void play_beginning(void)
{
	struct petal_bcast_ref ref;
	struct party *party;

	if (play.wrong)
		return;
	leave(&play.parties[1]);
	EXPECT(send_batch(5) == 5);
	party = enter(1, PETAL_BCAST_DROP_OLDEST, 0);
	if (play.wrong)
		return;
	EXPECT(petal_bcast_backlog(&party->reader) == 0);
	EXPECT(send());
	EXPECT(petal_bcast_backlog(&party->reader) > 0);
	EXPECT(send_batch(3) == 3);
	ref = (struct petal_bcast_ref){ play.ring.tail - 64, play.sent - 1 };
	while ((petal_bcast_at(&play.ring.map, ref.pos)->commit.bits >> 16) !=
		       ref.ordinal &&
	       ref.pos > play.ring.tail - 512)
		ref.pos -= 64;
	if (!play.wrong) {
		struct petal_bcast_view view;

		EXPECT(petal_bcast_resolve(&party->reader, &ref, &view) == 0);
	}
	for (unsigned i = 0; i < SEATS; i++)
		receive_all(&play.parties[i]);
}

/* The blocking one is slow: full, and not full as soon as it has read. */
static void play_full(void)
{
	uint64_t refused = counts_there().refused;

	/* It would be evicted. */
	leave(&play.parties[2]);
	for (unsigned round = 1; round <= 3 && !play.wrong; round++) {
		play.link->arrived = look_between;
		send_until_full();
		play.link->arrived = NULL;
		EXPECT(counts_there().refused == refused + round);
		EXPECT(petal_bcast_lag(&play.ring) > DATA / 2);
		for (unsigned i = 0; i < SEATS; i++)
			receive_all(&play.parties[i]);
		EXPECT(petal_bcast_lag(&play.ring) == 0);
		EXPECT(send());
		receive_all(&play.parties[0]);
	}
	for (unsigned i = 0; i < SEATS; i++)
		receive_all(&play.parties[i]);
}

/* The one that drops sleeps; it looks at every line, or only at the end. */
static void play_lapped(bool is_looking)
{
	struct party *slow = &play.parties[1];
	struct petal_bcast_view view;
	uint64_t lost;

	for (unsigned round = 0; round < 5 && !play.wrong; round++) {
		EXPECT(send());
		EXPECT(look_at(slow, &view) == 0);
		lost = petal_bcast_lost(&slow->reader);
		for (unsigned i = 0; i < 50 && !play.wrong; i++) {
			play.link->arrived = is_looking ? look_between : NULL;
			EXPECT(send());
			play.link->arrived = NULL;
			for (unsigned k = 0; k < SEATS && is_looking; k++)
				if (k != 1)
					receive_all(&play.parties[k]);
		}
		EXPECT(play.wrong || !petal_bcast_check(&slow->reader, &view));
		if (!is_looking)
			EXPECT(receive(slow) == PETAL_RING_LAPPED);
		EXPECT(petal_bcast_lost(&slow->reader) > lost);
		receive_all(slow);
	}
}

static void play_alone(void)
{
	if (play.wrong)
		return;
	for (unsigned i = 0; i < SEATS; i++)
		if (i != 1)
			leave(&play.parties[i]);
	play_lapped(false);
}

/* The one that spills is slow, until its area is full as well. */
static void play_spilling(void)
{
	struct petal_bcast_view view;
	struct party *slow;
	uint32_t hold;

	if (play.wrong)
		return;
	slow = enter(0, PETAL_BCAST_SPILL, 0);
	for (unsigned round = 0; round < 12 && !play.wrong; round++) {
		uint64_t spilled = counts_there().spilled;
		unsigned sent;

		play.link->arrived = look_between;
		sent = send_until_full();
		play.link->arrived = NULL;
		EXPECT(sent > 20 && counts_there().spilled > spilled + 10);
		for (unsigned i = 0; i < 12 && !play.wrong; i++)
			EXPECT(receive(slow) == 0);
		EXPECT(send());
		EXPECT(look_at(slow, &view) == 0 && view.spilled);
		if (play.wrong)
			return;
		EXPECT(petal_bcast_hold(&slow->reader, &view, &hold) == 0);
		slow->next++;
		while (slow->next + 3 < play.sent && !play.wrong)
			EXPECT(receive(slow) == 0);
		petal_bcast_drop(&slow->reader, hold);
	}
	receive_all(slow);
	/* A copy in hand is not to be believed when the seat has gone. */
	send_until_full();
	EXPECT(look_at(slow, &view) == 0 && view.spilled);
	EXPECT(petal_bcast_evict(&play.ring, slow->ticket.seat,
				 slow->ticket.word) == 0);
	EXPECT(play.wrong || !petal_bcast_check(&slow->reader, &view));
	slow->seated = false;
}

/* Seats are lost: for being late, by order, for being dead, by leaving. */
static void play_evicting(void)
{
	struct petal_bcast_counts before = counts_there();
	struct petal_bcast_standing standing;
	struct petal_bcast_view view;
	struct party *slow;
	unsigned tries;

	if (play.wrong)
		return;
	slow = enter(2, PETAL_BCAST_EVICT, DATA / 2);
	play.link->arrived = look_between;
	for (tries = 0; tries < 100 && slow->seated && !play.wrong; tries++) {
		EXPECT(send());
		slow->seated = counts_there().evicted == before.evicted;
	}
	play.link->arrived = NULL;
	EXPECT(tries < 100);
	EXPECT(play.wrong || petal_bcast_peek(&slow->reader, &view) == -ESTALE);

	slow = enter(2, PETAL_BCAST_BLOCK, 0);
	EXPECT(petal_bcast_standing(play.link->side[THERE], RING_BYTES,
				    slow->ticket.seat, &standing) == 0 &&
	       standing.word == slow->ticket.word);
	EXPECT(receive(slow) == PETAL_RING_EMPTY);
	EXPECT(petal_bcast_evict(&play.ring, slow->ticket.seat,
				 slow->ticket.word) == 0);
	EXPECT(receive(slow) == -ESTALE);
	EXPECT(counts_there().evicted == before.evicted + 2);
	slow->seated = false;

	slow = enter(3, PETAL_BCAST_BLOCK, 0);
	send_until_full();
	EXPECT(petal_bcast_repair(play.link->side[HERE], RING_BYTES, 4) == 1);
	EXPECT(counts_there().removed == before.removed + 1);
	EXPECT(send());
	slow->seated = false;

	slow = enter(3, PETAL_BCAST_BLOCK, 0);
	send_until_full();
	leave(slow);
	EXPECT(send());
}

/* Tail has not come any more; and who follows it is somewhere else. */
static void play_successors(void)
{
	uint64_t *tail = (uint64_t *)(void *)(play.link->memory + 128);
	struct party *first, *second;
	uint64_t before;

	if (play.wrong)
		return;
	leave(&play.parties[1]);
	first = enter(0, PETAL_BCAST_BLOCK, 0);
	second = enter(2, PETAL_BCAST_BLOCK, 0);
	before = *tail;
	EXPECT(send_batch(4) == 4);
	EXPECT(*tail == play.ring.tail);
	*tail = before;
	EXPECT(attach(THERE) == 0);
	if (play.wrong)
		return;
	EXPECT(play.ring.ordinal == play.sent && *tail == play.ring.tail);
	EXPECT(petal_bcast_adopt(&play.ring, cursor_of(THERE, 0),
				 &first->ticket) == 0);
	EXPECT(petal_bcast_evict(&play.ring, second->ticket.seat,
				 second->ticket.word) == 0);
	for (unsigned i = 0; i < 40 && !play.wrong; i++) {
		EXPECT(send());
		receive_all(first);
	}
	second->seated = false;
	/* And back again, where all copies are old. */
	EXPECT(attach(HERE) == 0);
	if (play.wrong)
		return;
	EXPECT(play.ring.ordinal == play.sent);
	EXPECT(petal_bcast_adopt(&play.ring, cursor_of(HERE, 2),
				 &second->ticket) == -ESTALE);
	EXPECT(petal_bcast_adopt(&play.ring, cursor_of(HERE, 0),
				 &first->ticket) == 0);
	EXPECT(petal_bcast_lag(&play.ring) == 0);
	/* One that has not read anything is known to want nothing, too. */
	second = enter(2, PETAL_BCAST_BLOCK, 0);
	EXPECT(attach(HERE) == 0);
	EXPECT(petal_bcast_adopt(&play.ring, cursor_of(HERE, 2),
				 &second->ticket) == 0);
	EXPECT(petal_bcast_adopt(&play.ring, cursor_of(HERE, 0),
				 &first->ticket) == 0);
	EXPECT(petal_bcast_lag(&play.ring) == 0);
}

/* A machine that has only what has arrived: all of the batch, or nothing. */
static void die(void)
{
	static _Alignas(64) unsigned char image[BYTES];
	struct petal_bcast successor;
	unsigned outer = spot;
	const uint64_t *commit;

	memcpy(image, play.link->memory, BYTES);
	play.deaths++;
	cache_double = NULL;
	spot = 0;
	EXPECT(petal_bcast_attach(image, RING_BYTES, &successor) == 0);
	spot = outer;
	cache_double = play.link;
	if (play.wrong)
		return;
	if (successor.ordinal == play.batch_number) {
		EXPECT(successor.tail == play.batch_pos);
		return;
	}
	/* Whoever waits at the old end finds that it goes on there. */
	commit = (const uint64_t *)(const void *)(image + DATA_AT +
						  play.batch_pos % DATA);
	EXPECT(successor.ordinal == play.ring.ordinal);
	EXPECT(successor.tail == play.ring.claimed);
	EXPECT(*commit >> 16 == play.batch_number &&
	       petal_record_state(*commit) != PETAL_RECORD_FREE);
}

static void play_dying(void)
{
	if (play.wrong)
		return;
	play.link->arrived = die;
	enter(0, PETAL_BCAST_DROP_OLDEST, 0);
	for (unsigned i = 0; i < 100 && !play.wrong; i++)
		EXPECT(send_batch(1 + i % 5) == 1 + i % 5);
	play.link->arrived = NULL;
	leave(&play.parties[0]);
}

/* Caches write back and fetch what they like, between any two calls. */
static void play_weather(uint64_t messages)
{
	uint64_t end = play.sent + messages;

	for (unsigned i = 0; i < SEATS && !play.wrong; i++)
		enter(i, (enum petal_bcast_policy)i, 0);
	play.link->weather = 42;
	while (play.sent < end && !play.wrong) {
		play.link->arrived = look_between;
		send_batch(1 + play.sent % 5);
		play.link->arrived = NULL;
		for (unsigned i = 0; i < SEATS && !play.wrong; i++) {
			unsigned left = 2;

			/* Each is slow by turns, but who would be evicted. */
			if (i == 2 || play.sent / 128 % 5 != i)
				left = 1000;
			while (left-- > 0 && receive(&play.parties[i]) == 0)
				;
		}
	}
	play.link->weather = 0;
	for (unsigned i = 0; i < SEATS; i++)
		leave(&play.parties[i]);
}

static void play_closing(void)
{
	if (play.wrong)
		return;
	EXPECT(send());
	petal_bcast_close(&play.ring);
	EXPECT(receive(&play.parties[0]) == 0);
	EXPECT(receive(&play.parties[0]) == PETAL_RING_CLOSED);
}

static void play_all(void)
{
	play_making();
	play_dying();
	play_weather(2000);
	play_messages();
	play_beginning();
	play_full();
	play_lapped(true);
	play_alone();
	play_spilling();
	play_evicting();
	play_successors();
	play_closing();
	play.link->arrived = NULL;
}

static void play__is_right_when_nothing_is_left_out(void **state)
{
	(void)state;
	setup_play();
	play_all();
	assert_int_equal(play.wrong, 0);
	assert_true(play.sent > 500);
	teardown_play();
}

static void site_print(const struct cache_double_site *site)
{
	static const char *const calls[] = { "writeback", "invalidate",
					     "fence" };

	print_message("%s:%u %s of %s, %llu calls: ", site->file,
		      site->region >> 4 ? site->region >> 6
					: (unsigned)site->line,
		      calls[site->call], region_names[site->region & 15],
		      (unsigned long long)site->calls);
}

/* Sites are met in the same order each time, until the missing one matters. */
static void each_flush__is_missed_when_it_is_left_out(void **state)
{
	static struct cache_double_site sites[CACHE_DOUBLE_SITES_MAX];
	unsigned count, survivors = 0;

	(void)state;
	setup_play();
	play_all();
	count = play.link->site_count;
	memcpy(sites, play.link->sites, sizeof(sites));
	teardown_play();
	assert_true(count > 50);
	for (unsigned skip = 1; skip <= count; skip++) {
		setup_play();
		play.link->skip = skip;
		play_all();
		site_print(&sites[skip - 1]);
		print_message(play.wrong ? "missed at line %u\n"
					 : "not missed (%u)\n",
			      play.wrong);
		survivors += play.wrong == 0;
		teardown_play();
	}
	assert_int_equal(survivors, 0);
}

static void publisher__may_lose_its_host_after_any_line(void **state)
{
	(void)state;
	for (int newest_first = 0; newest_first < 2; newest_first++) {
		setup_play();
		play.link->newest_first = newest_first;
		play_making();
		play_dying();
		assert_int_equal(play.wrong, 0);
		assert_true(play.deaths > 1000);
		teardown_play();
	}
}

static void weather__changes_nothing(void **state)
{
	const char *value = getenv("PETAL_TEST_MESSAGES");

	(void)state;
	setup_play();
	play_making();
	play_weather(value ? strtoull(value, NULL, 10) : 20000);
	assert_int_equal(play.wrong, 0);
	assert_true(counts_there().spilled > 0);
	assert_true(petal_bcast_lost(&play.parties[1].reader) > 0);
	teardown_play();
}

/* Peeks until the doubts end, and then sees that it has come after all. */
static void expect_doubts(struct party *party, uint8_t *byte)
{
	struct petal_bcast_view view;
	uint8_t was = *byte;

	*byte ^= 4;
	for (unsigned i = 1; i < PETAL_BCAST_DOUBTS_MAX; i++)
		assert_outcome(petal_bcast_peek(&party->reader, &view),
			       PETAL_RING_EMPTY);
	for (unsigned i = 0; i < 3; i++)
		assert_outcome(petal_bcast_peek(&party->reader, &view),
			       -PETAL_ECORRUPT);
	*byte = was;
	assert_outcome(receive(party), 0);
	assert_int_equal(play.wrong, 0);
}

static uint8_t *in_memory(const struct party *party, const void *there)
{
	return play.link->memory + ((const uint8_t *)there -
				    (const uint8_t *)party->reader.map.shared);
}

static void doubt__lasts_a_bounded_number_of_looks(void **state)
{
	/* The number, the length, the type, the first line, the last one. */
	static const unsigned at[] = { 3, 8, 12, 40, 300 };
	struct party *party;

	(void)state;
	setup_play();
	play_making();
	party = enter(0, PETAL_BCAST_BLOCK, 0);
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		/* Until there is a long one, that is not behind padding. */
		do {
			assert_true(send());
			receive_all(party);
		} while (length_of(play.sent) < LONG ||
			 (party->reader.pos & (DATA - 1)) + 384 > DATA);
		assert_true(send());
		expect_doubts(party,
			      in_memory(party,
					petal_bcast_at(&party->reader.map,
						       party->reader.pos)) +
				      at[i]);
	}
	teardown_play();
}

static void doubt__is_had_of_a_copy_too(void **state)
{
	struct petal_bcast_view view;
	struct party *party;

	(void)state;
	setup_play();
	play_making();
	party = enter(0, PETAL_BCAST_SPILL, 0);
	send_until_full();
	assert_outcome(look_at(party, &view), 0);
	assert_true(view.spilled);
	expect_doubts(party, in_memory(party, view.payload) + 5);
	receive_all(party);
	assert_int_equal(play.wrong, 0);
	teardown_play();
}

static void join__is_for_those_who_share_a_cache(void **state)
{
	const struct petal_bcast_options options = { .owner = 1 };
	struct petal_bcast_geometry odd = geometry;
	struct petal_bcast_reader reader;

	(void)state;
	setup_play();
	play_making();
	assert_outcome(petal_bcast_join(play.link->side[THERE], RING_BYTES,
					&options, &reader),
		       -EOPNOTSUPP);
	odd.start_pos += 16;
	assert_int_equal(petal_bcast_bytes(&odd), 0);
	odd = geometry;
	odd.coherence = (enum petal_segment_coherence)7;
	assert_outcome(petal_bcast_format(play.link->side[HERE], &odd),
		       -EINVAL);
	teardown_play();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(play__is_right_when_nothing_is_left_out),
		cmocka_unit_test(each_flush__is_missed_when_it_is_left_out),
		cmocka_unit_test(publisher__may_lose_its_host_after_any_line),
		cmocka_unit_test(weather__changes_nothing),
		cmocka_unit_test(doubt__lasts_a_bounded_number_of_looks),
		cmocka_unit_test(doubt__is_had_of_a_copy_too),
		cmocka_unit_test(join__is_for_those_who_share_a_cache),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
