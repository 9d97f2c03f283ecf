/* SPDX-License-Identifier: Apache-2.0 */
/*
 * To open: create a memfd, size it, map it, make the kernel allocate every
 * page, write the header, and seal. The order matters three times. A memfd of
 * huge pages is created and sized without any being free; it is mmap() or the
 * allocation that fails, so the way back to plain pages begins after those.
 * The mapping comes before the seals, for F_SEAL_FUTURE_WRITE refuses any
 * later one. And the header comes before the seals too, so that whoever finds
 * a sealed file finds it complete.
 *
 * To attach: what can be asked of the file is asked of the file (its kind, its
 * seals, its size, how much of it exists); the header is read once, by pread(),
 * which cannot fault, into memory of our own; and only then is it mapped.
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

#include "shm/crc32c.h"
#include "shm/error.h"

/* Newer than the headers of Debian 12; an older kernel answers -EINVAL. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define HUGE_BYTES (UINT64_C(2) << 20)
#define BODY_BYTES_MAX (INT64_MAX - HUGE_BYTES - PETAL_SEGMENT_HEADER_BYTES)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static uint64_t plain_page_bytes(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t page_bytes(enum petal_segment_pages pages)
{
	if (pages == PETAL_SEGMENT_PAGES_HUGE_2M)
		return HUGE_BYTES;
	return plain_page_bytes();
}

static uint64_t round_up(uint64_t bytes, uint64_t unit)
{
	return (bytes + unit - 1) / unit * unit;
}

static int seals_wanted(const struct petal_segment_options *options)
{
	return SEALS | (options->write_sealed ? F_SEAL_FUTURE_WRITE : 0);
}

static int memfd_open(const char *name, enum petal_segment_pages pages)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd;

	if (pages == PETAL_SEGMENT_PAGES_HUGE_2M)
		flags |= MFD_HUGETLB | MFD_HUGE_2MB;
	fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, flags);
	return fd < 0 ? -errno : fd;
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

static int allocate(int fd, void *base, uint64_t bytes)
{
	if (madvise(base, bytes, MADV_POPULATE_WRITE) == 0)
		return 0;
	/* What would have been SIGBUS is EFAULT here: no page to be had. */
	if (errno == EFAULT)
		return -ENOMEM;
	if (errno != EINVAL)
		return -errno;
	/* Before Linux 5.14: the pages exist, if not yet in our tables. */
	return fallocate(fd, 0, 0, (off_t)bytes) ? -errno : 0;
}

static int map(struct petal_segment *segment)
{
	int protection = PROT_READ | (segment->writable ? PROT_WRITE : 0);
	void *base = mmap(NULL, segment->total_bytes, protection, MAP_SHARED,
			  segment->fd, 0);

	if (base == MAP_FAILED)
		return -errno;
	segment->base = base;
	return 0;
}

static int map_new(struct petal_segment *segment)
{
	int outcome;

	if (ftruncate(segment->fd, (off_t)segment->total_bytes))
		return -errno;
	outcome = map(segment);
	if (outcome)
		return outcome;
	/* Advice, which kernels by default ignore for shared memory. */
	if (segment->pages == PETAL_SEGMENT_PAGES_PLAIN &&
	    segment->total_bytes >= HUGE_BYTES)
		madvise(segment->base, segment->total_bytes, MADV_HUGEPAGE);
	return allocate(segment->fd, segment->base, segment->total_bytes);
}

static uint32_t header_crc(const struct petal_segment_header *header)
{
	return petal_crc32c(0, header,
			    offsetof(struct petal_segment_header, header_crc));
}

static int format(struct petal_segment *segment)
{
	struct petal_segment_header header = {
		.magic = PETAL_SEGMENT_MAGIC,
		.layout = PETAL_SEGMENT_LAYOUT,
		.header_bytes = PETAL_SEGMENT_HEADER_BYTES,
		.total_bytes = segment->total_bytes,
		.pages = segment->pages,
		.page_bytes = (uint32_t)page_bytes(segment->pages),
	};

	/* 16 bytes come whole or not at all: see getrandom(2). */
	if (getrandom(header.generation, sizeof(header.generation), 0) < 0)
		return -errno;
	memcpy(segment->generation, header.generation,
	       sizeof(segment->generation));
	header.header_crc = header_crc(&header);
	memcpy(segment->base, &header, sizeof(header));
	return 0;
}

static int seal(const struct petal_segment *segment,
		const struct petal_segment_options *options)
{
	if (fchmod(segment->fd, options->write_sealed ? 0400 : 0600))
		return -errno;
	if (fcntl(segment->fd, F_ADD_SEALS, seals_wanted(options)))
		return -errno;
	return 0;
}

static int make(struct petal_segment *segment,
		const struct petal_segment_options *options)
{
	int outcome = map_new(segment);

	if (!outcome)
		outcome = format(segment);
	if (!outcome)
		outcome = seal(segment, options);
	return outcome;
}

static int open_with(const struct petal_segment_options *options,
		     enum petal_segment_pages pages,
		     struct petal_segment *ret_segment)
{
	struct petal_segment segment = {
		.total_bytes = round_up(options->body_bytes +
						PETAL_SEGMENT_HEADER_BYTES,
					page_bytes(pages)),
		.pages = pages,
		.writable = true,
	};
	int outcome = 0;

	if (pages == PETAL_SEGMENT_PAGES_PLAIN)
		outcome = memory_suffices(segment.total_bytes);
	if (outcome)
		return outcome;
	segment.fd = memfd_open(options->name, pages);
	if (segment.fd < 0)
		return segment.fd;
	outcome = make(&segment, options);
	if (outcome) {
		if (segment.base)
			munmap(segment.base, segment.total_bytes);
		close(segment.fd);
		return outcome;
	}
	*ret_segment = segment;
	return 0;
}

static int check_options(const struct petal_segment_options *options)
{
	if (!options->name || !*options->name || options->body_bytes == 0)
		return -EINVAL;
	if (options->huge > PETAL_SEGMENT_HUGE_REQUIRE)
		return -EINVAL;
	if (strlen(options->name) > PETAL_SEGMENT_NAME_MAX)
		return -ENAMETOOLONG;
	if (options->body_bytes > BODY_BYTES_MAX)
		return -EFBIG;
	return 0;
}

/* Below this, more than half of a huge page would be wasted. */
static bool huge_is_worth_it(const struct petal_segment_options *options)
{
	return options->body_bytes + PETAL_SEGMENT_HEADER_BYTES >= HUGE_BYTES;
}

int petal_segment_open(const struct petal_segment_options *options,
		       struct petal_segment *ret_segment)
{
	int outcome = check_options(options);

	if (outcome)
		return outcome;
	if (options->huge == PETAL_SEGMENT_HUGE_REQUIRE)
		return open_with(options, PETAL_SEGMENT_PAGES_HUGE_2M,
				 ret_segment);
	if (options->huge == PETAL_SEGMENT_HUGE_AUTO &&
	    huge_is_worth_it(options) &&
	    open_with(options, PETAL_SEGMENT_PAGES_HUGE_2M, ret_segment) == 0)
		return 0;
	/* Whatever hindered huge pages, if it matters it will show again. */
	return open_with(options, PETAL_SEGMENT_PAGES_PLAIN, ret_segment);
}

/* What the kernel says about the file, which its sender cannot lie about. */
struct file_facts {
	uint64_t bytes;
	uint64_t allocated_bytes;
	enum petal_segment_pages pages;
	int seals;
};

static int file_look(int fd, struct file_facts *ret_facts)
{
	struct stat status;
	struct statfs filesystem;
	int seals;

	if (fstat(fd, &status))
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -EINVAL;
	/* -EINVAL for what is no memfd, as we want it. */
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || fstatfs(fd, &filesystem))
		return -errno;
	ret_facts->bytes = (uint64_t)status.st_size;
	ret_facts->allocated_bytes = (uint64_t)status.st_blocks * 512;
	ret_facts->pages = filesystem.f_type == HUGETLBFS_MAGIC
				   ? PETAL_SEGMENT_PAGES_HUGE_2M
				   : PETAL_SEGMENT_PAGES_PLAIN;
	ret_facts->seals = seals;
	return 0;
}

static int header_load(int fd, struct petal_segment_header *ret_header)
{
	ssize_t length = pread(fd, ret_header, sizeof(*ret_header), 0);

	if (length < 0)
		return -errno;
	if (length != sizeof(*ret_header) ||
	    ret_header->magic != PETAL_SEGMENT_MAGIC)
		return -EINVAL;
	return 0;
}

static int check_geometry(const struct petal_segment_header *header,
			  const struct file_facts *file)
{
	uint64_t unit = page_bytes(file->pages);

	if (header->header_bytes != PETAL_SEGMENT_HEADER_BYTES ||
	    header->total_bytes != file->bytes ||
	    header->total_bytes <= PETAL_SEGMENT_HEADER_BYTES ||
	    header->total_bytes % unit != 0 || header->pages != file->pages ||
	    header->page_bytes != unit)
		return -PETAL_EGEOMETRY;
	return 0;
}

static int check_header(const struct petal_segment_header *header,
			const struct file_facts *file)
{
	static const uint32_t zero[3];
	int outcome;

	if (header->layout != PETAL_SEGMENT_LAYOUT)
		return -PETAL_EVERSION;
	if (header->header_crc != header_crc(header) ||
	    memcmp(header->reserved, zero, sizeof(zero)) != 0)
		return -PETAL_ECORRUPT;
	outcome = check_geometry(header, file);
	if (outcome)
		return outcome;
	/*
	 * Or the sender could make us pay, page by page, for a hole of any
	 * size; or be killed for it.
	 */
	return file->allocated_bytes < file->bytes ? -ENODATA : 0;
}

static int attach_check(int fd, bool writable, struct petal_segment *segment)
{
	struct petal_segment_header header;
	struct file_facts file = { 0 };
	int outcome = file_look(fd, &file);

	if (!outcome)
		outcome = header_load(fd, &header);
	if (outcome)
		return outcome;
	if (!(file.seals & F_SEAL_SHRINK))
		return -EPERM;
	outcome = check_header(&header, &file);
	if (outcome)
		return outcome;
	if (writable && file.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return -EROFS;
	segment->total_bytes = file.bytes;
	segment->pages = file.pages;
	segment->writable = writable;
	memcpy(segment->generation, header.generation,
	       sizeof(segment->generation));
	return 0;
}

/* So that first touches cost nothing later. That is all, hence no outcome. */
static void prefault(const struct petal_segment *segment)
{
	madvise(segment->base, segment->total_bytes,
		segment->writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
}

int petal_segment_attach(int fd, bool writable,
			 struct petal_segment *ret_segment)
{
	struct petal_segment segment = { 0 };
	int outcome = attach_check(fd, writable, &segment);

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
	return (unsigned char *)segment->base + PETAL_SEGMENT_HEADER_BYTES;
}

uint64_t petal_segment_body_bytes(const struct petal_segment *segment)
{
	return segment->total_bytes - PETAL_SEGMENT_HEADER_BYTES;
}

const char *petal_segment_pages_name(enum petal_segment_pages pages)
{
	switch (pages) {
	case PETAL_SEGMENT_PAGES_PLAIN:
		return "plain pages";
	case PETAL_SEGMENT_PAGES_HUGE_2M:
		return "huge pages of 2 MiB";
	}
	return "unknown pages";
}
