/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers what shm/segment.h can be made of besides plain memory: files, devices
 * of memory, huge pages of 1 GiB, chosen NUMA nodes (shm/numa.h, shm/dax.h),
 * and that each refusal has its own error and leaves nothing behind.
 *
 * To run it harder: PETAL_TEST_DAX=/dev/dax0.0 makes segments on that device
 * and destroys what is on it; a free huge page of 1 GiB
 * (/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages) is used if there
 * is one; a machine with a node without CPUs shows the slow tier.
 */
#include "tests/check.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "shm/crc32c.h"
#include "shm/dax.h"
#include "shm/numa.h"
#include "shm/segment.h"

#define BODY_BYTES 100000u

struct fixture {
	char *dir;
	char path[256];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->dir = petal_test_tmpdir();
	snprintf(f->path, sizeof(f->path), "%s/segment", f->dir);
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

static struct petal_segment_options file_options(const struct fixture *f)
{
	const struct petal_segment_options options = {
		.name = "petal-test",
		.body_bytes = BODY_BYTES,
		.backing = PETAL_SEGMENT_FILE,
		.path = f->path,
	};

	return options;
}

static struct petal_segment open_file(const struct fixture *f)
{
	const struct petal_segment_options options = file_options(f);
	struct petal_segment segment;
	int outcome = petal_segment_open(&options, &segment);

	if (outcome == -EOPNOTSUPP)
		petal_test_skip("%s is on a file system without fallocate()",
				f->dir);
	assert_ok(outcome);
	return segment;
}

/* ---- Files. ---- */

static void file__outlives_its_maker_and_is_attached_by_path(void **state)
{
	struct fixture *f = *state;
	struct petal_segment s = open_file(f);
	struct petal_segment other;
	struct stat status;

	assert_int_equal(s.backing, PETAL_SEGMENT_FILE);
	assert_int_equal(fstat(s.fd, &status), 0);
	assert_int_equal(status.st_mode & 07777, 0600);
	assert_true((uint64_t)status.st_blocks * 512 >= s.total_bytes);
	strcpy(petal_segment_body(&s), "kept");
	petal_segment_close(&s);
	assert_ok(petal_segment_attach_path(f->path, true, geteuid(), &other));
	assert_string_equal(petal_segment_body(&other), "kept");
	assert_true(other.writable);
	petal_segment_close(&other);
	assert_ok(petal_segment_attach_path(f->path, false, geteuid(), &other));
	assert_false(other.writable);
	petal_segment_close(&other);
}

static void file__that_exists_is_not_overwritten(void **state)
{
	struct fixture *f = *state;
	struct petal_segment_options options = file_options(f);
	struct petal_segment s = { .fd = -7 };
	int fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	char text[8] = { 0 };

	assert_int_equal(write(fd, "mine", 4), 4);
	assert_outcome(petal_segment_open(&options, &s), -EEXIST);
	assert_int_equal(s.fd, -7);
	assert_int_equal(pread(fd, text, sizeof(text), 0), 4);
	assert_string_equal(text, "mine");
	close(fd);
}

static void file__needs_an_owner_who_is_trusted(void **state)
{
	struct fixture *f = *state;
	struct petal_segment s = open_file(f);
	struct petal_segment other = { .fd = -7 };

	assert_outcome(petal_segment_attach(s.fd, false, &other), -EPERM);
	assert_outcome(petal_segment_attach_owned(s.fd, false, geteuid() + 1,
						  &other),
		       -PETAL_EAUTH);
	assert_int_equal(fchmod(s.fd, 0620), 0);
	assert_outcome(petal_segment_attach_owned(s.fd, false, geteuid(),
						  &other),
		       -PETAL_EAUTH);
	assert_int_equal(fchmod(s.fd, 0602), 0);
	assert_outcome(petal_segment_attach_path(f->path, false, geteuid(),
						 &other),
		       -PETAL_EAUTH);
	assert_int_equal(fchmod(s.fd, 0644), 0);
	assert_int_equal(other.fd, -7);
	assert_ok(petal_segment_attach_owned(s.fd, true, geteuid(), &other));
	petal_segment_close(&other);
	petal_segment_close(&s);
}

static void file__truncated_or_with_a_hole_is_refused(void **state)
{
	struct fixture *f = *state;
	struct petal_segment s = open_file(f);
	struct petal_segment other;
	off_t bytes = (off_t)s.total_bytes;

	assert_int_equal(ftruncate(s.fd, bytes - 4096), 0);
	assert_outcome(petal_segment_attach_path(f->path, false, geteuid(),
						 &other),
		       -PETAL_EGEOMETRY);
	assert_int_equal(ftruncate(s.fd, bytes), 0);
	assert_outcome(petal_segment_attach_path(f->path, false, geteuid(),
						 &other),
		       -ENODATA);
	assert_int_equal(ftruncate(s.fd, 100), 0);
	assert_outcome(petal_segment_attach_path(f->path, false, geteuid(),
						 &other),
		       -EINVAL);
	petal_segment_close(&s);
}

static void file__attach_by_a_link_or_to_nothing_is_refused(void **state)
{
	struct fixture *f = *state;
	struct petal_segment s = open_file(f);
	struct petal_segment other;
	char link[300];

	snprintf(link, sizeof(link), "%s/link", f->dir);
	assert_int_equal(symlink(f->path, link), 0);
	assert_outcome(petal_segment_attach_path(link, false, geteuid(),
						 &other),
		       -ELOOP);
	assert_outcome(petal_segment_attach_path("/nowhere/at/all", false, 0,
						 &other),
		       -ENOENT);
	assert_outcome(petal_segment_attach_path("/dev/null", false, 0, &other),
		       -EINVAL);
	petal_segment_close(&s);
}

static void file__that_does_not_fit_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct petal_segment_options options = file_options(f);
	struct petal_segment s;

	options.body_bytes = UINT64_C(1) << 60;
	assert_true(petal_segment_open(&options, &s) < 0);
	assert_int_equal(access(f->path, F_OK), -1);
	options = file_options(f);
	options.path = "/nowhere/at/all";
	assert_outcome(petal_segment_open(&options, &s), -ENOENT);
}

static void file__on_a_tmpfs_counts_against_memory(void **state)
{
	struct fixture *f = *state;
	struct petal_segment_options options = file_options(f);
	struct petal_segment s;
	char path[64];

	snprintf(path, sizeof(path), "/dev/shm/petal-test-%d", (int)getpid());
	options.path = path;
	options.body_bytes = UINT64_C(1) << 44;
	assert_true(petal_segment_open(&options, &s) < 0);
	assert_int_equal(access(path, F_OK), -1);
	options.body_bytes = BODY_BYTES;
	if (access("/dev/shm", W_OK)) {
		print_message("no /dev/shm, so not tried\n");
		return;
	}
	assert_ok(petal_segment_open(&options, &s));
	petal_segment_close(&s);
	/* It has seals, but not the one that counts. */
	assert_outcome(petal_segment_attach_path(path, false, geteuid() + 1,
						 &s),
		       -PETAL_EAUTH);
	assert_ok(petal_segment_attach_path(path, false, geteuid(), &s));
	petal_segment_close(&s);
	unlink(path);
}

/* ---- What excludes what. ---- */

static void assert_refused(const struct petal_segment_options *options,
			   int expected)
{
	struct petal_segment s = { .fd = -7 };

	assert_outcome(petal_segment_open(options, &s), expected);
	assert_int_equal(s.fd, -7);
}

static void open__choices_that_exclude_each_other_are_einval(void **state)
{
	struct fixture *f = *state;
	struct petal_segment_options o = file_options(f);

	o.write_sealed = true;
	assert_refused(&o, -EINVAL);
	o = file_options(f);
	o.huge = PETAL_SEGMENT_HUGE_REQUIRE;
	assert_refused(&o, -EINVAL);
	o = file_options(f);
	o.place = PETAL_SEGMENT_PLACE_NODES;
	o.nodes = 1;
	assert_refused(&o, -EINVAL);
	o = file_options(f);
	o.overwrite = true;
	assert_refused(&o, -EINVAL);
	o = file_options(f);
	o.path = NULL;
	assert_refused(&o, -EINVAL);
	o = file_options(f);
	o.backing = PETAL_SEGMENT_MEMFD;
	assert_refused(&o, -EINVAL);
	o = file_options(f);
	o.backing = (enum petal_segment_backing)9;
	assert_refused(&o, -EINVAL);
	o = file_options(f);
	o.coherence = (enum petal_segment_coherence)9;
	assert_refused(&o, -EINVAL);
	assert_int_equal(access(f->path, F_OK), -1);
}

static void open__growth_that_makes_no_sense_is_refused(void **state)
{
	struct petal_segment_options good = {
		.name = "petal-test",
		.body_bytes = 4096,
		.reserve_bytes = 1u << 20,
		.extent_bytes = 65536,
	};
	struct petal_segment_options o = good;

	(void)state;
	o.reserve_bytes = 4095;
	assert_refused(&o, -EINVAL);
	o = good;
	o.extent_bytes = 65537;
	assert_refused(&o, -EINVAL);
	o.extent_bytes = 2048;
	assert_refused(&o, -EINVAL);
	o = good;
	o.write_sealed = true;
	assert_refused(&o, -EINVAL);
	o = good;
	o.extent_bytes = 4096;
	o.reserve_bytes = (PETAL_SEGMENT_EXTENTS_MAX + 2) * 4096;
	assert_refused(&o, -EFBIG);
	o.reserve_bytes = UINT64_MAX;
	assert_refused(&o, -EFBIG);
	o.reserve_bytes = 1u << 20;
	o.extent_bytes = UINT64_C(1) << 63;
	assert_refused(&o, -EFBIG);
}

static void coherence__is_recorded_for_all_who_attach(void **state)
{
	struct petal_segment_options options = {
		.name = "petal-test",
		.body_bytes = BODY_BYTES,
		.coherence = PETAL_SEGMENT_NONCOHERENT,
	};
	struct petal_segment a, b;

	(void)state;
	assert_ok(petal_segment_open(&options, &a));
	assert_int_equal(a.coherence, PETAL_SEGMENT_NONCOHERENT);
	assert_ok(petal_segment_attach(a.fd, false, &b));
	assert_int_equal(b.coherence, PETAL_SEGMENT_NONCOHERENT);
	petal_segment_close(&a);
	petal_segment_close(&b);
	options.coherence = PETAL_SEGMENT_COHERENT;
	assert_ok(petal_segment_open(&options, &a));
	assert_ok(petal_segment_attach(a.fd, false, &b));
	assert_int_equal(b.coherence, PETAL_SEGMENT_COHERENT);
	petal_segment_close(&a);
	petal_segment_close(&b);
}

/* ---- Devices. ---- */

static void dax__missing_or_something_else_has_its_own_error(void **state)
{
	struct fixture *f = *state;
	struct petal_segment_options o = file_options(f);
	int fd;

	o.backing = PETAL_SEGMENT_DAX;
	o.path = "/dev/dax77.0";
	assert_refused(&o, -ENXIO);
	o.path = "/dev/zero";
	assert_refused(&o, -EMEDIUMTYPE);
	o.path = f->dir;
	assert_refused(&o, -EMEDIUMTYPE);
	o.path = f->path;
	fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_refused(&o, -EMEDIUMTYPE);
	assert_int_equal(mkfifo(strcat(f->path, "-fifo"), 0600), 0);
	assert_refused(&o, -EMEDIUMTYPE);
}

static void dax__carries_a_segment(void **state)
{
	const char *path = getenv("PETAL_TEST_DAX");
	struct petal_segment_options o = {
		.name = "petal-test",
		.body_bytes = BODY_BYTES,
		.backing = PETAL_SEGMENT_DAX,
		.path = path,
		.overwrite = true,
		.coherence = PETAL_SEGMENT_NONCOHERENT,
	};
	struct petal_segment a, b;

	(void)state;
	if (!path) {
		print_message("PETAL_TEST_DAX names no device: not tried\n");
		return;
	}
	assert_ok(petal_segment_open(&o, &a));
	assert_int_equal(((char *)petal_segment_body(&a))[0], 0);
	strcpy(petal_segment_body(&a), "on the device");
	assert_outcome(petal_segment_attach(a.fd, true, &b), -EPERM);
	assert_ok(petal_segment_attach_path(path, true, geteuid(), &b));
	assert_string_equal(petal_segment_body(&b), "on the device");
	petal_segment_close(&b);
	o.overwrite = false;
	assert_refused(&o, -EEXIST);
	o.overwrite = true;
	o.body_bytes = UINT64_C(1) << 60;
	assert_refused(&o, -ENOSPC);
	assert_string_equal(petal_segment_body(&a), "on the device");
	petal_segment_close(&a);
}

/* ---- Huge pages and nodes. ---- */

static uint64_t free_pages_of_1g(void)
{
	const char *path = "/sys/kernel/mm/hugepages/hugepages-1048576kB/"
			   "free_hugepages";
	FILE *file = fopen(path, "re");
	unsigned count = 0;

	if (!file)
		return 0;
	if (fscanf(file, "%u", &count) != 1)
		count = 0;
	fclose(file);
	return count;
}

static void huge_1g__is_taken_or_refused_by_name(void **state)
{
	const struct petal_segment_options o = {
		.name = "petal-test",
		.body_bytes = BODY_BYTES,
		.huge = PETAL_SEGMENT_HUGE_REQUIRE_1G,
	};
	struct petal_segment a, b;

	(void)state;
	if (free_pages_of_1g() == 0) {
		assert_refused(&o, -PETAL_EHUGEPAGES);
		return;
	}
	assert_ok(petal_segment_open(&o, &a));
	assert_int_equal(a.pages, PETAL_SEGMENT_PAGES_HUGE_1G);
	assert_int_equal(a.total_bytes, 1u << 30);
	assert_ok(petal_segment_attach(a.fd, true, &b));
	assert_int_equal(b.pages, PETAL_SEGMENT_PAGES_HUGE_1G);
	petal_segment_close(&a);
	petal_segment_close(&b);
}

static void nodes__hold_every_page_of_the_segment(void **state)
{
	struct petal_segment_options o = {
		.name = "petal-test",
		.body_bytes = 1u << 20,
		.place = PETAL_SEGMENT_PLACE_NODES,
	};
	struct petal_segment s;
	uint64_t nodes;
	int outcome = petal_numa_nodes(&nodes);

	(void)state;
	if (outcome == -ENOSYS) {
		print_message("a kernel without NUMA: not tried\n");
		return;
	}
	assert_ok(outcome);
	for (uint32_t node = 0; node < PETAL_NUMA_NODES_MAX; node++) {
		o.nodes = UINT64_C(1) << node;
		if (!(nodes & o.nodes)) {
			assert_refused(&o, -ENODEV);
			continue;
		}
		assert_ok(petal_segment_open(&o, &s));
		for (uint64_t at = 0; at < s.fixed_bytes; at += 4096) {
			uint32_t where = UINT32_MAX;

			assert_ok(
				petal_numa_where((char *)s.base + at, &where));
			assert_int_equal(where, node);
		}
		petal_segment_close(&s);
	}
	o.nodes = nodes;
	assert_ok(petal_segment_open(&o, &s));
	petal_segment_close(&s);
}

static void nodes__cannot_give_more_than_they_have(void **state)
{
	struct petal_segment_options o = {
		.name = "petal-test",
		.body_bytes = UINT64_C(1) << 46,
		.place = PETAL_SEGMENT_PLACE_NODES,
		.nodes = 1,
		.huge = PETAL_SEGMENT_HUGE_OFF,
	};
	uint64_t nodes;

	(void)state;
	if (petal_numa_nodes(&nodes) || !(nodes & 1)) {
		print_message("no node 0: not tried\n");
		return;
	}
	assert_refused(&o, -ENOMEM);
	o.body_bytes = 4096;
	o.nodes = 0;
	assert_refused(&o, -EINVAL);
	o.place = PETAL_SEGMENT_PLACE_ANY;
	o.nodes = 1;
	assert_refused(&o, -EINVAL);
}

static void slow_tier__is_a_node_without_cpus_or_enodev(void **state)
{
	const struct petal_segment_options o = {
		.name = "petal-test",
		.body_bytes = 65536,
		.place = PETAL_SEGMENT_PLACE_SLOW,
	};
	struct petal_segment s;
	uint64_t slow;
	uint32_t where;
	int outcome = petal_numa_slow(&slow);

	(void)state;
	if (outcome) {
		assert_true(outcome == -ENODEV || outcome == -ENOSYS);
		assert_refused(&o, outcome);
		return;
	}
	assert_int_equal(slow & (slow - 1), 0);
	assert_ok(petal_segment_open(&o, &s));
	assert_ok(petal_numa_where(petal_segment_body(&s), &where));
	assert_true(slow == UINT64_C(1) << where);
	petal_segment_close(&s);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(file__outlives_its_maker_and_is_attached_by_path),
		TEST(file__that_exists_is_not_overwritten),
		TEST(file__needs_an_owner_who_is_trusted),
		TEST(file__truncated_or_with_a_hole_is_refused),
		TEST(file__attach_by_a_link_or_to_nothing_is_refused),
		TEST(file__that_does_not_fit_leaves_nothing),
		TEST(file__on_a_tmpfs_counts_against_memory),
		TEST(open__choices_that_exclude_each_other_are_einval),
		TEST(open__growth_that_makes_no_sense_is_refused),
		TEST(coherence__is_recorded_for_all_who_attach),
		TEST(dax__missing_or_something_else_has_its_own_error),
		TEST(dax__carries_a_segment),
		TEST(huge_1g__is_taken_or_refused_by_name),
		TEST(nodes__hold_every_page_of_the_segment),
		TEST(nodes__cannot_give_more_than_they_have),
		TEST(slow_tier__is_a_node_without_cpus_or_enodev),
	};

	return cmocka_run_group_tests_name("backing", tests, NULL, NULL);
}
