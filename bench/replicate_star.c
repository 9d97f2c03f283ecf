/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bare star: what replication costs without a protocol. Nothing is checked
 * but the last record of each batch, nothing is kept, nobody may fail.
 *
 *    source --eventfd--> hub ==fi_writemsg==> left    each: notice, [one
 *    (the bench)          ^  ================> right   O_DIRECT|O_DSYNC write,]
 *      ^-----futex--------+ <==8 B, injected== both    8 B back
 *
 * The happy path: the source fills slots of a shared region and moves
 * published; the hub writes what is new, one write a target, whose notice is
 * the count so far; a target answers the newest notice with that count; the hub
 * stores it and wakes the source when its level has what it wants. All sleep in
 * poll, on the descriptors of their completion queues; or all look, and yield
 * between looks where there are fewer CPUs than processes.
 *
 * What can go wrong: a process ends, which the source notices after its
 * patience; its reason lies in the page.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_rma.h>
#include <sched.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bench/payload.h"
#include "bench/replicate.h"
#include "shm/atomic.h"
#include "shm/clock.h"
#include "shm/error.h"

#define API FI_VERSION(1, 17)
#define TARGETS 2u
#define REGION_BYTES (UINT64_C(8) << 20)
#define SLOTS_MAX 4096u
#define FILE_BYTES (UINT64_C(32) << 20)
#define BLOCK_BYTES UINT64_C(4096)
/* Of what a target looks at; the head of a large record is enough. */
#define CHECK_BYTES UINT64_C(256)
#define WRITE_BYTES (UINT64_C(256) << 10)
#define KEY_DATA 0x5eed
#define COUNT_BITS 48
#define COUNT_MASK ((UINT64_C(1) << COUNT_BITS) - 1)
#define PATIENCE_MS 100

/**
 * Between the four processes. The words of a leg are written while nothing is
 * under way.
 *
 * Ordering:
 *    [STAR]   the source stores published (release), the hub loads it
 *	       (acquire): the slots are filled, and the words of the leg are
 *	       those of this leg. The hub stores answered (release), the source
 *	       loads it (acquire): the slots may be filled again.
 *    [NAP]    whoever goes to sleep says so and looks once more, whoever has
 *	       news tells and looks who sleeps: sequentially consistent both, so
 *	       one of them sees the other.
 *    [READY]  a target stores port, a side stores ready (release); others load
 *	       it (acquire).
 */
struct page {
	alignas(128) struct petal_u64 published;
	alignas(128) struct petal_u32 hub_naps;
	alignas(128) struct petal_u64 wanted; /* by the source; 0: awake */
	struct petal_u32 news;                /* what its futex is */
	alignas(128) struct petal_u64 answered[TARGETS];
	alignas(128) struct petal_u32 ready[TARGETS + 1];
	uint32_t port[TARGETS];
	struct petal_u32 fault;
	/* The leg. */
	alignas(128) uint64_t base;
	uint64_t bytes;
	uint64_t slots;
	uint32_t spin;
	uint32_t disk;
	uint32_t all; /* the level is reached when all have answered */
	uint32_t targets;
};

struct end {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_eq *eq;
	struct fid_cq *cq;
	struct fid_mr *mr;
	struct fid_ep *ep[TARGETS];
	int cq_fd;
};

struct target {
	unsigned index;
	struct end end;
	uint8_t *memory;
	int fd;
	uint64_t file_pos;
	uint64_t answered;
};

static struct page *page;
static uint8_t *region;
static int hub_fd = -1;
static bool running;
static uint64_t source_done;
static struct petal_nest *home;
static unsigned processes;
static struct target targets[TARGETS] = { { .index = 0 }, { .index = 1 } };

/* Both sides of a connection. */

static _Noreturn void give_up(int err)
{
	petal_store(&page->fault, (uint32_t)-err, PETAL_RELAXED);
	_exit(1);
}

static void must(ssize_t err)
{
	if (err < 0)
		give_up((int)err);
}

static int find_provider(struct end *end, const char *port, uint64_t flags)
{
	struct fi_info *hints = fi_allocinfo();
	int err;

	if (!hints)
		return -ENOMEM;
	hints->caps = FI_MSG | FI_RMA;
	hints->ep_attr->type = FI_EP_MSG;
	hints->domain_attr->mr_mode = 0;
	hints->fabric_attr->prov_name = strdup("tcp");
	err = fi_getinfo(API, "127.0.0.1", port, flags, hints, &end->info);
	fi_freeinfo(hints);
	return err;
}

static int open_fabric(struct end *end)
{
	struct fi_eq_attr attr = { .wait_obj = FI_WAIT_FD };
	int err = fi_fabric(end->info->fabric_attr, &end->fabric, NULL);

	return err < 0 ? err : fi_eq_open(end->fabric, &attr, &end->eq, NULL);
}

static int open_domain(struct end *end, struct fi_info *info, void *memory,
		       size_t bytes)
{
	struct fi_cq_attr attr = { .format = FI_CQ_FORMAT_DATA,
				   .wait_obj = FI_WAIT_FD,
				   .size = 1024 };
	int err = fi_domain(end->fabric, info, &end->domain, NULL);

	if (err == 0)
		err = fi_cq_open(end->domain, &attr, &end->cq, NULL);
	if (err == 0)
		err = fi_control(&end->cq->fid, FI_GETWAIT, &end->cq_fd);
	if (err == 0)
		err = fi_mr_reg(end->domain, memory, bytes, FI_REMOTE_WRITE, 0,
				KEY_DATA, 0, &end->mr, NULL);
	return err;
}

static int open_ep(struct end *end, struct fi_info *info, unsigned index)
{
	int err = fi_endpoint(end->domain, info, &end->ep[index], NULL);

	if (err == 0)
		err = fi_ep_bind(end->ep[index], &end->eq->fid, 0);
	if (err == 0)
		err = fi_ep_bind(end->ep[index], &end->cq->fid,
				 FI_TRANSMIT | FI_RECV |
					 FI_SELECTIVE_COMPLETION);
	return err == 0 ? fi_enable(end->ep[index]) : err;
}

static int wait_event(struct end *end, uint32_t wanted,
		      struct fi_eq_cm_entry *entry)
{
	uint32_t event;
	ssize_t got = fi_eq_sread(end->eq, &event, entry, sizeof(*entry),
				  REPLICATE_START_S * 1000, 0);

	if (got < 0)
		return (int)got;
	return event == wanted ? 0 : -ECONNREFUSED;
}

/* Sleeps until there may be something; the caller has looked before. */
static void nap(const struct end *end, int other_fd)
{
	struct fid *fid = &end->cq->fid;
	struct pollfd fds[2] = { { .fd = end->cq_fd, .events = POLLIN },
				 { .fd = other_fd, .events = POLLIN } };
	uint64_t count;

	if (fi_trywait(end->fabric, &fid, 1) != FI_SUCCESS)
		return;
	if (poll(fds, 2, PATIENCE_MS) > 0 && fds[1].revents != 0 &&
	    read(other_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		give_up(-errno);
}

/* The newest notice, or 0 if there is none. */
static uint64_t read_notice(struct end *end)
{
	struct fi_cq_data_entry entry;
	ssize_t got = fi_cq_read(end->cq, &entry, 1);

	if (got == -FI_EAGAIN)
		return 0;
	must(got);
	return (entry.flags & FI_REMOTE_CQ_DATA) != 0 ? entry.data : 0;
}

/* A target. */

static void keep(struct target *target, uint64_t count)
{
	uint64_t from = target->answered > page->base ? target->answered
						      : page->base;
	uint64_t bytes = (count - from) * page->bytes;

	bytes = (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	if (bytes > REGION_BYTES)
		bytes = REGION_BYTES;
	if (target->file_pos + bytes > FILE_BYTES)
		target->file_pos = 0;
	if (pwrite(target->fd, target->memory, bytes,
		   (off_t)target->file_pos) != (ssize_t)bytes)
		give_up(errno ? -errno : -EIO);
	target->file_pos += bytes;
}

static void answer(struct target *target, uint64_t count)
{
	uint64_t slot = (count - 1 - page->base) % page->slots;
	uint64_t word = (uint64_t)target->index << COUNT_BITS | count;
	uint64_t length = page->bytes < CHECK_BYTES ? page->bytes : CHECK_BYTES;
	ssize_t err;

	must(petal_payload_check(target->memory + slot * page->bytes, length,
				 count));
	if (page->disk)
		keep(target, count);
	target->answered = count;
	do {
		err = fi_inject_writedata(target->end.ep[0], &word,
					  sizeof(word), word, 0,
					  target->index * sizeof(word),
					  KEY_DATA);
		if (err == -FI_EAGAIN)
			read_notice(&target->end);
	} while (err == -FI_EAGAIN);
	must(err);
}

static int accept_hub(struct target *target)
{
	struct end *end = &target->end;
	struct fi_eq_cm_entry entry;
	struct sockaddr_in name;
	size_t size = sizeof(name);
	struct fid_pep *pep;
	int err = find_provider(end, "0", FI_SOURCE);

	if (err == 0)
		err = open_fabric(end);
	if (err == 0)
		err = fi_passive_ep(end->fabric, end->info, &pep, NULL);
	if (err == 0)
		err = fi_pep_bind(pep, &end->eq->fid, 0);
	if (err == 0)
		err = fi_listen(pep);
	if (err == 0)
		err = fi_getname(&pep->fid, &name, &size);
	if (err < 0)
		return err;
	page->port[target->index] = ntohs(name.sin_port);
	petal_store(&page->ready[target->index], 1, PETAL_RELEASE(READY));
	err = wait_event(end, FI_CONNREQ, &entry);
	if (err == 0)
		err = open_domain(end, entry.info, target->memory,
				  REGION_BYTES);
	if (err == 0)
		err = open_ep(end, entry.info, 0);
	if (err == 0)
		err = fi_accept(end->ep[0], NULL, 0);
	return err == 0 ? wait_event(end, FI_CONNECTED, &entry) : err;
}

static void serve_target(void *arg)
{
	struct target *target = arg;

	must(accept_hub(target));
	while (true) {
		uint64_t newest = 0, count;

		while ((count = read_notice(&target->end)) != 0)
			newest = count;
		if (newest > target->answered)
			answer(target, newest);
		else if (page->spin)
			sched_yield();
		else
			nap(&target->end, -1);
	}
}

/* The hub. */

static void *map_shared(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

static uint64_t reached(void)
{
	uint64_t a = petal_load(&page->answered[0], PETAL_ACQUIRE(STAR));
	uint64_t b = petal_load(&page->answered[1], PETAL_ACQUIRE(STAR));

	if (page->targets == 1)
		return a;
	return page->all ? (a < b ? a : b) : (a > b ? a : b);
}

static bool take_answers(struct end *end)
{
	uint64_t word, wanted;
	bool any = false;

	while ((word = read_notice(end)) != 0) {
		petal_store(&page->answered[word >> COUNT_BITS],
			    word & COUNT_MASK, PETAL_SEQ_CST(NAP));
		any = true;
	}
	wanted = any ? petal_load(&page->wanted, PETAL_SEQ_CST(NAP)) : 0;
	if (wanted != 0 && reached() >= wanted) {
		petal_store(&page->wanted, 0, PETAL_RELAXED);
		petal_add(&page->news, 1, PETAL_RELAXED);
		syscall(SYS_futex, &page->news, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
	return any;
}

/* What lies in one piece, and is one write as ours are. */
static uint64_t run_of(uint64_t from, uint64_t to)
{
	uint64_t left = page->slots - (from - page->base) % page->slots;
	uint64_t most = WRITE_BYTES / page->bytes;
	uint64_t run = to - from < left ? to - from : left;

	most = most ? most : 1;
	return run < most ? run : most;
}

static void post_write(struct end *end, unsigned index, uint64_t from,
		       uint64_t run)
{
	uint64_t offset = (from - page->base) % page->slots * page->bytes;
	struct iovec source = { region + offset, run * page->bytes };
	struct fi_rma_iov there = { offset, run * page->bytes, KEY_DATA };
	struct fi_msg_rma message = {
		.msg_iov = &source,
		.iov_count = 1,
		.rma_iov = &there,
		.rma_iov_count = 1,
		.data = from + run,
	};
	ssize_t err;

	while ((err = fi_writemsg(end->ep[index], &message,
				  FI_REMOTE_CQ_DATA)) == -FI_EAGAIN)
		take_answers(end);
	must(err);
}

static bool post_new(struct end *end, uint64_t *posted)
{
	uint64_t published = petal_load(&page->published, PETAL_ACQUIRE(STAR));
	bool any = *posted < published;

	while (*posted < published) {
		uint64_t run = run_of(*posted, published);

		for (unsigned i = 0; i < page->targets; i++)
			post_write(end, i, *posted, run);
		*posted += run;
	}
	return any;
}

static int connect_target(struct end *end, unsigned index)
{
	struct fi_eq_cm_entry entry;
	char port[16];
	int err;

	while (!petal_load(&page->ready[index], PETAL_ACQUIRE(READY)))
		poll(NULL, 0, 1);
	snprintf(port, sizeof(port), "%u", page->port[index]);
	err = find_provider(end, port, 0);
	if (err == 0 && !end->fabric)
		err = open_fabric(end);
	if (err == 0 && !end->domain)
		err = open_domain(end, end->info,
				  map_shared(TARGETS * sizeof(uint64_t)),
				  TARGETS * sizeof(uint64_t));
	if (err == 0)
		err = open_ep(end, end->info, index);
	if (err == 0)
		err = fi_connect(end->ep[index], end->info->dest_addr, NULL, 0);
	return err == 0 ? wait_event(end, FI_CONNECTED, &entry) : err;
}

static void serve_hub(void *arg)
{
	struct end *end = arg;
	uint64_t posted = 0;

	for (unsigned i = 0; i < TARGETS; i++)
		must(connect_target(end, i));
	petal_store(&page->ready[TARGETS], 1, PETAL_RELEASE(READY));
	while (true) {
		bool busy = post_new(end, &posted);

		busy |= take_answers(end);
		if (busy)
			continue;
		if (page->spin) {
			sched_yield();
			continue;
		}
		petal_store(&page->hub_naps, 1, PETAL_SEQ_CST(NAP));
		if (petal_load(&page->published, PETAL_SEQ_CST(NAP)) == posted)
			nap(end, hub_fd);
		petal_store(&page->hub_naps, 0, PETAL_RELAXED);
	}
}

/* The source, which is the bench. */

static int check(void)
{
	uint32_t fault = petal_load(&page->fault, PETAL_RELAXED);

	if (petal_nest_stopped())
		return -EINTR;
	if (fault)
		return -(int)fault;
	return petal_nest_check(home, processes, TARGETS + 1);
}

static int open_file(struct petal_nest *nest, struct target *target)
{
	static alignas(4096) uint8_t zeros[1 << 20];
	char name[32], path[PETAL_NEST_PATH];

	snprintf(name, sizeof(name), "star.%u", target->index);
	petal_nest_path(nest, name, path);
	target->fd = open(
		path, O_RDWR | O_CREAT | O_CLOEXEC | O_DIRECT | O_DSYNC, 0600);
	if (target->fd < 0)
		return -errno;
	for (uint64_t at = 0; at < FILE_BYTES; at += sizeof(zeros))
		if (pwrite(target->fd, zeros, sizeof(zeros), (off_t)at) !=
		    (ssize_t)sizeof(zeros))
			return errno ? -errno : -EIO;
	return 0;
}

static int start(struct petal_nest *nest)
{
	static struct end hub;
	uint64_t end_ns = petal_clock_now_ns() + PETAL_S(REPLICATE_START_S);
	int err = 0;

	page = map_shared(sizeof(*page));
	region = map_shared(REGION_BYTES);
	hub_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!page || !region || hub_fd < 0)
		return -ENOMEM;
	page->targets = TARGETS;
	page->bytes = page->slots = 1;
	home = nest;
	processes = nest->count;
	for (unsigned i = 0; i < TARGETS && err == 0; i++) {
		targets[i].memory = map_shared(REGION_BYTES);
		if (!targets[i].memory)
			return -ENOMEM;
		err = open_file(nest, &targets[i]);
		if (err == 0)
			err = petal_nest_fork(nest, serve_target, &targets[i]);
	}
	if (err == 0)
		err = petal_nest_fork(nest, serve_hub, &hub);
	while (err == 0 &&
	       !petal_load(&page->ready[TARGETS], PETAL_ACQUIRE(READY))) {
		err = check();
		if (petal_clock_now_ns() > end_ns)
			err = -ETIMEDOUT;
		poll(NULL, 0, 1);
	}
	return err;
}

static int star_open(struct replicate_system *system, struct petal_nest *nest)
{
	uint32_t api = fi_version();
	int err = running ? 0 : start(nest);

	running = err == 0;
	snprintf(system->version, sizeof(system->version),
		 "libfabric %u.%u, tcp", FI_MAJOR(api), FI_MINOR(api));
	if (err < 0)
		snprintf(system->reason, sizeof(system->reason),
			 "the star did not form: %s", petal_strerror(err));
	return err;
}

static int star_begin(struct replicate_system *system,
		      const struct replicate_leg *leg)
{
	page->base = petal_load(&page->published, PETAL_RELAXED);
	page->bytes = leg->bytes;
	page->slots = REGION_BYTES / leg->bytes;
	if (page->slots > SLOTS_MAX)
		page->slots = SLOTS_MAX;
	page->spin = system->spin;
	page->disk = leg->level >= REPLICATE_DISK2;
	page->all = leg->level == REPLICATE_MEM3 ||
		    leg->level == REPLICATE_DISK3;
	page->targets = system == &replicate_star_single ? 1 : TARGETS;
	source_done = page->base;
	return leg->window > page->slots ? -EMSGSIZE : 0;
}

/* A slot is free when all have it, and the first has answered its source. */
static int wait_slowest(uint64_t count)
{
	uint64_t end_ns = 0;
	int err = 0;

	for (unsigned i = 0; i < page->targets; i++)
		while (err == 0 && petal_load(&page->answered[i],
					      PETAL_ACQUIRE(STAR)) < count) {
			if (end_ns == 0)
				end_ns = petal_clock_now_ns() +
					 PETAL_S(REPLICATE_ANSWER_S);
			sched_yield();
			err = petal_clock_now_ns() > end_ns ? -ETIMEDOUT
							    : check();
		}
	return err;
}

static int star_post(struct replicate_system *system, uint64_t sequence)
{
	uint64_t count = petal_load(&page->published, PETAL_RELAXED);
	uint64_t slot = (count - page->base) % page->slots;
	uint64_t one = 1;
	int err = 0;

	(void)sequence;
	(void)system;
	if (count - page->base >= page->slots)
		err = wait_slowest(count + 1 - page->slots);
	if (err < 0)
		return err;
	petal_payload_fill(region + slot * page->bytes, page->bytes, count + 1);
	petal_store(&page->published, count + 1, PETAL_SEQ_CST(NAP));
	if (petal_load(&page->hub_naps, PETAL_SEQ_CST(NAP)) &&
	    write(hub_fd, &one, sizeof(one)) < 0)
		return -errno;
	return 0;
}

static void source_nap(uint64_t wanted)
{
	struct timespec limit = { .tv_nsec = PATIENCE_MS * 1000000 };
	uint32_t seen = petal_load(&page->news, PETAL_RELAXED);

	petal_store(&page->wanted, wanted, PETAL_SEQ_CST(NAP));
	petal_fence(PETAL_SEQ_CST(NAP));
	if (reached() < wanted)
		syscall(SYS_futex, &page->news, FUTEX_WAIT, seen, &limit, NULL,
			0);
	petal_store(&page->wanted, 0, PETAL_RELAXED);
}

static int star_await(struct replicate_system *system, unsigned least)
{
	uint64_t end_ns = 0, before = source_done;

	(void)system;
	while (reached() < before + least) {
		uint64_t now_ns = petal_clock_now_ns();
		int err = now_ns > end_ns && end_ns ? check() : 0;

		if (err < 0)
			return err;
		if (end_ns == 0 || now_ns > end_ns)
			end_ns = now_ns + PETAL_MS(PATIENCE_MS);
		if (page->spin)
			sched_yield();
		else
			source_nap(before + least);
	}
	source_done = reached();
	return (int)(source_done - before);
}

static int star_end(struct replicate_system *system)
{
	int err = wait_slowest(petal_load(&page->published, PETAL_RELAXED));

	(void)system;
	page->spin = 0;
	return err;
}

static void star_close(struct replicate_system *system)
{
	(void)system;
	if (hub_fd >= 0)
		close(hub_fd);
	hub_fd = -1;
}

#define ALL_LEVELS ((1u << REPLICATE_LEVELS) - 1)

struct replicate_system replicate_star_sleeping = {
	.impl = "bare-star",
	.levels = ALL_LEVELS,
	.large = true,
	.floor = true,
	.remark = "two writes, two answers; all sleep in poll",
	.open = star_open,
	.begin = star_begin,
	.post = star_post,
	.await = star_await,
	.end = star_end,
	.close = star_close,
};

struct replicate_system replicate_star_spinning = {
	.impl = "bare-star",
	.levels = ALL_LEVELS,
	.spin = true,
	.floor = true,
	.remark = "the same; all look, and yield between looks",
	.open = star_open,
	.begin = star_begin,
	.post = star_post,
	.await = star_await,
	.end = star_end,
	.close = star_close,
};

struct replicate_system replicate_star_single = {
	.impl = "bare-write",
	.levels = 1u << REPLICATE_MEM2,
	.large = true,
	.floor = true,
	.remark = "to one target: the provider's bandwidth",
	.open = star_open,
	.begin = star_begin,
	.post = star_post,
	.await = star_await,
	.end = star_end,
	.close = star_close,
};
