/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Death at every instruction. A scene is a shape of a subject, how full it is,
 * and one act. A child runs the act, and stops after each instruction that wrote
 * to the memory or the history: none between them makes a difference to those
 * who live. If something changed, a copy is judged as if the child had died
 * there. Then another child repairs a copy in the same way, and dies everywhere
 * too. And where two may die: what a first victim left is the start of a second
 * one's act. Producers are also stopped, fenced, passed by others and continued.
 *
 *    crash [--kind NAME [--shape N]] [--quick] [--build LABEL]
 *    crash --kind NAME --shapes
 *
 * Prints one JSON line, or how many shapes of a kind there are to be stepped.
 * What fails is told on stderr, with the place in the executable, which
 * `addr2line -fie` names.
 */
#include "tests/crash/step.h"
#include "tests/crash/verdict.h"

#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define SEEN_BITS 20u
/*
 * The quick form: how many shapes it plays in full, and of others half; how far
 * apart two deaths are, and two stops; in how many pairs of acts of a shape, and
 * which repairs it steps, as long as those are no more than a third. What one
 * build leaves out is mostly not left out by another.
 */
#define QUICK_SHAPES 3u
#define QUICK_STRIDE 13u
#define QUICK_SLOW 3u
#define QUICK_PAIRS 24u
#define QUICK_REPAIRS 8u
#define QUICK_PAIR_REPAIRS 24u
#define FAILURES_SHOWN 12u
#define HISTORY_EVENTS 1024u
#define SLOW_ROUNDS 3u
#define JUDGE_SECONDS 20u

enum level {
	LEVEL_EMPTY,
	LEVEL_ONE,
	LEVEL_HALF,
	LEVEL_FULL,
	LEVEL_TURNED, /* half full, and the ring has been round once */
	LEVEL_COUNT,
};

static const char *const level_names[LEVEL_COUNT] = {
	"empty", "one", "half full", "full", "half full, second lap",
};

/* Who was there, by the number of their histories. */
enum witness {
	WITNESS_FILLER,
	WITNESS_READER,
	WITNESS_FIRST = WITNESS_READER + PARTIES_MAX,
	WITNESS_SECOND,
	WITNESS_COUNT,
};

struct scene {
	const struct subject *subject;
	const struct shape *shape;
	const struct act *act;
	const struct act *before; /* in which another died first, or NULL */
	enum level level;
	bool repairing;
	bool slow; /* stopped and fenced; it goes on later */
	unsigned step;
	uint64_t place;
};

struct crash {
	struct scene scene;
	uint64_t bytes;
	uint8_t *memory;                          /* shared with the victim */
	uint8_t *mended;                          /* shared with a repairer */
	uint8_t *copy;                            /* for the verdict */
	struct history *histories[WITNESS_COUNT]; /* shared with the victim */
	struct casualties dead;
	uint64_t *seen;
	uint64_t points;
	uint64_t repair_points; /* of those */
	uint64_t states;
	uint64_t verdicts;
	uint64_t failed;
	const char *build;
	bool quick;
};

static struct crash crash;

/* ---- telling ---- */

static void tell(const char *why)
{
	const struct scene *scene = &crash.scene;

	if (crash.failed++ >= FAILURES_SHOWN)
		return;
	fprintf(stderr,
		"crash: %s, %s, %s, %s%s%s%s: %s %u, "
		"place 0x%" PRIx64 ": %s\n",
		scene->subject->name, crash.build, scene->shape->name,
		level_names[scene->level],
		scene->before ? ", beside one dead in " : "",
		scene->before ? scene->before->name : "",
		scene->repairing ? ", repairing" : "",
		scene->slow ? "stopped at change" : "death after store",
		scene->step, scene->place, why);
	fprintf(stderr, "crash:    the act was '%s'\n", scene->act->name);
}

/* Repair that hangs or crashes is a failure like others, but ends the run. */
static void on_signal(int number)
{
	tell(number == SIGALRM ? "no end" : "the survivor crashed");
	_exit(1);
}

static void *shared(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		perror("crash: mmap");
		exit(2);
	}
	return memory;
}

/* ---- which states were seen ---- */

static uint64_t mixed(uint64_t state, const void *bytes, uint64_t count)
{
	const uint8_t *at = bytes;

	for (uint64_t i = 0; i + 8 <= count; i += 8) {
		uint64_t word = message_get(at + i);

		state = (state ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		state ^= state >> 32;
	}
	return state;
}

static uint64_t state_hash(const uint8_t *memory, bool with_histories)
{
	const struct scene *scene = &crash.scene;
	uint64_t state =
		mixed((uint64_t)(uintptr_t)scene->shape, memory, crash.bytes);

	state = mixed(state, &crash.dead, sizeof(crash.dead));
	if (!with_histories)
		return state | 1;
	for (unsigned i = 0; i < WITNESS_COUNT; i++)
		state = mixed(state, crash.histories[i]->events,
			      crash.histories[i]->count * 8);
	return state ^ 2;
}

/* Whether it is new. A table too full forgets nothing and learns nothing. */
static bool first_time(uint64_t hash)
{
	uint64_t mask = (UINT64_C(1) << SEEN_BITS) - 1;

	for (uint64_t i = 0; i < 64; i++) {
		uint64_t *slot = &crash.seen[(hash + i) & mask];

		if (*slot == hash)
			return false;
		if (*slot == 0) {
			*slot = hash;
			return true;
		}
	}
	return true;
}

/* ---- judging ---- */

static void judge(const uint8_t *memory)
{
	static struct verdict verdict;

	verdict.subject = crash.scene.subject;
	verdict.shape = crash.scene.shape;
	verdict.memory = crash.copy;
	verdict.dead = crash.dead;
	verdict.bereft = crash.dead.consumers != 0;
	verdict.history_count = WITNESS_COUNT;
	memcpy(verdict.histories, crash.histories, sizeof(crash.histories));
	memcpy(crash.copy, memory, crash.bytes);
	crash.verdicts++;
	alarm(JUDGE_SECONDS);
	if (verdict_reach(&verdict))
		tell(verdict.why);
	alarm(0);
}

static void note_place(const struct step_child *child)
{
	crash.scene.place = step_place(child);
}

static void child_start(struct step_child *child, void (*run)(void *argument),
			void *argument)
{
	if (step_start(child, run, argument)) {
		perror("crash: no child");
		exit(2);
	}
}

/* Run to a change, and count. Without an end there is the alarm. */
static enum step change(struct step_child *child, unsigned changes,
			uint64_t *ret_stores)
{
	enum step step;

	alarm(JUDGE_SECONDS);
	step = step_change(child, changes, ret_stores);
	alarm(0);
	crash.scene.step += (unsigned)*ret_stores;
	crash.points += *ret_stores;
	return step;
}

static struct party repairer;

static void repairer_prepare(void)
{
	static uint64_t space[sizeof(struct history) / 8 + 64];
	struct history *history = (struct history *)(void *)space;

	history_init(history, VERDICT_NUMBER, 64);
	party_init(&repairer, crash.scene.subject, crash.scene.shape,
		   crash.mended, CONSUMER,
		   subject_spare(crash.scene.subject, 0), history);
	repairer.follows = crash.dead.consumers & 1;
	memcpy(crash.mended, crash.memory, crash.bytes);
}

static int repair_mended(void)
{
	int outcome = repairer.subject->join(&repairer);

	return outcome ? outcome
		       : repairer.subject->repair(&repairer, &crash.dead);
}

/* Who goes on as before does nothing until it repairs. */
static bool join_is_passed(void)
{
	return repairer.subject->seated && !repairer.follows;
}

static void repair_once(void *argument)
{
	int outcome = repairer.subject->join(&repairer);

	(void)argument;
	if (join_is_passed())
		step_mark();
	if (outcome || repairer.subject->repair(&repairer, &crash.dead))
		_exit(1);
}

/* Most deaths leave nothing to be repaired, so no repairer can die of them. */
static bool repair_matters(void)
{
	repairer_prepare();
	alarm(JUDGE_SECONDS);
	repair_mended();
	alarm(0);
	return memcmp(crash.mended, crash.memory, crash.bytes) != 0;
}

/* The repairer dies everywhere as well; another one repairs after it. */
static void repair_in_steps(void)
{
	struct scene outer = crash.scene;
	struct casualties dead = crash.dead;
	struct step_child child;
	uint64_t stores;
	enum step step;

	repairer_prepare();
	crash.scene.repairing = true;
	crash.scene.step = 0;
	step_watch(&(struct step_watched){ .memory = crash.mended,
					   .bytes = crash.bytes });
	child_start(&child, repair_once, NULL);
	if (join_is_passed())
		step_all(&child);
	/* It has a seat like others, and whoever is next follows it. */
	if (repairer.subject->seated)
		crash.dead.consumers |= 1;
	while ((step = change(&child, 1, &stores)) == STEP_RUNNING) {
		crash.repair_points += stores;
		note_place(&child);
		if (!first_time(state_hash(crash.mended, true)))
			continue;
		crash.states += first_time(state_hash(crash.mended, false));
		judge(crash.mended);
	}
	if (step == STEP_BROKEN)
		tell("the repairer fails");
	crash.dead = dead;
	crash.scene = outer;
}

/* ---- the act ---- */

static struct party victim;
static struct party readers[PARTIES_MAX]; /* who was there at the start */

/* Who joins has not fallen behind; so at some levels one that has, goes on. */
static bool victim_goes_on(const struct act *act)
{
	const struct scene *scene = &crash.scene;

	return act->role == CONSUMER &&
	       (scene->level == LEVEL_HALF || scene->level == LEVEL_TURNED) &&
	       subject_lags(scene->subject, scene->shape, 0);
}

static void act_once(void *argument)
{
	const struct act *act = argument;
	int outcome = victim_goes_on(act) ? 0 : victim.subject->join(&victim);

	/* Death in here is tried with one victim; with two it is passed. */
	if (crash.scene.before)
		step_mark();
	if (outcome == 0)
		outcome = act->run(&victim);
	if (outcome < 0)
		history_add(victim.history, EVENT_ODD, (uint64_t)-outcome);
}

static void victim_start(struct step_child *child, const struct act *act,
			 enum witness witness)
{
	const struct scene *scene = &crash.scene;
	unsigned index = 0;
	uint32_t bit;

	/* A second victim of the same role has a place of its own, if any. */
	if (witness == WITNESS_SECOND && scene->before->role == act->role)
		index = 1;
	bit = UINT32_C(1) << index;
	if (act->role == PRODUCER)
		crash.dead.producers |= bit;
	else
		crash.dead.consumers |= bit;
	history_init(crash.histories[witness], 10 + witness, HISTORY_EVENTS);
	crash.histories[witness]->dead = true;
	party_init(&victim, scene->subject, scene->shape, crash.memory,
		   act->role, index, crash.histories[witness]);
	if (victim_goes_on(act))
		victim = readers[index];
	step_watch(&(struct step_watched){
		.memory = crash.memory,
		.bytes = crash.bytes,
		.besides = victim.history,
		.besides_bytes = history_bytes(HISTORY_EVENTS),
		.count = &victim.history->count });
	child_start(child, act_once, (void *)(uintptr_t)act);
	if (scene->before)
		step_all(child);
}

/* In the quick form some are left out. */
static bool repair_is_stepped(void)
{
	unsigned every = crash.scene.before ? QUICK_PAIR_REPAIRS
					    : QUICK_REPAIRS;

	return !crash.quick || (crash.states % every == 0 &&
				crash.repair_points <= crash.points / 3);
}

static void death_here(const struct step_child *child)
{
	note_place(child);
	if (!first_time(state_hash(crash.memory, true)))
		return;
	judge(crash.memory);
	if (!first_time(state_hash(crash.memory, false)))
		return;
	crash.states++;
	if (repair_is_stepped() && repair_matters())
		repair_in_steps();
}

/* Step an act to its end, and look at each change. */
static void act_in_steps(struct step_child *child)
{
	uint64_t stores;
	enum step step;

	crash.scene.step = 0;
	while ((step = change(child, 1, &stores)) == STEP_RUNNING)
		death_here(child);
	if (step == STEP_BROKEN)
		tell("the victim broke down by itself");
}

/* ---- the start ---- */

static int act_times(struct party *party, uint64_t times)
{
	int outcome = ACT_DONE;

	for (uint64_t i = 0; i < times && outcome == ACT_DONE; i++)
		outcome = party_act(party);
	return outcome;
}

/* Those that need not keep up, do not. */
static int drain_all(unsigned count, uint64_t times)
{
	const struct scene *scene = &crash.scene;
	int outcome = 0;

	for (unsigned i = 0; i < count && outcome >= 0; i++)
		if (!subject_lags(scene->subject, scene->shape, i))
			outcome = act_times(&readers[i], times);
	return outcome;
}

static int fill_to(struct party *filler, unsigned count, enum level level)
{
	uint64_t room = filler->subject->room(filler->shape);
	uint64_t sent;
	int outcome;

	if (level == LEVEL_TURNED) {
		/* Up to full, down to empty, and once more to the half. */
		outcome = act_times(filler, UINT64_MAX);
		if (outcome >= 0)
			outcome = drain_all(count, UINT64_MAX);
		if (outcome < 0)
			return outcome;
		level = LEVEL_HALF;
	}
	if (level == LEVEL_EMPTY)
		return 0;
	if (level == LEVEL_FULL)
		return act_times(filler, UINT64_MAX);
	outcome = act_times(filler, level == LEVEL_ONE ? 1 : UINT64_MAX);
	if (outcome < 0 || level == LEVEL_ONE)
		return outcome;
	sent = filler->next - 1;
	return drain_all(count, sent < room ? sent / 4 + 1 : room / 2);
}

static void start(void)
{
	static struct party filler;
	const struct scene *scene = &crash.scene;
	const struct subject *subject = scene->subject;
	const struct shape *shape = scene->shape;
	unsigned count = subject_consumers(subject, shape);
	int err;

	for (unsigned i = 0; i < WITNESS_COUNT; i++) {
		history_init(crash.histories[i], 10 + i, HISTORY_EVENTS);
		/* They are gone by now; a late head is allowed to them. */
		crash.histories[i]->dead = !scene->subject->seated;
	}
	crash.dead = (struct casualties){ 0, 0 };
	/* Readers of a broadcast hold up others until they are repaired. */
	if (subject->broadcast)
		crash.dead.consumers = (UINT32_C(1) << count) - 1;
	memset(crash.memory, 0, crash.bytes);
	err = subject->format(crash.memory, shape);
	party_init(&filler, subject, shape, crash.memory, PRODUCER, 0,
		   crash.histories[WITNESS_FILLER]);
	if (!err)
		err = subject->join(&filler);
	for (unsigned i = 0; i < count && !err; i++) {
		party_init(&readers[i], subject, shape, crash.memory, CONSUMER,
			   i, crash.histories[WITNESS_READER + i]);
		err = subject->join(&readers[i]);
	}
	if (!err)
		err = fill_to(&filler, count, scene->level);
	if (err < 0) {
		fprintf(stderr, "crash: %s, %s: no start: %d\n", subject->name,
			shape->name, err);
		exit(2);
	}
}

/* Levels that are the same to a shape are played once. */
static void scene_play(void)
{
	struct step_child child;
	uint64_t hash;

	start();
	hash = state_hash(crash.memory, true);
	if (!first_time(mixed(hash, &crash.scene.act, 8)))
		return;
	victim_start(&child, crash.scene.act, WITNESS_FIRST);
	act_in_steps(&child);
}

/* ---- two deaths ---- */

/* Whether a victim has come to a change, of that number; there it stops. */
static bool runs_to(struct step_child *child, unsigned number)
{
	uint64_t stores;

	return change(child, number, &stores) == STEP_RUNNING;
}

static void pair_play(unsigned stride)
{
	for (unsigned change = 2;; change += stride) {
		struct step_child child;
		bool more;

		start();
		victim_start(&child, crash.scene.before, WITNESS_FIRST);
		more = runs_to(&child, change);
		step_kill(&child);
		if (!more)
			return;
		victim_start(&child, crash.scene.act, WITNESS_SECOND);
		act_in_steps(&child);
	}
}

/* ---- one that is only slow ---- */

/* It is fenced, others use what it had, and then it goes on. */
static int slow_one_is_passed(void)
{
	static struct party other;
	const struct scene *scene = &crash.scene;
	const struct casualties slow = { 1, 0 };
	int outcome = act_times(&readers[0], UINT64_MAX);

	party_init(&other, scene->subject, scene->shape, crash.memory, PRODUCER,
		   1, crash.histories[WITNESS_SECOND]);
	if (outcome >= 0)
		outcome = scene->subject->fence(&readers[0], &slow);
	if (outcome >= 0)
		outcome = scene->subject->join(&other);
	/* A lap, and in the end the ring is full of what it might spoil. */
	for (unsigned i = 0; i < SLOW_ROUNDS && outcome >= 0; i++) {
		outcome = act_times(&readers[0], UINT64_MAX);
		if (outcome >= 0)
			outcome = act_times(&other, UINT64_MAX);
	}
	return outcome;
}

static void slow_play(unsigned stride)
{
	for (unsigned change = 1;; change += stride) {
		struct step_child child;

		start();
		victim_start(&child, crash.scene.act, WITNESS_FIRST);
		if (!runs_to(&child, change)) {
			step_kill(&child);
			return;
		}
		crash.scene.step = change;
		note_place(&child);
		alarm(JUDGE_SECONDS);
		if (slow_one_is_passed() < 0)
			tell("others cannot go on beside one that is slow");
		alarm(0);
		if (step_all(&child) != STEP_ENDED) {
			tell("one that was slow does not end");
			step_kill(&child);
		}
		victim.history->dead = false;
		judge(crash.memory);
	}
}

/* Each producer's act, stopped at each change instead of dead. */
static void slow_ones_play(void)
{
	const struct subject *subject = crash.scene.subject;

	crash.scene.before = NULL;
	crash.scene.slow = true;
	for (unsigned i = 0; i < subject->act_count; i++) {
		crash.scene.act = &subject->acts[i];
		for (unsigned level = 0; level < LEVEL_COUNT; level++) {
			crash.scene.level = (enum level)level;
			if (crash.scene.act->role == PRODUCER &&
			    !crash.scene.act->closes)
				slow_play(crash.quick ? QUICK_SLOW : 1);
		}
	}
	crash.scene.slow = false;
}

/* Whether two may be at it at the same time. */
static bool may_pair(const struct act *before, const struct act *act)
{
	const struct shape *shape = crash.scene.shape;

	if (before->role != act->role)
		return crash.scene.subject->repairer != act->role ||
		       before->role == PRODUCER;
	return (act->role == PRODUCER ? shape->producers : shape->consumers) >
	       1;
}

/* Calls @visit for each pair. Return: how many there are. */
static unsigned pairs_visit(void (*visit)(unsigned number))
{
	const struct subject *subject = crash.scene.subject;
	unsigned count = 0;

	for (unsigned i = 0; i < subject->act_count; i++)
		for (unsigned j = 0; j < subject->act_count; j++) {
			crash.scene.before = &subject->acts[i];
			crash.scene.act = &subject->acts[j];
			if (may_pair(crash.scene.before, crash.scene.act))
				visit(count++);
		}
	return count;
}

static void pair_pass(unsigned number)
{
	(void)number;
}

static unsigned build_number(void)
{
	unsigned number = 0;

	for (const char *at = crash.build; *at; at++)
		number += (unsigned)*at;
	return number;
}

static unsigned pair_stride, pair_first;

static void pair_take(unsigned number)
{
	if ((number + pair_first) % pair_stride == 0)
		pair_play(crash.quick ? QUICK_STRIDE : 1);
}

static void pairs_play(unsigned which)
{
	unsigned count = pairs_visit(pair_pass);
	unsigned most = which < QUICK_SHAPES ? QUICK_PAIRS : QUICK_PAIRS / 2;

	pair_stride = crash.quick ? (count + most - 1) / most : 1;
	pair_first = which + build_number();
	crash.scene.level = which % 2 ? LEVEL_TURNED : LEVEL_HALF;
	pairs_visit(pair_take);
}

/* ---- all of it ---- */

static void shape_play(const struct subject *subject, unsigned which)
{
	struct scene *scene = &crash.scene;

	*scene = (struct scene){ .subject = subject,
				 .shape = &subject->shapes[which] };
	for (unsigned i = 0; i < subject->act_count; i++) {
		scene->act = &subject->acts[i];
		for (unsigned level = 0; level < LEVEL_COUNT; level++) {
			scene->level = (enum level)level;
			if (crash.quick && which >= QUICK_SHAPES &&
			    (i + level + build_number()) % 2)
				continue;
			scene_play();
		}
	}
	pairs_play(which);
	if (subject->fence && scene->shape->producers > 1)
		slow_ones_play();
}

/* One shape, or all with UINT_MAX. */
static void subject_play(const struct subject *subject, unsigned which)
{
	for (unsigned i = 0; i < subject->stepped; i++) {
		uint64_t bytes = subject->bytes(&subject->shapes[i]);

		if (which != UINT_MAX && which != i)
			continue;
		crash.bytes = bytes;
		crash.memory = shared(bytes);
		crash.mended = shared(bytes);
		crash.copy = shared(bytes);
		shape_play(subject, i);
		munmap(crash.memory, bytes);
		munmap(crash.mended, bytes);
		munmap(crash.copy, bytes);
	}
}

static void prepare(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	for (unsigned i = 0; i < WITNESS_COUNT; i++)
		crash.histories[i] = shared(history_bytes(HISTORY_EVENTS));
	crash.seen = calloc(UINT64_C(1) << SEEN_BITS, sizeof(uint64_t));
	if (!crash.seen)
		abort();
	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGABRT, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

int main(int argc, char **argv)
{
	const char *kind = NULL;
	unsigned cpu = 0, shape = UINT_MAX;

	crash.build = "";
	for (int i = 1; i < argc; i++) {
		bool more = i + 1 < argc;

		if (strcmp(argv[i], "--quick") == 0)
			crash.quick = true;
		else if (more && strcmp(argv[i], "--kind") == 0)
			kind = argv[++i];
		else if (kind && subject_find(kind) &&
			 strcmp(argv[i], "--shapes") == 0)
			return printf("%u\n", subject_find(kind)->stepped) < 0;
		else if (more && strcmp(argv[i], "--shape") == 0)
			shape = (unsigned)strtoul(argv[++i], NULL, 10);
		else if (more && strcmp(argv[i], "--build") == 0)
			crash.build = argv[++i];
		else if (more && strcmp(argv[i], "--cpu") == 0)
			cpu = (unsigned)strtoul(argv[++i], NULL, 10);
		else
			return 2;
	}
	/* With whoever started us, and without a trace. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	step_pin(cpu);
	prepare();
	for (unsigned i = 0; i < subject_count; i++)
		if (!kind || strcmp(kind, subjects[i]->name) == 0)
			subject_play(subjects[i], shape);
	printf("{\"kind\":\"%s\",\"build\":\"%s\",\"tried\":%" PRIu64
	       ",\"states\":%" PRIu64 ",\"verdicts\":%" PRIu64
	       ",\"failed\":%" PRIu64 "}\n",
	       kind ? kind : "all", crash.build, crash.points, crash.states,
	       crash.verdicts, crash.failed);
	return crash.failed != 0;
}
