"""When the core writes its mark: what a trimmed log no longer tells."""

from outlast.kernel import ReplicaId
from outlast.log.engines.raft.core.types import Effects, RaftEvent
from tests.support.raft_paper import elected
from tests.support.raft_sim import ids

A, B, C = ids(3)


def test_a_new_leader_marks_nothing_again_unless_the_change_is_joint() -> None:
    """A mark is a write of its own: on a full disk one that is not needed would stop the node."""
    cluster = elected()
    cluster.commit_one(A)
    marks: list[object] = []

    def note(_replica: ReplicaId, _event: RaftEvent, effects: Effects) -> None:
        if effects.persist is not None and effects.persist.mark is not None:
            marks.append(effects.persist.mark)

    cluster.on_effects = note
    cluster.crash(A)
    assert cluster.run(3, until=lambda: cluster.leader() is not None)
    cluster.run(1)
    assert marks == []
