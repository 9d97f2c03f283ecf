/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The engine: a list of writes, oldest first. One that is on the disk leaves it
 * when the journal has been told; a failed one stays.
 */

#include "tests/disk/recorder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct petal_journal_io {
	int event_fd;
	struct recorder_watch watch;
	unsigned int count;
	struct recorder_write writes[RECORDER_WRITES_MAX];
};

struct recorder_watch recorder_watch;

const char *petal_journal_io_name(void)
{
	return "recorder";
}

int petal_journal_io_open_flags(void)
{
	return 0;
}

int petal_journal_io_open(int fd, unsigned int writes_max,
			  unsigned int buffers_max,
			  struct petal_journal_io **ret_io)
{
	struct petal_journal_io *io = calloc(1, sizeof(*io));

	(void)fd;
	(void)buffers_max;
	if (!io || writes_max > RECORDER_WRITES_MAX)
		abort();
	io->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	io->watch = recorder_watch;
	*ret_io = io;
	return 0;
}

void petal_journal_io_close(struct petal_journal_io *io)
{
	for (unsigned int i = 0; i < io->count; i++)
		free(io->writes[i].bytes);
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

void petal_journal_io_submit(struct petal_journal_io *io,
			     const struct petal_journal_write *from)
{
	struct recorder_write *write = &io->writes[io->count];
	uint8_t *to;

	if (io->count == RECORDER_WRITES_MAX)
		abort();
	*write = (struct recorder_write){ .offset = from->offset,
					  .cookie = from->cookie };
	for (unsigned int i = 0; i < from->piece_count; i++)
		write->length += from->pieces[i].iov_len;
	write->bytes = malloc(write->length);
	if (!write->bytes)
		abort();
	to = write->bytes;
	for (unsigned int i = 0; i < from->piece_count; i++) {
		memcpy(to, from->pieces[i].iov_base, from->pieces[i].iov_len);
		to += from->pieces[i].iov_len;
	}
	io->count++;
	if (io->watch.submitted)
		io->watch.submitted(io->watch.arg, write);
}

unsigned int recorder_writes(struct petal_journal_io *io,
			     const struct recorder_write **ret_writes)
{
	*ret_writes = io->writes;
	return io->count;
}

static bool waits(const struct recorder_write *write)
{
	return !write->on_disk && !write->status;
}

unsigned int recorder_waiting(const struct petal_journal_io *io)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < io->count; i++)
		count += waits(&io->writes[i]);
	return count;
}

void recorder_settle(struct petal_journal_io *io, unsigned int nth, int status)
{
	struct recorder_write *write = io->writes;

	while (!waits(write) || nth--)
		write++;
	write->told_next = true;
	write->status = status;
	if (status)
		return;
	write->on_disk = true;
	memcpy(io->watch.map + write->offset, write->bytes, write->length);
	if (io->watch.landed)
		io->watch.landed(io->watch.arg, write);
}

/* What is on the disk and was told of is no longer in flight. */
static void forget_landed(struct petal_journal_io *io)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < io->count; i++) {
		struct recorder_write *write = &io->writes[i];

		if (write->on_disk && !write->told_next)
			free(write->bytes);
		else
			io->writes[kept++] = *write;
	}
	io->count = kept;
}

unsigned int petal_journal_io_reap(struct petal_journal_io *io,
				   struct petal_journal_written *written,
				   unsigned int max, bool wait)
{
	unsigned int count = 0;

	while (wait && recorder_waiting(io))
		recorder_settle(io, 0, 0);
	for (unsigned int i = 0; i < io->count && count < max; i++) {
		struct recorder_write *write = &io->writes[i];

		if (!write->told_next)
			continue;
		write->told_next = false;
		written[count].cookie = write->cookie;
		written[count++].status = write->status;
	}
	forget_landed(io);
	return count;
}
