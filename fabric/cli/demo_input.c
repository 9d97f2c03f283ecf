/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/cli/demo.h"

#define PACKAGES_MIN 1000u
#define DPKG_STATUS "/var/lib/dpkg/status"

extern char **environ;

/* Copy a descriptor into a file of ours, so that it can be read twice. */
static int spool(struct demo *demo, int from, const char *path)
{
	static char block[1 << 16];
	struct pollfd wait = { .fd = from, .events = POLLIN };
	int to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ssize_t n = 1;

	if (to < 0)
		return demo_fail(demo, "cannot write '%s': %s", path,
				 strerrordesc_np(errno));
	while (n > 0) {
		if (demo_is_interrupted(demo))
			break;
		if (poll(&wait, 1, 100) == 0)
			continue;
		n = read(from, block, sizeof(block));
		for (ssize_t done = 0; done < n;) {
			ssize_t w = write(to, block + done, (size_t)(n - done));

			if (w < 0) {
				close(to);
				return demo_fail(demo, "cannot write '%s': %s",
						 path, strerrordesc_np(errno));
			}
			done += w;
		}
	}
	close(to);
	if (demo->interrupted)
		return -1;
	return n < 0 ? demo_fail(demo, "cannot read the input: %s",
				 strerrordesc_np(errno))
		     : 0;
}

/* Put what apt knows into a file; returns 1 when there is no apt-cache. */
static int spool_apt(struct demo *demo, const char *path)
{
	char *argv[] = { (char *)"apt-cache", (char *)"dumpavail", NULL };
	posix_spawn_file_actions_t actions;
	int ends[2], err, status;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return demo_fail(demo, "no descriptor is left: %s",
				 strerrordesc_np(errno));
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	err = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	if (err != 0) {
		close(ends[0]);
		return 1;
	}
	err = spool(demo, ends[0], path);
	close(ends[0]);
	waitpid(pid, &status, 0);
	return err;
}

static int map(struct demo *demo)
{
	struct demo_input *input = &demo->input;
	int fd = open(input->path, O_RDONLY | O_CLOEXEC);
	struct stat stat;
	void *bytes;

	if (fd < 0 || fstat(fd, &stat) < 0) {
		int err = errno;

		if (fd >= 0)
			close(fd);
		return demo_fail(demo, "cannot read the input '%s': %s",
				 input->path, strerrordesc_np(err));
	}
	if (!S_ISREG(stat.st_mode) || stat.st_size == 0) {
		close(fd);
		return demo_fail(demo,
				 "the input '%s' is %s, expected a file with "
				 "records",
				 input->path,
				 stat.st_size == 0 && S_ISREG(stat.st_mode)
					 ? "empty"
					 : "no file");
	}
	bytes = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (bytes == MAP_FAILED)
		return demo_fail(demo, "cannot map the input '%s': %s",
				 input->path, strerrordesc_np(errno));
	input->bytes = bytes;
	input->length = (size_t)stat.st_size;
	return 0;
}

/* The same census by one plain loop: what the fabric's has to be equal to. */
static int count(struct demo *demo)
{
	struct demo_input *input = &demo->input;
	const char *at = input->bytes, *end = at + input->length, *stanza;
	struct stanza_result result;
	size_t length;

	if (census_open(&input->reference) < 0)
		return demo_fail(demo, "no memory is left");
	while ((stanza = stanza_next(&at, end, &length)) != NULL) {
		stanza_parse(stanza, length, &result);
		result.input_lsn = ++input->records;
		if (census_add(&input->reference, &result) != 0)
			return demo_fail(demo, "no memory is left");
		if (input->records % 10000 == 0 && demo_is_interrupted(demo))
			return -1;
	}
	if (input->records == 0)
		return demo_fail(demo, "the input '%s' has no records",
				 input->path);
	return 0;
}

static void uncount(struct demo *demo)
{
	struct demo_input *input = &demo->input;

	if (input->bytes != NULL)
		munmap((void *)input->bytes, input->length);
	input->bytes = NULL;
	input->records = 0;
	census_close(&input->reference);
}

static int open_packages(struct demo *demo)
{
	struct demo_input *input = &demo->input;
	int outcome;

	snprintf(input->path, sizeof(input->path), "%.*s/input",
		 (int)sizeof(input->path) - 8, demo->dir);
	snprintf(input->what, sizeof(input->what), "apt-cache dumpavail");
	outcome = spool_apt(demo, input->path);
	if (outcome < 0)
		return outcome;
	if (outcome == 0 && map(demo) == 0 && count(demo) == 0 &&
	    input->records >= PACKAGES_MIN)
		return 0;
	if (demo->interrupted)
		return -1;
	snprintf(input->what, sizeof(input->what),
		 DPKG_STATUS " (apt-cache dumpavail has only %" PRIu64
			     " records)",
		 input->records);
	demo->error[0] = '\0';
	uncount(demo);
	strcpy(input->path, DPKG_STATUS);
	return map(demo) < 0 ? -1 : count(demo);
}

int demo_input_open(struct demo *demo)
{
	struct demo_input *input = &demo->input;
	const char *from = demo->options.input;

	demo_progress(demo, "reading the input");
	if (from == NULL)
		return open_packages(demo);
	if (strcmp(from, "-") == 0) {
		snprintf(input->path, sizeof(input->path), "%.*s/input",
			 (int)sizeof(input->path) - 8, demo->dir);
		strcpy(input->what, "standard input");
		if (spool(demo, STDIN_FILENO, input->path) < 0)
			return -1;
	} else {
		if (realpath(from, input->path) == NULL)
			return demo_fail(demo, "cannot read the input '%s': %s",
					 from, strerrordesc_np(errno));
		snprintf(input->what, sizeof(input->what), "%.150s", from);
	}
	return map(demo) < 0 ? -1 : count(demo);
}

void demo_input_close(struct demo *demo)
{
	uncount(demo);
}
