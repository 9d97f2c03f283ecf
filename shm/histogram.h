/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_HISTOGRAM_H
#define PETAL_SHM_HISTOGRAM_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/atomic.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: histogram - every sample counted, to within 1 % of its value
 *
 * Log-linear: values below 256 have a bucket each; from there on, every power
 * of two is cut into 128 buckets of equal width. A bucket is therefore at most
 * 1/128 of its values wide, and its middle, which the quantiles report, is at
 * most 0.4 % from any sample in it.
 *
 *    value   0 .. 255    256 .. 511      512 .. 1023    ...   2^63 .. 2^64-1
 *    bucket  0 .. 255    256 .. 383      384 .. 511     ...   7296 .. 7423
 *    width   1           2               4                    2^56
 *
 * Always true: the buckets cover all of uint64_t, so no sample is clipped or
 * dropped, and the counts of the buckets add up to count. Minimum and maximum
 * are kept exactly.
 *
 * Needs libc only. Threads: one at a time per histogram; nothing is atomic.
 * Give each thread its own and merge them.
 *
 * A shared histogram is the same in memory that others may read, most usefully
 * in a segment: while its writer runs, hangs, is stopped or is dead, without
 * his help and without a store.
 *
 *    byte 0       64                  128
 *    +------------+-------------------+------------------------- --+
 *    | header     | min, max, zero    | bucket 0 | bucket 1 | ...  |
 *    | written once                   | 8 bytes each               |
 *    +------------+-------------------+------------------------- --+
 *
 * It has one writer, so a sample is three plain loads and stores at most,
 * without a locked instruction. A reader copies it into a histogram of his own,
 * which is whole however the writer was interrupted: its count is the sum of
 * the buckets that were read, and its extremes are brought into the first and
 * the last bucket that have samples.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion):
 *
 *                    format   add    attach/read
 *    format             X       X         - (1)
 *    add                X       X         -
 *    attach/read      - (1)     -         -
 *    (1) on memory that holds no histogram yet; else readers end first
 *
 * Ordering:
 *    [TABLE]  format stores the magic (release) -> attach loads it (acquire):
 *             the reader sees the name and empty buckets, or no histogram
 *    Buckets are relaxed. Each is whole; two need not be of one moment.
 *
 * Trust: a reader believes nothing; any bytes at all give an error or numbers.
 *
 * Crash: every sample that reached its bucket stays.
 */

#define PETAL_HISTOGRAM_LAYOUT 1u
#define PETAL_HISTOGRAM_NAME_BYTES 32u

enum {
	/** Each power of two is cut into 2^7 buckets. */
	PETAL_HISTOGRAM_BITS = 7,
	PETAL_HISTOGRAM_BUCKETS = (64 - PETAL_HISTOGRAM_BITS + 1)
				  << PETAL_HISTOGRAM_BITS,
};

/** The quantiles of our rows, in parts per million. */
enum {
	PETAL_HISTOGRAM_P50 = 500000,
	PETAL_HISTOGRAM_P99 = 990000,
	PETAL_HISTOGRAM_P999 = 999000,
	PETAL_HISTOGRAM_MAX = 1000000,
};

/**
 * struct petal_histogram - about 58 KiB: static or allocated, not on a stack
 * @count: samples recorded
 * @min: the smallest sample, exactly; UINT64_MAX while count is 0
 * @max: the largest sample, exactly; 0 while count is 0
 * @bucket: samples per bucket
 */
struct petal_histogram {
	uint64_t count;
	uint64_t min;
	uint64_t max;
	uint64_t bucket[PETAL_HISTOGRAM_BUCKETS];
};

/**
 * struct petal_histogram_table - a shared histogram
 * @magic: PETAL_HISTOGRAM_MAGIC, "PETALHST" in memory; stored last
 * @layout: PETAL_HISTOGRAM_LAYOUT
 * @buckets: PETAL_HISTOGRAM_BUCKETS
 * @reserved: zero
 * @name: what is measured, in which unit: "accept_ns"
 * @min: the smallest sample, UINT64_MAX before the first
 * @max: the largest sample
 * @unused: zero
 * @bucket: samples per bucket
 */
struct petal_histogram_table {
	struct petal_u64 magic;
	uint32_t layout;
	uint32_t buckets;
	uint64_t reserved[2];
	char name[PETAL_HISTOGRAM_NAME_BYTES];
	struct petal_u64 min;
	struct petal_u64 max;
	uint64_t unused[6];
	struct petal_u64 bucket[PETAL_HISTOGRAM_BUCKETS];
};

#define PETAL_HISTOGRAM_MAGIC UINT64_C(0x5453484c41544550)

static_assert(offsetof(struct petal_histogram_table, layout) == 8, "layout");
static_assert(offsetof(struct petal_histogram_table, buckets) == 12, "layout");
static_assert(offsetof(struct petal_histogram_table, name) == 32, "layout");
static_assert(offsetof(struct petal_histogram_table, min) == 64, "layout");
static_assert(offsetof(struct petal_histogram_table, max) == 72, "layout");
static_assert(offsetof(struct petal_histogram_table, bucket) == 128, "layout");
static_assert(sizeof(struct petal_histogram_table) == 59520, "layout");

/**
 * petal_histogram_init() - start with no samples
 * @histogram: the caller's memory; also empties a used one
 */
void petal_histogram_init(struct petal_histogram *histogram);

/**
 * petal_histogram_record() - count one sample
 * @histogram: where to
 * @value: any value at all, in the caller's unit
 */
void petal_histogram_record(struct petal_histogram *histogram, uint64_t value);

/**
 * petal_histogram_merge() - add the samples of another
 * @into: receives them, as if each had been recorded here
 * @from: is left as it was
 */
void petal_histogram_merge(struct petal_histogram *into,
			   const struct petal_histogram *from);

/**
 * petal_histogram_quantile() - the value that so many samples do not exceed
 * @histogram: to be read
 * @ppm: the quantile in parts per million, 0 to 1000000; more counts as that
 *
 * Nearest rank: of n samples in order it is the one at position
 * ceil(n * ppm / 1000000), and the first for ppm 0.
 *
 * Return: within 0.4 % of that sample, exact below 256, at the minimum and at
 * the maximum; 0 while there are no samples.
 */
uint64_t petal_histogram_quantile(const struct petal_histogram *histogram,
				  uint32_t ppm);

/**
 * petal_histogram_format() - lay out a shared one, without samples
 * @memory: 64-byte aligned
 * @bytes: how long it is; sizeof(struct petal_histogram_table) at least
 * @name: 1 to 31 bytes of a-z, 0-9, '.', '_' and '-'
 * @ret_table: the writer's end
 *
 * Return: 0; -EINVAL for a bad name or alignment; -ENOSPC: too few bytes.
 */
int petal_histogram_format(void *memory, uint64_t bytes, const char *name,
			   struct petal_histogram_table **ret_table);

/**
 * petal_histogram_add() - count one sample in a shared one
 * @table: the writer's end
 * @value: any value at all
 *
 * Threads: its one writer.
 */
static inline void petal_histogram_add(struct petal_histogram_table *table,
				       uint64_t value);

/**
 * petal_histogram_attach() - read someone's shared one
 * @memory: 64-byte aligned; may be mapped read-only, and may hold anything
 * @bytes: how much of it may be touched
 * @ret_table: the reader's end
 *
 * Order: acquires [TABLE].
 *
 * Return: 0; -EINVAL: none here, or not aligned; -PETAL_EVERSION;
 * -PETAL_EGEOMETRY: other buckets than ours, or more than fit.
 */
int petal_histogram_attach(const void *memory, uint64_t bytes,
			   const struct petal_histogram_table **ret_table);

/**
 * petal_histogram_name() - what it measures
 * @table: the reader's end
 * @ret_name: the name, zero-terminated
 *
 * Return: 0; -PETAL_ECORRUPT if it is not one that format would have written.
 */
int petal_histogram_name(const struct petal_histogram_table *table,
			 char ret_name[PETAL_HISTOGRAM_NAME_BYTES]);

/**
 * petal_histogram_read() - copy what it has counted so far
 * @table: the reader's end
 * @ret_histogram: a histogram of our own, for all the calls above
 */
void petal_histogram_read(const struct petal_histogram_table *table,
			  struct petal_histogram *ret_histogram);

#include "shm/histogram_inl.h"

#ifdef __cplusplus
}
#endif

#endif
