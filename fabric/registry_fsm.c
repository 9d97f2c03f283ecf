/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/registry_fsm.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "shm/crc32c.h"
#include "shm/error.h"

#define COMMAND_MAGIC UINT32_C(0x01635250)  /* "PRc\1" */
#define SNAPSHOT_MAGIC UINT32_C(0x01735250) /* "PRs\1" */
#define LAYOUT_VERSION 1
#define OP_CAS 1

/* On disk and between machines, so its layout is held fast. */
struct command_header {
	uint32_t magic;
	uint16_t version;
	uint8_t op;
	uint8_t key_length;
	uint64_t expected_version;
	uint32_t value_length;
	uint32_t crc;
};

struct snapshot_header {
	uint32_t magic;
	uint32_t version;
	uint64_t revision;
	uint32_t count;
	uint32_t crc;
};

struct entry_header {
	uint64_t version;
	uint32_t value_length;
	uint32_t key_length;
};

static_assert(sizeof(struct command_header) ==
		      PETAL_REGISTRY_COMMAND_HEADER_BYTES,
	      "a command's header has no padding");
static_assert(offsetof(struct command_header, crc) == 20, "drawn in the doc");
static_assert(sizeof(struct snapshot_header) ==
		      PETAL_REGISTRY_SNAPSHOT_HEADER_BYTES,
	      "a snapshot's header has no padding");
static_assert(offsetof(struct snapshot_header, crc) == 20, "drawn in the doc");
static_assert(sizeof(struct entry_header) ==
		      PETAL_REGISTRY_SNAPSHOT_ENTRY_BYTES,
	      "an entry's header has no padding");

static_assert(PETAL_REGISTRY_COMMAND_MAX % 8 == 0, "it ends on a boundary");

/* Where the zeros end that follow so many bytes. */
static size_t padded(size_t length)
{
	return (length + 7) & ~(size_t)7;
}

static bool is_zero(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

/* The CRC of a whole message, its own field (at 20, 4 bytes) left out. */
static uint32_t crc_around(const uint8_t *bytes, size_t length)
{
	uint32_t crc = petal_crc32c(0, bytes, 20);

	return petal_crc32c(crc, bytes + 24, length - 24);
}

/* How many characters of a key these are, 0 if they cannot be one. */
static unsigned key_characters(const char *key, size_t length)
{
	if (length == 0 || length > PETAL_REGISTRY_KEY_MAX)
		return 0;
	for (size_t i = 0; i < length; i++)
		if (key[i] <= ' ' || key[i] > '~')
			return 0;
	return (unsigned)length;
}

int petal_registry_key_check(const char *key)
{
	size_t length = strnlen(key, PETAL_REGISTRY_KEY_MAX + 1);

	return key_characters(key, length) ? (int)length : -EINVAL;
}

int petal_registry_command_bytes(const struct petal_registry_command *command)
{
	int key_length = petal_registry_key_check(command->key);

	if (key_length < 0 || command->length > PETAL_REGISTRY_VALUE_MAX)
		return -EINVAL;
	/* Deleting what must not exist could only ever change nothing. */
	if (command->length == 0 && command->expected_version == 0)
		return -EINVAL;
	return (int)padded(PETAL_REGISTRY_COMMAND_HEADER_BYTES +
			   (size_t)key_length + command->length);
}

void petal_registry_command_encode(const struct petal_registry_command *command,
				   uint8_t *ret_bytes)
{
	int length = petal_registry_command_bytes(command);
	size_t key_length = strlen(command->key);
	struct command_header header = {
		.magic = htole32(COMMAND_MAGIC),
		.version = htole16(LAYOUT_VERSION),
		.op = OP_CAS,
		.key_length = (uint8_t)key_length,
		.expected_version = htole64(command->expected_version),
		.value_length = htole32(command->length),
	};

	assert(length > 0);
	memset(ret_bytes + length - 8, 0, 8);
	memcpy(ret_bytes + sizeof(header), command->key, key_length);
	if (command->length > 0)
		memcpy(ret_bytes + sizeof(header) + key_length, command->value,
		       command->length);
	memcpy(ret_bytes, &header, sizeof(header));
	header.crc = htole32(crc_around(ret_bytes, (size_t)length));
	memcpy(ret_bytes, &header, sizeof(header));
}

int petal_registry_command_decode(const void *bytes, size_t length,
				  struct petal_registry_command *ret_command)
{
	const uint8_t *from = bytes;
	struct petal_registry_command command = { 0 };
	struct command_header header;
	size_t used;

	if (length < sizeof(header) || length > PETAL_REGISTRY_COMMAND_MAX)
		return -PETAL_ECORRUPT;
	memcpy(&header, from, sizeof(header));
	if (le32toh(header.magic) != COMMAND_MAGIC)
		return -PETAL_ECORRUPT;
	/* The CRC's place is the same in all layouts: damage comes first. */
	if (le32toh(header.crc) != crc_around(from, length))
		return -PETAL_ECORRUPT;
	if (le16toh(header.version) != LAYOUT_VERSION || header.op != OP_CAS)
		return -PETAL_EVERSION;
	from += sizeof(header);
	length -= sizeof(header);

	command.expected_version = le64toh(header.expected_version);
	command.length = le32toh(header.value_length);
	if (header.key_length > length ||
	    !key_characters((const char *)from, header.key_length))
		return -PETAL_ECORRUPT;
	memcpy(command.key, from, header.key_length);
	command.value = from + header.key_length;
	used = sizeof(header) + header.key_length + command.length;
	if (petal_registry_command_bytes(&command) !=
		    (int)(sizeof(header) + length) ||
	    !is_zero((const uint8_t *)bytes + used,
		     sizeof(header) + length - used))
		return -PETAL_ECORRUPT;
	*ret_command = command;
	return 0;
}

void petal_registry_fsm_init(struct petal_registry_fsm *fsm)
{
	fsm->revision = 0;
	fsm->applied = 0;
	fsm->conflicts = 0;
	fsm->count = 0;
	for (unsigned i = 0; i < PETAL_REGISTRY_KEYS_MAX; i++)
		fsm->order[i] = (uint16_t)i;
}

/* Where in order[] the key is, or where it would have to go. */
static uint32_t lower_bound(const struct petal_registry_fsm *fsm,
			    const char *key)
{
	uint32_t low = 0, high = fsm->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (strcmp(fsm->slots[fsm->order[middle]].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_at(const struct petal_registry_fsm *fsm, uint32_t place,
		  const char *key)
{
	return place < fsm->count &&
	       strcmp(fsm->slots[fsm->order[place]].key, key) == 0;
}

const struct petal_registry_entry *
petal_registry_fsm_find(const struct petal_registry_fsm *fsm, const char *key)
{
	uint32_t place = lower_bound(fsm, key);

	return is_at(fsm, place, key) ? &fsm->slots[fsm->order[place]] : NULL;
}

const struct petal_registry_entry *
petal_registry_fsm_after(const struct petal_registry_fsm *fsm, const char *key,
			 bool inclusive)
{
	uint32_t place = lower_bound(fsm, key);

	if (!inclusive && is_at(fsm, place, key))
		place++;
	return place < fsm->count ? &fsm->slots[fsm->order[place]] : NULL;
}

/* Take the first free slot and make it the place-th of those in use. */
static struct petal_registry_entry *insert(struct petal_registry_fsm *fsm,
					   uint32_t place, const char *key)
{
	uint16_t slot = fsm->order[fsm->count];
	struct petal_registry_entry *entry = &fsm->slots[slot];

	memmove(&fsm->order[place + 1], &fsm->order[place],
		(fsm->count - place) * sizeof(fsm->order[0]));
	fsm->order[place] = slot;
	fsm->count++;
	memset(entry->key, 0, sizeof(entry->key));
	memcpy(entry->key, key, strlen(key));
	return entry;
}

static void delete (struct petal_registry_fsm *fsm, uint32_t place)
{
	uint16_t slot = fsm->order[place];

	fsm->count--;
	memmove(&fsm->order[place], &fsm->order[place + 1],
		(fsm->count - place) * sizeof(fsm->order[0]));
	fsm->order[fsm->count] = slot;
}

static void put(struct petal_registry_entry *entry, uint64_t version,
		const void *value, uint32_t length)
{
	entry->version = version;
	entry->length = length;
	memcpy(entry->value, value, length);
}

/* The command's key has the version that it wants: do it. */
static int change(struct petal_registry_fsm *fsm, uint32_t place, bool exists,
		  const struct petal_registry_command *command)
{
	struct petal_registry_entry *entry;

	if (!exists && fsm->count == PETAL_REGISTRY_KEYS_MAX)
		return -ENOSPC;
	fsm->revision++;
	if (command->length == 0) {
		delete (fsm, place);
		return 0;
	}
	entry = exists ? &fsm->slots[fsm->order[place]]
		       : insert(fsm, place, command->key);
	put(entry, fsm->revision, command->value, command->length);
	return 0;
}

int petal_registry_fsm_apply(struct petal_registry_fsm *fsm, const void *bytes,
			     size_t length,
			     struct petal_registry_outcome *ret_outcome)
{
	struct petal_registry_command command;
	struct petal_registry_outcome outcome = { 0 };
	uint64_t version = 0;
	uint32_t place;
	bool exists;
	int err = petal_registry_command_decode(bytes, length, &command);

	if (err < 0)
		return err;
	place = lower_bound(fsm, command.key);
	exists = is_at(fsm, place, command.key);
	if (exists)
		version = fsm->slots[fsm->order[place]].version;

	fsm->applied++;
	memcpy(outcome.key, command.key, sizeof(outcome.key));
	if (version != command.expected_version) {
		fsm->conflicts++;
		outcome.status = -PETAL_ECONFLICT;
		outcome.version = version;
	} else {
		outcome.status = change(fsm, place, exists, &command);
		outcome.version = outcome.status < 0 ? 0 : fsm->revision;
	}
	*ret_outcome = outcome;
	return 0;
}

size_t petal_registry_fsm_snapshot_bytes(const struct petal_registry_fsm *fsm)
{
	size_t bytes = sizeof(struct snapshot_header);

	for (uint32_t i = 0; i < fsm->count; i++) {
		const struct petal_registry_entry *entry =
			&fsm->slots[fsm->order[i]];

		bytes += sizeof(struct entry_header) + strlen(entry->key) +
			 entry->length;
	}
	return padded(bytes);
}

static uint8_t *snapshot_entry(const struct petal_registry_entry *entry,
			       uint8_t *to)
{
	struct entry_header header = {
		.version = htole64(entry->version),
		.value_length = htole32(entry->length),
		.key_length = htole32((uint32_t)strlen(entry->key)),
	};

	memcpy(to, &header, sizeof(header));
	to += sizeof(header);
	memcpy(to, entry->key, strlen(entry->key));
	to += strlen(entry->key);
	memcpy(to, entry->value, entry->length);
	return to + entry->length;
}

void petal_registry_fsm_snapshot(const struct petal_registry_fsm *fsm,
				 uint8_t *ret_bytes)
{
	struct snapshot_header header = {
		.magic = htole32(SNAPSHOT_MAGIC),
		.version = htole32(LAYOUT_VERSION),
		.revision = htole64(fsm->revision),
		.count = htole32(fsm->count),
	};
	size_t length = petal_registry_fsm_snapshot_bytes(fsm);
	uint8_t *to = ret_bytes + sizeof(header);

	memset(ret_bytes + length - 8, 0, 8);
	for (uint32_t i = 0; i < fsm->count; i++)
		to = snapshot_entry(&fsm->slots[fsm->order[i]], to);
	memcpy(ret_bytes, &header, sizeof(header));
	header.crc = htole32(crc_around(ret_bytes, length));
	memcpy(ret_bytes, &header, sizeof(header));
}

/* A place in hostile bytes, and how many are left. */
struct cursor {
	const uint8_t *at;
	size_t left;
};

struct entry_view {
	uint64_t version;
	uint32_t value_length;
	const uint8_t *value;
	char key[PETAL_REGISTRY_KEY_MAX + 1];
};

static int entry_take(struct cursor *cursor, struct entry_view *ret_view)
{
	struct entry_view view = { 0 };
	struct entry_header header;
	uint32_t key_length;

	if (cursor->left < sizeof(header))
		return -PETAL_ECORRUPT;
	memcpy(&header, cursor->at, sizeof(header));
	cursor->at += sizeof(header);
	cursor->left -= sizeof(header);

	view.version = le64toh(header.version);
	view.value_length = le32toh(header.value_length);
	key_length = le32toh(header.key_length);
	if (view.value_length == 0 ||
	    view.value_length > PETAL_REGISTRY_VALUE_MAX ||
	    key_length > PETAL_REGISTRY_KEY_MAX ||
	    cursor->left < key_length + view.value_length)
		return -PETAL_ECORRUPT;
	if (!key_characters((const char *)cursor->at, key_length))
		return -PETAL_ECORRUPT;
	memcpy(view.key, cursor->at, key_length);
	view.value = cursor->at + key_length;
	cursor->at += key_length + view.value_length;
	cursor->left -= key_length + view.value_length;
	*ret_view = view;
	return 0;
}

static int snapshot_header_check(const void *bytes, size_t length,
				 struct snapshot_header *ret_header)
{
	struct snapshot_header header;

	if (length < sizeof(header) || length % 8 != 0)
		return -PETAL_ECORRUPT;
	memcpy(&header, bytes, sizeof(header));
	if (le32toh(header.magic) != SNAPSHOT_MAGIC ||
	    le32toh(header.crc) != crc_around(bytes, length))
		return -PETAL_ECORRUPT;
	if (le32toh(header.version) != LAYOUT_VERSION)
		return -PETAL_EVERSION;
	header.revision = le64toh(header.revision);
	header.count = le32toh(header.count);
	if (header.count > PETAL_REGISTRY_KEYS_MAX)
		return -PETAL_ECORRUPT;
	*ret_header = header;
	return 0;
}

static int entries_check(struct cursor cursor,
			 const struct snapshot_header *header)
{
	struct entry_view view;
	char last[PETAL_REGISTRY_KEY_MAX + 1] = "";

	for (uint32_t i = 0; i < header->count; i++) {
		int err = entry_take(&cursor, &view);

		if (err < 0)
			return err;
		if (view.version == 0 || view.version > header->revision ||
		    strcmp(last, view.key) >= 0)
			return -PETAL_ECORRUPT;
		memcpy(last, view.key, sizeof(last));
	}
	if (cursor.left > 7 || !is_zero(cursor.at, cursor.left))
		return -PETAL_ECORRUPT;
	return 0;
}

int petal_registry_fsm_restore(struct petal_registry_fsm *fsm,
			       const void *bytes, size_t length)
{
	struct snapshot_header header;
	struct cursor cursor;
	struct entry_view view;
	int err = snapshot_header_check(bytes, length, &header);

	if (err < 0)
		return err;
	cursor.at = (const uint8_t *)bytes + sizeof(header);
	cursor.left = length - sizeof(header);
	err = entries_check(cursor, &header);
	if (err < 0)
		return err;

	petal_registry_fsm_init(fsm);
	fsm->revision = header.revision;
	for (uint32_t i = 0; i < header.count; i++) {
		/* The bytes are private memory and were good just now. */
		err = entry_take(&cursor, &view);
		assert(err == 0);
		put(insert(fsm, i, view.key), view.version, view.value,
		    view.value_length);
	}
	return 0;
}
