/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member of a ring is replaced for good. Its acknowledgements count no more
 * from the moment that we are asked; when the other backup has all that did, an
 * epoch begins with the new member in its place, as a failover would begin it.
 * It has no vote before it is whole, like any member that comes without memory.
 *
 * What can go wrong: the other backup does not catch up (we give up, and the
 * member counts again), or we are lost before the swap (nothing has happened).
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shm/clock.h"
#include "shm/error.h"

#define GIVE_UP_NS PETAL_S(30)
#define NO_INCARNATION "none"

/* Whether a node lies in the domain of a member that stays. */
static bool shares_domain(const struct daemon *d,
			  const struct daemon_ring *ring, unsigned leaves,
			  uint32_t node)
{
	const struct petal_member_node *to =
		petal_member_find(&d->members, node);

	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		const struct petal_member_node *member =
			petal_member_find(&d->members, ring->config.members[i]);

		if (i != leaves && member != NULL &&
		    strcmp(member->domain, to->domain) == 0)
			return true;
	}
	return false;
}

int daemon_replace_begin(struct daemon *d, struct daemon_ring *ring,
			 uint32_t from, uint32_t to, const char **ret_why)
{
	int i = petal_ring_config_member(&ring->config, from);

	*ret_why = "";
	if (ring->role != DAEMON_PRIMARY || ring->primary.deposed) {
		*ret_why = "only the ring's primary replaces a member: ask "
			   "its node";
		return -PETAL_ENOTPRIMARY;
	}
	if (i < 0)
		*ret_why = "the node to be replaced is no member of the ring";
	else if (i == (int)ring->self)
		*ret_why = "the node to be replaced is the ring's primary: end "
			   "its petald, and ask the one that follows";
	else if (petal_member_find(&d->members, to) == NULL)
		*ret_why = "the configuration has no node of that number";
	else if (petal_ring_config_member(&ring->config, to) >= 0)
		*ret_why = "the new node is a member of the ring already";
	else if (!d->peers[to].up)
		*ret_why = "the new node is not up";
	else if (!d->config.allow_same_host &&
		 shares_domain(d, ring, (unsigned)i, to))
		*ret_why = "the new node lies in the failure domain of another "
			   "member, and allow_same_host is no";
	if (**ret_why != '\0')
		return -EINVAL;
	if (ring->replace_to != 0 || ring->config.recovering) {
		*ret_why = "the ring's members are being changed just now";
		return -EAGAIN;
	}
	ring->replace_from = from;
	ring->replace_to = to;
	ring->replace_until_ns = d->now_ns + GIVE_UP_NS;
	return 0;
}

static void give_up(struct daemon_ring *ring, unsigned i)
{
	fprintf(stderr,
		"petald: node %" PRIu32 " of ring '%s' is not replaced: the "
		"other backup does not have all that was acknowledged\n",
		ring->replace_from, ring->config.name);
	petal_primary_admitted(&ring->primary, i);
	ring->replace_to = 0;
}

static void step(struct daemon *d, struct daemon_ring *ring)
{
	struct petal_ring_config config = ring->config;
	/* Members do not change within an epoch. */
	unsigned i =
		(unsigned)petal_ring_config_member(&config, ring->replace_from);

	if (d->now_ns >= ring->replace_until_ns) {
		give_up(ring, i);
		return;
	}
	petal_primary_exclude(&ring->primary, i);
	if (ring->swapping || !petal_primary_covered(&ring->primary))
		return;
	config.epoch++;
	config.primary = d->config.self;
	config.recovering = true;
	config.members[i] = ring->replace_to;
	strcpy(config.incs[i], NO_INCARNATION);
	strcpy(config.disks[i], NO_INCARNATION);
	daemon_failover_propose(ring, &config);
}

void daemon_replace_step(struct daemon *d)
{
	for (unsigned i = 0; i < DAEMON_SLOTS_MAX; i++) {
		struct daemon_ring *ring = &d->rings[i];

		if (daemon_rings_is_current(ring) &&
		    ring->role == DAEMON_PRIMARY && ring->replace_to != 0 &&
		    !ring->primary.deposed)
			step(d, ring);
	}
}
