#ifndef PETAL_TOPOLOGY_MEMBER_H
#define PETAL_TOPOLOGY_MEMBER_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/clock.h"

/**
 * DOC: member - who belongs to the cluster, and who can be reached just now
 *
 * The members are a list that every node reads from its configuration, and
 * every node keeps one connection with every other:
 *
 *        1                 Of two nodes the one with the higher id dials, so
 *       ^ ^                a pair never holds two connections because both
 *      /   \               had the same idea.
 *     2 <-- 3
 *
 * One node's view of one other node, with the actions on the arrows:
 *
 *               START / CONNECT            CONNECTED / UP
 *     idle ------------------> dialling -----------------------> up
 *                               |    ^                            |
 *      refused, or no answer in |    | back-off is over           |
 *      dial_timeout_ns / DROP   v    | / CONNECT                  |
 *                              waiting <--------------------------+
 *                                  DISCONNECTED / DOWN
 *                                  silence of suspect_beats / DROP, DOWN
 *
 * The node that is dialled has no back-off: it is idle until CONNECTED.
 *
 * This is a state machine and nothing else. It reads no clock, draws no random
 * number and does no I/O: the caller brings time and events, and carries out
 * the actions in their order. The same events at the same times give the same
 * actions on any machine.
 *
 * Always true: for each node UP and DOWN alternate, beginning with UP. A
 * connection that replaces one which was up is told as DOWN, then UP, since
 * whatever was on its way over the old one may be lost.
 *
 * What DOWN promises: that we cannot reach the node, and no more than that. A
 * timer may fence, only proof may declare dead: see the replication protocol
 * for what is done about a ring whose member is down.
 *
 * Our own slowness: a node that was stopped or starved finds every timer
 * overdue at once, and its peers' heartbeats unread in the sockets. A TICK
 * which comes more than a heartbeat late therefore moves every deadline of
 * silence by as much as it was late (the idea of local health, from Dadgar,
 * Phillips and Currey, "Lifeguard: Local Health Awareness for More Accurate
 * Failure Detection", 2018). Peers are not blamed, and @stalls counts it.
 *
 * Bounds: PETAL_MEMBER_MAX members, no allocation, no loop longer than the
 * list. A step gives at most two actions for each member.
 *
 * Threads: one at a time for one state; different states freely.
 *
 * Crash: the state dies with the process and START builds it anew.
 */

enum {
	/** How many members a list may have, ourselves included. */
	PETAL_MEMBER_MAX = 64,
	/** The highest node id; ids begin with 1, for 0 means nobody. */
	PETAL_MEMBER_NODE_MAX = 255,
	/** Bytes for a name, a domain and an address, with their final 0. */
	PETAL_MEMBER_NAME_BYTES = 32,
	PETAL_MEMBER_DOMAIN_BYTES = 32,
	PETAL_MEMBER_ADDRESS_BYTES = 64,
	/** The longest list of actions that one step can give. */
	PETAL_MEMBER_ACTIONS_MAX = 2 * PETAL_MEMBER_MAX,
};

/** struct petal_member_node - one line of the list of members */
struct petal_member_node {
	/** @node: 1 to PETAL_MEMBER_NODE_MAX, unique. */
	uint32_t node;
	/** @name: what people call it; unique. */
	char name[PETAL_MEMBER_NAME_BYTES];
	/** @address: where the wire listens, "10.0.0.7:7101"; unique. */
	char address[PETAL_MEMBER_ADDRESS_BYTES];
	/** @domain: what fails as one with it: a host, a rack, a CXL pod. */
	char domain[PETAL_MEMBER_DOMAIN_BYTES];
};

/** struct petal_member_options - zero in a field means its default */
struct petal_member_options {
	/** @self: our own id. No default. */
	uint32_t self;
	/** @suspect_beats: heartbeats of silence before the cut; 2 to 1000,
	 * default 5. */
	uint32_t suspect_beats;
	/** @heartbeat_ns: 1 ms to 60 s; default 20 ms. */
	uint64_t heartbeat_ns;
	/** @dial_ns: wait after the first dial that failed, doubled after each
	 * other; 1 ms to @dial_max_ns; default 20 ms. */
	uint64_t dial_ns;
	/** @dial_max_ns: the longest wait between dials; up to 60 s; default
	 * 1 s. */
	uint64_t dial_max_ns;
	/** @dial_timeout_ns: how long a dial may stay without an answer; 1 ms
	 * to 60 s; default 1 s. */
	uint64_t dial_timeout_ns;
};

/** enum petal_member_event_type - what the caller tells a step */
enum petal_member_event_type {
	/** The node begins; first event, and once. */
	PETAL_MEMBER_START,
	/** petal_member_next_ns() has come; earlier or later does no harm. */
	PETAL_MEMBER_TICK,
	/** A connection with @node stands, whoever dialled. */
	PETAL_MEMBER_CONNECTED,
	/** The newest connection or dial of @node has ended, with @status. */
	PETAL_MEMBER_DISCONNECTED,
	/** Some message of @node has arrived on the newest connection. */
	PETAL_MEMBER_HEARD,
};

/** struct petal_member_event - one event */
struct petal_member_event {
	enum petal_member_event_type type;
	/** @node: whom it is about; not read for START and TICK. */
	uint32_t node;
	/** @status: for DISCONNECTED: 0 or a negative failure. */
	int status;
};

/** enum petal_member_action_type - what a step asks of the caller */
enum petal_member_action_type {
	/** Dial @node; CONNECTED or DISCONNECTED may follow. */
	PETAL_MEMBER_CONNECT,
	/** Cut the connection or the dial of @node, if there is one. */
	PETAL_MEMBER_DROP,
	/** Tell those above: @node can be reached. */
	PETAL_MEMBER_UP,
	/** Tell those above: @node cannot be reached, because of @status. */
	PETAL_MEMBER_DOWN,
	/** Send @node a heartbeat. */
	PETAL_MEMBER_PING,
};

/** struct petal_member_action - one action */
struct petal_member_action {
	enum petal_member_action_type type;
	uint32_t node;
	/** @status: for DOWN: the status of DISCONNECTED, -ETIMEDOUT after a
	 * silence, -ECONNRESET after a replacement; else 0. */
	int status;
};

/** struct petal_member_actions - what one step asks for, in order */
struct petal_member_actions {
	uint32_t count;
	struct petal_member_action at[PETAL_MEMBER_ACTIONS_MAX];
};

/** struct petal_member_counters - what has happened, since init */
struct petal_member_counters {
	/** @dials: CONNECTs that were asked for. */
	uint64_t dials;
	/** @dials_refused: of these, ended by DISCONNECTED. */
	uint64_t dials_refused;
	/** @dials_unanswered: of these, dropped after dial_timeout_ns. */
	uint64_t dials_unanswered;
	/** @ups: UPs told; the DOWNs are as many, less those now up. */
	uint64_t ups;
	/** @silences: connections cut because nothing was heard. */
	uint64_t silences;
	/** @stalls: TICKs that came more than a heartbeat late. */
	uint64_t stalls;
	/** @strangers: events about nodes that are not in the list. */
	uint64_t strangers;
};

/** enum petal_member_link - how we stand with one node; see the picture */
enum petal_member_link {
	PETAL_MEMBER_IDLE,
	PETAL_MEMBER_WAITING,
	PETAL_MEMBER_DIALLING,
	PETAL_MEMBER_LINKED,
};

/** struct petal_member_peer - one node as we see it; private */
struct petal_member_peer {
	struct petal_member_node node;
	enum petal_member_link link;
	/* Dials since we last heard from it: the back-off's exponent. */
	uint32_t dials;
	/* When a wait, a dial or a silence is over. NEVER while idle. */
	uint64_t due_ns;
};

/** struct petal_member - one node's view of the cluster; private */
struct petal_member {
	struct petal_member_options options;
	struct petal_member_counters counters;
	struct petal_member_peer peers[PETAL_MEMBER_MAX];
	uint32_t peer_count;
	uint32_t linked_count;
	uint64_t beat_ns;
	bool started;
};

/**
 * petal_member_check() - is this a list that a cluster can live with?
 * @nodes: the list
 * @count: how many lines it has
 * @self: the id that must be among them
 *
 * All nodes must have the same list; what is checked here is one list.
 *
 * Return: 0; -E2BIG for more than PETAL_MEMBER_MAX; -ERANGE for an id outside
 * 1 to PETAL_MEMBER_NODE_MAX; -ENAMETOOLONG for a string without its final 0;
 * -ENODATA for an empty name, address or domain; -EEXIST for an id or a name
 * that occurs twice; -EADDRINUSE for an address that does; -ENOENT if @self is
 * missing. The first that applies, line by line.
 */
int petal_member_check(const struct petal_member_node *nodes, uint32_t count,
		       uint32_t self);

/**
 * petal_member_init() - a state in which nothing has happened
 * @state: the state to fill
 * @options: copied
 * @nodes: the list, copied; the order of its lines does not matter
 * @count: how many lines it has
 *
 * There is no fini: the state holds nothing but its own bytes.
 *
 * Return: 0; -EINVAL for an option out of its range; what
 * petal_member_check() returns.
 */
int petal_member_init(struct petal_member *state,
		      const struct petal_member_options *options,
		      const struct petal_member_node *nodes, uint32_t count);

/**
 * petal_member_step() - let one event happen
 * @state: the state
 * @now_ns: the caller's monotonic time, never less than at the step before
 * @event: what has happened
 * @ret_actions: what to do about it, in this order; count may be 0
 *
 * The caller keeps the order in which its wire made the events of one node,
 * and does not report the end of a connection which a newer one of the same
 * node has replaced. It may or may not report the end of one that it cut
 * because of a DROP; both are understood. A connection of a node that is not
 * in the list is answered with DROP.
 *
 * Back-off: the wait after n dials without hearing from the node is
 * dial_ns * 2^(n-1), at most dial_max_ns, less up to a quarter that depends on
 * the two ids and n alone, so that nodes which lost one peer at the same
 * instant do not come back to it at the same instant. The count returns to 0
 * when the node is heard, not when it is connected: a peer that accepts and
 * then closes has earned no fast redial.
 */
void petal_member_step(struct petal_member *state, uint64_t now_ns,
		       const struct petal_member_event *event,
		       struct petal_member_actions *ret_actions);

/**
 * petal_member_next_ns() - when the next TICK is due
 * @state: the state
 *
 * Looks at every peer, so ask once before going to sleep, not per message.
 * After a TICK at now_ns the answer is always later than now_ns.
 *
 * Return: a moment; PETAL_CLOCK_NEVER if only an event can change anything.
 */
uint64_t petal_member_next_ns(const struct petal_member *state);

/**
 * petal_member_up() - can this node be reached, as far as we know?
 * @state: the state
 * @node: its id; our own is always up
 */
bool petal_member_up(const struct petal_member *state, uint32_t node);

/**
 * petal_member_find() - look up a line of the list
 * @state: the state
 * @node: the id, which may be our own
 *
 * Return: the line, valid as long as the state; NULL for a stranger.
 */
const struct petal_member_node *
petal_member_find(const struct petal_member *state, uint32_t node);

/**
 * petal_member_at() - the list, line by line, by rising id
 * @state: the state
 * @index: 0 and up
 *
 * Return: the line, valid as long as the state; NULL past the last.
 */
const struct petal_member_node *
petal_member_at(const struct petal_member *state, uint32_t index);

/**
 * petal_member_counters() - what has happened so far
 * @state: the state
 *
 * Return: the counters, valid as long as the state.
 */
const struct petal_member_counters *
petal_member_counters(const struct petal_member *state);

#endif
