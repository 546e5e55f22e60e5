"""Checks of settings: a wrong one is told by name, with its value and what would be right."""

from typing import Any, Final

from outlast.kernel import ConfigError

NS: Final = 1_000_000_000
DAY: Final = 86_400.0


def check_number(kind: str, name: str, value: Any, low: float, high: float, *, what: str) -> float:
    """Return ``value`` if it is a number from ``low`` to ``high``; ``what`` says of what.

    Raises:
        ConfigError: Definite. It is not.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not low <= value <= high:
        message = f"{kind}: {name} is {value!r}; {what} from {low:g} to {high:g} would be right"
        raise ConfigError(message)
    return float(value)


def check_ns(kind: str, name: str, value: Any, low: float, high: float) -> int:
    """Return seconds from ``low`` to ``high`` as nanoseconds.

    Raises:
        ConfigError: Definite. It is something else.
    """
    return round(check_number(kind, name, value, low, high, what="seconds") * NS)


def check_whole(kind: str, name: str, value: Any, low: int, high: int) -> int:
    """Return ``value`` if it is a whole number from ``low`` to ``high``.

    Raises:
        ConfigError: Definite. It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        message = (
            f"{kind}: {name} is {value!r}; a whole number from {low} to {high} would be right"
        )
        raise ConfigError(message)
    return value
