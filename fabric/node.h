/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_NODE_H
#define PETAL_FABRIC_NODE_H

#include <stdint.h>

#include "fabric/log.h"

/**
 * DOC: node - a process's connection to the petald of its host
 *
 * petal_node_attach() connects to the socket in the node's directory. Over it
 * go requests, a few in a process's life; records never do. When the process
 * dies, the node learns it from the kernel (a pidfd), repairs what it left in
 * its rings and hands its leases to others.
 *
 * Threads: one at a time per node. Requests block for at most
 * PETAL_NODE_REQUEST_NS.
 *
 * Fork: a child attaches anew; what it inherited belongs to the parent.
 */

#define PETAL_NODE_SOCKET "petald.sock"
#define PETAL_NODE_REQUEST_NS UINT64_C(10000000000)

struct petal_node {
	int fd;
	uint32_t id;
	uint64_t request_id; /* of the last request */
	char name[32];
	char error[512]; /* what the node said of the last refusal */
};

/**
 * petal_node_attach() - connect to the node whose directory this is
 * @dir: [petal] dir of its configuration
 *
 * Return: 0; -ENOENT or -ECONNREFUSED when no petald runs there; -EACCES;
 * -ETIMEDOUT; -PETAL_EVERSION when it speaks another version.
 */
int petal_node_attach(const char *dir, struct petal_node *ret_node);

/**
 * petal_node_detach() - say goodbye; every ring must have been closed
 */
void petal_node_detach(struct petal_node *node);

/**
 * petal_node_request() - ask the node something, in JSON
 * @request: {"op": ...}; petald(8) lists the operations. Gets an "id", by which
 *	an answer that comes after its request was given up is known and dropped
 * @ret_fds: room for @fd_max descriptors that come with the answer, or NULL
 * @ret_answer: the answer, an object, to be released by json_decref()
 *
 * Return: 0; the error that the node answered, and its sentence in
 * node->error; -ETIMEDOUT; -EPIPE when the node is gone; -PETAL_ECORRUPT for an
 * answer that is none.
 */
struct json_t;
int petal_node_request(struct petal_node *node, struct json_t *request,
		       int *ret_fds, unsigned fd_max,
		       struct json_t **ret_answer);

/* A queue of a ring that is to be made. */
struct petal_node_queue {
	const char *name;
	uint32_t slots; /* messages visible at a time; a power of two */
	uint64_t lease_ns;
};

/**
 * petal_ring_create() - make a durable ring, kept by three nodes
 * @name: 1 to 31 letters, digits, '-' or '_'
 * @data_bytes: memory for records on each member, a power of two
 * @queues: its queues, numbered from 1 in this order
 *
 * The node becomes the primary if it can.
 *
 * Return: 0; -EEXIST; -EINVAL; -EUSERS when there are as many rings as a node
 * keeps; -ENOMEM when it was made and the node had no memory for it (delete
 * it); -PETAL_ENOQUORUM when fewer than three nodes
 * are up; -ENOTUNIQ when they are not in three failure domains;
 * -PETAL_EUNKNOWN when the registry did not answer in time: list, then retry.
 */
int petal_ring_create(struct petal_node *node, const char *name,
		      uint64_t data_bytes,
		      const struct petal_node_queue *queues,
		      unsigned queue_count);

/**
 * petal_ring_delete() - forget a ring and everything in it, everywhere
 *
 * Return: 0; -ENOENT; -EBUSY while a process has it open here;
 * -PETAL_EUNKNOWN.
 */
int petal_ring_delete(struct petal_node *node, const char *name);

/**
 * petal_ring_list() - the rings of the cluster, as the node knows them
 * @ret_answer: {"rings": [{"name", "primary", "members", ...}]}
 */
int petal_ring_list(struct petal_node *node, struct json_t **ret_answer);

/**
 * petal_node_status() - everything that the node counts
 * @ret_answer: see petald(8)
 */
int petal_node_status(struct petal_node *node, struct json_t **ret_answer);

#endif
