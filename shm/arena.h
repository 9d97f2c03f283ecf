/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_ARENA_H
#define PETAL_SHM_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/extent.h"
#include "shm/ledger.h"
#include "shm/ref.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: arena - payload buffers of any size, loaned out of a segment
 *
 *    private to the owner         shared
 *    +---------------------+      +---------------------------------------+
 *    | jemalloc: what is   |      | ledger: who holds which buffer        |
 *    | free, how it is cut |      +---------------------------------------+
 *    | per entry: offset,  |      | range: buffers, and nothing else      |
 *    | bytes               |      |                                       |
 *    +---------------------+      +---------------------------------------+
 *
 * One process opens an arena over a range of shared memory and loans buffers
 * from it; others receive refs, and hold, forward and drop the buffers by the
 * ledger. A buffer that nobody holds any more is taken back by the next loan,
 * or by petal_arena_collect().
 *
 * Always true: no allocator's word lies in the range, so that nobody can spoil
 * the allocator and nobody learns an address from it; and what is freed is what
 * this process has noted that it loaned, whatever the shared words say.
 *
 * This is a library of its own, libpetalith-arena.so, for those who loan. Who
 * only receives needs libpetalith.so. It contains its own jemalloc, linked
 * statically and hidden: malloc and free of the program stay who they were, and
 * a program that has a jemalloc has two. jemalloc's thread-local storage is of
 * the static kind, so the library is linked, not loaded by dlopen() into a
 * running program. Its settings are ours: MALLOC_CONF does not change them.
 *
 * Sizes: 1 byte to the whole range, less one page. A buffer takes up what its
 * size class has, at most a quarter more than was asked for; of 16 KiB and more
 * it begins on a page and takes one page more, and below on a granule.
 *
 * What a receiver can read: the bytes that the loaner wrote, and in between
 * what earlier buffers of the same arena left, unless cleared. What is between
 * the end of the loan and the end of its last granule is always zeroed. Nothing
 * else of the owner's memory was ever in the range.
 *
 * Growth: over a segment that grows (shm/extent.h) the owner of the arena is
 * also the keeper of the extents. All addresses are the arena's from the start;
 * a loan puts memory behind what its buffer lies in, and petal_arena_shrink()
 * gives back every extent in which no buffer lies. The ledger is the proof that
 * nobody is in there, so no holder needs a pin. Refs, pointers and mappings
 * stay what they are.
 *
 * Who may run together: the calls on one arena exclude each other. They run
 * beside anything that other holders do with the ledger.
 *
 * Fork: the child of an owner cannot loan, for it would loan the same bytes as
 * its parent: it gets -EPERM.
 *
 * Crash: what the owner knew is gone with it. The range is never continued by
 * another owner: the holders keep, and drop, what they hold; when nobody holds
 * anything (petal_ledger_held()) the range is given back whole: the next keeper
 * retires and reclaims what he finds LIVE in it.
 */

#define PETAL_ARENA_GRANULE_BYTES_MAX 2048u

struct petal_arena; /* private to the process that opened it */

struct petal_arena_options {
	void *base;     /* of the range; 4 KiB aligned, shared */
	uint64_t bytes; /* mapped so far; at most the ledger's range */
	struct petal_ledger *ledger; /* with a seat, and without an owner */
	bool clear;                  /* hand out zeroed buffers */
	/* The keeper's view of the segment that the range lies in, or NULL. */
	struct petal_extents *extents;
};

/* What it has done, and where the memory is. */
struct petal_arena_usage {
	uint64_t loaned_buffers; /* now */
	uint64_t loaned_bytes;   /* as asked for */
	uint64_t rounded_bytes; /* as taken up: the difference is inner waste */
	uint64_t range_bytes;   /* mapped */
	uint64_t loans;
	uint64_t returns;
	uint64_t refusals;
	uint64_t torn_refusals; /* of these, with enough free in pieces */
};

/**
 * petal_arena_open() - become the owner of a range
 * @options: what it points to must stay as it is until the close
 *
 * With extents, bytes may be all that the segment can ever have.
 *
 * Return: 0; -EINVAL: not aligned, no bytes, or more than the ledger's range;
 * granules of more than PETAL_ARENA_GRANULE_BYTES_MAX, or no seat; a ledger's
 * range that is not inside of the extents' segment; -EBUSY: an extent in it has
 * memory, so it is somebody's; -EEXIST: it has, or had, an owner; -ENOMEM;
 * -ENOSYS: this jemalloc cannot keep its own words out of the range.
 */
int petal_arena_open(const struct petal_arena_options *options,
		     struct petal_arena **ret_arena);

/**
 * petal_arena_loan() - get a buffer, held by ourselves
 * @bytes: how many
 * @ret_ref: what to send
 * @ret_buffer: where it is here
 *
 * Then fill it, share or forward it by the ledger, and publish the ref.
 *
 * Return: 0; -EINVAL: no bytes; -EMSGSIZE: more than the range has;
 * -ENOBUFS: as many buffers are out as the ledger has entries; -ENOSPC: no
 * free memory of that size; -EPERM: in a child of the owner; with extents also
 * what petal_extent_add_at() returns: -ENOMEM, -PETAL_EHUGEPAGES,
 * -PETAL_EFENCED if we do not keep them any more.
 */
int petal_arena_loan(struct petal_arena *arena, uint64_t bytes,
		     struct petal_ref *ret_ref, void **ret_buffer);

/**
 * petal_arena_drop() - as petal_ledger_drop(), and take it back at once
 *
 * Return: 0; or what petal_ledger_drop() returns; -EPERM as for the loan.
 */
int petal_arena_drop(struct petal_arena *arena, struct petal_ref ref);

/**
 * petal_arena_collect() - take back what others were the last to drop
 * @all: look at every buffer; else only at those that were announced
 * @ret_count: how many came home; may be NULL
 *
 * Every loan does this, and looks at all when there would be no memory.
 *
 * Return: 0; -EPERM as for the loan.
 */
int petal_arena_collect(struct petal_arena *arena, bool all,
			uint64_t *ret_count);

/**
 * petal_arena_grow() - more of the range is mapped now
 * @bytes: at least as many as before, at most the ledger's range
 *
 * Return: 0; -EINVAL; -EPERM as for the loan.
 */
int petal_arena_grow(struct petal_arena *arena, uint64_t bytes);

/**
 * petal_arena_shrink() - give back what nothing lies in
 * @ret_bytes: how much memory; may be NULL
 *
 * First takes back all that nobody holds. Without extents that is all. Takes as
 * long as the kernel needs; not for each message, but for after a peak.
 *
 * Return: 0; -EPERM as for the loan; what petal_extent_reclaim() returns, and
 * then the call may be made again.
 */
int petal_arena_shrink(struct petal_arena *arena, uint64_t *ret_bytes);

/** petal_arena_usage() - all counts at this moment */
void petal_arena_usage(const struct petal_arena *arena,
		       struct petal_arena_usage *ret_usage);

/**
 * petal_arena_close() - loan no more
 *
 * What others hold stays theirs; nothing is taken back any more. In a child of
 * the owner it only lets go of the child's copy.
 */
void petal_arena_close(struct petal_arena *arena);

#ifdef __cplusplus
}
#endif

#endif
