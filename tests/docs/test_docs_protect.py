"""The pages about protected calls: what stands on them runs as it stands there.

The blocks of a page run one after another in one namespace, in virtual time. A block with
``await`` at its top level runs as the main coroutine of a simulation of its own; the blocks
between two of them share one time. Tests that a block defines are run. What a block prints must
be what the ``text`` block behind it shows (``…`` for anything). A ``toml`` block is the file that
its first line names. A block whose first line begins with ``# before`` shows another library and
is not run.
"""

import ast
import contextlib
import inspect
import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from outlast import sim
from outlast.protect.settings import forget_settings
from outlast.testing.virtual import VirtualTime, virtual_time

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
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
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
    module = ModuleType(f"page_{page.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module
    ran = 0
    printed: str | None = None
    time = Time()
    try:
        for kind, body in FENCE.findall(page.read_text(encoding="utf-8")):
            block = dedent(body)
            if kind == "python" and not block.startswith("# before"):
                printed = run(block, module, time) or None
                ran += 1
            elif kind == "toml":
                (tmp_path / block.split()[1]).write_text(block, encoding="utf-8")
            elif kind == "text" and printed is not None:
                check_printed(block, printed, page)
                printed = None
            else:
                printed = None
    finally:
        time.close()
        del sys.modules[module.__name__]
    assert ran, "nothing ran"


class Time:
    """The virtual time that blocks share; whether it is under way."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._begun = False

    def begin(self) -> None:
        if not self._begun:
            self._stack.enter_context(virtual_time(seed=1))
        self._begun = True

    def close(self) -> None:
        self._stack.close()
        self._begun = False


def run(block: str, module: ModuleType, time: "Time") -> str:
    """Run one block, and the tests that it defines; return what it printed.

    Args:
        block: The source.
        module: Its namespace.
        time: Holds the virtual time of blocks without ``await``, if any is under way.
    """
    code = compile(block, module.__name__, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    awaits = bool(code.co_flags & inspect.CO_COROUTINE)
    tests = re.findall(r"^(?:async )?def (test_\w+)", block, re.MULTILINE)
    if awaits or tests:
        time.close()
    else:
        time.begin()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if awaits:

            async def main() -> None:
                await eval(code, vars(module))  # noqa: S307 - our own page

            sim.run(main, seed=1)
        else:
            exec(code, vars(module))  # noqa: S102 - our own page
    for name in tests:
        run_test(getattr(module, name))
    return out.getvalue()


def run_test(function: Callable[..., Any]) -> None:
    wanted = inspect.signature(function).parameters
    assert set(wanted) <= {"virtual_time"}, f"a fixture that is not known here: {wanted}"
    if "virtual_time" in wanted:
        clock = VirtualTime(1)
        with clock.running():
            function(clock)
    else:
        function()


def check_printed(wanted: str, printed: str, page: Path) -> None:
    pattern = ".*".join(re.escape(part) for part in wanted.strip().split("…"))
    found = re.fullmatch(pattern, printed.strip(), re.DOTALL)
    assert found, f"{page.name} shows\n{wanted}\nand this was printed:\n{printed}"


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
