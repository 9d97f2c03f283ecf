/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A demo holds a lock on a file in its temporary directory as long as it runs.
 * One that was killed could not remove its directory; the next finds the lock
 * free and does.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/cli/demo.h"

#define PREFIX "petalith-demo-"
#define LOCK "lock"

static int remove_any(const char *path, const struct stat *stat, int type,
		      struct FTW *ftw)
{
	(void)stat;
	(void)type;
	(void)ftw;
	remove(path);
	return 0;
}

static int remove_inner(const char *path, const struct stat *stat, int type,
			struct FTW *ftw)
{
	return ftw->level > 0 ? remove_any(path, stat, type, ftw) : 0;
}

static void remove_tree(const char *path)
{
	nftw(path, remove_any, 16, FTW_DEPTH | FTW_PHYS);
}

/* The lock exists under its name only when it is held. */
static int make_lock(const char *dir)
{
	char young[PATH_MAX], name[PATH_MAX];
	int fd;

	snprintf(young, sizeof(young), "%.*s/.%s", PATH_MAX - 16, dir, LOCK);
	snprintf(name, sizeof(name), "%.*s/%s", PATH_MAX - 16, dir, LOCK);
	fd = open(young, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 || rename(young, name) < 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

static void sweep_one(const char *path)
{
	char name[PATH_MAX];
	struct stat stat;
	int fd;

	if (lstat(path, &stat) < 0 || !S_ISDIR(stat.st_mode) ||
	    stat.st_uid != geteuid())
		return;
	snprintf(name, sizeof(name), "%.*s/%s", PATH_MAX - 16, path, LOCK);
	fd = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		remove_tree(path);
	close(fd);
}

static void sweep(const char *base)
{
	DIR *list = opendir(base);
	struct dirent *entry;
	char path[PATH_MAX];

	while (list != NULL && (entry = readdir(list)) != NULL) {
		if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0)
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", base, entry->d_name) <
		    (int)sizeof(path))
			sweep_one(path);
	}
	if (list != NULL)
		closedir(list);
}

static bool is_empty(const char *path)
{
	DIR *list = opendir(path);
	struct dirent *entry;
	unsigned count = 0;

	while (list != NULL && (entry = readdir(list)) != NULL)
		count++;
	if (list != NULL)
		closedir(list);
	return count == 2; /* itself and its parent */
}

static int open_given(struct demo *demo)
{
	const char *dir = demo->options.dir;

	demo->made_dir = mkdir(dir, 0700) == 0;
	if (!demo->made_dir && errno != EEXIST)
		return demo_fail(demo, "cannot make the directory '%s': %s",
				 dir, strerrordesc_np(errno));
	if (access(dir, R_OK | W_OK | X_OK) < 0)
		return demo_fail(demo,
				 "cannot write into the directory '%s': %s",
				 dir, strerrordesc_np(errno));
	if (is_empty(dir) && realpath(dir, demo->dir) != NULL)
		return 0;
	return demo_fail(demo,
			 "the directory '%s' is not empty, expected a "
			 "new or an empty one",
			 dir);
}

int demo_dir_open(struct demo *demo)
{
	const char *base = getenv("TMPDIR");

	demo->dir_lock = -1;
	if (demo->options.dir != NULL)
		return open_given(demo);
	if (base == NULL || base[0] != '/')
		base = "/tmp";
	sweep(base);
	if (snprintf(demo->dir, sizeof(demo->dir), "%s/" PREFIX "XXXXXX",
		     base) >= (int)sizeof(demo->dir) ||
	    mkdtemp(demo->dir) == NULL) {
		demo->dir[0] = '\0';
		return demo_fail(demo, "cannot make a directory in '%s': %s",
				 base, strerrordesc_np(errno));
	}
	demo->dir_lock = make_lock(demo->dir);
	if (demo->dir_lock < 0)
		return demo_fail(demo, "cannot write into '%s': %s", demo->dir,
				 strerrordesc_np(-demo->dir_lock));
	return 0;
}

void demo_dir_close(struct demo *demo)
{
	bool given = demo->options.dir != NULL;

	if (demo->dir[0] != '\0' && (!given || (demo->made_dir && !demo->kept)))
		remove_tree(demo->dir);
	else if (demo->dir[0] != '\0' && !demo->kept)
		nftw(demo->dir, remove_inner, 16, FTW_DEPTH | FTW_PHYS);
	if (demo->dir_lock >= 0)
		close(demo->dir_lock);
	demo->dir_lock = -1;
}
