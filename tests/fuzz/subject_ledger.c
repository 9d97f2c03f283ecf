/* SPDX-License-Identifier: Apache-2.0 */
/* The owner of a ledger and two holders, and refs that anybody may have sent. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "shm/ledger.h"
#include "shm/ref.h"

#define HOLDERS 3u
#define ENTRIES 8u
#define REFS 6u
#define SEGMENT 5u
#define RANGE_BYTES UINT64_C(4096)

static struct fuzz_region memory;
static struct fuzz_region range;
static struct petal_ledger ledgers[HOLDERS];
static struct petal_ref_table tables[HOLDERS];
static struct petal_ref refs[REFS];

static struct petal_ledger_geometry shape_of(uint32_t variant)
{
	return (struct petal_ledger_geometry){
		.range_bytes = RANGE_BYTES,
		.granule_bytes = variant & 1 ? 64 : 256,
		.entries = ENTRIES,
		.segment = SEGMENT,
		.start_generation = variant & 2 ? PETAL_REF_GENERATION_MAX - 1
						: 1,
	};
}

static void sizes(uint32_t variant, uint64_t bytes[FUZZ_REGIONS])
{
	struct petal_ledger_geometry shape = shape_of(variant);

	bytes[0] = petal_ledger_bytes(&shape);
	bytes[1] = RANGE_BYTES;
}

static void attach(uint32_t i)
{
	struct petal_ledger ledger;

	if (fuzz_refused(
		    petal_ledger_attach(memory.base, memory.bytes, i, &ledger)))
		return;
	/* The range is what its own maker has said; a process checks that. */
	if (ledger.segment != SEGMENT)
		return;
	ledgers[i] = ledger;
}

static void make(const struct fuzz_region *regions, uint32_t variant)
{
	struct petal_ledger_geometry shape = shape_of(variant);

	memory = regions[0];
	range = regions[1];
	fuzz_require(petal_ledger_format(memory.base, &shape) == 0);
	memset(tables, 0, sizeof(tables));
	memset(refs, 0, sizeof(refs));
	for (uint32_t i = 0; i < HOLDERS; i++) {
		attach(i);
		fuzz_require(petal_ref_table_add(&tables[i], range.base,
						 range.bytes,
						 &ledgers[i]) == 0);
	}
	fuzz_require(petal_ledger_own(&ledgers[0]) == 0);
}

static struct petal_ref any_ref(void)
{
	struct petal_ref ref = refs[fuzz_random(REFS)];

	if (fuzz_random(8) == 0)
		ref.bits = fuzz_lie(ref.bits);
	return ref;
}

static void lend(void)
{
	uint32_t index = (uint32_t)fuzz_random(ENTRIES);
	uint64_t granule = UINT64_C(1) << ledgers[0].granule_shift;
	uint64_t offset = fuzz_random(RANGE_BYTES / granule) * granule;

	if (!petal_ledger_is_home(&ledgers[0], index))
		return;
	fuzz_refused(petal_ledger_lend(&ledgers[0], index, offset,
				       1 + fuzz_random(1000),
				       &refs[fuzz_random(REFS)]));
}

static void resolve(uint32_t i)
{
	uint64_t bytes = fuzz_random(4) ? fuzz_random(300) : fuzz_lie(64);
	void *pointer;

	if (fuzz_refused(
		    petal_ref_resolve(&tables[i], any_ref(), bytes, &pointer)))
		return;
	fuzz_write(pointer, bytes);
}

static void grant(uint32_t i)
{
	uint64_t to = fuzz_random(8) ? fuzz_random(8) : fuzz_lie(2);

	switch (fuzz_random(3)) {
	case 0:
		fuzz_refused(petal_ledger_share(&ledgers[i], any_ref(), to));
		break;
	case 1:
		fuzz_refused(petal_ledger_forward(&ledgers[i], any_ref(), to));
		break;
	default:
		fuzz_refused(petal_ledger_recall(&ledgers[i], any_ref(), to));
		break;
	}
}

static void take(uint32_t i)
{
	if (fuzz_random(2))
		fuzz_refused(petal_ledger_accept(&ledgers[i], any_ref()));
	else
		fuzz_refused(petal_ledger_drop(&ledgers[i], any_ref()));
}

static void bury(uint32_t i)
{
	uint32_t dead = (uint32_t)fuzz_random(HOLDERS + 1);

	if (fuzz_random(2))
		fuzz_refused(petal_ledger_settle(&ledgers[i], dead));
	else
		fuzz_refused(petal_ledger_repair(&ledgers[i], dead));
}

static void observe(uint32_t i)
{
	fuzz_require(petal_ledger_held(&ledgers[i], i) <= ENTRIES);
	if (petal_ledger_news(&ledgers[0]))
		petal_ledger_take_home(&ledgers[0], 0);
}

static void step(void)
{
	uint32_t i = (uint32_t)fuzz_random(HOLDERS);

	switch (fuzz_random(12)) {
	case 0:
	case 1:
		lend();
		break;
	case 2:
	case 3:
	case 4:
		resolve(i);
		break;
	case 5:
	case 6:
		grant(i);
		break;
	case 7:
	case 8:
		take(i);
		break;
	case 9:
		bury(i);
		break;
	case 10:
		observe(i);
		break;
	default:
		if (fuzz_random(4) == 0)
			fuzz_refused(petal_ledger_leave(&ledgers[i]));
		else
			attach(i);
		break;
	}
}

const struct fuzz_subject fuzz_ledger = {
	.name = "ledger",
	.variants = 4,
	.cost = 1,
	.accesses_max = 100000,
	.sizes = sizes,
	.make = make,
	.step = step,
};
