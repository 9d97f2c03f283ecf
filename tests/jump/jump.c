/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A time of day that jumps, for one process (LD_PRELOAD): PETAL_JUMP names a
 * file with a signed 64-bit number of seconds, which is added to whatever the
 * kernel says, from the moment at which it changes.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static _Atomic int64_t *jump;

__attribute__((constructor)) static void jump_open(void)
{
	const char *path = getenv("PETAL_JUMP");
	int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
	void *map;

	if (fd < 0)
		return;
	map = mmap(NULL, sizeof(*jump), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		jump = map;
}

static int64_t jumped_s(void)
{
	return jump == NULL ? 0
			    : atomic_load_explicit(jump, memory_order_relaxed);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int err = (int)syscall(SYS_clock_gettime, clock, now);

	if (err == 0 && clock == CLOCK_REALTIME)
		now->tv_sec += jumped_s();
	return err;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	int err = (int)syscall(SYS_gettimeofday, now, zone);

	if (err == 0)
		now->tv_sec += jumped_s();
	return err;
}

time_t time(time_t *ret_now)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (ret_now != NULL)
		*ret_now = now.tv_sec;
	return now.tv_sec;
}
