/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_HISTOGRAM_H
#define PETAL_SHM_HISTOGRAM_H

#include <stdint.h>

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
 */

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

#ifdef __cplusplus
}
#endif

#endif
