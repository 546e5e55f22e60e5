"""A counter: ``add`` n, which may be negative, and ``read`` -> n."""

from collections.abc import Collection, Hashable, Sequence
from typing import Any, ClassVar

from outlast.check.core.bounds import find_outside
from outlast.check.core.history import History
from outlast.check.core.model import DeltaModel, Finding, invalid
from outlast.check.core.operation import Operation
from outlast.check.core.values import number, show


class Counter(DeltaModel):
    """A number that starts at 0. A read of ``None`` counts as 0."""

    name: ClassVar[str] = "counter"
    functions: ClassVar[frozenset[str]] = frozenset({"add", "read"})
    reads: ClassVar[frozenset[str]] = frozenset({"read"})

    def init(self, key: Any) -> Hashable:
        """Return the state that is zero."""
        return (0,)

    def change(self, op: Operation) -> tuple[Any, ...]:
        """Return the number added."""
        return (number(op.value, "add"),)

    def target(self, op: Operation) -> tuple[Any, ...]:
        """Return the number read."""
        return (0 if op.output is None else number(op.output, "read"),)

    def token(self, op: Operation) -> Hashable | None:
        """Return the number added or read; adding 0 can be left out."""
        if op.f == "add":
            change = self.change(op)
            return ("add", change) if any(change) else None
        return None if op.kind == "info" else ("read", self.target(op))

    def relevant(
        self, operations: Sequence[Operation], optional: Collection[Operation] = ()
    ) -> Sequence[Operation]:
        """Drop uncertain changes that began after the last read."""
        last = max((op.end or 0 for op in operations if op.f == "read"), default=0)
        return [op for op in operations if op.kind == "ok" or op.start < last]

    def decide(self, key: Any, part: History) -> Finding | None:
        """Refuse reads outside the bounds that the additions leave."""
        reads = [op for op in part.operations if op.f == "read" and op.kind == "ok"]
        adds = [op for op in part.operations if op.f == "add"]
        found = find_outside((0,), reads, adds, self.target, self.change)
        if found is None:
            return None
        side = "less" if found.below else "more"
        since = (
            "the start"
            if found.before is None
            else f"{self.describe(found.before)} by process {found.before.process}"
        )
        reason = (
            f"{self.describe(found.read)} by process {found.read.process} shows {side} than the "
            f"additions since {since} allow, which is {show(found.bound)}"
        )
        shown = [found.read, *found.changes]
        if found.before is not None:
            shown.append(found.before)
        return invalid(reason, shown, found.read)

    def describe_state(self, state: Any) -> str:
        """Return the number."""
        return show(state[0])
