/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/cli/program.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool name_is_plain(const char *name)
{
	return *name && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") ==
				strlen(name);
}

/* Whether it is there; what does not fit into a path is not. */
static bool is_program(char *path, const char *directory, const char *below,
		       const char *name)
{
	int length =
		snprintf(path, PATH_MAX, "%s/%s%s", directory, below, name);

	return length > 0 && length < PATH_MAX && access(path, X_OK) == 0;
}

bool cli_program_find(const char *name, char path[PATH_MAX])
{
	char self[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (length < 0 || !name_is_plain(name))
		return false;
	self[length] = '\0';
	*strrchr(self, '/') = '\0';
	return is_program(path, self, "../../bench/", name) ||
	       is_program(path, self, "../bench/", name) ||
	       is_program(path, PETAL_LIBEXEC_DIR, "", name);
}
