/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* The first of an IPv4 address in its IPv6 form. */
#define MAPPED_FIRST 12

int petal_host_of(const char *address, struct in6_addr *ret_host)
{
	static const uint8_t mapped[MAPPED_FIRST] = { [10] = 0xff, 0xff };
	const char *colon = strrchr(address, ':');
	char text[INET6_ADDRSTRLEN + 2];
	size_t length;

	if (colon == NULL || (size_t)(colon - address) >= sizeof(text))
		return -EINVAL;
	length = (size_t)(colon - address);
	memcpy(text, address, length);
	text[length] = '\0';
	memcpy(ret_host->s6_addr, mapped, sizeof(mapped));
	if (inet_pton(AF_INET, text, ret_host->s6_addr + MAPPED_FIRST) == 1)
		return 0;
	if (length < 2 || text[0] != '[' || text[length - 1] != ']')
		return -EINVAL;
	text[length - 1] = '\0';
	return inet_pton(AF_INET6, text + 1, ret_host) == 1 ? 0 : -EINVAL;
}

static bool is_loopback(const struct in6_addr *host)
{
	return IN6_IS_ADDR_LOOPBACK(host) ||
	       (IN6_IS_ADDR_V4MAPPED(host) &&
		host->s6_addr[MAPPED_FIRST] == 127);
}

bool petal_host_same(const struct in6_addr *one, const struct in6_addr *other)
{
	return IN6_ARE_ADDR_EQUAL(one, other) ||
	       (is_loopback(one) && is_loopback(other));
}
