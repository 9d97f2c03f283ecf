/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/cli/demo.h"
#include "fabric/seal.h"
#include "shm/clock.h"
#include "shm/error.h"

#define START_NS PETAL_S(30)
#define STOP_NS PETAL_S(5)
#define LOOK_NS PETAL_MS(20)
#define DATA_BYTES (UINT64_C(16) << 20)
#define SLOTS 4096u
#define LEASE_NS PETAL_S(5)

/* A port that is free just now, and ours until the socket is closed. */
static int free_port(struct demo *demo, int *ret_fd, uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int err = 0;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &size) < 0)
		err = demo_fail(demo, "cannot find a free port: %s",
				strerrordesc_np(errno));
	*ret_fd = fd;
	*ret_port = ntohs(address.sin_port);
	return err;
}

/* All are held together, or the kernel may name one twice. */
static int choose_ports(struct demo *demo)
{
	int held[2 * DEMO_PETALS], err = 0;
	unsigned count = 0;

	while (err == 0 && count < 2 * DEMO_PETALS) {
		struct demo_petal *petal = &demo->petals[count / 2];

		err = free_port(demo, &held[count],
				count % 2 == 0 ? &petal->fabric_port
					       : &petal->registry_port);
		count++;
	}
	while (count-- > 0) {
		if (held[count] >= 0)
			close(held[count]);
	}
	return err;
}

static int write_config(struct demo *demo, unsigned n)
{
	struct demo_petal *petal = &demo->petals[n];
	FILE *file = fopen(petal->config, "we");

	if (file == NULL)
		return demo_fail(demo, "cannot write '%s': %s", petal->config,
				 strerrordesc_np(errno));
	fprintf(file,
		"[petal]\n"
		"cluster = demo\n"
		"node = %u\n"
		"dir = %s\n"
		"key = %s/cluster.key\n"
		"provider = %s\n"
		"journal_bytes = 64M\n"
		"heartbeat_ms = 100\n"
		"suspect_beats = 50\n",
		n + 1, petal->dir, demo->dir, demo->options.provider);
	for (unsigned i = 0; i < DEMO_PETALS; i++)
		fprintf(file,
			"\n[node %u]\n"
			"name = %s\n"
			"domain = rack-%u\n"
			"fabric = 127.0.0.1:%u\n"
			"registry = 127.0.0.1:%u\n",
			i + 1, demo->petals[i].name, i + 1,
			demo->petals[i].fabric_port,
			demo->petals[i].registry_port);
	if (fclose(file) != 0)
		return demo_fail(demo, "cannot write '%s': %s", petal->config,
				 strerrordesc_np(errno));
	return 0;
}

static int prepare(struct demo *demo)
{
	char key[PATH_MAX];
	int err;

	if (choose_ports(demo) < 0)
		return -1;
	snprintf(key, sizeof(key), "%.*s/cluster.key", PATH_MAX - 16,
		 demo->dir);
	err = petal_seal_key_create(key);
	if (err < 0)
		return demo_fail(demo, "cannot write '%s': %s", key,
				 petal_strerror(err));
	for (unsigned i = 0; i < DEMO_PETALS; i++) {
		struct demo_petal *petal = &demo->petals[i];

		petal->name[0] = (char)('a' + i);
		snprintf(petal->dir, sizeof(petal->dir), "%.*s/%s",
			 PATH_MAX - 16, demo->dir, petal->name);
		snprintf(petal->config, sizeof(petal->config), "%.*s/%s.conf",
			 PATH_MAX - 16, demo->dir, petal->name);
		snprintf(petal->log, sizeof(petal->log), "%.*s/%s.log",
			 PATH_MAX - 16, demo->dir, petal->name);
	}
	for (unsigned i = 0; i < DEMO_PETALS; i++) {
		if (write_config(demo, i) < 0)
			return -1;
	}
	return 0;
}

static int start(struct demo *demo, struct demo_petal *petal)
{
	const char *argv[] = { demo->petald, "--config", petal->config,
			       "--allow-same-host", NULL };
	struct petal_supervisor_pass log = { .to = STDERR_FILENO };
	struct petal_supervisor_spec spec = {
		.name = petal->name,
		.argv = argv,
		.restart = { .policy = PETAL_RESTART_PERMANENT,
			     .restarts_max = 3,
			     .window_ns = PETAL_S(60),
			     .backoff_ns = PETAL_MS(50),
			     .backoff_max_ns = PETAL_S(1) },
		.fds = &log,
		.fd_count = 1,
	};
	int err;

	log.from = open(petal->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
			0600);
	if (log.from < 0)
		return demo_fail(demo, "cannot write '%s': %s", petal->log,
				 strerrordesc_np(errno));
	err = petal_supervisor_start(demo->petals_supervisor, &spec,
				     &petal->child);
	close(log.from);
	return err < 0 ? demo_fail(demo, "cannot start '%s': %s", demo->petald,
				   petal_strerror(err))
		       : 0;
}

/* What a petal said last, when it gave up. */
static void last_words(const struct demo_petal *petal, char *words, size_t size)
{
	char line[DEMO_ERROR_BYTES];
	FILE *file = fopen(petal->log, "re");

	snprintf(words, size, "petald '%s' ended without a word", petal->name);
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] != '\0')
			snprintf(words, size, "%s", line);
	}
	if (file != NULL)
		fclose(file);
}

static struct demo_petal *petal_of(struct demo *demo, uint32_t child)
{
	for (unsigned i = 0; i < DEMO_PETALS; i++) {
		if (demo->petals[i].child == child)
			return &demo->petals[i];
	}
	return NULL;
}

int demo_petals_poll(struct demo *demo)
{
	struct petal_supervisor_event events[8];
	char words[DEMO_ERROR_BYTES];
	int count;

	count = petal_supervisor_poll(demo->petals_supervisor, events, 8);
	for (int i = 0; i < count; i++) {
		struct demo_petal *petal = petal_of(demo, events[i].child);

		if (petal == NULL)
			continue;
		if (events[i].type == PETAL_SUPERVISOR_STARTED ||
		    events[i].type == PETAL_SUPERVISOR_RESTARTED)
			petal->pid = events[i].pid;
		/* Killed is what we do to them; anything else is theirs. */
		if ((events[i].type == PETAL_SUPERVISOR_EXITED &&
		     events[i].signal == 0) ||
		    events[i].type == PETAL_SUPERVISOR_GAVE_UP) {
			last_words(petal, words, sizeof(words));
			return demo_fail(demo, "%s", words);
		}
	}
	return 0;
}

static int wait_attached(struct demo *demo)
{
	uint64_t end_ns = petal_clock_now_ns() + START_NS;
	int err;

	do {
		if (demo_petals_poll(demo) < 0 || demo_is_interrupted(demo))
			return -1;
		err = petal_node_attach(demo->petals[0].dir, &demo->node);
		if (err == 0) {
			demo->attached = true;
			return 0;
		}
		demo_pause(demo, petal_supervisor_fd(demo->petals_supervisor),
			   LOOK_NS);
	} while (petal_clock_now_ns() < end_ns);
	return demo_fail(demo, "petald '%s' did not get ready: %s",
			 demo->petals[0].name, petal_strerror(err));
}

/* The node's own sentence, if it had one. */
static const char *reason(const struct demo *demo, int err)
{
	return demo->node.error[0] != '\0' ? demo->node.error
					   : petal_strerror(err);
}

static int create_ring(struct demo *demo)
{
	static const struct petal_node_queue queues[] = {
		{ DEMO_QUEUE_IN, SLOTS, LEASE_NS },
		{ DEMO_QUEUE_OUT, SLOTS, LEASE_NS },
	};
	uint64_t end_ns = petal_clock_now_ns() + START_NS;
	int err;

	do {
		if (demo_petals_poll(demo) < 0 || demo_is_interrupted(demo))
			return -1;
		err = petal_ring_create(&demo->node, DEMO_RING, DATA_BYTES,
					queues, 2);
		if (err == 0 || err == -EEXIST)
			return 0;
		if (err != -PETAL_ENOQUORUM && err != -PETAL_EUNKNOWN)
			break;
		demo_pause(demo, petal_supervisor_fd(demo->petals_supervisor),
			   LOOK_NS);
	} while (petal_clock_now_ns() < end_ns);
	return demo_fail(demo, "cannot make the ring: %s", reason(demo, err));
}

int demo_petals_open(struct demo *demo)
{
	struct petal_supervisor_options options = {
		.strategy = PETAL_SUPERVISOR_ONE_FOR_ONE,
		.children_max = DEMO_PETALS,
	};
	int err;

	demo_progress(demo, "starting three petals");
	if (prepare(demo) < 0)
		return -1;
	err = petal_supervisor_open(&options, &demo->petals_supervisor);
	if (err < 0)
		return demo_fail(demo, "cannot start a supervisor: %s",
				 petal_strerror(err));
	for (unsigned i = 0; i < DEMO_PETALS; i++) {
		if (start(demo, &demo->petals[i]) < 0)
			return -1;
	}
	if (wait_attached(demo) < 0 || create_ring(demo) < 0)
		return -1;
	err = petal_ring_open(&demo->node, DEMO_RING, &demo->ring);
	if (err < 0)
		return demo_fail(demo, "cannot open the ring: %s",
				 reason(demo, err));
	demo->opened = true;
	return 0;
}

int demo_petals_follow(struct demo *demo)
{
	uint64_t end_ns = petal_clock_now_ns() + START_NS;
	const char *dirs[DEMO_PETALS];
	int err;

	for (unsigned i = 0; i < DEMO_PETALS; i++)
		dirs[i] = demo->petals[i].dir;
	petal_ring_close(&demo->ring);
	petal_node_detach(&demo->node);
	demo->opened = demo->attached = false;
	do {
		if (demo_petals_poll(demo) < 0 || demo_is_interrupted(demo))
			return -1;
		err = petal_ring_find(dirs, DEMO_PETALS, DEMO_RING,
				      petal_clock_now_ns() + LOOK_NS,
				      &demo->node, &demo->ring);
	} while (err == -ETIMEDOUT && petal_clock_now_ns() < end_ns);
	if (err < 0)
		return demo_fail(demo, "no petal followed the primary: %s",
				 petal_strerror(err));
	demo->opened = demo->attached = true;
	return 0;
}

int demo_petals_whole(struct demo *demo, bool *ret_whole)
{
	json_t *answer, *ring, *member;
	size_t i;

	if (petal_ring_list(&demo->node, &answer) < 0)
		return demo_fail(demo, "the primary petal does not answer");
	*ret_whole = true;
	ring = json_array_get(json_object_get(answer, "rings"), 0);
	json_array_foreach (json_object_get(ring, "members"), i, member) {
		const char *state =
			json_string_value(json_object_get(member, "state"));

		if (state == NULL ||
		    (strcmp(state, "in") != 0 && strcmp(state, "self") != 0))
			*ret_whole = false;
	}
	json_decref(answer);
	return 0;
}

void demo_petals_close(struct demo *demo)
{
	struct petal_supervisor_event events[8];

	if (demo->opened)
		petal_ring_close(&demo->ring);
	if (demo->attached)
		petal_node_detach(&demo->node);
	demo->opened = false;
	demo->attached = false;
	if (demo->petals_supervisor == NULL)
		return;
	petal_supervisor_stop(demo->petals_supervisor, STOP_NS);
	while (petal_supervisor_count(demo->petals_supervisor) > 0) {
		demo_pause(demo, petal_supervisor_fd(demo->petals_supervisor),
			   STOP_NS);
		petal_supervisor_poll(demo->petals_supervisor, events, 8);
	}
	petal_supervisor_close(demo->petals_supervisor);
	demo->petals_supervisor = NULL;
}
