/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Happy path of a dialler: connect, send the hello, read the answer, hand the
 * stream to C-Raft. Of an acceptor: accept, read the hello, check it, send the
 * answer, hand the stream to C-Raft.
 *
 * Failure modes, all of which end in link_fail(): no connection, a broken one,
 * a bad hello or answer, no time left, evicted, the transport closes. The
 * stream is closed, and only when libuv has let go of it is the link freed
 * and, for a dialler, C-Raft told. C-Raft requires RAFT_CANCELED of every dial
 * that is not over when the transport closes, even of one that had failed
 * already but was not reported yet: any other answer makes it dial again.
 *
 * Streams are allocated by raft_malloc(), as C-Raft frees those it is given.
 */
#include "fabric/registry_transport.h"

#include <arpa/inet.h>
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <sodium.h>

#include "shm/clock.h"
#include "shm/error.h"

#define HELLO_MAGIC UINT32_C(0x01685250) /* "PRh\1" */
#define HELLO_VERSION 1
#define SWEEP_MS 250
#define KEEPALIVE_S 10
#define UNACKED_MS 5000
#define BACKLOG 64

struct hello {
	uint32_t magic;
	uint32_t version;
	uint32_t from;
	uint32_t to;
	uint8_t token[PETAL_SEAL_TOKEN_BYTES];
	char address[PETAL_REGISTRY_HELLO_ADDRESS_BYTES];
	uint8_t zero[16];
};

static_assert(sizeof(struct hello) == PETAL_REGISTRY_HELLO_BYTES,
	      "a hello has no padding");
static_assert(offsetof(struct hello, token) == 16, "drawn in the doc");
static_assert(offsetof(struct hello, address) == 64, "drawn in the doc");

/* A connection that C-Raft does not have yet. */
struct petal_registry_link {
	struct petal_registry_transport *transport;
	struct petal_registry_link *next;
	uv_tcp_t *tcp;
	struct raft_uv_connect *dial; /* NULL if it was accepted. */
	uv_connect_t connect;
	uint64_t deadline_ms;
	uint32_t peer;
	uint32_t want; /* Bytes to read in all: a hello or an answer. */
	uint32_t got;
	bool closing;
	union {
		struct hello hello;
		uint8_t answer[PETAL_SEAL_ANSWER_BYTES];
		uint8_t bytes[PETAL_REGISTRY_HELLO_BYTES];
	} in;
	uint8_t token[PETAL_SEAL_TOKEN_BYTES]; /* Of a dialler's own hello. */
};

static void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* Split "host:port" or "[host]:port" into the two; the port in 1..65535. */
static int address_split(const char *address, char *host, size_t host_bytes,
			 uint16_t *ret_port)
{
	const char *colon = strrchr(address, ':');
	size_t length;
	char *end;
	long port;

	if (colon == NULL || colon[1] < '0' || colon[1] > '9')
		return -EINVAL;
	errno = 0;
	port = strtol(colon + 1, &end, 10);
	if (*end != '\0' || errno != 0 || port < 1 || port > 65535)
		return -EINVAL;
	length = (size_t)(colon - address);
	if (length > 2 && address[0] == '[' && address[length - 1] == ']') {
		address++;
		length -= 2;
	}
	if (length == 0 || length >= host_bytes)
		return -EINVAL;
	memcpy(host, address, length);
	host[length] = '\0';
	*ret_port = (uint16_t)port;
	return 0;
}

static int address_parse(const char *address,
			 struct sockaddr_storage *ret_storage)
{
	struct sockaddr_storage storage = { 0 };
	struct sockaddr_in *in4 = (void *)&storage;
	struct sockaddr_in6 *in6 = (void *)&storage;
	char host[INET6_ADDRSTRLEN];
	uint16_t port;

	if (address_split(address, host, sizeof(host), &port) < 0)
		return -EINVAL;
	if (address[0] == '[') {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
			return -EINVAL;
	} else {
		in4->sin_family = AF_INET;
		in4->sin_port = htons(port);
		if (inet_pton(AF_INET, host, &in4->sin_addr) != 1)
			return -EINVAL;
	}
	*ret_storage = storage;
	return 0;
}

int petal_registry_address_check(const char *address)
{
	struct sockaddr_storage storage;

	if (strnlen(address, PETAL_REGISTRY_HELLO_ADDRESS_BYTES) ==
	    PETAL_REGISTRY_HELLO_ADDRESS_BYTES)
		return -EINVAL;
	return address_parse(address, &storage);
}

static const struct petal_registry_voter *
voter_find(const struct petal_registry_transport *transport, uint32_t node)
{
	for (unsigned i = 0; i < transport->voter_count; i++)
		if (transport->voters[i].node == node)
			return &transport->voters[i];
	return NULL;
}

static void maybe_closed(struct petal_registry_transport *transport)
{
	raft_uv_transport_close_cb cb = transport->close_cb;

	if (!transport->closing || transport->handles > 0 ||
	    transport->links != NULL)
		return;
	transport->close_cb = NULL;
	if (cb != NULL)
		cb(&transport->base);
}

static void link_remove(struct petal_registry_link *link)
{
	struct petal_registry_transport *transport = link->transport;
	struct petal_registry_link **at = &transport->links;

	while (*at != link)
		at = &(*at)->next;
	*at = link->next;
	if (transport->links == NULL && !transport->closing)
		uv_timer_stop(&transport->sweep);
}

static void link_closed(uv_handle_t *handle)
{
	struct petal_registry_link *link = handle->data;
	struct petal_registry_transport *transport = link->transport;

	link_remove(link);
	if (link->dial != NULL)
		link->dial->cb(link->dial, NULL,
			       transport->closing ? RAFT_CANCELED
						  : RAFT_NOCONNECTION);
	raft_free(link->tcp);
	free(link);
	maybe_closed(transport);
}

/* Give a connection up; @reason is the counter of why, or NULL. */
static void link_fail(struct petal_registry_link *link,
		      _Atomic uint64_t *reason)
{
	if (link->closing)
		return;
	link->closing = true;
	if (reason != NULL)
		count(reason);
	uv_close((uv_handle_t *)link->tcp, link_closed);
}

static void sweep_cb(uv_timer_t *timer)
{
	struct petal_registry_transport *transport = timer->data;
	uint64_t now_ms = uv_now(transport->loop);

	for (struct petal_registry_link *link = transport->links; link != NULL;
	     link = link->next)
		if (now_ms >= link->deadline_ms)
			link_fail(link, &transport->counters.timed_out);
}

/* Room for one more accepted connection. Closing ones are on their way out. */
static void evict_oldest(struct petal_registry_transport *transport)
{
	struct petal_registry_link *oldest = NULL;
	unsigned open = 0;

	for (struct petal_registry_link *link = transport->links; link != NULL;
	     link = link->next) {
		if (link->dial != NULL || link->closing)
			continue;
		if (oldest == NULL)
			oldest = link;
		open++;
	}
	if (open >= PETAL_REGISTRY_HALF_OPEN_MAX)
		link_fail(oldest, &transport->counters.evicted);
}

static struct petal_registry_link *
link_new(struct petal_registry_transport *transport,
	 struct raft_uv_connect *dial)
{
	struct petal_registry_link *link = calloc(1, sizeof(*link));
	struct petal_registry_link **at = &transport->links;

	if (link == NULL)
		return NULL;
	link->tcp = raft_malloc(sizeof(*link->tcp));
	if (link->tcp == NULL || uv_tcp_init(transport->loop, link->tcp) != 0) {
		raft_free(link->tcp);
		free(link);
		return NULL;
	}
	link->tcp->data = link;
	link->connect.data = link;
	link->transport = transport;
	link->dial = dial;
	link->deadline_ms = uv_now(transport->loop) + PETAL_REGISTRY_HELLO_MS;
	if (transport->links == NULL)
		uv_timer_start(&transport->sweep, sweep_cb, SWEEP_MS, SWEEP_MS);
	while (*at != NULL)
		at = &(*at)->next;
	*at = link;
	return link;
}

/* So that a vanished peer is noticed: C-Raft itself never asks. */
static void link_tune(struct petal_registry_link *link)
{
	unsigned unacked_ms = UNACKED_MS;
	uv_os_fd_t fd;

	uv_tcp_nodelay(link->tcp, 1);
	uv_tcp_keepalive(link->tcp, 1, KEEPALIVE_S);
	if (uv_fileno((uv_handle_t *)link->tcp, &fd) == 0)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms,
				 sizeof(unacked_ms));
}

static bool link_write(struct petal_registry_link *link, void *bytes,
		       unsigned length)
{
	uv_buf_t buf = uv_buf_init(bytes, length);

	/* The send buffer of a new connection holds this many times over. */
	return uv_try_write((uv_stream_t *)link->tcp, &buf, 1) == (int)length;
}

/* Both sides have proved themselves: the stream is C-Raft's from here. */
static void link_hand_over(struct petal_registry_link *link)
{
	struct petal_registry_transport *transport = link->transport;
	uv_stream_t *stream = (uv_stream_t *)link->tcp;

	uv_read_stop(stream);
	link_remove(link);
	if (link->dial != NULL) {
		count(&transport->counters.dialled);
		link->dial->cb(link->dial, stream, 0);
	} else {
		count(&transport->counters.accepted);
		transport->accept_cb(&transport->base, link->peer,
				     voter_find(transport, link->peer)->address,
				     stream);
	}
	free(link);
}

static bool hello_check(struct petal_registry_transport *transport,
			const struct hello *hello)
{
	static const uint8_t zero[sizeof(hello->zero)];
	struct petal_seal_now now = petal_seal_clock_now(
		&transport->clock, petal_clock_realtime_ns(),
		petal_clock_now_ns());
	const struct petal_registry_voter *voter;
	uint32_t from;

	if (le32toh(hello->magic) != HELLO_MAGIC ||
	    le32toh(hello->version) != HELLO_VERSION ||
	    le32toh(hello->to) != transport->node)
		return false;
	if (petal_seal_token_check(transport->key, transport->cluster,
				   transport->node, hello->token, &now,
				   &transport->replay, &from) != 0)
		return false;
	voter = voter_find(transport, from);
	return voter != NULL && from != transport->node &&
	       from == le32toh(hello->from) &&
	       memchr(hello->address, 0, sizeof(hello->address)) != NULL &&
	       strcmp(hello->address, voter->address) == 0 &&
	       memcmp(hello->zero, zero, sizeof(zero)) == 0;
}

static void hello_received(struct petal_registry_link *link)
{
	struct petal_registry_transport *transport = link->transport;
	uint8_t answer[PETAL_SEAL_ANSWER_BYTES];

	if (!hello_check(transport, &link->in.hello)) {
		link_fail(link, &transport->counters.refused);
		return;
	}
	link->peer = le32toh(link->in.hello.from);
	petal_seal_answer_make(transport->key, transport->cluster,
			       transport->node, link->in.hello.token, answer);
	if (!link_write(link, answer, sizeof(answer))) {
		link_fail(link, &transport->counters.refused);
		return;
	}
	link_hand_over(link);
}

static void answer_received(struct petal_registry_link *link)
{
	struct petal_registry_transport *transport = link->transport;

	if (petal_seal_answer_check(transport->key, transport->cluster,
				    link->peer, link->token,
				    link->in.answer) != 0)
		link_fail(link, &transport->counters.dial_refused);
	else
		link_hand_over(link);
}

/* Offer exactly what is missing: later bytes are for C-Raft to read. */
static void alloc_cb(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct petal_registry_link *link = handle->data;

	(void)suggested;
	*buf = uv_buf_init((char *)link->in.bytes + link->got,
			   link->want - link->got);
}

static void read_cb(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf)
{
	struct petal_registry_link *link = stream->data;
	struct petal_registry_transport *transport = link->transport;

	(void)buf;
	if (got == 0)
		return;
	if (got < 0) {
		link_fail(link, link->dial ? &transport->counters.dial_failed
					   : &transport->counters.refused);
		return;
	}
	link->got += (uint32_t)got;
	if (link->got < link->want)
		return;
	if (link->dial != NULL)
		answer_received(link);
	else
		hello_received(link);
}

static int link_read(struct petal_registry_link *link, uint32_t want)
{
	link->want = want;
	return uv_read_start((uv_stream_t *)link->tcp, alloc_cb, read_cb);
}

static void listen_cb(uv_stream_t *listener, int status)
{
	struct petal_registry_transport *transport = listener->data;
	struct petal_registry_link *link;

	if (status != 0 || transport->closing)
		return;
	evict_oldest(transport);
	link = link_new(transport, NULL);
	if (link == NULL)
		return;
	if (uv_accept(listener, (uv_stream_t *)link->tcp) != 0) {
		link_fail(link, &transport->counters.refused);
		return;
	}
	link_tune(link);
	if (link_read(link, PETAL_REGISTRY_HELLO_BYTES) != 0)
		link_fail(link, &transport->counters.refused);
}

static bool hello_send(struct petal_registry_link *link)
{
	struct petal_registry_transport *transport = link->transport;
	struct hello hello = {
		.magic = htole32(HELLO_MAGIC),
		.version = htole32(HELLO_VERSION),
		.from = htole32(transport->node),
		.to = htole32(link->peer),
	};
	const char *address = voter_find(transport, transport->node)->address;

	memcpy(hello.address, address, strlen(address));
	petal_seal_token_make(transport->key, transport->cluster,
			      transport->node, link->peer,
			      petal_seal_clock_call(&transport->clock,
						    petal_clock_realtime_ns(),
						    petal_clock_now_ns()),
			      hello.token);
	memcpy(link->token, hello.token, sizeof(link->token));
	return link_write(link, &hello, sizeof(hello));
}

static void connect_cb(uv_connect_t *connect, int status)
{
	struct petal_registry_link *link = connect->data;
	struct petal_registry_transport *transport = link->transport;

	if (link->closing)
		return;
	if (status == 0)
		link_tune(link);
	if (status != 0 || !hello_send(link) ||
	    link_read(link, PETAL_SEAL_ANSWER_BYTES) != 0)
		link_fail(link, &transport->counters.dial_failed);
}

/* The rest is what struct raft_uv_transport asks for. */

static int transport_init(struct raft_uv_transport *base, raft_id id,
			  const char *address)
{
	(void)base;
	(void)id;
	(void)address;
	return 0;
}

static int transport_listen(struct raft_uv_transport *base,
			    raft_uv_accept_cb cb)
{
	struct petal_registry_transport *transport = base->impl;
	struct sockaddr_storage storage;
	int err;

	transport->accept_cb = cb;
	err = address_parse(voter_find(transport, transport->node)->address,
			    &storage);
	if (err == 0)
		err = uv_tcp_bind(&transport->listener,
				  (struct sockaddr *)&storage, 0);
	if (err == 0)
		err = uv_listen((uv_stream_t *)&transport->listener, BACKLOG,
				listen_cb);
	transport->error = err; /* libuv's numbers are -errno. */
	return err == 0 ? 0 : RAFT_IOERR;
}

static int transport_connect(struct raft_uv_transport *base,
			     struct raft_uv_connect *req, raft_id id,
			     const char *address, raft_uv_connect_cb cb)
{
	struct petal_registry_transport *transport = base->impl;
	struct petal_registry_link *link;
	struct sockaddr_storage storage;

	if (transport->closing)
		return RAFT_CANCELED;
	if (address_parse(address, &storage) < 0)
		return RAFT_INVALID;
	link = link_new(transport, req);
	if (link == NULL)
		return RAFT_NOMEM;
	req->cb = cb;
	link->peer = (uint32_t)id;
	/* From here on failures are reported by the callback, not by us. */
	if (uv_tcp_connect(&link->connect, link->tcp,
			   (struct sockaddr *)&storage, connect_cb) != 0)
		link_fail(link, &transport->counters.dial_failed);
	return 0;
}

static void handle_closed(uv_handle_t *handle)
{
	struct petal_registry_transport *transport = handle->data;

	transport->handles--;
	maybe_closed(transport);
}

static void transport_close(struct raft_uv_transport *base,
			    raft_uv_transport_close_cb cb)
{
	struct petal_registry_transport *transport = base->impl;

	transport->closing = true;
	transport->close_cb = cb;
	uv_close((uv_handle_t *)&transport->listener, handle_closed);
	uv_close((uv_handle_t *)&transport->sweep, handle_closed);
	for (struct petal_registry_link *link = transport->links; link != NULL;
	     link = link->next)
		link_fail(link, NULL);
	sodium_memzero(transport->key, sizeof(transport->key));
}

void petal_registry_transport_init(struct petal_registry_transport *transport,
				   uv_loop_t *loop,
				   const struct petal_registry_options *options)
{
	transport->base.impl = transport;
	transport->base.init = transport_init;
	transport->base.listen = transport_listen;
	transport->base.connect = transport_connect;
	transport->base.close = transport_close;
	transport->loop = loop;
	transport->node = options->node;
	petal_seal_clock_open(&transport->clock, petal_clock_realtime_ns(),
			      petal_clock_now_ns());
	transport->voter_count = options->voter_count;
	memcpy(transport->voters, options->voters,
	       options->voter_count * sizeof(transport->voters[0]));
	memcpy(transport->cluster, options->cluster,
	       sizeof(transport->cluster));
	petal_seal_key_derive(options->key, "registry", transport->key);

	/* Neither can fail: no socket is made before the address is known. */
	uv_tcp_init(loop, &transport->listener);
	uv_timer_init(loop, &transport->sweep);
	transport->listener.data = transport;
	transport->sweep.data = transport;
	transport->handles = 2;
}

void petal_registry_transport_fini(struct petal_registry_transport *transport)
{
	if (!transport->closing)
		transport_close(&transport->base, NULL);
}
