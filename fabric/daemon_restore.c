/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal is read before the registry has told us which rings there are,
 * so what it held waits here until its ring is opened. Of each ring one log is
 * kept: see fabric/runs.h.
 *
 * Of a ring that was deleted while we were away we would keep it for ever, and
 * with it the space of every batch behind it. But our registry may be behind at
 * the start, and lack a ring that is there. So we ask its leader for a change
 * that changes nothing, and wait until our registry is as far as the leader's
 * was then: what it lacks now was deleted.
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/error.h"

static struct daemon_restored *find(struct daemon *d, uint64_t key)
{
	for (unsigned i = 0; i < DAEMON_RESTORED_MAX; i++) {
		if (d->restored[i].key == key)
			return &d->restored[i];
	}
	return NULL;
}

static void forget(struct daemon_restored *r)
{
	free(r->data);
	free(r->batches);
	*r = (struct daemon_restored){ 0 };
}

static int begin(struct daemon_restored *r,
		 const struct petal_journal_range *range)
{
	forget(r);
	r->data = malloc(range->data_bytes);
	if (r->data == NULL)
		return -ENOMEM;
	r->key = range->ring;
	r->data_bytes = range->data_bytes;
	r->to_pos = range->from_pos;
	return 0;
}

static int note_batch(struct daemon_restored *r,
		      const struct petal_journal_range *range)
{
	struct daemon_batch *grown;
	uint32_t room;

	if (r->batch_count == r->batch_room) {
		room = r->batch_room == 0 ? 64 : 2 * r->batch_room;
		grown = realloc(r->batches, room * sizeof(*grown));
		if (grown == NULL)
			return -ENOMEM;
		r->batches = grown;
		r->batch_room = room;
	}
	r->batches[r->batch_count++] =
		(struct daemon_batch){ range->from_pos, range->from_lsn };
	return 0;
}

static bool range_is_good(const struct petal_journal_range *range)
{
	return PETAL_RUNS_KEY_RING(range->ring) != 0 &&
	       PETAL_RUNS_KEY_RUN(range->ring) != 0 &&
	       range->data_bytes >= PETAL_LOG_DATA_BYTES_MIN &&
	       range->data_bytes <= PETAL_LOG_DATA_BYTES_MAX &&
	       (range->data_bytes & (range->data_bytes - 1)) == 0 &&
	       range->to_pos - range->from_pos <= range->data_bytes;
}

static void put_bytes(struct daemon_restored *r,
		      const struct petal_journal_range *range,
		      const void *bytes)
{
	uint64_t length = range->to_pos - range->from_pos;
	uint64_t at = range->from_pos & (range->data_bytes - 1);
	uint64_t run = range->data_bytes - at;

	if (run > length)
		run = length;
	memcpy(r->data + at, bytes, run);
	memcpy(r->data, (const uint8_t *)bytes + run, length - run);
}

static int visit(void *arg, const struct petal_journal_range *range,
		 const void *bytes)
{
	struct daemon *d = arg;
	struct daemon_restored *r = find(d, range->ring);
	int err = 0;

	if (!range_is_good(range))
		return -PETAL_ECORRUPT;
	if (r == NULL)
		r = find(d, 0);
	if (r == NULL)
		return -ENOSPC;
	if (r->key == 0 || r->to_pos != range->from_pos ||
	    r->data_bytes != range->data_bytes)
		err = begin(r, range);
	if (err == 0)
		err = note_batch(r, range);
	if (err < 0)
		return err;
	put_bytes(r, range, bytes);
	r->to_pos = range->to_pos;
	r->epoch = range->epoch;
	r->trim_pos = range->trim_pos;
	r->whole |= range->to_pos >= range->whole_pos;
	return 0;
}

/* Of two runs of a ring: the later one, if it is whole or none is. */
static bool speaks_before(const struct daemon_restored *a,
			  const struct daemon_restored *b)
{
	if (a->whole != b->whole)
		return a->whole;
	return a->key > b->key;
}

static struct daemon_restored *speaker_of(struct daemon *d, uint64_t id)
{
	struct daemon_restored *best = NULL;

	for (unsigned i = 0; i < DAEMON_RESTORED_MAX; i++) {
		struct daemon_restored *r = &d->restored[i];

		if (r->key != 0 && PETAL_RUNS_KEY_RING(r->key) == id &&
		    (best == NULL || speaks_before(r, best)))
			best = r;
	}
	return best;
}

/* One run of each ring stays: what its disk once acknowledged. */
static int choose(struct daemon *d)
{
	for (unsigned i = 0; i < DAEMON_RESTORED_MAX; i++) {
		struct daemon_restored *r = &d->restored[i];
		struct daemon_restored *speaker;
		struct daemon_disk *disk;
		uint32_t run = PETAL_RUNS_KEY_RUN(r->key);

		if (r->key == 0)
			continue;
		speaker = speaker_of(d, PETAL_RUNS_KEY_RING(r->key));
		disk = daemon_disks_of(d, PETAL_RUNS_KEY_RING(r->key));
		if (disk == NULL)
			return -ENOSPC;
		if (run > disk->runs.highest)
			disk->runs.highest = run;
		disk->runs.before = PETAL_RUNS_KEY_RUN(speaker->key);
		if (r == speaker)
			continue;
		petal_journal_detach(d->journal, r->key);
		forget(r);
	}
	return 0;
}

int daemon_restore(struct daemon *d)
{
	int err = petal_journal_replay(d->journal, visit, d);

	return err == 0 ? choose(d) : err;
}

static int restore_piece(struct petal_backup *backup,
			 const struct daemon_restored *r,
			 struct petal_record_cursor *from, uint64_t end)
{
	uint64_t at = from->pos & (r->data_bytes - 1);
	int err = petal_backup_restore(backup, from, r->data + at,
				       end - from->pos, r->trim_pos);

	*from = backup->cursor;
	return err;
}

/* The oldest batch that a later lap has not written over. */
static const struct daemon_batch *first_whole(const struct daemon_restored *r)
{
	for (uint32_t i = 0; i < r->batch_count; i++) {
		if (r->to_pos - r->batches[i].pos <= r->data_bytes)
			return &r->batches[i];
	}
	return NULL;
}

static bool adopt(struct daemon_restored *r, struct petal_backup *backup)
{
	const struct daemon_batch *first = first_whole(r);
	struct petal_record_cursor from;
	uint64_t wrap;

	if (first == NULL)
		return false;
	/* What the journal has let go was done, whatever the last header says. */
	if (r->batches[0].pos > r->trim_pos)
		r->trim_pos = r->batches[0].pos;
	from = (struct petal_record_cursor){ .pos = first->pos,
					     .lsn = first->lsn - 1,
					     .epoch = r->epoch };
	wrap = (first->pos | (r->data_bytes - 1)) + 1;
	if (wrap >= r->to_pos)
		return restore_piece(backup, r, &from, r->to_pos) == 0;
	return restore_piece(backup, r, &from, wrap) == 0 &&
	       restore_piece(backup, r, &from, r->to_pos) == 0;
}

/* The run goes on where its log ends. */
static void resume(struct daemon *d, const struct daemon_restored *r,
		   const struct petal_backup *backup)
{
	struct daemon_disk *disk =
		daemon_disks_of(d, PETAL_RUNS_KEY_RING(r->key));

	petal_runs_resume(&disk->runs, PETAL_RUNS_KEY_RUN(r->key),
			  disk->runs.highest, r->whole, &backup->cursor,
			  backup->trim_pos);
}

void daemon_restore_adopt(struct daemon *d, struct daemon_ring *ring)
{
	struct daemon_restored *r = speaker_of(d, ring->config.id);
	bool good;

	if (r == NULL) {
		/* This disk never acknowledged anything of the ring. */
		ring->backup.remembers =
			daemon_disks_is_new(d, ring->config.id);
		return;
	}
	/* Our registry may be behind: then there is a later epoch to come. */
	if (r->epoch > ring->config.epoch ||
	    r->data_bytes != ring->config.data_bytes)
		return;
	good = adopt(r, &ring->backup);
	/* The first run may lack what it is to have: it promised nothing yet. */
	ring->backup.remembers = good &&
				 (r->whole || PETAL_RUNS_KEY_RUN(r->key) == 1);
	if (good)
		resume(d, r, &ring->backup);
	else
		fprintf(stderr,
			"petald: the journal's records of ring '%s' make no "
			"sense: it has no say in what follows\n",
			ring->config.name);
	forget(r);
}

struct search {
	uint64_t ring;
	bool found;
};

static int visit_config(void *arg, const char *key, const void *value,
			uint32_t length, uint64_t version)
{
	const char *name = key + strlen(PETAL_RING_CONFIG_PREFIX);
	struct search *search = arg;
	struct petal_ring_config config;

	/* What we cannot read may be any ring. */
	search->found |= petal_ring_config_parse(name, value, length, version,
						 &config) < 0 ||
			 config.id == search->ring;
	return 0;
}

static bool is_known(struct daemon *d, uint64_t ring)
{
	struct search search = { .ring = ring };

	petal_registry_each(d->registry, PETAL_RING_CONFIG_PREFIX, visit_config,
			    &search);
	return search.found;
}

void daemon_restore_check(struct daemon *d)
{
	bool any = false;

	for (unsigned i = 0; i < DAEMON_RESTORED_MAX; i++)
		any |= d->restored[i].key != 0;
	/* No key has that version, so it is a conflict. */
	if (any)
		daemon_swaps_add(d, DAEMON_SWAP_BARRIER, "barrier", UINT64_MAX,
				 "", 0);
}

void daemon_restore_checked(struct daemon *d, int status)
{
	if (status < 0) {
		daemon_restore_check(d);
		return;
	}
	daemon_epochs_reconcile(d);
	for (unsigned i = 0; i < DAEMON_RESTORED_MAX; i++) {
		struct daemon_restored *r = &d->restored[i];

		if (r->key == 0 || is_known(d, PETAL_RUNS_KEY_RING(r->key)))
			continue;
		daemon_disks_forget(d, PETAL_RUNS_KEY_RING(r->key));
		forget(r);
	}
}

void daemon_restore_drop(struct daemon *d)
{
	for (unsigned i = 0; i < DAEMON_RESTORED_MAX; i++)
		forget(&d->restored[i]);
}
