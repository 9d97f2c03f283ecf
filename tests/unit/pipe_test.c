/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings/pipe.h promises: every record once, whole and in order, of any
 * length, at every remainder and near the ends of the counters, even if the
 * payloads are full of stamps; several shown by one store, or none of them;
 * records held and read ahead; successors of dead sides; a consumer that can
 * only read; and peers that lie.
 *
 * Harder: PETAL_TEST_HARDER=100 for a hundred times as many kills, records
 * between processes and lies.
 */
#include "tests/check.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "rings/pipe.h"

enum { DATA_BYTES = 1024 };

static const uint64_t starts[] = {
	0,
	16,
	DATA_BYTES - 48,
	(UINT64_C(1) << 32) - 32,
	(UINT64_C(1) << 63) - 48,
	UINT64_MAX - 15 - 64,
};

#define START_COUNT (sizeof(starts) / sizeof(starts[0]))

struct fixture {
	void *memory;
	uint64_t bytes;
	struct petal_pipe producer;
	struct petal_pipe consumer;
};

static struct petal_pipe attach(const struct fixture *f,
				enum petal_pipe_role role)
{
	struct petal_pipe ring;

	assert_ok(petal_pipe_attach(f->memory, f->bytes, role, &ring));
	return ring;
}

/* Memory that is full of something, for a ring is not made in zeroes only. */
static void fixture_init(struct fixture *f, uint64_t data_bytes,
			 uint64_t start_pos)
{
	const struct petal_pipe_geometry geometry = {
		.data_bytes = data_bytes,
		.start_pos = start_pos,
	};

	f->bytes = petal_pipe_bytes(&geometry);
	assert_true(f->bytes > 0);
	f->memory = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(f->memory, MAP_FAILED);
	memset(f->memory, 0xa5, f->bytes);
	assert_ok(petal_pipe_format(f->memory, &geometry));
	f->producer = attach(f, PETAL_PIPE_PRODUCER);
	f->consumer = attach(f, PETAL_PIPE_CONSUMER);
}

static void fixture_fini(struct fixture *f)
{
	munmap(f->memory, f->bytes);
}

static uint32_t length_of(uint64_t value, uint32_t most)
{
	uint64_t state = value;

	return (uint32_t)(petal_test_random(&state) % (most + 1));
}

/*
 * A payload that says at each of its words what the stamp of a record there
 * would be in the next lap, and the value in between.
 */
static void fill(const struct petal_pipe *ring, void *bytes, uint32_t length,
		 uint64_t value)
{
	uint64_t offset = (uint64_t)((uint8_t *)bytes - ring->data);
	uint64_t pos = (ring->pos & ~(ring->data_bytes - 1)) + offset;

	for (uint32_t i = 0; i + 8 <= length; i += 8) {
		uint64_t word = i % 16 ? value + i
				       : pos + ring->data_bytes + i + 1;

		memcpy((uint8_t *)bytes + i, &word, 8);
	}
	for (uint32_t i = length & ~7u; i < length; i++)
		((uint8_t *)bytes)[i] = (uint8_t)value;
}

static bool is_whole(const struct petal_pipe_view *view, uint64_t value)
{
	const uint8_t *bytes = view->bytes;

	for (uint32_t i = 8; i + 8 <= view->length; i += 16) {
		uint64_t word;

		memcpy(&word, bytes + i, 8);
		if (word != value + i)
			return false;
	}
	for (uint32_t i = view->length & ~7u; i < view->length; i++)
		if (bytes[i] != (uint8_t)value)
			return false;
	return view->type == (uint32_t)(value & 0xffff);
}

static int push(struct petal_pipe *ring, uint64_t value, uint32_t length)
{
	void *bytes = NULL;
	int err = petal_pipe_claim(ring, length, &bytes);

	if (err)
		return err;
	fill(ring, bytes, length, value);
	petal_pipe_publish(ring, length, (uint32_t)(value & 0xffff));
	return 0;
}

static void pop(struct petal_pipe *ring, uint64_t value, uint32_t length)
{
	struct petal_pipe_view view = { 0 };

	assert_ok(petal_pipe_peek(ring, petal_pipe_pos(ring), &view));
	assert_int_equal(view.length, length);
	assert_int_equal((uintptr_t)view.bytes % 16, 0);
	assert_true(is_whole(&view, value));
	petal_pipe_release(ring, view.end);
}

static void assert_nothing(struct petal_pipe *ring, int outcome)
{
	struct petal_pipe_view view;

	assert_outcome(petal_pipe_peek(ring, petal_pipe_pos(ring), &view),
		       outcome);
}

/* ---- one thread ---- */

static void order__is_kept_at_every_start_length_and_fill(void **state)
{
	(void)state;
	for (size_t s = 0; s < START_COUNT; s++) {
		for (uint32_t most = 0; most <= 240; most += 24) {
			struct fixture f;
			uint64_t in = 0, out = 0;

			fixture_init(&f, DATA_BYTES, starts[s]);
			while (out < 300) {
				while (push(&f.producer, in,
					    length_of(in, most)) == 0)
					in++;
				assert_true(in > out);
				for (uint64_t n = in % 5 + 1; n && out < in;
				     n--) {
					pop(&f.consumer, out,
					    length_of(out, most));
					out++;
				}
				if (out == in)
					assert_nothing(&f.consumer,
						       PETAL_RING_EMPTY);
			}
			fixture_fini(&f);
		}
	}
}

static void record__every_length_is_seen_at_every_offset(void **state)
{
	(void)state;
	for (uint32_t length = 0; length <= 240; length++) {
		struct fixture f;

		fixture_init(&f, DATA_BYTES, 0);
		for (uint64_t i = 0; i < 3 * DATA_BYTES / 16; i++) {
			assert_ok(push(&f.producer, i, length));
			pop(&f.consumer, i, length);
			assert_nothing(&f.consumer, PETAL_RING_EMPTY);
		}
		fixture_fini(&f);
	}
}

static void claim__too_long_is_refused_and_longest_always_fits(void **state)
{
	struct fixture f;
	void *bytes = NULL;

	(void)state;
	fixture_init(&f, DATA_BYTES, 0);
	for (uint64_t i = 0; i < 100; i++) {
		uint32_t most = petal_pipe_length_max(&f.producer);

		assert_outcome(petal_pipe_claim(&f.producer, most + 1, &bytes),
			       -EMSGSIZE);
		assert_outcome(petal_pipe_claim(&f.producer, UINT32_MAX,
						&bytes),
			       -EMSGSIZE);
		assert_ok(push(&f.producer, i, most));
		pop(&f.consumer, i, most);
		assert_ok(push(&f.producer, i, (uint32_t)(i % 50)));
		pop(&f.consumer, i, (uint32_t)(i % 50));
		assert_nothing(&f.consumer, PETAL_RING_EMPTY);
	}
	fixture_fini(&f);
}

static void claim__full_ring_says_so_and_keeps_its_last_word_free(void **state)
{
	struct fixture f;
	void *bytes = NULL;
	uint64_t n = 0;

	(void)state;
	fixture_init(&f, DATA_BYTES, 0);
	while (push(&f.producer, n, 16) == 0)
		n++;
	assert_int_equal(n, DATA_BYTES / 32 - 1);
	assert_ok(push(&f.producer, n, 0));
	assert_outcome(petal_pipe_claim(&f.producer, 0, &bytes), -EAGAIN);
	assert_int_equal(petal_pipe_backlog(&f.producer), DATA_BYTES - 16);
	for (uint64_t i = 0; i < n; i++)
		pop(&f.consumer, i, 16);
	pop(&f.consumer, n, 0);
	assert_nothing(&f.consumer, PETAL_RING_EMPTY);
	assert_int_equal(petal_pipe_backlog(&f.producer), 0);
	fixture_fini(&f);
}

static void publish__less_than_was_claimed(void **state)
{
	struct fixture f;
	void *bytes = NULL;

	(void)state;
	fixture_init(&f, DATA_BYTES, 0);
	for (uint64_t i = 0; i < 500; i++) {
		uint32_t length = length_of(i, 200);

		assert_ok(petal_pipe_claim(&f.producer, 240, &bytes));
		fill(&f.producer, bytes, length, i);
		petal_pipe_publish(&f.producer, length, (uint32_t)i & 0xffff);
		pop(&f.consumer, i, length);
		assert_nothing(&f.consumer, PETAL_RING_EMPTY);
	}
	fixture_fini(&f);
}

static void append(struct petal_pipe *ring, uint64_t value, uint32_t length)
{
	void *bytes = NULL;

	assert_ok(petal_pipe_claim(ring, length, &bytes));
	fill(ring, bytes, length, value);
	petal_pipe_append(ring, length, (uint32_t)(value & 0xffff));
}

static void show__brings_all_that_was_appended_or_nothing(void **state)
{
	struct fixture f;

	(void)state;
	for (size_t s = 0; s < START_COUNT; s++) {
		fixture_init(&f, DATA_BYTES, starts[s]);
		for (uint64_t i = 0; i < 400; i += 4) {
			for (uint64_t k = 0; k < 4; k++) {
				append(&f.producer, i + k,
				       length_of(i + k, 120));
				assert_nothing(&f.consumer, PETAL_RING_EMPTY);
			}
			petal_pipe_show(&f.producer);
			petal_pipe_show(&f.producer);
			for (uint64_t k = 0; k < 4; k++)
				pop(&f.consumer, i + k, length_of(i + k, 120));
			assert_nothing(&f.consumer, PETAL_RING_EMPTY);
		}
		fixture_fini(&f);
	}
}

static void abort__drops_claim_and_what_was_appended(void **state)
{
	struct fixture f;
	void *bytes = NULL;

	(void)state;
	fixture_init(&f, DATA_BYTES, 0);
	for (uint64_t i = 0; i < 500; i++) {
		append(&f.producer, 77, length_of(i, 100));
		append(&f.producer, 78, length_of(i + 1000, 100));
		assert_ok(petal_pipe_claim(&f.producer, 50, &bytes));
		memset(bytes, 0xee, 50);
		petal_pipe_abort(&f.producer);
		petal_pipe_show(&f.producer);
		assert_nothing(&f.consumer, PETAL_RING_EMPTY);
		assert_ok(push(&f.producer, i, length_of(i + 2000, 100)));
		pop(&f.consumer, i, length_of(i + 2000, 100));
		assert_nothing(&f.consumer, PETAL_RING_EMPTY);
	}
	fixture_fini(&f);
}

static void peek__records_are_held_while_others_are_read_ahead(void **state)
{
	struct petal_pipe_view view[5];
	struct fixture f;
	uint64_t pos;

	(void)state;
	fixture_init(&f, DATA_BYTES, 0);
	for (uint64_t i = 0; i < 500; i += 5) {
		for (uint64_t k = 0; k < 5; k++)
			assert_ok(push(&f.producer, i + k,
				       length_of(i + k, 100)));
		pos = petal_pipe_pos(&f.consumer);
		for (uint64_t k = 0; k < 5; k++) {
			assert_ok(petal_pipe_peek(&f.consumer, pos, &view[k]));
			pos = view[k].end;
		}
		assert_outcome(petal_pipe_peek(&f.consumer, pos, &view[0]),
			       PETAL_RING_EMPTY);
		for (uint64_t k = 0; k < 5; k++)
			assert_true(is_whole(&view[k], i + k));
		petal_pipe_release(&f.consumer, view[2].end);
		petal_pipe_release(&f.consumer, view[1].end);
		assert_true(petal_pipe_pos(&f.consumer) == view[2].end);
		petal_pipe_release(&f.consumer, pos);
	}
	fixture_fini(&f);
}

static void close__is_seen_after_the_last_record(void **state)
{
	struct fixture f;
	struct petal_pipe late;
	void *bytes = NULL;

	(void)state;
	fixture_init(&f, DATA_BYTES, 0);
	assert_ok(push(&f.producer, 1, 10));
	append(&f.producer, 2, 10);
	petal_pipe_close(&f.producer);
	assert_outcome(petal_pipe_claim(&f.producer, 0, &bytes), -EPIPE);
	late = attach(&f, PETAL_PIPE_PRODUCER);
	assert_outcome(petal_pipe_claim(&late, 0, &bytes), -EPIPE);
	pop(&f.consumer, 1, 10);
	assert_nothing(&f.consumer, PETAL_RING_CLOSED);
	fixture_fini(&f);

	fixture_init(&f, DATA_BYTES, 0);
	petal_pipe_close(&f.consumer);
	while (petal_pipe_claim(&f.producer, 200, &bytes) == 0)
		petal_pipe_publish(&f.producer, 200, 0);
	assert_outcome(petal_pipe_claim(&f.producer, 200, &bytes), -EPIPE);
	fixture_fini(&f);
}

static void successor__goes_on_where_the_dead_side_stopped(void **state)
{
	struct fixture f;
	struct petal_pipe_view view = { 0 };
	uint64_t in = 0, out = 0;

	(void)state;
	fixture_init(&f, DATA_BYTES, starts[4]);
	for (int round = 0; round < 300; round++) {
		for (int k = round % 4; k > 0; k--)
			assert_ok(push(&f.producer, in++, 40));
		append(&f.producer, 999, 24);
		append(&f.producer, 998, 24);
		/* Dead before show. */
		f.producer = attach(&f, PETAL_PIPE_PRODUCER);
		while (out < in)
			pop(&f.consumer, out++, 40);
		if (round % 3 == 0) {
			uint64_t seen = 0;

			f.consumer = attach(&f, PETAL_PIPE_CONSUMER);
			while (petal_pipe_peek(&f.consumer,
					       petal_pipe_pos(&f.consumer),
					       &view) == 0) {
				petal_pipe_release(&f.consumer, view.end);
				seen++;
			}
			assert_true(seen <= DATA_BYTES / 4 / 32);
		}
	}
	fixture_fini(&f);
}

static void successor__finds_what_was_shown_before_tail_was_stored(void **state)
{
	struct fixture f;
	uint64_t tail;

	(void)state;
	fixture_init(&f, DATA_BYTES, starts[2]);
	for (uint64_t i = 0; i < 200; i += 3) {
		tail = petal_load(&f.producer.shared->tail, PETAL_RELAXED);
		for (uint64_t k = 0; k < 3; k++)
			append(&f.producer, i + k, length_of(i + k, 100));
		petal_pipe_show(&f.producer);
		petal_store(&f.producer.shared->tail, tail, PETAL_RELAXED);
		f.producer = attach(&f, PETAL_PIPE_PRODUCER);
		for (uint64_t k = 0; k < 3; k++)
			pop(&f.consumer, i + k, length_of(i + k, 100));
		assert_nothing(&f.consumer, PETAL_RING_EMPTY);
	}
	fixture_fini(&f);
}

/* ---- bad input ---- */

static void format__shapes_out_of_range_are_refused(void **state)
{
	static const struct petal_pipe_geometry bad[] = {
		{ .data_bytes = 512 },
		{ .data_bytes = 3072 },
		{ .data_bytes = UINT64_C(1) << 41 },
		{ .data_bytes = 1024, .start_pos = 8 },
	};
	struct fixture f;

	(void)state;
	fixture_init(&f, DATA_BYTES, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(petal_pipe_bytes(&bad[i]), 0);
		assert_outcome(petal_pipe_format(f.memory, &bad[i]), -EINVAL);
	}
	assert_outcome(petal_pipe_format_cursor(f.memory, 8), -EINVAL);
	assert_ok(push(&f.producer, 1, 8));
	pop(&f.consumer, 1, 8);
	fixture_fini(&f);
}

static void attach__what_is_no_such_ring_is_refused(void **state)
{
	const enum petal_pipe_role role = PETAL_PIPE_CONSUMER;
	struct petal_pipe_shared *shared;
	struct petal_pipe ring;
	struct fixture f;
	void *cursor;

	(void)state;
	fixture_init(&f, DATA_BYTES, 0);
	shared = f.memory;
	cursor = (uint8_t *)f.memory + 512;
	assert_outcome(petal_pipe_attach((uint8_t *)f.memory + 8, f.bytes, role,
					 &ring),
		       -EINVAL);
	assert_outcome(petal_pipe_attach(f.memory, 383, role, &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_pipe_attach(f.memory, f.bytes - 1, role, &ring),
		       -PETAL_EGEOMETRY);
	assert_outcome(petal_pipe_attach_apart(f.memory, f.bytes, cursor, 256,
					       role, &ring),
		       -EINVAL);
	assert_outcome(petal_pipe_attach_apart(f.memory, f.bytes, cursor, 255,
					       role, &ring),
		       -PETAL_EGEOMETRY);
	petal_store(&shared->data_bytes, 1025, PETAL_RELAXED);
	assert_outcome(petal_pipe_attach(f.memory, f.bytes, role, &ring),
		       -PETAL_EGEOMETRY);
	petal_store(&shared->layout, 9, PETAL_RELAXED);
	assert_outcome(petal_pipe_attach(f.memory, f.bytes, role, &ring),
		       -PETAL_EVERSION);
	petal_store(&shared->magic, 0, PETAL_RELAXED);
	assert_outcome(petal_pipe_attach(f.memory, f.bytes, role, &ring),
		       -EINVAL);
	fixture_fini(&f);
}

/* Random bytes in the whole ring: every call ends, inside of it. */
static void lying_peer__costs_records_and_nothing_else(void **state)
{
	uint64_t seed = 3;
	struct fixture f;

	(void)state;
	fixture_init(&f, DATA_BYTES, 0);
	for (uint64_t i = 0; i < petal_test_rounds(50000); i++) {
		uint64_t lie = petal_test_random(&seed);
		uint64_t pos = petal_pipe_pos(&f.consumer) +
			       (lie >> 3) % DATA_BYTES / 16 * 16;
		struct petal_pipe_record *record =
			petal_pipe_at(&f.consumer, pos);
		struct petal_pipe_view view;
		void *bytes = NULL;

		petal_store(&record->stamp, pos + 1, PETAL_RELAXED);
		petal_store(&record->length,
			    lie & 1 ? (uint32_t)(lie >> 32)
				    : (uint32_t)(lie >> 40) % 2000,
			    PETAL_RELAXED);
		petal_store(&record->type,
			    lie & 2 ? PETAL_PIPE_TYPE_PADDING : 1,
			    PETAL_RELAXED);
		if (petal_pipe_peek(&f.consumer, pos, &view) == 0) {
			const uint8_t *start = view.bytes;

			assert_true(start >= f.consumer.data);
			assert_true(start + view.length <=
				    f.consumer.data + DATA_BYTES);
			petal_pipe_release(&f.consumer, view.end);
		}
		if (i % 7 == 0)
			petal_store(&f.producer.reader->head,
				    lie & 4 ? lie : f.producer.pos - lie % 2048,
				    PETAL_RELAXED);
		if (petal_pipe_claim(&f.producer, (uint32_t)(lie >> 20) % 256,
				     &bytes) == 0)
			petal_pipe_publish(&f.producer, 0, 0);
		assert_true(petal_pipe_backlog(&f.producer) <= DATA_BYTES);
		if (i % 5 == 0) {
			f.consumer = attach(&f, PETAL_PIPE_CONSUMER);
			f.producer = attach(&f, PETAL_PIPE_PRODUCER);
		}
	}
	fixture_fini(&f);
}

/* ---- two processes ---- */

enum { STREAM_BYTES = 1 << 16, STREAM_MOST = 300 };

/* Value after value, shown one by one or several at once. */
static void produce(struct petal_pipe *ring, uint64_t from, uint64_t to)
{
	for (uint64_t value = from; value < to;) {
		uint32_t length = 8 + length_of(value, STREAM_MOST);
		void *bytes = NULL;

		if (petal_pipe_claim(ring, length, &bytes) != 0) {
			petal_pipe_show(ring);
			sched_yield();
			continue;
		}
		fill(ring, bytes, length, value);
		memcpy(bytes, &value, 8);
		petal_pipe_append(ring, length, (uint32_t)(value & 0xffff));
		value++;
		if (value % 7 == 0 || value % 3 == 0)
			petal_pipe_show(ring);
	}
	petal_pipe_show(ring);
}

static bool is_next(const struct petal_pipe_view *view, uint64_t value)
{
	uint64_t said;

	memcpy(&said, view->bytes, 8);
	return said == value &&
	       view->length == 8 + length_of(value, STREAM_MOST) &&
	       is_whole(view, value);
}

static void stream(struct petal_pipe *consumer, uint64_t count)
{
	for (uint64_t value = 0; value < count;) {
		uint64_t pos = petal_pipe_pos(consumer);
		struct petal_pipe_view view = { 0 };
		int outcome = petal_pipe_peek(consumer, pos, &view);

		if (outcome == PETAL_RING_EMPTY) {
			sched_yield();
			continue;
		}
		assert_ok(outcome);
		if (!is_next(&view, value))
			fail_msg("record %llu is not what was sent",
				 (unsigned long long)value);
		petal_pipe_release(consumer, view.end);
		value++;
	}
	while (petal_pipe_peek(consumer, petal_pipe_pos(consumer),
			       &(struct petal_pipe_view){ 0 }) !=
	       PETAL_RING_CLOSED)
		sched_yield();
}

static pid_t child_of(pid_t parent)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

static void processes__every_record_whole_and_in_order(void **state)
{
	uint64_t count = petal_test_rounds(300000);
	struct fixture f;
	pid_t pid;

	(void)state;
	fixture_init(&f, STREAM_BYTES, (UINT64_C(1) << 32) - STREAM_BYTES * 4);
	pid = child_of(getpid());
	if (pid == 0) {
		produce(&f.producer, 0, count);
		petal_pipe_close(&f.producer);
		_exit(0);
	}
	stream(&f.consumer, count);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	fixture_fini(&f);
}

static void *map_again(int fd, uint64_t bytes, int prot)
{
	void *memory = mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

/* Each side can write its own memory and only look at the other's. */
static void apart__each_side_writes_its_own_memory_only(void **state)
{
	const struct petal_pipe_geometry geometry = { .data_bytes =
							      STREAM_BYTES };
	const uint64_t bytes = petal_pipe_bytes(&geometry);
	const int rw = PROT_READ | PROT_WRITE;
	int data = memfd_create("data", MFD_CLOEXEC);
	int mine = memfd_create("cursor", MFD_CLOEXEC);
	struct petal_pipe ring;
	void *memory, *cursor;
	pid_t pid;

	(void)state;
	assert_true(data >= 0 && mine >= 0);
	assert_int_equal(ftruncate(data, (off_t)bytes), 0);
	assert_int_equal(ftruncate(mine, 4096), 0);
	memory = map_again(data, bytes, rw);
	cursor = map_again(mine, 4096, rw);
	assert_ok(petal_pipe_format(memory, &geometry));
	assert_ok(petal_pipe_format_cursor(cursor, 0));
	pid = child_of(getpid());
	if (pid == 0) {
		mprotect(cursor, 4096, PROT_READ);
		if (petal_pipe_attach_apart(memory, bytes, cursor, 4096,
					    PETAL_PIPE_PRODUCER, &ring))
			_exit(1);
		produce(&ring, 0, 100000);
		petal_pipe_close(&ring);
		_exit(0);
	}
	assert_int_equal(mprotect(memory, bytes, PROT_READ), 0);
	assert_ok(petal_pipe_attach_apart(memory, bytes, cursor, 4096,
					  PETAL_PIPE_CONSUMER, &ring));
	stream(&ring, 100000);
	petal_pipe_close(&ring);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	munmap(memory, bytes);
	munmap(cursor, 4096);
	close(data);
	close(mine);
}

/* A producer that numbers on from what its predecessor last said. */
static void number_on(struct fixture *f, struct petal_u64 *next)
{
	struct petal_pipe ring = attach(f, PETAL_PIPE_PRODUCER);

	for (;;) {
		uint64_t value = petal_load(next, PETAL_RELAXED);

		produce(&ring, value, value + 1);
		petal_store(next, value + 1, PETAL_RELAXED);
	}
}

/* What was published and not counted comes again; nothing else may happen. */
static void check_numbers(struct fixture *f, struct petal_u64 *seen)
{
	struct petal_pipe ring = attach(f, PETAL_PIPE_CONSUMER);

	for (;;) {
		struct petal_pipe_view view = { 0 };
		uint64_t expected = petal_load(seen, PETAL_RELAXED);
		uint64_t said = 0;
		int outcome =
			petal_pipe_peek(&ring, petal_pipe_pos(&ring), &view);

		if (outcome == PETAL_RING_EMPTY) {
			sched_yield();
			continue;
		}
		if (outcome != 0)
			_exit(2);
		memcpy(&said, view.bytes, 8);
		if (said > expected || !is_next(&view, said))
			_exit(3);
		if (said == expected)
			petal_store(seen, expected + 1, PETAL_RELAXED);
		petal_pipe_release(&ring, view.end);
	}
}

static pid_t side(struct fixture *f, struct petal_u64 *words, int which)
{
	pid_t pid = child_of(getpid());

	if (pid == 0) {
		if (which == 0)
			number_on(f, &words[0]);
		else
			check_numbers(f, &words[1]);
	}
	return pid;
}

static void processes__killed_sides_have_successors(void **state)
{
	struct petal_u64 *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t seed = 11;
	struct fixture f;
	pid_t pids[2];

	(void)state;
	assert_ptr_not_equal(words, MAP_FAILED);
	fixture_init(&f, 4096, (UINT64_C(1) << 63) - 4096);
	for (int i = 0; i < 2; i++)
		pids[i] = side(&f, words, i);
	for (uint64_t i = 0; i < petal_test_rounds(300); i++) {
		struct timespec moment = {
			.tv_nsec = (long)(petal_test_random(&seed) % 2000000),
		};
		int which = petal_test_random(&seed) & 1;
		int status;

		nanosleep(&moment, NULL);
		kill(pids[which], SIGKILL);
		assert_int_equal(waitpid(pids[which], &status, 0), pids[which]);
		assert_true(WIFSIGNALED(status));
		pids[which] = side(&f, words, which);
	}
	for (int i = 0; i < 2; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	assert_true(petal_load(&words[1], PETAL_RELAXED) > 1000);
	fixture_fini(&f);
	munmap(words, 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order__is_kept_at_every_start_length_and_fill),
		cmocka_unit_test(record__every_length_is_seen_at_every_offset),
		cmocka_unit_test(
			claim__too_long_is_refused_and_longest_always_fits),
		cmocka_unit_test(
			claim__full_ring_says_so_and_keeps_its_last_word_free),
		cmocka_unit_test(publish__less_than_was_claimed),
		cmocka_unit_test(show__brings_all_that_was_appended_or_nothing),
		cmocka_unit_test(abort__drops_claim_and_what_was_appended),
		cmocka_unit_test(
			peek__records_are_held_while_others_are_read_ahead),
		cmocka_unit_test(close__is_seen_after_the_last_record),
		cmocka_unit_test(
			successor__goes_on_where_the_dead_side_stopped),
		cmocka_unit_test(
			successor__finds_what_was_shown_before_tail_was_stored),
		cmocka_unit_test(format__shapes_out_of_range_are_refused),
		cmocka_unit_test(attach__what_is_no_such_ring_is_refused),
		cmocka_unit_test(lying_peer__costs_records_and_nothing_else),
		cmocka_unit_test(processes__every_record_whole_and_in_order),
		cmocka_unit_test(apart__each_side_writes_its_own_memory_only),
		cmocka_unit_test(processes__killed_sides_have_successors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
