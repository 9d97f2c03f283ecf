/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A compare-and-swap goes to whoever leads the registry just now: our own
 * registry, or another node's by a control message. When the leader changes or
 * goes, it is submitted again, until its time is up. That is safe: the second
 * of two equal swaps finds the version changed, and then the value tells
 * whether the first one did it.
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <string.h>

#include "shm/clock.h"
#include "shm/error.h"

#define RETRY_NS PETAL_MS(20)
#define LOST_NS PETAL_S(2) /* an answer that never came */
#define GIVE_UP_NS PETAL_S(8)

struct daemon_swap *daemon_swaps_add(struct daemon *d,
				     enum daemon_swap_kind kind,
				     const char *key, uint64_t expected,
				     const char *value, uint32_t length)
{
	struct daemon_swap *swap = NULL;

	if (strlen(key) > PETAL_REGISTRY_KEY_MAX ||
	    length > PETAL_REGISTRY_VALUE_MAX)
		return NULL;
	for (unsigned i = 0; swap == NULL && i < DAEMON_SWAPS_MAX; i++) {
		if (!d->swaps[i].used)
			swap = &d->swaps[i];
	}
	if (swap == NULL)
		return NULL;
	memset(swap, 0, sizeof(*swap));
	swap->used = true;
	swap->kind = kind;
	swap->cookie = ++d->next_cookie;
	swap->expected = expected;
	swap->length = length;
	swap->give_up_ns = d->now_ns + GIVE_UP_NS;
	strcpy(swap->key, key);
	memcpy(swap->value, value, length);
	return swap;
}

uint64_t daemon_swaps_revision(const struct daemon *d)
{
	struct petal_registry_status status;

	petal_registry_status(d->registry, &status);
	return status.revision;
}

static void finish(struct daemon *d, struct daemon_swap *swap, int status)
{
	struct daemon_swap done = *swap;

	swap->used = false;
	switch (done.kind) {
	case DAEMON_SWAP_CREATE:
	case DAEMON_SWAP_DELETE:
		daemon_clients_answer(d, &done, status);
		break;
	case DAEMON_SWAP_ADMIT:
		daemon_rings_admitted(d, &done, status);
		break;
	case DAEMON_SWAP_EPOCH:
		daemon_failover_swapped(d, &done, status);
		break;
	case DAEMON_SWAP_FORWARDED:
		daemon_peers_answer_swap(d, &done, status,
					 daemon_swaps_revision(d));
		break;
	case DAEMON_SWAP_BARRIER:
		daemon_restore_checked(d, status);
		break;
	}
}

/* Whether the registry holds what we wanted to put there. */
static bool is_done(struct daemon *d, struct daemon_swap *swap)
{
	uint8_t value[PETAL_REGISTRY_VALUE_MAX];
	uint32_t length;
	int err;

	err = petal_registry_get(d->registry, swap->key, value, sizeof(value),
				 &length, &swap->version);
	if (swap->length == 0)
		return err == -ENOENT;
	return err == 0 && length == swap->length &&
	       memcmp(value, swap->value, length) == 0;
}

static void submit(struct daemon *d, struct daemon_swap *swap)
{
	uint32_t leader = petal_registry_leader(d->registry);
	int err = -PETAL_ENOTLEADER;

	swap->retry_ns = d->now_ns + RETRY_NS;
	if (leader == d->config.self) {
		err = petal_registry_cas(d->registry, swap->key, swap->expected,
					 swap->value, swap->length,
					 swap->cookie);
		swap->at_peer = 0;
	} else if (leader != 0 && swap->kind != DAEMON_SWAP_FORWARDED) {
		err = daemon_peers_send_swap(d, leader, swap);
		swap->at_peer = leader;
	}
	swap->submitted = err == 0;
	if (err == 0)
		swap->retry_ns = d->now_ns + LOST_NS;
	else if (swap->kind == DAEMON_SWAP_FORWARDED)
		finish(d, swap, err); /* its sender asks again */
}

void daemon_swaps_step(struct daemon *d)
{
	for (unsigned i = 0; i < DAEMON_SWAPS_MAX; i++) {
		struct daemon_swap *swap = &d->swaps[i];

		if (!swap->used || d->now_ns < swap->retry_ns)
			continue;
		if (d->now_ns < swap->give_up_ns) {
			if (!swap->applied)
				submit(d, swap);
			else if (daemon_swaps_revision(d) >= swap->revision)
				finish(d, swap, 0);
			else
				swap->retry_ns = d->now_ns + RETRY_NS;
			continue;
		}
		d->counts.swaps_given_up++;
		finish(d, swap, -PETAL_EUNKNOWN);
	}
}

uint64_t daemon_swaps_next_ns(const struct daemon *d)
{
	uint64_t next_ns = PETAL_CLOCK_NEVER;

	for (unsigned i = 0; i < DAEMON_SWAPS_MAX; i++) {
		if (d->swaps[i].used && d->swaps[i].retry_ns < next_ns)
			next_ns = d->swaps[i].retry_ns;
	}
	return next_ns;
}

/*
 * A ring's configuration has another version whenever a member came back. As
 * long as it is the same ring, it is still the one to be deleted.
 */
static bool may_follow(struct daemon *d, struct daemon_swap *swap)
{
	const char *name = swap->key + strlen(PETAL_RING_CONFIG_PREFIX);
	uint8_t value[PETAL_REGISTRY_VALUE_MAX];
	struct petal_ring_config config;
	uint64_t version;
	uint32_t length;

	if (swap->kind != DAEMON_SWAP_DELETE ||
	    petal_registry_get(d->registry, swap->key, value, sizeof(value),
			       &length, &version) < 0 ||
	    petal_ring_config_parse(name, value, length, version, &config) <
		    0 ||
	    config.id != swap->ring_id)
		return false;
	swap->expected = version;
	return true;
}

static bool is_to_repeat(struct daemon *d, struct daemon_swap *swap, int status)
{
	if (swap->kind == DAEMON_SWAP_FORWARDED)
		return false; /* its sender asks again */
	if (status == -PETAL_ECONFLICT)
		return may_follow(d, swap);
	return status == -PETAL_ENOTLEADER || status == -PETAL_EUNKNOWN;
}

void daemon_swaps_applied(struct daemon *d, uint32_t at_peer, uint64_t cookie,
			  int status, uint64_t version, uint64_t revision)
{
	for (unsigned i = 0; i < DAEMON_SWAPS_MAX; i++) {
		struct daemon_swap *swap = &d->swaps[i];

		if (!swap->used || swap->cookie != cookie ||
		    swap->at_peer != at_peer)
			continue;
		swap->version = version;
		if (status == -PETAL_ECONFLICT &&
		    (swap->kind == DAEMON_SWAP_BARRIER || is_done(d, swap)))
			status = 0;
		if (is_to_repeat(d, swap, status)) {
			swap->submitted = false;
			swap->retry_ns = d->now_ns + RETRY_NS;
			return;
		}
		if (status == 0 && swap->kind != DAEMON_SWAP_FORWARDED &&
		    swap->kind != DAEMON_SWAP_EPOCH) {
			/* Whoever waits shall find it in our own registry. */
			swap->applied = true;
			swap->revision = revision;
			swap->retry_ns = d->now_ns;
			return;
		}
		finish(d, swap, status);
		return;
	}
}

void daemon_swaps_changed(struct daemon *d)
{
	for (unsigned i = 0; i < DAEMON_SWAPS_MAX; i++) {
		if (d->swaps[i].used && d->swaps[i].applied)
			d->swaps[i].retry_ns = d->now_ns;
	}
}

void daemon_swaps_peer_down(struct daemon *d, uint32_t peer)
{
	for (unsigned i = 0; i < DAEMON_SWAPS_MAX; i++) {
		struct daemon_swap *swap = &d->swaps[i];

		if (!swap->used)
			continue;
		if (swap->kind == DAEMON_SWAP_FORWARDED &&
		    swap->from_peer == peer)
			swap->used = false;
		else if (swap->submitted && !swap->applied &&
			 swap->at_peer == peer)
			swap->retry_ns = d->now_ns;
	}
}
