/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load - how late a message arrives while others keep coming
 *
 * The question: messages are due at fixed times, at half and at nine tenths of
 * the rate that a transport can take at most. How long after it was due has the
 * receiver read one? A message that could not be sent in time, because the
 * transport was full or the sender late, counts from when it was due, and none
 * is left out: the load does not wait for who is slow (coordinated omission).
 * At the peak nothing is due, so there a message counts from the first try.
 *
 * The happy path: in each round, for each transport, as many messages as it
 * takes (its peak, in this round), then 25 % to 90 % of that, each between two
 * legs of the floor, which is half a bounce of a cache line. A leg ends when
 * its last message has been read.
 *
 * What can go wrong: a receiver finds a wrong payload or dies, which ends its
 * part, is said in its rows and makes the program fail at the end; the floor
 * or the output does, which ends the program at once.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench/duplex.h"
#include "bench/duplex_spsc.h"
#include "bench/median.h"
#include "bench/options.h"
#include "bench/pair.h"
#include "bench/payload.h"
#include "bench/ratios.h"
#include "bench/row.h"
#include "shm/atomic.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "shm/histogram.h"

/* The time when it was due lies in front of the payload. */
#define BYTES_MIN 16u
#define BYTES_MAX (UINT64_C(1) << 16)
#define BYTES 64u

/* Looks in vain after which a side asks whether the other one lives. */
#define LOOKS (1u << 20)

/* A receiver that is this late with the rest of a leg has hung. */
#define PATIENCE_NS PETAL_S(10)

/* How much of its peak a transport is given; 0: all that it takes. */
static const unsigned shares[] = { 0, 25, 50, 75, 90 };
static const char *const questions[] = { "peak", "25%", "50%", "75%", "90%" };

#define SHARES (sizeof(shares) / sizeof(*shares))

/**
 * Between the two sides.
 *
 * Ordering:
 *    [TALLY]  the receiver stores received (release) -> the sender loads it
 *             (acquire): the samples of all messages so far are there. The
 *             sender clears them only while no message is under way.
 */
struct board {
	struct petal_u64 received;
	uint8_t reserved[128 - 8];
	struct petal_histogram samples;
};

/* Of a transport, and of one of its loads. */
struct entry {
	struct petal_histogram *total;
	struct petal_ratios ratios;
	double *rates; /* by round */
	uint64_t messages;
	uint64_t cpu_ns;
};

struct lane {
	struct petal_duplex *duplex;
	bool peer;
	struct petal_pair pair;
	struct board *board;
	uint8_t *message;
	uint64_t sent;
	struct entry entries[SHARES];
	int fault;
};

struct load {
	struct petal_options options;
	uint64_t bytes;
	struct petal_row_sink sink;
	struct petal_pair floor;
	struct petal_histogram *floor_leg;
	struct petal_histogram *floor_total;
	uint32_t ball;
	const char *kernel;
	const char *refusal; /* why nothing is run; NULL: it is */
};

static struct lane lanes[] = {
	{ .duplex = &petal_duplex_spsc },
	{ .duplex = &petal_duplex_unix, .peer = true },
	{ .duplex = &petal_duplex_tcp, .peer = true },
	{ .duplex = &petal_duplex_pipe, .peer = true },
	{ .duplex = &petal_duplex_mq, .peer = true },
};

#define LANES (sizeof(lanes) / sizeof(*lanes))

/* The receiver. */

static int take(struct lane *lane, uint64_t sequence)
{
	const uint8_t *message = lane->message;
	uint64_t due_ns;
	int err = petal_payload_check(message + sizeof(due_ns),
				      lane->duplex->bytes - sizeof(due_ns),
				      sequence);

	if (err < 0)
		return err;
	memcpy(&due_ns, message, sizeof(due_ns));
	/* What is due at no time only warms up. */
	if (due_ns)
		petal_histogram_record(&lane->board->samples,
				       petal_clock_now_ns() - due_ns);
	petal_store(&lane->board->received, sequence, PETAL_RELEASE(TALLY));
	return 0;
}

static int serve(struct petal_pair *pair, void *arg)
{
	struct lane *lane = arg;
	struct petal_duplex *duplex = lane->duplex;
	int err;

	duplex->server = true;
	err = duplex->begin ? duplex->begin(duplex, true) : 0;
	petal_pair_tell(pair, 1);
	for (uint64_t sequence = 1; err == 0; sequence++) {
		while ((err = duplex->receive(duplex, lane->message,
					      duplex->bytes, true)) ==
			       -EAGAIN ||
		       err == -EINTR)
			if (!petal_pair_spinning(pair))
				petal_pair_rest(pair);
		if (err == 0)
			err = take(lane, sequence);
	}
	return err;
}

/* The sender. */

static int send_one(struct lane *lane, uint64_t due_ns)
{
	struct petal_duplex *duplex = lane->duplex;
	unsigned looks = 0;
	int err;

	memcpy(lane->message, &due_ns, sizeof(due_ns));
	petal_payload_fill(lane->message + sizeof(due_ns),
			   duplex->bytes - sizeof(due_ns), ++lane->sent);
	while ((err = duplex->send(duplex, lane->message, duplex->bytes,
				   true)) == -ENOBUFS) {
		int gone = 0;

		if (++looks % LOOKS == 0)
			gone = petal_pair_check(&lane->pair);
		if (gone < 0)
			return gone;
	}
	return err;
}

/* All that is due within @leg_ns, the first eighth only to warm up. */
static int send_leg(struct lane *lane, uint64_t leg_ns, double every_ns)
{
	uint64_t start_ns = petal_clock_now_ns();
	uint64_t due_ns = start_ns;
	int err = 0;

	for (uint64_t i = 0; err == 0 && due_ns - start_ns < leg_ns; i++) {
		uint64_t now_ns = petal_clock_now_ns();

		due_ns = start_ns + (uint64_t)((double)i * every_ns);
		if (every_ns == 0)
			due_ns = now_ns;
		while (now_ns < due_ns)
			now_ns = petal_clock_now_ns();
		err = send_one(lane,
			       due_ns - start_ns < leg_ns / 8 ? 0 : due_ns);
	}
	return err;
}

static int wait_received(struct lane *lane)
{
	uint64_t end_ns = petal_clock_now_ns() + PATIENCE_NS;

	while (petal_load(&lane->board->received, PETAL_ACQUIRE(TALLY)) !=
	       lane->sent) {
		int err = petal_pair_check(&lane->pair);

		if (err < 0)
			return err;
		if (petal_clock_now_ns() > end_ns)
			return -ETIMEDOUT;
	}
	return 0;
}

static int run_leg(struct load *load, struct lane *lane, double every_ns,
		   double *ret_rate)
{
	uint64_t leg_ns = load->options.leg_ns;
	uint64_t before = lane->sent;
	uint64_t start_ns;
	int err;

	petal_histogram_init(&lane->board->samples);
	petal_pair_spin(&lane->pair, true);
	start_ns = petal_clock_now_ns();
	err = send_leg(lane, leg_ns, every_ns);
	if (err == 0)
		err = wait_received(lane);
	*ret_rate = (double)(lane->sent - before) * 1e9 /
		    (double)(petal_clock_now_ns() - start_ns);
	petal_pair_spin(&lane->pair, false);
	if (err < 0) {
		int cause = petal_pair_check(&lane->pair);

		return cause < 0 ? cause : err;
	}
	return lane->board->samples.count > 0 ? 0 : -ETIMEDOUT;
}

/* A round. */

static int run_floor(struct load *load, double *ret_p50_ns)
{
	uint64_t start_ns = petal_clock_now_ns();
	uint64_t last_ns = start_ns;
	int err = 0;

	petal_histogram_init(load->floor_leg);
	petal_pair_spin(&load->floor, true);
	while (err == 0 && last_ns - start_ns < load->options.leg_ns / 4) {
		uint64_t now_ns;

		err = petal_pair_stroke_spinning(&load->floor, ++load->ball);
		now_ns = petal_clock_now_ns();
		petal_histogram_record(load->floor_leg, (now_ns - last_ns) / 2);
		last_ns = now_ns;
	}
	petal_pair_spin(&load->floor, false);
	petal_histogram_merge(load->floor_total, load->floor_leg);
	*ret_p50_ns = (double)petal_histogram_quantile(load->floor_leg,
						       PETAL_HISTOGRAM_P50);
	return err;
}

static int run_entry(struct load *load, struct lane *lane, struct entry *entry,
		     double every_ns)
{
	const struct petal_histogram *samples = &lane->board->samples;
	uint64_t cpu_before_ns, cpu_after_ns;
	uint64_t sent = lane->sent;
	double rate = 0;
	int err = petal_pair_cpu_ns(&lane->pair, &cpu_before_ns);

	if (err == 0)
		err = run_leg(load, lane, every_ns, &rate);
	if (err == 0)
		err = petal_pair_cpu_ns(&lane->pair, &cpu_after_ns);
	if (err < 0)
		return err;
	petal_histogram_merge(entry->total, samples);
	entry->rates[entry->ratios.count] = rate;
	entry->messages += lane->sent - sent;
	entry->cpu_ns += cpu_after_ns - cpu_before_ns;
	return 0;
}

/* The floor's leg after one load is the one before the next. */
static int run_turn(struct load *load, struct lane *lane, double *floor_ns)
{
	double peak = 0;

	for (unsigned i = 0; i < SHARES && lane->fault == 0; i++) {
		struct entry *entry = &lane->entries[i];
		double before_ns = *floor_ns;
		double every_ns = i == 0 ? 0 : 1e9 / (peak * shares[i] / 100);
		unsigned round = entry->ratios.count;
		double p50_ns;
		int err;

		lane->fault = run_entry(load, lane, entry, every_ns);
		p50_ns = (double)petal_histogram_quantile(&lane->board->samples,
							  PETAL_HISTOGRAM_P50);
		err = run_floor(load, floor_ns);
		if (err < 0)
			return err;
		if (lane->fault < 0)
			break;
		if (i == 0)
			peak = entry->rates[round];
		petal_ratios_add(&entry->ratios, p50_ns, before_ns, *floor_ns);
	}
	return 0;
}

static bool is_wanted(const struct load *load, const struct lane *lane)
{
	return petal_options_want(load->options.only, lane->duplex->impl);
}

static int run_rounds(struct load *load)
{
	double floor_ns;
	int err = run_floor(load, &floor_ns);

	for (unsigned round = 0; round < load->options.rounds; round++)
		for (unsigned i = 0; i < LANES && err == 0; i++)
			if (is_wanted(load, &lanes[i]))
				err = run_turn(load, &lanes[i], &floor_ns);
	return err;
}

/* The rows. */

static void row_of(const struct load *load, struct petal_row *row)
{
	petal_row_init(row, "load");
	row->wait = "spin";
	row->version = load->kernel;
}

static int print_floor(struct load *load)
{
	struct petal_row row;

	row_of(load, &row);
	row.impl = "line-floor";
	row.floor = true;
	row.note = load->refusal;
	if (load->refusal)
		return petal_row_print(&load->sink, &row);
	row.floor_ratio = 1;
	row.rounds = load->options.rounds;
	row.note = "half a bounce of a cache line, and half a reading of the "
		   "clock; no payload";
	petal_row_take(&row, load->floor_total);
	return petal_row_print(&load->sink, &row);
}

static void write_note(const struct lane *lane, const struct entry *entry,
		       unsigned share, char *note, size_t size)
{
	size_t used;

	if (share == 0)
		snprintf(note, size,
			 "as many as it takes, each from when it was "
			 "tried");
	else
		snprintf(note, size, "due each 1 / (%u %% of the round's peak)",
			 share);
	used = strlen(note);
	petal_ratios_note(&entry->ratios, true, note + used, size - used);
	used = strlen(note);
	if (lane->duplex->remark)
		snprintf(note + used, size - used, "; %s",
			 lane->duplex->remark);
	used = strlen(note);
	if (lane->fault)
		snprintf(note + used, size - used, "; broke: %s",
			 petal_strerror(lane->fault));
}

static int print_entry(struct load *load, struct lane *lane, unsigned index)
{
	struct entry *entry = &lane->entries[index];
	unsigned rounds = entry->ratios.count;
	struct petal_row row;
	char note[512];

	row_of(load, &row);
	row.question = questions[index];
	row.impl = lane->duplex->impl;
	row.peer = lane->peer;
	row.bytes = load->bytes;
	row.rounds = rounds;
	row.note = note;
	if (rounds == 0) {
		snprintf(note, sizeof(note), "%s%s",
			 load->refusal ? "" : "not run: ",
			 load->refusal ? load->refusal
				       : petal_strerror(lane->fault));
		return petal_row_print(&load->sink, &row);
	}
	write_note(lane, entry, shares[index], note, sizeof(note));
	petal_row_take(&row, entry->total);
	row.msgs_per_s = petal_median(entry->rates, rounds);
	row.cpu_ns_per_msg = (double)entry->cpu_ns / (double)entry->messages;
	row.floor_ratio = petal_ratios_median(&entry->ratios);
	return petal_row_print(&load->sink, &row);
}

/* Never having run is an answer; breaking on the way is not. */
static int print_all(struct load *load, int *ret_fault)
{
	int err = print_floor(load);

	for (unsigned i = 0; i < LANES && err == 0; i++) {
		if (!is_wanted(load, &lanes[i]))
			continue;
		for (unsigned j = 0; j < SHARES && err == 0; j++)
			err = print_entry(load, &lanes[i], j);
		if (lanes[i].sent > 0 && *ret_fault == 0)
			*ret_fault = lanes[i].fault;
	}
	return err;
}

/* Setting up and tearing down. */

static int entry_init(struct entry *entry, unsigned rounds)
{
	int err = petal_ratios_init(&entry->ratios, rounds);

	entry->total = malloc(sizeof(*entry->total));
	entry->rates = calloc(rounds, sizeof(*entry->rates));
	if (err < 0 || !entry->total || !entry->rates)
		return -ENOMEM;
	petal_histogram_init(entry->total);
	return 0;
}

static int lane_open(const struct load *load, struct lane *lane)
{
	struct petal_duplex *duplex = lane->duplex;
	void *board = mmap(NULL, sizeof(*lane->board), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint32_t told;
	int err = 0;

	if (board == MAP_FAILED)
		return -errno;
	lane->board = board;
	lane->message = malloc(load->bytes);
	for (unsigned i = 0; i < SHARES && err == 0; i++)
		err = entry_init(&lane->entries[i], load->options.rounds);
	if (err < 0 || !lane->message)
		return -ENOMEM;
	duplex->bytes = load->bytes;
	if (duplex->bytes_max && duplex->bytes > duplex->bytes_max)
		return -EMSGSIZE;
	snprintf(duplex->address, sizeof(duplex->address), "petal-load-%ld-%s",
		 (long)getpid(), duplex->impl);
	if (duplex->prepare)
		err = duplex->prepare(duplex);
	if (err == 0)
		err = petal_pair_open(&lane->pair, load->options.cpus[1], serve,
				      lane);
	if (err == 0)
		err = petal_pair_hear(&lane->pair, PATIENCE_NS, &told);
	if (err == 0 && duplex->begin)
		err = duplex->begin(duplex, false);
	return err;
}

static void lane_close(struct lane *lane)
{
	petal_pair_close(&lane->pair);
	if (lane->duplex->end && lane->duplex->bytes)
		lane->duplex->end(lane->duplex);
	for (unsigned i = 0; i < SHARES; i++) {
		petal_ratios_fini(&lane->entries[i].ratios);
		free(lane->entries[i].total);
		free(lane->entries[i].rates);
	}
	free(lane->message);
	if (lane->board)
		munmap(lane->board, sizeof(*lane->board));
}

static int open_load(struct load *load)
{
	int err;

	load->floor_leg = malloc(sizeof(*load->floor_leg));
	load->floor_total = malloc(sizeof(*load->floor_total));
	if (!load->floor_leg || !load->floor_total)
		return -ENOMEM;
	petal_histogram_init(load->floor_total);
	err = petal_pair_open(&load->floor, load->options.cpus[1],
			      petal_pair_return_spinning, NULL);
	for (unsigned i = 0; i < LANES && err == 0; i++)
		if (is_wanted(load, &lanes[i]))
			lanes[i].fault = lane_open(load, &lanes[i]);
	return err == 0 ? petal_pair_pin(load->options.cpus[0]) : err;
}

static void close_load(struct load *load)
{
	for (unsigned i = 0; i < LANES; i++)
		lane_close(&lanes[i]);
	petal_pair_close(&load->floor);
	free(load->floor_leg);
	free(load->floor_total);
}

static const char *refusal_of(const struct petal_options *options)
{
	if (!options->spin)
		return "not run: both sides spin here";
	if (options->cpus[0] == options->cpus[1] && !options->crowd)
		return "not run: a spinning pair on one cpu measures the "
		       "scheduler (--one-cpu runs it)";
	return NULL;
}

static int run(struct load *load)
{
	int fault = 0;
	/* Before the pinning, for it counts the CPUs that we may use. */
	int err = petal_row_machine_print(&load->sink);

	load->refusal = refusal_of(&load->options);
	if (err == 0 && !load->refusal)
		err = open_load(load);
	if (err == 0 && !load->refusal)
		err = run_rounds(load);
	if (err == 0)
		err = print_all(load, &fault);
	close_load(load);
	return err < 0 ? err : fault;
}

int main(int argc, char **argv)
{
	static const struct petal_options_form form = {
		.bytes_max = BYTES_MAX,
		.bytes_help = "of a message, 16 to 65536; 64",
		.places = true,
	};
	struct load load = { .bytes = BYTES };
	struct utsname name;
	char kernel[128];
	int err = petal_options_parse(&form, argc, argv, &load.options);

	if (err != 0)
		return err > 0 ? 0 : 2;
	if (load.options.bytes)
		load.bytes = load.options.bytes;
	if (load.bytes < BYTES_MIN) {
		fprintf(stderr, "load: a message has %u bytes at least\n",
			BYTES_MIN);
		return 2;
	}
	uname(&name);
	snprintf(kernel, sizeof(kernel), "Linux %.100s", name.release);
	load.kernel = kernel;
	load.sink = (struct petal_row_sink){ stdout, load.options.json, false };
	/* A receiver that died is an error of the call. */
	signal(SIGPIPE, SIG_IGN);
	err = run(&load);
	if (err < 0)
		fprintf(stderr, "load: %s\n", petal_strerror(err));
	return err < 0 ? 1 : 0;
}
