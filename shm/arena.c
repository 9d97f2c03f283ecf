/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/arena.h"

#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/*
 * The happy path of a loan: take an entry, let jemalloc find the memory in an
 * arena whose extents are cut from the range, write both down here, and enter
 * the buffer in the ledger. On the way back the ledger says which entry is
 * free, and our own note, never a shared word, says what to free.
 *
 * jemalloc is linked in and hidden, so that its malloc is nobody's. Nothing in
 * this file calls malloc: its own memory is mapped.
 */

#define PAGE_BYTES 4096u
#define FEED_PARTS 64u
#define LARGE_BYTES (UINT64_C(14) << 10) /* jemalloc's largest small class */

/*
 * The library's jemalloc reads these before anything else, and the second of
 * the two last of all, after the environment.
 * - Memory that is preallocated and shared is not given back to the kernel, so
 *   nothing decays with time: what is freed is used again as it is, and merged
 *   when there would be no memory.
 * - All allocations name their arena and their cache; automatic ones serve only
 *   its metadata.
 */
#define SETTINGS                                                     \
	"narenas:1,tcache:false,dirty_decay_ms:-1,muzzy_decay_ms:0," \
	"oversize_threshold:0,dss:disabled,retain:true,"             \
	"metadata_thp:disabled,background_thread:false,"             \
	"abort_conf:false,junk:false,zero:false,prof:false,"         \
	"stats_print:false,confirm_conf:false,hpa:false"

extern const char *malloc_conf_2_conf_harder;

const char *malloc_conf = SETTINGS;
const char *malloc_conf_2_conf_harder = SETTINGS;

/* As experimental.arenas_create_ext wants it; no header of jemalloc has it. */
struct arena_config {
	extent_hooks_t *extent_hooks;
	bool metadata_use_hooks;
};

/* What we have loaned under an entry; bytes is 0 where nothing. */
struct note {
	uint64_t offset;
	uint64_t bytes;
	uint64_t rounded_bytes;
};

/* An extent of the segment under the range. */
struct backing {
	uint64_t generation; /* 0: without memory */
	uint64_t buffers;    /* that lie in it, whole or in part */
};

/* The range, cut from the front; what was cut comes back to jemalloc only. */
struct space {
	unsigned char *base;
	uint64_t bytes;
	uint64_t used_bytes;
};

/* A page that is zero in a child: MADV_WIPEONFORK. */
struct guard {
	uint64_t opened_here;
};

struct petal_arena {
	extent_hooks_t hooks; /* first: the hooks find the arena by it */
	struct space space;
	struct petal_ledger *ledger;
	struct petal_extents *extents; /* NULL: all memory is there */
	struct backing *backing;       /* for each extent of the segment */
	uint64_t base_offset;          /* of the range, in the segment */
	struct note *notes;
	uint32_t *unused; /* a stack of entries */
	uint32_t unused_count;
	unsigned index; /* jemalloc's number for it */
	unsigned cache; /* and for what keeps small buffers ready */
	bool made;      /* whether it has the first */
	bool cached;    /* and the second */
	bool clear;
	uint64_t mapped_bytes;
	struct petal_arena_usage usage;
};

static struct guard *guard_of(const struct petal_arena *arena)
{
	return (void *)((uintptr_t)arena - PAGE_BYTES);
}

static bool is_owner(const struct petal_arena *arena)
{
	return guard_of(arena)->opened_here;
}

/*
 * Where addresses come from. Whether there is memory behind them is not
 * jemalloc's business, which never touches them: see back().
 */
static void *space_take(struct space *space, size_t bytes, size_t alignment)
{
	uint64_t at = (space->used_bytes + alignment - 1) & ~(alignment - 1);

	if (at > space->bytes || bytes > space->bytes - at)
		return NULL;
	space->used_bytes = at + bytes;
	return space->base + at;
}

static void *hook_alloc(extent_hooks_t *hooks, void *wanted, size_t bytes,
			size_t alignment, bool *zero, bool *commit,
			unsigned index)
{
	struct petal_arena *arena = (void *)hooks;
	void *extent;

	(void)index;
	if (wanted && wanted != arena->space.base + arena->space.used_bytes)
		return NULL;
	extent = space_take(&arena->space, bytes, alignment);
	if (!extent)
		return NULL;
	/* Others may have written here; nobody but us says that it is zero. */
	if (*zero)
		memset(extent, 0, bytes);
	*commit = true;
	return extent;
}

/* The range is one mapping, so that any two neighbours are one extent. */
static bool hook_split(extent_hooks_t *hooks, void *extent, size_t bytes,
		       size_t bytes_a, size_t bytes_b, bool committed,
		       unsigned index)
{
	(void)hooks, (void)extent, (void)bytes, (void)bytes_a, (void)bytes_b;
	(void)committed, (void)index;
	return false;
}

static bool hook_merge(extent_hooks_t *hooks, void *extent_a, size_t bytes_a,
		       void *extent_b, size_t bytes_b, bool committed,
		       unsigned index)
{
	(void)hooks, (void)extent_a, (void)bytes_a, (void)extent_b;
	(void)bytes_b, (void)committed, (void)index;
	return false;
}

/* Tell jemalloc something about our arena. */
static void command(const struct petal_arena *arena, const char *what)
{
	char name[32];

	snprintf(name, sizeof(name), "arena.%u.%s", arena->index, what);
	mallctl(name, NULL, NULL, NULL, 0);
}

/* Join what is free: what is kept ready first, then what lies in pieces. */
static void join(const struct petal_arena *arena)
{
	unsigned cache = arena->cache;

	mallctl("tcache.flush", NULL, NULL, &cache, sizeof(cache));
	command(arena, "purge");
}

static int make_jemalloc_arena(struct petal_arena *arena)
{
	struct arena_config config = {
		.extent_hooks = &arena->hooks,
		.metadata_use_hooks = false,
	};
	size_t bytes = sizeof(arena->index);

	arena->hooks.alloc = hook_alloc;
	arena->hooks.split = hook_split;
	arena->hooks.merge = hook_merge;
	if (mallctl("tcache.create", &arena->cache, &bytes, NULL, 0))
		return -ENOMEM;
	arena->cached = true;
	switch (mallctl("experimental.arenas_create_ext", &arena->index, &bytes,
			&config, sizeof(config))) {
	case 0:
		arena->made = true;
		return 0;
	case ENOENT:
	case EINVAL:
		return -ENOSYS;
	default:
		return -ENOMEM;
	}
}

static uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

/*
 * Let jemalloc have all of the range, so that it is one free extent and not as
 * many as it would have asked for, two of which it does not join when they were
 * never in use. Nothing is touched.
 */
static void feed(struct petal_arena *arena)
{
	int flags = MALLOCX_ARENA(arena->index) | MALLOCX_TCACHE_NONE |
		    MALLOCX_ALIGN(PAGE_BYTES);
	uint64_t bytes = arena->space.bytes - arena->space.used_bytes;
	void *parts[FEED_PARTS];
	uint32_t count = 0;

	while (count < FEED_PARTS && bytes > LARGE_BYTES) {
		parts[count] = mallocx(bytes, flags);
		if (parts[count])
			count++;
		else
			bytes -= bytes / 8;
	}
	while (count)
		dallocx(parts[--count], flags);
	command(arena, "purge");
}

/* A page as guard, then the arena, extents, notes, and a stack of entries. */
static struct petal_arena *map_arena(uint32_t entries, uint64_t extents)
{
	uint64_t backing_at = PAGE_BYTES + sizeof(struct petal_arena);
	uint64_t notes_at = backing_at + extents * sizeof(struct backing);
	uint64_t unused_at = notes_at + entries * sizeof(struct note);
	uint64_t bytes =
		round_up(unused_at + entries * sizeof(uint32_t), PAGE_BYTES);
	unsigned char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct petal_arena *arena;

	if (memory == MAP_FAILED)
		return NULL;
	if (madvise(memory, PAGE_BYTES, MADV_WIPEONFORK)) {
		munmap(memory, bytes);
		return NULL;
	}
	arena = (void *)(memory + PAGE_BYTES);
	arena->mapped_bytes = bytes;
	arena->backing = (void *)(memory + backing_at);
	arena->notes = (void *)(memory + notes_at);
	arena->unused = (void *)(memory + unused_at);
	for (uint32_t i = 0; i < entries; i++)
		arena->unused[i] = entries - 1 - i;
	arena->unused_count = entries;
	guard_of(arena)->opened_here = 1;
	return arena;
}

static void unmap_arena(struct petal_arena *arena)
{
	munmap(guard_of(arena), arena->mapped_bytes);
}

static int check_options(const struct petal_arena_options *options)
{
	const struct petal_ledger *ledger = options->ledger;

	if (!options->base || (uintptr_t)options->base % PAGE_BYTES ||
	    options->bytes == 0 || options->bytes > ledger->range_bytes ||
	    UINT64_C(1) << ledger->granule_shift >
		    PETAL_ARENA_GRANULE_BYTES_MAX ||
	    !ledger->own)
		return -EINVAL;
	return 0;
}

/* The range is to lie in the segment, and its extents are to be ours alone. */
static int check_extents(const struct petal_arena_options *options)
{
	const struct petal_extents *extents = options->extents;
	const unsigned char *base = options->base;
	uint64_t at, last;

	if (!extents)
		return 0;
	at = (uintptr_t)base - (uintptr_t)extents->segment.base;
	if (base < (const unsigned char *)extents->segment.base ||
	    at < extents->header_bytes || at >= extents->total_bytes ||
	    options->ledger->range_bytes > extents->total_bytes - at)
		return -EINVAL;
	last = at + options->ledger->range_bytes - 1;
	for (uint64_t i = 0; i < extents->count; i++) {
		struct petal_extent_info info;

		if (petal_extent_look(extents, i, &info))
			break;
		if (info.state != PETAL_EXTENT_FREE && info.offset <= last &&
		    info.offset >> extents->extent_shift >= at >>
			    extents->extent_shift)
			return -EBUSY;
	}
	return 0;
}

/* Which extents lie under some of the range; false if none does. */
static bool find_backing(const struct petal_arena *arena, uint64_t offset,
			 uint64_t bytes, uint64_t *ret_first,
			 uint64_t *ret_last)
{
	uint64_t first = arena->base_offset + offset;
	uint64_t last = first + bytes - 1;

	if (!arena->extents || last < arena->extents->fixed_bytes)
		return false;
	if (first < arena->extents->fixed_bytes)
		first = arena->extents->fixed_bytes;
	*ret_first = (first - arena->extents->fixed_bytes) >>
		     arena->extents->extent_shift;
	*ret_last = (last - arena->extents->fixed_bytes) >>
		    arena->extents->extent_shift;
	return true;
}

/* Put memory behind what a buffer is to lie in. On failure some may stay. */
static int back(struct petal_arena *arena, uint64_t offset, uint64_t bytes)
{
	uint64_t first, last;

	if (!find_backing(arena, offset, bytes, &first, &last))
		return 0;
	for (uint64_t i = first; i <= last; i++) {
		int err = 0;

		if (!arena->backing[i].generation)
			err = petal_extent_add_at(
				arena->extents, i,
				&arena->backing[i].generation);
		if (err)
			return err;
	}
	for (uint64_t i = first; i <= last; i++)
		arena->backing[i].buffers++;
	return 0;
}

static void unback(struct petal_arena *arena, uint64_t offset, uint64_t bytes)
{
	uint64_t first, last;

	if (!find_backing(arena, offset, bytes, &first, &last))
		return;
	for (uint64_t i = first; i <= last; i++)
		arena->backing[i].buffers--;
}

int petal_arena_open(const struct petal_arena_options *options,
		     struct petal_arena **ret_arena)
{
	const struct petal_extents *extents = options->extents;
	struct petal_arena *arena;
	int err = check_options(options);

	if (!err)
		err = check_extents(options);
	if (err)
		return err;
	arena = map_arena(options->ledger->entry_count,
			  extents ? extents->count : 0);
	if (!arena)
		return -ENOMEM;
	arena->extents = options->extents;
	if (extents)
		arena->base_offset = (uintptr_t)options->base -
				     (uintptr_t)extents->segment.base;
	arena->ledger = options->ledger;
	arena->clear = options->clear;
	arena->space.base = options->base;
	arena->space.bytes = options->bytes;
	/* Last what cannot be undone. */
	err = make_jemalloc_arena(arena);
	if (!err)
		err = petal_ledger_own(arena->ledger);
	if (err) {
		petal_arena_close(arena);
		return err;
	}
	feed(arena);
	*ret_arena = arena;
	return 0;
}

static int flags_of(const struct petal_arena *arena, uint64_t bytes)
{
	uint64_t granule = UINT64_C(1) << arena->ledger->granule_shift;
	uint64_t alignment = bytes > LARGE_BYTES ? PAGE_BYTES : granule;

	return MALLOCX_ARENA(arena->index) | MALLOCX_TCACHE(arena->cache) |
	       MALLOCX_ALIGN(alignment);
}

static uint64_t whole_granules(const struct petal_arena *arena, uint64_t bytes)
{
	return round_up(bytes, UINT64_C(1) << arena->ledger->granule_shift);
}

/* jemalloc knows by the address what it has to free. */
static void take_back(struct petal_arena *arena, uint32_t entry)
{
	struct note *note = &arena->notes[entry];

	petal_ledger_retire(arena->ledger, entry);
	dallocx(arena->space.base + note->offset, flags_of(arena, note->bytes));
	unback(arena, note->offset, whole_granules(arena, note->bytes));
	arena->usage.loaned_buffers--;
	arena->usage.loaned_bytes -= note->bytes;
	arena->usage.rounded_bytes -= note->rounded_bytes;
	arena->usage.returns++;
	note->bytes = 0;
	arena->unused[arena->unused_count++] = entry;
}

static uint64_t take_back_if_home(struct petal_arena *arena, uint32_t entry)
{
	if (!arena->notes[entry].bytes ||
	    !petal_ledger_is_home(arena->ledger, entry))
		return 0;
	take_back(arena, entry);
	return 1;
}

static uint64_t collect_announced(struct petal_arena *arena)
{
	uint32_t groups = petal_ledger_groups(arena->ledger);
	uint64_t count = 0;

	if (!petal_ledger_news(arena->ledger))
		return 0;
	for (uint32_t i = 0; i < groups; i++) {
		uint64_t home = petal_ledger_take_home(arena->ledger, i);

		for (; home; home &= home - 1) {
			uint32_t entry =
				64 * i + (uint32_t)__builtin_ctzll(home);

			if (entry < arena->ledger->entry_count)
				count += take_back_if_home(arena, entry);
		}
	}
	return count;
}

static uint64_t collect_all(struct petal_arena *arena)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < arena->ledger->entry_count; i++)
		count += take_back_if_home(arena, i);
	return count;
}

int petal_arena_collect(struct petal_arena *arena, bool all,
			uint64_t *ret_count)
{
	uint64_t count;

	if (!is_owner(arena))
		return -EPERM;
	count = collect_announced(arena);
	if (all)
		count += collect_all(arena);
	if (ret_count)
		*ret_count = count;
	return 0;
}

static int try_loan(struct petal_arena *arena, uint64_t bytes,
		    void **ret_buffer)
{
	void *buffer;

	if (arena->unused_count == 0)
		return -ENOBUFS;
	/* In whole granules, so that its slack is nobody else's. */
	buffer = mallocx(whole_granules(arena, bytes), flags_of(arena, bytes));
	if (!buffer)
		return -ENOSPC;
	*ret_buffer = buffer;
	return 0;
}

/* Enter it in our notes and in the ledger. */
static int enter(struct petal_arena *arena, uint64_t bytes, uint64_t offset,
		 struct petal_ref *ret_ref)
{
	uint32_t entry = arena->unused[arena->unused_count - 1];
	int err =
		petal_ledger_lend(arena->ledger, entry, offset, bytes, ret_ref);

	if (err)
		return err;
	arena->unused_count--;
	arena->notes[entry] = (struct note){
		.offset = offset,
		.bytes = bytes,
		.rounded_bytes = nallocx(whole_granules(arena, bytes),
					 flags_of(arena, bytes)),
	};
	arena->usage.loaned_buffers++;
	arena->usage.loaned_bytes += bytes;
	arena->usage.rounded_bytes += arena->notes[entry].rounded_bytes;
	arena->usage.loans++;
	return 0;
}

/* Nothing of an earlier buffer beyond the end of this one, or in it. */
static void wipe(const struct petal_arena *arena, unsigned char *buffer,
		 uint64_t bytes)
{
	uint64_t from = arena->clear ? 0 : bytes;

	memset(buffer + from, 0, whole_granules(arena, bytes) - from);
}

/* With memory, with bytes, and with an entry. */
static int furnish(struct petal_arena *arena, uint64_t bytes, void *buffer,
		   struct petal_ref *ret_ref)
{
	uint64_t offset =
		(uint64_t)((unsigned char *)buffer - arena->space.base);
	uint64_t touched_bytes = whole_granules(arena, bytes);
	int err = back(arena, offset, touched_bytes);

	if (err)
		return err;
	wipe(arena, buffer, bytes);
	err = enter(arena, bytes, offset, ret_ref);
	if (err)
		unback(arena, offset, touched_bytes);
	return err;
}

static void count_refusal(struct petal_arena *arena, int err, uint64_t bytes)
{
	uint64_t free_bytes = arena->space.bytes - arena->usage.rounded_bytes;

	arena->usage.refusals++;
	if (err == -ENOSPC && free_bytes >= bytes)
		arena->usage.torn_refusals++;
}

int petal_arena_loan(struct petal_arena *arena, uint64_t bytes,
		     struct petal_ref *ret_ref, void **ret_buffer)
{
	void *buffer;
	int err;

	if (!is_owner(arena))
		return -EPERM;
	if (bytes == 0)
		return -EINVAL;
	if (bytes > arena->space.bytes)
		return -EMSGSIZE;
	collect_announced(arena);
	err = try_loan(arena, bytes, &buffer);
	/* A holder may have died between its drop and the hint. */
	if (err && collect_all(arena))
		err = try_loan(arena, bytes, &buffer);
	/* Or what is free may only lie in pieces that can be joined. */
	if (err == -ENOSPC) {
		join(arena);
		err = try_loan(arena, bytes, &buffer);
	}
	if (!err) {
		err = furnish(arena, bytes, buffer, ret_ref);
		if (err)
			dallocx(buffer, flags_of(arena, bytes));
	}
	if (err) {
		count_refusal(arena, err, bytes);
		return err;
	}
	*ret_buffer = buffer;
	return 0;
}

int petal_arena_drop(struct petal_arena *arena, struct petal_ref ref)
{
	struct petal_ledger_entry *shared;
	uint32_t entry;
	int last;

	if (!is_owner(arena))
		return -EPERM;
	last = petal_ledger_let_go(arena->ledger, ref, &shared);
	if (last < 0)
		return last;
	entry = (uint32_t)(shared - arena->ledger->entries);
	/* Another may still be about to drop; then its hint is to come. */
	if (last)
		take_back_if_home(arena, entry);
	return 0;
}

int petal_arena_grow(struct petal_arena *arena, uint64_t bytes)
{
	if (!is_owner(arena))
		return -EPERM;
	if (bytes < arena->space.bytes || bytes > arena->ledger->range_bytes)
		return -EINVAL;
	arena->space.bytes = bytes;
	feed(arena);
	return 0;
}

static int give_back(struct petal_arena *arena, uint64_t index)
{
	struct backing *backing = &arena->backing[index];
	uint64_t offset = arena->extents->fixed_bytes +
			  (index << arena->extents->extent_shift);
	int err = petal_extent_retire(arena->extents, offset,
				      backing->generation);

	/* By the ledger, nobody holds a buffer in it. */
	if (!err)
		err = petal_extent_reclaim(arena->extents, offset,
					   backing->generation, true);
	if (!err)
		backing->generation = 0;
	return err;
}

int petal_arena_shrink(struct petal_arena *arena, uint64_t *ret_bytes)
{
	uint64_t bytes = 0;

	if (!is_owner(arena))
		return -EPERM;
	collect_announced(arena);
	collect_all(arena);
	for (uint64_t i = 0; arena->extents && i < arena->extents->count; i++) {
		int err;

		if (arena->backing[i].buffers || !arena->backing[i].generation)
			continue;
		err = give_back(arena, i);
		if (err)
			return err;
		bytes += UINT64_C(1) << arena->extents->extent_shift;
	}
	if (ret_bytes)
		*ret_bytes = bytes;
	return 0;
}

void petal_arena_usage(const struct petal_arena *arena,
		       struct petal_arena_usage *ret_usage)
{
	*ret_usage = arena->usage;
	ret_usage->range_bytes = arena->space.bytes;
}

void petal_arena_close(struct petal_arena *arena)
{
	/* It only forgets: the range is not touched. */
	if (is_owner(arena) && arena->cached)
		mallctl("tcache.destroy", NULL, NULL, &arena->cache,
			sizeof(arena->cache));
	if (is_owner(arena) && arena->made)
		command(arena, "destroy");
	unmap_arena(arena);
}
