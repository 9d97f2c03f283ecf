/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sample lasts from one answer to the next; its clock is the processor's
 * counter, where there is one, since a reading of the system's clock would cost
 * as much as a bounce of a line.
 */
#include "bench/rtt_play.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/pair.h"
#include "bench/payload.h"
#include "rings/doorbell.h"
#include "rings/spsc.h"
#include "shm/barrier.h"
#include "shm/clock.h"
#include "shm/ledger.h"
#include "shm/ref.h"

#define ALWAYS static inline __attribute__((always_inline))

#define LINE_BYTES 64u

/* A ring as large as a user would make it: 16 KiB, and at least 8 slots. */
#define RING_BYTES 16384u
#define SLOTS_MIN 8u

/* Pairs of a crowd, of which one is measured. */
#define CROWD 4u

/* How many looks at nothing pass between two at whether the leg has ended. */
#define LOOKS 256u

/* And between two at whether the server lives: some tens of milliseconds. */
#define LOOKS_LONG (1u << 24)

/* How long a sleeper sleeps before it looks whether the leg has ended. */
#define NAP_NS PETAL_MS(20)

/* What a pair shares; what it bounces lies behind, at MEDIA. */
struct court {
	struct petal_u64 stopped;
	struct petal_u64 ready; /* the server may be asked */
	uint8_t reserved0[112];
	struct petal_doorbell bell[2]; /* of the server, of the client */
	uint8_t reserved1[112];
};

#define MEDIA 4096u

/* One side of a leg. */
struct leg {
	const struct rtt_play *play;
	struct court *court;
	uint8_t *out; /* lines, or a ring, towards the other side */
	uint8_t *in;
	struct petal_spsc to;
	struct petal_spsc from;
	struct petal_ledger ledger; /* of a loan */
	struct petal_ref ref;       /* of the buffer, while it is ours */
	uint8_t *range;
	uint64_t theirs_bit; /* of the other side, as a holder */
	struct petal_doorbell *mine;
	struct petal_doorbell *theirs;
	uint64_t looks;
	uint64_t leg_ns;
	pid_t server;                      /* ours to look after, or 0 */
	struct petal_histogram *histogram; /* of the client that is measured */
};

/* The processor's counter, in steps of which ns_per_tick is the length. */

static double ns_per_tick = 1;

static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return petal_clock_now_ns();
#endif
}

void rtt_calibrate(void)
{
	uint64_t start_ns = petal_clock_now_ns();
	uint64_t start = ticks();

	while (petal_clock_now_ns() - start_ns < PETAL_MS(20))
		;
	ns_per_tick = (double)(petal_clock_now_ns() - start_ns) /
		      (double)(ticks() - start);
}

/* A server that a signal has ended told nobody. */
static bool is_gone(const struct leg *leg)
{
	siginfo_t info = { 0 };

	return leg->server > 0 &&
	       waitid(P_PID, (id_t)leg->server, &info,
		      WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid != 0;
}

static inline bool is_stopped(const struct leg *leg)
{
	return petal_load(&leg->court->stopped, PETAL_RELAXED) != 0;
}

/* True once in a while when the leg has ended. */
static inline bool is_over(struct leg *leg)
{
	if (++leg->looks % LOOKS != 0)
		return false;
	return is_stopped(leg) ||
	       (leg->looks % LOOKS_LONG == 0 && is_gone(leg));
}

/* Lines: the first one is written last, and watched. */

static inline struct petal_u64 *line_at(uint8_t *lines, unsigned index)
{
	return (struct petal_u64 *)(void *)(lines + index * LINE_BYTES);
}

ALWAYS int line_send(struct leg *leg, uint64_t word, uint64_t lines)
{
	for (unsigned i = 1; i < lines; i++)
		petal_store(line_at(leg->out, i), word, PETAL_RELAXED);
	petal_store(line_at(leg->out, 0), word, PETAL_RELEASE(BALL));
	return 0;
}

ALWAYS int line_watch(struct leg *leg, uint64_t word, uint64_t lines,
		      bool is_paced)
{
	uint64_t wrong = 0;

	while (petal_load(line_at(leg->in, 0), PETAL_ACQUIRE(BALL)) != word) {
		if (is_paced)
			ticks();
		if (is_over(leg))
			return -EINTR;
	}
	for (unsigned i = 1; i < lines; i++)
		wrong |= petal_load(line_at(leg->in, i), PETAL_RELAXED) ^ word;
	return wrong ? -EBADMSG : 0;
}

ALWAYS int line_receive(struct leg *leg, uint64_t word, uint64_t lines)
{
	return line_watch(leg, word, lines, false);
}

/* The same, with a look at the clock between two looks, as our rings do. */

ALWAYS int paced_send(struct leg *leg, uint64_t word, uint64_t lines)
{
	return line_send(leg, word, lines);
}

ALWAYS int paced_receive(struct leg *leg, uint64_t word, uint64_t lines)
{
	return line_watch(leg, word, lines, true);
}

/* Rings. */

ALWAYS int ring_send(struct leg *leg, uint64_t sequence, uint64_t bytes)
{
	void *slot;

	while (!(slot = petal_spsc_claim(&leg->to)))
		if (is_over(leg))
			return -EINTR;
	petal_payload_fill(slot, bytes, sequence);
	petal_spsc_publish(&leg->to);
	return 0;
}

ALWAYS int ring_take(struct leg *leg, const void *slot, uint64_t sequence,
		     uint64_t bytes)
{
	int err = petal_payload_check(slot, bytes, sequence);

	petal_spsc_release(&leg->from);
	return err;
}

ALWAYS int ring_receive(struct leg *leg, uint64_t sequence, uint64_t bytes)
{
	const void *slot;

	while (!(slot = petal_spsc_peek(&leg->from)))
		if (is_over(leg))
			return -EINTR;
	return ring_take(leg, slot, sequence, bytes);
}

/* Rings with doorbells. */

ALWAYS int bell_send(struct leg *leg, uint64_t sequence, uint64_t bytes)
{
	int err = ring_send(leg, sequence, bytes);

	petal_doorbell_ring(leg->theirs, PETAL_DOORBELL_ALL);
	return err;
}

ALWAYS int bell_receive(struct leg *leg, uint64_t sequence, uint64_t bytes)
{
	const void *slot;
	bool timed_out;

	while (!(slot = petal_spsc_peek(&leg->from))) {
		uint32_t seen = petal_doorbell_arm(leg->mine);

		slot = petal_spsc_peek(&leg->from);
		if (slot) {
			petal_doorbell_disarm(leg->mine);
			break;
		}
		timed_out =
			petal_doorbell_wait(leg->mine, seen,
					    petal_clock_now_ns() + NAP_NS) == 1;
		if (is_stopped(leg) || (timed_out && is_gone(leg)))
			return -EINTR;
	}
	return ring_take(leg, slot, sequence, bytes);
}

/* Slots that are the payload: filled and read where they lie. */

ALWAYS int place_send(struct leg *leg, uint64_t sequence, uint64_t bytes)
{
	uint8_t *slot;

	while (!(slot = petal_spsc_claim(&leg->to)))
		if (is_over(leg))
			return -EINTR;
	memcpy(slot, &sequence, sizeof(sequence));
	memcpy(slot + bytes - sizeof(sequence), &sequence, sizeof(sequence));
	petal_spsc_publish(&leg->to);
	return 0;
}

ALWAYS int place_receive(struct leg *leg, uint64_t sequence, uint64_t bytes)
{
	uint64_t first, last;
	const uint8_t *slot;

	while (!(slot = petal_spsc_peek(&leg->from)))
		if (is_over(leg))
			return -EINTR;
	memcpy(&first, slot, sizeof(first));
	memcpy(&last, slot + bytes - sizeof(last), sizeof(last));
	petal_spsc_release(&leg->from);
	return first == sequence && last == sequence ? 0 : -EBADMSG;
}

/*
 * Loans. One buffer goes back and forth: the ledger always knows whose it is,
 * and the message is its reference. Of the payload, each side writes and reads
 * the first and the last word.
 */

#define LOAN_BYTES (UINT64_C(1) << 20)
#define LOAN_GRANULE_BYTES 4096u

ALWAYS uint64_t *loan_word(const struct leg *leg, uint64_t at)
{
	return (uint64_t *)(void *)(leg->range + petal_ref_offset(leg->ref) +
				    at);
}

ALWAYS int loan_send(struct leg *leg, uint64_t sequence, uint64_t bytes)
{
	struct petal_ref ref = leg->ref;
	void *slot;
	int err;

	while (!(slot = petal_spsc_claim(&leg->to)))
		if (is_over(leg))
			return -EINTR;
	*loan_word(leg, 0) = sequence;
	*loan_word(leg, bytes - sizeof(sequence)) = sequence;
	err = petal_ledger_forward(&leg->ledger, ref, leg->theirs_bit);
	if (err < 0)
		return err;
	memcpy(slot, &ref, sizeof(ref));
	petal_spsc_publish(&leg->to);
	return 0;
}

ALWAYS int loan_receive(struct leg *leg, uint64_t sequence, uint64_t bytes)
{
	const void *slot;
	int err;

	while (!(slot = petal_spsc_peek(&leg->from)))
		if (is_over(leg))
			return -EINTR;
	memcpy(&leg->ref, slot, sizeof(leg->ref));
	/* Both will be written next, and nothing of it depends on accept. */
	__builtin_prefetch(loan_word(leg, 0), 1);
	__builtin_prefetch(loan_word(leg, bytes - sizeof(sequence)), 1);
	err = petal_ledger_accept(&leg->ledger, leg->ref);
	if (err == 0)
		err = petal_ledger_check(&leg->ledger, leg->ref, bytes);
	petal_spsc_release(&leg->from);
	if (err < 0)
		return err;
	return *loan_word(leg, 0) == sequence &&
			       *loan_word(leg, bytes - sizeof(sequence)) ==
				       sequence
		       ? 0
		       : -EBADMSG;
}

/* Futexes. Not private ones: the word is shared between processes. */

ALWAYS int futex_send(struct leg *leg, uint64_t sequence, uint64_t bytes)
{
	struct petal_u32 *ball = (struct petal_u32 *)(void *)leg->out;

	(void)bytes;
	petal_store(ball, (uint32_t)sequence, PETAL_RELEASE(BALL));
	syscall(SYS_futex, ball, FUTEX_WAKE, 1, NULL, NULL, 0);
	return 0;
}

ALWAYS int futex_receive(struct leg *leg, uint64_t sequence, uint64_t bytes)
{
	struct petal_u32 *ball = (struct petal_u32 *)(void *)leg->in;
	struct timespec nap = petal_clock_timespec(NAP_NS);
	bool timed_out;
	uint32_t seen;

	(void)bytes;
	while ((seen = petal_load(ball, PETAL_ACQUIRE(BALL))) !=
	       (uint32_t)sequence) {
		timed_out = syscall(SYS_futex, ball, FUTEX_WAIT, seen, &nap,
				    NULL, 0) != 0 &&
			    errno == ETIMEDOUT;
		if (is_stopped(leg) || (timed_out && is_gone(leg)))
			return -EINTR;
	}
	return 0;
}

/* A party. */

typedef int bounce(struct leg *leg, uint64_t sequence, uint64_t size);

ALWAYS int serve(struct leg *leg, bounce *send, bounce *receive, uint64_t size)
{
	int err = 0;

	petal_store(&leg->court->ready, 1, PETAL_RELAXED);
	for (uint64_t sequence = 1; err == 0; sequence++) {
		err = receive(leg, sequence, size);
		if (err == 0)
			err = send(leg, PETAL_PAYLOAD_ANSWER(sequence), size);
	}
	return err == -EINTR ? 0 : err;
}

ALWAYS int ask(struct leg *leg, bounce *send, bounce *receive, uint64_t size)
{
	uint64_t limit = (uint64_t)((double)leg->leg_ns / ns_per_tick);
	uint64_t sequence = 0;
	uint64_t start, last;
	int err = 0;

	while (petal_load(&leg->court->ready, PETAL_RELAXED) == 0 &&
	       !is_stopped(leg) && !is_gone(leg))
		sched_yield();
	start = ticks();
	last = start;
	while (err == 0 && last - start < limit + limit / 8) {
		uint64_t now;

		err = send(leg, ++sequence, size);
		if (err == 0)
			err = receive(leg, PETAL_PAYLOAD_ANSWER(sequence),
				      size);
		now = ticks();
		/* The first eighth is for warming up. */
		if (leg->histogram && last - start > limit / 8)
			petal_histogram_record(
				leg->histogram,
				(uint64_t)((double)(now - last) * ns_per_tick +
					   0.5));
		last = now;
	}
	return err == -EINTR ? 0 : err;
}

/* A pair of loops for each size: what knows its size fills in a few stores. */
#define PAIR_OF(name, kind, size)                                     \
	static int name##_client(struct leg *leg)                     \
	{                                                             \
		return ask(leg, kind##_send, kind##_receive, size);   \
	}                                                             \
	static int name##_server(struct leg *leg)                     \
	{                                                             \
		return serve(leg, kind##_send, kind##_receive, size); \
	}

PAIR_OF(line1, line, 1)
PAIR_OF(line2, line, 2)
PAIR_OF(lines, line, leg->play->lines)
PAIR_OF(paced1, paced, 1)
PAIR_OF(paced2, paced, 2)
PAIR_OF(ring8, ring, 8)
PAIR_OF(ring64, ring, 64)
PAIR_OF(ring256, ring, 256)
PAIR_OF(ring1k, ring, 1024)
PAIR_OF(ring4k, ring, 4096)
PAIR_OF(place1m, place, LOAN_BYTES)
PAIR_OF(loan1m, loan, LOAN_BYTES)
PAIR_OF(futex, futex, 0)
PAIR_OF(bell8, bell, 8)
PAIR_OF(bell64, bell, 64)

/* A leg. */

static struct petal_spsc_geometry geometry_of(const struct rtt_play *play)
{
	uint64_t bytes = play->bytes && !play->loan ? play->bytes : 8;
	uint64_t slots = RING_BYTES / bytes;

	return (struct petal_spsc_geometry){
		.slot_count = slots < SLOTS_MIN ? SLOTS_MIN : slots,
		.slot_bytes = (uint32_t)bytes,
	};
}

/* Lines and futexes have none. */
static bool has_rings(const struct rtt_play *play)
{
	return !play->floor && !play->lines;
}

/* One way's part of the memory, whole pages, so that no line is shared. */
static uint64_t way_bytes(const struct rtt_play *play)
{
	struct petal_spsc_geometry geometry = geometry_of(play);
	uint64_t bytes = play->lines ? play->lines * LINE_BYTES
				     : petal_spsc_bytes(&geometry);

	return (bytes + 4095) / 4096 * 4096;
}

/* Behind both ways: the ledger, then what it keeps. */

static const struct petal_ledger_geometry ledger_geometry = {
	.range_bytes = LOAN_BYTES,
	.granule_bytes = LOAN_GRANULE_BYTES,
	.entries = 1,
};

static uint64_t ledger_bytes(void)
{
	return (petal_ledger_bytes(&ledger_geometry) + 4095) / 4096 * 4096;
}

static uint8_t *ledger_at(const struct rtt_play *play, void *memory)
{
	return (uint8_t *)memory + MEDIA + 2 * way_bytes(play);
}

/* The client is the owner and holder 0, the server holder 1. */
static int take_loan(struct leg *leg, void *memory, bool server)
{
	uint8_t *ledger = ledger_at(leg->play, memory);
	int err = petal_ledger_attach(ledger, ledger_bytes(), server,
				      &leg->ledger);

	leg->range = ledger + ledger_bytes();
	leg->theirs_bit = server ? 1 : 2;
	if (err < 0 || server)
		return err;
	err = petal_ledger_own(&leg->ledger);
	if (err < 0)
		return err;
	return petal_ledger_lend(&leg->ledger, 0, 0, LOAN_BYTES, &leg->ref);
}

static int take_side(struct leg *leg, void *memory, bool server)
{
	uint64_t bytes = way_bytes(leg->play);
	uint8_t *media = (uint8_t *)memory + MEDIA;
	int err;

	leg->court = memory;
	leg->out = media + (server ? bytes : 0);
	leg->in = media + (server ? 0 : bytes);
	leg->mine = &leg->court->bell[server ? 0 : 1];
	leg->theirs = &leg->court->bell[server ? 1 : 0];
	if (!has_rings(leg->play))
		return 0;
	/* Without it, which is an old kernel, a doorbell costs a fence. */
	err = petal_barrier_enroll();
	if (err < 0 && err != -EOPNOTSUPP)
		return err;
	err = petal_spsc_attach(leg->out, bytes, PETAL_SPSC_PRODUCER, &leg->to);
	if (err < 0)
		return err;
	err = petal_spsc_attach(leg->in, bytes, PETAL_SPSC_CONSUMER,
				&leg->from);
	return err < 0 || !leg->play->loan ? err
					   : take_loan(leg, memory, server);
}

static int set_up(const struct rtt_play *play, void *memory)
{
	struct petal_spsc_geometry geometry = geometry_of(play);
	uint8_t *media = (uint8_t *)memory + MEDIA;
	int err;

	if (!has_rings(play))
		return 0;
	err = petal_spsc_format(media, &geometry);
	if (err < 0)
		return err;
	err = petal_spsc_format(media + way_bytes(play), &geometry);
	if (err < 0 || !play->loan)
		return err;
	return petal_ledger_format(ledger_at(play, memory), &ledger_geometry);
}

/* All that one pair shares. */
static uint64_t court_bytes(const struct rtt_play *play)
{
	return MEDIA + 2 * way_bytes(play) +
	       (play->loan ? ledger_bytes() + LOAN_BYTES : 0);
}

static _Noreturn void run_child(const struct rtt_play *play, void *memory,
				bool server, int cpu, uint64_t leg_ns)
{
	struct leg leg = { .play = play, .leg_ns = leg_ns };
	int err = petal_pair_pin(cpu);

	if (err == 0)
		err = take_side(&leg, memory, server);
	if (err == 0)
		err = server ? play->server(&leg) : play->client(&leg);
	/* Whoever waits for us shall not wait for ever. */
	if (leg.court)
		petal_store(&leg.court->stopped, 1, PETAL_RELAXED);
	_exit(err < 0 ? 1 : 0);
}

static pid_t start_child(const struct rtt_play *play, void *memory, bool server,
			 int cpu, uint64_t leg_ns)
{
	pid_t parent = getpid();
	pid_t child = fork();

	if (child != 0)
		return child < 0 ? -errno : child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* A parent that died before that call cannot send us the signal. */
	if (getppid() != parent)
		_exit(1);
	run_child(play, memory, server, cpu, leg_ns);
}

/* Every server, and every client but the one that is measured. */
static int start_children(const struct petal_contest *contest,
			  const struct rtt_play *play, uint8_t *memory,
			  uint64_t stride, pid_t *children)
{
	int count = 0;

	for (unsigned pair = 0; pair < play->crowd; pair++) {
		void *court = memory + pair * stride;

		for (unsigned side = pair == 0; side < 2; side++) {
			children[count] = start_child(
				play, court, side, contest->cpus[side],
				/* The crowd outlasts who is measured. */
				4 * contest->leg_ns);
			if (children[count] < 0)
				return (int)children[count];
			count++;
		}
	}
	return 0;
}

static int stop_children(const struct rtt_play *play, uint8_t *memory,
			 uint64_t stride, const pid_t *children)
{
	int err = 0;

	for (unsigned pair = 0; pair < play->crowd; pair++) {
		struct court *court = (void *)(memory + pair * stride);

		petal_store(&court->stopped, 1, PETAL_RELAXED);
	}
	for (unsigned i = 0; i < 2 * play->crowd && children[i] > 0; i++) {
		int status;

		waitpid(children[i], &status, 0);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
			err = -EBADMSG;
	}
	return err;
}

static int play_client(const struct rtt_play *play, void *memory, pid_t server,
		       uint64_t leg_ns, struct petal_histogram *histogram)
{
	struct leg leg = {
		.play = play,
		.leg_ns = leg_ns,
		.server = server,
		.histogram = histogram,
	};
	int err = take_side(&leg, memory, false);

	return err < 0 ? err : play->client(&leg);
}

int rtt_run_leg(const struct petal_contest *contest,
		const struct rtt_play *play, uint64_t leg_ns,
		struct petal_histogram *histogram)
{
	uint64_t stride = court_bytes(play);
	uint64_t bytes = stride * play->crowd;
	pid_t children[2 * CROWD] = { 0 };
	uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1,
			       0);
	int stopped;
	int err = 0;

	if (memory == MAP_FAILED)
		return -errno;
	for (unsigned i = 0; i < play->crowd && err == 0; i++)
		err = set_up(play, memory + i * stride);
	if (err == 0)
		err = start_children(contest, play, memory, stride, children);
	if (err == 0)
		err = play_client(play, memory, children[0], leg_ns, histogram);
	stopped = stop_children(play, memory, stride, children);
	munmap(memory, bytes);
	return err < 0 ? err : stopped;
}

/* The table: a floor, and what is compared with it. */

#define FLOOR(name, n)                                                 \
	{                                                              \
		.impl = "line-floor", .remark = #n " lines each way",  \
		.wait = "spin", .floor = true, .lines = n, .crowd = 1, \
		.client = name##_client, .server = name##_server,      \
	}

#define PACED(name, n)                                                   \
	{                                                                \
		.impl = "line-paced",                                    \
		.remark = #n " lines, the clock read between two looks", \
		.wait = "spin", .lines = n, .crowd = 1,                  \
		.client = name##_client, .server = name##_server,        \
	}

#define OURS(name, n, how, pairs, text)                                        \
	{                                                                      \
		.impl = "petal-spsc", .remark = text, .wait = how, .bytes = n, \
		.crowd = pairs, .client = name##_client,                       \
		.server = name##_server,                                       \
	}

#define LOAN(name, n, text)                                                    \
	{                                                                      \
		.impl = "petal-loan", .remark = text, .wait = "spin",          \
		.loan = true, .bytes = n, .crowd = 1, .client = name##_client, \
		.server = name##_server,                                       \
	}

#define FUTEX(pairs)                                            \
	{                                                       \
		.impl = "futex-floor", .remark = "no payload",  \
		.wait = "sleep", .floor = true, .crowd = pairs, \
		.client = futex_client, .server = futex_server, \
	}

const struct rtt_play rtt_plays[][2] = {
	{ FLOOR(line1, 1), PACED(paced1, 1) },
	{ FLOOR(line1, 1), OURS(ring8, 8, "spin", 1, "1 line") },
	{ FLOOR(line2, 2), PACED(paced2, 2) },
	{ FLOOR(line2, 2), OURS(ring64, 64, "spin", 1, "2 lines") },
	{ FLOOR(lines, 5), OURS(ring256, 256, "spin", 1, "5 lines") },
	{ FLOOR(lines, 17), OURS(ring1k, 1024, "spin", 1, "17 lines") },
	{ FLOOR(lines, 65), OURS(ring4k, 4096, "spin", 1, "65 lines") },
	{ FLOOR(line2, 2), OURS(place1m, LOAN_BYTES, "spin", 1,
				"in place; first and last word touched") },
	{ FLOOR(line2, 2), LOAN(loan1m, LOAN_BYTES,
				"by the ledger; first and last word touched") },
	{ FUTEX(1), OURS(bell8, 8, "sleep", 1, "a doorbell each way") },
	{ FUTEX(1), OURS(bell64, 64, "sleep", 1, "a doorbell each way") },
	{ FUTEX(CROWD),
	  OURS(bell64, 64, "sleep", CROWD, "4 pairs at once, one measured") },
};

const size_t rtt_play_count = sizeof(rtt_plays) / sizeof(*rtt_plays);
