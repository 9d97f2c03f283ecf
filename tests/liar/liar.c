/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A provider for libfabric that is tcp and lies, as providers have: found by
 * FI_PROVIDER_PATH, called "liar". PETAL_LIAR says how:
 *
 *    early   writes are reported when they were handed to the kernel
 *    lost    writes are reported as delivered, and nothing is sent
 *    open    memory that is closed stays open to writes
 *    torn    the second half of a long write is never sent
 *
 * It makes tcp's objects and puts tables of its own in the place of some of
 * theirs. One process uses one provider at a time in one way, so that the
 * tables it saves are the same for all objects.
 */
#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <rdma/providers/fi_prov.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static struct fi_ops_fabric *fabric_true, fabric_false;
static struct fi_ops_domain *domain_true, domain_false;
static struct fi_ops_rma *rma_true, rma_false;
static struct fi_ops *mr_true, mr_false;
static struct fi_ops_mr *reg_true, reg_false;

static bool lies(const char *how)
{
	const char *told = getenv("PETAL_LIAR");

	return told != NULL && strcmp(told, how) == 0;
}

static ssize_t liar_writemsg(struct fid_ep *ep, const struct fi_msg_rma *msg,
			     uint64_t flags)
{
	struct fi_msg_rma less = *msg;
	struct fi_rma_iov target = msg->rma_iov[0];
	struct iovec source = msg->msg_iov[0];

	if (lies("early"))
		flags &= ~(uint64_t)FI_DELIVERY_COMPLETE;
	if (lies("lost"))
		source.iov_len = 0;
	else if (lies("torn") && source.iov_len > 512)
		source.iov_len /= 2;
	target.len = source.iov_len;
	less.msg_iov = &source;
	less.rma_iov = &target;
	return rma_true->writemsg(ep, &less, flags);
}

static int liar_mr_close(struct fid *fid)
{
	(void)fid;
	return 0;
}

static int liar_reg(struct fid *fid, const void *buf, size_t len,
		    uint64_t access, uint64_t offset, uint64_t key,
		    uint64_t flags, struct fid_mr **mr, void *context)
{
	int err = reg_true->reg(fid, buf, len, access, offset, key, flags, mr,
				context);

	if (err != 0 || !lies("open"))
		return err;
	mr_true = (*mr)->fid.ops;
	mr_false = *mr_true;
	mr_false.close = liar_mr_close;
	(*mr)->fid.ops = &mr_false;
	return 0;
}

static struct fi_info *true_info(const struct fi_info *info)
{
	struct fi_info *copy = fi_dupinfo(info);

	if (copy == NULL)
		return NULL;
	free(copy->fabric_attr->prov_name);
	copy->fabric_attr->prov_name = strdup("tcp");
	return copy;
}

static int liar_endpoint(struct fid_domain *domain, struct fi_info *info,
			 struct fid_ep **ep, void *context)
{
	struct fi_info *copy = true_info(info);
	int err = copy == NULL
			  ? -FI_ENOMEM
			  : domain_true->endpoint(domain, copy, ep, context);

	fi_freeinfo(copy);
	if (err != 0)
		return err;
	rma_true = (*ep)->rma;
	rma_false = *rma_true;
	rma_false.writemsg = liar_writemsg;
	(*ep)->rma = &rma_false;
	return 0;
}

static int liar_domain(struct fid_fabric *fabric, struct fi_info *info,
		       struct fid_domain **domain, void *context)
{
	struct fi_info *copy = true_info(info);
	int err = copy == NULL
			  ? -FI_ENOMEM
			  : fabric_true->domain(fabric, copy, domain, context);

	fi_freeinfo(copy);
	if (err != 0)
		return err;
	domain_true = (*domain)->ops;
	domain_false = *domain_true;
	domain_false.endpoint = liar_endpoint;
	(*domain)->ops = &domain_false;
	reg_true = (*domain)->mr;
	reg_false = *reg_true;
	reg_false.reg = liar_reg;
	(*domain)->mr = &reg_false;
	return 0;
}

static int liar_passive(struct fid_fabric *fabric, struct fi_info *info,
			struct fid_pep **pep, void *context)
{
	struct fi_info *copy = true_info(info);
	int err = copy == NULL
			  ? -FI_ENOMEM
			  : fabric_true->passive_ep(fabric, copy, pep, context);

	fi_freeinfo(copy);
	return err;
}

static int liar_fabric(struct fi_fabric_attr *attr, struct fid_fabric **fabric,
		       void *context)
{
	struct fi_fabric_attr truly = *attr;
	int err;

	truly.prov_name = (char *)"tcp";
	err = fi_fabric(&truly, fabric, context);
	if (err != 0)
		return err;
	fabric_true = (*fabric)->ops;
	fabric_false = *fabric_true;
	fabric_false.domain = liar_domain;
	fabric_false.passive_ep = liar_passive;
	(*fabric)->ops = &fabric_false;
	return 0;
}

static int liar_getinfo(uint32_t version, const char *node, const char *service,
			uint64_t flags, const struct fi_info *hints,
			struct fi_info **info)
{
	struct fi_info *want = hints != NULL ? fi_dupinfo(hints)
					     : fi_allocinfo();
	int err;

	if (want == NULL)
		return -FI_ENOMEM;
	free(want->fabric_attr->prov_name);
	want->fabric_attr->prov_name = strdup("tcp");
	err = fi_getinfo(version, node, service, flags, want, info);
	fi_freeinfo(want);
	if (err != 0)
		return err;
	for (struct fi_info *one = *info; one != NULL; one = one->next) {
		free(one->fabric_attr->prov_name);
		one->fabric_attr->prov_name = strdup("liar");
	}
	return 0;
}

static void liar_cleanup(void)
{
}

static struct fi_provider liar = {
	.version = FI_VERSION(1, 0),
	.fi_version = FI_VERSION(1, 17),
	.name = "liar",
	.getinfo = liar_getinfo,
	.fabric = liar_fabric,
	.cleanup = liar_cleanup,
};

__attribute__((visibility("default"))) struct fi_provider *fi_prov_ini(void);

struct fi_provider *fi_prov_ini(void)
{
	return &liar;
}
