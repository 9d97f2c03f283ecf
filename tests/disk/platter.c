/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/disk/platter.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>

#include "fabric/journal.h"
#include "tests/disk/create.h"

enum {
	POOL_MAX = 64,
};

ssize_t __real_pread(int fd, void *to, size_t length, off_t offset);
ssize_t __real_pwrite(int fd, const void *from, size_t length, off_t offset);
int __real_fsync(int fd);
void *__real_mmap(void *at, size_t length, int protection, int flags, int fd,
		  off_t offset);
int __real_munmap(void *at, size_t length);

ssize_t __wrap_pread(int fd, void *to, size_t length, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *from, size_t length, off_t offset);
int __wrap_fsync(int fd);
void *__wrap_mmap(void *at, size_t length, int protection, int flags, int fd,
		  off_t offset);
int __wrap_munmap(void *at, size_t length);

static struct platter *turning;

static struct {
	void *at;
	size_t length;
	bool lent;
} pool[POOL_MAX];

struct platter *platter_turn(struct platter *platter)
{
	struct platter *before = turning;

	turning = platter;
	return before;
}

static bool is_unreadable(uint64_t offset, size_t length)
{
	return turning->unreadable && turning->unreadable < offset + length &&
	       turning->unreadable + PETAL_JOURNAL_BLOCK_BYTES > offset;
}

ssize_t __wrap_pread(int fd, void *to, size_t length, off_t offset)
{
	uint64_t at = (uint64_t)offset;

	if (!turning)
		return __real_pread(fd, to, length, offset);
	if (is_unreadable(at, length)) {
		errno = EIO;
		return -1;
	}
	if (at >= turning->bytes)
		return 0;
	if (length > turning->bytes - at)
		length = turning->bytes - at;
	memcpy(to, turning->map + at, length);
	return (ssize_t)length;
}

ssize_t __wrap_pwrite(int fd, const void *from, size_t length, off_t offset)
{
	uint64_t at = (uint64_t)offset;

	if (!turning) {
		create_saw_write(from, length, at);
		return __real_pwrite(fd, from, length, offset);
	}
	if (at > turning->bytes || length > turning->bytes - at) {
		errno = EFBIG;
		return -1;
	}
	memcpy(turning->map + at, from, length);
	if (is_unreadable(at, length))
		turning->unreadable = 0;
	return (ssize_t)length;
}

int __wrap_fsync(int fd)
{
	if (turning)
		return 0;
	create_saw_sync(fd);
	return __real_fsync(fd);
}

void *__wrap_mmap(void *at, size_t length, int protection, int flags, int fd,
		  off_t offset)
{
	void *made;

	for (unsigned int i = 0; fd < 0 && i < POOL_MAX; i++) {
		if (pool[i].lent || pool[i].length != length)
			continue;
		pool[i].lent = true;
		memset(pool[i].at, 0, length);
		return pool[i].at;
	}
	made = __real_mmap(at, length, protection, flags, fd, offset);
	for (unsigned int i = 0; fd < 0 && made != MAP_FAILED && i < POOL_MAX;
	     i++) {
		if (pool[i].at)
			continue;
		pool[i].at = made;
		pool[i].length = length;
		pool[i].lent = true;
		break;
	}
	return made;
}

int __wrap_munmap(void *at, size_t length)
{
	for (unsigned int i = 0; i < POOL_MAX; i++) {
		if (pool[i].at == at) {
			pool[i].lent = false;
			return 0;
		}
	}
	return __real_munmap(at, length);
}
