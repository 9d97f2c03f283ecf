/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/barrier.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

struct petal_u32 petal_barrier_enrolled;

static int membarrier(int command)
{
	return (int)syscall(SYS_membarrier, command, 0, 0);
}

int petal_barrier_enroll(void)
{
	const int needed = MEMBARRIER_CMD_GLOBAL_EXPEDITED |
			   MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
	int commands = membarrier(MEMBARRIER_CMD_QUERY);

	if (commands < 0 || (commands & needed) != needed ||
	    membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) != 0)
		return -EOPNOTSUPP;
	/* Relaxed: a thread that sees it late fences once more. */
	petal_store(&petal_barrier_enrolled, 1, PETAL_RELAXED);
	return 0;
}

int petal_barrier_heavy(void)
{
	int saved = errno;
	int outcome;

	petal_fence(PETAL_SEQ_CST(WAKE));
	outcome = membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED);
	errno = saved;
	return outcome ? -EOPNOTSUPP : 0;
}
