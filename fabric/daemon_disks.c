/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this node's journal keeps of each ring: fabric/runs.h decides, and here
 * it is carried out. A ring has one memory that the journal reads from at a
 * time, and one batch on its way.
 *
 * What can go wrong: the journal is full. What it keeps of a ring goes when it
 * is done and this disk knows so, and a log that begins anew has the one before
 * beside it; but a ring must not stop for ever for want of space. So then the one
 * before goes, and this disk has no say until the new one is whole; or else what
 * is done is let go at once.
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <stdio.h>

#include "shm/clock.h"

#define FULL_NS PETAL_S(1) /* so long a full journal is waited for */

static struct daemon_disk *find(struct daemon *d, uint64_t id)
{
	for (unsigned i = 0; i < d->disk_count; i++) {
		if (d->disks[i].ring == id)
			return &d->disks[i];
	}
	return NULL;
}

struct daemon_disk *daemon_disks_of(struct daemon *d, uint64_t id)
{
	struct daemon_disk *disk = find(d, id);

	if (disk == NULL)
		disk = find(d, 0);
	if (disk == NULL && d->disk_count < DAEMON_RESTORED_MAX)
		disk = &d->disks[d->disk_count++];
	if (disk != NULL && disk->ring != id)
		*disk = (struct daemon_disk){ .ring = id };
	return disk;
}

bool daemon_disks_is_new(struct daemon *d, uint64_t id)
{
	const struct daemon_disk *disk = find(d, id);

	return disk == NULL || disk->runs.highest == 0;
}

static int attach(struct daemon_ring *ring, uint32_t run)
{
	return petal_journal_attach(ring->daemon->journal,
				    PETAL_RUNS_KEY(ring->config.id, run),
				    ring->log.data, ring->config.data_bytes);
}

int daemon_disks_move(struct daemon_ring *ring)
{
	struct daemon_disk *disk =
		daemon_disks_of(ring->daemon, ring->config.id);

	if (disk == NULL)
		return -ENOSPC;
	return disk->runs.run == 0 ? 0 : attach(ring, disk->runs.run);
}

static void trim(struct daemon *d, const struct daemon_disk *disk)
{
	petal_journal_trim(d->journal,
			   PETAL_RUNS_KEY(disk->ring, disk->runs.run),
			   disk->runs.trim_pos);
}

void daemon_disks_trim(struct daemon_ring *ring, uint64_t done_pos,
		       uint64_t seen_pos, uint64_t disk_pos)
{
	struct daemon_disk *disk = find(ring->daemon, ring->config.id);
	uint64_t before;

	if (disk == NULL || disk->runs.run == 0)
		return;
	before = disk->runs.trim_pos;
	petal_runs_trim(&disk->runs, done_pos, seen_pos, disk_pos);
	if (disk->runs.trim_pos != before)
		trim(ring->daemon, disk);
}

static uint64_t refused_full(const struct daemon *d)
{
	struct petal_journal_stats stats;

	petal_journal_stats(d->journal, &stats);
	return stats.refused_full;
}

/* See above: the next try may find room. */
static void make_room(struct daemon_ring *ring, struct daemon_disk *disk,
		      uint32_t run)
{
	struct daemon *d = ring->daemon;
	uint32_t before =
		petal_runs_give_up(&disk->runs, run != disk->runs.run);

	if (before == 0) {
		disk->runs.next_seen_pos = 0;
		disk->runs.trim_pos = disk->runs.next_trim_pos;
		trim(d, disk);
		return;
	}
	fprintf(stderr,
		"petald: ring '%s': the journal has no room for an older log "
		"beside the new one: this disk has no say after a power cut "
		"until the new one is whole\n",
		ring->config.name);
	petal_journal_detach(d->journal, PETAL_RUNS_KEY(disk->ring, before));
}

static int append(struct daemon_ring *ring, struct daemon_disk *disk,
		  const struct petal_journal_range *range)
{
	struct daemon *d = ring->daemon;
	int err = petal_journal_append(d->journal, range);

	if (err == 0)
		disk->full_ns = 0;
	if (err != -EAGAIN || refused_full(d) == d->refused_full)
		return err;
	d->refused_full = refused_full(d);
	/* Most often it only waits for a note that says what is free. */
	if (disk->full_ns == 0)
		disk->full_ns = d->now_ns;
	else if (d->now_ns - disk->full_ns >= FULL_NS)
		make_room(ring, disk, PETAL_RUNS_KEY_RUN(range->ring));
	return err;
}

/* The run before, if it is another one, and what nobody needs. */
static void put_away(struct daemon *d, const struct daemon_disk *disk,
		     uint32_t before, uint32_t dropped)
{
	if (before != disk->runs.run && before != dropped && before != 0)
		petal_journal_retire(d->journal,
				     PETAL_RUNS_KEY(disk->ring, before));
	if (dropped != 0)
		petal_journal_detach(d->journal,
				     PETAL_RUNS_KEY(disk->ring, dropped));
}

int daemon_disks_journal(struct daemon_ring *ring,
			 const struct petal_record_cursor *from,
			 const struct petal_record_cursor *to,
			 uint64_t whole_pos)
{
	struct daemon *d = ring->daemon;
	struct daemon_disk *disk = find(d, ring->config.id);
	struct petal_journal_range range = {
		.from_pos = from->pos,
		.to_pos = to->pos,
		.from_lsn = from->lsn + 1,
		.to_lsn = to->lsn,
		.whole_pos = whole_pos,
		.epoch = ring->config.epoch,
	};
	uint32_t run, before;
	int err = 0;

	if (!ring->journaling || disk == NULL)
		return -EAGAIN;
	before = disk->runs.run;
	run = petal_runs_next(&disk->runs, from);
	range.ring = PETAL_RUNS_KEY(ring->config.id, run);
	range.trim_pos = run == before ? disk->runs.trim_pos : from->pos;
	/* Once whole it stays so, also when the batch that said so is gone. */
	if (run == before && disk->runs.whole)
		range.whole_pos = from->pos;
	if (run != before)
		err = attach(ring, run);
	if (err == 0)
		err = append(ring, disk, &range);
	if (err < 0 && run != before)
		petal_journal_detach(d->journal, range.ring);
	if (err < 0)
		return err;
	put_away(d, disk, before,
		 petal_runs_given(&disk->runs, from, to, whole_pos));
	return 0;
}

void daemon_disks_durable(struct daemon *d,
			  const struct petal_journal_done *done)
{
	struct daemon_disk *disk = find(d, PETAL_RUNS_KEY_RING(done->ring));

	if (disk == NULL || done->status < 0)
		return;
	put_away(d, disk, 0,
		 petal_runs_durable(&disk->runs, PETAL_RUNS_KEY_RUN(done->ring),
				    done->to_pos));
}

bool daemon_disks_forget(struct daemon *d, uint64_t id)
{
	struct daemon_disk *disk = find(d, id);
	uint64_t keys[2];

	if (disk == NULL)
		return true;
	keys[0] = PETAL_RUNS_KEY(id, disk->runs.before);
	keys[1] = PETAL_RUNS_KEY(id, disk->runs.run);
	for (unsigned i = 0; i < 2; i++) {
		if (petal_journal_detach(d->journal, keys[i]) == -EBUSY)
			return false;
	}
	disk->ring = 0;
	return true;
}
