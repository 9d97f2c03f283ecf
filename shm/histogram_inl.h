/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_HISTOGRAM_INL_H
#define PETAL_SHM_HISTOGRAM_INL_H

static inline unsigned petal_histogram_bucket_of(uint64_t value)
{
	const unsigned linear = 1u << PETAL_HISTOGRAM_BITS;
	/* How far the values of its power of two are shifted. */
	unsigned shift = 63 - (unsigned)__builtin_clzll(value | linear) -
			 PETAL_HISTOGRAM_BITS;

	/*
	 * value >> shift lies in [linear, 2 * linear), but for values under
	 * linear, whose shift is 0 and which number themselves.
	 */
	return shift * linear + (unsigned)(value >> shift);
}

static inline void petal_histogram_add(struct petal_histogram_table *table,
				       uint64_t value)
{
	struct petal_u64 *bucket =
		&table->bucket[petal_histogram_bucket_of(value)];

	/* Nobody else writes, so load and store need not be one operation. */
	petal_store(bucket, petal_load(bucket, PETAL_RELAXED) + 1,
		    PETAL_RELAXED);
	if (value < petal_load(&table->min, PETAL_RELAXED))
		petal_store(&table->min, value, PETAL_RELAXED);
	if (value > petal_load(&table->max, PETAL_RELAXED))
		petal_store(&table->max, value, PETAL_RELAXED);
}

#endif
