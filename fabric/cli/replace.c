/* SPDX-License-Identifier: Apache-2.0 */
/*
 * petal replace: of each ring whose primary is here, another node in the place
 * of a member; then wait until that one is in.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "fabric/cli/cli.h"
#include "fabric/node.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "topology/member.h"

#define WAIT_NS PETAL_S(120)
#define LOOK_US 50000

struct replace {
	struct petal_node node;
	const char *dir;
	json_int_t from, to;
};

static void usage(FILE *to)
{
	fputs("Usage: petal replace [--dir DIR] OLD NEW\n\n"
	      "Puts node NEW in the place of node OLD, for good, in each ring "
	      "that OLD is a\nmember of; both by number. Ask the node that is "
	      "the rings' primary.\n\n"
	      "  --dir DIR   of the node's configuration "
	      "(default " CLI_DIR_DEFAULT ")\n",
	      to);
}

static bool read_node(const char *text, json_int_t *ret_node)
{
	char *end;

	*ret_node = strtol(text, &end, 10);
	return *text >= '0' && *text <= '9' && *end == '\0' && *ret_node >= 1 &&
	       *ret_node <= PETAL_MEMBER_NODE_MAX;
}

/* -1 to go on, or the exit code. */
static int read_options(int argc, char **argv, struct replace *r)
{
	static const struct option options[] = {
		{ "dir", required_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	*r = (struct replace){ .dir = CLI_DIR_DEFAULT };
	optind = 1;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'd') {
			r->dir = optarg;
		} else if (option == 'h') {
			usage(stdout);
			return 0;
		} else {
			return 2;
		}
	}
	if (argc - optind == 2 && read_node(argv[optind], &r->from) &&
	    read_node(argv[optind + 1], &r->to) && r->from != r->to)
		return -1;
	fputs("petal replace: expected two different nodes' numbers, the old "
	      "one and the new one\n",
	      stderr);
	return 2;
}

static const char *name_of(const json_t *ring)
{
	return json_string_value(json_object_get(ring, "name"));
}

/* The state of a member, or NULL. */
static const char *state_of(const json_t *ring, json_int_t node)
{
	const json_t *member;
	size_t i;

	json_array_foreach (json_object_get(ring, "members"), i, member) {
		if (json_integer_value(json_object_get(member, "node")) == node)
			return json_string_value(
				json_object_get(member, "state"));
	}
	return NULL;
}

static bool is_primary(const json_t *ring)
{
	const char *role = json_string_value(json_object_get(ring, "role"));

	return role != NULL && strcmp(role, "primary") == 0;
}

static int request(struct replace *r, const char *name)
{
	json_t *object = json_pack("{s:s, s:s, s:I, s:I}", "op", "ring-replace",
				   "name", name, "from", r->from, "to", r->to);
	json_t *answer = NULL;
	int err = petal_node_request(&r->node, object, NULL, 0, &answer);

	json_decref(object);
	if (err == 0)
		json_decref(answer);
	else
		fprintf(stderr, "petal: ring '%s': %s\n", name,
			r->node.error[0] != '\0' ? r->node.error
						 : petal_strerror(err));
	return err;
}

/* Of one ring: 1 when the new member is in, 0 not yet. */
static int is_in(struct replace *r, const char *name, int64_t *ret_epoch)
{
	json_t *answer, *ring;
	const char *state;
	int in = 0;
	size_t i;
	int err = petal_ring_list(&r->node, &answer);

	if (err < 0)
		return err;
	json_array_foreach (json_object_get(answer, "rings"), i, ring) {
		if (name_of(ring) == NULL || strcmp(name_of(ring), name) != 0)
			continue;
		state = state_of(ring, r->to);
		*ret_epoch = json_integer_value(json_object_get(ring, "epoch"));
		in = state != NULL && strcmp(state, "in") == 0;
	}
	json_decref(answer);
	return in;
}

static int await(struct replace *r, const char *name)
{
	uint64_t end_ns = petal_clock_now_ns() + WAIT_NS;
	int64_t epoch = 0;
	int in = 0;

	while (in == 0 && petal_clock_now_ns() < end_ns) {
		usleep(LOOK_US);
		in = is_in(r, name, &epoch);
	}
	if (in == 1) {
		printf("ring %s: node %" JSON_INTEGER_FORMAT
		       " is in, instead of node %" JSON_INTEGER_FORMAT
		       ", since epoch %" PRId64 "\n",
		       name, r->to, r->from, epoch);
		return 0;
	}
	fprintf(stderr,
		"petal: ring '%s': the new member is not in after %u s; petald "
		"goes on with it or has said why not, and petal rings shows "
		"which\n",
		name, (unsigned)(WAIT_NS / PETAL_S(1)));
	return 1;
}

/* The exit code. */
static int replace_in(struct replace *r, const json_t *ring)
{
	if (!is_primary(ring)) {
		fprintf(stderr,
			"petal: ring '%s': its primary is another node; ask "
			"that one\n",
			name_of(ring));
		return 1;
	}
	return request(r, name_of(ring)) < 0 ? 1 : await(r, name_of(ring));
}

static int replace_all(struct replace *r)
{
	json_t *answer, *ring;
	unsigned met = 0;
	int code = 0;
	size_t i;
	int err = petal_ring_list(&r->node, &answer);

	if (err < 0) {
		fprintf(stderr, "petal: petald does not answer: %s\n",
			petal_strerror(err));
		return 1;
	}
	json_array_foreach (json_object_get(answer, "rings"), i, ring) {
		if (name_of(ring) == NULL || state_of(ring, r->from) == NULL)
			continue;
		met++;
		if (replace_in(r, ring) != 0)
			code = 1;
	}
	json_decref(answer);
	if (met == 0)
		printf("node %" JSON_INTEGER_FORMAT " is a member of no ring\n",
		       r->from);
	return code;
}

int cli_replace(int argc, char **argv)
{
	struct replace r;
	int code = read_options(argc, argv, &r);
	int err;

	if (code >= 0)
		return code;
	err = petal_node_attach(r.dir, &r.node);
	if (err < 0) {
		fprintf(stderr,
			"petal: no petald answers in '%s' (--dir names another "
			"directory): %s\n",
			r.dir, petal_strerror(err));
		return 1;
	}
	code = replace_all(&r);
	petal_node_detach(&r.node);
	return code;
}
