/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_ACTORS_OUTPUTS_H
#define PETAL_ACTORS_OUTPUTS_H

#include <stdint.h>

#include "actors/port.h"

/**
 * DOC: outputs - the messages that a behaviour wants put, not yet put
 *
 *    list      | 0 | 1 | 2 | ...     at most PETAL_OUTPUTS_MAX
 *                |   |   +---------------------> bytes of someone else (pass)
 *                v   v
 *    memory    | bytes | bytes | free          |    each begins at a multiple
 *              0               used_bytes           of 8
 *
 * A behaviour adds to it; whoever called the behaviour forwards the list in
 * one piece, or cuts it back as if nothing had been said.
 *
 * Always true: count <= count_limit <= PETAL_OUTPUTS_MAX, and used_bytes <=
 * bytes_limit <= memory_bytes. The limits are moved by the owner of the list,
 * so that one message cannot use up the room of the others.
 *
 * Threads: one at a time. Nothing is allocated.
 */

/* What one acknowledge-and-forward takes at most, in either direction. */
#define PETAL_OUTPUTS_MAX 64u

struct petal_outputs {
	struct petal_output list[PETAL_OUTPUTS_MAX];
	uint8_t *memory;
	uint32_t memory_bytes;
	uint32_t used_bytes;
	uint32_t bytes_limit;
	unsigned count;
	unsigned count_limit;
};

/* How much is in a list, to come back to. */
struct petal_outputs_mark {
	uint32_t used_bytes;
	unsigned count;
};

/**
 * petal_outputs_init() - an empty list
 * @memory: where copies go, 8-byte aligned; NULL only with 0 bytes
 */
void petal_outputs_init(struct petal_outputs *outputs, void *memory,
			uint32_t memory_bytes);

/**
 * petal_outputs_put() - add a message; its bytes are copied
 *
 * Return: 0, or -ENOSPC when it would go past a limit; nothing is added then.
 */
int petal_outputs_put(struct petal_outputs *outputs, uint32_t queue,
		      const void *bytes, uint32_t length);

/**
 * petal_outputs_claim() - add a message whose bytes are written in place
 * @ret_bytes: @length bytes, 8-byte aligned, with what was there before;
 *	write them before the behaviour returns
 *
 * Return: 0, or -ENOSPC.
 */
int petal_outputs_claim(struct petal_outputs *outputs, uint32_t queue,
			uint32_t length, void **ret_bytes);

/**
 * petal_outputs_pass() - add a message whose bytes stay where they are
 * @bytes: readable until the list has been forwarded: those of the message
 *	being handled, or constant ones
 *
 * Return: 0, or -ENOSPC.
 */
int petal_outputs_pass(struct petal_outputs *outputs, uint32_t queue,
		       const void *bytes, uint32_t length);

/* For the owner of the list. */

/**
 * petal_outputs_allow() - let so much more be added, at most
 * @bytes: of copies, each rounded up to 8
 */
void petal_outputs_allow(struct petal_outputs *outputs, unsigned count,
			 uint32_t bytes);

struct petal_outputs_mark
petal_outputs_mark(const struct petal_outputs *outputs);

/**
 * petal_outputs_cut() - forget what was added since a mark
 */
void petal_outputs_cut(struct petal_outputs *outputs,
		       struct petal_outputs_mark mark);

#endif
