"""What a user writes: a dataclass of state whose methods are commands and queries.

``@command`` and ``@query`` make an :class:`Operation`. On the class it stands for the operation,
with its parameters and result in its type, so that ``client.call(Bank.transfer, …)`` is checked
without a generated proxy; on an instance it is the plain method.
"""

from collections.abc import Callable
from functools import cached_property
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, ClassVar, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from outlast.kernel import ConfigError
from outlast.state.context import Context

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

Kind = Literal["command", "query"]


class Operation(Generic[P, R]):
    """A command or query of a machine, typed by its parameters (without self) and result.

    Attributes:
        name: The method's name, which is its name in the log.
        kind: ``"command"`` or ``"query"``.
        since: The first machine version that has it.
        function: The plain function, whose first parameter is the machine.
    """

    def __init__(self, function: Callable[..., R], kind: Kind, since: int) -> None:
        for refused, what in (
            (iscoroutinefunction, "async"),
            (isasyncgenfunction, "async"),
            (isgeneratorfunction, "a generator"),
        ):
            if refused(function):
                raise ConfigError(
                    f"@{kind} {function.__qualname__} is {what}; every replica runs it at once "
                    f"and in log order; write a plain def"
                )
        self.name: str = function.__name__
        self.kind: Kind = kind
        self.since = since
        self.function: Callable[..., R] = function
        self.owner: type | None = None
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.__wrapped__ = function

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.owner = owner

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> "Operation[P, R]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Callable[P, R]: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return self.function.__get__(instance, owner)

    def __repr__(self) -> str:
        owner = self.owner.__name__ if self.owner else "?"
        return f"<{self.kind} {owner}.{self.name}>"


def _checked_since(kind: Kind, since: int) -> int:
    if since.__class__ is not int or since < 1:
        raise ConfigError(f"@{kind}(since={since!r}): a version is a whole number from 1")
    return since


@overload
def command(function: Callable[Concatenate[S, P], R], /) -> Operation[P, R]: ...
@overload
def command(*, since: int = 1) -> Callable[[Callable[Concatenate[S, P], R]], Operation[P, R]]: ...
def command(function: Any = None, /, *, since: int = 1) -> Any:
    """Make a method a command: it may change state, and runs on every replica in log order.

    Args:
        function: The method. Its parameters and result are annotated with types that msgspec
            can encode.
        since: The first machine version that has it. Until that version is in force, calling it
            is a definite ``CommandTypeError``.

    Raises:
        ConfigError: The method is async or a generator, or ``since`` is below 1.
    """
    _checked_since("command", since)
    if function is None:
        return lambda method: Operation(method, "command", since)
    return Operation(function, "command", since)


@overload
def query(function: Callable[Concatenate[S, P], R], /) -> Operation[P, R]: ...
@overload
def query(*, since: int = 1) -> Callable[[Callable[Concatenate[S, P], R]], Operation[P, R]]: ...
def query(function: Any = None, /, *, since: int = 1) -> Any:
    """Make a method a query: it reads state on one replica and is not written to the log.

    Args:
        function: The method, annotated as a command's. It must not change state.
        since: The first machine version that has it.

    Raises:
        ConfigError: The method is async or a generator, or ``since`` is below 1.
    """
    _checked_since("query", since)
    if function is None:
        return lambda method: Operation(method, "query", since)
    return Operation(function, "query", since)


class StateMachine:
    """Base of replicated classes: a dataclass whose annotated fields are the state.

    Every field needs a default, because a replica starts empty. Fields whose name begins with an
    underscore are derived: not saved, rebuilt in ``__post_init__``. Types whose iteration order
    differs between nodes (``set``, ``frozenset``) and ``Any`` are refused when the class is
    created, with the reason. ``Table`` fields are rolled back when a command raises; other
    fields are not.

    Raises:
        ConfigError: At class creation; the line names the field and what to use instead.
    """

    version: ClassVar[int] = 1
    """Raise it when fields or behaviour change; see :meth:`migrate`."""

    @cached_property
    def ctx(self) -> Context:
        """Time, randomness, index and version of the running command.

        Outside a running machine it is the time 0, index 0 and the class's own version.
        """
        return Context(version=type(self).version)

    @classmethod
    def migrate(cls, state: dict[str, Any], version: int) -> dict[str, Any]:
        """Lift the state saved by ``version`` to this class's version.

        Override it when a field is removed, renamed or retyped. The default keeps the state as
        it is, which fits fields that were added with a default.

        Args:
            state: Field name to value as plain data: records are dicts, tables are dicts.
            version: The version of the class that saved it, below ``cls.version``.

        Returns:
            The state for this version. A field that is left out gets its default.
        """
        return state

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse at once what would make replicas differ."""
        super().__init_subclass__(**kwargs)
        from outlast.state.spec import refuse_early

        refuse_early(cls)
