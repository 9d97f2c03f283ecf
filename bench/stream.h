/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_STREAM_H
#define PETAL_BENCH_STREAM_H

#include <stdint.h>

#include "bench/flow.h"
#include "bench/payload.h"

/**
 * DOC: stream - what the contenders of the bench of that name share
 *
 * Ours is in stream.c, the peers in a file each, for each brings headers that
 * bend the compiler. A peer that was not found when this was built says so in
 * its rows.
 */

/* Messages in one call of a bulk row. */
#define STREAM_BULK 32u

/* The same for everybody, or the larger ring would win. */
#define STREAM_SLOTS 1024u

/* A party says how far it is each time it has passed so many messages. */
#define STREAM_REPORT 64u

/*
 * A loop for each size, since one that knows the size is what a user writes,
 * and what fills 64 bytes in four instructions.
 */
#define STREAM_FOR_BYTES(bytes, loop, ...)           \
	((bytes) == 8      ? loop(__VA_ARGS__, 8)    \
	 : (bytes) == 64   ? loop(__VA_ARGS__, 64)   \
	 : (bytes) == 1024 ? loop(__VA_ARGS__, 1024) \
			   : loop(__VA_ARGS__, bytes))

/**
 * stream_peer_ck() - ck_ring, single producer and single consumer
 * @ret_row: of @bytes in messages copied into and out of the ring
 */
void stream_peer_ck(struct petal_flow_contender *ret_row, uint64_t bytes);

/**
 * stream_peer_rte() - rte_ring, single producer and single consumer
 * @bulk: messages in one call, 1 or STREAM_BULK
 * @in_place: by its zero-copy calls, which are experimental there
 */
void stream_peer_rte(struct petal_flow_contender *ret_row, uint64_t bytes,
		     unsigned bulk, bool in_place);

/* How many transports stream_peer_ipc() knows. */
#define STREAM_IPC 6u

/**
 * stream_peer_ipc() - a transport between processes, such as a socket
 * @which: below STREAM_IPC
 */
void stream_peer_ipc(struct petal_flow_contender *ret_row, unsigned which,
		     uint64_t bytes);

#endif
