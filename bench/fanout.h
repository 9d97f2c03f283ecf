/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_FANOUT_H
#define PETAL_BENCH_FANOUT_H

#include <stdint.h>

#include "bench/flow.h"
#include "bench/payload.h"

/**
 * DOC: fanout - what the contenders of the bench of that name share
 *
 * Ours is in fanout.c, a peer in a file of its own. A peer that was not found
 * when this was built says so in its rows.
 */

#define FANOUT_BYTES 64u
#define FANOUT_READERS_MAX 16u

/* A party says how far it is each time it has passed so many messages. */
#define FANOUT_REPORT 64u

/**
 * fanout_peer_zmq() - ZeroMQ, publish and subscribe over ipc
 * @ret_row: of FANOUT_BYTES to @readers subscribers
 */
void fanout_peer_zmq(struct petal_flow_contender *ret_row, unsigned readers);

#endif
