/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/cli/stanza.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include <sodium.h>

#define SIZE_KIB_MAX UINT64_C(1000000000000)
#define FLAG_PARSE_ERROR 1u

struct wire_head {
	uint64_t input_lsn;
	uint64_t size_kib;
	uint32_t dependencies;
	uint16_t flags;
	uint8_t package_length;
	uint8_t section_length;
	uint8_t sha256[32];
};
_Static_assert(sizeof(struct wire_head) == 56, "layout");

/* One field of a stanza: its name, and its value up to the next field. */
struct field {
	const char *name;
	size_t name_length;
	const char *value;
	size_t value_length;
};

static bool is_text(const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)bytes[i];

		if (c == 0x7f ||
		    (c < ' ' && c != '\n' && c != '\t' && c != '\r'))
			return false;
	}
	return true;
}

static void trim(struct field *field)
{
	while (field->value_length > 0 &&
	       isspace((unsigned char)field->value[0])) {
		field->value++;
		field->value_length--;
	}
	while (field->value_length > 0 &&
	       isspace((unsigned char)field->value[field->value_length - 1]))
		field->value_length--;
}

/* 1 with a field, 0 at the end, -EINVAL for a line that is no field. */
static int next_field(const char **at, const char *end, struct field *ret_field)
{
	const char *line = *at, *stop, *colon;

	if (line >= end)
		return 0;
	stop = memchr(line, '\n', (size_t)(end - line));
	stop = stop == NULL ? end : stop;
	colon = memchr(line, ':', (size_t)(stop - line));
	if (colon == NULL || colon == line || isspace((unsigned char)line[0]))
		return -EINVAL;
	while (stop < end && stop + 1 < end &&
	       (stop[1] == ' ' || stop[1] == '\t')) {
		const char *more =
			memchr(stop + 1, '\n', (size_t)(end - stop - 1));

		stop = more == NULL ? end : more;
	}
	ret_field->name = line;
	ret_field->name_length = (size_t)(colon - line);
	ret_field->value = colon + 1;
	ret_field->value_length = (size_t)(stop - colon - 1);
	trim(ret_field);
	*at = stop < end ? stop + 1 : end;
	return 1;
}

static bool is_named(const struct field *field, const char *name)
{
	return field->name_length == strlen(name) &&
	       strncasecmp(field->name, name, field->name_length) == 0;
}

static bool take_name(const struct field *field, char *to)
{
	if (field->value_length == 0 || field->value_length > STANZA_NAME_MAX)
		return false;
	memcpy(to, field->value, field->value_length);
	to[field->value_length] = '\0';
	return true;
}

static bool take_size(const struct field *field, uint64_t *to)
{
	uint64_t value = 0;

	if (field->value_length == 0)
		return false;
	for (size_t i = 0; i < field->value_length; i++) {
		if (!isdigit((unsigned char)field->value[i]) ||
		    value > SIZE_KIB_MAX)
			return false;
		value = 10 * value + (uint64_t)(field->value[i] - '0');
	}
	*to = value;
	return true;
}

static uint32_t count_dependencies(const struct field *field)
{
	uint32_t count = field->value_length > 0;

	for (size_t i = 0; i < field->value_length; i++)
		count += field->value[i] == ',';
	return count;
}

static bool take_field(const struct field *field, struct stanza_result *r)
{
	if (is_named(field, "Package"))
		return take_name(field, r->package);
	if (is_named(field, "Section"))
		return take_name(field, r->section);
	if (is_named(field, "Installed-Size"))
		return take_size(field, &r->size_kib);
	if (is_named(field, "Depends"))
		r->dependencies = count_dependencies(field);
	return true;
}

void stanza_parse(const void *bytes, size_t length,
		  struct stanza_result *ret_result)
{
	struct stanza_result *r = ret_result;
	const char *at = bytes, *end = at + length;
	struct field field;
	int more = 1;

	memset(r, 0, sizeof(*r));
	crypto_hash_sha256(r->sha256, bytes, length);
	r->parse_error = !is_text(bytes, length);
	while (!r->parse_error && more == 1) {
		more = next_field(&at, end, &field);
		if (more < 0 || (more == 1 && !take_field(&field, r)))
			r->parse_error = true;
	}
	if (r->package[0] == '\0')
		r->parse_error = true;
	if (!r->parse_error)
		return;
	/* Half a stanza counts as none: only its bytes are known. */
	r->size_kib = 0;
	r->dependencies = 0;
	r->package[0] = '\0';
	r->section[0] = '\0';
}

size_t stanza_result_write(const struct stanza_result *r, void *bytes)
{
	struct wire_head head = {
		.input_lsn = r->input_lsn,
		.size_kib = r->size_kib,
		.dependencies = r->dependencies,
		.flags = r->parse_error ? FLAG_PARSE_ERROR : 0,
		.package_length = (uint8_t)strlen(r->package),
		.section_length = (uint8_t)strlen(r->section),
	};
	uint8_t *at = bytes;

	memcpy(head.sha256, r->sha256, sizeof(head.sha256));
	memcpy(at, &head, sizeof(head));
	at += sizeof(head);
	memcpy(at, r->package, head.package_length);
	at += head.package_length;
	memcpy(at, r->section, head.section_length);
	return sizeof(head) + head.package_length + head.section_length;
}

int stanza_result_check(const void *bytes, size_t length,
			struct stanza_result *ret_result)
{
	struct stanza_result r = { 0 };
	struct wire_head head;
	const uint8_t *at = bytes;

	if (length < sizeof(head))
		return -EINVAL;
	memcpy(&head, at, sizeof(head));
	at += sizeof(head);
	if (head.package_length > STANZA_NAME_MAX ||
	    head.section_length > STANZA_NAME_MAX ||
	    length != sizeof(head) + head.package_length + head.section_length)
		return -EINVAL;
	r.input_lsn = head.input_lsn;
	r.size_kib = head.size_kib;
	r.dependencies = head.dependencies;
	r.parse_error = (head.flags & FLAG_PARSE_ERROR) != 0;
	memcpy(r.sha256, head.sha256, sizeof(r.sha256));
	memcpy(r.package, at, head.package_length);
	memcpy(r.section, at + head.package_length, head.section_length);
	*ret_result = r;
	return 0;
}

const char *stanza_next(const char **at, const char *end, size_t *ret_length)
{
	const char *first = *at, *blank;
	size_t length;

	while (first < end && *first == '\n')
		first++;
	if (first == end)
		return NULL;
	blank = memmem(first, (size_t)(end - first), "\n\n", 2);
	length = (size_t)((blank == NULL ? end : blank) - first);
	if (length > STANZA_BYTES_MAX)
		length = STANZA_BYTES_MAX;
	*at = first + length;
	*ret_length = length;
	return first;
}
