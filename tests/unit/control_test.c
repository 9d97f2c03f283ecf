/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fabric/control.h promises, on a real SOCK_SEQPACKET pair: objects and
 * descriptors go over, garbage is refused, and no descriptor that a stranger
 * sends along stays open.
 */
#include "tests/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdalign.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fabric/control.h"

struct fixture {
	int ends[2];
	unsigned open_fds; /* when the test began */
};

static unsigned open_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
				    f->ends),
			 0);
	f->open_fds = open_fds();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(open_fds(), f->open_fds);
	close(f->ends[0]);
	close(f->ends[1]);
	free(f);
	return 0;
}

/* A packet as a stranger would make it. */
static void send_raw(struct fixture *f, const void *bytes, size_t length,
		     unsigned fd_count)
{
	alignas(struct cmsghdr) char space[CMSG_SPACE(16 * sizeof(int))] = { 0 };
	struct iovec piece = { (void *)(uintptr_t)bytes, length };
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
	struct cmsghdr *rights;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (fd_count > 0) {
		message.msg_control = space;
		message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		rights = CMSG_FIRSTHDR(&message);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		for (unsigned i = 0; i < fd_count; i++)
			memcpy(CMSG_DATA(rights) + i * sizeof(int), &fd,
			       sizeof(fd));
	}
	assert_int_equal(sendmsg(f->ends[0], &message, MSG_NOSIGNAL), length);
	close(fd);
}

static int receive(struct fixture *f, int *fds, unsigned fd_max)
{
	json_t *object = NULL;
	int err = petal_control_receive(f->ends[1], &object, fds, fd_max);

	if (err == 0)
		json_decref(object);
	return err;
}

static void send__object_and_descriptors_arrive(void **state)
{
	struct fixture *f = *state;
	json_t *object = json_pack("{s:s, s:i}", "op", "hello", "n", 7), *got;
	int fd = eventfd(3, EFD_CLOEXEC), fds[3];
	eventfd_t value;

	assert_ok(petal_control_send(f->ends[0], object, &fd, 1));
	close(fd);
	assert_ok(petal_control_receive(f->ends[1], &got, fds, 3));
	assert_true(json_equal(object, got));
	assert_true(fds[0] >= 0);
	assert_int_equal(fds[1], -1);
	assert_int_equal(fds[2], -1);
	assert_int_equal(fcntl(fds[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(eventfd_read(fds[0], &value), 0);
	assert_int_equal(value, 3);
	close(fds[0]);
	json_decref(object);
	json_decref(got);
}

static void receive__garbage_is_corrupt_and_the_socket_goes_on(void **state)
{
	static const char *const bad[] = {
		"{",
		"x",
		"[]",
		"7",
		"\"text\"",
		"{} {}",
		"{\"a\":1,\"a\":2}",
		"null",
		"{\"a\":1e999}",
		"{\"a\":\"\xff\"}",
		"{\"a\":\"\\u0000\"}",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		send_raw(f, bad[i], strlen(bad[i]), 0);
		assert_outcome(receive(f, NULL, 0), -PETAL_ECORRUPT);
	}
	send_raw(f, "{}", 2, 0);
	assert_ok(receive(f, NULL, 0));
}

static void receive__random_bytes_are_never_an_object(void **state)
{
	struct fixture *f = *state;
	uint64_t random = 3, bytes[64];

	for (unsigned n = 0; n < 2000; n++) {
		size_t length = 1 + petal_test_random(&random) % sizeof(bytes);

		for (unsigned i = 0; i < 64; i++)
			bytes[i] = petal_test_random(&random);
		send_raw(f, bytes, length, 0);
		assert_outcome(receive(f, NULL, 0), -PETAL_ECORRUPT);
	}
}

static void receive__deep_nesting_is_refused(void **state)
{
	struct fixture *f = *state;
	char *deep = malloc(PETAL_CONTROL_BYTES_MAX);

	memset(deep, '[', PETAL_CONTROL_BYTES_MAX);
	memcpy(deep, "{\"a\":", 5);
	send_raw(f, deep, PETAL_CONTROL_BYTES_MAX, 0);
	assert_outcome(receive(f, NULL, 0), -PETAL_ECORRUPT);
	free(deep);
}

static void
receive__longest_packet_is_taken_and_a_longer_one_refused(void **state)
{
	struct fixture *f = *state;
	char *text = malloc(PETAL_CONTROL_BYTES_MAX + 1);

	memset(text, ' ', PETAL_CONTROL_BYTES_MAX + 1);
	memcpy(text, "{}", 2);
	send_raw(f, text, PETAL_CONTROL_BYTES_MAX, 0);
	assert_ok(receive(f, NULL, 0));
	/* Cut to its length it would be an object: it must not be taken. */
	send_raw(f, text, PETAL_CONTROL_BYTES_MAX + 1, 0);
	assert_outcome(receive(f, NULL, 0), -PETAL_ECORRUPT);
	free(text);
}

static void send__object_that_is_too_long_is_refused(void **state)
{
	struct fixture *f = *state;
	char *text = malloc(PETAL_CONTROL_BYTES_MAX + 1);
	json_t *object;

	memset(text, 'x', PETAL_CONTROL_BYTES_MAX);
	text[PETAL_CONTROL_BYTES_MAX] = '\0';
	object = json_pack("{s:s}", "a", text);
	assert_outcome(petal_control_send(f->ends[0], object, NULL, 0),
		       -EMSGSIZE);
	json_decref(object);
	free(text);
}

static void receive__descriptors_not_asked_for_are_closed(void **state)
{
	struct fixture *f = *state;
	int fds[2];

	for (unsigned sent = 0; sent <= PETAL_CONTROL_FDS_MAX; sent++) {
		send_raw(f, "{}", 2, sent);
		assert_ok(receive(f, NULL, 0));
		assert_int_equal(open_fds(), f->open_fds);
	}
	send_raw(f, "{}", 2, 4);
	assert_ok(receive(f, fds, 2));
	assert_int_equal(open_fds(), f->open_fds + 2);
	close(fds[0]);
	close(fds[1]);
}

static void
receive__more_descriptors_than_any_packet_has_are_closed(void **state)
{
	struct fixture *f = *state;
	int fds[PETAL_CONTROL_FDS_MAX];

	send_raw(f, "{}", 2, 16);
	assert_ok(receive(f, fds, PETAL_CONTROL_FDS_MAX));
	for (unsigned i = 0; i < PETAL_CONTROL_FDS_MAX; i++)
		assert_int_equal(close(fds[i]), 0);
}

static void receive__descriptors_of_garbage_are_closed(void **state)
{
	struct fixture *f = *state;
	int fds[4] = { 5, 5, 5, 5 };

	send_raw(f, "nonsense", 8, 4);
	assert_outcome(receive(f, fds, 4), -PETAL_ECORRUPT);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fds[i], -1);
}

static void receive__descriptors_of_an_empty_packet_are_closed(void **state)
{
	struct fixture *f = *state;
	int fds[4] = { 5, 5, 5, 5 };

	send_raw(f, "", 0, 4);
	assert_true(receive(f, fds, 4) < 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fds[i], -1);
}

static void receive__nothing_there_is_eagain_and_the_end_is_epipe(void **state)
{
	struct fixture *f = *state;
	json_t *object = json_object();

	assert_int_equal(fcntl(f->ends[1], F_SETFL, O_NONBLOCK), 0);
	assert_outcome(receive(f, NULL, 0), -EAGAIN);
	assert_int_equal(shutdown(f->ends[0], SHUT_RDWR), 0);
	assert_outcome(receive(f, NULL, 0), -EPIPE);
	assert_outcome(petal_control_send(f->ends[1], object, NULL, 0), -EPIPE);
	json_decref(object);
}

static void send__full_socket_says_eagain(void **state)
{
	struct fixture *f = *state;
	json_t *object = json_object();
	unsigned sent = 0;
	int err;

	assert_int_equal(fcntl(f->ends[0], F_SETFL, O_NONBLOCK), 0);
	do {
		err = petal_control_send(f->ends[0], object, NULL, 0);
	} while (err == 0 && ++sent < 1000000);
	assert_outcome(err, -EAGAIN);
	for (; sent > 0; sent--)
		assert_ok(receive(f, NULL, 0));
	json_decref(object);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(send__object_and_descriptors_arrive),
		TEST(receive__garbage_is_corrupt_and_the_socket_goes_on),
		TEST(receive__random_bytes_are_never_an_object),
		TEST(receive__deep_nesting_is_refused),
		TEST(receive__longest_packet_is_taken_and_a_longer_one_refused),
		TEST(send__object_that_is_too_long_is_refused),
		TEST(receive__descriptors_not_asked_for_are_closed),
		TEST(receive__more_descriptors_than_any_packet_has_are_closed),
		TEST(receive__descriptors_of_garbage_are_closed),
		TEST(receive__descriptors_of_an_empty_packet_are_closed),
		TEST(receive__nothing_there_is_eagain_and_the_end_is_epipe),
		TEST(send__full_socket_says_eagain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
