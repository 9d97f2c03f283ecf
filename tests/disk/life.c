/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/disk/life.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/error.h"

enum {
	CLUSTER = 0x51,
	NODE = 7,
	FAIL_SHARE = 12,
	DETACH_SHARE = 40,
};

/* One for all lives: the recorder copies what is submitted. */
static uint8_t area[LIFE_DATA_BYTES] __attribute__((aligned(4096)));

/*
 * Chance and bytes.
 */

static uint64_t random_state;

static uint64_t mix(uint64_t x)
{
	/* The finalizer of splitmix64. */
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

void chance_seed(uint64_t seed)
{
	random_state = mix(seed + 1);
}

uint64_t chance(uint64_t below)
{
	random_state += UINT64_C(0x9e3779b97f4a7c15);
	return mix(random_state) % below;
}

static uint64_t word_of(const struct life_batch *batch, uint64_t pos)
{
	return mix(batch->range.ring * 0x10001 + pos / 8 +
		   ((uint64_t)batch->version << 40));
}

static uint8_t byte_of(const struct life_batch *batch, uint64_t pos)
{
	return (uint8_t)(word_of(batch, pos) >> (pos % 8 * 8));
}

static void area_fill(const struct life_batch *batch)
{
	for (uint64_t pos = batch->range.from_pos; pos < batch->range.to_pos;
	     pos++)
		area[pos & (LIFE_DATA_BYTES - 1)] = byte_of(batch, pos);
}

static bool bytes_right(const struct life_batch *batch, const uint8_t *bytes)
{
	uint64_t pos = batch->range.from_pos;
	uint64_t word;

	for (; pos < batch->range.to_pos && pos % 8; pos++) {
		if (*bytes++ != byte_of(batch, pos))
			return false;
	}
	for (; pos + 8 <= batch->range.to_pos; pos += 8, bytes += 8) {
		memcpy(&word, bytes, 8);
		if (word != word_of(batch, pos))
			return false;
	}
	for (; pos < batch->range.to_pos; pos++) {
		if (*bytes++ != byte_of(batch, pos))
			return false;
	}
	return true;
}

/*
 * The file.
 */

void life_make(struct life *life, const char *dir)
{
	int fd, err;

	snprintf(life->path, sizeof(life->path), "%s", dir);
	life->options = (struct petal_journal_options){
		.dir = life->path,
		.bytes = LIFE_BYTES,
		.node = NODE,
	};
	memset(life->options.cluster, CLUSTER, sizeof(life->options.cluster));
	recorder_watch = (struct recorder_watch){ 0 };
	err = petal_journal_open(&life->options, &life->journal);
	if (err) {
		fprintf(stderr, "no journal in %s: %s\n", dir,
			petal_error_name(err));
		exit(2);
	}
	fd = life->journal->fd;
	life->map = mmap(NULL, LIFE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			 fd, 0);
	life->chain = calloc(LIFE_BATCHES_MAX, sizeof(*life->chain));
	if (life->map == MAP_FAILED || !life->chain)
		abort();
	petal_journal_close(life->journal);
	life->journal = NULL;
	life->platter =
		(struct platter){ .map = life->map, .bytes = LIFE_BYTES };
}

void life_reset(struct life *life)
{
	memset(life->map + AREA_OFFSET, 0, LIFE_BYTES - AREA_OFFSET);
	life->count = 0;
	life->acked = 0;
	life->version = 0;
	life->frozen = false;
	for (unsigned int i = 0; i < LIFE_RINGS; i++)
		life->rings[i] = (struct life_ring){
			.id = UINT64_C(1000000007) * (i + 1),
			.lsn = 1,
			.epoch = 1,
		};
}

void life_style_random(struct life_style *style)
{
	static const struct life_style kinds[] = {
		/* Records of one block and less. */
		{ .length_min = 1, .length_max = 59, .length_unit = 64 },
		/* Odd lengths, ragged at both ends. */
		{ .length_min = 1, .length_max = 9000, .length_unit = 1 },
		/* All alike, so that a lap lies exactly over the last one. */
		{ .length_min = 30, .length_max = 30, .length_unit = 64 },
		{ .length_min = 7, .length_max = 7, .length_unit = 1000 },
		/* Long ones, of which few fill the file. */
		{ .length_min = 1, .length_max = 12, .length_unit = 10000 },
	};

	*style = kinds[chance(sizeof(kinds) / sizeof(kinds[0]))];
	style->rings = 1 + (unsigned int)chance(LIFE_RINGS);
	style->flying_max = 1 + (unsigned int)chance(3);
	/* Now and then, or when the file is full. */
	style->trim_share = chance(3) ? 2 + (unsigned int)chance(6) : 1000;
	style->detaches = chance(4) == 0;
	style->fails = chance(4) == 0;
}

/*
 * What comes back.
 */

static bool range_equal(const struct petal_journal_range *a,
			const struct petal_journal_range *b)
{
	return a->ring == b->ring && a->from_pos == b->from_pos &&
	       a->to_pos == b->to_pos && a->from_lsn == b->from_lsn &&
	       a->to_lsn == b->to_lsn && a->trim_pos == b->trim_pos &&
	       a->epoch == b->epoch && a->data_bytes == b->data_bytes;
}

static unsigned int skip_notes(const struct life *life, unsigned int at)
{
	while (at < life->count && life->chain[at].note)
		at++;
	return at;
}

/* What is visited must be the chain from somewhere on, without a gap. */
static int visit(void *arg, const struct petal_journal_range *range,
		 const void *bytes)
{
	struct life *life = arg;
	unsigned int at = life->next;

	if (!life->visited) {
		while (at < life->count &&
		       (life->chain[at].note ||
			!range_equal(&life->chain[at].range, range)))
			at++;
		life->first = at;
	}
	if (at >= life->count || !range_equal(&life->chain[at].range, range)) {
		life->wrong = life->visited
				      ? "a batch that does not follow"
				      : "a batch that nobody has appended";
		return -ECANCELED;
	}
	if (!bytes_right(&life->chain[at], bytes)) {
		life->wrong = "other bytes than were appended";
		return -ECANCELED;
	}
	life->visited++;
	life->next = skip_notes(life, at + 1);
	return 0;
}

/* All that is acknowledged and not given up must be among it. */
static const char *replay_judge(const struct life *life)
{
	for (unsigned int i = 0; i < life->acked; i++) {
		if (life->chain[i].note || life->chain[i].freed)
			continue;
		if (!life->visited || i < life->first)
			return "acknowledged, and missing at the start";
		if (i >= life->next)
			return "acknowledged, and missing at the end";
	}
	return NULL;
}

static void watch_submitted(void *arg, const struct recorder_write *write);
static void watch_landed(void *arg, const struct recorder_write *write);

static const char *open_and_replay(struct life *life, int *ret_err)
{
	*ret_err = petal_journal_open(&life->options, &life->journal);
	if (*ret_err)
		return "the journal cannot be opened";
	*ret_err = petal_journal_replay(life->journal, visit, life);
	if (life->wrong)
		return life->wrong;
	if (*ret_err == -PETAL_ECORRUPT)
		return "a crash is called damage";
	if (*ret_err)
		return "replay has failed";
	return replay_judge(life);
}

const char *life_open(struct life *life, int *ret_err)
{
	struct platter *before = platter_turn(&life->platter);
	const char *why;

	recorder_watch = (struct recorder_watch){
		.submitted = watch_submitted,
		.landed = watch_landed,
		.map = life->map,
		.arg = life,
	};
	life->first = life->visited = 0;
	life->next = skip_notes(life, 0);
	life->wrong = NULL;
	life->frozen = false;
	life->journal = NULL;
	why = open_and_replay(life, ret_err);
	platter_turn(before);
	return why;
}

static struct life_ring *ring_by_id(struct life *life, uint64_t id)
{
	for (unsigned int i = 0; i < LIFE_RINGS; i++) {
		if (life->rings[i].id == id)
			return &life->rings[i];
	}
	abort();
}

/* The end of what was visited is now the end of the chain. */
static unsigned int chain_cut(struct life *life, struct life_batch *dropped,
			      unsigned int dropped_max)
{
	unsigned int end = life->visited ? life->next : 0;
	unsigned int count = 0;

	/* If nothing came back, what is given up is before what is gone. */
	while (!life->visited && end < life->acked)
		end++;
	for (unsigned int i = end; i < life->count; i++) {
		struct life_batch *batch = &life->chain[i];
		struct life_ring *ring;

		if (batch->note)
			continue;
		ring = ring_by_id(life, batch->range.ring);
		if (batch->range.from_pos < ring->pos &&
		    batch->range.epoch == ring->epoch)
			ring->pos = batch->range.from_pos;
		if (count < dropped_max)
			dropped[count++] = *batch;
	}
	life->count = end;
	life->acked = end;
	return count;
}

void life_go_on(struct life *life, struct life_batch *ret_dropped,
		unsigned int dropped_max, unsigned int *ret_dropped_count)
{
	*ret_dropped_count = chain_cut(life, ret_dropped, dropped_max);
	/* A new try may carry other bytes in the same place. */
	life->version++;
	for (unsigned int i = 0; i < life->style.rings; i++) {
		struct life_ring *ring = &life->rings[i];

		ring->busy = false;
		ring->lsn += 1000;
		ring->version = life->version;
		petal_journal_attach(life->journal, ring->id, area,
				     LIFE_DATA_BYTES);
		petal_journal_trim(life->journal, ring->id, ring->trimmed);
	}
}

/*
 * Acts.
 */

static void watch_submitted(void *arg, const struct recorder_write *write)
{
	struct life *life = arg;
	struct journal_header header;
	struct life_batch *batch = &life->chain[life->count];

	memcpy(&header, write->bytes, sizeof(header));
	*batch = header.flags & HEADER_NOTE
			 ? (struct life_batch){ .note = true, .freed = true }
			 : life->pending;
	batch->sequence = header.sequence;
	batch->offset = write->offset;
	batch->bytes = write->length;
	batch->durable_upto = header.durable_upto;
	batch->oldest_needed = header.oldest_needed;
	if (++life->count == LIFE_BATCHES_MAX)
		abort();
	if (life->submitted)
		life->submitted(life);
}

static void watch_landed(void *arg, const struct recorder_write *write)
{
	struct life *life = arg;

	if (life->landed)
		life->landed(life, write->offset, write->length);
}

static int pending_append(struct life *life, struct life_ring *ring)
{
	struct life_ring before = *ring;
	int err;

	area_fill(&life->pending);
	/* First, for the power may be cut as soon as the write is seen. */
	ring->busy = true;
	ring->pos = life->pending.range.to_pos;
	ring->lsn = life->pending.range.to_lsn + 1;
	err = petal_journal_append(life->journal, &life->pending.range);
	if (err)
		*ring = before;
	return err;
}

int life_append(struct life *life, struct life_ring *ring, uint64_t length)
{
	life->pending = (struct life_batch){
		.range = { .ring = ring->id,
			   .from_pos = ring->pos,
			   .to_pos = ring->pos + length,
			   .from_lsn = ring->lsn,
			   .to_lsn = ring->lsn + 3,
			   .trim_pos = ring->trimmed,
			   .data_bytes = LIFE_DATA_BYTES,
			   .epoch = ring->epoch },
		.version = ring->version,
	};
	return pending_append(life, ring);
}

int life_retry(struct life *life, const struct life_batch *batch)
{
	struct life_ring *ring = ring_by_id(life, batch->range.ring);

	if (batch->range.from_pos != ring->pos ||
	    batch->range.epoch != ring->epoch)
		return -EINVAL;
	life->pending = *batch;
	life->pending.freed = false;
	return pending_append(life, ring);
}

static void acked_advance(struct life *life, const struct life_ring *ring,
			  uint64_t to_pos)
{
	unsigned int at = skip_notes(life, life->acked);
	const struct life_batch *batch = &life->chain[at];

	if (at == life->count || batch->range.ring != ring->id ||
	    batch->range.to_pos != to_pos) {
		fprintf(stderr, "reported out of order\n");
		abort();
	}
	life->acked = at + 1;
}

void life_poll(struct life *life)
{
	struct petal_journal_done done[PETAL_JOURNAL_INFLIGHT_MAX];
	unsigned int before = life->acked;
	int count = petal_journal_poll(life->journal, done,
				       PETAL_JOURNAL_INFLIGHT_MAX);

	for (int i = 0; i < count; i++) {
		struct life_ring *ring = ring_by_id(life, done[i].ring);

		ring->busy = false;
		if (done[i].status) {
			life->frozen = true;
			continue;
		}
		if (life->frozen) {
			fprintf(stderr, "acknowledged after a failure\n");
			abort();
		}
		acked_advance(life, ring, done[i].to_pos);
	}
	if (life->acked != before && life->acknowledged)
		life->acknowledged(life);
}

static void chain_free(struct life *life, const struct life_ring *ring,
		       uint64_t pos)
{
	for (unsigned int i = 0; i < life->count; i++) {
		struct life_batch *batch = &life->chain[i];

		if (!batch->note && batch->range.ring == ring->id &&
		    batch->range.to_pos <= pos)
			batch->freed = true;
	}
}

/* What is acknowledged of a ring may be given up. */
static void trim(struct life *life, struct life_ring *ring)
{
	uint64_t pos = ring->trimmed;

	for (unsigned int i = 0; i < life->acked; i++) {
		const struct life_batch *batch = &life->chain[i];

		if (batch->note || batch->range.ring != ring->id ||
		    batch->range.epoch != ring->epoch ||
		    batch->range.to_pos <= pos)
			continue;
		pos = batch->range.to_pos;
		if (chance(8) == 0)
			break;
	}
	ring->trimmed = pos;
	chain_free(life, ring, pos);
	petal_journal_trim(life->journal, ring->id, pos);
}

/* It starts again, at its first position. */
static void detach(struct life *life, struct life_ring *ring)
{
	if (ring->busy)
		return;
	chain_free(life, ring, UINT64_MAX);
	petal_journal_detach(life->journal, ring->id);
	ring->pos = 0;
	ring->trimmed = 0;
	ring->epoch++;
	ring->version = ++life->version;
	petal_journal_attach(life->journal, ring->id, area, LIFE_DATA_BYTES);
}

static void append_some(struct life *life)
{
	const struct life_style *style = &life->style;
	struct life_ring *ring = &life->rings[chance(style->rings)];
	uint64_t length = style->length_min +
			  chance(style->length_max - style->length_min + 1);

	if (ring->busy ||
	    recorder_waiting(life->journal->io) >= style->flying_max)
		return;
	if (life_append(life, ring, length * style->length_unit) == -EAGAIN) {
		for (unsigned int i = 0; i < style->rings; i++)
			trim(life, &life->rings[i]);
	}
}

void life_act(struct life *life)
{
	const struct life_style *style = &life->style;
	struct petal_journal_io *io = life->journal->io;
	unsigned int waiting = recorder_waiting(io);

	if (chance(style->trim_share) == 0)
		trim(life, &life->rings[chance(style->rings)]);
	if (style->detaches && chance(DETACH_SHARE) == 0)
		detach(life, &life->rings[chance(style->rings)]);
	append_some(life);
	waiting = recorder_waiting(io);
	if (waiting && chance(3)) {
		bool fail = style->fails && chance(FAIL_SHARE) == 0;

		/* In any order. */
		recorder_settle(io, (unsigned int)chance(waiting),
				fail ? -EIO : 0);
	}
	if (chance(3))
		life_poll(life);
}

void life_land(struct life *life)
{
	while (recorder_waiting(life->journal->io))
		recorder_settle(life->journal->io, 0, 0);
	life_poll(life);
}

void life_end(struct life *life, bool power)
{
	if (!life->journal)
		return;
	/* Not ready, it has no last words. */
	if (power)
		life->journal->ready = false;
	petal_journal_close(life->journal);
	life->journal = NULL;
}
