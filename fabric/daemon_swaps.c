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

#define RETRY_NS PETAL_MS(100)
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

static void finish(struct daemon *d, struct daemon_swap *swap, int status,
		   uint64_t version)
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
	case DAEMON_SWAP_FORWARDED:
		daemon_peers_answer_swap(d, &done, status, version);
		break;
	}
}

/* Whether the registry holds what we wanted to put there. */
static bool is_done(struct daemon *d, const struct daemon_swap *swap)
{
	uint8_t value[PETAL_REGISTRY_VALUE_MAX];
	uint64_t version;
	uint32_t length;
	int err;

	err = petal_registry_get(d->registry, swap->key, value, sizeof(value),
				 &length, &version);
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
		finish(d, swap, err, 0); /* its sender asks again */
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
			else if (is_done(d, swap))
				finish(d, swap, 0, 0);
			else
				swap->retry_ns = d->now_ns + RETRY_NS;
			continue;
		}
		d->counts.swaps_given_up++;
		finish(d, swap, -PETAL_EUNKNOWN, 0);
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

void daemon_swaps_applied(struct daemon *d, uint64_t cookie, int status,
			  uint64_t version)
{
	for (unsigned i = 0; i < DAEMON_SWAPS_MAX; i++) {
		struct daemon_swap *swap = &d->swaps[i];

		if (!swap->used || swap->cookie != cookie)
			continue;
		if (status == -PETAL_ECONFLICT && is_done(d, swap))
			status = 0;
		if ((status == -PETAL_ENOTLEADER ||
		     status == -PETAL_EUNKNOWN) &&
		    swap->kind != DAEMON_SWAP_FORWARDED) {
			swap->submitted = false;
			swap->retry_ns = d->now_ns + RETRY_NS;
			return;
		}
		if (status == 0 && swap->kind != DAEMON_SWAP_FORWARDED) {
			/* Whoever waits shall find it in our own registry. */
			swap->applied = true;
			swap->retry_ns = d->now_ns;
			return;
		}
		finish(d, swap, status, version);
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
