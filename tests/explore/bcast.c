/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/bcast.h"

#include <string.h>

#include "tests/explore/explore.h"

/*
 * Thread 0 publishes, the others read: over the smallest ring, 4 KiB in eight
 * chunks, with records of a chunk, or of just under a quarter of the ring.
 *
 * Who blocks reads plain words, for nobody may write there meanwhile. Who drops
 * reads what may be written over at any time, so these are words of the ring's
 * own kind, which are believed only when the check says so.
 */

const char explore_kind[] = "bcast";

#define DATA_BYTES 4096u
#define READERS 3u
#define SHARED_BYTES (768u + READERS * (64u + 128u) + DATA_BYTES + 4096u)
#define CHUNK 496u /* a chunk, with its header */
#define QUARTER 1008u
#define WIDE 976u
#define PADDED 928u /* four to a lap, and padding at its end */

static _Alignas(64) uint8_t shared[SHARED_BYTES];

static struct {
	struct petal_bcast ring;
	struct petal_bcast_reader readers[READERS];
	uint64_t sent;
	uint64_t got[READERS];
	bool joined[READERS];
	bool died;
	bool plain; /* the payload, in this model */
} state;

static struct petal_bcast_geometry geometry = {
	.data_bytes = DATA_BYTES,
};

static bool join(unsigned i, enum petal_bcast_policy policy,
		 enum petal_bcast_from from)
{
	struct petal_bcast_options options = {
		.policy = policy,
		.full = PETAL_BCAST_BLOCK,
		.from = from,
		.owner = i + 1,
	};
	int err = petal_bcast_join(shared, sizeof(shared), &options,
				   &state.readers[i]);

	explore_check(!err || err == -EAGAIN);
	state.joined[i] = !err;
	return !err;
}

static void make(uint64_t start_pos, uint32_t readers, uint32_t spills)
{
	memset(shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
	geometry.start_pos = start_pos;
	geometry.readers = readers;
	geometry.spills = spills;
	geometry.spill_bytes = spills ? DATA_BYTES : 0;
	explore_check(petal_bcast_bytes(&geometry) <= sizeof(shared));
	explore_check(petal_bcast_format(shared, &geometry) == 0);
	explore_check(petal_bcast_attach(shared, sizeof(shared), &state.ring) ==
		      0);
}

static void make_blocking(void)
{
	make(0, READERS, 0);
	state.plain = true;
	join(1, PETAL_BCAST_BLOCK, PETAL_BCAST_FROM_NOW);
}

static void make_two(void)
{
	make_blocking();
	join(2, PETAL_BCAST_BLOCK, PETAL_BCAST_FROM_NOW);
}

static void make_dropping(void)
{
	make(0, READERS, 0);
	join(1, PETAL_BCAST_DROP_OLDEST, PETAL_BCAST_FROM_NOW);
}

static void make_mixed(void)
{
	make(0, READERS, 0);
	state.plain = true;
}

static void write_payload(void *payload, uint64_t number)
{
	if (state.plain)
		explore_write(payload, number);
	else
		petal_store((struct petal_u64 *)payload, number, PETAL_RELAXED);
}

static uint64_t read_payload(const void *payload)
{
	return state.plain ? explore_read(payload)
			   : petal_load((const struct petal_u64 *)payload,
					PETAL_RELAXED);
}

static void publish(uint32_t length, unsigned count, unsigned tries)
{
	while (count > 0 && tries-- > 0) {
		void *payload;
		int err = petal_bcast_claim(&state.ring, length, 1, &payload);

		explore_check(!err || err == -EAGAIN);
		if (err)
			continue;
		write_payload(payload, state.sent + 1);
		petal_bcast_publish(&state.ring);
		state.sent++;
		count--;
	}
}

/* The next record needs room that an old one has, and nobody reads yet. */
static void make_full(void)
{
	make_mixed();
	publish(QUARTER, 3, 3);
}

/*
 * The publisher has looked at the seats, which were free, and has begun with a
 * second lap. The next chunk that it needs has the oldest record.
 */
static void fill(void)
{
	publish(CHUNK, 2, 2);
	publish(QUARTER, 3, 3);
}

static void make_lap(void)
{
	make_mixed();
	fill();
}

static void make_lap_spilling(void)
{
	make(0, READERS, 1);
	fill();
}

/* The next record takes the room of the oldest, which has to be copied. */
static void make_spilling(void)
{
	make(0, READERS, 1);
	join(1, PETAL_BCAST_SPILL, PETAL_BCAST_FROM_NOW);
	publish(QUARTER, 3, 3);
}

/* One seat, whose reader was overtaken and does not know it yet. */
static void make_lost(void)
{
	make(0, 1, 0);
	join(1, PETAL_BCAST_DROP_OLDEST, PETAL_BCAST_FROM_NOW);
	publish(QUARTER, 6, 6);
}

/* One seat, whose reader has two records to read. */
static void make_single(void)
{
	make(0, 1, 0);
	state.plain = true;
	join(1, PETAL_BCAST_BLOCK, PETAL_BCAST_FROM_NOW);
	publish(QUARTER, 3, 3);
}

/* Who has its records waited for, or copied. */
static bool is_spared(const struct petal_bcast_reader *reader)
{
	return reader->policy == PETAL_BCAST_BLOCK ||
	       reader->policy == PETAL_BCAST_SPILL;
}

/* Numbers in order; with gaps only where records were lost, and counted. */
static int read_some(unsigned i, unsigned tries)
{
	struct petal_bcast_reader *reader = &state.readers[i];
	struct petal_bcast_view view;
	int outcome = 0;

	while (tries-- > 0) {
		uint64_t number;

		outcome = petal_bcast_peek(reader, &view);
		explore_check(outcome >= 0 || outcome == -EAGAIN);
		explore_check(!is_spared(reader) || reader->lost == 0);
		if (outcome)
			continue;
		number = read_payload(view.payload);
		if (!petal_bcast_check(reader, &view))
			continue;
		explore_check(number == view.ordinal + 1);
		explore_check(number > state.got[i]);
		explore_check(number - 1 <=
			      state.got[i] + petal_bcast_lost(reader));
		state.got[i] = number;
		petal_bcast_release(reader, &view);
	}
	return outcome;
}

/*
 * The reader waits in front of the padding that ends the first lap. The next
 * record overwrites that alone, the one after it what the reader wants, too.
 */
static void make_spilling_at_the_end(void)
{
	make(0, READERS, 1);
	join(1, PETAL_BCAST_SPILL, PETAL_BCAST_FROM_NOW);
	publish(PADDED, 4, 4);
	read_some(1, 5);
	publish(PADDED, 3, 3);
}

static void finish(void)
{
	for (unsigned i = 0; i < READERS; i++) {
		if (!state.joined[i])
			continue;
		read_some(i, 16);
		explore_check(state.got[i] == state.sent);
	}
}

/* The death of the reader is proved and repaired: nobody is held up by it. */
static void finish_without_1(void)
{
	if (!state.died) {
		finish();
		return;
	}
	explore_check(petal_bcast_repair(shared, sizeof(shared), 2) >= 0);
	publish(QUARTER, 4, 4);
	explore_check(state.sent >= 4);
}

static void finish_joined(void)
{
	for (unsigned i = 1; i < READERS; i++)
		if (state.joined[i])
			read_some(i, 16);
	for (unsigned i = 1; i < READERS; i++)
		if (state.joined[i])
			explore_check(state.got[i] == state.sent ||
				      state.got[i] == 0);
}

/* --- threads -------------------------------------------------------------- */

static void publish_quarters(void)
{
	publish(QUARTER, 6, 8);
}

static void publish_2(void)
{
	publish(QUARTER, 2, 2);
}

static void publish_5(void)
{
	publish(QUARTER, 5, 6);
}

static void publish_batch(void)
{
	void *payload;

	for (unsigned i = 0; i < 2; i++) {
		if (petal_bcast_claim(&state.ring, CHUNK, 1, &payload) != 0)
			break;
		write_payload(payload, ++state.sent);
	}
	petal_bcast_publish(&state.ring);
	publish(CHUNK, 2, 2);
}

static void publish_and_close(void)
{
	publish(CHUNK, 2, 2);
	petal_bcast_close(&state.ring);
}

static void read_1(void)
{
	read_some(1, 7);
}

static void read_1_shortly(void)
{
	read_some(1, 3);
}

static void read_2(void)
{
	read_some(2, 5);
}

static void read_to_end(void)
{
	if (read_some(1, 4) == PETAL_RING_CLOSED)
		explore_check(state.got[1] == state.sent);
}

static void join_and_read(void)
{
	if (join(1, PETAL_BCAST_BLOCK, PETAL_BCAST_FROM_NOW)) {
		state.got[1] = state.readers[1].ordinal;
		read_some(1, 3);
	}
}

static void join_oldest(enum petal_bcast_policy policy)
{
	if (join(1, policy, PETAL_BCAST_FROM_OLDEST)) {
		state.got[1] = state.readers[1].ordinal;
		read_some(1, 2);
	}
}

static void join_oldest_and_read(void)
{
	join_oldest(PETAL_BCAST_BLOCK);
}

static void join_oldest_and_spill(void)
{
	join_oldest(PETAL_BCAST_SPILL);
}

static void publish_1(void)
{
	publish(QUARTER, 1, 2);
}

static void publish_padded(void)
{
	publish(PADDED, 2, 3);
}

static void publish_chunk(void)
{
	publish(CHUNK, 1, 2);
}

/*
 * One chunk is enough for it, and of that it writes where the payload of the
 * oldest record was.
 */
static void publish_wide(void)
{
	void *payload;

	for (unsigned tries = 0; tries < 2; tries++) {
		uint8_t *bytes;

		if (petal_bcast_claim(&state.ring, WIDE, 1, &payload) != 0)
			continue;
		bytes = payload;
		explore_write(bytes + 512, 0);
		explore_write(bytes, state.sent + 1);
		petal_bcast_publish(&state.ring);
		state.sent++;
		return;
	}
}

static void read_and_leave(void)
{
	read_some(1, 1);
	petal_bcast_leave(&state.readers[1]);
	state.joined[1] = false;
}

static void rejoin(void)
{
	if (!join(2, PETAL_BCAST_BLOCK, PETAL_BCAST_FROM_NOW))
		return;
	state.got[2] = state.readers[2].ordinal;
}

static void finish_rejoined(void)
{
	struct petal_bcast_standing standing;

	if (!state.joined[2])
		return;
	explore_check(petal_bcast_standing(shared, sizeof(shared), 0,
					   &standing) == 0);
	explore_check(standing.lost == petal_bcast_lost(&state.readers[2]));
}

static void succeed(void)
{
	if (!explore_proved_dead(0))
		return;
	explore_check(petal_bcast_attach(shared, sizeof(shared), &state.ring) ==
		      0);
	state.sent = state.ring.ordinal;
	publish(QUARTER, 2, 3);
}

static void bury_1(void)
{
	state.died = explore_proved_dead(1);
	if (state.died)
		explore_check(petal_bcast_repair(shared, sizeof(shared), 2) >=
			      0);
}

static void make_nothing(void)
{
	memset(shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
	geometry = (struct petal_bcast_geometry){ .data_bytes = DATA_BYTES,
						  .readers = READERS };
}

static void format(void)
{
	explore_check(petal_bcast_format(shared, &geometry) == 0);
}

static void find_formatted(void)
{
	int err = petal_bcast_attach(shared, sizeof(shared), &state.ring);

	explore_check(!err || err == -EINVAL);
	if (!err)
		publish(CHUNK, 1, 1);
	explore_check(err || state.sent == 1);
}

#define MODEL(...)                                                             \
	{                                                                      \
		__VA_ARGS__, .shared = shared, .shared_bytes = sizeof(shared), \
			     .state = &state, .state_bytes = sizeof(state),    \
	}

static const struct explore_model blocking =
	MODEL(.name = "block", .setup = make_blocking,
	      .threads = { publish_quarters, read_1 }, .finish = finish);

static const struct explore_model two =
	MODEL(.name = "two-readers", .setup = make_two,
	      .threads = { publish_5, read_1, read_2 }, .finish = finish);

static const struct explore_model batch =
	MODEL(.name = "batch", .setup = make_blocking,
	      .threads = { publish_batch, read_1 }, .finish = finish);

static const struct explore_model dropping =
	MODEL(.name = "drop", .setup = make_dropping,
	      .threads = { publish_quarters, read_1_shortly },
	      .finish = finish);

static const struct explore_model closed =
	MODEL(.name = "close", .setup = make_blocking,
	      .threads = { publish_and_close, read_to_end }, .finish = finish);

static const struct explore_model joining =
	MODEL(.name = "join", .setup = make_mixed,
	      .threads = { publish_quarters, join_and_read },
	      .finish = finish_joined);

static const struct explore_model joining_full =
	MODEL(.name = "join-full", .setup = make_full,
	      .threads = { publish_2, join_and_read }, .finish = finish_joined);

static const struct explore_model joining_oldest =
	MODEL(.name = "join-oldest", .setup = make_lap,
	      .threads = { publish_chunk, join_oldest_and_read },
	      .finish = finish_joined);

static const struct explore_model joining_drains =
	MODEL(.name = "join-drain", .setup = make_lap,
	      .threads = { publish_wide, join_oldest_and_read },
	      .finish = finish_joined);

static const struct explore_model joining_spills =
	MODEL(.name = "join-spill", .setup = make_lap_spilling,
	      .threads = { publish_chunk, join_oldest_and_spill },
	      .finish = finish_joined);

static const struct explore_model spilling =
	MODEL(.name = "spill", .setup = make_spilling,
	      .threads = { publish_1, read_1_shortly }, .finish = finish);

static const struct explore_model spilling_at_the_end =
	MODEL(.name = "spill-end", .setup = make_spilling_at_the_end,
	      .threads = { publish_padded, read_1_shortly }, .finish = finish);

static const struct explore_model rejoining_lost =
	MODEL(.name = "rejoin-lost", .setup = make_lost,
	      .threads = { read_and_leave, rejoin }, .finish = finish_rejoined);

static const struct explore_model rejoining =
	MODEL(.name = "rejoin", .setup = make_single,
	      .threads = { publish_1, read_and_leave, rejoin },
	      .finish = finish_rejoined);

static const struct explore_model joining_successor =
	MODEL(.name = "join-successor", .setup = make_mixed,
	      .threads = { publish_chunk, join_and_read, succeed },
	      .finish = finish_joined, .mortal = 1u << 0);

static const struct explore_model publisher_dies =
	MODEL(.name = "publisher-dies", .setup = make_blocking,
	      .threads = { publish_5, read_1_shortly, succeed },
	      .finish = finish, .mortal = 1u << 0);

static const struct explore_model reader_dies =
	MODEL(.name = "reader-dies", .setup = make_blocking,
	      .threads = { publish_5, read_1_shortly, bury_1 },
	      .finish = finish_without_1, .mortal = 1u << 1);

static const struct explore_model formatted =
	MODEL(.name = "format", .setup = make_nothing,
	      .threads = { format, find_formatted });

const struct explore_model *const explore_models[] = {
	&blocking,
	&two,
	&batch,
	&dropping,
	&closed,
	&joining,
	&joining_full,
	&joining_oldest,
	&joining_drains,
	&joining_spills,
	&spilling,
	&spilling_at_the_end,
	&rejoining_lost,
	&rejoining,
	&joining_successor,
	&publisher_dies,
	&reader_dies,
	&formatted,
	NULL,
};

#define BY_DEATH "a successor comes after proof of death, which orders all"
#define ITSELF "the word says by itself where the end is"

const struct explore_excuse explore_excuses[] = {
	{ "rings/bcast.c", "TAIL", EXPLORE_ACQUIRE, EXPLORE_RELAXED, BY_DEATH },
	{ "rings/bcast.c", "FILL", EXPLORE_ACQUIRE, EXPLORE_RELAXED, BY_DEATH },
	{ "rings/bcast.c", "CLOSE", EXPLORE_RELEASE, EXPLORE_RELAXED, ITSELF },
	{ "rings/bcast_reader.c", "CLOSE", EXPLORE_ACQUIRE, EXPLORE_RELAXED,
	  ITSELF },
	{ "rings/bcast_reader.c", "TAIL", EXPLORE_ACQUIRE, EXPLORE_RELAXED,
	  "the fence of [JOIN] lies between this and the header that it "
	  "leads to, and does the same" },
	{ .file = NULL },
};
