/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One petal answers, another one asks it and says what each provider keeps.
 * The rows are collected first: the worst is printed first.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <jansson.h>
#include <sodium.h>

#include "fabric/cli/cli.h"
#include "fabric/config.h"
#include "fabric/probe.h"
#include "fabric/seal.h"
#include "shm/clock.h"
#include "shm/error.h"

#define PROVIDERS_MAX 16u
#define SECONDS_DEFAULT 600
#define SECONDS_MAX 86400

/* Those that Petalith knows something about; each is tried where it is. */
static const char *const known[] = {
	"tcp", "verbs", "net", "sockets", "shm", "efa", "cxi", "opx",
};
static const char *const titles[PETAL_PROBE_CHECKS] = {
	"P1 landed", "P2 fenced", "P3 whole", "P4 again", "P5 asleep",
};

struct call {
	const char *config;
	const char *listen;
	const char *peer;
	const char *providers[PROVIDERS_MAX];
	unsigned provider_count;
	unsigned seconds;
	bool json;
};

static void usage(FILE *to)
{
	fprintf(to,
		"Usage: petal probe --config FILE --listen ADDRESS "
		"[--seconds N]\n"
		"       petal probe --config FILE [--provider NAME]... "
		"[--json] ADDRESS\n\n"
		"The first answers, on another node; the second asks it, and "
		"says what may be\n"
		"relied on between the two.\n\n"
		"  --config FILE    for the cluster's name and key\n"
		"  --listen ADDRESS where to answer, as 10.0.0.2:7301; port 0 "
		"takes a free one\n"
		"  --seconds N      answer for so long (default %d)\n"
		"  --provider NAME  try this one only, and fail if it fails; "
		"may be repeated\n"
		"  --json           one object\n",
		SECONDS_DEFAULT);
}

static int complain(const char *what, const char *expected)
{
	fprintf(stderr, "petal probe: %s, expected %s\n", what, expected);
	return 2;
}

static int read_seconds(const char *text, unsigned *ret_seconds)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end != '\0' || value < 1 ||
	    value > SECONDS_MAX) {
		fprintf(stderr,
			"petal probe: --seconds is '%s', expected 1 to %d\n",
			text, SECONDS_MAX);
		return 2;
	}
	*ret_seconds = (unsigned)value;
	return -1;
}

static int read_provider(const char *name, struct call *call)
{
	if (name[0] == '\0' || strlen(name) >= PETAL_PROBE_NAME_BYTES ||
	    call->provider_count == PROVIDERS_MAX)
		return complain("--provider is empty, too long or too often",
				"at most 16 names of 1 to 31 characters");
	call->providers[call->provider_count++] = name;
	return -1;
}

static int read_option(int option, struct call *call)
{
	switch (option) {
	case 'c':
		call->config = optarg;
		return -1;
	case 'l':
		call->listen = optarg;
		return -1;
	case 's':
		return read_seconds(optarg, &call->seconds);
	case 'p':
		return read_provider(optarg, call);
	case 'j':
		call->json = true;
		return -1;
	case 'h':
		usage(stdout);
		return 0;
	default:
		return 2;
	}
}

/* -1 to go on, or the exit code. */
static int read_call(int argc, char **argv, struct call *call)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "listen", required_argument, NULL, 'l' },
		{ "seconds", required_argument, NULL, 's' },
		{ "provider", required_argument, NULL, 'p' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option, code;

	optind = 1;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		code = read_option(option, call);
		if (code >= 0)
			return code;
	}
	if (call->config == NULL)
		return complain("there is no --config", "a petald.conf(5)");
	if ((call->listen != NULL) == (optind < argc) || optind + 1 < argc)
		return complain("one of the two sides",
				"either --listen ADDRESS or one ADDRESS to "
				"ask");
	call->peer = argv[optind];
	return -1;
}

/* The cluster's name and key, and the node's own provider. */
static int read_config(const struct call *call, struct petal_config *config,
		       struct petal_probe_options *options)
{
	char error[PETAL_CONFIG_ERROR_BYTES];
	int err = petal_config_load(call->config, config, error);

	if (err < 0) {
		fprintf(stderr, "petal probe: %s\n", error);
		return err;
	}
	err = petal_seal_key_load(config->key, options->key);
	if (err < 0) {
		fprintf(stderr, "petal probe: cannot use the key '%s': %s\n",
			config->key, petal_strerror(err));
		return err;
	}
	petal_seal_cluster_id(config->cluster, options->cluster);
	return 0;
}

/* Answering. */

static int stop_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int say_listen(const char *address, int err)
{
	const char *why = petal_strerror(err);

	if (err == -EINVAL)
		why = "expected an address and a port, as 10.0.0.2:7301";
	fprintf(stderr, "petal probe: cannot answer at '%s': %s\n", address,
		why);
	return err == -EINVAL ? 2 : 1;
}

static int answer(const struct call *call, struct petal_probe_options *options)
{
	struct petal_probe_answerer *answerer;
	int stop_fd = stop_signals();
	int err;

	if (stop_fd < 0)
		return say_listen(call->listen, -errno);
	options->listen = call->listen;
	err = petal_probe_open(options, &answerer);
	if (err == 0) {
		printf("answers at %s for %u s\n",
		       petal_probe_address(answerer), call->seconds);
		fflush(stdout);
		err = petal_probe_answer(answerer, stop_fd,
					 petal_clock_now_ns() +
						 PETAL_S(call->seconds));
		petal_probe_close(answerer);
	}
	close(stop_fd);
	return err < 0 && err != -ETIMEDOUT ? say_listen(call->listen, err) : 0;
}

/* Asking. */

static bool is_absent(const struct petal_probe_row *row)
{
	return row->status == -ENODATA || row->status == -EOPNOTSUPP;
}

static const char *absent_words(const struct petal_probe_row *row)
{
	return row->status == -ENODATA
		       ? "not here: libfabric offers none of that name for "
			 "these addresses"
		       : "not usable: it has no connections with one-sided "
			 "writes (FI_EP_MSG, FI_RMA)";
}

static bool is_good(const struct petal_probe_row *row)
{
	char why[PETAL_PROBE_WORDS_BYTES];

	return petal_probe_replicates(row, why);
}

static void print_row(const struct petal_probe_row *row)
{
	char words[PETAL_PROBE_WORDS_BYTES];

	if (is_absent(row)) {
		printf("provider %-8s %s\n", row->provider, absent_words(row));
		return;
	}
	if (petal_probe_replicates(row, words))
		printf("provider %-8s none, local, mem2, mem3, disk2, disk3\n",
		       row->provider);
	else
		printf("provider %-8s none, local; mem2, mem3, disk2 and disk3 "
		       "are REFUSED: %s\n",
		       row->provider, words);
	for (unsigned i = 0; i < PETAL_PROBE_CHECKS; i++) {
		enum petal_probe_check check = (enum petal_probe_check)i;

		petal_probe_words(row, check, words);
		printf("  %-10s %-6s  %s\n", titles[i],
		       petal_probe_passed(row, check) ? "passed" : "FAILED",
		       words);
	}
	printf("  %-10s %-6s  %s\n", "completion",
	       petal_probe_completes(row) ? "passed" : "no",
	       "may it count as the peer's word; petald asks the peer's CPU");
}

/* Refused ones first, those that are not here last. */
static void print_rows(const struct petal_probe_row *rows, unsigned count)
{
	for (unsigned rank = 0; rank < 3; rank++) {
		for (unsigned i = 0; i < count; i++) {
			unsigned own = is_absent(&rows[i]) ? 2
				       : is_good(&rows[i]) ? 1
							   : 0;

			if (own == rank)
				print_row(&rows[i]);
		}
	}
}

static json_t *check_json(const struct petal_probe_row *row,
			  enum petal_probe_check check)
{
	char words[PETAL_PROBE_WORDS_BYTES];

	petal_probe_words(row, check, words);
	return json_pack("{s:b, s:s}", "passed", petal_probe_passed(row, check),
			 "seen", words);
}

static json_t *row_json(const struct petal_probe_row *row)
{
	char why[PETAL_PROBE_WORDS_BYTES];
	bool good = petal_probe_replicates(row, why);
	json_t *object, *checks;

	if (is_absent(row))
		return json_pack("{s:s, s:b, s:[s, s], s:s}", "provider",
				 row->provider, "here", 0, "levels", "none",
				 "local", "refused", absent_words(row));
	object = json_pack("{s:s, s:b, s:[s, s], s:s?, s:b}", "provider",
			   row->provider, "here", 1, "levels", "none", "local",
			   "refused", good ? NULL : why, "completions",
			   petal_probe_completes(row));
	for (unsigned i = 0; good && i < 4; i++) {
		static const char *const more[] = { "mem2", "mem3", "disk2",
						    "disk3" };

		json_array_append_new(json_object_get(object, "levels"),
				      json_string(more[i]));
	}
	checks = json_object();
	for (unsigned i = 0; i < PETAL_PROBE_CHECKS; i++) {
		char name[] = { 'P', (char)('1' + i), '\0' };

		json_object_set_new(checks, name,
				    check_json(row, (enum petal_probe_check)i));
	}
	json_object_set_new(object, "checks", checks);
	return object;
}

static void print_json(const char *peer, const struct petal_probe_row *rows,
		       unsigned count)
{
	json_t *list = json_array();
	json_t *object;

	for (unsigned i = 0; i < count; i++)
		json_array_append_new(list, row_json(&rows[i]));
	object = json_pack("{s:s, s:o}", "peer", peer, "providers", list);
	json_dumpf(object, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(object);
}

static int say_peer(const struct call *call, int err)
{
	const char *why = petal_strerror(err);

	if (err == -EINVAL)
		why = "expected an address and a port, as 10.0.0.2:7301";
	else if (err == -ECONNREFUSED)
		why = "no petal probe --listen of this cluster and key answers "
		      "there, or the two clocks differ by more than 30 s";
	else if (err == -ESTALE)
		why = "another petal probe took our place";
	else if (err == -EPROTO)
		why = "it answers nonsense";
	else if (err == -ETIMEDOUT)
		why = "it does not answer";
	else if (err == -ECONNRESET)
		why = "it went away";
	fprintf(stderr, "petal probe: cannot ask '%s': %s\n", call->peer, why);
	return err == -EINVAL ? 2 : 1;
}

/*
 * Whether all that was asked for is good: what --provider names, or else the
 * provider of the configuration.
 */
static int judge(const struct call *call, const struct petal_config *config,
		 const struct petal_probe_row *rows, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if ((call->provider_count > 0 ||
		     strcmp(rows[i].provider, config->provider) == 0) &&
		    !is_good(&rows[i]))
			return 1;
	}
	return 0;
}

static unsigned choose(const struct call *call,
		       const struct petal_config *config,
		       const char *names[PROVIDERS_MAX])
{
	unsigned count = 0;

	if (call->provider_count > 0) {
		memcpy(names, call->providers, sizeof(call->providers));
		return call->provider_count;
	}
	names[count++] = config->provider;
	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(known[i], config->provider) != 0)
			names[count++] = known[i];
	}
	return count;
}

static int ask_all(const struct call *call, const struct petal_config *config,
		   struct petal_probe_asker *asker)
{
	struct petal_probe_row rows[PROVIDERS_MAX];
	const char *names[PROVIDERS_MAX];
	unsigned count = choose(call, config, names);
	int err;

	for (unsigned i = 0; i < count; i++) {
		if (isatty(STDERR_FILENO))
			fprintf(stderr, "petal probe: %s ...\n", names[i]);
		err = petal_probe_ask(asker, names[i], &rows[i]);
		if (err < 0)
			return say_peer(call, err);
	}
	if (call->json)
		print_json(call->peer, rows, count);
	else
		print_rows(rows, count);
	return judge(call, config, rows, count);
}

static int ask(const struct call *call, const struct petal_config *config,
	       struct petal_probe_options *options)
{
	struct petal_probe_asker *asker;
	int err, code;

	options->peer = call->peer;
	err = petal_probe_call(options, &asker);
	if (err < 0)
		return say_peer(call, err);
	code = ask_all(call, config, asker);
	petal_probe_hang_up(asker);
	return code;
}

int cli_probe(int argc, char **argv)
{
	struct call call = { .seconds = SECONDS_DEFAULT };
	struct petal_probe_options options = { 0 };
	struct petal_config config;
	int code = read_call(argc, argv, &call);

	if (code >= 0)
		return code;
	if (read_config(&call, &config, &options) < 0)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	code = call.listen != NULL ? answer(&call, &options)
				   : ask(&call, &config, &options);
	sodium_memzero(&options, sizeof(options));
	return code;
}
