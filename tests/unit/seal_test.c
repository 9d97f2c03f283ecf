/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cluster's key file, and the tokens and answers made from the key: who is
 * let in, and that every other is refused. Exhaustive where that is cheap:
 * each bit of a token and of an answer is flipped, each length of a key file
 * tried. To run it harder, give the number of random tokens that are mutated:
 *
 *    seal_test 1000000
 */
#include "tests/check.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "fabric/seal.h"

#define NOW_NS UINT64_C(1700000000000000000)
#define FROM 3
#define TO 7

static unsigned long mutations = 20000;

static const uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES] = "cluster one";

struct fixture {
	uint8_t key[PETAL_SEAL_KEY_BYTES];
	uint8_t token[PETAL_SEAL_TOKEN_BYTES];
	struct petal_seal_replay replay;
	char *dir;
	char path[256];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	for (unsigned i = 0; i < sizeof(f->key); i++)
		f->key[i] = (uint8_t)(i * 7 + 1);
	petal_seal_token_make(f->key, cluster, FROM, TO, NOW_NS, f->token);
	f->dir = petal_test_tmpdir();
	snprintf(f->path, sizeof(f->path), "%s/key", f->dir);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	petal_test_tmpdir_remove(f->dir);
	free(f);
	return 0;
}

static int check_at(struct fixture *f, uint64_t now_ns, uint32_t *ret_from)
{
	struct petal_seal_now now = { now_ns, now_ns };

	return petal_seal_token_check(f->key, cluster, TO, f->token, &now,
				      &f->replay, ret_from);
}

static int check(struct fixture *f)
{
	uint32_t from;

	return check_at(f, NOW_NS, &from);
}

static void token__tells_who_sent_it(void **state)
{
	uint32_t from = 0;

	assert_ok(check_at(*state, NOW_NS, &from));
	assert_int_equal(from, FROM);
}

static void token__every_flipped_bit_is_refused(void **state)
{
	struct fixture *f = *state;

	for (unsigned bit = 0; bit < 8 * PETAL_SEAL_TOKEN_BYTES; bit++) {
		f->token[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_outcome(check(f), -PETAL_EAUTH);
		f->token[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_ok(check(f));
}

static void token__other_key_cluster_receiver_purpose_is_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t other[PETAL_SEAL_CLUSTER_BYTES] = "cluster two";
	const struct petal_seal_now now = { NOW_NS, NOW_NS };
	uint8_t key[PETAL_SEAL_KEY_BYTES];
	uint32_t from;

	petal_seal_key_derive(f->key, "wire", key);
	assert_outcome(petal_seal_token_check(key, cluster, TO, f->token, &now,
					      &f->replay, &from),
		       -PETAL_EAUTH);
	assert_outcome(petal_seal_token_check(f->key, other, TO, f->token, &now,
					      &f->replay, &from),
		       -PETAL_EAUTH);
	assert_outcome(petal_seal_token_check(f->key, cluster, TO + 1, f->token,
					      &now, &f->replay, &from),
		       -PETAL_EAUTH);
	assert_ok(check(f));
}

static void token__our_own_sent_back_is_refused(void **state)
{
	struct fixture *f = *state;

	petal_seal_token_make(f->key, cluster, TO, TO, NOW_NS, f->token);
	assert_outcome(check(f), -PETAL_EAUTH);
}

static void token__is_good_inside_the_window_only(void **state)
{
	struct fixture *f = *state;
	const uint64_t window_ns = PETAL_SEAL_WINDOW_NS;
	uint32_t from;

	assert_outcome(check_at(f, NOW_NS + window_ns + 1, &from), -ETIME);
	assert_int_equal(from, FROM);
	assert_int_equal(petal_seal_token_time_ns(f->token), NOW_NS);
	assert_outcome(check_at(f, NOW_NS - window_ns - 1, &from), -ETIME);
	assert_outcome(check_at(f, 0, &from), -ETIME);
	assert_outcome(check_at(f, UINT64_MAX, &from), -ETIME);
	assert_ok(check_at(f, NOW_NS + window_ns, &from));
	memset(&f->replay, 0, sizeof(f->replay));
	assert_ok(check_at(f, NOW_NS - window_ns, &from));
}

#define HOURS_NS (UINT64_C(5) * 3600 * 1000000000)

static int call_at(struct fixture *f, uint64_t time_ns,
		   const struct petal_seal_now *now)
{
	uint32_t from;

	petal_seal_token_make(f->key, cluster, FROM, TO, time_ns, f->token);
	return petal_seal_token_check(f->key, cluster, TO, f->token, now,
				      &f->replay, &from);
}

/* One of two attempts gets in, whosever clock it is that jumped. */
static void clock__that_jumps_by_hours_keeps_nobody_out(void **state)
{
	static const int64_t jumps[] = { (int64_t)HOURS_NS,
					 -(int64_t)HOURS_NS };
	struct fixture *f = *state;

	for (unsigned i = 0; i < 4; i++) {
		uint64_t jumped_ns = NOW_NS + (uint64_t)jumps[i % 2];
		struct petal_seal_clock caller, called;
		struct petal_seal_now now;
		unsigned in = 0;

		petal_seal_clock_open(&caller, NOW_NS - 1000, 0);
		petal_seal_clock_open(&called, NOW_NS - 1000, 7000);
		now = petal_seal_clock_now(&called, i < 2 ? jumped_ns : NOW_NS,
					   8000);
		for (unsigned call = 0; call < 2; call++)
			in += call_at(f,
				      petal_seal_clock_call(
					      &caller,
					      i < 2 ? NOW_NS : jumped_ns, 1000),
				      &now) == 0;
		assert_true(in >= 1);
	}
}

/* And one that was wrong at the start does not stay out when it is mended. */
static void clock__that_is_mended_lets_in(void **state)
{
	const struct petal_seal_now right = { NOW_NS, NOW_NS };
	struct fixture *f = *state;
	struct petal_seal_clock caller;

	petal_seal_clock_open(&caller, NOW_NS + HOURS_NS, 0);
	for (unsigned call = 0; call < 2; call++)
		assert_outcome(call_at(f,
				       petal_seal_clock_call(
					       &caller, NOW_NS + HOURS_NS, 0),
				       &right),
			       -ETIME);
	assert_ok(
		call_at(f, petal_seal_clock_call(&caller, NOW_NS, 0), &right));
}

static void token__second_use_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_ok(check(f));
	assert_outcome(check(f), -PETAL_EAUTH);
}

static void token__second_use_is_refused_after_the_clock_jumped(void **state)
{
	struct fixture *f = *state;
	const struct petal_seal_now now = {
		NOW_NS + 10 * PETAL_SEAL_WINDOW_NS,
		NOW_NS + 10 * PETAL_SEAL_WINDOW_NS,
	};
	uint8_t later[PETAL_SEAL_TOKEN_BYTES];
	uint32_t from;

	assert_ok(check(f));
	petal_seal_token_make(f->key, cluster, FROM, TO,
			      NOW_NS + 10 * PETAL_SEAL_WINDOW_NS, later);
	assert_ok(petal_seal_token_check(f->key, cluster, TO, later, &now,
					 &f->replay, &from));
	assert_outcome(check(f), -PETAL_EAUTH);
}

static void
replay__full_cache_refuses_until_tokens_leave_the_window(void **state)
{
	struct fixture *f = *state;
	uint64_t later_ns = NOW_NS + PETAL_SEAL_WINDOW_NS + 1;
	uint32_t from;

	for (unsigned i = 0; i < PETAL_SEAL_REPLAY_MAX; i++) {
		petal_seal_token_make(f->key, cluster, FROM, TO, NOW_NS,
				      f->token);
		assert_ok(check(f));
		assert_outcome(check(f), -PETAL_EAUTH);
	}
	petal_seal_token_make(f->key, cluster, FROM, TO, NOW_NS, f->token);
	assert_outcome(check(f), -EAGAIN);
	petal_seal_token_make(f->key, cluster, FROM, TO, later_ns, f->token);
	assert_ok(check_at(f, later_ns, &from));
}

/* Only what has a right MAC may take a place in the cache. */
static void replay__strangers_leave_no_trace(void **state)
{
	struct fixture *f = *state;
	struct petal_seal_replay before = f->replay;
	uint8_t good[PETAL_SEAL_TOKEN_BYTES];
	uint32_t random = 1;

	memcpy(good, f->token, sizeof(good));
	for (unsigned long i = 0; i < mutations; i++) {
		memcpy(f->token, good, sizeof(good));
		for (unsigned n = 0; n <= i % 4; n++) {
			random = random * 1664525 + 1013904223;
			f->token[(random >> 8) % sizeof(good)] ^=
				(uint8_t)(1u << (random >> 24) % 8);
		}
		if (memcmp(f->token, good, sizeof(good)) != 0)
			assert_outcome(check(f), -PETAL_EAUTH);
	}
	assert_memory_equal(&f->replay, &before, sizeof(before));
}

static void tokens__are_all_different(void **state)
{
	struct fixture *f = *state;
	uint8_t other[PETAL_SEAL_TOKEN_BYTES];

	petal_seal_token_make(f->key, cluster, FROM, TO, NOW_NS, other);
	assert_memory_not_equal(other, f->token, sizeof(other));
}

static int answer(struct fixture *f, const uint8_t *bytes)
{
	return petal_seal_answer_check(f->key, cluster, TO, f->token, bytes);
}

static void answer__every_flipped_bit_is_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[PETAL_SEAL_ANSWER_BYTES];

	petal_seal_answer_make(f->key, cluster, TO, f->token, bytes);
	for (unsigned bit = 0; bit < 8 * sizeof(bytes); bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_outcome(answer(f, bytes), -PETAL_EAUTH);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_ok(answer(f, bytes));
}

static void answer__to_another_token_is_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[PETAL_SEAL_ANSWER_BYTES];

	petal_seal_answer_make(f->key, cluster, TO, f->token, bytes);
	petal_seal_token_make(f->key, cluster, FROM, TO, NOW_NS, f->token);
	assert_outcome(answer(f, bytes), -PETAL_EAUTH);
	/* Nor is a piece of the token itself an answer to it. */
	assert_outcome(answer(f, f->token + 32), -PETAL_EAUTH);
}

static void key__purposes_have_different_keys(void **state)
{
	struct fixture *f = *state;
	uint8_t wire[PETAL_SEAL_KEY_BYTES];
	uint8_t registry[PETAL_SEAL_KEY_BYTES];

	petal_seal_key_derive(f->key, "wire", wire);
	petal_seal_key_derive(f->key, "registry", registry);
	assert_memory_not_equal(wire, registry, sizeof(wire));
	assert_memory_not_equal(wire, f->key, sizeof(wire));
	petal_seal_key_derive(f->key, "wire", f->key);
	assert_memory_equal(wire, f->key, sizeof(wire));
}

static void key_file__created_is_loaded_and_private(void **state)
{
	struct fixture *f = *state;
	uint8_t again[PETAL_SEAL_KEY_BYTES];
	struct stat stat_buffer;

	assert_ok(petal_seal_key_create(f->path));
	assert_ok(stat(f->path, &stat_buffer));
	assert_int_equal(stat_buffer.st_mode & 07777, 0600);
	assert_int_equal(stat_buffer.st_size, 65);
	assert_ok(petal_seal_key_load(f->path, f->key));
	assert_ok(petal_seal_key_load(f->path, again));
	assert_memory_equal(again, f->key, sizeof(again));
	assert_outcome(petal_seal_key_create(f->path), -EEXIST);
	assert_ok(petal_seal_key_load(f->path, again));
	assert_memory_equal(again, f->key, sizeof(again));
}

static void key_file__open_to_others_is_refused(void **state)
{
	struct fixture *f = *state;
	static const mode_t modes[] = { 0640, 0620, 0604, 0602, 0644, 0610 };

	assert_ok(petal_seal_key_create(f->path));
	for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		assert_ok(chmod(f->path, modes[i]));
		assert_outcome(petal_seal_key_load(f->path, f->key), -EPERM);
	}
	assert_ok(chmod(f->path, 0400));
	assert_ok(petal_seal_key_load(f->path, f->key));
}

static void key_file__that_is_none_is_refused(void **state)
{
	struct fixture *f = *state;
	char other[300];

	snprintf(other, sizeof(other), "%s/other", f->dir);
	assert_outcome(petal_seal_key_load(f->path, f->key), -ENOENT);
	assert_outcome(petal_seal_key_load(f->dir, f->key), -EINVAL);
	assert_ok(mkfifo(other, 0600));
	assert_outcome(petal_seal_key_load(other, f->key), -EINVAL);
	assert_ok(unlink(other));
	assert_ok(petal_seal_key_create(f->path));
	assert_ok(symlink(f->path, other));
	assert_outcome(petal_seal_key_load(other, f->key), -ELOOP);
	assert_outcome(petal_seal_key_create(other), -EEXIST);
}

static void write_file(const char *path, const char *text, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, length), length);
	close(fd);
}

static void key_file__every_other_length_or_digit_is_corrupt(void **state)
{
	struct fixture *f = *state;
	uint8_t kept[PETAL_SEAL_KEY_BYTES];
	char text[130];

	memcpy(kept, f->key, sizeof(kept));
	memset(text, 'a', sizeof(text));
	for (size_t length = 0; length < sizeof(text); length++) {
		write_file(f->path, text, length);
		assert_outcome(petal_seal_key_load(f->path, f->key),
			       -PETAL_ECORRUPT);
	}
	text[64] = '\n';
	for (unsigned i = 0; i < 64; i++) {
		text[i] = " :g\0\n"[i % 5];
		write_file(f->path, text, 65);
		assert_outcome(petal_seal_key_load(f->path, f->key),
			       -PETAL_ECORRUPT);
		text[i] = 'a';
	}
	assert_memory_equal(f->key, kept, sizeof(kept));
	write_file(f->path, text, 65);
	assert_ok(petal_seal_key_load(f->path, f->key));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(token__tells_who_sent_it),
		TEST(token__every_flipped_bit_is_refused),
		TEST(token__other_key_cluster_receiver_purpose_is_refused),
		TEST(token__our_own_sent_back_is_refused),
		TEST(token__is_good_inside_the_window_only),
		TEST(clock__that_jumps_by_hours_keeps_nobody_out),
		TEST(clock__that_is_mended_lets_in),
		TEST(token__second_use_is_refused),
		TEST(token__second_use_is_refused_after_the_clock_jumped),
		TEST(replay__full_cache_refuses_until_tokens_leave_the_window),
		TEST(replay__strangers_leave_no_trace),
		TEST(tokens__are_all_different),
		TEST(answer__every_flipped_bit_is_refused),
		TEST(answer__to_another_token_is_refused),
		TEST(key__purposes_have_different_keys),
		TEST(key_file__created_is_loaded_and_private),
		TEST(key_file__open_to_others_is_refused),
		TEST(key_file__that_is_none_is_refused),
		TEST(key_file__every_other_length_or_digit_is_corrupt),
	};

	if (argc > 1)
		mutations = strtoul(argv[1], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
