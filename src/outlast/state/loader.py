"""From ``bank.py:Bank`` on a command line to the class, with one line when it does not work."""

import importlib
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from outlast.host.modules import import_line, load_file
from outlast.kernel import ConfigError
from outlast.state.machine import StateMachine
from outlast.state.spec import machine_spec

__all__ = ["READY", "choose_class", "load_file", "load_machine"]

T = TypeVar("T")

READY = {"bank": "outlast.state.ready.bank:Bank", "kv": "outlast.state.ready.kv:Kv"}
"""Machines that are served by a short name."""


def load_machine(target: str) -> type[StateMachine]:
    """Return the machine class that ``target`` names, checked by :func:`machine_spec`.

    Args:
        target: ``path/bank.py:Bank``, ``package.module:Bank``, or a ready machine (``kv``). The
            class may be left out when the file has exactly one. The file's directory is put
            first on ``sys.path``, so that it can import its neighbours.

    Raises:
        ConfigError: No such file, module or class (close names are offered), not a
            StateMachine, the file itself raised (its line is named), or the class is refused.
    """
    place, _, name = READY.get(target, target).rpartition(":")
    if not place:
        place, name = name, ""
    elif name.endswith(".py"):
        place, name = f"{place}:{name}", ""
    module = load_file(Path(place)) if place.endswith(".py") else _from_name(place)
    cls = choose_class(place, name, module, StateMachine)
    machine_spec(cls)
    return cls


def _from_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            ready = ", ".join(READY)
            raise ConfigError(
                f"{name!r}: no such module, and no ready machine (there is: {ready}); write "
                f"FILE.py:Class"
            ) from None
        raise ConfigError(import_line(error, "")) from error
    except Exception as error:
        raise ConfigError(import_line(error, "")) from error


def choose_class(place: str, name: str, module: ModuleType, base: type[T]) -> type[T]:
    """Return the subclass of ``base`` called ``name``, or the only one that ``module`` defines.

    Raises:
        ConfigError: There is none of that name (near ones are offered), several, or another
            kind of class.
    """
    word = base.__name__
    own = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
    }
    if not name:
        if len(own) == 1:
            return next(iter(own.values()))
        raise ConfigError(f"{place}: which class? It has these {word}s: {_names(own)}")
    cls: Any = vars(module).get(name)
    if cls is None:
        known = [key for key, value in vars(module).items() if isinstance(value, type)]
        near = get_close_matches(name, [*own, *known], 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"it has these {word}s: {_names(own)}"
        raise ConfigError(f"{place}: no class {name!r}; {hint}")
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ConfigError(f"{place}:{name} is not a {word}; write class {name}({word})")
    return cls


def _names(found: dict[str, type[T]]) -> str:
    return ", ".join(found) or "none"
