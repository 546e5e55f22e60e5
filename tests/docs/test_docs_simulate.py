"""The page "Simulate your own service", done as it says: blocks are files, lines commands."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "simulate.md"
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
HEAD = re.compile(
    r"# (?P<file>\w+\.py)(, in the class (?P<scope>\w+))?(?P<part>, instead of .*)?$"
)
COMMANDS = (
    ("pytest -q test_jobs.py", 0),
    ("pytest -q test_jobs.py", 1),
    ("outlast sim test_jobs.py --seeds 200", 1),
    ("outlast sim test_jobs.py --seeds 200", 1),
    ("outlast sim test_jobs.py --seeds 2000", 0),
    ("outlast sim test_once.py --seeds 200", 1),
    ("pytest -q", 0),
    ("outlast sim test_once.py --seeds 1000", 0),
    ("pytest -q --sim-seeds 50", 0),
    ("pytest -q --sim-seed 7 test_once.py", 0),
    ("pytest -q test_history.py", 0),
    ("pytest -q test_waits.py", 1),
)
"""What the page runs, in order, and the exit code that its words promise."""
SEEDS_MAX = 20
"""Of a command that is to pass; those that fail stop at the failure."""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(1200)
def test_the_page_finds_each_bug_that_it_tells_of_and_passes_when_it_is_mended(
    tmp_path: Path,
) -> None:
    expected = list(COMMANDS)
    for kind, body in FENCE.findall(PAGE.read_text()):
        if kind == "python":
            _write(tmp_path, dedent(body))
        elif kind == "sh":
            for line in body.splitlines():
                if not line.startswith("pip "):
                    command, code = expected.pop(0)
                    assert line == command
                    _run(tmp_path, command, code)
    assert not expected, "the page has lost some of its commands"


def _write(folder: Path, block: str) -> None:
    """Write a block to the file that its first line names, or put it into that file."""
    head, _, text = block.partition("\n")
    named = HEAD.match(head)
    assert named is not None, f"which file? {head}"
    path = folder / named["file"]
    if named["part"]:
        text = _put(path.read_text(), text, named["scope"])
    path.write_text(text)


def _put(old: str, block: str, scope: str | None) -> str:
    """Return ``old`` with the definitions of ``block`` in place of those of the same names."""
    indent = "    " if scope else ""
    for new in ast.parse(block).body:
        body = ast.parse(old).body
        if scope:
            (inside,) = [node for node in body if getattr(node, "name", "") == scope]
            assert isinstance(inside, ast.ClassDef)
            body = inside.body
        lines, source = old.splitlines(), block.splitlines()
        given = [indent + line if line else "" for line in source[_first(new) : new.end_lineno]]
        there = [node for node in body if getattr(node, "name", "") == getattr(new, "name", None)]
        if there:
            lines[_first(there[0]) : there[0].end_lineno] = given
        else:  # a helper: after the imports
            last = max(node.end_lineno or 0 for node in body if "Import" in type(node).__name__)
            lines[last:last] = ["", "", *given]
        old = "\n".join(lines) + "\n"
    return old


def _first(node: ast.stmt) -> int:
    """Return the index of the first line of a definition, its decorators included."""
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)]) - 1


def _run(folder: Path, command: str, code: int) -> None:
    words = command.split()
    if code == 0 and "sim" in words:
        words[-1] = str(min(int(words[-1]), SEEDS_MAX))
    elif words[0] == "pytest" and code == 0 and "--sim-seed" not in words:
        words += ["--sim-seeds", "6"]
    words[0:1] = [sys.executable, "-m", {"pytest": "pytest", "outlast": "outlast"}[words[0]]]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "COV", "OUTLAST"))
    }
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    told = f"{command}: exit code {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    assert done.returncode == code, told
