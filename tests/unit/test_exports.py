"""``import outlast`` is light and lazy, and names what is missing."""

import ast
import builtins
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import outlast
from outlast.kernel import ConfigError, errors

SOURCE = Path(outlast.__file__)
pytestmark = pytest.mark.timeout(120)  # some start an interpreter


def run(program: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def checked_names() -> set[str]:
    """The names that type checkers see: those of the imports under TYPE_CHECKING."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    block = next(
        node
        for node in tree.body
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )
    names = {
        alias.asname or alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return names | {
        node.target.id
        for node in block.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def test_importing_the_package_loads_nothing_else() -> None:
    program = (
        "import sys; before = set(sys.modules); import outlast;"
        "print(sorted(set(sys.modules) - before - {'outlast', 'typing'}))"
    )
    loaded = ast.literal_eval(run(program))
    ours = [name for name in loaded if name.startswith("outlast.")]
    heavy = {"asyncio", "dataclasses", "inspect", "msgspec", "importlib.metadata", "logging"}
    assert not ours
    assert not heavy & set(loaded)


def test_an_error_class_needs_no_other_package() -> None:
    program = (
        "import sys, outlast; outlast.CommandError;"
        "print([m for m in ('msgspec', 'crc32c', 'asyncio', 'rich') if m in sys.modules])"
    )
    assert run(program) == "[]"


def test_checkers_see_exactly_the_names_of_the_table() -> None:
    assert checked_names() == {*outlast.__all__, "open"}


def test_a_star_import_leaves_the_builtins_alone() -> None:
    program = "import builtins; from outlast import *; print(open is builtins.open)"
    assert run(program) == "True"
    assert not set(outlast.__all__) & set(dir(builtins))


def test_a_durable_object_is_opened_by_its_full_name() -> None:
    from outlast.state import open as opener

    assert outlast.open is opener
    assert "open" in dir(outlast)


@pytest.mark.parametrize("name", outlast.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    assert getattr(outlast, name) is not None
    assert getattr(outlast, name) is getattr(outlast, name)


def test_every_error_of_the_kernel_is_exported() -> None:
    public = {row.name for row in errors.ERROR_TABLE}
    assert public <= set(outlast.__all__)


def test_names_are_the_objects_of_their_rooms() -> None:
    for module, name in (
        ("outlast.state", "StateMachine"),
        ("outlast.kernel", "happened"),
        ("outlast.cluster.connect", "connect"),
        ("outlast.protect", "deadline"),
    ):
        assert getattr(outlast, name) is getattr(importlib.import_module(module), name)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="'outlast' has no attribute 'nothing'"):
        _ = outlast.nothing


def test_dir_lists_names_that_are_not_imported_yet() -> None:
    assert run("import outlast; print({'connect', 'StateMachine'} <= set(dir(outlast)))") == "True"


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert outlast.__version__ == version("outlast")


def test_a_missing_extra_names_the_command_that_installs_it() -> None:
    program = """
import sys
sys.modules["msgspec"] = None
import outlast
try:
    outlast.StateMachine
except outlast.ConfigError as error:
    print(error)
"""
    expected = 'outlast.StateMachine needs msgspec: pip install "outlast[client]"'
    assert run(program) == expected


def test_every_dependency_of_an_extra_has_its_hint() -> None:
    import tomllib

    root = Path(__file__).resolve().parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for package, extra in outlast._EXTRA.items():
        listed = " ".join(extras[extra])
        assert package.replace("_", "-") in listed, package


def test_a_bug_in_a_module_of_ours_is_not_called_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "outlast.blocking", None)
    monkeypatch.delitem(vars(outlast), "blocking", raising=False)
    with pytest.raises(ModuleNotFoundError) as caught:
        _ = outlast.blocking
    assert not isinstance(caught.value, ConfigError)
