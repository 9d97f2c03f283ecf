/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_DAEMON_H
#define PETAL_FABRIC_DAEMON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/backup.h"
#include "fabric/config.h"
#include "fabric/failover.h"
#include "fabric/journal.h"
#include "fabric/log.h"
#include "fabric/primary.h"
#include "fabric/promise.h"
#include "fabric/registry.h"
#include "fabric/ring_config.h"
#include "fabric/runs.h"
#include "fabric/wire.h"
#include "shm/peer.h"
#include "topology/member.h"

/**
 * DOC: daemon - petald: one node, one thread, one loop
 *
 *    daemon.c          start, the loop, stop
 *    daemon_probe.c    what the provider keeps, tried before the start
 *    daemon_peers.c    other nodes: wire events, membership, control messages
 *    daemon_rings.c    rings: driving them, and what other nodes ask of them
 *    daemon_epochs.c   rings: opening them in a role, and the change of it
 *    daemon_failover.c a primary that is lost, and who follows
 *    daemon_disks.c    what the journal keeps of each ring
 *    daemon_restore.c  what it held when we started
 *    daemon_swaps.c    compare-and-swaps under way in the registry
 *    daemon_clients.c  processes of this host: the socket and its requests
 *    daemon_status.c   what people see of all this
 *
 * Everything happens in the loop's thread but C-Raft, which has its own (see
 * fabric/registry.h). The loop sleeps in epoll when there is nothing to do, and
 * never spins.
 */

#define DAEMON_RINGS_MAX 32u
/* A ring in its epoch, what speaks for it still, and one that closes. */
#define DAEMON_SLOTS_MAX (3 * DAEMON_RINGS_MAX)
#define DAEMON_ANSWERS_MAX 64u
#define DAEMON_RESTORED_MAX 1024u /* PETAL_JOURNAL_RINGS_MAX */
#define DAEMON_CLIENTS_MAX 128u
#define DAEMON_OPENS_MAX 8u /* rings open in one client */
#define DAEMON_SWAPS_MAX 64u
#define DAEMON_FLIGHTS 8u /* writes under way to one member of one ring */

struct daemon;

struct daemon_flight {
	bool busy;
	uint64_t from_pos;
	uint64_t end_pos;
};

enum daemon_role {
	DAEMON_NOT_MEMBER,
	DAEMON_PRIMARY,
	DAEMON_BACKUP,
	DAEMON_HEIR, /* the next primary, which collects promises */
	DAEMON_LOST, /* primary of an epoch whose memory we no longer have */
};

struct daemon_member {
	struct petal_wire_key data; /* the primary writes records there */
	struct petal_wire_key lines; /* orders on a backup, acks on the primary */
	bool keyed;
	struct petal_record_cursor offered; /* which our START answered */
	bool closed;         /* it has said that it writes to us no more */
	bool order_due;      /* our orders line did not get through */
	bool pushed;         /* data, since the last write that is told of */
	uint64_t pushed_pos; /* the first of it */
	uint64_t ended_pos;  /* highest end of a write that is over */
	struct daemon_flight flights[DAEMON_FLIGHTS];
};

/* A ring in one epoch. */
struct daemon_ring {
	bool used;
	bool seen; /* in the registry, at the last look */
	struct daemon *daemon;
	struct petal_ring_config config;
	enum daemon_role role;
	unsigned self; /* our member index */
	uint32_t generation;
	unsigned unreported; /* writes of ours whose WROTE is to come */
	bool closing;
	bool superseded;  /* by a later epoch, which has its own slot */
	bool journaling;  /* the journal reads from our memory */
	bool accept_loss; /* an operator does: one disk is enough */
	struct daemon_ring *older; /* speaks for us until we are whole */
	bool said_closed;          /* to the other members */
	uint64_t close_ns;         /* closing at the latest then */
	struct petal_log log;
	struct petal_wire_region *data_region;
	struct petal_wire_region *lines_region;
	struct daemon_member members[PETAL_LOG_MEMBERS];
	union {
		struct petal_primary primary;
		struct petal_backup backup;
	};
	int bell_fd;
	bool bell_armed;
	uint64_t nap_ns;   /* look for news again then; PETAL_CLOCK_NEVER */
	uint64_t offer_ns; /* a backup offers itself again then */
	uint64_t sessions; /* given out in this epoch */
	struct petal_failover failover;
	uint64_t tell_ns; /* suspicion, FENCE or CALL are said again then */
	bool swapping;    /* our swap of its epoch or state is under way */
	uint32_t replace_from, replace_to; /* members; 0: none is */
	uint64_t replace_until_ns;
	struct petal_record_cursor sealed; /* of a primary that recovered it */
};

/* What a backup says of itself to its primary. */
struct daemon_offer {
	uint64_t ring;
	uint32_t epoch;
	bool exact; /* its sessions are those of its log */
	struct daemon_member keys;
	struct petal_record_cursor end;
};

/* And what the primary answers. */
struct daemon_start {
	uint64_t ring;
	uint32_t epoch;
	bool exact; /* the backup's sessions stay */
	struct petal_wire_key lines;
	struct petal_record_cursor offered; /* which offer is answered */
	struct petal_record_cursor start;
	uint64_t whole_pos;
	struct petal_sessions sessions;
};

/* The live bytes that the journal held of a run when we started. */
struct daemon_batch {
	uint64_t pos;
	uint64_t lsn; /* of its first record */
};

struct daemon_restored {
	uint64_t key; /* PETAL_RUNS_KEY; 0: none */
	uint64_t data_bytes;
	uint64_t to_pos;
	uint64_t trim_pos;
	uint32_t epoch;
	bool whole;
	uint32_t batch_count;
	uint32_t batch_room;
	struct daemon_batch *batches;
	uint8_t *data;
};

/* What the journal keeps of a ring. */
struct daemon_disk {
	uint64_t ring; /* 0: free */
	struct petal_runs runs;
	uint64_t full_ns; /* since when the journal has no room; 0: it has */
};

struct daemon_open {
	struct daemon_ring *ring;
	uint32_t generation; /* of the ring, when it was opened */
	uint32_t owner;
	int signal_fd;
};

struct daemon_client {
	bool used;
	bool gone; /* its socket has ended; its process may live on */
	int fd;
	uint32_t generation;
	json_int_t request_id; /* comes back with the answer; 0: none */
	struct petal_peer peer;
	struct daemon_open opens[DAEMON_OPENS_MAX];
};

enum daemon_swap_kind {
	DAEMON_SWAP_CREATE,
	DAEMON_SWAP_DELETE,
	DAEMON_SWAP_ADMIT,
	DAEMON_SWAP_EPOCH,     /* F1 and F5 of a failover */
	DAEMON_SWAP_FORWARDED, /* for another node */
	DAEMON_SWAP_BARRIER,   /* changes nothing: see daemon_restore.c */
};

/* A compare-and-swap of the registry that somebody waits for. */
struct daemon_swap {
	bool used;
	bool submitted;
	bool applied; /* by the leader; our own registry has still to see it */
	uint64_t revision; /* which it has then */
	uint64_t version;  /* of the key, by our swap */
	enum daemon_swap_kind kind;
	uint32_t at_peer; /* whose registry has it: 0 ours */
	uint64_t cookie;
	uint64_t retry_ns;
	uint64_t give_up_ns;
	uint64_t expected;
	uint32_t length;
	char key[PETAL_REGISTRY_KEY_MAX + 1];
	char value[PETAL_REGISTRY_VALUE_MAX];
	/* Who waits. */
	struct daemon_client *client;
	uint32_t client_generation;
	json_int_t client_request_id;
	uint64_t ring_id; /* of the ring to delete; 0: whatever has the name */
	struct daemon_ring *ring;
	uint32_t ring_generation;
	unsigned member;
	uint32_t from_peer;
	uint64_t from_cookie;
};

struct daemon_peer {
	bool up;
	bool known;   /* it has been who it says, since we started */
	bool refuses; /* it told us that we are not */
	bool shunned; /* it is not, and is cut with its next word */
	bool said_double;
	bool said_host;
	bool said_clock;
	uint64_t clock_refusals; /* since it was up */
	char inc[33];            /* "" until its HELLO */
	char disk[33];
};

/* Who asked us for a promise is answered when it is durable. */
struct daemon_answer {
	uint64_t ring; /* 0: free */
	uint32_t epoch;
	uint32_t peer; /* or we ourselves */
};

struct daemon_counts {
	uint64_t loops;
	uint64_t failovers; /* epochs that we opened as a new primary */
	uint64_t stalls;    /* of these: to go on without a stopped producer */
	uint64_t bad_messages;
	uint64_t bad_requests;
	uint64_t swaps_given_up;
};

struct daemon {
	struct petal_config config;
	struct petal_member members;
	struct petal_wire *wire;
	struct petal_journal *journal;
	struct petal_registry *registry;
	char inc[33];
	char disk[33]; /* the journal's uuid */
	uint64_t host; /* a hash of our boot; 0: unknown */
	int epoll_fd;
	int signal_fd;
	int listen_fd;
	int spare_fd; /* to be closed when no other descriptor is left */
	uint64_t now_ns;
	uint64_t started_ns;
	uint64_t clock_refusals; /* of the wire, at the last look */
	uint64_t next_cookie;
	uint32_t next_generation;
	bool introduced; /* those who did not call us were called */
	bool stopping;
	bool refused;    /* by the cluster; it was said */
	bool wire_ready; /* it may have something, or has said so */
	bool journal_ready;
	uint64_t said_version; /* configurations up to it were complained of */
	struct daemon_restored restored[DAEMON_RESTORED_MAX];
	struct daemon_disk disks[DAEMON_RESTORED_MAX];
	unsigned disk_count;
	uint64_t refused_full; /* by the journal, at our last look */
	struct daemon_peer peers[PETAL_WIRE_PEER_MAX];
	struct daemon_ring rings[DAEMON_SLOTS_MAX];
	struct petal_promise promise;
	struct daemon_answer answers[DAEMON_ANSWERS_MAX];
	struct daemon_client clients[DAEMON_CLIENTS_MAX];
	struct daemon_swap swaps[DAEMON_SWAPS_MAX];
	struct daemon_counts counts;
};

/* What epoll hands back: kind in the low bits, index above. */
enum daemon_tag {
	DAEMON_TAG_WIRE,
	DAEMON_TAG_JOURNAL,
	DAEMON_TAG_REGISTRY,
	DAEMON_TAG_SIGNAL,
	DAEMON_TAG_LISTEN,
	DAEMON_TAG_CLIENT,
	DAEMON_TAG_DEATH,
	DAEMON_TAG_BELL,
};

int daemon_watch(struct daemon *d, int fd, enum daemon_tag tag, unsigned index);
void daemon_unwatch(struct daemon *d, int fd);

/* Reads an eventfd empty. */
void daemon_drain_fd(int fd);

/* daemon_probe.c */
/* Says why not, in one sentence, when it returns a failure. */
int daemon_probe(const struct daemon *d, const uint8_t cluster[16],
		 const uint8_t key[32]);
void daemon_probe_note(const struct daemon *d);

/* daemon_peers.c */
void daemon_peers_start(struct daemon *d);
int daemon_peers_poll(struct daemon *d); /* 1: more to do at once */
void daemon_peers_step(struct daemon *d);
uint64_t daemon_peers_next_ns(const struct daemon *d);
int daemon_peers_send_swap(struct daemon *d, uint32_t peer,
			   const struct daemon_swap *swap);
void daemon_peers_answer_swap(struct daemon *d, const struct daemon_swap *swap,
			      int status, uint64_t revision);
/* A backup offers itself to its ring's primary. */
int daemon_peers_send_offer(struct daemon *d, const struct daemon_ring *ring);
int daemon_peers_send_start(struct daemon *d, const struct daemon_ring *ring,
			    unsigned member,
			    const struct petal_record_cursor *offered,
			    const struct petal_record_cursor *start,
			    bool exact);
/* We write to a ring's memory of an epoch no more. */
int daemon_peers_send_closed(struct daemon *d, uint32_t peer, uint64_t ring,
			     uint32_t epoch, bool is_answer);
int daemon_peers_send_suspect(struct daemon *d, uint32_t peer,
			      const struct daemon_ring *ring,
			      const struct petal_record_cursor *end);
int daemon_peers_send_fence(struct daemon *d, uint32_t peer, uint64_t ring,
			    uint32_t epoch);
int daemon_peers_send_fenced(struct daemon *d, const struct daemon_answer *to,
			     bool counts,
			     const struct petal_record_cursor *end);
int daemon_peers_send_call(struct daemon *d, uint32_t peer,
			   const struct petal_ring_config *config);

/* daemon_rings.c */
int daemon_rings_open_primary(struct daemon_ring *ring,
			      const struct petal_recovery *recovery);
void daemon_rings_open_backup(struct daemon_ring *ring);
/* Nothing more will come: whoever waits by a descriptor looks, and learns it. */
void daemon_rings_signal_all(struct daemon_ring *ring);
int daemon_rings_step(struct daemon *d); /* 1: more to do at once */
uint64_t daemon_rings_next_ns(const struct daemon *d);
struct daemon_ring *daemon_rings_find(struct daemon *d, const char *name);
struct daemon_ring *daemon_rings_by_id(struct daemon *d, uint64_t id);
bool daemon_rings_full(const struct daemon *d);
/* Whether it is a ring as it is now, and not what is left of one. */
bool daemon_rings_is_current(const struct daemon_ring *ring);
void daemon_rings_peer_down(struct daemon *d, uint32_t peer);
void daemon_rings_wrote(struct daemon *d, uint64_t cookie, int status);
/* A write that the primary is told of is here. */
void daemon_rings_landed(struct daemon *d, uint32_t peer, uint64_t data);
/* Its bell's descriptor was readable. */
void daemon_rings_rang(struct daemon *d, unsigned slot);
/* Returns whether something of its memory is still on its way. */
bool daemon_rings_flush(struct daemon_ring *ring);
/* Returns whether bytes have come that no step has looked at. */
bool daemon_rings_news(struct daemon *d);
void daemon_rings_journaled(struct daemon *d,
			    const struct petal_journal_done *done);
void daemon_rings_offered(struct daemon *d, uint32_t peer,
			  const struct daemon_offer *offer);
void daemon_rings_started(struct daemon *d, uint32_t peer,
			  const struct daemon_start *start);
/* The primary of an epoch takes offers now. */
void daemon_rings_called(struct daemon *d, uint64_t id, uint32_t epoch);
/* Returns false when there is no such ring. */
bool daemon_rings_closed(struct daemon *d, uint32_t peer, uint64_t id,
			 uint32_t epoch);
void daemon_rings_admitted(struct daemon *d, const struct daemon_swap *swap,
			   int status);

/* daemon_epochs.c */
void daemon_epochs_reconcile(struct daemon *d);
/* A configuration of a ring, by whatever way; an older one changes nothing. */
void daemon_epochs_learn(struct daemon *d,
			 const struct petal_ring_config *config);
/* The slot whose log speaks for this member, or NULL. */
struct daemon_ring *daemon_epochs_speaker(struct daemon_ring *ring);
/* What its log leaves: 0, or a failure. */
int daemon_epochs_leaves(const struct daemon_ring *speaker,
			 struct petal_recovery *ret_recovery);
/* A later epoch has begun: nothing moves in this one any more. */
void daemon_epochs_fence(struct daemon_ring *ring);
/* An heir whose log is the best becomes the primary. */
int daemon_epochs_inherit(struct daemon_ring *ring);
/* What spoke for a ring is no longer needed. */
void daemon_epochs_drop_older(struct daemon_ring *ring);
/* Where news of the journal about a ring go, or NULL. */
struct daemon_ring *daemon_epochs_journaled(struct daemon_ring *ring);
void daemon_epochs_attach_journal(struct daemon_ring *ring);
void daemon_epochs_step_closing(struct daemon *d, struct daemon_ring *ring);
void daemon_epochs_stop(struct daemon *d);

/* daemon_failover.c */
void daemon_failover_step(struct daemon *d);
uint64_t daemon_failover_next_ns(const struct daemon *d);
/* Swap the ring's configuration for one of a later epoch or state. */
void daemon_failover_propose(struct daemon_ring *ring,
			     const struct petal_ring_config *config);
/* We follow ourselves: take from its owner what held the ring back. */
void daemon_failover_expel(struct daemon_ring *ring, uint32_t epoch);
void daemon_failover_suspected(struct daemon *d, uint32_t peer, uint64_t id,
			       uint32_t epoch,
			       const struct petal_record_cursor *end);
void daemon_failover_fence(struct daemon *d, uint32_t peer, uint64_t id,
			   uint32_t epoch);
void daemon_failover_fenced(struct daemon *d, uint32_t peer, uint64_t id,
			    uint32_t epoch, bool counts,
			    const struct petal_record_cursor *end);
void daemon_failover_swapped(struct daemon *d, const struct daemon_swap *swap,
			     int status);

/* Asked to go on with one disk: 0, or why not; and what is to be known. */
int daemon_failover_recover(struct daemon *d, struct daemon_ring *ring,
			    bool accept_loss, char *message, size_t room);

/* daemon_disks.c */
/* NULL: there are too many. */
struct daemon_disk *daemon_disks_of(struct daemon *d, uint64_t id);
/* Whether the journal never had anything of a ring. */
bool daemon_disks_is_new(struct daemon *d, uint64_t id);
/* From now on it reads from this memory; nothing of the ring is in flight. */
int daemon_disks_move(struct daemon_ring *ring);
int daemon_disks_journal(struct daemon_ring *ring,
			 const struct petal_record_cursor *from,
			 const struct petal_record_cursor *to,
			 uint64_t whole_pos);
void daemon_disks_durable(struct daemon *d,
			  const struct petal_journal_done *done);
/* As petal_runs_trim(). */
void daemon_disks_trim(struct daemon_ring *ring, uint64_t done_pos,
		       uint64_t seen_pos, uint64_t disk_pos);
/* A ring is gone; false while a batch of it is in flight. */
bool daemon_disks_forget(struct daemon *d, uint64_t id);

/* daemon_restore.c */
int daemon_restore(struct daemon *d);
/* Give a backup's log what the journal held of it. */
void daemon_restore_adopt(struct daemon *d, struct daemon_ring *ring);
/* Ask the registry which of the restored rings are still there. */
void daemon_restore_check(struct daemon *d);
void daemon_restore_checked(struct daemon *d, int status);
void daemon_restore_drop(struct daemon *d);

/* daemon_status.c */
json_t *daemon_status_json(struct daemon *d);
json_t *daemon_status_rings(struct daemon *d);

/* daemon_swaps.c */
struct daemon_swap *daemon_swaps_add(struct daemon *d,
				     enum daemon_swap_kind kind,
				     const char *key, uint64_t expected,
				     const char *value, uint32_t length);
void daemon_swaps_step(struct daemon *d);
uint64_t daemon_swaps_next_ns(const struct daemon *d);
/* @at_peer: whose answer it is, 0 for our own registry's. */
void daemon_swaps_applied(struct daemon *d, uint32_t at_peer, uint64_t cookie,
			  int status, uint64_t version, uint64_t revision);
/* How many changes our own registry has seen. */
uint64_t daemon_swaps_revision(const struct daemon *d);
void daemon_swaps_changed(struct daemon *d);
void daemon_swaps_peer_down(struct daemon *d, uint32_t peer);

/* daemon_replace.c */
/* 0, or a failure with its sentence. */
int daemon_replace_begin(struct daemon *d, struct daemon_ring *ring,
			 uint32_t from, uint32_t to, const char **ret_why);
void daemon_replace_step(struct daemon *d);

/* daemon_clients.c */
int daemon_clients_open(struct daemon *d);
void daemon_clients_accept(struct daemon *d);
void daemon_clients_request(struct daemon *d, unsigned index);
void daemon_clients_death(struct daemon *d, unsigned index);
void daemon_clients_close(struct daemon *d);
void daemon_clients_answer(struct daemon *d, const struct daemon_swap *swap,
			   int status);
void daemon_clients_signal(struct daemon *d, const struct daemon_ring *ring,
			   uint32_t owner);
bool daemon_clients_have(const struct daemon *d,
			 const struct daemon_ring *ring);
/* The process that is a ring's owner; 0: none. */
int daemon_clients_pid(const struct daemon *d, const struct daemon_ring *ring,
		       uint32_t owner);

#endif
