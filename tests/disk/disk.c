/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every crash state of the journal. A life (life.h) works on a disk that can
 * lose its power (recorder.h). Whenever a write has come or a batch was
 * reported, the power is cut: what was durable is there, and of what is in
 * flight every subset of its sectors, where they are few enough, else as many
 * random ones; then one of them torn in its middle, too. Each such state is a
 * file, which the real journal opens and replays. Some of them go on to live
 * there, and lose their power again: during recovery, at the first batch after
 * it, or at its close.
 *
 *    disk --dir DIR [--seed N] [--seeds N] [--limit STATES]
 *    disk --dir DIR --create 1         cuts only the making of a journal
 *
 * DIR exists, and is best in memory. --limit is how many states a power cut
 * has at most. Prints one JSON line; what fails is told on stderr.
 */
#include "tests/disk/create.h"
#include "tests/disk/life.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "shm/error.h"

enum {
	/* The life, the one after its crash, and the one after that. */
	LIVES = 4,
	SECTORS_MAX = 4096,
	DIRTY_MAX = 64,
	DROPPED_MAX = 16,
	FAILURES_SHOWN = 12,
	ACTS_MAX = 40,
	/* One state in so many lives on, by how many have died before. */
	DEEP_SHARE = 60,
	/* More of them if something was dropped that could come back. */
	DROPPED_SHARE = 12,
	/* And has so many fewer states itself. */
	DEEP_LIMIT_SHARE = 8,
	TORN_SHARE = 4,
};

struct sector {
	uint64_t offset;
	const uint8_t *bytes;
	unsigned int write;
};

static struct disk {
	struct life lives[LIVES];
	struct life_batch *own_chain[LIVES];
	bool exploring[LIVES];
	unsigned int limit;
	uint64_t seed;
	/* Of the power cut at each depth. */
	struct sector sectors[LIVES][SECTORS_MAX];
	bool chosen[LIVES][SECTORS_MAX];
	/* What the journal itself has changed in a state. */
	struct {
		uint64_t offset, length;
	} dirty[LIVES][DIRTY_MAX];
	unsigned int dirty_count[LIVES];
	uint64_t states, cuts, whole_cuts, torn, again, failed;
} disk;

static unsigned int depth_of(const struct life *life)
{
	return (unsigned int)(life - disk.lives);
}

static void landed(struct life *life, uint64_t offset, uint64_t length)
{
	unsigned int depth = depth_of(life);
	unsigned int at = disk.dirty_count[depth]++;

	/* Beyond that, all of it. */
	if (at >= DIRTY_MAX)
		return;
	disk.dirty[depth][at].offset = offset;
	disk.dirty[depth][at].length = length;
}

/*
 * One state.
 */

static void failure(const struct life *life, const char *why, int err)
{
	if (disk.failed++ >= FAILURES_SHOWN)
		return;
	fprintf(stderr,
		"disk: seed %" PRIu64 ", state %" PRIu64 ", crash %u: %s (%s)",
		disk.seed, disk.states, depth_of(life), why,
		petal_error_name(err));
	fprintf(stderr, "; %u batches, %u acknowledged, %u visited from %u\n",
		life->count, life->acked, life->visited, life->first);
}

static void chain_own(struct life *life)
{
	unsigned int depth = depth_of(life);

	memcpy(disk.own_chain[depth], life->chain,
	       life->count * sizeof(*life->chain));
	life->chain = disk.own_chain[depth];
}

static void live(struct life *life)
{
	struct life_batch dropped[DROPPED_MAX];
	unsigned int count, acts;

	disk.again++;
	chain_own(life);
	life_go_on(life, dropped, DROPPED_MAX, &count);
	/* A peer may send the same again, or a producer something else. */
	if (chance(4)) {
		for (unsigned int i = 0; i < count; i++) {
			if (life_retry(life, &dropped[i]))
				break;
			if (chance(2))
				life_land(life);
		}
	}
	acts = 1 + (unsigned int)chance(6);
	for (unsigned int i = 0; i < acts && !life->frozen; i++)
		life_act(life);
	if (chance(2))
		life_end(life, false);
}

static bool goes_deep(const struct life *life, uint64_t share)
{
	unsigned int depth = depth_of(life);

	return depth + 2 < LIVES && chance(share << (2 * depth)) == 0;
}

/* The file of @next is as a crash of @life may leave it: is that enough? */
static void examine(const struct life *life, struct life *next)
{
	unsigned int depth = depth_of(next);
	bool deep = goes_deep(life, DEEP_SHARE);
	const char *why;
	int err;

	disk.states++;
	next->chain = life->chain;
	next->count = life->count;
	next->acked = life->acked;
	next->version = life->version;
	next->style = life->style;
	memcpy(next->rings, life->rings, sizeof(next->rings));
	/* Replay may write, too, and be cut off. */
	disk.exploring[depth] = deep;
	why = life_open(next, &err);
	if (!why && !deep && next->journal->stats.dropped_batches)
		deep = goes_deep(life, DROPPED_SHARE);
	disk.exploring[depth] = deep;
	if (why)
		failure(next, why, err);
	else if (deep)
		live(next);
	disk.exploring[depth] = false;
	life_end(next, true);
}

/*
 * The states of one power cut.
 */

static unsigned int sectors_collect(const struct life *life,
				    unsigned int *ret_newest)
{
	struct sector *sectors = disk.sectors[depth_of(life)];
	const struct recorder_write *writes;
	unsigned int count = recorder_writes(life->journal->io, &writes);
	unsigned int found = 0;

	*ret_newest = 0;
	for (unsigned int i = 0; i < count; i++) {
		*ret_newest = found;
		if (writes[i].on_disk)
			continue;
		for (uint64_t at = 0; at < writes[i].length; at += SECTOR) {
			uint64_t offset = writes[i].offset + at;

			if (!memcmp(life->map + offset, writes[i].bytes + at,
				    SECTOR))
				continue;
			if (found == SECTORS_MAX)
				abort();
			sectors[found++] = (struct sector){
				.offset = offset,
				.bytes = writes[i].bytes + at,
				.write = i,
			};
		}
	}
	return found;
}

/* Of one write: all, none, up to here, from here, one, all but one, any. */
static void choose_write(bool *chosen, unsigned int count)
{
	unsigned int recipe = (unsigned int)chance(7);
	unsigned int at = (unsigned int)chance(count);

	for (unsigned int i = 0; i < count; i++)
		chosen[i] = recipe == 0   ? true
			    : recipe == 1 ? false
			    : recipe == 2 ? i < at
			    : recipe == 3 ? i >= at
			    : recipe == 4 ? i == at
			    : recipe == 5 ? i != at
					  : chance(2);
}

static void choose_some(const struct sector *sectors, bool *chosen,
			unsigned int count)
{
	unsigned int end;

	for (unsigned int at = 0; at < count; at = end) {
		end = at;
		while (end < count && sectors[end].write == sectors[at].write)
			end++;
		choose_write(chosen + at, end - at);
	}
}

static void choose_mask(bool *chosen, unsigned int count, uint64_t mask)
{
	for (unsigned int i = 0; i < count; i++)
		chosen[i] = mask >> i & 1;
}

static bool any(const bool *chosen, unsigned int from, unsigned int count)
{
	for (unsigned int i = from; i < count; i++) {
		if (chosen[i])
			return true;
	}
	return false;
}

static void sector_tear(struct life *next, const struct sector *sector)
{
	static const unsigned int cuts[] = { 1, 8, 32, 64, 100, 252, 256, 504 };
	unsigned int cut = chance(2) ? cuts[chance(8)]
				     : 1 + (unsigned int)chance(SECTOR - 1);
	uint8_t *to = next->map + sector->offset;

	switch (chance(3)) {
	case 0:
		memcpy(to, sector->bytes, cut);
		break;
	case 1:
		memcpy(to + cut, sector->bytes + cut, SECTOR - cut);
		break;
	default:
		memcpy(to, sector->bytes, SECTOR);
		for (unsigned int i = 0; i < 8; i++)
			to[chance(SECTOR)] = (uint8_t)chance(256);
	}
}

static void state_revert(const struct life *life, struct life *next,
			 unsigned int count)
{
	unsigned int depth = depth_of(next);
	const struct sector *sectors = disk.sectors[depth_of(life)];

	if (disk.dirty_count[depth] > DIRTY_MAX)
		memcpy(next->map, life->map, LIFE_BYTES);
	else
		for (unsigned int i = 0; i < disk.dirty_count[depth]; i++)
			memcpy(next->map + disk.dirty[depth][i].offset,
			       life->map + disk.dirty[depth][i].offset,
			       disk.dirty[depth][i].length);
	disk.dirty_count[depth] = 0;
	for (unsigned int i = 0; i < count; i++)
		memcpy(next->map + sectors[i].offset,
		       life->map + sectors[i].offset, SECTOR);
}

/* @torn is which sector of the chosen to tear, or UINT_MAX. */
static void state_try(struct life *life, unsigned int count, unsigned int torn)
{
	unsigned int depth = depth_of(life);
	struct life *next = &disk.lives[depth + 1];
	const struct sector *sectors = disk.sectors[depth];

	for (unsigned int i = 0; i < count; i++) {
		if (disk.chosen[depth][i] && i != torn)
			memcpy(next->map + sectors[i].offset, sectors[i].bytes,
			       SECTOR);
	}
	if (torn < count)
		sector_tear(next, &sectors[torn]);
	examine(life, next);
	state_revert(life, next, count);
}

/*
 * After a new write, only what has some of it is new: the rest was tried when
 * the one before it came, or a batch was reported.
 */
static void cut_power(struct life *life, bool submitted)
{
	unsigned int depth = depth_of(life);
	bool *chosen = disk.chosen[depth];
	unsigned int limit = depth ? disk.limit / DEEP_LIMIT_SHARE : disk.limit;
	unsigned int newest, count;

	if (!disk.exploring[depth])
		return;
	count = sectors_collect(life, &newest);
	if (!submitted)
		newest = 0;
	else if (newest == count)
		return;
	disk.cuts++;
	memcpy(disk.lives[depth + 1].map, life->map, LIFE_BYTES);
	if (count < 32 && UINT64_C(1) << count <= limit) {
		disk.whole_cuts++;
		for (uint64_t mask = 0; mask < UINT64_C(1) << count; mask++) {
			choose_mask(chosen, count, mask);
			if (!submitted || any(chosen, newest, count))
				state_try(life, count, UINT_MAX);
		}
	} else {
		for (unsigned int i = 0; i < limit; i++) {
			choose_some(disk.sectors[depth], chosen, count);
			if (submitted && !any(chosen, newest, count))
				chosen[newest + chance(count - newest)] = true;
			state_try(life, count, UINT_MAX);
		}
	}
	for (unsigned int i = 0; count && i < limit / TORN_SHARE; i++) {
		disk.torn++;
		choose_some(disk.sectors[depth], chosen, count);
		state_try(life, count,
			  newest + (unsigned int)chance(count - newest));
	}
}

static void submitted(struct life *life)
{
	cut_power(life, true);
}

static void acknowledged(struct life *life)
{
	cut_power(life, false);
}

/*
 * A seed.
 */

/* Live until the file has been filled so many eighths of times. */
static void warm_up(struct life *life, uint64_t eighths)
{
	uint64_t written = 0;
	unsigned int seen = 0;
	bool fails = life->style.fails;

	life->style.fails = false;
	for (unsigned int i = 0;
	     i < 8000 && written < eighths * (LIFE_BYTES / 8) &&
	     life->count < LIFE_BATCHES_MAX / 2;
	     i++) {
		life_act(life);
		for (; seen < life->count; seen++)
			written += life->chain[seen].bytes;
	}
	life->style.fails = fails;
}

static void seed_run(uint64_t seed)
{
	static const uint64_t eighths[] = { 0, 1, 7, 10, 20 };
	struct life *life = &disk.lives[0];
	struct life_batch dropped;
	unsigned int count;
	int err;

	disk.seed = seed;
	chance_seed(seed);
	life_reset(life);
	life_style_random(&life->style);
	if (life_open(life, &err)) {
		failure(life, "an empty journal does not open", err);
		return;
	}
	life_go_on(life, &dropped, 0, &count);
	warm_up(life, eighths[chance(5)]);
	disk.exploring[0] = true;
	for (unsigned int i = 0; i < ACTS_MAX; i++)
		life_act(life);
	life_end(life, chance(2));
	disk.exploring[0] = false;
}

static void lives_make(const char *dir)
{
	char path[256];

	for (unsigned int i = 0; i < LIVES; i++) {
		struct life *life = &disk.lives[i];

		snprintf(path, sizeof(path), "%.240s/%u", dir, i);
		if (mkdir(path, 0700))
			exit(2);
		life_make(life, path);
		/* One uuid, for they are one journal. */
		memcpy(life->map, disk.lives[0].map, AREA_OFFSET);
		disk.own_chain[i] = life->chain;
		life->submitted = submitted;
		life->acknowledged = acknowledged;
		life->landed = landed;
	}
}

int main(int argc, char **argv)
{
	const char *dir = NULL;
	uint64_t seed = 0, seeds = 1, create = 0;

	disk.limit = 64;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--dir"))
			dir = argv[i + 1];
		else if (!strcmp(argv[i], "--seed"))
			seed = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seeds"))
			seeds = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--create"))
			create = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--limit"))
			disk.limit =
				(unsigned int)strtoul(argv[i + 1], NULL, 0);
		else
			return 2;
	}
	if (!dir)
		return 2;
	/* With whoever started us. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (create) {
		disk.states = create_cut(dir, &disk.failed);
	} else {
		lives_make(dir);
		for (uint64_t i = 0; i < seeds; i++)
			seed_run(seed + i);
	}
	printf("{\"tried\":%" PRIu64 ",\"cuts\":%" PRIu64
	       ",\"whole_cuts\":%" PRIu64 ",\"torn\":%" PRIu64
	       ",\"again\":%" PRIu64 ",\"failed\":%" PRIu64 "}\n",
	       disk.states, disk.cuts, disk.whole_cuts, disk.torn, disk.again,
	       disk.failed);
	return disk.failed != 0;
}
