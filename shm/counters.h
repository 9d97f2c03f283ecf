/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_COUNTERS_H
#define PETAL_SHM_COUNTERS_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/atomic.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: counters - what a program counts, readable even when it hangs
 *
 *    byte 0       64                64 + 32 * count, rounded up to 64
 *    +------------+--------+--- ---+--------+--- ---+
 *    | header     | name 0 |  ...  | value0 |  ...  |
 *    | written once, 32 bytes each | 8 bytes each   |
 *    +------------+--------+--- ---+--------+--- ---+
 *
 * A table has a title ("wire"), names and values. It lies in memory that the
 * caller gives, most usefully in a segment: then any process that may read the
 * segment may read the counts, of a writer that hangs, sleeps or is dead.
 *
 * Always true: header and names do not change once the magic is there. A value
 * is written by one thread only, so an increment is a plain load, add and
 * store, without a locked instruction. Threads that count each have a table of
 * their own; the reader adds up. No two tables share a cache line.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion):
 *
 *                    format   add/set   attach/value/read
 *    format             X        X            - (1)
 *    add/set            X        X              -
 *    attach/...       - (1)      -              -
 *    (1) on memory that holds no table yet; else readers end first
 *
 * Ordering:
 *    [TABLE]  format stores the magic (release) -> attach loads it (acquire):
 *             the reader sees all names or no table
 *    Values are relaxed. Each is whole, but two of them need not be from the
 *    same moment, and a value orders nothing else.
 *
 * Trust: a reader believes nothing. The count is copied and bounded once, each
 * name is copied and checked whenever it is read, and a value is only a number.
 *
 * Crash: every value that was stored stays. A half-written table has no magic.
 */

#define PETAL_COUNTERS_LAYOUT 1u
#define PETAL_COUNTERS_MAX 1024u
#define PETAL_COUNTERS_NAME_BYTES 32u

/**
 * struct petal_counters_header - how a table begins
 * @magic: PETAL_COUNTERS_MAGIC, "PETALCTR" in memory; stored last
 * @layout: PETAL_COUNTERS_LAYOUT
 * @count: of names and of values, 1 to PETAL_COUNTERS_MAX
 * @reserved: zero
 * @title: whose counters, as a name is
 */
struct petal_counters_header {
	struct petal_u64 magic;
	uint32_t layout;
	uint32_t count;
	uint64_t reserved[2];
	char title[PETAL_COUNTERS_NAME_BYTES];
};

#define PETAL_COUNTERS_MAGIC UINT64_C(0x5254434c41544550)

static_assert(offsetof(struct petal_counters_header, magic) == 0, "layout");
static_assert(offsetof(struct petal_counters_header, layout) == 8, "layout");
static_assert(offsetof(struct petal_counters_header, count) == 12, "layout");
static_assert(offsetof(struct petal_counters_header, reserved) == 16, "layout");
static_assert(offsetof(struct petal_counters_header, title) == 32, "layout");
static_assert(sizeof(struct petal_counters_header) == 64, "layout");

/**
 * struct petal_counters - the writer's end of a table, private to the process
 * @values: the counts
 * @count: how many
 */
struct petal_counters {
	struct petal_u64 *values;
	uint32_t count;
};

/**
 * struct petal_counters_view - a reader's end, private to the process
 * @table: the first byte of the table
 * @count: how many names and values, checked against the memory
 */
struct petal_counters_view {
	const unsigned char *table;
	uint32_t count;
};

/** struct petal_counters_entry - one counter at the moment it was read */
struct petal_counters_entry {
	char name[PETAL_COUNTERS_NAME_BYTES];
	uint64_t value;
};

/**
 * petal_counters_bytes() - how much memory a table takes
 * @count: number of counters, 1 to PETAL_COUNTERS_MAX
 *
 * Return: bytes, a multiple of 64.
 */
uint64_t petal_counters_bytes(uint32_t count);

/**
 * petal_counters_format() - lay out a table, all values zero
 * @memory: 64-byte aligned, petal_counters_bytes() long at least
 * @bytes: how long it is
 * @title: whose counters these are
 * @names: one name per counter, in the order of the writer's enum
 * @count: how many
 * @ret_counters: the writer's end
 *
 * Title and names are 1 to 31 bytes of a-z, 0-9, '.', '_' and '-'.
 *
 * Return: 0; -EINVAL for a bad title, name, count or alignment; -ENOSPC if
 * @bytes are too few.
 */
int petal_counters_format(void *memory, uint64_t bytes, const char *title,
			  const char *const *names, uint32_t count,
			  struct petal_counters *ret_counters);

/**
 * petal_counters_add() - count something
 * @counters: the writer's end
 * @index: which, below @counters->count
 * @amount: by how much; the value wraps at 2^64
 *
 * Threads: the table's one writer.
 */
static inline void petal_counters_add(struct petal_counters *counters,
				      uint32_t index, uint64_t amount);

/**
 * petal_counters_set() - store a level, such as a depth or a high-water mark
 * @counters: the writer's end
 * @index: which, below @counters->count
 * @value: the new value
 *
 * Threads: the table's one writer.
 */
static inline void petal_counters_set(struct petal_counters *counters,
				      uint32_t index, uint64_t value);

/**
 * petal_counters_value() - look at one's own counter
 * @counters: the writer's end
 * @index: which, below @counters->count
 *
 * Return: the value.
 */
static inline uint64_t
petal_counters_value(const struct petal_counters *counters, uint32_t index);

/**
 * petal_counters_attach() - read someone's table
 * @memory: 64-byte aligned; may be mapped read-only, and may hold anything
 * @bytes: how much of it may be touched
 * @ret_view: the reader's end
 *
 * Order: acquires [TABLE].
 *
 * Return: 0; -EINVAL: no table here, or not aligned; -PETAL_EVERSION;
 * -PETAL_EGEOMETRY: more counters than fit or than there may be.
 */
int petal_counters_attach(const void *memory, uint64_t bytes,
			  struct petal_counters_view *ret_view);

/**
 * petal_counters_title() - whose table it is
 * @view: the reader's end
 * @ret_title: the title, zero-terminated
 *
 * Return: 0; -PETAL_ECORRUPT if it is not one that format would have written.
 */
int petal_counters_title(const struct petal_counters_view *view,
			 char ret_title[PETAL_COUNTERS_NAME_BYTES]);

/**
 * petal_counters_read() - one counter, by its place in the table
 * @view: the reader's end
 * @index: which; count up from 0 to see all
 * @ret_entry: its name and value
 *
 * Return: 0; -ENOENT: no more, @index is not below @view->count;
 * -PETAL_ECORRUPT: a name that format would not have written.
 */
int petal_counters_read(const struct petal_counters_view *view, uint32_t index,
			struct petal_counters_entry *ret_entry);

#include "shm/counters_inl.h"

#ifdef __cplusplus
}
#endif

#endif
