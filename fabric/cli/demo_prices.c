/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/histogram.h"
#include "fabric/cli/demo.h"
#include "fabric/cli/program.h"
#include "shm/clock.h"
#include "shm/error.h"

#define PRICE_BYTES 256u
#define PRICE_ROUNDS 400u
#define PRICE_NS PETAL_S(5) /* no level may take longer altogether */

extern char **environ;

static int send_one(struct demo *demo, enum petal_level level, void *bytes,
		    uint64_t *ret_ns)
{
	uint64_t begin_ns = petal_clock_now_ns();
	uint64_t end_ns = begin_ns + PETAL_S(10);
	struct petal_ring_ticket ticket;
	int err;

	err = petal_ring_publish(&demo->ring, 0, bytes, PRICE_BYTES, &ticket);
	if (err == 0)
		err = petal_ring_wait(&demo->ring, &ticket, level, end_ns,
				      NULL);
	*ret_ns = petal_clock_now_ns() - begin_ns;
	/* The next one starts from rest, whatever this one waited for. */
	if (err == 0)
		err = petal_ring_wait(&demo->ring, &ticket, PETAL_LEVEL_DISK3,
				      end_ns, NULL);
	return err;
}

static int measure_level(struct demo *demo, enum petal_level level,
			 struct petal_histogram *times)
{
	uint64_t begin_ns = petal_clock_now_ns();
	struct demo_price *price = &demo->levels[level];
	uint8_t bytes[PRICE_BYTES];
	uint64_t ns;
	int err;

	petal_histogram_init(times);
	for (unsigned i = 0; i < PRICE_ROUNDS; i++) {
		memset(bytes, (int)i, sizeof(bytes));
		err = send_one(demo, level, bytes, &ns);
		if (err < 0)
			return demo_fail(demo, "level %s is not reached: %s",
					 petal_level_name(level),
					 petal_strerror(err));
		petal_histogram_record(times, ns);
		if (demo_is_interrupted(demo))
			return -1;
		if (petal_clock_now_ns() - begin_ns > PRICE_NS)
			break;
	}
	snprintf(price->name, sizeof(price->name), "%s",
		 petal_level_name(level));
	price->p50_ns = petal_histogram_quantile(times, 500000);
	price->p99_ns = petal_histogram_quantile(times, 990000);
	price->measured = true;
	return 0;
}

/* Network RPC, by the programs of bench/. */

static struct demo_price *peer_named(struct demo *demo, const char *name)
{
	struct demo_price *price;

	for (unsigned i = 0; i < demo->peer_count; i++) {
		if (strcmp(demo->peers[i].name, name) == 0)
			return &demo->peers[i];
	}
	if (demo->peer_count == DEMO_PEERS_MAX)
		return NULL;
	price = &demo->peers[demo->peer_count++];
	snprintf(price->name, sizeof(price->name), "%s", name);
	return price;
}

static void take_row(struct demo *demo, const char *line)
{
	json_t *row = json_loads(line, 0, NULL);
	const char *impl = json_string_value(json_object_get(row, "impl"));
	const char *note = json_string_value(json_object_get(row, "note"));
	struct demo_price *price = NULL;

	if (impl != NULL && !json_is_true(json_object_get(row, "floor")) &&
	    strcmp(impl, "grpc-unix") != 0)
		price = peer_named(demo, impl);
	if (price != NULL) {
		price->p50_ns = (uint64_t)json_integer_value(
			json_object_get(row, "p50_ns"));
		price->p99_ns = (uint64_t)json_integer_value(
			json_object_get(row, "p99_ns"));
		price->measured =
			json_integer_value(json_object_get(row, "n")) > 0;
		snprintf(price->note, sizeof(price->note), "%.150s",
			 price->measured || note == NULL ? "" : note);
	}
	json_decref(row);
}

static int spawn(const char *program, int *ret_fd, pid_t *ret_pid)
{
	char *argv[] = { (char *)program,   (char *)"--json",
			 (char *)"--quick", (char *)"--wait",
			 (char *)"sleep",   (char *)"--bytes",
			 (char *)"256",     NULL };
	posix_spawn_file_actions_t actions;
	int ends[2], err;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	err = posix_spawn(ret_pid, program, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	*ret_fd = ends[0];
	if (err != 0)
		close(ends[0]);
	return -err;
}

static int run_peer(struct demo *demo, const char *program)
{
	char line[4096];
	int fd = -1, err, status;
	FILE *rows;
	pid_t pid;

	err = spawn(program, &fd, &pid);
	if (err < 0)
		return err;
	rows = fdopen(fd, "r");
	while (rows != NULL && fgets(line, sizeof(line), rows) != NULL)
		take_row(demo, line);
	if (rows != NULL)
		fclose(rows);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static void measure_peers(struct demo *demo, const char *name,
			  const char *const *rows, const char *missing)
{
	char path[PATH_MAX];
	int err = -ENOENT;

	if (cli_program_find(name, path))
		err = run_peer(demo, path);
	for (unsigned i = 0; rows[i] != NULL; i++) {
		struct demo_price *price = peer_named(demo, rows[i]);

		if (price == NULL || price->measured || price->note[0] != '\0')
			continue;
		snprintf(price->note, sizeof(price->note), "not run: %s",
			 err == -ENOENT ? missing : "the program failed");
	}
}

int demo_prices_measure(struct demo *demo)
{
	static const char *const sockets[] = { "af_unix", "tcp", NULL };
	static const char *const grpc[] = { "grpc-tcp", NULL };
	struct petal_histogram *times = malloc(sizeof(*times));
	int err = 0;

	if (times == NULL)
		return demo_fail(demo, "no memory is left");
	for (unsigned i = 0; err == 0 && i < PETAL_LEVEL_COUNT; i++) {
		demo_progress(demo, "measuring level %s",
			      petal_level_name((enum petal_level)i));
		err = measure_level(demo, (enum petal_level)i, times);
	}
	free(times);
	if (err < 0)
		return err;
	demo_progress(demo, "measuring AF_UNIX and TCP");
	measure_peers(demo, "rpc", sockets,
		      "this build has no programs of bench/");
	demo_progress(demo, "measuring gRPC");
	measure_peers(demo, "rpc_grpc", grpc,
		      "gRPC (libgrpc++-dev) was not there at build time");
	return demo_is_interrupted(demo) ? -1 : 0;
}
