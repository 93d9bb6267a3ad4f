"""QoS specs that the back end is to keep: limits of a VDI, see ``dog vdi limit``.

Those for the front end Cinder hands to the hypervisor by itself.
"""

from cinder import exception
from cinder import context as cinder_context
from cinder.volume import qos_specs

from sheepstack.client import Limits

_BACK_END = ("back-end", "both")
#: What is said per GiB of the volume, and the least and the most that comes of it.
_PER_GIB, _LEAST, _MOST = "_per_gb", "_per_gb_min", "_max"


def limits_of(volume, size=None) -> Limits:
    """Of a volume of ``size`` GiB (None: as it is); raises InvalidInput."""
    kind = volume.volume_type
    return limits_of_specs(kind and kind.qos_specs_id, volume.size if size is None else size)


def limits_of_specs(specs_id, size) -> Limits:
    """``specs_id``: of QoS specs, or None; raises InvalidInput."""
    if not specs_id:
        return Limits()
    found = qos_specs.get_qos_specs(cinder_context.get_admin_context(), specs_id)
    if found["consumer"] not in _BACK_END:
        return Limits()
    specs = found["specs"]
    known = {name + end for name in Limits._fields for end in ("", _PER_GIB, _LEAST, _MOST)}
    unknown = set(specs) - known
    if unknown and found["consumer"] == "back-end":
        raise exception.InvalidInput(reason="this back end knows no QoS specs %s, only %s" % (
            ", ".join(sorted(unknown)), ", ".join(sorted(known))))
    try:
        return Limits(*(_limit(specs, name, size) for name in Limits._fields))
    except ValueError as error:
        raise exception.InvalidInput(reason="QoS specs are whole numbers: %s" % error) from error


def _limit(specs, name, size):
    """As Cinder computes it for the front end."""
    if name + _PER_GIB not in specs:
        return _number(specs.get(name, 0))
    value = max(_number(specs[name + _PER_GIB]) * size, _number(specs.get(name + _LEAST, 0)))
    return min(value, _number(specs.get(name + _MOST, value)))


def _number(text):
    value = int(text)
    if value < 0:
        raise ValueError("%d is below zero" % value)
    return value
