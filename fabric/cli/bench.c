/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/cli/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/cli/cli.h"
#include "fabric/cli/program.h"

static const struct cli_bench_program programs[] = {
	{ "rtt", "round trip between two processes", false },
	{ "load",
	  "how late messages arrive at a quarter of the peak to 90 % of it",
	  true },
	{ "stream", "one to one throughput", false },
	{ "fanin", "many producers to one consumer", false },
	{ "fanout", "one publisher to many readers", false },
	{ "wake", "a sender and a receiver that sleeps", false },
	{ "bell", "a doorbell's price while its receiver is awake", false },
	{ "replicate", "a record kept three times, at each level", false },
	{ "rpc", "round trip through the kernel's sockets", false },
	{ "rpc_grpc", "round trip of a gRPC call", false },
};

#define PROGRAMS (sizeof(programs) / sizeof(*programs))
/* What the report hands on to each program. */
#define ARGUMENTS_MAX 16
/* No row is longer: its longest string is a note of 512 bytes. */
#define LINE_BYTES 8192

static void usage(FILE *to)
{
	fputs("Usage: petal bench NAME [OPTION]...\n"
	      "       petal bench --report DIR [NAME]... [-- OPTION...]\n\n",
	      to);
	for (size_t i = 0; i < PROGRAMS; i++) {
		char path[PATH_MAX];

		fprintf(to, "  %-9s %s%s\n", programs[i].name,
			programs[i].question,
			cli_program_find(programs[i].name, path)
				? ""
				: " (not built here)");
	}
	fputs("\n  --report runs them all, or those named, and writes tables and"
	      "\n  plots to DIR/index.html. Options such as --quick go to the"
	      "\n  programs; petal bench NAME --help lists them.\n",
	      to);
}

static const struct cli_bench_program *program_named(const char *name)
{
	for (size_t i = 0; i < PROGRAMS; i++)
		if (strcmp(programs[i].name, name) == 0)
			return &programs[i];
	return NULL;
}

/* Becomes the program; returns only when that fails. */
static int become(char **argv)
{
	char path[PATH_MAX];

	if (!program_named(argv[0]) || !cli_program_find(argv[0], path)) {
		fprintf(stderr,
			"petal: there is no bench '%s' here; petal bench "
			"lists them\n",
			argv[0]);
		return 2;
	}
	execv(path, argv);
	fprintf(stderr, "petal: cannot run %s: %s\n", path,
		strerrordesc_np(errno));
	return 1;
}

/* ---- the report ---- */

struct report {
	const char *directory;
	const struct cli_bench_program *chosen[PROGRAMS];
	size_t count;
	char *options[ARGUMENTS_MAX];
	unsigned option_count;
	bool plots_missing;
};

static int spawn(const char *path, const struct report *report, int *ret_fd,
		 pid_t *ret_pid)
{
	char *argv[ARGUMENTS_MAX + 3] = { (char *)path, (char *)"--json" };
	posix_spawn_file_actions_t actions;
	int ends[2], err;

	memcpy(argv + 2, report->options, sizeof(report->options));
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
	err = posix_spawn(ret_pid, path, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	*ret_fd = ends[0];
	if (err != 0)
		close(ends[0]);
	return -err;
}

static FILE *rows_file(const struct report *report, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s.jsonl", report->directory, name);
	return fopen(path, "we");
}

/* Keeps the lines as they come, so that a run that is cut short is not lost. */
static int rows_take(FILE *from, FILE *to, json_t *rows)
{
	char line[LINE_BYTES];

	while (fgets(line, sizeof(line), from)) {
		json_t *row = json_loads(line, 0, NULL);

		if (!row)
			return -EBADMSG;
		json_array_append_new(rows, row);
		if (fputs(line, to) < 0 || fflush(to) != 0)
			return -errno;
	}
	return 0;
}

static int run_one(const struct report *report,
		   const struct cli_bench_program *program, json_t *rows)
{
	FILE *from, *to = rows_file(report, program->name);
	int fd = -1, status, err;
	char path[PATH_MAX];
	pid_t pid;

	if (!to)
		return -errno;
	cli_program_find(program->name, path);
	err = spawn(path, report, &fd, &pid);
	if (err < 0) {
		fclose(to);
		return err;
	}
	from = fdopen(fd, "r");
	err = from ? rows_take(from, to, rows) : -errno;
	if (from)
		fclose(from);
	if (fclose(to) != 0 && err == 0)
		err = -errno;
	if (waitpid(pid, &status, 0) < 0 || status != 0)
		err = err ? err : -ECHILD;
	return err;
}

static int report_program(struct report *report, FILE *page,
			  const struct cli_bench_program *program)
{
	json_t *rows = json_array();
	int err;

	if (!rows)
		return -ENOMEM;
	fprintf(stderr, "petal: bench %s\n", program->name);
	err = run_one(report, program, rows);
	if (err == 0) {
		err = cli_bench_report_add(page, report->directory, program,
					   rows);
		report->plots_missing |= err > 0;
	}
	if (err < 0)
		fprintf(stderr, "petal: bench %s: %s\n", program->name,
			err == -ECHILD ? "the program failed"
				       : strerrordesc_np(-err));
	json_decref(rows);
	return err < 0 ? err : 0;
}

static int report_run(struct report *report)
{
	FILE *page;
	int err = 0;

	if (mkdir(report->directory, 0777) != 0 && errno != EEXIST)
		page = NULL;
	else
		page = cli_bench_report_begin(report->directory);
	if (!page) {
		fprintf(stderr, "petal: cannot write to %s: %s\n",
			report->directory, strerrordesc_np(errno));
		return 1;
	}
	for (size_t i = 0; i < report->count; i++)
		if (report_program(report, page, report->chosen[i]) < 0)
			err = 1;
	if (cli_bench_report_end(page) < 0)
		err = 1;
	if (report->plots_missing)
		fputs("petal: no plots, for there is no gnuplot (package "
		      "gnuplot-nox)\n",
		      stderr);
	printf("%s/index.html\n", report->directory);
	return err;
}

/* --report DIR [NAME]... [-- OPTION...] */
static int report_parse(struct report *report, int argc, char **argv)
{
	int i = 2;

	if (argc < 2)
		return -EINVAL;
	report->directory = argv[1];
	for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
		const struct cli_bench_program *program =
			program_named(argv[i]);

		if (!program || report->count == PROGRAMS)
			return -EINVAL;
		report->chosen[report->count++] = program;
	}
	for (i++; i < argc; i++) {
		if (report->option_count == ARGUMENTS_MAX - 1)
			return -E2BIG;
		report->options[report->option_count++] = argv[i];
	}
	for (size_t p = 0; report->count == 0 && p < PROGRAMS; p++)
		report->chosen[p] = &programs[p];
	report->count = report->count ? report->count : PROGRAMS;
	return 0;
}

/* What is not built here is left out, and said. */
static void report_trim(struct report *report)
{
	size_t kept = 0;

	for (size_t i = 0; i < report->count; i++) {
		char path[PATH_MAX];

		if (cli_program_find(report->chosen[i]->name, path))
			report->chosen[kept++] = report->chosen[i];
		else
			fprintf(stderr, "petal: bench %s is not built here\n",
				report->chosen[i]->name);
	}
	report->count = kept;
}

int cli_bench(int argc, char **argv)
{
	struct report report = { 0 };

	if (argc < 2 || strcmp(argv[1], "--help") == 0) {
		usage(stdout);
		return 0;
	}
	if (strcmp(argv[1], "--report") != 0)
		return become(argv + 1);
	if (report_parse(&report, argc - 1, argv + 1) < 0) {
		usage(stderr);
		return 2;
	}
	report_trim(&report);
	return report_run(&report);
}
