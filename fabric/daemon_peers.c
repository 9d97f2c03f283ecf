/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages are structs of fixed size in the machine's byte order, which
 * the first one (HELLO) pins down: nodes of another order are dropped. What
 * comes in is copied, and its length and ranges are checked, before use.
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shm/clock.h"
#include "shm/error.h"

#define MESSAGE_MAGIC 0x31746550u
#define MESSAGE_VERSION 3u
#define EVENTS_MAX 64u

enum message_type {
	MESSAGE_HELLO = 1,
	MESSAGE_BEAT,
	MESSAGE_OFFER,
	MESSAGE_START,
	MESSAGE_SWAP,
	MESSAGE_SWAPPED,
	MESSAGE_CLOSED,
	MESSAGE_SUSPECT,
	MESSAGE_FENCE,
	MESSAGE_FENCED,
	MESSAGE_CALL,
};

struct message_head {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
};

struct message_hello {
	struct message_head head;
	char inc[PETAL_RING_CONFIG_INC_BYTES];
	char disk[PETAL_RING_CONFIG_INC_BYTES];
	char reserved[6];
};

struct message_beat {
	struct message_head head;
};

/* A backup to its primary: how far its log goes, and where to write. */
struct message_offer {
	struct message_head head;
	uint64_t ring;
	uint32_t epoch;
	uint32_t exact; /* its sessions are those of its log */
	struct petal_wire_key data;
	struct petal_wire_key lines;
	struct petal_record_cursor end;
};

/* The answer: where its log goes on, and the sessions that it lacks. */
struct message_start {
	struct message_head head;
	uint64_t ring;
	uint32_t epoch;
	uint32_t exact; /* its own are right, and none follow */
	struct petal_wire_key lines;
	struct petal_record_cursor offered; /* which offer is answered */
	struct petal_record_cursor start;
	uint64_t whole_pos;
	uint64_t forgotten;
	struct petal_session sessions[];
};

static_assert(sizeof(struct message_start) +
			      PETAL_SESSIONS_MAX *
				      sizeof(struct petal_session) <=
		      PETAL_WIRE_MESSAGE_MAX,
	      "a table of sessions goes with one START");

struct message_swap {
	struct message_head head;
	uint64_t cookie;
	uint64_t expected;
	uint32_t length;
	char key[PETAL_REGISTRY_KEY_MAX + 1];
	char value[];
};

struct message_swapped {
	struct message_head head;
	uint64_t cookie;
	uint64_t revision; /* of the leader's registry, by then */
	uint64_t version;  /* of the key */
	int32_t status;
	uint32_t reserved;
};

/* A member has written its last to the others' memory of an epoch. */
struct message_closed {
	struct message_head head;
	uint64_t ring;
	uint32_t epoch;
	uint32_t is_answer; /* to one of a ring that we do not have */
};

/* SUSPECT: its primary is missed. FENCE: promise. FENCED: promised. */
struct message_epoch {
	struct message_head head;
	uint64_t ring;
	uint32_t epoch;
	uint32_t counts; /* SUSPECT: there is a log. FENCED: and it is whole */
	struct petal_record_cursor end;
};

/* An epoch has begun: this is its configuration, offer yourself to me. */
struct message_call {
	struct message_head head;
	uint64_t version;
	uint32_t length;
	char name[36];
	char value[];
};

static struct message_head head_of(enum message_type type)
{
	return (struct message_head){ MESSAGE_MAGIC, MESSAGE_VERSION,
				      (uint16_t)type };
}

/* Sending. */

static void send_hello(struct daemon *d, uint32_t peer)
{
	struct message_hello message = { .head = head_of(MESSAGE_HELLO) };

	memcpy(message.inc, d->inc, sizeof(message.inc));
	memcpy(message.disk, d->disk, sizeof(message.disk));
	petal_wire_send(d->wire, peer, &message, sizeof(message));
}

static void send_beat(struct daemon *d, uint32_t peer)
{
	struct message_beat message = { .head = head_of(MESSAGE_BEAT) };

	petal_wire_send(d->wire, peer, &message, sizeof(message));
}

int daemon_peers_send_offer(struct daemon *d, const struct daemon_ring *ring)
{
	struct message_offer message = {
		.head = head_of(MESSAGE_OFFER),
		.ring = ring->config.id,
		.epoch = ring->config.epoch,
		.exact = ring->backup.exact,
		.end = ring->backup.cursor,
	};
	int err;

	err = petal_wire_region_key(ring->lines_region, &message.lines);
	if (err == 0)
		err = petal_wire_region_key(ring->data_region, &message.data);
	if (err < 0)
		return err;
	return petal_wire_send(d->wire, ring->config.primary, &message,
			       sizeof(message));
}

int daemon_peers_send_start(struct daemon *d, const struct daemon_ring *ring,
			    unsigned member,
			    const struct petal_record_cursor *offered,
			    const struct petal_record_cursor *start, bool exact)
{
	const struct petal_sessions *sessions = &ring->primary.sessions;
	uint8_t bytes[PETAL_WIRE_MESSAGE_MAX];
	struct message_start message = {
		.head = head_of(MESSAGE_START),
		.ring = ring->config.id,
		.epoch = ring->config.epoch,
		.exact = exact,
		.offered = *offered,
		.start = *start,
		.whole_pos = ring->primary.members[member].joined_pos,
		.forgotten = sessions->forgotten,
	};
	uint32_t length = sizeof(message);
	int err;

	err = petal_wire_region_key(ring->lines_region, &message.lines);
	if (err < 0)
		return err;
	memcpy(bytes, &message, sizeof(message));
	for (unsigned i = 0; !exact && i < PETAL_SESSIONS_MAX; i++) {
		if (sessions->at[i].session == 0)
			continue;
		memcpy(bytes + length, &sessions->at[i],
		       sizeof(sessions->at[i]));
		length += (uint32_t)sizeof(sessions->at[i]);
	}
	return petal_wire_send(d->wire, ring->config.members[member], bytes,
			       length);
}

int daemon_peers_send_closed(struct daemon *d, uint32_t peer, uint64_t ring,
			     uint32_t epoch, bool is_answer)
{
	struct message_closed message = {
		.head = head_of(MESSAGE_CLOSED),
		.ring = ring,
		.epoch = epoch,
		.is_answer = is_answer,
	};

	return petal_wire_send(d->wire, peer, &message, sizeof(message));
}

int daemon_peers_send_swap(struct daemon *d, uint32_t peer,
			   const struct daemon_swap *swap)
{
	uint8_t bytes[PETAL_WIRE_MESSAGE_MAX];
	struct message_swap message = {
		.head = head_of(MESSAGE_SWAP),
		.cookie = swap->cookie,
		.expected = swap->expected,
		.length = swap->length,
	};

	if (sizeof(message) + swap->length > sizeof(bytes))
		return -EMSGSIZE;
	strcpy(message.key, swap->key);
	memcpy(bytes, &message, sizeof(message));
	memcpy(bytes + sizeof(message), swap->value, swap->length);
	return petal_wire_send(d->wire, peer, bytes,
			       (uint32_t)sizeof(message) + swap->length);
}

void daemon_peers_answer_swap(struct daemon *d, const struct daemon_swap *swap,
			      int status, uint64_t revision)
{
	struct message_swapped message = {
		.head = head_of(MESSAGE_SWAPPED),
		.cookie = swap->from_cookie,
		.revision = revision,
		.status = status,
	};

	message.version = swap->version;
	/* If it does not get through, the other node asks again. */
	petal_wire_send(d->wire, swap->from_peer, &message, sizeof(message));
}

static int send_epoch(struct daemon *d, uint32_t peer, enum message_type type,
		      const struct message_epoch *fields)
{
	struct message_epoch message = *fields;

	message.head = head_of(type);
	return petal_wire_send(d->wire, peer, &message, sizeof(message));
}

int daemon_peers_send_suspect(struct daemon *d, uint32_t peer,
			      const struct daemon_ring *ring,
			      const struct petal_record_cursor *end)
{
	struct message_epoch fields = { .ring = ring->config.id,
					.epoch = ring->config.epoch,
					.counts = true,
					.end = *end };

	return send_epoch(d, peer, MESSAGE_SUSPECT, &fields);
}

int daemon_peers_send_fence(struct daemon *d, uint32_t peer, uint64_t ring,
			    uint32_t epoch)
{
	struct message_epoch fields = { .ring = ring, .epoch = epoch };

	return send_epoch(d, peer, MESSAGE_FENCE, &fields);
}

int daemon_peers_send_fenced(struct daemon *d, const struct daemon_answer *to,
			     bool counts, const struct petal_record_cursor *end)
{
	struct message_epoch fields = { .ring = to->ring,
					.epoch = to->epoch,
					.counts = counts,
					.end = *end };

	return send_epoch(d, to->peer, MESSAGE_FENCED, &fields);
}

int daemon_peers_send_call(struct daemon *d, uint32_t peer,
			   const struct petal_ring_config *config)
{
	uint8_t bytes[PETAL_WIRE_MESSAGE_MAX];
	struct message_call message = { .head = head_of(MESSAGE_CALL),
					.version = config->version };
	json_t *object = petal_ring_config_json(config);
	size_t length = json_dumpb(object, (char *)bytes + sizeof(message),
				   sizeof(bytes) - sizeof(message),
				   JSON_COMPACT);

	json_decref(object);
	if (length == 0 || length > sizeof(bytes) - sizeof(message))
		return -EMSGSIZE;
	message.length = (uint32_t)length;
	strcpy(message.name, config->name);
	memcpy(bytes, &message, sizeof(message));
	return petal_wire_send(d->wire, peer, bytes,
			       (uint32_t)(sizeof(message) + length));
}

/* Receiving. */

static bool is_hex(const char id[PETAL_RING_CONFIG_INC_BYTES])
{
	return strnlen(id, PETAL_RING_CONFIG_INC_BYTES) ==
		       PETAL_RING_CONFIG_INC_BYTES - 1 &&
	       strspn(id, "0123456789abcdef") ==
		       PETAL_RING_CONFIG_INC_BYTES - 1;
}

static bool on_hello(struct daemon *d, uint32_t peer, const void *bytes,
		     uint32_t length)
{
	struct message_hello message;

	if (length != sizeof(message))
		return false;
	memcpy(&message, bytes, sizeof(message));
	if (!is_hex(message.inc) || !is_hex(message.disk))
		return false;
	strcpy(d->peers[peer].inc, message.inc);
	strcpy(d->peers[peer].disk, message.disk);
	return true;
}

static bool on_offer(struct daemon *d, uint32_t peer, const void *bytes,
		     uint32_t length)
{
	struct daemon_offer offer = { .keys.keyed = true };
	struct message_offer message;

	if (length != sizeof(message))
		return false;
	memcpy(&message, bytes, sizeof(message));
	offer.ring = message.ring;
	offer.epoch = message.epoch;
	offer.exact = message.exact != 0;
	offer.keys.data = message.data;
	offer.keys.lines = message.lines;
	offer.end = message.end;
	daemon_rings_offered(d, peer, &offer);
	return true;
}

static bool on_start(struct daemon *d, uint32_t peer, const uint8_t *bytes,
		     uint32_t length)
{
	struct daemon_start start = { 0 };
	struct message_start message;
	struct petal_session one;

	if (length < sizeof(message) ||
	    (length - sizeof(message)) % sizeof(one) != 0)
		return false;
	memcpy(&message, bytes, sizeof(message));
	start.ring = message.ring;
	start.epoch = message.epoch;
	start.exact = message.exact != 0;
	start.lines = message.lines;
	start.offered = message.offered;
	start.start = message.start;
	start.whole_pos = message.whole_pos;
	start.sessions.forgotten = message.forgotten;
	for (uint32_t at = sizeof(message); at < length;
	     at += (uint32_t)sizeof(one)) {
		memcpy(&one, bytes + at, sizeof(one));
		if (petal_sessions_put(&start.sessions, &one) < 0)
			return false;
	}
	daemon_rings_started(d, peer, &start);
	return true;
}

static bool on_swap(struct daemon *d, uint32_t peer, const uint8_t *bytes,
		    uint32_t length)
{
	struct message_swap message;
	struct daemon_swap *swap;

	if (length < sizeof(message))
		return false;
	memcpy(&message, bytes, sizeof(message));
	if (message.length != length - sizeof(message) ||
	    memchr(message.key, '\0', sizeof(message.key)) == NULL)
		return false;
	swap = daemon_swaps_add(d, DAEMON_SWAP_FORWARDED, message.key,
				message.expected,
				(const char *)bytes + sizeof(message),
				message.length);
	if (swap == NULL)
		return true; /* the other node asks again */
	swap->from_peer = peer;
	swap->from_cookie = message.cookie;
	return true;
}

static bool on_swapped(struct daemon *d, uint32_t peer, const void *bytes,
		       uint32_t length)
{
	struct message_swapped message;

	if (length != sizeof(message))
		return false;
	memcpy(&message, bytes, sizeof(message));
	daemon_swaps_applied(d, peer, message.cookie, message.status,
			     message.version, message.revision);
	return true;
}

static bool on_closed(struct daemon *d, uint32_t peer, const void *bytes,
		      uint32_t length)
{
	struct message_closed message;

	if (length != sizeof(message))
		return false;
	memcpy(&message, bytes, sizeof(message));
	/* We may never have had the ring; the other need not wait for us. */
	if (!daemon_rings_closed(d, peer, message.ring, message.epoch) &&
	    !message.is_answer)
		daemon_peers_send_closed(d, peer, message.ring, message.epoch,
					 true);
	return true;
}

static bool on_epoch(struct daemon *d, uint32_t peer, enum message_type type,
		     const void *bytes, uint32_t length)
{
	struct message_epoch m;

	if (length != sizeof(m))
		return false;
	memcpy(&m, bytes, sizeof(m));
	if (type == MESSAGE_SUSPECT)
		daemon_failover_suspected(d, peer, m.ring, m.epoch,
					  m.counts != 0, &m.end);
	else if (type == MESSAGE_FENCE)
		daemon_failover_fence(d, peer, m.ring, m.epoch);
	else
		daemon_failover_fenced(d, peer, m.ring, m.epoch, m.counts != 0,
				       &m.end);
	return true;
}

static bool on_call(struct daemon *d, const uint8_t *bytes, uint32_t length)
{
	struct petal_ring_config config;
	struct message_call message;

	if (length < sizeof(message))
		return false;
	memcpy(&message, bytes, sizeof(message));
	if (message.length != length - sizeof(message) ||
	    memchr(message.name, '\0', sizeof(message.name)) == NULL ||
	    petal_ring_config_parse(message.name, bytes + sizeof(message),
				    message.length, message.version,
				    &config) < 0)
		return false;
	daemon_epochs_learn(d, &config);
	daemon_rings_called(d, config.id, config.epoch);
	return true;
}

static bool on_message(struct daemon *d, const struct petal_wire_event *event)
{
	struct message_head head;

	if (event->length < sizeof(head))
		return false;
	memcpy(&head, event->bytes, sizeof(head));
	if (head.magic != MESSAGE_MAGIC || head.version != MESSAGE_VERSION)
		return false;
	switch (head.type) {
	case MESSAGE_HELLO:
		return on_hello(d, event->peer, event->bytes, event->length);
	case MESSAGE_BEAT:
		return event->length == sizeof(struct message_beat);
	case MESSAGE_OFFER:
		return on_offer(d, event->peer, event->bytes, event->length);
	case MESSAGE_START:
		return on_start(d, event->peer, event->bytes, event->length);
	case MESSAGE_SWAP:
		return on_swap(d, event->peer, event->bytes, event->length);
	case MESSAGE_SWAPPED:
		return on_swapped(d, event->peer, event->bytes, event->length);
	case MESSAGE_CLOSED:
		return on_closed(d, event->peer, event->bytes, event->length);
	case MESSAGE_SUSPECT:
	case MESSAGE_FENCE:
	case MESSAGE_FENCED:
		return on_epoch(d, event->peer, (enum message_type)head.type,
				event->bytes, event->length);
	case MESSAGE_CALL:
		return on_call(d, event->bytes, event->length);
	default:
		return false;
	}
}

/* Membership. */

static void member_event(struct daemon *d, enum petal_member_event_type type,
			 uint32_t node, int status);

static void connect_to(struct daemon *d, uint32_t node)
{
	int err = petal_wire_connect(
		d->wire, node, petal_member_find(&d->members, node)->address);

	/* A call that is under way, or stands, ends in an event of its own. */
	if (err < 0 && err != -EALREADY && err != -EISCONN)
		member_event(d, PETAL_MEMBER_DISCONNECTED, node, err);
}

static void carry_out(struct daemon *d, const struct petal_member_action *a)
{
	switch (a->type) {
	case PETAL_MEMBER_CONNECT:
		connect_to(d, a->node);
		break;
	case PETAL_MEMBER_DROP:
		petal_wire_drop(d->wire, a->node);
		break;
	case PETAL_MEMBER_UP:
		d->peers[a->node].up = true;
		d->peers[a->node].inc[0] = '\0';
		send_hello(d, a->node);
		break;
	case PETAL_MEMBER_DOWN:
		d->peers[a->node].up = false;
		daemon_rings_peer_down(d, a->node);
		daemon_swaps_peer_down(d, a->node);
		petal_registry_miss(d->registry, a->node);
		break;
	case PETAL_MEMBER_PING:
		send_beat(d, a->node);
		break;
	}
}

static void member_event(struct daemon *d, enum petal_member_event_type type,
			 uint32_t node, int status)
{
	struct petal_member_event event = { type, node, status };
	struct petal_member_actions actions;

	petal_member_step(&d->members, d->now_ns, &event, &actions);
	for (uint32_t i = 0; i < actions.count; i++)
		carry_out(d, &actions.at[i]);
}

void daemon_peers_start(struct daemon *d)
{
	member_event(d, PETAL_MEMBER_START, 0, 0);
}

uint64_t daemon_peers_next_ns(const struct daemon *d)
{
	return petal_member_next_ns(&d->members);
}

static void on_event(struct daemon *d, const struct petal_wire_event *event)
{
	switch (event->type) {
	case PETAL_WIRE_UP:
		member_event(d, PETAL_MEMBER_CONNECTED, event->peer, 0);
		break;
	case PETAL_WIRE_DOWN:
		member_event(d, PETAL_MEMBER_DISCONNECTED, event->peer,
			     event->status);
		break;
	case PETAL_WIRE_MESSAGE:
		member_event(d, PETAL_MEMBER_HEARD, event->peer, 0);
		/* A stranger's, or on its way when we gave the peer up. */
		if (!d->peers[event->peer].up || on_message(d, event))
			break;
		d->counts.bad_messages++;
		petal_wire_drop(d->wire, event->peer);
		break;
	case PETAL_WIRE_WROTE:
		daemon_rings_wrote(d, event->cookie, event->status);
		break;
	case PETAL_WIRE_LANDED:
		daemon_rings_landed(d, event->peer, event->data);
		break;
	}
}

int daemon_peers_step(struct daemon *d)
{
	struct petal_wire_event events[EVENTS_MAX];
	int count = petal_wire_poll(d->wire, events, EVENTS_MAX);

	for (int i = 0; i < count; i++)
		on_event(d, &events[i]);
	if (d->now_ns >= petal_member_next_ns(&d->members))
		member_event(d, PETAL_MEMBER_TICK, 0, 0);
	return count > 0;
}
