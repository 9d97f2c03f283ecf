/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_BENCH_OPTIONS_H
#define PETAL_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * DOC: options - the command line of a bench program
 *
 * All take --json, --quick, --bytes N, --rounds N, --only TEXT and --help;
 * those that place a client and a server also --wait spin|sleep, --cpus
 * CLIENT,SERVER and --one-cpu; those whose servers write files --dir DIR.
 */

/**
 * struct petal_options_form - what differs between programs
 * @bytes_max: the largest --bytes
 * @bytes_help: what --bytes means here, for --help
 * @places: --wait, --cpus and --one-cpu are understood
 * @stores: --dir is understood
 */
struct petal_options_form {
	uint64_t bytes_max;
	const char *bytes_help;
	bool places;
	bool stores;
};

/**
 * struct petal_options - what was asked for
 * @only: what the name of a contender must hold; NULL: anything
 * @dir: where a temporary directory is made; NULL: TMPDIR, or /tmp
 * @bytes: 0: not said
 * @rounds: 1 to 1000; 20, or 10 if @quick
 * @leg_ns: how long a leg shall be
 * @cpus: of client and server; the first two that this process may use
 * @json: rows as JSON
 * @quick: --quick was given
 * @sleep: rows whose sides sleep are wanted
 * @spin: and those whose sides spin
 * @crowd: the sides may spin even if they share a CPU
 */
struct petal_options {
	const char *only;
	const char *dir;
	uint64_t bytes;
	unsigned rounds;
	uint64_t leg_ns;
	int cpus[2];
	bool json;
	bool quick;
	bool sleep;
	bool spin;
	bool crowd;
};

/* The most rounds that can be asked for. */
#define PETAL_OPTIONS_ROUNDS_MAX 1000u

/**
 * petal_options_parse() - read the command line
 * @ret_options: written only if there is something to run; @cpus only if the
 *		 program places its sides
 *
 * Prints the usage on stdout if asked, or one sentence on stderr.
 *
 * Return: 0: run; 1: the usage was all; -EINVAL: not understood.
 */
int petal_options_parse(const struct petal_options_form *form, int argc,
			char **argv, struct petal_options *ret_options);

/** petal_options_want() - ask whether a contender of that name is wanted */
bool petal_options_want(const char *only, const char *impl);

#ifdef __cplusplus
}
#endif

#endif
