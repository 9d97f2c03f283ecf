/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NATS JetStream: a stream of three replicas in memory, on three servers; the
 * leader answers a message when two have it. One connection, to the leader.
 */
#include <errno.h>
#include <jansson.h>
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
#define INBOX "_INBOX.bench"
#define STREAM "BENCH"
#define SUBJECT "bench"

static struct nats {
	uint16_t ports[2 * NODES];
	struct petal_talk talk;
	uint64_t bytes;
	uint8_t *payload;
} nats;

static int write_config(const struct petal_nest *nest, unsigned n,
			const char *path)
{
	FILE *file = fopen(path, "we");

	if (!file)
		return -errno;
	fprintf(file,
		"server_name: n%u\nlisten: 127.0.0.1:%u\n"
		"jetstream { store_dir: \"%s/nats-%u\" }\n"
		"cluster {\n  name: bench\n  listen: 127.0.0.1:%u\n"
		"  routes: [\n",
		n, nats.ports[2 * n], nest->dir, n, nats.ports[2 * n + 1]);
	for (unsigned i = 0; i < NODES; i++)
		fprintf(file, "    nats://127.0.0.1:%u\n",
			nats.ports[2 * i + 1]);
	fprintf(file, "  ]\n}\n");
	return fclose(file) == 0 ? 0 : -errno;
}

static int start_node(struct petal_nest *nest, const char *program, unsigned n)
{
	char name[32], path[PETAL_NEST_PATH];
	const char *argv[] = { program, "-c", path, NULL };
	int err;

	snprintf(name, sizeof(name), "nats-%u.conf", n);
	petal_nest_path(nest, name, path);
	err = write_config(nest, n, path);
	snprintf(name, sizeof(name), "nats-%u", n);
	return err == 0 ? petal_nest_start(nest, name, argv, NULL) : err;
}

static void read_version(struct replicate_system *system, const char *info)
{
	static const char key[] = "\"version\":\"";
	const char *at = strstr(info, key);

	at = at ? at + sizeof(key) - 1 : "";
	snprintf(system->version, sizeof(system->version), "nats %.*s",
		 (int)strcspn(at, "\""), at);
}

/* Connects, and says where answers shall go. */
static int greet(struct replicate_system *system, uint16_t port)
{
	char *line;
	int err = petal_talk_open(&nats.talk, port, REPLICATE_START_S);

	if (err == 0)
		err = petal_talk_line(&nats.talk, &line);
	if (err < 0)
		return err;
	read_version(system, line);
	err = petal_talk_print(
		&nats.talk, "CONNECT {\"verbose\":false,\"pedantic\":false,"
			    "\"lang\":\"c\",\"version\":\"1\",\"protocol\":1,"
			    "\"headers\":true,\"no_responders\":true}\r\n"
			    "SUB " INBOX " 1\r\n");
	return err == 0 ? petal_talk_flush(&nats.talk) : err;
}

/*
 * Waits for a message, and takes it. One with headers says that nobody serves
 * that subject.
 */
static int read_message(char *body, size_t size)
{
	uint8_t *bytes;
	char *line, *last;
	size_t length;
	bool refused;
	int err;

	do {
		err = petal_talk_line(&nats.talk, &line);
		if (err == 0 && strncmp(line, "PING", 4) == 0) {
			err = petal_talk_print(&nats.talk, "PONG\r\n");
			if (err == 0)
				err = petal_talk_flush(&nats.talk);
		}
		if (err == 0 && strncmp(line, "-ERR", 4) == 0)
			err = -EPROTO;
		if (err < 0)
			return err;
	} while (strncmp(line, "MSG ", 4) != 0 &&
		 strncmp(line, "HMSG ", 5) != 0);
	refused = line[0] == 'H';
	last = strrchr(line, ' ');
	length = strtoul(last, NULL, 10);
	err = petal_talk_need(&nats.talk, length + 2, &bytes);
	if (err < 0)
		return err;
	snprintf(body, size, "%.*s", (int)length, (char *)bytes);
	petal_talk_skip(&nats.talk, length + 2);
	return refused ? -EAGAIN : 0;
}

static int ask(const char *subject, const char *body, json_t **ret_answer)
{
	char answer[4096];
	int err = petal_talk_print(&nats.talk,
				   "PUB $JS.API.STREAM.%s." STREAM " " INBOX
				   " %zu\r\n%s\r\n",
				   subject, strlen(body), body);

	if (err == 0)
		err = petal_talk_flush(&nats.talk);
	if (err == 0)
		err = read_message(answer, sizeof(answer));
	if (err < 0)
		return err;
	*ret_answer = json_loads(answer, 0, NULL);
	return *ret_answer ? 0 : -EPROTO;
}

/* The server that leads the stream, once there is one; -EAGAIN before. */
static int find_leader(unsigned *ret_leader)
{
	const char *leader;
	json_t *answer;
	int err = ask("INFO", "", &answer);

	if (err < 0)
		return err;
	leader = json_string_value(
		json_object_get(json_object_get(answer, "cluster"), "leader"));
	err = leader && sscanf(leader, "n%u", ret_leader) == 1 &&
			      *ret_leader < NODES
		      ? 0
		      : -EAGAIN;
	json_decref(answer);
	return err;
}

static int create_stream(unsigned *ret_leader)
{
	static const char config[] =
		"{\"name\":\"" STREAM "\",\"subjects\":[\"" SUBJECT "\"],"
		"\"retention\":\"limits\",\"discard\":\"old\","
		"\"storage\":\"memory\",\"num_replicas\":3,"
		"\"max_bytes\":67108864}";
	uint64_t end_ns = petal_clock_now_ns() + PETAL_S(REPLICATE_START_S);
	json_t *answer;
	int err;

	/* The servers must meet first, and elect one that makes streams. */
	do {
		err = ask("CREATE", config, &answer);
		if (err == 0)
			json_decref(answer);
		if (err == 0)
			err = find_leader(ret_leader);
		if (err == 0 || petal_nest_stopped())
			return err;
		poll(NULL, 0, 100);
	} while ((err == -EAGAIN || err == -ETIMEDOUT) &&
		 petal_clock_now_ns() < end_ns);
	return err;
}

static int nats_open(struct replicate_system *system, struct petal_nest *nest)
{
	char program[PETAL_NEST_PATH];
	unsigned leader = 0;
	int err;

	if (!petal_nest_find("nats-server", program))
		return -ENOENT;
	nats.payload = malloc(REPLICATE_BYTES_MAX);
	err = nats.payload ? petal_nest_ports(nats.ports, 2 * NODES) : -ENOMEM;
	for (unsigned i = 0; i < NODES && err == 0; i++)
		err = start_node(nest, program, i);
	if (err == 0)
		err = greet(system, nats.ports[0]);
	if (err == 0)
		err = create_stream(&leader);
	if (err < 0)
		return err;
	petal_talk_close(&nats.talk);
	return greet(system, nats.ports[2 * leader]);
}

static int nats_begin(struct replicate_system *system,
		      const struct replicate_leg *leg)
{
	(void)system;
	nats.bytes = leg->bytes;
	return 0;
}

static int nats_post(struct replicate_system *system, uint64_t sequence)
{
	int err = petal_talk_print(&nats.talk,
				   "PUB " SUBJECT " " INBOX " %u\r\n",
				   (unsigned)nats.bytes);

	(void)system;
	petal_payload_fill(nats.payload, nats.bytes, sequence);
	if (err == 0)
		err = petal_talk_put(&nats.talk, nats.payload, nats.bytes);
	return err == 0 ? petal_talk_put(&nats.talk, "\r\n", 2) : err;
}

static int nats_await(struct replicate_system *system, unsigned least)
{
	int err = petal_talk_flush(&nats.talk);
	char answer[256];
	int done = 0;

	(void)system;
	while (err == 0 &&
	       (done < (int)least || petal_talk_ready(&nats.talk) > 0)) {
		err = read_message(answer, sizeof(answer));
		if (err == 0 && !strstr(answer, "\"seq\":"))
			err = -EREMOTEIO;
		done += err == 0;
	}
	return err < 0 ? err : done;
}

static void nats_close(struct replicate_system *system)
{
	(void)system;
	petal_talk_close(&nats.talk);
	free(nats.payload);
	nats.payload = NULL;
}

struct replicate_system replicate_nats = {
	.impl = "nats-r3",
	.package = "nats-server",
	.levels = 1u << REPLICATE_MEM2,
	.peer = true,
	.remark = "JetStream, three replicas, storage memory",
	.open = nats_open,
	.begin = nats_begin,
	.post = nats_post,
	.await = nats_await,
	.close = nats_close,
};
