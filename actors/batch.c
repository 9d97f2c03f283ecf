/* SPDX-License-Identifier: Apache-2.0 */
#include "actors/batch.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>

#include "shm/error.h"

void petal_batch_init(struct petal_batch *batch, void *memory,
		      uint32_t memory_bytes)
{
	batch->count = 0;
	petal_outputs_init(&batch->outputs, memory, memory_bytes);
}

void petal_batch_add(struct petal_batch *batch,
		     const struct petal_message *message)
{
	assert(batch->count < PETAL_BATCH_MAX);
	batch->messages[batch->count] = *message;
	batch->outputs_end[batch->count] = batch->outputs.count;
	batch->count++;
}

static int forward(const struct petal_batch *batch,
		   const struct petal_batch_way *way, unsigned first,
		   unsigned count)
{
	unsigned from = first == 0 ? 0 : batch->outputs_end[first - 1];
	unsigned end = batch->outputs_end[first + count - 1];

	return way->port->forward(way->self, &batch->messages[first], count,
				  &batch->outputs.list[from], end - from,
				  way->level, way->deadline_ns);
}

/* Whether it is decided that nothing was put, and why is in the messages. */
static bool is_refused(int err)
{
	return err < 0 && err != -EAGAIN && err != -ETIMEDOUT &&
	       err != -PETAL_EUNKNOWN;
}

void petal_batch_forward(struct petal_batch *batch,
			 const struct petal_batch_way *way)
{
	bool together;
	int err;

	if (batch->count == 0)
		return;
	err = forward(batch, way, 0, batch->count);
	together = batch->count == 1 || !is_refused(err);
	for (unsigned i = 0; i < batch->count; i++)
		batch->outcomes[i] = together ? err : forward(batch, way, i, 1);
}

void petal_batch_clear(struct petal_batch *batch)
{
	static const struct petal_outputs_mark empty;

	batch->count = 0;
	petal_outputs_cut(&batch->outputs, empty);
}
