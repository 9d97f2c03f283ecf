/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers the table of bad input, row by row: each wrong thing that can be
 * opened, attached, resolved or claimed has an error of its own, and an attempt
 * changes nothing: no output, no descriptor, no byte of what was tried. What
 * else each of these calls refuses is in the test of its own file.
 *
 * Skips nothing: a machine without huge pages or devices of memory is the one
 * that these rows are about.
 */
#include "tests/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "rings/bcast.h"
#include "rings/mpmc.h"
#include "rings/mpsc.h"
#include "rings/pipe.h"
#include "rings/spsc.h"
#include "shm/crc32c.h"
#include "shm/ledger.h"
#include "shm/ref.h"
#include "shm/segment.h"

#define BODY_BYTES UINT64_C(65536)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static unsigned descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* ---- Opening what is not a segment. ---- */

static struct petal_segment open_segment(void)
{
	struct petal_segment_options options = {
		.name = "bad_input_test",
		.body_bytes = BODY_BYTES,
		.huge = PETAL_SEGMENT_HUGE_OFF,
	};
	struct petal_segment segment;

	assert_ok(petal_segment_open(&options, &segment));
	return segment;
}

/* The bytes of a good segment in a memfd of our own, yet to be spoilt. */
static int copy_of(const struct petal_segment *segment)
{
	int fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, segment->base, segment->total_bytes),
			 segment->total_bytes);
	return fd;
}

static void spoil_nothing(int fd)
{
	assert_int_equal(fcntl(fd, F_ADD_SEALS, SEALS), 0);
}

static void spoil_magic(int fd)
{
	assert_int_equal(pwrite(fd, "PETALSEX", 8, 0), 8);
	spoil_nothing(fd);
}

static void spoil_everything(int fd)
{
	assert_int_equal(ftruncate(fd, 0), 0);
	spoil_nothing(fd);
}

/* As its maker would have signed it. */
static void spoil_layout(int fd)
{
	struct petal_segment_header header;
	const size_t bytes = sizeof(header);

	assert_int_equal(pread(fd, &header, bytes, 0), bytes);
	header.layout++;
	header.header_crc = petal_crc32c(
		0, &header, offsetof(struct petal_segment_header, header_crc));
	assert_int_equal(pwrite(fd, &header, bytes, 0), bytes);
	spoil_nothing(fd);
}

static void spoil_crc(int fd)
{
	assert_int_equal(pwrite(fd, "x", 1, 80), 1);
	spoil_nothing(fd);
}

static void spoil_length(int fd)
{
	assert_int_equal(ftruncate(fd, (off_t)BODY_BYTES), 0);
	spoil_nothing(fd);
}

static void spoil_page(int fd)
{
	assert_int_equal(fallocate(fd,
				   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   8192, 4096),
			 0);
	spoil_nothing(fd);
}

static void spoil_seals(int fd)
{
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
}

static void spoil_writing(int fd)
{
	assert_int_equal(fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_FUTURE_WRITE),
			 0);
}

static void attach__each_wrong_segment_has_its_own_error(void **state)
{
	static const struct {
		void (*spoil)(int fd);
		int outcome;
	} rows[] = {
		{ spoil_nothing, 0 },
		{ spoil_magic, -EINVAL },
		{ spoil_everything, -EINVAL },
		{ spoil_layout, -PETAL_EVERSION },
		{ spoil_crc, -PETAL_ECORRUPT },
		{ spoil_length, -PETAL_EGEOMETRY },
		{ spoil_page, -ENODATA },
		{ spoil_seals, -EPERM },
		{ spoil_writing, -EROFS },
	};
	struct petal_segment good = open_segment();

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct petal_segment segment = { .fd = -7 };
		int fd = copy_of(&good);
		struct stat before, after;
		unsigned open_fds;

		rows[i].spoil(fd);
		assert_int_equal(fstat(fd, &before), 0);
		open_fds = descriptors();
		assert_outcome(petal_segment_attach(fd, true, &segment),
			       rows[i].outcome);
		if (rows[i].outcome) {
			assert_int_equal(segment.fd, -7);
			assert_null(segment.base);
		}
		petal_segment_close(&segment);
		assert_int_equal(descriptors(), open_fds);
		assert_int_equal(fstat(fd, &after), 0);
		assert_int_equal(after.st_size, before.st_size);
		assert_int_equal(after.st_blocks, before.st_blocks);
		close(fd);
	}
	petal_segment_close(&good);
}

static void attach__what_is_not_even_a_file_has_its_own_error(void **state)
{
	struct petal_segment segment;
	int ends[2], device;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	device = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_true(device >= 0);
	assert_outcome(petal_segment_attach(-1, false, &segment), -EBADF);
	assert_outcome(petal_segment_attach(ends[0], false, &segment), -EINVAL);
	assert_outcome(petal_segment_attach(device, false, &segment), -EINVAL);
	close(ends[0]);
	close(ends[1]);
	close(device);
}

static void assert_open_refused(const struct petal_segment_options *options,
				int outcome)
{
	struct petal_segment segment = { .fd = -7 };
	unsigned open_fds = descriptors();

	assert_outcome(petal_segment_open(options, &segment), outcome);
	assert_int_equal(segment.fd, -7);
	assert_int_equal(descriptors(), open_fds);
}

static void open__each_missing_backing_has_its_own_error(void **state)
{
	struct petal_segment_options options = {
		.name = "bad_input_test",
		.body_bytes = BODY_BYTES,
		.backing = PETAL_SEGMENT_DAX,
		.path = "/dev/dax99.99",
	};

	(void)state;
	assert_open_refused(&options, -ENXIO);
	options.path = "/dev/null";
	assert_open_refused(&options, -EMEDIUMTYPE);
	options.backing = PETAL_SEGMENT_MEMFD;
	options.path = NULL;
	/* More huge pages than any machine of ours has. */
	options.body_bytes = UINT64_C(1) << 45;
	options.huge = PETAL_SEGMENT_HUGE_REQUIRE;
	assert_open_refused(&options, -PETAL_EHUGEPAGES);
	options.huge = PETAL_SEGMENT_HUGE_REQUIRE_1G;
	assert_open_refused(&options, -PETAL_EHUGEPAGES);
	options.huge = PETAL_SEGMENT_HUGE_OFF;
	assert_open_refused(&options, -ENOMEM);
}

/* ---- Rings whose geometry lies, and claims larger than the ring. ---- */

struct kind {
	const char *name;
	uint64_t (*format)(void *memory);
	int (*attach)(void *memory, uint64_t bytes);
	void (*claim_too_much)(void *memory, uint64_t bytes);
	size_t layout_at;
	size_t size_at; /* of slot_count or data_bytes */
};

static const struct petal_spsc_geometry spsc = { .slot_count = 8,
						 .slot_bytes = 56 };
static const struct petal_mpmc_geometry mpmc = { .slot_count = 8,
						 .slot_bytes = 56,
						 .owners = 2 };
static const struct petal_mpsc_geometry mpsc = { .data_bytes = 4096,
						 .owners = 2 };
static const struct petal_pipe_geometry pipes = { .data_bytes = 4096 };
static const struct petal_bcast_geometry bcast = { .data_bytes = 4096,
						   .readers = 2 };

static uint64_t spsc_format(void *memory)
{
	assert_ok(petal_spsc_format(memory, &spsc));
	return petal_spsc_bytes(&spsc);
}

static int spsc_attach(void *memory, uint64_t bytes)
{
	struct petal_spsc ring;

	return petal_spsc_attach(memory, bytes, PETAL_SPSC_PRODUCER, &ring);
}

static void spsc_claim(void *memory, uint64_t bytes)
{
	struct petal_spsc ring;

	assert_ok(petal_spsc_attach(memory, bytes, PETAL_SPSC_PRODUCER, &ring));
	assert_true(petal_spsc_claim_n(&ring, UINT64_MAX) <= 8);
}

static uint64_t mpmc_format(void *memory)
{
	assert_ok(petal_mpmc_format(memory, &mpmc));
	return petal_mpmc_bytes(&mpmc);
}

static int mpmc_attach(void *memory, uint64_t bytes)
{
	struct petal_mpmc ring;

	return petal_mpmc_attach(memory, bytes, 0, &ring);
}

static uint64_t pipe_format(void *memory)
{
	assert_ok(petal_pipe_format(memory, &pipes));
	return petal_pipe_bytes(&pipes);
}

static int pipe_attach(void *memory, uint64_t bytes)
{
	struct petal_pipe ring;

	return petal_pipe_attach(memory, bytes, PETAL_PIPE_PRODUCER, &ring);
}

static void pipe_claim(void *memory, uint64_t bytes)
{
	struct petal_pipe ring;
	void *payload;

	assert_ok(petal_pipe_attach(memory, bytes, PETAL_PIPE_PRODUCER, &ring));
	assert_outcome(petal_pipe_claim(&ring, 4097, &payload), -EMSGSIZE);
	assert_outcome(petal_pipe_claim(&ring, UINT32_MAX, &payload),
		       -EMSGSIZE);
}

static uint64_t bcast_format(void *memory)
{
	assert_ok(petal_bcast_format(memory, &bcast));
	return petal_bcast_bytes(&bcast);
}

static int bcast_attach(void *memory, uint64_t bytes)
{
	struct petal_bcast ring;

	return petal_bcast_attach(memory, bytes, &ring);
}

static void bcast_claim(void *memory, uint64_t bytes)
{
	struct petal_bcast ring;
	void *payload;

	assert_ok(petal_bcast_attach(memory, bytes, &ring));
	assert_outcome(petal_bcast_claim(&ring, 4097, 1, &payload), -EMSGSIZE);
	assert_outcome(petal_bcast_claim(&ring, UINT32_MAX, 1, &payload),
		       -EMSGSIZE);
}

/* Its data follow its header here. */
static uint64_t mpsc_format(void *memory)
{
	assert_ok(petal_mpsc_format(memory, &mpsc));
	return petal_mpsc_bytes(&mpsc) + mpsc.data_bytes;
}

static int mpsc_open(void *memory, uint64_t bytes, struct petal_mpsc *ring)
{
	uint64_t header_bytes = petal_mpsc_bytes(&mpsc);

	return petal_mpsc_attach(memory, header_bytes,
				 (unsigned char *)memory + header_bytes,
				 bytes - header_bytes, 0, ring);
}

static int mpsc_attach(void *memory, uint64_t bytes)
{
	struct petal_mpsc ring;

	return mpsc_open(memory, bytes, &ring);
}

static void mpsc_claim(void *memory, uint64_t bytes)
{
	struct petal_mpsc_claim claim;
	struct petal_mpsc ring;

	assert_ok(mpsc_open(memory, bytes, &ring));
	assert_outcome(petal_mpsc_claim(&ring, 4097, &claim), -EMSGSIZE);
	assert_outcome(petal_mpsc_claim(&ring, UINT32_MAX, &claim), -EMSGSIZE);
	assert_outcome(petal_mpsc_claim_run(&ring, 64, UINT32_MAX, &claim),
		       -EMSGSIZE);
}

#define AT(ring, field) offsetof(struct petal_##ring##_shared, field)

/* A claim of mpmc's is of one slot; more than all are in mpmc_test.c. */
static const struct kind kinds[] = {
	{ "spsc", spsc_format, spsc_attach, spsc_claim, AT(spsc, layout),
	  AT(spsc, slot_count) },
	{ "mpmc", mpmc_format, mpmc_attach, NULL, AT(mpmc, layout),
	  AT(mpmc, slot_count) },
	{ "mpsc", mpsc_format, mpsc_attach, mpsc_claim, AT(mpsc, layout),
	  AT(mpsc, data_bytes) },
	{ "pipe", pipe_format, pipe_attach, pipe_claim, AT(pipe, layout),
	  AT(pipe, data_bytes) },
	{ "bcast", bcast_format, bcast_attach, bcast_claim, AT(bcast, layout),
	  AT(bcast, data_bytes) },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static unsigned char *map_ring(void)
{
	void *memory = mmap(NULL, BODY_BYTES, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

static void assert_lie(const struct kind *kind, unsigned char *memory,
		       uint64_t bytes, int outcome)
{
	static unsigned char before[BODY_BYTES];

	memcpy(before, memory, BODY_BYTES);
	if (kind->attach(memory, bytes) != outcome)
		print_error("%s:\n", kind->name);
	assert_outcome(kind->attach(memory, bytes), outcome);
	assert_memory_equal(before, memory, BODY_BYTES);
}

static void attach__each_ring_that_lies_has_its_own_error(void **state)
{
	static const uint64_t sizes[] = {
		0, 1, 12, UINT64_C(1) << 20, UINT64_C(1) << 63, UINT64_MAX
	};
	unsigned char *memory = map_ring();

	(void)state;
	for (unsigned i = 0; i < KINDS; i++) {
		const struct kind *kind = &kinds[i];
		uint64_t bytes = kind->format(memory);
		uint64_t size;

		assert_true(bytes <= BODY_BYTES);
		assert_ok(kind->attach(memory, bytes));
		assert_lie(kind, memory, bytes - 1, -PETAL_EGEOMETRY);
		memcpy(&size, memory + kind->size_at, 8);
		for (unsigned j = 0; j < sizeof(sizes) / 8; j++) {
			memcpy(memory + kind->size_at, &sizes[j], 8);
			assert_lie(kind, memory, bytes, -PETAL_EGEOMETRY);
		}
		memcpy(memory + kind->size_at, &size, 8);
		memory[kind->layout_at]++;
		assert_lie(kind, memory, bytes, -PETAL_EVERSION);
		memory[0]++;
		assert_lie(kind, memory, bytes, -EINVAL);
	}
	munmap(memory, BODY_BYTES);
}

static void claim__of_more_than_the_ring_changes_nothing(void **state)
{
	unsigned char *memory = map_ring();
	unsigned char *before = malloc(BODY_BYTES);

	(void)state;
	assert_non_null(before);
	for (unsigned i = 0; i < KINDS; i++) {
		uint64_t bytes = kinds[i].format(memory);

		if (!kinds[i].claim_too_much)
			continue;
		/* What an attach may write is not what is looked at. */
		assert_ok(kinds[i].attach(memory, bytes));
		memcpy(before, memory, BODY_BYTES);
		kinds[i].claim_too_much(memory, bytes);
		assert_memory_equal(before, memory, BODY_BYTES);
	}
	free(before);
	munmap(memory, BODY_BYTES);
}

/* ---- Refs. ---- */

static void resolve__each_wrong_ref_has_its_own_error(void **state)
{
	static const struct petal_ledger_geometry geometry = {
		.range_bytes = BODY_BYTES,
		.granule_bytes = 64,
		.entries = 4,
		.segment = 5,
	};
	unsigned char *range = map_ring(), *memory = map_ring();
	uint64_t bytes = petal_ledger_bytes(&geometry);
	struct petal_ref_table table = { 0 };
	struct petal_ledger ledger;
	struct petal_ref good;
	unsigned char *before = malloc(bytes);

	(void)state;
	assert_non_null(before);
	assert_ok(petal_ledger_format(memory, &geometry));
	assert_ok(petal_ledger_attach(memory, bytes, 0, &ledger));
	assert_ok(petal_ref_table_add(&table, range, BODY_BYTES, &ledger));
	assert_ok(petal_ledger_lend(&ledger, 0, 640, 64, &good));
	assert_ok(petal_ledger_drop(&ledger, good));
	petal_ledger_retire(&ledger, 0);
	assert_ok(petal_ledger_lend(&ledger, 0, 640, 64, &good));
	memcpy(before, memory, bytes);
	{
		const struct {
			struct petal_ref ref;
			uint64_t bytes;
			int outcome;
		} rows[] = {
			{ good, 64, 0 },
			{ { 0 }, 1, -EINVAL },
			{ petal_ref_make(6, 2, 640), 1, -ENXIO },
			{ petal_ref_make(5, 2, BODY_BYTES), 1, -ERANGE },
			{ good, BODY_BYTES, -ERANGE },
			{ good, UINT64_MAX, -ERANGE },
			{ good, 65, -ERANGE },
			{ petal_ref_make(5, 1, 640), 1, -ESTALE },
			{ petal_ref_make(5, 3, 640), 1, -ESTALE },
			{ petal_ref_make(5, 2, 704), 1, -ESTALE },
		};

		for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			void *pointer = NULL;

			assert_outcome(petal_ref_resolve(&table, rows[i].ref,
							 rows[i].bytes,
							 &pointer),
				       rows[i].outcome);
			assert_ptr_equal(pointer,
					 rows[i].outcome ? NULL : range + 640);
		}
	}
	assert_memory_equal(before, memory, bytes);
	free(before);
	munmap(memory, BODY_BYTES);
	munmap(range, BODY_BYTES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attach__each_wrong_segment_has_its_own_error),
		cmocka_unit_test(
			attach__what_is_not_even_a_file_has_its_own_error),
		cmocka_unit_test(open__each_missing_backing_has_its_own_error),
		cmocka_unit_test(attach__each_ring_that_lies_has_its_own_error),
		cmocka_unit_test(claim__of_more_than_the_ring_changes_nothing),
		cmocka_unit_test(resolve__each_wrong_ref_has_its_own_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
