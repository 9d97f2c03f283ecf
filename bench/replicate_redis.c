/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis: a primary and two replicas; SET, and WAIT for one replica or both.
 * Without a file that is a record in two or three memories; with appendfsync
 * always on all three, on two or three disks: a replica answers after its
 * write. WAIT holds up its connection, so a window is two batches on two
 * connections, each of SETs and one WAIT.
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
#define LINKS 2u
/* Values are overwritten, so that the memory stays the same. */
#define KEYS 4096u

struct redis {
	uint16_t ports[NODES];
	struct petal_talk links[LINKS];
	unsigned pending[LINKS];
	unsigned put;   /* where the next record goes */
	unsigned taken; /* where the next answer comes from */
	struct replicate_leg leg;
	unsigned batch;
	bool durable;
	uint8_t *payload;
};

static struct redis plain, durable = { .durable = true };

static struct redis *redis_of(const struct replicate_system *system)
{
	return system == &replicate_redis ? &plain : &durable;
}

static int start_node(struct petal_nest *nest, const struct redis *redis,
		      const char *program, unsigned n)
{
	const char *append = redis->durable ? "yes" : "no";
	char name[32], dir[PETAL_NEST_PATH], port[16], primary[32];
	const char *argv[] = { program,     "--port",
			       port,        "--bind",
			       "127.0.0.1", "--save",
			       "",          "--appendonly",
			       append,      "--appendfsync",
			       "always",    "--auto-aof-rewrite-percentage",
			       "0",         "--repl-diskless-sync-delay",
			       "0",         "--dbfilename",
			       name,        "--appenddirname",
			       dir,         n > 0 ? "--replicaof" : NULL,
			       primary,     NULL };

	snprintf(name, sizeof(name), "redis-%u", redis->ports[n]);
	snprintf(dir, sizeof(dir), "redis-%u.aof", redis->ports[n]);
	snprintf(port, sizeof(port), "%u", redis->ports[n]);
	snprintf(primary, sizeof(primary), "127.0.0.1 %u", redis->ports[0]);
	return petal_nest_start(nest, name, argv, NULL);
}

/* A command without values that need quotes; its answer is one line. */
static int ask(struct petal_talk *talk, const char *command, char **ret_line)
{
	int err = petal_talk_print(talk, "%s\r\n", command);

	if (err == 0)
		err = petal_talk_flush(talk);
	return err == 0 ? petal_talk_line(talk, ret_line) : err;
}

/* INFO says more than is read here, so it has a connection of its own. */
static int read_version(struct replicate_system *system, uint16_t port)
{
	struct petal_talk talk;
	char *line;
	int err = petal_talk_open(&talk, port, 1);

	if (err == 0)
		err = ask(&talk, "INFO server", &line);
	while (err == 0 && strncmp(line, "redis_version:", 14) != 0)
		err = petal_talk_line(&talk, &line);
	if (err == 0)
		snprintf(system->version, sizeof(system->version),
			 "redis %.32s", line + 14);
	petal_talk_close(&talk);
	return err;
}

/* Both replicas answer, or it is too early. */
static int wait_replicas(struct petal_talk *talk)
{
	uint64_t end_ns = petal_clock_now_ns() + PETAL_S(REPLICATE_START_S);
	char *line = NULL;
	int err;

	do {
		poll(NULL, 0, 50);
		err = ask(talk, "SET ready 1", &line);
		if (err == 0)
			err = ask(talk, "WAIT 2 1000", &line);
		if (err == 0 && strcmp(line, ":2") == 0)
			return 0;
	} while (err == 0 && petal_clock_now_ns() < end_ns);
	return err < 0 ? err : -ETIMEDOUT;
}

static int redis_open(struct replicate_system *system, struct petal_nest *nest)
{
	struct redis *redis = redis_of(system);
	char program[PETAL_NEST_PATH];
	int err;

	if (!petal_nest_find("redis-server", program))
		return -ENOENT;
	redis->payload = malloc(REPLICATE_BYTES_MAX);
	err = redis->payload ? petal_nest_ports(redis->ports, NODES) : -ENOMEM;
	for (unsigned i = 0; i < NODES && err == 0; i++)
		err = start_node(nest, redis, program, i);
	for (unsigned i = 0; i < LINKS && err == 0; i++)
		err = petal_talk_open(&redis->links[i], redis->ports[0],
				      REPLICATE_START_S);
	if (err == 0)
		err = wait_replicas(&redis->links[0]);
	return err == 0 ? read_version(system, redis->ports[0]) : err;
}

static int redis_begin(struct replicate_system *system,
		       const struct replicate_leg *leg)
{
	struct redis *redis = redis_of(system);

	redis->leg = *leg;
	redis->batch = leg->window > 1 ? leg->window / 2 : 1;
	return 0;
}

static int end_batch(struct redis *redis)
{
	struct petal_talk *talk = &redis->links[redis->put];
	bool all = redis->leg.level == REPLICATE_MEM3 ||
		   redis->leg.level == REPLICATE_DISK3;
	int err = petal_talk_print(
		talk, "*3\r\n$4\r\nWAIT\r\n$1\r\n%u\r\n$1\r\n0\r\n",
		all ? 2 : 1);

	redis->put = (redis->put + 1) % LINKS;
	return err == 0 ? petal_talk_flush(talk) : err;
}

static int redis_post(struct replicate_system *system, uint64_t sequence)
{
	struct redis *redis = redis_of(system);
	struct petal_talk *talk = &redis->links[redis->put];
	uint64_t bytes = redis->leg.bytes;
	int err;

	petal_payload_fill(redis->payload, bytes, sequence);
	err = petal_talk_print(talk, "*3\r\n$3\r\nSET\r\n$4\r\n%04u\r\n$%u\r\n",
			       (unsigned)(sequence % KEYS), (unsigned)bytes);
	if (err == 0)
		err = petal_talk_put(talk, redis->payload, bytes);
	if (err == 0)
		err = petal_talk_put(talk, "\r\n", 2);
	if (err == 0 && ++redis->pending[redis->put] == redis->batch)
		err = end_batch(redis);
	return err;
}

static int take_batch(struct redis *redis)
{
	struct petal_talk *talk = &redis->links[redis->taken];
	unsigned count = redis->pending[redis->taken];
	char *line;
	int err = 0;

	for (unsigned i = 0; i < count && err == 0; i++) {
		err = petal_talk_line(talk, &line);
		if (err == 0 && strcmp(line, "+OK") != 0)
			err = -EBADMSG;
	}
	if (err == 0)
		err = petal_talk_line(talk, &line);
	if (err == 0 && (line[0] != ':' || line[1] == '0'))
		err = -EBADMSG;
	redis->pending[redis->taken] = 0;
	redis->taken = (redis->taken + 1) % LINKS;
	return err < 0 ? err : (int)count;
}

static int redis_await(struct replicate_system *system, unsigned least)
{
	struct redis *redis = redis_of(system);
	int done = 0;

	while (done < (int)least) {
		int got = take_batch(redis);

		if (got < 0)
			return got;
		done += got;
	}
	return done;
}

static void redis_close(struct replicate_system *system)
{
	struct redis *redis = redis_of(system);

	for (unsigned i = 0; i < LINKS; i++)
		petal_talk_close(&redis->links[i]);
	free(redis->payload);
	redis->payload = NULL;
}

struct replicate_system replicate_redis = {
	.impl = "redis-wait",
	.package = "redis-server",
	.levels = 1u << REPLICATE_MEM2 | 1u << REPLICATE_MEM3,
	.peer = true,
	.remark = "SET and WAIT, nothing on disk",
	.open = redis_open,
	.begin = redis_begin,
	.post = redis_post,
	.await = redis_await,
	.close = redis_close,
};

struct replicate_system replicate_redis_aof = {
	.impl = "redis-aof",
	.package = "redis-server",
	.levels = 1u << REPLICATE_DISK2 | 1u << REPLICATE_DISK3,
	.peer = true,
	.remark = "SET and WAIT, appendfsync always on all three",
	.open = redis_open,
	.begin = redis_begin,
	.post = redis_post,
	.await = redis_await,
	.close = redis_close,
};
