/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A primary that is lost: F1 to F5, as fabric/failover.h draws them.
 *
 * The end of the connection to the primary, or its return with another memory,
 * makes us suspect at once; its silence ends the connection. Whatever was sent
 * and got lost is sent again. What can go wrong: the registry does not answer
 * (the swap is tried again), too few members have what counts (the heir waits,
 * and says so by its role), somebody else was faster (its epoch is higher, and
 * we are told).
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/clock.h"
#include "shm/error.h"

#define TELL_NS PETAL_MS(20)
#define CALL_NS PETAL_MS(100)
#define RETRY_NS PETAL_S(1) /* of an heir that had no memory for the ring */

/* Swaps of the registry. */

void daemon_failover_propose(struct daemon_ring *ring,
			     const struct petal_ring_config *config)
{
	struct daemon *d = ring->daemon;
	char key[PETAL_REGISTRY_KEY_MAX + 1];
	struct daemon_swap *swap = NULL;
	json_t *object = petal_ring_config_json(config);
	char *text = json_dumps(object, JSON_COMPACT);

	json_decref(object);
	snprintf(key, sizeof(key), PETAL_RING_CONFIG_PREFIX "%s", config->name);
	if (text != NULL)
		swap = daemon_swaps_add(d, DAEMON_SWAP_EPOCH, key,
					config->version, text,
					(uint32_t)strlen(text));
	free(text);
	if (swap == NULL)
		return; /* the next step tries again */
	swap->ring = ring;
	swap->ring_generation = ring->generation;
	ring->swapping = true;
	daemon_swaps_step(d);
}

/* By what a member could speak in an epoch of this configuration. */
static enum petal_failover_voice
voice_of(const struct daemon *d, const struct petal_ring_config *config,
	 unsigned member)
{
	const struct daemon_peer *peer = &d->peers[config->members[member]];
	bool is_self = config->members[member] == d->config.self;
	const char *inc = is_self ? d->inc : peer->inc;
	const char *disk = is_self ? d->disk : peer->disk;

	if (!is_self && (!peer->up || inc[0] == '\0'))
		return PETAL_FAILOVER_NONE;
	if (strcmp(inc, config->incs[member]) == 0)
		return PETAL_FAILOVER_MEMORY;
	return strcmp(disk, config->disks[member]) == 0 ? PETAL_FAILOVER_DISK
							: PETAL_FAILOVER_NONE;
}

static unsigned count_voices(const struct daemon *d,
			     const struct daemon_ring *ring,
			     enum petal_failover_voice least)
{
	unsigned count = 0;

	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++)
		count += voice_of(d, &ring->config, i) >= least;
	return count;
}

/*
 * Memory begins anew with what the disks have: so the members that are there
 * are voters of this epoch, and with an operator's word a new disk's, too.
 */
static void take_disks(const struct daemon *d, struct petal_ring_config *config)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		const struct daemon_peer *peer = &d->peers[config->members[i]];
		bool is_self = config->members[i] == d->config.self;

		if (voice_of(d, config, i) == PETAL_FAILOVER_DISK ||
		    (config->source == PETAL_RING_CONFIG_ONE_DISK &&
		     (is_self || (peer->up && peer->inc[0] != '\0'))))
			strcpy(config->incs[i], is_self ? d->inc : peer->inc);
	}
}

/* F1. */
static void propose_from(struct daemon_ring *ring, uint32_t primary,
			 enum petal_ring_config_source source)
{
	struct petal_ring_config config = ring->config;

	config.epoch++;
	config.primary = primary;
	config.recovering = true;
	config.source = source;
	if (source != PETAL_RING_CONFIG_MEMORY)
		take_disks(ring->daemon, &config);
	daemon_failover_propose(ring, &config);
}

/* What the epoch that is recovered now began with is all there is. */
static void propose_epoch(struct daemon_ring *ring, uint32_t primary)
{
	propose_from(ring, primary, ring->config.source);
}

/* F5. */
static void propose_open(struct daemon_ring *ring)
{
	struct petal_ring_config config = ring->config;

	if (config.source != PETAL_RING_CONFIG_MEMORY)
		config.loss = (struct petal_ring_config_loss){
			.epoch = config.epoch,
			.lsn = ring->sealed.lsn + 1,
		};
	config.recovering = false;
	config.source = PETAL_RING_CONFIG_MEMORY;
	config.sealed = ring->sealed;
	daemon_failover_propose(ring, &config);
}

void daemon_failover_swapped(struct daemon *d, const struct daemon_swap *swap,
			     int status)
{
	const char *name = swap->key + strlen(PETAL_RING_CONFIG_PREFIX);
	struct petal_ring_config config;

	if (swap->ring->used && swap->ring->generation == swap->ring_generation)
		swap->ring->swapping = false;
	/* Our own registry may hear of it later: we need not wait for that. */
	if (status == 0 &&
	    petal_ring_config_parse(name, swap->value, swap->length,
				    swap->version, &config) == 0)
		daemon_epochs_learn(d, &config);
	else
		daemon_epochs_reconcile(d);
}

/* Suspicion. */

static bool misses_primary(const struct daemon *d,
			   const struct daemon_ring *ring)
{
	uint32_t node = ring->config.primary;
	int i = petal_ring_config_member(&ring->config, node);

	if (!d->peers[node].up)
		return true;
	return d->peers[node].inc[0] != '\0' &&
	       strcmp(d->peers[node].inc, ring->config.incs[i]) != 0;
}

static void tell_suspicion(struct daemon *d, struct daemon_ring *ring,
			   const struct petal_record_cursor *end)
{
	if (d->now_ns < ring->tell_ns)
		return;
	ring->tell_ns = d->now_ns + TELL_NS;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		uint32_t node = ring->config.members[i];

		if (i != ring->self && d->peers[node].up)
			daemon_peers_send_suspect(d, node, ring, end);
	}
}

/* A backup, or who was the primary before it lost its memory. */
static void step_member(struct daemon *d, struct daemon_ring *ring)
{
	enum petal_failover_voice voice =
		voice_of(d, &ring->config, ring->self);
	const struct daemon_ring *speaker = daemon_epochs_speaker(ring);
	struct petal_record_cursor end;

	if (!misses_primary(d, ring)) {
		petal_failover_trust(&ring->failover);
		return;
	}
	if (voice == PETAL_FAILOVER_NONE || speaker == NULL)
		return;
	end = speaker->role == DAEMON_PRIMARY ? speaker->primary.accepted
					      : speaker->backup.cursor;
	petal_failover_suspect(&ring->failover, ring->config.epoch, d->now_ns);
	tell_suspicion(d, ring, &end);
	if (ring->swapping)
		return;
	if (voice == PETAL_FAILOVER_MEMORY &&
	    petal_failover_may_run(&ring->failover, &end, d->now_ns))
		propose_epoch(ring, d->config.self);
	else if (ring->accept_loss)
		propose_from(ring, d->config.self, PETAL_RING_CONFIG_ONE_DISK);
	else if (petal_failover_may_run_cold(
			 &ring->failover, &end,
			 count_voices(d, ring, PETAL_FAILOVER_MEMORY),
			 d->now_ns))
		propose_from(ring, d->config.self, PETAL_RING_CONFIG_DISKS);
}

void daemon_failover_suspected(struct daemon *d, uint32_t peer, uint64_t id,
			       uint32_t epoch,
			       const struct petal_record_cursor *end)
{
	struct daemon_ring *ring = daemon_rings_by_id(d, id);
	int i = ring == NULL ? -ENOENT
			     : petal_ring_config_member(&ring->config, peer);

	if (i >= 0)
		petal_failover_heard(&ring->failover, (unsigned)i, epoch,
				     voice_of(d, &ring->config, (unsigned)i),
				     end, d->now_ns);
}

/* Promises. */

static void note_answer(struct daemon *d, uint64_t ring, uint32_t epoch,
			uint32_t peer)
{
	struct daemon_answer *free_one = NULL;

	for (unsigned i = 0; i < DAEMON_ANSWERS_MAX; i++) {
		struct daemon_answer *answer = &d->answers[i];

		if (answer->ring == 0)
			free_one = answer;
		else if (answer->ring == ring && answer->peer == peer &&
			 answer->epoch == epoch)
			return;
	}
	/* Without room it asks again. */
	if (free_one != NULL)
		*free_one = (struct daemon_answer){ ring, epoch, peer };
}

/* F2: stop at once, promise, and answer when that is durable. */
void daemon_failover_fence(struct daemon *d, uint32_t peer, uint64_t id,
			   uint32_t epoch)
{
	struct daemon_ring *ring = daemon_rings_by_id(d, id);

	if (ring == NULL || ring->config.epoch > epoch ||
	    petal_promise_raise(&d->promise, id, epoch) < 0)
		return;
	if (ring->config.epoch < epoch)
		daemon_epochs_fence(ring);
	note_answer(d, id, epoch, peer);
}

static void give_answer(struct daemon *d, const struct daemon_answer *answer)
{
	struct daemon_ring *ring = daemon_rings_by_id(d, answer->ring);
	struct petal_recovery recovery = { 0 };
	struct daemon_ring *speaker;
	bool counts;

	if (ring == NULL || ring->config.epoch > answer->epoch ||
	    petal_promise_epoch(&d->promise, answer->ring) != answer->epoch)
		return;
	speaker = daemon_epochs_speaker(ring);
	/* It is in that epoch already: its heir has what it needs. */
	if (speaker == ring && ring->config.epoch == answer->epoch &&
	    (ring->role == DAEMON_PRIMARY || ring->backup.whole))
		return;
	counts = speaker != NULL &&
		 daemon_epochs_leaves(speaker, &recovery) == 0;
	if (speaker != NULL && !counts)
		fprintf(stderr,
			"petald: ring '%s' is damaged in this memory: it has "
			"no say in what follows\n",
			ring->config.name);
	if (answer->peer == d->config.self)
		daemon_failover_fenced(d, answer->peer, answer->ring,
				       answer->epoch, counts, &recovery.end);
	else
		daemon_peers_send_fenced(d, answer, counts, &recovery.end);
}

static void give_answers(struct daemon *d)
{
	bool any = false;

	for (unsigned i = 0; i < DAEMON_ANSWERS_MAX; i++)
		any |= d->answers[i].ring != 0;
	/* I1: the promise is durable before FENCED is sent. */
	if (!any || petal_promise_flush(&d->promise) < 0)
		return;
	for (unsigned i = 0; i < DAEMON_ANSWERS_MAX; i++) {
		struct daemon_answer answer = d->answers[i];

		d->answers[i].ring = 0;
		if (answer.ring != 0)
			give_answer(d, &answer);
	}
}

void daemon_failover_fenced(struct daemon *d, uint32_t peer, uint64_t id,
			    uint32_t epoch, bool counts,
			    const struct petal_record_cursor *end)
{
	struct daemon_ring *ring = daemon_rings_by_id(d, id);
	enum petal_failover_voice least = PETAL_FAILOVER_MEMORY;
	int i;

	if (ring == NULL || ring->role != DAEMON_HEIR)
		return;
	i = petal_ring_config_member(&ring->config, peer);
	if (i < 0)
		return;
	/* I10: who has forgotten has no vote, unless all have. */
	if (ring->config.source != PETAL_RING_CONFIG_MEMORY)
		least = PETAL_FAILOVER_DISK;
	counts = counts && voice_of(d, &ring->config, (unsigned)i) >= least;
	petal_failover_fenced(&ring->failover, (unsigned)i, epoch, counts, end);
}

/* The heir. */

static void tell_fence(struct daemon *d, struct daemon_ring *ring)
{
	const struct petal_failover *f = &ring->failover;

	if (d->now_ns < ring->tell_ns)
		return;
	ring->tell_ns = d->now_ns + TELL_NS;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		uint32_t node = ring->config.members[i];

		if (f->members[i].answered)
			continue;
		if (i == ring->self)
			daemon_failover_fence(d, node, ring->config.id,
					      ring->config.epoch);
		else if (d->peers[node].up)
			daemon_peers_send_fence(d, node, ring->config.id,
						ring->config.epoch);
	}
}

static void tell_call(struct daemon *d, struct daemon_ring *ring)
{
	if (d->now_ns < ring->tell_ns)
		return;
	ring->tell_ns = d->now_ns + CALL_NS;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		uint32_t node = ring->config.members[i];

		if (i != ring->self && d->peers[node].up &&
		    (ring->role == DAEMON_HEIR ||
		     !ring->primary.members[i].attached))
			daemon_peers_send_call(d, node, &ring->config);
	}
}

/* F4. The others make their memory while we make ours. */
static void inherit(struct daemon *d, struct daemon_ring *ring)
{
	int err;

	ring->tell_ns = 0;
	tell_call(d, ring);
	err = daemon_epochs_inherit(ring);
	if (err == 0) {
		d->counts.failovers++;
		return;
	}
	fprintf(stderr, "petald: cannot follow as the primary of '%s': %s\n",
		ring->config.name, petal_strerror(err));
	ring->tell_ns = d->now_ns + RETRY_NS;
}

static void begin_fencing(struct daemon *d, struct daemon_ring *ring)
{
	petal_failover_suspect(&ring->failover, ring->config.epoch, d->now_ns);
	petal_failover_fence(&ring->failover, ring->config.epoch,
			     ring->config.source == PETAL_RING_CONFIG_ONE_DISK
				     ? 1
				     : PETAL_FAILOVER_QUORUM);
}

/* Who was to answer lost its memory meanwhile: then with disks, if they do. */
static void wait_as_heir(struct daemon *d, struct daemon_ring *ring)
{
	uint64_t end_ns = ring->failover.suspected_ns + PETAL_FAILOVER_COLD_NS;

	tell_fence(d, ring);
	if (ring->swapping)
		return;
	if (ring->accept_loss)
		propose_from(ring, d->config.self, PETAL_RING_CONFIG_ONE_DISK);
	else if (ring->config.source == PETAL_RING_CONFIG_MEMORY &&
		 d->now_ns >= end_ns &&
		 count_voices(d, ring, PETAL_FAILOVER_MEMORY) <
			 PETAL_FAILOVER_QUORUM &&
		 count_voices(d, ring, PETAL_FAILOVER_DISK) >=
			 PETAL_FAILOVER_QUORUM)
		propose_from(ring, d->config.self, PETAL_RING_CONFIG_DISKS);
}

static void step_heir(struct daemon *d, struct daemon_ring *ring)
{
	int best;

	if (ring->failover.fencing == 0)
		begin_fencing(d, ring);
	best = petal_failover_best(&ring->failover);
	if (best < 0) {
		wait_as_heir(d, ring);
		return;
	}
	if (best == (int)ring->self) {
		if (ring->older != NULL)
			inherit(d, ring);
	} else if (!ring->swapping) {
		/* I11: who has more follows, and nothing is fetched. */
		propose_epoch(ring, ring->config.members[best]);
	}
}

/* Whether there would be two to decide what the log was. */
static bool may_follow_itself(const struct daemon_ring *ring)
{
	const struct petal_primary_member *members = ring->primary.members;

	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		if (i != ring->self && members[i].attached &&
		    members[i].voter && members[i].whole)
			return true;
	}
	return false;
}

/* When it is time to go on without who has claimed and does not publish. */
static uint64_t stall_end_ns(const struct daemon *d,
			     const struct daemon_ring *ring)
{
	uint64_t since_ns = petal_primary_stalled_ns(&ring->primary);

	if (since_ns == PETAL_CLOCK_NEVER || ring->config.recovering ||
	    ring->swapping || !may_follow_itself(ring))
		return PETAL_CLOCK_NEVER;
	return since_ns + d->config.stall_ns;
}

void daemon_failover_expel(struct daemon_ring *ring, uint32_t epoch)
{
	struct daemon *d = ring->daemon;
	uint32_t owner = 0;
	int pid = 0;

	if (petal_primary_stalled_ns(&ring->primary) == PETAL_CLOCK_NEVER)
		return;
	if (petal_primary_expel(&ring->primary, &owner) == 0)
		pid = daemon_clients_pid(d, ring, owner);
	d->counts.stalls++;
	fprintf(stderr,
		"petald: ring '%s' goes on in epoch %" PRIu32
		" without a record that process %d has claimed and not "
		"published\n",
		ring->config.name, epoch, pid);
}

/* The journal that a member has now, once it holds all it has to. */
static const char *new_disk(const struct daemon *d,
			    const struct daemon_ring *ring, unsigned i)
{
	const struct petal_primary_member *member = &ring->primary.members[i];
	const struct daemon_peer *peer = &d->peers[ring->config.members[i]];

	if (i == ring->self)
		return ring->primary.disk_pos >= ring->primary.start_pos &&
				       !ring->primary.journal_frozen
			       ? d->disk
			       : NULL;
	return peer->up && member->attached && member->voter && member->whole &&
			       !member->disk_failed &&
			       member->disk_pos >= member->joined_pos
		       ? peer->disk
		       : NULL;
}

/* Another one than the registry names may speak only when that says so. */
static void admit_disks(struct daemon *d, struct daemon_ring *ring)
{
	struct petal_ring_config config = ring->config;
	bool news = false;

	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		const char *disk = new_disk(d, ring, i);

		if (disk == NULL || strcmp(disk, config.disks[i]) == 0)
			continue;
		strcpy(config.disks[i], disk);
		news = true;
	}
	if (news)
		daemon_failover_propose(ring, &config);
}

static void step_primary(struct daemon *d, struct daemon_ring *ring)
{
	if (ring->primary.deposed)
		return;
	if (!ring->config.recovering && !ring->swapping)
		admit_disks(d, ring);
	if (d->now_ns >= stall_end_ns(d, ring))
		propose_epoch(ring, d->config.self);
	if (ring->config.epoch == 1)
		return;
	if (ring->config.recovering && !ring->swapping &&
	    petal_primary_started(&ring->primary))
		propose_open(ring);
	tell_call(d, ring);
}

void daemon_failover_step(struct daemon *d)
{
	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		struct daemon_ring *ring = &d->rings[i];

		if (!daemon_rings_is_current(ring))
			continue;
		if (ring->role == DAEMON_BACKUP || ring->role == DAEMON_LOST)
			step_member(d, ring);
		else if (ring->role == DAEMON_HEIR)
			step_heir(d, ring);
		else if (ring->role == DAEMON_PRIMARY)
			step_primary(d, ring);
	}
	give_answers(d);
}

static bool has_to_tell(const struct daemon *d, const struct daemon_ring *ring)
{
	if (ring->role == DAEMON_BACKUP || ring->role == DAEMON_LOST)
		return ring->failover.suspected != 0;
	if (ring->role == DAEMON_HEIR)
		return true;
	if (ring->role != DAEMON_PRIMARY || ring->config.epoch == 1 ||
	    ring->primary.deposed)
		return false;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		if (i != ring->self && d->peers[ring->config.members[i]].up &&
		    !ring->primary.members[i].attached)
			return true;
	}
	return false;
}

uint64_t daemon_failover_next_ns(const struct daemon *d)
{
	uint64_t next_ns = PETAL_CLOCK_NEVER;

	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		const struct daemon_ring *ring = &d->rings[i];

		if (!daemon_rings_is_current(ring))
			continue;
		if (has_to_tell(d, ring) && ring->tell_ns < next_ns)
			next_ns = ring->tell_ns;
		if (ring->role == DAEMON_PRIMARY && !ring->primary.deposed &&
		    stall_end_ns(d, ring) < next_ns)
			next_ns = stall_end_ns(d, ring);
	}
	return next_ns;
}

/* What an operator asks for. */

static bool is_served(const struct daemon *d, const struct daemon_ring *ring)
{
	if (ring->config.recovering)
		return false;
	if (ring->role == DAEMON_PRIMARY)
		return !ring->primary.deposed;
	return ring->role == DAEMON_BACKUP && !misses_primary(d, ring);
}

static int refuse_recovery(const struct daemon *d,
			   const struct daemon_ring *ring, char *message,
			   size_t room)
{
	const struct daemon_ring *speaker =
		daemon_epochs_speaker((struct daemon_ring *)(uintptr_t)ring);

	if (ring->role == DAEMON_NOT_MEMBER) {
		snprintf(message, room,
			 "this node is no member of the ring: ask at node "
			 "%" PRIu32 ", %" PRIu32 " or %" PRIu32,
			 ring->config.members[0], ring->config.members[1],
			 ring->config.members[2]);
		return -ENODATA;
	}
	if (is_served(d, ring)) {
		snprintf(message, room,
			 "the ring has its primary, node %" PRIu32
			 ": there is nothing to recover",
			 ring->config.primary);
		return -EALREADY;
	}
	if (ring->role == DAEMON_PRIMARY) {
		snprintf(message, room,
			 "the ring is recovered here, and opens when one more "
			 "member is there: start one, were its disk new");
		return -EALREADY;
	}
	/* Those that an operator made voters have nothing to say yet. */
	if (ring->config.source != PETAL_RING_CONFIG_ONE_DISK &&
	    count_voices(d, ring, PETAL_FAILOVER_DISK) >=
		    PETAL_FAILOVER_QUORUM) {
		snprintf(message, room,
			 "two members that know the ring are here, and recover "
			 "it without that loss: wait some seconds");
		return -EAGAIN;
	}
	if (speaker == NULL ||
	    voice_of(d, &ring->config, ring->self) == PETAL_FAILOVER_NONE) {
		snprintf(message, room,
			 "this node's disk is not one that knows the ring: ask "
			 "at the node whose disk does");
		return -ENODATA;
	}
	return 0;
}

int daemon_failover_recover(struct daemon *d, struct daemon_ring *ring,
			    bool accept_loss, char *message, size_t room)
{
	int err = refuse_recovery(d, ring, message, room);
	struct petal_recovery recovery;

	if (err < 0)
		return err;
	if (daemon_epochs_leaves(daemon_epochs_speaker(ring), &recovery) < 0) {
		snprintf(message, room, "this node's log of it is damaged");
		return -PETAL_ECORRUPT;
	}
	if (!accept_loss) {
		snprintf(
			message, room,
			"two disks are needed, and only this one is here, with "
			"the log up to lsn %" PRIu64
			": start another member, with its own disk; only if "
			"both others are gone for good, petal recover "
			"--accept-loss goes on with this one, and what was "
			"acknowledged below disk3 and is not on it is lost",
			recovery.end.lsn);
		return -PETAL_EDATALOSS;
	}
	fprintf(stderr,
		"petald: ring '%s': an operator accepts the loss of what is not "
		"on this disk, which goes to lsn %" PRIu64 "\n",
		ring->config.name, recovery.end.lsn);
	ring->accept_loss = true;
	snprintf(message, room,
		 "it goes on with what is here, up to lsn %" PRIu64,
		 recovery.end.lsn);
	return 0;
}
