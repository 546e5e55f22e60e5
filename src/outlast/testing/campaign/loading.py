"""From ``test_shop.py::test_orders`` on a command line to what runs, in any process."""

import importlib
import inspect
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast.host.modules import import_line, load_file
from outlast.kernel import ConfigError
from outlast.testing.campaign.model import Outcome, Runnable, Trace

MARK = "__outlast_sim__"
"""Attribute of a test made by ``@sim.test``: its case."""
_FORM = "FILE.py::test_name"


@dataclass(frozen=True, slots=True)
class Origin:
    """How any process finds the same runnables.

    Args:
        factory: ``module:function``, which returns them in order.
        options: Its keyword arguments: plain data.
    """

    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Sequence[Runnable]:
        """Call the factory.

        Raises:
            ConfigError: Definite. What the factory says is wrong with the options.
        """
        module, _, name = self.factory.partition(":")
        make: Callable[..., Sequence[Runnable]] = getattr(importlib.import_module(module), name)
        return make(**self.options)

    def one(self, name: str) -> Runnable:
        """Return the runnable called ``name``.

        Raises:
            ConfigError: Definite. There is none.
        """
        for runnable in self.load():
            if runnable.name == name:
                return runnable
        message = f"{self.factory} gives nothing called {name!r} in this process"
        raise ConfigError(message)


class TestRun:
    """A test function made by ``@sim.test``, outside of pytest.

    Args:
        name: Of the function.
        place: How the command line names it.
        case: What the decorator left on it.
    """

    __slots__ = ("case", "command", "faults", "first", "name", "place", "seeds", "sometimes")
    __test__ = False  # for pytest, which would take the class for a test

    def __init__(self, name: str, place: str, case: Any) -> None:
        self.name = name
        self.place = place
        self.command = shlex.join(["outlast", "sim", place])
        self.case = case
        self.first: int = case.first
        self.seeds: int = case.seeds
        self.faults: Sequence[str] = tuple(str(fault) for fault in case.options.faults)
        self.sometimes: Sequence[str] = ()  # a run itself says what has not happened in it

    def run(
        self, seed: int, *, only: frozenset[int] | None = None, trace: Trace | None = None
    ) -> Outcome:
        """Run the case; see :class:`Runnable`."""
        outcome: Outcome = self.case.run(seed, only=only, trace=trace)
        return outcome


def origin_of(target: str) -> Origin:
    """Return how processes find the tests of ``target``."""
    return Origin(f"{__name__}:find_tests", {"target": target})


def find_tests(target: str) -> list[TestRun]:
    """Return the simulation tests that ``target`` names.

    Args:
        target: ``FILE.py`` (all of them, as they stand there), ``FILE.py::test``,
            ``FILE.py:test``, ``package.module`` or ``package.module:test``.

    Raises:
        ConfigError: Definite. No such file, module or test (close names are offered), the file
            raised, or the test takes what only pytest can give.
    """
    place, name = _parts(target)
    module = load_file(Path(place), form=_FORM) if place.endswith(".py") else _import(place)
    found = {
        key: value
        for key, value in vars(module).items()
        if hasattr(value, MARK) and getattr(value, "__module__", None) == module.__name__
    }
    if name:
        chosen = vars(module).get(name)
        if chosen is None:
            near = get_close_matches(name, [*found, *vars(module)], 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"it has {_names(found)}"
            message = f"{place}: no test {name!r}; {hint}"
            raise ConfigError(message)
        if not hasattr(chosen, MARK):
            message = f"{place}:{name} is no simulation test; put @sim.test(…) above it"
            raise ConfigError(message)
        found = {name: chosen}
    if not found:
        message = f"{place}: no simulation test in it; put @sim.test(…) above an async function"
        raise ConfigError(message)
    return [_made(place, key, value) for key, value in found.items()]


def _parts(target: str) -> tuple[str, str]:
    place, double, name = target.partition("::")
    if not double:
        place, _, name = target.rpartition(":")
        if not place or name.endswith(".py") or os.sep in name:
            place, name = target, ""
    return place, name


def _import(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            message = f"{place!r}: no such module; write {_FORM} or package.module:test_name"
            raise ConfigError(message) from None
        raise ConfigError(import_line(error, "")) from error
    except Exception as error:
        raise ConfigError(import_line(error, "")) from error


def _made(place: str, name: str, function: Any) -> TestRun:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
    ]
    if needed:
        message = (
            f"{place}:{name} takes {', '.join(needed)}, which only pytest can give:"
            f" pytest {place}::{name} --sim-seeds N"
        )
        raise ConfigError(message)
    return TestRun(name, f"{place}::{name}", getattr(function, MARK))


def _names(found: Mapping[str, Any]) -> str:
    return ", ".join(found) or "no simulation test at all"
