/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/promise.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/crc32c.h"
#include "shm/error.h"

#define PROMISE_MAGIC UINT64_C(0x6573696d6f727031)
#define PROMISE_VERSION 1u
#define BLOCK_BYTES 4096u

struct promise_head {
	uint64_t magic;
	uint32_t version;
	uint32_t count;
	uint64_t sequence;
	uint32_t reserved;
	uint32_t crc; /* of the whole block, this word being 0 */
};

union promise_block {
	struct promise_head head;
	struct {
		struct promise_head unused;
		struct petal_promise_ring rings[PETAL_PROMISE_RINGS_MAX];
	};
	uint8_t bytes[BLOCK_BYTES];
};

static_assert(sizeof(struct promise_head) == 32, "layout");
static_assert(sizeof(struct petal_promise_ring) == 16, "layout");
static_assert(sizeof(union promise_block) == BLOCK_BYTES, "layout");

static uint32_t block_crc(union promise_block *block)
{
	uint32_t kept = block->head.crc;
	uint32_t crc;

	block->head.crc = 0;
	crc = petal_crc32c(0, block->bytes, sizeof(block->bytes));
	block->head.crc = kept;
	return crc;
}

/* 0 with the block's content when it is newer; 1 when it is none of ours. */
static int take_block(struct petal_promise *p, union promise_block *block)
{
	if (block->head.magic != PROMISE_MAGIC ||
	    block->head.crc != block_crc(block))
		return 1;
	if (block->head.version != PROMISE_VERSION)
		return -PETAL_EVERSION;
	if (block->head.count > PETAL_PROMISE_RINGS_MAX)
		return 1;
	if (block->head.sequence <= p->sequence)
		return 0;
	p->sequence = block->head.sequence;
	p->count = block->head.count;
	memcpy(p->rings, block->rings, sizeof(p->rings));
	return 0;
}

static int write_block(struct petal_promise *p)
{
	union promise_block block;
	ssize_t n;

	memset(&block, 0, sizeof(block));
	block.head.magic = PROMISE_MAGIC;
	block.head.version = PROMISE_VERSION;
	block.head.count = p->count;
	block.head.sequence = p->sequence + 1;
	memcpy(block.rings, p->rings, p->count * sizeof(p->rings[0]));
	block.head.crc = block_crc(&block);
	n = pwrite(p->fd, block.bytes, sizeof(block.bytes),
		   (off_t)(block.head.sequence % 2 * BLOCK_BYTES));
	if (n != (ssize_t)sizeof(block.bytes))
		return -PETAL_EDISK;
	p->sequence++;
	p->dirty = false;
	return 0;
}

static int read_blocks(struct petal_promise *p)
{
	union promise_block block;
	unsigned good = 0;
	int err;

	for (unsigned i = 0; i < 2; i++) {
		ssize_t n = pread(p->fd, block.bytes, sizeof(block.bytes),
				  (off_t)i * BLOCK_BYTES);

		if (n < 0)
			return -errno;
		if (n != (ssize_t)sizeof(block.bytes))
			continue;
		err = take_block(p, &block);
		if (err < 0)
			return err;
		good += err == 0;
	}
	return good > 0 ? 0 : -PETAL_ECORRUPT;
}

/* The name is durable only with its directory. */
static int sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* A file that never had a whole block has never been answered from. */
static int begin(struct petal_promise *p, const char *dir, const char *path)
{
	char fresh[PATH_MAX];
	int err;

	if (snprintf(fresh, sizeof(fresh), "%s.new", path) >=
	    (int)sizeof(fresh))
		return -ENAMETOOLONG;
	p->fd = open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_DSYNC,
		     0600);
	if (p->fd < 0)
		return -errno;
	err = write_block(p);
	if (err == 0)
		err = write_block(p);
	if (err == 0 && rename(fresh, path) < 0)
		err = -errno;
	if (err == 0)
		err = sync_dir(dir);
	return err;
}

int petal_promise_open(const char *dir, struct petal_promise *ret_promise)
{
	struct petal_promise p = { .fd = -1 };
	char path[PATH_MAX];
	int err;

	if (snprintf(path, sizeof(path), "%s/%s", dir, PETAL_PROMISE_FILE) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	p.fd = open(path, O_RDWR | O_CLOEXEC | O_DSYNC);
	if (p.fd >= 0)
		err = read_blocks(&p);
	else
		err = errno == ENOENT ? begin(&p, dir, path) : -errno;
	if (err < 0) {
		petal_promise_close(&p);
		return err;
	}
	*ret_promise = p;
	return 0;
}

void petal_promise_close(struct petal_promise *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

static struct petal_promise_ring *find(struct petal_promise *p, uint64_t ring)
{
	for (uint32_t i = 0; i < p->count; i++) {
		if (p->rings[i].ring == ring)
			return &p->rings[i];
	}
	return NULL;
}

uint32_t petal_promise_epoch(const struct petal_promise *p, uint64_t ring)
{
	for (uint32_t i = 0; i < p->count; i++) {
		if (p->rings[i].ring == ring)
			return p->rings[i].epoch;
	}
	return 0;
}

int petal_promise_raise(struct petal_promise *p, uint64_t ring, uint32_t epoch)
{
	struct petal_promise_ring *found = find(p, ring);

	if (found == NULL && p->count == PETAL_PROMISE_RINGS_MAX)
		return -ENOSPC;
	if (found == NULL) {
		found = &p->rings[p->count++];
		*found = (struct petal_promise_ring){ .ring = ring };
	}
	if (epoch < found->epoch)
		return -ESTALE;
	p->dirty |= epoch > found->epoch;
	found->epoch = epoch;
	return 0;
}

int petal_promise_flush(struct petal_promise *p)
{
	if (p->failed == 0 && p->dirty)
		p->failed = write_block(p);
	return p->failed;
}

void petal_promise_forget(struct petal_promise *p, uint64_t ring)
{
	struct petal_promise_ring *found = find(p, ring);

	if (found != NULL)
		*found = p->rings[--p->count];
}
