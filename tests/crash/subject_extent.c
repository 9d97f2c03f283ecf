/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/subjects.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rings/mpsc.h"
#include "shm/extent.h"

/*
 * Messages lie in buffers of a segment's extents; what goes by a ring is where.
 * The consumer keeps the extents: it adds and retires runs while producers are
 * in them, and its successor finishes what it had begun.
 *
 *    byte 0   | 4096  |                 |                    |
 *    +--------+-------+-----------------+--------------------+
 *    | office | table | body: an mpsc   | extents of buffers |
 *    +--------+-------+-----------------+--------------------+
 *
 *    a buffer: | id of its message, 0 if free | payload ... |
 *
 * A producer writes under a pin. The consumer may read without one, for it gives
 * back a run only when that has no pins and then the ring is empty. Whoever is
 * in a run says so in the office before, so a repairer knows where a dead one
 * may have left a pin, or a buffer: that run is doubted and retired at once. It
 * goes when nobody says any more that he is in it, whatever its pins are.
 *
 * The kernel's part is played by a model, which spoils what is punched; but where
 * the memory is a file's, and extents are of whole pages, the kernel plays it.
 *
 * Whether a keeper is dead is the harness's word, as with all subjects.
 */

#define MANY 2u
#define EXTENTS_MAX 64u
#define TYPE 7u
#define OWNERS (PARTIES_MAX + 1)
#define RING_BYTES 4096u
#define HEAD_BYTES 8u
#define HOLE UINT64_C(0xdbdbdbdbdbdbdbdb)
#define PAGE 4096u

struct office {
	struct petal_u64 producers[PARTIES_MAX]; /* the run that each is in */
	struct petal_u64 consumer;
	struct petal_u64 doubted[EXTENTS_MAX]; /* by first extent: which run */
};

static_assert(sizeof(struct office) <= PETAL_SEGMENT_HEADER_BYTES, "it fits");

/* What the ring carries. */
struct parcel {
	uint64_t offset;
	uint64_t generation;
};

struct extent_view {
	struct petal_extents extents;
	struct petal_mpsc ring;
	uint64_t pos;                  /* the consumer's */
	struct petal_extent_info last; /* where a producer was */
};

static_assert(sizeof(struct extent_view) <= sizeof(((struct party *)0)->view),
	      "it fits");

/* ---- where things lie; a variant is the bytes of an extent ---- */

static const struct petal_mpsc_geometry ring_geometry = {
	.data_bytes = RING_BYTES,
	.owners = OWNERS,
};

static uint64_t up_to(uint64_t bytes, uint64_t unit)
{
	return (bytes + unit - 1) / unit * unit;
}

static bool is_paged(const struct shape *shape)
{
	return shape->variant % PAGE == 0;
}

static uint64_t header_bytes(const struct shape *shape)
{
	return PETAL_SEGMENT_HEADER_BYTES +
	       up_to(PETAL_SEGMENT_TABLE_BYTES(shape->count), 64);
}

static uint64_t fixed_bytes(const struct shape *shape)
{
	uint64_t bytes = header_bytes(shape) +
			 petal_mpsc_bytes(&ring_geometry) + RING_BYTES;

	return up_to(bytes, is_paged(shape) ? PAGE : 64);
}

static uint64_t extent_bytes(const struct shape *shape)
{
	return fixed_bytes(shape) + shape->count * shape->variant;
}

static uint64_t stride(const struct shape *shape)
{
	return up_to(HEAD_BYTES + shape->length_max, 8);
}

static struct extent_view *view_of(struct party *party)
{
	return (struct extent_view *)(void *)party->view;
}

static struct office *office_of(const struct party *party)
{
	return party->memory;
}

static uint8_t *at(const struct party *party, uint64_t offset)
{
	return (uint8_t *)party->memory + offset;
}

static struct petal_u64 *owner_of(const struct party *party, uint64_t buffer)
{
	return (struct petal_u64 *)(void *)at(party, buffer);
}

static int extent_format(void *memory, const struct shape *shape)
{
	struct petal_extent_table *table =
		(struct petal_extent_table
			 *)(void *)((uint8_t *)memory +
				    PETAL_SEGMENT_HEADER_BYTES);

	if (shape->count > EXTENTS_MAX)
		return -EINVAL;
	table->generation.bits = shape->start_pos;
	return petal_mpsc_format((uint8_t *)memory + header_bytes(shape),
				 &ring_geometry);
}

/* ---- the kernel's part ---- */

static uint8_t *kernel_memory;
static bool keeper_is_dead;

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
	if (fd >= 0)
		return (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
	for (off_t i = offset; i < offset + bytes; i += 8) {
		struct petal_u64 *word =
			(struct petal_u64 *)(void *)(kernel_memory + i);

		/* What was stored to a hole is there when it is none. */
		if (mode & FALLOC_FL_PUNCH_HOLE)
			petal_store(word, HOLE, PETAL_RELAXED);
		else if (petal_load(word, PETAL_RELAXED) == HOLE)
			petal_store(word, 0, PETAL_RELAXED);
	}
	return 0;
}

/* Pages of memory that is stepped are there, and mostly may not be written to. */
int madvise(void *memory, size_t bytes, int advice)
{
	if (subject_file < 0 && advice == MADV_POPULATE_WRITE)
		return 0;
	return (int)syscall(SYS_madvise, memory, bytes, advice);
}

int __real_petal_peer_identify(int pid, struct petal_peer_id *ret_id);
int __wrap_petal_peer_identify(int pid, struct petal_peer_id *ret_id);

int __wrap_petal_peer_identify(int pid, struct petal_peer_id *ret_id)
{
	return keeper_is_dead ? -ESRCH
			      : __real_petal_peer_identify(pid, ret_id);
}

static struct petal_extents *extents_of(struct party *party)
{
	kernel_memory = party->memory;
	return &view_of(party)->extents;
}

static int look_at_extents(struct party *party)
{
	const struct shape *shape = party->shape;
	bool is_file = subject_file >= 0 && is_paged(shape);
	struct petal_segment segment = {
		.base = party->memory,
		.total_bytes = extent_bytes(shape),
		.fd = is_file ? subject_file : -1,
		/* Of huge pages nobody asks whether the machine has memory. */
		.pages = is_file ? PETAL_SEGMENT_PAGES_PLAIN
				 : PETAL_SEGMENT_PAGES_HUGE_2M,
		.writable = true,
		.backing = PETAL_SEGMENT_MEMFD,
		.header_bytes = header_bytes(shape),
		.fixed_bytes = fixed_bytes(shape),
		.extent_bytes = shape->variant,
	};

	return petal_extent_open(&segment, extents_of(party));
}

static int keep(struct party *party)
{
	const struct petal_peer_id self = {
		.pid = (uint32_t)getpid(),
		.start_ticks = 1,
	};
	int err;

	keeper_is_dead = true;
	err = petal_extent_keep(extents_of(party), &self);
	keeper_is_dead = false;
	return err;
}

/* ---- runs ---- */

/* The first extent from @from on that a run in this state begins with. */
static bool find_run(struct party *party, uint64_t from,
		     enum petal_extent_state state,
		     struct petal_extent_info *ret_info, uint64_t *ret_index)
{
	struct petal_extent_info before = { 0 };

	if (from > 0)
		petal_extent_look(extents_of(party), from - 1, &before);
	for (uint64_t i = from; i < party->shape->count; i++) {
		petal_extent_look(extents_of(party), i, ret_info);
		if (ret_info->state == state &&
		    (before.state == PETAL_EXTENT_FREE ||
		     before.generation != ret_info->generation)) {
			*ret_index = i;
			return true;
		}
		before = *ret_info;
	}
	return false;
}

/* The sum is of one moment only if it is 0 and the run RETIRING. */
static uint64_t pins_of(struct party *party, uint64_t first,
			uint64_t generation)
{
	struct petal_extent_info info;
	uint64_t pins = 0;

	for (uint64_t i = first; i < party->shape->count; i++) {
		petal_extent_look(extents_of(party), i, &info);
		if (info.generation != generation)
			break;
		pins += info.pins;
	}
	return pins;
}

static bool anyone_is_in(const struct party *party, uint64_t generation)
{
	const struct office *office = office_of(party);

	for (unsigned i = 0; i < PARTIES_MAX; i++)
		/* [IN] Acquire: what he did in there is done. */
		if (petal_load(&office->producers[i], PETAL_ACQUIRE(IN)) ==
		    generation)
			return true;
	return petal_load(&office->consumer, PETAL_RELAXED) == generation;
}

/* Somebody died in a run, if he was in one: nobody is to use it any more. */
static int doubt(struct party *party, struct petal_u64 *where)
{
	static const enum petal_extent_state states[] = {
		PETAL_EXTENT_LIVE, PETAL_EXTENT_RETIRING
	};
	uint64_t generation = petal_load(where, PETAL_RELAXED);
	struct petal_extent_info info;
	uint64_t index = 0;
	int err = 0;

	for (unsigned i = 0; i < 2 && generation != 0; i++)
		for (uint64_t from = 0;
		     find_run(party, from, states[i], &info, &index);
		     from = index + 1) {
			if (info.generation != generation)
				continue;
			petal_store(&office_of(party)->doubted[index],
				    generation, PETAL_RELAXED);
			err = petal_extent_retire(extents_of(party),
						  info.offset, generation);
			if (err)
				return err;
		}
	petal_store(where, 0, PETAL_RELEASE(IN));
	return 0;
}

/* Return: how many runs are LIVE; and the oldest of them. */
static unsigned live_runs(struct party *party,
			  struct petal_extent_info *ret_oldest)
{
	struct petal_extent_info info;
	unsigned count = 0;
	uint64_t index;

	for (uint64_t from = 0;
	     find_run(party, from, PETAL_EXTENT_LIVE, &info, &index);
	     from = index + 1)
		if (count++ == 0 || info.generation < ret_oldest->generation)
			*ret_oldest = info;
	return count;
}

static int add(struct party *party, uint64_t extents)
{
	uint64_t offset, generation;
	int err = petal_extent_add(extents_of(party),
				   extents * party->shape->variant, &offset,
				   &generation);

	return err == -ENOSPC ? 0 : err;
}

/* Two runs are LIVE, of two extents and of one, while there is room. */
static int provide(struct party *party)
{
	struct petal_extent_info oldest;
	unsigned count = live_runs(party, &oldest);
	int err = 0;

	if (count == 0)
		err = add(party, 2);
	if (count < 2 && !err)
		err = add(party, 1);
	return err;
}

static bool is_drained(struct party *party)
{
	struct extent_view *view = view_of(party);
	struct petal_mpsc_view record;
	int outcome = petal_mpsc_peek(&view->ring, view->pos, &record);

	return outcome == PETAL_RING_EMPTY || outcome == PETAL_RING_CLOSED;
}

/* Give back a retired run, if nobody is in it, nor has a message there. */
static int give_back(struct party *party, uint64_t index,
		     const struct petal_extent_info *run)
{
	bool quiescent = petal_load(&office_of(party)->doubted[index],
				    PETAL_RELAXED) == run->generation &&
			 !anyone_is_in(party, run->generation);

	if (!quiescent && pins_of(party, index, run->generation) > 0)
		return 0;
	/* Only now, for a pin falls after the message can be seen. */
	if (!is_drained(party))
		return 0;
	return petal_extent_reclaim(extents_of(party), run->offset,
				    run->generation, quiescent) == 0
		       ? 0
		       : -EPROTO;
}

static int tidy(struct party *party)
{
	struct petal_extent_info info;
	uint64_t index;
	int err = 0;

	for (uint64_t from = 0;
	     !err &&
	     find_run(party, from, PETAL_EXTENT_RETIRING, &info, &index);
	     from = index + 1)
		err = give_back(party, index, &info);
	return err ? err : provide(party);
}

/* ---- taking a place ---- */

static int extent_join(struct party *party)
{
	struct extent_view *view = view_of(party);
	uint64_t ring_bytes = petal_mpsc_bytes(&ring_geometry);
	uint8_t *ring = at(party, header_bytes(party->shape));
	int err = petal_mpsc_attach(
		ring, ring_bytes, ring + ring_bytes, RING_BYTES,
		party->role == CONSUMER ? 0 : party->index + 1, &view->ring);

	if (!err)
		err = look_at_extents(party);
	if (err || party->role == PRODUCER)
		return err;
	err = petal_mpsc_adopt(&view->ring, &view->pos);
	if (!err)
		err = keep(party);
	if (!err)
		err = doubt(party, &office_of(party)->consumer);
	/* What repairs does not grow: that is the next look's, at an end. */
	return err || party->follows ? err : provide(party);
}

static int extent_repair(struct party *party, const struct casualties *dead)
{
	uint64_t owners[PETAL_MPSC_OWNERS_MAX / 64] = {
		(uint64_t)dead->producers << 1 | (dead->consumers & 1)
	};
	struct extent_view *view = view_of(party);
	int err = petal_mpsc_repair(&view->ring, view->pos, owners);

	if (err == -EAGAIN)
		return ACT_HELD_UP;
	for (unsigned i = 0; i < PARTIES_MAX && err >= 0; i++)
		if (dead->producers >> i & 1)
			err = doubt(party, &office_of(party)->producers[i]);
	return err < 0 ? err : 0;
}

/* There may be one extent only, and others retire. */
static uint64_t extent_room(const struct shape *shape)
{
	return shape->variant / stride(shape);
}

/* ---- the producer ---- */

/* Return: 0; -ESTALE when nobody may enter any more; or another error. */
static int enter(struct party *party, const struct petal_extent_info *info)
{
	struct petal_u64 *where = &office_of(party)->producers[party->index];
	int err;

	/* [IN] It is known before there is a pin. */
	petal_store(where, info->generation, PETAL_RELEASE(IN));
	petal_fence(PETAL_SEQ_CST(IN));
	err = petal_extent_pin(extents_of(party), info->offset,
			       info->generation);
	if (err)
		petal_store(where, 0, PETAL_RELEASE(IN));
	return err;
}

static int leave(struct party *party, const struct petal_extent_info *info)
{
	int err = petal_extent_unpin(extents_of(party), info->offset,
				     info->generation);

	/* [IN] Release: there is no pin when it is known. */
	petal_store(&office_of(party)->producers[party->index], 0,
		    PETAL_RELEASE(IN));
	return err;
}

/* A buffer of an extent that we are in; 0 if all are taken. */
static uint64_t take_buffer(struct party *party,
			    const struct petal_extent_info *info, uint64_t id)
{
	uint64_t step = stride(party->shape);
	uint64_t end = info->offset + party->shape->variant;

	for (uint64_t buffer = info->offset; buffer + step <= end;
	     buffer += step) {
		uint64_t free = 0;

		/* [REST] Acquire: whoever read it before has done so. */
		if (petal_cas(owner_of(party, buffer), &free, id,
			      PETAL_ACQUIRE(REST)))
			return buffer;
	}
	return 0;
}

/* In an extent that we are in: the ring's room, then the message. */
static int write_one(struct party *party, const struct petal_extent_info *info,
		     uint64_t buffer, struct petal_mpsc_claim *ret_claim)
{
	struct parcel parcel = { .offset = buffer,
				 .generation = info->generation };
	uint64_t id = party_next_id(party);
	int err = petal_mpsc_claim(&view_of(party)->ring, sizeof(parcel),
				   ret_claim);

	if (err) {
		petal_store(owner_of(party, buffer), 0, PETAL_RELEASE(REST));
		return party_outcome(err);
	}
	history_add(party->history, EVENT_TRY, id);
	message_fill(at(party, buffer + HEAD_BYTES), party->shape->length_max,
		     id);
	petal_store(petal_record_type(ret_claim->record), TYPE, PETAL_RELAXED);
	memcpy(ret_claim->record + 1, &parcel, sizeof(parcel));
	return ACT_DONE;
}

static int publish(struct party *party, const struct petal_mpsc_claim *claim)
{
	return party_settled(party,
			     petal_mpsc_publish(&view_of(party)->ring, claim));
}

/* Enter an extent for a buffer. Return: 0, ACT_NOTHING, or an error. */
static int try_extent(struct party *party, const struct petal_extent_info *info,
		      uint64_t *ret_buffer)
{
	int err = enter(party, info);

	if (err)
		return err == -ESTALE ? ACT_NOTHING : err;
	*ret_buffer = take_buffer(party, info, party_next_id(party));
	if (*ret_buffer)
		return 0;
	err = leave(party, info);
	return err ? err : ACT_NOTHING;
}

/* Where we were last, unseen; else whatever is LIVE. */
static int enter_for(struct party *party, struct petal_extent_info *ret_info,
		     uint64_t *ret_buffer)
{
	struct petal_extent_info *last = &view_of(party)->last;
	int outcome = ACT_NOTHING;

	*ret_info = *last;
	if (last->generation)
		outcome = try_extent(party, ret_info, ret_buffer);
	for (uint64_t i = 0; i < party->shape->count && outcome == ACT_NOTHING;
	     i++) {
		petal_extent_look(extents_of(party), i, ret_info);
		if (ret_info->state == PETAL_EXTENT_LIVE)
			outcome = try_extent(party, ret_info, ret_buffer);
	}
	if (outcome == 0)
		*last = *ret_info;
	return outcome;
}

static int send_up_to(struct party *party, unsigned most)
{
	struct petal_extent_info info;
	struct petal_mpsc_claim claim;
	uint64_t buffer;
	unsigned count = 0;
	int outcome = enter_for(party, &info, &buffer);
	int err;

	if (outcome)
		return outcome;
	if (most > 1)
		outcome = petal_extent_prefault(extents_of(party), info.offset,
						party->shape->variant,
						info.generation);
	/* It may have been retired meanwhile; we may stay. */
	if (outcome == PETAL_EXTENT_LEAVING)
		outcome = ACT_DONE;
	while (buffer && outcome == ACT_DONE) {
		outcome = write_one(party, &info, buffer, &claim);
		if (outcome)
			break;
		outcome = publish(party, &claim);
		if (++count == most)
			break;
		buffer = take_buffer(party, &info, party_next_id(party));
	}
	err = leave(party, &info);
	if (err)
		return err;
	return count ? ACT_DONE : outcome;
}

static int send(struct party *party)
{
	return send_up_to(party, 1);
}

static int send_many(struct party *party)
{
	return send_up_to(party, MANY);
}

static int give_up(struct party *party)
{
	struct petal_extent_info info;
	struct petal_mpsc_claim claim;
	uint64_t buffer;
	int outcome = enter_for(party, &info, &buffer);
	int err;

	if (outcome)
		return outcome;
	outcome = write_one(party, &info, buffer, &claim);
	if (outcome == ACT_DONE) {
		outcome = party_gave_up(
			party, petal_mpsc_abort(&view_of(party)->ring, &claim));
		petal_store(owner_of(party, buffer), 0, PETAL_RELEASE(REST));
	}
	err = leave(party, &info);
	return err ? err : outcome;
}

static int finish(struct party *party)
{
	party_closes(party);
	petal_mpsc_close(&view_of(party)->ring);
	return party_closed(party);
}

/* ---- the consumer, who is the keeper ---- */

static int peeked(int outcome)
{
	switch (outcome) {
	case PETAL_RING_FOUND:
		return ACT_DONE;
	case PETAL_RING_EMPTY:
		return ACT_NOTHING;
	case PETAL_RING_PENDING:
		return ACT_HELD_UP;
	case PETAL_RING_CLOSED:
		return ACT_CLOSED;
	default:
		return outcome;
	}
}

static void pass(struct party *party, const struct petal_mpsc_view *record)
{
	petal_mpsc_release(&view_of(party)->ring, record->end);
	view_of(party)->pos = record->end;
}

/* A run that we retired lets us in no more, and stays all the same. */
static int read_one(struct party *party, const struct petal_mpsc_view *record)
{
	struct petal_u64 *where = &office_of(party)->consumer;
	uint32_t length = party->shape->length_max;
	struct parcel parcel;
	const uint8_t *bytes;
	uint64_t id;
	int pinned, err;

	memcpy(&parcel, record->record + 1, sizeof(parcel));
	bytes = at(party, parcel.offset + HEAD_BYTES);
	petal_store(where, parcel.generation, PETAL_RELEASE(IN));
	pinned = petal_extent_pin(extents_of(party), parcel.offset,
				  parcel.generation);
	err = petal_extent_check(extents_of(party), parcel.offset,
				 stride(party->shape), parcel.generation);
	if (err < 0)
		return err;
	id = party_got(party, bytes, length);
	party_still(party, id, bytes, length);
	history_add(party->history, EVENT_FREE, id);
	pass(party, record);
	history_add(party->history, EVENT_DONE, id);
	petal_store(owner_of(party, parcel.offset), 0, PETAL_RELEASE(REST));
	err = 0;
	if (!pinned)
		err = petal_extent_unpin(extents_of(party), parcel.offset,
					 parcel.generation);
	petal_store(where, 0, PETAL_RELEASE(IN));
	return err;
}

static int receive(struct party *party)
{
	struct extent_view *view = view_of(party);
	struct petal_mpsc_view record;
	int outcome = peeked(petal_mpsc_peek(&view->ring, view->pos, &record));

	if (outcome == ACT_DONE) {
		if (record.type != PETAL_RECORD_TYPE_PADDING)
			return read_one(party, &record);
		pass(party, &record);
	} else if (outcome == ACT_NOTHING || outcome == ACT_CLOSED) {
		int err = tidy(party);

		return err ? err : outcome;
	}
	return outcome;
}

static int grow(struct party *party)
{
	int err = add(party, 1);

	return err ? err : receive(party);
}

static int shrink(struct party *party)
{
	struct petal_extent_info info;
	int err = 0;

	/* Not the only one. */
	if (live_runs(party, &info) > 1)
		err = petal_extent_retire(extents_of(party), info.offset,
					  info.generation);
	return err ? err : receive(party);
}

/* Whoever is in it may stay, also the keeper. */
static int shrink_from_within(struct party *party)
{
	struct petal_u64 *where = &office_of(party)->consumer;
	struct petal_extents *extents = extents_of(party);
	struct petal_extent_info info;
	int err;

	if (live_runs(party, &info) < 2)
		return receive(party);
	petal_store(where, info.generation, PETAL_RELEASE(IN));
	err = petal_extent_pin(extents, info.offset, info.generation);
	if (!err)
		err = petal_extent_retire(extents, info.offset,
					  info.generation);
	if (err)
		return err;
	if (petal_extent_reclaim(extents, info.offset, info.generation,
				 false) != PETAL_EXTENT_PINNED ||
	    petal_extent_check(extents, info.offset, 1, info.generation) !=
		    PETAL_EXTENT_LEAVING)
		return -EPROTO;
	err = petal_extent_unpin(extents, info.offset, info.generation);
	petal_store(where, 0, PETAL_RELEASE(IN));
	return err ? err : receive(party);
}

static int hand_over(struct party *party)
{
	int err;

	petal_extent_drop(extents_of(party));
	err = keep(party);
	return err ? err : receive(party);
}

/* ---- at rest ---- */

static int complain(char *ret_why, const char *what, uint64_t extent)
{
	snprintf(ret_why, 200, "%s (extent %llu)", what,
		 (unsigned long long)extent);
	return 1;
}

static int audit_hole(const uint8_t *bytes, const struct shape *shape,
		      uint64_t expected)
{
	for (uint64_t i = 0; i < shape->variant; i += 8)
		if (message_get(bytes + i) != expected)
			return 1;
	return 0;
}

static int audit_extent(const uint8_t *bytes, uint64_t word,
			const struct shape *shape, uint64_t index,
			char *ret_why)
{
	unsigned state = petal_extent_state_of(word);
	bool is_file = subject_file >= 0 && is_paged(shape);
	uint64_t hole = is_file || word == 0 ? 0 : HOLE;
	uint64_t step = stride(shape);

	if (petal_extent_pins_of(word))
		return complain(ret_why, "a pin is lost", index);
	if (state == PETAL_EXTENT_FREE)
		return audit_hole(bytes, shape, hole)
			       ? complain(ret_why, "a hole was written", index)
			       : 0;
	if (state != PETAL_EXTENT_LIVE)
		return complain(ret_why, "a run is lost", index);
	for (uint64_t i = 0; i + step <= shape->variant; i += step)
		if (message_get(bytes + i))
			return complain(ret_why, "a buffer is lost", index);
	return 0;
}

/* Runs are LIVE or gone, nobody is in them, and all buffers are free. */
static int extent_audit(const void *memory, const struct shape *shape,
			char *ret_why)
{
	const uint8_t *bytes = memory;
	const struct office *office = memory;
	const uint8_t *words = bytes + PETAL_SEGMENT_HEADER_BYTES +
			       sizeof(struct petal_extent_table);
	bool any = false;

	for (unsigned i = 0; i < PARTIES_MAX; i++)
		if (office->producers[i].bits)
			return complain(ret_why, "one who is dead is in", i);
	for (uint64_t i = 0; i < shape->count; i++) {
		uint64_t word = message_get(words + 8 * i);

		if (audit_extent(bytes + fixed_bytes(shape) +
					 i * shape->variant,
				 word, shape, i, ret_why))
			return 1;
		any |= petal_extent_state_of(word) == PETAL_EXTENT_LIVE;
	}
	return any ? 0 : complain(ret_why, "none is live", 0);
}

static const struct act acts[] = {
	{ "send", PRODUCER, send, false },
	{ "send many", PRODUCER, send_many, false },
	{ "abort", PRODUCER, give_up, false },
	{ "close", PRODUCER, finish, true },
	{ "receive", CONSUMER, receive, false },
	{ "grow", CONSUMER, grow, false },
	{ "shrink", CONSUMER, shrink, false },
	{ "shrink from within", CONSUMER, shrink_from_within, false },
	{ "hand over", CONSUMER, hand_over, false },
};

static const struct shape shapes[] = {
	{ "4 extents of 128 B", 4, 24, 0, 3, 1, 128 },
	{ "5 extents of 64 B, generation 2^32", 5, 40, (UINT64_C(1) << 32) - 3,
	  2, 1, 64 },
	{ "8 extents of 4 KiB", 8, 56, 0, 3, 1, 4096 },
	{ "64 extents of 64 KiB", 64, 4096, 0, 2, 1, 65536 },
	{ "16 extents of 1 MiB", 16, 16384, 7, 1, 1, 1048576 },
};

const struct subject subject_extent = {
	.name = "extent",
	.repairer = CONSUMER,
	.shapes = shapes,
	.shape_count = sizeof(shapes) / sizeof(shapes[0]),
	.stepped = 2,
	.acts = acts,
	.act_count = sizeof(acts) / sizeof(acts[0]),
	.bytes = extent_bytes,
	.format = extent_format,
	.join = extent_join,
	.repair = extent_repair,
	.audit = extent_audit,
	.room = extent_room,
};
