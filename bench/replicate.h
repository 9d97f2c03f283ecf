/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_REPLICATE_H
#define PETAL_BENCH_REPLICATE_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/nest.h"

/**
 * DOC: replicate - what keeps records three times, behind the same calls
 *
 * A leg is: begin(); post() as many as the window holds; then, until the leg's
 * time is over, await() some and post() as many again; await() the rest; end().
 * Records are answered in the order in which they were posted. The caller is
 * the source, and one thread; all else are processes in the nest.
 */

#define REPLICATE_LEVELS 4u
#define REPLICATE_WINDOW_MAX 256u
#define REPLICATE_BYTES_MAX (UINT64_C(1) << 20)

/* Long enough for a start on a busy machine. */
#define REPLICATE_START_S 60
/* An answer that is this late does not come. */
#define REPLICATE_ANSWER_S 10

enum replicate_level {
	REPLICATE_MEM2,
	REPLICATE_MEM3,
	REPLICATE_DISK2,
	REPLICATE_DISK3,
};

/**
 * struct replicate_leg - what is measured next
 * @level: what an answer promises
 * @window: records on their way at most; 1 to REPLICATE_WINDOW_MAX
 * @bytes: of a record
 */
struct replicate_leg {
	enum replicate_level level;
	unsigned window;
	uint64_t bytes;
};

/**
 * struct replicate_system - one of them
 * @impl: its name in the rows
 * @package: the Debian package it comes from; NULL: none
 * @levels: bit i: it promises level i
 * @window: the only window it serves; 0: any
 * @large: also takes records of 1 MiB
 * @spin: its processes poll
 * @peer: something that a user could take instead of us
 * @floor: what the machine can do at all
 * @remark: ends the notes of its rows
 * @version: written by @open; of what runs
 * @reason: written by a failed @open
 * @first: its first process in the nest, written by the caller
 * @count: how many there are
 * @fault: -errno once it is broken
 * @open: start it; -ENOENT when @package is not installed
 * @begin: the next leg; everything before it was answered
 * @post: one more record, its payload made from @sequence (payload.h)
 * @await: until at least @least more are answered; returns how many were
 * @end: wait until nothing of the leg is under way any more; may be NULL
 * @close: let go; the processes end with the nest. Also after a failed @open
 */
struct replicate_system {
	const char *impl;
	const char *package;
	unsigned levels;
	unsigned window;
	bool large;
	bool spin;
	bool peer;
	bool floor;
	const char *remark;
	char version[96];
	char reason[256];
	unsigned first;
	unsigned count;
	int fault;
	int (*open)(struct replicate_system *system, struct petal_nest *nest);
	int (*begin)(struct replicate_system *system,
		     const struct replicate_leg *leg);
	int (*post)(struct replicate_system *system, uint64_t sequence);
	int (*await)(struct replicate_system *system, unsigned least);
	int (*end)(struct replicate_system *system);
	void (*close)(struct replicate_system *system);
};

extern struct replicate_system replicate_star_sleeping;
extern struct replicate_system replicate_star_spinning;
extern struct replicate_system replicate_star_single; /* one target only */
extern struct replicate_system replicate_device;      /* one file */
extern struct replicate_system replicate_devices;     /* three at a time */
extern struct replicate_system replicate_petal;
extern struct replicate_system replicate_redis;
extern struct replicate_system replicate_redis_aof;
extern struct replicate_system replicate_nats;
extern struct replicate_system replicate_etcd;
extern struct replicate_system replicate_rabbit;

/**
 * replicate_petal_batch() - how many records ours put into one journal batch
 *
 * Of the last leg at a disk level; 1 before there was one.
 */
double replicate_petal_batch(void);

#endif
