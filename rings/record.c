/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/record.h"

#include <stddef.h>

#include "shm/crc32c.h"
#include "shm/error.h"

/*
 * The happy path: the replicator stamps, the bytes travel, the backup checks
 * at the place where its cursor stands and moves the cursor.
 *
 * What may go wrong: the bytes are those of an older lap, of an older epoch, or
 * half of the new ones. All three look the same to a backup (the record "is not
 * there yet"), because one-sided writes may land in any order.
 */

/* hdr_crc covers from length up to itself; the commit word stays outside. */
#define HDR_CRC_FROM offsetof(struct petal_record_durable, record.length)
#define HDR_CRC_TO offsetof(struct petal_record_durable, hdr_crc)

/* What the producer wrote, each word loaded once, for it may still write. */
union header_copy {
	struct petal_record_durable durable;
	uint64_t words[PETAL_RECORD_DURABLE_BYTES / sizeof(uint64_t)];
};

static void header_load(const void *bytes, union header_copy *ret_copy)
{
	const struct petal_u64 *words = bytes;

	for (unsigned i = 0; i < PETAL_RECORD_DURABLE_BYTES / 8; i++)
		ret_copy->words[i] = petal_load(&words[i], PETAL_RELAXED);
}

/* Everything but the commit word, which is not ours to store. */
static void header_store(const union header_copy *copy,
			 struct petal_record_durable *record)
{
	struct petal_u64 *words = (struct petal_u64 *)(void *)record;

	for (unsigned i = 1; i < PETAL_RECORD_DURABLE_BYTES / 8; i++)
		petal_store(&words[i], copy->words[i], PETAL_RELAXED);
}

static uint32_t header_crc(const union header_copy *copy)
{
	const uint8_t *bytes = (const uint8_t *)copy->words;

	return petal_crc32c(0, bytes + HDR_CRC_FROM, HDR_CRC_TO - HDR_CRC_FROM);
}

/* A dead producer left who knows what in these fields; none of it may travel. */
static void header_make_padding(union header_copy *copy)
{
	copy->durable.record.type = PETAL_RECORD_TYPE_PADDING;
	copy->durable.queue = 0;
	copy->durable.session = 0;
	copy->durable.sequence = 0;
	copy->durable.payload_crc = 0;
	copy->durable.flags = 0;
}

static void cursor_move(struct petal_record_cursor *cursor,
			const struct petal_record_durable *durable)
{
	cursor->pos += petal_record_extent(durable->record.length);
	cursor->lsn = durable->lsn;
	cursor->epoch = durable->epoch;
	cursor->crc = durable->hdr_crc;
}

void petal_record_stamp(struct petal_record_durable *record,
			struct petal_record_cursor *cursor)
{
	union header_copy copy;
	uint64_t commit;

	header_load(record, &copy);
	commit = copy.words[0];
	if (petal_record_state(commit) == PETAL_RECORD_ABANDONED)
		header_make_padding(&copy);
	copy.durable.lsn = cursor->lsn + 1;
	copy.durable.epoch = cursor->epoch;
	copy.durable.prev_crc = cursor->crc;
	copy.durable.hdr_crc = header_crc(&copy);
	header_store(&copy, record);
	cursor_move(cursor, &copy.durable);
}

/* An epoch goes on, or a later one begins, which says so. */
static bool epoch_follows(const union header_copy *copy, uint32_t epoch)
{
	return copy->durable.epoch == epoch ||
	       (copy->durable.epoch > epoch &&
		copy->durable.record.type == PETAL_RECORD_TYPE_EPOCH_START);
}

static bool header_follows(const union header_copy *copy,
			   const struct petal_record_cursor *cursor)
{
	return copy->durable.lsn == cursor->lsn + 1 &&
	       epoch_follows(copy, cursor->epoch) &&
	       copy->durable.prev_crc == cursor->crc &&
	       copy->durable.hdr_crc == header_crc(copy);
}

int petal_record_check(const void *bytes, uint64_t bytes_left,
		       struct petal_record_cursor *cursor)
{
	union header_copy copy;
	uint32_t length;

	if (bytes_left < PETAL_RECORD_DURABLE_BYTES)
		return 1;
	header_load(bytes, &copy);
	if (!header_follows(&copy, cursor))
		return 1;

	length = copy.durable.record.length;
	if (length < PETAL_RECORD_ENVELOPE_BYTES ||
	    petal_record_extent(length) > bytes_left)
		return -PETAL_ECORRUPT;
	if (copy.durable.record.type != PETAL_RECORD_TYPE_PADDING &&
	    petal_record_payload_crc(bytes, length) != copy.durable.payload_crc)
		return 1;
	cursor_move(cursor, &copy.durable);
	return 0;
}

uint32_t petal_record_payload_crc(const struct petal_record_durable *record,
				  uint32_t length)
{
	/* Shorter than its own envelope: there is no payload to speak of. */
	if (length < PETAL_RECORD_ENVELOPE_BYTES)
		return 0;
	return petal_crc32c(0, record + 1,
			    length - PETAL_RECORD_ENVELOPE_BYTES);
}
