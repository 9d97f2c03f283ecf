/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/runs.h"

void petal_runs_resume(struct petal_runs *r, uint32_t run, uint32_t highest,
		       bool whole, const struct petal_record_cursor *end,
		       uint64_t trim_pos)
{
	*r = (struct petal_runs){
		.run = run,
		.highest = highest,
		.whole = whole,
		.end = *end,
		.trim_pos = trim_pos,
		.next_trim_pos = trim_pos,
	};
}

static bool goes_on(const struct petal_runs *r,
		    const struct petal_record_cursor *from)
{
	return r->run != 0 && from->pos == r->end.pos &&
	       from->lsn == r->end.lsn && from->crc == r->end.crc;
}

uint32_t petal_runs_next(const struct petal_runs *r,
			 const struct petal_record_cursor *from)
{
	return goes_on(r, from) ? r->run : r->highest + 1;
}

/* Returns which of the two before is not needed. */
static uint32_t begin(struct petal_runs *r,
		      const struct petal_record_cursor *from)
{
	uint32_t dropped = r->whole ? r->before : r->run;
	uint32_t before = r->whole ? r->run : r->before;

	*r = (struct petal_runs){
		.run = r->highest + 1,
		.before = before,
		.highest = r->highest + 1,
		.trim_pos = from->pos,
		.next_trim_pos = from->pos,
	};
	return dropped;
}

uint32_t petal_runs_given(struct petal_runs *r,
			  const struct petal_record_cursor *from,
			  const struct petal_record_cursor *to,
			  uint64_t whole_pos)
{
	uint32_t dropped = 0;

	if (!goes_on(r, from))
		dropped = begin(r, from);
	r->end = *to;
	r->whole_pos = whole_pos;
	return dropped;
}

uint32_t petal_runs_durable(struct petal_runs *r, uint32_t run, uint64_t to_pos)
{
	uint32_t before = r->before;

	if (run != r->run || r->whole || to_pos < r->whole_pos)
		return 0;
	r->whole = true;
	r->before = 0;
	return before;
}

uint32_t petal_runs_give_up(struct petal_runs *r, bool begins)
{
	uint32_t before = r->before;

	r->before = 0;
	if (before == 0 && begins) {
		before = r->run;
		r->run = 0;
		r->whole = false;
	}
	return before;
}

void petal_runs_trim(struct petal_runs *r, uint64_t done_pos, uint64_t seen_pos,
		     uint64_t disk_pos)
{
	if (disk_pos < r->next_seen_pos)
		return;
	r->trim_pos = r->next_trim_pos;
	if (done_pos <= r->trim_pos)
		return;
	r->next_trim_pos = done_pos;
	r->next_seen_pos = seen_pos;
	if (seen_pos <= disk_pos)
		r->trim_pos = done_pos;
}
