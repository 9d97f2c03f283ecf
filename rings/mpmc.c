/* SPDX-License-Identifier: Apache-2.0 */
#include "rings/mpmc.h"

/*
 * The happy path is in mpmc_inl.h: a claim swaps the free slot at the tail, a
 * peek swaps the published one at the head. Here is what else they may meet:
 *
 *    a later lap, or given out   others were faster: go on behind it, or at
 *                                the hint if that is further
 *    an earlier lap, held        passed: its lap is moved on, its state kept
 *    an earlier lap, not taken   full
 *    claimed, for a peek         remembered, and looked at again before
 *                                anything behind it is taken
 *
 * and repair, which needs no walk and no guess: each slot is looked at for
 * itself, and only words that name a dead owner are changed. A word that a
 * dead owner's name is on changes in two ways only, by repair and by being
 * passed, so the swap is repeated with what was found.
 */

/* How many slots one call looks at. */
#define LOOKS 256u

static uint64_t stride_of(uint32_t slot_bytes)
{
	return ((uint64_t)slot_bytes + PETAL_MPMC_WORD_BYTES +
		PETAL_MPMC_LINE_BYTES - 1) &
	       ~(uint64_t)(PETAL_MPMC_LINE_BYTES - 1);
}

static uint64_t header_bytes(uint32_t owners)
{
	return sizeof(struct petal_mpmc_shared) +
	       (uint64_t)owners * sizeof(struct petal_mpmc_owner);
}

uint64_t petal_mpmc_bytes(const struct petal_mpmc_geometry *geometry)
{
	uint64_t count = geometry->slot_count;
	uint64_t stride = stride_of(geometry->slot_bytes);

	if (count < 4 || (count & (count - 1)) != 0 ||
	    geometry->slot_bytes < 1 ||
	    geometry->slot_bytes > PETAL_MPMC_SLOT_BYTES_MAX ||
	    geometry->owners < 1 || geometry->owners > PETAL_MPMC_OWNERS_MAX ||
	    count > PETAL_MPMC_BYTES_MAX / stride)
		return 0;
	return header_bytes(geometry->owners) + count * stride;
}

static struct petal_mpmc view_of(void *memory,
				 const struct petal_mpmc_geometry *geometry)
{
	uint8_t *bytes = memory;
	uint64_t count = geometry->slot_count;

	return (struct petal_mpmc){
		.shared = memory,
		.owner_lines = (void *)(bytes + header_bytes(0)),
		.slots = bytes + header_bytes(geometry->owners),
		.slot_count = count,
		.stride_bytes = stride_of(geometry->slot_bytes),
		.show_mask = count < 16 ? 0 : count / 16 - 1,
		.lap_shift = (uint32_t)__builtin_ctzll(count),
		.slot_bytes = geometry->slot_bytes,
		.owners = geometry->owners,
	};
}

int petal_mpmc_format(void *memory, const struct petal_mpmc_geometry *geometry)
{
	struct petal_mpmc_shared *shared = memory;
	uint64_t start = geometry->start_pos;
	struct petal_mpmc ring;

	if (petal_mpmc_bytes(geometry) == 0 ||
	    (uintptr_t)memory % PETAL_MPMC_LINE_BYTES != 0)
		return -EINVAL;
	/* Hosts that share no caches cannot compare and swap. */
	if (geometry->coherence != PETAL_SEGMENT_COHERENT)
		return -EOPNOTSUPP;

	/* Whatever was here before is no ring until we are done. */
	petal_store(&shared->magic, 0, PETAL_RELAXED);
	petal_store(&shared->layout, PETAL_MPMC_LAYOUT, PETAL_RELAXED);
	petal_store(&shared->slot_bytes, geometry->slot_bytes, PETAL_RELAXED);
	petal_store(&shared->slot_count, geometry->slot_count, PETAL_RELAXED);
	petal_store(&shared->owners, geometry->owners, PETAL_RELAXED);
	petal_store(&shared->closed, 0, PETAL_RELAXED);
	petal_store(&shared->returned, 0, PETAL_RELAXED);
	petal_store(&shared->tail, start, PETAL_RELAXED);
	petal_store(&shared->head, start, PETAL_RELAXED);
	petal_store(&shared->tail_shown, start, PETAL_RELAXED);
	petal_store(&shared->head_shown, start, PETAL_RELAXED);
	ring = view_of(memory, geometry);
	for (uint32_t i = 0; i < geometry->owners; i++) {
		petal_store(&ring.owner_lines[i].fences, 0, PETAL_RELAXED);
		petal_store(&ring.owner_lines[i].published, 0, PETAL_RELAXED);
		petal_store(&ring.owner_lines[i].released, 0, PETAL_RELAXED);
	}
	for (uint64_t i = 0; i < geometry->slot_count; i++) {
		uint64_t lap = (start + i) >> ring.lap_shift;

		petal_store(petal_mpmc_at(&ring, start + i),
			    petal_mpmc_word(PETAL_MPMC_FREE, lap),
			    PETAL_RELAXED);
	}
	/* [FORMAT] Release: who sees the magic sees all of the above. */
	petal_store(&shared->magic, PETAL_MPMC_MAGIC, PETAL_RELEASE(FORMAT));
	return 0;
}

/* Each word of the shape is loaded once; what is checked is the copy. */
static int shape_load(struct petal_mpmc_shared *shared, uint64_t bytes,
		      struct petal_mpmc_geometry *ret_geometry)
{
	struct petal_mpmc_geometry shape;
	uint64_t needed;

	/* [FORMAT] Acquire: the shape was stored before the magic. */
	if (petal_load(&shared->magic, PETAL_ACQUIRE(FORMAT)) !=
	    PETAL_MPMC_MAGIC)
		return -EINVAL;
	if (petal_load(&shared->layout, PETAL_RELAXED) != PETAL_MPMC_LAYOUT)
		return -PETAL_EVERSION;
	shape = (struct petal_mpmc_geometry){
		.slot_count = petal_load(&shared->slot_count, PETAL_RELAXED),
		.slot_bytes = petal_load(&shared->slot_bytes, PETAL_RELAXED),
		.owners = petal_load(&shared->owners, PETAL_RELAXED),
	};
	needed = petal_mpmc_bytes(&shape);
	if (needed == 0 || needed > bytes)
		return -PETAL_EGEOMETRY;
	*ret_geometry = shape;
	return 0;
}

int petal_mpmc_attach(void *memory, uint64_t bytes, uint32_t owner,
		      struct petal_mpmc *ret_ring)
{
	struct petal_mpmc_geometry shape;
	struct petal_mpmc_owner *line;
	struct petal_mpmc ring;
	uint64_t notice;
	int err;

	if ((uintptr_t)memory % PETAL_MPMC_LINE_BYTES != 0)
		return -EINVAL;
	if (bytes < sizeof(struct petal_mpmc_shared))
		return -PETAL_EGEOMETRY;
	err = shape_load(memory, bytes, &shape);
	if (err)
		return err;
	if (owner >= shape.owners)
		return -EINVAL;

	ring = view_of(memory, &shape);
	ring.owner = owner;
	ring.claim_pos = petal_load(&ring.shared->tail, PETAL_RELAXED);
	ring.take_pos = petal_load(&ring.shared->head, PETAL_RELAXED);
	ring.head_shown = ring.take_pos;
	/* Two notices behind, so that the first peek looks at every slot. */
	notice = petal_load(&ring.shared->returned, PETAL_RELAXED);
	ring.returned_seen = notice - (UINT64_C(2) << 32);
	line = &ring.owner_lines[owner];
	ring.published = petal_load(&line->published, PETAL_RELAXED);
	ring.released = petal_load(&line->released, PETAL_RELAXED);
	*ret_ring = ring;
	return 0;
}

static uint64_t free_word(uint64_t lap)
{
	return petal_mpmc_word(PETAL_MPMC_FREE, lap);
}

/* Its message, if it has one, is none that waits in the order of the ring. */
static bool is_held(uint64_t word)
{
	enum petal_mpmc_state state = petal_mpmc_state(word);

	return state == PETAL_MPMC_TAKEN || state == PETAL_MPMC_RETURNED ||
	       state == PETAL_MPMC_QUARANTINED;
}

/* ---- claim ---- */

/* Others have claimed here: go to where the slot, or the hint, says. */
static int claim_follow(struct petal_mpmc *ring, uint64_t word, int64_t ahead)
{
	uint64_t pos = ring->claim_pos;
	uint64_t next = pos + ((uint64_t)ahead << ring->lap_shift) + 1;
	/* What is before it is given out, and that it remains. */
	uint64_t hint = petal_load(&ring->shared->tail, PETAL_RELAXED);

	if (petal_mpmc_state(word) == PETAL_MPMC_FREE)
		next -= ring->slot_count;
	if ((int64_t)(hint - next) > 0)
		next = hint;
	ring->claim_pos = next;
	return 0;
}

/*
 * The slots from here on are held. If there is a free one behind them, move
 * their laps on, so that everybody knows these positions to be given out.
 */
static int claim_pass(struct petal_mpmc *ring)
{
	uint64_t pos = ring->claim_pos;
	uint64_t most = ring->slot_count <= PETAL_MPMC_HELD_MAX
				? ring->slot_count
				: PETAL_MPMC_HELD_MAX + 1;
	uint64_t held, word;

	for (held = 1; held < most; held++) {
		/* [DRAIN] Acquire: as claim, which looks again. */
		word = petal_load(petal_mpmc_at(ring, pos + held),
				  PETAL_ACQUIRE(DRAIN));
		if (petal_mpmc_ahead(ring, word, pos + held) >= 0)
			break;
		if (!is_held(word))
			return -EAGAIN;
	}
	if (held == most)
		return -EAGAIN;
	for (; pos != ring->claim_pos + held; pos++) {
		struct petal_u64 *slot = petal_mpmc_at(ring, pos);
		uint64_t rest = (UINT64_C(1) << PETAL_MPMC_LAP_SHIFT) - 1;
		uint64_t lap = pos >> ring->lap_shift;

		word = petal_load(slot, PETAL_RELAXED);
		if (!is_held(word) || petal_mpmc_ahead(ring, word, pos) != -1)
			break;
		/* [CLOSE] As the claim behind it: who looks later sees it. */
		if (!petal_cas(slot, &word,
			       (word & rest) | lap << PETAL_MPMC_LAP_SHIFT,
			       PETAL_SEQ_CST(CLOSE)))
			break;
	}
	ring->claim_pos = pos;
	return 0;
}

/*
 * The tail is at most one lap ahead of any slot. If the slot really says
 * otherwise, then a hint has lied; go on from what the slot says.
 */
static int claim_doubt(struct petal_mpmc *ring, uint64_t word, int64_t ahead)
{
	uint64_t expected = word;

	/* [DRAIN] A swap, for it cannot see an old value as a load can. */
	if (!petal_cas(petal_mpmc_at(ring, ring->claim_pos), &expected, word,
		       PETAL_ACQUIRE(DRAIN)))
		return 0;
	ring->claim_pos += (uint64_t)ahead << ring->lap_shift;
	petal_store(&ring->shared->tail, ring->claim_pos, PETAL_RELAXED);
	return -PETAL_ECORRUPT;
}

int petal_mpmc_claim_past(struct petal_mpmc *ring, uint64_t word)
{
	int64_t ahead = petal_mpmc_ahead(ring, word, ring->claim_pos);
	bool is_free = petal_mpmc_state(word) == PETAL_MPMC_FREE;
	int err = -EAGAIN;

	if (ahead >= 0)
		return claim_follow(ring, word, ahead);
	if (ahead < -1 || is_free)
		return claim_doubt(ring, word, ahead);
	if (is_held(word))
		err = claim_pass(ring);
	if (err == -EAGAIN && petal_load(&ring->shared->closed, PETAL_RELAXED))
		return -EPIPE;
	return err;
}

int petal_mpmc_settle_late(struct petal_mpmc *ring, uint64_t pos)
{
	struct petal_u64 *slot = petal_mpmc_at(ring, pos);
	uint64_t word = petal_load(slot, PETAL_RELAXED);

	/* We are done with the slot, and say so: it may be used again. */
	for (unsigned tries = 0; tries < PETAL_MPMC_TRIES; tries++) {
		if (petal_mpmc_state(word) != PETAL_MPMC_QUARANTINED ||
		    petal_mpmc_owner_of(word) != ring->owner)
			break;
		/* [DRAIN] Release: our last store is behind us. */
		if (petal_cas(slot, &word,
			      free_word(petal_mpmc_lap_of(word) + 1),
			      PETAL_RELEASE(DRAIN)))
			break;
	}
	return -ESTALE;
}

int petal_mpmc_abort(struct petal_mpmc *ring,
		     const struct petal_mpmc_claim *claim)
{
	uint64_t word = claim->word;

	/* [DRAIN] Release: our last store is behind us. */
	if (petal_cas(petal_mpmc_at(ring, claim->pos), &word,
		      free_word(petal_mpmc_lap_of(word) + 1),
		      PETAL_RELEASE(DRAIN)))
		return 0;
	return petal_mpmc_settle_late(ring, claim->pos);
}

/* ---- peek ---- */

static uint64_t first_open(const struct petal_mpmc *ring)
{
	return ring->pending_count ? ring->pending[0] : ring->take_pos;
}

static void pending_drop(struct petal_mpmc *ring, uint32_t index)
{
	ring->pending_count--;
	for (uint32_t i = index; i < ring->pending_count; i++)
		ring->pending[i] = ring->pending[i + 1];
}

/*
 * Look again at the claims that we overtook, the latest first: whoever
 * published that one, had published before it what it claimed before it. So
 * the earliest that is there now has none of its own producer's before it.
 */
static bool pending_find(struct petal_mpmc *ring, uint64_t *ret_pos)
{
	uint32_t found = UINT32_MAX;

	for (uint32_t i = ring->pending_count; i-- > 0;) {
		uint64_t at = ring->pending[i];
		/* [FILL] Acquire: what was published before it is seen. */
		uint64_t now = petal_load(petal_mpmc_at(ring, at),
					  PETAL_ACQUIRE(FILL));

		if (now == petal_mpmc_published(ring, at)) {
			found = i;
		} else if (petal_mpmc_state(now) != PETAL_MPMC_CLAIMED ||
			   petal_mpmc_ahead(ring, now, at) != 0) {
			pending_drop(ring, i);
			found -= found != UINT32_MAX;
		}
	}
	if (found == UINT32_MAX)
		return false;
	*ret_pos = ring->pending[found];
	pending_drop(ring, found);
	return true;
}

/*
 * If another took it before us, there may be one behind it, and no later one
 * may be taken before that. Each round drops one, so that there is an end.
 */
static bool peek_pending(struct petal_mpmc *ring,
			 struct petal_mpmc_view *ret_view)
{
	uint64_t pos;

	while (pending_find(ring, &pos)) {
		if (!petal_mpmc_take(ring, pos, petal_mpmc_published(ring, pos),
				     ret_view))
			continue;
		petal_mpmc_show_head(ring, first_open(ring));
		return true;
	}
	return false;
}

static void scan_begin(struct petal_mpmc *ring, uint64_t notice)
{
	uint32_t news = (uint32_t)(notice >> 32) -
			(uint32_t)(ring->returned_seen >> 32);
	uint32_t where = (uint32_t)notice;

	if (ring->scan_left == 0 && news == 1 && where != 0) {
		ring->scan_index = where - 1;
		ring->scan_left = 1;
	} else {
		ring->scan_left = ring->slot_count;
	}
	ring->scan_notice = notice;
}

/* Something was returned since we looked: find it, a part of the ring a call. */
static bool peek_returned(struct petal_mpmc *ring, uint64_t notice,
			  struct petal_mpmc_view *ret_view)
{
	if (ring->scan_left == 0 || ring->scan_notice != notice)
		scan_begin(ring, notice);
	for (unsigned looks = 0; looks < LOOKS && ring->scan_left; looks++) {
		uint64_t index = ring->scan_index & (ring->slot_count - 1);
		/* [FILL] Acquire: the message comes with the word. */
		uint64_t word = petal_load(petal_mpmc_at(ring, index),
					   PETAL_ACQUIRE(FILL));
		uint64_t pos = petal_mpmc_lap_of(word) << ring->lap_shift;
		bool is_returned = petal_mpmc_state(word) ==
				   PETAL_MPMC_RETURNED;
		bool is_ours = is_returned && petal_mpmc_take(ring, pos | index,
							      word, ret_view);

		/* Perhaps it was only passed, and waits for us still. */
		if (is_returned && !is_ours)
			continue;
		ring->scan_index++;
		if (--ring->scan_left == 0)
			ring->returned_seen = ring->scan_notice;
		if (is_ours)
			return true;
	}
	return false;
}

/* Done with by others: go on where the slot, or the hint, says. */
static void peek_follow(struct petal_mpmc *ring, uint64_t word, int64_t ahead)
{
	uint64_t count = ring->slot_count;
	uint64_t pos = ring->take_pos;
	uint64_t next = pos + 1;
	/* What is before it is taken, and that it remains. */
	uint64_t hint = petal_load(&ring->shared->head, PETAL_RELAXED);
	uint64_t laps = petal_mpmc_state(word) == PETAL_MPMC_FREE ? 2 : 1;
	uint64_t far =
		pos + ((uint64_t)ahead << ring->lap_shift) - laps * count + 1;

	/* A slot is claimed only when the lap before is taken everywhere. */
	if ((int64_t)(far - next) > 0)
		next = far;
	if ((int64_t)(hint - next) > 0)
		next = hint;
	ring->take_pos = next;
}

/*
 * No slot is further behind than a lap: a hint has lied, or come before what
 * it speaks of. Look once more.
 */
static void peek_doubt(struct petal_mpmc *ring, int64_t ahead)
{
	ring->pending_count = 0;
	ring->take_pos += ((uint64_t)ahead << ring->lap_shift);
	petal_store(&ring->shared->head, ring->take_pos, PETAL_RELAXED);
}

/* Nothing more to take; is it the end, or may more come? */
static int peek_nothing(struct petal_mpmc *ring)
{
	uint64_t pos = ring->take_pos;
	uint64_t word;

	if (ring->pending_count)
		return PETAL_RING_PENDING;
	if (ring->head_shown != pos) {
		ring->head_shown = pos;
		petal_store(&ring->shared->head_shown, pos, PETAL_RELAXED);
	}
	/* [CLOSE] Closed before we look once more: all claims are seen. */
	if (!petal_load(&ring->shared->closed, PETAL_SEQ_CST(CLOSE)))
		return PETAL_RING_EMPTY;
	word = petal_load(petal_mpmc_at(ring, pos), PETAL_SEQ_CST(CLOSE));
	if (petal_mpmc_ahead(ring, word, pos) > 0 ||
	    (petal_mpmc_ahead(ring, word, pos) == 0 &&
	     petal_mpmc_state(word) != PETAL_MPMC_FREE))
		return PETAL_RING_PENDING;
	return PETAL_RING_CLOSED;
}

enum { LOOK_AGAIN = -1 };

/* Look at the slot at take_pos. LOOK_AGAIN when there may be more behind it. */
static int peek_next(struct petal_mpmc *ring, struct petal_mpmc_view *ret_view)
{
	uint64_t pos = ring->take_pos;
	/* [FILL] Acquire: the message comes with the word. */
	uint64_t word =
		petal_load(petal_mpmc_at(ring, pos), PETAL_ACQUIRE(FILL));
	int64_t ahead = petal_mpmc_ahead(ring, word, pos);
	enum petal_mpmc_state state = petal_mpmc_state(word);

	if (ahead < -1) {
		peek_doubt(ring, ahead);
		return LOOK_AGAIN;
	}
	if (ahead < 0 || (ahead == 0 && state == PETAL_MPMC_FREE))
		return peek_nothing(ring);
	if (ahead > 0 || is_held(word)) {
		peek_follow(ring, word, ahead);
		return LOOK_AGAIN;
	}
	if (state == PETAL_MPMC_PUBLISHED) {
		if (peek_pending(ring, ret_view))
			return 0;
		if (!petal_mpmc_take(ring, pos, word, ret_view))
			return LOOK_AGAIN;
		ring->take_pos = pos + 1;
		petal_mpmc_show_head(ring, first_open(ring));
		return 0;
	}
	if (ring->pending_count == PETAL_MPMC_PENDING)
		return PETAL_RING_PENDING;
	ring->pending[ring->pending_count++] = pos;
	ring->take_pos = pos + 1;
	return LOOK_AGAIN;
}

int petal_mpmc_peek_past(struct petal_mpmc *ring,
			 struct petal_mpmc_view *ret_view)
{
	/* [RETURN] Acquire: what it announces is there when we look. */
	uint64_t notice =
		petal_load(&ring->shared->returned, PETAL_ACQUIRE(RETURN));
	int outcome = LOOK_AGAIN;

	if (notice != ring->returned_seen &&
	    peek_returned(ring, notice, ret_view))
		return 0;
	if (peek_pending(ring, ret_view))
		return 0;
	for (unsigned i = 0; i < LOOKS && outcome == LOOK_AGAIN; i++)
		outcome = peek_next(ring, ret_view);
	/* More to look at, in the ring or in a scan: not the end. */
	if (outcome == LOOK_AGAIN ||
	    (outcome > 0 && ring->returned_seen != notice))
		return PETAL_RING_PENDING;
	return outcome;
}

/* ---- release, and what is returned ---- */

static void notice_change(struct petal_mpmc *ring, uint32_t where)
{
	struct petal_u64 *returned = &ring->shared->returned;
	uint64_t old = petal_load(returned, PETAL_RELAXED);

	for (unsigned tries = 0; tries < PETAL_MPMC_TRIES; tries++) {
		uint64_t number = (old >> 32) + 1;

		/* [RETURN] Release: the word says RETURNED by now. */
		if (petal_cas(returned, &old, number << 32 | where,
			      PETAL_RELEASE(RETURN)))
			return;
	}
	/* [RETURN] Two at once mean: look at every slot. */
	petal_add(returned, UINT64_C(2) << 32, PETAL_RELEASE(RETURN));
}

static uint64_t returned_word(uint64_t word)
{
	uint64_t count = petal_mpmc_count(word);

	if (count < PETAL_MPMC_REDELIVERED_MAX)
		count++;
	return petal_mpmc_word(PETAL_MPMC_RETURNED, petal_mpmc_lap_of(word)) |
	       count << PETAL_MPMC_COUNT_SHIFT;
}

int petal_mpmc_leave(struct petal_mpmc *ring, uint64_t pos, uint64_t word,
		     enum petal_mpmc_state state)
{
	uint64_t rest = (UINT64_C(1) << PETAL_MPMC_LAP_SHIFT) - 1;
	uint64_t now = word;

	for (unsigned tries = 0; tries < PETAL_MPMC_TRIES; tries++) {
		uint64_t next = state == PETAL_MPMC_FREE
					? free_word(petal_mpmc_lap_of(now) + 1)
					: returned_word(now);

		/* [DRAIN] Release: we are done with every byte. */
		if (petal_cas(petal_mpmc_at(ring, pos), &now, next,
			      PETAL_RELEASE(DRAIN)))
			return 0;
		/* Passed, it is ours still; with any other change it is not. */
		if (((now ^ word) & rest) != 0)
			return -ESTALE;
	}
	return -EAGAIN;
}

static uint32_t where_of(const struct petal_mpmc *ring, uint64_t pos)
{
	uint64_t index = pos & (ring->slot_count - 1);

	return index < UINT32_MAX ? (uint32_t)index + 1 : 0;
}

int petal_mpmc_give_back(struct petal_mpmc *ring,
			 const struct petal_mpmc_view *view)
{
	int err = petal_mpmc_leave(ring, view->pos, view->word,
				   PETAL_MPMC_RETURNED);

	if (!err)
		notice_change(ring, where_of(ring, view->pos));
	return err;
}

void petal_mpmc_close(struct petal_mpmc *ring)
{
	/* [CLOSE] A swap, and so before whatever anybody looks at later. */
	petal_swap(&ring->shared->closed, 1, PETAL_SEQ_CST(CLOSE));
}

/* ---- the dead and the slow ---- */

static bool has(const uint64_t *owners, uint32_t owner)
{
	return (owners[owner / 64] >> (owner % 64)) & 1;
}

/* What a word of a dead or slow owner becomes; itself if it may stay. */
static uint64_t word_after(uint64_t word, bool is_dead)
{
	uint64_t owner = UINT64_C(0xff) << PETAL_MPMC_OWNER_SHIFT;

	switch (petal_mpmc_state(word)) {
	case PETAL_MPMC_CLAIMED:
		if (!is_dead)
			return petal_mpmc_word(PETAL_MPMC_QUARANTINED,
					       petal_mpmc_lap_of(word)) |
			       (word & owner);
		return free_word(petal_mpmc_lap_of(word) + 1);
	case PETAL_MPMC_QUARANTINED:
		return is_dead ? free_word(petal_mpmc_lap_of(word) + 1) : word;
	case PETAL_MPMC_TAKEN:
		return returned_word(word);
	case PETAL_MPMC_FREE:
	case PETAL_MPMC_PUBLISHED:
	case PETAL_MPMC_RETURNED:
		break;
	}
	return word;
}

/* What repair and fence have to do with each slot. */
struct clearing {
	const uint64_t *owners;
	bool is_dead;
	bool has_returned;
	uint64_t fence; /* its number */
};

/*
 * Whether a message was taken in the knowledge of this fence, or of a later
 * one: then it stays. Taken from there, it could come to the same hands again
 * under the same tag, and be taken for what they had before.
 */
static bool is_newer(const struct petal_mpmc *ring, uint64_t word,
		     uint64_t fence)
{
	const struct petal_mpmc_owner *line =
		&ring->owner_lines[petal_mpmc_owner_of(word)];
	/* [TAG] Loaded after the word: not older than what its taker knew. */
	uint64_t fences = petal_load(&line->fences, PETAL_RELAXED);
	uint64_t tag = word >> PETAL_MPMC_TAG_SHIFT;

	return petal_mpmc_state(word) == PETAL_MPMC_TAKEN &&
	       ((tag - fence) & 63) <= ((fences - fence) & 63);
}

/* 1 if the slot was changed, 0 if not, -EAGAIN. */
static int clear_slot(struct petal_mpmc *ring, uint64_t index,
		      struct clearing *clearing)
{
	struct petal_u64 *slot = petal_mpmc_at(ring, index);

	for (unsigned tries = 0; tries < PETAL_MPMC_TRIES; tries++) {
		/* [TAG] Acquire: the fences that its taker knew. */
		uint64_t word = petal_load(slot, PETAL_ACQUIRE(TAG));
		uint64_t next = word;

		/* Also another's, who may have died before the notice. */
		if (petal_mpmc_state(word) == PETAL_MPMC_RETURNED)
			clearing->has_returned = true;
		else if (has(clearing->owners, petal_mpmc_owner_of(word)) &&
			 (clearing->is_dead ||
			  !is_newer(ring, word, clearing->fence)))
			next = word_after(word, clearing->is_dead);
		if (next == word)
			return 0;
		/* [TAG] Release: the fence was counted before. */
		if (petal_cas(slot, &word, next, PETAL_RELEASE(TAG))) {
			clearing->has_returned |= petal_mpmc_state(next) ==
						  PETAL_MPMC_RETURNED;
			return 1;
		}
	}
	return -EAGAIN;
}

static int clear_all(struct petal_mpmc *ring, struct clearing *clearing)
{
	int changed = 0, err = 0;

	for (uint64_t i = 0; i < ring->slot_count; i++) {
		int outcome = clear_slot(ring, i, clearing);

		if (outcome < 0)
			err = outcome;
		else if (changed < INT32_MAX)
			changed += outcome;
	}
	if (clearing->has_returned)
		notice_change(ring, 0);
	return err ? err : changed;
}

int petal_mpmc_repair(struct petal_mpmc *ring,
		      const uint64_t dead[PETAL_MPMC_OWNERS_MAX / 64])
{
	struct clearing clearing = { .owners = dead, .is_dead = true };

	return clear_all(ring, &clearing);
}

int petal_mpmc_fence(struct petal_mpmc *ring, uint32_t owner)
{
	uint64_t owners[PETAL_MPMC_OWNERS_MAX / 64] = { 0 };
	struct clearing clearing = { .owners = owners };

	if (owner >= ring->owners)
		return -EINVAL;
	owners[owner / 64] = UINT64_C(1) << (owner % 64);
	/* [TAG] Counted first: what it takes from now on differs. */
	clearing.fence =
		petal_add(&ring->owner_lines[owner].fences, 1, PETAL_RELAXED) +
		1;
	return clear_all(ring, &clearing);
}

static bool is_claimed(const struct petal_mpmc *ring, uint64_t pos,
		       uint64_t word)
{
	return petal_mpmc_state(word) == PETAL_MPMC_CLAIMED &&
	       petal_mpmc_ahead(ring, word, pos) == 0;
}

int petal_mpmc_blocker(const struct petal_mpmc *ring, uint32_t *ret_owner)
{
	uint64_t pos = first_open(ring);
	uint64_t word = petal_load(petal_mpmc_at(ring, pos), PETAL_RELAXED);

	if (!is_claimed(ring, pos, word)) {
		/* Not a consumer's, then what the tail has come round to. */
		pos = ring->claim_pos - ring->slot_count;
		word = petal_load(petal_mpmc_at(ring, pos), PETAL_RELAXED);
		for (unsigned i = 0; i < LOOKS && is_held(word); i++)
			word = petal_load(petal_mpmc_at(ring, ++pos),
					  PETAL_RELAXED);
	}
	if (!is_claimed(ring, pos, word))
		return 1;
	*ret_owner = petal_mpmc_owner_of(word);
	return 0;
}

uint64_t petal_mpmc_busy(const struct petal_mpmc *ring)
{
	uint64_t busy = 0;

	for (uint64_t i = 0; i < ring->slot_count; i++) {
		/* [CLOSE] If we know the ring closed, all claims are seen. */
		uint64_t word = petal_load(petal_mpmc_at(ring, i),
					   PETAL_SEQ_CST(CLOSE));

		busy += petal_mpmc_state(word) != PETAL_MPMC_FREE &&
			petal_mpmc_state(word) != PETAL_MPMC_QUARANTINED;
	}
	return busy;
}

int petal_mpmc_stats(const struct petal_mpmc *ring, uint32_t owner,
		     struct petal_mpmc_stats *ret_stats)
{
	const struct petal_mpmc_owner *line;

	if (owner >= ring->owners)
		return -EINVAL;
	line = &ring->owner_lines[owner];
	*ret_stats = (struct petal_mpmc_stats){
		.published = petal_load(&line->published, PETAL_RELAXED),
		.released = petal_load(&line->released, PETAL_RELAXED),
		.fences = petal_load(&line->fences, PETAL_RELAXED),
	};
	return 0;
}
