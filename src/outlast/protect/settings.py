"""Settings of named policies from files and the environment, also while they are in use.

``configure()`` changes the policies that are alive and keeps what it was told for those that are
made later. State stays: an open breaker is open, permits are held, a rate limit remembers.
"""

import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from outlast.kernel import ConfigError, current_world
from outlast.kernel.registry import on_watch, watched
from outlast.protect.convert import Node, build, convert, first_of, part_class, warm
from outlast.protect.core.settings import (
    LIMITS_OF_TIME,
    PARTS,
    POLICIES_MAX,
    PREFIX,
    Path,
    Setting,
    fits,
    from_text,
    gather,
    key_of,
    match_variable,
    merge,
    near,
    read_mapping,
    rename,
    unknown,
    words_for,
)
from outlast.protect.part import Part, plain

if TYPE_CHECKING:
    from outlast.protect.policy import Policy

FILES: Final = ("pyproject.toml", "outlast.toml")
"""Read from the working directory; the later one wins."""
_FILE_BYTES_MAX: Final = 1 << 20
_TIME: Final = float | None


class Changed(NamedTuple):
    """One setting that was changed: its full key, the values, and where the new one is from."""

    policy: str
    key: str
    before: Any
    after: Any
    origin: str


class _Change:
    """What one object is to be given."""

    __slots__ = ("checked", "settings", "target", "values")

    def __init__(self, target: Any) -> None:
        self.target = target
        self.checked: dict[str, Any] = {}
        self.values: dict[str, Any] = {}
        self.settings: dict[str, Setting] = {}


_lock = threading.RLock()
_kept: dict[str, dict[Path, Setting]] = {}
_variables: dict[str, str] = {}
_hooked: list[bool] = []


def _new_lock() -> None:
    """In a child of fork another thread's hold on the lock never ends."""
    global _lock  # noqa: PLW0603 - there is one, and a child needs its own
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def configure(
    settings: "Mapping[str, Any] | str | os.PathLike[str] | None" = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> tuple[Changed, ...]:
    """Change settings of named policies and keep their state: all of them, or none.

    With a path, or with nothing (then ``pyproject.toml`` and ``outlast.toml`` of the working
    directory, as far as they exist), variables ``OUTLAST_POLICIES_NAME_KEY`` win over the file.
    What a program passes as a mapping is taken as it is. Later calls add to earlier ones.

    In a file the table is ``[policies.NAME]`` (in ``pyproject.toml`` below ``[tool.outlast]``)
    with keys such as ``timeout`` and ``retry.attempts``. Policies that do not exist yet get their
    settings when they are made. Every policy of a name is meant.

    Args:
        settings: A mapping of policies by name, or a path of a TOML file.
        environ: The environment; that of the process by default.

    Returns:
        What was changed in policies that are alive.

    Raises:
        ConfigError: Definite. Nothing was changed. A key does not exist, a value is wrong or does
            not fit another one, or the file cannot be read; one line names the full key, the
            value and what would be right.
    """
    found, from_files = _read(settings)
    alive = {policy.name for policy in _policies()}
    warm(setting for setting in found if setting.policy in alive)
    variables: dict[str, str] | None = None
    if from_files:
        everything = os.environ if environ is None else environ
        variables = {key: text for key, text in everything.items() if key.startswith(PREFIX)}
    with _lock:
        changed = _configure(found, variables)
    _tell(changed)
    return changed


def _configure(found: list[Setting], variables: dict[str, str] | None) -> tuple[Changed, ...]:
    policies = _policies()
    if variables is not None:
        known: dict[str, list[Path] | None] = dict.fromkeys(
            [*_kept, *(setting.policy for setting in found)]
        )
        for policy in policies:
            known[policy.name] = [*(known.get(policy.name) or ()), *paths_of(policy)]
        found = [*found, *_from_variables(variables, known)]
    fresh = _by_policy(found)
    kept = {name: dict(paths) for name, paths in _kept.items()}
    for name, paths in fresh.items():
        merge(kept.setdefault(name, {}), paths.values())
    if len(kept) > POLICIES_MAX:
        raise ConfigError(f"configure: more than {POLICIES_MAX} policies have settings")
    changed = _apply(_check((p, fresh[p.name].values()) for p in policies if p.name in fresh))
    _kept.clear()
    _kept.update(kept)
    if variables is not None:
        _variables.clear()
        _variables.update(variables)
    if not _hooked:
        _hooked.append(True)
        on_watch(_made)
    return changed


def origin_of(policy: str, path: Path) -> str | None:
    """Return where the value of a setting is from, ``None`` if from the program itself."""
    setting = _kept.get(policy, {}).get(path)
    return None if setting is None else setting.said


def kept_settings() -> dict[str, list[Setting]]:
    """Return the settings that ``configure`` was told of, by policy."""
    with _lock:
        return {name: list(paths.values()) for name, paths in _kept.items()}


def forget_settings() -> None:
    """Forget what is kept for policies that are made later; those that are alive stay as they are.

    For tests.
    """
    with _lock:
        _kept.clear()
        _variables.clear()


def policy_from_settings(name: str, settings: Mapping[str, Any], *, origin: str = "") -> "Policy":
    """Return a new policy with the parts and limits that ``settings`` name.

    Each keyword of ``Policy`` that takes a part is a table of that part's arguments. ``kind``
    chooses among parts (``limit.kind = "adaptive"``). Exceptions are dotted names and are imported
    now.

    Args:
        name: Of the policy.
        settings: Its table, as in a file.
        origin: How messages call the source.

    Raises:
        ConfigError: Definite. A setting is unknown, missing or wrong; its full key is named.
    """
    from outlast.protect.policy import Policy

    found = gather(read_mapping({"policies": {name: settings}}, origin))
    values: dict[str, Any] = {}
    for key, node in found.items():
        if key in LIMITS_OF_TIME:
            values[key] = _limit_of_time(node)
        else:
            below = {} if isinstance(node, Setting) else node
            where = f"{origin or 'configure'}: {key_of(name, (key,))}"
            values[key] = build(part_class(key, below), below, where)
    try:
        return Policy(name, **values)
    except ConfigError as error:
        given = [first_of(node) for node in found.values()]
        if str(error).startswith("Policy: "):
            raise ConfigError(rename(str(error), "Policy", given)) from error
        raise


# --- reading -----------------------------------------------------------------------------------


def _read(given: Any) -> tuple[list[Setting], bool]:
    """Return the settings, and whether the environment counts as well."""
    if given is None:
        found = []
        for file in FILES:
            if FilePath(file).is_file():
                found += read_file(file)
        return found, True
    if isinstance(given, str | os.PathLike):
        return read_file(given), True
    if isinstance(given, Mapping):
        return read_mapping(given, ""), False
    kind = type(given).__name__
    raise ConfigError(f"configure: settings is a {kind}; a mapping or a path would be right")


def read_file(path: "str | os.PathLike[str]") -> list[Setting]:
    """Return the settings of policies in a TOML file; none if it has no such table.

    Raises:
        ConfigError: Definite. It cannot be read or is no TOML, or a key is none of a policy.
    """
    import tomllib

    file = FilePath(path)
    try:
        with file.open("rb") as stream:
            data = stream.read(_FILE_BYTES_MAX + 1)
        if len(data) > _FILE_BYTES_MAX:
            raise ConfigError(f"{file}: more than {_FILE_BYTES_MAX} bytes of settings")
        table: Any = tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file}: {error}") from error
    if file.name == "pyproject.toml":
        for key in ("tool", "outlast"):
            table = table.get(key, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict):
        return []
    return read_mapping({"policies": table.get("policies", {})}, file.name)


def _by_policy(settings: Iterable[Setting]) -> dict[str, dict[Path, Setting]]:
    found: dict[str, list[Setting]] = {}
    for setting in settings:
        found.setdefault(setting.policy, []).append(setting)
    merged: dict[str, dict[Path, Setting]] = {}
    for name, ordered in found.items():
        into = merged.setdefault(name, {})
        for origin in dict.fromkeys(setting.origin for setting in ordered):
            merge(into, (setting for setting in ordered if setting.origin == origin))
    return merged


def _from_variables(
    variables: Mapping[str, str], known: Mapping[str, Iterable[Path] | None]
) -> list[Setting]:
    found = (match_variable(name, value, known) for name, value in variables.items())
    return [setting for setting in found if setting is not None]


def paths_of(policy: Any) -> list[Path]:
    """Return every setting that a live policy has."""
    found: list[Path] = [(name,) for name in LIMITS_OF_TIME]
    for position in PARTS:
        part = policy.parts.get(position)
        if isinstance(part, Part):
            found += [(position, name) for name in part.settings]
            budget = getattr(part, "budget", None)
            if isinstance(budget, Part):
                found += [(position, "budget", name) for name in budget.settings]
    return found


def _policies() -> list[Any]:
    """Return the policies that are alive and have a name."""
    found: list[Any] = [thing for thing in watched() if _is_policy(thing)]
    return [policy for policy in found if policy.name]


def _is_policy(thing: object) -> bool:
    return hasattr(thing, "parts")


# --- changing ----------------------------------------------------------------------------------


def _check(wanted: Iterable[tuple[Any, Iterable[Setting]]]) -> list[_Change]:
    """Return what to give to which object, all of it checked; nothing is changed yet."""
    changes: dict[int, _Change] = {}
    for policy, settings in wanted:
        for key, node in gather(settings).items():
            if key in LIMITS_OF_TIME:
                _note(changes, policy, key, first_of(node), _limit_of_time(node))
            else:
                _check_part(changes, policy, policy.parts.get(key), key, node)
    for change in changes.values():
        target = change.target
        try:
            change.checked = target.check(**change.values)
        except ConfigError as error:
            cls = type(target).__name__
            raise ConfigError(rename(str(error), cls, change.settings.values())) from error
        except (TypeError, ValueError) as error:
            first = next(iter(change.settings.values()))
            raise first.wrong(str(error)) from error
    return list(changes.values())


def _check_part(
    changes: dict[int, _Change], policy: Any, part: Any, position: str, node: Node
) -> None:
    if isinstance(node, Setting):
        return  # An empty table.
    first = first_of(node)
    if not isinstance(part, Part):
        has = near(position, policy.parts)
        raise ConfigError(
            f"{first.said}: {first.key}: policy {first.policy!r} has no {position}; {has}"
        )
    for name, below in node.items():
        inner = getattr(part, name, None)
        if name == "kind":
            _same_kind(part, position, node)
        elif isinstance(inner, Part) and isinstance(below, dict):
            _check_part(changes, policy, inner, name, below)
        elif name == "budget" and inner is None and hasattr(part, name):
            said = f"{first.said}: {key_of(first.policy, (position, name))}"
            raise ConfigError(f"{said}: this {position} has no budget that could change")
        elif name in part.settings:
            _note(changes, part, name, first_of(below), convert(type(part), name, below))
        else:
            _same_value(part, name, below)


def _same_kind(part: Part, position: str, node: Mapping[str, Any]) -> None:
    wanted = part_class(position, node).rpartition(":")[2]
    if type(part).__name__ != wanted:
        raise node["kind"].wrong(
            f"it is a {type(part).__name__}, which cannot change while it is used"
        )


def _same_value(part: Part, name: str, below: Node) -> None:
    """Let a setting pass that only counts when the part is made, if it is what the part has."""
    first = first_of(below)
    if not hasattr(part, name):
        raise unknown(first, name, part.settings)
    if plain(convert(type(part), name, below)) != plain(getattr(part, name)):
        known = ", ".join(part.settings) or "nothing"
        raise first.wrong(f"it cannot change while the part is used; these can: {known}")


def _note(
    changes: dict[int, _Change], target: Any, name: str, setting: Setting, value: Any
) -> None:
    change = changes.setdefault(id(target), _Change(target))
    other = change.settings.get(name)
    if other is not None and plain(change.values[name]) != plain(value):
        raise setting.wrong(
            f"{other.key} is {plain(change.values[name])!r}, and both share the part"
        )
    change.values[name] = value
    change.settings[name] = setting


def _limit_of_time(node: Node) -> Any:
    setting = first_of(node)
    value = setting.value
    if isinstance(value, str):
        value = from_text(value, _TIME)
    if not fits(value, _TIME):
        raise setting.wrong(words_for(_TIME))
    return None if value is None else float(value)


def _apply(changes: Iterable[_Change]) -> tuple[Changed, ...]:
    changed: list[Changed] = []
    done: list[tuple[Any, dict[str, Any]]] = []
    for change in changes:
        target = change.target
        before = {name: getattr(target, name, None) for name in change.values}
        done.append((target, before))
        try:
            target.apply(change.checked)
        except BaseException:
            for one, values in reversed(done):
                with suppress(Exception):
                    one.apply(values)
            raise
        for name, setting in change.settings.items():
            old, new = plain(before[name]), plain(getattr(target, name, None))
            if old != new:
                changed.append(Changed(setting.policy, setting.key, old, new, setting.said))
    return tuple(changed)


def _made(thing: Any) -> None:
    """Give a policy that is being made what is kept for it."""
    name = getattr(thing, "name", "")
    if not _is_policy(thing) or not name:
        return
    warm(_kept.get(name, {}).values())
    with _lock:
        kept = dict(_kept.get(name, {}))
        known: dict[str, list[Path] | None] = dict.fromkeys(_kept)
        known[name] = paths_of(thing)
        merge(kept, (one for one in _from_variables(_variables, known) if one.policy == name))
        if kept:
            _apply(_check([(thing, kept.values())]))
            _kept[name] = kept


def _tell(changed: tuple[Changed, ...]) -> None:
    if not changed:
        return
    from outlast.protect.events import SettingsChanged

    by_policy: dict[str, list[str]] = {}
    for one in changed:
        by_policy.setdefault(one.policy, []).append(one.key)
    events = current_world().events
    for name, keys in by_policy.items():
        events.emit(SettingsChanged(name=name, keys=tuple(keys)))


__all__ = [
    "Changed", "configure", "forget_settings", "kept_settings", "key_of", "origin_of", "paths_of",
    "policy_from_settings", "read_file",
]  # fmt: skip
