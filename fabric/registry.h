/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: registry - the small replicated store of configuration
 *
 * One to seven voters keep the same few keys. A key changes only by
 * compare-and-swap, which goes through a log that a majority of the voters
 * has on disk before the answer comes. The log and the elections are C-Raft's
 * (Debian's libraft with its libuv backend); this header hides it, so that
 * another store can take its place. Nothing here is on the path of a message:
 * it is asked when a membership, an epoch or a placement changes.
 *
 *    caller's threads            registry's thread (one uv loop)
 *    cas ---> requests, 64 --+-> C-Raft ---- voters (TCP, sealed hello)
 *    get <--- applied keys <-+-- state machine  |
 *    poll <-- events, fd  <--+                  +-- DIR/log (Linux AIO)
 *
 * Always true: versions of all keys come from one counter, the revision,
 * which grows by one at each change. So a key that was deleted and made again
 * never has an old version, and two voters that applied the same revision
 * hold the same bytes.
 *
 * What a reader may believe: petal_registry_get() reads what this voter has
 * applied, which may be behind. The voter that petal_registry_leader() names
 * has applied all that was ever acknowledged before it was named; the name
 * alone is no lock, for a successor may already be at work. Only a
 * compare-and-swap that returned APPLIED with status 0 is certain.
 *
 * A registry of one voter is allowed: it survives a crash of its process, not
 * the loss of its disk.
 *
 * DIR (mode 0700) holds `identity`, written once, and `log/`, C-Raft's files.
 * `identity` names cluster, node and voters; a start with others is refused,
 * as the list of voters is fixed when the cluster is first started. A voter
 * that lost DIR has forgotten its votes and must not come back under its old
 * id: set @must_exist once a node is known to have run before.
 *
 * Threads: opening starts the registry's thread, and libuv's pool of four for
 * C-Raft's disk work; all signals but those of a fault are blocked in them,
 * SIGPIPE with them. All calls may run together, in any thread, except that
 * petal_registry_close() comes last. A child forked from a process that has had
 * a registry calls nothing here, and ends by exec or _exit(): at exit() libuv
 * 1.44 joins pool threads that the child does not have, and crashes.
 *
 * Crash: a voter that dies loses nothing that was acknowledged; it reads its
 * log again and fetches the rest from the leader. A voter whose disk fails,
 * or that meets a command or a snapshot it cannot read, stops taking part and
 * says so (PETAL_REGISTRY_FAILED); it never skips what others applied.
 */
#ifndef PETAL_FABRIC_REGISTRY_H
#define PETAL_FABRIC_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#define PETAL_REGISTRY_VOTERS_MAX 7
#define PETAL_REGISTRY_ADDRESS_BYTES 64

/* A key is 1 to 63 printable ASCII characters without a space. */
#define PETAL_REGISTRY_KEY_MAX 63
#define PETAL_REGISTRY_VALUE_MAX 4096
#define PETAL_REGISTRY_KEYS_MAX 1024

/* Compare-and-swaps between petal_registry_cas() and the poll that reports. */
#define PETAL_REGISTRY_INFLIGHT_MAX 64

/* Changed keys kept for a caller who does not poll, before they become one. */
#define PETAL_REGISTRY_CHANGED_MAX 256

#define PETAL_REGISTRY_ELECTION_MS 300
#define PETAL_REGISTRY_HEARTBEAT_MS 60

struct petal_registry;

/**
 * struct petal_registry_voter - one of those who decide
 * @node: its id, from 1
 * @address: where it listens, "192.0.2.7:7201" or "[2001:db8::7]:7201"; the
 *	same text at all voters
 */
struct petal_registry_voter {
	uint32_t node;
	char address[PETAL_REGISTRY_ADDRESS_BYTES];
};

/**
 * struct petal_registry_options - what petal_registry_open() needs
 * @node: which of the voters this is
 * @dir: its directory, made if absent; its parent must exist
 * @voters: all voters, this one among them, the same set at each
 * @voter_count: 1 to PETAL_REGISTRY_VOTERS_MAX
 * @cluster: the cluster's id
 * @key: the cluster's key, as petal_seal_key_load() gives it
 * @election_ms: how long a leader may be silent; 0 for 300. A successor is
 *	there after one to two of these and a heartbeat. On an idle machine 60
 *	is fine; on a busy one it makes healthy leaders lose their place.
 * @heartbeat_ms: how often a leader speaks; 0 for 60; less than @election_ms
 * @must_exist: refuse to begin with an empty directory
 */
struct petal_registry_options {
	uint32_t node;
	const char *dir;
	const struct petal_registry_voter *voters;
	unsigned voter_count;
	uint8_t cluster[16];
	uint8_t key[32];
	unsigned election_ms;
	unsigned heartbeat_ms;
	bool must_exist;
};

/**
 * enum petal_registry_event_type - what petal_registry_poll() reports
 * @PETAL_REGISTRY_APPLIED: a compare-and-swap of ours is over. cookie: the
 *	caller's; status: 0, and version is the key's new version (of a
 *	deletion: its revision); -PETAL_ECONFLICT, and version is what the key
 *	has, 0 if it does not exist; -ENOSPC if it would be one key too many;
 *	-PETAL_ENOTLEADER if it was not tried; -PETAL_EUNKNOWN if leadership or
 *	the disk was lost meanwhile: it may still happen, so read before trying
 *	again.
 * @PETAL_REGISTRY_CHANGED: key has another value, or is gone. Changes of one
 *	key between two polls are one event. An empty key means that any key may
 *	have changed: after a start, after a snapshot came from the leader, and
 *	when more keys changed than the queue holds.
 * @PETAL_REGISTRY_LEADER: node leads, 0 if nobody is known to. Only the
 *	latest is kept.
 * @PETAL_REGISTRY_FAILED: this voter has stopped for good; status says why:
 *	-PETAL_EDISK, -ENOSPC, -PETAL_ECORRUPT or -PETAL_EVERSION.
 */
enum petal_registry_event_type {
	PETAL_REGISTRY_APPLIED,
	PETAL_REGISTRY_CHANGED,
	PETAL_REGISTRY_LEADER,
	PETAL_REGISTRY_FAILED,
};

struct petal_registry_event {
	enum petal_registry_event_type type;
	int status;
	uint32_t node;
	uint64_t cookie;
	uint64_t version;
	char key[PETAL_REGISTRY_KEY_MAX + 1];
};

/**
 * struct petal_registry_status - a look at the whole, with what was counted
 * @leader: as petal_registry_leader()
 * @failed: 0, or why this voter has stopped
 * @keys: how many exist
 * @revision: changes applied since the cluster was first started
 * @applied: compare-and-swaps seen since this start, lost ones included
 * @conflicts: of these, those that lost
 * @snapshots_taken: the log was cut behind them
 * @snapshots_restored: read at the start or sent by a leader
 * @changed_overflows: times the queue of changed keys became one event
 * @accepted: connections whose hello was good
 * @refused: connections closed for a bad hello: magic, token, voter, address
 * @timed_out: connections closed because no hello or no answer came in time
 * @evicted: half-open connections closed to make room for later ones
 * @dialled: connections made, the other side's answer was good
 * @dial_refused: connections given up because the answer was bad
 * @dial_failed: connections that did not come about or broke in the hello
 */
struct petal_registry_status {
	uint32_t leader;
	int failed;
	uint32_t keys;
	uint64_t revision;
	uint64_t applied;
	uint64_t conflicts;
	uint64_t snapshots_taken;
	uint64_t snapshots_restored;
	uint64_t changed_overflows;
	uint64_t accepted;
	uint64_t refused;
	uint64_t timed_out;
	uint64_t evicted;
	uint64_t dialled;
	uint64_t dial_refused;
	uint64_t dial_failed;
};

/**
 * petal_registry_open() - become a voter
 * @options: copied
 * @ret_registry: the registry
 *
 * Returns when the log has been read and the socket listens; a leader is
 * known later, by an event.
 *
 * Return: 0; -EINVAL for options that contradict themselves or what
 * DIR/identity says; -EBUSY if another process has the directory;
 * -EADDRINUSE or -EADDRNOTAVAIL for the own address; -ENOENT if @must_exist
 * and it does not; -PETAL_EDATALOSS if the log of a voter that has run before
 * is gone; -PETAL_ECORRUPT or -PETAL_EVERSION for a log, snapshot or identity
 * that cannot be read; -PETAL_EDISK for an I/O error; or the kernel's error
 * for the directory (-EACCES, -EROFS, -ENOTDIR, -ENOSPC).
 */
int petal_registry_open(const struct petal_registry_options *options,
			struct petal_registry **ret_registry);

/**
 * petal_registry_close() - stop being a voter, and free everything
 * @registry: the registry; NULL does nothing
 *
 * Answers that were not polled are gone; what was not yet answered may or may
 * not happen. Waits for the disk operations under way, at most 30 s: if the
 * disk hangs longer, the thread and its memory are left behind.
 */
void petal_registry_close(struct petal_registry *registry);

/**
 * petal_registry_fd() - when to poll
 * @registry: the registry
 *
 * Return: a descriptor that is readable while petal_registry_poll() has
 * something to report. Only wait on it; petal_registry_poll() reads it.
 */
int petal_registry_fd(struct petal_registry *registry);

/**
 * petal_registry_miss() - a voter's host, process or link seems to be gone
 * @registry: the registry
 * @node: which voter
 *
 * If it leads, another is elected at once: the lowest voter that is left runs
 * first, the next one 50 ms later. Without this it takes election_ms of silence.
 * Said of a leader that lives, it costs an election and nothing else.
 */
void petal_registry_miss(struct petal_registry *registry, uint32_t node);

/**
 * petal_registry_cas() - change a key, if it is still as we know it
 * @registry: the registry
 * @key: the key
 * @expected_version: the version that it must have; 0: it must not exist
 * @value: the new value, copied
 * @length: 1 to PETAL_REGISTRY_VALUE_MAX; 0 deletes the key
 * @cookie: comes back in the event
 *
 * Return: 0, and exactly one APPLIED event follows; -EINVAL for a bad key or
 * length, or for deleting what must not exist; -PETAL_ENOTLEADER: send it to
 * petal_registry_leader(); -EAGAIN: poll first, PETAL_REGISTRY_INFLIGHT_MAX
 * are under way; -ENOMEM; or what a FAILED event said.
 */
int petal_registry_cas(struct petal_registry *registry, const char *key,
		       uint64_t expected_version, const void *value,
		       uint32_t length, uint64_t cookie);

/**
 * petal_registry_get() - read a key as this voter has applied it
 * @registry: the registry
 * @key: the key
 * @value: where its bytes go; NULL to learn length and version only
 * @size: room at @value
 * @ret_length: its length, or NULL
 * @ret_version: its version, or NULL
 *
 * Return: 0; -ENOENT; -EMSGSIZE if @size is too small.
 */
int petal_registry_get(struct petal_registry *registry, const char *key,
		       void *value, uint32_t size, uint32_t *ret_length,
		       uint64_t *ret_version);

/** A visitor of one key; anything but 0 ends the walk. */
typedef int (*petal_registry_visit)(void *arg, const char *key,
				    const void *value, uint32_t length,
				    uint64_t version);

/**
 * petal_registry_each() - visit the keys that begin with a prefix, in order
 * @registry: the registry
 * @prefix: "" for all
 * @visit: called without a lock held, so it may call the registry
 * @arg: for @visit
 *
 * Each entry is whole. Entries that change during the walk are seen before or
 * after their change, each key once at most.
 *
 * Return: 0, or what @visit returned.
 */
int petal_registry_each(struct petal_registry *registry, const char *prefix,
			petal_registry_visit visit, void *arg);

/**
 * petal_registry_leader() - who leads, as far as this voter knows
 * @registry: the registry
 *
 * Return: a node, 0 if none. This node names itself only once it has applied
 * everything that its predecessors acknowledged.
 */
uint32_t petal_registry_leader(struct petal_registry *registry);

/**
 * petal_registry_poll() - take events
 * @registry: the registry
 * @events: where they go
 * @max: room for so many
 *
 * Kinds come in no particular order among each other; answers come in the
 * order in which they were given. What petal_registry_get() returns
 * is at least as new as any event taken before.
 *
 * Return: how many, 0 if there is nothing to report.
 */
int petal_registry_poll(struct petal_registry *registry,
			struct petal_registry_event *events, unsigned max);

/**
 * petal_registry_status() - what it holds and what it counted
 * @registry: the registry
 * @ret_status: a copy
 */
void petal_registry_status(struct petal_registry *registry,
			   struct petal_registry_status *ret_status);

#endif
