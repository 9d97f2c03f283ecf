/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/spsc.h"

#include <errno.h>
#include <string.h>

#include "rings/outcome.h"
#include "tests/explore/explore.h"

/*
 * One producer and one consumer over four slots. Every message is two plain
 * words, so that half of one is a race or a wrong sum. The bounds are such that
 * each slot is used again; the long models go round three times.
 */

const char explore_kind[] = "spsc";

#define SLOTS 4u
#define SLOT_BYTES 16u
#define SHARED_BYTES (384u + SLOTS * 64u)

static _Alignas(64) uint8_t shared[SHARED_BYTES];

static struct {
	struct petal_spsc producer;
	struct petal_spsc consumer;
	uint64_t sent; /* published, as the producer knows */
	uint64_t got;  /* in order, by the consumer */
	bool died;
	bool saw_end;
} state;

static struct petal_spsc_geometry geometry = {
	.slot_count = SLOTS,
	.slot_bytes = SLOT_BYTES,
};

static void attach(enum petal_spsc_role role, struct petal_spsc *ret_ring)
{
	explore_check(
		petal_spsc_attach(shared, sizeof(shared), role, ret_ring) == 0);
}

static void make(uint64_t start_pos)
{
	struct petal_spsc_geometry shape = geometry;

	shape.start_pos = start_pos;
	memset(shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
	explore_check(petal_spsc_bytes(&shape) <= sizeof(shared));
	explore_check(petal_spsc_format(shared, &shape) == 0);
	attach(PETAL_SPSC_PRODUCER, &state.producer);
	attach(PETAL_SPSC_CONSUMER, &state.consumer);
}

static void make_new(void)
{
	geometry.kind = PETAL_SPSC_STAMPED;
	make(0);
}

static void make_indexed(void)
{
	geometry.kind = PETAL_SPSC_INDEXED;
	make(0);
}

/*
 * Flushing changes nothing here, where all is coherent. What is left are the
 * orders, and a checksum that says no if the payload is not all there.
 */
static void make_far(void)
{
	geometry.kind = PETAL_SPSC_STAMPED;
	geometry.coherence = PETAL_SEGMENT_NONCOHERENT;
	make(0);
	geometry.coherence = PETAL_SEGMENT_COHERENT;
}

/* Where 32 bits end. */
static void make_late(void)
{
	geometry.kind = PETAL_SPSC_STAMPED;
	make((UINT64_C(1) << 32) - 2);
}

static void message_write(void *slot, uint64_t number)
{
	uint64_t *words = slot;

	explore_write(&words[0], number);
	explore_write(&words[1], ~number);
}

static void message_check(const void *slot, uint64_t number)
{
	const uint64_t *words = slot;

	explore_check(explore_read(&words[0]) == number);
	explore_check(explore_read(&words[1]) == ~number);
}

static void produce(uint64_t count, unsigned tries)
{
	while (count > 0 && tries-- > 0) {
		void *slot = petal_spsc_claim(&state.producer);

		if (!slot)
			continue;
		message_write(slot, state.sent + 1);
		petal_spsc_publish(&state.producer);
		state.sent++;
		count--;
	}
}

static void consume(uint64_t count, unsigned tries)
{
	while (count > 0 && tries-- > 0) {
		const void *slot = petal_spsc_peek(&state.consumer);

		if (!slot)
			continue;
		message_check(slot, state.got + 1);
		petal_spsc_release(&state.consumer);
		state.got++;
		count--;
	}
}

/* What was published and not yet taken is there, and nothing else. */
static void finish(void)
{
	consume(SLOTS + 1, SLOTS + 1);
	explore_check(state.got == state.sent);
	explore_check(petal_spsc_backlog(&state.producer) == 0);
}

static void produce_6(void)
{
	produce(6, 6);
}

static void consume_6(void)
{
	consume(6, 6);
}

static void produce_14(void)
{
	produce(14, 16);
}

static void consume_14(void)
{
	consume(14, 16);
}

static void produce_bulk(void)
{
	for (unsigned i = 0; i < 3; i++) {
		uint64_t count = petal_spsc_claim_n(&state.producer, 3);

		for (uint64_t n = 0; n < count; n++)
			message_write(petal_spsc_slot(&state.producer, n),
				      state.sent + n + 1);
		petal_spsc_publish_n(&state.producer, count);
		state.sent += count;
	}
}

static void consume_bulk(void)
{
	for (unsigned i = 0; i < 3; i++) {
		uint64_t count = petal_spsc_peek_n(&state.consumer, 2);

		for (uint64_t n = 0; n < count; n++)
			message_check(petal_spsc_slot(&state.consumer, n),
				      state.got + n + 1);
		petal_spsc_release_n(&state.consumer, count);
		state.got += count;
	}
}

static void observe(void)
{
	for (unsigned i = 0; i < 2; i++)
		explore_check(petal_spsc_backlog(&state.consumer) <= SLOTS);
}

static void produce_and_close(void)
{
	produce(2, 2);
	petal_spsc_close(&state.producer);
	explore_check(!petal_spsc_claim(&state.producer));
}

static void consume_to_end(void)
{
	consume(3, 4);
	state.saw_end = petal_spsc_outcome(&state.consumer) ==
			PETAL_RING_CLOSED;
	if (state.saw_end)
		explore_check(state.got == state.sent);
}

static void close_early(void)
{
	consume(1, 1);
	petal_spsc_close(&state.consumer);
}

static void produce_till_closed(void)
{
	produce(6, 6);
	petal_spsc_outcome(&state.producer);
}

static void finish_refused(void)
{
	explore_check(petal_spsc_outcome(&state.producer) == -EPIPE);
}

/* Death: a publish may have happened of which nobody was told. */

static void succeed_producer(void)
{
	state.died = explore_proved_dead(0);
	if (!state.died)
		return;
	attach(PETAL_SPSC_PRODUCER, &state.producer);
	state.sent = state.producer.pos;
	produce(2, 3);
}

static void consume_4(void)
{
	consume(4, 5);
}

static void produce_5(void)
{
	produce(5, 6);
}

static void succeed_consumer(void)
{
	state.died = explore_proved_dead(1);
	if (!state.died)
		return;
	attach(PETAL_SPSC_CONSUMER, &state.consumer);
	/* It sees again what was released after head was stored last. */
	explore_check(state.consumer.pos <= state.got + 1);
	explore_check(state.consumer.pos + SLOTS >= state.got);
	state.got = state.consumer.pos;
	consume(3, 4);
}

/* Format beside an attach: all or nothing. */

static void make_nothing(void)
{
	memset(shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
}

static void format(void)
{
	struct petal_spsc_geometry shape = geometry;

	shape.start_pos = 5;
	explore_check(petal_spsc_format(shared, &shape) == 0);
}

static void find_formatted(void)
{
	struct petal_spsc ring;
	int err = petal_spsc_attach(shared, sizeof(shared), PETAL_SPSC_PRODUCER,
				    &ring);

	explore_check(!err || err == -EINVAL);
	if (err)
		return;
	explore_check(ring.slot_count == SLOTS);
	explore_check(ring.slot_bytes == SLOT_BYTES);
	explore_check(ring.pos == 5 && ring.head_seen == 5);
	explore_check(petal_spsc_claim(&ring) != NULL);
}

static void find_not_dead(void)
{
	int err;

	state.died = explore_proved_dead(0);
	err = petal_spsc_attach(shared, sizeof(shared), PETAL_SPSC_CONSUMER,
				&state.consumer);
	explore_check(state.died || err == 0);
	if (err == 0)
		explore_check(petal_spsc_peek(&state.consumer) == NULL);
}

#define MODEL(...)                                                             \
	{                                                                      \
		__VA_ARGS__, .shared = shared, .shared_bytes = sizeof(shared), \
			     .state = &state, .state_bytes = sizeof(state),    \
	}

static const struct explore_model flow =
	MODEL(.name = "flow", .setup = make_new,
	      .threads = { produce_6, consume_6 }, .finish = finish);

static const struct explore_model flow_late =
	MODEL(.name = "flow-late", .setup = make_late,
	      .threads = { produce_6, consume_6 }, .finish = finish);

static const struct explore_model laps =
	MODEL(.name = "laps", .setup = make_late,
	      .threads = { produce_14, consume_14 }, .finish = finish);

static const struct explore_model bulk =
	MODEL(.name = "bulk", .setup = make_new,
	      .threads = { produce_bulk, consume_bulk }, .finish = finish);

static const struct explore_model indexed =
	MODEL(.name = "indexed", .setup = make_indexed,
	      .threads = { produce_6, consume_6 }, .finish = finish);

static const struct explore_model indexed_bulk =
	MODEL(.name = "indexed-bulk", .setup = make_indexed,
	      .threads = { produce_bulk, consume_bulk }, .finish = finish);

static const struct explore_model indexed_dies =
	MODEL(.name = "indexed-dies", .setup = make_indexed,
	      .threads = { produce_5, consume_6, succeed_producer },
	      .finish = finish, .mortal = 1u << 0);

static const struct explore_model closed =
	MODEL(.name = "close", .setup = make_new,
	      .threads = { produce_and_close, consume_to_end },
	      .finish = finish);

static const struct explore_model indexed_closed =
	MODEL(.name = "indexed-close", .setup = make_indexed,
	      .threads = { produce_and_close, consume_to_end },
	      .finish = finish);

static const struct explore_model refused =
	MODEL(.name = "refused", .setup = make_new,
	      .threads = { produce_till_closed, close_early },
	      .finish = finish_refused);

static const struct explore_model observed =
	MODEL(.name = "observed", .setup = make_new,
	      .threads = { produce_5, consume_4, observe }, .finish = finish);

static const struct explore_model producer_dies =
	MODEL(.name = "producer-dies", .setup = make_new,
	      .threads = { produce_5, consume_6, succeed_producer },
	      .finish = finish, .mortal = 1u << 0);

static const struct explore_model consumer_dies =
	MODEL(.name = "consumer-dies", .setup = make_new,
	      .threads = { produce_6, consume_4, succeed_consumer },
	      .finish = finish, .mortal = 1u << 1);

static const struct explore_model formatted =
	MODEL(.name = "format", .setup = make_nothing,
	      .threads = { format, find_formatted, find_not_dead },
	      .mortal = 1u << 0, .has_private_words = true);

static const struct explore_model far =
	MODEL(.name = "far", .setup = make_far,
	      .threads = { produce_6, consume_6 }, .finish = finish,
	      .has_private_words = true);

const struct explore_model *const explore_models[] = {
	&flow,     &flow_late,      &laps,          &bulk,
	&observed, &producer_dies,  &consumer_dies, &formatted,
	&indexed,  &indexed_bulk,   &indexed_dies,  &closed,
	&refused,  &indexed_closed, &far,           NULL,
};

const struct explore_excuse explore_excuses[] = { { .file = NULL } };
