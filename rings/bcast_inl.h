/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_BCAST_INL_H
#define PETAL_RINGS_BCAST_INL_H

/* "PETALBCA" in memory. */
#define PETAL_BCAST_MAGIC UINT64_C(0x4143424c41544550)
#define PETAL_BCAST_LAYOUT 2u
#define PETAL_BCAST_MARKS 16u
#define PETAL_BCAST_FAR_ALIGN 64u
#define PETAL_BCAST_FAR_CRC_BYTES 8u

/* Two lines apart, for the processor fetches them in pairs. */
struct petal_bcast_shared {
	struct petal_u64 magic; /* last at format, so that half is nothing */
	struct petal_u32 layout;
	struct petal_u32 readers;
	struct petal_u64 data_bytes;
	struct petal_u64 spill_bytes;
	struct petal_u32 spills;
	struct petal_u32 coherence;
	uint8_t reserved0[88];

	struct petal_u64 tail;
	uint8_t reserved1[120];

	struct petal_u64 limit;
	struct petal_u64 intent; /* what limit is about to be */
	struct petal_u64 closed; /* the last tail, plus 1 */
	uint8_t reserved2[104];
	struct petal_u64 marks[PETAL_BCAST_MARKS];

	struct petal_u64 joins;
	uint8_t reserved3[120];

	struct petal_u64 refused;
	struct petal_u64 evicted;
	struct petal_u64 spilled;
	struct petal_u64 removed;
	uint8_t reserved4[96];
};

/*
 * In the publisher's memory. A word is state 4, policy 4, second policy 4,
 * whether the cursor is elsewhere 1, owner 16 from bit 16, generation 32.
 */
struct petal_bcast_seat {
	struct petal_u64 word;
	struct petal_u64 bound_bytes;
	struct petal_u64 spill_tail; /* what was copied so far */
	uint8_t reserved[40];
};

/* In the reader's memory. A place is generation and position: one word. */
struct petal_bcast_cursor {
	struct petal_u64 place;
	struct petal_u64 spill;
	struct petal_u64 left; /* the word of the seat that was given up */
	struct petal_u64 lost; /* for observers */
	uint8_t reserved[96];
};

/* The 16 bytes of record.h; the number takes the place of the lap. */
struct petal_bcast_header {
	struct petal_u64 commit;
	struct petal_u32 length;
	struct petal_u32 type;
};

static_assert(offsetof(struct petal_bcast_shared, layout) == 8, "layout");
static_assert(offsetof(struct petal_bcast_shared, readers) == 12, "layout");
static_assert(offsetof(struct petal_bcast_shared, data_bytes) == 16, "layout");
static_assert(offsetof(struct petal_bcast_shared, spill_bytes) == 24, "layout");
static_assert(offsetof(struct petal_bcast_shared, spills) == 32, "layout");
static_assert(offsetof(struct petal_bcast_shared, coherence) == 36, "layout");
static_assert(offsetof(struct petal_bcast_shared, tail) == 128, "layout");
static_assert(offsetof(struct petal_bcast_shared, limit) == 256, "layout");
static_assert(offsetof(struct petal_bcast_shared, marks) == 384, "layout");
static_assert(offsetof(struct petal_bcast_shared, joins) == 512, "layout");
static_assert(offsetof(struct petal_bcast_shared, refused) == 640, "layout");
static_assert(sizeof(struct petal_bcast_shared) == 768, "layout");
static_assert(sizeof(struct petal_bcast_seat) == 64, "layout");
static_assert(sizeof(struct petal_bcast_cursor) == PETAL_BCAST_CURSOR_BYTES,
	      "layout");
static_assert(sizeof(struct petal_bcast_header) == PETAL_RECORD_HEADER_BYTES,
	      "layout");

/* Out of line, for they are rare. */
int petal_bcast_room(struct petal_bcast *ring, uint64_t need);
void petal_bcast_mark(struct petal_bcast *ring, uint64_t start);
void petal_bcast_store(struct petal_bcast_reader *reader);
int petal_bcast_elsewhere(struct petal_bcast_reader *reader,
			  struct petal_bcast_view *ret_view);

static inline uint64_t petal_bcast_commit(enum petal_record_state state,
					  uint64_t ordinal)
{
	return petal_record_commit(state, 0, ordinal);
}

static inline struct petal_bcast_header *
petal_bcast_at(const struct petal_bcast_map *map, uint64_t pos)
{
	return (struct petal_bcast_header *)(void *)(map->data +
						     (pos &
						      (map->data_bytes - 1)));
}

/*
 * Non-coherent memory: what is done besides, in bcast_far.c. Every look costs
 * hundreds of instructions there, so that the branch may be laid out for the
 * other kind. What differs in form takes "far", a constant where it is hot.
 */

static inline bool petal_bcast_is_far(const struct petal_bcast_map *map)
{
	return __builtin_expect(map->far, 0);
}

static inline uint64_t petal_bcast_align(bool far)
{
	return far ? PETAL_BCAST_FAR_ALIGN : PETAL_BCAST_ALIGN;
}

/* What a record has besides its payload. */
static inline uint64_t petal_bcast_frame(bool far)
{
	return PETAL_RECORD_HEADER_BYTES +
	       (far ? PETAL_BCAST_FAR_CRC_BYTES : 0);
}

static inline uint64_t petal_bcast_extent(bool far, uint32_t length)
{
	uint64_t align = petal_bcast_align(far);

	return (length + petal_bcast_frame(far) + align - 1) & ~(align - 1);
}

/* As petal_bcast_claim() and petal_bcast_publish(). */
__attribute__((cold)) int petal_bcast_far_claim(struct petal_bcast *ring,
						uint32_t length, uint32_t type,
						void **ret_payload);
__attribute__((cold)) void petal_bcast_far_publish(struct petal_bcast *ring);

/* Whether a far record, or any that was spilled, was valid until now. */
bool petal_bcast_check_again(struct petal_bcast_reader *reader,
			     const struct petal_bcast_view *view);

/* Before a look at tail. */
__attribute__((cold)) void
petal_bcast_far_refresh_tail(const struct petal_bcast_map *map);

/* The first header of a batch keeps saying "free" until publish. */
static inline struct petal_bcast_header *
petal_bcast_put(struct petal_bcast *ring, uint64_t pos, uint64_t commit,
		uint32_t length, uint32_t type)
{
	struct petal_bcast_header *header = petal_bcast_at(&ring->map, pos);

	petal_store(&header->length, length, PETAL_RELAXED);
	petal_store(&header->type, type, PETAL_RELAXED);
	if (pos == ring->tail)
		ring->first = commit;
	else
		petal_store(&header->commit, commit, PETAL_RELAXED);
	return header;
}

static inline int petal_bcast_claim_as(struct petal_bcast *ring, bool far,
				       uint32_t length, uint32_t type,
				       void **ret_payload)
{
	const struct petal_bcast_map *map = &ring->map;
	uint64_t extent = petal_bcast_extent(far, length);
	uint64_t pos = ring->claimed;
	uint64_t rest = map->data_bytes - (pos & (map->data_bytes - 1));
	struct petal_bcast_header *header;
	uint64_t start = extent > rest ? pos + rest : pos;
	uint64_t end = start + extent;
	/* Of a far ring it is 0, to spare the others a comparison here. */
	uint64_t limit = far ? ring->limit : ring->reach;
	int err;

	if (__builtin_expect(length > ring->length_max, 0))
		return -EMSGSIZE;
	if (__builtin_expect(type >= PETAL_RECORD_TYPE_OURS, 0))
		return -EINVAL;
	/* The header behind it, which says "free", needs room as well. */
	if (__builtin_expect(end + petal_bcast_align(far) > limit, 0)) {
		if (!far && petal_bcast_is_far(map)) {
			/* Were it the caller's, near ones would store it. */
			void *payload;

			err = petal_bcast_far_claim(ring, length, type,
						    &payload);
			if (!err)
				*ret_payload = payload;
			return err;
		}
		err = petal_bcast_room(ring, end + petal_bcast_align(far));
		if (err)
			return err;
	}
	if (__builtin_expect(start != pos, 0)) {
		petal_bcast_put(ring, pos,
				petal_bcast_commit(PETAL_RECORD_ABANDONED,
						   ring->ordinal),
				(uint32_t)(rest - petal_bcast_frame(far)),
				PETAL_RECORD_TYPE_PADDING);
		if (start >= ring->mark_pos)
			petal_bcast_mark(ring, start);
	}
	header = petal_bcast_put(ring, start,
				 petal_bcast_commit(PETAL_RECORD_PUBLISHED,
						    ring->ordinal),
				 length, type);
	if (__builtin_expect(end >= ring->mark_pos, 0))
		petal_bcast_mark(ring, end);
	ring->claimed = end;
	ring->ordinal++;
	*ret_payload = header + 1;
	return 0;
}

static inline int petal_bcast_claim(struct petal_bcast *ring, uint32_t length,
				    uint32_t type, void **ret_payload)
{
	return petal_bcast_claim_as(ring, false, length, type, ret_payload);
}

static inline void petal_bcast_reveal(struct petal_bcast *ring)
{
	/* [FILL] Release: the whole batch, and the free header behind it. */
	petal_store(&petal_bcast_at(&ring->map, ring->tail)->commit,
		    ring->first, PETAL_RELEASE(FILL));
}

static inline void petal_bcast_advance(struct petal_bcast *ring)
{
	ring->tail = ring->claimed;
	ring->published = ring->ordinal;
	/* [TAIL] Release: whoever starts here finds a header. */
	petal_store(&ring->map.shared->tail, ring->tail, PETAL_RELEASE(TAIL));
}

static inline void petal_bcast_publish(struct petal_bcast *ring)
{
	const struct petal_bcast_map *map = &ring->map;

	if (ring->claimed == ring->tail)
		return;
	petal_store(&petal_bcast_at(map, ring->claimed)->commit,
		    petal_bcast_commit(PETAL_RECORD_FREE, ring->ordinal),
		    PETAL_RELAXED);
	if (petal_bcast_is_far(map)) {
		petal_bcast_far_publish(ring);
		return;
	}
	petal_bcast_reveal(ring);
	petal_bcast_advance(ring);
}

static inline void petal_bcast_abort(struct petal_bcast *ring)
{
	ring->claimed = ring->tail;
	ring->ordinal = ring->published;
	ring->mark_pos =
		(ring->tail / ring->chunk_bytes + 1) * ring->chunk_bytes;
}

static inline bool petal_bcast_is_ours(const struct petal_bcast_reader *reader)
{
	return petal_load(&reader->map.seats[reader->seat].word,
			  PETAL_RELAXED) == reader->word;
}

/* A position is behind when the publisher may be writing there. */
static inline bool petal_bcast_is_lapped(const struct petal_bcast_map *map,
					 uint64_t pos)
{
	uint64_t limit = petal_load(&map->shared->limit, PETAL_RELAXED);

	return (int64_t)(limit - map->data_bytes - pos) > 0;
}

/* Whatever the header says, the view lies in the data. */
static inline bool petal_bcast_see(const struct petal_bcast_map *map, bool far,
				   uint64_t pos, uint64_t ordinal,
				   struct petal_bcast_view *view)
{
	struct petal_bcast_header *header = petal_bcast_at(map, pos);
	uint32_t length = petal_load(&header->length, PETAL_RELAXED);
	uint64_t extent = petal_bcast_extent(far, length);

	if (extent > map->data_bytes - (pos & (map->data_bytes - 1)))
		return false;
	view->payload = header + 1;
	view->pos = pos;
	view->end = pos + extent;
	view->ordinal = ordinal;
	view->length = length;
	view->type = petal_load(&header->type, PETAL_RELAXED);
	view->spilled = false;
	return true;
}

static inline int petal_bcast_peek(struct petal_bcast_reader *reader,
				   struct petal_bcast_view *ret_view)
{
	const struct petal_bcast_map *map = &reader->map;
	uint64_t expected =
		petal_bcast_commit(PETAL_RECORD_PUBLISHED, reader->ordinal);
	struct petal_bcast_view view;

	if (__builtin_expect(!petal_bcast_is_ours(reader), 0))
		return -ESTALE;
	/* [FILL] Acquire: with the commit word comes the record. */
	if (reader->long_way ||
	    petal_load(&petal_bcast_at(map, reader->pos)->commit,
		       PETAL_ACQUIRE(FILL)) != expected ||
	    !petal_bcast_see(map, false, reader->pos, reader->ordinal, &view))
		return petal_bcast_elsewhere(reader, ret_view);
	if (reader->policy != PETAL_BCAST_BLOCK) {
		/* [LAP] It was a header, or the limit has moved. */
		petal_fence(PETAL_ACQUIRE(LAP));
		if (__builtin_expect(petal_bcast_is_lapped(map, reader->pos),
				     0))
			return petal_bcast_elsewhere(reader, ret_view);
	}
	*ret_view = view;
	return 0;
}

static inline bool petal_bcast_check(struct petal_bcast_reader *reader,
				     const struct petal_bcast_view *view)
{
	/* [LAP] If we read a new byte, we see what came before it. */
	petal_fence(PETAL_ACQUIRE(LAP));
	if (reader->long_way)
		return petal_bcast_check_again(reader, view);
	return !petal_bcast_is_lapped(&reader->map, view->pos);
}

static inline void petal_bcast_release(struct petal_bcast_reader *reader,
				       const struct petal_bcast_view *view)
{
	reader->pos = view->end;
	reader->ordinal = view->ordinal + 1;
	if (__builtin_expect(view->spilled, 0))
		reader->spill_pos = view->spill_end;
	if (__builtin_expect(reader->pos - reader->stored_pos >=
				     reader->step_bytes,
			     0) ||
	    view->spilled)
		petal_bcast_store(reader);
}

static inline uint64_t petal_bcast_lost(const struct petal_bcast_reader *reader)
{
	return reader->lost;
}

static inline uint64_t
petal_bcast_backlog(const struct petal_bcast_reader *reader)
{
	uint64_t tail;

	if (petal_bcast_is_far(&reader->map))
		petal_bcast_far_refresh_tail(&reader->map);
	tail = petal_load(&reader->map.shared->tail, PETAL_RELAXED);
	/* A tail that seems behind is one that was not stored yet. */
	return (int64_t)(tail - reader->pos) > 0 ? tail - reader->pos : 0;
}

#endif
