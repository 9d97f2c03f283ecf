/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The recording is done by the wrapped calls at the end of this file; it is a
 * list of what happened, and the bytes that were written last all differ from
 * zero in the superblocks only, so that two images of the file are enough.
 */

#include "tests/disk/create.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/error.h"
#include "tests/disk/life.h"

enum {
	EVENTS_MAX = 1024,
	PARTS = 8,
};

enum event_kind { EVENT_WRITE, EVENT_SYNC, EVENT_RENAME, EVENT_SYNC_DIR };

struct event {
	enum event_kind kind;
	uint64_t offset;
	uint64_t length;
	uint8_t *bytes;
};

static struct {
	bool recording;
	unsigned int count;
	struct event events[EVENTS_MAX];
	/* What is on the disk, and what may be. */
	uint8_t *synced;
	uint8_t *written;
	uint64_t synced_bytes;
	uint64_t written_bytes;
	char dir[256];
	char name[300];
	char name_new[300];
	struct petal_journal_options options;
	uint64_t states;
	uint64_t failed;
} create;

static void event_add(enum event_kind kind)
{
	if (create.count == EVENTS_MAX)
		abort();
	create.events[create.count++] = (struct event){ .kind = kind };
}

static void failure(unsigned int at, const char *why, int err)
{
	create.failed++;
	fprintf(stderr, "disk: creation, cut after call %u of %u: %s (%s)\n",
		at, create.count, why, petal_error_name(err));
}

static void file_put(const char *name, const uint8_t *bytes, uint64_t length)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, bytes, length) != (ssize_t)length)
		exit(2);
	close(fd);
}

static int nothing(void *arg, const struct petal_journal_range *range,
		   const void *bytes)
{
	(void)arg;
	(void)range;
	(void)bytes;
	return -ECANCELED;
}

/* @bytes under @name: what does the journal make of it? */
static void state_try(unsigned int at, const char *name, const uint8_t *bytes,
		      uint64_t length)
{
	bool made = at == create.count;
	struct petal_journal *journal = NULL;
	int err;

	create.states++;
	unlink(create.name);
	unlink(create.name_new);
	file_put(name, bytes, length);
	err = petal_journal_open(&create.options, &journal);
	if (!err)
		err = petal_journal_replay(journal, nothing, NULL);
	if (err)
		failure(at, "it does not open", err);
	else if (made && memcmp(create.synced + 16, journal->uuid, 16))
		failure(at, "it was made, and is another one now", 0);
	petal_journal_close(journal);
}

/* Nothing of what is not synced, all, and some of it. */
static void name_try(unsigned int at, const char *name, uint8_t *mixed)
{
	state_try(at, name, create.synced, create.synced_bytes);
	if (create.synced_bytes == create.written_bytes &&
	    !memcmp(create.synced, create.written, LIFE_BYTES))
		return;
	state_try(at, name, create.written, create.written_bytes);
	for (unsigned int part = 0; part < PARTS; part++) {
		memcpy(mixed, create.synced, LIFE_BYTES);
		for (uint64_t i = 0; i < LIFE_BYTES; i += SECTOR) {
			if (chance(2))
				memcpy(mixed + i, create.written + i, SECTOR);
		}
		state_try(at, name, mixed,
			  chance(2) ? LIFE_BYTES : create.written_bytes);
	}
}

static void cuts_try(void)
{
	uint8_t *mixed = malloc(LIFE_BYTES);
	bool renamed = false, named = false;

	if (!mixed)
		abort();
	for (unsigned int i = 0; i < create.count; i++) {
		struct event *event = &create.events[i];

		if (event->kind == EVENT_WRITE) {
			memcpy(create.written + event->offset, event->bytes,
			       event->length);
			if (event->offset + event->length >
			    create.written_bytes)
				create.written_bytes =
					event->offset + event->length;
		} else if (event->kind == EVENT_SYNC) {
			memcpy(create.synced, create.written, LIFE_BYTES);
			create.synced_bytes = create.written_bytes;
		} else if (event->kind == EVENT_RENAME) {
			renamed = true;
		} else {
			named = renamed;
		}
		if (!named)
			name_try(i + 1, create.name_new, mixed);
		if (renamed)
			name_try(i + 1, create.name, mixed);
	}
	free(mixed);
}

uint64_t create_cut(const char *dir, uint64_t *ret_failed)
{
	struct petal_journal *journal;
	int err;

	snprintf(create.dir, sizeof(create.dir), "%s", dir);
	snprintf(create.name, sizeof(create.name), "%s/journal.0", dir);
	snprintf(create.name_new, sizeof(create.name_new), "%s/journal.0.new",
		 dir);
	create.options = (struct petal_journal_options){
		.dir = create.dir,
		.bytes = LIFE_BYTES,
	};
	create.synced = calloc(1, LIFE_BYTES);
	create.written = calloc(1, LIFE_BYTES);
	if (!create.synced || !create.written)
		abort();
	recorder_watch = (struct recorder_watch){ 0 };
	create.recording = true;
	err = petal_journal_open(&create.options, &journal);
	create.recording = false;
	if (err)
		failure(0, "it cannot be made", err);
	else
		petal_journal_close(journal);
	cuts_try();
	free(create.synced);
	free(create.written);
	unlink(create.name);
	for (unsigned int i = 0; i < create.count; i++)
		free(create.events[i].bytes);
	*ret_failed = create.failed;
	return create.states;
}

/*
 * The calls that platter.c and the linker lead here.
 */

int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);

int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	if (create.recording)
		event_add(EVENT_RENAME);
	return __real_renameat(from_fd, from, to_fd, to);
}

void create_saw_write(const void *bytes, uint64_t length, uint64_t offset)
{
	struct event *event = &create.events[create.count];

	if (!create.recording)
		return;
	event_add(EVENT_WRITE);
	event->offset = offset;
	event->length = length;
	event->bytes = malloc(length);
	if (!event->bytes || offset + length > LIFE_BYTES)
		abort();
	memcpy(event->bytes, bytes, length);
}

void create_saw_sync(int fd)
{
	struct stat status;

	if (!create.recording || fstat(fd, &status))
		return;
	event_add(S_ISDIR(status.st_mode) ? EVENT_SYNC_DIR : EVENT_SYNC);
}
