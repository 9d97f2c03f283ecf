/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_NUMA_H
#define PETAL_SHM_NUMA_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: numa - on which memory of the machine pages are to lie
 *
 * A set of nodes is a word: bit n stands for node n of the kernel, 0 to 63. A
 * node that has memory and no CPU is the slow tier: CXL memory that the kernel
 * runs as system RAM is one, and so is the far half of a memory server.
 *
 * Needs libc only; what libnuma would do is asked of sysfs and of mbind(2)
 * itself. Nothing is remembered: nodes come and go with hot-plug.
 *
 * Threads: every call here may run at any time, in any thread.
 */

#define PETAL_NUMA_NODES_MAX 64u

/**
 * petal_numa_nodes() - which nodes have memory
 * @ret_nodes: the set
 *
 * Return: 0; -ENOSYS: a kernel without NUMA; otherwise what the kernel said.
 */
int petal_numa_nodes(uint64_t *ret_nodes);

/**
 * petal_numa_slow() - the slow tier that is nearest to this CPU
 * @ret_nodes: a set of one node, of those with memory and without CPUs the one
 *	at the smallest distance; of equals the lowest
 *
 * Return: 0; -ENODEV: this machine has no such node; -ENOSYS and the rest as
 * for petal_numa_nodes().
 */
int petal_numa_slow(uint64_t *ret_nodes);

/**
 * petal_numa_available() - what the nodes could still give
 * @nodes: the set
 * @ret_bytes: free memory, and page cache that can be dropped; an estimate
 *
 * Return: 0; -ENODEV: a node of the set does not exist.
 */
int petal_numa_available(uint64_t nodes, uint64_t *ret_bytes);

/**
 * petal_numa_bind() - let pages that are allocated from now on lie there only
 * @base: page-aligned, of a mapping
 * @bytes: how long
 * @nodes: the set, not empty
 *
 * On shared memory the policy belongs to the file: pages that anyone makes
 * exist later, through whatever mapping, obey it too.
 *
 * Return: 0; -EINVAL: an empty set; -ENODEV: a node that does not exist or has
 * no memory; -ENOSYS: a kernel without NUMA.
 */
int petal_numa_bind(void *base, uint64_t bytes, uint64_t nodes);

/**
 * petal_numa_bound() - to which nodes a page is bound
 * @address: in it
 * @ret_nodes: the set; empty if it may lie anywhere
 *
 * Return: 0; -EFAULT: nothing is mapped there; -ENOSYS.
 */
int petal_numa_bound(const void *address, uint64_t *ret_nodes);

/**
 * petal_numa_where() - on which node a page lies
 * @address: in it; a page that does not exist yet is made to
 * @ret_node: the node's number
 *
 * Return: 0; -EFAULT: nothing is mapped there; -ENOSYS.
 */
int petal_numa_where(const void *address, uint32_t *ret_node);

#ifdef __cplusplus
}
#endif

#endif
