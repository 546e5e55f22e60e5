"""``Inject``: faults in a call, for tests of what is around it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import wraps
from typing import Any, ClassVar, Final

from outlast.kernel import ConfigError, Prng, World, current_world
from outlast.protect.checks import DAY, NS, check_ns, check_number
from outlast.protect.part import Part

_PPM: Final = 1_000_000


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING: Final = _Nothing()
"""No result is injected."""


class Inject(Part):
    """Makes calls slow, lets them fail, or answers in their place; as often as it is told.

    It stands innermost in a policy, so that all the others meet the faults as if they came from
    the callee. First comes the latency, then the error or else the result; with an error or a
    result the function is not called.

    Args:
        error: An error, its class, or a function that makes one.
        error_rate: Share of calls that fail with it; 0 to 1.
        latency: How much longer calls take, in seconds; a pair for an even draw between two.
        latency_rate: Share of calls that take longer; 0 to 1.
        result: What is answered in place of the function's answer.
        result_rate: Share of calls that are so answered; 0 to 1.
        when: Called with the arguments of the call; only where it returns true is anything drawn.
        seed: For draws of its own; otherwise they come from the world.
        active: Whether it does anything outside of :meth:`enabled`.
        name: Shown in events and metrics; by default that of the policy.

    Raises:
        ConfigError: Definite. A setting is wrong, or a rate was given without its fault.
    """

    position: ClassVar[str] = "inject"
    settings = (
        "error", "error_rate", "latency", "latency_rate", "result", "result_rate", "when", "seed",
        "active",
    )  # fmt: skip

    __slots__ = (*settings, "_draws", "_error_ppm", "_latency_ns", "_latency_ppm", "_result_ppm",
                 "injected")  # fmt: skip

    def __init__(
        self,
        *,
        error: BaseException | Callable[[], BaseException] | None = None,
        error_rate: float = 0.0,
        latency: float | tuple[float, float] | None = None,
        latency_rate: float = 0.0,
        result: Any = NOTHING,
        result_rate: float = 0.0,
        when: Callable[..., bool] | None = None,
        seed: int | None = None,
        active: bool = True,
        name: str = "",
    ) -> None:
        super().__init__(name)
        self._error_ppm = _ppm("error", error_rate, there=error is not None)
        self._latency_ppm = _ppm("latency", latency_rate, there=latency is not None)
        self._result_ppm = _ppm("result", result_rate, there=result is not NOTHING)
        if error is not None and not isinstance(error, BaseException) and not callable(error):
            raise ConfigError(f"Inject: error is {error!r}; an error or its class would be right")
        pair = latency if isinstance(latency, tuple) else (latency or 0.0, latency or 0.0)
        if len(pair) != 2:
            raise ConfigError(f"Inject: latency is {latency!r}; seconds or a pair would be right")
        low_ns, high_ns = (check_ns("Inject", "latency", each, 0.0, DAY) for each in pair)
        if low_ns > high_ns:
            raise ConfigError(
                f"Inject: latency is {latency!r}; the lower end first would be right"
            )
        if when is not None and not callable(when):
            raise ConfigError(f"Inject: when is {when!r}; a function would be right")
        self._latency_ns = (low_ns, high_ns)
        self.error, self.error_rate = error, error_rate
        self.latency, self.latency_rate = latency, latency_rate
        self.result, self.result_rate = result, result_rate
        self.when = when
        self.seed = seed
        self.active = active
        self._draws = None if seed is None else Prng(seed)
        self.injected = {"latency": 0, "error": 0, "result": 0}

    @contextmanager
    def enabled(self, active: bool = True) -> Iterator["Inject"]:
        """Let it be active inside the block, in all threads; with ``False``, inactive."""
        before, self.active = self.active, active
        try:
            yield self
        finally:
            self.active = before

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned; draws go on unless the seed is changed."""
        fresh = Inject(**{name: changes.get(name, getattr(self, name)) for name in self.settings})
        derived = ("_error_ppm", "_latency_ppm", "_result_ppm", "_latency_ns")
        for name in (*self.settings, *derived):
            setattr(self, name, getattr(fresh, name))
        if "seed" in changes:
            self._draws = fresh._draws

    def snapshot(self) -> dict[str, Any]:
        """Return how many faults of each kind were injected."""
        return dict(self.injected)

    @property
    def sees_arguments(self) -> bool:  # type: ignore[override]
        """Whether ``when`` is asked, with the arguments of the call."""
        return self.when is not None

    def wrap_blocking(self, function: Callable[..., Any], policy_name: str) -> Callable[..., Any]:
        """Return ``function``, which blocks, with the faults."""

        @wraps(function)
        def injected(*args: Any, **kwargs: Any) -> Any:
            if not self.active or (self.when is not None and not self.when(*args, **kwargs)):
                return function(*args, **kwargs)
            world = current_world()
            wait_ns, error, answer = self._draw(world, policy_name)
            if wait_ns:
                world.clock.pause(wait_ns / NS)
            if error is not None:
                raise error
            return self.result if answer else function(*args, **kwargs)

        return injected

    def wrap_async(self, function: Callable[..., Any], policy_name: str) -> Callable[..., Any]:
        """Return ``function``, a coroutine function, with the faults."""

        @wraps(function)
        async def injected(*args: Any, **kwargs: Any) -> Any:
            if not self.active or (self.when is not None and not self.when(*args, **kwargs)):
                return await function(*args, **kwargs)
            world = current_world()
            wait_ns, error, answer = self._draw(world, policy_name)
            if wait_ns:
                await world.timers.sleep(wait_ns / NS)
            if error is not None:
                raise error
            return self.result if answer else await function(*args, **kwargs)

        return injected

    def _draw(self, world: World, name: str) -> tuple[int, BaseException | None, bool]:
        """Return what befalls one call: nanoseconds, an error, whether the result is injected."""
        prng = self._draws or world.prng
        wait_ns = 0
        error: BaseException | None = None
        answer = False
        if self._latency_ppm and prng.chance(self._latency_ppm, _PPM):
            wait_ns = prng.between(*self._latency_ns)
            self._tell(world, name, "latency", wait_ns / NS)
        if self._error_ppm and prng.chance(self._error_ppm, _PPM):
            error = self._make()
            self._tell(world, name, "error")
        elif self._result_ppm and prng.chance(self._result_ppm, _PPM):
            answer = True
            self._tell(world, name, "result")
        return wait_ns, error, answer

    def _make(self) -> BaseException:
        error = self.error
        if isinstance(error, BaseException):
            return copy(error)  # each call has one of its own, with its own traceback and notes
        made = error() if error is not None else None
        if not isinstance(made, BaseException):
            raise TypeError(f"Inject: error made {made!r}, which is no error")
        return made

    def _tell(self, world: World, name: str, kind: str, seconds: float = 0.0) -> None:
        from outlast.protect.events import FaultInjected

        self.injected[kind] += 1
        world.events.emit(FaultInjected(name=self.name or name, kind=kind, seconds=seconds))


def _ppm(kind: str, rate: float, *, there: bool) -> int:
    share = check_number("Inject", f"{kind}_rate", rate, 0.0, 1.0, what="a share")
    if share and not there:
        raise ConfigError(f"Inject: {kind}_rate is {rate!r}, and there is no {kind} to inject")
    return round(share * _PPM)
