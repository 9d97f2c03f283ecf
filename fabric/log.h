/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_LOG_H
#define PETAL_FABRIC_LOG_H

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "actors/port.h"
#include "actors/queue.h"
#include "rings/doorbell.h"
#include "rings/mpsc.h"
#include "rings/record.h"
#include "shm/segment.h"

/**
 * DOC: log - the memory of one durable ring, in one petal
 *
 *    segment header   4 KiB
 *    geometry         4 KiB   written once, copied at attach
 *    marks            4 KiB   how far the log is accepted, kept and visible
 *    acks             4 KiB   a line per member, written by that member alone,
 *                             one-sided, from its host
 *    orders           4 KiB   a line, written by the primary, one-sided
 *    owners           a line and a window of outcomes per local producer
 *    mpsc header      tail, head, intent lines
 *    queues           lease tables
 *    data             the records: equal bytes at equal offsets on every member
 *
 * The same layout everywhere: on the primary local processes claim, publish
 * and take in it; on a backup only marks, orders and data are in use.
 *
 * Always true on the primary:
 *    trim <= visible <= accepted <= tail <= head + data_bytes, head <= trim
 *    visible = level_pos[MEM2]
 *
 * Ordering:
 *    [OUTCOME] the replicator stores an outcome, then accepted_sequence
 *              (release) -> its producer loads accepted_sequence (acquire)
 *    [MARK]    the replicator stores level_pos (release) -> waiters load it
 *              (acquire), by their bell
 *    [WAKE]    of rings/doorbell.h, for an owner's word as well as its bell: the
 *              owner stores wait, then arms; the replicator stores level_pos,
 *              then the light half, then it loads both. What it sees of an
 *              older wait may keep it from ringing only where a waiter that
 *              does not make the barrier naps
 *    An ack or orders line has no order at all: a wire reads it part by part,
 *    while its writer may store the next, and lands it part by part. So it
 *    carries a check of its words, and a reader takes all of them or none.
 *
 * Crash: marks, owners and queues are the primary's view and die with it. What
 * counts is in data: queues are a function of the retained records.
 */

#define PETAL_LOG_MEMBERS 3u
#define PETAL_LOG_OWNERS 64u
#define PETAL_LOG_QUEUES_MAX 8u
#define PETAL_LOG_WINDOW 128u /* sends of one producer without an outcome */
#define PETAL_LOG_DATA_BYTES_MIN (UINT64_C(1) << 16)
#define PETAL_LOG_DATA_BYTES_MAX (UINT64_C(1) << 36)
#define PETAL_LOG_RESERVE_BYTES 4096u
#define PETAL_LOG_LONG_BYTES (64u << 10) /* from there on a record is long */

struct petal_log_geometry {
	uint64_t ring;
	uint64_t data_bytes; /* a power of two */
	uint32_t epoch;
	uint32_t queue_count;
	uint64_t start_pos; /* of the first record in this memory; not shared */
	struct petal_queue_geometry queues[PETAL_LOG_QUEUES_MAX];
};

enum petal_log_state {
	PETAL_LOG_CLOSED = 0,
	PETAL_LOG_OPEN = 1,
	PETAL_LOG_HALTED =
		2, /* its bytes made no sense: see the daemon's log */
};

/* Written by the replicator alone, but for the bells. */
struct petal_log_marks {
	_Atomic uint32_t state;
	uint32_t reserved;
	_Atomic uint64_t accepted_lsn;
	_Atomic uint64_t trim_pos;
	_Atomic uint64_t dispatched_pos; /* queues have what lies before */
	_Atomic uint64_t refused;        /* records turned into padding */

	alignas(64) _Atomic uint64_t level_pos[PETAL_LEVEL_COUNT];

	/* Who waits for room, or for messages to be done, sleeps here. */
	alignas(64) struct petal_doorbell bell;

	/* Rung by producers: the replicator's event loop sleeps on its fd. */
	alignas(64) struct petal_doorbell node_bell;
};

/*
 * One member's acknowledgement: the words grow only. Trim is how far the member
 * knows the log to be done: its memory is written over up to there and no
 * further, for after a failover it begins its log there.
 */
struct petal_log_ack {
	alignas(64) _Atomic uint64_t memory_pos; /* M */
	_Atomic uint64_t disk_pos;               /* D */
	_Atomic uint64_t trim_pos; /* lowest bit: D stands still */
	_Atomic uint64_t check;    /* of these three */
	uint64_t reserved[4];
};

/* What the primary tells a backup beside the records. */
struct petal_log_orders {
	alignas(64) _Atomic uint64_t trim_pos;
	_Atomic uint64_t visible_pos;
	_Atomic uint64_t beat;
	_Atomic uint64_t check; /* of these three */
	uint64_t reserved[4];
};

struct petal_log_outcome {
	_Atomic int64_t lsn; /* or a negative error */
};

struct petal_log_owner {
	alignas(64) _Atomic uint64_t accepted_sequence; /* the replicator */
	_Atomic uint64_t signal_pos; /* the producer: signal at this, 0 none */
	_Atomic uint32_t signal_level;
	uint32_t reserved[11];

	/*
	 * The producer sleeps here until a level has come as far as this word
	 * says, which petal_log_wait() makes; or until it was refused.
	 */
	alignas(64) _Atomic uint64_t wait;
	struct petal_doorbell bell;
	uint64_t reserved_line[6];

	struct petal_log_outcome outcomes[PETAL_LOG_WINDOW];
};

static_assert(sizeof(struct petal_log_marks) == 256, "layout");
static_assert(sizeof(struct petal_log_ack) == 64, "layout");
static_assert(sizeof(struct petal_log_orders) == 64, "layout");
static_assert(sizeof(struct petal_log_owner) == 128 + 8 * PETAL_LOG_WINDOW,
	      "layout");

/* One process's view of a log. Geometry is a private copy. */
struct petal_log {
	struct petal_segment segment;
	struct petal_log_geometry geometry;
	struct petal_log_marks *marks;
	struct petal_log_ack *acks; /* PETAL_LOG_MEMBERS */
	struct petal_log_orders *orders;
	struct petal_log_owner *owners; /* PETAL_LOG_OWNERS */
	uint8_t *data;
	struct petal_mpsc ring;
	struct petal_queue queues[PETAL_LOG_QUEUES_MAX];
};

/**
 * petal_log_geometry_check() - whether a shape can be made
 *
 * Return: 0, or -EINVAL.
 */
int petal_log_geometry_check(const struct petal_log_geometry *geometry);

/**
 * petal_log_open() - make an empty log in a new segment
 * @geometry: its shape, checked
 *
 * Return: 0, -EINVAL, or what petal_segment_open() returns.
 */
int petal_log_open(const struct petal_log_geometry *geometry,
		   struct petal_log *ret_log);

/**
 * petal_log_attach() - map a log that another process made
 * @fd: its segment; the caller keeps it
 * @owner: the producer's number, 1 to PETAL_LOG_OWNERS - 1; 0 is the node's
 *
 * Return: 0; -EINVAL, -PETAL_EVERSION or -PETAL_EGEOMETRY for anything that is
 * not a whole log of this layout.
 */
int petal_log_attach(int fd, uint32_t owner, struct petal_log *ret_log);

void petal_log_close(struct petal_log *log);

/**
 * petal_log_at() - the byte of a position
 */
static inline uint8_t *petal_log_at(const struct petal_log *log, uint64_t pos)
{
	return log->data + (pos & (log->geometry.data_bytes - 1));
}

/**
 * petal_log_run() - how far a range goes on without a wrap
 *
 * Return: bytes from @pos towards @end that lie in one piece.
 */
static inline uint64_t petal_log_run(const struct petal_log *log, uint64_t pos,
				     uint64_t end)
{
	uint64_t left = log->geometry.data_bytes -
			(pos & (log->geometry.data_bytes - 1));

	return end - pos < left ? end - pos : left;
}

/*
 * What an owner waits for, in one word, so that it is never half of two. A
 * position that is not aligned is rounded down: it is rung for too early.
 */
static inline uint64_t petal_log_wait(uint64_t pos, enum petal_level level)
{
	return (pos & ~(uint64_t)(PETAL_RECORD_ALIGN - 1)) | (uint64_t)level;
}

static inline bool petal_log_waited(const struct petal_log_marks *marks,
				    uint64_t wait)
{
	uint64_t level = wait & (PETAL_RECORD_ALIGN - 1);

	return level < PETAL_LEVEL_COUNT &&
	       atomic_load_explicit(&marks->level_pos[level],
				    memory_order_relaxed) >= wait - level;
}

/* The words of an acks or orders line. */
struct petal_log_line {
	uint64_t words[3]; /* in their order in the structure */
};
#define PETAL_LOG_LINE_BYTES 32u /* of the line: they and their check */
#define PETAL_LOG_DISK_FAILED UINT64_C(1) /* in the third word of an ack */

/**
 * petal_log_line_write() - store a line that will travel one-sided
 * @line: a struct petal_log_ack or petal_log_orders
 */
void petal_log_line_write(void *line, const struct petal_log_line *words);

/**
 * petal_log_line_read() - load a line that came one-sided
 *
 * Return: whether its words belong together. If not, part of it is still to
 * come, and the notice of its arrival after that.
 */
bool petal_log_line_read(const void *line, struct petal_log_line *ret_words);

/**
 * petal_log_walk() - move over records that were accepted before
 * @cursor: where a record starts; moved
 * @to_pos: not beyond this
 *
 * Costs a look at each record's header.
 */
void petal_log_walk(const struct petal_log *log,
		    struct petal_record_cursor *cursor, uint64_t to_pos);

/**
 * petal_log_batch() - how far the next batch of the journal reaches
 * @from: where it begins
 * @end: what there is to journal; accepted or validated
 *
 * Return: @end, or the end of a record within PETAL_LOG_BATCH_BYTES of @from
 * (one record at least).
 */
struct petal_record_cursor
petal_log_batch(const struct petal_log *log,
		const struct petal_record_cursor *from,
		const struct petal_record_cursor *end);
#define PETAL_LOG_BATCH_BYTES (UINT64_C(4) << 20)

#endif
