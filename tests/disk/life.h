/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_DISK_LIFE_H
#define PETAL_TESTS_DISK_LIFE_H

/**
 * DOC: life - a journal at work, and what must be remembered of it
 *
 * A life opens a journal, appends what chance says, and keeps its own list of
 * all batches: what was appended, what was reported as durable, and what was
 * given up again. life_open() judges a replay by that list. Bytes are a
 * function of ring, version and position, so that the list holds none.
 *
 * Who may run together: nothing; one thread.
 */

#include "fabric/journal_private.h"
#include "tests/disk/platter.h"
#include "tests/disk/recorder.h"

enum {
	LIFE_BYTES = 1 << 20,
	LIFE_RINGS = 3,
	LIFE_DATA_BYTES = 1 << 18,
	LIFE_BATCHES_MAX = 4096,
	SECTOR = 512,
	LIFE_SECTORS = LIFE_BYTES / SECTOR,
};

/** struct life_batch - one that is in the chain, or a note */
struct life_batch {
	struct petal_journal_range range;
	/** @version: of the bytes; a retry after a crash may have others. */
	uint32_t version;
	bool note;
	/** @freed: trimmed, or its ring was detached: it may be gone. */
	bool freed;
	uint64_t sequence;
	uint64_t offset;
	uint64_t bytes;
	uint64_t durable_upto;
	uint64_t oldest_needed;
};

struct life_ring {
	uint64_t id;
	uint64_t pos;
	uint64_t lsn;
	uint64_t trimmed;
	uint32_t version;
	uint32_t epoch;
	/** @busy: a batch is in flight. */
	bool busy;
};

/** struct life_style - what chance chooses from */
struct life_style {
	/** @length_min: of a range, in units of @length_unit. */
	uint64_t length_min;
	uint64_t length_max;
	uint64_t length_unit;
	unsigned int rings;
	unsigned int flying_max;
	/** @trim_share: of how many acts one trims. */
	unsigned int trim_share;
	bool detaches;
	bool fails;
};

struct life {
	char path[256];
	struct petal_journal_options options;
	/** @map: the file, as the disk has it; @platter is told of it. */
	uint8_t *map;
	struct platter platter;
	struct petal_journal *journal;
	struct life_style style;
	struct life_ring rings[LIFE_RINGS];
	struct life_batch *chain;
	unsigned int count;
	/** @acked: all before it were reported as durable, or are notes. */
	unsigned int acked;
	/** @frozen: a write failed; nothing is acknowledged any more. */
	bool frozen;
	/** @pending: what is being appended, until its write is seen. */
	struct life_batch pending;
	/** @version: never used before. */
	uint32_t version;

	/** @submitted: a write has come, @acknowledged: a batch was reported */
	void (*submitted)(struct life *life);
	void (*acknowledged)(struct life *life);
	/** @landed: bytes of the file have changed */
	void (*landed)(struct life *life, uint64_t offset, uint64_t length);

	/** What the last life_open() has seen. */
	unsigned int first;
	unsigned int visited;
	unsigned int next;
	const char *wrong;
};

/** chance() - below @below; chance_seed() starts it */
void chance_seed(uint64_t seed);
uint64_t chance(uint64_t below);

/** life_make() - a life in a directory that exists, without any batch */
void life_make(struct life *life, const char *dir);

/** life_reset() - forget all, and begin with an empty file */
void life_reset(struct life *life);

/** life_style_random() - how this one will live */
void life_style_random(struct life_style *style);

/**
 * life_open() - open the journal, replay it, and compare
 *
 * Return: NULL, or what is wrong. -PETAL_ECORRUPT is in @ret_err, and is wrong
 * only to a caller who did no damage.
 */
const char *life_open(struct life *life, int *ret_err);

/** life_go_on() - after life_open(): what it dropped is gone; attach, trim */
void life_go_on(struct life *life, struct life_batch *ret_dropped,
		unsigned int dropped_max, unsigned int *ret_dropped_count);

/** life_append() - 0 or as petal_journal_append() */
int life_append(struct life *life, struct life_ring *ring, uint64_t length);

/** life_retry() - append again, as it was, what a crash has dropped */
int life_retry(struct life *life, const struct life_batch *batch);

/** life_poll() - take what is reported */
void life_poll(struct life *life);

/** life_act() - one random act; what is in flight may land or fail */
void life_act(struct life *life);

/** life_land() - all that is in flight lands and is reported */
void life_land(struct life *life);

/** life_end() - close it; with @power lost it gets to say nothing more */
void life_end(struct life *life, bool power);

#endif
