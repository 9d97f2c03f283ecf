/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_SIGNALS_H
#define PETAL_FABRIC_SIGNALS_H

#include <signal.h>

/**
 * DOC: signals - undo what libraries did before main()
 *
 * libfabric pulls in libraries (libpsm_infinipath) whose constructors install
 * handlers for these signals; a program that wants the kernel's own behaviour,
 * a core dump among it, calls this first thing in main(). Not for libraries:
 * dispositions are the program's.
 */
static inline void petal_signals_reset(void)
{
	static const int numbers[] = { SIGSEGV, SIGBUS, SIGILL,
				       SIGABRT, SIGINT, SIGTERM };

	for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		signal(numbers[i], SIG_DFL);
}

#endif
