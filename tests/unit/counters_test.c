/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/counters.h: what is counted is what is read, in another process
 * too; and a reader of hostile bytes gets an error or a number, never more.
 * PETAL_TEST_HARDER=100 tries two million damaged tables. Worth running under
 * ASan, for the tables end at the end of their allocation, and under TSan.
 */
#include "tests/check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "shm/counters.h"
#include "shm/segment.h"

enum { SENT, REFUSED, DEPTH, COUNTERS };

static const char *const names[COUNTERS] = {
	[SENT] = "sent",
	[REFUSED] = "refused.no-space",
	[DEPTH] = "depth_max",
};

struct fixture {
	unsigned char *memory;
	uint64_t bytes;
	struct petal_counters counters;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->bytes = petal_counters_bytes(COUNTERS);
	f->memory = aligned_alloc(64, f->bytes);
	assert_non_null(f->memory);
	memset(f->memory, 0xa5, f->bytes);
	assert_ok(petal_counters_format(f->memory, f->bytes, "wire", names,
					COUNTERS, &f->counters));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	free(f->memory);
	free(f);
	return 0;
}

static void counters__what_is_counted_is_what_is_read(void **state)
{
	struct fixture *f = *state;
	struct petal_counters_view view;
	struct petal_counters_entry entry;
	char title[PETAL_COUNTERS_NAME_BYTES];

	petal_counters_add(&f->counters, SENT, 1);
	petal_counters_add(&f->counters, SENT, 41);
	petal_counters_set(&f->counters, DEPTH, 7);
	assert_int_equal(petal_counters_value(&f->counters, SENT), 42);

	assert_ok(petal_counters_attach(f->memory, f->bytes, &view));
	assert_ok(petal_counters_title(&view, title));
	assert_string_equal(title, "wire");
	assert_int_equal(view.count, COUNTERS);
	assert_ok(petal_counters_read(&view, SENT, &entry));
	assert_string_equal(entry.name, "sent");
	assert_int_equal(entry.value, 42);
	assert_ok(petal_counters_read(&view, REFUSED, &entry));
	assert_string_equal(entry.name, "refused.no-space");
	assert_int_equal(entry.value, 0);
	assert_ok(petal_counters_read(&view, DEPTH, &entry));
	assert_int_equal(entry.value, 7);
	assert_outcome(petal_counters_read(&view, COUNTERS, &entry), -ENOENT);
}

static void counters__wrap_like_any_number(void **state)
{
	struct fixture *f = *state;

	petal_counters_set(&f->counters, SENT, UINT64_MAX);
	petal_counters_add(&f->counters, SENT, 2);
	assert_int_equal(petal_counters_value(&f->counters, SENT), 1);
}

static void format__refuses_what_it_could_not_read_back(void **state)
{
	static const char *const bad[] = {
		"",
		NULL,
		"Upper",
		"space d",
		"uml\xc3\xa4ut",
		"new\nline",
		"thirty-two-bytes-are-one-too-many",
	};
	struct fixture *f = *state;
	struct petal_counters c = { 0 };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_outcome(petal_counters_format(f->memory, f->bytes,
						     bad[i], names, COUNTERS,
						     &c),
			       -EINVAL);
		assert_outcome(petal_counters_format(f->memory, f->bytes,
						     "wire", &bad[i], 1, &c),
			       -EINVAL);
	}
	assert_null(c.values);
}

static void format__refuses_memory_that_does_not_do(void **state)
{
	struct fixture *f = *state;
	struct petal_counters c;

	assert_outcome(petal_counters_format(f->memory, f->bytes - 1, "wire",
					     names, COUNTERS, &c),
		       -ENOSPC);
	assert_outcome(petal_counters_format(f->memory + 8, f->bytes, "wire",
					     names, COUNTERS, &c),
		       -EINVAL);
	assert_outcome(petal_counters_format(NULL, f->bytes, "wire", names,
					     COUNTERS, &c),
		       -EINVAL);
	assert_outcome(petal_counters_format(f->memory, f->bytes, "wire", names,
					     0, &c),
		       -EINVAL);
	assert_outcome(petal_counters_format(f->memory, UINT64_MAX, "wire",
					     names, PETAL_COUNTERS_MAX + 1, &c),
		       -EINVAL);
}

static void attach__names_each_thing_that_is_wrong(void **state)
{
	struct fixture *f = *state;
	struct petal_counters_header *header = (void *)f->memory;
	struct petal_counters_view view;

	assert_outcome(petal_counters_attach(f->memory, 63, &view), -EINVAL);
	assert_outcome(petal_counters_attach(f->memory + 8, f->bytes, &view),
		       -EINVAL);
	assert_outcome(petal_counters_attach(f->memory, f->bytes - 1, &view),
		       -PETAL_EGEOMETRY);
	header->count = PETAL_COUNTERS_MAX + 1;
	assert_outcome(petal_counters_attach(f->memory, UINT64_MAX, &view),
		       -PETAL_EGEOMETRY);
	header->count = UINT32_MAX;
	assert_outcome(petal_counters_attach(f->memory, f->bytes, &view),
		       -PETAL_EGEOMETRY);
	header->count = 0;
	assert_outcome(petal_counters_attach(f->memory, f->bytes, &view),
		       -PETAL_EGEOMETRY);
	header->layout = PETAL_COUNTERS_LAYOUT + 1;
	assert_outcome(petal_counters_attach(f->memory, f->bytes, &view),
		       -PETAL_EVERSION);
	header->magic.bits ^= 1;
	assert_outcome(petal_counters_attach(f->memory, f->bytes, &view),
		       -EINVAL);
}

static void read__refuses_a_name_that_could_do_harm(void **state)
{
	struct fixture *f = *state;
	char *name = (char *)f->memory + sizeof(struct petal_counters_header);
	struct petal_counters_view view;
	struct petal_counters_entry entry;

	assert_ok(petal_counters_attach(f->memory, f->bytes, &view));
	memset(name, 'a', PETAL_COUNTERS_NAME_BYTES);
	assert_outcome(petal_counters_read(&view, 0, &entry), -PETAL_ECORRUPT);
	memset(name, 0, PETAL_COUNTERS_NAME_BYTES);
	assert_outcome(petal_counters_read(&view, 0, &entry), -PETAL_ECORRUPT);
	memcpy(name, "\033[2J", 4);
	assert_outcome(petal_counters_read(&view, 0, &entry), -PETAL_ECORRUPT);
	memcpy(name, "abc\0d", 5);
	assert_outcome(petal_counters_read(&view, 0, &entry), -PETAL_ECORRUPT);
	/* The others are not held responsible. */
	assert_ok(petal_counters_read(&view, REFUSED, &entry));
}

static void view__keeps_the_count_that_it_checked(void **state)
{
	struct fixture *f = *state;
	struct petal_counters_header *header = (void *)f->memory;
	struct petal_counters_view view;
	struct petal_counters_entry entry;

	petal_counters_set(&f->counters, DEPTH, 5);
	assert_ok(petal_counters_attach(f->memory, f->bytes, &view));
	header->count = UINT32_MAX;
	assert_outcome(petal_counters_read(&view, COUNTERS, &entry), -ENOENT);
	assert_ok(petal_counters_read(&view, DEPTH, &entry));
	assert_int_equal(entry.value, 5);
}

static void walk(const unsigned char *memory, uint64_t bytes)
{
	struct petal_counters_view view;
	struct petal_counters_entry entry;
	char title[PETAL_COUNTERS_NAME_BYTES];
	int outcome;

	if (petal_counters_attach(memory, bytes, &view))
		return;
	if (petal_counters_title(&view, title) == 0)
		assert_true(strlen(title) < sizeof(title));
	for (uint32_t i = 0; i < view.count; i++) {
		outcome = petal_counters_read(&view, i, &entry);
		assert_true(outcome == 0 || outcome == -PETAL_ECORRUPT);
		if (outcome == 0)
			assert_true(strlen(entry.name) < sizeof(entry.name));
	}
}

static void walk__through_damaged_bytes_stays_inside(void **state)
{
	struct fixture *f = *state;
	unsigned char *copy = aligned_alloc(64, f->bytes);
	uint64_t seed = 7;

	assert_non_null(copy);
	for (uint64_t i = petal_test_rounds(20000); i > 0; i--) {
		unsigned flips = 1 + petal_test_random(&seed) % 8;

		memcpy(copy, f->memory, f->bytes);
		while (flips--) {
			uint64_t r = petal_test_random(&seed);

			copy[r % f->bytes] = (unsigned char)(r >> 56);
		}
		walk(copy, f->bytes);
	}
	free(copy);
}

static void segment__is_read_by_another_process_that_may_not_write(void **state)
{
	const struct petal_segment_options options = {
		.name = "counters-test",
		.body_bytes = petal_counters_bytes(COUNTERS),
		.write_sealed = true,
	};
	struct petal_segment segment;
	struct petal_counters counters;
	int status;
	pid_t child;

	(void)state;
	assert_ok(petal_segment_open(&options, &segment));
	assert_ok(petal_counters_format(petal_segment_body(&segment),
					petal_segment_body_bytes(&segment),
					"wire", names, COUNTERS, &counters));
	petal_counters_add(&counters, REFUSED, 3);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct petal_segment theirs;
		struct petal_counters_view view;
		struct petal_counters_entry entry;

		if (petal_segment_attach(segment.fd, false, &theirs) ||
		    petal_counters_attach(petal_segment_body(&theirs),
					  petal_segment_body_bytes(&theirs),
					  &view) ||
		    petal_counters_read(&view, REFUSED, &entry))
			_exit(1);
		_exit(entry.value == 3 ? 0 : 2);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	petal_segment_close(&segment);
}

struct watcher {
	const unsigned char *memory;
	uint64_t bytes;
	uint64_t last;
	_Atomic(bool) saw_growth;
	bool went_back;
};

static void *watch(void *argument)
{
	struct watcher *w = argument;
	struct petal_counters_view view;
	struct petal_counters_entry entry = { .value = 0 };

	/* Attach while the writer may still be formatting. */
	while (petal_counters_attach(w->memory, w->bytes, &view))
		;
	while (entry.value < 1000) {
		if (petal_counters_read(&view, SENT, &entry))
			break;
		w->went_back |= entry.value < w->last;
		w->last = entry.value;
	}
	atomic_store(&w->saw_growth, true);
	return NULL;
}

static void reader__sees_names_whole_and_values_grow(void **state)
{
	uint64_t bytes = petal_counters_bytes(COUNTERS);
	unsigned char *memory = aligned_alloc(64, bytes);
	struct watcher w = { .memory = memory, .bytes = bytes };
	struct petal_counters counters;
	pthread_t thread;

	(void)state;
	assert_non_null(memory);
	memset(memory, 0, bytes);
	assert_int_equal(pthread_create(&thread, NULL, watch, &w), 0);
	assert_ok(petal_counters_format(memory, bytes, "wire", names, COUNTERS,
					&counters));
	while (!atomic_load(&w.saw_growth))
		petal_counters_add(&counters, SENT, 1);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_false(w.went_back);
	assert_true(w.last >= 1000);
	free(memory);
}

int main(void)
{
#define IN_FIXTURE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		IN_FIXTURE(counters__what_is_counted_is_what_is_read),
		IN_FIXTURE(counters__wrap_like_any_number),
		IN_FIXTURE(format__refuses_what_it_could_not_read_back),
		IN_FIXTURE(format__refuses_memory_that_does_not_do),
		IN_FIXTURE(attach__names_each_thing_that_is_wrong),
		IN_FIXTURE(read__refuses_a_name_that_could_do_harm),
		IN_FIXTURE(view__keeps_the_count_that_it_checked),
		IN_FIXTURE(walk__through_damaged_bytes_stays_inside),
		cmocka_unit_test(
			segment__is_read_by_another_process_that_may_not_write),
		cmocka_unit_test(reader__sees_names_whole_and_values_grow),
	};

	return cmocka_run_group_tests_name("counters", tests, NULL, NULL);
}
