"""Which exceptions a setting means: classes, or a plain function that is asked."""

from collections.abc import Callable

from outlast.kernel import ConfigError
from outlast.protect.core.note import add_note, shown

ErrorFilter = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]
"""Exception classes, or a plain function that tells of one exception whether it is meant."""


def matches(meant: ErrorFilter, error: Exception, *, otherwise: bool = False) -> bool:
    """Whether ``error`` is meant; ``otherwise`` if a function raises when it is asked.

    Then a note on ``error`` says so: it is what the caller is to see, and not the other one.
    """
    if isinstance(meant, type | tuple):
        return isinstance(error, meant)
    try:
        return bool(meant(error))
    except Exception as raised:
        name = getattr(meant, "__qualname__", type(meant).__name__)
        add_note(error, f"{name} was asked about this error and raised {shown(raised)}")
        return otherwise


def names(meant: ErrorFilter, error: Exception, family: type[Exception]) -> bool:
    """Whether ``error`` is meant by a class that is ``family`` or derives from it."""
    return any(issubclass(named, family) and isinstance(error, named) for named in classes(meant))


def classes(meant: ErrorFilter) -> tuple[type[BaseException], ...]:
    """Return the classes that are named; none for a function."""
    if isinstance(meant, tuple):
        return meant
    return (meant,) if isinstance(meant, type) else ()


def check_filter(part: str, name: str, meant: ErrorFilter) -> ErrorFilter:
    """Return ``meant`` if it can be used.

    Raises:
        ConfigError: It is neither exception classes nor a function, or names an exception that
            ends programs and tasks.
    """
    if not isinstance(meant, type | tuple) and not callable(meant):
        raise ConfigError(f"{part}: {name} is {meant!r}; give exception classes or a function")
    if meant == ():
        raise ConfigError(f"{part}: {name} names no exception; give at least one class")
    given: tuple[object, ...] = classes(meant)
    for named in given:
        if not (isinstance(named, type) and issubclass(named, BaseException)):
            raise ConfigError(
                f"{part}: {name} holds {named!r}; give exception classes or a function"
            )
        if not issubclass(named, Exception):
            raise ConfigError(
                f"{part}: {name} names {named.__name__}, which ends programs and tasks; "
                "it is never caught"
            )
    return meant
