/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The journal's file: made so that half of one never bears its name, locked so
 * that nobody else writes to it, identified by superblocks of which two must
 * agree, and tried out before anything depends on it.
 *
 * The lock belongs to the same open file as the writes. After kill -9 the
 * kernel may still be writing for a while, and keeps that file open, and with
 * it the lock, until it is done.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <linux/magic.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "fabric/journal_private.h"
#include "shm/crc32c.h"
#include "shm/error.h"

#define FILE_NAME "journal.0"
#define FILE_NAME_NEW "journal.0.new"

#define SUPERBLOCK_MAGIC UINT64_C(0x306a6c6174657010)

enum {
	SUPERBLOCK_COPIES = 4,
	SUPERBLOCK_AGREE = 2,
	/* Aligned to one block and to no more, as the batches will be. */
	TRYOUT_OFFSET = 5 * BLOCK,
	OPEN_ATTEMPTS = 8,
};

/*
 * Every format of the journal, this and later ones, keeps the magic, the
 * version behind it, and the checksum in the last four bytes of the block.
 */
struct superblock {
	uint64_t magic;
	uint32_t version;
	uint32_t block_bytes;
	uint8_t uuid[16];
	uint8_t cluster[16];
	uint32_t node;
	uint32_t zero;
	uint64_t file_bytes;
	uint64_t area_offset;
	uint8_t reserved[4020];
	uint32_t crc;
};

static_assert(sizeof(struct superblock) == BLOCK, "one block");
static_assert(offsetof(struct superblock, version) == 8, "kept for ever");
static_assert(offsetof(struct superblock, uuid) == 16, "no hole");
static_assert(offsetof(struct superblock, node) == 48, "no hole");
static_assert(offsetof(struct superblock, file_bytes) == 56, "no hole");
static_assert(offsetof(struct superblock, crc) == BLOCK - 4, "kept for ever");

int petal_journal_file_read(int fd, void *bytes, uint64_t length,
			    uint64_t offset)
{
	ssize_t got = pread(fd, bytes, length, (off_t)offset);

	if (got < 0)
		return -errno;
	return (uint64_t)got == length ? 0 : -EIO;
}

static int file_write(int fd, const void *bytes, uint64_t length,
		      uint64_t offset)
{
	ssize_t put = pwrite(fd, bytes, length, (off_t)offset);

	if (put < 0)
		return -errno;
	return (uint64_t)put == length ? 0 : -EIO;
}

/* Some file systems accept O_DIRECT at open and refuse the transfer. */
static int direct_drop(struct petal_journal *journal)
{
	int flags = fcntl(journal->fd, F_GETFL);

	if (flags < 0 || fcntl(journal->fd, F_SETFL, flags & ~O_DIRECT))
		return -errno;
	journal->direct = false;
	return 0;
}

/* What the file system says of itself, where it says anything. */
static bool direct_refused(int fd)
{
#ifdef STATX_DIOALIGN
	struct statx status;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) ||
	    !(status.stx_mask & STATX_DIOALIGN))
		return false;
	return !status.stx_dio_offset_align ||
	       status.stx_dio_offset_align > BLOCK ||
	       status.stx_dio_mem_align > BLOCK;
#else
	(void)fd;
	return false;
#endif
}

/* Lock the file, unless somebody renamed or removed it meanwhile. */
static int file_lock(int dir_fd, int fd, const char *name)
{
	struct stat opened, named;

	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(fd, &opened))
		return -errno;
	if (!S_ISREG(opened.st_mode))
		return -PETAL_ECORRUPT;
	if (fstatat(dir_fd, name, &named, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? -ESTALE : -errno;
	return opened.st_dev == named.st_dev && opened.st_ino == named.st_ino
		       ? 0
		       : -ESTALE;
}

static int file_open(struct petal_journal *journal, const char *name, int flags)
{
	int fd, err;

	flags |= O_RDWR | O_CLOEXEC | O_NOFOLLOW |
		 petal_journal_io_open_flags();
	fd = openat(journal->dir_fd, name,
		    flags | (journal->direct ? O_DIRECT : 0), 0600);
	if (fd < 0 && errno == EINVAL && journal->direct) {
		journal->direct = false;
		fd = openat(journal->dir_fd, name, flags, 0600);
	}
	if (fd < 0)
		return -errno;
	err = file_lock(journal->dir_fd, fd, name);
	if (err) {
		close(fd);
		return err;
	}
	journal->fd = fd;
	return 0;
}

void petal_journal_file_close(struct petal_journal *journal)
{
	if (journal->fd < 0)
		return;
	/* A ring that the kernel is still taking apart holds the file too. */
	flock(journal->fd, LOCK_UN);
	close(journal->fd);
	journal->fd = -1;
}

static int tryout(int fd, uint8_t *block)
{
	uint8_t pattern[32];
	int err;

	if (getrandom(pattern, sizeof(pattern), 0) != sizeof(pattern))
		return -EIO;
	memset(block, 0, BLOCK);
	memcpy(block, pattern, sizeof(pattern));
	err = file_write(fd, block, BLOCK, TRYOUT_OFFSET);
	if (err)
		return err;
	memset(block, 0, BLOCK);
	err = petal_journal_file_read(fd, block, BLOCK, TRYOUT_OFFSET);
	if (err)
		return err;
	return memcmp(block, pattern, sizeof(pattern)) ? -EIO : 0;
}

/* Write a block and read it back, before anything depends on that. */
static int file_tryout(struct petal_journal *journal)
{
	uint8_t *block = petal_journal_pages_alloc(BLOCK);
	int err;

	if (!block)
		return -ENOMEM;
	if (journal->direct && direct_refused(journal->fd))
		err = -EINVAL;
	else
		err = tryout(journal->fd, block);
	if (err == -EINVAL && journal->direct) {
		err = direct_drop(journal);
		if (!err)
			err = tryout(journal->fd, block);
	}
	petal_journal_pages_free(block, BLOCK);
	return err;
}

/*
 * Superblocks.
 */

static uint32_t superblock_crc(const struct superblock *superblock)
{
	return petal_crc32c(0, superblock, offsetof(struct superblock, crc));
}

static void superblock_fill(struct superblock *superblock,
			    const struct petal_journal *journal,
			    const struct petal_journal_options *options)
{
	memset(superblock, 0, sizeof(*superblock));
	superblock->magic = SUPERBLOCK_MAGIC;
	superblock->version = PETAL_JOURNAL_VERSION;
	superblock->block_bytes = BLOCK;
	memcpy(superblock->uuid, journal->uuid, sizeof(superblock->uuid));
	memcpy(superblock->cluster, options->cluster,
	       sizeof(superblock->cluster));
	superblock->node = options->node;
	superblock->file_bytes = options->bytes;
	superblock->area_offset = AREA_OFFSET;
	superblock->crc = superblock_crc(superblock);
}

static bool superblock_valid(const struct superblock *superblock)
{
	return superblock->magic == SUPERBLOCK_MAGIC &&
	       superblock->crc == superblock_crc(superblock);
}

static unsigned int copies_like(const struct superblock *copies,
				const struct superblock *like)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < SUPERBLOCK_COPIES; i++)
		count += !memcmp(&copies[i], like, sizeof(*like));
	return count;
}

/* Two against two is not for us to decide. */
static int superblock_elect(const struct superblock *copies,
			    const struct superblock **ret_elected)
{
	const struct superblock *elected = NULL;

	for (unsigned int i = 0; i < SUPERBLOCK_COPIES; i++) {
		if (!superblock_valid(&copies[i]) ||
		    copies_like(copies, &copies[i]) < SUPERBLOCK_AGREE)
			continue;
		if (elected && memcmp(elected, &copies[i], sizeof(*elected)))
			return -PETAL_ECORRUPT;
		elected = &copies[i];
	}
	if (!elected)
		return -PETAL_ECORRUPT;
	*ret_elected = elected;
	return 0;
}

static int superblock_check(const struct superblock *superblock,
			    const struct petal_journal_options *options,
			    uint64_t file_bytes)
{
	if (superblock->version != PETAL_JOURNAL_VERSION)
		return -PETAL_EVERSION;
	if (memcmp(superblock->cluster, options->cluster,
		   sizeof(superblock->cluster)) ||
	    superblock->node != options->node)
		return -PETAL_EAUTH;
	if (superblock->block_bytes != BLOCK ||
	    superblock->area_offset != AREA_OFFSET ||
	    superblock->file_bytes != file_bytes)
		return -PETAL_ECORRUPT;
	return superblock->file_bytes == options->bytes ? 0 : -PETAL_EGEOMETRY;
}

/* Left alone, the copies would go bad one by one until too few agree. */
static int superblock_repair(struct petal_journal *journal,
			     const struct superblock *copies,
			     const struct superblock *good)
{
	int err;

	for (unsigned int i = 0; i < SUPERBLOCK_COPIES; i++) {
		if (!memcmp(&copies[i], good, sizeof(*good)))
			continue;
		err = file_write(journal->fd, good, BLOCK, i * BLOCK);
		if (err)
			return err;
		journal->stats.superblocks_repaired++;
	}
	return fsync(journal->fd) ? -errno : 0;
}

static int superblocks_read(struct petal_journal *journal,
			    struct superblock *copies)
{
	int err;

	/* One by one: a bad sector costs one copy, not all. */
	for (unsigned int i = 0; i < SUPERBLOCK_COPIES; i++) {
		err = petal_journal_file_read(journal->fd, &copies[i], BLOCK,
					      i * BLOCK);
		if (err == -EINVAL && journal->direct) {
			err = direct_drop(journal);
			if (!err)
				err = petal_journal_file_read(journal->fd,
							      &copies[i], BLOCK,
							      i * BLOCK);
		}
		if (err && err != -EIO)
			return err;
		if (err)
			memset(&copies[i], 0, BLOCK);
	}
	return 0;
}

static int file_identify(struct petal_journal *journal,
			 const struct petal_journal_options *options)
{
	const struct superblock *good;
	struct superblock *copies =
		petal_journal_pages_alloc(SUPERBLOCK_COPIES * BLOCK);
	struct stat status;
	int err;

	if (!copies)
		return -ENOMEM;
	if (fstat(journal->fd, &status))
		err = -errno;
	else
		err = superblocks_read(journal, copies);
	if (!err)
		err = superblock_elect(copies, &good);
	if (!err)
		err = superblock_check(good, options, (uint64_t)status.st_size);
	if (!err) {
		memcpy(journal->uuid, good->uuid, sizeof(journal->uuid));
		err = superblock_repair(journal, copies, good);
	}
	petal_journal_pages_free(copies, SUPERBLOCK_COPIES * BLOCK);
	return err;
}

/*
 * A new file.
 */

static int file_fill(struct petal_journal *journal,
		     const struct petal_journal_options *options)
{
	uint8_t *chunk = petal_journal_pages_alloc(CHUNK_BYTES);
	uint64_t length;
	int err = 0;

	if (!chunk)
		return -ENOMEM;
	for (uint64_t at = 0; !err && at < options->bytes; at += length) {
		length = min_u64(CHUNK_BYTES, options->bytes - at);
		err = file_write(journal->fd, chunk, length, at);
	}
	superblock_fill((struct superblock *)(void *)chunk, journal, options);
	for (unsigned int i = 0; !err && i < SUPERBLOCK_COPIES; i++)
		err = file_write(journal->fd, chunk, BLOCK, i * BLOCK);
	petal_journal_pages_free(chunk, CHUNK_BYTES);
	if (!err && fsync(journal->fd))
		err = -errno;
	return err;
}

static int file_reserve(struct petal_journal *journal, uint64_t bytes)
{
	/* What a crash has left of an earlier attempt. */
	if (ftruncate(journal->fd, 0))
		return -errno;
	if (!fallocate(journal->fd, 0, 0, (off_t)bytes))
		return 0;
	/* Then the zeros find out whether there is room. */
	return errno == EOPNOTSUPP ? 0 : -errno;
}

static int file_format(struct petal_journal *journal,
		       const struct petal_journal_options *options)
{
	ssize_t got = getrandom(journal->uuid, sizeof(journal->uuid), 0);
	int err;

	if (got != (ssize_t)sizeof(journal->uuid))
		return -EIO;
	err = file_reserve(journal, options->bytes);
	if (!err)
		err = file_tryout(journal);
	if (!err)
		err = file_fill(journal, options);
	return err;
}

/* Beyond this the kernel answers with a signal, which is not ours to catch. */
static int file_limit_check(uint64_t bytes)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_FSIZE, &limit))
		return -errno;
	return limit.rlim_cur != RLIM_INFINITY && bytes > limit.rlim_cur
		       ? -EFBIG
		       : 0;
}

static int file_publish(struct petal_journal *journal)
{
	if (renameat(journal->dir_fd, FILE_NAME_NEW, journal->dir_fd,
		     FILE_NAME))
		return -errno;
	return fsync(journal->dir_fd) ? -errno : 0;
}

static int file_create(struct petal_journal *journal,
		       const struct petal_journal_options *options)
{
	int err;

	err = file_open(journal, FILE_NAME_NEW, O_CREAT);
	if (err)
		return err;
	/* Another one made it while we came for the lock, and is done. */
	if (!faccessat(journal->dir_fd, FILE_NAME, F_OK, AT_SYMLINK_NOFOLLOW)) {
		petal_journal_file_close(journal);
		return -ESTALE;
	}
	err = file_format(journal, options);
	if (!err)
		err = file_publish(journal);
	if (err) {
		unlinkat(journal->dir_fd, FILE_NAME_NEW, 0);
		return err;
	}
	journal->fresh = true;
	return 0;
}

static int file_find(struct petal_journal *journal,
		     const struct petal_journal_options *options)
{
	int err = -ESTALE;

	for (int i = 0; i < OPEN_ATTEMPTS && err == -ESTALE; i++) {
		err = file_open(journal, FILE_NAME, 0);
		if (!err)
			err = file_identify(journal, options);
		else if (err == -ENOENT)
			err = file_create(journal, options);
	}
	return err == -ESTALE ? -EBUSY : err;
}

static bool file_in_memory(int fd)
{
	struct statfs status;

	return !fstatfs(fd, &status) &&
	       (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC);
}

int petal_journal_file_open(struct petal_journal *journal,
			    const struct petal_journal_options *options)
{
	int err = file_limit_check(options->bytes);

	if (!err)
		err = file_find(journal, options);
	if (!err && !journal->fresh)
		err = file_tryout(journal);
	if (!err)
		journal->memory_only = file_in_memory(journal->fd);
	return err;
}
