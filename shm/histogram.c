/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/histogram.h"

#include <assert.h>
#include <string.h>

enum { LINEAR = 1 << PETAL_HISTOGRAM_BITS };

static_assert(PETAL_HISTOGRAM_BUCKETS == 7424, "the picture in the header");

/* How far the values of a power of two are shifted to number its buckets. */
static unsigned shift_of(uint64_t value)
{
	unsigned exponent = 63 - (unsigned)__builtin_clzll(value | LINEAR);

	return exponent - PETAL_HISTOGRAM_BITS;
}

static unsigned bucket_of(uint64_t value)
{
	unsigned shift = shift_of(value);

	/*
	 * value >> shift lies in [LINEAR, 2 * LINEAR), but for values under
	 * LINEAR, whose shift is 0 and which number themselves.
	 */
	return shift * LINEAR + (unsigned)(value >> shift);
}

/* The value in the middle of a bucket, rounded down. */
static uint64_t middle_of(unsigned bucket)
{
	unsigned shift;
	uint64_t low;

	if (bucket < 2 * LINEAR)
		return bucket;
	shift = bucket / LINEAR - 1;
	low = (uint64_t)(bucket % LINEAR + LINEAR) << shift;
	return low + (UINT64_C(1) << (shift - 1));
}

void petal_histogram_init(struct petal_histogram *histogram)
{
	memset(histogram, 0, sizeof(*histogram));
	histogram->min = UINT64_MAX;
}

void petal_histogram_record(struct petal_histogram *histogram, uint64_t value)
{
	histogram->bucket[bucket_of(value)]++;
	histogram->count++;
	if (value < histogram->min)
		histogram->min = value;
	if (value > histogram->max)
		histogram->max = value;
}

void petal_histogram_merge(struct petal_histogram *into,
			   const struct petal_histogram *from)
{
	for (unsigned i = 0; i < PETAL_HISTOGRAM_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
	into->count += from->count;
	if (from->min < into->min)
		into->min = from->min;
	if (from->max > into->max)
		into->max = from->max;
}

/* ceil(count * ppm / 1000000), at least 1, without leaving 64 bits. */
static uint64_t rank_of(uint64_t count, uint32_t ppm)
{
	uint64_t whole = count / 1000000 * ppm;
	uint64_t rest = (count % 1000000 * ppm + 999999) / 1000000;

	return whole + rest > 0 ? whole + rest : 1;
}

uint64_t petal_histogram_quantile(const struct petal_histogram *histogram,
				  uint32_t ppm)
{
	uint64_t rank;
	uint64_t seen = 0;
	uint64_t value = histogram->max;

	if (histogram->count == 0)
		return 0;
	rank = rank_of(histogram->count, ppm < 1000000 ? ppm : 1000000);
	/* The two ends are known exactly, whatever their buckets say. */
	if (rank == histogram->count)
		return histogram->max;
	if (rank == 1)
		return histogram->min;
	for (unsigned i = 0; i < PETAL_HISTOGRAM_BUCKETS; i++) {
		seen += histogram->bucket[i];
		if (seen >= rank) {
			value = middle_of(i);
			break;
		}
	}
	if (value < histogram->min)
		return histogram->min;
	return value < histogram->max ? value : histogram->max;
}
