/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_ARRAY_PORT_H
#define PETAL_TESTS_ARRAY_PORT_H

/**
 * DOC: array_port - actors/port.h on an array, for tests of what stands on it
 *
 * All queues are one array in the order of putting, as they are one log in the
 * real thing: a message is READY, LEASED or DONE, take gives the oldest READY
 * one of its queue, a lease is named by a number that is never used twice, and
 * forward is all or nothing. There is no time: a take that finds nothing says
 * so at once, and a lease ends when the test says so.
 *
 * The weather is the test's: it scripts what the next forwards answer, and
 * whether they took effect all the same; and it may act before each take.
 */

#include "tests/check.h"

#include <stdatomic.h>

#include "actors/port.h"

enum {
	ARRAY_MESSAGES = 8192,
	ARRAY_BYTES = 32,
	ARRAY_QUEUES = 8,
	ARRAY_SCRIPT = 256,
};

enum array_state { ARRAY_READY, ARRAY_LEASED, ARRAY_DONE };

struct array_message {
	uint8_t bytes[ARRAY_BYTES];
	uint32_t length;
	uint32_t queue;
	uint32_t leases;
	enum array_state state;
	uint64_t lease;
	uint64_t ordinal;
};

/* What a forward answers; with 0 it does what it should. */
struct array_answer {
	int err;
	bool happened; /* though the answer is a failure */
};

struct array_port {
	struct array_message messages[ARRAY_MESSAGES];
	unsigned count;
	uint64_t ordinals[ARRAY_QUEUES]; /* messages ever put, per queue */
	uint64_t lease;                  /* the last one given */
	bool owned[ARRAY_QUEUES];
	struct array_answer script[ARRAY_SCRIPT];
	unsigned script_count, script_next;
	void (*before_take)(struct array_port *array);
	void *test;        /* for before_take */
	_Atomic bool idle; /* a take found nothing */
	unsigned takes, forwards, releases;
	unsigned inputs_last, outputs_last; /* of the last forward */
	enum petal_level level_last;
};

static inline void array_put(struct array_port *array, uint32_t queue,
			     const void *bytes, uint32_t length)
{
	struct array_message *message = &array->messages[array->count++];

	assert_true(array->count <= ARRAY_MESSAGES);
	assert_true(length <= ARRAY_BYTES);
	assert_true(queue < ARRAY_QUEUES);
	*message = (struct array_message){
		.length = length,
		.queue = queue,
		.ordinal = array->ordinals[queue]++,
	};
	memcpy(message->bytes, bytes, length);
}

static inline void array_put_u64(struct array_port *array, uint32_t queue,
				 uint64_t number)
{
	array_put(array, queue, &number, sizeof(number));
}

static inline uint64_t array_u64(const void *bytes)
{
	uint64_t number;

	memcpy(&number, bytes, sizeof(number));
	return number;
}

static inline void array_answer(struct array_port *array, int err,
				bool happened)
{
	assert_true(array->script_count < ARRAY_SCRIPT);
	array->script[array->script_count++] =
		(struct array_answer){ err, happened };
}

/* Let the leases of a queue end, as their deadline would. */
static inline void array_expire(struct array_port *array, uint32_t queue)
{
	for (unsigned i = 0; i < array->count; i++) {
		struct array_message *message = &array->messages[i];

		if (message->queue == queue && message->state == ARRAY_LEASED)
			message->state = ARRAY_READY;
	}
}

static inline unsigned array_count(const struct array_port *array,
				   uint32_t queue, enum array_state state)
{
	unsigned count = 0;

	for (unsigned i = 0; i < array->count; i++)
		count += array->messages[i].queue == queue &&
			 array->messages[i].state == state;
	return count;
}

static inline int array_take(void *self, uint32_t queue, uint64_t deadline_ns,
			     struct petal_message *ret_message)
{
	struct array_port *array = self;

	(void)deadline_ns;
	array->takes++;
	if (array->before_take)
		array->before_take(array);
	for (unsigned i = 0; i < array->count; i++) {
		struct array_message *message = &array->messages[i];

		if (message->queue != queue || message->state != ARRAY_READY)
			continue;
		message->state = ARRAY_LEASED;
		message->lease = ++array->lease;
		*ret_message = (struct petal_message){
			.bytes = message->bytes,
			.length = message->length,
			.queue = queue,
			.lsn = i / 2 + 1, /* two to a record */
			.index = i % 2,
			.pos = UINT64_C(64) * i,
			.redelivered = message->leases++,
			.ordinal = message->ordinal,
			.lease = message->lease,
		};
		return 0;
	}
	atomic_store(&array->idle, true);
	return 1;
}

static inline struct array_message *array_of(struct array_port *array,
					     const struct petal_message *taken)
{
	struct array_message *message =
		&array->messages[(taken->lsn - 1) * 2 + taken->index];

	return message->state == ARRAY_LEASED && message->lease == taken->lease
		       ? message
		       : NULL;
}

static inline int array_happen(struct array_port *array,
			       const struct petal_message *inputs,
			       unsigned input_count,
			       const struct petal_output *outputs,
			       unsigned output_count)
{
	for (unsigned i = 0; i < input_count; i++)
		if (!array_of(array, &inputs[i]))
			return -ESTALE;
	for (unsigned i = 0; i < input_count; i++)
		array_of(array, &inputs[i])->state = ARRAY_DONE;
	for (unsigned i = 0; i < output_count; i++)
		array_put(array, outputs[i].queue, outputs[i].bytes,
			  outputs[i].length);
	return 0;
}

static inline int array_forward(void *self, const struct petal_message *inputs,
				unsigned input_count,
				const struct petal_output *outputs,
				unsigned output_count, enum petal_level level,
				uint64_t deadline_ns)
{
	struct array_port *array = self;
	struct array_answer answer = { 0, true };
	int err = 0;

	(void)deadline_ns;
	array->forwards++;
	array->inputs_last = input_count;
	array->outputs_last = output_count;
	array->level_last = level;
	if (array->script_next < array->script_count)
		answer = array->script[array->script_next++];
	if (answer.happened)
		err = array_happen(array, inputs, input_count, outputs,
				   output_count);
	return answer.err ? answer.err : err;
}

static inline int array_release(void *self, const struct petal_message *taken)
{
	struct array_message *message = array_of(self, taken);

	((struct array_port *)self)->releases++;
	if (!message)
		return -ESTALE;
	message->state = ARRAY_READY;
	return 0;
}

static inline int array_own(void *self, uint32_t queue)
{
	struct array_port *array = self;

	if (array->owned[queue])
		return -EBUSY;
	array->owned[queue] = true;
	return 0;
}

static const struct petal_port array_port = {
	.take = array_take,
	.forward = array_forward,
	.release = array_release,
	.own = array_own,
};

#endif
