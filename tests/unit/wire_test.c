/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire on the tcp provider over 127.0.0.1: opening, connecting, writes,
 * messages, every way in which a connection ends, peers that are killed, peers
 * that sleep, and strangers at the door. Wires live in this process where one
 * thread can drive both ends, and in processes of their own (this program, run
 * again) where sleep and death matter. To run it harder, give a factor for the
 * rounds of the last two:
 *
 *    wire_test 10
 */
#include "tests/check.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fabric/seal.h"
#include "fabric/wire.h"
#include "shm/clock.h"

#define MEMORY_BYTES (UINT64_C(4) << 20)
#define LOG_MAX 1024
#define WAIT_NS PETAL_S(20)

/* What libfabric's tcp provider puts before the private data. */
#define REQUEST_HEADER_BYTES 32

static unsigned long factor = 1;

struct record {
	struct petal_wire_event event;
	uint8_t bytes[PETAL_WIRE_MESSAGE_MAX];
};

/* One wire with memory, and the events that it has reported so far. */
struct party {
	struct petal_wire *wire;
	uint8_t *memory;
	struct petal_wire_region *region;
	struct petal_wire_key key;
	struct record log[LOG_MAX];
	unsigned logged;
	unsigned taken;
	unsigned long sleeps;
};

struct fixture {
	struct party a;
	struct party b;
};

static int open_wire(uint32_t node, const char *listen, const char *key,
		     struct petal_wire **ret_wire)
{
	struct petal_wire_options options = {
		.node = node,
		.provider = "tcp",
		.listen = listen,
		.cluster = "wire test",
	};

	memcpy(options.key, key, strlen(key));
	return petal_wire_open(&options, ret_wire);
}

static void party_open(struct party *party, uint32_t node)
{
	assert_ok(open_wire(node, "127.0.0.1:0", "secret", &party->wire));
	party->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(party->memory != MAP_FAILED);
	assert_ok(petal_wire_register(party->wire, party->memory, MEMORY_BYTES,
				      &party->region));
	assert_ok(petal_wire_region_key(party->region, &party->key));
}

static void party_close(struct party *party)
{
	petal_wire_close(party->wire);
	if (party->memory != NULL)
		munmap(party->memory, MEMORY_BYTES);
	memset(party, 0, sizeof(*party));
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	party_open(&f->a, 1);
	party_open(&f->b, 2);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	party_close(&f->a);
	party_close(&f->b);
	free(f);
	return 0;
}

/*
 * Driving.
 */

static unsigned party_poll(struct party *party)
{
	struct petal_wire_event events[8];
	int count = petal_wire_poll(party->wire, events, 8);

	assert_in_range(count, 0, 8);
	for (int i = 0; i < count; i++) {
		struct record *record = &party->log[party->logged % LOG_MAX];

		assert_true(party->logged++ - party->taken < LOG_MAX);
		record->event = events[i];
		if (events[i].type == PETAL_WIRE_MESSAGE)
			memcpy(record->bytes, events[i].bytes,
			       events[i].length);
	}
	return (unsigned)count;
}

/* Poll both; if there is nothing to do, sleep until there is. */
static bool step(struct party *one, struct party *other, uint64_t deadline_ns)
{
	struct pollfd fds[2] = { { .events = POLLIN }, { .events = POLLIN } };
	unsigned progress = party_poll(one);
	uint64_t now_ns = petal_clock_now_ns();
	unsigned count = 1;

	fds[0].fd = petal_wire_fd(one->wire);
	if (other != NULL && other->wire != NULL) {
		progress += party_poll(other);
		fds[count++].fd = petal_wire_fd(other->wire);
	}
	if (progress > 0)
		return true;
	if (now_ns >= deadline_ns)
		return false;
	for (unsigned i = 0; i < count; i++) {
		int armed = petal_wire_arm(i == 0 ? one->wire : other->wire);

		assert_in_range(armed, 0, 1);
		progress += (unsigned)armed;
	}
	if (progress > 0)
		return true;
	one->sleeps++;
	poll(fds, count, (int)((deadline_ns - now_ns) / 1000000) + 1);
	return true;
}

static struct record *take(struct party *party, struct party *other,
			   uint64_t wait_ns)
{
	uint64_t deadline_ns = petal_clock_now_ns() + wait_ns;

	while (party->taken == party->logged)
		if (!step(party, other, deadline_ns))
			return NULL;
	return &party->log[party->taken++ % LOG_MAX];
}

/* While waiting for what is no event: look again after a while. */
static void go_on(struct party *party, struct party *other)
{
	step(party, other, petal_clock_now_ns() + PETAL_MS(50));
}

static struct record *next(struct party *party, struct party *other)
{
	struct record *record = take(party, other, WAIT_NS);

	if (record == NULL)
		fail_msg("no event came");
	return record;
}

static struct petal_wire_event *expect(struct party *party, struct party *other,
				       enum petal_wire_event_type type)
{
	struct petal_wire_event *event = &next(party, other)->event;

	assert_int_equal(event->type, type);
	return event;
}

/* Everything that is under way has arrived, and there was nothing else. */
static void expect_quiet(struct party *party, struct party *other)
{
	assert_null(take(party, other, PETAL_MS(20)));
}

static void connect_parties(struct fixture *f)
{
	assert_ok(petal_wire_connect(f->b.wire, 1,
				     petal_wire_address(f->a.wire)));
	assert_int_equal(expect(&f->a, &f->b, PETAL_WIRE_UP)->peer, 2);
	assert_int_equal(expect(&f->b, &f->a, PETAL_WIRE_UP)->peer, 1);
}

static int write_to_b(struct fixture *f, uint64_t from, uint64_t to,
		      uint64_t length, uint64_t cookie)
{
	/* Not by pointer arithmetic: some of these are meant to be wrong. */
	const void *local = (void *)((uintptr_t)f->a.memory + from);

	return petal_wire_write(f->a.wire, 2, f->a.region, local, length,
				&f->b.key, to, false, 0, cookie);
}

static struct petal_wire_counters counters(const struct party *party)
{
	struct petal_wire_counters now;

	petal_wire_counters(party->wire, &now);
	return now;
}

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count;
}

/*
 * Opening.
 */

static void open__unknown_provider_is_enodata(void **state)
{
	struct petal_wire_options options = {
		.node = 1,
		.provider = "carrier-pigeon",
		.listen = "127.0.0.1:0",
	};
	struct petal_wire *wire;

	(void)state;
	assert_outcome(petal_wire_open(&options, &wire), -ENODATA);
}

static void open__without_a_provider_takes_what_serves_the_address(void **state)
{
	struct petal_wire_options options = {
		.node = 1,
		.listen = "127.0.0.1:0",
	};
	struct petal_wire *wire;

	(void)state;
	assert_ok(petal_wire_open(&options, &wire));
	assert_non_null(petal_wire_provider(wire));
	petal_wire_close(wire);
}

static void open__bad_address_is_einval(void **state)
{
	static const char *const bad[] = {
		"",
		":",
		"127.0.0.1",
		"127.0.0.1:",
		"127.0.0.1:65536",
		"127.0.0.1:-1",
		"127.0.0.1:1x",
		"127.0.0:1",
		"localhost:7101",
		"::1:7101",
		"[::1:7101",
		"[127.0.0.1]:1",
		"127.0.0.1 :1",
		"127.0.0.1:+1",
		"[]:1",
		"127.0.0.1:99999999999999999999",
	};
	struct petal_wire *wire;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_outcome(open_wire(1, bad[i], "k", &wire), -EINVAL);
	assert_outcome(open_wire(1, NULL, "k", &wire), -EINVAL);
	assert_outcome(open_wire(256, "127.0.0.1:0", "k", &wire), -EINVAL);
}

static void open__address_of_another_machine_is_eaddrnotavail(void **state)
{
	struct petal_wire *wire;

	(void)state;
	assert_outcome(open_wire(1, "203.0.113.77:0", "k", &wire),
		       -EADDRNOTAVAIL);
}

static void open__port_in_use_is_eaddrinuse(void **state)
{
	struct fixture *f = *state;
	struct petal_wire *wire;

	assert_outcome(open_wire(3, petal_wire_address(f->a.wire), "k", &wire),
		       -EADDRINUSE);
}

static void open__port_can_be_taken_again_after_close(void **state)
{
	struct fixture *f = *state;
	char address[80];

	connect_parties(f);
	snprintf(address, sizeof(address), "%s", petal_wire_address(f->a.wire));
	party_close(&f->a);
	assert_ok(open_wire(1, address, "secret", &f->a.wire));
	assert_string_equal(petal_wire_address(f->a.wire), address);
}

static void open__serves_ipv6(void **state)
{
	struct fixture *f = *state;
	struct petal_wire *wire;
	int err = open_wire(1, "[::1]:0", "secret", &wire);

	if (err == -EADDRNOTAVAIL || err == -EAFNOSUPPORT)
		skip();
	assert_ok(err);
	petal_wire_close(f->a.wire);
	f->a.wire = wire;
	f->a.region = NULL;
	assert_memory_equal(petal_wire_address(wire), "[::1]:", 6);
	connect_parties(f);
}

/*
 * Connecting.
 */

static void connect__is_refused_where_it_makes_no_sense(void **state)
{
	struct fixture *f = *state;
	const char *a = petal_wire_address(f->a.wire);

	assert_outcome(petal_wire_connect(f->b.wire, 2, a), -EINVAL);
	assert_outcome(petal_wire_connect(f->b.wire, 256, a), -EINVAL);
	assert_outcome(petal_wire_connect(f->b.wire, 1, "nonsense"), -EINVAL);
	assert_ok(petal_wire_connect(f->b.wire, 1, a));
	assert_outcome(petal_wire_connect(f->b.wire, 1, a), -EALREADY);
	expect(&f->b, &f->a, PETAL_WIRE_UP);
	assert_outcome(petal_wire_connect(f->b.wire, 1, a), -EISCONN);
}

static void connect__to_nobody_is_down_refused(void **state)
{
	struct fixture *f = *state;
	char address[80];

	snprintf(address, sizeof(address), "%s", petal_wire_address(f->a.wire));
	party_close(&f->a);
	for (unsigned i = 0; i < 10; i++) {
		struct petal_wire_event *event;

		assert_ok(petal_wire_connect(f->b.wire, 1, address));
		event = expect(&f->b, NULL, PETAL_WIRE_DOWN);
		assert_int_equal(event->peer, 1);
		assert_outcome(event->status, -ECONNREFUSED);
	}
	expect_quiet(&f->b, NULL);
}

static void connect__with_a_wrong_key_is_refused(void **state)
{
	struct fixture *f = *state;
	struct party *stranger = calloc(1, sizeof(*stranger));

	assert_non_null(stranger);
	assert_ok(open_wire(3, "127.0.0.1:0", "guess", &stranger->wire));
	assert_ok(petal_wire_connect(stranger->wire, 1,
				     petal_wire_address(f->a.wire)));
	assert_outcome(expect(stranger, &f->a, PETAL_WIRE_DOWN)->status,
		       -ECONNREFUSED);
	expect_quiet(&f->a, stranger);
	assert_int_equal(counters(&f->a).refused_token, 1);
	assert_int_equal(counters(&f->a).admitted, 0);
	party_close(stranger);
	free(stranger);
}

/* Node 5 is called at the address of node 1: the token is not for it. */
static void connect__to_another_node_than_meant_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_ok(petal_wire_connect(f->b.wire, 5,
				     petal_wire_address(f->a.wire)));
	assert_outcome(expect(&f->b, &f->a, PETAL_WIRE_DOWN)->status,
		       -ECONNREFUSED);
	assert_int_equal(counters(&f->a).refused_token, 1);
}

static int raw_listener(char *ret_address, size_t size)
{
	struct sockaddr_in where = { .sin_family = AF_INET };
	socklen_t length = sizeof(where);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(fd >= 0);
	assert_ok(bind(fd, (struct sockaddr *)&where, sizeof(where)));
	assert_ok(listen(fd, 16));
	assert_ok(getsockname(fd, (struct sockaddr *)&where, &length));
	snprintf(ret_address, size, "127.0.0.1:%u", ntohs(where.sin_port));
	return fd;
}

static void connect__to_one_who_never_answers_times_out(void **state)
{
	struct fixture *f = *state;
	uint64_t start_ns = petal_clock_now_ns();
	char address[80];
	int fd = raw_listener(address, sizeof(address));

	assert_ok(petal_wire_connect(f->b.wire, 1, address));
	assert_outcome(expect(&f->b, NULL, PETAL_WIRE_DOWN)->status,
		       -ETIMEDOUT);
	assert_true(petal_clock_now_ns() - start_ns >= PETAL_WIRE_CONNECT_NS);
	close(fd);
}

/* Accepts the call and gives some answer, as only a holder of the key can. */
static void connect__to_an_impostor_is_down_eauth(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[REQUEST_HEADER_BYTES + 48] = { 0 };
	char address[80];
	int fd = raw_listener(address, sizeof(address));
	int call;

	assert_ok(petal_wire_connect(f->b.wire, 1, address));
	call = accept(fd, NULL, NULL);
	assert_true(call >= 0);
	expect_quiet(&f->b, NULL);
	assert_int_equal(recv(call, bytes, sizeof(bytes), MSG_WAITALL),
			 sizeof(bytes));
	/* The request becomes a response with 16 bytes of private data. */
	bytes[1] = 1;
	bytes[3] = 16;
	assert_int_equal(send(call, bytes, REQUEST_HEADER_BYTES + 16, 0),
			 REQUEST_HEADER_BYTES + 16);
	assert_outcome(expect(&f->b, NULL, PETAL_WIRE_DOWN)->status,
		       -PETAL_EAUTH);
	close(call);
	close(fd);
}

static void connect__closed_by_the_other_side_is_down_refused(void **state)
{
	struct fixture *f = *state;
	char address[80];
	int fd = raw_listener(address, sizeof(address));

	for (unsigned i = 0; i < 20; i++) {
		int call;

		assert_ok(petal_wire_connect(f->b.wire, 1, address));
		call = accept(fd, NULL, NULL);
		assert_true(call >= 0);
		step(&f->b, NULL, petal_clock_now_ns());
		close(call);
		assert_outcome(expect(&f->b, NULL, PETAL_WIRE_DOWN)->status,
			       -ECONNREFUSED);
	}
	close(fd);
}

static void connect__newer_one_of_a_peer_wins(void **state)
{
	struct fixture *f = *state;
	struct party *again = calloc(1, sizeof(*again));

	assert_non_null(again);
	connect_parties(f);
	assert_ok(write_to_b(f, 0, 0, 64, 7));
	party_open(again, 2);
	assert_ok(petal_wire_connect(again->wire, 1,
				     petal_wire_address(f->a.wire)));
	assert_int_equal(expect(&f->a, again, PETAL_WIRE_WROTE)->cookie, 7);
	assert_outcome(expect(&f->a, again, PETAL_WIRE_DOWN)->status, -ESTALE);
	expect(&f->a, again, PETAL_WIRE_UP);
	expect(again, &f->a, PETAL_WIRE_UP);
	assert_ok(petal_wire_send(f->a.wire, 2, "new", 4));
	expect(again, &f->a, PETAL_WIRE_MESSAGE);
	expect(&f->b, &f->a, PETAL_WIRE_DOWN);
	expect_quiet(&f->a, &f->b);
	assert_int_equal(counters(&f->a).replaced, 1);
	party_close(again);
	free(again);
}

/*
 * Both call at once, in every order of polling. Each side sees one connection,
 * and the call of the higher id is the one that stands.
 */
static void connect__crossing_calls_become_one_connection(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 60; i++) {
		assert_ok(petal_wire_connect(f->a.wire, 2,
					     petal_wire_address(f->b.wire)));
		assert_ok(petal_wire_connect(f->b.wire, 1,
					     petal_wire_address(f->a.wire)));
		for (unsigned n = 0; n < i % 6; n++)
			party_poll(i & 8 ? &f->a : &f->b);
		for (unsigned n = 0; n < i % 4; n++)
			party_poll(i & 8 ? &f->b : &f->a);
		expect(&f->a, &f->b, PETAL_WIRE_UP);
		expect(&f->b, &f->a, PETAL_WIRE_UP);
		expect_quiet(&f->a, &f->b);
		expect_quiet(&f->b, &f->a);
		assert_ok(petal_wire_send(f->a.wire, 2, "x", 1));
		expect(&f->b, &f->a, PETAL_WIRE_MESSAGE);
		assert_ok(petal_wire_drop(i & 1 ? f->a.wire : f->b.wire,
					  i & 1 ? 2 : 1));
		expect(&f->a, &f->b, PETAL_WIRE_DOWN);
		expect(&f->b, &f->a, PETAL_WIRE_DOWN);
	}
}

/*
 * Writes.
 */

static void fill(uint8_t *bytes, uint64_t length, uint32_t seed)
{
	for (uint64_t i = 0; i < length; i++) {
		seed = seed * 1664525 + 1013904223;
		bytes[i] = (uint8_t)(seed >> 24);
	}
}

static void write__lands_and_is_reported(void **state)
{
	static const uint64_t lengths[] = {
		1, 7, 64, 256, 4096, 65536, 1000003, MEMORY_BYTES,
	};
	struct fixture *f = *state;

	connect_parties(f);
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		uint64_t length = lengths[i];
		uint64_t offset = (MEMORY_BYTES - length) / 2;
		struct petal_wire_event *event;

		memset(f->b.memory, 0, MEMORY_BYTES);
		fill(f->a.memory, MEMORY_BYTES, i);
		assert_ok(write_to_b(f, MEMORY_BYTES - length, offset, length,
				     i + 100));
		event = expect(&f->a, &f->b, PETAL_WIRE_WROTE);
		assert_ok(event->status);
		assert_int_equal(event->peer, 2);
		assert_int_equal(event->cookie, i + 100);
		assert_memory_equal(f->b.memory + offset,
				    f->a.memory + MEMORY_BYTES - length,
				    length);
		if (offset > 0) {
			assert_int_equal(f->b.memory[offset - 1], 0);
			assert_int_equal(f->b.memory[offset + length], 0);
		}
	}
	expect_quiet(&f->b, &f->a);
}

static void write__with_notify_tells_the_peer(void **state)
{
	struct fixture *f = *state;
	struct petal_wire_event *event;

	connect_parties(f);
	fill(f->a.memory, 4096, 1);
	assert_ok(petal_wire_write(f->a.wire, 2, f->a.region, f->a.memory, 4096,
				   &f->b.key, 512, true,
				   UINT64_C(0xfedcba9876543210), 1));
	event = expect(&f->b, &f->a, PETAL_WIRE_LANDED);
	assert_int_equal(event->peer, 1);
	assert_true(event->data == UINT64_C(0xfedcba9876543210));
	assert_memory_equal(f->b.memory + 512, f->a.memory, 4096);
	assert_ok(expect(&f->a, &f->b, PETAL_WIRE_WROTE)->status);
	/* No byte at all, only the number. */
	assert_ok(petal_wire_write(f->a.wire, 2, f->a.region, f->a.memory, 0,
				   &f->b.key, 0, true, 42, 2));
	assert_int_equal(expect(&f->b, &f->a, PETAL_WIRE_LANDED)->data, 42);
	assert_ok(expect(&f->a, &f->b, PETAL_WIRE_WROTE)->status);
}

static int push_to_b(struct fixture *f, uint64_t from, uint64_t to,
		     uint64_t length)
{
	const void *local = (void *)((uintptr_t)f->a.memory + from);

	return petal_wire_push(f->a.wire, 2, f->a.region, local, length,
			       &f->b.key, to);
}

static void push__has_landed_when_a_later_write_is_over(void **state)
{
	struct fixture *f = *state;

	connect_parties(f);
	fill(f->a.memory, MEMORY_BYTES, 1);
	/* Far more than a socket takes at once, in pieces that differ. */
	for (uint64_t at = 0, n = 1; at < MEMORY_BYTES - 1; at += n++) {
		uint64_t left = MEMORY_BYTES - 1 - at;

		while (push_to_b(f, at, at, n < left ? n : left) == -EAGAIN)
			go_on(&f->a, &f->b);
	}
	assert_ok(write_to_b(f, MEMORY_BYTES - 1, MEMORY_BYTES - 1, 1, 7));
	assert_int_equal(expect(&f->a, &f->b, PETAL_WIRE_WROTE)->cookie, 7);
	assert_memory_equal(f->b.memory, f->a.memory, MEMORY_BYTES);
	expect_quiet(&f->a, &f->b);
	expect_quiet(&f->b, &f->a);
}

static void push__has_landed_when_a_later_message_comes(void **state)
{
	struct fixture *f = *state;

	connect_parties(f);
	for (unsigned i = 1; i <= 100; i++) {
		memset(f->a.memory, (int)i, MEMORY_BYTES);
		assert_ok(push_to_b(f, 0, 0, MEMORY_BYTES));
		assert_ok(petal_wire_put(f->a.wire, 2, &i, sizeof(i), &f->b.key,
					 64));
		assert_ok(petal_wire_send(f->a.wire, 2, &i, sizeof(i)));
		expect(&f->b, &f->a, PETAL_WIRE_MESSAGE);
		assert_int_equal(f->b.memory[0], i);
		assert_int_equal(f->b.memory[64], i);
		assert_int_equal(f->b.memory[MEMORY_BYTES - 1], i);
	}
}

/* Nobody polls but who was woken; what lands while arming counts. */
static bool wakes_for(struct party *party, uint8_t value)
{
	struct pollfd fd = { .fd = petal_wire_fd(party->wire),
			     .events = POLLIN };
	uint64_t end_ns = petal_clock_now_ns() + WAIT_NS;

	while (petal_clock_now_ns() < end_ns) {
		int armed = petal_wire_arm(party->wire);

		if (__atomic_load_n(&party->memory[0], __ATOMIC_RELAXED) ==
		    value)
			return true;
		if (armed == 0 && poll(&fd, 1, (int)(WAIT_NS / 1000000)) != 1)
			return false;
		party_poll(party);
	}
	return false;
}

static void push__wakes_a_peer_that_sleeps(void **state)
{
	struct fixture *f = *state;

	connect_parties(f);
	expect_quiet(&f->a, &f->b);
	expect_quiet(&f->b, &f->a);
	for (unsigned i = 1; i < 200; i++) {
		uint8_t value = (uint8_t)i;

		if (i % 2 == 0) {
			assert_ok(petal_wire_put(f->a.wire, 2, &value, 1,
						 &f->b.key, 0));
		} else {
			f->a.memory[0] = value;
			assert_ok(push_to_b(f, 0, 0, 1));
		}
		assert_true(wakes_for(&f->b, value));
	}
}

static void put__has_taken_a_copy(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[PETAL_WIRE_PUT_MAX];

	connect_parties(f);
	for (unsigned i = 0; i < MEMORY_BYTES / sizeof(bytes); i++) {
		memset(bytes, (int)(i % 251), sizeof(bytes));
		while (petal_wire_put(f->a.wire, 2, bytes, sizeof(bytes),
				      &f->b.key, i * sizeof(bytes)) == -EAGAIN)
			go_on(&f->a, &f->b);
		memset(bytes, 0xff, sizeof(bytes));
	}
	assert_ok(petal_wire_send(f->a.wire, 2, "x", 1));
	expect(&f->b, &f->a, PETAL_WIRE_MESSAGE);
	for (unsigned i = 0; i < MEMORY_BYTES; i++)
		assert_int_equal(f->b.memory[i], i / sizeof(bytes) % 251);
}

static void push_and_put__outside_of_a_region_are_einval(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[PETAL_WIRE_PUT_MAX + 1] = { 0 };

	assert_outcome(push_to_b(f, 0, 0, 1), -ENOTCONN);
	assert_outcome(petal_wire_put(f->a.wire, 2, bytes, 1, &f->b.key, 0),
		       -ENOTCONN);
	connect_parties(f);
	assert_outcome(push_to_b(f, 0, 0, 0), -EINVAL);
	assert_outcome(push_to_b(f, MEMORY_BYTES, 0, 1), -EINVAL);
	assert_outcome(push_to_b(f, 0, 1, MEMORY_BYTES), -EINVAL);
	for (uint32_t length = 0; length <= sizeof(bytes);
	     length += sizeof(bytes))
		assert_outcome(petal_wire_put(f->a.wire, 2, bytes, length,
					      &f->b.key, 0),
			       -EINVAL);
	assert_outcome(petal_wire_put(f->a.wire, 2, bytes, 2, &f->b.key,
				      MEMORY_BYTES - 1),
		       -EINVAL);
	assert_outcome(petal_wire_put(f->a.wire, 2, bytes, 1, &f->b.key,
				      UINT64_MAX),
		       -EINVAL);
}

static void push_and_put__with_a_wrong_key_end_the_connection(void **state)
{
	struct fixture *f = *state;

	connect_parties(f);
	memset(f->a.memory, 0x55, 64);
	f->b.key.key ^= 1;
	assert_ok(push_to_b(f, 0, 0, 64));
	expect(&f->a, &f->b, PETAL_WIRE_DOWN);
	expect(&f->b, &f->a, PETAL_WIRE_DOWN);
	f->b.key.key ^= 1;
	connect_parties(f);
	f->b.key.key ^= 1;
	assert_ok(petal_wire_put(f->a.wire, 2, f->a.memory, 64, &f->b.key, 64));
	expect(&f->a, &f->b, PETAL_WIRE_DOWN);
	expect(&f->b, &f->a, PETAL_WIRE_DOWN);
	for (unsigned i = 0; i < 128; i++)
		assert_int_equal(f->b.memory[i], 0);
}

static void write__outside_of_a_region_is_einval(void **state)
{
	struct fixture *f = *state;

	connect_parties(f);
	assert_outcome(write_to_b(f, 0, 0, 0, 0), -EINVAL);
	assert_outcome(write_to_b(f, 1, 0, MEMORY_BYTES, 0), -EINVAL);
	assert_outcome(write_to_b(f, 0, 1, MEMORY_BYTES, 0), -EINVAL);
	assert_outcome(write_to_b(f, MEMORY_BYTES, 0, 1, 0), -EINVAL);
	assert_outcome(write_to_b(f, (uint64_t)-1, 0, 1, 0), -EINVAL);
	assert_outcome(write_to_b(f, 0, UINT64_MAX, 2, 0), -EINVAL);
	assert_outcome(write_to_b(f, 2, 2, UINT64_MAX, 0), -EINVAL);
	assert_ok(write_to_b(f, MEMORY_BYTES - 1, MEMORY_BYTES - 1, 1, 0));
	assert_ok(expect(&f->a, &f->b, PETAL_WIRE_WROTE)->status);
}

static void write__to_nobody_is_enotconn(void **state)
{
	struct fixture *f = *state;

	assert_outcome(write_to_b(f, 0, 0, 1, 0), -ENOTCONN);
	assert_outcome(petal_wire_send(f->a.wire, 2, "x", 1), -ENOTCONN);
	assert_outcome(petal_wire_send(f->a.wire, 256, "x", 1), -ENOTCONN);
	assert_outcome(petal_wire_drop(f->a.wire, 2), -ENOTCONN);
	assert_outcome(petal_wire_drop(f->a.wire, 999), -ENOTCONN);
}

static void write__beyond_the_bound_is_eagain(void **state)
{
	struct fixture *f = *state;

	connect_parties(f);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < PETAL_WIRE_WRITES_MAX; i++)
			assert_ok(write_to_b(f, 0, 4096 * i, 4096, i));
		assert_outcome(write_to_b(f, 0, 0, 1, 99), -EAGAIN);
		assert_int_equal(counters(&f->a).busy_writes, round + 1);
		for (unsigned i = 0; i < PETAL_WIRE_WRITES_MAX; i++) {
			struct petal_wire_event *event =
				expect(&f->a, &f->b, PETAL_WIRE_WROTE);

			assert_ok(event->status);
			assert_int_equal(event->cookie, i);
		}
	}
}

static void write__with_a_wrong_key_fails_and_lands_nowhere(void **state)
{
	struct fixture *f = *state;
	struct petal_wire_event *event;

	connect_parties(f);
	memset(f->a.memory, 0x55, 4096);
	f->b.key.key ^= 1;
	assert_ok(write_to_b(f, 0, 0, 4096, 5));
	event = expect(&f->a, &f->b, PETAL_WIRE_WROTE);
	assert_true(event->status < 0);
	assert_int_equal(event->cookie, 5);
	expect(&f->a, &f->b, PETAL_WIRE_DOWN);
	expect(&f->b, &f->a, PETAL_WIRE_DOWN);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(f->b.memory[i], 0);
}

static void write__past_the_end_of_the_real_region_lands_nowhere(void **state)
{
	struct fixture *f = *state;

	connect_parties(f);
	memset(f->a.memory, 0x55, 4096);
	/* A lie about the length, as from a peer that is not what it was. */
	f->b.key.bytes += 4096;
	assert_ok(write_to_b(f, 0, MEMORY_BYTES - 64, 128, 5));
	assert_true(expect(&f->a, &f->b, PETAL_WIRE_WROTE)->status < 0);
	expect(&f->a, &f->b, PETAL_WIRE_DOWN);
	assert_int_equal(f->b.memory[MEMORY_BYTES - 64], 0);
}

static void write__to_a_closed_region_fails_and_lands_nowhere(void **state)
{
	struct fixture *f = *state;

	connect_parties(f);
	memset(f->a.memory, 0x55, 64);
	petal_wire_unregister(f->b.region);
	assert_ok(write_to_b(f, 0, 0, 64, 5));
	assert_true(expect(&f->a, &f->b, PETAL_WIRE_WROTE)->status < 0);
	expect(&f->a, &f->b, PETAL_WIRE_DOWN);
	assert_int_equal(f->b.memory[0], 0);
}

static void region__keys_are_random_and_asked_for(void **state)
{
	struct fixture *f = *state;
	struct petal_wire_region *region;
	struct petal_wire_key first;
	struct petal_wire_key second;

	assert_outcome(petal_wire_register(f->a.wire, f->a.memory, 0, &region),
		       -EINVAL);
	assert_outcome(petal_wire_register(f->a.wire, f->a.memory, UINT64_MAX,
					   &region),
		       -EINVAL);
	assert_ok(petal_wire_register(f->a.wire, f->a.memory, 64, &region));
	assert_ok(petal_wire_region_key(region, &first));
	assert_ok(petal_wire_region_key(region, &second));
	assert_memory_equal(&first, &second, sizeof(first));
	assert_true(first.key != f->a.key.key);
	assert_int_equal(first.bytes, 64);
	petal_wire_unregister(region);
	petal_wire_unregister(NULL);
}

/*
 * Messages.
 */

static void send__every_length_arrives_in_order(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[PETAL_WIRE_MESSAGE_MAX];

	connect_parties(f);
	fill(bytes, sizeof(bytes), 9);
	for (uint32_t length = 1; length <= sizeof(bytes); length += 13) {
		struct record *record;

		while (petal_wire_send(f->a.wire, 2, bytes, length) == -EAGAIN)
			party_poll(&f->a);
		record = next(&f->b, &f->a);
		assert_int_equal(record->event.type, PETAL_WIRE_MESSAGE);
		assert_int_equal(record->event.length, length);
		assert_memory_equal(record->bytes, bytes, length);
	}
	assert_outcome(petal_wire_send(f->a.wire, 2, bytes, 0), -EMSGSIZE);
	assert_outcome(petal_wire_send(f->a.wire, 2, bytes, 4097), -EMSGSIZE);
	expect_quiet(&f->a, &f->b);
}

/* The receiver does not poll: the sender is stopped, nothing is lost. */
static void send__to_one_who_does_not_poll_is_bounded(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[PETAL_WIRE_MESSAGE_MAX];
	unsigned sent = 0;

	connect_parties(f);
	fill(bytes, sizeof(bytes), 9);
	for (unsigned refused = 0; refused < 100;) {
		int err;

		memcpy(bytes, &sent, sizeof(sent));
		err = petal_wire_send(f->a.wire, 2, bytes, sizeof(bytes));
		if (err == 0) {
			sent++;
			refused = 0;
			continue;
		}
		assert_outcome(err, -EAGAIN);
		refused++;
		assert_int_equal(party_poll(&f->a), 0);
	}
	assert_true(sent >= PETAL_WIRE_SENDS_MAX);
	assert_true(counters(&f->a).busy_sends >= 100);
	for (unsigned i = 0; i < sent; i++) {
		struct record *record = next(&f->b, &f->a);

		assert_int_equal(record->event.type, PETAL_WIRE_MESSAGE);
		assert_memory_equal(record->bytes, &i, sizeof(i));
	}
	expect_quiet(&f->b, &f->a);
}

/* Messages and writes both ways, mixed, so that each waits for the other. */
static void send__and_write_mixed_lose_nothing(void **state)
{
	struct fixture *f = *state;
	unsigned received[2] = { 0, 0 };
	unsigned landed[2] = { 0, 0 };
	unsigned wrote[2] = { 0, 0 };
	unsigned sent[2] = { 0, 0 };
	unsigned posted[2] = { 0, 0 };
	const unsigned rounds = 5000;

	connect_parties(f);
	while (received[0] + received[1] + landed[0] + landed[1] + wrote[0] +
		       wrote[1] <
	       6 * rounds) {
		for (unsigned side = 0; side < 2; side++) {
			struct party *me = side ? &f->b : &f->a;
			struct party *you = side ? &f->a : &f->b;
			uint32_t peer = side ? 1 : 2;

			while (sent[side] < rounds &&
			       petal_wire_send(me->wire, peer, &sent[side],
					       sizeof(sent[side])) == 0)
				sent[side]++;
			while (posted[side] < rounds &&
			       petal_wire_write(
				       me->wire, peer, me->region, me->memory,
				       posted[side] % 9000, &you->key, 0, true,
				       posted[side], posted[side]) == 0)
				posted[side]++;
			if (me->taken == me->logged &&
			    you->taken == you->logged)
				go_on(me, you);
			while (me->taken != me->logged) {
				struct record *record =
					&me->log[me->taken++ % LOG_MAX];
				struct petal_wire_event *event = &record->event;

				if (event->type == PETAL_WIRE_MESSAGE) {
					assert_memory_equal(record->bytes,
							    &received[side], 4);
					received[side]++;
				} else if (event->type == PETAL_WIRE_LANDED) {
					assert_int_equal(event->data,
							 landed[side]++);
				} else {
					assert_int_equal(event->type,
							 PETAL_WIRE_WROTE);
					assert_ok(event->status);
					assert_int_equal(event->cookie,
							 wrote[side]++);
				}
			}
		}
	}
	expect_quiet(&f->a, &f->b);
}

/*
 * Ends.
 */

static void drop__reports_each_write_before_down(void **state)
{
	struct fixture *f = *state;
	bool seen[PETAL_WIRE_WRITES_MAX] = { false };

	connect_parties(f);
	/* B does not poll, so most of these cannot be delivered. */
	for (unsigned i = 0; i < PETAL_WIRE_WRITES_MAX; i++)
		assert_ok(write_to_b(f, 0, 0, 1 << 20, i));
	assert_ok(petal_wire_drop(f->a.wire, 2));
	assert_outcome(write_to_b(f, 0, 0, 1, 99), -ENOTCONN);
	assert_outcome(petal_wire_connect(f->a.wire, 2, "127.0.0.1:1"),
		       -EISCONN);
	for (unsigned i = 0; i < PETAL_WIRE_WRITES_MAX; i++) {
		struct petal_wire_event *event =
			expect(&f->a, NULL, PETAL_WIRE_WROTE);

		assert_outcome(event->status, -ECANCELED);
		assert_in_range(event->cookie, 0, PETAL_WIRE_WRITES_MAX - 1);
		assert_false(seen[event->cookie]);
		seen[event->cookie] = true;
	}
	assert_outcome(expect(&f->a, NULL, PETAL_WIRE_DOWN)->status,
		       -ECANCELED);
	assert_outcome(expect(&f->b, NULL, PETAL_WIRE_DOWN)->status,
		       -ECONNRESET);
	expect_quiet(&f->a, &f->b);
}

static void drop__of_a_call_under_way_is_down(void **state)
{
	struct fixture *f = *state;

	assert_ok(petal_wire_connect(f->b.wire, 1,
				     petal_wire_address(f->a.wire)));
	assert_ok(petal_wire_drop(f->b.wire, 1));
	assert_outcome(expect(&f->b, &f->a, PETAL_WIRE_DOWN)->status,
		       -ECANCELED);
	expect_quiet(&f->b, &f->a);
	while (f->a.taken != f->a.logged)
		f->a.taken++;
	connect_parties(f);
}

/* One event at a time: nothing may depend on room for several. */
static void poll__of_one_event_at_a_time_reports_all(void **state)
{
	struct fixture *f = *state;
	unsigned wrote = 0;
	bool down = false;

	connect_parties(f);
	for (unsigned i = 0; i < PETAL_WIRE_WRITES_MAX; i++)
		assert_ok(write_to_b(f, 0, 0, 1 << 20, i));
	party_close(&f->b);
	while (!down) {
		struct petal_wire_event event;

		if (petal_wire_poll(f->a.wire, &event, 1) == 0)
			continue;
		down = event.type == PETAL_WIRE_DOWN;
		wrote += event.type == PETAL_WIRE_WROTE;
	}
	assert_int_equal(wrote, PETAL_WIRE_WRITES_MAX);
	expect_quiet(&f->a, NULL);
}

static void close__of_the_peer_is_down(void **state)
{
	struct fixture *f = *state;
	char address[80];

	snprintf(address, sizeof(address), "%s", petal_wire_address(f->a.wire));
	for (unsigned i = 0; i < 20; i++) {
		connect_parties(f);
		party_close(&f->a);
		assert_outcome(expect(&f->b, NULL, PETAL_WIRE_DOWN)->status,
			       -ECONNRESET);
		party_open(&f->a, 1);
	}
}

/*
 * Other processes. The child connects to node 1 and gives it a key; each LANDED
 * is answered by a write of the same number to the key it gets; it sleeps in
 * between, and counts how often.
 */

struct greeting {
	struct petal_wire_key key;
	unsigned long sleeps;
};

static void child_say(struct party *me, unsigned long sleeps)
{
	struct greeting greeting = { .key = me->key, .sleeps = sleeps };

	assert_ok(petal_wire_send(me->wire, 1, &greeting, sizeof(greeting)));
}

static int child(const char *address)
{
	struct party *me = calloc(1, sizeof(*me));
	struct petal_wire_key key = { 0 };

	assert_non_null(me);
	/* A test that died leaves no child behind. */
	alarm(120);
	party_open(me, 2);
	assert_ok(petal_wire_connect(me->wire, 1, address));
	for (;;) {
		struct record *record = take(me, NULL, PETAL_S(100));

		if (record == NULL || record->event.type == PETAL_WIRE_DOWN)
			break;
		if (record->event.type == PETAL_WIRE_UP)
			child_say(me, 0);
		if (record->event.type == PETAL_WIRE_MESSAGE &&
		    record->event.length == sizeof(key))
			memcpy(&key, record->bytes, sizeof(key));
		else if (record->event.type == PETAL_WIRE_MESSAGE)
			child_say(me, me->sleeps);
		if (record->event.type == PETAL_WIRE_LANDED && key.bytes > 0)
			assert_ok(petal_wire_write(
				me->wire, 1, me->region, me->memory, 256, &key,
				0, true, record->event.data, 0));
	}
	party_close(me);
	free(me);
	return 0;
}

/*
 * libfabric takes a good part of a second to look for its providers, so the
 * children that are to be killed are forked from a process that has done it,
 * and that has no wire of its own.
 */
static int nursery(const char *address)
{
	struct petal_wire *wire;
	char order;

	signal(SIGCHLD, SIG_IGN);
	assert_ok(open_wire(2, "127.0.0.1:0", "secret", &wire));
	petal_wire_close(wire);
	while (read(STDIN_FILENO, &order, 1) == 1) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(child(address));
		assert_int_equal(write(STDOUT_FILENO, &pid, sizeof(pid)),
				 sizeof(pid));
	}
	return 0;
}

struct process {
	pid_t pid;
	int orders;
	int answers;
};

static void process_start(const struct party *party, const char *role,
			  struct process *ret_process)
{
	char *arguments[] = { (char *)"wire_test", (char *)role,
			      (char *)petal_wire_address(party->wire), NULL };
	int orders[2];
	int answers[2];

	assert_ok(pipe2(orders, O_CLOEXEC));
	assert_ok(pipe2(answers, O_CLOEXEC));
	ret_process->pid = fork();
	assert_true(ret_process->pid >= 0);
	if (ret_process->pid == 0) {
		dup2(orders[0], STDIN_FILENO);
		dup2(answers[1], STDOUT_FILENO);
		close_range(3, ~0U, 0);
		execv("/proc/self/exe", arguments);
		_exit(127);
	}
	close(orders[0]);
	close(answers[1]);
	ret_process->orders = orders[1];
	ret_process->answers = answers[0];
}

static void process_end(struct process *process)
{
	int status;

	close(process->orders);
	close(process->answers);
	assert_int_equal(waitpid(process->pid, &status, 0), process->pid);
	assert_int_equal(status, 0);
}

static pid_t process_child(const struct process *process)
{
	pid_t pid;

	assert_int_equal(write(process->orders, "+", 1), 1);
	assert_int_equal(read(process->answers, &pid, sizeof(pid)),
			 sizeof(pid));
	return pid;
}

static void child_key(struct party *party, struct greeting *ret_greeting)
{
	struct record *record = next(party, NULL);

	assert_int_equal(record->event.type, PETAL_WIRE_MESSAGE);
	assert_int_equal(record->event.length, sizeof(*ret_greeting));
	memcpy(ret_greeting, record->bytes, sizeof(*ret_greeting));
}

static void ping(struct party *me, const struct greeting *it, uint64_t number)
{
	bool landed = false;
	bool wrote = false;

	assert_ok(petal_wire_write(me->wire, 2, me->region, me->memory, 256,
				   &it->key, 256, true, number, number));
	while (!landed || !wrote) {
		struct petal_wire_event *event = &next(me, NULL)->event;

		if (event->type == PETAL_WIRE_LANDED) {
			assert_int_equal(event->data, number);
			landed = true;
		} else {
			assert_int_equal(event->type, PETAL_WIRE_WROTE);
			assert_ok(event->status);
			wrote = true;
		}
	}
}

static uint64_t cpu_ns(void)
{
	struct rusage usage;

	assert_ok(getrusage(RUSAGE_SELF, &usage));
	return PETAL_S(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       PETAL_US(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/*
 * Both sleep in poll() whenever there is nothing to do. A lost wake-up would
 * leave both asleep until the event is missed; a loop that spins would sleep
 * far more often than it has reason to.
 */
static void sleepers__wake_for_each_write_and_for_nothing_else(void **state)
{
	struct fixture *f = *state;
	unsigned long rounds = 5000 * factor;
	struct greeting greeting;
	struct process process;
	uint64_t idle_ns;

	process_start(&f->a, "child", &process);
	expect(&f->a, NULL, PETAL_WIRE_UP);
	child_key(&f->a, &greeting);
	assert_ok(petal_wire_send(f->a.wire, 2, &f->a.key, sizeof(f->a.key)));
	f->a.sleeps = 0;
	for (uint64_t i = 0; i < rounds; i++)
		ping(&f->a, &greeting, i);
	assert_true(f->a.sleeps <= 6 * rounds);
	assert_ok(petal_wire_send(f->a.wire, 2, "?", 1));
	child_key(&f->a, &greeting);
	assert_true(greeting.sleeps <= 6 * rounds + 100);

	idle_ns = cpu_ns();
	f->a.sleeps = 0;
	assert_null(take(&f->a, NULL, PETAL_MS(500)));
	assert_true(f->a.sleeps <= 3);
	assert_true(cpu_ns() - idle_ns < PETAL_MS(100));

	assert_ok(petal_wire_drop(f->a.wire, 2));
	expect(&f->a, NULL, PETAL_WIRE_DOWN);
	process_end(&process);
}

static void killed_peer__is_down_once_and_can_come_again(void **state)
{
	struct fixture *f = *state;
	unsigned long rounds = 100 * factor;
	struct process process;
	unsigned fds = 0;

	process_start(&f->a, "nursery", &process);
	for (unsigned long i = 0; i < rounds; i++) {
		struct greeting greeting;
		struct petal_wire_event *event;
		unsigned wrote = 0;
		pid_t pid = process_child(&process);

		expect(&f->a, NULL, PETAL_WIRE_UP);
		child_key(&f->a, &greeting);
		for (unsigned n = 0; n < i % PETAL_WIRE_WRITES_MAX; n++)
			assert_ok(petal_wire_write(
				f->a.wire, 2, f->a.region, f->a.memory, 1 << 20,
				&greeting.key, 0, n & 1, n, n));
		assert_ok(kill(pid, SIGKILL));
		while ((event = &next(&f->a, NULL)->event)->type ==
		       PETAL_WIRE_WROTE)
			wrote++;
		assert_int_equal(wrote, i % PETAL_WIRE_WRITES_MAX);
		assert_int_equal(event->type, PETAL_WIRE_DOWN);
		assert_outcome(event->status, -ECONNRESET);
		party_poll(&f->a);
		if (i == 0)
			fds = count_fds();
	}
	assert_int_equal(count_fds(), fds);
	expect_quiet(&f->a, NULL);
	process_end(&process);
}

/*
 * Strangers.
 */

static int raw_call(const struct party *party)
{
	struct sockaddr_in where = { .sin_family = AF_INET };
	const char *colon = strrchr(petal_wire_address(party->wire), ':');
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	where.sin_port = htons((uint16_t)atoi(colon + 1));
	assert_ok(connect(fd, (struct sockaddr *)&where, sizeof(where)));
	return fd;
}

/* The request that a real caller would send, but for its token. */
static size_t raw_request(uint8_t *bytes, uint32_t seed, size_t announced)
{
	memset(bytes, 0, REQUEST_HEADER_BYTES);
	bytes[0] = 3;
	bytes[2] = (uint8_t)(announced >> 8);
	bytes[3] = (uint8_t)announced;
	bytes[24] = 1;
	fill(bytes + REQUEST_HEADER_BYTES, 256, seed);
	memcpy(bytes + REQUEST_HEADER_BYTES, "PTK1\x02\0\0\0", 8);
	return REQUEST_HEADER_BYTES + announced;
}

/* One of eight kinds of nonsense, whole or cut short. */
static void raw_nonsense(int fd, uint32_t seed)
{
	uint8_t bytes[REQUEST_HEADER_BYTES + 256];
	size_t length;

	switch (seed % 8) {
	case 0:
		return;
	case 1:
		length = 1;
		bytes[0] = 3;
		break;
	case 2:
		raw_request(bytes, seed, 48);
		length = REQUEST_HEADER_BYTES;
		break;
	case 3:
		length = raw_request(bytes, seed, 48);
		break;
	case 4:
		raw_request(bytes, seed, 65535);
		length = REQUEST_HEADER_BYTES + 48;
		break;
	case 5:
		length = raw_request(bytes, seed, 48);
		bytes[seed / 8 % REQUEST_HEADER_BYTES] ^= (uint8_t)seed;
		break;
	case 6:
		length = raw_request(bytes, seed, 0);
		break;
	default:
		length = sizeof(bytes);
		fill(bytes, length, seed);
	}
	assert_int_equal(send(fd, bytes, length, MSG_NOSIGNAL), length);
}

/* Not a byte may come back, whatever was sent. */
static void raw_end(int fd)
{
	uint8_t byte;
	ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);

	assert_true(got <= 0);
	close(fd);
}

/* Strangers who are still at the door go with the wire as well. */
static void close__gives_every_descriptor_back(void **state)
{
	struct fixture *f = *state;
	unsigned before = 0;

	for (unsigned i = 0; i < 5; i++) {
		uint8_t bytes[REQUEST_HEADER_BYTES + 256];
		int fds[3];

		for (unsigned n = 0; n < 3; n++)
			fds[n] = raw_call(&f->a);
		raw_request(bytes, i, 48);
		assert_int_equal(send(fds[1], bytes, REQUEST_HEADER_BYTES, 0),
				 REQUEST_HEADER_BYTES);
		connect_parties(f);
		assert_int_equal(send(fds[2], bytes, 80, 0), 80);
		party_close(&f->a);
		party_close(&f->b);
		for (unsigned n = 0; n < 3; n++)
			raw_end(fds[n]);
		if (i == 0)
			before = count_fds();
		assert_int_equal(count_fds(), before);
		party_open(&f->a, 1);
		party_open(&f->b, 2);
	}
}

static void stranger__half_a_request_stops_nobody(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[REQUEST_HEADER_BYTES + 256];
	int fds[8];

	raw_request(bytes, 1, 48);
	for (unsigned i = 0; i < 8; i++) {
		fds[i] = raw_call(&f->a);
		assert_int_equal(send(fds[i], bytes, REQUEST_HEADER_BYTES, 0),
				 REQUEST_HEADER_BYTES);
	}
	connect_parties(f);
	assert_ok(write_to_b(f, 0, 0, 64, 1));
	assert_ok(expect(&f->a, &f->b, PETAL_WIRE_WROTE)->status);
	for (unsigned i = 0; i < 8; i++)
		raw_end(fds[i]);
}

static void stranger__token_of_another_is_worth_nothing(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[REQUEST_HEADER_BYTES + 48];
	uint8_t reply;
	char address[80];
	int fd = raw_listener(address, sizeof(address));
	int call;

	/* B calls the stranger, meaning node 3, who shows the token to A. */
	assert_ok(petal_wire_connect(f->b.wire, 3, address));
	call = accept(fd, NULL, NULL);
	assert_true(call >= 0);
	step(&f->b, NULL, 0);
	assert_int_equal(recv(call, bytes, sizeof(bytes), MSG_WAITALL),
			 sizeof(bytes));
	close(call);
	close(fd);
	call = raw_call(&f->a);
	assert_int_equal(send(call, bytes, sizeof(bytes), 0), sizeof(bytes));
	while (counters(&f->a).refused_token == 0)
		go_on(&f->a, NULL);
	assert_int_equal(recv(call, &reply, 1, 0), 0);
	close(call);
	assert_int_equal(counters(&f->a).admitted, 0);
}

static void stranger__token_of_another_time_is_refused_by_name(void **state)
{
	struct fixture *f = *state;
	uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES] = "wire test";
	uint8_t key[PETAL_SEAL_KEY_BYTES] = "secret";
	uint8_t bytes[REQUEST_HEADER_BYTES + 256];
	size_t length = raw_request(bytes, 1, PETAL_SEAL_TOKEN_BYTES);
	uint8_t reply;
	int call;

	petal_seal_key_derive(key, "wire", key);
	petal_seal_token_make(key, cluster, 2, 1,
			      petal_clock_realtime_ns() - PETAL_S(7200),
			      bytes + REQUEST_HEADER_BYTES);
	call = raw_call(&f->a);
	assert_int_equal(send(call, bytes, length, 0), length);
	while (counters(&f->a).refused_clock == 0)
		go_on(&f->a, NULL);
	assert_int_equal(recv(call, &reply, 1, 0), 0);
	close(call);
	assert_int_equal(counters(&f->a).clock_peer, 2);
	assert_in_range(-counters(&f->a).clock_ahead_ns, PETAL_S(7200),
			PETAL_S(7260));
	assert_int_equal(counters(&f->a).admitted, 0);
	assert_int_equal(counters(&f->a).refused_token, 0);
}

static void stranger__replayed_token_is_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[REQUEST_HEADER_BYTES + 48];
	char address[80];
	int fd = raw_listener(address, sizeof(address));
	int call;

	/* A token from B for A, overheard; it is good once. */
	assert_ok(petal_wire_connect(f->b.wire, 1, address));
	call = accept(fd, NULL, NULL);
	assert_true(call >= 0);
	step(&f->b, NULL, 0);
	assert_int_equal(recv(call, bytes, sizeof(bytes), MSG_WAITALL),
			 sizeof(bytes));
	close(call);
	close(fd);
	for (unsigned i = 0; i < 2; i++) {
		call = raw_call(&f->a);
		assert_int_equal(send(call, bytes, sizeof(bytes), 0),
				 sizeof(bytes));
		while (counters(&f->a).admitted +
			       counters(&f->a).refused_token <=
		       i)
			go_on(&f->a, NULL);
		close(call);
	}
	assert_int_equal(counters(&f->a).admitted, 1);
	assert_int_equal(counters(&f->a).refused_token, 1);
}

static void stranger__silent_ones_are_bounded_by_count_and_time(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit;
	unsigned before = count_fds();
	enum { CALLS = 300, KEPT = 64 };
	int fds[CALLS];

	assert_ok(getrlimit(RLIMIT_NOFILE, &limit));
	if (limit.rlim_cur < 2 * CALLS + 100)
		skip();
	for (unsigned i = 0; i < CALLS; i++)
		fds[i] = raw_call(&f->a);
	while (counters(&f->a).halfopen_evicted < CALLS - KEPT)
		go_on(&f->a, NULL);
	for (unsigned i = 0; i < 4; i++)
		party_poll(&f->a);
	assert_in_range(count_fds(), before + CALLS, before + CALLS + KEPT);
	connect_parties(f);
	while (counters(&f->a).halfopen_expired < KEPT - 1)
		go_on(&f->a, NULL);
	for (unsigned i = 0; i < 4; i++)
		party_poll(&f->a);
	/* What is left is our own ends, and the honest connection. */
	assert_in_range(count_fds(), before + CALLS, before + CALLS + 10);
	for (unsigned i = 0; i < CALLS; i++)
		raw_end(fds[i]);
	assert_ok(write_to_b(f, 0, 0, 64, 1));
	assert_ok(expect(&f->a, &f->b, PETAL_WIRE_WROTE)->status);
}

/* A flood of nonsense, some of it never closed, while honest peers work. */
static void stranger__flood_does_not_disturb_honest_peers(void **state)
{
	struct fixture *f = *state;
	enum { OPEN = 32 };
	int fds[OPEN];
	uint64_t worst_ns = 0;
	unsigned before;

	connect_parties(f);
	before = count_fds();
	for (unsigned i = 0; i < OPEN; i++)
		fds[i] = raw_call(&f->a);
	for (unsigned long i = 0; i < 5000 * factor; i++) {
		unsigned slot = i * 7 % OPEN;

		raw_end(fds[slot]);
		fds[slot] = raw_call(&f->a);
		raw_nonsense(fds[slot], (uint32_t)(i * 2654435761u >> 8));
		if (i % 10 == 0) {
			uint64_t start_ns = petal_clock_now_ns();

			assert_ok(write_to_b(f, 0, 0, 256, i));
			assert_int_equal(
				expect(&f->a, &f->b, PETAL_WIRE_WROTE)->cookie,
				i);
			start_ns = petal_clock_now_ns() - start_ns;
			worst_ns = start_ns > worst_ns ? start_ns : worst_ns;
		}
		if (i % 500 == 499) {
			assert_ok(petal_wire_drop(f->b.wire, 1));
			expect(&f->b, &f->a, PETAL_WIRE_DOWN);
			expect(&f->a, &f->b, PETAL_WIRE_DOWN);
			connect_parties(f);
		}
	}
	for (unsigned i = 0; i < OPEN; i++)
		raw_end(fds[i]);
	assert_int_equal(counters(&f->a).admitted, 1 + 10 * factor);
	assert_true(counters(&f->a).refused_token > 500 * factor);
	print_message("worst write among strangers: %.1f ms\n",
		      (double)worst_ns / 1e6);
	expect_quiet(&f->a, &f->b);
	assert_in_range(count_fds(), before - 1, before);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(open__unknown_provider_is_enodata),
		cmocka_unit_test(
			open__without_a_provider_takes_what_serves_the_address),
		cmocka_unit_test(open__bad_address_is_einval),
		cmocka_unit_test(
			open__address_of_another_machine_is_eaddrnotavail),
		TEST(open__port_in_use_is_eaddrinuse),
		TEST(open__port_can_be_taken_again_after_close),
		TEST(open__serves_ipv6),
		TEST(close__gives_every_descriptor_back),
		TEST(connect__is_refused_where_it_makes_no_sense),
		TEST(connect__to_nobody_is_down_refused),
		TEST(connect__with_a_wrong_key_is_refused),
		TEST(connect__to_another_node_than_meant_is_refused),
		TEST(connect__to_one_who_never_answers_times_out),
		TEST(connect__to_an_impostor_is_down_eauth),
		TEST(connect__closed_by_the_other_side_is_down_refused),
		TEST(connect__newer_one_of_a_peer_wins),
		TEST(connect__crossing_calls_become_one_connection),
		TEST(write__lands_and_is_reported),
		TEST(write__with_notify_tells_the_peer),
		TEST(push__has_landed_when_a_later_write_is_over),
		TEST(push__has_landed_when_a_later_message_comes),
		TEST(push__wakes_a_peer_that_sleeps),
		TEST(put__has_taken_a_copy),
		TEST(push_and_put__outside_of_a_region_are_einval),
		TEST(push_and_put__with_a_wrong_key_end_the_connection),
		TEST(write__outside_of_a_region_is_einval),
		TEST(write__to_nobody_is_enotconn),
		TEST(write__beyond_the_bound_is_eagain),
		TEST(write__with_a_wrong_key_fails_and_lands_nowhere),
		TEST(write__past_the_end_of_the_real_region_lands_nowhere),
		TEST(write__to_a_closed_region_fails_and_lands_nowhere),
		TEST(region__keys_are_random_and_asked_for),
		TEST(send__every_length_arrives_in_order),
		TEST(send__to_one_who_does_not_poll_is_bounded),
		TEST(send__and_write_mixed_lose_nothing),
		TEST(drop__reports_each_write_before_down),
		TEST(drop__of_a_call_under_way_is_down),
		TEST(poll__of_one_event_at_a_time_reports_all),
		TEST(close__of_the_peer_is_down),
		TEST(stranger__half_a_request_stops_nobody),
		TEST(stranger__token_of_another_is_worth_nothing),
		TEST(stranger__token_of_another_time_is_refused_by_name),
		TEST(stranger__replayed_token_is_refused),
		TEST(stranger__silent_ones_are_bounded_by_count_and_time),
		TEST(stranger__flood_does_not_disturb_honest_peers),
		TEST(sleepers__wake_for_each_write_and_for_nothing_else),
		TEST(killed_peer__is_down_once_and_can_come_again),
	};

	/* libfabric's dependencies install handlers that hide where we died. */
	for (int number = 1; number < 32; number++)
		signal(number, SIG_DFL);
	if (argc == 3 && strcmp(argv[1], "child") == 0)
		return child(argv[2]);
	if (argc == 3 && strcmp(argv[1], "nursery") == 0)
		return nursery(argv[2]);
	if (argc > 1)
		factor = strtoul(argv[1], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
