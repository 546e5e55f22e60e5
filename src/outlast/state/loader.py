"""From ``bank.py:Bank`` on a command line to the class, with one line when it does not work."""

import importlib
import importlib.util
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from outlast.kernel import ConfigError
from outlast.state.machine import StateMachine
from outlast.state.spec import machine_spec

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


def load_file(path: Path, *, until: type[BaseException] | tuple[()] = ()) -> ModuleType:
    """Run a Python file as a module and return it.

    Args:
        path: The file. Its directory is put first on ``sys.path``.
        until: What the file may raise to say that nothing after it is wanted: what was defined
            before stands in the module.

    Raises:
        ConfigError: No such file (near names are offered), or what it raised, with its line.
    """
    if not path.is_file():
        folder = path.parent
        near = get_close_matches(path.name, [p.name for p in folder.glob("*.py")] or [], 1, 0.5)
        hint = f"; did you mean {folder / near[0]}?" if near else "; write FILE.py:Class"
        raise ConfigError(f"{path}: no such file{hint}")
    path = path.resolve()
    name = path.stem
    kept = sys.modules.get(name)
    if kept is not None:
        file = getattr(kept, "__file__", None)
        if file is not None and Path(file).resolve() == path:
            return kept
        name = f"outlast_machine_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} cannot be imported as Python; write FILE.py:Class")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except until:
        pass
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, ConfigError) or not isinstance(error, Exception | SystemExit):
            raise
        raise ConfigError(_import_line(error, str(path))) from error
    return module


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
        raise ConfigError(_import_line(error, "")) from error
    except Exception as error:
        raise ConfigError(_import_line(error, "")) from error


def _import_line(error: BaseException, file: str) -> str:
    """Say what the user's file raised, at the deepest line that is in it."""
    said = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(": ")
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or file).name}:{error.lineno}: SyntaxError: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    frames[:] = [frame for frame in frames if "importlib" not in frame.filename]
    own = [frame for frame in frames if not file or Path(frame.filename) == Path(file)]
    for frame in reversed(own or frames):
        return f"{Path(frame.filename).name}:{frame.lineno}: {said}"
    return f"{file}: {said}"


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
