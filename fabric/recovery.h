/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_RECOVERY_H
#define PETAL_FABRIC_RECOVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/log.h"
#include "fabric/sessions.h"

/**
 * DOC: recovery - what a member's log of one epoch leaves to the next
 *
 *    the log of epoch e                     memory of its own, epoch e + 1
 *    ..done..[base ..... retained ..... end)
 *                 | copy, record by record: equal bytes at equal positions
 *                 v
 *            [base ..... retained ..... end) EPOCH_START(e + 1) ...
 *
 * Each epoch writes into memory of its own, so whatever a deposed primary still
 * writes lands where nobody reads (I8, decision 14). What is retained moves by a
 * copy; records keep their lsn and epoch, and the chain of their CRCs goes on
 * over the change (I3, I6). The disk goes on as well: what of it was journaled
 * is not journaled again.
 *
 * The bytes of the old log are hostile: local producers could write them. A
 * record is copied, and then checked in the copy.
 *
 * Threads: one.
 */

struct petal_recovery {
	const struct petal_log *log;             /* NULL: nothing is left */
	struct petal_record_cursor base;         /* all before it is done */
	struct petal_record_cursor end;          /* M */
	struct petal_record_cursor journaled_to; /* given to the journal */
	uint64_t disk_pos;                       /* D */
	bool journal_busy;  /* with a batch of the old log */
	bool journal_stale; /* which goes beyond what is left */
	bool journal_frozen;
	bool exact; /* sessions is of the log up to end, and not of more */
	const struct petal_sessions *sessions;
};

/**
 * petal_recovery_begin() - find where the retained records begin
 * @recovery: log and end are set; base is filled
 * @trim_pos: all before it is done; a record starts there, or the log ends
 *
 * Return: 0, or -PETAL_ECORRUPT when no record of this log starts there.
 */
int petal_recovery_begin(struct petal_recovery *recovery, uint64_t trim_pos);

/**
 * petal_recovery_check() - whether every retained record is whole
 * @ret_bad_lsn: the first that is not; may be NULL
 *
 * Return: 0, or -PETAL_ECORRUPT.
 */
int petal_recovery_check(const struct petal_recovery *recovery,
			 uint64_t *ret_bad_lsn);

/**
 * petal_recovery_cut() - discard what lies beyond the seal of its epoch (I9)
 * @sealed: where the epochs before the present one end
 *
 * Nothing changes when the log is shorter. When it has another record there,
 * the two logs parted earlier, and nothing is left of ours.
 */
void petal_recovery_cut(struct petal_recovery *recovery,
			const struct petal_record_cursor *sealed);

/**
 * petal_recovery_copy() - put the retained records into a new log
 * @to: fresh, made with start_pos = base.pos
 *
 * Return: 0, or -PETAL_ECORRUPT; then @to is of no use.
 */
int petal_recovery_copy(const struct petal_recovery *recovery,
			struct petal_log *to);

#endif
