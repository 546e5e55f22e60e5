"""Where everything of a counter-example is drawn: one layout for the picture and for the text.

A lane per process, a box per operation from invocation to completion, time from left to right. The
longest order that was possible is a walk through the boxes: each operation in it takes effect at a
point inside its box, and below the lanes stands the state from that point to the next. The unit is
one character, so that the terminal draws the layout as it is and the picture scales it.

Time is not to scale. Columns are the instants at which something begins, ends or takes effect, in
their order; each box is as wide as its label needs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outlast.check.core.operation import Operation
from outlast.check.core.values import show

if TYPE_CHECKING:
    from outlast.check.core.result import CounterExample

OPERATIONS_MAX = 60
"""Operations drawn at most; those that lie farthest from the stuck one are left out."""

_LABEL = 30
_STATE = 26
_VALUE = 4_000
NO_PLACE = "!"
"""Mark of the operation that no order has a place for."""


@dataclass(frozen=True, slots=True)
class Box:
    """One operation.

    Attributes:
        operation: What is drawn.
        lane: Number of its lane, from 0.
        left: Column of its invocation.
        right: Column of its completion, or the picture's edge when it has none.
        label: The call and its answer, short.
        number: Place in the longest order, from 1; 0 when it has none there.
        point: Column at which it takes effect in that order; ``None`` without a place.
        stuck: Whether it is the one that no order has a place for.
    """

    operation: Operation
    lane: int
    left: int
    right: int
    label: str
    number: int
    point: int | None
    stuck: bool

    @property
    def open(self) -> bool:
        """Whether it was never answered: it may take effect later, or never."""
        return self.operation.end is None

    @property
    def mark(self) -> str:
        """What stands before the label: its number, ``!``, or nothing."""
        return NO_PLACE if self.stuck else (f"({self.number})" if self.number else "")


@dataclass(frozen=True, slots=True)
class State:
    """What the object holds from one point of the order to the next."""

    number: int
    left: int
    right: int
    text: str
    full: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A counter-example with a place for everything. ``left_out`` operations are not drawn."""

    width: int
    lanes: tuple[int, ...]
    boxes: tuple[Box, ...]
    states: tuple[State, ...]
    left_out: int


def lay_out(found: "CounterExample", most: int = OPERATIONS_MAX) -> Layout:
    """Return the layout of a counter-example, of which ``most`` operations are drawn."""
    everything = {op.index: op for op in found.operations}
    everything |= {op.index: op for op, _ in found.best}
    if found.stuck is not None:
        everything[found.stuck.index] = found.stuck
    kept = _nearest(everything.values(), found.stuck, most)
    numbers = {op.index: n for n, (op, _) in enumerate(found.best, 1)}
    walk = [(op, show_state(state)) for op, state in found.best if op in kept]
    keyed = has_keys(kept)
    labels = {op.index: label(op, keyed=keyed) for op in kept}

    columns, points = _columns(kept, [op for op, _ in walk])
    wide = {
        op.index: max(len(labels[op.index]) + len(str(numbers.get(op.index, ""))) + 4, 13)
        for op in kept
    }
    steps = [(points[op.index], f"({numbers[op.index]}) {text}") for op, text in walk]
    at, width = _widths(columns, kept, wide, steps)

    lanes = tuple(sorted({op.process for op in kept}))
    boxes = tuple(
        Box(
            op,
            lanes.index(op.process),
            at[(op.start, 0)],
            width if op.end is None else at[(op.end, 0)],
            labels[op.index],
            numbers.get(op.index, 0),
            at[points[op.index]] if op.index in points else None,
            found.stuck is not None and op.index == found.stuck.index,
        )
        for op in sorted(kept, key=lambda op: op.start)
    )
    places = [at[points[op.index]] for op, _ in walk] + [width]
    full = {op.index: state for op, state in found.best}
    states = tuple(
        State(numbers[op.index], places[n], places[n + 1], text, full[op.index])
        for n, (op, text) in enumerate(walk)
    )
    return Layout(width, lanes, boxes, states, len(everything) - len(kept))


def label(op: Operation, *, keyed: bool = True, most: int = _LABEL) -> str:
    """Return an operation in at most ``most`` characters, such as ``read(x) -> 3``.

    Args:
        op: The operation.
        keyed: Whether to name its key; the picture of one object does not repeat it.
        most: Longest text; the middle of a longer one is left out.
    """
    inside = [show(op.key, most)] if keyed and op.key is not None else []
    done = op.output if op.f == "txn" and op.output is not None else op.value
    if done is not None:
        inside.append(_argument(op.f, done, full=most > _LABEL))
    call = op.f + (f"({', '.join(inside)})" if inside else "")
    if op.kind == "info":
        call += " -> ?"
    elif op.f == "cas":
        call += " -> not equal" if op.output is False else ""
    elif op.result is not None:
        call += f" -> {show(op.result, most)}"
    elif (
        op.f != "txn"
        and not _is_transfer(op.value)
        and (op.value is None or (op.output is not None and op.output != op.value))
    ):
        call += f" -> {show(op.output, _VALUE)}"
    return middle(printable(call), most)


def show_state(state: str) -> str:
    """Return a state short enough for the band below the lanes."""
    return middle(printable(state), _STATE)


def has_keys(operations: Iterable[Operation]) -> bool:
    """Return whether operations differ in their keys, so that each must name its own."""
    return len({show(op.key) for op in operations}) > 1


def _argument(f: str, value: Any, *, full: bool) -> str:
    """Return an argument; the parts of a transfer, a ``cas`` or a transaction by themselves."""
    if _is_transfer(value):
        text = f"{value['from']} to {value['to']}, {show(value['amount'])}"
        return text + (f", id {show(value['id'])}" if full and "id" in value else "")
    if f == "cas" and isinstance(value, list | tuple) and len(value) == 2:
        return f"{show(value[0])}, {show(value[1])}"
    if f == "txn" and isinstance(value, list | tuple):
        steps = [step for step in value if isinstance(step, list | tuple) and step]
        return "; ".join(" ".join([str(step[0]), *map(show, step[1:])]) for step in steps)
    return show(value, _VALUE)


def _is_transfer(value: Any) -> bool:
    return isinstance(value, Mapping) and {"from", "to", "amount"} <= value.keys()


def printable(text: str) -> str:
    """Return ``text`` with what moves a cursor or cannot be shown as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def middle(text: str, most: int) -> str:
    """Return at most ``most`` characters: the end tells as much as the beginning."""
    if len(text) <= most:
        return text
    tail = (most - 2) // 3
    return f"{text[: most - 2 - tail]}..{text[len(text) - tail :]}"


def _nearest(
    operations: Iterable[Operation], stuck: Operation | None, most: int
) -> list[Operation]:
    """Return at most ``most``: those nearest to the stuck one, or else the last."""
    found = sorted(operations, key=lambda op: op.start)
    if len(found) <= most:
        return found
    focus = stuck or found[-1]

    def distance(op: Operation) -> tuple[int, int]:
        before = 0 if op.end is None else max(0, focus.start - op.end)
        after = 0 if focus.end is None else max(0, op.start - focus.end)
        return before + after, -op.start

    near = sorted(found, key=distance)[:most]
    return sorted(near, key=lambda op: op.start)


Column = tuple[int, int]
"""Position of an event and 0, or of the event before a point and the point's number from 1."""


def _columns(
    kept: Sequence[Operation], walk: Sequence[Operation]
) -> tuple[list[Column], dict[int, Column]]:
    """Return all columns in order, and that of each point by the operation's index.

    A point lies after the invocation of its operation and after the point before it.
    """
    columns = {(op.start, 0) for op in kept}
    columns |= {(op.end, 0) for op in kept if op.end is not None}
    points: dict[int, Column] = {}
    bucket = -1
    for n, op in enumerate(walk, 1):
        bucket = max(bucket, op.start)
        points[op.index] = (bucket, n)
    return sorted(columns | set(points.values())), points


def _widths(
    columns: Sequence[Column],
    kept: Sequence[Operation],
    wide: Mapping[int, int],
    walk: Sequence[tuple[Column, str]],
) -> tuple[dict[Column, int], int]:
    """Return the place of each column and the width: the least that every label fits."""
    ends: dict[Column, list[Operation]] = {}
    for op in kept:
        if op.end is not None:
            ends.setdefault((op.end, 0), []).append(op)
    before: dict[Column, tuple[Column, str]] = {
        column: walk[n] for n, (column, _) in enumerate(walk[1:])
    }
    at: dict[Column, int] = {}
    x = 0
    for n, column in enumerate(columns):
        x = x + (2 if column[1] or columns[n - 1][1] else 1) if n else 0
        for op in ends.get(column, ()):
            x = max(x, at[(op.start, 0)] + wide[op.index])
        if column in before:
            previous, state = before[column]
            x = max(x, at[previous] + len(state) + 1)
        at[column] = x
    width = x + 2
    for op in kept:
        if op.end is None:
            width = max(width, at[(op.start, 0)] + wide[op.index] + 2)
    if walk:
        width = max(width, at[walk[-1][0]] + len(walk[-1][1]) + 1)
    return at, width
