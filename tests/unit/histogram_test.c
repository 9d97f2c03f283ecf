/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/histogram.h: every sample counted, quantiles within 1 % of the
 * sample that they name, the extremes exact; and that a shared one, and
 * counters beside it, are read by a process that may not write, while their owner is
 * stopped and after he was killed.
 *
 * To run it harder: histogram_test SAMPLES, where 20000 is the default; the
 * check against sorted samples takes that many of each shape.
 */
#include "tests/check.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "shm/counters.h"
#include "shm/histogram.h"
#include "shm/segment.h"

static size_t sample_count = 20000;

/* xorshift64*: the same numbers in every run. */
static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed >> 12;
	*seed ^= *seed << 25;
	*seed ^= *seed >> 27;
	return *seed * UINT64_C(0x2545f4914f6cdd1d);
}

static int setup(void **state)
{
	struct petal_histogram *h = malloc(sizeof(*h));

	if (!h)
		return -1;
	petal_histogram_init(h);
	*state = h;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static uint64_t sum_of_buckets(const struct petal_histogram *h)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < PETAL_HISTOGRAM_BUCKETS; i++)
		sum += h->bucket[i];
	return sum;
}

/* At most 1 % from the truth, and exact where a percent is less than one. */
static void assert_near(uint64_t got, uint64_t want)
{
	uint64_t error = got > want ? got - want : want - got;

	if (error > want / 100)
		fail_msg("%llu is not within 1 %% of %llu",
			 (unsigned long long)got, (unsigned long long)want);
}

static void quantile__no_samples_is_zero(void **state)
{
	struct petal_histogram *h = *state;

	assert_int_equal(petal_histogram_quantile(h, PETAL_HISTOGRAM_P50), 0);
	assert_int_equal(petal_histogram_quantile(h, PETAL_HISTOGRAM_MAX), 0);
}

static void quantile__one_sample_is_every_quantile(void **state)
{
	struct petal_histogram *h = *state;

	petal_histogram_record(h, 123456789);
	assert_int_equal(petal_histogram_quantile(h, 0), 123456789);
	assert_int_equal(petal_histogram_quantile(h, PETAL_HISTOGRAM_P50),
			 123456789);
	assert_int_equal(petal_histogram_quantile(h, PETAL_HISTOGRAM_MAX),
			 123456789);
}

static void quantile__ranks_are_nearest_rank(void **state)
{
	struct petal_histogram *h = *state;

	for (uint64_t i = 1; i <= 100; i++)
		petal_histogram_record(h, i);
	assert_int_equal(petal_histogram_quantile(h, 0), 1);
	assert_int_equal(petal_histogram_quantile(h, 10000), 1);
	assert_int_equal(petal_histogram_quantile(h, 10001), 2);
	assert_int_equal(petal_histogram_quantile(h, PETAL_HISTOGRAM_P50), 50);
	assert_int_equal(petal_histogram_quantile(h, PETAL_HISTOGRAM_P99), 99);
	assert_int_equal(petal_histogram_quantile(h, PETAL_HISTOGRAM_P999),
			 100);
	assert_int_equal(petal_histogram_quantile(h, UINT32_MAX), 100);
}

static void quantile__small_values_are_exact(void **state)
{
	struct petal_histogram *h = *state;

	for (uint64_t i = 0; i < 256; i++)
		petal_histogram_record(h, i);
	for (uint32_t i = 0; i < 256; i++) {
		/* The quantile whose rank is i + 1 of 256. */
		uint32_t ppm = (i + 1) * 1000000U / 256;

		assert_int_equal(petal_histogram_quantile(h, ppm), i);
	}
}

/* Just below, at and above each power of two is where an index goes wrong. */
static void quantile__edges_of_powers_are_within_one_percent(void **state)
{
	struct petal_histogram *h = *state;

	for (unsigned bit = 1; bit < 64; bit++) {
		for (uint64_t i = 0; i < 3; i++) {
			uint64_t value = (UINT64_C(1) << bit) - 1 + i;

			petal_histogram_init(h);
			/* Between two others, so that its bucket answers. */
			petal_histogram_record(h, 0);
			petal_histogram_record(h, value);
			petal_histogram_record(h, UINT64_MAX);
			assert_near(petal_histogram_quantile(
					    h, PETAL_HISTOGRAM_P50),
				    value);
		}
	}
}

static void record__larger_value_never_lands_in_a_smaller_bucket(void **state)
{
	struct petal_histogram *h = *state;
	unsigned at = 0;

	for (uint64_t value = 0; value < 100000; value++) {
		petal_histogram_init(h);
		petal_histogram_record(h, value);
		/* It may stay or move on by one; a gap would be a wrong map. */
		if (h->bucket[at] == 0)
			at++;
		assert_int_equal(h->bucket[at], 1);
	}
}

static void record__extremes_are_counted_and_exact(void **state)
{
	struct petal_histogram *h = *state;

	petal_histogram_record(h, 0);
	petal_histogram_record(h, UINT64_MAX);
	assert_int_equal(h->count, 2);
	assert_int_equal(h->min, 0);
	assert_true(h->max == UINT64_MAX);
	assert_int_equal(h->bucket[0], 1);
	assert_int_equal(h->bucket[PETAL_HISTOGRAM_BUCKETS - 1], 1);
}

static void record__no_sample_is_dropped(void **state)
{
	struct petal_histogram *h = *state;
	uint64_t seed = 1;

	for (size_t i = 0; i < sample_count; i++)
		petal_histogram_record(h, next_random(&seed) >> (i % 64));
	assert_int_equal(h->count, sample_count);
	assert_int_equal(sum_of_buckets(h), sample_count);
}

static int compare_values(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void check_against_sorted(struct petal_histogram *h, uint64_t *values)
{
	static const uint32_t ppms[] = {
		1,      10000,  250000, 500000, 750000,
		900000, 990000, 999000, 999900, 1000000
	};

	qsort(values, sample_count, sizeof(*values), compare_values);
	for (size_t i = 0; i < sizeof(ppms) / sizeof(*ppms); i++) {
		uint64_t rank = (sample_count * ppms[i] + 999999) / 1000000;

		assert_near(petal_histogram_quantile(h, ppms[i]),
			    values[rank - 1]);
	}
	assert_int_equal(h->min, values[0]);
	assert_int_equal(h->max, values[sample_count - 1]);
}

static void quantile__agrees_with_sorted_samples(void **state)
{
	struct petal_histogram *h = *state;
	uint64_t *values = malloc(sample_count * sizeof(*values));

	assert_non_null(values);
	/* From latencies that all fit 8 bits to ones that need all 64. */
	for (unsigned bits = 8; bits <= 64; bits += 8) {
		uint64_t seed = bits;

		petal_histogram_init(h);
		for (size_t i = 0; i < sample_count; i++) {
			unsigned shift = (unsigned)(next_random(&seed) % bits);

			values[i] = next_random(&seed) >> (64 - bits) >> shift;
			petal_histogram_record(h, values[i]);
		}
		check_against_sorted(h, values);
	}
	free(values);
}

static void merge__equals_recording_everything_in_one(void **state)
{
	struct petal_histogram *all = *state;
	struct petal_histogram *parts = malloc(2 * sizeof(*parts));
	uint64_t seed = 7;

	assert_non_null(parts);
	petal_histogram_init(&parts[0]);
	petal_histogram_init(&parts[1]);
	for (size_t i = 0; i < sample_count; i++) {
		uint64_t value = next_random(&seed) >> (i % 50);

		petal_histogram_record(all, value);
		petal_histogram_record(&parts[i % 2], value);
	}
	petal_histogram_merge(&parts[0], &parts[1]);
	assert_memory_equal(&parts[0], all, sizeof(*all));
	free(parts);
}

static void merge__empty_changes_nothing(void **state)
{
	struct petal_histogram *h = *state;
	struct petal_histogram *empty = malloc(sizeof(*empty));

	assert_non_null(empty);
	petal_histogram_init(empty);
	petal_histogram_record(h, 5);
	petal_histogram_merge(h, empty);
	assert_int_equal(h->count, 1);
	assert_int_equal(h->min, 5);
	assert_int_equal(h->max, 5);
	free(empty);
}

/* count * ppm must not leave 64 bits after a very long run. */
static void quantile__huge_counts_do_not_overflow(void **state)
{
	struct petal_histogram *h = *state;

	petal_histogram_record(h, 10);
	petal_histogram_record(h, 20);
	h->bucket[10] = UINT64_C(1) << 62;
	h->bucket[20] = UINT64_C(1) << 61;
	h->count = h->bucket[10] + h->bucket[20];
	assert_int_equal(petal_histogram_quantile(h, PETAL_HISTOGRAM_P50), 10);
	assert_int_equal(petal_histogram_quantile(h, 660000), 10);
	assert_int_equal(petal_histogram_quantile(h, 670000), 20);
}

/* ---- Shared with those who only read. ---- */

static void shared__counts_what_a_private_one_counts(void **state)
{
	struct petal_histogram *h = *state;
	struct petal_histogram *copy = malloc(sizeof(*copy));
	struct petal_histogram_table *memory =
		aligned_alloc(64, sizeof(*memory));
	struct petal_histogram_table *writer;
	const struct petal_histogram_table *reader;
	char name[PETAL_HISTOGRAM_NAME_BYTES];
	uint64_t seed = 9;

	assert_non_null(copy);
	assert_ok(petal_histogram_format(memory, sizeof(*memory), "accept_ns",
					 &writer));
	assert_ok(petal_histogram_attach(memory, sizeof(*memory), &reader));
	assert_ok(petal_histogram_name(reader, name));
	assert_string_equal(name, "accept_ns");
	petal_histogram_read(reader, copy);
	assert_memory_equal(copy, h, sizeof(*h));
	for (size_t i = 0; i < sample_count; i++) {
		uint64_t value = next_random(&seed) >> (i % 64);

		petal_histogram_record(h, value);
		petal_histogram_add(writer, value);
	}
	petal_histogram_read(reader, copy);
	assert_memory_equal(copy, h, sizeof(*h));
	free(memory);
	free(copy);
}

static void format__refuses_what_does_not_do(void **state)
{
	struct petal_histogram_table *memory =
		aligned_alloc(64, sizeof(*memory));
	struct petal_histogram_table *writer = NULL;

	(void)state;
	assert_non_null(memory);
	assert_outcome(petal_histogram_format(memory, sizeof(*memory) - 1, "x",
					      &writer),
		       -ENOSPC);
	assert_outcome(petal_histogram_format((char *)memory + 8,
					      sizeof(*memory), "x", &writer),
		       -EINVAL);
	assert_outcome(petal_histogram_format(memory, sizeof(*memory), "",
					      &writer),
		       -EINVAL);
	assert_outcome(petal_histogram_format(memory, sizeof(*memory), "A",
					      &writer),
		       -EINVAL);
	assert_outcome(petal_histogram_format(
			       memory, sizeof(*memory),
			       "thirty-two-bytes-are-one-too-many", &writer),
		       -EINVAL);
	assert_null(writer);
	free(memory);
}

static void attach__names_each_thing_that_is_wrong(void **state)
{
	struct petal_histogram *h = *state;
	struct petal_histogram_table *t = aligned_alloc(64, sizeof(*t));
	const struct petal_histogram_table *reader;
	char name[PETAL_HISTOGRAM_NAME_BYTES];

	assert_ok(petal_histogram_format(t, sizeof(*t), "x", &t));
	assert_outcome(petal_histogram_attach(t, 63, &reader), -EINVAL);
	assert_outcome(petal_histogram_attach(t, sizeof(*t) - 1, &reader),
		       -PETAL_EGEOMETRY);
	assert_ok(petal_histogram_attach(t, sizeof(*t), &reader));
	/* What is overwritten later gives numbers and no harm. */
	memset(t->name, 'x', sizeof(t->name) + sizeof(*t) - 64);
	assert_outcome(petal_histogram_name(reader, name), -PETAL_ECORRUPT);
	petal_histogram_read(reader, h);
	assert_int_equal(sum_of_buckets(h), h->count);
	assert_true(petal_histogram_quantile(h, PETAL_HISTOGRAM_P50) <= h->max);
	t->buckets++;
	assert_outcome(petal_histogram_attach(t, sizeof(*t), &reader),
		       -PETAL_EGEOMETRY);
	t->layout++;
	assert_outcome(petal_histogram_attach(t, sizeof(*t), &reader),
		       -PETAL_EVERSION);
	t->magic.bits ^= 1;
	assert_outcome(petal_histogram_attach(t, sizeof(*t), &reader), -EINVAL);
	free(t);
}

/* A segment with a table of counters and, behind it, a histogram. */
enum { HISTOGRAM_AT = 4096, COUNTED = 0 };

static void count_for_ever(struct petal_segment *segment)
{
	static const char *const names[] = { "counted" };
	unsigned char *body = petal_segment_body(segment);
	struct petal_histogram_table *table;
	struct petal_counters counters;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (petal_histogram_format(body + HISTOGRAM_AT, sizeof(*table), "turn",
				   &table) ||
	    petal_counters_format(body, HISTOGRAM_AT, "owner", names, 1,
				  &counters))
		_exit(1);
	for (uint64_t turn = 1;; turn++) {
		petal_histogram_add(table, turn);
		petal_counters_add(&counters, COUNTED, 1);
	}
}

struct sight {
	uint64_t counted;
	uint64_t samples;
	uint64_t max;
};

static struct sight look(const struct petal_segment *reader,
			 struct petal_histogram *h)
{
	const unsigned char *body = petal_segment_body(reader);
	const struct petal_histogram_table *table;
	struct petal_counters_entry entry;
	struct petal_counters_view view;
	struct sight sight;

	assert_ok(petal_counters_attach(body, HISTOGRAM_AT, &view));
	assert_ok(petal_counters_read(&view, COUNTED, &entry));
	assert_ok(petal_histogram_attach(body + HISTOGRAM_AT, sizeof(*table),
					 &table));
	petal_histogram_read(table, h);
	assert_int_equal(sum_of_buckets(h), h->count);
	sight.counted = entry.value;
	sight.samples = h->count;
	sight.max = h->max;
	return sight;
}

static void await_counts(const struct petal_segment *reader)
{
	struct petal_counters_entry entry = { .value = 0 };
	struct petal_counters_view view;

	while (petal_counters_attach(petal_segment_body(reader), HISTOGRAM_AT,
				     &view))
		sched_yield();
	while (entry.value < 1000)
		assert_ok(petal_counters_read(&view, COUNTED, &entry));
}

/* Of one moment: the counter comes last, so at most one sample is ahead. */
static void assert_whole(const struct sight *sight)
{
	assert_true(sight->samples - sight->counted <= 1);
	assert_near(sight->max, sight->samples);
}

static void shared__is_read_while_its_owner_hangs_or_is_dead(void **state)
{
	const struct petal_segment_options options = {
		.name = "histogram-test",
		.body_bytes =
			HISTOGRAM_AT + sizeof(struct petal_histogram_table),
		.write_sealed = true,
	};
	struct petal_histogram *h = *state;
	struct petal_segment segment, reader;
	struct sight stopped, again, dead;
	int status;
	pid_t owner;

	assert_ok(petal_segment_open(&options, &segment));
	assert_ok(petal_segment_attach(segment.fd, false, &reader));
	assert_false(reader.writable);
	owner = fork();
	if (owner == 0)
		count_for_ever(&segment);
	await_counts(&reader);
	assert_int_equal(kill(owner, SIGSTOP), 0);
	assert_int_equal(waitpid(owner, &status, WUNTRACED), owner);
	assert_true(WIFSTOPPED(status));
	stopped = look(&reader, h);
	assert_whole(&stopped);
	again = look(&reader, h);
	assert_memory_equal(&stopped, &again, sizeof(again));
	assert_int_equal(kill(owner, SIGKILL), 0);
	assert_int_equal(waitpid(owner, &status, 0), owner);
	dead = look(&reader, h);
	assert_memory_equal(&stopped, &dead, sizeof(dead));
	petal_segment_close(&reader);
	petal_segment_close(&segment);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(quantile__no_samples_is_zero),
		TEST(quantile__one_sample_is_every_quantile),
		TEST(quantile__ranks_are_nearest_rank),
		TEST(quantile__small_values_are_exact),
		TEST(quantile__edges_of_powers_are_within_one_percent),
		TEST(record__larger_value_never_lands_in_a_smaller_bucket),
		TEST(record__extremes_are_counted_and_exact),
		TEST(record__no_sample_is_dropped),
		TEST(quantile__agrees_with_sorted_samples),
		TEST(merge__equals_recording_everything_in_one),
		TEST(merge__empty_changes_nothing),
		TEST(quantile__huge_counts_do_not_overflow),
		TEST(shared__counts_what_a_private_one_counts),
		TEST(shared__is_read_while_its_owner_hangs_or_is_dead),
		TEST(format__refuses_what_does_not_do),
		TEST(attach__names_each_thing_that_is_wrong),
	};
#undef TEST

	if (argc > 1 && strtoull(argv[1], NULL, 10) > 0)
		sample_count = strtoull(argv[1], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
