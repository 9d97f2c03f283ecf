/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A durable ring from end to end: every call of fabric/node.h and of
 * fabric/ring.h, in the order in which a program meets them.
 *
 *    03-durable DIR        DIR is [petal] dir of a node that runs
 *
 *    main --> queue "orders" --> worker --> queue "parcels" --> clerk
 *
 * It makes the ring "example-03" and deletes it at the end. Nodes that were
 * started a moment ago are given time to find each other.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "actors/worker.h"
#include "fabric/node.h"
#include "fabric/ring.h"
#include "shm/clock.h"
#include "shm/error.h"

#define RING "example-03"
#define RING_BYTES (UINT64_C(1) << 20)
#define WAIT_NS PETAL_S(20)
#define ORDERS 32u

struct shop {
	struct petal_node node;
	struct petal_ring ring;
	uint32_t orders, parcels;
	uint64_t taken; /* messages of "orders" that were put */
};

/* One sentence, with what the node itself had to say. */
static int fail(const struct shop *shop, const char *what, int err)
{
	const char *why = shop->node.error;

	fprintf(stderr, "03-durable: %s: %s%s%s\n", what, petal_strerror(err),
		why[0] == '\0' ? "" : ": ", why);
	return err;
}

static uint64_t soon(void)
{
	return petal_clock_now_ns() + WAIT_NS;
}

/* The node. */

static int attach(struct shop *shop, const char *dir)
{
	json_t *status;
	int err = petal_node_attach(dir, &shop->node);

	if (err < 0)
		return fail(shop, dir, err);
	err = petal_node_status(&shop->node, &status);
	if (err < 0)
		return fail(shop, "status", err);
	printf("attach   node %" PRIu32 " '%s', %zu nodes, provider %s\n",
	       shop->node.id, shop->node.name,
	       json_array_size(json_object_get(status, "nodes")),
	       json_string_value(json_object_get(status, "provider")));
	json_decref(status);
	return 0;
}

/* What has no call of its own goes by its name: see petald(8). */
static int ask_nonsense(struct shop *shop)
{
	json_t *request = json_pack("{s:s}", "op", "sing");
	json_t *answer;
	int err = petal_node_request(&shop->node, request, NULL, 0, &answer);

	json_decref(request);
	if (err == 0)
		json_decref(answer);
	if (err != -EINVAL)
		return fail(shop, "a request that makes no sense", -EPROTO);
	printf("request  refused: %s (%s)\n", shop->node.error,
	       petal_error_name(err));
	return 0;
}

/*
 * Three nodes that have just been started need a moment to meet, and the
 * registry one to elect a leader: both are worth another try.
 */
static int create(struct shop *shop)
{
	static const struct petal_node_queue queues[] = {
		{ "orders", 256, PETAL_S(5) },
		{ "parcels", 256, PETAL_S(5) },
	};
	uint64_t end_ns = soon();
	int err;

	err = petal_ring_delete(&shop->node, RING); /* of a run cut short */
	if (err < 0 && err != -ENOENT)
		return fail(shop, "cannot delete the old ring", err);
	do {
		err = petal_ring_create(&shop->node, RING, RING_BYTES, queues,
					2);
		if (err != -PETAL_ENOQUORUM && err != -PETAL_EUNKNOWN)
			break;
		poll(NULL, 0, 100);
	} while (petal_clock_now_ns() < end_ns);
	/* -EEXIST: an earlier try whose outcome was unknown did it. */
	if (err < 0 && err != -EEXIST)
		return fail(shop, "cannot make the ring", err);
	printf("create   ring '%s', %" PRIu64 " KiB on each of three nodes\n",
	       RING, RING_BYTES >> 10);
	return 0;
}

static int open_ring(struct shop *shop)
{
	int orders, parcels;
	int err = petal_ring_open(&shop->node, RING, &shop->ring);

	if (err < 0)
		return fail(shop, "cannot open the ring", err);
	orders = petal_ring_queue(&shop->ring, "orders");
	parcels = petal_ring_queue(&shop->ring, "parcels");
	if (orders < 0 || parcels < 0)
		return fail(shop, "the ring lacks a queue", -ENOENT);
	shop->orders = (uint32_t)orders;
	shop->parcels = (uint32_t)parcels;
	printf("open     as producer %" PRIu32 ", records of up to %" PRIu32
	       " bytes\n",
	       shop->ring.owner, petal_ring_length_max(&shop->ring));
	return 0;
}

/* Putting. */

/* Blocking: back when it survives what the level promises. */
static int send_at_every_level(struct shop *shop)
{
	uint64_t lsn, begin_ns;
	char text[32];
	int err;

	for (unsigned i = 0; i < PETAL_LEVEL_COUNT; i++) {
		const char *name = petal_level_name((enum petal_level)i);
		int length = snprintf(text, sizeof(text), "order at %s", name);

		begin_ns = petal_clock_now_ns();
		err = petal_ring_send(&shop->ring, shop->orders, text,
				      (uint32_t)length, (enum petal_level)i,
				      soon(), &lsn);
		if (err < 0)
			return fail(shop, "cannot send", err);
		shop->taken++;
		printf("send     %-5s  lsn %-3" PRIu64 " %8" PRIu64 " us\n",
		       name, lsn, (petal_clock_now_ns() - begin_ns) / 1000);
	}
	return 0;
}

/*
 * Sleep until the ticket is there or the node is gone. The node's socket says
 * nothing unasked; that it becomes readable means that it has ended.
 */
static int wait_by_epoll(struct shop *shop, int epoll_fd,
			 const struct petal_ring_ticket *ticket,
			 enum petal_level level, uint64_t *ret_lsn)
{
	struct epoll_event event;
	uint64_t end_ns = soon(), count;
	int err;

	petal_ring_signal(&shop->ring, ticket, level);
	do {
		if (epoll_wait(epoll_fd, &event, 1, 100) == 1) {
			if (event.data.fd == shop->node.fd)
				return -PETAL_EUNKNOWN;
			/* Empty it, so that it wakes us for the next one. */
			if (read(event.data.fd, &count, sizeof(count)) < 0 &&
			    errno != EAGAIN)
				return -errno;
		}
		/* Deadline 0 looks without waiting. */
		err = petal_ring_wait(&shop->ring, ticket, level, 0, ret_lsn);
	} while (err == -ETIMEDOUT && petal_clock_now_ns() < end_ns);
	return err;
}

static int open_epoll(const struct shop *shop)
{
	struct epoll_event ring = {
		.events = EPOLLIN,
		.data.fd = petal_ring_completion_fd(&shop->ring),
	};
	struct epoll_event node = { .events = EPOLLIN,
				    .data.fd = shop->node.fd };
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

	if (epoll_fd >= 0 &&
	    (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ring.data.fd, &ring) < 0 ||
	     epoll_ctl(epoll_fd, EPOLL_CTL_ADD, node.data.fd, &node) < 0)) {
		close(epoll_fd);
		epoll_fd = -1;
	}
	return epoll_fd < 0 ? -errno : epoll_fd;
}

/* Filled where it will be read: no copy. Waits for room, if there is none. */
static int publish_in_place(struct shop *shop, uint32_t order,
			    struct petal_ring_ticket *ret_ticket)
{
	struct petal_ring_claim claim;
	int err = petal_ring_claim(&shop->ring, shop->orders, sizeof(order),
				   soon(), &claim);

	if (err < 0)
		return err;
	memcpy(claim.payload, &order, sizeof(order));
	return petal_ring_commit(&shop->ring, &claim, ret_ticket);
}

/*
 * Many at a time. An acknowledgement covers all that came before it, so the
 * last ticket is enough.
 */
static int publish_many(struct shop *shop)
{
	struct petal_ring_ticket ticket = { 0 };
	uint64_t lsn;
	int epoll_fd, err = 0;

	for (uint32_t i = 0; err == 0 && i < ORDERS; i++)
		err = publish_in_place(shop, i, &ticket);
	if (err < 0)
		return fail(shop, "cannot publish", err);
	shop->taken += ORDERS;
	epoll_fd = open_epoll(shop);
	if (epoll_fd < 0)
		return fail(shop, "epoll", epoll_fd);
	err = wait_by_epoll(shop, epoll_fd, &ticket, PETAL_LEVEL_MEM2, &lsn);
	close(epoll_fd);
	if (err < 0)
		return fail(shop, "cannot wait", err);
	printf("publish  %u records, the last has lsn %" PRIu64 "\n", ORDERS,
	       lsn);
	return 0;
}

/*
 * After -ETIMEDOUT or -PETAL_EUNKNOWN, and at any other time: what became of
 * the record that had this sequence number?
 */
static int ask_outcome(struct shop *shop)
{
	uint64_t lsn = 0;
	int err = petal_ring_outcome(&shop->ring, shop->ring.sequence, &lsn);

	if (err != 0)
		return fail(shop, "the outcome of a record", err);
	if (petal_ring_outcome(&shop->ring, shop->ring.sequence + 1, &lsn) != 1)
		return fail(shop, "the outcome of the next record", -EPROTO);
	printf("outcome  sequence %" PRIu64 " has lsn %" PRIu64
	       ", the next is not decided\n",
	       shop->ring.sequence, lsn);
	return 0;
}

/* Pulling. */

/* What was given back comes again; whoever gave it back has lost it. */
static int give_back(struct shop *shop)
{
	struct petal_message first, again;
	int err = petal_ring_take(&shop->ring, shop->orders, soon(), &first);

	if (err == 0)
		err = petal_ring_release(&shop->ring, &first);
	if (err == 0)
		err = petal_ring_take(&shop->ring, shop->orders, soon(),
				      &again);
	if (err != 0)
		return fail(shop, "cannot take", err);
	err = petal_ring_forward(&shop->ring, &first, 1, NULL, 0,
				 PETAL_LEVEL_MEM2, soon());
	if (err != -ESTALE)
		return fail(shop, "a lease that was given back", -EPROTO);
	printf("release  lsn %" PRIu64 " came again, handed out %" PRIu32
	       " time(s) before; the old lease: %s\n",
	       again.lsn, again.redelivered, petal_strerror(err));
	return petal_ring_release(&shop->ring, &again);
}

/* Acknowledge one message and put what comes of it: one record, or nothing. */
static int forward_one(struct shop *shop)
{
	struct petal_message order;
	struct petal_output parcel = { .queue = shop->parcels };
	int err = petal_ring_take(&shop->ring, shop->orders, soon(), &order);

	if (err != 0)
		return fail(shop, "cannot take", err);
	/* Its bytes lie in the ring, and are copied only into the new record. */
	parcel.bytes = order.bytes;
	parcel.length = order.length;
	err = petal_ring_forward(&shop->ring, &order, 1, &parcel, 1,
				 PETAL_LEVEL_MEM2, soon());
	if (err < 0)
		return fail(shop, "cannot forward", err);
	printf("forward  lsn %" PRIu64 " from 'orders' to 'parcels'\n",
	       order.lsn);
	return 0;
}

static int behave(void *state, const struct petal_message *message,
		  struct petal_outputs *outputs)
{
	const struct shop *shop = state;

	return petal_outputs_pass(outputs, shop->parcels, message->bytes,
				  message->length);
}

/* The rest is done by an actor, to which the ring is a port. */
static int work(struct shop *shop)
{
	struct petal_worker_options options = {
		.port = &petal_ring_port,
		.port_self = &shop->ring,
		.behave = behave,
		.state = shop,
		.queue = shop->orders,
		.level = PETAL_LEVEL_MEM2,
		.batch = 8,
		.batch_ns = PETAL_MS(1),
		.forward_timeout_ns = WAIT_NS,
		.outputs_max = 1,
	};
	static struct petal_worker worker;
	int err = petal_worker_init(&worker, &options);

	while (err == 0 && worker.counts.done + 1 < shop->taken)
		err = petal_worker_turn(&worker, soon());
	if (err != 0)
		return fail(shop, "the worker", err);
	printf("worker   %" PRIu64 " done in %" PRIu64 " acknowledgements\n",
	       worker.counts.done, worker.counts.batches);
	return 0;
}

/* A clerk is the only taker of its queue; nobody else gets anything. */
static int keep_out(struct shop *shop)
{
	struct petal_ring other; /* a second opening: another producer */
	struct petal_message message;
	int own, take, err = petal_ring_own(&shop->ring, shop->parcels);

	if (err == 0)
		err = petal_ring_open(&shop->node, RING, &other);
	if (err < 0)
		return fail(shop, "cannot own a queue", err);
	own = petal_ring_own(&other, shop->parcels);
	take = petal_ring_take(&other, shop->parcels, 0, &message);
	petal_ring_close(&other);
	if (own != -EBUSY || take != -EPERM)
		return fail(shop, "a queue that has an owner", -EPROTO);
	printf("own      'parcels' is ours; to others: %s, %s\n",
	       petal_strerror(own), petal_strerror(take));
	return 0;
}

static int clear(struct shop *shop)
{
	struct petal_message batch[8];
	unsigned count = 0;
	uint64_t done = 0;
	int err = 0;

	while (err == 0 && done < shop->taken) {
		/* Wait for the first, take what else is there. */
		err = petal_ring_take(&shop->ring, shop->parcels,
				      count == 0 ? soon() : 0, &batch[count]);
		if (err == 0 && ++count < 8)
			continue;
		if (err < 0 || count == 0)
			break;
		err = petal_ring_forward(&shop->ring, batch, count, NULL, 0,
					 PETAL_LEVEL_MEM2, soon());
		done += count;
		count = 0;
	}
	if (err != 0)
		return fail(shop, "the clerk", err);
	printf("clerk    %" PRIu64 " parcels acknowledged\n", done);
	return 0;
}

static int drain(struct shop *shop)
{
	int err = petal_ring_drain(&shop->ring, shop->orders, soon());

	if (err == 0)
		err = petal_ring_drain(&shop->ring, shop->parcels, soon());
	if (err < 0)
		return fail(shop, "cannot drain", err);
	printf("drain    both queues are empty\n");
	return 0;
}

/* The end. */

static int list(struct shop *shop)
{
	json_t *answer, *ring, *member;
	size_t i, j;
	int err = petal_ring_list(&shop->node, &answer);

	if (err < 0)
		return fail(shop, "cannot list", err);
	json_array_foreach (json_object_get(answer, "rings"), i, ring) {
		printf("list     %s:",
		       json_string_value(json_object_get(ring, "name")));
		json_array_foreach (json_object_get(ring, "members"), j, member)
			printf(" node %" JSON_INTEGER_FORMAT " %s;",
			       json_integer_value(
				       json_object_get(member, "node")),
			       json_string_value(
				       json_object_get(member, "state")));
		putchar('\n');
	}
	json_decref(answer);
	return 0;
}

static int delete_ring(struct shop *shop)
{
	int err = petal_ring_delete(&shop->node, RING);

	if (err != -EBUSY)
		return fail(shop, "deleting an open ring", -EPROTO);
	printf("delete   refused while it is open: %s\n", shop->node.error);
	petal_ring_close(&shop->ring);
	err = petal_ring_delete(&shop->node, RING);
	if (err < 0)
		return fail(shop, "cannot delete the ring", err);
	err = petal_ring_open(&shop->node, RING, &shop->ring);
	if (err != -ENOENT)
		return fail(shop, "a ring that was deleted", -EPROTO);
	printf("delete   done: %s\n", shop->node.error);
	return 0;
}

int main(int argc, char **argv)
{
	static int (*const steps[])(struct shop *) = {
		ask_nonsense, create,      open_ring, send_at_every_level,
		publish_many, ask_outcome, give_back, forward_one,
		keep_out,     work,        clear,     drain,
		list,         delete_ring,
	};
	static struct shop shop;
	int err;

	if (argc != 2) {
		fputs("Usage: 03-durable DIR\n", stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	err = attach(&shop, argv[1]);
	for (unsigned i = 0; err == 0 && i < sizeof(steps) / sizeof(steps[0]);
	     i++)
		err = steps[i](&shop);
	/* Whatever is still open is given back when the process ends. */
	if (err == 0)
		petal_node_detach(&shop.node);
	return err == 0 ? 0 : 1;
}
