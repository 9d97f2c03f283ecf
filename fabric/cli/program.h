/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_CLI_PROGRAM_H
#define PETAL_CLI_PROGRAM_H

#include <limits.h>
#include <stdbool.h>

/**
 * cli_program_find() - where a program of bench/ is
 * @name: of the program; letters, digits and underscores only
 * @path: where to write it
 *
 * Beside petal when it was built, in the library's own directory when it was
 * installed.
 *
 * Return: whether there is one.
 */
bool cli_program_find(const char *name, char path[PATH_MAX]);

#endif
