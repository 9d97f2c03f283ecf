/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The journal at work: rings, space, batches. journal_file.c makes the file and
 * journal_replay.c reads it; how bytes reach it is the engine's business
 * (journal_io.h).
 *
 * The happy path. An append finds room after the newest batch, fills a bounce
 * block with header and ragged ends, adds an entry to the table of batches and
 * gives the engine up to three pieces. A poll collects completions, moves
 * "durable" over all entries that are written without a gap, and reports them.
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
 * (Only "oldest" may stop anywhere up to "reported".) Trimming moves "oldest".
 * "first" follows when a batch whose header carries that mark is durable, and
 * not earlier: a crash may leave new batches torn that were written over old
 * ones, and replay must learn from what is left that the old ones were not
 * needed any more. If everything is full, there is no batch to carry the mark;
 * so one block is kept back for a note, a batch without bytes.
 *
 * The failure modes. A write fails: freeze, at the first entry that is not
 * durable; everything from there on is reported as -PETAL_EDISK. A crash tears
 * the newest batches: replay goes back from the newest header, and where the
 * chain is broken, at a batch that no header calls durable, it starts again
 * below. What it passes over in this way (a whole batch behind a torn one)
 * stays in the file, and has a sequence that is never used again and nobody's
 * header refers to. The disk forgets or changes what was durable: replay stops.
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
	/* Registered buffers: the bounce blocks, then an area per ring. */
	BOUNCE_BUFFER = 0,
	AREA_BUFFER = 1,
	RANGE_BYTES_MAX = 16 << 20,
	/* Below this share of free space, trimming writes a note at once. */
	LOW_SPACE_SHARE = 8,
};

/*
 * Open and close.
 */

static int options_check(const struct petal_journal_options *options)
{
	if (!options->dir || options->bytes % BLOCK ||
	    options->bytes < PETAL_JOURNAL_BYTES_MIN ||
	    options->bytes > PETAL_JOURNAL_BYTES_MAX)
		return -EINVAL;
	return 0;
}

static uint64_t area_bytes(const struct petal_journal *journal)
{
	return journal->file_bytes - AREA_OFFSET;
}

static int tables_alloc(struct petal_journal *journal)
{
	uint64_t entries_max = 1;
	/* A quarter of the area, so that an empty one takes it anywhere. */
	uint64_t quarter = area_bytes(journal) / 4 / BLOCK * BLOCK;

	while (entries_max < area_bytes(journal) / BLOCK &&
	       entries_max < PETAL_JOURNAL_BATCHES_MAX)
		entries_max *= 2;
	journal->entries_max = entries_max;
	journal->range_bytes_max =
		min_u64(RANGE_BYTES_MAX, quarter - BOUNCE_BYTES);
	journal->entries = petal_journal_pages_alloc(
		entries_max * sizeof(struct journal_entry));
	journal->bounce = petal_journal_pages_alloc(SLOTS * BOUNCE_BYTES);
	if (!journal->entries || !journal->bounce)
		return -ENOMEM;
	/* In a child the pages would change under the kernel's hands. */
	madvise(journal->bounce, SLOTS * BOUNCE_BYTES, MADV_DONTFORK);
	return 0;
}

static int engine_open(struct petal_journal *journal)
{
	int err;

	err = petal_journal_io_open(journal->fd, SLOTS,
				    AREA_BUFFER + PETAL_JOURNAL_RINGS_MAX,
				    &journal->io);
	if (err)
		return err;
	journal->bounce_fixed = !petal_journal_io_register(
		journal->io, BOUNCE_BUFFER, journal->bounce,
		SLOTS * BOUNCE_BYTES);
	return 0;
}

static int journal_open(struct petal_journal *journal,
			const struct petal_journal_options *options)
{
	int err;

	journal->dir_fd =
		open(options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (journal->dir_fd < 0)
		return -errno;
	err = petal_journal_file_open(journal, options);
	if (!err)
		err = tables_alloc(journal);
	if (!err)
		err = engine_open(journal);
	return err;
}

static void journal_free(struct petal_journal *journal)
{
	if (journal->io)
		petal_journal_io_close(journal->io);
	petal_journal_file_close(journal);
	if (journal->dir_fd >= 0)
		close(journal->dir_fd);
	petal_journal_pages_free(journal->entries,
				 journal->entries_max *
					 sizeof(struct journal_entry));
	petal_journal_pages_free(journal->bounce, SLOTS * BOUNCE_BYTES);
	free(journal);
}

int petal_journal_open(const struct petal_journal_options *options,
		       struct petal_journal **ret_journal)
{
	struct petal_journal *journal;
	int err;

	err = options_check(options);
	if (err)
		return err;
	journal = calloc(1, sizeof(*journal));
	if (!journal)
		return -ENOMEM;
	journal->dir_fd = -1;
	journal->fd = -1;
	journal->direct = options->direct;
	journal->file_bytes = options->bytes;
	journal->head = AREA_OFFSET;
	journal->next_sequence = 1;
	err = journal_open(journal, options);
	if (err) {
		journal_free(journal);
		return err;
	}
	*ret_journal = journal;
	return 0;
}

int petal_journal_fd(const struct petal_journal *journal)
{
	return petal_journal_io_fd(journal->io);
}

/*
 * Rings.
 */

static bool ring_known(const struct journal_ring *ring)
{
	return ring->attached || ring->batches;
}

static struct journal_ring *ring_find(struct petal_journal *journal,
				      uint64_t id)
{
	for (unsigned int i = 0; i < journal->rings_used; i++) {
		struct journal_ring *ring = &journal->rings[i];

		if (ring->id == id && ring_known(ring))
			return ring;
	}
	return NULL;
}

struct journal_ring *petal_journal_ring_add(struct petal_journal *journal,
					    uint64_t id)
{
	struct journal_ring *ring = ring_find(journal, id);
	unsigned int i = 0;

	if (ring)
		return ring;
	while (i < journal->rings_used && ring_known(&journal->rings[i]))
		i++;
	if (i == PETAL_JOURNAL_RINGS_MAX)
		return NULL;
	if (i == journal->rings_used)
		journal->rings_used++;
	ring = &journal->rings[i];
	*ring = (struct journal_ring){ .id = id };
	return ring;
}

static void ring_let_go(struct petal_journal *journal,
			struct journal_ring *ring)
{
	if (ring->fixed)
		petal_journal_io_unregister(
			journal->io,
			AREA_BUFFER + petal_journal_ring_index(journal, ring));
	ring->fixed = false;
	ring->attached = false;
	ring->data = NULL;
}

int petal_journal_attach(struct petal_journal *journal, uint64_t ring_id,
			 const void *data, uint64_t data_bytes)
{
	struct journal_ring *ring;

	if (!data || (uintptr_t)data % BLOCK || data_bytes < BLOCK ||
	    data_bytes & (data_bytes - 1))
		return -EINVAL;
	ring = petal_journal_ring_add(journal, ring_id);
	if (!ring)
		return -ENOSPC;
	if (ring->in_flight)
		return -EBUSY;
	ring_let_go(journal, ring);
	ring->attached = true;
	ring->data = data;
	ring->data_bytes = data_bytes;
	ring->fixed = !petal_journal_io_register(
		journal->io,
		AREA_BUFFER + petal_journal_ring_index(journal, ring), data,
		data_bytes);
	return 0;
}

/*
 * Space.
 */

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
static uint64_t oldest_sequence(const struct petal_journal *journal)
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
			     : area_bytes(journal) - (tail - offset);
}

static uint64_t used_bytes(const struct petal_journal *journal)
{
	return journal->first == journal->end
		       ? 0
		       : taken_upto(journal, journal->head);
}

static uint64_t reclaimable_bytes(const struct petal_journal *journal)
{
	if (journal->oldest == journal->first)
		return 0;
	return journal->oldest == journal->end
		       ? used_bytes(journal)
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
static bool space_find(const struct petal_journal *journal, uint64_t length,
		       bool keep_note, uint64_t *ret_offset)
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
static void space_release(struct petal_journal *journal, uint64_t index)
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

/*
 * Sending a batch.
 */

struct journal_shape petal_journal_shape(uint64_t from, uint64_t to)
{
	uint64_t first_page = (from + BLOCK - 1) / BLOCK * BLOCK;
	uint64_t end_page = to / BLOCK * BLOCK;
	struct journal_shape shape = { 0 };
	uint64_t copied;

	if (first_page < end_page) {
		shape.head_bytes = (uint32_t)(first_page - from);
		shape.tail_bytes = (uint32_t)(to - end_page);
		shape.direct_bytes = end_page - first_page;
	} else {
		shape.head_bytes = (uint32_t)(to - from);
	}
	copied = sizeof(struct journal_header) + shape.head_bytes +
		 shape.tail_bytes;
	shape.bounce_blocks = (uint32_t)((copied + BLOCK - 1) / BLOCK);
	shape.block_count =
		shape.bounce_blocks + (uint32_t)(shape.direct_bytes / BLOCK);
	return shape;
}

/* Copy out of the circle of the data area. */
static void area_copy(const struct journal_ring *ring, uint64_t pos,
		      uint8_t *to, uint64_t length)
{
	uint64_t offset = pos & (ring->data_bytes - 1);
	uint64_t straight = min_u64(length, ring->data_bytes - offset);

	memcpy(to, ring->data + offset, straight);
	memcpy(to + straight, ring->data, length - straight);
}

static unsigned int slot_claim(struct petal_journal *journal)
{
	unsigned int slot = 0;

	while (journal->slots[slot].used)
		slot++;
	journal->slots[slot] = (struct journal_slot){ .used = true };
	journal->slots_used++;
	return slot;
}

static void header_fill(const struct petal_journal *journal,
			struct journal_header *header, uint64_t offset)
{
	memset(header, 0, sizeof(*header));
	header->magic = HEADER_MAGIC;
	header->version = PETAL_JOURNAL_VERSION;
	memcpy(header->uuid, journal->uuid, sizeof(header->uuid));
	header->sequence = journal->next_sequence;
	header->file_offset = offset;
	header->prev_sequence = journal->last_sequence;
	header->prev_offset = journal->last_offset;
	header->prev_crc = journal->last_crc;
	header->durable_upto = journal->durable_sequence;
	header->oldest_needed = oldest_sequence(journal);
}

static void header_describe(struct journal_header *header,
			    const struct journal_ring *ring,
			    const struct petal_journal_range *range,
			    const struct journal_shape *shape)
{
	header->ring = range->ring;
	header->from_pos = range->from_pos;
	header->to_pos = range->to_pos;
	header->from_lsn = range->from_lsn;
	header->to_lsn = range->to_lsn;
	header->trim_pos = range->trim_pos;
	header->data_bytes = ring->data_bytes;
	header->epoch = range->epoch;
	header->head_bytes = shape->head_bytes;
	header->tail_bytes = shape->tail_bytes;
	header->bounce_blocks = shape->bounce_blocks;
	header->block_count = shape->block_count;
}

static void piece_add(struct petal_journal_write *write, const void *base,
		      uint64_t length, unsigned int buffer)
{
	unsigned int i = write->piece_count;

	if (!length)
		return;
	write->pieces[i].iov_base = (void *)(uintptr_t)base;
	write->pieces[i].iov_len = length;
	write->buffers[i] = buffer;
	write->piece_count++;
}

/* The whole pages: two pieces if they go around the end of the data area. */
static void pieces_add_direct(const struct petal_journal *journal,
			      struct petal_journal_write *write,
			      const struct journal_ring *ring, uint64_t pos,
			      uint64_t length)
{
	unsigned int buffer =
		AREA_BUFFER + petal_journal_ring_index(journal, ring);
	uint64_t offset = pos & (ring->data_bytes - 1);
	uint64_t straight = min_u64(length, ring->data_bytes - offset);

	piece_add(write, ring->data + offset, straight, buffer);
	piece_add(write, ring->data, length - straight, buffer);
}

/*
 * Fill in the bytes. The checksum is taken from what is written: from the
 * copies of the ends, and from the pages themselves.
 */
static void bounce_fill(struct petal_journal_write *write, uint8_t *bounce,
			const struct journal_ring *ring,
			const struct journal_shape *shape, uint64_t from_pos,
			uint64_t to_pos)
{
	struct journal_header *header = (struct journal_header *)(void *)bounce;
	uint8_t *head = bounce + sizeof(*header);
	uint8_t *tail = head + shape->head_bytes;
	uint8_t *end = bounce + (uint64_t)shape->bounce_blocks * BLOCK;
	uint32_t crc;

	area_copy(ring, from_pos, head, shape->head_bytes);
	area_copy(ring, to_pos - shape->tail_bytes, tail, shape->tail_bytes);
	memset(tail + shape->tail_bytes, 0,
	       (size_t)(end - tail) - shape->tail_bytes);
	crc = petal_crc32c(0, head, shape->head_bytes);
	for (unsigned int i = 1; i < write->piece_count; i++)
		crc = petal_crc32c(crc, write->pieces[i].iov_base,
				   write->pieces[i].iov_len);
	header->bytes_crc = petal_crc32c(crc, tail, shape->tail_bytes);
}

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

/* The last step: from here on, it is in the chain. */
static void batch_submit(struct petal_journal *journal,
			 struct petal_journal_write *write,
			 struct journal_header *header, uint16_t ring)
{
	uint64_t length = (uint64_t)header->block_count * BLOCK;

	header->crc =
		petal_crc32c(0, header, offsetof(struct journal_header, crc));
	petal_journal_entry_add(journal, header, ring,
				(unsigned int)write->cookie);
	if (write->offset != journal->head)
		journal->stats.padding_bytes +=
			journal->file_bytes - journal->head;
	journal->head = write->offset + length;
	journal->next_sequence++;
	journal->last_sequence = header->sequence;
	journal->last_offset = header->file_offset;
	journal->last_crc = header->crc;
	journal->last_oldest = header->oldest_needed;
	journal->last_is_note = ring == RING_NONE;
	petal_journal_io_submit(journal->io, write);
}

/* A batch without bytes, to carry the marks. */
static bool note_submit(struct petal_journal *journal, bool keep_note)
{
	struct petal_journal_write write = { 0 };
	struct journal_header *header;
	unsigned int slot;

	if (journal->note_in_flight ||
	    journal->end - journal->first == journal->entries_max ||
	    !space_find(journal, BLOCK, keep_note, &write.offset))
		return false;
	slot = slot_claim(journal);
	header = (struct journal_header *)(void *)(journal->bounce +
						   slot * BOUNCE_BYTES);
	write.cookie = slot;
	memset(header, 0, BLOCK);
	header_fill(journal, header, write.offset);
	header->flags = HEADER_NOTE;
	header->block_count = 1;
	header->bounce_blocks = 1;
	piece_add(&write, header, BLOCK, BOUNCE_BUFFER);
	journal->note_in_flight = true;
	journal->stats.notes++;
	journal->stats.padding_bytes += BLOCK;
	batch_submit(journal, &write, header, RING_NONE);
	return true;
}

/* If space waits only for a batch that says it is free, write one. */
static void space_ask(struct petal_journal *journal)
{
	/* The note takes a block itself, and must win more than that. */
	if (!journal->ready || journal->frozen ||
	    reclaimable_bytes(journal) < 2 * BLOCK ||
	    oldest_sequence(journal) <= journal->last_oldest)
		return;
	note_submit(journal, false);
}

static int range_check(const struct petal_journal *journal,
		       const struct journal_ring *ring,
		       const struct petal_journal_range *range)
{
	uint64_t length = range->to_pos - range->from_pos;

	if (range->to_pos <= range->from_pos || length > ring->data_bytes)
		return -EINVAL;
	return length > journal->range_bytes_max ? -EMSGSIZE : 0;
}

static int append_allowed(const struct petal_journal *journal)
{
	if (journal->damaged)
		return -PETAL_ECORRUPT;
	if (journal->frozen)
		return -PETAL_EDISK;
	return journal->ready ? 0 : -EINVAL;
}

static bool append_has_slot(const struct petal_journal *journal)
{
	unsigned int used = journal->slots_used - journal->note_in_flight;

	return used < PETAL_JOURNAL_INFLIGHT_MAX;
}

static void append_count(struct petal_journal *journal,
			 const struct petal_journal_range *range,
			 const struct journal_shape *shape)
{
	uint64_t length = range->to_pos - range->from_pos;

	journal->stats.batches++;
	journal->stats.direct_bytes += shape->direct_bytes;
	journal->stats.copied_bytes += length - shape->direct_bytes;
	journal->stats.padding_bytes +=
		(uint64_t)shape->block_count * BLOCK - length;
}

static void append_submit(struct petal_journal *journal,
			  struct journal_ring *ring,
			  const struct petal_journal_range *range,
			  const struct journal_shape *shape, uint64_t offset)
{
	unsigned int slot = slot_claim(journal);
	uint8_t *bounce = journal->bounce + slot * BOUNCE_BYTES;
	struct journal_header *header = (struct journal_header *)(void *)bounce;
	struct petal_journal_write write = {
		.offset = offset,
		.cookie = slot,
	};

	journal->slots[slot].to_lsn = range->to_lsn;
	header_fill(journal, header, offset);
	header_describe(header, ring, range, shape);
	piece_add(&write, bounce, (uint64_t)shape->bounce_blocks * BLOCK,
		  BOUNCE_BUFFER);
	pieces_add_direct(journal, &write, ring,
			  range->from_pos + shape->head_bytes,
			  shape->direct_bytes);
	bounce_fill(&write, bounce, ring, shape, range->from_pos,
		    range->to_pos);
	ring->in_flight = true;
	ring->batches++;
	append_count(journal, range, shape);
	batch_submit(journal, &write, header,
		     (uint16_t)petal_journal_ring_index(journal, ring));
}

int petal_journal_append(struct petal_journal *journal,
			 const struct petal_journal_range *range)
{
	struct journal_ring *ring;
	struct journal_shape shape;
	uint64_t offset;
	int err;

	err = append_allowed(journal);
	if (err)
		return err;
	ring = ring_find(journal, range->ring);
	if (!ring || !ring->attached)
		return -ENOENT;
	err = range_check(journal, ring, range);
	if (err)
		return err;
	if (ring->in_flight) {
		journal->stats.refused_busy++;
		return -EBUSY;
	}
	if (!append_has_slot(journal)) {
		journal->stats.refused_busy++;
		return -EAGAIN;
	}
	shape = petal_journal_shape(range->from_pos, range->to_pos);
	/* The last entry is the note's, as the last block is. */
	if (journal->end - journal->first >= journal->entries_max - 1 ||
	    !space_find(journal, (uint64_t)shape.block_count * BLOCK, true,
			&offset)) {
		journal->stats.refused_full++;
		space_ask(journal);
		return -EAGAIN;
	}
	append_submit(journal, ring, range, &shape, offset);
	return 0;
}

/*
 * Learning what became of it.
 */

static void completions_take(struct petal_journal *journal, bool wait)
{
	struct petal_journal_written written[SLOTS];
	unsigned int count;

	count = petal_journal_io_reap(journal->io, written, SLOTS, wait);
	for (unsigned int i = 0; i < count; i++) {
		struct journal_slot *slot = &journal->slots[written[i].cookie];

		slot->written = true;
		slot->status = written[i].status;
	}
}

static void durable_advance(struct petal_journal *journal)
{
	while (!journal->frozen && journal->durable < journal->end) {
		struct journal_entry *entry =
			journal_entry_at(journal, journal->durable);
		struct journal_slot *slot = &journal->slots[entry->slot];

		if (!slot->written)
			break;
		if (slot->status) {
			journal->frozen = true;
			journal->frozen_status = slot->status;
			break;
		}
		journal->durable_sequence = entry->sequence;
		space_release(journal, journal->durable++);
	}
}

static void slot_release(struct petal_journal *journal,
			 struct journal_slot *slot)
{
	slot->used = false;
	journal->slots_used--;
}

/* Report the entry at "reported". Return: whether the caller hears of it. */
static bool entry_report(struct petal_journal *journal,
			 struct petal_journal_done *done)
{
	bool good = journal->reported < journal->durable;
	struct journal_entry *entry =
		journal_entry_at(journal, journal->reported++);
	struct journal_slot *slot = &journal->slots[entry->slot];
	struct journal_ring *ring;

	slot_release(journal, slot);
	if (entry->ring == RING_NONE) {
		journal->note_in_flight = false;
		return false;
	}
	ring = &journal->rings[entry->ring];
	ring->in_flight = false;
	done->ring = ring->id;
	done->to_pos = entry->to_pos;
	done->to_lsn = slot->to_lsn;
	done->status = good ? 0 : -PETAL_EDISK;
	return true;
}

/*
 * What will never be durable is reported too, but only when the kernel has let
 * go of the memory.
 */
static bool report_due(const struct petal_journal *journal)
{
	const struct journal_entry *entry;

	if (journal->reported < journal->durable)
		return true;
	if (!journal->frozen || journal->reported == journal->end)
		return false;
	entry = journal_entry_at(journal, journal->reported);
	return journal->slots[entry->slot].written;
}

int petal_journal_poll(struct petal_journal *journal,
		       struct petal_journal_done *done, unsigned int max)
{
	unsigned int count = 0;

	completions_take(journal, false);
	durable_advance(journal);
	while (count < max && report_due(journal))
		count += entry_report(journal, &done[count]);
	petal_journal_oldest_advance(journal);
	return (int)count;
}

/*
 * Giving space back.
 */

static void space_returned(struct petal_journal *journal)
{
	petal_journal_oldest_advance(journal);
	if (area_bytes(journal) - used_bytes(journal) <
	    area_bytes(journal) / LOW_SPACE_SHARE)
		space_ask(journal);
}

int petal_journal_trim(struct petal_journal *journal, uint64_t ring_id,
		       uint64_t pos)
{
	struct journal_ring *ring = ring_find(journal, ring_id);

	if (!ring)
		return -ENOENT;
	if (pos > ring->trim_pos)
		ring->trim_pos = pos;
	space_returned(journal);
	return 0;
}

int petal_journal_detach(struct petal_journal *journal, uint64_t ring_id)
{
	struct journal_ring *ring = ring_find(journal, ring_id);

	if (!ring)
		return -ENOENT;
	if (ring->in_flight)
		return -EBUSY;
	ring_let_go(journal, ring);
	/* Attached again, it starts anew: positions are no guide then. */
	ring->trim_pos = 0;
	ring->freed_below = journal->next_sequence;
	space_returned(journal);
	return 0;
}

/*
 * What is told, and the end.
 */

static void stats_rings(const struct petal_journal *journal,
			struct petal_journal_stats *stats)
{
	const struct journal_entry *entry;

	for (unsigned int i = 0; i < journal->rings_used; i++) {
		stats->areas += journal->rings[i].attached;
		stats->areas_fixed += journal->rings[i].fixed;
	}
	stats->live_batches = journal->end - journal->oldest;
	if (journal->oldest == journal->end)
		return;
	entry = journal_entry_at(journal, journal->oldest);
	if (entry->ring == RING_NONE)
		return;
	stats->oldest_ring = journal->rings[entry->ring].id;
	stats->oldest_to_pos = entry->to_pos;
}

void petal_journal_stats(const struct petal_journal *journal,
			 struct petal_journal_stats *ret_stats)
{
	*ret_stats = journal->stats;
	ret_stats->engine = petal_journal_io_name();
	ret_stats->capacity_bytes = area_bytes(journal);
	ret_stats->used_bytes = used_bytes(journal);
	ret_stats->range_bytes_max = journal->range_bytes_max;
	ret_stats->bounce_fixed = journal->bounce_fixed;
	ret_stats->direct = journal->direct;
	ret_stats->memory_only = journal->memory_only;
	ret_stats->frozen = journal->frozen;
	ret_stats->frozen_status = journal->frozen_status;
	stats_rings(journal, ret_stats);
}

/* Nobody hears of these any more; only the memory must be let go. */
static void flight_wait(struct petal_journal *journal)
{
	struct petal_journal_done done;

	for (unsigned int i = 0; i < SLOTS && journal->slots_used; i++) {
		completions_take(journal, true);
		durable_advance(journal);
		while (report_due(journal))
			entry_report(journal, &done);
	}
	petal_journal_oldest_advance(journal);
}

void petal_journal_close(struct petal_journal *journal)
{
	if (!journal)
		return;
	flight_wait(journal);
	if (journal->ready && !journal->frozen && journal->last_sequence &&
	    !journal->last_is_note && note_submit(journal, true))
		flight_wait(journal);
	journal_free(journal);
}
