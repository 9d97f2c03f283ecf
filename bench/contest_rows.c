/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "bench/contest_private.h"
#include "shm/error.h"

static void note_places(const struct petal_contest *contest, char *note,
			size_t size)
{
	if (contest->cpus[0] == contest->cpus[1])
		snprintf(note, size, "both on cpu %d", contest->cpus[0]);
	else
		snprintf(note, size, "cpus %d and %d", contest->cpus[0],
			 contest->cpus[1]);
}

/* Each part goes behind what is there, as far as there is room. */
static void write_note(const struct contest_run *run,
		       const struct contest_entry *entry, bool spin, char *note,
		       size_t size)
{
	bool floor = entry == &run->floors[spin];
	size_t used;

	note_places(run->contest, note, size);
	used = strlen(note);
	if (entry->rounds > 0 && !floor)
		petal_ratios_note(&entry->ratios, spin, note + used,
				  size - used);
	used = strlen(note);
	if (*entry->who->remark)
		snprintf(note + used, size - used, "; %s", entry->who->remark);
	used = strlen(note);
	if (floor)
		snprintf(note + used, size - used,
			 "; reading the clock is %u ns of each sample",
			 (unsigned)run->clock_ns);
	used = strlen(note);
	if (entry->fault)
		snprintf(note + used, size - used, "; broke in round %u: %s",
			 entry->rounds + 1, petal_strerror(entry->fault));
}

static void fill_row(struct petal_row *row, const struct contest_run *run,
		     struct contest_entry *entry, bool spin)
{
	petal_row_take(row, entry->total);
	row->rounds = entry->rounds;
	if (entry->wall_ns > 0)
		row->msgs_per_s = (double)row->n * 1e9 / (double)entry->wall_ns;
	if (row->n > 0)
		row->cpu_ns_per_msg = (double)entry->cpu_ns / (double)row->n;
	row->floor_ratio = entry == &run->floors[spin]
				   ? 1
				   : petal_ratios_median(&entry->ratios);
}

static int print_row(struct contest_run *run, struct contest_entry *entry,
		     bool spin, const char *refusal)
{
	struct petal_row row;
	char note[512];

	petal_row_init(&row, run->contest->bench);
	row.impl = entry->who->impl;
	row.version = entry->who->version;
	row.peer = entry->who->peer;
	row.floor = entry == &run->floors[spin];
	row.bytes = entry->who->bytes;
	row.wait = spin ? "spin" : "sleep";
	row.note = refusal;
	if (!refusal) {
		write_note(run, entry, spin, note, sizeof(note));
		row.note = note;
		fill_row(&row, run, entry, spin);
	}
	return petal_row_print(&run->sink, &row);
}

/* Why there is nothing to measure, or NULL. */
static const char *refusal_of(const struct contest_run *run,
			      const struct contest_entry *entry, bool spin,
			      char *text, size_t size)
{
	const struct petal_contest *contest = run->contest;

	if (spin && !contest->crowd && contest->cpus[0] == contest->cpus[1])
		return "not run: a spinning pair on one cpu measures the "
		       "scheduler (--one-cpu runs it)";
	if (entry->who->polls && !spin && !entry->fault)
		return "not run: it polls and cannot sleep";
	if (!entry->fault || entry->total->count > 0)
		return NULL;
	snprintf(text, size, "not run: %s%s%s", petal_strerror(entry->fault),
		 *entry->who->remark ? "; " : "", entry->who->remark);
	return text;
}

int contest_rows_print(struct contest_run *run, bool spin)
{
	char text[128];
	int err;

	err = print_row(run, &run->floors[spin], spin,
			refusal_of(run, &run->floors[spin], spin, text,
				   sizeof(text)));
	for (size_t i = 0; i < run->count && err == 0; i++)
		err = print_row(run, &run->entries[i], spin,
				refusal_of(run, &run->entries[i], spin, text,
					   sizeof(text)));
	return err;
}
