/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_CLI_STANZA_H
#define PETAL_CLI_STANZA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * DOC: stanza - one package description, and what a worker makes of it
 *
 * A stanza is text of "Field: value" lines; a line that begins with a blank
 * continues the one before. Stanzas are separated by empty lines. Whatever else
 * comes (binary bytes, no Package, a number that is none) is one result with
 * parse_error set, never a crash.
 *
 * The result travels in the ring, in the machine's byte order:
 *
 *    input lsn 8 | size_kib 8 | dependencies 4 | flags 2 | package length 1 |
 *    section length 1 | SHA-256 of the stanza 32 | package | section
 */

#define STANZA_BYTES_MAX (1u << 20) /* a longer one is cut into several */
#define STANZA_NAME_MAX 128u

struct stanza_result {
	uint64_t input_lsn; /* which record it was; not part of the digest */
	uint64_t size_kib;
	uint32_t dependencies;
	bool parse_error;
	uint8_t sha256[32];
	char package[STANZA_NAME_MAX + 1];
	char section[STANZA_NAME_MAX + 1];
};

#define STANZA_RESULT_BYTES_MAX (56u + 2 * STANZA_NAME_MAX)

/**
 * stanza_parse() - read one stanza
 * @bytes: any bytes; they may change while we look
 */
void stanza_parse(const void *bytes, size_t length,
		  struct stanza_result *ret_result);

/**
 * stanza_result_write() - put a result into the form that travels
 *
 * Return: bytes written, at most STANZA_RESULT_BYTES_MAX.
 */
size_t stanza_result_write(const struct stanza_result *result, void *bytes);

/**
 * stanza_result_check() - read a result back
 *
 * Return: 0, or -EINVAL for bytes that are none.
 */
int stanza_result_check(const void *bytes, size_t length,
			struct stanza_result *ret_result);

/**
 * stanza_next() - find the next stanza of an input
 * @at: where to look; moved behind the stanza
 * @end: where the input ends
 * @ret_length: its length, 1 to STANZA_BYTES_MAX
 *
 * Return: its first byte, or NULL at the end.
 */
const char *stanza_next(const char **at, const char *end, size_t *ret_length);

#endif
