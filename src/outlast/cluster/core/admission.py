"""Who may come into the cluster, and when a learner becomes a voter.

A node that starts on an empty directory may have voted before it lost its disk, so it comes
back as another replica: ``admit`` gives it the next incarnation, as a learner. The leader makes
a learner a voter once it has caught up; if an older incarnation of the same node still has a
vote, the two are exchanged in one joint change. Nothing here needs an operator, except that an
unknown node must first be added by name. A node of which a replica is alive is not admitted
again: a second process under its name would take the vote from a member that works.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from outlast.kernel import (
    ConfigError,
    LogIndex,
    NodeId,
    ReplicaId,
    UnavailableError,
    node_of,
    replica_id,
)
from outlast.log import Member, Membership, Progress

CAUGHT_UP_ENTRIES = 64
"""A learner at most this many entries behind the commit index may become a voter."""


def next_replica(membership: Membership, node: NodeId) -> ReplicaId:
    """Return an id for ``node`` that no replica has ever had.

    The version grows with every change of members and every incarnation was given out under
    an earlier version, so ``version + 2`` is new.
    """
    return replica_id(node, membership.version + 2)


def admit(
    membership: Membership, node: NodeId, address: str, alive: Collection[ReplicaId] = ()
) -> tuple[ReplicaId, list[Member]]:
    """Return the replica id for a returning ``node`` and the members with it as a learner.

    Args:
        membership: As it is now.
        node: Who asks.
        address: Where the others will reach it.
        alive: Replicas that answer the leader now, itself included.

    Raises:
        ConfigError: Definite. The node is not a member: it must be added by name first.
        UnavailableError: Definite. A replica of the node is alive: it has lost nothing.
    """
    rows = [m for m in membership.members if node_of(m.replica) == node]
    if not rows:
        known = ", ".join(dict.fromkeys(node_of(m.replica) for m in membership.members))
        message = (
            f"node {node} is not a member (members: {known}): first run"
            f" `outlast member add {node} --address {address}`"
        )
        raise ConfigError(message)
    for row in rows:
        if row.replica in alive:
            message = (
                f"node {node} runs already, at {row.address} as {row.replica}: stop that process"
                " first, or give this one an id of its own"
            )
            raise UnavailableError(message, retry_after=1.0)
    replica = next_replica(membership, node)
    kept = [m for m in membership.members if m.voter or node_of(m.replica) != node]
    return replica, [*kept, Member(replica, address, voter=False, zone=rows[0].zone)]


def add(membership: Membership, node: NodeId, address: str) -> list[Member]:
    """Return the members with ``node`` added as a learner.

    Raises:
        ConfigError: Definite. It is a member already, or another one has the address.
    """
    for member in membership.members:
        if node_of(member.replica) == node:
            message = f"node {node} is a member already, at {member.address}"
            raise ConfigError(message)
        if member.address == address:
            message = f"address {address} belongs to member {node_of(member.replica)}"
            raise ConfigError(message)
    return [*membership.members, Member(next_replica(membership, node), address, voter=False)]


def remove(membership: Membership, node: NodeId) -> list[Member]:
    """Return the members without ``node``.

    Raises:
        ConfigError: Definite. It is not a member, or the last voter.
    """
    kept = [m for m in membership.members if node_of(m.replica) != node]
    if len(kept) == len(membership.members):
        known = ", ".join(dict.fromkeys(node_of(m.replica) for m in membership.members))
        message = f"node {node} is not a member (members: {known})"
        raise ConfigError(message)
    if not any(m.voter for m in kept):
        message = f"node {node} is the last voter: a cluster keeps at least one"
        raise ConfigError(message)
    return kept


def promote(
    membership: Membership, progress: Sequence[Progress], commit: LogIndex
) -> list[Member] | None:
    """Return the members after the next promotion that is due, ``None`` if none is."""
    if membership.joint:
        return None
    far = {p.replica: p.match for p in progress if p.reachable}
    for learner in membership.members:
        if learner.voter or learner.replica not in far:
            continue
        if far[learner.replica] + CAUGHT_UP_ENTRIES < commit:
            continue
        node = node_of(learner.replica)
        kept = [m for m in membership.members if node_of(m.replica) != node]
        return [*kept, replace(learner, voter=True)]
    return None
