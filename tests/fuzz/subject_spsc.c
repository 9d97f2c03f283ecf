/* SPDX-License-Identifier: Apache-2.0 */
/* Both sides of an SPSC ring, stamped or indexed, in one memory or apart. */
#include "tests/fuzz/fuzz.h"

#include "rings/outcome.h"
#include "rings/spsc.h"

#define BULK 5u

static struct {
	struct fuzz_region ring;
	struct fuzz_region cursor; /* of no bytes when it is not apart */
	struct petal_spsc producer;
	struct petal_spsc consumer;
	uint64_t claimed;
	uint64_t peeked;
} s;

static struct petal_spsc_geometry shape_of(uint32_t variant)
{
	static const uint32_t slot_bytes[] = { 8, 24, 100, 300 };
	static const uint64_t starts[] = { 0, UINT64_C(0xfffffffd),
					   (UINT64_C(1) << 63) - 2 };

	return (struct petal_spsc_geometry){
		.slot_count = variant & 1 ? 4 : 16,
		.slot_bytes = slot_bytes[variant / 2 % 4],
		.kind = variant / 8 % 2 ? PETAL_SPSC_INDEXED
					: PETAL_SPSC_STAMPED,
		.start_pos = starts[variant / 32 % 3],
		.coherence = variant / 96 ? PETAL_SEGMENT_NONCOHERENT
					  : PETAL_SEGMENT_COHERENT,
	};
}

static bool is_apart(uint32_t variant)
{
	return variant / 16 % 2;
}

static void sizes(uint32_t variant, uint64_t bytes[FUZZ_REGIONS])
{
	struct petal_spsc_geometry shape = shape_of(variant);

	bytes[0] = petal_spsc_bytes(&shape);
	bytes[1] = is_apart(variant) ? PETAL_SPSC_CURSOR_BYTES : 0;
}

static void attach(enum petal_spsc_role role)
{
	struct petal_spsc ring;
	int err;

	if (s.cursor.bytes)
		err = petal_spsc_attach_apart(s.ring.base, s.ring.bytes,
					      s.cursor.base, s.cursor.bytes,
					      role, &ring);
	else
		err = petal_spsc_attach(s.ring.base, s.ring.bytes, role, &ring);
	if (fuzz_refused(err))
		return;
	if (role == PETAL_SPSC_PRODUCER) {
		s.producer = ring;
		s.claimed = 0;
	} else {
		s.consumer = ring;
		s.peeked = 0;
	}
}

static void make(const struct fuzz_region *regions, uint32_t variant)
{
	struct petal_spsc_geometry shape = shape_of(variant);

	s.ring = regions[0];
	s.cursor = regions[1];
	fuzz_require(petal_spsc_format(s.ring.base, &shape) == 0);
	if (s.cursor.bytes)
		fuzz_require(petal_spsc_format_cursor(s.cursor.base,
						      shape.start_pos) == 0);
	attach(PETAL_SPSC_PRODUCER);
	attach(PETAL_SPSC_CONSUMER);
}

static void claim_one(void)
{
	void *slot = petal_spsc_claim(&s.producer);

	s.claimed = slot != NULL;
	if (slot)
		fuzz_write(slot, s.producer.slot_bytes);
	else
		fuzz_refused(petal_spsc_outcome(&s.producer));
}

static void claim_many(void)
{
	uint64_t want = 1 + fuzz_random(BULK);
	void *slot;

	s.claimed = petal_spsc_claim_n(&s.producer, want);
	fuzz_require(s.claimed <= want);
	slot = petal_spsc_slot(&s.producer, 0);
	for (uint64_t i = 0; i < s.claimed; i++) {
		fuzz_write(slot, s.producer.slot_bytes);
		slot = petal_spsc_slot_after(&s.producer, slot);
	}
}

static void publish(void)
{
	uint64_t count = s.claimed ? 1 + fuzz_random(s.claimed) : 0;

	s.claimed = 0;
	if (count == 1)
		petal_spsc_publish(&s.producer);
	else
		petal_spsc_publish_n(&s.producer, count);
}

static void peek_one(void)
{
	uint64_t index = fuzz_random(4) ? 0 : fuzz_random(20);
	const void *slot = petal_spsc_peek_at(&s.consumer, index);

	s.peeked = slot ? index + 1 : 0;
	if (slot)
		fuzz_read(slot, s.consumer.slot_bytes);
}

static void peek_many(void)
{
	uint64_t want = 1 + fuzz_random(20);
	void *slot;

	s.peeked = petal_spsc_peek_n(&s.consumer, want);
	fuzz_require(s.peeked <= want && s.peeked <= s.consumer.slot_count);
	slot = petal_spsc_slot(&s.consumer, 0);
	for (uint64_t i = 0; i < s.peeked; i++) {
		fuzz_read(slot, s.consumer.slot_bytes);
		slot = petal_spsc_slot_after(&s.consumer, slot);
	}
}

static void release(void)
{
	uint64_t count = s.peeked ? 1 + fuzz_random(s.peeked) : 0;

	s.peeked = 0;
	petal_spsc_release_n(&s.consumer, count);
}

static void observe(void)
{
	fuzz_require(petal_spsc_backlog(&s.consumer) <= s.consumer.slot_count);
	fuzz_refused(petal_spsc_outcome(&s.producer));
	fuzz_refused(petal_spsc_outcome(&s.consumer));
}

static void step(void)
{
	switch (fuzz_random(16)) {
	case 0:
	case 1:
		claim_one();
		break;
	case 2:
	case 3:
		claim_many();
		break;
	case 4:
	case 5:
	case 6:
		publish();
		break;
	case 7:
	case 8:
		peek_one();
		break;
	case 9:
	case 10:
		peek_many();
		break;
	case 11:
	case 12:
		release();
		break;
	case 13:
		observe();
		break;
	case 14:
		attach(fuzz_random(2) ? PETAL_SPSC_PRODUCER
				      : PETAL_SPSC_CONSUMER);
		break;
	default:
		if (fuzz_random(8) == 0)
			petal_spsc_close(fuzz_random(2) ? &s.producer
							: &s.consumer);
		break;
	}
}

const struct fuzz_subject fuzz_spsc = {
	.name = "spsc",
	.variants = 192,
	.cost = 1,
	.accesses_max = 200,
	.sizes = sizes,
	.make = make,
	.step = step,
};
