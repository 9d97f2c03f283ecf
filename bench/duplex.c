/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/duplex.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/payload.h"

/* How often a spinning side finds nothing before it asks who is there. */
#define LOOKS (1u << 22)

static int receive(struct petal_duplex *duplex, struct petal_pair *pair)
{
	int err;

	/* The way to wait is asked each time, so that a spinner can stop. */
	do {
		if (duplex->polls && !petal_pair_spinning(pair))
			petal_pair_rest(pair);
		err = duplex->receive(duplex, duplex->buffer, duplex->bytes,
				      petal_pair_spinning(pair));
	} while (err == -EAGAIN || err == -EINTR);
	return err;
}

static int serve(struct petal_pair *pair, void *arg)
{
	struct petal_duplex *duplex = arg;
	int err;

	duplex->server = true;
	err = duplex->begin ? duplex->begin(duplex, true) : 0;
	petal_pair_tell(pair, 1);
	for (uint64_t sequence = 1; err == 0; sequence++) {
		err = receive(duplex, pair);
		if (err == 0)
			err = petal_payload_check(duplex->buffer, duplex->bytes,
						  sequence);
		if (err < 0)
			break;
		petal_payload_fill(duplex->buffer, duplex->bytes,
				   PETAL_PAYLOAD_ANSWER(sequence));
		err = duplex->send(duplex, duplex->buffer, duplex->bytes,
				   petal_pair_spinning(pair));
	}
	return err;
}

static int receive_answer(struct petal_contender *contender)
{
	struct petal_duplex *duplex = contender->arg;
	bool spin = petal_pair_spinning(&contender->pair);
	unsigned looks = 0;
	int err;

	while ((err = duplex->receive(duplex, duplex->buffer, duplex->bytes,
				      spin)) == -EAGAIN ||
	       err == -EINTR) {
		int gone = 0;

		if (++looks % LOOKS == 0)
			gone = petal_pair_check(&contender->pair);
		if (gone < 0)
			return gone;
	}
	return err;
}

static int trip(struct petal_contender *contender, uint64_t sequence)
{
	struct petal_duplex *duplex = contender->arg;
	int err;

	petal_payload_fill(duplex->buffer, duplex->bytes, sequence);
	err = duplex->send(duplex, duplex->buffer, duplex->bytes,
			   petal_pair_spinning(&contender->pair));
	if (err == 0)
		err = receive_answer(contender);
	if (err < 0)
		return err;
	return petal_payload_check(duplex->buffer, duplex->bytes,
				   PETAL_PAYLOAD_ANSWER(sequence));
}

static int open_duplex(struct petal_contender *contender,
		       const struct petal_contest *contest)
{
	struct petal_duplex *duplex = contender->arg;
	int err = 0;

	duplex->bytes = contest->bytes;
	if (duplex->bytes_max && duplex->bytes > duplex->bytes_max)
		return -EMSGSIZE;
	duplex->buffer = malloc(duplex->bytes);
	if (!duplex->buffer)
		return -ENOMEM;
	/* An abstract name needs no file, so that nothing is left behind. */
	snprintf(duplex->address, sizeof(duplex->address), "petal-bench-%ld-%s",
		 (long)getpid(), duplex->impl);
	if (duplex->prepare)
		err = duplex->prepare(duplex);
	/* Some can be asked only now. */
	if (duplex->version)
		contender->version = duplex->version;
	if (err == 0)
		err = petal_pair_open(&contender->pair, contest->cpus[1], serve,
				      duplex);
	return err;
}

static int join_duplex(struct petal_contender *contender,
		       const struct petal_contest *contest)
{
	struct petal_duplex *duplex = contender->arg;
	uint32_t told;
	int err =
		petal_pair_hear(&contender->pair, UINT64_C(5000000000), &told);

	(void)contest;
	if (err == 0 && duplex->begin)
		err = duplex->begin(duplex, false);
	return err;
}

static void close_duplex(struct petal_contender *contender)
{
	struct petal_duplex *duplex = contender->arg;

	if (duplex->end && duplex->buffer)
		duplex->end(duplex);
	free(duplex->buffer);
	duplex->buffer = NULL;
}

struct petal_contender petal_duplex_contender(struct petal_duplex *duplex)
{
	return (struct petal_contender){
		.impl = duplex->impl,
		.version = duplex->version,
		.remark = duplex->remark ? duplex->remark : "",
		.peer = true,
		.polls = duplex->polls,
		.open = open_duplex,
		.join = join_duplex,
		.trip = trip,
		.close = close_duplex,
		.arg = duplex,
	};
}
