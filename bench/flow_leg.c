/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The happy path: map, fork, wait until all are ready, start, read, sleep, read
 * again, stop, reap. Whatever fails on the way, all that was started is gone on
 * return.
 */
#include "bench/flow_leg.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/pair.h"
#include "shm/clock.h"

/* How long a party may take to start or to stop. */
#define PATIENCE_NS PETAL_S(10)

/* A leg: what the parties do. */

int petal_flow_map(struct petal_flow_contender *contender, uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		return -errno;
	contender->memory = memory;
	contender->memory_bytes = bytes;
	return 0;
}

static void unmap(struct petal_flow_contender *contender)
{
	if (contender->memory)
		munmap(contender->memory, contender->memory_bytes);
	contender->memory = NULL;
	contender->memory_bytes = 0;
}

static unsigned parties_of(const struct petal_flow_contender *contender)
{
	return contender->producers + contender->consumers;
}

static int cpu_of(const struct petal_flow_place *place,
		  const struct petal_flow_contender *contender, unsigned party)
{
	unsigned index = party < contender->producers
				 ? party + 1
				 : party - contender->producers;

	return place->cpus[index % place->cpu_count];
}

/* Each page of shared memory costs a process its first fault: not in the leg. */
static void touch(const struct petal_flow_contender *contender)
{
	const volatile uint8_t *bytes = (const uint8_t *)contender->memory;

	for (uint64_t at = 0; at < contender->memory_bytes; at += 4096)
		(void)bytes[at];
}

static int take_part(const struct petal_flow_place *place,
		     struct petal_flow_contender *contender, unsigned party)
{
	struct petal_flow_run *run = place->run;
	int err = petal_pair_pin(cpu_of(place, contender, party));

	if (err < 0)
		return err;
	touch(contender);
	if (contender->join)
		err = contender->join(contender, party, run);
	if (err < 0)
		return err;
	petal_store(&run->party[party].ready, 1, PETAL_RELEASE(START));
	while (petal_load(&run->started, PETAL_ACQUIRE(START)) == 0)
		sched_yield();
	if (party < contender->producers)
		return contender->produce(contender, party, run);
	return contender->consume(contender, party - contender->producers, run);
}

static pid_t start_party(const struct petal_flow_place *place,
			 struct petal_flow_contender *contender, unsigned party)
{
	pid_t parent = getpid();
	pid_t child = fork();
	int err;

	if (child != 0)
		return child < 0 ? -errno : child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* A parent that died before that call cannot send us the signal. */
	if (getppid() != parent)
		_exit(1);
	err = take_part(place, contender, party);
	if (err < 0)
		petal_store(&place->run->party[party].err, (uint64_t)-err,
			    PETAL_RELAXED);
	_exit(err < 0 ? 1 : 0);
}

/* A leg: what the parent does. */

struct leg {
	struct petal_flow_contender *who;
	pid_t children[PETAL_FLOW_PARTIES_MAX];
	unsigned count; /* started and not yet waited for */
};

struct reading {
	uint64_t now_ns;
	uint64_t produced;
	uint64_t consumed;
	uint64_t produce_ns;
	uint64_t consume_ns;
};

static int cpu_time(pid_t child, uint64_t *ret_ns)
{
	struct timespec spent;
	clockid_t clock;
	int err = clock_getcpuclockid(child, &clock);

	if (err != 0)
		return -err;
	if (clock_gettime(clock, &spent) != 0)
		return -errno;
	*ret_ns = PETAL_S(spent.tv_sec) + (uint64_t)spent.tv_nsec;
	return 0;
}

static int take_reading(const struct petal_flow_place *place,
			const struct leg *leg, struct reading *ret_reading)
{
	struct reading reading = { .now_ns = petal_clock_now_ns() };

	for (unsigned i = 0; i < leg->count; i++) {
		uint64_t count =
			petal_load(&place->run->party[i].count, PETAL_RELAXED);
		uint64_t spent_ns = 0;
		int err = cpu_time(leg->children[i], &spent_ns);

		if (err < 0)
			return err;
		if (i < leg->who->producers) {
			reading.produced += count;
			reading.produce_ns += spent_ns;
		} else {
			reading.consumed += count;
			reading.consume_ns += spent_ns;
		}
	}
	*ret_reading = reading;
	return 0;
}

static void nap(uint64_t ns)
{
	struct timespec time = petal_clock_timespec(ns);

	nanosleep(&time, NULL);
}

static int wait_ready(const struct petal_flow_place *place,
		      const struct leg *leg)
{
	uint64_t end_ns = petal_clock_now_ns() + PATIENCE_NS;

	for (unsigned i = 0; i < leg->count; i++) {
		const struct petal_flow_party *party = &place->run->party[i];

		while (petal_load(&party->ready, PETAL_ACQUIRE(START)) == 0) {
			if (petal_load(&party->err, PETAL_RELAXED))
				return -(int)petal_load(&party->err,
							PETAL_RELAXED);
			if (petal_clock_now_ns() > end_ns)
				return -ETIMEDOUT;
			nap(PETAL_US(50));
		}
	}
	return 0;
}

static int read_twice(const struct petal_flow_place *place,
		      const struct leg *leg, uint64_t leg_ns,
		      struct reading readings[2])
{
	int err;

	nap(leg_ns / 8);
	err = take_reading(place, leg, &readings[0]);
	if (err < 0)
		return err;
	nap(leg_ns);
	return take_reading(place, leg, &readings[1]);
}

/* Reap one of them if it has ended; 1 while it has not. */
static int reap(const struct petal_flow_place *place, pid_t child,
		unsigned party)
{
	uint64_t err;
	int status;
	pid_t got = waitpid(child, &status, WNOHANG);

	if (got == 0)
		return 1;
	err = petal_load(&place->run->party[party].err, PETAL_RELAXED);
	if (err)
		return -(int)err;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EOWNERDEAD;
}

/* Everybody is gone on return; the first fault of any of them is returned. */
static int stop_leg(const struct petal_flow_place *place, struct leg *leg)
{
	uint64_t end_ns = petal_clock_now_ns() + PATIENCE_NS;
	int fault = 0;

	petal_store(&place->run->stopped, 1, PETAL_RELAXED);
	for (unsigned i = 0; i < leg->count; i++) {
		int err;

		while ((err = reap(place, leg->children[i], i)) == 1 &&
		       petal_clock_now_ns() < end_ns)
			nap(PETAL_US(50));
		if (err == 1) {
			kill(leg->children[i], SIGKILL);
			waitpid(leg->children[i], NULL, 0);
			err = -ETIMEDOUT;
		}
		if (fault == 0)
			fault = err;
	}
	leg->count = 0;
	return fault;
}

static int start_leg(const struct petal_flow_place *place, struct leg *leg)
{
	unsigned count = parties_of(leg->who);

	memset(place->run, 0, sizeof(*place->run));
	place->run->crowded = count > place->cpu_count;
	for (unsigned i = 0; i < count; i++) {
		leg->children[i] = start_party(place, leg->who, i);
		if (leg->children[i] < 0)
			return (int)leg->children[i];
		leg->count++;
	}
	return 0;
}

static void weigh(const struct petal_flow_contender *who,
		  const struct reading readings[2],
		  struct petal_flow_tally *ret_tally)
{
	uint64_t produced = readings[1].produced - readings[0].produced;
	uint64_t consumed = readings[1].consumed - readings[0].consumed;

	ret_tally->messages = who->every || who->consumers == 0 ? produced
								: consumed;
	ret_tally->wall_ns = readings[1].now_ns - readings[0].now_ns;
	ret_tally->produce_ns = readings[1].produce_ns - readings[0].produce_ns;
	ret_tally->consume_ns = readings[1].consume_ns - readings[0].consume_ns;
}

int petal_flow_leg(const struct petal_flow_place *place,
		   struct petal_flow_contender *who, uint64_t leg_ns,
		   struct petal_flow_tally *ret_tally)
{
	struct leg leg = { .who = who };
	struct reading readings[2];
	int stopped;
	int err = who->prepare ? who->prepare(who) : 0;

	if (err == 0)
		err = start_leg(place, &leg);
	if (err == 0)
		err = wait_ready(place, &leg);
	*ret_tally = (struct petal_flow_tally){ .started = err == 0 };
	petal_store(&place->run->started, 1, PETAL_RELEASE(START));
	if (err == 0)
		err = read_twice(place, &leg, leg_ns, readings);
	stopped = stop_leg(place, &leg);
	if (who->close)
		who->close(who);
	unmap(who);
	/* What a party says of itself is nearer to the cause. */
	if (stopped < 0 || err < 0)
		return stopped < 0 ? stopped : err;
	weigh(who, readings, ret_tally);
	return 0;
}
