/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the device takes: one O_DIRECT|O_DSYNC write after the other into a file
 * that was filled before, each as large as a batch of our journal was. Once
 * with one writer; once with three, for three petald share the device here.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "bench/replicate.h"
#include "shm/atomic.h"
#include "shm/error.h"

#define WRITERS 3u
#define FILE_BYTES (UINT64_C(32) << 20)
#define BLOCK_BYTES UINT64_C(4096)
#define WRITE_MAX (UINT64_C(4) << 20)

struct writer {
	pthread_t thread;
	int fd;
	uint64_t pos;
};

static struct writer writers[WRITERS];
static bool filled;
static uint64_t write_bytes;
static unsigned records;
static unsigned helpers;
static struct petal_u32 stop;
static alignas(4096) uint8_t bytes[WRITE_MAX];

static int write_one(struct writer *writer)
{
	if (writer->pos + write_bytes > FILE_BYTES)
		writer->pos = 0;
	if (pwrite(writer->fd, bytes, write_bytes, (off_t)writer->pos) !=
	    (ssize_t)write_bytes)
		return errno ? -errno : -EIO;
	writer->pos += write_bytes;
	return 0;
}

static void *write_on(void *arg)
{
	while (!petal_load(&stop, PETAL_RELAXED) && write_one(arg) == 0)
		continue;
	return NULL;
}

static int fill(struct petal_nest *nest, struct writer *writer, unsigned index)
{
	char name[32], path[PETAL_NEST_PATH];

	snprintf(name, sizeof(name), "device.%u", index);
	petal_nest_path(nest, name, path);
	writer->fd = open(
		path, O_RDWR | O_CREAT | O_CLOEXEC | O_DIRECT | O_DSYNC, 0600);
	if (writer->fd < 0)
		return -errno;
	write_bytes = WRITE_MAX;
	for (uint64_t at = 0; at < FILE_BYTES; at += WRITE_MAX) {
		int err = write_one(writer);

		if (err < 0)
			return err;
	}
	return 0;
}

static int device_open(struct replicate_system *system, struct petal_nest *nest)
{
	int err = 0;

	for (unsigned i = 0; i < WRITERS && err == 0 && !filled; i++)
		err = fill(nest, &writers[i], i);
	filled = err == 0;
	if (err < 0)
		snprintf(system->reason, sizeof(system->reason),
			 "no O_DIRECT|O_DSYNC file in %.100s: %s", nest->dir,
			 petal_strerror(err));
	return err;
}

static int device_begin(struct replicate_system *system,
			const struct replicate_leg *leg)
{
	unsigned wanted = system == &replicate_devices ? WRITERS - 1 : 0;
	double batch = replicate_petal_batch();
	int err = 0;

	records = batch < 1 ? 1 : (unsigned)(batch + 0.5);
	write_bytes = (records * leg->bytes + BLOCK_BYTES - 1) / BLOCK_BYTES *
		      BLOCK_BYTES;
	if (write_bytes > WRITE_MAX)
		write_bytes = WRITE_MAX;
	petal_store(&stop, 0, PETAL_RELAXED);
	for (helpers = 0; helpers < wanted && err == 0; helpers += err == 0)
		err = -pthread_create(&writers[helpers + 1].thread, NULL,
				      write_on, &writers[helpers + 1]);
	return err;
}

static int device_post(struct replicate_system *system, uint64_t sequence)
{
	(void)system;
	memcpy(bytes, &sequence, sizeof(sequence));
	return 0;
}

/* A write of a batch answers the records that it holds. */
static int device_await(struct replicate_system *system, unsigned least)
{
	int done = 0, err = 0;

	(void)system;
	while (err == 0 && done < (int)least) {
		err = write_one(&writers[0]);
		done += (int)records;
	}
	return err < 0 ? err : done;
}

static int device_end(struct replicate_system *system)
{
	(void)system;
	petal_store(&stop, 1, PETAL_RELAXED);
	while (helpers > 0)
		pthread_join(writers[helpers--].thread, NULL);
	return 0;
}

struct replicate_system replicate_device = {
	.impl = "device-1",
	.levels = 1u << REPLICATE_DISK2,
	.window = REPLICATE_WINDOW_MAX,
	.floor = true,
	.remark = "O_DIRECT|O_DSYNC writes of our journal's mean batch",
	.open = device_open,
	.begin = device_begin,
	.post = device_post,
	.await = device_await,
	.end = device_end,
};

struct replicate_system replicate_devices = {
	.impl = "device-3",
	.levels = 1u << REPLICATE_DISK2,
	.window = REPLICATE_WINDOW_MAX,
	.floor = true,
	.remark = "the same with three writers at a time; the rate of one",
	.open = device_open,
	.begin = device_begin,
	.post = device_post,
	.await = device_await,
	.end = device_end,
};
