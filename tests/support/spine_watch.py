"""Looks into the real nodes of a simulated cluster after every step of their Raft cores.

Attached for one run: it replaces ``RaftNode.step`` and what hands snapshots over, and takes all
of it back at the end. What it finds is a problem of the simulation, whatever clients saw.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from outlast.log.engines.raft.core.node import RaftNode
from outlast.log.engines.raft.core.types import Role
from outlast.state import DiskSnapshotStore
from outlast.state.core.session import SessionTable
from tests.support.spine_said import listening

_PROBLEMS_MAX = 5


@dataclass
class Watch:
    """What is known of all nodes together.

    Attributes:
        problem: Called with each broken invariant.
        count: Called with the name of what should happen sometimes.
    """

    problem: Callable[[str], None]
    count: Callable[[str], None]
    leaders: dict[int, str] = field(default_factory=dict)
    committed: list[tuple[int, bytes]] = field(default_factory=list)
    spoken: dict[str, int] = field(default_factory=dict)
    seen: dict[int, tuple[RaftNode, int, int]] = field(default_factory=dict)
    steps: int = 0
    _told: int = 0

    def broken(self, text: str) -> None:
        """Tell of a broken invariant, the first few times."""
        self._told += 1
        if self._told <= _PROBLEMS_MAX:
            self.problem(text)

    def after(self, node: RaftNode) -> None:
        """Check what must hold of ``node``, and of it beside the others."""
        self.steps += 1
        state = node.state
        me = str(node.me)
        _, term, commit = self.seen.get(id(node), (node, 0, state.log.first - 1))
        if node.term < term:
            self.broken(f"terms: {me} went back from {term} to {node.term}")
        if node.commit < commit:
            self.broken(f"commit index: {me} went back from {commit} to {node.commit}")
        if node.commit > node.last_index:
            self.broken(f"{me} has committed {node.commit} and holds only {node.last_index}")
        if node.role is Role.LEADER:
            known = self.leaders.setdefault(node.term, me)
            if known != me:
                self.broken(f"election safety: {known} and {me} lead term {node.term}")
        if node.commit != commit:
            self._on_commit(node, me, commit)
        self.seen[id(node)] = (node, node.term, node.commit)

    def _on_commit(self, node: RaftNode, me: str, before: int) -> None:
        """State machine safety (Raft 5.4.3): the same entry at each index, for ever."""
        log = node.state.log
        for index in range(before + 1, node.commit + 1):
            entry = log.entry(index)
            if entry is None:
                continue  # it came in a snapshot
            found = (int(entry.term), bytes(entry.payload))
            at = index - 1
            if at < len(self.committed):
                if self.committed[at] != (0, b"") and self.committed[at] != found:
                    self.broken(f"state machine safety: {me} committed another entry at {index}")
                self.committed[at] = found
            else:
                self.committed += [(0, b"")] * (at - len(self.committed))
                self.committed.append(found)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Attach ``watch`` to every node of this process until the block ends."""
    step, receive, admit = RaftNode.step, DiskSnapshotStore.receive, SessionTable.admit

    def stepped(self: RaftNode, event: Any, now_ns: int) -> Any:
        effects = step(self, event, now_ns)
        watch.after(self)
        return effects

    def received(self: DiskSnapshotStore, ref: Any) -> Any:
        sink = receive(self, ref)
        if sink.next_chunk > 0:
            watch.count("snapshot transfer resumed")
        return sink

    def admitted(self: SessionTable, command: Any, *rest: Any) -> Any:
        row = self._rows.get(command.session)
        if row is not None and command.seq in row.replies:
            watch.count("duplicate answered from the session table")
        return admit(self, command, *rest)

    RaftNode.step = stepped  # type: ignore[method-assign]
    DiskSnapshotStore.receive = received  # type: ignore[method-assign]
    SessionTable.admit = admitted  # type: ignore[method-assign]
    try:
        with listening(watch.broken):
            yield
    finally:
        RaftNode.step = step  # type: ignore[method-assign]
        DiskSnapshotStore.receive = receive  # type: ignore[method-assign]
        SessionTable.admit = admit  # type: ignore[method-assign]
