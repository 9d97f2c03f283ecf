/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_CRASH_SUBJECT_LEDGER_H
#define PETAL_TESTS_CRASH_SUBJECT_LEDGER_H

#include "rings/spsc.h"
#include "shm/ledger.h"
#include "tests/crash/subject.h"

/**
 * DOC: subject_ledger - what its acts share with its places
 *
 * Who sits where, and who of them is dead, is in subject_ledger.c; what owner
 * and consumers do is in subject_ledger_acts.c.
 */

#define LEDGERS_MAX 42u
#define PLACES 2u
#define RINGS 3u
#define RING_BETWEEN 2u
#define RING_SLOTS 8u
#define GRANULE_BYTES 64u
#define OWNER_SEAT 0u
/* In the office: whoever sat there last is dead. */
#define GONE (UINT64_C(1) << 32)

struct office {
	struct petal_u64 buried; /* so many ledgers have dead owners */
	struct petal_u64 places[PLACES];
	uint64_t reserved[5];
};

/* What a ring carries. */
struct parcel {
	struct petal_ref ref;
	uint64_t copy; /* another consumer has the message as well */
};

struct ledger_view {
	struct petal_spsc rings[RINGS];
	uint32_t seat;
	uint32_t number;       /* of the owner's ledger */
	struct petal_ref kept; /* by a consumer, while it takes another */
	struct petal_ledger ledgers[LEDGERS_MAX];
};

static_assert(sizeof(struct ledger_view) <= sizeof(((struct party *)0)->view),
	      "it fits");

/** ledger_view() - a party's private side */
static inline struct ledger_view *ledger_view(struct party *party)
{
	return (struct ledger_view *)(void *)party->view;
}

/** ledger_office() - who sits where */
static inline struct office *ledger_office(const struct party *party)
{
	return party->memory;
}

/** ledger_count() - how many there are, for so many owners */
static inline uint32_t ledger_count(const struct shape *shape)
{
	return shape->variant;
}

/** ledger_payload() - the bytes that a ref names */
uint8_t *ledger_payload(const struct party *party, struct petal_ref ref);

/** ledger_buried() - how many ledgers have dead owners */
uint64_t ledger_buried(const struct party *party);

/** ledger_dead() - a bit for each consumer's seat whose holder is dead */
uint64_t ledger_dead(struct party *party);

/** ledger_settle() - drop what those granted us in silence */
int ledger_settle(struct party *party, uint64_t dead, uint64_t owners);

/** ledger_clear() - repair after dead consumers, and so many owners */
int ledger_clear(struct party *party, uint64_t dead, uint64_t owners);

#define LEDGER_ACTS 7u
extern const struct act ledger_acts[LEDGER_ACTS];

#endif
