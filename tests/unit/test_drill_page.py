"""The page of a drill: complete, safe, the same each time, and saying what the report says."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from outlast.drill.core import chart, words
from outlast.drill.core.figures import kind_of, run_of
from outlast.drill.core.plots import plots_of
from outlast.drill.page import facts, page, sentence
from outlast.drill.report import FaultReport, LatencyPoint, Report, Series, WorkloadReport
from tests.support import drill_reports as made

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\x00\x1b\ud800'
VOID = {"meta", "link", "br", "img", "wbr", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """What a browser makes of a page, as far as these tests care."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> does not close what is open"

    def handle_data(self, data: str) -> None:
        ident = self.tags[-1][1].get("id", "") if self.tags else ""
        self.texts[ident or "all"] = self.texts.get(ident or "all", "") + data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [
            attrs
            for name, attrs in self.tags
            if name == tag and all(attrs.get(k.rstrip("_")) == v for k, v in wanted.items())
        ]


@cache
def page_of(name: str) -> str:
    return page(made.SAMPLES[name]())


@cache
def parts_of(name: str) -> Page:
    return parsed(page_of(name))


def parsed(text: str) -> Page:
    result = Page()
    result.feed(text)
    result.close()
    assert result.open == [], f"never closed: {result.open}"
    return result


SAMPLES = pytest.mark.parametrize("name", list(made.SAMPLES))


# --- one file, no network ----------------------------------------------------------------------


@SAMPLES
def test_the_page_refers_to_nothing_outside_itself(name: str) -> None:
    text = page_of(name)
    for tag, attrs in parts_of(name).tags:
        for attr in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert attrs.get(attr, "#").startswith(("#", "data:")), (tag, attrs)
    assert "@import" not in text
    assert not re.search(r"url\(\s*['\"]?(?!#|data:)", text)
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not a place


@SAMPLES
def test_the_policy_runs_our_program_and_no_other(name: str) -> None:
    text = page_of(name)
    program = re.findall(r"<script[^>]*>(.*?)</script>", text, re.S)
    assert len(program) == 1
    digest = base64.b64encode(hashlib.sha256(program[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert len(program[0]) < 4096


def test_equal_reports_give_equal_pages() -> None:
    assert page(made.survived(3)) == page(made.survived(3))
    assert page(made.survived(3)) != page(made.survived(4))


def test_a_minute_with_30000_operations_stays_far_below_two_megabytes() -> None:
    report = made.survived()
    assert report.operations["ok"] > 20_000
    assert len(page(report).encode()) < 200_000


def test_ten_minutes_with_120_faults_and_2800_spans_stay_below_two_megabytes() -> None:
    assert len(page_of("crowded").encode()) < 2_000_000


def test_curves_do_not_grow_with_the_length_of_a_drill() -> None:
    minute, hour = (plots_of(made.survived(5, seconds)) for seconds in (200.0, 3600.0))
    for short, long in zip(minute, hour, strict=True):
        assert sum(len(c.path) for c in long.curves) < 1.5 * sum(len(c.path) for c in short.curves)


# --- hostile text ------------------------------------------------------------------------------


def poisoned(value: Any) -> Any:
    """Return a report with every text in it replaced by an attack, where any text may stand."""
    if isinstance(value, str):
        return EVIL
    if isinstance(value, dict):
        return {f"{EVIL}{i}": poisoned(item) for i, item in enumerate(value.values())}
    if isinstance(value, tuple):
        return tuple(poisoned(item) for item in value)
    return value


def evil_report() -> Report:
    report = made.failed()
    free = ("name", "target", "why", "nodes", "promise", "command", "started", "versions",
            "settings")  # fmt: skip
    return replace(
        report,
        **{name: poisoned(getattr(report, name)) for name in free},
        faults=tuple(
            replace(
                f, name=EVIL, victims=(EVIL,), evidence=EVIL, detected_why=EVIL, why=EVIL,
                facts={EVIL: EVIL},
            )
            for f in report.faults
        ),
        workloads=tuple(
            replace(w, name=f"{EVIL}{i}", model=EVIL, how=EVIL, why=EVIL, drawing=EVIL)
            for i, w in enumerate(report.workloads)
        ),
        invariants=tuple(replace(i, name=EVIL, detail=EVIL) for i in report.invariants),
        series=replace(
            report.series,
            **{kind: {f"{EVIL}{i}": v for i, v in enumerate(getattr(report.series, kind).values())}
               for kind in ("ok", "fail", "info")},
        ),
        latency={EVIL: next(iter(report.latency.values()))},
        spans=tuple(replace(s, node=EVIL) for s in report.spans),
    )  # fmt: skip


def test_no_text_of_a_report_becomes_markup() -> None:
    bad = parsed(page(evil_report()))
    assert len(bad.all("script")) == 1
    assert bad.all("img") == []
    known = {name for _, attrs in parts_of("failed").tags for name in attrs}
    assert {name for _, attrs in bad.tags for name in attrs} <= known | {"open"}
    assert not [attrs for _, attrs in bad.tags for name in attrs if name.startswith("on")]
    text = page(evil_report())
    assert "<script>alert" not in text
    assert "{{ 7 * 7 }}" in text, "a template in a report is text too"
    text.encode("utf-8")
    assert "\x00" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "picture",
    [
        "<svg><script>alert(1)</script></svg>",
        '<svg onload="alert(1)"></svg>',
        '<svg><a href="http://example.org"><text>x</text></a></svg>',
        '<svg><use href="other.svg#x"/></svg>',
        "<svg><foreignObject><p>x</p></foreignObject></svg>",
        '<svg><style>@import "x.css";</style></svg>',
        "<svg><style>rect{fill:url(http://example.org/x)}</style></svg>",
        '<svg><rect style="fill:url(x.svg)"/></svg>',
        "<svg><style>rect{fill:\\75rl(x.svg)}</style></svg>",
        "<svg><title><style>body{display:none}</style></title></svg>",
        '<x:svg xmlns:x="http://www.w3.org/2000/svg"></x:svg>',
        '<!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>',
        "<svg><g></svg>",
        "<p>no picture</p>",
    ],
)
def test_a_picture_that_is_more_than_a_drawing_is_left_out(picture: str) -> None:
    workload = WorkloadReport("kv", "kv", 1, 0, 0, "invalid", picture=picture, drawing="as text")
    text = page(replace(made.empty(), workloads=(workload,)))
    assert 'class="scroll picture"' not in text
    assert "as text" in text


def test_the_picture_of_our_judge_stands_in_the_page_as_it_is() -> None:
    report = made.failed()
    picture = next(w.picture for w in report.workloads if w.picture)
    assert picture in page(report)


# --- what it says ------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["survived", "failed", "void", "unknown"])
def test_the_verdict_is_a_word_and_a_sign_and_never_a_colour_alone(verdict: str) -> None:
    report = made.SAMPLES[verdict]()
    text = page(report)
    assert f"<h1>{verdict}</h1>" in text
    assert f'href="#i-{verdict}"' in text
    assert f"<title>{verdict}: " in text
    for line in report.why:
        assert escape(line) in text
    for fault in report.faults:
        assert re.search(rf'href="#i-{fault.verdict}"/></svg>{fault.verdict}</span>', text)


def test_a_report_says_no_more_than_was_judged() -> None:
    report = made.survived()
    assert sentence(report).count("linearizable") == 1
    assert "lost" not in sentence(replace(report, lost=None))
    assert "linearizable" not in sentence(replace(report, linearizable=None))
    assert "twice" not in sentence(replace(report, doubled=None))
    assert "invariant" not in sentence(replace(report, invariant=None))
    for name in ("failed", "void", "unknown"):
        assert "nothing that was acknowledged was lost" not in sentence(made.SAMPLES[name]())


def test_a_fact_that_speaks_against_the_target_is_marked() -> None:
    by_label = {fact.label: fact for fact in facts(made.failed())}
    assert (by_label["Lost"].value, by_label["Lost"].state) == ("3", "bad")
    assert (by_label["Linearizable"].value, by_label["Linearizable"].state) == ("no", "bad")
    by_label = {fact.label: fact for fact in facts(made.void())}
    assert (by_label["Faults"].note, by_label["Faults"].state) == ("8 with evidence", "open")
    by_label = {fact.label: fact for fact in facts(made.unknown())}
    assert by_label["Lost"].value == by_label["Linearizable"].value == "undecided"


def test_more_than_a_fifth_of_unknown_outcomes_is_marked() -> None:
    report = replace(made.survived(), operations={"ok": 79, "fail": 0, "info": 21})
    assert next(f for f in facts(report) if f.label == "Acknowledged").state == "open"
    report = replace(made.survived(), operations={"ok": 80, "fail": 0, "info": 20})
    assert next(f for f in facts(report) if f.label == "Acknowledged").state == "plain"


def test_the_page_holds_the_whole_report_as_json() -> None:
    report = made.failed()
    found = json.loads(parsed(page(report)).texts["json"])
    wanted = json.loads(json.dumps(report.as_json()))
    for workload in wanted["workloads"]:
        workload["picture"] = ""
    assert found == wanted


def test_a_number_that_json_has_no_word_for_does_not_spoil_the_page() -> None:
    fault = FaultReport("crash", (), 1.0, 2.0, gap_ms=float("inf"), facts={"x": float("nan")})
    report = replace(made.empty(), faults=(fault,), availability=float("nan"))
    found = json.loads(parsed(page(report)).texts["json"])
    assert found["faults"][0]["gap_ms"] is None


def test_fault_table_has_a_row_for_each_fault_with_its_evidence() -> None:
    report = made.void()
    found = parsed(page(report))
    rows = [attrs["id"] for attrs in found.all("tr") if attrs.get("id", "").startswith("fault-")]
    assert rows == [f"fault-{i + 1}" for i in range(len(report.faults))]
    text = page(report)
    assert all(fault.evidence in text for fault in report.faults)
    assert "<em>none</em>" in text


# --- for ears and keys -------------------------------------------------------------------------


@SAMPLES
def test_headings_go_down_one_level_at_a_time(name: str) -> None:
    levels = [int(tag[1]) for tag, _ in parts_of(name).tags if tag in "h1 h2 h3"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


@SAMPLES
def test_pictures_and_tables_say_what_they_are(name: str) -> None:
    found = parts_of(name)
    for attrs in found.all("svg"):
        assert attrs.get("aria-hidden") == "true" or attrs.get("aria-label"), attrs
    assert len(found.all("table")) == len(found.all("caption"))
    assert all(attrs.get("scope") for attrs in found.all("th"))
    for tag, attrs in found.tags:
        for name_ in ("aria-labelledby", "aria-describedby"):
            if name_ in attrs:
                assert any(other.get("id") == attrs[name_] for _, other in found.tags), (
                    tag,
                    attrs,
                )


@SAMPLES
def test_no_id_stands_twice(name: str) -> None:
    ids = [attrs["id"] for _, attrs in parts_of(name).tags if "id" in attrs]
    assert sorted(ids) == sorted(set(ids))


def test_charts_are_described_in_words_and_figures() -> None:
    spoken = [plot.spoken for plot in plots_of(made.survived())]
    assert re.search(r"median \d+, least \d+, most \d+", spoken[0])
    assert "99th percentile" in spoken[1]
    assert "surely had no effect" in spoken[2]
    assert run_of(made.survived()).lanes[0].spoken.startswith("leader, 0.0 s to ")


def sheet(dark: bool) -> dict[str, str]:
    style = re.search(r"<style>(.*?)</style>", page_of("empty"), re.S)
    assert style
    light, after = style[1].split("prefers-color-scheme: dark", 1)
    colours = dict(re.findall(r"--([\w]+): (#[0-9a-f]{3,6})", light))
    if dark:
        colours |= dict(re.findall(r"--([\w]+): (#[0-9a-f]{3,6})", after.split("\n}\n", 1)[0]))
    return colours


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(dark: bool) -> None:
    colours = sheet(dark)
    texts = ["ink", "soft", "survived", "failed", "void", "unknown"]
    texts += ["crash", "pause", "cut", "link", "disk", "other"]
    for back in ("paper", "sheet"):
        for text in texts:
            low, high = sorted((luminance(colours[text]), luminance(colours[back])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {back}"


# --- layout ------------------------------------------------------------------------------------


def overlapping(report: Report, pixels: float) -> Iterator[tuple[int, int]]:
    marks = run_of(report).marks
    for i, a in enumerate(marks):
        for b in marks[i + 1 :]:
            if a.row == b.row:
                first, second = (
                    min(m.left, 100 - 100 * m.label_px / pixels) for m in (a, b)
                )  # fmt: skip
                if first + 100 * a.label_px / pixels > second + 1e-6:
                    yield a.number, b.number


@pytest.mark.parametrize("seed", range(8))
def test_names_of_faults_do_not_cover_each_other(seed: int) -> None:
    found = list(overlapping(made.survived(seed), 640))
    assert not found, f"seed {seed}: {found}"


def test_too_many_faults_are_shown_by_number() -> None:
    assert not any(mark.named for mark in run_of(made.crowded()).marks)
    assert all(mark.named for mark in run_of(made.survived()).marks)


def test_bands_and_lanes_stay_on_the_axis_whatever_the_times_are() -> None:
    odd = (
        FaultReport("crash@all", (), -3.0, -1.0),
        FaultReport("pause", (), 5.0, 4.0, recovered_ms=1e9),
        FaultReport("link:slow", (), 70.0, 90.0, detected_ms=1e9),
    )
    run = run_of(replace(made.survived(), faults=odd))
    for mark in run.marks:
        assert 0 <= mark.left <= 100
        assert mark.width >= 0
        assert mark.left + mark.width + mark.tail <= 100.001
    for lane in run.lanes:
        assert sum(segment.width for segment in lane.segments) <= 100.1


def test_every_fault_of_the_catalogue_has_a_hatch_of_its_class() -> None:
    text = page_of("empty")
    names = "crash@leader power-cut@all pause partition:halves link:slow disk:full dns:wrong"
    for name in [*names.split(), "memory:leak", "clock:skew", "volcano@one"]:
        assert f".k-{kind_of(name)} {{ --tone" in text


def test_a_slot_without_operations_interrupts_the_latency() -> None:
    points = tuple(
        LatencyPoint(i * 0.5, "read", 10, 1.0, 2.0, 3.0) for i in range(10) if i not in (4, 5)
    )
    report = replace(
        made.survived(), seconds=5.0, faults=(), spans=(), series=Series(0.5, latency=points)
    )
    line = next(c for c in plots_of(report)[1].curves if c.style == "line read")
    assert line.path.count("M") == 2


def test_stacked_workloads_end_at_their_sum() -> None:
    series = Series(1.0, ok={"a": (10, 20), "b": (30,)}, fail={"a": (0, 0)})
    report = replace(made.survived(), seconds=2.0, faults=(), spans=(), series=series)
    throughput = plots_of(report)[0]
    assert throughput.ticks[-1].text == "40"
    tops = [c.path for c in throughput.curves if c.style.startswith("line")]
    assert tops == ["M250 75L750 50", "M250 0L750 50"]


def test_a_scale_keeps_order_and_bounds() -> None:
    for scale in (chart.Scale(0.0, 60.0), chart.Scale(0.1, 5000.0, log=True)):
        shares = [scale.share(v) for v in (-1.0, 0.0, 0.05, 0.2, 3.0, 59.0, 61.0, 1e9)]
        assert shares == sorted(shares)
        assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert chart.Scale(5.0, 5.0).share(5.0) == 0.0


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ([0, 0, 0], ""),
        ([0, 5, 5, 0], "M0 100L0 100L0 100L250 100L250 50L750 50L750 100L1000 100L1000 100Z"),
    ],
)
def test_columns_follow_their_values(values: list[int], path: str) -> None:
    frame = chart.Frame(chart.Scale(0.0, 4.0), chart.Scale(0.0, 10.0))
    assert frame.steps(values, 1.0) == path


def test_rounding_never_makes_a_lost_second_disappear() -> None:
    assert words.share(0.99999) == "99.9 %"
    assert words.share(59 / 60) == "98.3 %"
