/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RabbitMQ: a quorum queue on three nodes, whose members sync their log before
 * they answer; persistent messages with publisher confirms, on one channel to
 * the node that leads the queue, for it is declared there. Nobody consumes; the
 * queue drops its oldest messages.
 *
 * AMQP 0-9-1 is spoken here as far as that needs. The three nodes are Erlang's,
 * and so is the epmd by which they find each other: one of our own, on a port
 * of our own, with a cookie of our own.
 */
#include <endian.h>
#include <errno.h>
#include <glob.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/payload.h"
#include "bench/replicate.h"
#include "bench/talk.h"
#include "shm/clock.h"
#include "shm/error.h"

#define NODES 3u
#define QUEUE "bench"
#define SERVER "/usr/lib/rabbitmq/bin/rabbitmq-server"
#define FRAME_END 0xceu
#define FRAME_MAX 131072u
#define HEAD_BYTES 7u
#define CHANNEL 1u

enum { FRAME_METHOD = 1, FRAME_HEADER = 2, FRAME_BODY = 3 };

/* Class and method in one. */
#define METHOD(class, method) ((uint32_t)(class) << 16 | (uint32_t)(method))
enum {
	START = METHOD(10, 10),
	START_OK = METHOD(10, 11),
	TUNE = METHOD(10, 30),
	TUNE_OK = METHOD(10, 31),
	OPEN = METHOD(10, 40),
	OPEN_OK = METHOD(10, 41),
	CHANNEL_OPEN = METHOD(20, 10),
	CHANNEL_OPEN_OK = METHOD(20, 11),
	DECLARE = METHOD(50, 10),
	DECLARE_OK = METHOD(50, 11),
	PUBLISH = METHOD(60, 40),
	ACK = METHOD(60, 80),
	SELECT = METHOD(85, 10),
	SELECT_OK = METHOD(85, 11),
};

/* A frame in the making. */
struct text {
	uint8_t bytes[512];
	size_t used;
};

static struct rabbit {
	uint16_t ports[2 * NODES + 1]; /* of clients, of nodes, of epmd */
	struct petal_talk talk;
	uint64_t published; /* tags count from 1 */
	uint64_t oldest;    /* not answered yet */
	bool answered[2 * REPLICATE_WINDOW_MAX];
	unsigned done;
	uint64_t bytes;
	uint8_t *payload;
} rabbit;

/* Frames. */

static void put_bytes(struct text *text, const void *bytes, size_t length)
{
	if (length > sizeof(text->bytes) - text->used)
		length = sizeof(text->bytes) - text->used;
	memcpy(text->bytes + text->used, bytes, length);
	text->used += length;
}

static void put_u8(struct text *text, unsigned value)
{
	uint8_t byte = (uint8_t)value;

	put_bytes(text, &byte, sizeof(byte));
}

static void put_u16(struct text *text, unsigned value)
{
	uint16_t big = htobe16((uint16_t)value);

	put_bytes(text, &big, sizeof(big));
}

static void put_u32(struct text *text, uint32_t value)
{
	uint32_t big = htobe32(value);

	put_bytes(text, &big, sizeof(big));
}

static void put_u64(struct text *text, uint64_t value)
{
	uint64_t big = htobe64(value);

	put_bytes(text, &big, sizeof(big));
}

static void put_short(struct text *text, const char *value)
{
	put_u8(text, (unsigned)strlen(value));
	put_bytes(text, value, strlen(value));
}

static void put_long(struct text *text, const void *bytes, size_t length)
{
	put_u32(text, (uint32_t)length);
	put_bytes(text, bytes, length);
}

static int put_frame(unsigned type, unsigned channel, const void *bytes,
		     size_t length)
{
	struct text head = { .used = 0 };
	uint8_t end = FRAME_END;
	int err;

	put_u8(&head, type);
	put_u16(&head, channel);
	put_u32(&head, (uint32_t)length);
	err = petal_talk_put(&rabbit.talk, head.bytes, head.used);
	if (err == 0)
		err = petal_talk_put(&rabbit.talk, bytes, length);
	return err == 0 ? petal_talk_put(&rabbit.talk, &end, 1) : err;
}

static int send_method(unsigned channel, const struct text *text)
{
	int err = put_frame(FRAME_METHOD, channel, text->bytes, text->used);

	return err == 0 ? petal_talk_flush(&rabbit.talk) : err;
}

static uint32_t get_u32(const uint8_t *at)
{
	uint32_t big;

	memcpy(&big, at, sizeof(big));
	return be32toh(big);
}

/* Waits for a method, whose arguments stay valid until the next call. */
static int read_method(uint32_t *ret_method, const uint8_t **ret_arguments,
		       size_t *ret_length)
{
	uint8_t *bytes;
	uint8_t type;
	size_t length;
	int err;

	do {
		err = petal_talk_need(&rabbit.talk, HEAD_BYTES, &bytes);
		if (err < 0)
			return err;
		type = bytes[0];
		length = get_u32(bytes + 3);
		err = petal_talk_need(&rabbit.talk, HEAD_BYTES + length + 1,
				      &bytes);
		if (err < 0)
			return err;
		petal_talk_skip(&rabbit.talk, HEAD_BYTES + length + 1);
	} while (type != FRAME_METHOD);
	if (length < 4)
		return -EPROTO;
	*ret_method = get_u32(bytes + HEAD_BYTES);
	*ret_arguments = bytes + HEAD_BYTES + 4;
	*ret_length = length - 4;
	return 0;
}

/* Anything else is the end of a channel or connection. */
static int expect(uint32_t wanted)
{
	const uint8_t *arguments;
	uint32_t method;
	size_t length;
	int err = read_method(&method, &arguments, &length);

	return err < 0 ? err : method == wanted ? 0 : -EREMOTEIO;
}

static int call(unsigned channel, const struct text *text, uint32_t wanted)
{
	int err = send_method(channel, text);

	return err == 0 ? expect(wanted) : err;
}

/* The connection. */

static int login(void)
{
	static const char header[] = "AMQP\0\0\t\1";
	static const char guest[] = "\0guest\0guest";
	struct text ok = { .used = 0 }, tune = { .used = 0 },
		    open = { .used = 0 };
	int err = petal_talk_put(&rabbit.talk, header, sizeof(header) - 1);

	put_u32(&ok, START_OK);
	put_u32(&ok, 0); /* no properties */
	put_short(&ok, "PLAIN");
	put_long(&ok, guest, sizeof(guest) - 1);
	put_short(&ok, "en_US");
	put_u32(&tune, TUNE_OK);
	put_u16(&tune, 16);
	put_u32(&tune, FRAME_MAX);
	put_u16(&tune, 0); /* no heartbeats */
	put_u32(&open, OPEN);
	put_short(&open, "/");
	put_short(&open, "");
	put_u8(&open, 0);
	if (err == 0)
		err = petal_talk_flush(&rabbit.talk);
	if (err == 0)
		err = expect(START);
	if (err == 0)
		err = call(0, &ok, TUNE);
	if (err == 0)
		err = send_method(0, &tune);
	return err == 0 ? call(0, &open, OPEN_OK) : err;
}

static int declare(void)
{
	struct text channel = { .used = 0 }, queue = { .used = 0 },
		    table = { .used = 0 }, confirm = { .used = 0 };
	int err;

	put_u32(&channel, CHANNEL_OPEN);
	put_short(&channel, "");
	put_short(&table, "x-queue-type");
	put_u8(&table, 'S');
	put_long(&table, "quorum", 6);
	put_short(&table, "x-max-length");
	put_u8(&table, 'I');
	put_u32(&table, 65536);
	put_u32(&queue, DECLARE);
	put_u16(&queue, 0);
	put_short(&queue, QUEUE);
	put_u8(&queue, 2); /* durable */
	put_long(&queue, table.bytes, table.used);
	put_u32(&confirm, SELECT);
	put_u8(&confirm, 0);
	err = call(CHANNEL, &channel, CHANNEL_OPEN_OK);
	if (err == 0)
		err = call(CHANNEL, &queue, DECLARE_OK);
	return err == 0 ? call(CHANNEL, &confirm, SELECT_OK) : err;
}

/* The nodes. */

static int write_file(const struct petal_nest *nest, const char *name,
		      const char *text, mode_t mode)
{
	char path[PETAL_NEST_PATH];
	FILE *file;

	petal_nest_path(nest, name, path);
	file = fopen(path, "we");
	if (!file)
		return -errno;
	fputs(text, file);
	if (fclose(file) != 0 || chmod(path, mode) != 0)
		return -errno;
	return 0;
}

static int write_config(const struct petal_nest *nest, unsigned n)
{
	char text[512], name[32];

	snprintf(text, sizeof(text),
		 "listeners.tcp.1 = 127.0.0.1:%u\nlog.console = true\n"
		 "log.file = false\n"
		 "cluster_formation.peer_discovery_backend = classic_config\n"
		 "cluster_formation.classic_config.nodes.1 = r0@localhost\n"
		 "cluster_formation.classic_config.nodes.2 = r1@localhost\n"
		 "cluster_formation.classic_config.nodes.3 = r2@localhost\n",
		 rabbit.ports[n]);
	snprintf(name, sizeof(name), "rabbit-%u.conf", n);
	return write_file(nest, name, text, 0600);
}

static int start_node(struct petal_nest *nest, unsigned n)
{
	char name[32], dist[48], epmd[48], node[48], home[PETAL_NEST_PATH],
		config[PETAL_NEST_PATH], base[PETAL_NEST_PATH],
		logs[PETAL_NEST_PATH], plugins[PETAL_NEST_PATH],
		generated[PETAL_NEST_PATH];
	const char *argv[] = { SERVER, NULL };
	const char *env[] = { node,
			      dist,
			      epmd,
			      home,
			      config,
			      base,
			      logs,
			      plugins,
			      generated,
			      "RABBITMQ_ALLOW_INPUT=1",
			      "RABBITMQ_SERVER_START_ARGS=-noinput",
			      "RABBITMQ_CONF_ENV_FILE=/dev/null",
			      NULL };
	int err = write_config(nest, n);

	snprintf(name, sizeof(name), "rabbit-%u", n);
	snprintf(node, sizeof(node), "RABBITMQ_NODENAME=r%u@localhost", n);
	snprintf(dist, sizeof(dist), "RABBITMQ_DIST_PORT=%u",
		 rabbit.ports[NODES + n]);
	snprintf(epmd, sizeof(epmd), "ERL_EPMD_PORT=%u",
		 rabbit.ports[2 * NODES]);
	snprintf(home, sizeof(home), "HOME=%s", nest->dir);
	snprintf(config, sizeof(config), "RABBITMQ_CONFIG_FILE=%s/%s.conf",
		 nest->dir, name);
	snprintf(base, sizeof(base), "RABBITMQ_MNESIA_BASE=%s/%s", nest->dir,
		 name);
	snprintf(logs, sizeof(logs), "RABBITMQ_LOG_BASE=%s/%s", nest->dir,
		 name);
	snprintf(plugins, sizeof(plugins),
		 "RABBITMQ_ENABLED_PLUGINS_FILE=%s/plugins", nest->dir);
	snprintf(generated, sizeof(generated),
		 "RABBITMQ_GENERATED_CONFIG_DIR=%s/%s", nest->dir, name);
	return err == 0 ? petal_nest_start(nest, name, argv, env) : err;
}

static int start_epmd(struct petal_nest *nest)
{
	char program[PETAL_NEST_PATH], port[16];
	const char *argv[] = { program,    "-port",     port,
			       "-address", "127.0.0.1", NULL };

	if (!petal_nest_find("epmd", program))
		return -ENOENT;
	snprintf(port, sizeof(port), "%u", rabbit.ports[2 * NODES]);
	return petal_nest_start(nest, "epmd", argv, NULL);
}

/* How many lines of the first node's log say that a node has come up. */
static unsigned count_joined(const struct petal_nest *nest)
{
	char path[PETAL_NEST_PATH], line[512];
	unsigned count = 0;
	FILE *file;

	petal_nest_path(nest, "rabbit-0.log", path);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		count += strstr(line, "rabbit on node") && strstr(line, " up");
	if (file)
		fclose(file);
	return count;
}

static void read_version(struct replicate_system *system,
			 const struct petal_nest *nest)
{
	static const char text[] = "Starting RabbitMQ ";
	char path[PETAL_NEST_PATH], line[512];
	FILE *file;

	petal_nest_path(nest, "rabbit-0.log", path);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		const char *at = strstr(line, text);

		if (!at)
			continue;
		at += sizeof(text) - 1;
		snprintf(system->version, sizeof(system->version),
			 "rabbitmq %.*s", (int)strcspn(at, " "), at);
	}
	if (file)
		fclose(file);
}

static int wait_joined(const struct petal_nest *nest, unsigned first)
{
	uint64_t end_ns = petal_clock_now_ns() + PETAL_S(REPLICATE_START_S);

	while (count_joined(nest) < NODES - 1) {
		if (petal_nest_stopped())
			return -EINTR;
		if (petal_nest_check(nest, first, NODES + 1) < 0)
			return -ECHILD;
		if (petal_clock_now_ns() > end_ns)
			return -ETIMEDOUT;
		poll(NULL, 0, 100);
	}
	return 0;
}

/* A member of the queue has a directory at its node. */
static int check_members(const struct petal_nest *nest)
{
	char pattern[PETAL_NEST_PATH];
	glob_t found = { .gl_pathc = 0 };
	size_t count;

	petal_nest_path(nest, "rabbit-*/*/quorum/*/2F_*", pattern);
	glob(pattern, 0, NULL, &found);
	count = found.gl_pathc;
	globfree(&found);
	return count == NODES ? 0 : -EHOSTUNREACH;
}

static int start_nodes(struct petal_nest *nest)
{
	unsigned first = nest->count;
	char cookie[64];
	int err;

	snprintf(cookie, sizeof(cookie), "BENCH%016llx",
		 (unsigned long long)petal_clock_now_ns());
	err = write_file(nest, ".erlang.cookie", cookie, 0400);
	if (err == 0)
		err = write_file(nest, "plugins", "[].\n", 0600);
	if (err == 0)
		err = petal_nest_ports(rabbit.ports, 2 * NODES + 1);
	if (err == 0)
		err = start_epmd(nest);
	for (unsigned i = 0; i < NODES && err == 0; i++)
		err = start_node(nest, i);
	return err == 0 ? wait_joined(nest, first) : err;
}

static int rabbit_open(struct replicate_system *system, struct petal_nest *nest)
{
	struct stat stat_server;
	int err;

	if (stat(SERVER, &stat_server) != 0)
		return -ENOENT;
	rabbit.payload = malloc(REPLICATE_BYTES_MAX);
	err = rabbit.payload ? start_nodes(nest) : -ENOMEM;
	if (err == 0)
		err = petal_talk_open(&rabbit.talk, rabbit.ports[0],
				      REPLICATE_START_S);
	if (err == 0)
		err = login();
	if (err == 0)
		err = declare();
	if (err == 0)
		err = check_members(nest);
	read_version(system, nest);
	rabbit.oldest = 1;
	return err;
}

/* A leg. */

static int rabbit_begin(struct replicate_system *system,
			const struct replicate_leg *leg)
{
	(void)system;
	rabbit.bytes = leg->bytes;
	return 0;
}

static int rabbit_post(struct replicate_system *system, uint64_t sequence)
{
	struct text publish = { .used = 0 }, header = { .used = 0 };
	int err;

	(void)system;
	put_u32(&publish, PUBLISH);
	put_u16(&publish, 0);
	put_short(&publish, ""); /* the exchange that knows queues by name */
	put_short(&publish, QUEUE);
	put_u8(&publish, 0);
	put_u16(&header, PUBLISH >> 16);
	put_u16(&header, 0);
	put_u64(&header, rabbit.bytes);
	put_u16(&header, 0x1000); /* one property: */
	put_u8(&header, 2);       /* persistent */
	petal_payload_fill(rabbit.payload, rabbit.bytes, sequence);
	err = put_frame(FRAME_METHOD, CHANNEL, publish.bytes, publish.used);
	if (err == 0)
		err = put_frame(FRAME_HEADER, CHANNEL, header.bytes,
				header.used);
	if (err == 0)
		err = put_frame(FRAME_BODY, CHANNEL, rabbit.payload,
				rabbit.bytes);
	rabbit.published++;
	return err;
}

static void take_answer(uint64_t tag)
{
	bool *answered = &rabbit.answered[tag % (2 * REPLICATE_WINDOW_MAX)];

	rabbit.done += !*answered;
	*answered = true;
}

/* Tags are answered one by one, in any order, or all up to one. */
static int read_answer(void)
{
	const uint8_t *arguments;
	uint64_t tag;
	uint32_t method;
	size_t length;
	int err = read_method(&method, &arguments, &length);

	if (err < 0)
		return err;
	if (method != ACK || length < sizeof(tag) + 1)
		return -EREMOTEIO;
	memcpy(&tag, arguments, sizeof(tag));
	tag = be64toh(tag);
	if (tag < rabbit.oldest || tag > rabbit.published)
		return -EPROTO;
	for (uint64_t i = rabbit.oldest; (arguments[8] & 1) != 0 && i < tag;
	     i++)
		take_answer(i);
	take_answer(tag);
	while (rabbit.oldest <= rabbit.published &&
	       rabbit.answered[rabbit.oldest % (2 * REPLICATE_WINDOW_MAX)]) {
		rabbit.answered[rabbit.oldest % (2 * REPLICATE_WINDOW_MAX)] =
			false;
		rabbit.oldest++;
	}
	return 0;
}

static int rabbit_await(struct replicate_system *system, unsigned least)
{
	int err = petal_talk_flush(&rabbit.talk);
	unsigned done;

	(void)system;
	while (err == 0 &&
	       (rabbit.done < least || petal_talk_ready(&rabbit.talk) > 0))
		err = read_answer();
	done = rabbit.done;
	rabbit.done = 0;
	return err < 0 ? err : (int)done;
}

static void rabbit_close(struct replicate_system *system)
{
	(void)system;
	petal_talk_close(&rabbit.talk);
	free(rabbit.payload);
	rabbit.payload = NULL;
}

struct replicate_system replicate_rabbit = {
	.impl = "rabbitmq",
	.package = "rabbitmq-server",
	.levels = 1u << REPLICATE_DISK2,
	.peer = true,
	.remark = "quorum queue, publisher confirms",
	.open = rabbit_open,
	.begin = rabbit_begin,
	.post = rabbit_post,
	.await = rabbit_await,
	.close = rabbit_close,
};
