/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_CONTEST_PRIVATE_H
#define PETAL_BENCH_CONTEST_PRIVATE_H

#include "bench/contest.h"
#include "bench/ratios.h"
#include "bench/row.h"
#include "shm/histogram.h"

/**
 * DOC: contest_private - what contest.c measures and contest_rows.c prints
 */

/* A contender's results, for one way of waiting. */
struct contest_entry {
	struct petal_contender *who;
	struct petal_histogram *total;
	struct petal_ratios ratios; /* of p50 */
	unsigned rounds;            /* that it finished */
	uint64_t trips;             /* over both ways of waiting */
	uint64_t wall_ns;
	uint64_t cpu_ns;
	int fault;
};

struct contest_run {
	const struct petal_contest *contest;
	struct contest_entry floors[2]; /* by spin */
	struct contest_entry *entries;
	size_t count;
	struct petal_histogram leg;
	struct petal_row_sink sink;
	uint64_t clock_ns;   /* what reading the clock adds to a sample */
	const char *culprit; /* whom to name when the run fails */
	int fault;           /* of a contender that broke on the way */
};

/**
 * contest_rows_print() - the rows of the floor and of all contenders
 * @spin: of the rounds in which they spun
 *
 * Sorts the ratios. Return: 0, or what the output said.
 */
int contest_rows_print(struct contest_run *run, bool spin);

#endif
