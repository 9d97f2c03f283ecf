/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/numa.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SYSFS "/sys/devices/system/node"

static int read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;
	int outcome;

	if (fd < 0)
		return -errno;
	length = read(fd, text, size - 1);
	outcome = length < 0 ? -errno : 0;
	close(fd);
	if (!outcome)
		text[length] = '\0';
	return outcome;
}

static uint64_t bits_between(unsigned long first, unsigned long last)
{
	uint64_t bits = 0;

	/* Nodes that no set can name are left out. */
	for (; first <= last && first < PETAL_NUMA_NODES_MAX; first++)
		bits |= UINT64_C(1) << first;
	return bits;
}

/* A list as the kernel writes it: "0-1,3". */
static uint64_t parse_list(const char *text)
{
	uint64_t nodes = 0;
	char *end;

	for (;; text = end + 1) {
		unsigned long first = strtoul(text, &end, 10);
		unsigned long last = first;

		if (end == text)
			return nodes;
		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		nodes |= bits_between(first, last);
		if (*end != ',')
			return nodes;
	}
}

static int load_list(const char *path, uint64_t *ret_nodes)
{
	char text[1024];
	int outcome = read_text(path, text, sizeof(text));

	if (outcome)
		return outcome == -ENOENT ? -ENOSYS : outcome;
	*ret_nodes = parse_list(text);
	return 0;
}

int petal_numa_nodes(uint64_t *ret_nodes)
{
	return load_list(SYSFS "/has_memory", ret_nodes);
}

/* The row of distances has a number per online node, in their order. */
static unsigned long distance(unsigned from, unsigned to)
{
	char path[64];
	char text[1024];
	uint64_t online;
	const char *at = text;
	char *end;

	snprintf(path, sizeof(path), SYSFS "/node%u/distance", from);
	if (load_list(SYSFS "/online", &online) ||
	    read_text(path, text, sizeof(text)))
		return ULONG_MAX;
	for (unsigned node = 0; node < PETAL_NUMA_NODES_MAX; node++) {
		unsigned long steps;

		if (!(online >> node & 1))
			continue;
		steps = strtoul(at, &end, 10);
		if (end == at || node == to)
			return end == at ? ULONG_MAX : steps;
		at = end;
	}
	return ULONG_MAX;
}

int petal_numa_slow(uint64_t *ret_nodes)
{
	uint64_t with_memory, with_cpus;
	unsigned long nearest = ULONG_MAX;
	unsigned here = 0;
	uint64_t found = 0;
	int outcome = petal_numa_nodes(&with_memory);

	if (!outcome)
		outcome = load_list(SYSFS "/has_cpu", &with_cpus);
	if (outcome)
		return outcome;
	if (getcpu(NULL, &here))
		return -errno;
	for (unsigned node = 0; node < PETAL_NUMA_NODES_MAX; node++) {
		unsigned long far;

		if (!((with_memory & ~with_cpus) >> node & 1))
			continue;
		far = distance(here, node);
		if (!found || far < nearest) {
			found = UINT64_C(1) << node;
			nearest = far;
		}
	}
	if (!found)
		return -ENODEV;
	*ret_nodes = found;
	return 0;
}

/* Lines read "Node 0 MemFree:  123 kB"; an absent one counts as none. */
static uint64_t field_bytes(const char *text, const char *field)
{
	const char *at = strstr(text, field);
	uint64_t kib = 0;

	if (at)
		sscanf(at + strlen(field), ": %" SCNu64, &kib);
	return kib * 1024;
}

int petal_numa_available(uint64_t nodes, uint64_t *ret_bytes)
{
	uint64_t bytes = 0;

	for (unsigned node = 0; node < PETAL_NUMA_NODES_MAX; node++) {
		char path[64];
		char text[4096];
		int outcome;

		if (!(nodes >> node & 1))
			continue;
		snprintf(path, sizeof(path), SYSFS "/node%u/meminfo", node);
		outcome = read_text(path, text, sizeof(text));
		if (outcome)
			return outcome == -ENOENT ? -ENODEV : outcome;
		bytes += field_bytes(text, "MemFree") +
			 field_bytes(text, "Active(file)") +
			 field_bytes(text, "Inactive(file)");
	}
	*ret_bytes = bytes;
	return 0;
}

int petal_numa_bind(void *base, uint64_t bytes, uint64_t nodes)
{
	unsigned long mask = (unsigned long)nodes;
	uint64_t exist;
	int outcome = nodes ? petal_numa_nodes(&exist) : -EINVAL;

	if (outcome)
		return outcome;
	if (nodes & ~exist)
		return -ENODEV;
	/* The kernel's maxnode is one more than the bits it reads. */
	if (syscall(SYS_mbind, base, bytes, MPOL_BIND, &mask,
		    (unsigned long)PETAL_NUMA_NODES_MAX + 1, 0))
		return -errno;
	return 0;
}

int petal_numa_bound(const void *address, uint64_t *ret_nodes)
{
	/* The kernel writes as many bits as it was built for: 1024 at most. */
	unsigned long mask[1024 / (8 * sizeof(unsigned long))] = { 0 };
	int mode;

	if (syscall(SYS_get_mempolicy, &mode, mask, 1024UL, address,
		    (unsigned long)MPOL_F_ADDR))
		return -errno;
	*ret_nodes = mode == MPOL_BIND ? mask[0] : 0;
	return 0;
}

int petal_numa_where(const void *address, uint32_t *ret_node)
{
	int node;

	if (syscall(SYS_get_mempolicy, &node, NULL, 0UL, address,
		    (unsigned long)(MPOL_F_NODE | MPOL_F_ADDR)))
		return -errno;
	*ret_node = (uint32_t)node;
	return 0;
}
