/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/pair.h"
#include "shm/clock.h"
#include "shm/error.h"

/* A row of the usage, and of what getopt is told. */
struct line {
	const char *name;
	const char *value; /* NULL: it takes none */
	const char *help;  /* NULL: the form's */
	int letter;
	bool places;
	bool stores;
};

static const struct line lines[] = {
	{ "json", NULL, "rows as JSON, one object per line", 'j', false,
	  false },
	{ "quick", NULL, "shorter legs and 10 rounds; otherwise 20", 'q', false,
	  false },
	{ "bytes", "N", NULL, 'b', false, false },
	{ "rounds", "N", "1 to 1000", 'r', false, false },
	{ "only", "TEXT", "only the floors, and what has TEXT in its name", 'o',
	  false, false },
	{ "dir", "DIR", "where to make a temporary directory; TMPDIR, or /tmp",
	  'd', false, true },
	{ "wait", "spin|sleep", "only rows that spin, or only rows that sleep",
	  'w', true, false },
	{ "cpus", "CLIENT,SERVER",
	  "where both sides are bound; the first two allowed", 'c', true,
	  false },
	{ "one-cpu", NULL, "spin even if both sides share a cpu", '1', true,
	  false },
	{ "help", NULL, "this", 'h', false, false },
};

#define LINES (sizeof(lines) / sizeof(*lines))

static bool is_known(const struct petal_options_form *form,
		     const struct line *line)
{
	return (!line->places || form->places) &&
	       (!line->stores || form->stores);
}

static void print_usage(const struct petal_options_form *form)
{
	printf("usage: %s [OPTION...]\n", program_invocation_short_name);
	for (size_t i = 0; i < LINES; i++) {
		const struct line *line = &lines[i];
		char text[40];

		if (!is_known(form, line))
			continue;
		snprintf(text, sizeof(text), "--%s%s%s", line->name,
			 line->value ? " " : "",
			 line->value ? line->value : "");
		printf("  %-20s  %s\n", text,
		       line->help ? line->help : form->bytes_help);
	}
}

static int complain(const char *what, const char *value)
{
	fprintf(stderr, "%s: %s '%s' (--help explains)\n",
		program_invocation_short_name, what, value);
	return -EINVAL;
}

/* Digits only: strtoull alone would take spaces, signs and leftovers. */
static int parse_count(const char *text, uint64_t max, uint64_t *ret_value)
{
	char *end;
	unsigned long long value;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno != 0 || *end != '\0' || value > max)
		return -EINVAL;
	*ret_value = value;
	return 0;
}

static int parse_positive(const char *text, uint64_t max, uint64_t *ret_value)
{
	uint64_t value;
	int err = parse_count(text, max, &value);

	if (err < 0 || value == 0)
		return -EINVAL;
	*ret_value = value;
	return 0;
}

static int parse_cpus(struct petal_options *options, const char *text)
{
	char first[16];
	const char *comma = strchr(text, ',');
	uint64_t client;
	uint64_t server;

	if (!comma || comma - text >= (ptrdiff_t)sizeof(first))
		return -EINVAL;
	memcpy(first, text, (size_t)(comma - text));
	first[comma - text] = '\0';
	if (parse_count(first, 65535, &client) < 0 ||
	    parse_count(comma + 1, 65535, &server) < 0)
		return -EINVAL;
	if (!petal_pair_may_use((int)client) ||
	    !petal_pair_may_use((int)server))
		return -EINVAL;
	options->cpus[0] = (int)client;
	options->cpus[1] = (int)server;
	return 0;
}

static int parse_wait(struct petal_options *options, const char *text)
{
	options->spin = strcmp(text, "spin") == 0;
	options->sleep = strcmp(text, "sleep") == 0;
	return options->spin || options->sleep ? 0 : -EINVAL;
}

static int parse_value(const struct petal_options_form *form,
		       struct petal_options *options, int letter,
		       const char *value)
{
	uint64_t rounds;

	switch (letter) {
	case 'b':
		if (parse_positive(value, form->bytes_max, &options->bytes) < 0)
			return complain("--bytes cannot be", value);
		return 0;
	case 'r':
		if (parse_positive(value, PETAL_OPTIONS_ROUNDS_MAX, &rounds) <
		    0)
			return complain("--rounds cannot be", value);
		options->rounds = (unsigned)rounds;
		return 0;
	case 'w':
		if (parse_wait(options, value) < 0)
			return complain("--wait cannot be", value);
		return 0;
	case 'c':
		if (parse_cpus(options, value) < 0)
			return complain("--cpus cannot be", value);
		return 0;
	case 'd':
		options->dir = value;
		return 0;
	default:
		options->only = value;
		return 0;
	}
}

static int parse_one(const struct petal_options_form *form,
		     struct petal_options *options, int letter)
{
	switch (letter) {
	case 'h':
		print_usage(form);
		return 1;
	case 'j':
		options->json = true;
		return 0;
	case 'q':
		options->quick = true;
		return 0;
	case '1':
		options->crowd = true;
		return 0;
	default:
		return parse_value(form, options, letter, optarg);
	}
}

static int parse_all(const struct petal_options_form *form,
		     struct petal_options *options, int argc, char **argv)
{
	struct option known[LINES + 1] = { 0 };
	size_t count = 0;
	int letter;

	for (size_t i = 0; i < LINES; i++)
		if (is_known(form, &lines[i]))
			known[count++] = (struct option){
				.name = lines[i].name,
				.has_arg = lines[i].value != NULL,
				.val = lines[i].letter,
			};
	while ((letter = getopt_long(argc, argv, ":", known, NULL)) != -1) {
		int err;

		if (letter == '?')
			return complain("there is no option", argv[optind - 1]);
		if (letter == ':')
			return complain("a value is missing after",
					argv[optind - 1]);
		err = parse_one(form, options, letter);
		if (err != 0)
			return err;
	}
	if (optind < argc)
		return complain("there is nothing to do with", argv[optind]);
	return 0;
}

int petal_options_parse(const struct petal_options_form *form, int argc,
			char **argv, struct petal_options *ret_options)
{
	struct petal_options options = { .sleep = true, .spin = true };
	int err = form->places ? petal_pair_cpus(options.cpus) : 0;

	if (err < 0)
		return complain("the CPUs cannot be read:",
				petal_strerror(err));
	err = parse_all(form, &options, argc, argv);
	if (err != 0)
		return err;
	options.leg_ns = options.quick ? PETAL_MS(40) : PETAL_MS(250);
	if (options.rounds == 0)
		options.rounds = options.quick ? 10 : 20;
	*ret_options = options;
	return 0;
}

bool petal_options_want(const char *only, const char *impl)
{
	return !only || strstr(impl, only);
}
