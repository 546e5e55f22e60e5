"""Blocking code side by side in virtual time: a clock that can turn back for the next call."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from outlast.kernel import Event, World, reset_world, use_world
from outlast.testing import virtual_time

NS = 1_000_000_000


class TurningClock:
    """The clock of a simulated world, with ``beside``."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self.monotonic_ns = clock.monotonic_ns
        self.wall_ns = clock.wall_ns
        self.boot_id = clock.boot_id
        self.pause = clock.pause
        self.wait = clock.wait

    def beside(self, call: Callable[[], Any]) -> tuple[Any, BaseException | None, int]:
        begun_ns = self.monotonic_ns()
        answer: Any = None
        error: BaseException | None = None
        try:
            answer = call()
        except BaseException as raised:
            error = raised
        end_ns = self.monotonic_ns()
        self._clock._sim.spend(begun_ns - end_ns)
        return answer, error, end_ns


class Stage:
    """A world for one test."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.events: list[Event] = []
        self.begun_ns = world.clock.monotonic_ns()
        world.events.subscribe(self.events.append)  # type: ignore[attr-defined]

    def pause(self, seconds: float) -> None:
        self.world.clock.pause(seconds)

    @property
    def now(self) -> float:
        return (self.world.clock.monotonic_ns() - self.begun_ns) / NS

    def told(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


@contextmanager
def stage() -> Iterator[Stage]:
    with virtual_time() as time:
        world = replace(time.world, clock=TurningClock(time.world.clock))
        token = use_world(world)
        try:
            yield Stage(world)
        finally:
            reset_world(token)
