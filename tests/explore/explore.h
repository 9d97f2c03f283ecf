/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_EXPLORE_EXPLORE_H
#define PETAL_EXPLORE_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/explore/hook.h"

/**
 * DOC: explore - runs real code over the histories that weak memory allows
 *
 * A model is a handful of bounded threads over one block of shared memory.
 * The explorer runs them on one CPU, as coroutines, again and again; each run
 * takes another way through the choices below, until none is left or the
 * budget is spent.
 *
 * Memory: C11 as RC11 repairs it (Lahav et al., PLDI 2017), in the form of
 * views: of every word all stores are kept, in modification order, each with
 * the view that it releases; a load may take any store that its thread's view
 * does not already lie behind. A release sequence is the store and the
 * read-modify-writes after it, and what the same thread stores there later; by
 * the rule of C++20, which is weaker, not the latter. Fences are those of C11; one of
 * sequential consistency exchanges views with a global one, without making
 * anything happen before anything. What no store has been made for cannot be
 * loaded (no thin air), so loads do not overtake stores: neither do they in
 * RC11, which is what GenMC decides by.
 *
 * Choices, and why there are no others:
 *    - which store a load takes; and whether a compare-and-swap succeeds
 *    - where in modification order a store goes, after what its thread knows
 *    - which of the threads that are about to load goes first. A store needs
 *      no such choice: it is made at once, for others may still load what was
 *      there before it. Threads that have been passed over sleep until there
 *      is a store that they could not have taken before.
 *    - whether the victim dies here, before it stores
 *
 * Plain accesses (explore_read, explore_write) that are not ordered by
 * happens-before are a race, and a race is a failure.
 *
 * The threads of a model touch shared memory by the hooks and by these two
 * only. What else they keep lies on their stacks, or in the state that the
 * model names, which is as setup left it at the start of every run.
 */

#define EXPLORE_THREADS_MAX 7u

struct explore_model {
	const char *name;
	/* Makes the shared block and the state; its accesses are plain. */
	void (*setup)(void);
	/* Each runs once; NULL ends the list. */
	void (*threads[EXPLORE_THREADS_MAX + 1])(void);
	/* After all have ended, knowing all that they did. */
	void (*finish)(void);
	void *shared;
	size_t shared_bytes;
	void *state;
	size_t state_bytes;
	/* Bit map of threads, one of which may die in a run. */
	unsigned mortal;
	/* Release sequences by the rule of C++20. */
	bool c20;
	/* Words outside of the block are the process's own, and plain. */
	bool has_private_words;
	/* Plants a bug, or tells of an outcome that is allowed. */
	bool must_fail;
};

/** explore_self() - index of the running thread */
unsigned explore_self(void);

/** explore_read() - a plain load of eight bytes */
uint64_t explore_read(const void *word);

/** explore_write() - a plain store of eight bytes */
void explore_write(void *word, uint64_t value);

/**
 * explore_proved_dead() - wait until a thread has died or ended
 *
 * The caller then knows all that it did, as after proof of death.
 *
 * Return: whether it died.
 */
bool explore_proved_dead(unsigned thread);

/** explore_check() - the run has failed unless @holds */
#define explore_check(holds) \
	((holds) ? (void)0 : explore_fail(#holds, EXPLORE_HERE))

void explore_fail(const char *what, const char *where)
	__attribute__((noreturn));

/** explore_park() - wait until another thread unparks this one */
void explore_park(void);

/** explore_unpark() - let a thread go on that is parked, knowing what we know */
void explore_unpark(unsigned thread);

/** explore_assume() - the run is of no interest unless @holds */
void explore_assume(bool holds);

/** explore_membarrier() - a fence in every thread, one after the other */
void explore_membarrier(void);

/* --- for the program around the models ----------------------------------- */

/* All models by that rule. */
extern bool explore_c20;

struct explore_budget {
	uint64_t searched; /* runs of the search, at most */
	uint64_t random;   /* and of random ones */
	uint64_t seed;
};

struct explore_result {
	uint64_t runs;    /* that reached their end */
	uint64_t blocked; /* that turned out to repeat others */
	bool complete;    /* nothing is left to search */
	bool failed;
	uint64_t seed; /* of the random run that failed, or 0 */
	char what[256];
};

/**
 * explore_run() - explore one model
 *
 * Stops at the first failure.
 */
void explore_run(const struct explore_model *model,
		 const struct explore_budget *budget,
		 struct explore_result *ret_result);

/** explore_show() - run again, with every access printed, what failed last */
void explore_show(const struct explore_model *model);

/* What all sites of one file that have this name and kind share. */
struct explore_edge {
	const char *file; /* from the root of the house */
	const char *name;
	unsigned kind;
	unsigned order;  /* what its sites get: the kind, unless weakened */
	uint64_t passed; /* how often */
};

#define EXPLORE_EDGES_MAX 128u

extern struct explore_edge explore_edges[EXPLORE_EDGES_MAX];
extern unsigned explore_edge_count;

/* --- what a program of one kind of ring gives to order.c ------------------ */

/* An edge that no run can show to be needed, and why. */
struct explore_excuse {
	const char *file;
	const char *name;
	unsigned kind;
	unsigned left; /* what it may be weakened to, unnoticed */
	const char *why;
};

extern const char explore_kind[];
extern const struct explore_model *const explore_models[]; /* to NULL */
extern const struct explore_excuse explore_excuses[];      /* to .file NULL */

#endif
