/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_CLI_CLI_H
#define PETAL_CLI_CLI_H

#define CLI_DIR_DEFAULT "/var/lib/petalith" /* of a node, where no --dir is */

/**
 * DOC: cli - petal's commands, one function each
 *
 * argv[0] is the command's own name. Answers go to stdout, errors to stderr, in
 * one sentence. Return: 0 fine; 1 something is wrong with the fabric; 2 usage.
 */
int cli_status(int argc, char **argv);
int cli_rings(int argc, char **argv);
int cli_replace(int argc, char **argv);
int cli_recover(int argc, char **argv);
int cli_probe(int argc, char **argv);
int cli_demo(int argc, char **argv);
int cli_bench(int argc, char **argv);

/* The demo's own processes; petal starts them itself. */
int cli_demo_source(int argc, char **argv);
int cli_demo_worker(int argc, char **argv);
int cli_demo_clerk(int argc, char **argv);
int cli_demo_supervisor(int argc, char **argv);

#endif
