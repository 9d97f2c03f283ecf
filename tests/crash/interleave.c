/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that use one ring, mixed instruction by instruction. A seed chooses
 * the ring, its shape, who there is, what each does, who runs next and for how
 * many instructions, and who dies or stops where. The consumer repairs what the
 * dead left while the others go on; successors take the places. One that was
 * stopped is fenced if the ring can do so, and goes on later all the same. When
 * all have ended, the memory and the histories are judged.
 *
 *    interleave [--kind NAME] [--from SEED] [--seeds N] [--stride N] [--cpu N]
 *
 * Prints one JSON line. The same seed gives the same run, and says so.
 */
#include "tests/crash/step.h"
#include "tests/crash/verdict.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PEOPLE_MAX 24u
#define ACTS_MAX 12u
#define HISTORY_EVENTS 512u
#define STEPS_MAX 400000u
#define SEED_SECONDS 60u
#define FAULTS_MAX 3u

/* Shared by the scheduler and all that it runs; no part of the ring. */
struct control {
	struct casualties dead;
	struct casualties slow;
	uint32_t generation; /* of the two above */
	uint32_t producing;  /* producers that have not ended */
	uint32_t repaired[PARTIES_MAX];
};

enum life {
	LIFE_RUNS,
	LIFE_STOPPED,
	LIFE_ENDED,
	LIFE_DEAD,
};

struct person {
	struct party party;
	struct step_child child;
	enum life life;
	uint64_t choices; /* its own random bits, drawn before it starts */
	const struct act *acts[ACTS_MAX];
	unsigned act_count;
	unsigned messages;
	uint64_t wakes_at; /* when it was stopped */
};

struct fault {
	uint64_t at_step;
	bool kills;
	bool done;
};

struct world {
	const struct subject *subject;
	const struct shape *shape;
	uint64_t seed;
	uint64_t random;
	uint64_t step;
	void *memory;
	uint64_t bytes;
	volatile struct control *control;
	uint8_t *histories; /* PEOPLE_MAX, one after the other */
	struct person people[PEOPLE_MAX];
	unsigned people_count;
	struct fault faults[FAULTS_MAX];
	unsigned fault_count;
	char why[VERDICT_WHY_BYTES];
};

static struct world world;

static uint64_t drawn(uint64_t below)
{
	world.random ^= world.random << 13;
	world.random ^= world.random >> 7;
	world.random ^= world.random << 17;
	return (world.random >> 11) % below;
}

static void *shared(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		perror("interleave: mmap");
		exit(2);
	}
	return memory;
}

/* ---- what the people do; this is what is stepped ---- */

static const struct act *act_chosen(const struct person *person,
				    unsigned choice)
{
	uint64_t bits = person->choices >> choice % 16 * 4 & 15;

	return person->acts[bits % person->act_count];
}

static void odd(struct person *person, int err)
{
	history_add(person->party.history, EVENT_ODD, (uint64_t)-err);
	_exit(0);
}

static void produce(struct person *person)
{
	for (unsigned i = 0; i < person->messages;) {
		int outcome = act_chosen(person, i)->run(&person->party);

		if (outcome == ACT_CLOSED)
			return;
		if (outcome < 0)
			odd(person, outcome);
		i += outcome == ACT_DONE || outcome == ACT_STALE;
	}
	if (person->choices >> 62 == 0)
		party_end(&person->party);
}

static void repair_if_asked(struct person *person)
{
	volatile struct control *control = world.control;
	const struct subject *subject = person->party.subject;
	struct casualties dead, slow;
	uint32_t generation = control->generation;
	int outcome = 0;

	if (control->repaired[person->party.index] == generation)
		return;
	dead.producers = control->dead.producers;
	dead.consumers = control->dead.consumers;
	slow.producers = control->slow.producers;
	slow.consumers = control->slow.consumers;
	if (subject->fence && (slow.producers || slow.consumers))
		outcome = subject->fence(&person->party, &slow);
	if (outcome == 0)
		outcome = subject->repair(&person->party, &dead);
	if (outcome < 0)
		odd(person, outcome);
	if (outcome == ACT_DONE)
		control->repaired[person->party.index] = generation;
}

static void consume(struct person *person)
{
	volatile struct control *control = world.control;
	bool closes = person->choices >> 61 == 0;

	for (unsigned i = 0;; i++) {
		bool last = control->producing == 0;
		int outcome;

		if (closes && i == (person->choices >> 56 & 7))
			party_end(&person->party);

		if (person->party.subject->repairer == CONSUMER)
			repair_if_asked(person);
		last = last && control->repaired[person->party.index] ==
				       control->generation;
		/* Plainly in the end, for some acts of consumers send. */
		outcome = last ? party_act(&person->party)
			       : act_chosen(person, i)->run(&person->party);
		if (outcome == ACT_CLOSED)
			return;
		if (outcome < 0)
			odd(person, outcome);
		if (outcome == ACT_NOTHING && last)
			return;
	}
}

static void live(void *argument)
{
	struct person *person = argument;
	int err = person->party.subject->join(&person->party);

	if (err == ACT_CLOSED)
		return;
	if (err)
		odd(person, err);
	if (person->party.role == PRODUCER)
		produce(person);
	else
		consume(person);
}

/* ---- the scheduler ---- */

static int complain(const char *why)
{
	if (!world.why[0])
		snprintf(world.why, sizeof(world.why), "%s", why);
	return 1;
}

static int person_start(enum role role, unsigned index, bool follows)
{
	unsigned number = world.people_count;
	struct person *person = &world.people[number];
	struct history *history =
		(struct history *)(void *)(world.histories +
					   number * history_bytes(
							    HISTORY_EVENTS));

	if (number == PEOPLE_MAX)
		return complain("too many people");
	history_init(history, number + 1, HISTORY_EVENTS);
	party_init(&person->party, world.subject, world.shape, world.memory,
		   role, index, history);
	person->party.follows = follows;
	person->act_count = 0;
	for (unsigned i = 0; i < world.subject->act_count; i++)
		if (world.subject->acts[i].role == role &&
		    !world.subject->acts[i].closes &&
		    person->act_count < ACTS_MAX)
			person->acts[person->act_count++] =
				&world.subject->acts[i];
	person->life = LIFE_RUNS;
	person->choices = drawn(UINT64_MAX) << 11 ^ drawn(UINT64_MAX);
	person->messages = 2 + (unsigned)drawn(5);
	if (step_start(&person->child, live, person))
		return complain("cannot start a child");
	world.people_count++;
	return 0;
}

static uint32_t bit_of(const struct person *person)
{
	return UINT32_C(1) << person->party.index;
}

static void count_producers(void)
{
	uint32_t count = 0;

	for (unsigned i = 0; i < world.people_count; i++)
		count += world.people[i].party.role == PRODUCER &&
			 (world.people[i].life == LIFE_RUNS ||
			  world.people[i].life == LIFE_STOPPED);
	world.control->producing = count;
}

static void die(struct person *person)
{
	step_kill(&person->child);
	person->life = LIFE_DEAD;
	person->party.history->dead = true;
	if (person->party.role == PRODUCER) {
		world.control->dead.producers |= bit_of(person);
		world.control->slow.producers &= ~bit_of(person);
	} else {
		world.control->dead.consumers |= bit_of(person);
		world.control->slow.consumers &= ~bit_of(person);
	}
	world.control->generation++;
}

static void stop(struct person *person)
{
	person->life = LIFE_STOPPED;
	person->wakes_at = world.step + 100 + drawn(3000);
	if (!world.subject->fence)
		return;
	if (person->party.role == PRODUCER)
		world.control->slow.producers |= bit_of(person);
	else if (world.subject->shared_queue)
		world.control->slow.consumers |= bit_of(person);
	world.control->generation++;
}

/* It is not slow any more; whoever has not fenced it need not do it now. */
static void wake(struct person *person)
{
	person->life = LIFE_RUNS;
	if (person->party.role == PRODUCER)
		world.control->slow.producers &= ~bit_of(person);
	else
		world.control->slow.consumers &= ~bit_of(person);
}

static struct person *anyone(void)
{
	struct person *running[PEOPLE_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < world.people_count; i++)
		if (world.people[i].life == LIFE_RUNS)
			running[count++] = &world.people[i];
	return count ? running[drawn(count)] : NULL;
}

static bool all_repaired(void)
{
	for (unsigned i = 0; i < world.people_count; i++) {
		const struct person *person = &world.people[i];

		if (person->party.role == CONSUMER &&
		    (person->life == LIFE_RUNS ||
		     person->life == LIFE_STOPPED) &&
		    world.control->repaired[person->party.index] !=
			    world.control->generation)
			return false;
	}
	return true;
}

static unsigned consumers_living(void)
{
	unsigned count = 0;

	for (unsigned i = 0; i < world.people_count; i++)
		count += world.people[i].party.role == CONSUMER &&
			 (world.people[i].life == LIFE_RUNS ||
			  world.people[i].life == LIFE_STOPPED);
	return count;
}

static int succeed(enum role role, unsigned index)
{
	if (role == CONSUMER)
		world.control->repaired[index] = 0;
	return person_start(role, index, true);
}

/*
 * A place is free once all consumers have repaired. If none is left to do so,
 * the first thing that a dead one's successor does is to repair.
 */
static int places_fill(void)
{
	uint32_t producers = world.control->dead.producers;
	uint32_t consumers = world.control->dead.consumers;

	if (consumers && consumers_living() == 0)
		return succeed(CONSUMER, (unsigned)__builtin_ctz(consumers));
	if ((!producers && !consumers) || !all_repaired())
		return 0;
	world.control->dead.producers = 0;
	world.control->dead.consumers = 0;
	/* The one that repaired its predecessor's place has it by now. */
	for (unsigned i = 0; i < world.people_count; i++)
		if (world.people[i].party.role == CONSUMER &&
		    (world.people[i].life == LIFE_RUNS ||
		     world.people[i].life == LIFE_STOPPED))
			consumers &= ~bit_of(&world.people[i]);
	if (!world.control->producing)
		return 0;
	for (unsigned i = 0; i < PARTIES_MAX; i++) {
		if (consumers >> i & 1 && succeed(CONSUMER, i))
			return 1;
		if (producers >> i & 1 && succeed(PRODUCER, i))
			return 1;
	}
	return 0;
}

static int faults_strike(void)
{
	for (unsigned i = 0; i < world.fault_count; i++) {
		struct fault *fault = &world.faults[i];
		struct person *person;

		if (fault->done || world.step < fault->at_step)
			continue;
		fault->done = true;
		person = anyone();
		if (!person)
			continue;
		if (fault->kills)
			die(person);
		else
			stop(person);
	}
	for (unsigned i = 0; i < world.people_count; i++) {
		struct person *person = &world.people[i];

		if (person->life == LIFE_STOPPED &&
		    person->wakes_at <= world.step)
			wake(person);
	}
	count_producers();
	return places_fill();
}

/* Who met an error keeps what it had, and others may wait for that for ever. */
static int ended_well(const struct person *person)
{
	const struct history *history = person->party.history;
	uint64_t last = history->count ? history->events[history->count - 1]
				       : 0;

	if (event_kind(last) != EVENT_ODD)
		return 0;
	snprintf(world.why, sizeof(world.why),
		 "party %" PRIu32 " met error %" PRId64, history->number,
		 -(int64_t)event_id(last));
	return 1;
}

static int run_for(struct person *person, uint64_t steps)
{
	enum step step = step_run(&person->child, &steps);

	world.step += steps;
	if (step == STEP_RUNNING)
		return 0;
	person->life = LIFE_ENDED;
	return step == STEP_ENDED ? ended_well(person)
				  : complain("a party broke down");
}

static int stopped_count(void)
{
	int count = 0;

	for (unsigned i = 0; i < world.people_count; i++)
		count += world.people[i].life == LIFE_STOPPED;
	return count;
}

static int mix(void)
{
	while (world.step < STEPS_MAX) {
		struct person *person;

		if (faults_strike())
			return 1;
		person = anyone();
		if (!person && !stopped_count())
			return 0;
		if (!person)
			world.step += 100;
		else if (run_for(person, 1 + drawn(60)))
			return 1;
	}
	return complain("stuck: no end");
}

static void choose(const struct subject *kind)
{
	const struct subject *subject = kind ? kind
					     : subjects[drawn(subject_count)];

	world.subject = subject;
	world.shape = &subject->shapes[drawn(subject->stepped)];
	world.bytes = subject->bytes(world.shape);
	world.fault_count = 1 + (unsigned)drawn(FAULTS_MAX);
	for (unsigned i = 0; i < world.fault_count; i++)
		world.faults[i] = (struct fault){ .at_step = 20 + drawn(2500),
						  .kills = drawn(10) < 6 };
	memset(world.memory, 0, world.bytes);
	memset((void *)(uintptr_t)world.control, 0, sizeof(*world.control));
	world.control->generation = 1;
	for (unsigned i = 0; i < PARTIES_MAX; i++)
		world.control->repaired[i] = 1;
	step_watch(&(struct step_watched){ .memory = world.memory,
					   .bytes = world.bytes });
}

static int play(const struct subject *kind)
{
	static struct verdict verdict;
	unsigned producers, consumers;

	choose(kind);
	if (world.subject->format(world.memory, world.shape))
		return complain("no such shape");
	producers = 1 + (unsigned)drawn(world.shape->producers);
	consumers = subject_consumers(world.subject, world.shape);
	if (consumers == 1)
		consumers += (unsigned)drawn(world.shape->consumers);
	for (unsigned i = 0; i < consumers; i++)
		if (person_start(CONSUMER, i, false))
			return 1;
	for (unsigned i = 0; i < producers; i++)
		if (person_start(PRODUCER, i, false))
			return 1;
	if (mix())
		return 1;
	verdict.subject = world.subject;
	verdict.shape = world.shape;
	verdict.memory = world.memory;
	verdict.dead.producers = world.control->dead.producers;
	verdict.dead.consumers = world.control->dead.consumers;
	verdict.history_count = world.people_count;
	verdict.bereft = false;
	for (unsigned i = 0; i < world.people_count; i++) {
		const struct person *person = &world.people[i];

		verdict.histories[i] = person->party.history;
		verdict.bereft |= person->life == LIFE_DEAD &&
				  person->party.role == CONSUMER;
	}
	if (verdict_reach(&verdict))
		return complain(verdict.why);
	return 0;
}

static void everybody_out(void)
{
	for (unsigned i = 0; i < world.people_count; i++)
		if (world.people[i].life == LIFE_RUNS ||
		    world.people[i].life == LIFE_STOPPED)
			step_kill(&world.people[i].child);
}

static int seed_play(uint64_t seed, const struct subject *kind)
{
	int bad;

	world.seed = seed;
	world.random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	world.step = 0;
	world.people_count = 0;
	world.why[0] = '\0';
	for (unsigned i = 0; i < 4; i++)
		drawn(2);
	alarm(SEED_SECONDS);
	bad = play(kind);
	everybody_out();
	alarm(0);
	if (bad)
		fprintf(stderr,
			"interleave: seed %" PRIu64 ": %s, %s, step %" PRIu64
			": %s\ninterleave: again: --from %" PRIu64
			" --seeds 1%s%s\n",
			seed, world.subject->name, world.shape->name,
			world.step, world.why, seed, kind ? " --kind " : "",
			kind ? kind->name : "");
	return bad;
}

static void on_signal(int number)
{
	fprintf(stderr,
		"interleave: seed %" PRIu64 ": %s\n"
		"interleave: again: --from %" PRIu64 " --seeds 1\n",
		world.seed, number == SIGALRM ? "no end" : "the judge crashed",
		world.seed);
	everybody_out();
	_exit(1);
}

static void prepare(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	uint64_t bytes = 0;

	for (unsigned i = 0; i < subject_count; i++)
		for (unsigned j = 0; j < subjects[i]->stepped; j++) {
			uint64_t need =
				subjects[i]->bytes(&subjects[i]->shapes[j]);

			bytes = need > bytes ? need : bytes;
		}
	world.memory = shared(bytes);
	world.control = shared(sizeof(*world.control));
	world.histories = shared(PEOPLE_MAX * history_bytes(HISTORY_EVENTS));
	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

int main(int argc, char **argv)
{
	const struct subject *kind = NULL;
	uint64_t from = 0, seeds = 100, stride = 1, steps = 0;
	uint64_t tried = 0, failed = 0;
	unsigned cpu = 0;

	for (int i = 1; i + 1 < argc; i += 2) {
		uint64_t value = strtoull(argv[i + 1], NULL, 10);

		if (strcmp(argv[i], "--kind") == 0)
			kind = subject_find(argv[i + 1]);
		else if (strcmp(argv[i], "--from") == 0)
			from = value;
		else if (strcmp(argv[i], "--seeds") == 0)
			seeds = value;
		else if (strcmp(argv[i], "--stride") == 0)
			stride = value;
		else if (strcmp(argv[i], "--cpu") == 0)
			cpu = (unsigned)value;
		else
			return 2;
	}
	/* With whoever started us, and without a trace. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	step_pin(cpu);
	prepare();
	for (uint64_t i = 0; i < seeds; i++) {
		failed += (uint64_t)seed_play(from + i * stride, kind);
		tried++;
		steps += world.step;
	}
	printf("{\"tried\":%" PRIu64 ",\"failed\":%" PRIu64
	       ",\"steps\":%" PRIu64 "}\n",
	       tried, failed, steps);
	return failed != 0;
}
