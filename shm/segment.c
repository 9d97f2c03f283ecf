/* SPDX-License-Identifier: Apache-2.0 */
/*
 * To open: create a memfd, size it, map it, make the kernel allocate every
 * page, write the header, and seal. The order matters three times. A memfd of
 * huge pages is created and sized without any being free; it is mmap() or the
 * allocation that fails, so the way back to plain pages begins after those.
 * The mapping comes before the seals, for F_SEAL_FUTURE_WRITE refuses any
 * later one. And the header comes before the seals too, so that whoever finds
 * a sealed file finds it complete. A file or a device goes the same way, with
 * less on it: a device has its memory and keeps its old bytes until they are
 * cleared, and neither can be sealed, so there the magic is what is last.
 *
 * To attach: segment_check.c looks at the fd, and only then is it mapped.
 */
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/cache.h"
#include "shm/dax.h"
#include "shm/error.h"
#include "shm/numa.h"
#include "shm/segment_check.h"

/* Newer than the headers of Debian 12; an older kernel answers -EINVAL. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define BODY_BYTES_MAX (INT64_MAX / 2 - SEGMENT_HUGE_1G_BYTES)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static uint64_t page_bytes(enum petal_segment_pages pages)
{
	if (pages == PETAL_SEGMENT_PAGES_HUGE_2M)
		return SEGMENT_HUGE_2M_BYTES;
	if (pages == PETAL_SEGMENT_PAGES_HUGE_1G)
		return SEGMENT_HUGE_1G_BYTES;
	return segment_page_bytes();
}

static bool pages_are_huge(enum petal_segment_pages pages)
{
	return pages == PETAL_SEGMENT_PAGES_HUGE_2M ||
	       pages == PETAL_SEGMENT_PAGES_HUGE_1G;
}

/*
 * The kernel would rather kill a process than refuse it a page, and not always
 * the one that asked, so what is plainly too much is refused here. It is an
 * estimate, from before the allocation; without one, the kernel decides.
 */
static int memory_suffices(uint64_t bytes)
{
	FILE *file = fopen("/proc/meminfo", "re");
	uint64_t available_kib = 0;
	char line[128];
	bool known = false;

	if (!file)
		return 0;
	while (!known && fgets(line, sizeof(line), file))
		known = sscanf(line, "MemAvailable: %" SCNu64,
			       &available_kib) == 1;
	fclose(file);
	return known && bytes / 1024 > available_kib ? -ENOMEM : 0;
}

static int nodes_suffice(uint64_t nodes, uint64_t bytes)
{
	uint64_t available;
	int outcome = petal_numa_available(nodes, &available);

	if (outcome)
		return outcome;
	return bytes > available ? -ENOMEM : 0;
}

int segment_memory_check(uint64_t nodes, uint64_t bytes)
{
	return nodes ? nodes_suffice(nodes, bytes) : memory_suffices(bytes);
}

/* For what is in memory at once: a memfd, and a file of a tmpfs. */
static int check_memory(const struct petal_segment *segment, uint64_t nodes)
{
	struct statfs filesystem;

	if (pages_are_huge(segment->pages) ||
	    segment->backing == PETAL_SEGMENT_DAX)
		return 0;
	if (segment->backing == PETAL_SEGMENT_FILE &&
	    (fstatfs(segment->fd, &filesystem) ||
	     filesystem.f_type != TMPFS_MAGIC))
		return 0;
	return segment_memory_check(nodes, segment->fixed_bytes);
}

/* Before Linux 5.14: fallocate() and a touch, which then cannot fail. */
static int allocate_by_touch(const struct petal_segment *segment)
{
	volatile unsigned char *byte = segment->base;
	uint64_t unit = page_bytes(segment->pages);

	if (fallocate(segment->fd, 0, 0, (off_t)segment->fixed_bytes))
		return -errno;
	for (uint64_t at = 0; at < segment->fixed_bytes; at += unit)
		byte[at] = 0;
	return 0;
}

static int allocate(const struct petal_segment *segment)
{
	/* A device has its memory; the pages of a file are not to be dirty. */
	if (segment->backing == PETAL_SEGMENT_DAX)
		return 0;
	if (segment->backing == PETAL_SEGMENT_FILE)
		return fallocate(segment->fd, 0, 0, (off_t)segment->fixed_bytes)
			       ? -errno
			       : 0;
	if (madvise(segment->base, segment->fixed_bytes, MADV_POPULATE_WRITE) ==
	    0)
		return 0;
	/* What would have been SIGBUS is EFAULT here: no page to be had. */
	if (errno == EFAULT)
		return -ENOMEM;
	return errno == EINVAL ? allocate_by_touch(segment) : -errno;
}

static int map(struct petal_segment *segment)
{
	int protection = PROT_READ | (segment->writable ? PROT_WRITE : 0);
	/* Memory for what is yet to be added is not to be set aside. */
	int flags = MAP_SHARED | (segment->extent_bytes ? MAP_NORESERVE : 0);
	void *base = mmap(NULL, segment->total_bytes, protection, flags,
			  segment->fd, 0);

	if (base == MAP_FAILED)
		return -errno;
	segment->base = base;
	return 0;
}

static int map_new(struct petal_segment *segment, uint64_t nodes)
{
	int outcome;

	if (segment->backing != PETAL_SEGMENT_DAX &&
	    ftruncate(segment->fd, (off_t)segment->total_bytes))
		return -errno;
	outcome = map(segment);
	if (!outcome && nodes)
		outcome = petal_numa_bind(segment->base, segment->total_bytes,
					  nodes);
	if (outcome)
		return outcome;
	/*
	 * Advice, which kernels by default ignore for shared memory. Not for a
	 * file: a huge page of it gets dirty as a whole, and with that its
	 * neighbours get blocks that nobody has added.
	 */
	if (segment->backing == PETAL_SEGMENT_MEMFD &&
	    segment->pages == PETAL_SEGMENT_PAGES_PLAIN &&
	    segment->total_bytes >= SEGMENT_HUGE_2M_BYTES)
		madvise(segment->base, segment->total_bytes, MADV_HUGEPAGE);
	return allocate(segment);
}

static struct petal_u64 *shared_magic(const struct petal_segment *segment)
{
	return segment->base;
}

/*
 * A device shows what was on it before. From the first store to the last one
 * of format() there is no magic, so a death in between leaves no segment.
 */
static int clear_device(const struct petal_segment *segment, bool overwrite)
{
	petal_cache_invalidate(segment->base, PETAL_CACHE_LINE_BYTES);
	if (!overwrite && petal_load(shared_magic(segment), PETAL_RELAXED) ==
				  PETAL_SEGMENT_MAGIC)
		return -EEXIST;
	petal_store(shared_magic(segment), 0, PETAL_RELAXED);
	petal_cache_writeback(segment->base, PETAL_CACHE_LINE_BYTES);
	petal_cache_fence();
	memset((unsigned char *)segment->base + sizeof(uint64_t), 0,
	       segment->total_bytes - sizeof(uint64_t));
	petal_cache_writeback(segment->base, segment->total_bytes);
	petal_cache_fence();
	return 0;
}

static void write_header(const struct petal_segment *segment,
			 const struct petal_segment_header *header)
{
	const size_t magic = sizeof(header->magic);

	memcpy((unsigned char *)segment->base + magic,
	       (const unsigned char *)header + magic, sizeof(*header) - magic);
	if (segment->coherence == PETAL_SEGMENT_NONCOHERENT) {
		petal_cache_writeback(segment->base, sizeof(*header));
		petal_cache_fence();
	}
	/* [MADE] Whoever finds the magic finds the rest of the header. */
	petal_store(shared_magic(segment), header->magic, PETAL_RELEASE(MADE));
	if (segment->coherence == PETAL_SEGMENT_NONCOHERENT) {
		petal_cache_writeback(segment->base, sizeof(*header));
		petal_cache_fence();
	}
}

static int format(struct petal_segment *segment, uint64_t unit)
{
	struct petal_segment_header header = {
		.magic = PETAL_SEGMENT_MAGIC,
		.layout = PETAL_SEGMENT_LAYOUT,
		.header_bytes = (uint32_t)segment->header_bytes,
		.total_bytes = segment->total_bytes,
		.pages = segment->pages,
		.page_bytes = (uint32_t)unit,
		.fixed_bytes = segment->fixed_bytes,
		.extent_bytes = segment->extent_bytes,
		.backing = segment->backing,
		.coherence = segment->coherence,
	};

	/* 16 bytes come whole or not at all: see getrandom(2). */
	if (getrandom(header.generation, sizeof(header.generation), 0) < 0)
		return -errno;
	memcpy(segment->generation, header.generation,
	       sizeof(segment->generation));
	header.header_crc = segment_header_crc(&header);
	write_header(segment, &header);
	return 0;
}

static int seal(const struct petal_segment *segment, bool write_sealed)
{
	if (segment->backing == PETAL_SEGMENT_DAX)
		return 0;
	if (fchmod(segment->fd, write_sealed ? 0400 : 0600))
		return -errno;
	if (segment->backing == PETAL_SEGMENT_FILE)
		return 0;
	if (fcntl(segment->fd, F_ADD_SEALS,
		  SEALS | (write_sealed ? F_SEAL_FUTURE_WRITE : 0)))
		return -errno;
	return 0;
}

static int make(struct petal_segment *segment,
		const struct petal_segment_options *options, uint64_t nodes,
		uint64_t unit)
{
	int outcome = check_memory(segment, nodes);

	if (!outcome)
		outcome = map_new(segment, nodes);
	if (!outcome && segment->backing == PETAL_SEGMENT_DAX)
		outcome = clear_device(segment, options->overwrite);
	if (!outcome)
		outcome = format(segment, unit);
	if (!outcome)
		outcome = seal(segment, options->write_sealed);
	return outcome;
}

static int memfd_open(const char *name, enum petal_segment_pages pages)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd;

	if (pages == PETAL_SEGMENT_PAGES_HUGE_2M)
		flags |= MFD_HUGETLB | MFD_HUGE_2MB;
	if (pages == PETAL_SEGMENT_PAGES_HUGE_1G)
		flags |= MFD_HUGETLB | MFD_HUGE_1GB;
	fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, flags);
	return fd < 0 ? -errno : fd;
}

static int file_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		      0600);

	return fd < 0 ? -errno : fd;
}

/* Sizes that were checked not to leave 63 bits; all of them in whole pages. */
static int plan(const struct petal_segment_options *options, uint64_t unit,
		struct petal_segment *segment)
{
	uint64_t extent_bytes = 0;
	uint64_t extents = 0;

	if (options->reserve_bytes > options->body_bytes) {
		extent_bytes = options->extent_bytes;
		if (extent_bytes == 0)
			extent_bytes = PETAL_SEGMENT_EXTENT_BYTES;
		if (options->extent_bytes == 0 && extent_bytes < unit)
			extent_bytes = unit;
		if (extent_bytes % unit)
			return -EINVAL;
		extents = (options->reserve_bytes - options->body_bytes - 1) /
				  extent_bytes +
			  1;
	}
	if (extents > PETAL_SEGMENT_EXTENTS_MAX)
		return -EFBIG;
	segment->header_bytes = segment_header_bytes(extents);
	segment->fixed_bytes = segment_round_up(
		segment->header_bytes + options->body_bytes, unit);
	segment->extent_bytes = extent_bytes;
	segment->total_bytes = segment->fixed_bytes + extents * extent_bytes;
	return 0;
}

static void unmake(struct petal_segment *segment)
{
	if (segment->base)
		munmap(segment->base, segment->total_bytes);
	close(segment->fd);
}

static int open_memfd(const struct petal_segment_options *options,
		      enum petal_segment_pages pages, uint64_t nodes,
		      struct petal_segment *ret_segment)
{
	struct petal_segment segment = {
		.pages = pages,
		.writable = true,
		.coherence = options->coherence,
	};
	uint64_t unit = page_bytes(pages);
	int outcome = plan(options, unit, &segment);

	if (outcome)
		return outcome;
	segment.fd = memfd_open(options->name, pages);
	if (segment.fd < 0)
		return segment.fd;
	outcome = make(&segment, options, nodes, unit);
	if (outcome)
		unmake(&segment);
	else
		*ret_segment = segment;
	return outcome;
}

static int open_file(const struct petal_segment_options *options,
		     struct petal_segment *ret_segment)
{
	struct petal_segment segment = {
		.pages = PETAL_SEGMENT_PAGES_PLAIN,
		.writable = true,
		.backing = PETAL_SEGMENT_FILE,
		.coherence = options->coherence,
	};
	uint64_t unit = segment_page_bytes();
	int outcome = plan(options, unit, &segment);

	if (outcome)
		return outcome;
	segment.fd = file_open(options->path);
	if (segment.fd < 0)
		return segment.fd;
	outcome = make(&segment, options, 0, unit);
	if (outcome) {
		unlink(options->path);
		unmake(&segment);
		return outcome;
	}
	*ret_segment = segment;
	return 0;
}

static int open_dax(const struct petal_segment_options *options,
		    struct petal_segment *ret_segment)
{
	struct petal_segment segment = {
		.pages = PETAL_SEGMENT_PAGES_DEVICE,
		.writable = true,
		.backing = PETAL_SEGMENT_DAX,
		.coherence = options->coherence,
	};
	struct petal_dax dax;
	int outcome = petal_dax_open(options->path, &segment.fd);

	if (outcome)
		return outcome;
	outcome = petal_dax_look(segment.fd, &dax);
	if (!outcome)
		outcome = plan(options, dax.align_bytes, &segment);
	if (!outcome && segment.total_bytes > dax.bytes)
		outcome = -ENOSPC;
	if (!outcome)
		outcome = make(&segment, options, 0, dax.align_bytes);
	if (outcome)
		unmake(&segment);
	else
		*ret_segment = segment;
	return outcome;
}

static bool grows(const struct petal_segment_options *options)
{
	return options->reserve_bytes > options->body_bytes;
}

static int check_growth(const struct petal_segment_options *options)
{
	uint64_t extent_bytes = options->extent_bytes;

	if (options->reserve_bytes != 0 &&
	    options->reserve_bytes < options->body_bytes)
		return -EINVAL;
	if (options->reserve_bytes > BODY_BYTES_MAX ||
	    extent_bytes > BODY_BYTES_MAX / PETAL_SEGMENT_EXTENTS_MAX)
		return -EFBIG;
	if (extent_bytes & (extent_bytes - 1))
		return -EINVAL;
	if (grows(options) &&
	    (options->write_sealed || options->backing == PETAL_SEGMENT_DAX))
		return -EINVAL;
	return 0;
}

static int check_backing(const struct petal_segment_options *options)
{
	bool named = options->backing != PETAL_SEGMENT_MEMFD;

	if (options->backing > PETAL_SEGMENT_DAX ||
	    named != (options->path != NULL))
		return -EINVAL;
	if (named &&
	    (options->write_sealed || options->huge > PETAL_SEGMENT_HUGE_OFF ||
	     options->place != PETAL_SEGMENT_PLACE_ANY))
		return -EINVAL;
	if (options->overwrite && options->backing != PETAL_SEGMENT_DAX)
		return -EINVAL;
	return 0;
}

static int check_choices(const struct petal_segment_options *options)
{
	bool by_nodes = options->place == PETAL_SEGMENT_PLACE_NODES;

	if (options->huge > PETAL_SEGMENT_HUGE_REQUIRE_1G ||
	    options->place > PETAL_SEGMENT_PLACE_SLOW ||
	    options->coherence > PETAL_SEGMENT_NONCOHERENT ||
	    by_nodes != (options->nodes != 0))
		return -EINVAL;
	if (options->coherence == PETAL_SEGMENT_NONCOHERENT)
		return petal_cache_check();
	return 0;
}

static int check_options(const struct petal_segment_options *options)
{
	int outcome;

	if (!options->name || !*options->name || options->body_bytes == 0)
		return -EINVAL;
	if (strlen(options->name) > PETAL_SEGMENT_NAME_MAX)
		return -ENAMETOOLONG;
	if (options->body_bytes > BODY_BYTES_MAX)
		return -EFBIG;
	outcome = check_choices(options);
	if (!outcome)
		outcome = check_backing(options);
	if (!outcome)
		outcome = check_growth(options);
	return outcome;
}

static int choose_nodes(const struct petal_segment_options *options,
			uint64_t *ret_nodes)
{
	uint64_t exist;
	int outcome;

	*ret_nodes = options->nodes;
	if (options->place == PETAL_SEGMENT_PLACE_ANY)
		return 0;
	if (options->place == PETAL_SEGMENT_PLACE_SLOW)
		return petal_numa_slow(ret_nodes);
	outcome = petal_numa_nodes(&exist);
	if (outcome)
		return outcome;
	return options->nodes & ~exist ? -ENODEV : 0;
}

/* Below this, more than half of a huge page would be wasted. */
static bool huge_is_worth_it(const struct petal_segment_options *options)
{
	return options->huge == PETAL_SEGMENT_HUGE_AUTO && !grows(options) &&
	       options->body_bytes + PETAL_SEGMENT_HEADER_BYTES >=
		       SEGMENT_HUGE_2M_BYTES;
}

static int open_huge(const struct petal_segment_options *options,
		     enum petal_segment_pages pages, uint64_t nodes,
		     struct petal_segment *ret_segment)
{
	int outcome = open_memfd(options, pages, nodes, ret_segment);

	/* The nodes exist, so it is this size of page that does not. */
	return outcome == -ENOMEM || outcome == -ENODEV ? -PETAL_EHUGEPAGES
							: outcome;
}

int petal_segment_open(const struct petal_segment_options *options,
		       struct petal_segment *ret_segment)
{
	uint64_t nodes;
	int outcome = check_options(options);

	if (!outcome)
		outcome = choose_nodes(options, &nodes);
	if (outcome)
		return outcome;
	if (options->backing == PETAL_SEGMENT_FILE)
		return open_file(options, ret_segment);
	if (options->backing == PETAL_SEGMENT_DAX)
		return open_dax(options, ret_segment);
	if (options->huge == PETAL_SEGMENT_HUGE_REQUIRE)
		return open_huge(options, PETAL_SEGMENT_PAGES_HUGE_2M, nodes,
				 ret_segment);
	if (options->huge == PETAL_SEGMENT_HUGE_REQUIRE_1G)
		return open_huge(options, PETAL_SEGMENT_PAGES_HUGE_1G, nodes,
				 ret_segment);
	if (huge_is_worth_it(options) &&
	    open_huge(options, PETAL_SEGMENT_PAGES_HUGE_2M, nodes,
		      ret_segment) == 0)
		return 0;
	/* Whatever hindered huge pages, if it matters it will show again. */
	return open_memfd(options, PETAL_SEGMENT_PAGES_PLAIN, nodes,
			  ret_segment);
}

/* So that first touches cost nothing later. That is all, hence no outcome. */
static void prefault(const struct petal_segment *segment)
{
	if (segment->backing != PETAL_SEGMENT_MEMFD)
		return;
	madvise(segment->base, segment->fixed_bytes,
		segment->writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
}

static int attach(int fd, bool writable, const uint32_t *owner_uid,
		  struct petal_segment *ret_segment)
{
	struct petal_segment segment = { 0 };
	int outcome = segment_check(fd, writable, owner_uid, &segment);

	if (outcome)
		return outcome;
	segment.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (segment.fd < 0)
		return -errno;
	outcome = map(&segment);
	if (outcome) {
		close(segment.fd);
		return outcome;
	}
	prefault(&segment);
	*ret_segment = segment;
	return 0;
}

int petal_segment_attach(int fd, bool writable,
			 struct petal_segment *ret_segment)
{
	return attach(fd, writable, NULL, ret_segment);
}

int petal_segment_attach_owned(int fd, bool writable, uint32_t owner_uid,
			       struct petal_segment *ret_segment)
{
	return attach(fd, writable, &owner_uid, ret_segment);
}

int petal_segment_attach_path(const char *path, bool writable,
			      uint32_t owner_uid,
			      struct petal_segment *ret_segment)
{
	/* O_NONBLOCK, lest a fifo under this name holds us up. */
	int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC |
				    O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	int outcome;

	if (fd < 0)
		return -errno;
	outcome = attach(fd, writable, &owner_uid, ret_segment);
	close(fd);
	return outcome;
}

void petal_segment_close(struct petal_segment *segment)
{
	if (!segment->base)
		return;
	munmap(segment->base, segment->total_bytes);
	close(segment->fd);
	*segment = (struct petal_segment){ .fd = -1 };
}

void *petal_segment_body(const struct petal_segment *segment)
{
	return (unsigned char *)segment->base + segment->header_bytes;
}

uint64_t petal_segment_body_bytes(const struct petal_segment *segment)
{
	return segment->fixed_bytes - segment->header_bytes;
}

const char *petal_segment_pages_name(enum petal_segment_pages pages)
{
	switch (pages) {
	case PETAL_SEGMENT_PAGES_PLAIN:
		return "plain pages";
	case PETAL_SEGMENT_PAGES_HUGE_2M:
		return "huge pages of 2 MiB";
	case PETAL_SEGMENT_PAGES_HUGE_1G:
		return "huge pages of 1 GiB";
	case PETAL_SEGMENT_PAGES_DEVICE:
		return "pages of a device";
	}
	return "unknown pages";
}
