/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two backups: what is sent to them, what they acknowledge, and when one
 * that came back may vote again. A backup that is away is not sent to; one that
 * lies is for the caller to drop.
 */
#include "fabric/primary_private.h"

#include <errno.h>

#include "shm/error.h"

#define WRITES_MAX 4u
#define WRITE_BYTES_MAX (UINT64_C(256) << 10)

/* What goes out next: so many bytes, and where to go on after them. */
struct piece {
	uint64_t length;
	uint64_t next_pos;
	uint64_t part_end_pos;
};

/*
 * Whole records; or a part of one that is too long; or up to the header of a
 * padding. What a padding holds is nobody's, and no CRC would tell a backup
 * whether it has landed: so it does not land at all, neither under the backup's
 * journal nor with what a stopped producer may still write there.
 */
static struct piece piece_of(const struct petal_primary *p, uint64_t pos,
			     uint64_t end)
{
	struct piece piece = { .next_pos = pos };

	while (piece.next_pos < end && piece.length < WRITE_BYTES_MAX) {
		const struct petal_record_durable *record =
			(void *)petal_log_at(p->log, piece.next_pos);
		uint64_t extent = petal_record_extent(record->record.length);

		if (extent > end - piece.next_pos)
			extent = end - piece.next_pos;
		if (record->record.type == PETAL_RECORD_TYPE_PADDING) {
			piece.length += PETAL_RECORD_DURABLE_BYTES;
			piece.next_pos += extent;
			break;
		}
		if (piece.length + extent > WRITE_BYTES_MAX) {
			if (piece.length > 0)
				break;
			piece.part_end_pos = pos + extent;
			extent = WRITE_BYTES_MAX;
		}
		piece.length += extent;
		piece.next_pos += extent;
	}
	return piece;
}

static struct piece next_piece(const struct petal_primary *p,
			       const struct petal_primary_member *member)
{
	uint64_t pos = member->sent_pos;
	struct piece piece = { .part_end_pos = member->part_end_pos };

	if (member->part_end_pos <= pos)
		return piece_of(p, pos,
				pos + petal_log_run(p->log, pos,
						    p->accepted.pos));
	piece.length = member->part_end_pos - pos;
	if (piece.length > WRITE_BYTES_MAX)
		piece.length = WRITE_BYTES_MAX;
	piece.next_pos = pos + piece.length;
	return piece;
}

/*
 * A member's journal may still be reading what it had in memory when it came
 * back; and should we be lost, the member's log begins where it knows it to be
 * trimmed. We must not write over either, a lap later.
 */
static bool may_send(const struct petal_primary *p,
		     const struct petal_primary_member *member,
		     const struct piece *piece)
{
	uint64_t lap = p->log->geometry.data_bytes;

	return piece->next_pos <= member->told_trim_pos + lap &&
	       (member->disk_failed ||
		piece->next_pos <= member->disk_pos + lap);
}

/*
 * To be told of a write takes an answer, which wakes us; and all that we want to
 * know is when bytes may be overwritten, and that not too many are under way.
 * What is released goes in larger steps than what is untold. The end of a long
 * record is told of to the backup as well.
 */
static bool is_told(const struct petal_primary *p,
		    const struct petal_primary_member *member,
		    const struct piece *piece)
{
	uint64_t most = p->log->geometry.data_bytes / 128;

	if (most > PETAL_LOG_LONG_BYTES)
		most = PETAL_LOG_LONG_BYTES;
	return member->untold_bytes + piece->length >= most ||
	       piece->part_end_pos != 0;
}

static void send_to(struct petal_primary *p, unsigned i)
{
	struct petal_primary_member *member = &p->members[i];

	while (member->attached && !member->waiting &&
	       member->writes < WRITES_MAX &&
	       member->sent_pos < p->accepted.pos) {
		struct piece piece = next_piece(p, member);
		bool told = is_told(p, member, &piece);

		if (!may_send(p, member, &piece) ||
		    p->port.write(p->port.self, i, member->sent_pos,
				  piece.length, told) < 0)
			return;
		member->sent_pos = piece.next_pos;
		member->part_end_pos = piece.part_end_pos;
		member->untold_bytes =
			told ? 0 : member->untold_bytes + piece.length;
		member->writes += told;
		p->counts.writes++;
		p->counts.write_bytes += piece.length;
	}
}

void primary_send_all(struct petal_primary *p)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		if (i != p->self)
			send_to(p, i);
	}
}

void petal_primary_wrote(struct petal_primary *p, unsigned i, uint64_t end_pos)
{
	struct petal_primary_member *member = &p->members[i];

	if (member->writes > 0)
		member->writes--;
	/* The last one may have stopped short of a padding that is not sent. */
	if (member->writes == 0 && member->untold_bytes == 0)
		member->wrote_pos = member->sent_pos;
	else if (end_pos > member->wrote_pos)
		member->wrote_pos = end_pos;
}

int petal_primary_acked(struct petal_primary *p, unsigned i)
{
	struct petal_primary_member *member = &p->members[i];
	struct petal_log_line line;
	uint64_t memory_pos, disk_pos, trim_pos;

	if (!member->attached || !petal_log_line_read(&p->log->acks[i], &line))
		return 0;
	memory_pos = line.words[0];
	disk_pos = line.words[1];
	/* It may be ahead of sent_pos: with what an earlier link left there. */
	if (memory_pos > p->accepted.pos || disk_pos > p->accepted.pos)
		return -PETAL_ECORRUPT;
	if (memory_pos > member->memory_pos)
		member->memory_pos = memory_pos;
	if (disk_pos > member->disk_pos)
		member->disk_pos = disk_pos;
	trim_pos = line.words[2] & ~PETAL_LOG_DISK_FAILED;
	if (trim_pos > member->told_trim_pos)
		member->told_trim_pos = trim_pos;
	member->disk_failed = line.words[2] & PETAL_LOG_DISK_FAILED;
	member->whole |= member->memory_pos >= member->joined_pos;
	return 0;
}

/* What the third word of a member's line was, when we looked. */
static uint64_t told_words(const struct petal_primary_member *member)
{
	return member->told_trim_pos |
	       (member->disk_failed ? PETAL_LOG_DISK_FAILED : 0);
}

bool petal_primary_news(const struct petal_primary *p)
{
	struct petal_log_line line;

	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		const struct petal_primary_member *member = &p->members[i];

		if (member->attached &&
		    petal_log_line_read(&p->log->acks[i], &line) &&
		    (line.words[0] > member->memory_pos ||
		     line.words[1] > member->disk_pos ||
		     line.words[2] > told_words(member)))
			return true;
	}
	return false;
}

/* Whether a log that ends like theirs is a prefix of what we retain. */
static bool is_prefix(const struct petal_primary *p,
		      const struct petal_record_cursor *theirs)
{
	struct petal_record_cursor at = p->head;

	if (theirs->lsn < at.lsn || theirs->pos < at.pos ||
	    theirs->pos > p->accepted.pos)
		return false;
	petal_log_walk(p->log, &at, theirs->pos);
	return at.pos == theirs->pos && at.lsn == theirs->lsn &&
	       at.crc == theirs->crc;
}

void petal_primary_join(struct petal_primary *p, unsigned i,
			const struct petal_record_cursor *theirs, bool voter,
			bool exact, struct petal_record_cursor *ret_start,
			bool *ret_exact)
{
	bool goes_on = is_prefix(p, theirs);
	struct petal_record_cursor start = goes_on ? *theirs : p->head;

	p->members[i] = (struct petal_primary_member){
		.attached = true,
		.waiting = !goes_on && theirs->lsn != 0,
		.voter = voter,
		/* So long as it lacks anything, its older log speaks for it. */
		.whole = p->members[i].whole && voter && goes_on && exact,
		.sent_pos = start.pos,
		.wrote_pos = start.pos,
		.memory_pos = start.pos,
		.joined_pos = p->accepted.pos,
	};
	/* How far its disk is it has not said, and its memory says nothing. */
	petal_log_line_write(&p->log->acks[i],
			     &(struct petal_log_line){ { start.pos, 0, 0 } });
	p->ordered_trim_pos = 0;
	*ret_start = start;
	*ret_exact = voter && goes_on && exact;
}

void petal_primary_leave(struct petal_primary *p, unsigned i)
{
	p->members[i].attached = false;
	p->members[i].asked = false;
	p->members[i].writes = 0;
	p->members[i].untold_bytes = 0;
}

void petal_primary_admitted(struct petal_primary *p, unsigned i)
{
	p->members[i].voter = true;
}

void petal_primary_exclude(struct petal_primary *p, unsigned i)
{
	p->members[i].voter = false;
	p->members[i].asked = true; /* nor is it to be admitted */
}

bool petal_primary_covered(const struct petal_primary *p)
{
	const _Atomic uint64_t *marks = p->log->marks->level_pos;
	uint64_t memory = atomic_load_explicit(&marks[PETAL_LEVEL_MEM2],
					       memory_order_relaxed);
	uint64_t disk = atomic_load_explicit(&marks[PETAL_LEVEL_DISK2],
					     memory_order_relaxed);

	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		const struct petal_primary_member *member = &p->members[i];

		if (i != p->self && member->attached &&
		    primary_counts(member) && member->memory_pos >= memory &&
		    member->disk_pos >= disk)
			return true;
	}
	return false;
}

/*
 * A member with a new incarnation has forgotten what it once acknowledged. It
 * may vote again when it holds everything that was accepted as it joined, and
 * so everything that was committed with its predecessor's vote.
 */
void primary_admit_learners(struct petal_primary *p)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		struct petal_primary_member *member = &p->members[i];

		if (!member->attached || member->voter || member->asked ||
		    !member->whole)
			continue;
		member->asked = true;
		p->port.admit(p->port.self, i);
	}
}
