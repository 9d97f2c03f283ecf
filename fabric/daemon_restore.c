/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal is read before the registry has told us which rings there are,
 * so what it held waits here until its ring is opened.
 *
 * Of a ring that was deleted while we were away we would keep it for ever, and
 * with it the space of every batch behind it. But our registry may be behind at
 * the start, and lack a ring that is there. So we ask its leader for a change
 * that changes nothing, and wait until our registry is as far as the leader's
 * was then: what it lacks now was deleted.
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/error.h"

static struct daemon_restored *find(struct daemon *d, uint64_t ring)
{
	for (unsigned i = 0; i < DAEMON_RESTORED_MAX; i++) {
		if (d->restored[i].ring == ring)
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
	r->ring = range->ring;
	r->data_bytes = range->data_bytes;
	r->to_pos = range->from_pos;
	r->epoch = range->epoch;
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
	return range->ring != 0 &&
	       range->data_bytes >= PETAL_LOG_DATA_BYTES_MIN &&
	       range->data_bytes <= PETAL_LOG_DATA_BYTES_MAX &&
	       (range->data_bytes & (range->data_bytes - 1)) == 0 &&
	       range->to_pos - range->from_pos <= range->data_bytes;
}

/* A later epoch may go on before where an earlier one ended. */
static void cut(struct daemon_restored *r, uint64_t pos)
{
	while (r->batch_count > 0 && r->to_pos > pos) {
		r->to_pos = r->batches[r->batch_count - 1].pos;
		if (r->to_pos < pos)
			r->to_pos = pos;
		else
			r->batch_count--;
	}
}

static int visit(void *arg, const struct petal_journal_range *range,
		 const void *bytes)
{
	struct daemon *d = arg;
	struct daemon_restored *r = find(d, range->ring);
	uint64_t length = range->to_pos - range->from_pos;
	uint64_t at, run;
	int err = 0;

	if (!range_is_good(range))
		return -PETAL_ECORRUPT;
	if (r == NULL)
		r = find(d, 0);
	if (r == NULL)
		return -ENOSPC;
	if (r->ring != 0)
		cut(r, range->from_pos);
	if (r->ring == 0 || r->to_pos != range->from_pos ||
	    r->data_bytes != range->data_bytes)
		err = begin(r, range);
	if (err == 0)
		err = note_batch(r, range);
	if (err < 0)
		return err;
	at = range->from_pos & (range->data_bytes - 1);
	run = range->data_bytes - at < length ? range->data_bytes - at : length;
	memcpy(r->data + at, bytes, run);
	memcpy(r->data, (const uint8_t *)bytes + run, length - run);
	r->to_pos = range->to_pos;
	r->epoch = range->epoch;
	r->trim_pos = range->trim_pos;
	return 0;
}

int daemon_restore(struct daemon *d)
{
	return petal_journal_replay(d->journal, visit, d);
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

static bool adopt(const struct daemon_restored *r, struct petal_backup *backup)
{
	const struct daemon_batch *first = first_whole(r);
	struct petal_record_cursor from;
	uint64_t wrap;

	if (first == NULL)
		return false;
	from = (struct petal_record_cursor){ .pos = first->pos,
					     .lsn = first->lsn - 1,
					     .epoch = r->epoch };
	wrap = (first->pos | (r->data_bytes - 1)) + 1;
	if (wrap >= r->to_pos)
		return restore_piece(backup, r, &from, r->to_pos) == 0;
	return restore_piece(backup, r, &from, wrap) == 0 &&
	       restore_piece(backup, r, &from, r->to_pos) == 0;
}

bool daemon_restore_adopt(struct daemon *d, struct daemon_ring *ring)
{
	struct daemon_restored *r = find(d, ring->config.id);
	bool good;

	if (r == NULL)
		return false;
	good = r->epoch <= ring->config.epoch &&
	       r->data_bytes == ring->config.data_bytes &&
	       adopt(r, &ring->backup);
	forget(r);
	return good;
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
		any |= d->restored[i].ring != 0;
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

		if (r->ring == 0 || is_known(d, r->ring))
			continue;
		petal_journal_detach(d->journal, r->ring);
		forget(r);
	}
}

void daemon_restore_drop(struct daemon *d)
{
	for (unsigned i = 0; i < DAEMON_RESTORED_MAX; i++)
		forget(&d->restored[i]);
}
