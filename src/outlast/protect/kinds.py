"""What kind of function is to be protected."""

import inspect
from collections.abc import Callable
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final, Literal, TypeVar, cast

T = TypeVar("T")

Kind = Literal["blocking", "async", "generator", "async generator"]

_ASYNC_GENERATOR: Final = inspect.CO_ASYNC_GENERATOR
_COROUTINE: Final = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE
_GENERATOR: Final = inspect.CO_GENERATOR


def kind_of(function: Callable[..., Any]) -> Kind:
    """Return the kind of ``function``, seen through ``partial``, methods and ``__call__``.

    An object whose class has ``__outlast_kind__`` is asked: what it returns depends on what it
    was made of.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        return _kind_of_object(function)
    flags = code.co_flags
    if flags & _COROUTINE:
        return "async"
    if flags & _ASYNC_GENERATOR:
        return "async generator"
    if flags & _GENERATOR:
        return "generator"
    return "async" if inspect.iscoroutinefunction(function) else "blocking"


def _kind_of_object(function: Callable[..., Any]) -> Kind:
    if hasattr(type(function), "__outlast_kind__"):
        return cast("Kind", getattr(function, "__outlast_kind__"))  # noqa: B009 - of any class
    if inspect.iscoroutinefunction(function):
        return "async"
    if inspect.isasyncgenfunction(function):
        return "async generator"
    if inspect.isgeneratorfunction(function):
        return "generator"
    if isinstance(function, partial):
        return kind_of(function.func)
    called = getattr(type(function), "__call__", None)  # noqa: B004 - what runs is asked for
    if called is not None and getattr(called, "__code__", None) is not None:
        return kind_of(called)
    return "blocking"


def check_function(function: object) -> None:
    """Refuse what cannot be protected.

    Raises:
        TypeError: It is no function, or one on which the decorator stands in the wrong place.
    """
    if isinstance(function, staticmethod | classmethod):
        kind = type(function).__name__
        message = f"put the policy below @{kind}, so that it protects the function itself"
        raise TypeError(message)
    if isinstance(function, type):
        message = f"{function.__qualname__} is a class; protect its methods one by one"
        raise TypeError(message)
    if not callable(function):
        message = f"a policy protects functions; {function!r} is none"
        raise TypeError(message)


def check_lasting(value: T, who: str) -> T:
    """Return ``value`` if it can be handed to several callers.

    Raises:
        TypeError: It can be used only once: it is to be awaited, or a generator.
    """
    if hasattr(type(value), "__await__") or isinstance(value, GeneratorType | AsyncGeneratorType):
        if isinstance(value, CoroutineType):
            value.close()
        kind = type(value).__name__
        raise TypeError(f"{who}: a {kind} can be used only once and cannot be kept")
    return value
