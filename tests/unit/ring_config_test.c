/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fabric/ring_config.h promises: what was written is read, and a value
 * with anything missing, of another type or out of range is refused whole.
 *
 * Harder: PETAL_TEST_HARDER=100 tries as many times more mutations.
 */
#include "tests/check.h"

#include "fabric/ring_config.h"

#define MEMBER_2 "{\"node\":2,\"inc\":\"b\",\"disk\":\"e\"},"

static const char good[] =
	"{\"id\":7,\"epoch\":2,\"primary\":3,\"state\":\"recovering\","
	"\"sealed\":{\"epoch\":1,\"lsn\":9,\"pos\":640,\"crc\":4294967295},"
	"\"loss\":{\"epoch\":2,\"lsn\":10},\"data_bytes\":16777216,"
	"\"members\":[{\"node\":1,\"inc\":\"0123456789abcdef0123456789abcdef\","
	"\"disk\":\"d\"}," MEMBER_2 "{\"node\":3,\"inc\":\"c\","
	"\"disk\":\"fedcba9876543210fedcba9876543210\"}],"
	"\"queues\":[{\"name\":\"stanzas\",\"slots\":64,\"lease_ns\":2000000000}"
	",{\"name\":\"done\",\"lease_ns\":1}]}";

static int parse(const char *text, struct petal_ring_config *config)
{
	return petal_ring_config_parse("ring-1", text, (uint32_t)strlen(text),
				       42, config);
}

static void parse__reads_every_field(void **state)
{
	struct petal_log_geometry geometry;
	struct petal_ring_config config;

	(void)state;
	assert_ok(parse(good, &config));
	assert_string_equal(config.name, "ring-1");
	assert_int_equal(config.id, 7);
	assert_int_equal(config.version, 42);
	assert_int_equal(config.epoch, 2);
	assert_int_equal(config.primary, 3);
	assert_true(config.recovering);
	assert_int_equal(config.sealed.epoch, 1);
	assert_int_equal(config.sealed.lsn, 9);
	assert_int_equal(config.sealed.pos, 640);
	assert_int_equal(config.sealed.crc, UINT32_MAX);
	assert_int_equal(config.data_bytes, 16777216);
	assert_string_equal(config.incs[0], "0123456789abcdef0123456789abcdef");
	assert_string_equal(config.incs[2], "c");
	assert_string_equal(config.disks[0], "d");
	assert_string_equal(config.disks[2],
			    "fedcba9876543210fedcba9876543210");
	assert_int_equal(config.loss.epoch, 2);
	assert_int_equal(config.loss.lsn, 10);
	assert_int_equal(config.queue_count, 2);
	assert_string_equal(config.queues[0].name, "stanzas");
	assert_int_equal(config.queues[0].slot_count, 64);
	assert_int_equal(config.queues[1].slot_count, 4096);
	assert_int_equal(config.queues[1].id, 2);
	assert_int_equal(petal_ring_config_member(&config, 2), 1);
	assert_outcome(petal_ring_config_member(&config, 4), -ENOENT);
	assert_outcome(petal_ring_config_member(&config, 0), -ENOENT);
	geometry = petal_ring_config_geometry(&config);
	assert_ok(petal_log_geometry_check(&geometry));
	assert_int_equal(geometry.ring, 7);
	assert_int_equal(geometry.epoch, 2);
}

static void parse__state_says_from_what_it_is_recovered(void **state)
{
	static const char *const words[] = { "recovering-from-disks",
					     "recovering-from-one-disk" };
	static const enum petal_ring_config_source sources[] = {
		PETAL_RING_CONFIG_DISKS, PETAL_RING_CONFIG_ONE_DISK
	};
	struct petal_ring_config config;

	(void)state;
	assert_ok(parse(good, &config));
	assert_int_equal(config.source, PETAL_RING_CONFIG_MEMORY);
	for (unsigned i = 0; i < 2; i++) {
		json_t *object = json_loads(good, 0, NULL);
		char *text;

		json_object_set_new(object, "state", json_string(words[i]));
		text = json_dumps(object, JSON_COMPACT);
		assert_ok(parse(text, &config));
		assert_true(config.recovering);
		assert_int_equal(config.source, sources[i]);
		assert_string_equal(petal_ring_config_state(&config), words[i]);
		json_decref(object);
		free(text);
	}
}

static void json__comes_back_from_parse(void **state)
{
	struct petal_ring_config config, again;
	json_t *object;
	char *text;

	(void)state;
	memset(&config, 0, sizeof(config));
	assert_ok(parse(good, &config));
	object = petal_ring_config_json(&config);
	text = json_dumps(object, JSON_COMPACT);
	assert_ok(parse(text, &again));
	assert_memory_equal(config.incs, again.incs, sizeof(config.incs));
	assert_memory_equal(config.disks, again.disks, sizeof(config.disks));
	assert_memory_equal(&config.loss, &again.loss, sizeof(config.loss));
	assert_memory_equal(config.members, again.members,
			    sizeof(config.members));
	assert_int_equal(config.id, again.id);
	assert_int_equal(config.epoch, again.epoch);
	assert_int_equal(config.primary, again.primary);
	assert_int_equal(config.recovering, again.recovering);
	assert_memory_equal(&config.sealed, &again.sealed,
			    sizeof(config.sealed));
	assert_int_equal(config.data_bytes, again.data_bytes);
	for (unsigned i = 0; i < config.queue_count; i++) {
		assert_string_equal(config.queues[i].name,
				    again.queues[i].name);
		assert_int_equal(config.queues[i].slot_count,
				 again.queues[i].slot_count);
		assert_int_equal(config.queues[i].lease_ns,
				 again.queues[i].lease_ns);
	}
	json_decref(object);
	free(text);
}

/* The good value with one part replaced by another. */
static char *with(const char *part, const char *other)
{
	const char *at = strstr(good, part);
	char *text;

	assert_non_null(at);
	assert_true(asprintf(&text, "%.*s%s%s", (int)(at - good), good, other,
			     at + strlen(part)) > 0);
	return text;
}

static void parse__anything_wrong_is_corrupt(void **state)
{
	static const struct {
		const char *part, *other;
	} rows[] = {
		{ "\"id\":7,", "" },
		{ "\"id\":7", "\"id\":0" },
		{ "\"id\":7", "\"id\":-7" },
		{ "\"id\":7", "\"id\":4294967296" },
		{ "\"id\":7", "\"id\":\"7\"" },
		{ "\"id\":7", "\"id\":7.0" },
		{ "\"epoch\":2,", "" },
		{ "\"epoch\":2", "\"epoch\":0" },
		{ "\"epoch\":2", "\"epoch\":4294967296" },
		{ "\"primary\":3,", "" },
		{ "\"primary\":3", "\"primary\":4" },
		{ "\"primary\":3", "\"primary\":4294967299" },
		{ "\"primary\":3", "\"primary\":-4294967293" },
		{ "\"state\":\"recovering\",", "" },
		{ "recovering", "closed" },
		{ "\"epoch\":1", "\"epoch\":2" },
		{ "\"lsn\":9", "\"lsn\":-9" },
		{ "\"pos\":640,", "" },
		{ "4294967295", "4294967296" },
		{ "\"data_bytes\":16777216,", "" },
		{ "\"data_bytes\":16777216", "\"data_bytes\":16777217" },
		{ "\"data_bytes\":16777216", "\"data_bytes\":-65536" },
		{ "\"data_bytes\":16777216", "\"data_bytes\":32768" },
		{ "\"data_bytes\":16777216", "\"data_bytes\":137438953472" },
		{ "recovering", "recovering-from-disk" },
		{ "\"loss\":{\"epoch\":2", "\"loss\":{\"epoch\":3" },
		{ "\"loss\":", "\"los\":" },
		{ "\"lsn\":10", "\"lsn\":-1" },
		{ MEMBER_2, "" },
		{ MEMBER_2,
		  MEMBER_2 "{\"node\":4,\"inc\":\"d\",\"disk\":\"d\"}," },
		{ ",\"disk\":\"e\"", "" },
		{ "\"disk\":\"e\"", "\"disk\":5" },
		{ "fedcba9876543210\"", "fedcba98765432100\"" },
		{ "\"node\":2", "\"node\":1" },
		{ "\"node\":2", "\"node\":0" },
		{ "\"node\":2", "\"node\":256" },
		{ "\"node\":2", "\"node\":4294967298" },
		{ "\"node\":2,", "" },
		{ "\"inc\":\"b\"", "\"inc\":5" },
		{ "\"inc\":\"b\"", "\"ink\":\"b\"" },
		{ "0123456789abcdef\"", "0123456789abcdef0\"" },
		{ "\"name\":\"done\",", "" },
		{ "\"done\"", "\"\"" },
		{ "\"done\"", "\"a b\"" },
		{ "\"done\"", "\"a/b\"" },
		{ "\"done\"", "\"0123456789012345678901234567890x\"" },
		{ "\"done\"", "\"stanzas\"" },
		{ "\"slots\":64", "\"slots\":63" },
		{ "\"slots\":64", "\"slots\":1" },
		{ "\"slots\":64", "\"slots\":0.0" },
		{ "\"slots\":64", "\"slots\":-64" },
		{ "\"slots\":64", "\"slots\":\"64\"" },
		{ "\"slots\":64", "\"slots\":4294967360" },
		{ "\"slots\":64", "\"slots\":2097152" },
		{ "\"lease_ns\":1}", "\"lease_ns\":0}" },
		{ ",\"lease_ns\":1}", "}" },
		{ "\"lease_ns\":1}", "\"lease_ns\":-1}" },
		{ "\"lease_ns\":1}", "\"lease_ns\":3600000000001}" },
		{ "\"queues\":[", "\"queue\":[" },
		{ "\"queues\":[", "\"queues\":5,\"others\":[" },
		{ "\"queues\":[", "\"queues\":[{},{},{},{},{},{},{}," },
		{ "\"epoch\":2", "\"id\":8,\"epoch\":2" },
		{ "]}", "]} "
			"x" },
		{ "{\"id\"", "[{\"id\"" },
	};
	struct petal_ring_config config;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char *text = with(rows[i].part, rows[i].other);

		if (parse(text, &config) != -PETAL_ECORRUPT)
			fail_msg("taken: %s", text);
		free(text);
	}
}

static void
parse__truncations_and_mutations_are_refused_or_in_range(void **state)
{
	struct petal_log_geometry geometry;
	struct petal_ring_config config;
	uint64_t random = 9;

	(void)state;
	for (uint32_t length = 0; length < sizeof(good) - 1; length++) {
		char *cut = malloc(length + !length);

		memcpy(cut, good, length);
		assert_outcome(petal_ring_config_parse("r", cut, length, 1,
						       &config),
			       -PETAL_ECORRUPT);
		free(cut);
	}
	for (uint64_t n = petal_test_rounds(5000); n > 0; n--) {
		char text[sizeof(good)];
		uint64_t dice;

		memcpy(text, good, sizeof(text));
		for (unsigned i = 0; i < 3; i++) {
			dice = petal_test_random(&random);
			text[dice % (sizeof(good) - 1)] =
				(char)(dice >> 32 | 32);
		}
		if (petal_ring_config_parse("r", text, sizeof(good) - 1, 1,
					    &config) != 0)
			continue;
		geometry = petal_ring_config_geometry(&config);
		assert_ok(petal_log_geometry_check(&geometry));
		assert_true(petal_ring_config_member(&config, config.primary) >=
			    0);
	}
}

static void name__only_letters_digits_dash_and_underline(void **state)
{
	static const char *const bad[] = {
		"",    "a b",      "a/b",
		"a.b", "../x",     "\x7f",
		"a\n", "\xc3\xa9", "01234567890123456789012345678901",
	};

	(void)state;
	assert_outcome(petal_ring_config_name_check(NULL), -EINVAL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_outcome(petal_ring_config_name_check(bad[i]), -EINVAL);
	assert_ok(petal_ring_config_name_check("a"));
	assert_ok(petal_ring_config_name_check(
		"0123456789-_ABCDEFxyz0123456789"));
}

static void shape__without_queues_is_a_plain_log(void **state)
{
	struct petal_ring_config config = { 0 };
	json_t *object = json_pack("{s:i}", "data_bytes", 65536);

	(void)state;
	assert_ok(petal_ring_config_shape(object, &config));
	assert_int_equal(config.queue_count, 0);
	json_decref(object);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse__reads_every_field),
		cmocka_unit_test(parse__state_says_from_what_it_is_recovered),
		cmocka_unit_test(json__comes_back_from_parse),
		cmocka_unit_test(parse__anything_wrong_is_corrupt),
		cmocka_unit_test(
			parse__truncations_and_mutations_are_refused_or_in_range),
		cmocka_unit_test(name__only_letters_digits_dash_and_underline),
		cmocka_unit_test(shape__without_queues_is_a_plain_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
