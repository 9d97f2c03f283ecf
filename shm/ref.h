/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_REF_H
#define PETAL_SHM_REF_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: ref - where a buffer lies, in 64 bits that every process understands
 *
 *    bit 63     56 55                34 33                             0
 *    +------------+--------------------+--------------------------------+
 *    | segment    | generation         | offset, in units of 64 bytes   |
 *    | which of   | of the buffer,     | from the first byte of the     |
 *    | 256        | never 0            | segment's range, up to 1 TiB   |
 *    +------------+--------------------+--------------------------------+
 *
 * A pointer means something in one process only; a ref is what travels in a
 * ring. It is a value, 8 bytes long, and zero is no ref. The generation makes
 * refs to what lay there before different: a place is taken for its earlier
 * self only by a ref that is exactly a multiple of 4,194,303 loans old, and
 * even then only for a process that holds the present buffer as well.
 *
 * The number of a segment is agreed on by those who share it. Each process has
 * a table of those that it has mapped, private to it, and everything that a ref
 * says is checked against that table before it becomes a pointer.
 *
 * Always true: what petal_ref_resolve() returns lies, for all the bytes that
 * were asked for, inside of a range that this process has put in its table.
 *
 * Who may run together: adding and removing excludes resolving in the same
 * table. Resolving may run with itself, everywhere.
 *
 * Trust: a ref may come from anyone. So may the ledger that is asked about it.
 */

#define PETAL_REF_SEGMENTS 256u
#define PETAL_REF_UNIT_BYTES 64u
#define PETAL_REF_GENERATION_MAX ((UINT32_C(1) << 22) - 1)
#define PETAL_REF_RANGE_BYTES_MAX (UINT64_C(1) << 40)

struct petal_ref {
	uint64_t bits;
};

static_assert(sizeof(struct petal_ref) == 8, "layout");

struct petal_ledger;

/* One segment as this process sees it; base is NULL where there is none. */
struct petal_ref_segment {
	unsigned char *base;
	uint64_t bytes;
	const struct petal_ledger *ledger;
};

/* Private to a process; a zeroed one is empty. */
struct petal_ref_table {
	struct petal_ref_segment segments[PETAL_REF_SEGMENTS];
};

/**
 * petal_ref_make() - say where something lies
 * @segment: its number, below PETAL_REF_SEGMENTS
 * @generation: 1 to PETAL_REF_GENERATION_MAX
 * @offset: a multiple of PETAL_REF_UNIT_BYTES, below
 *	PETAL_REF_RANGE_BYTES_MAX
 *
 * Anything else is a bug of the caller.
 */
static inline struct petal_ref
petal_ref_make(uint32_t segment, uint32_t generation, uint64_t offset);

/** petal_ref_is_none() - whether it refers to nothing */
static inline bool petal_ref_is_none(struct petal_ref ref);

static inline uint32_t petal_ref_segment(struct petal_ref ref);
static inline uint32_t petal_ref_generation(struct petal_ref ref);

/** petal_ref_offset() - in bytes */
static inline uint64_t petal_ref_offset(struct petal_ref ref);

/**
 * petal_ref_table_add() - from now on, refs to this segment resolve
 * @base: the first byte of the range, as mapped here; 64-byte aligned
 * @bytes: how much is mapped; less than the ledger's range where the segment
 *	has yet to grow
 * @ledger: who holds what in it, attached by this process; it says the number
 *	of the segment, and must outlive the table's entry
 *
 * Return: 0; -EEXIST: the number is in use here; -EINVAL: not aligned, or no
 * bytes.
 */
int petal_ref_table_add(struct petal_ref_table *table, void *base,
			uint64_t bytes, const struct petal_ledger *ledger);

/**
 * petal_ref_table_grow() - more of the same segment is mapped now
 * @bytes: at least as many as before, contiguous with them
 *
 * Return: 0; -ENXIO: no such segment here; -EINVAL: fewer than before.
 */
int petal_ref_table_grow(struct petal_ref_table *table, uint32_t segment,
			 uint64_t bytes);

/** petal_ref_table_remove() - refs to this segment are unknown again */
void petal_ref_table_remove(struct petal_ref_table *table, uint32_t segment);

/**
 * petal_ref_resolve() - turn a ref into a pointer, having checked all of it
 * @bytes: how many the caller is going to touch
 * @ret_pointer: the first of them
 *
 * It resolves only for who holds the buffer: by loan, or by a grant, accepted
 * or not. The pointer is good until this process drops or forwards the buffer.
 *
 * Each refusal is an error of its own, to be counted by the caller.
 *
 * Return: 0.
 * -ENXIO: no segment of that number here.
 * -ERANGE: it begins or ends outside of the segment, or of the buffer.
 * -EINVAL: where it points, no buffer can begin; or it is no ref.
 * -ESTALE: an old generation; the buffer is gone.
 * -EACCES: the buffer is there, and this process does not hold it.
 * -PETAL_ECORRUPT: the ledger contradicts itself.
 */
int petal_ref_resolve(const struct petal_ref_table *table, struct petal_ref ref,
		      uint64_t bytes, void **ret_pointer);

#include "shm/ref_inl.h"

#ifdef __cplusplus
}
#endif

#endif
