/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_JOURNAL_IO_H
#define PETAL_FABRIC_JOURNAL_IO_H

#include <stdbool.h>
#include <stdint.h>

#include <sys/uio.h>

/**
 * DOC: journal_io - how the journal's bytes reach the disk
 *
 * Private to the journal's own files. journal_uring.c and journal_posix.c
 * implement it, meson links one of them, and the files that they write are the
 * same.
 *
 * One write is up to three pieces of memory that go to consecutive bytes of the
 * file. It is complete when all of them are on stable media, or when one of
 * them failed and none is in the hands of the kernel any more. Writes complete
 * in any order; nothing is tried again.
 *
 * Who may run together: nothing; all calls come from the thread that opened.
 */

struct petal_journal_io;

enum {
	PETAL_JOURNAL_PIECES_MAX = 3,
};

/** struct petal_journal_write - what to write and where */
struct petal_journal_write {
	uint64_t offset;
	/** @cookie: comes back with the completion. */
	uint64_t cookie;
	/** @pieces: multiples of 4 KiB, 4 KiB aligned, unchanged until done. */
	struct iovec pieces[PETAL_JOURNAL_PIECES_MAX];
	/** @buffers: which registered buffer holds the piece. */
	unsigned int buffers[PETAL_JOURNAL_PIECES_MAX];
	unsigned int piece_count;
};

/** struct petal_journal_written - what became of it */
struct petal_journal_written {
	uint64_t cookie;
	/** @status: 0, or what failed; a short write is -EIO. */
	int status;
};

/** petal_journal_io_name() - the engine's name, for the statistics */
const char *petal_journal_io_name(void);

/**
 * petal_journal_io_open_flags() - what open(2) needs beside O_DIRECT
 *
 * Return: O_DSYNC, or 0 if the engine flushes by itself.
 */
int petal_journal_io_open_flags(void);

/**
 * petal_journal_io_open() - make an engine
 * @fd: the file; it stays the caller's
 * @writes_max: writes that will be submitted and not yet reaped
 * @buffers_max: buffers that will be registered
 *
 * Return: 0, or why the kernel refused.
 */
int petal_journal_io_open(int fd, unsigned int writes_max,
			  unsigned int buffers_max,
			  struct petal_journal_io **ret_io);

/** petal_journal_io_close() - after everything submitted was reaped */
void petal_journal_io_close(struct petal_journal_io *io);

/** petal_journal_io_fd() - an eventfd, readable when reap may find something */
int petal_journal_io_fd(const struct petal_journal_io *io);

/**
 * petal_journal_io_register() - let the kernel keep hold of some memory
 * @buffer: below buffers_max and not registered
 *
 * Return: 0; negative if it will not, and writes from there work nevertheless.
 */
int petal_journal_io_register(struct petal_journal_io *io, unsigned int buffer,
			      const void *base, uint64_t bytes);

/** petal_journal_io_unregister() - and let go of it; fine if it never did */
void petal_journal_io_unregister(struct petal_journal_io *io,
				 unsigned int buffer);

/** petal_journal_io_submit() - start a write; a failure is a completion */
void petal_journal_io_submit(struct petal_journal_io *io,
			     const struct petal_journal_write *write);

/**
 * petal_journal_io_reap() - collect completions
 * @max: room in @written; at least writes_max
 * @wait: sleep until there is one, if any write is outstanding
 *
 * Return: how many, 0 if none.
 */
unsigned int petal_journal_io_reap(struct petal_journal_io *io,
				   struct petal_journal_written *written,
				   unsigned int max, bool wait);

#endif
