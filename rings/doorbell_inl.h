/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_DOORBELL_INL_H
#define PETAL_RINGS_DOORBELL_INL_H

/* Out of line, for they end in the kernel. */
void petal_doorbell_wake(struct petal_doorbell *doorbell, uint32_t count);
void petal_doorbell_wake_fd(struct petal_doorbell *doorbell, int fd);

/*
 * ThreadSanitizer does not model fences, and GCC says so. It need not: what
 * makes the news readable are the news' own atomics. The fence only decides
 * who of the two has to act.
 */
static inline void petal_doorbell_fence(void)
{
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif
	/* [WAKE] Our store before it, our load after it, on both sides. */
	atomic_thread_fence(memory_order_seq_cst);
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
}

static inline bool petal_doorbell_is_armed(struct petal_doorbell *doorbell)
{
	/* [WAKE] The fence is before this load; relaxed is enough for it. */
	petal_doorbell_fence();
	return atomic_load_explicit(&doorbell->armed, memory_order_relaxed) & 1;
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
