/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The journal, on real files: what is appended comes back, over reopening,
 * laps, torn tails, damage, full disks, failing writes and kill -9.
 *
 * Bytes are a function of ring and position, so that any range that replay
 * visits can be judged by itself.
 *
 *    journal_test               all tests with the engine that is linked in
 *    journal_test OTHER         and journals written by the program OTHER,
 *                               this test with the other engine
 *    journal_test --write DIR   only write such a journal (--check: read it)
 *    journal_test --only TESTS  those of this name, in which * is any text
 *
 * Harder: PETAL_TEST_ROUNDS=20 multiplies the random tests, PETAL_TEST_SEED=n
 * takes them elsewhere. TMPDIR chooses the file system.
 */

#include "tests/check.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "fabric/journal.h"
#include "shm/crc32c.h"

enum {
	BLOCK = PETAL_JOURNAL_BLOCK_BYTES,
	AREA_OFFSET = 8 * BLOCK,
	SMALL_BYTES = 1 << 20,
	DATA_BYTES = 1 << 16,
	RINGS = 3,
	HISTORY_MAX = 1 << 16,
	CLUSTER = 0x51,
	NODE = 7,
	EPOLL_MS = 20000,
	NOBODY = 65534,
};

/* This test, linked with the other engine; NULL if there is none. */
static const char *other_program;

/*
 * Chance and bytes.
 */

static uint64_t random_state = 1;

static uint64_t mix(uint64_t x)
{
	/* The finalizer of splitmix64. */
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static uint64_t chance(uint64_t below)
{
	random_state += UINT64_C(0x9e3779b97f4a7c15);
	return mix(random_state) % below;
}

static uint64_t environment(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

static uint8_t byte_of(uint64_t ring, uint64_t pos)
{
	return (uint8_t)(mix(ring * 0x10001 + pos / 8) >> (pos % 8 * 8));
}

/*
 * A journal, its rings, and the history of what was appended.
 */

struct ring_area {
	uint64_t id;
	uint8_t *data;
	uint64_t data_bytes;
	uint64_t pos;
	uint64_t lsn;
	uint64_t done_pos;
	uint64_t trimmed;
};

struct fixture {
	char *dir;
	struct petal_journal_options options;
	struct petal_journal *journal;
	struct ring_area rings[RINGS];
	struct petal_journal_range *history;
	unsigned int history_count;
	/* What a replay has seen. */
	unsigned int visited;
	unsigned int visited_from;
	bool visit_bad;
};

static uint8_t *area_map(uint64_t bytes)
{
	int fd = memfd_create("area", MFD_CLOEXEC);
	uint8_t *data;

	assert_true(fd >= 0);
	assert_ok(ftruncate(fd, (off_t)bytes));
	data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(data != MAP_FAILED);
	close(fd);
	return data;
}

static void rings_make(struct fixture *f, uint64_t data_bytes)
{
	for (unsigned int i = 0; i < RINGS; i++) {
		struct ring_area *ring = &f->rings[i];

		if (ring->data)
			munmap(ring->data, ring->data_bytes);
		*ring = (struct ring_area){
			.id = UINT64_C(1000000007) * (i + 1),
			.data = area_map(data_bytes),
			.data_bytes = data_bytes,
			.lsn = 1,
		};
	}
}

static void rings_attach(struct fixture *f)
{
	for (unsigned int i = 0; i < RINGS; i++)
		assert_ok(petal_journal_attach(f->journal, f->rings[i].id,
					       f->rings[i].data,
					       f->rings[i].data_bytes));
}

static struct ring_area *ring_by_id(struct fixture *f, uint64_t id)
{
	for (unsigned int i = 0; i < RINGS; i++) {
		if (f->rings[i].id == id)
			return &f->rings[i];
	}
	return NULL;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	random_state = environment("PETAL_TEST_SEED", 1);
	f->dir = petal_test_tmpdir();
	f->options = (struct petal_journal_options){
		.dir = f->dir,
		.bytes = SMALL_BYTES,
		.node = NODE,
		.direct = true,
	};
	memset(f->options.cluster, CLUSTER, sizeof(f->options.cluster));
	f->history = calloc(HISTORY_MAX, sizeof(*f->history));
	assert_non_null(f->history);
	rings_make(f, DATA_BYTES);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	petal_journal_close(f->journal);
	for (unsigned int i = 0; i < RINGS; i++)
		munmap(f->rings[i].data, f->rings[i].data_bytes);
	if (f->dir)
		petal_test_tmpdir_remove(f->dir);
	free(f->history);
	free(f);
	return 0;
}

static bool range_equal(const struct petal_journal_range *a,
			const struct petal_journal_range *b)
{
	return a->ring == b->ring && a->from_pos == b->from_pos &&
	       a->to_pos == b->to_pos && a->from_lsn == b->from_lsn &&
	       a->to_lsn == b->to_lsn && a->trim_pos == b->trim_pos &&
	       a->whole_pos == b->whole_pos && a->epoch == b->epoch;
}

static bool bytes_right(const struct petal_journal_range *range,
			const uint8_t *bytes)
{
	for (uint64_t pos = range->from_pos; pos < range->to_pos; pos++) {
		if (*bytes++ != byte_of(range->ring, pos))
			return false;
	}
	return true;
}

/* What is visited must be the history from somewhere on, to its end. */
static int visit(void *arg, const struct petal_journal_range *range,
		 const void *bytes)
{
	struct fixture *f = arg;
	unsigned int at = f->visited_from + f->visited;

	if (!f->visited) {
		at = 0;
		while (at < f->history_count &&
		       !range_equal(&f->history[at], range))
			at++;
		f->visited_from = at;
	}
	if (at >= f->history_count || !range_equal(&f->history[at], range) ||
	    !bytes_right(range, bytes))
		f->visit_bad = true;
	if (range->from_pos % 8 == 0 && (uintptr_t)bytes % 8)
		f->visit_bad = true;
	f->visited++;
	return 0;
}

static int replay(struct fixture *f)
{
	f->visited = 0;
	f->visited_from = f->history_count;
	f->visit_bad = false;
	return petal_journal_replay(f->journal, visit, f);
}

/* Open; everything in the history from @from on must be there. */
static void open_expect(struct fixture *f, unsigned int from)
{
	assert_ok(petal_journal_open(&f->options, &f->journal));
	assert_ok(replay(f));
	assert_false(f->visit_bad);
	assert_int_equal(f->visited_from + f->visited, f->history_count);
	assert_true(f->visited_from <= from);
	rings_attach(f);
}

static void reopen_expect(struct fixture *f, unsigned int from)
{
	petal_journal_close(f->journal);
	f->journal = NULL;
	open_expect(f, from);
}

static struct petal_journal_range range_next(struct ring_area *ring,
					     uint64_t length)
{
	struct petal_journal_range range = {
		.ring = ring->id,
		.epoch = (uint32_t)ring->lsn,
		.from_pos = ring->pos,
		.to_pos = ring->pos + length,
		.from_lsn = ring->lsn,
		.to_lsn = ring->lsn + 3,
		.trim_pos = ring->trimmed,
		.whole_pos = ring->pos + 7,
	};

	for (uint64_t pos = range.from_pos; pos < range.to_pos; pos++)
		ring->data[pos & (ring->data_bytes - 1)] =
			byte_of(ring->id, pos);
	return range;
}

static int append(struct fixture *f, struct ring_area *ring, uint64_t length)
{
	struct petal_journal_range range = range_next(ring, length);
	int err = petal_journal_append(f->journal, &range);

	if (err)
		return err;
	assert_true(f->history_count < HISTORY_MAX);
	f->history[f->history_count++] = range;
	ring->pos = range.to_pos;
	ring->lsn = range.to_lsn + 1;
	return 0;
}

/* The kernel takes a closed ring apart in our name, and interrupts us. */
static int epoll_sleep(int epoll, int timeout_ms)
{
	struct epoll_event event;
	int ready;

	do {
		ready = epoll_wait(epoll, &event, 1, timeout_ms);
	} while (ready < 0 && errno == EINTR);
	return ready;
}

static void wait_readable(int fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	assert_true(epoll >= 0);
	assert_ok(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
	assert_int_equal(epoll_sleep(epoll, EPOLL_MS), 1);
	close(epoll);
}

/* Sleep and poll until @count batches are reported with this status. */
static void wait_done(struct fixture *f, unsigned int count, int status)
{
	struct petal_journal_done done[4];
	int got;

	while (count) {
		got = petal_journal_poll(f->journal, done,
					 count < 4 ? count : 4);
		assert_true(got >= 0);
		for (int i = 0; i < got; i++) {
			assert_outcome(done[i].status, status);
			ring_by_id(f, done[i].ring)->done_pos = done[i].to_pos;
		}
		count -= (unsigned int)got;
		if (count && !got)
			wait_readable(petal_journal_fd(f->journal));
	}
}

static void append_done(struct fixture *f, struct ring_area *ring,
			uint64_t length)
{
	assert_ok(append(f, ring, length));
	wait_done(f, 1, 0);
	assert_int_equal(ring->done_pos, ring->pos);
}

static struct petal_journal_stats stats(const struct fixture *f)
{
	struct petal_journal_stats stats;

	petal_journal_stats(f->journal, &stats);
	return stats;
}

static void trim_to(struct fixture *f, struct ring_area *ring, uint64_t pos)
{
	ring->trimmed = pos;
	assert_ok(petal_journal_trim(f->journal, ring->id, pos));
}

/* The oldest batch that nobody has trimmed. */
static unsigned int oldest_kept(struct fixture *f)
{
	unsigned int at = 0;

	while (at < f->history_count &&
	       f->history[at].to_pos <=
		       ring_by_id(f, f->history[at].ring)->trimmed)
		at++;
	return at;
}

/*
 * Images of the file, to be changed and put back.
 */

static char *path_of(const char *dir, const char *name)
{
	char *path = NULL;

	assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
	return path;
}

static uint8_t *image_take(const struct fixture *f)
{
	char *path = path_of(f->dir, "journal.0");
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *image = malloc(f->options.bytes);

	assert_non_null(image);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, image, f->options.bytes, 0),
			 f->options.bytes);
	close(fd);
	free(path);
	return image;
}

static void image_put(const struct fixture *f, const uint8_t *image)
{
	char *path = path_of(f->dir, "journal.0");
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, image, f->options.bytes, 0),
			 f->options.bytes);
	close(fd);
	free(path);
}

static void journal_close(struct fixture *f)
{
	petal_journal_close(f->journal);
	f->journal = NULL;
}

static bool file_exists(const struct fixture *f, const char *name)
{
	char *path = path_of(f->dir, name);
	bool exists = !access(path, F_OK);

	free(path);
	return exists;
}

/*
 * Append and replay.
 */

static void replay__new_journal_is_empty(void **state)
{
	struct fixture *f = *state;

	assert_ok(petal_journal_open(&f->options, &f->journal));
	assert_ok(replay(f));
	assert_int_equal(f->visited, 0);
	reopen_expect(f, 0);
	assert_int_equal(stats(f).used_bytes, 0);
	assert_int_equal(stats(f).capacity_bytes, SMALL_BYTES - AREA_OFFSET);
}

static void replay__gives_back_random_ranges_in_order(void **state)
{
	struct fixture *f = *state;
	uint64_t rounds = 150 * environment("PETAL_TEST_ROUNDS", 1);

	f->options.bytes = rounds * (DATA_BYTES / 2 + 3 * BLOCK) + (2 << 20);
	f->options.bytes &= ~(uint64_t)(BLOCK - 1);
	open_expect(f, 0);
	/* Odd starts, so that ranges go around the area at any remainder. */
	for (unsigned int i = 0; i < RINGS; i++)
		f->rings[i].pos = (UINT64_C(1) << 63) - 5000 + i * 777;
	for (uint64_t i = 0; i < rounds; i++)
		append_done(f, &f->rings[chance(RINGS)],
			    1 + chance(1 << chance(17)));
	reopen_expect(f, 0);
	assert_int_equal(f->visited, rounds);
}

static void append__takes_every_remainder_of_a_page(void **state)
{
	struct fixture *f = *state;
	struct ring_area *ring = &f->rings[0];
	uint64_t bytes = 0;

	f->options.bytes = 8 << 20;
	open_expect(f, 0);
	for (uint64_t a = 0; a < BLOCK; a += 64) {
		for (uint64_t b = 0; b < BLOCK; b += 64) {
			uint64_t pages = chance(4) + (b <= a);

			ring->pos = (ring->pos + BLOCK) / BLOCK * BLOCK + a;
			append_done(f, ring, pages * BLOCK + b - a);
			bytes += pages * BLOCK + b - a;
		}
		if (a / 64 % 4 < 3)
			continue;
		assert_int_equal(stats(f).direct_bytes + stats(f).copied_bytes,
				 bytes);
		assert_int_equal(stats(f).batches, 4 * BLOCK / 64);
		assert_true(stats(f).copied_bytes <
			    stats(f).batches * 2 * BLOCK);
		bytes = 0;
		reopen_expect(f, oldest_kept(f));
		trim_to(f, ring, ring->pos);
	}
}

static void append__takes_ranges_of_megabytes_around_the_end(void **state)
{
	struct fixture *f = *state;
	uint64_t longest;

	f->options.bytes = 24 << 20;
	rings_make(f, 4 << 20);
	open_expect(f, 0);
	longest = stats(f).range_bytes_max;
	assert_true(longest >= (5 << 20));
	f->rings[0].pos = (4 << 20) - (3 << 18) - 100;
	f->rings[1].pos = (4 << 20) - BLOCK;
	assert_ok(append(f, &f->rings[0], 3 << 20));
	assert_ok(append(f, &f->rings[1], 4 << 20));
	assert_ok(append(f, &f->rings[2], (2 << 20) + 1));
	wait_done(f, 3, 0);
	reopen_expect(f, 0);
	assert_int_equal(f->visited, 3);
}

static void append__continues_after_each_reopening(void **state)
{
	struct fixture *f = *state;

	open_expect(f, 0);
	for (int i = 0; i < 12; i++) {
		append_done(f, &f->rings[i % RINGS], 1000 + chance(9000));
		append_done(f, &f->rings[0], 1 + chance(5000));
		reopen_expect(f, 0);
	}
	assert_int_equal(f->visited, 24);
}

static void append__rings_fly_together_and_are_reported_in_order(void **state)
{
	struct fixture *f = *state;
	struct petal_journal_done done[RINGS];
	unsigned int count = 0;

	open_expect(f, 0);
	for (unsigned int i = 0; i < RINGS; i++)
		assert_ok(append(f, &f->rings[i], (RINGS - i) * 20000));
	assert_outcome(append(f, &f->rings[1], 64), -EBUSY);
	assert_outcome(petal_journal_detach(f->journal, f->rings[0].id),
		       -EBUSY);
	assert_outcome(petal_journal_attach(f->journal, f->rings[0].id,
					    f->rings[0].data, DATA_BYTES),
		       -EBUSY);
	/* One at a time, to see that nothing is lost between calls. */
	while (count < RINGS) {
		int got = petal_journal_poll(f->journal, &done[count], 1);

		if (!got)
			wait_readable(petal_journal_fd(f->journal));
		count += (unsigned int)got;
	}
	for (unsigned int i = 0; i < RINGS; i++) {
		assert_int_equal(done[i].ring, f->rings[i].id);
		assert_int_equal(done[i].to_pos, f->rings[i].pos);
		assert_int_equal(done[i].to_lsn, f->rings[i].lsn - 1);
		assert_outcome(done[i].status, 0);
	}
	assert_int_equal(stats(f).refused_busy, 1);
	reopen_expect(f, 0);
}

static void append__bounds_what_is_in_flight(void **state)
{
	struct fixture *f = *state;
	uint8_t *area = area_map(32 * BLOCK);
	struct petal_journal_done done[32];
	unsigned int flying = 0, done_count = 0;
	int err = 0;

	open_expect(f, 0);
	for (uint64_t i = 0; i < 32 && !err; i++) {
		struct petal_journal_range range = { .ring = i, .to_pos = 64 };

		assert_ok(petal_journal_attach(f->journal, i, area + i * BLOCK,
					       BLOCK));
		err = petal_journal_append(f->journal, &range);
		flying += !err;
	}
	assert_outcome(err, -EAGAIN);
	assert_int_equal(flying, PETAL_JOURNAL_INFLIGHT_MAX);
	while (done_count < flying) {
		wait_readable(petal_journal_fd(f->journal));
		done_count +=
			(unsigned int)petal_journal_poll(f->journal, done, 32);
	}
	journal_close(f);
	munmap(area, 32 * BLOCK);
}

/* The event loop sleeps in epoll: each completion must wake it. */
static void poll__completion_wakes_a_sleeper_in_epoll(void **state)
{
	struct fixture *f = *state;
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct petal_journal_done done;

	open_expect(f, 0);
	assert_ok(epoll_ctl(epoll, EPOLL_CTL_ADD, petal_journal_fd(f->journal),
			    &event));
	for (int i = 0; i < 100; i++) {
		int got = 0;

		assert_ok(append(f, &f->rings[0], 1 + chance(6000)));
		for (int wakes = 0; !got; wakes++) {
			assert_true(wakes < 8);
			assert_int_equal(epoll_sleep(epoll, EPOLL_MS), 1);
			got = petal_journal_poll(f->journal, &done, 1);
		}
		assert_outcome(done.status, 0);
		petal_journal_trim(f->journal, done.ring, done.to_pos);
	}
	/* With nothing in flight, it sleeps. */
	while (petal_journal_poll(f->journal, &done, 1))
		;
	assert_int_equal(epoll_sleep(epoll, 0), 0);
	close(epoll);
}

static int refuse(void *arg, const struct petal_journal_range *range,
		  const void *bytes)
{
	(void)range;
	(void)bytes;
	return --*(int *)arg ? 0 : -ECANCELED;
}

static void replay__visitor_may_stop_it(void **state)
{
	struct fixture *f = *state;
	int visits = 2;

	open_expect(f, 0);
	for (int i = 0; i < 4; i++)
		append_done(f, &f->rings[0], 64);
	journal_close(f);
	assert_ok(petal_journal_open(&f->options, &f->journal));
	assert_outcome(petal_journal_replay(f->journal, refuse, &visits),
		       -ECANCELED);
	assert_int_equal(visits, 0);
	assert_outcome(petal_journal_replay(f->journal, refuse, &visits),
		       -EALREADY);
	rings_attach(f);
	assert_outcome(append(f, &f->rings[0], 64), -EINVAL);
	reopen_expect(f, 0);
}

static void append__refuses_what_makes_no_sense(void **state)
{
	struct fixture *f = *state;
	struct ring_area *ring = &f->rings[0];
	struct petal_journal_range range = { .ring = ring->id, .to_pos = 64 };
	struct petal_journal_damage damage;

	assert_ok(petal_journal_open(&f->options, &f->journal));
	assert_outcome(petal_journal_attach(f->journal, 1, ring->data + 64,
					    DATA_BYTES),
		       -EINVAL);
	assert_outcome(petal_journal_attach(f->journal, 1, ring->data, 12288),
		       -EINVAL);
	assert_outcome(petal_journal_attach(f->journal, 1, ring->data, 512),
		       -EINVAL);
	assert_outcome(petal_journal_attach(f->journal, 1, NULL, BLOCK),
		       -EINVAL);
	rings_attach(f);
	assert_outcome(petal_journal_append(f->journal, &range), -EINVAL);
	assert_ok(replay(f));
	range.to_pos = 0;
	assert_outcome(petal_journal_append(f->journal, &range), -EINVAL);
	range.to_pos = DATA_BYTES + 1;
	assert_outcome(petal_journal_append(f->journal, &range), -EINVAL);
	range.ring = 3;
	assert_outcome(petal_journal_append(f->journal, &range), -ENOENT);
	assert_outcome(petal_journal_trim(f->journal, 3, 0), -ENOENT);
	assert_outcome(petal_journal_detach(f->journal, 3), -ENOENT);
	assert_outcome(petal_journal_damage(f->journal, &damage), -ENODATA);
	journal_close(f);
	rings_make(f, 1 << 20);
	open_expect(f, 0);
	assert_outcome(append(f, ring, stats(f).range_bytes_max + 1),
		       -EMSGSIZE);
	append_done(f, ring, stats(f).range_bytes_max);
}

/*
 * Space.
 */

/* Let everything complete that is in flight, notes included. */
static void settle(struct fixture *f, unsigned int flying)
{
	struct petal_journal_stats before = stats(f);

	wait_done(f, flying, 0);
	while (stats(f).used_bytes == before.used_bytes) {
		struct petal_journal_done done;

		wait_readable(petal_journal_fd(f->journal));
		assert_int_equal(petal_journal_poll(f->journal, &done, 1), 0);
	}
}

static void append__full_journal_refuses_until_trimmed(void **state)
{
	struct fixture *f = *state;
	struct ring_area *ring = &f->rings[0];
	unsigned int laps = 0;
	int err;

	open_expect(f, 0);
	while (laps < 20) {
		err = append(f, ring, 30000);
		if (!err) {
			wait_done(f, 1, 0);
			continue;
		}
		assert_outcome(err, -EAGAIN);
		assert_outcome(append(f, ring, 30000), -EAGAIN);
		assert_true(stats(f).refused_full >= 2);
		assert_int_equal(stats(f).oldest_ring, ring->id);
		trim_to(f, ring, stats(f).oldest_to_pos + 4 * 30000);
		settle(f, 0);
		assert_ok(append(f, ring, 30000));
		wait_done(f, 1, 0);
		laps++;
	}
	assert_true(stats(f).notes > 0);
	reopen_expect(f, oldest_kept(f));
}

static void append__smallest_batches_fill_it_to_the_last_block(void **state)
{
	struct fixture *f = *state;
	struct ring_area *ring = &f->rings[0];
	uint64_t blocks;

	open_expect(f, 0);
	blocks = stats(f).capacity_bytes / BLOCK;
	for (int lap = 0; lap < 3; lap++) {
		int err = 0;

		while (!err) {
			err = append(f, ring, 64);
			if (!err)
				wait_done(f, 1, 0);
		}
		assert_outcome(err, -EAGAIN);
		/* All but the block that is kept back for a note. */
		assert_int_equal(stats(f).used_bytes, (blocks - 1) * BLOCK);
		reopen_expect(f, oldest_kept(f));
		assert_outcome(append(f, ring, 64), -EAGAIN);
		trim_to(f, ring, ring->pos - 64 * chance(4));
		settle(f, 0);
	}
}

static void trim__many_laps_keep_exactly_what_is_needed(void **state)
{
	struct fixture *f = *state;
	uint64_t rounds = 3000 * environment("PETAL_TEST_ROUNDS", 1);
	unsigned int refused = 0, flying = 0;

	open_expect(f, 0);
	for (uint64_t i = 0; i < rounds && f->history_count < HISTORY_MAX - 9;
	     i++) {
		struct ring_area *ring = &f->rings[chance(RINGS)];
		/* Half an area at most: one is filled while one flies. */
		int err = append(f, ring, 1 + chance(1 << (4 + chance(12))));

		flying += !err;
		if (err) {
			assert_true(err == -EAGAIN || err == -EBUSY);
			refused += err == -EAGAIN;
			for (int r = 0; err == -EAGAIN && r < RINGS; r++)
				trim_to(f, &f->rings[r], f->rings[r].done_pos);
		}
		if (err || chance(2)) {
			wait_done(f, flying, 0);
			flying = 0;
		}
		if (chance(12) == 0)
			trim_to(f, ring,
				ring->trimmed + chance(ring->done_pos + 1 -
						       ring->trimmed));
		if (chance(100) == 0) {
			wait_done(f, flying, 0);
			flying = 0;
			reopen_expect(f, oldest_kept(f));
			for (int r = 0; r < RINGS; r++)
				trim_to(f, &f->rings[r], f->rings[r].trimmed);
		}
	}
	wait_done(f, flying, 0);
	reopen_expect(f, oldest_kept(f));
	print_message("%u batches, %u refusals\n", f->history_count, refused);
}

/* Its area may go, and its batches are there at the next start. */
static void retire__keeps_the_batches(void **state)
{
	struct fixture *f = *state;

	open_expect(f, 0);
	append_done(f, &f->rings[0], 5000);
	assert_ok(append(f, &f->rings[1], 64));
	assert_outcome(petal_journal_retire(f->journal, f->rings[1].id),
		       -EBUSY);
	wait_done(f, 1, 0);
	assert_ok(petal_journal_retire(f->journal, f->rings[0].id));
	assert_outcome(petal_journal_retire(f->journal, 77), -ENOENT);
	assert_outcome(append(f, &f->rings[0], 64), -ENOENT);
	reopen_expect(f, 0);
}

static void uuid__is_of_the_file(void **state)
{
	struct fixture *f = *state;
	char *path = path_of(f->dir, "journal.0");
	uint8_t first[16], again[16];

	open_expect(f, 0);
	petal_journal_uuid(f->journal, first);
	reopen_expect(f, 0);
	petal_journal_uuid(f->journal, again);
	assert_memory_equal(first, again, sizeof(first));
	journal_close(f);
	assert_ok(unlink(path));
	free(path);
	open_expect(f, 0);
	petal_journal_uuid(f->journal, again);
	assert_memory_not_equal(first, again, sizeof(first));
}

static void detach__frees_the_batches_of_a_ring_that_nobody_knows(void **state)
{
	struct fixture *f = *state;
	struct ring_area *lost = &f->rings[0], *ring = &f->rings[1];

	open_expect(f, 0);
	append_done(f, lost, 50000);
	append_done(f, lost, 50000);
	journal_close(f);

	/* After a restart, the ring is in the file only. */
	assert_ok(petal_journal_open(&f->options, &f->journal));
	assert_ok(replay(f));
	assert_int_equal(stats(f).oldest_ring, lost->id);
	assert_ok(petal_journal_attach(f->journal, ring->id, ring->data,
				       ring->data_bytes));
	assert_ok(petal_journal_detach(f->journal, lost->id));
	assert_int_equal(stats(f).live_batches, 0);
	for (int i = 0; i < 60; i++) {
		int err = append(f, ring, 30000);

		if (!err)
			wait_done(f, 1, 0);
		trim_to(f, ring, ring->pos);
		if (err)
			settle(f, 0);
	}
	assert_outcome(petal_journal_detach(f->journal, lost->id), -ENOENT);
	/* It may come back, and start again at its first position. */
	lost->pos = 0;
	assert_ok(petal_journal_attach(f->journal, lost->id, lost->data,
				       lost->data_bytes));
	append_done(f, lost, 100);
	reopen_expect(f, f->history_count - 1);
}

/*
 * Torn tails.
 */

enum torn_fill { TORN_ZERO, TORN_GARBAGE, TORN_BEFORE };

/* Put an image whose last batch stops after @cut bytes. */
static void image_put_torn(const struct fixture *f, const uint8_t *before,
			   const uint8_t *after, uint64_t offset,
			   uint64_t length, uint64_t cut, enum torn_fill fill)
{
	uint8_t *image = malloc(f->options.bytes);

	assert_non_null(image);
	memcpy(image, after, f->options.bytes);
	for (uint64_t i = offset + cut; i < offset + length; i++) {
		if (fill == TORN_ZERO)
			image[i] = 0;
		else if (fill == TORN_GARBAGE)
			image[i] = (uint8_t)chance(256);
		else
			image[i] = before[i];
	}
	image_put(f, image);
	free(image);
}

static uint64_t first_difference(const struct fixture *f, const uint8_t *a,
				 const uint8_t *b)
{
	uint64_t at = 0;

	while (at < f->options.bytes && a[at] == b[at])
		at++;
	return at / BLOCK * BLOCK;
}

/* The last batch is cut at each sector, and filled up in each way. */
static void torn_everywhere(struct fixture *f, unsigned int batches)
{
	/* No padding: 256 + 2048 + 1792 bytes are one block. */
	const uint64_t length = 2048 + 4 * BLOCK + 1792;
	const uint64_t batch_bytes = 5 * BLOCK;
	struct ring_area *ring = &f->rings[0];
	uint8_t *before = NULL, *after;
	uint64_t offset;

	open_expect(f, 0);
	for (unsigned int i = 0; i <= batches; i++) {
		ring->pos = (ring->pos + BLOCK) / BLOCK * BLOCK + 2048;
		if (i == batches)
			before = image_take(f);
		append_done(f, ring, length);
		if (i + 4 < batches)
			trim_to(f, ring, ring->pos);
	}
	/* Before it is closed, for that would call the last one durable. */
	after = image_take(f);
	journal_close(f);
	offset = first_difference(f, before, after);
	for (uint64_t cut = 0; cut <= batch_bytes; cut += 512) {
		for (int fill = TORN_ZERO; fill <= TORN_BEFORE; fill++) {
			struct petal_journal_range last = f->history[batches];
			bool torn = cut < batch_bytes;

			image_put_torn(f, before, after, offset, batch_bytes,
				       cut, (enum torn_fill)fill);
			f->history_count -= torn;
			open_expect(f, oldest_kept(f));
			assert_int_equal(stats(f).dropped_batches,
					 torn && cut > 0);
			/* And life goes on, over what was torn. */
			append_done(f, &f->rings[1], 6000);
			append_done(f, &f->rings[1], 70);
			reopen_expect(f, oldest_kept(f));
			journal_close(f);
			f->history[batches] = last;
			f->history_count = batches + 1;
			f->rings[1].pos = 0;
			f->rings[1].lsn = 1;
		}
	}
	free(before);
	free(after);
}

static void replay__torn_tail_is_dropped_at_every_sector(void **state)
{
	torn_everywhere(*state, 6);
}

static void replay__torn_tail_over_an_older_lap_is_dropped(void **state)
{
	/* 248 blocks hold 49 such batches: this is in the third lap. */
	torn_everywhere(*state, 49 * 2 + 20);
}

/* The file offset of the batch in the history, by its header's fields. */
static uint64_t batch_offset(const struct fixture *f, const uint8_t *image,
			     unsigned int at)
{
	const struct petal_journal_range *range = &f->history[at];

	for (uint64_t i = AREA_OFFSET; i < f->options.bytes; i += BLOCK) {
		uint64_t fields[5];

		memcpy(fields, image + i + 88, sizeof(fields));
		if (fields[0] == range->ring && fields[1] == range->from_pos &&
		    fields[2] == range->to_pos &&
		    fields[3] == range->from_lsn && fields[4] == range->to_lsn)
			return i;
	}
	fail_msg("batch %u is not in the file", at);
	return 0;
}

static void replay__what_lies_behind_a_torn_batch_never_comes_back(void **state)
{
	struct fixture *f = *state;
	uint8_t *image;

	open_expect(f, 0);
	append_done(f, &f->rings[0], 300);
	/* Three at once: none of them knows of another's end. */
	for (unsigned int i = 0; i < RINGS; i++)
		assert_ok(append(f, &f->rings[i], 9000));
	wait_done(f, RINGS, 0);
	image = image_take(f);
	journal_close(f);

	/* The second is lost; the third was never reported without it. */
	image[batch_offset(f, image, 2) + 100] ^= 1;
	image_put(f, image);
	free(image);
	f->history_count = 2;
	open_expect(f, 0);
	assert_int_equal(f->visited, 2);
	assert_int_equal(stats(f).dropped_batches, 2);
	/* Nothing new: the same answer. */
	petal_journal_close(f->journal);
	f->journal = NULL;
	open_expect(f, 0);
	assert_int_equal(f->visited, 2);
	/* Shorter than what was dropped: the third stays in the file. */
	append_done(f, &f->rings[0], 10);
	reopen_expect(f, 0);
	assert_int_equal(f->visited, 3);
	append_done(f, &f->rings[0], 20000);
	reopen_expect(f, 0);
	assert_int_equal(f->visited, 4);
}

/*
 * Sent again after a crash, the same bytes go to the same place. If the power
 * is lost a second time, they must not make the old batch whole, and with it
 * what lay behind it.
 */
static void replay__same_bytes_again_do_not_heal_what_was_dropped(void **state)
{
	struct fixture *f = *state;
	const uint64_t at = BLOCK + 512;
	uint8_t *image, *again, sector[512];
	uint64_t offset;

	open_expect(f, 0);
	append_done(f, &f->rings[0], 300);
	for (unsigned int i = 0; i < RINGS; i++)
		assert_ok(append(f, &f->rings[i], 9000));
	wait_done(f, RINGS, 0);
	image = image_take(f);
	journal_close(f);
	offset = batch_offset(f, image, 1) + at;
	memcpy(sector, image + offset, sizeof(sector));
	memset(image + offset, 0, sizeof(sector));
	image_put(f, image);

	f->history_count = 1;
	open_expect(f, 0);
	assert_int_equal(stats(f).dropped_batches, 3);
	again = image_take(f);
	journal_close(f);
	/* Of the same batch, written again, only this arrives. */
	memcpy(again + offset, sector, sizeof(sector));
	image_put(f, again);
	open_expect(f, 0);
	append_done(f, &f->rings[1], 100);
	reopen_expect(f, 0);
	free(image);
	free(again);
}

/* Crash after crash, each with torn batches and whole ones behind them. */
static void replay__survives_one_torn_end_after_another(void **state)
{
	struct fixture *f = *state;
	uint64_t rounds = 60 * environment("PETAL_TEST_ROUNDS", 1);

	open_expect(f, 0);
	for (uint64_t i = 0; i < rounds; i++) {
		unsigned int base, torn, last;
		uint8_t *image;

		while (chance(3)) {
			struct ring_area *ring = &f->rings[chance(RINGS)];

			if (append(f, ring, 1 + chance(20000)) == 0)
				wait_done(f, 1, 0);
			trim_to(f, ring, ring->done_pos);
		}
		base = f->history_count;
		for (unsigned int r = 0; r < RINGS; r++)
			append(f, &f->rings[r], 1 + chance(20000));
		last = f->history_count;
		wait_done(f, last - base, 0);
		image = image_take(f);
		journal_close(f);
		torn = base + (unsigned int)chance(last - base + 1);
		if (torn < last)
			image[batch_offset(f, image, torn) + 256] ^= 0x80;
		image_put(f, image);
		free(image);
		f->history_count = torn;
		for (unsigned int r = 0; r < RINGS; r++) {
			struct ring_area *ring = &f->rings[r];

			for (unsigned int h = torn; h < last; h++) {
				if (f->history[h].ring != ring->id)
					continue;
				ring->pos = f->history[h].from_pos;
				/* Told apart from what was torn. */
				ring->lsn += 100;
				ring->done_pos = ring->pos;
			}
		}
		open_expect(f, oldest_kept(f));
		for (unsigned int r = 0; r < RINGS; r++)
			trim_to(f, &f->rings[r], f->rings[r].trimmed);
	}
}

/* Append, waiting for space that has been given back. */
static void append_when_free(struct fixture *f, struct ring_area *ring,
			     uint64_t length)
{
	struct petal_journal_done done;
	int err;

	while ((err = append(f, ring, length)) == -EAGAIN) {
		wait_readable(petal_journal_fd(f->journal));
		assert_int_equal(petal_journal_poll(f->journal, &done, 1), 0);
	}
	assert_ok(err);
}

/* What it was written over must have been given up by one that is there. */
static void replay__torn_batch_over_freed_space_is_no_damage(void **state)
{
	struct fixture *f = *state;
	struct ring_area *ring = &f->rings[0];
	uint8_t *image;
	uint64_t offset;

	open_expect(f, 0);
	while (append(f, ring, 30000) == 0)
		wait_done(f, 1, 0);
	trim_to(f, ring, ring->pos);
	append_when_free(f, &f->rings[1], 60000);
	wait_done(f, 1, 0);
	image = image_take(f);
	journal_close(f);
	offset = batch_offset(f, image, f->history_count - 1);
	for (uint64_t i = 0; i < 60000; i++)
		image[offset + i] = (uint8_t)chance(256);
	image_put(f, image);
	free(image);
	f->history_count--;
	open_expect(f, f->history_count);
}

/*
 * A batch that was passed over lies at the start of the file, and new ones at
 * its end: whoever gave them the same sequences would now find the old one.
 */
static void append__never_uses_a_sequence_twice(void **state)
{
	struct fixture *f = *state;
	struct ring_area *ring = &f->rings[0];
	uint8_t *image;

	open_expect(f, 0);
	/* 243 of the 248 blocks. */
	for (int i = 0; i < 27; i++) {
		append_done(f, ring, 8 * BLOCK);
		trim_to(f, ring, ring->pos);
	}
	for (unsigned int i = 0; i < RINGS; i++)
		assert_ok(append(f, &f->rings[i], i ? 2 * BLOCK : 100));
	wait_done(f, RINGS, 0);
	image = image_take(f);
	journal_close(f);
	/* The last has gone to the start. */
	assert_int_equal(batch_offset(f, image, 29), AREA_OFFSET);
	image[batch_offset(f, image, 28) + 8] ^= 1;
	image_put(f, image);
	free(image);

	f->history_count = 28;
	open_expect(f, 28);
	assert_int_equal(stats(f).dropped_batches, 2);
	append_done(f, ring, 10);
	append_done(f, ring, 10);
	image = image_take(f);
	journal_close(f);
	image_put(f, image);
	free(image);
	open_expect(f, 28);
	assert_int_equal(f->visited_from + f->visited, 30);
}

static void replay__batches_of_another_journal_are_not_ours(void **state)
{
	struct fixture *f = *state;
	char *path = path_of(f->dir, "journal.0");
	uint8_t *first, *second;

	open_expect(f, 0);
	for (int i = 0; i < 5; i++)
		append_done(f, &f->rings[0], 9000);
	journal_close(f);
	first = image_take(f);
	assert_ok(unlink(path));
	f->history_count = 0;
	open_expect(f, 0);
	append_done(f, &f->rings[1], 100);
	journal_close(f);
	second = image_take(f);
	memcpy(second + AREA_OFFSET + 2 * BLOCK,
	       first + AREA_OFFSET + 2 * BLOCK,
	       SMALL_BYTES - AREA_OFFSET - 2 * BLOCK);
	image_put(f, second);
	open_expect(f, 0);
	assert_int_equal(f->visited, 1);
	assert_int_equal(stats(f).dropped_batches, 0);
	free(first);
	free(second);
	free(path);
}

/*
 * Damage.
 */

/* Change the image, and expect replay to name batch @at of the history. */
static void expect_damage(struct fixture *f, uint8_t *image, unsigned int at,
			  bool named)
{
	struct petal_journal_damage damage;
	struct petal_journal_range *range = &f->history[at];
	struct petal_journal_range next = { .ring = f->rings[0].id,
					    .to_pos = 64 };

	image_put(f, image);
	assert_ok(petal_journal_open(&f->options, &f->journal));
	assert_outcome(replay(f), -PETAL_ECORRUPT);
	assert_false(f->visit_bad);
	assert_ok(petal_journal_damage(f->journal, &damage));
	assert_int_equal(damage.sequence, at + 1);
	assert_int_equal(damage.named, named);
	if (named) {
		assert_true(range_equal(&damage.range, range));
		assert_int_equal(f->visited, at);
	}
	rings_attach(f);
	assert_outcome(petal_journal_append(f->journal, &next),
		       -PETAL_ECORRUPT);
	journal_close(f);
	/* Nothing was written over: the damage is still there. */
	assert_ok(petal_journal_open(&f->options, &f->journal));
	assert_outcome(replay(f), -PETAL_ECORRUPT);
	journal_close(f);
}

static void replay__damage_in_the_middle_is_reported(void **state)
{
	struct fixture *f = *state;
	/* Of a batch: header, head, page and tail. */
	static const uint64_t places[] = { 0,    40,         90,   255, 256,
					   2000, 256 + 3000, 4096, 9000 };
	uint8_t *good, *image;
	uint64_t offset;

	f->rings[0].pos = 1024;
	open_expect(f, 0);
	for (int i = 0; i < 5; i++)
		append_done(f, &f->rings[0], 3 * BLOCK - 100);
	good = image_take(f);
	image = malloc(f->options.bytes);
	assert_non_null(image);
	journal_close(f);
	for (unsigned int at = 0; at < 4; at++) {
		offset = batch_offset(f, good, at);
		for (unsigned int i = 0; i < 9; i++) {
			memcpy(image, good, f->options.bytes);
			image[offset + places[i]] ^= (uint8_t)(1 << chance(8));
			expect_damage(f, image, at, places[i] >= 256);
		}
		memcpy(image, good, f->options.bytes);
		memset(image + offset + BLOCK, 0, 512);
		expect_damage(f, image, at, true);
		/* A write that went astray: whole, in the wrong place. */
		memcpy(image, good, f->options.bytes);
		memcpy(image + offset, good + batch_offset(f, good, 4),
		       3 * BLOCK);
		expect_damage(f, image, at, false);
	}
	free(good);
	free(image);
}

/* The newest batch is torn; what its header says of others still counts. */
static void replay__header_of_a_torn_batch_names_what_was_durable(void **state)
{
	struct fixture *f = *state;
	uint8_t *good, *image = malloc(f->options.bytes);

	assert_non_null(image);
	open_expect(f, 0);
	for (int i = 0; i < 3; i++)
		append_done(f, &f->rings[0], 5000);
	good = image_take(f);
	journal_close(f);
	good[batch_offset(f, good, 2) + 300] ^= 1;
	memcpy(image, good, f->options.bytes);
	image[batch_offset(f, good, 1) + 300] ^= 1;
	expect_damage(f, image, 1, true);
	memcpy(image, good, f->options.bytes);
	image[batch_offset(f, good, 1) + 30] ^= 1;
	expect_damage(f, image, 1, false);
	free(good);
	free(image);
}

static void replay__last_batch_is_guarded_after_a_clean_close(void **state)
{
	struct fixture *f = *state;
	uint8_t *image;

	open_expect(f, 0);
	append_done(f, &f->rings[0], 5000);
	append_done(f, &f->rings[0], 6000);
	image = image_take(f);
	image[batch_offset(f, image, 1) + 300] ^= 4;
	journal_close(f);
	/* Crashed: nobody says that it was durable. */
	image_put(f, image);
	f->history_count = 1;
	open_expect(f, 0);
	assert_int_equal(f->visited, 1);
	free(image);

	f->history_count = 1;
	append_done(f, &f->rings[1], 6000);
	journal_close(f);
	image = image_take(f);
	image[batch_offset(f, image, 1) + 300] ^= 4;
	image_put(f, image);
	free(image);
	assert_ok(petal_journal_open(&f->options, &f->journal));
	assert_outcome(replay(f), -PETAL_ECORRUPT);
}

/*
 * The file.
 */

static void open__second_opener_is_refused(void **state)
{
	struct fixture *f = *state;
	struct petal_journal *second = NULL;
	int status;
	pid_t child;

	open_expect(f, 0);
	assert_outcome(petal_journal_open(&f->options, &second), -EBUSY);
	assert_null(second);
	child = fork();
	if (!child)
		_exit(petal_journal_open(&f->options, &second) != -EBUSY);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	append_done(f, &f->rings[0], 5000);
	reopen_expect(f, 0);
}

static void open__sizes_are_bounded(void **state)
{
	struct fixture *f = *state;
	static const uint64_t bad[] = { 0, SMALL_BYTES - BLOCK,
					SMALL_BYTES + 512,
					(UINT64_C(1) << 40) + BLOCK };

	for (unsigned int i = 0; i < 4; i++) {
		f->options.bytes = bad[i];
		assert_outcome(petal_journal_open(&f->options, &f->journal),
			       -EINVAL);
	}
	f->options.bytes = SMALL_BYTES;
	f->options.dir = "/nonexistent/petal";
	assert_outcome(petal_journal_open(&f->options, &f->journal), -ENOENT);
	f->options.dir = f->dir;
	assert_false(file_exists(f, "journal.0"));
}

static void open__anothers_journal_is_refused(void **state)
{
	struct fixture *f = *state;

	open_expect(f, 0);
	journal_close(f);
	f->options.node++;
	assert_outcome(petal_journal_open(&f->options, &f->journal),
		       -PETAL_EAUTH);
	f->options.node--;
	f->options.cluster[15]++;
	assert_outcome(petal_journal_open(&f->options, &f->journal),
		       -PETAL_EAUTH);
	f->options.cluster[15]--;
	f->options.bytes += BLOCK;
	assert_outcome(petal_journal_open(&f->options, &f->journal),
		       -PETAL_EGEOMETRY);
	f->options.bytes -= BLOCK;
	open_expect(f, 0);
}

static void superblock_change(uint8_t *block, unsigned int offset,
			      uint32_t value)
{
	uint32_t crc;

	memcpy(block + offset, &value, sizeof(value));
	crc = petal_crc32c(0, block, BLOCK - 4);
	memcpy(block + BLOCK - 4, &crc, sizeof(crc));
}

static void open__another_version_is_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t *image;

	open_expect(f, 0);
	journal_close(f);
	image = image_take(f);
	for (unsigned int i = 0; i < 4; i++)
		superblock_change(image + i * BLOCK, 8,
				  PETAL_JOURNAL_VERSION + 1);
	image_put(f, image);
	free(image);
	assert_outcome(petal_journal_open(&f->options, &f->journal),
		       -PETAL_EVERSION);
}

static void open__two_superblocks_of_four_must_agree(void **state)
{
	struct fixture *f = *state;
	uint8_t *good, *image = malloc(SMALL_BYTES);

	assert_non_null(image);
	open_expect(f, 0);
	append_done(f, &f->rings[0], 100);
	journal_close(f);
	good = image_take(f);
	for (unsigned int bad = 1; bad <= 4; bad++) {
		memcpy(image, good, SMALL_BYTES);
		for (unsigned int i = 0; i < bad; i++)
			image[(3 * i + bad) % 4 * BLOCK + 20] ^= 16;
		image_put(f, image);
		if (bad > 2) {
			assert_outcome(petal_journal_open(&f->options,
							  &f->journal),
				       -PETAL_ECORRUPT);
			continue;
		}
		open_expect(f, 0);
		assert_int_equal(stats(f).superblocks_repaired, bad);
		reopen_expect(f, 0);
		assert_int_equal(stats(f).superblocks_repaired, 0);
		journal_close(f);
	}
	/* Two say this, and two say that. */
	memcpy(image, good, SMALL_BYTES);
	superblock_change(image, 48, NODE + 1);
	superblock_change(image + BLOCK, 48, NODE + 1);
	image_put(f, image);
	assert_outcome(petal_journal_open(&f->options, &f->journal),
		       -PETAL_ECORRUPT);
	free(good);
	free(image);
}

static void open__what_is_no_journal_is_left_alone(void **state)
{
	struct fixture *f = *state;
	char *path = path_of(f->dir, "journal.0");
	uint8_t *image = calloc(1, SMALL_BYTES), *still;

	assert_non_null(image);
	image_put(f, image);
	assert_outcome(petal_journal_open(&f->options, &f->journal),
		       -PETAL_ECORRUPT);
	still = image_take(f);
	assert_memory_equal(image, still, SMALL_BYTES);
	assert_ok(truncate(path, 0));
	assert_outcome(petal_journal_open(&f->options, &f->journal),
		       -PETAL_ECORRUPT);
	assert_ok(unlink(path));
	assert_ok(symlink("elsewhere", path));
	assert_outcome(petal_journal_open(&f->options, &f->journal), -ELOOP);
	assert_ok(unlink(path));
	assert_ok(mkfifo(path, 0600));
	assert_true(petal_journal_open(&f->options, &f->journal) < 0);
	assert_ok(unlink(path));
	free(path);
	free(image);
	free(still);
}

static void open__truncated_journal_is_damage(void **state)
{
	struct fixture *f = *state;
	char *path = path_of(f->dir, "journal.0");

	open_expect(f, 0);
	append_done(f, &f->rings[0], 100);
	journal_close(f);
	assert_ok(truncate(path, SMALL_BYTES - BLOCK));
	assert_outcome(petal_journal_open(&f->options, &f->journal),
		       -PETAL_ECORRUPT);
	free(path);
}

static void open__leftover_of_a_crash_is_made_anew(void **state)
{
	struct fixture *f = *state;
	char *path = path_of(f->dir, "journal.0.new");
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_int_equal(pwrite(fd, "half", 4, 3 << 20), 4);
	close(fd);
	open_expect(f, 0);
	assert_false(file_exists(f, "journal.0.new"));
	append_done(f, &f->rings[0], 100);
	reopen_expect(f, 0);
	free(path);
}

static void open__without_direct_it_says_so(void **state)
{
	struct fixture *f = *state;

	f->options.direct = false;
	open_expect(f, 0);
	assert_false(stats(f).direct);
	append_done(f, &f->rings[0], 50000);
	reopen_expect(f, 0);
	journal_close(f);
	/* The file does not remember how it was written. */
	f->options.direct = true;
	open_expect(f, 0);
	append_done(f, &f->rings[0], 50000);
	reopen_expect(f, 0);
	print_message("engine %s, direct %d, %u of %u areas registered\n",
		      stats(f).engine, stats(f).direct, stats(f).areas_fixed,
		      stats(f).areas);
}

/* Run in a child, for what cannot be taken back. */
static void in_child(void (*body)(struct fixture *), struct fixture *f)
{
	int status = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (!child) {
		body(f);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == PETAL_TEST_SKIPPED)
		skip();
	if (status)
		fail_msg("child ended with status %#x", (unsigned int)status);
}

/* assert_true() of a child, which must not return into cmocka. */
#define child_assert(condition)                                            \
	do {                                                               \
		if (!(condition)) {                                        \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, \
				#condition);                               \
			_exit(1);                                          \
		}                                                          \
	} while (0)

#define child_assert_ok(expr)                                \
	do {                                                 \
		int outcome_ = (expr);                       \
		if (outcome_)                                \
			fprintf(stderr, "%s: %s\n", #expr,   \
				petal_error_name(outcome_)); \
		child_assert(!outcome_);                     \
	} while (0)

static void disk_full(struct fixture *f)
{
	if (unshare(CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("petal", f->dir, "tmpfs", 0, "size=2m"))
		_exit(PETAL_TEST_SKIPPED);
	f->options.bytes = 4 << 20;
	child_assert(petal_journal_open(&f->options, &f->journal) == -ENOSPC);
	child_assert(!file_exists(f, "journal.0"));
	child_assert(!file_exists(f, "journal.0.new"));
	f->options.bytes = 1 << 20;
	child_assert_ok(petal_journal_open(&f->options, &f->journal));
	child_assert(stats(f).memory_only);
	child_assert(replay(f) == 0);
	petal_journal_close(f->journal);
}

static void open__full_disk_leaves_no_file(void **state)
{
	in_child(disk_full, *state);
}

static void file_limit_set(uint64_t bytes)
{
	struct rlimit limit;

	child_assert(!getrlimit(RLIMIT_FSIZE, &limit));
	limit.rlim_cur = bytes;
	child_assert(!setrlimit(RLIMIT_FSIZE, &limit));
}

static void beyond_limit(struct fixture *f)
{
	/* Without signal(): the library must not run into the signal. */
	file_limit_set(SMALL_BYTES / 2);
	child_assert(petal_journal_open(&f->options, &f->journal) == -EFBIG);
	child_assert(!file_exists(f, "journal.0"));
	child_assert(!file_exists(f, "journal.0.new"));
}

static void open__beyond_the_limit_of_file_size_is_refused(void **state)
{
	in_child(beyond_limit, *state);
}

/*
 * Failing writes. A limit of file size makes the kernel refuse them, or cut
 * them short, without any special device.
 */

static unsigned int child_poll(struct fixture *f,
			       struct petal_journal_done *done,
			       unsigned int count)
{
	unsigned int got = 0;

	while (got < count) {
		int more =
			petal_journal_poll(f->journal, done + got, count - got);

		child_assert(more >= 0);
		got += (unsigned int)more;
		if (!more)
			wait_readable(petal_journal_fd(f->journal));
	}
	return got;
}

/* Each batch of 5000 bytes takes two blocks; the third crosses the limit. */
static void failing_write(struct fixture *f, uint64_t limit)
{
	struct petal_journal_done done[RINGS];

	signal(SIGXFSZ, SIG_IGN);
	child_assert_ok(petal_journal_open(&f->options, &f->journal));
	child_assert(replay(f) == 0);
	rings_attach(f);
	child_assert(append(f, &f->rings[0], 5000) == 0);
	child_poll(f, done, 1);
	child_assert(done[0].status == 0);

	/* The first fits, the second does not, and the third is behind it. */
	file_limit_set(limit);
	for (unsigned int i = 0; i < RINGS; i++)
		child_assert(append(f, &f->rings[i], 5000) == 0);
	child_poll(f, done, RINGS);
	child_assert(done[0].status == 0);
	child_assert(done[1].status == -PETAL_EDISK);
	child_assert(done[2].status == -PETAL_EDISK);
	child_assert(stats(f).frozen && stats(f).frozen_status < 0);

	/* The disk is well again; the journal does not believe it. */
	file_limit_set(RLIM_INFINITY);
	child_assert(append(f, &f->rings[0], 64) == -PETAL_EDISK);
	child_assert(petal_journal_detach(f->journal, f->rings[1].id) == 0);
	child_assert(petal_journal_poll(f->journal, done, 1) == 0);
	petal_journal_close(f->journal);
}

static void failing_refused(struct fixture *f)
{
	failing_write(f, AREA_OFFSET + 4 * BLOCK);
}

static void failing_short(struct fixture *f)
{
	failing_write(f, AREA_OFFSET + 5 * BLOCK);
}

static void expect_frozen(struct fixture *f, void (*body)(struct fixture *))
{
	open_expect(f, 0);
	journal_close(f);
	in_child(body, f);
	/* What the child appended and was told to be durable. */
	for (unsigned int i = 0; i < 2; i++) {
		struct petal_journal_range range =
			range_next(&f->rings[0], 5000);

		f->history[f->history_count++] = range;
		f->rings[0].pos = range.to_pos;
		f->rings[0].lsn = range.to_lsn + 1;
	}
	open_expect(f, 0);
	assert_int_equal(f->visited, 2);
	append_done(f, &f->rings[1], 5000);
	reopen_expect(f, 0);
}

/*
 * The same with errors of the disk: the third batch is refused, and the journal
 * says why to its statistics, and -PETAL_EDISK to all others.
 */
static void failing_append(struct fixture *f, int why)
{
	struct petal_journal_done done;

	child_assert(append(f, &f->rings[0], 5000) == 0);
	child_poll(f, &done, 1);
	child_assert(done.status == -PETAL_EDISK);
	child_assert(stats(f).frozen);
	child_assert(stats(f).frozen_status == why);
	for (unsigned int i = 0; i < RINGS; i++)
		child_assert(append(f, &f->rings[i], 64) == -PETAL_EDISK);
	child_assert(petal_journal_trim(f->journal, f->rings[0].id, 5000) == 0);
	child_assert(petal_journal_poll(f->journal, &done, 1) == 0);
	petal_journal_close(f->journal);
}

static void two_good_ones(struct fixture *f)
{
	struct petal_journal_done done;

	child_assert_ok(petal_journal_open(&f->options, &f->journal));
	child_assert(replay(f) == 0);
	rings_attach(f);
	for (unsigned int i = 0; i < 2; i++) {
		child_assert(append(f, &f->rings[0], 5000) == 0);
		child_poll(f, &done, 1);
		child_assert(done.status == 0);
	}
}

/* From now on, the kernel answers these calls with EIO. */
static void calls_fail(const unsigned int *calls, unsigned int count)
{
	struct sock_filter filter[16] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog program = { .filter = filter };
	unsigned int at = 1;

	for (unsigned int i = 0; i < count; i++) {
		filter[at++] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
		filter[at++] = (struct sock_filter)BPF_STMT(
			BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO);
	}
	filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
						    SECCOMP_RET_ALLOW);
	program.len = (unsigned short)at;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(PETAL_TEST_SKIPPED);
}

static void failing_write_eio(struct fixture *f)
{
	static const unsigned int calls[] = { SYS_pwritev, SYS_io_uring_enter };

	two_good_ones(f);
	calls_fail(calls, 2);
	failing_append(f, -EIO);
}

static void failing_flush_eio(struct fixture *f)
{
	static const unsigned int calls[] = { SYS_fdatasync,
					      SYS_io_uring_enter };

	two_good_ones(f);
	calls_fail(calls, 2);
	failing_append(f, -EIO);
}

/* Holes in the file, and no room to fill them. */
static void failing_enospc(struct fixture *f)
{
	char *path = path_of(f->dir, "journal.0");
	char *filler = path_of(f->dir, "filler");
	static const uint8_t bytes[BLOCK];
	int fd, filler_fd;

	if (unshare(CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("petal", f->dir, "tmpfs", 0, "size=2m"))
		_exit(PETAL_TEST_SKIPPED);
	two_good_ones(f);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	filler_fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	child_assert(fd >= 0 && filler_fd >= 0);
	child_assert(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				AREA_OFFSET + 64 * BLOCK, 64 * BLOCK));
	child_assert(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				AREA_OFFSET + 4 * BLOCK, 4 * BLOCK));
	while (write(filler_fd, bytes, BLOCK) == BLOCK)
		;
	child_assert(errno == ENOSPC);
	failing_append(f, -ENOSPC);
	close(fd);
	close(filler_fd);
	free(path);
	free(filler);
}

static void append__full_disk_freezes_the_journal(void **state)
{
	in_child(failing_enospc, *state);
}

static void append__refused_write_freezes_the_journal(void **state)
{
	expect_frozen(*state, failing_refused);
}

static void append__short_write_freezes_the_journal(void **state)
{
	expect_frozen(*state, failing_short);
}

static void failing_note(struct fixture *f)
{
	static const unsigned int calls[] = { SYS_pwritev, SYS_io_uring_enter };

	child_assert_ok(petal_journal_open(&f->options, &f->journal));
	calls_fail(calls, 2);
	child_assert_ok(replay(f));
	child_assert(f->visited == 1 && !f->visit_bad);
	child_assert(stats(f).frozen && stats(f).frozen_status == -EIO);
	rings_attach(f);
	child_assert(append(f, &f->rings[0], 64) == -PETAL_EDISK);
	petal_journal_close(f->journal);
}

/* What replay drops is read nevertheless, and nothing is written any more. */
static void replay__note_that_fails_freezes_the_journal(void **state)
{
	struct fixture *f = *state;
	uint8_t *image;

	open_expect(f, 0);
	append_done(f, &f->rings[0], 5000);
	append_done(f, &f->rings[1], 5000);
	image = image_take(f);
	journal_close(f);
	image[batch_offset(f, image, 1) + 300] ^= 1;
	image_put(f, image);
	free(image);
	f->history_count = 1;
	in_child(failing_note, f);
	open_expect(f, 0);
	assert_int_equal(f->visited, 1);
	append_done(f, &f->rings[1], 100);
	reopen_expect(f, 0);
}

static void append__io_error_freezes_the_journal(void **state)
{
	expect_frozen(*state, failing_write_eio);
}

/* The batch may be there, but nobody was told so. */
static void append__failed_flush_freezes_the_journal(void **state)
{
	struct fixture *f = *state;

	open_expect(f, 0);
	journal_close(f);
	in_child(failing_flush_eio, f);
	for (unsigned int i = 0; i < 3; i++) {
		f->history[f->history_count++] = range_next(&f->rings[0], 5000);
		f->rings[0].pos += 5000;
		f->rings[0].lsn += 4;
	}
	assert_ok(petal_journal_open(&f->options, &f->journal));
	assert_ok(replay(f));
	assert_false(f->visit_bad);
	assert_true(f->visited >= 2);
}

static void locked_memory(struct fixture *f)
{
	/* Enough for the queues, which newer kernels count again. */
	struct rlimit little = { DATA_BYTES, DATA_BYTES };

	child_assert(!setrlimit(RLIMIT_MEMLOCK, &little));
	/* Root may lock what it likes. */
	child_assert(!setgid(NOBODY) && !setuid(NOBODY));
	child_assert_ok(petal_journal_open(&f->options, &f->journal));
	child_assert(replay(f) == 0);
	rings_attach(f);
	child_assert(stats(f).areas == RINGS);
	child_assert(stats(f).areas_fixed == 0);
	child_assert(!stats(f).bounce_fixed);
	append_done(f, &f->rings[0], 40000);
	append_done(f, &f->rings[1], 100);
	petal_journal_close(f->journal);
}

static void attach__without_locked_memory_works_unregistered(void **state)
{
	struct fixture *f = *state;

	/* The kernel counts what all processes of a user have locked. */
	if (geteuid()) {
		print_message("skipped: not root, so no user is at hand who "
			      "has nothing locked\n");
		skip();
	}
	assert_ok(chown(f->dir, NOBODY, NOBODY));
	in_child(locked_memory, f);
}

/*
 * kill -9.
 */

struct shared {
	_Atomic uint64_t total;
	_Atomic uint64_t done_pos[RINGS];
	_Atomic uint64_t trimmed[RINGS];
};

static void writer(struct fixture *f, struct shared *shared)
{
	struct petal_journal_done done[RINGS];

	child_assert_ok(petal_journal_open(&f->options, &f->journal));
	child_assert(replay(f) == 0);
	for (unsigned int i = 0; i < RINGS; i++) {
		struct ring_area *ring = &f->rings[i];

		child_assert(petal_journal_attach(f->journal, ring->id,
						  ring->data,
						  ring->data_bytes) == 0);
		petal_journal_trim(f->journal, ring->id, ring->trimmed);
	}
	for (;;) {
		struct ring_area *ring = &f->rings[chance(RINGS)];
		struct petal_journal_range range =
			range_next(ring, 1 + chance(1 << chance(16)));
		int got;

		/* Fixed, so that the parent can tell what it will read. */
		if (petal_journal_append(f->journal, &range) == 0) {
			ring->pos = range.to_pos;
			ring->lsn = range.to_lsn + 1;
		}
		got = petal_journal_poll(f->journal, done, RINGS);
		for (int i = 0; i < got; i++) {
			unsigned int r =
				(unsigned int)(ring_by_id(f, done[i].ring) -
					       f->rings);

			child_assert(done[i].status == 0);
			atomic_store(&shared->done_pos[r], done[i].to_pos);
			atomic_fetch_add(&shared->total, 1);
			if (chance(2))
				continue;
			/* Announced before it happens: it may be gone. */
			atomic_store(&shared->trimmed[r], done[i].to_pos);
			petal_journal_trim(f->journal, done[i].ring,
					   done[i].to_pos);
		}
	}
}

struct survivors {
	struct fixture *f;
	uint64_t from[RINGS];
	uint64_t to[RINGS];
	bool bad;
};

/* Each ring without a gap, and every byte as it was. */
static int survivor(void *arg, const struct petal_journal_range *range,
		    const void *bytes)
{
	struct survivors *s = arg;
	struct ring_area *ring = ring_by_id(s->f, range->ring);
	long i = ring - s->f->rings;

	if (!ring || !bytes_right(range, bytes)) {
		s->bad = true;
		return 0;
	}
	if (s->to[i] && s->to[i] != range->from_pos)
		s->bad = true;
	if (!s->to[i])
		s->from[i] = range->from_pos;
	s->to[i] = range->to_pos;
	ring->lsn = range->to_lsn + 1;
	return 0;
}

/* The dead process's last writes hold the lock until they are done. */
static void wait_unlocked(const struct fixture *f)
{
	char *path = path_of(f->dir, "journal.0");
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_ok(flock(fd, LOCK_EX));
	close(fd);
	free(path);
}

static void kill_and_check(struct fixture *f, struct shared *shared)
{
	struct survivors survivors = { .f = f };
	uint64_t target = atomic_load(&shared->total) + 1 + chance(60);
	uint64_t spin = chance(20000);
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (!child)
		writer(f, shared);
	random_state = mix(random_state + 1);
	while (atomic_load(&shared->total) < target) {
		assert_int_equal(waitpid(child, &status, WNOHANG), 0);
		sched_yield();
	}
	for (volatile uint64_t i = 0; i < spin; i++)
		;
	assert_ok(kill(child, SIGKILL));
	assert_int_equal(waitpid(child, &status, 0), child);
	wait_unlocked(f);

	assert_ok(petal_journal_open(&f->options, &f->journal));
	assert_ok(petal_journal_replay(f->journal, survivor, &survivors));
	assert_false(survivors.bad);
	for (unsigned int i = 0; i < RINGS; i++) {
		struct ring_area *ring = &f->rings[i];
		uint64_t done = atomic_load(&shared->done_pos[i]);

		ring->trimmed = atomic_load(&shared->trimmed[i]);
		if (survivors.to[i]) {
			assert_true(survivors.to[i] >= done);
			assert_true(survivors.from[i] <= ring->trimmed);
			ring->pos = survivors.to[i];
		} else {
			assert_true(ring->trimmed >= done);
			ring->pos = done;
		}
	}
	journal_close(f);
}

static void replay__after_kill_9_has_all_that_was_done(void **state)
{
	struct fixture *f = *state;
	uint64_t rounds = 50 * environment("PETAL_TEST_ROUNDS", 1);
	struct shared *shared = (struct shared *)(void *)area_map(BLOCK);

	open_expect(f, 0);
	journal_close(f);
	for (uint64_t i = 0; i < rounds; i++)
		kill_and_check(f, shared);
	print_message("%llu batches done in %llu lives\n",
		      (unsigned long long)atomic_load(&shared->total),
		      (unsigned long long)rounds);
	munmap(shared, BLOCK);
}

/*
 * The other engine.
 */

static void sample(struct fixture *f, bool write)
{
	random_state = 42;
	rings_make(f, DATA_BYTES);
	f->history_count = 0;
	f->rings[1].pos = DATA_BYTES - 10000;
	for (int i = 0; i < 12; i++) {
		struct ring_area *ring = &f->rings[chance(RINGS)];
		struct petal_journal_range range =
			range_next(ring, 1 + chance(60000));

		f->history[f->history_count++] = range;
		ring->pos = range.to_pos;
		ring->lsn = range.to_lsn + 1;
		if (!write)
			continue;
		assert_ok(petal_journal_attach(f->journal, ring->id, ring->data,
					       ring->data_bytes));
		assert_ok(petal_journal_append(f->journal, &range));
		wait_done(f, 1, 0);
	}
}

static void sample_write(struct fixture *f)
{
	assert_ok(petal_journal_open(&f->options, &f->journal));
	assert_ok(replay(f));
	sample(f, true);
	journal_close(f);
}

static void sample_check(struct fixture *f)
{
	sample(f, false);
	open_expect(f, 0);
	assert_int_equal(f->visited, 12);
	journal_close(f);
}

static void other_run(const char *verb, const char *dir)
{
	int status = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (!child) {
		execl(other_program, other_program, verb, dir, (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void replay__reads_what_the_other_engine_wrote(void **state)
{
	struct fixture *f = *state;

	if (!other_program)
		skip();
	other_run("--write", f->dir);
	sample_check(f);
}

static void append__writes_what_the_other_engine_reads(void **state)
{
	struct fixture *f = *state;

	if (!other_program)
		skip();
	sample_write(f);
	other_run("--check", f->dir);
}

/* The half that the test with the other engine calls. */
static int serve(const char *verb, const char *dir)
{
	void *state = NULL;
	struct fixture *f;

	setup(&state);
	f = state;
	petal_test_tmpdir_remove(f->dir);
	/* Not ours to remove. */
	f->dir = NULL;
	f->options.dir = dir;
	if (!strcmp(verb, "--write"))
		sample_write(f);
	else
		sample_check(f);
	return teardown(&state);
}

#define journal_unit_test(name) \
	cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		journal_unit_test(replay__new_journal_is_empty),
		journal_unit_test(replay__gives_back_random_ranges_in_order),
		journal_unit_test(append__takes_every_remainder_of_a_page),
		journal_unit_test(
			append__takes_ranges_of_megabytes_around_the_end),
		journal_unit_test(append__continues_after_each_reopening),
		journal_unit_test(
			append__rings_fly_together_and_are_reported_in_order),
		journal_unit_test(append__bounds_what_is_in_flight),
		journal_unit_test(poll__completion_wakes_a_sleeper_in_epoll),
		journal_unit_test(replay__visitor_may_stop_it),
		journal_unit_test(append__refuses_what_makes_no_sense),
		journal_unit_test(append__full_journal_refuses_until_trimmed),
		journal_unit_test(
			append__smallest_batches_fill_it_to_the_last_block),
		journal_unit_test(trim__many_laps_keep_exactly_what_is_needed),
		journal_unit_test(
			detach__frees_the_batches_of_a_ring_that_nobody_knows),
		journal_unit_test(retire__keeps_the_batches),
		journal_unit_test(uuid__is_of_the_file),
		journal_unit_test(replay__torn_tail_is_dropped_at_every_sector),
		journal_unit_test(
			replay__torn_tail_over_an_older_lap_is_dropped),
		journal_unit_test(
			replay__what_lies_behind_a_torn_batch_never_comes_back),
		journal_unit_test(
			replay__same_bytes_again_do_not_heal_what_was_dropped),
		journal_unit_test(replay__survives_one_torn_end_after_another),
		journal_unit_test(
			replay__torn_batch_over_freed_space_is_no_damage),
		journal_unit_test(append__never_uses_a_sequence_twice),
		journal_unit_test(
			replay__batches_of_another_journal_are_not_ours),
		journal_unit_test(replay__damage_in_the_middle_is_reported),
		journal_unit_test(
			replay__header_of_a_torn_batch_names_what_was_durable),
		journal_unit_test(
			replay__last_batch_is_guarded_after_a_clean_close),
		journal_unit_test(open__second_opener_is_refused),
		journal_unit_test(open__sizes_are_bounded),
		journal_unit_test(open__anothers_journal_is_refused),
		journal_unit_test(open__another_version_is_refused),
		journal_unit_test(open__two_superblocks_of_four_must_agree),
		journal_unit_test(open__what_is_no_journal_is_left_alone),
		journal_unit_test(open__truncated_journal_is_damage),
		journal_unit_test(open__leftover_of_a_crash_is_made_anew),
		journal_unit_test(open__without_direct_it_says_so),
		journal_unit_test(open__full_disk_leaves_no_file),
		journal_unit_test(
			open__beyond_the_limit_of_file_size_is_refused),
		journal_unit_test(append__refused_write_freezes_the_journal),
		journal_unit_test(append__short_write_freezes_the_journal),
		journal_unit_test(replay__note_that_fails_freezes_the_journal),
		journal_unit_test(append__io_error_freezes_the_journal),
		journal_unit_test(append__failed_flush_freezes_the_journal),
		journal_unit_test(append__full_disk_freezes_the_journal),
		journal_unit_test(
			attach__without_locked_memory_works_unregistered),
		journal_unit_test(replay__after_kill_9_has_all_that_was_done),
		journal_unit_test(replay__reads_what_the_other_engine_wrote),
		journal_unit_test(append__writes_what_the_other_engine_reads),
	};

	if (argc == 3 && !strcmp(argv[1], "--only"))
		cmocka_set_test_filter(argv[2]);
	else if (argc == 3)
		return serve(argv[1], argv[2]);
	if (argc == 2)
		other_program = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
