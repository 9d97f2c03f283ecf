/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PETAL_FABRIC_HOST_H
#define PETAL_FABRIC_HOST_H

#include <netinet/in.h>
#include <stdbool.h>

/**
 * DOC: host - which machine an address is of
 *
 * Addresses are those of a configuration, "10.0.0.1:7101" or "[::1]:7101". Two
 * of the same number are of one host, whatever the port and the way it is
 * written; and all of the loopback, 127.0.0.0/8 and ::1, are of this one. Hosts
 * with several addresses cannot be told by this: nodes tell each other where
 * they run when they meet (daemon_peers.c).
 */

/**
 * petal_host_of() - the host's part of an address
 * @ret_host: an IPv4 address in its IPv6 form
 *
 * Return: 0, or -EINVAL. The port is not looked at.
 */
int petal_host_of(const char *address, struct in6_addr *ret_host);

bool petal_host_same(const struct in6_addr *one, const struct in6_addr *other);

#endif
