/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flush is a loop over the lines of a range. The line's size is asked of the
 * CPU, for a step larger than that would leave lines out. What the CPU has is
 * found once and kept in one word, so that two threads which look at the same
 * time store the same.
 *
 * CLFLUSHOPT is ordered by MFENCE before later loads, and not by SFENCE; hence
 * an invalidation ends with the former and a write-back with the latter.
 */
#include "shm/cache.h"

#include <errno.h>

#include "shm/atomic.h"

enum kind {
	KIND_UNKNOWN,
	KIND_NONE,
	KIND_CLFLUSH,
	KIND_CLFLUSHOPT,
	KIND_CLWB,
	KIND_DC,
};

/* The kind in the low byte, the bytes of a line above. */
static struct petal_u32 chosen;

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

/* GCC and Clang name these bits differently. */
#define CPUID_CLFSH (1u << 19)
#define CPUID_CLFLUSHOPT (1u << 23)
#define CPUID_CLWB (1u << 24)

static uint32_t choose(void)
{
	unsigned eax, ebx, ecx, edx;
	uint32_t line_bytes;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(edx & CPUID_CLFSH))
		return KIND_NONE;
	line_bytes = (ebx >> 8 & 0xff) * 8;
	if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
		return line_bytes << 8 | KIND_CLFLUSH;
	if (ebx & CPUID_CLWB)
		return line_bytes << 8 | KIND_CLWB;
	return line_bytes << 8 |
	       (ebx & CPUID_CLFLUSHOPT ? KIND_CLFLUSHOPT : KIND_CLFLUSH);
}

__attribute__((target("clwb"))) static void clwb(uintptr_t at, uintptr_t end,
						 uint32_t line_bytes)
{
	for (; at < end; at += line_bytes)
		_mm_clwb((void *)at);
}

__attribute__((target("clflushopt"))) static void
clflushopt(uintptr_t at, uintptr_t end, uint32_t line_bytes)
{
	for (; at < end; at += line_bytes)
		_mm_clflushopt((void *)at);
}

static void clflush(uintptr_t at, uintptr_t end, uint32_t line_bytes)
{
	for (; at < end; at += line_bytes)
		_mm_clflush((const void *)at);
}

static void write_lines_back(enum kind kind, uintptr_t at, uintptr_t end,
			     uint32_t line_bytes)
{
	if (kind == KIND_CLWB)
		clwb(at, end, line_bytes);
	else if (kind == KIND_CLFLUSHOPT)
		clflushopt(at, end, line_bytes);
	else
		clflush(at, end, line_bytes);
}

static void drop_lines(enum kind kind, uintptr_t at, uintptr_t end,
		       uint32_t line_bytes)
{
	/* Who has CLWB has CLFLUSHOPT, which is the older. */
	if (kind == KIND_CLFLUSH)
		clflush(at, end, line_bytes);
	else
		clflushopt(at, end, line_bytes);
	_mm_mfence();
}

void petal_cache_fence(void)
{
	_mm_sfence();
}

#elif defined(__aarch64__)

static uint32_t choose(void)
{
	uint64_t type;

	/* DminLine: log2 of the words in the smallest line. */
	__asm__("mrs %0, ctr_el0" : "=r"(type));
	return (uint32_t)(4u << (type >> 16 & 0xf)) << 8 | KIND_DC;
}

static void write_lines_back(enum kind kind, uintptr_t at, uintptr_t end,
			     uint32_t line_bytes)
{
	(void)kind;
	for (; at < end; at += line_bytes)
		__asm__ volatile("dc cvac, %0" : : "r"(at) : "memory");
}

static void drop_lines(enum kind kind, uintptr_t at, uintptr_t end,
		       uint32_t line_bytes)
{
	(void)kind;
	/* What was loaded before may have decided that we are here. */
	petal_cache_fence();
	for (; at < end; at += line_bytes)
		__asm__ volatile("dc civac, %0" : : "r"(at) : "memory");
	petal_cache_fence();
}

void petal_cache_fence(void)
{
	__asm__ volatile("dsb sy" : : : "memory");
}

#else

static uint32_t choose(void)
{
	return KIND_NONE;
}

static void write_lines_back(enum kind kind, uintptr_t at, uintptr_t end,
			     uint32_t line_bytes)
{
	(void)kind, (void)at, (void)end, (void)line_bytes;
}

static void drop_lines(enum kind kind, uintptr_t at, uintptr_t end,
		       uint32_t line_bytes)
{
	(void)kind, (void)at, (void)end, (void)line_bytes;
}

void petal_cache_fence(void)
{
}

#endif

static uint32_t choice(void)
{
	uint32_t known = petal_load(&chosen, PETAL_RELAXED);

	if (known == KIND_UNKNOWN) {
		known = choose();
		petal_store(&chosen, known, PETAL_RELAXED);
	}
	return known;
}

int petal_cache_check(void)
{
	uint32_t how = choice();

	/* Of larger lines, two writers would share one. */
	if ((how & 0xff) == KIND_NONE || how >> 8 > PETAL_CACHE_LINE_BYTES)
		return -EOPNOTSUPP;
	return 0;
}

void petal_cache_writeback(const void *address, uint64_t bytes)
{
	uint32_t how = choice();
	uint32_t line_bytes = how >> 8;
	uintptr_t at = (uintptr_t)address;

	if (bytes == 0 || line_bytes == 0)
		return;
	write_lines_back((enum kind)(how & 0xff),
			 at & ~(uintptr_t)(line_bytes - 1), at + bytes,
			 line_bytes);
}

void petal_cache_invalidate(const void *address, uint64_t bytes)
{
	uint32_t how = choice();
	uint32_t line_bytes = how >> 8;
	uintptr_t at = (uintptr_t)address;

	if (bytes == 0 || line_bytes == 0)
		return;
	drop_lines((enum kind)(how & 0xff), at & ~(uintptr_t)(line_bytes - 1),
		   at + bytes, line_bytes);
}

const char *petal_cache_name(void)
{
	switch ((enum kind)(choice() & 0xff)) {
	case KIND_CLFLUSH:
		return "clflush";
	case KIND_CLFLUSHOPT:
		return "clflushopt";
	case KIND_CLWB:
		return "clwb";
	case KIND_DC:
		return "dc cvac";
	case KIND_UNKNOWN:
	case KIND_NONE:
		break;
	}
	return "none";
}
