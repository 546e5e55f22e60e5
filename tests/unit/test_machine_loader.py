"""``FILE.py:Class`` to a class, and the one line when it does not work."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.kernel import ConfigError
from outlast.state.loader import load_machine
from outlast.state.ready.kv import Kv

GOOD = """
from dataclasses import dataclass
from outlast.state import StateMachine, command
import loader_neighbour

@dataclass
class Tally(StateMachine):
    count: int = loader_neighbour.ZERO
    @command
    def add(self) -> int:
        self.count += 1
        return self.count

class Other: ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path, modules = list(sys.path), dict(sys.modules)
    (tmp_path / "tally_machine.py").write_text(GOOD)
    (tmp_path / "loader_neighbour.py").write_text("ZERO = 0\n")
    yield tmp_path
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]


def refused(target: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_machine(str(target))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_and_class_are_loaded_once_with_their_neighbours(folder: Path) -> None:
    cls = load_machine(f"{folder}/tally_machine.py:Tally")
    assert cls().add() == 1  # type: ignore[attr-defined]
    assert load_machine(f"{folder}/tally_machine.py:Tally") is cls
    assert load_machine(f"{folder}/tally_machine.py") is cls


def test_a_module_and_a_ready_machine_are_loaded_by_name() -> None:
    assert load_machine("kv") is load_machine("outlast.state.ready.kv:Kv") is Kv


def test_a_file_that_is_not_there_offers_a_close_name(folder: Path) -> None:
    assert refused(f"{folder}/taly_machine.py:Tally") == (
        f"{folder}/taly_machine.py: no such file; did you mean {folder}/tally_machine.py?"
    )
    assert refused("nowhere/zzz.py:Bank") == "nowhere/zzz.py: no such file; write FILE.py:Class"


def test_a_class_that_is_not_there_offers_a_close_name(folder: Path) -> None:
    place = f"{folder}/tally_machine.py"
    assert refused(f"{place}:Taly") == f"{place}: no class 'Taly'; did you mean Tally?"
    assert refused(f"{place}:Zzzz").endswith("it has these StateMachines: Tally")
    assert refused(f"{place}:Other").endswith(
        ":Other is not a StateMachine; write class Other(StateMachine)"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\ny = nothing\n", r"broken_machine.py:2: NameError: name 'nothing' is not defined"),
        ("def f(:\n", r"broken_machine.py:1: SyntaxError: "),
        ("import sys\nsys.exit(3)\n", r"broken_machine.py:2: SystemExit: 3"),
        ("import not_installed_x\n", r"broken_machine.py:1: ModuleNotFoundError: No module"),
    ],
)
def test_an_error_of_the_users_file_is_named_with_its_line(
    folder: Path, text: str, line: str
) -> None:
    (folder / "broken_machine.py").write_text(text)
    assert re.search(line, refused(f"{folder}/broken_machine.py"))
    assert "broken_machine" not in sys.modules


def test_a_file_without_a_machine_says_so(folder: Path) -> None:
    (folder / "empty_machine.py").write_text("")
    assert refused(f"{folder}/empty_machine.py").endswith(
        "which class? It has these StateMachines: none"
    )


def test_a_refused_class_keeps_its_own_line(folder: Path) -> None:
    (folder / "bad_machine.py").write_text(
        "from outlast.state import StateMachine\nclass Bad(StateMachine):\n    seen: set[str]\n"
    )
    assert refused(f"{folder}/bad_machine.py:Bad") == (
        "bad_machine.py:Bad: field 'seen' is set[str]; iteration order differs between nodes; "
        "use dict[str, None]"
    )


def test_an_unknown_short_name_says_what_there_is() -> None:
    assert refused("kvv").startswith(
        "'kvv': no such module, and no ready machine (there is: bank, kv)"
    )
    assert refused("no_such_module_x:Bank").startswith("'no_such_module_x': no such module")
