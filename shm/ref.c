/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/ref.h"

#include <errno.h>
#include <stddef.h>

#include "shm/ledger.h"

int petal_ref_table_add(struct petal_ref_table *table, void *base,
			uint64_t bytes, const struct petal_ledger *ledger)
{
	struct petal_ref_segment *segment = &table->segments[ledger->segment];

	if (!base || !bytes || (uintptr_t)base % PETAL_REF_UNIT_BYTES)
		return -EINVAL;
	if (segment->base)
		return -EEXIST;
	segment->base = base;
	segment->bytes = bytes;
	segment->ledger = ledger;
	return 0;
}

int petal_ref_table_grow(struct petal_ref_table *table, uint32_t segment,
			 uint64_t bytes)
{
	struct petal_ref_segment *known;

	if (segment >= PETAL_REF_SEGMENTS || !table->segments[segment].base)
		return -ENXIO;
	known = &table->segments[segment];
	if (bytes < known->bytes)
		return -EINVAL;
	known->bytes = bytes;
	return 0;
}

void petal_ref_table_remove(struct petal_ref_table *table, uint32_t segment)
{
	if (segment < PETAL_REF_SEGMENTS)
		table->segments[segment] = (struct petal_ref_segment){ 0 };
}

int petal_ref_resolve(const struct petal_ref_table *table, struct petal_ref ref,
		      uint64_t bytes, void **ret_pointer)
{
	const struct petal_ref_segment *segment =
		&table->segments[petal_ref_segment(ref)];
	uint64_t offset = petal_ref_offset(ref);
	int err;

	if (petal_ref_is_none(ref))
		return -EINVAL;
	if (!segment->base)
		return -ENXIO;
	/* Whatever the ledger says, beyond this there is nothing mapped. */
	if (offset >= segment->bytes || bytes > segment->bytes - offset)
		return -ERANGE;
	err = petal_ledger_check(segment->ledger, ref, bytes);
	if (err)
		return err;
	*ret_pointer = segment->base + offset;
	return 0;
}
