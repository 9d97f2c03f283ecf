/*
 * Placement: small tables that can be checked by eye, then properties over
 * random memberships: distinct domains, the same answer for the same question,
 * balance, and little movement.
 *
 * Harder: PETAL_TEST_SEEDS=100000 for more memberships (default 1000).
 */
#include "tests/check.h"

#include "topology/place.h"

static const struct petal_place_policy no_wish;

/* ---- a membership as text: node and domain, ! is down: "1a 2a 3b 4c!" ---- */

struct table {
	struct petal_place_node nodes[PETAL_MEMBER_MAX];
	uint32_t count;
};

static struct table table(const char *text)
{
	struct table t = { .count = 0 };
	struct petal_place_node *node;
	unsigned id;
	char domain;
	int n;

	while (sscanf(text, " %u%c%n", &id, &domain, &n) == 2) {
		node = &t.nodes[t.count++];
		node->node = id;
		node->domain[0] = domain;
		text += n;
		node->up = *text != '!';
		text += *text == '!';
	}
	return t;
}

static const char *placed(const struct table *t, uint64_t ring,
			  const struct petal_place_policy *policy)
{
	static char text[64];
	uint32_t members[PETAL_PLACE_MEMBERS];
	int err = petal_place_ring(t->nodes, t->count, ring, policy, members);

	if (err)
		return petal_error_name(err);
	snprintf(text, sizeof(text), "%u %u %u", members[0], members[1],
		 members[2]);
	return text;
}

static struct petal_place_node *node_of(struct table *t, uint32_t id)
{
	for (uint32_t i = 0; i < t->count; i++)
		if (t->nodes[i].node == id)
			return &t->nodes[i];
	fail_msg("no node %u", id);
	return NULL;
}

static bool among(const uint32_t *members, uint32_t id)
{
	return members[0] == id || members[1] == id || members[2] == id;
}

static void place__too_few_nodes_and_too_few_domains_differ(void **state)
{
	struct table none = table(""), two = table("1a 2b 3c! 4d!");
	struct table shared = table("1a 2a 3b 4b 5c!");

	(void)state;
	assert_string_equal(placed(&none, 7, &no_wish), "PETAL_ENOQUORUM");
	assert_string_equal(placed(&two, 7, &no_wish), "PETAL_ENOQUORUM");
	assert_string_equal(placed(&shared, 7, &no_wish), "ENOTUNIQ");
}

static void place__a_list_that_makes_no_sense_is_refused(void **state)
{
	struct table twice = table("1a 2b 3c 1d"), zero = table("0a 1b 2c");
	struct petal_place_node many[PETAL_MEMBER_MAX + 1] = { { .node = 1 } };
	uint32_t members[PETAL_PLACE_MEMBERS] = { 11, 12, 13 };

	(void)state;
	assert_string_equal(placed(&twice, 7, &no_wish), "EINVAL");
	assert_string_equal(placed(&zero, 7, &no_wish), "EINVAL");
	assert_outcome(petal_place_ring(many, PETAL_MEMBER_MAX + 1, 7, &no_wish,
					members),
		       -E2BIG);
	assert_int_equal(members[0], 11);
	assert_int_equal(members[2], 13);
}

/* The weights are part of the format of a cluster, hence by the letter. */
static void place__this_is_where_rings_go(void **state)
{
	struct table t = table("1a 2a 3b 4b 5c 6c");

	(void)state;
	assert_string_equal(placed(&t, 1, &no_wish), "4 1 6");
	assert_string_equal(placed(&t, 2, &no_wish), "3 1 6");
	assert_string_equal(placed(&t, 3, &no_wish), "6 3 2");
}

static void place__the_wished_primary_is_taken_if_it_is_up(void **state)
{
	struct table t = table("1a 2a 3b 4b 5c 6c!");
	struct petal_place_policy wish = { .primary = 4 };

	(void)state;
	node_of(&t, 4)->rings = 1000;
	node_of(&t, 4)->primaries = 1000;
	assert_int_equal(placed(&t, 1, &wish)[0], '4');
	wish.primary = 6;
	assert_int_not_equal(placed(&t, 1, &wish)[0], '6');
	wish.primary = 99;
	assert_string_not_equal(placed(&t, 1, &wish), "EINVAL");
}

static void place__the_least_loaded_come_first(void **state)
{
	struct table t = table("1a 2b 3c 4d 5e");

	(void)state;
	node_of(&t, 2)->primaries = 1;
	node_of(&t, 4)->primaries = 1;
	node_of(&t, 5)->primaries = 1;
	node_of(&t, 1)->primaries = 1;
	node_of(&t, 1)->rings = 9;
	node_of(&t, 2)->rings = 4;
	node_of(&t, 3)->rings = 5;
	node_of(&t, 4)->rings = 6;
	node_of(&t, 5)->rings = 3;
	assert_string_equal(placed(&t, 1, &no_wish), "3 5 2");
}

static void place__one_host_serves_only_when_it_is_allowed_to(void **state)
{
	struct table one = table("1a 2a 3a"), two = table("1a 2a 3a 4b");
	struct petal_place_policy demo = { .allow_same_host = true };
	uint32_t members[PETAL_PLACE_MEMBERS];

	(void)state;
	assert_string_equal(placed(&one, 7, &no_wish), "ENOTUNIQ");
	assert_ok(petal_place_ring(one.nodes, one.count, 7, &demo, members));
	/* And even then it takes the domains that there are. */
	for (uint64_t ring = 0; ring < 100; ring++) {
		assert_ok(petal_place_ring(two.nodes, two.count, ring, &demo,
					   members));
		assert_true(among(members, 4));
	}
}

static void keep__only_the_lost_member_is_replaced(void **state)
{
	struct table t = table("1a 2b 3c! 4d 5e");
	struct petal_place_policy repair = { .keep = { 1, 2, 3 } };

	(void)state;
	node_of(&t, 1)->rings = 50;
	node_of(&t, 1)->primaries = 50;
	node_of(&t, 2)->rings = 60;
	node_of(&t, 2)->primaries = 60;
	node_of(&t, 4)->rings = 1;
	assert_string_equal(placed(&t, 7, &repair), "1 2 5");
	repair.primary = 2;
	assert_string_equal(placed(&t, 7, &repair), "2 1 5");
}

static void keep__of_two_in_one_domain_one_has_to_go(void **state)
{
	struct table t = table("1a 2a 3b 4c");
	struct petal_place_policy repair = { .keep = { 1, 2, 3 } };

	(void)state;
	node_of(&t, 2)->rings = 1;
	node_of(&t, 3)->primaries = 1;
	assert_string_equal(placed(&t, 7, &repair), "1 3 4");
}

/* ---- random memberships ---- */

static uint64_t random_state;

static uint32_t draw(uint32_t below)
{
	random_state = random_state * UINT64_C(6364136223846793005) +
		       UINT64_C(1442695040888963407);
	return (uint32_t)(random_state >> 33) % below;
}

static struct table random_table(void)
{
	struct table t = { .count = 3 + draw(PETAL_MEMBER_MAX - 2) };
	uint32_t domains = 1 + draw(12);

	for (uint32_t i = 0; i < t.count; i++) {
		struct petal_place_node *node = &t.nodes[i];

		node->node = 1 + i * 4 + draw(4);
		node->up = draw(4) != 0;
		node->rings = draw(20);
		node->primaries = draw(node->rings + 1);
		snprintf(node->domain, sizeof(node->domain), "rack %u",
			 draw(domains));
	}
	return t;
}

static uint32_t count_up(const struct table *t)
{
	uint32_t up = 0;

	for (uint32_t i = 0; i < t->count; i++)
		up += t->nodes[i].up;
	return up;
}

static uint32_t count_up_domains(const struct table *t)
{
	uint32_t domains = 0;

	for (uint32_t i = 0; i < t->count; i++) {
		bool fresh = t->nodes[i].up;

		for (uint32_t j = 0; j < i && fresh; j++)
			fresh = !t->nodes[j].up ||
				strcmp(t->nodes[i].domain, t->nodes[j].domain);
		domains += fresh;
	}
	return domains;
}

static int expected_outcome(const struct table *t)
{
	if (count_up(t) < 3)
		return -PETAL_ENOQUORUM;
	return count_up_domains(t) < 3 ? -ENOTUNIQ : 0;
}

static void shuffle(struct table *t)
{
	for (uint32_t i = t->count - 1; i > 0; i--) {
		uint32_t j = draw(i + 1);
		struct petal_place_node node = t->nodes[i];

		t->nodes[i] = t->nodes[j];
		t->nodes[j] = node;
	}
}

static uint64_t seed_count(void)
{
	const char *text = getenv("PETAL_TEST_SEEDS");

	return text ? strtoull(text, NULL, 10) : 1000;
}

static void random__members_are_up_and_their_domains_differ(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= seed_count(); seed++) {
		uint32_t m[PETAL_PLACE_MEMBERS];
		struct table t;

		random_state = seed;
		t = random_table();
		assert_outcome(petal_place_ring(t.nodes, t.count, seed,
						&no_wish, m),
			       expected_outcome(&t));
		if (expected_outcome(&t))
			continue;
		for (int i = 0; i < 3; i++) {
			assert_true(node_of(&t, m[i])->up);
			assert_string_not_equal(
				node_of(&t, m[i])->domain,
				node_of(&t, m[(i + 1) % 3])->domain);
		}
	}
}

static void random__repetition_and_order_change_nothing(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= seed_count(); seed++) {
		struct table t;
		char *first;

		random_state = seed;
		t = random_table();
		first = strdup(placed(&t, seed, &no_wish));
		assert_string_equal(placed(&t, seed, &no_wish), first);
		shuffle(&t);
		assert_string_equal(placed(&t, seed, &no_wish), first);
		free(first);
	}
}

static void random__allowing_one_host_needs_three_nodes_only(void **state)
{
	const struct petal_place_policy demo = { .allow_same_host = true };

	(void)state;
	for (uint64_t seed = 1; seed <= seed_count(); seed++) {
		uint32_t m[PETAL_PLACE_MEMBERS];
		struct table t;

		random_state = seed;
		t = random_table();
		assert_outcome(petal_place_ring(t.nodes, t.count, seed, &demo,
						m),
			       count_up(&t) < 3 ? -PETAL_ENOQUORUM : 0);
		if (count_up(&t) < 3)
			continue;
		assert_true(m[0] != m[1] && m[1] != m[2] && m[0] != m[2]);
		/* Where the domains suffice, the wish changes nothing. */
		if (expected_outcome(&t) == 0) {
			char *first = strdup(placed(&t, seed, &demo));

			assert_string_equal(placed(&t, seed, &no_wish), first);
			free(first);
		}
	}
}

static void place_and_count(struct table *t, uint64_t ring)
{
	uint32_t m[PETAL_PLACE_MEMBERS];

	assert_ok(petal_place_ring(t->nodes, t->count, ring, &no_wish, m));
	node_of(t, m[0])->primaries++;
	for (int i = 0; i < 3; i++)
		node_of(t, m[i])->rings++;
}

static void unload(struct table *t)
{
	for (uint32_t i = 0; i < t->count; i++) {
		t->nodes[i].rings = 0;
		t->nodes[i].primaries = 0;
	}
}

static void own_domains(struct table *t)
{
	for (uint32_t i = 0; i < t->count; i++)
		snprintf(t->nodes[i].domain, sizeof(t->nodes[i].domain),
			 "rack %u", i);
}

static void spread(const struct table *t, uint32_t *ret_rings,
		   uint32_t *ret_primaries)
{
	uint32_t rings[2] = { UINT32_MAX, 0 };
	uint32_t primaries[2] = { UINT32_MAX, 0 };

	for (uint32_t i = 0; i < t->count; i++) {
		const struct petal_place_node *node = &t->nodes[i];

		if (!node->up)
			continue;
		if (node->rings < rings[0])
			rings[0] = node->rings;
		if (node->rings > rings[1])
			rings[1] = node->rings;
		if (node->primaries < primaries[0])
			primaries[0] = node->primaries;
		if (node->primaries > primaries[1])
			primaries[1] = node->primaries;
	}
	*ret_rings = rings[1] - rings[0];
	*ret_primaries = primaries[1] - primaries[0];
}

static void random__rings_and_primaries_stay_balanced(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= seed_count() / 5; seed++) {
		uint32_t rings, primaries;
		struct table t;

		random_state = seed;
		t = random_table();
		unload(&t);
		if (seed % 2)
			own_domains(&t);
		if (expected_outcome(&t))
			continue;
		for (uint64_t ring = 0; ring < 150; ring++) {
			place_and_count(&t, ring + seed * 1000);
			spread(&t, &rings, &primaries);
			assert_in_range(primaries, 0, 1);
			if (seed % 2)
				assert_in_range(rings, 0, 2);
		}
	}
}

static uint32_t moved(const uint32_t *before, const uint32_t *after)
{
	uint32_t count = 0;

	for (int i = 0; i < 3; i++)
		count += !among(before, after[i]);
	return count;
}

/* With equal loads the weights decide alone, and a newcomer can only win. */
static void random__a_node_that_joins_moves_one_member_at_most(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= seed_count(); seed++) {
		uint32_t before[PETAL_PLACE_MEMBERS];
		uint32_t after[PETAL_PLACE_MEMBERS];
		struct petal_place_node *newcomer;
		struct table t;

		random_state = seed;
		t = random_table();
		unload(&t);
		newcomer = &t.nodes[t.count - 1];
		t.count--;
		if (t.count < 3 || expected_outcome(&t))
			continue;
		assert_ok(petal_place_ring(t.nodes, t.count, seed, &no_wish,
					   before));
		newcomer->up = true;
		t.count++;
		assert_ok(petal_place_ring(t.nodes, t.count, seed, &no_wish,
					   after));
		assert_in_range(moved(before, after), 0, 1);
		if (moved(before, after))
			assert_true(among(after, newcomer->node));
	}
}

static void random__a_node_that_joins_gets_its_share_only(void **state)
{
	struct table t = table("1a 2b 3c 4d 5e 6f 7g 8h 9i 10j");
	uint32_t before[PETAL_PLACE_MEMBERS], after[PETAL_PLACE_MEMBERS];
	uint32_t total = 0;

	(void)state;
	for (uint64_t ring = 0; ring < 10000; ring++) {
		assert_ok(petal_place_ring(t.nodes, 9, ring, &no_wish, before));
		assert_ok(petal_place_ring(t.nodes, 10, ring, &no_wish, after));
		total += moved(before, after);
	}
	/* Its share is 3 members in 10 rings; 5 standard deviations are 229. */
	assert_in_range(total, 3000 - 229, 3000 + 229);
}

static void random__a_repair_moves_the_lost_members_only(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= seed_count(); seed++) {
		struct petal_place_policy repair = { .primary = 0 };
		uint32_t after[PETAL_PLACE_MEMBERS];
		uint32_t lost;
		struct table t;

		random_state = seed;
		t = random_table();
		if (petal_place_ring(t.nodes, t.count, seed, &no_wish,
				     repair.keep))
			continue;
		lost = repair.keep[draw(3)];
		node_of(&t, lost)->up = false;
		if (expected_outcome(&t))
			continue;
		assert_ok(petal_place_ring(t.nodes, t.count, seed, &repair,
					   after));
		assert_int_equal(moved(repair.keep, after), 1);
		assert_true(among(repair.keep, after[0]));
		assert_false(among(after, lost));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			place__too_few_nodes_and_too_few_domains_differ),
		cmocka_unit_test(place__a_list_that_makes_no_sense_is_refused),
		cmocka_unit_test(place__this_is_where_rings_go),
		cmocka_unit_test(
			place__the_wished_primary_is_taken_if_it_is_up),
		cmocka_unit_test(place__the_least_loaded_come_first),
		cmocka_unit_test(
			place__one_host_serves_only_when_it_is_allowed_to),
		cmocka_unit_test(keep__only_the_lost_member_is_replaced),
		cmocka_unit_test(keep__of_two_in_one_domain_one_has_to_go),
		cmocka_unit_test(
			random__members_are_up_and_their_domains_differ),
		cmocka_unit_test(random__repetition_and_order_change_nothing),
		cmocka_unit_test(
			random__allowing_one_host_needs_three_nodes_only),
		cmocka_unit_test(random__rings_and_primaries_stay_balanced),
		cmocka_unit_test(
			random__a_node_that_joins_moves_one_member_at_most),
		cmocka_unit_test(random__a_node_that_joins_gets_its_share_only),
		cmocka_unit_test(random__a_repair_moves_the_lost_members_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
