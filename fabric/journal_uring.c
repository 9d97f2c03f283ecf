/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The journal's engine on io_uring.
 *
 * The happy path: a write becomes one entry of the submission queue, one
 * io_uring_enter() starts it, the kernel signals the eventfd on which the
 * caller sleeps, and reaping reads the completion. The file is open with
 * O_DSYNC, hence a completion is a flush as well.
 *
 * IORING_SETUP_DEFER_TASKRUN leaves the kernel's half of a completion to be
 * run when we ask for it, so that it never interrupts the event loop. The
 * eventfd is signalled when that work is queued, before there is anything in
 * the completion queue; IORING_SETUP_TASKRUN_FLAG makes liburing's peek see
 * that and run it. Both together let a thread sleep in epoll and find its
 * completion when it wakes (tried on Linux 6.18; in 6.1 since the flag came).
 *
 * One piece goes from a registered buffer. Several go as one vectored write,
 * because each write of an O_DSYNC file pays for its own flush: with 4 + 64
 * KiB on a virtio disk 71 us against 108 us for two fixed writes side by side.
 * Above SPLIT_BYTES the transfer outweighs the flush (4 KiB + 1 MiB: 490 us
 * split, 529 us vectored), and each piece goes by itself.
 *
 * Failures: an entry that the kernel does not take now (-EAGAIN, -EBUSY,
 * -EINTR) stays in the queue, the eventfd is signalled, and the next reap tries
 * again, a bounded number of times; after that, and after any other refusal,
 * the engine is broken, and what the kernel never took completes as failed.
 * That does not try a failed write again: the kernel never saw it. A completion
 * that says anything but the full length is a failure for good.
 */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <sys/eventfd.h>

#include <liburing.h>

#include "fabric/journal_io.h"

enum {
	/* Refusals in a row after which the kernel is taken at its word. */
	REFUSALS_MAX = 1024,
	/* Signals that may interrupt one wait. */
	INTERRUPTIONS_MAX = 4096,
	SPLIT_BYTES = 512 * 1024,
	PIECE_BITS = 2,
};

/* What the kernel can register as one buffer. */
#define BUFFER_BYTES_MAX (UINT64_C(1) << 30)

static_assert(PETAL_JOURNAL_PIECES_MAX <= 1 << PIECE_BITS,
	      "a piece's number fits beside the write's");

struct uring_write {
	bool used;
	int status;
	uint64_t cookie;
	/* The number of its first entry, counted since open. */
	uint64_t first_entry;
	unsigned int entry_count;
	unsigned int entries_left;
	uint64_t entry_bytes[PETAL_JOURNAL_PIECES_MAX];
	/* The kernel reads it when it takes the entry, maybe much later. */
	struct iovec pieces[PETAL_JOURNAL_PIECES_MAX];
};

struct petal_journal_io {
	struct io_uring ring;
	int fd;
	int event_fd;
	bool file_fixed;
	bool table;
	bool broken;
	unsigned int refusals;
	uint64_t entries;
	unsigned int buffers_max;
	bool *fixed;
	unsigned int writes_max;
	struct uring_write writes[];
};

const char *petal_journal_io_name(void)
{
	return "io_uring";
}

int petal_journal_io_open_flags(void)
{
	return O_DSYNC;
}

/* The best set of flags that this kernel knows. */
static int ring_init(struct io_uring *ring, unsigned int entries)
{
	static const unsigned int choices[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		0,
	};
	int err = -EINVAL;

	for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
		err = io_uring_queue_init(entries, ring, choices[i]);
		if (err != -EINVAL)
			break;
	}
	return err;
}

static int ring_setup(struct petal_journal_io *io)
{
	int err;

	err = ring_init(&io->ring, io->writes_max * PETAL_JOURNAL_PIECES_MAX);
	if (err)
		return err;
	/* A child has no business in our queues, and may not keep them. */
	io_uring_ring_dontfork(&io->ring);
	err = io_uring_register_eventfd(&io->ring, io->event_fd);
	if (err) {
		io_uring_queue_exit(&io->ring);
		return err;
	}
	/* Both only save work, so that we do without if we must. */
	io->file_fixed = !io_uring_register_files(&io->ring, &io->fd, 1);
	io->table =
		!io_uring_register_buffers_sparse(&io->ring, io->buffers_max);
	return 0;
}

static void io_free(struct petal_journal_io *io)
{
	if (io->event_fd >= 0)
		close(io->event_fd);
	free(io->fixed);
	free(io);
}

int petal_journal_io_open(int fd, unsigned int writes_max,
			  unsigned int buffers_max,
			  struct petal_journal_io **ret_io)
{
	struct petal_journal_io *io;
	int err;

	io = calloc(1, sizeof(*io) + writes_max * sizeof(io->writes[0]));
	if (!io)
		return -ENOMEM;
	io->fd = fd;
	io->writes_max = writes_max;
	io->buffers_max = buffers_max;
	io->fixed = calloc(buffers_max, sizeof(*io->fixed));
	io->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!io->fixed)
		err = -ENOMEM;
	else if (io->event_fd < 0)
		err = -errno;
	else
		err = ring_setup(io);
	if (err) {
		io_free(io);
		return err;
	}
	*ret_io = io;
	return 0;
}

void petal_journal_io_close(struct petal_journal_io *io)
{
	/*
	 * The kernel takes a ring apart some time after its end, and would
	 * hold the file and the areas so long.
	 */
	if (io->file_fixed)
		io_uring_unregister_files(&io->ring);
	if (io->table)
		io_uring_unregister_buffers(&io->ring);
	io_uring_queue_exit(&io->ring);
	io_free(io);
}

int petal_journal_io_fd(const struct petal_journal_io *io)
{
	return io->event_fd;
}

static int table_update(struct petal_journal_io *io, unsigned int buffer,
			const void *base, uint64_t bytes)
{
	struct iovec piece = {
		.iov_base = (void *)(uintptr_t)base,
		.iov_len = bytes,
	};
	__u64 tag = 0;
	int updated;

	updated = io_uring_register_buffers_update_tag(&io->ring, buffer,
						       &piece, &tag, 1);
	return updated == 1 ? 0 : updated < 0 ? updated : -EIO;
}

int petal_journal_io_register(struct petal_journal_io *io, unsigned int buffer,
			      const void *base, uint64_t bytes)
{
	int err;

	if (buffer >= io->buffers_max || io->fixed[buffer])
		return -EINVAL;
	if (!io->table)
		return -EOPNOTSUPP;
	if (bytes > BUFFER_BYTES_MAX)
		return -EFBIG;
	err = table_update(io, buffer, base, bytes);
	io->fixed[buffer] = !err;
	return err;
}

void petal_journal_io_unregister(struct petal_journal_io *io,
				 unsigned int buffer)
{
	if (buffer >= io->buffers_max || !io->fixed[buffer])
		return;
	table_update(io, buffer, NULL, 0);
	io->fixed[buffer] = false;
}

/* Complete as failed what the kernel never took, and never ask it again. */
static void engine_break(struct petal_journal_io *io, int status)
{
	uint64_t taken = io->entries - io_uring_sq_ready(&io->ring);

	io->broken = true;
	for (unsigned int i = 0; i < io->writes_max; i++) {
		struct uring_write *write = &io->writes[i];
		uint64_t end = write->first_entry + write->entry_count;

		if (!write->used || end <= taken)
			continue;
		if (write->first_entry < taken)
			write->entries_left -= (unsigned int)(end - taken);
		else
			write->entries_left -= write->entry_count;
		write->status = status;
	}
	eventfd_write(io->event_fd, 1);
}

/* Hand over what is in the queue, or arrange to be called again. */
static void queue_flush(struct petal_journal_io *io)
{
	int taken;

	if (io->broken || !io_uring_sq_ready(&io->ring))
		return;
	taken = io_uring_submit(&io->ring);
	if (taken > 0)
		io->refusals = 0;
	if (!io_uring_sq_ready(&io->ring))
		return;
	if (taken < 0 && taken != -EAGAIN && taken != -EBUSY &&
	    taken != -EINTR) {
		engine_break(io, taken);
		return;
	}
	if (++io->refusals > REFUSALS_MAX) {
		engine_break(io, taken < 0 ? taken : -EAGAIN);
		return;
	}
	eventfd_write(io->event_fd, 1);
}

static struct uring_write *write_claim(struct petal_journal_io *io)
{
	for (unsigned int i = 0; i < io->writes_max; i++) {
		if (!io->writes[i].used)
			return &io->writes[i];
	}
	abort(); /* The journal counts what it submits. */
}

static void entry_add(struct petal_journal_io *io, struct uring_write *write,
		      struct io_uring_sqe *sqe, uint64_t bytes)
{
	uint64_t index = (uint64_t)(write - io->writes);

	if (io->file_fixed)
		sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data64(sqe, index << PIECE_BITS | write->entry_count);
	write->entry_bytes[write->entry_count++] = bytes;
	write->entries_left++;
	io->entries++;
}

static void entries_fixed(struct petal_journal_io *io,
			  struct uring_write *write,
			  const struct petal_journal_write *from)
{
	uint64_t offset = from->offset;
	int fd = io->file_fixed ? 0 : io->fd;

	for (unsigned int i = 0; i < from->piece_count; i++) {
		const struct iovec *piece = &from->pieces[i];
		struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);

		io_uring_prep_write_fixed(sqe, fd, piece->iov_base,
					  (unsigned int)piece->iov_len, offset,
					  (int)from->buffers[i]);
		entry_add(io, write, sqe, piece->iov_len);
		offset += piece->iov_len;
	}
}

static void entry_vectored(struct petal_journal_io *io,
			   struct uring_write *write,
			   const struct petal_journal_write *from)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);
	int fd = io->file_fixed ? 0 : io->fd;
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < from->piece_count; i++) {
		write->pieces[i] = from->pieces[i];
		bytes += from->pieces[i].iov_len;
	}
	io_uring_prep_writev(sqe, fd, write->pieces, from->piece_count,
			     from->offset);
	entry_add(io, write, sqe, bytes);
}

static bool goes_fixed(const struct petal_journal_io *io,
		       const struct petal_journal_write *from)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < from->piece_count; i++) {
		if (!io->fixed[from->buffers[i]])
			return false;
		bytes += from->pieces[i].iov_len;
	}
	return from->piece_count == 1 || bytes >= SPLIT_BYTES;
}

void petal_journal_io_submit(struct petal_journal_io *io,
			     const struct petal_journal_write *from)
{
	struct uring_write *write = write_claim(io);

	*write = (struct uring_write){
		.used = true,
		.cookie = from->cookie,
		.first_entry = io->entries,
	};
	if (io->broken) {
		write->status = -EIO;
		eventfd_write(io->event_fd, 1);
		return;
	}
	/* The queue holds all pieces of all writes, so there is an entry. */
	if (goes_fixed(io, from))
		entries_fixed(io, write, from);
	else
		entry_vectored(io, write, from);
	queue_flush(io);
}

static void completion_take(struct petal_journal_io *io,
			    const struct io_uring_cqe *cqe)
{
	uint64_t data = io_uring_cqe_get_data64(cqe);
	struct uring_write *write = &io->writes[data >> PIECE_BITS];
	uint64_t bytes = write->entry_bytes[data & ((1 << PIECE_BITS) - 1)];

	if (cqe->res < 0)
		write->status = cqe->res;
	else if ((uint64_t)cqe->res != bytes && !write->status)
		write->status = -EIO;
	write->entries_left--;
}

static void completions_take(struct petal_journal_io *io)
{
	struct io_uring_cqe *cqe;

	/* As many as there can be: each entry completes once. */
	for (unsigned int i = 0;
	     i < io->writes_max * PETAL_JOURNAL_PIECES_MAX &&
	     !io_uring_peek_cqe(&io->ring, &cqe);
	     i++) {
		completion_take(io, cqe);
		io_uring_cqe_seen(&io->ring, cqe);
	}
}

/* The kernel was interrupted before it did its half: come again. */
static void work_left_signal(struct petal_journal_io *io)
{
	unsigned int flags = IO_URING_READ_ONCE(*io->ring.sq.kflags);

	if (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))
		eventfd_write(io->event_fd, 1);
}

static unsigned int finished_take(struct petal_journal_io *io,
				  struct petal_journal_written *written,
				  unsigned int max)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < io->writes_max && count < max; i++) {
		struct uring_write *write = &io->writes[i];

		if (!write->used || write->entries_left)
			continue;
		write->used = false;
		written[count].cookie = write->cookie;
		written[count++].status = write->status;
	}
	return count;
}

static bool finished(const struct petal_journal_io *io)
{
	for (unsigned int i = 0; i < io->writes_max; i++) {
		if (io->writes[i].used && !io->writes[i].entries_left)
			return true;
	}
	return false;
}

static bool outstanding(const struct petal_journal_io *io)
{
	for (unsigned int i = 0; i < io->writes_max; i++) {
		if (io->writes[i].used)
			return true;
	}
	return false;
}

unsigned int petal_journal_io_reap(struct petal_journal_io *io,
				   struct petal_journal_written *written,
				   unsigned int max, bool wait)
{
	struct io_uring_cqe *cqe;
	unsigned int count;
	eventfd_t signals;

	/* First the signal, then the work: what comes between rings again. */
	eventfd_read(io->event_fd, &signals);
	queue_flush(io);
	completions_take(io);
	work_left_signal(io);
	count = finished_take(io, written, max);
	for (unsigned int i = 0;
	     wait && !count && outstanding(io) && i < INTERRUPTIONS_MAX; i++) {
		queue_flush(io);
		/* To wait for what the kernel never took would be for ever. */
		if ((io->broken || !io_uring_sq_ready(&io->ring)) &&
		    !finished(io) && io_uring_wait_cqe(&io->ring, &cqe) == 0)
			completions_take(io);
		count = finished_take(io, written, max);
	}
	return count;
}
