/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 64 MiB through three processes, and no byte of it copied: the first loans a
 * buffer and fills it, the second changes it where it lies, the third checks it
 * and drops it. What travels in the rings are refs, 8 bytes each; who holds the
 * buffer stands in the ledger, so that it would come home if one of them died.
 *
 *    cc 07-loan.c $(pkg-config --cflags --libs petalith-arena) && ./a.out
 *
 * Only who loans links petalith-arena. Prints one line and exits 0.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rings/spsc.h"
#include "shm/arena.h"
#include "shm/atomic.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "shm/ledger.h"
#include "shm/ref.h"
#include "shm/segment.h"

#define PAYLOAD_BYTES (UINT64_C(64) << 20)
#define PAYLOAD_WORDS (PAYLOAD_BYTES / sizeof(uint64_t))
#define PATIENCE_NS PETAL_S(20)

/* The seats of the ledger, given out here. */
enum { LOANER, EDITOR, READER, PARTIES };

/* Room for one payload, and a page for how the arena cuts it. */
static const struct petal_ledger_geometry ledger_geometry = {
	.range_bytes = PAYLOAD_BYTES + 65536,
	.granule_bytes = 2048,
	.entries = 64,
};

static const struct petal_spsc_geometry ring_geometry = {
	.slot_count = 64,
	.slot_bytes = sizeof(struct petal_ref),
};

/* Where things lie in the body of the segment. */
struct map {
	struct petal_u64 *copies; /* of the payload, by anybody */
	uint8_t *rings[2];
	uint8_t *ledger;
	uint8_t *range;
	uint64_t ring_bytes;
	uint64_t ledger_bytes;
};

static uint64_t map_body(uint8_t *body, struct map *ret_map)
{
	uint64_t ring = petal_spsc_bytes(&ring_geometry);
	uint64_t ledger = petal_ledger_bytes(&ledger_geometry);
	uint64_t rings_at = 64, ledger_at = rings_at + 2 * ring;
	uint64_t range_at = (ledger_at + ledger + 4095) & ~UINT64_C(4095);

	if (body)
		*ret_map = (struct map){
			.copies = (void *)body,
			.rings = { body + rings_at, body + rings_at + ring },
			.ledger = body + ledger_at,
			.range = body + range_at,
			.ring_bytes = ring,
			.ledger_bytes = ledger,
		};
	return range_at + ledger_geometry.range_bytes;
}

/* A copy of the payload would be found in the memory that only we have. */
static int count_copies(const struct map *map)
{
	FILE *statm = fopen("/proc/self/statm", "r");
	uint64_t total, resident, shared, bytes;
	int fields;

	if (!statm)
		return -errno;
	fields = fscanf(statm, "%" SCNu64 " %" SCNu64 " %" SCNu64, &total,
			&resident, &shared);
	fclose(statm);
	if (fields != 3 || resident < shared)
		return -PETAL_EUNKNOWN;
	bytes = (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
	petal_add(map->copies, (bytes + PAYLOAD_BYTES / 2) / PAYLOAD_BYTES,
		  PETAL_RELAXED);
	return 0;
}

/* Where we sit, and how refs become pointers here. */
struct party {
	struct petal_ledger ledger;
	struct petal_ref_table refs;
};

static int join(const struct map *map, uint32_t seat, struct party *party)
{
	int err = petal_ledger_attach(map->ledger, map->ledger_bytes, seat,
				      &party->ledger);

	if (err)
		return err;
	return petal_ref_table_add(&party->refs, map->range,
				   ledger_geometry.range_bytes, &party->ledger);
}

/*
 * First the slot, then the grant: then publishing cannot fail. A grant needs
 * somebody in the seat, so wait until the other process has come so far.
 */
static int send_ref(struct petal_spsc *ring, const struct party *party,
		    struct petal_ref ref, uint32_t to)
{
	uint64_t deadline_ns = petal_clock_now_ns() + PATIENCE_NS;
	struct petal_ref *slot = petal_spsc_claim(ring);
	int err;

	if (!slot)
		return -EAGAIN;
	while ((err = petal_ledger_forward(&party->ledger, ref,
					   UINT64_C(1) << to)) == -ESRCH) {
		if (petal_clock_now_ns() > deadline_ns)
			return -ETIMEDOUT;
		sched_yield();
	}
	if (err)
		return err;
	*slot = ref;
	petal_spsc_publish(ring);
	return 0;
}

static int receive_ref(struct petal_spsc *ring, const struct party *party,
		       struct petal_ref *ret_ref)
{
	uint64_t deadline_ns = petal_clock_now_ns() + PATIENCE_NS;
	const struct petal_ref *slot;
	struct petal_ref ref;
	int err;

	while (!(slot = petal_spsc_peek(ring))) {
		if (petal_clock_now_ns() > deadline_ns)
			return -ETIMEDOUT;
		sched_yield();
	}
	ref = *slot;
	err = petal_ledger_accept(&party->ledger, ref);
	petal_spsc_release(ring);
	if (!err)
		*ret_ref = ref;
	return err;
}

/* Doubles every word where it lies, and passes the buffer on. */
static int edit(const struct map *map)
{
	struct party party = { 0 };
	struct petal_spsc in, out;
	struct petal_ref ref;
	uint64_t *words;
	int err = join(map, EDITOR, &party);

	if (!err)
		err = petal_spsc_attach(map->rings[0], map->ring_bytes,
					PETAL_SPSC_CONSUMER, &in);
	if (!err)
		err = petal_spsc_attach(map->rings[1], map->ring_bytes,
					PETAL_SPSC_PRODUCER, &out);
	if (!err)
		err = receive_ref(&in, &party, &ref);
	if (!err)
		err = petal_ref_resolve(&party.refs, ref, PAYLOAD_BYTES,
					(void **)&words);
	if (err)
		return err;
	for (uint64_t i = 0; i < PAYLOAD_WORDS; i++)
		words[i] *= 2;
	return send_ref(&out, &party, ref, READER);
}

/* Checks every word where it lies, and lets the buffer go home. */
static int check(const struct map *map)
{
	struct party party = { 0 };
	struct petal_spsc in;
	struct petal_ref ref;
	uint64_t *words;
	int err = join(map, READER, &party);

	if (!err)
		err = petal_spsc_attach(map->rings[1], map->ring_bytes,
					PETAL_SPSC_CONSUMER, &in);
	if (!err)
		err = receive_ref(&in, &party, &ref);
	if (!err)
		err = petal_ref_resolve(&party.refs, ref, PAYLOAD_BYTES,
					(void **)&words);
	if (err)
		return err;
	for (uint64_t i = 0; i < PAYLOAD_WORDS; i++)
		if (words[i] != 2 * i)
			return -PETAL_ECORRUPT;
	return petal_ledger_drop(&party.ledger, ref);
}

static int fill(struct petal_arena *arena, const struct map *map,
		const struct party *party)
{
	struct petal_spsc out;
	struct petal_ref ref;
	uint64_t *words;
	int err = petal_spsc_attach(map->rings[0], map->ring_bytes,
				    PETAL_SPSC_PRODUCER, &out);

	if (!err)
		err = petal_arena_loan(arena, PAYLOAD_BYTES, &ref,
				       (void **)&words);
	if (err)
		return err;
	for (uint64_t i = 0; i < PAYLOAD_WORDS; i++)
		words[i] = i;
	return send_ref(&out, party, ref, EDITOR);
}

static int start(int (*role)(const struct map *), const struct map *map,
		 pid_t *ret_child)
{
	pid_t child = fork();

	if (child < 0)
		return -errno;
	if (child == 0) {
		int err = role(map);

		if (!err)
			err = count_copies(map);
		if (err)
			fprintf(stderr, "07-loan: %s\n", petal_strerror(err));
		_exit(err ? EXIT_FAILURE : EXIT_SUCCESS);
	}
	*ret_child = child;
	return 0;
}

static int finish(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) < 0)
		return -errno;
	return status == 0 ? 0 : -PETAL_EUNKNOWN;
}

/* What there is to say; an error if it is not what was promised. */
static int report(const struct map *map, const struct petal_arena *arena,
		  uint64_t begin_ns)
{
	uint64_t ms = (petal_clock_now_ns() - begin_ns) / 1000000;
	struct petal_arena_usage usage;
	uint64_t copies;

	petal_arena_usage(arena, &usage);
	copies = petal_load(map->copies, PETAL_RELAXED) + usage.loans - 1;
	printf("%" PRIu64 " MiB through %d processes in %" PRIu64
	       " ms: %" PRIu64 " copies, %" PRIu64 " buffers not home\n",
	       PAYLOAD_BYTES >> 20, PARTIES, ms, copies, usage.loaned_buffers);
	return copies || usage.loaned_buffers ? -PETAL_ECORRUPT : 0;
}

static int run(const struct map *map)
{
	struct party party = { 0 };
	const struct petal_arena_options options = {
		.base = map->range,
		.bytes = ledger_geometry.range_bytes,
		.ledger = &party.ledger,
	};
	uint64_t begin_ns = petal_clock_now_ns();
	struct petal_arena *arena;
	pid_t editor, reader;
	int err;

	err = join(map, LOANER, &party);
	if (!err)
		err = start(edit, map, &editor);
	if (!err)
		err = start(check, map, &reader);
	if (!err)
		err = petal_arena_open(&options, &arena);
	if (err)
		return err;
	err = fill(arena, map, &party);
	if (!err)
		err = finish(editor);
	if (!err)
		err = finish(reader);
	if (!err)
		err = count_copies(map);
	if (!err)
		err = petal_arena_collect(arena, false, NULL);
	if (!err)
		err = report(map, arena, begin_ns);
	petal_arena_close(arena);
	return err;
}

static int format(const struct map *map)
{
	int err = petal_ledger_format(map->ledger, &ledger_geometry);

	for (int i = 0; i < 2 && !err; i++)
		err = petal_spsc_format(map->rings[i], &ring_geometry);
	return err;
}

int main(void)
{
	const struct petal_segment_options options = {
		.name = "07-loan",
		.body_bytes = map_body(NULL, NULL),
	};
	struct petal_segment segment;
	struct map map;
	int err;

	err = petal_segment_open(&options, &segment);
	if (!err) {
		map_body(petal_segment_body(&segment), &map);
		err = format(&map);
		if (!err)
			err = run(&map);
		petal_segment_close(&segment);
	}
	if (err) {
		fprintf(stderr, "07-loan: %s\n", petal_strerror(err));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
