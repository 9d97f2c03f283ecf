/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_SEGMENT_CHECK_H
#define PETAL_SHM_SEGMENT_CHECK_H

#include "shm/segment.h"

/*
 * Between segment.c, which makes segments, and segment_check.c, which decides
 * whether to believe one. Not installed.
 */

#define SEGMENT_HUGE_2M_BYTES (UINT64_C(2) << 20)
#define SEGMENT_HUGE_1G_BYTES (UINT64_C(1) << 30)

uint64_t segment_page_bytes(void);

uint64_t segment_round_up(uint64_t bytes, uint64_t unit);

/* The header and, in a segment that can grow, the table behind it. */
uint64_t segment_header_bytes(uint64_t extents);

uint32_t segment_header_crc(const struct petal_segment_header *header);

/*
 * Whether ordinary memory for so many bytes is to be had, on these nodes or, if
 * there are none, anywhere: 0 or -ENOMEM, by an estimate.
 */
int segment_memory_check(uint64_t nodes, uint64_t bytes);

/*
 * What petal_segment_attach() refuses, refused; nothing is mapped. @owner_uid
 * is whom the caller trusts, NULL for nobody. Fills all but base and fd.
 */
int segment_check(int fd, bool writable, const uint32_t *owner_uid,
		  struct petal_segment *ret_segment);

#endif
