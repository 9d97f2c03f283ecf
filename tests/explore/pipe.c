/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/pipe.h"

#include <errno.h>
#include <string.h>

#include "tests/explore/explore.h"

/*
 * One producer and one consumer over the smallest pipe, 1 KiB, with records of
 * such lengths that four fill it, and others that leave a rest at its end.
 * A record is one plain word, a number.
 */

const char explore_kind[] = "pipe";

#define DATA_BYTES 1024u
#define SHARED_BYTES (384u + DATA_BYTES)
#define LONG 240u /* a quarter, with its header */
#define ODD 200u  /* such that the end is not met */

static _Alignas(64) uint8_t shared[SHARED_BYTES];

static struct {
	struct petal_pipe producer;
	struct petal_pipe consumer;
	uint64_t sent;
	uint64_t got;
	uint64_t first_pos;
	bool saw_end;
} state;

static struct petal_pipe_geometry geometry = { .data_bytes = DATA_BYTES };

static void attach(enum petal_pipe_role role, struct petal_pipe *ret_ring)
{
	explore_check(
		petal_pipe_attach(shared, sizeof(shared), role, ret_ring) == 0);
}

static void make(uint64_t start_pos)
{
	memset(shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
	geometry.start_pos = start_pos;
	state.first_pos = start_pos;
	explore_check(petal_pipe_bytes(&geometry) <= sizeof(shared));
	explore_check(petal_pipe_format(shared, &geometry) == 0);
	attach(PETAL_PIPE_PRODUCER, &state.producer);
	attach(PETAL_PIPE_CONSUMER, &state.consumer);
}

static void make_new(void)
{
	make(0);
}

/* Short of where 32 bits, and a lap, end. */
static void make_late(void)
{
	make((UINT64_C(1) << 32) - 288);
}

static void produce(uint32_t length, unsigned count, unsigned tries)
{
	struct petal_pipe *ring = &state.producer;
	void *bytes;

	while (count > 0 && tries-- > 0) {
		int err = petal_pipe_claim(ring, length, &bytes);

		if (err == -EPIPE)
			return;
		explore_check(!err || err == -EAGAIN);
		if (err)
			continue;
		explore_write(bytes, state.sent + 1);
		petal_pipe_publish(ring, length, 1);
		state.sent++;
		count--;
	}
}

static void produce_batch(void)
{
	struct petal_pipe *ring = &state.producer;
	unsigned count = 0;
	void *bytes;

	for (unsigned i = 0; i < 3; i++) {
		if (petal_pipe_claim(ring, ODD, &bytes) != 0)
			break;
		explore_write(bytes, state.sent + ++count);
		petal_pipe_append(ring, ODD, 1);
	}
	petal_pipe_show(ring);
	state.sent += count;
	produce(ODD, 2, 3);
}

static int consume(unsigned count, unsigned tries)
{
	struct petal_pipe *ring = &state.consumer;
	struct petal_pipe_view view = { .bytes = NULL };
	int outcome = 0;

	while (count > 0 && tries-- > 0) {
		outcome = petal_pipe_peek(ring, petal_pipe_pos(ring), &view);
		explore_check(outcome >= 0);
		if (outcome)
			continue;
		explore_check(view.type == 1);
		explore_check(explore_read(view.bytes) == state.got + 1);
		petal_pipe_release(ring, view.end);
		state.got++;
		count--;
	}
	return outcome;
}

static void finish(void)
{
	consume(8, 8);
	explore_check(state.got == state.sent);
	explore_check(petal_pipe_backlog(&state.producer) == 0);
}

static void finish_closed(void)
{
	if (state.saw_end)
		explore_check(state.got == state.sent);
	explore_check(consume(8, 9) == PETAL_RING_CLOSED);
	explore_check(state.got == state.sent);
}

static void produce_long(void)
{
	produce(LONG, 6, 8);
}

static void produce_odd(void)
{
	produce(ODD, 5, 7);
}

static void produce_14(void)
{
	produce(LONG, 14, 16);
}

static void consume_6(void)
{
	consume(6, 7);
}

static void consume_14(void)
{
	consume(14, 16);
}

static void produce_and_close(void)
{
	produce(LONG, 2, 2);
	petal_pipe_close(&state.producer);
}

static void consume_to_end(void)
{
	state.saw_end = consume(3, 4) == PETAL_RING_CLOSED;
}

static void observe(void)
{
	explore_check(petal_pipe_backlog(&state.consumer) <= DATA_BYTES);
}

static void succeed_producer(void)
{
	if (!explore_proved_dead(0))
		return;
	attach(PETAL_PIPE_PRODUCER, &state.producer);
	state.sent = (state.producer.pos - state.first_pos) / (LONG + 16);
	produce(LONG, 2, 3);
}

static void make_nothing(void)
{
	memset(shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
	/* What lay there before says what the first stamp would. */
	petal_store((struct petal_u64 *)(void *)(shared + 384), 1,
		    PETAL_RELAXED);
	geometry.start_pos = 0;
}

static void format(void)
{
	explore_check(petal_pipe_format(shared, &geometry) == 0);
}

static void find_formatted(void)
{
	struct petal_pipe_view view;
	struct petal_pipe ring;
	int err = petal_pipe_attach(shared, sizeof(shared), PETAL_PIPE_CONSUMER,
				    &ring);

	explore_check(!err || err == -EINVAL);
	if (err)
		return;
	explore_check(ring.data_bytes == DATA_BYTES);
	explore_check(petal_pipe_peek(&ring, petal_pipe_pos(&ring), &view) ==
		      PETAL_RING_EMPTY);
}

#define MODEL(...)                                                             \
	{                                                                      \
		__VA_ARGS__, .shared = shared, .shared_bytes = sizeof(shared), \
			     .state = &state, .state_bytes = sizeof(state),    \
	}

static const struct explore_model flow =
	MODEL(.name = "flow", .setup = make_new,
	      .threads = { produce_long, consume_6 }, .finish = finish);

static const struct explore_model odd =
	MODEL(.name = "odd", .setup = make_late,
	      .threads = { produce_odd, consume_6 }, .finish = finish);

static const struct explore_model laps =
	MODEL(.name = "laps", .setup = make_new,
	      .threads = { produce_14, consume_14 }, .finish = finish);

static const struct explore_model batch =
	MODEL(.name = "batch", .setup = make_late,
	      .threads = { produce_batch, consume_6 }, .finish = finish);

static const struct explore_model closed =
	MODEL(.name = "close", .setup = make_new,
	      .threads = { produce_and_close, consume_to_end },
	      .finish = finish_closed);

static const struct explore_model observed =
	MODEL(.name = "observed", .setup = make_new,
	      .threads = { produce_long, consume_6, observe },
	      .finish = finish);

static const struct explore_model producer_dies =
	MODEL(.name = "producer-dies", .setup = make_new,
	      .threads = { produce_long, consume_6, succeed_producer },
	      .finish = finish, .mortal = 1u << 0);

static const struct explore_model formatted =
	MODEL(.name = "format", .setup = make_nothing,
	      .threads = { format, find_formatted });

const struct explore_model *const explore_models[] = {
	&flow,     &odd,           &laps,      &batch, &closed,
	&observed, &producer_dies, &formatted, NULL,
};

const struct explore_excuse explore_excuses[] = {
	{ "rings/pipe_inl.h", "DRAIN", EXPLORE_ACQUIRE, EXPLORE_RELAXED,
	  "a number for observers, which is bounded" },
	{ .file = NULL },
};
