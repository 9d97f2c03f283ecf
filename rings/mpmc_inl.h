/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_MPMC_INL_H
#define PETAL_RINGS_MPMC_INL_H

/* "PETALMPM" in memory. */
#define PETAL_MPMC_MAGIC UINT64_C(0x4d504d4c41544550)
#define PETAL_MPMC_LAYOUT 1u
#define PETAL_MPMC_LINE_BYTES 64u
#define PETAL_MPMC_WORD_BYTES 8u

/* Pairs of lines, for the processor fetches them in pairs. */
struct petal_mpmc_shared {
	struct petal_u64 magic; /* last at format, so that half is nothing */
	struct petal_u32 layout;
	struct petal_u32 slot_bytes;
	struct petal_u64 slot_count;
	struct petal_u32 owners;
	uint8_t reserved0[100];

	/* Read by all at every call, and hardly ever written. */
	struct petal_u64 closed;
	struct petal_u64 returned; /* number 32, index + 1 or 0 for any 32 */
	uint8_t reserved1[112];

	struct petal_u64 tail;
	uint8_t reserved2[120];

	struct petal_u64 head;
	uint8_t reserved3[120];

	struct petal_u64 tail_shown;
	struct petal_u64 head_shown;
	uint8_t reserved4[112];
};

/* Written by its owner, but for fences. */
struct petal_mpmc_owner {
	struct petal_u64 fences;
	struct petal_u64 published;
	struct petal_u64 released;
	uint8_t reserved[104];
};

static_assert(offsetof(struct petal_mpmc_shared, layout) == 8, "layout");
static_assert(offsetof(struct petal_mpmc_shared, slot_bytes) == 12, "layout");
static_assert(offsetof(struct petal_mpmc_shared, slot_count) == 16, "layout");
static_assert(offsetof(struct petal_mpmc_shared, owners) == 24, "layout");
static_assert(offsetof(struct petal_mpmc_shared, closed) == 128, "layout");
static_assert(offsetof(struct petal_mpmc_shared, returned) == 136, "layout");
static_assert(offsetof(struct petal_mpmc_shared, tail) == 256, "layout");
static_assert(offsetof(struct petal_mpmc_shared, head) == 384, "layout");
static_assert(offsetof(struct petal_mpmc_shared, tail_shown) == 512, "layout");
static_assert(offsetof(struct petal_mpmc_shared, head_shown) == 520, "layout");
static_assert(sizeof(struct petal_mpmc_shared) == 640, "layout");
static_assert(offsetof(struct petal_mpmc_owner, published) == 8, "layout");
static_assert(offsetof(struct petal_mpmc_owner, released) == 16, "layout");
static_assert(sizeof(struct petal_mpmc_owner) == 128, "layout");

enum petal_mpmc_state {
	PETAL_MPMC_FREE = 0,
	PETAL_MPMC_CLAIMED = 1,
	PETAL_MPMC_PUBLISHED = 2,
	PETAL_MPMC_TAKEN = 3,
	PETAL_MPMC_RETURNED = 4,
	PETAL_MPMC_QUARANTINED = 5,
};

#define PETAL_MPMC_COUNT_SHIFT 3
#define PETAL_MPMC_OWNER_SHIFT 6
#define PETAL_MPMC_TAG_SHIFT 14
#define PETAL_MPMC_LAP_SHIFT 20

static inline uint64_t petal_mpmc_word(enum petal_mpmc_state state,
				       uint64_t lap)
{
	return (uint64_t)state | lap << PETAL_MPMC_LAP_SHIFT;
}

static inline enum petal_mpmc_state petal_mpmc_state(uint64_t word)
{
	return (enum petal_mpmc_state)(word & 7);
}

static inline uint32_t petal_mpmc_count(uint64_t word)
{
	return (uint32_t)(word >> PETAL_MPMC_COUNT_SHIFT) & 7;
}

static inline uint32_t petal_mpmc_owner_of(uint64_t word)
{
	return (uint32_t)(word >> PETAL_MPMC_OWNER_SHIFT) & 0xff;
}

static inline uint64_t petal_mpmc_lap_of(uint64_t word)
{
	return word >> PETAL_MPMC_LAP_SHIFT;
}

/* By how many laps a word is ahead of a position; 44 bits go round. */
static inline int64_t petal_mpmc_ahead(const struct petal_mpmc *ring,
				       uint64_t word, uint64_t pos)
{
	uint64_t laps = petal_mpmc_lap_of(word) - (pos >> ring->lap_shift);

	return (int64_t)(laps << PETAL_MPMC_LAP_SHIFT) >> PETAL_MPMC_LAP_SHIFT;
}

/* Whatever the position, the word lies in the ring. */
static inline struct petal_u64 *petal_mpmc_at(const struct petal_mpmc *ring,
					      uint64_t pos)
{
	uint64_t index = pos & (ring->slot_count - 1);

	return (struct petal_u64 *)(void *)(ring->slots +
					    index * ring->stride_bytes);
}

static inline uint64_t petal_mpmc_published(const struct petal_mpmc *ring,
					    uint64_t pos)
{
	return petal_mpmc_word(PETAL_MPMC_PUBLISHED, pos >> ring->lap_shift);
}

/* Once per sixteenth of the ring, observers are told. */
static inline bool petal_mpmc_is_shown(const struct petal_mpmc *ring,
				       uint64_t pos)
{
	return (pos & ring->show_mask) == 0;
}

/* mpmc.c: what a claim does when the slot at its position is not free. */
int petal_mpmc_claim_past(struct petal_mpmc *ring, uint64_t word);
/* mpmc.c: what a peek does when the slot at its position is not published. */
int petal_mpmc_peek_past(struct petal_mpmc *ring,
			 struct petal_mpmc_view *ret_view);
/* mpmc.c: what publish does when the claim is not its any more. */
int petal_mpmc_settle_late(struct petal_mpmc *ring, uint64_t pos);
/* mpmc.c: release or give back a slot that others may have passed. */
int petal_mpmc_leave(struct petal_mpmc *ring, uint64_t pos, uint64_t word,
		     enum petal_mpmc_state state);

/* Each round means that another owner got on; nobody loses this often. */
#define PETAL_MPMC_TRIES 64u

/* Take the slot at claim_pos, or find out where to look instead. */
static inline int petal_mpmc_claim_one(struct petal_mpmc *ring,
				       struct petal_mpmc_claim *ret_claim)
{
	int err = -EAGAIN;

	for (unsigned tries = 0; tries < PETAL_MPMC_TRIES; tries++) {
		uint64_t pos = ring->claim_pos;
		uint64_t lap = pos >> ring->lap_shift;
		struct petal_u64 *slot = petal_mpmc_at(ring, pos);
		/* [DRAIN] Acquire: its last reader is gone. */
		uint64_t word = petal_load(slot, PETAL_ACQUIRE(DRAIN));
		uint64_t mine = petal_mpmc_word(PETAL_MPMC_CLAIMED, lap) |
				(uint64_t)ring->owner << PETAL_MPMC_OWNER_SHIFT;

		if (word == petal_mpmc_word(PETAL_MPMC_FREE, lap)) {
			/* [CLOSE] Our claim is seen, or we see the end. */
			if (!petal_cas(slot, &word, mine, PETAL_SEQ_CST(CLOSE)))
				continue;
			ring->claim_pos = pos + 1;
			ret_claim->bytes = slot + 1;
			ret_claim->pos = pos;
			ret_claim->word = mine;
			return 0;
		}
		err = petal_mpmc_claim_past(ring, word);
		if (err)
			return err;
	}
	return -EAGAIN;
}

static inline void petal_mpmc_show_tail(struct petal_mpmc *ring, uint64_t pos)
{
	petal_store(&ring->shared->tail, ring->claim_pos, PETAL_RELAXED);
	if (petal_mpmc_is_shown(ring, pos))
		petal_store(&ring->shared->tail_shown, ring->claim_pos,
			    PETAL_RELAXED);
}

static inline int petal_mpmc_claim(struct petal_mpmc *ring,
				   struct petal_mpmc_claim *ret_claim)
{
	struct petal_mpmc_claim claim;
	int err = petal_mpmc_claim_one(ring, &claim);

	if (err)
		return err;
	petal_mpmc_show_tail(ring, claim.pos);
	/* [CLOSE] Who looks later than this cannot have missed the claim. */
	if (petal_load(&ring->shared->closed, PETAL_SEQ_CST(CLOSE))) {
		/* A copy, so that the one above may live in registers. */
		struct petal_mpmc_claim late = claim;

		petal_mpmc_abort(ring, &late);
		return -EPIPE;
	}
	*ret_claim = claim;
	return 0;
}

static inline int petal_mpmc_publish(struct petal_mpmc *ring,
				     const struct petal_mpmc_claim *claim)
{
	uint64_t word = claim->word;

	/* [FILL] Release: a consumer sees all that we wrote. */
	if (!petal_cas(petal_mpmc_at(ring, claim->pos), &word,
		       petal_mpmc_published(ring, claim->pos),
		       PETAL_RELEASE(FILL)))
		return petal_mpmc_settle_late(ring, claim->pos);
	petal_store(&ring->owner_lines[ring->owner].published,
		    ++ring->published, PETAL_RELAXED);
	return 0;
}

/* Swap a message that is there, by a word that we acquired, into our hands. */
static inline bool petal_mpmc_take(struct petal_mpmc *ring, uint64_t pos,
				   uint64_t word,
				   struct petal_mpmc_view *ret_view)
{
	struct petal_u64 *slot = petal_mpmc_at(ring, pos);
	/* [TAG] Loaded after the word: if a fence returned it, we know. */
	uint64_t fences = petal_load(&ring->owner_lines[ring->owner].fences,
				     PETAL_RELAXED);
	uint64_t kept = UINT64_C(7) << PETAL_MPMC_COUNT_SHIFT |
			~UINT64_C(0) << PETAL_MPMC_LAP_SHIFT;
	uint64_t mine = (word & kept) | (uint64_t)PETAL_MPMC_TAKEN |
			(uint64_t)ring->owner << PETAL_MPMC_OWNER_SHIFT |
			(fences & 63) << PETAL_MPMC_TAG_SHIFT;

	/* [TAG] Release: who sees the word sees the fences that we saw. */
	if (!petal_cas(slot, &word, mine, PETAL_RELEASE(TAG)))
		return false;
	ret_view->bytes = slot + 1;
	ret_view->pos = pos;
	ret_view->word = mine;
	ret_view->redelivered = petal_mpmc_count(mine);
	return true;
}

static inline void petal_mpmc_show_head(struct petal_mpmc *ring, uint64_t pos)
{
	petal_store(&ring->shared->head, pos, PETAL_RELAXED);
	if (petal_mpmc_is_shown(ring, pos)) {
		ring->head_shown = pos;
		petal_store(&ring->shared->head_shown, pos, PETAL_RELAXED);
	}
}

static inline int petal_mpmc_peek(struct petal_mpmc *ring,
				  struct petal_mpmc_view *ret_view)
{
	uint64_t pos = ring->take_pos;
	uint64_t word;

	/* [RETURN] Acquire: what it announces is there when we look. */
	if (petal_load(&ring->shared->returned, PETAL_ACQUIRE(RETURN)) !=
		    ring->returned_seen ||
	    ring->pending_count != 0)
		return petal_mpmc_peek_past(ring, ret_view);
	/* [FILL] Acquire: the message comes with the word. */
	word = petal_load(petal_mpmc_at(ring, pos), PETAL_ACQUIRE(FILL));
	if (word != petal_mpmc_published(ring, pos) ||
	    !petal_mpmc_take(ring, pos, word, ret_view))
		return petal_mpmc_peek_past(ring, ret_view);
	ring->take_pos = pos + 1;
	petal_mpmc_show_head(ring, pos + 1);
	return 0;
}

static inline int petal_mpmc_release(struct petal_mpmc *ring,
				     const struct petal_mpmc_view *view)
{
	uint64_t lap = petal_mpmc_lap_of(view->word) + 1;
	uint64_t word = view->word;

	/* [DRAIN] Release: we are done with every byte. */
	if (!petal_cas(petal_mpmc_at(ring, view->pos), &word,
		       petal_mpmc_word(PETAL_MPMC_FREE, lap),
		       PETAL_RELEASE(DRAIN))) {
		int err = petal_mpmc_leave(ring, view->pos, view->word,
					   PETAL_MPMC_FREE);

		if (err)
			return err;
	}
	petal_store(&ring->owner_lines[ring->owner].released, ++ring->released,
		    PETAL_RELAXED);
	return 0;
}

static inline int petal_mpmc_claim_n(struct petal_mpmc *ring, uint32_t want,
				     struct petal_mpmc_claim *ret_claims)
{
	uint32_t count = 0;
	int err = want ? 0 : -EINVAL;

	while (count < want && count < INT32_MAX && !err) {
		err = petal_mpmc_claim_one(ring, &ret_claims[count]);
		if (!err)
			count++;
	}
	if (count == 0)
		return err;
	petal_mpmc_show_tail(ring, 0);
	/* [CLOSE] Who looks later than this cannot have missed the claims. */
	if (petal_load(&ring->shared->closed, PETAL_SEQ_CST(CLOSE))) {
		while (count > 0)
			petal_mpmc_abort(ring, &ret_claims[--count]);
		return -EPIPE;
	}
	return (int)count;
}

static inline int petal_mpmc_publish_n(struct petal_mpmc *ring,
				       const struct petal_mpmc_claim *claims,
				       uint32_t count)
{
	int result = 0;

	for (uint32_t i = 0; i < count; i++) {
		int err = petal_mpmc_publish(ring, &claims[i]);

		if (err)
			result = err;
	}
	return result;
}

static inline int petal_mpmc_peek_n(struct petal_mpmc *ring, uint32_t want,
				    struct petal_mpmc_view *ret_views,
				    uint32_t *ret_count)
{
	uint32_t count = 0;
	int outcome = want ? 0 : -EINVAL;

	while (count < want && outcome == 0) {
		outcome = petal_mpmc_peek(ring, &ret_views[count]);
		if (outcome == 0)
			count++;
	}
	if (count == 0)
		return outcome;
	*ret_count = count;
	return 0;
}

static inline int petal_mpmc_release_n(struct petal_mpmc *ring,
				       const struct petal_mpmc_view *views,
				       uint32_t count)
{
	int result = 0;

	for (uint32_t i = 0; i < count; i++) {
		int err = petal_mpmc_release(ring, &views[i]);

		if (err)
			result = err;
	}
	return result;
}

static inline uint64_t petal_mpmc_backlog(const struct petal_mpmc *ring)
{
	uint64_t head = petal_load(&ring->shared->head_shown, PETAL_RELAXED);
	uint64_t tail = petal_load(&ring->shared->tail_shown, PETAL_RELAXED);
	int64_t backlog = (int64_t)(tail - head);

	if (backlog < 0)
		return 0;
	return (uint64_t)backlog < ring->slot_count ? (uint64_t)backlog
						    : ring->slot_count;
}

#endif
