/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The publisher of a broadcast ring, and a reader of each policy; half of the
 * variants are of a ring between hosts.
 */
#include "tests/fuzz/fuzz.h"

#include "rings/bcast.h"

#define READERS 5u
#define SEATS 4u
#define NEAR_VARIANTS 6u
#define VIEWS 4

static struct fuzz_region memory;
static struct fuzz_region apart;
static struct petal_bcast publisher;
static uint32_t apart_from; /* who has a cursor in memory of its own */

static struct reader {
	struct petal_bcast_reader reader;
	struct petal_bcast_view views[VIEWS];
	struct petal_bcast_ticket ticket;
	uint32_t hold;
	int view_count;
	bool joined;
} readers[READERS];

static struct petal_bcast_geometry shape_of(uint32_t variant)
{
	static const uint64_t starts[] = { 0, UINT64_C(0xffffffc0),
					   (UINT64_C(1) << 63) - 64 };

	return (struct petal_bcast_geometry){
		.data_bytes = variant & 1 ? 8192 : 4096,
		.spill_bytes = 4096,
		.readers = SEATS,
		.spills = 2,
		.start_pos = starts[variant / 2 % 3],
		.coherence = variant < NEAR_VARIANTS
				     ? PETAL_SEGMENT_COHERENT
				     : PETAL_SEGMENT_NONCOHERENT,
	};
}

static void sizes(uint32_t variant, uint64_t bytes[FUZZ_REGIONS])
{
	struct petal_bcast_geometry shape = shape_of(variant);

	bytes[0] = petal_bcast_bytes(&shape);
	bytes[1] = READERS * PETAL_BCAST_CURSOR_BYTES;
}

static struct petal_bcast_options any_options(uint32_t i)
{
	return (struct petal_bcast_options){
		.policy = (enum petal_bcast_policy)(i % 4),
		.full = (enum petal_bcast_policy)fuzz_random(3),
		.from = fuzz_random(2) ? PETAL_BCAST_FROM_NOW
				       : PETAL_BCAST_FROM_OLDEST,
		.owner = i,
		.bound_bytes = fuzz_random(2) ? 0 : fuzz_random(6000),
	};
}

static void *cursor_of(uint32_t i)
{
	return apart.base + i * PETAL_BCAST_CURSOR_BYTES;
}

static void enter(uint32_t i, const struct petal_bcast_options *options)
{
	struct reader *r = &readers[i];

	if (!fuzz_refused(petal_bcast_admit(&publisher, cursor_of(i), options,
					    &r->ticket)))
		r->joined = !fuzz_refused(petal_bcast_enter(
			memory.base, memory.bytes, cursor_of(i), &r->ticket,
			&r->reader));
}

static void join(uint32_t i)
{
	struct petal_bcast_options options = any_options(i);
	struct reader *r = &readers[i];

	if (r->joined)
		petal_bcast_leave(&r->reader);
	r->joined = false;
	r->view_count = 0;
	r->hold = PETAL_BCAST_HOLDS_MAX;
	if (i >= apart_from)
		enter(i, &options);
	else
		r->joined = !fuzz_refused(petal_bcast_join(
			memory.base, memory.bytes, &options, &r->reader));
}

static void attach(void)
{
	struct petal_bcast ring;

	if (fuzz_refused(petal_bcast_attach(memory.base, memory.bytes, &ring)))
		return;
	publisher = ring;
	for (uint32_t i = apart_from; i < READERS; i++)
		if (readers[i].joined)
			fuzz_refused(petal_bcast_adopt(&publisher, cursor_of(i),
						       &readers[i].ticket));
}

static void make(const struct fuzz_region *regions, uint32_t variant)
{
	struct petal_bcast_geometry shape = shape_of(variant);

	memory = regions[0];
	apart = regions[1];
	apart_from = variant < NEAR_VARIANTS ? READERS - 1 : 0;
	for (uint32_t i = 0; i < READERS; i++)
		readers[i].joined = false;
	fuzz_require(petal_bcast_format(memory.base, &shape) == 0);
	attach();
	/* Others join later, in the place of who has gone. */
	for (uint32_t i = 0; i < READERS; i++)
		if (fuzz_random(2))
			join(i);
}

static void claim(void)
{
	uint32_t max = fuzz_random(3) ? 64 : publisher.length_max + 2;
	uint32_t length = (uint32_t)fuzz_random(max);
	void *payload;

	if (!fuzz_refused(petal_bcast_claim(&publisher, length, 7, &payload)))
		fuzz_write(payload, length);
}

static void publish(void)
{
	if (fuzz_random(8))
		petal_bcast_publish(&publisher);
	else
		petal_bcast_abort(&publisher);
}

static void peek(struct reader *r)
{
	int count = 1, outcome = 0;

	if (!r->joined)
		return;
	r->view_count = 0;
	if (fuzz_random(2))
		outcome = petal_bcast_peek(&r->reader, &r->views[0]);
	else
		count = petal_bcast_peek_n(&r->reader, VIEWS, r->views,
					   &outcome);
	if (fuzz_refused(count) <= 0 || fuzz_refused(outcome))
		return;
	fuzz_require(count <= VIEWS);
	for (int i = 0; i < count; i++)
		fuzz_read(r->views[i].payload, r->views[i].length);
	r->view_count = count;
}

static void release(struct reader *r)
{
	struct petal_bcast_view *view;

	if (!r->joined || r->view_count == 0)
		return;
	view = &r->views[fuzz_random((uint64_t)r->view_count)];
	petal_bcast_check(&r->reader, view);
	if (fuzz_random(4) == 0 && r->hold == PETAL_BCAST_HOLDS_MAX)
		fuzz_refused(
			petal_bcast_hold(&r->reader, &r->views[0], &r->hold));
	else
		petal_bcast_release(&r->reader, view);
	r->view_count = 0;
}

static void drop_or_resolve(struct reader *r)
{
	struct petal_bcast_ref ref = { 0 };
	struct petal_bcast_view view;

	if (!r->joined)
		return;
	if (r->hold != PETAL_BCAST_HOLDS_MAX && fuzz_random(2)) {
		petal_bcast_drop(&r->reader, r->hold);
		r->hold = PETAL_BCAST_HOLDS_MAX;
		return;
	}
	/* Any bytes do no harm. */
	ref.pos = fuzz_lie(r->reader.pos);
	ref.ordinal = fuzz_lie(r->reader.ordinal);
	if (!fuzz_refused(petal_bcast_resolve(&r->reader, &ref, &view)))
		fuzz_read(view.payload, view.length);
}

static void observe(struct reader *r)
{
	struct petal_bcast_standing standing;
	struct petal_bcast_counts counts;
	uint32_t seat = (uint32_t)fuzz_random(SEATS + 1);

	petal_bcast_lag(&publisher);
	if (r->joined)
		petal_bcast_backlog(&r->reader);
	fuzz_refused(petal_bcast_standing(memory.base, memory.bytes, seat,
					  &standing));
	fuzz_refused(petal_bcast_counts(memory.base, memory.bytes, &counts));
}

static void keep(struct reader *r)
{
	switch (fuzz_random(4)) {
	case 0:
		fuzz_refused(petal_bcast_repair(memory.base, memory.bytes,
						(uint32_t)fuzz_random(5)));
		break;
	case 1:
		fuzz_refused(petal_bcast_evict(&publisher, r->reader.seat,
					       r->reader.word));
		break;
	case 2:
		attach();
		break;
	default:
		if (fuzz_random(10) == 0)
			petal_bcast_close(&publisher);
		break;
	}
}

static void step(void)
{
	uint32_t i = (uint32_t)fuzz_random(READERS);

	switch (fuzz_random(16)) {
	case 0:
	case 1:
	case 2:
	case 3:
		claim();
		break;
	case 4:
	case 5:
	case 6:
		publish();
		break;
	case 7:
	case 8:
	case 9:
		peek(&readers[i]);
		break;
	case 10:
	case 11:
		release(&readers[i]);
		break;
	case 12:
		drop_or_resolve(&readers[i]);
		break;
	case 13:
		observe(&readers[i]);
		break;
	case 14:
		join(i);
		break;
	default:
		keep(&readers[i]);
		break;
	}
}

const struct fuzz_subject fuzz_bcast = {
	.name = "bcast",
	.variants = 2 * NEAR_VARIANTS,
	.cost = 1,
	.accesses_max = 60000,
	.sizes = sizes,
	.make = make,
	.step = step,
};
