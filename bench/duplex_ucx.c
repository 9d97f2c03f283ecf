/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UCX: tagged messages between two workers, over its shared memory. Sleeping
 * is its worker's event.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucp/api/ucp.h>

#include "bench/duplex.h"

#define ADDRESS_MAX 4000u

/* cma lets large messages be copied once; where the kernel forbids it, UCX does
 * without. */
#define TRANSPORTS "posix,cma,self"

/* Inherited by both sides: where each of them is reached. A side's address is
 * complete before the other hears of it: the server's by its tell, the client's
 * by its first message. */
struct note {
	size_t length[2];
	uint8_t address[2][ADDRESS_MAX];
};

static struct note *note;
static ucp_context_h context;
static ucp_worker_h worker;
static ucp_ep_h peer;
static void *receiving; /* a request under way, or NULL */
static char version[32];

static int error_of(ucs_status_t status)
{
	switch (status) {
	case UCS_OK:
		return 0;
	case UCS_ERR_NO_MEMORY:
		return -ENOMEM;
	case UCS_ERR_NO_DEVICE:
		return -ENODEV;
	case UCS_ERR_UNREACHABLE:
		return -EHOSTUNREACH;
	case UCS_ERR_MESSAGE_TRUNCATED:
		return -EMSGSIZE;
	case UCS_ERR_UNSUPPORTED:
		return -EOPNOTSUPP;
	default:
		return -EIO;
	}
}

static int prepare(struct petal_duplex *duplex)
{
	snprintf(version, sizeof(version), "UCX %s", ucp_get_version_string());
	duplex->version = version;
	note = mmap(NULL, sizeof(*note), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (note == MAP_FAILED) {
		note = NULL;
		return -errno;
	}
	return 0;
}

static ucs_status_t open_context(void)
{
	ucp_params_t params = {
		.field_mask = UCP_PARAM_FIELD_FEATURES,
		.features = UCP_FEATURE_TAG | UCP_FEATURE_WAKEUP,
	};
	ucp_config_t *config;
	ucs_status_t status = ucp_config_read(NULL, NULL, &config);

	if (status != UCS_OK)
		return status;
	status = ucp_config_modify(config, "TLS", TRANSPORTS);
	if (status == UCS_OK)
		status = ucp_init(&params, config, &context);
	ucp_config_release(config);
	return status;
}

static ucs_status_t open_worker(void)
{
	ucp_worker_params_t params = {
		.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
		.thread_mode = UCS_THREAD_MODE_SINGLE,
	};

	return ucp_worker_create(context, &params, &worker);
}

static int write_address(bool server)
{
	ucp_address_t *address;
	size_t length;
	ucs_status_t status = ucp_worker_get_address(worker, &address, &length);
	int err = error_of(status);

	if (err < 0)
		return err;
	if (length <= ADDRESS_MAX) {
		memcpy(note->address[server], address, length);
		note->length[server] = length;
	} else {
		err = -ENOBUFS;
	}
	ucp_worker_release_address(worker, address);
	return err;
}

static ucs_status_t connect_peer(bool server)
{
	ucp_ep_params_t params = {
		.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS,
		.address = (const void *)note->address[!server],
	};

	return ucp_ep_create(worker, &params, &peer);
}

static int begin(struct petal_duplex *duplex, bool server)
{
	ucs_status_t status = open_context();
	int err;

	(void)duplex;
	if (status == UCS_OK)
		status = open_worker();
	if (status != UCS_OK)
		return error_of(status);
	err = write_address(server);
	if (err == 0 && !server)
		err = error_of(connect_peer(server));
	return err;
}

/* What a call has left to do, or NULL; gone when it is done. */
static int finish(void *request)
{
	ucs_status_t status = UCS_PTR_STATUS(request);

	if (!UCS_PTR_IS_PTR(request))
		return error_of(status);
	while ((status = ucp_request_check_status(request)) == UCS_INPROGRESS)
		ucp_worker_progress(worker);
	ucp_request_free(request);
	return error_of(status);
}

static int send_one(struct petal_duplex *duplex, const void *bytes,
		    size_t length, bool spin)
{
	static const ucp_request_param_t plain;

	(void)spin;
	/* The server knows of its client by the first message. */
	if (!peer) {
		int err = error_of(connect_peer(duplex->server));

		if (err < 0)
			return err;
	}
	return finish(ucp_tag_send_nbx(peer, bytes, length, 0, &plain));
}

static int post_receive(void *bytes, size_t length)
{
	static const ucp_request_param_t plain = {
		/* Without it, a message that is there already has no request
		 * to ask. */
		.op_attr_mask = UCP_OP_ATTR_FLAG_NO_IMM_CMPL,
	};
	void *request = ucp_tag_recv_nbx(worker, bytes, length, 0, 0, &plain);

	if (UCS_PTR_IS_ERR(request))
		return error_of(UCS_PTR_STATUS(request));
	receiving = request;
	return 0;
}

/*
 * A message that came before it was asked for has ended the request without an
 * event, so ask before each sleep.
 */
static ucs_status_t await(ucp_tag_recv_info_t *info, bool spin)
{
	ucs_status_t status = ucp_tag_recv_request_test(receiving, info);

	if (status != UCS_INPROGRESS)
		return status;
	if (ucp_worker_progress(worker) == 0 && !spin) {
		status = ucp_worker_wait(worker);
		if (status != UCS_OK)
			return status;
	}
	return ucp_tag_recv_request_test(receiving, info);
}

static int receive_one(struct petal_duplex *duplex, void *bytes, size_t length,
		       bool spin)
{
	ucp_tag_recv_info_t info;
	ucs_status_t status;
	int err = receiving ? 0 : post_receive(bytes, length);

	(void)duplex;
	if (err < 0)
		return err;
	status = await(&info, spin);
	if (status == UCS_INPROGRESS)
		return -EAGAIN;
	ucp_request_free(receiving);
	receiving = NULL;
	if (status == UCS_OK && info.length != length)
		return -EMSGSIZE;
	return error_of(status);
}

/* The other side is gone or will be, so nothing is flushed to it. */
static void close_peer(void)
{
	static const ucp_request_param_t force = {
		.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
		.flags = UCP_EP_CLOSE_FLAG_FORCE,
	};

	finish(ucp_ep_close_nbx(peer, &force));
}

static void end(struct petal_duplex *duplex)
{
	(void)duplex;
	if (receiving) {
		ucp_request_cancel(worker, receiving);
		finish(receiving);
	}
	if (peer)
		close_peer();
	if (worker)
		ucp_worker_destroy(worker);
	if (context)
		ucp_cleanup(context);
	if (note)
		munmap(note, sizeof(*note));
	receiving = NULL;
	peer = NULL;
	worker = NULL;
	context = NULL;
	note = NULL;
}

struct petal_duplex petal_duplex_ucx = {
	.impl = "ucx-shm",
	.remark = "tagged messages, transports " TRANSPORTS,
	.prepare = prepare,
	.begin = begin,
	.send = send_one,
	.receive = receive_one,
	.end = end,
};
