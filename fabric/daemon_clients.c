/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes of this host come by a socket in the node's directory, which is the
 * owner's alone. Each is watched by a pidfd from the moment it connects: when
 * it is proved dead, what it left in its rings is repaired. A socket that ends
 * proves nothing; its process keeps its numbers until it is dead.
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fabric/control.h"
#include "fabric/node.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "topology/place.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* Answers. */

static void refuse(struct daemon *d, struct daemon_client *client, int err,
		   const char *message);

static void answer(struct daemon *d, struct daemon_client *client,
		   json_t *object, const int *fds, unsigned fd_count)
{
	int err;

	if (object == NULL)
		return;
	if (client->request_id != 0)
		json_object_set_new(object, "id",
				    json_integer(client->request_id));
	err = petal_control_send(client->fd, object, fds, fd_count);
	json_decref(object);
	if (err < 0)
		d->counts.bad_requests++; /* it does not read its answers */
	if (err == -EMSGSIZE)
		refuse(d, client, err, "the answer is too long for the socket");
}

static void refuse(struct daemon *d, struct daemon_client *client, int err,
		   const char *message)
{
	answer(d, client,
	       json_pack("{s:b, s:i, s:s}", "ok", 0, "error", err, "message",
			 message),
	       NULL, 0);
}

static void agree(struct daemon *d, struct daemon_client *client)
{
	answer(d, client, json_pack("{s:b}", "ok", 1), NULL, 0);
}

/* Made in the registry, while no memory for it could be had here. */
static bool is_unopened(struct daemon *d, const struct daemon_swap *swap)
{
	const char *name = swap->key + strlen(PETAL_RING_CONFIG_PREFIX);

	/* Somebody may have deleted it since. */
	return swap->kind == DAEMON_SWAP_CREATE &&
	       daemon_rings_find(d, name) == NULL &&
	       petal_registry_get(d->registry, swap->key, NULL, 0, NULL,
				  NULL) == 0;
}

void daemon_clients_answer(struct daemon *d, const struct daemon_swap *swap,
			   int status)
{
	struct daemon_client *client = swap->client;

	if (!client->used || client->gone ||
	    client->generation != swap->client_generation)
		return;
	client->request_id = swap->client_request_id;
	daemon_epochs_reconcile(d);
	if (status == 0 && is_unopened(d, swap))
		refuse(d, client, -ENOMEM,
		       "the ring was made, but not opened here: petald said "
		       "why; delete it");
	else if (status == 0)
		agree(d, client);
	else if (status == -PETAL_ECONFLICT)
		refuse(d, client, -EEXIST,
		       "the ring was made or changed by somebody else");
	else
		refuse(d, client, status, petal_strerror(status));
}

/* Rings. */

static uint32_t free_owner(const struct daemon_ring *ring)
{
	for (uint32_t i = 1; i < PETAL_LOG_OWNERS; i++) {
		if (!ring->primary.owners[i].attached)
			return i;
	}
	return 0;
}

/* The ring may have been deleted from another node, and its slot reused. */
static bool is_live(const struct daemon_open *open)
{
	return open->ring != NULL && open->ring->used &&
	       open->ring->generation == open->generation;
}

/* The process lets go of a ring, or is dead. */
static void end_open(struct daemon_open *open)
{
	if (open->ring == NULL)
		return;
	if (is_live(open))
		petal_primary_bury(&open->ring->primary, open->owner);
	close(open->signal_fd);
	open->ring = NULL;
}

static struct daemon_open *free_open(struct daemon_client *client)
{
	for (unsigned i = 0; i < DAEMON_OPENS_MAX; i++) {
		if (!is_live(&client->opens[i])) {
			end_open(&client->opens[i]);
			return &client->opens[i];
		}
	}
	return NULL;
}

static void open_for(struct daemon *d, struct daemon_client *client,
		     struct daemon_ring *ring)
{
	struct daemon_open *open = free_open(client);
	uint32_t owner = free_owner(ring);
	uint64_t session;
	int fds[3];

	if (open == NULL || owner == 0) {
		refuse(d, client, -EUSERS,
		       "too many openings of the ring, or by this process");
		return;
	}
	open->signal_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (open->signal_fd < 0) {
		refuse(d, client, -errno, "no descriptor is left");
		return;
	}
	session = PETAL_SESSION_FIRST(ring->config.epoch) + ring->sessions++;
	petal_primary_attach(&ring->primary, owner, session);
	open->ring = ring;
	open->generation = ring->generation;
	open->owner = owner;
	fds[0] = ring->log.segment.fd;
	fds[1] = ring->bell_fd;
	fds[2] = open->signal_fd;
	answer(d, client,
	       json_pack("{s:b, s:i, s:I, s:I, s:I}", "ok", 1, "owner",
			 (int)owner, "session", (json_int_t)session,
			 "loss_epoch", (json_int_t)ring->config.loss.epoch,
			 "loss_lsn", (json_int_t)ring->config.loss.lsn),
	       fds, 3);
}

static void on_ring_open(struct daemon *d, struct daemon_client *client,
			 const char *name)
{
	struct daemon_ring *ring = daemon_rings_find(d, name);
	char message[128];

	if (ring == NULL) {
		refuse(d, client, -ENOENT, "there is no such ring");
	} else if (ring->role == DAEMON_PRIMARY && !ring->config.recovering) {
		open_for(d, client, ring);
	} else if (ring->role == DAEMON_PRIMARY || ring->role == DAEMON_HEIR) {
		refuse(d, client, -EAGAIN,
		       "the ring is being recovered here: its primary was "
		       "lost");
	} else if (ring->role == DAEMON_LOST) {
		refuse(d, client, -PETAL_EDATALOSS,
		       "the ring's primary restarted without its memory, and "
		       "no other member has followed yet: petal recover says "
		       "what it waits for");
	} else {
		snprintf(message, sizeof(message),
			 "the ring's primary is node %" PRIu32,
			 ring->config.primary);
		refuse(d, client, -PETAL_ENOTPRIMARY, message);
	}
}

/* Whether a loss is to be accepted, or what the ring waits for. */
static void on_ring_recover(struct daemon *d, struct daemon_client *client,
			    const char *name, const json_t *request)
{
	bool accept_loss =
		json_is_true(json_object_get(request, "accept_loss"));
	struct daemon_ring *ring = daemon_rings_find(d, name);
	char message[512];
	int err;

	if (petal_registry_leader(d->registry) == 0) {
		refuse(d, client, -PETAL_ENOQUORUM,
		       "the registry has no leader: most of its nodes have to "
		       "be there, so start one more, were its disk new");
		return;
	}
	if (ring == NULL) {
		refuse(d, client, -ENOENT, "there is no such ring");
		return;
	}
	err = daemon_failover_recover(d, ring, accept_loss, message,
				      sizeof(message));
	if (err < 0)
		refuse(d, client, err, message);
	else
		answer(d, client,
		       json_pack("{s:b, s:s}", "ok", 1, "message", message),
		       NULL, 0);
}

static bool is_attached(const struct petal_primary *primary, uint64_t session)
{
	for (uint32_t i = 1; i < PETAL_LOG_OWNERS; i++) {
		if (primary->owners[i].attached &&
		    primary->owners[i].session == session)
			return true;
	}
	return false;
}

/* I13: what a session has in the log, in whatever epoch it was. */
static void on_outcome(struct daemon *d, struct daemon_client *client,
		       const char *name, const json_t *request)
{
	struct daemon_ring *ring = daemon_rings_find(d, name);
	uint64_t session = (uint64_t)json_integer_value(
		json_object_get(request, "session"));
	uint64_t sequence = (uint64_t)json_integer_value(
		json_object_get(request, "sequence"));
	uint64_t lsn = 0;
	bool decided;
	int err;

	if (ring == NULL || ring->role != DAEMON_PRIMARY ||
	    ring->config.recovering || ring->primary.deposed) {
		refuse(d, client, -PETAL_ENOTPRIMARY,
		       "this node is not the ring's primary");
		return;
	}
	err = petal_sessions_find(&ring->primary.sessions, session, sequence);
	decided = err == 0 || !is_attached(&ring->primary, session);
	if (err < 0 && decided) {
		refuse(d, client, err,
		       err == -ENOENT ? "the record is not in the ring"
				      : "the record is too long ago");
		return;
	}
	if (err == 0)
		lsn = petal_primary_lsn(&ring->primary, session, sequence);
	answer(d, client,
	       json_pack("{s:b, s:b, s:I, s:I}", "ok", 1, "decided", decided,
			 "lsn", (json_int_t)lsn, "pos",
			 (json_int_t)ring->primary.accepted.pos),
	       NULL, 0);
}

static void on_ring_close(struct daemon *d, struct daemon_client *client,
			  const char *name, uint32_t owner)
{
	for (unsigned i = 0; i < DAEMON_OPENS_MAX; i++) {
		struct daemon_open *open = &client->opens[i];

		if (open->ring != NULL && open->owner == owner &&
		    strcmp(open->ring->config.name, name) == 0) {
			end_open(open);
			agree(d, client);
			return;
		}
	}
	refuse(d, client, -ENOENT, "this process does not have the ring open");
}

int daemon_clients_pid(const struct daemon *d, const struct daemon_ring *ring,
		       uint32_t owner)
{
	for (unsigned i = 0; i < DAEMON_CLIENTS_MAX; i++) {
		for (unsigned j = 0; j < DAEMON_OPENS_MAX; j++) {
			const struct daemon_open *open =
				&d->clients[i].opens[j];

			if (d->clients[i].used && open->ring == ring &&
			    is_live(open) && open->owner == owner)
				return (int)d->clients[i].peer.id.pid;
		}
	}
	return 0;
}

bool daemon_clients_have(const struct daemon *d, const struct daemon_ring *ring)
{
	for (unsigned i = 0; i < DAEMON_CLIENTS_MAX; i++) {
		for (unsigned j = 0; j < DAEMON_OPENS_MAX; j++) {
			const struct daemon_open *open =
				&d->clients[i].opens[j];

			if (d->clients[i].used && open->ring == ring &&
			    is_live(open))
				return true;
		}
	}
	return false;
}

void daemon_clients_signal(struct daemon *d, const struct daemon_ring *ring,
			   uint32_t owner)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < DAEMON_CLIENTS_MAX; i++) {
		for (unsigned j = 0; j < DAEMON_OPENS_MAX; j++) {
			struct daemon_open *open = &d->clients[i].opens[j];

			if (d->clients[i].used && open->ring == ring &&
			    is_live(open) && open->owner == owner &&
			    write(open->signal_fd, &one, sizeof(one)) < 0)
				return; /* it is readable already */
		}
	}
}

/* Making and deleting rings. */

static uint32_t place_nodes(struct daemon *d, struct petal_place_node *nodes)
{
	uint32_t count = 0;

	for (uint32_t i = 0; petal_member_at(&d->members, i) != NULL; i++) {
		const struct petal_member_node *line =
			petal_member_at(&d->members, i);
		const struct daemon_peer *peer = &d->peers[line->node];
		struct petal_place_node *node = &nodes[count++];

		*node = (struct petal_place_node){ .node = line->node };
		memcpy(node->domain, line->domain, sizeof(node->domain));
		node->up = line->node == d->config.self ||
			   (peer->up && peer->inc[0] != '\0');
		for (unsigned r = 0; r < DAEMON_SLOTS_MAX; r++) {
			const struct daemon_ring *ring = &d->rings[r];

			if (!daemon_rings_is_current(ring) ||
			    petal_ring_config_member(&ring->config,
						     line->node) < 0)
				continue;
			node->rings++;
			node->primaries += ring->config.primary == line->node;
		}
	}
	return count;
}

static int place(struct daemon *d, struct petal_ring_config *config)
{
	struct petal_place_node nodes[PETAL_MEMBER_MAX];
	struct petal_place_policy policy = {
		.allow_same_host = d->config.allow_same_host,
		.primary = d->config.self,
	};
	uint32_t count = place_nodes(d, nodes);
	int err;

	do {
		config->id = randombytes_random();
	} while (config->id == 0 || daemon_rings_by_id(d, config->id) != NULL);
	err = petal_place_ring(nodes, count, config->id, &policy,
			       config->members);
	if (err < 0)
		return err;
	config->epoch = 1;
	config->primary = config->members[0];
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		const struct daemon_peer *peer = &d->peers[config->members[i]];
		bool is_self = config->members[i] == d->config.self;

		strcpy(config->incs[i], is_self ? d->inc : peer->inc);
		strcpy(config->disks[i], is_self ? d->disk : peer->disk);
	}
	return 0;
}

static void submit(struct daemon *d, struct daemon_client *client,
		   enum daemon_swap_kind kind,
		   const struct petal_ring_config *config)
{
	char key[PETAL_REGISTRY_KEY_MAX + 1];
	struct daemon_swap *swap = NULL;
	json_t *object = NULL;
	char *text = NULL;

	snprintf(key, sizeof(key), PETAL_RING_CONFIG_PREFIX "%s", config->name);
	if (kind == DAEMON_SWAP_CREATE) {
		object = petal_ring_config_json(config);
		text = json_dumps(object, JSON_COMPACT);
		json_decref(object);
	}
	if (kind == DAEMON_SWAP_DELETE || text != NULL)
		swap = daemon_swaps_add(
			d, kind, key, config->version, text == NULL ? "" : text,
			text == NULL ? 0 : (uint32_t)strlen(text));
	free(text);
	if (swap == NULL) {
		refuse(d, client, -EAGAIN, "too many changes are under way");
		return;
	}
	swap->ring_id = config->id;
	swap->client = client;
	swap->client_generation = client->generation;
	swap->client_request_id = client->request_id;
}

static void on_ring_create(struct daemon *d, struct daemon_client *client,
			   const char *name, const json_t *request)
{
	struct petal_ring_config config = { 0 };
	struct petal_journal_stats stats;
	int err;

	if (petal_ring_config_name_check(name) < 0) {
		refuse(d, client, -EINVAL,
		       "a ring's name is 1 to 31 letters, digits, '-' or '_'");
		return;
	}
	strcpy(config.name, name);
	petal_journal_stats(d->journal, &stats);
	if (petal_ring_config_shape(request, &config) < 0 ||
	    config.data_bytes > stats.capacity_bytes / 2) {
		refuse(d, client, -EINVAL,
		       "data_bytes is a power of two from 64K to half of the "
		       "journal; at most 8 queues, each with a name of its "
		       "own, slots a power of two, lease_ns up to an hour");
		return;
	}
	if (daemon_rings_find(d, name) != NULL) {
		refuse(d, client, -EEXIST, "there is a ring of that name");
		return;
	}
	if (daemon_rings_full(d)) {
		refuse(d, client, -EUSERS,
		       "there are as many rings as a node "
		       "keeps");
		return;
	}
	err = place(d, &config);
	if (err == -ENOTUNIQ)
		refuse(d, client, err,
		       "the nodes that are up lie in fewer than three failure "
		       "domains, and allow_same_host is no");
	else if (err < 0)
		refuse(d, client, err, "fewer than three nodes are up");
	else
		submit(d, client, DAEMON_SWAP_CREATE, &config);
}

/* Its name and version; what else is in the registry may make no sense. */
static int find_unopened(struct daemon *d, const char *name,
			 struct petal_ring_config *config)
{
	char key[PETAL_REGISTRY_KEY_MAX + 1];

	if (petal_ring_config_name_check(name) < 0)
		return -ENOENT;
	strcpy(config->name, name);
	snprintf(key, sizeof(key), PETAL_RING_CONFIG_PREFIX "%s", name);
	return petal_registry_get(d->registry, key, NULL, 0, NULL,
				  &config->version);
}

static void on_ring_delete(struct daemon *d, struct daemon_client *client,
			   const char *name)
{
	struct daemon_ring *ring = daemon_rings_find(d, name);
	struct petal_ring_config config = { 0 };

	if (ring != NULL)
		config = ring->config;
	/* One that we could not open can be deleted all the same. */
	if (ring == NULL && find_unopened(d, name, &config) < 0)
		refuse(d, client, -ENOENT, "there is no such ring");
	else if (ring != NULL && daemon_clients_have(d, ring))
		refuse(d, client, -EBUSY, "a process has the ring open");
	else
		submit(d, client, DAEMON_SWAP_DELETE, &config);
}

static void on_ring_replace(struct daemon *d, struct daemon_client *client,
			    const char *name, const json_t *request)
{
	struct daemon_ring *ring = daemon_rings_find(d, name);
	json_int_t from = json_integer_value(json_object_get(request, "from"));
	json_int_t to = json_integer_value(json_object_get(request, "to"));
	const char *why;
	int err;

	if (ring == NULL) {
		refuse(d, client, -ENOENT, "there is no such ring");
		return;
	}
	if (from < 1 || from > PETAL_MEMBER_NODE_MAX || to < 1 ||
	    to > PETAL_MEMBER_NODE_MAX) {
		refuse(d, client, -EINVAL, "from and to are nodes' numbers");
		return;
	}
	err = daemon_replace_begin(d, ring, (uint32_t)from, (uint32_t)to, &why);
	if (err < 0)
		refuse(d, client, err, why);
	else
		agree(d, client);
}

static void on_status(struct daemon *d, struct daemon_client *client)
{
	answer(d, client, daemon_status_json(d), NULL, 0);
}

static void on_hello(struct daemon *d, struct daemon_client *client,
		     const json_t *request)
{
	if (json_integer_value(json_object_get(request, "version")) !=
	    PETAL_CONTROL_VERSION) {
		refuse(d, client, -PETAL_EVERSION,
		       "petald speaks another version of its socket");
		return;
	}
	answer(d, client,
	       json_pack("{s:b, s:i, s:s}", "ok", 1, "node",
			 (int)d->config.self, "name",
			 petal_member_find(&d->members, d->config.self)->name),
	       NULL, 0);
}

/* Requests. */

static void serve(struct daemon *d, struct daemon_client *client,
		  const json_t *request)
{
	const char *op = json_string_value(json_object_get(request, "op"));
	const char *name = json_string_value(json_object_get(request, "name"));

	client->request_id = json_integer_value(json_object_get(request, "id"));
	if (op == NULL)
		op = "";
	if (strcmp(op, "hello") == 0)
		on_hello(d, client, request);
	else if (strcmp(op, "status") == 0)
		on_status(d, client);
	else if (strcmp(op, "rings") == 0)
		answer(d, client,
		       json_pack("{s:b, s:o}", "ok", 1, "rings",
				 daemon_status_rings(d)),
		       NULL, 0);
	else if (strcmp(op, "ring-create") == 0 && name != NULL)
		on_ring_create(d, client, name, request);
	else if (strcmp(op, "ring-delete") == 0 && name != NULL)
		on_ring_delete(d, client, name);
	else if (strcmp(op, "ring-open") == 0 && name != NULL)
		on_ring_open(d, client, name);
	else if (strcmp(op, "ring-replace") == 0 && name != NULL)
		on_ring_replace(d, client, name, request);
	else if (strcmp(op, "ring-recover") == 0 && name != NULL)
		on_ring_recover(d, client, name, request);
	else if (strcmp(op, "outcome") == 0 && name != NULL)
		on_outcome(d, client, name, request);
	else if (strcmp(op, "ring-close") == 0 && name != NULL)
		on_ring_close(d, client, name,
			      (uint32_t)json_integer_value(
				      json_object_get(request, "owner")));
	else
		refuse(d, client, -EINVAL,
		       "no such operation, or it lacks a name");
}

static void end_socket(struct daemon *d, struct daemon_client *client)
{
	if (client->gone)
		return;
	daemon_unwatch(d, client->fd);
	close(client->fd);
	client->gone = true;
}

static bool holds_rings(const struct daemon_client *client)
{
	for (unsigned i = 0; i < DAEMON_OPENS_MAX; i++) {
		if (client->opens[i].ring != NULL)
			return true;
	}
	return false;
}

static void forget(struct daemon *d, struct daemon_client *client)
{
	end_socket(d, client);
	for (unsigned i = 0; i < DAEMON_OPENS_MAX; i++)
		end_open(&client->opens[i]);
	daemon_unwatch(d, petal_peer_fd(&client->peer));
	petal_peer_close(&client->peer);
	client->used = false;
}

void daemon_clients_request(struct daemon *d, unsigned index)
{
	struct daemon_client *client = &d->clients[index];
	json_t *request;
	int err;

	if (!client->used || client->gone)
		return;
	err = petal_control_receive(client->fd, &request, NULL, 0);
	if (err == 0) {
		serve(d, client, request);
		json_decref(request);
	} else if (err == -PETAL_ECORRUPT) {
		d->counts.bad_requests++;
		client->request_id = 0;
		refuse(d, client, err, "a request is one JSON object");
	} else if (err != -EAGAIN) {
		end_socket(d, client);
		if (!holds_rings(client))
			forget(d, client);
	}
}

void daemon_clients_death(struct daemon *d, unsigned index)
{
	struct daemon_client *client = &d->clients[index];

	if (client->used && petal_peer_dead(&client->peer) == 1)
		forget(d, client);
}

/* The socket. */

static int watch_process(int fd, struct petal_peer *ret_peer)
{
	socklen_t size = sizeof(int);
	struct ucred who;
	int pidfd, err;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0) {
		err = petal_peer_open_fd(pidfd, ret_peer);
		close(pidfd);
		return err;
	}
	/* Before Linux 6.5: the PID of who connected, confirmed by its start. */
	size = sizeof(who);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0)
		return -errno;
	struct petal_peer_id id;

	err = petal_peer_identify(who.pid, &id);
	return err < 0 ? err : petal_peer_open(&id, ret_peer);
}

static bool may_connect(int fd)
{
	struct ucred who;
	socklen_t size = sizeof(who);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 &&
	       (who.uid == geteuid() || who.uid == 0);
}

/*
 * No descriptor is left. Who waits to be accepted would wake us for ever, so
 * the spare one is given for sending it away.
 */
static void turn_away(struct daemon *d)
{
	int fd;

	d->counts.bad_requests++;
	if (d->spare_fd >= 0)
		close(d->spare_fd);
	fd = accept4(d->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		close(fd);
	d->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void daemon_clients_accept(struct daemon *d)
{
	struct daemon_client *client = NULL;
	unsigned index = 0;
	int fd;

	fd = accept4(d->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		turn_away(d);
	if (fd < 0)
		return;
	for (; index < DAEMON_CLIENTS_MAX; index++) {
		if (!d->clients[index].used) {
			client = &d->clients[index];
			break;
		}
	}
	if (client != NULL)
		memset(client, 0, sizeof(*client));
	if (client == NULL || !may_connect(fd) ||
	    watch_process(fd, &client->peer) < 0) {
		d->counts.bad_requests++;
		close(fd);
		return;
	}
	client->used = true;
	client->fd = fd;
	client->generation = ++d->next_generation;
	daemon_watch(d, fd, DAEMON_TAG_CLIENT, index);
	daemon_watch(d, petal_peer_fd(&client->peer), DAEMON_TAG_DEATH, index);
}

int daemon_clients_open(struct daemon *d)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, err = 0;

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s",
		     d->config.dir,
		     PETAL_NODE_SOCKET) >= (int)sizeof(address.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* The journal's lock says that no other petald lives here. */
	unlink(address.sun_path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(address.sun_path, 0600) < 0 ||
	    listen(fd, (int)DAEMON_CLIENTS_MAX) < 0)
		err = -errno;
	if (err < 0) {
		close(fd);
		return err;
	}
	d->listen_fd = fd;
	d->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return daemon_watch(d, fd, DAEMON_TAG_LISTEN, 0);
}

void daemon_clients_close(struct daemon *d)
{
	char path[PATH_MAX + sizeof(PETAL_NODE_SOCKET) + 1];

	for (unsigned i = 0; i < DAEMON_CLIENTS_MAX; i++) {
		if (d->clients[i].used)
			forget(d, &d->clients[i]);
	}
	if (d->listen_fd < 0)
		return;
	close(d->listen_fd);
	if (d->spare_fd >= 0)
		close(d->spare_fd);
	snprintf(path, sizeof(path), "%s/%s", d->config.dir, PETAL_NODE_SOCKET);
	unlink(path);
}
