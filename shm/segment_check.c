/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be asked of the file is asked of the file (its kind, its seals, its
 * size, how much of it exists); the header is read once, by pread(), which
 * cannot fault, into memory of our own. A device has no pread(), so one unit of
 * it is mapped to read its header, once its owner is known to be trusted.
 */
#include "shm/segment_check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "shm/cache.h"
#include "shm/crc32c.h"
#include "shm/dax.h"
#include "shm/error.h"

uint64_t segment_page_bytes(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t segment_round_up(uint64_t bytes, uint64_t unit)
{
	return (bytes + unit - 1) / unit * unit;
}

/* The header and, in a segment that can grow, the table behind it. */
uint64_t segment_header_bytes(uint64_t extents)
{
	uint64_t table = extents ? PETAL_SEGMENT_TABLE_BYTES(extents) : 0;

	return PETAL_SEGMENT_HEADER_BYTES +
	       segment_round_up(table, PETAL_SEGMENT_HEADER_BYTES);
}

uint32_t segment_header_crc(const struct petal_segment_header *header)
{
	return petal_crc32c(0, header,
			    offsetof(struct petal_segment_header, header_crc));
}

/* What the kernel says about the file, which its sender cannot lie about. */
struct file_facts {
	uint64_t bytes;
	uint64_t allocated_bytes;
	uint64_t unit;
	enum petal_segment_pages pages;
	enum petal_segment_backing backing;
	int seals;
	uint32_t owner_uid;
	uint32_t mode;
};

static int device_look(int fd, struct file_facts *facts)
{
	struct petal_dax dax;
	int outcome = petal_dax_look(fd, &dax);

	if (outcome)
		return outcome == -EMEDIUMTYPE ? -EINVAL : outcome;
	facts->bytes = dax.bytes;
	facts->allocated_bytes = dax.bytes;
	facts->unit = dax.align_bytes;
	facts->pages = PETAL_SEGMENT_PAGES_DEVICE;
	facts->backing = PETAL_SEGMENT_DAX;
	return 0;
}

static int regular_look(int fd, const struct stat *status,
			struct file_facts *facts)
{
	struct statfs filesystem;
	int seals = fcntl(fd, F_GET_SEALS);

	if (fstatfs(fd, &filesystem))
		return -errno;
	facts->bytes = (uint64_t)status->st_size;
	facts->allocated_bytes = (uint64_t)status->st_blocks * 512;
	facts->pages = PETAL_SEGMENT_PAGES_PLAIN;
	facts->unit = segment_page_bytes();
	if (filesystem.f_type == HUGETLBFS_MAGIC) {
		facts->unit = (uint64_t)filesystem.f_bsize;
		facts->pages = facts->unit == SEGMENT_HUGE_1G_BYTES
				       ? PETAL_SEGMENT_PAGES_HUGE_1G
				       : PETAL_SEGMENT_PAGES_HUGE_2M;
	}
	/* Most files have no seals; one of a tmpfs has, and is no memfd. */
	facts->seals = seals < 0 ? 0 : seals;
	facts->backing = facts->seals & F_SEAL_SHRINK ? PETAL_SEGMENT_MEMFD
						      : PETAL_SEGMENT_FILE;
	return 0;
}

static int file_look(int fd, struct file_facts *ret_facts)
{
	struct file_facts facts = { 0 };
	struct stat status;
	int outcome;

	if (fstat(fd, &status))
		return -errno;
	facts.owner_uid = status.st_uid;
	facts.mode = status.st_mode;
	if (S_ISCHR(status.st_mode))
		outcome = device_look(fd, &facts);
	else if (S_ISREG(status.st_mode))
		outcome = regular_look(fd, &status, &facts);
	else
		outcome = -EINVAL;
	if (outcome)
		return outcome;
	*ret_facts = facts;
	return 0;
}

static int header_copy(int fd, uint64_t unit,
		       struct petal_segment_header *ret_header)
{
	void *base = mmap(NULL, unit, PROT_READ, MAP_SHARED, fd, 0);

	if (base == MAP_FAILED)
		return -errno;
	petal_cache_invalidate(base, sizeof(*ret_header));
	memcpy(ret_header, base, sizeof(*ret_header));
	munmap(base, unit);
	return 0;
}

static int header_load(int fd, const struct file_facts *file,
		       struct petal_segment_header *ret_header)
{
	ssize_t length = sizeof(*ret_header);
	int outcome = 0;

	if (file->backing == PETAL_SEGMENT_DAX)
		outcome = header_copy(fd, file->unit, ret_header);
	else
		length = pread(fd, ret_header, sizeof(*ret_header), 0);
	if (outcome || length < 0)
		return outcome ? outcome : -errno;
	if (length != sizeof(*ret_header) ||
	    ret_header->magic != PETAL_SEGMENT_MAGIC)
		return -EINVAL;
	return 0;
}

static uint64_t extents_of(const struct petal_segment_header *header)
{
	return (header->total_bytes - header->fixed_bytes) /
	       header->extent_bytes;
}

static bool growth_ok(const struct petal_segment_header *header, uint64_t unit)
{
	uint64_t extent_bytes = header->extent_bytes;

	if (extent_bytes == 0)
		return header->fixed_bytes == header->total_bytes &&
		       header->header_bytes == segment_header_bytes(0);
	return header->backing != PETAL_SEGMENT_DAX &&
	       (extent_bytes & (extent_bytes - 1)) == 0 &&
	       extent_bytes % unit == 0 &&
	       header->fixed_bytes < header->total_bytes &&
	       (header->total_bytes - header->fixed_bytes) % extent_bytes ==
		       0 &&
	       extents_of(header) <= PETAL_SEGMENT_EXTENTS_MAX &&
	       header->header_bytes == segment_header_bytes(extents_of(header));
}

static bool size_ok(const struct petal_segment_header *header,
		    const struct file_facts *file)
{
	/* A segment may be smaller than its device. */
	if (file->backing == PETAL_SEGMENT_DAX)
		return header->total_bytes <= file->bytes;
	return header->total_bytes == file->bytes;
}

static int check_geometry(const struct petal_segment_header *header,
			  const struct file_facts *file)
{
	if (!size_ok(header, file) || header->backing != file->backing ||
	    header->pages != file->pages || header->page_bytes != file->unit ||
	    header->total_bytes % file->unit != 0 ||
	    header->fixed_bytes % file->unit != 0 ||
	    header->fixed_bytes <= header->header_bytes ||
	    !growth_ok(header, file->unit))
		return -PETAL_EGEOMETRY;
	return 0;
}

/*
 * Or the sender could make us pay, page by page, for a hole of any size; or be
 * killed for it. What a segment that grows has of the rest may stand in for
 * what it lacks here, so its beginning is looked at where the kernel can tell.
 */
static int check_pages(const struct petal_segment_header *header,
		       const struct file_facts *file, int fd)
{
	off_t hole;

	if (file->allocated_bytes < header->fixed_bytes)
		return -ENODATA;
	if (header->extent_bytes == 0 || file->backing != PETAL_SEGMENT_MEMFD ||
	    file->pages != PETAL_SEGMENT_PAGES_PLAIN)
		return 0;
	hole = lseek(fd, 0, SEEK_HOLE);
	return hole < 0 || (uint64_t)hole < header->fixed_bytes ? -ENODATA : 0;
}

static int check_header(const struct petal_segment_header *header,
			const struct file_facts *file, int fd)
{
	static const uint32_t zero[sizeof(header->reserved) / 4];
	int outcome;

	if (header->layout != PETAL_SEGMENT_LAYOUT)
		return -PETAL_EVERSION;
	if (header->header_crc != segment_header_crc(header) ||
	    header->coherence > PETAL_SEGMENT_NONCOHERENT ||
	    memcmp(header->reserved, zero, sizeof(zero)) != 0)
		return -PETAL_ECORRUPT;
	outcome = check_geometry(header, file);
	return outcome ? outcome : check_pages(header, file, fd);
}

/* Whom the caller trusts; nobody at all, if it is NULL. */
static int check_trust(const struct file_facts *file, const uint32_t *owner_uid)
{
	if (!owner_uid)
		return file->seals & F_SEAL_SHRINK ? 0 : -EPERM;
	if (file->owner_uid != *owner_uid || file->mode & (S_IWGRP | S_IWOTH))
		return -PETAL_EAUTH;
	return 0;
}

int segment_check(int fd, bool writable, const uint32_t *owner_uid,
		  struct petal_segment *ret_segment)
{
	struct petal_segment_header header;
	struct file_facts file = { 0 };
	int outcome = file_look(fd, &file);

	/* Even to read a device's header is to map it. */
	if (!outcome && file.backing == PETAL_SEGMENT_DAX)
		outcome = check_trust(&file, owner_uid);
	if (!outcome)
		outcome = header_load(fd, &file, &header);
	if (!outcome)
		outcome = check_trust(&file, owner_uid);
	if (!outcome)
		outcome = check_header(&header, &file, fd);
	if (outcome)
		return outcome;
	if (writable && file.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return -EROFS;
	ret_segment->total_bytes = header.total_bytes;
	ret_segment->header_bytes = header.header_bytes;
	ret_segment->fixed_bytes = header.fixed_bytes;
	ret_segment->extent_bytes = header.extent_bytes;
	ret_segment->pages = file.pages;
	ret_segment->backing = file.backing;
	ret_segment->coherence = (enum petal_segment_coherence)header.coherence;
	ret_segment->writable = writable;
	memcpy(ret_segment->generation, header.generation,
	       sizeof(ret_segment->generation));
	return 0;
}
