/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_EXTENT_H
#define PETAL_SHM_EXTENT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/atomic.h"
#include "shm/peer.h"
#include "shm/segment.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: extent - memory that a segment gains and gives back while it is used
 *
 *    byte 0     4096      header_bytes   fixed_bytes               total_bytes
 *    +----------+---------+--------------+-----+-----+-----+-- ----+
 *    | header   | table   | body         |  0  |  1  |  2  |  ...  |
 *    |          |         | always there | extent_bytes each       |
 *    +----------+---------+--------------+-----+-----+-----+-- ----+
 *                |
 *                +--> keeper | generation | zero | word 0 | word 1 ...
 *                     8        8            48     8 bytes each
 *
 *    keeper:  realm, 22 bits | start, 20 bits | PID, 22 bits; or 0
 *
 *    word:  generation, 40 bits | state, 4 bits | pins, 20 bits
 *
 *            add                 retire              reclaim
 *    FREE -------> ADDING -> LIVE ------> RETIRING -------> PUNCHING -> FREE
 *
 * All addresses exist in every process from the start; an extent is where they
 * have memory behind them. One process, the keeper, adds and retires; everyone
 * sees it in the table, without a new fd and without a new mapping.
 *
 * Neighbours that were added together are a run: they share a generation, which
 * no other run of this segment ever has, and they are retired together. A place
 * in the segment is named by its offset from the segment's first byte and by
 * that generation. The body's generation is 0.
 *
 * Always true: memory behind a LIVE or RETIRING extent was allocated before the
 * state was stored, and goes only after PUNCHING was; so who holds a pin, or
 * may rely on the caller's own proof, meets no SIGBUS. Pins only fall once the
 * run is RETIRING. A run is punched when its pins are 0, all of them, or when the
 * caller proves that nobody who could use it is left.
 *
 * Without a pin, petal_extent_check() says what was true a moment ago. A store
 * to an extent that has been punched brings a page back, zeroed, until the
 * extent is added and punched again; with huge pages, and none left, it is
 * SIGBUS.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion; the
 * processes that are not the keeper are refused what is his):
 *
 *                          add/retire/reclaim   pin/unpin/check/look
 *    add/retire/reclaim            X                     -
 *    pin/unpin/check/look          -                     -
 *
 * Ordering:
 *    [LIVE]   add stores LIVE (release) -> check, pin, look load (acquire):
 *             the memory, and the words of the whole run, are there
 *    [UNPIN]  unpin counts down (release) -> reclaim loads (acquire): the last
 *             access of the user comes before the punch
 *    [KEEP]   the keeper's stores, drop stores 0 (release) -> keep swaps itself
 *             in (acquire): a successor sees what his predecessor has done
 *
 * Crash: a user that dies leaves its pins; whoever knows that he is dead, and
 * that the others are done, reclaims with quiescent set. A keeper that dies
 * leaves his stamp. Who keeps next must find him dead (shm/peer.h), and then
 * finishes what was begun: a run that is ADDING and nowhere LIVE is punched and
 * FREE; one that is LIVE anywhere becomes so everywhere; one that is RETIRING
 * anywhere becomes so everywhere; one that is PUNCHING anywhere is punched and
 * FREE. Each of these is safe to die in and to do again.
 *
 * Trust: the table is written by all who may write the segment. Whatever is in
 * it, no access leaves the segment and no loop is longer than the table; a liar
 * can withhold memory and make others read zeroes.
 *
 * Fork: a child is not the keeper; -PETAL_EFENCED.
 */

/** enum petal_extent_state - of one extent; part of the layout */
enum petal_extent_state {
	/** @PETAL_EXTENT_FREE: addresses without memory. */
	PETAL_EXTENT_FREE,
	/** @PETAL_EXTENT_ADDING: memory is being allocated. */
	PETAL_EXTENT_ADDING,
	/** @PETAL_EXTENT_LIVE: to be used. */
	PETAL_EXTENT_LIVE,
	/** @PETAL_EXTENT_RETIRING: who is in it may stay, none may enter. */
	PETAL_EXTENT_RETIRING,
	/** @PETAL_EXTENT_PUNCHING: memory is being given back. */
	PETAL_EXTENT_PUNCHING,
};

/** Outcomes above 0 of the calls below. */
enum {
	/** check: still there, but to be left soon. */
	PETAL_EXTENT_LEAVING = 1,
	/** reclaim: somebody is in it, by his pins. */
	PETAL_EXTENT_PINNED = 2,
};

#define PETAL_EXTENT_PINS_MAX 0xfffffu

/**
 * struct petal_extent_table - how the table begins; a word per extent follows
 * @keeper: who it is, of the identity the low bits; 0 for none
 * @generation: the last that was given to a run
 * @reserved: zero
 */
struct petal_extent_table {
	struct petal_u64 keeper;
	struct petal_u64 generation;
	uint64_t reserved[6];
};

static_assert(sizeof(struct petal_extent_table) == PETAL_SEGMENT_TABLE_BYTES(0),
	      "layout");

/**
 * struct petal_extents - one process's view of a segment's extents
 * @table: in the segment
 * @word: in the segment, one per extent
 * @count: how many there can be
 * @header_bytes: where the body begins
 * @fixed_bytes: where the body ends and extents begin
 * @total_bytes: where extents end
 * @extent_shift: log2 of their size
 * @segment: private copy; must stay open
 * @stamp: ours as the keeper; 0: we are not
 * @keeper_pid: which process of ours kept it, for a child has a copy
 *
 * Private to the process, and checked once.
 */
struct petal_extents {
	struct petal_extent_table *table;
	struct petal_u64 *word;
	uint64_t count;
	uint64_t header_bytes;
	uint64_t fixed_bytes;
	uint64_t total_bytes;
	unsigned extent_shift;
	struct petal_segment segment;
	uint64_t stamp;
	int keeper_pid;
};

/**
 * struct petal_extent_info - one extent at the moment it was looked at
 * @offset: from the segment's first byte
 * @generation: of its run; of its last one, if it is free
 * @state: what may be done with it
 * @pins: how many are in it
 */
struct petal_extent_info {
	uint64_t offset;
	uint64_t generation;
	enum petal_extent_state state;
	uint32_t pins;
};

/**
 * petal_extent_open() - look at the extents of a segment
 * @segment: as opened or attached; stays the caller's and open
 * @ret_extents: the view
 *
 * Holds no resource of its own, so there is nothing to close.
 *
 * Return: 0; -EINVAL: a segment that cannot grow.
 */
int petal_extent_open(const struct petal_segment *segment,
		      struct petal_extents *ret_extents);

/**
 * petal_extent_keep() - become the one who adds and retires
 * @extents: the view
 * @self: identity of this process, from petal_peer_self()
 *
 * If the keeper before us is dead, what he has begun is finished first. Runs
 * that are RETIRING wait for petal_extent_reclaim(), by us now: look for them.
 *
 * Return: 0, also if we are it already. -EBUSY: a keeper lives. -EXDEV: whether
 * he lives cannot be judged from here. -EROFS: not mapped for writing. -EINVAL:
 * not an identity. -PETAL_ECORRUPT: a word that nobody can have written.
 * Otherwise what the kernel said; the call may be made again.
 */
int petal_extent_keep(struct petal_extents *extents,
		      const struct petal_peer_id *self);

/**
 * petal_extent_drop() - be the keeper no longer
 * @extents: the view; if it is not the keeper's, nothing happens
 */
void petal_extent_drop(struct petal_extents *extents);

/**
 * petal_extent_add() - put memory behind a run of extents
 * @extents: the keeper's view
 * @bytes: how much, at least 1; rounded up to whole extents
 * @ret_offset: where it is, from the segment's first byte; zeroed memory
 * @ret_generation: the run's own
 *
 * The first place that is long enough is taken. Takes as long as the kernel
 * needs to allocate.
 *
 * Return: 0. -EINVAL: no bytes. -ENOSPC: no such place is left. -ENOMEM: the
 * machine, or the nodes that the segment is bound to, cannot give it.
 * -PETAL_EHUGEPAGES: none is free. -PETAL_EFENCED: we are not the keeper.
 * -EINTR: signals kept interrupting it. Otherwise what the kernel said. On
 * failure nothing has changed.
 */
int petal_extent_add(struct petal_extents *extents, uint64_t bytes,
		     uint64_t *ret_offset, uint64_t *ret_generation);

/**
 * petal_extent_add_at() - put memory behind one extent of the caller's choice
 * @extents: the keeper's view
 * @index: which, as for petal_extent_look(); a run of its own
 * @ret_generation: the run's own
 *
 * Return: as petal_extent_add(), -ENOSPC: there is no such extent; and -EBUSY:
 * it is not FREE.
 */
int petal_extent_add_at(struct petal_extents *extents, uint64_t index,
			uint64_t *ret_generation);

/**
 * petal_extent_retire() - let nobody enter a run any more
 * @extents: the keeper's view
 * @offset: where the run begins
 * @generation: its own
 *
 * Return: 0, also if it is retired already. -ESTALE: there is no such run.
 * -ERANGE: not the beginning of an extent. -PETAL_EFENCED.
 */
int petal_extent_retire(struct petal_extents *extents, uint64_t offset,
			uint64_t generation);

/**
 * petal_extent_reclaim() - give the memory of a retired run to the kernel
 * @extents: the keeper's view
 * @offset: where the run begins
 * @generation: its own
 * @quiescent: the caller's word that nobody uses it, whatever its pins say
 *
 * Return: 0; PETAL_EXTENT_PINNED: not yet. -EBUSY: it was not retired.
 * -ESTALE, -ERANGE, -PETAL_EFENCED as for petal_extent_retire(). What the
 * kernel said, if it would not punch; the call may be made again.
 */
int petal_extent_reclaim(struct petal_extents *extents, uint64_t offset,
			 uint64_t generation, bool quiescent);

/**
 * petal_extent_look() - what an extent is right now
 * @extents: the view
 * @index: which; count up from 0 to see all
 * @ret_info: what it is
 *
 * Order: acquires [LIVE].
 *
 * Return: 0; -ENOENT: no more, @index is not below @extents->count.
 */
int petal_extent_look(const struct petal_extents *extents, uint64_t index,
		      struct petal_extent_info *ret_info);

/**
 * petal_extent_live_bytes() - how much memory is LIVE or RETIRING
 * @extents: the view
 */
uint64_t petal_extent_live_bytes(const struct petal_extents *extents);

/**
 * petal_extent_check() - is this range one that may be used?
 * @extents: the view
 * @offset: from the segment's first byte; any number
 * @bytes: how long; any number
 * @generation: of the run that it is in, or 0 for the body
 *
 * Order: acquires [LIVE].
 *
 * Return: 0; PETAL_EXTENT_LEAVING: as long as we are pinned, but its run
 * retires. -ERANGE: no bytes, in the header, across the end of the body, or
 * outside. -ESTALE: of another generation, or without memory.
 */
static inline int petal_extent_check(const struct petal_extents *extents,
				     uint64_t offset, uint64_t bytes,
				     uint64_t generation);

/**
 * petal_extent_pin() - enter a run, so that its memory stays
 * @extents: the view
 * @offset: anywhere in the run; a pin is the whole run's
 * @generation: its own; with 0, for the body, there is nothing to do
 *
 * No system call; a compare-and-swap of a word that all who enter share, so
 * meant for a batch of work and not for a message. Order: acquires [LIVE].
 *
 * Return: 0. -ESTALE: of another generation, retiring, or without memory.
 * -ERANGE: not in a body or extent. -EROFS: not mapped for writing. -EAGAIN:
 * too many pins, or too much contention.
 */
static inline int petal_extent_pin(struct petal_extents *extents,
				   uint64_t offset, uint64_t generation);

/**
 * petal_extent_prefault() - map a range in this process, before it is used
 * @extents: the view
 * @offset: from the segment's first byte
 * @bytes: how long
 * @generation: of the run, in which the caller has a pin; 0 for the body
 *
 * New memory costs every process a page fault per page at its first touch. This
 * pays for all of them at once, several times cheaper, and not on the hot path.
 *
 * Return: 0; PETAL_EXTENT_LEAVING, -ERANGE, -ESTALE: as petal_extent_check()
 * says, and nothing is mapped. -EOPNOTSUPP: a kernel before 5.14. Otherwise
 * what the kernel said.
 */
int petal_extent_prefault(const struct petal_extents *extents, uint64_t offset,
			  uint64_t bytes, uint64_t generation);

/**
 * petal_extent_unpin() - leave it
 * @extents: the view
 * @offset: as given to petal_extent_pin()
 * @generation: as given to petal_extent_pin()
 *
 * Order: releases [UNPIN].
 *
 * Return: 0; -ESTALE: there is no such pin. -ERANGE, -EROFS as above.
 */
static inline int petal_extent_unpin(struct petal_extents *extents,
				     uint64_t offset, uint64_t generation);

#include "shm/extent_inl.h"

#ifdef __cplusplus
}
#endif

#endif
