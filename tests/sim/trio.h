/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_SIM_TRIO_H
#define PETAL_TESTS_SIM_TRIO_H

#include <stdbool.h>
#include <stdint.h>

#include "actors/port.h"
#include "fabric/backup.h"
#include "fabric/primary.h"

/**
 * DOC: trio - one durable ring and its three members, in one process
 *
 *    actors --- log 0: primary ---- flights ----> log 1: backup
 *                  |        \  <--- of bytes ---  log 2: backup
 *                disk 0      `---------------->   disks 1, 2
 *
 * Real logs, the real primary and backups; what is fake is only what lies
 * behind their ports: a wire whose writes are under way until somebody delivers
 * them, whole or in pieces, in any order, or cuts the link; and disks whose
 * writes are under way until somebody ends them, well or badly.
 *
 * A write is one-sided as on a wire: its bytes are read from the primary's
 * memory when they are delivered, not when it was posted. A disk likewise, so
 * it notices when bytes change that it was given.
 *
 * Nothing happens by itself, and no clock is read: the same calls do the same.
 * Whatever is wrong ends the test by an assertion of cmocka.
 */

#define TRIO_FLIGHTS 64u
#define TRIO_LINES 1024u

enum trio_kind {
	TRIO_WRITE, /* records, to a backup */
	TRIO_ORDER, /* the orders line, to a backup */
	TRIO_START, /* the primary's answer to an offer */
	TRIO_ACK,   /* the acknowledgement line, to the primary */
	TRIO_ADMIT, /* the registry's answer */
	TRIO_KINDS,
};

struct trio_flight {
	bool used;
	bool landed;    /* all of it, and its completion is not told yet */
	bool scattered; /* lines arrive in any order, else bytes in theirs */
	enum trio_kind kind;
	bool told; /* a write whose end the primary hears of */
	unsigned member;
	uint64_t number; /* of a write */
	uint64_t pos;
	uint64_t length;
	uint64_t done; /* bytes */
	uint32_t inc;
	struct petal_record_cursor start;
	uint64_t whole_pos;
	bool exact;
	struct petal_sessions sessions;
	bool line_done[TRIO_LINES];
};

/* A batch as a journal gives it back. */
struct trio_batch {
	struct petal_record_cursor from;
	uint64_t to_pos;
	uint64_t trim_pos;
	uint8_t *bytes;
};

struct trio_disk {
	bool busy;
	bool failed; /* like a journal after an I/O error */
	bool full;   /* says -EAGAIN */
	struct petal_record_cursor from;
	struct petal_record_cursor to;
	uint64_t trim_pos;
	uint32_t crc; /* of what was given, when it was given */
	struct trio_batch *batches;
	unsigned batch_count;
	uint8_t *image; /* what was last written at each offset */
	uint64_t writes;
};

struct trio_member {
	struct petal_log log;
	struct petal_backup backup;
	bool linked;
	bool disk_votes;        /* holds what disk levels rest on */
	uint64_t ended_pos;     /* of the writes to it that are over */
	uint64_t disk_owes_pos; /* what a lost disk was counted for */
	uint32_t inc;           /* of its memory */
	uint32_t votes_as;      /* the incarnation that the registry counts */
};

struct trio {
	uint64_t random;
	uint64_t now_ns;
	uint64_t data_bytes;
	struct petal_log log;
	struct petal_primary primary;
	struct trio_disk disks[PETAL_LOG_MEMBERS];
	struct trio_member members[PETAL_LOG_MEMBERS]; /* [0] is not used */
	struct trio_flight flights[TRIO_FLIGHTS];
	bool hold[TRIO_KINDS][PETAL_LOG_MEMBERS]; /* trio_rest() keeps off */
	bool hold_disk[PETAL_LOG_MEMBERS];
	bool stream; /* no write is scattered */
	unsigned bad_acks;
	uint64_t writes;
	uint64_t signals;
	uint64_t levels[PETAL_LEVEL_COUNT]; /* at the last check */
	uint64_t sessions;
	int step; /* what the primary's last step returned */
};

struct trio_options {
	uint64_t seed;
	uint64_t data_bytes;
	uint32_t slots; /* of each of two queues */
	uint64_t lease_ns;
};

/**
 * trio_open() - a primary with EPOCH_START, and two backups not yet linked
 */
void trio_open(struct trio *t, const struct trio_options *options);
void trio_close(struct trio *t);

/* Links. */

/** trio_link() - a backup offers its log; false while its disk is busy */
bool trio_link(struct trio *t, unsigned member);

/** trio_cut() - the connection ends; what was under way stays where it is */
void trio_cut(struct trio *t, unsigned member);

/** trio_crash() - the backup's memory is lost, and its disk's too if so said */
void trio_crash(struct trio *t, unsigned member, bool restore);

/* One thing at a time. */
void trio_step(struct trio *t);
void trio_step_backup(struct trio *t, unsigned member);

/** trio_deliver() - some bytes of a flight; UINT64_MAX for all that is left */
void trio_deliver(struct trio *t, struct trio_flight *flight, uint64_t bytes);

/** trio_complete() - tell about a flight that has landed */
void trio_complete(struct trio *t, struct trio_flight *flight);

/** trio_find() - the oldest flight of a kind to or from a member, or NULL */
struct trio_flight *trio_find(struct trio *t, enum trio_kind kind,
			      unsigned member);

/** trio_disk_end() - a disk's write ends; false when there was none */
bool trio_disk_end(struct trio *t, unsigned member, int status);

/** trio_rest() - everything that is not held, until nothing moves any more */
void trio_rest(struct trio *t);

/* What must be true at any moment: see trio.c. */
void trio_check(struct trio *t);
void trio_check_bytes(struct trio *t);

uint64_t trio_level(const struct trio *t, enum petal_level level);

/* A local process with a producer's number. */
struct trio_actor {
	struct trio *trio;
	struct petal_log log;
	uint32_t owner;
	uint64_t session;
	uint64_t sequence;
};

/** trio_actor_open() - false when the number is not free yet */
bool trio_actor_open(struct trio *t, uint32_t owner, struct trio_actor *actor);

/** trio_actor_die() - proved dead, or it said goodbye */
void trio_actor_die(struct trio_actor *actor);

int trio_claim(struct trio_actor *actor, uint32_t length,
	       struct petal_mpsc_claim *ret_claim);
void *trio_payload(const struct petal_mpsc_claim *claim);

/** trio_publish() - as fabric/ring.c does it; returns the sequence */
uint64_t trio_publish(struct trio_actor *actor,
		      const struct petal_mpsc_claim *claim, uint32_t type,
		      uint32_t queue, uint32_t length);

/** trio_put() - claim, copy, publish; 0 when there is no room */
uint64_t trio_put(struct trio_actor *actor, uint32_t queue, const void *bytes,
		  uint32_t length);

/** trio_forward() - the same for a TXN */
uint64_t trio_forward(struct trio_actor *actor,
		      const struct petal_message *inputs, unsigned input_count,
		      const struct petal_output *outputs,
		      unsigned output_count);

/** trio_take() - 0, 1, or the queue's refusal */
int trio_take(struct trio_actor *actor, uint32_t queue,
	      struct petal_message *ret_message);

/** trio_outcome() - an lsn, 0 while undecided, or the refusal */
int64_t trio_outcome(const struct trio_actor *actor, uint64_t sequence);

#endif
