/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real processes at full speed, ended by SIGKILL and held by SIGSTOP every 1 to
 * 100 ms. A round is one ring: its consumer watches the producers by their
 * pidfds whenever it has nothing to do, proves a death, and repairs; the node,
 * which is this program, does so for consumers, and where consumers share the
 * work. Successors take the places. At the end all histories are judged.
 *
 *    kill [--kind NAME] [--seconds N] [--seed S] [--turn N]
 *
 * Prints one JSON line. The time from a kill to the end of the repair is taken
 * apart for when no more could run than there are processors, and for when the
 * machine was more crowded, by us or by others. Beside it stands what the kernel
 * needs to tell of a death, and the processor time of the repair.
 */
#include "tests/crash/verdict.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/peer.h"

#define PEOPLE_MAX 40u
#define HISTORY_EVENTS (UINT64_C(1) << 21)
#define HISTORY_RESERVE 64u
#define ROUND_MS 400u
#define END_MS 20000u
#define ACTS_BETWEEN_LOOKS 256u
#define SAMPLES_MAX 100000u
#define DEATH_LIMIT_MS 10000u
#define PATIENCE_NS UINT64_C(3000000)

enum state {
	STATE_EMPTY,
	STATE_LIVING,
	STATE_REPAIRED,
};

/* One place in the ring, and who has it. */
struct place {
	struct petal_peer_id id;
	uint32_t serial; /* of its holder: another one, another number */
	uint32_t state;
	uint64_t usable_ns;
	uint64_t repair_ns; /* of processor time */
};

struct control {
	struct place producers[PARTIES_MAX];
	struct place consumers[PARTIES_MAX];
	uint32_t ending;  /* producers are to end */
	uint32_t drained; /* and consumers, once they find nothing */
};

struct person {
	struct party party;
	pid_t pid;
	bool there;
	bool stopped;
	struct petal_peer peer;
	uint64_t wakes_ns;
};

struct samples {
	uint64_t count;
	uint32_t us[SAMPLES_MAX];
};

struct round {
	const struct subject *subject;
	const struct shape *shape;
	void *memory;
	bool crowded;
	struct control *control;
	uint8_t *histories;
	struct person people[PEOPLE_MAX];
	unsigned people_count;
	uint64_t random;
	char why[VERDICT_WHY_BYTES];
};

static struct round round_now;
static struct samples fit, crowded, told, repair_cpu;
static uint64_t messages, kills, stops;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Of this thread alone: what a repair costs, however busy the machine is. */
static uint64_t cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Whether all that can run, but for one, have a processor each. */
static bool machine_fits(void)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	FILE *file = fopen("/proc/loadavg", "re");
	long running = 0;

	if (!file)
		return true;
	if (fscanf(file, "%*f %*f %*f %ld/", &running) != 1)
		running = 0;
	fclose(file);
	return running - 1 <= processors;
}

static void nap_us(uint64_t us)
{
	struct timespec time = { .tv_sec = (time_t)(us / 1000000),
				 .tv_nsec = (long)(us % 1000000 * 1000) };

	nanosleep(&time, NULL);
}

static uint64_t drawn(uint64_t below)
{
	uint64_t *random = &round_now.random;

	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return (*random >> 11) % below;
}

static void sample(struct samples *samples, uint64_t ns)
{
	if (samples->count < SAMPLES_MAX)
		samples->us[samples->count++] = (uint32_t)(ns / 1000);
}

static int complain(const char *why)
{
	if (!round_now.why[0])
		snprintf(round_now.why, sizeof(round_now.why), "%s", why);
	return 1;
}

/* ---- the children ---- */

static struct petal_peer watches[PARTIES_MAX];
static uint32_t watched[PARTIES_MAX]; /* the serial that is watched */

static bool place_died(unsigned index)
{
	struct place *place = &round_now.control->producers[index];
	uint32_t serial;

	if (__atomic_load_n(&place->state, __ATOMIC_ACQUIRE) != STATE_LIVING)
		return false;
	serial = __atomic_load_n(&place->serial, __ATOMIC_RELAXED);
	if (watched[index] != serial) {
		int err;

		if (watched[index])
			petal_peer_close(&watches[index]);
		watched[index] = 0;
		err = petal_peer_open(&place->id, &watches[index]);
		if (err)
			return err == -ESRCH;
		watched[index] = serial;
	}
	return petal_peer_dead(&watches[index]) == 1;
}

/* As the consumer: clear what dead producers left. */
static int look_around(struct party *party)
{
	struct casualties dead = { 0, 0 };
	uint64_t begin_ns;
	int outcome;

	for (unsigned i = 0; i < party->shape->producers; i++)
		if (place_died(i))
			dead.producers |= UINT32_C(1) << i;
	if (!dead.producers)
		return 0;
	begin_ns = cpu_ns();
	outcome = party->subject->repair(party, &dead);
	if (outcome < 0)
		return outcome;
	for (unsigned i = 0; i < party->shape->producers; i++) {
		struct place *place = &round_now.control->producers[i];

		if (outcome != ACT_DONE || !(dead.producers >> i & 1))
			continue;
		place->repair_ns = cpu_ns() - begin_ns;
		place->usable_ns = now_ns();
		__atomic_store_n(&place->state, STATE_REPAIRED,
				 __ATOMIC_RELEASE);
	}
	return 0;
}

/* Whoever has held us up for too long is fenced, where that can be done. */
static int lose_patience(struct party *party, int outcome, uint64_t *since_ns)
{
	struct casualties slow = { UINT32_MAX, 0 };

	if (outcome != ACT_HELD_UP) {
		*since_ns = 0;
		return 0;
	}
	if (*since_ns == 0)
		*since_ns = now_ns();
	if (!party->subject->fence || now_ns() - *since_ns < PATIENCE_NS)
		return 0;
	*since_ns = 0;
	return party->subject->fence(party, &slow);
}

static bool consumers_repair(const struct subject *subject)
{
	return subject->repairer == CONSUMER && !subject->shared_queue;
}

static int live(struct party *party, uint64_t choices)
{
	const struct subject *subject = party->subject;
	struct control *control = round_now.control;
	bool looks = party->role == CONSUMER && party->index == 0 &&
		     consumers_repair(subject);
	const struct act *found[12];
	uint64_t held_ns = 0;
	unsigned count = 0;
	int outcome = subject->join(party);

	if (outcome == ACT_CLOSED)
		return 0;
	for (unsigned i = 0; i < subject->act_count && count < 12; i++)
		if (subject->acts[i].role == party->role &&
		    !subject->acts[i].closes)
			found[count++] = &subject->acts[i];
	for (uint64_t i = 0; outcome >= 0; i++) {
		bool last = __atomic_load_n(party->role == PRODUCER
						    ? &control->ending
						    : &control->drained,
					    __ATOMIC_ACQUIRE);

		if (last && party->role == PRODUCER)
			return choices & 1 ? party_end(party) : 0;
		if (history_full(party->history, HISTORY_RESERVE)) {
			/* Nothing more to write down, but others still die. */
			if (last || !looks)
				return 0;
			outcome = look_around(party);
			sched_yield();
			continue;
		}
		/* Plainly in the end, for some acts of consumers send. */
		outcome =
			last ? party_act(party)
			     : found[(choices >> i % 15 * 4 & 15) % count]->run(
				       party);
		if (outcome == ACT_CLOSED)
			return 0;
		if (outcome == ACT_NOTHING && last)
			return 0;
		if (outcome == ACT_DONE && i % ACTS_BETWEEN_LOOKS != 0)
			continue;
		if (looks && outcome >= 0)
			outcome = lose_patience(party, outcome, &held_ns);
		if (looks && outcome >= 0)
			outcome = look_around(party);
		else if (outcome > 0)
			sched_yield();
	}
	return outcome;
}

static void child_main(struct person *person, struct place *place)
{
	uint64_t choices = drawn(UINT64_MAX);
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (__atomic_load_n(&place->state, __ATOMIC_ACQUIRE) != STATE_LIVING)
		sched_yield();
	err = live(&person->party, choices);
	if (err < 0)
		history_add(person->party.history, EVENT_ODD, (uint64_t)-err);
	_exit(0);
}

/* ---- the node ---- */

static struct place *place_of(enum role role, unsigned index)
{
	return role == PRODUCER ? &round_now.control->producers[index]
				: &round_now.control->consumers[index];
}

static struct history *history_next(void)
{
	unsigned number = round_now.people_count;
	struct history *history =
		(struct history *)(void *)(round_now.histories +
					   number * history_bytes(
							    HISTORY_EVENTS));

	history_init(history, number + 1, HISTORY_EVENTS);
	return history;
}

static int person_start(enum role role, unsigned index, bool follows)
{
	struct person *person = &round_now.people[round_now.people_count];
	struct place *place = place_of(role, index);
	struct petal_peer_id id;

	party_init(&person->party, round_now.subject, round_now.shape,
		   round_now.memory, role, index, history_next());
	person->party.follows = follows;
	__atomic_store_n(&place->state, STATE_EMPTY, __ATOMIC_RELEASE);
	person->stopped = false;
	person->pid = fork();
	if (person->pid == 0)
		child_main(person, place);
	if (person->pid < 0 || petal_peer_identify(person->pid, &id) ||
	    petal_peer_open(&id, &person->peer))
		return complain("cannot start a party");
	person->there = true;
	place->id = id;
	__atomic_store_n(&place->serial, ++round_now.people_count,
			 __ATOMIC_RELAXED);
	__atomic_store_n(&place->state, STATE_LIVING, __ATOMIC_RELEASE);
	return 0;
}

/* Wait for the kernel's word, as a sleeping peer does. */
static int await_death(struct person *person, uint64_t killed_ns)
{
	struct pollfd fd = { .fd = petal_peer_fd(&person->peer),
			     .events = POLLIN };

	if (poll(&fd, 1, (int)DEATH_LIMIT_MS) != 1 ||
	    petal_peer_dead(&person->peer) != 1)
		return complain("a killed party does not die");
	sample(&told, now_ns() - killed_ns);
	return 0;
}

/* As a party of our own: take the place for a moment, and repair. */
static int repair_ourselves(const struct person *person)
{
	static uint64_t space[sizeof(struct history) / 8 + 64];
	static struct party party;
	struct history *history = (struct history *)(void *)space;
	const struct subject *subject = round_now.subject;
	uint32_t bit = UINT32_C(1) << person->party.index;
	struct casualties dead = { 0, 0 };
	uint64_t limit_ns = now_ns() + DEATH_LIMIT_MS * UINT64_C(1000000);
	uint64_t begin_ns = cpu_ns();
	int outcome;

	if (person->party.role == PRODUCER)
		dead.producers = bit;
	else
		dead.consumers = bit;
	history_init(history, VERDICT_NUMBER, 64);
	party_init(&party, subject, round_now.shape, round_now.memory, CONSUMER,
		   subject_spare(subject, person->party.role == CONSUMER
						  ? person->party.index
						  : 0),
		   history);
	party.follows = person->party.role == CONSUMER;
	outcome = subject->join(&party);
	if (outcome == 0)
		do {
			outcome = subject->repair(&party, &dead);
		} while (outcome == ACT_HELD_UP && now_ns() < limit_ns);
	sample(&repair_cpu, cpu_ns() - begin_ns);
	return outcome ? complain("the node cannot repair") : 0;
}

/* The consumer does it; unless that one is held, or dies as well. */
static int await_repair(struct place *place, uint64_t *ret_usable_ns)
{
	uint64_t limit_ns = now_ns() + DEATH_LIMIT_MS * UINT64_C(1000000);

	while (__atomic_load_n(&place->state, __ATOMIC_ACQUIRE) !=
	       STATE_REPAIRED) {
		if (now_ns() > limit_ns)
			return complain("a dead producer was not repaired");
		nap_us(50);
	}
	*ret_usable_ns = place->usable_ns;
	sample(&repair_cpu, place->repair_ns);
	return 0;
}

static void wake(struct person *person)
{
	if (person->there && person->stopped)
		kill(person->pid, SIGCONT);
	person->stopped = false;
}

static bool repaired_by_consumer(const struct person *person)
{
	if (person->party.role != PRODUCER ||
	    !consumers_repair(round_now.subject))
		return false;
	for (unsigned i = 0; i < round_now.people_count; i++) {
		struct person *other = &round_now.people[i];

		/* Who is to repair must run; what is measured is not a stop. */
		if (other->party.role == CONSUMER && other->party.index == 0)
			wake(other);
	}
	return true;
}

static int die(struct person *person)
{
	enum role role = person->party.role;
	unsigned index = person->party.index;
	struct place *place = place_of(role, index);
	bool by_consumer = repaired_by_consumer(person);
	bool fits = !round_now.crowded && machine_fits();
	uint64_t killed_ns = now_ns();
	uint64_t usable_ns;

	kills++;
	kill(person->pid, SIGKILL);
	if (await_death(person, killed_ns))
		return 1;
	person->there = false;
	person->party.history->dead = true;
	if (by_consumer) {
		if (await_repair(place, &usable_ns))
			return 1;
	} else {
		if (repair_ourselves(person))
			return 1;
		usable_ns = now_ns();
	}
	/* The consumer may have been quicker than we were told. */
	sample(fits ? &fit : &crowded,
	       usable_ns > killed_ns ? usable_ns - killed_ns : 0);
	petal_peer_close(&person->peer);
	waitpid(person->pid, NULL, 0);
	return person_start(role, index, true);
}

static void hold(struct person *person)
{
	stops++;
	kill(person->pid, SIGSTOP);
	person->stopped = true;
	person->wakes_ns = now_ns() + (1 + drawn(20)) * 1000000;
}

static bool is_finished(const struct person *person)
{
	return petal_peer_dead(&person->peer) == 1;
}

static struct person *anyone(void)
{
	struct person *found[PEOPLE_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < round_now.people_count; i++)
		if (round_now.people[i].there &&
		    !is_finished(&round_now.people[i]))
			found[count++] = &round_now.people[i];
	return count ? found[drawn(count)] : NULL;
}

/* A history that is full ends its party, and with it the round. */
static bool somebody_has_ended(void)
{
	for (unsigned i = 0; i < round_now.people_count; i++)
		if (round_now.people[i].there &&
		    is_finished(&round_now.people[i]))
			return true;
	return false;
}

static void wake_who_may(bool everybody)
{
	for (unsigned i = 0; i < round_now.people_count; i++)
		if (everybody || round_now.people[i].wakes_ns <= now_ns())
			wake(&round_now.people[i]);
}

static int torment(uint64_t until_ns)
{
	while (now_ns() < until_ns && !somebody_has_ended() &&
	       round_now.people_count < PEOPLE_MAX) {
		struct person *person;
		/* As many short pauses as long ones, on a scale of octaves. */
		uint64_t pause_us = 1000 + drawn(UINT64_C(1000) << drawn(7));

		nap_us(pause_us < 100000 ? pause_us : 100000);
		wake_who_may(false);
		person = anyone();
		if (!person)
			continue;
		if (drawn(3) != 0) {
			if (die(person))
				return 1;
		} else if (!person->stopped) {
			hold(person);
		}
	}
	wake_who_may(true);
	return 0;
}

static int await_all(enum role role)
{
	uint64_t limit_ns = now_ns() + END_MS * UINT64_C(1000000);

	for (unsigned i = 0; i < round_now.people_count; i++) {
		struct person *person = &round_now.people[i];
		int status;

		if (!person->there || person->party.role != role)
			continue;
		while (!is_finished(person)) {
			if (now_ns() > limit_ns)
				return complain("stuck: a party has no end");
			nap_us(200);
		}
		petal_peer_close(&person->peer);
		person->there = false;
		if (waitpid(person->pid, &status, 0) == person->pid && status)
			complain("a party crashed");
	}
	return round_now.why[0] != '\0';
}

static uint64_t deliveries(const struct history *history)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < history->count; i++)
		count += event_kind(history->events[i]) == EVENT_GOT;
	return count;
}

/* Whoever read until its history was full has left the rest to the verdict. */
static int judge(void)
{
	static struct verdict verdict;

	verdict.subject = round_now.subject;
	verdict.shape = round_now.shape;
	verdict.memory = round_now.memory;
	verdict.dead = (struct casualties){ 0, 0 };
	verdict.bereft = false;
	verdict.history_count = round_now.people_count;
	for (unsigned i = 0; i < round_now.people_count; i++) {
		struct history *history = round_now.people[i].party.history;

		verdict.histories[i] = history;
		if (round_now.people[i].party.role == CONSUMER) {
			/* Its successor may see again what it released last. */
			verdict.bereft |= history->dead;
			history->dead |= !round_now.subject->seated;
			messages += deliveries(history);
		}
	}
	return verdict_reach(&verdict) ? complain(verdict.why) : 0;
}

static int round_run(void)
{
	const struct shape *shape = round_now.shape;
	unsigned producers = round_now.crowded ? shape->producers : 1;
	unsigned consumers = shape->consumers;

	if (!round_now.crowded && !round_now.subject->broadcast)
		consumers = 1;
	for (unsigned i = 0; i < consumers; i++)
		if (person_start(CONSUMER, i, false))
			return 1;
	for (unsigned i = 0; i < producers; i++)
		if (person_start(PRODUCER, i, false))
			return 1;
	if (torment(now_ns() + ROUND_MS * UINT64_C(1000000)))
		return 1;
	__atomic_store_n(&round_now.control->ending, 1, __ATOMIC_RELEASE);
	if (await_all(PRODUCER))
		return 1;
	__atomic_store_n(&round_now.control->drained, 1, __ATOMIC_RELEASE);
	if (await_all(CONSUMER))
		return 1;
	return judge();
}

static void everybody_out(void)
{
	for (unsigned i = 0; i < round_now.people_count; i++) {
		struct person *person = &round_now.people[i];

		if (!person->there)
			continue;
		kill(person->pid, SIGKILL);
		waitpid(person->pid, NULL, 0);
		petal_peer_close(&person->peer);
		person->there = false;
	}
}

/* Each turn of a kind is another shape; every second one is crowded. */
static int round_play(const struct subject *subject, uint64_t turn,
		      uint64_t seed)
{
	uint64_t lap = turn / subject->shape_count;
	const struct shape *shape =
		&subject->shapes[turn % subject->shape_count];
	bool is_crowded = (turn + lap * (subject->shape_count + 1)) & 1;
	uint64_t bytes = subject->bytes(shape);
	int bad;

	round_now.subject = subject;
	round_now.shape = shape;
	round_now.random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	round_now.crowded = is_crowded &&
			    shape->producers + shape->consumers > 2;
	round_now.people_count = 0;
	round_now.why[0] = '\0';
	memset(round_now.control, 0, sizeof(*round_now.control));
	subject_file = memfd_create("petal-prove-kill", MFD_CLOEXEC);
	if (subject_file < 0 || ftruncate(subject_file, (off_t)bytes))
		return complain("no memory");
	round_now.memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
				subject_file, 0);
	if (round_now.memory == MAP_FAILED)
		return complain("no memory");
	bad = subject->format(round_now.memory, shape)
		      ? complain("no such shape")
		      : round_run();
	everybody_out();
	munmap(round_now.memory, bytes);
	close(subject_file);
	if (bad)
		fprintf(stderr, "kill: %s, %s, seed %" PRIu64 "%s: %s\n",
			subject->name, shape->name, seed,
			round_now.crowded ? ", crowded" : "", round_now.why);
	return bad;
}

/* ---- all of it ---- */

static void samples_print(const char *name, const struct samples *samples)
{
	printf(",\"%s\":[", name);
	for (uint64_t i = 0; i < samples->count; i++)
		printf("%s%" PRIu32, i ? "," : "", samples->us[i]);
	printf("]");
}

static void prepare(void)
{
	round_now.control = mmap(NULL, sizeof(struct control),
				 PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	round_now.histories =
		mmap(NULL, PEOPLE_MAX * history_bytes(HISTORY_EVENTS),
		     PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (round_now.control == MAP_FAILED ||
	    round_now.histories == MAP_FAILED) {
		perror("kill: mmap");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	const struct subject *kind = NULL;
	uint64_t seconds = 10, seed = 1, first = 0, tried = 0, failed = 0;
	uint64_t end_ns;

	for (int i = 1; i + 1 < argc; i += 2) {
		uint64_t value = strtoull(argv[i + 1], NULL, 10);

		if (strcmp(argv[i], "--kind") == 0)
			kind = subject_find(argv[i + 1]);
		else if (strcmp(argv[i], "--seconds") == 0)
			seconds = value;
		else if (strcmp(argv[i], "--seed") == 0)
			seed = value;
		else if (strcmp(argv[i], "--turn") == 0)
			first = value;
		else
			return 2;
	}
	/* With whoever started us, and without a trace. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	message_whole = true;
	prepare();
	end_ns = now_ns() + seconds * UINT64_C(1000000000);
	for (uint64_t i = 0; now_ns() < end_ns && failed < 20; i++) {
		const struct subject *subject =
			kind ? kind : subjects[i % subject_count];
		uint64_t turn = first + (kind ? i : i / subject_count);

		failed += (uint64_t)round_play(subject, turn,
					       seed * 1000000 + turn);
		tried++;
	}
	printf("{\"tried\":%" PRIu64 ",\"failed\":%" PRIu64
	       ",\"messages\":%" PRIu64 ",\"kills\":%" PRIu64
	       ",\"stops\":%" PRIu64,
	       tried, failed, messages, kills, stops);
	samples_print("usable", &fit);
	samples_print("usable_crowded", &crowded);
	samples_print("told", &told);
	samples_print("repair_cpu", &repair_cpu);
	printf("}\n");
	return failed != 0;
}
