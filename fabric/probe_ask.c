/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The side that asks. Each check is a transcript: requests over the control
 * wire, one at a time, writes over the wire under test, and what the peer's CPU
 * then says of its own memory. What fails in between ends the provider's row,
 * with the check that was being made; what fails on the control wire ends it
 * all.
 */
#include "fabric/probe.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "fabric/host.h"
#include "fabric/probe_private.h"
#include "shm/clock.h"
#include "shm/error.h"

#define EVENTS 16
#define ANSWER_NS PETAL_S(5)
#define DOWN_NS PETAL_S(3)
#define WRITE_BYTES 4096u
#define WRITES_UNDER_WAY 48u
#define RECORDS_NS PETAL_S(5)

/* How long bytes that are late have to show themselves. */
#define LATE_NS PETAL_MS(50)
#define LATE_QUICK_NS PETAL_MS(10)

static_assert(WRITES_UNDER_WAY + 2 <= PETAL_WIRE_WRITES_MAX,
	      "a record that wraps is two writes");

struct petal_probe_asker {
	struct petal_probe_options options;
	char host[80]; /* ours, towards the peer */
	struct petal_wire *control;
	bool control_up;
	int control_status; /* of its end */
	struct probe_answer answer;
	bool answered;
	uint64_t number;
	struct petal_wire *tried;
	struct petal_wire_region *region;
	uint8_t *memory;
	char address[80]; /* of the peer's wire under test */
	struct petal_wire_key key;
	bool up;
	bool downed; /* since the last call */
	unsigned under_way;
	unsigned wrote; /* WROTE with status 0 */
	unsigned failed;
};

/* Driving both wires. */

static int hear(struct petal_probe_asker *a,
		const struct petal_wire_event *event)
{
	const struct probe_answer *answer = &a->answer;

	if (event->length != sizeof(*answer))
		return -EPROTO;
	memcpy(&a->answer, event->bytes, sizeof(*answer));
	if (answer->magic != PROBE_MAGIC || answer->version != PROBE_VERSION ||
	    answer->number != a->number || a->answered || answer->status > 0 ||
	    answer->status < -PETAL_EHUGEPAGES ||
	    memchr(answer->address, '\0', sizeof(answer->address)) == NULL)
		return -EPROTO;
	a->answered = true;
	return 0;
}

static int poll_control(struct petal_probe_asker *a)
{
	struct petal_wire_event events[EVENTS];
	int count = petal_wire_poll(a->control, events, EVENTS);
	int err = 0;

	for (int i = 0; i < count; i++) {
		if (events[i].peer != PROBE_ANSWERER)
			continue;
		if (events[i].type == PETAL_WIRE_UP) {
			a->control_up = true;
		} else if (events[i].type == PETAL_WIRE_DOWN) {
			a->control_up = false;
			a->control_status = events[i].status;
		} else if (events[i].type == PETAL_WIRE_MESSAGE && err == 0) {
			err = hear(a, &events[i]);
		}
	}
	return err < 0 ? err : count;
}

static int poll_tried(struct petal_probe_asker *a)
{
	struct petal_wire_event events[EVENTS];
	int count = petal_wire_poll(a->tried, events, EVENTS);

	for (int i = 0; i < count; i++) {
		if (events[i].peer != PROBE_ANSWERER)
			continue;
		if (events[i].type == PETAL_WIRE_UP) {
			a->up = true;
		} else if (events[i].type == PETAL_WIRE_DOWN) {
			a->up = false;
			a->downed = true;
		} else if (events[i].type == PETAL_WIRE_WROTE) {
			a->under_way--;
			a->wrote += events[i].status == 0;
			a->failed += events[i].status != 0;
		}
	}
	return count;
}

/* One turn: what there is, or sleep for it until the deadline. */
static int turn(struct petal_probe_asker *a, uint64_t until_ns)
{
	uint64_t now_ns = petal_clock_now_ns();
	struct pollfd fds[2] = {
		{ .fd = petal_wire_fd(a->control), .events = POLLIN },
		{ .fd = -1, .events = POLLIN },
	};
	int count = poll_control(a);
	int armed;

	if (count < 0)
		return count;
	if (a->control_status != 0)
		return a->control_status;
	if (a->tried != NULL)
		count += poll_tried(a);
	if (count > 0 || now_ns >= until_ns)
		return 0;
	armed = petal_wire_arm(a->control);
	if (armed == 0 && a->tried != NULL) {
		fds[1].fd = petal_wire_fd(a->tried);
		armed = petal_wire_arm(a->tried);
	}
	if (armed < 0)
		return armed;
	if (armed == 0 &&
	    poll(fds, 2, (int)((until_ns - now_ns) / 1000000) + 1) < 0 &&
	    errno != EINTR)
		return -errno;
	return 0;
}

static bool is_due(uint64_t until_ns)
{
	return petal_clock_now_ns() >= until_ns;
}

/* Poll until then, whatever comes. */
static int idle(struct petal_probe_asker *a, uint64_t for_ns)
{
	uint64_t until_ns = petal_clock_now_ns() + for_ns;
	int err = 0;

	while (err == 0 && !is_due(until_ns))
		err = turn(a, until_ns);
	return err;
}

/*
 * A request and its answer. Returns the control wire's failure; what the peer
 * says is in a->answer.status.
 */
static int ask(struct petal_probe_asker *a, const struct probe_request *what)
{
	uint64_t until_ns = petal_clock_now_ns() + ANSWER_NS;
	struct probe_request request = *what;
	int err;

	request.magic = PROBE_MAGIC;
	request.version = PROBE_VERSION;
	request.number = ++a->number;
	a->answered = false;
	err = petal_wire_send(a->control, PROBE_ANSWERER, &request,
			      sizeof(request));
	while (err == 0 && !a->answered) {
		if (is_due(until_ns))
			return -ETIMEDOUT;
		err = turn(a, until_ns);
	}
	return err;
}

/*
 * Control failures and the provider's are told apart by who notices: the first
 * are returned, the second are left here for the row.
 */
static int ask_for(struct petal_probe_asker *a, enum probe_verb verb,
		   int *ret_status)
{
	struct probe_request request = { .verb = (uint16_t)verb };
	int err = ask(a, &request);

	if (err == 0)
		*ret_status = (int)a->answer.status;
	return err;
}

static int ask_seed(struct petal_probe_asker *a, enum probe_verb verb,
		    uint64_t seed)
{
	struct probe_request request = { .verb = (uint16_t)verb, .seed = seed };

	return ask(a, &request);
}

static int ask_look(struct petal_probe_asker *a, uint64_t seed, uint64_t offset,
		    uint64_t length, uint64_t *ret_wrong)
{
	struct probe_request request = {
		.verb = PROBE_LOOK,
		.seed = seed,
		.offset = offset,
		.length = length,
	};
	int err = ask(a, &request);

	if (err == 0 && (a->answer.status != 0 || a->answer.wrong > length))
		err = -EPROTO;
	if (err == 0)
		*ret_wrong = a->answer.wrong;
	return err;
}

static int ask_hold(struct petal_probe_asker *a, uint64_t length_ms)
{
	struct probe_request request = {
		.verb = PROBE_HOLD,
		.length = length_ms,
	};

	return ask(a, &request);
}

static int ask_key(struct petal_probe_asker *a, int *ret_status)
{
	int err = ask_for(a, PROBE_LEND, ret_status);

	if (err == 0 && *ret_status == 0) {
		a->key = a->answer.key;
		if (a->key.bytes != PROBE_BYTES)
			err = -EPROTO;
	}
	return err;
}

/* The wire under test. */

static int call_tried(struct petal_probe_asker *a, uint64_t *ret_ns,
		      int *ret_status)
{
	uint64_t since_ns = petal_clock_now_ns();
	uint64_t until_ns = since_ns + PETAL_WIRE_CONNECT_NS;
	int err = 0;

	while (err == 0 && !a->up && !is_due(until_ns)) {
		int called = petal_wire_connect(a->tried, PROBE_ANSWERER,
						a->address);

		a->downed = false;
		if (called < 0 && called != -EALREADY && called != -EISCONN) {
			*ret_status = called;
			return 0;
		}
		while (err == 0 && !a->up && !a->downed && !is_due(until_ns))
			err = turn(a, until_ns);
	}
	*ret_ns = petal_clock_now_ns() - since_ns;
	*ret_status = a->up ? 0 : -ETIMEDOUT;
	return err;
}

/* The end of the connection, which a fence brings, or else we do. */
static int lose_tried(struct petal_probe_asker *a, int *ret_status)
{
	uint64_t until_ns = petal_clock_now_ns() + DOWN_NS;
	int err = 0;

	if (a->up)
		petal_wire_drop(a->tried, PROBE_ANSWERER);
	while (err == 0 && a->up && !is_due(until_ns))
		err = turn(a, until_ns);
	*ret_status = a->up ? -ETIMEDOUT : 0;
	return err;
}

static int write_tried(struct petal_probe_asker *a, uint64_t offset,
		       uint64_t length, bool notify)
{
	int err = petal_wire_write(a->tried, PROBE_ANSWERER, a->region,
				   a->memory + offset, length, &a->key, offset,
				   notify, 1, 0);

	if (err == 0)
		a->under_way++;
	return err;
}

/* Until nothing is under way, or the time is up. */
static int settle(struct petal_probe_asker *a, uint64_t for_ns)
{
	uint64_t until_ns = petal_clock_now_ns() + for_ns;
	int err = 0;

	while (err == 0 && a->under_way > 0 && !is_due(until_ns))
		err = turn(a, until_ns);
	return err;
}

/* The checks. */

static unsigned rounds(const struct petal_probe_asker *a, unsigned many)
{
	return a->options.quick ? (many + 9) / 10 : many;
}

static uint64_t late_ns(const struct petal_probe_asker *a)
{
	return a->options.quick ? LATE_QUICK_NS : LATE_NS;
}

static uint64_t draw(void)
{
	uint64_t value;

	randombytes_buf(&value, sizeof(value));
	return value;
}

/* A pause of the peer's, in which a write can be reported too early. */
static int try_early(struct petal_probe_asker *a, struct petal_probe_row *row,
		     uint64_t seed, uint64_t offset)
{
	uint64_t hold_ms = a->options.quick ? 5 : 20;
	unsigned before = a->wrote;
	uint64_t wrong;
	int err = ask_hold(a, 2 * hold_ms);

	if (err == 0)
		row->status = write_tried(a, offset, WRITE_BYTES, false);
	if (err == 0 && row->status == 0)
		err = settle(a, PETAL_MS(hold_ms));
	if (err < 0 || row->status < 0)
		return err;
	if (a->wrote != before) {
		err = ask_look(a, seed, offset, WRITE_BYTES, &wrong);
		if (err == 0 && wrong > 0)
			row->early++;
	}
	return err < 0 ? err : ask_for(a, PROBE_GO, &row->status);
}

static int check_landed(struct petal_probe_asker *a,
			struct petal_probe_row *row)
{
	int err = 0;

	for (unsigned i = 0; err == 0 && i < rounds(a, 20); i++) {
		uint64_t seed = draw();
		uint64_t offset = draw() % (PROBE_BYTES - WRITE_BYTES);
		unsigned before = a->wrote;
		uint64_t wrong = 0;

		probe_pattern(seed, offset, a->memory + offset, WRITE_BYTES);
		err = try_early(a, row, seed, offset);
		if (err == 0 && row->status == 0)
			err = settle(a, ANSWER_NS);
		if (err < 0 || row->status < 0)
			return err;
		if (a->wrote == before) {
			row->status = a->up ? -ETIMEDOUT : -ECONNRESET;
			return 0;
		}
		row->writes++;
		err = ask_look(a, seed, offset, WRITE_BYTES, &wrong);
		if (err < 0 || wrong == 0)
			continue;
		/* Not at once; if it comes yet, it was early. */
		err = idle(a, late_ns(a));
		if (err == 0)
			err = ask_look(a, seed, offset, WRITE_BYTES, &wrong);
		if (wrong > 0)
			row->lost++;
	}
	return err;
}

/*
 * A deposed writer, which knows nothing of its fence. The first kind of fence
 * is the end of the memory's registration, the second that of the connection.
 */
static int try_fence(struct petal_probe_asker *a, struct petal_probe_row *row,
		     enum probe_verb fence)
{
	uint64_t seed = draw();
	uint64_t offset = draw() % (PROBE_BYTES - WRITE_BYTES);
	unsigned before = a->wrote;
	uint64_t wrong = 0;
	int err = ask_seed(a, PROBE_FILL, seed);

	if (err == 0)
		err = ask_for(a, fence, &row->status);
	if (err < 0 || row->status < 0)
		return err;
	probe_pattern(~seed, offset, a->memory + offset, WRITE_BYTES);
	write_tried(a, offset, WRITE_BYTES, false);
	err = settle(a, DOWN_NS);
	if (err == 0)
		err = idle(a, late_ns(a));
	row->fences++;
	row->fence_reported += a->wrote != before;
	if (err == 0)
		err = ask_look(a, seed, 0, PROBE_BYTES, &wrong);
	row->fence_landed += wrong > 0;
	return err;
}

/* P2 and P4: each fence, and the way back. */
static int check_fenced(struct petal_probe_asker *a,
			struct petal_probe_row *row)
{
	int err = 0;

	for (unsigned i = 0; i < 2 * rounds(a, 5); i++) {
		uint64_t took_ns = 0;

		err = try_fence(a, row, i % 2 == 0 ? PROBE_TAKE : PROBE_DROP);
		if (err == 0 && row->status == 0)
			err = lose_tried(a, &row->status);
		if (err == 0 && row->status == 0)
			err = call_tried(a, &took_ns, &row->status);
		if (took_ns > row->again_ns)
			row->again_ns = took_ns;
		if (err == 0 && row->status == 0)
			err = ask_key(a, &row->status);
		if (err < 0 || row->status < 0)
			break;
	}
	return err;
}

/* From 64 to 65536 bytes, as many small as large; each tenth has 4 KiB. */
static uint32_t draw_length(uint64_t order)
{
	uint64_t most = UINT64_C(128) << (draw() % 10);
	uint64_t length = sizeof(struct probe_record) +
			  draw() % (most - sizeof(struct probe_record) + 1);

	if (order % 10 == 0)
		return 4096;
	return (uint32_t)(length < PROBE_RECORD_MAX ? length
						    : PROBE_RECORD_MAX);
}

static int write_record(struct petal_probe_asker *a, uint64_t pos,
			const uint8_t *record, uint32_t length)
{
	uint64_t at = pos & (PROBE_BYTES - 1);
	uint64_t first = PROBE_BYTES - at;
	int err;

	if (first > length)
		first = length;
	memcpy(a->memory + at, record, first);
	memcpy(a->memory, record + first, length - first);
	/* The end first: no provider owes us an order. */
	err = first < length ? write_tried(a, 0, length - first, false) : 0;
	return err < 0 ? err : write_tried(a, at, first, false);
}

/* Until the peer has read up to there, or has stopped reading. */
static int wait_read(struct petal_probe_asker *a, uint64_t records,
		     uint64_t pos, struct petal_probe_row *row)
{
	uint64_t until_ns = petal_clock_now_ns() + RECORDS_NS;
	int err;

	do {
		err = ask_for(a, PROBE_STATE, &row->status);
		row->torn = a->answer.torn > 0;
		if (err < 0 || row->torn > 0 || a->answer.pos >= pos)
			return err;
		if (a->answer.records > records)
			return -EPROTO;
		if (!a->up)
			row->status = -ECONNRESET;
		if (row->status < 0)
			return 0;
	} while (!is_due(until_ns));
	row->stuck = (uint32_t)(records - a->answer.records);
	return 0;
}

static int check_whole(struct petal_probe_asker *a, struct petal_probe_row *row)
{
	uint8_t *record = malloc(PROBE_RECORD_MAX);
	unsigned many = rounds(a, 2000);
	uint64_t seed = draw();
	uint64_t read_pos = 0;
	uint64_t pos = 0;
	int err = record == NULL ? -ENOMEM : ask_seed(a, PROBE_READ, seed);

	while (err == 0 && row->status == 0 && row->records < many) {
		uint32_t length = draw_length(row->records);

		if (pos + length - read_pos > PROBE_BYTES / 2) {
			err = wait_read(a, row->records, pos, row);
			read_pos = pos;
			if (row->torn > 0 || row->stuck > 0)
				break;
			continue;
		}
		if (a->under_way > WRITES_UNDER_WAY) {
			err = turn(a, petal_clock_now_ns() + ANSWER_NS);
			continue;
		}
		probe_record_make(seed, row->records, length, record);
		row->status = write_record(a, pos, record, length);
		pos += length;
		row->records++;
	}
	if (err == 0 && row->status == 0 && row->torn == 0 && row->stuck == 0)
		err = wait_read(a, row->records, pos, row);
	free(record);
	return err < 0 ? err : settle(a, ANSWER_NS);
}

/* Nobody does anything: a peer that wakes up all the same does not sleep. */
static int check_idle(struct petal_probe_asker *a, struct petal_probe_row *row)
{
	struct timespec pause = { .tv_nsec = (long)PETAL_MS(100) };
	uint64_t before;
	int err = ask_for(a, PROBE_STATE, &row->status);

	if (a->options.quick)
		pause.tv_nsec = (long)PETAL_MS(20);
	before = a->answer.turns;
	nanosleep(&pause, NULL);
	if (err == 0)
		err = ask_for(a, PROBE_STATE, &row->status);
	row->idle_ns = (uint64_t)pause.tv_nsec;
	row->idle_turns = a->answer.turns - before;
	return err;
}

static int check_asleep(struct petal_probe_asker *a,
			struct petal_probe_row *row)
{
	struct timespec pause = { .tv_nsec = (long)PETAL_MS(10) };
	int err = check_idle(a, row);

	for (unsigned i = 0; err == 0 && i < rounds(a, 20); i++) {
		uint64_t since_ns, took_ns;

		nanosleep(&pause, NULL);
		since_ns = petal_clock_now_ns();
		row->status = write_tried(a, 0, WRITE_BYTES, true);
		if (row->status < 0)
			return 0;
		err = settle(a, PETAL_PROBE_WAKE_NS);
		took_ns = petal_clock_now_ns() - since_ns;
		row->naps++;
		if (a->under_way > 0) {
			row->missed++;
			break;
		}
		if (took_ns > row->wake_ns)
			row->wake_ns = took_ns;
	}
	return err;
}

/* One provider. */

static int open_tried(struct petal_probe_asker *a, const char *provider,
		      struct petal_probe_row *row)
{
	struct probe_request request = { .verb = PROBE_OPEN };
	uint64_t took_ns;
	int err;

	row->status = petal_wire_look(provider);
	if (row->status == 0)
		row->status = probe_wire_open(&a->options, PROBE_ASKER,
					      provider, a->host, &a->tried);
	if (row->status < 0)
		return 0;
	strncpy(request.provider, provider, sizeof(request.provider) - 1);
	err = ask(a, &request);
	if (err < 0)
		return err;
	row->status = (int)a->answer.status;
	memcpy(a->address, a->answer.address, sizeof(a->address));
	if (row->status == 0)
		row->status = petal_wire_register(a->tried, a->memory,
						  PROBE_BYTES, &a->region);
	if (row->status == 0)
		err = ask_key(a, &row->status);
	if (err == 0 && row->status == 0)
		err = call_tried(a, &took_ns, &row->status);
	return err;
}

static void shut_tried(struct petal_probe_asker *a)
{
	petal_wire_close(a->tried);
	a->tried = NULL;
	a->region = NULL;
	a->up = false;
	a->downed = false;
	a->under_way = 0;
}

typedef int check_fn(struct petal_probe_asker *a, struct petal_probe_row *row);

int petal_probe_ask(struct petal_probe_asker *a, const char *provider,
		    struct petal_probe_row *ret_row)
{
	/* P4 is made with P2: there is no other fence to come back from. */
	static check_fn *const checks[PETAL_PROBE_CHECKS] = {
		[PETAL_PROBE_LANDED] = check_landed,
		[PETAL_PROBE_FENCED] = check_fenced,
		[PETAL_PROBE_WHOLE] = check_whole,
		[PETAL_PROBE_ASLEEP] = check_asleep,
	};
	int err, status;

	memset(ret_row, 0, sizeof(*ret_row));
	strncpy(ret_row->provider, provider, sizeof(ret_row->provider) - 1);
	err = open_tried(a, provider, ret_row);
	for (unsigned i = 0; i < PETAL_PROBE_CHECKS; i++) {
		if (err < 0 || ret_row->status < 0)
			break;
		ret_row->reached = (enum petal_probe_check)i;
		if (checks[i] != NULL)
			err = checks[i](a, ret_row);
	}
	shut_tried(a);
	if (err < 0) {
		ret_row->status = err;
		return err;
	}
	return ask_for(a, PROBE_SHUT, &status);
}

/* Calling. */

/* Any port does: nothing is sent. */
static socklen_t sockaddr_of(const struct in6_addr *host,
			     struct sockaddr_storage *ret_peer)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6,
				   .sin6_port = htons(9),
				   .sin6_addr = *host };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(9) };

	if (!IN6_IS_ADDR_V4MAPPED(host)) {
		memcpy(ret_peer, &v6, sizeof(v6));
		return sizeof(v6);
	}
	memcpy(&v4.sin_addr, host->s6_addr + 12, sizeof(v4.sin_addr));
	memcpy(ret_peer, &v4, sizeof(v4));
	return sizeof(v4);
}

/*
 * The address that the kernel would send from: a datagram socket is asked, and
 * nothing is sent.
 */
static int find_host(struct petal_probe_asker *a)
{
	struct sockaddr_storage peer, own = { 0 };
	const struct sockaddr_in6 *v6 = (const void *)&own;
	const struct sockaddr_in *v4 = (const void *)&own;
	socklen_t size, own_size = sizeof(own);
	char text[INET6_ADDRSTRLEN] = "";
	struct in6_addr host;
	int fd, err = petal_host_of(a->options.peer, &host);

	if (err < 0)
		return err;
	size = sockaddr_of(&host, &peer);
	fd = socket(peer.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&peer, size) < 0 ||
	    getsockname(fd, (struct sockaddr *)&own, &own_size) < 0)
		err = -errno;
	close(fd);
	if (own.ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
		snprintf(a->host, sizeof(a->host), "[%s]:0", text);
	} else {
		inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
		snprintf(a->host, sizeof(a->host), "%s:0", text);
	}
	return err;
}

static int call_control(struct petal_probe_asker *a)
{
	uint64_t until_ns =
		petal_clock_now_ns() + PETAL_WIRE_CONNECT_NS + PETAL_S(1);
	int err =
		petal_wire_connect(a->control, PROBE_ANSWERER, a->options.peer);

	while (err == 0 && !a->control_up) {
		if (is_due(until_ns))
			return -ETIMEDOUT;
		err = turn(a, until_ns);
	}
	return err;
}

int petal_probe_call(const struct petal_probe_options *options,
		     struct petal_probe_asker **ret_asker)
{
	struct petal_probe_asker *a = calloc(1, sizeof(*a));
	int err;

	if (a == NULL)
		return -ENOMEM;
	a->options = *options;
	a->memory = mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	err = a->memory == MAP_FAILED ? -ENOMEM : find_host(a);
	if (err == 0)
		err = probe_wire_open(options, PROBE_ASKER, "tcp", a->host,
				      &a->control);
	if (err == 0)
		err = call_control(a);
	if (err < 0) {
		petal_probe_hang_up(a);
		return err;
	}
	*ret_asker = a;
	return 0;
}

void petal_probe_hang_up(struct petal_probe_asker *a)
{
	if (a == NULL)
		return;
	petal_wire_close(a->tried);
	petal_wire_close(a->control);
	if (a->memory != MAP_FAILED)
		munmap(a->memory, PROBE_BYTES);
	sodium_memzero(a, sizeof(*a));
	free(a);
}
