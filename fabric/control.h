/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_CONTROL_H
#define PETAL_FABRIC_CONTROL_H

#include <jansson.h>

/**
 * DOC: control - the packets between petald and the processes of its host
 *
 * One JSON object per packet of a SOCK_SEQPACKET unix socket, with file
 * descriptors beside it (SCM_RIGHTS). Whatever comes in is bounded before it
 * is parsed; descriptors that were not asked for are closed.
 *
 * Threads: one per socket.
 */

#define PETAL_CONTROL_VERSION 1
#define PETAL_CONTROL_BYTES_MAX (160u << 10)
#define PETAL_CONTROL_FDS_MAX 4u

/**
 * petal_control_send() - send one object
 * @fds: descriptors to send along, may be NULL
 *
 * Return: 0; -EMSGSIZE; -EAGAIN when a non-blocking socket is full; -EPIPE when
 * the other end is gone.
 */
int petal_control_send(int fd, const json_t *object, const int *fds,
		       unsigned fd_count);

/**
 * petal_control_receive() - receive one object
 * @ret_fds: room for @fd_max descriptors, filled with -1 beyond those that came
 * @ret_object: to be released by json_decref()
 *
 * Return: 0; -EPIPE at the end, or for an empty packet; -EAGAIN when there is
 * none; -PETAL_ECORRUPT for a packet that is no JSON object, or too long. Then
 * no descriptor stays open.
 */
int petal_control_receive(int fd, json_t **ret_object, int *ret_fds,
			  unsigned fd_max);

#endif
