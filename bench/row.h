/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_ROW_H
#define PETAL_BENCH_ROW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "bench/usl.h"
#include "shm/histogram.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: row - one result, as a line
 *
 * Every bench program prints the same lines: first the machine, then one row
 * per thing measured. As JSON each is one object on one line, with all keys
 * always there and always in this order, so that a reader needs no schema:
 *
 *    {"machine":{"cpu":"...","cpus":2,"kernel":"...","hugepages":true,
 *     "date":"...","commit":"..."}}
 *    {"bench":"rpc","case":"","impl":"af_unix","peer":true,"floor":false,
 *     "bytes":256,"producers":1,"consumers":1,"window":1,"wait":"sleep",
 *     "level":"none","rounds":10,"n":4000,"p50_ns":0,"p99_ns":0,"p999_ns":0,
 *     "max_ns":0,"msgs_per_s":0,"cpu_ns_per_msg":0,"floor_ratio":0,
 *     "version":"...","note":""}
 *
 * Otherwise as text, aligned, with the units in the heading. Something that
 * could not run is a row too: n is 0 and the note says why.
 *
 * Strings are bytes of UTF-8; what JSON cannot hold is escaped.
 */

/**
 * struct petal_row - one result
 * @bench: the question
 * @question: the sub-question, "" if there is none; the key "case"
 * @impl: who answered it
 * @wait: "spin" or "sleep"
 * @level: the level of the guarantee, "none" without one
 * @version: of what answered
 * @note: whatever a reader must know to judge the row; "" if nothing
 * @peer: something that a user could take instead of us
 * @floor: what the machine can do at all
 * @bytes: of payload per message; 0 when none moves
 * @producers: parties that send
 * @consumers: parties that receive
 * @window: messages in flight, or in one call
 * @rounds: in how many the samples were taken
 * @n: samples; 0 means that it did not run
 * @p50_ns: and the following: what n samples gave
 * @msgs_per_s: rate
 * @cpu_ns_per_msg: processor time of all parties together
 * @floor_ratio: this p50 over the floor's p50 of the same rounds; 0 if unknown
 */
struct petal_row {
	const char *bench;
	const char *question;
	const char *impl;
	const char *wait;
	const char *level;
	const char *version;
	const char *note;
	bool peer;
	bool floor;
	uint64_t bytes;
	unsigned producers;
	unsigned consumers;
	unsigned window;
	unsigned rounds;
	uint64_t n;
	uint64_t p50_ns;
	uint64_t p99_ns;
	uint64_t p999_ns;
	uint64_t max_ns;
	double msgs_per_s;
	double cpu_ns_per_msg;
	double floor_ratio;
};

/**
 * struct petal_row_sink - where rows go
 * @out: the stream, which stays the caller's
 * @json: one object per line, not text
 * @headed: the heading has been printed; start with false
 */
struct petal_row_sink {
	FILE *out;
	bool json;
	bool headed;
};

/**
 * petal_row_init() - a row of which nothing is known yet
 * @row: the caller's memory
 * @bench: the question
 *
 * One producer, one consumer, one message in flight, level "none", wait
 * "sleep", all other strings empty.
 */
void petal_row_init(struct petal_row *row, const char *bench);

/**
 * petal_row_take() - take n, p50, p99, p99.9 and the maximum from samples
 * @row: whose five fields are written
 * @histogram: of nanoseconds
 */
void petal_row_take(struct petal_row *row,
		    const struct petal_histogram *histogram);

/**
 * petal_row_print() - print one row and flush it
 * @sink: where to; the text heading comes before the first row
 * @row: what
 *
 * Return: 0, or -errno if the stream did not take it (-ENOSPC, -EPIPE).
 */
int petal_row_print(struct petal_row_sink *sink, const struct petal_row *row);

/**
 * petal_row_usl_print() - print how the rows of a contender scale
 * @sink: where to
 * @row: one of them
 * @points: how many of them there are
 * @usl: the law that fits them
 *
 * Return: 0, or -errno if the stream did not take it.
 */
int petal_row_usl_print(struct petal_row_sink *sink,
			const struct petal_row *row, unsigned points,
			const struct petal_usl *usl);

/**
 * petal_row_machine_print() - print the line that describes this machine
 * @sink: where to
 *
 * cpus counts those that this process may use. hugepages says whether any are
 * set aside. The date is UTC. The commit is the one of the build.
 *
 * Return: 0, or -errno if the stream did not take it.
 */
int petal_row_machine_print(struct petal_row_sink *sink);

#ifdef __cplusplus
}
#endif

#endif
