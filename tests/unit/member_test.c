/*
 * Membership: the step function alone, by transcript, and three to five of
 * them in virtual time over a network that cuts, loses and kills.
 *
 * A transcript has the time in milliseconds, the node that acts, and what it
 * does. Heartbeats are left out, except where they are the subject.
 *
 * Harder: PETAL_TEST_SEEDS=20000 for more random runs (default 300); a run that
 * fails prints its seed, and PETAL_TEST_SEED=n repeats that one alone.
 */
#include "tests/check.h"

#include <inttypes.h>

#include "shm/clock.h"
#include "topology/member.h"

enum { TRACE_BYTES = 1 << 20 };

/* ---- what happened, as text ---- */

struct trace {
	char *text;
	size_t length;
	bool with_pings;
};

static void trace_init(struct trace *trace)
{
	*trace = (struct trace){ .text = calloc(1, TRACE_BYTES) };
	assert_non_null(trace->text);
}

static void trace_fini(struct trace *trace)
{
	free(trace->text);
}

__attribute__((format(printf, 3, 4))) static void
trace_line(struct trace *trace, uint64_t now_ns, const char *format, ...)
{
	size_t room = TRACE_BYTES - trace->length;
	char *at = trace->text + trace->length;
	va_list arguments;
	int n;

	n = snprintf(at, room, "[%5" PRIu64 "] ", now_ns / PETAL_MS(1));
	va_start(arguments, format);
	n += vsnprintf(at + n, room - (size_t)n, format, arguments);
	va_end(arguments);
	assert_in_range(n, 1, room - 1);
	trace->length += (size_t)n;
}

static void trace_action(struct trace *trace, uint64_t now_ns, uint32_t self,
			 const struct petal_member_action *action)
{
	static const char *const verbs[] = {
		[PETAL_MEMBER_CONNECT] = "connect",
		[PETAL_MEMBER_DROP] = "drop",
		[PETAL_MEMBER_UP] = "up",
		[PETAL_MEMBER_DOWN] = "down",
		[PETAL_MEMBER_PING] = "ping",
	};
	const char *verb = verbs[action->type];

	if (action->type == PETAL_MEMBER_PING && !trace->with_pings)
		return;
	if (action->status)
		trace_line(trace, now_ns, "%u %s %u, %s\n", self, verb,
			   action->node, petal_error_name(action->status));
	else
		trace_line(trace, now_ns, "%u %s %u\n", self, verb,
			   action->node);
}

static void trace_clear(struct trace *trace)
{
	trace->text[0] = 0;
	trace->length = 0;
}

/* Compares what happened since the last comparison. */
static void trace_equals(struct trace *trace, const char *expected)
{
	assert_string_equal(trace->text, expected);
	trace_clear(trace);
}

/* ---- the list of members ---- */

static void fill_nodes(struct petal_member_node *nodes, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		nodes[i] = (struct petal_member_node){ .node = i + 1 };
		snprintf(nodes[i].name, sizeof(nodes[i].name), "n%u", i + 1);
		snprintf(nodes[i].address, sizeof(nodes[i].address),
			 "10.0.0.%u:7101", i + 1);
		snprintf(nodes[i].domain, sizeof(nodes[i].domain), "rack %u",
			 i + 1);
	}
}

static void check__a_good_list_passes(void **state)
{
	struct petal_member_node nodes[PETAL_MEMBER_MAX];

	(void)state;
	fill_nodes(nodes, PETAL_MEMBER_MAX);
	for (uint32_t count = 1; count <= PETAL_MEMBER_MAX; count++)
		assert_ok(petal_member_check(nodes, count, 1));
}

static void check__each_fault_has_its_own_name(void **state)
{
	struct petal_member_node nodes[PETAL_MEMBER_MAX + 1];

	(void)state;
	fill_nodes(nodes, 3);
	assert_outcome(petal_member_check(nodes, 0, 1), -ENOENT);
	assert_outcome(petal_member_check(nodes, 3, 4), -ENOENT);
	assert_outcome(petal_member_check(nodes, 65, 1), -E2BIG);

	nodes[2].node = 0;
	assert_outcome(petal_member_check(nodes, 3, 1), -ERANGE);
	nodes[2].node = 256;
	assert_outcome(petal_member_check(nodes, 3, 1), -ERANGE);
	nodes[2].node = 1;
	assert_outcome(petal_member_check(nodes, 3, 1), -EEXIST);

	fill_nodes(nodes, 3);
	strcpy(nodes[2].name, "n1");
	assert_outcome(petal_member_check(nodes, 3, 1), -EEXIST);
	strcpy(nodes[2].name, "");
	assert_outcome(petal_member_check(nodes, 3, 1), -ENODATA);

	fill_nodes(nodes, 3);
	strcpy(nodes[2].address, nodes[0].address);
	assert_outcome(petal_member_check(nodes, 3, 1), -EADDRINUSE);

	fill_nodes(nodes, 3);
	strcpy(nodes[1].domain, "");
	assert_outcome(petal_member_check(nodes, 3, 1), -ENODATA);
	memset(nodes[1].domain, 'x', sizeof(nodes[1].domain));
	assert_outcome(petal_member_check(nodes, 3, 1), -ENAMETOOLONG);
}

static void init__options_out_of_range_are_refused(void **state)
{
	static const struct petal_member_options bad[] = {
		{ .self = 1, .suspect_beats = 1 },
		{ .self = 1, .suspect_beats = 1001 },
		{ .self = 1, .heartbeat_ns = 1 },
		{ .self = 1, .heartbeat_ns = PETAL_S(61) },
		{ .self = 1, .dial_ns = PETAL_S(2) },
		{ .self = 1, .dial_timeout_ns = PETAL_US(1) },
	};
	struct petal_member_node nodes[3];
	struct petal_member member;

	(void)state;
	fill_nodes(nodes, 3);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_outcome(petal_member_init(&member, &bad[i], nodes, 3),
			       -EINVAL);
}

static void init__the_order_of_the_lines_does_not_matter(void **state)
{
	const struct petal_member_options options = { .self = 2 };
	struct petal_member_node nodes[4], turned[4];
	struct petal_member a, b;

	(void)state;
	fill_nodes(nodes, 4);
	for (uint32_t i = 0; i < 4; i++)
		turned[i] = nodes[3 - i];
	assert_ok(petal_member_init(&a, &options, nodes, 4));
	assert_ok(petal_member_init(&b, &options, turned, 4));
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(petal_member_at(&a, i)->node, i + 1);
		assert_string_equal(petal_member_at(&b, i)->name,
				    nodes[i].name);
	}
	assert_null(petal_member_at(&a, 4));
	assert_string_equal(petal_member_find(&a, 3)->domain, "rack 3");
	assert_null(petal_member_find(&a, 9));
}

/* ---- one node, told what happens to it ---- */

struct script {
	struct petal_member member;
	struct trace trace;
	uint64_t now_ns;
};

static void step(struct script *s, enum petal_member_event_type type,
		 uint32_t node, int status)
{
	const struct petal_member_event event = {
		.type = type,
		.node = node,
		.status = status,
	};
	struct petal_member_actions actions;

	petal_member_step(&s->member, s->now_ns, &event, &actions);
	for (uint32_t i = 0; i < actions.count; i++)
		trace_action(&s->trace, s->now_ns, s->member.options.self,
			     &actions.at[i]);
}

/* Lets time pass, with every TICK at the moment when it is due. */
static void at(struct script *s, uint64_t now_ms)
{
	uint64_t end_ns = PETAL_MS(now_ms);

	while (petal_member_next_ns(&s->member) <= end_ns) {
		s->now_ns = petal_member_next_ns(&s->member);
		step(s, PETAL_MEMBER_TICK, 0, 0);
		assert_true(petal_member_next_ns(&s->member) > s->now_ns);
	}
	s->now_ns = end_ns;
}

static void start(struct script *s)
{
	step(s, PETAL_MEMBER_START, 0, 0);
}

static void connected(struct script *s, uint32_t node)
{
	step(s, PETAL_MEMBER_CONNECTED, node, 0);
}

static void disconnected(struct script *s, uint32_t node, int status)
{
	step(s, PETAL_MEMBER_DISCONNECTED, node, status);
}

static void heard(struct script *s, uint32_t node)
{
	step(s, PETAL_MEMBER_HEARD, node, 0);
}

static void expect(struct script *s, const char *trace)
{
	trace_equals(&s->trace, trace);
}

static void script_open(struct script *s, uint32_t self)
{
	const struct petal_member_options options = { .self = self };
	struct petal_member_node nodes[3];

	*s = (struct script){ .now_ns = 0 };
	fill_nodes(nodes, 3);
	assert_ok(petal_member_init(&s->member, &options, nodes, 3));
	trace_init(&s->trace);
}

static int setup_node_1(void **state)
{
	static struct script s;

	script_open(&s, 1);
	*state = &s;
	return 0;
}

static int setup_node_2(void **state)
{
	static struct script s;

	script_open(&s, 2);
	*state = &s;
	return 0;
}

static int setup_node_3(void **state)
{
	static struct script s;

	script_open(&s, 3);
	*state = &s;
	return 0;
}

static int teardown(void **state)
{
	struct script *s = *state;

	trace_fini(&s->trace);
	return 0;
}

static void start__the_highest_id_dials_all_the_others(void **state)
{
	struct script *s = *state;

	start(s);
	expect(s, "[    0] 3 connect 1\n"
		  "[    0] 3 connect 2\n");
}

static void start__the_lowest_id_dials_nobody_and_sleeps(void **state)
{
	struct script *s = *state;

	start(s);
	expect(s, "");
	assert_true(petal_member_next_ns(&s->member) == PETAL_CLOCK_NEVER);
}

static void connected__a_node_is_up_once(void **state)
{
	struct script *s = *state;

	start(s);
	assert_false(petal_member_up(&s->member, 2));
	assert_true(petal_member_up(&s->member, 1));
	at(s, 7);
	connected(s, 2);
	expect(s, "[    7] 1 up 2\n");
	assert_true(petal_member_up(&s->member, 2));
	assert_false(petal_member_up(&s->member, 3));
}

static void tick__each_heartbeat_pings_all_who_are_up(void **state)
{
	struct script *s = *state;

	s->trace.with_pings = true;
	start(s);
	at(s, 100);
	connected(s, 2);
	at(s, 110);
	connected(s, 3);
	at(s, 145);
	expect(s, "[  100] 1 up 2\n"
		  "[  110] 1 up 3\n"
		  "[  120] 1 ping 2\n"
		  "[  120] 1 ping 3\n"
		  "[  140] 1 ping 2\n"
		  "[  140] 1 ping 3\n");
	assert_true(petal_member_next_ns(&s->member) == PETAL_MS(160));
}

static void silence__of_five_heartbeats_cuts_the_connection(void **state)
{
	struct script *s = *state;

	start(s);
	connected(s, 2);
	connected(s, 3);
	for (uint64_t ms = 20; ms <= 200; ms += 20) {
		at(s, ms);
		heard(s, 3);
		if (ms <= 60)
			heard(s, 2);
	}
	expect(s, "[    0] 1 up 2\n"
		  "[    0] 1 up 3\n"
		  "[  160] 1 drop 2\n"
		  "[  160] 1 down 2, ETIMEDOUT\n");
	assert_int_equal(petal_member_counters(&s->member)->silences, 1);
}

static void disconnected__is_down_at_once_and_the_dialler_redials(void **state)
{
	struct script *s = *state;

	start(s);
	at(s, 1);
	connected(s, 1);
	at(s, 10);
	heard(s, 1);
	at(s, 15);
	disconnected(s, 1, -ECONNRESET);
	at(s, 60);
	expect(s, "[    0] 3 connect 1\n"
		  "[    0] 3 connect 2\n"
		  "[    1] 3 up 1\n"
		  "[   15] 3 down 1, ECONNRESET\n"
		  "[   31] 3 connect 1\n");
}

static void disconnected__the_dialled_side_waits(void **state)
{
	struct script *s = *state;

	start(s);
	connected(s, 3);
	at(s, 5);
	disconnected(s, 3, 0);
	expect(s, "[    0] 1 up 3\n"
		  "[    5] 1 down 3\n");
	assert_true(petal_member_next_ns(&s->member) == PETAL_CLOCK_NEVER);
}

static void disconnected__the_echo_of_a_drop_says_nothing_new(void **state)
{
	struct script *s = *state;

	start(s);
	connected(s, 2);
	at(s, 100);
	disconnected(s, 2, -ECONNABORTED);
	disconnected(s, 2, -ECONNABORTED);
	expect(s, "[    0] 1 up 2\n"
		  "[  100] 1 drop 2\n"
		  "[  100] 1 down 2, ETIMEDOUT\n");
}

static void connected__again_while_up_is_down_and_up(void **state)
{
	struct script *s = *state;

	start(s);
	connected(s, 2);
	at(s, 5);
	connected(s, 2);
	expect(s, "[    0] 1 up 2\n"
		  "[    5] 1 down 2, ECONNRESET\n"
		  "[    5] 1 up 2\n");
}

static void connected__a_stranger_is_dropped(void **state)
{
	struct script *s = *state;

	start(s);
	connected(s, 77);
	heard(s, 77);
	disconnected(s, 77, 0);
	connected(s, 1);
	expect(s, "[    0] 1 drop 77\n"
		  "[    0] 1 drop 1\n");
	assert_int_equal(petal_member_counters(&s->member)->strangers, 4);
}

/* Node 2 dials node 1 only, and is refused each time at once. */
static void refused__the_wait_doubles_up_to_a_second(void **state)
{
	struct script *s = *state;
	uint64_t most_ns = PETAL_MS(20);

	start(s);
	for (int i = 0; i < 40; i++) {
		uint64_t wait_ns;

		assert_non_null(strstr(s->trace.text, "2 connect 1\n"));
		trace_clear(&s->trace);
		disconnected(s, 1, -ECONNREFUSED);
		wait_ns = petal_member_next_ns(&s->member) - s->now_ns;
		assert_in_range(wait_ns, most_ns - most_ns / 4, most_ns);
		s->now_ns += wait_ns;
		step(s, PETAL_MEMBER_TICK, 0, 0);
		most_ns = most_ns * 2 < PETAL_S(1) ? most_ns * 2 : PETAL_S(1);
	}
	assert_int_equal(petal_member_counters(&s->member)->dials_refused, 40);
}

static void refused__by_one_peer_reads_like_this(void **state)
{
	struct script *s = *state;
	const uint64_t answers_ms[] = { 1, 20, 60, 150 };

	start(s);
	connected(s, 2);
	for (size_t i = 0; i < 4; i++) {
		at(s, answers_ms[i]);
		heard(s, 2);
		disconnected(s, 1, -ECONNREFUSED);
	}
	at(s, 249);
	expect(s, "[    0] 3 connect 1\n"
		  "[    0] 3 connect 2\n"
		  "[    0] 3 up 2\n"
		  "[   19] 3 connect 1\n"
		  "[   51] 3 connect 1\n"
		  "[  130] 3 connect 1\n");
}

static void dial__without_an_answer_is_cut_and_tried_again(void **state)
{
	struct script *s = *state;

	start(s);
	disconnected(s, 2, -ECONNREFUSED);
	at(s, 10);
	connected(s, 2);
	disconnected(s, 2, 0);
	expect(s, "[    0] 3 connect 1\n"
		  "[    0] 3 connect 2\n"
		  "[   10] 3 up 2\n"
		  "[   10] 3 down 2\n");
	at(s, 30);
	at(s, 1040);
	expect(s, "[   27] 3 connect 2\n"
		  "[ 1000] 3 drop 1\n"
		  "[ 1018] 3 connect 1\n"
		  "[ 1027] 3 drop 2\n");
}

static void heard__but_not_connected_resets_the_back_off(void **state)
{
	struct script *s = *state;
	uint64_t wait_ns;

	start(s);
	for (uint64_t i = 1; i <= 12; i++) {
		at(s, i * 2000);
		connected(s, 1);
		disconnected(s, 1, 0);
	}
	wait_ns = s->member.peers[0].due_ns - s->now_ns;
	assert_in_range(wait_ns, PETAL_MS(750), PETAL_S(1));

	at(s, 30000);
	connected(s, 1);
	heard(s, 1);
	disconnected(s, 1, 0);
	wait_ns = s->member.peers[0].due_ns - s->now_ns;
	assert_in_range(wait_ns, PETAL_MS(15), PETAL_MS(20));
}

static void heard__while_not_connected_changes_nothing(void **state)
{
	struct script *s = *state;
	uint64_t next_ns;

	start(s);
	connected(s, 1);
	disconnected(s, 1, 0);
	next_ns = petal_member_next_ns(&s->member);
	heard(s, 1);
	assert_true(petal_member_next_ns(&s->member) == next_ns);
	assert_false(petal_member_up(&s->member, 1));
}

static void stall__our_own_is_not_the_peers_silence(void **state)
{
	struct script *s = *state;

	start(s);
	connected(s, 2);
	connected(s, 3);
	at(s, 40);
	heard(s, 2);
	heard(s, 3);
	/* Stopped here, and continued two seconds later. */
	s->now_ns = PETAL_MS(2040);
	step(s, PETAL_MEMBER_TICK, 0, 0);
	heard(s, 2);
	at(s, 2120);
	heard(s, 2);
	at(s, 2200);
	expect(s, "[    0] 1 up 2\n"
		  "[    0] 1 up 3\n"
		  "[ 2120] 1 drop 3\n"
		  "[ 2120] 1 down 3, ETIMEDOUT\n");
	assert_int_equal(petal_member_counters(&s->member)->stalls, 1);
}

static void stall__who_was_heard_after_it_gets_no_more_than_others(void **state)
{
	struct script *s = *state;

	start(s);
	connected(s, 2);
	/* Continued, the wire is read before the timer is looked at. */
	s->now_ns = PETAL_MS(2000);
	heard(s, 2);
	step(s, PETAL_MEMBER_TICK, 0, 0);
	at(s, 2200);
	expect(s, "[    0] 1 up 2\n"
		  "[ 2100] 1 drop 2\n"
		  "[ 2100] 1 down 2, ETIMEDOUT\n");
}

/* Each TICK two heartbeats late, for ever: slower, but not blind. */
static void stall__a_node_that_is_always_late_still_detects(void **state)
{
	struct script *s = *state;
	uint64_t ticks = 0;

	start(s);
	connected(s, 2);
	while (petal_member_up(&s->member, 2) && ticks < 100) {
		s->now_ns = petal_member_next_ns(&s->member) + PETAL_MS(41);
		step(s, PETAL_MEMBER_TICK, 0, 0);
		ticks++;
	}
	assert_in_range(ticks, 5, 7);
}

/* ---- several nodes and a network, in virtual time ---- */

enum {
	NODES_MAX = 5,
	EVENTS_MAX = 1024,
	LATENCY_MS = 2,
};

enum packet_type { SYN, SYN_ACK, PING, END };

/* @connection tells one connection of a pair from those before it. */
struct packet {
	uint64_t at_ns;
	uint64_t order;
	enum packet_type type;
	uint32_t from, to;
	uint64_t connection;
	int status;
};

struct world_node {
	struct petal_member member;
	/* By peer: the connection that stands, or that is being dialled. */
	uint64_t stands[NODES_MAX + 1];
	uint64_t dialled[NODES_MAX + 1];
	bool told_up[NODES_MAX + 1];
	bool alive;
};

struct world {
	struct world_node nodes[NODES_MAX + 1];
	struct petal_member_node list[NODES_MAX];
	uint32_t node_count;
	bool cut[NODES_MAX + 1][NODES_MAX + 1];
	uint32_t loss_percent;
	struct packet packets[EVENTS_MAX];
	uint32_t packet_count;
	uint64_t packet_order;
	uint64_t connections;
	uint64_t random;
	uint64_t now_ns;
	struct trace trace;
};

static uint64_t draw(struct world *w, uint64_t below)
{
	w->random = w->random * UINT64_C(6364136223846793005) +
		    UINT64_C(1442695040888963407);
	return (w->random >> 33) % below;
}

static void packet_send(struct world *w, enum packet_type type, uint32_t from,
			uint32_t to, uint64_t connection, int status)
{
	if (w->cut[from][to])
		return;
	if (type == PING && draw(w, 100) < w->loss_percent)
		return;
	assert_true(w->packet_count < EVENTS_MAX);
	w->packets[w->packet_count++] = (struct packet){
		.at_ns = w->now_ns + PETAL_MS(LATENCY_MS),
		.order = w->packet_order++,
		.type = type,
		.from = from,
		.to = to,
		.connection = connection,
		.status = status,
	};
}

static void world_carry_out(struct world *w, uint32_t self,
			    const struct petal_member_action *action)
{
	struct world_node *node = &w->nodes[self];
	uint32_t peer = action->node;
	uint64_t stands = node->stands[peer];

	switch (action->type) {
	case PETAL_MEMBER_CONNECT:
		assert_true(self > peer);
		assert_false(node->dialled[peer]);
		node->dialled[peer] = ++w->connections;
		packet_send(w, SYN, self, peer, w->connections, 0);
		break;
	case PETAL_MEMBER_DROP:
		if (stands)
			packet_send(w, END, self, peer, stands, -ECONNRESET);
		node->stands[peer] = 0;
		node->dialled[peer] = 0;
		break;
	case PETAL_MEMBER_PING:
		assert_true(stands);
		packet_send(w, PING, self, peer, stands, 0);
		break;
	case PETAL_MEMBER_UP:
	case PETAL_MEMBER_DOWN:
		assert_int_equal(node->told_up[peer],
				 action->type == PETAL_MEMBER_DOWN);
		node->told_up[peer] = action->type == PETAL_MEMBER_UP;
		break;
	}
}

static void world_step(struct world *w, uint32_t self,
		       enum petal_member_event_type type, uint32_t peer,
		       int status)
{
	const struct petal_member_event event = {
		.type = type,
		.node = peer,
		.status = status,
	};
	struct petal_member_actions actions;

	petal_member_step(&w->nodes[self].member, w->now_ns, &event, &actions);
	for (uint32_t i = 0; i < actions.count; i++) {
		trace_action(&w->trace, w->now_ns, self, &actions.at[i]);
		world_carry_out(w, self, &actions.at[i]);
	}
}

static void packet_syn(struct world *w, const struct packet *p)
{
	struct world_node *node = &w->nodes[p->to];

	if (!node->alive) {
		packet_send(w, END, p->to, p->from, p->connection,
			    -ECONNREFUSED);
		return;
	}
	packet_send(w, SYN_ACK, p->to, p->from, p->connection, 0);
	node->stands[p->from] = p->connection;
	world_step(w, p->to, PETAL_MEMBER_CONNECTED, p->from, 0);
}

static void packet_syn_ack(struct world *w, const struct packet *p)
{
	struct world_node *node = &w->nodes[p->to];

	if (node->dialled[p->from] != p->connection) {
		packet_send(w, END, p->to, p->from, p->connection, -ECONNRESET);
		return;
	}
	node->dialled[p->from] = 0;
	node->stands[p->from] = p->connection;
	world_step(w, p->to, PETAL_MEMBER_CONNECTED, p->from, 0);
}

static void packet_ping(struct world *w, const struct packet *p)
{
	if (w->nodes[p->to].stands[p->from] == p->connection)
		world_step(w, p->to, PETAL_MEMBER_HEARD, p->from, 0);
	else
		packet_send(w, END, p->to, p->from, p->connection, -ECONNRESET);
}

static void packet_end(struct world *w, const struct packet *p)
{
	struct world_node *node = &w->nodes[p->to];

	if (node->stands[p->from] == p->connection)
		node->stands[p->from] = 0;
	else if (node->dialled[p->from] == p->connection)
		node->dialled[p->from] = 0;
	else
		return;
	world_step(w, p->to, PETAL_MEMBER_DISCONNECTED, p->from, p->status);
}

static void packet_deliver(struct world *w, const struct packet *p)
{
	/* The host of a dead process still answers a dial, with a refusal. */
	if (!w->nodes[p->to].alive && p->type != SYN)
		return;
	switch (p->type) {
	case SYN:
		packet_syn(w, p);
		break;
	case SYN_ACK:
		packet_syn_ack(w, p);
		break;
	case PING:
		packet_ping(w, p);
		break;
	case END:
		packet_end(w, p);
		break;
	}
}

static uint32_t packet_first(const struct world *w)
{
	uint32_t first = 0;

	for (uint32_t i = 1; i < w->packet_count; i++)
		if (w->packets[i].at_ns < w->packets[first].at_ns ||
		    (w->packets[i].at_ns == w->packets[first].at_ns &&
		     w->packets[i].order < w->packets[first].order))
			first = i;
	return first;
}

static uint64_t world_next_tick(const struct world *w, uint32_t *ret_node)
{
	uint64_t first_ns = PETAL_CLOCK_NEVER;

	for (uint32_t i = 1; i <= w->node_count; i++) {
		uint64_t next_ns = petal_member_next_ns(&w->nodes[i].member);

		if (!w->nodes[i].alive || next_ns >= first_ns)
			continue;
		first_ns = next_ns;
		*ret_node = i;
	}
	return first_ns;
}

/* Returns false when nothing is left to happen before end_ns. */
static bool world_once(struct world *w, uint64_t end_ns)
{
	uint32_t node = 0, first = packet_first(w);
	uint64_t tick_ns = world_next_tick(w, &node);
	struct packet packet;

	if (w->packet_count > 0 && w->packets[first].at_ns <= tick_ns &&
	    w->packets[first].at_ns <= end_ns) {
		packet = w->packets[first];
		w->packets[first] = w->packets[--w->packet_count];
		w->now_ns = packet.at_ns;
		if (!w->cut[packet.from][packet.to])
			packet_deliver(w, &packet);
		return true;
	}
	if (tick_ns > end_ns)
		return false;
	w->now_ns = tick_ns;
	world_step(w, node, PETAL_MEMBER_TICK, 0, 0);
	/* A TICK that asks for itself again at once would never end. */
	assert_true(petal_member_next_ns(&w->nodes[node].member) > tick_ns);
	return true;
}

static void world_run(struct world *w, uint64_t until_ms)
{
	while (world_once(w, PETAL_MS(until_ms)))
		;
	w->now_ns = PETAL_MS(until_ms);
}

static void world_boot(struct world *w, uint32_t self)
{
	const struct petal_member_options options = { .self = self };
	struct world_node *node = &w->nodes[self];

	if (node->alive)
		return;
	*node = (struct world_node){ .alive = true };
	assert_ok(petal_member_init(&node->member, &options, w->list,
				    w->node_count));
	world_step(w, self, PETAL_MEMBER_START, 0, 0);
}

static void world_kill(struct world *w, uint32_t self)
{
	struct world_node *node = &w->nodes[self];

	if (!node->alive)
		return;
	node->alive = false;
	for (uint32_t peer = 1; peer <= w->node_count; peer++)
		if (node->stands[peer])
			packet_send(w, END, self, peer, node->stands[peer],
				    -ECONNRESET);
}

static void world_set_cut(struct world *w, uint32_t a, uint32_t b, bool cut)
{
	w->cut[a][b] = cut;
	w->cut[b][a] = cut;
}

static void world_open(struct world *w, uint32_t node_count, uint64_t seed)
{
	*w = (struct world){ .node_count = node_count, .random = seed };
	fill_nodes(w->list, node_count);
	trace_init(&w->trace);
	for (uint32_t i = 1; i <= node_count; i++)
		world_boot(w, i);
}

static void world_close(struct world *w)
{
	trace_fini(&w->trace);
}

static bool world_is_full_mesh(const struct world *w)
{
	for (uint32_t a = 1; a <= w->node_count; a++)
		for (uint32_t b = 1; b <= w->node_count; b++)
			if (!petal_member_up(&w->nodes[a].member, b) ||
			    w->nodes[a].stands[b] != w->nodes[b].stands[a])
				return false;
	return true;
}

static struct world world;

static void mesh__three_nodes_meet(void **state)
{
	struct world *w = &world;

	(void)state;
	world_open(w, 3, 1);
	world_run(w, 1000);
	trace_equals(&w->trace, "[    0] 2 connect 1\n"
				"[    0] 3 connect 1\n"
				"[    0] 3 connect 2\n"
				"[    2] 1 up 2\n"
				"[    2] 1 up 3\n"
				"[    2] 2 up 3\n"
				"[    4] 2 up 1\n"
				"[    4] 3 up 1\n"
				"[    4] 3 up 2\n");
	assert_true(world_is_full_mesh(w));
	world_close(w);
}

static void mesh__a_killed_node_is_down_at_once_and_met_again(void **state)
{
	struct world *w = &world;

	(void)state;
	world_open(w, 3, 1);
	world_run(w, 1000);
	trace_clear(&w->trace);

	world_kill(w, 2);
	world_run(w, 1100);
	trace_equals(&w->trace, "[ 1002] 1 down 2, ECONNRESET\n"
				"[ 1002] 3 down 2, ECONNRESET\n"
				"[ 1017] 3 connect 2\n"
				"[ 1039] 3 connect 2\n"
				"[ 1082] 3 connect 2\n");
	world_boot(w, 2);
	world_run(w, 1300);
	trace_equals(&w->trace, "[ 1100] 2 connect 1\n"
				"[ 1102] 1 up 2\n"
				"[ 1104] 2 up 1\n"
				"[ 1152] 3 connect 2\n"
				"[ 1154] 2 up 3\n"
				"[ 1156] 3 up 2\n");
	assert_true(world_is_full_mesh(w));
	world_close(w);
}

static void mesh__a_partition_is_noticed_by_silence_and_heals(void **state)
{
	struct world *w = &world;

	(void)state;
	world_open(w, 3, 1);
	world_run(w, 1000);
	trace_clear(&w->trace);

	world_set_cut(w, 1, 3, true);
	world_set_cut(w, 2, 3, true);
	world_run(w, 1500);
	trace_equals(&w->trace, "[ 1084] 3 drop 1\n"
				"[ 1084] 3 down 1, ETIMEDOUT\n"
				"[ 1084] 3 drop 2\n"
				"[ 1084] 3 down 2, ETIMEDOUT\n"
				"[ 1086] 1 drop 3\n"
				"[ 1086] 1 down 3, ETIMEDOUT\n"
				"[ 1086] 2 drop 3\n"
				"[ 1086] 2 down 3, ETIMEDOUT\n"
				"[ 1099] 3 connect 2\n"
				"[ 1100] 3 connect 1\n");
	world_set_cut(w, 1, 3, false);
	world_set_cut(w, 2, 3, false);
	world_run(w, 3000);
	trace_equals(&w->trace, "[ 2099] 3 drop 2\n"
				"[ 2100] 3 drop 1\n"
				"[ 2117] 3 connect 2\n"
				"[ 2119] 2 up 3\n"
				"[ 2119] 3 connect 1\n"
				"[ 2121] 3 up 2\n"
				"[ 2121] 1 up 3\n"
				"[ 2123] 3 up 1\n");
	assert_true(world_is_full_mesh(w));
	world_close(w);
}

/* Node 1 hears node 2, but node 2 hears nothing: it cuts, for both. */
static void mesh__a_one_way_cut_is_a_cut(void **state)
{
	struct world *w = &world;

	(void)state;
	world_open(w, 2, 1);
	world_run(w, 1000);
	trace_clear(&w->trace);

	w->cut[1][2] = true;
	world_run(w, 1090);
	trace_equals(&w->trace, "[ 1084] 2 drop 1\n"
				"[ 1084] 2 down 1, ETIMEDOUT\n"
				"[ 1086] 1 down 2, ECONNRESET\n");
	world_close(w);
}

static void mesh__five_lost_heartbeats_in_a_row_are_needed(void **state)
{
	struct world *w = &world;

	(void)state;
	world_open(w, 3, 7);
	world_run(w, 1000);
	trace_clear(&w->trace);
	w->loss_percent = 100;
	world_run(w, 1079);
	w->loss_percent = 0;
	world_run(w, 5000);
	trace_equals(&w->trace, "");
	world_close(w);
}

static void world_surprise(struct world *w)
{
	uint32_t a = 1 + (uint32_t)draw(w, w->node_count);
	uint32_t b = 1 + (uint32_t)draw(w, w->node_count);

	switch (draw(w, 6)) {
	case 0:
		world_set_cut(w, a, b, true);
		break;
	case 1:
		world_set_cut(w, a, b, false);
		break;
	case 2:
		w->cut[a][b] = !w->cut[a][b];
		break;
	case 3:
		world_kill(w, a);
		break;
	case 4:
		world_boot(w, a);
		break;
	case 5:
		w->loss_percent = (uint32_t)draw(w, 70);
		break;
	}
}

/* What UP and DOWN must do, and that a TICK makes progress, is asserted along
 * the way by the world itself. */
static void world_live(struct world *w, uint64_t seed)
{
	uint64_t now_ms = 0;

	world_open(w, 3 + (uint32_t)(seed % 3), seed);
	for (int i = 0; i < 40; i++) {
		now_ms += draw(w, 400);
		world_run(w, now_ms);
		world_surprise(w);
	}
	w->loss_percent = 0;
	memset(w->cut, 0, sizeof(w->cut));
	for (uint32_t i = 1; i <= w->node_count; i++)
		world_boot(w, i);
	/* A dial to run out, the longest back-off, and a silence. */
	world_run(w, now_ms + 1000 + 1000 + 500);
	if (!world_is_full_mesh(w))
		fail_msg("seed %" PRIu64 " does not converge:\n%s", seed,
			 w->trace.text);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void random__after_any_trouble_the_mesh_is_whole_again(void **state)
{
	uint64_t only = number("PETAL_TEST_SEED", 0);
	uint64_t seeds = number("PETAL_TEST_SEEDS", 300);

	(void)state;
	for (uint64_t seed = 1; seed <= seeds; seed++) {
		world_live(&world, only ? only : seed);
		world_close(&world);
		if (only)
			break;
	}
}

static void random__the_same_seed_gives_the_same_transcript(void **state)
{
	char *first;

	(void)state;
	for (uint64_t seed = 1; seed <= 10; seed++) {
		world_live(&world, seed);
		first = strdup(world.trace.text);
		world_close(&world);
		world_live(&world, seed);
		assert_string_equal(world.trace.text, first);
		world_close(&world);
		free(first);
	}
}

#define node_1(test) \
	cmocka_unit_test_setup_teardown(test, setup_node_1, teardown)
#define node_2(test) \
	cmocka_unit_test_setup_teardown(test, setup_node_2, teardown)
#define node_3(test) \
	cmocka_unit_test_setup_teardown(test, setup_node_3, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(check__a_good_list_passes),
		cmocka_unit_test(check__each_fault_has_its_own_name),
		cmocka_unit_test(init__options_out_of_range_are_refused),
		cmocka_unit_test(init__the_order_of_the_lines_does_not_matter),
		node_3(start__the_highest_id_dials_all_the_others),
		node_1(start__the_lowest_id_dials_nobody_and_sleeps),
		node_1(connected__a_node_is_up_once),
		node_1(tick__each_heartbeat_pings_all_who_are_up),
		node_1(silence__of_five_heartbeats_cuts_the_connection),
		node_3(disconnected__is_down_at_once_and_the_dialler_redials),
		node_1(disconnected__the_dialled_side_waits),
		node_1(disconnected__the_echo_of_a_drop_says_nothing_new),
		node_1(connected__again_while_up_is_down_and_up),
		node_1(connected__a_stranger_is_dropped),
		node_2(refused__the_wait_doubles_up_to_a_second),
		node_3(refused__by_one_peer_reads_like_this),
		node_3(dial__without_an_answer_is_cut_and_tried_again),
		node_3(heard__but_not_connected_resets_the_back_off),
		node_2(heard__while_not_connected_changes_nothing),
		node_1(stall__our_own_is_not_the_peers_silence),
		node_1(stall__who_was_heard_after_it_gets_no_more_than_others),
		node_1(stall__a_node_that_is_always_late_still_detects),
		cmocka_unit_test(mesh__three_nodes_meet),
		cmocka_unit_test(
			mesh__a_killed_node_is_down_at_once_and_met_again),
		cmocka_unit_test(
			mesh__a_partition_is_noticed_by_silence_and_heals),
		cmocka_unit_test(mesh__a_one_way_cut_is_a_cut),
		cmocka_unit_test(
			mesh__five_lost_heartbeats_in_a_row_are_needed),
		cmocka_unit_test(
			random__after_any_trouble_the_mesh_is_whole_again),
		cmocka_unit_test(
			random__the_same_seed_gives_the_same_transcript),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
