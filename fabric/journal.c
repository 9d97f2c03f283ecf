/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The journal at work: the calls. journal_file.c makes the file and
 * journal_replay.c reads it; journal_space.c knows what room is left and
 * journal_batch.c puts a batch together; how bytes reach the file is the
 * engine's business (journal_io.h).
 *
 * The happy path. An append finds room after the newest batch, and a batch is
 * made of it and given to the engine. A poll collects completions, moves
 * "durable" over all entries of the table of batches that are written without
 * a gap, and reports them. Trimming gives up what nobody needs; if little room
 * is left, it writes a note at once, so that the space is free when it is
 * asked for.
 *
 * The failure modes. There is no room: -EAGAIN, until a trim and the batch or
 * note after it. A write fails: freeze, at the first entry that is not durable;
 * everything from there on is reported as -PETAL_EDISK. A crash tears the
 * newest batches: replay goes back from the newest header, and where the chain
 * is broken, at a batch that no header calls durable, it starts again below.
 * What it passes over in this way (a whole batch behind a torn one) stays in
 * the file, below a note by which replay ends, and has a sequence that is never
 * used again and nobody's header refers to. The disk forgets or changes what
 * was durable: replay stops.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/journal_private.h"
#include "shm/error.h"

enum {
	RANGE_BYTES_MAX = 16 << 20,
	/* Below this share of free space, trimming writes a note at once. */
	LOW_SPACE_SHARE = 8,
};

/*
 * Open and close.
 */

static int options_check(const struct petal_journal_options *options)
{
	if (!options->dir || options->bytes % BLOCK ||
	    options->bytes < PETAL_JOURNAL_BYTES_MIN ||
	    options->bytes > PETAL_JOURNAL_BYTES_MAX)
		return -EINVAL;
	return 0;
}

static int tables_alloc(struct petal_journal *journal)
{
	uint64_t entries_max = 1;
	/* A quarter of the area, so that an empty one takes it anywhere. */
	uint64_t quarter = journal_area_bytes(journal) / 4 / BLOCK * BLOCK;

	while (entries_max < journal_area_bytes(journal) / BLOCK &&
	       entries_max < PETAL_JOURNAL_BATCHES_MAX)
		entries_max *= 2;
	journal->entries_max = entries_max;
	journal->range_bytes_max =
		min_u64(RANGE_BYTES_MAX, quarter - BOUNCE_BYTES);
	journal->entries = petal_journal_pages_alloc(
		entries_max * sizeof(struct journal_entry));
	journal->bounce = petal_journal_pages_alloc(SLOTS * BOUNCE_BYTES);
	if (!journal->entries || !journal->bounce)
		return -ENOMEM;
	/* In a child the pages would change under the kernel's hands. */
	madvise(journal->bounce, SLOTS * BOUNCE_BYTES, MADV_DONTFORK);
	return 0;
}

static int engine_open(struct petal_journal *journal)
{
	int err;

	err = petal_journal_io_open(journal->fd, SLOTS,
				    AREA_BUFFER + PETAL_JOURNAL_RINGS_MAX,
				    &journal->io);
	if (err)
		return err;
	journal->bounce_fixed = !petal_journal_io_register(
		journal->io, BOUNCE_BUFFER, journal->bounce,
		SLOTS * BOUNCE_BYTES);
	return 0;
}

static int journal_open(struct petal_journal *journal,
			const struct petal_journal_options *options)
{
	int err;

	journal->dir_fd =
		open(options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (journal->dir_fd < 0)
		return -errno;
	err = petal_journal_file_open(journal, options);
	if (!err)
		err = tables_alloc(journal);
	if (!err)
		err = engine_open(journal);
	return err;
}

static void journal_free(struct petal_journal *journal)
{
	if (journal->io)
		petal_journal_io_close(journal->io);
	petal_journal_file_close(journal);
	if (journal->dir_fd >= 0)
		close(journal->dir_fd);
	petal_journal_pages_free(journal->entries,
				 journal->entries_max *
					 sizeof(struct journal_entry));
	petal_journal_pages_free(journal->bounce, SLOTS * BOUNCE_BYTES);
	free(journal);
}

int petal_journal_open(const struct petal_journal_options *options,
		       struct petal_journal **ret_journal)
{
	struct petal_journal *journal;
	int err;

	err = options_check(options);
	if (err)
		return err;
	journal = calloc(1, sizeof(*journal));
	if (!journal)
		return -ENOMEM;
	journal->dir_fd = -1;
	journal->fd = -1;
	journal->direct = options->direct;
	journal->file_bytes = options->bytes;
	journal->head = AREA_OFFSET;
	journal->next_sequence = 1;
	err = journal_open(journal, options);
	if (err) {
		journal_free(journal);
		return err;
	}
	*ret_journal = journal;
	return 0;
}

int petal_journal_fd(const struct petal_journal *journal)
{
	return petal_journal_io_fd(journal->io);
}

/*
 * Rings.
 */

static bool ring_known(const struct journal_ring *ring)
{
	return ring->attached || ring->batches;
}

static struct journal_ring *ring_find(struct petal_journal *journal,
				      uint64_t id)
{
	for (unsigned int i = 0; i < journal->rings_used; i++) {
		struct journal_ring *ring = &journal->rings[i];

		if (ring->id == id && ring_known(ring))
			return ring;
	}
	return NULL;
}

struct journal_ring *petal_journal_ring_add(struct petal_journal *journal,
					    uint64_t id)
{
	struct journal_ring *ring = ring_find(journal, id);
	unsigned int i = 0;

	if (ring)
		return ring;
	while (i < journal->rings_used && ring_known(&journal->rings[i]))
		i++;
	if (i == PETAL_JOURNAL_RINGS_MAX)
		return NULL;
	if (i == journal->rings_used)
		journal->rings_used++;
	ring = &journal->rings[i];
	*ring = (struct journal_ring){ .id = id };
	return ring;
}

static void ring_let_go(struct petal_journal *journal,
			struct journal_ring *ring)
{
	if (ring->fixed)
		petal_journal_io_unregister(
			journal->io,
			AREA_BUFFER + petal_journal_ring_index(journal, ring));
	ring->fixed = false;
	ring->attached = false;
	ring->data = NULL;
}

int petal_journal_attach(struct petal_journal *journal, uint64_t ring_id,
			 const void *data, uint64_t data_bytes)
{
	struct journal_ring *ring;

	if (!data || (uintptr_t)data % BLOCK || data_bytes < BLOCK ||
	    data_bytes & (data_bytes - 1))
		return -EINVAL;
	ring = petal_journal_ring_add(journal, ring_id);
	if (!ring)
		return -ENOSPC;
	if (ring->in_flight)
		return -EBUSY;
	ring_let_go(journal, ring);
	ring->attached = true;
	ring->data = data;
	ring->data_bytes = data_bytes;
	ring->fixed = !petal_journal_io_register(
		journal->io,
		AREA_BUFFER + petal_journal_ring_index(journal, ring), data,
		data_bytes);
	return 0;
}

/*
 * Asking for a batch.
 */

/* If space waits only for a batch that says it is free, write one. */
static void space_ask(struct petal_journal *journal)
{
	/* The note takes a block itself, and must win more than that. */
	if (!journal->ready || journal->frozen ||
	    petal_journal_reclaimable_bytes(journal) < 2 * BLOCK ||
	    petal_journal_oldest_sequence(journal) <= journal->last_oldest)
		return;
	petal_journal_note_submit(journal, false);
}

static int range_check(const struct petal_journal *journal,
		       const struct journal_ring *ring,
		       const struct petal_journal_range *range)
{
	uint64_t length = range->to_pos - range->from_pos;

	if (range->to_pos <= range->from_pos || length > ring->data_bytes)
		return -EINVAL;
	return length > journal->range_bytes_max ? -EMSGSIZE : 0;
}

static int append_allowed(const struct petal_journal *journal)
{
	if (journal->damaged)
		return -PETAL_ECORRUPT;
	if (journal->frozen)
		return -PETAL_EDISK;
	return journal->ready ? 0 : -EINVAL;
}

static bool append_has_slot(const struct petal_journal *journal)
{
	unsigned int used = journal->slots_used - journal->note_in_flight;

	return used < PETAL_JOURNAL_INFLIGHT_MAX;
}

int petal_journal_append(struct petal_journal *journal,
			 const struct petal_journal_range *range)
{
	struct journal_ring *ring;
	struct journal_shape shape;
	uint64_t offset;
	int err;

	err = append_allowed(journal);
	if (err)
		return err;
	ring = ring_find(journal, range->ring);
	if (!ring || !ring->attached)
		return -ENOENT;
	err = range_check(journal, ring, range);
	if (err)
		return err;
	if (ring->in_flight) {
		journal->stats.refused_busy++;
		return -EBUSY;
	}
	if (!append_has_slot(journal)) {
		journal->stats.refused_busy++;
		return -EAGAIN;
	}
	shape = petal_journal_shape(range->from_pos, range->to_pos);
	/* The last entry is the note's, as the last block is. */
	if (journal->end - journal->first >= journal->entries_max - 1 ||
	    !petal_journal_space_find(journal,
				      (uint64_t)shape.block_count * BLOCK, true,
				      &offset)) {
		journal->stats.refused_full++;
		space_ask(journal);
		return -EAGAIN;
	}
	petal_journal_batch_submit(journal, ring, range, &shape, offset);
	return 0;
}

/*
 * Learning what became of it.
 */

static void completions_take(struct petal_journal *journal, bool wait)
{
	struct petal_journal_written written[SLOTS];
	unsigned int count;

	count = petal_journal_io_reap(journal->io, written, SLOTS, wait);
	for (unsigned int i = 0; i < count; i++) {
		struct journal_slot *slot = &journal->slots[written[i].cookie];

		slot->written = true;
		slot->status = written[i].status;
	}
}

static void durable_advance(struct petal_journal *journal)
{
	while (!journal->frozen && journal->durable < journal->end) {
		struct journal_entry *entry =
			journal_entry_at(journal, journal->durable);
		struct journal_slot *slot = &journal->slots[entry->slot];

		if (!slot->written)
			break;
		if (slot->status) {
			journal->frozen = true;
			journal->frozen_status = slot->status;
			break;
		}
		journal->durable_sequence = entry->sequence;
		petal_journal_space_release(journal, journal->durable++);
	}
}

static void slot_release(struct petal_journal *journal,
			 struct journal_slot *slot)
{
	slot->used = false;
	journal->slots_used--;
}

/* Report the entry at "reported". Return: whether the caller hears of it. */
static bool entry_report(struct petal_journal *journal,
			 struct petal_journal_done *done)
{
	bool good = journal->reported < journal->durable;
	struct journal_entry *entry =
		journal_entry_at(journal, journal->reported++);
	struct journal_slot *slot = &journal->slots[entry->slot];
	struct journal_ring *ring;

	slot_release(journal, slot);
	if (entry->ring == RING_NONE) {
		journal->note_in_flight = false;
		return false;
	}
	ring = &journal->rings[entry->ring];
	ring->in_flight = false;
	done->ring = ring->id;
	done->to_pos = entry->to_pos;
	done->to_lsn = slot->to_lsn;
	done->status = good ? 0 : -PETAL_EDISK;
	return true;
}

/*
 * What will never be durable is reported too, but only when the kernel has let
 * go of the memory.
 */
static bool report_due(const struct petal_journal *journal)
{
	const struct journal_entry *entry;

	if (journal->reported < journal->durable)
		return true;
	if (!journal->frozen || journal->reported == journal->end)
		return false;
	entry = journal_entry_at(journal, journal->reported);
	return journal->slots[entry->slot].written;
}

int petal_journal_poll(struct petal_journal *journal,
		       struct petal_journal_done *done, unsigned int max)
{
	unsigned int count = 0;

	completions_take(journal, false);
	durable_advance(journal);
	while (count < max && report_due(journal))
		count += entry_report(journal, &done[count]);
	petal_journal_oldest_advance(journal);
	return (int)count;
}

/*
 * Giving space back.
 */

static void space_returned(struct petal_journal *journal)
{
	petal_journal_oldest_advance(journal);
	if (journal_area_bytes(journal) - petal_journal_used_bytes(journal) <
	    journal_area_bytes(journal) / LOW_SPACE_SHARE)
		space_ask(journal);
}

int petal_journal_trim(struct petal_journal *journal, uint64_t ring_id,
		       uint64_t pos)
{
	struct journal_ring *ring = ring_find(journal, ring_id);

	if (!ring)
		return -ENOENT;
	if (pos > ring->trim_pos)
		ring->trim_pos = pos;
	space_returned(journal);
	return 0;
}

int petal_journal_retire(struct petal_journal *journal, uint64_t ring_id)
{
	struct journal_ring *ring = ring_find(journal, ring_id);

	if (!ring)
		return -ENOENT;
	if (ring->in_flight)
		return -EBUSY;
	ring_let_go(journal, ring);
	return 0;
}

int petal_journal_detach(struct petal_journal *journal, uint64_t ring_id)
{
	struct journal_ring *ring = ring_find(journal, ring_id);

	if (!ring)
		return -ENOENT;
	if (ring->in_flight)
		return -EBUSY;
	ring_let_go(journal, ring);
	/* Attached again, it starts anew: positions are no guide then. */
	ring->trim_pos = 0;
	ring->freed_below = journal->next_sequence;
	space_returned(journal);
	return 0;
}

/*
 * What is told, and the end.
 */

static void stats_rings(const struct petal_journal *journal,
			struct petal_journal_stats *stats)
{
	const struct journal_entry *entry;

	for (unsigned int i = 0; i < journal->rings_used; i++) {
		stats->areas += journal->rings[i].attached;
		stats->areas_fixed += journal->rings[i].fixed;
	}
	stats->live_batches = journal->end - journal->oldest;
	if (journal->oldest == journal->end)
		return;
	entry = journal_entry_at(journal, journal->oldest);
	if (entry->ring == RING_NONE)
		return;
	stats->oldest_ring = journal->rings[entry->ring].id;
	stats->oldest_to_pos = entry->to_pos;
}

void petal_journal_uuid(const struct petal_journal *journal,
			uint8_t ret_uuid[16])
{
	memcpy(ret_uuid, journal->uuid, sizeof(journal->uuid));
}

void petal_journal_stats(const struct petal_journal *journal,
			 struct petal_journal_stats *ret_stats)
{
	*ret_stats = journal->stats;
	ret_stats->engine = petal_journal_io_name();
	ret_stats->capacity_bytes = journal_area_bytes(journal);
	ret_stats->used_bytes = petal_journal_used_bytes(journal);
	ret_stats->range_bytes_max = journal->range_bytes_max;
	ret_stats->bounce_fixed = journal->bounce_fixed;
	ret_stats->direct = journal->direct;
	ret_stats->memory_only = journal->memory_only;
	ret_stats->frozen = journal->frozen;
	ret_stats->frozen_status = journal->frozen_status;
	stats_rings(journal, ret_stats);
}

/* Nobody hears of these any more; only the memory must be let go. */
void petal_journal_flight_wait(struct petal_journal *journal)
{
	struct petal_journal_done done;

	for (unsigned int i = 0; i < SLOTS && journal->slots_used; i++) {
		completions_take(journal, true);
		durable_advance(journal);
		while (report_due(journal))
			entry_report(journal, &done);
	}
	petal_journal_oldest_advance(journal);
}

void petal_journal_close(struct petal_journal *journal)
{
	if (!journal)
		return;
	petal_journal_flight_wait(journal);
	if (journal->ready && !journal->frozen && journal->last_sequence &&
	    !journal->last_is_note && petal_journal_note_submit(journal, true))
		petal_journal_flight_wait(journal);
	journal_free(journal);
}
