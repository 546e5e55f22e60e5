"""Retrying from coroutines: the one retry loop of the library."""

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from outlast.kernel import InvariantError, World, current_deadline, current_world, happened
from outlast.protect.core.note import add_note, set_mark
from outlast.protect.core.retry import GiveUp
from outlast.protect.events import RetryGaveUp, RetryScheduled
from outlast.protect.retry import Retry

P = ParamSpec("P")
R = TypeVar("R")

_NS = 1_000_000_000


class Attempt:
    """One attempt of :func:`attempts`; a context manager around the call.

    It keeps back an error after which another attempt follows, and lets every other through.

    Attributes:
        number: Which attempt this is; the first is 1.
        uncertain: Whether an earlier attempt, or this one, may have had an effect.
    """

    __slots__ = ("_delay_ns", "_name", "_policy", "_world", "number", "succeeded", "uncertain")

    def __init__(
        self, policy: Retry, number: int, world: World, name: str, *, uncertain: bool = False
    ) -> None:
        self.number = number
        self.succeeded = False
        self.uncertain = uncertain
        self._policy = policy
        self._world = world
        self._name = name
        self._delay_ns = 0

    def __enter__(self) -> "Attempt":
        """Begin the attempt."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """End the attempt; ``True`` keeps the error back because another attempt follows."""
        if error is None:
            self.succeeded = True
            return False
        if not isinstance(error, Exception):
            return False
        world = self._world
        decision = self._policy.decide(
            error,
            attempt=self.number,
            now_ns=world.clock.monotonic_ns(),
            deadline=current_deadline.get(),
            prng=world.prng,
        )
        shown = type(error).__name__
        self.uncertain = self.uncertain or happened(error) == "maybe"
        if isinstance(decision, GiveUp):
            if self.uncertain and happened(error) == "no":
                # This attempt surely did nothing; the call may have, by an earlier one.
                set_mark(error, "happened", "maybe")
            if self.number > 1:
                add_note(error, f"after {self.number} attempts: {decision.reason}")
            world.events.emit(
                RetryGaveUp(
                    name=self._name, attempt=self.number, reason=decision.reason, error=shown
                )
            )
            return False
        self._delay_ns = decision.delay_ns
        world.events.emit(
            RetryScheduled(
                name=self._name,
                attempt=self.number,
                delay=decision.delay_ns / _NS,
                error=shown,
            )
        )
        return True

    async def wait(self) -> None:
        """Wait out the delay before the next attempt."""
        await self._world.timers.sleep(self._delay_ns / _NS)


async def attempts(
    policy: Retry, *, name: str = "", world: World | None = None
) -> AsyncIterator[Attempt]:
    """Yield attempts until one succeeds; the error that ends them comes through itself.

    With ``Retry(on=…, attempts=None)`` it goes on until the deadline of the context, if any::

        async for attempt in attempts(Retry(on=UnavailableError, attempts=None)):
            with attempt:
                return await dial(…)

    Args:
        policy: Which errors, how often, after what waits.
        name: Shown in events.
        world: Clock, timers and draws; the current world by default.
    """
    where = world or current_world()
    number, uncertain = 0, False
    while True:
        number += 1
        attempt = Attempt(policy, number, where, name, uncertain=uncertain)
        yield attempt
        uncertain = attempt.uncertain
        if attempt.succeeded:
            return
        await attempt.wait()


async def call_with_retry(
    function: Callable[P, Awaitable[R]],
    policy: Retry,
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Await ``function(*args, **kwargs)``, again as ``policy`` says, and return its result.

    The deadline of the context (:func:`outlast.deadline`) bounds attempts and waits together.

    Raises:
        BaseException: What the last attempt raised, itself, with a note if it was not the first.
            Where that attempt surely had no effect and an earlier one may have had one, its
            ``happened`` is ``"maybe"``.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    async for attempt in attempts(policy, name=name):
        with attempt:
            return await function(*args, **kwargs)
    raise InvariantError("attempts ended without a success or an error")
