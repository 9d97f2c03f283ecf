/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/mpmc.h"

#include <string.h>

#include "tests/explore/explore.h"

/*
 * Owners 0 and up are the threads of a model by their index; the last one is
 * finish's. Every message is one plain word, a number of its own. Of each
 * number the state knows how far its producer came, and how often it was
 * delivered, which is counted when release says that it was.
 */

const char explore_kind[] = "mpmc";

#define SLOTS 4u
#define OWNERS 6u
#define KEEPER (OWNERS - 1)
#define EACH 8u /* numbers per owner */
#define SHARED_BYTES (640u + OWNERS * 128u + SLOTS * 64u)

static _Alignas(64) uint8_t shared[SHARED_BYTES];

enum fate { NEVER, TRIED, PUBLISHED, REFUSED };

static struct {
	struct petal_mpmc rings[OWNERS];
	uint8_t fate[OWNERS * EACH];
	uint8_t delivered[OWNERS * EACH];
	uint64_t in_hand[OWNERS];
	uint8_t last[OWNERS][OWNERS]; /* consumer, producer */
	bool died[OWNERS];
	bool saw_end;
	bool has_kept;
} state;

static const struct petal_mpmc_geometry geometry = {
	.slot_count = SLOTS,
	.slot_bytes = 8,
	.owners = OWNERS,
};

static void make(uint64_t start_pos)
{
	struct petal_mpmc_geometry shape = geometry;

	shape.start_pos = start_pos;
	memset(shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
	explore_check(petal_mpmc_bytes(&shape) <= sizeof(shared));
	explore_check(petal_mpmc_format(shared, &shape) == 0);
	for (uint32_t i = 0; i < OWNERS; i++)
		explore_check(petal_mpmc_attach(shared, sizeof(shared), i,
						&state.rings[i]) == 0);
}

static void make_new(void)
{
	make(0);
}

static void make_late(void)
{
	make((UINT64_C(1) << 32) - 2);
}

/* --- what owners do ------------------------------------------------------- */

static struct petal_mpmc *mine(void)
{
	unsigned self = explore_self();

	return &state.rings[self < KEEPER ? self : KEEPER];
}

static void produce_one(struct petal_mpmc *ring, unsigned number,
			const struct petal_mpmc_claim *claim)
{
	unsigned id = ring->owner * EACH + number;

	explore_write(claim->bytes, id + 1);
	state.fate[id] = TRIED;
	state.fate[id] = petal_mpmc_publish(ring, claim) == 0 ? PUBLISHED
							      : REFUSED;
}

static void produce(unsigned count, unsigned tries)
{
	struct petal_mpmc *ring = mine();
	struct petal_mpmc_claim claim;
	unsigned number = 0;

	while (number < count && tries-- > 0) {
		int err = petal_mpmc_claim(ring, &claim);

		explore_check(!err || err == -EAGAIN || err == -EPIPE);
		if (!err)
			produce_one(ring, number++, &claim);
	}
}

static void check_order(const struct petal_mpmc *ring, uint64_t id,
			uint32_t redelivered)
{
	uint8_t *last = &state.last[ring->owner][id / EACH];

	if (redelivered)
		return;
	explore_check(id % EACH + 1 > *last);
	*last = (uint8_t)(id % EACH + 1);
}

static int take(struct petal_mpmc *ring, struct petal_mpmc_view *view)
{
	int outcome = petal_mpmc_peek(ring, view);
	uint64_t id;

	if (outcome)
		return outcome;
	id = explore_read(view->bytes);
	explore_check(id > 0 && id <= sizeof(state.fate));
	state.in_hand[ring->owner] = id;
	check_order(ring, id - 1, view->redelivered);
	return 0;
}

static void done(struct petal_mpmc *ring, const struct petal_mpmc_view *view)
{
	uint64_t id = state.in_hand[ring->owner];

	if (petal_mpmc_release(ring, view) == 0)
		state.delivered[id - 1]++;
	state.in_hand[ring->owner] = 0;
}

static int consume_by(struct petal_mpmc *ring, unsigned count, unsigned tries)
{
	struct petal_mpmc_view view;
	int outcome = 0;

	while (count > 0 && tries-- > 0) {
		outcome = take(ring, &view);
		explore_check(outcome >= 0);
		if (outcome)
			continue;
		done(ring, &view);
		count--;
	}
	return outcome;
}

static int consume(unsigned count, unsigned tries)
{
	return consume_by(mine(), count, tries);
}

static void bury(unsigned thread)
{
	uint64_t dead[PETAL_MPMC_OWNERS_MAX / 64] = { 0 };

	state.died[thread] = explore_proved_dead(thread);
	if (!state.died[thread])
		return;
	dead[0] = UINT64_C(1) << thread;
	explore_check(petal_mpmc_repair(mine(), dead) >= 0);
}

/*
 * Two messages are there, the first of which has come back so often that this
 * is counted no more: then only the tag tells one delivery from the next.
 */
static void make_worn(void)
{
	struct petal_mpmc *ring = &state.rings[KEEPER];
	struct petal_mpmc_claim claim;
	struct petal_mpmc_view view;

	make(0);
	for (unsigned i = 0; i < 2; i++) {
		unsigned id = KEEPER * EACH + i;

		explore_check(petal_mpmc_claim(ring, &claim) == 0);
		explore_write(claim.bytes, id + 1);
		explore_check(petal_mpmc_publish(ring, &claim) == 0);
		state.fate[id] = PUBLISHED;
	}
	for (unsigned i = 0; i < PETAL_MPMC_REDELIVERED_MAX; i++) {
		explore_check(petal_mpmc_peek(ring, &view) == 0);
		explore_check(petal_mpmc_give_back(ring, &view) == 0);
	}
}

/* --- what must hold in the end -------------------------------------------- */

static bool was_in_a_dead_hand(unsigned id)
{
	for (unsigned i = 0; i < OWNERS; i++)
		if (state.died[i] && state.in_hand[i] == id + 1)
			return true;
	return false;
}

static void check_delivery(unsigned id)
{
	unsigned count = state.delivered[id];

	switch (state.fate[id]) {
	case PUBLISHED:
		/* A dead one may have released it and told nobody. */
		explore_check(count == 1 ||
			      (count == 0 && was_in_a_dead_hand(id)));
		break;
	case TRIED:
		explore_check(count <= 1);
		break;
	default:
		explore_check(count == 0);
	}
}

/*
 * Everything is there, once; and the ring is as good as new. Who drains it may
 * have a past of its own: what it overlooked then, it must not overlook now.
 */
static void finish_by(unsigned owner)
{
	struct petal_mpmc *ring = &state.rings[owner];
	struct petal_mpmc_claim claims[SLOTS];

	consume_by(ring, 2 * SLOTS, 3 * SLOTS);
	for (unsigned id = 0; id < OWNERS * EACH; id++)
		check_delivery(id);
	explore_check(petal_mpmc_busy(ring) == 0);
	for (unsigned i = 0; i < SLOTS; i++)
		explore_check(petal_mpmc_claim(ring, &claims[i]) == 0);
	explore_check(petal_mpmc_claim(ring, &claims[0]) == -EAGAIN);
}

static void finish(void)
{
	finish_by(KEEPER);
}

static void finish_by_2(void)
{
	finish_by(2);
}

static void finish_closed(void)
{
	struct petal_mpmc *ring = &state.rings[KEEPER];

	if (state.saw_end)
		explore_check(petal_mpmc_busy(ring) == 0);
	consume(2 * SLOTS, 3 * SLOTS);
	for (unsigned id = 0; id < OWNERS * EACH; id++)
		check_delivery(id);
}

static void finish_kept(void)
{
	explore_check(!state.saw_end || !state.has_kept);
}

/* --- threads -------------------------------------------------------------- */

static void produce_2(void)
{
	produce(2, 2);
}

static void produce_3(void)
{
	produce(3, 4);
}

static void produce_6(void)
{
	produce(6, 6);
}

static void consume_1(void)
{
	consume(1, 2);
}

static void consume_2(void)
{
	consume(2, 3);
}

static void consume_3(void)
{
	consume(3, 4);
}

static void consume_6(void)
{
	consume(6, 6);
}

static void produce_1_abort_1(void)
{
	struct petal_mpmc_claim claim;

	produce(1, 1);
	if (petal_mpmc_claim(mine(), &claim) == 0) {
		explore_write(claim.bytes, 99);
		explore_check(petal_mpmc_abort(mine(), &claim) == 0);
	}
}

static void take_and_return(void)
{
	struct petal_mpmc_view view;

	for (unsigned tries = 0; tries < 2; tries++) {
		if (take(mine(), &view) != 0)
			continue;
		explore_check(petal_mpmc_give_back(mine(), &view) == 0);
		state.in_hand[explore_self()] = 0;
		return;
	}
}

static void hold_one(void)
{
	struct petal_mpmc *ring = mine();
	struct petal_mpmc_view held;

	if (take(ring, &held) != 0)
		return;
	consume(2, 3);
	state.in_hand[explore_self()] = explore_read(held.bytes);
	done(ring, &held);
}

/*
 * Two at a time. If a fence gave back the first, it may come again, to the
 * same hands: the two must not be taken for each other.
 */
static void hold_two(void)
{
	struct petal_mpmc *ring = mine();
	struct petal_mpmc_view first, second;

	if (take(ring, &first) != 0)
		return;
	for (unsigned tries = 0; tries < 2; tries++) {
		if (take(ring, &second) != 0)
			continue;
		explore_check(first.pos != second.pos ||
			      first.word != second.word);
		done(ring, &second);
	}
	petal_mpmc_give_back(ring, &first);
	state.in_hand[explore_self()] = 0;
}

static void produce_1(void)
{
	produce(1, 1);
}

static void bury_0(void)
{
	bury(0);
}

static void bury_1(void)
{
	bury(1);
}

static void fence_0(void)
{
	explore_check(petal_mpmc_fence(mine(), 0) >= 0);
}

static void fence_1(void)
{
	explore_check(petal_mpmc_fence(mine(), 1) >= 0);
}

static void close_it(void)
{
	petal_mpmc_close(mine());
}

/* One in hand, when others come to the end of the ring. */
static void keep_the_second(void)
{
	struct petal_mpmc *ring = mine();
	struct petal_mpmc_view first, second;

	if (take(ring, &first) != 0)
		return;
	done(ring, &first);
	if (take(ring, &second) != 0)
		return;
	state.has_kept = true;
	state.in_hand[explore_self()] = 0;
}

/* Closed, and nothing in anybody's hands: nothing will come any more. */
static void look_for_end(void)
{
	struct petal_mpmc_view view;

	state.saw_end = petal_mpmc_peek(mine(), &view) == PETAL_RING_CLOSED &&
			petal_mpmc_busy(mine()) == 0;
}

static void consume_to_end(void)
{
	state.saw_end = consume(3, 4) == PETAL_RING_CLOSED;
}

static void make_nothing(void)
{
	memset(shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
}

static void format(void)
{
	struct petal_mpmc_geometry shape = geometry;

	shape.start_pos = 5;
	explore_check(petal_mpmc_format(shared, &shape) == 0);
}

static void find_formatted(void)
{
	struct petal_mpmc_claim claim;
	struct petal_mpmc ring;

	if (petal_mpmc_attach(shared, sizeof(shared), 1, &ring) != 0)
		return;
	explore_check(ring.slot_count == SLOTS && ring.owners == OWNERS);
	explore_check(ring.claim_pos == 5 && ring.take_pos == 5);
	explore_check(petal_mpmc_claim(&ring, &claim) == 0);
}

#define MODEL(...)                                                             \
	{                                                                      \
		__VA_ARGS__, .shared = shared, .shared_bytes = sizeof(shared), \
			     .state = &state, .state_bytes = sizeof(state),    \
	}

static const struct explore_model one_to_one =
	MODEL(.name = "one-to-one", .setup = make_new,
	      .threads = { produce_3, consume_3 }, .finish = finish);

static const struct explore_model laps =
	MODEL(.name = "laps", .setup = make_late,
	      .threads = { produce_6, consume_6 }, .finish = finish);

static const struct explore_model two_producers =
	MODEL(.name = "two-producers", .setup = make_late,
	      .threads = { produce_2, produce_2, consume_2 }, .finish = finish);

static const struct explore_model two_consumers =
	MODEL(.name = "two-consumers", .setup = make_late,
	      .threads = { produce_2, consume_1, consume_1 }, .finish = finish);

static const struct explore_model aborted =
	MODEL(.name = "abort", .setup = make_new,
	      .threads = { produce_1_abort_1, produce_3, consume_2 },
	      .finish = finish);

static const struct explore_model returned =
	MODEL(.name = "give-back", .setup = make_new,
	      .threads = { produce_1, take_and_return, consume_2 },
	      .finish = finish_by_2);

static const struct explore_model held =
	MODEL(.name = "held", .setup = make_new,
	      .threads = { produce_6, hold_one, consume_2 }, .finish = finish);

static const struct explore_model producer_dies =
	MODEL(.name = "producer-dies", .setup = make_new,
	      .threads = { produce_2, produce_2, consume_2, bury_0 },
	      .finish = finish, .mortal = 1u << 0);

static const struct explore_model consumer_dies =
	MODEL(.name = "consumer-dies", .setup = make_new,
	      .threads = { produce_2, consume_2, consume_1, bury_1 },
	      .finish = finish, .mortal = 1u << 1);

static const struct explore_model producer_fenced =
	MODEL(.name = "producer-fenced", .setup = make_new,
	      .threads = { produce_2, consume_2, fence_0 }, .finish = finish);

static const struct explore_model consumer_fenced =
	MODEL(.name = "consumer-fenced", .setup = make_new,
	      .threads = { produce_2, consume_2, fence_1 }, .finish = finish);

static const struct explore_model taken_twice =
	MODEL(.name = "taken-twice", .setup = make_worn,
	      .threads = { take_and_return, hold_two, fence_1 },
	      .finish = finish);

static const struct explore_model fenced_twice =
	MODEL(.name = "fenced-twice", .setup = make_worn,
	      .threads = { fence_1, hold_two, fence_1 }, .finish = finish);

static const struct explore_model crowd =
	MODEL(.name = "crowd", .setup = make_late,
	      .threads = { produce_6, consume_6, produce_6, consume_6 },
	      .finish = finish);

static const struct explore_model closed =
	MODEL(.name = "close", .setup = make_new,
	      .threads = { produce_2, close_it, consume_to_end },
	      .finish = finish_closed);

static const struct explore_model closed_on_one =
	MODEL(.name = "close-on-one", .setup = make_new,
	      .threads = { produce_2, keep_the_second, close_it, look_for_end },
	      .finish = finish_kept);

static const struct explore_model formatted =
	MODEL(.name = "format", .setup = make_nothing,
	      .threads = { format, find_formatted });

const struct explore_model *const explore_models[] = {
	&one_to_one,
	&laps,
	&two_producers,
	&two_consumers,
	&aborted,
	&returned,
	&held,
	&producer_dies,
	&consumer_dies,
	&producer_fenced,
	&consumer_fenced,
	&closed,
	&closed_on_one,
	&taken_twice,
	&fenced_twice,
	&crowd,
	&formatted,
	NULL,
};

const struct explore_excuse explore_excuses[] = {
	{ "rings/mpmc_inl.h", "DRAIN", EXPLORE_ACQUIRE, EXPLORE_RELAXED,
	  "the swap of the claim takes the same store, and acquires it" },
	{ "rings/mpmc.c", "DRAIN", EXPLORE_ACQUIRE, EXPLORE_RELAXED,
	  "the claim that follows looks again, by its swap" },
	{ "rings/mpmc_inl.h", "RETURN", EXPLORE_ACQUIRE, EXPLORE_RELAXED,
	  "the notice is only compared; peek_past loads it again" },
	{ .file = NULL },
};
