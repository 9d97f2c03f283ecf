/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_CACHE_H
#define PETAL_SHM_CACHE_H

#include <stdint.h>

/**
 * DOC: cache - how stores and loads reach memory that another machine shares
 *
 * Memory that several machines map by CXL, without hardware that keeps their
 * caches in step, obeys whoever flushes: the writer writes its lines back, the
 * reader throws its own copies away before it looks.
 *
 *    writer                                reader
 *      store the payload
 *      petal_cache_writeback(payload)
 *      petal_cache_fence()
 *      store the header
 *      petal_cache_writeback(header)         petal_cache_invalidate(header)
 *      petal_cache_fence()                   load the header: is it new?
 *                                            petal_cache_invalidate(payload)
 *                                            load the payload
 *
 * Always true: the lines that hold the given bytes are treated whole. An
 * invalidation writes a dirty line back first, for no instruction of a program
 * does less; a line therefore has one writer, and a reader never stores to it,
 * or its stale copy would overwrite what is new.
 *
 * On x86-64 a write-back is CLWB where the CPU has it, which keeps the line, or
 * else CLFLUSHOPT or CLFLUSH, which drop it. On AArch64 it is DC CVAC, and an
 * invalidation DC CIVAC. The choice is made by the first call.
 *
 * A program that wants to see every flush compiles the sources with
 * PETAL_CACHE_HOOKS set to a header of its own, which then defines the four
 * calls: a double of a machine that loses what is not flushed does.
 *
 * Threads: every call here may run at any time, in any thread.
 */

#define PETAL_CACHE_LINE_BYTES 64u

#if defined(PETAL_CACHE_HOOKS)
#include PETAL_CACHE_HOOKS
#else

#ifdef __cplusplus
extern "C" {
#endif

/**
 * petal_cache_check() - can this CPU do it?
 *
 * Return: 0; -EOPNOTSUPP: no such instructions, or lines that are larger than
 * PETAL_CACHE_LINE_BYTES; the calls below must not be relied upon then.
 */
int petal_cache_check(void);

/**
 * petal_cache_writeback() - send lines to the memory
 * @address: the first byte
 * @bytes: how many; 0 does nothing
 *
 * Done only at the next petal_cache_fence().
 */
void petal_cache_writeback(const void *address, uint64_t bytes);

/**
 * petal_cache_invalidate() - forget our copies, so that a load asks the memory
 * @address: the first byte
 * @bytes: how many; 0 does nothing
 *
 * Done when it returns: no later load of this thread comes from an old copy.
 */
void petal_cache_invalidate(const void *address, uint64_t bytes);

/** petal_cache_fence() - wait until what was written back has left */
void petal_cache_fence(void);

/**
 * petal_cache_name() - which instruction writes back here, for reports
 *
 * Return: a constant string, such as "clwb"; "none" if there is none.
 */
const char *petal_cache_name(void);

#ifdef __cplusplus
}
#endif

#endif /* PETAL_CACHE_HOOKS */

#endif
