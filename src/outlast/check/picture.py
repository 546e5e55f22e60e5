"""A counter-example to look at: a picture as SVG, and a page around it that needs nothing else."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, tostring

from outlast.check.core.drawing import has_keys, label, lay_out
from outlast.check.core.lanes import figure, legend, svg, title
from outlast.check.core.svg import clean

if TYPE_CHECKING:
    from outlast.check.core.result import CounterExample, Result

__all__ = ["html", "svg"]

_ROWS_MAX = 200
"""Rows of a table, at most; the last ones are kept, where the contradiction is."""

_STYLE = """
:root{--bg:#ffffff;--ink:#1b2230;--soft:#5a6475;--rule:#dde2ea;--bad:#b0201a;--good:#1c6b3a;
--doubt:#8a6410;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--bg:#12161d;--ink:#e6eaf1;--soft:#9aa5b6;--rule:#2c3442;
--bad:#ff8a80;--good:#7fd6a0;--doubt:#e0b860}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1rem 4rem;max-width:62rem;background:var(--bg);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:clamp(1.3rem,5vw,1.7rem);line-height:1.25;margin:0 0 .4rem}
h2{font-size:1.1rem;margin:2.2rem 0 .6rem}
p{margin:.4rem 0}
.word{display:inline-block;padding:.05em .5em;margin-right:.35em;border:2px solid;
border-radius:.3em}
.invalid .word{color:var(--bad)}
.valid .word{color:var(--good)}
.unknown .word{color:var(--doubt)}
.why{font-size:1.1rem}
.soft,dt,th,figcaption{color:var(--soft)}
dl{display:flex;flex-wrap:wrap;gap:.4rem 2rem;margin:1.2rem 0 0;padding:.8rem 0;
border:solid var(--rule);border-width:1px 0}
dt{font-size:.82rem}
dd{margin:0;font-variant-numeric:tabular-nums}
figure{margin:0}
.scroll{overflow-x:auto;border:1px solid var(--rule);border-radius:6px}
.wide{overflow-x:auto}
.scroll svg{display:block}
figcaption{font-size:.88rem;margin-top:.5rem}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th{text-align:left;font-weight:600;font-size:.82rem}
th,td{padding:.32rem .9rem .32rem .3rem;border-bottom:1px solid var(--rule);vertical-align:top}
td.number,th.number{text-align:right;width:1%;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.stuck td{color:var(--bad);font-weight:650}
code,pre,td.code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",
monospace;font-size:.86rem}
td.code{overflow-wrap:anywhere;min-width:9rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;padding:.7rem .9rem;margin:0;
border:1px solid var(--rule);border-radius:6px}
@media (max-width:48rem){.scroll{direction:rtl}.scroll svg{direction:ltr;margin-right:auto}}
@media print{body{max-width:none;padding:0}.scroll{overflow:visible}}
""".strip()


def html(result: "Result", *, name: str = "history", command: str = "") -> str:
    """Return one page about a verdict: in words, drawn, and as tables.

    It needs no other file and no network, follows the reader's light or dark setting, and is
    readable at the width of a phone.

    Args:
        result: What :func:`outlast.check.check` said. Without a counter-example the page says
            the verdict and has no picture.
        name: What the history is called.
        command: How to judge it again; left out when empty.
    """
    root = Element("html", {"lang": "en"})
    head = SubElement(root, "head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(
        head, "meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": policy})
    _add(head, "title", f"{result.verdict}: {name}")
    _add(head, "style", _STYLE)
    body = SubElement(root, "body")
    main = SubElement(body, "main", {"class": result.verdict})
    _verdict(main, result, name)
    found = result.counterexample
    if found is not None:
        _figure(main, found)
        _order(main, found)
        _operations(main, found)
    if command:
        _add(main, "h2", "Judge it again")
        _add(main, "pre", command)
    return "<!doctype html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def _add(parent: Element, tag: str, words: object = "", cls: str = "") -> Element:
    made = SubElement(parent, tag, {"class": cls} if cls else {})
    made.text = clean(words)
    return made


_SENTENCES = {
    "valid": "Some order explains every answer.",
    "invalid": "No order explains these answers.",
    "unknown": "A limit was reached before anything was shown.",
}


def _verdict(main: Element, result: "Result", name: str) -> None:
    heading = SubElement(main, "h1")
    word = _add(heading, "span", result.verdict, "word")
    word.tail = " " + _SENTENCES[result.verdict]
    found = result.counterexample
    why = result.why or (found.reason if found is not None else "")
    if why:
        _add(main, "p", why, "why")
    if found is not None and found.reason and found.reason not in why:
        _add(main, "p", found.reason)
    facts = [("history", name), ("model", result.model), ("judged", result.how)]
    facts += [(kind, f"{count:,}") for kind, count in result.counts.items()]
    facts += [("objects", f"{result.parts:,}"), ("took", f"{result.seconds:.2f} s")]
    listed = SubElement(main, "dl")
    for term, fact in facts:
        if fact:
            pair = SubElement(listed, "div")
            _add(pair, "dt", term)
            _add(pair, "dd", fact)


def _figure(main: Element, found: "CounterExample") -> None:
    _add(main, "h2", title(found))
    frame = SubElement(main, "figure")
    scroll = SubElement(frame, "div", {"class": "scroll", "tabindex": "0", "role": "group"})
    scroll.set("aria-label", "Lane diagram; scrolls sideways")
    scroll.append(figure(found, caption=False))
    _add(frame, "figcaption", " ".join(legend(lay_out(found))))


def _order(main: Element, found: "CounterExample") -> None:
    """Add the longest order with its states, and below it what has no place."""
    if not found.best:
        return
    keyed = has_keys(found.operations)
    rows: list[_Row] = [
        ("", [number, op.process, label(op, keyed=keyed, most=400), state])
        for number, (op, state) in enumerate(found.best, 1)
    ]
    if found.stuck is not None:
        what = label(found.stuck, keyed=keyed, most=400)
        rows.append(("stuck", ["✗", found.stuck.process, what, "has no place in any order"]))
    _add(main, "h2", "A longest order that works")
    _table(main, ["#step", "#process", "operation", "then"], rows)


def _operations(main: Element, found: "CounterExample") -> None:
    keyed = has_keys(found.operations)
    timed = any(op.start_ns or op.end_ns for op in found.operations)
    zero = min((op.start_ns for op in found.operations), default=0)
    columns = ["#process", "operation", "#from event", "#to event"]
    rows: list[_Row] = []
    for op in found.operations:
        end = "never" if op.end is None else op.end
        cells: list[object] = [op.process, label(op, keyed=keyed, most=400), op.start, end]
        if timed:
            cells += [_ms(op.start_ns, zero), "" if op.end is None else _ms(op.end_ns, zero)]
        stuck = found.stuck is not None and op.index == found.stuck.index
        rows.append(("stuck" if stuck else "", cells))
    _add(main, "h2", "The operations")
    _table(main, columns + ["#from ms", "#to ms"] * timed, rows)


def _ms(ns: int | None, zero: int) -> str:
    return "" if ns is None else f"{(ns - zero) / 1e6:,.3f}"


_Row = tuple[str, Sequence[object]]
"""Class of a row, and its cells."""


def _table(main: Element, columns: Sequence[str], rows: Sequence[_Row]) -> None:
    """Add a table; columns that begin with ``#`` hold numbers."""
    scroll = SubElement(main, "div", {"class": "wide"})
    table = SubElement(scroll, "table")
    head = SubElement(SubElement(table, "thead"), "tr")
    numbers = [name.startswith("#") for name in columns]
    for name, number in zip(columns, numbers, strict=True):
        _add(head, "th", name.lstrip("#"), "number" if number else "").set("scope", "col")
    body = SubElement(table, "tbody")
    if len(rows) > _ROWS_MAX:
        before = f"{len(rows) - _ROWS_MAX:,} rows before these are left out"
        cell = _add(SubElement(body, "tr"), "td", before, "soft")
        cell.set("colspan", str(len(columns)))
    for cls, cells in rows[-_ROWS_MAX:]:
        row = SubElement(body, "tr", {"class": cls} if cls else {})
        for words, number in zip(cells, numbers, strict=True):
            _add(row, "td", words, "number" if number else "code")
