/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A new epoch's lease tables are empty. They are filled from the retained log,
 * without the messages that a TXN in there acknowledges: a cursor is a function
 * of the log (I14). An acknowledgement comes after its message, so whatever is
 * retained has its own retained as well.
 */
#include "fabric/primary_private.h"

#include <errno.h>
#include <stdlib.h>

#include "fabric/txn.h"
#include "shm/error.h"

static int compare(const void *a, const void *b)
{
	const struct petal_primary_done *x = a, *y = b;

	if (x->lsn != y->lsn)
		return x->lsn < y->lsn ? -1 : 1;
	if (x->index != y->index)
		return x->index < y->index ? -1 : 1;
	return 0;
}

/* Counts what the records acknowledge, and stores it where there is room. */
static int read_done(struct petal_primary *p, uint64_t from_pos,
		     uint64_t to_pos, uint32_t *ret_count)
{
	struct petal_mpsc_view view;
	struct petal_txn txn;
	uint64_t pos = from_pos;
	uint32_t count = 0;

	while (pos < to_pos) {
		if (petal_mpsc_peek(&p->log->ring, pos, &view) != 0 ||
		    view.length < PETAL_RECORD_ENVELOPE_BYTES)
			return -PETAL_ECORRUPT;
		pos = view.end;
		if (view.type != PETAL_RECORD_TYPE_TXN)
			continue;
		if (petal_txn_check(primary_payload((void *)view.record),
				    view.length - PETAL_RECORD_ENVELOPE_BYTES,
				    p->log->geometry.queue_count, &txn) < 0)
			return -PETAL_ECORRUPT;
		for (uint32_t i = 0; i < txn.ack_count; i++, count++) {
			if (count >= p->done_count)
				continue;
			p->done[count].lsn = txn.acks[i].lsn;
			p->done[count].index = txn.acks[i].index;
		}
	}
	*ret_count = count;
	return 0;
}

int primary_recall(struct petal_primary *p, uint64_t from_pos, uint64_t to_pos)
{
	uint32_t count = 0;
	int err = read_done(p, from_pos, to_pos, &count);

	if (err < 0 || count == 0)
		return err;
	p->done = calloc(count, sizeof(*p->done));
	if (p->done == NULL)
		return -ENOMEM;
	p->done_count = count;
	err = read_done(p, from_pos, to_pos, &count);
	qsort(p->done, p->done_count, sizeof(*p->done), compare);
	return err;
}

bool primary_is_done(const struct petal_primary *p, uint64_t lsn,
		     uint32_t index)
{
	struct petal_primary_done wanted = { .lsn = lsn, .index = index };

	return p->done_count > 0 && bsearch(&wanted, p->done, p->done_count,
					    sizeof(wanted), compare) != NULL;
}

void petal_primary_close(struct petal_primary *p)
{
	free(p->done);
	p->done = NULL;
	p->done_count = 0;
}

bool petal_primary_started(const struct petal_primary *p)
{
	return primary_visible_pos(p) >= p->start_pos;
}

int petal_primary_leaves(const struct petal_primary *p,
			 struct petal_recovery *ret_recovery)
{
	if (p->halted)
		return -PETAL_ECORRUPT;
	*ret_recovery = (struct petal_recovery){
		.log = p->log,
		.end = p->accepted,
		.journaled_to = p->journaled_to,
		.disk_pos = p->disk_pos,
		.journal_busy = p->journal_busy,
		.journal_frozen = p->journal_frozen,
		.exact = true,
		.sessions = &p->sessions,
	};
	return petal_recovery_begin(ret_recovery, p->trim_pos);
}

uint64_t petal_primary_lsn(const struct petal_primary *p, uint64_t session,
			   uint64_t sequence)
{
	struct petal_record_cursor at = p->head;
	uint64_t before = UINT64_MAX;

	while (at.pos < p->accepted.pos && at.pos != before) {
		const struct petal_record_durable *record =
			(void *)petal_log_at(p->log, at.pos);

		if (record->session == session && record->sequence == sequence)
			return record->lsn;
		before = at.pos;
		petal_log_walk(
			p->log, &at,
			before + petal_record_extent(record->record.length));
	}
	return 0;
}
