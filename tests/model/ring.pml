/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: ring - the protocol of a ring that is kept three times
 *
 * What is modelled: one ring, from the moment at which epoch 1 is open. One
 * process is one petal with its memory and its disk. It is a backup of every
 * epoch of which it is a member, and the primary of those that it made. The
 * registry is the variables under "the registry": it changes by one indivisible
 * step, which is what a compare-and-swap is.
 *
 *    append --> accept --> acknowledge --> commit: clients are told
 *
 *    cas --> fence, reply --> adopt --> start, accept --> open
 *    F1      F2, F3           F3        F4                F5: seal, open
 *
 * Time: there is none (I17). Any step of any petal may come next, or never. So
 * a message may be late by any time; a partition, whole, one-way or partial,
 * is that steps between two petals do not come; a pause is that those of one do
 * not; a timer that fires too early is a CAS that needs no reason.
 *
 * A record is the epoch in which it was made: (epoch, lsn) names it, for an
 * epoch has one writer and a writer never writes an lsn twice; both are
 * asserted (I2, I3). An acknowledgement reaches the primary at once. That is
 * the worst case: whoever is told later is told no more, and what was told
 * earlier must be kept for longer.
 *
 * Chosen by -D, see README.md: the level, MEM2, MEM3 or DISK2; NODES; EPOCHS,
 * APPENDS, LOSSES (memory lost) and RESTARTS (memory kept) at most; RECYCLE;
 * and one rule that is left out, WITHOUT_name, or one goal, GOAL_name.
 */

#if defined(MEM3)
#define REPLIES 1 /* one survivor may have it all: F3, and section 6 */
#define COPIES 3
#else
#define REPLIES 2
#define COPIES 2
#endif

#ifdef WITHOUT_SECOND_REPLY
#undef REPLIES
#define REPLIES 1
#endif
#ifdef WITHOUT_LEVEL_FOR_SIGHT /* consumers of a mem3 ring see it at mem2 */
#define TOLD 2
#else
#define TOLD COPIES
#endif

#define MEMBERS 3
#define LSNS (APPENDS + EPOCHS - 1) /* one EPOCH_START for each but the first */
#define NOBODY 255
#define NOWHERE 255

typedef log { byte at[LSNS] }          /* the record's epoch, 0: none */
typedef ends { byte at[NODES] }        /* an lsn for each petal */

/* --- the registry: what a compare-and-swap has put there ------------------ */

byte epoch = 1;                        /* of the last CAS */
byte primary[EPOCHS + 1];              /* I2: one for each epoch */
byte members[EPOCHS + 1];              /* a set of three */
byte voters[EPOCHS + 1];               /* those with the incarnation it names */
byte opened = 2;                       /* a set of epochs */
log sealed;                            /* segments: whose record an lsn is */

/* --- the petals ----------------------------------------------------------- */

byte promised[NODES];                  /* durable, also where nothing else is */
byte joined[NODES];                    /* where a learner has to get, and one */
log memory[NODES];
#ifdef DISK2
log disk[NODES];
#define KEPT disk
#define ELECTORATE(e) members[e]       /* a disk remembers, whoever reads it */
#else
#define KEPT memory
#define ELECTORATE(e) voters[e]        /* I10 */
#endif

/* --- what the primary of an epoch knows, or its candidate ----------------- */

byte base[EPOCHS + 1] = NOWHERE;       /* lsn of EPOCH_START, NOWHERE before */
byte replies[EPOCHS + 1];              /* FENCED, by the electorate */
byte best[EPOCHS + 1] = NOBODY;        /* whose log: ours, once we have it */
ends acked[EPOCHS + 1];                /* M or D, as the level counts */

/* --- what clients were told, and how much may still happen ---------------- */

log told;                              /* acknowledged, or seen by a consumer */
byte appends, losses, restarts;

#ifdef RECYCLE
/*
 * One segment at each petal, that of epoch 1, is freed and used again by a
 * later epoch. keys: whose endpoint may still write into it.
 */
byte trimmed;                          /* lsns below are nobody's any more */
byte keys = 6;                         /* a set of petals */
byte reused[NODES];                    /* by the segment of this epoch */
#define TRIMMED trimmed
#else
#define TRIMMED 0
#endif

/* Scratch, 0 between two steps. */
byte l, m, n, o, p, s, count, is_done;

#define BIT(x) (1 << (x))
#define IN(set, x) (((set) >> (x)) & 1)
#define OPEN(e) IN(opened, e)
/* The last epoch before e that was opened; no earlier one can be any more. */
#define BEFORE(e) ((e) > 5 && OPEN(5) -> 5 : ((e) > 4 && OPEN(4) -> 4 : \
		   ((e) > 3 && OPEN(3) -> 3 : ((e) > 2 && OPEN(2) -> 2 : 1))))
#define LAST BEFORE(EPOCHS + 1)
/*
 * A petal serves an epoch that it made until it promises a later one, or loses
 * its memory, and with it the incarnation by which it was elected.
 */
#define SERVES(x, e) (primary[e] == (x) && promised[x] == (e) && \
		      IN(voters[e], x))
#define HAS_LOG(e) (replies[e] >= REPLIES && best[e] == primary[e])
/* From here on a log must be whole; below, sealed segments are copied apart. */
#define WHOLE_FROM(e) base[BEFORE(e) + OPEN(e) * ((e) - BEFORE(e))]

/* l: the lsn at which x has to go on to become like y, LSNS if it is. */
inline first_unlike(x, y, from)
{
	l = from;
	do
	:: l < LSNS && (memory[y].at[l] == 0 ||
			memory[y].at[l] == memory[x].at[l]) -> l++
	:: else -> break
	od
}

/* l: the lsn behind the last record of x. */
inline end_of(x)
{
	l = LSNS;
	do
	:: l > 0 && memory[x].at[l - 1] == 0 -> l--
	:: else -> break
	od
}

/*
 * Puts a record in its place. One that was there is proved not to be of this
 * log, and so are those behind it that are older than `than`: they were chained
 * to it. This is the only place where anything is cut (I11).
 */
#define PUT(log, record, than) \
	if \
	:: log.at[l] != 0 -> \
		for (m : l + 1 .. LSNS - 1) { \
			if \
			:: log.at[m] < than -> log.at[m] = 0 \
			:: else \
			fi \
		} \
	:: else \
	fi; \
	log.at[l] = record

/* count: how many members of e have acknowledged the record at lsn l. */
inline count_copies(e)
{
	count = 0;
	for (n : 0 .. NODES - 1) {
		count = count + (IN(members[e], n) && acked[e].at[n] > l)
	}
}

/* Clients may be told of the record of epoch e at lsn l, and are. */
inline tell(e)
{
	/* I6, seen from a late primary: those who came later have it, too. */
	assert(told.at[l] == 0 || told.at[l] == e);
	assert(LAST == e || (l < base[LAST] && sealed.at[l] == e));
	told.at[l] = e
}

/* Every level is a prefix, so this looks at one lsn after the other. */
inline commit(e)
{
	if
	:: OPEN(e) ->
		l = base[e];
		do
		:: l < LSNS ->
			count_copies(e);
			if
			:: count >= TOLD -> tell(e)
			:: else -> break
			fi;
			l++
		:: else -> break
		od
#ifdef WITHOUT_START
	:: !OPEN(e) && HAS_LOG(e) && SERVES(primary[e], e) ->
		/* What was found counts as soon as enough of us hold it. */
		l = base[BEFORE(e)];
		do
		:: l < LSNS && memory[primary[e]].at[l] != 0 &&
		   memory[primary[e]].at[l] != e ->
			count = 0;
			for (n : 0 .. NODES - 1) {
				count = count + (IN(members[e], n) &&
					promised[n] == e && KEPT[n].at[l] ==
					memory[primary[e]].at[l])
			};
			if
			:: count >= TOLD ->
				assert(told.at[l] == 0 || told.at[l] ==
				       memory[primary[e]].at[l]);
				told.at[l] = memory[primary[e]].at[l]
			:: else -> break
			fi;
			l++
		:: else -> break
		od
#endif
	:: else
	fi
}

/*
 * I4: petal x tells the primary of e how far its log is that of the primary,
 * from its own copy. I8: x has promised nothing later. I10: of the incarnation
 * that the registry names.
 */
inline acknowledge(x, e)
{
	p = primary[e];
	if
	:: base[e] != NOWHERE && IN(voters[e], x) && SERVES(p, e) ->
		o = base[e];
		do
		:: o < LSNS && memory[p].at[o] != 0 &&
#ifdef WITHOUT_DISK_FIRST
		   memory[x].at[o] == memory[p].at[o] -> o++
#else
		   KEPT[x].at[o] == memory[p].at[o] -> o++
#endif
		:: else -> break
		od;
		if
		:: o > base[e] && o > acked[e].at[x] -> acked[e].at[x] = o
		:: else
		fi
	:: else
	fi;
	commit(e)
}

#ifdef RECYCLE
/*
 * A new segment needs memory: that of epoch 1, if there is nothing in it that
 * is needed, and nobody who may still write into it (I16).
 */
inline place(x, e)
{
	if
#ifdef WITHOUT_QUARANTINE
	:: trimmed > 0 && reused[x] == 0 && l == base[e] ->
#else
	:: trimmed > 0 && reused[x] == 0 && l == base[e] && !IN(keys, x) ->
#endif
		reused[x] = e;
		for (m : 0 .. LSNS - 1) {
			if
			:: memory[x].at[m] == 1 -> memory[x].at[m] = 0
			:: else
			fi
		}
	:: else
	fi
}
#endif

/* A new record of the primary's own, at the end of its log. */
inline write(x, e)
{
#ifndef WITHOUT_ANY
	for (n : 0 .. NODES - 1) {
		assert(memory[n].at[l] != e)        /* I2, I3 */
	};
#endif
	memory[x].at[l] = e;
#ifdef RECYCLE
	place(x, e);
#endif
	acknowledge(x, e)
}

/* n: whether the log of x is better than that of y. */
inline is_better(x, y)
{
	end_of(x);
	o = l;
	end_of(y);
	n = (o > 0 && (l == 0 || memory[x].at[o - 1] > memory[y].at[l - 1] ||
		       (memory[x].at[o - 1] == memory[y].at[l - 1] && o > l)))
}

/*
 * F2, F3. Of those who had a say when records were last acknowledged, the first
 * REPLIES count, and the best of their logs: last epoch, then length.
 */
inline reply(x, e)
{
	s = BEFORE(e);
	if
#ifdef WITHOUT_OLD_ELECTORATE
	:: IN(voters[e], x) &&
#else
	:: IN(ELECTORATE(s), x) &&
#endif
	   replies[e] < REPLIES ->
		replies[e]++;
		if
		:: best[e] == NOBODY -> best[e] = x
		:: else ->
			is_better(x, best[e]);
			if
			:: n -> best[e] = x
			:: else
			fi
		fi
	:: else
	fi
}

/* --- the steps ------------------------------------------------------------ */

/* The primary accepts what a producer has published. */
inline append(x)
{
	appends++;
	end_of(x);
	write(x, promised[x])
}

/*
 * F1. Anybody, at any time, for any reason; the members that are left in have
 * their present incarnations named, and vote for new records at once.
 */
inline cas(x, set)
{
	members[epoch + 1] = set;
	voters[epoch + 1] = set;
	epoch++;
	primary[epoch] = x;
	for (n : 0 .. NODES - 1) {
		joined[n] = 0
	};
	assert(promised[x] < epoch);                /* I1 */
	promised[x] = epoch;
	reply(x, epoch)
}

inline fence(x, e)
{
	assert(promised[x] < e);                    /* I1 */
	promised[x] = e;                            /* durable before the reply */
	reply(x, e)
}

/* F3. The candidate makes its log that of the best, a record at a time. */
inline adopt(x, e)
{
	p = best[e];
	first_unlike(x, p, base[BEFORE(e)]);
	if
	:: l < LSNS -> PUT(memory[x], memory[p].at[l], EPOCHS + 1)
	:: else
	fi;
	first_unlike(x, p, base[BEFORE(e)]);
	if
	:: l == LSNS -> best[e] = x
	:: else
	fi
}

/* F4. The first record of an epoch; it also says where the last one ended. */
inline start(x, e)
{
	end_of(x);
	if
	:: l < base[BEFORE(e)] -> l = base[BEFORE(e)]
	:: else
	fi;
	base[e] = l;
	write(x, e)
}

/*
 * A record of the primary lands in the segment of its epoch at x, whose CPU
 * finds it valid there: magic, CRCs, lsn, epoch, and that it is chained to the
 * one before. Of an epoch that is not open this is the repair of F4.
 */
inline accept(x, e)
{
	p = primary[e];
	first_unlike(x, p, WHOLE_FROM(e));
	if
	:: l < LSNS ->
		PUT(memory[x], memory[p].at[l], EPOCHS + 1);
#ifdef RECYCLE
		if
		:: memory[x].at[l] == e && l == base[e] -> place(x, e)
		:: else
		fi;
#endif
		acknowledge(x, e)
	:: else
	fi
}

/* F5. One CAS seals what there was and opens the epoch. */
inline open(x, e)
{
	l = base[e];
	count_copies(e);
	is_done = (count >= COPIES);                /* I7 */
	o = base[BEFORE(e)];
	for (m : TRIMMED .. base[e] - 1) {
		if
		:: memory[x].at[m] == 0 || (m < o &&
		   memory[x].at[m] != sealed.at[m]) ->
			is_done = false             /* it is fetched first */
		:: else
		fi
	};
	if
	:: is_done ->
		opened = opened | BIT(e);
		for (m : TRIMMED .. LSNS - 1) {
			/* I6, I12, I13, I14: all that anybody was told is there. */
			assert(told.at[m] == 0 ||
			       told.at[m] == memory[x].at[m]);
			if
			:: m < base[e] ->
				assert(sealed.at[m] == 0 || sealed.at[m] ==
				       memory[x].at[m]);    /* I9 */
				sealed.at[m] = memory[x].at[m]
			:: else
			fi
		};
		commit(e)
	:: else
	fi
}

/* Sealed segments do not change, so whoever has one may give it: section 5. */
inline fetch(x)
{
	s = LAST;
	l = TRIMMED;
	do
	:: l < base[s] && memory[x].at[l] == sealed.at[l] -> l++
	:: else -> break
	od;
	if
	:: l < base[s] ->
		is_done = false;
		for (n : 0 .. NODES - 1) {
			is_done = is_done || memory[n].at[l] == sealed.at[l]
		};
		if
		:: is_done -> PUT(memory[x], sealed.at[l], sealed.at[l])
		:: else
		fi
	:: else
	fi
}

#ifdef DISK2
/* io_uring has completed: D moves. Blocks go out in order. */
inline persist(x)
{
	l = 0;
	do
	:: l < LSNS && (memory[x].at[l] == 0 ||
			memory[x].at[l] == disk[x].at[l]) -> l++
	:: else -> break
	od;
	if
	:: l < LSNS ->
		PUT(disk[x], memory[x].at[l], EPOCHS + 1);
		acknowledge(x, promised[x])
	:: else
	fi
}
#endif

/* Whose reply is lost with it, or who forgot replies, is of no use any more. */
inline forget_replies(x)
{
	for (n : 2 .. EPOCHS) {
		if
		:: !OPEN(n) &&
		   (primary[n] == x || best[n] == x) ->
			replies[n] = 0;
			best[n] = NOBODY
		:: else
		fi
	}
}

/* A host is gone, and what comes back has the disk at most. */
inline lose(x)
{
	losses++;
	for (l : 0 .. LSNS - 1) {
#ifdef DISK2
		memory[x].at[l] = disk[x].at[l]
#else
		memory[x].at[l] = 0
#endif
	};
#ifndef WITHOUT_INCARNATION
	for (n : 1 .. EPOCHS) {
		voters[n] = voters[n] & ~BIT(x)     /* I10 */
	};
#endif
	forget_replies(x);
	joined[x] = 0;
#ifdef RECYCLE
	keys = keys & ~BIT(x);
	reused[x] = 0;
#endif
}

/* petald alone is gone; the segments are there when it is back. */
inline restart(x)
{
	restarts++;
#ifdef WITHOUT_DURABLE_PROMISE
	/* What is left to go by is the last record that it holds. */
	end_of(x);
	if
	:: l > 0 -> promised[x] = memory[x].at[l - 1]
	:: else -> promised[x] = 1
	fi;
#endif
	forget_replies(x)
}

/*
 * A member that came back without its memory is a learner: it has to have what
 * the primary had when it came, and so all that was counted with its vote.
 */
inline join(x, e)
{
	p = primary[e];
	end_of(p);
	joined[x] = l + 1
}

/* Then its new incarnation is put into the registry, in the same epoch. */
inline admit(x, e)
{
	p = primary[e];
	is_done = true;
#ifndef WITHOUT_CATCHING_UP
	for (l : TRIMMED .. joined[x] - 2) {
		is_done = is_done && memory[x].at[l] == memory[p].at[l]
	}
#endif
	if
	:: is_done ->
		joined[x] = 0;
		voters[e] = voters[e] | BIT(x);
		acknowledge(x, e)
	:: else
	fi
}

#ifdef RECYCLE
/*
 * A write that was posted in epoch 1 arrives, wherever its key leads now. I4 is
 * gone with it: x has acknowledged what it overwrites.
 */
inline late_write(x)
{
	for (l : 0 .. LSNS - 1) {
		assert(memory[x].at[l] != reused[x])
	}
}
#endif

#ifdef WITHOUT_ADDITION
/* A repair that begins by making room: the copy is whole again at its end. */
inline wipe(x, e)
{
	for (l : base[BEFORE(e)] .. LSNS - 1) {
		memory[x].at[l] = 0
	}
}
#endif

/*
 * What has to be possible, or a search that finds nothing has searched nothing.
 */
#if defined(GOAL_FULL)                 /* told of a last record, in any epoch */
#define GOAL told.at[LSNS - 1] != 0
#elif defined(GOAL_SPARE)              /* the spare petal is primary */
#define GOAL OPEN(epoch) && primary[epoch] == 3 && \
	told.at[base[epoch]] == epoch
#elif defined(GOAL_ADMITTED)           /* with another incarnation, no epoch */
#define GOAL epoch == 1 && losses == 1 && voters[1] == 7 && \
	memory[1].at[0] == 1 && memory[2].at[0] == 0 && told.at[0] == 1
#elif defined(GOAL_REUSED)             /* memory, by an epoch that is open */
#define GOAL reused[primary[epoch]] == epoch && OPEN(epoch)
#elif defined(GOAL_COLD)               /* power is lost everywhere */
#define GOAL losses == 3 && OPEN(2) && told.at[0] == 1
#endif

/*
 * I5: whatever a client was told of is held by so many of those who may be
 * asked next that nobody can be elected without asking one who has it.
 */
inline check()
{
#ifndef WITHOUT_ANY
	s = LAST;
	for (l : base[s] .. LSNS - 1) {
		if
		:: told.at[l] == s && l >= TRIMMED ->
			count = 0;
			for (n : 0 .. NODES - 1) {
				count = count + (IN(ELECTORATE(s), n) &&
						 KEPT[n].at[l] != s)
			};
			assert(count < REPLIES)
		:: else
		fi
	};
#endif
#ifdef GOAL
	assert(!(GOAL));
#endif
	l = 0;
	m = 0;
	n = 0;
	o = 0;
	p = 0;
	s = 0;
	count = 0;
	is_done = 0
}

#define ME me
#define MINE promised[ME]
#define THEIRS primary[MINE]
#define LEARNS (MINE == epoch && OPEN(epoch) && THEIRS != ME && \
		SERVES(THEIRS, epoch) && IN(members[epoch], ME) && \
		!IN(voters[epoch], ME))

#define FENCE(e) \
	:: d_step { MINE < (e) && (e) <= epoch && \
		    SERVES(primary[e], e) && \
		    IN(members[e] | members[BEFORE(e)], ME) -> \
		    fence(ME, e); check() }

#define CAS(set) \
	:: d_step { epoch < EPOCHS && IN(ELECTORATE(epoch), ME) && \
		    IN(set, ME) -> cas(ME, set); check() }

/* The spare petal takes the place of x, or gives it back. */
#define REPLACE(x) \
	:: d_step { epoch < EPOCHS && IN(ELECTORATE(epoch), ME) && \
		    IN(members[epoch], x) != IN(members[epoch], 3) && \
		    IN(members[epoch] ^ BIT(x) ^ BIT(3), ME) -> \
		    cas(ME, members[epoch] ^ BIT(x) ^ BIT(3)); check() }

/* I8 left out: x takes and acknowledges what an epoch writes that is over. */
#define STALE(e) \
	:: d_step { (e) < MINE && OPEN(e) && \
		    primary[e] != ME && SERVES(primary[e], e) && \
		    IN(members[e], ME) -> stale(ME, e); check() }

inline stale(x, e)
{
	p = primary[e];
#ifdef WITHOUT_FENCE
	first_unlike(x, p, base[e]);
	if
	:: l < LSNS && memory[x].at[l] == 0 -> memory[x].at[l] = e
	:: else
	fi;
#endif
	end_of(p);
	if
	:: IN(voters[e], x) && l > acked[e].at[x] -> acked[e].at[x] = l
	:: else
	fi;
	commit(e)
}

proctype petal(byte me)
{
	do
	:: d_step { appends < APPENDS && OPEN(MINE) && SERVES(ME, MINE) ->
		append(ME); check() }
	:: d_step { THEIRS != ME && SERVES(THEIRS, MINE) &&
		    IN(members[MINE], ME) && (OPEN(MINE) || HAS_LOG(MINE)) ->
		accept(ME, MINE); check() }
	CAS(members[epoch])
#if NODES > MEMBERS
	REPLACE(0)
	REPLACE(1)
	REPLACE(2)
#endif
	FENCE(2)
#if EPOCHS > 2
	FENCE(3)
#endif
#if EPOCHS > 3
	FENCE(4)
#endif
#if EPOCHS > 4
	FENCE(5)
#endif
	:: d_step { SERVES(ME, MINE) && !OPEN(MINE) &&
		    replies[MINE] >= REPLIES && best[MINE] != ME &&
		    promised[best[MINE]] == MINE ->
		adopt(ME, MINE); check() }
	:: d_step { SERVES(ME, MINE) && !OPEN(MINE) && HAS_LOG(MINE) &&
		    base[MINE] == NOWHERE ->
		start(ME, MINE); check() }
	:: d_step { SERVES(ME, MINE) && !OPEN(MINE) &&
#ifndef WITHOUT_COMPARISON
		    MINE == epoch &&
#endif
		    base[MINE] != NOWHERE ->
		open(ME, MINE); check() }
	:: d_step { base[LAST] > TRIMMED -> fetch(ME); check() }
#ifdef DISK2
	:: d_step { MINE > 0 -> persist(ME); check() }
#endif
	:: d_step { losses < LOSSES -> lose(ME); check() }
	:: d_step { restarts < RESTARTS -> restart(ME); check() }
	:: d_step { LEARNS && joined[ME] == 0 -> join(ME, epoch); check() }
	:: d_step { LEARNS && joined[ME] != 0 -> admit(ME, epoch); check() }
#ifdef RECYCLE
	:: d_step { SERVES(ME, epoch) && OPEN(epoch) && trimmed == 0 &&
		    base[epoch] > 0 && base[epoch] + 1 < LSNS &&
		    told.at[base[epoch] + 1] == epoch ->
		trimmed = base[epoch]; check() }
	:: d_step { IN(keys, ME) && MINE > 1 -> keys = keys & ~BIT(ME) }
	:: d_step { IN(keys, ME) && reused[ME] != 0 ->
		late_write(ME); check() }
#endif
#if defined(WITHOUT_FENCE) || defined(WITHOUT_LANDING)
	STALE(1)
#if EPOCHS > 2
	STALE(2)
#endif
#endif
#ifdef WITHOUT_ADDITION
	:: d_step { THEIRS != ME && SERVES(THEIRS, MINE) && !OPEN(MINE) &&
		    IN(members[MINE], ME) && HAS_LOG(MINE) ->
		wipe(ME, MINE); check() }
#endif
	od
}

init
{
	d_step {
		primary[1] = 0;
		members[1] = 7;
		voters[1] = 7;
		base[1] = 0;
		for (n : 0 .. MEMBERS - 1) {
			promised[n] = 1
		};
		n = 0
	};
	atomic {
		run petal(0);
		run petal(1);
		run petal(2);
#if NODES > MEMBERS
		run petal(3)
#endif
	}
}
