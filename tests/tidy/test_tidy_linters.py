"""Style, types and import contracts hold over the whole tree."""

import pytest

from tools import lint


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(lint.LINTERS))
def test_linter_agrees(name: str) -> None:
    agreed, text = lint.LINTERS[name]()
    assert agreed, f"make lint: {name} objects\n{text}"


def test_every_contract_takes_effect_once_its_rooms_are_written() -> None:
    assert {"rooms", "pure", "engines"} <= set(lint.contracts())
    rooms = ("sim", "testing", "drill", "cli")
    everything = all(lint.written(f"outlast.{room}") for room in rooms)
    assert ("sim" in lint.contracts()) == everything
