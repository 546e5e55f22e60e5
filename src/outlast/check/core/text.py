"""A counter-example drawn with characters, for terminals and logs. ASCII only but for values."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from outlast.check.core.drawing import (
    NO_PLACE,
    Layout,
    has_keys,
    label,
    lay_out,
    middle,
    printable,
)

if TYPE_CHECKING:
    from outlast.check.core.operation import Operation
    from outlast.check.core.result import CounterExample

_WIDTH = 96
_MOST = 24
"""Operations drawn and listed, at most: what fits a screen or two."""


def text(found: "CounterExample", *, width: int = _WIDTH) -> str:
    """Return a counter-example for a terminal: lanes, states, the order, and why.

    Args:
        found: What to draw.
        width: Columns of the terminal; lanes that are longer go on below. At least 40.
    """
    plan = lay_out(found, _MOST)
    names = [f"process {lane}" for lane in plan.lanes]
    rows = [_lane(plan, n) for n in range(len(plan.lanes))]
    if plan.states:
        names.append("state")
        rows.append(_states(plan))
    gutter = max(map(len, names), default=0) + 2
    lines: list[str] = []
    for start, end in _pages(plan, max(40, width) - gutter):
        if lines:
            lines.append("")
        pieces = [row[start:end].rstrip() for row in rows]
        lines += [
            f"{name:<{gutter}}{piece}"
            for name, piece in zip(names, pieces, strict=True)
            if piece.strip() or not start
        ]
    lines.append("")
    if plan.left_out:
        lines.append(f"{plan.left_out} operations farther away are not drawn")
    lines += [*_legend(plan), *_order(found, plan)]
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def _lane(plan: Layout, lane: int) -> str:
    row = [" "] * (plan.width + 1)
    for box in plan.boxes:
        if box.lane == lane:
            size = box.right - box.left + 1
            line = f"[{box.mark}{' ' if box.mark else ''}{box.label}"
            if box.open:
                line += "  " + ". " * size
            else:
                line += " " * (len(line) < size - 1)
                line = f"{line:{'=' if box.stuck else '-'}<{size - 1}}]"
            row[box.left : box.right + 1] = line[:size]
    return "".join(row)


def _states(plan: Layout) -> str:
    row = [" "] * (plan.width + 1)
    for state in plan.states:
        written = f"({state.number}) {state.text}"[: state.right - state.left]
        row[state.left : state.left + len(written)] = written
    return "".join(row)


def _pages(plan: Layout, width: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of columns of at most ``width``, cut where no label is cut if possible."""
    labels = [(b.left, b.left + len(b.label) + len(b.mark) + 3) for b in plan.boxes]
    labels += [(s.left, s.left + len(s.text) + 5) for s in plan.states]
    start = 0
    while plan.width + 1 - start > width:
        best = (len(labels) + 1, 0)
        for end in range(start + width, start + width // 3, -1):
            cut = sum(left < end < right for left, right in labels)
            best = min(best, (cut, -end))
            if not cut:
                break
        yield start, -best[1]
        start = -best[1]
    yield start, plan.width + 1


def _legend(plan: Layout) -> Iterator[str]:
    if any(box.open for box in plan.boxes):
        yield ". . .  never answered: may take effect later, or never"
    if plan.states:
        yield "(1)    place in a longest order that works, and the state after it"
    if any(box.stuck for box in plan.boxes):
        yield f"{NO_PLACE}      has no place in any order"


def _order(found: "CounterExample", plan: Layout) -> Iterator[str]:
    """Yield the longest order with its states, what has no place in it, and why."""
    keyed = has_keys([box.operation for box in plan.boxes])

    def row(mark: str, op: "Operation", state: str) -> tuple[str, str, str, str]:
        return mark, f"process {op.process}", label(op, keyed=keyed, most=48), state

    rows = [
        row(f"({n})", op, middle(printable(state), 60))
        for n, (op, state) in enumerate(found.best, 1)
    ]
    earlier = max(0, len(rows) - _MOST)
    rows = rows[earlier:]
    if found.stuck is not None:
        rows.append(row(NO_PLACE, found.stuck, ""))
    if rows:
        yield ""
    if earlier:
        yield f"({earlier} operations come before these)"
    sizes = [max(len(row[n]) for row in rows) for n in range(3)] if rows else []
    for *cells, state in rows:
        yield "  ".join(cell.ljust(size) for cell, size in zip(cells, sizes, strict=True)) + (
            f"  {state}"
        )
    if found.reason:
        yield ""
        yield printable(found.reason)
