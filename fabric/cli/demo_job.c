/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source is given credit: half of the records at first, the rest when the
 * kills have happened, so that they happen in the middle whatever the machine's
 * speed. The primary petal is killed when the petal that was killed before is
 * back in: level mem2 survives one at a time. With it go all workers; the source
 * and the clerk, which have something to remember, find the next primary. A worker is killed while it holds a lease, and that is made sure of: it
 * is asked (SIGUSR1) to stop itself in the middle of its next message, and when
 * it stands there, and the queue's own table says that it has a lease, it gets
 * SIGKILL.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "fabric/cli/demo.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "shm/peer.h"

#define LOOK_NS PETAL_MS(5)
#define STALL_NS PETAL_S(60)
#define END_NS PETAL_S(20)
#define PROGRESS_NS PETAL_MS(200)

static const struct petal_restart_options once = {
	.policy = PETAL_RESTART_TEMPORARY,
};

/* Start one of our own commands: "petal NAME ARG...". */
static int start(struct demo *demo, const char *name, const char *const *args,
		 const struct petal_supervisor_pass *fds, uint32_t fd_count,
		 uint32_t *ret_child)
{
	const char *argv[12] = { demo->self, name };
	struct petal_supervisor_spec spec = {
		.name = name,
		.argv = argv,
		.restart = once,
		.fds = fds,
		.fd_count = fd_count,
	};
	int err;

	for (unsigned i = 0; args[i] != NULL && i < 9; i++)
		argv[i + 2] = args[i];
	err = petal_supervisor_start(demo->job_supervisor, &spec, ret_child);
	return err < 0 ? demo_fail(demo, "cannot start '%s': %s", name,
				   petal_strerror(err))
		       : 0;
}

static int start_source(struct demo *demo)
{
	const char *args[] = { demo->dir, demo->input.path,
			       petal_level_name(demo->options.level), NULL };
	struct petal_supervisor_pass pass = { .to = STDIN_FILENO };
	int ends[2], err;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return demo_fail(demo, "no descriptor is left: %s",
				 strerrordesc_np(errno));
	pass.from = ends[0];
	demo->credit_fd = ends[1];
	err = start(demo, "demo-source", args, &pass, 1, &demo->source);
	close(ends[0]);
	return err;
}

static int start_keeper(struct demo *demo)
{
	char count[16];
	const char *args[] = { demo->dir, count,
			       petal_level_name(demo->options.level), NULL };
	struct petal_supervisor_pass pass = { .to = 3 };
	int ends[2], err;

	snprintf(count, sizeof(count), "%u", demo->options.workers);
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return demo_fail(demo, "no descriptor is left: %s",
				 strerrordesc_np(errno));
	pass.from = ends[1];
	demo->keeper_fd = ends[0];
	err = start(demo, "demo-supervisor", args, &pass, 1, &demo->keeper);
	close(ends[1]);
	return err;
}

static int start_clerk(struct demo *demo)
{
	const char *args[] = { demo->dir, demo->census_path,
			       petal_level_name(demo->options.level), NULL };

	snprintf(demo->census_path, sizeof(demo->census_path), "%.*s/census",
		 PATH_MAX - 16, demo->dir);
	return start(demo, "demo-clerk", args, NULL, 0, &demo->clerk);
}

/* Let the source send more records, up to a total. */
static int grant(struct demo *demo, uint64_t total)
{
	uint64_t more;

	if (total > demo->input.records)
		total = demo->input.records;
	if (total <= demo->granted)
		return 0;
	more = total - demo->granted;
	demo->granted = total;
	if (write(demo->credit_fd, &more, sizeof(more)) != sizeof(more) &&
	    !demo->source_done)
		return demo_fail(demo, "the source is gone");
	return 0;
}

/* "worker PID OWNER": one is there; owners are given out again. */
static void note_worker(struct demo *demo, pid_t pid, unsigned owner)
{
	if (owner >= PETAL_LOG_OWNERS || pid <= 0)
		return;
	demo->workers[owner] = pid;
}

static void read_keeper(struct demo *demo)
{
	char bytes[1024], *line, *rest = bytes;
	unsigned owner;
	ssize_t n;
	int pid;

	n = read(demo->keeper_fd, bytes, sizeof(bytes) - 1);
	if (n <= 0)
		return;
	bytes[n] = '\0';
	while ((line = strsep(&rest, "\n")) != NULL) {
		if (sscanf(line, "worker %d %u", &pid, &owner) == 2)
			note_worker(demo, pid, owner);
		else if (strcmp(line, "restarted") == 0)
			demo->worker_restarts++;
	}
}

static int on_end(struct demo *demo, const struct petal_supervisor_event *event)
{
	bool failed = event->status != 0 || event->signal != 0;

	if (event->child == demo->source) {
		demo->source_done = true;
		demo->source_failed = failed;
	}
	if (failed || event->child == demo->keeper ||
	    event->child == demo->clerk)
		return demo_fail(demo, "%s (pid %d) ended early", event->name,
				 (int)event->pid);
	return 0;
}

static int poll_children(struct demo *demo)
{
	struct petal_supervisor_event events[8];
	int count;

	count = petal_supervisor_poll(demo->job_supervisor, events, 8);
	for (int i = 0; i < count; i++) {
		if (events[i].type == PETAL_SUPERVISOR_EXITED &&
		    on_end(demo, &events[i]) < 0)
			return -1;
	}
	read_keeper(demo);
	return demo_petals_poll(demo);
}

/* The kills. */

static void note_kill(struct demo *demo, const char *what, const char *name,
		      pid_t pid, uint64_t results)
{
	struct demo_kill *kill = &demo->kills[demo->kill_count++];

	kill->what = what;
	kill->name = name;
	kill->pid = pid;
	kill->at_results = results;
}

static bool is_stopped(pid_t pid)
{
	char path[64], line[256];
	const char *state = NULL;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (file != NULL && fgets(line, sizeof(line), file) != NULL)
		state = strrchr(line, ')');
	if (file != NULL)
		fclose(file);
	return state != NULL && strncmp(state, ") T", 3) == 0;
}

/* By a pidfd of this very process: PIDs are given out again. */
static int send_signal(pid_t pid, int number)
{
	struct petal_peer_id id;
	struct petal_peer peer;
	int err;

	err = petal_peer_identify(pid, &id);
	if (err == 0)
		err = petal_peer_open(&id, &peer);
	if (err < 0)
		return err;
	if (pidfd_send_signal(petal_peer_fd(&peer), number, NULL, 0) < 0)
		err = -errno;
	petal_peer_close(&peer);
	return err;
}

static void choose_victim(struct demo *demo)
{
	for (uint32_t owner = 1; owner < PETAL_LOG_OWNERS; owner++) {
		if (demo->workers[owner] != 0 &&
		    send_signal(demo->workers[owner], SIGUSR1) == 0) {
			demo->victim = owner;
			return;
		}
	}
}

static void kill_worker(struct demo *demo, uint64_t results)
{
	pid_t pid;

	if (demo->victim == 0)
		choose_victim(demo);
	pid = demo->workers[demo->victim];
	if (pid == 0 || !is_stopped(pid) ||
	    petal_queue_held(&demo->ring.log.queues[0], demo->victim) == 0)
		return;
	if (send_signal(pid, SIGKILL) < 0)
		return;
	note_kill(demo, "worker", "", pid, results);
	demo->worker_killed = true;
	demo->workers[demo->victim] = 0;
}

static int kill_petal(struct demo *demo, uint64_t results)
{
	struct demo_petal *petal =
		&demo->petals[1 + demo->options.kill_seed % 2];

	note_kill(demo, "petal", petal->name, petal->pid, results);
	demo->petal_killed = true;
	if (petal_supervisor_signal(demo->petals_supervisor, petal->child,
				    SIGKILL) < 0)
		return demo_fail(demo, "cannot kill petal '%s'", petal->name);
	return 0;
}

/* What the tables of a lost primary counted is still there to be read. */
static void keep_counts(struct demo *demo)
{
	for (unsigned i = 0; i < 2; i++) {
		struct petal_queue_counts counts;

		petal_queue_counts(&demo->ring.log.queues[i], &counts);
		demo->before[i].enqueued += counts.enqueued;
		demo->before[i].done += counts.done;
		demo->before[i].redelivered += counts.redelivered;
		demo->before[i].stale += counts.stale;
	}
}

/* With all its processes but the two that remember. */
static int kill_primary(struct demo *demo, uint64_t results)
{
	struct demo_petal *petal = &demo->petals[demo->node.id - 1];
	uint64_t begin_ns = petal_clock_now_ns();

	note_kill(demo, "primary petal", petal->name, petal->pid, results);
	demo->primary_killed = true;
	if (petal_supervisor_signal(demo->petals_supervisor, petal->child,
				    SIGKILL) < 0)
		return demo_fail(demo, "cannot kill petal '%s'", petal->name);
	for (uint32_t owner = 1; owner < PETAL_LOG_OWNERS; owner++) {
		if (demo->workers[owner] != 0)
			send_signal(demo->workers[owner], SIGKILL);
		demo->workers[owner] = 0;
	}
	keep_counts(demo);
	if (demo_petals_follow(demo) < 0)
		return -1;
	demo->failover_ns = petal_clock_now_ns() - begin_ns;
	return 0;
}

/* Levels below mem2 do not promise to survive that. */
static bool may_kill_primary(struct demo *demo)
{
	bool whole = false;

	if (!demo->petal_killed || demo->primary_killed ||
	    demo_petals_whole(demo, &whole) < 0)
		return false;
	/* At first nobody may have noticed that a petal is gone. */
	demo->petal_missed |= !whole;
	return demo->petal_missed && whole;
}

/* After how many results: at a third and at a half of the first half. */
static void kill_points(const struct demo *demo, uint64_t points[2])
{
	uint64_t half = demo->input.records / 2;
	uint64_t seed = demo->options.kill_seed;

	points[0] = half / 3;
	points[1] = half / 2;
	for (unsigned i = 0; i < 2 && seed != 0; i++) {
		/* splitmix64 (Steele, Lea, Flood 2014): one step a point. */
		seed += UINT64_C(0x9e3779b97f4a7c15);
		uint64_t z = seed;

		z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
		points[i] = (z ^ z >> 31) % (half + 1);
	}
}

static int kill_some(struct demo *demo, const struct petal_queue_counts *in,
		     uint64_t results)
{
	uint64_t points[2];

	if (!demo->options.kill)
		return grant(demo, demo->input.records);
	kill_points(demo, points);
	if (!demo->worker_killed && results >= points[0])
		kill_worker(demo, results);
	if (!demo->petal_killed && results >= points[1] &&
	    kill_petal(demo, results) < 0)
		return -1;
	if (demo->options.level >= PETAL_LEVEL_MEM2 && demo->worker_killed &&
	    may_kill_primary(demo))
		return kill_primary(demo, results);
	if (demo->worker_killed && demo->petal_killed &&
	    (demo->primary_killed || demo->options.level < PETAL_LEVEL_MEM2))
		return grant(demo, demo->input.records);
	/* Something is kept for after the last kill. */
	if (in->done >= demo->granted &&
	    demo->granted + 2 * DEMO_CREDIT_CHUNK < demo->input.records)
		return grant(demo, demo->granted + DEMO_CREDIT_CHUNK);
	return 0;
}

/* Watching. */

static void show(struct demo *demo, const struct petal_queue_counts *in,
		 const struct petal_queue_counts *out)
{
	demo_progress(demo,
		      "%" PRIu64 " of %" PRIu64 " records in, %" PRIu64
		      " results, %" PRIu64 " counted%s%s",
		      in->enqueued, demo->input.records, out->enqueued,
		      out->done, demo->worker_killed ? ", worker killed" : "",
		      demo->primary_killed ? ", primary petal killed"
		      : demo->petal_killed ? ", petal killed"
					   : "");
}

static int stalled(struct demo *demo, uint64_t done, uint64_t *last_done,
		   uint64_t *last_ns)
{
	uint64_t now_ns = petal_clock_now_ns();

	if (done != *last_done) {
		*last_done = done;
		*last_ns = now_ns;
	}
	if (now_ns - *last_ns < STALL_NS)
		return 0;
	return demo_fail(demo,
			 "nothing has moved for a minute, after %" PRIu64
			 " steps",
			 done);
}

static void count(const struct demo *demo, struct petal_queue_counts counts[2])
{
	for (unsigned i = 0; i < 2; i++) {
		petal_queue_counts(&demo->ring.log.queues[i], &counts[i]);
		counts[i].enqueued += demo->before[i].enqueued;
		counts[i].done += demo->before[i].done;
		counts[i].redelivered += demo->before[i].redelivered;
		counts[i].stale += demo->before[i].stale;
	}
}

/*
 * Whether everything has been through both queues. A new primary's tables count
 * from their own beginning, so it is not the numbers that tell.
 */
static bool all_is_done(const struct demo *demo)
{
	uint64_t tail = petal_mpsc_tail(&demo->ring.log.ring);

	if (!demo->source_done ||
	    atomic_load_explicit(&demo->ring.log.marks->dispatched_pos,
				 memory_order_relaxed) < tail)
		return false;
	for (unsigned i = 0; i < 2; i++) {
		struct petal_queue_counts counts;

		petal_queue_counts(&demo->ring.log.queues[i], &counts);
		if (counts.done != counts.enqueued)
			return false;
	}
	return petal_mpsc_tail(&demo->ring.log.ring) == tail;
}

static int watch(struct demo *demo)
{
	uint64_t last_done = 0, last_ns = petal_clock_now_ns(), shown_ns = 0;
	struct petal_queue_counts counts[2];
	const struct petal_queue_counts *in = &counts[0], *out = &counts[1];

	do {
		if (demo_is_interrupted(demo) || poll_children(demo) < 0)
			return -1;
		count(demo, counts);
		if (kill_some(demo, in, out->enqueued) < 0 ||
		    stalled(demo, in->enqueued + in->done + out->done,
			    &last_done, &last_ns) < 0)
			return -1;
		if (petal_clock_now_ns() - shown_ns > PROGRESS_NS) {
			shown_ns = petal_clock_now_ns();
			show(demo, in, out);
		}
		demo_pause(demo, demo->keeper_fd, LOOK_NS);
	} while (!all_is_done(demo));
	demo->ended_ns = petal_clock_now_ns();
	count(demo, counts);
	demo->redelivered = in->redelivered;
	demo->stale = in->stale;
	return 0;
}

/* The end. */

static int wait_end(struct demo *demo)
{
	struct petal_supervisor_event events[8];
	uint64_t end_ns = petal_clock_now_ns() + END_NS;

	petal_supervisor_stop(demo->job_supervisor, END_NS / 2);
	while (petal_supervisor_count(demo->job_supervisor) > 0) {
		if (petal_clock_now_ns() > end_ns)
			return demo_fail(demo, "the workers do not end");
		demo_pause(demo, petal_supervisor_fd(demo->job_supervisor),
			   LOOK_NS);
		petal_supervisor_poll(demo->job_supervisor, events, 8);
	}
	return 0;
}

static int read_census(struct demo *demo)
{
	json_error_t error;

	demo->census = json_load_file(demo->census_path, JSON_REJECT_DUPLICATES,
				      &error);
	if (demo->census == NULL)
		return demo_fail(demo, "the clerk left no census: %s",
				 error.text);
	demo->result_records =
		(uint64_t)json_integer_value(
			json_object_get(demo->census, "results")) +
		(uint64_t)json_integer_value(
			json_object_get(demo->census, "duplicated"));
	return 0;
}

/* The killed petal comes back and catches up, while nothing else happens. */
static int wait_whole(struct demo *demo)
{
	uint64_t begin_ns = petal_clock_now_ns();
	bool whole = false;

	while (!whole) {
		if (demo_is_interrupted(demo) || demo_petals_poll(demo) < 0 ||
		    demo_petals_whole(demo, &whole) < 0)
			return -1;
		if (petal_clock_now_ns() - begin_ns > END_NS)
			return demo_fail(demo, "the killed petal did not catch "
					       "up");
		if (!whole)
			demo_pause(demo, -1, LOOK_NS);
	}
	demo->catch_up_ns = petal_clock_now_ns() - begin_ns;
	return 0;
}

int demo_job_run(struct demo *demo)
{
	struct petal_supervisor_options options = {
		.strategy = PETAL_SUPERVISOR_ONE_FOR_ONE,
		.children_max = 3,
	};
	int err;

	demo->credit_fd = demo->keeper_fd = -1;
	err = petal_supervisor_open(&options, &demo->job_supervisor);
	if (err < 0)
		return demo_fail(demo, "cannot start a supervisor: %s",
				 petal_strerror(err));
	demo->started_ns = petal_clock_now_ns();
	if (start_clerk(demo) < 0 || start_keeper(demo) < 0 ||
	    start_source(demo) < 0)
		return -1;
	if (grant(demo, (demo->input.records + 1) / 2) < 0 || watch(demo) < 0)
		return -1;
	if (wait_end(demo) < 0 || read_census(demo) < 0)
		return -1;
	return wait_whole(demo);
}

void demo_job_close(struct demo *demo)
{
	petal_supervisor_close(demo->job_supervisor);
	demo->job_supervisor = NULL;
	if (demo->credit_fd > 0)
		close(demo->credit_fd);
	if (demo->keeper_fd > 0)
		close(demo->keeper_fd);
	demo->credit_fd = demo->keeper_fd = -1;
}
