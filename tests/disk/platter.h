/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_DISK_PLATTER_H
#define PETAL_TESTS_DISK_PLATTER_H

/**
 * DOC: platter - the system calls by which the journal reads and makes its file
 *
 * The proofs are linked so that pread(), pwrite(), fsync(), mmap() and munmap()
 * come here. While a platter is turning, the first three are answered from the
 * file's mapping: that is what makes a state cost a fifth of a millisecond, and
 * how a block becomes unreadable. Memory is lent again instead of being given
 * back to the kernel, as zero as it would be.
 *
 * Who may run together: nothing; one thread.
 */

#include <stdint.h>

/** struct platter - a file in memory */
struct platter {
	uint8_t *map;
	uint64_t bytes;
	/** @unreadable: a block that gives -EIO until it is written, or 0. */
	uint64_t unreadable;
};

/** platter_turn() - answer from this one; NULL for the kernel's files */
struct platter *platter_turn(struct platter *platter);

#endif
