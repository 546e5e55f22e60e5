"""A counter-example as a picture: the layout of :mod:`.drawing`, scaled and drawn as SVG.

The picture carries its own style sheet, with colours for light and dark as custom properties, so
that it is the same as a file of its own and inside a page. What matters is never said by colour
alone: the operation without a place has a second frame and the words, one that was never answered
has a dashed frame that stays open, and the order is numbers.
"""

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from outlast.check.core import svg as draw
from outlast.check.core.drawing import Box, Layout, lay_out
from outlast.check.core.result import describe

if TYPE_CHECKING:
    from outlast.check.core.result import CounterExample

_CELL = 8.0
"""Pixels of one character of the layout."""

_LANE, _BOX = 52.0, 42.0
_MARGIN = 14.0
_STATE = 30.0
_ROW = 19.0
_NARROWEST = 332.0

STYLE = """
.ol-ce{--ol-bg:#ffffff;--ol-ink:#1b2230;--ol-soft:#5a6475;--ol-lane:#f3f5f8;--ol-rule:#cfd6e0;
--ol-box:#e4edfa;--ol-edge:#2f64a8;--ol-bad:#b0201a;--ol-bad-box:#fdeae8;--ol-open:#fbf3dc;
--ol-open-edge:#8a6410;--ol-on:#ffffff;background:var(--ol-bg);
font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px}
@media (prefers-color-scheme:dark){.ol-ce{--ol-bg:#12161d;--ol-ink:#e6eaf1;--ol-soft:#9aa5b6;
--ol-lane:#191f29;--ol-rule:#3a4454;--ol-box:#1c3150;--ol-edge:#7fb0f0;--ol-bad:#ff8a80;
--ol-bad-box:#43201f;--ol-open:#3a3118;--ol-open-edge:#e0b860;--ol-on:#12161d}}
.ol-ce text{fill:var(--ol-ink)}
.ol-ce .ol-soft{fill:var(--ol-soft)}
.ol-ce .ol-end{text-anchor:end}
.ol-ce .ol-head{font-weight:700;font-size:14px}
.ol-ce .ol-back{fill:var(--ol-bg)}
.ol-ce .ol-lane{fill:var(--ol-lane)}
.ol-ce .ol-thread{stroke:var(--ol-edge);stroke-width:1;stroke-dasharray:1 3;fill:none}
.ol-ce .ol-box{fill:var(--ol-box);stroke:var(--ol-edge);stroke-width:1.4}
.ol-ce .ol-late .ol-box{fill:var(--ol-lane);stroke:var(--ol-soft)}
.ol-ce .ol-open .ol-box{fill:var(--ol-open);stroke:none}
.ol-ce .ol-open .ol-frame{fill:none;stroke:var(--ol-open-edge);stroke-width:1.4;
stroke-dasharray:5 4}
.ol-ce .ol-stuck .ol-box{fill:var(--ol-bad-box);stroke:var(--ol-bad);stroke-width:2}
.ol-ce .ol-stuck .ol-inner{fill:none;stroke:var(--ol-bad);stroke-width:1}
.ol-ce .ol-stuck text{fill:var(--ol-bad);font-weight:700}
.ol-ce .ol-cross{fill:none;stroke:var(--ol-bad);stroke-width:2.2;stroke-linecap:round}
.ol-ce .ol-point{fill:var(--ol-edge)}
.ol-ce .ol-number{fill:var(--ol-on);text-anchor:middle;font-size:11px;font-weight:700}
.ol-ce .ol-state{fill:none;stroke:var(--ol-rule);stroke-width:1}
""".strip()


def svg(found: "CounterExample", *, caption: bool = True) -> str:
    """Return a counter-example as SVG: a file of its own, and as good inside a page.

    At most 60 operations are drawn; how many are not is said below the lanes.

    Args:
        found: What to draw.
        caption: Whether the picture holds its title, its reason and its legend. A page that says
            them itself leaves them out.
    """
    return draw.markup(figure(found, caption=caption))


def figure(found: "CounterExample", *, caption: bool = True) -> Element:
    """Return the picture as a tree, to be put into a page."""
    plan = lay_out(found)
    gutter = _CELL * max((len(f"process {lane}") for lane in plan.lanes), default=0) + 12
    wide = max(_MARGIN * 2 + gutter + plan.width * _CELL, _NARROWEST)
    head = [("ol-head", title(found))] if caption else []
    foot = [("", found.reason)] if caption and found.reason else []
    if caption:
        foot += [("ol-soft", said) for said in legend(plan)]
    chars = int((wide - 2 * _MARGIN) / _CELL)
    above = [(cls, row) for cls, said in head for row in wrapped(said, chars)]
    below = [(cls, row) for cls, said in foot for row in wrapped(said, chars)]

    top = _MARGIN + len(above) * _ROW + (8 if above else 0)
    bottom = top + len(plan.lanes) * _LANE
    feet = bottom + (_STATE + 8 if plan.states else 0)
    high = feet + (len(below) * _ROW + 10 if below else 0) + _MARGIN / 2
    root = draw.picture(wide, high, label=announced(found, plan), cls="ol-ce")
    draw.style(root, STYLE)
    draw.rect(root, (0, 0, wide, high), "ol-back", rx=6)
    for n, (cls, row) in enumerate(above):
        draw.text(root, _MARGIN, _MARGIN + 12 + n * _ROW, row, cls)
    left = _MARGIN + gutter
    _draw_lanes(root, plan, left, top, wide)
    _draw_order(root, plan, left, top, bottom)
    for box in plan.boxes:
        _draw_box(root, box, left, top)
    for n, (cls, row) in enumerate(below):
        draw.text(root, _MARGIN, feet + 22 + n * _ROW, row, cls)
    return root


def title(found: "CounterExample") -> str:
    """Return what the picture shows, in one line."""
    of = "" if found.key is None else f" on {draw.shorten(str(found.key), 40)}"
    many = len(found.operations)
    these = "this operation" if many == 1 else f"these {many} operations"
    return f"{found.model}{of}: no order explains {these}"


def announced(found: "CounterExample", plan: Layout) -> str:
    """Return what a screen reader says of the picture."""
    stuck = "" if found.stuck is None else f" {describe(found.stuck)} has no place."
    return (
        f"{title(found)}, of {len(plan.lanes)} processes.{stuck} {draw.shorten(found.reason, 300)}"
    )


def legend(plan: Layout) -> list[str]:
    """Return what the signs mean, and only those that the picture has."""
    said = []
    if plan.states:
        said.append("Numbers: a longest order that works. Below: the state after each step.")
    if any(box.stuck for box in plan.boxes):
        said.append("Double frame: has no place in any order.")
    if any(box.open for box in plan.boxes):
        said.append("Dashed, open: never answered; may take effect later, or never.")
    said.append("Time runs to the right, not to scale.")
    if plan.left_out:
        said.append(f"{plan.left_out} operations farther away are not drawn.")
    return said


def wrapped(words: str, most: int) -> list[str]:
    """Return text in lines of at most ``most`` characters; a longer word is cut."""
    rows: list[str] = []
    row = ""
    pieces = (
        whole[at : at + most] for whole in words.split() for at in range(0, len(whole), most)
    )
    for word in pieces:
        if row and len(row) + 1 + len(word) > most:
            rows.append(row)
            row = word
        else:
            row = f"{row} {word}".strip()
    return [*rows, row] if row else rows


# --- parts -------------------------------------------------------------------------------------


def _draw_lanes(root: Element, plan: Layout, left: float, top: float, wide: float) -> None:
    for n, lane in enumerate(plan.lanes):
        y = top + n * _LANE
        draw.rect(root, (left - 6, y + 2, wide - left - 2, _LANE - 4), "ol-lane", rx=4)
        draw.text(root, _MARGIN, y + _LANE / 2 + 4, f"process {lane}", "ol-soft")


def _draw_order(root: Element, plan: Layout, left: float, top: float, bottom: float) -> None:
    """Draw the states below the lanes, and a thread from each to its point."""
    if not plan.states:
        return
    draw.text(root, _MARGIN, bottom + 20, "state", "ol-soft")
    lanes = {box.number: box.lane for box in plan.boxes if box.number}
    for state in plan.states:
        x, end = left + state.left * _CELL, left + state.right * _CELL
        point = top + lanes[state.number] * _LANE + 36
        draw.line(root, (x, point), (x, bottom + 8), "ol-thread")
        cell = draw.group(root, title=f"after step {state.number}: {state.full}")
        draw.rect(cell, (x - 12, bottom + 4, end - x - 4, 24), "ol-state", rx=12)
        draw.circle(cell, x, bottom + 16, 9, "ol-point")
        draw.text(cell, x, bottom + 20, state.number, "ol-number")
        draw.text(cell, x + 14, bottom + 20.5, state.text)


def _draw_box(root: Element, box: Box, left: float, top: float) -> None:
    x = left + box.left * _CELL
    y = top + box.lane * _LANE + (_LANE - _BOX) / 2
    width = (box.right - box.left) * _CELL
    placed = bool(box.number) or box.stuck or box.open
    cls = "ol-stuck" if box.stuck else ("ol-open" if box.open else "")
    part = draw.group(root, cls or ("" if placed else "ol-late"), title=tooltip(box))
    draw.rect(part, (x, y, width, _BOX), "ol-box", rx=0 if box.open else 4)
    if box.open:
        corners = [(x + width, y), (x, y), (x, y + _BOX), (x + width, y + _BOX)]
        draw.path(part, corners, "ol-frame")
    draw.text(part, x + 9, y + 16, box.label)
    if box.stuck:
        draw.rect(part, (x + 3, y + 3, width - 6, _BOX - 6), "ol-inner", rx=2)
        draw.path(part, [(x + 10, y + 25), (x + 18, y + 33)], "ol-cross")
        draw.path(part, [(x + 18, y + 25), (x + 10, y + 33)], "ol-cross")
        draw.text(part, x + 24, y + 33.5, "no place")
    elif box.point is not None:
        at = left + box.point * _CELL
        draw.circle(part, at, y + 29, 9, "ol-point")
        draw.text(part, at, y + 33, box.number, "ol-number")
    elif not box.open:
        draw.text(part, x + 9, y + 33.5, "not reached", "ol-soft")


def tooltip(box: Box) -> str:
    """Return all that is known of an operation, for the pointer that rests on it."""
    op = box.operation
    lines = [describe(op), f"process {op.process}"]
    end = "never answered" if op.end is None else f"answered at event {op.end}"
    lines.append(f"invoked at event {op.start}, {end}")
    if box.stuck:
        lines.append("has no place in any order")
    elif box.number:
        lines.append(f"step {box.number} of a longest order that works")
    return "\n".join(lines)
