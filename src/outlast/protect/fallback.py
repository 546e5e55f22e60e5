"""``Fallback``: what to answer when all has failed."""

from collections.abc import Callable
from inspect import Parameter, isawaitable, signature
from typing import Any, ClassVar, Final, Literal

from outlast.kernel import ConfigError, InvariantError, current_world
from outlast.protect.kinds import kind_of
from outlast.protect.part import Part

ErrorTypes = type[BaseException] | tuple[type[BaseException], ...]
Call = Literal["value", "nothing", "error", "arguments"]

_CALLS: Final = ("value", "nothing", "error", "arguments")
_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Fallback(Part):
    """Answers with a value, or with what a function returns, in place of an error.

    Cancellation and ``InvariantError`` are never answered. An error of the function itself comes
    out, with the first one as its context.

    Args:
        value: The answer, or a function that gives it; a coroutine function for calls of
            coroutines only.
        on: Errors that are answered. Default: every ``Exception``.
        call_with: How a function is called: with ``"nothing"``, with the ``"error"``, with the
            ``"arguments"`` of the call; ``"value"``: it is itself the answer. By default with the
            error if it has a positional parameter and is no class, else with nothing.
        name: Shown in events and metrics; by default that of the policy.

    Raises:
        ConfigError: Definite. A setting is wrong.
        TypeError: At decoration: a plain function cannot wait for a coroutine function.

    >>> Fallback([]).value_blocking(KeyError(), (), {})
    []
    >>> Fallback(lambda error: type(error).__name__).value_blocking(KeyError(), (), {})
    'KeyError'
    """

    position: ClassVar[str] = "fallback"
    settings = ("value", "on", "call_with")

    __slots__ = ("_how", "call_with", "is_async", "on", "used", "value")

    def __init__(
        self,
        value: Any,
        *,
        on: ErrorTypes = Exception,
        call_with: Call | None = None,
        name: str = "",
    ) -> None:
        super().__init__(name)
        kinds: tuple[Any, ...] = on if isinstance(on, tuple) else (on,)
        if on == () or not all(isinstance(k, type) and issubclass(k, Exception) for k in kinds):
            raise ConfigError(f"Fallback: on is {on!r}; error classes would be right")
        if call_with not in (None, *_CALLS):
            known = ", ".join(_CALLS)
            raise ConfigError(
                f"Fallback: call_with is {call_with!r}; one of {known} would be right"
            )
        if call_with not in {None, "value"} and not callable(value):
            raise ConfigError(
                f"Fallback: call_with is {call_with!r}, and the value is no function"
            )
        self.value = value
        self.on = on
        self.call_with = call_with
        self.used = 0
        self._how: Call = call_with or (_how_to_call(value) if callable(value) else "value")
        self.is_async = self._how != "value" and kind_of(value) == "async"

    def answers(self, error: BaseException) -> bool:
        """Whether ``error`` is one that is answered."""
        return isinstance(error, self.on) and not isinstance(error, InvariantError)

    @property
    def sees_arguments(self) -> bool:  # type: ignore[override]
        """Whether its function is called with the arguments of the call."""
        return self._how == "arguments"

    def refuse_blocking(self) -> None:
        """Check at decoration that a plain function can be answered.

        Raises:
            TypeError: The value is a coroutine function.
        """
        if self.is_async:
            shown = getattr(self.value, "__qualname__", repr(self.value))
            raise TypeError(f"Fallback: {shown} is a coroutine function; a plain one is needed")

    def value_blocking(
        self, error: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return the answer to ``error``."""
        self.refuse_blocking()
        self._tell(error)
        return self._answer(error, args, kwargs)

    async def value_async(
        self, error: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return the answer to ``error``; a function may be a coroutine function."""
        self._tell(error)
        answer = self._answer(error, args, kwargs)
        if self._how != "value" and isawaitable(answer):
            return await answer
        return answer

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned."""
        fields = {name: changes.get(name, getattr(self, name)) for name in self.settings}
        fresh = Fallback(**fields)
        for name in ("value", "on", "call_with", "_how", "is_async"):
            setattr(self, name, getattr(fresh, name))

    def snapshot(self) -> dict[str, Any]:
        """Return how often it answered."""
        return {"used": self.used}

    def _tell(self, error: BaseException) -> None:
        from outlast.protect.events import FallbackUsed

        self.used += 1
        event = FallbackUsed(name=self.name, error=type(error).__name__)
        current_world().events.emit(event)

    def _answer(self, error: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        how = self._how
        if how == "value":
            return self.value
        if how == "error":
            return self.value(error)
        return self.value(*args, **kwargs) if how == "arguments" else self.value()


def _how_to_call(function: Callable[..., Any]) -> Call:
    """Look whether ``function`` wants the error."""
    if isinstance(function, type):
        return "nothing"
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):
        return "nothing"
    places = [each for each in parameters if each.kind in _POSITIONAL]
    needed = [each for each in places if each.default is Parameter.empty]
    if len(needed) > 1:
        raise ConfigError(
            f"Fallback: {function!r} needs {len(needed)} arguments; a function of the error, or "
            'call_with="arguments", would be right'
        )
    wide = any(each.kind is Parameter.VAR_POSITIONAL for each in parameters)
    return "error" if needed or places or wide else "nothing"
