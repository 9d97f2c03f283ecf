/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Space: which batches the file still holds for somebody, and where the next
 * one may go. Nothing here touches the disk.
 *
 * The table of batches is a circle of entries with five marks, always in this
 * order, each counted from the beginning of time:
 *
 *    first      the oldest batch whose space is still taken
 *    oldest     the oldest batch that somebody still needs
 *    reported   all before it were reported to the caller
 *    durable    all before it are on the disk
 *    end        where the next entry goes
 *
 * (Only "oldest" may stop anywhere up to "reported".)
 *
 * The happy path. A batch is added at "end", and its space taken behind the
 * one before it, or at the start of the area if it does not fit there. Trimming
 * moves "oldest", and the next header carries that mark. "first" follows when
 * the batch with that header is durable.
 *
 * The failure modes. "first" may not follow earlier: a crash may leave new
 * batches torn that were written over old ones, and replay must learn from what
 * is left that the old ones were not needed any more. If everything is full,
 * there is no batch to carry the mark; so one block is kept back for a note, a
 * batch without bytes.
 */

#include "fabric/journal_private.h"

void petal_journal_entry_add(struct petal_journal *journal,
			     const struct journal_header *header, uint16_t ring,
			     unsigned int slot)
{
	struct journal_entry *entry = journal_entry_at(journal, journal->end++);

	entry->sequence = header->sequence;
	entry->offset = header->file_offset;
	entry->to_pos = header->to_pos;
	entry->oldest_needed = header->oldest_needed;
	entry->block_count = header->block_count;
	entry->ring = ring;
	entry->slot = (uint16_t)slot;
}

static bool entry_unneeded(const struct petal_journal *journal, uint64_t index)
{
	const struct journal_entry *entry = journal_entry_at(journal, index);
	const struct journal_ring *ring;

	if (entry->ring == RING_NONE)
		return true;
	ring = &journal->rings[entry->ring];
	return entry->sequence < ring->freed_below ||
	       entry->to_pos <= ring->trim_pos;
}

void petal_journal_oldest_advance(struct petal_journal *journal)
{
	while (journal->oldest < journal->reported &&
	       entry_unneeded(journal, journal->oldest))
		journal->oldest++;
}

/* The mark for the next header. */
uint64_t petal_journal_oldest_sequence(const struct petal_journal *journal)
{
	return journal->oldest < journal->end
		       ? journal_entry_at(journal, journal->oldest)->sequence
		       : journal->next_sequence;
}

/* From the oldest taken byte forward to @offset, around the end. */
static uint64_t taken_upto(const struct petal_journal *journal, uint64_t offset)
{
	uint64_t tail = journal_entry_at(journal, journal->first)->offset;

	return offset > tail ? offset - tail
			     : journal_area_bytes(journal) - (tail - offset);
}

uint64_t petal_journal_used_bytes(const struct petal_journal *journal)
{
	return journal->first == journal->end
		       ? 0
		       : taken_upto(journal, journal->head);
}

uint64_t petal_journal_reclaimable_bytes(const struct petal_journal *journal)
{
	if (journal->oldest == journal->first)
		return 0;
	return journal->oldest == journal->end
		       ? petal_journal_used_bytes(journal)
		       : taken_upto(journal,
				    journal_entry_at(journal, journal->oldest)
					    ->offset);
}

/*
 * Room for @length bytes at @head or else at the start, if the taken bytes
 * begin at @tail. Equal head and tail mean full, for the newest batch, which
 * the next one refers to, is never given up.
 */
static bool room_find(const struct petal_journal *journal, uint64_t head,
		      uint64_t tail, uint64_t length, uint64_t *ret_offset)
{
	uint64_t limit = head > tail ? journal->file_bytes : tail;

	if (limit - head >= length) {
		*ret_offset = head;
		return true;
	}
	if (head > tail && tail - AREA_OFFSET >= length) {
		*ret_offset = AREA_OFFSET;
		return true;
	}
	return false;
}

/* As above, so that a note of one block fits behind it if @keep_note. */
bool petal_journal_space_find(const struct petal_journal *journal,
			      uint64_t length, bool keep_note,
			      uint64_t *ret_offset)
{
	uint64_t offset = journal->head;
	uint64_t tail, note_offset;

	if (journal->first == journal->end) {
		tail = offset;
	} else {
		tail = journal_entry_at(journal, journal->first)->offset;
		if (!room_find(journal, journal->head, tail, length, &offset))
			return false;
	}
	if (keep_note &&
	    !room_find(journal, offset + length, tail, BLOCK, &note_offset))
		return false;
	*ret_offset = offset;
	return true;
}

/* The batch at @index is durable, hence what its mark gives up is free. */
void petal_journal_space_release(struct petal_journal *journal, uint64_t index)
{
	uint64_t needed = journal_entry_at(journal, index)->oldest_needed;

	while (journal_entry_at(journal, journal->first)->sequence < needed) {
		struct journal_entry *entry =
			journal_entry_at(journal, journal->first);

		if (entry->ring != RING_NONE)
			journal->rings[entry->ring].batches--;
		journal->first++;
	}
}
