/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_MPMC_H
#define PETAL_RINGS_MPMC_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rings/outcome.h"
#include "shm/atomic.h"
#include "shm/error.h"
#include "shm/segment.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: mpmc - a work queue: many producers, many consumers, slots of one size
 *
 *    byte 0        128        256     384     512      640
 *    +-------------+----------+-------+-------+--------+-----------+-- --+
 *    | geometry    | closed   | tail  | head  | tail,  | a pair of | ... |
 *    | written once| returned | hint  | hint  | head   | lines per |slots|
 *    |             |          |       |       | shown  | owner     |     |
 *    +-------------+----------+-------+-------+--------+-----------+-- --+
 *
 *    a slot:  | word 8 | slot_bytes of the caller's ... | up to a line |
 *    a word:  | state 3 | count 3 | owner 8 | tag 6 | lap 44 |
 *
 * Positions are messages since the ring was made and never wrap; a position's
 * slot is slot[pos & (slot_count - 1)], and its lap is pos / slot_count.
 *
 *    from          to            by
 *    FREE          CLAIMED       claim
 *    CLAIMED       PUBLISHED     publish
 *    CLAIMED       FREE          abort; repair, of a dead owner's
 *    CLAIMED       QUARANTINED   fence
 *    QUARANTINED   FREE          its owner's publish or abort; repair
 *    PUBLISHED     TAKEN         peek
 *    TAKEN         FREE          release
 *    TAKEN         RETURNED      give back; fence; repair, of a dead owner's
 *    RETURNED      TAKEN         peek
 *
 * A change to FREE is one to the next lap. What is TAKEN, RETURNED or
 * QUARANTINED is moved on by a lap when producers pass it.
 *
 * Always true: every change of a word is one compare-and-swap, and the word
 * says alone what the slot is, whose, and in which lap. FREE of lap L means
 * that the position of lap L is the slot's next one; any other state of lap L
 * that positions up to L have been given out or passed. Positions are given
 * out without a gap. So tail and head are hints that may be old, and order
 * nothing: who trusts an old one looks at a few slots more.
 *
 * Order: consumers take the messages of one producer in the order in which it
 * claimed, if it publishes in that order, whichever consumer takes them. A
 * claim that is not published yet is overtaken by what other producers
 * publish: up to PETAL_MPMC_PENDING of them do not hold up a consumer. What is
 * delivered again comes before what is new, and after what its producer may
 * have published since.
 *
 * Held slots: a consumer may keep what it took as long as it likes. When the
 * producers come round, they pass it and go on: only messages that nobody took,
 * claims that nobody published, and PETAL_MPMC_HELD_MAX held slots in a row
 * make a ring full.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion):
 *
 *                       claim/publish  peek/release  repair/fence  observe
 *    claim/publish           - (1)         - (1)          -           -
 *    peek/release                          - (1)          -           -
 *    repair, fence                                        -           -
 *    (1) one thread per owner number, with one view for both roles
 *
 * Ordering:
 *    [FILL]    publish swaps the word to PUBLISHED (release) -> peek loads it
 *              (acquire): the consumer sees the whole message
 *    [DRAIN]   release swaps the word to FREE (release) -> claim loads it
 *              (acquire): a slot is reused only after its last read
 *    [RETURN]  give back, fence and repair swap a word to RETURNED, then
 *              change the notice (release) -> peek loads the notice (acquire):
 *              who sees the notice finds the message
 *    [TAG]     fence counts up the owner's fences, then swaps its words
 *              (release) -> the owner's peek loads the word (acquire), then
 *              its fences, of which the tag is the lowest bits: what it takes
 *              again has another tag. Peek swaps that into the word (release)
 *              -> fence loads the word (acquire), then the fences once more:
 *              what was taken since it counted has a tag from there on, and
 *              stays where it is
 *    [CLOSE]   claim swaps the word, then loads closed; close swaps closed, and
 *              a peek that sees it looks at the word once more, and busy at
 *              all (sequentially consistent, all of them): either the claim
 *              sees that the ring is closed, or the others see the claim
 *    [FORMAT]  format stores the magic (release) -> attach loads it (acquire)
 *
 * Crash: a claim or a take is there or not, with its owner's name. Repair, by
 * any peer, by several at once, frees what dead owners had claimed and returns
 * what they had taken, by one look at each slot. A repairer that dies leaves
 * the rest to whoever repairs for its own death. Repair knows owners by their
 * numbers only: one that is given out again while somebody still repairs for
 * the one before loses what it has just claimed. There is no leaving: an owner
 * that ends with something in hand, in good order or not, is repaired like one
 * that died.
 *
 * Delivered again: a message whose consumer died, was fenced or gave it back
 * goes to somebody else with redelivered counted up, to at most 7. It may have
 * been worked on already, wholly or in part; without the mark it was not.
 *
 * Too slow: fence() an owner that lives and holds others up. What it has taken
 * is delivered again; its release says -ESTALE, and it must throw away what it
 * did and read, for the slot may have been filled anew. That is known of a view
 * for up to 63 fences of its owner, and once only: a view that was released or
 * given back must not be used again, nor a claim. What it has claimed is
 * quarantined, for it may still write there: the ring goes on without these
 * slots until the owner publishes or aborts, which says -ESTALE and frees
 * them, or until it is proved dead.
 *
 * Closed: claims say -EPIPE, what is published is still delivered, then peek
 * says PETAL_RING_CLOSED. What others hold then may still come back;
 * petal_mpmc_busy() says whether there is any.
 *
 * After a fork the child must not use its parent's views.
 *
 * Trust: one trust domain. Whatever the words say, every access stays inside
 * of the ring and every call ends; messages may be lost to a member gone mad.
 *
 * Source: a state and a lap in each slot is Vyukov's bounded queue; owners in
 * the words, and positions claimed at the slot with tail and head as hints,
 * are ours.
 */

#define PETAL_MPMC_OWNERS_MAX 256u
#define PETAL_MPMC_SLOT_BYTES_MAX (UINT32_C(1) << 30)
#define PETAL_MPMC_BYTES_MAX (UINT64_C(1) << 40)
/* How many claims in progress a consumer overtakes. */
#define PETAL_MPMC_PENDING 16u
/* How many held slots in a row a producer passes. */
#define PETAL_MPMC_HELD_MAX 255u
/* How often redelivery is counted. */
#define PETAL_MPMC_REDELIVERED_MAX 7u

struct petal_mpmc_geometry {
	uint64_t slot_count; /* a power of two, at least 4 */
	uint32_t slot_bytes; /* 1 to PETAL_MPMC_SLOT_BYTES_MAX */
	uint32_t owners;     /* 1 to PETAL_MPMC_OWNERS_MAX */
	uint64_t start_pos;  /* of the first message; normally 0 */
	enum petal_segment_coherence coherence; /* of its segment */
};

struct petal_mpmc_shared; /* what lies in the memory: mpmc_inl.h */
struct petal_mpmc_owner;

/* One owner's view, private to it; geometry is never read again. */
struct petal_mpmc {
	struct petal_mpmc_shared *shared;
	struct petal_mpmc_owner *owner_lines;
	uint8_t *slots;
	uint64_t slot_count;
	uint64_t stride_bytes;
	uint64_t claim_pos;     /* all before it are given out */
	uint64_t take_pos;      /* all before it are taken, or pending */
	uint64_t returned_seen; /* the notice, as far as it was followed */
	uint64_t scan_notice;   /* the notice that is being followed */
	uint64_t scan_index;    /* where that goes on */
	uint64_t scan_left;     /* slots still to look at */
	uint64_t show_mask;     /* observers are told where it gives 0 */
	uint64_t head_shown;
	uint64_t published;
	uint64_t released;
	uint64_t pending[PETAL_MPMC_PENDING]; /* claimed when we came by */
	uint32_t pending_count;
	uint32_t lap_shift;
	uint32_t slot_bytes;
	uint32_t owners;
	uint32_t owner;
};

/* A slot that was claimed. */
struct petal_mpmc_claim {
	void *bytes; /* slot_bytes writable ones, 8-byte aligned */
	uint64_t pos;
	uint64_t word; /* what publish swaps from */
};

/* A message that was taken. */
struct petal_mpmc_view {
	const void *bytes; /* slot_bytes, 8-byte aligned; only to be read */
	uint64_t pos;      /* of its slot; a message delivered again may have
			    * another one than before */
	uint64_t word;     /* what release swaps from */
	uint32_t redelivered;
};

/* What one owner has done, for observers. */
struct petal_mpmc_stats {
	uint64_t published;
	uint64_t released;
	uint64_t fences;
};

/**
 * petal_mpmc_bytes() - memory for a ring of this shape
 *
 * Return: a multiple of 64; 0 for a shape out of range.
 */
uint64_t petal_mpmc_bytes(const struct petal_mpmc_geometry *geometry);

/**
 * petal_mpmc_format() - make an empty ring
 * @memory: petal_mpmc_bytes(), 64-byte aligned; what was there is lost
 *
 * Return: 0; -EINVAL for a shape out of range or memory not aligned;
 * -EOPNOTSUPP for a segment that is not coherent: see rings/spsc.h.
 */
int petal_mpmc_format(void *memory, const struct petal_mpmc_geometry *geometry);

/**
 * petal_mpmc_attach() - become an owner in a ring that another may have made
 * @memory: where it lies, 64-byte aligned
 * @bytes: how much is mapped there
 * @owner: the number given out by the keeper of the ring; it belongs to one
 *	thread at a time, and a dead one's may be given out again once all have
 *	returned from repair who were told of its death
 *
 * Attaching writes nothing. Who only observes, repairs and fences may do so
 * under any number, also one that is in use.
 *
 * Return: 0; -EINVAL when it is no such ring, or has no such owner;
 * -PETAL_EVERSION; -PETAL_EGEOMETRY when its shape does not fit into what is
 * mapped.
 */
int petal_mpmc_attach(void *memory, uint64_t bytes, uint32_t owner,
		      struct petal_mpmc *ret_ring);

/**
 * petal_mpmc_claim() - borrow a free slot
 *
 * An owner may hold several claims; each needs its publish or abort.
 *
 * Threads: the owner's. Order: [DRAIN], [CLOSE].
 *
 * Return: 0; -EAGAIN when full, or when others were faster too often; -EPIPE
 * when closed; -PETAL_ECORRUPT when a word contradicts the tail.
 */
static inline int petal_mpmc_claim(struct petal_mpmc *ring,
				   struct petal_mpmc_claim *ret_claim);

/**
 * petal_mpmc_publish() - hand a claimed slot over
 *
 * Return: 0, or -ESTALE when a peer fenced the claim: nobody will see what was
 * written. The claim has ended in both cases.
 */
static inline int petal_mpmc_publish(struct petal_mpmc *ring,
				     const struct petal_mpmc_claim *claim);

/**
 * petal_mpmc_abort() - give a claimed slot back; nobody will see it
 *
 * Return: as petal_mpmc_publish().
 */
int petal_mpmc_abort(struct petal_mpmc *ring,
		     const struct petal_mpmc_claim *claim);

/**
 * petal_mpmc_peek() - take the next message, to read it in place
 *
 * What is to be delivered again comes first. An owner may hold several; each
 * needs its release or give_back, in any order.
 *
 * Threads: the owner's. Order: [FILL], [RETURN], [TAG]; [CLOSE] if it finds
 * nothing.
 *
 * Return: 0; PETAL_RING_EMPTY; PETAL_RING_PENDING when claims are in progress
 * and nothing else is there, or too many of them, or when more was in the way
 * than one call looks at; PETAL_RING_CLOSED.
 */
static inline int petal_mpmc_peek(struct petal_mpmc *ring,
				  struct petal_mpmc_view *ret_view);

/**
 * petal_mpmc_release() - done: free the slot of a message
 *
 * Return: 0; -ESTALE when the message was given to somebody else, so that what
 * was done with it must be thrown away; -EAGAIN when producers came round too
 * often meanwhile: call again.
 */
static inline int petal_mpmc_release(struct petal_mpmc *ring,
				     const struct petal_mpmc_view *view);

/**
 * petal_mpmc_give_back() - not done: let it be delivered again
 *
 * Return: as petal_mpmc_release().
 */
int petal_mpmc_give_back(struct petal_mpmc *ring,
			 const struct petal_mpmc_view *view);

/**
 * petal_mpmc_claim_n() - borrow several slots
 * @want: how many, at most
 * @ret_claims: room for so many
 *
 * Return: how many, at least 1; or what petal_mpmc_claim() says.
 */
static inline int petal_mpmc_claim_n(struct petal_mpmc *ring, uint32_t want,
				     struct petal_mpmc_claim *ret_claims);

/**
 * petal_mpmc_publish_n() - hand over several
 *
 * Return: 0, or -ESTALE when at least one had been fenced; the others are
 * handed over. Who must know which publishes one by one.
 */
static inline int petal_mpmc_publish_n(struct petal_mpmc *ring,
				       const struct petal_mpmc_claim *claims,
				       uint32_t count);

/**
 * petal_mpmc_peek_n() - take several messages
 * @want: how many, at most
 * @ret_views: room for so many
 * @ret_count: how many were taken, when the return is 0
 *
 * Return: 0 with at least one; or what petal_mpmc_peek() says.
 */
static inline int petal_mpmc_peek_n(struct petal_mpmc *ring, uint32_t want,
				    struct petal_mpmc_view *ret_views,
				    uint32_t *ret_count);

/**
 * petal_mpmc_release_n() - done with several
 *
 * Return: 0, or the last failure of any; the others are released. Who must know
 * which releases one by one.
 */
static inline int petal_mpmc_release_n(struct petal_mpmc *ring,
				       const struct petal_mpmc_view *views,
				       uint32_t count);

/**
 * petal_mpmc_close() - nothing new from now on
 *
 * Anybody may close, and again; who dies in it has closed or not.
 */
void petal_mpmc_close(struct petal_mpmc *ring);

/**
 * petal_mpmc_repair() - clear what proved-dead owners left behind
 * @dead: bit map of dead owners, PETAL_MPMC_OWNERS_MAX bits
 *
 * Looks at every slot once. Idempotent.
 *
 * Return: how many slots were freed, and messages returned; -EAGAIN when
 * producers came round too often meanwhile: call again.
 */
int petal_mpmc_repair(struct petal_mpmc *ring,
		      const uint64_t dead[PETAL_MPMC_OWNERS_MAX / 64]);

/**
 * petal_mpmc_fence() - take from a living owner all that it holds
 * @owner: who is too slow; petal_mpmc_blocker() knows
 *
 * All that it had when this was called: what it takes meanwhile, it keeps.
 *
 * Return: how many claims were quarantined, and messages returned; -EINVAL
 * when there is no such owner; -EAGAIN as petal_mpmc_repair().
 */
int petal_mpmc_fence(struct petal_mpmc *ring, uint32_t owner);

/**
 * petal_mpmc_blocker() - whose claim it is that we wait for
 *
 * After PETAL_RING_PENDING from peek, or -EAGAIN from claim.
 *
 * Return: 0 with the owner; 1 when nobody's, for the ring is only full.
 */
int petal_mpmc_blocker(const struct petal_mpmc *ring, uint32_t *ret_owner);

/**
 * petal_mpmc_busy() - slots that are neither free nor quarantined
 *
 * Looks at every slot. While others work it is a rough number. Once the ring
 * is closed, as peek has said or because the caller closed it, and this has
 * been 0, no message is left: at most claims that are about to be refused.
 */
uint64_t petal_mpmc_busy(const struct petal_mpmc *ring);

/**
 * petal_mpmc_backlog() - messages claimed and not taken, about
 *
 * For observers, from a line that both sides write once per sixteenth of the
 * ring, and consumers when they find it empty: up to a sixteenth of slot_count
 * too high or too low, and more while held slots are passed.
 */
static inline uint64_t petal_mpmc_backlog(const struct petal_mpmc *ring);

/**
 * petal_mpmc_stats() - what an owner has done since the ring was made
 *
 * Return: 0, or -EINVAL when there is no such owner.
 */
int petal_mpmc_stats(const struct petal_mpmc *ring, uint32_t owner,
		     struct petal_mpmc_stats *ret_stats);

#include "rings/mpmc_inl.h"

#ifdef __cplusplus
}
#endif

#endif
