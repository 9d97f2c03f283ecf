/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_FANIN_H
#define PETAL_BENCH_FANIN_H

#include <stdint.h>
#include <string.h>

#include "bench/flow.h"
#include "bench/payload.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: fanin - what the contenders of the bench of that name share
 *
 * Ours is in fanin.c, the peers in a file each. Every message is 64 bytes: a
 * word that says whose it is and which of its producer's, and 56 bytes that
 * follow from it. The consumer reads all of them, and finds a message that is
 * lost, doubled, torn or out of its producer's order.
 */

#define FANIN_BYTES 64u
/* Messages in one call of a bulk row. */
#define FANIN_BULK 32u
/* Messages that may be under way, the same for everybody, all lanes together. */
#define FANIN_SLOTS 1024u
#define FANIN_PRODUCERS_MAX 16u

#define FANIN_INDEX_SHIFT 48

static inline uint64_t fanin_id(unsigned index, uint64_t sequence)
{
	return (uint64_t)index << FANIN_INDEX_SHIFT | sequence;
}

static inline void fanin_fill(void *message, uint64_t id)
{
	memcpy(message, &id, sizeof(id));
	petal_payload_fill((uint8_t *)message + sizeof(id),
			   FANIN_BYTES - sizeof(id), id);
}

/* What the consumer expects of each producer. */
struct fanin_tally {
	uint64_t next[FANIN_PRODUCERS_MAX];
	uint64_t count;
};

static inline int fanin_check(struct fanin_tally *tally, const void *message)
{
	uint64_t id, index;

	memcpy(&id, message, sizeof(id));
	index = id >> FANIN_INDEX_SHIFT;
	if (index >= FANIN_PRODUCERS_MAX ||
	    id != fanin_id((unsigned)index, tally->next[index]))
		return -EBADMSG;
	tally->next[index]++;
	tally->count++;
	return petal_payload_check((const uint8_t *)message + sizeof(id),
				   FANIN_BYTES - sizeof(id), id);
}

/**
 * fanin_peer_ck() - ck_ring, many producers and a single consumer
 */
void fanin_peer_ck(struct petal_flow_contender *ret_row, unsigned producers);

/**
 * fanin_peer_rte() - rte_ring, many producers and a single consumer
 * @bulk: messages in one call, 1 or FANIN_BULK
 * @relaxed: with relaxed tail sync, for more threads than CPUs
 */
void fanin_peer_rte(struct petal_flow_contender *ret_row, unsigned producers,
		    unsigned bulk, bool relaxed);

/**
 * fanin_peer_erl() - processes of an Erlang machine, which is a child of ours
 */
void fanin_peer_erl(struct petal_flow_contender *ret_row, unsigned producers);

/**
 * fanin_peer_caf() - actors of CAF, in one process; not there without the library
 */
void fanin_peer_caf(struct petal_flow_contender *ret_row, unsigned producers);

#ifdef __cplusplus
}
#endif

#endif
