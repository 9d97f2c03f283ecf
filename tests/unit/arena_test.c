/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/arena.h: loans of all sizes, what comes home from others and from
 * the dead, each refusal, and what the library's own jemalloc does to the
 * process: no word of it in the shared range, and malloc stays who it was
 * (traps: a count that leaks on death, fork of an owner, secrets in slack).
 *
 * PETAL_TEST_HARDER=100 makes ten million random loans, and lets an arena grow to
 * 4 GB and back.
 */
#include "tests/check.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "shm/arena.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define RANGE_BYTES MIB(160)
#define ENTRIES 512u
#define BIT(holder) (UINT64_C(1) << (holder))

struct fixture {
	struct petal_ledger_geometry geometry;
	uint64_t ledger_bytes;
	void *memory;
	unsigned char *range;
	struct petal_ledger ledger;
	struct petal_ref_table table;
	struct petal_arena *arena;
};

static void *map_shared(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

static struct petal_arena_options options_of(struct fixture *f)
{
	return (struct petal_arena_options){
		.base = f->range,
		.bytes = RANGE_BYTES,
		.ledger = &f->ledger,
	};
}

static int make(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct petal_arena_options options;

	assert_non_null(f);
	f->geometry = (struct petal_ledger_geometry){
		.range_bytes = RANGE_BYTES,
		.granule_bytes = 1024,
		.entries = ENTRIES,
		.segment = 3,
	};
	f->ledger_bytes = petal_ledger_bytes(&f->geometry);
	f->memory = map_shared(f->ledger_bytes);
	f->range = map_shared(RANGE_BYTES);
	assert_ok(petal_ledger_format(f->memory, &f->geometry));
	assert_ok(
		petal_ledger_attach(f->memory, f->ledger_bytes, 0, &f->ledger));
	assert_ok(petal_ref_table_add(&f->table, f->range, RANGE_BYTES,
				      &f->ledger));
	options = options_of(f);
	assert_ok(petal_arena_open(&options, &f->arena));
	*state = f;
	return 0;
}

static int unmake(void **state)
{
	struct fixture *f = *state;

	if (f->arena)
		petal_arena_close(f->arena);
	munmap(f->memory, f->ledger_bytes);
	munmap(f->range, RANGE_BYTES);
	free(f);
	return 0;
}

static struct petal_ref loan(struct fixture *f, uint64_t bytes)
{
	struct petal_ref ref;
	void *buffer, *resolved;

	assert_ok(petal_arena_loan(f->arena, bytes, &ref, &buffer));
	assert_ok(petal_ref_resolve(&f->table, ref, bytes, &resolved));
	assert_ptr_equal(buffer, resolved);
	assert_int_equal((uintptr_t)buffer % (bytes >= 16384 ? 4096 : 1024), 0);
	return ref;
}

static uint64_t loaned(const struct fixture *f)
{
	struct petal_arena_usage usage;

	petal_arena_usage(f->arena, &usage);
	return usage.loaned_buffers;
}

static void loan__sizes_from_a_byte_to_the_range(void **state)
{
	static const uint64_t sizes[] = { 1,      64,     1024,    1025,
					  4096,   14336,  14337,   65536,
					  100000, MIB(1), MIB(64), MIB(128) };
	struct fixture *f = *state;
	struct petal_arena_usage usage;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct petal_ref ref = loan(f, sizes[i]);

		petal_arena_usage(f->arena, &usage);
		assert_int_equal(usage.loaned_bytes, sizes[i]);
		assert_true(usage.rounded_bytes >= sizes[i]);
		assert_true(usage.rounded_bytes <= sizes[i] * 5 / 4 + 1024);
		assert_ok(petal_arena_drop(f->arena, ref));
		assert_int_equal(loaned(f), 0);
	}
}

static void loan__each_refusal_has_its_own_error(void **state)
{
	struct fixture *f = *state;
	struct petal_ref refs[ENTRIES], ref;
	struct petal_arena_usage usage;
	void *buffer;

	assert_outcome(petal_arena_loan(f->arena, 0, &ref, &buffer), -EINVAL);
	assert_outcome(petal_arena_loan(f->arena, RANGE_BYTES + 1, &ref,
					&buffer),
		       -EMSGSIZE);
	refs[0] = loan(f, MIB(96));
	assert_outcome(petal_arena_loan(f->arena, MIB(96), &ref, &buffer),
		       -ENOSPC);
	assert_ok(petal_arena_drop(f->arena, refs[0]));
	for (uint32_t i = 0; i < ENTRIES; i++)
		refs[i] = loan(f, 100);
	assert_outcome(petal_arena_loan(f->arena, 100, &ref, &buffer),
		       -ENOBUFS);
	petal_arena_usage(f->arena, &usage);
	assert_int_equal(usage.refusals, 2);
	for (uint32_t i = 0; i < ENTRIES; i++)
		assert_ok(petal_arena_drop(f->arena, refs[i]));
	assert_outcome(petal_arena_drop(f->arena, refs[0]), -ESTALE);
}

static void open__each_wrong_option_has_its_own_error(void **state)
{
	struct fixture *f = *state;
	struct petal_arena_options options = options_of(f);
	struct petal_arena *arena = NULL;

	assert_outcome(petal_arena_open(&options, &arena), -EEXIST);
	options.base = f->range + 64;
	assert_outcome(petal_arena_open(&options, &arena), -EINVAL);
	options = options_of(f);
	options.bytes = RANGE_BYTES + 4096;
	assert_outcome(petal_arena_open(&options, &arena), -EINVAL);
	options.bytes = 0;
	assert_outcome(petal_arena_open(&options, &arena), -EINVAL);
	assert_null(arena);
}

static void range__no_word_of_the_allocator_is_in_it(void **state)
{
	struct fixture *f = *state;
	struct petal_ref refs[ENTRIES];
	uint64_t random = 5;

	/* Nobody has written to a buffer, so whatever is there is not ours. */
	for (uint32_t round = 0; round < 8; round++) {
		for (uint32_t i = 0; i < ENTRIES; i++)
			refs[i] = loan(f, 1 + petal_test_random(&random) %
							  (UINT64_C(200)
							   << i % 10));
		for (uint32_t i = 0; i < ENTRIES; i++)
			assert_ok(petal_arena_drop(f->arena, refs[i ^ 1]));
	}
	assert_ok(petal_arena_drop(f->arena, loan(f, MIB(64))));
	for (uint64_t i = 0; i < RANGE_BYTES / 8; i++)
		if (((uint64_t *)(void *)f->range)[i])
			fail_msg("a word at byte %ju", (uintmax_t)(8 * i));
}

static void process__malloc_is_still_libcs(void **state)
{
	void *ours = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
	void *first = dlsym(RTLD_DEFAULT, "malloc");
	Dl_info who;

	(void)state;
	assert_non_null(ours);
	assert_null(dlsym(RTLD_DEFAULT, "mallocx"));
	assert_int_not_equal(dladdr(first, &who), 0);
	/* A sanitizer has a malloc of its own. */
	if (!dlsym(RTLD_DEFAULT, "__sanitizer_print_stack_trace"))
		assert_ptr_equal(first, dlsym(ours, "malloc"));
	assert_null(strstr(who.dli_fname, "petalith"));
	assert_null(strstr(who.dli_fname, "jemalloc"));
	dlclose(ours);
}

static void slack__what_a_receiver_may_read_is_nobodys_secret(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref;
	unsigned char *buffer;

	for (uint32_t i = 0; i < 20; i++) {
		uint64_t bytes = 1 + 777 * i;
		uint64_t end = (bytes + 1023) / 1024 * 1024;

		assert_ok(petal_arena_loan(f->arena, end, &ref,
					   (void **)&buffer));
		memset(buffer, 0x5e, end);
		assert_ok(petal_arena_drop(f->arena, ref));
		assert_ok(petal_arena_loan(f->arena, bytes, &ref,
					   (void **)&buffer));
		for (uint64_t j = bytes; j < end; j++)
			assert_int_equal(buffer[j], 0);
		assert_ok(petal_arena_drop(f->arena, ref));
	}
}

static void collect__what_another_dropped_last_comes_home(void **state)
{
	struct fixture *f = *state;
	struct petal_ledger other;
	struct petal_ref ref;
	uint64_t count;

	assert_ok(petal_ledger_attach(f->memory, f->ledger_bytes, 1, &other));
	ref = loan(f, MIB(1));
	assert_ok(petal_ledger_share(&f->ledger, ref, BIT(1)));
	assert_ok(petal_arena_drop(f->arena, ref));
	assert_ok(petal_ledger_accept(&other, ref));
	assert_ok(petal_arena_collect(f->arena, true, &count));
	assert_int_equal(count, 0);
	assert_ok(petal_ledger_drop(&other, ref));
	assert_ok(petal_arena_collect(f->arena, false, &count));
	assert_int_equal(count, 1);
	assert_outcome(petal_ledger_check(&other, ref, 1), -ESTALE);
	/* And by itself, when the next one needs the room. */
	ref = loan(f, MIB(128));
	assert_ok(petal_ledger_forward(&f->ledger, ref, BIT(1)));
	assert_ok(petal_ledger_drop(&other, ref));
	ref = loan(f, MIB(128));
	/* Even if its last holder died before it could say so. */
	assert_ok(petal_ledger_forward(&f->ledger, ref, BIT(1)));
	assert_ok(petal_ledger_drop(&other, ref));
	petal_ledger_news(&f->ledger);
	petal_ledger_take_home(&f->ledger, 0);
	loan(f, MIB(128));
}

static void kill__a_dead_holders_buffers_come_home(void **state)
{
	struct fixture *f = *state;
	uint64_t count;

	for (uint32_t i = 0; i < 20; i++) {
		struct petal_ref refs[8];
		int up[2], status;
		char byte;
		pid_t child;

		for (uint32_t j = 0; j < 8; j++) {
			refs[j] = loan(f, MIB(4) + j);
		}
		assert_int_equal(pipe(up), 0);
		child = fork();
		assert_true(child >= 0);
		if (child == 0) {
			struct petal_ledger own;

			if (petal_ledger_attach(f->memory, f->ledger_bytes, 1,
						&own))
				_exit(1);
			(void)!write(up[1], "1", 1);
			for (;;)
				for (uint32_t j = 0; j < 8; j++)
					petal_ledger_accept(&own, refs[j]);
		}
		assert_int_equal(read(up[0], &byte, 1), 1);
		for (uint32_t j = 0; j < 8; j++)
			assert_ok(petal_ledger_forward(&f->ledger, refs[j],
						       BIT(1)));
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		close(up[0]);
		close(up[1]);
		assert_int_equal(loaned(f), 8);
		assert_ok(petal_ledger_repair(&f->ledger, 1));
		assert_ok(petal_arena_collect(f->arena, false, &count));
		assert_int_equal(count, 8);
	}
	assert_int_equal(loaned(f), 0);
}

static void kill__a_dead_owners_range_is_drained_by_the_holders(void **state)
{
	struct fixture *f = *state;
	struct petal_ledger holder, fresh;
	struct petal_ref *sent = map_shared(4096);
	struct petal_arena_options options;
	struct petal_arena *arena;
	void *memory = map_shared(f->ledger_bytes);
	int status;
	pid_t child;

	assert_ok(petal_ledger_format(memory, &f->geometry));
	assert_ok(petal_ledger_attach(memory, f->ledger_bytes, 1, &holder));
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		void *buffer;

		if (petal_ledger_attach(memory, f->ledger_bytes, 0, &fresh))
			_exit(1);
		options = options_of(f);
		options.ledger = &fresh;
		if (petal_arena_open(&options, &arena) ||
		    petal_arena_loan(arena, MIB(2), &sent[0], &buffer) ||
		    petal_arena_loan(arena, MIB(2), &sent[1], &buffer) ||
		    petal_ledger_forward(&fresh, sent[0], BIT(1)))
			_exit(2);
		raise(SIGKILL);
	}
	waitpid(child, &status, 0);
	assert_true(WIFSIGNALED(status));
	assert_ok(petal_ledger_accept(&holder, sent[0]));
	assert_ok(petal_ledger_repair(&holder, 0));
	assert_ok(petal_ledger_check(&holder, sent[0], MIB(2)));
	assert_int_equal(petal_ledger_held(&holder, PETAL_LEDGER_NOBODY), 1);
	/* Whoever has its seat now cannot go on where it stopped. */
	assert_ok(petal_ledger_attach(memory, f->ledger_bytes, 0, &fresh));
	options = options_of(f);
	options.ledger = &fresh;
	assert_outcome(petal_arena_open(&options, &arena), -EEXIST);
	assert_ok(petal_ledger_drop(&holder, sent[0]));
	assert_int_equal(petal_ledger_held(&holder, PETAL_LEDGER_NOBODY), 0);
	munmap(memory, f->ledger_bytes);
	munmap(sent, 4096);
}

static void fork__a_child_cannot_loan_what_its_parent_loans(void **state)
{
	struct fixture *f = *state;
	struct petal_ref ref = loan(f, 100);
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		struct petal_ref other;
		void *buffer;

		if (petal_arena_loan(f->arena, 1, &other, &buffer) != -EPERM)
			_exit(1);
		if (petal_arena_drop(f->arena, ref) != -EPERM)
			_exit(2);
		if (petal_arena_collect(f->arena, true, NULL) != -EPERM)
			_exit(3);
		petal_arena_close(f->arena);
		_exit(0);
	}
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	assert_ok(petal_arena_drop(f->arena, ref));
	assert_ok(petal_arena_drop(f->arena, loan(f, 100)));
}

static void grow__what_was_too_small_is_not_any_more(void **state)
{
	struct fixture *f = *state;
	struct petal_arena_options options = options_of(f);
	struct petal_ledger ledger;
	struct petal_arena *arena;
	struct petal_ref ref;
	void *memory = map_shared(f->ledger_bytes), *buffer;

	assert_ok(petal_ledger_format(memory, &f->geometry));
	assert_ok(petal_ledger_attach(memory, f->ledger_bytes, 0, &ledger));
	options.ledger = &ledger;
	options.bytes = MIB(16);
	options.clear = true;
	assert_ok(petal_arena_open(&options, &arena));
	assert_outcome(petal_arena_loan(arena, MIB(32), &ref, &buffer),
		       -EMSGSIZE);
	assert_ok(petal_arena_loan(arena, MIB(12), &ref, &buffer));
	memset(buffer, 1, MIB(12));
	assert_outcome(petal_arena_grow(arena, MIB(8)), -EINVAL);
	assert_outcome(petal_arena_grow(arena, RANGE_BYTES + 1), -EINVAL);
	assert_ok(petal_arena_grow(arena, RANGE_BYTES));
	assert_ok(petal_arena_drop(arena, ref));
	assert_ok(petal_arena_loan(arena, MIB(64), &ref, &buffer));
	for (uint64_t i = 0; i < MIB(64); i += 512)
		assert_int_equal(((unsigned char *)buffer)[i], 0);
	petal_arena_close(arena);
	munmap(memory, f->ledger_bytes);
}

/* An arena over a segment that begins with one extent's worth and grows. */
struct growing {
	struct petal_segment segment;
	struct petal_extents extents;
	struct petal_ledger ledger;
	struct petal_arena *arena;
	void *memory;
	uint64_t memory_bytes;
	unsigned char *range;
};

static void open_growing(struct growing *g, uint64_t bytes)
{
	struct petal_segment_options shape = {
		.name = "arena_test",
		.body_bytes = MIB(16),
		.reserve_bytes = MIB(16) + bytes,
	};
	struct petal_ledger_geometry geometry = {
		.range_bytes = bytes,
		.granule_bytes = 2048,
		.entries = 1024,
	};
	struct petal_arena_options options = {
		.bytes = bytes,
		.ledger = &g->ledger,
		.extents = &g->extents,
	};
	struct petal_peer_id self;

	assert_ok(petal_segment_open(&shape, &g->segment));
	assert_ok(petal_extent_open(&g->segment, &g->extents));
	assert_ok(petal_peer_self(&self));
	assert_ok(petal_extent_keep(&g->extents, &self));
	g->memory_bytes = petal_ledger_bytes(&geometry);
	assert_true(g->memory_bytes <= petal_segment_body_bytes(&g->segment));
	g->memory = petal_segment_body(&g->segment);
	assert_ok(petal_ledger_format(g->memory, &geometry));
	assert_ok(
		petal_ledger_attach(g->memory, g->memory_bytes, 0, &g->ledger));
	g->range = (unsigned char *)g->segment.base + g->segment.fixed_bytes;
	options.base = g->range;
	assert_ok(petal_arena_open(&options, &g->arena));
}

static void close_growing(struct growing *g)
{
	petal_arena_close(g->arena);
	petal_segment_close(&g->segment);
}

/* Fills what it is told to, and drops; ends at the end of the pipe. */
static void hold_and_drop(struct growing *g, int in, int out)
{
	struct petal_ledger ledger;
	struct petal_ref ref;

	if (petal_ledger_attach(g->memory, g->memory_bytes, 1, &ledger))
		_exit(1);
	while (read(in, &ref, sizeof(ref)) == sizeof(ref)) {
		const unsigned char *bytes = g->range + petal_ref_offset(ref);

		if (petal_ledger_accept(&ledger, ref) ||
		    petal_ledger_check(&ledger, ref, MIB(4)))
			_exit(2);
		for (uint64_t i = 0; i < MIB(4); i += 4096)
			if (bytes[i] != (unsigned char)(ref.bits >> 34))
				_exit(3);
		if (petal_ledger_drop(&ledger, ref))
			_exit(4);
		if (write(out, "", 1) != 1)
			_exit(5);
	}
	_exit(0);
}

static uint64_t blocks_bytes(const struct growing *g)
{
	struct stat status;

	assert_int_equal(fstat(g->segment.fd, &status), 0);
	return (uint64_t)status.st_blocks * 512;
}

/* Up, and down again while another process holds some; all of it, at last. */
static void grow__memory_comes_with_loans_and_goes_with_the_last(void **state)
{
	uint64_t count = petal_test_rounds(48) < 1000 ? petal_test_rounds(48)
						      : 1000;
	uint64_t bytes = MIB(4) * count * 2, given, least;
	struct petal_ref *refs = calloc(count, sizeof(*refs));
	int there[2], back[2], status;
	struct growing g;
	void *buffer;
	char done;
	pid_t child;

	(void)state;
	assert_non_null(refs);
	open_growing(&g, bytes);
	least = blocks_bytes(&g);
	assert_int_equal(petal_extent_live_bytes(&g.extents), 0);
	assert_int_equal(pipe(there), 0);
	assert_int_equal(pipe(back), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(there[1]);
		hold_and_drop(&g, there[0], back[1]);
	}
	for (uint64_t round = 0; round < 2; round++) {
		for (uint64_t i = 0; i < count; i++) {
			assert_ok(petal_arena_loan(g.arena, MIB(4), &refs[i],
						   &buffer));
			memset(buffer, (int)(refs[i].bits >> 34 & 0xff),
			       MIB(4));
			assert_ok(petal_ledger_forward(&g.ledger, refs[i],
						       BIT(1)));
		}
		assert_true(petal_extent_live_bytes(&g.extents) >=
			    count * MIB(4));
		/* All of it is held: nothing may go. */
		assert_ok(petal_arena_shrink(g.arena, &given));
		assert_int_equal(given, 0);
		for (uint64_t i = 0; i < count; i++) {
			assert_int_equal(write(there[1], &refs[i],
					       sizeof(refs[i])),
					 sizeof(refs[i]));
			if (i % 16 == 0)
				assert_ok(petal_arena_shrink(g.arena, NULL));
		}
		for (uint64_t i = 0; i < count; i++)
			assert_int_equal(read(back[0], &done, 1), 1);
		assert_ok(petal_arena_shrink(g.arena, NULL));
		assert_int_equal(petal_extent_live_bytes(&g.extents), 0);
		assert_int_equal(blocks_bytes(&g), least);
	}
	close(there[1]);
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	/* What comes back is empty, and small ones need one extent only. */
	assert_ok(petal_arena_loan(g.arena, 1000, &refs[0], &buffer));
	assert_ok(petal_arena_loan(g.arena, 1000, &refs[1], &buffer));
	assert_int_equal(petal_extent_live_bytes(&g.extents), MIB(2));
	assert_ok(petal_arena_drop(g.arena, refs[0]));
	assert_ok(petal_arena_shrink(g.arena, &given));
	assert_int_equal(given, 0);
	assert_ok(petal_arena_drop(g.arena, refs[1]));
	assert_ok(petal_arena_shrink(g.arena, &given));
	assert_int_equal(given, MIB(2));
	close(there[0]);
	close(back[0]);
	close(back[1]);
	close_growing(&g);
	free(refs);
}

static void grow__each_refusal_has_its_own_error(void **state)
{
	struct petal_arena_options options;
	struct petal_arena_usage usage;
	struct petal_ref ref;
	struct growing g;
	uint64_t generation;
	void *buffer;

	(void)state;
	open_growing(&g, MIB(32));
	options = (struct petal_arena_options){
		.base = g.range,
		.bytes = MIB(32),
		.ledger = &g.ledger,
		.extents = &g.extents,
	};
	options.base = g.range + MIB(2);
	assert_outcome(petal_arena_open(&options, &g.arena), -EINVAL);
	options.base = (unsigned char *)g.segment.base - 4096;
	assert_outcome(petal_arena_open(&options, &g.arena), -EINVAL);
	options.base = g.segment.base;
	assert_outcome(petal_arena_open(&options, &g.arena), -EINVAL);
	options.base = g.range;
	assert_ok(petal_extent_add_at(&g.extents, 3, &generation));
	assert_outcome(petal_arena_open(&options, &g.arena), -EBUSY);

	/* The arena of before knows that it may not have that extent. */
	assert_outcome(petal_arena_loan(g.arena, MIB(28), &ref, &buffer),
		       -EBUSY);
	petal_arena_usage(g.arena, &usage);
	assert_int_equal(usage.loaned_buffers, 0);
	assert_ok(petal_arena_shrink(g.arena, NULL));
	assert_int_equal(petal_extent_live_bytes(&g.extents), MIB(2));
	petal_extent_drop(&g.extents);
	assert_outcome(petal_arena_loan(g.arena, 1, &ref, &buffer),
		       -PETAL_EFENCED);
	close_growing(&g);
}

/* Every byte that is out is out once, and all of it comes together again. */
static void loan__random_loans_never_overlap(void **state)
{
	static struct petal_ref refs[ENTRIES];
	static uint64_t sizes[ENTRIES];
	struct fixture *f = *state;
	uint64_t rounds = petal_test_rounds(100000), random = 6;

	memset(sizes, 0, sizeof(sizes));
	for (uint64_t i = 0; i < rounds; i++) {
		uint32_t at = (uint32_t)(petal_test_random(&random) % ENTRIES);
		uint64_t *first, *last;
		void *buffer;
		int err;

		if (sizes[at]) {
			assert_ok(petal_ref_resolve(&f->table, refs[at],
						    sizes[at], &buffer));
			first = buffer;
			last = first + sizes[at] / 8 - 1;
			assert_int_equal(*first, refs[at].bits);
			assert_int_equal(*last, refs[at].bits);
			assert_ok(petal_arena_drop(f->arena, refs[at]));
			sizes[at] = 0;
			continue;
		}
		sizes[at] = (8 + petal_test_random(&random) %
					 (UINT64_C(64) << i % 15)) &
			    ~UINT64_C(7);
		err = petal_arena_loan(f->arena, sizes[at], &refs[at], &buffer);
		if (err) {
			assert_outcome(err, -ENOSPC);
			sizes[at] = 0;
			continue;
		}
		first = buffer;
		first[sizes[at] / 8 - 1] = *first = refs[at].bits;
	}
	for (uint32_t i = 0; i < ENTRIES; i++)
		if (sizes[i])
			assert_ok(petal_arena_drop(f->arena, refs[i]));
	assert_int_equal(loaned(f), 0);
	/* Nothing was torn for good: the large one fits again. */
	loan(f, MIB(112));
}

#define WITH_ARENA(test) cmocka_unit_test_setup_teardown(test, make, unmake)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ARENA(loan__sizes_from_a_byte_to_the_range),
		WITH_ARENA(loan__each_refusal_has_its_own_error),
		WITH_ARENA(open__each_wrong_option_has_its_own_error),
		WITH_ARENA(range__no_word_of_the_allocator_is_in_it),
		cmocka_unit_test(process__malloc_is_still_libcs),
		WITH_ARENA(slack__what_a_receiver_may_read_is_nobodys_secret),
		WITH_ARENA(collect__what_another_dropped_last_comes_home),
		WITH_ARENA(kill__a_dead_holders_buffers_come_home),
		WITH_ARENA(kill__a_dead_owners_range_is_drained_by_the_holders),
		WITH_ARENA(fork__a_child_cannot_loan_what_its_parent_loans),
		WITH_ARENA(grow__what_was_too_small_is_not_any_more),
		cmocka_unit_test(
			grow__memory_comes_with_loans_and_goes_with_the_last),
		cmocka_unit_test(grow__each_refusal_has_its_own_error),
		WITH_ARENA(loan__random_loans_never_overlap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
