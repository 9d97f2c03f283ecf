/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/failover.h"

#include <errno.h>
#include <string.h>

void petal_failover_open(struct petal_failover *f, unsigned self)
{
	memset(f, 0, sizeof(*f));
	f->self = self;
}

bool petal_failover_better(const struct petal_record_cursor *a,
			   const struct petal_record_cursor *b)
{
	if (a->epoch != b->epoch)
		return a->epoch > b->epoch;
	return a->lsn > b->lsn;
}

void petal_failover_suspect(struct petal_failover *f, uint32_t epoch,
			    uint64_t now_ns)
{
	if (f->suspected == epoch)
		return;
	f->suspected = epoch;
	f->suspected_ns = now_ns;
}

void petal_failover_trust(struct petal_failover *f)
{
	f->suspected = 0;
}

void petal_failover_heard(struct petal_failover *f, unsigned member,
			  uint32_t epoch, const struct petal_record_cursor *end,
			  uint64_t now_ns)
{
	f->members[member].suspects = epoch;
	f->members[member].suspects_ns = now_ns;
	f->members[member].suspects_end = *end;
}

static bool goes_first(const struct petal_failover *f, unsigned member,
		       const struct petal_record_cursor *end)
{
	const struct petal_record_cursor *theirs =
		&f->members[member].suspects_end;

	if (petal_failover_better(end, theirs))
		return true;
	return !petal_failover_better(theirs, end) && f->self < member;
}

bool petal_failover_may_run(const struct petal_failover *f,
			    const struct petal_record_cursor *end,
			    uint64_t now_ns)
{
	bool patient = now_ns < f->suspected_ns + PETAL_FAILOVER_PATIENCE_NS;

	if (f->suspected == 0)
		return false;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		const struct petal_failover_member *member = &f->members[i];

		if (i == f->self || member->suspects != f->suspected ||
		    now_ns > member->suspects_ns + PETAL_FAILOVER_FRESH_NS)
			continue;
		if (!patient || goes_first(f, i, end))
			return true;
	}
	return false;
}

void petal_failover_fence(struct petal_failover *f, uint32_t epoch)
{
	f->fencing = epoch;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++)
		f->members[i].answered = false;
}

void petal_failover_fenced(struct petal_failover *f, unsigned member,
			   uint32_t epoch, bool counts,
			   const struct petal_record_cursor *end)
{
	if (f->fencing == 0 || f->fencing != epoch)
		return;
	f->members[member].answered = true;
	f->members[member].counts = counts;
	f->members[member].end = *end;
}

int petal_failover_best(const struct petal_failover *f)
{
	unsigned count = 0;
	int best = -EAGAIN;

	for (unsigned n = 0; n < PETAL_LOG_MEMBERS; n++) {
		/* Ours first, so that it stays if no other is better. */
		unsigned i = (f->self + n) % PETAL_LOG_MEMBERS;
		const struct petal_failover_member *member = &f->members[i];

		if (!member->answered || !member->counts)
			continue;
		count++;
		if (best < 0 ||
		    petal_failover_better(&member->end, &f->members[best].end))
			best = (int)i;
	}
	return count < PETAL_FAILOVER_QUORUM ? -EAGAIN : best;
}
