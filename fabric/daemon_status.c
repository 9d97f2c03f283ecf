/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What people see of a node: petald(8) names every key.
 */
#include <unistd.h>

#include "fabric/daemon.h"

static json_t *queue_json(const struct petal_queue *queue)
{
	struct petal_queue_counts counts;

	petal_queue_counts(queue, &counts);
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			 "name", queue->name, "enqueued",
			 (json_int_t)counts.enqueued, "ready",
			 (json_int_t)counts.ready, "leased",
			 (json_int_t)counts.leased, "done",
			 (json_int_t)counts.done, "redelivered",
			 (json_int_t)counts.redelivered, "expired",
			 (json_int_t)counts.expired, "reclaimed",
			 (json_int_t)counts.reclaimed, "stale",
			 (json_int_t)counts.stale);
}

static json_t *levels_json(const struct petal_log *log)
{
	json_t *object = json_object();

	for (unsigned i = 0; i < PETAL_LEVEL_COUNT; i++)
		json_object_set_new(
			object, petal_level_name((enum petal_level)i),
			json_integer((json_int_t)atomic_load_explicit(
				&log->marks->level_pos[i],
				memory_order_relaxed)));
	return object;
}

static json_t *member_json(const struct daemon *d,
			   const struct daemon_ring *ring, unsigned i)
{
	const struct petal_primary_member *member = &ring->primary.members[i];
	uint32_t node = ring->config.members[i];
	const char *state = "unknown";

	if (node == d->config.self)
		state = "self";
	else if (ring->role == DAEMON_PRIMARY)
		state = !member->attached                ? "away"
			: member->voter && member->whole ? "in"
							 : "catching up";
	else
		state = d->peers[node].up ? "up" : "away";
	return json_pack("{s:i, s:s}", "node", (int)node, "state", state);
}

static const char *role_name(enum daemon_role role)
{
	switch (role) {
	case DAEMON_PRIMARY:
		return "primary";
	case DAEMON_BACKUP:
		return "backup";
	case DAEMON_HEIR:
		return "heir";
	case DAEMON_LOST:
		return "lost";
	case DAEMON_NOT_MEMBER:
		break;
	}
	return "none";
}

static json_t *ring_json(struct daemon *d, struct daemon_ring *ring)
{
	json_t *members = json_array();
	json_t *queues = json_array();
	json_t *object;

	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++)
		json_array_append_new(members, member_json(d, ring, i));
	object = json_pack("{s:s, s:I, s:I, s:I, s:i, s:s, s:s, s:o}", "name",
			   ring->config.name, "id", (json_int_t)ring->config.id,
			   "data_bytes", (json_int_t)ring->config.data_bytes,
			   "epoch", (json_int_t)ring->config.epoch, "primary",
			   (int)ring->config.primary, "state",
			   petal_ring_config_state(&ring->config), "role",
			   role_name(ring->role), "members", members);
	if (ring->config.loss.epoch > 0)
		json_object_set_new(
			object, "loss",
			json_pack("{s:I, s:I}", "epoch",
				  (json_int_t)ring->config.loss.epoch, "lsn",
				  (json_int_t)ring->config.loss.lsn));
	if (ring->role == DAEMON_PRIMARY) {
		const struct petal_primary_counts *c = &ring->primary.counts;

		for (unsigned i = 0; i < ring->config.queue_count; i++)
			json_array_append_new(queues,
					      queue_json(&ring->log.queues[i]));
		json_object_set_new(object, "levels", levels_json(&ring->log));
		json_object_set_new(
			object, "counts",
			json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
				  "accepted", (json_int_t)c->accepted,
				  "refused", (json_int_t)c->refused, "stale",
				  (json_int_t)c->stale, "padding",
				  (json_int_t)c->padding, "repaired",
				  (json_int_t)c->repaired, "writes",
				  (json_int_t)c->writes, "write_bytes",
				  (json_int_t)c->write_bytes));
	}
	if (ring->role == DAEMON_BACKUP)
		json_object_set_new(
			object, "backup",
			json_pack("{s:b, s:I, s:I, s:I}", "started",
				  ring->backup.started, "memory_pos",
				  (json_int_t)ring->backup.cursor.pos,
				  "disk_pos", (json_int_t)ring->backup.disk_pos,
				  "starts",
				  (json_int_t)ring->backup.counts.starts));
	if (ring->log.marks != NULL)
		json_object_set_new(object, "pages",
				    json_string(petal_segment_pages_name(
					    ring->log.segment.pages)));
	json_object_set_new(object, "queues", queues);
	return object;
}

json_t *daemon_status_rings(struct daemon *d)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		if (daemon_rings_is_current(&d->rings[i]))
			json_array_append_new(list, ring_json(d, &d->rings[i]));
	}
	return list;
}

static json_t *nodes_json(const struct daemon *d)
{
	json_t *list = json_array();

	for (uint32_t i = 0; petal_member_at(&d->members, i) != NULL; i++) {
		const struct petal_member_node *line =
			petal_member_at(&d->members, i);

		json_array_append_new(
			list,
			json_pack("{s:i, s:s, s:s, s:s, s:b}", "node",
				  (int)line->node, "name", line->name, "domain",
				  line->domain, "address", line->address, "up",
				  petal_member_up(&d->members, line->node)));
	}
	return list;
}

static json_t *journal_json(const struct daemon *d)
{
	struct petal_journal_stats stats;

	petal_journal_stats(d->journal, &stats);
	return json_pack("{s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
			 "s:b}",
			 "engine", stats.engine, "direct", stats.direct,
			 "memory_only", stats.memory_only, "refused_full",
			 (json_int_t)stats.refused_full, "capacity_bytes",
			 (json_int_t)stats.capacity_bytes, "used_bytes",
			 (json_int_t)stats.used_bytes, "batches",
			 (json_int_t)stats.batches, "copied_bytes",
			 (json_int_t)stats.copied_bytes, "direct_bytes",
			 (json_int_t)stats.direct_bytes, "replayed_batches",
			 (json_int_t)stats.replayed_batches, "frozen",
			 stats.frozen);
}

static json_t *wire_json(const struct daemon *d)
{
	struct petal_wire_counters c;

	petal_wire_counters(d->wire, &c);
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			 "provider", petal_wire_provider(d->wire), "admitted",
			 (json_int_t)c.admitted, "refused_token",
			 (json_int_t)c.refused_token, "refused_clock",
			 (json_int_t)c.refused_clock, "refused_crossing",
			 (json_int_t)c.refused_crossing, "refused_resources",
			 (json_int_t)c.refused_resources, "halfopen_expired",
			 (json_int_t)c.halfopen_expired, "halfopen_evicted",
			 (json_int_t)c.halfopen_evicted, "busy_sends",
			 (json_int_t)c.busy_sends, "busy_writes",
			 (json_int_t)c.busy_writes);
}

static json_t *registry_json(const struct daemon *d)
{
	struct petal_registry_status s;

	petal_registry_status(d->registry, &s);
	return json_pack("{s:i, s:i, s:i, s:I, s:I, s:I, s:I}", "leader",
			 (int)s.leader, "failed", s.failed, "keys", (int)s.keys,
			 "revision", (json_int_t)s.revision, "conflicts",
			 (json_int_t)s.conflicts, "refused",
			 (json_int_t)s.refused, "swaps_given_up",
			 (json_int_t)d->counts.swaps_given_up);
}

static json_t *counts_json(const struct daemon *d)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "loops",
			 (json_int_t)d->counts.loops, "failovers",
			 (json_int_t)d->counts.failovers, "stalls",
			 (json_int_t)d->counts.stalls, "bad_messages",
			 (json_int_t)d->counts.bad_messages, "bad_requests",
			 (json_int_t)d->counts.bad_requests);
}

json_t *daemon_status_json(struct daemon *d)
{
	return json_pack(
		"{s:b, s:i, s:s, s:I, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o}",
		"ok", 1, "node", (int)d->config.self, "name",
		petal_member_find(&d->members, d->config.self)->name, "pid",
		(json_int_t)getpid(), "incarnation", d->inc, "uptime_ns",
		(json_int_t)(d->now_ns - d->started_ns), "nodes", nodes_json(d),
		"wire", wire_json(d), "registry", registry_json(d), "journal",
		journal_json(d), "counts", counts_json(d), "rings",
		daemon_status_rings(d));
}
