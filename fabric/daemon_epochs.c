/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring is opened when its configuration appears in the registry and names us,
 * and closed when it disappears. A configuration of a later epoch opens it anew,
 * in a slot and memory of its own, and what was retained moves there; the slot
 * before is fenced, speaks for this member until the new one is whole, and goes
 * then. In between the registry only changes which incarnations count. What can
 * go wrong: memory, descriptors or the adapter refuse (we say so once and try
 * again at the next change), the primary of the epoch restarted without its
 * memory (DAEMON_LOST), the bytes make no sense (the ring halts and says so).
 *
 * The memory of a ring in an epoch goes when nobody writes there any more (I16):
 * a write to a region that is gone ends the connection, and with it every other
 * ring of the two nodes. So each member stops, waits for the end of its own
 * writes, tells the others (CLOSED), and waits until they told it, or are gone.
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/clock.h"
#include "shm/error.h"

#define CLOSE_NS PETAL_S(5) /* for others to say that they write no more */
#define LINES_BYTES 8192u   /* the acks page and the orders page */

static enum daemon_role role_of(const struct daemon *d,
				const struct petal_ring_config *config)
{
	int self = petal_ring_config_member(config, d->config.self);

	if (self < 0)
		return DAEMON_NOT_MEMBER;
	if (config->primary != d->config.self)
		return DAEMON_BACKUP;
	if (strcmp(config->incs[self], d->inc) != 0)
		return DAEMON_LOST;
	if (config->recovering)
		return DAEMON_HEIR;
	return config->epoch == 1 ? DAEMON_PRIMARY : DAEMON_LOST;
}

/* Memory. */

static bool has_log(const struct daemon_ring *ring)
{
	return ring->log.marks != NULL;
}

static int open_memory(struct daemon_ring *ring, uint64_t start_pos)
{
	struct petal_log_geometry geometry =
		petal_ring_config_geometry(&ring->config);
	struct daemon *d = ring->daemon;
	int err;

	geometry.start_pos = start_pos;
	err = petal_log_open(&geometry, &ring->log);
	if (err < 0)
		return err;
	err = petal_wire_register(d->wire, ring->log.data,
				  ring->config.data_bytes, &ring->data_region);
	if (err == 0)
		err = petal_wire_register(d->wire, ring->log.acks, LINES_BYTES,
					  &ring->lines_region);
	return err;
}

static void close_ring(struct daemon_ring *ring)
{
	struct daemon *d = ring->daemon;

	if (ring->bell_fd >= 0) {
		daemon_unwatch(d, ring->bell_fd);
		close(ring->bell_fd);
	}
	petal_wire_unregister(ring->data_region);
	petal_wire_unregister(ring->lines_region);
	if (has_log(ring)) {
		atomic_store_explicit(&ring->log.marks->state, PETAL_LOG_CLOSED,
				      memory_order_relaxed);
		if (ring->role == DAEMON_PRIMARY) {
			daemon_rings_signal_all(ring);
			petal_primary_close(&ring->primary);
		}
		petal_log_close(&ring->log);
	}
	ring->used = false;
}

/* The journal. */

static bool journal_is_busy(const struct daemon_ring *ring)
{
	if (ring->role == DAEMON_PRIMARY)
		return ring->primary.journal_busy;
	return ring->role == DAEMON_BACKUP && ring->backup.journal_busy;
}

/* What is in flight may be of an older slot: its state went to the newer one. */
struct daemon_ring *daemon_epochs_journaled(struct daemon_ring *ring)
{
	if (ring == NULL || has_log(ring))
		return ring;
	return ring->older;
}

void daemon_epochs_attach_journal(struct daemon_ring *ring)
{
	struct daemon *d = ring->daemon;

	if (ring->journaling || journal_is_busy(ring) ||
	    daemon_disks_move(ring) < 0)
		return;
	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		if (d->rings[i].used &&
		    d->rings[i].config.id == ring->config.id)
			d->rings[i].journaling = false;
	}
	ring->journaling = true;
}

/* What an epoch leaves to the next. */

/* A disk that the registry does not name may lack what its member promised. */
static bool speaks_by_disk(const struct daemon_ring *ring)
{
	return ring->backup.remembers &&
	       strcmp(ring->config.disks[ring->self], ring->daemon->disk) == 0;
}

struct daemon_ring *daemon_epochs_speaker(struct daemon_ring *ring)
{
	if (ring->role == DAEMON_PRIMARY ||
	    (ring->role == DAEMON_BACKUP &&
	     (ring->backup.whole || speaks_by_disk(ring))))
		return ring;
	return ring->older;
}

int daemon_epochs_leaves(const struct daemon_ring *speaker,
			 struct petal_recovery *ret_recovery)
{
	int err;

	if (speaker->role == DAEMON_PRIMARY)
		err = petal_primary_leaves(&speaker->primary, ret_recovery);
	else
		err = petal_backup_leaves(&speaker->backup, ret_recovery);
	return err == 0 ? petal_recovery_check(ret_recovery, NULL) : err;
}

void daemon_epochs_fence(struct daemon_ring *ring)
{
	if (ring->role == DAEMON_PRIMARY) {
		petal_primary_depose(&ring->primary);
		daemon_rings_signal_all(ring);
	} else if (ring->role == DAEMON_BACKUP) {
		petal_backup_fence(&ring->backup);
	}
}

static void begin_closing(struct daemon_ring *ring)
{
	ring->closing = true;
	ring->close_ns = ring->daemon->now_ns + CLOSE_NS;
}

void daemon_epochs_drop_older(struct daemon_ring *ring)
{
	if (ring->older != NULL)
		begin_closing(ring->older);
	ring->older = NULL;
}

/*
 * What a backup begins an epoch with: what was retained before, without what
 * lies beyond the seal. Whatever is wrong with it, it begins with nothing.
 */
static void inherit_backup(struct daemon_ring *ring,
			   struct petal_recovery *recovery)
{
	if (ring->older == NULL ||
	    daemon_epochs_leaves(ring->older, recovery) < 0)
		recovery->log = NULL;
	if (!ring->config.recovering)
		petal_recovery_cut(recovery, &ring->config.sealed);
}

static int open_backup(struct daemon_ring *ring, bool busy, bool stale)
{
	struct petal_recovery recovery = { 0 };
	int err;

	inherit_backup(ring, &recovery);
	recovery.journal_busy = busy;
	if (stale || recovery.log == NULL) {
		recovery.journal_stale = busy;
		recovery.journaled_to = recovery.base;
		recovery.disk_pos = recovery.base.pos;
	}
	err = open_memory(ring, recovery.log == NULL ? 0 : recovery.base.pos);
	if (err < 0)
		return err;
	if (recovery.log != NULL)
		err = petal_recovery_copy(&recovery, &ring->log);
	if (err < 0)
		return err;
	daemon_rings_open_backup(ring);
	petal_backup_seed(&ring->backup, &recovery);
	if (ring->older == NULL)
		daemon_restore_adopt(ring->daemon, ring);
	return 0;
}

static void say_cold(const struct daemon_ring *ring,
		     const struct petal_recovery *recovery)
{
	fprintf(stderr,
		"petald: ring '%s' is recovered from %s, up to lsn %" PRIu64
		": what was acknowledged after that at %s is lost\n",
		ring->config.name,
		ring->config.source == PETAL_RING_CONFIG_DISKS ? "disks"
							       : "one disk",
		recovery->end.lsn,
		ring->config.source == PETAL_RING_CONFIG_DISKS
			? "levels below disk2"
			: "any level below disk3");
}

int daemon_epochs_inherit(struct daemon_ring *ring)
{
	struct petal_sessions sessions;
	struct petal_recovery recovery;
	int err;

	err = daemon_epochs_leaves(ring->older, &recovery);
	if (err == 0 && ring->config.source != PETAL_RING_CONFIG_MEMORY) {
		say_cold(ring, &recovery);
		sessions = *recovery.sessions;
		petal_sessions_doubt(&sessions, ring->config.epoch);
		recovery.sessions = &sessions;
	}
	if (err == 0)
		err = open_memory(ring, recovery.base.pos);
	if (err == 0)
		err = petal_recovery_copy(&recovery, &ring->log);
	if (err == 0)
		err = daemon_rings_open_primary(ring, &recovery);
	if (err < 0)
		return err;
	ring->role = DAEMON_PRIMARY;
	ring->sealed = recovery.end;
	daemon_epochs_drop_older(ring);
	return 0;
}

/* Opening. */

static struct daemon_ring *free_slot(struct daemon *d)
{
	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		if (!d->rings[i].used)
			return &d->rings[i];
	}
	return NULL;
}

static struct daemon_ring *begin_slot(struct daemon *d,
				      const struct petal_ring_config *config,
				      struct daemon_ring *older)
{
	struct daemon_ring *ring = free_slot(d);

	if (ring == NULL || (older == NULL && daemon_rings_full(d))) {
		if (config->version > d->said_version)
			fprintf(stderr,
				"petald: ring '%s' is one more than the %u "
				"that a node keeps\n",
				config->name, DAEMON_RINGS_MAX);
		return NULL;
	}
	memset(ring, 0, sizeof(*ring));
	ring->used = true;
	ring->seen = true;
	ring->daemon = d;
	ring->config = *config;
	ring->generation = ++d->next_generation;
	ring->bell_fd = -1;
	ring->older = older;
	ring->role = role_of(d, config);
	if (ring->role != DAEMON_NOT_MEMBER)
		ring->self = (unsigned)petal_ring_config_member(config,
								d->config.self);
	petal_failover_open(&ring->failover, ring->self);
	return ring;
}

/* The journal's log of a ring in a slot of its own, to speak for this disk. */
static struct daemon_ring *recall(struct daemon_ring *lost)
{
	struct daemon *d = lost->daemon;
	struct daemon_ring *ring = begin_slot(d, &lost->config, lost);

	if (ring == NULL)
		return NULL;
	ring->older = NULL;
	ring->role = DAEMON_BACKUP;
	ring->superseded = true;
	if (open_memory(ring, 0) < 0) {
		close_ring(ring);
		return NULL;
	}
	daemon_rings_open_backup(ring);
	daemon_restore_adopt(d, ring);
	petal_backup_fence(&ring->backup);
	if (speaks_by_disk(ring))
		return ring;
	close_ring(ring);
	return NULL;
}

static void open_failed(struct daemon_ring *ring, int err)
{
	struct daemon *d = ring->daemon;

	if (ring->config.version > d->said_version)
		fprintf(stderr, "petald: cannot open ring '%s': %s\n",
			ring->config.name, petal_strerror(err));
	daemon_epochs_drop_older(ring);
	close_ring(ring);
}

static void open_ring(struct daemon *d, const struct petal_ring_config *config,
		      struct daemon_ring *older, bool busy, bool stale)
{
	struct daemon_ring *ring = begin_slot(d, config, older);
	int err = 0;

	if (ring == NULL)
		return;
	if (ring->role == DAEMON_PRIMARY) {
		err = open_memory(ring, 0);
		if (err == 0)
			err = daemon_rings_open_primary(ring, NULL);
	} else if (ring->role == DAEMON_BACKUP) {
		err = open_backup(ring, busy, stale);
	}
	if (err < 0)
		open_failed(ring, err);
	if (ring->role == DAEMON_NOT_MEMBER)
		daemon_epochs_drop_older(ring); /* we were replaced */
	if (ring->role != DAEMON_LOST)
		return;
	if (older == NULL)
		ring->older = recall(ring);
	fprintf(stderr,
		"petald: ring '%s' had its primary here, and its memory is "
		"gone: it stays closed until another member follows\n",
		config->name);
}

/* A later epoch: the slot of the one before is fenced, and may speak on. */
static void supersede(struct daemon *d, struct daemon_ring *ring,
		      const struct petal_ring_config *config)
{
	struct daemon_ring *journaled = daemon_epochs_journaled(ring);
	bool busy = journaled != NULL && journal_is_busy(journaled);
	struct daemon_ring *speaker;

	daemon_epochs_fence(ring);
	if (ring->role == DAEMON_PRIMARY && config->primary == d->config.self)
		daemon_failover_expel(ring, config->epoch);
	speaker = daemon_epochs_speaker(ring);
	ring->superseded = true;
	if (speaker == ring) {
		daemon_epochs_drop_older(ring);
	} else {
		ring->older = NULL;
		begin_closing(ring);
	}
	open_ring(d, config, speaker, busy, speaker != journaled);
}

static void update_ring(struct daemon *d, struct daemon_ring *ring,
			const struct petal_ring_config *config)
{
	ring->config.version = config->version;
	ring->config.recovering = config->recovering;
	ring->config.source = config->source;
	ring->config.sealed = config->sealed;
	ring->config.loss = config->loss;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		uint32_t node = config->members[i];

		strcpy(ring->config.incs[i], config->incs[i]);
		strcpy(ring->config.disks[i], config->disks[i]);
		if (ring->role == DAEMON_PRIMARY && i != ring->self &&
		    d->peers[node].up &&
		    strcmp(d->peers[node].inc, config->incs[i]) == 0)
			petal_primary_admitted(&ring->primary, i);
	}
}

void daemon_epochs_learn(struct daemon *d,
			 const struct petal_ring_config *config)
{
	struct daemon_ring *ring = daemon_rings_by_id(d, config->id);

	if (ring == NULL) {
		open_ring(d, config, NULL, false, false);
		return;
	}
	if (config->version <= ring->config.version)
		return; /* another way was faster */
	if (config->epoch > ring->config.epoch)
		supersede(d, ring, config);
	else
		update_ring(d, ring, config);
}

/* Versions are of one counter, so what is no news has been said. */
struct visit {
	struct daemon *daemon;
	uint64_t version; /* the highest met */
};

static int visit_config(void *arg, const char *key, const void *value,
			uint32_t length, uint64_t version)
{
	const char *name = key + strlen(PETAL_RING_CONFIG_PREFIX);
	struct visit *visit = arg;
	struct daemon *d = visit->daemon;
	struct petal_ring_config config;
	struct daemon_ring *ring;

	if (version > visit->version)
		visit->version = version;
	if (petal_ring_config_parse(name, value, length, version, &config) <
	    0) {
		if (version > d->said_version)
			fprintf(stderr,
				"petald: the registry's value of '%s' makes no "
				"sense\n",
				key);
		return 0;
	}
	daemon_epochs_learn(d, &config);
	ring = daemon_rings_by_id(d, config.id);
	if (ring != NULL)
		ring->seen = true;
	return 0;
}

void daemon_epochs_reconcile(struct daemon *d)
{
	struct visit visit = { .daemon = d, .version = d->said_version };

	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++)
		d->rings[i].seen = false;
	petal_registry_each(d->registry, PETAL_RING_CONFIG_PREFIX, visit_config,
			    &visit);
	d->said_version = visit.version;
	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		struct daemon_ring *ring = &d->rings[i];

		if (!daemon_rings_is_current(ring) || ring->seen)
			continue;
		petal_promise_forget(&d->promise, ring->config.id);
		daemon_epochs_drop_older(ring);
		begin_closing(ring);
	}
}

void daemon_epochs_stop(struct daemon *d)
{
	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		if (d->rings[i].used)
			close_ring(&d->rings[i]);
	}
}

/* Closing. */

static bool say_closed(struct daemon *d, const struct daemon_ring *ring)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		uint32_t node = ring->config.members[i];

		if (i != ring->self && d->peers[node].up &&
		    daemon_peers_send_closed(d, node, ring->config.id,
					     ring->config.epoch, false) < 0)
			return false;
	}
	return true;
}

/* Whether another member may still write to our memory. */
static bool is_written_to(const struct daemon *d,
			  const struct daemon_ring *ring)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		const struct daemon_member *member = &ring->members[i];
		uint32_t node = ring->config.members[i];

		if (i == ring->self || !d->peers[node].up || member->closed)
			continue;
		if (ring->role == DAEMON_PRIMARY ? member->keyed
						 : node == ring->config.primary)
			return true;
	}
	return false;
}

/* What is in flight to the disk is read from the ring's memory. */
static bool journal_let_go(struct daemon *d, struct daemon_ring *ring)
{
	const struct daemon_ring *later =
		daemon_rings_by_id(d, ring->config.id);

	/* The slot of the later epoch takes its journal over, as a member. */
	if (ring->superseded && later != NULL &&
	    later->role != DAEMON_NOT_MEMBER)
		return !ring->journaling;
	return daemon_disks_forget(d, ring->config.id);
}

void daemon_epochs_step_closing(struct daemon *d, struct daemon_ring *ring)
{
	if (daemon_rings_flush(ring))
		return;
	if (has_log(ring) && !ring->said_closed)
		ring->said_closed = say_closed(d, ring);
	if (has_log(ring) && d->now_ns < ring->close_ns &&
	    (!ring->said_closed || is_written_to(d, ring)))
		return;
	if (journal_let_go(d, ring))
		close_ring(ring);
}
