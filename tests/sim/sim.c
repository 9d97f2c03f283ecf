/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Histories of durable rings, one after the other.
 *
 *    sim KIND SEED SEEDS STEPS
 *
 * KIND is heirs (tests/sim/heirs.h) or world (tests/sim/world.h). Prints a line
 * of JSON. A history that breaks a rule names its seed, step and rule on stderr
 * and ends the program with another exit code; sim KIND SEED 1 STEPS plays that
 * one again. Run by tests/prove/sim.
 */
#include "tests/check.h"

#include <inttypes.h>

#include "tests/sim/heirs.h"
#include "tests/sim/world.h"

int main(int argc, char **argv)
{
	struct heirs_counts c = { 0 };
	uint64_t seed, end, steps;
	bool heirs;

	if (argc != 5)
		return 2;
	heirs = strcmp(argv[1], "heirs") == 0;
	if (!heirs && strcmp(argv[1], "world") != 0)
		return 2;
	seed = strtoull(argv[2], NULL, 10);
	end = seed + strtoull(argv[3], NULL, 10);
	steps = strtoull(argv[4], NULL, 10);
	printf("{\"tried\": %" PRIu64, (end - seed) * steps);
	for (; seed < end; seed++) {
		if (heirs)
			heirs_run(seed, (unsigned)steps, &c);
		else
			world_run(seed, (unsigned)steps);
	}
	printf(", \"failed\": 0, \"records\": %" PRIu64 ", \"epochs\": %" PRIu64
	       ", \"crashes\": %" PRIu64 ", \"deposed\": %" PRIu64
	       ", \"resolved\": %" PRIu64 "}\n",
	       c.records, c.epochs, c.crashes, c.deposed, c.resolved);
	return 0;
}
