/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_CRASH_MESSAGE_H
#define PETAL_TESTS_CRASH_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/**
 * DOC: message - bytes that tell whether they are whole
 *
 * The id stands in the first word; a word made from it in the middle and in
 * the last. Few stores, for each is an instruction to be stepped over. Who does
 * not step writes and reads all that is between as well.
 */

extern bool message_whole;

#define MESSAGE_BYTES_MIN 16u
/* Producers from this number up send only the shortest. */
#define MESSAGE_SHORT_NUMBER 3072u

static inline uint64_t message_id(uint32_t number, uint32_t sequence)
{
	return (uint64_t)number << 32 | sequence;
}

static inline uint64_t message_seal(uint64_t id)
{
	return (id ^ id >> 29) * UINT64_C(0xbf58476d1ce4e5b9) | 1;
}

/** message_length() - of a message in a ring of records; follows from its id */
static inline uint32_t message_length(uint64_t id, uint32_t length_max)
{
	uint64_t mixed = message_seal(id) >> 40;

	if (id >> 32 >= MESSAGE_SHORT_NUMBER || length_max <= MESSAGE_BYTES_MIN)
		return MESSAGE_BYTES_MIN;
	if ((mixed & 3) == 0)
		return length_max;
	return MESSAGE_BYTES_MIN +
	       (uint32_t)(mixed >> 2) % (length_max - MESSAGE_BYTES_MIN + 1);
}

static inline void message_put(uint8_t *at, uint64_t word)
{
	for (unsigned i = 0; i < 8; i += 4) {
		uint32_t half = (uint32_t)(word >> 8 * i);

		memcpy(at + i, &half, sizeof(half));
	}
}

static inline uint64_t message_get(const uint8_t *at)
{
	uint64_t word;

	memcpy(&word, at, sizeof(word));
	return word;
}

/** message_fill() - write one of @length bytes, at least MESSAGE_BYTES_MIN */
static inline void message_fill(void *bytes, uint32_t length, uint64_t id)
{
	uint8_t *at = bytes;

	message_put(at, id);
	if (message_whole)
		memset(at + 8, (uint8_t)message_seal(id), length - 8);
	message_put(at + length / 2, message_seal(id));
	message_put(at + length - 8, message_seal(id));
}

/* Whether all between the seals is what was written. */
static inline bool message_is_even(const uint8_t *at, uint32_t length,
				   uint8_t byte)
{
	for (uint32_t i = 8; i < length - 8; i++)
		if (at[i] != byte && (i < length / 2 || i >= length / 2 + 8))
			return false;
	return true;
}

/** message_read() - the id of a whole message; 0 when it is torn */
static inline uint64_t message_read(const void *bytes, uint32_t length)
{
	const uint8_t *at = bytes;
	uint64_t id = message_get(at);
	uint64_t seal = message_seal(id);

	if (message_get(at + length - 8) != seal)
		return 0;
	/* The two may overlap; the last one was written last. */
	if (length >= 32 && message_get(at + length / 2) != seal)
		return 0;
	if (message_whole && !message_is_even(at, length, (uint8_t)seal))
		return 0;
	return id;
}

#endif
