/* SPDX-License-Identifier: Apache-2.0 */
/* Three producers, the consumer and its keeper of an MPSC ring. */
#include "tests/fuzz/fuzz.h"

#include "rings/mpsc.h"

#define OWNERS 3u
#define DATA_BYTES UINT64_C(4096)

static struct {
	struct fuzz_region header;
	struct fuzz_region data;
	struct petal_mpsc producers[OWNERS];
	struct petal_mpsc_claim claims[OWNERS];
	bool claimed[OWNERS];
	struct petal_mpsc consumer;
	uint64_t pos;
} s;

static struct petal_mpsc_geometry shape_of(uint32_t variant)
{
	static const uint64_t starts[] = { 0, UINT64_C(0xffffffc0),
					   UINT64_C(0xffffffffffc0),
					   (UINT64_C(1) << 63) - 128 };

	return (struct petal_mpsc_geometry){
		.data_bytes = DATA_BYTES,
		.owners = OWNERS,
		.reserve_bytes = variant & 1 ? 512 : 0,
		.start_pos = starts[variant / 2 % 4],
	};
}

static void sizes(uint32_t variant, uint64_t bytes[FUZZ_REGIONS])
{
	struct petal_mpsc_geometry shape = shape_of(variant);

	bytes[0] = petal_mpsc_bytes(&shape);
	bytes[1] = DATA_BYTES;
}

static void attach(uint32_t owner, struct petal_mpsc *ring)
{
	fuzz_refused(petal_mpsc_attach(s.header.base, s.header.bytes,
				       s.data.base, s.data.bytes, owner, ring));
}

static void make(const struct fuzz_region *regions, uint32_t variant)
{
	struct petal_mpsc_geometry shape = shape_of(variant);

	s.header = regions[0];
	s.data = regions[1];
	fuzz_require(petal_mpsc_format(s.header.base, &shape) == 0);
	for (uint32_t i = 0; i < OWNERS; i++) {
		attach(i, &s.producers[i]);
		s.claimed[i] = false;
	}
	attach(0, &s.consumer);
	s.pos = shape.start_pos;
}

static uint32_t any_length(void)
{
	return (uint32_t)fuzz_random(fuzz_random(4) ? 100 : DATA_BYTES / 3);
}

static void claim(uint32_t i)
{
	struct petal_mpsc_claim claim;
	uint32_t length = any_length();

	if (fuzz_refused(petal_mpsc_claim(&s.producers[i], length, &claim)))
		return;
	fuzz_write(claim.record + 1, length);
	s.claims[i] = claim;
	s.claimed[i] = true;
}

static void claim_run(uint32_t i)
{
	struct petal_mpsc_claim claim;
	uint32_t length = (uint32_t)fuzz_random(64);
	uint32_t count = 1 + (uint32_t)fuzz_random(6);

	if (fuzz_refused(petal_mpsc_claim_run(&s.producers[i], length, count,
					      &claim)))
		return;
	for (uint32_t n = 0; n < count; n++)
		fuzz_write(petal_mpsc_claim_at(&claim, length, n) + 1, length);
	s.claims[i] = claim;
	s.claimed[i] = true;
}

static void finish(uint32_t i)
{
	if (!s.claimed[i])
		return;
	s.claimed[i] = false;
	if (fuzz_random(4))
		fuzz_refused(petal_mpsc_publish(&s.producers[i], &s.claims[i]));
	else
		fuzz_refused(petal_mpsc_abort(&s.producers[i], &s.claims[i]));
}

static void peek(void)
{
	struct petal_mpsc_view view;

	if (fuzz_refused(petal_mpsc_peek(&s.consumer, s.pos, &view)))
		return;
	fuzz_require(view.end - view.pos <= DATA_BYTES);
	fuzz_read(view.record + 1, view.length);
	s.pos = view.end;
}

static void keep(void)
{
	uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64] = { fuzz_random(8) };
	uint32_t owner;

	switch (fuzz_random(3)) {
	case 0:
		fuzz_refused(petal_mpsc_repair(&s.consumer, s.pos, dead));
		break;
	case 1:
		fuzz_refused(petal_mpsc_fence(&s.consumer, s.pos, &owner));
		break;
	default:
		fuzz_refused(petal_mpsc_adopt(&s.consumer, &s.pos));
		break;
	}
}

static void observe(void)
{
	fuzz_require(petal_mpsc_backlog(&s.consumer) <= DATA_BYTES);
	fuzz_require(petal_mpsc_used(&s.consumer) <= DATA_BYTES);
}

static void attach_again(uint32_t i)
{
	if (i == 0 && fuzz_random(2)) {
		attach(0, &s.consumer);
		return;
	}
	attach(i, &s.producers[i]);
	s.claimed[i] = false;
}

static void step(void)
{
	uint32_t i = (uint32_t)fuzz_random(OWNERS);

	switch (fuzz_random(14)) {
	case 0:
	case 1:
	case 2:
		claim(i);
		break;
	case 3:
		claim_run(i);
		break;
	case 4:
	case 5:
	case 6:
		finish(i);
		break;
	case 7:
	case 8:
		peek();
		break;
	case 9:
		petal_mpsc_release(&s.consumer, s.pos);
		break;
	case 10:
	case 11:
		keep();
		break;
	case 12:
		observe();
		break;
	default:
		if (fuzz_random(2))
			attach_again(i);
		else if (fuzz_random(10) == 0)
			petal_mpsc_close(&s.consumer);
		break;
	}
}

const struct fuzz_subject fuzz_mpsc = {
	.name = "mpsc",
	.variants = 8,
	.cost = 1,
	.accesses_max = 200000,
	.sizes = sizes,
	.make = make,
	.step = step,
};
