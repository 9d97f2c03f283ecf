/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_PROBE_PRIVATE_H
#define PETAL_FABRIC_PROBE_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

#include "fabric/probe.h"
#include "fabric/wire.h"

/**
 * DOC: probe_private - what asks and what answers have in common
 *
 * Integers are in the machine's byte order, which the magic pins down.
 */

#define PROBE_MAGIC 0x31727050u
#define PROBE_VERSION 1u
#define PROBE_ASKER 1u
#define PROBE_ANSWERER 2u

/** The memory that is written to; a power of two. */
#define PROBE_BYTES (UINT64_C(1) << 20)

/** The longest that the answerer's CPU leaves the provider alone. */
#define PROBE_HOLD_MS 100u

/** enum probe_verb - what is asked; what its answer has beside the status */
enum probe_verb {
	PROBE_OPEN = 1, /* a wire of a provider: its address */
	PROBE_SHUT,     /* close it */
	PROBE_LEND,     /* open the memory to writes: its key */
	PROBE_TAKE,     /* close it to writes */
	PROBE_FILL,     /* write seed's bytes into all of it */
	PROBE_LOOK,     /* how many bytes of a range are not seed's */
	PROBE_HOLD,     /* leave the provider alone, but for length ms */
	PROBE_GO,       /* no more of that */
	PROBE_DROP,     /* end the connection */
	PROBE_READ,     /* look for records from the beginning, of this seed */
	PROBE_STATE,    /* how far; torn ones; turns of the loop */
	PROBE_VERBS,
};

struct probe_request {
	uint32_t magic;
	uint16_t version;
	uint16_t verb;
	uint64_t number;
	uint64_t seed;
	uint64_t offset;
	uint64_t length;
	char provider[PETAL_PROBE_NAME_BYTES];
};

struct probe_answer {
	uint32_t magic;
	uint16_t version;
	uint16_t verb;
	uint64_t number;
	int64_t status;
	struct petal_wire_key key;
	uint64_t wrong;   /* LOOK */
	uint64_t records; /* STATE */
	uint64_t pos;
	uint64_t torn;
	uint64_t turns;
	char address[80];
};

/** The longest record of P3, with its header. */
#define PROBE_RECORD_MAX 65536u

struct probe_record {
	uint32_t magic;
	uint32_t length; /* with the header */
	uint64_t order;
	uint64_t seed;
	uint32_t payload_crc;
	uint32_t header_crc; /* over what is before it */
	uint64_t reserved[4];
};

/** Which byte a seed has at a place. */
void probe_pattern(uint64_t seed, uint64_t offset, void *to, size_t length);

/** A record of this seed and order; length from its header to 65536. */
void probe_record_make(uint64_t seed, uint64_t order, uint32_t length,
		       uint8_t *to);

/**
 * probe_record_check() - whether the bytes in a ring are the record looked for
 * @ring: PROBE_BYTES, hostile
 * @copy: PROBE_RECORD_MAX, where what is judged ends up
 *
 * Return: its length when it is valid by its checksums; 0 while not; -EBADMSG
 * when it is valid and is not what was sent.
 */
int probe_record_check(const uint8_t *ring, uint64_t pos, uint64_t seed,
		       uint64_t order, uint8_t *copy);

/** A wire of a provider at an address, with the key of this purpose. */
int probe_wire_open(const struct petal_probe_options *options, uint32_t node,
		    const char *provider, const char *listen,
		    struct petal_wire **ret_wire);

#endif
