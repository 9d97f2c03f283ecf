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
	b->exact = true;
	b->looked_pos = UINT64_MAX;
}

/* Copy a range into the data area, over its end if need be. */
static void put_bytes(struct petal_backup *b, uint64_t pos,
		      const uint8_t *bytes, uint64_t length)
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
	cursor.epoch = first.epoch;
	cursor.crc = first.prev_crc;
	return cursor;
}

/*
 * Whether the bytes behind a payload, which no CRC covers, are there too: the
 * primary made them zero. Were they to land later, they would change under our
 * journal. Of a padding nothing lands but its header.
 */
static bool rest_has_landed(const void *bytes, uint64_t extent)
{
	const struct petal_record *record = bytes;
	uint64_t used =
		PETAL_RECORD_HEADER_BYTES +
		(uint64_t)__atomic_load_n(&record->length, __ATOMIC_RELAXED);

	if (__atomic_load_n(&record->type, __ATOMIC_RELAXED) ==
	    PETAL_RECORD_TYPE_PADDING)
		return true;
	for (; used < extent; used++) {
		if (((const uint8_t *)bytes)[used] != 0)
			return false;
	}
	return used == extent;
}

static bool is_long(const struct petal_backup *b, uint64_t pos)
{
	const struct petal_record *record = (void *)petal_log_at(b->log, pos);

	return __atomic_load_n(&record->length, __ATOMIC_RELAXED) >=
	       PETAL_LOG_LONG_BYTES;
}

/* 0 and where it ends, 1 when it is not there, or -PETAL_ECORRUPT. */
static int check_at(const struct petal_backup *b, uint64_t to_pos,
		    struct petal_record_cursor *next)
{
	const void *bytes = petal_log_at(b->log, next->pos);
	uint64_t pos = next->pos;
	int outcome;

	if (pos == b->looked_pos && is_long(b, pos))
		return 1;
	outcome = petal_record_check(bytes, petal_log_run(b->log, pos, to_pos),
				     next);
	if (outcome != 0)
		return outcome;
	return rest_has_landed(bytes, next->pos - pos) ? 0 : 1;
}

static int check_next(struct petal_backup *b, uint64_t to_pos)
{
	struct petal_record_cursor next = b->cursor;
	const struct petal_record_durable *record =
		(void *)petal_log_at(b->log, next.pos);
	int outcome = check_at(b, to_pos, &next);

	b->looked_pos = outcome == 1 ? b->cursor.pos : UINT64_MAX;
	if (outcome != 0)
		return outcome;
	petal_sessions_note(&b->sessions, record->session, record->sequence,
			    next.lsn);
	b->cursor = next;
	return 0;
}

/* Move the cursor over valid records up to a position; returns how many. */
static unsigned advance(struct petal_backup *b, uint64_t to_pos, unsigned most,
			int *ret_outcome)
{
	unsigned count = 0;
	int outcome = 0;

	while (count < most && b->cursor.pos < to_pos) {
		outcome = check_next(b, to_pos);
		if (outcome != 0)
			break;
		count++;
	}
	*ret_outcome = outcome;
	return count;
}

/*
 * Records of a log that was not continued would follow on those of the one that
 * was: they are as whole as any.
 */
static void clear_from(struct petal_backup *b, uint64_t pos, uint64_t end)
{
	uint64_t run = petal_log_run(b->log, pos, end);

	memset(petal_log_at(b->log, pos), 0, run);
	memset(b->log->data, 0, end - pos - run);
}

int petal_backup_restore(struct petal_backup *b,
			 const struct petal_record_cursor *from,
			 const void *bytes, uint64_t length, uint64_t trim_pos)
{
	struct petal_record_cursor before = b->cursor;
	uint64_t end = from->pos + length;
	bool anew = b->cursor.pos == 0 || from->pos != b->cursor.pos ||
		    from->lsn != b->cursor.lsn;
	unsigned count;
	int outcome;

	if (from->epoch > b->log->geometry.epoch ||
	    length < PETAL_RECORD_DURABLE_BYTES ||
	    length > b->log->geometry.data_bytes ||
	    from->pos % PETAL_RECORD_ALIGN != 0 ||
	    (anew && from->pos > trim_pos))
		return -PETAL_ECORRUPT;
	if (anew)
		b->cursor = begin_at(from, bytes);
	b->looked_pos = UINT64_MAX;
	put_bytes(b, from->pos, bytes, length);
	count = advance(b, end, UINT32_MAX, &outcome);
	clear_from(b, b->cursor.pos, end);
	if (anew && count == 0)
		b->cursor = before;
	b->journaled_to = b->cursor;
	b->disk_pos = b->cursor.pos;
	b->trim_pos = trim_pos;
	b->seen_pos = trim_pos;
	b->exact = false;
	return b->cursor.pos == end ? 0 : -PETAL_ECORRUPT;
}

void petal_backup_seed(struct petal_backup *b, const struct petal_recovery *r)
{
	b->journal_busy = r->journal_busy;
	b->journal_stale = r->journal_stale;
	b->journal_frozen = r->journal_frozen;
	if (r->log == NULL) {
		b->journal_stale = r->journal_busy;
		return;
	}
	b->cursor = r->end;
	b->journaled_to = r->journaled_to;
	b->disk_pos = r->disk_pos;
	b->trim_pos = r->base.pos;
	b->seen_pos = r->end.pos;
	b->exact = r->exact;
	b->sessions = *r->sessions;
}

int petal_backup_start(struct petal_backup *b,
		       const struct petal_record_cursor *start,
		       uint64_t whole_pos,
		       const struct petal_sessions *sessions)
{
	bool goes_on = start->pos == b->cursor.pos &&
		       start->crc == b->cursor.crc;
	bool again = !goes_on && b->cursor.lsn != 0;

	if (again)
		clear_from(b, 0, b->log->geometry.data_bytes);
	if (!goes_on) {
		b->journaled_to = *start;
		b->disk_pos = start->pos;
		b->trim_pos = start->pos;
		b->seen_pos = start->pos;
		b->journal_stale = b->journal_busy;
		b->whole = false;
		b->remembers = false;
	}
	/* What they say beyond our log is true when we have that too. */
	if (sessions != NULL) {
		b->sessions = *sessions;
		b->exact = false;
		b->whole = false;
	}
	if (!b->whole)
		b->whole_pos = whole_pos;
	b->cursor = *start;
	b->looked_pos = UINT64_MAX;
	b->told = false;
	b->started = !again;
	b->counts.starts += !again;
	return again;
}

void petal_backup_stop(struct petal_backup *b)
{
	b->started = false;
}

static void journal(struct petal_backup *b)
{
	struct petal_record_cursor to;
	int err;

	if (b->journal_busy || b->journal_frozen ||
	    b->journaled_to.pos == b->cursor.pos)
		return;
	to = petal_log_batch(b->log, &b->journaled_to, &b->cursor);
	err = b->port.journal(b->port.self, &b->journaled_to, &to, b->trim_pos);
	if (err == -EAGAIN || err == -EBUSY)
		return;
	/* It may have failed with another ring's batch. */
	if (err < 0) {
		b->journal_frozen = true;
		return;
	}
	b->journal_busy = true;
	b->journaled_to = to;
}

void petal_backup_journaled(struct petal_backup *b, uint64_t end_pos,
			    int status)
{
	bool stale = b->journal_stale;

	b->journal_busy = false;
	b->journal_stale = false;
	if (status < 0)
		b->journal_frozen = true;
	else if (!stale && end_pos > b->disk_pos && end_pos <= b->cursor.pos)
		b->disk_pos = end_pos;
}

static void acknowledge(struct petal_backup *b)
{
	struct petal_log_line line = { { b->cursor.pos, b->disk_pos,
					 b->trim_pos } };

	/* A failure alone is news too: the primary waits for our disk. */
	if (b->told && b->cursor.pos == b->told_memory_pos &&
	    b->disk_pos == b->told_disk_pos &&
	    b->trim_pos == b->told_trim_pos &&
	    b->journal_frozen == b->told_frozen)
		return;
	if (b->journal_frozen)
		line.words[2] |= PETAL_LOG_DISK_FAILED;
	petal_log_line_write(&b->log->acks[b->self], &line);
	if (b->port.acknowledge(b->port.self) < 0)
		return;
	b->told = true;
	b->told_memory_pos = b->cursor.pos;
	b->told_disk_pos = b->disk_pos;
	b->told_trim_pos = b->trim_pos;
	b->told_frozen = b->journal_frozen;
}

/*
 * How far the primary says that the log is done with. It may be further than we
 * have come; then all that we have is. To wait until we are there might be for
 * ever: nothing is sent to us a lap beyond what we have acknowledged as trimmed.
 * Return: whether that is news.
 */
static bool read_orders(const struct petal_backup *b,
			struct petal_log_line *ret_line)
{
	uint64_t *trim_pos = &ret_line->words[0];

	if (!petal_log_line_read(b->log->orders, ret_line) ||
	    *trim_pos % PETAL_RECORD_ALIGN != 0)
		return false;
	if (*trim_pos > b->cursor.pos)
		*trim_pos = b->cursor.pos;
	return *trim_pos > b->trim_pos;
}

static void take_orders(struct petal_backup *b)
{
	struct petal_log_line line;

	if (!read_orders(b, &line))
		return;
	b->trim_pos = line.words[0];
	b->seen_pos = line.words[1];
}

static void become_whole(struct petal_backup *b)
{
	if (b->whole || b->cursor.pos < b->whole_pos)
		return;
	b->whole = true;
	b->exact = true;
}

void petal_backup_fence(struct petal_backup *b)
{
	int outcome;

	if (b->started && !b->fenced) {
		b->looked_pos = UINT64_MAX;
		advance(b, b->cursor.pos + b->log->geometry.data_bytes,
			UINT32_MAX, &outcome);
		become_whole(b);
		take_orders(b);
	}
	b->fenced = true;
	b->started = false;
}

int petal_backup_leaves(const struct petal_backup *b,
			struct petal_recovery *ret_recovery)
{
	*ret_recovery = (struct petal_recovery){
		.log = b->log,
		.end = b->cursor,
		.journaled_to = b->journaled_to,
		.disk_pos = b->disk_pos,
		.journal_busy = b->journal_busy,
		.journal_stale = b->journal_stale,
		.journal_frozen = b->journal_frozen,
		.exact = b->exact,
		.sessions = &b->sessions,
	};
	return petal_recovery_begin(ret_recovery, b->trim_pos);
}

void petal_backup_landed(struct petal_backup *b)
{
	b->looked_pos = UINT64_MAX;
}

bool petal_backup_news(const struct petal_backup *b)
{
	struct petal_record_cursor next = b->cursor;
	struct petal_log_line line;

	if (!b->started)
		return false;
	return read_orders(b, &line) ||
	       check_at(b, b->cursor.pos + b->log->geometry.data_bytes,
			&next) == 0;
}

int petal_backup_step(struct petal_backup *b)
{
	uint64_t before = b->cursor.pos;
	unsigned count;
	int outcome;

	if (!b->started)
		return 0;
	count = advance(b, b->cursor.pos + b->log->geometry.data_bytes,
			PETAL_BACKUP_STEP_RECORDS, &outcome);
	b->counts.records += count;
	b->counts.bytes += b->cursor.pos - before;
	b->counts.corrupt += outcome < 0;
	become_whole(b);
	take_orders(b);
	/* Memory levels do not wait for a disk to be asked; a failure is news. */
	acknowledge(b);
	journal(b);
	acknowledge(b);
	return count == PETAL_BACKUP_STEP_RECORDS;
}
