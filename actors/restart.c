#include "actors/restart.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* The wait before a restart, when @earlier restarts still count. */
static uint64_t wait_ns(const struct petal_restart_options *options,
			uint32_t earlier)
{
	uint64_t ns = options->backoff_ns;

	for (uint32_t i = 0; i < earlier; i++) {
		if (ns > options->backoff_max_ns / 2)
			return options->backoff_max_ns;
		ns *= 2;
	}
	return ns;
}

/*
 * A child that ends as soon as it is started is restarted after each wait in
 * turn. All of them have to fit into one window, or the oldest restart is
 * always forgotten in time and the child goes on failing for ever.
 */
static int check_budget(const struct petal_restart_options *options)
{
	uint64_t left_ns = options->window_ns;

	if (options->backoff_ns > options->backoff_max_ns)
		return -EINVAL;
	for (uint32_t i = 0; i < options->restarts_max; i++) {
		if (wait_ns(options, i) >= left_ns)
			return -EINVAL;
		left_ns -= wait_ns(options, i);
	}
	return 0;
}

int petal_restart_init(struct petal_restart *state,
		       const struct petal_restart_options *options)
{
	int err = 0;

	if (options->policy > PETAL_RESTART_TEMPORARY ||
	    options->restarts_max > PETAL_RESTART_MAX)
		return -EINVAL;
	if (options->policy != PETAL_RESTART_TEMPORARY)
		err = check_budget(options);
	if (err)
		return err;
	*state = (struct petal_restart){
		.options = *options,
		.due_ns = PETAL_CLOCK_NEVER,
	};
	return 0;
}

static enum petal_restart_action over(struct petal_restart *state,
				      enum petal_restart_action how)
{
	state->state = PETAL_RESTART_IS_OVER;
	state->due_ns = PETAL_CLOCK_NEVER;
	return how;
}

static enum petal_restart_action spawn(struct petal_restart *state)
{
	state->state = PETAL_RESTART_IS_RUNNING;
	state->due_ns = PETAL_CLOCK_NEVER;
	return PETAL_RESTART_SPAWN;
}

static enum petal_restart_action slay(struct petal_restart *state)
{
	state->state = PETAL_RESTART_IS_KILLED;
	state->due_ns = PETAL_CLOCK_NEVER;
	return PETAL_RESTART_KILL;
}

static void forget_old(struct petal_restart *state, uint64_t now_ns)
{
	uint32_t old = 0;

	while (old < state->restart_count &&
	       now_ns - state->restarts_ns[old] >= state->options.window_ns)
		old++;
	state->restart_count -= old;
	memmove(state->restarts_ns, state->restarts_ns + old,
		state->restart_count * sizeof(state->restarts_ns[0]));
}

static enum petal_restart_action on_failure(struct petal_restart *state,
					    uint64_t now_ns)
{
	const struct petal_restart_options *options = &state->options;

	forget_old(state, now_ns);
	if (state->restart_count >= options->restarts_max)
		return over(state, PETAL_RESTART_GIVE_UP);
	state->state = PETAL_RESTART_IS_WAITING;
	state->due_ns = petal_clock_after_ns(
		now_ns, wait_ns(options, state->restart_count));
	return PETAL_RESTART_NOTHING;
}

static enum petal_restart_action on_ended(struct petal_restart *state,
					  uint64_t now_ns, bool clean)
{
	enum petal_restart_policy policy = state->options.policy;

	assert(state->state == PETAL_RESTART_IS_RUNNING ||
	       state->state == PETAL_RESTART_IS_STOPPING ||
	       state->state == PETAL_RESTART_IS_KILLED);
	if (state->state != PETAL_RESTART_IS_RUNNING ||
	    policy == PETAL_RESTART_TEMPORARY ||
	    (policy == PETAL_RESTART_TRANSIENT && clean))
		return over(state, PETAL_RESTART_OVER);
	return on_failure(state, now_ns);
}

static enum petal_restart_action on_tick(struct petal_restart *state,
					 uint64_t now_ns)
{
	if (now_ns < state->due_ns)
		return PETAL_RESTART_NOTHING;
	if (state->state == PETAL_RESTART_IS_WAITING) {
		/* Now, and not when it was due: a late TICK must not bring
		 * restarts closer together than the budget says. */
		state->restarts_ns[state->restart_count++] = now_ns;
		return spawn(state);
	}
	if (state->state == PETAL_RESTART_IS_STOPPING)
		return slay(state);
	return PETAL_RESTART_NOTHING;
}

static enum petal_restart_action on_stop(struct petal_restart *state,
					 uint64_t now_ns, uint64_t grace_ns)
{
	uint64_t due_ns = petal_clock_after_ns(now_ns, grace_ns);
	bool first = state->state == PETAL_RESTART_IS_RUNNING;

	switch (state->state) {
	case PETAL_RESTART_IS_NEW:
	case PETAL_RESTART_IS_WAITING:
		return over(state, PETAL_RESTART_OVER);
	case PETAL_RESTART_IS_RUNNING:
	case PETAL_RESTART_IS_STOPPING:
		if (grace_ns == 0)
			return slay(state);
		state->state = PETAL_RESTART_IS_STOPPING;
		if (due_ns < state->due_ns)
			state->due_ns = due_ns;
		return first ? PETAL_RESTART_TERMINATE : PETAL_RESTART_NOTHING;
	case PETAL_RESTART_IS_KILLED:
	case PETAL_RESTART_IS_OVER:
		break;
	}
	return PETAL_RESTART_NOTHING;
}

void petal_restart_step(struct petal_restart *state, uint64_t now_ns,
			const struct petal_restart_event *event,
			enum petal_restart_action *ret_action)
{
	switch (event->type) {
	case PETAL_RESTART_START:
		assert(state->state == PETAL_RESTART_IS_NEW);
		*ret_action = spawn(state);
		break;
	case PETAL_RESTART_TICK:
		*ret_action = on_tick(state, now_ns);
		break;
	case PETAL_RESTART_ENDED:
		*ret_action = on_ended(state, now_ns, event->clean);
		break;
	case PETAL_RESTART_STOP:
		*ret_action = on_stop(state, now_ns, event->grace_ns);
		break;
	}
}

uint64_t petal_restart_next_ns(const struct petal_restart *state)
{
	return state->due_ns;
}
