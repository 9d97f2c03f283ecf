/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The invariants have the names that fabric's protocol gives them:
 *
 *    PrefixWatermark   what M or D of a member says is there, byte by byte
 *    Durability        what a level says survives what the level names
 *    Visibility        nothing is dispatched beyond level mem2
 *    levels            never go back
 *
 * "There" means from the trim position on: everything before it is done.
 * Of a padding only its header counts, for its payload is nobody's.
 */
#include "tests/sim/trio.h"

#include "tests/check.h"

#include "fabric/txn.h"
#include "shm/crc32c.h"

/* ---- disks ---- */

static struct petal_log *log_of(struct trio *t, unsigned i)
{
	return i == 0 ? &t->log : &t->members[i].log;
}

static uint32_t range_crc(const struct petal_log *log, uint64_t from,
			  uint64_t to)
{
	uint64_t run = petal_log_run(log, from, to);
	uint32_t crc = petal_crc32c(0, petal_log_at(log, from), run);

	return petal_crc32c(crc, log->data, to - from - run);
}

static int disk_append(struct trio *t, unsigned i,
		       const struct petal_record_cursor *from,
		       const struct petal_record_cursor *to, uint64_t trim_pos)
{
	struct trio_disk *disk = &t->disks[i];

	assert_true(to->pos > from->pos);
	assert_true(to->pos - from->pos <= t->data_bytes);
	assert_true(to->lsn > from->lsn);
	if (disk->failed)
		return -PETAL_EDISK;
	if (disk->busy)
		return -EBUSY;
	if (disk->full)
		return -EAGAIN;
	disk->busy = true;
	disk->from = *from;
	disk->to = *to;
	disk->trim_pos = trim_pos;
	disk->crc = range_crc(log_of(t, i), from->pos, to->pos);
	return 0;
}

static void disk_trim(struct trio_disk *disk, uint64_t pos)
{
	unsigned gone = 0;

	while (gone < disk->batch_count && disk->batches[gone].to_pos <= pos)
		free(disk->batches[gone++].bytes);
	if (gone == 0)
		return;
	disk->batch_count -= gone;
	memmove(disk->batches, disk->batches + gone,
		disk->batch_count * sizeof(*disk->batches));
}

static void disk_keep(struct trio *t, unsigned i)
{
	struct trio_disk *disk = &t->disks[i];
	const struct petal_log *log = log_of(t, i);
	uint64_t length = disk->to.pos - disk->from.pos;
	uint64_t run = petal_log_run(log, disk->from.pos, disk->to.pos);
	struct trio_batch batch = { .from = disk->from,
				    .to_pos = disk->to.pos,
				    .trim_pos = disk->trim_pos };
	uint64_t offset = disk->from.pos & (t->data_bytes - 1);

	batch.bytes = malloc(length);
	memcpy(batch.bytes, petal_log_at(log, disk->from.pos), run);
	memcpy(batch.bytes + run, log->data, length - run);
	memcpy(disk->image + offset, batch.bytes, run);
	memcpy(disk->image, batch.bytes + run, length - run);
	disk->batches =
		realloc(disk->batches, (disk->batch_count + 1) * sizeof(batch));
	disk->batches[disk->batch_count++] = batch;
	disk_trim(disk, disk->trim_pos);
}

bool trio_disk_end(struct trio *t, unsigned i, int status)
{
	struct trio_disk *disk = &t->disks[i];

	if (!disk->busy)
		return false;
	disk->busy = false;
	if (status == 0) {
		/* Bytes that were accepted stay as they are. */
		assert_int_equal(range_crc(log_of(t, i), disk->from.pos,
					   disk->to.pos),
				 disk->crc);
		disk_keep(t, i);
		disk->writes++;
	} else {
		disk->failed = true;
	}
	if (i == 0)
		petal_primary_journaled(&t->primary, disk->to.pos, status);
	else
		petal_backup_journaled(&t->members[i].backup, disk->to.pos,
				       status);
	return true;
}

static void disk_wipe(struct trio *t, unsigned i)
{
	disk_trim(&t->disks[i], UINT64_MAX);
	memset(t->disks[i].image, 0, t->data_bytes);
}

/* ---- the ports ---- */

static struct trio_flight *flight_add(struct trio *t, enum trio_kind kind,
				      unsigned member)
{
	for (unsigned i = 0; i < TRIO_FLIGHTS; i++) {
		struct trio_flight *flight = &t->flights[i];

		if (flight->used)
			continue;
		memset(flight, 0, sizeof(*flight));
		flight->used = true;
		flight->kind = kind;
		flight->member = member;
		return flight;
	}
	return NULL;
}

static unsigned flight_count(const struct trio *t, enum trio_kind kind,
			     unsigned member)
{
	unsigned count = 0;

	for (unsigned i = 0; i < TRIO_FLIGHTS; i++)
		count += t->flights[i].used && t->flights[i].kind == kind &&
			 t->flights[i].member == member;
	return count;
}

static unsigned told_count(const struct trio *t, unsigned member)
{
	unsigned count = 0;

	for (unsigned i = 0; i < TRIO_FLIGHTS; i++)
		count += t->flights[i].used && t->flights[i].told &&
			 t->flights[i].member == member;
	return count;
}

static int port_write(void *self, unsigned member, uint64_t pos,
		      uint64_t length, bool told)
{
	struct trio *t = self;
	struct trio_flight *flight;

	assert_true(t->members[member].linked);
	assert_true(length > 0 && length % PETAL_RECORD_ALIGN == 0);
	assert_int_equal(petal_log_run(&t->log, pos, pos + length), length);
	assert_true(told_count(t, member) < 4);
	if (flight_count(t, TRIO_WRITE, member) >= 8 ||
	    petal_test_random(&t->random) % 8 == 0)
		return -EAGAIN;
	flight = flight_add(t, TRIO_WRITE, member);
	if (flight == NULL)
		return -EAGAIN;
	flight->told = told;
	flight->number = t->writes++;
	flight->pos = pos;
	flight->length = length;
	flight->scattered = !t->stream &&
			    length <= TRIO_LINES * PETAL_RECORD_ALIGN &&
			    petal_test_random(&t->random) % 2;
	return 0;
}

static void port_order(void *self, unsigned member)
{
	struct trio *t = self;

	assert_true(t->members[member].linked);
	if (flight_count(t, TRIO_ORDER, member) < 4)
		flight_add(t, TRIO_ORDER, member);
}

static int port_journal(void *self, const struct petal_record_cursor *from,
			const struct petal_record_cursor *to, uint64_t trim_pos)
{
	return disk_append(self, 0, from, to, trim_pos);
}

static void port_admit(void *self, unsigned member)
{
	struct trio *t = self;
	struct trio_flight *flight = flight_add(t, TRIO_ADMIT, member);

	assert_non_null(flight);
	flight->inc = t->members[member].inc;
}

static void port_signal(void *self, uint32_t owner)
{
	struct trio *t = self;

	assert_in_range(owner, 1, PETAL_LOG_OWNERS - 1);
	t->signals++;
}

/* A backup's port has to know which one it is. */
struct backup_self {
	struct trio *trio;
	unsigned member;
};

static int port_acknowledge(void *self)
{
	struct backup_self *b = self;

	assert_true(b->trio->members[b->member].linked);
	if (flight_count(b->trio, TRIO_ACK, b->member) >= 2)
		return -EAGAIN;
	return flight_add(b->trio, TRIO_ACK, b->member) ? 0 : -EAGAIN;
}

static int port_backup_journal(void *self,
			       const struct petal_record_cursor *from,
			       const struct petal_record_cursor *to,
			       uint64_t trim_pos)
{
	struct backup_self *b = self;

	return disk_append(b->trio, b->member, from, to, trim_pos);
}

static struct petal_log_geometry geometry_of(const struct trio_options *options)
{
	struct petal_log_geometry geometry = {
		.ring = 1,
		.data_bytes = options->data_bytes,
		.epoch = 1,
		.queue_count = 2,
	};

	for (unsigned i = 0; i < 2; i++) {
		geometry.queues[i].id = i + 1;
		geometry.queues[i].slot_count = options->slots;
		geometry.queues[i].lease_ns = options->lease_ns;
		strcpy(geometry.queues[i].name, i == 0 ? "work" : "done");
	}
	return geometry;
}

static void backup_open(struct trio *t, unsigned i,
			const struct petal_log_geometry *geometry)
{
	struct backup_self *self = malloc(sizeof(*self));
	const struct petal_backup_port port = {
		.self = self,
		.acknowledge = port_acknowledge,
		.journal = port_backup_journal,
	};

	*self = (struct backup_self){ t, i };
	assert_ok(petal_log_open(geometry, &t->members[i].log));
	petal_backup_open(&t->members[i].backup, &t->members[i].log, i, &port);
	t->members[i].inc++;
}

static void backup_close(struct trio *t, unsigned i)
{
	free(t->members[i].backup.port.self);
	petal_log_close(&t->members[i].log);
}

void trio_open(struct trio *t, const struct trio_options *options)
{
	const struct petal_primary_port port = {
		.self = t,
		.write = port_write,
		.order = port_order,
		.journal = port_journal,
		.admit = port_admit,
		.signal = port_signal,
	};
	struct petal_log_geometry geometry = geometry_of(options);

	memset(t, 0, sizeof(*t));
	t->random = options->seed;
	t->data_bytes = options->data_bytes;
	t->now_ns = 1;
	assert_ok(petal_log_open(&geometry, &t->log));
	assert_ok(petal_primary_open(&t->primary, &t->log, 0, &port, NULL));
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++)
		t->disks[i].image = calloc(1, options->data_bytes);
	for (unsigned i = 1; i < PETAL_LOG_MEMBERS; i++) {
		backup_open(t, i, &geometry);
		t->members[i].votes_as = t->members[i].inc;
		t->members[i].disk_votes = true;
	}
}

void trio_close(struct trio *t)
{
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		disk_trim(&t->disks[i], UINT64_MAX);
		free(t->disks[i].batches);
		free(t->disks[i].image);
		if (i > 0)
			backup_close(t, i);
	}
	petal_primary_close(&t->primary);
	petal_log_close(&t->log);
}

/* ---- links ---- */

static void offer(struct trio *t, unsigned i)
{
	struct trio_member *member = &t->members[i];
	struct petal_record_cursor start;
	struct trio_flight *flight;
	bool exact;

	petal_primary_join(&t->primary, i, &member->backup.cursor,
			   member->votes_as == member->inc,
			   member->backup.exact, &start, &exact);
	flight = flight_add(t, TRIO_START, i);
	assert_non_null(flight);
	flight->start = start;
	flight->whole_pos = t->primary.members[i].joined_pos;
	flight->exact = exact;
	flight->sessions = t->primary.sessions;
}

bool trio_link(struct trio *t, unsigned i)
{
	struct trio_member *member = &t->members[i];

	if (member->linked || t->disks[i].busy)
		return false;
	member->linked = true;
	offer(t, i);
	return true;
}

void trio_cut(struct trio *t, unsigned i)
{
	if (!t->members[i].linked)
		return;
	for (unsigned n = 0; n < TRIO_FLIGHTS; n++) {
		struct trio_flight *flight = &t->flights[n];

		/* The registry is not behind this link. */
		if (!flight->used || flight->member != i ||
		    flight->kind == TRIO_ADMIT)
			continue;
		if (flight->told)
			petal_primary_wrote(&t->primary, i, 0);
		flight->used = false;
	}
	t->members[i].linked = false;
	t->members[i].ended_pos = 0;
	petal_primary_leave(&t->primary, i);
	petal_backup_stop(&t->members[i].backup);
}

static void restore(struct trio *t, unsigned i)
{
	struct trio_disk *disk = &t->disks[i];
	uint64_t trim_pos = 0;

	for (unsigned n = 0; n < disk->batch_count; n++) {
		if (disk->batches[n].trim_pos > trim_pos)
			trim_pos = disk->batches[n].trim_pos;
	}
	for (unsigned n = 0; n < disk->batch_count; n++) {
		const struct trio_batch *batch = &disk->batches[n];

		petal_backup_restore(&t->members[i].backup, &batch->from,
				     batch->bytes,
				     batch->to_pos - batch->from.pos, trim_pos);
	}
}

void trio_crash(struct trio *t, unsigned i, bool with_disk)
{
	struct petal_log_geometry geometry = t->members[i].log.geometry;
	uint64_t disk_pos = t->members[i].backup.disk_pos;

	trio_cut(t, i);
	t->disks[i].busy = false;
	t->disks[i].failed = false;
	backup_close(t, i);
	backup_open(t, i, &geometry);
	if (with_disk)
		restore(t, i);
	else
		disk_wipe(t, i);
	/* The primary cannot know of the loss before the member is back. */
	if (t->members[i].backup.disk_pos < disk_pos) {
		t->members[i].disk_votes = false;
		if (disk_pos > t->members[i].disk_owes_pos)
			t->members[i].disk_owes_pos = disk_pos;
	}
}

/* ---- flights ---- */

struct trio_flight *trio_find(struct trio *t, enum trio_kind kind,
			      unsigned member)
{
	struct trio_flight *found = NULL;

	for (unsigned i = 0; i < TRIO_FLIGHTS; i++) {
		struct trio_flight *flight = &t->flights[i];

		if (flight->used && flight->kind == kind &&
		    flight->member == member &&
		    (found == NULL || flight->pos < found->pos))
			found = flight;
	}
	return found;
}

static void copy_piece(uint8_t *to, const uint8_t *from,
		       struct trio_flight *flight, uint64_t bytes)
{
	uint64_t left = flight->length - flight->done;

	if (bytes > left)
		bytes = left;
	memcpy(to + flight->done, from + flight->done, bytes);
	flight->done += bytes;
	flight->landed = flight->done == flight->length;
}

static void copy_lines(struct trio *t, uint8_t *to, const uint8_t *from,
		       struct trio_flight *flight, uint64_t bytes)
{
	uint64_t lines = flight->length / PETAL_RECORD_ALIGN;
	uint64_t first = petal_test_random(&t->random) % lines;

	for (uint64_t n = 0; n < lines && bytes > 0; n++) {
		uint64_t line = (first + n) % lines;

		if (flight->line_done[line])
			continue;
		memcpy(to + line * PETAL_RECORD_ALIGN,
		       from + line * PETAL_RECORD_ALIGN, PETAL_RECORD_ALIGN);
		flight->line_done[line] = true;
		flight->done += PETAL_RECORD_ALIGN;
		bytes -= bytes < PETAL_RECORD_ALIGN ? bytes
						    : PETAL_RECORD_ALIGN;
	}
	flight->landed = flight->done == flight->length;
}

static void deliver_write(struct trio *t, struct trio_flight *flight,
			  uint64_t bytes)
{
	uint8_t *to =
		petal_log_at(&t->members[flight->member].log, flight->pos);
	const uint8_t *from = petal_log_at(&t->log, flight->pos);

	/* What is under way is still there to be read. */
	assert_true(flight->pos >= t->primary.head.pos);
	if (flight->scattered)
		copy_lines(t, to, from, flight, bytes);
	else
		copy_piece(to, from, flight, bytes);
	if (flight->landed && flight->told)
		petal_backup_landed(&t->members[flight->member].backup);
}

static void deliver_line(struct trio *t, struct trio_flight *flight,
			 uint64_t bytes)
{
	struct trio_member *member = &t->members[flight->member];
	unsigned i = flight->member;

	flight->length = PETAL_RECORD_ALIGN;
	if (flight->kind == TRIO_ACK)
		copy_piece((uint8_t *)&t->log.acks[i],
			   (uint8_t *)&member->log.acks[i], flight, bytes);
	else
		copy_piece((uint8_t *)member->log.orders,
			   (uint8_t *)t->log.orders, flight, bytes);
}

void trio_deliver(struct trio *t, struct trio_flight *flight, uint64_t bytes)
{
	if (!flight->used || flight->landed)
		return;
	switch (flight->kind) {
	case TRIO_WRITE:
		deliver_write(t, flight, bytes);
		break;
	case TRIO_ACK:
	case TRIO_ORDER:
		deliver_line(t, flight, bytes);
		break;
	case TRIO_START:
	case TRIO_ADMIT:
	case TRIO_KINDS:
		flight->landed = true;
	}
}

static void admitted(struct trio *t, const struct trio_flight *flight)
{
	struct trio_member *member = &t->members[flight->member];

	member->votes_as = flight->inc;
	if (member->linked && member->inc == flight->inc)
		petal_primary_admitted(&t->primary, flight->member);
}

/* Nothing under way reads from before this. */
static uint64_t wrote_pos(struct trio *t, unsigned member, uint64_t end_pos)
{
	struct trio_flight *oldest = trio_find(t, TRIO_WRITE, member);

	if (end_pos < t->members[member].ended_pos)
		end_pos = t->members[member].ended_pos;
	t->members[member].ended_pos = end_pos;
	return oldest != NULL && oldest->pos < end_pos ? oldest->pos : end_pos;
}

/* A write that is told of ends after those that were not, before it. */
static void write_complete(struct trio *t, const struct trio_flight *flight)
{
	if (!flight->told)
		return;
	for (unsigned i = 0; i < TRIO_FLIGHTS; i++) {
		struct trio_flight *other = &t->flights[i];

		if (!other->used || other->kind != TRIO_WRITE || other->told ||
		    other->member != flight->member ||
		    other->number > flight->number)
			continue;
		if (!other->landed)
			deliver_write(t, other, UINT64_MAX);
		other->used = false;
	}
	petal_primary_wrote(&t->primary, flight->member,
			    wrote_pos(t, flight->member,
				      flight->pos + flight->length));
}

void trio_complete(struct trio *t, struct trio_flight *flight)
{
	if (!flight->used || !flight->landed)
		return;
	flight->used = false;
	switch (flight->kind) {
	case TRIO_WRITE:
		write_complete(t, flight);
		break;
	case TRIO_ACK:
		if (petal_primary_acked(&t->primary, flight->member) < 0) {
			t->bad_acks++;
			trio_cut(t, flight->member);
		}
		break;
	case TRIO_START:
		if (petal_backup_start(&t->members[flight->member].backup,
				       &flight->start, flight->whole_pos,
				       flight->exact ? NULL
						     : &flight->sessions) == 1)
			offer(t, flight->member);
		break;
	case TRIO_ADMIT:
		admitted(t, flight);
		break;
	case TRIO_ORDER:
	case TRIO_KINDS:
		break;
	}
}

/* ---- steps ---- */

void trio_step(struct trio *t)
{
	t->step = petal_primary_step(&t->primary, t->now_ns);
	trio_check(t);
}

void trio_step_backup(struct trio *t, unsigned i)
{
	petal_backup_step(&t->members[i].backup);
}

/* Everything that may move in a rest, summed up. */
static uint64_t position(const struct trio *t)
{
	const struct petal_primary *p = &t->primary;
	uint64_t sum = p->accepted.pos + p->dispatched_pos + p->trim_pos +
		       p->head.pos + p->disk_pos + p->dispatched_puts +
		       p->counts.writes + p->counts.repaired;

	for (unsigned i = 1; i < PETAL_LOG_MEMBERS; i++) {
		const struct petal_backup *b = &t->members[i].backup;

		sum += b->cursor.pos + b->disk_pos + b->trim_pos +
		       b->counts.starts + p->members[i].memory_pos +
		       p->members[i].disk_pos + p->members[i].voter;
	}
	for (uint32_t i = 1; i < PETAL_LOG_OWNERS; i++)
		sum += p->owners[i].attached;
	return sum;
}

static bool deliver_all(struct trio *t)
{
	bool any = false;

	for (unsigned i = 0; i < TRIO_FLIGHTS; i++) {
		struct trio_flight *flight = &t->flights[i];

		if (!flight->used || t->hold[flight->kind][flight->member])
			continue;
		trio_deliver(t, flight, UINT64_MAX);
		trio_complete(t, flight);
		any = true;
	}
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++)
		any |= !t->hold_disk[i] && trio_disk_end(t, i, 0);
	return any;
}

void trio_rest(struct trio *t)
{
	unsigned still = 0;
	uint64_t last = 0, now;

	for (unsigned n = 0; n < 20000; n++) {
		bool any;

		trio_step(t);
		trio_step_backup(t, 1);
		trio_step_backup(t, 2);
		any = deliver_all(t);
		now = position(t);
		/* A write may have been refused by chance, a few times. */
		still = any || now != last || t->step > 0 ? 0 : still + 1;
		last = now;
		if (still == 16) {
			trio_check_bytes(t);
			return;
		}
	}
	fail_msg("no rest after 20000 rounds");
}

/* ---- invariants ---- */

uint64_t trio_level(const struct trio *t, enum petal_level level)
{
	return atomic_load(&t->log.marks->level_pos[level]);
}

static bool votes(const struct trio *t, unsigned i)
{
	return t->members[i].inc == t->members[i].votes_as;
}

static uint64_t max2(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* What a level asks of those who hold it: nothing of what is done. */
static uint64_t wanted(const struct trio *t, enum petal_level level)
{
	uint64_t pos = trio_level(t, level);

	return pos <= t->primary.trim_pos ? 0 : pos;
}

/* mem2: of any two members one holds it; mem3: each does. */
static void check_memory_levels(struct trio *t)
{
	uint64_t mem2 = wanted(t, PETAL_LEVEL_MEM2);
	uint64_t mem3 = wanted(t, PETAL_LEVEL_MEM3);
	uint64_t first = t->members[1].backup.cursor.pos;
	uint64_t second = t->members[2].backup.cursor.pos;

	if (votes(t, 1) && votes(t, 2))
		assert_true(max2(first, second) >= mem2);
	if (votes(t, 1))
		assert_true(first >= mem3);
	if (votes(t, 2))
		assert_true(second >= mem3);
}

/* The same for disks, which survive a crash of their member. */
static void check_disk_levels(struct trio *t)
{
	uint64_t disk2 = wanted(t, PETAL_LEVEL_DISK2);
	uint64_t disk3 = wanted(t, PETAL_LEVEL_DISK3);
	uint64_t pos[PETAL_LOG_MEMBERS] = { t->primary.disk_pos };
	bool holds[PETAL_LOG_MEMBERS] = { true };

	for (unsigned i = 1; i < PETAL_LOG_MEMBERS; i++) {
		struct trio_member *member = &t->members[i];

		pos[i] = member->backup.disk_pos;
		/* A disk that lost something counts when it has caught up. */
		if (pos[i] >= trio_level(t, PETAL_LEVEL_DISK2) &&
		    pos[i] >= member->disk_owes_pos)
			member->disk_votes = true;
		holds[i] = member->disk_votes;
	}
	for (unsigned i = 0; i < PETAL_LOG_MEMBERS; i++) {
		unsigned j = (i + 1) % PETAL_LOG_MEMBERS;

		if (holds[i])
			assert_true(pos[i] >= disk3);
		if (holds[i] && holds[j])
			assert_true(max2(pos[i], pos[j]) >= disk2);
	}
}

static void check_positions(struct trio *t)
{
	const struct petal_primary *p = &t->primary;
	uint64_t visible = trio_level(t, PETAL_LEVEL_MEM2);

	assert_true(p->head.pos <= p->trim_pos);
	assert_true(p->trim_pos <= p->dispatched_pos);
	assert_true(p->dispatched_pos <= visible); /* Visibility */
	assert_true(visible <= p->accepted.pos);
	assert_true(p->accepted.pos <= petal_mpsc_tail(&t->log.ring));
	assert_true(petal_mpsc_tail(&t->log.ring) <=
		    p->head.pos + t->data_bytes);
	for (unsigned i = 0; i < PETAL_LEVEL_COUNT; i++) {
		uint64_t pos = trio_level(t, (enum petal_level)i);

		assert_true(pos >= t->levels[i]);
		assert_true(pos <= p->accepted.pos);
		t->levels[i] = pos;
	}
	for (unsigned i = 1; i < PETAL_LOG_MEMBERS; i++) {
		const struct petal_backup *b = &t->members[i].backup;

		assert_true(b->disk_pos <= b->cursor.pos);
		if (!p->members[i].attached || !b->started)
			continue;
		assert_true(p->members[i].memory_pos <= b->cursor.pos);
		assert_true(p->members[i].disk_pos <= b->disk_pos);
	}
}

void trio_check(struct trio *t)
{
	if (t->primary.halted)
		return;
	check_positions(t);
	check_memory_levels(t);
	check_disk_levels(t);
}

/* PrefixWatermark: every record up to a mark is the primary's, byte by byte. */
static void check_prefix(struct trio *t, const uint8_t *data, uint64_t to)
{
	uint64_t pos = t->primary.trim_pos;

	while (pos < to) {
		const struct petal_record_durable *record =
			(void *)petal_log_at(&t->log, pos);
		uint64_t extent = petal_record_extent(record->record.length);
		uint64_t offset = pos & (t->data_bytes - 1);

		assert_true(pos + extent <= t->primary.accepted.pos);
		assert_memory_equal(data + offset, record,
				    record->record.type ==
						    PETAL_RECORD_TYPE_PADDING
					    ? PETAL_RECORD_DURABLE_BYTES
					    : extent);
		pos += extent;
	}
	assert_true(pos == to || to < t->primary.trim_pos);
}

void trio_check_bytes(struct trio *t)
{
	if (t->primary.halted)
		return;
	check_prefix(t, t->disks[0].image, t->primary.disk_pos);
	for (unsigned i = 1; i < PETAL_LOG_MEMBERS; i++) {
		const struct petal_backup *b = &t->members[i].backup;

		check_prefix(t, t->members[i].log.data, b->cursor.pos);
		if (!t->disks[i].failed)
			check_prefix(t, t->disks[i].image, b->disk_pos);
	}
}

/* ---- actors ---- */

bool trio_actor_open(struct trio *t, uint32_t owner, struct trio_actor *actor)
{
	uint64_t session = t->sessions + 1;

	if (petal_primary_attach(&t->primary, owner, session) < 0)
		return false;
	t->sessions++;
	*actor = (struct trio_actor){
		.trio = t,
		.owner = owner,
		.session = session,
	};
	assert_ok(petal_log_attach(t->log.segment.fd, owner, &actor->log));
	return true;
}

void trio_actor_die(struct trio_actor *actor)
{
	petal_log_close(&actor->log);
	petal_primary_bury(&actor->trio->primary, actor->owner);
}

int trio_claim(struct trio_actor *actor, uint32_t length,
	       struct petal_mpsc_claim *ret_claim)
{
	const struct petal_log_owner *line = &actor->log.owners[actor->owner];

	if (actor->sequence - atomic_load(&line->accepted_sequence) >=
	    PETAL_LOG_WINDOW)
		return -EAGAIN;
	return petal_mpsc_claim(&actor->log.ring,
				length + PETAL_RECORD_ENVELOPE_BYTES,
				ret_claim);
}

void *trio_payload(const struct petal_mpsc_claim *claim)
{
	return (uint8_t *)claim->record + PETAL_RECORD_DURABLE_BYTES;
}

uint64_t trio_publish(struct trio_actor *actor,
		      const struct petal_mpsc_claim *claim, uint32_t type,
		      uint32_t queue, uint32_t length)
{
	struct petal_record_durable *record = (void *)claim->record;

	record->record.type = type;
	record->queue = queue;
	record->session = actor->session;
	record->sequence = ++actor->sequence;
	record->flags = 0;
	record->payload_crc = petal_record_payload_crc(
		record, length + PETAL_RECORD_ENVELOPE_BYTES);
	assert_ok(petal_mpsc_publish(&actor->log.ring, claim));
	return actor->sequence;
}

uint64_t trio_put(struct trio_actor *actor, uint32_t queue, const void *bytes,
		  uint32_t length)
{
	struct petal_mpsc_claim claim;

	if (trio_claim(actor, length, &claim) < 0)
		return 0;
	memcpy(trio_payload(&claim), bytes, length);
	return trio_publish(actor, &claim, 0, queue, length);
}

uint64_t trio_forward(struct trio_actor *actor,
		      const struct petal_message *inputs, unsigned input_count,
		      const struct petal_output *outputs, unsigned output_count)
{
	struct petal_mpsc_claim claim;
	uint32_t length;

	assert_ok(petal_txn_bytes(input_count, outputs, output_count, &length));
	if (trio_claim(actor, length, &claim) < 0)
		return 0;
	petal_txn_write(trio_payload(&claim), inputs, input_count, outputs,
			output_count);
	return trio_publish(actor, &claim, PETAL_RECORD_TYPE_TXN, 0, length);
}

int trio_take(struct trio_actor *actor, uint32_t queue,
	      struct petal_message *ret_message)
{
	struct petal_queue_lease lease;
	struct petal_queue_item item;
	uint32_t redelivered;
	int err;

	err = petal_queue_take(&actor->log.queues[queue - 1], actor->owner,
			       actor->trio->now_ns, &item, &lease,
			       &redelivered);
	if (err != 0)
		return err;
	assert_true(item.pos + item.offset + item.length <=
		    trio_level(actor->trio, PETAL_LEVEL_MEM2));
	*ret_message = (struct petal_message){
		.bytes = petal_log_at(&actor->log, item.pos) + item.offset,
		.length = item.length,
		.queue = queue,
		.lsn = item.lsn,
		.pos = item.pos,
		.index = item.index,
		.redelivered = redelivered,
		.ordinal = lease.ordinal,
		.lease = lease.word,
	};
	return 0;
}

int64_t trio_outcome(const struct trio_actor *actor, uint64_t sequence)
{
	const struct petal_log_owner *line =
		&actor->trio->log.owners[actor->owner];

	if (atomic_load(&line->accepted_sequence) < sequence)
		return 0;
	return atomic_load(&line->outcomes[sequence % PETAL_LOG_WINDOW].lsn);
}
