/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The side that answers. It does what petald does: polls while there is work,
 * arms, sleeps. The one difference is a hold, during which it leaves the wire
 * under test alone, so that a write can only be delivered by the hardware.
 */
#include "fabric/probe.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <sodium.h>

#include "fabric/probe_private.h"
#include "shm/clock.h"

#define EVENTS 16
#define RECORDS_A_TURN 64u
#define BUSY_TURNS_MAX 64u
#define DROP_NS PETAL_S(1)

struct petal_probe_answerer {
	struct petal_probe_options options;
	char host[80]; /* where it listens, without the port */
	struct petal_wire *control;
	struct petal_wire *tried;
	struct petal_wire_region *region;
	uint8_t *memory;
	uint8_t *copy;
	uint64_t hold_ns; /* leave the tried wire alone until then */
	uint64_t drop_ns; /* DROP is answered when it is down, or then */
	struct probe_answer dropped;
	bool reading;
	uint64_t seed;
	uint64_t records;
	uint64_t pos;
	uint64_t torn;
	uint64_t turns;
};

static void shut(struct petal_probe_answerer *a)
{
	petal_wire_close(a->tried);
	a->tried = NULL;
	a->region = NULL;
	a->hold_ns = 0;
	a->drop_ns = 0;
	a->reading = false;
}

static void say(struct petal_probe_answerer *a,
		const struct probe_answer *answer)
{
	petal_wire_send(a->control, PROBE_ASKER, answer, sizeof(*answer));
}

/* What is asked, one by one. */

static int on_open(struct petal_probe_answerer *a,
		   const struct probe_request *request,
		   struct probe_answer *answer)
{
	int err = petal_wire_look(request->provider);

	shut(a);
	if (err == 0)
		err = probe_wire_open(&a->options, PROBE_ANSWERER,
				      request->provider, a->host, &a->tried);
	if (err == 0)
		strncpy(answer->address, petal_wire_address(a->tried),
			sizeof(answer->address) - 1);
	return err;
}

static int on_lend(struct petal_probe_answerer *a, struct probe_answer *answer)
{
	int err = 0;

	if (a->tried == NULL)
		return -EPROTO;
	if (a->region == NULL)
		err = petal_wire_register(a->tried, a->memory, PROBE_BYTES,
					  &a->region);
	if (err == 0)
		err = petal_wire_region_key(a->region, &answer->key);
	return err;
}

static int on_look(struct petal_probe_answerer *a,
		   const struct probe_request *request,
		   struct probe_answer *answer)
{
	uint8_t expected[256];

	if (request->offset > PROBE_BYTES ||
	    request->length > PROBE_BYTES - request->offset)
		return -EINVAL;
	for (uint64_t at = 0; at < request->length; at += sizeof(expected)) {
		uint64_t from = request->offset + at;
		uint64_t part = request->length - at;

		if (part > sizeof(expected))
			part = sizeof(expected);
		probe_pattern(request->seed, from, expected, part);
		for (uint64_t i = 0; i < part; i++)
			answer->wrong += a->memory[from + i] != expected[i];
	}
	return 0;
}

static int on_hold(struct petal_probe_answerer *a, uint64_t length_ms)
{
	if (length_ms > PROBE_HOLD_MS)
		return -EINVAL;
	a->hold_ns = petal_clock_now_ns() + PETAL_MS(length_ms);
	return 0;
}

static void on_read(struct petal_probe_answerer *a, uint64_t seed)
{
	a->reading = true;
	a->seed = seed;
	a->records = 0;
	a->pos = 0;
	a->torn = 0;
}

static int obey(struct petal_probe_answerer *a,
		const struct probe_request *request,
		struct probe_answer *answer)
{
	switch ((enum probe_verb)request->verb) {
	case PROBE_OPEN:
		return on_open(a, request, answer);
	case PROBE_SHUT:
		shut(a);
		return 0;
	case PROBE_LEND:
		return on_lend(a, answer);
	case PROBE_TAKE:
		petal_wire_unregister(a->region);
		a->region = NULL;
		return 0;
	case PROBE_FILL:
		probe_pattern(request->seed, 0, a->memory, PROBE_BYTES);
		return 0;
	case PROBE_LOOK:
		return on_look(a, request, answer);
	case PROBE_HOLD:
		return on_hold(a, request->length);
	case PROBE_GO:
		a->hold_ns = 0;
		return 0;
	case PROBE_DROP:
		a->drop_ns = petal_clock_now_ns() + DROP_NS;
		return a->tried == NULL
			       ? -EPROTO
			       : petal_wire_drop(a->tried, PROBE_ASKER);
	case PROBE_READ:
		on_read(a, request->seed);
		return 0;
	case PROBE_STATE:
		answer->records = a->records;
		answer->pos = a->pos;
		answer->torn = a->torn;
		answer->turns = a->turns;
		return 0;
	case PROBE_VERBS:
		break;
	}
	return -EPROTO;
}

static bool request_read(const struct petal_wire_event *event,
			 struct probe_request *ret_request)
{
	if (event->length != sizeof(*ret_request))
		return false;
	memcpy(ret_request, event->bytes, sizeof(*ret_request));
	return ret_request->magic == PROBE_MAGIC &&
	       ret_request->version == PROBE_VERSION &&
	       ret_request->verb >= PROBE_OPEN &&
	       ret_request->verb < PROBE_VERBS &&
	       memchr(ret_request->provider, '\0',
		      sizeof(ret_request->provider)) != NULL;
}

static void on_request(struct petal_probe_answerer *a,
		       const struct petal_wire_event *event)
{
	struct probe_answer answer = { .magic = PROBE_MAGIC,
				       .version = PROBE_VERSION };
	struct probe_request request;

	if (event->peer != PROBE_ASKER || !request_read(event, &request)) {
		petal_wire_drop(a->control, event->peer);
		return;
	}
	answer.verb = request.verb;
	answer.number = request.number;
	answer.status = obey(a, &request, &answer);
	if (request.verb == PROBE_DROP && answer.status == 0)
		a->dropped = answer;
	else
		say(a, &answer);
}

/* The two wires. */

static int poll_control(struct petal_probe_answerer *a)
{
	struct petal_wire_event events[EVENTS];
	int count = petal_wire_poll(a->control, events, EVENTS);

	for (int i = 0; i < count; i++) {
		if (events[i].type == PETAL_WIRE_MESSAGE)
			on_request(a, &events[i]);
		else if (events[i].type != PETAL_WIRE_WROTE)
			shut(a); /* another one asks, or nobody */
	}
	return count;
}

/* The end of the connection, which DROP waits for; all else needs no answer. */
static int poll_tried(struct petal_probe_answerer *a)
{
	struct petal_wire_event events[EVENTS];
	int count = petal_wire_poll(a->tried, events, EVENTS);

	for (int i = 0; i < count; i++) {
		if (events[i].type != PETAL_WIRE_DOWN || a->drop_ns == 0)
			continue;
		a->drop_ns = 0;
		say(a, &a->dropped);
	}
	return count;
}

static int read_records(struct petal_probe_answerer *a)
{
	unsigned count = 0;

	while (a->reading && count < RECORDS_A_TURN) {
		int length = probe_record_check(a->memory, a->pos, a->seed,
						a->records, a->copy);

		if (length == 0)
			break;
		if (length < 0) {
			a->torn++;
			a->reading = false;
			break;
		}
		a->pos += (uint64_t)length;
		a->records++;
		count++;
	}
	return (int)count;
}

static bool is_held(struct petal_probe_answerer *a, uint64_t now_ns)
{
	if (a->hold_ns != 0 && now_ns >= a->hold_ns)
		a->hold_ns = 0;
	return a->hold_ns != 0;
}

static int turn(struct petal_probe_answerer *a, uint64_t now_ns)
{
	int more = poll_control(a);

	if (a->tried != NULL && !is_held(a, now_ns)) {
		more += poll_tried(a);
		more += read_records(a);
	}
	if (a->drop_ns != 0 && now_ns >= a->drop_ns) {
		a->drop_ns = 0;
		a->dropped.status = -ETIMEDOUT;
		say(a, &a->dropped);
	}
	return more;
}

static int sleep_ms(const struct petal_probe_answerer *a, uint64_t now_ns,
		    uint64_t until_ns)
{
	if (a->hold_ns != 0 && a->hold_ns < until_ns)
		until_ns = a->hold_ns;
	if (a->drop_ns != 0 && a->drop_ns < until_ns)
		until_ns = a->drop_ns;
	if (until_ns <= now_ns)
		return 0;
	until_ns -= now_ns;
	return until_ns > PETAL_S(3600) ? 3600000
					: (int)(until_ns / 1000000) + 1;
}

/* Arms and sleeps; a turn of the tried wire's is counted as such. */
static int nap(struct petal_probe_answerer *a, int stop_fd, uint64_t until_ns)
{
	uint64_t now_ns = petal_clock_now_ns();
	struct pollfd fds[3] = {
		{ .fd = petal_wire_fd(a->control), .events = POLLIN },
		{ .fd = stop_fd, .events = POLLIN },
		{ .fd = -1, .events = POLLIN },
	};
	bool tries = a->tried != NULL && !is_held(a, now_ns);
	int timeout_ms = sleep_ms(a, now_ns, until_ns);
	int armed = petal_wire_arm(a->control);

	if (armed == 0 && tries) {
		fds[2].fd = petal_wire_fd(a->tried);
		armed = petal_wire_arm(a->tried);
		a->turns += armed != 0;
	}
	if (armed < 0)
		return armed;
	if (poll(fds, 3, armed != 0 ? 0 : timeout_ms) < 0 && errno != EINTR)
		return -errno;
	a->turns += armed == 0 && fds[2].revents != 0;
	return fds[1].revents != 0 ? 1 : 0;
}

int petal_probe_answer(struct petal_probe_answerer *a, int stop_fd,
		       uint64_t until_ns)
{
	for (unsigned busy = 0;;) {
		uint64_t now_ns = petal_clock_now_ns();
		int err;

		if (now_ns >= until_ns)
			return -ETIMEDOUT;
		/* Whoever never stops asking does not keep us from stopping. */
		if (turn(a, now_ns) > 0 && ++busy % BUSY_TURNS_MAX != 0)
			continue;
		err = nap(a, stop_fd, until_ns);
		if (err != 0)
			return err < 0 ? err : 0;
	}
}

/* Opening. */

static void name_host(struct petal_probe_answerer *a)
{
	const char *address = petal_wire_address(a->control);
	size_t length = (size_t)(strrchr(address, ':') - address);

	/* An address and a port fit by far; see wire_address_format(). */
	memcpy(a->host, address, length);
	strcpy(a->host + length, ":0");
}

int petal_probe_open(const struct petal_probe_options *options,
		     struct petal_probe_answerer **ret_answerer)
{
	struct petal_probe_answerer *a = calloc(1, sizeof(*a));
	int err;

	if (a == NULL)
		return -ENOMEM;
	a->options = *options;
	a->memory = mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	a->copy = malloc(PROBE_RECORD_MAX);
	if (a->memory == MAP_FAILED || a->copy == NULL)
		err = -ENOMEM;
	else
		err = probe_wire_open(options, PROBE_ANSWERER, "tcp",
				      options->listen, &a->control);
	if (err < 0) {
		petal_probe_close(a);
		return err;
	}
	name_host(a);
	*ret_answerer = a;
	return 0;
}

const char *petal_probe_address(const struct petal_probe_answerer *answerer)
{
	return petal_wire_address(answerer->control);
}

void petal_probe_close(struct petal_probe_answerer *a)
{
	if (a == NULL)
		return;
	petal_wire_close(a->tried);
	petal_wire_close(a->control);
	if (a->memory != MAP_FAILED)
		munmap(a->memory, PROBE_BYTES);
	free(a->copy);
	sodium_memzero(a, sizeof(*a));
	free(a);
}
