/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hostile --kind NAME --mode mutate|liar|flip|punch [--calls N] [--seed S]
 *         [--from CASE]
 *
 * Works beside a peer that does what it likes with the shared memory, and
 * prints one line of JSON. A case is a fresh subject and a number of calls; it
 * is wholly given by kind, mode, seed and number, but for flip and punch, where
 * the peer is another process. Cases are run in a child, so that a crash is
 * counted, with the number of the case, and the next one is run.
 */
#include "tests/fuzz/private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/segment.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(base, bytes) ASAN_POISON_MEMORY_REGION(base, bytes)
#else
#define POISON(base, bytes) ((void)(base), (void)(bytes))
#endif

#define CALLS_PER_CASE 24u /* or 4, or 16 times as many */
#define VISIT_NS UINT64_C(1000000)
#define EVENT_NS 150u /* what the fuzzer itself takes for a change */
#define REPLAYS 5
#define TOLD_MAX 5u /* failures told with all that the sanitizer says */
#define FAILED_MAX 50u
#define PEER_PERIOD 64u   /* cases between two subjects beside a live peer */
#define FIELDS_PERIOD 64u /* cases until another shape has its turn */
#define FRESH_PERIOD 32u  /* cases until it is made anew beside one */
#define VARIANTS_MAX 256u
#define PROCESSOR_S 20

/* Between us, the child that works, and the peer. */
struct status {
	uint64_t number; /* of the case that runs */
	uint64_t calls;
	uint64_t refused;
	uint64_t failed;
	uint64_t slow;
	uint64_t accesses_most;
	uint64_t told;
	uint64_t fields;
	bool done;
	volatile int peer_may;   /* 1: write, 0: do not, -1: end */
	volatile int peer_works; /* it may be writing */
	volatile uint64_t peer_writes;
	volatile uint64_t truncated;
};

struct options {
	const struct fuzz_subject *subject;
	enum fuzz_mode mode;
	uint64_t calls;
	uint64_t seed;
	uint64_t from;
};

static const struct fuzz_subject *const subjects[] = {
	&fuzz_spsc,   &fuzz_pipe,     &fuzz_mpsc,      &fuzz_mpmc,
	&fuzz_bcast,  &fuzz_ledger,   &fuzz_extent,    &fuzz_counters,
	&fuzz_record, &fuzz_doorbell, &fuzz_histogram,
};

static const char *const mode_names[] = { "mutate", "liar", "flip", "punch" };

static struct options options;
static struct status *status;
static struct petal_segment segment = { .fd = -1 };
static struct fuzz_region memory[VARIANTS_MAX][FUZZ_REGIONS];

static __attribute__((noreturn)) void give_up(const char *what)
{
	fprintf(stderr, "hostile: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* ---- memory ---- */

static uint64_t pages_of(uint64_t bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

static uint64_t lines_of(uint64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

/* The end of a region lies at a page that nobody may touch. */
static uint8_t *guarded(uint64_t bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t inner = pages_of(bytes);
	uint8_t *base = mmap(NULL, inner + 2 * page, PROT_NONE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (base == MAP_FAILED)
		give_up("mmap");
	if (mprotect(base + page, inner, PROT_READ | PROT_WRITE))
		give_up("mprotect");
	POISON(base + page, inner - lines_of(bytes));
	POISON(base + page + inner - lines_of(bytes) + bytes,
	       lines_of(bytes) - bytes);
	return base + page + inner - lines_of(bytes);
}

static void place(uint32_t variant)
{
	uint64_t bytes[FUZZ_REGIONS];

	options.subject->sizes(variant, bytes);
	for (unsigned i = 0; i < FUZZ_REGIONS; i++) {
		memory[variant][i].bytes = bytes[i];
		if (bytes[i])
			memory[variant][i].base = guarded(bytes[i]);
	}
}

/* In a segment, of which the peer has the descriptor. */
static void place_in_segment(uint32_t variant)
{
	struct petal_segment_options wanted = { .name = "hostile" };
	uint64_t bytes[FUZZ_REGIONS];

	options.subject->sizes(variant, bytes);
	if (segment.fd >= 0)
		petal_segment_close(&segment);
	wanted.body_bytes = pages_of(bytes[0]) + lines_of(bytes[1]);
	if (petal_segment_open(&wanted, &segment))
		give_up("segment");
	for (unsigned i = 0; i < FUZZ_REGIONS; i++) {
		memory[variant][i].bytes = bytes[i];
		memory[variant][i].base = (uint8_t *)segment.base +
					  segment.header_bytes +
					  (i ? pages_of(bytes[0]) : 0);
	}
}

/* ---- the peer that is a process ---- */

static void peer_flip(uint32_t variant)
{
	for (unsigned i = 0; i < 64; i++) {
		const struct fuzz_region *region =
			&memory[variant][fuzz_random(FUZZ_REGIONS)];
		volatile uint64_t *word;

		if (region->bytes == 0)
			continue;
		word = (volatile void *)(region->base +
					 8 * fuzz_random(region->bytes / 8));
		*word = fuzz_lie(*word);
	}
	status->peer_writes += 64;
}

static void peer_punch(void)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t pages = segment.total_bytes / page - 1;
	off_t at = (off_t)(page * (1 + fuzz_random(pages)));

	if (ftruncate(segment.fd, at) == 0 || errno != EPERM)
		status->truncated++;
	if (fallocate(segment.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      at, (off_t)page) == 0)
		status->peer_writes++;
}

/* Together 20 s. */
#define PEER_LOOKS 20000u
#define PEER_LOOK_US 1000u

static pid_t peer_begin(uint32_t variant)
{
	pid_t pid = fork();

	if (pid < 0)
		give_up("fork");
	if (pid > 0)
		return pid;
	for (;;) {
		int may = status->peer_may;

		if (may < 0 || getppid() == 1)
			_exit(0);
		status->peer_works = may;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (may && status->peer_may > 0) {
			if (options.mode == FUZZ_FLIP)
				peer_flip(variant);
			else
				peer_punch();
		} else {
			status->peer_works = 0;
			sched_yield();
		}
	}
}

/*
 * A peer that may write is waited for until it has written once in its life: a
 * kind with few calls would otherwise be through before a busy machine has run
 * the peer at all. It is our child, so it comes to run.
 */
static void peer_set(int may)
{
	status->peer_may = may;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	while (!may && status->peer_works)
		sched_yield();
	for (unsigned i = 0; may > 0 && status->peer_writes == 0; i++) {
		if (i == PEER_LOOKS)
			give_up("the peer does not run");
		usleep(PEER_LOOK_US);
	}
}

/* ---- a case ---- */

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void make(uint32_t variant)
{
	fuzz_call.regions = memory[variant];
	for (unsigned i = 0; i < FUZZ_REGIONS; i++)
		if (memory[variant][i].bytes)
			memset(memory[variant][i].base, 0,
			       memory[variant][i].bytes);
	options.subject->make(memory[variant], variant);
}

/* The longest call of a case, by a clock; UINT64_MAX if it failed. */
static uint64_t calls(clockid_t clock)
{
	unsigned count = CALLS_PER_CASE;
	uint64_t longest = 0;

	/* Some bugs show only when the ring has come round. */
	if (options.mode == FUZZ_MUTATE)
		count <<= 2 * fuzz_random(3);
	for (volatile unsigned i = 0; i < count; i++) {
		uint64_t begin = now_ns(clock), took, own;

		fuzz_begin();
		options.subject->step();
		took = fuzz_end();
		if (took > status->accesses_most)
			status->accesses_most = took;
		took = now_ns(clock) - begin;
		own = fuzz_call.events * EVENT_NS;
		took = took > own ? took - own : 0;
		longest = took > longest ? took : longest;
		status->calls++;
		if (fuzz_call.lie && !fuzz_call.lie_stays && i == 0)
			memcpy(fuzz_call.lie->region.base, &fuzz_call.lie_value,
			       fuzz_call.lie->region.bytes);
	}
	return longest;
}

static uint64_t try_case(uint32_t variant, clockid_t clock, bool fresh)
{
	uint64_t longest;

	fuzz_call.failure = NULL;
	if (setjmp(fuzz_call.stop)) {
		fuzz_end();
		return UINT64_MAX;
	}
	if (fresh)
		make(variant);
	if (fresh && options.mode >= FUZZ_FLIP)
		peer_set(1);
	longest = calls(clock);
	return longest;
}

static void tell(const char *what)
{
	status->failed++;
	if (status->told++ < TOLD_MAX)
		fprintf(stderr,
			"hostile: %s: again: --kind %s --mode %s --seed %" PRIu64
			" --from %" PRIu64 " --calls 1\n",
			what, options.subject->name, mode_names[options.mode],
			options.seed, status->number);
}

/* ---- the liar: which word, which value ---- */

static unsigned field_count;
static const struct fuzz_field *fields;
static uint32_t fields_variant = UINT32_MAX;

/* All words that honest calls access are fields. */
static void find_fields(uint32_t variant)
{
	if (fields_variant == variant)
		return;
	fields_variant = variant;
	fuzz_call.lie = NULL;
	fuzz_call.recording = true;
	fuzz_forget();
	fuzz_seed(options.seed, variant);
	if (!setjmp(fuzz_call.stop)) {
		make(variant);
		for (unsigned i = 0; i < 40 * CALLS_PER_CASE; i++) {
			fuzz_begin();
			options.subject->step();
			fuzz_end();
		}
	} else {
		tell(fuzz_call.failure);
	}
	fuzz_call.recording = false;
	field_count = fuzz_fields(&fields);
	if (field_count > status->fields)
		status->fields = field_count;
}

/* A variant at a time: its fields, their values, once and for ever. */
static bool set_lie(uint64_t number)
{
	unsigned index = (unsigned)(number / 2 % FUZZ_LIES);
	uint64_t field = number / 2 / FUZZ_LIES;

	if (field >= field_count)
		return false;
	fuzz_call.lie = &fields[field];
	fuzz_call.lie_value = fuzz_lie_at(fields[field].honest, index);
	fuzz_call.lie_stays = number % 2;
	return true;
}

/* ---- cases, in the child ---- */

static void run_case(uint32_t variant, bool fresh)
{
	clockid_t clock = options.mode >= FUZZ_FLIP ? CLOCK_THREAD_CPUTIME_ID
						    : CLOCK_MONOTONIC;
	uint64_t longest, refused = fuzz_refusals;

	fuzz_seed(options.seed, status->number);
	longest = try_case(variant, clock, fresh);
	status->refused += fuzz_refusals - refused;
	/* Too long by a clock that runs while we do not: again, by our own. */
	for (int i = 0; i < REPLAYS && options.mode < FUZZ_FLIP &&
			longest > VISIT_NS && longest != UINT64_MAX;
	     i++) {
		uint64_t before = status->calls;

		fuzz_seed(options.seed, status->number);
		longest = try_case(variant, CLOCK_THREAD_CPUTIME_ID, fresh);
		status->calls = before;
	}
	if (longest == UINT64_MAX)
		tell(fuzz_call.failure);
	else if (longest > VISIT_NS && options.mode < FUZZ_FLIP)
		tell("a call takes more than 1 ms");
	else if (longest > VISIT_NS)
		status->slow++;
}

static void too_long(int number)
{
	static const char text[] = "hostile: a call does not come back\n";

	(void)number;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(4);
	_exit(3);
}

static void watch(void)
{
	struct itimerval limit = { .it_value = { .tv_sec = PROCESSOR_S } };

	if (status->number % 64 == 0)
		setitimer(ITIMER_PROF, &limit, NULL);
}

static void beside_a_process(void)
{
	pid_t peer = 0;

	for (; status->calls < options.calls; status->number++) {
		uint32_t variant = (uint32_t)(status->number / PEER_PERIOD %
					      options.subject->variants);
		bool fresh = status->number % FRESH_PERIOD == 0;

		watch();
		if (!peer || status->number % PEER_PERIOD == 0) {
			peer_set(-1);
			if (peer)
				waitpid(peer, NULL, 0);
			status->peer_may = 0;
			status->peer_works = 0;
			if (options.mode == FUZZ_PUNCH)
				place_in_segment(variant);
			fresh = true;
			/* The peer, too, takes its lies from there. */
			fuzz_call.regions = memory[variant];
			peer = peer_begin(variant);
		}
		if (fresh)
			peer_set(0);
		run_case(variant, fresh);
	}
	peer_set(-1);
	waitpid(peer, NULL, 0);
}

static void alone(void)
{
	uint64_t variants = options.subject->variants;

	for (; status->calls < options.calls; status->number++) {
		uint32_t variant =
			(uint32_t)(status->number / FIELDS_PERIOD % variants);

		watch();
		if (options.mode == FUZZ_LIAR) {
			/* A few shapes, so that all of their fields have turns. */
			variant = (uint32_t)((options.seed * 7) % variants);
			find_fields(variant);
			if (!set_lie(status->number))
				break;
		} else {
			find_fields(variant);
		}
		run_case(variant, true);
	}
}

static int work(void)
{
	signal(SIGPROF, too_long);
	fuzz_call.subject = options.subject;
	fuzz_call.mode = options.mode;
	if (options.mode >= FUZZ_FLIP)
		beside_a_process();
	else
		alone();
	status->done = true;
	return 0;
}

/* A descriptor that its sender can still truncate is refused. */
static void refuse_unsealed(void)
{
	struct petal_segment got;
	int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint64_t bytes = segment.total_bytes;

	if (fd < 0 || ftruncate(fd, (off_t)bytes) ||
	    pwrite(fd, segment.base, bytes, 0) != (ssize_t)bytes)
		give_up("memfd");
	if (petal_segment_attach(fd, true, &got) != -EPERM)
		tell("an unsealed segment is attached");
	close(fd);
}

static void run(void)
{
	while (!status->done && status->failed < FAILED_MAX) {
		int outcome = 0;
		pid_t pid = fork();

		if (pid < 0)
			give_up("fork");
		if (pid == 0) {
			if (status->told >= TOLD_MAX &&
			    !freopen("/dev/null", "w", stderr))
				_exit(4);
			_exit(work());
		}
		while (waitpid(pid, &outcome, 0) < 0 && errno == EINTR)
			;
		if (status->done)
			break;
		tell("crash");
		/* A peer whose other side has crashed goes by itself. */
		status->peer_may = -1;
		status->number++;
	}
}

static void parse(int argc, char **argv)
{
	options = (struct options){ .calls = 100000, .seed = 1 };
	for (int i = 1; i + 1 < argc; i += 2) {
		const char *value = argv[i + 1];

		if (!strcmp(argv[i], "--kind")) {
			for (unsigned n = 0;
			     n < sizeof(subjects) / sizeof(subjects[0]); n++)
				if (!strcmp(value, subjects[n]->name))
					options.subject = subjects[n];
		} else if (!strcmp(argv[i], "--mode")) {
			for (int n = FUZZ_MUTATE; n <= FUZZ_PUNCH; n++)
				if (!strcmp(value, mode_names[n]))
					options.mode = (enum fuzz_mode)n;
		} else if (!strcmp(argv[i], "--calls")) {
			options.calls = strtoull(value, NULL, 0);
		} else if (!strcmp(argv[i], "--seed")) {
			options.seed = strtoull(value, NULL, 0);
		} else if (!strcmp(argv[i], "--from")) {
			options.from = strtoull(value, NULL, 0);
		}
	}
	if (!options.subject) {
		fprintf(stderr, "hostile: which --kind?\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	status = mmap(NULL, sizeof(*status), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (status == MAP_FAILED)
		give_up("mmap");
	status->number = options.from;
	if (options.mode == FUZZ_PUNCH)
		place_in_segment(0);
	for (uint32_t i = 0; i < options.subject->variants; i++)
		if (options.mode != FUZZ_PUNCH)
			place(i);
	run();
	if (options.mode == FUZZ_PUNCH) {
		refuse_unsealed();
		if (status->truncated)
			tell("a segment was truncated");
	}
	if (options.mode >= FUZZ_FLIP && status->peer_writes == 0)
		tell("the peer did nothing");
	printf("{\"tried\": %" PRIu64 ", \"failed\": %" PRIu64
	       ", \"refused\": %" PRIu64 ", \"cases\": %" PRIu64
	       ", \"fields\": %" PRIu64 ", \"peer_writes\": %" PRIu64
	       ", \"slow\": %" PRIu64 ", \"accesses_most\": %" PRIu64 "}\n",
	       status->calls, status->failed, status->refused,
	       status->number - options.from, status->fields,
	       status->peer_writes, status->slow, status->accesses_most);
	return status->failed != 0;
}
