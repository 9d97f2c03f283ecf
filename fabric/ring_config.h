/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_RING_CONFIG_H
#define PETAL_FABRIC_RING_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/log.h"

/**
 * DOC: ring_config - what the registry keeps of a ring
 *
 * One value, under the key "ring/NAME", changed only by compare-and-swap:
 *
 *    {"id": 7, "epoch": 1, "primary": 1, "state": "open",
 *     "data_bytes": 16777216,
 *     "sealed": {"epoch": 0, "lsn": 0, "pos": 0, "crc": 0},
 *     "loss": {"epoch": 0, "lsn": 0},
 *     "members": [{"node": 1, "inc": "9f..", "disk": "07.."}, ...],
 *     "queues": [{"name": "stanzas", "slots": 4096, "lease_ns": 2000000000}]}
 *
 * state is "recovering" from the swap that made the epoch until its primary has
 * the log of those before. sealed is where they end: set when the epoch is
 * opened, and never changed in it (I9). inc is the incarnation of a member's
 * memory whose acknowledgements count, and disk the journal that has what they
 * promised at disk levels. A member that came back with another one is a
 * learner, and its journal a new one, until this changes.
 *
 * After the loss of all memory the epoch is recovered from disks, and state says
 * so: "recovering-from-disks", of any two, or "recovering-from-one-disk", when an
 * operator would not wait. loss is the last such epoch, and the first lsn from
 * which on records of older epochs may be gone.
 */

enum petal_ring_config_source {
	PETAL_RING_CONFIG_MEMORY,
	PETAL_RING_CONFIG_DISKS,
	PETAL_RING_CONFIG_ONE_DISK,
};

struct petal_ring_config_loss {
	uint32_t epoch; /* 0: never */
	uint64_t lsn;
};

#define PETAL_RING_CONFIG_PREFIX "ring/"
#define PETAL_RING_CONFIG_INC_BYTES 33u /* 32 hexadecimal digits and a 0 */

struct petal_ring_config {
	char name[32];
	uint64_t id;      /* 1 to UINT32_MAX: it travels as notify data */
	uint64_t version; /* of the registry's value; not part of it */
	uint32_t epoch;
	uint32_t primary;
	bool recovering;
	enum petal_ring_config_source source; /* while recovering */
	struct petal_record_cursor sealed;
	struct petal_ring_config_loss loss;
	uint32_t members[PETAL_LOG_MEMBERS]; /* node ids, all different */
	char incs[PETAL_LOG_MEMBERS][PETAL_RING_CONFIG_INC_BYTES];
	char disks[PETAL_LOG_MEMBERS][PETAL_RING_CONFIG_INC_BYTES];
	uint64_t data_bytes;
	unsigned queue_count;
	struct petal_queue_geometry queues[PETAL_LOG_QUEUES_MAX];
};

/**
 * petal_ring_config_name_check() - 1 to 31 letters, digits, '-' and '_'
 *
 * Return: 0, or -EINVAL.
 */
int petal_ring_config_name_check(const char *name);

/**
 * petal_ring_config_parse() - read a registry's value
 *
 * Return: 0, or -PETAL_ECORRUPT when anything is missing or out of range.
 */
int petal_ring_config_parse(const char *name, const void *value,
			    uint32_t length, uint64_t version,
			    struct petal_ring_config *ret_config);

/**
 * petal_ring_config_state() - the word for it: "open", "recovering", ...
 */
const char *petal_ring_config_state(const struct petal_ring_config *config);

/**
 * petal_ring_config_shape() - read "queues" and "data_bytes" of an object
 *
 * Shared by the registry's value and a client's request. A queue that says
 * nothing of slots, or 0, has 4096; no two queues have one name.
 *
 * Return: 0, or -EINVAL.
 */
int petal_ring_config_shape(const json_t *object,
			    struct petal_ring_config *config);

/**
 * petal_ring_config_json() - the object that petal_ring_config_parse() reads
 */
json_t *petal_ring_config_json(const struct petal_ring_config *config);

/**
 * petal_ring_config_geometry() - the memory that every member makes
 */
struct petal_log_geometry
petal_ring_config_geometry(const struct petal_ring_config *config);

/**
 * petal_ring_config_member() - the index of a node among the members
 *
 * Return: 0 to PETAL_LOG_MEMBERS - 1, or -ENOENT.
 */
int petal_ring_config_member(const struct petal_ring_config *config,
			     uint32_t node);

#endif
