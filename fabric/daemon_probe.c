/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Before anything is opened: does the provider keep, on our own address, what
 * the levels above local need? A child answers, we ask; both are gone again
 * before the journal is opened. What was found good is noted in DIR/probe, so
 * that a restart does not wait for it again.
 */
#include "fabric/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sodium.h>

#include "fabric/probe.h"
#include "shm/clock.h"
#include "shm/error.h"

#define CHILD_NS PETAL_S(120)
#define BOOT_PATH "/proc/sys/kernel/random/boot_id"

/* What the child says of itself. */
struct ready {
	int32_t err;
	char address[80];
};

static const char *own_address(const struct daemon *d)
{
	return petal_member_find(&d->members, d->config.self)->address;
}

/* What was tried: another provider, libfabric, boot or address is news. */
static void name_trial(const struct daemon *d, char *line, size_t size)
{
	char boot[40] = "?";
	int fd = open(BOOT_PATH, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, boot, sizeof(boot) - 1);

	if (fd >= 0)
		close(fd);
	boot[got > 0 ? (size_t)got : 1] = '\0';
	boot[strcspn(boot, "\n")] = '\0';
	snprintf(line, size, "petald %s, libfabric %x, boot %s, %s, %s\n",
		 PETAL_VERSION, petal_wire_version(), boot, own_address(d),
		 d->config.provider);
}

static void name_note(const struct daemon *d, char path[PATH_MAX + 16])
{
	snprintf(path, PATH_MAX + 16, "%s/probe", d->config.dir);
}

static bool is_noted(const struct daemon *d)
{
	char path[PATH_MAX + 16], wanted[256], found[256];
	FILE *note;
	bool same;

	name_note(d, path);
	name_trial(d, wanted, sizeof(wanted));
	note = fopen(path, "re");
	if (note == NULL)
		return false;
	same = fgets(found, sizeof(found), note) != NULL &&
	       strcmp(found, wanted) == 0;
	fclose(note);
	return same;
}

/* Half a note is none, and one that cannot be written costs only time. */
void daemon_probe_note(const struct daemon *d)
{
	char path[PATH_MAX + 16], line[256];
	FILE *note;

	if (is_noted(d))
		return;
	name_note(d, path);
	name_trial(d, line, sizeof(line));
	note = fopen(path, "we");
	if (note == NULL)
		return;
	fputs(line, note);
	fclose(note);
}

static void be_child(const struct petal_probe_options *options, int fd)
{
	struct petal_probe_answerer *answerer;
	struct ready ready = { 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ready.err = petal_probe_open(options, &answerer);
	if (ready.err == 0)
		strncpy(ready.address, petal_probe_address(answerer),
			sizeof(ready.address) - 1);
	if (write(fd, &ready, sizeof(ready)) == sizeof(ready) && ready.err == 0)
		petal_probe_answer(answerer, -1,
				   petal_clock_now_ns() + CHILD_NS);
	_exit(0);
}

static int try_provider(const struct petal_probe_options *options,
			const char *provider, struct petal_probe_row *row)
{
	struct petal_probe_asker *asker;
	int err = petal_probe_call(options, &asker);

	if (err < 0)
		return err;
	err = petal_probe_ask(asker, provider, row);
	petal_probe_hang_up(asker);
	return err;
}

static int say_listen(const struct daemon *d, int err)
{
	fprintf(stderr, "petald: cannot listen for nodes at '%s': %s\n",
		own_address(d), petal_strerror(err));
	return err;
}

/* Our share of a trial whose child writes to this pipe. */
static int be_parent(const struct daemon *d,
		     struct petal_probe_options *options, int fd,
		     struct petal_probe_row *row)
{
	struct ready ready;
	int err;

	if (read(fd, &ready, sizeof(ready)) != sizeof(ready))
		ready.err = -ECHILD;
	if (ready.err < 0)
		return say_listen(d, ready.err);
	ready.address[sizeof(ready.address) - 1] = '\0';
	options->peer = ready.address;
	err = try_provider(options, d->config.provider, row);
	if (err < 0)
		fprintf(stderr, "petald: cannot try the provider '%s': %s\n",
			d->config.provider, petal_strerror(err));
	return err;
}

static int judge(const struct daemon *d, const struct petal_probe_row *row)
{
	char why[PETAL_PROBE_WORDS_BYTES];

	if (row->status == -ENODATA) {
		fprintf(stderr,
			"petald: libfabric has no provider '%s' for '%s' "
			"(fi_info lists them)\n",
			row->provider, own_address(d));
		return row->status;
	}
	if (row->status == -EOPNOTSUPP) {
		fprintf(stderr,
			"petald: the provider '%s' has no connections with "
			"one-sided writes, which durable rings need\n",
			row->provider);
		return row->status;
	}
	if (petal_probe_replicates(row, why))
		return 0;
	fprintf(stderr,
		"petald: the provider '%s' cannot keep mem2, mem3, disk2 and "
		"disk3 at '%s': %s\n",
		row->provider, own_address(d), why);
	return -EOPNOTSUPP;
}

static int run_trial(const struct daemon *d,
		     struct petal_probe_options *options)
{
	struct petal_probe_row row;
	int ends[2], err;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	child = fork();
	if (child == 0)
		be_child(options, ends[1]);
	close(ends[1]);
	if (child < 0) {
		err = say_listen(d, -errno);
	} else {
		err = be_parent(d, options, ends[0], &row);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	close(ends[0]);
	return err < 0 ? err : judge(d, &row);
}

int daemon_probe(const struct daemon *d, const uint8_t cluster[16],
		 const uint8_t key[32])
{
	struct petal_probe_options options = { .quick = true };
	const char *address = own_address(d);
	const char *colon = strrchr(address, ':');
	char host[PETAL_MEMBER_ADDRESS_BYTES + 2];
	int err;

	/* What is no address is said by whoever listens there. */
	if (colon == NULL || is_noted(d))
		return 0;
	snprintf(host, sizeof(host), "%.*s:0", (int)(colon - address), address);
	options.listen = host;
	memcpy(options.cluster, cluster, sizeof(options.cluster));
	memcpy(options.key, key, sizeof(options.key));
	err = run_trial(d, &options);
	sodium_memzero(&options, sizeof(options));
	return err;
}
