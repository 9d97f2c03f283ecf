/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that lives in epoll, as most do, and has a ring among its other fds.
 * The clients write into the ring; while the server is awake that costs them no
 * system call, and when it sleeps they wake it by its eventfd.
 *
 *    cc 05-epoll.c $(pkg-config --cflags --libs petalith) && ./a.out
 *
 * Prints "3 clients, 300000 requests, N wake-ups" and exits 0.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rings/doorbell.h"
#include "rings/mpsc.h"
#include "shm/barrier.h"
#include "shm/clock.h"
#include "shm/error.h"
#include "shm/segment.h"

#define CLIENTS 3u
#define REQUESTS 100000u
#define DATA_BYTES UINT64_C(65536)
#define PATIENCE_S 20

static const struct petal_mpsc_geometry geometry = {
	.data_bytes = DATA_BYTES,
	.owners = 1 + CLIENTS, /* the server is number 0 */
};

struct server {
	struct petal_doorbell *bell; /* rung for the server */
	struct petal_doorbell *room; /* rung for clients: there is room again */
	struct petal_mpsc ring;
	uint64_t pos;
	int epoll, event, timer;
	unsigned requests, wake_ups;
};

struct request {
	uint32_t client;
	uint32_t number;
};

static int attach(const struct petal_segment *segment, uint32_t owner,
		  struct server *server)
{
	uint8_t *body = petal_segment_body(segment);
	uint64_t header_bytes = petal_mpsc_bytes(&geometry);

	server->bell = (void *)body;
	server->room = (void *)(body + 64);
	return petal_mpsc_attach(body + 128, header_bytes,
				 body + 128 + header_bytes, DATA_BYTES, owner,
				 &server->ring);
}

/* ---- a client ---- */

static int request_send(struct server *server, struct request request)
{
	struct petal_mpsc_claim claim;
	int err;

	while ((err = petal_mpsc_claim(&server->ring, sizeof(request),
				       &claim)) == -EAGAIN) {
		uint32_t seen = petal_doorbell_arm(server->room);

		err = petal_mpsc_claim(&server->ring, sizeof(request), &claim);
		if (err != -EAGAIN)
			break;
		if (petal_doorbell_wait(server->room, seen,
					petal_clock_now_ns() +
						PETAL_S(PATIENCE_S)))
			return -ETIMEDOUT;
	}
	if (err)
		return err;
	*(struct request *)(void *)(claim.record + 1) = request;
	err = petal_mpsc_publish(&server->ring, &claim);
	petal_doorbell_ring_fd(server->bell, server->event);
	return err;
}

static int run_client(const struct petal_segment *segment, int event,
		      uint32_t client)
{
	struct server server = { .event = event };
	int err = attach(segment, 1 + client, &server);

	for (uint32_t i = 0; !err && i < REQUESTS; i++)
		err = request_send(&server, (struct request){ client, i });
	return err;
}

/* ---- the server ---- */

/* All that is there now. 0, or what is wrong. */
static int requests_take(struct server *server)
{
	static uint32_t next[CLIENTS];
	struct petal_mpsc_view view;
	int outcome;

	while ((outcome = petal_mpsc_peek(&server->ring, server->pos, &view)) ==
	       0) {
		const struct request *request = (const void *)(view.record + 1);

		/* Each client's requests come in its own order. */
		if (view.type != PETAL_RECORD_TYPE_PADDING) {
			if (request->client >= CLIENTS ||
			    request->number != next[request->client]++)
				return -PETAL_ECORRUPT;
			server->requests++;
		}
		server->pos = view.end;
		petal_mpsc_release(&server->ring, server->pos);
	}
	petal_doorbell_ring(server->room, PETAL_DOORBELL_ALL);
	return outcome < 0 ? outcome : 0;
}

static int watch(const struct server *server, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	return epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

/* Arm, look once more, sleep: the ring's turn to be one fd among others. */
static int sleep_in_epoll(struct server *server)
{
	struct epoll_event event;
	struct petal_mpsc_view view;
	eventfd_t count;
	int limit_ms = petal_doorbell_arm_fd(server->bell);
	int events;

	if (petal_mpsc_peek(&server->ring, server->pos, &view) == 0)
		return 0;
	events = epoll_wait(server->epoll, &event, 1, limit_ms);
	if (events == 0)
		return 0; /* A nap: look again, and then sleep for long. */
	petal_doorbell_disarm(server->bell);
	if (events == 1 && event.data.fd == server->timer)
		return -ETIMEDOUT;
	if (events == 1)
		eventfd_read(server->event, &count);
	server->wake_ups++;
	return 0;
}

static int run_server(struct server *server)
{
	const struct itimerspec patience = { .it_value.tv_sec = PATIENCE_S };
	int err = 0;

	server->epoll = epoll_create1(EPOLL_CLOEXEC);
	server->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (server->epoll < 0 || server->timer < 0 ||
	    timerfd_settime(server->timer, 0, &patience, NULL))
		return -errno;
	err = watch(server, server->event);
	if (!err)
		err = watch(server, server->timer);
	while (!err && server->requests < CLIENTS * REQUESTS) {
		err = requests_take(server);
		if (!err && server->requests < CLIENTS * REQUESTS)
			err = sleep_in_epoll(server);
	}
	close(server->timer);
	close(server->epoll);
	return err;
}

static int run(const struct petal_segment *segment)
{
	struct server server = { .event = eventfd(0, EFD_NONBLOCK) };
	uint8_t *header = (uint8_t *)petal_segment_body(segment) + 128;
	int err = petal_mpsc_format(header, &geometry);
	int status;

	if (!err)
		err = attach(segment, 0, &server);
	for (uint32_t i = 0; !err && i < CLIENTS; i++) {
		pid_t child = fork();

		if (child < 0)
			return -errno;
		/* The eventfd came along; a stranger gets it by SCM_RIGHTS. */
		if (child == 0)
			exit(run_client(segment, server.event, i) != 0);
	}
	if (!err)
		err = run_server(&server);
	for (uint32_t i = 0; i < CLIENTS; i++)
		if (wait(&status) > 0 && status != 0 && !err)
			err = -ECHILD;
	if (!err)
		printf("%u clients, %u requests, %u wake-ups\n", CLIENTS,
		       server.requests, server.wake_ups);
	return err;
}

int main(void)
{
	const struct petal_segment_options options = {
		.name = "05-epoll",
		.body_bytes = 128 + petal_mpsc_bytes(&geometry) + DATA_BYTES,
	};
	struct petal_segment segment;
	int err;

	/* From here on a ring costs nothing while its sleeper is awake. */
	petal_barrier_enroll();
	err = petal_segment_open(&options, &segment);
	if (!err) {
		err = run(&segment);
		petal_segment_close(&segment);
	}
	if (err) {
		fprintf(stderr, "05-epoll: %s\n", petal_strerror(err));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
