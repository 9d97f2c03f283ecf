/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FUZZ_PRIVATE_H
#define PETAL_FUZZ_PRIVATE_H

#include <setjmp.h>

#include "tests/fuzz/fuzz.h"

/* What the fuzzer and its main program share. */

#define FUZZ_LIES 256u

/* How the peer behaves. */
enum fuzz_mode {
	FUZZ_MUTATE, /* any word may change before any access */
	FUZZ_LIAR,   /* one word is a lie, once or for ever */
	FUZZ_FLIP,   /* another process writes random words at full speed */
	FUZZ_PUNCH,  /* another process punches holes, and tries to truncate */
};

struct fuzz_field {
	struct fuzz_region region; /* the word's place and width */
	uint64_t honest;
};

/* Of the call that runs. */
struct fuzz_call {
	const struct fuzz_subject *subject;
	const struct fuzz_region *regions;
	enum fuzz_mode mode;
	uint64_t accesses;
	uint64_t events;
	uint64_t toggle; /* 0, or a bit that goes on and off at each access */
	unsigned gap;    /* about so many accesses between two changes */
	const struct fuzz_field *lie;
	uint64_t lie_value;
	bool lie_stays;
	bool recording;
	const char *failure; /* NULL: none so far in this case */
	jmp_buf stop;
};

extern struct fuzz_call fuzz_call;
extern uint64_t fuzz_refusals;

void fuzz_seed(uint64_t seed, uint64_t number);

/** fuzz_begin() - a call of the subject begins; the peer is let loose */
void fuzz_begin(void);

/** fuzz_end() - it has come back. Return: how many accesses it took. */
uint64_t fuzz_end(void);

/** fuzz_corrupt() - change any word, now */
void fuzz_corrupt(void);

/** fuzz_lie_at() - the boundary values of a word, one by one */
uint64_t fuzz_lie_at(uint64_t honest, unsigned index);

/** fuzz_forget() - the words that were recorded */
void fuzz_forget(void);

/** fuzz_fields() - the words that were accessed since recording began */
unsigned fuzz_fields(const struct fuzz_field **ret_fields);

#endif
