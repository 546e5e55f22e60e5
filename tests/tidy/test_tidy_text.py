"""What must not stand in any file of the tree, and how long a file may be."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
LINES_MAX = 500
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".cfg", ".html", ".json", ".yml", ".yaml", ""}

EVERYWHERE = {
    "a path of one machine": r"(^|[^A-Za-z0-9_.$}])/(work|farm|root|home/\w+|tmp/bash_jobs)/",
    "a host of a package registry": (r"(pypi\.org|pythonhosted\.org|npmjs\.org|deb\.debian\.org)"),
    "a leftover": r"\b(FIXME|TODO|XXX)\b",
}
OUR_WORDS = {"leader and follower, or primary and standby": r"(?i)\b(masters?|slaves?)\b"}
# Words of a foreign protocol or licence, which are not ours to choose.
ALLOWED = {("LICENSE", "leader and follower, or primary and standby")}


@cache
def files() -> tuple[Path, ...]:
    """Text files that are in the repository or would be added to it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(
        path
        for path in paths
        if path.is_file() and path.suffix in TEXT_SUFFIXES and path != Path(__file__)
    )


def offences(pattern: str, what: str) -> list[str]:
    compiled = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files()
        if (path.relative_to(ROOT).as_posix(), what) not in ALLOWED
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if compiled.search(line)
    ]


@pytest.mark.parametrize("what", [*EVERYWHERE, *OUR_WORDS])
def test_no_file_contains(what: str) -> None:
    found = offences({**EVERYWHERE, **OUR_WORDS}[what], what)
    assert not found, f"{what}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a path of one machine", "open('" + "/".join(("", "work", "main", "x"))),
        ("a path of one machine", "see " + "/".join(("", "home", "someone", "notes"))),
        ("a host of a package registry", "see pypi.org/simple"),
        ("a leftover", "x = 1  # TODO later"),
        ("leader and follower, or primary and standby", "the master node"),
    ],
)
def test_the_patterns_find_what_they_look_for(what: str, line: str) -> None:
    assert re.search({**EVERYWHERE, **OUR_WORDS}[what], line)


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def test_no_file_of_src_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    long = [f"{path.relative_to(ROOT)}: {n}" for path, n in lengths.items() if n > LINES_MAX]
    assert not long, f"past {LINES_MAX} lines; look for the second thing each does: {long}"


def test_src_checks_with_invariant_and_not_with_assert() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert not found, f"assert disappears under -O; use outlast.kernel.invariant: {found}"


def test_pins_are_names_and_versions_only() -> None:
    pin = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+|-r [a-z]+\.txt")
    found = [
        f"{path.name}: {line}"
        for path in sorted((ROOT / "requirements").glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#") and not pin.fullmatch(line)
    ]
    assert not found


def test_ci_runs_a_make_target_that_exists() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    called = re.findall(r"\bmake ([a-z]+)", script)
    assert called
    assert set(called) <= set(targets)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
