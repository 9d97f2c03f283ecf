/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_JOURNAL_H
#define PETAL_FABRIC_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

/**
 * DOC: journal - what a node has promised to remember, in one file
 *
 * All rings of a node share one file, journal.0, which is preallocated, filled
 * with zeros once, and then written in a circle. A batch is what one ring
 * accepted since its last batch. Its whole pages go to disk straight from the
 * ring's data area; only the ragged ends are copied, into the bounce block
 * that also carries the header:
 *
 *    the ring's data area, in memory
 *        from_pos                                  to_pos
 *           v                                        v
 *    --+----[##+########+########+########+########+###]----+--
 *      |  head | page   | page   | page   | page   |tail    |   4 KiB each
 *           |                 |                       |
 *           v   copied        v   not copied          v   copied
 *    +-------------------+---------------------------------+
 *    | header head tail 0| page    page     page    page   |   one batch
 *    +-------------------+---------------------------------+
 *      1 to 3 blocks       whole pages, in order of position
 *
 *    the file
 *    0      16K   32K                                            bytes
 *    +------+-----+--------+-- --+-------+-- --+-------+---- ----+
 *    | four | try | batch  | old | batch | ... | batch |  older  |
 *    | super| out | s + 9  | laps|   s   |     | s + 8 |  laps   |
 *    +------+-----+--------+-- --+-------+-- --+-------+---- ----+
 *
 * A batch does not wrap around the end of the file. Each header names the
 * batch before it (sequence, place and checksum), the oldest batch that was
 * still needed, and the batch up to which all were durable. Sequences are
 * never used twice, whatever happens to the batch that had one.
 *
 * Always true:  a byte of the file is written over only after a batch that
 *               says it is no longer needed has become durable, and
 *               reported <= durable <= written <= submitted, in sequence.
 *
 * Hence replay has three answers for a batch that cannot be read, and never
 * guesses: nobody ever said it was durable, so it was torn by a crash, and it
 * is dropped and counted with what followed it, for good; a later batch said it
 * was durable, so it is damage, and replay says where; or the oldest batch
 * still needed lies behind it, so it is an older lap and nobody misses it.
 *
 * Who may run together: nothing. All calls, open and close included, come from
 * one thread, which io_uring holds us to. Different journals are independent.
 *
 * Ordering edges: none between threads. The caller has acquired what it
 * appends, and does not change it until the batch is done; one who changes it
 * nevertheless makes a batch that replay will report as damage.
 *
 * Crash: whatever petal_journal_poll() has reported with status 0 is there
 * after a crash of the process or of the machine. What was appended and not
 * reported is there whole or not at all. After kill -9 the kernel may need some
 * milliseconds to finish writes in flight, and the lock is theirs so long:
 * petal_journal_open() says -EBUSY.
 *
 * Failure: the first write that fails, or comes out short, freezes the
 * journal. That batch and all after it are reported as -PETAL_EDISK, nothing
 * is tried again, and what was durable stays so: after a failed flush the
 * kernel may call pages clean that never reached the disk.
 */

struct petal_journal;

enum {
	/** The unit of the file, and of what is written without a copy. */
	PETAL_JOURNAL_BLOCK_BYTES = 4096,
	/** Batches that may be on their way, of as many different rings. */
	PETAL_JOURNAL_INFLIGHT_MAX = 16,
	/** Rings that are attached, or have batches in the file. */
	PETAL_JOURNAL_RINGS_MAX = 1024,
	/** Batches that the file may hold, however large it is. */
	PETAL_JOURNAL_BATCHES_MAX = 1 << 20,
	/** The integer of the format; it moves with every change of layout. */
	PETAL_JOURNAL_VERSION = 2,
};

/** The file's size: at least, and at most. */
#define PETAL_JOURNAL_BYTES_MIN (UINT64_C(1) << 20)
#define PETAL_JOURNAL_BYTES_MAX (UINT64_C(1) << 40)

/** struct petal_journal_options - where the journal is and whose */
struct petal_journal_options {
	/** @dir: an existing directory; the file in it is "journal.0". */
	const char *dir;
	/** @bytes: the file's size, a multiple of 4 KiB within the limits. */
	uint64_t bytes;
	/** @cluster: which fabric; another one's journal is refused. */
	uint8_t cluster[16];
	/** @node: which node of it. */
	uint32_t node;
	/** @direct: write past the page cache, where the file system can. */
	bool direct;
};

/** struct petal_journal_range - accepted bytes of one ring */
struct petal_journal_range {
	uint64_t ring;
	/** @from_pos: first byte; the area's offset is pos % data_bytes. */
	uint64_t from_pos;
	/** @to_pos: the byte after the last. */
	uint64_t to_pos;
	/** @from_lsn: recorded as given, like all below. */
	uint64_t from_lsn;
	uint64_t to_lsn;
	uint64_t trim_pos;
	uint64_t whole_pos;
	/** @data_bytes: filled by replay; petal_journal_append() ignores it. */
	uint64_t data_bytes;
	uint32_t epoch;
};

/** struct petal_journal_done - a batch is durable, or never will be */
struct petal_journal_done {
	uint64_t ring;
	uint64_t to_pos;
	uint64_t to_lsn;
	/** @status: 0, or -PETAL_EDISK. */
	int status;
};

/** struct petal_journal_damage - what replay could not get past */
struct petal_journal_damage {
	/** @sequence: the batch that was durable once. */
	uint64_t sequence;
	/** @file_offset: where it should be; 0 if no header says. */
	uint64_t file_offset;
	/** @named: its header is good, and @range says what is lost. */
	bool named;
	struct petal_journal_range range;
};

/** struct petal_journal_stats - what the journal counts, and what it got */
struct petal_journal_stats {
	/** @engine: "io_uring" or "posix". */
	const char *engine;
	/** @capacity_bytes: room for batches; @used_bytes of it are taken. */
	uint64_t capacity_bytes;
	uint64_t used_bytes;
	/** @range_bytes_max: the longest range that one append takes. */
	uint64_t range_bytes_max;
	/** @live_batches: batches that the file must keep. */
	uint64_t live_batches;
	/** @oldest_ring: whose batch keeps the most space from being freed. */
	uint64_t oldest_ring;
	/** @oldest_to_pos: trim that ring to here and it no longer does. */
	uint64_t oldest_to_pos;
	/** @batches: appended since open; @notes carried no bytes of a ring. */
	uint64_t batches;
	uint64_t notes;
	/** @copied_bytes: accepted bytes that went through a bounce block. */
	uint64_t copied_bytes;
	/** @direct_bytes: accepted bytes that went straight from the area. */
	uint64_t direct_bytes;
	/** @padding_bytes: headers, zeros, and ends of the file left out. */
	uint64_t padding_bytes;
	/** @refused_full: appends refused because no space was free. */
	uint64_t refused_full;
	/** @refused_busy: appends refused because too much was in flight. */
	uint64_t refused_busy;
	/** @replayed_batches: live batches that replay visited. */
	uint64_t replayed_batches;
	/** @dropped_batches: what replay dropped because nobody promised it. */
	uint64_t dropped_batches;
	/** @unreadable_blocks: blocks that the disk would not give us. */
	uint64_t unreadable_blocks;
	/** @superblocks_repaired: copies that open found bad and rewrote. */
	uint64_t superblocks_repaired;
	/** @areas: data areas attached; @areas_fixed of them are registered. */
	uint32_t areas;
	uint32_t areas_fixed;
	/** @bounce_fixed: the bounce blocks are registered buffers. */
	bool bounce_fixed;
	/** @direct: O_DIRECT is in force; false if refused or not wanted. */
	bool direct;
	/** @memory_only: the file system is in memory: nothing is durable. */
	bool memory_only;
	/** @frozen: a write failed; @frozen_status says how. */
	bool frozen;
	int frozen_status;
};

/**
 * petal_journal_open() - lock the node's journal, or make one
 * @options: copied
 * @ret_journal: the journal
 *
 * A new file is made under another name, given all its blocks, filled with
 * zeros, flushed, and only then named journal.0, so that half a journal never
 * bears that name. An existing file is never made anew, however bad it looks.
 * Blocks for as long as writing @bytes of zeros takes.
 *
 * Each open tries a block out, written and read back; if O_DIRECT fails there
 * or at open, the journal writes through the page cache and its statistics say
 * so.
 *
 * Return: 0; -EINVAL for sizes beyond the limits; -ENOENT without @dir; -EBUSY
 * while another process, or a dead one's last writes, hold it; -ENOSPC, and no
 * file is left; -EFBIG beyond the process's own limit of file size;
 * -PETAL_EVERSION for another format; -PETAL_EAUTH for another cluster or node;
 * -PETAL_EGEOMETRY for a file of another size; -PETAL_ECORRUPT if no two of the
 * four superblocks agree; -ENOSYS or -EPERM where io_uring is forbidden.
 */
int petal_journal_open(const struct petal_journal_options *options,
		       struct petal_journal **ret_journal);

/**
 * petal_journal_replay() - see every live batch, and find where to go on
 * @journal: just opened; nothing can be appended before
 * @visit: is lent the range and its to_pos - from_pos bytes, 8-byte aligned
 *         if from_pos is; other than 0 stops, and is returned
 * @arg: for @visit
 *
 * Batches come in the order in which they were appended. Trimming is recorded
 * with the next batch and in order only, so that batches below the ring's last
 * trim_pos, or of a ring detached before, may come once more.
 *
 * Reads the whole file once, and the live batches twice. If it drops batches
 * that a crash has torn, it writes a note, so that they never come back; if
 * that fails, the journal is frozen.
 *
 * Return: 0; -PETAL_ECORRUPT if a batch that was durable cannot be read, which
 * petal_journal_damage() names: batches before it may have been visited, those
 * after it have not, and every append is refused so that nothing is written
 * over; -EALREADY the second time; what @visit returned; -EIO, -ENOMEM.
 */
typedef int (*petal_journal_visit)(void *arg,
				   const struct petal_journal_range *range,
				   const void *bytes);
int petal_journal_replay(struct petal_journal *journal,
			 petal_journal_visit visit, void *arg);

/**
 * petal_journal_damage() - where replay found what it could not read
 *
 * Return: 0; -ENODATA if it found no damage.
 */
int petal_journal_damage(const struct petal_journal *journal,
			 struct petal_journal_damage *ret_damage);

/**
 * petal_journal_fd() - what to sleep on
 *
 * It may be readable for nothing. After petal_journal_close() of another one,
 * the kernel may interrupt a sleep of this thread once, with -EINTR.
 *
 * Return: an eventfd, readable when petal_journal_poll() may find something.
 */
int petal_journal_fd(const struct petal_journal *journal);

/**
 * petal_journal_attach() - say where a ring's bytes are
 * @ring: any number
 * @data: the data area, 4 KiB aligned; it stays mapped until detached
 * @data_bytes: a power of two, at least 4 KiB
 *
 * Attaching again moves the ring to another area and leaves its batches alone;
 * its positions go on. To let them start again, detach first.
 * The area is registered with the kernel, up to 1 GiB of it and if the limit
 * of locked memory allows; otherwise it works unregistered, and areas_fixed in
 * the statistics stays behind areas.
 *
 * Return: 0; -EINVAL for a bad area; -EBUSY while a batch of the ring is in
 * flight; -ENOSPC beyond PETAL_JOURNAL_RINGS_MAX.
 */
int petal_journal_attach(struct petal_journal *journal, uint64_t ring,
			 const void *data, uint64_t data_bytes);

/**
 * petal_journal_detach() - forget a ring and free all its batches
 *
 * Not for a clean end: petal_journal_close() keeps the batches. Also frees
 * what replay found of a ring that nobody has attached.
 *
 * Return: 0; -ENOENT for an unknown ring; -EBUSY while a batch is in flight.
 */
int petal_journal_detach(struct petal_journal *journal, uint64_t ring);

/**
 * petal_journal_retire() - a ring is appended to no more
 * @ring: attached; it keeps its batches, and its area may go
 *
 * Return: 0; -ENOENT for an unknown ring; -EBUSY while a batch is in flight.
 */
int petal_journal_retire(struct petal_journal *journal, uint64_t ring);

/**
 * petal_journal_append() - send one batch on its way
 * @range: accepted bytes, which stay as they are until done; not empty, at
 *         most data_bytes and at most range_bytes_max of the statistics
 *
 * Never blocks with io_uring. Batches become durable, and are reported, in the
 * order of their appends, whatever the disk does.
 *
 * Return: 0, and petal_journal_poll() will tell; -EBUSY while one of the ring
 * is in flight; -EAGAIN if there is no space or too much in flight: try again
 * after petal_journal_trim() and after each petal_journal_poll(); -ENOENT for a
 * ring that is not attached; -EMSGSIZE for a range that is too long; -EINVAL
 * for one that makes no sense, or before replay; -PETAL_EDISK when frozen;
 * -PETAL_ECORRUPT after damage.
 */
int petal_journal_append(struct petal_journal *journal,
			 const struct petal_journal_range *range);

/**
 * petal_journal_poll() - learn what became durable
 * @done: filled, in the order of the appends
 * @max: room in @done; if all is used, call again before sleeping
 *
 * Return: how many were filled, 0 if nothing happened.
 */
int petal_journal_poll(struct petal_journal *journal,
		       struct petal_journal_done *done, unsigned int max);

/**
 * petal_journal_trim() - give back the space of what is no longer needed
 * @ring: attached, or seen by replay
 * @pos: batches that end at or below this may go; never moves back
 *
 * Space becomes free in order from the oldest batch, whosever it is, and only
 * once a durable batch says so: usually the next one, and if space is short,
 * one without bytes that is written for the purpose.
 *
 * Return: 0; -ENOENT for an unknown ring.
 */
int petal_journal_trim(struct petal_journal *journal, uint64_t ring,
		       uint64_t pos);

/**
 * petal_journal_uuid() - which journal this is
 * @ret_uuid: drawn when the file was made, and another one for each file
 */
void petal_journal_uuid(const struct petal_journal *journal,
			uint8_t ret_uuid[16]);

/** petal_journal_stats() - a copy of what is counted */
void petal_journal_stats(const struct petal_journal *journal,
			 struct petal_journal_stats *ret_stats);

/**
 * petal_journal_close() - wait for what is in flight, and let go
 * @journal: NULL is fine
 *
 * A last note says that all before it were durable, so that damage to the last
 * batch can be told from a torn one.
 */
void petal_journal_close(struct petal_journal *journal);

#endif
