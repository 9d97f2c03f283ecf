/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_PIPE_INL_H
#define PETAL_RINGS_PIPE_INL_H

/* "PETALPIP" and "PETALPIC" in memory. */
#define PETAL_PIPE_MAGIC UINT64_C(0x5049504c41544550)
#define PETAL_PIPE_CURSOR_MAGIC UINT64_C(0x4349504c41544550)
#define PETAL_PIPE_LAYOUT 1u
#define PETAL_PIPE_LINE_BYTES 64u

/* What the consumer writes. */
struct petal_pipe_reader {
	struct petal_u64 head;
	uint8_t reserved0[56];
	struct petal_u64 closed; /* nobody will read any more */
	uint8_t reserved1[56];
};

/* Two lines apart, for the processor fetches them in pairs. */
struct petal_pipe_shared {
	struct petal_u64 magic; /* last at format, so that half is nothing */
	struct petal_u32 layout;
	uint8_t reserved0[4];
	struct petal_u64 data_bytes;
	uint8_t reserved1[40];
	struct petal_u64 closed; /* nothing will come any more */
	uint8_t reserved2[56];

	struct petal_u64 tail; /* for observers and successors */
	uint8_t reserved3[120];

	struct petal_pipe_reader reader; /* unless the cursor is apart */
};

/* The consumer's memory, where it has one of its own. */
struct petal_pipe_cursor {
	struct petal_u64 magic;
	struct petal_u32 layout;
	uint8_t reserved[116];
	struct petal_pipe_reader reader;
};

struct petal_pipe_record {
	struct petal_u64 stamp;
	struct petal_u32 length;
	struct petal_u32 type;
};

static_assert(offsetof(struct petal_pipe_shared, layout) == 8, "layout");
static_assert(offsetof(struct petal_pipe_shared, data_bytes) == 16, "layout");
static_assert(offsetof(struct petal_pipe_shared, closed) == 64, "layout");
static_assert(offsetof(struct petal_pipe_shared, tail) == 128, "layout");
static_assert(offsetof(struct petal_pipe_shared, reader) == 256, "layout");
static_assert(sizeof(struct petal_pipe_shared) == 384, "layout");
static_assert(offsetof(struct petal_pipe_reader, closed) == 64, "layout");
static_assert(sizeof(struct petal_pipe_reader) == 128, "layout");
static_assert(offsetof(struct petal_pipe_cursor, layout) == 8, "layout");
static_assert(offsetof(struct petal_pipe_cursor, reader) == 128, "layout");
static_assert(sizeof(struct petal_pipe_cursor) == PETAL_PIPE_CURSOR_BYTES,
	      "layout");
static_assert(offsetof(struct petal_pipe_record, length) == 8, "layout");
static_assert(offsetof(struct petal_pipe_record, type) == 12, "layout");
static_assert(sizeof(struct petal_pipe_record) == PETAL_PIPE_HEADER_BYTES,
	      "layout");

/* Masks the low bits as well: no position can make a misaligned record. */
static inline struct petal_pipe_record *
petal_pipe_at(const struct petal_pipe *ring, uint64_t pos)
{
	uint64_t offset = pos & (ring->data_bytes - PETAL_PIPE_ALIGN);

	return (struct petal_pipe_record *)(void *)(ring->data + offset);
}

static inline uint64_t petal_pipe_extent(uint32_t length)
{
	return ((uint64_t)length + PETAL_PIPE_HEADER_BYTES + PETAL_PIPE_ALIGN -
		1) &
	       ~(uint64_t)(PETAL_PIPE_ALIGN - 1);
}

static inline uint64_t petal_pipe_to_end(const struct petal_pipe *ring,
					 uint64_t pos)
{
	return ring->data_bytes - (pos & (ring->data_bytes - 1));
}

static inline uint32_t petal_pipe_length_max(const struct petal_pipe *ring)
{
	uint64_t quarter = ring->data_bytes / 4 - PETAL_PIPE_HEADER_BYTES;

	return quarter < (UINT32_C(1) << 31) ? (uint32_t)quarter
					     : UINT32_C(1) << 31;
}

/* pipe.c: the ring is full as far as we knew. 0 when there is room now. */
int petal_pipe_claim_look(struct petal_pipe *ring, uint64_t end);
/* pipe.c: there is no record at this position; perhaps by now there is. */
int petal_pipe_peek_nothing(struct petal_pipe *ring, uint64_t pos);

/* The producer. */

static inline int petal_pipe_claim(struct petal_pipe *ring, uint32_t length,
				   void **ret_bytes)
{
	uint64_t extent = petal_pipe_extent(length);
	uint64_t to_end = petal_pipe_to_end(ring, ring->pos);
	uint64_t skip = extent > to_end ? to_end : 0;
	uint64_t end = ring->pos + skip + extent;

	if (length > petal_pipe_length_max(ring))
		return -EMSGSIZE;
	/* The word behind the record has to be ours as well. */
	if (end + PETAL_PIPE_ALIGN - ring->head_seen > ring->data_bytes) {
		int err = petal_pipe_claim_look(ring, end);

		if (err)
			return err;
	}
	ring->claimed = length;
	ring->padding = (uint32_t)skip;
	*ret_bytes = petal_pipe_at(ring, ring->pos + skip) + 1;
	return 0;
}

/* All of a record but its payload. The first one's stamp is kept back. */
static inline void petal_pipe_put(struct petal_pipe *ring, uint32_t length,
				  uint32_t type)
{
	struct petal_pipe_record *record = petal_pipe_at(ring, ring->pos);
	uint64_t end = ring->pos + petal_pipe_extent(length);

	petal_store(&petal_pipe_at(ring, end)->stamp, 0, PETAL_RELAXED);
	petal_store(&record->length, length, PETAL_RELAXED);
	petal_store(&record->type, type, PETAL_RELAXED);
	if (ring->has_appended)
		petal_store(&record->stamp, ring->pos + 1, PETAL_RELAXED);
	else
		ring->first = ring->pos;
	ring->has_appended = true;
	ring->pos = end;
}

static inline void petal_pipe_append(struct petal_pipe *ring, uint32_t length,
				     uint32_t type)
{
	assert(length <= ring->claimed && type != PETAL_PIPE_TYPE_PADDING);
	if (ring->padding) {
		petal_pipe_put(ring, ring->padding - PETAL_PIPE_HEADER_BYTES,
			       PETAL_PIPE_TYPE_PADDING);
		ring->padding = 0;
	}
	petal_pipe_put(ring, length, type);
	ring->claimed = 0;
}

static inline void petal_pipe_show(struct petal_pipe *ring)
{
	if (!ring->has_appended)
		return;
	ring->has_appended = false;
	/* [FILL] Release: all records are whole, with the zero behind them. */
	petal_store(&petal_pipe_at(ring, ring->first)->stamp, ring->first + 1,
		    PETAL_RELEASE(FILL));
	petal_store(&ring->shared->tail, ring->pos, PETAL_RELAXED);
}

static inline void petal_pipe_publish(struct petal_pipe *ring, uint32_t length,
				      uint32_t type)
{
	petal_pipe_append(ring, length, type);
	petal_pipe_show(ring);
}

static inline void petal_pipe_abort(struct petal_pipe *ring)
{
	if (ring->has_appended)
		ring->pos = ring->first;
	ring->has_appended = false;
	ring->claimed = 0;
	ring->padding = 0;
}

/* The consumer. */

static inline uint64_t petal_pipe_pos(const struct petal_pipe *ring)
{
	return ring->pos;
}

/* A record whose stamp we saw. Inside of the data, whatever it says. */
static inline int petal_pipe_read(const struct petal_pipe *ring, uint64_t pos,
				  struct petal_pipe_view *ret_view)
{
	struct petal_pipe_record *record = petal_pipe_at(ring, pos);
	uint32_t length = petal_load(&record->length, PETAL_RELAXED);
	uint32_t type = petal_load(&record->type, PETAL_RELAXED);
	uint64_t extent = petal_pipe_extent(length);

	if (extent > petal_pipe_to_end(ring, pos))
		return -PETAL_ECORRUPT;
	ret_view->bytes = record + 1;
	ret_view->pos = pos;
	ret_view->end = pos + extent;
	ret_view->length = length;
	ret_view->type = type;
	return 0;
}

static inline bool petal_pipe_is_ready(const struct petal_pipe *ring,
				       uint64_t pos)
{
	/* [FILL] Acquire: with the stamp comes the record. */
	return petal_load(&petal_pipe_at(ring, pos)->stamp,
			  PETAL_ACQUIRE(FILL)) == pos + 1;
}

static inline int petal_pipe_peek(struct petal_pipe *ring, uint64_t pos,
				  struct petal_pipe_view *ret_view)
{
	struct petal_pipe_view view;
	int err;

	if (!petal_pipe_is_ready(ring, pos)) {
		err = petal_pipe_peek_nothing(ring, pos);
		if (err != PETAL_RING_FOUND)
			return err;
	}
	err = petal_pipe_read(ring, pos, &view);
	if (!err && view.type == PETAL_PIPE_TYPE_PADDING) {
		/* It ends with the data, and is shown with what follows. */
		if ((view.end & (ring->data_bytes - 1)) != 0)
			return -PETAL_ECORRUPT;
		if (!petal_pipe_is_ready(ring, view.end)) {
			err = petal_pipe_peek_nothing(ring, view.end);
			if (err != PETAL_RING_FOUND)
				return err;
		}
		err = petal_pipe_read(ring, view.end, &view);
		if (!err && view.type == PETAL_PIPE_TYPE_PADDING)
			err = -PETAL_ECORRUPT;
	}
	if (err)
		return err;
	/* Not further ahead of what we released than a ring is long. */
	if (view.end - ring->pos > ring->data_bytes)
		return -PETAL_ECORRUPT;
	ring->found += view.end != ring->found_end;
	ring->found_end = view.end;
	*ret_view = view;
	return 0;
}

static inline void petal_pipe_store_head(struct petal_pipe *ring)
{
	ring->head_seen = ring->pos;
	/* [DRAIN] Release: we are done with all that is before it. */
	petal_store(&ring->reader->head, ring->pos, PETAL_RELEASE(DRAIN));
}

static inline void petal_pipe_release(struct petal_pipe *ring, uint64_t to_pos)
{
	if (to_pos - ring->pos > ring->data_bytes)
		return;
	ring->pos = to_pos;
	if (ring->pos - ring->head_seen >= ring->data_bytes / 4)
		petal_pipe_store_head(ring);
}

static inline uint64_t petal_pipe_backlog(const struct petal_pipe *ring)
{
	/* [DRAIN] Acquire: the tail that we load next is not behind it. */
	uint64_t head = petal_load(&ring->reader->head, PETAL_ACQUIRE(DRAIN));
	uint64_t tail = petal_load(&ring->shared->tail, PETAL_RELAXED);

	/*
	 * A tail that seems behind is one whose producer has stored the stamp
	 * and not yet the tail; one too far ahead moved between the two loads.
	 */
	if ((int64_t)(tail - head) < 0)
		return 0;
	return tail - head < ring->data_bytes ? tail - head : ring->data_bytes;
}

#endif
