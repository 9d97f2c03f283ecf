/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_CLI_CENSUS_H
#define PETAL_CLI_CENSUS_H

#include <jansson.h>
#include <stdint.h>

#include "fabric/cli/stanza.h"

/**
 * DOC: census - what the clerk keeps
 *
 * Per section: packages, their size and their dependencies. And a digest of
 * all results that does not depend on their order: the sum, modulo 2^256, of
 * the SHA-256 of each result without its lsn. A sum and not an exclusive or,
 * so that a result counted twice shows.
 *
 * Which inputs have been counted is known exactly: one bit for each lsn.
 */

#define CENSUS_SECTIONS_MAX 4096u
#define CENSUS_LSN_MAX (UINT64_C(1) << 32)

struct census_section {
	char name[STANZA_NAME_MAX + 1];
	uint64_t packages;
	uint64_t size_kib;
	uint64_t dependencies;
};

struct census {
	uint64_t results;
	uint64_t parse_errors;
	uint64_t duplicated; /* inputs that came a second time: not counted */
	uint64_t digest[4];
	unsigned section_count;
	struct census_section *sections; /* CENSUS_SECTIONS_MAX */
	uint8_t *seen;
	uint64_t seen_bytes;
};

/**
 * census_open() - an empty one
 *
 * Return: 0, or -ENOMEM.
 */
int census_open(struct census *ret_census);

void census_close(struct census *census);

/**
 * census_add() - count one result
 *
 * Return: 0; 1 when its input was counted before; -ENOMEM; -ERANGE for an lsn
 * beyond CENSUS_LSN_MAX.
 */
int census_add(struct census *census, const struct stanza_result *result);

/**
 * census_json() - all of it, sections by falling number of packages
 */
json_t *census_json(struct census *census);

#endif
