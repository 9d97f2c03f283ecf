/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Replay: find the live chain of batches in a file that also holds torn ones,
 * dropped ones and any number of older laps.
 *
 * The happy path: scan all blocks for headers, take the one with the highest
 * sequence, follow the chain back to the oldest batch that it says was needed,
 * and visit the batches from there.
 *
 * The chain may be broken. At a batch that any header calls durable: that is
 * damage, and ours to report. At one that nobody calls durable: a crash tore
 * it, nothing after it was ever reported, and the search starts again at the
 * next lower header. A header is whole or not, whatever became of the bytes
 * behind it; so the headers of torn batches are believed, too.
 *
 * The batches that are passed over stay in the file. Their sequences are not
 * used again, and no header that is written from now on leads to them; but the
 * same bytes, sent again, would go to the same place, and could make a torn
 * batch whole. So a note is written first, as the newest header of all: from
 * then on, the search does not come as far as them.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/journal_private.h"
#include "shm/crc32c.h"
#include "shm/error.h"

enum {
	/* The newest headers that are remembered, to start again below. */
	NEWEST_MAX = 1024,
	/* Marks of the table start here, to be filled backwards. */
	CHAIN_END_SHIFT = 40,
};

struct newest {
	uint64_t sequence;
	uint64_t offset;
};

struct replay {
	struct petal_journal *journal;
	/* One page more before and after, for the ragged ends. */
	uint8_t *bytes;
	uint8_t *bounce;
	uint8_t *chunk;
	uint64_t bytes_size;
	/* A heap, the least sequence at its top. */
	unsigned int newest_count;
	struct newest newest[NEWEST_MAX];
	uint64_t sequence_max;
	/* Up to here, some header says, all batches were durable. */
	uint64_t durable_upto;
};

static bool header_shape_valid(const struct petal_journal *journal,
			       const struct journal_header *header)
{
	struct journal_shape shape;

	if (header->flags & HEADER_NOTE)
		return header->block_count == 1 && header->bounce_blocks == 1;
	if (header->to_pos <= header->from_pos ||
	    header->to_pos - header->from_pos > journal->range_bytes_max)
		return false;
	shape = petal_journal_shape(header->from_pos, header->to_pos);
	return header->head_bytes == shape.head_bytes &&
	       header->tail_bytes == shape.tail_bytes &&
	       header->bounce_blocks == shape.bounce_blocks &&
	       header->block_count == shape.block_count;
}

/* Is this the header of a batch of ours, where it was once written? */
static bool header_valid(const struct petal_journal *journal,
			 const struct journal_header *header, uint64_t offset)
{
	if (header->magic != HEADER_MAGIC ||
	    header->version != PETAL_JOURNAL_VERSION ||
	    header->crc != petal_crc32c(0, header,
					offsetof(struct journal_header, crc)) ||
	    memcmp(header->uuid, journal->uuid, sizeof(header->uuid)) ||
	    header->file_offset != offset)
		return false;
	return header_shape_valid(journal, header) &&
	       (uint64_t)header->block_count * BLOCK <=
		       journal->file_bytes - offset &&
	       header->durable_upto < header->sequence &&
	       header->prev_sequence < header->sequence &&
	       header->oldest_needed <= header->sequence;
}

static bool block_offset_valid(const struct petal_journal *journal,
			       uint64_t offset)
{
	return offset >= AREA_OFFSET && offset % BLOCK == 0 &&
	       offset <= journal->file_bytes - BLOCK;
}

/* Return: 0 with a valid header, -ENODATA if there is none, or -ENOMEM etc. */
static int header_read(struct replay *replay, uint64_t offset,
		       struct journal_header *ret_header)
{
	struct petal_journal *journal = replay->journal;
	struct journal_header *header =
		(struct journal_header *)(void *)replay->bounce;
	int err;

	if (!block_offset_valid(journal, offset))
		return -ENODATA;
	err = petal_journal_file_read(journal->fd, header, BLOCK, offset);
	if (err == -EIO)
		return -ENODATA;
	if (err)
		return err;
	if (!header_valid(journal, header, offset))
		return -ENODATA;
	*ret_header = *header;
	return 0;
}

/* The bytes in one piece: the ends go where they touch the pages. */
static const uint8_t *batch_assemble(struct replay *replay,
				     const struct journal_header *header,
				     uint64_t direct_bytes)
{
	const uint8_t *head = replay->bounce + sizeof(*header);
	uint8_t *pages = replay->bytes + BLOCK;

	if (!direct_bytes)
		return head;
	memcpy(pages - header->head_bytes, head, header->head_bytes);
	memcpy(pages + direct_bytes, head + header->head_bytes,
	       header->tail_bytes);
	return pages - header->head_bytes;
}

/* Return: 0 with the bytes, or -ENODATA if they are not what was written. */
static int batch_read(struct replay *replay,
		      const struct journal_header *header,
		      const uint8_t **ret_bytes)
{
	uint64_t length = header->to_pos - header->from_pos;
	uint64_t direct = length - header->head_bytes - header->tail_bytes;
	uint64_t copied = (uint64_t)header->bounce_blocks * BLOCK;
	int fd = replay->journal->fd;
	const uint8_t *bytes;
	int err;

	err = petal_journal_file_read(fd, replay->bounce, copied,
				      header->file_offset);
	if (!err && direct)
		err = petal_journal_file_read(fd, replay->bytes + BLOCK, direct,
					      header->file_offset + copied);
	if (err)
		return err == -EIO ? -ENODATA : err;
	/* The block may read differently the second time. */
	if (memcmp(replay->bounce, header, sizeof(*header)))
		return -ENODATA;
	bytes = batch_assemble(replay, header, direct);
	if (petal_crc32c(0, bytes, length) != header->bytes_crc)
		return -ENODATA;
	*ret_bytes = bytes;
	return 0;
}

static bool batch_good(struct replay *replay,
		       const struct journal_header *header, int *ret_err)
{
	const uint8_t *bytes;
	int err = 0;

	if (!(header->flags & HEADER_NOTE))
		err = batch_read(replay, header, &bytes);
	*ret_err = err == -ENODATA ? 0 : err;
	return !err;
}

static void newest_sift(struct replay *replay, unsigned int at)
{
	struct newest *heap = replay->newest;

	for (unsigned int child = 2 * at + 1; child < replay->newest_count;
	     child = 2 * at + 1) {
		struct newest moved = heap[at];

		if (child + 1 < replay->newest_count &&
		    heap[child + 1].sequence < heap[child].sequence)
			child++;
		if (moved.sequence <= heap[child].sequence)
			break;
		heap[at] = heap[child];
		heap[child] = moved;
		at = child;
	}
}

static void newest_lift(struct replay *replay, unsigned int at)
{
	struct newest *heap = replay->newest;

	while (at && heap[at].sequence < heap[(at - 1) / 2].sequence) {
		struct newest moved = heap[at];

		heap[at] = heap[(at - 1) / 2];
		at = (at - 1) / 2;
		heap[at] = moved;
	}
}

static void newest_add(struct replay *replay,
		       const struct journal_header *header)
{
	uint64_t sequence = header->sequence;
	struct newest newest = {
		.sequence = sequence,
		.offset = header->file_offset,
	};

	if (sequence > replay->sequence_max)
		replay->sequence_max = sequence;
	if (header->durable_upto > replay->durable_upto)
		replay->durable_upto = header->durable_upto;
	if (replay->newest_count < NEWEST_MAX) {
		replay->newest[replay->newest_count] = newest;
		newest_lift(replay, replay->newest_count++);
	} else if (sequence > replay->newest[0].sequence) {
		replay->newest[0] = newest;
		newest_sift(replay, 0);
	}
}

/* Return: the newest header below @sequence, NULL if none. */
static const struct newest *newest_below(const struct replay *replay,
					 uint64_t sequence)
{
	const struct newest *best = NULL;

	for (unsigned int i = 0; i < replay->newest_count; i++) {
		const struct newest *newest = &replay->newest[i];

		if (newest->sequence < sequence &&
		    (!best || newest->sequence > best->sequence))
			best = newest;
	}
	return best;
}

/* A bad sector takes a megabyte's read with it; find the good ones. */
static int chunk_read_blocks(struct replay *replay, uint64_t at,
			     uint64_t length)
{
	struct petal_journal *journal = replay->journal;
	int err;

	for (uint64_t i = 0; i < length; i += BLOCK) {
		err = petal_journal_file_read(journal->fd, replay->chunk + i,
					      BLOCK, at + i);
		if (err && err != -EIO)
			return err;
		if (err) {
			memset(replay->chunk + i, 0, BLOCK);
			journal->stats.unreadable_blocks++;
		}
	}
	return 0;
}

static int chunk_scan(struct replay *replay, uint64_t at, uint64_t length)
{
	struct petal_journal *journal = replay->journal;
	const struct journal_header *header;
	int err;

	err = petal_journal_file_read(journal->fd, replay->chunk, length, at);
	if (err == -EIO)
		err = chunk_read_blocks(replay, at, length);
	if (err)
		return err;
	for (uint64_t i = 0; i < length; i += BLOCK) {
		header = (const struct journal_header
				  *)(const void *)(replay->chunk + i);
		if (header_valid(journal, header, at + i))
			newest_add(replay, header);
	}
	return 0;
}

static int file_scan(struct replay *replay)
{
	uint64_t end = replay->journal->file_bytes;
	uint64_t length;
	int err = 0;

	for (uint64_t at = AREA_OFFSET; !err && at < end; at += length) {
		length = min_u64(CHUNK_BYTES, end - at);
		err = chunk_scan(replay, at, length);
	}
	return err;
}

static void range_from_header(const struct journal_header *header,
			      struct petal_journal_range *ret_range)
{
	*ret_range = (struct petal_journal_range){
		.ring = header->ring,
		.from_pos = header->from_pos,
		.to_pos = header->to_pos,
		.from_lsn = header->from_lsn,
		.to_lsn = header->to_lsn,
		.trim_pos = header->trim_pos,
		.whole_pos = header->whole_pos,
		.data_bytes = header->data_bytes,
		.epoch = header->epoch,
	};
}

static int damage_found(struct petal_journal *journal, uint64_t sequence,
			uint64_t offset, const struct journal_header *header)
{
	journal->damaged = true;
	journal->damage = (struct petal_journal_damage){
		.sequence = sequence,
		.file_offset = offset,
		.named = header && !(header->flags & HEADER_NOTE),
	};
	if (journal->damage.named)
		range_from_header(header, &journal->damage.range);
	return -PETAL_ECORRUPT;
}

/* The table is filled from its end backwards, for so the chain is linked. */
static int chain_add(struct petal_journal *journal,
		     const struct journal_header *header)
{
	uint16_t index = RING_NONE;
	struct journal_ring *ring;
	uint64_t end;

	if (journal->end - journal->first == journal->entries_max)
		return damage_found(journal, header->sequence,
				    header->file_offset, header);
	if (!(header->flags & HEADER_NOTE)) {
		ring = petal_journal_ring_add(journal, header->ring);
		if (!ring)
			return -ENOSPC;
		ring->batches++;
		index = (uint16_t)petal_journal_ring_index(journal, ring);
	}
	end = journal->end;
	journal->end = --journal->first;
	petal_journal_entry_add(journal, header, index, 0);
	journal->end = end;
	return 0;
}

/* Begin again: nothing in the table, and the rings are as they were. */
static void chain_reset(struct petal_journal *journal)
{
	for (unsigned int i = 0; i < journal->rings_used; i++)
		journal->rings[i].batches = 0;
	journal->end = UINT64_C(1) << CHAIN_END_SHIFT;
	journal->first = journal->end;
}

/* Nothing will be appended: have nothing counted either. */
static void chain_forget(struct petal_journal *journal)
{
	chain_reset(journal);
	journal->oldest = journal->end;
	journal->reported = journal->end;
	journal->durable = journal->end;
}

/* Return: 0 with the batch before @at, -ENODATA if it is not there. */
static int chain_before(struct replay *replay, const struct journal_header *at,
			const struct journal_header *top,
			struct journal_header *ret_before)
{
	int err = header_read(replay, at->prev_offset, ret_before);

	if (!err && (ret_before->sequence != at->prev_sequence ||
		     ret_before->crc != at->prev_crc ||
		     ret_before->sequence < top->oldest_needed))
		err = -ENODATA;
	return err;
}

/*
 * A batch that nobody called durable is torn. The one before it may be durable,
 * and then it must be there.
 */
static int chain_break(struct replay *replay, const struct journal_header *at,
		       const struct journal_header *top, uint64_t *ret_broken)
{
	struct journal_header before;
	int err;

	*ret_broken = at->sequence;
	if (at->sequence == top->oldest_needed ||
	    at->prev_sequence > replay->durable_upto)
		return 1;
	err = chain_before(replay, at, top, &before);
	if (err == -ENODATA)
		return damage_found(replay->journal, at->prev_sequence,
				    at->prev_offset, NULL);
	return err ? err : 1;
}

/*
 * Follow the chain from its newest batch back to the oldest that was needed.
 *
 * Return: 0; 1 if it is broken at a batch that nobody called durable, with
 * its sequence; negative if it is damaged, or if something failed.
 */
static int chain_follow(struct replay *replay, const struct journal_header *top,
			uint64_t *ret_broken)
{
	struct petal_journal *journal = replay->journal;
	struct journal_header at = *top;
	struct journal_header before;
	int err;

	for (;;) {
		if (at.sequence > replay->durable_upto &&
		    !batch_good(replay, &at, &err))
			return err ? err
				   : chain_break(replay, &at, top, ret_broken);
		err = chain_add(journal, &at);
		if (err || at.sequence == top->oldest_needed)
			return err;
		err = chain_before(replay, &at, top, &before);
		if (err)
			break;
		at = before;
	}
	if (err != -ENODATA)
		return err;
	if (at.prev_sequence <= replay->durable_upto)
		return damage_found(journal, at.prev_sequence, at.prev_offset,
				    NULL);
	*ret_broken = at.prev_sequence;
	return 1;
}

/* Where the next batch goes, and what it will call the one before it. */
static void chain_continue(struct replay *replay,
			   const struct journal_header *top)
{
	struct petal_journal *journal = replay->journal;

	journal->next_sequence = replay->sequence_max + 1;
	journal->oldest = journal->first;
	journal->reported = journal->end;
	journal->durable = journal->end;
	if (!top)
		return;
	journal->head = top->file_offset + (uint64_t)top->block_count * BLOCK;
	journal->durable_sequence = top->sequence;
	journal->last_sequence = top->sequence;
	journal->last_offset = top->file_offset;
	journal->last_crc = top->crc;
	journal->last_oldest = top->oldest_needed;
	journal->last_is_note = top->flags & HEADER_NOTE;
	petal_journal_oldest_advance(journal);
}

/* Headers above the chain, and the breaks in it that had no header left. */
static uint64_t dropped_count(const struct replay *replay, uint64_t sequence,
			      uint64_t headless)
{
	for (unsigned int i = 0; i < replay->newest_count; i++)
		headless += replay->newest[i].sequence > sequence;
	return headless;
}

static bool newest_has(const struct replay *replay, uint64_t sequence)
{
	const struct newest *newest = newest_below(replay, sequence + 1);

	return newest && newest->sequence == sequence;
}

static int chain_find(struct replay *replay)
{
	struct petal_journal *journal = replay->journal;
	uint64_t below = UINT64_MAX;
	const struct newest *newest;
	uint64_t headless = 0;
	struct journal_header top;
	int err = 1;

	/* Each turn starts below the last, hence it ends. */
	while (err == 1) {
		chain_reset(journal);
		newest = newest_below(replay, below);
		if (replay->durable_upto &&
		    (!newest || newest->sequence < replay->durable_upto))
			return damage_found(journal, replay->durable_upto, 0,
					    NULL);
		if (!newest)
			break;
		below = newest->sequence;
		err = header_read(replay, newest->offset, &top);
		if (err == -ENODATA)
			err = 1;
		else if (!err)
			err = chain_follow(replay, &top, &below);
		if (err == 1)
			headless += !newest_has(replay, below);
	}
	if (err < 0)
		return err;
	chain_continue(replay, err ? NULL : &top);
	journal->stats.dropped_batches =
		dropped_count(replay, journal->last_sequence, headless);
	return 0;
}

static int batch_visit(struct replay *replay, const struct journal_entry *entry,
		       petal_journal_visit visit, void *arg)
{
	struct petal_journal *journal = replay->journal;
	struct petal_journal_range range;
	struct journal_header header;
	const uint8_t *bytes;
	int err;

	err = header_read(replay, entry->offset, &header);
	if (!err && header.sequence != entry->sequence)
		err = -ENODATA;
	if (err == -ENODATA)
		return damage_found(journal, entry->sequence, entry->offset,
				    NULL);
	if (!err)
		err = batch_read(replay, &header, &bytes);
	if (err == -ENODATA)
		return damage_found(journal, entry->sequence, entry->offset,
				    &header);
	if (err)
		return err;
	range_from_header(&header, &range);
	journal->stats.replayed_batches++;
	return visit(arg, &range, bytes);
}

static int chain_visit(struct replay *replay, petal_journal_visit visit,
		       void *arg)
{
	struct petal_journal *journal = replay->journal;
	int err = 0;

	for (uint64_t i = journal->first; !err && i < journal->end; i++) {
		const struct journal_entry *entry =
			journal_entry_at(journal, i);

		if (entry->ring != RING_NONE)
			err = batch_visit(replay, entry, visit, arg);
	}
	return err;
}

/*
 * What was dropped must never come back. A note that fails freezes the journal:
 * then nothing else is written either.
 */
static void drop_seal(struct petal_journal *journal)
{
	if (!journal->stats.dropped_batches)
		return;
	/*
	 * There is room where the dropped batches are; but only for one note,
	 * if one note is all there was. Being a header alone, it stays torn.
	 */
	if (petal_journal_note_submit(journal, true))
		petal_journal_flight_wait(journal);
}

static struct replay *replay_alloc(struct petal_journal *journal)
{
	uint64_t pages = (journal->range_bytes_max + BLOCK - 1) / BLOCK;
	struct replay *replay = calloc(1, sizeof(*replay));

	if (!replay)
		return NULL;
	replay->journal = journal;
	replay->bytes_size = (pages + 2) * BLOCK;
	replay->bytes = petal_journal_pages_alloc(replay->bytes_size);
	replay->bounce = petal_journal_pages_alloc(BOUNCE_BYTES);
	replay->chunk = petal_journal_pages_alloc(CHUNK_BYTES);
	return replay;
}

static void replay_free(struct replay *replay)
{
	if (!replay)
		return;
	petal_journal_pages_free(replay->bytes, replay->bytes_size);
	petal_journal_pages_free(replay->bounce, BOUNCE_BYTES);
	petal_journal_pages_free(replay->chunk, CHUNK_BYTES);
	free(replay);
}

/*
 * What is read must be what the disk has: written by a process that died, it
 * may be in memory only, and after a failed write it may be there for ever.
 */
static int file_settle(struct petal_journal *journal)
{
	if (fsync(journal->fd))
		return -errno;
	posix_fadvise(journal->fd, 0, 0, POSIX_FADV_DONTNEED);
	return 0;
}

static int replay_run(struct replay *replay, petal_journal_visit visit,
		      void *arg)
{
	int err;

	if (!replay || !replay->bytes || !replay->bounce || !replay->chunk)
		return -ENOMEM;
	err = file_settle(replay->journal);
	if (!err)
		err = file_scan(replay);
	if (!err)
		err = chain_find(replay);
	if (!err)
		err = chain_visit(replay, visit, arg);
	if (!err)
		drop_seal(replay->journal);
	return err;
}

int petal_journal_replay(struct petal_journal *journal,
			 petal_journal_visit visit, void *arg)
{
	struct replay *replay;
	int err = 0;

	if (journal->replayed)
		return -EALREADY;
	journal->replayed = true;
	if (!journal->fresh) {
		replay = replay_alloc(journal);
		err = replay_run(replay, visit, arg);
		replay_free(replay);
	}
	if (err)
		chain_forget(journal);
	journal->ready = !err;
	return err;
}

int petal_journal_damage(const struct petal_journal *journal,
			 struct petal_journal_damage *ret_damage)
{
	if (!journal->damaged)
		return -ENODATA;
	*ret_damage = journal->damage;
	return 0;
}
