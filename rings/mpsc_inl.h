/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_MPSC_INL_H
#define PETAL_RINGS_MPSC_INL_H

/* "PETALMPS" in memory. */
#define PETAL_MPSC_MAGIC UINT64_C(0x53504d4c41544550)
#define PETAL_MPSC_LAYOUT 1u
/* Each lost swap means that another producer won; nobody loses this often. */
#define PETAL_MPSC_TRIES 4096u

/* Three lines with three writers: the maker, the producers, the consumer. */
struct petal_mpsc_shared {
	_Atomic uint64_t magic; /* last at format, so that half is nothing */
	uint32_t layout;
	uint32_t owners;
	uint64_t data_bytes;
	uint32_t reserve_bytes;
	uint8_t reserved0[100];

	_Atomic uint64_t tail;
	uint8_t reserved1[120];

	_Atomic uint64_t head;
	_Atomic uint64_t freeing; /* what release is about to store to head */
	uint8_t reserved2[112];
};

/* Of one owner: what it is about to swap the tail from, and by how much. */
struct petal_mpsc_intent {
	_Atomic uint64_t pos; /* PETAL_MPSC_NOWHERE: nothing */
	_Atomic uint32_t length;
	uint8_t reserved[52];
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
static_assert(sizeof(struct petal_mpsc_shared) == 384, "layout");
static_assert(__builtin_offsetof(struct petal_mpsc_intent, length) == 8,
	      "layout");
static_assert(sizeof(struct petal_mpsc_intent) == 64, "layout");

/* Where a claim at a tail puts its record: past the wrap padding, if any. */
struct petal_mpsc_place {
	uint64_t pos;
	uint64_t end;
};

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

static inline struct petal_mpsc_place
petal_mpsc_place(const struct petal_mpsc *ring, uint64_t tail, uint32_t length)
{
	uint64_t extent = petal_record_extent(length);
	uint64_t to_end = petal_mpsc_to_end(ring, tail);
	uint64_t pos = extent > to_end ? tail + to_end : tail;

	return (struct petal_mpsc_place){ .pos = pos, .end = pos + extent };
}

static inline void petal_mpsc_set_length(struct petal_record *record,
					 uint32_t length)
{
	/* Relaxed: read only by who has acquired the commit word after it. */
	__atomic_store_n(&record->length, length, __ATOMIC_RELAXED);
}

/*
 * One look at head and tail. 0; 1 when the head has moved between two looks,
 * so that nothing can be said; -PETAL_ECORRUPT when the two contradict.
 */
static inline int petal_mpsc_look(struct petal_mpsc *ring, uint64_t *tail)
{
	/*
	 * [DRAIN] Acquire: the lines that it freed are zero, and the tail that
	 * we load next is not behind this head.
	 */
	ring->head_seen =
		atomic_load_explicit(&ring->shared->head, memory_order_acquire);
	/* [DRAIN] Acquire: the second look at head comes after this one. */
	*tail = atomic_load_explicit(&ring->shared->tail, memory_order_acquire);
	if (*tail - ring->head_seen <= ring->data_bytes &&
	    *tail % PETAL_RECORD_ALIGN == 0)
		return 0;
	/* While we looked, the ring may have been drained and filled again. */
	return petal_mpsc_head(ring) != ring->head_seen ? 1 : -PETAL_ECORRUPT;
}

/*
 * Find room for @length at a tail as fresh as need be. 0 with the tail and the
 * place; 1 to try again; -EAGAIN when full; -PETAL_ECORRUPT.
 */
static inline int petal_mpsc_room(struct petal_mpsc *ring, uint32_t length,
				  uint64_t *tail,
				  struct petal_mpsc_place *place)
{
	int outcome;

	*place = petal_mpsc_place(ring, *tail, length);
	if (place->end - ring->head_seen <= ring->room_bytes &&
	    *tail % PETAL_RECORD_ALIGN == 0)
		return 0;

	/* Full as far as we knew: pay for a look at the consumer's line. */
	outcome = petal_mpsc_look(ring, tail);
	if (outcome)
		return outcome;
	*place = petal_mpsc_place(ring, *tail, length);
	return place->end - ring->head_seen <= ring->room_bytes ? 0 : -EAGAIN;
}

/*
 * [CLAIM] Nowhere first, so that whoever finds the same position before and
 * after the length has read a pair that belongs together.
 */
static inline void petal_mpsc_intend(struct petal_mpsc_intent *intent,
				     uint64_t pos, uint32_t length)
{
	/* [NAME] Release: our last claim was named before we say so. */
	atomic_store_explicit(&intent->pos, PETAL_MPSC_NOWHERE,
			      memory_order_release);
	atomic_store_explicit(&intent->length, length, memory_order_release);
	atomic_store_explicit(&intent->pos, pos, memory_order_release);
}

/*
 * Turn zero into a commit word. A swap and not a store, for a peer may have
 * taken us for dead, or for too slow, and have named the record itself.
 */
static inline bool petal_mpsc_name(struct petal_record *record, uint64_t commit)
{
	uint64_t zero = 0;

	/* [NAME] Release: who sees the commit word sees the length. */
	return atomic_compare_exchange_strong_explicit(&record->commit, &zero,
						       commit,
						       memory_order_release,
						       memory_order_relaxed);
}

/* Fill what is left over before the end of the ring, or a gap. */
static inline bool petal_mpsc_pad(const struct petal_mpsc *ring, uint32_t owner,
				  uint64_t pos, uint64_t bytes)
{
	struct petal_record *record = petal_mpsc_record(ring, pos);

	petal_mpsc_set_length(record,
			      (uint32_t)(bytes - PETAL_RECORD_HEADER_BYTES));
	__atomic_store_n(&record->type, PETAL_RECORD_TYPE_PADDING,
			 __ATOMIC_RELAXED);
	return petal_mpsc_name(record,
			       petal_mpsc_commit(ring, PETAL_RECORD_ABANDONED,
						 owner, pos));
}

/* The tail is ours from @tail to the end of @place: say so in the bytes. */
static inline int petal_mpsc_take(struct petal_mpsc *ring, uint64_t tail,
				  const struct petal_mpsc_place *place,
				  uint32_t length,
				  struct petal_mpsc_claim *ret_claim)
{
	struct petal_record *record = petal_mpsc_record(ring, place->pos);
	uint64_t commit = petal_mpsc_commit(ring, PETAL_RECORD_CLAIMED,
					    ring->owner, place->pos);

	/* If a peer has padded for us already, what it wrote is the same. */
	if (place->pos != tail)
		petal_mpsc_pad(ring, ring->owner, tail, place->pos - tail);
	petal_mpsc_set_length(record, length);
	if (!petal_mpsc_name(record, commit))
		return -ESTALE;
	*ret_claim = (struct petal_mpsc_claim){
		.record = record,
		.pos = place->pos,
		.end = place->end,
		.commit = commit,
	};
	return 0;
}

static inline int petal_mpsc_claim(struct petal_mpsc *ring, uint32_t length,
				   struct petal_mpsc_claim *ret_claim)
{
	struct petal_mpsc_intent *intent = &ring->intents[ring->owner];
	struct petal_mpsc_place place;
	uint64_t tail = petal_mpsc_tail(ring);
	int err = -EAGAIN;

	if (length > ring->data_bytes / 4)
		return -EMSGSIZE;
	for (unsigned tries = 0; tries < PETAL_MPSC_TRIES; tries++) {
		err = petal_mpsc_room(ring, length, &tail, &place);
		if (err < 0)
			break;
		if (err > 0)
			continue;
		petal_mpsc_intend(intent, tail, length);
		/*
		 * [CLAIM] Release: our intent is readable by whoever sees this
		 * tail. Acquire: so are those of all who moved it before us.
		 */
		if (atomic_compare_exchange_strong_explicit(
			    &ring->shared->tail, &tail, place.end,
			    memory_order_acq_rel, memory_order_relaxed))
			return petal_mpsc_take(ring, tail, &place, length,
					       ret_claim);
	}
	/* [NAME] A wish that lost must not look like one that waits. */
	atomic_store_explicit(&intent->pos, PETAL_MPSC_NOWHERE,
			      memory_order_release);
	return err < 0 ? err : -EAGAIN;
}

static inline int petal_mpsc_settle(const struct petal_mpsc *ring,
				    const struct petal_mpsc_claim *claim,
				    enum petal_record_state state)
{
	uint64_t expected = claim->commit;
	uint64_t commit =
		petal_mpsc_commit(ring, state, ring->owner, claim->pos);

	/* [FILL] Release: the consumer sees all that we wrote, or nothing. */
	if (atomic_compare_exchange_strong_explicit(
		    &claim->record->commit, &expected, commit,
		    memory_order_release, memory_order_relaxed))
		return 0;
	return -ESTALE;
}

static inline int petal_mpsc_publish(struct petal_mpsc *ring,
				     const struct petal_mpsc_claim *claim)
{
	return petal_mpsc_settle(ring, claim, PETAL_RECORD_PUBLISHED);
}

static inline int petal_mpsc_abort(struct petal_mpsc *ring,
				   const struct petal_mpsc_claim *claim)
{
	return petal_mpsc_settle(ring, claim, PETAL_RECORD_ABANDONED);
}

/* Nothing of this lap at a position: is anybody on the way? */
static inline int petal_mpsc_peek_unnamed(struct petal_mpsc *ring, uint64_t pos,
					  uint64_t commit)
{
	ring->tail_seen = petal_mpsc_tail(ring);
	if (pos == ring->tail_seen)
		return 1;
	return commit == 0 && pos < ring->tail_seen ? 2 : -PETAL_ECORRUPT;
}

/* Whether the tail has come so far; one look at it often lasts for many. */
static inline bool petal_mpsc_reached(struct petal_mpsc *ring, uint64_t pos)
{
	if (pos > ring->tail_seen)
		ring->tail_seen = petal_mpsc_tail(ring);
	return pos <= ring->tail_seen;
}

/*
 * Whether a record of this length may lie here, by our own geometry. Inside
 * of the data area in any case; what the tail adds is only plausibility.
 */
static inline bool petal_mpsc_fits(struct petal_mpsc *ring, uint64_t pos,
				   uint32_t length,
				   enum petal_record_state state)
{
	uint64_t extent = petal_record_extent(length);

	if (extent > petal_mpsc_to_end(ring, pos))
		return false;
	if (state != PETAL_RECORD_ABANDONED && length > ring->data_bytes / 4)
		return false;
	return petal_mpsc_reached(ring, pos + extent);
}

static inline int petal_mpsc_peek(struct petal_mpsc *ring, uint64_t pos,
				  struct petal_mpsc_view *ret_view)
{
	struct petal_record *record = petal_mpsc_record(ring, pos);
	/* [FILL] Acquire: whoever published is done with every byte. */
	uint64_t commit =
		atomic_load_explicit(&record->commit, memory_order_acquire);
	enum petal_record_state state = petal_record_state(commit);
	uint32_t length, type;

	if (commit == 0 || !petal_mpsc_of_lap(ring, commit, pos))
		return petal_mpsc_peek_unnamed(ring, pos, commit);
	if (state == PETAL_RECORD_CLAIMED)
		return 2;
	length = __atomic_load_n(&record->length, __ATOMIC_RELAXED);
	type = __atomic_load_n(&record->type, __ATOMIC_RELAXED);
	if ((state != PETAL_RECORD_PUBLISHED &&
	     state != PETAL_RECORD_ABANDONED) ||
	    !petal_mpsc_fits(ring, pos, length, state))
		return -PETAL_ECORRUPT;
	*ret_view = (struct petal_mpsc_view){
		.record = record,
		.pos = pos,
		.end = pos + petal_record_extent(length),
		.length = length,
		.type = state == PETAL_RECORD_ABANDONED
				? PETAL_RECORD_TYPE_PADDING
				: type,
		.owner = petal_record_owner(commit),
	};
	return 0;
}

static inline uint64_t petal_mpsc_head(const struct petal_mpsc *ring)
{
	return atomic_load_explicit(&ring->shared->head, memory_order_relaxed);
}

static inline uint64_t petal_mpsc_tail(const struct petal_mpsc *ring)
{
	return atomic_load_explicit(&ring->shared->tail, memory_order_relaxed);
}

static inline uint64_t petal_mpsc_backlog(const struct petal_mpsc *ring)
{
	/* [DRAIN] Acquire: the tail that we load next is not behind it. */
	uint64_t head =
		atomic_load_explicit(&ring->shared->head, memory_order_acquire);
	uint64_t tail = petal_mpsc_tail(ring);

	/* The consumer may have drained much between the two loads. */
	return tail - head <= ring->data_bytes ? tail - head : ring->data_bytes;
}

#endif
