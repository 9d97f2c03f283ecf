/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Producers and a taker that write down, line by line, what they were told, so
 * that whoever kills them and every petald knows what must be there afterwards.
 *
 *    outage make DIR RING           makes the ring
 *    outage load RING LEVEL ROUND DIR...   two producers and a taker, at its
 *                                   primary, until killed
 *    outage drain RING DIR...       takes what there is, from its primary
 *
 * Lines of load: "put N": acknowledged at LEVEL. "try N": about to be
 * acknowledged by the taker; "done N": that is at LEVEL. Lines of drain: "loss
 * EPOCH LSN" as the ring was opened, then "got N LSN". Numbers of one producer
 * grow by 1 in a round; they begin at ROUND times ROUND_NUMBERS, and the second's
 * are higher by SECOND. Run by outage.sh.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/node.h"
#include "fabric/ring.h"
#include "shm/clock.h"
#include "shm/error.h"

#define RING_BYTES (UINT64_C(1) << 22)
#define RECORD_BYTES 64u
#define WINDOW 32u
#define SECOND UINT64_C(1000000000)
#define ROUND_NUMBERS UINT64_C(1000000)
#define WAIT_NS PETAL_S(20)
#define REST_NS PETAL_MS(500)
#define DIRS_MAX 3

static const char *dirs[DIRS_MAX], *name;
static unsigned dir_count;
static enum petal_level level;

static uint64_t until(void)
{
	return petal_clock_now_ns() + WAIT_NS;
}

/* One write a line: what was written before a kill is there after it. */
static void say(const char *word, uint64_t number)
{
	char line[64];
	int n = snprintf(line, sizeof(line), "%s %" PRIu64 "\n", word, number);

	if (write(STDOUT_FILENO, line, (size_t)n) != n)
		exit(4);
}

/* Whoever hears that petald is gone has nothing more to say. */
static void give_up(const char *what, int err)
{
	if (err != -PETAL_EUNKNOWN && err != -EPIPE)
		fprintf(stderr, "outage: %s: %s\n", what, petal_strerror(err));
	exit(3);
}

static void find(struct petal_node *node, struct petal_ring *ring)
{
	int err = petal_ring_find(dirs, dir_count, name, until(), node, ring);

	if (err < 0)
		give_up("no primary is found", err);
}

static void *produce(void *arg)
{
	struct petal_ring_ticket window[WINDOW];
	uint64_t first = *(uint64_t *)arg, next = first;
	uint8_t bytes[RECORD_BYTES] = { 0 };
	struct petal_node node;
	struct petal_ring ring;
	int err;

	find(&node, &ring);
	for (;;) {
		if (next - first == WINDOW) {
			err = petal_ring_wait(&ring, &window[first % WINDOW],
					      level, until(), NULL);
			if (err < 0)
				give_up("cannot put", err);
			say("put", first++);
		}
		memcpy(bytes, &next, sizeof(next));
		err = petal_ring_publish_until(&ring, 1, bytes, sizeof(bytes),
					       until(), &window[next % WINDOW]);
		if (err < 0)
			give_up("cannot publish", err);
		next++;
	}
	return NULL;
}

static uint64_t number_of(const struct petal_message *message)
{
	uint64_t number;

	if (message->length != RECORD_BYTES)
		give_up("a message is none of ours", -PETAL_ECORRUPT);
	memcpy(&number, message->bytes, sizeof(number));
	return number;
}

static void *take(void *arg)
{
	struct petal_message message;
	struct petal_node node;
	struct petal_ring ring;
	int err;

	(void)arg;
	find(&node, &ring);
	for (;;) {
		err = petal_ring_take(&ring, 1, until(), &message);
		if (err == 1)
			continue;
		if (err < 0)
			give_up("cannot take", err);
		say("try", number_of(&message));
		err = petal_ring_forward(&ring, &message, 1, NULL, 0, level,
					 until());
		if (err < 0)
			give_up("cannot acknowledge", err);
		say("done", number_of(&message));
	}
	return NULL;
}

static int load(uint64_t round)
{
	uint64_t firsts[2] = { round * ROUND_NUMBERS,
			       round * ROUND_NUMBERS + SECOND };
	pthread_t threads[2];

	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, produce, &firsts[i]);
	take(NULL);
	return 0;
}

static int drain(void)
{
	struct petal_message message;
	struct petal_node node;
	struct petal_ring ring;
	int err;

	find(&node, &ring);
	printf("loss %" PRIu32 " %" PRIu64 "\n", ring.loss_epoch,
	       ring.loss_lsn);
	while ((err = petal_ring_take(&ring, 1, petal_clock_now_ns() + REST_NS,
				      &message)) == 0) {
		printf("got %" PRIu64 " %" PRIu64 "\n", number_of(&message),
		       message.lsn);
		err = petal_ring_forward(&ring, &message, 1, NULL, 0,
					 PETAL_LEVEL_LOCAL, until());
		if (err < 0)
			break;
	}
	if (err < 0)
		give_up("cannot drain", err);
	petal_ring_close(&ring);
	petal_node_detach(&node);
	return 0;
}

static int make(const char *dir)
{
	static const struct petal_node_queue queue = { "q", 16384, PETAL_S(9) };
	struct petal_node node;
	int err = petal_node_attach(dir, &node);

	if (err == 0)
		err = petal_ring_create(&node, name, RING_BYTES, &queue, 1);
	return err < 0 ? 1 : 0;
}

/* The arguments from @at on are directories. */
static bool read_dirs(int argc, char **argv, int at)
{
	if (at >= argc || argc - at > DIRS_MAX)
		return false;
	while (at < argc)
		dirs[dir_count++] = argv[at++];
	return true;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	if (argc == 4 && strcmp(argv[1], "make") == 0) {
		name = argv[3];
		return make(argv[2]);
	}
	name = argv[2];
	if (strcmp(argv[1], "drain") == 0 && read_dirs(argc, argv, 3))
		return drain();
	if (strcmp(argv[1], "load") == 0 && read_dirs(argc, argv, 5) &&
	    petal_level_parse(argv[3], &level) == 0)
		return load(strtoull(argv[4], NULL, 10));
	return 2;
}
