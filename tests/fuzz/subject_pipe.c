/* SPDX-License-Identifier: Apache-2.0 */
/* Both sides of a record ring, in one memory or apart. */
#include "tests/fuzz/fuzz.h"

#include <stddef.h>

#include "rings/outcome.h"
#include "shm/error.h"
#include <errno.h>

#include "rings/pipe.h"

static struct {
	struct fuzz_region ring;
	struct fuzz_region cursor; /* of no bytes when it is not apart */
	struct petal_pipe producer;
	struct petal_pipe consumer;
	void *claimed;
	uint32_t claimed_bytes;
	uint64_t pos; /* the next record to peek at */
} s;

static struct petal_pipe_geometry shape_of(uint32_t variant)
{
	static const uint64_t starts[] = { 0, UINT64_C(0xfffffff0),
					   (UINT64_C(1) << 63) - 32 };

	return (struct petal_pipe_geometry){
		.data_bytes = variant & 1 ? 1024 : 4096,
		.start_pos = starts[variant / 4 % 3],
	};
}

static void sizes(uint32_t variant, uint64_t bytes[FUZZ_REGIONS])
{
	struct petal_pipe_geometry shape = shape_of(variant);

	bytes[0] = petal_pipe_bytes(&shape);
	bytes[1] = variant & 2 ? PETAL_PIPE_CURSOR_BYTES : 0;
}

static void attach(enum petal_pipe_role role)
{
	struct petal_pipe ring;
	int err;

	if (s.cursor.bytes)
		err = petal_pipe_attach_apart(s.ring.base, s.ring.bytes,
					      s.cursor.base, s.cursor.bytes,
					      role, &ring);
	else
		err = petal_pipe_attach(s.ring.base, s.ring.bytes, role, &ring);
	if (fuzz_refused(err))
		return;
	if (role == PETAL_PIPE_PRODUCER) {
		s.producer = ring;
		s.claimed = NULL;
	} else {
		s.consumer = ring;
		s.pos = petal_pipe_pos(&ring);
	}
}

static void make(const struct fuzz_region *regions, uint32_t variant)
{
	struct petal_pipe_geometry shape = shape_of(variant);

	s.ring = regions[0];
	s.cursor = regions[1];
	fuzz_require(petal_pipe_format(s.ring.base, &shape) == 0);
	if (s.cursor.bytes)
		fuzz_require(petal_pipe_format_cursor(s.cursor.base,
						      shape.start_pos) == 0);
	attach(PETAL_PIPE_PRODUCER);
	attach(PETAL_PIPE_CONSUMER);
}

static void claim(void)
{
	uint32_t max = petal_pipe_length_max(&s.producer);
	uint32_t length = (uint32_t)fuzz_random(fuzz_random(4) ? 64 : max + 2);

	s.claimed = NULL;
	if (fuzz_refused(petal_pipe_claim(&s.producer, length, &s.claimed)))
		return;
	s.claimed_bytes = length;
	fuzz_write(s.claimed, length);
}

static void finish(void)
{
	uint32_t length;

	if (!s.claimed)
		return;
	length = (uint32_t)fuzz_random(s.claimed_bytes + 1);
	if (fuzz_random(3))
		petal_pipe_publish(&s.producer, length, 7);
	else
		petal_pipe_append(&s.producer, length, 7);
	s.claimed = NULL;
}

static void peek(void)
{
	struct petal_pipe_view view;

	if (fuzz_refused(petal_pipe_peek(&s.consumer, s.pos, &view)))
		return;
	fuzz_require(view.end - view.pos >= view.length);
	fuzz_read(view.bytes, view.length);
	s.pos = view.end;
}

static void step(void)
{
	switch (fuzz_random(14)) {
	case 0:
	case 1:
	case 2:
		claim();
		break;
	case 3:
	case 4:
	case 5:
		finish();
		break;
	case 6:
		petal_pipe_show(&s.producer);
		break;
	case 7:
	case 8:
	case 9:
		peek();
		break;
	case 10:
		petal_pipe_release(&s.consumer, s.pos);
		break;
	case 11:
		fuzz_require(petal_pipe_backlog(&s.consumer) <=
			     s.consumer.data_bytes);
		break;
	case 12:
		attach(fuzz_random(2) ? PETAL_PIPE_PRODUCER
				      : PETAL_PIPE_CONSUMER);
		break;
	default:
		if (fuzz_random(4) == 0) {
			petal_pipe_abort(&s.producer);
			s.claimed = NULL;
		} else if (fuzz_random(8) == 0) {
			petal_pipe_close(fuzz_random(2) ? &s.producer
							: &s.consumer);
			s.claimed = NULL;
		}
		break;
	}
}

const struct fuzz_subject fuzz_pipe = {
	.name = "pipe",
	.variants = 12,
	.cost = 1,
	.accesses_max = 2000,
	.sizes = sizes,
	.make = make,
	.step = step,
};
