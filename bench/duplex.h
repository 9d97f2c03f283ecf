/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_DUPLEX_H
#define PETAL_BENCH_DUPLEX_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/contest.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: duplex - what others offer, as contenders of a contest
 *
 * Each transport is a table of five calls; here they become a contender whose
 * server echoes, with the payload filled and checked on both sides. Who cannot
 * tell sleeping from spinning calls ignores @spin and is measured as it is.
 *
 *    prepare        before the fork: what both sides inherit
 *    begin          on each side, after the fork; threads are allowed
 *    send, receive  a whole message; receive of nothing is -EAGAIN if @spin
 *    end            on each side; the client's also undoes prepare
 */
struct petal_duplex {
	const char *impl;
	const char *version; /* NULL: the kernel's */
	const char *remark;
	bool polls;       /* it cannot sleep; its server rests meanwhile */
	size_t bytes_max; /* of a message; 0: no limit of its own */
	int (*prepare)(struct petal_duplex *duplex);
	int (*begin)(struct petal_duplex *duplex, bool server);
	int (*send)(struct petal_duplex *duplex, const void *bytes,
		    size_t length, bool spin);
	int (*receive)(struct petal_duplex *duplex, void *bytes, size_t length,
		       bool spin);
	void (*end)(struct petal_duplex *duplex);
	char address[128]; /* a socket of its own, in a directory that goes */
	int fds[4];
	void *state[2];
	bool server;
	void *buffer;
	size_t bytes;
};

/**
 * petal_duplex_contender() - make a contender of a transport
 * @duplex: lives as long as the contender
 */
struct petal_contender petal_duplex_contender(struct petal_duplex *duplex);

/* What needs no library but libc. */
extern struct petal_duplex petal_duplex_pipe;
extern struct petal_duplex petal_duplex_mq;
extern struct petal_duplex petal_duplex_unix;
extern struct petal_duplex petal_duplex_tcp;

#ifdef __cplusplus
}
#endif

#endif
