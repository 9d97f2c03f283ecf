/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/cli/bench.h"

#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * A bench either times round trips, so that its rows have a p50, or counts
 * messages, so that they have only a rate. The first kind is plotted as three
 * quantiles per row on a logarithmic scale, the second as rates.
 */

static const char page_head[] =
	"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
	"<title>Petalith: bench</title>\n<style>\n"
	"body{font:15px/1.5 sans-serif;max-width:76em;margin:2em auto;"
	"padding:0 1em;color:#222}\n"
	"table{border-collapse:collapse;font-size:13px}\n"
	"th,td{padding:.2em .7em;text-align:right;border-bottom:1px solid "
	"#ddd}\n"
	"th:first-child,td:first-child,td.text,th.text{text-align:left}\n"
	"tr.floor{background:#f3f3f3}tr.ours{background:#eaf4ea}\n"
	"img{max-width:100%}p.machine{color:#666}\n"
	"</style></head><body>\n<h1>Petalith: bench</h1>\n"
	"<p>Each table is one run: floor, ours and peers took turns, round by "
	"round. Compare the column <i>x floor</i>; a time belongs to its "
	"machine. Grey rows are floors, green ones ours.</p>\n";

static const char *text_of(const json_t *row, const char *key)
{
	const char *text = json_string_value(json_object_get(row, key));

	return text ? text : "";
}

static double number_of(const json_t *row, const char *key)
{
	return json_number_value(json_object_get(row, key));
}

static bool is_true(const json_t *row, const char *key)
{
	return json_is_true(json_object_get(row, key));
}

static void html(FILE *page, const char *text)
{
	for (; *text; text++) {
		if (*text == '<')
			fputs("&lt;", page);
		else if (*text == '>')
			fputs("&gt;", page);
		else if (*text == '&')
			fputs("&amp;", page);
		else
			fputc(*text, page);
	}
}

FILE *cli_bench_report_begin(const char *directory)
{
	char path[PATH_MAX];
	FILE *page;

	snprintf(path, sizeof(path), "%s/index.html", directory);
	page = fopen(path, "we");
	if (page)
		fputs(page_head, page);
	return page;
}

static void machine_write(FILE *page, const json_t *line)
{
	const json_t *machine = json_object_get(line, "machine");

	if (!machine)
		return;
	fputs("<p class=\"machine\">", page);
	html(page, text_of(machine, "cpu"));
	fprintf(page, ", %d CPUs, Linux ", (int)number_of(machine, "cpus"));
	html(page, text_of(machine, "kernel"));
	fputs(", ", page);
	html(page, text_of(machine, "date"));
	fputs(", commit ", page);
	html(page, text_of(machine, "commit"));
	fputs("</p>\n", page);
}

static void cell(FILE *page, bool known, const char *format, double value)
{
	fputs("<td>", page);
	if (known)
		fprintf(page, format, value);
	else
		fputs("-", page);
	fputs("</td>", page);
}

static void row_write(FILE *page, const json_t *row)
{
	bool ran = number_of(row, "n") > 0;
	bool timed = ran && number_of(row, "p50_ns") > 0;
	const char *class = is_true(row, "floor")  ? "floor"
			    : is_true(row, "peer") ? "peer"
						   : "ours";

	fprintf(page, "<tr class=\"%s\"><td>", class);
	html(page, text_of(row, "impl"));
	fputs("</td><td class=\"text\">", page);
	html(page, text_of(row, "case"));
	fprintf(page, "</td><td class=\"text\">%s</td>", text_of(row, "wait"));
	cell(page, true, "%.0f", number_of(row, "bytes"));
	fprintf(page, "<td>%.0f:%.0f</td>", number_of(row, "producers"),
		number_of(row, "consumers"));
	cell(page, timed, "%.3f", number_of(row, "p50_ns") / 1e3);
	cell(page, timed, "%.3f", number_of(row, "p99_ns") / 1e3);
	cell(page, timed, "%.3f", number_of(row, "p999_ns") / 1e3);
	cell(page, ran, "%.0f", number_of(row, "msgs_per_s"));
	cell(page, ran, "%.1f", number_of(row, "cpu_ns_per_msg"));
	cell(page, ran && number_of(row, "floor_ratio") > 0, "%.2f",
	     number_of(row, "floor_ratio"));
	fputs("<td class=\"text\">", page);
	html(page, text_of(row, "note"));
	fputs("</td></tr>\n", page);
}

static void table_write(FILE *page, const json_t *rows)
{
	const json_t *row;
	size_t i;

	fputs("<table><tr><th>impl</th><th class=\"text\">case</th>"
	      "<th class=\"text\">wait</th><th>bytes</th><th>parties</th>"
	      "<th>p50 us</th><th>p99 us</th><th>p99.9 us</th><th>msgs/s</th>"
	      "<th>cpu ns/msg</th><th>x floor</th><th class=\"text\">note</th>"
	      "</tr>\n",
	      page);
	json_array_foreach (rows, i, row)
		if (json_object_get(row, "impl"))
			row_write(page, row);
	fputs("</table>\n", page);
}

/* ---- how they scale ---- */

static void law_write(FILE *page, const json_t *law)
{
	fprintf(page, "<tr class=\"%s\"><td>",
		is_true(law, "peer") ? "peer" : "ours");
	html(page, text_of(law, "impl"));
	fputs("</td><td class=\"text\">", page);
	html(page, text_of(law, "case"));
	fputs("</td>", page);
	cell(page, true, "%.0f", number_of(law, "window"));
	cell(page, true, "%.4f", number_of(law, "sigma"));
	cell(page, true, "%.5f", number_of(law, "kappa"));
	cell(page, true, "%.0f", number_of(law, "lambda_per_s"));
	cell(page, true, "%.0f", number_of(law, "error") * 100);
	fputs("</tr>\n", page);
}

static void laws_write(FILE *page, const json_t *rows)
{
	const json_t *row;
	bool headed = false;
	size_t i;

	json_array_foreach (rows, i, row) {
		const json_t *law = json_object_get(row, "usl");

		if (!law)
			continue;
		if (!headed)
			fputs("<table><tr><th>impl</th>"
			      "<th class=\"text\">case</th><th>window</th>"
			      "<th>sigma</th><th>kappa</th>"
			      "<th>lambda msgs/s</th><th>off by %</th></tr>\n",
			      page);
		headed = true;
		law_write(page, law);
	}
	if (headed)
		fputs("</table>\n", page);
}

/* ---- the plot ---- */

/* A label of its own for each row; the words of a row never hold a tab. */
static void data_row(FILE *data, const json_t *row)
{
	fprintf(data, "%s %s %.0f B %s %.0f:%.0f\t%g\t%g\t%g\t%g\n",
		text_of(row, "impl"), text_of(row, "case"),
		number_of(row, "bytes"), text_of(row, "wait"),
		number_of(row, "producers"), number_of(row, "consumers"),
		number_of(row, "p50_ns") / 1e3, number_of(row, "p99_ns") / 1e3,
		number_of(row, "p999_ns") / 1e3, number_of(row, "msgs_per_s"));
}

/* How many rows there are to plot, and whether they have quantiles. */
static unsigned data_write(FILE *data, const json_t *rows, bool *ret_timed)
{
	const json_t *row;
	unsigned count = 0;
	size_t i;

	*ret_timed = false;
	json_array_foreach (rows, i, row) {
		if (number_of(row, "n") <= 0)
			continue;
		data_row(data, row);
		*ret_timed |= number_of(row, "p50_ns") > 0;
		count++;
	}
	return count;
}

static void plot_write(FILE *plot, const char *name, const char *question,
		       unsigned count, bool timed)
{
	fprintf(plot,
		"set terminal svg size 1000,%u font 'sans,12' background "
		"rgb 'white'\n"
		"set output '%s.svg'\nset datafile separator '\\t'\n"
		"set title \"%s: %s\"\nset logscale x\nset grid x\n"
		"set yrange [%u.5:-0.5]\nset ytics nomirror\n"
		"set xlabel '%s'\n"
		"set lmargin 46\nset key outside right\n",
		140 + count * 22, name, name, question, count,
		timed ? "microseconds" : "messages per second");
	if (timed)
		fprintf(plot,
			"plot '%s.dat' using 2:0:ytic(1) with points pt 7 "
			"ps 0.9 title 'p50', "
			"'' using 3:0 with points pt 6 ps 0.9 title 'p99', "
			"'' using 4:0 with points pt 2 ps 0.9 title 'p99.9'\n",
			name);
	else
		fprintf(plot,
			"plot '%s.dat' using 5:0:ytic(1) with points pt 7 "
			"ps 0.9 title 'messages per second'\n",
			name);
}

/* A block for each impl, which is its title, with a line for each load. */
static unsigned headroom_data(FILE *data, const json_t *rows)
{
	const char *impl = "";
	const json_t *row;
	unsigned count = 0;
	size_t i;

	json_array_foreach (rows, i, row) {
		/* At its peak a transport sets the pace, not the load. */
		if (number_of(row, "n") <= 0 || is_true(row, "floor") ||
		    strcmp(text_of(row, "case"), "peak") == 0)
			continue;
		if (strcmp(impl, text_of(row, "impl")) != 0) {
			impl = text_of(row, "impl");
			fprintf(data, "%s%s\n", count++ ? "\n\n" : "", impl);
		}
		fprintf(data, "%g\t%g\t%g\n", number_of(row, "msgs_per_s"),
			number_of(row, "p50_ns") / 1e3,
			number_of(row, "p99_ns") / 1e3);
	}
	return count;
}

static void headroom_write(FILE *plot, const char *name, const char *question,
			   unsigned count)
{
	fprintf(plot,
		"set terminal svg size 1000,500 font 'sans,12' background "
		"rgb 'white'\n"
		"set output '%s.svg'\nset datafile separator '\\t'\n"
		"set termoption noenhanced\n"
		"set title \"%s: %s\"\nset logscale xy\nset grid\n"
		"set xlabel 'messages per second'\n"
		"set ylabel 'microseconds'\nset key outside right\n"
		"plot for [i=0:%d] '%s.dat' index i using 1:2 "
		"smooth unique with linespoints lc i+1 pt 7 "
		"title columnheader(1).' p50', "
		"for [i=0:%d] '' index i using 1:3 "
		"smooth unique with linespoints lc i+1 pt 6 dt 2 "
		"title columnheader(1).' p99'\n",
		name, name, question, (int)count - 1, name, (int)count - 1);
}

static int gnuplot_run(const char *directory, const char *name)
{
	char *argv[] = { (char *)"gnuplot", NULL, NULL };
	posix_spawn_file_actions_t actions;
	char script[128];
	int status, err;
	pid_t pid;

	snprintf(script, sizeof(script), "%s.gp", name);
	argv[1] = script;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addchdir_np(&actions, directory);
	err = posix_spawnp(&pid, "gnuplot", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (err != 0)
		return err == ENOENT ? 1 : -err;
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	return status == 0 ? 0 : -EIO;
}

static FILE *file_beside(const char *directory, const char *name,
			 const char *ending)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s.%s", directory, name, ending);
	return fopen(path, "we");
}

static int plot(const char *directory, const struct cli_bench_program *program,
		const json_t *rows)
{
	FILE *data = file_beside(directory, program->name, "dat");
	FILE *script = file_beside(directory, program->name, "gp");
	bool timed = false, written = data && script;
	unsigned count;
	int err = -errno;

	if (written && program->headroom) {
		count = headroom_data(data, rows);
		headroom_write(script, program->name, program->question, count);
	} else if (written) {
		count = data_write(data, rows, &timed);
		plot_write(script, program->name, program->question, count,
			   timed);
	}
	if (data && fclose(data) != 0)
		written = false;
	if (script && fclose(script) != 0)
		written = false;
	return written ? gnuplot_run(directory, program->name) : err;
}

int cli_bench_report_add(FILE *page, const char *directory,
			 const struct cli_bench_program *program,
			 const json_t *rows)
{
	int drawn = plot(directory, program, rows);

	fprintf(page, "<h2>%s</h2>\n<p>%s</p>\n", program->name,
		program->question);
	machine_write(page, json_array_get(rows, 0));
	if (drawn == 0)
		fprintf(page, "<p><img src=\"%s.svg\" alt=\"%s\"></p>\n",
			program->name, program->question);
	table_write(page, rows);
	laws_write(page, rows);
	fflush(page);
	return ferror(page) ? -EIO : drawn;
}

int cli_bench_report_end(FILE *page)
{
	fputs("</body></html>\n", page);
	return fclose(page) == 0 ? 0 : -errno;
}
