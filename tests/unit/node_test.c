/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process's connection to its node: who is there, what a refusal leaves, and
 * answers that come too late. The node's end is played by a thread that speaks
 * fabric/control.h; the real one is in system/durable.sh.
 */
#include "tests/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "fabric/control.h"
#include "fabric/node.h"

struct fixture {
	char *dir;
	int listen_fd;
	pthread_t thread;
	/* What the node does with the request that follows the hello. */
	void (*_Atomic act)(int fd, json_int_t id);
};

static void answer(int fd, json_t *object, const int *fds, unsigned count)
{
	assert_ok(petal_control_send(fd, object, fds, count));
	json_decref(object);
}

static void *node_main(void *arg)
{
	struct fixture *f = arg;
	json_t *request;
	json_int_t id;
	int fd = accept(f->listen_fd, NULL, NULL);

	for (unsigned n = 0; petal_control_receive(fd, &request, NULL, 0) == 0;
	     n++) {
		id = json_integer_value(json_object_get(request, "id"));
		json_decref(request);
		if (n == 0)
			answer(fd,
			       json_pack("{s:b, s:i, s:s, s:I}", "ok", 1,
					 "node", 7, "name", "seven", "id", id),
			       NULL, 0);
		else
			f->act(fd, id);
	}
	close(fd);
	return NULL;
}

static int set_up(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct fixture *f = calloc(1, sizeof(*f));

	f->dir = petal_test_tmpdir();
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", f->dir,
		 PETAL_NODE_SOCKET);
	f->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listen_fd, (struct sockaddr *)&address,
			      sizeof(address)),
			 0);
	assert_int_equal(listen(f->listen_fd, 1), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	close(f->listen_fd);
	petal_test_tmpdir_remove(f->dir);
	free(f);
	return 0;
}

static void start(struct fixture *f, void (*act)(int fd, json_int_t id),
		  struct petal_node *node)
{
	f->act = act;
	assert_int_equal(pthread_create(&f->thread, NULL, node_main, f), 0);
	assert_ok(petal_node_attach(f->dir, node));
}

static void finish(struct fixture *f, struct petal_node *node)
{
	petal_node_detach(node);
	pthread_join(f->thread, NULL);
}

static unsigned open_fds(void)
{
	DIR *list = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(list) != NULL)
		count++;
	closedir(list);
	return count;
}

static void agree(int fd, json_int_t id)
{
	answer(fd, json_pack("{s:b, s:I, s:[]}", "ok", 1, "id", id, "rings"),
	       NULL, 0);
}

static void refuse(int fd, json_int_t id)
{
	answer(fd,
	       json_pack("{s:b, s:i, s:s, s:I}", "ok", 0, "error", -EEXIST,
			 "message", "it is there", "id", id),
	       NULL, 0);
}

/* The answer of a request that was given up, with a descriptor, comes first. */
static void answer_late_then_refuse(int fd, json_int_t id)
{
	int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	answer(fd, json_pack("{s:b, s:I}", "ok", 1, "id", id - 1), &null_fd, 1);
	close(null_fd);
	refuse(fd, id);
}

static void answer_no_verdict(int fd, json_int_t id)
{
	answer(fd, json_pack("{s:I}", "id", id), NULL, 0);
}

static void hang_up(int fd, json_int_t id)
{
	(void)id;
	shutdown(fd, SHUT_RDWR);
}

static void attach__says_who_is_there(void **state)
{
	struct fixture *f = *state;
	struct petal_node node;
	json_t *rings;

	start(f, agree, &node);
	assert_int_equal(node.id, 7);
	assert_string_equal(node.name, "seven");
	assert_ok(petal_ring_list(&node, &rings));
	assert_int_equal(json_array_size(json_object_get(rings, "rings")), 0);
	json_decref(rings);
	finish(f, &node);
}

static void attach__nobody_there_is_an_error_and_writes_nothing(void **state)
{
	struct fixture *f = *state;
	struct petal_node node = { .id = 99 };
	char path[200];

	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_outcome(petal_node_attach(path, &node), -ENAMETOOLONG);
	assert_outcome(petal_node_attach("/nowhere", &node), -ENOENT);
	close(f->listen_fd);
	f->listen_fd = -1;
	assert_outcome(petal_node_attach(f->dir, &node), -ECONNREFUSED);
	assert_int_equal(node.id, 99);
}

static void request__refusal_leaves_the_sentence_until_the_next(void **state)
{
	struct fixture *f = *state;
	struct petal_node node;
	json_t *rings;

	start(f, refuse, &node);
	assert_outcome(petal_ring_delete(&node, "ring"), -EEXIST);
	assert_string_equal(node.error, "it is there");
	f->act = agree; /* the node waits for a request now */
	assert_ok(petal_ring_list(&node, &rings));
	assert_string_equal(node.error, "");
	json_decref(rings);
	finish(f, &node);
}

static void request__late_answer_is_not_taken_for_this_ones(void **state)
{
	struct fixture *f = *state;
	struct petal_node node;
	unsigned before;

	start(f, answer_late_then_refuse, &node);
	before = open_fds();
	assert_outcome(petal_ring_create(&node, "ring", 1 << 16, NULL, 0),
		       -EEXIST);
	assert_outcome(petal_ring_delete(&node, "ring"), -EEXIST);
	assert_int_equal(open_fds(), before);
	finish(f, &node);
}

static void request__answer_without_a_verdict_is_corrupt(void **state)
{
	struct fixture *f = *state;
	struct petal_node node;

	start(f, answer_no_verdict, &node);
	assert_outcome(petal_ring_delete(&node, "ring"), -PETAL_ECORRUPT);
	finish(f, &node);
}

static void request__node_that_hangs_up_is_a_broken_pipe(void **state)
{
	struct fixture *f = *state;
	struct petal_node node;

	start(f, hang_up, &node);
	assert_outcome(petal_ring_delete(&node, "ring"), -EPIPE);
	assert_outcome(petal_ring_delete(&node, "ring"), -EPIPE);
	finish(f, &node);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(attach__says_who_is_there),
		TEST(attach__nobody_there_is_an_error_and_writes_nothing),
		TEST(request__refusal_leaves_the_sentence_until_the_next),
		TEST(request__late_answer_is_not_taken_for_this_ones),
		TEST(request__answer_without_a_verdict_is_corrupt),
		TEST(request__node_that_hangs_up_is_a_broken_pipe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
