/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/cli/demo.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "fabric/cli/cli.h"
#include "shm/clock.h"

static struct demo the_demo;

int demo_fail(struct demo *demo, const char *format, ...)
{
	va_list args;

	if (demo->error[0] != '\0')
		return -1;
	va_start(args, format);
	vsnprintf(demo->error, sizeof(demo->error), format, args);
	va_end(args);
	return -1;
}

bool demo_is_interrupted(struct demo *demo)
{
	struct signalfd_siginfo info;

	if (read(demo->signal_fd, &info, sizeof(info)) == sizeof(info))
		demo->interrupted = true;
	return demo->interrupted;
}

void demo_pause(struct demo *demo, int fd, uint64_t timeout_ns)
{
	struct timespec timeout = {
		.tv_sec = (time_t)(timeout_ns / PETAL_S(1)),
		.tv_nsec = (long)(timeout_ns % PETAL_S(1)),
	};
	struct pollfd fds[2] = {
		{ .fd = demo->interrupted ? -1 : demo->signal_fd,
		  .events = POLLIN },
		{ .fd = fd, .events = POLLIN },
	};

	ppoll(fds, 2, &timeout, NULL);
}

void demo_progress(const struct demo *demo, const char *format, ...)
{
	va_list args;

	if (demo->options.json || !isatty(STDERR_FILENO))
		return;
	fputs("\r\033[K", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
}

static void end_progress(const struct demo *demo)
{
	if (!demo->options.json && isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

static void usage(FILE *to)
{
	fputs("Usage: petal demo [OPTION]...\n"
	      "\n"
	      "Three petals on this machine, real records through leased "
	      "queues, a worker and a\n"
	      "petal killed in the middle, and the proof that nothing was lost "
	      "or counted twice.\n"
	      "\n"
	      "  --input FILE      records separated by empty lines; - for "
	      "standard input\n"
	      "                    (default: apt-cache dumpavail)\n"
	      "  --level LEVEL     none, local, mem2 (default), mem3, disk2 or "
	      "disk3\n"
	      "  --workers N       1 to 32 (default 4)\n"
	      "  --provider NAME   libfabric provider (default tcp)\n"
	      "  --dir DIR         keep everything there; new or empty\n"
	      "  --kill-seed N     kill at other moments\n"
	      "  --no-kill         kill nobody\n"
	      "  --no-prices       leave the price list out\n"
	      "  --json            one object on stdout\n",
	      to);
}

static int bad(const char *option, const char *value, const char *expected)
{
	fprintf(stderr, "petal demo: --%s is '%s', expected %s\n", option,
		value, expected);
	return 2;
}

static bool read_number(const char *text, uint64_t least, uint64_t most,
			uint64_t *ret_number)
{
	char *end;

	errno = 0;
	*ret_number = strtoull(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 &&
	       *ret_number >= least && *ret_number <= most;
}

enum {
	OPT_INPUT = 256,
	OPT_LEVEL,
	OPT_WORKERS,
	OPT_PROVIDER,
	OPT_DIR,
	OPT_SEED,
	OPT_NO_KILL,
	OPT_NO_PRICES,
	OPT_JSON,
	OPT_HELP
};

/* -1 to go on, or the exit code. */
static int read_option(struct demo_options *o, int option)
{
	uint64_t number;

	switch (option) {
	case OPT_INPUT:
		o->input = optarg;
		return -1;
	case OPT_LEVEL:
		return petal_level_parse(optarg, &o->level) == 0
			       ? -1
			       : bad("level", optarg,
				     "none, local, mem2, mem3, disk2 or disk3");
	case OPT_WORKERS:
		if (!read_number(optarg, 1, DEMO_WORKERS_MAX, &number))
			return bad("workers", optarg, "a number from 1 to 32");
		o->workers = (unsigned)number;
		return -1;
	case OPT_PROVIDER:
		o->provider = optarg;
		return -1;
	case OPT_DIR:
		o->dir = optarg;
		return -1;
	case OPT_SEED:
		if (!read_number(optarg, 1, UINT64_MAX, &o->kill_seed))
			return bad("kill-seed", optarg, "a number from 1 up");
		return -1;
	case OPT_NO_KILL:
		o->kill = false;
		return -1;
	case OPT_NO_PRICES:
		o->prices = false;
		return -1;
	case OPT_JSON:
		o->json = true;
		return -1;
	case OPT_HELP:
		usage(stdout);
		return 0;
	default:
		return 2;
	}
}

static int read_options(int argc, char **argv, struct demo_options *o)
{
	static const struct option options[] = {
		{ "input", required_argument, NULL, OPT_INPUT },
		{ "level", required_argument, NULL, OPT_LEVEL },
		{ "workers", required_argument, NULL, OPT_WORKERS },
		{ "provider", required_argument, NULL, OPT_PROVIDER },
		{ "dir", required_argument, NULL, OPT_DIR },
		{ "kill-seed", required_argument, NULL, OPT_SEED },
		{ "no-kill", no_argument, NULL, OPT_NO_KILL },
		{ "no-prices", no_argument, NULL, OPT_NO_PRICES },
		{ "json", no_argument, NULL, OPT_JSON },
		{ "help", no_argument, NULL, OPT_HELP },
		{ 0 },
	};
	int option, code = -1;

	*o = (struct demo_options){ .provider = "tcp",
				    .level = PETAL_LEVEL_MEM2,
				    .workers = 4,
				    .kill = true,
				    .prices = true };
	while (code < 0 &&
	       (option = getopt_long(argc, argv, "", options, NULL)) != -1)
		code = read_option(o, option);
	if (code < 0 && optind != argc)
		return bad("input", argv[optind], "to be named by --input");
	return code;
}

/* Where we are, and the daemon that was built or installed with us. */
static int find_programs(struct demo *demo)
{
	ssize_t n =
		readlink("/proc/self/exe", demo->self, sizeof(demo->self) - 16);
	char *slash;

	if (n <= 0)
		return demo_fail(demo, "cannot find this program in /proc");
	demo->self[n] = '\0';
	strcpy(demo->petald, demo->self);
	slash = strrchr(demo->petald, '/');
	strcpy(slash + 1, "petald");
	if (access(demo->petald, X_OK) < 0)
		return demo_fail(demo, "there is no petald beside '%s'",
				 demo->self);
	return 0;
}

static int open_signals(struct demo *demo)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	demo->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return demo->signal_fd < 0
		       ? demo_fail(demo, "cannot listen for signals: %s",
				   strerrordesc_np(errno))
		       : 0;
}

static int run(struct demo *demo)
{
	if (find_programs(demo) < 0 || open_signals(demo) < 0 ||
	    demo_dir_open(demo) < 0 || demo_input_open(demo) < 0 ||
	    demo_petals_open(demo) < 0 || demo_job_run(demo) < 0)
		return -1;
	return demo->options.prices ? demo_prices_measure(demo) : 0;
}

static int finish(struct demo *demo, int outcome)
{
	int code = 1;

	end_progress(demo);
	if (demo->interrupted)
		fputs("petal demo: interrupted\n", stderr);
	else if (outcome < 0)
		fprintf(stderr, "petal demo: %s\n", demo->error);
	else
		code = demo_report(demo);
	json_decref(demo->census);
	demo_input_close(demo);
	return code;
}

int cli_demo(int argc, char **argv)
{
	struct demo *demo = &the_demo;
	int code, outcome;

	code = read_options(argc, argv, &demo->options);
	if (code >= 0)
		return code;
	demo->dir_lock = demo->credit_fd = demo->keeper_fd = -1;
	outcome = run(demo);
	if (demo->job_supervisor != NULL)
		demo_job_close(demo);
	demo_petals_close(demo);
	demo->kept = outcome == 0;
	demo_dir_close(demo);
	return finish(demo, outcome);
}
