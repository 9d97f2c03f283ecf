/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/explore/private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * Every word keeps all of its stores, in modification order, which need not be
 * the order in which they were made. A store has a stamp, its place, and maybe
 * a view: what whoever acquires it then knows. To know is to have a view of
 * one's own, whose stamps say behind which stores one's loads may not lie, and
 * whose clocks say what of other threads has happened before.
 */

/* --- views ---------------------------------------------------------------- */

void view_join(struct view *into, const struct view *from, unsigned at)
{
	for (unsigned i = at; i < width; i++)
		into->at[i] = into->at[i] > from->at[i] ? into->at[i]
							: from->at[i];
}

static void view_copy(struct view *into, const struct view *from)
{
	memcpy(into->at, from->at, width * sizeof(into->at[0]));
}

static struct view *view_of(const struct view *from)
{
	struct view *view;

	if (view_count == VIEWS_MAX)
		explore_fail("too many views", EXPLORE_HERE);
	view = &views[view_count++];
	view_copy(view, from);
	return view;
}

unsigned explore_index(void)
{
	return (unsigned)(self - threads);
}

unsigned explore_self(void)
{
	return explore_index();
}

/* What it does from here on is not part of what it has released. */
static void tick(void)
{
	self->known.at[explore_index()]++;
}

/* --- locations ------------------------------------------------------------ */

static uint64_t memory_load(const void *word, unsigned bytes)
{
	uint64_t wide;
	uint32_t narrow;

	if (bytes == 8) {
		memcpy(&wide, word, 8);
		return wide;
	}
	memcpy(&narrow, word, 4);
	return narrow;
}

static void memory_store(void *word, unsigned bytes, uint64_t value)
{
	uint32_t narrow = (uint32_t)value;

	if (bytes == 8)
		memcpy(word, &value, 8);
	else
		memcpy(word, &narrow, 4);
}

static struct location *location_make(uint8_t *address, unsigned bytes,
				      bool plain)
{
	size_t word = (size_t)(address - (uint8_t *)model->shared) / 4;
	struct location *location;

	if (location_count == LOCATIONS_MAX)
		explore_fail("too many words", EXPLORE_HERE);
	location = &locations[location_count];
	*location = (struct location){
		.address = address,
		.bytes = (uint8_t)bytes,
		.plain = plain,
		.index = CLOCKS + location_count,
		.initial = memory_load(shared_copy + word * 4, bytes),
	};
	location_count++;
	/* It never shrinks: what views hold beyond it must be zero. */
	if (width < CLOCKS + location_count)
		width = (CLOCKS + location_count + 15) & ~15u;
	for (unsigned i = 0; i < bytes / 4; i++)
		location_of_word[word + i] = (uint16_t)location_count;
	return location;
}

static void location_begin(struct location *location)
{
	location->run = run;
	location->count = 1;
	location->order[0] = 0;
	memset(location->headed, 0, sizeof(location->headed));
	location->stores[0] = (struct store){
		.value = location->initial,
		.thread = FINISH,
	};
	if (!location->plain)
		return;
	location->last_writer = FINISH;
	location->last_write = 0;
	memset(location->last_reads, 0, sizeof(location->last_reads));
	memory_store(location->address, location->bytes, location->initial);
}

/*
 * Somebody stores to two words of four bytes as if they were one of eight: from
 * now on these are two stores, which is less than the processor promises. What
 * was found so far started from one wide word, so all begins anew.
 */
static void narrow(uint8_t *address)
{
	size_t word = (size_t)(address - (uint8_t *)model->shared) / 8 * 2;

	is_narrow[word] = is_narrow[word + 1] = 1;
	memset(location_of_word, 0,
	       (model->shared_bytes / 4 + 2) * sizeof(*location_of_word));
	location_count = 0;
	must_restart = is_void = true;
	leave(BLOCKED);
}

/* A word of the process, which no other thread of a model is to notice. */
static bool is_private(const void *word)
{
	uintptr_t offset = (uintptr_t)word - (uintptr_t)model->shared;

	return !self ||
	       (model->has_private_words && offset >= model->shared_bytes);
}

static struct location *locate(const void *word, unsigned bytes, bool plain)
{
	uint8_t *address = (uint8_t *)(uintptr_t)word;
	size_t offset = (size_t)(address - (uint8_t *)model->shared);
	struct location *location;
	unsigned index;

	if (offset >= model->shared_bytes || offset % bytes != 0)
		explore_fail("an access outside of the memory", EXPLORE_HERE);
	index = location_of_word[offset / 4];
	location = index ? &locations[index - 1]
			 : location_make(address, bytes, plain);
	if (location->address != address || location->bytes != bytes)
		narrow(address);
	if (location->plain != plain)
		explore_fail("a word accessed plainly and not", EXPLORE_HERE);
	if (location->run != run)
		location_begin(location);
	return location;
}

static uint64_t offset_of(const struct location *location)
{
	return (uint64_t)(location->address - (uint8_t *)model->shared);
}

/* --- accesses ------------------------------------------------------------- */

static void learn(const struct location *location, const struct store *store,
		  unsigned order)
{
	struct view *known = &self->known;

	if (store->stamp > known->at[location->index])
		known->at[location->index] = store->stamp;
	if (!store->view)
		return;
	if (order & EXPLORE_ACQUIRE)
		view_join(known, store->view, 0);
	else if (has_fences)
		view_join(&self->pending, store->view, 0);
}

/* Which store is taken. The newest is the first choice. */
static unsigned take(struct location *location)
{
	uint8_t found[STORES_MAX];
	unsigned count = 0;

	for (unsigned i = location->count; i-- > 0;) {
		unsigned index = location->order[i];

		if (location->stores[index].stamp <
		    self->known.at[location->index])
			break;
		if (may_take(self, location, index))
			found[count++] = (uint8_t)index;
	}
	if (count == 0)
		explore_fail("nothing to load", EXPLORE_HERE);
	return found[choose(count, 96)];
}

/* A new store, at a place in modification order. */
static struct store *insert(struct location *location, unsigned place,
			    uint64_t value)
{
	unsigned index = location->count;
	uint16_t before = location->stores[location->order[place - 1]].stamp;
	uint16_t stamp = (uint16_t)(before + STAMP_GAP);

	if (location->count == STORES_MAX)
		explore_fail("too many stores to a word", EXPLORE_HERE);
	if (place < location->count) {
		uint16_t after = location->stores[location->order[place]].stamp;

		stamp = (uint16_t)((before + after) / 2);
		if (stamp == before)
			explore_fail("no room between stores", EXPLORE_HERE);
	}
	memmove(&location->order[place + 1], &location->order[place],
		location->count - place);
	location->order[place] = (uint8_t)index;
	location->stores[index] = (struct store){
		.value = value,
		.stamp = stamp,
		.thread = (uint8_t)explore_index(),
	};
	location->count++;
	self->known.at[location->index] = stamp;
	remember_writer(location);
	return &location->stores[index];
}

/*
 * What it releases: all that we know, or knew at our last release fence. By the
 * rule of C11 also what an earlier store of ours to this word released.
 */
static void release(struct location *location, struct store *store,
		    struct view *heritage, unsigned order)
{
	struct view **headed = &location->headed[explore_index()];
	const struct view *ours = order & EXPLORE_RELEASE ? &self->known
				  : self->has_released    ? &self->released
							  : NULL;

	store->view = heritage;
	if (ours) {
		store->view = view_of(ours);
		if (heritage)
			view_join(store->view, heritage, 0);
		tick();
	}
	if (order & EXPLORE_RELEASE) {
		*headed = store->view;
	} else if (*headed && !is_c20) {
		store->view = view_of(store->view ? store->view : *headed);
		view_join(store->view, *headed, 0);
	}
}

static unsigned place_of(const struct location *location, unsigned index)
{
	unsigned place = 0;

	while (location->order[place] != index)
		place++;
	return place;
}

uint64_t explore_load(const void *word, unsigned bytes, unsigned order,
		      const char *where)
{
	struct location *location;
	struct store *store;

	if (is_private(word))
		return memory_load(word, bytes);
	step();
	location = locate(word, bytes, false);
	about_to(LOAD, location, 0, order);
	before_sc(location, order);
	store = &location->stores[take(location)];
	learn(location, store, order);
	after_sc(location, LOAD, order);
	say("load      +%-5" PRIu64 " %#18" PRIx64 " of %u, order %u, %s",
	    offset_of(location), store->value, store->thread, order, where);
	return store->value;
}

/* After anything that we know of, and not between a store and its update. */
static unsigned choose_place(const struct location *location)
{
	uint8_t places[STORES_MAX];
	unsigned count = 0;

	for (unsigned i = location->count; i-- > 0;) {
		const struct store *store =
			&location->stores[location->order[i]];

		if (store->stamp < self->known.at[location->index])
			break;
		if (!store->taken)
			places[count++] = (uint8_t)(i + 1);
	}
	return places[choose(count, 32)];
}

static bool is_wide_of_narrow(const void *word)
{
	size_t offset = (size_t)((const uint8_t *)word -
				 (const uint8_t *)model->shared);

	return offset < model->shared_bytes && is_narrow[offset / 4];
}

void explore_store(void *word, unsigned bytes, uint64_t value, unsigned order,
		   const char *where)
{
	struct location *location;

	if (is_private(word)) {
		memory_store(word, bytes, value);
		return;
	}
	if (bytes == 8 && is_wide_of_narrow(word)) {
		explore_store(word, 4, (uint32_t)value, order, where);
		explore_store((uint32_t *)word + 1, 4, value >> 32, order,
			      where);
		return;
	}
	step();
	let_barrier_in();
	maybe_die();
	location = locate(word, bytes, false);
	if (order == EXPLORE_SEQ_CST)
		about_to(WRITE, location, 0, order);
	before_sc(location, order);
	if (bytes == 4)
		value = (uint32_t)value;
	release(location, insert(location, choose_place(location), value), NULL,
		order);
	after_sc(location, WRITE, order);
	say("store     +%-5" PRIu64 " %#18" PRIx64 ", order %u, %s",
	    offset_of(location), value, order, where);
}

/* Put what comes at once after the store that was taken. */
static void update(struct location *location, unsigned taken, uint64_t value,
		   unsigned order)
{
	struct store *source = &location->stores[taken];
	struct store *store;

	source->taken = true;
	learn(location, source, order);
	if (location->bytes == 4)
		value = (uint32_t)value;
	store = insert(location, place_of(location, taken) + 1, value);
	release(location, store, source->view, order);
}

bool explore_cas(void *word, unsigned bytes, void *expected, uint64_t value,
		 unsigned order, const char *where)
{
	uint64_t wanted = memory_load(expected, bytes);
	struct location *location;
	unsigned taken;
	uint64_t found;

	if (!self) {
		found = memory_load(word, bytes);
		if (found == wanted)
			memory_store(word, bytes, value);
		else
			memory_store(expected, bytes, found);
		return found == wanted;
	}
	step();
	maybe_die();
	location = locate(word, bytes, false);
	about_to(CAS, location, wanted, order);
	before_sc(location, order);
	taken = take(location);
	found = location->stores[taken].value;
	if (found == wanted)
		update(location, taken, value, order);
	else
		learn(location, &location->stores[taken], EXPLORE_RELAXED);
	after_sc(location, found == wanted ? CAS : LOAD, order);
	say("cas       +%-5" PRIu64 " %#18" PRIx64 " to %#" PRIx64
	    ": %s, order %u, %s",
	    offset_of(location), found, value,
	    found == wanted ? "done" : "refused", order, where);
	if (found != wanted)
		memory_store(expected, bytes, found);
	return found == wanted;
}

enum arithmetic { SWAP, ADD, OR, AND };

static uint64_t compute(enum arithmetic kind, uint64_t old, uint64_t value)
{
	switch (kind) {
	case ADD:
		return old + value;
	case OR:
		return old | value;
	case AND:
		return old & value;
	case SWAP:
	default:
		return value;
	}
}

static uint64_t modify(void *word, unsigned bytes, enum arithmetic kind,
		       uint64_t value, unsigned order, const char *where)
{
	struct location *location;
	unsigned taken;
	uint64_t found;

	if (!self) {
		found = memory_load(word, bytes);
		memory_store(word, bytes, compute(kind, found, value));
		return found;
	}
	step();
	maybe_die();
	location = locate(word, bytes, false);
	about_to(UPDATE, location, 0, order);
	before_sc(location, order);
	taken = take(location);
	found = location->stores[taken].value;
	value = compute(kind, found, value);
	update(location, taken, value, order);
	after_sc(location, UPDATE, order);
	say("update    +%-5" PRIu64 " %#18" PRIx64 " to %#" PRIx64
	    ", order %u, %s",
	    offset_of(location), found, value, order, where);
	return found;
}

uint64_t explore_swap(void *word, unsigned bytes, uint64_t value,
		      unsigned order, const char *where)
{
	return modify(word, bytes, SWAP, value, order, where);
}

uint64_t explore_add(void *word, unsigned bytes, uint64_t value, unsigned order,
		     const char *where)
{
	return modify(word, bytes, ADD, value, order, where);
}

uint64_t explore_or(void *word, unsigned bytes, uint64_t value, unsigned order,
		    const char *where)
{
	return modify(word, bytes, OR, value, order, where);
}

uint64_t explore_and(void *word, unsigned bytes, uint64_t value, unsigned order,
		     const char *where)
{
	return modify(word, bytes, AND, value, order, where);
}

/* --- fences --------------------------------------------------------------- */

static void fence_in(struct thread *thread, unsigned order)
{
	if (order & EXPLORE_ACQUIRE)
		view_join(&thread->known, &thread->pending, 0);
	if (order == EXPLORE_SEQ_CST) {
		/* Places in modification order only: no happens-before. */
		view_join(&thread->known, &fenced, CLOCKS);
		view_join(&fenced, &thread->known, CLOCKS);
		wake_sc(NULL, FENCE);
	}
	if (order & EXPLORE_RELEASE) {
		view_copy(&thread->released, &thread->known);
		thread->has_released = true;
		thread->known.at[thread - threads]++;
	}
}

void explore_fence(unsigned order, const char *where)
{
	if (!self)
		return;
	step();
	if (!has_fences) {
		has_fences = true;
		must_restart = is_void = true;
	}
	if (order == EXPLORE_SEQ_CST)
		about_to(FENCE, NULL, 0, EXPLORE_SEQ_CST);
	fence_in(self, order);
	say("fence     order %u, %s", order, where);
}

/*
 * It costs nothing at run time, and keeps the compiler from moving what a
 * membarrier of somebody else relies on. Where it is weakened, the barrier is
 * taken to have come at a moment when it was of no use.
 */
void explore_light_fence(unsigned order, const char *where)
{
	if (!self)
		return;
	self->unfenced = order != EXPLORE_SEQ_CST;
	say("light     order %u, %s", order, where);
}

void explore_membarrier(void)
{
	if (!self)
		return;
	if (!has_barriers) {
		has_barriers = true;
		must_restart = is_void = true;
	}
	explore_fence(EXPLORE_SEQ_CST, EXPLORE_HERE);
	for (unsigned i = 0; i < thread_count; i++) {
		if (&threads[i] == self || threads[i].unfenced)
			continue;
		/* The kernel reaches each at a moment of its own. */
		about_to(FENCE, NULL, 0, EXPLORE_SEQ_CST);
		fence_in(&threads[i], EXPLORE_SEQ_CST);
		/* It knows more than when it was put to sleep. */
		threads[i].sleeps = false;
	}
	explore_fence(EXPLORE_SEQ_CST, EXPLORE_HERE);
}

/* --- plain accesses ------------------------------------------------------- */

static void race(const struct location *location, unsigned other)
{
	char text[96];

	snprintf(text, sizeof(text),
		 "data race of threads %u and %u at +%" PRIu64, explore_index(),
		 other, offset_of(location));
	explore_fail(text, EXPLORE_HERE);
}

static void check_writer(const struct location *location)
{
	unsigned writer = location->last_writer;

	if (writer != explore_index() &&
	    location->last_write > self->known.at[writer])
		race(location, writer);
}

uint64_t explore_read(const void *word)
{
	struct location *location;
	uint64_t value;

	if (!self)
		return memory_load(word, 8);
	step();
	location = locate(word, 8, true);
	check_writer(location);
	location->last_reads[explore_index()] = self->known.at[explore_index()];
	value = memory_load(location->address, 8);
	say("read      +%-5" PRIu64 " %#18" PRIx64, offset_of(location), value);
	return value;
}

void explore_write(void *word, uint64_t value)
{
	struct location *location;

	if (!self) {
		memory_store(word, 8, value);
		return;
	}
	step();
	maybe_die();
	location = locate(word, 8, true);
	check_writer(location);
	for (unsigned i = 0; i < CLOCKS; i++)
		if (i != explore_index() &&
		    location->last_reads[i] > self->known.at[i])
			race(location, i);
	location->last_writer = (uint8_t)explore_index();
	location->last_write = self->known.at[explore_index()];
	memory_store(location->address, 8, value);
	say("write     +%-5" PRIu64 " %#18" PRIx64, offset_of(location), value);
}

static bool is_shared(const void *word, size_t bytes)
{
	size_t offset = (size_t)((const uint8_t *)word -
				 (const uint8_t *)model->shared);

	return offset < model->shared_bytes &&
	       bytes <= model->shared_bytes - offset;
}

static void copy_word(uint8_t *to, const uint8_t *from)
{
	size_t offset = (size_t)(from - (const uint8_t *)model->shared);
	unsigned index = location_of_word[offset / 4];

	if (index && locations[index - 1].plain)
		explore_write(to, explore_read(from));
	else
		explore_store(to, 8,
			      explore_load(from, 8, EXPLORE_RELAXED,
					   EXPLORE_HERE),
			      EXPLORE_RELAXED, EXPLORE_HERE);
}

/*
 * From one place of the shared memory to another: word by word, but only the
 * first, and what anybody ever accessed, for no model looks at the others.
 */
void *explore_copy(void *to, const void *from, size_t bytes)
{
	const uint8_t *source = from;
	uint8_t *target = to;

	if (!self || !is_shared(to, bytes) || !is_shared(from, bytes))
		return memcpy(to, from, bytes);
	for (size_t i = 0; i + 8 <= bytes; i += 8) {
		size_t offset =
			(size_t)(source + i - (const uint8_t *)model->shared);

		if (i == 0 || location_of_word[offset / 4])
			copy_word(target + i, source + i);
	}
	return to;
}

bool explore_proved_dead(unsigned thread)
{
	if (threads[thread].state != DONE && threads[thread].state != DEAD) {
		self->awaited = thread;
		self->state = AWAITING;
		yield_turn();
		self->state = LOCAL;
	}
	view_join(&self->known, &threads[thread].known, 0);
	say("knows     that thread %u %s", thread,
	    threads[thread].state == DEAD ? "is dead" : "has ended");
	return threads[thread].state == DEAD;
}

void explore_park(void)
{
	say("parks");
	self->state = PARKED;
	yield_turn();
	say("is woken");
}

void explore_unpark(unsigned thread)
{
	if (threads[thread].state != PARKED)
		return;
	view_join(&threads[thread].known, &self->known, 0);
	tick();
	threads[thread].state = LOCAL;
}

void explore_assume(bool holds)
{
	if (!holds)
		leave(BLOCKED);
}
