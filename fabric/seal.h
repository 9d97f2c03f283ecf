/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: seal - who may connect: the cluster's key and the tokens made from it
 *
 * Every node of a cluster holds the same 32-byte key. Whoever opens a
 * connection sends a token first, and the other side looks at nothing else
 * before the token is found good. A token has 48 bytes, so that it fits into
 * the private data of every connection manager (librdmacm leaves 55):
 *
 *    byte 0      4      8          16            32            48
 *    +-----------+------+----------+-------------+-------------+
 *    | magic and | from | time_ns  | nonce       | MAC         |
 *    | version   | node | realtime | random      |             |
 *    +-----------+------+----------+-------------+-------------+
 *
 *    MAC    = BLAKE2b-128(key, "petalith token 1" | cluster | from | to |
 *                              time_ns | nonce)
 *    answer = BLAKE2b-128(key, "petalith answer 1" | cluster | from | to |
 *                              the whole token)
 *
 * The side that was called proves itself by the answer: only a holder of the
 * key can make it, and the nonce that it covers was drawn by the caller for
 * this one connection, so an old answer is worth nothing.
 *
 * Always true: a token is good for one cluster, one direction, one receiver,
 * one purpose (petal_seal_key_derive() gives each purpose a key of its own),
 * 30 s either way of one of the receiver's two clocks, and once.
 *
 * The time of day decides only whether a connection comes about, never whether
 * data is right. It may jump by hours: a receiver looks at the time of day, and
 * at what it was at the start and has steadily become since; a caller names the
 * one and the other in turn. So a jump is survived by those who run, and a
 * wrong time at the start ends when it is mended. Only a node that starts with
 * a wrong time is refused, -ETIME, until it is mended. Whoever holds the key is
 * believed when it says which node it is: the key admits to the cluster, it
 * does not tell its members apart. And a token proves who opened the
 * connection, not who wrote the bytes after it: on a network that others can
 * write to, put a tunnel under the fabric.
 *
 * Key file: 64 lower-case hexadecimal digits and a newline, 65 bytes, mode
 * 0600 or less, owned by the user who runs the program or by root. Hex and
 * not raw, so that an operator can compare and carry it in a terminal.
 *
 * Integers are little-endian in the token and under the MAC.
 *
 * Who may run together: everything, freely; a replay cache belongs to one
 * thread.
 *
 * Crash: a restarted receiver has forgotten which tokens it has seen, hence
 * takes one a second time if that comes within the window. What that gains is
 * a connection, not a byte of data: the caller still needs the key to check
 * the answer, and memory keys travel only after it.
 */
#ifndef PETAL_FABRIC_SEAL_H
#define PETAL_FABRIC_SEAL_H

#include <stdint.h>

#define PETAL_SEAL_KEY_BYTES 32
#define PETAL_SEAL_CLUSTER_BYTES 16
#define PETAL_SEAL_TOKEN_BYTES 48
#define PETAL_SEAL_ANSWER_BYTES 16
#define PETAL_SEAL_NONCE_BYTES 16

/* How far a token's time may lie from the receiver's, either way. */
#define PETAL_SEAL_WINDOW_NS UINT64_C(30000000000)

/* Tokens remembered: so many connections a minute one receiver admits. */
#define PETAL_SEAL_REPLAY_MAX 1024

/**
 * struct petal_seal_clock - the two clocks of one who calls and is called
 * @opened_realtime_ns: the time of day at the start
 * @opened_ns: the clock that only grows, at the same moment
 * @calls: tokens that were given a time
 */
struct petal_seal_clock {
	uint64_t opened_realtime_ns;
	uint64_t opened_ns;
	uint32_t calls;
};

/**
 * struct petal_seal_now - one moment on both
 * @realtime_ns: CLOCK_REALTIME
 * @steady_ns: what it would be had nobody set it since the start
 */
struct petal_seal_now {
	uint64_t realtime_ns;
	uint64_t steady_ns;
};

/**
 * petal_seal_clock_open() - the start
 * @realtime_ns: CLOCK_REALTIME
 * @now_ns: CLOCK_MONOTONIC
 */
void petal_seal_clock_open(struct petal_seal_clock *clock, uint64_t realtime_ns,
			   uint64_t now_ns);

/** petal_seal_clock_now() - a moment, for petal_seal_token_check() */
struct petal_seal_now petal_seal_clock_now(const struct petal_seal_clock *clock,
					   uint64_t realtime_ns,
					   uint64_t now_ns);

/** petal_seal_clock_call() - the time for the next token, one in turn */
uint64_t petal_seal_clock_call(struct petal_seal_clock *clock,
			       uint64_t realtime_ns, uint64_t now_ns);

/**
 * struct petal_seal_replay - the good tokens that a receiver has seen
 * @seen: time and nonce of each; a slot with time 0 is empty
 * @next: where the search for a free slot begins
 *
 * 24 KiB of the caller's memory, zero before its first use. Only tokens with
 * a right MAC get in, so a stranger cannot fill it. An entry is overwritten
 * only once its token has left the window.
 */
struct petal_seal_replay {
	struct {
		uint64_t time_ns;
		uint8_t nonce[PETAL_SEAL_NONCE_BYTES];
	} seen[PETAL_SEAL_REPLAY_MAX];
	uint32_t next;
};

/**
 * petal_seal_key_create() - draw a key and write it to a new file
 * @path: the file, which must not exist; its folder is synced as well
 *
 * Return: 0; -EEXIST; or the kernel's error, and then no file is left.
 */
int petal_seal_key_create(const char *path);

/**
 * petal_seal_key_load() - read a key file
 * @path: the file
 * @ret_key: the key, PETAL_SEAL_KEY_BYTES; wipe it when done
 *
 * Return: 0; -EPERM if others than the owner may read or write the file or if
 * the owner is neither this user nor root; -ELOOP for a symbolic link;
 * -EINVAL if it is no regular file; -PETAL_ECORRUPT if it does not hold
 * exactly 64 hexadecimal digits and a newline; or the kernel's error.
 */
int petal_seal_key_load(const char *path,
			uint8_t ret_key[PETAL_SEAL_KEY_BYTES]);

/**
 * petal_seal_key_derive() - the key of one purpose
 * @key: the cluster's key
 * @purpose: a short text without meaning of its own, as "wire" or "registry"
 * @ret_key: the derived key; may be @key itself
 *
 * A token made for one purpose is refused under the key of another, so a
 * connection of one kind cannot be passed off as one of another kind.
 */
void petal_seal_key_derive(const uint8_t key[PETAL_SEAL_KEY_BYTES],
			   const char *purpose,
			   uint8_t ret_key[PETAL_SEAL_KEY_BYTES]);

/**
 * petal_seal_cluster_id() - the id of a cluster, which its name makes
 * @name: of the configuration
 * @ret_id: PETAL_SEAL_CLUSTER_BYTES
 */
void petal_seal_cluster_id(const char *name,
			   uint8_t ret_id[PETAL_SEAL_CLUSTER_BYTES]);

/**
 * petal_seal_token_make() - a fresh token, for one connection
 * @key: the derived key
 * @cluster: the cluster's id
 * @from: the node that connects
 * @to: the node that is connected to
 * @time_ns: petal_seal_clock_call()
 * @ret_token: PETAL_SEAL_TOKEN_BYTES
 */
void petal_seal_token_make(const uint8_t key[PETAL_SEAL_KEY_BYTES],
			   const uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES],
			   uint32_t from, uint32_t to, uint64_t time_ns,
			   uint8_t ret_token[PETAL_SEAL_TOKEN_BYTES]);

/**
 * petal_seal_token_check() - may the sender of this token come in?
 * @key: the derived key
 * @cluster: the cluster's id
 * @to: the node that runs this check
 * @token: PETAL_SEAL_TOKEN_BYTES from the network
 * @now: petal_seal_clock_now()
 * @replay: the tokens seen; a good one is added
 * @ret_from: the node that made the token; written with -ETIME as well
 *
 * Costs a stranger's token one MAC, and nothing that is remembered. A token
 * from @to itself is refused: it would be our own, sent back to us.
 *
 * Return: 0; -PETAL_EAUTH if the token is forged, for somebody else, or used
 * before; -ETIME if it is good but for its time (petal_seal_token_time_ns());
 * -EAGAIN if the cache is full of tokens that are
 * still in the window, which takes PETAL_SEAL_REPLAY_MAX admitted connections
 * within a minute.
 */
int petal_seal_token_check(const uint8_t key[PETAL_SEAL_KEY_BYTES],
			   const uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES],
			   uint32_t to,
			   const uint8_t token[PETAL_SEAL_TOKEN_BYTES],
			   const struct petal_seal_now *now,
			   struct petal_seal_replay *replay,
			   uint32_t *ret_from);

/** petal_seal_token_time_ns() - the time that a token's maker named */
uint64_t petal_seal_token_time_ns(const uint8_t token[PETAL_SEAL_TOKEN_BYTES]);

/**
 * petal_seal_answer_make() - what the called side sends back
 * @key: the derived key
 * @cluster: the cluster's id
 * @to: the node that answers, hence the token's receiver
 * @token: the token that it found good
 * @ret_answer: PETAL_SEAL_ANSWER_BYTES
 */
void petal_seal_answer_make(const uint8_t key[PETAL_SEAL_KEY_BYTES],
			    const uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES],
			    uint32_t to,
			    const uint8_t token[PETAL_SEAL_TOKEN_BYTES],
			    uint8_t ret_answer[PETAL_SEAL_ANSWER_BYTES]);

/**
 * petal_seal_answer_check() - is it the right node that answered?
 * @key: the derived key
 * @cluster: the cluster's id
 * @to: the node that was called
 * @token: the caller's own token, as it sent it
 * @answer: PETAL_SEAL_ANSWER_BYTES from the network
 *
 * Return: 0; -PETAL_EAUTH.
 */
int petal_seal_answer_check(const uint8_t key[PETAL_SEAL_KEY_BYTES],
			    const uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES],
			    uint32_t to,
			    const uint8_t token[PETAL_SEAL_TOKEN_BYTES],
			    const uint8_t answer[PETAL_SEAL_ANSWER_BYTES]);

#endif
