/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_PIPE_H
#define PETAL_RINGS_PIPE_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rings/outcome.h"
#include "rings/pace.h"
#include "shm/atomic.h"
#include "shm/error.h"
#include "shm/segment.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: pipe - records of any length from one producer to one consumer
 *
 *    byte 0       64       128       256      320      384
 *    +------------+--------+---------+--------+--------+------------------+
 *    | geometry   | closed | tail    | head   | closed | data             |
 *    | written    |        |         |        |        |                  |
 *    | once       |  by the producer | by the consumer |                  |
 *    +------------+--------+---------+--------+--------+------------------+
 *
 *    byte 0     8        12     16
 *    +----------+--------+------+-----------------+----------+
 *    | stamp    | length | type | payload ...     | up to 16 |   a record
 *    +----------+--------+------+-----------------+----------+
 *
 * Positions are bytes since the ring was made and never wrap; the byte of a
 * position is data[pos & (data_bytes - 1)]. Records start on multiples of 16,
 * and a payload is never cut: what is left over at the end of the data is a
 * padding record, which peek steps over.
 *
 * Always true:  head <= consumer's position <= producer's position
 *               <= head + data_bytes - 16, and the first word of a record at
 * pos is pos + 1 from its publish until its release, and something else before:
 * the word at which the consumer looks next is zero until it is a stamp.
 *
 * That is not so by itself, for what lies there are the old bytes of another
 * record, and a payload may say anything, even the stamp to come. So the
 * producer zeroes the word behind a record before it publishes the record. The
 * word must be free by then, which is why 16 bytes of the ring stay unused.
 *
 * No shared index is read while messages flow: the consumer waits for the word
 * at its own position, and the producer looks at head only when the ring is
 * full as far as it knows. The consumer stores head once for many records:
 * when a quarter of the ring has been released since, and when it finds the
 * ring empty. Until then the producer may find it fuller than it is.
 *
 * Who may run together ("-" freely, "X" needs the caller's own exclusion):
 *
 *                       claim/publish  peek/release  backlog
 *    claim/publish            X             -           -
 *    peek/release             -             X           -
 *    backlog                  -             -           -
 *
 * Ordering:
 *    [FILL]    publish stores the stamp (release) -> peek loads it (acquire):
 *              the consumer sees the whole record and the zero behind it. Of
 *              several records shown at once the first one's stamp is stored
 *              last, so that it brings the others
 *    [DRAIN]   release stores head (release) -> claim loads head (acquire):
 *              the producer reuses bytes only after their last read
 *    [CLOSE]   close stores closed (release) -> a peek that finds nothing
 *              loads it (acquire) and looks once more: then there is nothing
 *    [FORMAT]  format stores the magic (release) -> attach loads it (acquire):
 *              who sees the magic sees geometry and the first zero
 *
 * Crash: a producer that dies before publish leaves no trace, however many
 * records it has appended. Its successor attaches and goes on from tail and
 * the stamps after it. A consumer's successor goes on from head: it sees again
 * what was released after head was last stored, so what must not be done twice
 * needs a number.
 *
 * Waiting is the caller's: spin, or a doorbell for each direction. A producer
 * that sleeps because the ring is full waits for head; so its consumer rings
 * after a peek that found nothing, and after a release.
 *
 * Trust: neither side believes the other. Geometry is checked and copied at
 * attach, head and lengths are bounded before use, a stamp is only compared,
 * and a length is loaded once. The payload may change under the reader's eyes
 * if the producer is hostile. A consumer that must not be able to write where
 * the producer does gets the ring read-only, and a cursor of its own:
 *
 *    one memory            ring [rw, rw]
 *    apart                 ring [rw by the producer, ro by the consumer],
 *                          cursor [ro by the producer, rw by the consumer]
 *
 * Source: readiness inside of the record is FastForward's (Giacomoni et al.,
 * PPoPP 2008), the late head MCRingBuffer's (Lee et al., IPDPS 2010); the zero
 * behind a record is what a record of any length needs for both.
 */

#define PETAL_PIPE_BYTES_MIN (UINT64_C(1) << 10)
#define PETAL_PIPE_BYTES_MAX (UINT64_C(1) << 40)
#define PETAL_PIPE_ALIGN 16u
#define PETAL_PIPE_HEADER_BYTES 16u

/* What fills the end of the data, as in rings/record.h; not for callers. */
#define PETAL_PIPE_TYPE_PADDING UINT32_C(0xffff0000)

/* Of the consumer's memory, when it has one of its own. */
#define PETAL_PIPE_CURSOR_BYTES 256u

struct petal_pipe_geometry {
	uint64_t data_bytes; /* a power of two, 1 KiB to 1 TiB */
	uint64_t start_pos;  /* of the first record; a multiple of 16 */
	enum petal_segment_coherence coherence; /* of its segment */
};

enum petal_pipe_role {
	PETAL_PIPE_PRODUCER,
	PETAL_PIPE_CONSUMER,
};

struct petal_pipe_shared; /* what lies in the memory: pipe_inl.h */
struct petal_pipe_reader;

/* One side's view, private to it; geometry is never read again. */
struct petal_pipe {
	struct petal_pipe_shared *shared;
	struct petal_pipe_reader *reader;
	uint8_t *data;
	uint64_t data_bytes;
	uint64_t pos;       /* the next record to append, or to release */
	uint64_t head_seen; /* producer: read last; consumer: stored last */
	uint64_t first;     /* producer: of what is appended and not shown */
	uint32_t claimed;   /* length that was claimed */
	uint32_t padding;   /* bytes to skip before what was claimed */
	enum petal_pipe_role role;
	uint64_t found;     /* records that peek has shown, each once */
	uint64_t found_end; /* of the last of them */
	struct petal_pace pace;
	bool has_appended;
	bool closed; /* by this side */
};

/* What peek found. length and type are private copies, checked. */
struct petal_pipe_view {
	const void *bytes; /* length readable ones, 16-byte aligned */
	uint64_t pos;      /* of the record */
	uint64_t end;      /* where the next record starts */
	uint32_t length;
	uint32_t type;
};

/**
 * petal_pipe_bytes() - memory for a ring of this shape
 *
 * Return: a multiple of 64; 0 for a shape out of range.
 */
uint64_t petal_pipe_bytes(const struct petal_pipe_geometry *geometry);

/**
 * petal_pipe_format() - make an empty ring
 * @memory: petal_pipe_bytes(), 64-byte aligned; the header is written over
 *
 * Return: 0; -EINVAL for a shape out of range or memory not aligned;
 * -EOPNOTSUPP for a segment that is not coherent: see rings/spsc.h.
 */
int petal_pipe_format(void *memory, const struct petal_pipe_geometry *geometry);

/**
 * petal_pipe_format_cursor() - make the consumer's own memory
 * @cursor: PETAL_PIPE_CURSOR_BYTES, 64-byte aligned; what was there is lost
 * @start_pos: of the ring's geometry
 *
 * Return: 0, or -EINVAL for memory not aligned.
 */
int petal_pipe_format_cursor(void *cursor, uint64_t start_pos);

/**
 * petal_pipe_attach() - become one side of a ring that anybody may have made
 * @memory: where it lies, 64-byte aligned
 * @bytes: how much is mapped there
 * @role: which side; nobody else may have it at the time
 *
 * Return: 0; -EINVAL when it is no such ring; -PETAL_EVERSION;
 * -PETAL_EGEOMETRY when its shape does not fit into what is mapped.
 */
int petal_pipe_attach(void *memory, uint64_t bytes, enum petal_pipe_role role,
		      struct petal_pipe *ret_ring);

/**
 * petal_pipe_attach_apart() - the same for a ring with a cursor apart
 * @memory: where the ring lies; the consumer may have it read-only
 * @bytes: how much is mapped there
 * @cursor: where the cursor lies; the producer may have it read-only
 * @cursor_bytes: how much is mapped there
 * @role: which side; nobody else may have it at the time
 *
 * Return: as petal_pipe_attach(), for either memory.
 */
int petal_pipe_attach_apart(void *memory, uint64_t bytes, void *cursor,
			    uint64_t cursor_bytes, enum petal_pipe_role role,
			    struct petal_pipe *ret_ring);

/**
 * petal_pipe_length_max() - the longest record, a quarter of the data
 */
static inline uint32_t petal_pipe_length_max(const struct petal_pipe *ring);

/**
 * petal_pipe_claim() - borrow room for a record
 * @length: bytes of payload, at most petal_pipe_length_max(); 0 is allowed
 * @ret_bytes: where to write them, 16-byte aligned
 *
 * Claiming again before publish or append takes the first claim back: it is an
 * abort, and so is doing nothing.
 *
 * Threads: the producer. Order: acquires [DRAIN] when it looks at head.
 *
 * Return: 0; -EAGAIN when full; -EMSGSIZE; -EPIPE when closed by either side.
 */
static inline int petal_pipe_claim(struct petal_pipe *ring, uint32_t length,
				   void **ret_bytes);

/**
 * petal_pipe_publish() - hand over what was claimed, and all that was appended
 * @length: at most what was claimed
 * @type: the caller's, any but PETAL_PIPE_TYPE_PADDING
 *
 * Threads: the producer, after a claim that returned 0. Order: [FILL].
 */
static inline void petal_pipe_publish(struct petal_pipe *ring, uint32_t length,
				      uint32_t type);

/**
 * petal_pipe_append() - finish what was claimed, and let nobody see it yet
 *
 * The next claim comes behind it. Who dies now has appended nothing. A full
 * ring does not drain while its producer keeps what it appended: show it then.
 */
static inline void petal_pipe_append(struct petal_pipe *ring, uint32_t length,
				     uint32_t type);

/**
 * petal_pipe_show() - hand over all that was appended, by one store
 *
 * Threads: the producer. Order: [FILL].
 */
static inline void petal_pipe_show(struct petal_pipe *ring);

/**
 * petal_pipe_abort() - drop what was claimed, and all that was appended
 */
static inline void petal_pipe_abort(struct petal_pipe *ring);

/**
 * petal_pipe_pos() - where the oldest record starts that was not released
 */
static inline uint64_t petal_pipe_pos(const struct petal_pipe *ring);

/**
 * petal_pipe_peek() - look at the record that starts at a position
 * @pos: petal_pipe_pos(), or the end of a record seen before; whatever is
 *	given, nothing outside of the ring is read
 *
 * So records can be held and others read behind them, as far as the ring goes;
 * what is held is room that the producer lacks.
 *
 * Threads: the consumer. Order: acquires [FILL]; [DRAIN] and [CLOSE] if it
 * finds nothing.
 *
 * Return: 0 with the view; PETAL_RING_EMPTY; PETAL_RING_CLOSED;
 * -PETAL_ECORRUPT when no record of this ring can look like that.
 */
static inline int petal_pipe_peek(struct petal_pipe *ring, uint64_t pos,
				  struct petal_pipe_view *ret_view);

/**
 * petal_pipe_release() - give back all before a position
 * @to_pos: the end of a record that was peeked at; anything that is not ahead
 *	by at most data_bytes releases nothing
 *
 * Threads: the consumer. Order: [DRAIN], for a quarter of the ring at once.
 */
static inline void petal_pipe_release(struct petal_pipe *ring, uint64_t to_pos);

/**
 * petal_pipe_close() - this side is done, for ever
 *
 * What was shown is still delivered when the producer closes, and what was
 * only appended is not; when the consumer closes, claims say -EPIPE as soon as
 * the producer looks at head.
 */
void petal_pipe_close(struct petal_pipe *ring);

/**
 * petal_pipe_backlog() - bytes published, and not known to be released
 *
 * For observers; up to a quarter too high, for head is stored late. Reads two
 * words for which no side waits.
 *
 * Threads: anybody with a view of either role. Who is neither side attaches as
 * the consumer, which writes nothing, and calls nothing but this.
 */
static inline uint64_t petal_pipe_backlog(const struct petal_pipe *ring);

#include "rings/pipe_inl.h"

#ifdef __cplusplus
}
#endif

#endif
