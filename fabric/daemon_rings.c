/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings at work: what the primary and the backup ask of their surroundings, what
 * other nodes tell us, and the step. Which slot has which role is decided in
 * daemon_epochs.c.
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shm/clock.h"
#include "shm/error.h"

#define OFFER_NS PETAL_MS(200)
#define CLOSE_NS PETAL_S(5) /* for others to say that they write no more */
#define LINES_BYTES 8192u   /* the acks page and the orders page */
#define ORDERS_OFFSET 4096u

/* A cookie names ring slot, member, flight and the ring's generation. */
#define FLIGHT_LAST 15u

static uint64_t cookie_of(const struct daemon_ring *ring, unsigned member,
			  unsigned flight)
{
	return (uint64_t)ring->generation << 32 | member << 16 | flight << 8 |
	       (uint64_t)(ring - ring->daemon->rings);
}

bool daemon_rings_is_current(const struct daemon_ring *ring)
{
	return ring->used && !ring->closing && !ring->superseded;
}

struct daemon_ring *daemon_rings_find(struct daemon *d, const char *name)
{
	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		if (daemon_rings_is_current(&d->rings[i]) &&
		    strcmp(d->rings[i].config.name, name) == 0)
			return &d->rings[i];
	}
	return NULL;
}

struct daemon_ring *daemon_rings_by_id(struct daemon *d, uint64_t id)
{
	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		if (daemon_rings_is_current(&d->rings[i]) &&
		    d->rings[i].config.id == id)
			return &d->rings[i];
	}
	return NULL;
}

/* What closes still counts, but not what an epoch has left to the next. */
bool daemon_rings_full(const struct daemon *d)
{
	unsigned count = 0;

	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++)
		count += d->rings[i].used && !d->rings[i].superseded;
	return count >= DAEMON_RINGS_MAX;
}

/* What the primary and the backup ask for. */

/* A line: what it says is true at any time, so nobody has to hear of it. */
static int put_line(struct daemon_ring *ring, unsigned member, const void *line,
		    uint64_t offset)
{
	if (!ring->members[member].keyed)
		return -ENOTCONN;
	return petal_wire_put(ring->daemon->wire, ring->config.members[member],
			      line, PETAL_LOG_LINE_BYTES,
			      &ring->members[member].lines, offset);
}

static int push_data(struct daemon_ring *ring, unsigned member, uint64_t pos,
		     uint64_t length)
{
	struct daemon_member *m = &ring->members[member];
	int err = petal_wire_push(
		ring->daemon->wire, ring->config.members[member],
		ring->data_region, petal_log_at(&ring->log, pos), length,
		&m->data, pos & (ring->config.data_bytes - 1));

	if (err == 0 && !m->pushed) {
		m->pushed = true;
		m->pushed_pos = pos;
	}
	return err;
}

/* Of what was pushed before, it tells as well. */
static int write_data(struct daemon_ring *ring, unsigned member, uint64_t pos,
		      uint64_t length)
{
	struct daemon_member *m = &ring->members[member];
	unsigned i = 0;
	int err;

	while (i < DAEMON_FLIGHTS && m->flights[i].busy)
		i++;
	if (i == DAEMON_FLIGHTS)
		return -EAGAIN;
	err = petal_wire_write(ring->daemon->wire, ring->config.members[member],
			       ring->data_region, petal_log_at(&ring->log, pos),
			       length, &m->data,
			       pos & (ring->config.data_bytes - 1), true,
			       ring->config.id, cookie_of(ring, member, i));
	if (err < 0)
		return err;
	ring->unreported++;
	m->flights[i] = (struct daemon_flight){ true,
						m->pushed ? m->pushed_pos : pos,
						pos + length };
	m->pushed = false;
	return 0;
}

static int port_write(void *self, unsigned member, uint64_t pos,
		      uint64_t length, bool told)
{
	return told ? write_data(self, member, pos, length)
		    : push_data(self, member, pos, length);
}

/*
 * Before our memory goes, nothing may still be read from it: a last write, of
 * nothing, ends after all that was pushed. Returns whether some are under way.
 */
bool daemon_rings_flush(struct daemon_ring *ring)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		struct daemon_member *m = &ring->members[i];
		int err;

		if (!m->pushed)
			continue;
		err = petal_wire_write(ring->daemon->wire,
				       ring->config.members[i],
				       ring->data_region, ring->log.data, 0,
				       &m->data, 0, true, ring->config.id,
				       cookie_of(ring, i, FLIGHT_LAST));
		/* After any other failure the connection reads no more. */
		m->pushed = err == -EAGAIN;
		ring->unreported += err == 0;
		if (m->pushed)
			return true;
	}
	return ring->unreported > 0;
}

static void port_order(void *self, unsigned member)
{
	struct daemon_ring *ring = self;

	ring->members[member].order_due =
		put_line(ring, member, ring->log.orders, ORDERS_OFFSET) < 0;
}

static int port_acknowledge(void *self)
{
	struct daemon_ring *ring = self;
	int primary =
		petal_ring_config_member(&ring->config, ring->config.primary);

	return put_line(ring, (unsigned)primary, &ring->log.acks[ring->self],
			ring->self * sizeof(*ring->log.acks));
}

static int port_journal(void *self, const struct petal_record_cursor *from,
			const struct petal_record_cursor *to, uint64_t trim_pos)
{
	struct daemon_ring *ring = self;

	(void)trim_pos; /* what it may forget of it: see fabric/runs.h */
	return daemon_disks_journal(ring, from, to,
				    ring->role == DAEMON_PRIMARY
					    ? ring->primary.start_pos
					    : ring->backup.whole_pos);
}

/* Ask the registry to count a member under the incarnation it has now. */
static void port_admit(void *self, unsigned member)
{
	struct daemon_ring *ring = self;
	struct daemon *d = ring->daemon;
	struct petal_ring_config config = ring->config;
	char key[PETAL_REGISTRY_KEY_MAX + 1];
	struct daemon_swap *swap = NULL;
	json_t *object;
	char *text;

	/* The epoch is opened first: two swaps at a time would collide. */
	if (config.recovering) {
		ring->primary.members[member].asked = false;
		return;
	}
	strcpy(config.incs[member], d->peers[config.members[member]].inc);
	snprintf(key, sizeof(key), PETAL_RING_CONFIG_PREFIX "%s", config.name);
	object = petal_ring_config_json(&config);
	text = json_dumps(object, JSON_COMPACT);
	json_decref(object);
	if (text != NULL)
		swap = daemon_swaps_add(d, DAEMON_SWAP_ADMIT, key,
					config.version, text,
					(uint32_t)strlen(text));
	free(text);
	if (swap == NULL) {
		ring->primary.members[member].asked = false;
		return;
	}
	swap->ring = ring;
	swap->ring_generation = ring->generation;
	swap->member = member;
}

static void port_signal(void *self, uint32_t owner)
{
	struct daemon_ring *ring = self;

	daemon_clients_signal(ring->daemon, ring, owner);
}

void daemon_rings_admitted(struct daemon *d, const struct daemon_swap *swap,
			   int status)
{
	struct daemon_ring *ring = swap->ring;

	if (!ring->used || ring->generation != swap->ring_generation)
		return;
	/* On success the configuration itself tells, like on every node. */
	if (status < 0)
		ring->primary.members[swap->member].asked = false;
	daemon_epochs_reconcile(d);
}

/* Roles. */

int daemon_rings_open_primary(struct daemon_ring *ring,
			      const struct petal_recovery *recovery)
{
	struct petal_primary_port port = {
		.self = ring,
		.write = port_write,
		.order = port_order,
		.journal = port_journal,
		.admit = port_admit,
		.signal = port_signal,
	};

	ring->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ring->bell_fd < 0)
		return -errno;
	daemon_watch(ring->daemon, ring->bell_fd, DAEMON_TAG_BELL,
		     (unsigned)(ring - ring->daemon->rings));
	return petal_primary_open(&ring->primary, &ring->log, ring->self, &port,
				  recovery);
}

void daemon_rings_open_backup(struct daemon_ring *ring)
{
	struct petal_backup_port port = {
		.self = ring,
		.acknowledge = port_acknowledge,
		.journal = port_journal,
	};

	petal_backup_open(&ring->backup, &ring->log, ring->self, &port);
}

void daemon_rings_signal_all(struct daemon_ring *ring)
{
	for (uint32_t i = 1; i < PETAL_LOG_OWNERS; i++) {
		if (ring->primary.owners[i].attached)
			daemon_clients_signal(ring->daemon, ring, i);
	}
}

/* What other nodes do. */

/*
 * Whether our START is on its way to what it offers now. To another offer it
 * will not do: a member takes the answer to its last one only, for its journal
 * may have given it more since the one before. What is in flight ends first.
 */
static bool is_answered(const struct daemon_ring *ring, unsigned i,
			const struct petal_record_cursor *end)
{
	const struct petal_primary_member *member = &ring->primary.members[i];
	const struct petal_record_cursor *offered = &ring->members[i].offered;

	if (!member->attached || member->waiting)
		return false;
	return member->writes > 0 ||
	       (offered->pos == end->pos && offered->crc == end->crc);
}

void daemon_rings_offered(struct daemon *d, uint32_t peer,
			  const struct daemon_offer *offer)
{
	struct daemon_ring *ring = daemon_rings_by_id(d, offer->ring);
	struct petal_record_cursor start;
	bool voter, exact;
	int i;

	if (ring == NULL || ring->role != DAEMON_PRIMARY ||
	    ring->config.epoch != offer->epoch)
		return;
	i = petal_ring_config_member(&ring->config, peer);
	if (i < 0 || d->peers[peer].inc[0] == '\0' ||
	    offer->keys.data.bytes < ring->config.data_bytes ||
	    offer->keys.lines.bytes < LINES_BYTES) {
		d->counts.bad_messages++;
		return;
	}
	if (is_answered(ring, (unsigned)i, &offer->end))
		return; /* it offered itself again before our START came */
	ring->members[i].data = offer->keys.data;
	ring->members[i].lines = offer->keys.lines;
	ring->members[i].keyed = true;
	ring->members[i].offered = offer->end;
	voter = strcmp(d->peers[peer].inc, ring->config.incs[i]) == 0;
	petal_primary_join(&ring->primary, (unsigned)i, &offer->end, voter,
			   offer->exact, &start, &exact);
	if (daemon_peers_send_start(d, ring, (unsigned)i, &offer->end, &start,
				    exact) < 0)
		petal_primary_leave(&ring->primary, (unsigned)i);
}

void daemon_rings_started(struct daemon *d, uint32_t peer,
			  const struct daemon_start *start)
{
	struct daemon_ring *ring = daemon_rings_by_id(d, start->ring);
	int i;

	if (ring == NULL || ring->role != DAEMON_BACKUP ||
	    ring->backup.started || ring->backup.fenced ||
	    ring->config.epoch != start->epoch ||
	    ring->config.primary != peer || start->lines.bytes < LINES_BYTES ||
	    start->start.pos % PETAL_RECORD_ALIGN != 0)
		return;
	/* An older offer's answer: to what we offered since, one will come. */
	if (start->offered.pos != ring->backup.cursor.pos ||
	    start->offered.crc != ring->backup.cursor.crc)
		return;
	i = petal_ring_config_member(&ring->config, peer);
	ring->members[i].lines = start->lines;
	ring->members[i].keyed = true;
	if (petal_backup_start(&ring->backup, &start->start, start->whole_pos,
			       start->exact ? NULL : &start->sessions) == 1)
		ring->offer_ns = 0;
}

void daemon_rings_called(struct daemon *d, uint64_t id, uint32_t epoch)
{
	struct daemon_ring *ring = daemon_rings_by_id(d, id);

	/* What we offered an heir it could not take. */
	if (ring != NULL && ring->role == DAEMON_BACKUP &&
	    ring->config.epoch == epoch)
		ring->offer_ns = 0;
}

bool daemon_rings_closed(struct daemon *d, uint32_t peer, uint64_t id,
			 uint32_t epoch)
{
	for (unsigned n = 0; n < DAEMON_SLOTS_MAX; n++) {
		struct daemon_ring *ring = &d->rings[n];
		int i;

		if (!ring->used || ring->config.id != id ||
		    ring->config.epoch != epoch)
			continue;
		i = petal_ring_config_member(&ring->config, peer);
		if (i >= 0)
			ring->members[i].closed = true;
		return true;
	}
	return false;
}

void daemon_rings_peer_down(struct daemon *d, uint32_t peer)
{
	for (unsigned n = 0; n < DAEMON_SLOTS_MAX; n++) {
		struct daemon_ring *ring = &d->rings[n];
		int i;

		if (!ring->used)
			continue;
		i = petal_ring_config_member(&ring->config, peer);
		if (i < 0)
			continue;
		memset(&ring->members[i], 0, sizeof(ring->members[i]));
		if (ring->role == DAEMON_PRIMARY)
			petal_primary_leave(&ring->primary, (unsigned)i);
		else if (ring->role == DAEMON_BACKUP &&
			 ring->config.primary == peer)
			petal_backup_stop(&ring->backup);
		ring->offer_ns = 0;
	}
}

/* Writes may end in another order: what lies before all that are under way. */
static uint64_t written_pos(const struct daemon_member *m)
{
	uint64_t pos = m->ended_pos;

	for (unsigned i = 0; i < DAEMON_FLIGHTS; i++) {
		if (m->flights[i].busy && m->flights[i].from_pos < pos)
			pos = m->flights[i].from_pos;
	}
	return pos;
}

void daemon_rings_wrote(struct daemon *d, uint64_t cookie, int status)
{
	unsigned slot = cookie & 0xff;
	unsigned flight = cookie >> 8 & 0xff;
	unsigned member = cookie >> 16 & 0xff;
	struct daemon_member *m;
	struct daemon_ring *ring;

	if (slot >= DAEMON_SLOTS_MAX)
		return;
	ring = &d->rings[slot];
	if (!ring->used || ring->generation != cookie >> 32)
		return;
	ring->unreported--;
	if (flight >= DAEMON_FLIGHTS)
		return;
	m = &ring->members[member];
	m->flights[flight].busy = false;
	if (status == 0 && m->flights[flight].end_pos > m->ended_pos)
		m->ended_pos = m->flights[flight].end_pos;
	petal_primary_wrote(&ring->primary, member,
			    status == 0 ? written_pos(m) : 0);
}

void daemon_rings_landed(struct daemon *d, uint32_t peer, uint64_t data)
{
	struct daemon_ring *ring = daemon_rings_by_id(d, data);

	if (ring != NULL && ring->role == DAEMON_BACKUP &&
	    ring->config.primary == peer)
		petal_backup_landed(&ring->backup);
}

void daemon_rings_journaled(struct daemon *d,
			    const struct petal_journal_done *done)
{
	struct daemon_ring *ring = daemon_epochs_journaled(
		daemon_rings_by_id(d, PETAL_RUNS_KEY_RING(done->ring)));

	if (done->status < 0)
		fprintf(stderr,
			"petald: the journal failed (%s): this disk no longer "
			"counts\n",
			petal_strerror(done->status));
	daemon_disks_durable(d, done);
	if (ring == NULL)
		return;
	if (ring->role == DAEMON_PRIMARY)
		petal_primary_journaled(&ring->primary, done->to_pos,
					done->status);
	else if (ring->role == DAEMON_BACKUP)
		petal_backup_journaled(&ring->backup, done->to_pos,
				       done->status);
}

/* Stepping. */

/*
 * A ring at rest appends nothing that would tell the journal, and what it no
 * longer needs would keep the space of all others: ours, and the backups'.
 */
static void tell_trim(struct daemon_ring *ring)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		if (ring->members[i].order_due)
			port_order(ring, i);
	}
	daemon_disks_trim(ring, ring->primary.trim_pos,
			  ring->primary.accepted.pos, ring->primary.disk_pos);
}

/* The members' lines: nothing tells that they have changed. */
static void read_acks(struct daemon *d, struct daemon_ring *ring)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		if (petal_primary_acked(&ring->primary, i) >= 0)
			continue;
		/* It counts no more, nor is it looked at until it is back. */
		petal_primary_leave(&ring->primary, i);
		d->counts.bad_messages++;
		petal_wire_drop(d->wire, ring->config.members[i]);
	}
}

/*
 * An arm holds until somebody rings, which daemon_rings_rang() hears of. Only
 * when its nap is over it is made again, and then for long: who arms anew in
 * each round would pay for a barrier in each.
 */
static void arm_bell(struct daemon *d, struct daemon_ring *ring)
{
	int limit_ms;

	if (ring->bell_armed && d->now_ns < ring->nap_ns)
		return;
	/* Full of what somebody mad has written it would ring no more. */
	if (ring->bell_armed)
		daemon_drain_fd(ring->bell_fd);
	limit_ms = petal_doorbell_arm_fd(&ring->log.marks->node_bell);
	ring->bell_armed = true;
	ring->nap_ns = limit_ms < 0 ? PETAL_CLOCK_NEVER
				    : d->now_ns + PETAL_MS(limit_ms);
}

static void disarm_bell(struct daemon_ring *ring)
{
	petal_doorbell_disarm(&ring->log.marks->node_bell);
	ring->bell_armed = false;
	ring->nap_ns = PETAL_CLOCK_NEVER;
}

void daemon_rings_rang(struct daemon *d, unsigned slot)
{
	struct daemon_ring *ring = &d->rings[slot];

	/* The ringer may not have come so far yet; it tells nobody twice. */
	if (ring->used && ring->role == DAEMON_PRIMARY)
		disarm_bell(ring);
}

static int step_primary(struct daemon *d, struct daemon_ring *ring)
{
	bool halted = ring->primary.halted;
	int more;

	daemon_epochs_attach_journal(ring);
	read_acks(d, ring);
	/* Armed before the look, so that no publish goes unseen. */
	arm_bell(d, ring);
	more = petal_primary_step(&ring->primary, d->now_ns);
	/* Nobody sleeps now, so nobody shall ring, nor we pay. */
	if (more > 0)
		disarm_bell(ring);
	if (more < 0 && !halted) {
		daemon_rings_signal_all(ring);
		fprintf(stderr,
			"petald: ring '%s' is halted: its memory makes no "
			"sense at position %" PRIu64 "\n",
			ring->config.name, ring->primary.accepted.pos);
	}
	tell_trim(ring);
	return more > 0;
}

/* The journal reads from where the primary will write. */
static bool may_offer(const struct daemon *d, const struct daemon_ring *ring)
{
	const struct daemon_peer *primary = &d->peers[ring->config.primary];

	/* I1: we take no part in an epoch below the one that we promised. */
	return !ring->backup.started && !ring->backup.fenced &&
	       !ring->backup.journal_busy && primary->up &&
	       primary->inc[0] != '\0' &&
	       petal_promise_epoch(&d->promise, ring->config.id) <=
		       ring->config.epoch;
}

static int step_backup(struct daemon *d, struct daemon_ring *ring)
{
	int more;

	daemon_epochs_attach_journal(ring);
	if (may_offer(d, ring) && d->now_ns >= ring->offer_ns) {
		daemon_peers_send_offer(d, ring);
		ring->offer_ns = d->now_ns + OFFER_NS;
	}
	more = petal_backup_step(&ring->backup);
	daemon_disks_trim(ring, ring->backup.trim_pos, ring->backup.seen_pos,
			  ring->backup.disk_pos);
	if (ring->older != NULL && ring->backup.whole)
		daemon_epochs_drop_older(ring);
	return more;
}

int daemon_rings_step(struct daemon *d)
{
	int more = 0;

	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		struct daemon_ring *ring = &d->rings[i];

		if (!ring->used)
			continue;
		if (ring->closing) {
			daemon_epochs_step_closing(d, ring);
		} else if (ring->superseded) {
			continue;
		} else if (ring->role == DAEMON_PRIMARY) {
			more |= step_primary(d, ring);
		} else if (ring->role == DAEMON_BACKUP) {
			more |= step_backup(d, ring);
		}
	}
	return more;
}

/*
 * Whether bytes have come since the step: petal_wire_arm() moves them, too, and
 * no descriptor tells of them any more.
 */
bool daemon_rings_news(struct daemon *d)
{
	bool any = false;

	for (unsigned i = 0; i < DAEMON_SLOTS_MAX && !any; i++) {
		struct daemon_ring *ring = &d->rings[i];

		if (!daemon_rings_is_current(ring))
			continue;
		if (ring->role == DAEMON_PRIMARY)
			any = petal_primary_news(&ring->primary);
		else if (ring->role == DAEMON_BACKUP)
			any = petal_backup_news(&ring->backup);
	}
	return any;
}

static uint64_t primary_next_ns(const struct daemon_ring *ring)
{
	uint64_t next_ns = petal_primary_next_ns(&ring->primary);

	return ring->nap_ns < next_ns ? ring->nap_ns : next_ns;
}

uint64_t daemon_rings_next_ns(const struct daemon *d)
{
	uint64_t next_ns = PETAL_CLOCK_NEVER;

	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		const struct daemon_ring *ring = &d->rings[i];
		uint64_t ring_ns = PETAL_CLOCK_NEVER;

		if (!ring->used)
			continue;
		if (ring->closing)
			/* Later than that it waits for a descriptor. */
			ring_ns = d->now_ns < ring->close_ns
					  ? ring->close_ns
					  : PETAL_CLOCK_NEVER;
		else if (ring->role == DAEMON_PRIMARY && !ring->primary.halted)
			ring_ns = primary_next_ns(ring);
		else if (ring->role == DAEMON_BACKUP && may_offer(d, ring))
			ring_ns = ring->offer_ns;
		if (ring_ns < next_ns)
			next_ns = ring_ns;
	}
	return next_ns;
}
