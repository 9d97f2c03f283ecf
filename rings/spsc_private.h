/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_RINGS_SPSC_PRIVATE_H
#define PETAL_RINGS_SPSC_PRIVATE_H

#include "rings/spsc.h"

/* What spsc.c needs of spsc_far.c, and nobody else does. */

/* Let the other side see what was stored here. */
void petal_spsc_far_show(const void *address, uint64_t bytes);

/* Forget all slots: who produced before us may have run elsewhere. */
void petal_spsc_far_refresh_slots(const struct petal_spsc *ring);

#endif
