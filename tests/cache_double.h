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
 *    struct cache_double link = { { writer, reader }, memory, bytes };
 *    cache_double = &link;
 *
 * Both sides run in one thread, one after the other: who calls is told by the
 * address that he gives, and a fence is of who gave the last one. It is a
 * header only, so that a test is one file.
 *
 * Crueller, if asked: lines between two fences arrive newest first; after each,
 * arrived() is called, where the other side may look; and before each call, a
 * line chosen at random is written back or fetched, as caches do unasked.
 *
 * Each place in the sources that flushes, and each region that it flushes, is a
 * site with a number. The one in skip does nothing: so a test can ask of each
 * site whether it would be missed.
 */

#include <stdint.h>
#include <string.h>

#define CACHE_DOUBLE_LINE 64u
#define CACHE_DOUBLE_PENDING_MAX 4096u
#define CACHE_DOUBLE_SITES_MAX 128u

enum cache_double_call {
	CACHE_DOUBLE_WRITEBACK,
	CACHE_DOUBLE_INVALIDATE,
	CACHE_DOUBLE_FENCE,
};

/* What a side has written back and not fenced. */
struct cache_double_pending {
	unsigned count;
	uint64_t at[CACHE_DOUBLE_PENDING_MAX];
	unsigned char line[CACHE_DOUBLE_PENDING_MAX][CACHE_DOUBLE_LINE];
};

struct cache_double_site {
	const char *file;
	int line;
	enum cache_double_call call;
	unsigned region;
	uint64_t calls;
};

struct cache_double {
	unsigned char *side[2];
	unsigned char *memory;
	uint64_t bytes;
	struct cache_double_pending pending[2];
	uint64_t written_back;
	uint64_t invalidated;
	uint64_t overflows;

	unsigned running;      /* the side that called last */
	unsigned last_region;  /* that it wrote back */
	int newest_first;      /* between two fences */
	void (*arrived)(void); /* after each line, or NULL */
	uint64_t weather;      /* seed of what happens unasked; 0: nothing */
	unsigned (*region)(uint64_t offset); /* or NULL: all are one */
	int (*owner)(uint64_t offset); /* which side stores there; -1: none */
	struct cache_double_site sites[CACHE_DOUBLE_SITES_MAX];
	unsigned site_count;
	unsigned skip;     /* a site's number, from 1 on; 0: none */
	uint64_t skip_nth; /* only this call of it, from 1 on; 0: all */
};

__attribute__((unused)) static struct cache_double *cache_double;

/* Whose cache it is, and where in it; 0 if it is nobody's. */
static inline int cache_double_find(const void *address, uint64_t *at)
{
	for (unsigned i = 0; cache_double && i < 2; i++) {
		uintptr_t base = (uintptr_t)cache_double->side[i];
		uintptr_t offset = (uintptr_t)address - base;

		if ((uintptr_t)address < base || offset >= cache_double->bytes)
			continue;
		cache_double->running = i;
		*at = offset;
		return 1;
	}
	return 0;
}

static inline unsigned cache_double_region(uint64_t at)
{
	return cache_double->region ? cache_double->region(at) : 0;
}

/* Return: whether this call is to be left out. */
static inline int cache_double_skips(enum cache_double_call call,
				     unsigned region, const char *file,
				     int line)
{
	struct cache_double *d = cache_double;
	unsigned i = 0;

	while (i < d->site_count &&
	       (d->sites[i].call != call || d->sites[i].region != region ||
		d->sites[i].line != line || strcmp(d->sites[i].file, file)))
		i++;
	if (i == CACHE_DOUBLE_SITES_MAX) {
		d->overflows++;
		return 0;
	}
	if (i == d->site_count) {
		d->sites[i] = (struct cache_double_site){ file, line, call,
							  region, 0 };
		d->site_count++;
	}
	d->sites[i].calls++;
	return d->skip == i + 1 &&
	       (!d->skip_nth || d->skip_nth == d->sites[i].calls);
}

/* A line leaves the cache that owns it, or comes into one that does not. */
static inline void cache_double_weather(void)
{
	struct cache_double *d = cache_double;
	uint64_t at;

	if (!d->weather || !d->owner)
		return;
	d->weather = d->weather * UINT64_C(6364136223846793005) + 1442695041;
	at = (d->weather >> 33) % (d->bytes / CACHE_DOUBLE_LINE) *
	     CACHE_DOUBLE_LINE;
	for (int i = 0; i < 2; i++)
		if (d->owner(at) == i)
			memcpy(d->memory + at, d->side[i] + at,
			       CACHE_DOUBLE_LINE);
		else if (d->owner(at) >= 0)
			memcpy(d->side[i] + at, d->memory + at,
			       CACHE_DOUBLE_LINE);
}

static inline int petal_cache_check(void)
{
	return 0;
}

static inline const char *petal_cache_name(void)
{
	return "double";
}

/* A line that is on its way already does not arrive with what it was before. */
static inline void cache_double_send(uint64_t at)
{
	struct cache_double_pending *p =
		&cache_double->pending[cache_double->running];
	unsigned kept = 0;

	for (unsigned i = 0; i < p->count; i++) {
		if (p->at[i] == at)
			continue;
		p->at[kept] = p->at[i];
		memmove(p->line[kept++], p->line[i], CACHE_DOUBLE_LINE);
	}
	if (kept == CACHE_DOUBLE_PENDING_MAX) {
		cache_double->overflows++;
		return;
	}
	p->at[kept] = at;
	memcpy(p->line[kept], cache_double->side[cache_double->running] + at,
	       CACHE_DOUBLE_LINE);
	p->count = kept + 1;
	cache_double->written_back++;
}

static inline void cache_double_writeback(const void *address, uint64_t bytes,
					  const char *file, int line)
{
	uint64_t at;
	uint64_t end;

	if (bytes == 0 || !cache_double_find(address, &at))
		return;
	cache_double_weather();
	cache_double->last_region = cache_double_region(at);
	if (cache_double_skips(CACHE_DOUBLE_WRITEBACK,
			       cache_double->last_region, file, line))
		return;
	end = at + bytes;
	for (at &= ~(uint64_t)(CACHE_DOUBLE_LINE - 1); at < end;
	     at += CACHE_DOUBLE_LINE)
		cache_double_send(at);
}

static inline void cache_double_fence(const char *file, int line)
{
	struct cache_double *d = cache_double;
	struct cache_double_pending *p;

	if (!d)
		return;
	p = &d->pending[d->running];
	cache_double_weather();
	if (cache_double_skips(CACHE_DOUBLE_FENCE, d->last_region, file, line))
		return;
	for (unsigned n = 0, count = p->count; n < count; n++) {
		unsigned i = d->newest_first ? count - 1 - n : n;
		unsigned running = d->running;

		memcpy(d->memory + p->at[i], p->line[i], CACHE_DOUBLE_LINE);
		if (d->arrived)
			d->arrived();
		d->running = running;
	}
	p->count = 0;
}

static inline void cache_double_invalidate(const void *address, uint64_t bytes,
					   const char *file, int line)
{
	struct cache_double *d = cache_double;
	uint64_t at;
	uint64_t end;

	if (bytes == 0 || !cache_double_find(address, &at))
		return;
	cache_double_weather();
	if (cache_double_skips(CACHE_DOUBLE_INVALIDATE, cache_double_region(at),
			       file, line))
		return;
	end = at + bytes;
	for (at &= ~(uint64_t)(CACHE_DOUBLE_LINE - 1); at < end;
	     at += CACHE_DOUBLE_LINE) {
		memcpy(d->side[d->running] + at, d->memory + at,
		       CACHE_DOUBLE_LINE);
		d->invalidated++;
	}
}

#define petal_cache_writeback(address, bytes) \
	cache_double_writeback(address, bytes, __FILE__, __LINE__)
#define petal_cache_fence() cache_double_fence(__FILE__, __LINE__)
#define petal_cache_invalidate(address, bytes) \
	cache_double_invalidate(address, bytes, __FILE__, __LINE__)

/* What was written back and not waited for is gone, as after a power cut. */
static inline void cache_double_drop(void)
{
	for (int i = 0; cache_double && i < 2; i++)
		cache_double->pending[i].count = 0;
}

#endif
