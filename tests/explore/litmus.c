/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/atomic.h"
#include "tests/explore/explore.h"

/*
 * The explorer's own test: the small programs by which memory models are told
 * from each other. finish reports the outcome in question as a failure. Where
 * RC11 allows it, it must be found; where it forbids it, it must not.
 *
 * They are named as in the literature: MP message passing, SB store buffering,
 * LB load buffering, IRIW independent reads of independent writes, WRC write
 * to read causality, and the coherence tests CoRR, CoWR, CoRW.
 */

const char explore_kind[] = "litmus";

static struct {
	struct petal_u64 x, y, z;
	uint64_t plain;
} shared;

static struct {
	uint64_t a, b, c, d;
} got;

static void zero(void)
{
	shared = (__typeof__(shared)){ .plain = 0 };
	got = (__typeof__(got)){ .a = 99, .b = 99, .c = 99, .d = 99 };
}

#define ACQ EXPLORE_ACQUIRE
#define REL EXPLORE_RELEASE
#define RLX EXPLORE_RELAXED
#define SC EXPLORE_SEQ_CST

static void x_is_1(void)
{
	petal_store(&shared.x, 1, RLX);
}

static void y_is_1(void)
{
	petal_store(&shared.y, 1, RLX);
}

#define OUTCOME(function, condition)         \
	static void function(void)           \
	{                                    \
		explore_check(!(condition)); \
	}

/* A test: its name, verdict, outcome, threads. */
#define LITMUS(title, fails, outcome, ...) \
	LITMUS_BY(false, title, fails, outcome, __VA_ARGS__)

#define LITMUS_BY(rule, title, fails, outcome, ...) \
	static const struct explore_model title = { \
		.name = #title,                     \
		.setup = zero,                      \
		.threads = { __VA_ARGS__ },         \
		.finish = outcome,                  \
		.shared = &shared,                  \
		.shared_bytes = sizeof(shared),     \
		.state = &got,                      \
		.state_bytes = sizeof(got),         \
		.must_fail = fails,                 \
		.c20 = rule,                        \
	}

#define ALLOWED true
#define FORBIDDEN false

/* --- message passing ------------------------------------------------------ */

static void mp_write_rlx(void)
{
	petal_store(&shared.x, 1, RLX);
	petal_store(&shared.y, 1, RLX);
}

static void mp_write_rel(void)
{
	petal_store(&shared.x, 1, RLX);
	petal_store(&shared.y, 1, REL);
}

static void mp_write_fence(void)
{
	petal_store(&shared.x, 1, RLX);
	petal_fence(REL);
	petal_store(&shared.y, 1, RLX);
}

static void mp_read_rlx(void)
{
	got.a = petal_load(&shared.y, RLX);
	got.b = petal_load(&shared.x, RLX);
}

static void mp_read_acq(void)
{
	got.a = petal_load(&shared.y, ACQ);
	got.b = petal_load(&shared.x, RLX);
}

static void mp_read_fence(void)
{
	got.a = petal_load(&shared.y, RLX);
	petal_fence(ACQ);
	got.b = petal_load(&shared.x, RLX);
}

OUTCOME(mp, got.a == 1 && got.b == 0)
LITMUS(mp_relaxed, ALLOWED, mp, mp_write_rlx, mp_read_rlx);
LITMUS(mp_only_release, ALLOWED, mp, mp_write_rel, mp_read_rlx);
LITMUS(mp_only_acquire, ALLOWED, mp, mp_write_rlx, mp_read_acq);
LITMUS(mp_release_acquire, FORBIDDEN, mp, mp_write_rel, mp_read_acq);
LITMUS(mp_fences, FORBIDDEN, mp, mp_write_fence, mp_read_fence);
LITMUS(mp_fence_acquire, FORBIDDEN, mp, mp_write_fence, mp_read_acq);
LITMUS(mp_release_fence, FORBIDDEN, mp, mp_write_rel, mp_read_fence);
LITMUS(mp_only_fence, ALLOWED, mp, mp_write_fence, mp_read_rlx);

/* --- release sequences ---------------------------------------------------- */

static void y_plus_1(void)
{
	petal_add(&shared.y, 1, RLX);
}

static void mp_write_twice(void)
{
	petal_store(&shared.x, 1, RLX);
	petal_store(&shared.y, 1, REL);
	petal_store(&shared.y, 2, RLX);
}

static void y_is_2(void)
{
	petal_store(&shared.y, 2, RLX);
}

OUTCOME(mp2, got.a == 2 && got.b == 0)
LITMUS(sequence_by_update, FORBIDDEN, mp2, mp_write_rel, y_plus_1, mp_read_acq);
LITMUS(sequence_by_own_store, FORBIDDEN, mp2, mp_write_twice, mp_read_acq);
LITMUS_BY(true, sequence_by_own_store_c20, ALLOWED, mp2, mp_write_twice,
	  mp_read_acq);
LITMUS(sequence_by_other_store, ALLOWED, mp2, mp_write_rel, y_is_2,
       mp_read_acq);

/* --- store buffering ------------------------------------------------------ */

#define SB_SIDE(function, mine, theirs, result, fence)    \
	static void function(void)                        \
	{                                                 \
		petal_store(&shared.mine, 1, RLX);        \
		fence;                                    \
		result = petal_load(&shared.theirs, RLX); \
	}

SB_SIDE(sb_left, x, y, got.a, (void)0)
SB_SIDE(sb_right, y, x, got.b, (void)0)
SB_SIDE(sb_left_weak, x, y, got.a, petal_fence(EXPLORE_ACQ_REL))
SB_SIDE(sb_right_weak, y, x, got.b, petal_fence(EXPLORE_ACQ_REL))
SB_SIDE(sb_left_fence, x, y, got.a, petal_fence(SC))
SB_SIDE(sb_right_fence, y, x, got.b, petal_fence(SC))
SB_SIDE(sb_left_light, x, y, got.a, petal_compiler_fence(SC))
SB_SIDE(sb_right_light, y, x, got.b, petal_compiler_fence(SC))
SB_SIDE(sb_left_barrier, x, y, got.a, explore_membarrier())
SB_SIDE(sb_right_broken, y, x, got.b, petal_compiler_fence(RLX))

/* The same with accesses that are sequentially consistent themselves. */
#define SB_SC_SIDE(function, mine, theirs, result, w, r) \
	static void function(void)                       \
	{                                                \
		petal_store(&shared.mine, 1, w);         \
		result = petal_load(&shared.theirs, r);  \
	}

SB_SC_SIDE(sb_left_sc, x, y, got.a, SC, SC)
SB_SC_SIDE(sb_right_sc, y, x, got.b, SC, SC)
SB_SC_SIDE(sb_right_half, y, x, got.b, SC, ACQ)

static void sb_left_swap(void)
{
	petal_swap(&shared.x, 1, SC);
	got.a = petal_load(&shared.y, SC);
}

static void sb_right_cas(void)
{
	uint64_t zero = 0;

	petal_cas(&shared.y, &zero, 1, SC);
	got.b = petal_load(&shared.x, SC);
}

OUTCOME(sb, got.a == 0 && got.b == 0)
OUTCOME(sb_other, got.a == 0 && got.b == 1)
LITMUS(sb_sc, FORBIDDEN, sb, sb_left_sc, sb_right_sc);
LITMUS(sb_sc_half, ALLOWED, sb, sb_left_sc, sb_right_half);
LITMUS(sb_sc_updates, FORBIDDEN, sb, sb_left_swap, sb_right_cas);
LITMUS(sb_sc_fence, FORBIDDEN, sb, sb_left_sc, sb_right_fence);
LITMUS(sb_sc_one_way, ALLOWED, sb_other, sb_left_sc, sb_right_sc);
LITMUS(sb_relaxed, ALLOWED, sb, sb_left, sb_right);
LITMUS(sb_acq_rel_fences, ALLOWED, sb, sb_left_weak, sb_right_weak);
LITMUS(sb_fences, FORBIDDEN, sb, sb_left_fence, sb_right_fence);
LITMUS(sb_one_fence, ALLOWED, sb, sb_left_fence, sb_right);
LITMUS(sb_light_fences, ALLOWED, sb, sb_left_light, sb_right_light);
LITMUS(sb_membarrier, FORBIDDEN, sb, sb_left_barrier, sb_right_light);
LITMUS(sb_membarrier_moved, ALLOWED, sb, sb_left_barrier, sb_right_broken);

/* With a barrier, all but the forbidden outcome must still be there. */
OUTCOME(sb_late, got.a == 0 && got.b == 1)
OUTCOME(sb_early, got.a == 1 && got.b == 0)
OUTCOME(sb_both, got.a == 1 && got.b == 1)
LITMUS(sb_membarrier_late, ALLOWED, sb_late, sb_left_barrier, sb_right_light);
LITMUS(sb_membarrier_early, ALLOWED, sb_early, sb_left_barrier, sb_right_light);
LITMUS(sb_membarrier_both, ALLOWED, sb_both, sb_left_barrier, sb_right_light);

/* --- load buffering ------------------------------------------------------- */

static void lb_left(void)
{
	got.a = petal_load(&shared.x, RLX);
	petal_store(&shared.y, 1, RLX);
}

static void lb_right(void)
{
	got.b = petal_load(&shared.y, RLX);
	petal_store(&shared.x, 1, RLX);
}

OUTCOME(lb, got.a == 1 && got.b == 1)
OUTCOME(lb_one, got.a == 1 && got.b == 0)
LITMUS(lb_relaxed, FORBIDDEN, lb, lb_left, lb_right);
LITMUS(lb_one_way, ALLOWED, lb_one, lb_left, lb_right);

/* --- independent reads of independent writes ------------------------------ */

#define IRIW_SIDE(function, first, second, r1, r2, order, fence) \
	static void function(void)                               \
	{                                                        \
		r1 = petal_load(&shared.first, order);           \
		fence;                                           \
		r2 = petal_load(&shared.second, order);          \
	}

static void x_is_1_rel(void)
{
	petal_store(&shared.x, 1, REL);
}

static void y_is_1_rel(void)
{
	petal_store(&shared.y, 1, REL);
}

IRIW_SIDE(iriw_left, x, y, got.a, got.b, ACQ, (void)0)
IRIW_SIDE(iriw_right, y, x, got.c, got.d, ACQ, (void)0)
IRIW_SIDE(iriw_left_fence, x, y, got.a, got.b, RLX, petal_fence(SC))
IRIW_SIDE(iriw_right_fence, y, x, got.c, got.d, RLX, petal_fence(SC))

OUTCOME(iriw, got.a == 1 && got.b == 0 && got.c == 1 && got.d == 0)
LITMUS(iriw_acquire, ALLOWED, iriw, x_is_1_rel, y_is_1_rel, iriw_left,
       iriw_right);
LITMUS(iriw_fences, FORBIDDEN, iriw, x_is_1, y_is_1, iriw_left_fence,
       iriw_right_fence);

/* --- causality ------------------------------------------------------------ */

#define WRC_MIDDLE(function, r, w)                \
	static void function(void)                \
	{                                         \
		got.a = petal_load(&shared.x, r); \
		petal_store(&shared.y, 1, w);     \
	}

WRC_MIDDLE(wrc_middle, ACQ, REL)
WRC_MIDDLE(wrc_middle_rlx, RLX, RLX)

static void wrc_last(void)
{
	got.b = petal_load(&shared.y, ACQ);
	got.c = petal_load(&shared.x, RLX);
}

IRIW_SIDE(iriw_left_sc, x, y, got.a, got.b, SC, (void)0)
IRIW_SIDE(iriw_right_sc, y, x, got.c, got.d, SC, (void)0)

static void x_is_1_sc(void)
{
	petal_store(&shared.x, 1, SC);
}

static void y_is_1_sc(void)
{
	petal_store(&shared.y, 1, SC);
}

LITMUS(iriw_sc, FORBIDDEN, iriw, x_is_1_sc, y_is_1_sc, iriw_left_sc,
       iriw_right_sc);
OUTCOME(wrc, got.a == 1 && got.b == 1 && got.c == 0)
LITMUS(wrc_ordered, FORBIDDEN, wrc, x_is_1, wrc_middle, wrc_last);
LITMUS(wrc_relaxed, ALLOWED, wrc, x_is_1, wrc_middle_rlx, wrc_last);

/* --- coherence ------------------------------------------------------------ */

static void x_twice(void)
{
	got.a = petal_load(&shared.x, RLX);
	got.b = petal_load(&shared.x, RLX);
}

static void x_twice_too(void)
{
	got.c = petal_load(&shared.x, RLX);
	got.d = petal_load(&shared.x, RLX);
}

static void x_is_2(void)
{
	petal_store(&shared.x, 2, RLX);
}

static void x_is_2_then_loaded(void)
{
	petal_store(&shared.x, 2, RLX);
	got.a = petal_load(&shared.x, RLX);
}

OUTCOME(corr, got.a == 1 && got.b == 0)
OUTCOME(corr2, got.a == 1 && got.b == 2 && got.c == 2 && got.d == 1)
OUTCOME(cowr, got.a == 0)
LITMUS(corr_same_word, FORBIDDEN, corr, x_is_1, x_twice);
LITMUS(corr_two_readers, FORBIDDEN, corr2, x_is_1, x_is_2, x_twice,
       x_twice_too);
LITMUS(cowr_own_store, FORBIDDEN, cowr, x_is_1, x_is_2_then_loaded);

static void w22_left(void)
{
	petal_store(&shared.x, 1, RLX);
	petal_store(&shared.y, 2, RLX);
}

static void w22_right(void)
{
	petal_store(&shared.y, 1, RLX);
	petal_store(&shared.x, 2, RLX);
}

static void w22_left_fence(void)
{
	petal_store(&shared.x, 1, RLX);
	petal_fence(SC);
	petal_store(&shared.y, 2, RLX);
}

static void w22_right_fence(void)
{
	petal_store(&shared.y, 1, RLX);
	petal_fence(SC);
	petal_store(&shared.x, 2, RLX);
}

OUTCOME(w22, petal_load(&shared.x, RLX) == 1 && petal_load(&shared.y, RLX) == 1)
LITMUS(w22_relaxed, ALLOWED, w22, w22_left, w22_right);
LITMUS(w22_fences, FORBIDDEN, w22, w22_left_fence, w22_right_fence);

/* --- read-modify-writes --------------------------------------------------- */

static void add_x(void)
{
	petal_add(&shared.x, 1, RLX);
}

static void cas_x(void)
{
	uint64_t expected = 0;

	if (petal_cas(&shared.x, &expected, 1 + explore_self(), RLX))
		petal_add(&shared.z, 1, RLX);
}

OUTCOME(lost_add, petal_load(&shared.x, RLX) != 3)
OUTCOME(two_winners, petal_load(&shared.z, RLX) != 1)
LITMUS(add_is_atomic, FORBIDDEN, lost_add, add_x, add_x, add_x);
LITMUS(cas_has_one_winner, FORBIDDEN, two_winners, cas_x, cas_x, cas_x);

/* --- plain accesses ------------------------------------------------------- */

static void plain_write_rel(void)
{
	explore_write(&shared.plain, 7);
	petal_store(&shared.y, 1, REL);
}

static void plain_write_rlx(void)
{
	explore_write(&shared.plain, 7);
	petal_store(&shared.y, 1, RLX);
}

static void plain_read(void)
{
	if (petal_load(&shared.y, ACQ))
		explore_check(explore_read(&shared.plain) == 7);
}

LITMUS(plain_ordered, FORBIDDEN, NULL, plain_write_rel, plain_read);
LITMUS(plain_race, ALLOWED, NULL, plain_write_rlx, plain_read);

/* --- death ---------------------------------------------------------------- */

static void after_death(void)
{
	got.a = explore_proved_dead(0);
	got.b = petal_load(&shared.x, RLX);
	got.c = petal_load(&shared.y, RLX);
}

#define DEATH(title, fails, outcome)                      \
	static const struct explore_model title = {       \
		.name = #title,                           \
		.setup = zero,                            \
		.threads = { mp_write_rlx, after_death }, \
		.finish = outcome,                        \
		.shared = &shared,                        \
		.shared_bytes = sizeof(shared),           \
		.state = &got,                            \
		.state_bytes = sizeof(got),               \
		.mortal = 1u << 0,                        \
		.must_fail = fails,                       \
	}

OUTCOME(dead_at_first, got.a == 1 && got.b == 0 && got.c == 0)
OUTCOME(dead_between, got.a == 1 && got.b == 1 && got.c == 0)
OUTCOME(dead_and_missed, got.c > got.b || (got.a == 0 && got.c == 0))
DEATH(death_before_all, ALLOWED, dead_at_first);
DEATH(death_between, ALLOWED, dead_between);
DEATH(death_hides_nothing, FORBIDDEN, dead_and_missed);

const struct explore_model *const explore_models[] = {
	&mp_relaxed,
	&mp_only_release,
	&mp_only_acquire,
	&mp_release_acquire,
	&mp_fences,
	&mp_fence_acquire,
	&mp_release_fence,
	&mp_only_fence,
	&sequence_by_update,
	&sequence_by_own_store,
	&sequence_by_own_store_c20,
	&sequence_by_other_store,
	&sb_relaxed,
	&sb_acq_rel_fences,
	&sb_fences,
	&sb_one_fence,
	&sb_light_fences,
	&sb_membarrier,
	&sb_membarrier_moved,
	&sb_membarrier_late,
	&sb_membarrier_early,
	&sb_membarrier_both,
	&sb_sc,
	&sb_sc_half,
	&sb_sc_updates,
	&sb_sc_fence,
	&sb_sc_one_way,
	&lb_relaxed,
	&lb_one_way,
	&iriw_acquire,
	&iriw_fences,
	&iriw_sc,
	&wrc_ordered,
	&wrc_relaxed,
	&corr_same_word,
	&corr_two_readers,
	&cowr_own_store,
	&w22_relaxed,
	&w22_fences,
	&add_is_atomic,
	&cas_has_one_winner,
	&plain_ordered,
	&plain_race,
	&death_before_all,
	&death_between,
	&death_hides_nothing,
	NULL,
};

const struct explore_excuse explore_excuses[] = { { .file = NULL } };
