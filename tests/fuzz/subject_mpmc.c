/* SPDX-License-Identifier: Apache-2.0 */
/* Three owners of a work queue, each of them in both roles. */
#include "tests/fuzz/fuzz.h"

#include "rings/mpmc.h"

#define OWNERS 3u
#define HELD 4u

static struct owner {
	struct petal_mpmc ring;
	struct petal_mpmc_claim claims[HELD];
	struct petal_mpmc_view views[HELD];
	uint32_t claim_count;
	uint32_t view_count;
} owners[OWNERS];

static struct fuzz_region memory;

static struct petal_mpmc_geometry shape_of(uint32_t variant)
{
	static const uint64_t starts[] = { 0, UINT64_C(0xfffffffe),
					   (UINT64_C(1) << 47) - 4,
					   UINT64_MAX - 5 };

	return (struct petal_mpmc_geometry){
		.slot_count = variant & 1 ? 4 : 32,
		.slot_bytes = variant & 2 ? 8 : 70,
		.owners = OWNERS,
		.start_pos = starts[variant / 4 % 4],
	};
}

static void sizes(uint32_t variant, uint64_t bytes[FUZZ_REGIONS])
{
	struct petal_mpmc_geometry shape = shape_of(variant);

	bytes[0] = petal_mpmc_bytes(&shape);
	bytes[1] = 0;
}

static void attach(uint32_t i)
{
	struct petal_mpmc ring;

	if (fuzz_refused(
		    petal_mpmc_attach(memory.base, memory.bytes, i, &ring)))
		return;
	owners[i].ring = ring;
	owners[i].claim_count = 0;
	owners[i].view_count = 0;
}

static void make(const struct fuzz_region *regions, uint32_t variant)
{
	struct petal_mpmc_geometry shape = shape_of(variant);

	memory = regions[0];
	fuzz_require(petal_mpmc_format(memory.base, &shape) == 0);
	for (uint32_t i = 0; i < OWNERS; i++)
		attach(i);
}

static void claim(struct owner *o)
{
	uint32_t room = HELD - o->claim_count;
	struct petal_mpmc_claim *first = &o->claims[o->claim_count];
	int64_t count;

	if (room == 0)
		return;
	if (fuzz_random(2))
		count = petal_mpmc_claim(&o->ring, first) == 0;
	else
		count = petal_mpmc_claim_n(&o->ring, room, first);
	if (fuzz_refused(count) < 0)
		return;
	fuzz_require(count <= room);
	for (int64_t i = 0; i < count; i++)
		fuzz_write(first[i].bytes, o->ring.slot_bytes);
	o->claim_count += (uint32_t)count;
}

static void finish(struct owner *o)
{
	struct petal_mpmc_claim *claim;

	if (o->claim_count == 0)
		return;
	claim = &o->claims[--o->claim_count];
	if (fuzz_random(4))
		fuzz_refused(petal_mpmc_publish(&o->ring, claim));
	else
		fuzz_refused(petal_mpmc_abort(&o->ring, claim));
}

static void peek(struct owner *o)
{
	uint32_t room = HELD - o->view_count;
	struct petal_mpmc_view *first = &o->views[o->view_count];
	uint32_t count = 1;
	int err;

	if (room == 0)
		return;
	if (fuzz_random(2))
		err = petal_mpmc_peek(&o->ring, first);
	else
		err = petal_mpmc_peek_n(&o->ring, room, first, &count);
	if (fuzz_refused(err))
		return;
	fuzz_require(count <= room);
	for (uint32_t i = 0; i < count; i++)
		fuzz_read(first[i].bytes, o->ring.slot_bytes);
	o->view_count += count;
}

static void done(struct owner *o)
{
	struct petal_mpmc_view *view;

	if (o->view_count == 0)
		return;
	view = &o->views[--o->view_count];
	if (fuzz_random(4))
		fuzz_refused(petal_mpmc_release(&o->ring, view));
	else
		fuzz_refused(petal_mpmc_give_back(&o->ring, view));
}

static void keep(struct owner *o)
{
	uint64_t dead[PETAL_MPMC_OWNERS_MAX / 64] = { fuzz_random(8) };

	if (fuzz_random(2))
		fuzz_refused(petal_mpmc_repair(&o->ring, dead));
	else
		fuzz_refused(
			petal_mpmc_fence(&o->ring, (uint32_t)fuzz_random(4)));
}

static void observe(struct owner *o)
{
	struct petal_mpmc_stats stats;
	uint32_t owner;

	fuzz_require(petal_mpmc_backlog(&o->ring) <= o->ring.slot_count);
	fuzz_require(petal_mpmc_busy(&o->ring) <= o->ring.slot_count);
	fuzz_refused(petal_mpmc_blocker(&o->ring, &owner));
	fuzz_refused(
		petal_mpmc_stats(&o->ring, (uint32_t)fuzz_random(4), &stats));
}

static void step(void)
{
	uint32_t i = (uint32_t)fuzz_random(OWNERS);

	switch (fuzz_random(14)) {
	case 0:
	case 1:
	case 2:
		claim(&owners[i]);
		break;
	case 3:
	case 4:
	case 5:
		finish(&owners[i]);
		break;
	case 6:
	case 7:
	case 8:
		peek(&owners[i]);
		break;
	case 9:
	case 10:
		done(&owners[i]);
		break;
	case 11:
		keep(&owners[i]);
		break;
	case 12:
		observe(&owners[i]);
		break;
	default:
		if (fuzz_random(2))
			attach(i);
		else if (fuzz_random(10) == 0)
			petal_mpmc_close(&owners[i].ring);
		break;
	}
}

const struct fuzz_subject fuzz_mpmc = {
	.name = "mpmc",
	.variants = 16,
	.cost = 1,
	.accesses_max = 20000,
	.sizes = sizes,
	.make = make,
	.step = step,
};
