/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fabric/runs.h promises: whatever a disk once acknowledged speaks for it,
 * at whichever batch the power goes, and a message is not forgotten before the
 * record that says it is done.
 *
 * Harder: PETAL_TEST_HARDER=100 plays as many times more histories.
 */
#include "tests/check.h"

#include "fabric/runs.h"

#define BATCHES 60u

/* A journal: what is durable, of which run; and what it was told to drop. */
struct disk {
	struct petal_runs runs;
	struct {
		uint32_t run;
		uint64_t to_pos, whole_pos;
		bool dropped;
	} batches[BATCHES];
	unsigned count;
	uint32_t acknowledged_run; /* the last that was whole */
	uint64_t acknowledged_pos;
};

static struct petal_record_cursor at(uint64_t lsn, uint32_t crc)
{
	return (struct petal_record_cursor){
		.pos = 64 * lsn, .lsn = lsn, .epoch = 1, .crc = crc
	};
}

static void drop(struct disk *d, uint32_t run)
{
	for (unsigned i = 0; i < d->count; i++)
		d->batches[i].dropped |= d->batches[i].run == run;
}

/* The run that a start would choose: see daemon_restore.c. */
static uint32_t speaker(const struct disk *d, uint64_t *ret_end)
{
	uint32_t best = 0;
	bool best_whole = false;

	*ret_end = 0;
	for (unsigned i = 0; i < d->count; i++) {
		uint32_t run = d->batches[i].run;
		bool whole = false;
		uint64_t end = 0;

		for (unsigned n = 0; n < d->count; n++) {
			if (d->batches[n].run != run)
				continue;
			end = d->batches[n].to_pos;
			whole |= end >= d->batches[n].whole_pos;
		}
		if (d->batches[i].dropped ||
		    (best != 0 && (best_whole > whole ||
				   (best_whole == whole && best >= run))))
			continue;
		best = run;
		best_whole = whole;
		*ret_end = end;
	}
	return best;
}

static void write_batch(struct disk *d, const struct petal_record_cursor *from,
			const struct petal_record_cursor *to,
			uint64_t whole_pos)
{
	uint32_t run = petal_runs_next(&d->runs, from);
	uint32_t dropped = petal_runs_given(&d->runs, from, to, whole_pos);

	assert_int_equal(d->runs.run, run);
	assert_true(dropped == 0 ||
		    (dropped != run && dropped != d->acknowledged_run));
	drop(d, dropped);
	d->batches[d->count].run = run;
	d->batches[d->count].to_pos = to->pos;
	d->batches[d->count].whole_pos = whole_pos;
	d->batches[d->count++].dropped = false;
	dropped = petal_runs_durable(&d->runs, run, to->pos);
	if (d->runs.whole) {
		d->acknowledged_run = run;
		d->acknowledged_pos = to->pos;
	}
	assert_int_not_equal(dropped, run);
	drop(d, dropped);
}

static void runs__what_was_acknowledged_speaks(void **state)
{
	unsigned histories = (unsigned)petal_test_rounds(200);
	uint64_t random = 7;

	(void)state;
	for (unsigned h = 0; h < histories; h++) {
		struct disk d = { 0 };
		uint64_t lsn = 0, whole_pos = 64, end;
		uint32_t crc = 0;

		while (d.count < BATCHES) {
			struct petal_record_cursor from, to;
			uint32_t run;

			/* Its log begins anew, sometimes at the same place. */
			if (petal_test_random(&random) % 10 == 0) {
				crc++;
				if (petal_test_random(&random) % 3 > 0)
					lsn = petal_test_random(&random) % 999;
				whole_pos =
					64 *
					(lsn + petal_test_random(&random) % 20);
			}
			from = at(lsn, crc);
			lsn += 1 + petal_test_random(&random) % 5;
			to = at(lsn, crc);
			write_batch(&d, &from, &to, whole_pos);
			run = speaker(&d, &end);
			if (d.acknowledged_run == 0)
				continue;
			assert_int_equal(run, d.acknowledged_run);
			assert_int_equal(end, d.acknowledged_pos);
		}
	}
}

static void next__goes_on_only_where_the_chain_does(void **state)
{
	struct petal_record_cursor a = at(0, 0), b = at(5, 1), c = at(5, 2);
	struct petal_runs runs = { 0 };

	(void)state;
	assert_int_equal(petal_runs_next(&runs, &a), 1);
	assert_int_equal(petal_runs_given(&runs, &a, &b, 0), 0);
	assert_int_equal(petal_runs_next(&runs, &b), 1);
	/* The same place in another log. */
	assert_int_equal(petal_runs_next(&runs, &c), 2);
	assert_int_equal(petal_runs_next(&runs, &a), 2);
}

static void resume__goes_on_with_the_run_that_speaks(void **state)
{
	struct petal_record_cursor end = at(9, 4), to = at(12, 5);
	struct petal_runs runs;

	(void)state;
	petal_runs_resume(&runs, 3, 4, true, &end, 128);
	assert_int_equal(petal_runs_next(&runs, &end), 3);
	/* Run 4 was not whole: its number is not used again. */
	assert_int_equal(petal_runs_next(&runs, &to), 5);
	assert_int_equal(petal_runs_given(&runs, &to, &to, to.pos + 1), 0);
	assert_int_equal(petal_runs_durable(&runs, 3, to.pos + 1), 0);
	assert_int_equal(petal_runs_durable(&runs, 5, to.pos), 0);
	assert_int_equal(petal_runs_durable(&runs, 5, to.pos + 1), 3);
	assert_int_equal(petal_runs_durable(&runs, 5, to.pos + 1), 0);
}

static void trim__waits_for_the_records_that_say_so(void **state)
{
	struct petal_runs runs = { 0 };

	(void)state;
	petal_runs_trim(&runs, 100, 500, 400);
	assert_int_equal(runs.trim_pos, 0);
	/* What comes meanwhile does not make it wait longer. */
	petal_runs_trim(&runs, 200, 900, 499);
	assert_int_equal(runs.trim_pos, 0);
	petal_runs_trim(&runs, 200, 900, 500);
	assert_int_equal(runs.trim_pos, 100);
	petal_runs_trim(&runs, 300, 1000, 899);
	assert_int_equal(runs.trim_pos, 100);
	petal_runs_trim(&runs, 300, 1000, 1000);
	assert_int_equal(runs.trim_pos, 300);
	petal_runs_trim(&runs, 300, 1100, 1100);
	assert_int_equal(runs.trim_pos, 300);
}

static void give_up__leaves_the_present_run_alone(void **state)
{
	struct petal_record_cursor end = at(9, 4), from = at(7, 5),
				   to = at(12, 5);
	struct petal_runs runs;

	(void)state;
	petal_runs_resume(&runs, 3, 3, true, &end, 128);
	assert_int_equal(petal_runs_give_up(&runs, false), 0);
	assert_int_equal(petal_runs_given(&runs, &from, &to, to.pos + 1), 0);
	assert_int_equal(petal_runs_give_up(&runs, false), 3);
	assert_int_equal(petal_runs_give_up(&runs, false), 0);
	assert_int_equal(runs.run, 4);
	assert_false(runs.whole);
	assert_int_equal(petal_runs_durable(&runs, 4, to.pos + 1), 0);
	assert_true(runs.whole);
	/* One that was to begin: then it is the present one that goes. */
	assert_int_equal(petal_runs_next(&runs, &from), 5);
	assert_int_equal(petal_runs_give_up(&runs, true), 4);
	assert_int_equal(petal_runs_next(&runs, &from), 5);
	assert_int_equal(petal_runs_given(&runs, &from, &to, to.pos + 1), 0);
	assert_int_equal(runs.run, 5);
	assert_false(runs.whole);
}

static void key__names_ring_and_run(void **state)
{
	uint64_t key = PETAL_RUNS_KEY(UINT64_C(0xfedcba98), 7);

	(void)state;
	assert_int_equal(PETAL_RUNS_KEY_RING(key), 0xfedcba98);
	assert_int_equal(PETAL_RUNS_KEY_RUN(key), 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs__what_was_acknowledged_speaks),
		cmocka_unit_test(next__goes_on_only_where_the_chain_does),
		cmocka_unit_test(resume__goes_on_with_the_run_that_speaks),
		cmocka_unit_test(trim__waits_for_the_records_that_say_so),
		cmocka_unit_test(give_up__leaves_the_present_run_alone),
		cmocka_unit_test(key__names_ring_and_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
