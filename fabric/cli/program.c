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

bool cli_program_find(const char *name, char path[PATH_MAX])
{
	char self[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int directory;

	if (length < 0 || !name_is_plain(name))
		return false;
	self[length] = '\0';
	directory = (int)(strrchr(self, '/') - self);
	snprintf(path, PATH_MAX, "%.*s/../../bench/%s", directory, self, name);
	if (access(path, X_OK) == 0)
		return true;
	snprintf(path, PATH_MAX, "%.*s/../bench/%s", directory, self, name);
	if (access(path, X_OK) == 0)
		return true;
	snprintf(path, PATH_MAX, "%s/%s", PETAL_LIBEXEC_DIR, name);
	return access(path, X_OK) == 0;
}
