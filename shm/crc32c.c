/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checksum is the remainder of the bytes, read as one polynomial over GF(2),
 * modulo the CRC's own polynomial. Bits are reflected: bit 31 of a 32-bit
 * remainder is x^0 and bit 0 is x^31. "State" below is the running remainder
 * without the ones that RFC 3720 adds before and after.
 *
 * The remainder is linear, and that is all that either path relies on:
 *
 *  - Tables: the state after eight bytes is the sum of what each of the eight
 *    would have left alone, so there is a table per distance from the end.
 *
 *  - Instruction: it takes three cycles but can start in each of them, so three
 *    streams at once cost as much as one. The states of the first two are then
 *    moved past the bytes that followed them and added to the third.
 */
#include "shm/crc32c.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#include "shm/atomic.h"

/*
 * BASIS of table k, value b: the state that the byte 1 << b leaves when k zero
 * bytes follow it, which is x^(32 + 8 * k + 7 - b) modulo the polynomial. The
 * entry of any other byte is the sum of those of its bits; the compiler sums.
 */
/* clang-format off */
#define ENTRY_BIT(i, b, basis) (((i) >> (b) & 1) ? (basis) : UINT32_C(0))
#define ENTRY(i, b0, b1, b2, b3, b4, b5, b6, b7)                             \
	ENTRY_BIT(i, 0, b0) ^ ENTRY_BIT(i, 1, b1) ^ ENTRY_BIT(i, 2, b2) ^    \
	ENTRY_BIT(i, 3, b3) ^ ENTRY_BIT(i, 4, b4) ^ ENTRY_BIT(i, 5, b5) ^    \
	ENTRY_BIT(i, 6, b6) ^ ENTRY_BIT(i, 7, b7)
#define ENTRIES_4(i, ...)                                                    \
	ENTRY((i), __VA_ARGS__), ENTRY((i) + 1, __VA_ARGS__),                \
	ENTRY((i) + 2, __VA_ARGS__), ENTRY((i) + 3, __VA_ARGS__)
#define ENTRIES_16(i, ...)                                                   \
	ENTRIES_4((i), __VA_ARGS__), ENTRIES_4((i) + 4, __VA_ARGS__),        \
	ENTRIES_4((i) + 8, __VA_ARGS__), ENTRIES_4((i) + 12, __VA_ARGS__)
#define ENTRIES_64(i, ...)                                                   \
	ENTRIES_16((i), __VA_ARGS__), ENTRIES_16((i) + 16, __VA_ARGS__),     \
	ENTRIES_16((i) + 32, __VA_ARGS__), ENTRIES_16((i) + 48, __VA_ARGS__)
#define TABLE(...)                                                           \
	{ ENTRIES_64(0, __VA_ARGS__), ENTRIES_64(64, __VA_ARGS__),           \
	  ENTRIES_64(128, __VA_ARGS__), ENTRIES_64(192, __VA_ARGS__) }

static const uint32_t tables[8][256] = {
	TABLE(0xf26b8303, 0xe13b70f7, 0xc79a971f, 0x8ad958cf,
	      0x105ec76f, 0x20bd8ede, 0x417b1dbc, 0x82f63b78),
	TABLE(0x13a29877, 0x274530ee, 0x4e8a61dc, 0x9d14c3b8,
	      0x3fc5f181, 0x7f8be302, 0xff17c604, 0xfbc3faf9),
	TABLE(0xa541927e, 0x4f6f520d, 0x9edea41a, 0x38513ec5,
	      0x70a27d8a, 0xe144fb14, 0xc76580d9, 0x8b277743),
	TABLE(0xdd45aab8, 0xbf672381, 0x7b2231f3, 0xf64463e6,
	      0xe964b13d, 0xd725148b, 0xaba65fe7, 0x52a0c93f),
	TABLE(0x38116fac, 0x7022df58, 0xe045beb0, 0xc5670b91,
	      0x8f2261d3, 0x1ba8b557, 0x37516aae, 0x6ea2d55c),
	TABLE(0xef306b19, 0xdb8ca0c3, 0xb2f53777, 0x6006181f,
	      0xc00c303e, 0x85f4168d, 0x0e045beb, 0x1c08b7d6),
	TABLE(0x68032cc8, 0xd0065990, 0xa5e0c5d1, 0x4e2dfd53,
	      0x9c5bfaa6, 0x3d5b83bd, 0x7ab7077a, 0xf56e0ef4),
	TABLE(0x493c7d27, 0x9278fa4e, 0x211d826d, 0x423b04da,
	      0x847609b4, 0x0d006599, 0x1a00cb32, 0x34019664),
};
/* clang-format on */

static uint64_t load_word(const uint8_t *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return le64toh(word);
}

static uint32_t path_table(uint32_t state, const uint8_t *bytes, size_t length)
{
	for (; length >= 8; bytes += 8, length -= 8) {
		uint64_t word = load_word(bytes) ^ state;

		state = 0;
		for (unsigned i = 0; i < 8; i++, word >>= 8)
			state ^= tables[7 - i][word & 0xff];
	}
	for (; length > 0; bytes++, length--)
		state = state >> 8 ^ tables[0][(state ^ *bytes) & 0xff];
	return state;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>

#define TARGET_SSE42 __attribute__((target("sse4.2,pclmul")))

/*
 * Streams of two lengths: long ones make the joining cheap, short ones leave
 * less to the single stream at the end. To move a state past n bytes is to
 * multiply it by x^(8 * n). The carry-less product of two reflected words reads
 * as their true product times x, and the instruction, which reduces it, adds
 * x^32; hence x^(8 * n - 33) is what the constants hold.
 */
#define LONG_BYTES 1024
#define LONG_PAST_1 0x170076fa /* x^(8 * 1024 - 33) */
#define LONG_PAST_2 0xa51b6135 /* x^(8 * 2048 - 33) */
#define SHORT_BYTES 256
#define SHORT_PAST_1 0xb9e02b86 /* x^(8 * 256 - 33) */
#define SHORT_PAST_2 0xdd7e3b0c /* x^(8 * 512 - 33) */

TARGET_SSE42 static inline uint64_t multiply(uint64_t state, uint32_t factor)
{
	return (uint64_t)_mm_cvtsi128_si64(
		_mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)state),
				     _mm_cvtsi64_si128(factor), 0));
}

TARGET_SSE42 static inline uint64_t
three_streams(uint64_t state, const uint8_t *bytes, size_t stream_bytes,
	      uint32_t past_1, uint32_t past_2)
{
	const uint8_t *end = bytes + stream_bytes;
	uint64_t second = 0;
	uint64_t third = 0;

	for (; bytes < end; bytes += 8) {
		state = _mm_crc32_u64(state, load_word(bytes));
		second = _mm_crc32_u64(second, load_word(bytes + stream_bytes));
		third = _mm_crc32_u64(third,
				      load_word(bytes + 2 * stream_bytes));
	}
	return third ^ _mm_crc32_u64(0, multiply(state, past_2) ^
						multiply(second, past_1));
}

TARGET_SSE42 static uint32_t path_fast(uint32_t state32, const uint8_t *bytes,
				       size_t length)
{
	uint64_t state = state32;

	for (; length >= 3 * LONG_BYTES; length -= 3 * LONG_BYTES) {
		state = three_streams(state, bytes, LONG_BYTES, LONG_PAST_1,
				      LONG_PAST_2);
		bytes += 3 * LONG_BYTES;
	}
	for (; length >= 3 * SHORT_BYTES; length -= 3 * SHORT_BYTES) {
		state = three_streams(state, bytes, SHORT_BYTES, SHORT_PAST_1,
				      SHORT_PAST_2);
		bytes += 3 * SHORT_BYTES;
	}
	for (; length >= 8; bytes += 8, length -= 8)
		state = _mm_crc32_u64(state, load_word(bytes));
	for (; length > 0; bytes++, length--)
		state = _mm_crc32_u8((uint32_t)state, *bytes);
	return (uint32_t)state;
}

static bool fast_serves(void)
{
	/* Needed where a constructor of another library calls us first. */
	__builtin_cpu_init();
	return __builtin_cpu_supports("sse4.2") &&
	       __builtin_cpu_supports("pclmul");
}

#else

static uint32_t path_fast(uint32_t state, const uint8_t *bytes, size_t length)
{
	return path_table(state, bytes, length);
}

static bool fast_serves(void)
{
	return false;
}

#endif

/* Which of them serves here, once somebody has asked the processor. */
enum path { PATH_UNKNOWN, PATH_TABLE, PATH_FAST };

static struct petal_u32 path_now;

/* Relaxed is enough: every thread that chooses chooses the same. */
static enum path path_choose(void)
{
	enum path path = fast_serves() ? PATH_FAST : PATH_TABLE;

	petal_store(&path_now, path, PETAL_RELAXED);
	return path;
}

uint32_t petal_crc32c(uint32_t crc, const void *bytes, size_t length)
{
	uint32_t path = petal_load(&path_now, PETAL_RELAXED);

	if (path == PATH_UNKNOWN)
		path = path_choose();
	if (path == PATH_TABLE)
		return ~path_table(~crc, bytes, length);
	return ~path_fast(~crc, bytes, length);
}

uint32_t petal_crc32c_portable(uint32_t crc, const void *bytes, size_t length)
{
	return ~path_table(~crc, bytes, length);
}

const char *petal_crc32c_path(void)
{
	return fast_serves() ? "sse4.2" : "table";
}
