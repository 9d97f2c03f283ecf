/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A batch on its way to the disk: a header, which refers to the batch before
 * it, and the bytes of a range.
 *
 * The happy path. The range is cut: whole pages go straight from the data area,
 * and the ragged ends are copied into the bounce blocks behind the header. The
 * bytes have a checksum in the header, and the header one of its own, which
 * comes last; then the batch is in the table, the next one will refer to it,
 * and the engine has up to three pieces: the bounce blocks, and the pages,
 * which are two pieces if they go around the end of the data area. A note is a
 * header alone.
 *
 * The failure modes. Nothing fails here: room, slot and range were checked
 * before, and a write that the engine cannot start comes back as a completion
 * that failed. Only a note may find no room, and is then not written. A crash
 * between here and the completion leaves a torn batch; its checksums tell.
 */

#include <string.h>

#include "fabric/journal_private.h"
#include "shm/crc32c.h"

/*
 * What goes where.
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

/*
 * The header.
 */

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
	header->oldest_needed = petal_journal_oldest_sequence(journal);
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
	header->whole_pos = range->whole_pos;
	header->data_bytes = ring->data_bytes;
	header->epoch = range->epoch;
	header->head_bytes = shape->head_bytes;
	header->tail_bytes = shape->tail_bytes;
	header->bounce_blocks = shape->bounce_blocks;
	header->block_count = shape->block_count;
}

/*
 * Sending.
 */

static unsigned int slot_claim(struct petal_journal *journal)
{
	unsigned int slot = 0;

	while (journal->slots[slot].used)
		slot++;
	journal->slots[slot] = (struct journal_slot){ .used = true };
	journal->slots_used++;
	return slot;
}

/* The last step: from here on, it is in the chain. */
static void chain_submit(struct petal_journal *journal,
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
bool petal_journal_note_submit(struct petal_journal *journal, bool keep_note)
{
	struct petal_journal_write write = { 0 };
	struct journal_header *header;
	unsigned int slot;

	if (journal->note_in_flight ||
	    journal->end - journal->first == journal->entries_max ||
	    !petal_journal_space_find(journal, BLOCK, keep_note, &write.offset))
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
	chain_submit(journal, &write, header, RING_NONE);
	return true;
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

void petal_journal_batch_submit(struct petal_journal *journal,
				struct journal_ring *ring,
				const struct petal_journal_range *range,
				const struct journal_shape *shape,
				uint64_t offset)
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
	chain_submit(journal, &write, header,
		     (uint16_t)petal_journal_ring_index(journal, ring));
}
