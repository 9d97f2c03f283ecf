/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/private.h"

#include <string.h>

#include "tests/fuzz/hook.h"

#define FIELDS_MAX 512u
#define NEVER UINT64_MAX
#define HEADER_WORDS 200u

struct fuzz_countdown fuzz_countdown = { NEVER, NEVER };
struct fuzz_call fuzz_call;
uint64_t fuzz_refusals;

static uint64_t state;
static uint64_t last_lie;
static struct fuzz_field fields[FIELDS_MAX];
static unsigned field_count;
static volatile uint64_t sink;

/* ---- choices ---- */

/* splitmix64, of Steele, Lea and Flood, OOPSLA 2014. */
static uint64_t next(void)
{
	uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

void fuzz_seed(uint64_t seed, uint64_t number)
{
	state = seed;
	state = next() ^ number;
	last_lie = 0;
	next();
}

uint64_t fuzz_random(uint64_t below)
{
	return (uint64_t)((unsigned __int128)next() * below >> 64);
}

uint64_t fuzz_lie_at(uint64_t honest, unsigned index)
{
	uint64_t bit = UINT64_C(1) << index % 64;

	switch (index / 64) {
	case 0:
		return bit;
	case 1:
		return bit - 1;
	case 2:
		return honest ^ bit;
	default:
		break;
	}
	index %= 64;
	if (index < 24)
		return honest +
		       (UINT64_C(1) << index / 2) * (index % 2 ? -1 : 1);
	if (index < 48)
		return -(UINT64_C(1) << (index - 24));
	switch (index) {
	case 48:
		return 0;
	case 49:
		return UINT64_MAX;
	case 50:
		return honest << 1;
	case 51:
		return honest >> 1;
	case 52:
		return -honest;
	case 53:
		return ~honest;
	case 54:
		return honest << 32 | honest >> 32;
	case 55:
		return honest | UINT64_C(0xffffffff00000000);
	case 56:
		return UINT64_C(0xfffffffffffff000);
	case 57:
		return UINT64_C(0xaaaaaaaaaaaaaaaa);
	default:
		return honest + 3 * (UINT64_C(1) << (index - 50));
	}
}

/* Near the last lie, or near what another word says: lies that agree. */
static uint64_t agreeing(void)
{
	const struct fuzz_region *region = &fuzz_call.regions[0];
	uint64_t near = last_lie;

	if (fuzz_random(2))
		memcpy(&near,
		       region->base +
			       8 * fuzz_random(region->bytes < 8 * HEADER_WORDS
						       ? region->bytes / 8
						       : HEADER_WORDS),
		       8);
	return fuzz_random(4)
		       ? fuzz_lie_at(near, 192 + (unsigned)fuzz_random(24))
		       : near;
}

uint64_t fuzz_lie(uint64_t honest)
{
	switch (fuzz_random(8)) {
	case 0:
		last_lie = next();
		break;
	case 1:
	case 2:
		last_lie = agreeing();
		break;
	default:
		last_lie =
			fuzz_lie_at(honest, (unsigned)fuzz_random(FUZZ_LIES));
		break;
	}
	return last_lie;
}

/* ---- what an honest process does with payload ---- */

static uint8_t *inside(const void *bytes, uint64_t length)
{
	uintptr_t at = (uintptr_t)bytes;

	for (unsigned i = 0; i < FUZZ_REGIONS; i++) {
		const struct fuzz_region *region = &fuzz_call.regions[i];
		uintptr_t base = (uintptr_t)region->base;

		if (at >= base && at - base <= region->bytes &&
		    length <= region->bytes - (at - base))
			return region->base + (at - base);
	}
	fuzz_fail("payload outside of the shared memory");
}

void fuzz_read(const void *bytes, uint64_t length)
{
	const volatile uint8_t *from = inside(bytes, length);

	if (length)
		sink += from[0] + from[length / 2] + from[length - 1];
}

void fuzz_write(void *bytes, uint64_t length)
{
	volatile uint8_t *to = inside(bytes, length);

	if (length == 0)
		return;
	to[0] = (uint8_t)next();
	to[length / 2] = (uint8_t)next();
	to[length - 1] = (uint8_t)next();
}

int64_t fuzz_refused(int64_t outcome)
{
	fuzz_refusals += outcome < 0;
	return outcome;
}

void fuzz_fail(const char *what)
{
	fuzz_call.failure = what;
	longjmp(fuzz_call.stop, 1);
}

/* ---- the peer ---- */

static void change(volatile void *word, unsigned bytes)
{
	if (bytes == 4) {
		volatile uint32_t *small = word;

		*small = (uint32_t)fuzz_lie(*small);
	} else {
		volatile uint64_t *large = word;

		*large = fuzz_lie(*large);
	}
}

/* So that no swap ever finds what was there a moment ago. */
static void toggle(volatile void *word, unsigned bytes)
{
	if (bytes == 4)
		*(volatile uint32_t *)word ^=
			(uint32_t)(fuzz_call.toggle | fuzz_call.toggle >> 32);
	else
		*(volatile uint64_t *)word ^= fuzz_call.toggle;
}

/* Of the fields, those that an honest process accesses first are headers. */
static void corrupt_field(void)
{
	uint64_t most = fuzz_random(4) ? field_count / 4 + 1 : field_count;
	const struct fuzz_field *field = &fields[fuzz_random(most)];

	change(field->region.base, (unsigned)field->region.bytes);
}

void fuzz_corrupt(void)
{
	const struct fuzz_region *region = &fuzz_call.regions[0];
	uint64_t words;

	if (field_count && fuzz_random(4)) {
		corrupt_field();
		return;
	}
	if (fuzz_call.regions[1].bytes && fuzz_random(3) == 0)
		region = &fuzz_call.regions[1];
	words = region->bytes / 8;
	/* Headers are small, and matter most. */
	if (words > HEADER_WORDS && fuzz_random(2))
		words = HEADER_WORDS;
	if (fuzz_random(4) == 0)
		change(region->base + 4 * fuzz_random(2 * words), 4);
	else
		change(region->base + 8 * fuzz_random(words), 8);
}

static bool is_shared(const volatile void *word)
{
	for (unsigned i = 0; i < FUZZ_REGIONS; i++)
		if ((uintptr_t)word - (uintptr_t)fuzz_call.regions[i].base <
		    fuzz_call.regions[i].bytes)
			return true;
	return false;
}

static void record(const volatile void *word, unsigned bytes)
{
	for (unsigned i = 0; i < field_count; i++)
		if (fields[i].region.base == word)
			return;
	if (field_count == FIELDS_MAX)
		return;
	fields[field_count].region.base = (uint8_t *)(uintptr_t)word;
	fields[field_count].region.bytes = bytes;
	fields[field_count].honest = 0;
	memcpy(&fields[field_count].honest, (const void *)(uintptr_t)word,
	       bytes);
	field_count++;
}

void fuzz_forget(void)
{
	field_count = 0;
}

unsigned fuzz_fields(const struct fuzz_field **ret_fields)
{
	*ret_fields = fields;
	return field_count;
}

static void tell_lie(void)
{
	memcpy(fuzz_call.lie->region.base, &fuzz_call.lie_value,
	       fuzz_call.lie->region.bytes);
}

/* So many accesses until the next event; never beyond the call's bound. */
static void give(uint64_t accesses)
{
	uint64_t rest =
		fuzz_call.subject->accesses_max + 1 - fuzz_call.accesses;

	fuzz_countdown.given = accesses < rest ? accesses : rest;
	fuzz_countdown.left = fuzz_countdown.given;
}

static uint64_t gap(void)
{
	if (fuzz_call.recording || fuzz_call.lie)
		return 1;
	return fuzz_call.gap ? 1 + fuzz_random(fuzz_call.gap) : NEVER;
}

void fuzz_event(const volatile void *word, unsigned bytes)
{
	fuzz_call.events++;
	fuzz_call.accesses += fuzz_countdown.given;
	if (fuzz_call.accesses > fuzz_call.subject->accesses_max) {
		fuzz_countdown.left = NEVER;
		fuzz_countdown.given = NEVER;
		fuzz_fail("a call goes on and on");
	}
	if (fuzz_call.recording) {
		if (is_shared(word))
			record(word, bytes);
	} else if (fuzz_call.lie) {
		if (fuzz_call.lie_stays &&
		    fuzz_call.lie->region.base == (const volatile void *)word)
			tell_lie();
	} else if (fuzz_call.toggle) {
		if (is_shared(word))
			toggle((void *)(uintptr_t)word, bytes);
	} else if (fuzz_random(4) && is_shared(word)) {
		change((void *)(uintptr_t)word, bytes);
	} else {
		fuzz_corrupt();
	}
	give(gap());
}

void fuzz_begin(void)
{
	static const unsigned gaps[] = { 0, 1, 2, 4, 16, 64 };

	fuzz_call.accesses = 0;
	fuzz_call.events = 0;
	fuzz_call.gap = 0;
	fuzz_call.toggle = 0;
	if (fuzz_call.mode == FUZZ_MUTATE && !fuzz_call.recording) {
		fuzz_call.gap = gaps[fuzz_random(6)];
		if (fuzz_random(128) == 0) {
			fuzz_call.gap = 1;
			fuzz_call.toggle = UINT64_C(1) << fuzz_random(64);
		}
		if (fuzz_random(8) == 0)
			fuzz_corrupt();
		if (fuzz_random(64) == 0)
			for (uint64_t n = fuzz_random(64); n > 0; n--)
				fuzz_corrupt();
	}
	if (fuzz_call.lie && fuzz_call.lie_stays)
		tell_lie();
	give(gap());
}

uint64_t fuzz_end(void)
{
	uint64_t accesses =
		fuzz_call.accesses + fuzz_countdown.given - fuzz_countdown.left;

	fuzz_countdown.left = NEVER;
	fuzz_countdown.given = NEVER;
	return accesses;
}
