/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fabric/config.h promises: a file is read, sizes are sizes, and every
 * mistake in a file has one sentence that names the file and the mistake.
 */
#include "tests/check.h"

#include "fabric/config.h"
#include "shm/clock.h"

static const char petal[] = "[petal]\n"
			    "cluster = demo\n"
			    "node = 2\n"
			    "dir = /var/lib/petalith\n"
			    "key = /etc/petalith.key\n";

static const char nodes[] = "[node 1]\n"
			    "name = a\n"
			    "domain = rack-1\n"
			    "fabric = 10.0.0.1:7101\n"
			    "registry = 10.0.0.1:7201\n"
			    "[node 2]\n"
			    "name = b\n"
			    "domain = rack-2\n"
			    "fabric = 10.0.0.2:7101\n"
			    "registry = 10.0.0.2:7201\n";

struct fixture {
	char *dir;
	char *path;
	struct petal_config config;
	char error[PETAL_CONFIG_ERROR_BYTES];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->dir = petal_test_tmpdir();
	assert_true(asprintf(&f->path, "%s/petald.conf", f->dir) > 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	petal_test_tmpdir_remove(f->dir);
	free(f->path);
	free(f);
	return 0;
}

static int load(struct fixture *f, const char *first, const char *second,
		const char *third)
{
	FILE *file = fopen(f->path, "w");

	assert_non_null(file);
	assert_true(fprintf(file, "%s%s%s", first, second, third) >= 0);
	assert_int_equal(fclose(file), 0);
	return petal_config_load(f->path, &f->config, f->error);
}

static void assert_sentence(struct fixture *f, const char *part)
{
	if (strstr(f->error, part) == NULL)
		fail_msg("'%s' does not say '%s'", f->error, part);
	assert_true(strncmp(f->error, f->path, strlen(f->path)) == 0);
	assert_null(strchr(f->error, '\n'));
}

static void load__reads_every_key(void **state)
{
	struct fixture *f = *state;

	assert_ok(load(f, petal,
		       "provider = shm\njournal_bytes = 2G\n"
		       "heartbeat_ms = 20\nsuspect_beats = 5\nstall_ms = 50\n"
		       "election_ms = 60\nallow_same_host = yes\n",
		       nodes));
	assert_string_equal(f->error, "");
	assert_string_equal(f->config.cluster, "demo");
	assert_string_equal(f->config.dir, "/var/lib/petalith");
	assert_string_equal(f->config.key, "/etc/petalith.key");
	assert_string_equal(f->config.provider, "shm");
	assert_int_equal(f->config.self, 2);
	assert_int_equal(f->config.journal_bytes, UINT64_C(2) << 30);
	assert_int_equal(f->config.heartbeat_ns, PETAL_MS(20));
	assert_int_equal(f->config.suspect_beats, 5);
	assert_int_equal(f->config.stall_ns, PETAL_MS(50));
	assert_int_equal(f->config.election_ms, 60);
	assert_true(f->config.allow_same_host);
	assert_int_equal(f->config.node_count, 2);
	assert_string_equal(f->config.nodes[1].member.name, "b");
	assert_string_equal(f->config.nodes[1].member.domain, "rack-2");
	assert_string_equal(f->config.nodes[1].member.address, "10.0.0.2:7101");
	assert_string_equal(f->config.nodes[1].registry, "10.0.0.2:7201");
}

static void load__what_is_not_said_has_a_default(void **state)
{
	struct fixture *f = *state;

	assert_ok(load(f, "[petal]\nnode = 1\ndir = d\nkey = k\n", nodes, ""));
	assert_string_equal(f->config.cluster, "petalith");
	assert_string_equal(f->config.provider, "tcp");
	assert_int_equal(f->config.journal_bytes, 64 << 20);
	assert_false(f->config.allow_same_host);
}

static void load__comments_and_blank_lines_say_nothing(void **state)
{
	struct fixture *f = *state;

	assert_ok(load(f, "# a comment\n\n; another\n", petal, nodes));
}

/* inih would read the rest of it as a line of its own. */
static void load__line_that_is_too_long_is_refused_not_cut(void **state)
{
	struct fixture *f = *state;
	char line[320] = "dir = /";

	memset(line + 7, 'x', 170);
	line[177] = '\n';
	assert_ok(load(f, "[petal]\nnode = 1\nkey = k\n", line, nodes));
	assert_int_equal(strlen(f->config.dir), 171);
	memset(line + 7, 'x', 300);
	line[307] = '\n';
	assert_outcome(load(f, "[petal]\nnode = 1\nkey = k\n", line, nodes),
		       -EINVAL);
	assert_sentence(f, "line 4 is longer than");
}

static void load__file_that_cannot_be_read_says_why(void **state)
{
	struct fixture *f = *state;

	assert_outcome(petal_config_load(f->path, &f->config, f->error),
		       -ENOENT);
	assert_non_null(strstr(f->error, f->path));
	assert_non_null(strstr(f->error, "No such file"));
	assert_outcome(petal_config_load(f->dir, &f->config, f->error),
		       -EISDIR);
	assert_non_null(strstr(f->error, f->dir));
	assert_non_null(strstr(f->error, "directory"));
}

static void load__each_mistake_has_its_sentence(void **state)
{
	static const struct {
		const char *line; /* in [petal] */
		const char *more; /* after the nodes */
		const char *says;
	} rows[] = {
		{ "colour = red\n", "", "'colour'" },
		{ "nonsense\n", "", "line 6" },
		{ "node = x\n", "", "node is" },
		{ "node = 0\n", "", "1 to 255" },
		{ "cluster = other\n", "", "cluster is 'other', expected to" },
		{ "dir = /elsewhere\n", "",
		  "dir is '/elsewhere', expected to" },
		{ "provider =\n", "", "provider is ''" },
		{ "provider = a-name-that-no-provider-ever-had-in-this-world\n",
		  "", "too long" },
		{ "journal_bytes = many\n", "", "a size such as 64M" },
		{ "journal_bytes = -1\n", "", "a size such as 64M" },
		{ "journal_bytes = 4K\n", "", "from 1M to 1T" },
		{ "journal_bytes = 2097153\n", "", "a multiple of 4K" },
		{ "allow_same_host = perhaps\n", "", "yes or no" },
		{ "allow_same_host = true\n", "", "yes or no" },
		{ "heartbeat_ms = 0\n", "", "1 to 60000" },
		{ "heartbeat_ms = 60001\n", "", "1 to 60000" },
		{ "heartbeat_ms = 1s\n", "", "1 to 60000" },
		{ "stall_ms = 9\n", "", "10 to 60000" },
		{ "suspect_beats = 1\n", "", "2 to 1000" },
		{ "suspect_beats = 1001\n", "", "2 to 1000" },
		{ "election_ms = 99999999999999999999\n", "", "20 to 60000" },
		{ "election_ms = 19\n", "", "20 to 60000" },
		{ "", "[petals]\nx = y\n", "'petals'" },
		{ "", "[node 0]\nname = z\n", "N from 1 to 255" },
		{ "", "[node 256]\nname = z\n", "N from 1 to 255" },
		{ "", "[node x]\nname = z\n", "N from 1 to 255" },
		{ "", "[node -1]\nname = z\n", "N from 1 to 255" },
		{ "", "[node 3]\nport = 7\n", "'port'" },
		{ "", "[node 3]\nname = c\ndomain = d\nfabric = e:1\n",
		  "[node 3] needs" },
		{ "", "[node 3]\nname = c\ndomain = d\nregistry = e:1\n",
		  "[node 3] needs" },
		{ "", "[node 3]\nname = c\nfabric = e:1\nregistry = e:2\n",
		  "[node 3] needs" },
		{ "", "[node 2]\nname = c\n",
		  "name is 'c', expected to be said" },
		{ "",
		  "[node 3]\nname = a\ndomain = d\nfabric = e:1\n"
		  "registry = e:2\n",
		  "same name" },
		{ "",
		  "[node 3]\nname = c\ndomain = d\nfabric = 10.0.0.1:7101\n"
		  "registry = e:2\n",
		  "same fabric address" },
		{ "",
		  "[node 3]\nname = c\ndomain = d\nfabric = e:1\n"
		  "registry = 10.0.0.1:7201\n",
		  "same registry address" },
		{ "", "[node 3]\nname =\n", "name is ''" },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char *first;

		assert_true(asprintf(&first, "%s%s", petal, rows[i].line) > 0);
		if (load(f, first, nodes, rows[i].more) != -EINVAL)
			fail_msg("taken: %s%s", rows[i].line, rows[i].more);
		assert_sentence(f, rows[i].says);
		free(first);
	}
}

static void load__what_is_missing_is_named(void **state)
{
	struct fixture *f = *state;

	assert_outcome(load(f, "", "", ""), -EINVAL);
	assert_sentence(f, "'dir'");
	assert_outcome(load(f, "[petal]\ndir = d\n", nodes, ""), -EINVAL);
	assert_sentence(f, "'key'");
	assert_outcome(load(f, "[petal]\ndir = d\nkey = k\n", nodes, ""),
		       -EINVAL);
	assert_sentence(f, "'node'");
	assert_outcome(load(f, petal, "", ""), -EINVAL);
	assert_sentence(f, "there is no [node N]");
	assert_outcome(load(f, "[petal]\ndir = d\nkey = k\nnode = 9\n", nodes,
			    ""),
		       -EINVAL);
	assert_sentence(f, "there is no [node N]");
}

static void load__too_many_nodes_are_refused(void **state)
{
	struct fixture *f = *state;
	FILE *file = fopen(f->path, "w");

	fputs(petal, file);
	for (unsigned i = 1; i <= 65; i++)
		fprintf(file,
			"[node %u]\nname = n%u\ndomain = d\nfabric = f:%u\n"
			"registry = r:%u\n",
			i, i, i, i);
	fclose(file);
	assert_outcome(petal_config_load(f->path, &f->config, f->error),
		       -EINVAL);
	assert_sentence(f, "at most 64 nodes");
}

static void bytes__table(void **state)
{
	static const struct {
		const char *text;
		int outcome;
		uint64_t value;
	} rows[] = {
		{ "0", 0, 0 },
		{ "4096", 0, 4096 },
		{ "64K", 0, 65536 },
		{ "64M", 0, 64 << 20 },
		{ "2G", 0, UINT64_C(2) << 30 },
		{ "1T", 0, UINT64_C(1) << 40 },
		{ "16777215T", 0, UINT64_C(16777215) << 40 },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "16777216T", -EINVAL, 0 },
		{ "18446744073709551616", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ "M", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1 M", -EINVAL, 0 },
		{ "1MB", -EINVAL, 0 },
		{ "1m", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 },
		{ "1.5G", -EINVAL, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t value = 0;

		if (petal_config_bytes(rows[i].text, &value) !=
			    rows[i].outcome ||
		    value != rows[i].value)
			fail_msg("'%s'", rows[i].text);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static int hosts(struct fixture *f, const char *first, const char *second)
{
	char text[1024];

	snprintf(text, sizeof(text),
		 "[node 1]\nname = a\ndomain = rack-1\n"
		 "fabric = %s:7101\nregistry = 10.0.0.1:7201\n"
		 "[node 2]\nname = b\ndomain = rack-2\n"
		 "fabric = %s:7102\nregistry = 10.0.0.2:7202\n",
		 first, second);
	assert_ok(load(f, petal, "", text));
	return petal_config_hosts(&f->config, f->path, f->error);
}

static void hosts__two_nodes_on_one_are_refused(void **state)
{
	static const char *const same[][2] = {
		{ "10.0.0.3", "10.0.0.3" },
		{ "127.0.0.1", "127.0.0.1" },
		{ "127.0.0.1", "127.3.2.1" },
		{ "127.0.0.1", "[::1]" },
		{ "[2001:db8::1]", "[2001:db8:0::0:1]" },
		{ "10.0.0.3", "[::ffff:10.0.0.3]" },
	};
	static const char *const differ[][2] = {
		{ "10.0.0.3", "10.0.0.4" },
		{ "10.0.0.3", "127.0.0.1" },
		{ "[2001:db8::1]", "[2001:db8::2]" },
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		assert_outcome(hosts(f, same[i][0], same[i][1]), -EINVAL);
		assert_sentence(f, "nodes 1 and 2 are on one host");
	}
	for (unsigned i = 0; i < sizeof(differ) / sizeof(differ[0]); i++)
		assert_ok(hosts(f, differ[i][0], differ[i][1]));
}

static void hosts__one_registry_host_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_ok(load(f, petal, "", nodes));
	assert_ok(petal_config_hosts(&f->config, f->path, f->error));
	strcpy(f->config.nodes[1].registry, "10.0.0.1:7202");
	assert_outcome(petal_config_hosts(&f->config, f->path, f->error),
		       -EINVAL);
	assert_sentence(f, "--allow-same-host");
}

static void hosts__may_be_allowed(void **state)
{
	struct fixture *f = *state;

	assert_ok(load(f, petal, "allow_same_host = yes\n", nodes));
	strcpy(f->config.nodes[1].member.address, "10.0.0.1:7102");
	assert_ok(petal_config_hosts(&f->config, f->path, f->error));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(load__reads_every_key),
		TEST(load__what_is_not_said_has_a_default),
		TEST(load__comments_and_blank_lines_say_nothing),
		TEST(load__line_that_is_too_long_is_refused_not_cut),
		TEST(load__file_that_cannot_be_read_says_why),
		TEST(load__each_mistake_has_its_sentence),
		TEST(load__what_is_missing_is_named),
		TEST(load__too_many_nodes_are_refused),
		cmocka_unit_test(bytes__table),
		TEST(hosts__two_nodes_on_one_are_refused),
		TEST(hosts__one_registry_host_is_refused),
		TEST(hosts__may_be_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
