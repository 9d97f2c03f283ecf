/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the processes of the demo do. Each gets the directory of the demo, and
 * finds the petal that is the ring's primary, at the start and whenever that was
 * lost. What it cannot do it says in one sentence, and exits 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/clerk.h"
#include "actors/supervisor.h"
#include "actors/worker.h"
#include "fabric/cli/cli.h"
#include "fabric/cli/demo.h"
#include "shm/clock.h"
#include "shm/error.h"

#define WINDOW 64u /* records that the source has under way */
#define BATCH 8u
#define WAIT_NS PETAL_S(60)
#define GRACE_NS PETAL_S(5)
#define KEEPER_FD 3

static _Atomic bool stop;
static _Atomic bool freeze;

static void on_signal(int number)
{
	atomic_store_explicit(number == SIGUSR1 ? &freeze : &stop, true,
			      memory_order_relaxed);
}

/* SIGTERM ends us in order; Ctrl-C is the demo's to act on. */
static void arrange_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	signal(SIGINT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
}

static int complain(const char *role, const char *what, int err)
{
	fprintf(stderr, "petal %s: %s: %s\n", role, what, petal_strerror(err));
	return 1;
}

struct place {
	char paths[DEMO_PETALS][PATH_MAX];
	const char *dirs[DEMO_PETALS];
	struct petal_node node;
	struct petal_ring ring;
	enum petal_level level;
	uint32_t in, out;
};

static int find_ring(const char *role, struct place *place)
{
	int err = petal_ring_find(place->dirs, DEMO_PETALS, DEMO_RING,
				  petal_clock_now_ns() + WAIT_NS, &place->node,
				  &place->ring);

	if (err < 0)
		return complain(role, "cannot find the ring's primary", err);
	place->in = (uint32_t)petal_ring_queue(&place->ring, DEMO_QUEUE_IN);
	place->out = (uint32_t)petal_ring_queue(&place->ring, DEMO_QUEUE_OUT);
	return 0;
}

static int attach(const char *role, const char *dir, const char *level,
		  struct place *place)
{
	int err = petal_level_parse(level, &place->level);

	if (err < 0)
		return complain(role, level, err);
	for (unsigned i = 0; i < DEMO_PETALS; i++) {
		snprintf(place->paths[i], sizeof(place->paths[i]), "%.*s/%c",
			 PATH_MAX - 16, dir, (char)('a' + i));
		place->dirs[i] = place->paths[i];
	}
	return find_ring(role, place);
}

static void detach(struct place *place)
{
	petal_ring_close(&place->ring);
	petal_node_detach(&place->node);
}

/* The primary was lost: the ring goes on at another petal. */
static int follow(const char *role, struct place *place)
{
	detach(place);
	return find_ring(role, place) == 0 ? 0 : -ETIMEDOUT;
}

/* The source. */

struct sent {
	const char *bytes;
	size_t length;
	uint64_t session;
	struct petal_ring_ticket ticket;
};

struct source {
	struct place place;
	struct sent window[WINDOW];
	uint64_t sent;
	uint64_t acknowledged;
	uint64_t credit;
};

static int publish(struct source *s, struct sent *sent)
{
	sent->session = s->place.ring.session;
	return petal_ring_publish_until(&s->place.ring, s->place.in,
					sent->bytes, (uint32_t)sent->length,
					petal_clock_now_ns() + WAIT_NS,
					&sent->ticket);
}

/*
 * Of each record whose end we did not hear, the new primary knows whether it is
 * in the ring. If it is not it never will be, so we may send it again.
 */
static int resolve(struct source *s)
{
	int err;

	err = follow("demo-source", &s->place);
	for (uint64_t n = s->acknowledged; err == 0 && n < s->sent; n++) {
		struct sent *sent = &s->window[n % WINDOW];

		err = petal_producer_outcome(
			&s->place.ring, sent->session, sent->ticket.sequence,
			s->place.level, petal_clock_now_ns() + WAIT_NS, NULL);
		if (err == -ENOENT)
			err = publish(s, sent);
	}
	return err;
}

static int wait_one(struct source *s)
{
	struct sent *sent = &s->window[s->acknowledged % WINDOW];

	/* Of another opening: resolve() has found it in the ring. */
	if (sent->session != s->place.ring.session)
		return 0;
	return petal_ring_wait(&s->place.ring, &sent->ticket, s->place.level,
			       petal_clock_now_ns() + WAIT_NS, NULL);
}

static int collect_one(struct source *s)
{
	int err = wait_one(s);

	while (err == -PETAL_EUNKNOWN) {
		err = resolve(s);
		if (err == 0)
			err = wait_one(s);
	}
	if (err == 0)
		s->acknowledged++;
	return err;
}

/* Wait until the demo lets us send. 1 when it closed the pipe. */
static int wait_credit(struct source *s)
{
	uint64_t more;
	ssize_t n;

	while (s->sent == s->credit) {
		n = read(STDIN_FILENO, &more, sizeof(more));
		if (n == 0)
			return 1;
		if (n == sizeof(more))
			s->credit += more;
		else if (errno != EINTR)
			return -EIO;
	}
	return 0;
}

static int send_stanza(struct source *s, const char *bytes, size_t length)
{
	struct sent *sent = &s->window[s->sent % WINDOW];
	int err = 0;

	while (err == 0 && s->sent - s->acknowledged == WINDOW)
		err = collect_one(s);
	sent->bytes = bytes;
	sent->length = length;
	if (err == 0)
		err = publish(s, sent);
	while (err == -PETAL_EUNKNOWN) {
		err = resolve(s);
		if (err == 0)
			err = publish(s, sent);
	}
	if (err == 0)
		s->sent++;
	return err;
}

static int send_all(struct source *s, const char *bytes, size_t size)
{
	const char *at = bytes, *end = bytes + size, *stanza;
	size_t length;
	int err = 0;

	while (err == 0 && (stanza = stanza_next(&at, end, &length)) != NULL) {
		/* What was sent is acknowledged before we sit and wait. */
		while (err == 0 && s->sent == s->credit &&
		       s->acknowledged < s->sent)
			err = collect_one(s);
		if (err == 0)
			err = wait_credit(s);
		if (err == 0)
			err = send_stanza(s, stanza, length);
	}
	while (err == 0 && s->acknowledged < s->sent)
		err = collect_one(s);
	return err;
}

int cli_demo_source(int argc, char **argv)
{
	static struct source source;
	struct stat stat;
	void *bytes;
	int fd, err;

	arrange_signals();
	if (argc != 4 || attach(argv[0], argv[1], argv[3], &source.place) != 0)
		return 1;
	fd = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &stat) < 0)
		return complain(argv[0], argv[2], -errno);
	bytes = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED)
		return complain(argv[0], argv[2], -errno);
	err = send_all(&source, bytes, (size_t)stat.st_size);
	if (err < 0)
		return complain(argv[0], "cannot send", err);
	detach(&source.place);
	return err; /* 1: the demo went away */
}

/* A worker. */

static int behave(void *state, const struct petal_message *message,
		  struct petal_outputs *outputs)
{
	const struct place *place = state;
	struct stanza_result result;
	uint8_t bytes[STANZA_RESULT_BYTES_MAX];
	size_t length;

	stanza_parse(message->bytes, message->length, &result);
	/* Somebody wants to kill a worker that is in the middle of this. */
	if (atomic_exchange_explicit(&freeze, false, memory_order_relaxed))
		raise(SIGSTOP);
	result.input_lsn = message->lsn;
	length = stanza_result_write(&result, bytes);
	return petal_outputs_put(outputs, place->out, bytes, (uint32_t)length);
}

/* Tell the demo who we are, by the supervisor's pipe. */
static void introduce(const struct place *place)
{
	char line[64];
	int length;

	length = snprintf(line, sizeof(line), "worker %d %" PRIu32 "\n",
			  (int)getpid(), place->ring.owner);
	if (write(KEEPER_FD, line, (size_t)length) < 0)
		return; /* nobody listens any more */
}

int cli_demo_worker(int argc, char **argv)
{
	static alignas(8) uint8_t memory[BATCH * (STANZA_RESULT_BYTES_MAX + 8)];
	static struct petal_worker worker;
	static struct place place;
	struct petal_worker_options options = {
		.port = &petal_ring_port,
		.port_self = &place.ring,
		.behave = behave,
		.state = &place,
		.batch = BATCH,
		.batch_ns = PETAL_MS(1),
		.forward_timeout_ns = WAIT_NS,
		.retry_ns = PETAL_MS(100),
		.outputs_max = 1,
		.output_bytes_max = STANZA_RESULT_BYTES_MAX + 8,
		.memory = memory,
		.memory_bytes = sizeof(memory),
	};
	int err;

	arrange_signals();
	if (argc != 3 || attach(argv[0], argv[1], argv[2], &place) != 0)
		return 1;
	options.queue = place.in;
	options.level = place.level;
	introduce(&place);
	do {
		err = petal_worker_init(&worker, &options);
		if (err == 0)
			err = petal_worker_run(&worker, &stop,
					       PETAL_CLOCK_NEVER);
		if (err == -PETAL_EUNKNOWN && follow(argv[0], &place) == 0) {
			introduce(&place);
			err = 1;
		}
	} while (err == 1);
	if (err < 0)
		return complain(argv[0], "cannot go on", err);
	detach(&place);
	return 0;
}

/* The supervisor of the workers. */

static int start_worker(struct petal_supervisor *keeper, unsigned n,
			const char *program, char **argv)
{
	const char *args[] = { program, "demo-worker", argv[1], argv[3], NULL };
	struct petal_supervisor_pass pass = { KEEPER_FD, KEEPER_FD };
	char name[16];
	struct petal_supervisor_spec spec = {
		.name = name,
		.argv = args,
		.restart = { .policy = PETAL_RESTART_PERMANENT,
			     .restarts_max = 5,
			     .window_ns = PETAL_S(10),
			     .backoff_ns = PETAL_MS(10),
			     .backoff_max_ns = PETAL_S(1) },
		.fds = &pass,
		.fd_count = 1,
	};
	uint32_t child;

	snprintf(name, sizeof(name), "worker %u", n);
	return petal_supervisor_start(keeper, &spec, &child);
}

static int keep(struct petal_supervisor *keeper)
{
	struct petal_supervisor_event events[8];
	struct pollfd wait = { .fd = petal_supervisor_fd(keeper),
			       .events = POLLIN };
	bool stopping = false;
	int code = 0;

	while (petal_supervisor_count(keeper) > 0) {
		if (!stopping &&
		    atomic_load_explicit(&stop, memory_order_relaxed)) {
			petal_supervisor_stop(keeper, GRACE_NS);
			stopping = true;
		}
		poll(&wait, 1, 100);
		int count = petal_supervisor_poll(keeper, events, 8);

		for (int i = 0; i < count; i++) {
			if (events[i].type == PETAL_SUPERVISOR_RESTARTED)
				dprintf(KEEPER_FD, "restarted\n");
			if (events[i].type == PETAL_SUPERVISOR_GAVE_UP)
				code = 1;
		}
		if (code != 0 && !stopping)
			atomic_store_explicit(&stop, true,
					      memory_order_relaxed);
	}
	return code;
}

int cli_demo_supervisor(int argc, char **argv)
{
	struct petal_supervisor_options options = {
		.strategy = PETAL_SUPERVISOR_ONE_FOR_ONE,
		.children_max = DEMO_WORKERS_MAX,
	};
	struct petal_supervisor *keeper;
	char program[PATH_MAX];
	ssize_t n;
	int err, code;

	arrange_signals();
	if (argc != 4)
		return 2;
	n = readlink("/proc/self/exe", program, sizeof(program) - 1);
	if (n <= 0)
		return complain(argv[0], "cannot find this program", -errno);
	program[n] = '\0';
	err = petal_supervisor_open(&options, &keeper);
	if (err < 0)
		return complain(argv[0], "cannot start", err);
	for (unsigned i = 1; err == 0 && i <= (unsigned)atoi(argv[2]); i++)
		err = start_worker(keeper, i, program, argv);
	code = err < 0 ? complain(argv[0], "cannot start a worker", err)
		       : keep(keeper);
	petal_supervisor_close(keeper);
	return code;
}

/* The clerk. */

static int apply(void *state, const struct petal_message *message)
{
	struct census *census = state;
	struct stanza_result result;
	int err;

	err = stanza_result_check(message->bytes, message->length, &result);
	if (err == 0)
		err = census_add(census, &result);
	return err == 1 ? 0 : err;
}

static int leave_census(const char *role, struct census *census,
			const char *path)
{
	json_t *object = census_json(census);
	int err = json_dump_file(object, path, JSON_COMPACT);

	json_decref(object);
	return err == 0 ? 0 : complain(role, path, -errno);
}

int cli_demo_clerk(int argc, char **argv)
{
	static struct petal_clerk clerk;
	static struct census census;
	static struct place place;
	struct petal_clerk_options options = {
		.port = &petal_ring_port,
		.port_self = &place.ring,
		.apply = apply,
		.state = &census,
		.batch = PETAL_BATCH_MAX,
		.batch_ns = PETAL_MS(1),
		.forward_timeout_ns = WAIT_NS,
	};
	int err;

	arrange_signals();
	if (argc != 4 || attach(argv[0], argv[1], argv[3], &place) != 0)
		return 1;
	options.queue = place.out;
	options.queue_slots =
		place.ring.log.geometry.queues[place.out - 1].slot_count;
	options.level = place.level;
	err = census_open(&census);
	if (err == 0)
		err = petal_clerk_init(&clerk, &options);
	while (err == 0) {
		err = petal_clerk_run(&clerk, &stop, PETAL_CLOCK_NEVER);
		if (err != -PETAL_EUNKNOWN)
			break;
		/* It knows what it has applied, so nothing counts twice. */
		err = follow(argv[0], &place);
		if (err == 0)
			err = petal_clerk_move(&clerk, &place.ring);
	}
	if (err < 0)
		return complain(argv[0], "cannot go on", err);
	detach(&place);
	return leave_census(argv[0], &census, argv[2]);
}
