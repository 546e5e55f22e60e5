"""Watches what nodes say of themselves, and what may never be seen.

Each status is an observation of (term, vote, role) at some moment; these must hold whatever the
moments are (Raft paper, 5.2 and figure 3): a node's term never goes back, it votes for at most
one candidate in a term and does not forget for whom, and a term has at most one leader.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from outlast.drill.report import NodeSpan, NodeState

_PROBLEMS_MAX = 20
_NS = 1_000_000_000


@dataclass(slots=True)
class Witness:
    """Keeps what was observed. Observations of one node must come in order of time."""

    problems: list[str] = field(default_factory=list)
    observations: int = 0
    _terms: dict[str, int] = field(default_factory=dict)
    _votes: dict[tuple[str, int], str] = field(default_factory=dict)
    _leaders: dict[int, str] = field(default_factory=dict)

    def observe(self, facts: Mapping[str, Any]) -> None:
        """Take one node's status: its durable term and vote, and whether it leads."""
        node = str(facts.get("replica") or facts.get("node") or "")
        term = facts.get("voted_term")
        if not node or not isinstance(term, int):
            return
        self.observations += 1
        before = self._terms.get(node, 0)
        if term < before:
            self._add(f"{node} went back from term {before} to term {term}")
        self._terms[node] = max(term, before)
        vote = str(facts.get("voted_for") or "")
        cast = self._votes.get((node, term), "")
        if cast and vote != cast:
            now = f"for {vote}" if vote else "for nobody"
            self._add(f"{node} voted for {cast} in term {term}, and later {now}")
        if vote:
            self._votes[node, term] = vote
        if facts.get("leading"):
            led = int(facts.get("term", 0))
            leader = self._leaders.setdefault(led, node)
            if leader != node:
                self._add(f"{leader} and {node} both led in term {led}")

    def _add(self, problem: str) -> None:
        if problem not in self.problems and len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(problem)


@dataclass(slots=True)
class Spans:
    """Builds what each node was over time from samples."""

    _open: dict[str, tuple[int, NodeState]] = field(default_factory=dict)
    _done: list[NodeSpan] = field(default_factory=list)

    def sample(self, node: str, state: NodeState, now_ns: int) -> None:
        """``node`` was ``state`` at ``now_ns``, and so since its last sample."""
        since, was = self._open.get(node, (now_ns, state))
        if was != state:
            self._close(node, since, was, now_ns)
            since = now_ns
        self._open[node] = (since, state)

    def _close(self, node: str, since_ns: int, state: NodeState, now_ns: int) -> None:
        start, end = round(since_ns / _NS, 3), round(now_ns / _NS, 3)
        self._done.append(NodeSpan(node, start, end, state))

    def finish(self, now_ns: int) -> tuple[NodeSpan, ...]:
        """Return all spans, in order of node and time."""
        for node, (since, state) in self._open.items():
            self._close(node, since, state, now_ns)
        self._open.clear()
        return tuple(sorted(self._done, key=lambda span: (span.node, span.start)))
