/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/duplex_spsc.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "rings/doorbell.h"
#include "rings/spsc.h"
#include "shm/barrier.h"

#define RING_BYTES 16384u
#define SLOTS_MIN 8u

/* Of each way, on lines of their own; the ring lies behind. */
struct way {
	struct petal_doorbell bell;
	uint8_t reserved[4096 - sizeof(struct petal_doorbell)];
};

/* A process's own view of both ways. */
struct view {
	struct way *out;
	struct way *in;
	struct petal_spsc to;
	struct petal_spsc from;
};

static struct view view;

static struct petal_spsc_geometry geometry_of(const struct petal_duplex *duplex)
{
	uint64_t slots = 4;

	while (slots < SLOTS_MIN || slots * duplex->bytes < RING_BYTES)
		slots *= 2;
	return (struct petal_spsc_geometry){
		.slot_count = slots,
		.slot_bytes = (uint32_t)duplex->bytes,
	};
}

static uint64_t way_bytes(const struct petal_duplex *duplex)
{
	struct petal_spsc_geometry geometry = geometry_of(duplex);

	return sizeof(struct way) +
	       (petal_spsc_bytes(&geometry) + 4095) / 4096 * 4096;
}

/* The same two ways, in the order of this side. */
static struct way *way_at(const struct petal_duplex *duplex, unsigned index)
{
	return (void *)((uint8_t *)duplex->state[0] +
			index * way_bytes(duplex));
}

static int ring_prepare(struct petal_duplex *duplex)
{
	struct petal_spsc_geometry geometry = geometry_of(duplex);
	void *memory = mmap(NULL, 2 * way_bytes(duplex), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	int err;

	if (memory == MAP_FAILED)
		return -errno;
	duplex->state[0] = memory;
	err = petal_spsc_format(way_at(duplex, 0) + 1, &geometry);
	if (err < 0)
		return err;
	return petal_spsc_format(way_at(duplex, 1) + 1, &geometry);
}

static int ring_begin(struct petal_duplex *duplex, bool server)
{
	uint64_t bytes = way_bytes(duplex) - sizeof(struct way);
	int err;

	view.out = way_at(duplex, server);
	view.in = way_at(duplex, !server);
	/* Without it, which is an old kernel, a ring costs a fence. */
	err = petal_barrier_enroll();
	if (err < 0 && err != -EOPNOTSUPP)
		return err;
	err = petal_spsc_attach(view.out + 1, bytes, PETAL_SPSC_PRODUCER,
				&view.to);
	if (err < 0)
		return err;
	return petal_spsc_attach(view.in + 1, bytes, PETAL_SPSC_CONSUMER,
				 &view.from);
}

/* One message is in flight, so there is always room. */
static int ring_send(struct petal_duplex *duplex, const void *bytes,
		     size_t length, bool spin)
{
	void *slot = petal_spsc_claim(&view.to);

	(void)duplex;
	(void)spin;
	if (!slot)
		return -ENOBUFS;
	memcpy(slot, bytes, length);
	petal_spsc_publish(&view.to);
	petal_doorbell_ring(&view.out->bell, PETAL_DOORBELL_ALL);
	return 0;
}

static const void *ring_wait(void)
{
	uint32_t seen = petal_doorbell_arm(&view.in->bell);
	const void *slot = petal_spsc_peek(&view.from);

	if (slot)
		petal_doorbell_disarm(&view.in->bell);
	else
		petal_doorbell_wait(&view.in->bell, seen, 0);
	return slot;
}

static int ring_receive(struct petal_duplex *duplex, void *bytes, size_t length,
			bool spin)
{
	const void *slot = petal_spsc_peek(&view.from);

	(void)duplex;
	if (!slot && !spin)
		slot = ring_wait();
	if (!slot)
		return -EAGAIN;
	memcpy(bytes, slot, length);
	petal_spsc_release(&view.from);
	return 0;
}

static void ring_end(struct petal_duplex *duplex)
{
	if (duplex->state[0])
		munmap(duplex->state[0], 2 * way_bytes(duplex));
	duplex->state[0] = NULL;
}

struct petal_duplex petal_duplex_spsc = {
	.impl = "petal-spsc",
	.remark = "a ring and a doorbell each way, copied in and out",
	.prepare = ring_prepare,
	.begin = ring_begin,
	.send = ring_send,
	.receive = ring_receive,
	.end = ring_end,
};
