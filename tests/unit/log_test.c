/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fabric/log.h promises: the shapes that can be made, the same view by
 * another mapping, and refusal of a segment that says something else about
 * itself than its parts do.
 */
#include "tests/check.h"

#include "fabric/log.h"
#include "shm/clock.h"

static struct petal_log_geometry good_geometry(void)
{
	return (struct petal_log_geometry){
		.ring = 7,
		.data_bytes = PETAL_LOG_DATA_BYTES_MIN,
		.epoch = 3,
		.queue_count = 2,
		.queues = {
			{ .name = "work", .id = 1, .slot_count = 64,
			  .lease_ns = PETAL_S(2) },
			{ .name = "done", .id = 2, .slot_count = 2,
			  .lease_ns = PETAL_S(1) },
		},
	};
}

static int setup(void **state)
{
	struct petal_log_geometry geometry = good_geometry();
	struct petal_log *log = malloc(sizeof(*log));

	assert_ok(petal_log_open(&geometry, log));
	*state = log;
	return 0;
}

static int teardown(void **state)
{
	petal_log_close(*state);
	free(*state);
	return 0;
}

/* Where a field of the geometry page lies, as the segment's readers see it. */
static void lie(struct petal_log *log, size_t offset, uint32_t value)
{
	uint8_t *body = petal_segment_body(&log->segment);

	memcpy(body + offset, &value, sizeof(value));
}

static int attach(struct petal_log *log, uint32_t owner)
{
	struct petal_log view;
	int err = petal_log_attach(log->segment.fd, owner, &view);

	if (err == 0)
		petal_log_close(&view);
	return err;
}

static void layout__is_what_other_builds_expect(void **state)
{
	(void)state;
	assert_int_equal(offsetof(struct petal_log_marks, level_pos), 64);
	assert_int_equal(offsetof(struct petal_log_marks, bell), 128);
	assert_int_equal(offsetof(struct petal_log_marks, node_bell), 192);
	assert_int_equal(offsetof(struct petal_log_ack, disk_pos), 8);
	assert_int_equal(offsetof(struct petal_log_ack, trim_pos), 16);
	assert_int_equal(offsetof(struct petal_log_orders, visible_pos), 8);
	assert_int_equal(offsetof(struct petal_log_owner, wait), 64);
	assert_int_equal(offsetof(struct petal_log_owner, bell), 72);
	assert_int_equal(offsetof(struct petal_log_owner, outcomes), 128);
	assert_int_equal(sizeof(struct petal_log_owner),
			 128 + 8 * PETAL_LOG_WINDOW);
}

static void wait__is_over_when_its_level_is_there(void **state)
{
	static struct petal_log_marks marks;
	static const uint64_t places[] = { 64, UINT64_C(1) << 32,
					   (UINT64_C(1) << 63) + 640 };

	(void)state;
	assert_true(petal_log_waited(&marks, 0));
	/* No level has such a number: whoever writes nonsense is not rung for. */
	assert_false(petal_log_waited(&marks, PETAL_LEVEL_COUNT));
	assert_false(petal_log_waited(&marks, UINT64_MAX));
	for (unsigned i = 0; i < 3; i++) {
		for (enum petal_level level = 0; level < PETAL_LEVEL_COUNT;
		     level++) {
			uint64_t wait = petal_log_wait(places[i], level);

			memset((void *)marks.level_pos, 0xff,
			       sizeof(marks.level_pos));
			atomic_store(&marks.level_pos[level], places[i] - 64);
			assert_false(petal_log_waited(&marks, wait));
			atomic_store(&marks.level_pos[level], places[i]);
			assert_true(petal_log_waited(&marks, wait));
			/* Rather too early. */
			wait = petal_log_wait(places[i] + 63, level);
			assert_true(petal_log_waited(&marks, wait));
		}
	}
}

static void geometry__table_of_shapes(void **state)
{
	static const struct {
		uint64_t ring, data_bytes;
		uint32_t epoch, queue_count, slots, id;
		uint64_t lease_ns;
		int expected;
	} rows[] = {
		{ 1, 1u << 16, 1, 1, 2, 1, 1, 0 },
		{ 1, UINT64_C(1) << 36, 1, 1, 1u << 20, 1, 1, 0 },
		{ 1, 1u << 16, 1, 0, 0, 0, 0, 0 },
		{ 0, 1u << 16, 1, 1, 2, 1, 1, -EINVAL },
		{ 1, 1u << 16, 0, 1, 2, 1, 1, -EINVAL },
		{ 1, 0, 1, 1, 2, 1, 1, -EINVAL },
		{ 1, 1u << 15, 1, 1, 2, 1, 1, -EINVAL },
		{ 1, (1u << 16) + 4096, 1, 1, 2, 1, 1, -EINVAL },
		{ 1, UINT64_C(1) << 37, 1, 1, 2, 1, 1, -EINVAL },
		{ 1, 1u << 16, 1, 9, 2, 1, 1, -EINVAL },
		{ 1, 1u << 16, 1, 1, 1, 1, 1, -EINVAL },
		{ 1, 1u << 16, 1, 1, 6, 1, 1, -EINVAL },
		{ 1, 1u << 16, 1, 1, 1u << 21, 1, 1, -EINVAL },
		{ 1, 1u << 16, 1, 1, 2, 2, 1, -EINVAL },
		{ 1, 1u << 16, 1, 1, 2, 1, 0, -EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct petal_log_geometry geometry = {
			.ring = rows[i].ring,
			.data_bytes = rows[i].data_bytes,
			.epoch = rows[i].epoch,
			.queue_count = rows[i].queue_count,
			.queues = { { .name = "q",
				      .id = rows[i].id,
				      .slot_count = rows[i].slots,
				      .lease_ns = rows[i].lease_ns } },
		};

		if (petal_log_geometry_check(&geometry) != rows[i].expected)
			fail_msg("row %zu", i);
	}
}

static void open__queue_without_a_name_is_refused(void **state)
{
	struct petal_log_geometry geometry = good_geometry();
	struct petal_log log;

	(void)state;
	geometry.queues[1].name[0] = '\0';
	assert_outcome(petal_log_open(&geometry, &log), -EINVAL);
}

static void attach__sees_the_same_log(void **state)
{
	struct petal_log *log = *state, view;
	struct petal_mpsc_claim claim = { 0 };
	struct petal_mpsc_view seen;

	assert_ok(petal_log_attach(log->segment.fd, 5, &view));
	assert_int_equal(view.geometry.ring, 7);
	assert_int_equal(view.geometry.epoch, 3);
	assert_int_equal(view.geometry.data_bytes, PETAL_LOG_DATA_BYTES_MIN);
	assert_int_equal(view.geometry.queue_count, 2);
	assert_string_equal(view.geometry.queues[0].name, "work");
	assert_int_equal(view.geometry.queues[1].lease_ns, PETAL_S(1));
	assert_ok(petal_mpsc_claim(&view.ring, 100, &claim));
	claim.record->type = 9;
	assert_ok(petal_mpsc_publish(&view.ring, &claim));
	assert_ok(petal_mpsc_peek(&log->ring, 0, &seen));
	assert_int_equal(seen.type, 9);
	assert_int_equal(seen.owner, 5);
	atomic_store(&view.marks->level_pos[PETAL_LEVEL_MEM2], 77);
	assert_int_equal(atomic_load(&log->marks->level_pos[PETAL_LEVEL_MEM2]),
			 77);
	petal_log_close(&view);
}

static void attach__data_begins_on_a_page_of_its_own(void **state)
{
	struct petal_log *log = *state;
	uint8_t *body = petal_segment_body(&log->segment);
	uint64_t bytes = petal_segment_body_bytes(&log->segment);

	assert_int_equal((uintptr_t)log->data % 4096, 0);
	assert_true(log->data + log->geometry.data_bytes <= body + bytes);
	assert_int_equal((uintptr_t)log->acks % 4096, 0);
	/* The lines that travel one-sided are two pages that follow. */
	assert_ptr_equal((uint8_t *)log->acks + 4096, log->orders);
}

static void attach__number_out_of_range_is_refused(void **state)
{
	assert_outcome(attach(*state, PETAL_LOG_OWNERS), -EINVAL);
	assert_outcome(attach(*state, UINT32_MAX), -EINVAL);
	assert_ok(attach(*state, PETAL_LOG_OWNERS - 1));
}

static void attach__geometry_that_lies_is_refused(void **state)
{
	static const struct {
		size_t offset;
		uint32_t value;
		int expected;
	} lies[] = {
		{ 0, 1, -EINVAL },
		{ 8, 99, -PETAL_EVERSION },
		{ 12, 9, -PETAL_EGEOMETRY },
		{ 16, 0, -PETAL_EGEOMETRY },
		{ 24, 0, -PETAL_EGEOMETRY },
		{ 24, 1u << 17, -PETAL_EGEOMETRY }, /* beyond the segment */
		{ 24, (1u << 16) + 64, -PETAL_EGEOMETRY },
		{ 28, 1u << 31, -PETAL_EGEOMETRY },
		{ 32, 0, -PETAL_EGEOMETRY },
		{ 40, 0, -PETAL_EGEOMETRY },
		{ 40, 3, -PETAL_EGEOMETRY },
		{ 40, 1u << 20, -PETAL_EGEOMETRY },
		{ 40, UINT32_MAX, -PETAL_EGEOMETRY },
	};
	struct petal_log *log;
	void *fresh;
	int err;

	(void)state;
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		setup(&fresh);
		log = fresh;
		lie(log, lies[i].offset, lies[i].value);
		err = attach(log, 1);
		if (err != lies[i].expected)
			fail_msg("lie %zu: %d", i, err);
		teardown(&fresh);
	}
}

/* The parts have headers of their own, which must agree with the whole. */
static void attach__parts_of_another_shape_are_refused(void **state)
{
	struct petal_log *log = *state;
	uint32_t slots = 32;
	uint64_t half = PETAL_LOG_DATA_BYTES_MIN / 2;
	uint8_t *queue = (uint8_t *)log->queues[0].shared;
	uint8_t *ring = (uint8_t *)log->ring.shared;

	memcpy(queue + 16, &slots, sizeof(slots));
	assert_outcome(attach(log, 1), -PETAL_EGEOMETRY);
	slots = 64;
	memcpy(queue + 16, &slots, sizeof(slots));
	assert_ok(attach(log, 1));
	memcpy(ring + 16, &half, sizeof(half));
	assert_outcome(attach(log, 1), -PETAL_EGEOMETRY);
}

static void attach__random_geometry_never_maps_outside(void **state)
{
	struct petal_log *log = *state, view;
	uint8_t *body = petal_segment_body(&log->segment);
	uint8_t saved[72];
	uint64_t random = 11;

	memcpy(saved, body, sizeof(saved));
	for (unsigned n = 0; n < 5000; n++) {
		uint64_t dice = petal_test_random(&random);

		memcpy(body, saved, sizeof(saved));
		for (unsigned i = 0; i < 1 + dice % 3; i++) {
			dice = petal_test_random(&random);
			body[8 + dice % 64] ^= (uint8_t)(1u << (dice >> 61));
		}
		if (petal_log_attach(log->segment.fd, 1, &view) != 0)
			continue;
		assert_true(view.data + view.geometry.data_bytes <=
			    (uint8_t *)petal_segment_body(&view.segment) +
				    petal_segment_body_bytes(&view.segment));
		petal_log_close(&view);
	}
	memcpy(body, saved, sizeof(saved));
}

static void line__words_of_two_times_are_none(void **state)
{
	const struct petal_log_line zero = { { 0, 0, 0 } };
	struct petal_log_line first, second, got = { { 7, 7, 7 } };
	alignas(64) uint8_t from[2][64] = { 0 };
	alignas(64) uint8_t mixed[64] = { 0 };
	uint64_t random = 1;

	(void)state;
	/* What nobody has written says nothing; what says zero, zero. */
	assert_false(petal_log_line_read(mixed, &got));
	assert_int_equal(got.words[0], 7);
	petal_log_line_write(mixed, &zero);
	assert_true(petal_log_line_read(mixed, &got));
	assert_memory_equal(&got, &zero, sizeof(got));
	for (unsigned n = 0; n < 2000; n++) {
		for (unsigned i = 0; i < 3; i++) {
			first.words[i] = petal_test_random(&random) >> 40;
			second.words[i] = first.words[i] +
					  petal_test_random(&random) % 1000;
		}
		petal_log_line_write(from[0], &first);
		petal_log_line_write(from[1], &second);
		for (unsigned cut = 0; cut <= 64; cut++) {
			memcpy(mixed, from[n % 2], cut);
			memcpy(mixed + cut, from[1 - n % 2] + cut, 64 - cut);
			if (!petal_log_line_read(mixed, &got))
				continue;
			assert_true(memcmp(&got, &first, sizeof(got)) == 0 ||
				    memcmp(&got, &second, sizeof(got)) == 0);
		}
	}
}

static void run__ends_at_the_wrap_and_at_the_end(void **state)
{
	struct petal_log *log = *state;
	uint64_t data = PETAL_LOG_DATA_BYTES_MIN;

	assert_int_equal(petal_log_run(log, 0, 64), 64);
	assert_int_equal(petal_log_run(log, data - 64, data + 64), 64);
	assert_int_equal(petal_log_run(log, 5 * data, 6 * data), data);
	assert_int_equal(petal_log_run(log, 64, 64), 0);
	assert_ptr_equal(petal_log_at(log, 5 * data + 64), log->data + 64);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layout__is_what_other_builds_expect),
		cmocka_unit_test(wait__is_over_when_its_level_is_there),
		cmocka_unit_test(geometry__table_of_shapes),
		cmocka_unit_test(open__queue_without_a_name_is_refused),
		TEST(attach__sees_the_same_log),
		TEST(attach__data_begins_on_a_page_of_its_own),
		TEST(attach__number_out_of_range_is_refused),
		cmocka_unit_test(attach__geometry_that_lies_is_refused),
		TEST(attach__parts_of_another_shape_are_refused),
		TEST(attach__random_geometry_never_maps_outside),
		cmocka_unit_test(line__words_of_two_times_are_none),
		TEST(run__ends_at_the_wrap_and_at_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
