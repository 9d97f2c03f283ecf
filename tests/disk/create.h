/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_TESTS_DISK_CREATE_H
#define PETAL_TESTS_DISK_CREATE_H

#include <stdint.h>

/**
 * DOC: create - the power is cut while a journal is made
 *
 * The calls that make the file are recorded, and after each of them the states
 * that a crash may leave are built: the name is the old one, and if it was
 * changed and the directory not yet synced, either; of the file there is what
 * was synced, and any part of what was not. Each must open, as a new journal;
 * and once petal_journal_open() has returned, as the one that was made.
 */

/**
 * create_cut() - make a journal in @dir, which is empty, and cut it off
 * @ret_failed: of the states, how many were not right; told on stderr
 *
 * Return: how many states were tried.
 */
uint64_t create_cut(const char *dir, uint64_t *ret_failed);

/* What platter.c lets through to the kernel. */
void create_saw_write(const void *bytes, uint64_t length, uint64_t offset);
void create_saw_sync(int fd);

#endif
