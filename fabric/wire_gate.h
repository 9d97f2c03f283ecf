/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_WIRE_GATE_H
#define PETAL_FABRIC_WIRE_GATE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/**
 * DOC: wire_gate - strangers at the wire's door cost little and go soon
 *
 * libfabric's tcp provider accepts every TCP connection to the listening port
 * and waits for a connection request on it, inside fi_eq_read(). In 1.17 that
 * has three faults, each of which a stranger can use:
 *
 *    - the accepted socket blocks: whoever sends the 32 bytes of a request's
 *      header and not the private data that it announces stops the thread
 *      that called fi_eq_read(), for as long as he likes;
 *    - whoever sends nothing keeps a descriptor for ever;
 *    - fi_reject() answers a stranger.
 *
 * None of this can be configured, but all sockets that are at this stage are
 * listed, by the kernel, as members of the event queue's epoll descriptor:
 * /proc/self/fdinfo/FD. The gate reads that list before each fi_eq_read(), and
 * before each fi_trywait() on the queue, which does the same inside. It makes
 * what it finds non-blocking, keeps it by age, and shuts down what is too old
 * or too much. The provider then sees an end of file and cleans up.
 *
 * Always true: when fi_eq_read() runs, no half-open socket of the listening
 * port blocks, and at most WIRE_GATE_MAX of them are open, plus the one that
 * this very call accepts.
 *
 * The provider registers a socket in one call of fi_eq_read() and reads from
 * it in a later one, which is why looking in between is enough.
 *
 * A socket is identified by descriptor and inode together, since descriptors
 * are reused. The provider closes such a socket only inside fi_eq_read(), in
 * this thread, hence never between our look and our shutdown().
 *
 * Where the event queue holds no TCP listener (verbs), the gate finds nothing
 * and does nothing.
 *
 * Threads: that of the wire.
 */

/** Strangers kept waiting; the oldest makes room for the newest. */
#define WIRE_GATE_MAX 64

/** How long one may take to send its request. */
#define WIRE_GATE_NS UINT64_C(2000000000)

/**
 * struct wire_gate - the half-open connections
 * @list_fd: the kernel's list, opened once: at the limit of descriptors, when
 * strangers have taken them all, it could not be opened any more
 * @listen: where the wire listens
 * @visitors: the half-open sockets, and those that have just left the list
 * because their request is being judged
 * @count: how many of @visitors are in use
 * @expired: cut for age
 * @evicted: cut for number
 */
struct wire_gate {
	int list_fd;
	struct sockaddr_storage listen;
	struct wire_gate_visitor {
		int fd;
		bool listed;
		bool cut;
		uint64_t inode;
		uint64_t since_ns;
		struct sockaddr_storage from;
	} visitors[WIRE_GATE_MAX];
	unsigned count;
	uint64_t expired;
	uint64_t evicted;
};

/**
 * wire_gate_open() - watch the sockets of an event queue
 * @eq_fd: the event queue's epoll descriptor
 * @listen: where the wire listens
 * @ret_gate: the gate
 *
 * Return: 0; or the error of opening the list.
 */
int wire_gate_open(int eq_fd, const struct sockaddr *listen,
		   struct wire_gate *ret_gate);

/**
 * wire_gate_close() - stop watching
 * @gate: the gate
 */
void wire_gate_close(struct wire_gate *gate);

/**
 * wire_gate_sweep() - look who is at the door
 * @gate: the gate
 * @now_ns: CLOCK_MONOTONIC
 *
 * To be called before each fi_eq_read() that may find something.
 *
 * Return: 0; or the error of reading the list, and then fi_eq_read() is not
 * safe.
 */
int wire_gate_sweep(struct wire_gate *gate, uint64_t now_ns);

/**
 * wire_gate_cut() - close a connection without a word
 * @gate: the gate
 * @from: the address of the other side
 *
 * What is then sent on the socket goes nowhere; whoever owns it still closes
 * it.
 */
void wire_gate_cut(struct wire_gate *gate, const struct sockaddr *from);

/**
 * wire_gate_cut_all() - close every half-open connection
 * @gate: the gate, swept
 *
 * For the end: the provider forgets them when the event queue is closed, and
 * their descriptors with them.
 */
void wire_gate_cut_all(struct wire_gate *gate);

/**
 * wire_gate_deadline_ns() - when the next sweep has something to cut
 * @gate: the gate
 *
 * Return: CLOCK_MONOTONIC, or UINT64_MAX if nobody waits.
 */
uint64_t wire_gate_deadline_ns(const struct wire_gate *gate);

#endif
