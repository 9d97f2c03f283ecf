/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings that come, rest and go beside others, which must not feel it.
 *
 *    churn DIR [LOOPS]     DIR is [petal] dir of a node that runs
 *    churn DIR short       only tries a record that is too long
 *    churn DIR leave       leaves the ring "left", with messages on all disks
 *    churn DIR stop        a producer stops with a claim, which the others must
 *                          not feel for longer than the node's stall_ns
 *
 * Run by durable.sh, with a journal of 16 MiB. Harder: more LOOPS.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

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

static uint64_t until(void)
{
	return petal_clock_now_ns() + PETAL_S(20);
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

/* One whose bytes do not matter; more of them than any ring here has. */
static int publish_length(struct petal_ring *ring, uint32_t length)
{
	static const uint8_t bytes[2 * RING_BYTES];
	struct petal_ring_ticket ticket;

	return petal_ring_publish(ring, 1, bytes, length, &ticket);
}

static int forward_length(struct petal_ring *ring,
			  const struct petal_message *input, uint32_t length)
{
	static const uint8_t bytes[2 * RING_BYTES];
	const struct petal_output output = { 1, length, bytes };

	return petal_ring_forward(ring, input, 1, &output, length > 0,
				  PETAL_LEVEL_MEM2,
				  petal_clock_now_ns() + PETAL_S(10));
}

/*
 * Refused at once, by the caller's own library; nothing of it is in the ring,
 * and a lease that was to be settled by it is as good as before.
 */
static int record_larger_than_a_ring_is_refused(void)
{
	struct petal_message message;
	struct petal_ring ring;
	int err = make("short", &ring);
	uint32_t most;

	if (err < 0)
		return err;
	most = petal_ring_length_max(&ring);
	if (most >= RING_BYTES ||
	    publish_length(&ring, most + 1) != -EMSGSIZE ||
	    publish_length(&ring, 2 * RING_BYTES) != -EMSGSIZE ||
	    publish_length(&ring, UINT32_MAX) != -EMSGSIZE)
		return fail("a record longer than its ring", -EINVAL);
	err = publish_length(&ring, most);
	if (err == 0)
		err = petal_ring_take(
			&ring, 1, petal_clock_now_ns() + PETAL_S(10), &message);
	if (err != 0 || message.length != most)
		return fail("the longest record", err < 0 ? err : -EINVAL);
	if (forward_length(&ring, &message, most + 1) != -EMSGSIZE ||
	    forward_length(&ring, &message, UINT32_MAX) != -EMSGSIZE)
		return fail("a forward longer than its ring", -EINVAL);
	err = forward_length(&ring, &message, 0);
	if (err < 0)
		return fail("the acknowledgement after it", err);
	return end("short", &ring);
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

/*
 * The child, which is stopped between claim and commit. What it claimed never
 * becomes part of the ring, and it is told so when it goes on.
 */
static int stop_with_a_claim(const char *dir)
{
	struct petal_ring_ticket ticket;
	struct petal_ring_claim claim;
	struct petal_node own;
	struct petal_ring ring;
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	err = petal_ring_find(&dir, 1, "stopped", until(), &own, &ring);
	if (err == 0)
		err = petal_ring_claim(&ring, 1, 8, 0, &claim);
	if (err == 0 && petal_ring_claim(&ring, 1, 8, 0, &claim) != -EBUSY)
		err = -EPROTO;
	if (err < 0)
		return fail("who stops", err);
	raise(SIGSTOP);
	memcpy(claim.payload, "too late", 8);
	err = petal_ring_commit(&ring, &claim, &ticket);
	if (err == -ESTALE)
		err = petal_ring_claim(&ring, 1, 8, 0, &claim);
	petal_ring_close(&ring);
	petal_node_detach(&own);
	return err == -PETAL_EUNKNOWN ? 0 : fail("who was stopped", err);
}

/* Sent in time, or again in the epoch that goes on without the other. */
static int send_beside(const char *dir, struct petal_node *own,
		       struct petal_ring *ring)
{
	struct petal_ring_ticket ticket;
	uint64_t session = ring->session, lsn;
	int err = petal_ring_publish(ring, 1, "in time", 8, &ticket);

	if (err == 0)
		err = petal_ring_wait(ring, &ticket, PETAL_LEVEL_MEM2, until(),
				      &lsn);
	if (err != -PETAL_EUNKNOWN)
		return fail("beside one that is stopped", err ? err : -EPROTO);
	petal_ring_close(ring);
	petal_node_detach(own);
	err = petal_ring_find(&dir, 1, "stopped", until(), own, ring);
	if (err < 0)
		return fail("the epoch after", err);
	err = petal_producer_outcome(ring, session, ticket.sequence,
				     PETAL_LEVEL_MEM2, until(), &lsn);
	if (err != -ENOENT)
		return fail("a record behind the claim", err);
	err = petal_ring_send(ring, 1, "in time", 8, PETAL_LEVEL_MEM2, until(),
			      &lsn);
	return err < 0 ? fail("in the epoch after", err) : 0;
}

static int take_only_one(struct petal_ring *ring)
{
	struct petal_message message;
	int err = petal_ring_take(ring, 1, until(), &message);

	if (err == 0 && memcmp(message.bytes, "in time", 8) != 0)
		err = -EPROTO;
	if (err == 0)
		err = petal_ring_forward(ring, &message, 1, NULL, 0,
					 PETAL_LEVEL_MEM2, until());
	if (err == 0 && petal_ring_take(ring, 1, 0, &message) != 1)
		err = -EPROTO;
	return err == 0 ? 0 : fail("what is in the ring", err);
}

static int goes_on_without_one_that_stops(const char *dir)
{
	struct petal_node own;
	struct petal_ring ring;
	int status = 0, err = make("stopped", &ring);
	pid_t child;

	petal_ring_close(&ring);
	child = err == 0 ? fork() : -1;
	if (child < 0)
		return err < 0 ? err : -errno;
	if (child == 0)
		_exit(stop_with_a_claim(dir) != 0);
	if (waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status))
		return fail("who stops", -ECHILD);
	err = petal_ring_find(&dir, 1, "stopped", until(), &own, &ring);
	if (err == 0)
		err = send_beside(dir, &own, &ring);
	kill(child, SIGCONT);
	if (waitpid(child, &status, 0) != child || status != 0)
		err = fail("who was stopped", -ECHILD);
	if (err == 0)
		err = take_only_one(&ring);
	if (err == 0 && count_of("counts", "stalls") != 1)
		err = fail("stalls of the status", -EPROTO);
	petal_ring_close(&ring);
	petal_node_detach(&own);
	return err == 0 ? petal_ring_delete(&node, "stopped") : err;
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
	if (argc > 2 && strcmp(argv[2], "stop") == 0)
		return goes_on_without_one_that_stops(argv[1]) != 0;
	if (argc > 2 && strcmp(argv[2], "short") == 0)
		return record_larger_than_a_ring_is_refused() != 0;
	err = deleted_under_writes_leaves_links_alone(loops);
	if (err == 0)
		err = ring_at_rest_keeps_no_space();
	petal_node_detach(&node);
	return err != 0;
}
