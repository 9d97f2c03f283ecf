/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conformance probe between two processes over 127.0.0.1: what tcp keeps,
 * each lie of the provider in tests/liar found out by the check it is for, one
 * who is not there, one of another key, and one who talks nonsense, on either
 * side. And the judgement and the records, by themselves.
 *
 *    probe_test DIRECTORY-OF-THE-LIAR
 */
#include "tests/check.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "fabric/probe_private.h"
#include "fabric/seal.h"
#include "shm/clock.h"
#include "shm/crc32c.h"

#define CHILD_NS PETAL_S(100)

static struct petal_probe_options options_of(const char *key)
{
	struct petal_probe_options options = {
		.listen = "127.0.0.1:0",
		.cluster = "probe test",
		.quick = true,
	};

	memcpy(options.key, key, strlen(key));
	return options;
}

/* The other process. */

struct other {
	pid_t pid;
	char address[80];
};

static void answer_as_petal(int fd)
{
	struct petal_probe_options options = options_of("secret");
	struct petal_probe_answerer *answerer;
	char address[80] = "";

	if (petal_probe_open(&options, &answerer) != 0)
		return;
	strcpy(address, petal_probe_address(answerer));
	if (write(fd, address, sizeof(address)) < 0)
		return;
	petal_probe_answer(answerer, -1, petal_clock_now_ns() + CHILD_NS);
}

/* Knows the key, and says what the shape of an answer forbids. */
static void answer_nonsense(int fd, uint32_t length, uint64_t number)
{
	struct petal_probe_options options = options_of("secret");
	struct probe_answer answer = { .magic = PROBE_MAGIC,
				       .version = PROBE_VERSION,
				       .number = number };
	uint8_t bytes[PETAL_WIRE_MESSAGE_MAX] = { 0 };
	struct petal_wire *wire;
	char address[80] = "";

	memset(answer.address, 'x', sizeof(answer.address));
	memcpy(bytes, &answer, sizeof(answer));
	if (probe_wire_open(&options, PROBE_ANSWERER, "tcp", "127.0.0.1:0",
			    &wire) != 0)
		return;
	strcpy(address, petal_wire_address(wire));
	if (write(fd, address, sizeof(address)) < 0)
		return;
	for (;;) {
		struct petal_wire_event event;

		if (petal_wire_poll(wire, &event, 1) == 1 &&
		    event.type == PETAL_WIRE_MESSAGE)
			petal_wire_send(wire, PROBE_ASKER, bytes, length);
	}
}

static void answer_too_little(int fd)
{
	answer_nonsense(fd, 5, 1);
}

static void answer_without_an_end(int fd)
{
	answer_nonsense(fd, sizeof(struct probe_answer), 1);
}

static void other_start(struct other *other, void (*be)(int fd),
			const char *lie)
{
	int ends[2];

	assert_ok(pipe(ends));
	setenv("PETAL_LIAR", lie, 1);
	other->pid = fork();
	assert_true(other->pid >= 0);
	if (other->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		be(ends[1]);
		_exit(1);
	}
	assert_int_equal(read(ends[0], other->address, sizeof(other->address)),
			 sizeof(other->address));
	close(ends[0]);
	close(ends[1]);
}

static void other_end(struct other *other)
{
	kill(other->pid, SIGKILL);
	waitpid(other->pid, NULL, 0);
}

static struct petal_probe_row ask_once(const char *provider, const char *lie)
{
	struct petal_probe_options options = options_of("secret");
	struct petal_probe_asker *asker;
	struct petal_probe_row row;
	struct other other;

	other_start(&other, answer_as_petal, lie);
	options.peer = other.address;
	assert_ok(petal_probe_call(&options, &asker));
	assert_ok(petal_probe_ask(asker, provider, &row));
	petal_probe_hang_up(asker);
	other_end(&other);
	return row;
}

static bool replicates(const struct petal_probe_row *row)
{
	char why[PETAL_PROBE_WORDS_BYTES];
	bool does = petal_probe_replicates(row, why);

	assert_int_equal(does, why[0] == '\0');
	return does;
}

/*
 * What is kept.
 */

static void ask__tcp_keeps_all_of_it(void **state)
{
	struct petal_probe_row row = ask_once("tcp", "");

	(void)state;
	assert_ok(row.status);
	for (unsigned i = 0; i < PETAL_PROBE_CHECKS; i++)
		assert_true(
			petal_probe_passed(&row, (enum petal_probe_check)i));
	assert_true(replicates(&row));
	assert_true(petal_probe_completes(&row));
}

static void ask__unknown_provider_is_enodata(void **state)
{
	struct petal_probe_row row = ask_once("pigeon", "");

	(void)state;
	assert_outcome(row.status, -ENODATA);
	assert_false(replicates(&row));
}

static void ask__provider_without_connections_is_eopnotsupp(void **state)
{
	struct petal_probe_row row = ask_once("shm", "");

	(void)state;
	assert_outcome(row.status, -EOPNOTSUPP);
	assert_false(replicates(&row));
}

static void ask__liar_without_a_lie_keeps_what_tcp_keeps(void **state)
{
	struct petal_probe_row row = ask_once("liar", "");

	(void)state;
	assert_true(replicates(&row));
	assert_true(petal_probe_completes(&row));
}

static void ask__early_report_is_found_and_not_counted(void **state)
{
	struct petal_probe_row row = ask_once("liar", "early");

	(void)state;
	assert_false(petal_probe_passed(&row, PETAL_PROBE_LANDED));
	assert_int_equal(row.lost, 0);
	/* The phantom: success for a write into memory that was closed. */
	assert_true(row.fence_reported > 0);
	assert_int_equal(row.fence_landed, 0);
	assert_true(replicates(&row));
	assert_false(petal_probe_completes(&row));
}

static void ask__memory_that_stays_open_is_found(void **state)
{
	struct petal_probe_row row = ask_once("liar", "open");

	(void)state;
	assert_true(petal_probe_passed(&row, PETAL_PROBE_LANDED));
	assert_true(row.fence_landed > 0);
	assert_true(replicates(&row));
	assert_false(petal_probe_completes(&row));
}

static void ask__write_that_never_lands_refuses_the_levels(void **state)
{
	struct petal_probe_row row = ask_once("liar", "lost");

	(void)state;
	assert_int_equal(row.lost, row.writes);
	assert_true(row.stuck > 0);
	assert_false(replicates(&row));
}

static void ask__half_a_write_refuses_the_levels(void **state)
{
	struct petal_probe_row row = ask_once("liar", "torn");

	(void)state;
	assert_true(row.lost > 0);
	assert_false(petal_probe_passed(&row, PETAL_PROBE_WHOLE));
	assert_false(replicates(&row));
}

/*
 * Who is not there, or not right.
 */

static void call__nobody_is_econnrefused_in_time(void **state)
{
	struct petal_probe_options options = options_of("secret");
	uint64_t since_ns = petal_clock_now_ns();
	struct petal_probe_asker *asker;
	struct other other;

	(void)state;
	other_start(&other, answer_as_petal, "");
	other_end(&other);
	options.peer = other.address;
	assert_outcome(petal_probe_call(&options, &asker), -ECONNREFUSED);
	assert_true(petal_clock_now_ns() - since_ns < PETAL_S(10));
}

static void call__other_key_is_econnrefused(void **state)
{
	struct petal_probe_options options = options_of("another secret");
	struct petal_probe_asker *asker;
	struct other other;

	(void)state;
	other_start(&other, answer_as_petal, "");
	options.peer = other.address;
	assert_outcome(petal_probe_call(&options, &asker), -ECONNREFUSED);
	other_end(&other);
}

static void call__no_address_is_einval(void **state)
{
	static const char *const bad[] = {
		"", "host", "127.0.0.1:", "[::1", "localhost:7301", "[]:1", ":1"
	};
	struct petal_probe_options options = options_of("secret");
	struct petal_probe_asker *asker;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		options.peer = bad[i];
		assert_outcome(petal_probe_call(&options, &asker), -EINVAL);
	}
}

static int ask_other(void (*be)(int fd))
{
	struct petal_probe_options options = options_of("secret");
	struct petal_probe_asker *asker;
	struct petal_probe_row row;
	struct other other;
	int err;

	other_start(&other, be, "");
	options.peer = other.address;
	assert_ok(petal_probe_call(&options, &asker));
	err = petal_probe_ask(asker, "tcp", &row);
	assert_false(replicates(&row));
	petal_probe_hang_up(asker);
	other_end(&other);
	return err;
}

static void ask__answer_of_another_shape_is_eproto(void **state)
{
	(void)state;
	assert_outcome(ask_other(answer_too_little), -EPROTO);
	assert_outcome(ask_other(answer_without_an_end), -EPROTO);
}

static void ask__peer_that_dies_is_an_end(void **state)
{
	struct petal_probe_options options = options_of("secret");
	struct petal_probe_asker *asker;
	struct petal_probe_row row;
	struct other other;

	(void)state;
	other_start(&other, answer_as_petal, "");
	options.peer = other.address;
	assert_ok(petal_probe_call(&options, &asker));
	other_end(&other);
	assert_outcome(petal_probe_ask(asker, "tcp", &row), -ECONNRESET);
	petal_probe_hang_up(asker);
}

/* Polls until the peer is up, or down again. */
static bool wait_up(struct petal_wire *wire, bool up)
{
	uint64_t until_ns = petal_clock_now_ns() + PETAL_S(20);
	struct petal_wire_event event;

	while (petal_clock_now_ns() < until_ns) {
		if (petal_wire_poll(wire, &event, 1) != 1)
			continue;
		if (event.type == PETAL_WIRE_UP && up)
			return true;
		if (event.type == PETAL_WIRE_DOWN)
			return !up;
	}
	return false;
}

static void send_bad(const struct other *other, const void *bytes,
		     uint32_t length)
{
	struct petal_probe_options options = options_of("secret");
	struct petal_wire *wire;

	assert_ok(probe_wire_open(&options, PROBE_ASKER, "tcp", "127.0.0.1:0",
				  &wire));
	assert_ok(petal_wire_connect(wire, PROBE_ANSWERER, other->address));
	assert_true(wait_up(wire, true));
	assert_ok(petal_wire_send(wire, PROBE_ANSWERER, bytes, length));
	assert_true(wait_up(wire, false));
	petal_wire_close(wire);
}

static void answer__request_of_another_shape_is_dropped(void **state)
{
	struct probe_request good = { .magic = PROBE_MAGIC,
				      .version = PROBE_VERSION,
				      .verb = PROBE_STATE };
	struct petal_probe_options options = options_of("secret");
	struct petal_probe_asker *asker;
	struct petal_probe_row row;
	struct probe_request bad;
	struct other other;

	(void)state;
	other_start(&other, answer_as_petal, "");
	send_bad(&other, &good, sizeof(good) - 1);
	bad = good;
	bad.magic++;
	send_bad(&other, &bad, sizeof(bad));
	bad = good;
	bad.version++;
	send_bad(&other, &bad, sizeof(bad));
	bad = good;
	bad.verb = PROBE_VERBS;
	send_bad(&other, &bad, sizeof(bad));
	bad = good;
	memset(bad.provider, 'x', sizeof(bad.provider));
	send_bad(&other, &bad, sizeof(bad));

	/* And the next one is answered as if nothing had been. */
	options.peer = other.address;
	assert_ok(petal_probe_call(&options, &asker));
	assert_ok(petal_probe_ask(asker, "tcp", &row));
	assert_true(replicates(&row));
	petal_probe_hang_up(asker);
	other_end(&other);
}

static int ask_raw(struct petal_wire *wire, struct probe_request request)
{
	uint64_t until_ns = petal_clock_now_ns() + PETAL_S(20);
	struct probe_answer answer;
	struct petal_wire_event event;

	request.magic = PROBE_MAGIC;
	request.version = PROBE_VERSION;
	assert_ok(petal_wire_send(wire, PROBE_ANSWERER, &request,
				  sizeof(request)));
	while (petal_clock_now_ns() < until_ns) {
		if (petal_wire_poll(wire, &event, 1) != 1)
			continue;
		assert_int_equal(event.type, PETAL_WIRE_MESSAGE);
		assert_int_equal(event.length, sizeof(answer));
		memcpy(&answer, event.bytes, sizeof(answer));
		return (int)answer.status;
	}
	return -ETIMEDOUT;
}

static void answer__values_out_of_range_are_refused(void **state)
{
	static const struct {
		struct probe_request request;
		int status;
	} cases[] = {
		{ { .verb = PROBE_LOOK, .offset = PROBE_BYTES + 1 }, -EINVAL },
		{ { .verb = PROBE_LOOK, .offset = 1, .length = PROBE_BYTES },
		  -EINVAL },
		{ { .verb = PROBE_LOOK, .offset = 1, .length = UINT64_MAX },
		  -EINVAL },
		{ { .verb = PROBE_HOLD, .length = UINT64_MAX }, -EINVAL },
		{ { .verb = PROBE_HOLD, .length = PROBE_HOLD_MS + 1 },
		  -EINVAL },
		{ { .verb = PROBE_LEND }, -EPROTO },
		{ { .verb = PROBE_DROP }, -EPROTO },
		{ { .verb = PROBE_TAKE }, 0 },
		{ { .verb = PROBE_OPEN, .provider = "" }, -ENODATA },
		{ { .verb = PROBE_OPEN, .provider = "pigeon" }, -ENODATA },
		{ { .verb = PROBE_OPEN, .provider = "^net" }, -ENODATA },
		{ { .verb = PROBE_OPEN, .provider = "net,tcp" }, -ENODATA },
	};
	struct petal_probe_options options = options_of("secret");
	struct petal_wire *wire;
	struct other other;

	(void)state;
	other_start(&other, answer_as_petal, "");
	assert_ok(probe_wire_open(&options, PROBE_ASKER, "tcp", "127.0.0.1:0",
				  &wire));
	assert_ok(petal_wire_connect(wire, PROBE_ANSWERER, other.address));
	assert_true(wait_up(wire, true));
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_outcome(ask_raw(wire, cases[i].request),
			       cases[i].status);
	petal_wire_close(wire);
	other_end(&other);
}

/*
 * Records and judgement.
 */

static void record__valid_only_when_whole(void **state)
{
	static uint8_t ring[PROBE_BYTES], copy[PROBE_RECORD_MAX];
	const uint64_t pos = PROBE_BYTES - 1000; /* around the end */
	uint8_t record[4096];

	(void)state;
	probe_record_make(7, 3, sizeof(record), record);
	assert_int_not_equal(record[sizeof(record) - 1], 0);
	for (uint32_t have = 0; have < sizeof(record); have++) {
		assert_int_equal(probe_record_check(ring, pos, 7, 3, copy), 0);
		ring[(pos + have) % PROBE_BYTES] = record[have];
	}
	assert_int_equal(probe_record_check(ring, pos, 7, 3, copy), 4096);
	assert_int_equal(probe_record_check(ring, pos, 7, 4, copy), 0);
	assert_int_equal(probe_record_check(ring, pos, 8, 3, copy), 0);
}

static void record__any_flipped_bit_is_seen(void **state)
{
	static uint8_t ring[PROBE_BYTES], copy[PROBE_RECORD_MAX];

	(void)state;
	probe_record_make(7, 3, 200, ring);
	assert_int_equal(probe_record_check(ring, 0, 7, 3, copy), 200);
	for (unsigned bit = 0; bit < 8 * 200; bit++) {
		/* Reserved ones are under no checksum and mean nothing. */
		if (bit / 8 >= 32 && bit / 8 < 64)
			continue;
		ring[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(probe_record_check(ring, 0, 7, 3, copy), 0);
		ring[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

/* Right checksums over what was not sent: bytes of another seed. */
static void record__of_other_bytes_is_ebadmsg(void **state)
{
	static uint8_t ring[PROBE_BYTES], copy[PROBE_RECORD_MAX];
	struct probe_record head;

	(void)state;
	probe_record_make(7, 3, 200, ring);
	memcpy(&head, ring, sizeof(head));
	ring[100] ^= 1;
	head.payload_crc = petal_crc32c(0, ring + sizeof(head),
					200 - (uint32_t)sizeof(head));
	head.header_crc = petal_crc32c(
		0, &head, offsetof(struct probe_record, header_crc));
	memcpy(ring, &head, sizeof(head));
	assert_int_equal(probe_record_check(ring, 0, 7, 3, copy), -EBADMSG);
}

static struct petal_probe_row good_row(void)
{
	return (struct petal_probe_row){
		.provider = "x",
		.writes = 1,
		.fences = 1,
		.records = 1,
		.naps = 1,
		.again_ns = 1,
	};
}

static void judge__each_failure_has_its_consequence(void **state)
{
	struct petal_probe_row row = good_row();

	(void)state;
	assert_true(replicates(&row));
	assert_true(petal_probe_completes(&row));
	row.early = 1;
	assert_true(replicates(&row));
	assert_false(petal_probe_completes(&row));
	row = good_row();
	row.lost = 1;
	assert_false(replicates(&row));
	row = good_row();
	row.fence_landed = 1;
	assert_true(replicates(&row));
	assert_false(petal_probe_completes(&row));
	row = good_row();
	row.torn = 1;
	assert_false(replicates(&row));
	row = good_row();
	row.stuck = 1;
	assert_false(replicates(&row));
	row = good_row();
	row.again_ns = PETAL_PROBE_AGAIN_NS + 1;
	assert_false(replicates(&row));
	row = good_row();
	row.missed = 1;
	assert_false(replicates(&row));
	row = good_row();
	row.idle_turns = 1000; /* costs a CPU, and no record */
	assert_true(replicates(&row));
	assert_false(petal_probe_passed(&row, PETAL_PROBE_ASLEEP));
}

static void judge__what_was_not_tried_is_not_passed(void **state)
{
	struct petal_probe_row row = { .status = -ETIMEDOUT };
	char words[PETAL_PROBE_WORDS_BYTES];

	(void)state;
	assert_false(replicates(&row));
	row = good_row();
	row.status = -ECONNRESET;
	row.reached = PETAL_PROBE_WHOLE;
	assert_true(petal_probe_passed(&row, PETAL_PROBE_FENCED));
	assert_true(petal_probe_passed(&row, PETAL_PROBE_AGAIN));
	assert_false(petal_probe_passed(&row, PETAL_PROBE_WHOLE));
	assert_false(petal_probe_passed(&row, PETAL_PROBE_ASLEEP));
	petal_probe_words(&row, PETAL_PROBE_WHOLE, words);
	assert_non_null(strstr(words, "came to no end"));
	petal_probe_words(&row, PETAL_PROBE_ASLEEP, words);
	assert_string_equal(words, "not tried");
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(ask__tcp_keeps_all_of_it),
		cmocka_unit_test(ask__unknown_provider_is_enodata),
		cmocka_unit_test(
			ask__provider_without_connections_is_eopnotsupp),
		cmocka_unit_test(ask__liar_without_a_lie_keeps_what_tcp_keeps),
		cmocka_unit_test(ask__early_report_is_found_and_not_counted),
		cmocka_unit_test(ask__memory_that_stays_open_is_found),
		cmocka_unit_test(
			ask__write_that_never_lands_refuses_the_levels),
		cmocka_unit_test(ask__half_a_write_refuses_the_levels),
		cmocka_unit_test(call__nobody_is_econnrefused_in_time),
		cmocka_unit_test(call__other_key_is_econnrefused),
		cmocka_unit_test(call__no_address_is_einval),
		cmocka_unit_test(ask__answer_of_another_shape_is_eproto),
		cmocka_unit_test(ask__peer_that_dies_is_an_end),
		cmocka_unit_test(answer__request_of_another_shape_is_dropped),
		cmocka_unit_test(answer__values_out_of_range_are_refused),
		cmocka_unit_test(record__valid_only_when_whole),
		cmocka_unit_test(record__any_flipped_bit_is_seen),
		cmocka_unit_test(record__of_other_bytes_is_ebadmsg),
		cmocka_unit_test(judge__each_failure_has_its_consequence),
		cmocka_unit_test(judge__what_was_not_tried_is_not_passed),
	};

	if (argc != 2) {
		fprintf(stderr, "probe_test: expected the liar's directory\n");
		return 2;
	}
	setenv("FI_PROVIDER_PATH", argv[1], 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
