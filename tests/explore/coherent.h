/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_EXPLORE_COHERENT_H
#define PETAL_TESTS_EXPLORE_COHERENT_H

/*
 * shm/cache.h where there is nothing to flush: what the explorer models is
 * coherent memory, and it knows no lines. Set as PETAL_CACHE_HOOKS. So it shows
 * that the orders of a far ring hold by themselves.
 */

#include <stdint.h>

static inline int petal_cache_check(void)
{
	return 0;
}

static inline void petal_cache_writeback(const void *address, uint64_t bytes)
{
	(void)address, (void)bytes;
}

static inline void petal_cache_invalidate(const void *address, uint64_t bytes)
{
	(void)address, (void)bytes;
}

static inline void petal_cache_fence(void)
{
}

#endif
