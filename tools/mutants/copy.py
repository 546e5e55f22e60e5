"""A copy of the tree to plant a mutant in, so that the product itself is never touched."""

import shutil
from pathlib import Path

from tools.mutants.table import Mutant

ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("src/outlast", "tests/support", "tests/sim", "tools/mutants")
_TESTS = ("tests/unit", "tests/property")
_NAMED = (
    "test_protect_*.py", "test_detect_*.py", "test_pool_*.py", "test_supervis*.py",
    "test_raft_accrual.py",
)  # fmt: skip
_SINGLE = ("pyproject.toml", "tests/conftest.py", "tools/engines.py")


class StaleMutantError(Exception):
    """A mutant's text is not found exactly once: the code has moved on, the table has not."""


def make_copy(into: Path, mutant: Mutant | None = None, root: Path = ROOT) -> Path:
    """Copy what a campaign needs into ``into``, plant ``mutant``, and return ``into``.

    Raises:
        StaleMutantError: The mutant does not fit the source any more.
    """
    for part in _PARTS:
        if (root / part).is_dir():
            shutil.copytree(root / part, into / part)
    for part in _TESTS:
        (into / part).mkdir(parents=True, exist_ok=True)
        for path in {path for name in _NAMED for path in (root / part).glob(name)}:
            shutil.copy(path, into / part)
    for path in (root / "benchmarks").glob("*.py"):  # some tests measure with them
        (into / "benchmarks").mkdir(exist_ok=True)
        shutil.copy(path, into / "benchmarks")
    for name in _SINGLE:
        if (root / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, into / name)
    if mutant is not None:
        plant(into / "src" / "outlast", mutant)
    return into


def plant(package: Path, mutant: Mutant) -> None:
    """Change the files below ``package`` as ``mutant`` says.

    Raises:
        StaleMutantError: A text is not found exactly once; which, and in which file.
    """
    for edit in mutant.edits:
        path = package / edit.file
        text = path.read_text(encoding="utf-8")
        path.write_text(changed(mutant.name, edit.file, text, edit.before, edit.after))
        # Copied with the source; it would pass for fresh if the size and the second are equal.
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()


def changed(name: str, file: str, text: str, before: str, after: str) -> str:
    """Return ``text`` with ``after`` in the one place of ``before``.

    Raises:
        StaleMutantError: There is no such place, or more than one.
    """
    found = text.count(before)
    if found != 1:
        message = (
            f"mutant {name}: its text stands {found} times in {file}, once is right:\n{before}"
        )
        raise StaleMutantError(message)
    return text.replace(before, after)
