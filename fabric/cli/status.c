/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "fabric/cli/cli.h"
#include "fabric/node.h"
#include "shm/error.h"

struct look {
	const char *dir;
	bool json;
};

/* -1 to go on, or the exit code. */
static int read_look(int argc, char **argv, const char *command,
		     struct look *look)
{
	static const struct option options[] = {
		{ "dir", required_argument, NULL, 'd' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	*look = (struct look){ .dir = CLI_DIR_DEFAULT };
	optind = 1;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'd') {
			look->dir = optarg;
		} else if (option == 'j') {
			look->json = true;
		} else if (option == 'h') {
			printf("Usage: petal %s [--dir DIR] [--json]\n\n"
			       "  --dir DIR   of the node's configuration "
			       "(default " CLI_DIR_DEFAULT ")\n",
			       command);
			return 0;
		} else {
			return 2;
		}
	}
	if (optind == argc)
		return -1;
	fprintf(stderr, "petal %s: '%s' is not expected\n", command,
		argv[optind]);
	return 2;
}

static int ask(const struct look *look,
	       int (*question)(struct petal_node *, struct json_t **),
	       json_t **ret_answer)
{
	struct petal_node node;
	int err = petal_node_attach(look->dir, &node);

	if (err == -ENOENT || err == -ECONNREFUSED) {
		fprintf(stderr,
			"petal: no petald runs in '%s' (--dir names another "
			"directory)\n",
			look->dir);
		return 1;
	}
	if (err == 0) {
		err = question(&node, ret_answer);
		petal_node_detach(&node);
	}
	if (err < 0)
		fprintf(stderr, "petal: petald in '%s' does not answer: %s\n",
			look->dir, petal_strerror(err));
	return err < 0 ? 1 : 0;
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value == NULL ? "?" : value;
}

static int64_t number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static bool ring_is_whole(const json_t *ring)
{
	const json_t *member;
	size_t i;

	json_array_foreach (json_object_get(ring, "members"), i, member) {
		if (strcmp(text(member, "state"), "away") == 0)
			return false;
	}
	return strcmp(text(ring, "role"), "lost") != 0 &&
	       strcmp(text(ring, "state"), "open") == 0;
}

/* The exit code, whatever the shape of the answer: 1 when something is wrong. */
static int judge(const json_t *answer)
{
	const json_t *journal = json_object_get(answer, "journal");
	const json_t *line;
	size_t i;

	json_array_foreach (json_object_get(answer, "nodes"), i, line) {
		if (!json_is_true(json_object_get(line, "up")))
			return 1;
	}
	json_array_foreach (json_object_get(answer, "rings"), i, line) {
		if (!ring_is_whole(line))
			return 1;
	}
	return json_is_true(json_object_get(journal, "frozen")) ? 1 : 0;
}

static void print_json(json_t *answer)
{
	json_object_del(answer, "ok");
	json_object_del(answer, "id");
	json_dumpf(answer, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	putchar('\n');
}

/* Worst first. */
static void print_nodes(const json_t *nodes)
{
	size_t i;
	json_t *node;

	printf("%-6s %-12s %-16s %-24s %s\n", "node", "name", "domain",
	       "address", "state");
	for (int up = 0; up <= 1; up++) {
		json_array_foreach (nodes, i, node) {
			bool is_up = json_is_true(json_object_get(node, "up"));

			if (is_up != (up == 1))
				continue;
			printf("%-6" PRId64 " %-12s %-16s %-24s %s\n",
			       number(node, "node"), text(node, "name"),
			       text(node, "domain"), text(node, "address"),
			       is_up ? "up" : "AWAY");
		}
	}
}

static void print_journal(const json_t *journal)
{
	printf("\njournal  %s%s, %" PRId64 " of %" PRId64
	       " MiB in use, %" PRId64 " batches%s\n",
	       text(journal, "engine"),
	       json_is_true(json_object_get(journal, "direct"))
		       ? ""
		       : " (through the page cache)",
	       number(journal, "used_bytes") >> 20,
	       number(journal, "capacity_bytes") >> 20,
	       number(journal, "batches"),
	       json_is_true(json_object_get(journal, "frozen"))
		       ? ", FROZEN after a write error"
		       : "");
}

static void print_members(const json_t *ring)
{
	json_t *member;
	size_t i;

	json_array_foreach (json_object_get(ring, "members"), i, member)
		printf("%s%" PRId64 " %s", i == 0 ? "" : ", ",
		       number(member, "node"), text(member, "state"));
	putchar('\n');
}

static void print_queues(const json_t *ring)
{
	json_t *queue;
	size_t i;

	json_array_foreach (json_object_get(ring, "queues"), i, queue)
		printf("  %-18s %12" PRId64 " %10" PRId64 " %8" PRId64
		       " %12" PRId64 " %12" PRId64 "\n",
		       text(queue, "name"), number(queue, "enqueued"),
		       number(queue, "ready"), number(queue, "leased"),
		       number(queue, "done"), number(queue, "redelivered"));
}

static const char *role_words(const char *role)
{
	if (strcmp(role, "primary") == 0)
		return "we are its primary";
	if (strcmp(role, "backup") == 0)
		return "we are a backup";
	if (strcmp(role, "heir") == 0)
		return "its primary was lost, and we are to follow";
	if (strcmp(role, "lost") == 0)
		return "CLOSED, for its primary was here and lost its memory";
	return "we keep no copy";
}

static void print_loss(const json_t *loss)
{
	if (loss != NULL)
		printf("  recovered from disks in epoch %" PRId64
		       ": records of before from lsn %" PRId64
		       " on may be lost\n",
		       number(loss, "epoch"), number(loss, "lsn"));
}

static void print_ring(const json_t *ring)
{
	printf("\nring %s: epoch %" PRId64 ", %" PRId64 " KiB, %s, members ",
	       text(ring, "name"), number(ring, "epoch"),
	       number(ring, "data_bytes") >> 10,
	       role_words(text(ring, "role")));
	print_members(ring);
	print_loss(json_object_get(ring, "loss"));
	if (json_array_size(json_object_get(ring, "queues")) > 0) {
		printf("  %-18s %12s %10s %8s %12s %12s\n", "queue", "enqueued",
		       "ready", "leased", "done", "redelivered");
		print_queues(ring);
	}
}

static void print_rings(const json_t *rings)
{
	json_t *ring;
	size_t i;

	json_array_foreach (rings, i, ring)
		print_ring(ring);
	if (json_array_size(rings) == 0)
		puts("\nno rings");
}

int cli_status(int argc, char **argv)
{
	struct look look;
	json_t *answer;
	int code = read_look(argc, argv, "status", &look);

	if (code >= 0)
		return code;
	code = ask(&look, petal_node_status, &answer);
	if (code != 0)
		return code;
	code = judge(answer);
	if (look.json) {
		print_json(answer);
	} else {
		print_nodes(json_object_get(answer, "nodes"));
		print_journal(json_object_get(answer, "journal"));
		print_rings(json_object_get(answer, "rings"));
	}
	json_decref(answer);
	return code;
}

int cli_rings(int argc, char **argv)
{
	struct look look;
	json_t *answer;
	int code = read_look(argc, argv, "rings", &look);

	if (code >= 0)
		return code;
	code = ask(&look, petal_ring_list, &answer);
	if (code != 0)
		return code;
	code = judge(answer);
	if (look.json)
		print_json(answer);
	else
		print_rings(json_object_get(answer, "rings"));
	json_decref(answer);
	return code;
}
