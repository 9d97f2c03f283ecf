/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing, memory, and the two calls of the caller's loop. A poll
 * first takes back what it lent, then looks at the event queue (wire_ofi_cm.c),
 * then gives each link its turn (wire_ofi_io.c). Nothing is queued in between:
 * what finds no room among the caller's events stays where libfabric has it.
 */
#include "fabric/wire_ofi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <sodium.h>

#include "shm/clock.h"
#include "shm/error.h"

#define OFI_VERSION FI_VERSION(1, 17)
#define OFI_MR_MODES \
	(FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY)

/* Two regions draw the same key once in 2^64, or in 2^32 on a poor provider. */
#define OFI_KEY_DRAWS 8

/*
 * Opening.
 */

static struct fi_info *ofi_hints(const char *provider)
{
	struct fi_info *hints = fi_allocinfo();

	if (hints == NULL)
		return NULL;
	hints->caps = FI_MSG | FI_RMA;
	/* verbs takes a receive for each notify, and wants that known. */
	hints->mode = FI_CONTEXT | FI_CONTEXT2 | FI_RX_CQ_DATA;
	hints->ep_attr->type = FI_EP_MSG;
	hints->domain_attr->mr_mode = OFI_MR_MODES;
	hints->domain_attr->threading = FI_THREAD_DOMAIN;
	hints->tx_attr->size = PETAL_WIRE_WRITES_MAX + PETAL_WIRE_SENDS_MAX;
	/* What was written before a message is there when that comes. */
	hints->tx_attr->msg_order = FI_ORDER_SAS | FI_ORDER_SAW;
	hints->tx_attr->inject_size = PETAL_WIRE_PUT_MAX;
	hints->rx_attr->size = WIRE_RECEIVES;
	hints->rx_attr->msg_order = FI_ORDER_SAS | FI_ORDER_SAW;
	hints->fabric_attr->prov_name = strdup(provider);
	if (hints->fabric_attr->prov_name == NULL) {
		fi_freeinfo(hints);
		return NULL;
	}
	return hints;
}

static int ofi_info(const char *provider, const struct sockaddr *address,
		    struct fi_info **ret_info)
{
	char text[80];
	char *host = text;
	char *port;
	struct fi_info *hints = ofi_hints(provider);
	int err;

	if (hints == NULL)
		return -ENOMEM;
	if (address == NULL) {
		err = fi_getinfo(OFI_VERSION, NULL, NULL, 0, hints, ret_info);
		fi_freeinfo(hints);
		return err;
	}
	hints->addr_format = address->sa_family == AF_INET6 ? FI_SOCKADDR_IN6
							    : FI_SOCKADDR_IN;
	wire_address_format(address, text, sizeof(text));
	port = strrchr(text, ':');
	*port++ = '\0';
	if (text[0] == '[') {
		host = text + 1;
		text[strlen(text) - 1] = '\0';
	}
	err = fi_getinfo(OFI_VERSION, host, port, FI_SOURCE | FI_NUMERICHOST,
			 hints, ret_info);
	fi_freeinfo(hints);
	return err;
}

/*
 * The same error means "no such provider" and "no such address"; asking again
 * without the address tells which.
 */
static int ofi_choose(const char *provider, const struct sockaddr *address,
		      struct fi_info **ret_info)
{
	static const char *const known[] = { "verbs", "tcp" };
	struct fi_info *any;
	int err = -ENODATA;

	if (provider == NULL) {
		for (unsigned i = 0; err != 0 && i < 2; i++)
			err = ofi_info(known[i], address, ret_info);
		return err;
	}
	err = ofi_info(provider, address, ret_info);
	if (err != -FI_ENODATA || ofi_info(provider, NULL, &any) != 0)
		return err;
	fi_freeinfo(any);
	return -EADDRNOTAVAIL;
}

/* Links have themselves as their data; timer and event queue have nothing. */
static int wire_watch(struct petal_wire *wire, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };

	if (epoll_ctl(wire->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		return -errno;
	return 0;
}

static int wire_open_fds(struct petal_wire *wire)
{
	wire->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (wire->epoll_fd < 0)
		return -errno;
	wire->timer_fd =
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (wire->timer_fd < 0)
		return -errno;
	return wire_watch(wire, wire->timer_fd);
}

static int wire_open_fabric(struct petal_wire *wire)
{
	struct fi_eq_attr attr = { .wait_obj = FI_WAIT_FD };
	int err = fi_fabric(wire->info->fabric_attr, &wire->fabric, NULL);

	if (err == 0)
		err = fi_domain(wire->fabric, wire->info, &wire->domain, NULL);
	if (err == 0)
		err = fi_eq_open(wire->fabric, &attr, &wire->eq, NULL);
	if (err == 0)
		err = fi_control(&wire->eq->fid, FI_GETWAIT, &wire->eq_fd);
	if (err == 0)
		err = wire_watch(wire, wire->eq_fd);
	return err;
}

static int wire_open_listener(struct petal_wire *wire)
{
	struct sockaddr_storage address = { 0 };
	size_t size = sizeof(address);
	int err = fi_passive_ep(wire->fabric, wire->info, &wire->pep, NULL);

	if (err == 0)
		err = fi_pep_bind(wire->pep, &wire->eq->fid, 0);
	if (err == 0)
		err = fi_listen(wire->pep);
	if (err == 0)
		err = fi_getname(&wire->pep->fid, &address, &size);
	if (err == 0)
		err = wire_gate_open(wire->eq_fd, (struct sockaddr *)&address,
				     &wire->gate);
	if (err == 0)
		wire_address_format((struct sockaddr *)&address, wire->address,
				    sizeof(wire->address));
	return err;
}

static int wire_start(struct petal_wire *wire, const char *provider,
		      const struct sockaddr *address)
{
	size_t data_bytes;
	int err = ofi_choose(provider, address, &wire->info);

	if (err != 0)
		return err;
	data_bytes = wire->info->domain_attr->cq_data_size;
	wire->data_max = data_bytes >= 8 ? UINT64_MAX
					 : wire_bits(8 * (unsigned)data_bytes);
	/* There the bytes come by a socket, on which the target sleeps. */
	wire->wakes = strcmp(petal_wire_provider(wire), "tcp") == 0;
	err = wire_open_fds(wire);
	if (err == 0)
		err = wire_open_fabric(wire);
	if (err == 0)
		err = wire_open_listener(wire);
	return err;
}

int petal_wire_open(const struct petal_wire_options *options,
		    struct petal_wire **ret_wire)
{
	struct sockaddr_storage address;
	struct petal_wire *wire;
	socklen_t size;
	int err;

	if (options->node >= PETAL_WIRE_PEER_MAX ||
	    wire_address_parse(options->listen, &address, &size) != 0)
		return -EINVAL;
	if (sodium_init() < 0)
		return -EIO;
	wire = calloc(1, sizeof(*wire));
	if (wire == NULL)
		return -ENOMEM;
	wire->epoll_fd = -1;
	wire->timer_fd = -1;
	wire->gate.list_fd = -1;
	wire->timer_ns = UINT64_MAX;
	wire->eq_hot = true;
	wire->node = options->node;
	memcpy(wire->cluster, options->cluster, sizeof(wire->cluster));
	petal_seal_key_derive(options->key, "wire", wire->key);
	petal_seal_clock_open(&wire->clock, petal_clock_realtime_ns(),
			      petal_clock_now_ns());
	err = wire_start(wire, options->provider, (struct sockaddr *)&address);
	if (err != 0) {
		petal_wire_close(wire);
		return err;
	}
	*ret_wire = wire;
	return 0;
}

static void close_fid(fid_t fid)
{
	if (fid != NULL)
		fi_close(fid);
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void petal_wire_close(struct petal_wire *wire)
{
	if (wire == NULL)
		return;
	for (unsigned i = 0; i < wire->link_count; i++) {
		if (wire->links[i] != NULL)
			wire_link_retire(wire->links[i]);
	}
	wire_links_reap(wire);
	while (wire->regions != NULL)
		petal_wire_unregister(wire->regions);
	if (wire->gate.list_fd >= 0)
		wire_cm_close(wire);
	close_fid(wire->pep ? &wire->pep->fid : NULL);
	if (wire->gate.list_fd >= 0)
		wire_gate_close(&wire->gate);
	close_fid(wire->domain ? &wire->domain->fid : NULL);
	close_fid(wire->eq ? &wire->eq->fid : NULL);
	close_fid(wire->fabric ? &wire->fabric->fid : NULL);
	if (wire->info != NULL)
		fi_freeinfo(wire->info);
	close_fd(wire->timer_fd);
	close_fd(wire->epoll_fd);
	sodium_memzero(wire->key, sizeof(wire->key));
	free(wire);
}

const char *petal_wire_address(const struct petal_wire *wire)
{
	return wire->address;
}

const char *petal_wire_provider(const struct petal_wire *wire)
{
	return wire->info->fabric_attr->prov_name;
}

int petal_wire_fd(struct petal_wire *wire)
{
	return wire->epoll_fd;
}

void petal_wire_counters(const struct petal_wire *wire,
			 struct petal_wire_counters *ret_counters)
{
	*ret_counters = wire->counters;
}

/*
 * Memory.
 */

uint64_t wire_key_draw(const struct petal_wire *wire)
{
	size_t key_bytes = wire->info->domain_attr->mr_key_size;
	uint64_t key;

	randombytes_buf(&key, sizeof(key));
	if (key_bytes < sizeof(key))
		key &= wire_bits(8 * (unsigned)key_bytes);
	return key;
}

static int region_open(struct petal_wire_region *region, uint64_t access,
		       struct fid_mr **ret_mr)
{
	struct petal_wire *wire = region->wire;
	int err = -FI_ENOKEY;

	for (unsigned i = 0; err == -FI_ENOKEY && i < OFI_KEY_DRAWS; i++)
		err = fi_mr_reg(wire->domain, region->base, region->bytes,
				access, 0, wire_key_draw(wire), 0, ret_mr,
				NULL);
	return err;
}

int petal_wire_register(struct petal_wire *wire, void *base, uint64_t bytes,
			struct petal_wire_region **ret_region)
{
	struct petal_wire_region *region;
	int err = 0;

	if (bytes == 0 || (uintptr_t)base + bytes < (uintptr_t)base)
		return -EINVAL;
	region = calloc(1, sizeof(*region));
	if (region == NULL)
		return -ENOMEM;
	region->wire = wire;
	region->base = base;
	region->bytes = bytes;
	if ((wire->info->domain_attr->mr_mode & FI_MR_LOCAL) != 0)
		err = region_open(region, FI_WRITE, &region->local);
	if (err != 0) {
		free(region);
		return err;
	}
	region->next = wire->regions;
	wire->regions = region;
	*ret_region = region;
	return 0;
}

void petal_wire_unregister(struct petal_wire_region *region)
{
	struct petal_wire_region **at;

	if (region == NULL)
		return;
	for (at = &region->wire->regions; *at != region; at = &(*at)->next)
		;
	*at = region->next;
	close_fid(region->remote ? &region->remote->fid : NULL);
	close_fid(region->local ? &region->local->fid : NULL);
	free(region);
}

int petal_wire_region_key(struct petal_wire_region *region,
			  struct petal_wire_key *ret_key)
{
	uint64_t mode = (uint64_t)region->wire->info->domain_attr->mr_mode;
	int err;

	if (region->remote == NULL) {
		err = region_open(region, FI_REMOTE_WRITE, &region->remote);
		if (err != 0)
			return err;
	}
	ret_key->key = fi_mr_key(region->remote);
	ret_key->base = mode & FI_MR_VIRT_ADDR ? (uintptr_t)region->base : 0;
	ret_key->bytes = region->bytes;
	return 0;
}

/*
 * Progress.
 */

static void wire_timer(struct petal_wire *wire)
{
	uint64_t deadline_ns = wire_cm_deadline_ns(wire);
	struct itimerspec when = { 0 };

	if (deadline_ns == wire->timer_ns)
		return;
	if (deadline_ns != UINT64_MAX)
		when.it_value = petal_clock_timespec(deadline_ns);
	timerfd_settime(wire->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
	wire->timer_ns = deadline_ns;
}

/* Who has something; each descriptor, unless there are very many. */
static void wire_look(struct petal_wire *wire)
{
	struct epoll_event ready[WIRE_READY_MAX];
	int count = epoll_wait(wire->epoll_fd, ready, WIRE_READY_MAX, 0);

	/* If they cannot be asked, each may have something. */
	wire->eq_ready = count < 0 || count == WIRE_READY_MAX;
	for (unsigned i = 0; count < 0 && i < wire->link_count; i++)
		wire->links[i]->ready = true;
	for (int i = 0; i < count; i++) {
		struct wire_link *link = ready[i].data.ptr;

		if (link != NULL)
			link->ready = true;
		else
			wire->eq_ready = true;
	}
}

int petal_wire_poll(struct petal_wire *wire, struct petal_wire_event *events,
		    unsigned max)
{
	unsigned count = 0;
	uint64_t now_ns;

	wire_links_reap(wire);
	for (unsigned i = 0; i < wire->link_count; i++)
		wire_link_take_back(wire->links[i]);
	wire_look(wire);
	now_ns = petal_clock_now_ns();
	if (wire->eq_ready || wire->eq_hot ||
	    now_ns >= wire_cm_deadline_ns(wire))
		wire_cm_step(wire, now_ns);
	for (unsigned i = 0; i < wire->link_count && count < max; i++) {
		unsigned at = (wire->turn + i) % wire->link_count;

		if (wire->links[at] != NULL)
			count += wire_link_step(wire->links[at], events + count,
						max - count);
	}
	wire->turn++;
	return (int)count;
}

/* Something that only a poll can do, and no descriptor will tell. */
static bool wire_busy(const struct petal_wire *wire)
{
	for (unsigned i = 0; i < wire->link_count; i++) {
		const struct wire_link *link = wire->links[i];

		if (link != NULL &&
		    (link->state == WIRE_READY || link->state == WIRE_ENDING ||
		     link->lent != 0))
			return true;
	}
	return false;
}

int petal_wire_arm(struct petal_wire *wire)
{
	if (wire_busy(wire) || wire->relief || wire->eq_hot ||
	    (wire->eq_ready && wire_cm_more(wire, petal_clock_now_ns()))) {
		wire->relief = false;
		return 1;
	}
	wire_timer(wire);
	for (unsigned i = 0; i < wire->link_count; i++) {
		int err = wire->links[i] == NULL
				  ? 0
				  : wire_link_arm(wire->links[i]);

		if (err != 0)
			return err == -FI_EAGAIN ? 1 : err;
	}
	return 0;
}
