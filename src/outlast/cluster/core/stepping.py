"""Who should lead instead of a leader that cannot apply the log.

A replica that holds before an entry that killed its process still replicates, so it may be
elected; but it answers no command. If a majority holds, the entry is skipped; if not, the fault
is this machine's (its memory, its program) and one that goes on has to lead.
"""

from collections.abc import Collection, Sequence

from outlast.kernel import ReplicaId
from outlast.log import Progress


def better_leader(
    progress: Sequence[Progress], me: ReplicaId, able: Collection[ReplicaId]
) -> ReplicaId | None:
    """Return the reachable voter among ``able`` that has most of the log, ``None`` if none is.

    Args:
        progress: How far each member is, as the leader sees it.
        me: The leader itself.
        able: Replicas that said that they hold before nothing.
    """
    found = [
        one
        for one in progress
        if one.voter and one.reachable and one.replica != me and one.replica in able
    ]
    return max(found, key=lambda one: one.match).replica if found else None
