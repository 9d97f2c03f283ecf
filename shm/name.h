/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_SHM_NAME_H
#define PETAL_SHM_NAME_H

#include <stdint.h>

/*
 * Short names in shared memory, of counters and histograms: 1 to 31 bytes of
 * a-z, 0-9, '.', '_' and '-', then zeroes. Not installed.
 */

#define NAME_BYTES 32u

/* 0 or -EINVAL. @ret_name may be shared: it is written once, and whole. */
int name_store(const char *name, char ret_name[NAME_BYTES]);

/* 0 or -PETAL_ECORRUPT. The copy is what is checked. */
int name_load(const char shared[NAME_BYTES], char ret_name[NAME_BYTES]);

#endif
