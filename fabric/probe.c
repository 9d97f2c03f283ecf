/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both sides share, and the judgement: which outcome of a check is a
 * failure, and what a provider may be trusted with.
 */
#include "fabric/probe.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "fabric/probe_private.h"
#include "fabric/seal.h"
#include "shm/crc32c.h"
#include "shm/error.h"

#define RECORD_MAGIC 0x64726f77u

/* A sleeper woken more often than this while nothing comes does not sleep. */
#define IDLE_TURNS_MAX 20u

static_assert(sizeof(struct probe_record) == 64, "as a durable record");
static_assert((PROBE_BYTES & (PROBE_BYTES - 1)) == 0, "offsets are masked");

static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

void probe_pattern(uint64_t seed, uint64_t offset, void *to, size_t length)
{
	uint8_t *bytes = to;

	for (size_t i = 0; i < length;) {
		uint64_t word = mix(seed + (offset + i) / 8);

		do {
			bytes[i] = (uint8_t)(word >> (8 * ((offset + i) % 8)));
			i++;
		} while (i < length && (offset + i) % 8 != 0);
	}
}

void probe_record_make(uint64_t seed, uint64_t order, uint32_t length,
		       uint8_t *to)
{
	struct probe_record head = {
		.magic = RECORD_MAGIC,
		.length = length,
		.order = order,
		.seed = seed,
	};
	uint32_t payload = length - (uint32_t)sizeof(head);

	probe_pattern(mix(seed) ^ order, 0, to + sizeof(head), payload);
	head.payload_crc = petal_crc32c(0, to + sizeof(head), payload);
	head.header_crc = petal_crc32c(
		0, &head, offsetof(struct probe_record, header_crc));
	memcpy(to, &head, sizeof(head));
}

static void ring_copy(const uint8_t *ring, uint64_t pos, uint8_t *to,
		      uint64_t length)
{
	uint64_t at = pos & (PROBE_BYTES - 1);
	uint64_t first = PROBE_BYTES - at;

	if (first > length)
		first = length;
	memcpy(to, ring + at, first);
	memcpy(to + first, ring, length - first);
}

static bool record_is_sent(const struct probe_record *head, const uint8_t *copy)
{
	uint64_t seed = mix(head->seed) ^ head->order;
	uint8_t expected[256];

	for (uint64_t at = 0; at + sizeof(*head) < head->length;) {
		uint64_t part = head->length - sizeof(*head) - at;

		if (part > sizeof(expected))
			part = sizeof(expected);
		probe_pattern(seed, at, expected, part);
		if (memcmp(copy + sizeof(*head) + at, expected, part) != 0)
			return false;
		at += part;
	}
	return true;
}

int probe_record_check(const uint8_t *ring, uint64_t pos, uint64_t seed,
		       uint64_t order, uint8_t *copy)
{
	struct probe_record head;

	ring_copy(ring, pos, copy, sizeof(head));
	memcpy(&head, copy, sizeof(head));
	if (head.magic != RECORD_MAGIC || head.order != order ||
	    head.seed != seed || head.length < sizeof(head) ||
	    head.length > PROBE_RECORD_MAX ||
	    head.header_crc !=
		    petal_crc32c(0, &head,
				 offsetof(struct probe_record, header_crc)))
		return 0;
	ring_copy(ring, pos + sizeof(head), copy + sizeof(head),
		  head.length - sizeof(head));
	if (head.payload_crc !=
	    petal_crc32c(0, copy + sizeof(head),
			 head.length - (uint32_t)sizeof(head)))
		return 0;
	return record_is_sent(&head, copy) ? (int)head.length : -EBADMSG;
}

int probe_wire_open(const struct petal_probe_options *options, uint32_t node,
		    const char *provider, const char *listen,
		    struct petal_wire **ret_wire)
{
	struct petal_wire_options wire = {
		.node = node,
		.provider = provider,
		.listen = listen,
	};
	int err;

	memcpy(wire.cluster, options->cluster, sizeof(wire.cluster));
	petal_seal_key_derive(options->key, "probe", wire.key);
	err = petal_wire_open(&wire, ret_wire);
	sodium_memzero(&wire, sizeof(wire));
	return err;
}

/* The judgement. */

static bool was_made(const struct petal_probe_row *row,
		     enum petal_probe_check check)
{
	/* Coming back is tried with the fences that tear the connection. */
	if (check == PETAL_PROBE_AGAIN)
		check = PETAL_PROBE_FENCED;
	return row->status == 0 || check < row->reached;
}

bool petal_probe_passed(const struct petal_probe_row *row,
			enum petal_probe_check check)
{
	if (!was_made(row, check))
		return false;
	switch (check) {
	case PETAL_PROBE_LANDED:
		return row->writes > 0 && row->early == 0 && row->lost == 0;
	case PETAL_PROBE_FENCED:
		return row->fences > 0 && row->fence_landed == 0 &&
		       row->fence_reported == 0;
	case PETAL_PROBE_WHOLE:
		return row->records > 0 && row->torn == 0 && row->stuck == 0;
	case PETAL_PROBE_AGAIN:
		return row->again_ns > 0 &&
		       row->again_ns <= PETAL_PROBE_AGAIN_NS;
	case PETAL_PROBE_ASLEEP:
		return row->naps > 0 && row->missed == 0 &&
		       row->idle_turns <= IDLE_TURNS_MAX;
	case PETAL_PROBE_CHECKS:
		break;
	}
	return false;
}

static void say_landed(const struct petal_probe_row *row, char *to)
{
	if (row->lost > 0)
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "%" PRIu32 " of %" PRIu32 " writes reported as "
			 "delivered never reached the peer's memory",
			 row->lost, row->writes);
	else if (row->early > 0)
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "%" PRIu32 " of %" PRIu32 " writes were reported as "
			 "delivered before they were in the peer's memory",
			 row->early, row->writes);
	else
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "%" PRIu32 " writes, in the peer's memory when they "
			 "were reported",
			 row->writes);
}

static void say_fenced(const struct petal_probe_row *row, char *to)
{
	if (row->fence_landed > 0)
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "%" PRIu32 " of %" PRIu32 " writes changed memory "
			 "that the peer had closed",
			 row->fence_landed, row->fences);
	else if (row->fence_reported > 0)
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "%" PRIu32 " of %" PRIu32 " writes into closed memory "
			 "were reported as delivered",
			 row->fence_reported, row->fences);
	else
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "%" PRIu32 " writes after the peer had closed, none "
			 "landed, none reported",
			 row->fences);
}

static void say_whole(const struct petal_probe_row *row, char *to)
{
	if (row->torn > 0)
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "%" PRIu32 " of %" PRIu32 " records were valid and "
			 "not what was sent",
			 row->torn, row->records);
	else if (row->stuck > 0)
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "%" PRIu32 " of %" PRIu32
			 " records never became whole",
			 row->stuck, row->records);
	else
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "%" PRIu32 " records, valid only when whole",
			 row->records);
}

static void say_asleep(const struct petal_probe_row *row, char *to)
{
	if (row->missed > 0)
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "%" PRIu32 " of %" PRIu32 " writes to a sleeping peer "
			 "were not over within %" PRIu64 " ms",
			 row->missed, row->naps, PETAL_PROBE_WAKE_NS / 1000000);
	else if (row->idle_turns > IDLE_TURNS_MAX)
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "the peer does not get to sleep: %" PRIu64
			 " wake-ups in %" PRIu64 " ms without a write",
			 row->idle_turns, row->idle_ns / 1000000);
	else
		snprintf(to, PETAL_PROBE_WORDS_BYTES,
			 "%" PRIu32 " writes to a sleeping peer, the slowest "
			 "%.1f ms",
			 row->naps, (double)row->wake_ns / 1e6);
}

void petal_probe_words(const struct petal_probe_row *row,
		       enum petal_probe_check check,
		       char ret_words[PETAL_PROBE_WORDS_BYTES])
{
	if (!was_made(row, check)) {
		snprintf(ret_words, PETAL_PROBE_WORDS_BYTES, "%s%s",
			 check == row->reached ? "came to no end: "
					       : "not tried",
			 check == row->reached ? petal_strerror(row->status)
					       : "");
		return;
	}
	switch (check) {
	case PETAL_PROBE_LANDED:
		say_landed(row, ret_words);
		break;
	case PETAL_PROBE_FENCED:
		say_fenced(row, ret_words);
		break;
	case PETAL_PROBE_WHOLE:
		say_whole(row, ret_words);
		break;
	case PETAL_PROBE_AGAIN:
		snprintf(ret_words, PETAL_PROBE_WORDS_BYTES,
			 "connected again after a fence within %.1f ms",
			 (double)row->again_ns / 1e6);
		break;
	case PETAL_PROBE_ASLEEP:
	case PETAL_PROBE_CHECKS:
		say_asleep(row, ret_words);
		break;
	}
}

/*
 * Levels are acknowledged by the backup's CPU, which looks at the bytes: early
 * reports do no harm there, and what a fence lets through lands in memory that
 * nobody reads. Who does not get to sleep costs a CPU, and no record.
 */
static bool will_do(const struct petal_probe_row *row,
		    enum petal_probe_check check)
{
	switch (check) {
	case PETAL_PROBE_LANDED:
		return was_made(row, check) && row->writes > 0 &&
		       row->lost == 0;
	case PETAL_PROBE_FENCED:
		return was_made(row, check);
	case PETAL_PROBE_ASLEEP:
		return was_made(row, check) && row->naps > 0 &&
		       row->missed == 0;
	case PETAL_PROBE_WHOLE:
	case PETAL_PROBE_AGAIN:
	case PETAL_PROBE_CHECKS:
		break;
	}
	return petal_probe_passed(row, check);
}

bool petal_probe_replicates(const struct petal_probe_row *row,
			    char ret_why[PETAL_PROBE_WORDS_BYTES])
{
	char words[PETAL_PROBE_WORDS_BYTES];

	ret_why[0] = '\0';
	for (unsigned i = 0; i < PETAL_PROBE_CHECKS; i++) {
		if (will_do(row, (enum petal_probe_check)i))
			continue;
		petal_probe_words(row, (enum petal_probe_check)i, words);
		snprintf(ret_why, PETAL_PROBE_WORDS_BYTES, "P%u: %.*s", i + 1,
			 (int)PETAL_PROBE_WORDS_BYTES - 6, words);
		return false;
	}
	return true;
}

bool petal_probe_completes(const struct petal_probe_row *row)
{
	for (unsigned i = 0; i < PETAL_PROBE_CHECKS; i++) {
		if (!petal_probe_passed(row, (enum petal_probe_check)i))
			return false;
	}
	return true;
}
