/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers fabric/registry.h over real sockets and files: three voters, each in
 * a process of its own on loopback, elect, change keys, lose their leader to
 * SIGKILL, come back from their directories, and refuse strangers; and what
 * opening refuses. The voters obey the test over a socket pair, one order at a
 * time; whatever is waited for is an event, with a minute as its bound.
 *
 * It prints what it measured: commit latency and fail-over. Those numbers are
 * of a shared machine and are not judged.
 *
 * Harder: PETAL_TEST_ROUNDS=50 registry_test kills the leader so many times;
 * under TSan with TSAN_OPTIONS=suppressions=tests/tsan.supp.
 */
#include "tests/check.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fabric/registry.h"
#include "fabric/registry_transport.h"
#include "fabric/seal.h"
#include "shm/clock.h"

#define VOTERS 3
#define PATIENCE_NS PETAL_S(60)
#define SLOW_ELECTION_MS 3000
#define FILL_WINDOW 32

static const uint8_t cluster_id[16] = "test cluster 01";
static const uint8_t cluster_key[32] = "not so secret, only for a test";

/* Orders to a voter's process, and its answer to each. */

enum order_type {
	ORDER_LEADER, /* Wait for a leader, not @version's node. */
	ORDER_CAS,
	ORDER_BEGIN_CAS, /* Answer when it was accepted, not when applied. */
	ORDER_OUTCOME,   /* Of the one begun. */
	ORDER_GET,       /* Wait until the key has at least @version. */
	ORDER_GONE,      /* Wait until the key does not exist. */
	ORDER_SEEN,      /* Wait until an event said that the key changed. */
	ORDER_FILL, /* @count changes of fill/0..99, and their latencies. */
	ORDER_STATUS,
	ORDER_MISS, /* The voter @version seems to be gone. */
	ORDER_CLOSE,
};

struct order {
	enum order_type type;
	char key[64];
	uint64_t version;
	uint32_t length;
	uint32_t count;
	uint32_t window;
	char value[64];
};

struct answer {
	int status;
	uint32_t leader;
	uint64_t version;
	uint32_t length;
	char value[64];
	uint64_t p50_ns;
	uint64_t p99_ns;
	struct petal_registry_status counted;
};

struct cluster {
	char *dir;
	struct petal_registry_voter voters[VOTERS];
	unsigned count;
	pid_t pid[VOTERS];
	int fd[VOTERS];
	unsigned rounds;
	unsigned election_ms;
};

/* The voter's process. */

struct voter {
	struct petal_registry *registry;
	char seen[512][64];
	unsigned seen_count;
	uint64_t next_cookie;
	unsigned applied_count;
	struct petal_registry_event applied[FILL_WINDOW];
};

static void voter_take_events(struct voter *voter)
{
	struct petal_registry_event events[5];
	int taken = petal_registry_poll(voter->registry, events, 5);

	for (int i = 0; i < taken; i++) {
		if (events[i].type == PETAL_REGISTRY_APPLIED)
			voter->applied[voter->applied_count++ % FILL_WINDOW] =
				events[i];
		if (events[i].type == PETAL_REGISTRY_CHANGED)
			strcpy(voter->seen[voter->seen_count++ % 512],
			       events[i].key);
	}
}

/* Sleep until there are events, and take them; false if time is up. */
static bool voter_wait(struct voter *voter, uint64_t until_ns)
{
	struct pollfd fd = { .fd = petal_registry_fd(voter->registry),
			     .events = POLLIN };
	uint64_t now_ns = petal_clock_now_ns();

	if (now_ns >= until_ns ||
	    poll(&fd, 1, (int)((until_ns - now_ns) / 1000000) + 1) <= 0)
		return false;
	voter_take_events(voter);
	return true;
}

static bool voter_saw(struct voter *voter, const char *key)
{
	unsigned count = voter->seen_count < 512 ? voter->seen_count : 512;

	for (unsigned i = 0; i < count; i++)
		if (!strcmp(voter->seen[i], key) || voter->seen[i][0] == '\0')
			return true;
	return false;
}

static bool voter_met(struct voter *voter, const struct order *order,
		      struct answer *answer)
{
	struct petal_registry *registry = voter->registry;

	switch (order->type) {
	case ORDER_LEADER:
		answer->leader = petal_registry_leader(registry);
		return answer->leader != 0 && answer->leader != order->version;
	case ORDER_GET:
		answer->status =
			petal_registry_get(registry, order->key, answer->value,
					   sizeof(answer->value),
					   &answer->length, &answer->version);
		return answer->status == 0 && answer->version >= order->version;
	case ORDER_GONE:
		answer->status = 0;
		return petal_registry_get(registry, order->key, NULL, 0, NULL,
					  NULL) == -ENOENT;
	case ORDER_SEEN:
		return voter_saw(voter, order->key);
	default:
		return voter->applied_count > 0;
	}
}

static void voter_await(struct voter *voter, const struct order *order,
			struct answer *answer)
{
	uint64_t until_ns = petal_clock_now_ns() + PATIENCE_NS;

	while (!voter_met(voter, order, answer))
		if (!voter_wait(voter, until_ns)) {
			answer->status = -ETIMEDOUT;
			return;
		}
}

static int voter_begin(struct voter *voter, const struct order *order)
{
	voter->applied_count = 0;
	return petal_registry_cas(voter->registry, order->key, order->version,
				  order->value, order->length,
				  ++voter->next_cookie);
}

static void voter_outcome(struct voter *voter, const struct order *order,
			  struct answer *answer)
{
	voter_await(voter, order, answer);
	if (answer->status < 0)
		return;
	answer->status = voter->applied[0].cookie == voter->next_cookie
				 ? voter->applied[0].status
				 : -EPROTO;
	answer->version = voter->applied[0].version;
}

static int by_time(const void *a, const void *b)
{
	const uint64_t *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

/* Change fill/0, fill/1, ... in turn, so many at once under way. */
static int voter_fill(struct voter *voter, const struct order *order,
		      struct answer *answer)
{
	uint64_t *took_ns = calloc(order->count, sizeof(*took_ns));
	uint64_t until_ns = petal_clock_now_ns() + PATIENCE_NS;
	unsigned begun = 0, over = 0;
	int err = 0;

	voter->applied_count = 0;
	while (over < order->count && err == 0) {
		uint64_t version = 0;
		char key[32];

		if (begun < order->count && begun - over < order->window) {
			snprintf(key, sizeof(key), "fill/%u", begun % 100);
			(void)petal_registry_get(voter->registry, key, NULL, 0,
						 NULL, &version);
			took_ns[begun] = petal_clock_now_ns();
			err = petal_registry_cas(voter->registry, key, version,
						 order->value, 64, begun);
			begun++;
			continue;
		}
		if (voter->applied_count == 0 && !voter_wait(voter, until_ns))
			err = -ETIMEDOUT;
		for (unsigned i = 0; i < voter->applied_count; i++, over++) {
			struct petal_registry_event *event = &voter->applied[i];

			if (event->status != 0)
				err = event->status;
			took_ns[event->cookie] =
				petal_clock_now_ns() - took_ns[event->cookie];
		}
		voter->applied_count = 0;
	}
	qsort(took_ns, order->count, sizeof(*took_ns), by_time);
	answer->p50_ns = took_ns[order->count / 2];
	answer->p99_ns = took_ns[order->count * 99 / 100];
	free(took_ns);
	return err;
}

static void voter_obey(struct voter *voter, const struct order *order,
		       struct answer *answer)
{
	switch (order->type) {
	case ORDER_CAS:
		answer->status = voter_begin(voter, order);
		if (answer->status == 0)
			voter_outcome(voter, order, answer);
		break;
	case ORDER_BEGIN_CAS:
		answer->status = voter_begin(voter, order);
		break;
	case ORDER_OUTCOME:
		voter_outcome(voter, order, answer);
		break;
	case ORDER_FILL:
		answer->status = voter_fill(voter, order, answer);
		break;
	case ORDER_STATUS:
		petal_registry_status(voter->registry, &answer->counted);
		break;
	case ORDER_MISS:
		petal_registry_miss(voter->registry, (uint32_t)order->version);
		break;
	case ORDER_CLOSE:
		petal_registry_close(voter->registry);
		voter->registry = NULL;
		break;
	default:
		voter_await(voter, order, answer);
	}
}

static void voter_main(const struct petal_registry_options *options, int fd)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	static struct voter voter;
	struct answer answer = { 0 };
	struct order order;

	/* cmocka's handlers would go on with the next test in this process. */
	for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		signal(faults[i], SIG_DFL);
	answer.status = petal_registry_open(options, &voter.registry);
	if (write(fd, &answer, sizeof(answer)) != sizeof(answer))
		exit(1);
	while (voter.registry != NULL) {
		struct pollfd fds[2] = {
			{ .fd = fd, .events = POLLIN },
			{ .fd = petal_registry_fd(voter.registry),
			  .events = POLLIN },
		};

		if (poll(fds, 2, -1) < 0)
			exit(1);
		if (fds[1].revents)
			voter_take_events(&voter);
		if (!fds[0].revents)
			continue;
		if (read(fd, &order, sizeof(order)) != sizeof(order))
			exit(1);
		memset(&answer, 0, sizeof(answer));
		voter_obey(&voter, &order, &answer);
		if (write(fd, &answer, sizeof(answer)) != sizeof(answer))
			exit(1);
	}
	close(fd);
	exit(0);
}

/* The test's process. */

static void options_fill(struct cluster *cluster, unsigned i, char *dir,
			 size_t dir_bytes,
			 struct petal_registry_options *options)
{
	snprintf(dir, dir_bytes, "%s/%u", cluster->dir, i);
	*options = (struct petal_registry_options){
		.node = cluster->voters[i].node,
		.dir = dir,
		.voters = cluster->voters,
		.voter_count = cluster->count,
		.election_ms = cluster->election_ms,
	};
	memcpy(options->cluster, cluster_id, sizeof(cluster_id));
	memcpy(options->key, cluster_key, sizeof(cluster_key));
}

static struct answer answer_read(struct cluster *cluster, unsigned i)
{
	struct answer answer;

	assert_int_equal(read(cluster->fd[i], &answer, sizeof(answer)),
			 sizeof(answer));
	return answer;
}

static void order_send(struct cluster *cluster, unsigned i, struct order order)
{
	assert_int_equal(write(cluster->fd[i], &order, sizeof(order)),
			 sizeof(order));
}

static struct answer ask(struct cluster *cluster, unsigned i,
			 struct order order)
{
	order_send(cluster, i, order);
	return answer_read(cluster, i);
}

static void start(struct cluster *cluster, unsigned i)
{
	struct petal_registry_options options;
	char dir[256];
	int fds[2];

	assert_ok(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds));
	options_fill(cluster, i, dir, sizeof(dir), &options);
	fflush(NULL);
	cluster->pid[i] = fork();
	assert_true(cluster->pid[i] >= 0);
	if (cluster->pid[i] == 0) {
		for (unsigned j = 0; j < cluster->count; j++)
			if (cluster->fd[j] >= 0)
				close(cluster->fd[j]);
		close(fds[0]);
		voter_main(&options, fds[1]);
	}
	close(fds[1]);
	cluster->fd[i] = fds[0];
	assert_ok(answer_read(cluster, i).status);
}

static int reap(struct cluster *cluster, unsigned i)
{
	int status;

	assert_int_equal(waitpid(cluster->pid[i], &status, 0), cluster->pid[i]);
	close(cluster->fd[i]);
	cluster->fd[i] = -1;
	cluster->pid[i] = 0;
	return status;
}

static void stop(struct cluster *cluster, unsigned i)
{
	int status;

	assert_ok(
		ask(cluster, i, (struct order){ .type = ORDER_CLOSE }).status);
	status = reap(cluster, i);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void kill_hard(struct cluster *cluster, unsigned i)
{
	kill(cluster->pid[i], SIGKILL);
	assert_true(WIFSIGNALED(reap(cluster, i)));
}

/* Below the ports that the kernel hands out to others' connections. */
static uint16_t port_find(void)
{
	static unsigned next;
	struct sockaddr_in address = { .sin_family = AF_INET };

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (unsigned tries = 0; tries < 1000; tries++) {
		uint16_t port =
			(uint16_t)(20000 +
				   ((unsigned)getpid() * 7 + next++) % 10000);
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int err;

		address.sin_port = htons(port);
		err = bind(fd, (struct sockaddr *)&address, sizeof(address));
		close(fd);
		if (err == 0)
			return port;
	}
	fail_msg("no port is free between 20000 and 30000");
	return 0;
}

static struct cluster *cluster_new(unsigned count)
{
	struct cluster *cluster = calloc(1, sizeof(*cluster));
	const char *rounds = getenv("PETAL_TEST_ROUNDS");

	assert_non_null(cluster);
	cluster->dir = petal_test_tmpdir();
	cluster->count = count;
	cluster->rounds = rounds ? (unsigned)atoi(rounds) : 2;
	for (unsigned i = 0; i < count; i++) {
		/* Not in the order of their ids, which must not matter. */
		cluster->voters[i].node = 10 - i;
		snprintf(cluster->voters[i].address,
			 sizeof(cluster->voters[i].address), "127.0.0.1:%u",
			 port_find());
		cluster->fd[i] = -1;
	}
	return cluster;
}

static int setup_three(void **state)
{
	struct cluster *cluster = cluster_new(VOTERS);

	for (unsigned i = 0; i < cluster->count; i++)
		start(cluster, i);
	*state = cluster;
	return 0;
}

static int setup_slow(void **state)
{
	struct cluster *cluster = cluster_new(VOTERS);

	cluster->election_ms = SLOW_ELECTION_MS;
	for (unsigned i = 0; i < VOTERS; i++)
		start(cluster, i);
	*state = cluster;
	return 0;
}

static int setup_none(void **state)
{
	*state = cluster_new(VOTERS);
	return 0;
}

static int setup_one(void **state)
{
	*state = cluster_new(1);
	start(*state, 0);
	return 0;
}

static int teardown(void **state)
{
	struct cluster *cluster = *state;

	for (unsigned i = 0; i < cluster->count; i++)
		if (cluster->pid[i] > 0)
			stop(cluster, i);
	petal_test_tmpdir_remove(cluster->dir);
	free(cluster);
	return 0;
}

static unsigned index_of(struct cluster *cluster, uint32_t node)
{
	for (unsigned i = 0; i < cluster->count; i++)
		if (cluster->voters[i].node == node)
			return i;
	fail_msg("node %u is nobody", (unsigned)node);
	return 0;
}

/* Who leads, as the leader itself says; @not_node has just been killed. */
static unsigned leader_await(struct cluster *cluster, uint32_t not_node)
{
	uint64_t until_ns = petal_clock_now_ns() + PATIENCE_NS;
	unsigned from = 0;

	while (petal_clock_now_ns() < until_ns) {
		struct order order = { .type = ORDER_LEADER,
				       .version = not_node };
		struct answer answer;
		unsigned leader;

		while (cluster->pid[from] <= 0)
			from = (from + 1) % cluster->count;
		answer = ask(cluster, from, order);
		assert_ok(answer.status);
		leader = index_of(cluster, answer.leader);
		if (leader == from)
			return leader;
		/* Believe it only when it says so itself. */
		from = leader;
	}
	fail_msg("no leader");
	return 0;
}

static struct answer cas(struct cluster *cluster, unsigned i, const char *key,
			 uint64_t version, const char *value)
{
	struct order order = { .type = ORDER_CAS, .version = version };

	strcpy(order.key, key);
	strcpy(order.value, value);
	order.length = (uint32_t)strlen(value);
	return ask(cluster, i, order);
}

/* Through elections: what is refused or unknown is looked at and done again. */
static uint64_t cas_surely(struct cluster *cluster, const char *key,
			   const char *value)
{
	uint64_t until_ns = petal_clock_now_ns() + PATIENCE_NS;

	while (petal_clock_now_ns() < until_ns) {
		unsigned leader = leader_await(cluster, 0);
		struct answer answer = cas(cluster, leader, key, 0, value);

		if (answer.status == 0 ||
		    (answer.status == -PETAL_ECONFLICT && answer.version > 0))
			return answer.version;
		assert_true(answer.status == -PETAL_ENOTLEADER ||
			    answer.status == -PETAL_EUNKNOWN);
	}
	fail_msg("%s cannot be written", key);
	return 0;
}

static void assert_key(struct cluster *cluster, unsigned i, const char *key,
		       uint64_t version, const char *value)
{
	struct order order = { .type = ORDER_GET, .version = version };
	struct answer answer;

	strcpy(order.key, key);
	answer = ask(cluster, i, order);
	assert_ok(answer.status);
	assert_int_equal(answer.version, version);
	assert_int_equal(answer.length, strlen(value));
	assert_memory_equal(answer.value, value, answer.length);
}

static struct petal_registry_status counted(struct cluster *cluster, unsigned i)
{
	return ask(cluster, i, (struct order){ .type = ORDER_STATUS }).counted;
}

static void three__elect_change_and_all_see_it(void **state)
{
	struct cluster *c = *state;
	unsigned leader = leader_await(c, 0);
	unsigned follower = (leader + 1) % VOTERS;
	struct order seen = { .type = ORDER_SEEN, .key = "ring/1" };
	struct order gone = { .type = ORDER_GONE, .key = "ring/1" };
	struct answer answer = cas(c, leader, "ring/1", 0, "epoch 1");
	uint64_t version = answer.version;

	assert_ok(answer.status);
	assert_true(version > 0);
	for (unsigned i = 0; i < VOTERS; i++) {
		assert_ok(ask(c, i, seen).status);
		assert_key(c, i, "ring/1", version, "epoch 1");
	}

	answer = cas(c, leader, "ring/1", 0, "epoch 2");
	assert_outcome(answer.status, -PETAL_ECONFLICT);
	assert_int_equal(answer.version, version);
	assert_outcome(cas(c, follower, "ring/1", version, "epoch 2").status,
		       -PETAL_ENOTLEADER);
	answer = cas(c, leader, "ring/1", version, "epoch 2");
	assert_ok(answer.status);
	assert_key(c, follower, "ring/1", answer.version, "epoch 2");

	assert_ok(cas(c, leader, "ring/1", answer.version, "").status);
	for (unsigned i = 0; i < VOTERS; i++)
		assert_ok(ask(c, i, gone).status);
	assert_outcome(cas(c, leader, "a b", 0, "x").status, -EINVAL);
	assert_outcome(cas(c, leader, "none", 0, "").status, -EINVAL);
}

static void three__commit_latency_is_measured(void **state)
{
	struct cluster *c = *state;
	struct order fill = { .type = ORDER_FILL, .count = 500, .window = 1 };
	struct answer answer = ask(c, leader_await(c, 0), fill);

	assert_ok(answer.status);
	print_message("commit, one at a time: p50 %llu us, p99 %llu us\n",
		      (unsigned long long)answer.p50_ns / 1000,
		      (unsigned long long)answer.p99_ns / 1000);
}

static void
killed_leader__is_replaced_and_catches_up_when_it_returns(void **state)
{
	struct cluster *c = *state;
	char key[32];

	cas_surely(c, "before", "1");
	for (unsigned round = 0; round < c->rounds; round++) {
		unsigned old = leader_await(c, 0), new;
		uint64_t killed_ns, version;

		killed_ns = petal_clock_now_ns();
		kill_hard(c, old);
		new = leader_await(c, c->voters[old].node);
		assert_int_not_equal(new, old);
		print_message(
			"fail-over: %llu ms\n",
			(unsigned long long)(petal_clock_now_ns() - killed_ns) /
				1000000);
		snprintf(key, sizeof(key), "while/%u", round);
		version = cas_surely(c, key, "dead");

		start(c, old);
		assert_key(c, old, key, version, "dead");
		for (unsigned i = 0; i < VOTERS; i++)
			assert_key(c, i, "before", 1, "1");
	}
}

static void miss(struct cluster *cluster, unsigned i, unsigned whom)
{
	struct order order = { .type = ORDER_MISS,
			       .version = cluster->voters[whom].node };

	ask(cluster, i, order);
}

/* Long before the others could have noticed by themselves. */
static void missed_leader__is_replaced_at_once(void **state)
{
	struct cluster *c = *state;
	unsigned old = leader_await(c, 0), new;
	uint64_t killed_ns, took_ns;

	cas_surely(c, "before", "1");
	killed_ns = petal_clock_now_ns();
	kill_hard(c, old);
	for (unsigned i = 0; i < VOTERS; i++)
		if (i != old)
			miss(c, i, old);
	new = leader_await(c, c->voters[old].node);
	took_ns = petal_clock_now_ns() - killed_ns;
	print_message("fail-over: %llu ms\n",
		      (unsigned long long)took_ns / 1000000);
	assert_true(took_ns < PETAL_MS(SLOW_ELECTION_MS) / 2);
	assert_key(c, new, "before", 1, "1");
	start(c, old);

	/* It lives: that costs an election, or nothing. */
	miss(c, old, new);
	cas_surely(c, "after", "2");
}

static void killed_under_load__no_answered_change_is_lost(void **state)
{
	struct cluster *c = *state;
	unsigned leader = leader_await(c, 0);
	struct order begin = { .type = ORDER_BEGIN_CAS, .key = "last" };
	uint64_t versions[50];
	char key[32];

	for (unsigned i = 0; i < 50; i++) {
		struct answer answer;

		snprintf(key, sizeof(key), "load/%u", i);
		answer = cas(c, leader, key, 0, "x");
		assert_ok(answer.status);
		versions[i] = answer.version;
	}
	begin.length = 1;
	assert_ok(ask(c, leader, begin).status);
	kill_hard(c, leader);
	leader = leader_await(c, c->voters[leader].node);
	/* A leader that says it leads has applied all of it already. */
	for (unsigned i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "load/%u", i);
		assert_key(c, leader, key, versions[i], "x");
	}
}

static void
leader_without_followers__does_not_answer_that_it_is_done(void **state)
{
	struct cluster *c = *state;
	unsigned leader = leader_await(c, 0);
	struct order begin = { .type = ORDER_BEGIN_CAS, .key = "alone" };
	struct order outcome = { .type = ORDER_OUTCOME };

	for (unsigned i = 0; i < VOTERS; i++)
		if (i != leader)
			kill_hard(c, i);
	begin.length = 1;
	assert_ok(ask(c, leader, begin).status);
	/* It finds out by itself that nobody follows, and lets go. */
	assert_outcome(ask(c, leader, outcome).status, -PETAL_EUNKNOWN);
	assert_outcome(cas(c, leader, "alone", 0, "x").status,
		       -PETAL_ENOTLEADER);
	for (unsigned i = 0; i < VOTERS; i++)
		if (i != leader)
			start(c, i);
	/* It was the only one who had it, and it may come true after all. */
	cas_surely(c, "alone", "x");
}

static void restart_of_all__keeps_all_keys(void **state)
{
	struct cluster *c = *state;
	uint64_t a = cas_surely(c, "a", "1"), b = cas_surely(c, "b", "2");

	for (unsigned i = 0; i < VOTERS; i++)
		stop(c, i);
	for (unsigned i = 0; i < VOTERS; i++)
		start(c, i);
	assert_true(cas_surely(c, "c", "3") > b);
	for (unsigned i = 0; i < VOTERS; i++) {
		assert_key(c, i, "a", a, "1");
		assert_key(c, i, "b", b, "2");
	}

	/* And by violence. */
	for (unsigned i = 0; i < VOTERS; i++)
		kill_hard(c, i);
	for (unsigned i = 0; i < VOTERS; i++)
		start(c, i);
	assert_true(cas_surely(c, "d", "4") > b);
	for (unsigned i = 0; i < VOTERS; i++)
		assert_key(c, i, "a", a, "1");
}

static void snapshots__cut_the_log_and_bring_a_late_voter_up(void **state)
{
	struct cluster *c = *state;
	struct order fill = { .type = ORDER_FILL,
			      .count = 2500,
			      .window = FILL_WINDOW };
	unsigned leader = leader_await(c, 0);
	unsigned late = (leader + 1) % VOTERS;
	struct answer answer;
	uint64_t mark;

	kill_hard(c, late);
	answer = ask(c, leader, fill);
	assert_ok(answer.status);
	print_message("commit, %u under way: p50 %llu us, p99 %llu us\n",
		      FILL_WINDOW, (unsigned long long)answer.p50_ns / 1000,
		      (unsigned long long)answer.p99_ns / 1000);
	assert_true(counted(c, leader).snapshots_taken > 0);
	mark = cas_surely(c, "mark", "m");

	start(c, late);
	assert_key(c, late, "mark", mark, "m");
	assert_true(counted(c, late).snapshots_restored > 0);
	assert_int_equal(counted(c, late).keys, 101);

	for (unsigned i = 0; i < VOTERS; i++)
		stop(c, i);
	for (unsigned i = 0; i < VOTERS; i++)
		start(c, i);
	cas_surely(c, "after", "x");
	for (unsigned i = 0; i < VOTERS; i++) {
		assert_key(c, i, "mark", mark, "m");
		assert_true(counted(c, i).snapshots_restored > 0);
	}
}

/* Strangers. */

static int stranger_connect(struct cluster *cluster, unsigned i)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const char *port = strrchr(cluster->voters[i].address, ':') + 1;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((uint16_t)atoi(port));
	assert_ok(connect(fd, (struct sockaddr *)&address, sizeof(address)));
	return fd;
}

/* How many bytes come before the other side closes. */
static size_t stranger_read(int fd)
{
	uint8_t bytes[256];
	size_t total = 0;
	ssize_t got;

	while ((got = recv(fd, bytes, sizeof(bytes), 0)) > 0)
		total += (size_t)got;
	close(fd);
	return total;
}

static void hello_make(struct cluster *cluster, uint32_t from, uint32_t to,
		       const uint8_t key[32], const char *address,
		       uint8_t hello[PETAL_REGISTRY_HELLO_BYTES])
{
	uint8_t derived[PETAL_SEAL_KEY_BYTES];

	(void)cluster;
	memset(hello, 0, PETAL_REGISTRY_HELLO_BYTES);
	memcpy(hello, "PRh\1\1", 5);
	hello[8] = (uint8_t)from;
	hello[12] = (uint8_t)to;
	petal_seal_key_derive(key, "registry", derived);
	petal_seal_token_make(derived, cluster_id, from, to,
			      petal_clock_realtime_ns(), hello + 16);
	strcpy((char *)hello + 64, address);
}

static size_t hello_try(struct cluster *cluster, unsigned i,
			const uint8_t hello[PETAL_REGISTRY_HELLO_BYTES])
{
	int fd = stranger_connect(cluster, i);

	assert_int_equal(send(fd, hello, PETAL_REGISTRY_HELLO_BYTES, 0),
			 PETAL_REGISTRY_HELLO_BYTES);
	return stranger_read(fd);
}

static void stranger__gets_no_byte_and_the_voters_go_on(void **state)
{
	static const uint8_t wrong_key[32] = "another key";
	struct cluster *c = *state;
	uint32_t from = c->voters[1].node, to = c->voters[0].node;
	const char *address = c->voters[1].address;
	uint8_t hello[PETAL_REGISTRY_HELLO_BYTES];
	unsigned random = 12345;

	leader_await(c, 0);
	for (unsigned round = 0; round < 200; round++) {
		for (unsigned i = 0; i < sizeof(hello); i++)
			hello[i] = (uint8_t)((random = random * 1103515245 +
						       12345) >>
					     16);
		if (round % 2)
			memcpy(hello, "PRh\1\1\0\0\0", 8);
		assert_int_equal(hello_try(c, 0, hello), 0);
	}
	hello_make(c, from, to, wrong_key, address, hello);
	assert_int_equal(hello_try(c, 0, hello), 0);
	/* A good token, and all else wrong in its turn. */
	hello_make(c, from, to, cluster_key, "127.0.0.1:1", hello);
	assert_int_equal(hello_try(c, 0, hello), 0);
	hello_make(c, 77, to, cluster_key, address, hello);
	assert_int_equal(hello_try(c, 0, hello), 0);
	hello_make(c, from, 77, cluster_key, address, hello);
	assert_int_equal(hello_try(c, 0, hello), 0);
	hello_make(c, to, to, cluster_key, c->voters[0].address, hello);
	assert_int_equal(hello_try(c, 0, hello), 0);
	hello_make(c, from, to, cluster_key, address, hello);
	hello[127] = 1;
	assert_int_equal(hello_try(c, 0, hello), 0);
	assert_int_equal(counted(c, 0).refused, 206);
	cas_surely(c, "still", "alive");
}

static void replayed_hello__is_answered_once(void **state)
{
	struct cluster *c = *state;
	uint8_t hello[PETAL_REGISTRY_HELLO_BYTES], answer[32];
	int fd;

	leader_await(c, 0);
	hello_make(c, c->voters[1].node, c->voters[0].node, cluster_key,
		   c->voters[1].address, hello);
	fd = stranger_connect(c, 0);
	assert_int_equal(send(fd, hello, sizeof(hello), 0), sizeof(hello));
	assert_int_equal(recv(fd, answer, sizeof(answer), 0),
			 PETAL_SEAL_ANSWER_BYTES);
	close(fd);
	assert_int_equal(hello_try(c, 0, hello), 0);
	cas_surely(c, "still", "alive");
}

static void half_open_connections__are_bounded_and_time_out(void **state)
{
	struct cluster *c = *state;
	unsigned old = leader_await(c, 0), other = (old + 1) % VOTERS;
	struct petal_registry_status status;
	int fds[PETAL_REGISTRY_HALF_OPEN_MAX + 10];
	unsigned count = sizeof(fds) / sizeof(fds[0]);

	for (unsigned i = 0; i < count; i++)
		fds[i] = stranger_connect(c, other);
	/* They do not keep a new leader from being elected. */
	kill_hard(c, old);
	leader_await(c, c->voters[old].node);
	start(c, old);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(stranger_read(fds[i]), 0);
	status = counted(c, other);
	assert_true(status.evicted >= 10);
	assert_true(status.timed_out > 0);
	assert_int_equal(status.evicted + status.timed_out, count);
	cas_surely(c, "still", "alive");
}

static void impostor__who_takes_a_voters_port_gets_a_hello_only(void **state)
{
	struct cluster *c = *state;
	struct sockaddr_in address = { .sin_family = AF_INET };
	const char *port = strrchr(c->voters[2].address, ':') + 1;
	uint8_t bytes[PETAL_REGISTRY_HELLO_BYTES];
	int listener, fd;

	/* First, for a child would keep the listener open. */
	start(c, 0);
	start(c, 1);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((uint16_t)atoi(port));
	assert_ok(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 },
			     sizeof(int)));
	assert_ok(bind(listener, (struct sockaddr *)&address, sizeof(address)));
	assert_ok(listen(listener, 8));
	fd = accept(listener, NULL, NULL);
	assert_int_equal(recv(fd, bytes, sizeof(bytes), MSG_WAITALL),
			 sizeof(bytes));
	/* Any answer but the right one ends it, with not a byte of the log. */
	assert_int_equal(send(fd, bytes, PETAL_SEAL_ANSWER_BYTES, 0),
			 PETAL_SEAL_ANSWER_BYTES);
	assert_int_equal(stranger_read(fd), 0);
	close(listener);
	assert_true(counted(c, 0).dial_refused + counted(c, 1).dial_refused >
		    0);
	leader_await(c, 0);
	start(c, 2);
	cas_surely(c, "two", "are enough");
}

/* One voter, in this process. */

static void one_voter__leads_at_once_and_keeps_its_keys(void **state)
{
	struct cluster *c = *state;
	uint64_t version;

	assert_int_equal(leader_await(c, 0), 0);
	version = cas(c, 0, "k", 0, "v").version;
	assert_int_equal(version, 1);
	stop(c, 0);
	start(c, 0);
	assert_int_equal(leader_await(c, 0), 0);
	assert_key(c, 0, "k", version, "v");
	kill_hard(c, 0);
	start(c, 0);
	assert_int_equal(leader_await(c, 0), 0);
	assert_key(c, 0, "k", version, "v");
}

struct alone {
	struct cluster *cluster;
	struct petal_registry *registry;
	struct petal_registry_options options;
	char dir[256];
};

static struct alone *alone_new(void)
{
	struct alone *alone = calloc(1, sizeof(*alone));

	assert_non_null(alone);
	alone->cluster = cluster_new(1);
	options_fill(alone->cluster, 0, alone->dir, sizeof(alone->dir),
		     &alone->options);
	return alone;
}

static int setup_alone(void **state)
{
	*state = alone_new();
	return 0;
}

static int teardown_alone(void **state)
{
	struct alone *alone = *state;

	petal_registry_close(alone->registry);
	petal_test_tmpdir_remove(alone->cluster->dir);
	free(alone->cluster);
	free(alone);
	return 0;
}

static struct petal_registry_event event_next(struct petal_registry *registry)
{
	struct pollfd fd = { .fd = petal_registry_fd(registry),
			     .events = POLLIN };
	struct petal_registry_event event;

	while (petal_registry_poll(registry, &event, 1) == 0)
		assert_int_equal(poll(&fd, 1, 60000), 1);
	return event;
}

/* Take events until there is one of this type; the others are let go. */
static struct petal_registry_event
event_await(struct petal_registry *registry,
	    enum petal_registry_event_type type)
{
	struct petal_registry_event event;

	do
		event = event_next(registry);
	while (event.type != type);
	return event;
}

static void alone_start(struct alone *alone)
{
	assert_ok(petal_registry_open(&alone->options, &alone->registry));
	while (petal_registry_leader(alone->registry) == 0)
		event_await(alone->registry, PETAL_REGISTRY_LEADER);
}

static void cas__more_than_the_bound_are_refused_and_none_is_lost(void **state)
{
	struct alone *a = *state;
	bool seen[PETAL_REGISTRY_INFLIGHT_MAX] = { false };
	char key[32];

	alone_start(a);
	for (unsigned i = 0; i < PETAL_REGISTRY_INFLIGHT_MAX; i++) {
		snprintf(key, sizeof(key), "k/%u", i);
		assert_ok(petal_registry_cas(a->registry, key, 0, "v", 1, i));
	}
	assert_outcome(petal_registry_cas(a->registry, "more", 0, "v", 1, 99),
		       -EAGAIN);
	for (unsigned i = 0; i < PETAL_REGISTRY_INFLIGHT_MAX; i++) {
		struct petal_registry_event event =
			event_await(a->registry, PETAL_REGISTRY_APPLIED);

		assert_ok(event.status);
		assert_true(event.cookie < PETAL_REGISTRY_INFLIGHT_MAX);
		assert_false(seen[event.cookie]);
		seen[event.cookie] = true;
		assert_int_equal(event.version, event.cookie + 1);
	}
	assert_ok(petal_registry_cas(a->registry, "more", 0, "v", 1, 99));
	assert_int_equal(
		event_await(a->registry, PETAL_REGISTRY_APPLIED).cookie, 99);
}

static void put_and_wait(struct alone *a, const char *key)
{
	struct petal_registry_event event;
	uint64_t version = 0;

	(void)petal_registry_get(a->registry, key, NULL, 0, NULL, &version);
	assert_ok(petal_registry_cas(a->registry, key, version, "v", 1, 1));
	event = event_await(a->registry, PETAL_REGISTRY_APPLIED);
	assert_ok(event.status);
}

/* Until a registry has applied as many changes as another, without polling. */
static void follow_await(struct petal_registry *registry,
			 struct petal_registry *other)
{
	uint64_t until_ns = petal_clock_now_ns() + PATIENCE_NS;
	struct petal_registry_status status, wanted;

	petal_registry_status(other, &wanted);
	do {
		assert_true(petal_clock_now_ns() < until_ns);
		sched_yield();
		petal_registry_status(registry, &status);
	} while (status.revision < wanted.revision);
}

static unsigned changes_count(struct petal_registry *registry, bool *ret_all)
{
	struct petal_registry_event event;
	unsigned count = 0;

	*ret_all = false;
	while (petal_registry_poll(registry, &event, 1) == 1) {
		if (event.type != PETAL_REGISTRY_CHANGED)
			continue;
		count++;
		*ret_all |= event.key[0] == '\0';
	}
	return count;
}

/* Two voters in this process: one changes, the other looks on. */
static struct petal_registry *pair_start(struct alone *a)
{
	struct petal_registry_options options = a->options;
	struct petal_registry_voter voters[2];
	struct petal_registry *other;
	char dir[300];

	voters[0] = a->options.voters[0];
	voters[1].node = voters[0].node + 1;
	snprintf(voters[1].address, sizeof(voters[1].address), "127.0.0.1:%u",
		 port_find());
	a->options.voters = options.voters = voters;
	a->options.voter_count = options.voter_count = 2;
	options.node = voters[1].node;
	snprintf(dir, sizeof(dir), "%s/other", a->cluster->dir);
	options.dir = dir;
	assert_ok(petal_registry_open(&options, &other));
	alone_start(a);
	while (petal_registry_leader(other) == 0)
		event_await(other, PETAL_REGISTRY_LEADER);
	if (petal_registry_leader(a->registry) == options.node) {
		struct petal_registry *leader = other;

		other = a->registry;
		a->registry = leader;
	}
	return other;
}

static void
changed__is_one_event_per_key_and_one_for_all_at_the_bound(void **state)
{
	struct alone *a = *state;
	struct petal_registry *other = pair_start(a);
	struct petal_registry_status status;
	char key[32];
	bool all;

	changes_count(other, &all);
	for (unsigned i = 0; i < 10; i++)
		put_and_wait(a, i % 2 ? "odd" : "even");
	follow_await(other, a->registry);
	assert_int_equal(changes_count(other, &all), 2);
	assert_false(all);

	for (unsigned i = 0; i < PETAL_REGISTRY_CHANGED_MAX; i++) {
		snprintf(key, sizeof(key), "k/%u", i);
		put_and_wait(a, key);
	}
	follow_await(other, a->registry);
	assert_int_equal(changes_count(other, &all),
			 PETAL_REGISTRY_CHANGED_MAX);
	assert_false(all);
	for (unsigned i = 0; i <= PETAL_REGISTRY_CHANGED_MAX; i++) {
		snprintf(key, sizeof(key), "k/%u", i);
		put_and_wait(a, key);
	}
	follow_await(other, a->registry);
	assert_int_equal(changes_count(other, &all), 1);
	assert_true(all);
	petal_registry_status(other, &status);
	assert_int_equal(status.changed_overflows, 1);
	petal_registry_close(other);
}

static int collect(void *arg, const char *key, const void *value,
		   uint32_t length, uint64_t version)
{
	char *text = arg;

	assert_int_equal(length, 1);
	assert_memory_equal(value, "v", 1);
	assert_true(version > 0);
	strcat(text, key);
	strcat(text, " ");
	return strcmp(key, "ring/9") == 0 ? 9 : 0;
}

/* A limit on the size of files makes each write to the log fail (EFBIG). */
static void disk_fail(bool fail)
{
	struct rlimit limit;

	assert_ok(getrlimit(RLIMIT_FSIZE, &limit));
	limit.rlim_cur = fail ? 0 : limit.rlim_max;
	assert_ok(setrlimit(RLIMIT_FSIZE, &limit));
}

static void disk_error__stops_the_voter_and_says_so(void **state)
{
	struct alone *a = *state;
	struct petal_registry_event event;
	bool failed = false, applied = false;

	alone_start(a);
	put_and_wait(a, "k");
	disk_fail(true);
	assert_ok(petal_registry_cas(a->registry, "lost", 0, "v", 1, 7));
	while (!failed || !applied) {
		event = event_next(a->registry);
		if (event.type == PETAL_REGISTRY_APPLIED) {
			assert_outcome(event.status, -PETAL_EUNKNOWN);
			applied = true;
		} else if (event.type == PETAL_REGISTRY_FAILED) {
			assert_outcome(event.status, -PETAL_EDISK);
			failed = true;
		}
	}
	disk_fail(false);
	assert_outcome(petal_registry_cas(a->registry, "k", 1, "w", 1, 8),
		       -PETAL_EDISK);
	while (petal_registry_leader(a->registry) != 0)
		event_await(a->registry, PETAL_REGISTRY_LEADER);
	assert_ok(petal_registry_get(a->registry, "k", NULL, 0, NULL, NULL));

	/* What was acknowledged is there when the disk is. */
	petal_registry_close(a->registry);
	alone_start(a);
	assert_ok(petal_registry_get(a->registry, "k", NULL, 0, NULL, NULL));
}

static void open__says_that_anything_may_have_changed(void **state)
{
	struct alone *a = *state;

	assert_ok(petal_registry_open(&a->options, &a->registry));
	assert_string_equal(
		event_await(a->registry, PETAL_REGISTRY_CHANGED).key, "");
}

static void each__visits_a_prefix_in_order(void **state)
{
	struct alone *a = *state;
	char text[256] = "";

	alone_start(a);
	put_and_wait(a, "ring/2");
	put_and_wait(a, "rink");
	put_and_wait(a, "ring/10");
	put_and_wait(a, "node/1");
	assert_ok(petal_registry_each(a->registry, "ring/", collect, text));
	assert_string_equal(text, "ring/10 ring/2 ");
	put_and_wait(a, "ring/9");
	text[0] = '\0';
	assert_int_equal(petal_registry_each(a->registry, "", collect, text),
			 9);
	assert_string_equal(text, "node/1 ring/10 ring/2 ring/9 ");
}

static void get__says_what_is_missing_or_too_small(void **state)
{
	struct alone *a = *state;
	uint32_t length = 7;
	char value[8];

	alone_start(a);
	assert_outcome(petal_registry_get(a->registry, "k", value, 8, &length,
					  NULL),
		       -ENOENT);
	assert_int_equal(length, 7);
	put_and_wait(a, "k");
	assert_outcome(petal_registry_get(a->registry, "k", value, 0, NULL,
					  NULL),
		       -EMSGSIZE);
	assert_ok(petal_registry_get(a->registry, "k", NULL, 0, &length, NULL));
	assert_int_equal(length, 1);
}

static void fd__is_readable_while_and_only_while_events_wait(void **state)
{
	struct alone *a = *state;
	struct petal_registry_event event;
	struct pollfd fd;

	alone_start(a);
	fd = (struct pollfd){ .fd = petal_registry_fd(a->registry),
			      .events = POLLIN };
	assert_ok(petal_registry_cas(a->registry, "k", 0, "v", 1, 5));
	while (petal_registry_get(a->registry, "k", NULL, 0, NULL, NULL) != 0)
		assert_int_equal(poll(&fd, 1, 60000), 1);
	/* One at a time: an answer and a change at least. */
	event_await(a->registry, PETAL_REGISTRY_APPLIED);
	assert_int_equal(poll(&fd, 1, 0), 1);
	while (petal_registry_poll(a->registry, &event, 1) == 1)
		assert_int_equal(poll(&fd, 1, 0), 1);
	assert_int_equal(poll(&fd, 1, 0), 0);
}

static void open__refuses_options_that_contradict_themselves(void **state)
{
	struct alone *a = *state;
	struct petal_registry_options good = a->options, bad = good;
	struct petal_registry_voter voters[8];
	struct petal_registry *none = NULL;

	for (unsigned i = 0; i < 8; i++) {
		voters[i].node = i + 1;
		snprintf(voters[i].address, 64, "127.0.0.1:%u", 21000 + i);
	}
	bad.node = 99;
	assert_outcome(petal_registry_open(&bad, &none), -EINVAL);
	bad = good;
	bad.voter_count = 0;
	assert_outcome(petal_registry_open(&bad, &none), -EINVAL);
	bad.voters = voters;
	bad.node = 1;
	bad.voter_count = 8;
	assert_outcome(petal_registry_open(&bad, &none), -EINVAL);
	bad.voter_count = 2;
	voters[1].node = 1;
	assert_outcome(petal_registry_open(&bad, &none), -EINVAL);
	voters[1].node = 2;
	strcpy(voters[1].address, voters[0].address);
	assert_outcome(petal_registry_open(&bad, &none), -EINVAL);
	for (unsigned i = 0; i < 9; i++) {
		static const char *const addresses[] = {
			"",
			"127.0.0.1",
			"127.0.0.1:0",
			"1.2.3.4:x",
			"1.2.3.4:65536",
			"::1:7000",
			"localhost:1",
			"[127.0.0.1]:1",
			"1.2.3.4:-1",
		};

		strcpy(voters[1].address, addresses[i]);
		assert_outcome(petal_registry_open(&bad, &none), -EINVAL);
	}
	bad = good;
	bad.heartbeat_ms = bad.election_ms = 50;
	assert_outcome(petal_registry_open(&bad, &none), -EINVAL);
	assert_null(none);
	assert_int_equal(access(a->dir, F_OK), -1);
}

static void open__names_what_is_wrong_with_the_directory(void **state)
{
	struct alone *a = *state;
	struct petal_registry_options options = a->options;
	struct petal_registry *none = NULL;
	struct stat st;
	char path[300];
	int fd;

	options.must_exist = true;
	assert_outcome(petal_registry_open(&options, &none), -ENOENT);
	options.must_exist = false;
	options.dir = "/nowhere/at/all";
	assert_outcome(petal_registry_open(&options, &none), -ENOENT);
	snprintf(path, sizeof(path), "%s/file", a->cluster->dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	options.dir = path;
	assert_outcome(petal_registry_open(&options, &none), -ENOTDIR);
	options.dir = "/proc/self";
	assert_true(petal_registry_open(&options, &none) < 0);
	assert_null(none);

	alone_start(a);
	assert_ok(stat(a->dir, &st));
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_outcome(petal_registry_open(&a->options, &none), -EBUSY);
}

static void open__names_a_port_that_is_taken(void **state)
{
	struct alone *a = *state;
	struct petal_registry *none = NULL;
	struct petal_registry_options options = a->options;
	char path[300];

	alone_start(a);
	snprintf(path, sizeof(path), "%s/second", a->cluster->dir);
	options.dir = path;
	assert_outcome(petal_registry_open(&options, &none), -EADDRINUSE);
	assert_null(none);
	/* And what it left behind is no obstacle. */
	petal_registry_close(a->registry);
	a->registry = NULL;
	assert_ok(petal_registry_open(&options, &a->registry));
}

static void file_write(const char *dir, const char *name, const char *text)
{
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_ok(fclose(file));
}

static void open__refuses_a_directory_of_somebody_else_or_damaged(void **state)
{
	struct alone *a = *state;
	struct petal_registry *none = NULL;
	char log[300], gone[300];

	alone_start(a);
	put_and_wait(a, "k");
	petal_registry_close(a->registry);
	a->registry = NULL;

	a->options.cluster[0] ^= 1;
	assert_outcome(petal_registry_open(&a->options, &none), -EINVAL);
	a->options.cluster[0] ^= 1;

	snprintf(log, sizeof(log), "%s/log", a->dir);
	snprintf(gone, sizeof(gone), "%s/gone", a->dir);
	assert_ok(rename(log, gone));
	assert_outcome(petal_registry_open(&a->options, &none),
		       -PETAL_EDATALOSS);
	assert_ok(mkdir(log, 0700));
	assert_outcome(petal_registry_open(&a->options, &none),
		       -PETAL_EDATALOSS);
	petal_test_tmpdir_remove(strdup(log));
	assert_ok(rename(gone, log));

	file_write(a->dir, "identity",
		   "petalith registry 2\nwhat comes next\n");
	assert_outcome(petal_registry_open(&a->options, &none),
		       -PETAL_EVERSION);
	file_write(a->dir, "identity", "something else, of some length\n");
	assert_outcome(petal_registry_open(&a->options, &none),
		       -PETAL_ECORRUPT);
	snprintf(gone, sizeof(gone), "%s/identity", a->dir);
	assert_ok(unlink(gone));
	assert_outcome(petal_registry_open(&a->options, &none),
		       -PETAL_ECORRUPT);
	assert_null(none);
}

/* Change one byte of each file of the log that begins with @prefix. */
static unsigned log_damage(struct alone *a, const char *prefix, long at)
{
	char path[600], log[300];
	struct dirent *entry;
	unsigned damaged = 0;
	DIR *dir;

	snprintf(log, sizeof(log), "%s/log", a->dir);
	dir = opendir(log);
	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		FILE *file;
		int byte;

		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", log, entry->d_name);
		file = fopen(path, "r+");
		assert_non_null(file);
		assert_ok(fseek(file, at, SEEK_SET));
		byte = fgetc(file);
		assert_ok(fseek(file, at, SEEK_SET));
		assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
		assert_ok(fclose(file));
		damaged++;
	}
	closedir(dir);
	return damaged;
}

static void open__refuses_a_damaged_log_instead_of_forgetting(void **state)
{
	struct alone *a = *state;

	alone_start(a);
	put_and_wait(a, "k");
	petal_registry_close(a->registry);
	a->registry = NULL;
	/* In the first entry of the segment that has the change. */
	assert_int_equal(log_damage(a, "0000000000000002-", 40), 1);
	assert_outcome(petal_registry_open(&a->options, &a->registry),
		       -PETAL_ECORRUPT);
	assert_null(a->registry);
	/* Refused is not changed: with the byte as it was, all is there. */
	assert_int_equal(log_damage(a, "0000000000000002-", 40), 1);
	alone_start(a);
	assert_ok(petal_registry_get(a->registry, "k", NULL, 0, NULL, NULL));
}

#define THREE(name) cmocka_unit_test_setup_teardown(name, setup_three, teardown)
#define ALONE(name) \
	cmocka_unit_test_setup_teardown(name, setup_alone, teardown_alone)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		/* First those that fork, while this process has one thread. */
		cmocka_unit_test_setup_teardown(
			one_voter__leads_at_once_and_keeps_its_keys, setup_one,
			teardown),
		THREE(three__elect_change_and_all_see_it),
		THREE(three__commit_latency_is_measured),
		THREE(killed_leader__is_replaced_and_catches_up_when_it_returns),
		cmocka_unit_test_setup_teardown(
			missed_leader__is_replaced_at_once, setup_slow,
			teardown),
		THREE(killed_under_load__no_answered_change_is_lost),
		THREE(leader_without_followers__does_not_answer_that_it_is_done),
		THREE(restart_of_all__keeps_all_keys),
		THREE(snapshots__cut_the_log_and_bring_a_late_voter_up),
		THREE(stranger__gets_no_byte_and_the_voters_go_on),
		THREE(replayed_hello__is_answered_once),
		THREE(half_open_connections__are_bounded_and_time_out),
		cmocka_unit_test_setup_teardown(
			impostor__who_takes_a_voters_port_gets_a_hello_only,
			setup_none, teardown),
		ALONE(open__refuses_options_that_contradict_themselves),
		ALONE(open__names_what_is_wrong_with_the_directory),
		ALONE(open__names_a_port_that_is_taken),
		ALONE(open__refuses_a_directory_of_somebody_else_or_damaged),
		ALONE(open__refuses_a_damaged_log_instead_of_forgetting),
		ALONE(get__says_what_is_missing_or_too_small),
		ALONE(disk_error__stops_the_voter_and_says_so),
		ALONE(open__says_that_anything_may_have_changed),
		ALONE(each__visits_a_prefix_in_order),
		ALONE(fd__is_readable_while_and_only_while_events_wait),
		ALONE(cas__more_than_the_bound_are_refused_and_none_is_lost),
		ALONE(changed__is_one_event_per_key_and_one_for_all_at_the_bound),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
