/* SPDX-License-Identifier: Apache-2.0 */
/* What observers read: counters, a histogram, a durable record; a doorbell. */
#include "tests/fuzz/fuzz.h"

#include <stddef.h>

#include "rings/doorbell.h"
#include "rings/record.h"
#include "shm/clock.h"
#include "shm/counters.h"
#include "shm/histogram.h"

static struct fuzz_region memory;

/* ---- counters ---- */

#define COUNT 5u

static struct petal_counters counters;
static struct petal_counters_view counters_view;

static void counters_sizes(uint32_t variant, uint64_t bytes[FUZZ_REGIONS])
{
	(void)variant;
	bytes[0] = petal_counters_bytes(COUNT);
	bytes[1] = 0;
}

static void counters_make(const struct fuzz_region *regions, uint32_t variant)
{
	static const char *const names[COUNT] = { "a", "bb", "c-c", "d.d",
						  "eeeeeee" };

	(void)variant;
	memory = regions[0];
	fuzz_require(petal_counters_format(memory.base, memory.bytes, "fuzz",
					   names, COUNT, &counters) == 0);
	fuzz_refused(petal_counters_attach(memory.base, memory.bytes,
					   &counters_view));
}

static void counters_step(void)
{
	struct petal_counters_entry entry;
	char title[PETAL_COUNTERS_NAME_BYTES];

	switch (fuzz_random(4)) {
	case 0:
		petal_counters_add(&counters, (uint32_t)fuzz_random(COUNT), 1);
		break;
	case 1:
		fuzz_refused(petal_counters_attach(memory.base, memory.bytes,
						   &counters_view));
		break;
	case 2:
		fuzz_refused(petal_counters_title(&counters_view, title));
		break;
	default:
		if (fuzz_refused(petal_counters_read(
			    &counters_view, (uint32_t)fuzz_random(COUNT + 2),
			    &entry)))
			break;
		for (unsigned i = 0; entry.name[i]; i++)
			fuzz_require(i + 1 < sizeof(entry.name));
		break;
	}
}

const struct fuzz_subject fuzz_counters = {
	.name = "counters",
	.variants = 1,
	.cost = 2,
	.accesses_max = 100,
	.sizes = counters_sizes,
	.make = counters_make,
	.step = counters_step,
};

/* ---- histogram ---- */

static struct petal_histogram_table *histogram;
static const struct petal_histogram_table *histogram_view;

static void histogram_sizes(uint32_t variant, uint64_t bytes[FUZZ_REGIONS])
{
	(void)variant;
	bytes[0] = sizeof(struct petal_histogram_table);
	bytes[1] = 0;
}

static void histogram_make(const struct fuzz_region *regions, uint32_t variant)
{
	(void)variant;
	memory = regions[0];
	fuzz_require(petal_histogram_format(memory.base, memory.bytes, "fuzz",
					    &histogram) == 0);
	histogram_view = histogram;
}

static void histogram_read(void)
{
	static struct petal_histogram copy;

	petal_histogram_read(histogram_view, &copy);
	petal_histogram_quantile(&copy, (uint32_t)fuzz_random(1000001));
}

static void histogram_step(void)
{
	char name[PETAL_HISTOGRAM_NAME_BYTES];

	switch (fuzz_random(32)) {
	case 0:
		histogram_read();
		break;
	case 1:
	case 2:
		fuzz_refused(petal_histogram_name(histogram_view, name));
		break;
	case 3:
	case 4:
		fuzz_refused(petal_histogram_attach(memory.base, memory.bytes,
						    &histogram_view));
		break;
	default:
		petal_histogram_add(histogram, fuzz_lie(1000));
		break;
	}
}

const struct fuzz_subject fuzz_histogram = {
	.name = "histogram",
	.variants = 1,
	.cost = 20,
	.accesses_max = PETAL_HISTOGRAM_BUCKETS + 16,
	.sizes = histogram_sizes,
	.make = histogram_make,
	.step = histogram_step,
};

/* ---- a durable record, which came from elsewhere ---- */

#define RECORD_BYTES 256u

static struct petal_record_cursor written;

static void record_sizes(uint32_t variant, uint64_t bytes[FUZZ_REGIONS])
{
	(void)variant;
	bytes[0] = RECORD_BYTES;
	bytes[1] = 0;
}

static void record_make(const struct fuzz_region *regions, uint32_t variant)
{
	struct petal_record_durable *record = (void *)regions[0].base;
	uint32_t length = PETAL_RECORD_ENVELOPE_BYTES + variant;

	memory = regions[0];
	record->record.length = length;
	record->payload_crc = petal_record_payload_crc(record, length);
	written = (struct petal_record_cursor){ .epoch = 3 };
	petal_record_stamp(record, &written);
}

static void record_step(void)
{
	struct petal_record_cursor cursor = { .epoch = 3 };

	if (fuzz_refused(petal_record_check(memory.base, memory.bytes,
					    &cursor)) == 0)
		fuzz_require(cursor.pos <= RECORD_BYTES);
}

const struct fuzz_subject fuzz_record = {
	.name = "record",
	.variants = 100,
	.cost = 2,
	.accesses_max = 20,
	.sizes = record_sizes,
	.make = record_make,
	.step = record_step,
};

/* ---- a doorbell: the word is a hint, and every wait has an end ---- */

static void doorbell_sizes(uint32_t variant, uint64_t bytes[FUZZ_REGIONS])
{
	(void)variant;
	bytes[0] = sizeof(struct petal_doorbell);
	bytes[1] = 0;
}

static void doorbell_make(const struct fuzz_region *regions, uint32_t variant)
{
	(void)variant;
	memory = regions[0];
}

static void doorbell_step(void)
{
	struct petal_doorbell *doorbell = (void *)memory.base;

	switch (fuzz_random(8)) {
	case 0:
		petal_doorbell_wait(doorbell, petal_doorbell_arm(doorbell),
				    petal_clock_now_ns() + 1);
		break;
	case 1:
		petal_doorbell_disarm(doorbell);
		break;
	default:
		petal_doorbell_ring(doorbell, 1);
		break;
	}
}

const struct fuzz_subject fuzz_doorbell = {
	.name = "doorbell",
	.variants = 1,
	.cost = 40,
	.accesses_max = 5000,
	.sizes = doorbell_sizes,
	.make = doorbell_make,
	.step = doorbell_step,
};
