/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_TXN_H
#define PETAL_FABRIC_TXN_H

#include <assert.h>
#include <stdint.h>

#include "actors/port.h"

/**
 * DOC: txn - acknowledge some messages and put others, in one record
 *
 *    byte 0       4           8
 *    +------------+-----------+----------------+---- --+
 *    | ack_count  | put_count | acks, 32 each  | puts  |   after the envelope
 *    +------------+-----------+----------------+---- --+
 *
 *    ack   queue 4 | index 4 | lsn 8 | ordinal 8 | lease 8
 *    put   queue 4 | length 4 | bytes, padded to 8
 *
 * One record is one entry of the log, so all of it happens or none. lsn and
 * index name the message for ever; ordinal and lease prove that the writer held
 * it, and mean something only to the keeper that gave the lease.
 */

#define PETAL_TXN_ACKS_MAX 64u
#define PETAL_TXN_PUTS_MAX 64u

struct petal_txn_head {
	uint32_t ack_count;
	uint32_t put_count;
};

struct petal_txn_ack {
	uint32_t queue;
	uint32_t index;
	uint64_t lsn;
	uint64_t ordinal;
	uint64_t lease;
};

struct petal_txn_put {
	uint32_t queue;
	uint32_t length;
};

static_assert(sizeof(struct petal_txn_head) == 8, "layout");
static_assert(sizeof(struct petal_txn_ack) == 32, "layout");
static_assert(sizeof(struct petal_txn_put) == 8, "layout");

/* A TXN taken apart; offsets are from the first byte after the envelope. */
struct petal_txn {
	uint32_t ack_count;
	uint32_t put_count;
	struct petal_txn_ack acks[PETAL_TXN_ACKS_MAX];
	struct {
		uint32_t queue;
		uint32_t offset;
		uint32_t length;
	} puts[PETAL_TXN_PUTS_MAX];
};

/**
 * petal_txn_bytes() - room that a TXN needs after the envelope
 *
 * Return: 0, or -EMSGSIZE when there are too many parts or bytes.
 */
int petal_txn_bytes(unsigned ack_count, const struct petal_output *outputs,
		    unsigned put_count, uint32_t *ret_bytes);

/**
 * petal_txn_write() - write one where petal_txn_bytes() has room
 */
void petal_txn_write(void *payload, const struct petal_message *inputs,
		     unsigned ack_count, const struct petal_output *outputs,
		     unsigned put_count);

/**
 * petal_txn_check() - take a TXN apart
 * @payload: its bytes; each is looked at once
 * @length: how many there are
 * @queue_count: queues are 1 to queue_count
 *
 * Return: 0, or -PETAL_ECORRUPT when a count, queue or length is out of range.
 */
int petal_txn_check(const void *payload, uint32_t length, uint32_t queue_count,
		    struct petal_txn *ret_txn);

#endif
