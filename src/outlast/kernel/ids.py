"""Identifiers that a type checker keeps apart.

All are plain strings or integers at run time, so they cost nothing and travel as they are.
"""

from typing import NewType

ClusterId = NewType("ClusterId", str)
"""Name of a cluster, drawn once by ``outlast init``; a node refuses peers of another cluster."""

NodeId = NewType("NodeId", str)
"""Name of a node for its whole life, such as ``n1``. An address is not an identity."""

ReplicaId = NewType("ReplicaId", str)
"""One incarnation of a node, such as ``n1#2``: what an engine counts in a quorum.

A node that lost its disk comes back under the next incarnation and so as another replica:
what the lost one promised (votes, acknowledgements) is never taken for the new one's.
"""

Incarnation = NewType("Incarnation", int)
"""How many times the node was admitted to the cluster; the first is 1."""

LogIndex = NewType("LogIndex", int)
"""Place of an entry in a log. The first is 1; 0 is before the first."""

Term = NewType("Term", int)
"""A Raft term. Grows with each election; 0 is before the first."""

Epoch = NewType("Epoch", int)
"""Term of an authority above the log: ``timeline << 48 | index`` of the entry that took it."""

SessionId = NewType("SessionId", int)
"""A client session: the log index of its Register entry."""

Seq = NewType("Seq", int)
"""Number of a request within its session; the first is 1."""


def replica_id(node: NodeId, incarnation: int) -> ReplicaId:
    """Return the id of one incarnation of a node.

    >>> replica_id(NodeId("n1"), 2)
    'n1#2'
    """
    return ReplicaId(f"{node}#{incarnation}")


def node_of(replica: ReplicaId) -> NodeId:
    """Return the node that a replica is an incarnation of.

    >>> node_of(ReplicaId("n1#2"))
    'n1'
    """
    return NodeId(replica.rpartition("#")[0])


def incarnation_of(replica: ReplicaId) -> Incarnation:
    """Return which incarnation of its node a replica is.

    >>> incarnation_of(ReplicaId("n1#2"))
    2
    """
    return Incarnation(int(replica.rpartition("#")[2]))
