/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry's directory, before C-Raft sees it.
 *
 * Happy path: the directory is made if it may be, opened, and locked, so that
 * no second registry writes there. DIR/identity says whose it is and is
 * compared with who we are, byte for byte. If there is none, this is the first
 * start: C-Raft begins a log in DIR/log, and then the identity is written.
 *
 * Failure modes: a crash between beginning the log and writing the identity
 * leaves a log that never took part; it is removed and begun again. A log that
 * holds more than that, or an identity whose log is gone, means that somebody
 * removed what we had promised to keep: refused, for a voter that has forgotten
 * its votes can elect two leaders. A crash, or a full disk, while the identity
 * is written leaves `identity.new`, which the next start writes over.
 */
#include "fabric/registry_private.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/error.h"

#define IDENTITY_BYTES 1024

/* The directory. */

static int dir_make(const struct petal_registry_options *options)
{
	if (!options->must_exist && mkdir(options->dir, 0700) < 0 &&
	    errno != EEXIST)
		return -errno;
	return 0;
}

/* Open and lock the directory, alone, and make sure that we can write there. */
int registry_store_open(struct petal_registry *registry,
			const struct petal_registry_options *options)
{
	int err = dir_make(options);

	if (err < 0)
		return err;
	registry->dir_fd =
		open(options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (registry->dir_fd < 0)
		return -errno;
	if (flock(registry->dir_fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (faccessat(registry->dir_fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return -errno;
	return 0;
}

/* The identity. */

/* The text of DIR/identity; the voters are in order of their ids. */
static int identity_text(const struct petal_registry_options *options,
			 char text[static IDENTITY_BYTES])
{
	int at =
		snprintf(text, IDENTITY_BYTES, "petalith registry 1\ncluster ");

	for (unsigned i = 0; i < sizeof(options->cluster); i++)
		at += snprintf(text + at, IDENTITY_BYTES - (size_t)at, "%02x",
			       options->cluster[i]);
	at += snprintf(text + at, IDENTITY_BYTES - (size_t)at, "\nnode %u\n",
		       (unsigned)options->node);
	for (unsigned i = 0; i < options->voter_count; i++)
		at += snprintf(text + at, IDENTITY_BYTES - (size_t)at,
			       "voter %u %s\n",
			       (unsigned)options->voters[i].node,
			       options->voters[i].address);
	/* Seven voters of 64 bytes, and the rest, are 700 bytes at most. */
	assert(at < IDENTITY_BYTES);
	return at;
}

/* Read DIR/identity: 0 if it says @text, -ENOENT if it does not exist. */
static int identity_read(int dir_fd, const char *text, int length)
{
	static const char first_line[] = "petalith registry 1\n";
	char found[IDENTITY_BYTES + 1];
	ssize_t got;
	int fd = openat(dir_fd, "identity", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	got = read(fd, found, sizeof(found));
	close(fd);
	if (got < 0)
		return -PETAL_EDISK;
	if (got == length && memcmp(found, text, (size_t)length) == 0)
		return 0;
	if ((size_t)got < sizeof(first_line) - 1)
		return -PETAL_ECORRUPT;
	if (memcmp(found, first_line, sizeof(first_line) - 1) != 0)
		return memcmp(found, first_line, 18) == 0 ? -PETAL_EVERSION
							  : -PETAL_ECORRUPT;
	return -EINVAL;
}

/* Write DIR/identity so that it is there whole or not at all. */
static int identity_write(int dir_fd, const char *text, int length)
{
	int err = 0;
	int fd = openat(dir_fd, "identity.new",
			O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
			0600);

	if (fd < 0)
		return -errno;
	if (write(fd, text, (size_t)length) != length)
		err = -ENOSPC;
	else if (fsync(fd) < 0)
		err = -PETAL_EDISK;
	close(fd);
	if (err < 0)
		return err;
	if (renameat(dir_fd, "identity.new", dir_fd, "identity") < 0)
		return -errno;
	return fsync(dir_fd) < 0 ? -PETAL_EDISK : 0;
}

/* The log, as far as it is ours to judge. */

/* What C-Raft leaves if it dies while it begins a log. */
static bool is_unborn(const char *name)
{
	return strcmp(name, "metadata1") == 0 ||
	       strcmp(name, "metadata2") == 0 ||
	       strncmp(name, "tmp-", 4) == 0 ||
	       strcmp(name, "0000000000000001-0000000000000001") == 0;
}

/*
 * The identity is written between beginning the log and taking part, so a log
 * without one never took part and may be begun again; unless it holds more
 * than a log that was only begun, for then somebody removed the identity.
 */
static int unborn_log_clear(int dir_fd)
{
	struct dirent *entry;
	DIR *log;
	int err = 0;
	int fd = openat(dir_fd, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	log = fdopendir(fd);
	if (log == NULL) {
		close(fd);
		return -ENOMEM;
	}
	while (err == 0 && (entry = readdir(log)) != NULL) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (!is_unborn(entry->d_name))
			err = -PETAL_ECORRUPT;
		else if (unlinkat(fd, entry->d_name, 0) < 0)
			err = -errno;
	}
	closedir(log);
	return err;
}

static int log_check(int dir_fd)
{
	if (faccessat(dir_fd, "log", W_OK | X_OK, AT_EACCESS) == 0)
		return 0;
	return errno == ENOENT ? -PETAL_EDATALOSS : -errno;
}

static int unborn_log_make(int dir_fd)
{
	if (mkdirat(dir_fd, "log", 0700) < 0 && errno != EEXIST)
		return -errno;
	return unborn_log_clear(dir_fd);
}

int registry_store_check(const struct petal_registry *registry,
			 const struct petal_registry_options *options)
{
	char text[IDENTITY_BYTES];
	int length = identity_text(options, text);
	int err = identity_read(registry->dir_fd, text, length);

	if (err == 0)
		return log_check(registry->dir_fd);
	if (err != -ENOENT || options->must_exist)
		return err;
	err = unborn_log_make(registry->dir_fd);
	return err < 0 ? err : REGISTRY_STORE_UNBORN;
}

int registry_store_identify(const struct petal_registry *registry,
			    const struct petal_registry_options *options)
{
	char text[IDENTITY_BYTES];
	int length = identity_text(options, text);

	return identity_write(registry->dir_fd, text, length);
}
