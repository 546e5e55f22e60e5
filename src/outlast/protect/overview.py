"""Policies of an application at a glance: settings with where they come from, and live state."""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from types import ModuleType
from typing import Any, Final

from outlast.host.modules import import_line, load_file
from outlast.kernel import ConfigError
from outlast.kernel.registry import kind_of, watched
from outlast.protect.convert import arguments_of
from outlast.protect.core.settings import Path, near
from outlast.protect.part import Part, plain
from outlast.protect.settings import origin_of

_BYTES_MAX: Final = 4 << 20
_SECONDS: Final = 5.0
_FORM: Final = "FILE.py, FILE.py:NAME, module or module:NAME"


def overview(things: Iterable[Any] | None = None) -> list[dict[str, Any]]:
    """Return one row for each policy, and for each named part that no shown policy has.

    A row has ``kind``, ``name``, ``position`` (empty for a policy), ``settings`` (flat: full key
    below the policy to value), ``origins`` (the same keys: ``default``, ``program``, a file or a
    variable), ``state`` and ``lint`` (of policies: what is probably not meant). Values are such
    that JSON knows them. What cannot be read has an ``error`` instead.

    Args:
        things: Policies and parts; all that are alive by default.
    """
    shown = list(watched() if things is None else things)
    inside = {id(part) for one in shown for part in getattr(one, "parts", {}).values()}
    return [_row(one) for one in shown if id(one) not in inside]


def overview_json(things: Iterable[Any] | None = None) -> bytes:
    """Return :func:`overview` as a service answers it, for ``outlast policies --url`` to read."""
    import json

    return json.dumps({"schema": 1, "policies": overview(things)}, default=str).encode()


def _row(thing: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": kind_of(thing),
        "name": str(getattr(thing, "name", "")),
        "position": str(getattr(thing, "position", "")),
        "settings": {},
        "origins": {},
        "state": {},
        "lint": [],
    }
    try:
        if not hasattr(thing, "parts"):
            found = _settings_of(thing, (), "")
        else:
            found = _policy_settings(thing)
        row["settings"] = {".".join(path): value for path, (value, _) in found.items()}
        row["origins"] = {".".join(path): origin for path, (_, origin) in found.items()}
        state = {key: value for key, value in thing.snapshot().items() if key != "name"}
        row["state"] = {".".join(path): value for path, value in _flat(state)}
        if hasattr(thing, "parts"):
            row["lint"] = [_finding(one) for one in thing.lint()]
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
    return row


def _policy_settings(policy: Any) -> dict[Path, tuple[Any, str]]:
    found: dict[Path, tuple[Any, str]] = {}
    for key in ("timeout", "attempt_timeout"):
        value = getattr(policy, key)
        given = "default" if value is None else "program"
        found[key,] = (plain(value), origin_of(policy.name, (key,)) or given)
    for position, part in policy.parts.items():
        found[position, "kind"] = (type(part).__name__, "program")
        found.update(_settings_of(part, (position,), policy.name))
    return found


def _settings_of(part: Any, path: Path, policy: str) -> dict[Path, tuple[Any, str]]:
    described = {key: value for key, value in part.describe().items() if key != "kind"}
    usual = _defaults(part)
    found: dict[Path, tuple[Any, str]] = {}
    for key, value in described.items():
        inner = getattr(part, key, None)
        if isinstance(inner, Part):
            found.update(_settings_of(inner, (*path, key), policy))
            continue
        given = "default" if key in usual and usual[key] == value else "program"
        found[*path, key] = (value, _origin(policy, (*path, key)) or given)
    budget = getattr(part, "budget", None)
    if isinstance(budget, Part) and "budget" not in described:
        found.update(_settings_of(budget, (*path, "budget"), policy))
    return found


def _origin(policy: str, path: Path) -> str | None:
    """Return where a value is from; that of a window stands below it."""
    below = [(*path, key) for key in ("calls", "seconds", "buckets")]
    found = (origin_of(policy, one) for one in (path, *(below if path[-1] == "window" else ())))
    return next((origin for origin in found if origin is not None), None)


def _defaults(part: Any) -> Mapping[str, Any]:
    """Return what a part made with nothing but what it must be given says of itself."""
    needed = [
        name
        for name, parameter in arguments_of(type(part)).items()
        if parameter.default is parameter.empty
    ]
    try:
        usual = type(part)(**{name: getattr(part, name) for name in needed}).describe()
    except Exception:
        return {}
    return {key: value for key, value in usual.items() if key not in needed}


def _flat(state: Mapping[str, Any], path: Path = ()) -> Iterable[tuple[Path, Any]]:
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*path, str(key)))
        else:
            yield (*path, str(key)), plain(value)


def _finding(finding: Any) -> dict[str, str]:
    known = ("level", "where", "text", "advice")
    found = {key: str(getattr(finding, key)) for key in known if hasattr(finding, key)}
    return {**found, "line": " ".join(str(finding).split())}


# --- of another module or process ----------------------------------------------------------------


def load_policies(target: str) -> list[Any]:
    """Import a module and return the policies and named parts that it has.

    Args:
        target: ``FILE.py`` or ``package.module``: all that it made, wherever that lies; with
            ``:NAME`` that one alone.

    Raises:
        ConfigError: Definite. There is no such file, module or name (near ones are offered), it
            is no policy, or the module itself raised (its line is named).
    """
    place, _, name = target.rpartition(":")
    if not place:
        place, name = name, ""
    before = {id(thing) for thing in watched()}
    module = load_file(FilePath(place), form=_FORM) if place.endswith(".py") else _module(place)
    own = {key: value for key, value in vars(module).items() if _worth_showing(value)}
    if name:
        if name not in vars(module):
            raise ConfigError(f"{place}: no {name!r}; {near(name, own, 'no policy')}")
        if not _worth_showing(vars(module)[name], named=False):
            raise ConfigError(f"{place}:{name} is no Policy and no part of one")
        return [vars(module)[name]]
    new = [thing for thing in watched() if id(thing) not in before and _worth_showing(thing)]
    found = {id(thing): thing for thing in [*own.values(), *new]}
    return list(found.values())


def _worth_showing(value: Any, *, named: bool = True) -> bool:
    from outlast.protect.policy import Policy

    if isinstance(value, Policy):
        return True
    return isinstance(value, Part) and (bool(value.name) or not named)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(f"{name!r}: no such module; write {_FORM}") from None
        raise ConfigError(import_line(error, "")) from error
    except Exception as error:
        raise ConfigError(import_line(error, "")) from error


def fetch_policies(url: str) -> list[dict[str, Any]]:
    """Return the rows that a running service answers at ``url``; see :func:`overview`.

    Raises:
        ConfigError: Definite. ``url`` is none of HTTP, nobody answers there within 5 s, or the
            answer is something else.
    """
    import json
    from http.client import HTTPException
    from urllib.request import urlopen

    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {url}: http://HOST:PORT/PATH would be right")
    try:
        with urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - the scheme is checked
            data = answer.read(_BYTES_MAX + 1)
        rows = json.loads(data)["policies"] if len(data) <= _BYTES_MAX else None
    except (OSError, HTTPException) as error:
        raise ConfigError(f"--url {url}: {getattr(error, 'reason', error)}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        rows = None
    kinds = {"kind": str, "name": str, "settings": dict, "state": dict}
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and all(isinstance(row.get(key), k) for key, k in kinds.items())
        for row in rows
    ):
        raise ConfigError(f"--url {url}: the answer is no list of policies")
    return rows
