"""Clusters in the states that the Raft paper draws, and what was said in them."""

from collections.abc import Mapping, Sequence

from outlast.kernel import ReplicaId, Term
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import (
    AnyMessage,
    AppendRequest,
    Effects,
    Entry,
    EntryKind,
    HardState,
    Receive,
    Role,
    VoteResponse,
)
from tests.support.raft_sim import Cluster, ids


def entry(index: int, term: int) -> Entry:
    """Return the entry that has this place and term in every planted log."""
    return Entry(index, term, EntryKind.NORMAL, f"{index}.{term}".encode())


def with_logs(
    logs: Mapping[ReplicaId, Sequence[int]],
    *,
    term: int = 0,
    settings: RaftSettings | None = None,
) -> Cluster:
    """Return a cluster started from logs whose entries have these terms, all in ``term``."""
    cluster = Cluster(list(logs), settings=settings)
    for replica, terms in logs.items():
        host = cluster.hosts[replica]
        cluster.crash(replica)
        host.durable.entries = [entry(index, at) for index, at in enumerate(terms, 1)]
        host.durable.hard = HardState(Term(max(term, *terms, 0)), None)
        cluster.start(replica)
    return cluster


def elected(count: int = 3, *, term: int = 1, settings: RaftSettings | None = None) -> Cluster:
    """Return a cluster that the first replica leads in ``term``, at rest."""
    cluster = with_logs({replica: [] for replica in ids(count)}, term=term - 1, settings=settings)
    cluster.elect(ids(count)[0])
    cluster.settle()
    cluster.sent.clear()
    return cluster


def candidate(count: int = 3, *, term: int = 1) -> Cluster:
    """Return a cluster whose first replica stands in ``term`` and hears nothing by itself."""
    me, *others = ids(count)
    cluster = with_logs({replica: [] for replica in ids(count)}, term=term - 1)
    cluster.drop = lambda s, t, m: True
    cluster.stand(me)
    for other in others:
        if cluster.node(me).role is Role.PRE_CANDIDATE:
            grant = VoteResponse(term - 1, term, pre=True, granted=True)
            cluster.step(me, Receive(other, grant))
    cluster.run(0.001)
    return cluster


def terms_of(cluster: Cluster, replica: ReplicaId) -> list[int]:
    """Return the terms of a replica's log, durable or not."""
    return [item.term for item in cluster.hosts[replica].written.entries]


def messages(effects: Effects) -> list[tuple[ReplicaId, AnyMessage]]:
    """Return what a step sends, now or later."""
    return [*effects.send_now, *effects.send_after_durable]


def grants(cluster: Cluster, *, pre: bool = False) -> dict[ReplicaId, bool]:
    """Return the last answer of each voter that was sent."""
    return {
        s: m.granted for s, _, m in cluster.sent if isinstance(m, VoteResponse) and m.pre is pre
    }


def fed(cluster: Cluster, target: ReplicaId) -> list[AppendRequest]:
    """Return the requests with entries that were sent to ``target``."""
    return [
        m for _, t, m in cluster.sent if t == target and isinstance(m, AppendRequest) and m.entries
    ]
