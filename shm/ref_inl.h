/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_REF_INL_H
#define PETAL_SHM_REF_INL_H

#define PETAL_REF_OFFSET_BITS 34
#define PETAL_REF_SEGMENT_SHIFT 56
#define PETAL_REF_UNIT_SHIFT 6

static_assert(UINT64_C(1) << (PETAL_REF_OFFSET_BITS + PETAL_REF_UNIT_SHIFT) ==
		      PETAL_REF_RANGE_BYTES_MAX,
	      "the offset's bits are all that a range can have");

static inline struct petal_ref
petal_ref_make(uint32_t segment, uint32_t generation, uint64_t offset)
{
	struct petal_ref ref;

	assert(segment < PETAL_REF_SEGMENTS);
	assert(generation > 0 && generation <= PETAL_REF_GENERATION_MAX);
	assert(offset < PETAL_REF_RANGE_BYTES_MAX);
	assert(offset % PETAL_REF_UNIT_BYTES == 0);
	ref.bits = (uint64_t)segment << PETAL_REF_SEGMENT_SHIFT |
		   (uint64_t)generation << PETAL_REF_OFFSET_BITS |
		   offset >> PETAL_REF_UNIT_SHIFT;
	return ref;
}

static inline bool petal_ref_is_none(struct petal_ref ref)
{
	return ref.bits == 0;
}

static inline uint32_t petal_ref_segment(struct petal_ref ref)
{
	return (uint32_t)(ref.bits >> PETAL_REF_SEGMENT_SHIFT);
}

static inline uint32_t petal_ref_generation(struct petal_ref ref)
{
	return (uint32_t)(ref.bits >> PETAL_REF_OFFSET_BITS) &
	       PETAL_REF_GENERATION_MAX;
}

static inline uint64_t petal_ref_offset(struct petal_ref ref)
{
	uint64_t units = ref.bits &
			 ((UINT64_C(1) << PETAL_REF_OFFSET_BITS) - 1);

	return units << PETAL_REF_UNIT_SHIFT;
}

#endif
