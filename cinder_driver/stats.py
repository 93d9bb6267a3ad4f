"""What the scheduler is told of the cluster."""

from oslo_utils import units

from cinder_driver import policy as policies
from cinder_driver.policy import of_vdi


def pool_stats(cluster, policies_of_pools, common) -> list:
    """The stats of each pool; ``common`` is in all of them.  Raises SheepError."""
    space = cluster.space()
    headers = [header for header in cluster.list_vdis() if not header.is_snapshot]
    found = []
    for policy in policies_of_pools:
        ours = [header for header in headers if of_vdi(header) == policy]
        found.append(dict(
            common,
            pool_name=policies.pool_name(policy),
            total_capacity_gb=round(policies.net(policy, space.total) / units.Gi, 2),
            free_capacity_gb=round(policies.net(policy, space.free) / units.Gi, 2),
            provisioned_capacity_gb=round(
                sum(header.vdi_size for header in ours) / units.Gi, 2),
            total_volumes=len(ours),
            **{policies.COPY_POLICY: str(policy)}))
    return found


def empty_pool_stats(policies_of_pools, common) -> list:
    """The stats of pools of which nothing can be told."""
    return [dict(common, pool_name=policies.pool_name(policy), total_capacity_gb=0,
                 free_capacity_gb=0, backend_state="down",
                 **{policies.COPY_POLICY: str(policy)}) for policy in policies_of_pools]
