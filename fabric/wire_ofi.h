/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_WIRE_OFI_H
#define PETAL_FABRIC_WIRE_OFI_H

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include "fabric/seal.h"
#include "fabric/wire.h"
#include "fabric/wire_gate.h"

/**
 * DOC: wire_ofi - what the files of the wire share, and nobody else
 *
 * wire_ofi.c opens, knows the memory and drives; wire_ofi_cm.c makes and ends
 * connections; wire_ofi_io.c moves bytes. A connection is a link:
 *
 *    CALLING ----.                        .-> (nothing, or one DOWN)
 *                 >--> READY --> UP --> ENDING --> retired --> freed
 *    ANSWERING --'        \______________^
 *
 *    READY    both sides have proved themselves, UP is not reported yet: an
 *             older link of the same peer must end first
 *    ENDING   no new operation; what was completed is collected, then what was
 *             not is reported as cancelled, then DOWN
 *    retired  endpoint and queue are closed, no event is owed; the memory is
 *             kept until the next poll, for messages lent in this one
 *
 * Each link has a completion queue of its own, for two reasons. The tcp
 * provider reports a remote write with no context at all, so in a shared queue
 * nothing but the sender's word would tell whose it was. And completions that
 * come late, after the end of a link, go down with the link's own queue and
 * meet no memory that has become somebody else's.
 */

#define WIRE_RECEIVES 64
#define WIRE_BUFFERS (WIRE_RECEIVES + PETAL_WIRE_SENDS_MAX)

/* Completions taken from one link before the next one has its turn. */
#define WIRE_BATCH 32

/* A link that is UP or ending, and one that is coming, for each peer. */
#define WIRE_LINKS_MAX (2 * PETAL_WIRE_PEER_MAX)

/* Descriptors that one look tells of; the others have their turn later. */
#define WIRE_READY_MAX 64

/* Connection events handled in one poll. */
#define WIRE_CM_BATCH 64

static inline uint64_t wire_bits(unsigned count)
{
	return count >= 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1;
}

enum wire_state {
	WIRE_CALLING,
	WIRE_ANSWERING,
	WIRE_READY,
	WIRE_UP,
	WIRE_ENDING,
};

enum wire_op_kind {
	WIRE_RECEIVE,
	WIRE_SEND,
	WIRE_WRITE,
};

/* The context comes first: its address is what libfabric gives back. */
struct wire_op {
	struct fi_context2 context;
	enum wire_op_kind kind;
	uint32_t index;
	uint64_t cookie;
	uint64_t order;
};

/**
 * struct wire_link - one connection
 * @ours: we called
 * @announce: UP or DOWN is owed to the caller
 * @was_up: UP was reported, hence WROTE and DOWN are owed
 * @status: of DOWN, once ENDING
 * @deadline_ns: for CALLING and ANSWERING
 * @sends_busy: a bit for each send under way
 * @writes_busy: a bit for each write under way
 * @lent: receives whose bytes the caller is looking at
 * @orders: writes accepted so far
 * @starved: a send or write was refused for want of a free one
 * @ready: its descriptor was readable at the last look
 * @armed: fi_trywait() was content, and nothing was done with it since
 * @token: what we sent, to check the answer
 */
struct wire_link {
	struct petal_wire *wire;
	uint32_t peer;
	enum wire_state state;
	bool ours;
	bool announce;
	bool was_up;
	int status;
	uint64_t deadline_ns;
	struct fid_ep *ep;
	struct fid_cq *cq;
	int cq_fd;
	struct fid_mr *buffers_mr;
	uint8_t *buffers;
	uint64_t sends_busy;
	uint64_t writes_busy;
	uint64_t lent;
	uint64_t orders;
	bool starved;
	bool ready;
	bool armed;
	struct wire_op receives[WIRE_RECEIVES];
	struct wire_op sends[PETAL_WIRE_SENDS_MAX];
	struct wire_op writes[PETAL_WIRE_WRITES_MAX];
	struct wire_link *next_dead;
	uint8_t token[PETAL_SEAL_TOKEN_BYTES];
};

struct petal_wire_region {
	struct petal_wire *wire;
	struct petal_wire_region *next;
	uint8_t *base;
	uint64_t bytes;
	struct fid_mr *local;
	struct fid_mr *remote;
};

/**
 * struct petal_wire - a wire
 * @current: of each peer, the link that is UP, or was and owes its DOWN
 * @coming: of each peer, the link that is not UP yet
 * @links: all of them; NULL where one was retired since the last poll
 * @turn: which link is served first
 * @relief: a link that was starved is so no longer; the caller does not know
 * @eq_hot: the event queue may hold events of which its fd tells nothing
 * @eq_ready: its descriptor, or the timer's, was readable at the last look
 * @wakes: see petal_wire_put()
 * @closing: nobody is let in any more
 * @timer_ns: what the timer is set to; UINT64_MAX for never
 */
struct petal_wire {
	uint32_t node;
	uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES];
	uint8_t key[PETAL_SEAL_KEY_BYTES];
	char address[80];
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_eq *eq;
	struct fid_pep *pep;
	int eq_fd;
	int epoll_fd;
	int timer_fd;
	bool eq_hot;
	bool eq_ready;
	bool wakes;
	bool relief;
	bool closing;
	uint64_t timer_ns;
	uint64_t data_max;
	struct wire_link *current[PETAL_WIRE_PEER_MAX];
	struct wire_link *coming[PETAL_WIRE_PEER_MAX];
	struct wire_link *links[WIRE_LINKS_MAX + WIRE_CM_BATCH];
	unsigned link_count;
	unsigned turn;
	struct wire_link *dead;
	struct petal_wire_region *regions;
	struct petal_wire_counters counters;
	struct wire_gate gate;
	struct petal_seal_replay replay;
	struct petal_seal_clock clock;
};

/* wire_ofi.c */

/* A key for fi_mr_reg(), random where the provider lets us choose. */
uint64_t wire_key_draw(const struct petal_wire *wire);

/* wire_ofi_io.c */

/* Post one receive; the link ends if that fails. */
void wire_receive_post(struct wire_link *link, unsigned index);

/* Post again what the caller has finished looking at. */
void wire_link_take_back(struct wire_link *link);

/* 0 when its descriptor will tell; -FI_EAGAIN when it has to be polled. */
int wire_link_arm(struct wire_link *link);

/* Whatever this link has to report, up to max events; it may be gone then. */
unsigned wire_link_step(struct wire_link *link, struct petal_wire_event *events,
			unsigned max);

/* wire_ofi_cm.c */

/* "127.0.0.1:7101" or "[::1]:7101" into a sockaddr; -EINVAL. */
int wire_address_parse(const char *text, struct sockaddr_storage *ret_address,
		       socklen_t *ret_size);

/* The reverse. */
void wire_address_format(const struct sockaddr *address, char *text,
			 size_t size);

/* All that the event queue has, up to WIRE_CM_BATCH, and all deadlines. */
void wire_cm_step(struct petal_wire *wire, uint64_t now_ns);

/* Send everybody away who is neither in nor out; links are closed before. */
void wire_cm_close(struct petal_wire *wire);

/* Has the event queue more, of which its descriptor will not tell? */
bool wire_cm_more(struct petal_wire *wire, uint64_t now_ns);

/* The next moment at which wire_cm_step() has something to do. */
uint64_t wire_cm_deadline_ns(const struct petal_wire *wire);

/* No more operations on this link; the events that it owes follow. */
void wire_link_end(struct wire_link *link, int status);

/* Close what libfabric has of it; the memory goes at the next poll. */
void wire_link_retire(struct wire_link *link);

/* Free what was retired, and close the gaps in the list of links. */
void wire_links_reap(struct petal_wire *wire);

#endif
