/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_MPSC_INL_H
#define PETAL_RINGS_MPSC_INL_H

/* "PETALMPS" in memory. */
#define PETAL_MPSC_MAGIC UINT64_C(0x53504d4c41544550)
#define PETAL_MPSC_LAYOUT 2u
/* Each lost swap means that another producer won; nobody loses this often. */
#define PETAL_MPSC_TRIES 4096u

#define PETAL_MPSC_CLOSED UINT64_C(1) /* in the tail's word */
#define PETAL_MPSC_HELD UINT64_C(1)   /* in an intent's from */

/* An extent in quarantine. Its one word is never half of two extents. */
struct petal_mpsc_fence {
	struct petal_u64 extent; /* where in the data, how long: mpsc.c */
	struct petal_u64 pos;    /* of the claim that was fenced */
	struct petal_u32 owner;
	struct petal_u32 freed; /* its owner is dead */
	uint8_t reserved[8];
};

/* Lines with one writer each, or one kind of them. */
struct petal_mpsc_shared {
	/* The maker. */
	struct petal_u64 magic; /* last at format, so that half is nothing */
	struct petal_u32 layout;
	struct petal_u32 owners;
	struct petal_u64 data_bytes;
	struct petal_u32 reserve_bytes;
	uint8_t reserved0[100];

	/* The producers. */
	struct petal_u64 tail;
	uint8_t reserved1[120];

	/* The consumer, or the keeper in its place. */
	struct petal_u64 head;
	struct petal_u64 freeing; /* what release is about to store to head */
	struct petal_u64 fenced;  /* bit map of the fences in use */
	uint8_t reserved2[104];

	/* The consumer, for those who only want to know. */
	struct petal_u64 gauge_head;
	struct petal_u64 gauge_tail;
	uint8_t reserved3[112];

	/* The keeper. */
	struct petal_mpsc_fence fences[PETAL_MPSC_FENCES_MAX];
};

/* Of one owner, which alone writes it while it lives. */
struct petal_mpsc_intent {
	struct petal_u64 from;  /* what it swaps the tail from, and HELD */
	struct petal_u64 to;    /* what it swaps it to */
	struct petal_u64 acked; /* the end of the last claim that it lost */
	uint8_t reserved[104];
};

static_assert(__builtin_offsetof(struct petal_mpsc_shared, layout) == 8,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_shared, owners) == 12,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_shared, data_bytes) == 16,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_shared, reserve_bytes) == 24,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_shared, tail) == 128,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_shared, head) == 256,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_shared, freeing) == 264,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_shared, fenced) == 272,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_shared, gauge_head) == 384,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_shared, gauge_tail) == 392,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_shared, fences) == 512,
	      "layout");
static_assert(sizeof(struct petal_mpsc_shared) == 1024, "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_fence, pos) == 8, "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_fence, owner) == 16,
	      "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_fence, freed) == 20,
	      "layout");
static_assert(sizeof(struct petal_mpsc_fence) == 32, "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_intent, to) == 8, "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_intent, acked) == 16,
	      "layout");
static_assert(sizeof(struct petal_mpsc_intent) == 128, "layout");

/* Masks the low bits as well: no position can make a misaligned record. */
static inline struct petal_record *
petal_mpsc_record(const struct petal_mpsc *ring, uint64_t pos)
{
	uint64_t offset = pos & (ring->data_bytes - PETAL_RECORD_ALIGN);

	return (struct petal_record *)(void *)(ring->data + offset);
}

static inline uint64_t petal_mpsc_to_end(const struct petal_mpsc *ring,
					 uint64_t pos)
{
	return ring->data_bytes - (pos & (ring->data_bytes - 1));
}

static inline uint64_t petal_mpsc_commit(const struct petal_mpsc *ring,
					 enum petal_record_state state,
					 uint32_t owner, uint64_t pos)
{
	return petal_record_commit(state, owner, pos >> ring->lap_shift);
}

/* Whether a commit word was written in the lap of this position. */
static inline bool petal_mpsc_of_lap(const struct petal_mpsc *ring,
				     uint64_t commit, uint64_t pos)
{
	return commit >> 16 == (pos >> ring->lap_shift) << 16 >> 16;
}

/*
 * [CLAIM] Nowhere first, so that whoever finds the same position before and
 * after the end has read a pair that belongs together.
 */
static inline void petal_mpsc_intend(struct petal_mpsc_intent *intent,
				     uint64_t from, uint64_t to)
{
	/* [NAME] Release: our last claim was settled before we say so. */
	petal_store(&intent->from, PETAL_MPSC_NOWHERE, PETAL_RELEASE(NAME));
	petal_store(&intent->to, to, PETAL_RELEASE(CLAIM));
	petal_store(&intent->from, from, PETAL_RELEASE(CLAIM));
}

/* Swap the tail. On failure @tail is what others have made of it. */
static inline bool petal_mpsc_swap(struct petal_mpsc *ring, uint64_t *tail,
				   uint64_t to)
{
	struct petal_mpsc_intent *intent = &ring->intents[ring->owner];

	petal_mpsc_intend(intent, *tail, to);
	/*
	 * [CLAIM] Release: our intent is readable by whoever sees this tail.
	 * Acquire: so are those of all who moved it before us.
	 */
	if (!petal_cas(&ring->shared->tail, tail, to, PETAL_ACQ_REL(CLAIM)))
		return false;
	/* [NAME] Release: who loads the mark knows the end, and what was. */
	petal_store(&intent->from, *tail | PETAL_MPSC_HELD,
		    PETAL_RELEASE(NAME));
	/* [HELD] Release: nothing is written into the claim before the mark. */
	petal_fence(PETAL_RELEASE(HELD));
	return true;
}

/* Say that the claim we lost will not be touched any more. */
static inline int petal_mpsc_acknowledge(struct petal_mpsc *ring, uint64_t end)
{
	/* [ACK] Release: after all that we stored there. */
	petal_store(&ring->intents[ring->owner].acked, end, PETAL_RELEASE(ACK));
	return -ESTALE;
}

/*
 * Turn a claim's commit word from zero into what it is to be. A swap and not a
 * store, for the keeper may have done so before us.
 */
static inline int petal_mpsc_settle(struct petal_mpsc *ring, uint64_t pos,
				    uint64_t end, enum petal_record_state state)
{
	uint64_t zero = 0;
	uint64_t commit = petal_mpsc_commit(ring, state, ring->owner, pos);

	/* [FILL] Release: the consumer sees all that we wrote, or nothing. */
	if (petal_cas(&petal_mpsc_record(ring, pos)->commit, &zero, commit,
		      PETAL_RELEASE(FILL)))
		return 0;
	return petal_mpsc_acknowledge(ring, end);
}

/*
 * Look at head, tail and quarantine, and pad or skip what is in the way, for
 * petal_mpsc_take(). 0 with the tail when there is room; 1 to try again; as
 * petal_mpsc_claim() otherwise.
 */
int petal_mpsc_make_room(struct petal_mpsc *ring, uint64_t extent,
			 uint64_t *tail);

/* Whether a claim fits in before the next thing that needs a look. */
static inline bool petal_mpsc_is_roomy(const struct petal_mpsc *ring,
				       uint64_t tail, uint64_t extent)
{
	/* Enormous, if the tail has gone past what we have seen. */
	uint64_t room = ring->limit_seen - tail;

	return room >= extent && room <= ring->data_bytes &&
	       room % PETAL_RECORD_ALIGN == 0 &&
	       extent <= petal_mpsc_to_end(ring, tail);
}

/* Make a stretch of the ring ours. 0 with its position in open_pos. */
static inline int petal_mpsc_take(struct petal_mpsc *ring, uint64_t extent)
{
	uint64_t tail = petal_load(&ring->shared->tail, PETAL_RELAXED);
	int err = -EAGAIN;

	if (ring->open_pos != PETAL_MPSC_NOWHERE)
		return -EBUSY;
	for (unsigned tries = 0; tries < PETAL_MPSC_TRIES; tries++) {
		if (!petal_mpsc_is_roomy(ring, tail, extent)) {
			err = petal_mpsc_make_room(ring, extent, &tail);
			if (err < 0)
				break;
			if (err > 0)
				continue;
		}
		if (petal_mpsc_swap(ring, &tail, tail + extent)) {
			ring->open_pos = tail;
			return 0;
		}
	}
	/* [NAME] A wish that lost must not look like one that waits. */
	petal_store(&ring->intents[ring->owner].from, PETAL_MPSC_NOWHERE,
		    PETAL_RELEASE(NAME));
	return err < 0 ? err : -EAGAIN;
}

static inline int petal_mpsc_claim(struct petal_mpsc *ring, uint32_t length,
				   struct petal_mpsc_claim *ret_claim)
{
	uint64_t extent = petal_record_extent(length);
	int err;

	if (length > ring->length_max)
		return -EMSGSIZE;
	err = petal_mpsc_take(ring, extent);
	if (err)
		return err;
	ret_claim->record = petal_mpsc_record(ring, ring->open_pos);
	ret_claim->pos = ring->open_pos;
	ret_claim->end = ring->open_pos + extent;
	petal_store(petal_record_length(ret_claim->record), length,
		    PETAL_RELAXED);
	return 0;
}

static inline struct petal_record *
petal_mpsc_claim_at(const struct petal_mpsc_claim *claim, uint32_t length,
		    uint32_t index)
{
	uint8_t *first = (uint8_t *)claim->record;

	return (struct petal_record *)(void *)(first +
					       index * petal_record_extent(
							       length));
}

static inline int petal_mpsc_claim_run(struct petal_mpsc *ring, uint32_t length,
				       uint32_t count,
				       struct petal_mpsc_claim *ret_claim)
{
	uint64_t extent = petal_record_extent(length);
	int err;

	if (count == 0)
		return -EINVAL;
	if (extent > ring->length_max / count)
		return -EMSGSIZE;
	err = petal_mpsc_take(ring, extent * count);
	if (err)
		return err;
	ret_claim->record = petal_mpsc_record(ring, ring->open_pos);
	ret_claim->pos = ring->open_pos;
	ret_claim->end = ring->open_pos + extent * count;
	petal_store(petal_record_length(ret_claim->record), length,
		    PETAL_RELAXED);
	/* All but the first are published, behind a first that is not. */
	for (uint32_t i = 1; i < count; i++) {
		struct petal_record *record =
			petal_mpsc_claim_at(ret_claim, length, i);

		petal_store(petal_record_length(record), length, PETAL_RELAXED);
		petal_store(&record->commit,
			    petal_mpsc_commit(ring, PETAL_RECORD_PUBLISHED,
					      ring->owner, ring->open_pos),
			    PETAL_RELAXED);
	}
	return 0;
}

static inline int petal_mpsc_publish(struct petal_mpsc *ring,
				     const struct petal_mpsc_claim *claim)
{
	if (claim->pos != ring->open_pos)
		return -ESTALE;
	ring->open_pos = PETAL_MPSC_NOWHERE;
	return petal_mpsc_settle(ring, claim->pos, claim->end,
				 PETAL_RECORD_PUBLISHED);
}

/* Make padding of a whole stretch that is ours to write. */
static inline int petal_mpsc_pad(struct petal_mpsc *ring, uint64_t pos,
				 uint64_t end)
{
	struct petal_record *record = petal_mpsc_record(ring, pos);

	petal_store(petal_record_length(record),
		    (uint32_t)(end - pos - PETAL_RECORD_HEADER_BYTES),
		    PETAL_RELAXED);
	petal_store(petal_record_type(record), PETAL_RECORD_TYPE_PADDING,
		    PETAL_RELAXED);
	return petal_mpsc_settle(ring, pos, end, PETAL_RECORD_ABANDONED);
}

static inline int petal_mpsc_abort(struct petal_mpsc *ring,
				   const struct petal_mpsc_claim *claim)
{
	if (claim->pos != ring->open_pos)
		return -ESTALE;
	ring->open_pos = PETAL_MPSC_NOWHERE;
	return petal_mpsc_pad(ring, claim->pos, claim->end);
}

/* What peek says of anything but a published record of this lap. */
int petal_mpsc_peek_other(struct petal_mpsc *ring, uint64_t pos,
			  uint64_t commit, struct petal_mpsc_view *ret_view);

static inline int petal_mpsc_peek(struct petal_mpsc *ring, uint64_t pos,
				  struct petal_mpsc_view *ret_view)
{
	struct petal_record *record = petal_mpsc_record(ring, pos);
	/* [FILL] Acquire: whoever published is done with every byte. */
	uint64_t commit = petal_load(&record->commit, PETAL_ACQUIRE(FILL));
	uint32_t owner = petal_record_owner(commit);
	uint32_t length;

	if (commit !=
	    petal_mpsc_commit(ring, PETAL_RECORD_PUBLISHED, owner, pos))
		return petal_mpsc_peek_other(ring, pos, commit, ret_view);
	length = petal_load(petal_record_length(record), PETAL_RELAXED);
	if (length > ring->length_max ||
	    petal_record_extent(length) > petal_mpsc_to_end(ring, pos))
		return -PETAL_ECORRUPT;
	ring->found += pos != ring->found_pos;
	ring->found_pos = pos;
	ret_view->record = record;
	ret_view->pos = pos;
	ret_view->end = pos + petal_record_extent(length);
	ret_view->length = length;
	ret_view->type = petal_load(petal_record_type(record), PETAL_RELAXED);
	ret_view->owner = owner;
	return 0;
}

static inline uint64_t petal_mpsc_head(const struct petal_mpsc *ring)
{
	return petal_load(&ring->shared->head, PETAL_RELAXED);
}

static inline uint64_t petal_mpsc_tail(const struct petal_mpsc *ring)
{
	return petal_load(&ring->shared->tail, PETAL_RELAXED) &
	       ~PETAL_MPSC_CLOSED;
}

/* Of two looks, between which the consumer may have drained much. */
static inline uint64_t petal_mpsc_between(const struct petal_mpsc *ring,
					  uint64_t head, uint64_t tail)
{
	return tail - head <= ring->data_bytes ? tail - head : ring->data_bytes;
}

static inline uint64_t petal_mpsc_backlog(const struct petal_mpsc *ring)
{
	uint64_t head = petal_load(&ring->shared->gauge_head, PETAL_RELAXED);
	uint64_t tail = petal_load(&ring->shared->gauge_tail, PETAL_RELAXED);

	return petal_mpsc_between(ring, head, tail);
}

static inline uint64_t petal_mpsc_used(const struct petal_mpsc *ring)
{
	/* [DRAIN] Acquire: the tail that we load next is not behind it. */
	uint64_t head = petal_load(&ring->shared->head, PETAL_ACQUIRE(DRAIN));

	return petal_mpsc_between(ring, head, petal_mpsc_tail(ring));
}

#endif
