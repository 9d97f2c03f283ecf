/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/pipe.h"

#include "rings/record.h"

/*
 * The happy path is in pipe_inl.h. Here is what happens once: making a ring,
 * finding out where a side has to go on, which its predecessor may have left at
 * any instruction, and closing; and the two looks at the other side's words,
 * for which nobody is in a hurry: the ring is full, or empty.
 */

static_assert(PETAL_PIPE_TYPE_PADDING == PETAL_RECORD_TYPE_PADDING, "layout");
static_assert(PETAL_PIPE_HEADER_BYTES == PETAL_RECORD_HEADER_BYTES, "layout");

static bool is_aligned(const void *memory)
{
	return (uintptr_t)memory % PETAL_PIPE_LINE_BYTES == 0;
}

uint64_t petal_pipe_bytes(const struct petal_pipe_geometry *geometry)
{
	uint64_t bytes = geometry->data_bytes;

	if (bytes < PETAL_PIPE_BYTES_MIN || bytes > PETAL_PIPE_BYTES_MAX ||
	    (bytes & (bytes - 1)) != 0 ||
	    geometry->start_pos % PETAL_PIPE_ALIGN != 0)
		return 0;
	return sizeof(struct petal_pipe_shared) + bytes;
}

static struct petal_pipe view_of(struct petal_pipe_shared *shared,
				 struct petal_pipe_reader *reader,
				 uint64_t data_bytes)
{
	return (struct petal_pipe){
		.shared = shared,
		.reader = reader,
		.data = (uint8_t *)(shared + 1),
		.data_bytes = data_bytes,
	};
}

/* ---- making ---- */

static void reader_init(struct petal_pipe_reader *reader, uint64_t start_pos)
{
	petal_store(&reader->head, start_pos, PETAL_RELAXED);
	petal_store(&reader->closed, 0, PETAL_RELAXED);
}

int petal_pipe_format(void *memory, const struct petal_pipe_geometry *geometry)
{
	struct petal_pipe_shared *shared = memory;
	struct petal_pipe ring;

	if (petal_pipe_bytes(geometry) == 0 || !is_aligned(memory))
		return -EINVAL;
	/* A line of data may end one record and begin the next. */
	if (geometry->coherence != PETAL_SEGMENT_COHERENT)
		return -EOPNOTSUPP;

	/* Whatever was here before is no ring until we are done. */
	petal_store(&shared->magic, 0, PETAL_RELAXED);
	petal_store(&shared->layout, PETAL_PIPE_LAYOUT, PETAL_RELAXED);
	petal_store(&shared->data_bytes, geometry->data_bytes, PETAL_RELAXED);
	petal_store(&shared->closed, 0, PETAL_RELAXED);
	petal_store(&shared->tail, geometry->start_pos, PETAL_RELAXED);
	reader_init(&shared->reader, geometry->start_pos);
	ring = view_of(shared, &shared->reader, geometry->data_bytes);
	petal_store(&petal_pipe_at(&ring, geometry->start_pos)->stamp, 0,
		    PETAL_RELAXED);
	/* [FORMAT] Release: who sees the magic sees all of the above. */
	petal_store(&shared->magic, PETAL_PIPE_MAGIC, PETAL_RELEASE(FORMAT));
	return 0;
}

int petal_pipe_format_cursor(void *cursor, uint64_t start_pos)
{
	struct petal_pipe_cursor *own = cursor;

	if (!is_aligned(cursor) || start_pos % PETAL_PIPE_ALIGN != 0)
		return -EINVAL;
	petal_store(&own->magic, 0, PETAL_RELAXED);
	petal_store(&own->layout, PETAL_PIPE_LAYOUT, PETAL_RELAXED);
	reader_init(&own->reader, start_pos);
	/* [FORMAT] Release: who sees the magic sees the position. */
	petal_store(&own->magic, PETAL_PIPE_CURSOR_MAGIC,
		    PETAL_RELEASE(FORMAT));
	return 0;
}

/* ---- joining ---- */

/* Each word of the shape is loaded once; what is checked is the copy. */
static int shape_load(struct petal_pipe_shared *shared, uint64_t bytes,
		      struct petal_pipe_geometry *ret_geometry)
{
	struct petal_pipe_geometry shape = { 0 };
	uint64_t needed;

	if (!is_aligned(shared))
		return -EINVAL;
	if (bytes < sizeof(*shared))
		return -PETAL_EGEOMETRY;
	/* [FORMAT] Acquire: the shape was stored before the magic. */
	if (petal_load(&shared->magic, PETAL_ACQUIRE(FORMAT)) !=
	    PETAL_PIPE_MAGIC)
		return -EINVAL;
	if (petal_load(&shared->layout, PETAL_RELAXED) != PETAL_PIPE_LAYOUT)
		return -PETAL_EVERSION;
	shape.data_bytes = petal_load(&shared->data_bytes, PETAL_RELAXED);
	needed = petal_pipe_bytes(&shape);
	if (needed == 0 || needed > bytes)
		return -PETAL_EGEOMETRY;
	*ret_geometry = shape;
	return 0;
}

/*
 * The producer's predecessor may have died between the stamp, which the
 * consumer follows, and tail. Behind what it has shown is a zero, so that the
 * walk ends there. Nothing of the consumer's is asked.
 */
static uint64_t first_unpublished(const struct petal_pipe *ring)
{
	uint64_t tail = petal_load(&ring->shared->tail, PETAL_RELAXED);
	uint64_t pos = tail - tail % PETAL_PIPE_ALIGN;
	struct petal_pipe_view view;

	while (pos - tail < ring->data_bytes &&
	       petal_pipe_is_ready(ring, pos) &&
	       petal_pipe_read(ring, pos, &view) == 0)
		pos = view.end;
	return pos;
}

static void resume_producer(struct petal_pipe *ring, uint64_t head)
{
	ring->pos = first_unpublished(ring);
	/* Or many who died like that would leave tail behind by a ring. */
	petal_store(&ring->shared->tail, ring->pos, PETAL_RELAXED);
	ring->closed = petal_load(&ring->shared->closed, PETAL_RELAXED) != 0;
	ring->head_seen = head;
	/* Until we see a head that can be, and for good if closed: no room. */
	if (ring->closed || ring->pos - head > ring->data_bytes)
		ring->head_seen = ring->pos - ring->data_bytes;
}

static void resume_consumer(struct petal_pipe *ring, uint64_t head)
{
	ring->pos = head - head % PETAL_PIPE_ALIGN;
	ring->head_seen = ring->pos;
	petal_pace_init(&ring->pace, 0);
	ring->closed = petal_load(&ring->reader->closed, PETAL_RELAXED) != 0;
}

static int resume(struct petal_pipe_shared *shared,
		  struct petal_pipe_reader *reader, uint64_t bytes,
		  enum petal_pipe_role role, struct petal_pipe *ret_ring)
{
	struct petal_pipe_geometry shape;
	struct petal_pipe ring;
	uint64_t head;
	int err = shape_load(shared, bytes, &shape);

	if (err)
		return err;
	ring = view_of(shared, reader, shape.data_bytes);
	ring.role = role;
	/* [DRAIN] Acquire: for a producer that never looks again. */
	head = petal_load(&reader->head, PETAL_ACQUIRE(DRAIN));
	if (role == PETAL_PIPE_PRODUCER)
		resume_producer(&ring, head);
	else
		resume_consumer(&ring, head);
	*ret_ring = ring;
	return 0;
}

int petal_pipe_attach(void *memory, uint64_t bytes, enum petal_pipe_role role,
		      struct petal_pipe *ret_ring)
{
	struct petal_pipe_shared *shared = memory;

	return resume(shared, &shared->reader, bytes, role, ret_ring);
}

static int cursor_check(struct petal_pipe_cursor *cursor, uint64_t bytes)
{
	if (!is_aligned(cursor))
		return -EINVAL;
	if (bytes < sizeof(*cursor))
		return -PETAL_EGEOMETRY;
	/* [FORMAT] Acquire: the position was stored before the magic. */
	if (petal_load(&cursor->magic, PETAL_ACQUIRE(FORMAT)) !=
	    PETAL_PIPE_CURSOR_MAGIC)
		return -EINVAL;
	if (petal_load(&cursor->layout, PETAL_RELAXED) != PETAL_PIPE_LAYOUT)
		return -PETAL_EVERSION;
	return 0;
}

int petal_pipe_attach_apart(void *memory, uint64_t bytes, void *cursor,
			    uint64_t cursor_bytes, enum petal_pipe_role role,
			    struct petal_pipe *ret_ring)
{
	struct petal_pipe_cursor *own = cursor;
	int err = cursor_check(own, cursor_bytes);

	if (err)
		return err;
	return resume(memory, &own->reader, bytes, role, ret_ring);
}

/* ---- full, empty, closed ---- */

int petal_pipe_claim_look(struct petal_pipe *ring, uint64_t end)
{
	uint64_t head;

	/* [CLOSE] Acquire: a consumer that reads no more says where it is. */
	if (ring->closed ||
	    petal_load(&ring->reader->closed, PETAL_ACQUIRE(CLOSE)) != 0)
		return -EPIPE;
	/* [DRAIN] Acquire: the reads before this head are done. */
	head = petal_load(&ring->reader->head, PETAL_ACQUIRE(DRAIN));
	/* A consumer that lies about head costs records, no other memory. */
	if (ring->pos - head <= ring->data_bytes)
		ring->head_seen = head;
	return end + PETAL_PIPE_ALIGN - ring->head_seen <= ring->data_bytes
		       ? 0
		       : -EAGAIN;
}

int petal_pipe_peek_nothing(struct petal_pipe *ring, uint64_t pos)
{
	/* Now is the time to say how far we are, for nobody waits for us. */
	if (ring->head_seen != ring->pos)
		petal_pipe_store_head(ring);
	if (petal_pace_missed(&ring->pace, ring->found) &&
	    petal_pipe_is_ready(ring, pos))
		return PETAL_RING_FOUND;
	/* [CLOSE] Acquire: what is not there after this will never be. */
	if (petal_load(&ring->shared->closed, PETAL_ACQUIRE(CLOSE)) == 0 ||
	    petal_pipe_is_ready(ring, pos))
		return PETAL_RING_EMPTY;
	return PETAL_RING_CLOSED;
}

void petal_pipe_close(struct petal_pipe *ring)
{
	ring->closed = true;
	if (ring->role == PETAL_PIPE_PRODUCER) {
		petal_pipe_abort(ring);
		/* From here on there is no room, and no look finds any. */
		ring->head_seen = ring->pos - ring->data_bytes;
		/* [CLOSE] Release: the last record was shown before. */
		petal_store(&ring->shared->closed, 1, PETAL_RELEASE(CLOSE));
		return;
	}
	petal_pipe_store_head(ring);
	/* [CLOSE] Release: where we stopped is known before. */
	petal_store(&ring->reader->closed, 1, PETAL_RELEASE(CLOSE));
}
