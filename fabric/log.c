/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/log.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "shm/crc32c.h"
#include "shm/error.h"

#define LOG_MAGIC UINT64_C(0x31676f6c6c617465)
#define LOG_VERSION 2u
#define PAGE UINT64_C(4096)

/* Geometry as it lies in the segment; offsets are from the body. */
struct log_shared {
	uint64_t magic;
	uint32_t version;
	uint32_t queue_count;
	uint64_t ring;
	uint64_t data_bytes;
	uint32_t epoch;
	uint32_t reserved;
	uint32_t queue_slots[PETAL_LOG_QUEUES_MAX];
};
static_assert(sizeof(struct log_shared) == 72, "layout");

/* Where the parts lie, from the body: a pure function of the shape. */
struct log_places {
	uint64_t marks, acks, orders, owners, ring, data, bytes;
	uint64_t queues[PETAL_LOG_QUEUES_MAX];
};

static uint64_t page_up(uint64_t bytes)
{
	return (bytes + PAGE - 1) & ~(PAGE - 1);
}

static struct petal_mpsc_geometry
ring_geometry(const struct petal_log_geometry *geometry)
{
	return (struct petal_mpsc_geometry){
		.data_bytes = geometry->data_bytes,
		.owners = PETAL_LOG_OWNERS,
		.reserve_bytes = PETAL_LOG_RESERVE_BYTES,
		.start_pos = geometry->start_pos,
	};
}

static struct log_places places_of(const struct petal_log_geometry *geometry)
{
	struct petal_mpsc_geometry ring = ring_geometry(geometry);
	struct log_places places = { .marks = PAGE };
	uint64_t at;

	places.acks = places.marks + PAGE;
	places.orders = places.acks + PAGE;
	places.owners = places.orders + PAGE;
	at = places.owners +
	     page_up(PETAL_LOG_OWNERS * sizeof(struct petal_log_owner));
	places.ring = at;
	at += page_up(petal_mpsc_bytes(&ring));
	for (unsigned i = 0; i < geometry->queue_count; i++) {
		places.queues[i] = at;
		at += page_up(
			petal_queue_bytes(geometry->queues[i].slot_count));
	}
	places.data = at;
	places.bytes = at + geometry->data_bytes;
	return places;
}

int petal_log_geometry_check(const struct petal_log_geometry *geometry)
{
	uint64_t bytes = geometry->data_bytes;

	if (bytes < PETAL_LOG_DATA_BYTES_MIN ||
	    bytes > PETAL_LOG_DATA_BYTES_MAX || (bytes & (bytes - 1)) != 0 ||
	    geometry->ring == 0 || geometry->epoch == 0 ||
	    geometry->queue_count > PETAL_LOG_QUEUES_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < geometry->queue_count; i++) {
		const struct petal_queue_geometry *queue = &geometry->queues[i];

		if (queue->slot_count < 2 ||
		    queue->slot_count > PETAL_QUEUE_SLOTS_MAX ||
		    (queue->slot_count & (queue->slot_count - 1)) != 0 ||
		    queue->id != i + 1 || queue->lease_ns == 0)
			return -EINVAL;
	}
	return 0;
}

static void point(struct petal_log *log, const struct log_places *places)
{
	uint8_t *body = petal_segment_body(&log->segment);

	log->marks = (void *)(body + places->marks);
	log->acks = (void *)(body + places->acks);
	log->orders = (void *)(body + places->orders);
	log->owners = (void *)(body + places->owners);
	log->data = body + places->data;
}

static int attach_parts(struct petal_log *log, const struct log_places *places,
			uint32_t owner)
{
	struct petal_mpsc_geometry ring = ring_geometry(&log->geometry);
	uint8_t *body = petal_segment_body(&log->segment);
	int err;

	err = petal_mpsc_attach(body + places->ring, petal_mpsc_bytes(&ring),
				log->data, log->geometry.data_bytes, owner,
				&log->ring);
	/* Who steps over many rings holds up none of them. */
	if (err == 0)
		petal_pace_limit(&log->ring.pace, 0);
	/* Else one and the same position would be two places. */
	if (err == 0 && (log->ring.data_bytes != ring.data_bytes ||
			 log->ring.owners != ring.owners))
		err = -PETAL_EGEOMETRY;
	for (unsigned i = 0; err == 0 && i < log->geometry.queue_count; i++) {
		const struct petal_queue_geometry *queue =
			&log->geometry.queues[i];

		err = petal_queue_attach(body + places->queues[i],
					 petal_queue_bytes(queue->slot_count),
					 &log->queues[i]);
		if (err == 0 && log->queues[i].slot_count != queue->slot_count)
			err = -PETAL_EGEOMETRY;
	}
	return err;
}

static int format_parts(struct petal_log *log, const struct log_places *places)
{
	struct petal_mpsc_geometry ring = ring_geometry(&log->geometry);
	uint8_t *body = petal_segment_body(&log->segment);
	struct log_shared *shared = (void *)body;
	int err;

	err = petal_mpsc_format(body + places->ring, &ring);
	for (unsigned i = 0; err == 0 && i < log->geometry.queue_count; i++) {
		shared->queue_slots[i] = log->geometry.queues[i].slot_count;
		err = petal_queue_format(body + places->queues[i],
					 &log->geometry.queues[i]);
	}
	shared->version = LOG_VERSION;
	shared->queue_count = log->geometry.queue_count;
	shared->ring = log->geometry.ring;
	shared->data_bytes = log->geometry.data_bytes;
	shared->epoch = log->geometry.epoch;
	shared->magic = LOG_MAGIC;
	return err;
}

int petal_log_open(const struct petal_log_geometry *geometry,
		   struct petal_log *ret_log)
{
	struct petal_log log = { .geometry = *geometry };
	struct petal_segment_options options = { .name = "petalith-log" };
	struct log_places places;
	int err;

	err = petal_log_geometry_check(geometry);
	if (err < 0)
		return err;
	places = places_of(geometry);
	options.body_bytes = places.bytes;
	err = petal_segment_open(&options, &log.segment);
	if (err < 0)
		return err;
	point(&log, &places);
	err = format_parts(&log, &places);
	if (err == 0)
		err = attach_parts(&log, &places, 0);
	if (err < 0) {
		petal_segment_close(&log.segment);
		return err;
	}
	*ret_log = log;
	return 0;
}

/* The shape of a log that somebody else wrote: copied once, then checked. */
static int read_geometry(const struct petal_segment *segment,
			 struct petal_log_geometry *geometry)
{
	struct log_shared shared;
	uint64_t body_bytes = petal_segment_body_bytes(segment);

	if (body_bytes < sizeof(shared))
		return -EINVAL;
	memcpy(&shared, petal_segment_body(segment), sizeof(shared));
	if (shared.magic != LOG_MAGIC)
		return -EINVAL;
	if (shared.version != LOG_VERSION)
		return -PETAL_EVERSION;
	*geometry = (struct petal_log_geometry){
		.ring = shared.ring,
		.data_bytes = shared.data_bytes,
		.epoch = shared.epoch,
		.queue_count = shared.queue_count,
	};
	for (unsigned i = 0; i < PETAL_LOG_QUEUES_MAX; i++) {
		geometry->queues[i].id = i + 1;
		geometry->queues[i].slot_count = shared.queue_slots[i];
		geometry->queues[i].lease_ns = 1;
	}
	if (petal_log_geometry_check(geometry) < 0 ||
	    places_of(geometry).bytes > body_bytes)
		return -PETAL_EGEOMETRY;
	return 0;
}

int petal_log_attach(int fd, uint32_t owner, struct petal_log *ret_log)
{
	struct petal_log log = { 0 };
	struct log_places places;
	int err;

	if (owner >= PETAL_LOG_OWNERS)
		return -EINVAL;
	err = petal_segment_attach(fd, true, &log.segment);
	if (err < 0)
		return err;
	err = read_geometry(&log.segment, &log.geometry);
	if (err == 0) {
		places = places_of(&log.geometry);
		point(&log, &places);
		err = attach_parts(&log, &places, owner);
	}
	if (err < 0) {
		petal_segment_close(&log.segment);
		return err;
	}
	for (unsigned i = 0; i < log.geometry.queue_count; i++) {
		struct petal_queue_geometry *queue = &log.geometry.queues[i];

		queue->lease_ns = log.queues[i].lease_ns;
		memcpy(queue->name, log.queues[i].name, sizeof(queue->name));
	}
	*ret_log = log;
	return 0;
}

void petal_log_close(struct petal_log *log)
{
	petal_segment_close(&log->segment);
	memset(log, 0, sizeof(*log));
}

/* Both kinds of line begin with three words and their check. */
static_assert(offsetof(struct petal_log_ack, memory_pos) == 0, "layout");
static_assert(offsetof(struct petal_log_ack, check) == 24, "layout");
static_assert(offsetof(struct petal_log_orders, trim_pos) == 0, "layout");
static_assert(offsetof(struct petal_log_orders, check) == 24, "layout");

/* Never that of a line of zeros, which nobody has written. */
static uint64_t check_of(const struct petal_log_line *words)
{
	return petal_crc32c(0, words->words, sizeof(words->words)) |
	       UINT64_C(1) << 32;
}

void petal_log_line_write(void *line, const struct petal_log_line *words)
{
	_Atomic uint64_t *at = line;

	for (unsigned i = 0; i < 3; i++)
		atomic_store_explicit(&at[i], words->words[i],
				      memory_order_relaxed);
	atomic_store_explicit(&at[3], check_of(words), memory_order_relaxed);
}

bool petal_log_line_read(const void *line, struct petal_log_line *ret_words)
{
	const _Atomic uint64_t *at = line;
	struct petal_log_line words;
	uint64_t check;

	for (unsigned i = 0; i < 3; i++)
		words.words[i] =
			atomic_load_explicit(&at[i], memory_order_relaxed);
	check = atomic_load_explicit(&at[3], memory_order_relaxed);
	if (check != check_of(&words))
		return false;
	*ret_words = words;
	return true;
}

void petal_log_walk(const struct petal_log *log,
		    struct petal_record_cursor *cursor, uint64_t to_pos)
{
	while (cursor->pos < to_pos) {
		const struct petal_record_durable *record =
			(void *)petal_log_at(log, cursor->pos);
		uint64_t end = cursor->pos +
			       petal_record_extent(record->record.length);

		if (end > to_pos)
			return;
		cursor->pos = end;
		cursor->lsn = record->lsn;
		cursor->epoch = record->epoch;
		cursor->crc = record->hdr_crc;
	}
}

struct petal_record_cursor
petal_log_batch(const struct petal_log *log,
		const struct petal_record_cursor *from,
		const struct petal_record_cursor *end)
{
	const struct petal_record_durable *first =
		(void *)petal_log_at(log, from->pos);
	struct petal_record_cursor to = *from;
	uint64_t most = petal_record_extent(first->record.length);

	if (most < PETAL_LOG_BATCH_BYTES)
		most = PETAL_LOG_BATCH_BYTES;
	if (end->pos - from->pos <= most)
		return *end;
	petal_log_walk(log, &to, from->pos + most);
	return to;
}
