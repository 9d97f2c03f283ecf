/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ours: three petald on the loopback, provider tcp, one ring, and the bench as
 * its producer. Records are for no queue, as nobody takes those of the peers.
 *
 * A producer may have PETAL_LOG_WINDOW records without an outcome, so the ring
 * is opened twice and records alternate.
 */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/payload.h"
#include "bench/replicate.h"
#include "fabric/node.h"
#include "fabric/ring.h"
#include "fabric/seal.h"
#include "shm/clock.h"
#include "shm/error.h"

#define PETALS 3u
#define OPENED 2u
#define RING "bench"
#define DATA_BYTES (UINT64_C(32) << 20)

static_assert(OPENED * PETAL_LOG_WINDOW >= REPLICATE_WINDOW_MAX,
	      "the window fits");

struct ours {
	struct petal_node node;
	struct petal_ring rings[OPENED];
	struct petal_ring_ticket tickets[REPLICATE_WINDOW_MAX];
	uint64_t posted;
	uint64_t done;
	struct replicate_leg leg;
	enum petal_level level;
	uint16_t ports[2 * PETALS];
	unsigned opened;
	bool attached;
	uint64_t batches;
	uint64_t records;
	double batch;
	uint8_t *payload;
};

static struct ours ours = { .batch = 1 };

static const enum petal_level levels[REPLICATE_LEVELS] = {
	[REPLICATE_MEM2] = PETAL_LEVEL_MEM2,
	[REPLICATE_MEM3] = PETAL_LEVEL_MEM3,
	[REPLICATE_DISK2] = PETAL_LEVEL_DISK2,
	[REPLICATE_DISK3] = PETAL_LEVEL_DISK3,
};

double replicate_petal_batch(void)
{
	return ours.batch;
}

static uint64_t soon(void)
{
	return petal_clock_now_ns() + PETAL_S(REPLICATE_ANSWER_S);
}

static int fail(struct replicate_system *system, const char *what, int err)
{
	const char *why = ours.node.error[0] ? ours.node.error
					     : petal_strerror(err);

	snprintf(system->reason, sizeof(system->reason), "%.80s: %.160s", what,
		 why);
	return err;
}

/* The three nodes. */

static int write_config(const struct petal_nest *nest, unsigned n,
			const char *path)
{
	FILE *file = fopen(path, "we");

	if (!file)
		return -errno;
	fprintf(file,
		"[petal]\ncluster = bench\nnode = %u\ndir = %s/petal.%u\n"
		"key = %s/cluster.key\nprovider = tcp\njournal_bytes = 128M\n"
		"heartbeat_ms = 100\nsuspect_beats = 50\n"
		"allow_same_host = yes\n",
		n + 1, nest->dir, n + 1, nest->dir);
	for (unsigned i = 0; i < PETALS; i++)
		fprintf(file,
			"\n[node %u]\nname = n%u\ndomain = rack-%u\n"
			"fabric = 127.0.0.1:%u\nregistry = 127.0.0.1:%u\n",
			i + 1, i + 1, i + 1, ours.ports[2 * i],
			ours.ports[2 * i + 1]);
	return fclose(file) == 0 ? 0 : -errno;
}

/* Where the build has it, or where it was installed. */
static int find_petald(char path[PETAL_NEST_PATH])
{
	char self[PETAL_NEST_PATH];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int directory;

	if (length < 0)
		return -errno;
	self[length] = '\0';
	directory = (int)(strrchr(self, '/') - self);
	snprintf(path, PETAL_NEST_PATH, "%.*s/../fabric/petald", directory,
		 self);
	if (access(path, X_OK) == 0 || petal_nest_find("petald", path))
		return 0;
	return -ENOENT;
}

static int start_nodes(struct petal_nest *nest)
{
	char petald[PETAL_NEST_PATH], key[PETAL_NEST_PATH];
	int err = find_petald(petald);

	petal_nest_path(nest, "cluster.key", key);
	if (err == 0)
		err = petal_nest_ports(ours.ports, 2 * PETALS);
	if (err == 0)
		err = petal_seal_key_create(key);
	for (unsigned i = 0; i < PETALS && err == 0; i++) {
		char name[16], path[PETAL_NEST_PATH];
		const char *argv[] = { petald, "--config", path, NULL };

		snprintf(name, sizeof(name), "petal.conf.%u", i + 1);
		petal_nest_path(nest, name, path);
		err = write_config(nest, i, path);
		snprintf(name, sizeof(name), "petald-%u", i + 1);
		if (err == 0)
			err = petal_nest_start(nest, name, argv, NULL);
	}
	return err;
}

/* Three nodes that have just been started need a moment to meet. */
static int attach(struct replicate_system *system, struct petal_nest *nest)
{
	uint64_t end_ns = petal_clock_now_ns() + PETAL_S(REPLICATE_START_S);
	unsigned first = nest->count - PETALS;
	char path[PETAL_NEST_PATH], words[160];
	int err;

	petal_nest_path(nest, "petal.1", path);
	do {
		poll(NULL, 0, 20);
		err = petal_nest_check(nest, first, PETALS);
		if (err < 0) {
			petal_nest_words(nest, "petald-1", words,
					 sizeof(words));
			return fail(system, words, err);
		}
		err = ours.attached ? 0 : petal_node_attach(path, &ours.node);
		ours.attached = err == 0;
		if (err == 0)
			err = petal_ring_create(&ours.node, RING, DATA_BYTES,
						NULL, 0);
		if (err == 0 || err == -EEXIST)
			return 0;
	} while (petal_clock_now_ns() < end_ns && !petal_nest_stopped());
	return fail(system, "no ring on three petald", err);
}

static int petal_open(struct replicate_system *system, struct petal_nest *nest)
{
	int err = start_nodes(nest);

	if (err < 0)
		return fail(system, "cannot start three petald", err);
	err = attach(system, nest);
	for (unsigned i = 0; i < OPENED && err == 0; i++) {
		err = petal_ring_open(&ours.node, RING, &ours.rings[i]);
		if (err < 0)
			return fail(system, "cannot open the ring", err);
		ours.opened++;
	}
	snprintf(system->version, sizeof(system->version), "petald, tcp");
	ours.payload = malloc(REPLICATE_BYTES_MAX);
	return err == 0 && !ours.payload ? -ENOMEM : err;
}

/* A leg. */

static uint64_t counted(json_t *status, const char *part, const char *name)
{
	return (uint64_t)json_integer_value(
		json_object_get(json_object_get(status, part), name));
}

/* Batches of the primary's journal since the last time. */
static uint64_t new_batches(void)
{
	uint64_t before = ours.batches;
	json_t *status;

	if (petal_node_status(&ours.node, &status) < 0)
		return 0;
	ours.batches = counted(status, "journal", "batches");
	json_decref(status);
	return ours.batches - before;
}

static int petal_begin(struct replicate_system *system,
		       const struct replicate_leg *leg)
{
	(void)system;
	if (leg->bytes > petal_ring_length_max(&ours.rings[0]))
		return -EMSGSIZE;
	ours.leg = *leg;
	ours.level = levels[leg->level];
	ours.records = ours.posted;
	new_batches();
	return 0;
}

static int petal_post(struct replicate_system *system, uint64_t sequence)
{
	uint64_t place = ours.posted % REPLICATE_WINDOW_MAX;
	int err;

	(void)system;
	petal_payload_fill(ours.payload, ours.leg.bytes, sequence);
	err = petal_ring_publish_until(&ours.rings[ours.posted % OPENED], 0,
				       ours.payload, (uint32_t)ours.leg.bytes,
				       soon(), &ours.tickets[place]);
	ours.posted += err == 0;
	return err;
}

static int wait_one(uint64_t number, enum petal_level level,
		    uint64_t deadline_ns)
{
	return petal_ring_wait(&ours.rings[number % OPENED],
			       &ours.tickets[number % REPLICATE_WINDOW_MAX],
			       level, deadline_ns, NULL);
}

static int petal_await(struct replicate_system *system, unsigned least)
{
	uint64_t before = ours.done;
	int err = wait_one(before + least - 1, ours.level, soon());

	(void)system;
	if (err < 0)
		return err;
	ours.done += least;
	/* An answer covers all before it; what else is there comes along. */
	while (ours.done < ours.posted &&
	       wait_one(ours.done, ours.level, 0) == 0)
		ours.done++;
	return (int)(ours.done - before);
}

/* What is not on all disks yet would disturb whoever is measured next. */
static int petal_end(struct replicate_system *system)
{
	uint64_t batches;
	int err = 0;

	(void)system;
	if (ours.posted > 0)
		err = wait_one(ours.posted - 1, PETAL_LEVEL_DISK3, soon());
	batches = new_batches();
	if (ours.leg.level >= REPLICATE_DISK2 && ours.leg.window > 1 &&
	    batches > 0)
		ours.batch =
			(double)(ours.posted - ours.records) / (double)batches;
	return err;
}

static void petal_close(struct replicate_system *system)
{
	(void)system;
	while (ours.opened > 0)
		petal_ring_close(&ours.rings[--ours.opened]);
	if (ours.attached)
		petal_node_detach(&ours.node);
	ours.attached = false;
	free(ours.payload);
	ours.payload = NULL;
}

struct replicate_system replicate_petal = {
	.impl = "petal",
	.levels = (1u << REPLICATE_LEVELS) - 1,
	.large = true,
	.remark = "three petald, which sleep",
	.open = petal_open,
	.begin = petal_begin,
	.post = petal_post,
	.await = petal_await,
	.end = petal_end,
	.close = petal_close,
};
