"""The page of a drill: one HTML file with verdict, charts, tables, and all data in it.

The file needs no network: style, program and pictures are in it, and its security policy lets
nothing else run or load. Whatever stands in the report (names of targets, evidence, words of a
foreign program) is text here and never markup; only the pictures of counter-examples, which our
own judge draws, are taken as they are, if they are plain drawings.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from outlast.check.core.svg import clean
from outlast.drill.core import words
from outlast.drill.core.figures import STATES, run_of
from outlast.drill.core.plots import plots_of
from outlast.drill.report import Report, WorkloadReport
from outlast.kernel import Verdict

State = Literal["good", "bad", "open", "plain"]

_SENTENCES: dict[Verdict, str] = {
    "failed": "What was promised did not hold.",
    "void": "This run proves nothing: not every fault left evidence that it happened.",
    "unknown": "This run decides nothing: what was seen is too little to say that the target "
    "survived, or that it did not.",
}
_JUDGED = {"valid": "survived", "invalid": "failed", "unknown": "unknown"}
_HOLDS = {True: "survived", False: "failed", None: "unknown"}
_PICTURE_TAGS = frozenset(
    (
        *("svg", "g", "defs", "symbol", "use", "marker", "pattern", "clipPath", "style"),
        *("rect", "line", "circle", "ellipse", "path", "polygon", "polyline"),
        *("text", "tspan", "title", "desc"),
    )
)
_REFERS = re.compile(r"@import|url\(\s*['\"]?(?!#)|\\", re.IGNORECASE)
"""In a style: a reference to anything but a part of the same picture, or what may hide one."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure at the top of the page."""

    label: str
    value: str
    note: str = ""
    state: State = "plain"


def page(report: Report) -> str:
    """Return ``report`` as one self-contained HTML page.

    It is deterministic: equal reports give equal pages. Curves are thinned to a bounded number
    of points, so that the size depends on the number of faults and nodes, not of operations.
    """
    environment = _environment()
    program = _part("report.js")
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    text = environment.get_template("report.html.jinja").render(
        report=report,
        sentence=sentence(report),
        facts=facts(report),
        run=run_of(report),
        plots=plots_of(report),
        pictures=[(w, _picture(w)) for w in report.workloads if w.picture or w.drawing],
        states=STATES,
        judged=_JUDGED,
        holds=_HOLDS,
        w=words,
        style=Markup(_part("report.css")),  # noqa: S704 - our own file
        program=Markup(program),  # noqa: S704 - our own file
        digest=digest,
        data=Markup(_data(report)),  # noqa: S704 - escaped there
    )
    return clean(text)  # no half of a character, no control character of a foreign program


def sentence(report: Report) -> str:
    """Return the verdict in one sentence that claims no more than was judged."""
    if report.verdict != "survived":
        return _SENTENCES[report.verdict]
    kept = []
    if report.lost == 0:
        kept.append("nothing that was acknowledged was lost")
    if report.doubled == 0:
        kept.append("nothing took effect twice")
    if report.linearizable:
        kept.append("every history is linearizable")
    if report.invariant:
        kept.append("every invariant held")
    if not kept:
        kept.append("nothing that was promised was broken")
    listed = " and ".join([", ".join(kept[:-1]), kept[-1]] if kept[1:] else kept)
    through = f" through {words.plural(len(report.faults), 'fault')}" if report.faults else ""
    return f"{listed[0].upper()}{listed[1:]}{through}."


def facts(report: Report) -> tuple[Fact, ...]:
    """Return the figures that prove the verdict, or that speak against it."""
    shown = sum(bool(fault.evidence) for fault in report.faults)
    every = len(report.faults)
    counts = report.operations
    total = sum(counts.values())
    info = counts.get("info", 0)
    note = f"{words.count(counts.get('fail', 0))} failed, {words.count(info)} not known"
    gaps = [fault.gap_ms for fault in report.faults if fault.gap_ms is not None]
    back = [fault.recovered_ms for fault in report.faults if fault.recovered_ms is not None]
    return (
        Fact(
            "Faults",
            words.count(every),
            "none was injected"
            if not every
            else "each with evidence"
            if shown == every
            else f"{shown} with evidence",
            "good" if every and shown == every else "open",
        ),
        Fact(
            "Acknowledged",
            words.count(counts.get("ok", 0)),
            note,
            "open" if not counts.get("ok") or info * 5 > total else "plain",
        ),
        _none_of("Lost", report.lost, "acknowledged writes that are not there"),
        _none_of("Applied twice", report.doubled, "writes with more than one effect"),
        _whether("Linearizable", report.linearizable, _histories(report)),
        _whether("Invariants", report.invariant, _invariants(report), yes="hold", no="broken"),
        Fact(
            "Longest gap",
            words.millis(max(gaps, default=None)),
            "without an acknowledged write",
        ),
        Fact(
            "Back after",
            words.millis(max(back, default=None)),
            "at most, once a fault had ended",
        ),
        Fact(
            "Available",
            words.share(report.availability),
            "of seconds had an acknowledged write",
        ),
        Fact("Seed", str(report.seed), "gives the same schedule and load"),
    )


def _none_of(label: str, number: int | None, note: str) -> Fact:
    if number is None:
        return Fact(label, "undecided", note, "open")
    return Fact(label, words.count(number), note, "bad" if number else "good")


def _whether(
    label: str, holds: bool | None, note: str, *, yes: str = "yes", no: str = "no"
) -> Fact:
    if holds is None:
        return Fact(label, "undecided", note, "open")
    return Fact(label, yes if holds else no, note, "good" if holds else "bad")


def _histories(report: Report) -> str:
    if not report.workloads:
        return "no history was judged"
    valid = sum(workload.verdict == "valid" for workload in report.workloads)
    return f"{valid} of {words.plural(len(report.workloads), 'history', 'histories')} valid"


def _invariants(report: Report) -> str:
    names = [invariant.name for invariant in report.invariants]
    if not names:
        return "none was checked"
    return ", ".join(names) if 0 < len(names) <= 2 else words.plural(len(names), "invariant")


# --- parts -----------------------------------------------------------------------------------


def _picture(workload: WorkloadReport) -> Markup | None:
    """Return a counter-example's drawing to stand in the page, if it is nothing but a drawing."""
    text = workload.picture
    if not text.startswith("<svg") or "<!" in text or "<?" in text:
        return None
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - no entities: refused above
    except ElementTree.ParseError:
        return None
    return Markup(text) if all(map(_drawn, root.iter())) else None  # noqa: S704 - looked through


def _drawn(element: ElementTree.Element) -> bool:
    """Whether an element can only draw: it runs nothing and refers to nothing outside."""
    tag = element.tag.rpartition("}")[2]
    if tag not in _PICTURE_TAGS or (tag in ("title", "desc") and len(element)):
        return False
    if tag == "style" and _REFERS.search(element.text or ""):
        return False
    for name, value in element.attrib.items():
        local = name.rpartition("}")[2].lower()
        if local.startswith("on") or (local == "href" and not value.startswith("#")):
            return False
        if local != "aria-label" and _REFERS.search(value):
            return False
    return True


def _data(report: Report) -> str:
    """Return the report's JSON, one line for each of its parts, safe as text of an element."""
    plain = report.as_json()
    for workload in plain.get("workloads", ()):
        workload["picture"] = ""
    lines = (f"{json.dumps(name)}: {_json(value)}" for name, value in plain.items())
    text = "{" + ",\n ".join(lines) + "}"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    """Return ``value`` without the floats that JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("outlast.drill", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _part(name: str) -> str:
    environment = _environment()
    if environment.loader is None:
        return ""
    return environment.loader.get_source(environment, name)[0]
