/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/cli/cli.h"
#include "fabric/signals.h"

struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *what; /* NULL: petal starts it itself */
};

static const struct command commands[] = {
	{ "status", cli_status, "how a node sees the fabric (the default)" },
	{ "rings", cli_rings, "the rings: members, levels, queues" },
	{ "replace", cli_replace, "another node instead of one that is gone" },
	{ "recover", cli_recover,
	  "what a ring waits for that lost its memory" },
	{ "probe", cli_probe, "what a provider of libfabric keeps, tried" },
	{ "demo", cli_demo, "three petals, real records, two kills, a proof" },
	{ "bench", cli_bench, "what a message costs, beside floors and peers" },
	{ "demo-source", cli_demo_source, NULL },
	{ "demo-worker", cli_demo_worker, NULL },
	{ "demo-clerk", cli_demo_clerk, NULL },
	{ "demo-supervisor", cli_demo_supervisor, NULL },
};

static void usage(FILE *to)
{
	fputs("Usage: petal [COMMAND] [OPTION]...\n\n", to);
	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (commands[i].what != NULL)
			fprintf(to, "  %-10s %s\n", commands[i].name,
				commands[i].what);
	}
	fputs("\n  petal COMMAND --help says more; so does petal(1).\n", to);
}

static int run(const char *name, int argc, char **argv)
{
	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return commands[i].run(argc, argv);
	}
	fprintf(stderr,
		"petal: there is no command '%s'; petal --help lists "
		"them\n",
		name);
	return 2;
}

static int choose(int argc, char **argv)
{
	if (argc < 2 || (argv[1][0] == '-' && strcmp(argv[1], "--help") != 0 &&
			 strcmp(argv[1], "--version") != 0))
		return run("status", argc, argv);
	if (strcmp(argv[1], "--help") == 0) {
		usage(stdout);
		return 0;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("petal " PETAL_VERSION);
		return 0;
	}
	return run(argv[1], argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	int code;

	petal_signals_reset();
	if (sodium_init() < 0) {
		fputs("petal: cannot start libsodium\n", stderr);
		return 1;
	}
	code = choose(argc, argv);
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	fprintf(stderr, "petal: cannot write the answer: %s\n",
		strerrordesc_np(errno));
	return code == 0 ? 1 : code;
}
