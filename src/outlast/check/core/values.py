"""Values of histories as hashable keys, as numbers and as short text."""

import json
from collections.abc import Hashable, Iterable
from fractions import Fraction
from typing import Any


class BadValueError(ValueError):
    """A value does not fit the model. The judge adds the file and line."""


def freeze(value: Any) -> Hashable:
    """Return a hashable twin of a JSON value; ``1``, ``1.0`` and ``true`` stay different.

    >>> freeze(1) == freeze(True)
    False
    >>> freeze({"b": [1], "a": None}) == freeze({"a": None, "b": [1]})
    True
    """
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return ("bool", int(value))
    if kind is float:
        return ("float", repr(value))
    if isinstance(value, list | tuple):
        return ("list", *map(freeze, value))
    if isinstance(value, dict):
        pairs = ((freeze(key), freeze(item)) for key, item in value.items())
        return ("object", *sorted(pairs, key=repr))
    if isinstance(value, set | frozenset):
        return ("list", *sorted(map(freeze, value), key=repr))
    return ("other", kind.__name__, repr(value))


_PLAIN = frozenset({int, str})


def freeze_all(values: Iterable[Any]) -> tuple[Hashable, ...]:
    """Return the hashable twins of ``values``; quick for a long list of plain ones."""
    kept = tuple(values)
    return kept if _PLAIN.issuperset(map(type, kept)) else tuple(map(freeze, kept))


def weight(value: Any) -> int:
    """Return about how many bytes a frozen value holds, what it shares with others included."""
    if isinstance(value, str):
        return 60 + len(value)
    if isinstance(value, tuple | frozenset):
        each = 8 if isinstance(value, tuple) else 40
        nested = sum(weight(part) for part in value if isinstance(part, tuple))
        return 120 + each * len(value) + nested
    return 40


def number(value: Any, what: str) -> int | Fraction:
    """Return ``value`` as an exact number; a float counts as the decimal that it shows.

    Raises:
        BadValueError: ``value`` is not a finite number.
    """
    if type(value) is int:
        return value
    if isinstance(value, float):
        try:
            exact = Fraction(repr(value))
        except ValueError:
            raise BadValueError(f"{what} is {value!r}; a finite number would be right") from None
        return exact.numerator if exact.denominator == 1 else exact
    raise BadValueError(f"{what} is {show(value)}; a number would be right")


def show(value: Any, width: int = 60) -> str:
    """Return ``value`` as JSON, cut to ``width`` characters."""
    if isinstance(value, Fraction):
        text = str(float(value))
    elif isinstance(value, set | frozenset):
        text = show(sorted(value, key=repr), width)
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, default=repr)
        except (TypeError, ValueError):
            text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
