/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_ACTORS_PORT_H
#define PETAL_ACTORS_PORT_H

#include <stdint.h>

/**
 * DOC: port - how actors reach a ring without knowing where it is kept
 *
 * Actors never call the network. A worker, a clerk or a source is written
 * against this table; fabric/ring.h implements it on a replicated ring, and a
 * test may implement it on an array.
 *
 * Threads: one at a time per port.
 */

/* What an acknowledgement promises: which failures the record survives. */
enum petal_level {
	PETAL_LEVEL_NONE,  /* published; nobody has looked at it yet */
	PETAL_LEVEL_LOCAL, /* kill -9 of its producer */
	PETAL_LEVEL_MEM2,  /* loss of any one petal */
	PETAL_LEVEL_MEM3,  /* loss of any two petals */
	PETAL_LEVEL_DISK2, /* power loss everywhere, and of one disk */
	PETAL_LEVEL_DISK3, /* power loss everywhere, and of two disks */
	PETAL_LEVEL_COUNT,
};

/**
 * petal_level_name() - "none", "local", "mem2", "mem3", "disk2" or "disk3"
 */
const char *petal_level_name(enum petal_level level);

/**
 * petal_level_parse() - the level of a name
 *
 * Return: 0, or -EINVAL for any other text.
 */
int petal_level_parse(const char *name, enum petal_level *ret_level);

/* A leased message. bytes stay readable, in place, while the lease lasts. */
struct petal_message {
	const void *bytes;
	uint32_t length;
	uint32_t queue;
	uint64_t lsn;         /* of its record */
	uint64_t pos;         /* where that lies in the ring */
	uint32_t index;       /* within its record */
	uint32_t redelivered; /* how often it was handed out before */
	uint64_t ordinal;     /* the lease: which slot of the queue, */
	uint64_t lease;       /* and its state, owner and generation */
};

/* A message to put, in one piece. */
struct petal_output {
	uint32_t queue;
	uint32_t length;
	const void *bytes;
};

struct petal_port {
	/* Take one message under lease: 0; 1 when none came by the deadline. */
	int (*take)(void *self, uint32_t queue, uint64_t deadline_ns,
		    struct petal_message *ret_message);
	/*
	 * Acknowledge every input and put every output, all or nothing.
	 * -ESTALE when a lease is no longer ours: then nothing was put.
	 */
	int (*forward)(void *self, const struct petal_message *inputs,
		       unsigned input_count, const struct petal_output *outputs,
		       unsigned output_count, enum petal_level level,
		       uint64_t deadline_ns);
	/* Give a message back unfinished; it is handed out again. */
	int (*release)(void *self, const struct petal_message *message);
	/* Become the only taker of a queue; -EBUSY when there is another. */
	int (*own)(void *self, uint32_t queue);
};

#endif
