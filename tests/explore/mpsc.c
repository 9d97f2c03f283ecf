/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/mpsc.h"

#include <string.h>

#include "tests/explore/explore.h"

/*
 * Producers are threads by their index; the consumer, who is the keeper as
 * well, has a number of its own. The smallest ring has 64 lines, so records of
 * 1,008 bytes are used where a lap counts: four of them fill it.
 *
 * Every record is one plain word, a number of its own.
 */

const char explore_kind[] = "mpsc";

#define OWNERS 4u
#define CONSUMER (OWNERS - 1)
#define DATA_BYTES 4096u
#define HEADER_BYTES (PETAL_MPSC_HEADER_BYTES + OWNERS * 128u)
#define EACH 8u
#define SHORT 40u   /* a line */
#define MIDDLE 100u /* two lines */
#define LONG 1008u  /* a quarter */

static _Alignas(64) uint8_t shared[HEADER_BYTES + DATA_BYTES];

enum fate { NEVER, TRIED, PUBLISHED, REFUSED };

static struct {
	struct petal_mpsc rings[OWNERS];
	uint64_t pos;      /* the consumer's */
	uint64_t released; /* and what it gave back */
	uint8_t fate[OWNERS * EACH];
	uint8_t delivered[OWNERS * EACH];
	uint8_t last[OWNERS];
	bool fenced;
	bool undecided; /* repair wants to be called again */
} state;

static struct petal_mpsc_geometry geometry = {
	.data_bytes = DATA_BYTES,
	.owners = OWNERS,
};

static void attach(uint32_t owner)
{
	explore_check(petal_mpsc_attach(shared, HEADER_BYTES,
					shared + HEADER_BYTES, DATA_BYTES,
					owner, &state.rings[owner]) == 0);
}

static void make(uint64_t start_pos)
{
	memset(shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
	geometry.start_pos = start_pos;
	explore_check(petal_mpsc_bytes(&geometry) <= HEADER_BYTES);
	explore_check(petal_mpsc_format(shared, &geometry) == 0);
	for (uint32_t i = 0; i < OWNERS; i++)
		attach(i);
	state.pos = state.released = start_pos;
}

static void make_new(void)
{
	make(0);
}

/* One line before 32 bits end, and a lap. */
static void make_late(void)
{
	make((UINT64_C(1) << 32) - 64);
}

/* --- producers ------------------------------------------------------------ */

static void produce(uint32_t length, unsigned count, unsigned tries)
{
	struct petal_mpsc *ring = &state.rings[explore_self()];
	struct petal_mpsc_claim claim;
	unsigned id = ring->owner * EACH;

	while (count > 0 && tries-- > 0) {
		int err = petal_mpsc_claim(ring, length, &claim);

		explore_check(!err || err == -EAGAIN || err == -ESTALE ||
			      err == -EPIPE);
		if (err)
			continue;
		petal_store(petal_record_type(claim.record), 1, PETAL_RELAXED);
		explore_write((uint8_t *)claim.record + 16, id + 1);
		state.fate[id] = TRIED;
		state.fate[id] = petal_mpsc_publish(ring, &claim) ? REFUSED
								  : PUBLISHED;
		id++;
		count--;
	}
}

/* Two lines, of which the second begins with what looks like a record. */
static void produce_likeness(void)
{
	struct petal_mpsc *ring = &state.rings[explore_self()];
	struct petal_mpsc_claim claim;
	unsigned id = ring->owner * EACH;

	if (petal_mpsc_claim(ring, MIDDLE, &claim) != 0)
		return;
	petal_store(petal_record_type(claim.record), 1, PETAL_RELAXED);
	explore_write((uint8_t *)claim.record + 16, id + 1);
	petal_store((struct petal_u64 *)(void *)((uint8_t *)claim.record + 64),
		    petal_mpsc_commit(ring, PETAL_RECORD_PUBLISHED, 0,
				      claim.pos),
		    PETAL_RELAXED);
	explore_check(petal_mpsc_publish(ring, &claim) == 0);
	state.fate[id] = PUBLISHED;
}

static void produce_run(void)
{
	struct petal_mpsc *ring = &state.rings[explore_self()];
	struct petal_mpsc_claim claim;
	unsigned id = ring->owner * EACH;

	if (petal_mpsc_claim_run(ring, SHORT, 2, &claim) != 0)
		return;
	for (unsigned i = 0; i < 2; i++) {
		struct petal_record *record =
			petal_mpsc_claim_at(&claim, SHORT, i);

		petal_store(petal_record_type(record), 1, PETAL_RELAXED);
		explore_write((uint8_t *)record + 16, id + i + 1);
	}
	state.fate[id] = state.fate[id + 1] = TRIED;
	if (petal_mpsc_publish(ring, &claim) == 0)
		state.fate[id] = state.fate[id + 1] = PUBLISHED;
	else
		state.fate[id] = state.fate[id + 1] = REFUSED;
}

static void produce_and_abort(void)
{
	struct petal_mpsc *ring = &state.rings[explore_self()];
	struct petal_mpsc_claim claim;

	if (petal_mpsc_claim(ring, MIDDLE, &claim) == 0) {
		explore_write((uint8_t *)claim.record + 16, 99);
		explore_check(petal_mpsc_abort(ring, &claim) == 0);
	}
	produce(SHORT, 1, 1);
}

/* --- the consumer --------------------------------------------------------- */

static void deliver(const struct petal_mpsc_view *view)
{
	uint64_t id;

	if (view->type == PETAL_RECORD_TYPE_PADDING)
		return;
	id = explore_read((uint8_t *)view->record + 16);
	explore_check(view->type == 1 && id > 0 && id <= sizeof(state.fate));
	id--;
	explore_check(id / EACH == view->owner);
	explore_check(id % EACH + 1 > state.last[view->owner]);
	state.last[view->owner] = (uint8_t)(id % EACH + 1);
	state.delivered[id]++;
}

static int consume(unsigned count, unsigned tries)
{
	struct petal_mpsc *ring = &state.rings[CONSUMER];
	struct petal_mpsc_view view;
	int outcome = 0;

	while (count > 0 && tries-- > 0) {
		outcome = petal_mpsc_peek(ring, state.pos, &view);
		explore_check(outcome >= 0);
		if (outcome)
			continue;
		deliver(&view);
		state.pos = view.end;
		count--;
	}
	return outcome;
}

static void release(void)
{
	if (state.pos == state.released)
		return;
	petal_mpsc_release(&state.rings[CONSUMER], state.pos);
	state.released = state.pos;
}

static void repair_0(void)
{
	uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64] = { 1 };
	int count;

	if (!explore_proved_dead(0))
		return;
	count = petal_mpsc_repair(&state.rings[CONSUMER], state.pos, dead);
	explore_check(count >= 0 || count == -EAGAIN);
	state.undecided = count == -EAGAIN;
}

static void check_all(void)
{
	for (unsigned id = 0; id < OWNERS * EACH; id++) {
		unsigned count = state.delivered[id];

		if (state.fate[id] == PUBLISHED)
			explore_check(count == 1);
		else if (state.fate[id] == TRIED)
			explore_check(count <= 1);
		else
			explore_check(count == 0);
	}
}

static void finish(void)
{
	int outcome;

	/* Who lives has gone on, so now it is known. */
	if (state.undecided)
		repair_0();
	explore_check(!state.undecided);
	outcome = consume(2 * EACH, 2 * EACH);

	explore_check(outcome == PETAL_RING_EMPTY ||
		      outcome == PETAL_RING_CLOSED);
	release();
	check_all();
	explore_check(petal_mpsc_used(&state.rings[CONSUMER]) == 0);
}

/* --- threads -------------------------------------------------------------- */

static void produce_short_2(void)
{
	produce(SHORT, 2, 3);
}

static void produce_short_1(void)
{
	produce(SHORT, 1, 2);
}

static void only_repair(void)
{
	repair_0();
}

static void produce_middle_1(void)
{
	produce(MIDDLE, 1, 2);
}

static void produce_middle_2(void)
{
	produce(MIDDLE, 2, 3);
}

static void produce_long_6(void)
{
	produce(LONG, 6, 8);
}

static void produce_long_3(void)
{
	produce(LONG, 3, 4);
}

static void consume_3(void)
{
	consume(3, 4);
	release();
}

static void consume_each(void)
{
	for (unsigned i = 0; i < 6; i++) {
		consume(1, 1);
		release();
	}
}

static void consume_and_repair(void)
{
	consume(2, 2);
	release();
	repair_0();
	consume(2, 3);
	release();
}

static void consume_and_fence(void)
{
	struct petal_mpsc *ring = &state.rings[CONSUMER];
	uint32_t owner;

	for (unsigned i = 0; i < 5; i++) {
		if (consume(1, 1) == PETAL_RING_PENDING && !state.fenced)
			state.fenced =
				petal_mpsc_fence(ring, state.pos, &owner) == 0;
		release();
	}
}

static void close_it(void)
{
	petal_mpsc_close(&state.rings[2]);
}

static void finish_closed(void)
{
	explore_check(consume(2 * EACH, 2 * EACH) == PETAL_RING_CLOSED);
	check_all();
}

static void adopt(void)
{
	uint64_t pos;

	if (!explore_proved_dead(1))
		return;
	attach(CONSUMER);
	explore_check(petal_mpsc_adopt(&state.rings[CONSUMER], &pos) == 0);
	/* What the dead one had released is gone; the rest is seen again. */
	explore_check(pos >= state.released && pos <= state.pos);
	memset(state.delivered, 0, sizeof(state.delivered));
	memset(state.last, 0, sizeof(state.last));
	state.released = state.pos = pos;
	consume(2, 3);
	release();
}

/* An adopted ring starts somewhere: only that nothing comes twice. */
static void finish_adopted(void)
{
	consume(2 * EACH, 2 * EACH);
	release();
	for (unsigned id = 0; id < OWNERS * EACH; id++)
		explore_check(state.delivered[id] <= 1);
	explore_check(petal_mpsc_used(&state.rings[CONSUMER]) == 0);
}

static void make_nothing(void)
{
	memset(shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
	geometry.start_pos = 128;
}

static void format(void)
{
	explore_check(petal_mpsc_format(shared, &geometry) == 0);
}

static void find_formatted(void)
{
	struct petal_mpsc_claim claim;
	struct petal_mpsc ring;

	if (petal_mpsc_attach(shared, HEADER_BYTES, shared + HEADER_BYTES,
			      DATA_BYTES, 1, &ring) != 0)
		return;
	explore_check(ring.data_bytes == DATA_BYTES && ring.owners == OWNERS);
	explore_check(petal_mpsc_claim(&ring, SHORT, &claim) == 0);
	explore_check(claim.pos == 128);
}

#define MODEL(...)                                                             \
	{                                                                      \
		__VA_ARGS__, .shared = shared, .shared_bytes = sizeof(shared), \
			     .state = &state, .state_bytes = sizeof(state),    \
	}

static const struct explore_model flow =
	MODEL(.name = "flow", .setup = make_late,
	      .threads = { produce_short_2, consume_3 }, .finish = finish);

static const struct explore_model laps =
	MODEL(.name = "laps", .setup = make_new,
	      .threads = { produce_long_6, consume_each }, .finish = finish);

static const struct explore_model two =
	MODEL(.name = "two-producers", .setup = make_late,
	      .threads = { produce_short_2, produce_middle_1, consume_3 },
	      .finish = finish);

static const struct explore_model two_laps =
	MODEL(.name = "two-laps", .setup = make_new,
	      .threads = { produce_long_3, produce_long_3, consume_each },
	      .finish = finish);

static const struct explore_model run =
	MODEL(.name = "run", .setup = make_late,
	      .threads = { produce_run, produce_and_abort, consume_3 },
	      .finish = finish);

static const struct explore_model producer_dies =
	MODEL(.name = "producer-dies", .setup = make_new,
	      .threads = { produce_short_2, produce_middle_2,
			   consume_and_repair },
	      .finish = finish, .mortal = 1u << 0);

static const struct explore_model producer_dies_late =
	MODEL(.name = "producer-dies-late", .setup = make_late,
	      .threads = { produce_middle_2, produce_short_2,
			   consume_and_repair },
	      .finish = finish, .mortal = 1u << 0);

static const struct explore_model alike =
	MODEL(.name = "alike", .setup = make_new,
	      .threads = { produce_short_1, produce_short_1, only_repair },
	      .finish = finish, .mortal = 1u << 0);

static const struct explore_model likeness =
	MODEL(.name = "likeness", .setup = make_new,
	      .threads = { produce_short_1, produce_likeness, only_repair },
	      .finish = finish, .mortal = 1u << 0);

static const struct explore_model fenced =
	MODEL(.name = "fenced", .setup = make_new,
	      .threads = { produce_middle_1, produce_short_2,
			   consume_and_fence },
	      .finish = finish);

static const struct explore_model fenced_laps =
	MODEL(.name = "fenced-laps", .setup = make_new,
	      .threads = { produce_long_6, produce_long_3, consume_and_fence },
	      .finish = finish);

static const struct explore_model consumer_dies =
	MODEL(.name = "consumer-dies", .setup = make_new,
	      .threads = { produce_long_6, consume_each, adopt },
	      .finish = finish_adopted, .mortal = 1u << 1);

static const struct explore_model closed =
	MODEL(.name = "close", .setup = make_new,
	      .threads = { produce_short_2, close_it, consume_3 },
	      .finish = finish_closed);

static const struct explore_model formatted =
	MODEL(.name = "format", .setup = make_nothing,
	      .threads = { format, find_formatted });

const struct explore_model *const explore_models[] = {
	&flow,
	&laps,
	&two,
	&two_laps,
	&run,
	&producer_dies,
	&producer_dies_late,
	&fenced,
	&fenced_laps,
	&consumer_dies,
	&closed,
	&formatted,
	&alike,
	&likeness,
	NULL,
};

#define CARRIED_ON                                                           \
	"a read-modify-write carries on what those before it released, and " \
	"the tail is never written otherwise"
#define ONE_PARTY                                                      \
	"keeper and consumer exclude each other, so whoever reads it " \
	"already knows"
#define BY_DRAIN                                                           \
	"a claim comes to an extent only by a head that was stored after " \
	"the extent was entered, and acquires that"

const struct explore_excuse explore_excuses[] = {
	{ "rings/mpsc_inl.h", "CLAIM", EXPLORE_ACQ_REL, EXPLORE_RELEASE,
	  CARRIED_ON },
	{ "rings/mpsc.c", "CLAIM", EXPLORE_ACQ_REL, EXPLORE_RELEASE,
	  CARRIED_ON },
	{ "rings/mpsc.c", "CLAIM", EXPLORE_ACQ_REL, EXPLORE_ACQUIRE,
	  CARRIED_ON },
	{ "rings/mpsc.c", "FREEING", EXPLORE_RELEASE, EXPLORE_RELAXED,
	  "holds back the compiler: here a death leaves a prefix of the "
	  "program's own order in any case" },
	{ "rings/mpsc_inl.h", "DRAIN", EXPLORE_ACQUIRE, EXPLORE_RELAXED,
	  "a number for observers, which is bounded" },
	{ "rings/mpsc_repair.c", "FILL", EXPLORE_RELEASE, EXPLORE_RELAXED,
	  ONE_PARTY },
	{ "rings/mpsc_repair.c", "NAME", EXPLORE_RELEASE, EXPLORE_RELAXED,
	  ONE_PARTY },
	{ "rings/mpsc_repair.c", "FENCE", EXPLORE_ACQUIRE, EXPLORE_RELAXED,
	  BY_DRAIN },
	{ "rings/mpsc_repair.c", "FENCE", EXPLORE_RELEASE, EXPLORE_RELAXED,
	  BY_DRAIN },
	{ .file = NULL },
};
