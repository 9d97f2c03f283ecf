/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_RECORD_H
#define PETAL_RINGS_RECORD_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "shm/atomic.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: record - the bytes that everybody agrees on
 *
 * A ring record begins with 16 bytes. A durable record, which leaves the host,
 * adds an envelope of 48, so that its header is one cache line and its payload
 * starts on the next:
 *
 *    byte 0        8        12     16
 *    +-------------+--------+------+---------------------+
 *    | commit      | length | type | payload ...         |   ring record
 *    +-------------+--------+------+---------------------+
 *    | commit      | length | type | lsn 8   | epoch 4   |   durable record
 *    | queue 4     | session 8     | sequence 8          |
 *    | prev_crc 4  | payload_crc 4 | flags 4 | hdr_crc 4 |
 *    +-------------------------------------byte 64-------+
 *    | payload ...                                       |
 *    +---------------------------------------------------+
 *
 * Every record starts on a multiple of 64 bytes and never crosses the end of
 * its ring: what is left over there is a padding record. length counts the
 * bytes after the 16-byte header, envelope included.
 *
 * The commit word is state, owner and lap. It is outside of every CRC, and
 * means something only in the memory of the process that produced it: on a
 * backup a record is valid by its own lsn, epoch and CRCs, never by a flag.
 *
 * The producer fills length, type, queue, session, sequence, flags and
 * payload_crc. The one replicator stamps lsn, epoch, prev_crc and hdr_crc when
 * it accepts the published prefix. prev_crc is the hdr_crc of the record
 * before, so a hole cannot be jumped and an older lap cannot be taken for a
 * newer one.
 */

#define PETAL_RECORD_ALIGN 64u
#define PETAL_RECORD_HEADER_BYTES 16u
#define PETAL_RECORD_ENVELOPE_BYTES 48u
#define PETAL_RECORD_DURABLE_BYTES 64u
/* No ring may be larger, so that no sum of two lengths leaves 64 bits. */
#define PETAL_RECORD_RING_BYTES_MAX (UINT64_C(1) << 40)
#define PETAL_RECORD_OWNER_MAX 4095u

enum petal_record_state {
	PETAL_RECORD_FREE = 0,      /* zeroed memory */
	PETAL_RECORD_CLAIMED = 1,   /* its owner is filling it */
	PETAL_RECORD_PUBLISHED = 2, /* whole */
	PETAL_RECORD_ABANDONED =
		3,               /* padding: aborted, repaired or left over */
	PETAL_RECORD_FENCED = 4, /* taken from its owner, in quarantine */
};

/* Types from PETAL_RECORD_TYPE_OURS up belong to Petalith. */
#define PETAL_RECORD_TYPE_OURS UINT32_C(0xffff0000)
#define PETAL_RECORD_TYPE_PADDING UINT32_C(0xffff0000)
#define PETAL_RECORD_TYPE_TXN UINT32_C(0xffff0001)
#define PETAL_RECORD_TYPE_EPOCH_START UINT32_C(0xffff0002)

struct petal_record {
	struct petal_u64 commit;
	uint32_t length; /* bytes after this header */
	uint32_t type;
};

struct petal_record_durable {
	struct petal_record record;
	uint64_t lsn;
	uint32_t epoch;
	uint32_t queue;
	uint64_t session;
	uint64_t sequence;
	uint32_t prev_crc;
	uint32_t payload_crc;
	uint32_t flags;
	uint32_t hdr_crc;
};

static_assert(sizeof(struct petal_record) == 16, "layout");
static_assert(sizeof(struct petal_record_durable) == 64, "layout");
static_assert(__builtin_offsetof(struct petal_record_durable, lsn) == 16,
	      "layout");
static_assert(__builtin_offsetof(struct petal_record_durable, session) == 32,
	      "layout");
static_assert(__builtin_offsetof(struct petal_record_durable, prev_crc) == 48,
	      "layout");
static_assert(__builtin_offsetof(struct petal_record_durable, hdr_crc) == 60,
	      "layout");

/* Where the next durable record has to continue. */
struct petal_record_cursor {
	uint64_t pos;   /* bytes since the ring began */
	uint64_t lsn;   /* of the last record before pos; 0 before the first */
	uint32_t epoch; /* of that record; a later one begins by EPOCH_START */
	uint32_t crc;   /* hdr_crc of the last record before pos */
};

/* A producer owns these two until it publishes; a consumer loads them once. */
static inline struct petal_u32 *petal_record_length(struct petal_record *record)
{
	return (struct petal_u32 *)(void *)&record->length;
}

static inline struct petal_u32 *petal_record_type(struct petal_record *record)
{
	return (struct petal_u32 *)(void *)&record->type;
}

/**
 * petal_record_extent() - bytes that a record of @length occupies in its ring
 * @length: bytes after the 16-byte header, at most UINT32_MAX
 */
static inline uint64_t petal_record_extent(uint32_t length)
{
	return ((uint64_t)length + PETAL_RECORD_HEADER_BYTES +
		PETAL_RECORD_ALIGN - 1) &
	       ~(uint64_t)(PETAL_RECORD_ALIGN - 1);
}

/**
 * petal_record_commit() - the commit word of a state
 * @owner: 0 to PETAL_RECORD_OWNER_MAX
 * @lap: how often the ring has been filled before; its low 48 bits count
 */
static inline uint64_t petal_record_commit(enum petal_record_state state,
					   uint32_t owner, uint64_t lap)
{
	return (uint64_t)state | (uint64_t)(owner & 0xfff) << 4 | lap << 16;
}

static inline enum petal_record_state petal_record_state(uint64_t commit)
{
	return (enum petal_record_state)(commit & 0xf);
}

static inline uint32_t petal_record_owner(uint64_t commit)
{
	return (uint32_t)(commit >> 4) & 0xfff;
}

/**
 * petal_record_stamp() - make an accepted record part of the log
 * @record: the record, in the primary's memory
 * @cursor: where the log ends; moved past the record
 *
 * An abandoned record becomes padding in the log: its type is set, and what
 * its producer may have left in queue, session, sequence, flags and
 * payload_crc is cleared. The length is taken as it stands, so it must have
 * been checked, and be at least that of the envelope.
 *
 * Threads: the one replicator of the ring.
 */
void petal_record_stamp(struct petal_record_durable *record,
			struct petal_record_cursor *cursor);

/**
 * petal_record_check() - decide whether bytes are the record that comes next
 * @bytes: where the record would start, 64-byte aligned; may be changed by
 *	another process while we look, so each field is loaded once
 * @bytes_left: how far may be read from there
 * @cursor: where the log ends so far; moved past the record if it is valid
 *
 * Padding counts only by its header, for nobody wrote its payload.
 *
 * Return: 0 when valid; 1 when it is not there yet (another lsn or epoch, or a
 * CRC that does not match: half of it may have landed); -PETAL_ECORRUPT when
 * lsn, epoch and header CRC are right but the length leaves @bytes_left or does
 * not even hold the envelope.
 */
int petal_record_check(const void *bytes, uint64_t bytes_left,
		       struct petal_record_cursor *cursor);

/**
 * petal_record_payload_crc() - CRC-32C of what follows the envelope
 * @record: the record
 * @length: a checked copy of its length field
 */
uint32_t petal_record_payload_crc(const struct petal_record_durable *record,
				  uint32_t length);

#ifdef __cplusplus
}
#endif

#endif
