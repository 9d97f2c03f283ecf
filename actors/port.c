/* SPDX-License-Identifier: Apache-2.0 */
#include "actors/port.h"

#include <errno.h>
#include <string.h>

static const char *const level_names[PETAL_LEVEL_COUNT] = {
	[PETAL_LEVEL_NONE] = "none",   [PETAL_LEVEL_LOCAL] = "local",
	[PETAL_LEVEL_MEM2] = "mem2",   [PETAL_LEVEL_MEM3] = "mem3",
	[PETAL_LEVEL_DISK2] = "disk2", [PETAL_LEVEL_DISK3] = "disk3",
};

const char *petal_level_name(enum petal_level level)
{
	if ((unsigned)level >= PETAL_LEVEL_COUNT)
		return "?";
	return level_names[level];
}

int petal_level_parse(const char *name, enum petal_level *ret_level)
{
	for (unsigned i = 0; i < PETAL_LEVEL_COUNT; i++) {
		if (strcmp(name, level_names[i]) == 0) {
			*ret_level = (enum petal_level)i;
			return 0;
		}
	}
	return -EINVAL;
}
