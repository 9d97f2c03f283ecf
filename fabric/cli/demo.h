/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_CLI_DEMO_H
#define PETAL_CLI_DEMO_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "actors/port.h"
#include "actors/supervisor.h"
#include "fabric/cli/census.h"
#include "fabric/node.h"
#include "fabric/ring.h"

/**
 * DOC: demo - the main job, with every real part in place
 *
 *    demo.c           options, the order of things, the end
 *    demo_input.c     where the records come from, and the plain pass over them
 *    demo_dir.c       its directory, and those that a killed demo left
 *    demo_petals.c    three petald, and the ring
 *    demo_job.c       source, workers, clerk: start, watch, kill, end
 *    demo_roles.c     what these processes do
 *    demo_prices.c    what each level costs, beside network RPC
 *    demo_report.c    what it all came to
 *
 *    petal demo --+-- petald a, b, c
 *                 +-- source ---> queue "stanzas" --> worker x N
 *                 +-- supervisor --+-- worker x N --> queue "results" --> clerk
 *                 +-- clerk
 *
 * Every process is a child of demo or of its supervisor, and dies with it
 * (PR_SET_PDEATHSIG): kill -9 of the demo leaves no process. Shared memory is
 * memfd and goes with the last of them. The directory is found and removed by
 * the next demo, for its lock is free.
 */

#define DEMO_PETALS 3u
#define DEMO_RING "demo"
#define DEMO_QUEUE_IN "stanzas"
#define DEMO_QUEUE_OUT "results"
#define DEMO_WORKERS_MAX 32u
#define DEMO_PEERS_MAX 8u
#define DEMO_ERROR_BYTES 512u
#define DEMO_CREDIT_CHUNK 256u

struct demo_options {
	const char *input; /* NULL: the packages that apt knows */
	const char *dir;   /* NULL: a temporary one, removed at the end */
	const char *provider;
	enum petal_level level;
	unsigned workers;
	uint64_t kill_seed; /* 0: kills at a third and at a half */
	bool json;
	bool kill;
	bool prices;
};

/* The records, as they lie in a file. */
struct demo_input {
	char path[PATH_MAX];
	char what[160]; /* for people */
	const char *bytes;
	size_t length;
	uint64_t records;
	struct census reference; /* of one plain pass */
};

struct demo_petal {
	uint32_t child;
	pid_t pid;
	char name[2];
	char dir[PATH_MAX];
	char config[PATH_MAX];
	char log[PATH_MAX];
	uint16_t fabric_port;
	uint16_t registry_port;
};

struct demo_kill {
	const char *what; /* "worker", "petal" or "primary petal" */
	const char *name; /* of the petal */
	pid_t pid;
	uint64_t at_results; /* how many results there were */
};

struct demo_price {
	char name[32];
	uint64_t p50_ns;
	uint64_t p99_ns;
	char note[160];
	bool measured;
};

struct demo {
	struct demo_options options;
	struct demo_input input;
	char dir[PATH_MAX];
	int dir_lock;
	bool made_dir; /* --dir was not there before */
	bool kept;     /* the run succeeded: what --dir holds stays */
	int signal_fd;
	bool interrupted;
	char self[PATH_MAX];   /* this program */
	char petald[PATH_MAX]; /* and the daemon that belongs to it */
	struct petal_supervisor *petals_supervisor;
	struct demo_petal petals[DEMO_PETALS];
	struct petal_node node; /* of the primary, whichever that is */
	struct petal_ring ring;
	bool attached;
	bool opened;
	/* The job. */
	struct petal_supervisor *job_supervisor;
	uint32_t source, clerk, keeper;
	int credit_fd; /* how many records the source may still send */
	int keeper_fd; /* what the supervisor process says of its workers */
	pid_t workers[PETAL_LOG_OWNERS]; /* by owner number */
	uint32_t victim; /* the owner number that was asked to stop */
	unsigned worker_restarts;
	bool source_done;
	bool source_failed;
	uint64_t granted;
	char census_path[PATH_MAX];
	/* What it came to. */
	json_t *census;
	struct demo_kill kills[3];
	unsigned kill_count;
	bool worker_killed;
	bool petal_killed;
	bool petal_missed; /* and the others have noticed */
	bool primary_killed;
	uint64_t failover_ns; /* from that kill to the ring's next opening */
	/* Of the primaries before this one. */
	struct petal_queue_counts before[2];
	uint64_t redelivered;
	uint64_t stale;
	uint64_t result_records;
	uint64_t started_ns;
	uint64_t ended_ns;
	uint64_t catch_up_ns;
	struct demo_price levels[PETAL_LEVEL_COUNT];
	struct demo_price peers[DEMO_PEERS_MAX];
	unsigned peer_count;
	char error[DEMO_ERROR_BYTES];
};

/* Puts one sentence into demo->error, unless there is one, and returns -1. */
int demo_fail(struct demo *demo, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Whether somebody pressed Ctrl-C; looks without waiting. */
bool demo_is_interrupted(struct demo *demo);

/* Sleeps until an fd is readable, Ctrl-C, or the time is over. */
void demo_pause(struct demo *demo, int fd, uint64_t timeout_ns);

/* One line of progress, on a terminal only. */
void demo_progress(const struct demo *demo, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Each returns 0, or -1 with demo->error. */
int demo_input_open(struct demo *demo);
void demo_input_close(struct demo *demo);

int demo_dir_open(struct demo *demo);
void demo_dir_close(struct demo *demo);

int demo_petals_open(struct demo *demo);
int demo_petals_poll(struct demo *demo); /* one that ends is started again */
int demo_petals_whole(struct demo *demo, bool *ret_whole);
int demo_petals_follow(struct demo *demo); /* the primary was lost */
void demo_petals_close(struct demo *demo);

int demo_job_run(struct demo *demo);
void demo_job_close(struct demo *demo);

int demo_prices_measure(struct demo *demo);

/* Returns the exit code: 0 only if nothing was lost or counted twice. */
int demo_report(struct demo *demo);

#endif
