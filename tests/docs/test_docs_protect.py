"""The pages about protected calls: what stands on them runs, and says what is so."""

import contextlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from outlast.protect.settings import forget_settings
from tests.support.pages import FENCE, Time, run, run_page

pytestmark = pytest.mark.timeout(180)

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"
POLICIES = sorted(
    path for path in (DOCS / "reference" / "policies").glob("*.md") if path.stem != "index"
)
PAGES = [
    DOCS / "how-to" / "protect.md",
    *sorted((DOCS / "how-to").glob("coming-from-*.md")),
    *POLICIES,
    DOCS / "explanation" / "overload.md",
]
HEADINGS = [
    "What for", "Use", "Settings and defaults", "Events and metrics", "Diagram",
    "When not to", "What it costs",
]  # fmt: skip
NAMED = {
    "retry", "timeout", "breaker", "bulkhead", "adaptive", "rate", "hedge", "fallback", "cache",
    "budget", "idempotency", "vote", "inject", "threads", "shared-state", "composition",
}  # fmt: skip


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    forget_settings()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_stands_on_the_page_runs(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path)


def test_the_policy_of_the_readme_protects() -> None:
    shown = [body for kind, body in FENCE.findall(README.read_text()) if "@rates" in body]
    module = ModuleType("readme_rates")
    time = Time()
    with contextlib.closing(time):
        run(shown[0], module, time)
    assert {finding.severity for finding in module.rates.lint()} <= {"note"}
    assert module.rates.describe()["order"] == [
        "deadline", "retry", "breaker", "limit", "attempt_timeout",
    ]  # fmt: skip


def test_there_is_a_page_for_each_policy() -> None:
    assert {page.stem for page in POLICIES} == NAMED


@pytest.mark.parametrize("page", POLICIES, ids=lambda page: page.stem)
def test_all_pages_of_policies_have_the_same_headings(page: Path) -> None:
    found = re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert found == HEADINGS


def signature_of(dotted: str) -> dict[str, inspect.Parameter]:
    from outlast import protect
    from outlast.protect import store

    found: Any = getattr(protect, dotted, None) or getattr(store, dotted, None)
    assert found is not None, f"{dotted} does not exist"
    parameters = inspect.signature(found).parameters.values()
    return {p.name: p for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}}


TABLES = re.compile(
    r"^`([A-Z]\w+)`[^\n]*:\n\n\| setting \| default \|[^\n]*\n\|[-| ]+\n((?:\|.*\n)+)",
    re.MULTILINE,
)


def tables() -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    for page in POLICIES:
        for name, rows in TABLES.findall(page.read_text(encoding="utf-8")):
            cells = [[cell.strip() for cell in row.split("|")] for row in rows.splitlines()]
            yield page.stem, name, [(row[1].strip("`"), row[2].strip("`")) for row in cells]


def test_tables_of_settings_have_every_argument_with_its_default() -> None:
    wrong = []
    for page, name, rows in tables():
        known = signature_of(name)
        known.pop("name", None)
        shown = dict(rows)
        if list(shown) != list(known):
            wrong.append(f"{page}: {name} takes {list(known)}, the table has {list(shown)}")
            continue
        for setting, default in shown.items():
            value = known[setting].default
            given = "required" if value is inspect.Parameter.empty else show(value)
            if default != given:
                wrong.append(f"{page}: {name}.{setting} is {given}, the table has {default}")
    assert not wrong, "\n".join(wrong)


def show(value: Any) -> str:
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, float):
        return f"{value:g}"
    return "CANONICAL" if isinstance(value, tuple) and value else repr(value)


def test_tables_of_settings_are_found() -> None:
    assert len(list(tables())) >= len(NAMED)


EVENTS = re.compile(r"^\| `([A-Z]\w+)`", re.MULTILINE)
METRIC = re.compile(r"`(outlast_\w+)`")


def test_events_and_metrics_on_the_pages_exist() -> None:
    from outlast.observe import METRICS
    from outlast.protect import events

    names, wrong, seen = {metric.name for metric in METRICS}, [], set()
    for page in POLICIES:
        text = page.read_text(encoding="utf-8")
        part = text.partition("## Events and metrics")[2].partition("## Diagram")[0]
        found = set(EVENTS.findall(part))
        seen |= found
        wrong += [f"{page.stem}: {name}" for name in found if not hasattr(events, name)]
        wrong += [f"{page.stem}: {name}" for name in set(METRIC.findall(text)) - names]
    assert not wrong
    told = {name for name, kind in vars(events).items() if isinstance(kind, type)
            and kind.__module__ == events.__name__}  # fmt: skip
    assert told - seen == {"SettingsChanged"} - seen, "events that no page tells of"
