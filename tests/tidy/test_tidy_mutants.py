"""The table of mutants fits the source: each applies, its copy imports, the page is up to date."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.mutants import report
from tools.mutants.copy import StaleMutantError, changed, make_copy
from tools.mutants.rows import ROWS
from tools.mutants.table import LEVELS, TESTED, Mutant, mutant

pytestmark = pytest.mark.timeout(240)

SOURCE = Path(__file__).resolve().parents[2] / "src" / "outlast"
NAMES = [row.name for row in ROWS]


def texts_of(row: Mutant) -> dict[str, str]:
    """Return the files that ``row`` changes, as it leaves them."""
    texts: dict[str, str] = {}
    for edit in row.edits:
        text = texts.get(edit.file) or (SOURCE / edit.file).read_text(encoding="utf-8")
        texts[edit.file] = changed(row.name, edit.file, text, edit.before, edit.after)
    return texts


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_each_mutant_stands_once_in_the_source_and_compiles(row: Mutant) -> None:
    for file, text in texts_of(row).items():
        compile(text, file, "exec")
        assert text != (SOURCE / file).read_text(encoding="utf-8")


def test_the_table_is_as_large_as_was_promised() -> None:
    assert len(ROWS) >= 30
    assert sum(row.level == "detect" for row in ROWS) >= 60
    assert sum(row.black_box for row in ROWS) >= 15
    assert {row.level for row in ROWS} == {*LEVELS}


def test_names_are_unique_and_each_row_says_what_it_breaks() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for row in ROWS:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", row.name)
        assert row.breaks
        assert row.section
        assert row.faults


def test_a_mutant_that_tests_must_catch_names_tests_that_are_there_and_no_other_does() -> None:
    tests = SOURCE.parents[1] / "tests"
    for row in ROWS:
        found = [bool([*tests.glob(pattern)]) for pattern in row.tests]
        assert bool(found) == (row.level in TESTED), row.name
        assert all(found), row.name


def test_a_mutant_whose_place_has_moved_is_told() -> None:
    with pytest.raises(StaleMutantError, match="stands 0 times"):
        changed("gone", "a.py", "x = 1\n", "x = 2\n", "x = 3\n")
    with pytest.raises(StaleMutantError, match="stands 2 times"):
        changed("twice", "a.py", "x = 1\nx = 1\n", "x = 1\n", "x = 3\n")


def test_copies_of_all_mutants_import(tmp_path: Path) -> None:
    """In one process: each changed module is executed, in the place of the one it replaces."""
    program = tmp_path / "load.py"
    lines = ["import importlib, sys", "import outlast.cluster, outlast.log.engines.raft"]
    for at, row in enumerate(ROWS):
        for file, text in texts_of(row).items():
            path = tmp_path / f"m{at}_{file.replace('/', '_')}"
            path.write_text(text, encoding="utf-8")
            name = "outlast." + file.removesuffix(".py").replace("/", ".")
            lines += [
                f"module = importlib.import_module({name!r})",
                f"exec(compile(open({str(path)!r}).read(), {file!r}, 'exec'),"
                f" {{**vars(module), '__name__': {name!r}}})",
            ]
    program.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_copy_wins_over_the_installed_package(tmp_path: Path) -> None:
    copy = make_copy(tmp_path / "copy", ROWS[0])
    done = subprocess.run(
        [sys.executable, "-c", "import outlast; print(outlast.__file__)"],
        cwd=copy, env={"PYTHONPATH": str(copy / "src")}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert Path(done.stdout.strip()).is_relative_to(copy), done.stderr


def test_the_product_has_no_switch_for_a_mutant() -> None:
    assert importlib.util.find_spec("outlast.mutants") is None
    for path in SOURCE.rglob("*.py"):
        assert "tools.mutants" not in path.read_text(encoding="utf-8"), path


def test_the_page_tells_what_was_recorded(golden: Any) -> None:
    golden(report.PAGE, report.page(report.load()))


def test_a_recorded_mutant_was_caught() -> None:
    """What survives is no record but a missing check."""
    for name, modes in report.load().items():
        row = next(row for row in ROWS if row.name == name)
        for how, facts in modes.items():
            if row.black_box or "black-box" not in how:
                assert facts["status"] == "caught", f"{name}: {how}"


def test_a_mutant_may_take_several_places() -> None:
    row = mutant("a-b", "f.py", "x", "y", breaks="b", section="s", faults="f")
    assert [edit.file for edit in row.edits] == ["f.py"]
