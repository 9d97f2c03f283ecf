/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/counters.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "shm/error.h"
#include "shm/name.h"

static_assert(PETAL_COUNTERS_NAME_BYTES == NAME_BYTES, "one kind of name");

#define LINE_BYTES 64u
#define NAMES_OFFSET sizeof(struct petal_counters_header)

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
			name_store(names[i], (char *)table + name_offset(i));

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
	petal_store(&header->magic, 0, PETAL_RELAXED);
	memset(table + sizeof(header->magic), 0,
	       petal_counters_bytes(count) - sizeof(header->magic));
	outcome = name_store(title, header->title);
	if (!outcome)
		outcome = write_names(table, names, count);
	if (outcome)
		return outcome;
	header->layout = PETAL_COUNTERS_LAYOUT;
	header->count = count;
	/* [TABLE] Whoever sees the magic sees the names. */
	petal_store(&header->magic, PETAL_COUNTERS_MAGIC, PETAL_RELEASE(TABLE));
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
	if (petal_load(&header->magic, PETAL_ACQUIRE(TABLE)) !=
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

int petal_counters_title(const struct petal_counters_view *view,
			 char ret_title[PETAL_COUNTERS_NAME_BYTES])
{
	return name_load((const char *)view->table +
				 offsetof(struct petal_counters_header, title),
			 ret_title);
}

int petal_counters_read(const struct petal_counters_view *view, uint32_t index,
			struct petal_counters_entry *ret_entry)
{
	const struct petal_u64 *values =
		(const void *)(view->table + values_offset(view->count));
	int outcome;

	if (index >= view->count)
		return -ENOENT;
	outcome = name_load((const char *)view->table + name_offset(index),
			    ret_entry->name);
	if (outcome)
		return outcome;
	ret_entry->value = petal_load(&values[index], PETAL_RELAXED);
	return 0;
}
