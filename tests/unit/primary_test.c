/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fabric/primary.h and fabric/backup.h promise together, on three logs in
 * one process: see tests/sim/trio.h. First the promises one by one, then whole
 * worlds of sources, workers and clerks with everything going wrong at random:
 * see tests/sim/world.h.
 *
 * Harder: PETAL_TEST_HARDER=100 runs a hundred times as many seeds. A world
 * that fails prints its seed; PETAL_TEST_SEED=n runs that one alone.
 */
#include "tests/check.h"

#include "fabric/txn.h"
#include "shm/clock.h"
#include "tests/sim/trio.h"
#include "tests/sim/world.h"

#define DATA_BYTES UINT64_C(65536)
#define WORK 1u
#define DONE 2u

static const struct trio_options options = {
	.seed = 1,
	.data_bytes = DATA_BYTES,
	.slots = 256,
	.lease_ns = PETAL_MS(100),
};

struct fixture {
	struct trio t;
	struct trio_actor source;
	struct trio_actor worker;
};

static void link_both(struct trio *t)
{
	assert_true(trio_link(t, 1));
	assert_true(trio_link(t, 2));
	trio_rest(t);
}

static int setup_with(void **state, const struct trio_options *o)
{
	struct fixture *f = calloc(1, sizeof(*f));

	trio_open(&f->t, o);
	assert_true(trio_actor_open(&f->t, 1, &f->source));
	assert_true(trio_actor_open(&f->t, 2, &f->worker));
	*state = f;
	return 0;
}

static int setup_apart(void **state)
{
	return setup_with(state, &options);
}

static int setup(void **state)
{
	struct fixture *f;

	setup_with(state, &options);
	f = *state;
	link_both(&f->t);
	return 0;
}

/* A ring in which a record may be a long one. */
static int setup_large(void **state)
{
	struct trio_options large = options;
	struct fixture *f;

	large.data_bytes = UINT64_C(1) << 20;
	setup_with(state, &large);
	f = *state;
	link_both(&f->t);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->source.log.data != NULL)
		petal_log_close(&f->source.log);
	if (f->worker.log.data != NULL)
		petal_log_close(&f->worker.log);
	trio_close(&f->t);
	free(f);
	return 0;
}

static uint64_t end_of(struct fixture *f)
{
	return f->t.primary.accepted.pos;
}

static bool reached(struct fixture *f, enum petal_level level)
{
	return trio_level(&f->t, level) == end_of(f);
}

/* A record of the source's, accepted; returns its lsn. */
static int64_t put(struct fixture *f, uint32_t queue, const char *text)
{
	uint64_t sequence =
		trio_put(&f->source, queue, text, (uint32_t)strlen(text));

	assert_true(sequence > 0);
	trio_step(&f->t);
	return trio_outcome(&f->source, sequence);
}

static struct petal_message take(struct trio_actor *actor, uint32_t queue,
				 const char *text)
{
	struct petal_message message;

	assert_int_equal(trio_take(actor, queue, &message), 0);
	assert_int_equal(message.length, strlen(text));
	assert_memory_equal(message.bytes, text, message.length);
	return message;
}

static void assert_none(struct trio_actor *actor, uint32_t queue)
{
	struct petal_message message;

	assert_int_equal(trio_take(actor, queue, &message), 1);
}

/* Acknowledge one message and put at most one; returns the outcome. */
static int64_t forward(struct fixture *f, const struct petal_message *input,
		       uint32_t queue, const char *text)
{
	struct petal_output output = {
		.queue = queue,
		.length = text ? (uint32_t)strlen(text) : 0,
		.bytes = text,
	};
	uint64_t sequence =
		trio_forward(&f->worker, input, 1, &output, text != NULL);

	assert_true(sequence > 0);
	trio_step(&f->t);
	return trio_outcome(&f->worker, sequence);
}

static const struct petal_record_durable *record_at(struct fixture *f,
						    uint64_t pos)
{
	return (void *)petal_log_at(&f->t.log, pos);
}

/* What member 1 says, as the primary finds it. */
static void lie(struct fixture *f, uint64_t memory_pos, uint64_t disk_pos)
{
	const struct petal_log_line line = { { memory_pos, disk_pos, 0 } };

	petal_log_line_write(&f->t.log.acks[1], &line);
}

/* ---- the beginning ---- */

static void open__first_record_is_epoch_start(void **state)
{
	struct fixture *f = *state;

	trio_step(&f->t);
	assert_int_equal(record_at(f, 0)->record.type,
			 PETAL_RECORD_TYPE_EPOCH_START);
	assert_int_equal(record_at(f, 0)->lsn, 1);
	assert_int_equal(record_at(f, 0)->epoch, 1);
	assert_int_equal(put(f, WORK, "second"), 2);
	assert_int_equal(atomic_load(&f->t.log.marks->state), PETAL_LOG_OPEN);
	/* Nothing of it counts before EPOCH_START has a second copy. */
	assert_int_equal(trio_level(&f->t, PETAL_LEVEL_MEM2), 0);
	assert_none(&f->worker, WORK);
}

/* ---- levels ---- */

/*
 * Every combination of who holds the record in memory and on disk, and the
 * level that counts so many copies.
 */
static void level__is_reached_by_so_many_copies_and_not_before(void **state)
{
	(void)state;
	for (unsigned mask = 0; mask < 32; mask++) {
		bool memory[3] = { true, mask & 1, mask & 2 };
		bool disk[3] = { mask & 4, mask & 8, mask & 16 };
		unsigned memories, disks;
		struct fixture *f;
		void *fresh;

		if ((disk[1] && !memory[1]) || (disk[2] && !memory[2]))
			continue;
		memories = 1u + memory[1] + memory[2];
		disks = 0u + disk[0] + disk[1] + disk[2];
		setup(&fresh);
		f = fresh;
		for (unsigned i = 0; i < 3; i++) {
			f->t.hold[TRIO_WRITE][i] = !memory[i];
			f->t.hold_disk[i] = !disk[i];
		}
		assert_true(put(f, WORK, "counted") > 0);
		assert_true(reached(f, PETAL_LEVEL_LOCAL));
		assert_false(reached(f, PETAL_LEVEL_MEM2));
		trio_rest(&f->t);
		assert_int_equal(reached(f, PETAL_LEVEL_MEM2), memories >= 2);
		assert_int_equal(reached(f, PETAL_LEVEL_MEM3), memories == 3);
		assert_int_equal(reached(f, PETAL_LEVEL_DISK2), disks >= 2);
		assert_int_equal(reached(f, PETAL_LEVEL_DISK3), disks == 3);
		teardown(&fresh);
	}
}

static void visibility__message_is_not_handed_out_before_mem2(void **state)
{
	struct fixture *f = *state;

	f->t.hold[TRIO_ACK][1] = f->t.hold[TRIO_ACK][2] = true;
	put(f, WORK, "unseen");
	trio_rest(&f->t);
	assert_true(f->t.members[1].backup.cursor.pos == end_of(f));
	assert_none(&f->worker, WORK);
	f->t.hold[TRIO_ACK][2] = false;
	trio_rest(&f->t);
	take(&f->worker, WORK, "unseen");
}

/* A line seen half landed may name a place in the middle of a record. */
static void visibility__part_of_a_record_is_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t before = end_of(f);

	f->t.hold[TRIO_WRITE][1] = f->t.hold[TRIO_WRITE][2] = true;
	put(f, WORK, "two lines long");
	for (unsigned n = 0; n < 16; n++)
		trio_step(&f->t);
	lie(f, before + 64, 0);
	assert_ok(petal_primary_acked(&f->t.primary, 1));
	assert_ok(petal_primary_step(&f->t.primary, f->t.now_ns));
	assert_int_equal(f->t.primary.dispatched_pos, before);
	assert_none(&f->worker, WORK);
}

static void visibility__acknowledgement_is_final_only_at_mem2(void **state)
{
	struct fixture *f = *state;
	struct petal_message message;
	uint64_t trim_pos;

	put(f, WORK, "input");
	trio_rest(&f->t);
	message = take(&f->worker, WORK, "input");
	f->t.hold[TRIO_WRITE][1] = f->t.hold[TRIO_WRITE][2] = true;
	assert_true(forward(f, &message, DONE, "output") > 0);
	trio_rest(&f->t);
	trim_pos = f->t.primary.trim_pos;
	assert_true(trim_pos <= message.pos);
	assert_none(&f->worker, DONE);
	f->t.hold[TRIO_WRITE][1] = false;
	trio_rest(&f->t);
	assert_true(f->t.primary.trim_pos > message.pos);
	take(&f->worker, DONE, "output");
}

/* ---- what is refused ---- */

/* A record as put() makes it, to be spoilt before it is published. */
static struct petal_record_durable *
draft(struct fixture *f, struct petal_mpsc_claim *claim, uint32_t length)
{
	struct petal_record_durable *record;

	assert_ok(trio_claim(&f->source, length, claim));
	record = (void *)claim->record;
	memset(trio_payload(claim), 'p', length);
	record->record.type = 0;
	record->queue = WORK;
	record->session = f->source.session;
	record->sequence = ++f->source.sequence;
	record->flags = 0;
	record->payload_crc = petal_record_payload_crc(
		record, length + PETAL_RECORD_ENVELOPE_BYTES);
	return record;
}

/* Publish it; it must become padding, everywhere. */
static int64_t refused(struct fixture *f, const struct petal_mpsc_claim *claim)
{
	uint64_t before = f->t.primary.counts.refused;

	assert_ok(petal_mpsc_publish(&f->source.log.ring, claim));
	trio_rest(&f->t);
	assert_int_equal(f->t.primary.counts.refused, before + 1);
	assert_int_equal(record_at(f, claim->pos)->record.type,
			 PETAL_RECORD_TYPE_PADDING);
	assert_int_equal(record_at(f, claim->pos)->session, 0);
	assert_true(f->t.members[1].backup.cursor.pos == claim->end);
	assert_none(&f->worker, WORK);
	return trio_outcome(&f->source, f->source.sequence);
}

static void refuse__payload_crc_that_does_not_match(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;

	draft(f, &claim, 100)->payload_crc ^= 1;
	assert_int_equal(refused(f, &claim), -PETAL_ECORRUPT);
	assert_true(put(f, WORK, "next") > 0);
}

static void refuse__queue_that_the_ring_has_not(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;

	draft(f, &claim, 100)->queue = 3;
	assert_int_equal(refused(f, &claim), -EINVAL);
}

static void refuse__type_that_only_the_replicator_writes(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;

	draft(f, &claim, 100)->record.type = PETAL_RECORD_TYPE_EPOCH_START;
	assert_int_equal(refused(f, &claim), -EINVAL);
}

static void refuse__session_of_somebody_else_and_without_a_word(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;

	draft(f, &claim, 100)->session++;
	assert_int_equal(refused(f, &claim), 0);
	/* Its sequence was not used up. */
	f->source.sequence--;
	assert_true(put(f, WORK, "next") > 0);
}

static void refuse__gap_and_repetition_of_a_sequence(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;

	assert_true(put(f, 0, "first") > 0);
	draft(f, &claim, 100)->sequence++;
	assert_int_equal(refused(f, &claim), 0);
	f->source.sequence--;
	draft(f, &claim, 100)->sequence--;
	assert_int_equal(refused(f, &claim), 0);
	f->source.sequence--;
	assert_true(put(f, WORK, "next") > 0);
}

static void refuse__record_shorter_than_its_envelope(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;

	for (uint32_t length = 0; length < PETAL_RECORD_ENVELOPE_BYTES;
	     length += 16) {
		assert_ok(
			petal_mpsc_claim(&f->source.log.ring, length, &claim));
		claim.record->type = 0;
		refused(f, &claim);
	}
	/* And one that nobody published. */
	assert_ok(petal_mpsc_claim(&f->source.log.ring, 0, &claim));
	assert_ok(petal_mpsc_abort(&f->source.log.ring, &claim));
	assert_true(put(f, WORK, "next") > 0);
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
	take(&f->worker, WORK, "next");
}

static void refuse__transaction_that_makes_no_sense(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;

	draft(f, &claim, 100)->record.type = PETAL_RECORD_TYPE_TXN;
	assert_int_equal(refused(f, &claim), -PETAL_ECORRUPT);
}

static void outcome__is_told_in_order_for_a_whole_window(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;
	uint64_t first = f->source.sequence + 1;

	for (unsigned i = 0; i < PETAL_LOG_WINDOW; i++)
		assert_true(trio_put(&f->source, 0, "x", 1) > 0);
	assert_outcome(trio_claim(&f->source, 1, &claim), -EAGAIN);
	assert_int_equal(trio_outcome(&f->source, first), 0);
	trio_step(&f->t);
	for (unsigned i = 0; i < PETAL_LOG_WINDOW; i++)
		assert_int_equal(trio_outcome(&f->source, first + i), 2 + i);
	assert_ok(trio_claim(&f->source, 1, &claim));
	assert_ok(petal_mpsc_abort(&f->source.log.ring, &claim));
}

/* ---- transactions ---- */

static void txn__acknowledges_and_puts_in_one_record(void **state)
{
	struct fixture *f = *state;
	struct petal_message in[2], out;
	const struct petal_output outputs[] = {
		{ DONE, 3, "one" },
		{ WORK, 3, "two" },
		{ DONE, 0, "" },
	};
	uint64_t sequence;

	put(f, WORK, "a");
	put(f, WORK, "b");
	trio_rest(&f->t);
	in[0] = take(&f->worker, WORK, "a");
	in[1] = take(&f->worker, WORK, "b");
	sequence = trio_forward(&f->worker, in, 2, outputs, 3);
	trio_rest(&f->t);
	assert_true(trio_outcome(&f->worker, sequence) > 0);
	out = take(&f->worker, DONE, "one");
	assert_int_equal(out.lsn, trio_outcome(&f->worker, sequence));
	assert_int_equal(out.index, 0);
	out = take(&f->worker, WORK, "two");
	assert_int_equal(out.index, 1);
	out = take(&f->worker, DONE, "");
	assert_int_equal(out.index, 2);
	assert_none(&f->worker, WORK);
	assert_none(&f->worker, DONE);
}

static void txn__one_stale_lease_undoes_all(void **state)
{
	struct fixture *f = *state;
	struct petal_output output = { DONE, 5, "never" };
	struct petal_message in[4];
	struct petal_queue_counts counts;
	uint64_t sequence;

	for (unsigned i = 0; i < 3; i++)
		put(f, WORK, "m");
	trio_rest(&f->t);
	for (unsigned i = 0; i < 3; i++)
		in[i] = take(&f->worker, WORK, "m");
	in[3] = in[1]; /* twice in one transaction */
	sequence = trio_forward(&f->worker, in, 4, &output, 1);
	trio_rest(&f->t);
	assert_int_equal(trio_outcome(&f->worker, sequence), -ESTALE);
	assert_int_equal(f->t.primary.counts.stale, 1);
	assert_none(&f->worker, DONE);
	petal_queue_counts(&f->t.log.queues[0], &counts);
	assert_int_equal(counts.leased, 3);
	/* All three are still held, and can be acknowledged. */
	sequence = trio_forward(&f->worker, in, 3, &output, 1);
	trio_rest(&f->t);
	assert_true(trio_outcome(&f->worker, sequence) > 0);
	take(&f->worker, DONE, "never");
}

static void txn__lease_of_another_owner_is_refused(void **state)
{
	struct fixture *f = *state;
	struct petal_message message;

	put(f, WORK, "mine");
	trio_rest(&f->t);
	message = take(&f->source, WORK, "mine");
	assert_int_equal(forward(f, &message, DONE, "stolen"), -EPERM);
	trio_rest(&f->t);
	assert_none(&f->worker, DONE);
}

static void
txn__expired_lease_is_refused_and_the_next_holder_counts(void **state)
{
	struct fixture *f = *state;
	struct petal_message late, again;

	put(f, WORK, "slow");
	trio_rest(&f->t);
	late = take(&f->worker, WORK, "slow");
	f->t.now_ns += 2 * options.lease_ns;
	trio_step(&f->t);
	again = take(&f->worker, WORK, "slow");
	assert_int_equal(again.redelivered, 1);
	assert_int_equal(forward(f, &late, DONE, "late"), -ESTALE);
	assert_true(forward(f, &again, DONE, "again") > 0);
	trio_rest(&f->t);
	take(&f->worker, DONE, "again");
	assert_none(&f->worker, DONE);
}

static void
txn__published_before_the_deadline_and_seen_after_it_counts(void **state)
{
	struct fixture *f = *state;
	struct petal_message message;
	uint64_t sequence;

	put(f, WORK, "just");
	trio_rest(&f->t);
	message = take(&f->worker, WORK, "just");
	sequence = trio_forward(&f->worker, &message, 1, NULL, 0);
	f->t.now_ns += 2 * options.lease_ns;
	trio_step(&f->t);
	assert_true(trio_outcome(&f->worker, sequence) > 0);
}

/* ---- dispatch ---- */

static void dispatch__full_lease_table_waits_and_loses_nothing(void **state)
{
	struct trio_options small = options;
	struct petal_message message;
	struct fixture *f;
	unsigned got = 0;

	small.slots = 2;
	setup_with(state, &small);
	f = *state;
	link_both(&f->t);
	for (unsigned i = 0; i < 20; i++)
		put(f, WORK, "m");
	trio_rest(&f->t);
	for (; trio_take(&f->worker, WORK, &message) == 0; got++) {
		assert_true(forward(f, &message, 0, NULL) > 0);
		trio_rest(&f->t);
	}
	assert_int_equal(got, 20);
	teardown(state);
}

/* What frees the table frees it for the same step. */
static void dispatch__goes_on_in_the_step_that_makes_room(void **state)
{
	struct trio_options small = options;
	struct petal_message message;
	struct fixture *f;

	small.slots = 2;
	setup_with(state, &small);
	f = *state;
	link_both(&f->t);
	for (unsigned i = 0; i < 3; i++)
		put(f, WORK, "m");
	trio_rest(&f->t);
	message = take(&f->worker, WORK, "m");
	assert_true(trio_forward(&f->worker, &message, 1, NULL, 0) > 0);
	trio_step(&f->t);
	f->t.hold[TRIO_ACK][2] = true;
	for (unsigned n = 0; n < 64 && !reached(f, PETAL_LEVEL_MEM2); n++) {
		struct trio_flight *flight = trio_find(&f->t, TRIO_WRITE, 1);

		if (flight) {
			trio_deliver(&f->t, flight, UINT64_MAX);
			trio_complete(&f->t, flight);
		}
		trio_step_backup(&f->t, 1);
		flight = trio_find(&f->t, TRIO_ACK, 1);
		if (flight) {
			trio_deliver(&f->t, flight, UINT64_MAX);
			trio_complete(&f->t, flight);
		}
		trio_step(&f->t);
	}
	assert_int_equal(f->t.primary.dispatched_pos, end_of(f));
	teardown(state);
}

static void
dispatch__settled_message_makes_no_room_before_it_is_visible(void **state)
{
	struct trio_options small = options;
	struct petal_message message;
	struct petal_queue_counts counts;
	struct fixture *f;

	small.slots = 2;
	setup_with(state, &small);
	f = *state;
	link_both(&f->t);
	for (unsigned i = 0; i < 3; i++)
		put(f, WORK, "m");
	trio_rest(&f->t);
	message = take(&f->worker, WORK, "m");
	f->t.hold[TRIO_WRITE][1] = f->t.hold[TRIO_WRITE][2] = true;
	assert_true(forward(f, &message, 0, NULL) > 0);
	trio_rest(&f->t);
	petal_queue_counts(&f->t.log.queues[0], &counts);
	assert_int_equal(counts.enqueued, 2);
	f->t.hold[TRIO_WRITE][2] = false;
	trio_rest(&f->t);
	petal_queue_counts(&f->t.log.queues[0], &counts);
	assert_int_equal(counts.enqueued, 3);
	teardown(state);
}

static void
dispatch__transaction_that_fits_in_part_is_finished_later(void **state)
{
	struct trio_options small = options;
	const struct petal_output outputs[] = {
		{ DONE, 1, "1" }, { DONE, 1, "2" }, { DONE, 1, "3" },
		{ DONE, 1, "4" }, { DONE, 1, "5" },
	};
	static const char *const texts[] = { "1", "2", "3", "4", "5" };
	struct petal_message message;
	struct fixture *f;

	small.slots = 2;
	setup_with(state, &small);
	f = *state;
	link_both(&f->t);
	assert_true(trio_forward(&f->worker, NULL, 0, outputs, 5) > 0);
	trio_rest(&f->t);
	for (unsigned i = 0; i < 5; i++) {
		message = take(&f->worker, DONE, texts[i]);
		assert_int_equal(message.index, i);
		assert_true(forward(f, &message, 0, NULL) > 0);
		trio_rest(&f->t);
	}
	assert_none(&f->worker, DONE);
	teardown(state);
}

/* ---- space ---- */

static void space__many_laps_of_a_small_ring(void **state)
{
	struct fixture *f = *state;
	struct petal_message message;
	static uint8_t bytes[12000];
	uint64_t random = 5;

	while (end_of(f) < 40 * DATA_BYTES) {
		uint32_t length =
			(uint32_t)(petal_test_random(&random) % sizeof(bytes));

		memset(bytes, (int)length, sizeof(bytes));
		assert_true(trio_put(&f->source, WORK, bytes, length) > 0);
		trio_rest(&f->t);
		assert_int_equal(trio_take(&f->worker, WORK, &message), 0);
		assert_int_equal(message.length, length);
		assert_memory_equal(message.bytes, bytes, length);
		assert_true(forward(f, &message, 0, NULL) > 0);
	}
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
	assert_true(f->t.primary.counts.padding > 0);
	assert_int_equal(f->t.primary.trim_pos, end_of(f));
	assert_true(end_of(f) - f->t.primary.head.pos < DATA_BYTES / 64);
	assert_int_equal(f->t.disks[1].batch_count, f->t.disks[2].batch_count);
}

static unsigned fill(struct fixture *f)
{
	static const uint8_t bytes[1000];
	unsigned count = 0;

	while (trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0) {
		trio_rest(&f->t);
		count++;
		assert_true(count < 100000);
	}
	return count;
}

static void space__backup_that_lags_holds_the_producer_back(void **state)
{
	struct fixture *f = *state;
	static const uint8_t bytes[1000];
	uint64_t head;

	f->t.hold[TRIO_ACK][2] = true;
	fill(f);
	head = f->t.primary.head.pos;
	assert_true(reached(f, PETAL_LEVEL_MEM2));
	assert_false(reached(f, PETAL_LEVEL_MEM3));
	assert_int_equal(trio_put(&f->source, 0, bytes, sizeof(bytes)), 0);
	f->t.hold[TRIO_ACK][2] = false;
	trio_rest(&f->t);
	assert_true(f->t.primary.head.pos > head);
	assert_true(trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0);
}

/* Nobody waits for a disk that failed, and everybody for its memory. */
static void
space__backup_without_a_disk_holds_the_producer_back_too(void **state)
{
	struct fixture *f = *state;
	static const uint8_t bytes[1000];

	f->t.disks[2].failed = true;
	put(f, 0, "it learns it now");
	trio_rest(&f->t);
	assert_true(f->t.primary.members[2].disk_failed);
	f->t.hold[TRIO_ACK][2] = true;
	fill(f);
	assert_true(f->t.primary.head.pos <=
		    f->t.primary.members[2].memory_pos);
	f->t.hold[TRIO_ACK][2] = false;
	trio_rest(&f->t);
	assert_true(trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0);
}

static void space__backup_that_is_away_holds_nobody_back(void **state)
{
	struct fixture *f = *state;
	static const uint8_t bytes[1000];

	trio_cut(&f->t, 2);
	for (unsigned i = 0; i < 500; i++) {
		assert_true(trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0);
		trio_rest(&f->t);
	}
	assert_true(reached(f, PETAL_LEVEL_DISK2));
	assert_false(reached(f, PETAL_LEVEL_MEM3));
}

static void space__write_under_way_keeps_its_bytes(void **state)
{
	struct fixture *f = *state;
	static const uint8_t bytes[1000];
	struct trio_flight *first, *second;

	for (unsigned i = 0; i < 2; i++) {
		assert_true(trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0);
		for (unsigned n = 0; n < 16; n++)
			trio_step(&f->t);
	}
	first = trio_find(&f->t, TRIO_WRITE, 1);
	assert_non_null(first);
	second = first + 1;
	while (second->kind != TRIO_WRITE || second->member != 1 ||
	       !second->used)
		second++;
	/* All has arrived, but only the later write is told about. */
	trio_deliver(&f->t, first, UINT64_MAX);
	trio_deliver(&f->t, second, UINT64_MAX);
	trio_complete(&f->t, second);
	f->t.hold[TRIO_WRITE][1] = true;
	trio_rest(&f->t);
	assert_true(f->t.primary.members[1].memory_pos > first->pos);
	assert_true(f->t.primary.members[1].wrote_pos <= first->pos);
	f->t.hold[TRIO_WRITE][1] = false;
	trio_rest(&f->t);
	assert_int_equal(f->t.primary.members[1].wrote_pos, end_of(f));
}

static void space__waits_for_the_disk_of_an_attached_backup(void **state)
{
	struct fixture *f = *state;
	static const uint8_t bytes[1000];

	f->t.hold_disk[1] = true;
	fill(f);
	assert_true(reached(f, PETAL_LEVEL_MEM3));
	f->t.hold_disk[1] = false;
	trio_rest(&f->t);
	assert_true(trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0);
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
}

static void step__batch_for_the_disk_is_bounded(void **state)
{
	struct trio_options big = options;
	static const uint8_t bytes[65536];
	struct fixture *f;

	big.data_bytes = UINT64_C(16) << 20;
	setup_with(state, &big);
	f = *state;
	link_both(&f->t);
	for (unsigned i = 0; i < 3; i++)
		f->t.hold_disk[i] = true;
	while (end_of(f) < big.data_bytes / 4 * 3) {
		assert_true(trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0);
		trio_rest(&f->t);
	}
	for (unsigned i = 0; i < 3; i++) {
		f->t.hold_disk[i] = false;
		trio_disk_end(&f->t, i, 0);
	}
	trio_step(&f->t);
	trio_step_backup(&f->t, 1);
	/* The journal takes no more than a part of its file in one piece. */
	for (unsigned i = 0; i < 2; i++) {
		assert_true(f->t.disks[i].busy);
		assert_true(f->t.disks[i].to.pos - f->t.disks[i].from.pos <=
			    UINT64_C(4) << 20);
	}
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
	teardown(state);
}

/* ---- members come and go ---- */

static void join__backup_with_its_memory_goes_on_where_it_was(void **state)
{
	struct fixture *f = *state;
	uint64_t bytes;

	put(f, WORK, "before");
	trio_rest(&f->t);
	trio_cut(&f->t, 1);
	put(f, WORK, "meanwhile");
	trio_rest(&f->t);
	assert_false(reached(f, PETAL_LEVEL_MEM3));
	bytes = f->t.primary.counts.write_bytes;
	assert_true(trio_link(&f->t, 1));
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
	assert_int_equal(f->t.primary.counts.write_bytes - bytes, 128);
}

/* Its disk is behind its memory; to believe otherwise would be a lie. */
static void join__disk_of_a_backup_counts_only_as_far_as_it_says(void **state)
{
	struct fixture *f = *state;

	f->t.hold_disk[0] = f->t.hold_disk[1] = f->t.hold_disk[2] = true;
	put(f, WORK, "in memory");
	trio_rest(&f->t);
	trio_cut(&f->t, 1);
	f->t.hold_disk[1] = false;
	trio_disk_end(&f->t, 1, 0);
	put(f, WORK, "more");
	trio_rest(&f->t);
	trio_cut(&f->t, 2);
	f->t.hold_disk[0] = false;
	trio_rest(&f->t);
	assert_true(f->t.primary.disk_pos == end_of(f));
	assert_false(reached(f, PETAL_LEVEL_DISK2));
	trio_disk_end(&f->t, 2, -EIO); /* so that it may be linked again */
	assert_true(trio_link(&f->t, 2));
	for (unsigned n = 0; n < 32; n++) {
		trio_step(&f->t);
		assert_false(reached(f, PETAL_LEVEL_DISK2));
	}
	trio_rest(&f->t);
	assert_false(reached(f, PETAL_LEVEL_DISK2));
	assert_int_equal(f->t.bad_acks, 0);
}

static uint64_t disk2_when_member_2_says(struct fixture *f, uint64_t disk_pos)
{
	const struct petal_log_line line = { { end_of(f), disk_pos, 0 } };

	petal_log_line_write(&f->t.log.acks[2], &line);
	assert_ok(petal_primary_acked(&f->t.primary, 2));
	petal_primary_step(&f->t.primary, f->t.now_ns);
	return trio_level(&f->t, PETAL_LEVEL_DISK2);
}

/* Before that it is one disk of two that has what was acknowledged. */
static void join__new_disk_counts_when_it_has_what_was_accepted(void **state)
{
	struct fixture *f = *state;
	uint64_t before, end;

	put(f, WORK, "kept on three disks");
	trio_rest(&f->t);
	before = end_of(f);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
	trio_cut(&f->t, 1);
	trio_crash(&f->t, 2, false);
	f->t.hold_disk[2] = true;
	put(f, WORK, "on one");
	put(f, WORK, "as well");
	trio_rest(&f->t);
	end = end_of(f);
	assert_true(trio_link(&f->t, 2));
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_MEM2));
	assert_int_equal(disk2_when_member_2_says(f, end - 64), before);
	assert_int_equal(disk2_when_member_2_says(f, end), end);
}

static void join__backup_away_too_long_begins_at_the_head(void **state)
{
	struct fixture *f = *state;
	static const uint8_t bytes[1000];

	trio_cut(&f->t, 1);
	for (unsigned i = 0; i < 500; i++) {
		assert_true(trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0);
		trio_rest(&f->t);
	}
	assert_true(f->t.members[1].backup.cursor.pos < f->t.primary.head.pos);
	assert_true(trio_link(&f->t, 1));
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
	assert_int_equal(f->t.bad_acks, 0);
}

static void
join__backup_without_its_memory_does_not_count_until_admitted(void **state)
{
	struct fixture *f = *state;

	put(f, WORK, "held by 1");
	trio_rest(&f->t);
	trio_cut(&f->t, 2);
	trio_crash(&f->t, 1, false);
	f->t.hold[TRIO_ADMIT][1] = true;
	put(f, WORK, "after the loss");
	assert_true(trio_link(&f->t, 1));
	trio_rest(&f->t);
	/* It holds everything, and was asked for, and yet does not vote. */
	assert_true(f->t.members[1].backup.cursor.pos == end_of(f));
	assert_non_null(trio_find(&f->t, TRIO_ADMIT, 1));
	assert_false(reached(f, PETAL_LEVEL_MEM2));
	f->t.hold[TRIO_ADMIT][1] = false;
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_MEM2));
}

static void join__learner_is_not_proposed_before_it_caught_up(void **state)
{
	struct fixture *f = *state;

	put(f, WORK, "old");
	trio_rest(&f->t);
	trio_crash(&f->t, 1, false);
	f->t.hold[TRIO_WRITE][1] = true;
	assert_true(trio_link(&f->t, 1));
	trio_rest(&f->t);
	assert_null(trio_find(&f->t, TRIO_ADMIT, 1));
	assert_false(f->t.primary.members[1].asked);
	f->t.hold[TRIO_WRITE][1] = false;
	trio_rest(&f->t);
	assert_true(f->t.primary.members[1].voter);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
}

static void join__crash_during_admission_begins_again(void **state)
{
	struct fixture *f = *state;

	trio_crash(&f->t, 1, false);
	f->t.hold[TRIO_ADMIT][1] = true;
	assert_true(trio_link(&f->t, 1));
	trio_rest(&f->t);
	trio_crash(&f->t, 1, false);
	assert_true(trio_link(&f->t, 1));
	f->t.hold[TRIO_ADMIT][1] = false;
	trio_rest(&f->t);
	assert_true(f->t.primary.members[1].voter);
	assert_int_equal(f->t.members[1].votes_as, f->t.members[1].inc);
}

/* ---- from the journal ---- */

static void restore__journal_is_a_prefix_and_only_the_rest_is_sent(void **state)
{
	struct fixture *f = *state;
	uint64_t bytes;

	for (unsigned i = 0; i < 50; i++)
		put(f, WORK, "kept on disk");
	trio_rest(&f->t);
	trio_crash(&f->t, 1, true);
	assert_true(f->t.members[1].backup.cursor.pos == end_of(f));
	bytes = f->t.primary.counts.write_bytes;
	assert_true(trio_link(&f->t, 1));
	trio_rest(&f->t);
	assert_int_equal(f->t.primary.counts.write_bytes, bytes);
	assert_true(f->t.primary.members[1].voter);
	put(f, WORK, "and on");
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
}

/* The bytes of a journal, for petal_backup_restore() to be tried on. */
static void journal_fill(struct fixture *f)
{
	for (unsigned i = 0; i < 6; i++) {
		put(f, WORK, "a batch each");
		trio_rest(&f->t);
	}
	assert_true(f->t.disks[1].batch_count >= 4);
}

static int restore_batch(struct fixture *f, unsigned n, uint64_t trim_pos)
{
	const struct trio_batch *batch = &f->t.disks[1].batches[n];

	return petal_backup_restore(&f->t.members[2].backup, &batch->from,
				    batch->bytes,
				    batch->to_pos - batch->from.pos, trim_pos);
}

/*
 * A log with a hole before it is no prefix, whatever its end looks like: it
 * would be counted for records that it does not hold.
 */
static void
restore__what_begins_after_the_trim_position_is_refused(void **state)
{
	struct fixture *f = *state;
	const struct petal_backup *b = &f->t.members[2].backup;
	uint64_t trim_pos, end;

	journal_fill(f);
	trim_pos = f->t.primary.trim_pos;
	assert_true(f->t.disks[1].batches[0].from.pos <= trim_pos);
	trio_crash(&f->t, 2, false);
	assert_outcome(restore_batch(f, 2, trim_pos), -PETAL_ECORRUPT);
	assert_int_equal(b->cursor.pos, 0);
	assert_ok(restore_batch(f, 0, trim_pos));
	assert_ok(restore_batch(f, 1, trim_pos));
	end = b->cursor.pos;
	assert_outcome(restore_batch(f, 3, trim_pos), -PETAL_ECORRUPT);
	assert_int_equal(b->cursor.pos, end);
	assert_int_equal(b->disk_pos, end);
	/* The hole is filled again, and then it is as good as any. */
	memcpy(f->t.disks[2].image, f->t.disks[1].image, DATA_BYTES);
	assert_true(trio_link(&f->t, 2));
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_MEM3));
	/* Where all before a batch is known to be done, it may begin. */
	trio_crash(&f->t, 2, false);
	assert_ok(restore_batch(f, 3, f->t.disks[1].batches[3].from.pos));
}

static void
restore__bytes_that_are_no_records_leave_what_was_there(void **state)
{
	struct fixture *f = *state;
	const struct petal_backup *b = &f->t.members[2].backup;
	struct trio_batch *batches = f->t.disks[1].batches;
	struct petal_record_cursor from, before;
	uint64_t random = 3;

	journal_fill(f);
	batches = f->t.disks[1].batches;
	trio_crash(&f->t, 2, false);
	assert_ok(restore_batch(f, 0, UINT64_MAX));
	before = b->cursor;
	for (unsigned n = 0; n < 2000; n++) {
		/* One that follows, and one that would begin anew. */
		const struct trio_batch *batch = &batches[1 + n % 2];
		uint64_t length = batch->to_pos - batch->from.pos;
		uint8_t *bytes = malloc(length);

		memcpy(bytes, batch->bytes, length);
		/* Beyond the commit word, which no CRC covers. */
		bytes[8 + petal_test_random(&random) % 56] ^=
			(uint8_t)(1 + petal_test_random(&random) % 255);
		assert_outcome(petal_backup_restore(&f->t.members[2].backup,
						    &batch->from, bytes, length,
						    UINT64_MAX),
			       -PETAL_ECORRUPT);
		free(bytes);
		assert_memory_equal(&b->cursor, &before, sizeof(before));
		assert_int_equal(b->disk_pos, before.pos);
	}
	from = batches[1].from;
	assert_outcome(petal_backup_restore(&f->t.members[2].backup, &from,
					    batches[1].bytes, 63, UINT64_MAX),
		       -PETAL_ECORRUPT);
	from.epoch++;
	assert_outcome(petal_backup_restore(&f->t.members[2].backup, &from,
					    batches[1].bytes, 64, UINT64_MAX),
		       -PETAL_ECORRUPT);
	assert_ok(restore_batch(f, 1, UINT64_MAX));
}

/* ---- the acknowledgement line ---- */

static void
acked__beyond_what_was_accepted_is_corrupt_and_not_believed(void **state)
{
	struct fixture *f = *state;
	uint64_t end = end_of(f);

	lie(f, end + 64, end);
	assert_outcome(petal_primary_acked(&f->t.primary, 1), -PETAL_ECORRUPT);
	lie(f, end, end + 64);
	assert_outcome(petal_primary_acked(&f->t.primary, 1), -PETAL_ECORRUPT);
	lie(f, UINT64_MAX, UINT64_MAX);
	assert_outcome(petal_primary_acked(&f->t.primary, 1), -PETAL_ECORRUPT);
	trio_step(&f->t);
	assert_int_equal(trio_level(&f->t, PETAL_LEVEL_MEM3), end);
}

/*
 * One-sided writes may overtake each other, and may be seen half landed: a
 * line that goes back is old news, not a reason to cut off a good member.
 */
static void acked__going_back_changes_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t end = end_of(f);

	lie(f, 0, 0);
	assert_ok(petal_primary_acked(&f->t.primary, 1));
	assert_int_equal(f->t.primary.members[1].memory_pos, end);
	assert_int_equal(f->t.primary.members[1].disk_pos, end);
	put(f, WORK, "next");
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
}

/* The link ended when the bytes were there and nobody had looked at them. */
static void acked__what_an_earlier_link_left_is_no_lie(void **state)
{
	struct fixture *f = *state;
	struct trio_flight *flight;

	put(f, WORK, "first");
	for (unsigned n = 0; n < 16; n++)
		trio_step(&f->t);
	flight = trio_find(&f->t, TRIO_WRITE, 1);
	assert_non_null(flight);
	trio_deliver(&f->t, flight, UINT64_MAX);
	trio_cut(&f->t, 1);
	f->t.hold[TRIO_WRITE][1] = true;
	assert_true(trio_link(&f->t, 1));
	trio_rest(&f->t);
	assert_int_equal(f->t.bad_acks, 0);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
}

/* One more record for backup 1, which looks at it and posts its line. */
static void put_to_one(struct fixture *f, const char *text)
{
	struct trio_flight *flight;

	put(f, WORK, text);
	for (unsigned n = 0; n < 16; n++)
		trio_step(&f->t);
	flight = trio_find(&f->t, TRIO_WRITE, 1);
	assert_non_null(flight);
	trio_deliver(&f->t, flight, UINT64_MAX);
	trio_complete(&f->t, flight);
	trio_step_backup(&f->t, 1);
}

/*
 * A wire reads the line when it has room to, part by part, and the backup may
 * have stored the next by then: a low byte of the one and a high byte of the
 * other are more than either.
 */
static void acked__line_of_two_times_is_not_believed(void **state)
{
	struct fixture *f = *state;
	struct trio_flight *first;

	assert_int_equal(end_of(f), 0x40);
	put_to_one(f, "to 0xc0");
	first = trio_find(&f->t, TRIO_ACK, 1);
	assert_non_null(first);
	trio_deliver(&f->t, first, 1);
	put_to_one(f, "to 0x140");
	put(f, WORK, "to 0x1c0, which is not sent");
	trio_deliver(&f->t, first, UINT64_MAX);
	trio_complete(&f->t, first);
	assert_true(f->t.primary.members[1].memory_pos <= 0x140);
	assert_int_equal(f->t.bad_acks, 0);
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
}

static void orders__line_of_two_times_is_not_believed(void **state)
{
	struct fixture *f = *state;
	struct petal_backup *b = &f->t.members[1].backup;
	struct petal_log_orders *line = f->t.members[1].log.orders;

	for (unsigned i = 0; i < 100; i++) {
		put(f, 0, "done at once");
		f->t.now_ns += PETAL_MS(100);
		trio_rest(&f->t);
	}
	put(f, WORK, "not done");
	trio_rest(&f->t);
	assert_true(b->trim_pos > 0);
	assert_true(b->trim_pos < b->cursor.pos);
	atomic_store(&line->trim_pos, b->cursor.pos);
	petal_backup_step(b);
	assert_true(b->trim_pos < b->cursor.pos);
}

static void acked__of_a_member_that_left_is_ignored(void **state)
{
	struct fixture *f = *state;

	trio_cut(&f->t, 1);
	lie(f, UINT64_MAX, UINT64_MAX);
	assert_ok(petal_primary_acked(&f->t.primary, 1));
}

/* ---- bytes that land late ---- */

/*
 * No CRC of a record covers what lies between its payload and the next line,
 * nor the payload of a padding. If the backup went on before these have
 * landed, they would change under its journal.
 */
static void land__record_counts_when_its_last_byte_is_there(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;
	struct trio_flight *flight;
	uint64_t before = end_of(f);

	f->t.stream = true;
	memset(petal_log_at(&f->t.members[1].log, before), 0xa5, 128);
	assert_ok(trio_claim(&f->source, 5, &claim));
	memset((uint8_t *)claim.record + 64, 0x5a, 64);
	trio_publish(&f->source, &claim, 0, WORK, 5);
	for (unsigned n = 0; n < 16; n++)
		trio_step(&f->t);
	flight = trio_find(&f->t, TRIO_WRITE, 1);
	assert_non_null(flight);
	while (!flight->landed) {
		trio_deliver(&f->t, flight, 1);
		trio_step_backup(&f->t, 1);
		if (!flight->landed)
			assert_int_equal(f->t.members[1].backup.cursor.pos,
					 before);
	}
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
}

static void land__payload_of_a_padding_is_not_sent(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;
	uint64_t before = end_of(f), bytes = f->t.primary.counts.write_bytes;

	memset(petal_log_at(&f->t.members[1].log, before), 0xa5, 4096);
	assert_ok(trio_claim(&f->source, 3000, &claim));
	memset(trio_payload(&claim), 0x5a, 3000);
	assert_ok(petal_mpsc_abort(&f->source.log.ring, &claim));
	put(f, WORK, "after it");
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
	/* A header and a record of two lines, to two backups. */
	assert_int_equal(f->t.primary.counts.write_bytes - bytes,
			 2 * (64 + 128));
	assert_int_equal(*petal_log_at(&f->t.members[1].log, before + 64),
			 0xa5);
	take(&f->worker, WORK, "after it");
}

static void land__torn_write_counts_only_when_whole(void **state)
{
	struct fixture *f = *state;
	static uint8_t bytes[10000];
	uint64_t random = 1;

	for (unsigned n = 0; n < 200; n++) {
		struct trio_flight *flight;

		memset(bytes, (int)n, sizeof(bytes));
		trio_put(
			&f->source, 0, bytes,
			(uint32_t)(petal_test_random(&random) % sizeof(bytes)));
		trio_step(&f->t);
		for (flight = trio_find(&f->t, TRIO_WRITE, 1);
		     flight != NULL && !flight->landed;) {
			trio_deliver(&f->t, flight,
				     petal_test_random(&random) % 300);
			trio_step_backup(&f->t, 1);
			trio_check_bytes(&f->t);
		}
		trio_rest(&f->t);
	}
}

/* ---- deaths ---- */

static void bury__claim_in_the_middle_becomes_padding(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;
	int64_t lsn;

	put(f, WORK, "before");
	assert_ok(trio_claim(&f->worker, 500, &claim));
	assert_int_equal(put(f, WORK, "behind"), 0); /* not decided */
	trio_rest(&f->t);
	trio_actor_die(&f->worker);
	trio_rest(&f->t);
	lsn = trio_outcome(&f->source, f->source.sequence);
	assert_true(lsn > 0);
	assert_int_equal(f->t.primary.counts.repaired, 1);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
	take(&f->source, WORK, "before");
	take(&f->source, WORK, "behind");
	assert_none(&f->source, WORK);
}

static void bury__what_was_published_counts_and_then_leases_return(void **state)
{
	struct fixture *f = *state;
	struct petal_message first;

	put(f, WORK, "acknowledged");
	put(f, WORK, "held");
	trio_rest(&f->t);
	first = take(&f->worker, WORK, "acknowledged");
	take(&f->worker, WORK, "held");
	assert_true(trio_forward(&f->worker, &first, 1, NULL, 0) > 0);
	trio_actor_die(&f->worker);
	trio_rest(&f->t);
	take(&f->source, WORK, "held");
	assert_none(&f->source, WORK);
}

static void bury__number_is_free_again_with_a_new_session(void **state)
{
	struct fixture *f = *state;

	assert_false(trio_actor_open(&f->t, 2, &f->worker));
	trio_actor_die(&f->worker);
	assert_false(trio_actor_open(&f->t, 2, &f->worker));
	trio_rest(&f->t);
	assert_true(trio_actor_open(&f->t, 2, &f->worker));
	assert_int_equal(trio_put(&f->worker, WORK, "fresh", 5), 1);
	trio_step(&f->t);
	assert_true(trio_outcome(&f->worker, 1) > 0);
}

/* What a producer leaves that stops in claim: before its swap, or after it. */
static void stop_in_claim(struct trio_actor *actor, bool swapped)
{
	struct petal_mpsc *ring = &actor->log.ring;
	uint64_t extent = petal_record_extent(200);
	uint64_t tail;

	assert_ok(petal_mpsc_make_room(ring, extent, &tail));
	petal_mpsc_intend(&ring->intents[actor->owner], tail, tail + extent);
	if (swapped)
		petal_store(&ring->shared->tail, tail + extent, PETAL_RELAXED);
}

static void bury__claim_without_a_name_becomes_padding(void **state)
{
	struct fixture *f = *state;

	stop_in_claim(&f->worker, true);
	assert_int_equal(put(f, WORK, "behind"), 0);
	trio_actor_die(&f->worker);
	trio_rest(&f->t);
	assert_true(trio_outcome(&f->source, f->source.sequence) > 0);
	take(&f->source, WORK, "behind");
}

/* The wish of a dead producer is not that of the next with its number. */
static void bury__number_in_use_again_does_not_answer_for_the_dead(void **state)
{
	struct fixture *f = *state;
	struct trio_actor third;

	trio_rest(&f->t);
	stop_in_claim(&f->worker, false);
	trio_actor_die(&f->worker);
	trio_rest(&f->t);
	assert_true(trio_actor_open(&f->t, 2, &f->worker));
	stop_in_claim(&f->source, true);
	trio_actor_die(&f->source);
	assert_true(trio_actor_open(&f->t, 3, &third));
	assert_int_equal(trio_put(&third, WORK, "behind", 6), 1);
	f->t.now_ns += PETAL_S(1);
	trio_rest(&f->t);
	assert_true(trio_outcome(&third, 1) > 0);
	take(&f->worker, WORK, "behind");
	petal_log_close(&third.log);
}

/* A producer that is only slow must not make the node's loop spin. */
static void bury__behind_a_living_claim_waits_without_spinning(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;
	uint64_t next_ns;

	assert_ok(trio_claim(&f->source, 100, &claim));
	assert_true(trio_put(&f->worker, WORK, "last words", 10) > 0);
	trio_actor_die(&f->worker);
	for (unsigned n = 0; n < 4; n++) {
		trio_step(&f->t);
		f->t.now_ns += 10;
	}
	assert_int_equal(f->t.step, 0);
	next_ns = petal_primary_next_ns(&f->t.primary);
	assert_in_range(next_ns, f->t.now_ns, f->t.now_ns + PETAL_MS(20));
	trio_publish(&f->source, &claim, 0, WORK, 100);
	f->t.now_ns = next_ns;
	trio_rest(&f->t);
	assert_false(f->t.primary.owners[2].attached);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
}

static void stall__is_told_from_when_a_claim_is_in_the_way(void **state)
{
	struct fixture *f = *state;
	struct petal_primary *primary = &f->t.primary;
	struct petal_mpsc_claim claim;
	uint64_t since_ns;
	uint32_t owner;

	put(f, 0, "before");
	trio_rest(&f->t);
	assert_int_equal(petal_primary_stalled_ns(primary), PETAL_CLOCK_NEVER);
	assert_ok(trio_claim(&f->source, 100, &claim));
	since_ns = f->t.now_ns;
	trio_step(&f->t);
	f->t.now_ns += PETAL_MS(7);
	trio_step(&f->t);
	assert_int_equal(petal_primary_stalled_ns(primary), since_ns);
	trio_publish(&f->source, &claim, 0, WORK, 100);
	trio_rest(&f->t);
	assert_int_equal(petal_primary_stalled_ns(primary), PETAL_CLOCK_NEVER);

	assert_ok(trio_claim(&f->source, 100, &claim));
	trio_step(&f->t);
	assert_int_equal(petal_primary_stalled_ns(primary), f->t.now_ns);
	petal_primary_depose(primary);
	assert_ok(petal_primary_expel(primary, &owner));
	assert_int_equal(owner, f->source.owner);
	assert_int_equal(petal_mpsc_publish(&f->source.log.ring, &claim),
			 -ESTALE);
}

/* Before a member goes for good, another one must have what counted. */
static void exclude__counts_no_more_and_another_has_to_cover(void **state)
{
	struct fixture *f = *state;
	struct petal_primary *primary = &f->t.primary;

	put(f, 0, "before");
	trio_rest(&f->t);
	assert_true(petal_primary_covered(primary));
	f->t.hold[TRIO_WRITE][1] = true;
	put(f, 0, "at the second backup only");
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_MEM2));
	petal_primary_exclude(primary, 2);
	assert_false(petal_primary_covered(primary));
	put(f, 0, "counted by nobody but us");
	trio_rest(&f->t);
	assert_false(reached(f, PETAL_LEVEL_MEM2));
	f->t.hold[TRIO_WRITE][1] = false;
	trio_rest(&f->t);
	assert_true(petal_primary_covered(primary));
	assert_true(reached(f, PETAL_LEVEL_MEM2));
	assert_false(reached(f, PETAL_LEVEL_MEM3));
	petal_primary_admitted(primary, 2);
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_MEM3));
}

/* ---- disks that fail ---- */

static void disk__own_failure_freezes_d_and_memory_goes_on(void **state)
{
	struct fixture *f = *state;
	static const uint8_t bytes[1000];
	uint64_t disk_pos;

	put(f, 0, "before");
	trio_rest(&f->t);
	disk_pos = f->t.primary.disk_pos;
	put(f, 0, "lost on disk");
	assert_true(trio_disk_end(&f->t, 0, -EIO));
	/* Laps: it does not hold the ring back. */
	while (end_of(f) < 3 * DATA_BYTES) {
		assert_true(trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0);
		trio_rest(&f->t);
	}
	assert_int_equal(f->t.primary.disk_pos, disk_pos);
	assert_true(reached(f, PETAL_LEVEL_MEM3));
	assert_true(reached(f, PETAL_LEVEL_DISK2)); /* the two others */
	assert_int_equal(trio_level(&f->t, PETAL_LEVEL_DISK3), disk_pos);
}

/* The journal may have met its error with another ring's batch. */
static void disk__refusal_of_a_batch_freezes_too(void **state)
{
	struct fixture *f = *state;
	static const uint8_t bytes[1000];

	trio_rest(&f->t);
	for (unsigned i = 0; i < 3; i++)
		f->t.disks[i].failed = true;
	for (unsigned i = 0; i < 300; i++) {
		assert_true(trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0);
		trio_rest(&f->t);
	}
	assert_true(f->t.primary.journal_frozen);
	assert_true(f->t.members[1].backup.journal_frozen);
	assert_true(reached(f, PETAL_LEVEL_MEM3));
	assert_false(reached(f, PETAL_LEVEL_DISK2));
}

static void disk__full_one_waits_and_goes_on(void **state)
{
	struct fixture *f = *state;

	f->t.disks[0].full = f->t.disks[1].full = true;
	put(f, WORK, "waits");
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_MEM3));
	assert_false(reached(f, PETAL_LEVEL_DISK2));
	f->t.disks[0].full = f->t.disks[1].full = false;
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_DISK3));
}

/*
 * The ring is full because of a backup's disk, which fails then: there is no
 * record any more whose acknowledgement could carry the news.
 */
static void disk__failure_of_a_backup_is_told_without_a_record(void **state)
{
	struct fixture *f = *state;
	static const uint8_t bytes[1000];

	f->t.hold_disk[1] = true;
	fill(f);
	assert_int_equal(trio_put(&f->source, 0, bytes, sizeof(bytes)), 0);
	assert_true(trio_disk_end(&f->t, 1, -EIO));
	trio_rest(&f->t);
	assert_true(f->t.primary.members[1].disk_failed);
	assert_true(trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0);
	for (unsigned i = 0; i < 300; i++) {
		put(f, 0, "on");
		trio_rest(&f->t);
	}
	assert_true(reached(f, PETAL_LEVEL_MEM3));
	assert_true(reached(f, PETAL_LEVEL_DISK2));
	assert_false(reached(f, PETAL_LEVEL_DISK3));
}

/* A batch of the log that was is no news about the log that is. */
static void disk__batch_from_before_a_new_start_does_not_count(void **state)
{
	struct fixture *f = *state;
	struct petal_backup *b = &f->t.members[1].backup;
	struct petal_record_cursor start;
	uint64_t end;

	f->t.hold_disk[1] = true;
	for (unsigned i = 0; i < 4; i++)
		put(f, WORK, "batch");
	trio_rest(&f->t);
	assert_true(f->t.disks[1].busy);
	end = f->t.disks[1].to.pos;
	start = (struct petal_record_cursor){ 0 };
	/* From nothing, as the primary says: what is there was another log. */
	assert_int_equal(petal_backup_start(b, &start, end, NULL), 1);
	petal_backup_step(b);
	assert_int_equal(b->cursor.pos, 0);
	petal_backup_journaled(b, end, 0);
	f->t.disks[1].busy = false;
	assert_int_equal(b->disk_pos, 0);
	assert_int_equal(petal_backup_start(b, &start, end, NULL), 0);
	petal_backup_step(b);
	assert_int_equal(b->cursor.pos, 0);
	assert_false(b->whole);
}

/* ---- signals ---- */

static void signal__owner_is_told_when_its_level_is_reached(void **state)
{
	struct fixture *f = *state;
	struct petal_log_owner *line = &f->t.log.owners[1];

	put(f, WORK, "wait for me");
	atomic_store(&line->signal_level, PETAL_LEVEL_MEM3);
	atomic_store(&line->signal_pos, end_of(f));
	f->t.hold[TRIO_ACK][2] = true;
	trio_rest(&f->t);
	assert_int_equal(f->t.signals, 0);
	f->t.hold[TRIO_ACK][2] = false;
	trio_rest(&f->t);
	assert_int_equal(f->t.signals, 1);
	assert_int_equal(atomic_load(&line->signal_pos), 0);
	put(f, WORK, "and no more");
	trio_rest(&f->t);
	assert_int_equal(f->t.signals, 1);
	atomic_store(&line->signal_level, 999);
	atomic_store(&line->signal_pos, 1);
	put(f, WORK, "nonsense");
	trio_rest(&f->t);
	assert_int_equal(f->t.signals, 1);
}

static bool rang(struct petal_log_owner *line, uint32_t *seen)
{
	uint32_t before = *seen;

	*seen = petal_load(&line->bell.sequence, PETAL_RELAXED);
	return *seen != before;
}

static void bell__rings_for_the_level_that_its_owner_waits_for(void **state)
{
	struct fixture *f = *state;
	struct petal_log_owner *line = &f->t.log.owners[1];
	uint32_t seen = 0;

	put(f, WORK, "wait for me");
	atomic_store(&line->wait, petal_log_wait(end_of(f), PETAL_LEVEL_MEM3));
	petal_doorbell_arm(&line->bell);
	f->t.hold[TRIO_ACK][2] = true;
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_MEM2));
	assert_false(rang(line, &seen));
	f->t.hold[TRIO_ACK][2] = false;
	trio_rest(&f->t);
	assert_true(rang(line, &seen));
	/* It does not sleep any more. */
	put(f, WORK, "and no more");
	trio_rest(&f->t);
	assert_false(rang(line, &seen));
}

static void bell__rings_for_a_refusal_at_once(void **state)
{
	struct fixture *f = *state;
	struct petal_log_owner *line = &f->t.log.owners[1];
	uint32_t seen = 0;

	trio_cut(&f->t, 1);
	trio_cut(&f->t, 2);
	atomic_store(&line->wait,
		     petal_log_wait(UINT64_C(1) << 40, PETAL_LEVEL_DISK3));
	petal_doorbell_arm(&line->bell);
	assert_true(put(f, 99, "for no queue of ours") < 0);
	assert_true(rang(line, &seen));
}

static void bell__rings_when_nothing_will_come(void **state)
{
	struct fixture *f = *state;
	struct petal_log_owner *line = &f->t.log.owners[1];
	uint32_t seen = 0;

	atomic_store(&line->wait,
		     petal_log_wait(UINT64_C(1) << 40, PETAL_LEVEL_DISK3));
	petal_doorbell_arm(&line->bell);
	petal_primary_depose(&f->t.primary);
	assert_true(rang(line, &seen));
}

/* ---- news ---- */

static void news__are_what_a_step_would_find(void **state)
{
	struct fixture *f = *state;
	struct petal_backup *b = &f->t.members[1].backup;
	struct trio_flight *flight;

	assert_false(petal_backup_news(b));
	put(f, WORK, "new");
	flight = trio_find(&f->t, TRIO_WRITE, 1);
	while (flight == NULL) {
		trio_step(&f->t);
		flight = trio_find(&f->t, TRIO_WRITE, 1);
	}
	assert_false(petal_backup_news(b));
	trio_deliver(&f->t, flight, UINT64_MAX);
	assert_true(petal_backup_news(b));
	petal_backup_step(b);
	assert_false(petal_backup_news(b));
	assert_false(petal_primary_news(&f->t.primary));
	flight = trio_find(&f->t, TRIO_ACK, 1);
	assert_non_null(flight);
	trio_deliver(&f->t, flight, UINT64_MAX);
	assert_true(petal_primary_news(&f->t.primary));
	assert_ok(petal_primary_acked(&f->t.primary, 1));
	assert_false(petal_primary_news(&f->t.primary));
}

static void news__long_record_is_looked_at_when_it_may_be_whole(void **state)
{
	struct fixture *f = *state;
	struct petal_backup *b = &f->t.members[1].backup;
	const uint32_t length = PETAL_LOG_LONG_BYTES + 1000;
	uint8_t *bytes = calloc(1, length);
	struct trio_flight *flight = NULL;
	uint64_t pos;

	f->t.stream = true;
	bytes[0] = 1;
	assert_true(trio_put(&f->source, 0, bytes, length) > 0);
	while (flight == NULL) {
		trio_step(&f->t);
		flight = trio_find(&f->t, TRIO_WRITE, 1);
	}
	assert_true(flight->told);
	pos = b->cursor.pos;
	trio_deliver(&f->t, flight, length / 2);
	petal_backup_step(b);
	assert_int_equal(b->cursor.pos, pos);
	/* The rest comes by itself, and nobody looks before it is told of. */
	flight->told = false;
	trio_deliver(&f->t, flight, UINT64_MAX);
	petal_backup_step(b);
	assert_int_equal(b->cursor.pos, pos);
	assert_false(petal_backup_news(b));
	petal_backup_landed(b);
	assert_true(petal_backup_news(b));
	petal_backup_step(b);
	assert_int_equal(b->cursor.pos, end_of(f));
	flight->told = true;
	free(bytes);
}

static void news__order_to_trim_is_one(void **state)
{
	struct fixture *f = *state;
	struct petal_backup *b = &f->t.members[1].backup;
	struct petal_log_line line = { { b->cursor.pos, 0, 0 } };

	assert_false(petal_backup_news(b));
	petal_log_line_write(b->log->orders, &line);
	assert_int_equal(petal_backup_news(b), b->cursor.pos > b->trim_pos);
	put(f, WORK, "more");
	trio_rest(&f->t);
	line.words[0] = b->cursor.pos;
	petal_log_line_write(b->log->orders, &line);
	assert_true(petal_backup_news(b));
	/* No place at all. */
	line.words[0] = b->cursor.pos - 1;
	petal_log_line_write(b->log->orders, &line);
	assert_false(petal_backup_news(b));
	/* Beyond what is there: all that is there. */
	line.words[0] = b->cursor.pos + 4096;
	petal_log_line_write(b->log->orders, &line);
	assert_true(petal_backup_news(b));
	petal_backup_step(b);
	assert_int_equal(b->trim_pos, b->cursor.pos);
	assert_false(petal_backup_news(b));
}

static void space__orders_may_be_ahead_of_a_slow_backup_for_ever(void **state)
{
	struct fixture *f = *state;
	static const uint8_t bytes[1000];

	f->t.hold[TRIO_WRITE][2] = true;
	while (end_of(f) < 3 * DATA_BYTES) {
		struct trio_flight *flight = trio_find(&f->t, TRIO_WRITE, 2);
		uint64_t pos = f->t.members[2].backup.cursor.pos;

		/* It gets the record before when it hears of this one. */
		assert_true(trio_put(&f->source, 0, bytes, sizeof(bytes)) > 0);
		f->t.now_ns += PETAL_MS(60);
		trio_rest(&f->t);
		if (flight == NULL)
			continue;
		trio_deliver(&f->t, flight, UINT64_MAX);
		trio_complete(&f->t, flight);
		trio_rest(&f->t);
		assert_true(f->t.members[2].backup.cursor.pos > pos);
		assert_true(f->t.members[2].backup.cursor.pos < end_of(f));
	}
}

/* ---- nonsense ---- */

static void halt__garbage_instead_of_a_record_stops_the_ring(void **state)
{
	struct fixture *f = *state;
	struct petal_mpsc_claim claim;
	uint64_t level = trio_level(&f->t, PETAL_LEVEL_MEM3);

	assert_ok(trio_claim(&f->source, 100, &claim));
	petal_store(&claim.record->commit, UINT64_C(0xdeadbeefdeadbeef),
		    PETAL_RELAXED);
	trio_step(&f->t);
	assert_outcome(f->t.step, -PETAL_ECORRUPT);
	assert_int_equal(atomic_load(&f->t.log.marks->state), PETAL_LOG_HALTED);
	trio_step(&f->t);
	assert_outcome(f->t.step, -PETAL_ECORRUPT);
	assert_int_equal(trio_level(&f->t, PETAL_LEVEL_MEM3), level);
}

static void backup__garbage_in_its_memory_is_never_counted(void **state)
{
	struct fixture *f = *state;
	struct petal_backup *b = &f->t.members[1].backup;
	uint64_t before = b->cursor.pos, random = 77;
	uint8_t *at = petal_log_at(&f->t.members[1].log, before);

	for (unsigned n = 0; n < 5000; n++) {
		for (unsigned i = 0; i < 128; i++)
			at[i] = (uint8_t)petal_test_random(&random);
		petal_backup_step(b);
		assert_int_equal(b->cursor.pos, before);
	}
	put(f, WORK, "the real one");
	trio_rest(&f->t);
	assert_true(reached(f, PETAL_LEVEL_MEM3));
}

/* ---- worlds ---- */

static uint64_t seed_at_work;

static int name_the_seed(void **state)
{
	(void)state;
	if (seed_at_work != 0)
		print_error("this was seed %llu\n",
			    (unsigned long long)seed_at_work);
	return 0;
}

static void run_seed(uint64_t seed)
{
	seed_at_work = seed;
	world_run(seed, 2000);
	seed_at_work = 0;
}

static void
world__nothing_is_lost_or_done_twice_whatever_goes_wrong(void **state)
{
	const char *one = getenv("PETAL_TEST_SEED");
	uint64_t seeds = petal_test_rounds(200);

	(void)state;
	if (one != NULL) {
		run_seed(strtoull(one, NULL, 10));
		return;
	}
	for (uint64_t seed = 1; seed <= seeds; seed++)
		run_seed(seed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_LARGE(name) \
	cmocka_unit_test_setup_teardown(name, setup_large, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			open__first_record_is_epoch_start, setup_apart,
			teardown),
		cmocka_unit_test(
			level__is_reached_by_so_many_copies_and_not_before),
		TEST(visibility__message_is_not_handed_out_before_mem2),
		TEST(visibility__part_of_a_record_is_nothing),
		TEST(visibility__acknowledgement_is_final_only_at_mem2),
		TEST(refuse__payload_crc_that_does_not_match),
		TEST(refuse__queue_that_the_ring_has_not),
		TEST(refuse__type_that_only_the_replicator_writes),
		TEST(refuse__session_of_somebody_else_and_without_a_word),
		TEST(refuse__gap_and_repetition_of_a_sequence),
		TEST(refuse__record_shorter_than_its_envelope),
		TEST(refuse__transaction_that_makes_no_sense),
		TEST(outcome__is_told_in_order_for_a_whole_window),
		TEST(txn__acknowledges_and_puts_in_one_record),
		TEST(txn__one_stale_lease_undoes_all),
		TEST(txn__lease_of_another_owner_is_refused),
		TEST(txn__expired_lease_is_refused_and_the_next_holder_counts),
		TEST(txn__published_before_the_deadline_and_seen_after_it_counts),
		cmocka_unit_test(
			dispatch__full_lease_table_waits_and_loses_nothing),
		cmocka_unit_test(dispatch__goes_on_in_the_step_that_makes_room),
		cmocka_unit_test(
			dispatch__settled_message_makes_no_room_before_it_is_visible),
		cmocka_unit_test(
			dispatch__transaction_that_fits_in_part_is_finished_later),
		TEST(space__many_laps_of_a_small_ring),
		TEST(space__backup_that_lags_holds_the_producer_back),
		TEST(space__backup_without_a_disk_holds_the_producer_back_too),
		TEST(space__backup_that_is_away_holds_nobody_back),
		TEST(space__write_under_way_keeps_its_bytes),
		TEST(space__orders_may_be_ahead_of_a_slow_backup_for_ever),
		TEST(space__waits_for_the_disk_of_an_attached_backup),
		cmocka_unit_test(step__batch_for_the_disk_is_bounded),
		TEST(join__backup_with_its_memory_goes_on_where_it_was),
		TEST(join__disk_of_a_backup_counts_only_as_far_as_it_says),
		TEST(join__new_disk_counts_when_it_has_what_was_accepted),
		TEST(join__backup_away_too_long_begins_at_the_head),
		TEST(join__backup_without_its_memory_does_not_count_until_admitted),
		TEST(join__learner_is_not_proposed_before_it_caught_up),
		TEST(join__crash_during_admission_begins_again),
		TEST(restore__journal_is_a_prefix_and_only_the_rest_is_sent),
		TEST(restore__what_begins_after_the_trim_position_is_refused),
		TEST(restore__bytes_that_are_no_records_leave_what_was_there),
		TEST(acked__beyond_what_was_accepted_is_corrupt_and_not_believed),
		TEST(acked__what_an_earlier_link_left_is_no_lie),
		TEST(acked__going_back_changes_nothing),
		TEST(acked__line_of_two_times_is_not_believed),
		TEST(orders__line_of_two_times_is_not_believed),
		TEST(acked__of_a_member_that_left_is_ignored),
		TEST(land__record_counts_when_its_last_byte_is_there),
		TEST(land__payload_of_a_padding_is_not_sent),
		TEST(land__torn_write_counts_only_when_whole),
		TEST(bury__claim_in_the_middle_becomes_padding),
		TEST(bury__claim_without_a_name_becomes_padding),
		TEST(bury__what_was_published_counts_and_then_leases_return),
		TEST(bury__number_in_use_again_does_not_answer_for_the_dead),
		TEST(bury__number_is_free_again_with_a_new_session),
		TEST(bury__behind_a_living_claim_waits_without_spinning),
		TEST(exclude__counts_no_more_and_another_has_to_cover),
		TEST(stall__is_told_from_when_a_claim_is_in_the_way),
		TEST(disk__own_failure_freezes_d_and_memory_goes_on),
		TEST(disk__refusal_of_a_batch_freezes_too),
		TEST(disk__full_one_waits_and_goes_on),
		TEST(disk__failure_of_a_backup_is_told_without_a_record),
		TEST(disk__batch_from_before_a_new_start_does_not_count),
		TEST(signal__owner_is_told_when_its_level_is_reached),
		TEST(bell__rings_for_the_level_that_its_owner_waits_for),
		TEST(bell__rings_for_a_refusal_at_once),
		TEST(bell__rings_when_nothing_will_come),
		TEST(news__are_what_a_step_would_find),
		TEST(news__order_to_trim_is_one),
		TEST_LARGE(news__long_record_is_looked_at_when_it_may_be_whole),
		TEST(halt__garbage_instead_of_a_record_stops_the_ring),
		TEST(backup__garbage_in_its_memory_is_never_counted),
		cmocka_unit_test_teardown(
			world__nothing_is_lost_or_done_twice_whatever_goes_wrong,
			name_the_seed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
