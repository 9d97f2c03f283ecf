/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/backup.h"

#include <errno.h>
#include <string.h>

#include "shm/error.h"

void petal_backup_open(struct petal_backup *b, struct petal_log *log,
		       unsigned self, const struct petal_backup_port *port)
{
	memset(b, 0, sizeof(*b));
	b->log = log;
	b->port = *port;
	b->self = self;
	b->cursor.epoch = log->geometry.epoch;
	b->journaled_to = b->cursor;
}

/* Copy a range into the data area, over its end if need be. */
static void put_bytes(struct petal_backup *b, uint64_t pos, const uint8_t *bytes,
		      uint64_t length)
{
	uint64_t run = petal_log_run(b->log, pos, pos + length);

	memcpy(petal_log_at(b->log, pos), bytes, run);
	memcpy(b->log->data, bytes + run, length - run);
}

/* The first record of a piece of log names the one before it. */
static struct petal_record_cursor
begin_at(const struct petal_record_cursor *from, const void *bytes)
{
	struct petal_record_durable first;
	struct petal_record_cursor cursor = *from;

	memcpy((void *)&first, bytes, sizeof(first));
	cursor.crc = first.prev_crc;
	return cursor;
}

/* Move the cursor over valid records up to a position; returns how many. */
static unsigned advance(struct petal_backup *b, uint64_t to_pos, unsigned most,
			int *ret_outcome)
{
	unsigned count = 0;
	int outcome = 0;

	while (count < most && b->cursor.pos < to_pos) {
		outcome = petal_record_check(
			petal_log_at(b->log, b->cursor.pos),
			petal_log_run(b->log, b->cursor.pos, to_pos),
			&b->cursor);
		if (outcome != 0)
			break;
		count++;
	}
	*ret_outcome = outcome;
	return count;
}

int petal_backup_restore(struct petal_backup *b,
			 const struct petal_record_cursor *from,
			 const void *bytes, uint64_t length, uint64_t trim_pos)
{
	uint64_t end = from->pos + length;
	int outcome;

	if (from->epoch != b->log->geometry.epoch ||
	    length < PETAL_RECORD_DURABLE_BYTES ||
	    length > b->log->geometry.data_bytes ||
	    from->pos % PETAL_RECORD_ALIGN != 0)
		return -PETAL_ECORRUPT;
	if (from->pos != b->cursor.pos || from->lsn != b->cursor.lsn ||
	    b->cursor.pos == 0)
		b->cursor = begin_at(from, bytes);
	put_bytes(b, from->pos, bytes, length);
	advance(b, end, UINT32_MAX, &outcome);
	b->journaled_to = b->cursor;
	b->disk_pos = b->cursor.pos;
	b->trim_pos = trim_pos;
	return b->cursor.pos == end ? 0 : -PETAL_ECORRUPT;
}

void petal_backup_start(struct petal_backup *b,
			const struct petal_record_cursor *start)
{
	if (start->pos != b->cursor.pos || start->crc != b->cursor.crc) {
		b->journaled_to = *start;
		b->disk_pos = start->pos;
	}
	b->cursor = *start;
	b->told_memory_pos = start->pos;
	b->told_disk_pos = start->pos;
	b->started = true;
	b->counts.starts++;
}

void petal_backup_stop(struct petal_backup *b)
{
	b->started = false;
}

static void journal(struct petal_backup *b)
{
	struct petal_record_cursor to;

	if (b->journal_busy || b->journal_frozen ||
	    b->journaled_to.pos == b->cursor.pos)
		return;
	to = petal_log_batch(b->log, &b->journaled_to, &b->cursor);
	if (b->port.journal(b->port.self, &b->journaled_to, &to, b->trim_pos) <
	    0)
		return;
	b->journal_busy = true;
	b->journaled_to = to;
}

void petal_backup_journaled(struct petal_backup *b, uint64_t end_pos, int status)
{
	b->journal_busy = false;
	if (status < 0)
		b->journal_frozen = true;
	else if (end_pos > b->disk_pos && end_pos <= b->cursor.pos)
		b->disk_pos = end_pos;
}

static void acknowledge(struct petal_backup *b)
{
	struct petal_log_ack *line = &b->log->acks[b->self];

	if (b->cursor.pos == b->told_memory_pos &&
	    b->disk_pos == b->told_disk_pos)
		return;
	atomic_store_explicit(&line->memory_pos, b->cursor.pos,
			      memory_order_relaxed);
	atomic_store_explicit(&line->disk_pos, b->disk_pos,
			      memory_order_relaxed);
	atomic_store_explicit(&line->disk_failed, b->journal_frozen,
			      memory_order_relaxed);
	if (b->port.acknowledge(b->port.self) < 0)
		return;
	b->told_memory_pos = b->cursor.pos;
	b->told_disk_pos = b->disk_pos;
}

static void take_orders(struct petal_backup *b)
{
	uint64_t trim_pos = atomic_load_explicit(&b->log->orders->trim_pos,
						 memory_order_relaxed);

	if (trim_pos <= b->trim_pos || trim_pos > b->cursor.pos)
		return;
	b->trim_pos = trim_pos;
	b->port.trim(b->port.self, trim_pos);
}

int petal_backup_step(struct petal_backup *b)
{
	unsigned count;
	int outcome;

	if (!b->started)
		return 0;
	count = advance(b, b->cursor.pos + b->log->geometry.data_bytes,
			PETAL_BACKUP_STEP_RECORDS, &outcome);
	b->counts.records += count;
	b->counts.corrupt += outcome < 0;
	take_orders(b);
	journal(b);
	acknowledge(b);
	return count == PETAL_BACKUP_STEP_RECORDS;
}
