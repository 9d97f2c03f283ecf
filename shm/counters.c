/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/counters.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "shm/error.h"

#define LINE_BYTES 64u
#define NAMES_OFFSET sizeof(struct petal_counters_header)

static_assert(sizeof(_Atomic(uint64_t)) == 8, "a value is eight bytes");

static uint64_t round_up_to_line(uint64_t bytes)
{
	return (bytes + LINE_BYTES - 1) & ~(uint64_t)(LINE_BYTES - 1);
}

static uint64_t name_offset(uint32_t index)
{
	return NAMES_OFFSET + (uint64_t)index * PETAL_COUNTERS_NAME_BYTES;
}

/* Values have lines of their own: names are read far more rarely. */
static uint64_t values_offset(uint32_t count)
{
	return round_up_to_line(name_offset(count));
}

static bool aligned(const void *memory)
{
	return memory && (uintptr_t)memory % LINE_BYTES == 0;
}

static bool letter_ok(char letter)
{
	return (letter >= 'a' && letter <= 'z') ||
	       (letter >= '0' && letter <= '9') || letter == '.' ||
	       letter == '_' || letter == '-';
}

/* A name is a run of letters and then zeroes to the end, one at least. */
static bool name_ok(const char name[PETAL_COUNTERS_NAME_BYTES])
{
	uint32_t length = 0;

	while (length < PETAL_COUNTERS_NAME_BYTES && letter_ok(name[length]))
		length++;
	if (length == 0 || length == PETAL_COUNTERS_NAME_BYTES)
		return false;
	for (uint32_t i = length; i < PETAL_COUNTERS_NAME_BYTES; i++)
		if (name[i] != 0)
			return false;
	return true;
}

static int name_pad(const char *name, char ret_name[PETAL_COUNTERS_NAME_BYTES])
{
	size_t length = name ? strlen(name) : 0;

	if (length >= PETAL_COUNTERS_NAME_BYTES)
		return -EINVAL;
	memset(ret_name, 0, PETAL_COUNTERS_NAME_BYTES);
	if (length)
		memcpy(ret_name, name, length);
	return name_ok(ret_name) ? 0 : -EINVAL;
}

uint64_t petal_counters_bytes(uint32_t count)
{
	return values_offset(count) +
	       round_up_to_line((uint64_t)count * sizeof(uint64_t));
}

static int write_names(unsigned char *table, const char *const *names,
		       uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		int outcome =
			name_pad(names[i], (char *)table + name_offset(i));

		if (outcome)
			return outcome;
	}
	return 0;
}

int petal_counters_format(void *memory, uint64_t bytes, const char *title,
			  const char *const *names, uint32_t count,
			  struct petal_counters *ret_counters)
{
	struct petal_counters_header *header = memory;
	unsigned char *table = memory;
	int outcome;

	if (!aligned(memory) || count == 0 || count > PETAL_COUNTERS_MAX)
		return -EINVAL;
	if (bytes < petal_counters_bytes(count))
		return -ENOSPC;
	/* Not by memset: a reader may be looking for the magic already. */
	atomic_store_explicit(&header->magic, 0, memory_order_relaxed);
	memset(table + sizeof(header->magic), 0,
	       petal_counters_bytes(count) - sizeof(header->magic));
	outcome = name_pad(title, header->title);
	if (!outcome)
		outcome = write_names(table, names, count);
	if (outcome)
		return outcome;
	header->layout = PETAL_COUNTERS_LAYOUT;
	header->count = count;
	/* [TABLE] Whoever sees the magic sees the names. */
	atomic_store_explicit(&header->magic, PETAL_COUNTERS_MAGIC,
			      memory_order_release);
	ret_counters->values = (void *)(table + values_offset(count));
	ret_counters->count = count;
	return 0;
}

int petal_counters_attach(const void *memory, uint64_t bytes,
			  struct petal_counters_view *ret_view)
{
	const struct petal_counters_header *header = memory;
	uint32_t count;

	if (!aligned(memory) || bytes < sizeof(*header))
		return -EINVAL;
	/* [TABLE] Pairs with the last store of format. */
	if (atomic_load_explicit(&header->magic, memory_order_acquire) !=
	    PETAL_COUNTERS_MAGIC)
		return -EINVAL;
	if (header->layout != PETAL_COUNTERS_LAYOUT)
		return -PETAL_EVERSION;
	/* Volatile, so that what is checked is what is used. */
	count = *(const volatile uint32_t *)&header->count;
	if (count == 0 || count > PETAL_COUNTERS_MAX ||
	    bytes < petal_counters_bytes(count))
		return -PETAL_EGEOMETRY;
	ret_view->table = memory;
	ret_view->count = count;
	return 0;
}

/* The copy is what gets checked, for the original may change in between. */
static int name_load(const struct petal_counters_view *view, uint64_t offset,
		     char ret_name[PETAL_COUNTERS_NAME_BYTES])
{
	const volatile char *shared =
		(const volatile char *)(view->table + offset);
	char name[PETAL_COUNTERS_NAME_BYTES];

	for (uint32_t i = 0; i < PETAL_COUNTERS_NAME_BYTES; i++)
		name[i] = shared[i];
	if (!name_ok(name))
		return -PETAL_ECORRUPT;
	memcpy(ret_name, name, sizeof(name));
	return 0;
}

int petal_counters_title(const struct petal_counters_view *view,
			 char ret_title[PETAL_COUNTERS_NAME_BYTES])
{
	return name_load(view, offsetof(struct petal_counters_header, title),
			 ret_title);
}

int petal_counters_read(const struct petal_counters_view *view, uint32_t index,
			struct petal_counters_entry *ret_entry)
{
	const _Atomic(uint64_t) *values =
		(const void *)(view->table + values_offset(view->count));
	int outcome;

	if (index >= view->count)
		return -ENOENT;
	outcome = name_load(view, name_offset(index), ret_entry->name);
	if (outcome)
		return outcome;
	ret_entry->value =
		atomic_load_explicit(&values[index], memory_order_relaxed);
	return 0;
}
