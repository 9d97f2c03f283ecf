/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_CLI_BENCH_H
#define PETAL_CLI_BENCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/**
 * DOC: bench - what a run of several bench programs is written down as
 *
 *    DIR/NAME.jsonl    the rows, as the program printed them
 *    DIR/NAME.dat      what is plotted, and
 *    DIR/NAME.gp       how: gnuplot can draw it again
 *    DIR/NAME.svg      the plot
 *    DIR/index.html    all of it on one page
 */

/**
 * struct cli_bench_program - a program of bench/, and what it asks
 * @headroom: its rows differ in load: the plot has throughput on x and response
 *	      time on y
 */
struct cli_bench_program {
	const char *name;
	const char *question;
	bool headroom;
};

/**
 * cli_bench_report_begin() - start the page
 * @directory: exists
 *
 * Return: the page, or NULL with errno.
 */
FILE *cli_bench_report_begin(const char *directory);

/**
 * cli_bench_report_add() - add one program's table and plot to the page
 * @page: from cli_bench_report_begin()
 * @directory: where the rows are, and the plot goes
 * @program: whose
 * @rows: a JSON array: the machine, then the rows
 *
 * Return: 0; 1 when there is no gnuplot, so that the page has no plots; or
 * -errno.
 */
int cli_bench_report_add(FILE *page, const char *directory,
			 const struct cli_bench_program *program,
			 const json_t *rows);

/** cli_bench_report_end() - finish the page. Return: 0 or -errno. */
int cli_bench_report_end(FILE *page);

#endif
