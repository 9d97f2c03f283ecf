/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_WIRE_H
#define PETAL_FABRIC_WIRE_H

#include <stdbool.h>
#include <stdint.h>

/**
 * DOC: wire - one-sided writes and control messages between nodes
 *
 * The port on libfabric. A wire listens at one address, has at most one
 * connection to each other node, and gives a connection three uses: bytes
 * written straight into memory that the peer has opened for us, with nobody
 * running there; a number of 64 bits that tells the peer about such a write;
 * and short control messages.
 *
 *      node 1                                             node 2
 *    +----------+   write(bytes, key, offset)           +----------+
 *    | region   | ------------------------------------> | region   |
 *    |          |   ... with notify: the peer's LANDED  |          |
 *    |          | <------------------------------------ |          |
 *    +----------+   WROTE: delivered, in the peer's     +----------+
 *                   memory, not only sent
 *
 * Bytes drawn. The wire itself: 43 KiB. A connection: 32 send and 64 receive
 * buffers of PETAL_WIRE_MESSAGE_MAX each, 384 KiB; 14 KiB beside them; and four
 * file descriptors. Nothing of ours is allocated for who shows no valid token.
 *
 * Three ways to write. petal_wire_write() is told of: WROTE says that the bytes
 * are in the peer's memory. petal_wire_push() is not: its source has to stay as
 * it is until a write to the same peer that was made later has its WROTE, or
 * the peer is DOWN. petal_wire_put() is not either, but has taken a copy. So
 * whoever has a word of the peer's CPU to count by writes a few and pushes the
 * rest, and neither side is woken but for bytes that it waits for.
 *
 * Always true, for each peer, in the order in which events are polled:
 *
 *    - UP and DOWN alternate, and each UP is followed by exactly one DOWN,
 *      unless the wire is closed before;
 *    - MESSAGE, WROTE and LANDED come between an UP and its DOWN;
 *    - each write that was accepted gets exactly one WROTE. Those that the end
 *      of the connection overtook get it before DOWN with a negative status,
 *      and their bytes may have landed or not, or in part;
 *    - after petal_wire_connect() returned 0, one UP or one DOWN follows;
 *    - messages arrive in order, each once, or not at all once DOWN.
 *
 * Bytes of several writes may be seen in any order: providers differ. What must
 * be seen together carries its own checksum. But they end in order: WROTE of a
 * write says that all pushes and puts to that peer before it are over as well,
 * and what was written, pushed or put before a message was sent is in the peer's
 * memory when it polls the message (FI_ORDER_SAW is asked for).
 *
 * Who is let in. The side that connects puts a token (fabric/seal.h) into the
 * private data of the connection request; it is checked before fi_accept(),
 * hence before the provider parses a single further byte. The side that was
 * called answers with a proof of its own, checked before UP. Whoever has no
 * token sees its connection closed and not a byte sent to it. Strangers who
 * connect and do not speak are bounded by count and time (fabric/wire_gate.h).
 * All this decides who comes in. It does not protect what is said after: on a
 * network in which others can write into a connection, put a tunnel under the
 * wire, for libfabric parses before anybody can check.
 *
 * Two connections of one peer. The newest authenticated one wins: the older
 * one first ends, with all its WROTE and its DOWN (status -ESTALE), then the
 * newer one comes UP. If two nodes call each other at the same moment, the
 * call of the higher node id stands on both sides.
 *
 * Sleeping. petal_wire_fd() becomes readable when petal_wire_poll() may find
 * something, but only after petal_wire_arm() returned 0, and it stays readable
 * until the next arming. The loop is always: poll until there is no event, try
 * again what was refused with -EAGAIN, look at the memory that peers write to,
 * arm, look at that memory again, and sleep only if arm returned 0 and there was
 * nothing: arming may move bytes like a poll, and a push or a put is no event.
 *
 * A peer makes progress only when its owner polls: on every provider but verbs
 * the bytes of a one-sided write are moved by the target's petal_wire_poll().
 * The fd wakes a sleeping target for that.
 *
 * Providers. Asked for by capability: FI_EP_MSG, FI_MSG, FI_RMA, FI_WAIT_FD.
 *
 *    tcp     the reference. No wake-up was lost in any run, and none is idle.
 *    verbs   opens where there is a device; its notify data has 32 bits.
 *    net     works, but its fd stays readable (libfabric 1.17), so that a loop
 *            that sleeps on it spins instead.
 *
 * Descriptors. Those of libfabric are not close-on-exec: a program that starts
 * others closes them in the child (close_range()), or the child keeps the port
 * and the connections open.
 *
 * Signals. Libraries that libfabric pulls in (libpsm_infinipath) install
 * handlers for SIGSEGV, SIGABRT, SIGINT, SIGTERM and others before main(). A
 * program that links this library resets them first thing in main(); this
 * library leaves signals alone. SIGPIPE is never raised by the wire.
 *
 * Threads: one wire, its regions and its peers belong to one thread. Several
 * wires, each in its own thread, do not know of each other.
 *
 * Crash: if this process dies, its peers see DOWN as soon as the kernel has
 * closed its sockets. If its machine dies, they see nothing at all: heartbeats
 * are the caller's, and petal_wire_drop() is how it acts on them.
 */

/** Node ids are 0 to 255. */
#define PETAL_WIRE_PEER_MAX 256

/** The longest control message. */
#define PETAL_WIRE_MESSAGE_MAX 4096

/** The longest petal_wire_put(). */
#define PETAL_WIRE_PUT_MAX 64

/** Messages and writes under way to one peer; beyond, -EAGAIN. */
#define PETAL_WIRE_SENDS_MAX 32
#define PETAL_WIRE_WRITES_MAX 64

/** The longest time from petal_wire_connect() to UP or DOWN. */
#define PETAL_WIRE_CONNECT_NS UINT64_C(3000000000)

struct petal_wire;
struct petal_wire_region;

/**
 * struct petal_wire_options - how to open a wire
 * @node: this node's id
 * @provider: libfabric's name of a provider, "tcp"; NULL takes the first of
 * verbs and tcp that can serve the address
 * @listen: "127.0.0.1:7101" or "[::1]:7101"; numbers only, so that no name
 * server is asked; port 0 lets the kernel choose
 * @cluster: the cluster's id
 * @key: the cluster's key (petal_seal_key_load())
 */
struct petal_wire_options {
	uint32_t node;
	const char *provider;
	const char *listen;
	uint8_t cluster[16];
	uint8_t key[32];
};

/**
 * petal_wire_open() - listen, and be ready to connect
 * @options: not needed after the call
 * @ret_wire: the wire
 *
 * Return: 0; -EINVAL for an address that is none or a node id above 255;
 * -ENODATA if no such provider can do what is asked; -EADDRINUSE if the port
 * is taken; -EADDRNOTAVAIL if the address is not of this machine; or another
 * error of the kernel or of libfabric.
 */
int petal_wire_open(const struct petal_wire_options *options,
		    struct petal_wire **ret_wire);

/**
 * petal_wire_look() - whether a provider is here, and fit for a wire
 * @provider: libfabric's name of it
 *
 * Return: 0; -ENODATA if libfabric does not offer it on this machine;
 * -EOPNOTSUPP if what it offers has no FI_EP_MSG with FI_MSG and FI_RMA; or
 * another error of libfabric.
 */
int petal_wire_look(const char *provider);

/**
 * petal_wire_version() - which libfabric this process has
 *
 * Return: its API version, the major one in the upper 16 bits.
 */
uint32_t petal_wire_version(void);

/**
 * petal_wire_close() - end all connections at once and free everything
 * @wire: the wire, or NULL
 *
 * No event is reported any more. Regions that are still registered are
 * unregistered: their pointers are invalid after this call.
 */
void petal_wire_close(struct petal_wire *wire);

/**
 * petal_wire_address() - where this wire listens
 * @wire: the wire
 *
 * Return: as in the options, but with the port that was really taken; lives as
 * long as the wire.
 */
const char *petal_wire_address(const struct petal_wire *wire);

/**
 * petal_wire_provider() - the provider that serves this wire
 * @wire: the wire
 *
 * Return: libfabric's name of it; lives as long as the wire.
 */
const char *petal_wire_provider(const struct petal_wire *wire);

/**
 * petal_wire_fd() - the descriptor to sleep on
 * @wire: the wire
 *
 * Return: an epoll descriptor, itself fit for epoll, poll and select; level
 * triggered; meaningful after petal_wire_arm() returned 0.
 */
int petal_wire_fd(struct petal_wire *wire);

/**
 * petal_wire_arm() - ask whether the caller may sleep
 * @wire: the wire
 *
 * Without this call, the descriptor tells of old events for ever and may keep
 * silent about bytes that were already taken from the kernel.
 *
 * Return: 0 if petal_wire_fd() will become readable for whatever comes next;
 * 1 if petal_wire_poll() must be called first, or if something that was
 * refused with -EAGAIN may be tried again; or a failure.
 */
int petal_wire_arm(struct petal_wire *wire);

/** enum petal_wire_event_type - what happened */
enum petal_wire_event_type {
	/** @PETAL_WIRE_UP: the peer is connected and proved itself. */
	PETAL_WIRE_UP,
	/** @PETAL_WIRE_DOWN: it is not, or not any more; @status says why. */
	PETAL_WIRE_DOWN,
	/** @PETAL_WIRE_MESSAGE: the peer called petal_wire_send(). */
	PETAL_WIRE_MESSAGE,
	/** @PETAL_WIRE_WROTE: our write is over, with @status and @cookie. */
	PETAL_WIRE_WROTE,
	/** @PETAL_WIRE_LANDED: the peer's write and its notify are here. */
	PETAL_WIRE_LANDED,
};

/**
 * struct petal_wire_event - one event of one peer
 * @type: what happened
 * @peer: the node; it comes from the connection, never from the peer's words
 * @status: WROTE: 0 when the bytes are in the peer's memory. DOWN: -ECANCELED
 * dropped by us; -ECONNRESET by the peer or the network; -ECONNREFUSED nobody
 * listens there, or it wants us not; -ETIMEDOUT; -PETAL_EAUTH the other side
 * is not who it should be; -ESTALE a newer connection took its place; or
 * another error of the kernel or of libfabric
 * @cookie: WROTE: what petal_wire_write() was given
 * @data: LANDED: the sender's number
 * @bytes: MESSAGE: valid until the next petal_wire_poll()
 * @length: MESSAGE: 1 to PETAL_WIRE_MESSAGE_MAX
 */
struct petal_wire_event {
	enum petal_wire_event_type type;
	uint32_t peer;
	int status;
	uint64_t cookie;
	uint64_t data;
	const void *bytes;
	uint32_t length;
};

/**
 * petal_wire_poll() - make progress, and collect what happened
 * @wire: the wire
 * @events: room for @max events
 * @max: at least 1
 *
 * Never blocks; its work is bounded by @max and by the number of connections.
 * No connection is served twice before all others were served once.
 *
 * Return: the number of events, 0 to @max.
 */
int petal_wire_poll(struct petal_wire *wire, struct petal_wire_event *events,
		    unsigned max);

/**
 * petal_wire_connect() - call a peer
 * @wire: the wire
 * @peer: its node id
 * @address: where it listens, in the form of the options
 *
 * UP or DOWN follows within PETAL_WIRE_CONNECT_NS, if the wire is polled. If
 * the peer is calling us at this moment, its call may be what comes UP.
 *
 * Return: 0; -EISCONN between UP and DOWN; -EALREADY if a call is under way;
 * -EINVAL for a bad address, a bad id or our own; or an error of libfabric.
 */
int petal_wire_connect(struct petal_wire *wire, uint32_t peer,
		       const char *address);

/**
 * petal_wire_drop() - end whatever there is with a peer
 * @wire: the wire
 * @peer: its node id
 *
 * The pending WROTE and the DOWN follow with -ECANCELED, for a connection as
 * well as for a call under way. Does not wait for anything and does not talk
 * to the peer but for the end of the connection.
 *
 * Return: 0; -ENOTCONN if there is nothing to end.
 */
int petal_wire_drop(struct petal_wire *wire, uint32_t peer);

/**
 * petal_wire_send() - send a control message
 * @wire: the wire
 * @peer: an UP peer
 * @bytes: copied
 * @length: 1 to PETAL_WIRE_MESSAGE_MAX
 *
 * Return: 0; -EAGAIN while PETAL_WIRE_SENDS_MAX are under way; -ENOTCONN;
 * -EMSGSIZE for a length out of range; or an error of libfabric, after which
 * DOWN follows.
 */
int petal_wire_send(struct petal_wire *wire, uint32_t peer, const void *bytes,
		    uint32_t length);

/**
 * petal_wire_register() - make memory known, as a source of writes
 * @wire: the wire
 * @base: the first byte; page aligned for the sake of real adapters
 * @bytes: its length
 * @ret_region: the region
 *
 * The memory stays mapped, at the same place, until petal_wire_unregister().
 * No peer can write to it before its key was asked for.
 *
 * Return: 0; -EINVAL if it is empty or wraps; or an error of libfabric.
 */
int petal_wire_register(struct petal_wire *wire, void *base, uint64_t bytes,
			struct petal_wire_region **ret_region);

/**
 * petal_wire_unregister() - forget a region
 * @region: the region, or NULL
 *
 * The caller has seen the WROTE of every write from it. A peer that still
 * writes to it gets a failed write and a broken connection on tcp; elsewhere
 * a late write may still land (fencing is never left to this call).
 */
void petal_wire_unregister(struct petal_wire_region *region);

/**
 * struct petal_wire_key - what a peer needs to write into a region
 * @key: the secret: random where the provider lets us choose
 * @base: added to each offset; 0 where the provider counts from the start
 * @bytes: the length of the region
 *
 * Whoever is connected and knows the key can write. It goes to the peer in a
 * control message and nowhere else.
 */
struct petal_wire_key {
	uint64_t key;
	uint64_t base;
	uint64_t bytes;
};

/**
 * petal_wire_region_key() - open a region to the writes of peers
 * @region: the region
 * @ret_key: what a peer needs for it
 *
 * The first call opens the region; later ones return the same key.
 *
 * Return: 0; or an error of libfabric.
 */
int petal_wire_region_key(struct petal_wire_region *region,
			  struct petal_wire_key *ret_key);

/**
 * petal_wire_write() - write into a peer's memory
 * @wire: the wire
 * @peer: an UP peer
 * @from: the region that holds the source
 * @local: the first byte of the source; unchanged until WROTE
 * @length: may be 0 if @notify is set
 * @to: the key that the peer gave
 * @offset: where in the peer's region
 * @notify: give the peer a LANDED
 * @data: with @notify, the number it gets; 32 bits on verbs
 * @cookie: comes back in WROTE
 *
 * WROTE with status 0 means: the bytes are in the peer's memory and its CPU
 * can read them. A wrong key or a closed region is seen by the peer only: the
 * write fails, and the connection with it.
 *
 * Return: 0; -EAGAIN while PETAL_WIRE_WRITES_MAX are under way; -ENOTCONN;
 * -EINVAL if source or target lie outside of their regions; -EMSGSIZE beyond
 * the provider's longest write; -EOVERFLOW if @data does not fit; or an error
 * of libfabric, after which DOWN follows.
 */
int petal_wire_write(struct petal_wire *wire, uint32_t peer,
		     struct petal_wire_region *from, const void *local,
		     uint64_t length, const struct petal_wire_key *to,
		     uint64_t offset, bool notify, uint64_t data,
		     uint64_t cookie);

/**
 * petal_wire_push() - write into a peer's memory, and hear nothing of it
 * @wire, @peer, @from, @length, @to, @offset: as for petal_wire_write()
 * @local: unchanged until the WROTE of a later petal_wire_write() to this peer,
 * or its DOWN; its region stays registered so long
 *
 * The peer's petal_wire_fd() becomes readable for it. Where that takes a notify
 * (verbs), the peer has a LANDED with the number 0. If it cannot land, the
 * connection ends.
 *
 * Return: 0; -EAGAIN when the provider has no room: try again when the wire's
 * descriptor has become readable; the others as petal_wire_write().
 */
int petal_wire_push(struct petal_wire *wire, uint32_t peer,
		    struct petal_wire_region *from, const void *local,
		    uint64_t length, const struct petal_wire_key *to,
		    uint64_t offset);

/**
 * petal_wire_put() - the same with a few bytes, which are copied
 * @bytes: anywhere
 * @length: 1 to PETAL_WIRE_PUT_MAX
 *
 * Return: as petal_wire_push().
 */
int petal_wire_put(struct petal_wire *wire, uint32_t peer, const void *bytes,
		   uint32_t length, const struct petal_wire_key *to,
		   uint64_t offset);

/**
 * struct petal_wire_counters - what was refused and why
 * @admitted: connections that showed a valid token
 * @refused_token: connections that did not
 * @refused_clock: good tokens of a time that is not ours, within 30 s
 * @clock_peer: whose the last of these was
 * @clock_ahead_ns: how far its time was ahead of ours; negative: behind
 * @refused_crossing: calls given up for our own call to the same peer
 * @refused_resources: good calls refused because of memory, descriptors or
 * too many calls in a minute
 * @halfopen_expired: strangers cut because they did not speak in time
 * @halfopen_evicted: strangers cut because there were too many
 * @replaced: connections ended by a newer one of the same peer
 * @busy_sends: petal_wire_send() calls that returned -EAGAIN
 * @busy_writes: petal_wire_write() calls that returned -EAGAIN
 * @stray: events of libfabric that belong to nothing we know
 */
struct petal_wire_counters {
	uint64_t admitted;
	uint64_t refused_token;
	uint64_t refused_clock;
	int64_t clock_ahead_ns;
	uint32_t clock_peer;
	uint64_t refused_crossing;
	uint64_t refused_resources;
	uint64_t halfopen_expired;
	uint64_t halfopen_evicted;
	uint64_t replaced;
	uint64_t busy_sends;
	uint64_t busy_writes;
	uint64_t stray;
};

/**
 * petal_wire_counters() - read the counters
 * @wire: the wire
 * @ret_counters: a copy of them
 */
void petal_wire_counters(const struct petal_wire *wire,
			 struct petal_wire_counters *ret_counters);

#endif
