/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/extent.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tests/explore/explore.h"

/*
 * Thread 0 keeps the extents of a segment of two, thread 1 uses what is in
 * them, or keeps them next. An extent is a word, which the kernel clears when
 * it allocates, and spoils when it punches: so here fallocate() is ours.
 */

const char explore_kind[] = "extent";

#define EXTENTS 2u
#define EXTENT_BYTES 64u
#define MINE 0x5eedu

static _Alignas(64) struct {
	uint8_t header[PETAL_SEGMENT_HEADER_BYTES];
	struct petal_extent_table table;
	struct petal_u64 words[EXTENTS];
	_Alignas(64) uint8_t extents[EXTENTS][EXTENT_BYTES];
	/* Where, and as of which generation; they order nothing. */
	struct petal_u64 offset;
	struct petal_u64 generation;
} shared;

static struct {
	struct petal_extents views[2];
	struct petal_peer_id ids[2];
	uint64_t generations[2];
} state;

/* --- the kernel's part ---------------------------------------------------- */

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
	uint64_t value = mode & FALLOC_FL_PUNCH_HOLE ? UINT64_MAX : 0;

	(void)fd;
	for (off_t at = offset; at < offset + bytes; at += EXTENT_BYTES)
		explore_write((uint8_t *)&shared + at, value);
	return 0;
}

/* --- setups --------------------------------------------------------------- */

static void keep(uint32_t who)
{
	explore_check(petal_extent_keep(&state.views[who], &state.ids[who]) ==
		      0);
}

static void make(void)
{
	const uint64_t fixed = offsetof(__typeof__(shared), extents);
	struct petal_segment segment = {
		.base = &shared,
		.total_bytes = fixed + sizeof(shared.extents),
		.fd = -1,
		.pages = PETAL_SEGMENT_PAGES_HUGE_2M,
		.writable = true,
		.backing = PETAL_SEGMENT_MEMFD,
		.header_bytes = offsetof(__typeof__(shared), words),
		.fixed_bytes = fixed,
		.extent_bytes = EXTENT_BYTES,
	};

	memset(&shared, 0, sizeof(shared));
	memset(&state, 0, sizeof(state));
	for (uint32_t i = 0; i < 2; i++) {
		explore_check(petal_extent_open(&segment, &state.views[i]) ==
			      0);
		state.ids[i].pid = (uint32_t)getpid();
		state.ids[i].start_ticks = i + 1;
	}
	keep(0);
}

static void add(uint32_t who, uint64_t extents)
{
	struct petal_extents *view = &state.views[who];
	uint64_t offset, generation;

	explore_check(petal_extent_add(view, extents * EXTENT_BYTES, &offset,
				       &generation) == 0);
	state.generations[who] = generation;
	petal_store(&shared.offset, offset, PETAL_RELAXED);
	petal_store(&shared.generation, generation, PETAL_RELAXED);
}

static void make_live(void)
{
	make();
	add(0, 1);
}

/* --- threads -------------------------------------------------------------- */

static void add_two(void)
{
	add(0, 2);
}

static void take_away(void)
{
	struct petal_extents *view = &state.views[0];
	uint64_t offset = petal_load(&shared.offset, PETAL_RELAXED);
	uint64_t generation = state.generations[0];

	explore_check(petal_extent_retire(view, offset, generation) == 0);
	for (unsigned tries = 0; tries < 3; tries++) {
		int err = petal_extent_reclaim(view, offset, generation, false);

		explore_check(err >= 0);
		if (err == 0)
			return;
	}
}

static void pin_and_use(void)
{
	struct petal_extents *view = &state.views[1];
	uint64_t offset = petal_load(&shared.offset, PETAL_RELAXED);
	uint64_t generation = petal_load(&shared.generation, PETAL_RELAXED);
	uint8_t *word = (uint8_t *)&shared + offset;

	if (generation == 0 || petal_extent_pin(view, offset, generation))
		return;
	explore_check(explore_read(word) == 0);
	explore_write(word, MINE);
	explore_check(petal_extent_unpin(view, offset, generation) == 0);
}

/* By whom takes care that nothing is taken away meanwhile. */
static void check_and_use(void)
{
	uint64_t offset = petal_load(&shared.offset, PETAL_RELAXED);
	uint64_t generation = petal_load(&shared.generation, PETAL_RELAXED);

	if (generation == 0 || petal_extent_check(&state.views[1], offset,
						  EXTENT_BYTES, generation))
		return;
	explore_check(explore_read((uint8_t *)&shared + offset) == 0);
}

static void look_and_use(void)
{
	struct petal_extent_info info;

	explore_check(petal_extent_look(&state.views[1], 0, &info) == 0);
	if (info.state == PETAL_EXTENT_LIVE)
		explore_check(explore_read((uint8_t *)&shared + info.offset) ==
			      0);
}

static void add_and_drop(void)
{
	add(0, 1);
	petal_extent_drop(&state.views[0]);
}

static void keep_next(void)
{
	/* Not before, for it would ask the kernel who is alive. */
	if (petal_load(&shared.table.keeper, PETAL_RELAXED) != 0)
		return;
	keep(1);
	add(1, 1);
	explore_check(state.generations[1] != state.generations[0]);
}

static void finish(void)
{
	explore_check(petal_extent_live_bytes(&state.views[0]) <=
		      sizeof(shared.extents));
}

#define MODEL(...)                                                            \
	{                                                                     \
		__VA_ARGS__, .shared = &shared,                               \
			     .shared_bytes = sizeof(shared), .state = &state, \
			     .state_bytes = sizeof(state)                     \
	}

static const struct explore_model pinned =
	MODEL(.name = "pin", .setup = make_live,
	      .threads = { take_away, pin_and_use }, .finish = finish);

static const struct explore_model added =
	MODEL(.name = "add", .setup = make, .threads = { add_two, pin_and_use },
	      .finish = finish);

static const struct explore_model checked =
	MODEL(.name = "check", .setup = make,
	      .threads = { add_two, check_and_use }, .finish = finish);

static const struct explore_model looked =
	MODEL(.name = "look", .setup = make,
	      .threads = { add_two, look_and_use }, .finish = finish);

static const struct explore_model succeeded =
	MODEL(.name = "keep", .setup = make,
	      .threads = { add_and_drop, keep_next }, .finish = finish);

const struct explore_model *const explore_models[] = {
	&pinned, &added, &checked, &looked, &succeeded, NULL,
};

const struct explore_excuse explore_excuses[] = {
	{ "shm/extent.c", "KEEP", EXPLORE_ACQ_REL, EXPLORE_ACQUIRE,
	  "who takes over from a keeper that is there has proof of its death, "
	  "which orders all" },
	{ .file = NULL },
};
