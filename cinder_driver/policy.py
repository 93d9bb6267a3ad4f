"""Copy policies and object sizes: what pools, volume types and VDIs say of them."""

from cinder import exception
from oslo_utils import units

from sheepstack.client import copy_policy_from_wire, parse_copy_policy

#: Capability of a pool, and the key of a volume type that asks for it.
COPY_POLICY = "sheepdog_copy_policy"
#: Key of a volume type: MiB of an object.
BLOCK_SIZE = "sheepdog:block_size"


def pool_name(policy) -> str:
    """The name of the pool whose volumes are kept so."""
    if policy.is_erasure:
        return "erasure-" + str(policy).replace(":", "-")
    return "copies-%d" % policy.nr_copies


def of_vdi(header):
    """How the VDI with this inode header is kept."""
    return copy_policy_from_wire(header.nr_copies, header.copy_policy)


def policy_of_pool(name: str):
    """The copy policy of a pool of that name; raises ValueError."""
    kind, _, text = name.partition("-")
    if kind not in ("copies", "erasure"):
        raise ValueError("'%s' is no pool of this driver" % name)
    return parse_copy_policy(text.replace("-", ":"))


def net(policy, size: float) -> float:
    """How much data fits into ``size`` bytes of disk."""
    if policy.is_erasure:
        return size * policy.data / policy.width
    return size / policy.nr_copies


def block_size_shift(extra_specs) -> int | None:
    """What a volume type's extra specs ask for; raises InvalidInput."""
    text = (extra_specs or {}).get(BLOCK_SIZE)
    if text is None:
        return None
    size = int(text) * units.Mi if text.isascii() and text.isdigit() else 0
    if not size or size & (size - 1) or size > units.Gi:
        raise exception.InvalidInput(
            reason="%s is a power of two from 1 to 1024 (MiB), not '%s'" % (BLOCK_SIZE, text))
    return size.bit_length() - 1


def wanted(extra_specs):
    """The copy policy that a volume type asks for, or None; raises InvalidInput."""
    specs = extra_specs or {}
    text = specs.get(COPY_POLICY, specs.get("capabilities:" + COPY_POLICY))
    if text is None:
        return None
    try:
        return parse_copy_policy(text)
    except ValueError as error:
        raise exception.InvalidInput(reason="%s: %s" % (COPY_POLICY, error)) from error


def parse(text: str):
    """A copy policy as an operator writes it, ``3`` or ``4:2``; raises ValueError."""
    return parse_copy_policy(text)
