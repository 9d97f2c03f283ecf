/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings that come, rest and go beside others, which must not feel it.
 *
 *    churn DIR [LOOPS]     DIR is [petal] dir of a node that runs
 *    churn DIR leave       leaves the ring "left", with messages on all disks
 *
 * Run by durable.sh, with a journal of 16 MiB. Harder: more LOOPS.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/node.h"
#include "fabric/ring.h"
#include "shm/clock.h"
#include "shm/error.h"

#define RING_BYTES (UINT64_C(1) << 20)
#define RECORD_BYTES 4096u
#define LOOPS 40u

static struct petal_node node;

static int fail(const char *what, int err)
{
	fprintf(stderr, "churn: %s: %s: %s\n", what, petal_strerror(err),
		node.error);
	return err;
}

static int make(const char *name, struct petal_ring *ring)
{
	static const struct petal_node_queue queue = { "q", 64, PETAL_S(1) };
	int err = petal_ring_create(&node, name, RING_BYTES, &queue, 1);

	if (err == 0)
		err = petal_ring_open(&node, name, ring);
	return err < 0 ? fail(name, err) : 0;
}

static int end(const char *name, struct petal_ring *ring)
{
	int err;

	petal_ring_close(ring);
	err = petal_ring_delete(&node, name);
	return err < 0 ? fail(name, err) : 0;
}

static int send(struct petal_ring *ring, uint32_t queue)
{
	static uint8_t bytes[RECORD_BYTES];

	return petal_ring_send(ring, queue, bytes, sizeof(bytes),
			       PETAL_LEVEL_DISK3,
			       petal_clock_now_ns() + PETAL_S(10), NULL);
}

/* A number of the node's status. */
static json_int_t count_of(const char *part, const char *key)
{
	json_int_t number = -1;
	json_t *status;

	if (petal_node_status(&node, &status) < 0)
		return -1;
	number = json_integer_value(
		json_object_get(json_object_get(status, part), key));
	json_decref(status);
	return number;
}

/*
 * The batches of a ring at rest lie in the journal before those of a busy one,
 * which needs their space when it has filled the journal once.
 */
static int ring_at_rest_keeps_no_space(void)
{
	uint64_t bytes = (uint64_t)count_of("journal", "capacity_bytes");
	struct petal_ring resting, busy;
	int err = make("resting", &resting);

	if (err == 0)
		err = make("busy", &busy);
	if (err == 0)
		err = send(&resting, 0);
	for (uint64_t sent = 0; err == 0 && sent < 2 * bytes;
	     sent += RECORD_BYTES)
		err = send(&busy, 0);
	if (err < 0)
		return fail("a ring beside one at rest", err);
	err = end("busy", &busy);
	return err == 0 ? end("resting", &resting) : err;
}

/* A write to memory that is gone would cost the two nodes their connection. */
static int deleted_under_writes_leaves_links_alone(unsigned loops)
{
	json_int_t admitted = count_of("wire", "admitted");
	struct petal_ring_ticket ticket;
	struct petal_ring ring;
	uint8_t bytes[300] = { 0 };
	int err = 0;

	for (unsigned i = 0; err == 0 && i < loops; i++) {
		err = make("brief", &ring);
		for (unsigned n = 0; err == 0 && n < 20; n++)
			err = petal_ring_publish(&ring, 0, bytes, sizeof(bytes),
						 &ticket);
		if (err == 0)
			err = end("brief", &ring);
	}
	if (err < 0)
		return fail("rings that come and go", err);
	if (count_of("wire", "admitted") == admitted)
		return 0;
	return fail("nodes that lost each other", -ECONNRESET);
}

static int leave(void)
{
	struct petal_ring ring;
	int err = make("left", &ring);

	for (unsigned n = 0; err == 0 && n < 16; n++)
		err = send(&ring, 1);
	if (err < 0)
		return fail("left", err);
	petal_ring_close(&ring);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned loops = argc > 2 ? (unsigned)atoi(argv[2]) : LOOPS;
	int err;

	if (argc < 2)
		return 2;
	err = petal_node_attach(argv[1], &node);
	if (err < 0)
		return fail(argv[1], err) != 0;
	if (argc > 2 && strcmp(argv[2], "leave") == 0)
		return leave() != 0;
	err = deleted_under_writes_leaves_links_alone(loops);
	if (err == 0)
		err = ring_at_rest_keeps_no_space();
	petal_node_detach(&node);
	return err != 0;
}
