/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/txn.h"

#include <errno.h>
#include <string.h>

#include "shm/error.h"

static uint64_t padded(uint32_t length)
{
	return ((uint64_t)length + 7) & ~UINT64_C(7);
}

int petal_txn_bytes(unsigned ack_count, const struct petal_output *outputs,
		    unsigned put_count, uint32_t *ret_bytes)
{
	uint64_t bytes = sizeof(struct petal_txn_head) +
			 (uint64_t)ack_count * sizeof(struct petal_txn_ack);

	if (ack_count > PETAL_TXN_ACKS_MAX || put_count > PETAL_TXN_PUTS_MAX)
		return -EMSGSIZE;
	for (unsigned i = 0; i < put_count; i++)
		bytes += sizeof(struct petal_txn_put) +
			 padded(outputs[i].length);
	if (bytes > UINT32_MAX / 2)
		return -EMSGSIZE;
	*ret_bytes = (uint32_t)bytes;
	return 0;
}

void petal_txn_write(void *payload, const struct petal_message *inputs,
		     unsigned ack_count, const struct petal_output *outputs,
		     unsigned put_count)
{
	struct petal_txn_head head = { ack_count, put_count };
	uint8_t *at = payload;

	memcpy(at, &head, sizeof(head));
	at += sizeof(head);
	for (unsigned i = 0; i < ack_count; i++) {
		struct petal_txn_ack ack = {
			.queue = inputs[i].queue,
			.index = inputs[i].index,
			.lsn = inputs[i].lsn,
			.ordinal = inputs[i].ordinal,
			.lease = inputs[i].lease,
		};

		memcpy(at, &ack, sizeof(ack));
		at += sizeof(ack);
	}
	for (unsigned i = 0; i < put_count; i++) {
		struct petal_txn_put put = { outputs[i].queue,
					     outputs[i].length };

		memcpy(at, &put, sizeof(put));
		at += sizeof(put);
		memcpy(at, outputs[i].bytes, put.length);
		memset(at + put.length, 0, padded(put.length) - put.length);
		at += padded(put.length);
	}
}

static int check_put(const uint8_t *payload, uint32_t length, uint64_t *offset,
		     uint32_t queue_count, unsigned i, struct petal_txn *txn)
{
	struct petal_txn_put put;

	if (length - *offset < sizeof(put))
		return -PETAL_ECORRUPT;
	memcpy(&put, payload + *offset, sizeof(put));
	*offset += sizeof(put);
	if (put.queue == 0 || put.queue > queue_count ||
	    padded(put.length) > length - *offset)
		return -PETAL_ECORRUPT;
	txn->puts[i].queue = put.queue;
	txn->puts[i].offset = (uint32_t)*offset;
	txn->puts[i].length = put.length;
	*offset += padded(put.length);
	return 0;
}

int petal_txn_check(const void *payload, uint32_t length, uint32_t queue_count,
		    struct petal_txn *ret_txn)
{
	struct petal_txn_head head;
	uint64_t offset = sizeof(head);
	int err;

	if (length < sizeof(head))
		return -PETAL_ECORRUPT;
	memcpy(&head, payload, sizeof(head));
	if (head.ack_count > PETAL_TXN_ACKS_MAX ||
	    head.put_count > PETAL_TXN_PUTS_MAX ||
	    head.ack_count * sizeof(struct petal_txn_ack) > length - offset)
		return -PETAL_ECORRUPT;
	ret_txn->ack_count = head.ack_count;
	ret_txn->put_count = head.put_count;
	memcpy(ret_txn->acks, (const uint8_t *)payload + offset,
	       head.ack_count * sizeof(struct petal_txn_ack));
	offset += head.ack_count * sizeof(struct petal_txn_ack);
	for (unsigned i = 0; i < head.ack_count; i++) {
		if (ret_txn->acks[i].queue == 0 ||
		    ret_txn->acks[i].queue > queue_count)
			return -PETAL_ECORRUPT;
	}
	for (unsigned i = 0; i < head.put_count; i++) {
		err = check_put(payload, length, &offset, queue_count, i,
				ret_txn);
		if (err < 0)
			return err;
	}
	return 0;
}
