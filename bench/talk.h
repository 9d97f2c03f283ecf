/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_TALK_H
#define PETAL_BENCH_TALK_H

#include <stddef.h>
#include <stdint.h>

/**
 * DOC: talk - a client's connection to a server of the loopback
 *
 * What is put is sent by petal_talk_flush(), in one piece; what comes is read
 * in pieces as large as they come. TCP_NODELAY. Every wait ends at a deadline,
 * and when a signal asks the bench to end.
 *
 * Errors: -ENOTCONN: the server is gone; -ETIMEDOUT; -EINTR: a signal;
 * -EMSGSIZE: too much for the buffer.
 */

#define PETAL_TALK_BYTES ((size_t)8 << 20)

struct petal_talk {
	int fd;
	uint8_t *out;
	size_t out_used;
	uint8_t *in;
	size_t in_start;
	size_t in_end;
};

/**
 * petal_talk_open() - connect, and try again while nobody listens
 * @seconds: how long to try
 *
 * Return: 0, -ECONNREFUSED, -ENOMEM or -EINTR.
 */
int petal_talk_open(struct petal_talk *talk, uint16_t port, unsigned seconds);

/** petal_talk_close() - may be called on zeros and twice */
void petal_talk_close(struct petal_talk *talk);

/**
 * petal_talk_put() - something more to be sent
 *
 * Return: 0 or -EMSGSIZE.
 */
int petal_talk_put(struct petal_talk *talk, const void *bytes, size_t length);

/** petal_talk_print() - the same for text; 0 or -EMSGSIZE */
int petal_talk_print(struct petal_talk *talk, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/** petal_talk_flush() - send what was put; 0 or an error */
int petal_talk_flush(struct petal_talk *talk);

/**
 * petal_talk_need() - wait until so many bytes are there
 * @ret_bytes: they; valid until the next call
 *
 * They stay until petal_talk_skip() takes them.
 */
int petal_talk_need(struct petal_talk *talk, size_t length,
		    uint8_t **ret_bytes);

/** petal_talk_skip() - take bytes that are there */
void petal_talk_skip(struct petal_talk *talk, size_t length);

/**
 * petal_talk_line() - wait for a line and take it
 * @ret_line: without its end, which becomes a zero; valid until the next call
 */
int petal_talk_line(struct petal_talk *talk, char **ret_line);

/** petal_talk_ready() - bytes that are there without waiting */
static inline size_t petal_talk_ready(const struct petal_talk *talk)
{
	return talk->in_end - talk->in_start;
}

#endif
