/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/fanout.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * ZeroMQ's publisher keeps a queue for each subscriber, bounded by the high
 * water mark, and drops what does not fit. With XPUB_NODROP it says EAGAIN
 * instead, which is the guarantee of our row that blocks.
 */

#if defined(FANOUT_HAVE_ZMQ)

#include <zmq.h>

/* As many messages as our ring holds. */
#define HIGH_WATER 13000
#define SETTLE_MS 5000

static char address[64];

/* Of the party that this process is. */
static struct {
	void *context;
	void *socket;
} own;

static int last_error(void)
{
	int err = zmq_errno();

	return err > 0 && err < 4096 ? -err : -EIO;
}

static int zmq_prepare(struct petal_flow_contender *who)
{
	static unsigned leg;

	(void)who;
	/* Abstract: nothing is left in a file system. */
	snprintf(address, sizeof(address), "ipc://@petalith-fanout-%d-%u",
		 (int)getpid(), leg++);
	return 0;
}

/* A subscriber that was not heard of yet would miss the first messages. */
static int wait_subscribers(void *socket, unsigned readers)
{
	const int patience_ms = SETTLE_MS;
	char byte[16];

	if (zmq_setsockopt(socket, ZMQ_RCVTIMEO, &patience_ms,
			   sizeof(patience_ms)))
		return last_error();
	for (unsigned i = 0; i < readers; i++)
		if (zmq_recv(socket, byte, sizeof(byte), 0) < 0)
			return last_error();
	return 0;
}

static int publish_all(void *socket, struct petal_flow_run *run)
{
	unsigned char message[FANOUT_BYTES];
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		petal_payload_fill(message, sizeof(message), sequence);
		if (zmq_send(socket, message, sizeof(message), 0) < 0) {
			if (zmq_errno() == EAGAIN)
				continue;
			return last_error();
		}
		petal_flow_count(run, 0, ++sequence);
	}
	return 0;
}

static int set_publisher(void *socket)
{
	const int water = HIGH_WATER, one = 1, none = 0, patience_ms = 20;

	/* VERBOSER: each subscription is a message, also a second of a kind. */
	if (zmq_setsockopt(socket, ZMQ_SNDHWM, &water, sizeof(water)) ||
	    zmq_setsockopt(socket, ZMQ_XPUB_NODROP, &one, sizeof(one)) ||
	    zmq_setsockopt(socket, ZMQ_XPUB_VERBOSER, &one, sizeof(one)) ||
	    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none)) ||
	    zmq_setsockopt(socket, ZMQ_SNDTIMEO, &patience_ms,
			   sizeof(patience_ms)) ||
	    zmq_bind(socket, address))
		return last_error();
	return 0;
}

static int zmq_produce(struct petal_flow_contender *who, unsigned index,
		       struct petal_flow_run *run)
{
	int err = publish_all(own.socket, run);

	(void)who;
	(void)index;
	zmq_close(own.socket);
	zmq_ctx_term(own.context);
	return err;
}

static int receive_all(void *socket, unsigned party, struct petal_flow_run *run)
{
	unsigned char message[FANOUT_BYTES];
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run)) {
		int got = zmq_recv(socket, message, sizeof(message), 0);

		if (got < 0 && zmq_errno() == EAGAIN)
			continue;
		if (got < 0)
			return last_error();
		if (got != (int)sizeof(message) ||
		    petal_payload_check(message, sizeof(message), sequence))
			return -EBADMSG;
		petal_flow_count(run, party, ++sequence);
	}
	return 0;
}

static int set_subscriber(void *socket)
{
	const int water = HIGH_WATER, none = 0, patience_ms = 20, again_ms = 1;

	/* All start at once, so the publisher may not be there yet. */
	if (zmq_setsockopt(socket, ZMQ_RECONNECT_IVL, &again_ms,
			   sizeof(again_ms)) ||
	    zmq_setsockopt(socket, ZMQ_RCVHWM, &water, sizeof(water)) ||
	    zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "", 0) ||
	    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none)) ||
	    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &patience_ms,
			   sizeof(patience_ms)) ||
	    zmq_connect(socket, address))
		return last_error();
	return 0;
}

static int zmq_consume(struct petal_flow_contender *who, unsigned index,
		       struct petal_flow_run *run)
{
	int err = receive_all(own.socket, petal_flow_consumer(who, index), run);

	zmq_close(own.socket);
	zmq_ctx_term(own.context);
	return err;
}

static int open_socket(int type)
{
	own.context = zmq_ctx_new();
	if (own.context)
		own.socket = zmq_socket(own.context, type);
	return own.socket ? 0 : last_error();
}

/*
 * Before the leg: with many parties on few CPUs it takes longer to be heard of
 * than a leg is long. Who fails ends its process, and all of this with it.
 */
static int zmq_join(struct petal_flow_contender *who, unsigned party,
		    struct petal_flow_run *run)
{
	bool publisher = party < who->producers;
	int err = open_socket(publisher ? ZMQ_XPUB : ZMQ_SUB);

	(void)run;
	if (err < 0)
		return err;
	if (!publisher)
		return set_subscriber(own.socket);
	err = set_publisher(own.socket);
	return err < 0 ? err : wait_subscribers(own.socket, who->consumers);
}

static const char *version(void)
{
	static char text[32];
	int major, minor, patch;

	zmq_version(&major, &minor, &patch);
	snprintf(text, sizeof(text), "libzmq %d.%d.%d", major, minor, patch);
	return text;
}

void fanout_peer_zmq(struct petal_flow_contender *ret_row, unsigned readers)
{
	*ret_row = (struct petal_flow_contender){
		.question = "block",
		.impl = "zmq-pubsub",
		.version = version(),
		.remark = "ipc, XPUB_NODROP, a thread of its own in each party",
		.wait = "sleep",
		.peer = true,
		.every = true,
		.bytes = FANOUT_BYTES,
		.producers = 1,
		.consumers = readers,
		.prepare = zmq_prepare,
		.join = zmq_join,
		.produce = zmq_produce,
		.consume = zmq_consume,
	};
}

#else

void fanout_peer_zmq(struct petal_flow_contender *ret_row, unsigned readers)
{
	*ret_row = (struct petal_flow_contender){
		.question = "block",
		.impl = "zmq-pubsub",
		.refusal = "built without libzmq3-dev",
		.wait = "sleep",
		.peer = true,
		.every = true,
		.bytes = FANOUT_BYTES,
		.producers = 1,
		.consumers = readers,
	};
}

#endif
