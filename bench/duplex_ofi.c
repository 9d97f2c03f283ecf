/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libfabric's shm provider: messages between two reliable datagram endpoints,
 * and a completion queue that is polled. The provider's waits yield in a loop,
 * so it cannot sleep.
 */
#include <errno.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/duplex.h"

#define NAME_MAX_BYTES 256u
#define API FI_VERSION(1, 17)

/* Inherited by both sides: where each of them is reached. A side's name is
 * complete before the other hears of it: the server's by its tell, the client's
 * by its first message. */
struct note {
	char name[2][NAME_MAX_BYTES];
};

/* The context of an operation, which the completion returns. */
enum { SENT, RECEIVED, OPERATIONS };

static struct note *note;
static struct fi_info *info;
static struct fid_fabric *fabric;
static struct fid_domain *domain;
static struct fid_av *addresses;
static struct fid_cq *queue;
static struct fid_ep *endpoint;
static fi_addr_t peer = FI_ADDR_NOTAVAIL;
static struct fi_context2 operations[OPERATIONS];
static bool under_way[OPERATIONS];
static size_t received;
static char version[64];

static int prepare(struct petal_duplex *duplex)
{
	uint32_t api = fi_version();

	snprintf(version, sizeof(version), "libfabric %u.%u", FI_MAJOR(api),
		 FI_MINOR(api));
	duplex->version = version;
	note = mmap(NULL, sizeof(*note), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (note == MAP_FAILED) {
		note = NULL;
		return -errno;
	}
	return 0;
}

static int find_provider(void)
{
	struct fi_info *hints = fi_allocinfo();
	int err;

	if (!hints)
		return -ENOMEM;
	hints->caps = FI_MSG;
	hints->mode = FI_CONTEXT | FI_CONTEXT2;
	hints->ep_attr->type = FI_EP_RDM;
	hints->domain_attr->threading = FI_THREAD_DOMAIN;
	hints->domain_attr->mr_mode = FI_MR_VIRT_ADDR;
	hints->fabric_attr->prov_name = strdup("shm");
	err = fi_getinfo(API, NULL, NULL, 0, hints, &info);
	fi_freeinfo(hints);
	return err;
}

static int open_domain(void)
{
	struct fi_av_attr av = { .type = FI_AV_TABLE, .count = 2 };
	struct fi_cq_attr cq = { .format = FI_CQ_FORMAT_MSG, .size = 16 };
	int err = fi_fabric(info->fabric_attr, &fabric, NULL);

	if (err == 0)
		err = fi_domain(fabric, info, &domain, NULL);
	if (err == 0)
		err = fi_av_open(domain, &av, &addresses, NULL);
	if (err == 0)
		err = fi_cq_open(domain, &cq, &queue, NULL);
	return err;
}

static int open_endpoint(char *name)
{
	size_t length = NAME_MAX_BYTES;
	int err = fi_endpoint(domain, info, &endpoint, NULL);

	if (err == 0)
		err = fi_ep_bind(endpoint, &addresses->fid, 0);
	if (err == 0)
		err = fi_ep_bind(endpoint, &queue->fid, FI_SEND | FI_RECV);
	if (err == 0)
		err = fi_enable(endpoint);
	if (err == 0)
		err = fi_getname(&endpoint->fid, name, &length);
	return err;
}

static int know_peer(bool server)
{
	int count =
		fi_av_insert(addresses, note->name[!server], 1, &peer, 0, NULL);

	return count == 1 ? 0 : -EHOSTUNREACH;
}

static int begin(struct petal_duplex *duplex, bool server)
{
	int err = find_provider();

	(void)duplex;
	if (err == 0)
		err = open_domain();
	if (err == 0)
		err = open_endpoint(note->name[server]);
	if (err == 0 && !server)
		err = know_peer(server);
	return err;
}

/* Takes note of what has ended. The errors of ours are libfabric's own. */
static int poll_queue(void)
{
	struct fi_cq_err_entry failure = { 0 };
	struct fi_cq_msg_entry entry;
	ssize_t got = fi_cq_read(queue, &entry, 1);

	if (got == -FI_EAGAIN)
		return 0;
	if (got == -FI_EAVAIL) {
		fi_cq_readerr(queue, &failure, 0);
		return failure.err > 0 ? -failure.err : -EIO;
	}
	if (got < 0)
		return (int)got;
	if (entry.op_context == &operations[RECEIVED]) {
		received = entry.len;
		under_way[RECEIVED] = false;
	} else {
		under_way[SENT] = false;
	}
	return 0;
}

/* A small message is gone when the call returns; a large one when told. */
static ssize_t try_send(const void *bytes, size_t length)
{
	ssize_t err;

	if (length <= info->tx_attr->inject_size)
		return fi_inject(endpoint, bytes, length, peer);
	err = fi_send(endpoint, bytes, length, NULL, peer, &operations[SENT]);
	under_way[SENT] = err == 0;
	return err;
}

static int send_one(struct petal_duplex *duplex, const void *bytes,
		    size_t length, bool spin)
{
	ssize_t sent;
	int err = 0;

	(void)spin;
	/* The server knows of its client by the first message. */
	if (peer == FI_ADDR_NOTAVAIL)
		err = know_peer(duplex->server);
	if (err < 0)
		return err;
	/* The first one finds nobody until the other side has answered. */
	while ((sent = try_send(bytes, length)) == -FI_EAGAIN && err == 0)
		err = poll_queue();
	if (sent < 0)
		return err < 0 ? err : (int)sent;
	while (under_way[SENT] && err == 0)
		err = poll_queue();
	return err;
}

static int receive_one(struct petal_duplex *duplex, void *bytes, size_t length,
		       bool spin)
{
	static bool posted;
	ssize_t err = 0;

	(void)duplex;
	(void)spin;
	if (!posted)
		err = fi_recv(endpoint, bytes, length, NULL, FI_ADDR_UNSPEC,
			      &operations[RECEIVED]);
	if (err < 0)
		return (int)err;
	under_way[RECEIVED] = true;
	posted = true;
	err = poll_queue();
	if (err < 0)
		return (int)err;
	if (under_way[RECEIVED])
		return -EAGAIN;
	posted = false;
	return received == length ? 0 : -EMSGSIZE;
}

/* The server is killed, so its file is left to us. */
static void remove_file(const char *name)
{
	const char *colon = strstr(name, "://");

	if (colon)
		shm_unlink(colon + strlen("://"));
}

static void close_fid(struct fid *fid)
{
	if (fid)
		fi_close(fid);
}

static void end(struct petal_duplex *duplex)
{
	(void)duplex;
	close_fid(endpoint ? &endpoint->fid : NULL);
	close_fid(queue ? &queue->fid : NULL);
	close_fid(addresses ? &addresses->fid : NULL);
	close_fid(domain ? &domain->fid : NULL);
	close_fid(fabric ? &fabric->fid : NULL);
	if (info)
		fi_freeinfo(info);
	if (note) {
		remove_file(note->name[true]);
		munmap(note, sizeof(*note));
	}
	endpoint = NULL;
	queue = NULL;
	addresses = NULL;
	domain = NULL;
	fabric = NULL;
	info = NULL;
	note = NULL;
}

struct petal_duplex petal_duplex_ofi = {
	.impl = "libfabric-shm",
	.remark = "RDM messages, provider shm",
	.polls = true,
	.prepare = prepare,
	.begin = begin,
	.send = send_one,
	.receive = receive_one,
	.end = end,
};
