/*
 * The happy path: START dials every node with a lower id, CONNECTED makes a
 * link, HEARD keeps pushing the link's due_ns into the future, and a TICK each
 * heartbeat sends the PINGs that do the same for us on the other side.
 *
 * What goes wrong, and where it is met:
 *   a dial is refused               on_disconnected(), back off
 *   a dial is swallowed             on_due(), DROP, back off
 *   a connection ends               on_disconnected(), DOWN at once
 *   a partition swallows all bytes  on_due(), DROP and DOWN
 *   a peer comes back before we saw it go   on_connected(), DOWN then UP
 *   we ourselves were stopped       forgive_own_stall()
 */
#include "topology/member.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static void act(struct petal_member_actions *actions,
		enum petal_member_action_type type, uint32_t node, int status)
{
	assert(actions->count < PETAL_MEMBER_ACTIONS_MAX);
	actions->at[actions->count++] = (struct petal_member_action){
		.type = type,
		.node = node,
		.status = status,
	};
}

static int check_string(const char *string, size_t bytes)
{
	if (!memchr(string, 0, bytes))
		return -ENAMETOOLONG;
	return string[0] ? 0 : -ENODATA;
}

static int check_node(const struct petal_member_node *node)
{
	int err;

	if (node->node < 1 || node->node > PETAL_MEMBER_NODE_MAX)
		return -ERANGE;
	err = check_string(node->name, sizeof(node->name));
	if (!err)
		err = check_string(node->address, sizeof(node->address));
	if (!err)
		err = check_string(node->domain, sizeof(node->domain));
	return err;
}

static int check_pair(const struct petal_member_node *a,
		      const struct petal_member_node *b)
{
	if (a->node == b->node || !strcmp(a->name, b->name))
		return -EEXIST;
	return strcmp(a->address, b->address) ? 0 : -EADDRINUSE;
}

static int check_line(const struct petal_member_node *nodes, uint32_t line)
{
	int err = check_node(&nodes[line]);

	for (uint32_t i = 0; i < line && !err; i++)
		err = check_pair(&nodes[i], &nodes[line]);
	return err;
}

int petal_member_check(const struct petal_member_node *nodes, uint32_t count,
		       uint32_t self)
{
	bool found = false;

	if (count > PETAL_MEMBER_MAX)
		return -E2BIG;
	for (uint32_t i = 0; i < count; i++) {
		int err = check_line(nodes, i);

		if (err)
			return err;
		found = found || nodes[i].node == self;
	}
	return found ? 0 : -ENOENT;
}

static void default_ns(uint64_t *value_ns, uint64_t default_value_ns)
{
	if (*value_ns == 0)
		*value_ns = default_value_ns;
}

static bool in_range(uint64_t value_ns)
{
	return value_ns >= PETAL_MS(1) && value_ns <= PETAL_S(60);
}

static int set_options(struct petal_member *state,
		       const struct petal_member_options *options)
{
	struct petal_member_options *o = &state->options;

	*o = *options;
	if (o->suspect_beats == 0)
		o->suspect_beats = 5;
	default_ns(&o->heartbeat_ns, PETAL_MS(20));
	default_ns(&o->dial_ns, PETAL_MS(20));
	default_ns(&o->dial_max_ns, PETAL_S(1));
	default_ns(&o->dial_timeout_ns, PETAL_S(1));
	if (o->suspect_beats < 2 || o->suspect_beats > 1000)
		return -EINVAL;
	if (!in_range(o->heartbeat_ns) || !in_range(o->dial_ns) ||
	    !in_range(o->dial_max_ns) || !in_range(o->dial_timeout_ns))
		return -EINVAL;
	return o->dial_ns <= o->dial_max_ns ? 0 : -EINVAL;
}

/* By rising id, so that the order of the file's lines changes no action. */
static void add_peer(struct petal_member *state,
		     const struct petal_member_node *node)
{
	uint32_t i = state->peer_count++;

	for (; i > 0 && state->peers[i - 1].node.node > node->node; i--)
		state->peers[i] = state->peers[i - 1];
	state->peers[i] = (struct petal_member_peer){
		.node = *node,
		.due_ns = PETAL_CLOCK_NEVER,
	};
}

int petal_member_init(struct petal_member *state,
		      const struct petal_member_options *options,
		      const struct petal_member_node *nodes, uint32_t count)
{
	int err = petal_member_check(nodes, count, options->self);

	if (err)
		return err;
	*state = (struct petal_member){ .peer_count = 0 };
	err = set_options(state, options);
	if (err)
		return err;
	for (uint32_t i = 0; i < count; i++)
		add_peer(state, &nodes[i]);
	return 0;
}

static struct petal_member_peer *find(struct petal_member *state, uint32_t node)
{
	for (uint32_t i = 0; i < state->peer_count; i++)
		if (state->peers[i].node.node == node)
			return &state->peers[i];
	return NULL;
}

static bool dials(const struct petal_member *state,
		  const struct petal_member_peer *peer)
{
	return state->options.self > peer->node.node;
}

static uint64_t silence_ns(const struct petal_member *state)
{
	return state->options.heartbeat_ns * state->options.suspect_beats;
}

static uint64_t backoff_ns(const struct petal_member *state,
			   const struct petal_member_peer *peer)
{
	const struct petal_member_options *o = &state->options;
	uint64_t wait_ns = o->dial_ns;
	uint32_t key = o->self << 16 | peer->node.node << 8 |
		       (peer->dials & 255);
	/* Fibonacci hashing (Knuth, TAOCP 3, 6.4); the high bits are the good
	 * ones. */
	uint32_t jitter = key * UINT32_C(2654435769) >> 24;

	for (uint32_t i = 1; i < peer->dials && wait_ns < o->dial_max_ns; i++)
		wait_ns *= 2;
	if (wait_ns > o->dial_max_ns)
		wait_ns = o->dial_max_ns;
	return wait_ns - wait_ns / 4 * jitter / 256;
}

static void dial(struct petal_member *state, struct petal_member_peer *peer,
		 uint64_t now_ns, struct petal_member_actions *actions)
{
	peer->link = PETAL_MEMBER_DIALLING;
	peer->due_ns = now_ns + state->options.dial_timeout_ns;
	/* The exponent stops counting long after the wait stops growing. */
	if (peer->dials < UINT32_MAX)
		peer->dials++;
	state->counters.dials++;
	act(actions, PETAL_MEMBER_CONNECT, peer->node.node, 0);
}

static void rest(const struct petal_member *state,
		 struct petal_member_peer *peer, uint64_t now_ns)
{
	if (dials(state, peer)) {
		peer->link = PETAL_MEMBER_WAITING;
		peer->due_ns = now_ns + backoff_ns(state, peer);
	} else {
		peer->link = PETAL_MEMBER_IDLE;
		peer->due_ns = PETAL_CLOCK_NEVER;
	}
}

static void unlink_peer(struct petal_member *state,
			struct petal_member_peer *peer, int status,
			struct petal_member_actions *actions)
{
	assert(state->linked_count > 0);
	state->linked_count--;
	act(actions, PETAL_MEMBER_DOWN, peer->node.node, status);
}

static void on_start(struct petal_member *state, uint64_t now_ns,
		     struct petal_member_actions *actions)
{
	state->started = true;
	for (uint32_t i = 0; i < state->peer_count; i++)
		if (dials(state, &state->peers[i]))
			dial(state, &state->peers[i], now_ns, actions);
}

static void on_connected(struct petal_member *state,
			 struct petal_member_peer *peer, uint64_t now_ns,
			 struct petal_member_actions *actions)
{
	if (peer->link == PETAL_MEMBER_LINKED)
		unlink_peer(state, peer, -ECONNRESET, actions);
	/* Without a link there was no beat, and the old moment is long past. */
	if (state->linked_count == 0)
		state->beat_ns = now_ns + state->options.heartbeat_ns;
	peer->link = PETAL_MEMBER_LINKED;
	peer->due_ns = now_ns + silence_ns(state);
	state->linked_count++;
	state->counters.ups++;
	act(actions, PETAL_MEMBER_UP, peer->node.node, 0);
}

static void on_disconnected(struct petal_member *state,
			    struct petal_member_peer *peer, uint64_t now_ns,
			    int status, struct petal_member_actions *actions)
{
	switch (peer->link) {
	case PETAL_MEMBER_LINKED:
		unlink_peer(state, peer, status, actions);
		rest(state, peer, now_ns);
		break;
	case PETAL_MEMBER_DIALLING:
		state->counters.dials_refused++;
		rest(state, peer, now_ns);
		break;
	case PETAL_MEMBER_IDLE:
	case PETAL_MEMBER_WAITING:
		/* The echo of our own DROP. */
		break;
	}
}

static void on_heard(const struct petal_member *state,
		     struct petal_member_peer *peer, uint64_t now_ns)
{
	if (peer->link != PETAL_MEMBER_LINKED)
		return;
	peer->dials = 0;
	peer->due_ns = now_ns + silence_ns(state);
}

static void on_due(struct petal_member *state, struct petal_member_peer *peer,
		   uint64_t now_ns, struct petal_member_actions *actions)
{
	switch (peer->link) {
	case PETAL_MEMBER_WAITING:
		dial(state, peer, now_ns, actions);
		break;
	case PETAL_MEMBER_DIALLING:
		state->counters.dials_unanswered++;
		act(actions, PETAL_MEMBER_DROP, peer->node.node, 0);
		rest(state, peer, now_ns);
		break;
	case PETAL_MEMBER_LINKED:
		state->counters.silences++;
		act(actions, PETAL_MEMBER_DROP, peer->node.node, 0);
		unlink_peer(state, peer, -ETIMEDOUT, actions);
		rest(state, peer, now_ns);
		break;
	case PETAL_MEMBER_IDLE:
		break;
	}
}

/*
 * What we did not hear while we were not running is not the peers' silence.
 * Only the lateness is forgiven, so a node that is always late still sees a
 * silent peer after suspect_beats of its own ticks.
 */
static void forgive_own_stall(struct petal_member *state, uint64_t now_ns)
{
	uint64_t next_ns = petal_member_next_ns(state);
	uint64_t latest_ns = now_ns + silence_ns(state);
	uint64_t late_ns = now_ns > next_ns ? now_ns - next_ns : 0;

	if (late_ns <= state->options.heartbeat_ns)
		return;
	state->counters.stalls++;
	for (uint32_t i = 0; i < state->peer_count; i++) {
		struct petal_member_peer *peer = &state->peers[i];

		if (peer->link != PETAL_MEMBER_LINKED)
			continue;
		peer->due_ns += late_ns;
		if (peer->due_ns > latest_ns)
			peer->due_ns = latest_ns;
	}
}

static void beat(struct petal_member *state, uint64_t now_ns,
		 struct petal_member_actions *actions)
{
	uint64_t heartbeat_ns = state->options.heartbeat_ns;

	if (state->linked_count == 0 || now_ns < state->beat_ns)
		return;
	for (uint32_t i = 0; i < state->peer_count; i++)
		if (state->peers[i].link == PETAL_MEMBER_LINKED)
			act(actions, PETAL_MEMBER_PING,
			    state->peers[i].node.node, 0);
	/* Beats that we missed are not made up for. */
	state->beat_ns = now_ns + heartbeat_ns -
			 (now_ns - state->beat_ns) % heartbeat_ns;
}

static void on_tick(struct petal_member *state, uint64_t now_ns,
		    struct petal_member_actions *actions)
{
	forgive_own_stall(state, now_ns);
	for (uint32_t i = 0; i < state->peer_count; i++)
		if (now_ns >= state->peers[i].due_ns)
			on_due(state, &state->peers[i], now_ns, actions);
	beat(state, now_ns, actions);
}

/* Any process that holds the cluster's key can connect; only the list says who
 * belongs to it. */
static void on_stranger(struct petal_member *state,
			const struct petal_member_event *event,
			struct petal_member_actions *actions)
{
	state->counters.strangers++;
	if (event->type == PETAL_MEMBER_CONNECTED)
		act(actions, PETAL_MEMBER_DROP, event->node, 0);
}

static void on_peer(struct petal_member *state, uint64_t now_ns,
		    const struct petal_member_event *event,
		    struct petal_member_actions *actions)
{
	struct petal_member_peer *peer = find(state, event->node);

	if (!peer || event->node == state->options.self)
		on_stranger(state, event, actions);
	else if (event->type == PETAL_MEMBER_CONNECTED)
		on_connected(state, peer, now_ns, actions);
	else if (event->type == PETAL_MEMBER_DISCONNECTED)
		on_disconnected(state, peer, now_ns, event->status, actions);
	else
		on_heard(state, peer, now_ns);
}

void petal_member_step(struct petal_member *state, uint64_t now_ns,
		       const struct petal_member_event *event,
		       struct petal_member_actions *ret_actions)
{
	assert(state->started == (event->type != PETAL_MEMBER_START));
	ret_actions->count = 0;
	switch (event->type) {
	case PETAL_MEMBER_START:
		on_start(state, now_ns, ret_actions);
		break;
	case PETAL_MEMBER_TICK:
		on_tick(state, now_ns, ret_actions);
		break;
	case PETAL_MEMBER_CONNECTED:
	case PETAL_MEMBER_DISCONNECTED:
	case PETAL_MEMBER_HEARD:
		on_peer(state, now_ns, event, ret_actions);
		break;
	}
}

uint64_t petal_member_next_ns(const struct petal_member *state)
{
	uint64_t next_ns = PETAL_CLOCK_NEVER;

	if (state->linked_count > 0)
		next_ns = state->beat_ns;
	for (uint32_t i = 0; i < state->peer_count; i++)
		if (state->peers[i].due_ns < next_ns)
			next_ns = state->peers[i].due_ns;
	return next_ns;
}

bool petal_member_up(const struct petal_member *state, uint32_t node)
{
	for (uint32_t i = 0; i < state->peer_count; i++)
		if (state->peers[i].node.node == node)
			return node == state->options.self ||
			       state->peers[i].link == PETAL_MEMBER_LINKED;
	return false;
}

const struct petal_member_node *
petal_member_find(const struct petal_member *state, uint32_t node)
{
	for (uint32_t i = 0; i < state->peer_count; i++)
		if (state->peers[i].node.node == node)
			return &state->peers[i].node;
	return NULL;
}

const struct petal_member_node *
petal_member_at(const struct petal_member *state, uint32_t index)
{
	return index < state->peer_count ? &state->peers[index].node : NULL;
}

const struct petal_member_counters *
petal_member_counters(const struct petal_member *state)
{
	return &state->counters;
}
