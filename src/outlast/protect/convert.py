"""From what stands in a file to what a part takes: names of classes and functions are imported."""

import inspect
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakValueDictionary

from outlast.kernel import ConfigError
from outlast.protect.core.settings import (
    PARTS,
    Setting,
    fits,
    from_text,
    near,
    optional,
    unknown,
    words_for,
)
from outlast.protect.part import Part

if TYPE_CHECKING:
    from outlast.protect.store import KeyedStore

Node = Setting | dict[str, Any]

_EXCEPTIONS: Final = ("on", "counts", "errors", "error")
"""Arguments that name exception classes."""
_BUDGET: Final = "budget"
_STORE: Final = "store"
_stores: "WeakValueDictionary[str, KeyedStore]" = WeakValueDictionary()
"""By what settings say of them: parts with one url have one store, for as long as it is used."""
_WINDOWS: Final = "a window is {calls = 100} or {seconds = 30}"


def arguments_of(cls: type) -> dict[str, inspect.Parameter]:
    """Return what the constructor of a part takes."""
    found = dict(inspect.signature(cls).parameters)
    found.pop("self", None)
    return {
        name: parameter
        for name, parameter in found.items()
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    }


def convert(cls: type, name: str, node: Node) -> Any:
    """Return the value of the argument ``name`` of ``cls`` that ``node`` stands for.

    Exceptions are dotted names (``"httpx.TransportError"``, ``"OSError"``), functions are
    ``{import = "module:name"}``, a window is ``{calls = 100}`` or
    ``{seconds = 30, buckets = 10}``, a budget is a table, a store is a url (``"redis://…"``) or
    ``{url = "redis://…", quorum = 0.5}``. ``"none"`` is ``None`` where that is allowed and text
    is not.

    Raises:
        ConfigError: Definite. It does not fit, or cannot be imported.
    """
    first = first_of(node)
    parameters = arguments_of(cls)
    if name not in parameters:
        raise unknown(first, name, parameters)
    if name == _STORE and (isinstance(node, dict) or isinstance(node.value, str | int | list)):
        return _store(node)
    if isinstance(node, dict):
        if set(node) == {"import"}:
            return imported(first, str(first.value))
        if name == "window":
            return _window(node)
        if name == _BUDGET:
            where = f"{first.said}: {first.key.rpartition('.')[0]}"
            return build("outlast.protect.budget:Budget", node, where)
        raise ConfigError(f"{first.said}: {first.key}: {name} has nothing below it")
    wanted = parameters[name].annotation
    value = node.value
    if value == {}:
        where = f"{node.said}: {node.key}"
        return build("outlast.protect.budget:Budget", {}, where) if name == _BUDGET else value
    if name in _EXCEPTIONS and isinstance(value, str | list | tuple):
        return _exceptions(node)
    if isinstance(value, str) and node.origin.startswith("OUTLAST_"):
        value = from_text(value, wanted)
    if isinstance(value, str) and value.lower() == "none" and optional(wanted):
        value = None
    if not fits(value, wanted):
        window = name == "window" and not fits(1, wanted)
        raise node.wrong(_WINDOWS if window else words_for(wanted))
    return value


def first_of(node: Node) -> Setting:
    """Return a setting that messages can name."""
    while isinstance(node, dict):
        node = next(iter(node.values()))
    return node


def imported(setting: Setting, dotted: str) -> Any:
    """Return what ``module:name`` or ``module.name`` names; a builtin without a module.

    Raises:
        ConfigError: Definite. There is no such module or name.
    """
    place, colon, name = dotted.partition(":")
    if not colon:
        place, _, name = dotted.rpartition(".")
    found: Any = None
    try:
        found = import_module(place or "builtins")
        for step in name.split("."):
            found = getattr(found, step)
    except ImportError as error:
        raise setting.wrong(f"cannot import {place!r}: {error}") from error
    except AttributeError as error:
        hint = near(name.rpartition(".")[2], dir(found)) if place else "write module.Name"
        hint = hint if hint.startswith("did") or not place else f"{place} has no such name"
        raise setting.wrong(f"no {name!r} in {place or 'builtins'}; {hint}") from error
    except Exception as error:
        raise setting.wrong(
            f"importing {place!r} raised {type(error).__name__}: {error}"
        ) from error
    return found


def warm(settings: Iterable[Setting]) -> None:
    """Import what settings name, before a lock is taken; errors come up where it is used."""
    for setting in settings:
        with suppress(ConfigError):
            if setting.path[-1] == "import":
                imported(setting, str(setting.value))
            elif setting.path[-1] in _EXCEPTIONS and isinstance(setting.value, str | list | tuple):
                _exceptions(setting)


def _exceptions(setting: Setting) -> Any:
    value = setting.value
    names = value.split(",") if isinstance(value, str) else value
    found = []
    for name in names:
        if not isinstance(name, str):
            raise setting.wrong("names of exception classes would be right")
        one = imported(setting, name.strip())
        if not (isinstance(one, type) and issubclass(one, BaseException)) and len(names) > 1:
            raise setting.wrong(f"{name.strip()} is no exception class")
        found.append(one)
    return found[0] if len(found) == 1 else tuple(found)


def _store(node: Node) -> "KeyedStore | None":
    """Return the store that settings name."""
    from outlast.protect.store import open_store

    below = {"url": node} if isinstance(node, Setting) else node
    first = first_of(below)
    if set(below) == {"import"}:
        return imported(first, str(first.value))  # type: ignore[no-any-return]
    values = {key: one.value for key, one in below.items() if isinstance(one, Setting)}
    url = values.pop("url", None)
    if not isinstance(url, str):
        raise ConfigError(f"{first.said}: {first.key}: a store needs its url, such as redis://…")
    if url.lower() == "none" and not values:
        return None
    said = repr((url, sorted(values.items())))
    found = _stores.get(said)
    if found is not None:
        return found
    try:
        made = open_store(url, **values)
    except ConfigError as error:
        # Without the value, in which a password may stand.
        raise ConfigError(f"{first.said}: {first.key}: {error}") from error
    except TypeError as error:
        raise ConfigError(f"{first.said}: {first.key}: no such setting of a store") from error
    return _stores.setdefault(said, cast("KeyedStore", made))


def _window(node: dict[str, Any]) -> Any:
    from outlast.protect.core.window import CountWindow, TimeWindow

    values = {key: one.value for key, one in node.items() if isinstance(one, Setting)}
    first = first_of(node)
    try:
        if set(values) == {"calls"}:
            return CountWindow(values["calls"])
        if "seconds" in values and set(values) <= {"seconds", "buckets"}:
            return TimeWindow(**values)
    except ConfigError as error:
        raise ConfigError(f"{first.said}: {first.key}: {error}") from error
    except TypeError as error:
        raise first.wrong("a number would be right") from error
    raise ConfigError(f"{first.said}: {first.key}: {_WINDOWS}")


def part_class(position: str, node: Mapping[str, Any]) -> str:
    """Return ``module:class`` for a part of this position; ``kind`` in its table chooses.

    Raises:
        ConfigError: Definite. There is no such kind.
    """
    kinds = PARTS[position]
    kind = node.get("kind")
    if kind is None:
        return f"outlast.protect.{kinds['']}"
    if not isinstance(kind, Setting) or kind.value not in kinds or not kind.value:
        setting = first_of(kind if kind is not None else {})
        raise setting.wrong(
            near(str(setting.value), [k for k in kinds if k], "only the usual one")
        )
    return f"outlast.protect.{kinds[kind.value]}"


def build(place: str, node: Mapping[str, Any], where: str) -> Part:
    """Return the part of class ``place`` (``module:class``) with the settings in ``node``.

    Args:
        place: ``module:class``.
        node: Its settings by argument.
        where: The key of the table they stand in, for messages.

    Raises:
        ConfigError: Definite. A setting is unknown, missing or wrong; its full key is named.
    """
    from outlast.protect.core.settings import rename

    module, _, name = place.partition(":")
    cls = getattr(import_module(module), name)
    given = {key: one for key, one in node.items() if key != "kind"}
    values = {key: convert(cls, key, one) for key, one in given.items()}
    settings = [first_of(one) for one in given.values()]
    for key, parameter in arguments_of(cls).items():
        if parameter.default is parameter.empty and key not in values:
            raise ConfigError(f"{where}.{key} is missing; {name} has no default for it")
    try:
        made: Part = cls(**values)
    except ConfigError as error:
        raise ConfigError(rename(str(error), name, settings)) from error
    except (TypeError, ValueError) as error:
        said = ", ".join(f"{one.key} = {one.shown}" for one in settings)
        raise ConfigError(f"{said or name}: {error}") from error
    return made
