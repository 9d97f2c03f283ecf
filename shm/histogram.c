/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/histogram.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "shm/error.h"
#include "shm/name.h"

enum { LINEAR = 1 << PETAL_HISTOGRAM_BITS };

static_assert(PETAL_HISTOGRAM_NAME_BYTES == NAME_BYTES, "one kind of name");
static_assert(PETAL_HISTOGRAM_BUCKETS == 7424, "the picture in the header");

/* The value in the middle of a bucket, rounded down. */
static uint64_t middle_of(unsigned bucket)
{
	unsigned shift;
	uint64_t low;

	if (bucket < 2 * LINEAR)
		return bucket;
	shift = bucket / LINEAR - 1;
	low = (uint64_t)(bucket % LINEAR + LINEAR) << shift;
	return low + (UINT64_C(1) << (shift - 1));
}

void petal_histogram_init(struct petal_histogram *histogram)
{
	memset(histogram, 0, sizeof(*histogram));
	histogram->min = UINT64_MAX;
}

void petal_histogram_record(struct petal_histogram *histogram, uint64_t value)
{
	histogram->bucket[petal_histogram_bucket_of(value)]++;
	histogram->count++;
	if (value < histogram->min)
		histogram->min = value;
	if (value > histogram->max)
		histogram->max = value;
}

void petal_histogram_merge(struct petal_histogram *into,
			   const struct petal_histogram *from)
{
	for (unsigned i = 0; i < PETAL_HISTOGRAM_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
	into->count += from->count;
	if (from->min < into->min)
		into->min = from->min;
	if (from->max > into->max)
		into->max = from->max;
}

/* ceil(count * ppm / 1000000), at least 1, without leaving 64 bits. */
static uint64_t rank_of(uint64_t count, uint32_t ppm)
{
	uint64_t whole = count / 1000000 * ppm;
	uint64_t rest = (count % 1000000 * ppm + 999999) / 1000000;

	return whole + rest > 0 ? whole + rest : 1;
}

uint64_t petal_histogram_quantile(const struct petal_histogram *histogram,
				  uint32_t ppm)
{
	uint64_t rank;
	uint64_t seen = 0;
	uint64_t value = histogram->max;

	if (histogram->count == 0)
		return 0;
	rank = rank_of(histogram->count, ppm < 1000000 ? ppm : 1000000);
	/* The two ends are known exactly, whatever their buckets say. */
	if (rank == histogram->count)
		return histogram->max;
	if (rank == 1)
		return histogram->min;
	for (unsigned i = 0; i < PETAL_HISTOGRAM_BUCKETS; i++) {
		seen += histogram->bucket[i];
		if (seen >= rank) {
			value = middle_of(i);
			break;
		}
	}
	if (value < histogram->min)
		return histogram->min;
	return value < histogram->max ? value : histogram->max;
}

static bool aligned(const void *memory)
{
	return memory && (uintptr_t)memory % 64 == 0;
}

int petal_histogram_format(void *memory, uint64_t bytes, const char *name,
			   struct petal_histogram_table **ret_table)
{
	struct petal_histogram_table *table = memory;
	char padded[PETAL_HISTOGRAM_NAME_BYTES];
	const size_t magic = sizeof(table->magic);

	if (!aligned(memory) || name_store(name, padded))
		return -EINVAL;
	if (bytes < sizeof(*table))
		return -ENOSPC;
	/* Not by memset: a reader may be looking for the magic already. */
	petal_store(&table->magic, 0, PETAL_RELAXED);
	memset((unsigned char *)memory + magic, 0, sizeof(*table) - magic);
	table->layout = PETAL_HISTOGRAM_LAYOUT;
	table->buckets = PETAL_HISTOGRAM_BUCKETS;
	memcpy(table->name, padded, sizeof(padded));
	petal_store(&table->min, UINT64_MAX, PETAL_RELAXED);
	/* [TABLE] Whoever sees the magic sees the rest. */
	petal_store(&table->magic, PETAL_HISTOGRAM_MAGIC, PETAL_RELEASE(TABLE));
	*ret_table = table;
	return 0;
}

int petal_histogram_attach(const void *memory, uint64_t bytes,
			   const struct petal_histogram_table **ret_table)
{
	const struct petal_histogram_table *table = memory;

	if (!aligned(memory) ||
	    bytes < offsetof(struct petal_histogram_table, min))
		return -EINVAL;
	/* [TABLE] Pairs with the last store of format. */
	if (petal_load(&table->magic, PETAL_ACQUIRE(TABLE)) !=
	    PETAL_HISTOGRAM_MAGIC)
		return -EINVAL;
	if (table->layout != PETAL_HISTOGRAM_LAYOUT)
		return -PETAL_EVERSION;
	if (table->buckets != PETAL_HISTOGRAM_BUCKETS || bytes < sizeof(*table))
		return -PETAL_EGEOMETRY;
	*ret_table = table;
	return 0;
}

int petal_histogram_name(const struct petal_histogram_table *table,
			 char ret_name[PETAL_HISTOGRAM_NAME_BYTES])
{
	return name_load(table->name, ret_name);
}

/* The extremes lie in their buckets; one that was read apart may not. */
static uint64_t bring_into(unsigned bucket, uint64_t value)
{
	return petal_histogram_bucket_of(value) == bucket ? value
							  : middle_of(bucket);
}

void petal_histogram_read(const struct petal_histogram_table *table,
			  struct petal_histogram *ret_histogram)
{
	struct petal_histogram *h = ret_histogram;
	unsigned first = PETAL_HISTOGRAM_BUCKETS;
	unsigned last = 0;

	petal_histogram_init(h);
	for (unsigned i = 0; i < PETAL_HISTOGRAM_BUCKETS; i++) {
		h->bucket[i] = petal_load(&table->bucket[i], PETAL_RELAXED);
		h->count += h->bucket[i];
		if (h->bucket[i] == 0)
			continue;
		first = first < i ? first : i;
		last = i;
	}
	if (first == PETAL_HISTOGRAM_BUCKETS)
		return;
	h->min = bring_into(first, petal_load(&table->min, PETAL_RELAXED));
	h->max = bring_into(last, petal_load(&table->max, PETAL_RELAXED));
}
