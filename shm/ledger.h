/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_LEDGER_H
#define PETAL_SHM_LEDGER_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/atomic.h"
#include "shm/error.h"
#include "shm/ref.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: ledger - who holds which loaned buffer, so that none is ever lost
 *
 *    byte 0        128    256    384      768
 *    +-------------+------+------+--------+------------+---------+--------+
 *    | geometry    | owned| news | seats  | home       | entries | map    |
 *    | written once|      |      | 40 x 8 | bit/entry  | 64 each | 4 each |
 *    +-------------+------+------+--------+------------+---------+--------+
 *
 *    an entry:  state   | 0 | generation 22 | held, a bit per holder, 40 |
 *               place   | first granule 32 | granules 32 |
 *               names   | a byte per holder, 40 | 0 |
 *
 * The buffers lie elsewhere, in the range, which is cut into granules; the map
 * says for each granule which entry's buffer begins there. One process, the
 * owner, lends buffers. Up to 40 holders share, forward and drop them. Nothing
 * is counted, so no count can be wrong after a death: a holder is a bit, and
 * whoever repairs clears the dead one's bit in every entry.
 *
 * A buffer whose held bits are all zero is free, and goes home. There is no
 * queue for that, which could be full just when its writer dies: its bit in
 * "home" is set, and "news", and the owner looks there. Both are hints. If a
 * death leaves them unset, the state still says that the buffer is free, and
 * the owner reads all states before it says that there is no memory.
 *
 * How a buffer is handed over, S giving to R:
 *
 *    names[R]: 0 -> S     S alone may now grant it to R
 *    state: R's bit on    and, in the same compare-and-swap, S's off, if it
 *                         forwards; here the buffer changes hands
 *    ring                 the ref is published, by whatever ring they have
 *    names[R]: S -> R     R has accepted it
 *    state: R's bit off   R has dropped it
 *    names[R]: R -> 0     and can be given it again
 *
 * Always true:  a held bit of R has a name: names[R] is R, or is who granted
 * it. It leaves S only for R, or when the bit is off. So a grant that was never
 * announced, because S died before it published the ref, is known for what it
 * is: R drops it (settle) when it has drained what S did publish.
 *
 * A holder has a buffer once: granting to one that has it is refused.
 *
 * A grant is taken back (recall) in the order of its making reversed: the name
 * is marked, so that nobody accepts; the bit goes; the name goes. The mark is
 * for a receiver's successor, which may find an older ref to the same buffer in
 * the ring that it took over, and may accept a new grant by it.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion):
 *
 *                     lend/is_home  share..drop  settle  repair  check
 *    lend/is_home          X             -          -       -      -
 *    share..drop           -           - (1)      - (2)     -      -
 *    settle                -           - (2)      - (2)     -      -
 *    repair, leave         -             -          -       - (3)  -
 *    (1) one thread per buffer and holder; a forward counts for both
 *    (2) not beside itself, nor with accept, for the same holder
 *    (3) of the same dead holder too; each repairer has a seat of its own
 *
 * Ordering:
 *    [FORMAT]  format stores the magic (release) -> attach loads it (acquire):
 *              who sees the magic sees the geometry
 *    [LOAN]    lend stores the state (release), share and forward swap it ->
 *              check, accept load it (acquire): place and names are those of
 *              this generation
 *    [NAME]    a name is swapped (acq_rel) -> it is loaded (acquire) by settle
 *              and repair: the state bit that it names is not older; and who
 *              finds it zero finds the bit off
 *    [HOME]    drop clears bit, then name, then loads the state (all seq_cst)
 *              -> is_home loads state, then names: the last use of every holder
 *              is over, and of several that drop together one sees that it was
 *              the last. The hint is set (release) -> taken (acquire)
 *    [GHOST]   share swaps the state, then loads the receiver's seat; repair
 *              swaps the seat, then loads the states (all seq_cst): a grant to
 *              a holder that dies meanwhile is seen by one of the two
 *    [SEAT]    repair empties a seat, settle takes its mark off one (release)
 *              -> attach takes it (acquire): nothing of the last holder is left
 *
 * Crash: at any instruction, of anybody. A dead holder's bits are cleared by
 * repair; what it granted and never published is dropped by the receiver's
 * settle, or by repair if that one is dead too; a name without a bit is erased;
 * a free buffer without a hint is found by the owner's full look. A dead
 * repairer's work is done again from the start. A seat is given out again only
 * when nothing in the ledger bears its name, and nobody who repairs or settles
 * is still at it: one that was stopped there for an hour cannot hit the
 * successor, nor one that begins an hour late, if it says which sitting it
 * means. If the owner
 * dies, holders go on until they drop; nobody lends from this ledger again, and
 * when petal_ledger_held() says 0 for all of them, the range can go, whole.
 *
 * Stopped is not dead: what a stopped holder has stays its own. Fork: the child
 * of a holder holds nothing. It attaches with a number of its own, and must not
 * use its parent's; its death returns what it holds, and nothing else.
 *
 * Trust: one trust domain, like any ring of many writers. A member gone mad can
 * spoil what others hold, but no word here leads outside of the range: geometry
 * is private, indices are bounded, and every loop has an end (-EBUSY).
 *
 * Source: a bit per holder in place of a count is our answer to the leaks that
 * partial failure leaves in shared reference counts (Zhang et al., CXL-SHM,
 * SOSP 2023).
 */

#define PETAL_LEDGER_HOLDERS 40u
#define PETAL_LEDGER_NOBODY UINT32_MAX
#define PETAL_LEDGER_ENTRIES_MAX (UINT32_C(1) << 20)
#define PETAL_LEDGER_GRANULE_BYTES_MAX (UINT32_C(1) << 21)

struct petal_ledger_geometry {
	uint64_t range_bytes;      /* at most; whole granules, up to 1 TiB */
	uint32_t granule_bytes;    /* a power of two, 64 to 2 MiB */
	uint32_t entries;          /* buffers at a time */
	uint32_t segment;          /* the number that refs have */
	uint32_t start_generation; /* of the first loan; 0 is taken for 1 */
};

struct petal_ledger_shared; /* what lies in the memory: ledger_inl.h */
struct petal_ledger_entry;

/* One holder's view, private to its process; geometry is never read again. */
struct petal_ledger {
	struct petal_ledger_shared *shared;
	struct petal_u64 *home;
	struct petal_ledger_entry *entries;
	struct petal_u32 *map;
	uint64_t range_bytes;
	uint64_t own; /* this holder's bit; 0 of an observer */
	uint32_t entry_count;
	uint32_t granule_shift;
	uint32_t segment;
	uint32_t holder;
	uint32_t sitting;    /* of our seat, since we sat down */
	uint32_t generation; /* the owner's next */
};

/**
 * petal_ledger_bytes() - memory for a ledger of this shape
 *
 * Return: a multiple of 64; 0 for a shape out of range.
 */
uint64_t petal_ledger_bytes(const struct petal_ledger_geometry *geometry);

/**
 * petal_ledger_format() - make a ledger in which nothing is lent
 * @memory: petal_ledger_bytes(), 64-byte aligned; what was there is lost
 *
 * Return: 0, or -EINVAL for a shape out of range or memory not aligned.
 */
int petal_ledger_format(void *memory,
			const struct petal_ledger_geometry *geometry);

/**
 * petal_ledger_attach() - take a seat, or only look
 * @bytes: how much is mapped at @memory
 * @holder: below PETAL_LEDGER_HOLDERS, given out by the keeper of the ledger,
 *	who watches over the process that has it; or PETAL_LEDGER_NOBODY
 *
 * Return: 0; -EBUSY: the seat is taken, or was not repaired yet; -EINVAL: no
 * ledger, or no such seat; -PETAL_EVERSION; -PETAL_EGEOMETRY: its shape does
 * not fit into what is mapped.
 */
int petal_ledger_attach(void *memory, uint64_t bytes, uint32_t holder,
			struct petal_ledger *ret_ledger);

/**
 * petal_ledger_leave() - drop all that is held, and give the seat back
 *
 * The view may not be used any more, except to call this again.
 *
 * Return: 0; > 0: that many grants await their receivers, the seat stays taken
 * until these have accepted, and someone repairs it; -EBUSY as for repair.
 */
int petal_ledger_leave(struct petal_ledger *ledger);

/**
 * petal_ledger_own() - become the one that lends
 *
 * A ledger has one owner, ever: what another allocator laid out in the range
 * cannot be continued.
 *
 * Return: 0; -EEXIST: it has, or had, an owner; -EINVAL: without a seat.
 */
int petal_ledger_own(struct petal_ledger *ledger);

/**
 * petal_ledger_lend() - the owner: enter a buffer, held by itself
 * @index: an entry that petal_ledger_is_home() or was never used
 * @offset: where it begins in the range; a whole granule
 * @bytes: how long it is, rounded up to whole granules
 *
 * Order: [LOAN].
 *
 * Return: 0, or -EINVAL: no such entry, not inside of the range, or a view
 * without a seat.
 */
int petal_ledger_lend(struct petal_ledger *ledger, uint32_t index,
		      uint64_t offset, uint64_t bytes,
		      struct petal_ref *ret_ref);

/**
 * petal_ledger_check() - does this process hold that buffer?
 * @bytes: how many of it are to be touched
 *
 * Threads: any that has the view. Order: acquires [LOAN].
 *
 * Return: 0; -EINVAL, -ERANGE, -ESTALE, -EACCES, -PETAL_ECORRUPT as for
 * petal_ref_resolve(); -ENXIO: a ref to another segment.
 */
static inline int petal_ledger_check(const struct petal_ledger *ledger,
				     struct petal_ref ref, uint64_t bytes);

/**
 * petal_ledger_share() - grant a buffer to others, and keep it
 * @ref: a buffer that this holder has accepted, or lent
 * @to: a bit for each receiver
 *
 * All of them, or none. Then publish the ref; petal_ledger_recall() if that
 * fails.
 *
 * Order: [NAME], [LOAN], [GHOST].
 *
 * Return: 0. -EEXIST: a receiver has it already. -EBUSY: a receiver is being
 * granted it by another holder, or was when it died; or too much contention.
 * -ESRCH: no holder sits there. -EINVAL: nobody, or oneself; or as for
 * petal_ledger_check(), as are the rest.
 */
static inline int petal_ledger_share(const struct petal_ledger *ledger,
				     struct petal_ref ref, uint64_t to);

/**
 * petal_ledger_forward() - grant a buffer to others, and let go of it
 *
 * As petal_ledger_share(), but the same compare-and-swap that grants ends our
 * own hold. The bytes may not be touched any more.
 */
static inline int petal_ledger_forward(const struct petal_ledger *ledger,
				       struct petal_ref ref, uint64_t to);

/**
 * petal_ledger_recall() - take back a grant that was not published
 * @to: as it was granted; none of these has seen the ref
 *
 * What was forwarded is held again.
 *
 * Return: 0; -EEXIST: it is, by a grant that another holder has made to us
 * meanwhile, and whose ref is still to come; -EINVAL: not granted by us;
 * -EBUSY, and the errors of petal_ledger_check() but -EACCES.
 */
int petal_ledger_recall(const struct petal_ledger *ledger, struct petal_ref ref,
			uint64_t to);

/**
 * petal_ledger_accept() - say that a grant has arrived
 * @ref: as it came out of the ring
 *
 * Before the ring's record is released, so that a consumer's successor does
 * not find a ref to what nobody holds.
 *
 * Order: acquires [LOAN]; [NAME].
 *
 * Return: 0; -EALREADY: it was accepted before; the rest as for
 * petal_ledger_check(), and -EBUSY. A successor passes what is -EALREADY: an
 * older ref to it was in the ring that it took over.
 */
static inline int petal_ledger_accept(const struct petal_ledger *ledger,
				      struct petal_ref ref);

/**
 * petal_ledger_drop() - let go of a buffer
 *
 * If nobody else holds it, it goes home. A grant that was not accepted is
 * dropped as well.
 *
 * Order: [HOME].
 *
 * Return: 0; the rest as for petal_ledger_accept().
 */
static inline int petal_ledger_drop(const struct petal_ledger *ledger,
				    struct petal_ref ref);

/**
 * petal_ledger_sitting() - who sits in a seat, of all that ever did
 * @holder: which seat
 *
 * Each attach makes it another number, out of 4,194,304. Whoever watches a
 * holder reads it while that one is known to sit there, before the proof of its
 * death; with it, a repairer or settler who comes too late does no harm to a
 * successor.
 *
 * Return: the number; 0 if there is no such seat.
 */
uint32_t petal_ledger_sitting(const struct petal_ledger *ledger,
			      uint32_t holder);

/**
 * petal_ledger_settle() - drop what a dead holder granted us in silence
 * @dead: proved to be
 *
 * First drain every ring that the dead one published to us; what it granted and
 * is not accepted then, was never announced.
 *
 * Whoever sits there when the call begins is taken for the dead one, so the
 * caller excludes that the seat is given out before it. Where he cannot, he
 * uses petal_ledger_settle_sitting().
 *
 * Return: how many were dropped; -EINVAL: no such holder, or oneself; -EBUSY:
 * too much contention.
 */
int petal_ledger_settle(const struct petal_ledger *ledger, uint32_t dead);

/**
 * petal_ledger_settle_sitting() - the same, of one sitting only
 * @sitting: petal_ledger_sitting(), from when the dead one was known to live
 *
 * Return: as petal_ledger_settle(); 0 also if that sitting is over.
 */
int petal_ledger_settle_sitting(const struct petal_ledger *ledger,
				uint32_t dead, uint32_t sitting);

/**
 * petal_ledger_repair() - clear a dead holder's name everywhere
 * @dead: proved to be
 *
 * By any other holder, or several at a time. Idempotent; safe when the repairer
 * dies half way. Reads each entry once, and writes where the dead one was.
 *
 * Whoever sits there when the call begins is taken for the dead one. If several
 * may repair, the first of them may be through, and the seat given to another,
 * before the last begins; then they use petal_ledger_repair_sitting().
 *
 * Return: 0: nothing of it is left, and its seat is free. > 0: so many of its
 * grants await a living receiver's accept or settle; repair again after that.
 * -EBUSY: nothing of it is left, but another repairer or settler is still at
 * that seat, or has died there: repair that one, and this one again. -EINVAL:
 * no such holder, oneself, or a view without a seat.
 */
int petal_ledger_repair(const struct petal_ledger *ledger, uint32_t dead);

/**
 * petal_ledger_repair_sitting() - the same, of one sitting only
 * @sitting: petal_ledger_sitting(), from when the dead one was known to live
 *
 * Return: as petal_ledger_repair(); 0 also if that sitting is over.
 */
int petal_ledger_repair_sitting(const struct petal_ledger *ledger,
				uint32_t dead, uint32_t sitting);

/**
 * petal_ledger_held() - how many buffers a holder has
 * @holder: which, granted and not yet accepted included; PETAL_LEDGER_NOBODY
 *	for those that anybody has
 *
 * For observers: it reads every entry.
 */
uint32_t petal_ledger_held(const struct petal_ledger *ledger, uint32_t holder);

/** petal_ledger_news() - the owner: has anything come home? */
static inline bool petal_ledger_news(const struct petal_ledger *ledger);

/**
 * petal_ledger_take_home() - the owner: which of 64 entries may have come home
 * @group: entries 64 * @group and up, below petal_ledger_groups()
 *
 * Return: a bit for each; ask petal_ledger_is_home() of every one.
 */
static inline uint64_t petal_ledger_take_home(const struct petal_ledger *ledger,
					      uint32_t group);

/** petal_ledger_groups() - how many there are */
static inline uint32_t petal_ledger_groups(const struct petal_ledger *ledger);

/**
 * petal_ledger_is_home() - the owner: does nobody hold it any more?
 *
 * Order: acquires [HOME].
 */
static inline bool petal_ledger_is_home(const struct petal_ledger *ledger,
					uint32_t index);

/**
 * petal_ledger_retire() - the owner: from now on refs to it are old
 * @index: of an entry that is home
 */
void petal_ledger_retire(const struct petal_ledger *ledger, uint32_t index);

#include "shm/ledger_inl.h"

#ifdef __cplusplus
}
#endif

#endif
