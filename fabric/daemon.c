/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start: read the configuration, open the journal (its lock says that no other
 * petald lives in this directory) and read it back, listen for nodes, join the
 * registry, listen for processes, say "ready". Then the loop, until SIGTERM or
 * SIGINT. Whatever fails before "ready" is one sentence on stderr and exit 1,
 * or 2 for a wrong call.
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/seal.h"
#include "fabric/signals.h"
#include "shm/clock.h"
#include "shm/error.h"

#define EVENTS_MAX 64
#define SLEEP_NS_MAX PETAL_S(1)
#define FILES_MAX 4096
#define NEWS_ROUNDS 8
#define LOCK_TRIES 100 /* of 20 ms: a dead daemon's last writes */

static struct daemon the_daemon;

int daemon_watch(struct daemon *d, int fd, enum daemon_tag tag, unsigned index)
{
	/* A bell is heard each time that it rings, and is not read for that. */
	struct epoll_event event = {
		.events = tag == DAEMON_TAG_BELL ? EPOLLIN | EPOLLET : EPOLLIN,
		.data.u64 = (uint64_t)index << 8 | (uint64_t)tag,
	};

	return epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno
								     : 0;
}

void daemon_unwatch(struct daemon *d, int fd)
{
	epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void daemon_drain_fd(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		return; /* nothing in it */
}

/* Start. */

static int fail(const char *what, const char *of, int err)
{
	fprintf(stderr, "petald: cannot %s '%s': %s\n", what, of,
		petal_strerror(err));
	return err;
}

static void name_incarnation(struct daemon *d)
{
	uint8_t bytes[(sizeof(d->inc) - 1) / 2];

	randombytes_buf(bytes, sizeof(bytes));
	sodium_bin2hex(d->inc, sizeof(d->inc), bytes, sizeof(bytes));
}

static void name_disk(struct daemon *d)
{
	uint8_t uuid[16];

	petal_journal_uuid(d->journal, uuid);
	sodium_bin2hex(d->disk, sizeof(d->disk), uuid, sizeof(uuid));
}

static int make_dir(const char *path)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return fail("make directory", path, -errno);
	if (access(path, R_OK | W_OK | X_OK) < 0)
		return fail("write into directory", path, -errno);
	return 0;
}

static int say_journal(const struct daemon *d, int err)
{
	const char *why = petal_strerror(err);

	if (err == -EBUSY)
		why = "another petald holds it";
	else if (err == -PETAL_EVERSION)
		why = "it was written by another version of petald";
	else if (err == -PETAL_EAUTH)
		why = "it belongs to another cluster or node";
	else if (err == -PETAL_EGEOMETRY)
		why = "its size is not journal_bytes of the configuration";
	fprintf(stderr, "petald: cannot open the journal in '%s': %s\n",
		d->config.dir, why);
	return err;
}

static void say_range(const struct daemon *d,
		      const struct petal_journal_damage *damage)
{
	const struct petal_journal_range *range = &damage->range;

	if (damage->named)
		fprintf(stderr,
			"; it had lsn %" PRIu64 " to %" PRIu64
			" of ring id %" PRIu64 " (epoch %" PRIu32
			", position %" PRIu64 " to %" PRIu64 ")",
			range->from_lsn, range->to_lsn,
			PETAL_RUNS_KEY_RING(range->ring), range->epoch,
			range->from_pos, range->to_pos);
	fprintf(stderr,
		"; nothing was written: move the file away, start again, and "
		"the other members fill a new one in '%s'\n",
		d->config.dir);
}

/* What is damaged, where, and what to do about it. */
static int say_replay(const struct daemon *d, int err)
{
	struct petal_journal_damage damage;

	if (petal_journal_damage(d->journal, &damage) < 0)
		return say_journal(d, err);
	fprintf(stderr,
		"petald: the journal '%s/journal.0' is damaged: batch %" PRIu64
		", which was durable, cannot be read",
		d->config.dir, damage.sequence);
	if (damage.file_offset != 0)
		fprintf(stderr, " at byte %" PRIu64, damage.file_offset);
	say_range(d, &damage);
	return err;
}

static int open_journal(struct daemon *d, const uint8_t cluster[16])
{
	struct petal_journal_options options = {
		.dir = d->config.dir,
		.bytes = d->config.journal_bytes,
		.node = d->config.self,
		.direct = true,
	};
	struct timespec pause = { .tv_nsec = (long)PETAL_MS(20) };
	int err, tries = 0;

	memcpy(options.cluster, cluster, sizeof(options.cluster));
	do {
		err = petal_journal_open(&options, &d->journal);
		if (err == -EBUSY)
			nanosleep(&pause, NULL);
	} while (err == -EBUSY && ++tries < LOCK_TRIES);
	if (err < 0)
		return say_journal(d, err);
	name_disk(d);
	err = daemon_restore(d);
	return err < 0 ? say_replay(d, err) : 0;
}

static int open_promise(struct daemon *d)
{
	int err = petal_promise_open(d->config.dir, &d->promise);

	return err < 0 ? fail("read what was promised in", d->config.dir, err)
		       : 0;
}

static int open_wire(struct daemon *d, const uint8_t cluster[16],
		     const uint8_t key[32])
{
	const char *address =
		petal_member_find(&d->members, d->config.self)->address;
	struct petal_wire_options options = {
		.node = d->config.self,
		.provider = d->config.provider,
		.listen = address,
	};
	int err;

	memcpy(options.cluster, cluster, sizeof(options.cluster));
	memcpy(options.key, key, sizeof(options.key));
	err = petal_wire_open(&options, &d->wire);
	sodium_memzero(&options, sizeof(options));
	if (err == -ENODATA)
		fprintf(stderr,
			"petald: libfabric has no provider '%s' for '%s' "
			"(fi_info lists them)\n",
			d->config.provider, address);
	else if (err < 0)
		fail("listen for nodes at", address, err);
	return err;
}

static const char *own_registry(const struct petal_config *config)
{
	for (unsigned i = 0; i < config->node_count; i++) {
		if (config->nodes[i].member.node == config->self)
			return config->nodes[i].registry;
	}
	return "?";
}

static int say_registry(const struct daemon *d, const char *dir, int err)
{
	const char *why = petal_strerror(err);

	if (err == -EADDRINUSE || err == -EADDRNOTAVAIL)
		return fail("listen for the registry at",
			    own_registry(&d->config), err);
	if (err == -EBUSY)
		why = "another petald holds it";
	else if (err == -EINVAL &&
		 d->config.node_count > PETAL_REGISTRY_VOTERS_MAX)
		why = "more nodes than have a vote in it are not supported";
	else if (err == -EINVAL)
		why = "it was begun with another list of nodes, or an address "
		      "is none";
	else if (err == -ENOENT)
		why = "this node has run before, and it is gone";
	else if (err == -PETAL_EDATALOSS)
		why = "this node has voted before, and its log is gone";
	fprintf(stderr, "petald: cannot join the registry from '%s': %s\n", dir,
		why);
	return err;
}

static int open_registry(struct daemon *d, const uint8_t cluster[16],
			 const uint8_t key[32])
{
	struct petal_registry_voter voters[PETAL_REGISTRY_VOTERS_MAX];
	char dir[PATH_MAX + 16];
	struct petal_registry_options options = {
		.node = d->config.self,
		.dir = dir,
		.voters = voters,
		.election_ms = d->config.election_ms,
		.heartbeat_ms = d->config.election_ms / 4,
	};
	struct petal_journal_stats stats;
	int err;

	/* A voter that has voted must not come back having forgotten it. */
	petal_journal_stats(d->journal, &stats);
	options.must_exist = stats.replayed_batches > 0;

	/* The first few nodes vote; a cluster of more has enough with them. */
	for (unsigned i = 0;
	     i < d->config.node_count && i < PETAL_REGISTRY_VOTERS_MAX; i++) {
		voters[i].node = d->config.nodes[i].member.node;
		memcpy(voters[i].address, d->config.nodes[i].registry,
		       sizeof(voters[i].address));
		options.voter_count++;
	}
	snprintf(dir, sizeof(dir), "%s/registry", d->config.dir);
	memcpy(options.cluster, cluster, sizeof(options.cluster));
	memcpy(options.key, key, sizeof(options.key));
	err = petal_registry_open(&options, &d->registry);
	sodium_memzero(&options, sizeof(options));
	return err < 0 ? say_registry(d, dir, err) : 0;
}

static int open_members(struct daemon *d)
{
	struct petal_member_node list[PETAL_MEMBER_MAX];
	struct petal_member_options options = {
		.self = d->config.self,
		.suspect_beats = d->config.suspect_beats,
		.heartbeat_ns = d->config.heartbeat_ns,
	};

	for (unsigned i = 0; i < d->config.node_count; i++)
		list[i] = d->config.nodes[i].member;
	return petal_member_init(&d->members, &options, list,
				 d->config.node_count);
}

/*
 * SIGINT and SIGTERM come by the signalfd. A peer that goes away and a file that
 * is too large are error codes, not an end.
 */
static int open_signals(struct daemon *d)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return d->signal_fd < 0 ? -errno : 0;
}

/* Clients may hold more than the usual 1024 together. */
static void raise_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= FILES_MAX)
		return;
	files.rlim_cur = files.rlim_max < FILES_MAX ? files.rlim_max
						    : FILES_MAX;
	setrlimit(RLIMIT_NOFILE, &files);
}

static void watch_all(struct daemon *d)
{
	daemon_watch(d, d->signal_fd, DAEMON_TAG_SIGNAL, 0);
	daemon_watch(d, petal_wire_fd(d->wire), DAEMON_TAG_WIRE, 0);
	daemon_watch(d, petal_journal_fd(d->journal), DAEMON_TAG_JOURNAL, 0);
	daemon_watch(d, petal_registry_fd(d->registry), DAEMON_TAG_REGISTRY, 0);
}

static int read_key(const struct daemon *d, uint8_t key[PETAL_SEAL_KEY_BYTES])
{
	int err = petal_seal_key_load(d->config.key, key);
	const char *why = petal_strerror(err);

	if (err == -EPERM)
		why = "others than its owner may read it (chmod 600)";
	else if (err == -PETAL_ECORRUPT)
		why = "it is not 64 hexadecimal digits and a newline";
	if (err < 0)
		fprintf(stderr, "petald: cannot use the key '%s': %s\n",
			d->config.key, why);
	return err;
}

static int open_parts(struct daemon *d)
{
	uint8_t cluster[16], key[PETAL_SEAL_KEY_BYTES];
	int err;

	petal_seal_cluster_id(d->config.cluster, cluster);
	err = read_key(d, key);
	if (err < 0)
		return err;
	err = daemon_probe(d, cluster, key);
	if (err == 0)
		err = make_dir(d->config.dir);
	if (err == 0)
		err = open_journal(d, cluster);
	if (err == 0)
		err = open_promise(d);
	if (err == 0)
		err = open_wire(d, cluster, key);
	if (err == 0)
		err = open_registry(d, cluster, key);
	sodium_memzero(key, sizeof(key));
	if (err < 0)
		return err;
	err = daemon_clients_open(d);
	if (err < 0)
		return fail("open a socket in", d->config.dir, err);
	daemon_probe_note(d);
	watch_all(d);
	return 0;
}

struct call {
	const char *config;
	int ready_fd;
	bool allow_same_host;
};

static int open_all(struct daemon *d, const struct call *call)
{
	char error[PETAL_CONFIG_ERROR_BYTES];
	int err;

	d->epoll_fd = d->signal_fd = d->listen_fd = d->spare_fd = -1;
	d->promise.fd = -1;
	err = petal_config_load(call->config, &d->config, error);
	if (err < 0) {
		fprintf(stderr, "petald: %s\n", error);
		return err;
	}
	d->config.allow_same_host |= call->allow_same_host;
	err = petal_config_hosts(&d->config, call->config, error);
	if (err < 0) {
		fprintf(stderr, "petald: %s\n", error);
		return err;
	}
	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->epoll_fd < 0)
		return fail("start", "epoll", -errno);
	name_incarnation(d);
	d->now_ns = petal_clock_now_ns();
	d->started_ns = d->now_ns;
	raise_files();
	err = open_members(d);
	if (err < 0)
		return fail("use the members of", call->config, err);
	err = open_signals(d);
	if (err < 0)
		return fail("start", "signalfd", err);
	return open_parts(d);
}

static void close_all(struct daemon *d)
{
	daemon_clients_close(d);
	petal_registry_close(d->registry);
	/* First the journal, which may still write from the rings' memory. */
	petal_journal_close(d->journal);
	d->journal = NULL;
	daemon_epochs_stop(d);
	petal_wire_close(d->wire);
	daemon_restore_drop(d);
	petal_promise_close(&d->promise);
	if (d->signal_fd >= 0)
		close(d->signal_fd);
	if (d->epoll_fd >= 0)
		close(d->epoll_fd);
}

/* The loop. */

static void poll_journal(struct daemon *d)
{
	struct petal_journal_done done[PETAL_JOURNAL_INFLIGHT_MAX];
	int count = petal_journal_poll(d->journal, done,
				       PETAL_JOURNAL_INFLIGHT_MAX);

	for (int i = 0; i < count; i++)
		daemon_rings_journaled(d, &done[i]);
}

static void poll_registry(struct daemon *d)
{
	struct petal_registry_event events[16];
	bool changed = false;
	int count;

	count = petal_registry_poll(d->registry, events, 16);
	for (int i = 0; i < count; i++) {
		if (events[i].type == PETAL_REGISTRY_APPLIED)
			daemon_swaps_applied(d, 0, events[i].cookie,
					     events[i].status,
					     events[i].version,
					     daemon_swaps_revision(d));
		else if (events[i].type == PETAL_REGISTRY_CHANGED)
			changed = true;
		else if (events[i].type == PETAL_REGISTRY_FAILED)
			fprintf(stderr, "petald: the registry stopped: %s\n",
				petal_strerror(events[i].status));
	}
	if (changed) {
		daemon_epochs_reconcile(d);
		daemon_swaps_changed(d);
	}
}

static void on_signal(struct daemon *d)
{
	struct signalfd_siginfo info;

	if (read(d->signal_fd, &info, sizeof(info)) == sizeof(info))
		d->stopping = true;
}

static void on_ready(struct daemon *d, uint64_t tagged)
{
	unsigned index = (unsigned)(tagged >> 8);

	switch ((enum daemon_tag)(tagged & 0xff)) {
	case DAEMON_TAG_WIRE:
		d->wire_ready = true;
		break;
	case DAEMON_TAG_JOURNAL:
		d->journal_ready = true;
		break;
	case DAEMON_TAG_REGISTRY:
		poll_registry(d);
		break;
	case DAEMON_TAG_SIGNAL:
		on_signal(d);
		break;
	case DAEMON_TAG_LISTEN:
		daemon_clients_accept(d);
		break;
	case DAEMON_TAG_CLIENT:
		daemon_clients_request(d, index);
		break;
	case DAEMON_TAG_DEATH:
		daemon_clients_death(d, index);
		break;
	case DAEMON_TAG_BELL:
		daemon_rings_rang(d, index);
		break;
	}
}

static uint64_t sleep_ns(const struct daemon *d)
{
	uint64_t wake_ns = daemon_peers_next_ns(d);
	uint64_t other_ns = daemon_rings_next_ns(d);

	if (other_ns < wake_ns)
		wake_ns = other_ns;
	other_ns = daemon_swaps_next_ns(d);
	if (other_ns < wake_ns)
		wake_ns = other_ns;
	other_ns = daemon_failover_next_ns(d);
	if (other_ns < wake_ns)
		wake_ns = other_ns;
	if (wake_ns <= d->now_ns)
		return 0;
	return wake_ns - d->now_ns < SLEEP_NS_MAX ? wake_ns - d->now_ns
						  : SLEEP_NS_MAX;
}

static int wait_ready(struct daemon *d, uint64_t timeout_ns)
{
	struct epoll_event events[EVENTS_MAX];
	struct timespec timeout = {
		.tv_sec = (time_t)(timeout_ns / PETAL_S(1)),
		.tv_nsec = (long)(timeout_ns % PETAL_S(1)),
	};
	int count;

	count = epoll_pwait2(d->epoll_fd, events, EVENTS_MAX, &timeout, NULL);
	if (count < 0)
		return errno == EINTR ? 0 : -errno;
	d->now_ns = petal_clock_now_ns();
	for (int i = 0; i < count; i++)
		on_ready(d, events[i].data.u64);
	return 0;
}

/* Until there is nothing new; a while, for others want to be heard as well. */
static bool step_rings(struct daemon *d)
{
	for (unsigned i = 0; i < NEWS_ROUNDS; i++) {
		bool more = daemon_rings_step(d) > 0;

		daemon_failover_step(d);
		daemon_replace_step(d);
		d->wire_ready = more || petal_wire_arm(d->wire) != 0;
		if (d->wire_ready || !daemon_rings_news(d))
			return d->wire_ready;
	}
	return true;
}

/*
 * Whether there is more to do at once. A round that was not woken by the wire
 * or by the journal leaves them alone: they tell when they have something.
 */
static bool step_all(struct daemon *d)
{
	bool more = d->wire_ready && daemon_peers_poll(d) > 0;

	daemon_peers_step(d);
	if (d->journal_ready)
		poll_journal(d);
	d->journal_ready = false;
	daemon_swaps_step(d);
	return step_rings(d) || more;
}

static int loop(struct daemon *d)
{
	bool more;
	int err = 0;

	d->wire_ready = d->journal_ready = true;
	daemon_peers_start(d);
	daemon_epochs_reconcile(d);
	daemon_restore_check(d);
	while (!d->stopping && err == 0) {
		d->counts.loops++;
		more = step_all(d);
		err = wait_ready(d, more ? 0 : sleep_ns(d));
	}
	return err;
}

/* The call. */

static void usage(FILE *to)
{
	fputs("Usage: petald --config FILE [--ready-fd N] "
	      "[--allow-same-host]\n"
	      "\n"
	      "Runs one node of a Petalith fabric until SIGTERM. See petald(8) "
	      "and\n"
	      "petald.conf(5).\n",
	      to);
}

static int say_ready(int fd)
{
	static const char word[] = "ready\n";
	ssize_t n;

	if (fd < 0)
		return 0;
	n = write(fd, word, sizeof(word) - 1);
	if (n < 0) {
		fprintf(stderr, "petald: cannot write to --ready-fd %d: %s\n",
			fd, strerrordesc_np(errno));
		return -errno;
	}
	close(fd);
	return 0;
}

static bool read_fd(const char *text, int *ret_fd)
{
	char *end;
	long fd = strtol(text, &end, 10);

	if (text[0] >= '0' && text[0] <= '9' && *end == '\0' && fd < INT_MAX) {
		*ret_fd = (int)fd;
		return true;
	}
	fprintf(stderr,
		"petald: --ready-fd is '%s', expected a descriptor's "
		"number\n",
		text);
	return false;
}

/*
 * What we open must not come to lie where others write their complaints: the
 * journal under descriptor 2 would not survive one.
 */
static void fill_standard_fds(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* Returns -1 to go on, or the exit code. */
static int read_call(int argc, char **argv, struct call *call)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "ready-fd", required_argument, NULL, 'r' },
		{ "allow-same-host", no_argument, NULL, 'a' },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			call->config = optarg;
			break;
		case 'r':
			if (!read_fd(optarg, &call->ready_fd))
				return 2;
			break;
		case 'a':
			call->allow_same_host = true;
			break;
		case 'V':
			puts("petald " PETAL_VERSION);
			return 0;
		case 'h':
			usage(stdout);
			return 0;
		default:
			return 2;
		}
	}
	if (call->config == NULL || optind != argc) {
		fputs("petald: expected --config FILE and nothing else\n",
		      stderr);
		return 2;
	}
	return -1;
}

int main(int argc, char **argv)
{
	struct call call = { .ready_fd = -1 };
	struct daemon *d = &the_daemon;
	int code, err;

	petal_signals_reset();
	fill_standard_fds();
	code = read_call(argc, argv, &call);
	if (code >= 0)
		return code;
	if (sodium_init() < 0) {
		fputs("petald: cannot start libsodium\n", stderr);
		return 1;
	}
	prctl(PR_SET_DUMPABLE, 0);
	err = open_all(d, &call);
	if (err == 0)
		err = say_ready(call.ready_fd);
	if (err == 0)
		err = loop(d);
	if (err < 0 && d->counts.loops > 0)
		fail("wait for", "events", err);
	close_all(d);
	return err < 0 || d->refused ? 1 : 0;
}
