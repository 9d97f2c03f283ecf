/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_SIM_HEIRS_PRIVATE_H
#define PETAL_TESTS_SIM_HEIRS_PRIVATE_H

#include "tests/sim/heirs.h"

#include "tests/check.h"

#include "shm/clock.h"

/**
 * DOC: heirs, inside
 *
 *    heirs.c          the registry, and what petald does for its ring
 *    heirs_wire.c     messages, one-sided writes, and what cuts or crashes them
 *    heirs_history.c  who puts and takes, what goes wrong, and the end
 */

#define DATA_BYTES UINT64_C(65536)
#define SLOTS 64u
#define FLIGHTS 128u
#define LINKS 64u /* messages under way on one */
#define NUMBERS 20000u
#define LSNS 200000u
#define WINDOW 16u
#define LEASE_NS PETAL_MS(50)
#define NOTES 2048u

enum role { NONE, PRIMARY, BACKUP, HEIR };

struct config {
	uint64_t version;
	uint32_t epoch;
	unsigned primary;
	bool recovering;
	struct petal_record_cursor sealed;
	uint32_t incs[HEIRS_MEMBERS];
};

/* A record that was accepted. */
struct note {
	uint64_t lsn, end_pos, number, acks_lsn;
	uint32_t crc;
};

struct slot {
	uint64_t generation; /* 0: free */
	unsigned member;
	struct config config;
	enum role role;
	struct petal_log log;
	bool has_log;
	struct petal_primary primary;
	struct petal_backup backup;
	struct petal_failover failover;
	struct slot *older;
	struct petal_record_cursor sealed;
	struct petal_record_cursor fenced_end;
	bool fenced;
	uint64_t keys[HEIRS_MEMBERS]; /* generation of their slots */
	struct note notes[NOTES];     /* accepted, and not committed yet */
	uint64_t note_first, note_count, noted_pos;
	uint64_t sessions;
};

enum message_type { OFFER, START, SUSPECT, FENCE, FENCED, CALL };

struct message {
	enum message_type type;
	uint32_t epoch;
	uint32_t inc; /* of the sender */
	uint64_t generation;
	bool exact, counts;
	uint64_t whole_pos;
	struct petal_record_cursor at, offered;
	struct config config;
	struct petal_sessions sessions;
};

struct link {
	bool up;
	struct message at[LINKS];
	unsigned first, count;
};

enum flight_kind { WRITE, ORDER, ACK };

struct flight {
	bool used;
	enum flight_kind kind;
	unsigned from, to;
	uint64_t from_generation, to_generation;
	uint64_t pos, length, done;
	uint64_t number; /* of a write */
	bool told;       /* its end is heard of */
	unsigned line;   /* of an ack */
};

struct member {
	bool stopped;
	uint32_t inc;
	uint32_t promise;
	struct config known;
	struct slot *current;
	bool journal_busy;
	uint64_t journal_end;
	unsigned epoch_seen;
};

/* Who puts and takes, beside whichever primary is open. */
struct client {
	struct petal_log log;
	uint64_t slot_generation; /* 0: closed */
	uint32_t owner;
	uint64_t session, sequence;
};

struct put {
	uint64_t number, session, sequence, end_pos;
};

struct heirs {
	uint64_t random, seed, now_ns;
	uint64_t step;
	uint64_t generations;
	uint64_t writes; /* of all slots */
	struct config registry;
	struct member members[HEIRS_MEMBERS];
	struct slot slots[SLOTS];
	struct flight flights[FLIGHTS];
	struct link links[HEIRS_MEMBERS][HEIRS_MEMBERS]; /* from, to */
	struct client producer, taker;
	struct put window[WINDOW];
	unsigned window_count;
	uint64_t next_number;
	uint64_t resend[WINDOW];
	unsigned resend_count;
	bool quiet; /* nothing new is put */
	/* What was committed, once and for all. */
	uint32_t committed_crc[LSNS];
	uint32_t lsn_of[NUMBERS];
	uint8_t done[LSNS];
	uint32_t sealed_by[4096]; /* per epoch: lsn + 1 */
	uint8_t primary_of[4096]; /* per epoch: member + 1 */
	struct heirs_counts *counts;
};

#define HEIRS_ASSERT(h, condition)                                          \
	do {                                                                \
		if (!(condition))                                           \
			fail_msg("seed %llu step %llu: %s (line %d)",       \
				 (unsigned long long)(h)->seed,             \
				 (unsigned long long)(h)->step, #condition, \
				 __LINE__);                                 \
	} while (0)

static inline uint64_t dice(struct heirs *h, uint64_t sides)
{
	return petal_test_random(&h->random) % sides;
}

extern struct heirs *heirs_current; /* ports know their slot, and this */

struct slot *heirs_slot_of(struct heirs *h, uint64_t generation);
void heirs_slot_free(struct slot *s);
struct message *heirs_send(struct heirs *h, unsigned from, unsigned to,
			   enum message_type type, uint32_t epoch);
void heirs_learn(struct heirs *h, unsigned i, const struct config *config);
struct slot *heirs_speaker_of(struct slot *s);
void heirs_answer_fence(struct heirs *h, unsigned i, unsigned to,
			uint32_t epoch);
void heirs_step_member(struct heirs *h, unsigned i);
void heirs_commit_new(struct heirs *h, struct slot *s);
void heirs_deliver_message(struct heirs *h);
void heirs_fly_some(struct heirs *h);
void heirs_cut(struct heirs *h, unsigned a, unsigned b);
void heirs_mend(struct heirs *h, unsigned a, unsigned b);
void heirs_crash(struct heirs *h, unsigned i);
bool heirs_may_crash(struct heirs *h, unsigned i);
void heirs_journal_ends(struct heirs *h, unsigned i);

#endif
