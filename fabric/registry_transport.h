/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: registry_transport - TCP between voters, with nobody else on it
 *
 * C-Raft's parser believes whoever is connected, so a connection reaches it
 * only after both sides have proved that they hold the cluster's key:
 *
 *    dialler                                acceptor
 *       |--- hello, 128 bytes ----------------->|  token, voter, address
 *       |<-- answer, 16 bytes ------------------|  over this very token
 *       +--- then C-Raft's bytes, one way ----->+
 *
 *    hello, little-endian
 *    byte 0         8      12     16           64             112    128
 *    +--------------+------+------+------------+--------------+-------+
 *    | "PRh\1", 0   | from | to   | token      | address, 48  | zero  |
 *    | version 1    |      |      | (seal.h)   | of the caller|       |
 *    +--------------+------+------+------------+--------------+-------+
 *
 * Not a byte more than a hello is read before it is found good, and the
 * address in it is only compared with the one that the voters' list has.
 *
 * Always true: at most PETAL_REGISTRY_HALF_OPEN_MAX accepted connections are
 * half open; the next one closes the oldest of them, so that a stranger who
 * holds connections open does not keep a voter out, who needs one round trip.
 * Each half-open connection, either way, lives PETAL_REGISTRY_HELLO_MS.
 *
 * A refused connection is closed without a word and counted. What seal.h says
 * holds here: the hello proves who opened the connection, not who wrote the
 * bytes after it; a network that others can write to needs a tunnel.
 *
 * A connection whose other end has vanished is noticed after 5 s if bytes are
 * in flight, after 20 s if not (TCP_USER_TIMEOUT, keep-alive).
 *
 * Threads: everything in the loop's thread, except petal_registry_links.
 */
#ifndef PETAL_FABRIC_REGISTRY_TRANSPORT_H
#define PETAL_FABRIC_REGISTRY_TRANSPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <raft.h>
#include <raft/uv.h>

#include "fabric/registry.h"
#include "fabric/seal.h"

#define PETAL_REGISTRY_HALF_OPEN_MAX 16
#define PETAL_REGISTRY_HELLO_MS 2000
#define PETAL_REGISTRY_HELLO_BYTES 128
#define PETAL_REGISTRY_HELLO_ADDRESS_BYTES 48

struct petal_registry_link;

/**
 * struct petal_registry_links - what was counted, for any thread to read
 *
 * The names are those of struct petal_registry_status.
 */
struct petal_registry_links {
	_Atomic uint64_t accepted;
	_Atomic uint64_t refused;
	_Atomic uint64_t timed_out;
	_Atomic uint64_t evicted;
	_Atomic uint64_t dialled;
	_Atomic uint64_t dial_refused;
	_Atomic uint64_t dial_failed;
};

/**
 * struct petal_registry_transport - C-Raft's view of it, and ours
 * @base: what raft_uv_init() takes
 * @loop: the loop
 * @listener: our own address
 * @sweep: runs while connections are half open
 * @links: those connections, oldest first
 * @handles: of @listener and @sweep, how many are still open
 * @closing: nothing is begun any more
 * @error: why listening failed, -errno
 * @accept_cb: C-Raft's
 * @close_cb: C-Raft's, or NULL
 * @node: who we are
 * @voters: who may connect
 * @voter_count: how many
 * @cluster: which cluster
 * @key: for this purpose only
 * @replay: tokens seen
 * @clock: what time it is, in tokens
 * @counters: what happened
 */
struct petal_registry_transport {
	struct raft_uv_transport base;
	uv_loop_t *loop;
	uv_tcp_t listener;
	uv_timer_t sweep;
	struct petal_registry_link *links;
	unsigned handles;
	bool closing;
	int error;
	raft_uv_accept_cb accept_cb;
	raft_uv_transport_close_cb close_cb;
	uint32_t node;
	struct petal_registry_voter voters[PETAL_REGISTRY_VOTERS_MAX];
	unsigned voter_count;
	uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES];
	uint8_t key[PETAL_SEAL_KEY_BYTES];
	struct petal_seal_replay replay;
	struct petal_seal_clock clock;
	struct petal_registry_links counters;
};

/**
 * petal_registry_address_check() - is this text a numeric address and port?
 * @address: "192.0.2.7:7201" or "[2001:db8::7]:7201"
 *
 * Return: 0; -EINVAL, also if it does not fit into a hello.
 */
int petal_registry_address_check(const char *address);

/**
 * petal_registry_transport_init() - get ready; nothing listens yet
 * @transport: zeroed memory, at a place where it stays
 * @loop: the loop, of which two handles are taken
 * @options: valid options
 */
void petal_registry_transport_init(struct petal_registry_transport *transport,
				   uv_loop_t *loop,
				   const struct petal_registry_options *options);

/**
 * petal_registry_transport_fini() - close, if C-Raft has not done so
 * @transport: the transport
 *
 * The loop must run until its handles are closed. Doing it twice is fine.
 */
void petal_registry_transport_fini(struct petal_registry_transport *transport);

#endif
