/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_COUNTERS_INL_H
#define PETAL_SHM_COUNTERS_INL_H

static inline uint64_t
petal_counters_value(const struct petal_counters *counters, uint32_t index)
{
	assert(index < counters->count);
	return petal_load(&counters->values[index], PETAL_RELAXED);
}

static inline void petal_counters_set(struct petal_counters *counters,
				      uint32_t index, uint64_t value)
{
	assert(index < counters->count);
	petal_store(&counters->values[index], value, PETAL_RELAXED);
}

static inline void petal_counters_add(struct petal_counters *counters,
				      uint32_t index, uint64_t amount)
{
	/* Nobody else writes, so load and store need not be one operation. */
	petal_counters_set(counters, index,
			   petal_counters_value(counters, index) + amount);
}

#endif
