"""Settings of policies as they stand in files and in the environment: keys, types, precedence.

A setting is a path below the name of its policy (``rates``: ``retry.attempts``), a value, and
where it comes from. Here a mapping becomes settings, a variable's name becomes a path, and a value
is held against the type that the code declares; nothing is looked up and nothing is changed.
"""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from outlast.kernel import ConfigError

Path = tuple[str, ...]

PREFIX: Final = "OUTLAST_POLICIES_"
POLICIES_MAX: Final = 10_000
_DEPTH_MAX: Final = 8
_SHOWN_MAX: Final = 60

PARTS: Final[Mapping[str, Mapping[str, str]]] = {
    "retry": {"": "retry:Retry"},
    "hedge": {"": "hedge:Hedge"},
    "breaker": {"": "breaker:CircuitBreaker"},
    "rate": {
        "": "rate:RateLimit",
        "window": "rate:SlidingWindow",
        "adaptive": "adaptive_rate:AdaptiveRate",
    },
    "limit": {
        "": "bulkhead:Bulkhead",
        "bulkhead": "bulkhead:Bulkhead",
        "adaptive": "adaptive:AdaptiveLimit",
    },
    "fallback": {"": "fallback:Fallback"},
    "cache": {"": "cache:Cache"},
    "inject": {"": "inject:Inject"},
    "idempotency": {"": "sender:Idempotency"},
}
"""By keyword of a policy: the kinds of part that fit, the first without saying ``kind``."""

LIMITS_OF_TIME: Final = ("timeout", "attempt_timeout")
KEYS: Final = (*LIMITS_OF_TIME, *PARTS)
"""What may stand directly below the name of a policy."""


class Setting(NamedTuple):
    """One value of one policy and where it comes from."""

    policy: str
    path: Path
    value: Any
    origin: str

    @property
    def key(self) -> str:
        """The full key, as in a file."""
        return key_of(self.policy, self.path)

    def wrong(self, what: str) -> ConfigError:
        """Return the error that names the key and the value; ``what`` says what is right."""
        return ConfigError(f"{self.said}: {self.key} is {self.shown}; {what}")

    @property
    def shown(self) -> str:
        """The value for a message; not that of a store, in whose url a password may stand."""
        return "…" if "store" in self.path else shown(self.value)

    @property
    def said(self) -> str:
        """Where it comes from, as messages begin."""
        return self.origin or "configure"


def key_of(policy: str, path: Path) -> str:
    """Return the full key of a setting, as in a file."""
    return ".".join(("policies", policy, *path))


def shown(value: object) -> str:
    """Return a value for a message: short."""
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…"


def near(word: str, known: Iterable[str], none: str = "nothing") -> str:
    """Return what was probably meant, or else what there is."""
    names = list(known)
    found = get_close_matches(word, names, 1, 0.6)
    return f"did you mean {found[0]}?" if found else f"there is {', '.join(names) or none}"


# --- mappings ----------------------------------------------------------------------------------


def read_mapping(given: Mapping[str, Any], origin: str) -> list[Setting]:
    """Return the settings in a mapping of policies, or in a whole file with a table of them.

    Raises:
        ConfigError: Definite. It is no mapping of mappings, or a key is none of a policy.
    """
    policies: Any = given.get("policies", given)
    if not isinstance(policies, Mapping):
        raise ConfigError(
            f"{origin or 'configure'}: policies is {shown(policies)}; a table of policies by name"
            " would be right"
        )
    if len(policies) > POLICIES_MAX:
        raise ConfigError(
            f"{origin or 'configure'}: {len(policies)} policies; at most {POLICIES_MAX}"
        )
    found: list[Setting] = []
    for name, below in policies.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{origin or 'configure'}: {name!r} is no name of a policy")
        if not isinstance(below, Mapping):
            raise Setting(name, (), below, origin).wrong("a table of settings would be right")
        found += [Setting(name, path, value, origin) for path, value in leaves(below)]
    for setting in found:
        check_head(setting)
    return found


def leaves(below: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value below with its path; a dot in a key is a step of the path.

    A mapping at a second level may also be a value of its own, such as a window: whoever knows
    the part puts it together again with :func:`gather`.
    """
    for key, value in below.items():
        steps = (*path, *str(key).split("."))
        if isinstance(value, Mapping) and value and len(steps) < _DEPTH_MAX:
            yield from leaves(value, steps)
        else:
            yield steps, value


def gather(settings: Iterable[Setting]) -> dict[str, Any]:
    """Return settings of one policy as nested dicts again; the leaves are the settings."""
    found: dict[str, Any] = {}
    for setting in settings:
        at = found
        for step in setting.path[:-1]:
            below = at.get(step)
            if not isinstance(below, dict):
                below = at[step] = {}
            at = below
        last = setting.path[-1]
        if setting.value != {} or last not in at:
            at[last] = setting
    return found


def merge(into: dict[Path, Setting], settings: Iterable[Setting]) -> None:
    """Put later settings of one policy over earlier ones.

    A window is one value, though it stands as a table: a new one takes the place of the old.
    """
    later = list(settings)
    replaced = {setting.path[:-1] for setting in later if setting.path[-2:-1] == ("window",)}
    for path in [path for path in into if path[:-1] in replaced]:
        del into[path]
    into.update({setting.path: setting for setting in later})


def check_head(setting: Setting) -> None:
    """Refuse a setting whose first key no policy has.

    Raises:
        ConfigError: Definite. The key is unknown, or has the wrong depth.
    """
    head = setting.path[0]
    if head not in KEYS:
        raise unknown(setting, head, KEYS)
    if head in LIMITS_OF_TIME and len(setting.path) > 1:
        raise ConfigError(
            f"{setting.said}: {setting.key}: {head} is a number of seconds and has nothing below"
        )
    if head in PARTS and len(setting.path) == 1 and setting.value != {}:
        raise setting.wrong(f"a table with settings of the {head} would be right")


def unknown(setting: Setting, word: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a key that does not exist."""
    return ConfigError(f"{setting.said}: {setting.key}: no setting {word!r}; {near(word, known)}")


# --- environment -------------------------------------------------------------------------------


def variable_of(policy: str, path: Path = ()) -> str:
    """Return the environment variable of a policy's setting.

    >>> variable_of("rates-eu", ("retry", "attempts"))
    'OUTLAST_POLICIES_RATES_EU_RETRY_ATTEMPTS'
    """
    plain = "_".join((policy, *path)).upper()
    return PREFIX + "".join(char if char.isalnum() else "_" for char in plain)


def match_variable(
    variable: str, value: str, policies: Mapping[str, Iterable[Path] | None]
) -> Setting | None:
    """Return the setting that a variable stands for, ``None`` if its policy is not known.

    Of two policies whose names fit, ``rates`` and ``rates-eu``, the longer one is meant.

    Args:
        variable: Its name.
        value: Its text.
        policies: The settings that each known policy has; ``None`` where that is not known yet.

    Raises:
        ConfigError: Definite. The policy is known and has no such setting, though the variable
            begins like one.
    """
    fitting = [name for name in policies if variable.startswith(f"{variable_of(name)}_")]
    if not fitting:
        return None
    policy = max(fitting, key=lambda name: (len(variable_of(name)), name))
    paths = policies[policy]
    if paths is None:
        return None
    by_name = {variable_of(policy, path): path for path in paths}
    path = by_name.get(variable)
    if path is not None:
        return Setting(policy, path, value, variable)
    rest = variable.removeprefix(f"{variable_of(policy)}_")
    known = {name.removeprefix(f"{variable_of(policy)}_"): path for name, path in by_name.items()}
    begun = any(rest.startswith(f"{key.upper()}_") for key in PARTS)
    if begun or get_close_matches(rest, known, 1, 0.8):
        raise ConfigError(
            f"{variable}: policy {policy!r} has no such setting; {near(rest, known)}"
        )
    return None  # Of a policy that is made later, perhaps.


def from_text(text: str, wanted: Any) -> Any:
    """Return what the text of a variable means for the type ``wanted``; text that fits none stays.

    ``none`` or nothing is ``None`` where that is allowed; lists are separated by commas.
    """
    kinds = _kinds(wanted)
    low = text.strip().lower()
    if NoneType in kinds and low in {"", "none"}:
        return None
    if bool in kinds and low in {"true", "1", "yes", "on", "false", "0", "no", "off"}:
        return low in {"true", "1", "yes", "on"}
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(low.replace("_", ""))
            except ValueError:
                continue
    return text.strip()


# --- types -------------------------------------------------------------------------------------

_WORDS: Final[Mapping[Any, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "none",
}


def _kinds(wanted: Any) -> tuple[Any, ...]:
    """Return the alternatives of an annotation."""
    if get_origin(wanted) in {Union, UnionType}:
        return tuple(kind for part in get_args(wanted) for kind in _kinds(part))
    return (NoneType,) if wanted is None else (wanted,)


def fits(value: object, wanted: Any) -> bool:
    """Whether a value from a file fits an annotation, as far as that can be told.

    Classes and choices are judged: whatever else is among the alternatives takes anything.
    """
    for kind in _kinds(wanted):
        if get_origin(kind) is Literal:
            if value in get_args(kind):
                return True
        elif kind is float:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return True
        elif kind is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return True
        elif isinstance(kind, type):
            if isinstance(value, kind):
                return True
        else:
            return True
    return False


def words_for(wanted: Any) -> str:
    """Return in words what would fit an annotation."""
    said: list[str] = []
    for kind in _kinds(wanted):
        if get_origin(kind) is Literal:
            said += [str(choice) for choice in get_args(kind)]
        elif kind in _WORDS:
            said.append(_WORDS[kind])
    return f"{' or '.join(said)} would be right"


def optional(wanted: Any) -> bool:
    """Whether ``None`` is allowed and text is not, so that the word ``none`` means it."""
    kinds = _kinds(wanted)
    return NoneType in kinds and str not in kinds


def rename(message: str, cls: str, settings: Iterable[Setting]) -> str:
    """Return what a part said of its arguments, said of the keys that set them.

    >>> rename("Retry: attempts is 0; 1 or more", "Retry",
    ...        [Setting("rates", ("retry", "attempts"), 0, "outlast.toml")])
    'outlast.toml: policies.rates.retry.attempts is 0; 1 or more'
    """
    given = list(settings)
    text = message.removeprefix(f"{cls}: ")
    for setting in given:
        name = setting.path[-1]
        if text == name or text.startswith((f"{name} ", f"{name}:")):
            return f"{setting.said}: {setting.key}{text[len(name) :]}"
    keys = ", ".join(f"{setting.key} = {setting.shown}" for setting in given)
    said = given[0].said if given else "configure"
    return f"{said}: {keys}: {text}"
