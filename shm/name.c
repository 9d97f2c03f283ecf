/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/name.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "shm/error.h"

static bool letter_ok(char letter)
{
	return (letter >= 'a' && letter <= 'z') ||
	       (letter >= '0' && letter <= '9') || letter == '.' ||
	       letter == '_' || letter == '-';
}

/* A name is a run of letters and then zeroes to the end, one at least. */
static bool name_ok(const char name[NAME_BYTES])
{
	uint32_t length = 0;

	while (length < NAME_BYTES && letter_ok(name[length]))
		length++;
	if (length == 0 || length == NAME_BYTES)
		return false;
	for (uint32_t i = length; i < NAME_BYTES; i++)
		if (name[i] != 0)
			return false;
	return true;
}

int name_store(const char *name, char ret_name[NAME_BYTES])
{
	char padded[NAME_BYTES] = { 0 };
	size_t length = name ? strlen(name) : 0;

	if (length >= NAME_BYTES)
		return -EINVAL;
	if (length)
		memcpy(padded, name, length);
	if (!name_ok(padded))
		return -EINVAL;
	memcpy(ret_name, padded, sizeof(padded));
	return 0;
}

int name_load(const char shared[NAME_BYTES], char ret_name[NAME_BYTES])
{
	const volatile char *from = shared;
	char name[NAME_BYTES];

	for (uint32_t i = 0; i < NAME_BYTES; i++)
		name[i] = from[i];
	if (!name_ok(name))
		return -PETAL_ECORRUPT;
	memcpy(ret_name, name, sizeof(name));
	return 0;
}
