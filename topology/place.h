#ifndef PETAL_TOPOLOGY_PLACE_H
#define PETAL_TOPOLOGY_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "topology/member.h"

/**
 * DOC: place - which three nodes keep a ring
 *
 *    nodes, by domain              ring 7
 *    +--------+--------+--------+
 *    | rack a | rack b | rack c |
 *    | 1   2  | 3      | 4   5  |   ->  members { 3, 5, 1 }
 *    +--------+--------+--------+        primary ^  ^  ^ backups
 *
 * One member is chosen after the other, the primary first. Of the nodes that
 * are up and whose domain is not taken yet, the best is the one
 *
 *    1. that policy.primary names, for the primary's place;
 *    2. that already keeps the ring (policy.keep), since to stay costs nothing
 *       and to move costs a copy of the ring;
 *    3. with the fewest primaries, for the primary's place;
 *    4. with the fewest rings;
 *    5. with the highest weight for this ring, by rendezvous hashing: Thaler
 *       and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates",
 *       IEEE/ACM Transactions on Networking 6(1), 1998.
 *
 * Always true: the three nodes differ and are up, and so do their domains
 * unless policy.allow_same_host. A choice of one node per domain never ends in
 * a dead end, so no search is needed.
 *
 * Balance: rings placed one after the other, on nodes that are up all the
 * while, without preferences, leave the numbers of primaries of any two nodes
 * at most 1 apart; if no two nodes share a domain, the numbers of rings are at
 * most 2 apart.
 *
 * Movement: among equally loaded nodes, one that joins enters the members of a
 * ring in the place of at most one other; a ring re-placed with policy.keep
 * after a member's failure keeps the two others.
 *
 * Pure: the same arguments give the same members, on any machine, whatever the
 * order of the nodes. Any thread may call it at any time; nothing is kept.
 */

enum {
	/** How many members a durable ring has. */
	PETAL_PLACE_MEMBERS = 3,
};

/** struct petal_place_node - one node on which a ring may be placed */
struct petal_place_node {
	/** @node: its id; never 0. */
	uint32_t node;
	/** @rings: how many rings it keeps, in any role. */
	uint32_t rings;
	/** @primaries: of how many of these it is the primary. */
	uint32_t primaries;
	/** @up: whether it may be chosen. */
	bool up;
	/** @domain: what fails as one with it. */
	char domain[PETAL_MEMBER_DOMAIN_BYTES];
};

/** struct petal_place_policy - what the configuration wishes; zero is fine */
struct petal_place_policy {
	/** @allow_same_host: where there are fewer than three domains, take
	 * what there are and then share. For a demonstration on one host: all
	 * three copies die with it. */
	bool allow_same_host;
	/** @primary: the wished primary, if it is up; 0 for none. */
	uint32_t primary;
	/** @keep: present members, 0 for none. Those up stay, unless two of
	 * them share a domain. */
	uint32_t keep[PETAL_PLACE_MEMBERS];
};

/**
 * petal_place_ring() - choose the members of one ring
 * @nodes: all that there are, in any order
 * @count: how many; at most PETAL_MEMBER_MAX
 * @ring: the ring's id
 * @policy: the wishes
 * @ret_members: three node ids, the primary first
 *
 * The loads in @nodes are those before this ring; the caller counts it in. A
 * ring that is re-placed is taken out of them first.
 *
 * Return: 0; -PETAL_ENOQUORUM if fewer than three nodes are up; -ENOTUNIQ if
 * three are, but in fewer than three domains; -E2BIG for too many nodes;
 * -EINVAL for an id that is 0 or occurs twice.
 */
int petal_place_ring(const struct petal_place_node *nodes, uint32_t count,
		     uint64_t ring, const struct petal_place_policy *policy,
		     uint32_t ret_members[PETAL_PLACE_MEMBERS]);

/**
 * petal_place_weight() - the rendezvous weight of a node for a ring
 * @ring: the ring's id
 * @node: the node's id
 *
 * Part of the format of a cluster: nodes of two versions must agree on it.
 *
 * Return: 64 bits that look random.
 */
uint64_t petal_place_weight(uint64_t ring, uint32_t node);

#endif
