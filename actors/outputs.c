/* SPDX-License-Identifier: Apache-2.0 */
#include "actors/outputs.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static uint64_t rounded(uint32_t length)
{
	return ((uint64_t)length + 7) & ~UINT64_C(7);
}

void petal_outputs_init(struct petal_outputs *outputs, void *memory,
			uint32_t memory_bytes)
{
	assert((uintptr_t)memory % 8 == 0);
	assert(memory != NULL || memory_bytes == 0);
	*outputs = (struct petal_outputs){
		.memory = memory,
		.memory_bytes = memory_bytes,
		.bytes_limit = memory_bytes,
		.count_limit = PETAL_OUTPUTS_MAX,
	};
}

int petal_outputs_pass(struct petal_outputs *outputs, uint32_t queue,
		       const void *bytes, uint32_t length)
{
	if (outputs->count >= outputs->count_limit)
		return -ENOSPC;
	outputs->list[outputs->count++] = (struct petal_output){
		.queue = queue,
		.length = length,
		.bytes = bytes,
	};
	return 0;
}

int petal_outputs_claim(struct petal_outputs *outputs, uint32_t queue,
			uint32_t length, void **ret_bytes)
{
	uint8_t *bytes = outputs->memory + outputs->used_bytes;
	int err;

	if (rounded(length) > outputs->bytes_limit - outputs->used_bytes)
		return -ENOSPC;
	err = petal_outputs_pass(outputs, queue, bytes, length);
	if (err < 0)
		return err;
	outputs->used_bytes += (uint32_t)rounded(length);
	*ret_bytes = bytes;
	return 0;
}

int petal_outputs_put(struct petal_outputs *outputs, uint32_t queue,
		      const void *bytes, uint32_t length)
{
	void *copy;
	int err = petal_outputs_claim(outputs, queue, length, &copy);

	if (err == 0 && length > 0)
		memcpy(copy, bytes, length);
	return err;
}

void petal_outputs_allow(struct petal_outputs *outputs, unsigned count,
			 uint32_t bytes)
{
	unsigned count_left = PETAL_OUTPUTS_MAX - outputs->count;
	uint32_t bytes_left = outputs->memory_bytes - outputs->used_bytes;

	outputs->count_limit =
		outputs->count + (count < count_left ? count : count_left);
	outputs->bytes_limit =
		outputs->used_bytes + (bytes < bytes_left ? bytes : bytes_left);
}

struct petal_outputs_mark
petal_outputs_mark(const struct petal_outputs *outputs)
{
	return (struct petal_outputs_mark){
		.used_bytes = outputs->used_bytes,
		.count = outputs->count,
	};
}

void petal_outputs_cut(struct petal_outputs *outputs,
		       struct petal_outputs_mark mark)
{
	assert(mark.count <= outputs->count);
	assert(mark.used_bytes <= outputs->used_bytes);
	outputs->count = mark.count;
	outputs->used_bytes = mark.used_bytes;
}
