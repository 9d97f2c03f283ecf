/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fabric/recovery.h promises, on what a primary and a backup of
 * tests/sim/trio.h leave: equal bytes at equal positions, damage found wherever
 * it is, nothing beyond the seal, and a new epoch that hands out what was not
 * acknowledged, and nothing before its own first record counts.
 */
#include "tests/check.h"

#include "fabric/recovery.h"
#include "shm/clock.h"
#include "tests/sim/trio.h"

#define DATA_BYTES UINT64_C(65536)
#define WORK 1u
#define MESSAGES 40u
#define DONE 15u

struct fixture {
	struct trio t;
	struct trio_actor source, worker;
	struct petal_recovery of_primary, of_backup;
	struct petal_log next;
};

static void put(struct fixture *f, uint64_t number)
{
	uint8_t bytes[300] = { 0 };

	memcpy(bytes, &number, sizeof(number));
	assert_true(trio_put(&f->source, WORK, bytes,
			     (uint32_t)(8 + number * 37 % 290)) > 0);
}

static void acknowledge(struct fixture *f)
{
	struct petal_message message;

	assert_int_equal(trio_take(&f->worker, WORK, &message), 0);
	assert_true(trio_forward(&f->worker, &message, 1, NULL, 0) > 0);
}

/* Laps go by, then some messages stay, and some of those are acknowledged. */
static void work(struct fixture *f)
{
	for (unsigned n = 0; n < 700; n++) {
		put(f, 1000 + n);
		trio_rest(&f->t);
		acknowledge(f);
		trio_rest(&f->t);
	}
	for (unsigned n = 0; n < MESSAGES; n++) {
		put(f, n);
		trio_step(&f->t);
	}
	trio_rest(&f->t);
	/* The first one stays, so that all is retained. */
	for (unsigned n = 0; n <= DONE; n++) {
		struct petal_message message;

		assert_int_equal(trio_take(&f->worker, WORK, &message), 0);
		if (n > 0)
			assert_true(trio_forward(&f->worker, &message, 1, NULL,
						 0) > 0);
	}
	trio_rest(&f->t);
}

static int setup_working(void **state)
{
	const struct trio_options options = { .seed = 1,
					      .data_bytes = DATA_BYTES,
					      .slots = 256,
					      .lease_ns = PETAL_S(100) };
	struct fixture *f = calloc(1, sizeof(*f));

	trio_open(&f->t, &options);
	assert_true(trio_actor_open(&f->t, 1, &f->source));
	assert_true(trio_actor_open(&f->t, 2, &f->worker));
	assert_true(trio_link(&f->t, 1));
	assert_true(trio_link(&f->t, 2));
	trio_rest(&f->t);
	*state = f;
	return 0;
}

/* The primary is deposed, and has left the same as a fenced backup. */
static int setup(void **state)
{
	struct fixture *f;

	setup_working(state);
	f = *state;
	work(f);
	petal_primary_depose(&f->t.primary);
	petal_backup_fence(&f->t.members[1].backup);
	assert_ok(petal_primary_leaves(&f->t.primary, &f->of_primary));
	assert_ok(petal_backup_leaves(&f->t.members[1].backup, &f->of_backup));
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->next.data != NULL)
		petal_log_close(&f->next);
	petal_log_close(&f->source.log);
	petal_log_close(&f->worker.log);
	trio_close(&f->t);
	free(f);
	return 0;
}

/* I8: the primary lives, has not heard of it, and writes on. */
static void fence__what_is_written_later_moves_nothing(void **state)
{
	struct fixture *f = *state;
	const struct petal_backup *fenced = &f->t.members[1].backup;
	const struct petal_backup *other = &f->t.members[2].backup;
	struct petal_recovery left, later;

	put(f, 1);
	trio_rest(&f->t);
	petal_backup_fence(&f->t.members[1].backup);
	assert_ok(petal_backup_leaves(fenced, &left));
	put(f, 2);
	trio_rest(&f->t);
	assert_ok(petal_backup_leaves(fenced, &later));
	assert_int_equal(later.end.lsn, left.end.lsn);
	assert_int_equal(later.end.pos, left.end.pos);
	assert_int_equal(other->cursor.lsn, left.end.lsn + 1);
	assert_int_equal(f->t.primary.members[1].memory_pos, left.end.pos);
}

static void open_next(struct fixture *f, const struct petal_recovery *r)
{
	struct petal_log_geometry geometry = f->t.log.geometry;

	geometry.epoch = 2;
	geometry.start_pos = r->base.pos;
	assert_ok(petal_log_open(&geometry, &f->next));
}

static void leaves__backup_and_primary_leave_the_same_log(void **state)
{
	struct fixture *f = *state;
	const struct petal_recovery *a = &f->of_primary, *b = &f->of_backup;

	assert_int_equal(a->end.lsn, b->end.lsn);
	assert_int_equal(a->end.crc, b->end.crc);
	assert_int_equal(a->end.epoch, b->end.epoch);
	assert_true(b->base.pos <= a->base.pos);
	assert_true(a->base.pos > DATA_BYTES);
	assert_ok(petal_recovery_check(a, NULL));
	assert_ok(petal_recovery_check(b, NULL));
	assert_true(a->exact && b->exact);
}

/* I3, I11: whatever member it comes from. */
static void copy__equal_bytes_at_equal_positions(void **state)
{
	struct fixture *f = *state;
	const struct petal_recovery *r = &f->of_backup;
	struct petal_record_cursor at = r->base;

	open_next(f, r);
	assert_ok(petal_recovery_copy(r, &f->next));
	assert_int_equal(petal_mpsc_tail(&f->next.ring), r->end.pos);
	while (at.pos < r->end.pos) {
		const uint8_t *from = petal_log_at(&f->t.log, at.pos);
		const uint8_t *to = petal_log_at(&f->next, at.pos);
		struct petal_record_cursor before = at;
		struct petal_mpsc_view view;

		assert_ok(petal_record_check(to, DATA_BYTES, &at));
		assert_memory_equal(to + 8, from + 8, 56);
		if (((const struct petal_record *)(const void *)to)->type !=
		    PETAL_RECORD_TYPE_PADDING)
			assert_memory_equal(to + 64, from + 64,
					    at.pos - before.pos - 64);
		assert_ok(petal_mpsc_peek(&f->next.ring, before.pos, &view));
		assert_int_equal(view.end, at.pos);
	}
	assert_int_equal(at.crc, r->end.crc);
}

static void check__any_flipped_byte_is_found(void **state)
{
	struct fixture *f = *state;
	struct petal_recovery *r = &f->of_backup;
	struct petal_record_cursor at = r->base;

	for (unsigned n = 0; n < 6; n++) {
		uint8_t *bytes = petal_log_at(r->log, at.pos);
		struct petal_record_durable *record = (void *)bytes;
		uint64_t used = PETAL_RECORD_HEADER_BYTES +
				(uint64_t)record->record.length;

		/* The commit word means nothing, nor does a padding's rest. */
		if (record->record.type == PETAL_RECORD_TYPE_PADDING)
			used = PETAL_RECORD_DURABLE_BYTES;
		for (uint64_t i = 8; i < used; i++) {
			uint64_t bad_lsn = 0;

			bytes[i] ^= 0x10;
			assert_outcome(petal_recovery_check(r, &bad_lsn),
				       -PETAL_ECORRUPT);
			assert_int_equal(bad_lsn, at.lsn + 1);
			bytes[i] ^= 0x10;
		}
		petal_log_walk(
			r->log, &at,
			at.pos + petal_record_extent(record->record.length));
	}
	assert_ok(petal_recovery_check(r, NULL));
}

static void copy__damage_is_not_copied(void **state)
{
	struct fixture *f = *state;
	const struct petal_recovery *r = &f->of_primary;

	petal_log_at(&f->t.log, r->base.pos)[70] ^= 1;
	open_next(f, r);
	assert_outcome(petal_recovery_copy(r, &f->next), -PETAL_ECORRUPT);
}

/* I9. */
static void cut__nothing_is_left_beyond_the_seal(void **state)
{
	struct fixture *f = *state;
	struct petal_recovery r = f->of_primary;
	struct petal_record_cursor seal = r.base;

	petal_log_walk(r.log, &seal, r.base.pos + 5000);
	assert_true(seal.pos > r.base.pos && seal.pos < r.end.pos);
	petal_recovery_cut(&r, &seal);
	assert_non_null(r.log);
	assert_int_equal(r.end.lsn, seal.lsn);
	assert_int_equal(r.end.crc, seal.crc);
	assert_false(r.exact);
	assert_true(r.disk_pos <= seal.pos);
	assert_true(r.journaled_to.pos <= seal.pos);
	assert_ok(petal_recovery_check(&r, NULL));
	/* Exactly at its end, or beyond: it stays as it is. */
	r = f->of_primary;
	petal_recovery_cut(&r, &r.end);
	assert_true(r.exact && r.end.lsn == f->of_primary.end.lsn);
	seal = r.end;
	seal.lsn++;
	seal.pos += 64;
	petal_recovery_cut(&r, &seal);
	assert_true(r.exact && r.end.lsn == f->of_primary.end.lsn);
	/* Another record lies there: it was another log. */
	seal = r.base;
	petal_log_walk(r.log, &seal, r.base.pos + 5000);
	seal.crc ^= 1;
	petal_recovery_cut(&r, &seal);
	assert_null(r.log);
}

static int no_write(void *self, unsigned member, uint64_t pos, uint64_t length,
		    bool told)
{
	(void)self;
	(void)member;
	(void)pos;
	(void)length;
	(void)told;
	return -EAGAIN;
}

static void no_order(void *self, unsigned member)
{
	(void)self;
	(void)member;
}

static int no_journal(void *self, const struct petal_record_cursor *from,
		      const struct petal_record_cursor *to, uint64_t trim_pos)
{
	(void)self;
	(void)from;
	(void)to;
	(void)trim_pos;
	return -EAGAIN;
}

static void no_signal(void *self, uint32_t owner)
{
	(void)self;
	(void)owner;
}

/* A backup that says it has everything up to there. */
static void say(struct petal_primary *p, unsigned member, uint64_t pos)
{
	const struct petal_log_line line = { { pos, 0, 0 } };

	petal_log_line_write(&p->log->acks[member], &line);
	assert_ok(petal_primary_acked(p, member));
	assert_ok(petal_primary_step(p, 1));
}

/* I7, I14. */
static void open__hands_out_what_was_not_acknowledged(void **state)
{
	const struct petal_primary_port port = { .write = no_write,
						 .order = no_order,
						 .journal = no_journal,
						 .admit = no_order,
						 .signal = no_signal };
	struct fixture *f = *state;
	const struct petal_recovery *r = &f->of_backup;
	static struct petal_primary p;
	struct petal_record_cursor start;
	struct petal_queue_counts counts;
	bool exact;

	open_next(f, r);
	assert_ok(petal_recovery_copy(r, &f->next));
	assert_ok(petal_primary_open(&p, &f->next, 1, &port, r));
	assert_int_equal(p.accepted.lsn, r->end.lsn + 1);
	assert_int_equal(p.accepted.epoch, 2);
	petal_primary_join(&p, 2, &f->t.members[2].backup.cursor, true, true,
			   &start, &exact);
	assert_int_equal(start.pos, r->end.pos);
	assert_true(exact);
	say(&p, 2, r->end.pos);
	assert_false(petal_primary_started(&p));
	assert_int_equal(p.dispatched_pos, r->base.pos);
	say(&p, 2, p.accepted.pos);
	assert_true(petal_primary_started(&p));
	petal_queue_counts(&f->next.queues[WORK - 1], &counts);
	assert_int_equal(counts.ready, MESSAGES - DONE);
	assert_int_equal(counts.enqueued, MESSAGES - DONE);
	/* I13: and it knows who put them. */
	assert_ok(petal_sessions_find(&p.sessions, f->source.session,
				      f->source.sequence));
	assert_outcome(petal_sessions_find(&p.sessions, f->source.session,
					   f->source.sequence + 1),
		       -ENOENT);
	assert_true(petal_primary_lsn(&p, f->source.session,
				      f->source.sequence) > 0);
	assert_int_equal(petal_primary_lsn(&p, f->source.session, 1), 0);
	petal_primary_close(&p);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			fence__what_is_written_later_moves_nothing,
			setup_working, teardown),
		TEST(leaves__backup_and_primary_leave_the_same_log),
		TEST(copy__equal_bytes_at_equal_positions),
		TEST(check__any_flipped_byte_is_found),
		TEST(copy__damage_is_not_copied),
		TEST(cut__nothing_is_left_beyond_the_seal),
		TEST(open__hands_out_what_was_not_acknowledged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
