/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_DOORBELL_INL_H
#define PETAL_RINGS_DOORBELL_INL_H

/* 1 when the heavy half was refused here; then each sleep is bounded. */
extern struct petal_u32 petal_doorbell_recheck;

/* Out of line, for they end in the kernel. */
void petal_doorbell_wake(struct petal_doorbell *doorbell, uint32_t count);
void petal_doorbell_wake_fd(struct petal_doorbell *doorbell, int fd);

static inline bool petal_doorbell_is_armed(struct petal_doorbell *doorbell)
{
	/* [WAKE] The barrier is before this load; relaxed is enough for it. */
	petal_barrier_light();
	return petal_load(&doorbell->armed, PETAL_RELAXED) & 1;
}

static inline void petal_doorbell_ring(struct petal_doorbell *doorbell,
				       uint32_t count)
{
	if (__builtin_expect(petal_doorbell_is_armed(doorbell), 0))
		petal_doorbell_wake(doorbell, count);
}

static inline void petal_doorbell_ring_fd(struct petal_doorbell *doorbell,
					  int fd)
{
	if (__builtin_expect(petal_doorbell_is_armed(doorbell), 0))
		petal_doorbell_wake_fd(doorbell, fd);
}

#endif
