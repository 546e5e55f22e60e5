"""Registers and key-value stores: each key holds one value, ``None`` when it is missing."""

from bisect import bisect_left
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, ClassVar

from outlast.check.core.history import History
from outlast.check.core.model import Finding, Model
from outlast.check.core.operation import Operation
from outlast.check.core.values import BadValueError, freeze, show
from outlast.check.core.zones import decide_by_zones

_READS_MAX = 100  # looked at for the first one that shows a change
_ALIASES = {"get": "read", "put": "write"}


def _kind(op: Operation) -> str:
    """Return the plain name of what ``op`` did; a comparison seen to fail is ``differs``."""
    if op.f == "cas" and op.output is False:
        return "differs"
    return _ALIASES.get(op.f, op.f)


def _pair(op: Operation) -> tuple[Any, Any]:
    if not isinstance(op.value, list | tuple) or len(op.value) != 2:
        raise BadValueError(f"cas has the value {show(op.value)}; [old, new] would be right")
    return op.value[0], op.value[1]


class Register(Model):
    """``write`` v, ``read`` -> v, ``cas`` [old, new]; ``put`` and ``get`` mean the same."""

    name: ClassVar[str] = "register"
    functions: ClassVar[frozenset[str]] = frozenset({"read", "write", "cas", "get", "put"})
    reads: ClassVar[frozenset[str]] = frozenset({"read", "get"})
    how: ClassVar[str] = "linearizable, key by key"

    def init(self, key: Any) -> Hashable:
        """Return ``None``: every key starts missing."""
        return None

    def observes(self, op: Operation) -> bool:
        """Reads observe, and so does a comparison that was seen to fail."""
        return op.f in self.reads or (op.f == "cas" and op.output is False)

    def token(self, op: Operation) -> Hashable | None:
        """Return what ``op`` does, the same for an ``ok`` and an ``info`` change."""
        kind = _kind(op)
        if kind == "read":
            return None if op.kind == "info" else ("read", freeze(op.output))
        if kind == "write":
            return ("write", freeze(op.value))
        if kind == "delete":
            return ("write", None)
        if kind == "append":
            if not isinstance(op.value, str):
                raise BadValueError(f"append has the value {show(op.value)}; text would be right")
            told = op.result if isinstance(op.result, str) else None
            return ("append", op.value, told)
        old, new = _pair(op)
        return (kind, freeze(old), freeze(new) if kind == "cas" else None)

    def step(self, state: Any, op: Operation) -> Sequence[Hashable]:
        """Apply ``op`` to the value ``state``."""
        token: Any = self.token(op)
        if token is None:
            return (state,)
        kind, value = token[:2]
        if kind == "read":
            return (state,) if state == value else ()
        if kind == "write":
            return (value,)
        if kind == "cas":
            return token[2:] if state == value else ()
        if kind == "differs":
            return (state,) if state != value else ()
        if state is not None and not isinstance(state, str):
            return ()
        after = (state or "") + value
        return (after,) if token[2] in {None, after} else ()

    def relevant(
        self, operations: Sequence[Operation], optional: Collection[Operation] = ()
    ) -> Sequence[Operation]:
        """Drop uncertain changes to values that nobody read or compared with."""
        seen: set[Hashable] = set()
        tokens: list[Any] = [self.token(op) for op in operations]
        appends = False
        for token in tokens:
            if token is None or token[0] == "write":
                continue
            if token[0] == "differs":
                return operations
            if token[0] == "append":
                appends = True
                if token[2] is not None:
                    seen.add(token[2])
            else:
                seen.add(token[1])
        if appends:
            return self._relevant_text(operations, tokens, seen, optional)
        kept = []
        for op, token in zip(operations, tokens, strict=True):
            if token is None:
                continue
            changed = token[1] if token[0] == "write" else token[-1]
            if changed in seen or (op.kind == "ok" and op not in optional):
                kept.append(op)
        return kept

    @staticmethod
    def _relevant_text(
        operations: Sequence[Operation],
        tokens: Sequence[Any],
        seen: set[Hashable],
        optional: Collection[Operation],
    ) -> Sequence[Operation]:
        """Drop uncertain text that is part of no text that was read."""
        written = [t[1] if t[0] == "write" else t[2] for t in tokens if t and t[0] in _CHANGES]
        if any(value is not None and not isinstance(value, str) for value in written):
            return operations
        texts = [text for text in seen if isinstance(text, str)]
        kept = []
        for op, token in zip(operations, tokens, strict=True):
            if token is None:
                continue
            part = token[2] if token[0] == "cas" else token[1]
            certain = op.kind == "ok" and op not in optional
            if certain or part is None or any(part in text for text in texts):
                kept.append(op)
        return kept

    def possible(self, state: Any, op: Operation, movers: Sequence[Operation]) -> bool:
        """Text that can only grow must already begin like what was read."""
        if not any(mover.f == "append" for mover in movers) or op.f == "cas":
            return True
        if any(mover.f != "append" for mover in movers):
            return True
        wanted = op.output if op.f in self.reads else op.result
        if not isinstance(wanted, str):
            return op.f not in self.reads or wanted == state
        return isinstance(state, str | None) and wanted.startswith(state or "")

    def onward(self, state: Any, op: Operation, movers: Sequence[Operation]) -> bool:
        """A chain to a text goes by what the text begins with, unless values are compared."""
        wanted = op.output if op.f in self.reads else op.result
        if not isinstance(wanted, str) or any(mover.f == "cas" for mover in movers):
            return True
        return state is None or (isinstance(state, str) and wanted.startswith(state))

    def spans(self, operations: Sequence[Operation]) -> Mapping[int, tuple[float, float]]:
        """Where text is appended: return for each change when and where it was first read."""
        if not any(op.f == "append" for op in operations):
            return {}
        reads = [op for op in operations if op.f in self.reads and isinstance(op.output, str)]
        reads.sort(key=lambda op: op.end or 0)
        ends = [op.end or 0 for op in reads]
        spans: dict[int, tuple[float, float]] = {}
        for op in operations:
            if op.f not in {"append", "put", "write"} or not isinstance(op.value, str):
                continue
            place = bisect_left(ends, op.start)
            for read in reads[place : place + _READS_MAX]:
                found = read.output.find(op.value)
                if found >= 0:
                    when = read.start + found / (len(read.output) + 1)
                    spans[op.index] = (when, when)
                    break
        return spans

    def decide(self, key: Any, part: History) -> Finding | None:
        """Decide at once when every value was written once and nothing was compared."""
        return decide_by_zones(self, key, part)

    def explain(
        self,
        state: Any,
        stuck: Operation,
        shown: Sequence[Operation],
        history: Sequence[Operation],
    ) -> str:
        """Name the write that the answer misses, when one had ended before it began."""
        what = f"{self.describe(stuck)} by process {stuck.process}"
        if stuck.f in self.reads and stuck.output is not None:
            value = freeze(stuck.output)
            if not any(self._gives(op, value) for op in history if op is not stuck):
                return f"{what} has no place: no operation wrote {show(stuck.output)}"
        before = [
            op
            for op in shown
            if op.end is not None and op.end < stuck.start and not self.observes(op)
        ]
        if before:
            last = max(before, key=lambda op: op.start)
            return (
                f"{what} has no place: {self.describe(last)} by process {last.process} was "
                "acknowledged before it began"
            )
        return super().explain(state, stuck, shown, history)

    def _gives(self, op: Operation, value: Hashable) -> bool:
        token: Any = self.token(op)
        if token is None or token[0] not in _CHANGES:
            return False
        if token[0] == "append":
            return isinstance(value, str) and token[1] in value
        made = token[1] if token[0] == "write" else token[2]
        return bool(made == value) or (
            isinstance(made, str) and isinstance(value, str) and value.startswith(made)
        )

    def kin(self, stuck: Operation, operations: Sequence[Operation]) -> Sequence[Operation]:
        """Return the last writes of the value that ``stuck`` read."""
        if stuck.f not in self.reads:
            return ()
        value = freeze(stuck.output)
        makers = [op for op in operations if self._gives(op, value)]
        return [op for op in makers if op.start < (stuck.end or 0)][-2:]


_CHANGES = frozenset({"write", "cas", "append"})


class Kv(Register):
    """``get``, ``put``, ``append`` (text), ``delete`` and ``cas`` for each key."""

    name: ClassVar[str] = "kv"
    functions: ClassVar[frozenset[str]] = Register.functions | {"append", "delete"}
