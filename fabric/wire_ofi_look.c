/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/wire_ofi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int look(const char *provider, enum fi_ep_type type, uint64_t caps)
{
	struct fi_info *hints = fi_allocinfo();
	struct fi_info *list;
	int err;

	if (hints == NULL)
		return -ENOMEM;
	hints->mode = ~UINT64_C(0);
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR |
				      FI_MR_ALLOCATED | FI_MR_PROV_KEY |
				      FI_MR_RAW | FI_MR_ENDPOINT;
	hints->ep_attr->type = type;
	hints->caps = caps;
	hints->fabric_attr->prov_name = strdup(provider);
	err = hints->fabric_attr->prov_name == NULL
		      ? -ENOMEM
		      : fi_getinfo(FI_VERSION(1, 17), NULL, NULL, 0, hints,
				   &list);
	fi_freeinfo(hints);
	if (err == 0)
		fi_freeinfo(list);
	return err;
}

int petal_wire_look(const char *provider)
{
	int err;

	/* libfabric takes lists and exclusions too; those are no names. */
	if (provider[0] == '\0' || strpbrk(provider, "^,") != NULL)
		return -ENODATA;
	err = look(provider, FI_EP_MSG, FI_MSG | FI_RMA);
	if (err != -FI_ENODATA)
		return err;
	err = look(provider, FI_EP_UNSPEC, 0);
	return err == 0 ? -EOPNOTSUPP : err;
}

uint32_t petal_wire_version(void)
{
	return fi_version();
}
