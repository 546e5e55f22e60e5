"""The pages about drills say what the classes, the models and the report say."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from outlast import drill
from outlast.drill.core.generate import READS, WRITES
from outlast.drill.core.schedule import QUIET_END, SLOT_MAX, SLOT_MIN, least_seconds
from outlast.drill.core.verdict import INFO_SHARE_MAX
from outlast.testing.broken.node import BROKEN

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "drill.md").read_text(encoding="utf-8")
HOW_TO = (DOCS / "how-to" / "drill.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return REFERENCE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> dict[str, str]:
    """First and second cells of the table rows of a text whose first cell is one piece of code."""
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.M))


def attributes(cls: type) -> dict[str, Any]:
    return {name: vars(cls).get(name) for name in cls.__annotations__}


@pytest.mark.parametrize("cls", [drill.Drill, drill.Workload])
def test_every_attribute_is_on_the_page_with_its_default(cls: type) -> None:
    listed = rows(section(cls.__name__))
    known = attributes(cls)
    assert known.keys() == listed.keys()
    for name, value in known.items():
        if isinstance(value, bool | float | int) or name in {"model", "serves_with"}:
            assert listed[name] == (f'`"{value}"`' if isinstance(value, str) else str_of(value))


def str_of(value: object) -> str:
    return f"`{value}`" if isinstance(value, bool) else str(value)


def test_every_argument_of_nodes_is_on_the_page() -> None:
    listed = rows(section("Nodes"))
    assert [field.name for field in dataclasses.fields(drill.Nodes)] == [*listed]


def test_every_field_of_the_report_is_on_the_page() -> None:
    text = section("JSON")
    words = set(re.findall(r"\w+", text))
    for cls in (drill.Report, drill.FaultReport, drill.WorkloadReport, drill.InvariantReport):
        missing = {field.name for field in dataclasses.fields(cls)} - words
        assert not missing, cls.__name__


def test_the_how_to_has_every_operation_of_every_model() -> None:
    found = dict(re.findall(r"^\| `(\w+)` \| (`\w+\(client.*?) \| ", HOW_TO, re.M))
    assert found.keys() == READS.keys()
    for model, cell in found.items():
        shown = set(re.findall(r"`(\w+)\(client", cell))
        # the map's other names for the same: said once, in the reference of histories
        assert (READS[model] | WRITES[model]) - shown <= {"read", "write"}
        assert shown <= READS[model] | WRITES[model]


def test_the_how_to_has_every_broken_target() -> None:
    assert set(re.findall(r"`broken-([\w-]+)`", HOW_TO)) == {*BROKEN}


def test_numbers_of_the_rules_are_those_in_force() -> None:
    assert f"{INFO_SHARE_MAX:.0%} of all".replace("%", " %") in section("Verdicts")
    schedule = " ".join(section("Schedule").split())
    assert f"at least {SLOT_MIN:g} seconds and in long drills of about {SLOT_MAX:g}:" in schedule
    assert f"last {QUIET_END:g} seconds" in schedule
    assert f"{least_seconds(0):g} + {SLOT_MIN:g}*n* seconds" in schedule
    assert f"needs {SLOT_MIN:g} seconds with the recovery" in HOW_TO
