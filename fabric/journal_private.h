/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_JOURNAL_PRIVATE_H
#define PETAL_FABRIC_JOURNAL_PRIVATE_H

#include <assert.h>
#include <stddef.h>

#include <sys/mman.h>

#include "fabric/journal.h"
#include "fabric/journal_io.h"

/**
 * DOC: journal_private - what the journal's five files share
 *
 * journal_file.c makes, locks and identifies the file; journal_replay.c reads
 * it once; journal.c runs it, with journal_space.c, which keeps the table of
 * batches and knows what room is left, and journal_batch.c, which puts a batch
 * together. Here are the bytes on the disk, which move only together with
 * PETAL_JOURNAL_VERSION, and the state in memory.
 */

#define HEADER_MAGIC UINT64_C(0x6863746162706a11)

enum {
	BLOCK = PETAL_JOURNAL_BLOCK_BYTES,
	AREA_OFFSET = 8 * BLOCK,
	CHUNK_BYTES = 1 << 20,
	/* One more than the caller may have in flight: the note. */
	SLOTS = PETAL_JOURNAL_INFLIGHT_MAX + 1,
	BOUNCE_BLOCKS = 3,
	BOUNCE_BYTES = BOUNCE_BLOCKS * BLOCK,
	HEADER_NOTE = 1,
	RING_NONE = UINT16_MAX,
	/* Registered buffers: the bounce blocks, then an area per ring. */
	BOUNCE_BUFFER = 0,
	AREA_BUFFER = 1,
};

struct journal_header {
	uint64_t magic;
	uint32_t version;
	uint32_t flags;
	uint8_t uuid[16];
	uint64_t sequence;
	uint64_t file_offset;
	uint64_t prev_sequence;
	uint64_t prev_offset;
	uint32_t prev_crc;
	uint32_t block_count;
	uint64_t durable_upto;
	uint64_t oldest_needed;
	uint64_t ring;
	uint64_t from_pos;
	uint64_t to_pos;
	uint64_t from_lsn;
	uint64_t to_lsn;
	uint64_t trim_pos;
	uint64_t data_bytes;
	uint64_t whole_pos;
	uint32_t epoch;
	uint32_t bytes_crc;
	uint32_t head_bytes;
	uint32_t tail_bytes;
	uint32_t bounce_blocks;
	uint8_t reserved[80];
	uint32_t crc;
};

static_assert(sizeof(struct journal_header) == 256, "within one sector");
static_assert(offsetof(struct journal_header, sequence) == 32, "no hole");
static_assert(offsetof(struct journal_header, prev_crc) == 64, "no hole");
static_assert(offsetof(struct journal_header, ring) == 88, "no hole");
static_assert(offsetof(struct journal_header, epoch) == 152, "no hole");
static_assert(offsetof(struct journal_header, crc) == 252,
	      "covers all before it");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	      "the file is little-endian and never swapped");
static_assert(sizeof(struct journal_header) + 2 * (BLOCK - 1) <= BOUNCE_BYTES,
	      "header and both ragged ends fit the bounce blocks");

/* How a range is cut into what is copied and what is not. */
struct journal_shape {
	uint32_t head_bytes;
	uint32_t tail_bytes;
	uint64_t direct_bytes;
	uint32_t bounce_blocks;
	uint32_t block_count;
};

struct journal_ring {
	uint64_t id;
	uint64_t trim_pos;
	/* Batches before this sequence were freed by a detach. */
	uint64_t freed_below;
	const uint8_t *data;
	uint64_t data_bytes;
	/* Entries of the table that refer to this ring. */
	uint32_t batches;
	bool attached;
	bool fixed;
	bool in_flight;
};

struct journal_entry {
	uint64_t sequence;
	uint64_t offset;
	uint64_t to_pos;
	uint64_t oldest_needed;
	uint32_t block_count;
	/* Index of the ring, or RING_NONE for a note. */
	uint16_t ring;
	uint16_t slot;
};

struct journal_slot {
	bool used;
	bool written;
	int status;
	uint64_t to_lsn;
};

struct petal_journal {
	int dir_fd;
	int fd;
	bool direct;
	bool memory_only;
	bool fresh;
	bool replayed;
	bool ready;
	bool damaged;
	bool frozen;
	int frozen_status;
	struct petal_journal_io *io;
	uint8_t uuid[16];
	uint64_t file_bytes;
	uint64_t range_bytes_max;

	/* The table of batches; journal_space.c says what its marks mean. */
	struct journal_entry *entries;
	uint64_t entries_max;
	uint64_t first;
	uint64_t oldest;
	uint64_t reported;
	uint64_t durable;
	uint64_t end;
	/* Where the next batch goes, if it fits there. */
	uint64_t head;

	uint64_t next_sequence;
	uint64_t durable_sequence;
	/* The newest header: what the next one calls the batch before it. */
	uint64_t last_sequence;
	uint64_t last_offset;
	uint32_t last_crc;
	/* The mark that the newest header carries. */
	uint64_t last_oldest;
	bool last_is_note;

	uint8_t *bounce;
	bool bounce_fixed;
	bool note_in_flight;
	unsigned int slots_used;
	struct journal_slot slots[SLOTS];
	unsigned int rings_used;
	struct journal_ring rings[PETAL_JOURNAL_RINGS_MAX];
	struct petal_journal_damage damage;
	struct petal_journal_stats stats;
};

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t journal_area_bytes(const struct petal_journal *journal)
{
	return journal->file_bytes - AREA_OFFSET;
}

static inline struct journal_entry *
journal_entry_at(const struct petal_journal *journal, uint64_t index)
{
	return &journal->entries[index & (journal->entries_max - 1)];
}

/*
 * Aligned memory, zero until written to.
 */

static inline void *petal_journal_pages_alloc(uint64_t bytes)
{
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return pages == MAP_FAILED ? NULL : pages;
}

static inline void petal_journal_pages_free(void *pages, uint64_t bytes)
{
	if (pages)
		munmap(pages, bytes);
}

static inline unsigned int
petal_journal_ring_index(const struct petal_journal *journal,
			 const struct journal_ring *ring)
{
	return (unsigned int)(ring - journal->rings);
}

/* journal_file.c: find or make the file, lock it, and try it out. */
int petal_journal_file_open(struct petal_journal *journal,
			    const struct petal_journal_options *options);
void petal_journal_file_close(struct petal_journal *journal);
int petal_journal_file_read(int fd, void *bytes, uint64_t length,
			    uint64_t offset);

/* journal.c: what replay fills the table of rings with; NULL if it is full. */
struct journal_ring *petal_journal_ring_add(struct petal_journal *journal,
					    uint64_t id);

/* Wait until nothing is in flight, and report it to nobody. */
void petal_journal_flight_wait(struct petal_journal *journal);

/* journal_space.c: add what @header describes at "end". */
void petal_journal_entry_add(struct petal_journal *journal,
			     const struct journal_header *header, uint16_t ring,
			     unsigned int slot);

/* Move "oldest" over what nobody needs, and the mark for the next header. */
void petal_journal_oldest_advance(struct petal_journal *journal);
uint64_t petal_journal_oldest_sequence(const struct petal_journal *journal);

/* What is taken, and how much of that waits only for a durable mark. */
uint64_t petal_journal_used_bytes(const struct petal_journal *journal);
uint64_t petal_journal_reclaimable_bytes(const struct petal_journal *journal);

/* Room for @length bytes, and for a note behind them if @keep_note. */
bool petal_journal_space_find(const struct petal_journal *journal,
			      uint64_t length, bool keep_note,
			      uint64_t *ret_offset);

/* The batch at @index is durable, hence what its mark gives up is free. */
void petal_journal_space_release(struct petal_journal *journal, uint64_t index);

/* journal_batch.c: how a range is cut. */
struct journal_shape petal_journal_shape(uint64_t from, uint64_t to);

/* Write the batch of @range, which was checked, at @offset, which is free. */
void petal_journal_batch_submit(struct petal_journal *journal,
				struct journal_ring *ring,
				const struct petal_journal_range *range,
				const struct journal_shape *shape,
				uint64_t offset);

/* Write a batch without bytes, to carry the marks; false if there is no room. */
bool petal_journal_note_submit(struct petal_journal *journal, bool keep_note);

#endif
