/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_DAX_H
#define PETAL_SHM_DAX_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: dax - a device of memory that is mapped as it is: /dev/daxX.Y
 *
 * CXL memory that is kept out of the kernel's own pool, and persistent memory,
 * appear as such character devices. There is nothing to read() or truncate; a
 * mapping begins and ends at multiples of the device's alignment, and what it
 * shows is the device's own bytes, which outlive every process.
 *
 * What is asked here is asked of the open device, by its number in sysfs, so
 * that a renamed node in /dev deceives nobody.
 */

/**
 * struct petal_dax - what the kernel says about a device
 * @bytes: how much memory it has
 * @align_bytes: the unit of mappings, most often 2 MiB
 */
struct petal_dax {
	uint64_t bytes;
	uint64_t align_bytes;
};

/**
 * petal_dax_open() - open a device by its path
 * @path: "/dev/dax0.0"
 * @ret_fd: for reading and writing, close-on-exec; the caller's
 *
 * Return: 0; -ENXIO: no such device; -EMEDIUMTYPE: it is something else;
 * -EACCES: not ours to open. Otherwise what the kernel said.
 */
int petal_dax_open(const char *path, int *ret_fd);

/**
 * petal_dax_look() - how large an open device is
 * @fd: the device
 * @ret_dax: what the kernel says
 *
 * Return: 0; -EMEDIUMTYPE: not such a device; -PETAL_EGEOMETRY: sizes that
 * cannot be; otherwise what the kernel said.
 */
int petal_dax_look(int fd, struct petal_dax *ret_dax);

#ifdef __cplusplus
}
#endif

#endif
