/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: registry_fsm - the state machine under the registry
 *
 * Keys, values and versions, changed by commands that all voters apply in the
 * same order. Pure: no I/O, no clock, no allocation, no lock. The same
 * commands give the same bytes everywhere.
 *
 * A command, little-endian:
 *
 *    byte 0     4         6       7            8          16       20     24
 *    +----------+---------+-------+------------+----------+--------+------+--
 *    | "PRc\1"  | version | op    | key length | expected | value  | CRC  | k
 *    |          | 1       | 1 cas | 1..63      | version  | length | 32C  | v
 *    +----------+---------+-------+------------+----------+--------+------+--
 *
 * then the key, the value and zeros up to a multiple of eight bytes, for
 * C-Raft 0.15 cannot read back from its disk an entry of another length.
 * A snapshot:
 *
 *    byte 0     4         8          16      20     24
 *    +----------+---------+----------+-------+------+--------------
 *    | "PRs\1"  | version | revision | count | CRC  | entries ...
 *    +----------+---------+----------+-------+------+--------------
 *    an entry:  version 8 | value length 4 | key length 4 | key | value
 *
 * with the keys in strictly ascending order, and zeros as in a command. The
 * CRC covers all other bytes.
 *
 * Always true: slots[order[0..count)] ascend by key and no key occurs twice;
 * order[] is a permutation; 1 <= version of each key <= revision.
 *
 * Bytes that cannot be read are an error and change nothing. They must not be
 * skipped: the other voters may have read them.
 *
 * Who may run together: finding, measuring and taking a snapshot with each
 * other; applying and restoring alone.
 */
#ifndef PETAL_FABRIC_REGISTRY_FSM_H
#define PETAL_FABRIC_REGISTRY_FSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/registry.h"

#define PETAL_REGISTRY_COMMAND_HEADER_BYTES 24
#define PETAL_REGISTRY_COMMAND_MAX                                          \
	(PETAL_REGISTRY_COMMAND_HEADER_BYTES + PETAL_REGISTRY_KEY_MAX + 1 + \
	 PETAL_REGISTRY_VALUE_MAX)
#define PETAL_REGISTRY_SNAPSHOT_HEADER_BYTES 24
#define PETAL_REGISTRY_SNAPSHOT_ENTRY_BYTES 16

/**
 * struct petal_registry_command - a compare-and-swap, decoded
 * @key: a valid key
 * @expected_version: 0 if the key must not exist
 * @value: borrowed from whoever encodes, or from the bytes decoded
 * @length: 0 deletes
 */
struct petal_registry_command {
	char key[PETAL_REGISTRY_KEY_MAX + 1];
	uint64_t expected_version;
	const void *value;
	uint32_t length;
};

/**
 * struct petal_registry_outcome - what a command did
 * @status: 0, -PETAL_ECONFLICT or -ENOSPC
 * @version: of the change; at a conflict, what the key has
 * @key: which key
 */
struct petal_registry_outcome {
	int status;
	uint64_t version;
	char key[PETAL_REGISTRY_KEY_MAX + 1];
};

struct petal_registry_entry {
	uint64_t version;
	uint32_t length;
	char key[PETAL_REGISTRY_KEY_MAX + 1];
	uint8_t value[PETAL_REGISTRY_VALUE_MAX];
};

/**
 * struct petal_registry_fsm - the whole state, 4.3 MB of the caller's memory
 * @revision: changes so far
 * @applied: commands so far, since init or restore
 * @conflicts: of these, those that lost
 * @count: keys that exist
 * @order: slots, those in use first, by key
 * @slots: the entries, in no order
 */
struct petal_registry_fsm {
	uint64_t revision;
	uint64_t applied;
	uint64_t conflicts;
	uint32_t count;
	uint16_t order[PETAL_REGISTRY_KEYS_MAX];
	struct petal_registry_entry slots[PETAL_REGISTRY_KEYS_MAX];
};

/**
 * petal_registry_key_check() - may this be a key?
 * @key: a string
 *
 * Return: its length, 1 to PETAL_REGISTRY_KEY_MAX; -EINVAL.
 */
int petal_registry_key_check(const char *key);

/**
 * petal_registry_command_bytes() - how long a command will be
 * @command: checked here, not trusted
 *
 * Return: its length, a multiple of eight; -EINVAL for a bad key or length, or
 * for a deletion of what must not exist.
 */
int petal_registry_command_bytes(const struct petal_registry_command *command);

/**
 * petal_registry_command_encode() - write a command
 * @command: one that petal_registry_command_bytes() accepts
 * @ret_bytes: room for as many bytes as that said
 */
void petal_registry_command_encode(const struct petal_registry_command *command,
				   uint8_t *ret_bytes);

/**
 * petal_registry_command_decode() - read a command from hostile bytes
 * @bytes: the bytes
 * @length: how many
 * @ret_command: the command; its value points into @bytes
 *
 * Return: 0; -PETAL_EVERSION for a command of a later layout; -PETAL_ECORRUPT.
 */
int petal_registry_command_decode(const void *bytes, size_t length,
				  struct petal_registry_command *ret_command);

/**
 * petal_registry_fsm_init() - begin without keys
 * @fsm: memory that need not be zero
 */
void petal_registry_fsm_init(struct petal_registry_fsm *fsm);

/**
 * petal_registry_fsm_apply() - the next command
 * @fsm: the state
 * @bytes: a command, hostile
 * @length: how many
 * @ret_outcome: what it did
 *
 * Return: 0; or as petal_registry_command_decode(), and nothing has changed.
 */
int petal_registry_fsm_apply(struct petal_registry_fsm *fsm, const void *bytes,
			     size_t length,
			     struct petal_registry_outcome *ret_outcome);

/**
 * petal_registry_fsm_find() - look a key up
 * @fsm: the state
 * @key: the key
 *
 * Return: its entry, until the next command; NULL.
 */
const struct petal_registry_entry *
petal_registry_fsm_find(const struct petal_registry_fsm *fsm, const char *key);

/**
 * petal_registry_fsm_after() - the first key that sorts after another
 * @fsm: the state
 * @key: where to begin; "" sorts before all keys
 * @inclusive: @key itself will do
 *
 * Return: its entry, until the next command; NULL at the end.
 */
const struct petal_registry_entry *
petal_registry_fsm_after(const struct petal_registry_fsm *fsm, const char *key,
			 bool inclusive);

/**
 * petal_registry_fsm_snapshot_bytes() - how long a snapshot is now
 * @fsm: the state
 *
 * Return: bytes, a multiple of eight.
 */
size_t petal_registry_fsm_snapshot_bytes(const struct petal_registry_fsm *fsm);

/**
 * petal_registry_fsm_snapshot() - write the state down
 * @fsm: the state
 * @ret_bytes: room for petal_registry_fsm_snapshot_bytes()
 */
void petal_registry_fsm_snapshot(const struct petal_registry_fsm *fsm,
				 uint8_t *ret_bytes);

/**
 * petal_registry_fsm_restore() - replace the state by a snapshot
 * @fsm: the state
 * @bytes: a snapshot, hostile
 * @length: how many
 *
 * Looks at everything before it changes anything.
 *
 * Return: 0; -PETAL_EVERSION for a later layout; -PETAL_ECORRUPT.
 */
int petal_registry_fsm_restore(struct petal_registry_fsm *fsm,
			       const void *bytes, size_t length);

#endif
