/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_SEGMENT_H
#define PETAL_SHM_SEGMENT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * DOC: segment - a contiguous piece of memory that processes share
 *
 *    byte 0        64                   4096                    total_bytes
 *    +-------------+--------------------+------------------------------+
 *    | header      | zero               | body: rings, tables, logs    |
 *    | written once|                    | zero when new, 4 KiB aligned |
 *    +-------------+--------------------+------------------------------+
 *
 * A segment is a memfd without a name in any file system: who has the fd has
 * the segment, and the last fd or mapping that goes takes the memory along.
 * petal_segment_open() makes one; its fd travels by fork() or SCM_RIGHTS, and
 * petal_segment_attach() maps it in the next process.
 *
 * Always true, of a segment that either call returned: it cannot shrink or
 * grow; every page of it was allocated at that moment; the geometry in struct
 * petal_segment was checked and is private to this process, so that nobody
 * else can change it. Nothing in the header is read again.
 *
 * Memory: every page is allocated when the segment is made, so that a machine
 * without memory for it says -ENOMEM then, and not SIGBUS later. Huge pages of
 * 2 MiB are taken if they are wanted and the machine has them free.
 *
 * Trust: who has a writable fd may write any byte at any time, and may punch
 * pages out. A punched page reads as zeroes; only if it is of 2 MiB and the
 * machine has no other left does a touch end in SIGBUS. Where that matters,
 * open the segment with write_sealed: then only this process, or whoever
 * inherits this mapping, can ever write, and nobody can punch. The seals can
 * not be changed afterwards, by anybody. The inode is readable by its owner
 * only, so another user who was given a read-only fd cannot open it again for
 * writing; the same user can, unless it is write_sealed.
 *
 * Fork: the child shares the mapping and has a copy of the fd; both may close
 * independently. What the parent owns inside the segment stays the parent's:
 * a child that wants to write there first takes an identity of its own.
 *
 * Threads: open and attach may run at any time; close excludes all use of the
 * same struct petal_segment. The accessors may run with each other.
 *
 * Crash: a process that dies while it makes a segment leaves nothing, for no
 * one else had the fd. After that, nothing of the header changes any more.
 */

#define PETAL_SEGMENT_LAYOUT 1u
#define PETAL_SEGMENT_HEADER_BYTES UINT64_C(4096)
#define PETAL_SEGMENT_NAME_MAX 200u
#define PETAL_SEGMENT_GENERATION_BYTES 16u

/** enum petal_segment_huge - how much huge pages are wanted */
enum petal_segment_huge {
	/** @PETAL_SEGMENT_HUGE_AUTO: from 2 MiB on, if there are any free. */
	PETAL_SEGMENT_HUGE_AUTO,
	/** @PETAL_SEGMENT_HUGE_OFF: never. */
	PETAL_SEGMENT_HUGE_OFF,
	/** @PETAL_SEGMENT_HUGE_REQUIRE: or else no segment. */
	PETAL_SEGMENT_HUGE_REQUIRE,
};

/** enum petal_segment_pages - what a segment consists of; part of the layout */
enum petal_segment_pages {
	/** @PETAL_SEGMENT_PAGES_PLAIN: the machine's ordinary pages. */
	PETAL_SEGMENT_PAGES_PLAIN = 1,
	/** @PETAL_SEGMENT_PAGES_HUGE_2M: reserved pages of 2 MiB. */
	PETAL_SEGMENT_PAGES_HUGE_2M = 2,
};

/**
 * struct petal_segment_header - the first bytes of a segment
 * @magic: PETAL_SEGMENT_MAGIC, "PETALSEG" in memory
 * @layout: PETAL_SEGMENT_LAYOUT
 * @header_bytes: where the body begins
 * @total_bytes: header and body; the size of the file
 * @pages: enum petal_segment_pages
 * @page_bytes: the size of one of them
 * @generation: random, so that no two segments are ever taken for one another
 * @reserved: zero
 * @header_crc: CRC-32C of all bytes before it
 */
struct petal_segment_header {
	uint64_t magic;
	uint32_t layout;
	uint32_t header_bytes;
	uint64_t total_bytes;
	uint32_t pages;
	uint32_t page_bytes;
	uint8_t generation[PETAL_SEGMENT_GENERATION_BYTES];
	uint32_t reserved[3];
	uint32_t header_crc;
};

#define PETAL_SEGMENT_MAGIC UINT64_C(0x4745534c41544550)

static_assert(offsetof(struct petal_segment_header, magic) == 0, "layout");
static_assert(offsetof(struct petal_segment_header, layout) == 8, "layout");
static_assert(offsetof(struct petal_segment_header, header_bytes) == 12,
	      "layout");
static_assert(offsetof(struct petal_segment_header, total_bytes) == 16,
	      "layout");
static_assert(offsetof(struct petal_segment_header, pages) == 24, "layout");
static_assert(offsetof(struct petal_segment_header, page_bytes) == 28,
	      "layout");
static_assert(offsetof(struct petal_segment_header, generation) == 32,
	      "layout");
static_assert(offsetof(struct petal_segment_header, reserved) == 48, "layout");
static_assert(offsetof(struct petal_segment_header, header_crc) == 60,
	      "layout");
static_assert(sizeof(struct petal_segment_header) == 64, "layout");

/**
 * struct petal_segment_options - what to make
 * @name: for people, in /proc/PID/maps as "memfd:NAME"; 1 to
 *	PETAL_SEGMENT_NAME_MAX bytes; not an address, need not be unique
 * @body_bytes: how much the caller needs, at least 1; the header is added and
 *	the sum rounded up to whole pages
 * @huge: whether to use huge pages
 * @write_sealed: let only this mapping, now and for ever, be writable
 */
struct petal_segment_options {
	const char *name;
	uint64_t body_bytes;
	enum petal_segment_huge huge;
	bool write_sealed;
};

/**
 * struct petal_segment - one mapping of a segment, private to the process
 * @base: the first byte of the header
 * @total_bytes: header and body
 * @fd: the memfd, close-on-exec, to be sent to others; stays ours
 * @pages: what it consists of
 * @writable: whether a store to the body is allowed, or ends in SIGSEGV
 * @generation: of this segment, of all segments ever
 *
 * For reading only; a zeroed one counts as closed.
 */
struct petal_segment {
	void *base;
	uint64_t total_bytes;
	int fd;
	enum petal_segment_pages pages;
	bool writable;
	uint8_t generation[PETAL_SEGMENT_GENERATION_BYTES];
};

/**
 * petal_segment_open() - make a segment, map it for writing, and seal it
 * @options: what to make
 * @ret_segment: the segment, its body zeroed
 *
 * Takes as long as the kernel needs to clear the memory.
 *
 * Return: 0. -EINVAL: no name, no bytes, or an unknown huge. -ENAMETOOLONG.
 * -EFBIG: more than a file can have. -ENOMEM: more than the machine can give,
 * or no huge pages where they are required. Otherwise what the kernel said.
 */
int petal_segment_open(const struct petal_segment_options *options,
		       struct petal_segment *ret_segment);

/**
 * petal_segment_attach() - map a segment that someone else made
 * @fd: the memfd; stays the caller's, for a duplicate is kept
 * @writable: whether to map it for writing
 * @ret_segment: the segment
 *
 * The fd may come from anyone. Nothing is mapped before it has been checked,
 * and no more memory is touched than its maker has already paid for.
 *
 * Return: 0.
 * -EBADF: not a descriptor open for reading.
 * -EINVAL: not a segment at all: not a memfd, or without the magic.
 * -EPERM: a memfd that its holders could still shrink.
 * -PETAL_EVERSION: a layout that this build does not know.
 * -PETAL_ECORRUPT: a header that fails its CRC, or reserved bytes in use.
 * -PETAL_EGEOMETRY: sizes that contradict each other or the file's own.
 * -ENODATA: pages are missing; they were never allocated, or punched out.
 * -EROFS: to be written, but sealed against that.
 * -EACCES: to be written, but the fd is for reading.
 * -ENOMEM, -EMFILE: for want of address space, memory or descriptors.
 */
int petal_segment_attach(int fd, bool writable,
			 struct petal_segment *ret_segment);

/**
 * petal_segment_close() - unmap it and close the fd
 * @segment: the segment; if closed already, nothing happens
 *
 * Others keep theirs.
 */
void petal_segment_close(struct petal_segment *segment);

/**
 * petal_segment_body() - where the caller's bytes begin
 * @segment: the segment
 *
 * Return: a 4 KiB aligned address; read only unless @segment->writable.
 */
void *petal_segment_body(const struct petal_segment *segment);

/**
 * petal_segment_body_bytes() - how many bytes are the caller's
 * @segment: the segment
 *
 * Return: at least what was asked for when the segment was made.
 */
uint64_t petal_segment_body_bytes(const struct petal_segment *segment);

/**
 * petal_segment_pages_name() - what a segment consists of, in words
 * @pages: segment->pages
 *
 * Return: a constant string such as "huge pages of 2 MiB"; never NULL.
 */
const char *petal_segment_pages_name(enum petal_segment_pages pages);

#endif
