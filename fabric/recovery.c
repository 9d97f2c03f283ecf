/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/recovery.h"

#include <errno.h>
#include <string.h>

#include "rings/record.h"
#include "shm/error.h"

int petal_recovery_begin(struct petal_recovery *r, uint64_t trim_pos)
{
	struct petal_record_durable first;
	struct petal_record_cursor at;

	if (trim_pos == r->end.pos) {
		r->base = r->end;
		return 0;
	}
	if (trim_pos > r->end.pos || trim_pos % PETAL_RECORD_ALIGN != 0 ||
	    r->end.pos - trim_pos > r->log->geometry.data_bytes)
		return -PETAL_ECORRUPT;
	/* The first record names the one before it, and then proves itself. */
	memcpy((void *)&first, petal_log_at(r->log, trim_pos), sizeof(first));
	at = (struct petal_record_cursor){
		.pos = trim_pos,
		.lsn = first.lsn - 1,
		.epoch = first.epoch,
		.crc = first.prev_crc,
	};
	r->base = at;
	if (first.lsn == 0 || first.lsn > r->end.lsn ||
	    petal_record_check(petal_log_at(r->log, trim_pos),
			       petal_log_run(r->log, trim_pos, r->end.pos),
			       &at) != 0)
		return -PETAL_ECORRUPT;
	return 0;
}

static int check_next(const struct petal_log *log,
		      struct petal_record_cursor *at, uint64_t end_pos)
{
	return petal_record_check(petal_log_at(log, at->pos),
				  petal_log_run(log, at->pos, end_pos), at);
}

int petal_recovery_check(const struct petal_recovery *r, uint64_t *ret_bad_lsn)
{
	struct petal_record_cursor at = r->base;

	while (at.pos < r->end.pos) {
		if (check_next(r->log, &at, r->end.pos) == 0)
			continue;
		if (ret_bad_lsn != NULL)
			*ret_bad_lsn = at.lsn + 1;
		return -PETAL_ECORRUPT;
	}
	return at.lsn == r->end.lsn && at.crc == r->end.crc ? 0
							    : -PETAL_ECORRUPT;
}

void petal_recovery_cut(struct petal_recovery *r,
			const struct petal_record_cursor *sealed)
{
	struct petal_record_cursor at = r->base;

	if (r->log == NULL || r->end.lsn < sealed->lsn)
		return;
	while (at.pos < sealed->pos && check_next(r->log, &at, r->end.pos) == 0)
		;
	if (at.pos != sealed->pos || at.lsn != sealed->lsn ||
	    at.crc != sealed->crc) {
		r->log = NULL;
		return;
	}
	if (r->end.lsn == at.lsn)
		return;
	r->exact = false;
	r->end = at;
	/* What this disk has goes beyond: it begins anew, see fabric/runs.h. */
	if (r->journaled_to.pos > at.pos) {
		r->journaled_to = r->base;
		r->disk_pos = r->base.pos;
		r->journal_stale = r->journal_busy;
	}
}

/* One record, from the cursor to its next place. */
static int copy_next(const struct petal_recovery *r,
		     struct petal_record_cursor *at, struct petal_log *to)
{
	struct petal_record_cursor next = *at, again = *at;
	const uint8_t *from = petal_log_at(r->log, at->pos);
	const struct petal_record *record = (const void *)from;
	struct petal_mpsc_claim claim;
	uint64_t bytes;
	int err;

	if (check_next(r->log, &next, r->end.pos) != 0)
		return -PETAL_ECORRUPT;
	bytes = next.pos - at->pos;
	err = petal_mpsc_claim(&to->ring,
			       (uint32_t)(bytes - PETAL_RECORD_HEADER_BYTES),
			       &claim);
	if (err < 0 || claim.pos != at->pos || claim.end != next.pos)
		return -PETAL_ECORRUPT;
	/* What a padding holds is nobody's. */
	if (record->type == PETAL_RECORD_TYPE_PADDING)
		bytes = PETAL_RECORD_DURABLE_BYTES;
	/* The commit word is of the new log: publish stores it. */
	memcpy((uint8_t *)claim.record + sizeof(record->commit),
	       from + sizeof(record->commit), bytes - sizeof(record->commit));
	err = petal_mpsc_publish(&to->ring, &claim);
	if (err < 0 || check_next(to, &again, next.pos) != 0 ||
	    again.pos != next.pos)
		return -PETAL_ECORRUPT;
	*at = again;
	return 0;
}

int petal_recovery_copy(const struct petal_recovery *r, struct petal_log *to)
{
	struct petal_record_cursor at = r->base;
	int err = 0;

	while (err == 0 && at.pos < r->end.pos)
		err = copy_next(r, &at, to);
	if (err == 0 && (at.pos != r->end.pos || at.crc != r->end.crc ||
			 petal_mpsc_tail(&to->ring) != at.pos))
		err = -PETAL_ECORRUPT;
	return err;
}
