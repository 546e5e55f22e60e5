"""Lists in transactions: ``txn`` of [["append", k, v], ["r", k, [v...]]]."""

from collections.abc import Collection, Hashable, Sequence
from typing import Any, ClassVar

from outlast.check.core.cycles import decide_by_cycles
from outlast.check.core.history import History
from outlast.check.core.model import Finding, Model
from outlast.check.core.operation import Operation
from outlast.check.core.values import BadValueError, freeze, freeze_all, show

Micro = tuple[str, Any, Any]
"""One part of a transaction: ``append`` or ``r``, the key, the value or the list read."""

_RIGHT = '[["append", "x", 1], ["r", "x", null]] would be right'


def micros(op: Operation) -> tuple[Micro, ...]:
    """Return the parts of a transaction; reads of an ``info`` one show ``None``.

    Raises:
        BadValueError: The value has another form, or the answer another one than the question.
    """
    asked = _parts(op.value)
    if op.kind == "info":
        return tuple((f, k, v if f == "append" else None) for f, k, v in asked)
    told = _parts(op.output)
    if [part[:2] for part in asked] != [part[:2] for part in told]:
        raise BadValueError(f"txn asked {show(op.value)} and was told {show(op.output)}")
    parts: list[Micro] = []
    for (f, key, value), (_, _, shown) in zip(asked, told, strict=True):
        if f == "append":
            parts.append((f, key, value))
        elif shown is None:
            parts.append((f, key, ()))
        elif isinstance(shown, list | tuple):
            parts.append((f, key, freeze_all(shown)))
        else:
            raise BadValueError(f"txn read {show(shown)}; a list would be right")
    return tuple(parts)


def _parts(value: Any) -> list[Micro]:
    if not isinstance(value, list | tuple):
        raise BadValueError(f"txn has the value {show(value)}; {_RIGHT}")
    parts: list[Micro] = []
    for part in value:
        if not isinstance(part, list | tuple) or len(part) != 3 or not isinstance(part[0], str):
            raise BadValueError(f"txn has the part {show(part)}; {_RIGHT}")
        if part[0] not in {"append", "r"}:
            raise BadValueError(f"txn has the part {show(part)}; {_RIGHT}")
        f, key, shown = part
        parts.append((f, freeze(key), freeze(shown) if f == "append" else shown))
    return parts


class Append(Model):
    """Lists by key that transactions append to and read, one transaction at a time."""

    name: ClassVar[str] = "append"
    functions: ClassVar[frozenset[str]] = frozenset({"txn"})
    reads: ClassVar[frozenset[str]] = frozenset()
    how: ClassVar[str] = "strictly serializable"
    keyed: ClassVar[bool] = False

    def __init__(self) -> None:
        self._known: dict[Operation, tuple[Micro, ...]] = {}

    def prepare(self, history: History) -> Model:
        """Return a model that keeps the parts of this history's transactions."""
        return type(self)()

    def parts(self, op: Operation) -> tuple[Micro, ...]:
        """Return :func:`micros` of ``op``, worked out once."""
        known = self._known.get(op)
        if known is None:
            known = self._known[op] = micros(op)
        return known

    def init(self, key: Any) -> Hashable:
        """Return no lists: a missing one reads as empty."""
        return frozenset()

    def token(self, op: Operation) -> Hashable | None:
        """Return the parts; an uncertain transaction that only reads can be left out."""
        parts = self.parts(op)
        if op.kind == "info":
            appends = tuple(part for part in parts if part[0] == "append")
            return appends or None
        return parts

    def observes(self, op: Operation) -> bool:
        """Tell whether the transaction only reads."""
        return all(part[0] == "r" for part in self.parts(op))

    def step(self, state: Any, op: Operation) -> Sequence[Hashable]:
        """Carry out the parts in order."""
        lists = dict(state)
        for f, key, value in self.parts(op):
            here = lists.get(key, ())
            if f == "append":
                lists[key] = (*here, value)
            elif value is not None and here != value:
                return ()
        return (frozenset(lists.items()),)

    def relevant(
        self, operations: Sequence[Operation], optional: Collection[Operation] = ()
    ) -> Sequence[Operation]:
        """Drop uncertain transactions of which nothing was read."""
        seen = {
            (key, value)
            for op in operations
            for f, key, shown in self.parts(op)
            if f == "r" and shown is not None
            for value in shown
        }
        return [
            op
            for op in operations
            if (op.kind == "ok" and op not in optional)
            or any((k, v) in seen for f, k, v in self.parts(op) if f == "append")
        ]

    def possible(self, state: Any, op: Operation, movers: Sequence[Operation]) -> bool:
        """A list only grows, so what it holds must begin what is still to be read."""
        lists = dict(state)
        own: dict[Any, int] = {}
        for f, key, shown in self.parts(op):
            if f == "append":
                own[key] = own.get(key, 0) + 1
            elif shown is not None:
                here = lists.get(key, ())
                before = len(shown) - own.get(key, 0)  # its own additions are the last it reads
                if before < len(here) or here != shown[: len(here)]:
                    return False
        return True

    def describe_state(self, state: Any) -> str:
        """Return the lists by key."""
        return show({str(key): list(values) for key, values in sorted(state, key=repr)})

    def decide(self, key: Any, part: History) -> Finding | None:
        """Decide by the cycles of dependencies where every value was appended once."""
        return decide_by_cycles([(op, self.parts(op)) for op in part.operations])
