"""The pages say what the code does: generated ones are up to date, and examples on others work."""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import outlast
from outlast.cli.app import make_app
from outlast.cluster import identity, layout
from outlast.cluster.gateway import Gateway
from outlast.detect import Health, health_routes
from outlast.log.engines.raft import mark
from outlast.log.wal.core import segment
from outlast.state import load_machine, machine_spec, snapshot_store
from outlast.state.core import envelope, stream, system
from outlast.testing import check_machine
from tools import reference_pages

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
TUTORIAL = f"{DOCS}/tutorial/bank.py:Bank"
NEXT = f"{DOCS}/how-to/bank_v2.py:Bank"


@pytest.fixture(autouse=True)
def same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a machine puts its folder on the path; not for the other tests."""
    monkeypatch.setattr(sys, "path", [*sys.path])


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    for path in PAGES:
        for found in re.findall(
            rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S
        ):
            yield path, found


@pytest.mark.parametrize("page", reference_pages.PAGES)
def test_generated_page_is_up_to_date(page: str, golden: Any) -> None:
    golden(reference_pages.FOLDER / page, reference_pages.PAGES[page]())


def test_every_setting_says_what_it_means() -> None:
    for module, name, _ in reference_pages.SETTINGS:
        cls = getattr(import_module(module), name)
        fields = [field for field, _ in reference_pages.defaults_of(cls)]
        assert fields == list(reference_pages.arguments_of(cls)), f"{module}.{name}"


def test_every_command_is_on_the_page() -> None:
    app = make_app()
    names = []
    for name in app:
        inner = [child for child in app[name] if not child.startswith("-")]
        names += [f"{name} {child}" for child in inner] or [name]
    assert {name for name in names if not name.startswith("-")} == {*reference_pages.COMMANDS}


def commands() -> Iterator[tuple[Path, str]]:
    for path, block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("outlast "):
                yield path, line.removeprefix("outlast ")


def test_commands_on_the_pages_parse() -> None:
    found = list(commands())
    assert len(found) > 15
    for path, line in found:
        try:
            make_app().parse_args(shlex.split(line), exit_on_error=False, print_error=False)
        except Exception as error:
            raise AssertionError(f"{path.name}: outlast {line}: {error}") from error


def test_calls_on_the_pages_fit_the_tutorials_bank() -> None:
    spec = machine_spec(load_machine(TUTORIAL))
    known = {*spec.commands, *spec.queries}
    called = {shlex.split(line)[1] for _, line in commands() if line.startswith("call ")}
    for _, block in blocks("sh"):
        called |= set(re.findall(r"/v1/(?:command|query)/(\w+)", block))
    assert called
    assert called <= known


def test_python_on_the_pages_compiles() -> None:
    found = list(blocks("python"))
    assert found
    for path, block in found:
        body = re.sub(r"(?m)\A(?= {4})", "if 1:\n", block)
        try:
            compile(body, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError as error:
            raise AssertionError(f"{path.name}: {error}\n{block}") from error


@pytest.mark.parametrize("target", [TUTORIAL, NEXT])
def test_machines_of_the_pages_are_deterministic(target: str) -> None:
    report = check_machine(load_machine(target))
    assert report.commands == 200


@pytest.mark.anyio
async def test_the_next_version_goes_on_with_what_the_first_one_stored(tmp_path: Path) -> None:
    first, after = load_machine(TUTORIAL), load_machine(NEXT)
    async with outlast.open(first, tmp_path) as bank:
        await bank.call_json("deposit", {"account": "alice", "amount": 100})
        await bank.checkpoint()
        await bank.call_json("transfer", {"source": "alice", "target": "bob", "amount": 30})
    async with outlast.open(after, tmp_path) as bank:
        assert await bank.call_json("all", {}, query=True) == {"alice": 70, "bob": 30}


def routes() -> set[str]:
    spec = machine_spec(load_machine(TUTORIAL))
    gateway = Gateway(spec, lambda: None, dict, health_routes(Health()))  # type: ignore[arg-type, return-value]
    return {route.path for route in gateway.app.routes}


def test_the_gateways_page_lists_its_routes() -> None:
    listed = set(re.findall(r"^\| `(/[^`]*)` \|", text_of("reference/gateway.md"), re.M))
    assert listed == routes()


def test_the_page_of_files_has_the_formats_in_use() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| (\d+) \|", text_of("reference/files.md"), re.M))
    assert {name: int(version) for name, version in rows.items()} == {
        "`cluster.json`": layout.FORMAT,
        "`identity.json`": identity.FORMAT,
        "`log/mark`": mark._FORMAT,
        "log segment": segment.FORMAT,
        "checkpoint manifest": snapshot_store._FORMAT,
        "checkpoint stream": stream.FORMAT,
        "entry envelope": envelope.FORMAT,
        "system machine": system.SYSTEM_FORMAT,
        "`--json`": 1,
    }


def test_what_the_promises_name_exists() -> None:
    page = text_of("explanation/promises.md")
    tests = set(re.findall(r"`(\w+/test_\w+\.py)`", page))
    parts = set(re.findall(r"`(testing/[\w/]+(?:\.py)?)/?`", page))
    assert tests
    assert parts
    missing = [name for name in tests if not (ROOT / "tests" / name).exists()]
    missing += [name for name in parts if not (ROOT / "src" / "outlast" / name).exists()]
    assert not missing
    written = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("tests/property", "src/outlast/testing/broken")
        for path in sorted((ROOT / folder).glob("*.py"))
    )
    planted = set(re.findall(r"`([a-z]+(?:_[a-z]+)+|[A-Z]\w+)`", page)) - {"check_machine"}
    assert planted
    assert [name for name in planted if name not in written] == []
