/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/host.h"
#include "fabric/journal.h"
#include "shm/clock.h"

#define JOURNAL_BYTES_DEFAULT (UINT64_C(64) << 20)
#define STALL_NS_DEFAULT PETAL_S(1)

struct reading {
	struct petal_config *config;
	const char *path;
	char *error;
	FILE *file;
	unsigned line;
	int status; /* of reading the file at all */
};

int petal_config_bytes(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGT";
	unsigned shift = 0;
	uint64_t value;
	const char *unit;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno != 0)
		return -EINVAL;
	if (*end != '\0') {
		unit = strchr(units, *end);
		if (unit == NULL || end[1] != '\0')
			return -EINVAL;
		shift = 10 * (unsigned)(unit - units + 1);
	}
	if (value > UINT64_MAX >> shift)
		return -EINVAL;
	*ret_bytes = value << shift;
	return 0;
}

static int complain(struct reading *r, const char *where, const char *value,
		    const char *expected)
{
	if (r->error[0] == '\0')
		snprintf(r->error, PETAL_CONFIG_ERROR_BYTES,
			 "%s: %s is '%s', expected %s", r->path, where, value,
			 expected);
	return 0; /* what inih takes for an error */
}

/*
 * One line for inih, which would take what does not fit into its buffer for a
 * line of its own.
 */
static char *read_line(char *text, int size, void *stream)
{
	struct reading *r = stream;

	errno = 0;
	if (fgets(text, size, r->file) == NULL) {
		r->status = ferror(r->file) ? -errno : 0;
		return NULL;
	}
	r->line++;
	if (strchr(text, '\n') != NULL || feof(r->file))
		return text;
	if (r->error[0] == '\0')
		snprintf(r->error, PETAL_CONFIG_ERROR_BYTES,
			 "%s: line %u is longer than %d characters", r->path,
			 r->line, size - 2);
	return NULL;
}

static int read_number(const char *text, uint64_t most, uint64_t *ret_value)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	*ret_value = strtoull(text, &end, 10);
	if (errno != 0 || *end != '\0' || *ret_value > most)
		return -EINVAL;
	return 0;
}

static int read_text(struct reading *r, const char *name, const char *value,
		     char *to, size_t size)
{
	if (to[0] != '\0')
		return complain(r, name, value, "to be said once");
	if (value[0] == '\0' || strlen(value) >= size)
		return complain(r, name, value,
				"a text that is neither empty nor too long");
	strcpy(to, value);
	return 1;
}

static int read_bool(struct reading *r, const char *name, const char *value,
		     bool *to)
{
	if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
		return complain(r, name, value, "yes or no");
	*to = value[0] == 'y';
	return 1;
}

static int read_range(struct reading *r, const char *name, const char *value,
		      uint64_t least, uint64_t most, uint64_t *ret_number)
{
	char expected[64];

	if (read_number(value, most, ret_number) == 0 && *ret_number >= least)
		return 1;
	snprintf(expected, sizeof(expected),
		 "a number from %" PRIu64 " to %" PRIu64, least, most);
	return complain(r, name, value, expected);
}

static int read_timing(struct reading *r, const char *name, const char *value)
{
	struct petal_config *c = r->config;
	uint64_t number;

	if (strcmp(name, "heartbeat_ms") == 0) {
		if (read_range(r, name, value, 1, 60000, &number) == 0)
			return 0;
		c->heartbeat_ns = PETAL_MS(number);
	} else if (strcmp(name, "suspect_beats") == 0) {
		if (read_range(r, name, value, 2, 1000, &number) == 0)
			return 0;
		c->suspect_beats = (unsigned)number;
	} else if (strcmp(name, "stall_ms") == 0) {
		if (read_range(r, name, value, 10, 60000, &number) == 0)
			return 0;
		c->stall_ns = PETAL_MS(number);
	} else {
		if (read_range(r, name, value, 20, 60000, &number) == 0)
			return 0;
		c->election_ms = (unsigned)number;
	}
	return 1;
}

static int read_journal_bytes(struct reading *r, const char *name,
			      const char *value)
{
	uint64_t bytes;

	if (petal_config_bytes(value, &bytes) < 0 ||
	    bytes < PETAL_JOURNAL_BYTES_MIN ||
	    bytes > PETAL_JOURNAL_BYTES_MAX ||
	    bytes % PETAL_JOURNAL_BLOCK_BYTES != 0)
		return complain(r, name, value,
				"a size such as 64M, from 1M to 1T, a multiple "
				"of 4K");
	r->config->journal_bytes = bytes;
	return 1;
}

static int read_petal(struct reading *r, const char *name, const char *value)
{
	struct petal_config *c = r->config;
	uint64_t number;

	if (strcmp(name, "cluster") == 0)
		return read_text(r, name, value, c->cluster,
				 sizeof(c->cluster));
	if (strcmp(name, "dir") == 0)
		return read_text(r, name, value, c->dir, sizeof(c->dir));
	if (strcmp(name, "key") == 0)
		return read_text(r, name, value, c->key, sizeof(c->key));
	if (strcmp(name, "provider") == 0)
		return read_text(r, name, value, c->provider,
				 sizeof(c->provider));
	if (strcmp(name, "allow_same_host") == 0)
		return read_bool(r, name, value, &c->allow_same_host);
	if (strcmp(name, "heartbeat_ms") == 0 ||
	    strcmp(name, "suspect_beats") == 0 ||
	    strcmp(name, "stall_ms") == 0 || strcmp(name, "election_ms") == 0)
		return read_timing(r, name, value);
	if (strcmp(name, "node") == 0) {
		if (read_range(r, name, value, 1, PETAL_MEMBER_NODE_MAX,
			       &number) == 0)
			return 0;
		c->self = (uint32_t)number;
		return 1;
	}
	if (strcmp(name, "journal_bytes") == 0)
		return read_journal_bytes(r, name, value);
	return complain(r, "a key of [petal]", name,
			"one that petald.conf(5) names");
}

static struct petal_config_node *node_of(struct petal_config *c, uint32_t id)
{
	for (unsigned i = 0; i < c->node_count; i++) {
		if (c->nodes[i].member.node == id)
			return &c->nodes[i];
	}
	if (c->node_count == PETAL_MEMBER_MAX)
		return NULL;
	c->nodes[c->node_count].member.node = id;
	return &c->nodes[c->node_count++];
}

static int read_node(struct reading *r, const char *section, const char *name,
		     const char *value)
{
	struct petal_config_node *node;
	uint64_t id;

	if (read_number(section + strlen("node "), PETAL_MEMBER_NODE_MAX, &id) <
		    0 ||
	    id == 0)
		return complain(r, "a section", section,
				"[node N], N from 1 to 255");
	node = node_of(r->config, (uint32_t)id);
	if (node == NULL)
		return complain(r, "a section", section, "at most 64 nodes");
	if (strcmp(name, "name") == 0)
		return read_text(r, name, value, node->member.name,
				 sizeof(node->member.name));
	if (strcmp(name, "domain") == 0)
		return read_text(r, name, value, node->member.domain,
				 sizeof(node->member.domain));
	if (strcmp(name, "fabric") == 0)
		return read_text(r, name, value, node->member.address,
				 sizeof(node->member.address));
	if (strcmp(name, "registry") == 0)
		return read_text(r, name, value, node->registry,
				 sizeof(node->registry));
	return complain(r, "a key of [node]", name,
			"name, domain, fabric or registry");
}

static int visit(void *arg, const char *section, const char *name,
		 const char *value)
{
	struct reading *r = arg;

	if (strcmp(section, "petal") == 0)
		return read_petal(r, name, value);
	if (strncmp(section, "node ", strlen("node ")) == 0)
		return read_node(r, section, name, value);
	return complain(r, "a section", section, "[petal] or [node N]");
}

static int missing(struct petal_config *c, const char *path, char *error)
{
	const char *what = NULL;
	int err;

	if (c->dir[0] == '\0')
		what = "dir";
	else if (c->key[0] == '\0')
		what = "key";
	else if (c->self == 0)
		what = "node";
	if (what != NULL) {
		snprintf(error, PETAL_CONFIG_ERROR_BYTES,
			 "%s: [petal] lacks '%s'", path, what);
		return -EINVAL;
	}
	for (unsigned i = 0; i < c->node_count; i++) {
		struct petal_member_node one = c->nodes[i].member;

		err = petal_member_check(&one, 1, one.node);
		if (err == 0 && c->nodes[i].registry[0] != '\0')
			continue;
		snprintf(
			error, PETAL_CONFIG_ERROR_BYTES,
			"%s: [node %u] needs name, domain, fabric and registry",
			path, one.node);
		return -EINVAL;
	}
	return 0;
}

static bool registries_differ(const struct petal_config *c)
{
	for (unsigned i = 0; i < c->node_count; i++) {
		for (unsigned j = 0; j < i; j++) {
			if (strcmp(c->nodes[i].registry,
				   c->nodes[j].registry) == 0)
				return false;
		}
	}
	return true;
}

static int check_members(struct petal_config *c, const char *path, char *error)
{
	struct petal_member_node list[PETAL_MEMBER_MAX];
	const char *what;
	int err;

	for (unsigned i = 0; i < c->node_count; i++)
		list[i] = c->nodes[i].member;
	err = petal_member_check(list, c->node_count, c->self);
	if (err == 0 && !registries_differ(c))
		err = -EADDRNOTAVAIL;
	switch (err) {
	case 0:
		return 0;
	case -ENOENT:
		what = "there is no [node N] for the node that [petal] names";
		break;
	case -EADDRINUSE:
		what = "two nodes have the same fabric address";
		break;
	case -EADDRNOTAVAIL:
		what = "two nodes have the same registry address";
		break;
	default:
		what = "two nodes have the same name";
	}
	snprintf(error, PETAL_CONFIG_ERROR_BYTES, "%s: %s", path, what);
	return -EINVAL;
}

/* An address that is none is nobody's; who listens or calls there says so. */
static bool hosts_same(const char *one, const char *other)
{
	struct in6_addr host, other_host;

	return petal_host_of(one, &host) == 0 &&
	       petal_host_of(other, &other_host) == 0 &&
	       petal_host_same(&host, &other_host);
}

int petal_config_hosts(const struct petal_config *c, const char *path,
		       char ret_error[PETAL_CONFIG_ERROR_BYTES])
{
	ret_error[0] = '\0';
	for (unsigned i = 0; !c->allow_same_host && i < c->node_count; i++) {
		for (unsigned j = 0; j < i; j++) {
			const struct petal_config_node *one = &c->nodes[j];
			const struct petal_config_node *other = &c->nodes[i];

			if (!hosts_same(one->member.address,
					other->member.address) &&
			    !hosts_same(one->registry, other->registry))
				continue;
			snprintf(ret_error, PETAL_CONFIG_ERROR_BYTES,
				 "%s: nodes %u and %u are on one host (%s, "
				 "%s), expected a host each, or "
				 "--allow-same-host",
				 path, one->member.node, other->member.node,
				 one->member.address, other->member.address);
			return -EINVAL;
		}
	}
	return 0;
}

static int say_unreadable(const char *path, int err, char *error)
{
	snprintf(error, PETAL_CONFIG_ERROR_BYTES, "cannot read '%s': %s", path,
		 strerrordesc_np(-err));
	return err;
}

int petal_config_load(const char *path, struct petal_config *ret_config,
		      char ret_error[PETAL_CONFIG_ERROR_BYTES])
{
	struct petal_config *c = ret_config;
	struct reading r = { .config = c, .path = path, .error = ret_error };
	int line, err;

	ret_error[0] = '\0';
	memset(c, 0, sizeof(*c));
	c->journal_bytes = JOURNAL_BYTES_DEFAULT;
	c->stall_ns = STALL_NS_DEFAULT;
	r.file = fopen(path, "re");
	if (r.file == NULL)
		return say_unreadable(path, -errno, ret_error);
	line = ini_parse_stream(read_line, &r, visit, &r);
	fclose(r.file);
	if (r.status < 0)
		return say_unreadable(path, r.status, ret_error);
	if (line != 0 || ret_error[0] != '\0') {
		if (ret_error[0] == '\0')
			snprintf(ret_error, PETAL_CONFIG_ERROR_BYTES,
				 "%s: line %d is neither [section] nor key = "
				 "value",
				 path, line);
		return -EINVAL;
	}
	if (c->cluster[0] == '\0')
		strcpy(c->cluster, "petalith");
	if (c->provider[0] == '\0')
		strcpy(c->provider, "tcp");
	err = missing(c, path, ret_error);
	return err < 0 ? err : check_members(c, path, ret_error);
}
