/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/arena.h: loans of all sizes, what comes home from others and from
 * the dead, each refusal, and what the library's own jemalloc does to the
 * process: no word of it in the shared range, and malloc stays who it was
 * (traps: a count that leaks on death, fork of an owner, secrets in slack).
 *
 * PETAL_TEST_HARDER=100 makes ten million random loans.
 */
#include "tests/check.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
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
		WITH_ARENA(loan__random_loans_never_overlap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
