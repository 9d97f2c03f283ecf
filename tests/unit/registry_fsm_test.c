/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers fabric/registry_fsm.h: commands and snapshots to bytes and back,
 * compare-and-swap, versions, limits, order, and hostile bytes, both with a
 * wrong checksum and with one made right again so that the checks behind it
 * are reached. Pure, so it needs nothing and takes about a second.
 *
 * Harder: PETAL_TEST_ROUNDS=5000000 registry_fsm_test, under ASan and UBSan;
 * PETAL_TEST_SEED=N for another run.
 */
#include "tests/check.h"

#include "fabric/registry_fsm.h"
#include "shm/crc32c.h"

struct fixture {
	struct petal_registry_fsm fsm;
	struct petal_registry_fsm other;
	uint64_t random;
	unsigned rounds;
};

static uint64_t draw(struct fixture *f, uint64_t below)
{
	/* xorshift64*, Vigna 2014. */
	f->random ^= f->random >> 12;
	f->random ^= f->random << 25;
	f->random ^= f->random >> 27;
	return (f->random * UINT64_C(2685821657736338717) >> 11) % below;
}

static uint64_t number_from_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	petal_registry_fsm_init(&f->fsm);
	petal_registry_fsm_init(&f->other);
	f->random = number_from_environment("PETAL_TEST_SEED", 42) | 1;
	f->rounds =
		(unsigned)number_from_environment("PETAL_TEST_ROUNDS", 100000);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static size_t encode(uint8_t *bytes, const char *key, uint64_t expected,
		     const void *value, uint32_t length)
{
	struct petal_registry_command command = {
		.expected_version = expected,
		.value = value,
		.length = length,
	};
	int size;

	strcpy(command.key, key);
	size = petal_registry_command_bytes(&command);
	assert_true(size > 0);
	petal_registry_command_encode(&command, bytes);
	return (size_t)size;
}

static struct petal_registry_outcome apply(struct petal_registry_fsm *fsm,
					   const char *key, uint64_t expected,
					   const void *value, uint32_t length)
{
	uint8_t bytes[PETAL_REGISTRY_COMMAND_MAX];
	struct petal_registry_outcome outcome;
	size_t size = encode(bytes, key, expected, value, length);

	assert_ok(petal_registry_fsm_apply(fsm, bytes, size, &outcome));
	assert_string_equal(outcome.key, key);
	return outcome;
}

static void assert_done(struct petal_registry_outcome outcome, uint64_t version)
{
	assert_ok(outcome.status);
	assert_int_equal(outcome.version, version);
}

static void assert_conflict(struct petal_registry_outcome outcome,
			    uint64_t version)
{
	assert_outcome(outcome.status, -PETAL_ECONFLICT);
	assert_int_equal(outcome.version, version);
}

static uint8_t *snapshot(const struct petal_registry_fsm *fsm, size_t *size)
{
	uint8_t *bytes;

	*size = petal_registry_fsm_snapshot_bytes(fsm);
	bytes = malloc(*size);
	assert_non_null(bytes);
	petal_registry_fsm_snapshot(fsm, bytes);
	return bytes;
}

static void assert_same(const struct petal_registry_fsm *a,
			const struct petal_registry_fsm *b)
{
	size_t a_size, b_size;
	uint8_t *a_bytes = snapshot(a, &a_size);
	uint8_t *b_bytes = snapshot(b, &b_size);

	assert_int_equal(a_size, b_size);
	assert_memory_equal(a_bytes, b_bytes, a_size);
	free(a_bytes);
	free(b_bytes);
}

/* Make the checksum right again, as somebody with the key could. */
static void reseal(uint8_t *bytes, size_t length)
{
	uint32_t crc;

	if (length < 24)
		return;
	crc = petal_crc32c(petal_crc32c(0, bytes, 20), bytes + 24, length - 24);
	for (unsigned i = 0; i < 4; i++)
		bytes[20 + i] = (uint8_t)(crc >> (8 * i));
}

static void key__is_short_printable_and_without_spaces(void **state)
{
	char key[PETAL_REGISTRY_KEY_MAX + 2];

	(void)state;
	assert_int_equal(petal_registry_key_check("ring/7"), 6);
	assert_outcome(petal_registry_key_check(""), -EINVAL);
	assert_outcome(petal_registry_key_check("a b"), -EINVAL);
	assert_outcome(petal_registry_key_check("a\x7f"), -EINVAL);
	assert_outcome(petal_registry_key_check("\xc3\xa4"), -EINVAL);
	memset(key, 'k', sizeof(key));
	key[PETAL_REGISTRY_KEY_MAX + 1] = '\0';
	assert_outcome(petal_registry_key_check(key), -EINVAL);
	key[PETAL_REGISTRY_KEY_MAX] = '\0';
	assert_int_equal(petal_registry_key_check(key), PETAL_REGISTRY_KEY_MAX);
}

static void command__comes_back_as_it_was_at_every_length(void **state)
{
	static uint8_t value[PETAL_REGISTRY_VALUE_MAX];
	uint8_t bytes[PETAL_REGISTRY_COMMAND_MAX];
	struct petal_registry_command command;
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (uint8_t)draw(f, 256);
	for (uint32_t length = 1; length <= sizeof(value); length++) {
		size_t size =
			encode(bytes, "k", UINT64_MAX - length, value, length);

		assert_ok(petal_registry_command_decode(bytes, size, &command));
		assert_string_equal(command.key, "k");
		assert_int_equal(command.expected_version, UINT64_MAX - length);
		assert_int_equal(command.length, length);
		assert_memory_equal(command.value, value, length);
	}
}

static void command__that_cannot_be_is_refused_by_its_sender(void **state)
{
	struct petal_registry_command command = { .key = "k" };

	(void)state;
	assert_outcome(petal_registry_command_bytes(&command), -EINVAL);
	command.length = PETAL_REGISTRY_VALUE_MAX + 1;
	assert_outcome(petal_registry_command_bytes(&command), -EINVAL);
	command.length = 1;
	command.key[0] = '\0';
	assert_outcome(petal_registry_command_bytes(&command), -EINVAL);
}

static void cas__creates_replaces_and_deletes(void **state)
{
	struct fixture *f = *state;
	const struct petal_registry_entry *entry;

	assert_done(apply(&f->fsm, "k", 0, "one", 3), 1);
	assert_conflict(apply(&f->fsm, "k", 0, "two", 3), 1);
	assert_conflict(apply(&f->fsm, "k", 7, "two", 3), 1);
	assert_done(apply(&f->fsm, "k", 1, "three", 5), 2);
	entry = petal_registry_fsm_find(&f->fsm, "k");
	assert_non_null(entry);
	assert_int_equal(entry->length, 5);
	assert_memory_equal(entry->value, "three", 5);

	assert_conflict(apply(&f->fsm, "k", 1, NULL, 0), 2);
	assert_done(apply(&f->fsm, "k", 2, NULL, 0), 3);
	assert_null(petal_registry_fsm_find(&f->fsm, "k"));
	assert_conflict(apply(&f->fsm, "k", 2, NULL, 0), 0);
	assert_int_equal(f->fsm.applied, 7);
	assert_int_equal(f->fsm.conflicts, 4);
}

static void cas__a_key_made_again_never_has_an_old_version(void **state)
{
	struct fixture *f = *state;

	assert_done(apply(&f->fsm, "k", 0, "a", 1), 1);
	assert_done(apply(&f->fsm, "k", 1, NULL, 0), 2);
	assert_done(apply(&f->fsm, "k", 0, "a", 1), 3);
	assert_conflict(apply(&f->fsm, "k", 1, "b", 1), 3);
}

static void
cas__one_key_too_many_is_refused_and_a_deletion_makes_room(void **state)
{
	struct fixture *f = *state;
	char key[32];

	for (unsigned i = 0; i < PETAL_REGISTRY_KEYS_MAX; i++) {
		snprintf(key, sizeof(key), "key/%u", i);
		assert_done(apply(&f->fsm, key, 0, &i, sizeof(i)), i + 1);
	}
	assert_outcome(apply(&f->fsm, "more", 0, "x", 1).status, -ENOSPC);
	assert_int_equal(f->fsm.revision, PETAL_REGISTRY_KEYS_MAX);
	/* Those that exist can still be changed. */
	assert_ok(apply(&f->fsm, "key/7", 8, "x", 1).status);
	assert_ok(apply(&f->fsm, "key/9", 10, NULL, 0).status);
	assert_ok(apply(&f->fsm, "more", 0, "x", 1).status);
}

static void after__walks_in_order(void **state)
{
	struct fixture *f = *state;

	apply(&f->fsm, "b", 0, "x", 1);
	apply(&f->fsm, "a/2", 0, "x", 1);
	apply(&f->fsm, "a/1", 0, "x", 1);
	apply(&f->fsm, "a", 0, "x", 1);
	assert_string_equal(petal_registry_fsm_after(&f->fsm, "", true)->key,
			    "a");
	assert_string_equal(petal_registry_fsm_after(&f->fsm, "a", true)->key,
			    "a");
	assert_string_equal(petal_registry_fsm_after(&f->fsm, "a", false)->key,
			    "a/1");
	assert_string_equal(
		petal_registry_fsm_after(&f->fsm, "a/11", false)->key, "a/2");
	assert_null(petal_registry_fsm_after(&f->fsm, "b", false));
}

/* The same store, as plainly as it can be said. */
struct plain {
	bool exists[40];
	uint64_t version[40];
	uint8_t length[40];
	uint8_t fill[40];
	uint64_t revision;
};

static int plain_cas(struct plain *plain, unsigned key, uint64_t expected,
		     uint8_t fill, uint8_t length)
{
	uint64_t version = plain->exists[key] ? plain->version[key] : 0;

	if (version != expected)
		return -PETAL_ECONFLICT;
	plain->exists[key] = length > 0;
	plain->version[key] = ++plain->revision;
	plain->length[key] = length;
	plain->fill[key] = fill;
	return 0;
}

static void assert_as_plain(const struct petal_registry_fsm *fsm,
			    const struct plain *plain, unsigned key,
			    const char *name)
{
	const struct petal_registry_entry *entry =
		petal_registry_fsm_find(fsm, name);

	assert_int_equal(entry != NULL, plain->exists[key]);
	if (entry == NULL)
		return;
	assert_int_equal(entry->version, plain->version[key]);
	assert_int_equal(entry->length, plain->length[key]);
	assert_int_equal(entry->value[0], plain->fill[key]);
}

static void fsm__does_what_a_plain_table_does_over_random_commands(void **state)
{
	struct fixture *f = *state;
	struct plain plain = { 0 };
	uint8_t value[255];
	char name[32];

	for (unsigned i = 0; i < f->rounds; i++) {
		unsigned key = (unsigned)draw(f, 40);
		uint8_t length = (uint8_t)draw(f, 4) ? (uint8_t)draw(f, 255)
						     : 0;
		uint8_t fill = (uint8_t)draw(f, 256);
		uint64_t expected = plain.exists[key] ? plain.version[key] : 0;

		if (draw(f, 4) == 0)
			expected = draw(f, plain.revision + 2);
		if (expected == 0 && length == 0)
			length = 1;
		memset(value, fill, sizeof(value));
		snprintf(name, sizeof(name), "key/%u", key);
		assert_outcome(
			apply(&f->fsm, name, expected, value, length).status,
			plain_cas(&plain, key, expected, fill, length));
		assert_as_plain(&f->fsm, &plain, key, name);
	}
	assert_int_equal(f->fsm.revision, plain.revision);
}

static void fill_at_random(struct fixture *f, unsigned keys, unsigned rounds)
{
	uint8_t value[PETAL_REGISTRY_VALUE_MAX];
	char name[32];

	memset(value, 'v', sizeof(value));
	for (unsigned i = 0; i < rounds; i++) {
		const struct petal_registry_entry *entry;
		uint64_t version;

		snprintf(name, sizeof(name), "key/%u", (unsigned)draw(f, keys));
		entry = petal_registry_fsm_find(&f->fsm, name);
		version = entry ? entry->version : 0;
		apply(&f->fsm, name, version, value,
		      (uint32_t)(version == 0) +
			      (uint32_t)draw(f, PETAL_REGISTRY_VALUE_MAX));
	}
}

static void
snapshot__restores_the_same_state_which_goes_on_the_same_way(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes;
	size_t size;

	fill_at_random(f, 200, 2000);
	apply(&f->other, "left/over", 0, "x", 1);
	bytes = snapshot(&f->fsm, &size);
	assert_ok(petal_registry_fsm_restore(&f->other, bytes, size));
	free(bytes);
	assert_same(&f->fsm, &f->other);
	assert_null(petal_registry_fsm_find(&f->other, "left/over"));

	apply(&f->fsm, "next", 0, "x", 1);
	apply(&f->other, "next", 0, "x", 1);
	assert_same(&f->fsm, &f->other);
}

static void snapshot__of_nothing_and_of_the_largest_state(void **state)
{
	static uint8_t value[PETAL_REGISTRY_VALUE_MAX];
	struct fixture *f = *state;
	char key[PETAL_REGISTRY_KEY_MAX + 1];
	uint8_t *bytes = snapshot(&f->fsm, &(size_t){ 0 });

	assert_ok(petal_registry_fsm_restore(
		&f->other, bytes, PETAL_REGISTRY_SNAPSHOT_HEADER_BYTES));
	free(bytes);
	for (unsigned i = 0; i < PETAL_REGISTRY_KEYS_MAX; i++) {
		size_t size;

		snprintf(key, sizeof(key), "%063u", i);
		assert_ok(apply(&f->fsm, key, 0, value, sizeof(value)).status);
		if (i != PETAL_REGISTRY_KEYS_MAX - 1)
			continue;
		bytes = snapshot(&f->fsm, &size);
		assert_ok(petal_registry_fsm_restore(&f->other, bytes, size));
		free(bytes);
	}
	assert_same(&f->fsm, &f->other);
}

static void later_layout__is_named_and_damage_is_not_taken_for_one(void **state)
{
	struct fixture *f = *state;
	struct petal_registry_outcome outcome;
	uint8_t bytes[PETAL_REGISTRY_COMMAND_MAX];
	uint8_t *snap;
	size_t size = encode(bytes, "k", 0, "v", 1);

	bytes[4] = 2;
	assert_outcome(petal_registry_fsm_apply(&f->fsm, bytes, size, &outcome),
		       -PETAL_ECORRUPT);
	reseal(bytes, size);
	assert_outcome(petal_registry_fsm_apply(&f->fsm, bytes, size, &outcome),
		       -PETAL_EVERSION);

	apply(&f->fsm, "k", 0, "v", 1);
	snap = snapshot(&f->fsm, &size);
	snap[4] = 2;
	assert_outcome(petal_registry_fsm_restore(&f->other, snap, size),
		       -PETAL_ECORRUPT);
	reseal(snap, size);
	assert_outcome(petal_registry_fsm_restore(&f->other, snap, size),
		       -PETAL_EVERSION);
	free(snap);
}

/* Into memory of its own, so that ASan sees a read past the end. */
static uint8_t *exact_copy(const uint8_t *bytes, size_t length)
{
	uint8_t *copy = malloc(length ? length : 1);

	assert_non_null(copy);
	memcpy(copy, bytes, length);
	return copy;
}

static void mutate(struct fixture *f, uint8_t *bytes, size_t length)
{
	for (uint64_t n = 1 + draw(f, 4); n > 0 && length > 0; n--) {
		/* The header decides more than the bytes behind it. */
		size_t at = draw(f, draw(f, 2) ? length
					       : (length < 48 ? length : 48));

		bytes[at] = draw(f, 2) ? (uint8_t)draw(f, 256)
				       : bytes[at] ^ (uint8_t)(1 << draw(f, 8));
	}
}

static void check_invariants(const struct petal_registry_fsm *fsm)
{
	const struct petal_registry_entry *entry;
	const char *last = "";
	uint32_t seen = 0;

	while ((entry = petal_registry_fsm_after(fsm, last, false)) != NULL) {
		assert_true(petal_registry_key_check(entry->key) > 0);
		assert_in_range(entry->length, 1, PETAL_REGISTRY_VALUE_MAX);
		assert_in_range(entry->version, 1, fsm->revision);
		last = entry->key;
		seen++;
	}
	assert_int_equal(seen, fsm->count);
}

static void hostile_command__is_refused_or_obeyed_but_never_harms(void **state)
{
	struct fixture *f = *state;
	uint8_t value[300] = { 1 };
	unsigned refused = 0, obeyed = 0;

	for (unsigned i = 0; i < f->rounds; i++) {
		uint8_t bytes[PETAL_REGISTRY_COMMAND_MAX];
		struct petal_registry_outcome outcome;
		uint64_t revision = f->fsm.revision;
		size_t size = encode(bytes, "some/key", draw(f, 2) + 1, value,
				     (uint32_t)draw(f, sizeof(value)));
		bool sealed = draw(f, 4) != 0;
		uint8_t *copy;
		int err;

		mutate(f, bytes, size);
		if (draw(f, 3) == 0)
			size = draw(f, size);
		copy = exact_copy(bytes, size);
		if (sealed)
			reseal(copy, size);
		err = petal_registry_fsm_apply(&f->fsm, copy, size, &outcome);
		free(copy);
		obeyed += err == 0;
		refused += err != 0;
		if (err != 0) {
			assert_true(err == -PETAL_ECORRUPT ||
				    err == -PETAL_EVERSION);
			assert_int_equal(f->fsm.revision, revision);
		}
		if (i % 1000 == 0)
			check_invariants(&f->fsm);
	}
	check_invariants(&f->fsm);
	assert_true(refused > f->rounds / 4);
	assert_true(obeyed > 0);
}

static void hostile_snapshot__is_refused_whole_or_restored_whole(void **state)
{
	struct fixture *f = *state;
	unsigned refused = 0;
	uint8_t *bytes;
	size_t size;

	for (unsigned i = 0; i < 6; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key/%u", i);
		apply(&f->fsm, key, 0, key, 5);
	}
	bytes = snapshot(&f->fsm, &size);
	for (unsigned i = 0; i < f->rounds / 10; i++) {
		size_t length = draw(f, 3) ? size : draw(f, size + 1);
		uint8_t *copy = exact_copy(bytes, length);
		int err;

		mutate(f, copy, length);
		if (draw(f, 4) != 0)
			reseal(copy, length);
		err = petal_registry_fsm_restore(&f->other, copy, length);
		free(copy);
		refused += err != 0;
		check_invariants(&f->other);
		if (err != 0)
			assert_true(err == -PETAL_ECORRUPT ||
				    err == -PETAL_EVERSION);
	}
	assert_true(refused > f->rounds / 40);

	/* A refused one leaves what was there. */
	assert_ok(petal_registry_fsm_restore(&f->other, bytes, size));
	assert_outcome(petal_registry_fsm_restore(&f->other, bytes, size - 1),
		       -PETAL_ECORRUPT);
	assert_same(&f->fsm, &f->other);
	free(bytes);
}

static void
two_machines__given_the_same_commands_hold_the_same_bytes(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[PETAL_REGISTRY_COMMAND_MAX];
	struct petal_registry_outcome a, b;

	for (unsigned i = 0; i < 5000; i++) {
		char key[16];
		size_t size;

		snprintf(key, sizeof(key), "%u", (unsigned)draw(f, 50));
		size = encode(bytes, key, draw(f, 3) + (i > 100 ? i / 2 : 0),
			      &i, sizeof(i));
		assert_ok(petal_registry_fsm_apply(&f->fsm, bytes, size, &a));
		assert_ok(petal_registry_fsm_apply(&f->other, bytes, size, &b));
		assert_memory_equal(&a, &b, sizeof(a));
	}
	assert_same(&f->fsm, &f->other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(key__is_short_printable_and_without_spaces),
		TEST(command__comes_back_as_it_was_at_every_length),
		TEST(command__that_cannot_be_is_refused_by_its_sender),
		TEST(cas__creates_replaces_and_deletes),
		TEST(cas__a_key_made_again_never_has_an_old_version),
		TEST(cas__one_key_too_many_is_refused_and_a_deletion_makes_room),
		TEST(after__walks_in_order),
		TEST(fsm__does_what_a_plain_table_does_over_random_commands),
		TEST(snapshot__restores_the_same_state_which_goes_on_the_same_way),
		TEST(snapshot__of_nothing_and_of_the_largest_state),
		TEST(later_layout__is_named_and_damage_is_not_taken_for_one),
		TEST(hostile_command__is_refused_or_obeyed_but_never_harms),
		TEST(hostile_snapshot__is_refused_whole_or_restored_whole),
		TEST(two_machines__given_the_same_commands_hold_the_same_bytes),
	};

	return cmocka_run_group_tests_name("registry_fsm", tests, NULL, NULL);
}
