"""Examples, doctests and the README: what they show runs as it stands there."""

import ast
import asyncio
import doctest
import importlib
import importlib.util
import pkgutil
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
from cyclopts import CycloptsError

import outlast
from outlast.cli import main
from outlast.cli.app import make_app
from outlast.drill.loader import load_drill
from outlast.drill.running import prepare
from outlast.inject import parse_faults
from tests.support.nodes import Nodes

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MARKDOWN = sorted(
    path
    for path in [README, *(ROOT / "docs").rglob("*.md")]
    if "_build" not in path.parts and "decisions" not in path.parts
)
DRILL = ROOT / "examples" / "drill_shop.py"
"""Runs a drill of a minute when it is imported: tests/drills runs it, shorter."""
SHOP = ROOT / "examples" / "shop.py"
"""What that drill runs: a program, and no test of anything."""
SEEDS = 40
CONFTEST = ROOT / "examples" / "conftest.py"
EXAMPLES = sorted({*(ROOT / "examples").glob("*.py")} - {DRILL, SHOP, CONFTEST})
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
SHELL = {"|", ">", ">>", "<", "&", "&&", ";"}


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(outlast.__path__, "outlast."):
        if not found.name.endswith("__main__"):
            yield found.name


def test_doctests_of_src() -> None:
    failed, tried = 0, 0
    for name in modules():
        result = doctest.testmod(importlib.import_module(name))
        failed += result.failed
        tried += result.attempted
    assert failed == 0
    assert tried >= 5, "the doctests are not found any more"


def blocks(path: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(path.read_text()) if kind == language]


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_in_pages_compiles(path: Path) -> None:
    for body in blocks(path, "python"):
        if not body.lstrip().startswith(">>>"):
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            compile(dedent(body), str(path), "exec", flags)


def test_the_class_on_the_first_screen_runs() -> None:
    first = blocks(README, "python")[0]
    module = ModuleType("readme_bank")
    sys.modules[module.__name__] = module
    try:
        exec(compile(first, "README.md", "exec"), vars(module))  # noqa: S102 - our own page
        bank = module.Bank(outlast.Table(alice=30))
        assert bank.transfer("alice", "bob", 30) == 0
        with pytest.raises(module.Overdrawn):
            bank.transfer("alice", "bob", 1)
    finally:
        del sys.modules[module.__name__]


def commands(path: Path) -> list[list[str]]:
    """Return the command lines in the shell blocks of a page."""
    found = []
    for body in blocks(path, "sh"):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(words)
    return found


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_pages_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    app = make_app()
    for words in commands(path):
        if words[0] == "make":
            assert set(words[1:]) <= targets, words
        elif words[0] == "outlast":
            end = next((n for n, word in enumerate(words) if word in SHELL), len(words))
            try:
                app.parse_args(words[1:end], print_error=False, exit_on_error=False)
            except CycloptsError as error:
                pytest.fail(f"{' '.join(words)}: {error}")


def test_the_makefile_has_what_the_first_screen_names() -> None:
    named = {words[1] for words in commands(README) if words[0] == "make"}
    assert {"demo", "test"} <= named


# --- examples ------------------------------------------------------------------------------------


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_tests_of_an_example_pass(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that run under many seeds run under the first of them."""
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(outlast.sim.overrides, "seeds", SEEDS)
    module = load(path)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert tests, f"{path.name} shows no test"
    for test in tests:
        test()


def test_the_drill_on_the_first_screen_is_the_example() -> None:
    shown = blocks(README, "python")[2].partition("\n")[2]
    example = DRILL.read_text().partition("report = ")[0]
    assert [line for line in shown.splitlines() if line] == [
        line for line in example.splitlines() if line
    ]


def test_the_simulation_on_the_first_screen_is_the_example() -> None:
    example = (ROOT / "examples" / "test_shop.py").read_text()
    shown = next(body for body in blocks(README, "python") if "@sim.test" in body)
    assert ast.dump(ast.parse(shown).body[-1]) == ast.dump(ast.parse(example).body[-1])


def test_the_drill_of_the_example_is_loaded_and_not_run() -> None:
    """Its last lines run it; the command line wants the class, and stops before them."""
    assert "\nreport = drill.run(" in DRILL.read_text()
    shop = load_drill(f"{DRILL}:Shop")
    assert shop.promise() == "No acknowledged order is lost."
    assert {name: spec.final for name, spec in shop.operations().items()} == {
        "add": False,
        "read": True,
    }
    prepared = prepare(shop, seconds=60, seed=7, home=str(DRILL.parent))
    planned = [str(fault) for fault in parse_faults(shop.faults)]
    assert prepared.view.planned == 2 * len(planned)


def test_the_drill_of_the_example_names_the_service_beside_it() -> None:
    assert f"python -m {SHOP.stem} " in load_drill(str(DRILL)).nodes.command


@pytest.mark.process
@pytest.mark.timeout(240)
def test_the_bank_example_runs_against_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its program says n1:7400,…: the test sends these names to a cluster on this machine."""
    path = ROOT / "examples" / "bank.py"
    module = load(path)
    nodes = Nodes(tmp_path, target=f"{path}:Bank", http=False)
    connect = outlast.connect

    def nearby(machine: type[Any], addresses: str, **settings: Any) -> Any:
        assert addresses == "n1:7400,n2:7400,n3:7400"
        return connect(machine, nodes.at, **settings)

    monkeypatch.setattr(outlast, "connect", nearby, raising=False)
    monkeypatch.setattr(outlast, "deadline", lambda _: _deadline(60.0))
    try:
        nodes.init().start().serving()
        with pytest.raises(module.Overdrawn):  # nobody has paid in anything
            asyncio.run(module.main())
        transfer = '{"source": "alice", "target": "bob", "amount": 30}'
        assert main(["call", "transfer", transfer, "--at", nodes.at]) == 1
        assert capsys.readouterr().err == "outlast: Overdrawn: alice\n"
    finally:
        nodes.close()


_deadline = outlast.deadline


@pytest.mark.timeout(240)
def test_the_bank_example_runs_in_this_process(tmp_path: Path) -> None:
    """The line that its comment offers instead: same client, no server."""
    module = load(ROOT / "examples" / "bank.py")

    async def use() -> None:
        for _ in range(2):
            async with outlast.open(module.Bank, tmp_path / "data") as bank:
                with pytest.raises(module.Overdrawn):
                    await bank.call(module.Bank.transfer, "alice", "bob", 30)

    asyncio.run(use())
