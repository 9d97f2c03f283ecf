/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages are structs of fixed size in the machine's byte order, which
 * the first one (HELLO) pins down: nodes of another order are dropped. What
 * comes in is copied, and its length and ranges are checked, before use.
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "fabric/seal.h"
#include "shm/clock.h"
#include "shm/error.h"

#define MESSAGE_MAGIC 0x31746550u
#define MESSAGE_VERSION 4u
#define EVENTS_MAX 64u
#define INTRODUCE_NS PETAL_S(1)
#define BOOT_PATH "/proc/sys/kernel/random/boot_id"

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
	MESSAGE_REFUSED,
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
	uint64_t host; /* a hash of its boot; 0: unknown */
	char address[PETAL_MEMBER_ADDRESS_BYTES]; /* where it listens */
};

/* You are not the node that you say: we know that one at this address. */
struct message_refused {
	struct message_head head;
	char address[PETAL_MEMBER_ADDRESS_BYTES];
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
	uint32_t counts; /* FENCED: the log is whole */
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

static const char *address_of(const struct daemon *d, uint32_t node)
{
	return petal_member_find(&d->members, node)->address;
}

/* Sending. */

static void send_hello(struct daemon *d, uint32_t peer)
{
	struct message_hello message = { .head = head_of(MESSAGE_HELLO) };

	memcpy(message.inc, d->inc, sizeof(message.inc));
	memcpy(message.disk, d->disk, sizeof(message.disk));
	message.host = d->host;
	strcpy(message.address, address_of(d, d->config.self));
	petal_wire_send(d->wire, peer, &message, sizeof(message));
}

static void send_refused(struct daemon *d, uint32_t peer)
{
	struct message_refused message = { .head = head_of(MESSAGE_REFUSED) };

	strcpy(message.address, address_of(d, peer));
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

/*
 * We cannot be part of this cluster. Who has been with others who still know us
 * goes on without this one, for it is not we who came last.
 */
static void give_up(struct daemon *d)
{
	for (unsigned i = 0; i < PETAL_WIRE_PEER_MAX; i++) {
		if (d->peers[i].known && !d->peers[i].refuses)
			return;
	}
	d->refused = true;
	d->stopping = true;
}

/*
 * Two petals with one identity: whoever listens where the configuration does
 * not say is the wrong one, and is told. It hears no more from us, and is cut
 * with its next word: an end now could overtake what it is told.
 */
static bool is_who_it_says(struct daemon *d, uint32_t peer,
			   const struct message_hello *message)
{
	struct daemon_peer *one = &d->peers[peer];

	if (strcmp(message->address, address_of(d, peer)) == 0)
		return true;
	if (!one->said_double)
		fprintf(stderr,
			"petald: a node %u that listens at '%s' is refused, "
			"for node %u is at '%s'\n",
			peer, message->address, peer, address_of(d, peer));
	one->said_double = true;
	one->shunned = true;
	send_refused(d, peer);
	return false;
}

static bool is_elsewhere(struct daemon *d, uint32_t peer, uint64_t host)
{
	struct daemon_peer *one = &d->peers[peer];

	if (d->config.allow_same_host || host == 0 || host != d->host)
		return true;
	if (!one->said_host)
		fprintf(stderr,
			"petald: node %u at '%s' runs on our host, expected a "
			"host each, or --allow-same-host\n",
			peer, address_of(d, peer));
	one->said_host = true;
	one->known = false;
	give_up(d);
	return false;
}

static bool is_address(const char text[PETAL_MEMBER_ADDRESS_BYTES])
{
	size_t length = strnlen(text, PETAL_MEMBER_ADDRESS_BYTES);

	return length < PETAL_MEMBER_ADDRESS_BYTES &&
	       strspn(text, "0123456789abcdefABCDEF.:[]") == length;
}

static bool on_hello(struct daemon *d, uint32_t peer, const void *bytes,
		     uint32_t length)
{
	struct message_hello message;

	if (length != sizeof(message))
		return false;
	memcpy(&message, bytes, sizeof(message));
	if (!is_hex(message.inc) || !is_hex(message.disk) ||
	    !is_address(message.address))
		return false;
	if (!is_who_it_says(d, peer, &message))
		return true;
	if (!is_elsewhere(d, peer, message.host))
		return false;
	if (strcmp(d->peers[peer].inc, message.inc) != 0)
		d->peers[peer].refuses = false;
	d->peers[peer].known = true;
	strcpy(d->peers[peer].inc, message.inc);
	strcpy(d->peers[peer].disk, message.disk);
	return true;
}

static bool on_refused(struct daemon *d, uint32_t peer, const void *bytes,
		       uint32_t length)
{
	struct message_refused message;

	if (length != sizeof(message))
		return false;
	memcpy(&message, bytes, sizeof(message));
	if (!is_address(message.address))
		return false;
	if (!d->peers[peer].refuses)
		fprintf(stderr,
			"petald: node %u refuses us, for it knows node %u at "
			"'%s', and we listen at '%s': two petals with one "
			"identity, or two configurations\n",
			peer, d->config.self, message.address,
			address_of(d, d->config.self));
	d->peers[peer].refuses = true;
	give_up(d);
	petal_wire_drop(d->wire, peer);
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
		daemon_failover_suspected(d, peer, m.ring, m.epoch, &m.end);
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
	case MESSAGE_REFUSED:
		return on_refused(d, event->peer, event->bytes, event->length);
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
		d->peers[a->node].shunned = false;
		d->peers[a->node].said_clock = false;
		d->peers[a->node].clock_refusals = 0;
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

/* Of the boot and the cluster; a container has the boot of its host. */
static uint64_t hash_host(const struct daemon *d)
{
	uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES];
	uint8_t hash[crypto_generichash_BYTES_MIN];
	int fd = open(BOOT_PATH, O_RDONLY | O_CLOEXEC);
	uint8_t boot[64];
	uint64_t host = 0;
	ssize_t got;

	if (fd < 0)
		return 0;
	got = read(fd, boot, sizeof(boot));
	close(fd);
	if (got <= 0)
		return 0;
	petal_seal_cluster_id(d->config.cluster, cluster);
	crypto_generichash(hash, sizeof(hash), boot, (size_t)got, cluster,
			   sizeof(cluster));
	memcpy(&host, hash, sizeof(host));
	return host;
}

void daemon_peers_start(struct daemon *d)
{
	d->host = hash_host(d);
	member_event(d, PETAL_MEMBER_START, 0, 0);
}

/* When we call those who should have called us; see introduce(). */
static uint64_t introduce_ns(const struct daemon *d)
{
	return d->introduced ? PETAL_CLOCK_NEVER : d->started_ns + INTRODUCE_NS;
}

uint64_t daemon_peers_next_ns(const struct daemon *d)
{
	uint64_t member_ns = petal_member_next_ns(&d->members);
	uint64_t own_ns = introduce_ns(d);

	return own_ns < member_ns ? own_ns : member_ns;
}

/*
 * Of two nodes the one with the higher id calls, and it calls where its
 * configuration says. A second petal of our identity, elsewhere, would wait for
 * ever and never hear why. So who has not called us is called, once; whatever
 * comes of it is an event like others.
 */
static void introduce(struct daemon *d)
{
	if (d->now_ns < introduce_ns(d))
		return;
	d->introduced = true;
	for (uint32_t i = 0; petal_member_at(&d->members, i) != NULL; i++) {
		const struct petal_member_node *one =
			petal_member_at(&d->members, i);

		if (one->node > d->config.self && !d->peers[one->node].known)
			petal_wire_connect(d->wire, one->node, one->address);
	}
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
		if (!d->peers[event->peer].up ||
		    (!d->peers[event->peer].shunned && on_message(d, event)))
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

/*
 * Of two calls by one whose clock has jumped, one gets in; so it is the second
 * refusal that is said, once for each time that the node is away.
 */
static void say_clock(struct daemon *d)
{
	struct petal_wire_counters c;
	struct daemon_peer *peer;
	int64_t ahead_s;

	petal_wire_counters(d->wire, &c);
	if (c.refused_clock == d->clock_refusals)
		return;
	peer = &d->peers[c.clock_peer];
	peer->clock_refusals += c.refused_clock - d->clock_refusals;
	d->clock_refusals = c.refused_clock;
	if (peer->clock_refusals < 2 || peer->said_clock)
		return;
	peer->said_clock = true;
	ahead_s = c.clock_ahead_ns / (int64_t)PETAL_S(1);
	fprintf(stderr,
		"petald: node %u is refused, for its clock is %" PRId64
		" s %s ours, expected the same within %u s\n",
		c.clock_peer, ahead_s < 0 ? -ahead_s : ahead_s,
		ahead_s < 0 ? "behind" : "ahead of",
		(unsigned)(PETAL_SEAL_WINDOW_NS / PETAL_S(1)));
}

int daemon_peers_poll(struct daemon *d)
{
	struct petal_wire_event events[EVENTS_MAX];
	int count = petal_wire_poll(d->wire, events, EVENTS_MAX);
	bool more = count == EVENTS_MAX;

	for (int i = 0; i < count; i++) {
		on_event(d, &events[i]);
		/* What a peer says may change what others have to do. */
		more |= events[i].type != PETAL_WIRE_WROTE &&
			events[i].type != PETAL_WIRE_LANDED;
	}
	return more;
}

void daemon_peers_step(struct daemon *d)
{
	say_clock(d);
	introduce(d);
	if (d->now_ns >= petal_member_next_ns(&d->members))
		member_event(d, PETAL_MEMBER_TICK, 0, 0);
}
