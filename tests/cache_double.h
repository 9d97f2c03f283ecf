/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_CACHE_DOUBLE_H
#define PETAL_TESTS_CACHE_DOUBLE_H

/**
 * DOC: cache_double - a machine whose memory hears only of what is flushed
 *
 * For sources that are compiled with PETAL_CACHE_HOOKS set to this file. Each
 * side of a link has a range of its own, its cache: where it loads and stores.
 * Between them lies a third, the memory. A write-back copies whole lines from
 * the cache of the side to the memory, and an invalidation from the memory to
 * the cache; what was never written back, nobody else ever sees. A write-back
 * without a fence after it has not left yet, and is lost with
 * cache_double_drop().
 *
 *    struct cache_double link = { writer, reader, memory, bytes };
 *    cache_double = &link;
 *
 * Both sides run in one thread, one after the other: who calls is told by the
 * address that he gives. It is a header only, so that a test is one file.
 */

#include <stdint.h>
#include <string.h>

#define CACHE_DOUBLE_LINE 64u
#define CACHE_DOUBLE_PENDING_MAX 4096u

struct cache_double {
	unsigned char *side[2];
	unsigned char *memory;
	uint64_t bytes;
	unsigned pending_count;
	uint64_t pending[CACHE_DOUBLE_PENDING_MAX];
	unsigned char line[CACHE_DOUBLE_PENDING_MAX][CACHE_DOUBLE_LINE];
	uint64_t written_back;
	uint64_t invalidated;
	uint64_t overflows;
};

__attribute__((unused)) static struct cache_double *cache_double;

/* Whose cache it is, and where in it; 0 if it is nobody's. */
static inline int cache_double_find(const void *address, unsigned char **side,
				    uint64_t *at)
{
	for (int i = 0; cache_double && i < 2; i++) {
		uintptr_t base = (uintptr_t)cache_double->side[i];
		uintptr_t offset = (uintptr_t)address - base;

		if ((uintptr_t)address < base || offset >= cache_double->bytes)
			continue;
		*side = cache_double->side[i];
		*at = offset & ~(uint64_t)(CACHE_DOUBLE_LINE - 1);
		return 1;
	}
	return 0;
}

static inline int petal_cache_check(void)
{
	return 0;
}

static inline const char *petal_cache_name(void)
{
	return "double";
}

static inline void petal_cache_writeback(const void *address, uint64_t bytes)
{
	struct cache_double *d = cache_double;
	unsigned char *side;
	uint64_t at;
	uint64_t end;

	if (bytes == 0 || !cache_double_find(address, &side, &at))
		return;
	end = (uint64_t)((const unsigned char *)address - side) + bytes;
	for (; at < end; at += CACHE_DOUBLE_LINE) {
		if (d->pending_count == CACHE_DOUBLE_PENDING_MAX) {
			d->overflows++;
			return;
		}
		d->pending[d->pending_count] = at;
		memcpy(d->line[d->pending_count++], side + at,
		       CACHE_DOUBLE_LINE);
		d->written_back++;
	}
}

static inline void petal_cache_fence(void)
{
	struct cache_double *d = cache_double;

	for (unsigned i = 0; d && i < d->pending_count; i++)
		memcpy(d->memory + d->pending[i], d->line[i],
		       CACHE_DOUBLE_LINE);
	if (d)
		d->pending_count = 0;
}

static inline void petal_cache_invalidate(const void *address, uint64_t bytes)
{
	struct cache_double *d = cache_double;
	unsigned char *side;
	uint64_t at;
	uint64_t end;

	if (bytes == 0 || !cache_double_find(address, &side, &at))
		return;
	end = (uint64_t)((const unsigned char *)address - side) + bytes;
	for (; at < end; at += CACHE_DOUBLE_LINE) {
		memcpy(side + at, d->memory + at, CACHE_DOUBLE_LINE);
		d->invalidated++;
	}
}

/* What was written back and not waited for is gone, as after a power cut. */
static inline void cache_double_drop(void)
{
	if (cache_double)
		cache_double->pending_count = 0;
}

#endif
