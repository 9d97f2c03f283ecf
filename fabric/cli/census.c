/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/cli/census.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

int census_open(struct census *ret_census)
{
	memset(ret_census, 0, sizeof(*ret_census));
	ret_census->sections =
		calloc(CENSUS_SECTIONS_MAX, sizeof(*ret_census->sections));
	return ret_census->sections == NULL ? -ENOMEM : 0;
}

void census_close(struct census *census)
{
	free(census->sections);
	free(census->seen);
	memset(census, 0, sizeof(*census));
}

/* Returns 1 when the bit was set before. */
static int see(struct census *census, uint64_t lsn)
{
	uint64_t byte = lsn / 8;
	uint8_t bit = (uint8_t)(1u << lsn % 8);
	uint8_t *grown;
	uint64_t bytes;

	if (lsn > CENSUS_LSN_MAX)
		return -ERANGE;
	if (byte >= census->seen_bytes) {
		bytes = 2 * (byte + 512);
		grown = realloc(census->seen, bytes);
		if (grown == NULL)
			return -ENOMEM;
		memset(grown + census->seen_bytes, 0,
		       bytes - census->seen_bytes);
		census->seen = grown;
		census->seen_bytes = bytes;
	}
	if (census->seen[byte] & bit)
		return 1;
	census->seen[byte] |= bit;
	return 0;
}

static void add_digest(struct census *census, const struct stanza_result *r)
{
	uint8_t bytes[STANZA_RESULT_BYTES_MAX], hash[32];
	struct stanza_result nameless = *r;
	unsigned carry = 0;
	uint64_t lane;

	nameless.input_lsn = 0;
	crypto_hash_sha256(hash, bytes, stanza_result_write(&nameless, bytes));
	for (unsigned i = 0; i < 4; i++) {
		unsigned long long sum;
		bool over;

		memcpy(&lane, hash + 8 * i, sizeof(lane));
		over = __builtin_add_overflow(census->digest[i], lane, &sum);
		over |= __builtin_add_overflow(sum, carry, &sum);
		census->digest[i] = sum;
		carry = over;
	}
}

/* The last row takes what there is no room for. */
static struct census_section *section_of(struct census *census,
					 const char *name)
{
	if (name[0] == '\0')
		name = "(none)";
	for (unsigned i = 0; i < census->section_count; i++) {
		if (strcmp(census->sections[i].name, name) == 0)
			return &census->sections[i];
	}
	if (census->section_count == CENSUS_SECTIONS_MAX)
		return &census->sections[CENSUS_SECTIONS_MAX - 1];
	if (census->section_count == CENSUS_SECTIONS_MAX - 1)
		name = "(all others)";
	strcpy(census->sections[census->section_count].name, name);
	return &census->sections[census->section_count++];
}

int census_add(struct census *census, const struct stanza_result *r)
{
	struct census_section *section;
	int outcome = see(census, r->input_lsn);

	if (outcome != 0) {
		census->duplicated += outcome == 1;
		return outcome;
	}
	census->results++;
	census->parse_errors += r->parse_error;
	add_digest(census, r);
	if (r->parse_error)
		return 0;
	section = section_of(census, r->section);
	section->packages++;
	section->size_kib += r->size_kib;
	section->dependencies += r->dependencies;
	return 0;
}

static int by_packages(const void *a, const void *b)
{
	const struct census_section *x = a, *y = b;

	if (x->packages != y->packages)
		return x->packages < y->packages ? 1 : -1;
	return strcmp(x->name, y->name);
}

static json_t *digest_json(const struct census *census)
{
	uint8_t bytes[32];
	char text[65];

	/* Most significant first, as people write numbers. */
	for (unsigned i = 0; i < 32; i++)
		bytes[i] = (uint8_t)(census->digest[3 - i / 8] >>
				     (56 - 8 * (i % 8)));
	sodium_bin2hex(text, sizeof(text), bytes, sizeof(bytes));
	return json_string(text);
}

json_t *census_json(struct census *census)
{
	json_t *sections = json_array();

	qsort(census->sections, census->section_count,
	      sizeof(*census->sections), by_packages);
	for (unsigned i = 0; i < census->section_count; i++) {
		const struct census_section *s = &census->sections[i];

		/* A name may hold bytes that are no UTF-8: JSON has none. */
		json_t *name = json_string(s->name);

		json_array_append_new(
			sections,
			json_pack("{s:o, s:I, s:I, s:I}", "section",
				  name != NULL ? name : json_string("?"),
				  "packages", (json_int_t)s->packages,
				  "size_kib", (json_int_t)s->size_kib,
				  "dependencies", (json_int_t)s->dependencies));
	}
	return json_pack("{s:I, s:I, s:I, s:o, s:o}", "results",
			 (json_int_t)census->results, "parse_errors",
			 (json_int_t)census->parse_errors, "duplicated",
			 (json_int_t)census->duplicated, "digest",
			 digest_json(census), "sections", sections);
}
