"""From ``FILE.py:Class`` to a class: what is loaded, and what is said of what cannot be."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.drill.loader import load_drill
from outlast.drill.running import loading
from outlast.kernel import ConfigError

SHOP = """
from outlast import drill

class Shop(drill.Drill):
    nodes = drill.Nodes("shop")
    model = "set"

    @drill.operation
    async def add(self, client, value): ...
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    assert loading == [], "loading is over, however it ended"


def write(text: str, name: str = "drill_shop.py") -> None:
    Path(name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("target", ["drill_shop.py:Shop", "drill_shop.py"])
def test_a_class_is_found_by_its_name_or_because_it_is_the_only_one(target: str) -> None:
    write(SHOP)
    assert load_drill(target).__name__ == "Shop"


def test_a_file_by_its_whole_path_finds_its_neighbours(tmp_path: Path) -> None:
    folder = tmp_path / "other place"
    folder.mkdir()
    (folder / "neighbour.py").write_text("WORD = 'found'")
    (folder / "mine.py").write_text("from neighbour import WORD\n" + SHOP)
    found = load_drill(f"{folder}/mine.py:Shop")
    assert sys.modules[found.__module__].WORD == "found"


def test_a_file_that_runs_its_drill_at_the_end_is_only_loaded() -> None:
    write(SHOP + "\nreport = drill.run(Shop, seconds=60)\nraise SystemExit('not reached')\n")
    assert load_drill("drill_shop.py:Shop").__name__ == "Shop"
    assert not hasattr(sys.modules["drill_shop"], "report")


def test_the_example_is_only_loaded() -> None:
    example = Path(__file__).parents[2] / "examples" / "drill_shop.py"
    assert load_drill(f"{example}:Shop").promise() == "No acknowledged order is lost."


def test_a_drill_that_was_imported_is_not_one_of_the_files_own() -> None:
    write(SHOP, "base.py")
    write("from base import Shop\nclass Mine(Shop): ...\n")
    assert load_drill("drill_shop.py").__name__ == "Mine"


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        (SHOP, "drill_shop.py:Shp", r"drill_shop.py: no class 'Shp'; did you mean Shop\?"),
        (SHOP, "drill_shop.py:Zebra",
         "drill_shop.py: no class 'Zebra'; it has these Drills: Shop"),
        (SHOP + "\nclass Cart: ...", "drill_shop.py:Cart",
         r"drill_shop.py:Cart is not a Drill; write class Cart\(Drill\)"),
        (SHOP + "\nclass Two(Shop): ...", "drill_shop.py",
         "drill_shop.py: which class. It has these Drills: Shop, Two"),
        ("", "drill_shop.py", "drill_shop.py: which class. It has these Drills: none"),
        (SHOP, "drill_shp.py:Shop", r"drill_shp.py: no such file; did you mean drill_shop.py\?"),
        (SHOP, "zebra.py:Shop", "zebra.py: no such file; write FILE.py:Class"),
        (SHOP, "bnak", r"drill 'bnak': did you mean bank\? or write FILE.py:Class"),
        (SHOP, "zzz", "drill 'zzz': there is bank; or write FILE.py:Class"),
        ("x = (\n", "drill_shop.py", r"drill_shop.py:1: SyntaxError: '\(' was never closed"),
        ("\n\nimport no_such_thing\n", "drill_shop.py",
         "drill_shop.py:3: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("\n1 / 0\n", "drill_shop.py", "drill_shop.py:2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "drill_shop.py", "drill_shop.py:1: SystemExit: 3"),
        ("from outlast import drill\nn = drill.Nodes('x', count=0)", "drill_shop.py",
         "Nodes: count is 0; give 1 to 9"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_named_with_its_line_or_what_is_near(
    text: str, target: str, says: str
) -> None:
    write(text)
    with pytest.raises(ConfigError, match=says) as caught:
        load_drill(target)
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_called_like_a_file_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "drill_shop.py").mkdir()
    with pytest.raises(ConfigError, match=r"drill_shop\.py: no such file"):
        load_drill("drill_shop.py")
