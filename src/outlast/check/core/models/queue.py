"""A first-in-first-out queue: ``enqueue`` v, ``dequeue`` -> v, ``None`` when it was seen empty."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, ClassVar

from outlast.check.core.history import History
from outlast.check.core.model import Finding, Model
from outlast.check.core.operation import Operation
from outlast.check.core.queue_rules import decide_by_rules
from outlast.check.core.values import freeze, show

_NEVER = float("inf")


class Queue(Model):
    """A queue, which starts empty."""

    name: ClassVar[str] = "queue"
    functions: ClassVar[frozenset[str]] = frozenset({"enqueue", "dequeue"})
    reads: ClassVar[frozenset[str]] = frozenset()

    def init(self, key: Any) -> Hashable:
        """Return the empty queue."""
        return ()

    def token(self, op: Operation) -> Hashable | None:
        """Return the value that goes in, or the one that came out."""
        if op.f == "enqueue":
            return ("enqueue", freeze(op.value))
        return ("take",) if op.kind == "info" else ("dequeue", freeze(op.output))

    def observes(self, op: Operation) -> bool:
        """Tell whether the queue was seen empty."""
        return op.f == "dequeue" and op.kind == "ok" and op.output is None

    def step(self, state: Any, op: Operation) -> Sequence[Hashable]:
        """Put a value in at the end, or take the first out."""
        if op.f == "enqueue":
            return ((*state, freeze(op.value)),)
        if op.kind == "info":
            return (state[1:],) if state else (state,)
        if op.output is None:
            return (state,) if not state else ()
        return (state[1:],) if state and state[0] == freeze(op.output) else ()

    def relevant(
        self, operations: Sequence[Operation], optional: Collection[Operation] = ()
    ) -> Sequence[Operation]:
        """Drop uncertain additions of values that nobody took out."""
        taken = {freeze(op.output) for op in operations if op.f == "dequeue" and op.kind == "ok"}
        return [
            op
            for op in operations
            if (op.kind == "ok" and op not in optional)
            or op.f == "dequeue"
            or freeze(op.value) in taken
        ]

    def possible(self, state: Any, op: Operation, movers: Sequence[Operation]) -> bool:
        """What lies before the value must be on its way out, and the value inside or coming."""
        if op.f != "dequeue":
            return True
        if op.output is None:
            before = state
        else:
            value = freeze(op.output)
            if value in state:
                before = state[: state.index(value)]
            elif any(mover.f == "enqueue" and freeze(mover.value) == value for mover in movers):
                before = state
            else:
                return False
        going = set()
        for mover in movers:
            if mover.f == "dequeue":
                if mover.kind == "info":
                    return True
                going.add(freeze(mover.output))
        return going.issuperset(before)

    def spans(self, operations: Sequence[Operation]) -> Mapping[int, tuple[float, float]]:
        """Return for what went in when it came out: values keep their order."""
        ordered = sorted(operations, key=lambda op: op.start)
        out: dict[Hashable, list[Operation]] = {}
        for op in reversed(ordered):
            if op.f == "dequeue" and op.output is not None:
                out.setdefault(freeze(op.output), []).append(op)
        unsure = any(op.f == "dequeue" and op.kind == "info" for op in ordered)
        spans: dict[int, tuple[float, float]] = {}
        for op in ordered:
            if op.f == "enqueue":
                takes = out.get(freeze(op.value))
                take = takes.pop() if takes else None
                if take is not None:
                    spans[op.index] = (take.start, take.end or _NEVER)
                elif not unsure:
                    spans[op.index] = (_NEVER, _NEVER)
        return spans

    def describe_state(self, state: Any) -> str:
        """Return the values, first out first."""
        return show(list(state))

    def decide(self, key: Any, part: History) -> Finding | None:
        """Decide by the known rules where each value went in once."""
        return decide_by_rules(self, part)

    def explain(
        self,
        state: Any,
        stuck: Operation,
        shown: Sequence[Operation],
        history: Sequence[Operation],
    ) -> str:
        """Say what was first in the queue instead."""
        what = f"{self.describe(stuck)} by process {stuck.process} has no place"
        if stuck.f == "dequeue" and state:
            return f"{what}: {show(state[0])} was first in the queue"
        if stuck.f == "dequeue" and stuck.output is not None:
            return f"{what}: the queue was empty"
        return super().explain(state, stuck, shown, history)
