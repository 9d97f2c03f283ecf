/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/seal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "shm/error.h"

#define SEAL_MAGIC "PTK1"
#define SEAL_MAC_BYTES 16
#define SEAL_HEX_BYTES (2 * PETAL_SEAL_KEY_BYTES)
#define SEAL_FILE_BYTES (SEAL_HEX_BYTES + 1)

/* Offsets in a token. */
enum {
	SEAL_AT_FROM = 4,
	SEAL_AT_TIME = 8,
	SEAL_AT_NONCE = 16,
	SEAL_AT_MAC = 32,
};

static_assert(SEAL_AT_MAC + SEAL_MAC_BYTES == PETAL_SEAL_TOKEN_BYTES,
	      "a token ends with its MAC");
static_assert(SEAL_MAC_BYTES >= crypto_generichash_BYTES_MIN,
	      "BLAKE2b as libsodium offers it");

static void seal_put32(uint8_t *bytes, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
}

static void seal_put64(uint8_t *bytes, uint64_t value)
{
	for (unsigned i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t seal_get32(const uint8_t *bytes)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < 4; i++)
		value |= (uint32_t)bytes[i] << (8 * i);
	return value;
}

static uint64_t seal_get64(const uint8_t *bytes)
{
	return seal_get32(bytes) | (uint64_t)seal_get32(bytes + 4) << 32;
}

/*
 * The label goes in with its closing zero, and all that follows has a fixed
 * length, so no two different inputs can give the same string of bytes.
 */
static void seal_mac(const uint8_t *key, const char *label,
		     const uint8_t *cluster, uint32_t from, uint32_t to,
		     const uint8_t *bytes, size_t length, uint8_t *ret_mac)
{
	crypto_generichash_state state;
	uint8_t ends[8];

	seal_put32(ends, from);
	seal_put32(ends + 4, to);
	crypto_generichash_init(&state, key, PETAL_SEAL_KEY_BYTES,
				SEAL_MAC_BYTES);
	crypto_generichash_update(&state, (const uint8_t *)label,
				  strlen(label) + 1);
	crypto_generichash_update(&state, cluster, PETAL_SEAL_CLUSTER_BYTES);
	crypto_generichash_update(&state, ends, sizeof(ends));
	crypto_generichash_update(&state, bytes, length);
	crypto_generichash_final(&state, ret_mac, SEAL_MAC_BYTES);
	sodium_memzero(&state, sizeof(state));
}

static void seal_token_mac(const uint8_t *key, const uint8_t *cluster,
			   uint32_t from, uint32_t to, const uint8_t *token,
			   uint8_t *ret_mac)
{
	seal_mac(key, "petalith token 1", cluster, from, to,
		 token + SEAL_AT_TIME, SEAL_AT_MAC - SEAL_AT_TIME, ret_mac);
}

void petal_seal_key_derive(const uint8_t key[PETAL_SEAL_KEY_BYTES],
			   const char *purpose,
			   uint8_t ret_key[PETAL_SEAL_KEY_BYTES])
{
	static const char label[] = "petalith purpose 1";
	crypto_generichash_state state;

	crypto_generichash_init(&state, key, PETAL_SEAL_KEY_BYTES,
				PETAL_SEAL_KEY_BYTES);
	crypto_generichash_update(&state, (const uint8_t *)label,
				  sizeof(label));
	crypto_generichash_update(&state, (const uint8_t *)purpose,
				  strlen(purpose) + 1);
	crypto_generichash_final(&state, ret_key, PETAL_SEAL_KEY_BYTES);
	sodium_memzero(&state, sizeof(state));
}

void petal_seal_cluster_id(const char *name,
			   uint8_t ret_id[PETAL_SEAL_CLUSTER_BYTES])
{
	crypto_generichash(ret_id, PETAL_SEAL_CLUSTER_BYTES,
			   (const uint8_t *)name, strlen(name), NULL, 0);
}

void petal_seal_token_make(const uint8_t key[PETAL_SEAL_KEY_BYTES],
			   const uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES],
			   uint32_t from, uint32_t to, uint64_t time_ns,
			   uint8_t ret_token[PETAL_SEAL_TOKEN_BYTES])
{
	memcpy(ret_token, SEAL_MAGIC, 4);
	seal_put32(ret_token + SEAL_AT_FROM, from);
	seal_put64(ret_token + SEAL_AT_TIME, time_ns);
	randombytes_buf(ret_token + SEAL_AT_NONCE, PETAL_SEAL_NONCE_BYTES);
	seal_token_mac(key, cluster, from, to, ret_token,
		       ret_token + SEAL_AT_MAC);
}

static bool seal_is_near(uint64_t time_ns, uint64_t now_ns)
{
	uint64_t distance_ns = time_ns > now_ns ? time_ns - now_ns
						: now_ns - time_ns;

	return distance_ns <= PETAL_SEAL_WINDOW_NS;
}

static bool seal_in_window(uint64_t time_ns, const struct petal_seal_now *now)
{
	return seal_is_near(time_ns, now->realtime_ns) ||
	       seal_is_near(time_ns, now->steady_ns);
}

void petal_seal_clock_open(struct petal_seal_clock *clock, uint64_t realtime_ns,
			   uint64_t now_ns)
{
	clock->opened_realtime_ns = realtime_ns;
	clock->opened_ns = now_ns;
	clock->calls = 0;
}

struct petal_seal_now petal_seal_clock_now(const struct petal_seal_clock *clock,
					   uint64_t realtime_ns,
					   uint64_t now_ns)
{
	return (struct petal_seal_now){
		.realtime_ns = realtime_ns,
		.steady_ns =
			clock->opened_realtime_ns + (now_ns - clock->opened_ns),
	};
}

uint64_t petal_seal_clock_call(struct petal_seal_clock *clock,
			       uint64_t realtime_ns, uint64_t now_ns)
{
	struct petal_seal_now now =
		petal_seal_clock_now(clock, realtime_ns, now_ns);

	return clock->calls++ % 2 == 0 ? now.realtime_ns : now.steady_ns;
}

/*
 * Old entries are not cleared, only overwritten when their place is needed:
 * if the clock jumps ahead and back again, what was seen is still known.
 */
static int seal_replay_admit(struct petal_seal_replay *replay, uint64_t time_ns,
			     const uint8_t *nonce,
			     const struct petal_seal_now *now)
{
	uint32_t slot = PETAL_SEAL_REPLAY_MAX;

	for (uint32_t i = 0; i < PETAL_SEAL_REPLAY_MAX; i++) {
		uint32_t at = (replay->next + i) % PETAL_SEAL_REPLAY_MAX;
		uint64_t seen_ns = replay->seen[at].time_ns;

		if (seen_ns == time_ns && memcmp(replay->seen[at].nonce, nonce,
						 PETAL_SEAL_NONCE_BYTES) == 0)
			return -PETAL_EAUTH;
		if (slot == PETAL_SEAL_REPLAY_MAX &&
		    (seen_ns == 0 || !seal_in_window(seen_ns, now)))
			slot = at;
	}
	if (slot == PETAL_SEAL_REPLAY_MAX)
		return -EAGAIN;
	replay->seen[slot].time_ns = time_ns;
	memcpy(replay->seen[slot].nonce, nonce, PETAL_SEAL_NONCE_BYTES);
	replay->next = (slot + 1) % PETAL_SEAL_REPLAY_MAX;
	return 0;
}

int petal_seal_token_check(const uint8_t key[PETAL_SEAL_KEY_BYTES],
			   const uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES],
			   uint32_t to,
			   const uint8_t token[PETAL_SEAL_TOKEN_BYTES],
			   const struct petal_seal_now *now,
			   struct petal_seal_replay *replay, uint32_t *ret_from)
{
	uint32_t from = seal_get32(token + SEAL_AT_FROM);
	uint64_t time_ns = seal_get64(token + SEAL_AT_TIME);
	uint8_t mac[SEAL_MAC_BYTES];
	int err;

	if (memcmp(token, SEAL_MAGIC, 4) != 0 || from == to || time_ns == 0)
		return -PETAL_EAUTH;
	seal_token_mac(key, cluster, from, to, token, mac);
	if (sodium_memcmp(mac, token + SEAL_AT_MAC, SEAL_MAC_BYTES) != 0)
		return -PETAL_EAUTH;
	if (!seal_in_window(time_ns, now)) {
		*ret_from = from;
		return -ETIME;
	}
	err = seal_replay_admit(replay, time_ns, token + SEAL_AT_NONCE, now);
	if (err != 0)
		return err;
	*ret_from = from;
	return 0;
}

uint64_t petal_seal_token_time_ns(const uint8_t token[PETAL_SEAL_TOKEN_BYTES])
{
	return seal_get64(token + SEAL_AT_TIME);
}

void petal_seal_answer_make(const uint8_t key[PETAL_SEAL_KEY_BYTES],
			    const uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES],
			    uint32_t to,
			    const uint8_t token[PETAL_SEAL_TOKEN_BYTES],
			    uint8_t ret_answer[PETAL_SEAL_ANSWER_BYTES])
{
	seal_mac(key, "petalith answer 1", cluster,
		 seal_get32(token + SEAL_AT_FROM), to, token,
		 PETAL_SEAL_TOKEN_BYTES, ret_answer);
}

int petal_seal_answer_check(const uint8_t key[PETAL_SEAL_KEY_BYTES],
			    const uint8_t cluster[PETAL_SEAL_CLUSTER_BYTES],
			    uint32_t to,
			    const uint8_t token[PETAL_SEAL_TOKEN_BYTES],
			    const uint8_t answer[PETAL_SEAL_ANSWER_BYTES])
{
	uint8_t expected[PETAL_SEAL_ANSWER_BYTES];

	petal_seal_answer_make(key, cluster, to, token, expected);
	if (sodium_memcmp(expected, answer, sizeof(expected)) != 0)
		return -PETAL_EAUTH;
	return 0;
}

/*
 * The key file.
 */

static int seal_file_trusted(int fd)
{
	struct stat stat;

	if (fstat(fd, &stat) != 0)
		return -errno;
	if (!S_ISREG(stat.st_mode))
		return -EINVAL;
	if ((stat.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		return -EPERM;
	if (stat.st_uid != geteuid() && stat.st_uid != 0)
		return -EPERM;
	return 0;
}

/* Reads until the buffer is full, the file ends, or the kernel refuses. */
static int seal_file_read(int fd, char *buffer, size_t size, size_t *ret_length)
{
	size_t length = 0;

	while (length < size) {
		ssize_t got = read(fd, buffer + length, size - length);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		length += (size_t)got;
	}
	*ret_length = length;
	return 0;
}

static int seal_hex_decode(const char *text, size_t length, uint8_t *ret_key)
{
	uint8_t key[PETAL_SEAL_KEY_BYTES];
	size_t bytes = 0;
	const char *end = NULL;

	if (length != SEAL_FILE_BYTES || text[SEAL_HEX_BYTES] != '\n')
		return -PETAL_ECORRUPT;
	if (sodium_hex2bin(key, sizeof(key), text, SEAL_HEX_BYTES, NULL, &bytes,
			   &end) != 0 ||
	    bytes != sizeof(key) || end != text + SEAL_HEX_BYTES) {
		sodium_memzero(key, sizeof(key));
		return -PETAL_ECORRUPT;
	}
	memcpy(ret_key, key, sizeof(key));
	sodium_memzero(key, sizeof(key));
	return 0;
}

int petal_seal_key_load(const char *path, uint8_t ret_key[PETAL_SEAL_KEY_BYTES])
{
	/* One byte more than a key file has, to notice a longer one. */
	char text[SEAL_FILE_BYTES + 1];
	size_t length = 0;
	int err;
	/* O_NONBLOCK, because opening a FIFO would wait for its writer. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY |
				    O_NONBLOCK);

	if (fd < 0)
		return -errno;
	err = seal_file_trusted(fd);
	if (err == 0)
		err = seal_file_read(fd, text, sizeof(text), &length);
	if (err == 0)
		err = seal_hex_decode(text, length, ret_key);
	sodium_memzero(text, sizeof(text));
	close(fd);
	return err;
}

static int seal_file_write(int fd, const char *text, size_t length)
{
	size_t done = 0;

	while (done < length) {
		ssize_t put = write(fd, text + done, length - done);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		done += (size_t)put;
	}
	return fsync(fd) == 0 ? 0 : -errno;
}

/* Without this, the name of a new file may be gone after a power loss. */
static int seal_folder_sync(const char *path)
{
	char copy[PATH_MAX];
	int err = 0;
	int fd;

	if (strlen(path) >= sizeof(copy))
		return -ENAMETOOLONG;
	strcpy(copy, path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd) != 0)
		err = -errno;
	close(fd);
	return err;
}

int petal_seal_key_create(const char *path)
{
	uint8_t key[PETAL_SEAL_KEY_BYTES];
	char text[SEAL_HEX_BYTES + 1];
	int err;
	int fd = open(path,
		      O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		      0600);

	if (fd < 0)
		return -errno;
	randombytes_buf(key, sizeof(key));
	sodium_bin2hex(text, sizeof(text), key, sizeof(key));
	text[SEAL_HEX_BYTES] = '\n';
	err = seal_file_write(fd, text, SEAL_FILE_BYTES);
	sodium_memzero(key, sizeof(key));
	sodium_memzero(text, sizeof(text));
	close(fd);
	if (err == 0)
		err = seal_folder_sync(path);
	if (err != 0)
		unlink(path);
	return err;
}
