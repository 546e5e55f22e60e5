"""The picture of a counter-example: what must be seen, and what no history may do to it."""

import random
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from outlast.check.core.drawing import OPERATIONS_MAX, label, lay_out
from outlast.check.core.operation import Operation
from outlast.check.core.result import CounterExample, Result
from outlast.check.core.svg import clean, linear, logarithmic, number, shorten, ticks
from outlast.check.core.text import text
from outlast.check.picture import html, svg

SVG = "{http://www.w3.org/2000/svg}"


def op(index, process, f, value, output, start, end, key="x", **more):
    kind = "info" if end is None else "ok"
    return Operation(index, process, f, key, value, output, kind, start, end, **more)


W1 = op(0, 0, "write", 1, 1, 0, 3)
W2 = op(1, 1, "write", 2, 2, 1, 6)
R2 = op(2, 2, "read", None, 2, 4, 5)
R1 = op(3, 0, "read", None, 1, 7, 8)
W7 = op(4, 3, "write", 7, None, 2, None)
CAS = op(5, 2, "cas", [2, 3], False, 9, 10)
STALE = CounterExample(
    "register",
    "x",
    (W1, W2, W7, R2, R1, CAS),
    R1,
    'read("x") -> 1 by process 0 has no place: 2 was read before it began',
    ((W1, "1"), (W2, "2"), (R2, "2")),
)
RESULT = Result("invalid", "register", {"ok": 5, "fail": 0, "info": 1}, 1, counterexample=STALE)


def drawn(found: CounterExample) -> ElementTree.Element:
    return ElementTree.fromstring(svg(found))  # noqa: S314 - ours


def classes(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [part for part in root.iter() if name in part.get("class", "").split()]


def words(root: ElementTree.Element) -> str:
    return "\n".join(part.text or "" for part in root.iter(f"{SVG}text"))


def example(seed: int, many: int = 12) -> CounterExample:
    """Return a made-up example whose order respects real time, as a judge's does."""
    draw = random.Random(seed)
    count = draw.randint(1, many)
    open_since: dict[int, tuple[int, int]] = {}
    ops: list[Operation] = []
    crashed: set[int] = set()
    position = 0
    while len(ops) < count:
        position += draw.randint(1, 3)
        process = draw.randrange(6)
        if process in crashed:
            process = 6 + len(crashed)
        if process not in open_since:
            open_since[process] = (position, draw.randint(-5, 10 ** draw.randint(1, 12)))
            continue
        start, value = open_since.pop(process)
        kind = draw.choice(["read", "write", "cas", "txn", "info"])
        key = draw.choice(["x", "y"]) if seed % 3 else "x"
        index = len(ops)
        if kind == "info":
            crashed.add(process)
            ops.append(op(index, process, "write", value, None, start, None, key))
        elif kind == "read":
            ops.append(op(index, process, "read", None, value, start, position, key))
        elif kind == "cas":
            ops.append(op(index, process, "cas", [1, value], True, start, position, key))
        elif kind == "txn":
            steps = [["append", "k", value], ["r", "k", [value] * draw.randint(0, 9)]]
            ops.append(op(index, process, "txn", steps, steps, start, position, None))
        else:
            ops.append(op(index, process, "write", value, value, start, position, key))
    ops.sort(key=lambda one: one.start)
    placed = sorted(ops, key=lambda one: one.end or 10**9)[: draw.randint(0, count)]
    stuck = draw.choice([None, *ops])
    best = tuple((one, f"state {'s' * draw.randint(0, 40)}") for one in placed if one != stuck)
    return CounterExample("register", "x", tuple(ops), stuck, "because", best)


def test_the_picture_is_a_file_of_its_own_and_is_announced_as_one_image():
    root = drawn(STALE)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert 'read("x") -> 1 has no place' in root.get("aria-label", "")
    assert "prefers-color-scheme:dark" in "".join(root.itertext())


def test_each_operation_is_a_box_with_its_call_and_its_answer():
    root = drawn(STALE)
    assert len(classes(root, "ol-box")) == len(STALE.operations)
    for said in ("write(1)", "read -> 2", "read -> 1", "write(7) -> ?", "cas(2, 3) -> not equal"):
        assert said in words(root)


def test_the_operation_without_a_place_is_told_by_shape_and_word():
    (stuck,) = classes(drawn(STALE), "ol-stuck")
    assert "no place" in words(stuck)
    assert len(list(stuck.iter(f"{SVG}rect"))) == 2
    assert classes(stuck, "ol-cross")


def test_one_that_was_never_answered_stays_open_to_the_right():
    root = drawn(STALE)
    (unanswered,) = classes(root, "ol-open")
    (frame,) = classes(unanswered, "ol-frame")
    assert "Z" not in frame.get("d", "Z")
    assert "stroke-dasharray" in "".join(root.itertext())
    (box,) = [box for box in lay_out(STALE).boxes if box.open]
    assert box.right == lay_out(STALE).width


def test_the_pointer_finds_everything_in_tooltips():
    titles = [title.text or "" for title in drawn(STALE).iter(f"{SVG}title")]
    assert any('read("x") -> 1' in said and "has no place in any order" in said for said in titles)
    assert any("after step 2: 2" in said for said in titles)


@pytest.mark.parametrize("seed", range(200))
def test_every_label_fits_its_box_and_every_point_lies_in_its_box(seed):
    found = example(seed)
    plan = lay_out(found)
    for box in plan.boxes:
        assert len(box.label) + len(box.mark) + 2 <= box.right - box.left, f"seed {seed}"
        if box.point is not None:
            assert box.left < box.point < box.right or box.open, f"seed {seed}"
    for state, following in zip(plan.states, plan.states[1:], strict=False):
        assert state.left + len(f"({state.number}) {state.text}") < following.left, f"seed {seed}"
    taken: dict[int, int] = {}
    for box in plan.boxes:
        assert taken.get(box.lane, -1) < box.left, f"seed {seed}: boxes of a lane overlap"
        taken[box.lane] = box.right


@pytest.mark.parametrize("seed", range(50))
def test_columns_keep_the_order_of_events(seed):
    plan = lay_out(example(seed))
    events = sorted(
        [(box.operation.start, box.left) for box in plan.boxes]
        + [(box.operation.end, box.right) for box in plan.boxes if box.operation.end is not None]
    )
    columns = [column for _, column in events]
    assert columns == sorted(set(columns)), f"seed {seed}"


@pytest.mark.parametrize("seed", range(50))
def test_the_text_keeps_within_its_width_and_shows_each_operation(seed):
    found = example(seed)
    said = text(found, width=80)
    lanes = said.split("\n\n(1) ")[0]
    assert all(
        len(line) <= 80 for line in lanes.splitlines() if line[:7] in {"process", "state  "}
    )
    assert said.endswith("because"), f"seed {seed}"
    whole = text(found, width=10_000)
    for box in lay_out(found, 24).boxes:
        mark = f"{box.mark} " if box.mark else ""
        closed = "" if box.open else r" ?[-=]*\]"
        assert re.search(re.escape(f"[{mark}{box.label}") + closed, whole), f"seed {seed}: {box}"


def test_the_text_shows_lanes_states_order_and_reason():
    assert text(STALE) == (
        "process 0  [(1) write(1)]                [! read -> 1 ]\n"
        "process 1      [(2) write(2) -----------]\n"
        "process 2                [(3) read -> 2]               [cas(2, 3) -> not equal --]\n"
        "process 3            [write(7) -> ?  . . . . . . . . . . . . . . . . . . . . . . . .\n"
        "state        (1) 1 (2) 2   (3) 2\n"
        "\n"
        ". . .  never answered: may take effect later, or never\n"
        "(1)    place in a longest order that works, and the state after it\n"
        "!      has no place in any order\n"
        "\n"
        "(1)  process 0  write(1)   1\n"
        "(2)  process 1  write(2)   2\n"
        "(3)  process 2  read -> 2  2\n"
        "!    process 0  read -> 1\n"
        "\n"
        'read("x") -> 1 by process 0 has no place: 2 was read before it began'
    )


def test_more_than_sixty_operations_are_cut_to_the_nearest_and_the_rest_counted():
    ops = tuple(op(n, n % 4, "write", n, n, 2 * n, 2 * n + 1) for n in range(100))
    found = CounterExample("register", "x", ops, ops[50], "too many", ())
    plan = lay_out(found)
    assert (len(plan.boxes), plan.left_out) == (OPERATIONS_MAX, 100 - OPERATIONS_MAX)
    drawn_ones = {box.operation.index for box in plan.boxes}
    assert set(range(30, 71)) <= drawn_ones, "those around the stuck one are drawn"
    assert "40 operations farther away are not drawn" in words(drawn(found))
    assert "operations farther away are not drawn" in text(found)


PAGE_TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "span", "dl", "div",
    "dt", "dd", "figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td", "pre", "svg",
    "g", "rect", "text", "line", "circle", "path",
}  # fmt: skip


def tags(page: str) -> set[str]:
    found: set[str] = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.add(tag)  # type: ignore[method-assign]
    parser.feed(page)
    return found


HOSTILE = [
    "<script>alert(1)</script>", "</svg><b>", "]]>", "&amp;", '"\'', "\x00\x1b[31m\x07", "\ud800",
    "\ufffe", "line\nbreak", "a" * 5000, "\u202etxet", "{{7*7}}", "<style>*{}</style>",
]  # fmt: skip


@pytest.mark.parametrize("bad", HOSTILE)
def test_a_hostile_history_is_text_in_the_picture_and_on_the_page(bad):
    write = op(0, 0, bad, bad, bad, 0, 3, bad)
    read = op(1, 1, "read", None, {bad: [bad]}, 4, 5, bad)
    found = CounterExample(bad, bad, (write, read), read, bad, ((write, bad),))
    root = drawn(found)
    assert {part.tag.removeprefix(SVG) for part in root.iter()} <= {
        "svg", "style", "rect", "text", "g", "title", "line", "circle", "path"
    }  # fmt: skip
    page = html(Result("invalid", bad, {"ok": 2}, 1, bad, bad, 0.1, found), name=bad, command=bad)
    page.encode("utf-8")
    assert tags(page) <= PAGE_TAGS
    assert page.count("<style>") == 2 or "<style>" in bad
    drawing = text(found)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\ud800-\udfff\u202e]", drawing)


def test_the_page_needs_nothing_from_anywhere():
    page = html(RESULT, name="history.jsonl", command="outlast check history.jsonl")
    assert not re.search(r"\b(?:src|href|url)\b *[=(]", page)
    assert page.replace("http://www.w3.org/2000/svg", "").count("http") == page.count("http-equiv")
    assert "<script" not in page
    assert 'name="viewport"' in page
    assert "prefers-color-scheme:dark" in page


def test_the_page_says_verdict_reason_order_and_how_to_repeat():
    page = html(RESULT, name="history.jsonl", command="outlast check history.jsonl")
    for said in (
        "invalid", "No order explains these answers", STALE.reason, "A longest order that works",
        "has no place in any order", "outlast check history.jsonl", "<svg", 'scope="col"',
    ):  # fmt: skip
        assert said in page.replace("&gt;", ">"), said


@pytest.mark.parametrize("verdict", ["valid", "unknown"])
def test_a_page_without_a_counter_example_says_its_verdict(verdict):
    page = html(Result(verdict, "kv", {"ok": 3}, 1, why="limit of 60 s; raise --seconds"))
    assert verdict in page
    assert "limit of 60 s; raise --seconds" in page
    assert "<svg" not in page


def test_a_long_order_on_the_page_is_cut_and_says_so():
    ops = tuple(op(n, 0, "write", n, n, 2 * n, 2 * n + 1) for n in range(500))
    found = CounterExample("register", "x", ops, None, "", tuple((one, "s") for one in ops))
    page = html(Result("invalid", "register", counterexample=found))
    assert "300 rows before these are left out" in page


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (op(0, 0, "read", None, None, 0, 1), 'read("x") -> null'),
        (op(0, 0, "write", 3, 3, 0, 1), 'write("x", 3)'),
        (op(0, 0, "cas", [1, 2], True, 0, 1), 'cas("x", 1, 2)'),
        (op(0, 0, "enqueue", "a", None, 0, None), 'enqueue("x", "a") -> ?'),
        (op(0, 0, "txn", [["r", 1, None]], [["r", 1, [2]]], 0, 1, None), "txn(r 1 [2])"),
        (
            op(0, 0, "transfer", {"from": "a", "to": "b", "amount": 5, "id": 9}, None, 0, 1, None),
            "transfer(a to b, 5)",
        ),
    ],
)
def test_a_label_is_the_call_and_what_came_of_it(operation, said):
    assert label(operation) == said


def test_a_long_label_keeps_its_beginning_and_its_end():
    said = label(op(0, 0, "read", None, list(range(100)), 0, 1), most=30)
    assert len(said) == 30
    assert said.startswith('read("x") -> [0')
    assert said.endswith("99]")


def test_text_for_xml_loses_only_what_xml_cannot_hold():
    assert clean("a\x00b\ud800<&>é\U0001f600\n") == "a\ufffdb\ufffd<&>é\U0001f600\n"


def test_scales_and_ticks_are_round_and_bounded():
    assert linear(5, 5, 0, 10)(5) == 0
    assert logarithmic(1, 100, 0, 2)(0) == 0
    assert ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 7.3, 4) == [0.0, 2.0, 4.0, 6.0]
    assert ticks(3, 3) == [3]
    assert ticks(0, float("inf")) == [0]
    assert (number(-0.0), shorten("abc", 3), shorten("abcd", 3)) == ("0", "abc", "ab…")
