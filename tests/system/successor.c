/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A producer and a taker of one ring, while somebody kills its primary again and
 * again: nothing acknowledged may be missing, nothing may be there twice, or out of order.
 *
 *    successor make DIR RING             makes the ring
 *    successor run KILLS LEVEL RING DIR...
 *    successor run 0 LEVEL RING DIR...     until the end of stdin
 *
 * A line "SECONDS.MICROSECONDS [leader]" on stdin says when somebody killed the
 * primary's petald, and whether it led the registry too; from there the time to
 * the next acknowledgement is measured. Prints
 * "primary DIR" on stdout whenever it has found one and the ring takes records,
 * and a JSON line at the end. Run by failover.sh, and by the proof faults.
 *
 * Each record carries a number. The producer sends a number again only when the
 * ring says that the record is not in it. The taker counts each number by a bit,
 * acknowledges, and on -PETAL_EUNKNOWN takes again what comes: a message has one
 * name for ever, (lsn, index), so a second delivery is told from a second
 * record.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fabric/node.h"
#include "fabric/ring.h"
#include "shm/clock.h"
#include "shm/error.h"

#define WINDOW 64u
#define NUMBERS_MAX (UINT64_C(1) << 24)
#define WAIT_NS PETAL_S(20)
#define RING_BYTES (UINT64_C(1) << 20)
#define DIRS_MAX 8
#define KILLS_MAX 10000u
#define RECORD_BYTES 256u

struct sent {
	uint64_t session;
	struct petal_ring_ticket ticket;
};

struct kill {
	uint64_t at_us;
	uint64_t took_us;
	bool leader;
};

struct run {
	const char *dirs[DIRS_MAX];
	unsigned dir_count;
	const char *name;
	enum petal_level level;
	unsigned kill_count;
	/* The producer. */
	struct petal_node node;
	struct petal_ring ring;
	struct sent window[WINDOW];
	uint64_t next;  /* number */
	uint64_t first; /* number that is not acknowledged yet */
	uint64_t acknowledged;
	uint64_t unknown, found, again;
	struct kill kills[KILLS_MAX];
	unsigned killed, served, unasked;
	bool told_to_end;
	_Atomic bool sent_all;
	/* The taker. */
	uint64_t *lsn_of; /* by number: 0 not seen */
	uint64_t seen, twice, comes_again, lost_leases;
	_Atomic bool failed;
};

static struct run run;

static int fail(const char *what, int err)
{
	fprintf(stderr, "successor: %s: %s\n", what, petal_strerror(err));
	atomic_store(&run.failed, true);
	return err;
}

static uint64_t until(void)
{
	return petal_clock_now_ns() + WAIT_NS;
}

static int find(struct petal_node *node, struct petal_ring *ring)
{
	int err = petal_ring_find(run.dirs, run.dir_count, run.name, until(),
				  node, ring);

	return err < 0 ? fail("no primary is found", err) : 0;
}

/* The producer. */

static uint64_t wall_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool is_over(void)
{
	return run.kill_count == 0 ? run.told_to_end
				   : run.killed == run.kill_count;
}

static void note_kill(int timeout_ms)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	struct kill *kill = &run.kills[run.killed];
	uint64_t seconds, micros;
	char line[64];
	ssize_t n;

	if (is_over() || poll(&in, 1, timeout_ms) != 1)
		return;
	n = read(STDIN_FILENO, line, sizeof(line) - 1);
	run.told_to_end = n == 0;
	line[n < 0 ? 0 : n] = '\0';
	if (sscanf(line, "%" SCNu64 ".%" SCNu64, &seconds, &micros) != 2)
		return;
	kill->at_us = seconds * 1000000 + micros;
	kill->leader = strstr(line, "leader") != NULL;
	run.killed++;
}

static void say_primary(void)
{
	for (unsigned i = 0; i < run.dir_count; i++) {
		struct petal_node node;

		if (petal_node_attach(run.dirs[i], &node) < 0)
			continue;
		if (node.id == run.node.id)
			printf("primary %s\n", run.dirs[i]);
		petal_node_detach(&node);
	}
	fflush(stdout);
}

static int publish(uint64_t number, struct sent *sent)
{
	uint8_t bytes[RECORD_BYTES] = { 0 };

	memcpy(bytes, &number, sizeof(number));
	sent->session = run.ring.session;
	return petal_ring_publish_until(&run.ring, 1, bytes, sizeof(bytes),
					until(), &sent->ticket);
}

static int ask(uint64_t number)
{
	const struct sent *sent = &run.window[number % WINDOW];

	return petal_producer_outcome(&run.ring, sent->session,
				      sent->ticket.sequence, run.level, until(),
				      NULL);
}

/*
 * All that were under way: what the ring has is done, the rest is sent anew. A
 * producer's records are in order, so after a missing one all are missing.
 */
static int resolve(void)
{
	int err = 0;

	petal_ring_close(&run.ring);
	petal_node_detach(&run.node);
	if (find(&run.node, &run.ring) < 0)
		return -ENOENT;
	run.unknown += run.next - run.first;
	while (err == 0 && run.first < run.next) {
		err = ask(run.first);
		if (err == 0) {
			run.first++;
			run.acknowledged++;
			run.found++;
		}
	}
	for (uint64_t n = run.first; err == -ENOENT && n < run.next; n++)
		err = ask(n);
	if (err == -ENOENT) {
		run.again += run.next - run.first;
		run.next = run.first;
		err = 0;
	}
	return err >= 0 && run.first < run.next ? -PETAL_ECORRUPT : err;
}

static void served(void)
{
	while (run.served < run.killed) {
		struct kill *kill = &run.kills[run.served++];

		kill->took_us = wall_us() - kill->at_us;
	}
}

static int produce_one(void)
{
	struct sent *sent = &run.window[run.next % WINDOW];
	int err = 0;

	if (run.next - run.first == WINDOW) {
		err = petal_ring_wait(&run.ring,
				      &run.window[run.first % WINDOW].ticket,
				      run.level, until(), NULL);
		if (err == 0) {
			run.first++;
			run.acknowledged++;
		}
		return err;
	}
	err = publish(run.next, sent);
	if (err == 0)
		run.next++;
	return err;
}

/* The first record after a kill is waited for alone: it says that all is well. */
static int first_again(void)
{
	while (run.first < run.next) {
		int err = petal_ring_wait(
			&run.ring, &run.window[run.first % WINDOW].ticket,
			run.level, until(), NULL);

		if (err < 0)
			return err;
		run.first++;
		run.acknowledged++;
	}
	return 0;
}

static int recover(void)
{
	int err;

	do {
		err = resolve();
		if (err == 0)
			err = publish(run.next, &run.window[run.next % WINDOW]);
		if (err == 0) {
			run.next++;
			err = first_again();
		}
	} while (err == -PETAL_EUNKNOWN);
	if (err < 0)
		return fail("cannot go on after a kill", err);
	/* Whoever killed may tell us after we have noticed. */
	if (run.served == run.killed && run.kill_count > 0)
		note_kill(1000);
	run.unasked += run.served == run.killed;
	served();
	say_primary();
	return 0;
}

static int produce(void)
{
	uint64_t end_ns = 0;
	int err = 0;

	while (err == 0 && !atomic_load(&run.failed)) {
		note_kill(0);
		if (is_over() && run.served == run.killed && end_ns == 0)
			end_ns = petal_clock_now_ns() + PETAL_MS(200);
		if (end_ns != 0 && petal_clock_now_ns() > end_ns)
			break;
		if (run.next == NUMBERS_MAX)
			return fail("too many records", -ERANGE);
		err = produce_one();
		if (err == -PETAL_EUNKNOWN)
			err = recover();
	}
	while (err == 0 && run.first < run.next) {
		err = first_again();
		if (err == -PETAL_EUNKNOWN)
			err = recover();
	}
	return err < 0 ? fail("cannot send", err) : 0;
}

/* The taker. */

static void count(const struct petal_message *message)
{
	uint64_t number;

	memcpy(&number, message->bytes, sizeof(number));
	if (message->length != RECORD_BYTES || number >= NUMBERS_MAX) {
		fail("a message is none of ours", -PETAL_ECORRUPT);
	} else if (run.lsn_of[number] == 0) {
		run.lsn_of[number] = message->lsn;
		run.seen++;
	} else if (run.lsn_of[number] == message->lsn) {
		run.comes_again++;
	} else {
		run.twice++;
	}
}

static int take_some(struct petal_ring *ring)
{
	struct petal_message messages[16];
	unsigned n = 0;
	int err;

	err = petal_ring_take(ring, 1, petal_clock_now_ns() + PETAL_MS(50),
			      &messages[0]);
	if (err != 0)
		return err;
	do {
		count(&messages[n++]);
	} while (n < 16 && petal_ring_take(ring, 1, 0, &messages[n]) == 0);
	err = petal_ring_forward(ring, messages, n, NULL, 0, run.level,
				 until());
	if (err == -ESTALE) {
		run.lost_leases += n;
		return 0;
	}
	return err;
}

static void *take_all(void *arg)
{
	struct petal_node node;
	struct petal_ring ring;
	int err = find(&node, &ring);

	(void)arg;
	while (err >= 0 && !atomic_load(&run.failed)) {
		err = take_some(&ring);
		if (err == -PETAL_EUNKNOWN) {
			petal_ring_close(&ring);
			petal_node_detach(&node);
			err = find(&node, &ring);
		} else if (err == 1 && atomic_load(&run.sent_all)) {
			/* Nothing came, and all that was sent is visible. */
			if (petal_ring_drain(&ring, 1, until()) == 0)
				return NULL;
		}
	}
	if (err < 0)
		fail("cannot take", err);
	return NULL;
}

/* All of it. */

static int compare(const void *a, const void *b)
{
	const struct kill *x = a, *y = b;

	if (x->leader != y->leader)
		return x->leader ? 1 : -1;
	return x->took_us < y->took_us ? -1 : x->took_us > y->took_us;
}

static void print_row(const char *name, const struct kill *kills,
		      unsigned count)
{
	static const unsigned percents[] = { 50, 99, 100 };

	printf(", \"%s\": {\"kills\": %u", name, count);
	for (unsigned i = 0; count > 0 && i < 3; i++)
		printf(", \"p%u_ms\": %.1f", percents[i],
		       (double)kills[(count * percents[i] + 99) / 100 - 1]
				       .took_us /
			       1e3);
	putchar('}');
}

static int report(void)
{
	uint64_t missing = 0, misplaced = 0, last = 0;
	unsigned plain = 0;

	for (uint64_t n = 0; n < run.acknowledged; n++) {
		missing += run.lsn_of[n] == 0;
		misplaced += run.lsn_of[n] < last;
		last = run.lsn_of[n];
	}
	qsort(run.kills, run.served, sizeof(run.kills[0]), compare);
	while (plain < run.served && !run.kills[plain].leader)
		plain++;
	printf("{\"level\": \"%s\", \"acknowledged\": %" PRIu64
	       ", \"missing\": %" PRIu64 ", \"misplaced\": %" PRIu64
	       ", \"twice\": %" PRIu64 ", \"unknown\": %" PRIu64
	       ", \"found\": %" PRIu64 ", \"sent_again\": %" PRIu64
	       ", \"delivered_again\": %" PRIu64 ", \"unasked\": %u",
	       petal_level_name(run.level), run.acknowledged, missing,
	       misplaced, run.twice, run.unknown, run.found, run.again,
	       run.comes_again, run.unasked);
	print_row("primary", run.kills, plain);
	print_row("primary_and_leader", run.kills + plain, run.served - plain);
	printf("}\n");
	return missing == 0 && misplaced == 0 && run.twice == 0 &&
			       run.seen == run.acknowledged &&
			       !atomic_load(&run.failed)
		       ? 0
		       : 1;
}

static int run_all(void)
{
	pthread_t taker;
	int err;

	run.lsn_of = calloc(NUMBERS_MAX, sizeof(*run.lsn_of));
	if (run.lsn_of == NULL || find(&run.node, &run.ring) < 0)
		return 1;
	pthread_create(&taker, NULL, take_all, NULL);
	say_primary();
	err = produce();
	atomic_store(&run.sent_all, true);
	pthread_join(taker, NULL);
	return err < 0 ? 1 : report();
}

static int make(const char *dir, const char *name)
{
	static const struct petal_node_queue queue = { "q", 4096, PETAL_S(2) };
	struct petal_node node;
	int err = petal_node_attach(dir, &node);

	if (err == 0)
		err = petal_ring_create(&node, name, RING_BYTES, &queue, 1);
	return err < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "make") == 0)
		return make(argv[2], argv[3]);
	if (argc < 6 || argc > 5 + DIRS_MAX || strcmp(argv[1], "run") != 0)
		return 2;
	run.kill_count = (unsigned)atoi(argv[2]);
	run.name = argv[4];
	if (run.kill_count > KILLS_MAX ||
	    petal_level_parse(argv[3], &run.level) < 0)
		return 2;
	for (int i = 5; i < argc; i++)
		run.dirs[run.dir_count++] = argv[i];
	return run_all();
}
