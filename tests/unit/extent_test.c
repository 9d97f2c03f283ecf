/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/extent.h: a segment grows and shrinks while others use it, the
 * kernel gets its memory back, what is stale is refused, and whatever a keeper
 * was doing when he was killed, his successor ends it (traps: a recoverer that
 * dies, SIGBUS, fork, an identity that is used again).
 *
 *	extent_test [MIB [CYCLES]]
 *
 * MIB is how large the segment becomes under load, 512 unless told; 8192 is
 * what the project promises. CYCLES is how often it grows and shrinks in each
 * of two step sizes, 1 unless told. Huge pages are tried if four of 2 MiB are
 * free. PETAL_TEST_HARDER=10 kills ten times as many keepers.
 */
#include "tests/check.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "shm/clock.h"
#include "shm/extent.h"

#define MIB (UINT64_C(1) << 20)
#define PAGE 4096u

static uint64_t load_mib = 512;
static uint64_t load_cycles = 1;

struct fixture {
	struct petal_segment segment;
	struct petal_extents extents;
};

static struct petal_segment open_growable(uint64_t reserve, uint64_t extent)
{
	const struct petal_segment_options options = {
		.name = "extent-test",
		.body_bytes = 2 * PAGE,
		.reserve_bytes = 2 * PAGE + reserve,
		.extent_bytes = extent,
	};
	struct petal_segment segment;

	assert_ok(petal_segment_open(&options, &segment));
	return segment;
}

static int keep(struct petal_extents *extents)
{
	struct petal_peer_id self;
	int outcome = petal_peer_self(&self);

	return outcome ? outcome : petal_extent_keep(extents, &self);
}

/* Eight extents of 64 KiB. */
static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->segment = open_growable(8 * 65536, 65536);
	assert_ok(petal_extent_open(&f->segment, &f->extents));
	assert_ok(keep(&f->extents));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	petal_segment_close(&f->segment);
	free(f);
	return 0;
}

static uint64_t allocated(const struct petal_segment *segment)
{
	struct stat status;

	assert_int_equal(fstat(segment->fd, &status), 0);
	return (uint64_t)status.st_blocks * 512;
}

static pid_t start(void (*body)(void *), void *argument)
{
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body(argument);
		_exit(0);
	}
	return child;
}

static int end_of(pid_t child)
{
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static void *at(const struct petal_segment *segment, uint64_t offset)
{
	return (unsigned char *)segment->base + offset;
}

/* ---- Growing and shrinking. ---- */

static void open__of_a_segment_that_cannot_grow_is_einval(void **state)
{
	const struct petal_segment_options options = {
		.name = "extent-test",
		.body_bytes = PAGE,
	};
	struct petal_segment segment;
	struct petal_extents extents;

	(void)state;
	assert_ok(petal_segment_open(&options, &segment));
	assert_outcome(petal_extent_open(&segment, &extents), -EINVAL);
	petal_segment_close(&segment);
}

static void reserve__costs_addresses_and_no_memory(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->extents.count, 8);
	assert_int_equal(petal_segment_body_bytes(&f->segment), 2 * PAGE);
	assert_int_equal(allocated(&f->segment), f->segment.fixed_bytes);
	assert_int_equal(ftruncate(f->segment.fd, 0), -1);
	assert_int_equal(petal_extent_live_bytes(&f->extents), 0);
}

static void add__is_seen_by_a_peer_that_attached_before(void **state)
{
	struct fixture *f = *state;
	struct petal_segment peer;
	struct petal_extents theirs;
	struct petal_extent_info info;
	uint64_t offset, generation;

	assert_ok(petal_segment_attach(f->segment.fd, true, &peer));
	assert_ok(petal_extent_open(&peer, &theirs));
	assert_ok(petal_extent_look(&theirs, 0, &info));
	assert_int_equal(info.state, PETAL_EXTENT_FREE);

	assert_ok(petal_extent_add(&f->extents, 65536, &offset, &generation));
	assert_int_equal(allocated(&f->segment),
			 f->segment.fixed_bytes + 65536);
	assert_ok(petal_extent_look(&theirs, 0, &info));
	assert_int_equal(info.state, PETAL_EXTENT_LIVE);
	assert_int_equal(info.offset, offset);
	assert_int_equal(info.generation, generation);
	assert_ok(petal_extent_check(&theirs, offset, 65536, generation));
	strcpy(at(&f->segment, offset), "new memory");
	assert_string_equal(at(&peer, offset), "new memory");
	petal_segment_close(&peer);
}

static void reclaim__gives_the_memory_back_and_zeroes_it(void **state)
{
	struct fixture *f = *state;
	uint64_t offset, generation, again, later;

	assert_ok(petal_extent_add(&f->extents, 1, &offset, &generation));
	memset(at(&f->segment, offset), 0xff, 65536);
	assert_outcome(petal_extent_reclaim(&f->extents, offset, generation,
					    false),
		       -EBUSY);
	assert_ok(petal_extent_retire(&f->extents, offset, generation));
	assert_ok(petal_extent_retire(&f->extents, offset, generation));
	assert_outcome(petal_extent_check(&f->extents, offset, 1, generation),
		       PETAL_EXTENT_LEAVING);
	assert_ok(petal_extent_reclaim(&f->extents, offset, generation, false));
	assert_int_equal(allocated(&f->segment), f->segment.fixed_bytes);
	assert_int_equal(petal_extent_live_bytes(&f->extents), 0);
	assert_ok(petal_extent_add(&f->extents, 1, &again, &later));
	assert_int_equal(again, offset);
	assert_int_not_equal(later, generation);
	for (unsigned i = 0; i < 65536; i++)
		assert_int_equal(*(char *)at(&f->segment, offset + i), 0);
}

static void add__without_room_is_enospc_and_changes_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t offset = 7, generation = 7;
	uint64_t first, first_generation;

	assert_outcome(petal_extent_add(&f->extents, 0, &offset, &generation),
		       -EINVAL);
	assert_outcome(petal_extent_add(&f->extents, UINT64_MAX, &offset,
					&generation),
		       -ENOSPC);
	assert_ok(petal_extent_add(&f->extents, 3 * 65536, &first,
				   &first_generation));
	assert_outcome(petal_extent_add(&f->extents, 5 * 65536 + 1, &offset,
					&generation),
		       -ENOSPC);
	assert_int_equal(offset, 7);
	assert_int_equal(generation, 7);
	assert_ok(
		petal_extent_add(&f->extents, 5 * 65536, &offset, &generation));
	assert_int_equal(offset, first + 3 * 65536);
	assert_ok(petal_extent_retire(&f->extents, first, first_generation));
	assert_ok(petal_extent_reclaim(&f->extents, first, first_generation,
				       false));
	assert_outcome(petal_extent_add(&f->extents, 4 * 65536, &offset,
					&generation),
		       -ENOSPC);
}

static void add__more_than_the_machine_has_is_enomem(void **state)
{
	const struct petal_segment_options options = {
		.name = "extent-test",
		.body_bytes = PAGE,
		.reserve_bytes = UINT64_C(1) << 44,
		.extent_bytes = UINT64_C(1) << 34,
	};
	struct petal_segment s;
	struct petal_extents extents;
	struct petal_extent_info info;
	uint64_t offset, generation;

	(void)state;
	if (petal_segment_open(&options, &s) == -ENOMEM) {
		print_message("no 16 TiB of addresses, so not tried\n");
		return;
	}
	assert_ok(petal_extent_open(&s, &extents));
	assert_ok(keep(&extents));
	assert_outcome(petal_extent_add(&extents, UINT64_C(1) << 43, &offset,
					&generation),
		       -ENOMEM);
	assert_ok(petal_extent_look(&extents, 0, &info));
	assert_int_equal(info.state, PETAL_EXTENT_FREE);
	assert_int_equal(allocated(&s), s.fixed_bytes);
	petal_segment_close(&s);
}

static void run__is_one_generation_and_goes_as_one(void **state)
{
	struct fixture *f = *state;
	struct petal_extents *e = &f->extents;
	uint64_t a, b, a_generation, b_generation;

	assert_ok(petal_extent_add(e, 3 * 65536, &a, &a_generation));
	assert_ok(petal_extent_add(e, 2 * 65536, &b, &b_generation));
	assert_ok(petal_extent_check(e, a, 3 * 65536, a_generation));
	assert_ok(petal_extent_check(e, a + 65535, 2, a_generation));
	assert_outcome(petal_extent_check(e, a, 3 * 65536 + 1, a_generation),
		       -ESTALE);
	assert_outcome(petal_extent_retire(e, a + 65536, a_generation),
		       -ERANGE);
	assert_outcome(petal_extent_retire(e, a + 1, a_generation), -ERANGE);
	assert_outcome(petal_extent_retire(e, a, b_generation), -ESTALE);
	assert_outcome(petal_extent_retire(e, b + 2 * 65536, b_generation),
		       -ESTALE);
	assert_outcome(petal_extent_retire(e, b + 2 * 65536, 0), -ESTALE);
	assert_outcome(petal_extent_retire(e, 0, a_generation), -ERANGE);
	assert_outcome(petal_extent_retire(e, UINT64_MAX, a_generation),
		       -ERANGE);
	assert_ok(petal_extent_retire(e, a, a_generation));
	assert_outcome(petal_extent_check(e, a + 2 * 65536, 1, a_generation),
		       PETAL_EXTENT_LEAVING);
	assert_ok(petal_extent_check(e, b, 1, b_generation));
	assert_ok(petal_extent_reclaim(e, a, a_generation, false));
	assert_int_equal(petal_extent_live_bytes(e), 2 * 65536);
}

/* ---- What is refused. ---- */

static void check__refuses_what_is_outside_or_old(void **state)
{
	struct fixture *f = *state;
	struct petal_extents *e = &f->extents;
	uint64_t total = f->segment.total_bytes;
	uint64_t fixed = f->segment.fixed_bytes;
	uint64_t header = f->segment.header_bytes;
	uint64_t offset, generation;

	assert_ok(petal_extent_add(e, 1, &offset, &generation));
	assert_ok(petal_extent_check(e, header, fixed - header, 0));
	assert_outcome(petal_extent_check(e, header, 1, 1), -ESTALE);
	assert_outcome(petal_extent_check(e, header - 1, 2, 0), -ERANGE);
	assert_outcome(petal_extent_check(e, 0, 1, 0), -ERANGE);
	assert_outcome(petal_extent_check(e, fixed - 1, 2, 0), -ERANGE);
	assert_outcome(petal_extent_check(e, offset, 0, generation), -ERANGE);
	assert_outcome(petal_extent_check(e, total, 1, generation), -ERANGE);
	assert_outcome(petal_extent_check(e, total - 1, 2, 0), -ERANGE);
	assert_outcome(petal_extent_check(e, UINT64_MAX, UINT64_MAX, 0),
		       -ERANGE);
	assert_outcome(petal_extent_check(e, offset, UINT64_MAX, generation),
		       -ERANGE);
	assert_outcome(petal_extent_check(e, offset, 1, 0), -ESTALE);
	assert_outcome(petal_extent_check(e, offset, 1, generation + 1),
		       -ESTALE);
	assert_outcome(petal_extent_check(e, total - 1, 1, 0), -ESTALE);
}

static void pin__keeps_a_retired_run_until_the_last_one_left(void **state)
{
	struct fixture *f = *state;
	struct petal_extents *e = &f->extents;
	uint64_t offset, generation;

	assert_ok(petal_extent_add(e, 3 * 65536, &offset, &generation));
	assert_ok(petal_extent_pin(e, offset, generation));
	assert_ok(petal_extent_pin(e, offset + 2 * 65536 + 5, generation));
	assert_ok(petal_extent_retire(e, offset, generation));
	assert_outcome(petal_extent_pin(e, offset, generation), -ESTALE);
	assert_outcome(petal_extent_reclaim(e, offset, generation, false),
		       PETAL_EXTENT_PINNED);
	assert_ok(petal_extent_unpin(e, offset, generation));
	assert_outcome(petal_extent_unpin(e, offset, generation), -ESTALE);
	assert_outcome(petal_extent_reclaim(e, offset, generation, false),
		       PETAL_EXTENT_PINNED);
	assert_int_equal(petal_extent_live_bytes(e), 3 * 65536);
	assert_ok(petal_extent_unpin(e, offset + 2 * 65536, generation));
	assert_ok(petal_extent_reclaim(e, offset, generation, false));
	assert_outcome(petal_extent_pin(e, offset, generation), -ESTALE);
	assert_outcome(petal_extent_unpin(e, offset, generation), -ESTALE);
}

static unsigned mapped_pages(const void *address, uint64_t bytes)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	unsigned count = 0;

	assert_true(fd >= 0);
	for (uint64_t i = 0; i < bytes / PAGE; i++) {
		uint64_t entry;
		off_t where = (off_t)(((uintptr_t)address / PAGE + i) * 8);

		assert_int_equal(pread(fd, &entry, 8, where), 8);
		count += entry >> 63 & 1;
	}
	close(fd);
	return count;
}

static void prefault__maps_what_it_is_given_and_nothing_stale(void **state)
{
	struct fixture *f = *state;
	struct petal_extents *e = &f->extents;
	uint64_t offset, generation;

	assert_ok(petal_extent_add(e, 2 * 65536, &offset, &generation));
	assert_outcome(petal_extent_prefault(e, offset, 2 * 65536 + 1,
					     generation),
		       -ESTALE);
	assert_int_equal(mapped_pages(at(&f->segment, offset), 2 * 65536), 0);
	assert_ok(petal_extent_prefault(e, offset + 5, 2 * 65536 - 5,
					generation));
	assert_int_equal(mapped_pages(at(&f->segment, offset), 2 * 65536), 32);
	assert_ok(petal_extent_retire(e, offset, generation));
	assert_ok(petal_extent_reclaim(e, offset, generation, false));
	assert_outcome(petal_extent_prefault(e, offset, 1, generation),
		       -ESTALE);
	assert_int_equal(allocated(&f->segment), f->segment.fixed_bytes);
}

static void pin__of_the_body_is_nothing_and_of_nowhere_is_refused(void **state)
{
	struct fixture *f = *state;
	struct petal_extents *e = &f->extents;

	assert_ok(petal_extent_pin(e, f->segment.header_bytes, 0));
	assert_ok(petal_extent_unpin(e, f->segment.header_bytes, 0));
	assert_outcome(petal_extent_pin(e, f->segment.header_bytes, 1),
		       -ESTALE);
	assert_outcome(petal_extent_pin(e, 0, 0), -ERANGE);
	assert_outcome(petal_extent_pin(e, UINT64_MAX, 3), -ERANGE);
	assert_outcome(petal_extent_pin(e, f->segment.total_bytes, 3), -ERANGE);
	assert_outcome(petal_extent_pin(e, f->segment.fixed_bytes, 0), -ESTALE);
}

static void pin__stops_at_the_most_that_fit(void **state)
{
	struct fixture *f = *state;
	struct petal_extents *e = &f->extents;
	uint64_t offset, generation;

	assert_ok(petal_extent_add(e, 1, &offset, &generation));
	petal_store(&e->word[0],
		    petal_extent_word(generation, PETAL_EXTENT_LIVE) |
			    (PETAL_EXTENT_PINS_MAX - 1),
		    PETAL_RELAXED);
	assert_ok(petal_extent_pin(e, offset, generation));
	assert_outcome(petal_extent_pin(e, offset, generation), -EAGAIN);
	assert_ok(petal_extent_unpin(e, offset, generation));
	assert_ok(petal_extent_check(e, offset, 1, generation));
}

static void reclaim__by_proof_does_not_mind_the_pins_of_the_dead(void **state)
{
	struct fixture *f = *state;
	struct petal_extents *e = &f->extents;
	uint64_t offset, generation;
	pid_t child;

	assert_ok(petal_extent_add(e, 65536, &offset, &generation));
	child = fork();
	if (child == 0)
		_exit(petal_extent_pin(e, offset, generation) != 0);
	assert_int_equal(end_of(child), 0);
	assert_ok(petal_extent_retire(e, offset, generation));
	assert_outcome(petal_extent_reclaim(e, offset, generation, false),
		       PETAL_EXTENT_PINNED);
	assert_ok(petal_extent_reclaim(e, offset, generation, true));
	assert_int_equal(allocated(&f->segment), f->segment.fixed_bytes);
}

static void reader__may_look_and_check_but_not_change(void **state)
{
	struct fixture *f = *state;
	struct petal_segment peer;
	struct petal_extents theirs;
	uint64_t offset, generation;

	assert_ok(petal_extent_add(&f->extents, 1, &offset, &generation));
	assert_ok(petal_segment_attach(f->segment.fd, false, &peer));
	assert_ok(petal_extent_open(&peer, &theirs));
	assert_ok(petal_extent_check(&theirs, offset, 1, generation));
	assert_outcome(petal_extent_pin(&theirs, offset, generation), -EROFS);
	assert_outcome(keep(&theirs), -EROFS);
	assert_outcome(petal_extent_add(&theirs, 1, &offset, &generation),
		       -PETAL_EFENCED);
	petal_segment_close(&peer);
}

static void words__that_nobody_wrote_stay_harmless(void **state)
{
	struct fixture *f = *state;
	struct petal_extents *e = &f->extents;
	uint64_t seed = 5;

	for (uint64_t i = petal_test_rounds(20000); i > 0; i--) {
		uint64_t r = petal_test_random(&seed);
		struct petal_extent_info info;
		uint64_t offset, generation;

		petal_store(&e->word[r % 8], r << (r >> 32 & 31),
			    PETAL_RELAXED);
		petal_store(&e->table->generation, r, PETAL_RELAXED);
		(void)petal_extent_add(e, r % (4 * 65536), &offset,
				       &generation);
		for (uint64_t x = 0; x < 8; x++) {
			assert_ok(petal_extent_look(e, x, &info));
			(void)petal_extent_retire(e, info.offset,
						  info.generation);
			(void)petal_extent_reclaim(e, info.offset,
						   info.generation, r & 1);
			(void)petal_extent_check(e, info.offset, r >> 20,
						 info.generation);
		}
		if (i % 64 == 0)
			(void)keep(e);
	}
	petal_store(&e->word[3], petal_extent_word(9, 7), PETAL_RELAXED);
	assert_outcome(keep(e), -PETAL_ECORRUPT);
}

/* ---- The keeper. ---- */

static void keep__is_for_one_at_a_time(void **state)
{
	struct fixture *f = *state;
	uint64_t offset, generation;
	pid_t child;

	assert_ok(keep(&f->extents));
	child = fork();
	if (child == 0) {
		/* A copy of the parent's view does not make us the parent. */
		if (petal_extent_add(&f->extents, 1, &offset, &generation) !=
		    -PETAL_EFENCED)
			_exit(1);
		petal_extent_drop(&f->extents);
		_exit(keep(&f->extents) == -EBUSY ? 0 : 2);
	}
	assert_int_equal(end_of(child), 0);
	assert_ok(petal_extent_add(&f->extents, 1, &offset, &generation));
	petal_extent_drop(&f->extents);
	assert_outcome(petal_extent_add(&f->extents, 1, &offset, &generation),
		       -PETAL_EFENCED);
	child = fork();
	if (child == 0)
		_exit(keep(&f->extents) != 0);
	assert_int_equal(end_of(child), 0);
	/* The child kept it and is dead. */
	assert_ok(keep(&f->extents));
	assert_ok(petal_extent_retire(&f->extents, offset, generation));
}

static void keep__needs_an_identity_of_our_own(void **state)
{
	struct fixture *f = *state;
	struct petal_peer_id id;

	memset(&id, 0, sizeof(id));
	assert_outcome(petal_extent_keep(&f->extents, &id), -EINVAL);
	assert_ok(petal_peer_self(&id));
	id.pid++;
	assert_outcome(petal_extent_keep(&f->extents, &id), -EINVAL);
}

/*
 * One contender may be anywhere in its call when another succeeds. Whatever it
 * has stored then, the keeper is the one who is in the word, and in no other
 * realm than his own.
 */
static void keep__no_other_word_decides_who_lives(void **state)
{
	struct fixture *f = *state;
	struct petal_extent_table *table = f->extents.table;
	pid_t child;

	memset(&table->generation, 0x5a,
	       sizeof(*table) -
		       offsetof(struct petal_extent_table, generation));
	child = fork();
	if (child == 0)
		_exit(keep(&f->extents) == -EBUSY ? 0 : 1);
	assert_int_equal(end_of(child), 0);
}

static void keep__of_another_realm_is_not_judged(void **state)
{
	struct fixture *f = *state;
	struct petal_peer_id id;
	uint64_t stamp;
	pid_t child;

	assert_ok(petal_peer_self(&id));
	id.realm_hash ^= 1;
	petal_extent_drop(&f->extents);
	assert_ok(petal_extent_keep(&f->extents, &id));
	stamp = petal_load(&f->extents.table->keeper, PETAL_RELAXED);
	child = fork();
	if (child == 0)
		_exit(keep(&f->extents) == -EXDEV ? 0 : 1);
	assert_int_equal(end_of(child), 0);
	/* The same PID, started at another time: that one has ended. */
	petal_extent_drop(&f->extents);
	petal_store(&f->extents.table->keeper,
		    stamp ^ UINT64_C(1) << 42 ^ UINT64_C(1) << 22,
		    PETAL_RELAXED);
	assert_ok(keep(&f->extents));
	/* No PID at all: nobody wrote that. */
	petal_store(&f->extents.table->keeper, 1, PETAL_RELAXED);
	petal_extent_drop(&f->extents);
	assert_outcome(keep(&f->extents), -EXDEV);
}

static void add_at__takes_the_place_that_was_meant(void **state)
{
	struct fixture *f = *state;
	struct petal_extents *e = &f->extents;
	uint64_t offset, generation, other;

	petal_extent_drop(e);
	assert_outcome(petal_extent_add_at(e, 1, &generation), -PETAL_EFENCED);
	assert_ok(keep(e));
	assert_ok(petal_extent_add_at(e, 1, &generation));
	assert_ok(petal_extent_check(e, e->fixed_bytes + 65536, 65536,
				     generation));
	assert_outcome(petal_extent_add_at(e, 1, &other), -EBUSY);
	assert_outcome(petal_extent_add_at(e, e->count, &other), -ENOSPC);
	/* A run of its own, although a neighbour comes later. */
	assert_ok(petal_extent_add_at(e, 0, &other));
	assert_ok(petal_extent_retire(e, e->fixed_bytes + 65536, generation));
	assert_ok(petal_extent_reclaim(e, e->fixed_bytes + 65536, generation,
				       false));
	assert_ok(petal_extent_check(e, e->fixed_bytes, 65536, other));
	assert_ok(petal_extent_add(e, 1, &offset, &generation));
	assert_int_equal(offset, e->fixed_bytes + 65536);
}

/* F, A, L, R, P: free, adding, live, retiring, punching. */
static enum petal_extent_state state_of(char letter)
{
	static const char letters[] = "FALRP";

	return (enum petal_extent_state)(strchr(letters, letter) - letters);
}

static void expect_after_repair(struct fixture *f, const char *before,
				const char *after)
{
	struct petal_extents *e = &f->extents;
	uint64_t live = 0;

	for (unsigned i = 0; i < 3; i++) {
		/* As a keeper who is no more would have left it. */
		petal_store(&e->word[i],
			    petal_extent_word(77, state_of(before[i])),
			    PETAL_RELAXED);
		if (before[i] != 'F')
			*(char *)at(&f->segment,
				    f->segment.fixed_bytes + i * 65536u) = 'x';
	}
	assert_ok(keep(e));
	for (unsigned i = 0; i < 3; i++) {
		struct petal_extent_info info;

		assert_ok(petal_extent_look(e, i, &info));
		assert_int_equal(info.state, state_of(after[i]));
		live += info.state != PETAL_EXTENT_FREE;
	}
	assert_int_equal(petal_extent_live_bytes(e), live * 65536);
	if (live == 0)
		assert_int_equal(allocated(&f->segment), e->fixed_bytes);
}

static void keep__finishes_each_state_that_a_death_can_leave(void **state)
{
	static const char *const cases[][2] = {
		{ "PRR", "FFF" }, { "PPR", "FFF" }, { "PPP", "FFF" },
		{ "FPP", "FFF" }, { "FFP", "FFF" }, { "PAA", "FFF" },
		{ "PPA", "FFF" }, { "AFF", "FFF" }, { "AAF", "FFF" },
		{ "AAA", "FFF" }, { "LAA", "LLL" }, { "LLA", "LLL" },
		{ "LLL", "LLL" }, { "RLL", "RRR" }, { "RRL", "RRR" },
		{ "RRR", "RRR" },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_after_repair(f, cases[i][0], cases[i][1]);
}

static void grow_and_shrink_for_ever(void *argument)
{
	struct fixture *f = argument;
	struct petal_extents *e = &f->extents;
	uint64_t seed = (uint64_t)getpid();

	if (keep(e))
		_exit(1);
	for (;;) {
		uint64_t extents = 1 + petal_test_random(&seed) % 3;
		uint64_t offset, generation;
		struct petal_extent_info info;

		petal_extent_add(e, extents * 65536, &offset, &generation);
		if (petal_extent_look(e, petal_test_random(&seed) % 8, &info))
			_exit(2);
		petal_extent_retire(e, info.offset, info.generation);
		petal_extent_reclaim(e, info.offset, info.generation, false);
	}
}

static void nap(long ns)
{
	const struct timespec time = { .tv_nsec = ns };

	nanosleep(&time, NULL);
}

/* Time decides only when it dies, and not what is expected then. */
static void keep__after_a_kill_finds_every_run_whole(void **state)
{
	struct fixture *f = *state;
	struct petal_extents *e = &f->extents;
	uint64_t seed = 11;

	petal_extent_drop(e);
	for (uint64_t i = petal_test_rounds(40); i > 0; i--) {
		pid_t child = start(grow_and_shrink_for_ever, f);

		while (petal_load(&e->table->keeper, PETAL_RELAXED) == 0)
			sched_yield();
		nap((long)(petal_test_random(&seed) % 2000000));
		assert_int_equal(kill(child, SIGKILL), 0);
		assert_true(WIFSIGNALED(end_of(child)));
		assert_ok(keep(e));
		for (uint64_t x = 0; x < e->count; x++) {
			struct petal_extent_info info;

			assert_ok(petal_extent_look(e, x, &info));
			assert_true(info.state == PETAL_EXTENT_FREE ||
				    info.state == PETAL_EXTENT_LIVE ||
				    info.state == PETAL_EXTENT_RETIRING);
		}
		assert_int_equal(allocated(&f->segment),
				 f->segment.fixed_bytes +
					 petal_extent_live_bytes(e));
		petal_extent_drop(e);
	}
}

/* ---- Huge pages and files. ---- */

static uint64_t free_huge_pages(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	uint64_t count = 0;

	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "HugePages_Free: %" SCNu64, &count) == 1)
			break;
	fclose(file);
	return count;
}

static void huge_pages__grow_while_there_are_any(void **state)
{
	const struct petal_segment_options options = {
		.name = "extent-test",
		.body_bytes = PAGE,
		.reserve_bytes = UINT64_C(1) << 40,
		.extent_bytes = UINT64_C(1) << 25,
		.huge = PETAL_SEGMENT_HUGE_REQUIRE,
	};
	struct petal_segment_options small = options;
	uint64_t offset, generation, huge = free_huge_pages();
	struct petal_segment s;
	struct petal_extents e;

	(void)state;
	if (huge < 4) {
		print_message("no four huge pages, so not tried\n");
		return;
	}
	assert_ok(petal_segment_open(&options, &s));
	assert_ok(petal_extent_open(&s, &e));
	assert_ok(keep(&e));
	assert_outcome(petal_extent_add(&e, (huge + 16) << 21, &offset,
					&generation),
		       -PETAL_EHUGEPAGES);
	assert_int_equal(free_huge_pages(), huge - 1);
	petal_segment_close(&s);

	small.reserve_bytes = UINT64_C(1) << 30;
	small.extent_bytes = 0;
	assert_ok(petal_segment_open(&small, &s));
	assert_ok(petal_extent_open(&s, &e));
	assert_ok(keep(&e));
	assert_ok(petal_extent_add(&e, 2u << 21, &offset, &generation));
	memset(at(&s, offset), 1, 2u << 21);
	assert_int_equal(free_huge_pages(), huge - 3);
	assert_ok(petal_extent_retire(&e, offset, generation));
	assert_ok(petal_extent_reclaim(&e, offset, generation, false));
	assert_int_equal(free_huge_pages(), huge - 1);
	petal_segment_close(&s);
}

static void file__grows_and_shrinks_too(void **state)
{
	char *dir = petal_test_tmpdir();
	char path[300];
	const struct petal_segment_options options = {
		.name = "extent-test",
		.body_bytes = PAGE,
		.reserve_bytes = 16u << 20,
		.backing = PETAL_SEGMENT_FILE,
		.path = path,
	};
	uint64_t offset, generation;
	struct petal_segment s, again;
	struct petal_extents e;
	int outcome;

	(void)state;
	snprintf(path, sizeof(path), "%s/file", dir);
	outcome = petal_segment_open(&options, &s);
	if (outcome == -EOPNOTSUPP) {
		print_message("no fallocate() in %s, so not tried\n", dir);
		petal_test_tmpdir_remove(dir);
		return;
	}
	assert_ok(outcome);
	assert_ok(petal_extent_open(&s, &e));
	assert_ok(keep(&e));
	assert_ok(petal_extent_add(&e, 4u << 20, &offset, &generation));
	assert_true(allocated(&s) >= s.fixed_bytes + (4u << 20));
	strcpy(at(&s, offset), "in the file");
	assert_ok(petal_segment_attach_path(path, false, geteuid(), &again));
	assert_string_equal(at(&again, offset), "in the file");
	petal_segment_close(&again);
	assert_ok(petal_extent_retire(&e, offset, generation));
	assert_ok(petal_extent_reclaim(&e, offset, generation, false));
	assert_true(allocated(&s) < s.fixed_bytes + (1u << 20));
	petal_segment_close(&s);
	petal_test_tmpdir_remove(dir);
}

/* ---- Load: two write and check, a third grows and shrinks. ---- */

enum { WORKERS = 2, STRIDE = 16 };

struct load {
	struct petal_segment segment;
	struct petal_u64 stop;
	struct petal_u64 visits[WORKERS];
	struct petal_u64 mistakes;
};

struct worker {
	struct load *load;
	unsigned number;
};

static uint64_t tag(uint64_t generation, uint64_t offset)
{
	return generation * UINT64_C(0x9e3779b97f4a7c15) ^ offset;
}

/* Every STRIDE-th page of ours is empty, or was written in this generation. */
static uint64_t visit(struct petal_segment *segment,
		      const struct petal_extent_info *info, unsigned number)
{
	uint64_t mistakes = 0;

	for (uint64_t o = number * PAGE; o < segment->extent_bytes;
	     o += STRIDE * PAGE) {
		volatile uint64_t *word = at(segment, info->offset + o);
		uint64_t mine = tag(info->generation, info->offset + o);

		mistakes += *word != 0 && *word != mine;
		*word = mine;
		mistakes += *word != mine;
	}
	return mistakes;
}

static void work(void *argument)
{
	struct worker *w = argument;
	struct load *load = w->load;
	struct petal_segment segment;
	struct petal_extents e;
	uint64_t seed = w->number, visits = 0;

	/* Attached while it is small; nothing is mapped again. */
	if (petal_segment_attach(load->segment.fd, true, &segment) ||
	    petal_extent_open(&segment, &e))
		_exit(1);
	while (!petal_load(&load->stop, PETAL_RELAXED)) {
		struct petal_extent_info info;
		uint64_t wrong;

		petal_extent_look(&e, petal_test_random(&seed) % e.count,
				  &info);
		if (petal_extent_pin(&e, info.offset, info.generation))
			continue;
		wrong = visit(&segment, &info, w->number);
		if (petal_extent_unpin(&e, info.offset, info.generation))
			wrong++;
		if (wrong)
			petal_add(&load->mistakes, wrong, PETAL_RELAXED);
		petal_store(&load->visits[w->number], ++visits, PETAL_RELAXED);
	}
}

struct place {
	uint64_t offset;
	uint64_t generation;
};

static uint64_t grow(struct petal_extents *e, struct place *places,
		     uint64_t count, uint64_t unit)
{
	uint64_t begin_ns = petal_clock_now_ns();

	for (uint64_t i = 0; i < count; i++)
		assert_ok(petal_extent_add(e, unit, &places[i].offset,
					   &places[i].generation));
	return petal_clock_now_ns() - begin_ns;
}

static uint64_t shrink(struct petal_extents *e, struct place *places,
		       uint64_t count, uint64_t *seed)
{
	uint64_t begin_ns = petal_clock_now_ns();

	for (; count > 0; count--) {
		uint64_t pick = petal_test_random(seed) % count;
		struct place victim = places[pick];

		places[pick] = places[count - 1];
		assert_ok(petal_extent_retire(e, victim.offset,
					      victim.generation));
		while (petal_extent_reclaim(e, victim.offset, victim.generation,
					    false) == PETAL_EXTENT_PINNED)
			sched_yield();
	}
	return petal_clock_now_ns() - begin_ns;
}

static void assert_all_gone(const struct petal_extents *e, uint64_t kept)
{
	assert_int_equal(petal_extent_live_bytes(e), kept);
	assert_int_equal(allocated(&e->segment), e->fixed_bytes + kept);
}

static void cycle(struct petal_extents *e, struct place *places, uint64_t count,
		  uint64_t unit)
{
	uint64_t seed = 3;

	for (uint64_t i = 0; i < load_cycles; i++) {
		uint64_t up_ns = grow(e, places, count, unit);
		uint64_t down_ns = shrink(e, places, count, &seed);

		assert_all_gone(e, 16 * MIB);
		print_message("%" PRIu64 " MiB in steps of %" PRIu64
			      " MiB: up in %" PRIu64 " ms, down in %" PRIu64
			      " ms\n",
			      count * unit / MIB, unit / MIB, up_ns / 1000000,
			      down_ns / 1000000);
	}
}

static void await_visits(struct load *load, const pid_t *children)
{
	for (unsigned i = 0; i < WORKERS; i++)
		while (petal_load(&load->visits[i], PETAL_RELAXED) < 10) {
			assert_int_equal(waitpid(children[i], NULL, WNOHANG),
					 0);
			sched_yield();
		}
}

static struct load *open_load(void)
{
	struct load *load = mmap(NULL, sizeof(*load), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(load, MAP_FAILED);
	load->segment = open_growable((load_mib + 16) * MIB, 2 * MIB);
	return load;
}

static void load__grows_and_shrinks_under_two_who_use_it(void **state)
{
	struct place *places = calloc(load_mib, sizeof(*places));
	struct load *load = open_load();
	struct worker workers[WORKERS];
	struct petal_extents e;
	pid_t children[WORKERS];
	uint64_t offset, generation;

	(void)state;
	assert_non_null(places);
	assert_ok(petal_extent_open(&load->segment, &e));
	assert_ok(keep(&e));
	/* What stays: 16 MiB, in one run, where it was put first. */
	assert_ok(petal_extent_add(&e, 16 * MIB, &offset, &generation));
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i].load = load;
		workers[i].number = i;
		children[i] = start(work, &workers[i]);
	}
	await_visits(load, children);
	cycle(&e, places, load_mib / 2, 2 * MIB);
	cycle(&e, places, load_mib / 16, 16 * MIB);
	petal_store(&load->stop, 1, PETAL_RELAXED);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(end_of(children[i]), 0);
	assert_int_equal(petal_load(&load->mistakes, PETAL_RELAXED), 0);
	print_message("visits: %" PRIu64 " and %" PRIu64 "\n",
		      petal_load(&load->visits[0], PETAL_RELAXED),
		      petal_load(&load->visits[1], PETAL_RELAXED));
	assert_ok(petal_extent_check(&e, offset, 16 * MIB, generation));
	assert_all_gone(&e, 16 * MIB);
	petal_segment_close(&load->segment);
	munmap(load, sizeof(*load));
	free(places);
}

int main(int argc, char **argv)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(open__of_a_segment_that_cannot_grow_is_einval),
		TEST(reserve__costs_addresses_and_no_memory),
		TEST(add__is_seen_by_a_peer_that_attached_before),
		TEST(reclaim__gives_the_memory_back_and_zeroes_it),
		TEST(add__without_room_is_enospc_and_changes_nothing),
		cmocka_unit_test(add__more_than_the_machine_has_is_enomem),
		TEST(run__is_one_generation_and_goes_as_one),
		TEST(check__refuses_what_is_outside_or_old),
		TEST(pin__keeps_a_retired_run_until_the_last_one_left),
		TEST(prefault__maps_what_it_is_given_and_nothing_stale),
		TEST(pin__of_the_body_is_nothing_and_of_nowhere_is_refused),
		TEST(pin__stops_at_the_most_that_fit),
		TEST(reclaim__by_proof_does_not_mind_the_pins_of_the_dead),
		TEST(reader__may_look_and_check_but_not_change),
		TEST(words__that_nobody_wrote_stay_harmless),
		TEST(keep__is_for_one_at_a_time),
		TEST(keep__needs_an_identity_of_our_own),
		TEST(keep__no_other_word_decides_who_lives),
		TEST(keep__of_another_realm_is_not_judged),
		TEST(add_at__takes_the_place_that_was_meant),
		TEST(keep__finishes_each_state_that_a_death_can_leave),
		TEST(keep__after_a_kill_finds_every_run_whole),
		cmocka_unit_test(huge_pages__grow_while_there_are_any),
		cmocka_unit_test(file__grows_and_shrinks_too),
		cmocka_unit_test(load__grows_and_shrinks_under_two_who_use_it),
	};

	if (argc > 1 && strtoull(argv[1], NULL, 10) >= 16)
		load_mib = strtoull(argv[1], NULL, 10) / 16 * 16;
	if (argc > 2 && strtoull(argv[2], NULL, 10) > 0)
		load_cycles = strtoull(argv[2], NULL, 10);
	return cmocka_run_group_tests_name("extent", tests, NULL, NULL);
}
