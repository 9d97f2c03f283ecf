/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a segment that grows: its keeper, and who looks and pins. */
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "shm/extent.h"

#define EXTENTS 16u
#define EXTENT_BYTES UINT64_C(4096)
#define HEADER_BYTES UINT64_C(8192)
#define FIXED_BYTES UINT64_C(12288)
#define TOTAL_BYTES (FIXED_BYTES + EXTENTS * EXTENT_BYTES)

static struct fuzz_region memory;
static struct petal_extents extents;
static struct petal_peer_id self;
static uint64_t offset;
static uint64_t generation;
static int fd = -1;

/* The header and the table; nothing here reads what lies behind them. */
static void sizes(uint32_t variant, uint64_t bytes[FUZZ_REGIONS])
{
	(void)variant;
	bytes[0] =
		PETAL_SEGMENT_HEADER_BYTES + PETAL_SEGMENT_TABLE_BYTES(EXTENTS);
	bytes[1] = 0;
}

static void make(const struct fuzz_region *regions, uint32_t variant)
{
	struct petal_segment segment = {
		.base = regions[0].base,
		.total_bytes = TOTAL_BYTES,
		.pages = PETAL_SEGMENT_PAGES_PLAIN,
		.writable = true,
		.backing = PETAL_SEGMENT_MEMFD,
		.header_bytes = HEADER_BYTES,
		.fixed_bytes = FIXED_BYTES,
		.extent_bytes = EXTENT_BYTES,
	};

	(void)variant;
	memory = regions[0];
	if (fd < 0) {
		fd = memfd_create("fuzz", MFD_CLOEXEC);
		fuzz_require(fd >= 0 && ftruncate(fd, TOTAL_BYTES) == 0);
		fuzz_require(petal_peer_self(&self) == 0);
	}
	segment.fd = fd;
	offset = FIXED_BYTES;
	generation = 1;
	fuzz_require(petal_extent_open(&segment, &extents) == 0);
	fuzz_refused(petal_extent_keep(&extents, &self));
}

static void use(void)
{
	uint64_t at = fuzz_random(4) ? offset : fuzz_lie(offset);
	uint64_t of = fuzz_random(4) ? generation : fuzz_lie(generation);
	uint64_t bytes = fuzz_random(4) ? 64 : fuzz_lie(EXTENT_BYTES);

	switch (fuzz_random(3)) {
	case 0:
		if (fuzz_refused(petal_extent_check(&extents, at, bytes, of)) >=
		    0)
			fuzz_require(at >= HEADER_BYTES && at < TOTAL_BYTES &&
				     bytes <= TOTAL_BYTES - at);
		break;
	case 1:
		fuzz_refused(petal_extent_pin(&extents, at, of));
		break;
	default:
		fuzz_refused(petal_extent_unpin(&extents, at, of));
		break;
	}
}

static void keep(void)
{
	switch (fuzz_random(4)) {
	case 0:
		fuzz_refused(petal_extent_add(&extents,
					      1 + fuzz_random(3 * EXTENT_BYTES),
					      &offset, &generation));
		break;
	case 1:
		fuzz_refused(petal_extent_retire(&extents, offset, generation));
		break;
	case 2:
		fuzz_refused(petal_extent_reclaim(&extents, offset, generation,
						  fuzz_random(2)));
		break;
	default:
		petal_extent_drop(&extents);
		fuzz_refused(petal_extent_keep(&extents, &self));
		break;
	}
}

static void observe(void)
{
	struct petal_extent_info info;

	fuzz_require(petal_extent_live_bytes(&extents) <=
		     EXTENTS * EXTENT_BYTES);
	if (!fuzz_refused(petal_extent_look(&extents, fuzz_random(EXTENTS + 1),
					    &info)))
		fuzz_require(info.offset < TOTAL_BYTES);
}

static void step(void)
{
	switch (fuzz_random(16)) {
	case 0:
		keep();
		break;
	case 1:
	case 2:
		observe();
		break;
	default:
		use();
		break;
	}
}

const struct fuzz_subject fuzz_extent = {
	.name = "extent",
	.variants = 1,
	.cost = 8,
	.accesses_max = 5000,
	.sizes = sizes,
	.make = make,
	.step = step,
};
