/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_SEGMENT_H
#define PETAL_SHM_SEGMENT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: segment - a contiguous piece of memory that processes share
 *
 *    byte 0        128     4096       header_bytes    fixed_bytes   total_bytes
 *    +-------------+-------+----------+---------------+-------------+
 *    | header      | zero  | table of | body: rings,  | room for    |
 *    | written once|       | extents  | tables, logs  | extents     |
 *    +-------------+-------+----------+---------------+-------------+
 *                          only if it can grow        only if it can grow
 *
 * A segment is, as a rule, a memfd without a name in any file system: who has
 * the fd has the segment, and the last fd or mapping that goes takes the memory
 * along. petal_segment_open() makes one; its fd travels by fork() or
 * SCM_RIGHTS, and petal_segment_attach() maps it in the next process. It may
 * also be a file of any file system, or a device of memory (/dev/daxX.Y); these
 * have a name, outlive their processes, and cannot be sealed, so who attaches
 * says whom he trusts instead (petal_segment_attach_owned()).
 *
 * Always true, of a segment that any of the calls returned: a memfd cannot
 * change its size; every page from 0 to fixed_bytes was allocated at that
 * moment; the geometry in struct petal_segment was checked and is private to
 * this process, so that nobody else can change it. Nothing in the header is
 * read again.
 *
 * Memory: every page up to fixed_bytes is allocated when the segment is made,
 * so that a machine without memory for it says -ENOMEM then, and not SIGBUS
 * later. Huge pages of 2 MiB are taken if they are wanted and the machine has
 * them free, and of 1 GiB if they are required.
 *
 * Growth: a segment that is made with reserve_bytes has the addresses for all
 * of that from the start, in every process, and memory for none of it.
 * shm/extent.h adds memory and retires it, while others use the segment;
 * offsets and mappings stay what they are. It cannot be write_sealed, for the
 * kernel gives no page of such a file back, so it serves one trust domain.
 *
 * Placement: on some NUMA nodes, or on the slow tier, for memfds only. The
 * policy belongs to the file: what is added later obeys it too.
 *
 * Coherence: whether the CPUs that map the segment see each other's stores by
 * themselves, as all memory of one machine does, or only after a write-back and
 * an invalidation (shm/cache.h), as memory that several machines share by CXL.
 * Its maker knows, the header says it to the others.
 *
 * Trust: who has a writable fd may write any byte at any time, and may punch
 * pages out. A punched page reads as zeroes; only if it is of 2 MiB and the
 * machine has no other left does a touch end in SIGBUS. Where that matters,
 * open the segment with write_sealed: then only this process, or whoever
 * inherits this mapping, can ever write, and nobody can punch. The seals can
 * not be changed afterwards, by anybody. The inode is readable by its owner
 * only, so another user who was given a read-only fd cannot open it again for
 * writing; the same user can, unless it is write_sealed. Who may write to a
 * file or device may truncate the one and scribble on both: trust in its owner
 * is all there is, and a truncation under our feet is SIGBUS.
 *
 * Fork: the child shares the mapping and has a copy of the fd; both may close
 * independently. What the parent owns inside the segment stays the parent's:
 * a child that wants to write there first takes an identity of its own.
 *
 * Threads: open and attach may run at any time; close excludes all use of the
 * same struct petal_segment. The accessors may run with each other.
 *
 * Crash: a process that dies while it makes a segment leaves nothing, for no
 * one else had the fd. Of a file or device it leaves bytes without the magic,
 * which is stored last: no segment yet. After that, nothing of the header
 * changes any more.
 */

#define PETAL_SEGMENT_LAYOUT 2u
#define PETAL_SEGMENT_HEADER_BYTES UINT64_C(4096)
#define PETAL_SEGMENT_NAME_MAX 200u
#define PETAL_SEGMENT_GENERATION_BYTES 16u
#define PETAL_SEGMENT_EXTENT_BYTES (UINT64_C(2) << 20)
#define PETAL_SEGMENT_EXTENTS_MAX UINT64_C(65536)
/* The table of extents follows the header: a line, and a word per extent. */
#define PETAL_SEGMENT_TABLE_BYTES(count) (UINT64_C(64) + UINT64_C(8) * (count))

/** enum petal_segment_huge - how much huge pages are wanted */
enum petal_segment_huge {
	/**
	 * @PETAL_SEGMENT_HUGE_AUTO: of 2 MiB from that size on, if there are
	 * any free; never for one that grows, since it could not count on them.
	 */
	PETAL_SEGMENT_HUGE_AUTO,
	/** @PETAL_SEGMENT_HUGE_OFF: never. */
	PETAL_SEGMENT_HUGE_OFF,
	/** @PETAL_SEGMENT_HUGE_REQUIRE: of 2 MiB, or else no segment. */
	PETAL_SEGMENT_HUGE_REQUIRE,
	/** @PETAL_SEGMENT_HUGE_REQUIRE_1G: of 1 GiB, or else no segment. */
	PETAL_SEGMENT_HUGE_REQUIRE_1G,
};

/** enum petal_segment_pages - what a segment consists of; part of the layout */
enum petal_segment_pages {
	/** @PETAL_SEGMENT_PAGES_PLAIN: the machine's ordinary pages. */
	PETAL_SEGMENT_PAGES_PLAIN = 1,
	/** @PETAL_SEGMENT_PAGES_HUGE_2M: reserved pages of 2 MiB. */
	PETAL_SEGMENT_PAGES_HUGE_2M = 2,
	/** @PETAL_SEGMENT_PAGES_HUGE_1G: reserved pages of 1 GiB. */
	PETAL_SEGMENT_PAGES_HUGE_1G = 3,
	/** @PETAL_SEGMENT_PAGES_DEVICE: a device's own, of its alignment. */
	PETAL_SEGMENT_PAGES_DEVICE = 4,
};

/** enum petal_segment_backing - where the memory is from; part of the layout */
enum petal_segment_backing {
	/** @PETAL_SEGMENT_MEMFD: nameless and sealed. */
	PETAL_SEGMENT_MEMFD,
	/** @PETAL_SEGMENT_FILE: a file with a path; not to be sealed. */
	PETAL_SEGMENT_FILE,
	/** @PETAL_SEGMENT_DAX: a device of memory; not to be sealed. */
	PETAL_SEGMENT_DAX,
};

/** enum petal_segment_coherence - who sees a store; part of the layout */
enum petal_segment_coherence {
	/** @PETAL_SEGMENT_COHERENT: every CPU that maps it, by itself. */
	PETAL_SEGMENT_COHERENT,
	/** @PETAL_SEGMENT_NONCOHERENT: after a flush and an invalidation. */
	PETAL_SEGMENT_NONCOHERENT,
};

/** enum petal_segment_place - which memory of the machine is wanted */
enum petal_segment_place {
	/** @PETAL_SEGMENT_PLACE_ANY: as the process's own policy has it. */
	PETAL_SEGMENT_PLACE_ANY,
	/** @PETAL_SEGMENT_PLACE_NODES: on the nodes of a set only. */
	PETAL_SEGMENT_PLACE_NODES,
	/** @PETAL_SEGMENT_PLACE_SLOW: on the nearest node without CPUs. */
	PETAL_SEGMENT_PLACE_SLOW,
};

/**
 * struct petal_segment_header - the first bytes of a segment
 * @magic: PETAL_SEGMENT_MAGIC, "PETALSEG" in memory; stored last
 * @layout: PETAL_SEGMENT_LAYOUT
 * @header_bytes: where the body begins
 * @total_bytes: all of it; the size of a memfd or file
 * @pages: enum petal_segment_pages
 * @page_bytes: the size of one of them
 * @generation: random, so that no two segments are ever taken for one another
 * @fixed_bytes: where the body ends; @total_bytes if it cannot grow
 * @extent_bytes: of what size extents are, a power of two; 0: it cannot grow
 * @backing: enum petal_segment_backing
 * @coherence: enum petal_segment_coherence
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
	uint64_t fixed_bytes;
	uint64_t extent_bytes;
	uint32_t backing;
	uint32_t coherence;
	uint32_t reserved[13];
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
static_assert(offsetof(struct petal_segment_header, fixed_bytes) == 48,
	      "layout");
static_assert(offsetof(struct petal_segment_header, extent_bytes) == 56,
	      "layout");
static_assert(offsetof(struct petal_segment_header, backing) == 64, "layout");
static_assert(offsetof(struct petal_segment_header, coherence) == 68, "layout");
static_assert(offsetof(struct petal_segment_header, reserved) == 72, "layout");
static_assert(offsetof(struct petal_segment_header, header_crc) == 124,
	      "layout");
static_assert(sizeof(struct petal_segment_header) == 128, "layout");

/**
 * struct petal_segment_options - what to make
 * @name: for people, in /proc/PID/maps as "memfd:NAME"; 1 to
 *	PETAL_SEGMENT_NAME_MAX bytes; not an address, need not be unique
 * @body_bytes: how much the caller needs, at least 1; the header is added and
 *	the sum rounded up to whole pages
 * @huge: whether to use huge pages
 * @write_sealed: let only this mapping, now and for ever, be writable
 * @backing: a memfd, a file or a device
 * @path: of the file, which must not exist, or of the device; else NULL
 * @overwrite: take a device even if a segment is on it
 * @coherence: recorded for all who attach
 * @place: which memory of the machine
 * @nodes: bit n for node n, with PETAL_SEGMENT_PLACE_NODES; else 0
 * @reserve_bytes: the most that body and extents may ever have together; 0 or
 *	@body_bytes: it cannot grow
 * @extent_bytes: the unit of growth, a power of two and of whole pages; 0:
 *	PETAL_SEGMENT_EXTENT_BYTES, or one page if that is more
 *
 * What is zero or absent is the usual.
 */
struct petal_segment_options {
	const char *name;
	uint64_t body_bytes;
	enum petal_segment_huge huge;
	bool write_sealed;
	enum petal_segment_backing backing;
	const char *path;
	bool overwrite;
	enum petal_segment_coherence coherence;
	enum petal_segment_place place;
	uint64_t nodes;
	uint64_t reserve_bytes;
	uint64_t extent_bytes;
};

/**
 * struct petal_segment - one mapping of a segment, private to the process
 * @base: the first byte of the header
 * @total_bytes: all that is mapped
 * @fd: the memfd, file or device, close-on-exec, to be sent to others; ours
 * @pages: what it consists of
 * @writable: whether a store to the body is allowed, or ends in SIGSEGV
 * @generation: of this segment, of all segments ever
 * @backing: where the memory is from
 * @coherence: whether stores must be flushed to be seen
 * @header_bytes: where the body begins
 * @fixed_bytes: where the body ends
 * @extent_bytes: of what size extents are; 0: it cannot grow
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
	enum petal_segment_backing backing;
	enum petal_segment_coherence coherence;
	uint64_t header_bytes;
	uint64_t fixed_bytes;
	uint64_t extent_bytes;
};

/**
 * petal_segment_open() - make a segment, map it for writing, and seal it
 * @options: what to make
 * @ret_segment: the segment, its body zeroed
 *
 * Takes as long as the kernel needs to clear the memory. A refusal leaves
 * nothing behind: no file, no descriptor, no byte of a device changed.
 *
 * Return: 0.
 * -EINVAL: no name, no bytes, an unknown choice, or choices that exclude each
 * other: huge pages, places or growth of a device; huge pages or places of a
 * file; growth and write_sealed; write_sealed of what cannot be sealed.
 * -ENAMETOOLONG.
 * -EFBIG: more than a file can have, or than PETAL_SEGMENT_EXTENTS_MAX extents.
 * -ENOMEM: more than the machine, or the nodes, can give.
 * -PETAL_EHUGEPAGES: no huge pages where they are required.
 * -ENODEV: a node that does not exist, or no slow tier.
 * -ENXIO: no such device. -EMEDIUMTYPE: it is not a device of memory.
 * -ENOSPC: more than the device, or the file system, has.
 * -EEXIST: the file exists, or the device holds a segment already.
 * -EOPNOTSUPP: a file system that cannot allocate ahead.
 * Otherwise what the kernel said.
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
 * -EPERM: a memfd or file that its holders could still shrink.
 * -PETAL_EVERSION: a layout that this build does not know.
 * -PETAL_ECORRUPT: a header that fails its CRC, or reserved bytes in use.
 * -PETAL_EGEOMETRY: sizes that contradict each other or the file's own, such as
 * those of a truncated one.
 * -ENODATA: pages are missing; they were never allocated, or punched out.
 * -EROFS: to be written, but sealed against that.
 * -EACCES: to be written, but the fd is for reading.
 * -ENOMEM, -EMFILE: for want of address space, memory or descriptors.
 */
int petal_segment_attach(int fd, bool writable,
			 struct petal_segment *ret_segment);

/**
 * petal_segment_attach_owned() - map a file or device whose owner is trusted
 * @fd: the file or device; stays the caller's, for a duplicate is kept
 * @writable: whether to map it for writing
 * @owner_uid: who must own it, and is trusted not to truncate it, nor to hand
 *	it to somebody who does
 * @ret_segment: the segment
 *
 * A memfd is checked as by petal_segment_attach(), its owner besides.
 *
 * Return: as petal_segment_attach(), and
 * -PETAL_EAUTH: another's, or to be written by group or others too.
 */
int petal_segment_attach_owned(int fd, bool writable, uint32_t owner_uid,
			       struct petal_segment *ret_segment);

/**
 * petal_segment_attach_path() - the same, by the name it has
 * @path: of the file or device; a symbolic link is not followed
 * @writable: whether to map it for writing
 * @owner_uid: who must own it
 * @ret_segment: the segment
 *
 * Return: as petal_segment_attach_owned(), or what open() said: -ENOENT,
 * -EACCES, -ELOOP for a symbolic link.
 */
int petal_segment_attach_path(const char *path, bool writable,
			      uint32_t owner_uid,
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

#ifdef __cplusplus
}
#endif

#endif
