/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_CONFIG_H
#define PETAL_FABRIC_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "topology/member.h"

/**
 * DOC: config - what a node is told when it starts
 *
 * An ini file (petald.conf(5)); every node of a cluster may have the same one
 * but for [petal]:
 *
 *    [petal]
 *    cluster = demo              name; nodes of another cluster are refused
 *    node = 1                    which of the nodes below we are
 *    dir = /var/lib/petalith     journal, registry, socket
 *    key = /etc/petalith.key     32 random bytes, mode 0600
 *    provider = tcp              libfabric's name of it
 *    journal_bytes = 64M
 *    allow_same_host = no
 *
 *    [node 1]
 *    name = a
 *    domain = rack-1             what fails as one
 *    fabric = 10.0.0.1:7101
 *    registry = 10.0.0.1:7201
 *
 * An unknown section or key is an error, and so is a text said twice: a typing
 * mistake must not become a default. inih bounds a line at some 200 characters.
 */

#define PETAL_CONFIG_ERROR_BYTES 512u

struct petal_config_node {
	struct petal_member_node member; /* address is the fabric's */
	char registry[PETAL_MEMBER_ADDRESS_BYTES];
};

struct petal_config {
	char cluster[64];
	char dir[PATH_MAX];
	char key[PATH_MAX];
	char provider[32];
	uint64_t journal_bytes;
	uint64_t heartbeat_ns;
	uint64_t stall_ns;
	unsigned election_ms;
	unsigned suspect_beats;
	uint32_t self;
	bool allow_same_host;
	unsigned node_count;
	struct petal_config_node nodes[PETAL_MEMBER_MAX];
};

/**
 * petal_config_load() - read and check a configuration file
 * @ret_error: on failure, one sentence: what, where, what was expected
 *
 * Return: 0; -ENOENT or what open said; -EINVAL for its content.
 */
int petal_config_load(const char *path, struct petal_config *ret_config,
		      char ret_error[PETAL_CONFIG_ERROR_BYTES]);

/**
 * petal_config_hosts() - refuse two nodes on one host
 * @ret_error: on failure, one sentence
 *
 * All copies of a ring there would die with it. Fabric and registry addresses
 * are compared (fabric/host.h). Not part of loading, for the call of petald can
 * allow it as well.
 *
 * Return: 0, also where allow_same_host is set; or -EINVAL.
 */
int petal_config_hosts(const struct petal_config *config, const char *path,
		       char ret_error[PETAL_CONFIG_ERROR_BYTES]);

/**
 * petal_config_bytes() - a size such as 4096, 64K, 64M or 2G
 *
 * Return: 0, or -EINVAL.
 */
int petal_config_bytes(const char *text, uint64_t *ret_bytes);

#endif
