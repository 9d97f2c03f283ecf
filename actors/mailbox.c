/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sender claims a record, writes, publishes, rings. The actor peeks at the
 * oldest record, works on it in place, releases it, and rings for senders if
 * there is much room again.
 *
 * What can go wrong: the ring is full (a sender waits, or is refused and
 * counted); a sender stops after its claim (the actor is told HELD, and repair
 * makes padding of it after a proved death); the actor stops after take (its
 * successor finds the head where it was, and the count of attempts beside it).
 */
#include "actors/mailbox.h"

#include <errno.h>
#include <string.h>

#include "shm/clock.h"
#include "shm/error.h"

/* "PETALBOX" in memory. */
#define MAILBOX_MAGIC UINT64_C(0x584f424c41544550)
#define MAILBOX_LAYOUT 1u
#define MAILBOX_ALIGN UINT64_C(128)

static struct petal_mpsc_geometry
ring_geometry(const struct petal_mailbox_geometry *geometry)
{
	return (struct petal_mpsc_geometry){
		.data_bytes = geometry->data_bytes,
		.owners = geometry->senders + 1, /* and the actor */
	};
}

static bool is_good(const struct petal_mailbox_geometry *geometry)
{
	return geometry->senders >= 1 &&
	       geometry->senders <= PETAL_MAILBOX_SENDERS_MAX &&
	       geometry->data_bytes <= PETAL_RECORD_RING_BYTES_MAX;
}

uint64_t petal_mailbox_bytes(const struct petal_mailbox_geometry *geometry)
{
	const struct petal_mpsc_geometry ring = ring_geometry(geometry);
	uint64_t bytes = sizeof(struct petal_mailbox_shared) +
			 petal_mpsc_bytes(&ring) + geometry->data_bytes;

	return (bytes + MAILBOX_ALIGN - 1) & ~(MAILBOX_ALIGN - 1);
}

int petal_mailbox_format(void *memory,
			 const struct petal_mailbox_geometry *geometry)
{
	const struct petal_mpsc_geometry ring = ring_geometry(geometry);
	struct petal_mailbox_shared *shared = memory;
	int err;

	if (!is_good(geometry))
		return -EINVAL;
	err = petal_mpsc_format(shared + 1, &ring);
	if (err < 0)
		return err;
	petal_store(&shared->layout, MAILBOX_LAYOUT, PETAL_RELAXED);
	petal_store(&shared->senders, geometry->senders, PETAL_RELAXED);
	petal_store(&shared->data_bytes, geometry->data_bytes, PETAL_RELAXED);
	petal_store(&shared->attempt_pos, PETAL_MPSC_NOWHERE, PETAL_RELAXED);
	/* [BOX] Release: whoever sees the magic sees the rest. */
	petal_store(&shared->magic, MAILBOX_MAGIC, PETAL_RELEASE(BOX));
	return 0;
}

/* Load the shape once, and check it against what is mapped. */
static int geometry_of(const struct petal_mailbox_shared *shared,
		       uint64_t bytes,
		       struct petal_mailbox_geometry *ret_geometry)
{
	struct petal_mailbox_geometry geometry;

	/* [BOX] Acquire: the rest was written before the magic. */
	if (bytes < sizeof(*shared) ||
	    petal_load(&shared->magic, PETAL_ACQUIRE(BOX)) != MAILBOX_MAGIC)
		return -EINVAL;
	if (petal_load(&shared->layout, PETAL_RELAXED) != MAILBOX_LAYOUT)
		return -PETAL_EVERSION;
	geometry.senders = petal_load(&shared->senders, PETAL_RELAXED);
	geometry.data_bytes = petal_load(&shared->data_bytes, PETAL_RELAXED);
	if (!is_good(&geometry) || petal_mailbox_bytes(&geometry) > bytes)
		return -PETAL_EGEOMETRY;
	*ret_geometry = geometry;
	return 0;
}

int petal_mailbox_attach(void *memory, uint64_t bytes, uint32_t number,
			 struct petal_mailbox *ret_mailbox)
{
	struct petal_mailbox mailbox = { .shared = memory };
	struct petal_mailbox_geometry geometry;
	struct petal_mpsc_geometry ring;
	uint8_t *header = (uint8_t *)(mailbox.shared + 1);
	int err;

	err = geometry_of(mailbox.shared, bytes, &geometry);
	if (err < 0)
		return err;
	if (number > geometry.senders)
		return -EINVAL;
	ring = ring_geometry(&geometry);
	err = petal_mpsc_attach(header, petal_mpsc_bytes(&ring),
				header + petal_mpsc_bytes(&ring),
				geometry.data_bytes, number, &mailbox.ring);
	if (err == 0 && number == PETAL_MAILBOX_ACTOR)
		err = petal_mpsc_adopt(&mailbox.ring, &mailbox.pos);
	if (err < 0)
		return err;
	mailbox.end = mailbox.pos;
	mailbox.rang_pos = mailbox.pos;
	*ret_mailbox = mailbox;
	return 0;
}

/* Sending. */

uint32_t petal_mailbox_length_max(const struct petal_mailbox *mailbox)
{
	/* With its header a quarter; what a wrap leaves over, as much again. */
	uint64_t most = mailbox->ring.data_bytes / 4 - PETAL_RECORD_ALIGN;

	return most > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)most;
}

/* Claim; when there is no room, sleep until there may be. */
static int claim_until(struct petal_mailbox *mailbox, uint32_t length,
		       uint64_t deadline_ns, struct petal_mpsc_claim *claim)
{
	struct petal_doorbell *room = &mailbox->shared->room;
	int err = petal_mpsc_claim(&mailbox->ring, length, claim);
	uint32_t seen;

	while (err == -EAGAIN && petal_clock_now_ns() < deadline_ns) {
		/* [SPACE] Armed before we look, so that no ring is missed. */
		seen = petal_doorbell_arm(room);
		err = petal_mpsc_claim(&mailbox->ring, length, claim);
		if (err != -EAGAIN)
			break;
		/* [MAIL] Padding, which nobody publishes, may be in the way. */
		petal_doorbell_ring(&mailbox->shared->bell, PETAL_DOORBELL_ALL);
		petal_doorbell_wait(room, seen, deadline_ns);
		err = petal_mpsc_claim(&mailbox->ring, length, claim);
	}
	return err;
}

int petal_mailbox_claim(struct petal_mailbox *mailbox, uint32_t type,
			uint32_t length, uint64_t deadline_ns,
			struct petal_mailbox_claim *ret_claim)
{
	struct petal_mpsc_claim claim;
	int err;

	if (type >= PETAL_RECORD_TYPE_OURS)
		return -EINVAL;
	if (length > petal_mailbox_length_max(mailbox))
		return -EMSGSIZE;
	err = claim_until(mailbox, length, deadline_ns, &claim);
	if (err == -EAGAIN)
		petal_add(&mailbox->shared->refused, 1, PETAL_RELAXED);
	if (err < 0)
		return err;
	claim.record->type = type;
	ret_claim->bytes = claim.record + 1;
	ret_claim->ring = claim;
	return 0;
}

int petal_mailbox_publish(struct petal_mailbox *mailbox,
			  const struct petal_mailbox_claim *claim)
{
	int err = petal_mpsc_publish(&mailbox->ring, &claim->ring);

	/* [MAIL] Only one actor can sleep here. */
	petal_doorbell_ring(&mailbox->shared->bell, PETAL_DOORBELL_ALL);
	return err;
}

int petal_mailbox_abort(struct petal_mailbox *mailbox,
			const struct petal_mailbox_claim *claim)
{
	int err = petal_mpsc_abort(&mailbox->ring, &claim->ring);

	/* [MAIL] What others sent after our claim has been waiting for us. */
	petal_doorbell_ring(&mailbox->shared->bell, PETAL_DOORBELL_ALL);
	return err;
}

int petal_mailbox_send(struct petal_mailbox *mailbox, uint32_t type,
		       const void *bytes, uint32_t length, uint64_t deadline_ns)
{
	struct petal_mailbox_claim claim;
	int err;

	err = petal_mailbox_claim(mailbox, type, length, deadline_ns, &claim);
	if (err < 0)
		return err;
	if (length > 0)
		memcpy(claim.bytes, bytes, length);
	return petal_mailbox_publish(mailbox, &claim);
}

/* Taking. */

static void free_to(struct petal_mailbox *mailbox, uint64_t pos)
{
	uint64_t data_bytes = mailbox->ring.data_bytes;

	petal_mpsc_release(&mailbox->ring, pos);
	mailbox->pos = pos;
	mailbox->end = pos;
	if (petal_mpsc_used(&mailbox->ring) > data_bytes / 2 &&
	    pos - mailbox->rang_pos < data_bytes / 4)
		return;
	mailbox->rang_pos = pos;
	/* [SPACE] All, for each of them may need as little as the others. */
	petal_doorbell_ring(&mailbox->shared->room, PETAL_DOORBELL_ALL);
}

/* Find the oldest message; what is padding before it becomes room. */
static int peek(struct petal_mailbox *mailbox, struct petal_mpsc_view *view)
{
	uint64_t lines = mailbox->ring.data_bytes / PETAL_RECORD_ALIGN;
	uint64_t pos = mailbox->pos;
	int err = PETAL_MAILBOX_EMPTY;

	/* No more than a lap of padding at once: senders go on meanwhile. */
	for (uint64_t n = 0; n < lines; n++) {
		err = petal_mpsc_peek(&mailbox->ring, pos, view);
		if (err != 0 || view->type < PETAL_RECORD_TYPE_OURS)
			break;
		pos = view->end;
		err = PETAL_MAILBOX_EMPTY;
	}
	if (pos != mailbox->pos)
		free_to(mailbox, pos);
	return err;
}

/* Count in shared memory that we try this one, for whoever comes after us. */
static uint32_t attempt(struct petal_mailbox_shared *shared, uint64_t pos)
{
	uint64_t attempts = 0;

	if (petal_load(&shared->attempt_pos, PETAL_RELAXED) == pos)
		attempts = petal_load(&shared->attempts, PETAL_RELAXED);
	petal_store(&shared->attempts, attempts + 1, PETAL_RELAXED);
	/* Last: a death between the two costs one count. */
	petal_store(&shared->attempt_pos, pos, PETAL_RELAXED);
	return attempts < UINT32_MAX ? (uint32_t)attempts : UINT32_MAX;
}

int petal_mailbox_take(struct petal_mailbox *mailbox,
		       struct petal_mail *ret_mail)
{
	struct petal_mpsc_view view;
	int err;

	if (mailbox->end == mailbox->pos) {
		err = peek(mailbox, &view);
		if (err != 0)
			return err;
		mailbox->end = view.end;
		mailbox->mail = (struct petal_mail){
			.bytes = view.record + 1,
			.length = view.length,
			.type = view.type,
			.sender = view.owner,
			.redelivered = attempt(mailbox->shared, view.pos),
			.pos = view.pos,
		};
	}
	*ret_mail = mailbox->mail;
	return 0;
}

void petal_mailbox_release(struct petal_mailbox *mailbox)
{
	if (mailbox->end == mailbox->pos)
		return;
	petal_add(&mailbox->shared->taken, 1, PETAL_RELAXED);
	free_to(mailbox, mailbox->end);
}

void petal_mailbox_retry(struct petal_mailbox *mailbox)
{
	mailbox->end = mailbox->pos;
}

static int look(struct petal_mailbox *mailbox)
{
	struct petal_mpsc_view view;

	return mailbox->end != mailbox->pos ? 0 : peek(mailbox, &view);
}

int petal_mailbox_wait(struct petal_mailbox *mailbox, uint64_t deadline_ns)
{
	struct petal_doorbell *bell = &mailbox->shared->bell;
	int err = look(mailbox);
	uint32_t seen;

	while (err > 0 && petal_clock_now_ns() < deadline_ns) {
		/* [MAIL] Armed before we look, so that no ring is missed. */
		seen = petal_doorbell_arm(bell);
		err = look(mailbox);
		if (err <= 0)
			break;
		petal_doorbell_wait(bell, seen, deadline_ns);
		err = look(mailbox);
	}
	/* No sleeper, so let no sender pay for a wake-up. */
	petal_doorbell_disarm(bell);
	return err;
}

int petal_mailbox_repair(struct petal_mailbox *mailbox,
			 const uint64_t dead[PETAL_MPSC_OWNERS_MAX / 64])
{
	return petal_mpsc_repair(&mailbox->ring, mailbox->pos, dead);
}

int petal_mailbox_fence(struct petal_mailbox *mailbox, uint32_t *ret_sender)
{
	/* It may be padding that is in the way now, and the sender behind it. */
	int err = look(mailbox);

	if (err != PETAL_MAILBOX_HELD)
		return err < 0 ? err : PETAL_MAILBOX_EMPTY;
	return petal_mpsc_fence(&mailbox->ring, mailbox->pos, ret_sender);
}

uint64_t petal_mailbox_backlog(const struct petal_mailbox *mailbox)
{
	return petal_mpsc_used(&mailbox->ring);
}

uint64_t petal_mailbox_refused(const struct petal_mailbox *mailbox)
{
	return petal_load(&mailbox->shared->refused, PETAL_RELAXED);
}

uint64_t petal_mailbox_taken(const struct petal_mailbox *mailbox)
{
	return petal_load(&mailbox->shared->taken, PETAL_RELAXED);
}
