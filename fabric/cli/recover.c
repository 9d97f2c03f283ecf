/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a ring waits for that lost all its memory, and an operator's word that it
 * shall wait no longer.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "fabric/cli/cli.h"
#include "fabric/node.h"
#include "shm/clock.h"
#include "shm/error.h"

#define OPEN_NS PETAL_S(10) /* how long to wait until it is */
#define LOOK_NS PETAL_MS(100)

struct recover {
	const char *dir;
	const char *ring;
	bool accept_loss;
	bool json;
};

static void usage(void)
{
	puts("Usage: petal recover [--dir DIR] [--json] [--accept-loss] RING\n"
	     "\n"
	     "Says what a ring waits for that lost its memory everywhere.\n"
	     "\n"
	     "  --accept-loss  go on with this node's disk alone: what was\n"
	     "                 acknowledged below disk3 and is not on it is "
	     "lost\n"
	     "  --dir DIR      of the node's configuration (default " CLI_DIR_DEFAULT
	     ")");
}

/* -1 to go on, or the exit code. */
static int read_call(int argc, char **argv, struct recover *call)
{
	static const struct option options[] = {
		{ "accept-loss", no_argument, NULL, 'a' },
		{ "dir", required_argument, NULL, 'd' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	*call = (struct recover){ .dir = CLI_DIR_DEFAULT };
	optind = 1;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'a') {
			call->accept_loss = true;
		} else if (option == 'd') {
			call->dir = optarg;
		} else if (option == 'j') {
			call->json = true;
		} else if (option == 'h') {
			usage();
			return 0;
		} else {
			return 2;
		}
	}
	if (optind + 1 == argc) {
		call->ring = argv[optind];
		return -1;
	}
	fprintf(stderr, "petal recover: expected the name of one ring\n");
	return 2;
}

static int attach(const struct recover *call, struct petal_node *node)
{
	int err = petal_node_attach(call->dir, node);

	if (err == -ENOENT || err == -ECONNREFUSED)
		fprintf(stderr,
			"petal: no petald runs in '%s' (--dir names another "
			"directory)\n",
			call->dir);
	else if (err < 0)
		fprintf(stderr, "petal: petald in '%s' does not answer: %s\n",
			call->dir, petal_strerror(err));
	return err;
}

/* The ring as the node knows it; borrowed from @answer. */
static json_t *find(json_t *answer, const char *name)
{
	json_t *ring;
	size_t i;

	json_array_foreach (json_object_get(answer, "rings"), i, ring) {
		const char *its =
			json_string_value(json_object_get(ring, "name"));

		if (its != NULL && strcmp(its, name) == 0)
			return ring;
	}
	return NULL;
}

static bool is_open(json_t *ring)
{
	const char *state = json_string_value(json_object_get(ring, "state"));
	const char *role = json_string_value(json_object_get(ring, "role"));

	return state != NULL && role != NULL && strcmp(state, "open") == 0 &&
	       strcmp(role, "primary") == 0;
}

/* Returns the ring, once it is open here; NULL when that takes too long. */
static json_t *wait_open(const struct recover *call, struct petal_node *node)
{
	uint64_t end_ns = petal_clock_now_ns() + OPEN_NS;
	struct timespec pause = { .tv_nsec = (long)LOOK_NS };
	json_t *answer, *ring;

	while (petal_ring_list(node, &answer) == 0) {
		ring = find(answer, call->ring);
		ring = is_open(ring) ? json_incref(ring) : NULL;
		json_decref(answer);
		if (ring != NULL || petal_clock_now_ns() > end_ns)
			return ring;
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static void print_open(const struct recover *call, const json_t *ring)
{
	const json_t *loss = json_object_get(ring, "loss");

	if (call->json) {
		json_dumpf(ring, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
		putchar('\n');
		return;
	}
	printf("ring %s is open here in epoch %" PRId64
	       ": records of before from lsn %" PRId64 " on may be lost\n",
	       call->ring,
	       (int64_t)json_integer_value(json_object_get(ring, "epoch")),
	       (int64_t)json_integer_value(json_object_get(loss, "lsn")));
}

static int ask(const struct recover *call, struct petal_node *node)
{
	json_t *request, *answer, *ring;
	int err;

	request = json_pack("{s:s, s:s, s:b}", "op", "ring-recover", "name",
			    call->ring, "accept_loss", call->accept_loss);
	err = request == NULL
		      ? -EINVAL
		      : petal_node_request(node, request, NULL, 0, &answer);
	json_decref(request);
	if (err < 0) {
		fprintf(stderr, "petal recover: ring '%s': %s\n", call->ring,
			node->error[0] != '\0' ? node->error
					       : petal_strerror(err));
		return err == -EALREADY ? 0 : 1;
	}
	json_decref(answer);
	ring = wait_open(call, node);
	if (ring == NULL) {
		fprintf(stderr,
			"petal recover: ring '%s': it goes on here, and opens "
			"when one more member is there: start one, were its "
			"disk new\n",
			call->ring);
		return 1;
	}
	print_open(call, ring);
	json_decref(ring);
	return 0;
}

int cli_recover(int argc, char **argv)
{
	struct petal_node node;
	struct recover call;
	int code = read_call(argc, argv, &call);

	if (code >= 0)
		return code;
	if (attach(&call, &node) < 0)
		return 1;
	code = ask(&call, &node);
	petal_node_detach(&node);
	return code;
}
