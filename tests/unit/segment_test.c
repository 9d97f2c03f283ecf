/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Covers shm/segment.h: what a new segment promises (traps: SIGBUS by truncate,
 * by overcommit or for want of huge pages; fork of a process that holds one;
 * a reader that opens its fd again for writing), and that each thing which can
 * be wrong with a received fd has its own error.
 *
 * Huge pages are tried if the machine has a free one; to try them, run as root
 * with `echo 16 >/proc/sys/vm/nr_hugepages` and put back what was there.
 * PETAL_TEST_HARDER=100 tries half a million damaged headers.
 */
#include "tests/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "shm/crc32c.h"
#include "shm/segment.h"

#define BODY_BYTES 100000u
#define ALL_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static struct petal_segment open_segment(bool write_sealed)
{
	const struct petal_segment_options options = {
		.name = "petal-test",
		.body_bytes = BODY_BYTES,
		.write_sealed = write_sealed,
	};
	struct petal_segment segment;

	assert_ok(petal_segment_open(&options, &segment));
	return segment;
}

static int open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* Every test gives back each descriptor that it took, in failures too. */
static int count_before(void **state)
{
	*state = (void *)(intptr_t)open_descriptors();
	return 0;
}

static int count_after(void **state)
{
	assert_int_equal((intptr_t)*state, open_descriptors());
	return 0;
}

static int wait_status(pid_t child)
{
	int status;

	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

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

/* ---- What a new segment promises. ---- */

static void open__gives_a_zeroed_body_of_at_least_what_was_asked(void **state)
{
	struct petal_segment s = open_segment(false);
	unsigned char *body = petal_segment_body(&s);

	(void)state;
	assert_true(petal_segment_body_bytes(&s) >= BODY_BYTES);
	assert_int_equal(s.total_bytes % 4096, 0);
	assert_int_equal((uintptr_t)body % 4096, 0);
	assert_true(s.writable);
	for (uint64_t i = 0; i < petal_segment_body_bytes(&s); i++)
		assert_int_equal(body[i], 0);
	memset(body, 0xff, petal_segment_body_bytes(&s));
	petal_segment_close(&s);
}

static void open__seals_the_size_and_the_seals(void **state)
{
	struct petal_segment s = open_segment(false);
	int seals = fcntl(s.fd, F_GET_SEALS);

	(void)state;
	assert_int_equal(seals & ALL_SEALS, ALL_SEALS);
	assert_int_equal(seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE), 0);
	assert_int_equal(ftruncate(s.fd, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(s.fd, (off_t)s.total_bytes + 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(fcntl(s.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
	assert_int_equal(errno, EPERM);
	petal_segment_close(&s);
}

static void open__allocates_every_page_at_once(void **state)
{
	struct petal_segment s = open_segment(false);
	struct stat status;

	(void)state;
	assert_int_equal(fstat(s.fd, &status), 0);
	assert_int_equal(status.st_size, s.total_bytes);
	assert_true((uint64_t)status.st_blocks * 512 >= s.total_bytes);
	petal_segment_close(&s);
}

static void open__keeps_the_fd_from_programs_and_strangers(void **state)
{
	struct petal_segment s = open_segment(false);
	struct stat status;

	(void)state;
	assert_int_equal(fcntl(s.fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fstat(s.fd, &status), 0);
	assert_int_equal(status.st_mode & 07777, 0600);
	petal_segment_close(&s);
}

static void open__can_never_be_run_as_a_program(void **state)
{
	struct petal_segment s;
	int probe = memfd_create("probe", MFD_CLOEXEC | 0x0008U);

	(void)state;
	if (probe < 0) {
		print_message("no MFD_NOEXEC_SEAL before Linux 6.3\n");
		return;
	}
	close(probe);
	s = open_segment(false);
	assert_int_equal(fchmod(s.fd, 0700), -1);
	petal_segment_close(&s);
}

static void open__no_two_segments_have_one_generation(void **state)
{
	struct petal_segment a = open_segment(false);
	struct petal_segment b = open_segment(false);

	(void)state;
	assert_memory_not_equal(a.generation, b.generation,
				sizeof(a.generation));
	petal_segment_close(&a);
	petal_segment_close(&b);
}

static void open__refuses_options_that_make_no_sense(void **state)
{
	char long_name[PETAL_SEGMENT_NAME_MAX + 2];
	struct petal_segment_options o = { .name = "x", .body_bytes = 1 };
	struct petal_segment s = { .fd = -7 };

	(void)state;
	memset(long_name, 'n', sizeof(long_name));
	long_name[sizeof(long_name) - 1] = '\0';
	o.name = NULL;
	assert_outcome(petal_segment_open(&o, &s), -EINVAL);
	o.name = "";
	assert_outcome(petal_segment_open(&o, &s), -EINVAL);
	o.name = long_name;
	assert_outcome(petal_segment_open(&o, &s), -ENAMETOOLONG);
	o.name = "x";
	o.body_bytes = 0;
	assert_outcome(petal_segment_open(&o, &s), -EINVAL);
	o.body_bytes = UINT64_MAX;
	assert_outcome(petal_segment_open(&o, &s), -EFBIG);
	o.body_bytes = 1;
	o.huge = (enum petal_segment_huge)7;
	assert_outcome(petal_segment_open(&o, &s), -EINVAL);
	assert_int_equal(s.fd, -7);
}

static void open__more_than_the_machine_has_is_no_kill(void **state)
{
	struct petal_segment_options o = {
		.name = "petal-test",
		.body_bytes = UINT64_C(1) << 50,
	};
	struct petal_segment s;

	(void)state;
	assert_outcome(petal_segment_open(&o, &s), -ENOMEM);
	o.huge = PETAL_SEGMENT_HUGE_OFF;
	assert_outcome(petal_segment_open(&o, &s), -ENOMEM);
	o.huge = PETAL_SEGMENT_HUGE_REQUIRE;
	assert_outcome(petal_segment_open(&o, &s), -PETAL_EHUGEPAGES);
}

static void volunteer_for_the_kernels_killer(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "1000", 4) != 4)
		_exit(2);
	close(fd);
}

static void open__what_fits_addresses_but_not_memory_is_enomem(void **state)
{
	const struct petal_segment_options options = {
		.name = "petal-test",
		.body_bytes = UINT64_C(1) << 46,
		.huge = PETAL_SEGMENT_HUGE_OFF,
	};
	pid_t child = fork();

	(void)state;
	/* Should it be tried after all, let this child be who pays for it. */
	if (child == 0) {
		struct petal_segment s;

		volunteer_for_the_kernels_killer();
		_exit(petal_segment_open(&options, &s) != -ENOMEM);
	}
	assert_int_equal(wait_status(child), 0);
}

static void open__takes_huge_pages_or_says_that_it_did_not(void **state)
{
	struct petal_segment_options o = {
		.name = "petal-test",
		.body_bytes = 4u << 20,
	};
	bool huge = free_huge_pages() >= 3;
	struct petal_segment s;

	(void)state;
	print_message("free huge pages: %" PRIu64 "\n", free_huge_pages());
	assert_ok(petal_segment_open(&o, &s));
	assert_int_equal(s.pages, huge ? PETAL_SEGMENT_PAGES_HUGE_2M
				       : PETAL_SEGMENT_PAGES_PLAIN);
	memset(petal_segment_body(&s), 1, petal_segment_body_bytes(&s));
	petal_segment_close(&s);

	o.huge = PETAL_SEGMENT_HUGE_OFF;
	assert_ok(petal_segment_open(&o, &s));
	assert_int_equal(s.pages, PETAL_SEGMENT_PAGES_PLAIN);
	petal_segment_close(&s);

	o.huge = PETAL_SEGMENT_HUGE_REQUIRE;
	if (!huge) {
		assert_outcome(petal_segment_open(&o, &s), -PETAL_EHUGEPAGES);
		return;
	}
	assert_ok(petal_segment_open(&o, &s));
	assert_int_equal(s.total_bytes, 6u << 20);
	petal_segment_close(&s);
}

static void open__a_small_segment_does_not_waste_a_huge_page(void **state)
{
	struct petal_segment s = open_segment(false);

	(void)state;
	assert_int_equal(s.pages, PETAL_SEGMENT_PAGES_PLAIN);
	petal_segment_close(&s);
}

static void attach__to_huge_pages_works_and_refuses_a_hole(void **state)
{
	struct petal_segment_options o = {
		.name = "petal-test",
		.body_bytes = 3u << 20,
		.huge = PETAL_SEGMENT_HUGE_REQUIRE,
	};
	struct petal_segment a, b;

	(void)state;
	if (free_huge_pages() < 2) {
		print_message("no free huge pages, so not tried\n");
		return;
	}
	assert_ok(petal_segment_open(&o, &a));
	assert_ok(petal_segment_attach(a.fd, true, &b));
	assert_int_equal(b.pages, PETAL_SEGMENT_PAGES_HUGE_2M);
	strcpy(petal_segment_body(&a), "through");
	assert_string_equal(petal_segment_body(&b), "through");
	petal_segment_close(&b);
	assert_int_equal(fallocate(a.fd,
				   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   2 << 20, 2 << 20),
			 0);
	assert_outcome(petal_segment_attach(a.fd, false, &b), -ENODATA);
	petal_segment_close(&a);
}

static void close__twice_or_of_a_zeroed_one_does_nothing(void **state)
{
	struct petal_segment s = { 0 };

	(void)state;
	petal_segment_close(&s);
	assert_int_equal(fcntl(0, F_GETFD) == -1 && errno == EBADF, 0);
	s = open_segment(false);
	petal_segment_close(&s);
	petal_segment_close(&s);
}

static void pages_name__has_words_for_any_number(void **state)
{
	(void)state;
	assert_string_equal(petal_segment_pages_name(PETAL_SEGMENT_PAGES_PLAIN),
			    "plain pages");
	assert_string_equal(
		petal_segment_pages_name(PETAL_SEGMENT_PAGES_HUGE_2M),
		"huge pages of 2 MiB");
	assert_non_null(petal_segment_pages_name(0));
}

/* ---- Sharing. ---- */

static void attach__shows_the_same_bytes_and_identity(void **state)
{
	struct petal_segment a = open_segment(false);
	struct petal_segment b;

	(void)state;
	assert_ok(petal_segment_attach(a.fd, true, &b));
	assert_ptr_not_equal(a.base, b.base);
	assert_int_equal(b.total_bytes, a.total_bytes);
	assert_int_equal(b.pages, a.pages);
	assert_memory_equal(a.generation, b.generation, sizeof(a.generation));
	strcpy(petal_segment_body(&b), "written by b");
	assert_string_equal(petal_segment_body(&a), "written by b");
	petal_segment_close(&a);
	assert_string_equal(petal_segment_body(&b), "written by b");
	petal_segment_close(&b);
}

static void send_fd(int socket, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	char byte = 0;
	struct iovec data = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	assert_int_equal(sendmsg(socket, &message, 0), 1);
}

static int receive_fd(int socket)
{
	char control[CMSG_SPACE(sizeof(int))];
	char byte;
	struct iovec data = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	int fd;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

static void attach__works_in_a_process_that_was_sent_the_fd(void **state)
{
	struct petal_segment s;
	int ends[2];
	pid_t child;

	(void)state;
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	/* It is made after the fork, so only the message can bring it over. */
	child = fork();
	if (child == 0) {
		struct petal_segment theirs;
		int fd = receive_fd(ends[1]);

		if (petal_segment_attach(fd, true, &theirs))
			_exit(1);
		close(fd);
		strcpy(petal_segment_body(&theirs), "from the other process");
		petal_segment_close(&theirs);
		_exit(0);
	}
	s = open_segment(false);
	send_fd(ends[0], s.fd);
	assert_int_equal(wait_status(child), 0);
	assert_string_equal(petal_segment_body(&s), "from the other process");
	petal_segment_close(&s);
	close(ends[0]);
	close(ends[1]);
}

static void fork__child_shares_the_bytes_and_closes_on_its_own(void **state)
{
	struct petal_segment s = open_segment(false);
	pid_t child = fork();

	(void)state;
	if (child == 0) {
		strcpy(petal_segment_body(&s), "child");
		petal_segment_close(&s);
		_exit(0);
	}
	assert_int_equal(wait_status(child), 0);
	assert_string_equal(petal_segment_body(&s), "child");
	strcpy(petal_segment_body(&s), "parent");
	petal_segment_close(&s);
}

static void attach__read_only_mapping_cannot_be_stored_to(void **state)
{
	struct petal_segment s = open_segment(false);
	struct petal_segment reader;
	int status;
	pid_t child;

	(void)state;
	assert_ok(petal_segment_attach(s.fd, false, &reader));
	assert_false(reader.writable);
	child = fork();
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		*(volatile char *)petal_segment_body(&reader) = 1;
		_exit(0);
	}
	status = wait_status(child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
	petal_segment_close(&reader);
	petal_segment_close(&s);
}

/* ---- Those who would write though they may not. ---- */

static int reopen_for_writing(int fd)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

static void write_sealed__only_the_first_mapping_can_be_stored_to(void **state)
{
	struct petal_segment s = open_segment(true);
	struct petal_segment reader;
	int fd;

	(void)state;
	assert_outcome(petal_segment_attach(s.fd, true, &reader), -EROFS);
	assert_ok(petal_segment_attach(s.fd, false, &reader));
	strcpy(petal_segment_body(&s), "by its one writer");
	assert_string_equal(petal_segment_body(&reader), "by its one writer");

	fd = reopen_for_writing(reader.fd);
	if (fd >= 0) {
		assert_int_equal(pwrite(fd, "x", 1, 4096), -1);
		assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				      MAP_SHARED, fd, 0),
				 MAP_FAILED);
		close(fd);
	}
	assert_int_equal(mprotect(reader.base, 4096, PROT_READ | PROT_WRITE),
			 -1);
	petal_segment_close(&reader);
	petal_segment_close(&s);
}

static void write_sealed__nobody_can_punch_pages_out(void **state)
{
	struct petal_segment s = open_segment(true);

	(void)state;
	assert_int_equal(fallocate(s.fd,
				   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   4096, 4096),
			 -1);
	assert_int_equal(errno, EPERM);
	petal_segment_close(&s);
}

static void mode__another_user_cannot_open_a_read_only_fd_again(void **state)
{
	struct petal_segment s = open_segment(false);
	char path[48];
	pid_t child;
	int fd;

	(void)state;
	if (geteuid() != 0) {
		print_message("not root, so there is no other user to be\n");
		petal_segment_close(&s);
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s.fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	child = fork();
	if (child == 0) {
		if (setuid(65534))
			_exit(2);
		/* Or it would be /proc that refuses, and not the file. */
		prctl(PR_SET_DUMPABLE, 1);
		_exit(reopen_for_writing(fd) >= 0 || errno != EACCES);
	}
	assert_int_equal(wait_status(child), 0);
	close(fd);
	petal_segment_close(&s);
}

/* ---- What a received fd can be wrong in. ---- */

static struct petal_segment_header good_header(uint64_t total_bytes)
{
	struct petal_segment_header header = {
		.magic = PETAL_SEGMENT_MAGIC,
		.layout = PETAL_SEGMENT_LAYOUT,
		.header_bytes = 4096,
		.total_bytes = total_bytes,
		.pages = PETAL_SEGMENT_PAGES_PLAIN,
		.page_bytes = (uint32_t)sysconf(_SC_PAGESIZE),
		.fixed_bytes = total_bytes,
	};

	return header;
}

static void sign(struct petal_segment_header *header)
{
	header->header_crc = petal_crc32c(
		0, header, offsetof(struct petal_segment_header, header_crc));
}

/* A memfd of @bytes that begins with @header, with every page allocated. */
static int forge(const struct petal_segment_header *header, uint64_t bytes,
		 int seals)
{
	int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(fallocate(fd, 0, 0, (off_t)bytes), 0);
	/* What is allocated but was never touched may be told as a hole. */
	for (uint64_t at = 0; at < bytes; at += 4096)
		assert_int_equal(pwrite(fd, "", 1, (off_t)at), 1);
	assert_int_equal(pwrite(fd, header, sizeof(*header), 0),
			 sizeof(*header));
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void assert_attach(int fd, int expected)
{
	struct petal_segment s = { .fd = -7 };

	assert_true(fd >= 0);
	assert_outcome(petal_segment_attach(fd, false, &s), expected);
	if (expected == 0)
		petal_segment_close(&s);
	else
		assert_int_equal(s.fd, -7);
	close(fd);
}

static void assert_forged(const struct petal_segment_header *header,
			  uint64_t bytes, int expected)
{
	struct petal_segment_header copy = *header;

	sign(&copy);
	assert_attach(forge(&copy, bytes, ALL_SEALS), expected);
}

static void attach__a_forgery_without_fault_is_taken(void **state)
{
	struct petal_segment_header header = good_header(8192);
	struct petal_segment s;
	int fd;

	(void)state;
	/* So that the refusals below are for the fault that each one has. */
	sign(&header);
	fd = forge(&header, 8192, ALL_SEALS);
	assert_ok(petal_segment_attach(fd, true, &s));
	petal_segment_close(&s);
	close(fd);
}

static void attach__what_is_no_memfd_is_einval(void **state)
{
	char *dir = petal_test_tmpdir();
	char path[256];
	struct petal_segment s;
	int ends[2];

	(void)state;
	snprintf(path, sizeof(path), "%s/file", dir);
	assert_attach(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), -EINVAL);
	assert_attach(open(dir, O_RDONLY | O_CLOEXEC), -EINVAL);
	assert_attach(open("/dev/zero", O_RDWR | O_CLOEXEC), -EINVAL);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_attach(ends[0], -EINVAL);
	assert_attach(ends[1], -EINVAL);
	assert_attach(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), -EINVAL);
	assert_outcome(petal_segment_attach(-1, false, &s), -EBADF);
	petal_test_tmpdir_remove(dir);
}

static void attach__a_memfd_without_a_header_is_einval(void **state)
{
	struct petal_segment_header header = good_header(8192);
	int fd = memfd_create("empty", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	(void)state;
	assert_int_equal(fcntl(fd, F_ADD_SEALS, ALL_SEALS), 0);
	assert_attach(fd, -EINVAL);
	header.magic ^= 1;
	assert_forged(&header, 8192, -EINVAL);
}

static void attach__unsealed_is_eperm(void **state)
{
	struct petal_segment_header header = good_header(8192);

	(void)state;
	sign(&header);
	assert_attach(forge(&header, 8192, 0), -EPERM);
	assert_attach(forge(&header, 8192, F_SEAL_GROW | F_SEAL_SEAL), -EPERM);
}

static void attach__another_layout_is_eversion(void **state)
{
	struct petal_segment_header header = good_header(8192);

	(void)state;
	header.layout = PETAL_SEGMENT_LAYOUT + 1;
	assert_forged(&header, 8192, -PETAL_EVERSION);
	header.layout = 0;
	assert_forged(&header, 8192, -PETAL_EVERSION);
}

static void attach__damaged_or_reserved_is_ecorrupt(void **state)
{
	struct petal_segment_header header = good_header(8192);

	(void)state;
	sign(&header);
	header.generation[3] ^= 0x10;
	assert_attach(forge(&header, 8192, ALL_SEALS), -PETAL_ECORRUPT);
	header = good_header(8192);
	header.reserved[12] = 1;
	assert_forged(&header, 8192, -PETAL_ECORRUPT);
	header = good_header(8192);
	header.coherence = PETAL_SEGMENT_NONCOHERENT + 1;
	assert_forged(&header, 8192, -PETAL_ECORRUPT);
}

static void attach__sizes_that_lie_are_egeometry(void **state)
{
	struct petal_segment_header h = good_header(8192);

	(void)state;
	assert_forged(&h, 4096, -PETAL_EGEOMETRY);
	assert_forged(&h, 16384, -PETAL_EGEOMETRY);
	h = good_header(UINT64_MAX);
	assert_forged(&h, 8192, -PETAL_EGEOMETRY);
	h = good_header(4096);
	assert_forged(&h, 4096, -PETAL_EGEOMETRY);
	h = good_header(8200);
	assert_forged(&h, 8200, -PETAL_EGEOMETRY);
	h = good_header(8192);
	h.header_bytes = 64;
	assert_forged(&h, 8192, -PETAL_EGEOMETRY);
	h = good_header(8192);
	h.pages = PETAL_SEGMENT_PAGES_HUGE_2M;
	assert_forged(&h, 8192, -PETAL_EGEOMETRY);
	h = good_header(8192);
	h.page_bytes = 2u << 20;
	assert_forged(&h, 8192, -PETAL_EGEOMETRY);
	h = good_header(8192);
	h.backing = PETAL_SEGMENT_FILE;
	assert_forged(&h, 8192, -PETAL_EGEOMETRY);
	h = good_header(16384);
	h.fixed_bytes = 12288;
	assert_forged(&h, 16384, -PETAL_EGEOMETRY);
}

/* One that can grow: header, table, a page of body and four extents. */
static void attach__room_for_extents_that_lies_is_egeometry(void **state)
{
	struct petal_segment_header good = good_header(28672);
	struct petal_segment_header h;

	(void)state;
	good.header_bytes = 8192;
	good.fixed_bytes = 12288;
	good.extent_bytes = 4096;
	assert_forged(&good, 28672, 0);
	h = good;
	h.extent_bytes = 12288;
	assert_forged(&h, 28672, -PETAL_EGEOMETRY);
	h.extent_bytes = 2048;
	assert_forged(&h, 28672, -PETAL_EGEOMETRY);
	h.extent_bytes = UINT64_C(1) << 63;
	assert_forged(&h, 28672, -PETAL_EGEOMETRY);
	h = good;
	h.header_bytes = 4096;
	assert_forged(&h, 28672, -PETAL_EGEOMETRY);
	h = good;
	h.fixed_bytes = 28672;
	assert_forged(&h, 28672, -PETAL_EGEOMETRY);
	h.fixed_bytes = 8192;
	assert_forged(&h, 28672, -PETAL_EGEOMETRY);
	h.fixed_bytes = UINT64_MAX - 4095;
	assert_forged(&h, 28672, -PETAL_EGEOMETRY);
}

static void attach__a_hole_that_we_would_pay_for_is_enodata(void **state)
{
	uint64_t bytes = UINT64_C(64) << 20;
	struct petal_segment_header header = good_header(bytes);
	int fd = memfd_create("sparse", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	(void)state;
	sign(&header);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(pwrite(fd, &header, sizeof(header), 0),
			 sizeof(header));
	assert_int_equal(fcntl(fd, F_ADD_SEALS, ALL_SEALS), 0);
	assert_attach(fd, -ENODATA);
}

static void attach__a_punched_segment_is_enodata(void **state)
{
	struct petal_segment s = open_segment(false);
	struct petal_segment other;

	(void)state;
	((char *)petal_segment_body(&s))[0] = 'x';
	assert_int_equal(fallocate(s.fd,
				   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   4096, 4096),
			 0);
	assert_outcome(petal_segment_attach(s.fd, false, &other), -ENODATA);
	/* Who has mapped it before reads zeroes, and no signal comes. */
	assert_int_equal(((char *)petal_segment_body(&s))[0], 0);
	petal_segment_close(&s);
}

static void attach__for_writing_wants_an_fd_for_writing(void **state)
{
	struct petal_segment s = open_segment(false);
	struct petal_segment other;
	char path[48];
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s.fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_outcome(petal_segment_attach(fd, true, &other), -EACCES);
	assert_ok(petal_segment_attach(fd, false, &other));
	petal_segment_close(&other);
	close(fd);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_outcome(petal_segment_attach(fd, false, &other), -EBADF);
	close(fd);
	petal_segment_close(&s);
}

static void attach__any_flipped_bit_of_the_header_is_refused(void **state)
{
	struct petal_segment s = open_segment(false);
	struct petal_segment other;
	unsigned char *header = s.base;

	(void)state;
	for (size_t bit = 0; bit < 8 * sizeof(struct petal_segment_header);
	     bit++) {
		header[bit / 8] ^= (unsigned char)(1u << bit % 8);
		assert_true(petal_segment_attach(s.fd, true, &other) < 0);
		header[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	assert_ok(petal_segment_attach(s.fd, true, &other));
	petal_segment_close(&other);
	petal_segment_close(&s);
}

static void attach__a_signed_lie_never_exceeds_the_file(void **state)
{
	struct petal_segment s = open_segment(false);
	struct petal_segment_header *shared = s.base;
	struct petal_segment_header good = *shared;
	uint64_t seed = 3;

	(void)state;
	for (uint64_t i = petal_test_rounds(5000); i > 0; i--) {
		struct petal_segment_header lie = good;
		uint64_t r = petal_test_random(&seed);
		struct petal_segment other;

		((unsigned char *)&lie)[r % 124] = (unsigned char)(r >> 32);
		sign(&lie);
		*shared = lie;
		if (petal_segment_attach(s.fd, true, &other))
			continue;
		assert_int_equal(other.total_bytes, s.total_bytes);
		petal_segment_close(&other);
	}
	petal_segment_close(&s);
}

int main(void)
{
#define TEST(test) \
	cmocka_unit_test_setup_teardown(test, count_before, count_after)
	const struct CMUnitTest tests[] = {
		TEST(open__gives_a_zeroed_body_of_at_least_what_was_asked),
		TEST(open__seals_the_size_and_the_seals),
		TEST(open__allocates_every_page_at_once),
		TEST(open__keeps_the_fd_from_programs_and_strangers),
		TEST(open__can_never_be_run_as_a_program),
		TEST(open__no_two_segments_have_one_generation),
		TEST(open__refuses_options_that_make_no_sense),
		TEST(open__more_than_the_machine_has_is_no_kill),
		TEST(open__what_fits_addresses_but_not_memory_is_enomem),
		TEST(open__takes_huge_pages_or_says_that_it_did_not),
		TEST(open__a_small_segment_does_not_waste_a_huge_page),
		TEST(close__twice_or_of_a_zeroed_one_does_nothing),
		TEST(pages_name__has_words_for_any_number),
		TEST(attach__shows_the_same_bytes_and_identity),
		TEST(attach__works_in_a_process_that_was_sent_the_fd),
		TEST(attach__to_huge_pages_works_and_refuses_a_hole),
		TEST(attach__read_only_mapping_cannot_be_stored_to),
		TEST(fork__child_shares_the_bytes_and_closes_on_its_own),
		TEST(write_sealed__only_the_first_mapping_can_be_stored_to),
		TEST(write_sealed__nobody_can_punch_pages_out),
		TEST(mode__another_user_cannot_open_a_read_only_fd_again),
		TEST(attach__a_forgery_without_fault_is_taken),
		TEST(attach__what_is_no_memfd_is_einval),
		TEST(attach__a_memfd_without_a_header_is_einval),
		TEST(attach__unsealed_is_eperm),
		TEST(attach__another_layout_is_eversion),
		TEST(attach__damaged_or_reserved_is_ecorrupt),
		TEST(attach__sizes_that_lie_are_egeometry),
		TEST(attach__room_for_extents_that_lies_is_egeometry),
		TEST(attach__a_hole_that_we_would_pay_for_is_enodata),
		TEST(attach__a_punched_segment_is_enodata),
		TEST(attach__for_writing_wants_an_fd_for_writing),
		TEST(attach__any_flipped_bit_of_the_header_is_refused),
		TEST(attach__a_signed_lie_never_exceeds_the_file),
	};

	return cmocka_run_group_tests_name("segment", tests, NULL, NULL);
}
