/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_PROBE_H
#define PETAL_FABRIC_PROBE_H

#include <stdbool.h>
#include <stdint.h>

/**
 * DOC: probe - what a provider of libfabric may be trusted with
 *
 * Providers promise much alike and keep it differently, so nothing is believed
 * before it was tried, between two processes, on the addresses in question. One
 * answers, the other asks. They talk over a wire of the provider tcp, which is
 * the reference; what is tried goes over a second wire, of the provider that
 * is asked about.
 *
 *    asks                                            answers
 *    control (tcp)   request, one at a time   ---->  looks with its own CPU
 *                    <----  answer                   at its own memory
 *    provider X      one-sided writes         ---->  memory of 1 MiB
 *
 * Five checks:
 *
 *    P1  a write reported as delivered is in the peer's memory, although the
 *        peer's CPU did nothing for it since it was posted
 *    P2  a write to memory that the peer has closed, or over a connection that
 *        it has ended, changes nothing and is not reported as delivered
 *    P3  records of 64 to 65536 bytes, around the end of the memory and over
 *        older ones, are valid by their checksums only when they are whole
 *    P4  the connection is there again soon after a fence has torn it
 *    P5  a peer that sleeps is woken by a write, and sleeps when there is none
 *
 * What follows from them. Levels above local are acknowledged by the backup's
 * CPU, which has checked the bytes: they need P3, P4, P5 and, of P1, that what
 * is reported arrives at all. Whether it is early, and P2, decide only whether
 * a completion could be counted instead; petald never counts one.
 *
 * Hostile bytes: a request and an answer have one size each, are copied and
 * bounded before use; who breaks that is dropped. Strangers do not get so far:
 * the key of the cluster, derived for this purpose, guards both wires.
 *
 * Threads: a call belongs to one thread and to itself. Time: every wait has an
 * end. Crash: nothing is kept anywhere.
 */

#define PETAL_PROBE_NAME_BYTES 32u
#define PETAL_PROBE_WORDS_BYTES 160u

/** enum petal_probe_check - in the order in which they are made */
enum petal_probe_check {
	PETAL_PROBE_LANDED, /* P1 */
	PETAL_PROBE_FENCED, /* P2 */
	PETAL_PROBE_WHOLE,  /* P3 */
	PETAL_PROBE_AGAIN,  /* P4 */
	PETAL_PROBE_ASLEEP, /* P5 */
	PETAL_PROBE_CHECKS,
};

/**
 * struct petal_probe_row - what was seen of one provider
 * @provider: libfabric's name of it
 * @status: 0, or why it came to no end: -ENODATA no such provider;
 * -EOPNOTSUPP it has no connections with one-sided writes at this address;
 * or what went wrong in @reached
 * @reached: the check that was being made
 * @writes: of P1
 * @early: of these, reported before the bytes were there
 * @lost: of these, reported, and not there when the peer had caught up
 * @fences: of P2
 * @fence_landed: of these, changed what they must not
 * @fence_reported: of these, reported as delivered
 * @records: of P3
 * @torn: of these, valid and not what was sent
 * @stuck: of these, never valid
 * @again_ns: of P4, the slowest
 * @naps: of P5
 * @missed: of these, not woken within PETAL_PROBE_WAKE_NS
 * @wake_ns: of the others, the slowest
 * @idle_turns: wake-ups of the peer in @idle_ns without a write
 */
struct petal_probe_row {
	char provider[PETAL_PROBE_NAME_BYTES];
	int status;
	enum petal_probe_check reached;
	uint32_t writes;
	uint32_t early;
	uint32_t lost;
	uint32_t fences;
	uint32_t fence_landed;
	uint32_t fence_reported;
	uint32_t records;
	uint32_t torn;
	uint32_t stuck;
	uint32_t naps;
	uint32_t missed;
	uint64_t again_ns;
	uint64_t wake_ns;
	uint64_t idle_ns;
	uint64_t idle_turns;
};

/** Slower than this is a failure of P4 and of P5. */
#define PETAL_PROBE_AGAIN_NS UINT64_C(2000000000)
#define PETAL_PROBE_WAKE_NS UINT64_C(1000000000)

/**
 * struct petal_probe_options - both sides
 * @listen: answering: where, as for a wire; asking: unused
 * @peer: asking: where the other one answers; answering: unused
 * @cluster: the cluster's id
 * @key: the cluster's key
 * @quick: asking: a tenth of the rounds, for a start-up
 */
struct petal_probe_options {
	const char *listen;
	const char *peer;
	uint8_t cluster[16];
	uint8_t key[32];
	bool quick;
};

struct petal_probe_answerer;

/**
 * petal_probe_open() - be ready to answer
 * @options: not needed after the call
 * @ret_answerer: what answers
 *
 * Return: 0, or what petal_wire_open() says of @listen.
 */
int petal_probe_open(const struct petal_probe_options *options,
		     struct petal_probe_answerer **ret_answerer);

/**
 * petal_probe_address() - where it answers, with the port that was taken
 */
const char *petal_probe_address(const struct petal_probe_answerer *answerer);

/**
 * petal_probe_answer() - answer whoever asks
 * @answerer: what answers
 * @stop_fd: return when it is readable; -1 for none
 * @until_ns: return then, on the clock that only grows
 *
 * One asks at a time: a newer one takes the place of an older one.
 *
 * Return: 0; -ETIMEDOUT at @until_ns; or a failure of the wire.
 */
int petal_probe_answer(struct petal_probe_answerer *answerer, int stop_fd,
		       uint64_t until_ns);

/**
 * petal_probe_close() - answer no more
 * @answerer: what answers, or NULL
 */
void petal_probe_close(struct petal_probe_answerer *answerer);

struct petal_probe_asker;

/**
 * petal_probe_call() - reach the one who answers
 * @options: not needed after the call, but for @peer
 * @ret_asker: what asks
 *
 * Return: 0; -EINVAL for an address that is none; -ECONNREFUSED nobody answers
 * there, or not with this key and cluster; -ETIMEDOUT; -PETAL_EAUTH it
 * answers, and is not who it should be; or another failure of the wire.
 */
int petal_probe_call(const struct petal_probe_options *options,
		     struct petal_probe_asker **ret_asker);

/**
 * petal_probe_ask() - try one provider
 * @asker: what asks
 * @provider: libfabric's name of it
 * @ret_row: written in every case
 *
 * Takes some 3 s, a tenth of it when quick, and at most a minute.
 *
 * Return: 0 when the peer may be asked again, whatever the row says; a failure
 * if the peer is gone (-ECONNRESET, -ETIMEDOUT), was taken by another asker
 * (-ESTALE) or makes no sense (-EPROTO).
 */
int petal_probe_ask(struct petal_probe_asker *asker, const char *provider,
		    struct petal_probe_row *ret_row);

/**
 * petal_probe_hang_up() - ask no more
 * @asker: what asks, or NULL
 */
void petal_probe_hang_up(struct petal_probe_asker *asker);

/**
 * petal_probe_passed() - whether the check was made, and passed
 */
bool petal_probe_passed(const struct petal_probe_row *row,
			enum petal_probe_check check);

/**
 * petal_probe_words() - a check's outcome, for people
 * @ret_words: no full stop; says what was seen, passed or not
 */
void petal_probe_words(const struct petal_probe_row *row,
		       enum petal_probe_check check,
		       char ret_words[PETAL_PROBE_WORDS_BYTES]);

/**
 * petal_probe_replicates() - may it carry mem2, mem3, disk2 and disk3?
 * @ret_why: if not, the first reason; else empty
 */
bool petal_probe_replicates(const struct petal_probe_row *row,
			    char ret_why[PETAL_PROBE_WORDS_BYTES]);

/**
 * petal_probe_completes() - could a completion count as the peer's word?
 *
 * Needs P1 and P2 as well. petald does not rely on it.
 */
bool petal_probe_completes(const struct petal_probe_row *row);

#endif
