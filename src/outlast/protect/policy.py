"""``Policy``: what protects a call, as one value."""

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from outlast.kernel import ConfigError
from outlast.kernel.registry import watch
from outlast.protect.core.order import CANONICAL, Position, check_order, frames
from outlast.protect.core.tally import Tally
from outlast.protect.forked import tell_of_forks
from outlast.protect.kinds import check_function, kind_of
from outlast.protect.layers import Layers
from outlast.protect.part import Part

if TYPE_CHECKING:
    from outlast.protect.block import Attempts, Blocks
    from outlast.protect.breaker import CircuitBreaker
    from outlast.protect.cache import Cache
    from outlast.protect.core.lint import Finding
    from outlast.protect.fallback import Fallback
    from outlast.protect.hedge import Hedge
    from outlast.protect.inject import Inject
    from outlast.protect.keyed import Keyed
    from outlast.protect.permits import Permits
    from outlast.protect.rate import RateLimit, SlidingWindow
    from outlast.protect.retry import Retry
    from outlast.protect.sender import Idempotency
    from outlast.protect.threadpool import Hard

P = ParamSpec("P")
R = TypeVar("R")

_BLOCKS: ContextVar[tuple[tuple["Policy", "Blocks"], ...]] = ContextVar(
    "outlast_blocks", default=()
)
PARTS: Final = (
    "fallback", "cache", "retry", "hedge", "breaker", "rate", "limit", "inject", "idempotency",
)  # fmt: skip


class Policy:
    """A frozen composition of parts that protects functions, coroutines, generators and blocks.

    The parts hold their state: one object in two policies is shared by them. Without ``order``
    they stand in canonical order, from outside to inside: fallback, cache, deadline (``timeout``),
    retry, hedge, breaker, rate, limit, attempt timeout, inject; whichever are given share one
    frame around the call, hedge and cache excepted.

    ``@policy`` decorates ``def``, ``async def``, generators, asynchronous generators and methods,
    and keeps the signature for type checkers. ``policy.call(f, …)`` and ``await
    policy.acall(f, …)`` protect one call. ``with policy:`` protects a block where that can mean
    what it says; with a retry, use ``for attempt in policy.attempts():``.

    A deadline of the context (:func:`outlast.deadline`) is read by every policy: nested limits
    only shorten. In asyncio limits of time cancel what they bound; in a plain function nothing
    interrupts it, but ``outlast.remaining()`` tells sockets and inner calls what is left, and
    ``attempt_timeout=Hard(…)`` runs it in a thread that can be given up.

    Safe to share between threads and event loops; bound to none.

    Args:
        name: In events, metrics and settings; a policy with a name can be configured.
        timeout: Seconds for the whole call, waits included; with a cache, for the one who fetches.
        retry: When to call again.
        hedge: When to start a second attempt beside a slow one.
        breaker: When to stop calling for a while.
        rate: How many calls in a time.
        limit: How many calls at a time: ``Bulkhead`` or ``AdaptiveLimit``.
        attempt_timeout: Seconds for one attempt, or ``Hard(seconds)``.
        fallback: What to answer when all has failed.
        cache: Answers kept, and given when a call fails.
        inject: Faults, for tests.
        idempotency: How a key is minted for each call.
        order: Another order, from outside to inside; positions that are left out stand at
            their canonical place.

    Raises:
        ConfigError: Definite. A value is wrong, or a part stands in the wrong place.
    """

    __slots__ = (
        "__weakref__", "_attempt_timeout", "_hard", "_layers", "_lock", "_order",
        "_parts", "_tally", "_timeout", "name", "version",
    )  # fmt: skip

    # Set past __setattr__.
    name: str
    version: int
    """Grows with each change of settings."""
    _attempt_timeout: float | None
    _hard: "Hard | None"
    _layers: Layers
    _lock: threading.Lock
    _order: tuple[Position, ...]
    _parts: dict[str, Any]
    _tally: Tally
    _timeout: float | None

    def __init__(
        self,
        name: str = "",
        *,
        timeout: float | None = None,
        retry: "Retry | None" = None,
        hedge: "Hedge | None" = None,
        breaker: "CircuitBreaker | Keyed[Any] | None" = None,
        rate: "RateLimit | SlidingWindow | Keyed[Any] | None" = None,
        limit: "Permits | Keyed[Any] | None" = None,
        attempt_timeout: "float | Hard | None" = None,
        fallback: "Fallback | None" = None,
        cache: "Cache | None" = None,
        inject: "Inject | None" = None,
        idempotency: "Idempotency | None" = None,
        order: Sequence[str] = CANONICAL,
    ) -> None:
        given = (fallback, cache, retry, hedge, breaker, rate, limit, inject, idempotency)
        parts = {
            position: _placed(position, part)
            for position, part in zip(PARTS, given, strict=True)
            if part is not None
        }
        set_ = object.__setattr__
        set_(self, "name", check_name(name))
        set_(self, "_parts", parts)
        set_(self, "_timeout", check_seconds("timeout", timeout))
        hard = attempt_timeout if isinstance(attempt_timeout, Part) else None
        set_(self, "_hard", hard)
        number: Any = None if hard is not None else attempt_timeout
        set_(self, "_attempt_timeout", check_seconds("attempt_timeout", number))
        set_(self, "_order", check_order(order))
        set_(self, "_tally", Tally())
        set_(self, "_lock", threading.Lock())
        for part in parts.values():
            part.name = part.name or name
        set_(self, "version", 0)
        set_(self, "_layers", self._laid())
        tell_of_forks(self)
        if name:
            watch(self)

    def __setattr__(self, attribute: str, value: object) -> None:
        message = f"a Policy is frozen; use policy.replace({attribute}=…) or policy.configure(…)"
        raise AttributeError(message)

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, Any]) -> "Policy":
        """Return a policy made from a mapping, as a table of a TOML file is.

        See ``outlast.protect.policy_from_settings``.

        Raises:
            ConfigError: Definite. A setting is unknown, missing or wrong; its key is named.
        """
        from outlast.protect.settings import policy_from_settings

        return policy_from_settings(name, settings)

    # --- protecting ------------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return ``function`` protected by this policy; a decorator.

        Raises:
            TypeError: It is no function, or of a kind that this policy cannot protect.
        """
        check_function(function)
        if self._keyed:
            from outlast.protect.keyed import guard_keyed

            guarded: Callable[P, R] = guard_keyed(self, function)
        else:
            guarded = self._layers.guard(function, kind_of(function))
        # While the function lives its policy does, which metrics and settings look for.
        guarded.__outlast_policy__ = self  # type: ignore[attr-defined]
        return guarded

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``function(*args, **kwargs)``, protected; a coroutine function gives a coroutine.

        Raises:
            TypeError: A plain function returned a coroutine; see :meth:`acall`.
        """
        kind = kind_of(function)
        if kind.endswith("generator") or self._looks_at_arguments:
            return self(function)(*args, **kwargs)
        return self._layers.one(kind)(function, *args, **kwargs)  # type: ignore[no-any-return]

    def acall(
        self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[R]:
        """Await whatever ``function(*args, **kwargs)`` returns, protected.

        For plain functions that return an awaitable, which :meth:`call` refuses.
        """
        if self._looks_at_arguments:

            async def awaited(*args: P.args, **kwargs: P.kwargs) -> R:
                return await function(*args, **kwargs)

            return self(awaited)(*args, **kwargs)
        return self._layers.one("async")(function, *args, **kwargs)  # type: ignore[no-any-return]

    def attempts(self) -> "Attempts":
        """Return the attempts of one call: for ``for`` in a thread, ``async for`` in a task.

        ::

            async for attempt in policy.attempts():
                async with attempt:
                    answer = await ask()

        Raises:
            TypeError: The policy has a part that cannot repeat a block.
        """
        from outlast.protect.block import Attempts

        return Attempts(self._layers.only("attempts()"))

    def __enter__(self) -> None:
        """Begin a protected block.

        Raises:
            TypeError: A block cannot mean what the policy says.
            RejectedError: Definite. A part refused it.
        """
        blocks = self._begin()
        blocks.enter()
        _BLOCKS.set((*_BLOCKS.get(), (self, blocks)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the block."""
        entered = _BLOCKS.get()
        for index in range(len(entered) - 1, -1, -1):
            policy, blocks = entered[index]
            if policy is self:
                # Not always the last one: generators may leave their blocks in any order.
                _BLOCKS.set(entered[:index] + entered[index + 1 :])
                blocks.leave(error)
                return
        raise RuntimeError("a protected block was left in another context than it was entered in")

    async def __aenter__(self) -> None:
        """Begin a protected block of a coroutine, which is cancelled when its time is up.

        Raises:
            TypeError: A block cannot mean what the policy says.
            RejectedError: Definite. A part refused it.
        """
        blocks = self._begin()
        await blocks.enter_async()
        _BLOCKS.set((*_BLOCKS.get(), (self, blocks)))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the block."""
        self.__exit__(kind, error, trace)

    # --- what can be asked -----------------------------------------------------------------------

    @property
    def timeout(self) -> float | None:
        """Seconds for the whole call."""
        return self._timeout

    @property
    def attempt_timeout(self) -> float | None:
        """Seconds for one attempt."""
        return self._hard.seconds if self._hard is not None else self._attempt_timeout

    @property
    def order(self) -> tuple[Position, ...]:
        """All positions from outside to inside."""
        return self._order

    @property
    def parts(self) -> dict[str, Any]:
        """The parts by position."""
        return dict(self._parts)

    def lint(self) -> "list[Finding]":
        """Return what is probably not meant in this combination, with the reason for each."""
        from outlast.protect.core.lint import findings

        return findings(self.describe(), self._order)

    def describe(self) -> dict[str, Any]:
        """Return the configuration, as values that JSON knows."""
        described: dict[str, Any] = {"name": self.name}
        for position in self._order:
            if position == "deadline":
                if self.timeout is not None:
                    described["timeout"] = self.timeout
            elif position == "attempt_timeout":
                if self._hard is not None:
                    described["attempt_timeout"] = {"hard": self._hard.seconds}
                elif self._attempt_timeout is not None:
                    described["attempt_timeout"] = self._attempt_timeout
            elif position in self._parts:
                described[position] = _described(self._parts[position])
        if "idempotency" in self._parts:
            described["idempotency"] = _described(self._parts["idempotency"])
        described["order"] = [name for name in self._order if name in self._present()]
        return described

    def snapshot(self) -> dict[str, Any]:
        """Return the live state: how calls ended, and what each part says of itself."""
        with self._lock:
            calls = self._tally.read()
        live = {position: part.snapshot() for position, part in self._parts.items()}
        return {"name": self.name, "calls": calls, **{k: v for k, v in live.items() if v}}

    def replace(self, **changes: Any) -> "Policy":
        """Return a policy that differs in ``changes`` and shares all other parts."""
        attempt = self._hard if self._hard is not None else self._attempt_timeout
        same = {
            "name": self.name, "timeout": self._timeout, "attempt_timeout": attempt,
            "order": self._order, **self._parts,
        }  # fmt: skip
        same.update(changes)
        return Policy(same.pop("name"), **same)

    def variant(self, parts: dict[str, Any]) -> "Policy":
        """Return this policy with other ``parts``, counted and configured as this one.

        For parts that are chosen by a key; it is not watched on its own.
        """
        same = object.__new__(Policy)
        for attribute in self.__slots__:
            if attribute not in {"__weakref__", "_parts", "_layers"}:
                object.__setattr__(same, attribute, getattr(self, attribute))
        object.__setattr__(same, "_parts", {**self._parts, **parts})
        object.__setattr__(same, "_layers", same._laid())
        return same

    def check(self, **changes: Any) -> dict[str, Any]:
        """Return ``changes`` of ``timeout`` and ``attempt_timeout`` if they can be made.

        Raises:
            ConfigError: Definite. There is no such setting, or its value is wrong.
        """
        for key, value in changes.items():
            if key not in {"timeout", "attempt_timeout"}:
                message = f"Policy: no setting {key!r} to change; timeout and attempt_timeout are"
                raise ConfigError(message)
            if key == "attempt_timeout" and self._hard is not None:
                raise ConfigError("Policy: attempt_timeout is Hard(…) here and cannot be changed")
            check_seconds(key, value)
        return changes

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned; calls under way keep theirs."""
        for key, value in changes.items():
            object.__setattr__(self, f"_{key}", value)
        object.__setattr__(self, "version", self.version + 1)
        self._layers.bound(self._timeout, self._attempt_timeout)

    def configure(self, **changes: Any) -> None:
        """Change ``timeout`` and ``attempt_timeout`` live.

        Raises:
            ConfigError: Definite. There is no such setting, or its value is wrong.
        """
        self.apply(self.check(**changes))

    def forked(self) -> None:
        """This is the child of a fork: counts go on, the lock is nobody's."""
        object.__setattr__(self, "_lock", threading.Lock())

    def begin_anew(self) -> None:
        """This is another world: no call has been made. The parts see to themselves."""
        with self._lock:
            self._tally.begin_anew()
        self._layers.begin_anew()

    def __repr__(self) -> str:
        inside = ", ".join(f"{position}={part!r}" for position, part in self._parts.items())
        times = "".join(
            f", {key}={value:g}"
            for key, value in (
                ("timeout", self.timeout), ("attempt_timeout", self.attempt_timeout),
            )
            if value is not None
        )  # fmt: skip
        return f"Policy({self.name!r}{times}{', ' if inside else ''}{inside})"

    @contextmanager
    def forced(self, failing: Any) -> Iterator[None]:
        """Let attempts fail inside the block; for ``outlast.testing.forced``.

        Args:
            failing: A number that raises when it is added to another, and knows what it raised.

        Raises:
            TypeError: A part is chosen by a key, so that there is no frame yet that could fail.
        """
        if self._keyed:
            raise TypeError("forced: a part of this policy is chosen by a key; use Inject")
        self._layers.force(failing)
        try:
            yield
        finally:
            self._layers.force(None)
            self._layers.bound(self._timeout, self._attempt_timeout)

    # --- inside ----------------------------------------------------------------------------------

    def _laid(self) -> Layers:
        # Limits of time have a place even where there are none now: they can be set live.
        here = {*self._present(), "deadline", "attempt_timeout"}
        layers = Layers(self.name, frames(self._order, here), self._parts, self._tally, self._hard)
        layers.bound(self._timeout, self._attempt_timeout)
        return layers

    def _present(self) -> set[str]:
        """Positions at which something stands; limits of time can be set later."""
        present = {position for position in self._parts if position != "idempotency"}
        if self._timeout is not None:
            present.add("deadline")
        if self._attempt_timeout is not None:
            present.add("attempt_timeout")
        return present

    @property
    def _keyed(self) -> bool:
        """Whether a part is chosen by the arguments of each call."""
        return any(getattr(part, "keyed", False) for part in self._parts.values())

    @property
    def _looks_at_arguments(self) -> bool:
        """Whether a part is given the arguments of the call, which must be the caller's own."""
        return self._keyed or any(
            getattr(part, "sees_arguments", False) for part in self._parts.values()
        )

    def _begin(self) -> "Blocks":
        from outlast.protect.block import Blocks

        if "retry" in self._parts:
            message = (
                "`with policy:` cannot repeat its block; use `for attempt in policy.attempts():`"
            )
            raise TypeError(message)
        return Blocks(self._layers.only("a block"))


def _placed(position: str, part: Any) -> Any:
    """Return ``part`` if it fits the keyword under which it was given."""
    if isinstance(part, type):
        kind = part.__name__
        raise ConfigError(f"Policy: {position} is the class {kind}; give an object, {kind}(…)")
    fits = getattr(part, "position", None)
    if fits != position:
        right = f"; give it as {fits}=" if fits else ""
        raise ConfigError(f"Policy: {position} is {part!r}, which is no {position}{right}")
    return part


def check_name(name: object) -> str:
    """Return the name of a policy.

    Raises:
        ConfigError: It is no string; a part, for example, that was given without its keyword.
    """
    if isinstance(name, str):
        return name
    position = getattr(name, "position", None)
    right = f"; give it as {position}=" if position else "; a string would be right"
    raise ConfigError(f"Policy: name is {name!r}{right}")


def check_seconds(name: str, seconds: Any) -> float | None:
    """Return a length of time in seconds, or ``None``.

    Raises:
        ConfigError: It is not a number above 0.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise ConfigError(f"Policy: {name} is {seconds!r}; seconds above 0, or None for no limit")
    return None if seconds == float("inf") else float(seconds)


def _described(part: Any) -> dict[str, Any]:
    return {"kind": type(part).__name__, **part.describe()}
