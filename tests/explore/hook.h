/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_EXPLORE_HOOK_H
#define PETAL_EXPLORE_HOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/**
 * DOC: hook - what shm/atomic.h becomes when the explorer compiles a ring
 *
 *    cc -DPETAL_ATOMIC_HOOKS='"tests/explore/hook.h"' ... rings/spsc.c
 *
 * Every access of a shared word is a call into the explorer, and every order
 * that is stronger than relaxed is asked for at run time, so that one program
 * can try the code as it is and with any of its edges weakened.
 */

#define EXPLORE_RELAXED 0u
#define EXPLORE_ACQUIRE 1u
#define EXPLORE_RELEASE 2u
#define EXPLORE_ACQ_REL 3u
#define EXPLORE_SEQ_CST 7u

struct explore_edge; /* what the sites of one name and kind share */

/* One place in the sources that names an edge. */
struct explore_site {
	const char *file;
	const char *name;
	unsigned kind;
	struct explore_edge *edge; /* NULL until it was passed first */
};

unsigned explore_order(struct explore_site *site);
uint64_t explore_load(const void *word, unsigned bytes, unsigned order,
		      const char *where);
void explore_store(void *word, unsigned bytes, uint64_t value, unsigned order,
		   const char *where);
bool explore_cas(void *word, unsigned bytes, void *expected, uint64_t value,
		 unsigned order, const char *where);
uint64_t explore_swap(void *word, unsigned bytes, uint64_t value,
		      unsigned order, const char *where);
uint64_t explore_add(void *word, unsigned bytes, uint64_t value, unsigned order,
		     const char *where);
uint64_t explore_or(void *word, unsigned bytes, uint64_t value, unsigned order,
		    const char *where);
uint64_t explore_and(void *word, unsigned bytes, uint64_t value, unsigned order,
		     const char *where);
void explore_fence(unsigned order, const char *where);
void explore_light_fence(unsigned order, const char *where);

void *explore_copy(void *to, const void *from, size_t bytes);

/* Payload that a ring copies within the shared memory is of interest too. */
#define memcpy(to, from, bytes) explore_copy(to, from, bytes)

#define EXPLORE_TEXT_OF(line) #line
#define EXPLORE_TEXT(line) EXPLORE_TEXT_OF(line)
#define EXPLORE_HERE __FILE__ ":" EXPLORE_TEXT(__LINE__)

#define EXPLORE_SITE(name, kind)                                           \
	__extension__({                                                    \
		static struct explore_site site_ = { __FILE__, name, kind, \
						     0 };                  \
		explore_order(&site_);                                     \
	})

#define PETAL_RELAXED EXPLORE_RELAXED
#define PETAL_ACQUIRE(edge) EXPLORE_SITE(#edge, EXPLORE_ACQUIRE)
#define PETAL_RELEASE(edge) EXPLORE_SITE(#edge, EXPLORE_RELEASE)
#define PETAL_ACQ_REL(edge) EXPLORE_SITE(#edge, EXPLORE_ACQ_REL)
#define PETAL_SEQ_CST(edge) EXPLORE_SITE(#edge, EXPLORE_SEQ_CST)

#define EXPLORE_WORD(word) &(word)->bits, (unsigned)sizeof((word)->bits)
#define EXPLORE_RESULT(word) (__typeof__((word)->bits))

#define petal_load(word, order) \
	(EXPLORE_RESULT(word)   \
		 explore_load(EXPLORE_WORD(word), order, EXPLORE_HERE))
#define petal_store(word, value, order) \
	explore_store(EXPLORE_WORD(word), value, order, EXPLORE_HERE)
#define petal_cas(word, expected, value, order) \
	explore_cas(EXPLORE_WORD(word), expected, value, order, EXPLORE_HERE)
/* Unlike a cast, this may go unused. */
#define EXPLORE_UPDATE(word, value, order, call)                              \
	__extension__({                                                       \
		__typeof__((word)->bits) old_ = EXPLORE_RESULT(word)          \
			call(EXPLORE_WORD(word), value, order, EXPLORE_HERE); \
		old_;                                                         \
	})

#define petal_swap(word, value, order) \
	EXPLORE_UPDATE(word, value, order, explore_swap)
#define petal_add(word, value, order) \
	EXPLORE_UPDATE(word, value, order, explore_add)
#define petal_or(word, value, order) \
	EXPLORE_UPDATE(word, value, order, explore_or)
#define petal_and(word, value, order) \
	EXPLORE_UPDATE(word, value, order, explore_and)
#define petal_fence(order) explore_fence(order, EXPLORE_HERE)
#define petal_compiler_fence(order) explore_light_fence(order, EXPLORE_HERE)

#endif
