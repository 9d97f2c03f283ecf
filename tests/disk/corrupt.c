/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage to the journal of one petal. A life (life.h) writes a journal, and is
 * closed or loses its power; then one thing in its file is changed: each class
 * of bytes by each kind of fault. The real journal opens and replays it. It may
 * never give back other bytes, nor say that all is well and leave out what was
 * acknowledged. Each outcome has a name:
 *
 *    served      all is there: nobody needs the bytes that were changed
 *    repaired    all is there, and a superblock was written anew
 *    reported    -PETAL_ECORRUPT, and the batch by its sequence; nothing is
 *                written any more, and no byte of the file has changed
 *    refused     the file does not open, for the reason that holds
 *    unguarded   the newest batches are gone: no header that is left says that
 *                they were durable, and so they look like torn ones
 *    older       a whole file from the past, right in itself
 *    other key   a key that only the peers can tell from ours
 *
 * The last three are what only peers can mend, and are counted.
 *
 *    corrupt --dir DIR [--seed N] [--seeds N] [--faults N]
 *
 * DIR exists, and is best in memory. --faults is how many of each class and
 * kind. Prints one JSON line; what fails is told on stderr.
 */
#include "tests/disk/life.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <sodium.h>

#include "fabric/seal.h"
#include "shm/error.h"

enum {
	HEADER_BYTES = sizeof(struct journal_header),
	RECORD_BYTES = 64,
	SUPERBLOCKS = 4,
	FAILURES_SHOWN = 12,
	KEY_FILE_BYTES = 2 * PETAL_SEAL_KEY_BYTES + 1,
};

enum class {
	CLASS_HEAD,
	CLASS_RECORD,
	CLASS_PAYLOAD,
	CLASS_PADDING,
	CLASS_TAIL,
	CLASS_SUPERBLOCK,
	CLASS_OLD_LAP,
	CLASS_COUNT,
};

enum kind {
	KIND_FLIP,
	KIND_ZERO,
	KIND_UNREADABLE,
	KIND_MISDIRECT,
	KIND_SNAPSHOT,
	KIND_COUNT,
};

enum outcome {
	OUTCOME_SERVED,
	OUTCOME_REPAIRED,
	OUTCOME_REPORTED,
	OUTCOME_REFUSED,
	OUTCOME_UNGUARDED,
	OUTCOME_OLDER,
	OUTCOME_OTHER_KEY,
	OUTCOME_COUNT,
};

static const char *const class_names[CLASS_COUNT] = {
	"block head", "record header", "payload",   "padding",
	"tail",       "superblock",    "older lap",
};

static const char *const kind_names[KIND_COUNT] = {
	"flip",        "zero sector",  "unreadable block",
	"misdirected", "old snapshot",
};

static const char *const outcome_names[OUTCOME_COUNT] = {
	"served",    "repaired", "reported",  "refused",
	"unguarded", "older",    "other_key",
};

static struct {
	struct life life;
	unsigned int chain_count;
	/* The file before the fault, with it, and half a life ago. */
	uint8_t *base;
	uint8_t *changed;
	uint8_t *older;
	const char *what;
	uint64_t seed, tried, failed;
	uint64_t outcomes[OUTCOME_COUNT];
} corrupt;

static void failure(const char *why, int err)
{
	const struct life *life = &corrupt.life;

	if (corrupt.failed++ >= FAILURES_SHOWN)
		return;
	fprintf(stderr,
		"corrupt: seed %" PRIu64 ", fault %" PRIu64 ", %s: %s (%s); ",
		corrupt.seed, corrupt.tried, corrupt.what, why,
		petal_error_name(err));
	fprintf(stderr, "%u batches, %u acknowledged, %u visited from %u\n",
		life->count, life->acked, life->visited, life->first);
}

/*
 * What was in the file.
 */

static bool is_present(const struct life_batch *batch)
{
	struct journal_header header;

	memcpy(&header, corrupt.base + batch->offset, sizeof(header));
	return header.magic == HEADER_MAGIC &&
	       header.sequence == batch->sequence;
}

/* Is it as the base has it? */
static bool is_intact(const struct life_batch *batch, uint64_t bytes)
{
	return is_present(batch) &&
	       !memcmp(corrupt.changed + batch->offset,
		       corrupt.base + batch->offset, bytes) &&
	       (!corrupt.life.platter.unreadable ||
		corrupt.life.platter.unreadable < batch->offset ||
		corrupt.life.platter.unreadable >= batch->offset + bytes);
}

/* Up to where do the headers that are left call batches durable? */
static uint64_t guarded_upto(void)
{
	uint64_t upto = 0;

	for (unsigned int i = 0; i < corrupt.chain_count; i++) {
		const struct life_batch *batch = &corrupt.life.chain[i];

		if (batch->durable_upto > upto &&
		    is_intact(batch, HEADER_BYTES))
			upto = batch->durable_upto;
	}
	return upto;
}

static const struct life_batch *by_sequence(uint64_t sequence)
{
	for (unsigned int i = corrupt.chain_count; i-- > 0;) {
		if (corrupt.life.chain[i].sequence == sequence)
			return &corrupt.life.chain[i];
	}
	return NULL;
}

/* The first that is acknowledged, needed, and was not visited; NULL if none. */
static const struct life_batch *first_missing(bool *ret_at_start)
{
	const struct life *life = &corrupt.life;

	for (unsigned int i = 0; i < life->acked; i++) {
		const struct life_batch *batch = &life->chain[i];

		if (batch->note || batch->freed)
			continue;
		if (life->visited && i >= life->first && i < life->next)
			continue;
		*ret_at_start = life->visited && i < life->first;
		return batch;
	}
	return NULL;
}

/*
 * What came of it.
 */

static const char *judge_report(void)
{
	struct life *life = &corrupt.life;
	struct petal_journal_range next = { .ring = life->rings[0].id,
					    .to_pos = 64 };
	const struct life_batch *batch;
	struct petal_journal_damage damage;

	if (petal_journal_damage(life->journal, &damage))
		return "damage without a name";
	batch = by_sequence(damage.sequence);
	if (!batch)
		return "damage to a batch that never was";
	if (is_intact(batch, batch->bytes))
		return "a batch that is whole is called damaged";
	if (damage.file_offset && damage.file_offset != batch->offset)
		return "damage in another place";
	if (damage.named && (damage.range.ring != batch->range.ring ||
			     damage.range.from_pos != batch->range.from_pos ||
			     damage.range.to_pos != batch->range.to_pos))
		return "damage to other bytes than these";
	if (petal_journal_append(life->journal, &next) != -PETAL_ECORRUPT)
		return "an append goes over the damage";
	if (memcmp(life->map + AREA_OFFSET, corrupt.changed + AREA_OFFSET,
		   LIFE_BYTES - AREA_OFFSET))
		return "the damaged file was changed";
	return NULL;
}

/* Returns the outcome, or -1 with what is wrong. */
static int judge(const char *why, int err, const char **ret_wrong)
{
	struct life *life = &corrupt.life;
	const struct life_batch *missing;
	bool at_start = false;

	*ret_wrong = NULL;
	if (life->wrong)
		*ret_wrong = life->wrong;
	else if (!life->journal || !life->journal->replayed)
		return OUTCOME_REFUSED;
	else if (err == -PETAL_ECORRUPT)
		*ret_wrong = judge_report();
	else if (err)
		*ret_wrong = why;
	if (*ret_wrong)
		return -1;
	if (err)
		return OUTCOME_REPORTED;
	missing = first_missing(&at_start);
	if (!missing)
		return life->journal->stats.superblocks_repaired
			       ? OUTCOME_REPAIRED
			       : OUTCOME_SERVED;
	if (!at_start && missing->sequence > guarded_upto())
		return OUTCOME_UNGUARDED;
	*ret_wrong = why;
	return -1;
}

static void put_back(void)
{
	struct life *life = &corrupt.life;

	life->platter.bytes = LIFE_BYTES;
	life->platter.unreadable = 0;
	life->count = corrupt.chain_count;
	memcpy(life->map, corrupt.base, LIFE_BYTES);
}

/* Open what is in the map. @allowed is a set of outcomes. */
static int examine(unsigned int allowed)
{
	struct life *life = &corrupt.life;
	const char *why, *wrong;
	int err, outcome;

	corrupt.tried++;
	memcpy(corrupt.changed, life->map, LIFE_BYTES);
	why = life_open(life, &err);
	outcome = judge(why, err, &wrong);
	if (outcome < 0)
		failure(wrong, err);
	else if (!(allowed & 1u << outcome))
		failure(outcome_names[outcome], err);
	else
		corrupt.outcomes[outcome]++;
	life_end(life, true);
	put_back();
	return err;
}

/*
 * Where.
 */

struct place {
	uint64_t offset;
	uint64_t length;
};

/* A batch that the file must keep, or NULL. */
static const struct life_batch *some_batch(void)
{
	struct life *life = &corrupt.life;

	for (unsigned int tries = 0; tries < 256; tries++) {
		unsigned int back = (unsigned int)chance(
			life->acked < 64 ? life->acked + 1 : 64);
		const struct life_batch *batch;

		if (back >= life->acked)
			continue;
		batch = &life->chain[life->acked - 1 - back];
		if (!batch->note && !batch->freed && is_present(batch))
			return batch;
	}
	return NULL;
}

static const struct life_batch *newest_batch(void)
{
	struct life *life = &corrupt.life;

	for (unsigned int i = life->acked; i-- > 0;) {
		if (!life->chain[i].note)
			return life->chain[i].freed ||
					       !is_present(&life->chain[i])
				       ? NULL
				       : &life->chain[i];
	}
	return NULL;
}

/* Where a batch's first bytes are: after its header, or in its first page. */
static void place_in_batch(const struct life_batch *batch, enum class class,
			   struct place *ret_place)
{
	struct journal_header header;
	uint64_t copied, end;

	memcpy(&header, corrupt.base + batch->offset, sizeof(header));
	copied = HEADER_BYTES + header.head_bytes + header.tail_bytes;
	end = (uint64_t)header.bounce_blocks * BLOCK;
	*ret_place = (struct place){ batch->offset, HEADER_BYTES };
	if (class == CLASS_RECORD) {
		ret_place->offset += header.head_bytes ? HEADER_BYTES : end;
		ret_place->length = RECORD_BYTES;
	} else if (class == CLASS_PADDING) {
		ret_place->offset += copied;
		ret_place->length = end - copied;
	} else if (class == CLASS_PAYLOAD && batch->bytes > end && chance(2)) {
		ret_place->offset += end;
		ret_place->length = batch->bytes - end;
	} else if (class == CLASS_PAYLOAD) {
		ret_place->offset += HEADER_BYTES;
		ret_place->length = copied - HEADER_BYTES;
	} else if (class == CLASS_TAIL) {
		ret_place->length = batch->bytes;
	}
}

/* A block of which a durable header says that nobody needs it any more. */
static bool place_in_old_lap(struct place *ret_place)
{
	const struct life *life = &corrupt.life;
	uint64_t at = AREA_OFFSET +
		      chance((LIFE_BYTES - AREA_OFFSET) / BLOCK) * BLOCK;
	uint64_t oldest_needed = 0;

	for (unsigned int i = 0; i < life->acked; i++)
		oldest_needed = life->chain[i].oldest_needed;
	for (unsigned int i = life->count; i-- > 0;) {
		const struct life_batch *batch = &life->chain[i];

		if (batch->sequence >= oldest_needed && at >= batch->offset &&
		    at < batch->offset + batch->bytes)
			return false;
	}
	*ret_place = (struct place){ at, BLOCK };
	return true;
}

static bool place_find(enum class class, struct place *ret_place)
{
	const struct life_batch *batch;

	if (class == CLASS_SUPERBLOCK) {
		*ret_place =
			(struct place){ chance(AREA_OFFSET / BLOCK) * BLOCK,
					BLOCK };
		return true;
	}
	if (class == CLASS_OLD_LAP)
		return place_in_old_lap(ret_place);
	batch = class == CLASS_TAIL ? newest_batch() : some_batch();
	if (!batch)
		return false;
	place_in_batch(batch, class, ret_place);
	return ret_place->length > 0;
}

/*
 * What.
 */

static uint64_t some_block(void)
{
	return chance(LIFE_BYTES / BLOCK) * BLOCK;
}

static void fault(enum kind kind, const struct place *place)
{
	struct life *life = &corrupt.life;
	uint64_t at = place->offset + chance(place->length);
	uint64_t block = at / BLOCK * BLOCK;
	uint64_t other = some_block();

	switch (kind) {
	case KIND_FLIP:
		life->map[at] ^= (uint8_t)(1 << chance(8));
		break;
	case KIND_ZERO:
		memset(life->map + at / SECTOR * SECTOR, 0, SECTOR);
		break;
	case KIND_UNREADABLE:
		/* A superblock's copy is read alone, hence never at 0. */
		life->platter.unreadable = block ? block : BLOCK;
		break;
	case KIND_MISDIRECT:
		/* It never came here, and went there; or another came here. */
		if (chance(2)) {
			memcpy(life->map + other, corrupt.base + block, BLOCK);
			memcpy(life->map + block, corrupt.older + block, BLOCK);
		} else {
			memcpy(life->map + block, corrupt.base + other, BLOCK);
		}
		break;
	default:
		memcpy(life->map + block, corrupt.older + block,
		       chance(2) ? BLOCK : SECTOR);
	}
}

static void class_try(enum class class, enum kind kind, uint64_t faults)
{
	unsigned int allowed = 1u << OUTCOME_SERVED | 1u << OUTCOME_REPAIRED |
			       1u << OUTCOME_REPORTED | 1u << OUTCOME_UNGUARDED;
	char what[64];
	struct place place;

	/* One of four copies, or a block that nobody needs: no loss. */
	if (kind != KIND_MISDIRECT && kind != KIND_ZERO &&
	    (class == CLASS_SUPERBLOCK || class == CLASS_OLD_LAP))
		allowed = 1u << OUTCOME_SERVED | 1u << OUTCOME_REPAIRED;
	snprintf(what, sizeof(what), "%s, %s", class_names[class],
		 kind_names[kind]);
	corrupt.what = what;
	for (uint64_t i = 0; i < faults; i++) {
		if (!place_find(class, &place))
			continue;
		fault(kind, &place);
		examine(allowed);
	}
}

/* Each bit of one header. */
static void every_header_bit(void)
{
	const struct life_batch *batch = some_batch();

	corrupt.what = "block head, every bit";
	for (unsigned int i = 0; batch && i < HEADER_BYTES * 8; i++) {
		corrupt.life.map[batch->offset + i / 8] ^=
			(uint8_t)(1 << i % 8);
		examine(1u << OUTCOME_REPORTED | 1u << OUTCOME_UNGUARDED);
	}
}

static void truncations(uint64_t faults)
{
	struct life *life = &corrupt.life;
	char path[300];
	int err;

	snprintf(path, sizeof(path), "%s/journal.0", life->path);
	corrupt.what = "truncation";
	for (uint64_t i = 0; i < faults; i++) {
		uint64_t length = i % 3       ? some_block() + chance(BLOCK)
				  : chance(2) ? LIFE_BYTES - 1
					      : chance(AREA_OFFSET);
		const char *why;

		if (truncate(path, (off_t)length))
			exit(2);
		life->platter.bytes = length;
		corrupt.tried++;
		why = life_open(life, &err);
		if (life->journal || err != -PETAL_ECORRUPT)
			failure(why ? why : "a cut file opens", err);
		else
			corrupt.outcomes[OUTCOME_REFUSED]++;
		life_end(life, true);
		if (truncate(path, LIFE_BYTES))
			exit(2);
		put_back();
	}
}

/* Two copies may be bad; with three, nobody knows. */
static void superblocks(void)
{
	for (unsigned int bad = 1; bad < 1u << SUPERBLOCKS; bad++) {
		unsigned int count = (unsigned int)__builtin_popcount(bad);

		corrupt.what = "superblocks, several";
		for (unsigned int i = 0; i < SUPERBLOCKS; i++) {
			uint8_t *copy = corrupt.life.map + i * BLOCK;

			if (bad >> i & 1 && chance(2))
				copy[chance(BLOCK)] ^= 1;
			else if (bad >> i & 1)
				memset(copy, 0, SECTOR);
		}
		examine(count <= 2 ? 1u << OUTCOME_REPAIRED
				   : 1u << OUTCOME_REFUSED);
	}
}

/* All of it, as it was half a life ago. */
static void whole_snapshot(void)
{
	struct life *life = &corrupt.life;
	const char *why;
	int err;

	corrupt.what = "whole file, old snapshot";
	corrupt.tried++;
	memcpy(life->map, corrupt.older, LIFE_BYTES);
	why = life_open(life, &err);
	if (life->wrong || err)
		failure(why, err);
	else
		corrupt.outcomes[OUTCOME_OLDER]++;
	life_end(life, true);
	put_back();
}

/*
 * The key file.
 */

static void key_write(const char *path, const uint8_t *bytes, size_t length)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd < 0 || write(fd, bytes, length) != (ssize_t)length)
		exit(2);
	close(fd);
}

static void key_try(const char *path, const uint8_t *bytes, size_t length,
		    const uint8_t *ours)
{
	uint8_t key[PETAL_SEAL_KEY_BYTES];
	int err;

	corrupt.tried++;
	key_write(path, bytes, length);
	err = petal_seal_key_load(path, key);
	if (err && err != -PETAL_ECORRUPT)
		failure("the key file is refused for a wrong reason", err);
	else if (!err && length != KEY_FILE_BYTES)
		failure("a key file of another length is taken", err);
	else
		corrupt.outcomes[err ? OUTCOME_REFUSED
				 : memcmp(key, ours, sizeof(key))
					 ? OUTCOME_OTHER_KEY
					 : OUTCOME_SERVED]++;
}

static void key_faults(const char *dir)
{
	uint8_t good[KEY_FILE_BYTES + 1] = { 0 }, bad[KEY_FILE_BYTES + 1];
	uint8_t ours[PETAL_SEAL_KEY_BYTES];
	char path[300];
	int fd;

	corrupt.what = "key file";
	snprintf(path, sizeof(path), "%s/key", dir);
	if (petal_seal_key_create(path) || petal_seal_key_load(path, ours))
		exit(2);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, good, KEY_FILE_BYTES) != KEY_FILE_BYTES)
		exit(2);
	close(fd);
	for (unsigned int i = 0; i < KEY_FILE_BYTES * 8; i++) {
		memcpy(bad, good, sizeof(bad));
		bad[i / 8] ^= (uint8_t)(1 << i % 8);
		key_try(path, bad, KEY_FILE_BYTES, ours);
	}
	for (unsigned int length = 0; length <= sizeof(good); length++)
		key_try(path, good, length, ours);
	memset(bad, 0, sizeof(bad));
	key_try(path, bad, KEY_FILE_BYTES, ours);
	unlink(path);
}

/*
 * A seed.
 */

static void live(struct life *life, unsigned int acts)
{
	for (unsigned int i = 0;
	     i < acts && life->count < LIFE_BATCHES_MAX - 64; i++)
		life_act(life);
}

/* Some sectors of what is in flight. */
static void tear(struct life *life)
{
	const struct recorder_write *writes;
	unsigned int count = recorder_writes(life->journal->io, &writes);

	for (unsigned int i = 0; i < count; i++) {
		for (uint64_t at = 0; at < writes[i].length; at += SECTOR) {
			if (!writes[i].on_disk && chance(2))
				memcpy(life->map + writes[i].offset + at,
				       writes[i].bytes + at, SECTOR);
		}
	}
}

/* Closed, or idle, or in the middle of a write when the power goes. */
static void end(struct life *life)
{
	unsigned int way = (unsigned int)chance(3);

	if (way < 2)
		life_land(life);
	else
		tear(life);
	life_end(life, way > 0);
}

static bool seed_live(uint64_t seed)
{
	static const unsigned int acts[] = { 20, 200, 1500 };
	struct life *life = &corrupt.life;
	struct life_batch dropped;
	unsigned int count, some;
	int err;

	corrupt.seed = seed;
	corrupt.what = "no fault";
	chance_seed(seed);
	life_reset(life);
	life_style_random(&life->style);
	life->style.fails = false;
	/* Something must be there that can be damaged. */
	life->style.trim_share *= 4;
	if (life_open(life, &err)) {
		failure("an empty journal does not open", err);
		return false;
	}
	life_go_on(life, &dropped, 0, &count);
	some = acts[chance(3)];
	live(life, some);
	life_land(life);
	memcpy(corrupt.older, life->map, LIFE_BYTES);
	live(life, 10 + some / 4);
	end(life);
	corrupt.chain_count = life->count;
	memcpy(corrupt.base, life->map, LIFE_BYTES);
	return true;
}

static void seed_run(uint64_t seed, uint64_t faults)
{
	if (!seed_live(seed))
		return;
	examine(1u << OUTCOME_SERVED);
	for (unsigned int class = 0; class < CLASS_COUNT; class ++) {
		for (unsigned int kind = 0; kind < KIND_COUNT; kind++)
			class_try((enum class) class, (enum kind)kind, faults);
	}
	if (seed % 8 == 0)
		every_header_bit();
	truncations(faults);
	superblocks();
	whole_snapshot();
}

int main(int argc, char **argv)
{
	const char *dir = NULL;
	uint64_t seed = 0, seeds = 1, faults = 16;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--dir"))
			dir = argv[i + 1];
		else if (!strcmp(argv[i], "--seed"))
			seed = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seeds"))
			seeds = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--faults"))
			faults = strtoull(argv[i + 1], NULL, 0);
		else
			return 2;
	}
	if (!dir || sodium_init() < 0)
		return 2;
	/* With whoever started us. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	life_make(&corrupt.life, dir);
	corrupt.base = malloc(LIFE_BYTES);
	corrupt.changed = malloc(LIFE_BYTES);
	corrupt.older = malloc(LIFE_BYTES);
	if (!corrupt.base || !corrupt.changed || !corrupt.older)
		abort();
	for (uint64_t i = 0; i < seeds; i++)
		seed_run(seed + i, faults);
	key_faults(dir);
	printf("{\"tried\":%" PRIu64, corrupt.tried);
	for (unsigned int i = 0; i < OUTCOME_COUNT; i++)
		printf(",\"%s\":%" PRIu64, outcome_names[i],
		       corrupt.outcomes[i]);
	printf(",\"failed\":%" PRIu64 "}\n", corrupt.failed);
	return corrupt.failed != 0;
}
