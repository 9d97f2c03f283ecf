/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_SIM_WORLD_H
#define PETAL_TESTS_SIM_WORLD_H

#include <stdint.h>

/**
 * DOC: world - a trio at work, with everything going wrong at random
 *
 *    sources --put--> work --take, forward--> done --take, acknowledge--> end
 *
 * Sources, workers and clerks publish, give back, forget, stop half way and
 * die; links are cut, backups lose their memory, disks fail or fill; flights
 * arrive in pieces and in any order; time jumps. A seed says all of it.
 *
 * In the end everything is mended and comes to rest, and then each message that
 * was accepted must have gone through both queues exactly once.
 */
void world_run(uint64_t seed, unsigned steps);

#endif
