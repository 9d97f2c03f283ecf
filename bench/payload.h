/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_PAYLOAD_H
#define PETAL_BENCH_PAYLOAD_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/**
 * DOC: payload - bytes that the sender writes and the receiver reads
 *
 * A transport that moves bytes which nobody touches is a transport of
 * descriptors, so every contender fills each message and checks each message,
 * with these two and no others. The pattern depends on the number of the
 * message, hence an old buffer, an echoed one or a torn one does not pass.
 */

/** A number for the answer to message number @sequence. */
#define PETAL_PAYLOAD_ANSWER(sequence) (~(uint64_t)(sequence))

/* Neighbouring messages differ in every word. */
static inline uint64_t petal_payload_word(uint64_t sequence, size_t index)
{
	return sequence * UINT64_C(0x9e3779b97f4a7c15) + index;
}

/**
 * petal_payload_fill() - write one message
 * @bytes: where to; any alignment
 * @length: how much, in bytes
 * @sequence: the number of the message
 */
static inline void petal_payload_fill(void *bytes, size_t length,
				      uint64_t sequence)
{
	unsigned char *at = (unsigned char *)bytes;
	size_t words = length / sizeof(uint64_t);
	size_t rest = length % sizeof(uint64_t);
	uint64_t word;

	for (size_t i = 0; i < words; i++) {
		word = petal_payload_word(sequence, i);
		memcpy(at + i * sizeof(word), &word, sizeof(word));
	}
	word = petal_payload_word(sequence, words);
	memcpy(at + length - rest, &word, rest);
}

/**
 * petal_payload_check() - read one message, all of it
 * @bytes: where from; any alignment
 * @length: how much, in bytes
 * @sequence: the number that it must carry
 *
 * Return: 0, or -EBADMSG if any byte is not what petal_payload_fill() wrote.
 */
static inline int petal_payload_check(const void *bytes, size_t length,
				      uint64_t sequence)
{
	const unsigned char *at = (const unsigned char *)bytes;
	size_t words = length / sizeof(uint64_t);
	size_t rest = length % sizeof(uint64_t);
	uint64_t difference = 0;
	uint64_t word;

	for (size_t i = 0; i < words; i++) {
		memcpy(&word, at + i * sizeof(word), sizeof(word));
		difference |= word ^ petal_payload_word(sequence, i);
	}
	word = petal_payload_word(sequence, words);
	if (difference || memcmp(at + length - rest, &word, rest) != 0)
		return -EBADMSG;
	return 0;
}

#endif
