/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The journal's engine without io_uring: a write is done at once with
 * pwritev(), and one fdatasync() when the completions are collected makes all
 * of them durable together. It blocks its caller for as long as the disk
 * takes, and serves systems where io_uring is forbidden, and the tests, which
 * compare the other engine with it.
 *
 * A failed fdatasync() fails every write before it, for nobody can say which
 * of them reached the disk.
 */

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <sys/eventfd.h>

#include "fabric/journal_io.h"

struct petal_journal_io {
	int fd;
	int event_fd;
	unsigned int written_max;
	unsigned int written_count;
	struct petal_journal_written written[];
};

const char *petal_journal_io_name(void)
{
	return "posix";
}

int petal_journal_io_open_flags(void)
{
	return 0;
}

int petal_journal_io_open(int fd, unsigned int writes_max,
			  unsigned int buffers_max,
			  struct petal_journal_io **ret_io)
{
	struct petal_journal_io *io;

	(void)buffers_max;
	io = calloc(1, sizeof(*io) + writes_max * sizeof(io->written[0]));
	if (!io)
		return -ENOMEM;
	io->fd = fd;
	io->written_max = writes_max;
	io->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (io->event_fd < 0) {
		int err = -errno;

		free(io);
		return err;
	}
	*ret_io = io;
	return 0;
}

void petal_journal_io_close(struct petal_journal_io *io)
{
	close(io->event_fd);
	free(io);
}

int petal_journal_io_fd(const struct petal_journal_io *io)
{
	return io->event_fd;
}

int petal_journal_io_register(struct petal_journal_io *io, unsigned int buffer,
			      const void *base, uint64_t bytes)
{
	(void)io;
	(void)buffer;
	(void)base;
	(void)bytes;
	return -EOPNOTSUPP;
}

void petal_journal_io_unregister(struct petal_journal_io *io,
				 unsigned int buffer)
{
	(void)io;
	(void)buffer;
}

static int write_pieces(int fd, const struct petal_journal_write *write)
{
	uint64_t bytes = 0;
	ssize_t written;

	for (unsigned int i = 0; i < write->piece_count; i++)
		bytes += write->pieces[i].iov_len;
	written = pwritev(fd, write->pieces, (int)write->piece_count,
			  (off_t)write->offset);
	if (written < 0)
		return -errno;
	return (uint64_t)written == bytes ? 0 : -EIO;
}

void petal_journal_io_submit(struct petal_journal_io *io,
			     const struct petal_journal_write *write)
{
	struct petal_journal_written *written;

	if (io->written_count == io->written_max)
		abort(); /* The journal counts what it submits. */
	written = &io->written[io->written_count++];
	written->cookie = write->cookie;
	written->status = write_pieces(io->fd, write);
	eventfd_write(io->event_fd, 1);
}

unsigned int petal_journal_io_reap(struct petal_journal_io *io,
				   struct petal_journal_written *written,
				   unsigned int max, bool wait)
{
	unsigned int count = io->written_count;
	eventfd_t signals;
	int status = 0;

	(void)wait; /* Nothing is ever outstanding here but the flush. */
	eventfd_read(io->event_fd, &signals);
	if (!count || max < count)
		return 0;
	if (fdatasync(io->fd))
		status = -errno;
	for (unsigned int i = 0; i < count; i++) {
		written[i] = io->written[i];
		if (!written[i].status)
			written[i].status = status;
	}
	io->written_count = 0;
	return count;
}
