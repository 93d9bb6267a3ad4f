"""Which cluster map comes next.  The leader asks; the answer is a pure value.

A map changes in two steps.  First the new membership is published with ``settled`` false:
every node stops serving under the old revision and says so (``acked``).  Once all have, the
same map is published as settled and all serve again.  So no two nodes ever serve under
different maps at the same time.

That includes nodes which the new map leaves out though their sessions live, because the others
cannot talk to them: they too are waited for, until they say that they serve no more or are
*fenced*, which is when they cannot serve any more without having looked at the map.
"""

from typing import Iterable, NamedTuple, Optional, Tuple

from sheepstack.placement.cluster_map import ClusterMap, Node, Status, sorted_nodes
from sheepstack.placement.ring import DEFAULT_VNODES
from sheepstack.placement.weight import weighted_vnodes

AUTO_VNODES = -1


class Member(NamedTuple):
    """What a running sheep publishes about itself.

    ``uuid`` and ``last_revision`` tell which cluster its store belongs to and the newest
    map it was part of ("" and 0: none yet).  ``acked`` is the revision whose predecessor it
    has left, ``rolled`` the one at which it ended the writes that older revisions left pending,
    ``recovered`` the one at which it holds all it should.  ``unreachable`` names
    the members that it cannot talk to.  ``born`` grows from one life of a sheep to its next: the
    session of the life before may not have expired yet.
    """

    node: Node
    uuid: str = ""
    last_revision: int = 0
    acked: int = 0
    rolled: int = 0
    recovered: int = 0
    unreachable: Tuple[str, ...] = ()
    leaving: bool = False
    born: int = 0


def first_map(members: Iterable[Member], uuid, ctime, **settings) -> ClusterMap:
    """The map of a cluster that was formatted just now."""
    nodes = _with_vnodes((), [member.node for member in living(members)])
    return ClusterMap(uuid=uuid, ctime=ctime, epoch=1, nodes=sorted_nodes(nodes), **settings)


def next_map(current: ClusterMap, members: Iterable[Member], now: int,
             fenced=frozenset()) -> Optional[ClusterMap]:
    """The map that should follow ``current``, or None where all is as it should be.

    ``fenced``: incarnations of members that cannot serve under an older map any more.
    """
    members = living(members)
    running = {member.node.incarnation: member for member in members}
    in_map = [node for node in current.nodes if node.incarnation in running]
    if current.status is Status.SHUTDOWN or not in_map:
        return _cold_start(current, members, now)

    known = {node.incarnation for node in in_map}
    out = cut_off(
        [member for member in members
         if member.node.incarnation in known or _admissible(current, member)],
        newcomers={member.node.name for member in members
                   if member.node.incarnation not in known})
    staying = [node for node in in_map
               if node.name not in out and not running[node.incarnation].leaving]
    joining = [member.node for member in members
               if current.index_of(member.node.incarnation) < 0
               and member.node.name not in out and _admissible(current, member)]
    keys = {node.key for node in joining}
    staying = [node for node in staying if node.key not in keys]
    if joining or len(staying) != len(current.nodes):
        if not staying and not joining:
            return None
        return _changed(current, staying, joining, now)
    if not current.settled and not set(left_out(current, members)) - set(fenced) and all(
            running[node.incarnation].acked >= current.revision for node in in_map):
        return current._replace(settled=True)
    if current.settled and current.last_complete < current.revision and all(
            running[node.incarnation].recovered >= current.revision for node in in_map):
        return current._replace(last_complete=current.revision)
    return None


def left_out(current: ClusterMap, members: Iterable[Member]) -> list:
    """Incarnations of members that may not know yet that they are not in the map any more."""
    return [member.node.incarnation for member in living(members)
            if member.acked and member.uuid == current.uuid
            and current.index_of(member.node.incarnation) < 0]


def forced_map(current: ClusterMap, members: Iterable[Member], now: int) -> ClusterMap:
    """The map with which those present go on without waiting for the others."""
    present = [member.node for member in living(members) if _admissible(current, member)]
    following = _changed(current, (), present, now)
    return following._replace(status=Status.OK, forced=following.revision)


def map_with_vnodes(current: ClusterMap, vnodes: dict, now: int) -> ClusterMap:
    """The map in which the nodes with these keys have other numbers of v-nodes.

    ``current`` itself where nothing is different.
    """
    nodes = tuple(node._replace(vnodes=vnodes.get(node.key, node.vnodes))
                  for node in current.nodes)
    if nodes == current.nodes:
        return current
    return _changed(current, nodes, (), now)


def vnodes_by_space(current: ClusterMap, spaces: dict, automatic) -> dict:
    """{key: v-nodes} of the nodes ``automatic`` (keys) by ``spaces``: {key: bytes}, of all.

    Nodes with as much space as one has on average get 128.
    """
    known = [spaces[node.key] for node in current.nodes if node.vnodes and node.key in spaces]
    mean = sum(known) / len(known) if known else 0
    return {key: weighted_vnodes(spaces[key], mean) for key in automatic if key in spaces}


def living(members: Iterable[Member]) -> list:
    """``members`` without those of which there is a later life at the same address."""
    latest = {}
    for member in members:
        other = latest.get(member.node.key)
        if other is None or _age(member) > _age(other):
            latest[member.node.key] = member
    return list(latest.values())


def _age(member):
    return member.born, member.node.incarnation


def _cold_start(current, members, now):
    """All nodes were down: go on once those of the last epoch are back, as they were."""
    # Those that are still going down after a shutdown are not back.
    ending = {node.incarnation for node in current.nodes}
    present = {member.node.key: member.node for member in members
               if _admissible(current, member) and member.node.incarnation not in ending}
    if not present or any(node.key not in present for node in current.nodes):
        return None
    back = [_restarted(node, present.pop(node.key)) for node in current.nodes]
    if present:
        return _changed(current, back, list(present.values()), now)._replace(status=Status.OK)
    return current._replace(
        revision=current.revision + 1, nodes=sorted_nodes(back), settled=False,
        last_settled=_last_settled(current), status=Status.OK)


def _changed(current, staying, joining, now):
    known = {node.key: node for node in current.nodes}
    back = [_restarted(known[node.key], node) for node in joining if node.key in known]
    new = [node for node in joining if node.key not in known]
    nodes = _with_vnodes(list(staying) + back, new)
    return current._replace(
        epoch=current.epoch + 1, revision=current.revision + 1, nodes=sorted_nodes(nodes),
        settled=False, last_settled=_last_settled(current), changed=now)


def _restarted(known: Node, node: Node) -> Node:
    """A node that comes back keeps its v-nodes, so that its objects stay where they are."""
    vnodes = known.vnodes if node.vnodes == AUTO_VNODES else node.vnodes
    return node._replace(vnodes=vnodes)


def _last_settled(current):
    return current.revision if current.settled else current.last_settled


def _admissible(current, member):
    return (member.uuid in ("", current.uuid)
            and member.last_revision <= current.revision
            and not member.leaving)


def _with_vnodes(known, new):
    """``known`` as they are, ``new`` weighted by space against them."""
    weights = [(node.space, node.vnodes) for node in known if node.vnodes > 0]
    if not weights:
        spaces = [node.space for node in new if node.vnodes == AUTO_VNODES]
        weights = [(space, DEFAULT_VNODES) for space in spaces]
    vnodes = sum(weight for _, weight in weights)
    mean = sum(space for space, _ in weights) * DEFAULT_VNODES / vnodes if vnodes else 0
    return list(known) + [
        node._replace(vnodes=weighted_vnodes(node.space, mean))
        if node.vnodes == AUTO_VNODES else node
        for node in new]


def cut_off(members: Iterable[Member], newcomers=frozenset()) -> set:
    """Names of the fewest members to leave out so that all others reach one another.

    Greedy: again and again the one with most broken connections goes, of equals a newcomer
    first, then one that does not complain itself (it may well be dead), then the one that
    sorts last, so that every leader comes to the same result.
    """
    members = list(members)
    names = {member.node.name for member in members}
    broken = {frozenset((member.node.name, other)) for member in members
              for other in member.unreachable if other in names and other != member.node.name}
    silent = {member.node.name for member in members if not member.unreachable}
    out = set()
    while broken:
        counts = {}
        for pair in broken:
            for name in pair:
                counts[name] = counts.get(name, 0) + 1
        worst = max(counts, key=lambda name: (
            counts[name], name in newcomers, name in silent, name))
        out.add(worst)
        broken = {pair for pair in broken if worst not in pair}
    return out
