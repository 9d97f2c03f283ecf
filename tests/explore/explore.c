/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/explore/private.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The happy path of a run: every thread goes on until it is about to load.
 * When all have come so far, one is chosen, and what it loads; so on until
 * all have ended; then the model's finish looks at what there is.
 *
 * A run is a list of choices. The search repeats the list of the last run up
 * to its last choice that has another way to go, and goes that way.
 *
 * Sleep: let A and B be about to load. When all that follows from A going
 * first has been searched, and B goes first, then A's taking of a store that
 * was there already leads to nothing new, for B's load changes nothing that
 * A's depends on. So A waits until there are stores that are newer than its
 * mark, and takes only of those. A run in which it waits for ever is a
 * repetition, and ends.
 *
 * A word that only one thread ever tried to store to is loaded by that thread
 * without a choice. Whenever it turns out that another does so as well, the
 * search starts anew. The first such store of a history comes after loads that
 * were right to have no choice, so none is missed.
 */

const struct explore_model *model;
struct thread threads[CLOCKS];
struct thread *self; /* NULL: accesses are plain */
struct explore_coroutine outside;
unsigned thread_count;
enum ending ending;
char failure[256];

struct location locations[LOCATIONS_MAX];
unsigned location_count;
unsigned width; /* of views, in use */
uint16_t *location_of_word;
uint8_t *is_narrow; /* a word of four bytes, whoever stores eight */
uint8_t *shared_copy;
uint8_t *state_copy;

struct view views[VIEWS_MAX];
unsigned view_count;
struct view fenced; /* what fences of sequential consistency exchange */
bool has_fences, has_barriers;

struct choice choices[CHOICES_MAX];
unsigned choice_count, depth;
bool is_random, was_random, is_shown, must_restart, is_void, is_finishing;
uint64_t rng, run, run_of_model;
unsigned kills_left;
bool is_c20;
bool explore_c20;

void print(const char *format, ...)
{
	va_list arguments;

	if (self)
		fprintf(stderr, is_finishing ? "  finish    " : "  thread %u  ",
			(unsigned)(self - threads));
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
}

/* --- choices -------------------------------------------------------------- */

static uint64_t random_next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng * UINT64_C(0x2545f4914f6cdd1d) >> 32;
}

void leave(enum ending why)
{
	ending = why;
	explore_switch(&self->coroutine, &outside);
	abort();
}

void explore_fail(const char *what, const char *where)
{
	snprintf(failure, sizeof(failure), "%s: %s", where, what);
	if (!self) {
		fprintf(stderr, "explore: %s: setup: %s\n", model->name,
			failure);
		exit(2);
	}
	say("FAILED    %s", failure);
	leave(FAILED);
}

/* One of @of; @rarely: a random run takes others than 0 with this chance. */
unsigned choose(unsigned of, unsigned rarely)
{
	struct choice *choice = &choices[depth];

	if (of == 1)
		return 0;
	if (depth == CHOICES_MAX)
		explore_fail("too many choices", EXPLORE_HERE);
	if (depth == choice_count) {
		unsigned chosen = 0;

		if (is_random && random_next() % 256 < rarely)
			chosen = (unsigned)(random_next() % of);
		*choice = (struct choice){ (uint16_t)chosen, (uint16_t)of };
		choice_count++;
	}
	depth++;
	return choice->chosen;
}

static bool next_choices(void)
{
	while (choice_count > 0) {
		struct choice *choice = &choices[choice_count - 1];

		if (++choice->chosen < choice->of)
			return true;
		choice_count--;
	}
	return false;
}

/* --- whose turn it is ----------------------------------------------------- */

bool may_take(const struct thread *thread, const struct location *location,
	      unsigned index)
{
	const struct store *store = &location->stores[index];

	if (store->stamp < thread->known.at[location->index] ||
	    (thread->sleeps && index < thread->mark))
		return false;
	return thread->access == LOAD || !store->taken ||
	       (thread->access == CAS && store->value != thread->expected);
}

static bool may_go(const struct thread *thread)
{
	if (!thread->sleeps)
		return true;
	if (thread->access >= WRITE)
		return false;
	for (unsigned i = thread->mark; i < thread->location->count; i++)
		if (may_take(thread, thread->location, i))
			return true;
	return false;
}

static void put_to_sleep(struct thread *thread)
{
	thread->sleeps = true;
	thread->mark = thread->location ? thread->location->count : 0;
}

/* A thread that goes on without a choice, for it depends on nothing. */
static struct thread *find_local(void)
{
	for (unsigned i = 0; i < thread_count; i++) {
		struct thread *thread = &threads[i];
		enum state awaited = threads[thread->awaited].state;

		if (thread->state == FRESH || thread->state == LOCAL ||
		    (thread->state == AWAITING &&
		     (awaited == DONE || awaited == DEAD)))
			return thread;
	}
	return NULL;
}

/* Whether it sleeps for good: all who might wake it have come to their end. */
static bool is_hopeless(const struct thread *thread)
{
	unsigned alive = 0;

	if (thread->state != ABOUT || may_go(thread) || thread->is_sc)
		return false;
	for (unsigned i = 0; i < thread_count; i++)
		if (&threads[i] != thread && threads[i].state != DONE &&
		    threads[i].state != DEAD)
			alive |= 1u << i;
	return (thread->location->writers & alive) == 0;
}

static struct thread *choose_about(void)
{
	struct thread *found[CLOCKS];
	unsigned count = 0, chosen;

	for (unsigned i = 0; i < thread_count && !is_random; i++)
		if (threads[i].sleeps && is_hopeless(&threads[i]))
			return NULL;
	/* Who has just run goes on, unless chosen otherwise. */
	if (self->state == ABOUT && may_go(self))
		found[count++] = self;
	for (unsigned i = 0; i < thread_count; i++)
		if (&threads[i] != self && threads[i].state == ABOUT &&
		    may_go(&threads[i]))
			found[count++] = &threads[i];
	if (count == 0)
		return NULL;
	chosen = choose(count, 128);
	if (!is_random)
		for (unsigned i = 0; i < chosen; i++)
			put_to_sleep(found[i]);
	return found[chosen];
}

static enum ending how_it_ends(void)
{
	enum ending how = ENDED;

	for (unsigned i = 0; i < thread_count; i++) {
		if (threads[i].state == ABOUT)
			return BLOCKED;
		if (threads[i].state == AWAITING || threads[i].state == PARKED)
			how = STUCK;
	}
	return how;
}

/* Come back when it is our turn; never, if we have ended. */
void yield_turn(void)
{
	struct thread *from = self;
	struct thread *next;

	if (is_finishing && from->state == ABOUT)
		return;
	next = find_local();
	if (!next)
		next = choose_about();
	if (!next)
		leave(how_it_ends());
	if (next == from)
		return;
	self = next;
	explore_switch(&from->coroutine, &next->coroutine);
}

void step(void)
{
	if (++self->steps > STEPS_MAX)
		explore_fail("no end in sight", EXPLORE_HERE);
}

/* Where the victim may die: before anything that others could notice. */
void maybe_die(void)
{
	if (!kills_left || is_finishing ||
	    !(model->mortal >> explore_index() & 1) || choose(2, 32) == 0)
		return;
	kills_left--;
	say("dies");
	self->state = DEAD;
	yield_turn();
}

/*
 * Who tries a compare-and-swap counts, for it may only have failed because
 * another was let through without a choice.
 */
void remember_writer(struct location *location)
{
	if (is_finishing || (location->writers >> explore_index() & 1))
		return;
	location->writers |= (uint8_t)(1u << explore_index());
	must_restart = true;
}

void about_to(enum access access, struct location *location, uint64_t expected,
	      unsigned order)
{
	if (access == CAS || access == UPDATE)
		remember_writer(location);
	self->access = access;
	self->location = location;
	self->expected = expected;
	self->is_sc = order == EXPLORE_SEQ_CST;
	self->state = ABOUT;
	self->sleeps = false;
	if (self->is_sc || (location->writers & ~(1u << explore_index())))
		yield_turn();
	self->state = LOCAL;
}

/*
 * Something sequentially consistent has come to pass. Whoever was passed over
 * before it, and is about to do such a thing to the same word, finds another
 * place in that order than it would have had.
 */
void wake_sc(const struct location *location, enum access access)
{
	for (unsigned i = 0; i < thread_count; i++) {
		struct thread *thread = &threads[i];

		if (thread->state == ABOUT && thread->is_sc &&
		    (!location || !thread->location ||
		     thread->location == location) &&
		    !(access == LOAD && thread->access == LOAD))
			thread->sleeps = false;
	}
}

/* An access of that kind comes after all of its kind that went before. */
void before_sc(const struct location *location, unsigned order)
{
	uint16_t *known = &self->known.at[location->index];

	if (order == EXPLORE_SEQ_CST && *known < fenced.at[location->index])
		*known = fenced.at[location->index];
}

void after_sc(const struct location *location, enum access access,
	      unsigned order)
{
	if (order != EXPLORE_SEQ_CST)
		return;
	if (access != LOAD)
		fenced.at[location->index] = self->known.at[location->index];
	wake_sc(location, access);
}

/*
 * Where somebody else's membarrier may come in between. It tells a store that
 * was made before it from one that was not, so stores have to take turns.
 */
void let_barrier_in(void)
{
	if (has_barriers)
		about_to(FENCE, NULL, 0, EXPLORE_SEQ_CST);
}

/* --- runs ----------------------------------------------------------------- */

static void thread_main(void)
{
	self->state = LOCAL;
	model->threads[explore_index()]();
	self->state = DONE;
	yield_turn();
	abort();
}

static void finish_main(void)
{
	self->state = LOCAL;
	for (unsigned i = 0; i < thread_count; i++)
		view_join(&self->known, &threads[i].known, 0);
	model->finish();
	leave(ENDED);
}

static void thread_begin(struct thread *thread, void (*entry)(void))
{
	thread->state = FRESH;
	thread->sleeps = false;
	thread->steps = 0;
	thread->has_released = false;
	thread->unfenced = false;
	memset(thread->known.at, 0, width * sizeof(thread->known.at[0]));
	memset(thread->pending.at, 0, width * sizeof(thread->pending.at[0]));
	thread->known.at[thread - threads] = 1;
	explore_coroutine_start(&thread->coroutine, entry);
}

static enum ending run_once(void)
{
	run++;
	depth = 0;
	view_count = 0;
	kills_left = model->mortal != 0;
	is_finishing = is_void = false;
	memset(fenced.at, 0, width * sizeof(fenced.at[0]));
	memcpy(model->state, state_copy, model->state_bytes);
	for (unsigned i = 0; i < thread_count; i++)
		thread_begin(&threads[i], thread_main);
	self = &threads[0];
	explore_switch(&outside, &threads[0].coroutine);
	if (ending == ENDED && model->finish) {
		is_finishing = true;
		self = &threads[FINISH];
		thread_begin(self, finish_main);
		explore_switch(&outside, &self->coroutine);
	}
	if (ending == STUCK) {
		snprintf(failure, sizeof(failure), "a thread waits for ever");
		ending = FAILED;
	}
	self = NULL;
	return ending;
}

static void *must(void *memory)
{
	if (!memory) {
		fputs("explore: no memory\n", stderr);
		exit(2);
	}
	return memory;
}

static void forget_model(void)
{
	free(location_of_word);
	free(is_narrow);
	free(shared_copy);
	free(state_copy);
	location_of_word = NULL;
	is_narrow = NULL;
	shared_copy = state_copy = NULL;
	location_count = 0;
	/* Views that were used in more width than the next model needs. */
	memset(views, 0, sizeof(views));
	for (unsigned i = 0; i < CLOCKS; i++) {
		if (!threads[i].coroutine.stack)
			threads[i].coroutine.stack =
				must(malloc(EXPLORE_STACK_BYTES));
		memset(&threads[i].known, 0, sizeof(struct view));
		memset(&threads[i].pending, 0, sizeof(struct view));
		memset(&threads[i].released, 0, sizeof(struct view));
	}
	memset(&fenced, 0, sizeof(fenced));
	width = (CLOCKS + 15) & ~15u;
	has_fences = has_barriers = false;
}

static void *copy_of(const void *bytes, size_t count)
{
	void *copy = must(malloc(count + 1));

	memcpy(copy, bytes, count);
	return copy;
}

static void begin_model(const struct explore_model *next)
{
	model = next;
	is_c20 = explore_c20 || model->c20;
	self = NULL;
	forget_model();
	model->setup();
	location_of_word =
		must(calloc(model->shared_bytes / 4 + 2, sizeof(uint16_t)));
	is_narrow = must(calloc(model->shared_bytes / 4 + 2, 1));
	shared_copy = copy_of(model->shared, model->shared_bytes);
	state_copy = copy_of(model->state, model->state_bytes);
	for (thread_count = 0; model->threads[thread_count];)
		thread_count++;
}

/* Whether the memory is as setup left it, but for what we wrote plainly. */
static bool has_bypass(void)
{
	const uint8_t *shared = model->shared;

	for (size_t i = 0; i < model->shared_bytes; i++) {
		unsigned index = location_of_word[i / 4];

		if (shared[i] != shared_copy[i] &&
		    !(index && locations[index - 1].plain))
			return true;
	}
	return false;
}

static void account(enum ending how, struct explore_result *result)
{
	/* The first fence came after loads of which we kept too little. */
	if (is_void)
		return;
	if (how == BLOCKED) {
		result->blocked++;
		return;
	}
	result->runs++;
	if (how != FAILED)
		return;
	result->failed = true;
	was_random = is_random;
	result->seed = is_random ? run_of_model : 0;
	snprintf(result->what, sizeof(result->what), "%s", failure);
}

static void search(const struct explore_budget *budget,
		   struct explore_result *result)
{
	uint64_t tried = 0;

	is_random = false;
	choice_count = 0;
	for (;;) {
		if (tried++ == budget->searched)
			return;
		must_restart = false;
		account(run_once(), result);
		if (result->failed)
			return;
		if (must_restart) {
			choice_count = 0;
			continue;
		}
		if (!next_choices())
			break;
	}
	result->complete = true;
}

static void stroll(const struct explore_budget *budget,
		   struct explore_result *result)
{
	is_random = true;
	for (uint64_t i = 0; i < budget->random && !result->failed; i++) {
		run_of_model = budget->seed + i;
		rng = (run_of_model + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
		choice_count = 0;
		account(run_once(), result);
	}
	is_random = false;
}

void explore_run(const struct explore_model *next,
		 const struct explore_budget *budget,
		 struct explore_result *ret_result)
{
	struct explore_result result = { .runs = 0 };

	begin_model(next);
	/* A few random ones first: what is badly wrong shows at once. */
	stroll(budget, &result);
	if (!result.failed)
		search(budget, &result);
	if (!result.failed && has_bypass()) {
		result.failed = true;
		snprintf(result.what, sizeof(result.what),
			 "shared memory was written without a hook");
	}
	*ret_result = result;
}

void explore_show(const struct explore_model *shown)
{
	if (shown != model)
		return;
	is_shown = true;
	is_random = was_random;
	run_once();
	is_shown = is_random = false;
}
