"""What we write on exceptions that are not ours.

An exception of a user may refuse it, or raise something else when it is written on. Nothing of
that may take the place of the exception itself: each function here does what it can, and returns.
"""

from contextlib import suppress
from typing import Any, Final

_NOTES_MAX: Final = 16
_TEXT_MAX: Final = 200
_MADE_BY: Final = "__outlast_made_by__"


def add_note(error: BaseException, note: str) -> None:
    """Add ``note`` unless it is there: the same object may be raised again and again."""
    with suppress(Exception):
        notes = getattr(error, "__notes__", ())
        if note not in notes and len(notes) < _NOTES_MAX:
            error.add_note(note)


def set_mark(error: BaseException, name: str, value: object) -> None:
    """Set an attribute of ``error``, if it takes it."""
    with suppress(Exception):
        setattr(error, name, value)


def get_mark(error: BaseException, name: str) -> Any:
    """Return an attribute of ``error``; ``None`` if it has none, or does not tell."""
    with suppress(Exception):
        return getattr(error, name, None)
    return None


def shown(error: BaseException) -> str:
    """Return class and text of ``error`` in one short line.

    >>> shown(KeyError("x")), shown(ConnectionError())
    ("KeyError: 'x'", 'ConnectionError')
    """
    text = ""
    with suppress(Exception):
        text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text[:_TEXT_MAX]}" if text else name


def sign(error: BaseException, policy: object) -> None:
    """Remember that ``error`` was made by a part of a policy.

    Args:
        error: The exception.
        policy: An object that all frames of that policy share, and no other policy does.
    """
    set_mark(error, _MADE_BY, id(policy))


def signed(error: BaseException, policy: object) -> bool:
    """Whether ``error`` was made by a part of this policy."""
    return bool(get_mark(error, _MADE_BY) == id(policy))
