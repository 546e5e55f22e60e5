"""A supervisor from a file of commands, or from a name in a Python module."""

import importlib
import os
import shlex
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from outlast.detect.child import Child, Grace
from outlast.detect.core.restarting import RestartBackoff
from outlast.detect.supervisor import Supervisor
from outlast.host.modules import import_line, load_file
from outlast.kernel import ConfigError

_FILE_BYTES_MAX: Final = 1 << 20
_FORM: Final = "FILE.toml, FILE.py:NAME or module:NAME"
_NUMBER: Final = (int, float)
_TREE: Final[dict[str, tuple[type, ...]]] = {
    "strategy": (str,), "intensity": (int,), "period": _NUMBER, "on_limit": (str,),
    "auto_shutdown": (str,), "name": (str,),
}  # fmt: skip
_BACKOFF: Final[dict[str, tuple[type, ...]]] = dict.fromkeys(
    ("base", "cap", "jitter", "reset_after"), _NUMBER
)
_CHILD: Final[dict[str, tuple[type, ...]]] = {
    "command": (str, list), "restart": (str,), "ready": (str, int), "start_timeout": _NUMBER,
    "progress": _NUMBER, "stop": _NUMBER, "stop_signal": (str,), "significant": (bool,),
    "final": (list,), "environment": (dict,), "directory": (str,), "output": (str,),
}  # fmt: skip


def load_supervisor(target: str) -> Supervisor:
    """Return the supervisor that ``target`` names.

    Args:
        target: A TOML file of commands, or ``FILE.py:NAME`` or ``module:NAME`` of a
            :class:`Supervisor`, or of a function without arguments that returns one.

    Raises:
        ConfigError: Definite. No such file or name, or what stands there is wrong.
    """
    if target.endswith(".toml"):
        return read_supervisor(_read(Path(target)), target, Path(target).parent)
    place, _, name = target.rpartition(":")
    if not place or not name or name.endswith(".py"):
        raise ConfigError(f"{target!r}: write {_FORM}")
    module = load_file(Path(place), form=_FORM) if place.endswith(".py") else _import(place)
    if not hasattr(module, name):
        near = get_close_matches(name, list(vars(module)), 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{place}: no {name!r}{hint}")
    found = getattr(module, name)
    if callable(found) and not isinstance(found, type):
        found = found()
    if not isinstance(found, Supervisor):
        raise ConfigError(f"{target}: is {type(found).__name__}, not a Supervisor")
    return found


def read_supervisor(text: str, place: str = "<text>", folder: Path | None = None) -> Supervisor:
    """Return the supervisor that a TOML text describes.

    Args:
        text: Tables ``[supervisor]``, ``[supervisor.backoff]`` and ``[children.NAME]`` in the
            order of start.
        place: What it is called in messages.
        folder: What relative directories and files of output are relative to.

    Raises:
        ConfigError: Definite. It is no TOML, or a key or value is wrong.
    """
    import tomllib

    try:
        whole = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{place}: {error}") from error
    _known(whole, {"supervisor": (dict,), "children": (dict,)}, place)
    settings = dict(whole.get("supervisor", {}))
    backoff = settings.pop("backoff", {})
    _known(settings, _TREE, f"{place}: supervisor")
    if not isinstance(backoff, dict):
        raise ConfigError(f"{place}: supervisor.backoff is {backoff!r}; a table")
    _known(backoff, _BACKOFF, f"{place}: supervisor.backoff")
    children = whole.get("children", {})
    if not children:
        raise ConfigError(f'{place}: no children; write [children.web] and command = ["…"]')
    return Supervisor(
        *(_child(name, table, place, folder) for name, table in children.items()),
        backoff=RestartBackoff(**backoff),
        **settings,
    )


def _child(name: str, table: Any, place: str, folder: Path | None) -> Child:
    where = f"{place}: children.{name}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is {table!r}; a table")
    _known(table, _CHILD, where)
    settings = dict(table)
    line = settings.pop("command", None)
    if isinstance(line, str):
        try:
            line = shlex.split(line)
        except ValueError as error:
            raise ConfigError(f"{where}: command is {line!r}: {error}") from error
    if not line or not all(isinstance(word, str) for word in line):
        raise ConfigError(f"{where}: command is {line!r}; a list of program and arguments")
    extra = settings.pop("environment", {})
    if not all(isinstance(value, str) for value in extra.values()):
        raise ConfigError(f"{where}: environment: every value is a text")
    base = Path.cwd() if folder is None else folder
    settings["directory"] = str(base / settings.get("directory", ""))
    output = settings.get("output", "inherit")
    if output not in {"inherit", "keep", "tee"}:
        settings["output"] = str(base / output)
    settings["final"] = tuple(settings.get("final", ()))
    seconds, word = settings.pop("stop", 5.0), settings.pop("stop_signal", "SIGTERM")
    settings["stop"] = Grace(seconds, _signal(word, where))
    return Child.command(name, line, environment={**os.environ, **extra}, **settings)


def _signal(word: str, where: str) -> int:
    import signal

    found = signal.Signals.__members__.get(word)
    if found is None:
        raise ConfigError(f"{where}: stop_signal is {word!r}; a name such as SIGTERM")
    return int(found)


def _known(table: Mapping[str, Any], known: Mapping[str, tuple[type, ...]], where: str) -> None:
    """Refuse keys that there are not, and values of another type."""
    for key, value in table.items():
        if key not in known:
            near = get_close_matches(key, known, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"{where}: no key {key!r}; {hint}")
        types = known[key]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            names = " or ".join(one.__name__ for one in types)
            raise ConfigError(f"{where}: {key} is {value!r}; {names}")


def _read(path: Path) -> str:
    if not path.is_file():
        near = get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], 1, 0.5)
        hint = f"did you mean {path.parent / near[0]}?" if near else f"write {_FORM}"
        raise ConfigError(f"{path}: no such file; {hint}")
    with path.open("rb") as file:
        raw = file.read(_FILE_BYTES_MAX + 1)
    if len(raw) > _FILE_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {_FILE_BYTES_MAX} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error


def _import(name: str) -> Any:
    import sys

    here = str(Path.cwd())
    if not {here, ""} & {*sys.path}:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(f"{name!r}: no such module; write {_FORM}") from None
        raise ConfigError(import_line(error, "")) from error
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(import_line(error, "")) from error
