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
			  uint32_t epoch, enum petal_failover_voice voice,
			  const struct petal_record_cursor *end,
			  uint64_t now_ns)
{
	f->members[member].suspects = epoch;
	f->members[member].voice = voice;
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

/* Whether another member misses the same primary, and said so of late. */
static bool suspects_too(const struct petal_failover *f, unsigned i,
			 uint64_t now_ns)
{
	const struct petal_failover_member *member = &f->members[i];

	return i != f->self && member->suspects == f->suspected &&
	       now_ns <= member->suspects_ns + PETAL_FAILOVER_FRESH_NS;
}

bool petal_failover_may_run(const struct petal_failover *f,
			    const struct petal_record_cursor *end,
			    uint64_t now_ns)
{
	bool patient = now_ns < f->suspected_ns + PETAL_FAILOVER_PATIENCE_NS;

	if (f->suspected == 0)
		return false;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		if (!suspects_too(f, i, now_ns) ||
		    f->members[i].voice != PETAL_FAILOVER_MEMORY)
			continue;
		if (!patient || goes_first(f, i, end))
			return true;
	}
	return false;
}

bool petal_failover_may_run_cold(const struct petal_failover *f,
				 const struct petal_record_cursor *end,
				 unsigned memories, uint64_t now_ns)
{
	uint64_t waited_ns = now_ns - f->suspected_ns;
	bool first = true;
	unsigned count = 1;

	if (f->suspected == 0 || memories >= PETAL_FAILOVER_QUORUM)
		return false;
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		if (!suspects_too(f, i, now_ns) ||
		    f->members[i].voice == PETAL_FAILOVER_NONE)
			continue;
		first &= goes_first(f, i, end);
		count++;
	}
	if (count < PETAL_FAILOVER_QUORUM ||
	    (count < PETAL_LOG_MEMBERS && waited_ns < PETAL_FAILOVER_COLD_NS))
		return false;
	return first ||
	       waited_ns > PETAL_FAILOVER_COLD_NS + PETAL_FAILOVER_PATIENCE_NS;
}

void petal_failover_fence(struct petal_failover *f, uint32_t epoch,
			  unsigned quorum)
{
	f->fencing = epoch;
	f->quorum = quorum;
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
	return count < f->quorum ? -EAGAIN : best;
}
