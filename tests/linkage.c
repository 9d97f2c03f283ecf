/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads the library named on the command line, the way a host program loads
 * a plug-in, and says whether that changed what any signal does. A library
 * that installs handlers takes them away from the program that embeds it.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void dispositions(struct sigaction actions[static _NSIG])
{
	memset(actions, 0, _NSIG * sizeof(actions[0]));
	for (int signo = 1; signo < _NSIG; signo++)
		sigaction(signo, NULL, &actions[signo]);
}

static int changes(const struct sigaction before[static _NSIG],
		   const struct sigaction after[static _NSIG])
{
	int count = 0;

	for (int signo = 1; signo < _NSIG; signo++) {
		if (before[signo].sa_handler == after[signo].sa_handler)
			continue;
		fprintf(stderr, "linkage: loading changed what %s does\n",
			strsignal(signo));
		count++;
	}
	return count;
}

int main(int argc, char **argv)
{
	struct sigaction before[_NSIG], after[_NSIG];
	void *library;

	if (argc != 3) {
		fprintf(stderr, "usage: linkage LIBRARY SYMBOL\n");
		return 2;
	}

	dispositions(before);
	library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		fprintf(stderr, "linkage: %s\n", dlerror());
		return 1;
	}
	if (!dlsym(library, argv[2])) {
		fprintf(stderr, "linkage: %s\n", dlerror());
		return 1;
	}
	dispositions(after);
	return changes(before, after) ? 1 : 0;
}
