#ifndef PETAL_ACTORS_RESTART_H
#define PETAL_ACTORS_RESTART_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/clock.h"

/**
 * DOC: restart - whether and when something that has ended is started again
 *
 *                      TICK, back-off over / SPAWN
 *                 +--------------------------------------+
 *                 v                                      |
 *    new -----> running -----------------------------> waiting
 *       START /   |  |    ENDED, within the budget       |
 *       SPAWN     |  |                                   | STOP / OVER
 *                 |  | ENDED / OVER or GIVE_UP           v
 *       STOP /    |  +------------------------------->  over
 *       TERMINATE v                                      ^
 *             stopping --------------------------------->|
 *                 | TICK, grace over / KILL   ENDED /    |
 *                 v                           OVER       |
 *              killed ---------------------------------->+
 *
 * A pure state machine of one child: no clock, no process. What a child is,
 * the caller knows: supervisor.h has processes.
 *
 * Always true: no more than @restarts_max restarts lie within any @window_ns,
 * and after OVER or GIVE_UP nothing is asked for any more.
 *
 * The budget is that of Erlang/OTP's supervisor behaviour: a child that ends
 * once more often than restarts_max within window_ns is given up, for a cause
 * that so many restarts did not cure lies elsewhere, and whoever is above must
 * know. The wait before a restart doubles with each restart that still counts,
 * so a child that has been well for window_ns begins again with @backoff_ns.
 *
 * Threads: one at a time for one state. Crash: nothing is left.
 */

enum {
	/** The largest restarts_max. */
	PETAL_RESTART_MAX = 32,
};

/** enum petal_restart_policy - which ends ask for a new start */
enum petal_restart_policy {
	/** Every end, a clean one too. */
	PETAL_RESTART_PERMANENT,
	/** Every end but a clean one. */
	PETAL_RESTART_TRANSIENT,
	/** None. */
	PETAL_RESTART_TEMPORARY,
};

/** struct petal_restart_options - policy and budget of one child */
struct petal_restart_options {
	enum petal_restart_policy policy;
	/** @restarts_max: 0 to PETAL_RESTART_MAX; 0 gives up at the first end
	 * that asks for a restart. Nothing below is read where no restart can
	 * come. */
	uint32_t restarts_max;
	/** @window_ns: the time in which these are counted. */
	uint64_t window_ns;
	/** @backoff_ns: the wait before the first restart; may be 0. */
	uint64_t backoff_ns;
	/** @backoff_max_ns: the longest wait; at least @backoff_ns. */
	uint64_t backoff_max_ns;
};

/** enum petal_restart_event_type - what the caller tells a step */
enum petal_restart_event_type {
	/** Begin; first event, and once. */
	PETAL_RESTART_START,
	/** petal_restart_next_ns() has come; earlier does no harm. */
	PETAL_RESTART_TICK,
	/** What was spawned has ended, or could not be spawned. */
	PETAL_RESTART_ENDED,
	/** It shall end, and not come back. */
	PETAL_RESTART_STOP,
};

/** struct petal_restart_event - one event */
struct petal_restart_event {
	enum petal_restart_event_type type;
	/** @clean: for ENDED: it had done its work. */
	bool clean;
	/** @grace_ns: for STOP: from TERMINATE to KILL; 0 kills at once. Of
	 * several STOPs the earliest end of grace counts. */
	uint64_t grace_ns;
};

/** enum petal_restart_action - what a step asks of the caller */
enum petal_restart_action {
	PETAL_RESTART_NOTHING,
	/** Start it; if that fails, say ENDED. */
	PETAL_RESTART_SPAWN,
	/** Ask it to end. */
	PETAL_RESTART_TERMINATE,
	/** Make it end. */
	PETAL_RESTART_KILL,
	/** It has ended for good. */
	PETAL_RESTART_OVER,
	/** It has ended for good, though its policy asks for more. */
	PETAL_RESTART_GIVE_UP,
};

/** enum petal_restart_state - see the picture */
enum petal_restart_state {
	PETAL_RESTART_IS_NEW,
	PETAL_RESTART_IS_RUNNING,
	PETAL_RESTART_IS_WAITING,
	PETAL_RESTART_IS_STOPPING,
	PETAL_RESTART_IS_KILLED,
	PETAL_RESTART_IS_OVER,
};

/** struct petal_restart - one child; private, but for debuggers */
struct petal_restart {
	struct petal_restart_options options;
	enum petal_restart_state state;
	/* The restarts that still count, oldest first. */
	uint32_t restart_count;
	uint64_t restarts_ns[PETAL_RESTART_MAX];
	/* When a back-off or a grace is over; else NEVER. */
	uint64_t due_ns;
};

/**
 * petal_restart_init() - a child that has not begun
 * @state: the state to fill; there is no fini
 * @options: copied
 *
 * Return: 0; -EINVAL for an unknown policy, restarts_max over its bound,
 * backoff_ns over backoff_max_ns, or restarts_max waits that together last
 * window_ns or longer, for then a child could fail for ever unnoticed.
 */
int petal_restart_init(struct petal_restart *state,
		       const struct petal_restart_options *options);

/**
 * petal_restart_step() - let one event happen
 * @state: the state
 * @now_ns: the caller's monotonic time, never less than at the step before
 * @event: what has happened
 * @ret_action: what to do about it
 *
 * ENDED is a bug of the caller unless SPAWN was asked for since the last one.
 */
void petal_restart_step(struct petal_restart *state, uint64_t now_ns,
			const struct petal_restart_event *event,
			enum petal_restart_action *ret_action);

/**
 * petal_restart_next_ns() - when the next TICK is due
 * @state: the state
 *
 * Return: a moment; PETAL_CLOCK_NEVER if only an event can change anything.
 */
uint64_t petal_restart_next_ns(const struct petal_restart *state);

#endif
