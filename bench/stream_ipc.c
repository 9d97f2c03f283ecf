/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transports of rtt (duplex.h), one way only. The consumer is their server,
 * and begins first. Who sends may be in the kernel's hands when the leg ends,
 * so the consumer reads on until the producer has said that it is done.
 */
#include "bench/stream.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "bench/duplex.h"

#define STREAM_IPC_BYTES_MAX 65536u

/* NULL where the build has left its file out. */
extern struct petal_duplex petal_duplex_ofi __attribute__((weak));
extern struct petal_duplex petal_duplex_ucx __attribute__((weak));
extern struct petal_duplex petal_duplex_zmq __attribute__((weak));

static const struct {
	struct petal_duplex *duplex;
	const char *impl;
	const char *refusal;
} transports[STREAM_IPC] = {
	{ &petal_duplex_unix, "af_unix", NULL },
	{ &petal_duplex_tcp, "tcp", NULL },
	{ &petal_duplex_pipe, "pipe", NULL },
	{ &petal_duplex_zmq, "zeromq", "built without libzmq3-dev" },
	{ &petal_duplex_ucx, "ucx-shm", "built without libucx-dev" },
	{ &petal_duplex_ofi, "libfabric-shm", "built without libfabric-dev" },
};

/*
 * Shared by both sides.
 *
 * [BEGUN] the server stores begun (release) -> the client loads it (acquire):
 *	   whom it connects to is there
 */
struct stage {
	struct petal_u32 begun;
	struct petal_u32 done;
};

static int ipc_prepare(struct petal_flow_contender *who)
{
	static unsigned leg;
	struct petal_duplex *duplex = who->arg;
	int err = petal_flow_map(who, sizeof(struct stage));

	duplex->bytes = who->bytes;
	snprintf(duplex->address, sizeof(duplex->address),
		 "petal-stream-%ld-%u-%s", (long)getpid(), leg++, duplex->impl);
	if (err == 0 && duplex->prepare)
		err = duplex->prepare(duplex);
	if (duplex->version)
		who->version = duplex->version;
	return err;
}

static int ipc_join(struct petal_flow_contender *who, unsigned party,
		    struct petal_flow_run *run)
{
	const struct timespec step = { .tv_nsec = 100000 };
	struct petal_duplex *duplex = who->arg;
	struct stage *stage = who->memory;
	int err;

	duplex->server = party >= who->producers;
	/* [BEGUN] Acquire: the server can be found. */
	while (!duplex->server &&
	       !petal_load(&stage->begun, PETAL_ACQUIRE(BEGUN)))
		if (petal_flow_is_over(run))
			return -ETIMEDOUT;
		else
			nanosleep(&step, NULL);
	err = duplex->begin ? duplex->begin(duplex, duplex->server) : 0;
	/* [BEGUN] Release: we can be found. */
	if (err == 0 && duplex->server)
		petal_store(&stage->begun, 1, PETAL_RELEASE(BEGUN));
	return err;
}

static bool is_later(int err)
{
	return err == -EAGAIN || err == -EINTR || err == -ENOBUFS;
}

static int ipc_produce(struct petal_flow_contender *who, unsigned index,
		       struct petal_flow_run *run)
{
	static uint8_t message[STREAM_IPC_BYTES_MAX];
	struct petal_duplex *duplex = who->arg;
	struct stage *stage = who->memory;
	uint64_t sequence = 0;
	int err = 0;

	(void)index;
	while (!petal_flow_is_over(run)) {
		petal_payload_fill(message, who->bytes, sequence);
		do
			err = duplex->send(duplex, message, who->bytes, true);
		while (is_later(err) && !petal_flow_is_over(run));
		if (err)
			break;
		if (++sequence % STREAM_REPORT == 0)
			petal_flow_count(run, 0, sequence);
	}
	petal_store(&stage->done, 1, PETAL_RELAXED);
	return is_later(err) ? 0 : err;
}

static int ipc_consume(struct petal_flow_contender *who, unsigned index,
		       struct petal_flow_run *run)
{
	static uint8_t message[STREAM_IPC_BYTES_MAX];
	struct petal_duplex *duplex = who->arg;
	struct stage *stage = who->memory;
	unsigned party = petal_flow_consumer(who, index);
	uint64_t sequence = 0;

	while (!petal_flow_is_over(run) ||
	       !petal_load(&stage->done, PETAL_RELAXED)) {
		int err = duplex->receive(duplex, message, who->bytes, true);

		if (is_later(err)) {
			petal_flow_relax(run);
			continue;
		}
		/* The producer has left, and what was on its way with it. */
		if (err < 0 && petal_load(&stage->done, PETAL_RELAXED))
			return 0;
		if (err < 0)
			return err;
		if (petal_payload_check(message, who->bytes, sequence) < 0)
			return -EBADMSG;
		if (++sequence % STREAM_REPORT == 0)
			petal_flow_count(run, party, sequence);
	}
	return 0;
}

/* Nothing was begun here, but what both have inherited is to be undone. */
static void ipc_close(struct petal_flow_contender *who)
{
	struct petal_duplex *duplex = who->arg;

	if (duplex->end)
		duplex->end(duplex);
}

void stream_peer_ipc(struct petal_flow_contender *ret_row, unsigned which,
		     uint64_t bytes)
{
	struct petal_duplex *duplex = transports[which].duplex;

	*ret_row = (struct petal_flow_contender){
		.impl = transports[which].impl,
		.version = duplex ? duplex->version : NULL,
		.remark = duplex && duplex->remark
				  ? duplex->remark
				  : "copied in and out, one message a call",
		.refusal = duplex ? NULL : transports[which].refusal,
		.peer = true,
		.bytes = bytes,
		.producers = 1,
		.consumers = 1,
		.prepare = ipc_prepare,
		.join = ipc_join,
		.produce = ipc_produce,
		.consume = ipc_consume,
		.close = ipc_close,
		.arg = duplex,
	};
}
