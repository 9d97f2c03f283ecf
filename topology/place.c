#include "topology/place.h"

#include <errno.h>
#include <string.h>

#include "shm/error.h"

/* One choice of three: what has been taken, and what for. */
struct choice {
	const struct petal_place_node *nodes;
	uint32_t count;
	uint64_t ring;
	const struct petal_place_policy *policy;
	const struct petal_place_node *taken[PETAL_PLACE_MEMBERS];
	uint32_t taken_count;
};

/* The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable
 * Pseudorandom Number Generators", 2014). */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

uint64_t petal_place_weight(uint64_t ring, uint32_t node)
{
	/* Both are mixed before they meet, for both are small and dense. */
	return mix(mix(ring + UINT64_C(0x9e3779b97f4a7c15)) ^
		   mix((uint64_t)node * UINT64_C(0x9e3779b97f4a7c15)));
}

static int check_nodes(const struct petal_place_node *nodes, uint32_t count)
{
	if (count > PETAL_MEMBER_MAX)
		return -E2BIG;
	for (uint32_t i = 0; i < count; i++) {
		if (nodes[i].node == 0)
			return -EINVAL;
		for (uint32_t j = 0; j < i; j++)
			if (nodes[i].node == nodes[j].node)
				return -EINVAL;
	}
	return 0;
}

static bool same_domain(const struct petal_place_node *a,
			const struct petal_place_node *b)
{
	return !strncmp(a->domain, b->domain, sizeof(a->domain));
}

static bool taken(const struct choice *c, const struct petal_place_node *node)
{
	for (uint32_t i = 0; i < c->taken_count; i++)
		if (c->taken[i] == node)
			return true;
	return false;
}

static bool domain_taken(const struct choice *c,
			 const struct petal_place_node *node)
{
	for (uint32_t i = 0; i < c->taken_count; i++)
		if (same_domain(c->taken[i], node))
			return true;
	return false;
}

static bool kept(const struct choice *c, const struct petal_place_node *node)
{
	for (uint32_t i = 0; i < PETAL_PLACE_MEMBERS; i++)
		if (c->policy->keep[i] == node->node)
			return true;
	return false;
}

/* Is @a the better choice for the next place? Never true both ways round. */
static bool better(const struct choice *c, const struct petal_place_node *a,
		   const struct petal_place_node *b)
{
	bool for_primary = c->taken_count == 0;
	uint64_t weight_a = petal_place_weight(c->ring, a->node);
	uint64_t weight_b = petal_place_weight(c->ring, b->node);

	/* Taken first, it is a candidate for no other place. */
	if (a->node == c->policy->primary || b->node == c->policy->primary)
		return a->node == c->policy->primary;
	if (kept(c, a) != kept(c, b))
		return kept(c, a);
	if (for_primary && a->primaries != b->primaries)
		return a->primaries < b->primaries;
	if (a->rings != b->rings)
		return a->rings < b->rings;
	if (weight_a != weight_b)
		return weight_a > weight_b;
	return a->node < b->node;
}

static const struct petal_place_node *best(const struct choice *c,
					   bool fresh_domain)
{
	const struct petal_place_node *found = NULL;

	for (uint32_t i = 0; i < c->count; i++) {
		const struct petal_place_node *node = &c->nodes[i];

		if (!node->up || taken(c, node))
			continue;
		if (fresh_domain && domain_taken(c, node))
			continue;
		if (!found || better(c, node, found))
			found = node;
	}
	return found;
}

static int take_next(struct choice *c)
{
	const struct petal_place_node *node = best(c, true);

	if (!node && c->policy->allow_same_host)
		node = best(c, false);
	if (!node)
		return -ENOTUNIQ;
	c->taken[c->taken_count++] = node;
	return 0;
}

/* Asked before domains are, so that two nodes in one domain count as too few
 * nodes and not as too few domains. */
static int check_up(const struct petal_place_node *nodes, uint32_t count)
{
	uint32_t up = 0;

	for (uint32_t i = 0; i < count; i++)
		up += nodes[i].up;
	return up >= PETAL_PLACE_MEMBERS ? 0 : -PETAL_ENOQUORUM;
}

int petal_place_ring(const struct petal_place_node *nodes, uint32_t count,
		     uint64_t ring, const struct petal_place_policy *policy,
		     uint32_t ret_members[PETAL_PLACE_MEMBERS])
{
	struct choice c = {
		.nodes = nodes,
		.count = count,
		.ring = ring,
		.policy = policy,
	};
	int err = check_nodes(nodes, count);

	if (!err)
		err = check_up(nodes, count);
	while (!err && c.taken_count < PETAL_PLACE_MEMBERS)
		err = take_next(&c);
	if (err)
		return err;
	for (uint32_t i = 0; i < PETAL_PLACE_MEMBERS; i++)
		ret_members[i] = c.taken[i]->node;
	return 0;
}
