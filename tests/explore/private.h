/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_EXPLORE_PRIVATE_H
#define PETAL_EXPLORE_PRIVATE_H

#include "tests/explore/coroutine.h"
#include "tests/explore/explore.h"

#undef memcpy

/*
 * What the two halves of the explorer share: explore.c decides what happens,
 * history.c knows what it means for memory.
 */

#define CLOCKS 8u /* one per thread, and one of finish */
#define LOCATIONS_MAX 504u
#define STORES_MAX 160u
#define VIEWS_MAX 4096u
#define CHOICES_MAX 8192u
#define STEPS_MAX 4000u
#define STAMP_GAP 256u
#define FINISH EXPLORE_THREADS_MAX

/*
 * What one knows: of every thread, how far (happens-before); of every
 * location, the stamp of the store that one's loads may not lie behind.
 */
struct view {
	uint16_t at[CLOCKS + LOCATIONS_MAX];
};

struct store {
	uint64_t value;
	struct view *view; /* what an acquirer learns; NULL: nothing */
	uint16_t stamp;    /* place in modification order */
	uint8_t thread;
	bool taken; /* a read-modify-write comes at once after it */
};

struct location {
	uint8_t *address;
	uint8_t bytes;
	bool plain;
	uint8_t writers; /* bit map of threads that ever stored here */
	unsigned index;  /* into views, clocks not counted */
	uint64_t run;    /* in which what follows was made */
	uint16_t count;
	uint8_t order[STORES_MAX]; /* indexes of stores, by stamp */
	struct store stores[STORES_MAX];
	struct view *headed[CLOCKS]; /* released here last, by each thread */
	/* Of a plain one: who wrote last, who read since, and what was there. */
	uint8_t last_writer;
	uint16_t last_write;
	uint16_t last_reads[CLOCKS];
	uint64_t initial;
};

enum state { FRESH, LOCAL, ABOUT, AWAITING, PARKED, DONE, DEAD };
enum access { LOAD, UPDATE, CAS, WRITE, FENCE };

struct thread {
	struct explore_coroutine coroutine;
	enum state state;
	enum access access;        /* ABOUT: to do what */
	struct location *location; /* where; NULL for a fence */
	uint64_t expected;
	unsigned awaited;
	bool is_sc; /* and with sequential consistency */
	bool sleeps;
	uint32_t mark; /* only stores from here on, when it sleeps */
	uint32_t steps;
	bool has_released; /* by a fence: released is of interest */
	bool unfenced;     /* a light fence of it was weakened */
	struct view known;
	struct view pending;  /* from relaxed loads, for an acquire fence */
	struct view released; /* by the last release fence */
};

struct choice {
	uint16_t chosen;
	uint16_t of;
};

enum ending { RUNS, ENDED, BLOCKED, FAILED, STUCK };

/* Of the model that is being explored, and of the run. */
extern const struct explore_model *model;
extern struct thread threads[CLOCKS];
extern struct thread *self; /* NULL: accesses are plain */
extern struct explore_coroutine outside;
extern unsigned thread_count;
extern enum ending ending;
extern char failure[256];

extern struct location locations[LOCATIONS_MAX];
extern unsigned location_count;
extern unsigned width; /* of views, in use */
extern uint16_t *location_of_word;
extern uint8_t *is_narrow; /* a word of four bytes, whoever stores eight */
extern uint8_t *shared_copy;
extern uint8_t *state_copy;

extern struct view views[VIEWS_MAX];
extern unsigned view_count;
extern struct view fenced; /* what fences of sequential consistency exchange */
extern bool has_fences, has_barriers;

extern struct choice choices[CHOICES_MAX];
extern unsigned choice_count, depth;
extern bool is_random, was_random, is_shown, must_restart, is_void,
	is_finishing;
extern uint64_t rng, run, run_of_model;
extern unsigned kills_left;
extern bool is_c20;

void leave(enum ending why) __attribute__((noreturn));
unsigned choose(unsigned of, unsigned rarely);
bool may_take(const struct thread *thread, const struct location *location,
	      unsigned index);
void yield_turn(void);
void step(void);
void maybe_die(void);
void remember_writer(struct location *location);
void about_to(enum access access, struct location *location, uint64_t expected,
	      unsigned order);
void wake_sc(const struct location *location, enum access access);
void before_sc(const struct location *location, unsigned order);
void after_sc(const struct location *location, enum access access,
	      unsigned order);
void let_barrier_in(void);
void view_join(struct view *into, const struct view *from, unsigned at);
unsigned explore_index(void);
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define say(...) (is_shown ? print(__VA_ARGS__) : (void)0)

#endif
