/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/dax.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "shm/error.h"

#define PATH_BYTES 96

static int load_number(const char *directory, const char *name,
		       uint64_t *ret_number)
{
	char path[PATH_BYTES + 16];
	char text[32];
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0)
		return -EMEDIUMTYPE;
	text[length] = '\0';
	*ret_number = strtoull(text, NULL, 0);
	return 0;
}

/* The device's bus is where "subsystem" points, and says what it is. */
static int check_bus(const char *directory)
{
	char path[PATH_BYTES + 16];
	char link[256];
	const char *bus;
	ssize_t length;

	snprintf(path, sizeof(path), "%s/subsystem", directory);
	length = readlink(path, link, sizeof(link) - 1);
	if (length < 0)
		return -EMEDIUMTYPE;
	link[length] = '\0';
	bus = strrchr(link, '/');
	return bus && strcmp(bus, "/dax") == 0 ? 0 : -EMEDIUMTYPE;
}

int petal_dax_look(int fd, struct petal_dax *ret_dax)
{
	char directory[PATH_BYTES];
	struct petal_dax dax;
	struct stat status;
	int outcome;

	if (fstat(fd, &status))
		return -errno;
	if (!S_ISCHR(status.st_mode))
		return -EMEDIUMTYPE;
	snprintf(directory, sizeof(directory), "/sys/dev/char/%u:%u",
		 major(status.st_rdev), minor(status.st_rdev));
	outcome = check_bus(directory);
	if (!outcome)
		outcome = load_number(directory, "size", &dax.bytes);
	if (!outcome)
		outcome = load_number(directory, "align", &dax.align_bytes);
	if (outcome)
		return outcome;
	if (dax.bytes == 0 || dax.align_bytes < 4096 ||
	    dax.align_bytes & (dax.align_bytes - 1) ||
	    dax.bytes % dax.align_bytes)
		return -PETAL_EGEOMETRY;
	*ret_dax = dax;
	return 0;
}

int petal_dax_open(const char *path, int *ret_fd)
{
	struct petal_dax dax;
	int outcome;
	int fd;

	/* O_NONBLOCK, lest a fifo under this name holds us up. */
	fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT || errno == ENODEV ? -ENXIO
		       : errno == EISDIR                  ? -EMEDIUMTYPE
							  : -errno;
	outcome = petal_dax_look(fd, &dax);
	if (outcome) {
		close(fd);
		return outcome;
	}
	*ret_fd = fd;
	return 0;
}
