/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_DISK_RECORDER_H
#define PETAL_TESTS_DISK_RECORDER_H

/**
 * DOC: recorder - the journal's engine on a disk that can lose its power
 *
 * Implements fabric/journal_io.h over a real file. A write is copied when it is
 * submitted, and reaches the file only when the proof completes it; until then
 * it is in flight, and a crash may leave any of its sectors. A write that is
 * failed is reported to the journal as such, and stays in flight for ever,
 * since nobody knows what of it is on the disk.
 *
 * Who may run together: nothing; one thread.
 */

#include "fabric/journal_io.h"

enum {
	RECORDER_WRITES_MAX = 64,
};

struct recorder_write {
	uint64_t offset;
	uint64_t length;
	uint64_t cookie;
	uint8_t *bytes;
	int status;
	/* Completed or failed, and the journal has not been told. */
	bool told_next;
	/* In the file as a whole. */
	bool on_disk;
};

/**
 * struct recorder_watch - who is told of each write, before it is anywhere
 *
 * recorder_watch is taken over by the next petal_journal_io_open().
 */
struct recorder_watch {
	void (*submitted)(void *arg, const struct recorder_write *write);
	/* It is in the file now. */
	void (*landed)(void *arg, const struct recorder_write *write);
	void *arg;
	/* The file's mapping. */
	uint8_t *map;
};
extern struct recorder_watch recorder_watch;

/** recorder_writes() - those that are not on the disk, oldest first */
unsigned int recorder_writes(struct petal_journal_io *io,
			     const struct recorder_write **ret_writes);

/** recorder_waiting() - how many the journal has not been told of */
unsigned int recorder_waiting(const struct petal_journal_io *io);

/** recorder_settle() - complete (0) or fail the nth that waits */
void recorder_settle(struct petal_journal_io *io, unsigned int nth, int status);

#endif
