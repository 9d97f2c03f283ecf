/* SPDX-License-Identifier: Apache-2.0 */
/*
 * etcd: three members, each of which syncs its log before it votes; Put calls
 * to the leader, on one connection, as many at a time as the window holds.
 *
 * gRPC is spoken here as far as that needs: one HTTP/2 stream a call, headers
 * that no table remembers, bodies of two fields. A stream that ends after a
 * body was answered; one that ends without has failed. Calls that are under
 * way together end in any order, and are counted in that of their ends.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/payload.h"
#include "bench/replicate.h"
#include "bench/talk.h"
#include "shm/clock.h"
#include "shm/error.h"

#define NODES 3u
#define KEYS 4096u
#define KEY_BYTES 4u
#define FRAME_BYTES 9u
#define PREFIX_BYTES 5u

/* Of HTTP/2: RFC 9113. */
enum {
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_RST_STREAM = 3,
	FRAME_SETTINGS = 4,
	FRAME_PING = 6,
	FRAME_GOAWAY = 7,
	FRAME_WINDOW_UPDATE = 8,
};
#define FLAG_ACK 1u
#define FLAG_END_STREAM 1u
#define FLAG_END_HEADERS 4u
#define WINDOW_FIRST 65535

static struct etcd {
	uint16_t ports[2 * NODES];
	unsigned leader;
	struct petal_talk talk;
	uint8_t headers[128];
	size_t headers_bytes;
	uint32_t stream;
	int64_t window; /* bytes that the server will take now */
	bool body[2 * REPLICATE_WINDOW_MAX];
	unsigned done;
	uint64_t bytes;
	uint8_t *call;
} etcd;

/* Frames. */

static void put_u32(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static uint32_t get_u32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 |
	       (uint32_t)at[2] << 8 | at[3];
}

static int put_frame(uint8_t type, uint8_t flags, uint32_t stream,
		     const void *bytes, size_t length)
{
	uint8_t head[FRAME_BYTES];
	int err;

	put_u32(head, (uint32_t)length << 8 | type);
	head[4] = flags;
	put_u32(head + 5, stream);
	err = petal_talk_put(&etcd.talk, head, sizeof(head));
	return err == 0 ? petal_talk_put(&etcd.talk, bytes, length) : err;
}

static int take_frame(uint8_t type, uint8_t flags, uint32_t stream,
		      const uint8_t *bytes, size_t length)
{
	bool *body = &etcd.body[stream / 2 % (2 * REPLICATE_WINDOW_MAX)];

	if (type == FRAME_DATA)
		*body = true;
	if (type == FRAME_WINDOW_UPDATE && stream == 0 && length == 4)
		etcd.window += get_u32(bytes);
	if (type == FRAME_RST_STREAM || type == FRAME_GOAWAY)
		return -ECONNRESET;
	if (type == FRAME_SETTINGS && !(flags & FLAG_ACK))
		return put_frame(FRAME_SETTINGS, FLAG_ACK, 0, NULL, 0);
	if (type == FRAME_PING && !(flags & FLAG_ACK))
		return put_frame(FRAME_PING, FLAG_ACK, 0, bytes, length);
	if (type != FRAME_HEADERS || !(flags & FLAG_END_STREAM))
		return 0;
	if (!*body)
		return -EREMOTEIO;
	*body = false;
	etcd.done++;
	return 0;
}

/* Waits for one frame. */
static int read_frame(void)
{
	uint8_t *bytes, type, flags;
	size_t length;
	uint32_t stream;
	int err = petal_talk_need(&etcd.talk, FRAME_BYTES, &bytes);

	if (err < 0)
		return err;
	length = get_u32(bytes) >> 8;
	type = bytes[3];
	flags = bytes[4];
	stream = get_u32(bytes + 5) & INT32_MAX;
	err = petal_talk_need(&etcd.talk, FRAME_BYTES + length, &bytes);
	if (err < 0)
		return err;
	petal_talk_skip(&etcd.talk, FRAME_BYTES + length);
	err = take_frame(type, flags, stream, bytes + FRAME_BYTES, length);
	/* What it was answered goes out with the next calls, or now. */
	if (err == 0 && petal_talk_ready(&etcd.talk) == 0)
		err = petal_talk_flush(&etcd.talk);
	return err;
}

/* A name of the static table with a value of ours, to be remembered nowhere. */
static void add_header(unsigned index, const char *value)
{
	uint8_t *at = etcd.headers + etcd.headers_bytes;
	size_t length = strlen(value);

	if (index < 15) {
		*at++ = (uint8_t)index;
	} else {
		*at++ = 15;
		*at++ = (uint8_t)(index - 15);
	}
	*at++ = (uint8_t)length;
	memcpy(at, value, length);
	etcd.headers_bytes = (size_t)(at - etcd.headers) + length;
}

static void write_headers(uint16_t port)
{
	static const uint8_t trailers[] = "\0\2te\10trailers";
	char authority[32];

	snprintf(authority, sizeof(authority), "127.0.0.1:%u", port);
	etcd.headers[0] = 0x83; /* :method POST */
	etcd.headers[1] = 0x86; /* :scheme http */
	etcd.headers_bytes = 2;
	add_header(4, "/etcdserverpb.KV/Put"); /* :path */
	add_header(1, authority);              /* :authority */
	add_header(31, "application/grpc");    /* content-type */
	memcpy(etcd.headers + etcd.headers_bytes, trailers,
	       sizeof(trailers) - 1);
	etcd.headers_bytes += sizeof(trailers) - 1;
}

static int greet(uint16_t port)
{
	/* No table for headers; streams and the connection may send a lot. */
	static const uint8_t settings[] = { 0, 1, 0,    0, 0, 0,
					    0, 4, 0x3f, 0, 0, 0 };
	static const uint8_t more[] = { 0x3f, 0, 0, 0 };
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	int err = petal_talk_open(&etcd.talk, port, 1);

	write_headers(port);
	etcd.window = WINDOW_FIRST;
	etcd.stream = 1;
	if (err == 0)
		err = petal_talk_put(&etcd.talk, preface, sizeof(preface) - 1);
	if (err == 0)
		err = put_frame(FRAME_SETTINGS, 0, 0, settings,
				sizeof(settings));
	if (err == 0)
		err = put_frame(FRAME_WINDOW_UPDATE, 0, 0, more, sizeof(more));
	return err == 0 ? petal_talk_flush(&etcd.talk) : err;
}

/* The members. */

static int start_node(struct petal_nest *nest, const char *program, unsigned n)
{
	char name[16], dir[PETAL_NEST_PATH], client[48], peer[48], all[256];
	const char *argv[] = { program, "--name",
			       name,    "--data-dir",
			       dir,     "--listen-client-urls",
			       client,  "--advertise-client-urls",
			       client,  "--listen-peer-urls",
			       peer,    "--initial-advertise-peer-urls",
			       peer,    "--initial-cluster",
			       all,     "--initial-cluster-state",
			       "new",   "--log-level",
			       "error", NULL };
	int used = 0;

	for (unsigned i = 0; i < NODES; i++)
		used += snprintf(all + used, sizeof(all) - (size_t)used,
				 "%setcd-%u=http://127.0.0.1:%u", i ? "," : "",
				 i, etcd.ports[2 * i + 1]);
	snprintf(name, sizeof(name), "etcd-%u", n);
	petal_nest_path(nest, name, dir);
	snprintf(client, sizeof(client), "http://127.0.0.1:%u",
		 etcd.ports[2 * n]);
	snprintf(peer, sizeof(peer), "http://127.0.0.1:%u",
		 etcd.ports[2 * n + 1]);
	return petal_nest_start(nest, name, argv, NULL);
}

/* 1: it leads; 0: not, or not yet. */
static int ask_leads(struct replicate_system *system, uint16_t port)
{
	static const char leads[] = "etcd_server_is_leader 1";
	static const char version[] = "etcd_server_version{server_version=\"";
	struct petal_talk talk;
	char *line;
	int found = 0;
	int err = petal_talk_open(&talk, port, 1);

	if (err == 0)
		err = petal_talk_print(&talk, "GET /metrics HTTP/1.0\r\n\r\n");
	if (err == 0)
		err = petal_talk_flush(&talk);
	while (err == 0 && petal_talk_line(&talk, &line) == 0) {
		if (strncmp(line, leads, sizeof(leads) - 1) == 0)
			found = 1;
		if (strncmp(line, version, sizeof(version) - 1) != 0)
			continue;
		line += sizeof(version) - 1;
		snprintf(system->version, sizeof(system->version), "etcd %.*s",
			 (int)strcspn(line, "\""), line);
	}
	petal_talk_close(&talk);
	return err == -EINTR ? err : found;
}

static int find_leader(struct replicate_system *system)
{
	uint64_t end_ns = petal_clock_now_ns() + PETAL_S(REPLICATE_START_S);

	do {
		for (unsigned i = 0; i < NODES; i++) {
			int leads = ask_leads(system, etcd.ports[2 * i]);

			etcd.leader = i;
			if (leads != 0)
				return leads < 0 ? leads : 0;
		}
		poll(NULL, 0, 50);
	} while (petal_clock_now_ns() < end_ns);
	return -ETIMEDOUT;
}

static int etcd_open(struct replicate_system *system, struct petal_nest *nest)
{
	char program[PETAL_NEST_PATH];
	int err;

	if (!petal_nest_find("etcd", program))
		return -ENOENT;
	etcd.call = malloc(REPLICATE_BYTES_MAX);
	err = etcd.call ? petal_nest_ports(etcd.ports, 2 * NODES) : -ENOMEM;
	for (unsigned i = 0; i < NODES && err == 0; i++)
		err = start_node(nest, program, i);
	if (err == 0)
		err = find_leader(system);
	return err == 0 ? greet(etcd.ports[2 * etcd.leader]) : err;
}

/* A leg. */

static int etcd_begin(struct replicate_system *system,
		      const struct replicate_leg *leg)
{
	(void)system;
	etcd.bytes = leg->bytes;
	return 0;
}

/* A PutRequest: field 1 is the key, field 2 the value. */
static size_t write_call(uint64_t sequence)
{
	uint8_t *at = etcd.call + PREFIX_BYTES;
	uint64_t length = etcd.bytes;

	*at++ = 1 << 3 | 2;
	*at++ = KEY_BYTES;
	at += snprintf((char *)at, KEY_BYTES + 1, "%04u",
		       (unsigned)(sequence % KEYS));
	*at++ = 2 << 3 | 2;
	for (; length >= 128; length >>= 7)
		*at++ = (uint8_t)(length | 128);
	*at++ = (uint8_t)length;
	petal_payload_fill(at, etcd.bytes, sequence);
	at += etcd.bytes;
	etcd.call[0] = 0; /* not compressed */
	put_u32(etcd.call + 1,
		(uint32_t)(at - etcd.call) - (uint32_t)PREFIX_BYTES);
	return (size_t)(at - etcd.call);
}

static int etcd_post(struct replicate_system *system, uint64_t sequence)
{
	size_t length = write_call(sequence);
	int err = 0;

	(void)system;
	while (err == 0 && etcd.window < (int64_t)length) {
		err = petal_talk_flush(&etcd.talk);
		if (err == 0)
			err = read_frame();
	}
	if (err == 0)
		err = put_frame(FRAME_HEADERS, FLAG_END_HEADERS, etcd.stream,
				etcd.headers, etcd.headers_bytes);
	if (err == 0)
		err = put_frame(FRAME_DATA, FLAG_END_STREAM, etcd.stream,
				etcd.call, length);
	etcd.window -= (int64_t)length;
	etcd.stream += 2;
	return err;
}

static int etcd_await(struct replicate_system *system, unsigned least)
{
	int err = petal_talk_flush(&etcd.talk);
	unsigned done;

	(void)system;
	while (err == 0 && (etcd.done < least || petal_talk_ready(&etcd.talk)))
		err = read_frame();
	done = etcd.done;
	etcd.done = 0;
	return err < 0 ? err : (int)done;
}

static void etcd_close(struct replicate_system *system)
{
	(void)system;
	petal_talk_close(&etcd.talk);
	free(etcd.call);
	etcd.call = NULL;
}

struct replicate_system replicate_etcd = {
	.impl = "etcd",
	.package = "etcd-server",
	.levels = 1u << REPLICATE_DISK2,
	.peer = true,
	.remark = "Put to the leader, gRPC on one connection",
	.open = etcd_open,
	.begin = etcd_begin,
	.post = etcd_post,
	.await = etcd_await,
	.close = etcd_close,
};
