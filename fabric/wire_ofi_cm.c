/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How connections come and go. The happy path: petal_wire_connect() makes a
 * link that is CALLING and gives a token to fi_connect(); at the other node
 * FI_CONNREQ brings it to cm_request(), which finds it good, makes a link that
 * is ANSWERING and gives the proof to fi_accept(); FI_CONNECTED makes both
 * READY, and the poll reports UP.
 *
 * What can go wrong: the token is bad (the connection is closed without a
 * word), nobody answers (deadline), the wrong one answers (-PETAL_EAUTH), the
 * peer had a link already (it ends with -ESTALE), both call at once (the call
 * of the higher id stands), the other side dies (FI_SHUTDOWN, an error of the
 * event queue, or failed receives, whichever comes first).
 */
#include "fabric/wire_ofi.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "shm/clock.h"
#include "shm/error.h"

#define CM_DATA_BYTES 256
#define CM_TEXT_BYTES 80
#define CM_PAGE_BYTES 4096
#define CM_CLOSING_READS (4 * WIRE_GATE_MAX)

/*
 * Addresses.
 */

static int address_port(const char *text, in_port_t *ret_port)
{
	unsigned long port = 0;
	const char *digit;

	for (digit = text; *digit >= '0' && *digit <= '9'; digit++) {
		port = port * 10 + (unsigned long)(*digit - '0');
		if (port > 65535)
			return -EINVAL;
	}
	if (digit == text || *digit != '\0')
		return -EINVAL;
	*ret_port = htons((uint16_t)port);
	return 0;
}

int wire_address_parse(const char *text, struct sockaddr_storage *ret_address,
		       socklen_t *ret_size)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	char host[CM_TEXT_BYTES];
	const char *colon;
	in_port_t port;
	size_t length;

	if (text == NULL || (colon = strrchr(text, ':')) == NULL ||
	    address_port(colon + 1, &port) != 0)
		return -EINVAL;
	length = (size_t)(colon - text);
	if (length >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, length);
	host[length] = '\0';
	memset(ret_address, 0, sizeof(*ret_address));
	if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
		v4.sin_port = port;
		memcpy(ret_address, &v4, sizeof(v4));
		*ret_size = sizeof(v4);
		return 0;
	}
	if (length < 2 || host[0] != '[' || host[length - 1] != ']')
		return -EINVAL;
	host[length - 1] = '\0';
	if (inet_pton(AF_INET6, host + 1, &v6.sin6_addr) != 1)
		return -EINVAL;
	v6.sin6_port = port;
	memcpy(ret_address, &v6, sizeof(v6));
	*ret_size = sizeof(v6);
	return 0;
}

void wire_address_format(const struct sockaddr *address, char *text,
			 size_t size)
{
	const struct sockaddr_in6 *v6 = (const void *)address;
	const struct sockaddr_in *v4 = (const void *)address;
	char host[INET6_ADDRSTRLEN] = "";

	if (address->sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(text, size, "[%s]:%u", host, ntohs(v6->sin6_port));
	} else {
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		snprintf(text, size, "%s:%u", host, ntohs(v4->sin_port));
	}
}

/*
 * The life of a link.
 */

static void link_free(struct wire_link *link)
{
	free(link->buffers);
	free(link);
}

/* The endpoint first: it holds the queue, and its end fills the queue. */
static void link_close(struct wire_link *link)
{
	struct petal_wire *wire = link->wire;

	if (link->ep != NULL)
		fi_close(&link->ep->fid);
	link->ep = NULL;
	if (link->cq != NULL) {
		epoll_ctl(wire->epoll_fd, EPOLL_CTL_DEL, link->cq_fd, NULL);
		fi_close(&link->cq->fid);
	}
	link->cq = NULL;
	if (link->buffers_mr != NULL)
		fi_close(&link->buffers_mr->fid);
	link->buffers_mr = NULL;
}

static int link_open_queue(struct wire_link *link)
{
	struct petal_wire *wire = link->wire;
	struct fi_cq_attr attr = {
		.size = 2 * (WIRE_BUFFERS + PETAL_WIRE_WRITES_MAX),
		.format = FI_CQ_FORMAT_DATA,
		.wait_obj = FI_WAIT_FD,
	};
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = link };
	int err = fi_cq_open(wire->domain, &attr, &link->cq, link);

	if (err != 0)
		return err;
	err = fi_control(&link->cq->fid, FI_GETWAIT, &link->cq_fd);
	if (err != 0)
		return err;
	if (epoll_ctl(wire->epoll_fd, EPOLL_CTL_ADD, link->cq_fd, &event) != 0)
		return -errno;
	return 0;
}

static int link_open_buffers(struct wire_link *link)
{
	struct petal_wire *wire = link->wire;
	size_t bytes = (size_t)WIRE_BUFFERS * PETAL_WIRE_MESSAGE_MAX;

	link->buffers = aligned_alloc(CM_PAGE_BYTES, bytes);
	if (link->buffers == NULL)
		return -ENOMEM;
	if ((wire->info->domain_attr->mr_mode & FI_MR_LOCAL) == 0)
		return 0;
	/* Send and receive only: nobody is ever given this key. */
	return fi_mr_reg(wire->domain, link->buffers, bytes, FI_SEND | FI_RECV,
			 0, wire_key_draw(wire), 0, &link->buffers_mr, NULL);
}

static int link_open_endpoint(struct wire_link *link, struct fi_info *info)
{
	struct petal_wire *wire = link->wire;
	int err = fi_endpoint(wire->domain, info, &link->ep, link);

	if (err == 0)
		err = fi_ep_bind(link->ep, &wire->eq->fid, 0);
	if (err == 0)
		err = fi_ep_bind(link->ep, &link->cq->fid,
				 FI_TRANSMIT | FI_RECV |
					 FI_SELECTIVE_COMPLETION);
	if (err == 0)
		err = fi_enable(link->ep);
	return err;
}

static void link_name_ops(struct wire_op *ops, unsigned count,
			  enum wire_op_kind kind)
{
	for (unsigned i = 0; i < count; i++) {
		ops[i].kind = kind;
		ops[i].index = i;
	}
}

/*
 * Receives are posted before the connection exists, so that the first message
 * finds them.
 */
static int link_open(struct petal_wire *wire, uint32_t peer,
		     enum wire_state state, struct fi_info *info,
		     struct wire_link **ret_link)
{
	struct wire_link *link;
	int err;

	if (wire->link_count == WIRE_LINKS_MAX + WIRE_CM_BATCH)
		return -ENOBUFS;
	link = calloc(1, sizeof(*link));
	if (link == NULL)
		return -ENOMEM;
	link->wire = wire;
	link->peer = peer;
	link->state = state;
	link->ours = state == WIRE_CALLING;
	link->deadline_ns = petal_clock_after_ns(petal_clock_now_ns(),
						 PETAL_WIRE_CONNECT_NS);
	link_name_ops(link->receives, WIRE_RECEIVES, WIRE_RECEIVE);
	link_name_ops(link->sends, PETAL_WIRE_SENDS_MAX, WIRE_SEND);
	link_name_ops(link->writes, PETAL_WIRE_WRITES_MAX, WIRE_WRITE);
	err = link_open_queue(link);
	if (err == 0)
		err = link_open_buffers(link);
	if (err == 0)
		err = link_open_endpoint(link, info);
	for (unsigned i = 0; err == 0 && i < WIRE_RECEIVES; i++) {
		wire_receive_post(link, i);
		err = link->state == WIRE_ENDING ? link->status : 0;
	}
	if (err != 0) {
		link_close(link);
		link_free(link);
		return err;
	}
	wire->links[wire->link_count++] = link;
	*ret_link = link;
	return 0;
}

void wire_link_end(struct wire_link *link, int status)
{
	if (link->state == WIRE_ENDING)
		return;
	/*
	 * What is under way is flushed into the link's queue now, where the
	 * next steps find what was completed and what was not.
	 */
	if (link->state == WIRE_UP)
		fi_shutdown(link->ep, 0);
	link->state = WIRE_ENDING;
	link->status = status;
}

void wire_link_retire(struct wire_link *link)
{
	struct petal_wire *wire = link->wire;

	if (wire->current[link->peer] == link)
		wire->current[link->peer] = NULL;
	if (wire->coming[link->peer] == link)
		wire->coming[link->peer] = NULL;
	for (unsigned i = 0; i < wire->link_count; i++) {
		if (wire->links[i] == link)
			wire->links[i] = NULL;
	}
	link_close(link);
	link->next_dead = wire->dead;
	wire->dead = link;
}

void wire_links_reap(struct petal_wire *wire)
{
	unsigned kept = 0;

	if (wire->dead == NULL)
		return;
	for (unsigned i = 0; i < wire->link_count; i++) {
		if (wire->links[i] != NULL)
			wire->links[kept++] = wire->links[i];
	}
	wire->link_count = kept;
	while (wire->dead != NULL) {
		struct wire_link *link = wire->dead;

		wire->dead = link->next_dead;
		link_free(link);
	}
}

/* Both sides have proved themselves; whoever was there before has to go. */
static void link_ready(struct wire_link *link)
{
	struct wire_link *older = link->wire->current[link->peer];

	link->state = WIRE_READY;
	if (older != NULL && older->state == WIRE_UP) {
		link->wire->counters.replaced++;
		wire_link_end(older, -ESTALE);
	}
}

/*
 * Called.
 */

/*
 * May this caller's link be the coming one? It takes over what the caller of
 * this wire was promised. Of two calls that cross, both sides keep that of the
 * higher id: it is the rule of this place, whoever looks at it.
 */
static int cm_make_way(struct petal_wire *wire, uint32_t peer,
		       bool *ret_announce)
{
	struct wire_link *coming = wire->coming[peer];

	if (coming != NULL && coming->ours && coming->state != WIRE_ENDING &&
	    wire->node > peer) {
		wire->counters.refused_crossing++;
		return -EALREADY;
	}
	*ret_announce = coming != NULL && coming->announce;
	if (coming != NULL)
		wire_link_retire(coming);
	return 0;
}

static int cm_answer(struct petal_wire *wire, uint32_t peer,
		     const uint8_t *token, struct fi_info *info)
{
	uint8_t answer[PETAL_SEAL_ANSWER_BYTES];
	struct wire_link *link;
	bool announce;
	int err = cm_make_way(wire, peer, &announce);

	if (err != 0)
		return err;
	err = link_open(wire, peer, WIRE_ANSWERING, info, &link);
	if (err != 0) {
		wire->counters.refused_resources++;
		return err;
	}
	link->announce = announce;
	wire->coming[peer] = link;
	petal_seal_answer_make(wire->key, wire->cluster, wire->node, token,
			       answer);
	err = fi_accept(link->ep, answer, sizeof(answer));
	if (err == 0) {
		wire->counters.admitted++;
		return 0;
	}
	wire->counters.refused_resources++;
	wire_link_retire(link);
	return err;
}

static int cm_judge_clock(struct petal_wire *wire, const uint8_t *token,
			  uint32_t peer, const struct petal_seal_now *now)
{
	struct petal_wire_counters *counters = &wire->counters;

	counters->refused_clock++;
	counters->clock_peer = peer;
	counters->clock_ahead_ns =
		(int64_t)(petal_seal_token_time_ns(token) - now->realtime_ns);
	return -PETAL_EAUTH;
}

static int cm_judge(struct petal_wire *wire, const uint8_t *data, size_t size,
		    uint32_t *ret_peer)
{
	struct petal_seal_now now = petal_seal_clock_now(
		&wire->clock, petal_clock_realtime_ns(), petal_clock_now_ns());
	uint32_t peer;
	int err = -PETAL_EAUTH;

	if (size >= PETAL_SEAL_TOKEN_BYTES)
		err = petal_seal_token_check(wire->key, wire->cluster,
					     wire->node, data, &now,
					     &wire->replay, &peer);
	if ((err == 0 || err == -ETIME) && peer >= PETAL_WIRE_PEER_MAX)
		err = -PETAL_EAUTH;
	if (err == -ETIME)
		return cm_judge_clock(wire, data, peer, &now);
	if (err == -PETAL_EAUTH)
		wire->counters.refused_token++;
	else if (err != 0)
		wire->counters.refused_resources++;
	if (err == 0)
		*ret_peer = peer;
	return err;
}

/*
 * fi_reject() would send an answer, and a stranger shall not learn even that
 * somebody is here; so the connection is cut first. The handle is libfabric's
 * to free, by fi_reject(), in every case but a good fi_accept().
 */
static void cm_request(struct petal_wire *wire, struct fi_info *info,
		       const uint8_t *data, size_t size)
{
	fid_t handle = info->handle;
	uint32_t peer = 0;
	int err = wire->closing ? -ECANCELED
				: cm_judge(wire, data, size, &peer);

	if (err != 0 && info->dest_addr != NULL)
		wire_gate_cut(&wire->gate, info->dest_addr);
	if (err == 0)
		err = cm_answer(wire, peer, data, info);
	if (err != 0)
		fi_reject(wire->pep, handle, NULL, 0);
	fi_freeinfo(info);
}

/*
 * Events.
 */

/* By address, without a look at what it points to: it may be gone. */
static struct wire_link *cm_find(const struct petal_wire *wire, fid_t fid)
{
	for (unsigned i = 0; i < wire->link_count; i++) {
		struct wire_link *link = wire->links[i];

		if (link != NULL && link->ep != NULL && &link->ep->fid == fid)
			return link;
	}
	return NULL;
}

/*
 * The tcp provider takes errno as the reason even where the other side has
 * just closed, so what it says of a call that got no answer is worth little.
 */
static int cm_status(const struct wire_link *link, int err)
{
	if (link->state == WIRE_UP || link->state == WIRE_READY)
		return -ECONNRESET;
	if (err == ETIMEDOUT || err == EHOSTUNREACH || err == ENETUNREACH ||
	    err == ENOMEM || err == EADDRNOTAVAIL)
		return -err;
	return -ECONNREFUSED;
}

static void cm_connected(struct wire_link *link, const uint8_t *data,
			 size_t size)
{
	struct petal_wire *wire = link->wire;
	int err = 0;

	if (link->state == WIRE_CALLING)
		err = size < PETAL_SEAL_ANSWER_BYTES
			      ? -PETAL_EAUTH
			      : petal_seal_answer_check(wire->key,
							wire->cluster,
							link->peer, link->token,
							data);
	else if (link->state != WIRE_ANSWERING)
		return;
	if (err != 0)
		wire_link_end(link, err);
	else
		link_ready(link);
}

static void cm_event(struct petal_wire *wire, uint32_t type,
		     const struct fi_eq_cm_entry *entry, size_t bytes)
{
	size_t size = bytes - sizeof(*entry);
	struct wire_link *link;

	if (type == FI_CONNREQ) {
		cm_request(wire, entry->info, entry->data, size);
		return;
	}
	link = cm_find(wire, entry->fid);
	if (link == NULL)
		wire->counters.stray++;
	else if (type == FI_CONNECTED)
		cm_connected(link, entry->data, size);
	else if (type == FI_SHUTDOWN)
		wire_link_end(link, cm_status(link, ECONNRESET));
}

static void cm_error(struct petal_wire *wire)
{
	struct fi_eq_err_entry entry = { 0 };
	struct wire_link *link = NULL;

	if (fi_eq_readerr(wire->eq, &entry, 0) > 0)
		link = cm_find(wire, entry.fid);
	if (link == NULL)
		wire->counters.stray++;
	else
		wire_link_end(link, cm_status(link, entry.err));
}

/*
 * Before each call that lets the provider look at connections, and that is
 * fi_trywait() as well as fi_eq_read(). The provider takes errno as the reason
 * after a connection was closed, which sets none: an EAGAIN left over there
 * would make it wait for ever.
 */
static bool cm_guard(struct petal_wire *wire, uint64_t now_ns)
{
	if (wire_gate_sweep(&wire->gate, now_ns) != 0) {
		wire->counters.stray++;
		return false;
	}
	errno = 0;
	return true;
}

/* One event, if there is one. */
static bool cm_read(struct petal_wire *wire, uint64_t now_ns)
{
	union {
		struct fi_eq_cm_entry entry;
		uint8_t bytes[sizeof(struct fi_eq_cm_entry) + CM_DATA_BYTES];
	} event;
	uint32_t type;
	ssize_t got;

	if (!cm_guard(wire, now_ns))
		return false;
	got = fi_eq_read(wire->eq, &type, &event, sizeof(event), 0);
	if (got == -FI_EAVAIL)
		cm_error(wire);
	else if (got >= (ssize_t)sizeof(event.entry))
		cm_event(wire, type, &event.entry, (size_t)got);
	else
		return false;
	return true;
}

static bool cm_readable(const struct petal_wire *wire)
{
	struct pollfd waiting = { .fd = wire->eq_fd, .events = POLLIN };

	return poll(&waiting, 1, 0) == 1;
}

static void cm_expire(struct petal_wire *wire, uint64_t now_ns)
{
	for (unsigned i = 0; i < wire->link_count; i++) {
		struct wire_link *link = wire->links[i];

		if (link != NULL && link->deadline_ns <= now_ns &&
		    (link->state == WIRE_CALLING ||
		     link->state == WIRE_ANSWERING))
			wire_link_end(link, -ETIMEDOUT);
	}
}

/*
 * The descriptor alone does not say whether there is more: it stays readable
 * for events that were read long ago, until fi_trywait(). So that comes first,
 * and what is readable then is a connection that waits to be accepted, or to
 * be read from.
 */
bool wire_cm_more(struct petal_wire *wire, uint64_t now_ns)
{
	struct fid *fid = &wire->eq->fid;

	if (wire->eq_hot)
		return true;
	if (!cm_readable(wire) || !cm_guard(wire, now_ns))
		return false;
	/* This has taken the wake-up away, so it must not be forgotten. */
	wire->eq_hot = fi_trywait(wire->fabric, &fid, 1) == -FI_EAGAIN;
	return wire->eq_hot || cm_readable(wire);
}

void wire_cm_step(struct petal_wire *wire, uint64_t now_ns)
{
	unsigned reads = 0;

	cm_expire(wire, now_ns);
	if (now_ns >= wire_gate_deadline_ns(&wire->gate))
		wire->eq_hot = true;
	while (reads++ < WIRE_CM_BATCH && wire_cm_more(wire, now_ns))
		wire->eq_hot = cm_read(wire, now_ns);
	wire->counters.halfopen_expired = wire->gate.expired;
	wire->counters.halfopen_evicted = wire->gate.evicted;
}

/*
 * Bounded, though a flood goes on meanwhile: what is left then is what the
 * provider has accepted in the very last step.
 */
void wire_cm_close(struct petal_wire *wire)
{
	uint64_t now_ns = petal_clock_now_ns();

	wire->closing = true;
	for (unsigned i = 0; i < CM_CLOSING_READS; i++) {
		if (wire_gate_sweep(&wire->gate, now_ns) != 0)
			break;
		wire_gate_cut_all(&wire->gate);
		if (!wire_cm_more(wire, now_ns))
			break;
		wire->eq_hot = cm_read(wire, now_ns);
	}
}

uint64_t wire_cm_deadline_ns(const struct petal_wire *wire)
{
	uint64_t deadline_ns = wire_gate_deadline_ns(&wire->gate);

	for (unsigned i = 0; i < wire->link_count; i++) {
		const struct wire_link *link = wire->links[i];

		if (link != NULL && link->deadline_ns < deadline_ns &&
		    (link->state == WIRE_CALLING ||
		     link->state == WIRE_ANSWERING))
			deadline_ns = link->deadline_ns;
	}
	return deadline_ns;
}

/*
 * Calling.
 */

/*
 * The listener's info, pointed at the peer. Our own address is left out, or
 * the call would be bound to the listening port.
 */
static struct fi_info *cm_call_info(const struct petal_wire *wire,
				    const struct sockaddr_storage *address,
				    socklen_t size)
{
	struct fi_info *info = fi_dupinfo(wire->info);

	if (info == NULL)
		return NULL;
	free(info->src_addr);
	info->src_addr = NULL;
	info->src_addrlen = 0;
	free(info->dest_addr);
	info->dest_addrlen = 0;
	info->dest_addr = malloc(size);
	if (info->dest_addr == NULL) {
		fi_freeinfo(info);
		return NULL;
	}
	memcpy(info->dest_addr, address, size);
	info->dest_addrlen = size;
	info->addr_format = address->ss_family == AF_INET6 ? FI_SOCKADDR_IN6
							   : FI_SOCKADDR_IN;
	info->handle = NULL;
	return info;
}

static int cm_call(struct petal_wire *wire, uint32_t peer, struct fi_info *info)
{
	struct wire_link *link;
	int err = link_open(wire, peer, WIRE_CALLING, info, &link);

	if (err != 0)
		return err;
	wire->coming[peer] = link;
	petal_seal_token_make(wire->key, wire->cluster, wire->node, peer,
			      petal_seal_clock_call(&wire->clock,
						    petal_clock_realtime_ns(),
						    petal_clock_now_ns()),
			      link->token);
	err = fi_connect(link->ep, info->dest_addr, link->token,
			 sizeof(link->token));
	link->announce = true;
	/* What is known at once is reported like what is known later. */
	if (err != 0)
		wire_link_end(link, cm_status(link, -err));
	return 0;
}

int petal_wire_connect(struct petal_wire *wire, uint32_t peer,
		       const char *address)
{
	struct sockaddr_storage where;
	struct fi_info *info;
	socklen_t size;
	int err;

	if (peer >= PETAL_WIRE_PEER_MAX || peer == wire->node ||
	    wire_address_parse(address, &where, &size) != 0)
		return -EINVAL;
	if (wire->current[peer] != NULL)
		return -EISCONN;
	if (wire->coming[peer] != NULL && wire->coming[peer]->announce)
		return -EALREADY;
	/* The peer is calling us: its call will do for ours. */
	if (wire->coming[peer] != NULL &&
	    wire->coming[peer]->state != WIRE_ENDING) {
		wire->coming[peer]->announce = true;
		return 0;
	}
	info = cm_call_info(wire, &where, size);
	if (info == NULL)
		return -ENOMEM;
	err = cm_call(wire, peer, info);
	fi_freeinfo(info);
	return err;
}

int petal_wire_drop(struct petal_wire *wire, uint32_t peer)
{
	if (peer >= PETAL_WIRE_PEER_MAX ||
	    (wire->current[peer] == NULL && wire->coming[peer] == NULL))
		return -ENOTCONN;
	if (wire->coming[peer] != NULL)
		wire_link_end(wire->coming[peer], -ECANCELED);
	if (wire->current[peer] != NULL)
		wire_link_end(wire->current[peer], -ECANCELED);
	return 0;
}
