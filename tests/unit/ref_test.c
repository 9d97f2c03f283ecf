/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/ref.h: the three parts of a ref come out as they went in, and each
 * thing that can be wrong with a ref that was received has its own error
 * (traps: counters near their wrap, hostile offsets).
 *
 * PETAL_TEST_HARDER=100 tries a hundred million random refs.
 */
#include "tests/check.h"

#include "shm/ledger.h"
#include "shm/ref.h"

#define GRANULE 1024u
#define RANGE_BYTES (64u * GRANULE)
#define SEGMENT 7u

struct fixture {
	struct petal_ref_table table;
	struct petal_ledger ledger; /* the owner's */
	void *memory;
	unsigned char *range;
};

static int make(void **state)
{
	const struct petal_ledger_geometry geometry = {
		.range_bytes = RANGE_BYTES,
		.granule_bytes = GRANULE,
		.entries = 8,
		.segment = SEGMENT,
		.start_generation = PETAL_REF_GENERATION_MAX - 1,
	};
	struct fixture *f = calloc(1, sizeof(*f));
	uint64_t bytes = petal_ledger_bytes(&geometry);

	assert_non_null(f);
	f->memory = aligned_alloc(64, bytes);
	f->range = aligned_alloc(4096, RANGE_BYTES);
	assert_non_null(f->memory);
	assert_non_null(f->range);
	assert_ok(petal_ledger_format(f->memory, &geometry));
	assert_ok(petal_ledger_attach(f->memory, bytes, 0, &f->ledger));
	assert_ok(petal_ledger_own(&f->ledger));
	assert_ok(petal_ref_table_add(&f->table, f->range, RANGE_BYTES,
				      &f->ledger));
	*state = f;
	return 0;
}

static int unmake(void **state)
{
	struct fixture *f = *state;

	free(f->memory);
	free(f->range);
	free(f);
	return 0;
}

static struct petal_ref lend(struct fixture *f, uint32_t index, uint64_t offset,
			     uint64_t bytes)
{
	struct petal_ref ref;

	assert_ok(petal_ledger_lend(&f->ledger, index, offset, bytes, &ref));
	return ref;
}

static int resolve(const struct fixture *f, struct petal_ref ref,
		   uint64_t bytes)
{
	void *pointer;

	return petal_ref_resolve(&f->table, ref, bytes, &pointer);
}

static void make__every_part_comes_out_as_it_went_in(void **state)
{
	static const uint32_t segments[] = { 0, 1, 127, 255 };
	static const uint32_t generations[] = { 1, 2, 1u << 16, 1u << 21,
						PETAL_REF_GENERATION_MAX };
	static const uint64_t offsets[] = { 0, 64, UINT64_C(1) << 32,
					    PETAL_REF_RANGE_BYTES_MAX - 64 };

	(void)state;
	for (size_t i = 0; i < 4; i++)
		for (size_t j = 0; j < 5; j++)
			for (size_t k = 0; k < 4; k++) {
				struct petal_ref ref = petal_ref_make(
					segments[i], generations[j],
					offsets[k]);

				assert_false(petal_ref_is_none(ref));
				assert_int_equal(petal_ref_segment(ref),
						 segments[i]);
				assert_int_equal(petal_ref_generation(ref),
						 generations[j]);
				assert_int_equal(petal_ref_offset(ref),
						 offsets[k]);
			}
}

static void resolve__a_held_buffer_is_where_it_was_lent(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 3, 5 * GRANULE, GRANULE + 1);
	void *pointer = NULL;

	assert_ok(petal_ref_resolve(&f->table, ref, 2 * GRANULE, &pointer));
	assert_ptr_equal(pointer, f->range + 5 * GRANULE);
	assert_ok(petal_ref_resolve(&f->table, ref, 0, &pointer));
}

static void resolve__each_wrong_ref_has_its_own_error(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 3, 5 * GRANULE, GRANULE + 1);
	uint32_t generation = petal_ref_generation(ref);
	uint64_t offset = petal_ref_offset(ref);
	const struct petal_ref none = { 0 };
	void *pointer = &f;

	assert_outcome(resolve(f, none, 1), -EINVAL);
	assert_outcome(
		resolve(f, petal_ref_make(SEGMENT + 1, generation, offset), 1),
		-ENXIO);
	assert_outcome(
		resolve(f, petal_ref_make(SEGMENT, generation, RANGE_BYTES), 1),
		-ERANGE);
	assert_outcome(resolve(f,
			       petal_ref_make(SEGMENT, generation,
					      PETAL_REF_RANGE_BYTES_MAX - 64),
			       1),
		       -ERANGE);
	assert_outcome(
		resolve(f, petal_ref_make(SEGMENT, generation, offset + 64), 1),
		-EINVAL);
	assert_outcome(
		resolve(f, petal_ref_make(SEGMENT, generation - 1, offset), 1),
		-ESTALE);
	assert_outcome(
		resolve(f,
			petal_ref_make(SEGMENT, generation, offset + GRANULE),
			1),
		-ESTALE);
	assert_outcome(resolve(f, ref, 2 * GRANULE + 1), -ERANGE);
	assert_outcome(resolve(f, ref, UINT64_MAX), -ERANGE);
	assert_outcome(petal_ref_resolve(&f->table, none, 1, &pointer),
		       -EINVAL);
	assert_ptr_equal(pointer, &f);
}

static void resolve__an_old_generation_is_refused_across_the_wrap(void **state)
{
	struct fixture *f = *state;
	struct petal_ref old = lend(f, 0, 0, 1), ref;

	for (int i = 0; i < 5; i++) {
		assert_ok(petal_ledger_drop(&f->ledger, old));
		assert_true(petal_ledger_is_home(&f->ledger, 0));
		assert_outcome(resolve(f, old, 1), -EACCES);
		petal_ledger_retire(&f->ledger, 0);
		assert_outcome(resolve(f, old, 1), -ESTALE);
		ref = lend(f, (uint32_t)i + 1, 0, 1);
		assert_int_not_equal(petal_ref_generation(ref), 0);
		assert_outcome(resolve(f, old, 1), -ESTALE);
		assert_ok(resolve(f, ref, 1));
		old = ref;
		assert_ok(petal_ledger_drop(&f->ledger, ref));
		petal_ledger_retire(&f->ledger, (uint32_t)i + 1);
		old = lend(f, 0, 0, 1);
	}
}

static void resolve__not_for_who_does_not_hold_it(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 1, 0, 1);
	struct petal_ref_table table = { 0 };
	struct petal_ledger other;
	void *pointer;

	assert_ok(petal_ledger_attach(f->memory, UINT64_C(1) << 20, 1, &other));
	assert_ok(petal_ref_table_add(&table, f->range, RANGE_BYTES, &other));
	assert_outcome(petal_ref_resolve(&table, ref, 1, &pointer), -EACCES);
	assert_ok(petal_ledger_share(&f->ledger, ref, UINT64_C(1) << 1));
	assert_ok(petal_ref_resolve(&table, ref, 1, &pointer));
}

static void table__a_segment_grows_and_goes(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = lend(f, 1, 32 * GRANULE, 1);

	assert_outcome(petal_ref_table_add(&f->table, f->range, RANGE_BYTES,
					   &f->ledger),
		       -EEXIST);
	petal_ref_table_remove(&f->table, SEGMENT);
	assert_outcome(resolve(f, ref, 1), -ENXIO);
	assert_outcome(petal_ref_table_add(&f->table, f->range + 1, RANGE_BYTES,
					   &f->ledger),
		       -EINVAL);
	assert_ok(petal_ref_table_add(&f->table, f->range, 16 * GRANULE,
				      &f->ledger));
	assert_outcome(resolve(f, ref, 1), -ERANGE);
	assert_outcome(petal_ref_table_grow(&f->table, SEGMENT, GRANULE),
		       -EINVAL);
	assert_outcome(petal_ref_table_grow(&f->table, 300, GRANULE), -ENXIO);
	assert_ok(petal_ref_table_grow(&f->table, SEGMENT, RANGE_BYTES));
	assert_ok(resolve(f, ref, 1));
}

static void resolve__random_refs_never_lead_outside(void **state)
{
	struct fixture *f = *state;
	uint64_t rounds = petal_test_rounds(1000000), random = 1;

	for (uint32_t i = 0; i < 8; i++)
		lend(f, i, 2 * i * GRANULE, 1 + i * 200);
	for (uint64_t i = 0; i < rounds; i++) {
		struct petal_ref ref = { petal_test_random(&random) };
		uint64_t bytes =
			petal_test_random(&random) % (UINT64_C(1) << i % 64);
		void *pointer;

		/* Most would be refused for the segment or the range alone. */
		if (i % 2)
			ref = petal_ref_make(
				SEGMENT, 1 + (uint32_t)(ref.bits % 8),
				ref.bits % (2 * RANGE_BYTES) & ~UINT64_C(63));
		if (petal_ref_resolve(&f->table, ref, bytes, &pointer) == 0)
			assert_true(petal_ref_offset(ref) + bytes <=
				    RANGE_BYTES);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(make__every_part_comes_out_as_it_went_in),
		cmocka_unit_test_setup_teardown(
			resolve__a_held_buffer_is_where_it_was_lent, make,
			unmake),
		cmocka_unit_test_setup_teardown(
			resolve__each_wrong_ref_has_its_own_error, make,
			unmake),
		cmocka_unit_test_setup_teardown(
			resolve__an_old_generation_is_refused_across_the_wrap,
			make, unmake),
		cmocka_unit_test_setup_teardown(
			resolve__not_for_who_does_not_hold_it, make, unmake),
		cmocka_unit_test_setup_teardown(table__a_segment_grows_and_goes,
						make, unmake),
		cmocka_unit_test_setup_teardown(
			resolve__random_refs_never_lead_outside, make, unmake),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
