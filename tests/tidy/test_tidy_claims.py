"""The page of Raft's claims names tests that exist, and says what they say of themselves."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "explanation" / "raft_claims.md"
NAME = re.compile(r"`([\w/]+\.py)::(\w+)`")
CLAIM = re.compile(r"(.+) \(([^()]+)\)\.")
"""First sentence of a test: the claim, and in brackets where it is made."""


@cache
def functions_of(file: str) -> dict[str, str]:
    """Return the tests in a file below ``tests/`` with their docstrings; none without the file."""
    path = TESTS / file
    if not path.is_file():
        return {}
    return {
        node.name: ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells for cells in found if cells[0] not in {"claim", "box", "---"}]


def page() -> list[list[str]]:
    return rows(PAGE.read_text(encoding="utf-8"))


def missing(found: list[list[str]]) -> list[str]:
    """Return what is named and does not exist, and rows that name no test."""
    lost = []
    for cells in found:
        named = NAME.findall(cells[2])
        lost += [f"{file}::{name}" for file, name in named if name not in functions_of(file)]
        if not named or not all(cells[:2]):
            lost.append(f"no test or no section: {cells}")
    return lost


def paper_tests() -> dict[str, tuple[str, str]]:
    """Return claim and section of each test that was written for a claim."""
    found = {}
    for path in sorted((TESTS / "unit").glob("test_raft_paper_*.py")):
        for name, text in functions_of(f"unit/{path.name}").items():
            first = " ".join(text.split("\n\n")[0].split())
            match = CLAIM.fullmatch(first)
            assert match, f"{path.name}::{name}: its first sentence gives no section: {first!r}"
            found[f"unit/{path.name}::{name}"] = match[1], match[2]
    return found


def test_every_test_that_the_page_names_exists() -> None:
    found = page()
    assert len(found) > 150
    assert not missing(found)


def test_each_claim_stands_on_the_page_as_its_test_states_it() -> None:
    said = {
        (f"{file}::{name}", cells[0], cells[1])
        for cells in page()
        for file, name in NAME.findall(cells[2])
    }
    found = paper_tests()
    assert len(found) > 80
    lost = [test for test, (claim, section) in found.items() if (test, claim, section) not in said]
    assert not lost, f"not on {PAGE.name} with claim and section of its docstring: {lost}"


def test_no_claim_stands_on_the_page_twice() -> None:
    claims = [cells[0] for cells in page() if len(cells) == 4]
    assert sorted(set(claims)) == sorted(claims)


def test_every_rule_of_figure_2_has_a_test() -> None:
    boxes = [cells[0] for cells in page() if len(cells) == 3]
    expected = {
        "state": 3, "AppendEntries": 5, "RequestVote": 2, "all servers": 2, "followers": 2,
        "candidates": 4, "leaders": 4,
    }  # fmt: skip
    assert {box: boxes.count(box) for box in boxes} == expected


def test_what_does_not_exist_is_noticed() -> None:
    table = (
        "| claim | section | test | where we differ |\n"
        "| --- | --- | --- | --- |\n"
        "| one | 5.1 | `unit/test_raft_election.py::test_5_2_a_node_starts_as_follower` ||\n"
        "| two | paper 5.1 | `unit/test_raft_election.py::test_that_nobody_wrote` | |\n"
        "| three | paper 5.1 | `unit/test_no_such_file.py::test_that_nobody_wrote` | |\n"
        "| four | paper 5.1 | soon | |\n"
    )
    lost = missing(rows(table))
    assert [line.split(":")[0] for line in lost] == [
        "unit/test_raft_election.py",
        "unit/test_no_such_file.py",
        "no test or no section",
    ]
