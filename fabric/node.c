/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/node.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fabric/control.h"
#include "shm/clock.h"
#include "shm/error.h"

static int connect_to(const char *path)
{
	struct timeval limit = { .tv_sec = PETAL_NODE_REQUEST_NS / PETAL_S(1) };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, err;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* A node that is stopped neither accepts nor reads. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	close(fd);
	return err;
}

static int wait_answer(int fd, uint64_t end_ns)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	uint64_t now_ns;
	int n;

	do {
		now_ns = petal_clock_now_ns();
		if (now_ns >= end_ns)
			return -ETIMEDOUT;
		n = poll(&poll_fd, 1,
			 (int)((end_ns - now_ns) / PETAL_MS(1)) + 1);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == 0 ? -ETIMEDOUT : 0;
}

/* The node's own verdict, or what is wrong with the answer. */
static int judge(struct petal_node *node, json_t *answer)
{
	const char *message;

	if (!json_is_object(answer))
		return -PETAL_ECORRUPT;
	if (json_is_true(json_object_get(answer, "ok")))
		return 0;
	message = json_string_value(json_object_get(answer, "message"));
	snprintf(node->error, sizeof(node->error), "%s",
		 message == NULL ? "no reason given" : message);
	int err = (int)json_integer_value(json_object_get(answer, "error"));
	return err < 0 ? err : -PETAL_ECORRUPT;
}

static void close_all(int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

/* Whether it answers a request that was given up before. */
static bool is_late(const struct petal_node *node, const json_t *answer)
{
	const json_t *id = json_object_get(answer, "id");

	return id != NULL &&
	       (uint64_t)json_integer_value(id) != node->request_id;
}

static int receive_answer(struct petal_node *node, int *ret_fds,
			  unsigned fd_max, json_t **ret_answer)
{
	uint64_t end_ns = petal_clock_now_ns() + PETAL_NODE_REQUEST_NS;
	json_t *answer;
	int err;

	for (;;) {
		err = wait_answer(node->fd, end_ns);
		if (err == 0)
			err = petal_control_receive(node->fd, &answer, ret_fds,
						    fd_max);
		if (err < 0)
			return err;
		if (!is_late(node, answer))
			break;
		close_all(ret_fds, fd_max);
		json_decref(answer);
	}
	*ret_answer = answer;
	return 0;
}

int petal_node_request(struct petal_node *node, struct json_t *request,
		       int *ret_fds, unsigned fd_max,
		       struct json_t **ret_answer)
{
	json_t *answer;
	int err;

	node->error[0] = '\0';
	json_object_set_new(request, "id",
			    json_integer((json_int_t)++node->request_id));
	err = petal_control_send(node->fd, request, NULL, 0);
	if (err == -EAGAIN)
		err = -ETIMEDOUT;
	if (err == 0)
		err = receive_answer(node, ret_fds, fd_max, &answer);
	if (err < 0)
		return err;
	err = judge(node, answer);
	if (err < 0) {
		close_all(ret_fds, fd_max);
		json_decref(answer);
		return err;
	}
	*ret_answer = answer;
	return 0;
}

static int request_and_forget(struct petal_node *node, json_t *request)
{
	json_t *answer;
	int err;

	if (request == NULL)
		return -EINVAL; /* a name that is no text */
	err = petal_node_request(node, request, NULL, 0, &answer);
	json_decref(request);
	if (err == 0)
		json_decref(answer);
	return err;
}

static int hello(struct petal_node *node)
{
	json_t *request = json_pack("{s:s, s:i}", "op", "hello", "version",
				    PETAL_CONTROL_VERSION);
	const char *name;
	json_t *answer;
	int err;

	err = petal_node_request(node, request, NULL, 0, &answer);
	json_decref(request);
	if (err < 0)
		return err;
	node->id =
		(uint32_t)json_integer_value(json_object_get(answer, "node"));
	name = json_string_value(json_object_get(answer, "name"));
	snprintf(node->name, sizeof(node->name), "%s", name ? name : "?");
	json_decref(answer);
	return 0;
}

int petal_node_attach(const char *dir, struct petal_node *ret_node)
{
	struct petal_node node = { .fd = -1 };
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	int err;

	if (snprintf(path, sizeof(path), "%s/%s", dir, PETAL_NODE_SOCKET) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	node.fd = connect_to(path);
	if (node.fd < 0)
		return node.fd;
	err = hello(&node);
	if (err < 0) {
		close(node.fd);
		return err;
	}
	*ret_node = node;
	return 0;
}

void petal_node_detach(struct petal_node *node)
{
	close(node->fd);
	node->fd = -1;
}

int petal_ring_create(struct petal_node *node, const char *name,
		      uint64_t data_bytes,
		      const struct petal_node_queue *queues,
		      unsigned queue_count)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < queue_count; i++)
		json_array_append_new(
			list,
			json_pack("{s:s, s:I, s:I}", "name", queues[i].name,
				  "slots", (json_int_t)queues[i].slots,
				  "lease_ns", (json_int_t)queues[i].lease_ns));
	return request_and_forget(
		node, json_pack("{s:s, s:s, s:I, s:o}", "op", "ring-create",
				"name", name, "data_bytes",
				(json_int_t)data_bytes, "queues", list));
}

int petal_ring_delete(struct petal_node *node, const char *name)
{
	return request_and_forget(node, json_pack("{s:s, s:s}", "op",
						  "ring-delete", "name", name));
}

static int ask(struct petal_node *node, const char *op,
	       struct json_t **ret_answer)
{
	json_t *request = json_pack("{s:s}", "op", op);
	int err;

	if (request == NULL)
		return -ENOMEM;
	err = petal_node_request(node, request, NULL, 0, ret_answer);
	json_decref(request);
	return err;
}

int petal_ring_list(struct petal_node *node, struct json_t **ret_answer)
{
	return ask(node, "rings", ret_answer);
}

int petal_node_status(struct petal_node *node, struct json_t **ret_answer)
{
	return ask(node, "status", ret_answer);
}
